/* Which instruction is emitted how. What no row allows goes to the interpreter. */
#include "translate.h"

#define ROW8(k) k, k, k, k, k, k, k, k
#define ALU     TX_COPY, TX_COPY, TX_COPY, TX_COPY, TX_COPY, TX_COPY, TX_INTERP, TX_INTERP

static const uint8_t map0[256] = {
    [0x00] = ALU,
    [0x08] = ALU,
    [0x10] = ALU,
    [0x18] = ALU,
    [0x20] = ALU,
    [0x28] = ALU,
    [0x30] = ALU,
    [0x38] = ALU,
    [0x40] = ROW8(TX_INCDEC),
    ROW8(TX_INCDEC),
    ROW8(TX_PUSH_REG),
    ROW8(TX_POP_REG),
    [0x68] = TX_PUSH_IMM,
    TX_COPY,
    TX_PUSH_IMM,
    TX_COPY,
    [0x70] = ROW8(TX_JCC),
    ROW8(TX_JCC),
    [0x80] = TX_COPY,
    TX_COPY,
    TX_INTERP,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    [0x88] = TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_INTERP,
    TX_LEA,
    TX_INTERP,
    TX_INTERP,
    [0x90] = ROW8(TX_COPY),
    TX_COPY,
    TX_COPY,
    TX_END,
    TX_COPY,
    TX_INTERP,
    TX_INTERP,
    TX_COPY,
    TX_COPY,
    [0xa0] = TX_MOFFS,
    TX_MOFFS,
    TX_MOFFS,
    TX_MOFFS,
    TX_STRING,
    TX_STRING,
    TX_STRING,
    TX_STRING,
    [0xa8] = TX_COPY,
    TX_COPY,
    TX_STRING,
    TX_STRING,
    TX_STRING,
    TX_STRING,
    TX_STRING,
    TX_STRING,
    [0xb0] = ROW8(TX_COPY),
    ROW8(TX_COPY),
    [0xc0] = TX_COPY,
    TX_COPY,
    TX_RET,
    TX_RET,
    TX_INTERP,
    TX_INTERP,
    TX_COPY,
    TX_COPY,
    [0xc8] = TX_INTERP,
    TX_LEAVE,
    TX_END,
    TX_END,
    TX_END,
    TX_END,
    TX_END,
    TX_END,
    [0xd0] = TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_INTERP,
    TX_INTERP,
    TX_INTERP,
    TX_INTERP,
    [0xd8] = ROW8(TX_COPY),
    [0xe0] = TX_LOOP,
    TX_LOOP,
    TX_LOOP,
    TX_LOOP,
    TX_INTERP,
    TX_INTERP,
    TX_INTERP,
    TX_INTERP,
    [0xe8] = TX_CALL,
    TX_JMP,
    TX_END,
    TX_JMP,
    TX_INTERP,
    TX_INTERP,
    TX_INTERP,
    TX_INTERP,
    [0xf0] = TX_INTERP,
    TX_END,
    TX_INTERP,
    TX_INTERP,
    TX_END,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    [0xf8] = TX_COPY,
    TX_COPY,
    TX_INTERP,
    TX_INTERP,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_INTERP,
};

static const uint8_t map0f[256] = {
    /* integer class only */
    [0x00] = TX_INTERP,
    [0x0b] = TX_END,
    [0x0d] = TX_NOTHING,
    [0x18] = ROW8(TX_NOTHING),
    [0x34] = TX_END,
    [0x35] = TX_END,
    [0x40] = ROW8(TX_COPY),
    ROW8(TX_COPY),
    [0x80] = ROW8(TX_JCC),
    ROW8(TX_JCC),
    ROW8(TX_COPY),
    ROW8(TX_COPY),
    [0xa3] = TX_COPY,
    TX_COPY,
    TX_COPY,
    [0xab] = TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_INTERP,
    TX_COPY,
    [0xb0] = TX_COPY,
    TX_COPY,
    [0xb3] = TX_COPY,
    [0xb6] = TX_COPY,
    TX_COPY,
    [0xb8] = TX_COPY,
    [0xb9] = TX_END,
    [0xba] = TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    TX_COPY,
    [0xc0] = TX_COPY,
    TX_COPY,
    [0xc3] = TX_COPY,
    [0xc7] = TX_COPY,
    [0xc8] = ROW8(TX_COPY),
    [0xff] = TX_END,
};

static enum tx_kind classify_0f(const struct bt_insn *i)
{
    unsigned op = i->opcode;
    if (op == 0xae) /* fences, LDMXCSR, STMXCSR are safe copies; FXSAVE, FXRSTOR, CLFLUSH are not */
        return i->mod == 3                  ? (i->reg >= 5 ? TX_COPY : TX_INTERP)
               : i->reg == 2 || i->reg == 3 ? TX_COPY
                                            : TX_INTERP;
    if (i->class == BT_CLASS_MMX || i->class == BT_CLASS_SSE)
        return op == 0xf7 ? TX_INTERP : TX_COPY; /* MASKMOV stores through EDI */
    if (op == 0xc7)
        return i->is_mem ? (i->reg == 1 ? TX_COPY : TX_INTERP) : i->reg == 6 ? TX_COPY : TX_INTERP;
    if (op == 0xba && i->reg < 4)
        return TX_INTERP;
    return (enum tx_kind)map0f[op];
}

static enum tx_kind classify_0(const struct bt_insn *i)
{
    switch (i->opcode) {
    case 0x8f:
        return TX_INTERP;
    case 0xd9:
    case 0xdd: /* FLDENV, FNSTENV, FRSTOR, FNSAVE show instruction pointers */
        if (i->is_mem && (i->reg == 4 || i->reg == 6))
            return TX_INTERP;
        return TX_COPY;
    case 0xc6:
    case 0xc7:
        return i->reg == 0 ? TX_COPY : TX_INTERP;
    case 0xfe:
        return i->reg < 2 ? TX_COPY : TX_INTERP;
    case 0xff:
        return i->reg < 2    ? TX_COPY
               : i->reg == 2 ? TX_CALL_RM
               : i->reg == 4 ? TX_JMP_RM
               : i->reg == 6 ? TX_PUSH_RM
                             : TX_END;
    default:
        return (enum tx_kind)map0[i->opcode];
    }
}

enum tx_kind tx_classify(const struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    if (i->class == BT_CLASS_X87 && (t->mode & RC_MODE_FPU_TRAP))
        return TX_INTERP;
    if ((i->class == BT_CLASS_MMX || i->class == BT_CLASS_SSE) &&
        (t->mode & (RC_MODE_NO_SSE | RC_MODE_FPU_TRAP)))
        return TX_INTERP;
    switch (i->map) {
    case ZYDIS_OPCODE_MAP_DEFAULT:
        return classify_0(i);
    case ZYDIS_OPCODE_MAP_0F:
        return classify_0f(i);
    case ZYDIS_OPCODE_MAP_0F38:
    case ZYDIS_OPCODE_MAP_0F3A:
        return TX_COPY; /* SSSE3, SSE4, AES, SHA, ADX, MOVBE, CRC32: the decoder refused all else */
    default:
        return TX_INTERP;
    }
}

/* ---- what the ModRM fields name ---- */

static bool group(const struct bt_insn *i) /* ModRM.reg extends the opcode */
{
    unsigned op = i->opcode;
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT)
        return (op >= 0x80 && op <= 0x83) || op == 0x8f || op == 0xc0 || op == 0xc1 || op == 0xc6 ||
               op == 0xc7 || (op >= 0xd0 && op <= 0xd3) || (op >= 0xd8 && op <= 0xdf) || op == 0xf6 ||
               op == 0xf7 || op >= 0xfe;
    if (i->map == ZYDIS_OPCODE_MAP_0F)
        return op == 0xba || op == 0xc7 || op == 0xae || (op >= 0x18 && op <= 0x1f) ||
               (op >= 0x90 && op <= 0x9f) || (op >= 0x71 && op <= 0x73);
    return false;
}

static bool simd(const struct bt_insn *i)
{
    return i->class == BT_CLASS_MMX || i->class == BT_CLASS_SSE;
}

bool tx_reg_is_gpr(const struct bt_insn *i)
{
    if (i->map == ZYDIS_OPCODE_MAP_0F38)
        return i->opcode == 0xf0 || i->opcode == 0xf1 || i->opcode == 0xf6;
    if (i->map == ZYDIS_OPCODE_MAP_0F3A)
        return false;
    if (group(i) || i->class == BT_CLASS_X87)
        return false;
    if (i->map == ZYDIS_OPCODE_MAP_0F && i->opcode == 0xc3)
        return true; /* MOVNTI */
    if (simd(i))
        return i->opcode == 0x50 || i->opcode == 0xd7 || i->opcode == 0x2c || i->opcode == 0x2d ||
               i->opcode == 0xc5;
    return true;
}

bool tx_rm_is_gpr(const struct bt_insn *i) /* asked for mod 3 only */
{
    if (i->map == ZYDIS_OPCODE_MAP_0F38)
        return i->opcode == 0xf0 || i->opcode == 0xf1 || i->opcode == 0xf6;
    if (i->map == ZYDIS_OPCODE_MAP_0F3A)
        return (i->opcode >= 0x14 && i->opcode <= 0x17) || i->opcode == 0x20 || i->opcode == 0x22;
    if (i->class == BT_CLASS_X87 || (i->map == ZYDIS_OPCODE_MAP_0F && i->opcode == 0xae))
        return false;
    if (simd(i)) /* F3 0F 7E is MOVQ xmm, xmm */
        return i->opcode == 0x2a || i->opcode == 0x6e || (i->opcode == 0x7e && !i->rep) || i->opcode == 0xc4;
    return true;
}

static bool byte_form(const struct bt_insn *i)
{
    unsigned op = i->opcode;
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT)
        return (op < 0x40 && !(op & 1)) || op == 0x80 || op == 0x84 || op == 0x86 || op == 0x88 ||
               op == 0x8a || op == 0xc0 || op == 0xc6 || op == 0xd0 || op == 0xd2 || op == 0xf6 || op == 0xfe;
    return i->map == ZYDIS_OPCODE_MAP_0F && (op == 0xb0 || op == 0xc0);
}

bool tx_reg_is_byte(const struct bt_insn *i)
{
    return byte_form(i) && !group(i);
}

bool tx_rm_is_byte(const struct bt_insn *i)
{
    if (byte_form(i))
        return true;
    if (i->map == ZYDIS_OPCODE_MAP_0F && !simd(i))
        return i->opcode == 0xb6 || i->opcode == 0xbe || (i->opcode >= 0x90 && i->opcode <= 0x9f);
    return i->map == ZYDIS_OPCODE_MAP_0F38 && i->opcode == 0xf0 && i->repne; /* CRC32 r, r/m8 */
}
