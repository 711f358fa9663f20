/* A program that computes for a while, then touches page after page of new memory, then computes on it: policy `auto` runs
 * it natively, pauses that at the page faults, and goes on. Pages are other frames each time, so that a mapping that is
 * left over from before shows, and half of them are clean: reading them must not set D, nor let a store go unnoticed. SDM vol.
 * 3 4.8. */
#include "lib/program.h"

enum { ROUNDS = 8, PAGES = 256, PAGE = 4096, VIEW = 0x60000000, CLEAN = 0x61000000, TOUCHED = 0x71 };

/* Compute for some ticks (the word at data + 4 counts them, the next says how many); write each new page; look what is there, and at the
 * clean ones, every other of which is written as well. EDX counts what is wrong. */
PROGRAM_CODE(storm, "one that touches new memory",
             "movl 0x40010004, %ebx; addl 0x40010008, %ebx\n"
             "1: incl %eax; cmpl %ebx, 0x40010004; jb 1b\n"
             "movl $0x60000000, %edi\n"
             "2: movl %edi, (%edi); addl $4096, %edi; cmpl $0x60100000, %edi; jb 2b\n"
             "movl $100, %ecx\n"
             "3: movl $0x60000000, %edi\n"
             "4: cmpl %edi, (%edi); je 5f; incl %edx\n"
             "5: addl $4096, %edi; cmpl $0x60100000, %edi; jb 4b\n"
             "loop 3b\n"
             "movl $0x61000000, %edi\n"
             "6: cmpl %edi, (%edi); je 7f; incl %edx\n"
             "7: addl $4096, %edi; cmpl $0x61100000, %edi; jb 6b\n"
             "movl $0x61000000, %edi\n"
             "8: movl $0x71, 4(%edi); addl $8192, %edi; cmpl $0x61100000, %edi; jb 8b\n",
             "int $0x80", "");

static u32 *pd;
static u8 *frame[2 * PAGES];
static u32 round, faults;

/* Which frame page i is this time: the new pages one half of them, the clean ones the other. */
static u8 *frame_of(u32 i)
{
    u32 half = (i / PAGES ^ round) & 1;
    return frame[half * PAGES + (i * 77 + round * 13) % PAGES];
}

static bool tick(struct frame *f)
{
    (void)f;
    pic_eoi(0);
    ((volatile u32 *)program_data())[1]++;
    return true;
}

/* Every other new page arrives as an operating system would show it, used and written; the rest are for the CPU to mark. */
static bool page_fault(struct frame *f)
{
    u32 at = READ_CR(2), i = (at - VIEW) / PAGE;
    (void)f;
    if (at < VIEW || i >= PAGES)
        return false;
    faults++;
    *pte32(pd, at) = (u32)frame_of(i) | P | U | W | (i & 1 ? ACC | DIRTY : 0);
    return true;
}

static void prepare(void)
{
    for (u32 i = 0; i < PAGES; i++) {
        memset(frame_of(i), 0, PAGE);
        *pte32(pd, VIEW + i * PAGE) = 0;
        *(u32 *)frame_of(PAGES + i) = CLEAN + i * PAGE;
        ((u32 *)frame_of(PAGES + i))[1] = 0;
        *pte32(pd, CLEAN + i * PAGE) = (u32)frame_of(PAGES + i) | P | U | W | ACC;
    }
    flush_tlb();
    faults = 0;
}

static void compare(void)
{
    u32 lost = 0, unmarked = 0, clean = 0, dirty = 0;
    for (u32 i = 0; i < PAGES; i++) {
        lost += *(u32 *)frame_of(i) != VIEW + i * PAGE;
        unmarked += (*pte32(pd, VIEW + i * PAGE) & (ACC | DIRTY)) != (ACC | DIRTY);
        lost += ((u32 *)frame_of(PAGES + i))[1] != (i & 1 ? 0 : TOUCHED);
        *(i & 1 ? &clean : &dirty) += (*pte32(pd, CLEAN + i * PAGE) & DIRTY) != 0;
    }
    check_eq(faults, PAGES, "round %u: page faults", round);
    check_eq(lost, 0, "round %u: pages that are not what was written", round);
    check_eq(unmarked, 0, "round %u: new pages without A and D", round);
    check_eq(clean, 0, "round %u: pages that were only read and have D", round);
    check_eq(dirty, PAGES / 2, "round %u: pages that were written and have D", round);
}

void guest_main(void)
{
    program_begin();
    pd = program_space();
    for (u32 i = 0; i < 2 * PAGES; i++)
        frame[i] = page_alloc();
    trap_hook[0x20] = tick;
    trap_hook[14] = page_fault;
    pic_mask(0xfffe);
    pit_periodic(1000);
    program_put(&storm);
    for (round = 0; round < ROUNDS; round++) {
        prepare();
        ((volatile u32 *)program_data())[2] =
            round ? 8 : 120; /* at first long enough to be found out on a busy host */
        program_run(0, 0);
        check(trap.vector == 0x80 && trap.edx == 0, "round %u ends with vector %u, %u wrong", round,
              trap.vector, trap.edx);
        compare();
    }
    pit_stop();
}
