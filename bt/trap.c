/*
 * Host signals that hit translated code. The source/target table turns the host address into a guest
 * instruction; what happens next is decided by what the guest's page tables say about the address.
 */
#define _GNU_SOURCE
#include <ucontext.h>
#include "impl.h"

#define HOST_TF UINT64_C(0x100)

struct trap {
    struct bt_vcpu *v;
    struct host_trap *t;
    greg_t *r;
    uint32_t off; /* arena offset of RIP */
    uint32_t b;   /* block, 0: in a stub */
    unsigned row;
    uint32_t eip; /* of the guest instruction */
    uint64_t gpa;
    int esp;           /* R12 is behind guest ESP by this */
    enum bt_form form; /* how this block has it */
};

static const int home[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_R12, REG_RBP, REG_RSI, REG_RDI};

static void resume_at(struct trap *p, uint32_t stub)
{
    p->r[REG_RIP] = (greg_t)(p->v->arena.rx + stub);
}

static void step_off(struct trap *p)
{
    p->v->stepping = false;
    p->r[REG_EFL] &= ~(greg_t)HOST_TF;
}

/* The guest's registers, at the start of guest instruction eip, from the interrupted host registers. */
static void capture(struct trap *p, enum bt_leave reason)
{
    struct bt_vcpu *v = p->v;
    for (unsigned i = 0; i < 8; i++)
        v->cpu.gpr[i] = (uint32_t)p->r[home[i]];
    v->cpu.gpr[RC_ESP] += (uint32_t)p->esp;
    step_off(p);
    v->host_flags = bt_flags_image((uint64_t)p->r[REG_EFL]); /* run_block takes them from there */
    v->hstack = (uint64_t)p->r[REG_RSP];
    v->cpu.eip = p->eip;
    v->leave_reason = reason;
    v->leave_block = p->b;
    v->leave_index = p->row;
    resume_at(p, v->stubs.leave_saved);
}

static void find_insn(struct trap *p)
{
    struct bt_vcpu *v = p->v;
    const struct bt_block *blk = &v->block[p->b];
    p->row = bt_cache_row(v, blk, p->off);
    const struct bt_map *m = &v->map[blk->map + p->row];
    p->eip = blk->eip + m->guest_off;
    p->gpa = blk->gpa + m->guest_off;
    p->form = (enum bt_form)m->form;
    p->esp = m->esp;
}

static bool at_boundary(const struct trap *p)
{
    const struct bt_block *blk = &p->v->block[p->b];
    if (p->off < blk->main)
        return false;
    return p->off - blk->host == p->v->map[blk->map + bt_cache_row(p->v, blk, p->off)].host_off;
}

/* RIP at a (REP) string instruction: registers are restartable there, pointers by truncation. */
static bool at_string(const struct trap *p)
{
    const uint8_t *c = p->v->arena.rx + p->off;
    while (*c == 0xf3 || *c == 0xf2 || *c == 0x66)
        c++;
    return c != p->v->arena.rx + p->off && bt_is_string(*c);
}

static void guilty(struct trap *p, enum bt_form form)
{
    if (bt_form_get(p->v, p->gpa) < form) /* another block of the same site may have told already */
        bt_form_set(p->v, p->gpa, form);
    p->v->drop_block = p->b;
    capture(p, BT_LEAVE_RESITE);
}

/* Should this site be soft? Not if the fault has shown more than one page, unless that will not last. */
static bool make_soft(struct trap *p, uint64_t pages)
{
    if (pages > 2 && !(p->v->cpu.cpl == 3 && bt_probe_young(p->v)))
        return false;
    if (!bt_form_fault(p->v, p->gpa, p->form))
        return false;
    p->v->drop_block = p->b;
    return true;
}

static void leave_faulting(struct trap *p)
{
    capture(p, BT_LEAVE_FAULT);
}

/* A supervisor access met the wrong view. Windows are chosen by 16 MiB of address space in the DUAL form. */
static void other_view(struct trap *p, uint32_t gva, bool in_user_window)
{
    struct bt_vcpu *v = p->v;
    unsigned top = gva >> 24;
    if ((v->cpu.cpl == 3) || v->view_flips[top] > 16) {
        guilty(p, BT_FORM_INTERP);
        return;
    }
    v->view_flips[top] += in_user_window ? 1 : 0;
    v->window[top] = (uint64_t)(in_user_window ? spt_kernel_window(v->spt) : spt_user_window(v->spt));
    v->user_view[top] = !in_user_window;
    if (p->form == BT_FORM_WINDOW)
        guilty(p, BT_FORM_DUAL);
    /* else: a DUAL site; run it again with the new table entry. Registers r8-r10 still hold the old choice,
     * so restart the guest instruction from its first host instruction. */
    else {
        const struct bt_block *blk = &v->block[p->b];
        p->r[REG_RSI] = (uint32_t)p->r[REG_RSI];
        p->r[REG_RDI] = (uint32_t)p->r[REG_RDI];
        resume_at(p, blk->host + v->map[blk->map + p->row].host_off);
    }
}

/*T:440 A store hits translated code
 *
 * The page is write-protected while blocks of it exist. First offences: forget the page's blocks, let it be
 * written. A site that keeps storing to code pages (data beside code, or a JIT) is moved to the
 * interpreter, which knows which bytes of the page are translated. A page that is written and executed in turn
 * stays protected even while it has no translation: to change that twice per turn would be two host calls and a signal.
:*/
static void code_write(struct trap *p, uint64_t gpa)
{
    struct bt_vcpu *v = p->v;
    v->counts.code_writes++;
    if (bt_form_strike(v, p->gpa) > (bt_cache_is_rewritten(v, gpa) ? 1 : 4)) {
        guilty(p, BT_FORM_INTERP);
        return;
    }
    uint64_t page = gpa & ~(uint64_t)(HOST_PAGE - 1);
    bt_interp_code_write(v->interp, page, HOST_PAGE);
    if (bt_cache_drop_range(v, page, HOST_PAGE))
        spt_untrace_code(v->spt, page);
    capture(p, BT_LEAVE_EVENT);
}

/* In the window or one of its guards? Nowhere else does translated code touch guest memory that may be missing. */
static bool is_about(uint64_t addr, uint64_t window)
{
    return addr - (window - HOST_WINDOW_SIZE) < 3 * HOST_WINDOW_SIZE;
}

static bool window_fault(struct trap *p)
{
    struct bt_vcpu *v = p->v;
    uint64_t addr = p->t->addr;
    uint64_t k = (uint64_t)spt_kernel_window(v->spt), u = (uint64_t)spt_user_window(v->spt);
    bool user_view = addr - u < HOST_WINDOW_SIZE;
    if (!is_about(addr, k) && !is_about(addr, u))
        return false; /* a base that is not the window's: better no machine than one that is let do that */
    if (!user_view && addr - k >= HOST_WINDOW_SIZE) {
        guilty(p, BT_FORM_INTERP); /* a guard: odd segment, wrap-around at 4 GiB */
        return true;
    }
    uint32_t gva = (uint32_t)addr;
    uint32_t access = (p->t->error & 2 ? SPT_WRITE : 0) | (v->cpu.cpl == 3 ? SPT_USER : 0);
    struct spt_info info;
    uint64_t filled = spt_stats(v->spt)->pages_filled;
    switch (spt_fault(v->spt, user_view, gva, access, &info)) {
    case SPT_RETRY:
        if (user_view)
            bt_probe_shown(v, gva, access & SPT_WRITE);
        if (make_soft(p, spt_stats(v->spt)->pages_filled - filled) || v->leave_pending)
            capture(p, BT_LEAVE_EVENT);
        return true;
    case SPT_TRUE_FAULT:
        if (gva >=
            0u - HOST_PAGE) { /* may reach beyond 4 GiB: then it is the segment's limit that is violated */
            guilty(p, BT_FORM_INTERP);
            return true;
        }
        make_soft(p, 0);
        rc_raise_pf(&v->cpu, &info);
        leave_faulting(p);
        return true;
    case SPT_CODE_WRITE:
        code_write(p, info.gpa);
        return true;
    case SPT_OTHER_VIEW:
        other_view(p, gva, user_view);
        return true;
    case SPT_DEVICE:
    case SPT_PT_WRITE:
    case SPT_EMULATE:
        guilty(p, BT_FORM_INTERP);
        return true;
    }
    return false;
}

/* The mirror of the guest's calls is full: forget them. A stub keeps the return address it was called with.
 */
static bool returns_full(struct trap *p)
{
    struct bt_vcpu *v = p->v;
    uint64_t top = v->hstack_top[v->cpu.cpl == 3];
    if (p->t->addr - (top + 64 - BT_HSTACK_SIZE - HOST_PAGE) >= HOST_PAGE)
        return false;
    if (p->off >= v->stubs.callout && p->off < v->stubs.callout_end) {
        top -= 8;
        *(uint64_t *)top = *(uint64_t *)p->r[REG_RSP];
        v->guest_rsp = top;
    }
    p->r[REG_RSP] = (greg_t)top;
    return true;
}

static bool block_trap(struct trap *p)
{
    struct bt_vcpu *v = p->v;
    find_insn(p);
    switch (p->t->vector) {
    case 19: /* SDM vol. 3 2.5: without OSXMMEXCPT an unmasked SIMD exception is #UD */
        rc_raise(&v->cpu, v->cpu.cr4 & RC_CR4_OSXMMEXCPT ? RC_XM : RC_UD);
        leave_faulting(p);
        return true;
    case 16:
        if (!(v->cpu.cr0 & RC_CR0_NE)) { /* reported outside the CPU: the interpreter knows how */
            guilty(p, BT_FORM_INTERP);
            return true;
        }
        /* fall through */
    case 0:
        if (bt_form_strike(v, p->gpa) > 4) {
            guilty(p, BT_FORM_INTERP); /* the interpreter looks before it divides */
            return true;
        }
        /* fall through */
    case 6:
        rc_raise(&v->cpu, p->t->vector);
        leave_faulting(p);
        return true;
    case 13: /* misaligned SSE operand and the like: the interpreter decides */
    case 17:
        guilty(p, BT_FORM_INTERP);
        return true;
    case 14:
        return returns_full(p) || window_fault(p);
    default:
        return false;
    }
}

/*T:730 Interrupts at instruction boundaries
 *
 * A kick can stop the CPU between two host instructions of one guest instruction. Polling would cost every
 * block; instead the handler sets the host's trap flag and lets the CPU walk the one to five host
 * instructions to the next row of the source/target table, where the guest's state is exact. A REP
 * instruction is a boundary by itself.
:*/
static bool walk_to_boundary(struct trap *p)
{
    struct bt_vcpu *v = p->v;
    const struct bt_stubs *s = &v->stubs;
    if (p->off < s->sentinel) {
        step_off(p);
        if (p->off >= s->callout_restore && p->off < s->callout_end) {
            p->r[REG_RSP] = (greg_t)v->guest_rsp;
            resume_at(p, s->callout_end);
        } else if (p->off >= s->enter_check && p->off < s->abort)
            resume_at(p, s->abort);
        return true; /* elsewhere in the stubs a check of cpu.request follows, or C does */
    }
    if (p->b) {
        if (at_boundary(p) || (at_string(p) && p->off >= v->block[p->b].main)) {
            find_insn(p);
            bt_probe_sampled(v, p->b);
            capture(p, BT_LEAVE_EVENT);
            return true;
        }
    }
    const uint8_t *code = v->arena.rx + p->off;
    if (v->stepping && p->b && code[-1] == 0x9c && code[0] == 0x41 && code[1] == 0x58)
        *(uint64_t *)p->r[REG_RSP] &= ~HOST_TF; /* PUSHF has just pushed our trap flag */
    v->stepping = true;
    v->counts.steps++;
    p->r[REG_EFL] |= (greg_t)HOST_TF;
    return true;
}

/* C wanted its thread's data while FS.base was a user window, of which neither page 0 nor what is below shows anything. */
static bool fs_is_missed(const struct bt_vcpu *v, const struct host_trap *t)
{
    const uint64_t off = (uint64_t)((ucontext_t *)t->uc)->uc_mcontext.gregs[REG_RIP] - (uint64_t)v->arena.rx;
    return off >= v->arena.size && t->kind == HOST_TRAP_CPU && t->vector == 14 && t->fs_base &&
           *t->fs_base == v->window_u &&
           t->addr - (v->window_u - HOST_WINDOW_SIZE) < HOST_WINDOW_SIZE + HOST_PAGE;
}

static bool handle(struct bt_vcpu *v, struct host_trap *t)
{
    ucontext_t *uc = t->uc;
    struct trap p = {.v = v, .t = t, .r = uc->uc_mcontext.gregs};
    uint64_t off = (uint64_t)p.r[REG_RIP] - (uint64_t)v->arena.rx;
    bool inside = off < v->arena.size;
    p.off = (uint32_t)off;
    p.b = inside && off >= v->stubs.end ? bt_cache_by_host(v, p.off) : 0;

    if (t->kind == HOST_TRAP_KICK) {
        v->cpu.request = 1;
        if (v->cfg.ops.kicked)
            v->cfg.ops.kicked(v->cfg.ops.ctx);
        return inside && !v->stepping ? walk_to_boundary(&p) : true;
    }
    if (t->vector == 1 && v->stepping) {
        if (!inside) { /* in a C callout: its return checks cpu.request */
            step_off(&p);
            return true;
        }
        return walk_to_boundary(&p);
    }
    if (bt_interp_trap(v->interp, t))
        return true;
    if (inside && !p.b && t->vector == 14 && returns_full(&p))
        return true;
    if (!inside || !p.b)
        return false;
    return block_trap(&p);
}

/* In here FS.base is the host's; the flag says what it is in the interrupted state. */
bool bt_trap(void *ctx, struct host_trap *t)
{
    struct bt_vcpu *v = ctx;
    const uint8_t fs_guest = v->fs_guest;
    v->fs_guest = 0;
    if (fs_guest && fs_is_missed(v, t)) {
        *t->fs_base = v->host_fs;
        v->counts.fs_missed++;
        return true;
    }
    bool handled = handle(v, t);
    v->fs_guest = fs_guest;
    return handled;
}
