/* Faults in windows: what kind of fault, and filling the window in runs. */
#include "state.h"

#include <errno.h>
#include <sys/mman.h>

/* Up to 64 KiB the host pre-faults with the mapping: cheaper than a host fault per page, and A bits say that
 * the guest uses these pages. Larger runs are mostly direct maps of memory that may never be touched, or files; what a
 * program has written (D) it will use again, though. And what a followed space uses is touched by its follower, seldom
 * in the window. */
#define POPULATE_PAGES 16u

static void entry_set(struct spt *s, struct spt_walk *w, unsigned level, uint64_t bits)
{
    if ((w->entry[level] & bits) == bits)
        return;
    uint64_t gpa = w->entry_gpa[level];
    if (s->phys[gpa >> PAGE_SHIFT].trace & TRACE_CODE)
        s->cfg.ops.code_write(s->cfg.ops.ctx, gpa, 4);
    *(volatile uint32_t *)(s->ram->base + gpa) |= (uint32_t)bits;
    w->entry[level] = walk_entry_load(s->ram, gpa, s->pae ? 8 : 4);
}

/* What the CPU does once a translation is used: SDM vol. 3 4.8. Shadows need no update: nothing is taken
 * away. */
void walk_set_accessed(struct spt *s, struct spt_walk *w, bool write)
{
    if (!s->paging_on)
        return;
    unsigned last = w->levels - 1;
    for (unsigned i = walk_pde_level(s); i < last; ++i)
        entry_set(s, w, i, PTE_A);
    entry_set(s, w, last, write ? PTE_A | PTE_D : PTE_A);
    w->accessed = true;
    w->dirty |= write;
}

static void kernel_leaves_changed(struct spt *s)
{
    bool agreed = s->cur && s->cur->agrees == s->kernel_epoch;
    ++s->kernel_epoch;
    if (agreed)
        s->cur->agrees = s->kernel_epoch;
}

/* The leaf for gva, holding nothing that contradicts walk w; its page table is traced. NULL: no leaf left. */
static struct leaf *leaf_for(struct spt *s, struct space *sp, uint32_t gva, const struct spt_walk *w)
{
    unsigned slot = gva >> LEAF_SHIFT, at = gva >> PAGE_SHIFT & (LEAF_PAGES - 1);
    uint64_t pde = s->paging_on ? w->entry[walk_pde_level(s)] : 0;
    uint32_t pt = 0;
    if (w->shift == PAGE_SHIFT)
        pt = pt_trace(s, (uint32_t)(w->entry_gpa[w->levels - 1] >> PAGE_SHIFT));
    struct leaf *l = space_leaf(s, sp, slot);
    /* Tracing and kernel_agree see to the last two already; a leaf must never mix two tables, so look again.
     */
    if (l && (l->stale == ALL_STALE || l->pt != pt || walk_entry_restricts(s->pae, true, l->pde, pde))) {
        leaf_drop(s, l, 0, LEAF_PAGES);
        l = NULL;
    }
    if (l && l->e[at].v && ((l->e[at].v & E_STALE) || E_GFN(l->e[at].v) != w->gpa >> PAGE_SHIFT)) {
        leaf_drop_run(s, l, at);
        l = space_leaf(s, sp, slot);
    }
    if (!l && (l = leaf_create(s, sp, slot)))
        leaf_link_pt(s, l, pt);
    s->pt_pinned = 0;
    if (!l && pt)
        pt_release_if_unused(s, pt);
    if (l && l->pde != pde) {
        l->pde = pde;
        if (sp == s->kernel)
            kernel_leaves_changed(s);
    }
    return l;
}

/* Where the pages of a leaf come from: a page table, or a linear stretch (large page, paging off). */
struct source {
    struct spt *s;
    bool user, linear;
    bool upper_user, writable; /* what the entry above the table grants; linear: what the pages are */
    uint64_t table;            /* gpa of the entry for the leaf's first page */
    uint64_t frame;            /* linear: the first page */
    unsigned lowest;           /* that may be shown */
};

struct want {
    uint64_t gfn;
    bool writable;
};

/* Page 0 of user windows stays empty: while FS.base is such a window, an access of the monitor's own code to its thread's data
 * shall fault (see bt's README), and those lie there and just below. */
static struct source source_of(struct spt *s, uint32_t gva, const struct spt_walk *w)
{
    unsigned at = gva >> PAGE_SHIFT & (LEAF_PAGES - 1);
    struct source src = {.s = s, .user = s->paging_on && w->user, .linear = w->shift != PAGE_SHIFT};
    src.lowest = src.user && gva >> LEAF_SHIFT == 0;
    bool wp = src.user || (s->paging.cr0 & CR0_WP);
    if (src.linear) {
        src.frame = (w->gpa >> PAGE_SHIFT) - at;
        src.writable = (w->writable || !wp) && w->dirty;
    } else {
        src.table = w->entry_gpa[w->levels - 1] - (uint64_t)at * (s->pae ? 8 : 4);
        src.upper_user = w->entry[walk_pde_level(s)] & PTE_U;
        src.writable = (w->entry[walk_pde_level(s)] & PTE_W) || !wp;
    }
    return src;
}

/* What the window may show at page `at` without setting any A or D bit; false: nothing. */
static bool page_want(const struct source *src, unsigned at, struct want *out)
{
    struct spt *s = src->s;
    if (at < src->lowest)
        return false;
    if (src->linear) {
        *out = (struct want){src->frame + at, src->writable};
    } else {
        unsigned size = s->pae ? 8 : 4;
        uint64_t e = walk_entry_load(s->ram, src->table + (uint64_t)at * size, size);
        if ((e & (PTE_P | PTE_A)) != (PTE_P | PTE_A) ||
            (e & walk_reserved_bits(&s->paging, PAGE_SHIFT, false)))
            return false;
        if ((src->upper_user && (e & PTE_U)) != src->user)
            return false; /* belongs to the other view */
        bool wp = src->user || (s->paging.cr0 & CR0_WP);
        uint64_t frame = s->pae ? e & UINT64_C(0xFFFFFF000) : e & 0xFFFFF000;
        *out = (struct want){frame >> PAGE_SHIFT, src->writable && ((e & PTE_W) || !wp) && (e & PTE_D)};
    }
    if (!frame_is_ram(s, out->gfn))
        return false;
    if (s->phys[out->gfn].trace)
        out->writable = false;
    return true;
}

static bool page_joins(const struct source *src, const struct leaf *l, unsigned at, struct want like,
                       bool upgrade)
{
    uint32_t v = l->e[at].v;
    struct want want;
    if (!page_want(src, at, &want) || want.gfn != like.gfn || want.writable != like.writable)
        return false;
    if ((v & E_STALE) || (v && E_GFN(v) != want.gfn))
        return false;
    return upgrade ? (v & (E_MAP | E_W)) == E_MAP : !(v & E_MAP);
}

/*T:400 A hidden fault
 * Translated code touched a page of the window that is not there. Either the guest's own page tables do not
 * allow the access: then it is a true fault, and the guest gets its #PF. Or they do, and only our shadow
 * had not caught up: a hidden fault, of which the guest must never know. Each costs a signal and an mmap,
 * as much as thousands of instructions; so one fault fills more than one page. Neighbours in the same page
 * table join while their frames are contiguous, their rights equal and, above all, their A bits set:
 * filling a page without A would hide its first use from the guest, whose page reclaim lives on these bits.
 * For the same reason a page is mapped writable only once D is set; the first store then faults once more,
 * sets D, and upgrades the run.
 :*/
static int fill_run(const struct source *src, struct leaf *l, unsigned at, unsigned populate,
                    unsigned *behind)
{
    struct spt *s = src->s;
    struct space *sp = s->space[l->space];
    struct want want;
    if (!page_want(src, at, &want))
        return -EFAULT;
    bool upgrade = (l->e[at].v & (E_MAP | E_W)) == E_MAP && want.writable;
    unsigned first = at, end = at + 1;
    struct want like = want;
    while (first > 0 && (--like.gfn, page_joins(src, l, first - 1, like, upgrade)))
        --first;
    like = want;
    while (end < LEAF_PAGES && (++like.gfn, page_joins(src, l, end, like, upgrade)))
        ++end;
    uint32_t gva = ((uint32_t)l->slot << LEAF_SHIFT) + (first << PAGE_SHIFT);
    uint64_t gfn = want.gfn - (at - first), len = (uint64_t)(end - first) << PAGE_SHIFT;
    int prot = want.writable ? PROT_READ | PROT_WRITE : PROT_READ;
    bool used = end - first <= populate || (want.writable && sp != s->kernel);
    int r = upgrade ? host_window_protect(&sp->window, gva, len, prot)
                    : host_window_map(&sp->window, gva, gfn << PAGE_SHIFT, len, prot, used && !sp->followed);
    if (r != 0)
        return r;
    trace_change(s, sp,
                 upgrade         ? "writable now"
                 : want.writable ? "map writable"
                                 : "map read-only",
                 gva, end - first);
    leaf_set_mapped(s, l, first, end - first, (uint32_t)gfn, want.writable);
    follow_shown(s, l, first, end);
    s->counts.pages_filled += end - first;
    *behind = end;
    return 0;
}

/*T:405 A program that walks through its memory
 * faults where the last fill ended, again and again: a signal for every run of contiguous frames. Several such walks may go
 * on at once; a copy is two. So the ends of the last few fills are remembered. A fault at one of them brings twice as many
 * pages as the one before it, run by run, up to the end of the leaf; any other fault begins anew, with half a run, since a
 * process that has just been born looks at two neighbours soon. Pages without A still end it, and those without D come
 * read-only: nothing is filled that could not have been filled by a fault for it.
 :*/
static struct stream *stream_of(struct spt *s, const struct space *sp, uint32_t page)
{
    for (unsigned i = 0; i < STREAMS; ++i) {
        struct stream *st = &s->stream[i];
        if (st->space != sp->number || st->next != page)
            continue;
        if (st->pages < LEAF_PAGES)
            st->pages *= 2;
        return st;
    }
    struct stream *st = &s->stream[s->streams_begun++ % STREAMS];
    *st = (struct stream){.space = sp->number, .pages = POPULATE_PAGES / 2};
    return st;
}

/* May a run that nobody has asked for yet begin here? */
static bool may_follow(const struct source *src, const struct leaf *l, unsigned at)
{
    const struct spt *s = src->s;
    struct want want;
    uint32_t v = at < LEAF_PAGES ? l->e[at].v : E_MAP;
    return s->maps < s->max_maps / 2 && !(v & (E_MAP | E_STALE)) && page_want(src, at, &want) &&
           (!v || E_GFN(v) == want.gfn);
}

static int fill_stream(const struct source *src, struct leaf *l, unsigned at)
{
    struct spt *s = src->s;
    const struct space *sp = s->space[l->space];
    uint32_t base = (uint32_t)l->slot * LEAF_PAGES;
    struct stream *st = stream_of(s, sp, base + at);
    unsigned end;
    unsigned populate = st->pages > POPULATE_PAGES ? st->pages : POPULATE_PAGES;
    int r = fill_run(src, l, at, populate, &end);
    if (r)
        return r;
    while (st->pages > POPULATE_PAGES && end - at < st->pages && may_follow(src, l, end))
        if (fill_run(src, l, end, populate, &end))
            break;
    st->next = base + end;
    return 0;
}

static int fill_page(struct spt *s, struct space *sp, uint32_t gva, const struct spt_walk *w)
{
    if (s->maps + 4 > s->max_maps)
        return -ENOMEM;
    struct leaf *l = leaf_for(s, sp, gva, w);
    if (!l)
        return -ENOMEM;
    struct source src = source_of(s, gva, w);
    unsigned at = gva >> PAGE_SHIFT & (LEAF_PAGES - 1), end;
    int r = sp == s->kernel || sp->followed ? fill_run(&src, l, at, POPULATE_PAGES, &end)
                                            : fill_stream(&src, l, at);
    leaf_release_if_empty(s, l);
    return r;
}

static enum spt_outcome traced(const struct spt *s, uint64_t gpa)
{
    uint32_t t = s->phys[gpa >> PAGE_SHIFT].trace;
    return TRACE_PT(t) ? SPT_PT_WRITE : t ? SPT_CODE_WRITE : SPT_RETRY;
}

/* The access is allowed; can a window grant it? */
static enum spt_outcome resolve(struct spt *s, bool user_view, uint32_t gva, bool write, struct spt_walk *w)
{
    if (!frame_is_ram(s, w->gpa >> PAGE_SHIFT))
        return SPT_DEVICE;
    if (write && w->user && !w->writable)
        return SPT_EMULATE; /* CR0.WP=0: granting it would grant it to user code too */
    if (s->paging_on && w->user != user_view)
        return SPT_OTHER_VIEW;
    if (write && traced(s, w->gpa) != SPT_RETRY)
        return traced(s, w->gpa);
    walk_set_accessed(s, w, write);
    struct space *sp = s->paging_on && w->user ? s->cur : s->kernel;
    int r;
    while ((r = fill_page(s, sp, gva, w)) != 0)
        if (r != -ENOMEM || !space_shrink(s))
            return SPT_EMULATE;
    return write ? traced(s, w->gpa) : SPT_RETRY; /* the fill may have found it to be a page table */
}

enum spt_outcome spt_fault(struct spt *s, bool user_view, uint32_t gva, uint32_t access,
                           struct spt_info *info)
{
    struct spt_walk w;
    bool write = access & SPT_WRITE;
    if (!spt_walk(s->ram, &s->paging, gva, access & (SPT_WRITE | SPT_USER), &w)) {
        ++s->counts.true_faults;
        *info = (struct spt_info){.gva = gva, .pfec = w.pfec, .gpa = w.gpa};
        s->expected = (struct expected){
            .valid = !s->cfg.no_windows, .gva = gva, .access = access, .pte = w.entry_gpa[w.levels - 1]};
        return SPT_TRUE_FAULT;
    }
    *info = (struct spt_info){.gva = gva, .gpa = w.gpa};
    if (s->cfg.no_windows)
        return SPT_EMULATE;
    enum spt_outcome r = resolve(s, user_view, gva, write, &w);
    s->counts.hidden_faults += r == SPT_RETRY;
    s->counts.code_traps += r == SPT_CODE_WRITE;
    return r;
}

/* The guest has just written the entry whose absence was its last page fault in a window. It will return to
 * the faulting instruction: fill now, without the second signal. Only if that sets no A or D bit early. */
void fill_expected(struct spt *s)
{
    struct expected e = s->expected;
    struct spt_walk w;
    bool write = e.access & SPT_WRITE;
    s->expected.valid = false;
    if (spt_walk(s->ram, &s->paging, e.gva, e.access & (SPT_WRITE | SPT_USER), &w) && w.accessed &&
        (!write || w.dirty))
        resolve(s, w.user, e.gva, write, &w);
}

bool fill_note_fetch(struct spt *s, struct space *sp, uint32_t gva, const struct spt_walk *w)
{
    struct leaf *l;
    while (!(l = leaf_for(s, sp, gva, w)))
        if (!space_shrink(s))
            return false; /* cannot happen: with every leaf given up, one is free */
    leaf_set_fetched(s, l, gva >> PAGE_SHIFT & (LEAF_PAGES - 1), (uint32_t)(w->gpa >> PAGE_SHIFT));
    return true;
}
