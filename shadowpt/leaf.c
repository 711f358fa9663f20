/* Leaves: what the windows map, who maps a physical page, and the host calls that keep both true. */
#include "state.h"

#include <stdlib.h>
#include <sys/mman.h>

static uint32_t entry_id(const struct spt *s, const struct leaf *l, unsigned at)
{
    return (uint32_t)(l - s->leaf) * LEAF_PAGES + at;
}

static struct entry *entry_at(struct spt *s, uint32_t id)
{
    return &s->leaf[id / LEAF_PAGES].e[id % LEAF_PAGES];
}

static uint32_t leaf_gva(const struct leaf *l, unsigned at)
{
    return ((uint32_t)l->slot << LEAF_SHIFT) + (at << PAGE_SHIFT);
}

static void rmap_link(struct spt *s, struct leaf *l, unsigned at, uint32_t gfn)
{
    if (gfn >= s->frames)
        return;
    uint32_t id = entry_id(s, l, at);
    struct phys *ph = &s->phys[gfn];
    l->e[at].prev = 0;
    l->e[at].next = ph->rmap;
    if (ph->rmap)
        entry_at(s, ph->rmap)->prev = id;
    ph->rmap = id;
}

static void rmap_unlink(struct spt *s, struct entry *e)
{
    uint32_t gfn = E_GFN(e->v);
    if (gfn >= s->frames)
        return;
    if (e->prev)
        entry_at(s, e->prev)->next = e->next;
    else
        s->phys[gfn].rmap = e->next;
    if (e->next)
        entry_at(s, e->next)->prev = e->prev;
}

/* What must be equal in two neighbours for one host mapping to hold both. */
static uint64_t mapping_key(const struct leaf *l, unsigned at)
{
    uint32_t v = l->e[at].v;
    return v & E_MAP ? (uint64_t)(E_GFN(v) + LEAF_PAGES - at) << 1 | !!(v & E_W) : UINT64_MAX;
}

/* Mapping boundaries between pages from-1|from ... to-1|to. The ends of a leaf always count (two per leaf,
 * booked when it is created): neighbours in other leaves are not looked at, so the count is never too low. */
static unsigned bounds_in(const struct leaf *l, unsigned from, unsigned to)
{
    unsigned n = 0;
    if (from == 0)
        from = 1;
    if (to > LEAF_PAGES - 1)
        to = LEAF_PAGES - 1;
    for (unsigned i = from; i <= to; ++i)
        n += mapping_key(l, i - 1) != mapping_key(l, i);
    return n;
}

static void rebook(struct spt *s, struct leaf *l, unsigned before, unsigned after)
{
    l->bounds = (uint16_t)(l->bounds + after - before);
    s->maps += after - before;
}

struct leaf *leaf_create(struct spt *s, struct space *sp, unsigned slot)
{
    struct leaf *l = LIST_FIRST(&s->free_leaves);
    if (l)
        LIST_REMOVE(l, in_space);
    else if (s->leaves_touched < LEAF_MAX - 1)
        l = &s->leaf[++s->leaves_touched]; /* number 0 means none */
    else
        return NULL;
    l->space = sp->number;
    l->slot = (uint16_t)slot;
    l->used = l->bounds = 0;
    l->stale = FRESH;
    l->pt = 0;
    l->pde = 0;
    sp->leaf[slot] = (uint16_t)(l - s->leaf);
    LIST_INSERT_HEAD(&sp->leaves, l, in_space);
    ++sp->leaves_held;
    s->maps += 2;
    return l;
}

void leaf_link_pt(struct spt *s, struct leaf *l, uint32_t pt)
{
    l->pt = pt;
    if (pt)
        LIST_INSERT_HEAD(&s->pt[pt].leaves, l, in_pt);
}

static void leaf_free(struct spt *s, struct leaf *l)
{
    struct space *sp = s->space[l->space];
    uint32_t pt = l->pt;
    sp->leaf[l->slot] = 0;
    if (!--sp->leaves_held)
        ++sp->life;
    sp->leaves_stale -= l->stale == ALL_STALE;
    LIST_REMOVE(l, in_space);
    if (l->stale != FRESH)
        LIST_REMOVE(l, in_stale);
    if (pt)
        LIST_REMOVE(l, in_pt);
    s->maps -= 2;
    LIST_INSERT_HEAD(&s->free_leaves, l, in_space);
    if (pt)
        pt_release_if_unused(s, pt);
}

void leaf_release_if_empty(struct spt *s, struct leaf *l)
{
    if (l->used == 0)
        leaf_free(s, l);
}

void leaf_set_mapped(struct spt *s, struct leaf *l, unsigned at, unsigned n, uint32_t gfn, bool writable)
{
    struct space *sp = s->space[l->space];
    unsigned before = bounds_in(l, at, at + n);
    for (unsigned i = at; i < at + n; ++i, ++gfn) {
        uint32_t old = l->e[i].v;
        if (!old) {
            rmap_link(s, l, i, gfn);
            ++l->used;
        }
        sp->mapped += !(old & E_MAP);
        l->e[i].v = gfn << 8 | E_MAP | (writable ? E_W : 0) | (old & E_FETCH);
    }
    rebook(s, l, before, bounds_in(l, at, at + n));
}

void leaf_set_fetched(struct spt *s, struct leaf *l, unsigned at, uint32_t gfn)
{
    uint32_t before = l->e[at].v;
    if (!before) {
        rmap_link(s, l, at, gfn);
        ++l->used;
        l->e[at].v = gfn << 8;
    }
    l->e[at].v |= E_FETCH;
    s->space[l->space]->fetched = true;
    if ((before & (E_MAP | E_FETCH)) == E_MAP)
        follow_shown(s, l, at, at + 1);
}

struct span {
    unsigned first, end; /* end 0: empty */
};

static void span_add(struct span *sp, unsigned at)
{
    if (sp->end == 0)
        sp->first = at;
    sp->end = at + 1;
}

static void clear_entries(struct spt *s, struct leaf *l, unsigned from, unsigned to, struct span *mapped,
                          struct span *fetched)
{
    struct space *sp = s->space[l->space];
    for (unsigned i = from; i < to && l->used; ++i) {
        uint32_t v = l->e[i].v;
        if (!v)
            continue;
        if (v & E_MAP) {
            span_add(mapped, i);
            --sp->mapped;
        }
        if (v & E_FETCH)
            span_add(fetched, i);
        rmap_unlink(s, &l->e[i]);
        l->e[i].v = 0;
        --l->used;
    }
}

static void host_unmap(struct spt *s, struct space *sp, uint32_t gva, unsigned pages)
{
    ++s->counts.unmap_calls;
    trace_change(s, sp, "unmap", gva, pages);
    follow_gone(s, sp, gva, pages);
    if (host_window_unmap(&sp->window, gva, (uint64_t)pages << PAGE_SHIFT) != 0)
        space_reset(s, sp); /* cutting a mapping in two takes one more, and there is none left */
}

/* Forget pages [from, to): one host call, one fetch_gone. May free the leaf. */
void leaf_drop(struct spt *s, struct leaf *l, unsigned from, unsigned to)
{
    struct space *sp = s->space[l->space];
    uint32_t base = leaf_gva(l, 0);
    struct span mapped = {0, 0}, fetched = {0, 0};
    unsigned before = bounds_in(l, from, to);
    unsigned used = l->used;
    clear_entries(s, l, from, to, &mapped, &fetched);
    s->counts.drops_done += used - l->used;
    rebook(s, l, before, bounds_in(l, from, to));
    leaf_release_if_empty(s, l);
    if (mapped.end)
        host_unmap(s, sp, base + (mapped.first << PAGE_SHIFT), mapped.end - mapped.first);
    if (fetched.end) {
        tlb_flush_fetches(s);
        s->cfg.ops.fetch_gone(s->cfg.ops.ctx, sp->number, base + (fetched.first << PAGE_SHIFT),
                              fetched.end - fetched.first);
    }
}

void leaf_mark_stale(struct spt *s, struct leaf *l, unsigned at, bool only_demote)
{
    uint32_t v = l->e[at].v, flag = only_demote ? E_DEMOTE : E_STALE;
    if (!v || (v & (E_STALE | flag)) || (only_demote && !(v & E_W)))
        return;
    ++s->counts.drops_queued;
    l->e[at].v |= flag;
    if (l->stale == ALL_STALE)
        return;
    if (l->stale == FRESH) {
        LIST_INSERT_HEAD(&s->space[l->space]->stale, l, in_stale);
        l->stale = SOME_STALE;
        l->stale_lo = l->stale_hi = (uint16_t)at;
    }
    if (at < l->stale_lo)
        l->stale_lo = (uint16_t)at;
    if (at > l->stale_hi)
        l->stale_hi = (uint16_t)at;
}

void leaf_mark_all_stale(struct spt *s, struct leaf *l)
{
    if (l->stale == ALL_STALE)
        return;
    ++s->counts.drops_queued;
    if (l->stale == SOME_STALE)
        LIST_REMOVE(l, in_stale);
    l->stale = ALL_STALE;
    ++s->space[l->space]->leaves_stale;
    LIST_INSERT_HEAD(&s->stale_leaves, l, in_stale);
}

/* The stale run around `at`, across entries that hold nothing. Dropping more than INVLPG named is allowed: a
 * TLB may lose any entry at any time, and Linux invalidates ranges page by page. */
void leaf_drop_run(struct spt *s, struct leaf *l, unsigned at)
{
    unsigned from = at, to = at + 1;
    for (unsigned i = at; i-- > 0 && (!l->e[i].v || (l->e[i].v & E_STALE));)
        if (l->e[i].v)
            from = i;
    for (unsigned i = to; i < LEAF_PAGES && (!l->e[i].v || (l->e[i].v & E_STALE)); ++i)
        if (l->e[i].v)
            to = i + 1;
    leaf_drop(s, l, from, to);
}

static bool to_demote(const struct leaf *l, unsigned at)
{
    return (l->e[at].v & (E_DEMOTE | E_STALE)) == E_DEMOTE;
}

/* After a fork the parent goes on reading what it shares with the child: take W from the run, keep the pages.
 */
static void demote_run(struct spt *s, struct leaf *l, unsigned at)
{
    struct space *sp = s->space[l->space];
    unsigned from = at, to = at + 1;
    while (from > 0 && to_demote(l, from - 1))
        --from;
    while (to < LEAF_PAGES && to_demote(l, to))
        ++to;
    unsigned before = bounds_in(l, from, to);
    for (unsigned i = from; i < to; ++i)
        l->e[i].v &= ~(uint32_t)(E_W | E_DEMOTE);
    rebook(s, l, before, bounds_in(l, from, to));
    s->counts.drops_done += to - from;
    trace_change(s, sp, "read-only now", leaf_gva(l, from), to - from);
    follow_less(s, sp, leaf_gva(l, from), to - from);
    if (host_window_protect(&sp->window, leaf_gva(l, from), (uint64_t)(to - from) << PAGE_SHIFT, PROT_READ) !=
        0)
        space_reset(s, sp);
    else
        follow_shown(s, l, from, to);
}

void leaf_apply_at(struct spt *s, struct leaf *l, unsigned at)
{
    if (l->e[at].v & E_STALE)
        leaf_drop_run(s, l, at);
    else if (l->e[at].v & E_DEMOTE)
        demote_run(s, l, at);
}

/* At a flush point: everything queued for this space, in as few host calls as the runs allow. */
void space_apply_stale(struct spt *s, struct space *sp)
{
    struct leaf *l;
    while ((l = LIST_FIRST(&sp->stale))) {
        unsigned at = l->stale_lo;
        while (at <= l->stale_hi && !(l->e[at].v & (E_STALE | E_DEMOTE)))
            ++at;
        if (at <= l->stale_hi) {
            l->stale_lo = (uint16_t)at;
            leaf_apply_at(s, l, at); /* may free l */
            continue;
        }
        LIST_REMOVE(l, in_stale);
        l->stale = FRESH;
    }
}

/* Everything goes at once: the window by one host call, the bookkeeping leaf by leaf. */
void space_reset(struct spt *s, struct space *sp)
{
    if (sp->mapped) {
        ++s->counts.unmap_calls;
        trace_change(s, sp, "reset", 0, 1u << 20);
        if (host_window_reset(&sp->window) != 0) {
            /* What the guest may no longer see cannot be hidden from it: nothing sane can continue. */
            fprintf(stderr, "ringlet: the host refuses to unmap a guest window; raise vm.max_map_count\n");
            abort();
        }
    }
    ++sp->resets;
    follow_reset(s, sp);
    struct leaf *l;
    while ((l = LIST_FIRST(&sp->leaves))) {
        struct span mapped = {0, 0}, fetched = {0, 0};
        clear_entries(s, l, 0, LEAF_PAGES, &mapped, &fetched);
        s->maps -= l->bounds;
        l->bounds = 0;
        leaf_free(s, l);
    }
    if (sp->fetched) {
        sp->fetched = false;
        tlb_flush_fetches(s);
        s->cfg.ops.fetch_gone(s->cfg.ops.ctx, sp->number, 0, 1u << 20);
    }
}

/* A page is about to be traced: no window and no TLB entry may allow silent writes from here on. */
void frame_write_protect(struct spt *s, uint32_t gfn)
{
    tlb_flush_writes(s);
    ++s->protections[gfn % PROTECTION_ROWS];
    uint32_t id = s->phys[gfn].rmap;
    while (id) {
        struct leaf *l = &s->leaf[id / LEAF_PAGES];
        struct space *sp = s->space[l->space];
        unsigned at = id % LEAF_PAGES;
        id = l->e[at].next;
        if (!(l->e[at].v & E_W))
            continue;
        trace_change(s, sp, "traced, read-only now", leaf_gva(l, at), 1);
        follow_less(s, sp, leaf_gva(l, at), 1);
        if (host_window_protect(&sp->window, leaf_gva(l, at), PAGE_SIZE, PROT_READ) != 0) {
            space_reset(s, sp); /* as in host_unmap; the chain has changed under us */
            id = s->phys[gfn].rmap;
            continue;
        }
        unsigned before = bounds_in(l, at, at + 1);
        l->e[at].v &= ~(uint32_t)E_W;
        rebook(s, l, before, bounds_in(l, at, at + 1));
        follow_shown(s, l, at, at + 1);
    }
}
