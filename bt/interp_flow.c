/*
 * Control flow: near and far jumps, calls and returns, loops, software interrupts, BOUND.
 */
#include "interp_families.h"
#include "interp_flags.h"

enum bt_step bt_h_jcc(struct bt_interp *in, const struct bt_insn *i)
{
    if (!bt_condition(in->cpu->eflags, i->opcode))
        return BT_STEP_OK;
    return bt_branch(in, in->next + i->imm, i->osz);
}

enum bt_step bt_h_jmp_rel(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_branch(in, in->next + i->imm, i->osz);
}

enum bt_step bt_h_jmp_rm(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t target;
    return bt_read_rm(in, i, i->osz, &target) ? bt_branch(in, target, i->osz) : BT_STEP_FAULT;
}

/* The target is checked before the return address is pushed: a fault leaves the stack's memory alone. */
static enum bt_step call_near(struct bt_interp *in, const struct bt_insn *i, uint32_t target)
{
    uint32_t back = in->next;
    if (bt_branch(in, target, i->osz) != BT_STEP_OK || !bt_push(in, back, i->osz))
        return BT_STEP_FAULT;
    return BT_STEP_OK;
}

enum bt_step bt_h_call_rel(struct bt_interp *in, const struct bt_insn *i)
{
    return call_near(in, i, in->next + i->imm);
}

enum bt_step bt_h_call_rm(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t target;
    return bt_read_rm(in, i, i->osz, &target) ? call_near(in, i, target) : BT_STEP_FAULT;
}

/* C3, and C2 that releases arguments */
enum bt_step bt_h_ret(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t target;
    if (!bt_pop(in, &target, i->osz))
        return BT_STEP_FAULT;
    if (i->imm_size)
        bt_set_sp(in, in->cpu->gpr[RC_ESP] + (i->imm & 0xffff));
    return bt_branch(in, target, i->osz);
}

/* E0 LOOPNE, E1 LOOPE, E2 LOOP: the counter has the address size. A branch that faults must not have counted.
 */
enum bt_step bt_h_loop(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t count = bt_reg(in, RC_ECX, i->asz) - 1;
    bool zf = in->cpu->eflags & RC_ZF, again = (i->asz == 2 ? count & 0xffff : count) != 0;
    if (i->opcode != 0xe2 && zf != (i->opcode & 1))
        again = false;
    if (again && bt_branch(in, in->next + i->imm, i->osz) != BT_STEP_OK)
        return BT_STEP_FAULT;
    bt_set_reg(in, RC_ECX, i->asz, count);
    return BT_STEP_OK;
}

enum bt_step bt_h_jcxz(struct bt_interp *in, const struct bt_insn *i)
{
    if (bt_reg(in, RC_ECX, i->asz) != 0)
        return BT_STEP_OK;
    return bt_branch(in, in->next + i->imm, i->osz);
}

/* ---- Far transfers: ringcomp does them whole and leaves CS:EIP at the target ---- */
static bool read_far_pointer(struct bt_interp *in, const struct bt_insn *i, uint32_t *off, uint16_t *sel)
{
    uint8_t buf[6];
    if (!bt_read_bytes(in, i->seg, bt_ea(in, i), buf, i->osz + 2u))
        return false;
    *off = bt_load(buf, i->osz);
    *sel = (uint16_t)bt_load(buf + i->osz, 2);
    return true;
}

enum bt_step bt_h_jmp_far(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_jumped(in, rc_far_jmp(in->cpu, (uint16_t)i->imm2, i->imm, i->osz, in->next));
}

enum bt_step bt_h_call_far(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_jumped(in, rc_far_call(in->cpu, (uint16_t)i->imm2, i->imm, i->osz, in->next));
}

static enum bt_step far_mem(struct bt_interp *in, const struct bt_insn *i,
                            enum rc_result (*transfer)(struct rc_cpu *, uint16_t, uint32_t, unsigned,
                                                       uint32_t))
{
    uint32_t off;
    uint16_t sel;
    if (!i->is_mem)
        return bt_raise(in, RC_UD);
    if (!read_far_pointer(in, i, &off, &sel))
        return BT_STEP_FAULT;
    return bt_jumped(in, transfer(in->cpu, sel, off, i->osz, in->next));
}

enum bt_step bt_h_jmp_far_mem(struct bt_interp *in, const struct bt_insn *i)
{
    return far_mem(in, i, rc_far_jmp);
}

enum bt_step bt_h_call_far_mem(struct bt_interp *in, const struct bt_insn *i)
{
    return far_mem(in, i, rc_far_call);
}

enum bt_step bt_h_ret_far(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_jumped(in, rc_far_ret(in->cpu, i->osz, i->imm_size ? (uint16_t)i->imm : 0));
}

enum bt_step bt_h_iret(struct bt_interp *in, const struct bt_insn *i)
{
    in->keep_rf = true;
    return bt_jumped(in, rc_iret(in->cpu, i->osz, in->next));
}

/* ---- Software interrupts. The single-step trap that TF asked for is lost in them (vol. 3 17.3.1.4). ---- */
static enum bt_step software_int(struct bt_interp *in, uint8_t vector, bool is_int_n)
{
    in->no_trap = true;
    return bt_jumped(in, rc_software_int(in->cpu, vector, is_int_n, in->next));
}

enum bt_step bt_h_int_n(struct bt_interp *in, const struct bt_insn *i)
{
    return software_int(in, (uint8_t)i->imm, true);
}

enum bt_step bt_h_int3(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return software_int(in, RC_BP, false);
}

/* F1: a debug trap that DR6 says nothing of. Unlike INT 1 it ignores the gate's DPL (vol. 2 INT n), so it is
 * delivered as an exception behind the instruction. */
enum bt_step bt_h_int1(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    in->cpu->fault = (struct rc_fault){.vector = RC_DB};
    in->cpu->eip = in->next;
    return BT_STEP_FAULT;
}

enum bt_step bt_h_into(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return in->cpu->eflags & RC_OF ? software_int(in, RC_OF_TRAP, false) : BT_STEP_OK;
}

/* Signed bounds, both inclusive */
enum bt_step bt_h_bound(struct bt_interp *in, const struct bt_insn *i)
{
    uint8_t buf[8];
    if (!i->is_mem)
        return bt_raise(in, RC_UD);
    if (!bt_read_bytes(in, i->seg, bt_ea(in, i), buf, 2u * i->osz))
        return BT_STEP_FAULT;
    int32_t lower = (int32_t)bt_load(buf, i->osz), upper = (int32_t)bt_load(buf + i->osz, i->osz);
    int32_t v = (int32_t)bt_reg(in, i->reg, i->osz);
    if (i->osz == 2) {
        lower = (int16_t)lower;
        upper = (int16_t)upper;
        v = (int16_t)v;
    }
    return v < lower || v > upper ? bt_raise(in, RC_BR) : BT_STEP_OK;
}

enum bt_step bt_h_sysenter(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_jumped(in, rc_sysenter(in->cpu));
}

enum bt_step bt_h_sysexit(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_jumped(in, rc_sysexit(in->cpu));
}
