/*
 * The translation cache: blocks by guest physical address, links between them, jump tables, the host return
 * stacks and the record of what each site was found guilty of. Arena memory and block numbers are only ever
 * reused by a complete flush, which happens between two entries to translated code: a dead block may be left
 * safely, never re-entered.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include "impl.h"
#include "emit.h"

enum { PAGE_ROWS = 256 }; /* of the hash table, for the blocks of one page */
enum { FORMS_FLUSHES = 8, LINK_STUB_JUMP = 6 + 6 + 1 /* mov r8d, mov r9d, jmp */ };
/* How often a block may look into the software TLB before windows would have been cheaper: a page in a window costs as
 * much as two thousand times looking. */
enum {
    HEAT_PAGE = 2000,
    HEAT_FIRST = 2 * HEAT_PAGE,
    HEAT_MOST = 8 * HEAT_PAGE,
    CALL_HEAT = 16 /* a callout */
};
/* Doubts double the faults before a site is soft again. A mistake is cheap when the site looks by itself. */
enum { LOOK_DOUBTS = 4, CALL_DOUBTS = 8 };

/* How often an interpreted site has to be found touching in vain, at first and at most: a signal costs as much as a hundred
 * callouts, of which one in eight is looked at. */
enum { INTERP_IDLE = 32, INTERP_DOUBTS = 7 };

enum { JTAB_BYTES = sizeof(uint32_t) * BT_JTAB_ENTRIES, JTAB_LOG_BYTES = sizeof(uint16_t) * BT_JTAB_LOG };

/* The blocks of a page have rows side by side: who wants one wants others, and a row costs a miss in the host's caches and one
 * in its TLB. view: a group, so that its blocks stay where they are when it moves; or the linear page of a block that has none. */
static uint32_t hash_of(const struct bt_vcpu *v, uint64_t gpa, uint32_t view, uint32_t mode)
{
    uint64_t page = gpa / HOST_PAGE ^ (uint64_t)view << 28 ^ (uint64_t)mode << 21;
    uint32_t first = (uint32_t)(page * UINT64_C(0x9e3779b97f4a7c15) >> 40) * PAGE_ROWS;
    return (first + gpa % HOST_PAGE / (HOST_PAGE / PAGE_ROWS)) & v->hash_mask;
}

static uint32_t *hash_row(const struct bt_vcpu *v, const struct bt_block *blk)
{
    return &v->hash[hash_of(v, blk->gpa, blk->group ? blk->group : blk->eip / HOST_PAGE, blk->mode)];
}

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int bt_cache_init(struct bt_vcpu *v, struct host_err *err)
{
    size_t bytes = v->cfg.cache_bytes ? v->cfg.cache_bytes : BT_ARENA_DEFAULT;
    if (bytes < 4 * BT_BLOCK_ROOM || bytes > (UINT64_C(1) << 30))
        return host_fail(err, "translation cache of %zu bytes: choose between 64K and 1G", bytes);
    if (host_arena_init(&v->arena, bytes, err))
        return -1;
    v->block_max = (uint32_t)(bytes / 128);
    v->map_max = v->block_max * 8;
    v->link_max = v->block_max * 2;
    v->site_max = v->block_max;
    v->hash_mask = (1u << 21) - 1;
    v->page_count = (uint32_t)(v->cfg.ram->size / HOST_PAGE);
    v->cross_max = v->link_max;
    v->forms_mask = (1u << 16) - 1;
    v->block = reserve(sizeof *v->block * v->block_max);
    v->map = reserve(sizeof *v->map * v->map_max);
    v->link = reserve(sizeof *v->link * v->link_max);
    v->site = reserve(sizeof *v->site * v->site_max);
    v->reloc_max = v->block_max * 8;
    v->reloc = reserve(sizeof *v->reloc * v->reloc_max);
    v->kin = reserve(sizeof *v->kin * BT_KIN_ROWS);
    v->hash = reserve(sizeof *v->hash * (v->hash_mask + 1));
    v->group = reserve(sizeof *v->group * v->block_max);
    v->frame_groups = reserve(sizeof *v->frame_groups * v->page_count);
    v->page_blocks = reserve(sizeof *v->page_blocks * v->page_count);
    v->cross = reserve(sizeof *v->cross * v->cross_max);
    v->forms = reserve(sizeof *v->forms * (v->forms_mask + 1));
    v->spill = reserve(sizeof *v->spill * BT_SPILL_ROWS);
    size_t hs = 2 * (BT_HSTACK_SIZE + HOST_PAGE) + HOST_PAGE;
    v->hstack_mem = mmap(NULL, hs, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!v->block || !v->map || !v->link || !v->site || !v->reloc || !v->kin || !v->hash || !v->page_blocks ||
        !v->cross || !v->forms || !v->spill || !v->group || !v->frame_groups || v->hstack_mem == MAP_FAILED)
        return host_fail(err, "no address space for the translation cache's tables: raise ulimit -v");
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *low = v->hstack_mem + HOST_PAGE + i * (BT_HSTACK_SIZE + HOST_PAGE);
        if (mprotect(low, BT_HSTACK_SIZE, PROT_READ | PROT_WRITE))
            return host_fail(err, "no memory for the host return stack");
        v->hstack_top[i] = (uint64_t)(low + BT_HSTACK_SIZE - 64);
    }
    bt_stubs_emit(v);
    for (unsigned i = 0; i < 2; i++)
        *(uint64_t *)v->hstack_top[i] = (uint64_t)(v->arena.rx + v->stubs.sentinel);
    v->rx = (uint64_t)v->arena.rx;
    bt_cache_flush(v);
    return 0;
}

static void release(void *p, size_t bytes)
{
    if (p && p != MAP_FAILED)
        munmap(p, bytes);
}

void bt_cache_finish(struct bt_vcpu *v)
{
    release(v->block, sizeof *v->block * v->block_max);
    release(v->map, sizeof *v->map * v->map_max);
    release(v->link, sizeof *v->link * v->link_max);
    release(v->site, sizeof *v->site * v->site_max);
    release(v->reloc, sizeof *v->reloc * v->reloc_max);
    release(v->kin, sizeof *v->kin * BT_KIN_ROWS);
    release(v->hash, sizeof *v->hash * (v->hash_mask + 1));
    release(v->group, sizeof *v->group * v->block_max);
    release(v->frame_groups, sizeof *v->frame_groups * v->page_count);
    release(v->page_blocks, sizeof *v->page_blocks * v->page_count);
    release(v->cross, sizeof *v->cross * v->cross_max);
    release(v->forms, sizeof *v->forms * (v->forms_mask + 1));
    release(v->spill, sizeof *v->spill * BT_SPILL_ROWS);
    release(v->hstack_mem, 2 * (BT_HSTACK_SIZE + HOST_PAGE) + HOST_PAGE);
    for (unsigned i = 0; i < SPT_MAX_SPACES; i++)
        release(v->jtabs[i].entry, JTAB_BYTES + JTAB_LOG_BYTES);
    if (v->arena.rw)
        host_arena_finish(&v->arena);
}

void bt_hstack_reset(struct bt_vcpu *v)
{
    v->hstack = v->hstack_top[v->entered_user]; /* CPL may be another already */
    v->hstack_user = v->hstack_top[1];
}

/* Caller is outside translated code (or flush_wanted makes bt_run call it). */
void bt_cache_flush(struct bt_vcpu *v)
{
    v->arena_next = (v->stubs.end + 63) & ~63u;
    /* number 0 is never a block, so that zeroed tables are empty ones */
    v->block_count = v->link_count = v->site_count = v->group_count = 1;
    v->group_free = 0;
    v->map_count = v->cross_count = v->reloc_count = 0;
    madvise(v->kin, sizeof *v->kin * BT_KIN_ROWS, MADV_DONTNEED);
    madvise(v->hash, sizeof *v->hash * (v->hash_mask + 1), MADV_DONTNEED);
    madvise(v->page_blocks, sizeof *v->page_blocks * v->page_count, MADV_DONTNEED);
    madvise(v->frame_groups, sizeof *v->frame_groups * v->page_count, MADV_DONTNEED);
    /* What sites were found guilty of outlives their translations: to find it out again costs signals. Not for ever,
     * though: pages change their use. */
    if (v->forms_used > v->forms_mask / 2 || v->counts.cache_flushes % FORMS_FLUSHES == 0) {
        madvise(v->forms, sizeof *v->forms * (v->forms_mask + 1), MADV_DONTNEED);
        for (unsigned i = 0; i < BT_FORM_LINES / 64; i++)
            v->form_lines[i] = 0;
        v->forms_used = 0;
    }
    for (unsigned i = 0; i < SPT_MAX_SPACES; i++)
        bt_jtab_flush(v, i);
    bt_hstack_reset(v);
    v->flush_wanted = false;
    v->run_block = 0;
    v->leave_reason = BT_LEAVE_EVENT; /* leave_link names nothing any more */
    v->counts.cache_flushes++;
}

static uint32_t find_grouped(const struct bt_vcpu *v, uint64_t gpa, uint32_t mode, uint32_t group)
{
    uint32_t b = v->hash[hash_of(v, gpa, group, mode)];
    while (b && (v->block[b].gpa != gpa || v->block[b].group != group || v->block[b].mode != mode))
        b = v->block[b].hash_next;
    return b;
}

static uint32_t find_alone(const struct bt_vcpu *v, uint64_t gpa, uint32_t eip, uint32_t mode)
{
    uint32_t b = v->hash[hash_of(v, gpa, eip / HOST_PAGE, mode)];
    while (b && (v->block[b].gpa != gpa || v->block[b].eip != eip || v->block[b].mode != mode ||
                 v->block[b].group))
        b = v->block[b].hash_next;
    return b;
}

uint32_t bt_cache_find_unsettled(struct bt_vcpu *v, uint64_t gpa, uint32_t eip, uint32_t mode)
{
    bool user = mode & RC_MODE_USER, may_straddle = eip % HOST_PAGE > HOST_PAGE - BT_MAX_INSN;
    uint32_t g = user ? bt_group_find(v, gpa, eip) : 0, b = g ? find_grouped(v, gpa, mode, g) : 0;
    return !b && (!user || may_straddle) ? find_alone(v, gpa, eip, mode) : b;
}

uint32_t bt_cache_find(struct bt_vcpu *v, uint64_t gpa, uint32_t eip, uint32_t mode)
{
    uint32_t b = bt_cache_find_unsettled(v, gpa, eip, mode);
    return bt_group_behind(v, b) ? 0 : b;
}

static uint32_t *page_head(struct bt_vcpu *v, uint64_t gpa)
{
    uint64_t gfn = gpa / HOST_PAGE;
    return gfn < v->page_count ? &v->page_blocks[gfn] : NULL;
}

static void page_add(struct bt_vcpu *v, uint32_t b, unsigned second)
{
    struct bt_block *blk = &v->block[b];
    uint32_t *head = page_head(v, second ? blk->gpa2 : blk->gpa), node = 2 * b + second;
    blk->in_page[second].next = *head;
    blk->in_page[second].prev = 0;
    if (*head)
        v->block[*head / 2].in_page[*head % 2].prev = node;
    *head = node;
    spt_trace_code(v->spt, second ? blk->gpa2 : blk->gpa);
}

static void page_remove(struct bt_vcpu *v, uint32_t b, unsigned second)
{
    struct bt_block *blk = &v->block[b];
    uint32_t next = blk->in_page[second].next, prev = blk->in_page[second].prev;
    if (next)
        v->block[next / 2].in_page[next % 2].prev = prev;
    if (prev)
        v->block[prev / 2].in_page[prev % 2].next = next;
    else
        *page_head(v, second ? blk->gpa2 : blk->gpa) = next;
}

void bt_cache_insert(struct bt_vcpu *v, uint32_t b)
{
    struct bt_block *blk = &v->block[b];
    bt_group_add(v, b);
    uint32_t *head = hash_row(v, blk);
    blk->hash_next = *head;
    *head = b;
    page_add(v, b, 0);
    if (blk->gpa2)
        page_add(v, b, 1);
    bt_kin_set(v, b);
    bt_direct_block(v, blk);
}

/* ---- links ---- */

void bt_cache_link(struct bt_vcpu *v, uint32_t link, uint32_t to)
{
    struct bt_link *l = &v->link[link];
    if (l->to || v->block[to].dead || v->block[l->block].dead)
        return;
    bt_group_linked(v, l->block, to);
    struct emit e = {.rw = v->arena.rw};
    e_patch32(&e, l->at, v->block[to].main);
    l->to = to;
    l->next_in = v->block[to].links_in;
    v->block[to].links_in = link;
    v->counts.chained++;
    if (l->cross && v->cross_count < v->cross_max)
        v->cross[v->cross_count++] = link;
}

static void unlink_one(struct bt_vcpu *v, uint32_t link)
{
    struct bt_link *l = &v->link[link];
    uint32_t *p = &v->block[l->to].links_in;
    while (*p && *p != link)
        p = &v->link[*p].next_in;
    if (*p)
        *p = l->next_in;
    struct emit e = {.rw = v->arena.rw};
    e_patch32(&e, l->at, l->stub);
    l->to = 0;
}

/* The last jump of an unlinked branch's stub leads to the table instead of out. */
void bt_cache_link_by_table(struct bt_vcpu *v, uint32_t link)
{
    struct emit e = {.rw = v->arena.rw};
    e_patch32(&e, v->link[link].stub + LINK_STUB_JUMP, v->stubs.table);
}

void bt_cache_unlink_cross(struct bt_vcpu *v)
{
    for (uint32_t i = 0; i < v->cross_count; i++)
        if (v->link[v->cross[i]].to)
            unlink_one(v, v->cross[i]);
    v->cross_count = 0;
}

/* ---- dropping blocks ---- */

void bt_cache_drop(struct bt_vcpu *v, uint32_t b)
{
    struct bt_block *blk = &v->block[b];
    if (blk->dead)
        return;
    blk->dead = true;
    uint32_t *p = hash_row(v, blk);
    while (*p && *p != b)
        p = &v->block[*p].hash_next;
    if (*p)
        *p = blk->hash_next;
    bt_group_remove(v, b);
    page_remove(v, b, 0);
    if (blk->gpa2)
        page_remove(v, b, 1);
    while (blk->links_in)
        unlink_one(v, blk->links_in);
    for (uint32_t i = 0; i < blk->link_count; i++)
        if (v->link[blk->first_link + i].to)
            unlink_one(v, blk->first_link + i);
    /* jump tables may still hold the indirect entry: let it lead to a miss (r8d holds the target) */
    struct emit e = {.rw = v->arena.rw, .at = blk->host};
    e_jmp(&e, v->stubs.miss);
    bt_hstack_reset(v);
    v->leave_pending = true;
    v->counts.blocks_dropped++;
}

/* Drops blocks whose guest bytes overlap [gpa, gpa+len). True when the page holds no block any more. */
bool bt_cache_drop_range(struct bt_vcpu *v, uint64_t gpa, unsigned len)
{
    uint32_t *head = page_head(v, gpa);
    if (!head)
        return true;
    bt_direct_revoke(v, gpa);
    for (uint32_t node = *head, next; node; node = next) {
        struct bt_block *blk = &v->block[node / 2];
        bool second = node % 2;
        next = blk->in_page[second].next;
        uint64_t from = second ? blk->gpa2 : blk->gpa;
        uint64_t in_first = HOST_PAGE - blk->gpa % HOST_PAGE;
        uint64_t bytes = second ? blk->guest_len - in_first : blk->gpa2 ? in_first : blk->guest_len;
        if (from < gpa + len && gpa < from + bytes)
            bt_cache_drop(v, node / 2);
    }
    return !*head;
}

enum { REWRITTEN = 4, IDLE_STORES = 64 };

static struct bt_rewritten *rewritten_row(struct bt_vcpu *v, uint64_t gpa)
{
    return &v->rewritten[gpa / HOST_PAGE % (sizeof v->rewritten / sizeof *v->rewritten)];
}

/* Is this page written and executed in turn? */
bool bt_cache_is_rewritten(struct bt_vcpu *v, uint64_t gpa)
{
    const struct bt_rewritten *r = rewritten_row(v, gpa);
    return r->page == gpa / HOST_PAGE && r->times >= REWRITTEN && r->idle < IDLE_STORES;
}

/* A store to a traced page, by C: forget what is translated from these bytes. The page is no longer traced if nothing of
 * it is translated, unless that would not last. */
void bt_cache_code_write(struct bt_vcpu *v, uint64_t gpa, unsigned len)
{
    struct bt_rewritten *r = rewritten_row(v, gpa);
    uint64_t dropped = v->counts.blocks_dropped;
    bool empty = bt_cache_drop_range(v, gpa, len);
    if (r->page != gpa / HOST_PAGE)
        *r = (struct bt_rewritten){.page = (uint32_t)(gpa / HOST_PAGE)};
    if (v->counts.blocks_dropped != dropped) {
        r->times += r->times < REWRITTEN;
        r->idle = 0;
    } else
        r->idle += r->idle < IDLE_STORES;
    if (empty && !bt_cache_is_rewritten(v, gpa))
        spt_untrace_code(v->spt, gpa);
}

uint32_t bt_cache_by_host(struct bt_vcpu *v, uint32_t off)
{
    uint32_t lo = 1, hi = v->block_count; /* blocks are allocated in arena order */
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (v->block[mid].end <= off)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < v->block_count && off >= v->block[lo].host ? lo : 0;
}

/* Row of the guest instruction that host code at off belongs to; count when off is past the last one's code.
 */
unsigned bt_cache_row(const struct bt_vcpu *v, const struct bt_block *b, uint32_t off)
{
    const struct bt_map *m = &v->map[b->map];
    unsigned lo = 0, hi = b->count;
    while (lo + 1 < hi) {
        unsigned mid = (lo + hi) / 2;
        if (m[mid].host_off <= off - b->host)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* ---- jump tables ---- */

uint32_t *bt_jtab_create(void)
{
    return reserve(JTAB_BYTES + JTAB_LOG_BYTES);
}

static uint16_t *jtab_log(const struct bt_jtab *t)
{
    return (uint16_t *)(t->entry + BT_JTAB_ENTRIES);
}

static void jtab_put(struct bt_jtab *t, uint32_t i, uint32_t host)
{
    if (!t->entry[i] && t->count++ < BT_JTAB_LOG)
        jtab_log(t)[t->count - 1] = (uint16_t)i;
    t->entry[i] = host;
}

/*T:343 What does not fit into a jump table
 *
 * Emitted code finds the way by the low bits of an address, since it may change no flag meanwhile. A compiler has functions
 * by the ten thousand at multiples of 16, of which a table has 16,384: a million times in two seconds it finds somebody
 * else's entry. To find a block by its physical address takes four look-ups, each of memory that no cache of the host holds.
 * So an entry that meets another one is also put where C finds it in one, under its full address. It is worth as much as
 * the one in the table, and ends with it: its row names the life of the table, which a flush ends.
:*/
static struct bt_spill *spill_row(const struct bt_vcpu *v, const struct bt_jtab *t, uint32_t eip)
{
    return &v->spill[(eip ^ t->life << 32) * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (BT_SPILL_ROWS - 1)];
}

void bt_jtab_set(struct bt_vcpu *v, unsigned space, uint32_t b)
{
    struct bt_jtab *t = &v->jtabs[space];
    const uint32_t eip = v->block[b].eip, host = v->block[b].host, i = bt_jtab_index(v, eip);
    if (t->entry[i] && t->entry[i] != host)
        *spill_row(v, t, eip) = (struct bt_spill){t->life, eip, host};
    jtab_put(t, i, host);
    v->block[b].tabled = true;
    bt_group_used(v, b, space);
}

/* An entry that the table holds already has led to a miss: its block was dropped. */
uint32_t bt_jtab_spilled(struct bt_vcpu *v, unsigned space, uint32_t eip)
{
    struct bt_jtab *t = &v->jtabs[space];
    const uint32_t i = bt_jtab_index(v, eip);
    const struct bt_spill *row = spill_row(v, t, eip);
    if (row->life != t->life || row->eip != eip || row->host == t->entry[i])
        return 0;
    jtab_put(t, i, row->host);
    return row->host;
}

/* A process that lives for a millisecond sets some thousand entries, and giving the memory back would cost a host page
 * fault for nearly each of them. */
void bt_jtab_flush(struct bt_vcpu *v, unsigned space)
{
    struct bt_jtab *t = &v->jtabs[space];
    if (t->count > BT_JTAB_LOG)
        madvise(t->entry, JTAB_BYTES, MADV_DONTNEED);
    for (uint32_t i = 0; t->count <= BT_JTAB_LOG && i < t->count; i++)
        t->entry[jtab_log(t)[i]] = 0;
    t->count = 0;
    t->life = ++v->jtab_lives;
}

/* ---- forms ---- */

static uint64_t form_hash(uint64_t gpa)
{
    return (gpa >> 6) * UINT64_C(0x9e3779b97f4a7c15) >> 40;
}

static struct bt_form_entry *form_slot(const struct bt_vcpu *v, uint64_t gpa)
{
    uint32_t i = ((uint32_t)form_hash(gpa) * 8 + (gpa >> 3 & 7)) & v->forms_mask;
    while (v->forms[i].key && v->forms[i].key != gpa + 1)
        i = (i + 1) & v->forms_mask;
    return &v->forms[i];
}

/* Asked for each instruction that is translated; nearly all code is innocent. */
enum bt_form bt_form_get(const struct bt_vcpu *v, uint64_t gpa)
{
    uint64_t line = form_hash(gpa) % BT_FORM_LINES;
    if (!(v->form_lines[line / 64] >> line % 64 & 1))
        return BT_FORM_WINDOW;
    const struct bt_form_entry *f = form_slot(v, gpa);
    return f->key ? (enum bt_form)f->form : BT_FORM_WINDOW;
}

static struct bt_form_entry *form_make(struct bt_vcpu *v, uint64_t gpa)
{
    struct bt_form_entry *f = form_slot(v, gpa);
    if (!f->key) {
        uint64_t line = form_hash(gpa) % BT_FORM_LINES;
        v->form_lines[line / 64] |= UINT64_C(1) << line % 64;
        f->key = gpa + 1;
        if (++v->forms_used > v->forms_mask / 2)
            v->flush_wanted = true; /* the flush empties this table too: sites revert */
    }
    return f;
}

void bt_form_set(struct bt_vcpu *v, uint64_t gpa, enum bt_form form)
{
    struct bt_form_entry *f = form_make(v, gpa);
    if (form == BT_FORM_INTERP) {
        if (f->form < BT_FORM_SOFT)
            f->back = f->form;
        f->idle = 0;
    }
    f->form = (uint8_t)form;
}

unsigned bt_form_strike(struct bt_vcpu *v, uint64_t gpa)
{
    struct bt_form_entry *f = form_make(v, gpa);
    return f->strikes < 255 ? ++f->strikes : 255;
}

uint32_t bt_form_row(const struct bt_vcpu *v, uint64_t gpa)
{
    const struct bt_form_entry *f = form_slot(v, gpa);
    return f->key ? (uint32_t)(f - v->forms) + 1 : 0;
}

/* A division was interpreted because its site had faulted too often to be left to the host, where each #DE is a signal.
 * True: it has not for long, so let it run again. */
bool bt_form_divided(struct bt_vcpu *v, uint64_t gpa, bool faulted)
{
    struct bt_form_entry *f = form_slot(v, gpa);
    if (faulted || !f->key)
        f->idle = 0;
    else if (f->form == BT_FORM_INTERP && ++f->idle >= 1024) {
        f->form = BT_FORM_WINDOW;
        f->idle = 0;
        return true;
    }
    return false;
}

/* A site was interpreted for what it had once met: a device, a page table, code. Would a window have done now? What copies
 * for everybody meets all of these while the kernel starts, and nothing but memory ever after. One that meets devices had
 * better not try page tables first. True: its block is to be translated anew. */
bool bt_form_met(struct bt_vcpu *v, const struct bt_site *site, enum bt_met met)
{
    struct bt_form_entry *f = &v->forms[site->soft - 1];
    if (f->form != BT_FORM_INTERP)
        return true; /* by another block that has it, too */
    f->idle = met == BT_MET_SHOWN ? (uint16_t)(f->idle + 1) : 0;
    if (met == BT_MET_DEVICE && !f->device) {
        f->device = true;
        return true;
    }
    if (f->idle < INTERP_IDLE << f->returns)
        return false;
    f->form = f->back;
    f->returns += f->returns < INTERP_DOUBTS;
    f->idle = f->faults = 0;
    f->device = false;
    return true;
}

bool bt_form_device(const struct bt_vcpu *v, uint64_t gpa)
{
    return form_slot(v, gpa)->device;
}

/*T:445 Soft sites
 *
 * A page in a window costs a signal and an mmap, some 8 microseconds, and must be used thousands of times
 * to be worth it. A process that lives two milliseconds, or one that walks through fresh memory, never
 * earns that back. So a site whose faults each served one page is given the soft form: it goes through the
 * software TLB, in a few nanoseconds when the instruction can do so itself, in a hundred by a callout, with
 * guest page faults found without a signal. It is the ski-rental problem, solved as usual: rent until the
 * rents would have bought the skis. A soft site that keeps touching pages it has seen is given back to
 * windows, and must fault twice as often before it is soft again.
:*/
bool bt_form_fault(struct bt_vcpu *v, uint64_t gpa, enum bt_form now)
{
    struct bt_form_entry *f = form_make(v, gpa);
    if (f->form >= BT_FORM_SOFT)
        return true;
    if (++f->faults < 4u << f->reverts)
        return false;
    f->back = (uint8_t)now;
    f->form = BT_FORM_SOFT;
    f->worn = false;
    f->faults = f->idle = 0;
    return true;
}

/* Do windows show what was touched? Then the way here was for nothing: a site that many use (a copy, the allocator) comes
 * to be soft by those few of its pages that change hands. */
static bool soft_shown(const struct bt_vcpu *v, const struct bt_soft_use *u)
{
    return spt_grants(v->spt, u->gva, u->write) && (!u->gva2 || spt_grants(v->spt, u->gva2, false));
}

/* Would a window have had to fetch this page for this site? Not if the site has seen it since the guest last
 * invalidated the address. A kmap slot is invalidated between any two uses. */
bool bt_form_soft_news(struct bt_vcpu *v, const struct bt_site *site, const struct bt_soft_use *u)
{
    if (soft_shown(v, u))
        return false;
    uint32_t page = u->frames ^ site->soft << 20; /* what another site has seen is no news of this one */
    uint32_t invalidations = spt_invalidations(v->spt, u->gva) + spt_invalidations(v->spt, u->gva2);
    struct bt_soft_seen *seen =
        &v->soft_seen[(page ^ page >> 8 ^ page >> 16 ^ page >> 24) & (BT_SOFT_SEEN - 1)];
    if (seen->frames == page && seen->invalidations == invalidations)
        return false;
    *seen = (struct bt_soft_seen){page, invalidations};
    return true;
}

/* A soft site has met a page that no window shows: earlier doubts fade. */
void bt_form_soft_right(struct bt_vcpu *v, uint32_t row)
{
    struct bt_form_entry *f = &v->forms[row - 1];
    f->idle = f->idle > 16 ? (uint16_t)(f->idle - 16) : 0;
    if (f->form != BT_FORM_SOFT || ++f->faults < 16)
        return;
    f->faults = 0;
    f->reverts -= f->reverts > 0;
}

static void soft_revert(struct bt_form_entry *f, unsigned doubt, unsigned most)
{
    f->form = f->back;
    f->reverts = (uint8_t)(f->reverts + doubt < most ? f->reverts + doubt : most);
    f->faults = f->idle = 0;
}

/* Time is spent at this site. */
void bt_form_soft_hot(struct bt_vcpu *v, uint64_t gpa)
{
    struct bt_form_entry *f = form_slot(v, gpa);
    if (f->key && f->form == BT_FORM_SOFT)
        soft_revert(f, 1, CALL_DOUBTS);
}

/* One account for the blocks of a few lines of guest code: the one that comes first in a loop finds the page, the others
 * only use it. */
void bt_form_heat_up(struct bt_vcpu *v, struct bt_block *blk)
{
    uint64_t lines = blk->gpa >> 9;
    blk->heat = (uint16_t)(1 + (lines * UINT64_C(0x9e3779b97f4a7c15) >> 40) % (BT_HEAT_WORDS - 1));
    if (v->heat[blk->heat] < HEAT_FIRST)
        v->heat[blk->heat] = HEAT_FIRST;
}

/* A site that looks into the TLB itself did not find its page there, or its block's account is empty. */
static bool look_missed(struct bt_vcpu *v, const struct bt_site *site, bool news)
{
    const struct bt_block *blk = &v->block[site->block];
    uint32_t *heat = &v->heat[blk->heat];
    if (news) { /* also when it is empty: neighbours may have looked first and paid in elsewhere */
        *heat = *heat < HEAT_MOST ? *heat + HEAT_PAGE : HEAT_MOST;
        bt_form_soft_right(v, site->soft);
    } else
        *heat -= *heat < CALL_HEAT ? *heat : CALL_HEAT;
    if (*heat)
        return false;
    *heat = HEAT_FIRST; /* another block may count down the same word */
    for (unsigned i = 0; i < blk->site_count; i++) {
        const struct bt_site *s = &v->site[blk->site + i];
        struct bt_form_entry *f = &v->forms[s->soft - 1];
        if (!s->looks || f->form != BT_FORM_SOFT)
            continue;
        if (blk->mode & RC_MODE_USER)
            f->worn = true;
        else
            soft_revert(f, 1, LOOK_DOUBTS);
    }
    return true;
}

bool bt_form_worn(const struct bt_vcpu *v, uint64_t gpa)
{
    return form_slot(v, gpa)->worn; /* an empty slot is all zero */
}

/* A soft site was executed by a callout. True: its block is to be translated anew, with windows. */
bool bt_form_soft_used(struct bt_vcpu *v, const struct bt_site *site, const struct bt_soft_use *u, bool news)
{
    struct bt_form_entry *f = &v->forms[site->soft - 1];
    if (site->looks)
        return look_missed(v, site, news);
    if (f->form != BT_FORM_SOFT)
        return true; /* by another block that has it, too */
    if (news) {
        bt_form_soft_right(v, site->soft);
        return false;
    }
    uint32_t more = u->more < 64 ? u->more : 64, idle = f->idle + 1u + more;
    f->idle = (uint16_t)idle;
    if (idle < 64)
        return false;
    soft_revert(f, more < 64 ? 1 : 3, CALL_DOUBTS); /* a long copy: sooner convinced */
    return true;
}
