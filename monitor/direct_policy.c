/* Which address spaces run directly: where direct_ledger.c gets its figures from, and what is done about its answers. */
#include "direct.h"

static const char *direct_policy_name(const struct direct *d)
{
    return d->policy == VM_USER_DIRECT ? "direct" : "auto";
}

/* What is known of the address space that has this number now. */
struct direct_space *direct_space_now(struct direct *d, unsigned space)
{
    struct direct_space *s = &d->space[space];
    uint64_t serial = spt_user_serial(bt_spt(d->vm->vcpu));

    if (s->serial == serial)
        return s;
    if (s->world && d->policy == VM_USER_AUTO)
        direct_world_put(d, s->world);
    if (s->on)
        bt_direct_space(d->vm->vcpu, space, false, NULL);
    direct_ledger_open(s, serial);
    return s;
}

/* A device's event would come within some milliseconds anyway: this long is too long for what is decided then. */
enum { LOOK_AGAIN_NS = 1000000 };

static void direct_look_again(struct direct *d, uint64_t wait_ns)
{
    host_timer_set(d->look, host_clock_ns(&d->vm->clock) + wait_ns);
}

static void direct_promote(struct direct *d, unsigned space, uint64_t stretch_ns)
{
    struct direct_space *s = &d->space[space];

    if (bt_direct_space(d->vm->vcpu, space, true, NULL) < 0)
        return;
    direct_ledger_entered(s);
    d->vm->counts.promotions++;
    direct_say(d, "space %u runs directly: %llu us between returns to user mode, ran %llu ms so far", space,
               (unsigned long long)(stretch_ns / 1000), (unsigned long long)(s->user_ns / 1000000));
}

static void direct_demote(struct direct *d, unsigned space)
{
    struct direct_space *s = &d->space[space];

    bt_direct_space(d->vm->vcpu, space, false, NULL);
    direct_ledger_left(s);
    if (s->world)
        direct_world_rest(s->world);
}

/*T:275 A storm of exits
 * A program that touches new memory page by page gets a page fault for each, and the guest's kernel has to see every one
 * of them. In a world that is a crossing each and a mapping, 20 us, where translated code needs two: it calls the monitor
 * instead of trapping, and looks the page up in a table instead of having it mapped. With system calls, and calls into a page
 * that stays translated, it is the same. So when exits that translated code would not have made come close together, the
 * program is translated until that is over, and its world waits. Over it is when an event finds the program running without
 * them, or when it comes to code that has never been translated: programs that are new to everything fault a lot, too, and
 * for them it is translation that costs most.
 * :*/
static void direct_pause(struct direct *d, unsigned space)
{
    const struct rc_cpu *cpu = bt_cpu(d->vm->vcpu);
    struct direct_space *s = &d->space[space];

    direct_ledger_paused(s, host_read_clock(CLOCK_THREAD_CPUTIME_ID), cpu->irets + cpu->sysexits);
    bt_direct_pause(d->vm->vcpu, space, s->blocks);
    if (s->world)
        direct_world_rest(s->world);
    d->vm->counts.pauses++;
    direct_say(d, "space %u is paused for %llu us", space, (unsigned long long)(s->wait_ns / 1000));
    direct_look_again(d, s->wait_ns);
}

void direct_resumed(struct direct *d, unsigned space)
{
    direct_ledger_resumed(&d->space[space]);
    direct_say(d, "space %u goes on: it came to new code", space);
}

static void direct_resume(struct direct *d, unsigned space)
{
    direct_ledger_resumed(&d->space[space]);
    bt_direct_space(d->vm->vcpu, space, true, NULL); /* cannot fail: it was on before */
    direct_say(d, "space %u goes on: the storm is over", space);
}

void direct_bar(struct direct *d, unsigned space, const char *why)
{
    direct_say(d, "space %u stays translated under --user %s: %s", space, direct_policy_name(d), why);
    direct_demote(d, space);
    if (d->space[space].world)
        direct_world_put(d, d->space[space].world);
    d->space[space].barred = true;
    d->vm->counts.worlds_barred++;
}

void direct_judge(struct direct *d, unsigned space, const struct direct_bill *bill)
{
    struct direct_space *s = &d->space[space];

    if (d->policy != VM_USER_AUTO || !s->on)
        return;
    if (direct_ledger_exit(s, bill)) {
        if (direct_ledger_storm(s, bill))
            direct_pause(d, space);
        return;
    }
    direct_say(d, "space %u is translated again: %lld us lost in %llu ms", space,
               (long long)(s->debt_ns / 1000), (unsigned long long)(s->user_ns / 1000000));
    d->vm->counts.demotions++;
    direct_demote(d, space);
}

void direct_sample(struct vm *vm)
{
    struct direct *d = vm->direct;
    const struct rc_cpu *cpu = bt_cpu(vm->vcpu);
    unsigned space = spt_user_space(bt_spt(vm->vcpu));
    uint64_t now, since, stretch;
    struct direct_space *s;

    bt_direct_linger(vm->vcpu, 0); /* who is found running has done so for long enough */
    if (!d || d->policy != VM_USER_AUTO || space == SPT_KERNEL_SPACE)
        return;
    now = host_read_clock(CLOCK_THREAD_CPUTIME_ID); /* who waits for a busy CPU does not compute meanwhile */
    since = now - d->sampled_ns;
    d->sampled_ns = now;
    s = direct_space_now(d, space);
    if (s->world && direct_world_spoiled(s->world))
        direct_world_put(d, s->world);
    else if (s->world && s->world->rests)
        s->maps = s->world->told;
    if (cpu->cpl == 3 && direct_ledger_seen(s, now, since, cpu->irets + cpu->sysexits, &stretch))
        s->paused ? direct_resume(d, space) : direct_promote(d, space, stretch);
    else if (s->paused || direct_ledger_undecided(s))
        direct_look_again(d, LOOK_AGAIN_NS);
}
