/*
 * One case per row of ringcomp's table of sensitive instructions (check_rows.py fails when a row has none):
 * the instruction is executed in ring 0 and in ring 3, and must show the guest its own machine in both.
 */
#include "lib/guest.h"

enum { RETURNS = VEC_RETURN, UD = 6, GP = 13, IF = 0x200, MAGIC = 0x600df00d, VEC_FREE = 0x70 };
enum { EFER = 0xc0000080, SYSENTER_CS = 0x174 };

static u32 data[4] = {MAGIC, 0, 0, 0};
static volatile struct table stored;
static volatile u32 scratch[4];
u32 xsave_area[208] __attribute__((aligned(64)));
static u16 data_based, code16[4], gate0, small_limit;

/* Code labels of assembly that is entered by a far transfer. */
extern const char fast_target[], gate_target[], iret16_target[];
__asm__("fast_target: movl %cs, %eax; int $0x80\n"
        "gate_target: movl %cs, %eax; lret\n"
        "iret16_target: lret\n");

static u32 own_code(u32 ring)
{
    return SEL_CODE0 + 17 * ring;
}

/* ---- Running: each returns what its judge looks at. arg is the ring. ---- */
#define RUN(name, ...)                                                                                       \
    static u32 run_##name(u32 ring)                                                                          \
    {                                                                                                        \
        u32 v = 0;                                                                                           \
        (void)ring;                                                                                          \
        __VA_ARGS__;                                                                                         \
        return v;                                                                                            \
    }
RUN(sgdt, __asm__ volatile("sgdt %0" : "=m"(stored)))
RUN(sidt, __asm__ volatile("sidt %0" : "=m"(stored)))
RUN(sldt, __asm__ volatile("sldt %w0" : "+r"(v)))
RUN(str, __asm__ volatile("str %w0" : "+r"(v)))
RUN(smsw, __asm__ volatile("smsw %w0" : "+r"(v)))
RUN(pushf, __asm__ volatile("pushfw; popw %w0" : "+r"(v)))
RUN(pushfd, __asm__ volatile("pushfl; popl %0" : "=r"(v)))
RUN(popf, __asm__ volatile("pushfw; orw $0x3200, (%%esp); popfw; pushfl; popl %0; pushl $2; popfl" : "=r"(v)))
RUN(popfd, __asm__ volatile("pushfl; orl $0x3200, (%%esp); popfl; pushfl; popl %0; pushl $2; popfl"
                            : "=r"(v)))
RUN(lar, __asm__ volatile("larl %1, %0" : "+r"(v) : "r"(SEL_CODE3)))
RUN(lsl, __asm__ volatile("lsll %1, %0" : "+r"(v) : "r"((u32)small_limit)))
RUN(verr, __asm__ volatile("verr %w1; setz %b0" : "+q"(v) : "r"(SEL_DATA0)))
RUN(verw, __asm__ volatile("verw %w1; setz %b0" : "+q"(v) : "r"(SEL_DATA0)))
RUN(pop_sreg, __asm__ volatile("pushl %1; popl %%fs; movl %%fs:0, %0" : "=r"(v) : "r"((u32)data_based)))
RUN(push_sreg, __asm__ volatile("pushl %%cs; popl %0" : "=r"(v)); v &= 0xffff)
RUN(mov_to_sreg, __asm__ volatile("movl %1, %%gs; movl %%gs:0, %0" : "=r"(v) : "r"((u32)data_based)))
RUN(mov_from_sreg, __asm__ volatile("movl %%cs, %0" : "=r"(v)))
RUN(call_far, __asm__ volatile("pushl %1; pushl $0; lcall *(%%esp); addl $8, %%esp"
                               : "=a"(v)
                               : "r"((u32)gate0)
                               : "memory"))
RUN(jmp_far, __asm__ volatile("pushl %1; pushl $1f; ljmp *(%%esp)\n1: addl $8, %%esp; movl %%cs, %0"
                              : "=r"(v)
                              : "r"(own_code(ring))
                              : "memory"))
RUN(ret_far, __asm__ volatile("pushl %1; pushl $1f; lret\n1: movl %%cs, %0" : "=r"(v) : "r"(own_code(ring))))
RUN(int_n, __asm__ volatile("int $0x70" : "=a"(v)))
RUN(iret16, __asm__ volatile("pushl %%cs; pushl $1f; pushfw; pushw %w1; pushw $0; iretw\n1: movl %%cs, %0"
                             : "=r"(v)
                             : "r"((u32)code16[ring])))
RUN(iretd, __asm__ volatile("pushfl; pushl %1; pushl $1f; iret\n1: movl %%cs, %0"
                            : "=r"(v)
                            : "r"(own_code(ring))))
RUN(int3, __asm__ volatile("int3"))
RUN(int1, __asm__ volatile(".byte 0xf1"))
RUN(into, __asm__ volatile("movb $127, %%al; addb $1, %%al; into" : : : "eax"))
RUN(bound, __asm__ volatile(".byte 0x62, 0x01" : : "a"(5), "c"(&scratch[2])))
static struct {
    u32 offset;
    u16 selector;
} __attribute__((packed)) far_data, far_stack[4];
RUN(les, __asm__ volatile("pushl %%es; lesl %1, %%ecx; movl %%es:(%%ecx), %0; popl %%es"
                          : "=&r"(v)
                          : "m"(far_data)
                          : "ecx"))
RUN(lds, __asm__ volatile("pushl %%ds; ldsl %1, %%ecx; movl (%%ecx), %0; popl %%ds"
                          : "=&r"(v)
                          : "m"(far_data)
                          : "ecx"))
RUN(lfs, __asm__ volatile("lfsl %1, %%ecx; movl %%fs:(%%ecx), %0" : "=&r"(v) : "m"(far_data) : "ecx"))
RUN(lgs, __asm__ volatile("lgsl %1, %%ecx; movl %%gs:(%%ecx), %0" : "=&r"(v) : "m"(far_data) : "ecx"))
RUN(lss, __asm__ volatile("lssl %1, %%ecx; movl %%ss, %0" : "=&r"(v) : "m"(far_stack[ring]) : "ecx"))
RUN(sysenter, __asm__ volatile("sysenter"))
RUN(sysexit, __asm__ volatile("sysexit" : : "d"(fast_target), "c"(ring_stack_top(3))))
RUN(syscall, __asm__ volatile(".byte 0x0f, 0x05" : : : "ecx"))
RUN(sysret, __asm__ volatile(".byte 0x0f, 0x07"))
RUN(cpuid, u32 a; u32 b; u32 c; cpuid(0x80000001, &a, &b, &c, &v))
RUN(rdtsc, __asm__ volatile("rdtsc" : "=a"(v) : : "edx"))
RUN(rdtscp, __asm__ volatile(".byte 0x0f, 0x01, 0xf9" : "=a"(v) : : "ecx", "edx"))
RUN(rdpid, __asm__ volatile(".byte 0xf3, 0x0f, 0xc7, 0xf8" : "=a"(v)))
RUN(xgetbv, __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(v) : "c"(0) : "edx"))
RUN(cli, __asm__ volatile("cli"); v = eflags())
RUN(sti, __asm__ volatile("sti"); v = eflags(); __asm__ volatile("cli"))
RUN(in, v = inb(0x3fd))
RUN(out, outl(0xcf8, 0x80000008); v = inl(0xcf8))
static u32 input(u32 which, u16 port)
{
    void *to = (void *)scratch;
    scratch[0] = 0;
    switch (which) {
    case 1:
        __asm__ volatile("insb" : "+D"(to) : "d"(port) : "memory");
        break;
    case 2:
        __asm__ volatile("insw" : "+D"(to) : "d"(port) : "memory");
        break;
    default:
        __asm__ volatile("insl" : "+D"(to) : "d"(port) : "memory");
    }
    return scratch[0];
}
RUN(insb, v = input(1, 0x3fd))
RUN(insw, v = input(2, 0xb0b0))
RUN(insd, v = input(4, 0xcf8))
RUN(outsb, static const u8 post = 7; const void *from = &post; __asm__ volatile("outsb"
                                                                                : "+S"(from)
                                                                                : "d"(0x80)
                                                                                : "memory");
    v = (u32)from - (u32)&post)
RUN(outsw, static const u16 post = 7; const void *from = &post; __asm__ volatile("outsw"
                                                                                 : "+S"(from)
                                                                                 : "d"(0xb0b0)
                                                                                 : "memory");
    v = (u32)from - (u32)&post)
RUN(outsd, static const u32 post = 0x80000010; const void *from = &post; __asm__ volatile("outsl"
                                                                                          : "+S"(from)
                                                                                          : "d"(0xcf8)
                                                                                          : "memory");
    v = inl(0xcf8))
RUN(hlt, __asm__ volatile("sti; hlt; cli"); v = irq_count[0])
RUN(hlt3, __asm__ volatile("hlt"))
RUN(lgdt, load_gdt(gdt, sizeof gdt - 9); run_sgdt(0); v = stored.limit; load_gdt(gdt, sizeof gdt - 1))
RUN(lidt, load_idt(idt, sizeof idt - 9); run_sidt(0); v = stored.limit; load_idt(idt, sizeof idt - 1))
RUN(lldt, __asm__ volatile("lldt %w0"
                           :
                           : "r"(0));
    v = run_sldt(0); __asm__ volatile("lldt %w0"
                                      :
                                      : "r"(SEL_LDT)))
RUN(ltr, gdt[SEL_TSS / 8] &= ~(2ull << 40); __asm__ volatile("ltr %w0"
                                                             :
                                                             : "r"(SEL_TSS)
                                                             : "memory");
    v = (u32)(gdt[SEL_TSS / 8] >> 41) & 1)
RUN(lmsw, __asm__ volatile("lmsw %w0" : : "r"(0x19)); v = READ_CR(0) & 15)
RUN(clts, __asm__ volatile("clts"); v = READ_CR(0) & 8)
RUN(mov_to_cr, WRITE_CR(2, 0x1234); v = READ_CR(2))
RUN(mov_from_cr, v = READ_CR(0))
RUN(mov_to_dr, WRITE_DR(1, 0x4321); v = READ_DR(1))
RUN(mov_from_dr, v = READ_DR(7))
RUN(invlpg, invlpg((void *)0x1000))
RUN(invd, __asm__ volatile("invd"))
RUN(wbinvd, __asm__ volatile("wbinvd"))
RUN(rdmsr, __asm__ volatile("rdmsr" : "=a"(v) : "c"(SYSENTER_CS) : "edx"))
RUN(wrmsr, __asm__ volatile("wrmsr"
                            :
                            : "c"(SYSENTER_CS), "a"(SEL_CODE0), "d"(0));
    v = (u32)rdmsr(SYSENTER_CS))
RUN(rdpmc, __asm__ volatile("rdpmc" : : "c"(0) : "eax", "edx"))
RUN(xsave, __asm__ volatile(".byte 0x0f, 0xae, 0x25; .long xsave_area" : : "a"(3), "d"(0) : "memory"))
RUN(xsaveopt, __asm__ volatile(".byte 0x0f, 0xae, 0x35; .long xsave_area" : : "a"(3), "d"(0) : "memory"))
RUN(xrstor, __asm__ volatile(".byte 0x0f, 0xae, 0x2d; .long xsave_area" : : "a"(3), "d"(0) : "memory"))
RUN(xsetbv, __asm__ volatile(".byte 0x0f, 0x01, 0xd1" : : "c"(0), "a"(1), "d"(0)))
RUN(monitor, __asm__ volatile(".byte 0x0f, 0x01, 0xc8" : : "a"(data), "c"(0), "d"(0)))
RUN(mwait, __asm__ volatile(".byte 0x0f, 0x01, 0xc9" : : "a"(0), "c"(0)))
RUN(rsm, __asm__ volatile(".byte 0x0f, 0xaa"))

/* ---- Judging the value a run returned in a ring. ---- */
static bool any(u32 v, u32 ring)
{
    return (void)v, (void)ring, true;
}
static bool is_gdtr(u32 v, u32 ring)
{
    (void)v, (void)ring;
    return stored.base == (u32)gdt && stored.limit == sizeof gdt - 1;
}
static bool is_idtr(u32 v, u32 ring)
{
    (void)v, (void)ring;
    return stored.base == (u32)idt && stored.limit == sizeof idt - 1;
}
static bool is_ldt(u32 v, u32 ring)
{
    return (void)ring, v == SEL_LDT;
}
static bool is_tss(u32 v, u32 ring)
{
    return (void)ring, v == SEL_TSS;
}
static bool is_cr0(u32 v, u32 ring)
{
    return (void)ring, (v & 0xffff) == (READ_CR(0) & 0xffff);
}
static bool if_is_clear(u32 v, u32 ring)
{
    return (void)ring, !(v & 0x3200);
}
static bool only_ring0_may(u32 v, u32 ring)
{
    return (v & 0x3200) == (ring ? 0 : 0x3200);
}
static bool is_code3_rights(u32 v, u32 ring)
{
    return (void)ring, (v & 0xf0fe00) == 0xc0fa00;
}
static bool is_small_limit(u32 v, u32 ring)
{
    return (void)ring, v == 0x12345;
}
static bool one_in_ring0(u32 v, u32 ring)
{
    return v == !ring;
}
static bool is_magic(u32 v, u32 ring)
{
    return (void)ring, v == MAGIC;
}
static bool is_own_code(u32 v, u32 ring)
{
    return v == own_code(ring);
}
static bool is_own_data(u32 v, u32 ring)
{
    return v == SEL_DATA0 + 17 * ring;
}
static bool is_code0(u32 v, u32 ring)
{
    return (void)ring, (v & 0xffff) == SEL_CODE0;
}
static bool is_sysexit_code(u32 v, u32 ring)
{
    return (void)ring, v == SEL_CODE0 + 16 + 3;
}
static bool is_free_vector(u32 v, u32 ring)
{
    return (void)ring, v == VEC_FREE;
}
static bool no_long_mode(u32 v, u32 ring)
{
    return (void)ring, !(v & 1u << 29);
}
static bool if_is_set(u32 v, u32 ring)
{
    return (void)ring, (v & IF) != 0;
}
static bool transmitter(u32 v, u32 ring)
{
    return (void)ring, (v & 0x20) != 0;
}
static bool is_pci_address(u32 v, u32 ring)
{
    return (void)ring, v == 0x80000008;
}
static bool is_pci_address_2(u32 v, u32 ring)
{
    return (void)ring, v == 0x80000010;
}
static bool all_ones_16(u32 v, u32 ring)
{
    return (void)ring, v == 0xffff;
}
static bool is_1(u32 v, u32 ring)
{
    return (void)ring, v == 1;
}
static bool is_2(u32 v, u32 ring)
{
    return (void)ring, v == 2;
}
static bool is_0(u32 v, u32 ring)
{
    return (void)ring, v == 0;
}
static bool is_cut_gdt(u32 v, u32 ring)
{
    return (void)ring, v == sizeof gdt - 9;
}
static bool is_cut_idt(u32 v, u32 ring)
{
    return (void)ring, v == sizeof idt - 9;
}
static bool is_msw(u32 v, u32 ring)
{
    return (void)ring, (v & 15) == 9;
}
static bool is_1234(u32 v, u32 ring)
{
    return (void)ring, v == 0x1234;
}
static bool is_4321(u32 v, u32 ring)
{
    return (void)ring, v == 0x4321;
}
static bool is_dr7(u32 v, u32 ring)
{
    return (void)ring, v == 0x400;
}

/* ---- The cases, in the table's order. ring0/ring3: the trap it ends with; RETURNS: none. ---- */
struct sensitive_case {
    const char *mnemonic, *form;
    u32 (*run)(u32);
    u32 ring0, ring3;
    bool (*judge)(u32 v, u32 ring);
    u32 (*run3)(u32); /* when ring 3 needs another */
};
#define CASE(mnemonic, form, ...)                                                                            \
    {                                                                                                        \
        mnemonic, form, __VA_ARGS__                                                                          \
    }
static const struct sensitive_case cases[] = {
    CASE("sgdt", "", run_sgdt, RETURNS, RETURNS, is_gdtr, NULL),
    CASE("sidt", "", run_sidt, RETURNS, RETURNS, is_idtr, NULL),
    CASE("sldt", "", run_sldt, RETURNS, RETURNS, is_ldt, NULL),
    CASE("str", "", run_str, RETURNS, RETURNS, is_tss, NULL),
    CASE("smsw", "", run_smsw, RETURNS, RETURNS, is_cr0, NULL),
    CASE("pushf", "", run_pushf, RETURNS, RETURNS, if_is_clear, NULL),
    CASE("pushfd", "", run_pushfd, RETURNS, RETURNS, if_is_clear, NULL),
    CASE("popf", "", run_popf, RETURNS, RETURNS, only_ring0_may, NULL),
    CASE("popfd", "", run_popfd, RETURNS, RETURNS, only_ring0_may, NULL),
    CASE("lar", "", run_lar, RETURNS, RETURNS, is_code3_rights, NULL),
    CASE("lsl", "", run_lsl, RETURNS, RETURNS, is_small_limit, NULL),
    CASE("verr", "", run_verr, RETURNS, RETURNS, one_in_ring0, NULL),
    CASE("verw", "", run_verw, RETURNS, RETURNS, one_in_ring0, NULL),
    CASE("pop", "sreg", run_pop_sreg, RETURNS, RETURNS, is_magic, NULL),
    CASE("push", "sreg", run_push_sreg, RETURNS, RETURNS, is_own_code, NULL),
    CASE("mov", "sreg, r/m16", run_mov_to_sreg, RETURNS, RETURNS, is_magic, NULL),
    CASE("mov", "r/m16, sreg", run_mov_from_sreg, RETURNS, RETURNS, is_own_code, NULL),
    CASE("call", "far", run_call_far, RETURNS, RETURNS, is_code0, NULL),
    CASE("jmp", "far", run_jmp_far, RETURNS, RETURNS, is_own_code, NULL),
    CASE("ret", "far", run_ret_far, RETURNS, RETURNS, is_own_code, NULL),
    CASE("int", "", run_int_n, RETURNS, RETURNS, is_free_vector, NULL),
    CASE("iret", "", run_iret16, RETURNS, RETURNS, is_own_code, NULL),
    CASE("iretd", "", run_iretd, RETURNS, RETURNS, is_own_code, NULL),
    CASE("int3", "", run_int3, 3, 3, any, NULL),
    CASE("int1", "", run_int1, 1, 1, any, NULL),
    CASE("into", "", run_into, 4, 4, any, NULL),
    CASE("bound", "", run_bound, 5, 5, any, NULL),
    CASE("les", "", run_les, RETURNS, RETURNS, is_magic, NULL),
    CASE("lds", "", run_lds, RETURNS, RETURNS, is_magic, NULL),
    CASE("lss", "", run_lss, RETURNS, RETURNS, is_own_data, NULL),
    CASE("lfs", "", run_lfs, RETURNS, RETURNS, is_magic, NULL),
    CASE("lgs", "", run_lgs, RETURNS, RETURNS, is_magic, NULL),
    CASE("sysenter", "", run_sysenter, RETURNS, RETURNS, is_code0, NULL),
    CASE("sysexit", "", run_sysexit, RETURNS, GP, is_sysexit_code, NULL),
    CASE("syscall", "", run_syscall, UD, UD, any, NULL),
    CASE("sysret", "", run_sysret, UD, UD, any, NULL),
    CASE("cpuid", "", run_cpuid, RETURNS, RETURNS, no_long_mode, NULL),
    CASE("rdtsc", "", run_rdtsc, RETURNS, GP, any, NULL),
    CASE("rdtscp", "", run_rdtscp, UD, UD, any, NULL),
    CASE("rdpid", "", run_rdpid, UD, UD, any, NULL),
    CASE("xgetbv", "", run_xgetbv, UD, UD, any,
         NULL), /* CR4.OSXSAVE is clear: guest avx_rules has the rest */
    CASE("xsave", "", run_xsave, UD, UD, any, NULL),
    CASE("xsaveopt", "", run_xsaveopt, UD, UD, any, NULL),
    CASE("xrstor", "", run_xrstor, UD, UD, any, NULL),
    CASE("cli", "", run_cli, RETURNS, GP, if_is_clear, NULL),
    CASE("sti", "", run_sti, RETURNS, GP, if_is_set, NULL),
    CASE("in", "", run_in, RETURNS, GP, transmitter, NULL),
    CASE("out", "", run_out, RETURNS, GP, is_pci_address, NULL),
    CASE("insb", "", run_insb, RETURNS, GP, transmitter, NULL),
    CASE("insw", "", run_insw, RETURNS, GP, all_ones_16, NULL),
    CASE("insd", "", run_insd, RETURNS, GP, is_pci_address, NULL),
    CASE("outsb", "", run_outsb, RETURNS, GP, is_1, NULL),
    CASE("outsw", "", run_outsw, RETURNS, GP, is_2, NULL),
    CASE("outsd", "", run_outsd, RETURNS, GP, is_pci_address_2, NULL),
    CASE("hlt", "", run_hlt, RETURNS, GP, is_1, run_hlt3),
    CASE("lgdt", "", run_lgdt, RETURNS, GP, is_cut_gdt, NULL),
    CASE("lidt", "", run_lidt, RETURNS, GP, is_cut_idt, NULL),
    CASE("lldt", "", run_lldt, RETURNS, GP, is_0, NULL),
    CASE("ltr", "", run_ltr, RETURNS, GP, is_1, NULL),
    CASE("lmsw", "", run_lmsw, RETURNS, GP, is_msw, NULL),
    CASE("clts", "", run_clts, RETURNS, GP, is_0, NULL),
    CASE("mov", "cr, r32", run_mov_to_cr, RETURNS, GP, is_1234, NULL),
    CASE("mov", "r32, cr", run_mov_from_cr, RETURNS, GP, is_cr0, NULL),
    CASE("mov", "dr, r32", run_mov_to_dr, RETURNS, GP, is_4321, NULL),
    CASE("mov", "r32, dr", run_mov_from_dr, RETURNS, GP, is_dr7, NULL),
    CASE("invlpg", "", run_invlpg, RETURNS, GP, any, NULL),
    CASE("invd", "", run_invd, RETURNS, GP, any, NULL),
    CASE("wbinvd", "", run_wbinvd, RETURNS, GP, any, NULL),
    CASE("rdmsr", "", run_rdmsr, RETURNS, GP, is_code0, NULL),
    CASE("wrmsr", "", run_wrmsr, RETURNS, GP, is_code0, NULL),
    CASE("rdpmc", "", run_rdpmc, GP, GP, any, NULL),
    CASE("xsetbv", "", run_xsetbv, UD, UD, any, NULL),
    CASE("monitor", "", run_monitor, UD, UD, any, NULL),
    CASE("mwait", "", run_mwait, UD, UD, any, NULL),
    CASE("rsm", "", run_rsm, UD, UD, any, NULL),
};

/* QEMU's `max` CPU has a few instructions ringlet does not offer; where CPUID offers one, it may work. */
static bool offered(const char *mnemonic)
{
    u32 a, b, c, d;
    if (!memcmp(mnemonic, "rdtscp", 7)) {
        cpuid(0x80000001, &a, &b, &c, &d);
        return d >> 27 & 1;
    }
    if (!memcmp(mnemonic, "rdpid", 6)) {
        cpuid(7, &a, &b, &c, &d);
        return c >> 22 & 1;
    }
    if (!memcmp(mnemonic, "m", 1)) {
        cpuid(1, &a, &b, &c, &d);
        return (!memcmp(mnemonic, "monitor", 8) || !memcmp(mnemonic, "mwait", 6)) && (c >> 3 & 1);
    }
    return false;
}

static void prepare(const struct sensitive_case *c)
{
    irq_count[0] = 0;
    if (c->run == run_hlt) {
        pic_mask(0xfffe);
        pit_oneshot(1000);
    }
    if (c->run == run_clts)
        WRITE_CR(0, READ_CR(0) | CR0_TS);
    WRITE_CR(4, c->run == run_rdtsc ? CR4_TSD : 0);
}

static void one(const struct sensitive_case *c, unsigned ring)
{
    static volatile u32 value;
    u32 want = ring ? c->ring3 : c->ring0;
    if (c->run == run_mwait && !ring && offered(c->mnemonic))
        return; /* it would wait for ever */
    prepare(c);
    if (ring) {
        ring_call(3, c->run3 ? c->run3 : c->run, ring);
        value = trap.eax;
    } else {
        TRY(value = c->run(0));
        if (trap.vector == NO_TRAP)
            trap.vector = RETURNS;
        else if (trap.vector == VEC_RETURN)
            value = trap.eax;
    }
    pic_mask(0xffff);
    if (want == UD && trap.vector == RETURNS && offered(c->mnemonic))
        want = RETURNS;
    bool holds =
        trap.vector == want && (want != GP || trap.error == 0) && (want != RETURNS || c->judge(value, ring));
    if (!check(holds, "row %s%s%s%s: ring %u", c->mnemonic, *c->form ? " (" : "", c->form,
               *c->form ? ")" : "", ring))
        print("   vector %u error %x value %X, want vector %u\n", trap.vector, trap.error, value, want);
}

static bool answer(struct frame *f)
{
    f->eax = f->vector;
    return true;
}

static void descriptors(void)
{
    data_based = gdt_test(0, descriptor((u32)data, 15, D_DATA_W | D_DPL3 | D_32)) | 3;
    small_limit = gdt_test(1, descriptor(0, 0x12345, D_DATA_W | D_DPL3 | D_32)) | 3;
    code16[0] = gdt_test(2, descriptor((u32)iret16_target, 0xfff, D_CODE_R | D_32));
    code16[3] = gdt_test(3, descriptor((u32)iret16_target, 0xfff, D_CODE_R | D_DPL3 | D_32)) | 3;
    gate0 = gdt_test(4, gate(SEL_CODE0, (u32)gate_target, 0xec, 0)) | 3;
    gdt[SEL_LDT / 8] = descriptor((u32)gdt, 63, D_LDT);
    __asm__ volatile("lldt %w0" : : "r"(SEL_LDT));
    far_data.selector = data_based;
    far_stack[0].selector = SEL_DATA0;
    far_stack[3].selector = SEL_DATA3;
    idt_set(VEC_FREE, trap_stubs[VEC_FREE], 0xee);
    idt_set(5, trap_stubs[5], 0x8e);
    trap_hook[VEC_FREE] = answer;
    wrmsr(SYSENTER_CS, SEL_CODE0);
    wrmsr(SYSENTER_CS + 1, tss.esp0);
    wrmsr(SYSENTER_CS + 2, (u32)fast_target);
    scratch[2] = 6; /* bound: 5 is below 6..7 */
    scratch[3] = 7;
}

void guest_main(void)
{
    descriptors();
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        one(&cases[i], 0);
        one(&cases[i], 3);
    }
}
