/*
 * Moves: MOV, MOVZX, MOVSX, LEA, XCHG, BSWAP, MOVBE, XLAT, CMOVcc, SETcc, CBW, CWD, LAHF, SAHF, SALC and the
 * flag bits, CPU hints.
 */
#include "interp_families.h"
#include "interp_flags.h"

#define BY_SIZE(form)                                                                                        \
    if (i->opsize == 4)                                                                                      \
        return form(in, i, 4);                                                                               \
    if (i->opsize == 1)                                                                                      \
        return form(in, i, 1);                                                                               \
    return form(in, i, 2)

BT_INLINE enum bt_step load(struct bt_interp *in, const struct bt_insn *i, unsigned size)
{
    uint32_t v;
    if (!bt_read_rm(in, i, size, &v))
        return BT_STEP_FAULT;
    bt_set_reg(in, i->reg, size, v);
    return BT_STEP_OK;
}

BT_INLINE enum bt_step store(struct bt_interp *in, const struct bt_insn *i, unsigned size)
{
    return bt_write_rm(in, i, size, bt_reg(in, i->reg, size)) ? BT_STEP_OK : BT_STEP_FAULT;
}

enum bt_step bt_h_mov_r_rm(struct bt_interp *in, const struct bt_insn *i)
{
    BY_SIZE(load);
}

enum bt_step bt_h_mov_rm_r(struct bt_interp *in, const struct bt_insn *i)
{
    BY_SIZE(store);
}

enum bt_step bt_h_mov_rm_imm(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_write_rm(in, i, i->opsize, i->imm) ? BT_STEP_OK : BT_STEP_FAULT;
}

/* B0-BF */
enum bt_step bt_h_mov_r_imm(struct bt_interp *in, const struct bt_insn *i)
{
    bt_set_reg(in, i->opcode & 7, i->opsize, i->imm);
    return BT_STEP_OK;
}

/* A0-A3: the offset is an immediate of the address size */
enum bt_step bt_h_mov_acc_moffs(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!bt_read(in, i->seg, bt_ea(in, i), i->opsize, &v))
        return BT_STEP_FAULT;
    bt_set_reg(in, RC_EAX, i->opsize, v);
    return BT_STEP_OK;
}

enum bt_step bt_h_mov_moffs_acc(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_write(in, i->seg, bt_ea(in, i), i->opsize, bt_reg(in, RC_EAX, i->opsize)) ? BT_STEP_OK
                                                                                        : BT_STEP_FAULT;
}

/* 0F B6/B7/BE/BF: bit 0 of the opcode is the source's size, bit 3 the sign */
enum bt_step bt_h_movx(struct bt_interp *in, const struct bt_insn *i)
{
    unsigned size = i->opcode & 1 ? 2 : 1;
    uint32_t v;
    if (!bt_read_rm(in, i, size, &v))
        return BT_STEP_FAULT;
    if (i->opcode & 8)
        v = size == 1 ? (uint32_t)(int8_t)v : (uint32_t)(int16_t)v;
    bt_set_reg(in, i->reg, i->osz, v);
    return BT_STEP_OK;
}

enum bt_step bt_h_lea(struct bt_interp *in, const struct bt_insn *i)
{
    if (!i->is_mem)
        return bt_raise(in, RC_UD);
    bt_set_reg(in, i->reg, i->osz, bt_ea(in, i));
    return BT_STEP_OK;
}

enum bt_step bt_h_xchg_rm(struct bt_interp *in, const struct bt_insn *i)
{
    struct bt_rmw m;
    uint32_t old, src = bt_reg(in, i->reg, i->opsize);
    if (!bt_rmw_open(in, i, i->opsize, &m, &old) || !bt_rmw_close(in, &m, src))
        return BT_STEP_FAULT;
    bt_set_reg(in, i->reg, i->opsize, old);
    return BT_STEP_OK;
}

/* 90-97; 90 is XCHG EAX, EAX: NOP, and PAUSE with F3 */
enum bt_step bt_h_xchg_acc(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t *r = &in->cpu->gpr[i->opcode & 7], *a = &in->cpu->gpr[RC_EAX], v = bt_load(r, i->osz);
    bt_store(r, i->osz, bt_load(a, i->osz));
    bt_store(a, i->osz, v);
    return BT_STEP_OK;
}

/* With a 16-bit operand the manual leaves the result open: ask the CPU. */
enum bt_step bt_h_bswap(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t *r = &in->cpu->gpr[i->opcode & 7], v = *r;
    if (i->osz == 4)
        *r = __builtin_bswap32(v);
    else
        __asm__(".byte 0x66, 0x0f, 0xc8" : "+a"(v)); /* bswap ax */
    if (i->osz == 2)
        bt_store(r, 2, v);
    return BT_STEP_OK;
}

static uint32_t swap_bytes(uint32_t v, unsigned size)
{
    return size == 4 ? __builtin_bswap32(v) : __builtin_bswap16((uint16_t)v);
}

/* 0F 38 F0/F1 without F2 */
enum bt_step bt_h_movbe(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!i->is_mem)
        return bt_raise(in, RC_UD);
    if (i->opcode & 1)
        return bt_write_rm(in, i, i->osz, swap_bytes(bt_reg(in, i->reg, i->osz), i->osz)) ? BT_STEP_OK
                                                                                          : BT_STEP_FAULT;
    if (!bt_read_rm(in, i, i->osz, &v))
        return BT_STEP_FAULT;
    bt_set_reg(in, i->reg, i->osz, swap_bytes(v, i->osz));
    return BT_STEP_OK;
}

enum bt_step bt_h_xlat(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v, a = in->cpu->gpr[RC_EBX] + (in->cpu->gpr[RC_EAX] & 0xff);
    if (!bt_read(in, i->seg, i->asz == 2 ? a & 0xffff : a, 1, &v))
        return BT_STEP_FAULT;
    bt_set_reg(in, RC_EAX, 1, v);
    return BT_STEP_OK;
}

/* The source is read, and may fault, whatever the condition says (vol. 2 CMOVcc). */
enum bt_step bt_h_cmov(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!bt_read_rm(in, i, i->osz, &v))
        return BT_STEP_FAULT;
    if (bt_condition(in->cpu->eflags, i->opcode))
        bt_set_reg(in, i->reg, i->osz, v);
    return BT_STEP_OK;
}

enum bt_step bt_h_setcc(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_write_rm(in, i, 1, bt_condition(in->cpu->eflags, i->opcode)) ? BT_STEP_OK : BT_STEP_FAULT;
}

/* 98: CBW, CWDE */
enum bt_step bt_h_cbw(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t *a = &in->cpu->gpr[RC_EAX];
    if (i->osz == 4)
        *a = (uint32_t)(int16_t)*a;
    else
        bt_store(a, 2, (uint32_t)(int8_t)*a);
    return BT_STEP_OK;
}

/* 99: CWD, CDQ */
enum bt_step bt_h_cwd(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t a = in->cpu->gpr[RC_EAX];
    bool negative = i->osz == 4 ? a >> 31 : a >> 15 & 1;
    bt_set_reg(in, RC_EDX, i->osz, negative ? UINT32_MAX : 0);
    return BT_STEP_OK;
}

enum bt_step bt_h_lahf(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    bt_set_reg(in, 4, 1, (in->cpu->eflags & BT_LAHF_FLAGS) | 2);
    return BT_STEP_OK;
}

enum bt_step bt_h_sahf(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    in->cpu->eflags = (in->cpu->eflags & ~(uint32_t)BT_LAHF_FLAGS) | (bt_reg(in, 4, 1) & BT_LAHF_FLAGS);
    return BT_STEP_OK;
}

/* D6, in no manual for twenty years and in every CPU: AL = CF ? FF : 0 */
enum bt_step bt_h_salc(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    bt_set_reg(in, RC_EAX, 1, in->cpu->eflags & RC_CF ? 0xff : 0);
    return BT_STEP_OK;
}

/* F5 CMC, F8 CLC, F9 STC, FC CLD, FD STD */
enum bt_step bt_h_flag_bit(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t bit = i->opcode >= 0xfc ? RC_DF : RC_CF;
    if (i->opcode == 0xf5)
        in->cpu->eflags ^= bit;
    else if (i->opcode & 1)
        in->cpu->eflags |= bit;
    else
        in->cpu->eflags &= ~bit;
    return BT_STEP_OK;
}

enum bt_step bt_h_nop(struct bt_interp *in, const struct bt_insn *i)
{
    (void)in;
    (void)i;
    return BT_STEP_OK;
}

/* CLFLUSH is to memory what a byte load is (vol. 2), and does nothing else that a guest could see. */
enum bt_step bt_h_clflush(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    return bt_read(in, i->seg, bt_ea(in, i), 1, &v) ? BT_STEP_OK : BT_STEP_FAULT;
}

enum bt_step bt_h_ud(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_raise(in, RC_UD);
}
