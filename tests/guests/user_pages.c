/* Sixteen pages of user code. Who runs user code natively may show more of them than the one that was reached, and the
 * guest must not be able to tell: not by an A bit, not by a page that runs though it may not, not by code that is no
 * longer what it was. SDM vol. 3 4.8, 4.10.4. */
#include "lib/guest.h"

enum { VIEW = 0x48000000, PAGES = 16, PAGE = 4096 };

static u8 *frame[PAGES];
static u32 *pd;

static u32 at(unsigned i)
{
    return VIEW + i * PAGE;
}

/* movl $value, %eax; int $VEC_RETURN */
static void code(unsigned i, u32 value)
{
    frame[i][0] = 0xb8;
    memcpy(frame[i] + 1, &value, 4);
    frame[i][5] = 0xcd;
    frame[i][6] = VEC_RETURN;
}

static void show(unsigned i, u32 flags)
{
    *pte32(pd, at(i)) = (u32)frame[i] | flags;
}

static u32 run(unsigned i)
{
    ring_call(3, (u32(*)(u32))at(i), 0);
    return trap.vector == VEC_RETURN ? trap.eax : 0x1000 + trap.vector;
}

static void run_all(const char *when)
{
    u32 wrong = 0;
    for (unsigned i = 0; i < PAGES; i++)
        wrong += run(i) != 100 + i;
    check_eq(wrong, 0, "%s: pages whose code did not do what it says", when);
}

static u32 accessed(void)
{
    u32 set = 0;
    for (unsigned i = 0; i < PAGES; i++)
        set |= (*pte32(pd, at(i)) & ACC ? 1u : 0) << i;
    return set;
}

static void a_bits(void)
{
    for (unsigned i = 0; i < PAGES; i++)
        show(i, P | U | (i == 0 || i == 3 ? ACC : 0));
    flush_tlb();
    check_eq(run(0), 100, "page 0 runs");
    check_eq(accessed(), 0x0009, "and no other page has been accessed");
    check_eq(run(5), 105, "page 5 runs");
    check_eq(accessed(), 0x0029, "and no other page has been accessed");
    check_eq(run(3), 103, "page 3 runs");
    check_eq(accessed(), 0x0029, "and no other page has been accessed");
    run_all("all once more");
    check_eq(accessed(), 0xffff, "all have been accessed");
}

static void rights(void)
{
    for (unsigned i = 0; i < PAGES; i++)
        show(i, P | U | ACC);
    show(7, P | ACC);
    show(8, U | ACC);
    flush_tlb();
    check_eq(run(6), 106, "page 6 runs");
    check_eq(run(7), 0x100e, "a supervisor page beside it does not");
    check_eq(trap.error, PF_P | PF_U, "  #PF's error code");
    check_eq(run(8), 0x100e, "an absent page does not");
    check_eq(trap.error, PF_U, "  #PF's error code");
    show(8, P | U | ACC);
    check_eq(run(8), 108, "which it does once it is present");
}

/* Shown beside a page that ran, then changed before they run themselves. */
static void changes(void)
{
    for (unsigned i = 0; i < PAGES; i++)
        show(i, P | U | ACC);
    flush_tlb();
    check_eq(run(1), 101, "page 1 runs");
    code(2, 202);
    check_eq(run(2), 202, "code written into page 2 by ring 0 is what runs there");
    code(2, 102);
    *pte32(pd, at(4)) = (u32)frame[9] | P | U | ACC;
    invlpg((void *)at(4));
    check_eq(run(4), 109, "page 4 shows the frame of page 9");
    show(10, 0);
    invlpg((void *)at(10));
    check_eq(run(10), 0x100e, "page 10 is gone");
    show(11, P | ACC);
    invlpg((void *)at(11));
    check_eq(run(11), 0x100e, "page 11 is ring 0's now");
    for (unsigned i = 0; i < PAGES; i++)
        show(i, P | U | W);
    flush_tlb();
    run_all("all put right");
}

/* What is known of a page from one address space holds in another, as far as that shows it. */
static void another_space(void)
{
    u32 *first = pd;
    pd = pd_create(P | U | W);
    for (unsigned i = 0; i < PAGES; i++)
        show(i, P | U | (i % 2 ? ACC : 0));
    WRITE_CR(3, pd);
    check_eq(run(1), 101, "page 1 runs in another address space");
    check_eq(accessed(), 0xaaaa, "and no other page has been accessed there");
    run_all("all of them there");
    WRITE_CR(3, first);
    pd = first;
    run_all("and here again");
}

/* movl %ds, %eax; jmp 1f; 1: int $VEC_RETURN. It must see the guest's selector, whoever has looked at the page before. */
static void beside(void)
{
    static const u8 reads_ds[] = {0x8c, 0xd8, 0xeb, 0x00, 0xcd, VEC_RETURN};

    for (unsigned i = 0; i < PAGES; i++) {
        show(i, 0);
        code(i, 100 + i);
    }
    memcpy(frame[13] + 64, reads_ds, sizeof(reads_ds));
    memset(frame[13], 0x90, 64);
    flush_tlb();
    for (unsigned i = 0; i < PAGES; i++)
        show(i, P | U | ACC);
    check_eq(run(12), 112, "page 12 runs");
    check_eq(run(13), SEL_DATA3, "page 13 reads the guest's DS");
    check_eq(run(14), 114, "page 14 runs");
    code(13, 113);
    run_all("all put right again");
}

void guest_main(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        frame[i] = page_alloc();
        code(i, 100 + i);
    }
    pd = pd_create(P | U | W);
    for (unsigned i = 0; i < PAGES; i++)
        show(i, P | U);
    paging_on(pd, CR4_OSFXSR | CR4_OSXMM);
    pic_mask(0xffff);
    ring_eflags = 0x202; /* as every program runs: a world is for such */
    WRITE_CR(0, (READ_CR(0) | CR0_NE | CR0_MP) & ~(u32)(CR0_EM | CR0_TS));
    run_all("all for the first time");
    a_bits();
    rights();
    changes();
    another_space();
    beside();
}
