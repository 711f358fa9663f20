/*
 * The stack. PUSH and POP become a store or load at a displacement from R12; R12 itself moves once per run of them, when
 * something needs the sum.
 */
#include "translate.h"
#include "vex.h"

/*T:345 Adding up the stack pointer
 *
 * Moving ESP must leave the flags alone, so each PUSH is a store and a LEA, and in call-heavy code the LEAs, one waiting
 * for the other, are half the time. The translator knows the sum: it emits the stores at growing displacements and one
 * LEA where the run ends. For a fault or a kick in between, the source/target table says per guest instruction how far
 * R12 is behind.
:*/
static bool window(const struct tx *t)
{
    return t->insn.osz == 4 && !(t->mode & RC_MODE_SS_ODD) && t->form == BT_FORM_WINDOW;
}

unsigned tx_host_reg(unsigned guest)
{
    return guest == RC_ESP ? E_R12 : guest;
}

void tx_esp_settle(struct tx *t)
{
    if (t->esp)
        e_esp_add(&t->e, t->esp);
    t->esp = 0;
}

/* ESP as an operand, not as a base: its true value is wanted. */
static bool names_esp(const struct bt_insn *i)
{
    if ((i->vex_gpr & BT_VEX_V) && bt_vex_get(i).v == RC_ESP)
        return true;
    if (i->has_modrm)
        return (tx_reg_is_gpr(i) && !tx_reg_is_byte(i) && i->reg == RC_ESP) ||
               (i->mod == 3 && tx_rm_is_gpr(i) && !tx_rm_is_byte(i) && i->rm == RC_ESP);
    return (i->opcode & 7) ==
           RC_ESP; /* register in the opcode byte; settling for others as well is harmless */
}

bool tx_esp_aware(const struct tx *t, enum tx_kind kind)
{
    if (t->form != BT_FORM_WINDOW || t->esp < -96 || t->esp > 96)
        return false;
    switch (kind) {
    case TX_PUSH_REG:
    case TX_POP_REG:
    case TX_PUSH_RM:
    case TX_POP_RM:
    case TX_CALL_RM:
        return window(t) && !names_esp(&t->insn);
    case TX_PUSH_IMM:
    case TX_PUSH_SEG:
    case TX_PUSHF:
    case TX_LEAVE:
    case TX_CALL:
    case TX_RET:
        return window(t);
    case TX_COPY:
    case TX_INCDEC:
    case TX_JMP_RM:
    case TX_MOV_FROM_SEG:
        return !names_esp(&t->insn);
    case TX_NOTHING:
    case TX_LEA:
    case TX_MOFFS:
    case TX_STRING:
    case TX_CLI:
    case TX_RDTSC:
        return true;
    default:
        return false;
    }
}

void tx_push(struct tx *t, unsigned host_reg)
{
    e_stack(&t->e, 0x89, host_reg, (int8_t)(t->esp - 4));
    t->esp -= 4;
}

/*T:555 Ring aliasing
 *
 * A guest that reads CS in its kernel must see ring 0, whatever ring the host runs it in. Selectors are read from the
 * vCPU structure, never from the CPU.
:*/
static void load_selector(struct emit *e, unsigned reg, unsigned seg) /* movzx reg, word [r15+selector] */
{
    EB(e, 0x41 | (reg >= 8 ? 4 : 0), 0x0f, 0xb7, 0x87 | (reg & 7) << 3);
    e32(e, (uint32_t)(offsetof(struct rc_cpu, seg) + seg * sizeof(struct rc_seg) +
                      offsetof(struct rc_seg, selector)));
}

bool tx_mov_from_seg(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    if (i->mod != 3 || i->osz != 4 || i->reg > RC_GS)
        return false;
    load_selector(&t->e, tx_host_reg(i->rm), i->reg);
    return true;
}

/* Which data segment register a MOV or POP loads; RC_SEG_COUNT: another, or a form that is left to the interpreter. */
static unsigned loaded_seg(const struct bt_insn *i, bool *is_pop)
{
    unsigned seg = i->has_modrm ? i->reg : i->opcode >> 3 & 7u;
    *is_pop = !i->has_modrm;
    if (i->has_modrm ? i->mod == 3 && i->rm == RC_ESP : i->osz != 4)
        return RC_SEG_COUNT;
    return seg == RC_ES || seg == RC_DS || seg == RC_FS || seg == RC_GS ? seg : RC_SEG_COUNT;
}

bool tx_load_seg(struct tx *t)
{
    struct emit *e = &t->e;
    bool is_pop;
    unsigned seg = loaded_seg(&t->insn, &is_pop);
    if (seg == RC_SEG_COUNT || (is_pop && !window(t)) || t->form >= BT_FORM_SOFT)
        return false;
    struct tx_op load = {.op = {0x0f, 0xb7}, .op_len = 2, .reg = E_R8}; /* movzx r8d, m16 */
    if (is_pop)
        e_stack(e, 0x8b, E_R8, 0);
    else if (t->insn.mod == 3)
        e_mov(e, false, E_R8, t->insn.rm);
    else if (!tx_emit_op(t, &load))
        return false;
    e_mov_imm(e, E_R9, seg);
    tx_call(t, t->v->stubs.light_seg);
    tx_light_end(t, is_pop ? 4 : 0);
    return true;
}

static void pop(struct tx *t)
{
    unsigned r = tx_host_reg(t->insn.opcode & 7);
    e_stack(&t->e, 0x8b, r, (int8_t)t->esp);
    t->esp += r == E_R12 ? 0 : 4;
}

/* ESP as a base of the destination is ESP after the pop (SDM vol. 2, POP). */
static bool pop_rm(struct tx *t)
{
    e_stack(&t->e, 0x8b, E_R10, (int8_t)t->esp);
    t->esp += 4;
    return tx_emit_op(t, &(struct tx_op){.op = {0x89}, .op_len = 1, .reg = E_R10});
}

static void leave(struct tx *t)
{
    struct emit *e = &t->e;
    e_window(e);
    EB(e, 0x44, 0x8b, 0x45, 0x00); /* mov r8d, window:[ebp] */
    EB(e, 0x44, 0x8d, 0x65, 0x04); /* lea r12d, [rbp+4] */
    e_mov(e, false, E_RBP, E_R8);
    t->esp = 0;
}

bool tx_stack(struct tx *t, enum tx_kind kind)
{
    const struct bt_insn *i = &t->insn;
    struct tx_op load = {.op = {0x8b}, .op_len = 1, .reg = E_R8};
    if (!window(t))
        return false;
    switch (kind) {
    case TX_PUSH_REG:
        tx_push(t, tx_host_reg(i->opcode & 7));
        return true;
    case TX_PUSH_IMM:
        e_window(&t->e);
        EB(&t->e, 0x41, 0xc7, 0x44, 0x24, (uint8_t)(t->esp - 4));
        e32(&t->e, i->imm);
        t->esp -= 4;
        return true;
    case TX_PUSH_RM:
        if (!tx_emit_op(t, &load))
            return false;
        tx_push(t, E_R8);
        return true;
    case TX_PUSH_SEG:
        load_selector(&t->e, E_R8, i->opcode >> 3 & 7);
        tx_push(t, E_R8);
        return true;
    case TX_POP_REG:
        pop(t);
        return true;
    case TX_POP_RM:
        return pop_rm(t);
    case TX_LEAVE:
        leave(t);
        return true;
    default:
        return false;
    }
}
