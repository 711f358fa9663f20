/*
 * The rows of the tour: each executes one instruction in one ring and says what it saw. The third column is
 * what the same instruction gives a process in ring 3 of a 64-bit Linux host, which is where this guest
 * really runs (SDM vol. 3 2.4-2.8 and 5.x; selectors and UMIP's dummy values as in Linux, arch/x86).
 */
#include "tour.h"

enum { IF = 0x200, FLAGS_NONE = 2, GP = 13 };

/*T:590 What a guest must not see
 * A guest kernel that runs in the host's ring 3 could find out in dozens of ways, and most of them do not
 * trap: SGDT stores the host's GDT base, PUSHF shows the host's IF, MOV from CS the host's selector, POPF
 * drops a change of IF without a word. That is why an x86 before VT-x could not be virtualized by trapping
 * alone, and why ringlet looks at every instruction before it runs. `ringlet run` without a guest shows it
 * row by row: this is the table behind that output.
 :*/
struct row {
    u8 ring;
    const char *insn;
    u32 (*run)(void);
    /* Judge arrived and say what was seen. */
    bool (*judge)(const struct machine *m, struct line *saw);
    const char *bare;
};

struct pseudo {
    u16 limit;
    u32 base;
} __attribute__((packed));
static volatile struct pseudo stored;
static volatile u32 extra;

static bool came_back(void)
{
    return arrived.vector == VECTOR_BACK;
}

static u32 run_sgdt(void)
{
    __asm__ volatile("sgdt %0" : "=m"(stored));
    return 0;
}

static bool judge_sgdt(const struct machine *m, struct line *saw)
{
    line_add(saw, "base %w limit %x", stored.base, stored.limit);
    return came_back() && stored.base == m->gdt_base && stored.limit == m->gdt_limit;
}

static u32 run_sidt(void)
{
    __asm__ volatile("sidt %0" : "=m"(stored));
    return 0;
}

static bool judge_sidt(const struct machine *m, struct line *saw)
{
    line_add(saw, "base %w limit %x", stored.base, stored.limit);
    return came_back() && stored.base == m->idt_base && stored.limit == m->idt_limit;
}

static bool selector(struct line *saw, u32 want)
{
    line_add(saw, "%h", arrived.eax);
    return came_back() && arrived.eax == want;
}

static u32 run_sldt(void)
{
    u32 v = 0;
    __asm__ volatile("sldt %w0" : "+r"(v));
    return v & 0xffff;
}

static bool judge_sldt(const struct machine *m, struct line *saw)
{
    (void)m;
    return selector(saw, LOCAL);
}

static u32 run_str(void)
{
    u32 v = 0;
    __asm__ volatile("str %w0" : "+r"(v));
    return v & 0xffff;
}

static bool judge_str(const struct machine *m, struct line *saw)
{
    (void)m;
    return selector(saw, TASK);
}

static u32 run_smsw(void)
{
    u32 v;
    __asm__ volatile("smsw %0" : "=r"(v));
    return v;
}

static u32 cr0(void)
{
    u32 v;
    __asm__ volatile("movl %%cr0, %0" : "=r"(v));
    return v;
}

static bool judge_smsw(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "%w", arrived.eax);
    return came_back() && arrived.eax == cr0();
}

static u32 run_pushf(void)
{
    u32 v;
    __asm__ volatile("pushfl; popl %0" : "=r"(v));
    return v;
}

static bool judge_pushf(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "IF=%d, as it was left", arrived.eax >> 9 & 1);
    return came_back() && !(arrived.eax & IF);
}

static u32 run_popf(void)
{
    u32 v;
    __asm__ volatile("pushfl; orl $0x200, (%%esp); popfl; pushfl; popl %0; cli" : "=r"(v));
    return v;
}

static bool judge_popf_kernel(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "IF=%d after setting it", arrived.eax >> 9 & 1);
    return came_back() && (arrived.eax & IF);
}

static u32 run_popf_user(void)
{
    u32 v;
    __asm__ volatile("pushfl; orl $0x200, (%%esp); popfl; pushfl; popl %0" : "=r"(v));
    return v;
}

static bool judge_popf_user(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "IF=%d: ring 3 may not", arrived.eax >> 9 & 1);
    return came_back() && !(arrived.eax & IF);
}

static u32 run_mov_cs(void)
{
    u32 v;
    __asm__ volatile("movl %%cs, %0" : "=r"(v));
    return v;
}

static bool judge_cs0(const struct machine *m, struct line *saw)
{
    (void)m;
    bool holds = selector(saw, KERNEL_CODE);
    line_add(saw, ": ring %d", arrived.eax & 3);
    return holds;
}

static bool judge_cs3(const struct machine *m, struct line *saw)
{
    (void)m;
    bool holds = selector(saw, USER_CODE);
    line_add(saw, ": ring %d", arrived.eax & 3);
    return holds;
}

static u32 run_push_cs(void)
{
    u32 v;
    __asm__ volatile("pushl %%cs; popl %0" : "=r"(v));
    return v & 0xffff;
}

static u32 run_push_ss(void)
{
    u32 v;
    __asm__ volatile("pushl %%ss; popl %0" : "=r"(v));
    return v & 0xffff;
}

static bool judge_ss0(const struct machine *m, struct line *saw)
{
    (void)m;
    return selector(saw, KERNEL_DATA);
}

static bool judge_ss3(const struct machine *m, struct line *saw)
{
    (void)m;
    return selector(saw, USER_DATA);
}

static u32 run_mov_fs(void)
{
    u32 v;
    __asm__ volatile("movl %1, %%fs; movl %%fs:0, %0" : "=r"(v) : "r"(SMALL_DATA));
    return v;
}

static u32 run_pop_gs(void)
{
    u32 v;
    __asm__ volatile("pushl %1; popl %%gs; movl %%gs:0, %0" : "=r"(v) : "i"(SMALL_DATA));
    return v;
}

static u32 run_lds(void)
{
    const struct {
        u32 offset;
        u16 selector;
    } far = {0, SMALL_DATA};
    u32 v;
    __asm__ volatile("lfs %1, %0; movl %%fs:(%0), %0" : "=&r"(v) : "m"(far));
    return v;
}

static bool judge_segment(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "%w, its base in use", arrived.eax);
    return came_back() && arrived.eax == 0x600dcafe;
}

static u32 run_lar(void)
{
    u32 v = 0;
    __asm__ volatile("larl %1, %0" : "+r"(v) : "r"(USER_CODE) : "cc");
    return v;
}

static bool judge_lar(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "%w", arrived.eax);
    return came_back() && (arrived.eax & ~0x100u) == 0x00c0fa00;
}

static u32 run_lsl(void)
{
    u32 v = 0;
    __asm__ volatile("lsll %1, %0" : "+r"(v) : "r"(SMALL_DATA) : "cc");
    return v;
}

static bool judge_lsl(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "limit %x", arrived.eax);
    return came_back() && arrived.eax == 0xfff;
}

static u32 run_verr(void)
{
    u8 z;
    __asm__ volatile("verr %w1; setz %0" : "=q"(z) : "r"(KERNEL_DATA) : "cc");
    return z;
}

static u32 run_verw(void)
{
    u8 z;
    __asm__ volatile("verw %w1; setz %0" : "=q"(z) : "r"(SMALL_DATA) : "cc");
    return z;
}

static bool judge_verr(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "ZF=%d: it may not read", arrived.eax);
    return came_back() && arrived.eax == 0;
}

static bool judge_verw(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "ZF=%d: it may write", arrived.eax);
    return came_back() && arrived.eax == 1;
}

static u32 run_gate(void)
{
    u32 v;
    __asm__ volatile("lcall %1, $0" : "=a"(v) : "i"(GATE));
    return v;
}

static bool judge_gate(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "ring %d and back, CS=%h", arrived.eax & 3, arrived.eax);
    return came_back() && (arrived.eax & 0xffff) == KERNEL_CODE;
}

static u32 run_jmp_far(void)
{
    u32 v;
    __asm__ volatile("ljmp %1, $1f\n1: movl %%cs, %0" : "=r"(v) : "i"(USER_CODE));
    return v;
}

static u32 run_ret_far(void)
{
    u32 v;
    __asm__ volatile("pushl %1; pushl $1f; lret\n1: movl %%cs, %0" : "=r"(v) : "i"(USER_CODE));
    return v;
}

static u32 run_iret(void)
{
    u32 v;
    __asm__ volatile("pushfl; pushl %1; pushl $1f; iret\n1: movl %%cs, %0" : "=r"(v) : "i"(USER_CODE));
    return v;
}

static u32 run_int(void)
{
    __asm__ volatile("int %0" : : "i"(VECTOR_CALL));
    return 0;
}

static bool judge_int(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "its own gate %x", arrived.vector);
    return arrived.vector == VECTOR_CALL && arrived.cs == USER_CODE;
}

/* The privileged ones: they work in ring 0, and ring 3 is told #GP. */
static u32 run_cli(void)
{
    __asm__ volatile("cli");
    return 0;
}

static bool judge_gp(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "#GP(%x) at its kernel", arrived.error);
    return arrived.vector == GP && arrived.error == 0 && arrived.cs == USER_CODE;
}

static u32 run_sti(void)
{
    u32 v;
    __asm__ volatile("sti; pushfl; popl %0; cli" : "=r"(v));
    return v;
}

static bool judge_sti(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "IF=%d", arrived.eax >> 9 & 1);
    return came_back() && (arrived.eax & IF);
}

static u32 run_hlt(void)
{
    __asm__ volatile("hlt");
    return 0;
}

static u32 run_cr3(void)
{
    u32 v;
    __asm__ volatile("movl %%cr3, %0; movl %0, %%cr3" : "=r"(v));
    return v;
}

static bool judge_value(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "%w", arrived.eax);
    return came_back();
}

static bool judge_cr0(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "%w", arrived.eax);
    return came_back() && arrived.eax == cr0() && (arrived.eax & 0x80000001) == 0x80000001;
}

static u32 run_clts(void)
{
    __asm__ volatile("movl %%cr0, %%eax; orl $8, %%eax; movl %%eax, %%cr0; clts" : : : "eax");
    return cr0() & 8;
}

static bool judge_clts(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "CR0.TS=%d", arrived.eax >> 3);
    return came_back() && arrived.eax == 0;
}

static u32 run_dr(void)
{
    u32 v;
    __asm__ volatile("movl %1, %%db0; movl %%db0, %0" : "=r"(v) : "r"(0x1234567));
    return v;
}

static bool judge_dr(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "%w, as written", arrived.eax);
    return came_back() && arrived.eax == 0x1234567;
}

static u32 run_invlpg(void)
{
    __asm__ volatile("invlpg 0x40000000" : : : "memory");
    return *(volatile u32 *)0x40000000;
}

static bool judge_invlpg(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "its page is still there");
    return came_back() && arrived.eax == 0x600dcafe;
}

static u32 run_rdmsr(void)
{
    u32 a, d;
    __asm__ volatile("wrmsr; rdmsr" : "=a"(a), "=d"(d) : "c"(0x174), "a"(KERNEL_CODE), "d"(0));
    return a;
}

static bool judge_rdmsr(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "%h, as written", arrived.eax);
    return came_back() && arrived.eax == KERNEL_CODE;
}

static u32 run_in(void)
{
    return port_in8(0x3fd);
}

static bool judge_in(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "COM1 ready: %x", arrived.eax);
    return came_back() && (arrived.eax & 0x20);
}

static u32 run_sysenter(void)
{
    __asm__ volatile("sysenter");
    return 0;
}

static u32 run_sysexit(void)
{
    __asm__ volatile("sysexit" : : "d"(fast_target), "c"(trap_stack_top));
    return 0;
}

static u32 run_cpuid(void)
{
    u32 b, c, d;
    __asm__ volatile("cpuid" : "=a"(extra), "=b"(b), "=c"(c), "=d"(d) : "a"(1), "c"(0));
    return c;
}

static bool judge_cpuid(const struct machine *m, struct line *saw)
{
    (void)m;
    line_add(saw, "a CPU without VT-x");
    return came_back() && !(arrived.eax & 1u << 5);
}

static const struct row rows[] = {
    {3, "sgdt", run_sgdt, judge_sgdt, "the host's, or UMIP's dummy"},
    {3, "sidt", run_sidt, judge_sidt, "the host's, or UMIP's dummy"},
    {3, "sldt", run_sldt, judge_sldt, "0000, or the process's LDT"},
    {3, "str", run_str, judge_str, "0040, Linux' task register"},
    {3, "smsw", run_smsw, judge_smsw, "80050033, the host's CR0"},
    {3, "pushf", run_pushf, judge_pushf, "IF=1, the host's"},
    {0, "popf", run_popf, judge_popf_kernel, "ignored, without a word"},
    {3, "popf", run_popf_user, judge_popf_user, "ignored: here it is right"},
    {0, "mov eax, cs", run_mov_cs, judge_cs0, "0033 or 0023: ring 3"},
    {3, "mov eax, cs", run_mov_cs, judge_cs3, "0033 or 0023"},
    {0, "push cs", run_push_cs, judge_cs0, "0033 or 0023: ring 3"},
    {0, "push ss", run_push_ss, judge_ss0, "002b"},
    {3, "push ss", run_push_ss, judge_ss3, "002b"},
    {3, "mov fs, ax", run_mov_fs, judge_segment, "#GP: no such host segment"},
    {3, "pop gs", run_pop_gs, judge_segment, "#GP"},
    {3, "lfs", run_lds, judge_segment, "#GP"},
    {3, "lar", run_lar, judge_lar, "rights from the host's GDT"},
    {3, "lsl", run_lsl, judge_lsl, "a limit from the host's GDT"},
    {3, "verr", run_verr, judge_verr, "judged by the host's GDT"},
    {3, "verw", run_verw, judge_verw, "judged by the host's GDT"},
    {3, "call far, gate", run_gate, judge_gate, "#GP: no such host gate"},
    {3, "jmp far", run_jmp_far, judge_cs3, "#GP or another mode"},
    {3, "ret far", run_ret_far, judge_cs3, "#GP or another mode"},
    {3, "iret", run_iret, judge_cs3, "#GP or another mode"},
    {3, "int 2f", run_int, judge_int, "#GP: the host's IDT"},
    {0, "sti", run_sti, judge_sti, "SIGSEGV"},
    {3, "cli", run_cli, judge_gp, "SIGSEGV"},
    {3, "hlt", run_hlt, judge_gp, "SIGSEGV"},
    {0, "mov eax, cr0", cr0, judge_cr0, "SIGSEGV"},
    {0, "mov cr3, eax", run_cr3, judge_value, "SIGSEGV"},
    {0, "clts", run_clts, judge_clts, "SIGSEGV"},
    {0, "mov dr0, eax", run_dr, judge_dr, "SIGSEGV"},
    {0, "invlpg", run_invlpg, judge_invlpg, "SIGSEGV"},
    {0, "wrmsr, rdmsr", run_rdmsr, judge_rdmsr, "SIGSEGV"},
    {0, "in al, dx", run_in, judge_in, "SIGSEGV"},
    {3, "in al, dx", run_in, judge_gp, "SIGSEGV"},
    {3, "sysenter", run_sysenter, judge_cs0, "the host's kernel entered"},
    {0, "sysexit", run_sysexit, judge_cs3, "SIGSEGV"},
    {3, "cpuid", run_cpuid, judge_cpuid, "the host's CPU as it is"},
};

static void sysenter_msrs(void)
{
    const u32 value[3] = {KERNEL_CODE, (u32)trap_stack_top, (u32)fast_target};
    for (unsigned i = 0; i < 3; i++)
        __asm__ volatile("wrmsr" : : "c"(0x174 + i), "a"(value[i]), "d"(0));
}

unsigned tour_rows(const struct machine *m, unsigned *count)
{
    unsigned wrong = 0;
    sysenter_msrs();
    say("");
    say("The sensitive instructions: ring, instruction, what the guest saw, and what the");
    say("bare host would have given it");
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        struct line l = {.length = 0};
        step_into(r->ring ? USER_CODE : KERNEL_CODE, r->ring ? USER_DATA : KERNEL_DATA, r->run, FLAGS_NONE);
        line_add(&l, "  %d %s", r->ring, r->insn);
        line_pad(&l, 19);
        bool holds = r->judge(m, &l);
        line_pad(&l, 45);
        line_add(&l, "| %s", r->bare);
        line_pad(&l, 76);
        say("%s%s", l.text, holds ? "ok" : "NO");
        wrong += !holds;
        (*count)++;
    }
    return wrong;
}
