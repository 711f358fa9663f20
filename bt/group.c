/* Groups: the user blocks that one physical page has at one linear page address, and which address spaces run them. */
#include "impl.h"

enum { NEAR = 4, LOOK_FOR_DEAD = 8 };

/*T:348 Whose blocks are these?
 *
 * The blocks of a page can be given another address only if no address space can still come to them at the old one.
 * Chains do not leave a page of user code, so the ways in are the jump tables' rows and mirrored returns, and who has one of those
 * has looked a block up before. Each look-up leaves the address space's number and life in the group. A space that begins another
 * life has lost all its pages, its table was emptied for that and its returns forgotten: once this is true of all that are
 * noted, the group is nobody's. The note has few lines; a group that more spaces run at once, as those of a program that
 * forks, keeps its address.
:*/
static uint32_t *frame_head(const struct bt_vcpu *v, uint64_t gpa)
{
    uint64_t gfn = gpa / HOST_PAGE;
    return gfn < v->page_count ? &v->frame_groups[gfn] : NULL;
}

/* 256 processes may have one page at as many addresses: who is found late is found early next time. */
uint32_t bt_group_find(struct bt_vcpu *v, uint64_t gpa, uint32_t eip)
{
    uint32_t *head = frame_head(v, gpa), page = eip / HOST_PAGE;
    unsigned passed = 0;
    if (!head)
        return 0;
    for (uint32_t *at = head; *at; at = &v->group[*at].next, passed++) {
        struct bt_group *g = &v->group[*at];
        if (g->page != page)
            continue;
        uint32_t n = *at;
        if (passed >= NEAR) {
            *at = g->next;
            g->next = *head;
            *head = n;
        }
        return n;
    }
    return 0;
}

/* Has this physical page blocks at other linear addresses than that of eip? */
bool bt_group_elsewhere(const struct bt_vcpu *v, uint64_t gpa, uint32_t eip)
{
    const uint32_t *head = frame_head(v, gpa);
    const struct bt_group *g = head && *head ? &v->group[*head] : NULL;
    return g && (g->page != eip / HOST_PAGE || g->next);
}

static uint32_t create(struct bt_vcpu *v, uint64_t gpa, uint32_t eip)
{
    uint32_t n = v->group_free, *head = frame_head(v, gpa);
    if (n)
        v->group_free = v->group[n].next;
    else
        n = v->group_count++; /* never more than there are blocks */
    v->group[n] =
        (struct bt_group){.page = eip / HOST_PAGE, .frame = (uint32_t)(gpa / HOST_PAGE), .next = *head};
    *head = n;
    return n;
}

/* Kernel code has one address. A block whose last instruction lies in two pages would move with one of them only. */
void bt_group_add(struct bt_vcpu *v, uint32_t b)
{
    struct bt_block *blk = &v->block[b];
    blk->group = 0;
    if (!(blk->mode & RC_MODE_USER) || blk->gpa2)
        return;
    uint32_t n = bt_group_find(v, blk->gpa, blk->eip);
    if (!n)
        n = create(v, blk->gpa, blk->eip);
    blk->group = n;
    blk->epoch = v->group[n].epoch;
    v->group[n].live++;
}

void bt_group_remove(struct bt_vcpu *v, uint32_t b)
{
    uint32_t n = v->block[b].group;
    struct bt_group *g = &v->group[n];
    if (!n || --g->live)
        return;
    uint32_t *at = &v->frame_groups[g->frame];
    while (*at != n)
        at = &v->group[*at].next;
    *at = g->next;
    g->next = v->group_free;
    v->group_free = n;
}

bool bt_group_behind(const struct bt_vcpu *v, uint32_t b)
{
    uint32_t n = v->block[b].group;
    return n && v->block[b].epoch != v->group[n].epoch;
}

static bool alive(const struct bt_vcpu *v, const struct bt_owner *o)
{
    return o->space && spt_space_life(v->spt, o->space) == o->life;
}

void bt_group_used(struct bt_vcpu *v, uint32_t b, unsigned space)
{
    uint32_t n = v->block[b].group;
    struct bt_group *g = &v->group[n];
    if (!n || g->pinned)
        return;
    if (space == SPT_KERNEL_SPACE) { /* ring 3 without paging: that space does not end */
        g->pinned = true;
        return;
    }
    const struct bt_owner self = {spt_space_life(v->spt, space), space};
    struct bt_owner *o = g->owner, *end = o + BT_GROUP_OWNERS;
    while (o < end && (o->space != self.space || o->life != self.life))
        o++;
    if (o < end)
        return;
    for (o = g->owner; o < end && alive(v, o);)
        o++;
    if (o < end)
        *o = self;
    else
        g->pinned = true;
}

/* A chain from one group, or from a block that belongs to none, into another: a way in that nobody keeps account of. */
void bt_group_linked(struct bt_vcpu *v, uint32_t from, uint32_t to)
{
    uint32_t a = v->block[from].group, b = v->block[to].group;
    if (a == b)
        return;
    v->group[a].pinned = true; /* number 0 is nobody's */
    v->group[b].pinned = true;
}

static bool is_free(const struct bt_vcpu *v, const struct bt_group *g)
{
    bool used = g->pinned;
    for (unsigned i = 0; i < BT_GROUP_OWNERS && !used; i++)
        used = alive(v, &g->owner[i]);
    return !used;
}

/* Its blocks follow when they are wanted. A block that stays behind is told from one that has followed by the epoch: by the
 * address it could not be, once the group comes back to where it was. */
void bt_group_move(struct bt_vcpu *v, uint32_t n, uint32_t eip)
{
    struct bt_group *g = &v->group[n];
    g->page = eip / HOST_PAGE;
    g->pinned = ++g->epoch == UINT32_MAX;
}

/* A group of this physical page that is nobody's, or 0. */
uint32_t bt_group_dead(struct bt_vcpu *v, uint64_t gpa)
{
    const uint32_t *head = frame_head(v, gpa);
    uint32_t n = head ? *head : 0;
    for (unsigned i = 0; n && i < LOOK_FOR_DEAD; i++, n = v->group[n].next)
        if (is_free(v, &v->group[n]))
            return n;
    return 0;
}
