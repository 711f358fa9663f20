/* Which address spaces run directly. */
#include <time.h>
#include "direct.h"

/*T:270 When a trap is worth it
 * Going into a world and out again costs some ten microseconds, a system call of translated code a third of one; filling
 * a world with what a program has mapped costs milliseconds. A world pays when user code runs for long without leaving:
 * then it runs at full speed, where translated code may take one and a half times as long, or only as long. Nobody knows
 * beforehand what a program will do, nor what translation costs it. So each starts translated. When a device's
 * interrupt finds a program in user mode, which happens hundreds of times a second, the returns from the kernel since
 * the last such time are counted: few of them mean that it computes.
 *
 * From then on there is a ledger. Crossings, mappings and scans are written down as they come; a fixed share of the
 * time spent inside counts as gained. Should the losses exceed a twentieth of the time that the program has run at all,
 * it is translated again, and directly once more only when that share has grown enough to pay for another try. So
 * whatever a program does, trying costs it no more than that.
 * :*/
static const uint64_t promote_stretch_ns = 100000; /* mean time between two returns to user mode */
enum {
    PROMOTE_SAMPLES = 2,      /* in a row */
    SAMPLE_MIN_NS = 500000,   /* closer samples are one */
    SAMPLE_MAX_NS = 10000000, /* a sample stands for no more than this */
    GAIN = 2,                 /* one part in so many of the time inside is gained */
    LOSS = 20,                /* one part in so many of all time may be lost */
    LOSS_MIN_NS = 500000,     /* and this much whatever the time: a burst of exits means nothing */
    CREDIT_MAX_NS = 5000000,  /* nobody lives for ever on what was gained long ago */
    TRY_NS = 300000,          /* what a try costs beside the mappings */
    MAPS_GUESS = 200,
    MAP_NS = 3000, /* a mapping call, and the page's first touch in there */
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
        *s = (struct direct_space){.world = w, .serial = serial, .maps = MAPS_GUESS};
    }
    return s;
}

static int64_t direct_budget(const struct direct_space *s)
{
    return (int64_t)(s->user_ns / LOSS) + LOSS_MIN_NS;
}

static void direct_promote(struct direct *d, unsigned space, uint64_t stretch_ns)
{
    struct direct_space *s = &d->space[space];

    if (bt_direct_space(d->vm->vcpu, space, true, NULL) < 0)
        return;
    s->on = true;
    d->vm->counts.promotions++;
    direct_say(d, "space %u runs directly: %llu us between returns to user mode, ran %llu ms so far", space,
               (unsigned long long)(stretch_ns / 1000), (unsigned long long)(s->user_ns / 1000000));
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

void direct_judge(struct direct *d, unsigned space, uint64_t inside_ns, uint64_t overhead_ns)
{
    struct direct_space *s = &d->space[space];
    uint64_t useful = inside_ns > overhead_ns ? inside_ns - overhead_ns : 0;

    if (d->policy != VM_USER_AUTO || !s->on)
        return;
    s->user_ns += useful;
    s->debt_ns += (int64_t)overhead_ns - (int64_t)(useful / GAIN);
    if (s->debt_ns < -CREDIT_MAX_NS)
        s->debt_ns = -CREDIT_MAX_NS;
    if (s->debt_ns <= direct_budget(s))
        return;
    direct_say(d, "space %u is translated again: %lld us lost in %llu ms", space,
               (long long)(s->debt_ns / 1000), (unsigned long long)(s->user_ns / 1000000));
    d->vm->counts.demotions++;
    direct_demote(d, space);
}

/* The thread's own time: on a busy host a program that waits for the CPU does not compute meanwhile. */
static uint64_t direct_cpu_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void direct_sample(struct vm *vm)
{
    struct direct *d = vm->direct;
    const struct rc_cpu *cpu = bt_cpu(vm->vcpu);
    unsigned space = spt_user_space(bt_spt(vm->vcpu));
    uint64_t now, since, returns = cpu->irets + cpu->sysexits, stretch;
    struct direct_space *s;

    bt_direct_linger(vm->vcpu, 0); /* who is found running has done so for long enough */
    if (!d || d->policy != VM_USER_AUTO || space == SPT_KERNEL_SPACE)
        return;
    now = direct_cpu_ns();
    since = now - d->sampled_ns < SAMPLE_MAX_NS ? now - d->sampled_ns : SAMPLE_MAX_NS;
    d->sampled_ns = now;
    s = direct_space_now(d, space);
    if (cpu->cpl != 3 || s->on || s->barred)
        return;
    s->user_ns += since;
    if (now - s->seen_ns < SAMPLE_MIN_NS)
        return;
    stretch = (now - s->seen_ns) / (returns - s->seen_returns + 1);
    s->computing = s->seen_ns && stretch >= promote_stretch_ns ? s->computing + 1 : 0;
    s->seen_ns = now;
    s->seen_returns = returns;
    if (s->computing >= PROMOTE_SAMPLES &&
        s->debt_ns + TRY_NS + (int64_t)s->maps * MAP_NS <= direct_budget(s))
        direct_promote(d, space, stretch);
}
