/* POP to memory: which ESP its address is made with, what a fault in between leaves behind, beside other pushes. */
#include "lib/guest.h"

enum { VIEW = 0x40000000 };

static u32 *pd;
static u8 *frame;
static u32 faults, esp_at_fault;

static bool appear(struct frame *f)
{
    faults++;
    esp_at_fault = (u32)(&f->eflags + 1); /* no ring change: that was ESP */
    map32(pd, VIEW, (u32)frame, P | W | U);
    invlpg((void *)VIEW);
    return true;
}

static void esp_as_base(void)
{
    u32 first, second, balance;
    __asm__ volatile(
        "movl %%esp, %2; pushl $1; pushl $2; pushl $3; popl 4(%%esp); popl %0; popl %1; subl %%esp, %2"
        : "=&r"(first), "=&r"(second), "=&r"(balance)
        :
        : "memory", "cc");
    check_eq(first, 2, "pop 4(%%esp): what comes next");
    check_eq(second, 3, "  the address is made with ESP after the pop");
    check_eq(balance, 0, "  ESP is back");
    __asm__ volatile("pushl $5; movl $0, %%ecx; pushl $6; popl (%%esp,%%ecx,4); popl %0"
                     : "=r"(first)
                     :
                     : "ecx", "memory");
    check_eq(first, 6, "pop (%%esp,%%ecx,4)");
    __asm__ volatile("pushl $8; pushl $9; popl 0x1000-0x1000(%%esp); popl %0" : "=r"(first) : : "memory");
    check_eq(first, 9, "pop (%%esp)");
}

static void widths(void)
{
    u32 v[3] = {0x11111111, 0x22222222, 0x33333333};
    __asm__ volatile("pushl $0x12345678; popw 4(%0); popw 8(%0)" : : "r"(v) : "memory");
    check_eq(v[0], 0x11111111, "pop of 16 bits: neighbours");
    check_eq(v[1], 0x22225678, "  the lower half");
    check_eq(v[2], 0x33331234, "  the upper half");
    __asm__ volatile("pushl $0x12345678; popl (%0,%1,4)" : : "r"(v), "r"(1) : "memory");
    check_eq(v[1], 0x12345678, "pop of 32 bits with an index");
    u32 flags = 0x8d5 | 2, after;
    __asm__ volatile("pushl %2; popfl; pushl $7; popl (%1); pushfl; popl %0"
                     : "=r"(after)
                     : "r"(v), "r"(flags)
                     : "memory", "cc");
    check_eq(after & 0x8d5, 0x8d5, "it changes no flags");
    check_eq(v[0], 7, "  and pops");
}

/* The page appears under the store: once for all, ESP as it was before. */
static __attribute__((noinline)) void late(u32 round)
{
    u32 at, next, balance;
    map32(pd, VIEW, 0, 0);
    invlpg((void *)VIEW);
    faults = 0;
    __asm__ volatile("movl %%esp, %2; pushl %3; pushl $77; movl %%esp, %0; pushl $99; popl %%ecx; popl (%4); "
                     "popl %1; subl %%esp, %2"
                     : "=&r"(at), "=&r"(next), "=&r"(balance)
                     : "r"(round), "r"(VIEW + 16)
                     : "ecx", "memory", "cc");
    check_eq(faults, 1, "round %u: one page fault", round);
    check_eq(esp_at_fault, at, "  before which ESP has not moved");
    check_eq(*(volatile u32 *)(frame + 16), 77, "  what was popped");
    check_eq(next, round, "  what lay below it");
    check_eq(balance, 0, "  ESP is back");
}

void guest_main(void)
{
    frame = page_alloc();
    pd = pd_create(0);
    map32(pd, VIEW, 0, 0);
    paging_on(pd, 0);
    esp_as_base();
    widths();
    trap_hook[14] = appear;
    for (u32 round = 0; round < 12; round++)
        late(round);
    trap_hook[14] = NULL;
    map32(pd, VIEW, (u32)frame, P);
    invlpg((void *)VIEW);
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    TRY(__asm__ volatile("movl $77f, fault_eip; pushl $5\n77: popl (%0)" : : "r"(VIEW) : "memory"));
    check_trap(14, PF_P | PF_W, "pop to a page that is read-only");
    check_eq(trap.cr2, VIEW, "  CR2");
}
