/* #NM, #MF and #XM: the three ways floating point faults, by CR0.EM, TS, MP, NE and CR4. SDM vol. 3 2.5,
 * 6.15 and table 13-1. */
#include "lib/guest.h"

static void cr0(u32 clear, u32 set)
{
    WRITE_CR(0, (READ_CR(0) & ~clear) | set);
}

static void no_device(void)
{
    static const struct {
        const char *what;
        u32 em_mp_ts;
        u32 x87, wait, sse, mmx; /* vectors wanted */
    } rows[] = {
        {"EM=0 MP=0 TS=0", 0, NO_TRAP, NO_TRAP, NO_TRAP, NO_TRAP},
        {"EM=0 MP=0 TS=1", CR0_TS, 7, NO_TRAP, 7, 7},
        {"EM=0 MP=1 TS=0", CR0_MP, NO_TRAP, NO_TRAP, NO_TRAP, NO_TRAP},
        {"EM=0 MP=1 TS=1", CR0_MP | CR0_TS, 7, 7, 7, 7},
        {"EM=1 MP=0 TS=0", CR0_EM, 7, NO_TRAP, 6, 6},
        {"EM=1 MP=1 TS=1", CR0_EM | CR0_MP | CR0_TS, 7, 7, 6, 6},
    };
    WRITE_CR(4, CR4_OSFXSR | CR4_OSXMM);
    cr0(0, CR0_NE);
    __asm__ volatile("fninit");
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr0(CR0_EM | CR0_MP | CR0_TS, rows[i].em_mp_ts);
        TRY(FAULTING("fnop"));
        check(trap.vector == rows[i].x87 && (trap.vector == NO_TRAP || trap.eip == fault_eip), "%s: fnop",
              rows[i].what);
        TRY(FAULTING("fwait"));
        check(trap.vector == rows[i].wait && (trap.vector == NO_TRAP || trap.eip == fault_eip), "%s: fwait",
              rows[i].what);
        TRY(FAULTING("xorps %xmm0, %xmm0"));
        check(trap.vector == rows[i].sse && (trap.vector == NO_TRAP || trap.eip == fault_eip), "%s: xorps",
              rows[i].what);
        TRY(FAULTING("movd %eax, %mm0"));
        check(trap.vector == rows[i].mmx && (trap.vector == NO_TRAP || trap.eip == fault_eip), "%s: movd",
              rows[i].what);
    }
    cr0(CR0_EM | CR0_MP | CR0_TS, CR0_TS);
    __asm__ volatile("clts");
    check(!(READ_CR(0) & CR0_TS), "clts clears TS");
    __asm__ volatile("emms");
    WRITE_CR(4, 0);
    TRY(FAULTING("xorps %xmm0, %xmm0"));
    check_trap(6, 0, "CR4.OSFXSR=0: SSE is #UD");
    TRY(FAULTING("movd %eax, %mm0"));
    check_eq(trap.vector, NO_TRAP, "CR4.OSFXSR=0: MMX works");
    __asm__ volatile("emms");
    WRITE_CR(4, CR4_OSFXSR | CR4_OSXMM);
}

static void unmask_zero_divide(void)
{
    static const u16 cw = 0x37b;
    __asm__ volatile("fninit; fldcw %0; fld1; fldz; fdivrp" : : "m"(cw));
}

static void x87_error(void)
{
    u16 status = 0;
    cr0(CR0_EM | CR0_MP | CR0_TS, CR0_NE);
    TRY(unmask_zero_divide());
    check_eq(trap.vector, NO_TRAP, "the faulting division itself is silent");
    __asm__ volatile("fnstsw %0" : "=m"(status));
    check_eq(status & 0x8084, 0x8084, "fnstsw does not wait: ZE, ES and B are set");
    TRY(FAULTING("fwait"));
    check_trap(16, 0, "#MF at the next fwait");
    TRY(FAULTING("fld1"));
    check_trap(16, 0, "MF: at the next fld1");
    __asm__ volatile("fnclex");
    TRY(FAULTING("fwait"));
    check_eq(trap.vector, NO_TRAP, "fnclex ends it");
    TRY(unmask_zero_divide());
    __asm__ volatile("fninit");
    TRY(FAULTING("fld1"));
    check_eq(trap.vector, NO_TRAP, "fninit ends it");
    __asm__ volatile("fninit");
}

static void simd_error(void)
{
    static const u32 unmasked = 0x1f80 & ~0x200, masked = 0x1f80, bad = 0x10000;
    static const float one = 1;
    u32 status;
    __asm__ volatile("ldmxcsr %0" : : "m"(unmasked));
    TRY(FAULTING("movss %0, %%xmm0; xorps %%xmm1, %%xmm1; movl $77f, fault_eip; 77: divss %%xmm1, %%xmm0",
                 :
                 : "m"(one)));
    check_trap(19, 0, "XM: divss by zero, unmasked");
    WRITE_CR(4, CR4_OSFXSR);
    TRY(FAULTING("movss %0, %%xmm0; xorps %%xmm1, %%xmm1; movl $77f, fault_eip; 77: divss %%xmm1, %%xmm0",
                 :
                 : "m"(one)));
    check_trap(6, 0, "XM: with CR4.OSXMMEXCPT=0 it is #UD");
    WRITE_CR(4, CR4_OSFXSR | CR4_OSXMM);
    __asm__ volatile("ldmxcsr %0" : : "m"(masked));
    TRY(FAULTING("movss %0, %%xmm0; xorps %%xmm1, %%xmm1; divss %%xmm1, %%xmm0", : : "m"(one)));
    check_eq(trap.vector, NO_TRAP, "masked: divss by zero is silent");
    __asm__ volatile("stmxcsr %0" : "=m"(status));
    check_eq(status & 4, 4, "and sets MXCSR.ZE");
    TRY(FAULTING("ldmxcsr %0", : : "m"(bad)));
    check_trap(13, 0, "MXCSR: a reserved bit is #GP(0)");
    static u8 area[528] __attribute__((aligned(16)));
    TRY(FAULTING("movaps %0, %%xmm0", : : "m"(area[1])));
    check_trap(13, 0, "align: movaps of a misaligned operand is #GP(0)");
    TRY(FAULTING("fxsave %0", : : "m"(area[8])));
    check_trap(13, 0, "align: fxsave to a misaligned area is #GP(0)");
}

void guest_main(void)
{
    no_device();
    x87_error();
    simd_error();
}
