/*
 * Runs a guest twice in one process, translated and interpreted, in steps of one translated block, and
 * compares the machines after each. Both have virtual clocks that move between steps only, by the
 * instructions retired, so timers expire and interrupts arrive at the same instruction in both.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "lock.h"

/*T:820 The oracle: lock step
 *
 * The interpreter is slow and simple, the translator fast and full of tricks; where they disagree one is
 * wrong. The translated machine leads: it runs one block, unchained, and says how many instructions that
 * retired. The interpreted machine then runs exactly as many. Three things need care. A fault retires
 * nothing: one at the start of a step is delivered by both within it, one at its end by the leader alone,
 * so the follower makes that one step up. A REP instruction counts as one however often it was interrupted.
 * And flags the manual calls undefined may differ; they are copied from the leader so that they do not
 * differ for ever.
:*/

static bool on_trap(void *ctx, struct host_trap *trap)
{
    struct lock *l = ctx;
    return bt_trap(l->running, trap);
}

static enum bt_exit run(struct lock *l, struct lock_side *s, uint64_t limit, uint64_t *retired)
{
    l->running = s->v;
    return bt_run(s->v, limit, retired);
}

static uint64_t faults(const struct rc_cpu *c)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < 32; i++)
        n += c->exceptions[i];
    return n;
}

static bool fail(struct lock *l, const char *why)
{
    lock_report(l, why);
    return false;
}

/* FOP, FIP and FDP: natively executed x87 instructions leave host addresses there, which are never shown to
 * the guest; interpreted ones leave the guest's. Neither may reach memory through FXSAVE here. */
static void forget_x87_pointers(struct lock_side *s)
{
    enum { FOP = 6, FPU_MXCSR = 24 };
    memset(s->cpu->fpu + FOP, 0, FPU_MXCSR - FOP);
}

/* ---- the two sides of a step ---- */

enum outcome { GO_ON, DIVERGED, HALTED, ENDED };

/* The leader: at least one instruction, or an exit that is not an event. */
static enum bt_exit lead(struct lock *l, uint64_t *n)
{
    struct lock_step *h = &l->history[l->steps % LOCK_HISTORY];
    uint64_t entries = l->t.v->counts.entries, before = *n;
    enum bt_exit exit;
    *h = (struct lock_step){.insns = l->insns + before, .eip = l->t.cpu->eip};
    do {
        exit = run(l, &l->t, 1, n);
        if (exit == BT_EXIT_EVENT)
            host_loop_run(vm_loop(l->t.vm));
    } while (exit == BT_EXIT_EVENT && *n == before);
    forget_x87_pointers(&l->t);
    h->count = *n - before;
    h->block = l->t.v->counts.entries != entries ? l->t.v->run_block : 0;
    l->steps++;
    return exit;
}

/* The follower: exactly n instructions, then the faults that the leader has already delivered. */
static bool follow(struct lock *l, uint64_t n)
{
    uint64_t done = 0;
    while (done < n) {
        enum bt_exit exit = run(l, &l->i, 1, &done);
        forget_x87_pointers(&l->i);
        if (exit == BT_EXIT_EVENT)
            host_loop_run(vm_loop(l->i.vm));
        else if (exit == BT_EXIT_UNSUPPORTED) {
            printf("interpreted machine: %s\n", bt_reason(l->i.v));
            return fail(l, "the interpreted machine stopped");
        } else if (exit != BT_EXIT_LIMIT) {
            printf("exit %d of the interpreted machine after %" PRIu64 " of %" PRIu64 " instructions\n",
                   (int)exit, done, n);
            return fail(l, "the interpreted machine left early");
        }
    }
    while (faults(l->i.cpu) < faults(l->t.cpu) && !l->i.cpu->shutdown) {
        l->running = l->i.v;
        if (bt_interp_step(l->i.v->interp) != BT_STEP_FAULT) {
            printf("fault of the translated machine: vector %u error %x\n", l->t.cpu->fault.vector,
                   l->t.cpu->fault.error);
            return fail(l, "the translated machine faulted where the interpreted one went on");
        }
    }
    return true;
}

static bool compare(struct lock *l)
{
    if (l->insns < l->start_at)
        return true;
    if (!lock_compare_cpu(l))
        return fail(l, "processor state");
    if (l->watch_set && !lock_compare_pages(l, l->watch, HOST_PAGE))
        return fail(l, "memory of the watched page");
    bool ok = lock_compare_pages(l, l->ram_at, HOST_PAGE);
    l->ram_at = l->ram_at + HOST_PAGE < l->t.ram->size ? l->ram_at + HOST_PAGE : 0;
    return ok || fail(l, "memory (found by the rolling comparison: written up to a sweep ago)");
}

/* ---- time ---- */

static void pass_time(struct lock *l, uint64_t n)
{
    struct lock_side *side[2] = {&l->t, &l->i};
    for (unsigned k = 0; k < 2; k++) {
        struct vm *vm = side[k]->vm;
        host_clock_advance(vm_clock(vm), n * l->ns_per_insn);
        if (l->steps % 256 == 0 || host_loop_next_deadline(vm_loop(vm)) <= host_clock_ns(vm_clock(vm)))
            host_loop_run(vm_loop(vm));
    }
}

static enum outcome halt(struct lock *l)
{
    if (!l->i.cpu->halted) {
        fail(l, "only the translated machine is halted");
        return DIVERGED;
    }
    if (!l->t.cpu->iflag) {
        printf("the guest halted with interrupts off\n");
        return ENDED;
    }
    if (host_loop_next_deadline(vm_loop(l->t.vm)) == UINT64_MAX) {
        printf("the guest halted with no timer set\n");
        return ENDED;
    }
    host_loop_wait(vm_loop(l->t.vm), UINT64_MAX);
    host_loop_wait(vm_loop(l->i.vm), UINT64_MAX);
    if (host_clock_ns(vm_clock(l->t.vm)) != host_clock_ns(vm_clock(l->i.vm))) {
        fail(l, "the clocks differ after a halt: device timers");
        return DIVERGED;
    }
    return GO_ON;
}

/* The leader has been made to leave between two iterations of a REP instruction (its site is retranslated).
 * The follower would have to stop there too; it is easier to let the leader finish. */
static bool inside_rep(struct lock *l)
{
    uint8_t code[BT_MAX_INSN];
    struct bt_insn insn;
    unsigned reason = l->t.v->leave_reason;
    if (reason != BT_LEAVE_EVENT && reason != BT_LEAVE_RESITE)
        return false;
    unsigned n = lock_peek(&l->t, l->t.cpu->seg[RC_CS].base + l->t.cpu->eip, code, sizeof code);
    return bt_decode(&l->t.v->decoder, true, code, n, &insn) == BT_DECODE_OK && (insn.rep || insn.repne) &&
           insn.opcode >= 0xa4 && insn.opcode <= 0xaf && insn.map == ZYDIS_OPCODE_MAP_DEFAULT;
}

static enum outcome step(struct lock *l)
{
    uint64_t n = 0;
    enum bt_exit exit = lead(l, &n);
    while (exit == BT_EXIT_LIMIT && inside_rep(l))
        exit = lead(l, &n);
    if (!follow(l, n))
        return DIVERGED;
    l->insns += n;
    if (!compare(l))
        return DIVERGED;
    switch (exit) {
    case BT_EXIT_LIMIT:
    case BT_EXIT_EVENT:
        pass_time(l, n);
        return GO_ON;
    case BT_EXIT_HALT:
        return halt(l);
    case BT_EXIT_STOPPED:
        printf("the guest ended the machine (power off, reset or debug exit)\n");
        return ENDED;
    case BT_EXIT_SHUTDOWN:
        printf("the guest triple-faulted\n");
        return ENDED;
    default:
        printf("translated machine: %s\n", bt_reason(l->t.v));
        fail(l, "the translated machine stopped");
        return DIVERGED;
    }
}

/* ---- the run ---- */

static void progress(const struct lock *l, const char *what)
{
    const struct bt_counts *c = bt_stats(l->t.v);
    printf("%s %" PRIu64 " instructions, %" PRIu64 " steps, eip %08x, guest time %.3f s; blocks %" PRIu64
           ", verified %" PRIu64 ", interrupts %" PRIu64 ", undefined flags %" PRIu64 ", A/D bits %" PRIu64
           "\n",
           what, l->insns, l->steps, l->t.cpu->eip, (double)host_clock_ns(vm_clock(l->t.vm)) / 1e9, c->blocks,
           c->verified, l->t.cpu->interrupts, l->flag_syncs, l->ad_only);
    fflush(stdout);
}

static int drive(struct lock *l, uint64_t limit)
{
    enum outcome o = GO_ON;
    time_t shown = time(NULL);
    while (o == GO_ON && l->insns < limit) {
        o = step(l);
        if (l->steps % 4096 == 0 && time(NULL) - shown >= 5) {
            shown = time(NULL);
            progress(l, "...");
        }
    }
    if (o != DIVERGED && !lock_compare_pages(l, 0, l->t.ram->size)) {
        fail(l, "memory at the end");
        o = DIVERGED;
    }
    if (l->tail && o != DIVERGED)
        lock_history(l);
    progress(l, o == DIVERGED ? "diverged:" : "no divergence:");
    return o == DIVERGED;
}

static int side_create(struct lock_side *s, const struct vm_config *base, enum bt_engine engine,
                       const char *console, struct host_err *err)
{
    struct vm_config cfg = *base;
    cfg.engine = engine;
    cfg.serial[0] = (struct dev_chr_config){.kind = DEV_CHR_FILE, .path = console};
    cfg.serial_count = 1;
    cfg.virtual_clock = true;
    cfg.cpu_mask = "-rdrand"; /* the one instruction whose result nobody can reproduce */
    if (vm_create(&s->vm, &cfg, err))
        return -1;
    s->v = vm_vcpu(s->vm);
    s->cpu = bt_cpu(s->v);
    s->ram = vm_ram(s->vm);
    return 0;
}

struct options {
    struct vm_config vm;
    const char *console;
    uint64_t insns;
};

static uint64_t number(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);
    unsigned shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (end == text || (*end && !shift)) {
        fprintf(stderr, "lockstep: %s is no number\n", text);
        exit(2);
    }
    return n << shift;
}

static int usage(void)
{
    fprintf(stderr,
            "lockstep: run a guest translated and interpreted, compare after every block\n"
            "  --kernel FILE --initrd FILE --append STR | --multiboot FILE (none: the embedded guest)\n"
            "  --insns N      stop after N instructions (50000000)   --memory 128M\n"
            "  --verify       run the SFI verifier on every block     --console FILE  COM1 of the translated "
            "machine\n"
            "  --start-at N   compare from instruction N on           --watch GPA     compare this page at "
            "every step\n"
            "  --ns N         guest nanoseconds per instruction (10)         --tail  show the last steps in "
            "any case\n"
            "exit status: 0 no divergence, 1 divergence, 2 could not run\n");
    return 2;
}

static bool parse(struct lock *l, struct options *o, int argc, char **argv)
{
    static const struct option name[] = {{"kernel", 1, NULL, 'k'},
                                         {"initrd", 1, NULL, 'i'},
                                         {"append", 1, NULL, 'a'},
                                         {"multiboot", 1, NULL, 'm'},
                                         {"insns", 1, NULL, 'n'},
                                         {"memory", 1, NULL, 'M'},
                                         {"verify", 0, NULL, 'v'},
                                         {"console", 1, NULL, 'c'},
                                         {"start-at", 1, NULL, 's'},
                                         {"watch", 1, NULL, 'w'},
                                         {"ns", 1, NULL, 't'},
                                         {"tail", 0, NULL, 'T'},
                                         {0}};
    for (int c; (c = getopt_long(argc, argv, "", name, NULL)) != -1;) {
        switch (c) {
        case 'k':
            o->vm.kernel = optarg;
            break;
        case 'i':
            o->vm.initrd = optarg;
            break;
        case 'a':
            o->vm.append = optarg;
            break;
        case 'm':
            o->vm.multiboot = optarg;
            break;
        case 'n':
            o->insns = number(optarg);
            break;
        case 'M':
            o->vm.memory = number(optarg);
            break;
        case 'v':
            o->vm.verify = true;
            break;
        case 'c':
            o->console = optarg;
            break;
        case 's':
            l->start_at = number(optarg);
            break;
        case 'w':
            l->watch = number(optarg) & ~(uint64_t)(HOST_PAGE - 1);
            l->watch_set = true;
            break;
        case 'T':
            l->tail = true;
            break;
        case 't':
            l->ns_per_insn = number(optarg);
            break;
        default:
            return false;
        }
    }
    return optind == argc;
}

int main(int argc, char **argv)
{
    struct lock l = {.ns_per_insn = 10};
    struct options o = {.vm = {.memory = UINT64_C(128) << 20}, .console = "/dev/null", .insns = 50000000};
    struct host_thread thread = {0};
    struct host_err err;
    int result = 2;
    if (!parse(&l, &o, argc, argv))
        return usage();
    if (side_create(&l.t, &o.vm, BT_TRANSLATE, o.console, &err) ||
        side_create(&l.i, &o.vm, BT_INTERPRET, "/dev/null", &err) ||
        host_thread_enter(&thread, on_trap, &l, &l.counts, &err)) {
        fprintf(stderr, "lockstep: %s\n", err.text);
        goto out;
    }
    result = drive(&l, o.insns);
    host_thread_leave(&thread);
out:
    vm_destroy(l.i.vm);
    vm_destroy(l.t.vm);
    return result;
}
