/* Instructions and operands that lie across a page boundary, with the second page absent, read-only or
 * elsewhere: the fault names the first byte that is refused, and nothing has happened yet. */
#include "lib/guest.h"

enum { VIEW = 0x40000000, EDGE = VIEW + 0x1000 };

static u32 *pd;
static u8 *low, *high; /* frames, not adjacent */

static void map(u32 first, u32 second)
{
    map32(pd, VIEW, (u32)low, first);
    map32(pd, EDGE, (u32)high, second);
    flush_tlb();
}

static void data(void)
{
    map(P | W, P | W);
    *(volatile u32 *)(EDGE - 2) = 0x12345678;
    check(low[4094] == 0x78 && low[4095] == 0x56 && high[0] == 0x34 && high[1] == 0x12,
          "a dword across two frames that are not neighbours");
    check_eq(*(volatile u32 *)(EDGE - 1), 0x00123456 | high[2] << 24, "  read at another offset");
    u32 one = 1;
    __asm__ volatile("lock xaddl %0, %1" : "+r"(one), "+m"(*(volatile u32 *)(EDGE - 2)));
    check_eq(*(volatile u32 *)(EDGE - 2), 0x12345679, "  locked read-modify-write");
    map(P | W, 0);
    low[4094] = 0x11;
    low[4095] = 0x22;
    TRY(FAULTING("movl $-1, (%0)", : : "r"(EDGE - 2) : "memory"));
    check_trap(14, 2, "a write whose second half is absent");
    check_eq(trap.cr2, EDGE, "  CR2 is the second page");
    check(low[4094] == 0x11 && low[4095] == 0x22, "  the first half is not written");
    u32 v = 5;
    TRY(FAULTING("movl (%1), %0", : "+r"(v) : "r"(EDGE - 1)));
    check_trap(14, 0, "a read whose second half is absent");
    check_eq(trap.cr2, EDGE, "  CR2 is the second page");
    map(0, P | W);
    TRY(FAULTING("movl (%1), %0", : "+r"(v) : "r"(EDGE - 1)));
    check_eq(trap.cr2, EDGE - 1, "a read whose first half is absent: CR2");
    map(P | W, P);
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    TRY(FAULTING("addl $1, (%0)", : : "r"(EDGE - 2) : "memory"));
    check_trap(14, 3, "a read-modify-write whose second half is read-only");
    check_eq(trap.cr2, EDGE, "  CR2");
    check(low[4094] == 0x11 && low[4095] == 0x22, "  the first half is not written");
    WRITE_CR(0, READ_CR(0) & ~CR0_WP);
    map(P | W, 0);
    TRY(__asm__ volatile("movl %%esp, %%ebx; movl %0, %%edi; movl $100, %%ecx; movl $77f, fault_eip\n"
                         "77: rep stosl"
                         :
                         : "r"(EDGE - 40)
                         : "ebx", "ecx", "edi", "memory"));
    check_trap(14, 2, "rep stos that runs into an absent page");
    check_eq(trap.ecx, 90, "  ECX counts what is left");
    check_eq(trap.edi, EDGE, "  EDI is where it stopped");
    TRY(__asm__ volatile("std; movl %0, %%edi; movl $100, %%ecx; movl $77f, fault_eip\n77: rep stosb"
                         :
                         : "r"(VIEW + 49)
                         : "ecx", "edi", "memory"));
    check_trap(14, 2, "rep stosb downward into an absent page");
    check_eq(trap.ecx, 50, "  ECX");
    check_eq(trap.edi, VIEW - 1, "  EDI");
    check(trap.eflags & 0x400, "  DF is saved");
}

static u32 run_at(u32 va)
{
    u32 v = 0;
    fault_eip = va;
    __asm__ volatile("call *%1" : "=a"(v) : "r"(va) : "ecx", "edx", "memory");
    return v;
}

static void code(void)
{
    static const u8 mov[] = {0xb8, 0x44, 0x33, 0x22, 0x11, 0xc3};
    for (u32 split = 1; split < 6; split++) {
        map(P | W, P | W);
        memcpy((u8 *)EDGE - split, mov, sizeof mov);
        check_eq(run_at(EDGE - split), 0x11223344, "an instruction split after byte %u", split);
        map(P | W, 0);
        TRY(run_at(EDGE - split));
        if (split < 5) {
            check_trap(14, 0, "  with its second page absent: EIP is its start");
            check_eq(trap.cr2, EDGE, "  CR2 is the second page");
        } else {
            check_eq(trap.cr2, EDGE, "  the ret on the absent page faults");
            check_eq(trap.eip, EDGE, "  at its own address");
            check_eq(trap.eax, 0x11223344, "  after the mov has run");
        }
    }
    /* Demand paging: the handler maps the page, the instruction then runs. */
    map(P | W, P | W);
    memcpy((u8 *)EDGE - 2, mov, sizeof mov);
    map(P | W, P);
    check_eq(run_at(EDGE - 2), 0x11223344, "with a read-only second page it runs");
    ((u8 *)low)[4095] = 0x55;
    check_eq(run_at(EDGE - 2), 0x11223355, "and sees a change of its first page");
    /* Falling through from one page to the next: nops to the edge, then ret. */
    map(P | W, P | W);
    memset((u8 *)VIEW + 0x800, 0x90, 0x800);
    ((u8 *)EDGE)[0] = 0xb8;
    memcpy((u8 *)EDGE + 1, mov + 1, 5);
    check_eq(run_at(VIEW + 0x800), 0x11223344, "code that falls through to the next page");
    u8 *third = page_alloc();
    memcpy(third, mov, sizeof mov);
    third[1] = 0x99;
    map32(pd, EDGE, (u32)third, P | W);
    invlpg((void *)EDGE);
    check_eq(run_at(VIEW + 0x800), 0x11223399, "  and which is then another page");
}

static bool fill(struct frame *f)
{
    u32 at = READ_CR(2);
    (void)f;
    map32(pd, at & ~4095u, (u32)page_alloc(), P | W | U);
    return true;
}

/* Pages appear one after the other under a long copy. */
static void on_demand(void)
{
    u32 n = 64 * 1024 / 4, left = n;
    u32 from = 0x48000000, to = 0x4c000000;
    trap_hook[14] = fill;
    for (u32 i = 0; i < n; i++)
        ((volatile u32 *)from)[i] = i * 3;
    void *d = (void *)to;
    const void *s = (void *)from;
    __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(left) : : "memory");
    trap_hook[14] = NULL;
    u32 wrong = 0;
    for (u32 i = 0; i < n; i++)
        wrong += ((volatile u32 *)to)[i] != i * 3;
    check_eq(wrong, 0, "rep movs through 16 pages that appear on demand");
}

void guest_main(void)
{
    pd = pd_create(0);
    low = page_alloc();
    page_alloc();
    high = page_alloc();
    paging_on(pd, 0);
    data();
    code();
    on_demand();
}
