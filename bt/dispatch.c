/* Going on in another mode or at another address: what decides which block comes next, without bt_run where that can be
 * avoided. */
#include <x86intrin.h>
#include "impl.h"

static unsigned jtab_space(const struct bt_vcpu *v, uint32_t mode)
{
    return mode & RC_MODE_USER ? spt_user_space(v->spt) : SPT_KERNEL_SPACE;
}

struct bt_jtab *bt_dispatch_jtab(struct bt_vcpu *v, uint32_t mode)
{
    unsigned space = jtab_space(v, mode);
    struct bt_jtab *t = &v->jtabs[space];
    if (!t->entry && !(t->entry = bt_jtab_create()))
        return NULL;
    if (t->mode != mode) {
        bt_jtab_flush(v, space);
        t->mode = mode;
    }
    return t;
}

/* Time from now on belongs to bucket. The way from one block to the next counts as the first one's. */
void bt_dispatch_account(struct bt_vcpu *v, uint64_t *bucket)
{
    if (v->bucket == bucket)
        return;
    uint64_t now = __rdtsc();
    *v->bucket += now - v->tsc_last;
    v->tsc_last = now;
    v->bucket = bucket;
}

/*T:810 Whose time it was
 *
 * Reading the time-stamp counter at each crossing would be a tenth of a system call. So of the visits to a ring that begin
 * by bt_dispatch one of CROSSINGS (odd: both rings in turn) is timed, and the time of the others is divided in the same
 * proportion when somebody asks. What follows an interrupt is timed always: a program that computes crosses so rarely that
 * none of its crossings might be. All else is exact.
:*/
enum { CROSSINGS = 31 };

static void account_crossing(struct bt_vcpu *v, bool user)
{
    if (--v->crossings_left <= 0) {
        v->crossings_left = CROSSINGS;
        bt_dispatch_account(v, &v->sampled[user]);
    } else if (v->bucket == &v->sampled[!user])
        bt_dispatch_account(v, &v->unsampled);
    else
        v->bucket = &v->unsampled;
}

void bt_dispatch_divide(struct bt_vcpu *v)
{
    uint64_t user = v->sampled[1], both = v->sampled[0] + user;
    uint64_t users = both ? (uint64_t)((unsigned __int128)v->unsampled * user / both) : v->unsampled / 2;
    v->counts.ticks_user += user + users;
    v->counts.ticks_kernel += v->sampled[0] + (v->unsampled - users);
    v->sampled[0] = v->sampled[1] = v->unsampled = 0;
}

/* The mirrored calls of a program outlive a visit to the kernel; the kernel's own begin anew each time. Those of another
 * address space are worth nothing, nor are those of another mode: they lead back to code that was translated for it. */
static void switch_returns(struct bt_vcpu *v, uint32_t mode, unsigned space)
{
    const bool user = mode & RC_MODE_USER;
    if (v->entered_space != space) {
        v->hstack = v->hstack_top[user];
        v->hstack_user = v->hstack_top[1];
    } else if (v->entered_user == user) {
        if (v->entered_mode != mode)
            v->hstack = v->hstack_top[user];
    } else if (user) {
        v->hstack = v->side[1].mode == mode ? v->hstack_user : v->hstack_top[1];
    } else {
        v->hstack_user = v->hstack;
        v->hstack = v->hstack_top[0];
    }
}

void bt_dispatch_windows(struct bt_vcpu *v, uint32_t mode, const struct bt_jtab *t)
{
    unsigned space = spt_user_space(v->spt);
    bool user = mode & RC_MODE_USER;
    switch_returns(v, mode, space);
    uint64_t k = (uint64_t)spt_kernel_window(v->spt), u = (uint64_t)spt_user_window(v->spt);
    bool changed = v->entered_space != space || v->window_k != k || v->window_u != u;
    if (changed) {
        bt_fs_to_host(v); /* not the old window */
        for (unsigned i = 0; i < 256; i++)
            v->window[i] = v->user_view[i] ? u : k;
        v->window_k = k;
        v->window_u = u;
        v->fs_shared = u == k;
    }
    v->entered_user = user;
    v->entered_mode = mode;
    v->entered_space = space;
    v->shown = (uint64_t)&v->shown_of[space];
    v->jtab = (uint64_t)t->entry;
    if (changed) { /* a table is for one mode, which its side most likely has still */
        const struct bt_jtab *o = &v->jtabs[user ? SPT_KERNEL_SPACE : space];
        v->side[!user] = (struct bt_side){.mode = o->entry ? o->mode : RC_MODE_INTERP, .jtab = o->entry};
    }
    v->side[user] = (struct bt_side){.mode = mode, .jtab = t->entry};
}

static bool must_look_ahead(const struct bt_vcpu *v)
{
    const struct rc_cpu *cpu = &v->cpu;
    return v->unchained || v->trace || v->leave_pending || v->flush_wanted || v->drop_block || cpu->request ||
           cpu->irq_shadow || cpu->halted || cpu->shutdown;
}

static bool must_look(struct bt_vcpu *v)
{
    return must_look_ahead(v) || (v->cpu.iflag && v->cfg.ops.intr(v->cfg.ops.ctx));
}

static uint64_t go(struct bt_vcpu *v, uint32_t entry)
{
    v->cpu.eflags &= ~(uint32_t)RC_RF; /* as in run_block */
    bt_flags_to_host(v);
    v->counts.dispatched++;
    return (uint64_t)(v->arena.rx + entry);
}

/*T:312 From ring to ring without leaving
 *
 * A system call is two changes of the mode: INT, IRET. Going back to bt_run for each would be right and slow: it delivers
 * interrupts, counts, looks the block up by physical address. When none of that is needed (nothing is pending, the new
 * mode's jump table knows the address) the callout itself puts the new window, jump table and return stack in place and
 * names the block to go on with. The table may hold another block there whose address has the same index; each
 * block's entry checks that, and misses.
:*/
uint64_t bt_dispatch(struct bt_vcpu *v)
{
    struct rc_cpu *cpu = &v->cpu;
    uint32_t mode;
    if (must_look(v) || (mode = bt_mode(v)) & RC_MODE_INTERP)
        return 0;
    const struct bt_jtab *t = bt_dispatch_jtab(v, mode);
    uint32_t entry = t ? t->entry[bt_jtab_index(v, cpu->eip)] : 0;
    if (!entry)
        return 0;
    if (v->entered_user != (mode & RC_MODE_USER))
        account_crossing(v, mode & RC_MODE_USER);
    v->hstack = v->guest_rsp + 8; /* without the return into the block that called */
    bt_dispatch_windows(v, mode, t);
    return go(v, entry);
}

/* The other side was left by the way it is entered again, with nothing in between that could move windows. */
static inline bool is_other_side(const struct bt_vcpu *v, uint32_t mode)
{
    return v->side[mode & RC_MODE_USER].mode == mode && spt_user_space(v->spt) == v->entered_space;
}

static inline uint64_t go_across(struct bt_vcpu *v, uint32_t mode)
{
    const uint32_t user = mode & RC_MODE_USER;
    const struct bt_side *to = &v->side[user];
    uint32_t entry = to->jtab[bt_jtab_index(v, v->cpu.eip)];
    if (!entry)
        return 0;
    v->hstack = v->guest_rsp + 8;
    if (user != v->entered_user) {
        account_crossing(v, user);
        switch_returns(v, mode, v->entered_space);
        v->entered_user = user;
        v->jtab = (uint64_t)to->jtab;
    }
    v->entered_mode = mode;
    return go(v, entry);
}

uint64_t bt_dispatch_cross(struct bt_vcpu *v)
{
    const uint32_t mode = bt_mode(v);
    if (!is_other_side(v, mode))
        return bt_dispatch(v);
    return must_look(v) ? 0 : go_across(v, mode);
}

uint64_t bt_dispatch_quick(struct bt_vcpu *v)
{
    const uint32_t mode = bt_mode(v);
    if (!is_other_side(v, mode) || must_look_ahead(v) || (v->cpu.iflag && v->irq_waiting))
        return BT_GO_DISPATCH;
    uint64_t to = go_across(v, mode);
    return to ? to : BT_GO_DISPATCH;
}

/* Code in user pages that runs with supervisor rights is found each time. */
bool bt_dispatch_set(struct bt_vcpu *v, uint32_t mode, unsigned space, uint32_t b)
{
    if (!(mode & RC_MODE_USER) && space != SPT_KERNEL_SPACE)
        return false;
    bt_jtab_set(v, jtab_space(v, mode), b);
    return true;
}

/* The jump table had nothing, or another block, for cpu.eip. A big program has more code than the table has rows; its
 * blocks are still there. Returns where to go on, or BT_GO_OUT: bt_run must look. */
uint64_t bt_dispatch_miss(struct bt_vcpu *v)
{
    uint32_t mode = v->entered_mode, eip = v->cpu.eip;
    uint64_t gpa;
    unsigned space;
    struct spt_info info;
    if (must_look(v))
        return BT_GO_OUT;
    uint32_t entry = bt_jtab_spilled(v, jtab_space(v, mode), eip);
    if (entry) {
        v->counts.spilled++;
        return (uint64_t)(v->arena.rx + entry);
    }
    if (!spt_fetch(v->spt, eip, SPT_EXEC | (mode & RC_MODE_USER ? SPT_USER : 0), &gpa, &space, &info))
        return BT_GO_OUT;
    uint32_t b = bt_cache_find_unsettled(v, gpa, eip, mode);
    if (v->cfg.verify && bt_group_behind(v, b))
        return BT_GO_OUT; /* refusing is bt_run's */
    if (!b || v->block[b].gpa2 || v->leave_pending || bt_direct_owns(v, space, gpa) ||
        !bt_settle(v, b, space) || !bt_dispatch_set(v, mode, space, b))
        return BT_GO_OUT;
    v->counts.found++;
    return (uint64_t)(v->arena.rx + v->block[b].main);
}
