/* One translation for many addresses: user blocks are moved or copied to the other places at which processes see them. */
#include "impl.h"
#include "emit.h"

enum { BATCH = 64 }; /* blocks copied at most because one was wanted */

/*T:347 Rebasing
 *
 * Every process maps the C library somewhere else, so the same guest instructions, in the same physical
 * page, are wanted at a new address by every program that starts. Code that works at any address would have
 * to compute what it can now hold as constants, on every call and return. Instead each block records its few
 * constants that depend on where it is seen, and a block wanted at a new address is a copy with those few
 * changed: a tenth of the cost of decoding and translating again. What the original is chained to inside its
 * page will be wanted next, and comes along, chained.
 *
 * Copies are written to memory that no cache holds. So where the last program that had the page has ended, its blocks are
 * moved instead: the same few constants are changed in place, and everything else stays as it is, the chains (both
 * ends move alike) and the hash row. The group moves at once, each block when it is wanted first, together with all that it is
 * chained to: nothing else leads to a block that has stayed behind.
:*/
static uint32_t *kin_row(const struct bt_vcpu *v, uint64_t gpa, uint32_t mode)
{
    uint64_t h = (gpa ^ (uint64_t)mode << 40) * UINT64_C(0x9e3779b97f4a7c15);
    return &v->kin[h >> 48 & (BT_KIN_ROWS - 1)];
}

/* Only user blocks: kernel code has one address. Not those whose last instruction lies in two pages: the second page
 * would have to be the same one, too. */
void bt_kin_set(struct bt_vcpu *v, uint32_t b)
{
    const struct bt_block *blk = &v->block[b];
    if ((blk->mode & RC_MODE_USER) && !blk->gpa2)
        *kin_row(v, blk->gpa, blk->mode) = b;
}

static uint32_t kin_find(const struct bt_vcpu *v, uint64_t gpa, uint32_t mode)
{
    uint32_t b = *kin_row(v, gpa, mode);
    const struct bt_block *blk = &v->block[b];
    return b && blk->gpa == gpa && blk->mode == mode && !blk->dead ? b : 0;
}

static void copy_bytes(uint8_t *to, const uint8_t *from, uint32_t len)
{
    uint64_t n = (len + 7) / 8; /* blocks begin at multiples of 16 */
    __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void relocate(struct bt_vcpu *v, const struct bt_block *blk, unsigned count, const uint32_t by[])
{
    const struct bt_reloc *r = &v->reloc[blk->reloc];
    for (unsigned i = 0; i < count; i++) {
        uint8_t *at = v->arena.rw + blk->host + r[i].off;
        uint32_t imm;
        memcpy(&imm, at, 4);
        imm += by[r[i].kind];
        memcpy(at, &imm, 4);
    }
}

static void copy_links(struct bt_vcpu *v, const struct bt_block *old, uint32_t b)
{
    const struct bt_block *blk = &v->block[b];
    struct emit e = {.rw = v->arena.rw};
    for (unsigned i = 0; i < blk->link_count; i++) {
        struct bt_link *l = &v->link[blk->first_link + i];
        *l = v->link[old->first_link + i];
        l->block = b;
        l->at += blk->host - old->host;
        l->stub += blk->host - old->host;
        l->target_eip += blk->eip - old->eip;
        l->to = l->next_in = 0;
        e_patch32(&e, l->at, l->stub);
    }
    v->link_count += blk->link_count;
}

static void copy_sites(struct bt_vcpu *v, const struct bt_block *old, uint32_t b)
{
    const struct bt_block *blk = &v->block[b];
    for (unsigned i = 0; i < blk->site_count; i++) {
        struct bt_site *s = &v->site[blk->site + i];
        *s = v->site[old->site + i];
        s->eip += blk->eip - old->eip;
        s->block = b;
    }
    v->site_count += blk->site_count;
}

/* A copy of block `from` for guest address eip; room has been made sure of. */
static uint32_t copy_block(struct bt_vcpu *v, uint32_t from, uint32_t eip)
{
    struct bt_block *old = &v->block[from];
    uint32_t b = v->block_count++;
    struct bt_block *blk = &v->block[b];
    *blk = *old; /* maps and relocations are shared: they are relative */
    blk->eip = eip;
    blk->host = v->arena_next;
    blk->main += blk->host - old->host;
    blk->end += blk->host - old->host;
    blk->site = v->site_count;
    blk->first_link = v->link_count;
    blk->links_in = 0;
    blk->tabled = false;
    v->arena_next = (blk->end + 15) & ~15u;
    copy_bytes(v->arena.rw + blk->host, v->arena.rw + old->host, old->end - old->host);
    const uint32_t by[] = {
        [BT_RELOC_EIP] = blk->eip - old->eip,
        [BT_RELOC_NEG_EIP] = old->eip - blk->eip,
        [BT_RELOC_OUT] = old->host - blk->host,
        [BT_RELOC_SITE] = blk->site - old->site,
        [BT_RELOC_LINK] = blk->first_link - old->first_link,
    };
    relocate(v, blk, blk->reloc_count, by);
    copy_links(v, old, b);
    copy_sites(v, old, b);
    bt_cache_insert(v, b);
    v->counts.rebased++;
    v->counts.cache_bytes = v->arena_next;
    return b;
}

/* A block follows its group, alone. */
static void follow(struct bt_vcpu *v, struct bt_block *blk)
{
    const struct bt_group *g = &v->group[blk->group];
    uint32_t delta = g->page * HOST_PAGE - (blk->eip & ~(HOST_PAGE - 1));
    const uint32_t by[] = {[BT_RELOC_EIP] = delta, [BT_RELOC_NEG_EIP] = 0 - delta};
    relocate(v, blk, blk->reloc_eips, by);
    blk->eip += delta;
    for (unsigned i = 0; i < blk->link_count; i++)
        v->link[blk->first_link + i].target_eip += delta;
    for (unsigned i = 0; i < blk->site_count; i++)
        v->site[blk->site + i].eip += delta;
    v->counts.moved++;
}

/* Block b is to follow soon: all it takes to do so is in memory that the host's caches have lost since. */
static uint32_t *enlist(struct bt_vcpu *v, uint32_t b, uint32_t *last)
{
    struct bt_block *blk = &v->block[b];
    __builtin_prefetch(&v->reloc[blk->reloc]);
    __builtin_prefetch(&v->link[blk->first_link], 1);
    for (uint32_t at = blk->host & ~63u; at < blk->end; at += 64)
        __builtin_prefetch(v->arena.rw + at, 1);
    blk->epoch = v->group[blk->group].epoch;
    blk->todo = 0;
    *last = b;
    return &blk->todo;
}

static uint32_t *enlist_successors(struct bt_vcpu *v, const struct bt_block *blk, uint32_t *last)
{
    const struct bt_link *l = &v->link[blk->first_link];
    for (unsigned i = 0; i < blk->link_count; i++)
        if (l[i].to && bt_group_behind(v, l[i].to))
            last = enlist(v, l[i].to, last);
    return last;
}

/* Block b, and all that chains lead to from there, to where their group is now. What the dead space had in its jump table
 * the new one will want in its own. */
bool bt_settle(struct bt_vcpu *v, uint32_t b, unsigned space)
{
    uint32_t first = 0, *last = &first;
    if (!bt_group_behind(v, b))
        return true;
    bool tabled = !v->unchained && !bt_direct_owns(v, space, v->block[b].gpa), good = true;
    last = enlist(v, b, last);
    for (b = first; b; b = v->block[b].todo) {
        last = enlist_successors(v, &v->block[b], last);
        follow(v, &v->block[b]);
        if (tabled && v->block[b].tabled)
            bt_jtab_set(v, space, b);
    }
    for (b = first; v->cfg.verify && b && good; b = v->block[b].todo)
        good = bt_verify_block(v, &v->block[b]);
    return good;
}

struct batch {
    bool good;
    unsigned count;
    struct {
        uint32_t from, to;
    } row[BATCH];
};

static uint32_t add(struct bt_vcpu *v, struct batch *g, uint32_t from, uint32_t eip)
{
    if (g->count == BATCH || !bt_cache_room(v))
        return 0;
    uint32_t b = copy_block(v, from, eip);
    g->row[g->count].from = from;
    g->row[g->count++].to = b;
    return b;
}

/* Where link `l` of an original leads, in the linear page of eip: a block that is there already, or a copy made now. 0: leave it
 * unlinked. */
static uint32_t successor(struct bt_vcpu *v, struct batch *g, const struct bt_link *l, uint32_t eip,
                          unsigned space)
{
    const struct bt_block *target = &v->block[l->to];
    if (!l->to || l->cross || target->gpa2 || target->dead)
        return 0;
    eip = (eip & ~(HOST_PAGE - 1)) | (target->eip & (HOST_PAGE - 1));
    uint32_t there = bt_cache_find_unsettled(v, target->gpa, eip, target->mode);
    if (!there)
        return add(v, g, l->to, eip);
    g->good &= bt_settle(v, there, space);
    return there;
}

static bool verified(struct bt_vcpu *v, const struct batch *g)
{
    for (unsigned i = 1; v->cfg.verify && i < g->count; i++)
        if (!bt_verify_block(v, &v->block[g->row[i].to]))
            return false;
    return g->good;
}

/* Block at eip made from one at another address, 0: none there; BT_BAD_BLOCK: the verifier refuses one. The caller has
 * made room for one block and verifies the one returned. */
uint32_t bt_rebase(struct bt_vcpu *v, uint32_t eip, uint64_t gpa, unsigned space, uint32_t mode)
{
    if (!(mode & RC_MODE_USER))
        return 0;
    uint32_t n = bt_group_find(v, gpa, eip) ? 0 : bt_group_dead(v, gpa);
    if (n)
        bt_group_move(v, n, eip);
    uint32_t there = bt_cache_find_unsettled(v, gpa, eip, mode);
    if (there)
        return bt_settle(v, there, space) ? there : BT_BAD_BLOCK;
    uint32_t from = bt_group_elsewhere(v, gpa, eip) ? kin_find(v, gpa, mode) : 0;
    if (!from)
        return 0;
    struct batch g;
    g.count = 0;
    g.good = true;
    add(v, &g, from, eip);
    for (unsigned i = 0; i < g.count && !v->unchained; i++) {
        const struct bt_block *old = &v->block[g.row[i].from];
        uint32_t first = v->block[g.row[i].to].first_link;
        for (unsigned k = 0; k < old->link_count; k++) {
            uint32_t to = successor(v, &g, &v->link[old->first_link + k], eip, space);
            if (to)
                bt_cache_link(v, first + k, to);
        }
        if (old->tabled && i > 0)
            bt_jtab_set(v, space, g.row[i].to);
    }
    return verified(v, &g) ? g.row[0].to : BT_BAD_BLOCK;
}
