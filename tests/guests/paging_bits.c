/* 32-bit paging: accessed and dirty bits, CR0.WP, 4 MiB pages, global pages, and which changes of a page
 * table must be seen when. SDM vol. 3 4.3, 4.8, 4.10. Only what the architecture demands is checked: a TLB
 * may keep a stale translation until it is told, but need not. */
#include "lib/guest.h"

enum { VIEW = 0x40000000, OK = ACCESS_OK };

static u32 *pd;
static volatile u32 *a, *b; /* two frames */

static void accessed_dirty(void)
{
    volatile u32 *pte = pte32(pd, VIEW), *pde = &pd[VIEW >> 22];
    *pte = (u32)a | P | W;
    *pde &= ~(u32)(ACC | DIRTY);
    invlpg((void *)VIEW);
    (void)*(volatile u32 *)VIEW;
    check_eq(*pte & (ACC | DIRTY), ACC, "a read sets A in the PTE, not D");
    check(*pde & ACC, "a read sets A in the PDE");
    *(volatile u32 *)VIEW = 1;
    check_eq(*pte & (ACC | DIRTY), ACC | DIRTY, "a write sets D");
    *pte = (u32)a | P | W;
    invlpg((void *)VIEW);
    *(volatile u32 *)VIEW = 2;
    check_eq(*pte & (ACC | DIRTY), ACC | DIRTY, "after clearing both, a write sets both again");
    *pte = (u32)a | P | W | ACC;
    invlpg((void *)VIEW);
    (void)*(volatile u32 *)VIEW;
    check_eq(*pte & (ACC | DIRTY), ACC, "with A set, a read leaves D clear");
    *(volatile u32 *)VIEW = 3;
    check_eq(*pte & (ACC | DIRTY), ACC | DIRTY, "and the next write sets D");
    *pte = (u32)a | P;
    invlpg((void *)VIEW);
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    check_eq(access_page(0, WRITE, VIEW), 3, "a write to a read-only page faults");
    check(!(*pte & DIRTY), "and leaves D clear");
    WRITE_CR(0, READ_CR(0) & ~CR0_WP);
    check_eq(access_page(0, WRITE, VIEW), OK, "with CR0.WP=0 it is allowed");
    check(*pte & DIRTY, "and sets D");
    *pte = (u32)a | P | U | W;
    invlpg((void *)VIEW);
    *(volatile u8 *)a = OPCODE_RET;
    check_eq(access_page(3, EXEC, VIEW), OK, "ring 3 executes a user page");
    check_eq(*pte & (ACC | DIRTY), ACC, "which sets A only");
}

/* The CPU's own accesses count too. */
static void implicit_accesses(void)
{
    volatile u32 *pte = pte32(pd, VIEW);
    memcpy((void *)a, gdt, sizeof gdt);
    *pte = (u32)a | P | W;
    invlpg((void *)VIEW);
    load_gdt((void *)VIEW, sizeof gdt - 1);
    check(!(*pte & ACC), "lgdt touches no descriptor");

    __asm__ volatile("movl %0, %%fs" : : "r"(SEL_DATA0));
    check(*pte & ACC, "loading a segment sets A of the GDT's page");
    ((u64 *)a)[SEL_DATA3 / 8] &= ~(1ull << 40);
    *pte = (u32)a | P | W;
    invlpg((void *)VIEW);
    __asm__ volatile("movl %0, %%fs" : : "r"(SEL_DATA3));
    check(*pte & DIRTY, "setting a descriptor's accessed bit sets D of the GDT's page");
    check(((u64 *)a)[SEL_DATA3 / 8] >> 40 & 1, "and the accessed bit is set");
    load_gdt(gdt, sizeof gdt - 1);
    __asm__ volatile("movl %0, %%fs" : : "r"(SEL_DATA0));
}

static void when_seen(void)
{
    volatile u32 *pte = pte32(pd, VIEW), *v = (volatile u32 *)VIEW;
    *a = 0xaaaa;
    *b = 0xbbbb;
    *pte = 0;
    invlpg((void *)VIEW);
    check_eq(access_page(0, READ, VIEW), 0, "absent");
    *pte = (u32)a | P | W;
    check_eq(access_page(0, READ, VIEW), OK, "absent to present is seen without a flush");
    check_eq(*v, 0xaaaa, "  with the right frame");
    *pte = (u32)b | P | W;
    u32 got = *v;
    check(got == 0xaaaa || got == 0xbbbb, "another frame, not yet flushed: the old or the new one");
    invlpg((void *)VIEW);
    check_eq(*v, 0xbbbb, "after INVLPG: the new one");
    *pte = (u32)a | P | W;
    flush_tlb();
    check_eq(*v, 0xaaaa, "after a CR3 write: the new one");
    *pte = (u32)a | P;
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    invlpg((void *)VIEW);
    check_eq(access_page(0, WRITE, VIEW), 3, "write-protected and flushed: a write faults");
    *pte = (u32)a | P | W;
    u32 first = access_page(0, WRITE, VIEW);
    check(first == OK || first == 3, "writable again, not flushed: at most a spurious fault");
    check_eq(access_page(0, WRITE, VIEW), OK, "  and never a second one");
    *pte = 0;
    invlpg((void *)VIEW);
    check_eq(access_page(0, READ, VIEW), 0, "removed and flushed: a read faults");
    *pte = (u32)a | P | W | U;
    check_eq(access_page(3, READ, VIEW), OK, "ring 3 reads a user page");
    *pte = (u32)a | P | W;
    invlpg((void *)VIEW);
    check_eq(access_page(3, READ, VIEW), 5, "made supervisor and flushed: ring 3 faults");
    check_eq(access_page(0, READ, VIEW), OK, "  ring 0 does not");
    pd[VIEW >> 22] &= ~(u32)P;
    flush_tlb();
    check_eq(access_page(0, READ, VIEW), 0, "its PDE removed: absent");
    pd[VIEW >> 22] |= P;
    check_eq(access_page(0, READ, VIEW), OK, "its PDE back: present without a flush");
    WRITE_CR(0, READ_CR(0) & ~CR0_WP);
}

static void write_protect(void)
{
    *pte32(pd, VIEW) = (u32)a | P;
    flush_tlb();
    for (unsigned round = 0; round < 6; round++) {
        WRITE_CR(0, (READ_CR(0) & ~CR0_WP) | (round & 1 ? CR0_WP : 0));
        check_eq(access_page(0, WRITE, VIEW), round & 1 ? 3 : OK, "CR0.WP=%d, changed round %d: write",
                 round & 1, round);
    }
    *pte32(pd, VIEW) = (u32)a | P | U;
    flush_tlb();
    WRITE_CR(0, READ_CR(0) & ~CR0_WP);
    check_eq(access_page(0, WRITE, VIEW), OK, "CR0.WP=0: ring 0 writes a read-only user page");
    check_eq(access_page(3, WRITE, VIEW), 7, "  ring 3 still faults");
    check_eq(access_page(3, READ, VIEW), OK, "  and still reads");
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    check_eq(access_page(0, WRITE, VIEW), 3, "CR0.WP=1: ring 0 faults");
    WRITE_CR(0, READ_CR(0) & ~CR0_WP);
}

static void large(void)
{
    volatile u32 *frame = (volatile u32 *)0x1c00000, *v = (volatile u32 *)0x5c000000;
    frame[0x123450 / 4] = 0xfeed;
    frame[0x3ffffc / 4] = 0xface;
    WRITE_CR(4, CR4_PSE);
    pd[0x5c000000 >> 22] = (u32)frame | P | W | PS;
    check_eq(v[0x123450 / 4], 0xfeed, "a 4 MiB page");
    check_eq(pd[0x5c000000 >> 22] & (ACC | DIRTY), ACC, "  a read sets A in its PDE");
    v[0x3ffffc / 4]++;
    check_eq(frame[0x3ffffc / 4], 0xfacf, "  its last word");
    check_eq(pd[0x5c000000 >> 22] & (ACC | DIRTY), ACC | DIRTY, "  a write sets D in its PDE");
    pd[0x5c000000 >> 22] = (u32)frame | P | PS;
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    flush_tlb();
    check_eq(access_page(0, WRITE, 0x5c000000), 3, "  read-only");
    WRITE_CR(0, READ_CR(0) & ~CR0_WP);
    pd[0x5c000000 >> 22] = (u32)frame | P | W | U | PS;
    invlpg((void *)0x5c3ff000);
    check_eq(access_page(3, READ, 0x5c000000), OK, "  user, after INVLPG of any of its addresses");
    /* The same 4 MiB through a page table, then through a large page again. */
    u32 *pt = page_alloc();
    for (unsigned i = 0; i < 1024; i++)
        pt[i] = ((u32)frame + ((i ^ 1) << 12)) | P | W;
    pd[0x5c000000 >> 22] = (u32)pt | P | W;
    flush_tlb();
    frame[0] = 10;
    frame[1024] = 11;
    check_eq(v[0], 11, "a large page replaced by a page table that swaps pages");
    pd[0x5c000000 >> 22] = (u32)frame | P | W | PS;
    flush_tlb();
    check_eq(v[0], 10, "and back");
}

static void global_pages(void)
{
    volatile u32 *pte = pte32(pd, VIEW), *v = (volatile u32 *)VIEW;
    WRITE_CR(4, CR4_PSE | CR4_PGE);
    *a = 0xaaaa;
    *b = 0xbbbb;
    *pte = (u32)a | P | W | GLOBAL;
    invlpg((void *)VIEW);
    check_eq(*v, 0xaaaa, "a global page");
    *pte = (u32)b | P | W | GLOBAL;
    flush_tlb();
    u32 got = *v;
    check(got == 0xaaaa || got == 0xbbbb, "changed, CR3 written: the old or the new frame");
    invlpg((void *)VIEW);
    check_eq(*v, 0xbbbb, "INVLPG flushes it");
    *pte = (u32)a | P | W | GLOBAL;
    WRITE_CR(4, CR4_PSE);
    WRITE_CR(4, CR4_PSE | CR4_PGE);
    check_eq(*v, 0xaaaa, "and so does changing CR4.PGE");
    *pte = 0;
    WRITE_CR(0, READ_CR(0) & ~CR0_PG);
    WRITE_CR(0, READ_CR(0) | CR0_PG);
    check_eq(access_page(0, READ, VIEW), 0, "and switching paging off and on");
    WRITE_CR(4, 0);
}

void guest_main(void)
{
    pd = pd_create(U);
    a = page_alloc();
    b = page_alloc();
    map32(pd, VIEW, (u32)a, P | W);
    paging_on(pd, 0);
    accessed_dirty();
    implicit_accesses();
    when_seen();
    write_protect();
    large();
    global_pages();
}
