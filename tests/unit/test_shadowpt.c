/* Unit test of shadowpt: what windows show, when stale pages go, tracing, the cache of spaces. Links only
 * host below. */
#include "test_shadowpt_rig.h"

/* Two address spaces with one kernel half: user page table at 400000h-7FFFFFh, kernel one at C0000000h. */
enum { PD_A = 0x1000, PD_B = 0x2000, PT_A = 0x3000, PT_B = 0x4000, PT_K = 0x5000, SPARE = 0x6000 };
enum { UPDE = 1, KPDE = 768 };
#define UVA 0x00400000u
#define KVA 0xC0000000u
#define ALL (P | W | U | A | D)
#define KRW (P | W | A | D)

static void map_standard(struct rig *r)
{
    put32(r, PD_A + UPDE * 4, PT_A | P | W | U | A);
    put32(r, PD_B + UPDE * 4, PT_B | P | W | U | A);
    put32(r, PD_A + KPDE * 4, PT_K | P | W | A);
    put32(r, PD_B + KPDE * 4, PT_K | P | W | A);
}

static void start(struct rig *r)
{
    rig_init(r);
    map_standard(r);
    paging_on(r, PD_A, PSE, false);
}

static uint8_t *kwin(struct rig *r)
{
    return spt_kernel_window(r->s);
}

static uint8_t *uwin(struct rig *r)
{
    return spt_user_window(r->s);
}

static void switch_to(struct rig *r, uint32_t cr3)
{
    static const uint64_t none[4];
    spt_set_cr3(r->s, cr3, none);
}

static void paging_off_is_identity(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    assert_ptr_equal(uwin(&r), kwin(&r));
    assert_int_equal(spt_user_space(r.s), SPT_KERNEL_SPACE);
    assert_unmapped(kwin(&r), 0x5000);
    assert_int_equal(kernel_fault(&r, 0x5123, SPT_WRITE), SPT_RETRY);
    assert_shows(kwin(&r), 0x5000, 0x5000, true);
    assert_shows(kwin(&r), 0x9F000, 0x9F000, true);
    assert_unmapped(kwin(&r), 0xA0000);
    assert_unmapped(kwin(&r), 0xBF000);
    assert_int_equal(kernel_fault(&r, 0xB8000, SPT_WRITE), SPT_DEVICE);
    assert_int_equal(r.info.gpa, 0xB8000);
    assert_int_equal(kernel_fault(&r, 16 * MIB, 0), SPT_DEVICE);
    assert_int_equal(kernel_fault(&r, 0xFEC00000, 0), SPT_DEVICE);
    assert_int_equal(kernel_fault(&r, 16 * MIB - 1, 0), SPT_RETRY);
    assert_shows(kwin(&r), 16 * MIB - PAGE, 16 * MIB - PAGE, true);
    memcpy(kwin(&r) + 0x5000, "seen", 4);
    assert_memory_equal(r.ram.base + 0x5000, "seen", 4);
    paging_on(&r, PD_A, 0, false); /* nothing of it survives */
    assert_int_equal(pages_seen(kwin(&r)), 0);
    rig_finish(&r);
}

static void true_faults(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A + 4, 0x100000 | P | U | A);
    put32(&r, PT_K + 4, 0x101000 | P | W | A);
    assert_int_equal(user_fault(&r, UVA + 0x10, 0), SPT_TRUE_FAULT);
    assert_int_equal(r.info.gva, UVA + 0x10);
    assert_int_equal(r.info.pfec, 4);
    assert_int_equal(user_fault(&r, UVA + 0x1010, SPT_WRITE), SPT_TRUE_FAULT);
    assert_int_equal(r.info.pfec, 7);
    assert_int_equal(user_fault(&r, KVA + 0x1000, 0), SPT_TRUE_FAULT);
    assert_int_equal(r.info.pfec, 5);
    assert_int_equal(kernel_fault(&r, UVA + 0x1000, SPT_WRITE), SPT_TRUE_FAULT);
    assert_int_equal(r.info.pfec, 3);
    assert_int_equal(kernel_fault(&r, 0xFFFFFFFF, SPT_WRITE), SPT_TRUE_FAULT);
    assert_int_equal(r.info.pfec, 2);
    assert_int_equal(spt_stats(r.s)->true_faults, 5);
    assert_int_equal(pages_seen(kwin(&r)) + pages_seen(uwin(&r)), 0);
    rig_finish(&r);
}

static void views_are_separate(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x100000 | ALL);
    put32(&r, PT_A + 4, 0x101000 | KRW); /* a supervisor page between user pages, contiguous frames */
    put32(&r, PT_A + 8, 0x102000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_shows(uwin(&r), UVA, 0x100000, true);
    assert_int_equal(pages_seen(uwin(&r)), 1);
    assert_int_equal(kernel_fault(&r, UVA, 0), SPT_OTHER_VIEW);
    assert_int_equal(spt_fault(r.s, true, UVA + 0x1000, 0, &r.info), SPT_OTHER_VIEW);
    assert_int_equal(kernel_fault(&r, UVA + 0x1000, 0), SPT_RETRY);
    assert_shows(kwin(&r), UVA + 0x1000, 0x101000, true);
    assert_int_equal(pages_seen(kwin(&r)), 1);
    rig_finish(&r);
}

static void accessed_and_dirty(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PD_A + UPDE * 4, PT_A | P | W | U); /* A clear above, too */
    put32(&r, PT_A, 0x100000 | P | W | U);
    put32(&r, PT_A + 4, 0x101000 | P | W | U | A);
    put32(&r, PT_A + 8, 0x102000 | P | W | U);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_int_equal(get32(&r, PD_A + UPDE * 4), PT_A | P | W | U | A);
    assert_int_equal(get32(&r, PT_A), 0x100000 | P | W | U | A);
    assert_shows(uwin(&r), UVA, 0x100000, false);          /* no D: the first write must be seen */
    assert_shows(uwin(&r), UVA + 0x1000, 0x101000, false); /* prefilled: its A was set */
    assert_unmapped(uwin(&r), UVA + 0x2000);               /* not: A is clear, and stays clear */
    assert_int_equal(get32(&r, PT_A + 8), 0x102000 | P | W | U);
    assert_int_equal(user_fault(&r, UVA + 0x1004, SPT_WRITE), SPT_RETRY);
    assert_int_equal(get32(&r, PT_A + 4), 0x101000 | ALL);
    assert_shows(uwin(&r), UVA + 0x1000, 0x101000, true);
    assert_shows(uwin(&r), UVA, 0x100000, false);
    assert_int_equal(get32(&r, PD_A + UPDE * 4) & D, 0); /* D exists in the last level only */
    assert_int_equal(user_fault(&r, UVA + 0x2000, SPT_WRITE), SPT_RETRY);
    assert_int_equal(get32(&r, PT_A + 8), 0x102000 | ALL);
    rig_finish(&r);
}

static void runs_fill_at_once(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    for (unsigned i = 0; i < 1024;
         ++i) /* kernel low memory, 4 KiB entries: frames run, but one is read-only */
        put32(&r, PT_K + i * 4, (0x400000 + i * PAGE) | KRW);
    put32(&r, PT_K + 300 * 4, (0x400000 + 300 * PAGE) | P | A | D);
    uint64_t calls = r.host.mmap;
    assert_int_equal(kernel_fault(&r, KVA + 100 * PAGE, SPT_WRITE), SPT_RETRY);
    assert_int_equal(r.host.mmap - calls, 1);
    assert_int_equal(pages_seen(kwin(&r)), 300);
    assert_shows(kwin(&r), KVA + 299 * PAGE, 0x400000 + 299 * PAGE, true);
    assert_int_equal(kernel_fault(&r, KVA + 300 * PAGE, 0), SPT_RETRY);
    assert_shows(kwin(&r), KVA + 300 * PAGE, 0x400000 + 300 * PAGE, false);
    assert_int_equal(kernel_fault(&r, KVA + 1023 * PAGE, 0), SPT_RETRY);
    assert_int_equal(pages_seen(kwin(&r)), 301 + 512);
    assert_int_equal(spt_stats(r.s)->pages_filled, 301 + 512);
    rig_finish(&r);
}

/* Frames that do not run, two walks in turn. A fault where the last fill ended brings more and more, but nothing without
 * A, and nothing writable without D. */
static void walks_fill_ahead(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    for (unsigned i = 0; i < 1024; ++i)
        put32(&r, PT_A + i * 4, (0x200000 + i * 2 * PAGE) | ALL);
    put32(&r, PT_A + 20 * 4, (0x200000 + 20 * 2 * PAGE) | P | W | U | A);
    put32(&r, PT_A + 200 * 4, (0x200000 + 200 * 2 * PAGE) | P | W | U | D);
    static const struct {
        unsigned page, filled;
    } walk[] = {{0, 1},    {600, 1}, {1, 1},    {601, 1},  {2, 32},
                {602, 32}, {34, 64}, {634, 64}, {98, 102}, /* up to page 200 */
                {300, 1},  {303, 1}, {301, 1},  {302, 1}}; /* 303 is there: 302 is alone */
    unsigned shown = 0;
    for (unsigned i = 0; i < sizeof walk / sizeof *walk; ++i) {
        assert_int_equal(user_fault(&r, UVA + walk[i].page * PAGE, i % 2 ? SPT_WRITE : 0), SPT_RETRY);
        shown += walk[i].filled;
        assert_int_equal(pages_seen(uwin(&r)), shown);
    }
    assert_shows(uwin(&r), UVA + 19 * PAGE, 0x200000 + 19 * 2 * PAGE, true);
    assert_shows(uwin(&r), UVA + 20 * PAGE, 0x200000 + 20 * 2 * PAGE, false);
    assert_unmapped(uwin(&r), UVA + 200 * PAGE);
    assert_int_equal(get32(&r, PT_A + 200 * 4) & A, 0);
    assert_int_equal(get32(&r, PT_A + 20 * 4) & D, 0);
    assert_int_equal(user_fault(&r, UVA + 20 * PAGE, SPT_WRITE), SPT_RETRY);
    assert_shows(uwin(&r), UVA + 20 * PAGE, 0x200000 + 20 * 2 * PAGE, true);
    rig_finish(&r);
}

static void large_pages_without_traced_ones(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PD_A + KPDE * 4, 0 | PS | P | W); /* the first 4 MiB: holds the page tables themselves */
    assert_int_equal(kernel_fault(&r, KVA + 0x10000, SPT_WRITE), SPT_RETRY);
    assert_int_equal(get32(&r, PD_A + KPDE * 4), PS | KRW);
    assert_shows(kwin(&r), KVA + 0x10000, 0x10000, true);
    assert_shows(kwin(&r), KVA + 0x9F000, 0x9F000, true);
    assert_unmapped(kwin(&r), KVA + 0xA0000);
    assert_unmapped(kwin(&r), KVA + 0x1000); /* the page directory in use */
    assert_int_equal(kernel_fault(&r, KVA + 0x1000, SPT_WRITE), SPT_PT_WRITE);
    assert_int_equal(r.info.gpa, 0x1000);
    assert_int_equal(kernel_fault(&r, KVA + 0x1000, 0), SPT_RETRY);
    assert_shows(kwin(&r), KVA + 0x1000, 0x1000, false);
    assert_shows(kwin(&r), KVA + PT_A, PT_A, true); /* not used yet */
    put32(&r, PT_A, 0x100000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_shows(kwin(&r), KVA + PT_A, PT_A, false); /* used now */
    assert_shows(kwin(&r), KVA + PT_A + PAGE, PT_A + PAGE, true);
    assert_int_equal(kernel_fault(&r, KVA + 0x100000, 0), SPT_RETRY);
    assert_shows(kwin(&r), KVA + 0x1FF000, 0x1FF000, true);
    assert_int_equal(kernel_fault(&r, KVA + 0x3FF000, 0), SPT_RETRY);
    assert_shows(kwin(&r), KVA + 0x200000, 0x200000, true);
    switch_to(&r, PD_A); /* a directory entry that changes its mind about 4 MiB takes both halves along */
    store32(&r, PD_A + KPDE * 4, 0x400000 | PS | KRW);
    spt_invlpg(r.s, KVA + 0x3FF000);
    assert_int_equal(pages_seen(kwin(&r)), 0);
    rig_finish(&r);
}

static void a_new_page_needs_no_flush(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x100000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    store32(&r, PT_A + 4, 0x105000 | ALL);
    assert_int_equal(user_fault(&r, UVA + PAGE, 0), SPT_RETRY);
    assert_shows(uwin(&r), UVA + PAGE, 0x105000, true);
    rig_finish(&r);
}

static void stale_until_flushed(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    for (unsigned i = 0; i < 64; ++i)
        put32(&r, PT_A + i * 4, (0x100000 + i * PAGE) | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_int_equal(pages_seen(uwin(&r)), 64);
    uint64_t calls = r.host.munmap;
    for (unsigned i = 10; i < 20; ++i)
        store32(&r, PT_A + i * 4, 0);
    store32(&r, PT_A + 40 * 4, 0x200000 | ALL);
    assert_int_equal(pages_seen(uwin(&r)), 64); /* the TLB still has them */
    assert_int_equal(r.host.munmap, calls);
    spt_invlpg(r.s, UVA + 12 * PAGE); /* takes the queued run around it along, and no more */
    assert_int_equal(r.host.munmap, calls + 1);
    assert_unmapped(uwin(&r), UVA + 12 * PAGE);
    assert_shows(uwin(&r), UVA + 40 * PAGE, 0x128000, true);
    switch_to(&r, PD_A);
    assert_int_equal(r.host.munmap, calls + 2);
    assert_unmapped(uwin(&r), UVA + 40 * PAGE);
    assert_int_equal(pages_seen(uwin(&r)), 53);
    assert_int_equal(user_fault(&r, UVA + 40 * PAGE, 0), SPT_RETRY);
    assert_shows(uwin(&r), UVA + 40 * PAGE, 0x200000, true);
    spt_invlpg(r.s, UVA); /* nothing queued: nothing to do */
    assert_int_equal(r.host.munmap, calls + 2);
    rig_finish(&r);
}

/* Present, gone, present elsewhere, no flush in between, and the page is touched through the other view. */
static void a_fill_does_not_resurrect_the_old_page(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x100000 | P | U | A);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    store32(&r, PT_A, 0);
    store32(&r, PT_A, 0x200000 | ALL);
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_RETRY);
    assert_shows(uwin(&r), UVA, 0x200000, true);
    switch_to(&r, PD_A); /* the drop queued for the old page must not hit the new one's bookkeeping */
    assert_true(!see(uwin(&r), UVA).mapped || see(uwin(&r), UVA).gpa == 0x200000);
    rig_finish(&r);
}

static void fork_takes_only_the_right_to_write(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    for (unsigned i = 0; i < 32; ++i)
        put32(&r, PT_A + i * 4, (0x100000 + i * PAGE) | ALL);
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_RETRY);
    for (unsigned i = 0; i < 32; ++i)
        store32(&r, PT_A + i * 4, (0x100000 + i * PAGE) | P | U | A | D);
    assert_shows(uwin(&r), UVA, 0x100000, true);
    uint64_t calls = r.host.mprotect, unmaps = r.host.munmap;
    switch_to(&r, PD_A);
    assert_int_equal(r.host.mprotect - calls, 1);
    assert_int_equal(r.host.munmap, unmaps);
    assert_int_equal(pages_seen(uwin(&r)), 32);
    assert_shows(uwin(&r), UVA, 0x100000, false);
    assert_shows(uwin(&r), UVA + 31 * PAGE, 0x11F000, false);
    store32(&r, PT_A + 4, 0x101000 | ALL); /* the child is gone: the page is the parent's alone again */
    calls = r.host.mmap;
    assert_int_equal(user_fault(&r, UVA + PAGE, SPT_WRITE), SPT_RETRY);
    assert_int_equal(r.host.mmap, calls); /* an mprotect is enough */
    assert_shows(uwin(&r), UVA + PAGE, 0x101000, true);
    rig_finish(&r);
}

static void clearing_a_or_d_drops(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x100000 | ALL);
    put32(&r, PT_A + 8, 0x102000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_int_equal(user_fault(&r, UVA + 2 * PAGE, 0), SPT_RETRY);
    store32(&r, PT_A, 0x100000 | P | W | U | D);     /* A */
    store32(&r, PT_A + 8, 0x102000 | P | W | U | A); /* D */
    spt_invlpg(r.s, UVA);
    spt_invlpg(r.s, UVA + 2 * PAGE);
    assert_unmapped(uwin(&r), UVA);
    assert_shows(uwin(&r), UVA + 2 * PAGE, 0x102000, false);
    assert_int_equal(user_fault(&r, UVA + 2 * PAGE, SPT_WRITE), SPT_RETRY);
    assert_int_equal(get32(&r, PT_A + 8), 0x102000 | ALL);
    rig_finish(&r);
}

static void odd_sized_stores(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    for (unsigned i = 0; i < 4; ++i)
        put32(&r, PT_A + i * 4, (0x100000 + i * PAGE) | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    uint8_t byte = 0;
    assert_true(spt_phys_write(r.s, PT_A, &byte, 1)); /* clears P of entry 0 */
    uint8_t across[6] = {0x00, 0x20, 0x00, 0x67, 0x30, 0x10};
    assert_true(spt_phys_write(r.s, PT_A + 5, across, 6)); /* entry 1: frame 2000h, entry 2: frame 103000h */
    assert_int_equal(get32(&r, PT_A + 8), 0x103067);
    switch_to(&r, PD_A);
    assert_unmapped(uwin(&r), UVA);
    assert_unmapped(uwin(&r), UVA + PAGE);
    assert_unmapped(uwin(&r), UVA + 2 * PAGE);
    assert_shows(uwin(&r), UVA + 3 * PAGE, 0x103000, true);
    rig_finish(&r);
}

static void switching_shares_the_kernel(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_K, 0x100000 | KRW);
    put32(&r, PT_A, 0x110000 | ALL);
    put32(&r, PT_B, 0x120000 | ALL);
    put32(&r, PD_A + 800 * 4, SPARE | P | W | A); /* kernel memory that only A has */
    put32(&r, SPARE, 0x130000 | KRW);
    assert_int_equal(kernel_fault(&r, KVA, 0), SPT_RETRY);
    assert_int_equal(kernel_fault(&r, 800u << 22, 0), SPT_RETRY);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    unsigned space_a = spt_user_space(r.s);
    uint8_t *window_a = uwin(&r);
    switch_to(&r, PD_B);
    assert_int_not_equal(spt_user_space(r.s), space_a);
    assert_shows(kwin(&r), KVA, 0x100000, true);
    assert_unmapped(kwin(&r), 800u << 22);
    assert_unmapped(uwin(&r), UVA);
    assert_shows(window_a, UVA, 0x110000, true); /* still there, for later */
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    switch_to(&r, PD_A);
    assert_ptr_equal(uwin(&r), window_a);
    struct host_counts before = r.host;
    for (unsigned i = 0; i < 10; ++i)
        switch_to(&r, i & 1 ? PD_A : PD_B);
    assert_memory_equal(&before, &r.host, sizeof(before)); /* not one host call */
    assert_int_equal(spt_stats(r.s)->window_hits, 11);
    assert_int_equal(spt_stats(r.s)->window_misses, 2);
    /* Now the kernel changes B's directory while A runs: seen at the next switch, although both agreed
     * before. */
    store32(&r, PD_B + KPDE * 4, SPARE | P | W | A);
    assert_shows(kwin(&r), KVA, 0x100000, true);
    switch_to(&r, PD_B);
    assert_unmapped(kwin(&r), KVA);
    assert_int_equal(kernel_fault(&r, KVA, 0), SPT_RETRY);
    assert_shows(kwin(&r), KVA, 0x130000, true);
    switch_to(&r, PD_A);
    assert_unmapped(kwin(&r), KVA);
    rig_finish(&r);
}

/* A kernel entry of the other directory that never was used (A clear) cannot vouch for a shared leaf. */
static void sharing_respects_accessed_bits(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_K, 0x100000 | KRW);
    put32(&r, PD_B + KPDE * 4, PT_K | P | W);
    assert_int_equal(kernel_fault(&r, KVA, 0), SPT_RETRY);
    switch_to(&r, PD_B);
    assert_unmapped(kwin(&r), KVA);
    assert_int_equal(kernel_fault(&r, KVA, 0), SPT_RETRY);
    assert_int_equal(get32(&r, PD_B + KPDE * 4), PT_K | P | W | A);
    rig_finish(&r);
}

static void stale_pages_of_a_sleeping_space(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x110000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    switch_to(&r, PD_B);
    store32(&r, PT_A, 0); /* another process' page is stolen */
    switch_to(&r, PD_A);
    assert_unmapped(uwin(&r), UVA);
    rig_finish(&r);
}

static void recycled_page_directory(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x110000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    switch_to(&r, PD_B);
    static const uint8_t zero[PAGE];
    assert_true(spt_phys_write(r.s, PD_A, zero, PAGE)); /* freed, and made the directory of another process */
    put32(&r, SPARE, 0x130000 | ALL);
    store32(&r, PD_A + UPDE * 4, SPARE | P | W | U | A);
    store32(&r, PD_A + KPDE * 4, PT_K | P | W | A);
    switch_to(&r, PD_A);
    assert_unmapped(uwin(&r), UVA);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_shows(uwin(&r), UVA, 0x130000, true);
    rig_finish(&r);
}

static void recycled_page_table(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PD_A + KPDE * 4, PS | KRW);
    put32(&r, PT_A, 0x110000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_int_equal(kernel_fault(&r, KVA + PT_A, SPT_WRITE), SPT_PT_WRITE);
    store32(&r, PT_A, 0);
    store32(&r, PD_A + UPDE * 4, 0);
    switch_to(&r, PD_A); /* nothing was derived from it any longer: an ordinary page again */
    assert_int_equal(kernel_fault(&r, KVA + PT_A, SPT_WRITE), SPT_RETRY);
    assert_shows(kwin(&r), KVA + PT_A, PT_A, true);
    rig_finish(&r);
}

static void write_floods_untrace(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PD_A + KPDE * 4, PS | KRW);
    put32(&r, PT_A, 0x110000 | ALL);
    put32(&r, PT_A + 4, 0x111000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    unsigned n = 0;
    for (; kernel_fault(&r, KVA + PT_A, SPT_WRITE) == SPT_PT_WRITE;
         ++n) { /* memset of zeros, never flushed */
        assert_true(n < 1024);
        uint32_t zero = 0;
        assert_true(spt_write(r.s, KVA + PT_A + 8 + n * 4, &zero, 4, 0, &r.info));
    }
    assert_true(n > 0 && n < 64);
    assert_unmapped(uwin(&r), UVA); /* whatever came from there is gone */
    assert_shows(kwin(&r), KVA + PT_A, PT_A, true);
    put32(&r, PT_A, 0x120000 | ALL); /* a store no trace sees */
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_shows(uwin(&r), UVA, 0x120000, true);
    assert_int_equal(kernel_fault(&r, KVA + PT_A, SPT_WRITE), SPT_PT_WRITE); /* in use again */
    uint32_t v = 0x1000;
    for (n = 0; kernel_fault(&r, KVA + PT_A, SPT_WRITE) == SPT_PT_WRITE;
         ++n) { /* data, one word of it over and over */
        assert_true(n < 10000);
        ++v;
        assert_true(spt_write(r.s, KVA + PT_A + 64, &v, 4, 0, &r.info));
    }
    assert_true(n > 1000);
    assert_unmapped(uwin(&r), UVA);
    rig_finish(&r);
}

static void flooded_directories(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x110000 | ALL);
    put32(&r, PT_B, 0x120000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    uint8_t *window_a = uwin(&r);
    switch_to(&r, PD_B);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    static const uint8_t zero[PAGE];
    assert_true(spt_phys_write(r.s, PD_A, zero, PAGE)); /* a sleeping one is given up ... */
    assert_int_equal(pages_seen(window_a), 0);
    for (unsigned i = 0; i < 3000; ++i) /* ... the one in use never */
        store32(&r, PD_B + 4000, i);
    assert_shows(uwin(&r), UVA, 0x120000, true);
    store32(&r, PD_B + UPDE * 4, 0);
    switch_to(&r, PD_B);
    assert_unmapped(uwin(&r), UVA);
    rig_finish(&r);
}

static void page_table_mapped_in_user_space(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x110000 | ALL);
    put32(&r, PT_A + 4, PT_A | ALL);     /* user code may write its own page table */
    put32(&r, PD_A + 5 * 4, PD_A | ALL); /* and the directory maps itself */
    assert_int_equal(user_fault(&r, UVA + PAGE, SPT_WRITE), SPT_PT_WRITE);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_int_equal(user_fault(&r, UVA + PAGE, 0), SPT_RETRY);
    assert_shows(uwin(&r), UVA + PAGE, PT_A, false);
    assert_int_equal(user_fault(&r, UVA + PAGE, SPT_WRITE), SPT_PT_WRITE);
    assert_int_equal(user_fault(&r, (5u << 22) + (UPDE << 12), 0),
                     SPT_RETRY); /* PT_A, through the directory */
    assert_int_equal(user_fault(&r, (5u << 22) + (UPDE << 12), SPT_WRITE), SPT_PT_WRITE);
    assert_int_equal(user_fault(&r, (5u << 22) + (5u << 12), SPT_WRITE), SPT_PT_WRITE); /* the directory */
    uint32_t entry = 0x120000 | ALL;
    assert_true(spt_write(r.s, UVA + PAGE, &entry, 4, SPT_USER, &r.info));
    spt_invlpg(r.s, UVA);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_shows(uwin(&r), UVA, 0x120000, true);
    rig_finish(&r);
}

static void write_protect_off(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    struct spt_paging p = *spt_paging(r.s);
    put32(&r, PT_K, 0x100000 | P | A | D);
    put32(&r, PT_A, 0x110000 | P | U | A | D);
    assert_int_equal(kernel_fault(&r, KVA, SPT_WRITE), SPT_TRUE_FAULT);
    p.cr0 &= ~WP;
    spt_set_paging(r.s, &p);
    assert_int_equal(kernel_fault(&r, KVA, SPT_WRITE), SPT_RETRY);
    assert_shows(kwin(&r), KVA, 0x100000, true);
    assert_int_equal(spt_fault(r.s, false, UVA, SPT_WRITE, &r.info), SPT_EMULATE);
    assert_int_equal(spt_fault(r.s, true, UVA, SPT_WRITE, &r.info), SPT_EMULATE);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_shows(uwin(&r), UVA, 0x110000, false);
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_TRUE_FAULT);
    uint8_t b = 7;
    assert_true(spt_write(r.s, UVA, &b, 1, 0, &r.info)); /* what SPT_EMULATE asks for */
    assert_false(spt_write(r.s, UVA, &b, 1, SPT_USER, &r.info));
    assert_int_equal(r.info.pfec, 7);
    p.cr0 |= WP;
    spt_set_paging(r.s, &p);
    assert_unmapped(kwin(&r), KVA);
    rig_finish(&r);
}

static void no_second_signal_for_a_demanded_page(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A + 4, 0x111000 | ALL);
    assert_int_equal(user_fault(&r, UVA + PAGE, 0), SPT_RETRY);
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_TRUE_FAULT);
    store32(&r, PT_A, 0x110000 | ALL);
    assert_shows(uwin(&r), UVA, 0x110000, true);
    assert_int_equal(user_fault(&r, UVA + 2 * PAGE, SPT_WRITE), SPT_TRUE_FAULT);
    store32(&r, PT_A + 8, 0x112000 | P | W | U | A); /* D clear: the store has to be seen */
    assert_unmapped(uwin(&r), UVA + 2 * PAGE);
    assert_int_equal(get32(&r, PT_A + 8), 0x112000 | P | W | U | A);
    rig_finish(&r);
}

/* ---- Recycling ---- */

static void few_user_windows(void **state)
{
    (void)state;
    struct rig r;
    rig_init_with(&r, 16 * MIB, 2, 4000, false);
    for (unsigned i = 0; i < 4; ++i) { /* four processes */
        put32(&r, 0x10000 + i * PAGE + UPDE * 4, (0x20000 + i * PAGE) | P | W | U | A);
        put32(&r, 0x20000 + i * PAGE, (0x100000 + i * PAGE) | ALL);
    }
    paging_on(&r, 0x10000, 0, false);
    for (unsigned round = 0; round < 5; ++round)
        for (unsigned i = 0; i < 4; ++i) {
            uint64_t gpa;
            unsigned space;
            switch_to(&r, 0x10000 + i * PAGE);
            r.n_gone = 0;
            assert_int_equal(spt_user_space(r.s) == 1 || spt_user_space(r.s) == 2, 1);
            assert_unmapped(uwin(&r), UVA);
            assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
            assert_shows(uwin(&r), UVA, 0x100000 + i * PAGE, true);
            assert_true(spt_fetch(r.s, UVA, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
            assert_int_equal(gpa, 0x100000 + i * PAGE);
            assert_int_equal(space, spt_user_space(r.s));
        }
    assert_int_equal(spt_stats(r.s)->window_recycles, 18); /* 20 entries, two windows */
    switch_to(&r, 0x10000);
    assert_int_equal(r.n_gone, 1); /* the recycled space's translations went as one */
    assert_int_equal(r.gone[0].gva, 0);
    assert_int_equal(r.gone[0].pages, 1 << 20);
    assert_int_equal(r.gone[0].space, spt_user_space(r.s));
    rig_finish(&r);
}

static unsigned all_vmas(struct rig *r, uint8_t *const *windows, unsigned n)
{
    static _Thread_local struct view v;
    unsigned sum = 0;
    for (unsigned i = 0; i < n; ++i) {
        look(windows[i], &v);
        sum += v.vmas;
    }
    (void)r;
    return sum;
}

static void few_host_mappings(void **state)
{
    (void)state;
    struct rig r;
    enum { LIMIT = 100 };
    rig_init_with(&r, 16 * MIB, 8, LIMIT, false);
    for (unsigned i = 0; i < 4; ++i) {
        put32(&r, 0x10000 + i * PAGE + UPDE * 4, (0x20000 + i * PAGE) | P | W | U | A);
        put32(&r, 0x10000 + i * PAGE + KPDE * 4, 0x30000 | P | W | A);
        for (unsigned j = 0; j < 1024; ++j) /* frames backwards: no two pages are one mapping */
            put32(&r, 0x20000 + i * PAGE + j * 4, (0x500000 - j * PAGE) | ALL);
    }
    for (unsigned j = 0; j < 1024; ++j)
        put32(&r, 0x30000 + j * 4, (0x900000 - j * PAGE) | KRW);
    paging_on(&r, 0x10000, 0, false);
    uint8_t *windows[9] = {kwin(&r)};
    unsigned n = 1;
    for (unsigned i = 0; i < 4; ++i) {
        switch_to(&r, 0x10000 + i * PAGE);
        windows[n++] = uwin(&r);
        for (unsigned j = 0; j < 1024; j += 3) {
            assert_int_equal(user_fault(&r, UVA + j * PAGE, SPT_WRITE), SPT_RETRY);
            assert_int_equal(kernel_fault(&r, KVA + j * PAGE, SPT_WRITE), SPT_RETRY);
            struct seen u = see(uwin(&r), UVA + j * PAGE), k = see(kwin(&r), KVA + j * PAGE);
            assert_true(u.mapped || k.mapped); /* the later one surely */
            assert_true(k.mapped && k.gpa == 0x900000 - j * PAGE);
            if (j % 32 == 0)
                assert_true(all_vmas(&r, windows, n) <= LIMIT);
        }
    }
    assert_true(all_vmas(&r, windows, n) <= LIMIT);
    assert_true(spt_stats(r.s)->window_recycles > 10);
    rig_finish(&r);
}

/* ---- Fetch and code ---- */

static void fetch_translations_are_taken_back(void **state)
{
    (void)state;
    for (int no_windows = 0; no_windows < 2; ++no_windows) {
        struct rig r;
        uint64_t gpa;
        unsigned space;
        rig_init_with(&r, 16 * MIB, 4, 4000, no_windows);
        map_standard(&r);
        paging_on(&r, PD_A, 0, false);
        assert_int_equal(!kwin(&r), no_windows);
        for (unsigned i = 0; i < 8; ++i)
            put32(&r, PT_A + i * 4, (0x110000 + i * PAGE) | P | U);
        put32(&r, PT_K, 0x100000 | P);
        for (unsigned i = 0; i < 8; ++i) {
            assert_true(spt_fetch(r.s, UVA + i * PAGE + 5, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
            assert_int_equal(gpa, 0x110000 + i * PAGE + 5);
            assert_int_equal(space, spt_user_space(r.s));
        }
        assert_int_equal(get32(&r, PT_A + 4), 0x111000 | P | U | A);
        assert_true(spt_fetch(r.s, KVA, SPT_EXEC, &gpa, &space, &r.info));
        assert_int_equal(space, SPT_KERNEL_SPACE);
        assert_false(spt_fetch(r.s, KVA, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
        assert_int_equal(r.info.pfec, 5);
        assert_false(spt_fetch(r.s, UVA + 8 * PAGE, SPT_EXEC, &gpa, &space, &r.info));
        assert_int_equal(r.info.pfec, 0);
        assert_int_equal(r.n_gone, 0);
        for (unsigned i = 2; i < 6; ++i)
            store32(&r, PT_A + i * 4, 0);
        assert_int_equal(r.n_gone, 0);
        switch_to(&r, PD_A);
        assert_int_equal(r.n_gone, 1);
        assert_int_equal(r.gone[0].space, spt_user_space(r.s));
        assert_int_equal(r.gone[0].gva, UVA + 2 * PAGE);
        assert_int_equal(r.gone[0].pages, 4);
        assert_false(spt_fetch(r.s, UVA + 2 * PAGE, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
        store32(&r, PT_A, 0x120000 | P | U | A); /* another page at once */
        spt_invlpg(r.s, UVA);
        assert_int_equal(r.n_gone, 2);
        assert_true(spt_fetch(r.s, UVA, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
        assert_int_equal(gpa, 0x120000);
        store32(&r, PD_A + KPDE * 4, 0); /* an upper level takes all below along */
        switch_to(&r, PD_A);
        assert_int_equal(r.n_gone, 3);
        assert_int_equal(r.gone[2].space, SPT_KERNEL_SPACE);
        assert_int_equal(r.gone[2].gva, KVA);
        struct spt_paging off = {.cr0 = PE};
        spt_set_paging(r.s, &off);
        assert_true(spt_fetch(r.s, 0xFFFF0, SPT_EXEC, &gpa, &space, &r.info));
        assert_int_equal(gpa, 0xFFFF0);
        assert_int_equal(space, SPT_KERNEL_SPACE);
        assert_true(
            spt_fetch(r.s, 0xFFFFFFF0, SPT_EXEC, &gpa, &space, &r.info)); /* not RAM: the caller's business */
        assert_int_equal(gpa, 0xFFFFFFF0);
        rig_finish(&r);
    }
}

/* INVLPG of one page drops the run; the fetch TLB must not remember the others. */
static void fetches_of_a_dropped_run(void **state)
{
    (void)state;
    struct rig r;
    uint64_t gpa;
    unsigned space;
    start(&r);
    for (unsigned i = 0; i < 4; ++i) {
        put32(&r, PT_A + i * 4, (0x110000 + i * PAGE) | P | U);
        assert_true(spt_fetch(r.s, UVA + i * PAGE, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
    }
    for (unsigned i = 0; i < 4; ++i)
        store32(&r, PT_A + i * 4, 0);
    spt_invlpg(r.s, UVA);
    assert_int_equal(r.n_gone, 1);
    assert_int_equal(r.gone[0].pages, 4);
    for (unsigned i = 0; i < 4; ++i)
        assert_false(spt_fetch(r.s, UVA + i * PAGE, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
    rig_finish(&r);
}

/* A page loses X, then is filled anew before the flush: the fetch must be taken back all the same. */
/* Page 0 of a user window stays empty, whoever shows its neighbours; the kernel's does not. */
static void user_page_zero_is_never_shown(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PD_A, PT_A | ALL);
    for (unsigned i = 0; i < 4; ++i)
        put32(&r, PT_A + i * 4, (0x100000 + i * PAGE) | ALL);
    spt_set_cr3(r.s, PD_A, NULL);
    assert_int_equal(user_fault(&r, PAGE, SPT_WRITE), SPT_RETRY);
    assert_int_equal(pages_seen(uwin(&r)), 3);
    assert_unmapped(uwin(&r), 0);
    assert_int_equal(user_fault(&r, 0x10, SPT_WRITE), SPT_EMULATE);
    assert_int_equal(user_fault(&r, 0x10, 0), SPT_EMULATE);
    assert_unmapped(uwin(&r), 0);
    put32(&r, 0x30000, 0x12345678);
    assert_true(spt_write(r.s, 0x10, r.ram.base + 0x30000, 4, SPT_USER, &r.info)); /* what that asks for */
    assert_int_equal(get32(&r, 0x100010), 0x12345678);
    store32(&r, PT_A, 0x100000 | KRW);
    spt_invlpg(r.s, 0);
    assert_int_equal(kernel_fault(&r, 0x10, SPT_WRITE), SPT_RETRY);
    assert_shows(kwin(&r), 0, 0x100000, true);
    put32(&r, PD_A, 0x400000 | PS | ALL); /* a large page */
    spt_set_cr3(r.s, PD_A, NULL);
    assert_int_equal(user_fault(&r, 0x5000, SPT_WRITE), SPT_RETRY);
    assert_shows(uwin(&r), 0x5000, 0x405000, true);
    assert_shows(uwin(&r), PAGE, 0x401000, true);
    assert_unmapped(uwin(&r), 0);
    assert_int_equal(user_fault(&r, 0, 0), SPT_EMULATE);
    rig_finish(&r);
}

static void a_fill_does_not_hide_a_stale_fetch(void **state)
{
    (void)state;
    struct rig r;
    uint64_t gpa;
    unsigned space;
    rig_init(&r);
    put64(&r, 0x1000, 0x2000 | P);
    put64(&r, 0x2000, 0x3000 | P | W | U | A);
    put64(&r, 0x3008, 0x110000 | P | W | U | A);
    paging_on(&r, 0x1000, PAE, true);
    assert_int_equal(user_fault(&r, PAGE, 0), SPT_RETRY);
    assert_true(spt_fetch(r.s, PAGE, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
    store64(&r, 0x3008, 0x110000 | P | W | U | A | NX);
    assert_int_equal(user_fault(&r, PAGE, SPT_WRITE), SPT_RETRY);
    spt_set_cr3(r.s, 0x1000, spt_paging(r.s)->pdpte);
    assert_int_equal(r.n_gone, 1);
    assert_shows(uwin(&r), PAGE, 0x110000, true);
    rig_finish(&r);
}

static void nx_takes_fetches_back(void **state)
{
    (void)state;
    struct rig r;
    uint64_t gpa;
    unsigned space;
    rig_init(&r);
    put64(&r, 0x1000, 0x2000 | P);                    /* PDPTE 0 */
    put64(&r, 0x2000, 0x3000 | P | W | U | A);        /* PDE: 0-1FFFFFh */
    put64(&r, 0x2008, 0x400000 | PS | P | W | U | A); /* 200000h-3FFFFFh */
    put64(&r, 0x3008, 0x110000 | P | W | U | A | D);
    paging_on(&r, 0x1000, PAE, true);
    assert_true(spt_fetch(r.s, PAGE, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
    assert_true(spt_fetch(r.s, 0x234567, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
    assert_int_equal(gpa, 0x434567);
    assert_int_equal(user_fault(&r, PAGE, 0), SPT_RETRY);
    assert_shows(uwin(&r), PAGE, 0x110000, true);
    store32(&r, 0x300c, 0x80000000); /* the upper half only, as Linux' set_pte does it */
    spt_invlpg(r.s, PAGE);
    assert_int_equal(r.n_gone, 1);
    assert_int_equal(r.gone[0].gva, PAGE);
    assert_int_equal(r.gone[0].pages, 1);
    assert_false(spt_fetch(r.s, PAGE, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
    assert_int_equal(r.info.pfec, 0x15);
    store64(&r, 0x2008, 0x400000 | PS | P | W | A); /* a supervisor page from now on */
    spt_set_cr3(r.s, 0x1000, spt_paging(r.s)->pdpte);
    assert_int_equal(r.n_gone, 2);
    assert_int_equal(r.gone[1].gva, 0x234000);
    assert_true(spt_fetch(r.s, 0x234567, SPT_EXEC, &gpa, &space, &r.info));
    assert_int_equal(space, SPT_KERNEL_SPACE);
    rig_finish(&r);
}

static void pae_spaces(void **state)
{
    (void)state;
    struct rig r;
    rig_init(&r);
    for (unsigned i = 0; i < 2; ++i) { /* two PDPTs in one page; the kernel's quarter is shared */
        put64(&r, 0x1000 + i * 32, (0x2000 + i * PAGE) | P);
        put64(&r, 0x1000 + i * 32 + 24, 0x8000 | P);
        put64(&r, 0x2000 + i * PAGE + 2 * 8, (0x4000 + i * PAGE) | P | W | U | A); /* 400000h */
        put64(&r, 0x4000 + i * PAGE + 8, (0x110000 + i * PAGE) | ALL);
    }
    put64(&r, 0x8000, 0x600000 | PS | KRW); /* C0000000h: 2 MiB */
    put64(&r, 0x8000 + 511 * 8, 0x9000 | P | W | A);
    put64(&r, 0x9000 + 511 * 8, 0x700000 | KRW); /* FFFFF000h */
    paging_on(&r, 0x1000, PAE, true);
    assert_int_equal(user_fault(&r, 0x401000, SPT_WRITE), SPT_RETRY);
    assert_shows(uwin(&r), 0x401000, 0x110000, true);
    assert_int_equal(kernel_fault(&r, KVA + 0x123456, SPT_WRITE), SPT_RETRY);
    assert_int_equal(kernel_fault(&r, 0xFFFFFFFF, SPT_WRITE), SPT_RETRY);
    assert_int_equal(pages_seen(kwin(&r)), 513);
    uint64_t pdpte[4];
    assert_true(spt_load_pdptes(&r.ram, 0x1020, pdpte));
    spt_set_cr3(r.s, 0x1020, pdpte);
    assert_int_equal(pages_seen(kwin(&r)), 513);
    assert_unmapped(uwin(&r), 0x401000);
    assert_int_equal(user_fault(&r, 0x401000, SPT_WRITE), SPT_RETRY);
    assert_shows(uwin(&r), 0x401000, 0x111000, true);
    put64(&r, 0x1020, 0x2000 | P); /* PDPTEs are registers: memory does not count ... */
    assert_shows(uwin(&r), 0x401000, 0x111000, true);
    assert_true(spt_load_pdptes(&r.ram, 0x1020, pdpte));
    spt_set_cr3(r.s, 0x1020, pdpte); /* ... until CR3 is loaded */
    assert_shows(uwin(&r), 0x401000, 0x110000, true);
    store32(&r, 0x9000 + 511 * 8 + 4, 1u << 8); /* a reserved bit: the page must go */
    spt_invlpg(r.s, 0xFFFFF000);
    assert_int_equal(pages_seen(kwin(&r)), 512);
    assert_int_equal(kernel_fault(&r, 0xFFFFFFFF, 0), SPT_TRUE_FAULT);
    assert_int_equal(r.info.pfec, 9);
    rig_finish(&r);
}

static void code_pages(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x110000 | ALL);
    put32(&r, PT_B, 0x110000 | ALL);
    put32(&r, PT_K, 0x110000 | KRW);
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_RETRY);
    assert_int_equal(kernel_fault(&r, KVA, SPT_WRITE), SPT_RETRY);
    uint8_t *window_a = uwin(&r);
    switch_to(&r, PD_B);
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_RETRY);
    assert_non_null(spt_ptr(r.s, UVA, 4, SPT_WRITE | SPT_USER));
    spt_trace_code(r.s, 0x110123);
    assert_shows(window_a, UVA, 0x110000, false); /* everywhere, the sleeping space too */
    assert_shows(uwin(&r), UVA, 0x110000, false);
    assert_shows(kwin(&r), KVA, 0x110000, false);
    assert_null(spt_ptr(r.s, UVA, 4, SPT_WRITE | SPT_USER));
    assert_non_null(spt_ptr(r.s, UVA, 4, SPT_USER));
    assert_int_equal(user_fault(&r, UVA + 8, SPT_WRITE), SPT_CODE_WRITE);
    assert_int_equal(r.info.gpa, 0x110008);
    uint32_t v = 0x12345678;
    assert_true(spt_write(r.s, UVA + 8, &v, 4, SPT_USER, &r.info));
    assert_int_equal(r.n_code, 1);
    assert_int_equal(r.code_gpa, 0x110008);
    assert_int_equal(r.code_len, 4);
    r.untrace_on_write = true;
    assert_true(spt_phys_write(r.s, 0x10FFFE, &v, 4)); /* DMA across the page's start */
    assert_int_equal(r.n_code, 2);
    assert_int_equal(r.code_gpa, 0x110000);
    assert_int_equal(r.code_len, 2);
    assert_int_equal(user_fault(&r, UVA + 8, SPT_WRITE), SPT_RETRY);
    assert_shows(uwin(&r), UVA, 0x110000, true);
    assert_shows(window_a, UVA, 0x110000, false); /* lazily */
    /* Code and page table in one page, and an A bit that changes code. */
    r.untrace_on_write = false;
    put32(&r, PT_B + 8, 0x112000 | P | U);
    spt_trace_code(r.s, PT_B);
    assert_int_equal(user_fault(&r, UVA + 2 * PAGE, 0), SPT_RETRY);
    assert_int_equal(r.n_code, 3);
    assert_int_equal(r.code_gpa, PT_B + 8);
    spt_trace_code(r.s, 0xA0000); /* not RAM: nothing to trace, nothing to crash */
    spt_untrace_code(r.s, UINT64_C(0xFFFFFFFFF000));
    rig_finish(&r);
}

/* ---- Doors ---- */

static void doors(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x110000 | P | W | U);
    put32(&r, PT_A + 4, 0x105000 | P | W | U);
    put32(&r, PT_A + 8, 0x106000 | P | U);
    put32(&r, PT_A + 16, 0xFEE00000 | P | W | U);
    uint8_t in[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8] = {0};
    assert_true(
        spt_write(r.s, UVA + 0xFFD, in, 8, SPT_USER, &r.info)); /* across two pages that are far apart */
    assert_memory_equal(r.ram.base + 0x110FFD, in, 3);
    assert_memory_equal(r.ram.base + 0x105000, in + 3, 5);
    assert_int_equal(get32(&r, PT_A) & (A | D), A | D);
    assert_true(spt_read(r.s, UVA + 0xFFD, out, 8, SPT_USER, &r.info));
    assert_memory_equal(in, out, 8);
    memset(in, 0xEE, 8); /* the second page refuses: nothing is written, not even to the first */
    assert_false(spt_write(r.s, UVA + 0x1FFC, in, 8, SPT_USER, &r.info));
    assert_int_equal(r.info.gva, UVA + 0x2000);
    assert_int_equal(r.info.pfec, 7);
    assert_int_equal(get32(&r, 0x105FFC), 0);
    assert_false(spt_probe_write(r.s, UVA + 0x1FFC, 8, SPT_USER, &r.info));
    assert_true(spt_probe_write(r.s, UVA + 0x1FFC, 4, SPT_USER, &r.info));
    assert_false(spt_read(r.s, UVA + 0x2FFF, out, 2, SPT_USER, &r.info));
    assert_int_equal(r.info.gva, UVA + 0x3000);
    assert_int_equal(r.info.pfec, 4);
    assert_int_equal(get32(&r, PT_A + 8) & (A | D), 0); /* a refused access used nothing */
    /* Devices: whole accesses arrive whole; what crosses into one is cut. */
    assert_true(spt_read(r.s, UVA + 0x4010, out, 4, SPT_USER, &r.info));
    assert_int_equal(r.n_mmio, 1);
    assert_int_equal(r.mmio_gpa[0], 0xFEE00010);
    assert_int_equal(r.mmio_len[0], 4);
    assert_int_equal(out[3], 0x44);
    uint64_t v = UINT64_C(0x1122334455667788);
    assert_true(spt_write(r.s, UVA + 0x4023, &v, 7, SPT_USER, &r.info)); /* 1 + 4 + 2 by alignment */
    assert_int_equal(r.n_mmio, 4);
    assert_int_equal(r.mmio_len[1], 1);
    assert_int_equal(r.mmio_value[1], 0x88);
    assert_int_equal(r.mmio_gpa[2], 0xFEE00024);
    assert_int_equal(r.mmio_len[2], 4);
    assert_int_equal(r.mmio_value[2], 0x44556677);
    assert_int_equal(r.mmio_len[3], 2);
    assert_int_equal(r.mmio_value[3], 0x2233);
    assert_null(spt_ptr(r.s, UVA + 0x4000, 4, SPT_USER));
    /* Pointers. */
    assert_ptr_equal(spt_ptr(r.s, UVA + 4, 4, SPT_USER), r.ram.base + 0x110004);
    assert_ptr_equal(spt_ptr(r.s, UVA + 4, 4, SPT_USER), r.ram.base + 0x110004);
    assert_null(spt_ptr(r.s, UVA + 0xFFD, 4, SPT_USER));
    assert_ptr_equal(spt_ptr(r.s, UVA + 0xFFC, 4, SPT_USER), r.ram.base + 0x110FFC);
    assert_null(spt_ptr(r.s, UVA + 0x2000, 4, SPT_USER | SPT_WRITE));
    assert_null(spt_ptr(r.s, KVA, 4, SPT_USER));
    store32(&r, PT_A, 0x120000 | ALL);
    spt_invlpg(r.s, UVA);
    assert_ptr_equal(spt_ptr(r.s, UVA + 4, 4, SPT_USER), r.ram.base + 0x120004);
    switch_to(&r, PD_B);
    assert_null(spt_ptr(r.s, UVA + 4, 4, SPT_USER));
    /* The end of the world is the beginning of the world. */
    put32(&r, PD_B, PT_B | P | W | U);
    put32(&r, PD_B + 1023 * 4, PT_B | P | W | U);
    put32(&r, PT_B, 0x130000 | ALL);
    put32(&r, PT_B + 1023 * 4, 0x140000 | ALL);
    assert_true(spt_write(r.s, 0xFFFFFFFE, in, 4, 0, &r.info));
    assert_memory_equal(r.ram.base + 0x140FFE, in, 2);
    assert_memory_equal(r.ram.base + 0x130000, in, 2);
    rig_finish(&r);
}

/* INVLPG of any address in a large page invalidates all of it. */
static void large_pages_in_the_tlb(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PD_A + 8, 0x400000 | PS | ALL);
    assert_ptr_equal(spt_ptr(r.s, 0x800000, 4, SPT_WRITE), r.ram.base + 0x400000);
    assert_ptr_equal(spt_ptr(r.s, 0xBFF000, 4, SPT_WRITE), r.ram.base + 0x7FF000);
    store32(&r, PD_A + 8, 0x800000 | PS | ALL);
    spt_invlpg(r.s, UVA); /* lies in another one */
    spt_invlpg(r.s, 0x812345);
    assert_ptr_equal(spt_ptr(r.s, 0xBFF000, 4, SPT_WRITE), r.ram.base + 0xBFF000);
    put32(&r, PT_B + 1020, 0x110000 | ALL);
    store32(&r, PD_A + 8,
            PT_B | P | W | U | A); /* small pages now; all of the large one is still to be forgotten */
    spt_invlpg(r.s, 0x8FF000);
    assert_null(spt_ptr(r.s, 0xBFF000, 4, SPT_WRITE));
    assert_ptr_equal(spt_ptr(r.s, 0x8FF000, 4, SPT_WRITE), r.ram.base + 0x110000);
    rig_finish(&r);
}

static void process_exit_is_one_host_call(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    for (unsigned i = 0; i < 4; ++i) {
        put32(&r, PD_A + (10 + i) * 4, (0x20000 + i * PAGE) | P | W | U | A);
        put32(&r, 0x20000 + i * PAGE, (0x110000 + i * PAGE) | ALL);
        assert_int_equal(user_fault(&r, (10 + i) << 22, SPT_WRITE), SPT_RETRY);
    }
    put32(&r, PT_K, 0x100000 | KRW);
    assert_int_equal(kernel_fault(&r, KVA, 0), SPT_RETRY);
    for (unsigned i = 0; i < 4; ++i) {
        store32(&r, 0x20000 + i * PAGE, 0);
        store32(&r, PD_A + (10 + i) * 4, 0);
    }
    uint64_t calls = r.host.munmap;
    switch_to(&r, PD_A);
    assert_int_equal(r.host.munmap - calls, 1);
    assert_int_equal(pages_seen(uwin(&r)), 0);
    assert_shows(kwin(&r), KVA, 0x100000, true);
    rig_finish(&r);
}

/* The real thing: a load and a store through the window, with a host fault in between. */
static bool on_trap(void *ctx, struct host_trap *trap)
{
    struct rig *r = ctx;
    uint64_t at = trap->addr - (uintptr_t)uwin(r);
    if (trap->kind == HOST_TRAP_KICK)
        return true;
    return trap->vector == 14 && at < HOST_WINDOW_SIZE &&
           user_fault(r, (uint32_t)at, trap->error & SPT_WRITE) == SPT_RETRY;
}

static void through_a_real_fault(void **state)
{
    (void)state;
    struct rig r;
    struct host_thread thread;
    struct host_err err;
    start(&r);
    put32(&r, PT_A, 0x110000 | P | W | U);
    put32(&r, 0x110010, 0xCAFE);
    assert_int_equal(host_thread_enter(&thread, on_trap, &r, &r.host, &err), 0);
    volatile uint32_t *word = (volatile uint32_t *)(uwin(&r) + UVA + 0x10);
    uint32_t seen = *word;
    assert_int_equal(get32(&r, PT_A), 0x110000 | P | W | U | A);
    *word = 0xBEEF;
    host_thread_leave(&thread);
    assert_int_equal(seen, 0xCAFE);
    assert_int_equal(get32(&r, 0x110010), 0xBEEF);
    assert_int_equal(get32(&r, PT_A), 0x110000 | ALL);
    assert_int_equal(r.host.segv, 2);
    assert_int_equal(spt_stats(r.s)->hidden_faults, 2);
    rig_finish(&r);
}

static void large_door_calls(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    enum { SIZE = 200000 };
    uint8_t *in = malloc(SIZE), *out = calloc(1, SIZE);
    for (unsigned i = 0; i < SIZE; ++i)
        in[i] = (uint8_t)(i * 7);
    for (unsigned i = 0; i < 64; ++i)
        put32(&r, PT_A + i * 4, (0x500000 - i * PAGE) | P | W | U);
    assert_true(spt_write(r.s, UVA + 100, in, SIZE, SPT_USER, &r.info));
    assert_true(spt_read(r.s, UVA + 100, out, SIZE, SPT_USER, &r.info));
    assert_memory_equal(in, out, SIZE);
    assert_memory_equal(r.ram.base + 0x4FF000, in + PAGE - 100, PAGE);
    free(in);
    free(out);
    rig_finish(&r);
}

static void physical_doors(void **state)
{
    (void)state;
    struct rig r;
    rig_init_with(&r, 2 * MIB, 1, 100, true);
    uint8_t b[16] = {1, 2, 3};
    assert_true(spt_is_ram(r.s, 0x9FFFF) && spt_is_ram(r.s, 0xC0000) && spt_is_ram(r.s, 0x1FFFFF));
    assert_false(spt_is_ram(r.s, 0xA0000) || spt_is_ram(r.s, 0xBFFFF) || spt_is_ram(r.s, 0x200000));
    assert_true(spt_phys_write(r.s, 0x1FFFF0, b, 16));
    assert_false(spt_phys_write(r.s, 0x1FFFF1, b, 16));
    assert_false(spt_phys_write(r.s, 0x9FFF8, b, 16));
    assert_false(spt_phys_write(r.s, UINT64_MAX - 4, b, 16));
    assert_false(spt_phys_read(r.s, 0xBFFFF, b, 2));
    assert_true(spt_phys_read(r.s, 0x1FFFF0, b + 8, 3));
    assert_memory_equal(b, b + 8, 3);
    assert_true(spt_phys_write(r.s, 0, NULL, 0));
    rig_finish(&r);
}

/* Stores through a door to a page that becomes traced, and is traced no longer. */
static void doors_honour_traces(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PD_A + KPDE * 4, PS | KRW);
    put32(&r, PT_A, 0x110000 | ALL);
    uint32_t v = 0x120000 | ALL;
    assert_non_null(spt_ptr(r.s, KVA + PT_A, 4, SPT_WRITE));
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_null(spt_ptr(r.s, KVA + PT_A, 4, SPT_WRITE));
    for (unsigned i = 0; i < 2; ++i) { /* slow path first, then the remembered translation */
        assert_true(spt_write(r.s, KVA + PT_A, &v, 4, 0, &r.info));
        switch_to(&r, PD_A);
        assert_unmapped(uwin(&r), UVA);
        assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
        assert_shows(uwin(&r), UVA, v & ~0xFFFu, true);
        v += PAGE;
    }
    assert_true(spt_write(r.s, KVA + PT_A, &v, 4, 0, &r.info));
    assert_true(spt_write(r.s, KVA + PT_A + 4, &v, 4, 0, &r.info));
    assert_int_equal(spt_stats(r.s)->pt_writes, 4);
    rig_finish(&r);
}

/* A frame that becomes a page table once more counts once more. */
static void protections_are_counted(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PT_A, 0x110000 | ALL);
    uint32_t table = spt_protections(r.s, PT_A), data = spt_protections(r.s, 0x110000);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_int_equal(spt_protections(r.s, PT_A), ++table);
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_RETRY);
    assert_int_equal(spt_protections(r.s, PT_A), table);
    store32(&r, PD_A + UPDE * 4, 0);
    switch_to(&r, PD_A); /* given up, then taken again */
    store32(&r, PD_A + UPDE * 4, PT_A | P | W | U | A);
    assert_int_equal(spt_protections(r.s, PT_A), table);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_int_equal(spt_protections(r.s, PT_A), ++table);
    assert_int_equal(spt_protections(r.s, 0x110000), data);
    spt_trace_code(r.s, 0x110000);
    assert_int_equal(spt_protections(r.s, 0x110000), data + 1);
    rig_finish(&r);
}

/* Never past a trace of code, or a page fault that waits for its entry; never to what the page tables do not allow. */
static void entries_at_once(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    put32(&r, PD_A + KPDE * 4, PS | KRW);
    put32(&r, PT_A, 0x110000 | ALL);
    uint32_t v = 0x120000 | ALL;
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_true(spt_write_entry(r.s, KVA + PT_A, 0)); /* where nobody has been before */
    assert_int_equal(get32(&r, PT_A), 0);
    assert_shows(uwin(&r), UVA, 0x110000, true);
    switch_to(&r, PD_A);
    assert_unmapped(uwin(&r), UVA);
    put32(&r, PT_A, v);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_true(spt_write_entry(r.s, KVA + PT_A, 0x130000 | ALL));
    assert_int_equal(get32(&r, PT_A), 0x130000 | ALL);
    assert_shows(uwin(&r), UVA, 0x120000, true);
    spt_invlpg(r.s, UVA);
    assert_unmapped(uwin(&r), UVA);
    assert_false(spt_write_entry(r.s, KVA + PT_A + 0xFFD, 0));
    assert_int_equal(user_fault(&r, UVA + 0x5000, 0), SPT_TRUE_FAULT);
    assert_false(spt_write_entry(r.s, KVA + PT_A + 20, v));
    assert_int_equal(get32(&r, PT_A + 20), 0);

    assert_true(spt_write(r.s, KVA + SPARE, &v, 4, 0, &r.info));
    assert_true(spt_write_entry(r.s, KVA + SPARE, 7));
    assert_int_equal(get32(&r, SPARE), 7);
    spt_trace_code(r.s, SPARE);
    assert_false(spt_write_entry(r.s, KVA + SPARE, 8));
    assert_true(spt_write(r.s, KVA + SPARE, &v, 4, 0, &r.info));
    assert_int_equal(r.n_code, 1);
    assert_false(spt_write_entry(r.s, KVA + SPARE, 8));
    assert_int_equal(get32(&r, SPARE), v);
    spt_untrace_code(r.s, SPARE);

    put32(&r, PD_A + (KPDE + 1) * 4, PT_K | P | W);
    put32(&r, PT_K + 4, 0x150000 | P | W);
    put32(&r, PT_K + 8, 0xA0000 | P | W);
    put32(&r, PT_K + 12, 0x160000 | P);
    spt_set_cr3(r.s, PD_A, NULL);
    assert_false(spt_write_entry(r.s, KVA + 0x400000, 9)); /* not present, a device, read-only */
    assert_false(spt_write_entry(r.s, KVA + 0x402000, 9));
    assert_false(spt_write_entry(r.s, KVA + 0x403000, 9));
    assert_int_equal(get32(&r, PT_K + 12), 0x160000 | P);
    assert_true(spt_write_entry(r.s, KVA + 0x401008, 9));
    assert_int_equal(get32(&r, 0x150008), 9);
    assert_int_equal(get32(&r, PT_K + 4), 0x150000 | P | W | A | D);
    assert_int_equal(get32(&r, PD_A + (KPDE + 1) * 4), PT_K | P | W | A);
    rig_finish(&r);
}

/* CR3 where no RAM is, self-made nonsense for entries: faults, never a crash. */
static void hostile_roots(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    static const uint32_t roots[] = {0xA0000, 0xFFFFF000, 0x1000000, 0xFFF000, 0};
    for (unsigned i = 0; i < 5; ++i) {
        switch_to(&r, roots[i] | 0x18);
        assert_int_equal(kernel_fault(&r, KVA, 0), SPT_TRUE_FAULT);
        assert_int_equal(user_fault(&r, 0xFFFFFFFF, SPT_WRITE), SPT_TRUE_FAULT);
    }
    FILE *sink = fopen("/dev/null", "w");
    spt_dump(r.s, sink);
    fclose(sink);
    rig_finish(&r);
}

static void dump_shows_runs(void **state)
{
    (void)state;
    struct rig r;
    start(&r);
    for (unsigned i = 0; i < 3; ++i)
        put32(&r, PT_A + i * 4, (0x110000 + i * PAGE) | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    store32(&r, PT_A + 8, 0);
    char text[4096] = "";
    FILE *f = fmemopen(text, sizeof(text), "w");
    spt_dump(r.s, f);
    fclose(f);
    assert_non_null(strstr(text, "00400000-00401fff -> 000110000 rw\n"));
    assert_non_null(strstr(text, "00402000-00402fff -> 000112000 rw stale\n"));
    rig_finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paging_off_is_identity),
        cmocka_unit_test(true_faults),
        cmocka_unit_test(views_are_separate),
        cmocka_unit_test(accessed_and_dirty),
        cmocka_unit_test(runs_fill_at_once),
        cmocka_unit_test(walks_fill_ahead),
        cmocka_unit_test(large_pages_without_traced_ones),
        cmocka_unit_test(a_new_page_needs_no_flush),
        cmocka_unit_test(stale_until_flushed),
        cmocka_unit_test(a_fill_does_not_resurrect_the_old_page),
        cmocka_unit_test(fork_takes_only_the_right_to_write),
        cmocka_unit_test(clearing_a_or_d_drops),
        cmocka_unit_test(odd_sized_stores),
        cmocka_unit_test(switching_shares_the_kernel),
        cmocka_unit_test(sharing_respects_accessed_bits),
        cmocka_unit_test(stale_pages_of_a_sleeping_space),
        cmocka_unit_test(recycled_page_directory),
        cmocka_unit_test(recycled_page_table),
        cmocka_unit_test(write_floods_untrace),
        cmocka_unit_test(flooded_directories),
        cmocka_unit_test(page_table_mapped_in_user_space),
        cmocka_unit_test(write_protect_off),
        cmocka_unit_test(no_second_signal_for_a_demanded_page),
        cmocka_unit_test(few_user_windows),
        cmocka_unit_test(few_host_mappings),
        cmocka_unit_test(fetch_translations_are_taken_back),
        cmocka_unit_test(fetches_of_a_dropped_run),
        cmocka_unit_test(user_page_zero_is_never_shown),
        cmocka_unit_test(a_fill_does_not_hide_a_stale_fetch),
        cmocka_unit_test(large_pages_in_the_tlb),
        cmocka_unit_test(process_exit_is_one_host_call),
        cmocka_unit_test(through_a_real_fault),
        cmocka_unit_test(nx_takes_fetches_back),
        cmocka_unit_test(pae_spaces),
        cmocka_unit_test(code_pages),
        cmocka_unit_test(doors),
        cmocka_unit_test(large_door_calls),
        cmocka_unit_test(entries_at_once),
        cmocka_unit_test(protections_are_counted),
        cmocka_unit_test(physical_doors),
        cmocka_unit_test(doors_honour_traces),
        cmocka_unit_test(hostile_roots),
        cmocka_unit_test(dump_shows_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
