/* Into a world, out of it, and what the exit means for the guest. */
#include <stdio.h>
#include "direct.h"

/* x86 exceptions that a world reports and that need more than the interpreter's second look. */
enum { VECTOR_DB = 1, VECTOR_BP = 3, VECTOR_OF = 4, VECTOR_PF = 14 };
enum { PF_WRITE = 2, PF_FETCH = 16 };
/* The same page faults again and again at one instruction: the world cannot have it (too low an address). */
enum { DIRECT_REPEATS = 3 };
enum { DIRECT_LINGER = 8 };
/* Pages, aligned so, that are looked through when one among them is first reached; of data at most so many, in so many calls. */
enum { DIRECT_AROUND = 16, DIRECT_AROUND_MAX = 1024, DIRECT_AROUND_CALLS = 32 };
/* A hidden fault so few entries after the last. */
enum { DIRECT_SOON = 4 };
/* So many worlds of one address space may die before it has to do without. */
enum { DIRECT_DEATHS = 3 };
/* What the translation of a page's code costs, if it comes to that, at the least. */
enum { DIRECT_LEARN_NS = 50000 };

/* Counters as they were before an entry. */
struct direct_before {
    uint64_t maps, hidden, needless, refused, approved;
};

enum direct_next { GO_BACK, TO_BT };

static int direct_install(void *ctx, unsigned index, const struct host_world_segment *seg)
{
    struct direct_world *w = ctx;

    return host_world_segment(w->host, index, seg);
}

/*T:260 What comes out of a world
 * A world runs until the CPU stops it: by a fault, a system call, or because it was kicked. What then has to happen is
 * known already, since translated code needs the same: a page fault is walked (true, hidden, a store to code or to a
 * page table), everything else is left to the interpreter. It executes the very instruction again, on the guest's
 * state, and finds out by itself whether it faults, with which error code, or whether it is INT 80H or an IN that the
 * guest's I/O bitmap allows. So there is one place where exceptions are made, and direct execution has none of its own
 * but those that arrive after the instruction: #DB, #BP and #OF.
 * :*/
static enum direct_next direct_interpret(struct direct *d)
{
    bt_direct_step(d->vm->vcpu);
    return TO_BT;
}

static enum direct_next direct_deliver(struct direct *d)
{
    rc_deliver_fault(bt_cpu(d->vm->vcpu));
    return TO_BT;
}

static enum direct_next direct_true_fault(struct direct *d, uint32_t gva, const struct spt_info *info)
{
    d->missing = (struct direct_missing){
        .space = spt_user_space(bt_spt(d->vm->vcpu)), .eip = bt_cpu(d->vm->vcpu)->eip, .gva = gva};
    rc_raise_pf(bt_cpu(d->vm->vcpu), info);
    return direct_deliver(d);
}

static bool direct_stuck(struct direct *d, uint32_t gva)
{
    uint32_t eip = bt_cpu(d->vm->vcpu)->eip;

    if (d->fault_eip != eip || d->fault_gva != gva)
        d->fault_repeats = 0;
    d->fault_eip = eip;
    d->fault_gva = gva;
    return ++d->fault_repeats > DIRECT_REPEATS;
}

/* Who has just reached a page soon reaches those around it, and each would be an exit of its own, which costs as much as
 * several mappings. Only with A set: the guest wants to know which pages are used. Which pages of code may run is found out
 * first, so that those whose frames lie side by side are one mapping. A bit per page. */
static uint32_t direct_ahead(struct direct *d, uint32_t first)
{
    uint32_t may = 0;

    for (unsigned n = 0; n < DIRECT_AROUND; n++)
        may |= (uint32_t)bt_direct_ahead(d->vm->vcpu, first + n * HOST_PAGE) << n;
    return may;
}

static void direct_around_code(struct direct *d, uint32_t first, uint32_t pages)
{
    struct spt *spt = bt_spt(d->vm->vcpu);
    struct spt_info info;

    for (; pages; pages >>= 1, first += HOST_PAGE)
        if ((pages & 1) && !spt_user_grants(spt, first, false))
            spt_fault(spt, true, first, SPT_USER, &info);
}

/* How many pages the one at gva shall bring along: twice as many each time, while it hardly gets any further without. */
static uint32_t direct_around_pages(struct direct *d)
{
    struct direct_space *s = &d->space[spt_user_space(bt_spt(d->vm->vcpu))];
    uint64_t entries = d->vm->counts.world_entries;
    bool soon = s->around && entries - s->around_at <= DIRECT_SOON;

    s->around = soon ? s->around * 2 : s->around / 2;
    s->around = s->around < DIRECT_AROUND       ? DIRECT_AROUND
                : s->around > DIRECT_AROUND_MAX ? DIRECT_AROUND_MAX
                                                : s->around;
    s->around_at = entries;
    return s->around;
}

/* Frames that lie side by side are one mapping; where they do not, it ends before an interrupt has waited long. */
static void direct_around_data(struct direct *d, uint32_t gva)
{
    struct vm *vm = d->vm;
    struct spt *spt = bt_spt(vm->vcpu);
    uint32_t bytes = direct_around_pages(d) * HOST_PAGE, first = gva & ~(bytes - 1);
    uint64_t calls = vm->host.mmap + vm->host.mprotect;
    struct spt_walk w;
    struct spt_info info;

    for (uint32_t n = HOST_PAGE; n < bytes; n += HOST_PAGE) {
        uint32_t at = first + ((gva - first + n) & (bytes - 1) & ~(HOST_PAGE - 1));

        if (spt_user_grants(spt, at, false) || !spt_walk(&vm->ram, spt_paging(spt), at, SPT_USER, &w) ||
            !w.accessed)
            continue;
        spt_fault(spt, true, at, SPT_USER, &info);
        if (bt_cpu(vm->vcpu)->request || vm->host.mmap + vm->host.mprotect - calls >= DIRECT_AROUND_CALLS)
            break;
    }
}

static enum direct_next direct_fetch(struct direct *d, uint32_t gva)
{
    struct vm *vm = d->vm;
    struct spt *spt = bt_spt(vm->vcpu);
    uint32_t first = gva & ~(DIRECT_AROUND * HOST_PAGE - 1), ahead;
    struct spt_info info;

    switch (bt_direct_page(vm->vcpu, gva, &info)) {
    case BT_DIRECT_FAULT:
        return direct_true_fault(d, gva, &info);
    case BT_DIRECT_NO:
        vm->counts.world_refused++;
        bt_direct_linger(vm->vcpu, DIRECT_LINGER);
        /* an instruction that began in the page before: bt_run would come straight back */
        return (bt_cpu(vm->vcpu)->eip ^ gva) >> 12 ? direct_interpret(d) : TO_BT;
    case BT_DIRECT_YES:
        break;
    }
    vm->counts.world_hidden++;
    if (direct_stuck(d, gva))
        return direct_interpret(d);
    ahead = direct_ahead(d, first);
    if (!spt_user_grants(spt, gva, false) && spt_fault(spt, true, gva, SPT_USER, &info) != SPT_RETRY)
        return direct_interpret(d);
    direct_around_code(d, first, ahead);
    return GO_BACK;
}

static enum direct_next direct_page_fault(struct direct *d, uint32_t gva, unsigned error)
{
    struct vm *vm = d->vm;
    struct spt_info info;

    if (error & PF_FETCH)
        return direct_fetch(d, gva);
    switch (spt_fault(bt_spt(vm->vcpu), true, gva, SPT_USER | (error & PF_WRITE ? SPT_WRITE : 0), &info)) {
    case SPT_RETRY:
        vm->counts.world_hidden++;
        direct_around_data(d, gva);
        return direct_stuck(d, gva) ? direct_interpret(d) : GO_BACK;
    case SPT_TRUE_FAULT:
        vm->counts.world_faults++;
        return direct_true_fault(d, gva, &info);
    case SPT_CODE_WRITE:
        vm->counts.world_code_writes++;
        return bt_direct_written(vm->vcpu, info.gpa) ? GO_BACK : direct_interpret(d);
    case SPT_DEVICE:
    case SPT_PT_WRITE:
    case SPT_OTHER_VIEW:
    case SPT_EMULATE:
        break;
    }
    vm->counts.world_traps++;
    return direct_interpret(d);
}

/* INT3 and INTO arrive with EIP behind them, in their short form or as INT 3, INT 4. The interpreter does them again. */
static enum direct_next direct_after_int(struct direct *d, uint8_t short_form)
{
    struct rc_cpu *cpu = bt_cpu(d->vm->vcpu);
    uint8_t byte = 0;
    struct spt_info info;
    bool is_short = spt_read(cpu->spt, cpu->seg[RC_CS].base + cpu->eip - 1, &byte, 1, SPT_USER, &info) &&
                    byte == short_form;

    cpu->eip -= is_short ? 1 : 2;
    return direct_interpret(d);
}

static enum direct_next direct_single_step(struct direct *d)
{
    enum { DR6_BS = 1 << 14 };

    bt_cpu(d->vm->vcpu)->fault = (struct rc_fault){.vector = RC_DB, .dr6 = DR6_BS};
    return direct_deliver(d);
}

static enum direct_next direct_trap(struct direct *d, const struct host_world_exit *ex)
{
    if (ex->vector != VECTOR_PF)
        d->vm->counts.world_traps++;
    switch (ex->vector) {
    case VECTOR_PF:
        return direct_page_fault(d, ex->addr, ex->error);
    case VECTOR_DB:
        return direct_single_step(d);
    case VECTOR_BP:
        return direct_after_int(d, 0xcc);
    case VECTOR_OF:
        return direct_after_int(d, 0xce);
    default:
        return direct_interpret(d);
    }
}

/* The program was up to something: it gets what a far transfer to a segment that is not its own gets. */
static enum direct_next direct_wild(struct direct *d)
{
    d->vm->counts.world_wild++;
    rc_raise_error(bt_cpu(d->vm->vcpu), RC_GP, 0);
    return direct_deliver(d);
}

/* Its memory is the guest's own and still there. If it died before it ran, its registers are too: another world takes
 * over, or none when they keep dying (the host has no mapping left, say). If it died while it ran, they are lost: the
 * program gets what a jump into nothing gets. */
static enum direct_next direct_dead(struct direct *d, struct direct_world *w,
                                    const struct host_world_exit *ex)
{
    struct vm *vm = d->vm;
    struct direct_space *s = &d->space[w->space];

    if (ex->ran)
        fprintf(stderr,
                "ringlet: a world died (%s); the guest's program at %08x gets a general protection fault\n",
                ex->text, bt_cpu(vm->vcpu)->eip);
    direct_say(d, "the world of space %u died: %s", w->space, ex->text);
    if (ex->ran || ++s->deaths >= DIRECT_DEATHS)
        direct_bar(d, w->space, "its world died");
    direct_world_lost(d, w);
    if (!ex->ran)
        return TO_BT;
    rc_raise_error(bt_cpu(vm->vcpu), RC_GP, 0);
    return direct_deliver(d);
}

static enum direct_next direct_exit(struct direct *d, struct direct_world *w,
                                    const struct host_world_exit *ex)
{
    struct rc_cpu *cpu = bt_cpu(d->vm->vcpu);
    enum rc_world_left left;

    if (ex->why == HOST_WORLD_DEAD)
        return direct_dead(d, w, ex);
    left = rc_world_leave(cpu, &w->segments, &d->state);
    if (left == RC_WORLD_FAULT) {
        d->vm->counts.world_wild++;
        return direct_deliver(d);
    }
    switch (ex->why) {
    case HOST_WORLD_TRAP:
        return left == RC_WORLD_RELOADED ? GO_BACK : direct_trap(d, ex);
    case HOST_WORLD_SYSCALL:
        d->vm->counts.world_calls++;
        cpu->eip -= 2;
        return direct_interpret(d);
    case HOST_WORLD_KICK:
        d->vm->counts.world_kicks++;
        cpu->request = 1;
        return TO_BT;
    case HOST_WORLD_WILD:
    case HOST_WORLD_DEAD:
        break;
    }
    return direct_wild(d);
}

/* False: a kick has come already; bt_run is to look at it first. */
static bool direct_enter(struct direct *d, struct direct_world *w, struct host_world_exit *ex)
{
    bool go;

    d->running = w->host;
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    go = !bt_cpu(d->vm->vcpu)->request;
    if (go)
        host_world_run(w->host, &d->state, ex);
    d->running = NULL;
    return go;
}

/* What of the time from one entry to the next is not the program's: the way there and back, mappings. A hidden fault is
 * an investment, which a later try finds made: it counts for less. */
static uint64_t direct_overhead(struct direct *d, struct direct_space *s, const struct host_world_exit *ex,
                                const struct direct_before *b)
{
    struct vm *vm = d->vm;
    uint64_t maps = vm->host.world_maps - b->maps, crossing = DIRECT_CROSSING_NS;

    if (maps > s->maps)
        s->maps = (uint32_t)maps; /* the first entry: all that was there */
    if (ex->why == HOST_WORLD_KICK)
        crossing = 0;
    else if (vm->counts.world_hidden != b->hidden)
        crossing /= 2;
    return crossing + maps * DIRECT_MAP_NS;
}

/* Code that is new to it need not be translated now. */
static uint64_t direct_gain(const struct vm *vm, const struct direct_before *b)
{
    return (bt_direct_stats(vm->vcpu)->approved - b->approved) * DIRECT_LEARN_NS;
}

static uint64_t direct_ran(struct direct_world *w, uint64_t inside_ns)
{
    if (!direct_ledger_looks(&w->watch, inside_ns))
        return inside_ns;
    return direct_ledger_ran(&w->watch, inside_ns, host_world_cpu_ns(w->host));
}

static uint64_t direct_needless(const struct vm *vm)
{
    return vm->counts.world_calls + vm->counts.world_faults + vm->counts.world_refused;
}

static enum direct_next direct_once(struct direct *d, struct direct_world *w)
{
    struct vm *vm = d->vm;
    struct direct_before b = {vm->host.world_maps, vm->counts.world_hidden, direct_needless(vm),
                              vm->counts.world_refused, bt_direct_stats(vm->vcpu)->approved};
    uint64_t before;
    unsigned space = w->space;
    struct host_world_exit ex;
    enum direct_next next;

    if (!rc_world_enter(bt_cpu(vm->vcpu), &w->segments, &d->state, direct_install, w)) {
        direct_bar(d, space, "the host refuses one of its segments");
        return TO_BT;
    }
    before = vm_host_ns();
    if (!direct_enter(d, w, &ex))
        return TO_BT;
    before = vm_host_ns() - before;
    vm->counts.world_entries++;
    vm->counts.ns_direct += before;
    next = direct_exit(d, w, &ex);
    if (ex.why != HOST_WORLD_DEAD)
        direct_judge(d, space,
                     &(struct direct_bill){.inside_ns = direct_ran(w, before),
                                           .overhead_ns = direct_overhead(d, &d->space[space], &ex, &b),
                                           .gained_ns = direct_gain(vm, &b),
                                           .refused = vm->counts.world_refused != b.refused,
                                           .needless = direct_needless(vm) != b.needless});
    return next;
}

/* The guest has dealt with a page fault and the program goes on where it stopped: with the page in place it does not come
 * out a second time. It is there already if the guest's kernel mended the very entry. What is asked for is a load. A store's
 * page is there for stores as well when the guest's kernel has set its D bit; if not, the CPU will, at the store. */
static void direct_fill_missing(struct direct *d, unsigned space)
{
    struct spt_info info;
    const struct direct_missing m = d->missing;

    d->missing.space = 0;
    if (m.space == space && m.eip == bt_cpu(d->vm->vcpu)->eip &&
        !spt_user_grants(bt_spt(d->vm->vcpu), m.gva, false))
        spt_fault(bt_spt(d->vm->vcpu), true, m.gva, SPT_USER, &info);
}

void direct_run(struct vm *vm)
{
    struct direct *d = vm->direct;
    unsigned space = spt_user_space(bt_spt(vm->vcpu));
    struct direct_world *w = direct_world_get(d, space);

    if (!w) {
        direct_bar(d, space, "no world can be had");
        return;
    }
    if (d->space[space].paused)
        direct_resumed(d, space);
    d->fault_repeats = 0;
    direct_fill_missing(d, space);
    while (d->space[space].world == w && !w->rests && rc_direct_possible(bt_cpu(vm->vcpu)) &&
           direct_once(d, w) == GO_BACK)
        ;
}
