/*
 * Integer arithmetic and logic: ADD to CMP, INC, DEC, NEG, NOT, TEST, CMPXCHG, XADD.
 */
#include "interp_families.h"
#include "interp_flags.h"

BT_DEFINE_BINARY(add, "add")
BT_DEFINE_BINARY(or, "or")
BT_DEFINE_BINARY(adc, "adc")
BT_DEFINE_BINARY(sbb, "sbb")
BT_DEFINE_BINARY(and, "and")
BT_DEFINE_BINARY(xor, "xor")
BT_DEFINE_UNARY(inc, "inc")
BT_DEFINE_UNARY(dec, "dec")
BT_DEFINE_UNARY(neg, "neg")

typedef uint32_t binary_fn(uint32_t a, uint32_t b, unsigned size, uint32_t *eflags);
typedef uint32_t unary_fn(uint32_t a, unsigned size, uint32_t *eflags);

/* The forms, each with the operand size as a constant, so that the asm of one size remains. */
BT_INLINE enum bt_step to_rm(struct bt_interp *in, const struct bt_insn *i, binary_fn *fn, uint32_t b,
                             unsigned size)
{
    struct bt_rmw m;
    uint32_t a, flags = in->cpu->eflags;
    if (!bt_rmw_open(in, i, size, &m, &a))
        return BT_STEP_FAULT;
    a = fn(a, b, size, &flags);
    if (!bt_rmw_close(in, &m, a))
        return BT_STEP_FAULT;
    in->cpu->eflags = flags;
    return BT_STEP_OK;
}

BT_INLINE enum bt_step to_reg(struct bt_interp *in, const struct bt_insn *i, binary_fn *fn, unsigned size)
{
    uint32_t b;
    if (!bt_read_rm(in, i, size, &b))
        return BT_STEP_FAULT;
    void *p = bt_reg_ptr(in, i->reg, size);
    bt_store(p, size, fn(bt_load(p, size), b, size, &in->cpu->eflags));
    return BT_STEP_OK;
}

BT_INLINE enum bt_step to_acc(struct bt_interp *in, const struct bt_insn *i, binary_fn *fn, unsigned size)
{
    void *p = &in->cpu->gpr[RC_EAX];
    bt_store(p, size, fn(bt_load(p, size), i->imm, size, &in->cpu->eflags));
    return BT_STEP_OK;
}

/* CMP and TEST: only the flags are wanted. */
BT_INLINE enum bt_step only_flags(struct bt_interp *in, const struct bt_insn *i, binary_fn *fn, uint32_t b,
                                  unsigned size)
{
    uint32_t a;
    if (!bt_read_rm(in, i, size, &a))
        return BT_STEP_FAULT;
    fn(a, b, size, &in->cpu->eflags);
    return BT_STEP_OK;
}

#define BY_SIZE(form, ...)                                                                                   \
    if (i->opsize == 4)                                                                                      \
        return form(in, i, __VA_ARGS__, 4);                                                                  \
    if (i->opsize == 1)                                                                                      \
        return form(in, i, __VA_ARGS__, 1);                                                                  \
    return form(in, i, __VA_ARGS__, 2)

#define DEFINE_HANDLER(name, form, ...)                                                                      \
    enum bt_step bt_h_##name(struct bt_interp *in, const struct bt_insn *i)                                  \
    {                                                                                                        \
        BY_SIZE(form, __VA_ARGS__);                                                                          \
    }

#define DEFINE_ALU(name)                                                                                     \
    DEFINE_HANDLER(name##_rm_r, to_rm, bt_do_##name, bt_reg(in, i->reg, i->opsize))                          \
    DEFINE_HANDLER(name##_rm_imm, to_rm, bt_do_##name, i->imm)                                               \
    DEFINE_HANDLER(name##_r_rm, to_reg, bt_do_##name)                                                        \
    DEFINE_HANDLER(name##_acc_imm, to_acc, bt_do_##name)

DEFINE_ALU(add)
DEFINE_ALU(or)
DEFINE_ALU(adc)
DEFINE_ALU(sbb)
DEFINE_ALU(and)
DEFINE_ALU(sub)
DEFINE_ALU(xor)

BT_INLINE enum bt_step flags_reg(struct bt_interp *in, const struct bt_insn *i, binary_fn *fn, unsigned size)
{
    uint32_t b;
    if (!bt_read_rm(in, i, size, &b))
        return BT_STEP_FAULT;
    fn(bt_reg(in, i->reg, size), b, size, &in->cpu->eflags);
    return BT_STEP_OK;
}

BT_INLINE enum bt_step flags_acc(struct bt_interp *in, const struct bt_insn *i, binary_fn *fn, unsigned size)
{
    fn(bt_load(&in->cpu->gpr[RC_EAX], size), i->imm, size, &in->cpu->eflags);
    return BT_STEP_OK;
}

DEFINE_HANDLER(cmp_rm_r, only_flags, bt_do_sub, bt_reg(in, i->reg, i->opsize))
DEFINE_HANDLER(cmp_rm_imm, only_flags, bt_do_sub, i->imm)
DEFINE_HANDLER(cmp_r_rm, flags_reg, bt_do_sub)
DEFINE_HANDLER(cmp_acc_imm, flags_acc, bt_do_sub)
DEFINE_HANDLER(test_rm_r, only_flags, bt_do_and, bt_reg(in, i->reg, i->opsize))
DEFINE_HANDLER(test_rm_imm, only_flags, bt_do_and, i->imm)
DEFINE_HANDLER(test_acc_imm, flags_acc, bt_do_and)

BT_INLINE enum bt_step unary_rm(struct bt_interp *in, const struct bt_insn *i, unary_fn *fn, unsigned size)
{
    struct bt_rmw m;
    uint32_t a, flags = in->cpu->eflags;
    if (!bt_rmw_open(in, i, size, &m, &a))
        return BT_STEP_FAULT;
    a = fn(a, size, &flags);
    if (!bt_rmw_close(in, &m, a))
        return BT_STEP_FAULT;
    in->cpu->eflags = flags;
    return BT_STEP_OK;
}

BT_INLINE uint32_t bt_do_not(uint32_t a, unsigned size, uint32_t *eflags)
{
    (void)size;
    (void)eflags;
    return ~a;
}

DEFINE_HANDLER(inc_rm, unary_rm, bt_do_inc)
DEFINE_HANDLER(dec_rm, unary_rm, bt_do_dec)
DEFINE_HANDLER(neg_rm, unary_rm, bt_do_neg)
DEFINE_HANDLER(not_rm, unary_rm, bt_do_not)

/* 40-4F: the register is in the opcode */
enum bt_step bt_h_inc_r(struct bt_interp *in, const struct bt_insn *i)
{
    void *p = &in->cpu->gpr[i->opcode & 7];
    bt_store(p, i->osz, bt_do_inc(bt_load(p, i->osz), i->osz, &in->cpu->eflags));
    return BT_STEP_OK;
}

enum bt_step bt_h_dec_r(struct bt_interp *in, const struct bt_insn *i)
{
    void *p = &in->cpu->gpr[i->opcode & 7];
    bt_store(p, i->osz, bt_do_dec(bt_load(p, i->osz), i->osz, &in->cpu->eflags));
    return BT_STEP_OK;
}

/* The destination is written in either case (vol. 2 CMPXCHG), so it must be writable in either case. */
enum bt_step bt_h_cmpxchg(struct bt_interp *in, const struct bt_insn *i)
{
    struct bt_rmw m;
    uint32_t old, flags = in->cpu->eflags, acc = bt_reg(in, RC_EAX, i->opsize);
    uint32_t new = bt_reg(in, i->reg, i->opsize);
    if (!bt_rmw_open(in, i, i->opsize, &m, &old))
        return BT_STEP_FAULT;
    bt_do_sub(acc, old, i->opsize, &flags);
    if (!bt_rmw_close(in, &m, acc == old ? new : old))
        return BT_STEP_FAULT;
    if (acc != old)
        bt_set_reg(in, RC_EAX, i->opsize, old);
    in->cpu->eflags = flags;
    return BT_STEP_OK;
}

enum bt_step bt_h_cmpxchg8b(struct bt_interp *in, const struct bt_insn *i)
{
    struct rc_cpu *cpu = in->cpu;
    uint32_t off = bt_ea(in, i), old[2], new[2];
    if (!bt_check_rmw(in, i->seg, off, 8) || !bt_read_bytes(in, i->seg, off, old, 8))
        return BT_STEP_FAULT;
    bool equal = old[0] == cpu->gpr[RC_EAX] && old[1] == cpu->gpr[RC_EDX];
    new[0] = equal ? cpu->gpr[RC_EBX] : old[0];
    new[1] = equal ? cpu->gpr[RC_ECX] : old[1];
    if (!bt_write_bytes(in, i->seg, off, new, 8))
        return BT_STEP_FAULT;
    if (!equal) {
        cpu->gpr[RC_EAX] = old[0];
        cpu->gpr[RC_EDX] = old[1];
    }
    cpu->eflags = (cpu->eflags & ~(uint32_t)RC_ZF) | (equal ? RC_ZF : 0);
    return BT_STEP_OK;
}

/* Source gets the old destination first: for XADD r, r of one register the sum wins. */
enum bt_step bt_h_xadd(struct bt_interp *in, const struct bt_insn *i)
{
    struct bt_rmw m;
    uint32_t old, flags = in->cpu->eflags, src = bt_reg(in, i->reg, i->opsize);
    if (!bt_rmw_open(in, i, i->opsize, &m, &old))
        return BT_STEP_FAULT;
    uint32_t sum = bt_do_add(old, src, i->opsize, &flags);
    if (m.p)
        bt_set_reg(in, i->reg, i->opsize, old);
    if (!bt_rmw_close(in, &m, sum))
        return BT_STEP_FAULT;
    if (!m.p)
        bt_set_reg(in, i->reg, i->opsize, old);
    in->cpu->eflags = flags;
    return BT_STEP_OK;
}
