/*
 * The plain instructions of 32-bit code, decoded without Zydis: in 17 ns instead of 97, their length alone in 9, and to Zydis
 * less than one in a hundred is left. Nothing here knows what an instruction is: that is asked of Zydis once for all that
 * look alike.
 */
#include <string.h>
#include "insn.h"
#include "ringcomp/ringcomp.h"

/*T:305 Decoding what is plain
 *
 * A program's first run is mostly decoding: each instruction that is translated, and each of a page that is to run natively.
 * All but one in a hundred are of the kind that has looked the same since 1985: perhaps prefixes, an opcode of one byte or 0F and
 * another, perhaps ModRM, SIB and displacement, perhaps an immediate. Where such an instruction's parts are is a matter of
 * two look-ups. All else about it (its name, how wide its operands and its immediate are, whether it writes memory)
 * follows from prefix, opcode, ModRM.reg and whether ModRM names memory: its shape. So Zydis is shown one instruction of
 * each shape, made up for the purpose, when the first of the kind is met, and its answer is kept. There is thus no second
 * table of the instruction set that could say something else than the first; a test compares every shape with every
 * ModRM, SIB and prefix to what Zydis says in person.
 *
 * What opcodes are plain is listed. Not listed, and so Zydis' business, are those whose meaning depends on more than the
 * shape, and those of the sensitive table, so that nobody who hurries past plain instructions can miss one.
 :*/

/* clang-format off */
enum kind {
    ASK,     /* not plain */
    BARE,    /* no ModRM */
    MODRM,
    FPU,     /* ModRM, and of two registers ModRM.rm may be another opcode */
    OFFSET,  /* MOV with an address of 32 bits */
    ESCAPE, P66, REPNE, REP, ES, CS, SS, DS, FS, GS, /* prefixes */
};
#define A ASK
#define B BARE
#define M MODRM
#define R8(k) k, k, k, k, k, k, k, k
#define R16(k) R8(k), R8(k)

/* SDM vol. 2 tables */
static const uint8_t map_default[256] = {
    /* 00 */ M, M, M, M, B, B, A, A,  M, M, M, M, B, B, A, ESCAPE,
    /* 10 */ M, M, M, M, B, B, A, A,  M, M, M, M, B, B, A, A,
    /* 20 */ M, M, M, M, B, B, ES, A, M, M, M, M, B, B, CS, A,
    /* 30 */ M, M, M, M, B, B, SS, A, M, M, M, M, B, B, DS, A,
    /* 40 */ R16(B),
    /* 50 */ R16(B),
    /* 60 */ B, B, A, A, FS, GS, P66, A,  B, M, B, M, A, A, A, A,
    /* 70 */ R16(B),
    /* 80 */ M, M, A, M, M, M, M, M,  M, M, M, M, A, M, A, M,
    /* 90 */ R8(B),                   B, B, A, B, A, A, B, B,
    /* a0 */ OFFSET, OFFSET, OFFSET, OFFSET, B, B, B, B,  R8(B),
    /* b0 */ R16(B),
    /* c0 */ M, M, B, B, A, A, M, M,  A, B, A, A, A, A, A, A,
    /* d0 */ M, M, M, M, A, A, A, B,  R8(FPU),
    /* e0 */ B, B, B, B, A, A, A, A,  B, B, A, B, A, A, A, A,
    /* f0 */ A, A, REPNE, REP, A, B, M, M,  B, B, A, A, B, B, M, M,
};

static const uint8_t map_0f[256] = {
    /* 00 */ R8(A),                   A, A, A, B, A, M, A, A,
    /* 10 */ R8(M),                   M, A, A, A, A, A, A, M,
    /* 20 */ R8(A),                   R8(M),
    /* 30 */ R16(A),
    /* 40 */ R16(M),
    /* 50 */ R16(M),
    /* 60 */ R16(M),
    /* 70 */ M, M, M, M, M, M, M, B,  A, A, A, A, M, M, M, M,
    /* 80 */ R16(B),
    /* 90 */ R16(M),
    /* a0 */ A, A, A, M, M, M, A, A,  A, A, A, M, M, M, A, M,
    /* b0 */ M, M, A, M, A, A, M, M,  M, A, M, M, M, M, M, M,
    /* c0 */ M, M, M, M, M, M, M, A,  R8(B),
    /* d0 */ R16(M),
    /* e0 */ R16(M),
    /* f0 */ R8(M),                   M, M, M, M, M, M, M, A,
};
#undef A
#undef B
#undef M
#undef R8
#undef R16

/* SIB and displacement by ModRM.mod and .rm, vol. 2 table 2-2. A SIB without base may add four more. */
static const uint8_t address_bytes[32] = {
    0, 0, 0, 0, 1, 4, 0, 0,
    1, 1, 1, 1, 2, 1, 1, 1,
    4, 4, 4, 4, 5, 4, 4, 4,
    0, 0, 0, 0, 0, 0, 0, 0,
};
/* clang-format on */

enum { MAX_PREFIXES = 10, PARSED = MAX_PREFIXES + 4 /* 0F, opcode, ModRM, SIB */ };
_Static_assert(PARSED <= BT_MAX_INSN, "parsing stays within what the caller must give");

/* ---- Shapes ---- */

/* A shape's number: prefix (none, 66, F2, F3), map, opcode, two registers or not, ModRM.reg. */
enum {
    NO_PREFIX,
    PREFIX_66,
    PREFIX_F2,
    PREFIX_F3,
    PREFIX_BIT = 13,
    MAP_BIT = 12,
    OPCODE_BIT = 4,
    REGS_BIT = 3
};

static bool names_modrm(enum kind kind)
{
    return kind == MODRM || kind == FPU;
}

/* Of two registers, may the second be any, and the instruction stays the same? */
static bool any_rm(const struct bt_decoder *d, uint8_t *code, unsigned modrm, const struct bt_insn *first)
{
    for (unsigned rm = 1; rm < 8; rm++) {
        struct bt_insn i;
        code[modrm]++;
        if (bt_decode_by_zydis(d, true, code, BT_MAX_INSN, &i) != BT_DECODE_OK ||
            i.mnemonic != first->mnemonic || i.class != first->class || i.opsize != first->opsize)
            return false;
    }
    return true;
}

/* The shape of that number spelt out: EAX or [EAX], and whatever follows is all ones to see how it is extended. Its
 * length; 0: of an opcode that has plain and other ones. */
static unsigned spell(unsigned number, enum kind kind, uint8_t code[BT_MAX_INSN])
{
    static const uint8_t prefix[] = {0, 0x66, 0xf2, 0xf3};
    unsigned n = 0, reg = number & 7, opcode = number >> OPCODE_BIT & 0xff;
    if (opcode == 0xff && (reg == 3 || reg == 5)) /* CALL and JMP far; there is no 0F FF */
        return 0;
    memset(code, 0xff, BT_MAX_INSN);
    if (number >> PREFIX_BIT)
        code[n++] = prefix[number >> PREFIX_BIT];
    if (number >> MAP_BIT & 1)
        code[n++] = 0x0f;
    code[n++] = (uint8_t)opcode;
    if (names_modrm(kind))
        code[n++] = (uint8_t)(reg << 3 | (number >> REGS_BIT & 1 ? 0xc0 : 0));
    return n;
}

static void learn(struct bt_decoder *d, unsigned number, enum kind kind)
{
    struct bt_shape *s = &d->shape[number];
    uint8_t code[BT_MAX_INSN];
    unsigned n = spell(number, kind, code);
    struct bt_insn i;
    s->state = BT_SHAPE_ASK;
    if (!n || bt_decode_by_zydis(d, true, code, BT_MAX_INSN, &i) != BT_DECODE_OK ||
        (kind == FPU && i.mod == 3 && !any_rm(d, code, n - 1, &i)))
        return;
    *s = (struct bt_shape){.mnemonic = i.mnemonic,
                           .state = BT_SHAPE_PLAIN,
                           .opsize = i.opsize,
                           .class = i.class,
                           .mem_size = i.mem_size,
                           .mem_written = i.mem_written,
                           .imm_size = i.imm_size,
                           .imm_extended = i.imm == UINT32_MAX};
}

/* ---- Instructions ---- */

/* Of a group's several prefixes the last one counts, but two that may both belong to the opcode are left to Zydis. */
static bool take_prefix(struct bt_plain *p, enum kind kind)
{
    if (kind >= ES) {
        p->seg = (uint8_t)(RC_ES + (kind - ES));
        return true;
    }
    uint8_t prefix = (uint8_t)(PREFIX_66 + (kind - P66));
    bool same = p->prefix == NO_PREFIX || p->prefix == prefix;
    p->prefix = prefix;
    return same;
}

bool bt_plain_find(struct bt_decoder *d, const uint8_t code[BT_MAX_INSN], struct bt_plain *p)
{
    unsigned n = 0, map = 0;
    enum kind kind = map_default[code[0]];
    *p = (struct bt_plain){.seg = BT_NOREG};
    for (; kind > ESCAPE; kind = map_default[code[++n]])
        if (n == MAX_PREFIXES || !take_prefix(p, kind))
            return false;
    if (kind == ESCAPE) {
        map = 1;
        kind = map_0f[code[++n]];
    }
    if (kind == ASK)
        return false;
    p->map = (uint8_t)map;
    p->opcode_off = (uint8_t)n;
    unsigned number = (unsigned)p->prefix << PREFIX_BIT | map << MAP_BIT | (unsigned)code[n++] << OPCODE_BIT;
    if (names_modrm(kind)) {
        unsigned modrm = code[n], mod = modrm >> 6;
        p->modrm_off = (uint8_t)n++;
        number |= (modrm >> 3 & 7) | (unsigned)(mod == 3) << REGS_BIT;
        p->address = address_bytes[mod << 3 | (modrm & 7)];
        if (mod == 0 && (modrm & 7) == 4 && (code[n] & 7) == 5)
            p->address += 4;
    } else if (kind == OFFSET)
        p->address = 4;
    p->imm_off = (uint8_t)(n + p->address);
    p->shape = &d->shape[number];
    if (p->shape->state == BT_SHAPE_NEW)
        learn(d, number, kind);
    p->length = p->imm_off + p->shape->imm_size;
    return p->shape->state == BT_SHAPE_PLAIN && p->length <= BT_MAX_INSN;
}

static uint32_t number_at(const uint8_t *at, unsigned size, bool extended)
{
    uint32_t wide;
    uint16_t word;
    switch (size) {
    case 1:
        return extended ? (uint32_t)(int8_t)*at : *at;
    case 2:
        memcpy(&word, at, sizeof(word));
        return extended ? (uint32_t)(int16_t)word : word;
    case 4:
        memcpy(&wide, at, sizeof(wide));
        return wide;
    default:
        return 0;
    }
}

static void fill_address(const struct bt_plain *p, struct bt_insn *out)
{
    unsigned size = p->address;
    out->is_mem = p->modrm_off ? out->mod != 3 : size != 0;
    out->base = out->index = BT_NOREG;
    if (out->is_mem && p->modrm_off && out->rm == 4) {
        out->sib_off = p->modrm_off + 1;
        size--;
        unsigned sib = out->bytes[out->sib_off], index = sib >> 3 & 7;
        if (out->mod || (sib & 7) != 5)
            out->base = sib & 7;
        if (index != 4) {
            out->index = (uint8_t)index;
            out->scale = (uint8_t)(1 << (sib >> 6));
        }
    } else if (out->is_mem && p->modrm_off && (out->mod || out->rm != 5))
        out->base = out->rm;
    if (size) {
        out->disp_size = (uint8_t)size;
        out->disp_off = (uint8_t)(p->imm_off - size);
        out->disp = (int32_t)number_at(out->bytes + out->disp_off, size, true);
    }
    bool stack = out->base == RC_EBP || out->base == RC_ESP;
    out->seg = p->seg != BT_NOREG ? p->seg : stack ? RC_SS : RC_DS;
}

bool bt_decode_plain(struct bt_decoder *d, const uint8_t *code, unsigned len, struct bt_insn *out)
{
    uint8_t padded[BT_MAX_INSN] = {0};
    struct bt_plain p;
    if (len < BT_MAX_INSN) { /* what is not there is never part of an instruction that is accepted */
        memcpy(padded, code, len);
        code = padded;
    }
    if (!bt_plain_find(d, code, &p) || p.length > len)
        return false;
    const struct bt_shape *s = p.shape;
    *out = (struct bt_insn){.mnemonic = s->mnemonic,
                            .length = p.length,
                            .opsize = s->opsize,
                            .osz = p.prefix == PREFIX_66 ? 2 : 4,
                            .asz = 4,
                            .map = p.map ? ZYDIS_OPCODE_MAP_0F : ZYDIS_OPCODE_MAP_DEFAULT,
                            .opcode = code[p.opcode_off],
                            .opcode_off = p.opcode_off,
                            .class = s->class,
                            .rep = p.prefix == PREFIX_F3,
                            .repne = p.prefix == PREFIX_F2,
                            .has_modrm = p.modrm_off != 0,
                            .modrm_off = p.modrm_off,
                            .mem_size = s->mem_size,
                            .mem_written = s->mem_written};
    memcpy(out->bytes, code, p.length);
    if (p.modrm_off) {
        out->modrm = code[p.modrm_off];
        out->mod = out->modrm >> 6;
        out->reg = out->modrm >> 3 & 7;
        out->rm = out->modrm & 7;
    }
    fill_address(&p, out);
    if (s->imm_size) {
        out->imm_off = p.imm_off;
        out->imm_size = s->imm_size;
        out->imm = number_at(code + p.imm_off, s->imm_size, s->imm_extended);
    }
    return true;
}
