/* Which instruction is emitted how. What no row allows goes to the interpreter. */
#include "translate.h"

/* clang-format off */
#define I TX_INTERP
#define C TX_COPY
#define N TX_NOTHING
#define E TX_END
#define J TX_JCC
#define S TX_PUSH_SEG
#define L TX_LOAD_SEG
#define R8(k) k, k, k, k, k, k, k, k

static const uint8_t map0[256] = {
    /* 00 */ C, C, C, C, C, C, S, L,  C, C, C, C, C, C, S, I,
    /* 10 */ C, C, C, C, C, C, S, I,  C, C, C, C, C, C, S, L,
    /* 20 */ C, C, C, C, C, C, I, I,  C, C, C, C, C, C, I, I,
    /* 30 */ C, C, C, C, C, C, I, I,  C, C, C, C, C, C, I, I,
    /* 40 */ R8(TX_INCDEC),           R8(TX_INCDEC),
    /* 50 */ R8(TX_PUSH_REG),         R8(TX_POP_REG),
    /* 60 */ I, I, I, I, I, I, I, I,  TX_PUSH_IMM, C, TX_PUSH_IMM, C, I, I, I, I,
    /* 70 */ R8(J),                   R8(J),
    /* 80 */ C, C, I, C, C, C, C, C,  C, C, C, C, TX_MOV_FROM_SEG, TX_LEA, L, I,
    /* 90 */ R8(C),                   C, C, E, C, TX_PUSHF, TX_POPF, C, C,
    /* a0 */ TX_MOFFS, TX_MOFFS, TX_MOFFS, TX_MOFFS, TX_STRING, TX_STRING, TX_STRING, TX_STRING,
    /* a8 */ C, C, TX_STRING, TX_STRING, TX_STRING, TX_STRING, TX_STRING, TX_STRING,
    /* b0 */ R8(C),                   R8(C),
    /* c0 */ C, C, TX_RET, TX_RET, I, I, C, C,  I, TX_LEAVE, E, E, E, E, E, E,
    /* d0 */ C, C, C, C, I, I, I, I,  R8(C),
    /* e0 */ R8(TX_LOOP) /* E4-E7: see classify_0 */,  TX_CALL, TX_JMP, E, TX_JMP, I, I, I, I,
    /* f0 */ I, E, I, I, E, C, C, C,  C, C, TX_CLI, TX_STI, C, C, C, I,
};

static const uint8_t map0f[256] = { /* integer class only */
    [0x0b] = E, [0x0d] = N, [0x18] = R8(N), [0x20] = TX_MOV_FROM_CR, [0x31] = TX_RDTSC, [0x34] = E, E,
    [0x40] = R8(C), R8(C),
    [0x80] = R8(J), R8(J), R8(C), R8(C),
    [0xa0] = S, L, I, C, C, C,    /* PUSH FS . . BT SHLD */
    [0xa8] = S, L, I,             /* PUSH GS */
    [0xab] = C, C, C, I, C,       /* BTS SHRD . IMUL */
    [0xb0] = C, C, I, C, I, I, C, C, /* CMPXCHG . BTR . . MOVZX */
    [0xb8] = C, E, C, C, C, C, C, C, /* POPCNT UD1 BTx BTC BSF BSR MOVSX */
    [0xc0] = C, C, I, C, I, I, I, C, /* XADD . MOVNTI . . . CMPXCHG8B, RDRAND */
    [0xc8] = R8(C), [0xff] = E,
};
#undef I
#undef C
#undef N
#undef E
#undef J
#undef S
#undef L
#undef R8
/* clang-format on */

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
        return i->is_mem && i->reg == 0 ? TX_POP_RM : TX_INTERP;
    case 0xe4:
    case 0xe5:
    case 0xe6:
    case 0xe7: /* IN, OUT */
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

/* Copies, but for those whose VEX.vvvv is a mask of memory not to be touched: these take no fault they should not, and
 * are copies, too; VMASKMOVDQU stores through EDI. */
static enum tx_kind classify_vex(const struct tx *t)
{
    enum { BMI = 1 << 3 | 1 << 8 };
    const struct bt_insn *i = &t->insn;
    if (i->class == BT_CLASS_BMI)
        return (t->v->cpu.config.feature7_ebx & BMI) == BMI ? TX_COPY : TX_INTERP;
    if (t->mode & RC_MODE_NO_AVX)
        return TX_INTERP;
    return i->map == ZYDIS_OPCODE_MAP_0F && i->opcode == 0xf7 ? TX_INTERP : TX_COPY;
}

enum tx_kind tx_classify(const struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    if (i->class == BT_CLASS_X87 && (t->mode & RC_MODE_FPU_TRAP))
        return TX_INTERP;
    if ((i->class == BT_CLASS_MMX || i->class == BT_CLASS_SSE) &&
        (t->mode & (RC_MODE_NO_SSE | RC_MODE_FPU_TRAP)))
        return TX_INTERP;
    if (i->vex)
        return classify_vex(t);
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
    if (i->vex)
        return i->vex_gpr & BT_VEX_REG;
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
    if (i->vex)
        return i->vex_gpr & BT_VEX_RM;
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
    if (i->vex)
        return false;
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
    if (byte_form(i) || i->vex)
        return !i->vex;
    if (i->map == ZYDIS_OPCODE_MAP_0F && !simd(i))
        return i->opcode == 0xb6 || i->opcode == 0xbe || (i->opcode >= 0x90 && i->opcode <= 0x9f);
    return i->map == ZYDIS_OPCODE_MAP_0F38 && i->opcode == 0xf0 && i->repne; /* CRC32 r, r/m8 */
}
