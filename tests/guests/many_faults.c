/* A hundred thousand faults at one place: nothing may leak, overflow or slow to a halt. */
#include "lib/guest.h"

enum { ROUNDS = 100000, ABSENT = 0x60000000 };

static volatile u32 left, page_faults;

static bool again(struct frame *f)
{
    if (--left)
        return true; /* same instruction once more */
    f->eip += 2;
    return true;
}

static bool page_again(struct frame *f)
{
    page_faults++;
    if (--left == 0)
        f->eip = f->ebx;
    return true;
}

void guest_main(void)
{
    left = ROUNDS;
    trap_hook[6] = again;
    __asm__ volatile("ud2");
    check_eq(left, 0, "%u times #UD at one instruction", ROUNDS);
    paging_on(pd_create(0), 0);
    left = ROUNDS;
    trap_hook[14] = page_again;
    __asm__ volatile("movl $1f, %%ebx; movl (%0), %%eax; 1:" : : "c"(ABSENT) : "eax", "ebx");
    check_eq(page_faults, ROUNDS, "%u times #PF at one instruction", ROUNDS);
}
