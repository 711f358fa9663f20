/*
 * Multiplication, division and decimal arithmetic. Products and quotients come from the real instruction,
 * which also leaves the flags that the manual calls undefined; a division is first checked to fit.
 */
#include "interp_families.h"
#include "interp_flags.h"

/* One-operand form on EDX:EAX: loads lo and hi, runs op with src, brings them back. */
#define DEFINE_WIDE_OP(name, op)                                                                             \
    static void name(uint32_t *lo, uint32_t *hi, uint32_t src, unsigned size, uint32_t *eflags)              \
    {                                                                                                        \
        uint32_t ax = bt_flags_pack(*eflags), l = *lo, h = *hi;                                              \
        if (size == 1)                                                                                       \
            __asm__(BT_FLAGS_IN "movl %k1, %%eax\n\t" op "b %b3\n\tmovl %%eax, %k1" BT_FLAGS_OUT             \
                    : "+&a"(ax), "+&r"(l), "+&d"(h)                                                          \
                    : "q"(src)                                                                               \
                    : "cc");                                                                                 \
        else if (size == 2)                                                                                  \
            __asm__(BT_FLAGS_IN "movl %k1, %%eax\n\t" op "w %w3\n\tmovl %%eax, %k1" BT_FLAGS_OUT             \
                    : "+&a"(ax), "+&r"(l), "+&d"(h)                                                          \
                    : "r"(src)                                                                               \
                    : "cc");                                                                                 \
        else                                                                                                 \
            __asm__(BT_FLAGS_IN "movl %k1, %%eax\n\t" op "l %k3\n\tmovl %%eax, %k1" BT_FLAGS_OUT             \
                    : "+&a"(ax), "+&r"(l), "+&d"(h)                                                          \
                    : "r"(src)                                                                               \
                    : "cc");                                                                                 \
        *eflags = bt_flags_unpack(*eflags, ax);                                                              \
        *lo = l;                                                                                             \
        *hi = h;                                                                                             \
    }

DEFINE_WIDE_OP(run_mul, "mul")
DEFINE_WIDE_OP(run_imul, "imul")
DEFINE_WIDE_OP(run_div, "div")
DEFINE_WIDE_OP(run_idiv, "idiv")
BT_DEFINE_WIDE(imul2, "imul")

typedef void wide_op(uint32_t *lo, uint32_t *hi, uint32_t src, unsigned size, uint32_t *eflags);

/* Byte forms live in AX alone, so they write no EDX; wider ones write both halves. */
static void apply(struct bt_interp *in, wide_op *op, uint32_t src, unsigned size)
{
    struct rc_cpu *cpu = in->cpu;
    uint32_t lo = cpu->gpr[RC_EAX], hi = cpu->gpr[RC_EDX];
    op(&lo, &hi, src, size, &cpu->eflags);
    bt_set_reg(in, RC_EAX, size == 4 ? 4 : 2, lo);
    if (size > 1)
        bt_set_reg(in, RC_EDX, size, hi);
}

enum bt_step bt_h_mul(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t src;
    if (!bt_read_rm(in, i, i->opsize, &src))
        return BT_STEP_FAULT;
    apply(in, run_mul, src, i->opsize);
    return BT_STEP_OK;
}

enum bt_step bt_h_imul(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t src;
    if (!bt_read_rm(in, i, i->opsize, &src))
        return BT_STEP_FAULT;
    apply(in, run_imul, src, i->opsize);
    return BT_STEP_OK;
}

static enum bt_step imul_to_reg(struct bt_interp *in, const struct bt_insn *i, uint32_t b)
{
    uint32_t a;
    if (!bt_read_rm(in, i, i->osz, &a))
        return BT_STEP_FAULT;
    bt_set_reg(in, i->reg, i->osz, bt_do_imul2(a, b, i->osz, &in->cpu->eflags));
    return BT_STEP_OK;
}

enum bt_step bt_h_imul_r_rm(struct bt_interp *in, const struct bt_insn *i)
{
    return imul_to_reg(in, i, bt_reg(in, i->reg, i->osz));
}

enum bt_step bt_h_imul_r_rm_imm(struct bt_interp *in, const struct bt_insn *i)
{
    return imul_to_reg(in, i, i->imm);
}

static uint64_t dividend(struct bt_interp *in, unsigned size)
{
    uint32_t a = in->cpu->gpr[RC_EAX], d = in->cpu->gpr[RC_EDX];
    if (size == 1)
        return a & 0xffff;
    if (size == 2)
        return (d & 0xffff) << 16 | (a & 0xffff);
    return (uint64_t)d << 32 | a;
}

static int64_t sign_extend(uint64_t v, unsigned bits)
{
    return (int64_t)(v << (64 - bits)) >> (64 - bits);
}

enum bt_step bt_h_div(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t src;
    if (!bt_read_rm(in, i, i->opsize, &src))
        return BT_STEP_FAULT;
    /* The quotient fits iff the dividend's upper half is below the divisor, which rules out 0 as well. */
    if ((dividend(in, i->opsize) >> (8 * i->opsize)) >= src)
        return bt_raise(in, RC_DE);
    apply(in, run_div, src, i->opsize);
    return BT_STEP_OK;
}

static bool idiv_fits(int64_t num, int64_t den, unsigned bits)
{
    if (den == 0 || (den == -1 && num == INT64_MIN))
        return false;
    int64_t q = num / den;
    return q >= -(INT64_C(1) << (bits - 1)) && q < INT64_C(1) << (bits - 1);
}

enum bt_step bt_h_idiv(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t src;
    unsigned bits = i->opsize * 8u;
    if (!bt_read_rm(in, i, i->opsize, &src))
        return BT_STEP_FAULT;
    if (!idiv_fits(sign_extend(dividend(in, i->opsize), 2 * bits), sign_extend(src, bits), bits))
        return bt_raise(in, RC_DE);
    apply(in, run_idiv, src, i->opsize);
    return BT_STEP_OK;
}

/* ---- Decimal arithmetic: no 64-bit CPU executes these, so they follow the manual's pseudocode (vol. 2).
 * SF, ZF and PF are those of AL; OF, undefined, is cleared. ---- */
static void set_decimal(struct bt_interp *in, uint8_t al, bool cf, bool af)
{
    uint32_t f = in->cpu->eflags & ~(uint32_t)RC_ARITH;
    bt_set_reg(in, RC_EAX, 1, al);
    f |= cf ? RC_CF : 0;
    f |= af ? RC_AF : 0;
    f |= al == 0 ? RC_ZF : 0;
    f |= al & 0x80 ? RC_SF : 0;
    f |= __builtin_parity(al) ? 0 : RC_PF;
    in->cpu->eflags = f;
}

enum bt_step bt_h_daa(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    uint8_t al = (uint8_t)in->cpu->gpr[RC_EAX], old = al;
    bool cf = in->cpu->eflags & RC_CF, af = in->cpu->eflags & RC_AF, high = old > 0x99 || cf;
    af = (al & 15) > 9 || af;
    if (af)
        al += 6;
    if (high)
        al += 0x60;
    set_decimal(in, al, high, af);
    return BT_STEP_OK;
}

enum bt_step bt_h_das(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    uint8_t al = (uint8_t)in->cpu->gpr[RC_EAX], old = al;
    bool cf = in->cpu->eflags & RC_CF, af = in->cpu->eflags & RC_AF, high = old > 0x99 || cf;
    af = (al & 15) > 9 || af;
    if (af) {
        cf = cf || al < 6;
        al -= 6;
    }
    if (high) {
        al -= 0x60;
        cf = true;
    }
    set_decimal(in, al, cf, af);
    return BT_STEP_OK;
}

/* AAA and AAS touch AX as a whole: the carry out of AL goes into AH with the 1. */
static enum bt_step ascii_adjust(struct bt_interp *in, int by)
{
    uint16_t ax = (uint16_t)in->cpu->gpr[RC_EAX];
    bool adjust = (ax & 15) > 9 || (in->cpu->eflags & RC_AF);
    if (adjust)
        ax = (uint16_t)(ax + by);
    bt_set_reg(in, RC_EAX, 2, ax);
    set_decimal(in, ax & 15, adjust, adjust);
    return BT_STEP_OK;
}

enum bt_step bt_h_aaa(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return ascii_adjust(in, 0x106);
}

enum bt_step bt_h_aas(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return ascii_adjust(in, -0x106);
}

enum bt_step bt_h_aam(struct bt_interp *in, const struct bt_insn *i)
{
    uint8_t base = (uint8_t)i->imm, al = (uint8_t)in->cpu->gpr[RC_EAX];
    if (base == 0)
        return bt_raise(in, RC_DE);
    bt_set_reg(in, 4, 1, al / base);
    set_decimal(in, al % base, false, false);
    return BT_STEP_OK;
}

enum bt_step bt_h_aad(struct bt_interp *in, const struct bt_insn *i)
{
    uint16_t ax = (uint16_t)in->cpu->gpr[RC_EAX];
    uint8_t al = (uint8_t)((ax & 0xff) + (ax >> 8) * (i->imm & 0xff));
    bt_set_reg(in, RC_EAX, 2, al);
    set_decimal(in, al, false, false);
    return BT_STEP_OK;
}
