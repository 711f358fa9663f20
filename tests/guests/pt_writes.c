/* Every way a kernel writes page tables, and every use it makes of the pages they lie in. After each change
 * and the flush the architecture asks for, the new translation must hold. */
#include "lib/guest.h"

enum { VIEW = 0x40000000, FRAMES = 64, OK = ACCESS_OK };

static u32 *pd;
static volatile u32 *frame[FRAMES];

/* ---- One entry, by each kind of store ---- */
static void store(unsigned how, volatile u32 *p, u32 v)
{
    u32 old = *p;
    void *to = (void *)p;
    const void *from = &v;
    switch (how) {
    case 0:
        *p = v;
        break;
    case 1:
        __asm__ volatile("xchgl %0, %1" : "+r"(v), "+m"(*p));
        break;
    case 2:
        __asm__ volatile("lock cmpxchgl %2, %1" : "+a"(old), "+m"(*p) : "r"(v));
        break;
    case 3: {
        u32 high = p[1];
        __asm__ volatile("lock cmpxchg8b (%2)"
                         : "+a"(old), "+d"(high)
                         : "S"(p), "b"(v), "c"(high)
                         : "memory");
        break;
    }
    case 4:
        __asm__ volatile("stosl" : "+D"(to) : "a"(v) : "memory");
        break;
    case 5:
        __asm__ volatile("movsl" : "+D"(to), "+S"(from) : : "memory");
        break;
    case 6:
        __asm__ volatile("xorl %1, %0" : "+m"(*p) : "r"(old ^ v));
        break;
    case 7:
        __asm__ volatile("lock addl %1, %0" : "+m"(*p) : "r"(v - old));
        break;
    case 8: /* byte by byte, present bit last */
        *(volatile u8 *)p = 0;
        ((volatile u8 *)p)[3] = v >> 24;
        ((volatile u8 *)p)[2] = v >> 16;
        ((volatile u8 *)p)[1] = v >> 8;
        *(volatile u8 *)p = v;
        break;
    case 9: /* push writes it */
        __asm__ volatile("movl %%esp, %%ecx; movl %0, %%esp; pushl %1; movl %%ecx, %%esp"
                         :
                         : "r"(p + 1), "r"(v)
                         : "ecx", "memory");
        break;
    case 10:
        __asm__ volatile("btsl $0, %0" : "+m"(*p));
        *p = v;
        break;
    default: /* a pop into memory */
        __asm__ volatile("pushl %1; popl %0" : "=m"(*p) : "r"(v));
    }
}
enum { WAYS = 12 };

static void ways(void)
{
    volatile u32 *pte = pte32(pd, VIEW);
    for (unsigned how = 0; how < WAYS; how++) {
        for (unsigned i = 0; i < 200; i++) {
            unsigned f = (i * 7 + how) % FRAMES;
            store(how, pte, (u32)frame[f] | P | W);
            invlpg((void *)VIEW);
            check_eq(*(volatile u32 *)VIEW, 0x1000 + f, "way %u, round %u", how, i);
            store(how, pte, 0);
            invlpg((void *)VIEW);
            if (i % 16 == 0)
                check_eq(access_page(0, READ, VIEW), 0, "way %u, round %u: absent", how, i);
        }
    }
}

/* ---- Many entries at a time ---- */
static void bulk(void)
{
    u32 image[1024];
    volatile u32 *pt = pte32(pd, VIEW);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 1024; i++)
            image[i] = (u32)frame[(i + round) % FRAMES] | P | W;
        void *to = (void *)pt;
        const void *from = image;
        u32 n = 1024;
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
        flush_tlb();
        for (unsigned i = 0; i < 1024; i += 37)
            check_eq(*(volatile u32 *)(VIEW + i * 4096), 0x1000 + (i + round) % FRAMES,
                     "rep movs of a table, round %u, page %u", round, i);
        to = (void *)pt;
        n = 1024;
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(0) : "memory");
        flush_tlb();
        check_eq(access_page(0, READ, VIEW + round * 4096), 0, "rep stos of a table, round %u: absent",
                 round);
    }
}

/* ---- The directory maps itself ---- */
static void recursive(void)
{
    volatile u32 *self = (volatile u32 *)0xffc00000;
    pd[1023] = (u32)pd | P | W;
    flush_tlb();
    check_eq(((volatile u32 *)0xfffff000)[1023] & ~0xfffu, (u32)pd, "recursive: the directory sees itself");
    for (unsigned i = 0; i < 300; i++) {
        u32 va = VIEW + (i % 50) * 4096;
        self[va >> 12] = (u32)frame[i % FRAMES] | P | W;
        invlpg((void *)va);
        check_eq(*(volatile u32 *)va, 0x1000 + i % FRAMES, "recursive: round %u", i);
    }
    u32 *fresh = page_alloc();
    ((volatile u32 *)0xfffff000)[0x48000000 >> 22] = (u32)fresh | P | W;
    invlpg((void *)&self[0x48000000 >> 12]);
    self[0x48000000 >> 12] = (u32)frame[5] | P | W;
    check_eq(*(volatile u32 *)0x48000000, 0x1005, "recursive: a new table made and filled through itself");
    ((volatile u32 *)0xfffff000)[0x48000000 >> 22] = 0;
    flush_tlb();
    check_eq(access_page(0, READ, 0x48000000), 0, "recursive: and removed");
    pd[1023] = 0;
    flush_tlb();
}

/* ---- One frame at a thousand addresses ---- */
static void aliases(void)
{
    for (unsigned i = 0; i < 1000; i++)
        map32(pd, VIEW + 0x800000 + i * 4096, (u32)frame[0], P | W);
    flush_tlb();
    for (unsigned i = 0; i < 1000; i++) {
        *(volatile u32 *)(VIEW + 0x800000 + i * 4096) = i;
        check_eq(*(volatile u32 *)(VIEW + 0x800000 + (999 - i) * 4096), i, "alias %u seen through alias %u",
                 i, 999 - i);
        check_eq(*frame[0], i, "alias %u seen at home", i);
    }
    *frame[0] = 0x1000;
}

/* ---- Ring 3 writes a page table ---- */
static u32 user_store(u32 value)
{
    *(volatile u32 *)(VIEW + 0x1000000) = value;
    return *(volatile u32 *)(VIEW + 0x1000000);
}

static void from_ring3(void)
{
    u32 *pt = page_alloc();
    pd[0x4c000000 >> 22] = (u32)pt | P | W;
    map32(pd, VIEW + 0x1000000, (u32)pt, P | W | U);
    flush_tlb();
    for (unsigned i = 0; i < 50; i++) {
        ring_call(3, user_store, (u32)frame[i] | P | W);
        check_eq(trap.vector, VEC_RETURN, "ring 3 writes a page table, round %u", i);
        invlpg((void *)0x4c000000);
        check_eq(*(volatile u32 *)0x4c000000, 0x1000 + i, "  and the kernel sees the page");
        ring_call(3, user_store, 0);
        invlpg((void *)0x4c000000);
        if (i % 10 == 0)
            check_eq(access_page(0, READ, 0x4c000000), 0, "  and that it is gone");
    }
}

/* ---- Pages that change their calling ---- */
static void recycled(void)
{
    volatile u32 *page = page_alloc();
    for (unsigned round = 0; round < 30; round++) {
        memset((void *)page, 0, 4096);
        page[0] = (u32)frame[round % FRAMES] | P | W;
        page[1] = (u32)frame[(round + 1) % FRAMES] | P | W;
        pd[0x50000000 >> 22] = (u32)page | P | W;
        flush_tlb();
        check_eq(*(volatile u32 *)0x50000000, 0x1000 + round % FRAMES, "a page as a table, round %u", round);
        check_eq(*(volatile u32 *)0x50001000, 0x1000 + (round + 1) % FRAMES, "  its second entry");
        pd[0x50000000 >> 22] = 0;
        flush_tlb();
        map32(pd, 0x54000000, (u32)page, P | W | U);
        flush_tlb();
        for (unsigned i = 0; i < 1024; i += 97)
            ((volatile u32 *)0x54000000)[i] = round * i;
        check_eq(page[97], round * 97, "  the same page as data");
        check_eq(access_page(0, READ, 0x50000000), 0, "  and no table any more");
        map32(pd, 0x54000000, 0, 0);
        flush_tlb();
    }
}

/* A directory is freed, its page reused for data, then for another directory; CR3 comes back to it. */
static void recycled_directory(void)
{
    u32 *other = page_alloc();
    for (unsigned round = 0; round < 20; round++) {
        memcpy(other, pd, 4096);
        other[0x58000000 >> 22] = 0;
        u32 *pt = page_alloc();
        pt[0] = (u32)frame[round] | P | W | U;
        other[0x58000000 >> 22] = (u32)pt | P | W | U;
        WRITE_CR(3, other);
        check_eq(*(volatile u32 *)0x58000000, 0x1000 + round, "directory in its life %u", round);
        WRITE_CR(3, pd);
        check_eq(access_page(0, READ, 0x58000000), 0, "  not in the first one");
        memset(other, 0xff, 4096);
    }
}

void guest_main(void)
{
    pd = pd_create(U);
    for (unsigned i = 0; i < FRAMES; i++) {
        frame[i] = page_alloc();
        *frame[i] = 0x1000 + i;
    }
    pte32(pd, VIEW);
    paging_on(pd, 0);
    quiet_checks(true);
    ways();
    bulk();
    recursive();
    aliases();
    from_ring3();
    recycled();
    recycled_directory();
    quiet_checks(false);
    check(true, "all ways of writing page tables");
}
