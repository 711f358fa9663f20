/* Write tracing: the registry of page-table pages, stores to them, floods, and code pages. */
#include "state.h"

/* ---- Registry ---- */

static struct pt_page *pt_alloc(struct spt *s)
{
    uint32_t i = s->pt_free;
    if (i)
        s->pt_free = s->pt[i].next_free;
    else
        i = ++s->pt_touched; /* PT_MAX covers a leaf or a root each, and the pinned one: cannot run out */
    return &s->pt[i];
}

/* Pins the record until the caller has linked it: dropping something else may make it look unused meanwhile.
 */
uint32_t pt_trace(struct spt *s, uint32_t gfn)
{
    struct phys *ph = &s->phys[gfn];
    if (TRACE_PT(ph->trace)) {
        s->pt_pinned = TRACE_PT(ph->trace);
        s->pt[s->pt_pinned].weight = 0;
        return s->pt_pinned;
    }
    struct pt_page *pt = pt_alloc(s);
    LIST_INIT(&pt->leaves);
    LIST_INIT(&pt->roots);
    pt->gfn = gfn;
    pt->weight = 0;
    s->counts.pt_pages = ++s->pt_count;
    trace_change(s, NULL, "page table traced:", gfn, 1);
    bool writable_somewhere = ph->trace == 0;
    ph->trace |= (uint32_t)(pt - s->pt);
    s->pt_pinned = (uint32_t)(pt - s->pt);
    if (writable_somewhere)
        frame_write_protect(s, gfn);
    return (uint32_t)(pt - s->pt);
}

void pt_release_if_unused(struct spt *s, uint32_t i)
{
    struct pt_page *pt = &s->pt[i];
    if (i == s->pt_pinned || !LIST_EMPTY(&pt->leaves) || !LIST_EMPTY(&pt->roots))
        return;
    s->phys[pt->gfn].trace &= TRACE_CODE;
    pt->next_free = s->pt_free;
    s->pt_free = i;
    s->counts.pt_pages = --s->pt_count;
    trace_change(s, NULL, "page table given up:", pt->gfn, 1);
}

/* ---- Stores ---- */

static void pde_changed(struct spt *s, const struct root *r, unsigned index)
{
    unsigned first = s->pae ? r->quarter * 512u + index : index * 2;
    unsigned end = first + (s->pae ? 1 : 2);
    struct space *sp = s->space[r->space];
    for (unsigned slot = first; slot < end; ++slot) {
        struct leaf *l = space_leaf(s, sp, slot);
        if (l)
            leaf_mark_all_stale(s, l);
        struct leaf *k = space_leaf(s, s->kernel, slot);
        if (!k)
            continue;
        sp->agrees = 0;
        if (sp == s->cur)
            leaf_mark_all_stale(s, k);
    }
}

static void pte_changed(struct spt *s, struct leaf *l, unsigned index, bool only_demote)
{
    unsigned first = s->pae ? 0 : (l->slot & 1) * LEAF_PAGES;
    if (index >= first && index < first + LEAF_PAGES)
        leaf_mark_stale(s, l, index - first, only_demote);
}

/* A page may serve as directory and as table at once (a directory that maps itself), for many spaces. */
static void entry_changed(struct spt *s, struct pt_page *pt, unsigned index, uint64_t old, uint64_t now)
{
    struct leaf *l;
    struct root *r;
    if (walk_entry_restricts(s->pae, false, old, now))
        LIST_FOREACH(l, &pt->leaves, in_pt)
    pte_changed(s, l, index, walk_entry_demotes(old, now));
    if (walk_entry_restricts(s->pae, true, old, now))
        LIST_FOREACH(r, &pt->roots, in_pt)
    pde_changed(s, r, index);
}

static void pt_flood(struct spt *s, struct pt_page *pt)
{
    uint32_t gfn = pt->gfn;
    struct root *r;
    pt->weight = 0;
    LIST_FOREACH(r, &pt->roots, in_pt)
    if (s->space[r->space] == s->cur)
        return; /* the page directory in use is traced, whatever is written to it */
    while (TRACE_PT(s->phys[gfn].trace)) {
        if (!LIST_EMPTY(&pt->roots))
            space_release(s, s->space[LIST_FIRST(&pt->roots)->space]);
        else
            leaf_drop(s, LIST_FIRST(&pt->leaves), 0, LEAF_PAGES);
    }
}

/*T:410 A store into a page table
 * The guest changes its page tables by plain stores, and the CPU it thinks it runs on does not look: what
 * the TLB holds stays true until the guest says INVLPG or loads CR3. Our windows are that TLB. So a page
 * from which anything in a window was derived is read-only everywhere, its stores come here, and we compare
 * each entry before and after.
 *
 * An entry that appears needs nothing: the window has a hole there, the first access faults and finds it.
 * An entry that disappears, loses a right or points elsewhere makes its window page stale. A stale page
 * stays mapped, as it would stay in the TLB, until the guest flushes; by then a whole munmap()'s worth of
 * neighbours has gathered and goes in one host call. Nothing depends on how the guest got to the entry: the
 * physical page knows all leaves filled from it.
 :*/
static void pt_store(struct spt *s, uint64_t gpa, const uint8_t *from, unsigned len)
{
    unsigned size = s->pae ? 8 : 4;
    uint64_t end = gpa + len, slot = gpa & ~(uint64_t)(size - 1), first = slot;
    uint32_t gfn = (uint32_t)(gpa >> PAGE_SHIFT);
    struct pt_page *pt = &s->pt[TRACE_PT(s->phys[gfn].trace)];
    ++s->counts.pt_writes;
    for (uint64_t at = gpa; at < end; slot += size) {
        uint64_t next = slot + size < end ? slot + size : end;
        uint64_t old = walk_entry_load(s->ram, slot, size);
        copy_bytes(s->ram->base + at, from, (unsigned)(next - at));
        uint64_t now = walk_entry_load(s->ram, slot, size);
        if (old != now)
            entry_changed(s, pt, (slot & (PAGE_SIZE - 1)) / size, old, now);
        pt->weight += old | now ? 1 : PT_IDLE;
        from += next - at;
        at = next;
    }
    if (pt->weight > PT_FLOOD)
        pt_flood(s, pt);
    if (s->expected.valid && s->expected.pte >= first && s->expected.pte < end)
        fill_expected(s);
}

void trace_store(struct spt *s, uint64_t gpa, const void *buf, unsigned len)
{
    struct phys *ph = &s->phys[gpa >> PAGE_SHIFT];
    if (ph->trace & TRACE_CODE)
        s->cfg.ops.code_write(s->cfg.ops.ctx, gpa, len);
    if (TRACE_PT(ph->trace))
        pt_store(s, gpa, buf, len);
    else
        copy_bytes(s->ram->base + gpa, buf, len);
}

/* ---- Code ---- */

void spt_trace_code(struct spt *s, uint64_t gpa)
{
    if (!spt_is_ram(s, gpa))
        return;
    struct phys *ph = &s->phys[gpa >> PAGE_SHIFT];
    bool writable_somewhere = ph->trace == 0;
    ph->trace |= TRACE_CODE;
    if (writable_somewhere)
        frame_write_protect(s, (uint32_t)(gpa >> PAGE_SHIFT));
}

/* Windows regain write access one by one, at their next write fault. */
void spt_untrace_code(struct spt *s, uint64_t gpa)
{
    if (spt_is_ram(s, gpa))
        s->phys[gpa >> PAGE_SHIFT].trace &= ~TRACE_CODE;
}
