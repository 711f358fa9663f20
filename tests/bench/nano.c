/*
 * The suite `nano`: what single events of the CPU cost, in TSC cycles, in a kernel of our own; the rows of Adams and
 * Agesen, "A Comparison of Software and Hardware Techniques for x86 Virtualization" (ASPLOS 2006), and their kin.
 * Prints "row NAME CYCLES" for one event, the loop around it (row `loop`) included.
 *
 * The kernel's own pages are supervisor pages and ring 3 has two user pages, as in a real system: a monitor may treat
 * a kernel that runs from user pages very differently.
 */
#include "guest.h"

enum { RUNS = 5, ENOUGH = 10000000 /* cycles */, BATCH = 256, VEC_LEAVE = 0x81, PF = 14, DE = 0 };
enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP };
enum {
    AREA = 0x40000000,   /* BATCH pages whose PTEs are modified */
    DEVICE = 0x50000000, /* a page of device space */
    ABSENT = 0x60000000, /* never mapped */
    NO_DEVICE = 0xf0000000u,
    LSR = 0x3fd,
};

static u32 *pd;

/* ---- Ring 3. Each loop gets the count in ECX and leaves with the cycles in EAX. ---- */

#define USER_LOOP(name, body)                                                                                \
    "user_" #name ": movl %ecx, %edi; rdtsc; movl %eax, %esi\n1: " body "\ndecl %edi; jnz 1b\n"              \
    "rdtsc; subl %esi, %eax; int $0x81\n"

extern const char user_page[], user_int80[], user_sysenter[], user_fault[], user_divide[];
__asm__(".text; .balign 4096; user_page:\n" /* */
        USER_LOOP(int80, "int $0x80") USER_LOOP(sysenter, "movl %esp, %ecx; movl $2f, %edx; sysenter; 2:")
            USER_LOOP(fault, "movl (%ebx), %eax")
                USER_LOOP(divide, "xorl %edx, %edx; divl %edx") ".balign 4096\n");

/* The shortest handlers there can be. The two that skip the faulting instruction know that it has two bytes. */
extern const char on_int80[], on_sysenter[], on_fault[], on_divide[];
__asm__("on_int80: iret\n"
        "on_sysenter: sysexit\n"
        "on_fault: addl $4, %esp\n"
        "on_divide: addl $2, (%esp); iret\n");

static u32 user(const char *code, u32 n)
{
    struct descent d = {.eip = (u32)code,
                        .cs = SEL_CODE3,
                        .eflags = 2,
                        .esp = ring_stack_top(3),
                        .ss = SEL_DATA3,
                        .data = SEL_DATA3};

    TRY(__asm__ volatile(
        "movl %0, %%esi; pushl 16(%%esi); pushl 12(%%esi); pushl 8(%%esi); pushl 4(%%esi); pushl 0(%%esi)\n"
        "movl 20(%%esi), %%eax; movl %%eax, %%ds; movl %%eax, %%es; iret"
        :
        : "S"(&d), "c"(n), "b"(ABSENT)
        : "memory"));
    return trap.eax;
}

#define USER_ROW(name)                                                                                       \
    static u32 row_##name(u32 n)                                                                             \
    {                                                                                                        \
        return user(user_##name, n);                                                                         \
    }
USER_ROW(int80)
USER_ROW(sysenter)
USER_ROW(fault)
USER_ROW(divide)

/* ---- Ring 0 ---- */

#define KERNEL_ROW(name, setup, ...)                                                                         \
    static u32 row_##name(u32 n)                                                                             \
    {                                                                                                        \
        setup;                                                                                               \
        u32 start = (u32)rdtsc();                                                                            \
        do                                                                                                   \
            __asm__ volatile(__VA_ARGS__);                                                                   \
        while (--n);                                                                                         \
        return (u32)rdtsc() - start;                                                                         \
    }

extern const char one_ret[], other_ret[];
__asm__(".balign 16; one_ret: ret\n.balign 16; other_ret: ret\n");
static const char *const targets[2] = {one_ret, other_ret};

KERNEL_ROW(loop, , "" : : : "memory")
KERNEL_ROW(in, , "inb %%dx, %%al" : : "d"(LSR) : "eax", "memory")
KERNEL_ROW(cr3, u32 root = READ_CR(3), "movl %0, %%cr3" : : "r"(root) : "memory")
KERNEL_ROW(callret, , "call one_ret" : : : "memory")
KERNEL_ROW(icall, , "call *%0" : : "m"(targets[0]) : "memory")
KERNEL_ROW(icall2, , "call *%0" : : "m"(targets[n & 1]) : "memory")
KERNEL_ROW(clisti, , "cli; sti" : : : "memory")
KERNEL_ROW(popf, , "pushfl; popfl" : : : "memory", "cc")
KERNEL_ROW(iret, , "pushfl; pushl %%cs; pushl $1f; iret; 1:" : : : "memory", "cc")
KERNEL_ROW(rdtsc, , "rdtsc" : : : "eax", "edx", "memory")
KERNEL_ROW(mmio, volatile u32 *p = (u32 *)DEVICE, "movl %0, %1" : : "r"(n), "m"(*p) : "memory")

/* ---- PTEs ---- */

enum pte_step { SAME, UNMAP, MAP, MAP_TOUCH };

/* One pass over all pages; returns its cycles. */
static u32 pte_pass(u32 value, bool touch)
{
    u32 start = (u32)rdtsc();
    for (u32 i = 0; i < BATCH; i++) {
        u32 va = AREA + i * 4096;
        volatile u32 *pte = pte32(pd, va);
        *pte = value ? value + i * 4096 : 0;
        invlpg((void *)va);
        if (touch)
            *(volatile u32 *)va = i;
    }
    return (u32)rdtsc() - start;
}

/* n is rounded up to whole batches; the caller divides by n, so the sum is scaled to it. Pages are touched (outside
 * the clock) before they are unmapped: an unmap that has nothing to undo costs nothing. */
static u32 pte_row(u32 n, enum pte_step step)
{
    u32 mapped = (16u << 20) | P | W, sum = 0, passes = (n + BATCH - 1) / BATCH;
    for (u32 i = 0; i < passes; i++) {
        u32 map = pte_pass(mapped, step == MAP_TOUCH);
        if (step != MAP_TOUCH)
            pte_pass(mapped, true);
        u32 again = pte_pass(mapped, false);
        u32 unmap = pte_pass(0, false);
        sum += step == SAME ? again : step == UNMAP ? unmap : map;
    }
    return n < BATCH ? sum / (BATCH / n) : sum;
}

#define PTE_ROW(name, step)                                                                                  \
    static u32 row_##name(u32 n)                                                                             \
    {                                                                                                        \
        return pte_row(n, step);                                                                             \
    }
PTE_ROW(pte_same, SAME)
PTE_ROW(pte_unmap, UNMAP)
PTE_ROW(pte_map, MAP)
PTE_ROW(pte_touch, MAP_TOUCH)

/* ---- Measuring ---- */

static const struct {
    const char *name;
    u32 (*run)(u32 n); /* cycles of n events */
} rows[] = {
    {"loop", row_loop},         {"int80", row_int80},
    {"sysenter", row_sysenter}, {"in", row_in},
    {"cr3", row_cr3},           {"callret", row_callret},
    {"icall", row_icall},       {"icall2", row_icall2},
    {"fault", row_fault},       {"divide", row_divide},
    {"pte_same", row_pte_same}, {"pte_unmap", row_pte_unmap},
    {"pte_map", row_pte_map},   {"pte_touch", row_pte_touch},
    {"clisti", row_clisti},     {"popf", row_popf},
    {"iret", row_iret},         {"rdtsc", row_rdtsc},
    {"mmio", row_mmio},
};

/* A tenth of a cycle is the unit, so that a call is not "1 or 2"; 64 by 32 bits without libgcc. */
static u32 tenths(u32 cycles, u32 n)
{
    u64 wide = (u64)cycles * 10;
    u32 high = (u32)(wide >> 32), q, r = high % n; /* the quotient fits: cycles / n is far below 2^28 */
    __asm__("divl %4" : "=a"(q), "=d"(r) : "a"((u32)wide), "d"(r), "r"(n));
    return q;
}

/* To the port that `ringlet run --stats-port` was told; elsewhere nothing is there. */
static void mark(const char *row, const char *what, u32 units)
{
    char digits[12];
    u32 at = sizeof digits - 1;
    digits[at] = 0;
    digits[--at] = '\n';
    for (; units; units /= 10)
        digits[--at] = (char)('0' + units % 10);
    const char *const parts[] = {row, what, digits + at};
    for (u32 i = 0; i < 3; i++)
        for (const char *c = parts[i]; *c; c++)
            outb(0xe9, (u8)*c);
}

static u32 measure(const char *row, u32 (*run)(u32))
{
    u32 n = 16, sorted[RUNS];
    while (run(n) < ENOUGH && n < 1u << 24)
        n *= 2;
    mark(row, " begin", 0);
    for (u32 i = 0; i < RUNS; i++) {
        u32 cycles = run(n), at = i;
        for (; at && sorted[at - 1] > cycles; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = cycles;
    }
    mark(row, " end ", RUNS * n);
    return tenths(sorted[RUNS / 2], n);
}

static void set_up(void)
{
    u16 fast = gdt_test(0, descriptor(0, 0xfffff, D_CODE_R | D_32 | D_4K));
    gdt_test(1, descriptor(0, 0xfffff, D_DATA_W | D_32 | D_4K));
    gdt_test(2, descriptor(0, 0xfffff, D_CODE_R | D_DPL3 | D_32 | D_4K));
    gdt_test(3, descriptor(0, 0xfffff, D_DATA_W | D_DPL3 | D_32 | D_4K));
    wrmsr(MSR_SYSENTER_CS, fast);
    wrmsr(MSR_SYSENTER_ESP, tss.esp0);
    wrmsr(MSR_SYSENTER_EIP, (u32)on_sysenter);
    idt_set(0x80, (u32)on_int80, 0xee);
    idt_set(VEC_LEAVE, trap_stubs[VEC_RETURN], 0xee);
    idt_set(PF, (u32)on_fault, 0x8e);
    idt_set(DE, (u32)on_divide, 0x8e);
    pd = pd_create(0);
    map32(pd, (u32)user_page, (u32)user_page, P | U);
    map32(pd, ring_stack_top(3) - 4096, ring_stack_top(3) - 4096, P | W | U);
    map32(pd, DEVICE, NO_DEVICE, P | W | PCD);
    for (u32 i = 0; i < BATCH; i++)
        map32(pd, AREA + i * 4096, 0, 0);
    paging_on(pd, 0);
}

void guest_main(void)
{
#ifdef PROBE /* only shows that this machine runs guests at all */
    guest_exit_value(42);
#endif
    set_up();
    for (u32 i = 0; i < sizeof rows / sizeof *rows; i++) {
        u32 each = measure(rows[i].name, rows[i].run);
        cli();
        print("row %s %u.%u\n", rows[i].name, each / 10, each % 10);
    }
}
