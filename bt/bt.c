/* One vCPU: creation, the run loop, and what shadowpt tells us. */
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>
#include "impl.h"

/* ---- upward calls from shadowpt ---- */

static void on_code_write(void *ctx, uint64_t gpa, unsigned len)
{
    struct bt_vcpu *v = ctx;
    bt_interp_code_write(v->interp, gpa, len);
    bt_cache_code_write(v, gpa, len);
}

static void on_fetch_gone(void *ctx, unsigned space, uint32_t gva, uint32_t pages)
{
    struct bt_vcpu *v = ctx;
    (void)gva;
    (void)pages;
    if (v->interp)
        bt_interp_fetch_gone(v->interp);
    bt_jtab_flush(v, space);
    if (space == SPT_KERNEL_SPACE)
        bt_cache_unlink_cross(v);
    v->leave_pending = true;
}

static void on_user_less(void *ctx, unsigned space, uint32_t gva, uint32_t pages)
{
    bt_probe_less(ctx, space, gva, pages);
}

static uint64_t on_mmio_read(void *ctx, uint64_t gpa, unsigned len)
{
    struct bt_vcpu *v = ctx;
    bt_fs_to_host(v);
    bt_vec_hold(v);
    uint64_t value = v->cfg.mem.mmio_read(v->cfg.mem.ctx, gpa, len);
    bt_vec_release(v);
    return value;
}

static void on_mmio_write(void *ctx, uint64_t gpa, unsigned len, uint64_t value)
{
    struct bt_vcpu *v = ctx;
    bt_fs_to_host(v);
    bt_vec_hold(v);
    v->cfg.mem.mmio_write(v->cfg.mem.ctx, gpa, len, value);
    bt_vec_release(v);
}

static uint32_t on_in(void *ctx, uint16_t port, unsigned size)
{
    struct bt_vcpu *v = ctx;
    bt_fs_to_host(v);
    bt_vec_hold(v);
    uint32_t value = v->cfg.ops.in(v->cfg.ops.ctx, port, size);
    bt_vec_release(v);
    return value;
}

static void on_out(void *ctx, uint16_t port, unsigned size, uint32_t value)
{
    struct bt_vcpu *v = ctx;
    bt_fs_to_host(v);
    bt_vec_hold(v);
    v->cfg.ops.out(v->cfg.ops.ctx, port, size, value);
    bt_vec_release(v);
}

static uint64_t on_tsc(void *ctx)
{
    struct bt_vcpu *v = ctx;
    v->tsc_read = 1;
    return host_clock_tsc(v->cfg.clock);
}

/* ---- life cycle ---- */

static int create_spt(struct bt_vcpu *v, struct host_err *err)
{
    unsigned max_maps = v->cfg.max_maps, host = host_max_map_count();
    if (!max_maps)
        max_maps = host > 8192 ? host - 4096 : host / 2;
    struct spt_config sc = {
        .ram = v->cfg.ram,
        .counts = v->cfg.counts,
        .ops = {.ctx = v,
                .mmio_read = on_mmio_read,
                .mmio_write = on_mmio_write,
                .code_write = on_code_write,
                .fetch_gone = on_fetch_gone,
                .user_less = on_user_less,
                .user_map = bt_direct_map,
                .user_unmap = bt_direct_unmap,
                .user_reset = bt_direct_dropped},
        .max_user_spaces = v->cfg.max_user_spaces ? v->cfg.max_user_spaces : BT_USER_SPACES,
        .max_maps = max_maps,
        .no_windows = v->cfg.engine == BT_INTERPRET,
        .tlb = &v->tlb,
    };
    return spt_create(&v->spt, &sc, err);
}

int bt_create(struct bt_vcpu **out, const struct bt_config *cfg, struct host_err *err)
{
    struct bt_vcpu *v = aligned_alloc(64, (sizeof *v + 63) & ~(size_t)63);
    if (!v)
        return host_fail(err, "no memory for a vCPU");
    memset(v, 0, sizeof *v);
    v->cfg = *cfg;
    v->callout_fn = (uint64_t)bt_callout_insn;
    v->light_fn[0] = (uint64_t)bt_light_seg;
    v->light_fn[1] = (uint64_t)bt_light_store;
    v->light_fn[2] = (uint64_t)bt_light_invlpg;
    v->light_fn[3] = (uint64_t)bt_light_look;
    v->light_fn[4] = (uint64_t)bt_light_string;
    v->miss_fn = (uint64_t)bt_dispatch_miss;
    v->quick_fn = (uint64_t)bt_quick_cross;
    v->crossed_fn = (uint64_t)bt_quick_crossed;
    __builtin_cpu_init();
    v->bmi2 = !cfg->plain_host && __builtin_cpu_supports("bmi2");
    v->host_flags = 0x202;
    v->tsc_own = !cfg->clock || cfg->clock->is_virtual;
    bt_decoder_init(&v->decoder);
    struct rc_ops ops = {.ctx = v, .tsc = on_tsc};
    v->io = (struct bt_ops){.ctx = v, .in = on_in, .out = on_out};
    if (bt_probe_init(v, err) || create_spt(v, err) || bt_cache_init(v, err) ||
        bt_interp_create(&v->interp, &v->cpu, &v->io, err)) {
        bt_destroy(v);
        return -1;
    }
    rc_cpu_init(&v->cpu, v->spt, &cfg->cpu, &ops);
    *out = v;
    bt_reset(v);
    return 0;
}

void bt_destroy(struct bt_vcpu *v)
{
    if (!v)
        return;
    if (v->entered)
        bt_leave(v);
    if (v->interp)
        bt_interp_destroy(v->interp);
    bt_cache_finish(v);
    if (v->spt)
        spt_destroy(v->spt);
    bt_probe_finish(v);
    bt_direct_destroy(v);
    free(v);
}

void bt_reset(struct bt_vcpu *v)
{
    rc_cpu_reset(&v->cpu);
    bt_direct_reset(v);
    bt_cache_flush(v);
    bt_interp_flush(v->interp);
    v->stop = false;
    memset(v->view_flips, 0, sizeof v->view_flips);
    memset(v->user_view, 0, sizeof v->user_view);
}

struct rc_cpu *bt_cpu(struct bt_vcpu *v)
{
    return &v->cpu;
}

struct spt *bt_spt(struct bt_vcpu *v)
{
    return v->spt;
}

struct host_thread *bt_thread(struct bt_vcpu *v)
{
    return &v->thread;
}

/* The time since the last change of hands is nobody's yet. */
const struct bt_counts *bt_stats(struct bt_vcpu *v)
{
    if (v->bucket) {
        uint64_t now = __rdtsc();
        *v->bucket += now - v->tsc_last;
        v->tsc_last = now;
    }
    bt_dispatch_divide(v);
    return &v->counts;
}

const char *bt_exit_name(unsigned reason)
{
    static const char *const name[] = {
        [BT_LEAVE_LINK] = "unchained branch", [BT_LEAVE_MISS] = "jump table miss",
        [BT_LEAVE_CALLOUT] = "callout",       [BT_LEAVE_FAULT] = "guest fault",
        [BT_LEAVE_RESITE] = "retranslate",    [BT_LEAVE_EVENT] = "event",
        [BT_LEAVE_ABORTED] = "aborted entry",
    };
    return reason < sizeof name / sizeof *name ? name[reason] : NULL;
}

const char *bt_reason(const struct bt_vcpu *v)
{
    return v->reason;
}

void bt_trace(struct bt_vcpu *v, unsigned categories, FILE *out)
{
    v->trace = categories;
    v->trace_out = out;
    v->cpu.trace = categories & BT_TRACE_EXCEPTION ? out : NULL;
    spt_trace(v->spt, categories & BT_TRACE_SHADOW ? out : NULL);
}

bool bt_tsc_read(struct bt_vcpu *v)
{
    bool read = v->tsc_read;
    v->tsc_read = 0;
    return read;
}

int bt_enter(struct bt_vcpu *v, struct host_err *err)
{
    if (host_thread_enter(&v->thread, bt_trap, v, v->cfg.counts, err))
        return -1;
    v->entered = true;
    return 0;
}

void bt_leave(struct bt_vcpu *v)
{
    host_thread_leave(&v->thread);
    v->entered = false;
}

void bt_request(struct bt_vcpu *v)
{
    v->cpu.request = 1;
    if (v->entered)
        host_thread_kick(&v->thread);
}

void bt_request_stop(struct bt_vcpu *v)
{
    v->stop = true;
    bt_request(v);
}

/* ---- the run loop ---- */

static enum bt_exit unsupported(struct bt_vcpu *v)
{
    struct rc_cpu *cpu = &v->cpu;
    uint8_t bytes[15];
    unsigned n = rc_fetch(cpu, cpu->eip, bytes, sizeof bytes);
    int at = snprintf(v->reason, sizeof v->reason,
                      "unsupported instruction at %04x:%08x (cpl %u, cr0 %08x, eflags %08x), bytes",
                      cpu->seg[RC_CS].selector, cpu->eip, cpu->cpl, cpu->cr0, rc_eflags(cpu));
    for (unsigned i = 0; i < n && at < (int)sizeof v->reason - 4; i++)
        at += snprintf(v->reason + at, sizeof v->reason - (size_t)at, " %02x", bytes[i]);
    return BT_EXIT_UNSUPPORTED;
}

/* Something translated code relied on is gone: mirrored return addresses may be stale. */
static void forget_returns(struct bt_vcpu *v)
{
    if (v->leave_pending) {
        v->leave_pending = false;
        bt_hstack_reset(v);
    }
}

/* No block number is held by anybody now: take what happened meanwhile into account. */
static void settle(struct bt_vcpu *v)
{
    if (v->flush_wanted)
        bt_cache_flush(v);
    forget_returns(v);
}

/* Block at CS:EIP, 0 when its first instruction is for the interpreter (which also raises any fetch fault).
 */
static uint32_t lookup(struct bt_vcpu *v, uint32_t mode, unsigned *space)
{
    uint64_t gpa;
    struct spt_info info;
    uint32_t access = SPT_EXEC | (mode & RC_MODE_USER ? SPT_USER : 0);
    if (!spt_fetch(v->spt, v->cpu.eip, access, &gpa, space, &info))
        return 0;
    uint32_t b = bt_cache_find(v, gpa, v->cpu.eip, mode);
    if (b && v->block[b].gpa2) { /* is the tail's page still the same? */
        uint64_t gpa2;
        unsigned space2;
        if (!spt_fetch(v->spt, (v->cpu.eip | (HOST_PAGE - 1)) + 1, access, &gpa2, &space2, &info) ||
            gpa2 != v->block[b].gpa2 || space2 != *space) {
            bt_cache_drop(v, b);
            b = 0;
        }
    }
    bt_group_used(v, b, *space);
    if (b)
        return b;
    bt_fpu_park(v);
    bt_dispatch_account(v, &v->counts.ticks_monitor);
    b = bt_translate(v, v->cpu.eip, gpa, *space, mode);
    if (b == BT_BAD_BLOCK)
        return b;
    bt_group_used(v, b, *space);
    if (b && v->cfg.verify && !bt_verify_block(v, &v->block[b])) {
        bt_dump_block(v, &v->block[b], stderr);
        bt_cache_drop(v, b);
        return BT_BAD_BLOCK;
    }
    if (b && v->trace & BT_TRACE_BLOCK)
        bt_dump_block(v, &v->block[b], v->trace_out);
    return b;
}

static void chain(struct bt_vcpu *v, uint32_t b, uint32_t mode, unsigned space)
{
    /* code that may run natively shall come back here soon, so no chain leads into it */
    if (v->unchained || bt_direct_owns(v, space, v->block[b].gpa))
        return;
    if (v->leave_reason == BT_LEAVE_LINK && !v->block[v->link[v->leave_link].block].dead) {
        struct bt_link *l = &v->link[v->leave_link];
        if (v->block[b].gpa2 || v->block[l->block].gpa2)
            l->cross = true;
        if (l->target_eip != v->block[b].eip)
            return;
        if (!l->cross || space == SPT_KERNEL_SPACE) {
            bt_cache_link(v, v->leave_link, b);
            return;
        }
        bt_cache_link_by_table(v, v->leave_link);
    }
    bt_dispatch_set(v, mode, space, b);
}

/* Unchained only. A RET comes back to the block that called, and leaves by that one's link. */
static unsigned retired_by(const struct bt_vcpu *v)
{
    const struct bt_link *l = &v->link[v->leave_link];
    switch (v->leave_reason) {
    case BT_LEAVE_LINK:
        return l->block == v->run_block ? l->done : v->block[v->run_block].count;
    case BT_LEAVE_MISS:
        return v->block[v->run_block].count;
    case BT_LEAVE_ABORTED:
        return 0;
    default:
        return v->leave_index;
    }
}

typedef void (*enter_fn)(struct bt_vcpu *v, uint64_t target);

static void run_block(struct bt_vcpu *v, uint32_t b, uint32_t mode)
{
    struct rc_cpu *cpu = &v->cpu;
    enter_fn enter = (enter_fn)(uintptr_t)(v->arena.rx + v->stubs.enter);
    cpu->eflags &=
        ~(uint32_t)RC_RF; /* holds for one instruction, and breakpoints are not translated's business */
    bt_flags_to_host(v);
    v->run_block = b;
    v->counts.entries++;
    bt_dispatch_account(v, mode & RC_MODE_USER ? &v->counts.ticks_user : &v->counts.ticks_kernel);
    enter(v, (uint64_t)(v->arena.rx + v->block[b].main));
    bt_flags_from_host(v);
    if (cpu->irq_shadow && cpu->eip != v->shadow_eip)
        cpu->irq_shadow = 0; /* left by an inline STI, long past */
    v->counts.exits[v->leave_reason]++;
}

static void after_block(struct bt_vcpu *v)
{
    if (v->drop_block) {
        bt_cache_drop(v, v->drop_block);
        v->drop_block = 0;
        v->counts.retranslated++;
    }
    if (v->leave_reason != BT_LEAVE_FAULT)
        return;
    if (v->trace)
        bt_fpu_park(v);
    rc_deliver_fault(&v->cpu);
}

/* One instruction by the interpreter. False: *exit says why bt_run must return. */
static bool step(struct bt_vcpu *v, uint64_t *done, enum bt_exit *exit)
{
    bt_fpu_park(v);
    enum bt_step s = bt_interp_step(v->interp);
    *done += s == BT_STEP_OK || s == BT_STEP_HALT;
    v->counts.insns_interp++;
    v->leave_reason = BT_LEAVE_EVENT;
    if (s == BT_STEP_UNSUPPORTED) {
        *exit = unsupported(v);
        return false;
    }
    return true;
}

/* The interpreter's own loop: what bt_run looks at between instructions can only change by these. */
static bool interpret(struct bt_vcpu *v, uint64_t limit, uint64_t *done, enum bt_exit *exit)
{
    const struct rc_cpu *cpu = &v->cpu;
    do {
        if (!step(v, done, exit))
            return false;
    } while (*done < limit && !cpu->request && !cpu->halted && !cpu->shutdown &&
             !(cpu->iflag && v->irq_waiting));
    return true;
}

static bool translated(struct bt_vcpu *v, uint32_t mode, uint64_t *done, enum bt_exit *exit)
{
    unsigned space = 0;
    struct bt_jtab *t = bt_dispatch_jtab(v, mode);
    if (v->trace)
        bt_fpu_park(v); /* printing uses vector registers */
    uint32_t b = t ? lookup(v, mode, &space) : 0;
    if (b == BT_BAD_BLOCK) {
        *exit = BT_EXIT_UNSUPPORTED;
        return false;
    }
    if (!b)
        return step(v, done, exit);
    chain(v, b, mode, space);
    forget_returns(v);
    bt_dispatch_windows(v, mode, t);
    run_block(v, b, mode);
    *done += retired_by(v);
    after_block(v);
    return true;
}

static void set_unchained(struct bt_vcpu *v, bool unchained)
{
    if (v->unchained != unchained)
        bt_cache_flush(v);
    v->unchained = unchained;
    v->cross_fast = !unchained && !v->trace && (v->cpu.config.feature_edx & BT_FEATURE_SEP);
}

enum bt_exit bt_run(struct bt_vcpu *v, uint64_t limit, uint64_t *retired)
{
    struct rc_cpu *cpu = &v->cpu;
    uint64_t done = 0;
    enum bt_exit exit = BT_EXIT_LIMIT;
    set_unchained(v, limit != UINT64_MAX);
    if (v->cfg.engine != BT_INTERPRET)
        __asm__ volatile("rdfsbase %0" : "=r"(v->host_fs));
    v->leave_reason = BT_LEAVE_EVENT;
    v->tsc_last = __rdtsc();
    v->bucket = &v->counts.ticks_monitor;
    while (done < limit) {
        if (v->stop) {
            v->stop = false;
            exit = BT_EXIT_STOPPED;
            break;
        }
        if (cpu->shutdown) {
            exit = BT_EXIT_SHUTDOWN;
            break;
        }
        v->irq_waiting = v->cfg.ops.intr(v->cfg.ops.ctx);
        if (v->irq_waiting && cpu->iflag && !cpu->irq_shadow) {
            bt_fpu_park(v);
            rc_deliver_irq(cpu, v->cfg.ops.intack(v->cfg.ops.ctx));
            v->leave_reason = BT_LEAVE_EVENT;
            v->crossings_left = 1; /* the way back is timed (dispatch.c) */
            continue;
        }
        if (cpu->request) {
            cpu->request = 0;
            exit = BT_EXIT_EVENT;
            break;
        }
        if (cpu->halted) {
            exit = BT_EXIT_HALT;
            break;
        }
        settle(v);
        if (v->cfg.engine == BT_INTERPRET) {
            if (!interpret(v, limit, &done, &exit))
                break;
            continue;
        }
        uint32_t mode = bt_mode(v);
        if (cpu->irq_shadow || (mode & RC_MODE_INTERP) || (v->direct && bt_direct_stepping(v))) {
            if (!step(v, &done, &exit))
                break;
        } else if (v->direct && bt_direct_wanted(v, mode)) {
            exit = BT_EXIT_DIRECT;
            break;
        } else if (!translated(v, mode, &done, &exit))
            break;
    }
    bt_fpu_park(v);
    bt_fpu_reset(); /* the caller's floating point is not to trap by the guest's masks */
    bt_dispatch_account(v, &v->outside);
    if (retired)
        *retired += done;
    return exit;
}
