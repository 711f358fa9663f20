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
        direct_world_put(d, s->world);
}

void direct_bar(struct direct *d, unsigned space, const char *why)
{
    direct_say(d, "space %u stays translated under --user %s: %s", space, direct_policy_name(d), why);
    direct_demote(d, space);
    d->space[space].barred = true;
    d->vm->counts.worlds_barred++;
}

void direct_judge(struct direct *d, unsigned space, uint64_t inside_ns, uint64_t overhead_ns, bool refused)
{
    struct direct_space *s = &d->space[space];

    if (d->policy != VM_USER_AUTO || !s->on || direct_ledger_exit(s, inside_ns, overhead_ns, refused))
        return;
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
    if (cpu->cpl == 3 && direct_ledger_seen(s, now, since, cpu->irets + cpu->sysexits, &stretch))
        direct_promote(d, space, stretch);
}
