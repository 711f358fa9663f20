/* Telling somebody else what a user window shows: whoever keeps a second copy of it, as direct execution does. */
#include "state.h"

#include <sys/mman.h>

/*T:460 A window with a follower
 * User code that runs directly does so in another process, which needs the guest's user pages at their true
 * addresses, with exactly the rights the window grants: the same pages are read-only because they are page
 * tables, hold translated code, or have a clear D bit. Deriving that twice would mean being wrong twice. So the
 * window stays the one shadow, and each change of it is told on, at the very place where the host is told.
 *
 * The right to execute is the one thing a window does not know, since nothing is ever executed in it. What is known
 * instead is which pages instructions were fetched from (spt_fetch has checked NX); that is passed on as PROT_EXEC.
 :*/
static bool shown(uint32_t v)
{
    return v & E_MAP;
}

static bool continues(uint32_t a, uint32_t b, unsigned distance)
{
    uint32_t same = E_MAP | E_W | E_FETCH;
    return (a & same) == (b & same) && E_GFN(b) == E_GFN(a) + distance;
}

static void tell(struct spt *s, const struct leaf *l, unsigned from, unsigned to)
{
    uint32_t v = l->e[from].v;
    int prot = PROT_READ | (v & E_W ? PROT_WRITE : 0) | (v & E_FETCH ? PROT_EXEC : 0);
    s->cfg.ops.user_map(s->cfg.ops.ctx, l->space, ((uint32_t)l->slot << LEAF_SHIFT) + (from << PAGE_SHIFT),
                        (uint64_t)E_GFN(v) << PAGE_SHIFT, (uint64_t)(to - from) << PAGE_SHIFT, prot);
}

void follow_shown(struct spt *s, const struct leaf *l, unsigned from, unsigned to)
{
    if (!s->space[l->space]->followed)
        return;
    for (unsigned at = from, end; at < to; at = end) {
        for (end = at + 1; end < to && continues(l->e[at].v, l->e[end].v, end - at);)
            ++end;
        if (shown(l->e[at].v))
            tell(s, l, at, end);
    }
}

void follow_less(struct spt *s, const struct space *sp, uint32_t gva, unsigned pages)
{
    if (sp != s->kernel && s->cfg.ops.user_less)
        s->cfg.ops.user_less(s->cfg.ops.ctx, sp->number, gva, pages);
}

void follow_gone(struct spt *s, const struct space *sp, uint32_t gva, unsigned pages)
{
    follow_less(s, sp, gva, pages);
    if (sp->followed)
        s->cfg.ops.user_unmap(s->cfg.ops.ctx, sp->number, gva, (uint64_t)pages << PAGE_SHIFT);
}

void follow_reset(struct spt *s, struct space *sp)
{
    sp->serial = ++s->serials;
    follow_less(s, sp, 0, 1u << 20);
    if (sp->followed)
        s->cfg.ops.user_reset(s->cfg.ops.ctx, sp->number, false);
}

void follow_end(struct spt *s, struct space *sp)
{
    sp->serial = ++s->serials;
    if (!sp->followed)
        return;
    sp->followed = false;
    s->cfg.ops.user_reset(s->cfg.ops.ctx, sp->number, true);
}

void spt_follow(struct spt *s, unsigned space, bool on)
{
    struct space *sp = space < SPT_MAX_SPACES ? s->space[space] : NULL;
    if (!sp || sp == s->kernel)
        return;
    sp->followed = on;
    struct leaf *l;
    if (on)
        LIST_FOREACH(l, &sp->leaves, in_space)
    follow_shown(s, l, 0, LEAF_PAGES);
}

void spt_follow_page(struct spt *s, uint64_t gpa)
{
    if (!spt_is_ram(s, gpa))
        return;
    for (uint32_t id = s->phys[gpa >> PAGE_SHIFT].rmap; id;) {
        const struct leaf *l = &s->leaf[id / LEAF_PAGES];
        unsigned at = id % LEAF_PAGES;
        follow_shown(s, l, at, at + 1);
        id = l->e[at].next;
    }
}

uint64_t spt_user_serial(const struct spt *s)
{
    return s->cur ? s->cur->serial : 0;
}

static bool space_grants(const struct spt *s, const struct space *sp, uint32_t gva, bool write)
{
    uint32_t leaf = sp ? sp->leaf[gva >> LEAF_SHIFT] : 0;
    if (!leaf)
        return false;
    uint32_t v = s->leaf[leaf].e[gva >> PAGE_SHIFT & (LEAF_PAGES - 1)].v;
    return shown(v) && (!write || (v & E_W));
}

bool spt_user_grants(const struct spt *s, uint32_t gva, bool write)
{
    return space_grants(s, s->cur, gva, write);
}

bool spt_grants(const struct spt *s, uint32_t gva, bool write)
{
    return space_grants(s, s->kernel, gva, write) || spt_user_grants(s, gva, write);
}
