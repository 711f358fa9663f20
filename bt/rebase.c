/* One translation for many addresses: copies of a user block for the other places at which processes see it. */
#include "impl.h"
#include "emit.h"

enum { REBASE_GROUP = 64 }; /* blocks copied at most because one was wanted */

/*T:347 Rebasing
 *
 * Every process maps the C library somewhere else, so the same guest instructions, in the same physical
 * page, are wanted at a new address by every program that starts. Code that works at any address would have
 * to compute what it can now hold as constants, on every call and return. Instead each block records its few
 * constants that depend on where it is seen, and a block wanted at a new address is a copy with those few
 * changed: a tenth of the cost of decoding and translating again. What the original is chained to inside its
 * page will be wanted next, and comes along, chained.
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

static void relocate(struct bt_vcpu *v, const struct bt_block *old, const struct bt_block *blk)
{
    uint32_t by[] = {
        [BT_RELOC_EIP] = blk->eip - old->eip,
        [BT_RELOC_NEG_EIP] = old->eip - blk->eip,
        [BT_RELOC_OUT] = old->host - blk->host,
        [BT_RELOC_SITE] = blk->site - old->site,
        [BT_RELOC_LINK] = blk->first_link - old->first_link,
    };
    const struct bt_reloc *r = &v->reloc[blk->reloc];
    for (unsigned i = 0; i < blk->reloc_count; i++) {
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
    struct emit e = {v->arena.rw, 0};
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
    old->copy = b;
    blk->copy = 0;
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
    relocate(v, old, blk);
    copy_links(v, old, b);
    copy_sites(v, old, b);
    bt_cache_insert(v, b);
    v->counts.rebased++;
    v->counts.cache_bytes = v->arena_next;
    return b;
}

struct group {
    unsigned count;
    struct {
        uint32_t from, to;
    } row[REBASE_GROUP];
};

static uint32_t add(struct bt_vcpu *v, struct group *g, uint32_t from, uint32_t eip)
{
    if (g->count == REBASE_GROUP || !bt_cache_room(v))
        return 0;
    uint32_t b = copy_block(v, from, eip);
    g->row[g->count].from = from;
    g->row[g->count++].to = b;
    return b;
}

/* Where link `l` of an original leads, at the new address: a copy of the target made before, or one made now. 0: leave
 * it unlinked. A copy that is not the target's latest is not looked for; then there are two, which does no harm. */
static uint32_t successor(struct bt_vcpu *v, struct group *g, const struct bt_link *l, uint32_t delta)
{
    const struct bt_block *target = &v->block[l->to];
    if (!l->to || l->cross || target->gpa2 || target->dead)
        return 0;
    uint32_t eip = target->eip + delta;
    const struct bt_block *copy = &v->block[target->copy];
    return target->copy && copy->eip == eip && !copy->dead ? target->copy : add(v, g, l->to, eip);
}

static bool verified(struct bt_vcpu *v, const struct group *g)
{
    for (unsigned i = 1; v->cfg.verify && i < g->count; i++)
        if (!bt_verify_block(v, &v->block[g->row[i].to]))
            return false;
    return true;
}

/* Block at eip made from one at another address, 0: none there; BT_BAD_BLOCK: the verifier refuses a copy. The caller has made room for one block and verifies
 * the one returned. */
uint32_t bt_rebase(struct bt_vcpu *v, uint32_t eip, uint64_t gpa, unsigned space, uint32_t mode)
{
    uint32_t from = mode & RC_MODE_USER ? kin_find(v, gpa, mode) : 0;
    if (!from)
        return 0;
    struct group g;
    g.count = 0;
    uint32_t delta = eip - v->block[from].eip;
    add(v, &g, from, eip);
    for (unsigned i = 0; i < g.count && !v->unchained; i++) {
        const struct bt_block *old = &v->block[g.row[i].from];
        uint32_t first = v->block[g.row[i].to].first_link;
        for (unsigned k = 0; k < old->link_count; k++) {
            uint32_t to = successor(v, &g, &v->link[old->first_link + k], delta);
            if (to)
                bt_cache_link(v, first + k, to);
        }
        if (old->tabled && i > 0)
            bt_jtab_set(v, space, g.row[i].to);
    }
    return verified(v, &g) ? g.row[0].to : BT_BAD_BLOCK;
}
