/*
 * Shifts, rotates, bit tests, bit scans, population count, CRC32.
 */
#include "interp_families.h"
#include "interp_flags.h"

BT_DEFINE_SHIFT(rol, "rol")
BT_DEFINE_SHIFT(ror, "ror")
BT_DEFINE_SHIFT(rcl, "rcl")
BT_DEFINE_SHIFT(rcr, "rcr")
BT_DEFINE_SHIFT(shl, "shl")
BT_DEFINE_SHIFT(shr, "shr")
BT_DEFINE_SHIFT(sar, "sar")
BT_DEFINE_DOUBLE_SHIFT(shld, "shld")
BT_DEFINE_DOUBLE_SHIFT(shrd, "shrd")
BT_DEFINE_WIDE(bt, "bt")
BT_DEFINE_WIDE(bts, "bts")
BT_DEFINE_WIDE(btr, "btr")
BT_DEFINE_WIDE(btc, "btc")
BT_DEFINE_WIDE(bsf, "bsf")
BT_DEFINE_WIDE(bsr, "bsr")
BT_DEFINE_WIDE(tzcnt, "tzcnt")
BT_DEFINE_WIDE(lzcnt, "lzcnt")
BT_DEFINE_WIDE(popcnt, "popcnt")

/* op with the long form only. */
#define DEFINE_LONG(name, op)                                                                                \
    BT_INLINE uint32_t bt_do_##name(uint32_t a, uint32_t b, uint32_t *eflags)                                \
    {                                                                                                        \
        uint32_t ax = bt_flags_pack(*eflags);                                                                \
        __asm__(BT_FLAGS_IN op " %k2, %k1" BT_FLAGS_OUT : "+&a"(ax), "+r"(a) : "r"(b) : "cc");               \
        *eflags = bt_flags_unpack(*eflags, ax);                                                              \
        return a;                                                                                            \
    }
DEFINE_LONG(adcx, "adcxl")
DEFINE_LONG(adox, "adoxl")

typedef uint32_t shift_fn(uint32_t a, uint32_t count, unsigned size, uint32_t *eflags);
typedef uint32_t double_shift_fn(uint32_t a, uint32_t b, uint32_t count, unsigned size, uint32_t *eflags);
typedef uint32_t wide_fn(uint32_t a, uint32_t b, unsigned size, uint32_t *eflags);

/* C0/C1 by immediate, D0/D1 by one, D2/D3 by CL. The CPU masks the count. */
BT_INLINE uint32_t shift_count(const struct bt_interp *in, const struct bt_insn *i)
{
    if (i->opcode < 0xd0)
        return i->imm;
    return i->opcode & 2 ? in->cpu->gpr[RC_ECX] : 1;
}

BT_INLINE enum bt_step shift_rm(struct bt_interp *in, const struct bt_insn *i, shift_fn *fn, unsigned size)
{
    struct bt_rmw m;
    uint32_t a, flags = in->cpu->eflags;
    if (!bt_rmw_open(in, i, size, &m, &a))
        return BT_STEP_FAULT;
    a = fn(a, shift_count(in, i), size, &flags);
    if (!bt_rmw_close(in, &m, a))
        return BT_STEP_FAULT;
    in->cpu->eflags = flags;
    return BT_STEP_OK;
}

#define DEFINE_SHIFT_HANDLER(name)                                                                           \
    enum bt_step bt_h_##name(struct bt_interp *in, const struct bt_insn *i)                                  \
    {                                                                                                        \
        if (i->opsize == 4)                                                                                  \
            return shift_rm(in, i, bt_do_##name, 4);                                                         \
        if (i->opsize == 1)                                                                                  \
            return shift_rm(in, i, bt_do_##name, 1);                                                         \
        return shift_rm(in, i, bt_do_##name, 2);                                                             \
    }

DEFINE_SHIFT_HANDLER(rol)
DEFINE_SHIFT_HANDLER(ror)
DEFINE_SHIFT_HANDLER(rcl)
DEFINE_SHIFT_HANDLER(rcr)
DEFINE_SHIFT_HANDLER(shl)
DEFINE_SHIFT_HANDLER(shr)
DEFINE_SHIFT_HANDLER(sar)

/* A4/AC by immediate, A5/AD by CL */
BT_INLINE enum bt_step double_shift(struct bt_interp *in, const struct bt_insn *i, double_shift_fn *fn)
{
    struct bt_rmw m;
    uint32_t a, flags = in->cpu->eflags, count = i->opcode & 1 ? in->cpu->gpr[RC_ECX] : i->imm;
    if (!bt_rmw_open(in, i, i->osz, &m, &a))
        return BT_STEP_FAULT;
    a = fn(a, bt_reg(in, i->reg, i->osz), count, i->osz, &flags);
    if (!bt_rmw_close(in, &m, a))
        return BT_STEP_FAULT;
    in->cpu->eflags = flags;
    return BT_STEP_OK;
}

enum bt_step bt_h_shld(struct bt_interp *in, const struct bt_insn *i)
{
    return double_shift(in, i, bt_do_shld);
}

enum bt_step bt_h_shrd(struct bt_interp *in, const struct bt_insn *i)
{
    return double_shift(in, i, bt_do_shrd);
}

/* BT, BTS, BTR, BTC are bits 3-4 of the opcode (A3 AB B3 BB) and of the group's reg field. */
static uint32_t bit_op(unsigned which, uint32_t a, uint32_t bit, unsigned size, uint32_t *flags)
{
    switch (which & 3) {
    case 0:
        return bt_do_bt(a, bit, size, flags);
    case 1:
        return bt_do_bts(a, bit, size, flags);
    case 2:
        return bt_do_btr(a, bit, size, flags);
    default:
        return bt_do_btc(a, bit, size, flags);
    }
}

static enum bt_step bit_apply(struct bt_interp *in, const struct bt_insn *i, unsigned which, uint32_t off,
                              uint32_t bit)
{
    struct bt_rmw m = {.size = i->osz};
    uint32_t a, flags = in->cpu->eflags;
    bool ok;
    if (!i->is_mem)
        ok = bt_rmw_open(in, i, i->osz, &m, &a);
    else if (which == 0)
        ok = bt_read(in, i->seg, off, i->osz, &a);
    else
        ok = bt_rmw_open_at(in, i->seg, off, i->osz, &m, &a);
    if (!ok)
        return BT_STEP_FAULT;
    a = bit_op(which, a, bit, i->osz, &flags);
    if (which != 0 && !bt_rmw_close(in, &m, a))
        return BT_STEP_FAULT;
    in->cpu->eflags = flags;
    return BT_STEP_OK;
}

/* A register's bit offset is signed and reaches 2^31 bits either way in memory (vol. 2 BT). */
enum bt_step bt_h_bt_rm_r(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t bit = bt_reg(in, i->reg, i->osz), off = 0;
    if (i->is_mem) {
        int32_t index = i->osz == 4 ? (int32_t)bit >> 5 : (int16_t)bit >> 4;
        off = bt_ea(in, i) + (uint32_t)index * i->osz;
        if (i->asz == 2)
            off &= 0xffff;
    }
    return bit_apply(in, i, i->opcode >> 3 & 3, off, bit);
}

/* 0F BA /4-/7 */
enum bt_step bt_h_bt_rm_imm(struct bt_interp *in, const struct bt_insn *i)
{
    return bit_apply(in, i, i->reg & 3, i->is_mem ? bt_ea(in, i) : 0, i->imm & (i->osz * 8u - 1));
}

/* The destination's old value matters: BSF of zero leaves it alone on every CPU that matters. */
BT_INLINE enum bt_step scan(struct bt_interp *in, const struct bt_insn *i, wide_fn *fn)
{
    uint32_t src;
    if (!bt_read_rm(in, i, i->osz, &src))
        return BT_STEP_FAULT;
    uint32_t v = fn(bt_reg(in, i->reg, i->osz), src, i->osz, &in->cpu->eflags);
    bt_set_reg(in, i->reg, i->osz, v);
    return BT_STEP_OK;
}

/* Without the feature the prefix is ignored. */
enum { FEATURE7_EBX_BMI1 = 1 << 3, EXT_ECX_LZCNT = 1 << 5 };
enum bt_step bt_h_bsf(struct bt_interp *in, const struct bt_insn *i)
{
    return i->rep && (in->cpu->config.feature7_ebx & FEATURE7_EBX_BMI1) ? scan(in, i, bt_do_tzcnt)
                                                                        : scan(in, i, bt_do_bsf);
}

enum bt_step bt_h_bsr(struct bt_interp *in, const struct bt_insn *i)
{
    return i->rep && (in->cpu->config.ext_ecx & EXT_ECX_LZCNT) ? scan(in, i, bt_do_lzcnt)
                                                               : scan(in, i, bt_do_bsr);
}

enum { FEATURE_ECX_SSE42 = 1 << 20, FEATURE_ECX_MOVBE = 1 << 22, FEATURE_ECX_POPCNT = 1 << 23 };

enum bt_step bt_h_popcnt(struct bt_interp *in, const struct bt_insn *i)
{
    if (!i->rep || !(in->cpu->config.feature_ecx & FEATURE_ECX_POPCNT))
        return bt_raise(in, RC_UD);
    return scan(in, i, bt_do_popcnt);
}

static enum bt_step crc32(struct bt_interp *in, const struct bt_insn *i)
{
    unsigned size = i->opcode == 0xf0 ? 1 : i->osz;
    uint32_t src, crc = in->cpu->gpr[i->reg];
    if (!bt_read_rm(in, i, size, &src))
        return BT_STEP_FAULT;
    if (size == 1)
        __asm__("crc32b %b1, %k0" : "+r"(crc) : "q"(src));
    else if (size == 2)
        __asm__("crc32w %w1, %k0" : "+r"(crc) : "r"(src));
    else
        __asm__("crc32l %k1, %k0" : "+r"(crc) : "r"(src));
    in->cpu->gpr[i->reg] = crc;
    return BT_STEP_OK;
}

/* 0F 38 F0/F1: CRC32 with F2, MOVBE without */
enum bt_step bt_h_f038(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t needs = i->repne ? FEATURE_ECX_SSE42 : FEATURE_ECX_MOVBE;
    if (!(in->cpu->config.feature_ecx & needs))
        return bt_raise(in, RC_UD);
    return i->repne ? crc32(in, i) : bt_h_movbe(in, i);
}

enum { FEATURE7_EBX_ADX = 1 << 19 };

/* 0F 38 F6: ADCX with 66, ADOX with F3; 32-bit operands always */
enum bt_step bt_h_adx(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t src, *r = &in->cpu->gpr[i->reg];
    if (!(in->cpu->config.feature7_ebx & FEATURE7_EBX_ADX))
        return bt_raise(in, RC_UD);
    if (!bt_read_rm(in, i, 4, &src))
        return BT_STEP_FAULT;
    *r = i->rep ? bt_do_adox(*r, src, &in->cpu->eflags) : bt_do_adcx(*r, src, &in->cpu->eflags);
    return BT_STEP_OK;
}
