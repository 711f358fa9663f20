/* Which address spaces run directly. */
#include <string.h>
#include "direct.h"

/*T:270 When a trap is worth it
 * Going into a world and out again costs some ten microseconds, a system call of translated code a third of one. A
 * world pays when user code runs for long without leaving: then it runs at full speed, where translated code may take
 * one and a half times as long. Nobody knows beforehand what a program will do; but programs go on as they are. So
 * each starts translated. When a device's interrupt finds a program in user mode, which happens hundreds of times a
 * second, the returns from the kernel since the last such time are counted: few of them mean that it computes. In a
 * world the time between exits is known exactly: it is earned, each exit has its price, and a program that has spent
 * all is taken back, for longer each time.
 * :*/
static const uint64_t promote_stretch_ns = 100000; /* mean time between two returns to user mode */
static const int64_t exit_price_ns =
    40000; /* what an exit must have been preceded by, way there and back included */
enum {
    PROMOTE_SAMPLES = 2,    /* in a row */
    SAMPLE_MIN_NS = 500000, /* closer samples are one */
    WEIGHT_OF_EXIT = 4,
    BALANCE_FIRST_NS = 2000000, /* a newcomer's credit: its pages have to be found */
    BALANCE_MAX_NS = 6000000,   /* exits come in bursts; but nobody lives on what was long ago */
    BACKOFF_MIN_NS = 5000000,   /* doubled by each demotion */
    BACKOFF_STEPS = 8,
    FORGIVE_NS = 50000000, /* a stay of this length makes up for a demotion */
};

static const char *direct_policy_name(const struct direct *d)
{
    return d->policy == VM_USER_DIRECT ? "direct" : "auto";
}

/* What is known of the address space that has this number now. */
struct direct_space *direct_space_now(struct direct *d, unsigned space)
{
    struct direct_space *s = &d->space[space];
    uint64_t serial = spt_user_serial(bt_spt(d->vm->vcpu));

    if (s->serial != serial) {
        struct direct_world *w = s->world;

        if (w && d->policy == VM_USER_AUTO) {
            direct_world_put(d, w);
            w = NULL;
        }
        if (s->on)
            bt_direct_space(d->vm->vcpu, space, false, NULL);
        *s = (struct direct_space){.world = w, .serial = serial};
    }
    return s;
}

static void direct_promote(struct direct *d, unsigned space, uint64_t stretch_ns)
{
    struct direct_space *s = &d->space[space];

    if (bt_direct_space(d->vm->vcpu, space, true, NULL) < 0)
        return;
    s->on = true;
    s->balance_ns = BALANCE_FIRST_NS;
    s->stay_ns = 0;
    d->vm->counts.promotions++;
    direct_say(d, "space %u runs directly: %llu us between returns to user mode", space,
               (unsigned long long)(stretch_ns / 1000));
}

static void direct_demote(struct direct *d, unsigned space)
{
    struct direct_space *s = &d->space[space];

    bt_direct_space(d->vm->vcpu, space, false, NULL);
    s->on = false;
    s->computing = 0;
    s->seen_ns = 0;
    if (s->world)
        direct_world_put(d, s->world);
}

void direct_bar(struct direct *d, unsigned space, const char *why)
{
    direct_say(d, "space %u stays translated under --user %s: %s", space, direct_policy_name(d), why);
    direct_demote(d, space);
    d->space[space].barred = true;
    d->vm->counts.worlds_barred++;
}

void direct_judge(struct direct *d, unsigned space, uint64_t inside_ns, unsigned weight)
{
    struct direct_space *s = &d->space[space];

    if (d->policy != VM_USER_AUTO || !s->on)
        return;
    s->stay_ns += inside_ns;
    if (s->demotions && s->stay_ns > FORGIVE_NS) {
        s->demotions--;
        s->stay_ns = 0;
    }
    s->balance_ns += (int64_t)inside_ns - exit_price_ns * (int64_t)weight / WEIGHT_OF_EXIT;
    if (s->balance_ns > BALANCE_MAX_NS)
        s->balance_ns = BALANCE_MAX_NS;
    if (s->balance_ns >= 0)
        return;
    direct_say(d, "space %u is translated again: it comes out too often", space);
    d->vm->counts.demotions++;
    direct_demote(d, space);
    s->not_before_ns = vm_host_ns() + ((uint64_t)BACKOFF_MIN_NS << s->demotions);
    if (s->demotions < BACKOFF_STEPS)
        s->demotions++;
}

void direct_sample(struct vm *vm)
{
    struct direct *d = vm->direct;
    const struct rc_cpu *cpu = bt_cpu(vm->vcpu);
    unsigned space = spt_user_space(bt_spt(vm->vcpu));
    uint64_t now, returns = cpu->irets + cpu->sysexits, stretch;
    struct direct_space *s;

    bt_direct_linger(vm->vcpu, 0); /* who is found running has done so for long enough */
    if (!d || d->policy != VM_USER_AUTO || cpu->cpl != 3 || space == SPT_KERNEL_SPACE)
        return;
    s = direct_space_now(d, space);
    now = vm_host_ns();
    if (s->on || s->barred || now < s->not_before_ns || now - s->seen_ns < SAMPLE_MIN_NS)
        return;
    stretch = (now - s->seen_ns) / (returns - s->seen_returns + 1);
    s->computing = s->seen_ns && stretch >= promote_stretch_ns ? s->computing + 1 : 0;
    s->seen_ns = now;
    s->seen_returns = returns;
    if (s->computing >= PROMOTE_SAMPLES)
        direct_promote(d, space, stretch);
}
