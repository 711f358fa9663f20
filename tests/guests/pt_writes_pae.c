/* PAE page tables written as kernels write their 64-bit entries: high half, low half; cmpxchg8b; and the
 * whole table at once. Also 2 MiB pages split and joined. */
#include "lib/guest.h"

enum { VIEW = 0x40000000, FRAMES = 32 };

static u64 *pdpt;
static volatile u32 *frame[FRAMES];

static void set_halves(volatile u64 *pte, u64 v)
{
    ((volatile u32 *)pte)[1] = v >> 32;
    __asm__ volatile("" : : : "memory");
    ((volatile u32 *)pte)[0] = v;
}

static void clear_halves(volatile u64 *pte)
{
    ((volatile u32 *)pte)[0] = 0;
    __asm__ volatile("" : : : "memory");
    ((volatile u32 *)pte)[1] = 0;
}

static void exchange(volatile u64 *pte, u64 v)
{
    u64 old = *pte;
    __asm__ volatile("1: lock cmpxchg8b (%1); jnz 1b"
                     : "+A"(old)
                     : "S"(pte), "b"((u32)v), "c"((u32)(v >> 32))
                     : "memory");
}

static void entries(void)
{
    volatile u64 *pte = pte64(pdpt, VIEW);
    for (unsigned i = 0; i < 500; i++) {
        u64 v = (u32)frame[i % FRAMES] | P | W;
        if (i & 1)
            set_halves(pte, v);
        else
            exchange(pte, v);
        invlpg((void *)VIEW);
        check_eq(*(volatile u32 *)VIEW, 0x2000 + i % FRAMES, "entry, round %u", i);
        if (i & 2)
            clear_halves(pte);
        else
            exchange(pte, 0);
        invlpg((void *)VIEW);
        if (i % 25 == 0)
            check_eq(access_page(0, READ, VIEW), 0, "absent, round %u", i);
    }
}

static void split_and_join(void)
{
    volatile u64 *pde = pde64(pdpt, 0x60000000);
    volatile u32 *home = (volatile u32 *)0x1800000;
    u64 *pt = page_alloc();
    for (unsigned i = 0; i < 512; i++) {
        pt[i] = ((u32)home + (i << 12)) | P | W;
        home[i * 1024] = 0x3000 + i;
    }
    for (unsigned round = 0; round < 20; round++) {
        exchange(pde, (u32)home | P | W | PS);
        flush_tlb();
        check_eq(*(volatile u32 *)(0x60000000 + round * 4096), 0x3000 + round, "joined, round %u", round);
        exchange(pde, (u32)pt | P | W);
        pt[round] = (u32)frame[round] | P | W;
        flush_tlb();
        check_eq(*(volatile u32 *)(0x60000000 + round * 4096), 0x2000 + round, "split, round %u", round);
        check_eq(*(volatile u32 *)(0x60000000 + 100 * 4096), 0x3000 + 100, "  its neighbour");
        pt[round] = ((u32)home + (round << 12)) | P | W;
    }
}

static void many_spaces(void)
{
    u64 *space[40];
    for (unsigned s = 0; s < 40; s++) {
        space[s] = s % 2 ? space[s - 1] + 4 : page_alloc(); /* two to a page */
        memcpy(space[s], pdpt, 32);
        space[s][1] = (u32)page_alloc() | P;
        map64(space[s], VIEW, (u32)frame[s % FRAMES], P | W | U);
    }
    for (unsigned round = 0; round < 5; round++)
        for (unsigned s = 0; s < 40; s++) {
            WRITE_CR(3, space[(s * 7) % 40]);
            check_eq(*(volatile u32 *)VIEW, 0x2000 + ((s * 7) % 40) % FRAMES, "space %u, round %u",
                     (s * 7) % 40, round);
        }
    WRITE_CR(3, pdpt);
}

void guest_main(void)
{
    pdpt = pdpt_create(U);
    for (unsigned i = 0; i < FRAMES; i++) {
        frame[i] = page_alloc();
        *frame[i] = 0x2000 + i;
    }
    pte64(pdpt, VIEW);
    paging_on(pdpt, CR4_PAE);
    quiet_checks(true);
    entries();
    split_and_join();
    many_spaces();
    quiet_checks(false);
    check(true, "PAE entries written in halves and at once");
}
