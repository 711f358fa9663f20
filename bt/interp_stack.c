/*
 * The stack: PUSH, POP and their many forms, ENTER, LEAVE. ESP moves as the instruction goes along; the
 * caller restores it when a fault is raised.
 */
#include "interp_families.h"

enum bt_step bt_h_push_r(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_push(in, in->cpu->gpr[i->opcode & 7], i->osz) ? BT_STEP_OK : BT_STEP_FAULT;
}

/* The register is written last: POP ESP ends with the value popped. */
enum bt_step bt_h_pop_r(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!bt_pop(in, &v, i->osz))
        return BT_STEP_FAULT;
    bt_set_reg(in, i->opcode & 7, i->osz, v);
    return BT_STEP_OK;
}

enum bt_step bt_h_push_rm(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    return bt_read_rm(in, i, i->osz, &v) && bt_push(in, v, i->osz) ? BT_STEP_OK : BT_STEP_FAULT;
}

/* An address that uses ESP is computed after the pop (vol. 2 POP). */
enum bt_step bt_h_pop_rm(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    return bt_pop(in, &v, i->osz) && bt_write_rm(in, i, i->osz, v) ? BT_STEP_OK : BT_STEP_FAULT;
}

enum bt_step bt_h_push_imm(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_push(in, i->imm, i->osz) ? BT_STEP_OK : BT_STEP_FAULT;
}

/* 06 ES, 0E CS, 16 SS, 1E DS; 0F A0 FS, 0F A8 GS: bits 3-5 of the opcode */
static unsigned opcode_seg(const struct bt_insn *i)
{
    return i->opcode >> 3 & 7;
}

enum bt_step bt_h_push_seg(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_push(in, in->cpu->seg[opcode_seg(i)].selector, i->osz) ? BT_STEP_OK : BT_STEP_FAULT;
}

enum bt_step bt_h_pop_seg(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    unsigned seg = opcode_seg(i);
    if (!bt_pop(in, &v, i->osz) || rc_load_seg(in->cpu, seg, (uint16_t)v) != RC_OK)
        return BT_STEP_FAULT;
    if (seg == RC_SS) {
        in->cpu->irq_shadow = 1;
        in->after_mov_ss = in->no_trap = true;
    }
    return BT_STEP_OK;
}

/* All eight slots are checked before the first is written. */
enum bt_step bt_h_pusha(struct bt_interp *in, const struct bt_insn *i)
{
    struct rc_cpu *cpu = in->cpu;
    uint32_t sp = cpu->gpr[RC_ESP], mask = bt_sp_mask(in);
    for (unsigned n = 1; n <= 8; n++)
        if (!bt_check_rmw(in, RC_SS, (sp - n * i->osz) & mask, i->osz))
            return BT_STEP_FAULT;
    for (unsigned n = 0; n < 8; n++)
        if (!bt_push(in, n == RC_ESP ? sp : cpu->gpr[n], i->osz))
            return BT_STEP_FAULT;
    return BT_STEP_OK;
}

enum bt_step bt_h_popa(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v[8];
    for (unsigned n = 8; n-- > 0;)
        if (!bt_pop(in, &v[n], i->osz))
            return BT_STEP_FAULT;
    for (unsigned n = 0; n < 8; n++)
        if (n != RC_ESP)
            bt_set_reg(in, n, i->osz, v[n]);
    return BT_STEP_OK;
}

enum bt_step bt_h_pushf(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (rc_pushf_value(in->cpu, &v) != RC_OK || !bt_push(in, v, i->osz))
        return BT_STEP_FAULT;
    return BT_STEP_OK;
}

enum bt_step bt_h_popf(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!bt_pop(in, &v, i->osz))
        return BT_STEP_FAULT;
    return bt_result(rc_popf(in->cpu, v, i->osz));
}

/* The enclosing frames' pointers for nesting levels above 1. */
static bool enter_copy_frames(struct bt_interp *in, const struct bt_insn *i, unsigned level)
{
    uint32_t bp = in->cpu->gpr[RC_EBP], mask = bt_sp_mask(in), v;
    for (unsigned n = 1; n < level; n++) {
        bp -= i->osz;
        if (!bt_read(in, RC_SS, bp & mask, i->osz, &v) || !bt_push(in, v, i->osz))
            return false;
    }
    return true;
}

/* vol. 2 ENTER: pushes in the operand size, EBP and ESP in the stack's. The new top of stack must be
 * writable. */
enum bt_step bt_h_enter(struct bt_interp *in, const struct bt_insn *i)
{
    struct rc_cpu *cpu = in->cpu;
    unsigned level = i->imm2 & 31;
    uint32_t mask = bt_sp_mask(in);
    if (!bt_push(in, cpu->gpr[RC_EBP], i->osz))
        return BT_STEP_FAULT;
    uint32_t frame = cpu->gpr[RC_ESP];
    if (level && (!enter_copy_frames(in, i, level) || !bt_push(in, frame, i->osz)))
        return BT_STEP_FAULT;
    uint32_t sp = cpu->gpr[RC_ESP] - (i->imm & 0xffff);
    if (!bt_check_rmw(in, RC_SS, sp & mask, i->osz))
        return BT_STEP_FAULT;
    bt_set_sp(in, sp);
    bt_set_reg(in, RC_EBP, i->osz, frame);
    return BT_STEP_OK;
}

enum bt_step bt_h_leave(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    bt_set_sp(in, in->cpu->gpr[RC_EBP]);
    if (!bt_pop(in, &v, i->osz))
        return BT_STEP_FAULT;
    bt_set_reg(in, RC_EBP, i->osz, v);
    return BT_STEP_OK;
}
