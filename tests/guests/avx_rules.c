/* When XSAVE, XGETBV, XSETBV and VEX-coded instructions exist, and what they check (SDM vol. 1 13, vol. 2 2.4). */
#include "lib/guest.h"

enum { UD = 6, NM = 7, GP = 13, PF = 14, XM = 19, OSXSAVE = 1 << 18, VA = 0x1c00000 };
enum { XSAVE_BIT = 26, OSXSAVE_BIT = 27, AVX_BIT = 28, BMI1_BIT = 3, AVX2_BIT = 5 };

static u32 area[208] __attribute__((aligned(64)));
static u8 bytes[96] __attribute__((aligned(64)));
static u32 *pd;

static u32 leaf(u32 n, u32 sub, unsigned reg)
{
    u32 r[4];
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(n), "c"(sub));
    return r[reg];
}
enum { A, B, C, D };

static u32 xgetbv(void)
{
    u32 low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static void xsetbv(u32 v)
{
    __asm__ volatile("xsetbv" : : "a"(v), "c"(0), "d"(0));
}

static u32 xgetbv_insn(u32 index)
{
    u32 low;
    FAULTING("xgetbv", : "=a"(low) : "c"(index) : "edx");
    return low;
}

static u32 xsetbv_insn(u32 v)
{
    FAULTING("xsetbv", : : "a"(v), "c"(0), "d"(0));
    return 0;
}

static void vaddps(void)
{
    FAULTING("vaddps %ymm1, %ymm1, %ymm0", );
}

static void vex_128(void)
{
    FAULTING("vaddps %xmm1, %xmm1, %xmm0", );
}

static u32 andn(u32 a, u32 b)
{
    u32 v;
    FAULTING("andn %2, %1, %0", : "=r"(v) : "r"(a), "r"(b) : "cc");
    return v;
}

static void xsave(void *at, u32 mask)
{
    FAULTING("xsave (%0)", : : "r"(at), "a"(mask), "d"(0) : "memory");
}

static void xrstor(const void *at, u32 mask)
{
    FAULTING("xrstor (%0)", : : "r"(at), "a"(mask), "d"(0) : "memory");
}

static void before_osxsave(void)
{
    check_eq(leaf(1, 0, C) >> OSXSAVE_BIT & 1, 0, "CPUID: OSXSAVE follows CR4: clear");
    TRY(xgetbv_insn(0));
    check_trap(UD, 0, "XGETBV without CR4.OSXSAVE");
    TRY(xsetbv_insn(1));
    check_trap(UD, 0, "XSETBV without CR4.OSXSAVE");
    TRY(xsave(area, 3));
    check_trap(UD, 0, "XSAVE without CR4.OSXSAVE");
    TRY(xrstor(area, 3));
    check_trap(UD, 0, "XRSTOR without CR4.OSXSAVE");
    TRY(vaddps());
    check_trap(UD, 0, "VADDPS without CR4.OSXSAVE");
    if (leaf(7, 0, B) >> BMI1_BIT & 1) {
        u32 v = 0;
        TRY(v = andn(0xff, 0x1234));
        check(trap.vector == NO_TRAP && v == 0x1200, "ANDN needs no CR4.OSXSAVE");
    }
}

static void xcr0(void)
{
    static const struct {
        u32 value;
        bool ok;
    } cases[] = {{1, true},  {3, true},  {7, true},  {0, false},   {2, false},
                 {4, false}, {5, false}, {6, false}, {0x17, false}};
    WRITE_CR(4, READ_CR(4) | OSXSAVE);
    check_eq(leaf(1, 0, C) >> OSXSAVE_BIT & 1, 1, "CPUID: OSXSAVE follows CR4: set");
    check_eq(xgetbv(), 1, "XCR0 after reset");
    check_eq(leaf(13, 0, B), 576, "leaf 0Dh: size for XCR0 = 1");
    check((leaf(13, 0, A) & 7) == 7, "leaf 0Dh: x87, SSE, AVX");
    check(leaf(13, 2, A) == 256 && leaf(13, 2, B) == 576, "leaf 0Dh: the AVX area");
    TRY(vaddps());
    check_trap(UD, 0, "VADDPS with XCR0 = 1");
    for (u32 n = 0; n < sizeof cases / sizeof *cases; n++) {
        xsetbv(1);
        TRY(xsetbv_insn(cases[n].value));
        if (!cases[n].ok)
            check_trap(GP, 0, "XSETBV of %u", cases[n].value);
        else
            check(trap.vector == NO_TRAP, "XSETBV of %u", cases[n].value);
        check_eq(xgetbv(), cases[n].ok ? cases[n].value : 1, "XCR0 then, %u", cases[n].value);
    }
    xsetbv(3);
    TRY(vaddps());
    check_trap(UD, 0, "VADDPS with XCR0 = 3");
    TRY(vex_128());
    check_trap(UD, 0, "VADDPS of XMM with XCR0 = 3");
    xsetbv(7);
    check_eq(leaf(13, 0, B), 832, "leaf 0Dh: size for XCR0 = 7");
    TRY(vaddps());
    check(trap.vector == NO_TRAP, "VADDPS with XCR0 = 7");
    ring_call(3, xsetbv_insn, 7);
    check_trap(GP, 0, "XSETBV in ring 3");
    ring_call(3, xgetbv_insn, 0);
    check(trap.vector == VEC_RETURN && trap.eax == 7, "XGETBV in ring 3");
    TRY(xgetbv_insn(2));
    check_trap(GP, 0, "XGETBV of 2");
}

static void control_bits(void)
{
    WRITE_CR(0, READ_CR(0) | CR0_TS);
    TRY(vaddps());
    check_trap(NM, 0, "VADDPS with CR0.TS");
    TRY(xsave(area, 3));
    check_trap(NM, 0, "XSAVE with CR0.TS");
    TRY(xrstor(area, 3));
    check_trap(NM, 0, "XRSTOR with CR0.TS");
    check_eq(xgetbv(), 7, "XGETBV with CR0.TS");
    __asm__ volatile("clts");
    WRITE_CR(4, READ_CR(4) & ~OSXSAVE);
    TRY(vaddps());
    check_trap(UD, 0, "VADDPS after CR4.OSXSAVE was cleared");
    WRITE_CR(4, READ_CR(4) | OSXSAVE);
    check_eq(xgetbv(), 7, "XCR0 outlives CR4.OSXSAVE");
    WRITE_CR(4, READ_CR(4) & ~CR4_OSFXSR);
    TRY(vaddps());
    check(trap.vector == NO_TRAP, "VADDPS does not ask for CR4.OSFXSR");
    WRITE_CR(4, READ_CR(4) | CR4_OSFXSR);
}

static void prefixes(void)
{
    TRY(FAULTING(".byte 0xf0, 0xc5, 0xf8, 0x58, 0xc1", ));
    check_trap(UD, 0, "LOCK before VEX");
    TRY(FAULTING(".byte 0x66, 0xc5, 0xf8, 0x58, 0xc1", ));
    check_trap(UD, 0, "66 before VEX");
    TRY(FAULTING(".byte 0xf2, 0xc5, 0xf8, 0x58, 0xc1", ));
    check_trap(UD, 0, "F2 before VEX");
    TRY(FAULTING(".byte 0xf3, 0xc5, 0xf8, 0x58, 0xc1", ));
    check_trap(UD, 0, "F3 before VEX");
    TRY(FAULTING(".byte 0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1", ));
    if (!(leaf(7, 0, B) >> 16 & 1))
        check_trap(UD, 0, "EVEX");
    static u16 far[3] = {0x5678, 0x1234, 0};
    u32 v;
    far[2] = (u16)READ_SEG(ds);
    __asm__ volatile("movl %%es, %%ecx; les (%1), %0; movl %%ecx, %%es"
                     : "=r"(v)
                     : "r"(far)
                     : "ecx", "memory");
    check_eq(v, 0x12345678, "C4 with memory is LES");
    __asm__ volatile("lds (%1), %0" : "=r"(v) : "r"(far) : "memory");
    check_eq(v, 0x12345678, "C5 with memory is LDS");
}

static void operands(void)
{
    TRY(FAULTING("vmovaps (%0), %%ymm0", : : "r"(bytes + 16)));
    check_trap(GP, 0, "VMOVAPS of 32 bytes at 16");
    TRY(FAULTING("vmovaps (%0), %%xmm0", : : "r"(bytes + 16)));
    check(trap.vector == NO_TRAP, "VMOVAPS of 16 bytes at 16");
    TRY(FAULTING("vaddps (%0), %%ymm0, %%ymm0", : : "r"(bytes + 1)));
    check(trap.vector == NO_TRAP, "VADDPS of 32 bytes at 1");
    TRY(FAULTING("vaddps (%0), %%ymm0, %%ymm0", : : "r"(VA)));
    check_trap(PF, 0, "VADDPS of an absent page");
    check_eq(trap.cr2, VA, "and CR2");
    TRY(FAULTING("vmovups %%ymm0, (%0)", : : "r"(VA - 8)));
    check_trap(PF, PF_W, "VMOVUPS across into an absent page");
    check_eq(trap.cr2, VA, "and CR2");
    static const u32 unmasked = 0x1d80, usual = 0x1f80;
    __asm__ volatile("vxorps %%ymm0, %%ymm0, %%ymm0; vldmxcsr %0" : : "m"(unmasked));
    TRY(FAULTING("vdivps %ymm0, %ymm0, %ymm1", ));
    check(trap.vector == NO_TRAP, "0 / 0 is invalid, not a division by zero");
    static const u32 invalid_too = 0x1f00;
    __asm__ volatile("vldmxcsr %0" : : "m"(invalid_too));
    TRY(FAULTING("vdivps %ymm0, %ymm0, %ymm1", ));
    check_trap(XM, 0, "XM: 0 / 0 when invalid is unmasked");
    __asm__ volatile("vldmxcsr %0; vzeroall" : : "m"(usual));
}

/* Elements that the mask leaves out are not touched. */
static void masked(void)
{
    static const u32 low_half[8] = {~0u, ~0u, ~0u, ~0u, 0, 0, 0, 0},
                     all[8] = {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ~0u};
    u32 got[8];
    memset((void *)(VA - 4096), 0x5a, 4096);
    TRY(FAULTING("vmovups %1, %%ymm1; vmaskmovps (%2), %%ymm1, %%ymm2; vmovups %%ymm2, %0",
                 : "=m"(got)
                 : "m"(low_half), "r"(VA - 16)));
    check(trap.vector == NO_TRAP && got[3] == 0x5a5a5a5a && got[4] == 0,
          "VMASKMOVPS reads what the mask selects");
    __asm__ volatile("vmovups %0, %%ymm1" : : "m"(all));
    TRY(FAULTING("vmaskmovps (%0), %%ymm1, %%ymm2", : : "r"(VA - 16)));
    check_trap(PF, 0, "VMASKMOVPS faults when it selects an absent page");
    __asm__ volatile("vmovups %0, %%ymm1; vxorps %%ymm2, %%ymm2, %%ymm2" : : "m"(low_half));
    TRY(FAULTING("vmaskmovps %%ymm2, %%ymm1, (%0)", : : "r"(VA - 16) : "memory"));
    check(trap.vector == NO_TRAP && ((u32 *)VA)[-1] == 0 && ((u32 *)VA)[-5] == 0x5a5a5a5a,
          "VMASKMOVPS writes what the mask selects");
}

/* An element that faults leaves those before it done, and their masks clear. */
static void gather(void)
{
    static const u32 all[4] = {~0u, ~0u, ~0u, ~0u}, none[4];
    static u32 index[4] = {0, 1, 4096 / 4, 2}; /* of 4 bytes from VA - 4096: the third is absent */
    u32 got[4], mask[4], *page = (u32 *)(VA - 4096);
    page[0] = 100, page[1] = 101, page[2] = 102;
    __asm__ volatile("vmovups %0, %%xmm1; vmovups %1, %%xmm2; vmovups %2, %%xmm0"
                     :
                     : "m"(index), "m"(all), "m"(none));
    TRY(FAULTING("vpgatherdd %%xmm2, (%0,%%xmm1,4), %%xmm0", : : "r"(page)));
    check_trap(PF, 0, "VPGATHERDD of an absent element");
    check_eq(trap.cr2, VA, "and CR2");
    __asm__ volatile("vmovups %%xmm0, %0; vmovups %%xmm2, %1" : "=m"(got), "=m"(mask));
    check(got[0] == 100 && got[1] == 101 && mask[0] == 0 && mask[1] == 0, "the elements before it are done");
    check(mask[2] >> 31, "its own mask is still set");
    index[2] = 3;
    page[3] = 103;
    __asm__ volatile("vmovups %0, %%xmm1" : : "m"(index));
    TRY(FAULTING("vpgatherdd %%xmm2, (%0,%%xmm1,4), %%xmm0", : : "r"(page)));
    __asm__ volatile("vmovups %%xmm0, %0; vmovups %%xmm2, %1" : "=m"(got), "=m"(mask));
    check(trap.vector == NO_TRAP && got[0] == 100 && got[1] == 101 && got[2] == 103 && got[3] == 102,
          "and it can be started again");
    check(!memcmp(mask, none, 16), "all masks are clear then");
    index[0] = (u32)-1; /* wraps below 0 */
    __asm__ volatile("vmovups %0, %%xmm1; vmovups %1, %%xmm2" : : "m"(index), "m"(all));
    TRY(FAULTING("vpgatherdd %%xmm2, 4(%0,%%xmm1,4), %%xmm0", : : "r"(page)));
    __asm__ volatile("vmovups %%xmm0, %0" : "=m"(got));
    check(trap.vector == NO_TRAP && got[0] == 100, "an index is signed");
}

static void xsave_checks(void)
{
    memset(area, 0, sizeof area);
    TRY(xsave((u8 *)area + 16, 7));
    check_trap(GP, 0, "XSAVE at 16");
    TRY(xrstor((u8 *)area + 32, 7));
    check_trap(GP, 0, "XRSTOR at 32");
    TRY(xsave((void *)(VA - 512), 7));
    check_trap(PF, PF_W, "XSAVE whose header is absent");
    area[6] = 0x1f80;
    area[128] = 8; /* XSTATE_BV has a component that XCR0 has not */
    TRY(xrstor(area, 7));
    check_trap(GP, 0, "XRSTOR of a component that is not enabled");
    area[128] = 7;
    area[131] = 0x80000000; /* XCOMP_BV: compacted */
    if (!(leaf(13, 1, A) & 2)) {
        TRY(xrstor(area, 7));
        check_trap(GP, 0, "XRSTOR of the compacted format");
    }
    area[131] = 0;
    area[132] = 1; /* reserved */
    TRY(xrstor(area, 7));
    check_trap(GP, 0, "XRSTOR of a reserved header bit");
    area[132] = 0;
    area[6] = 0x80000000;
    TRY(xrstor(area, 2));
    check_trap(GP, 0, "MXCSR: XRSTOR of a reserved bit");
    area[6] = 0x1f80;
    TRY(xrstor(area, 7));
    check(trap.vector == NO_TRAP, "XRSTOR of a good image");
}

void guest_main(void)
{
    WRITE_CR(4, CR4_OSFXSR | CR4_OSXMM);
    WRITE_CR(0, (READ_CR(0) & ~CR0_EM) | CR0_MP | CR0_NE);
    if (!(leaf(1, 0, C) >> AVX_BIT & 1) || !(leaf(7, 0, B) >> AVX2_BIT & 1)) {
        check(true, "this processor has no AVX2: nothing to state");
        return;
    }
    pd = pd_create(P | W | U);
    *pte32(pd, VA) = 0;
    paging_on(pd, CR4_OSFXSR | CR4_OSXMM);
    before_osxsave();
    xcr0();
    control_bits();
    prefixes();
    operands();
    masked();
    gather();
    xsave_checks();
}
