/* Spaces: the K window, the cache of user windows, register writes, and what is given up when the host runs
 * short. */
#include "state.h"

#include <stdlib.h>

static bool paging_mode_differs(const struct spt_paging *a, const struct spt_paging *b)
{
    uint32_t cr0 = CR0_PG | CR0_WP, cr4 = CR4_PSE | CR4_PAE;
    return ((a->cr0 ^ b->cr0) & cr0) || ((a->cr4 ^ b->cr4) & cr4) || a->nxe != b->nxe;
}

/* ---- Life ---- */

/* A MOV to CR3 gets here while the guest's vector registers are in the CPU, so nothing of libc is called: memory was set
 * aside by spt_create, and the host is not asked for the reason when it has no address space left. */
static struct space *space_make(struct spt *s, unsigned number)
{
    struct space *sp = &s->space_pool[number];
    LIST_INIT(&sp->leaves);
    LIST_INIT(&sp->stale);
    sp->number = (uint16_t)number;
    if (!s->cfg.no_windows && host_window_init(&sp->window, s->ram, s->cfg.counts, NULL) != 0)
        return NULL;
    sp->has_window = !s->cfg.no_windows;
    s->maps += sp->has_window ? 2 : 0;
    s->space[number] = sp;
    return sp;
}

static uint32_t space_hash(const uint64_t key[4])
{
    uint64_t h = key[0] ^ key[1] * 3 ^ key[2] * 5 ^ key[3] * 7;
    return (uint32_t)(h * UINT64_C(0x9E3779B97F4A7C15) >> 56) % SPACE_HASH;
}

/* Which page directory: by what translations depend on, so PAE spaces are told apart by their PDPTEs. */
static void space_key(const struct spt *s, uint64_t key[4])
{
    for (unsigned i = 0; i < 4; ++i)
        key[i] = s->pae ? s->paging.pdpte[i] : i == 0 ? s->paging.cr3 & ~(PAGE_SIZE - 1) : 0;
}

static struct space *space_find(struct spt *s, const uint64_t key[4])
{
    struct space *sp;
    LIST_FOREACH(sp, &s->hash[space_hash(key)], hash)
    if (sp->key[0] == key[0] && sp->key[1] == key[1] && sp->key[2] == key[2] && sp->key[3] == key[3])
        return sp;
    return NULL;
}

/* From here on, stores to the page directory are seen. */
static void root_trace(struct spt *s, struct space *sp, unsigned quarter)
{
    uint64_t e = s->pae ? sp->key[quarter] : sp->key[0] | PTE_P;
    uint64_t gfn = (e & UINT64_C(0xFFFFFF000)) >> PAGE_SHIFT;
    struct root *r = &sp->root[quarter];
    *r = (struct root){.space = sp->number, .quarter = (uint8_t)quarter};
    if ((!s->pae && quarter) || !(e & PTE_P) || !frame_is_ram(s, gfn))
        return;
    r->pt = pt_trace(s, (uint32_t)gfn);
    LIST_INSERT_HEAD(&s->pt[r->pt].roots, r, in_pt);
    s->pt_pinned = 0;
}

void space_release(struct spt *s, struct space *sp)
{
    space_reset(s, sp);
    follow_end(s, sp);
    for (unsigned q = 0; q < 4; ++q) {
        uint32_t pt = sp->root[q].pt;
        sp->root[q].pt = 0;
        if (!pt)
            continue;
        LIST_REMOVE(&sp->root[q], in_pt);
        pt_release_if_unused(s, pt);
    }
    LIST_REMOVE(sp, hash);
    TAILQ_REMOVE(&s->live, sp, lru);
    TAILQ_INSERT_HEAD(&s->free_spaces, sp, lru);
}

static struct space *space_take_slot(struct spt *s)
{
    if (TAILQ_EMPTY(&s->free_spaces) && s->spaces_made < s->cfg.max_user_spaces) {
        struct space *sp = space_make(s, s->spaces_made + 1);
        if (sp) {
            ++s->spaces_made;
            return sp;
        }
        s->cfg.max_user_spaces =
            s->spaces_made; /* no address space or memory for more: recycle what we have */
    }
    if (TAILQ_EMPTY(&s->free_spaces)) {
        ++s->counts.window_recycles;
        space_release(s, TAILQ_LAST(&s->live, space_queue));
    }
    struct space *sp = TAILQ_FIRST(&s->free_spaces);
    TAILQ_REMOVE(&s->free_spaces, sp, lru);
    return sp;
}

static struct space *space_enter(struct spt *s)
{
    uint64_t key[4];
    space_key(s, key);
    struct space *sp = space_find(s, key);
    if (sp) {
        ++s->counts.window_hits;
        TAILQ_REMOVE(&s->live, sp, lru);
        TAILQ_INSERT_HEAD(&s->live, sp, lru);
        for (unsigned q = 0; q < 4; ++q)
            s->pt[sp->root[q].pt].weight = 0; /* number 0 is nobody's */
        return sp;
    }
    ++s->counts.window_misses;
    sp = space_take_slot(s);
    copy_bytes(sp->key, key, sizeof(key));
    LIST_INSERT_HEAD(&s->hash[space_hash(key)], sp, hash);
    TAILQ_INSERT_HEAD(&s->live, sp, lru);
    sp->agrees = 0;
    for (unsigned q = 0; q < 4; ++q)
        root_trace(s, sp, q);
    return sp;
}

/* ---- CR3 ---- */

static uint64_t pde_of_slot(const struct spt *s, const struct space *sp, unsigned slot)
{
    unsigned quarter = s->pae ? slot >> 9 : 0, index = s->pae ? slot & 511 : slot >> 1;
    uint32_t pt = sp->root[quarter].pt;
    if (!pt)
        return 0;
    unsigned size = s->pae ? 8 : 4;
    return walk_entry_load(s->ram, ((uint64_t)s->pt[pt].gfn << PAGE_SHIFT) + index * size, size);
}

/*T:420 Sharing the kernel half
 * Every address space of a usual guest has the same kernel half: the same entries in each page directory.
 * So there is one K window, not one per process, and at a CR3 write only what differs is dropped. Each 2
 * MiB leaf remembers the value of the directory entry that it was filled through; a directory with another
 * value there loses that leaf, with an equal one keeps it, whoever filled it.
 *
 * Even comparing a few hundred entries per switch would cost more than the switch. kernel_epoch counts the
 * leaves' changes; a space that was compared since the last one, and whose directory was not written where
 * it matters (page directories are traced), agrees still. A switch between two known processes is then two
 * list operations.
 :*/
static void kernel_agree(struct spt *s, struct space *sp)
{
    if (sp->agrees == s->kernel_epoch)
        return;
    uint64_t resets = s->kernel->resets;
    struct leaf *next = NULL;
    for (struct leaf *l = LIST_FIRST(&s->kernel->leaves); l; l = next) {
        next = LIST_NEXT(l, in_space);
        if (walk_entry_restricts(s->pae, true, l->pde, pde_of_slot(s, sp, l->slot)))
            leaf_drop(s, l, 0, LEAF_PAGES);
        if (s->kernel->resets != resets)
            break; /* the host was short of mappings: all of it is gone */
    }
    sp->agrees = s->kernel_epoch;
}

static void flush_point(struct spt *s)
{
    struct leaf *l;
    tlb_flush(s);
    s->expected.valid = false;
    while ((l = LIST_FIRST(&s->stale_leaves))) {
        struct space *sp = s->space[l->space];
        if (sp != s->kernel && sp->leaves_held > 1 && sp->leaves_stale == sp->leaves_held)
            space_reset(s, sp); /* a process that ended: all at once */
        else
            leaf_drop(s, l, 0, LEAF_PAGES);
    }
    space_apply_stale(s, s->kernel);
}

static void load_root(struct spt *s)
{
    if (!s->paging_on)
        return;
    s->cur = NULL; /* may be the one to recycle */
    s->cur = space_enter(s);
    space_apply_stale(s, s->cur);
    kernel_agree(s, s->cur);
}

void spt_set_cr3(struct spt *s, uint32_t cr3, const uint64_t pdpte[4])
{
    ++s->counts.cr3_writes;
    flush_point(s);
    s->paging.cr3 = cr3;
    if (s->pae && pdpte)
        copy_bytes(s->paging.pdpte, pdpte, sizeof(s->paging.pdpte));
    load_root(s);
}

void spt_set_paging(struct spt *s, const struct spt_paging *p)
{
    flush_point(s);
    if (paging_mode_differs(&s->paging, p)) {
        struct space *sp;
        s->cur = NULL;
        while ((sp = TAILQ_FIRST(&s->live)))
            space_release(s, sp);
        space_reset(s, s->kernel);
        ++s->kernel_epoch;
    }
    s->paging = *p;
    s->paging_on = p->cr0 & CR0_PG;
    s->pae = s->paging_on && (p->cr4 & CR4_PAE);
    load_root(s);
}

void spt_invlpg(struct spt *s, uint32_t gva)
{
    ++s->counts.invlpg;
    ++s->invalidations[gva >> PAGE_SHIFT & (TLB_SIZE - 1)];
    tlb_flush_page(s, gva);
    struct space *view[2] = {s->kernel, s->cur};
    unsigned slot = gva >> LEAF_SHIFT, at = gva >> PAGE_SHIFT & (LEAF_PAGES - 1);
    for (unsigned i = 0; i < 2 && view[i]; ++i) {
        struct leaf *l = space_leaf(s, view[i], slot);
        if (!l)
            continue;
        if (l->stale != ALL_STALE) {
            leaf_apply_at(s, l, at);
            continue;
        }
        leaf_drop(s, l, 0, LEAF_PAGES);
        struct leaf *twin = s->pae ? NULL : space_leaf(s, view[i], slot ^ 1); /* the page may be 4 MiB */
        if (twin && twin->stale == ALL_STALE)
            leaf_drop(s, twin, 0, LEAF_PAGES);
    }
}

/* ---- Shortage ---- */

/* Least recently used first; the current view only when nothing else holds anything. */
bool space_shrink(struct spt *s)
{
    struct space *sp;
    TAILQ_FOREACH_REVERSE(sp, &s->live, space_queue, lru)
    {
        if (sp == s->cur || LIST_EMPTY(&sp->leaves))
            continue;
        ++s->counts.window_recycles;
        space_reset(s, sp);
        return true;
    }
    if (LIST_EMPTY(&s->kernel->leaves) && (!s->cur || LIST_EMPTY(&s->cur->leaves)))
        return false;
    ++s->counts.window_recycles;
    space_reset(s, s->kernel);
    if (s->cur)
        space_reset(s, s->cur);
    return true;
}

/* ---- Instance ---- */

static int spt_allocate(struct spt *s)
{
    s->leaf = calloc(LEAF_MAX, sizeof(*s->leaf));
    s->pt = calloc(PT_MAX, sizeof(*s->pt));
    s->phys = calloc(s->frames, sizeof(*s->phys));
    s->space_pool = calloc(s->cfg.max_user_spaces + 1, sizeof(*s->space_pool));
    return s->leaf && s->pt && s->phys && s->space_pool ? 0 : -1;
}

int spt_create(struct spt **out, const struct spt_config *cfg, struct host_err *err)
{
    struct spt *s = calloc(1, sizeof(*s));
    if (!s)
        return host_fail(err, "out of memory for the shadow page tables");
    s->cfg = *cfg;
    s->ram = cfg->ram;
    s->frames = (uint32_t)(cfg->ram->size >> PAGE_SHIFT);
    if (s->cfg.max_user_spaces > SPT_MAX_SPACES - 1)
        s->cfg.max_user_spaces = SPT_MAX_SPACES - 1;
    if (s->cfg.max_user_spaces == 0)
        s->cfg.max_user_spaces = 1;
    /* One instruction may touch six pages in two windows; below that it could never finish. */
    unsigned least = 64 + 2 * (s->cfg.max_user_spaces + 1);
    s->max_maps = cfg->max_maps > least ? cfg->max_maps : least;
    TAILQ_INIT(&s->live);
    TAILQ_INIT(&s->free_spaces);
    s->kernel_epoch = 1;
    s->tlb = cfg->tlb ? cfg->tlb : &s->own_tlb;
    tlb_flush(s);
    if (spt_allocate(s) != 0) {
        spt_destroy(s);
        return host_fail(err,
                         "out of memory for the shadow page tables; allow overcommit or less guest memory");
    }
    s->kernel = space_make(s, SPT_KERNEL_SPACE);
    struct space *first = s->kernel ? space_make(s, 1) : NULL;
    if (!first) {
        spt_destroy(s);
        return host_fail(err, "cannot reserve address space for the guest's windows; raise ulimit -v");
    }
    s->spaces_made = 1;
    TAILQ_INSERT_HEAD(&s->free_spaces, first, lru);
    *out = s;
    return 0;
}

void spt_destroy(struct spt *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < SPT_MAX_SPACES; ++i)
        if (s->space[i] && s->space[i]->has_window)
            host_window_finish(&s->space[i]->window);
    free(s->space_pool);
    free(s->leaf);
    free(s->pt);
    free(s->phys);
    free(s);
}

const struct spt_counts *spt_stats(const struct spt *s)
{
    return &s->counts;
}

const struct spt_paging *spt_paging(const struct spt *s)
{
    return &s->paging;
}

uint8_t *spt_kernel_window(const struct spt *s)
{
    return s->kernel->window.base;
}

/* Without paging there are no user pages; ring 3 code, should there be any, sees what ring 0 sees. */
uint8_t *spt_user_window(const struct spt *s)
{
    return s->cur ? s->cur->window.base : s->kernel->window.base;
}

uint32_t spt_invalidations(const struct spt *s, uint32_t gva)
{
    return s->invalidations[gva >> PAGE_SHIFT & (TLB_SIZE - 1)];
}

uint32_t spt_protections(const struct spt *s, uint64_t gpa)
{
    return s->protections[(gpa >> PAGE_SHIFT) % PROTECTION_ROWS];
}

unsigned spt_user_space(const struct spt *s)
{
    return s->cur ? s->cur->number : SPT_KERNEL_SPACE;
}

uint32_t spt_space_life(const struct spt *s, unsigned space)
{
    return space < SPT_MAX_SPACES && s->space[space] ? s->space[space]->life : 0;
}

bool spt_is_ram(const struct spt *s, uint64_t gpa)
{
    return frame_is_ram(s, gpa >> PAGE_SHIFT);
}
