/* Far jumps, calls and returns: direct, through call gates, task gates and TSSs (5.8, 7.3; vol. 2 JMP, CALL,
 * RET). */
#include "ring.h"

/* A code segment one is about to continue in. */
struct target {
    struct rc_desc cs;
    uint16_t selector; /* RPL already the CPL to be */
    uint32_t eip;
};

static enum rc_result check_eip(struct rc_cpu *cpu, const struct target *t)
{
    return t->eip <= rc_desc_limit(&t->cs) ? RC_OK : rc_raise_error(cpu, RC_GP, 0);
}

static void enter(struct rc_cpu *cpu, const struct target *t)
{
    rc_seg_fill(cpu, RC_CS, t->selector, &t->cs);
    cpu->eip = t->eip;
}

/* Real and virtual-8086 mode. */
static enum rc_result check_eip_real(struct rc_cpu *cpu, uint32_t eip)
{
    return eip <= cpu->seg[RC_CS].limit ? RC_OK : rc_raise_error(cpu, RC_GP, 0);
}

/* Same-ring return address: CS, EIP. */
static enum rc_result push_return(struct rc_cpu *cpu, struct target *t, unsigned size, uint32_t next_eip)
{
    const struct rc_seg *ss = &cpu->seg[RC_SS];
    struct rc_frame f;

    rc_frame_init(&f, size);
    rc_frame_push(&f, cpu->seg[RC_CS].selector);
    rc_frame_push(&f, next_eip);
    if (!rc_frame_place(&f, ss, cpu->gpr[RC_ESP]))
        return rc_raise_error(cpu, RC_SSF, 0);
    if (check_eip(cpu, t) != RC_OK || rc_desc_mark_accessed(cpu, &t->cs) != RC_OK ||
        rc_frame_write(cpu, &f, ss, rc_access(cpu->cpl)) != RC_OK)
        return RC_FAULT;
    cpu->gpr[RC_ESP] = rc_stack_merge(ss, cpu->gpr[RC_ESP], f.low);
    return RC_OK;
}

/* ---- Where a far pointer may lead without a gate ---- */

static enum rc_result check_direct(struct rc_cpu *cpu, uint16_t selector, struct target *t)
{
    const unsigned attr = rc_desc_attr(&t->cs), dpl = rc_attr_dpl(attr);
    const bool allowed = attr & RC_ATTR_E ? dpl <= cpu->cpl : (selector & 3u) <= cpu->cpl && dpl == cpu->cpl;
    if (!allowed)
        return rc_raise_selector(cpu, RC_GP, selector, 0);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_NP, selector, 0);
    t->selector = (uint16_t)((selector & ~3) | cpu->cpl);
    return RC_OK;
}

/* ---- Gates ---- */

/* DPL >= CPL, DPL >= RPL, present: for call gates, task gates and TSS descriptors alike. */
static enum rc_result check_system(struct rc_cpu *cpu, uint16_t selector, unsigned attr)
{
    const unsigned dpl = rc_attr_dpl(attr);
    if (dpl < cpu->cpl || dpl < (selector & 3u))
        return rc_raise_selector(cpu, RC_GP, selector, 0);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_NP, selector, 0);
    return RC_OK;
}

/* The code segment a call gate names. is_call: an inner ring may be entered. */
static enum rc_result check_gate_target(struct rc_cpu *cpu, const struct rc_desc *gate, bool is_call,
                                        struct target *t)
{
    const bool is32 = rc_attr_type(rc_desc_attr(gate)) == RC_TYPE_CALL32;
    const uint16_t selector = rc_gate_selector(gate);

    if (rc_is_null(selector))
        return rc_raise_error(cpu, RC_GP, 0);
    if (rc_desc_read(cpu, selector, RC_GP, 0, &t->cs) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(&t->cs), dpl = rc_attr_dpl(attr);
    const bool up_to_cpl = is_call || (attr & RC_ATTR_E);
    if (!rc_attr_is_code(attr) || (up_to_cpl ? dpl > cpu->cpl : dpl != cpu->cpl))
        return rc_raise_selector(cpu, RC_GP, selector, 0);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_NP, selector, 0);
    const unsigned cpl = attr & RC_ATTR_E ? cpu->cpl : dpl;
    t->selector = (uint16_t)((selector & ~3u) | cpl);
    t->eip = rc_gate_offset(gate, is32);
    return RC_OK;
}

/* The caller's SS:ESP and its parameters go to the inner stack, below them the return address (5.8.5). */
static enum rc_result build_inner_frame(struct rc_cpu *cpu, const struct rc_desc *gate, uint32_t next_eip,
                                        struct rc_frame *f)
{
    const unsigned size = rc_attr_type(rc_desc_attr(gate)) == RC_TYPE_CALL32 ? 4 : 2;
    const unsigned count = gate->hi & 0x1f;
    uint32_t parameter[31];

    if (count && rc_stack_peek(cpu, 0, count, size, parameter) != RC_OK)
        return RC_FAULT;
    rc_frame_init(f, size);
    rc_frame_push(f, cpu->seg[RC_SS].selector);
    rc_frame_push(f, cpu->gpr[RC_ESP]);
    for (unsigned i = count; i-- > 0;)
        rc_frame_push(f, parameter[i]);
    rc_frame_push(f, cpu->seg[RC_CS].selector);
    rc_frame_push(f, next_eip);
    return RC_OK;
}

/* Does the frame of a gate with these parameters fit? Known before the parameters are read. */
static bool inner_frame_fits(const struct rc_inner_stack *st, const struct rc_desc *gate)
{
    struct rc_frame f;
    rc_frame_init(&f, rc_attr_type(rc_desc_attr(gate)) == RC_TYPE_CALL32 ? 4 : 2);
    f.count = 4 + (gate->hi & 0x1f);
    return rc_frame_place(&f, &st->seg, st->esp);
}

static enum rc_result call_inner(struct rc_cpu *cpu, const struct rc_desc *gate, struct target *t,
                                 uint32_t next_eip)
{
    const unsigned cpl = t->selector & 3;
    struct rc_inner_stack st;
    struct rc_frame f;

    if (rc_inner_stack_find(cpu, cpl, 0, &st) != RC_OK)
        return RC_FAULT;
    if (!inner_frame_fits(&st, gate))
        return rc_raise_selector(cpu, RC_SSF, st.selector, 0);
    if (check_eip(cpu, t) != RC_OK || build_inner_frame(cpu, gate, next_eip, &f) != RC_OK)
        return RC_FAULT;
    rc_frame_place(&f, &st.seg, st.esp);
    if (rc_desc_mark_accessed(cpu, &t->cs) != RC_OK || rc_desc_mark_accessed(cpu, &st.desc) != RC_OK ||
        rc_frame_write(cpu, &f, &st.seg, rc_access(cpl)) != RC_OK)
        return RC_FAULT;
    cpu->cpl = (uint8_t)cpl;
    cpu->seg[RC_SS] = st.seg;
    cpu->gpr[RC_ESP] = rc_stack_merge(&st.seg, st.esp, f.low);
    enter(cpu, t);
    return RC_OK;
}

static enum rc_result through_call_gate(struct rc_cpu *cpu, const struct rc_desc *gate, bool is_call,
                                        uint32_t next_eip)
{
    struct target t;
    if (check_gate_target(cpu, gate, is_call, &t) != RC_OK)
        return RC_FAULT;
    if (!is_call) {
        if (check_eip(cpu, &t) != RC_OK || rc_desc_mark_accessed(cpu, &t.cs) != RC_OK)
            return RC_FAULT;
        enter(cpu, &t);
        return RC_OK;
    }
    if ((t.selector & 3) < cpu->cpl)
        return call_inner(cpu, gate, &t, next_eip);
    const unsigned size = rc_attr_type(rc_desc_attr(gate)) == RC_TYPE_CALL32 ? 4 : 2;
    if (push_return(cpu, &t, size, next_eip) != RC_OK)
        return RC_FAULT;
    enter(cpu, &t);
    return RC_OK;
}

static enum rc_result through_system(struct rc_cpu *cpu, uint16_t selector, const struct rc_desc *d,
                                     bool is_call, uint32_t next_eip)
{
    const enum rc_switch_kind kind = is_call ? RC_SWITCH_CALL : RC_SWITCH_JMP;
    const unsigned attr = rc_desc_attr(d);
    const unsigned dpl = rc_attr_dpl(attr);

    switch (rc_attr_type(attr)) {
    case RC_TYPE_CALL16:
    case RC_TYPE_CALL32:
        if (check_system(cpu, selector, attr) != RC_OK)
            return RC_FAULT;
        return through_call_gate(cpu, d, is_call, next_eip);
    case RC_TYPE_TASK:
        if (check_system(cpu, selector, attr) != RC_OK)
            return RC_FAULT;
        return rc_task_switch_by_insn(cpu, kind, rc_gate_selector(d), next_eip);
    case RC_TYPE_TSS16:
    case RC_TYPE_TSS32:
        if (dpl < cpu->cpl || dpl < (selector & 3u)) /* presence is the task switch's to check */
            return rc_raise_selector(cpu, RC_GP, selector, 0);
        return rc_task_switch_by_insn(cpu, kind, selector, next_eip);
    default:
        return rc_raise_selector(cpu, RC_GP, selector, 0);
    }
}

/* ---- JMP and CALL ---- */

enum rc_result rc_far_jmp(struct rc_cpu *cpu, uint16_t selector, uint32_t off, unsigned opsize,
                          uint32_t next_eip)
{
    struct target t = {.eip = opsize == 2 ? off & 0xffff : off};

    if (RC_UNLIKELY(!rc_is_protected(cpu))) {
        if (check_eip_real(cpu, t.eip) != RC_OK)
            return RC_FAULT;
        rc_seg_real(cpu, RC_CS, selector);
        cpu->eip = t.eip;
        return RC_OK;
    }
    if (rc_is_null(selector))
        return rc_raise_error(cpu, RC_GP, 0);
    if (rc_desc_read(cpu, selector, RC_GP, 0, &t.cs) != RC_OK)
        return RC_FAULT;
    if (!rc_attr_is_code(rc_desc_attr(&t.cs)))
        return through_system(cpu, selector, &t.cs, false, next_eip);
    if (check_direct(cpu, selector, &t) != RC_OK || check_eip(cpu, &t) != RC_OK ||
        rc_desc_mark_accessed(cpu, &t.cs) != RC_OK)
        return RC_FAULT;
    enter(cpu, &t);
    return RC_OK;
}

static enum rc_result far_call_real(struct rc_cpu *cpu, uint16_t selector, uint32_t eip, unsigned opsize,
                                    uint32_t next_eip)
{
    const struct rc_seg *ss = &cpu->seg[RC_SS];
    struct rc_frame f;

    rc_frame_init(&f, opsize);
    rc_frame_push(&f, cpu->seg[RC_CS].selector);
    rc_frame_push(&f, next_eip);
    if (!rc_frame_place(&f, ss, cpu->gpr[RC_ESP]))
        return rc_raise_error(cpu, RC_SSF, 0);
    if (check_eip_real(cpu, eip) != RC_OK || rc_frame_write(cpu, &f, ss, rc_access(cpu->cpl)) != RC_OK)
        return RC_FAULT;
    cpu->gpr[RC_ESP] = rc_stack_merge(ss, cpu->gpr[RC_ESP], f.low);
    rc_seg_real(cpu, RC_CS, selector);
    cpu->eip = eip;
    return RC_OK;
}

enum rc_result rc_far_call(struct rc_cpu *cpu, uint16_t selector, uint32_t off, unsigned opsize,
                           uint32_t next_eip)
{
    struct target t = {.eip = opsize == 2 ? off & 0xffff : off};

    if (RC_UNLIKELY(!rc_is_protected(cpu)))
        return far_call_real(cpu, selector, t.eip, opsize, next_eip);
    if (rc_is_null(selector))
        return rc_raise_error(cpu, RC_GP, 0);
    if (rc_desc_read(cpu, selector, RC_GP, 0, &t.cs) != RC_OK)
        return RC_FAULT;
    if (!rc_attr_is_code(rc_desc_attr(&t.cs)))
        return through_system(cpu, selector, &t.cs, true, next_eip);
    if (check_direct(cpu, selector, &t) != RC_OK || push_return(cpu, &t, opsize, next_eip) != RC_OK)
        return RC_FAULT;
    enter(cpu, &t);
    return RC_OK;
}

/* ---- Return (RETF and, by the same rules for CS and SS, IRET) ---- */

enum rc_result rc_return_check_cs(struct rc_cpu *cpu, uint16_t selector, struct rc_desc *cs)
{
    const unsigned rpl = selector & 3;

    if (rc_is_null(selector))
        return rc_raise_error(cpu, RC_GP, 0);
    if (rc_desc_read(cpu, selector, RC_GP, 0, cs) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(cs), dpl = rc_attr_dpl(attr);
    if (!rc_attr_is_code(attr) || rpl < cpu->cpl || (attr & RC_ATTR_E ? dpl > rpl : dpl != rpl))
        return rc_raise_selector(cpu, RC_GP, selector, 0);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_NP, selector, 0);
    return RC_OK;
}

enum rc_result rc_return_check_ss(struct rc_cpu *cpu, uint16_t selector, unsigned rpl, struct rc_desc *ss)
{
    if (rc_is_null(selector))
        return rc_raise_error(cpu, RC_GP, 0);
    if (rc_desc_read(cpu, selector, RC_GP, 0, ss) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(ss);
    if ((selector & 3u) != rpl || !rc_attr_is_stack(attr) || rc_attr_dpl(attr) != rpl)
        return rc_raise_selector(cpu, RC_GP, selector, 0);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_SSF, selector, 0);
    return RC_OK;
}

static enum rc_result far_ret_real(struct rc_cpu *cpu, uint32_t eip, uint16_t selector, uint32_t esp)
{
    if (check_eip_real(cpu, eip) != RC_OK)
        return RC_FAULT;
    rc_seg_real(cpu, RC_CS, selector);
    cpu->eip = eip;
    cpu->gpr[RC_ESP] = rc_stack_merge(&cpu->seg[RC_SS], cpu->gpr[RC_ESP], esp);
    return RC_OK;
}

static enum rc_result far_ret_outer(struct rc_cpu *cpu, struct target *t, unsigned opsize, uint16_t release)
{
    enum { OLD_ESP, OLD_SS };
    const unsigned rpl = t->selector & 3;
    struct rc_desc ss;
    uint32_t frame[2];

    if (rc_stack_peek(cpu, 2 * opsize + release, 2, opsize, frame) != RC_OK)
        return RC_FAULT;
    const uint16_t ss_selector = (uint16_t)frame[OLD_SS];
    if (rc_return_check_ss(cpu, ss_selector, rpl, &ss) != RC_OK || check_eip(cpu, t) != RC_OK ||
        rc_desc_mark_accessed(cpu, &t->cs) != RC_OK || rc_desc_mark_accessed(cpu, &ss) != RC_OK)
        return RC_FAULT;
    cpu->cpl = (uint8_t)rpl;
    rc_seg_fill(cpu, RC_SS, ss_selector, &ss);
    cpu->gpr[RC_ESP] = rc_stack_merge(&cpu->seg[RC_SS], cpu->gpr[RC_ESP], frame[OLD_ESP] + release);
    enter(cpu, t);
    rc_seg_drop_inner(cpu);
    return RC_OK;
}

enum rc_result rc_far_ret(struct rc_cpu *cpu, unsigned opsize, uint16_t release)
{
    const uint32_t esp = cpu->gpr[RC_ESP] + 2 * opsize + release;
    uint32_t frame[2]; /* EIP, CS */

    if (rc_stack_peek(cpu, 0, 2, opsize, frame) != RC_OK)
        return RC_FAULT;
    struct target t = {.eip = frame[0], .selector = (uint16_t)frame[1]};
    if (RC_UNLIKELY(!rc_is_protected(cpu)))
        return far_ret_real(cpu, t.eip, t.selector, esp);
    if (rc_return_check_cs(cpu, t.selector, &t.cs) != RC_OK)
        return RC_FAULT;
    if ((t.selector & 3) > cpu->cpl)
        return far_ret_outer(cpu, &t, opsize, release);
    if (check_eip(cpu, &t) != RC_OK || rc_desc_mark_accessed(cpu, &t.cs) != RC_OK)
        return RC_FAULT;
    enter(cpu, &t);
    cpu->gpr[RC_ESP] = rc_stack_merge(&cpu->seg[RC_SS], cpu->gpr[RC_ESP], esp);
    return RC_OK;
}
