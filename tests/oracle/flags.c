/*
 * Flags the manual leaves undefined (Intel SDM vol. 2, "Flags Affected" of each instruction). They are not compared,
 * and no instruction of a sequence may read one: what comes after would depend on chance.
 */
#include <string.h>
#include "oracle.h"

enum when {
    ALWAYS,
    COUNTED, /* a shift or rotation by a count (masked to 5 bits) other than 0; how much is undefined depends */
    COUNT_NOT_1, /* the same, by a count that is not 1 */
};
enum { CF = RC_CF, PF = RC_PF, AF = RC_AF, ZF = RC_ZF, SF = RC_SF, OF = RC_OF };
static const struct row {
    uint16_t mnemonic;
    uint8_t when;
    uint32_t undefined;
    const char *source; /* entry of SDM vol. 2 and what it says */
} rows[] = {
    {ZYDIS_MNEMONIC_AND, ALWAYS, AF, "AND: the state of the AF flag is undefined"},
    {ZYDIS_MNEMONIC_OR, ALWAYS, AF, "OR: the state of the AF flag is undefined"},
    {ZYDIS_MNEMONIC_XOR, ALWAYS, AF, "XOR: the state of the AF flag is undefined"},
    {ZYDIS_MNEMONIC_TEST, ALWAYS, AF, "TEST: the state of the AF flag is undefined"},
    {ZYDIS_MNEMONIC_MUL, ALWAYS, SF | ZF | AF | PF, "MUL: SF, ZF, AF, and PF are undefined"},
    {ZYDIS_MNEMONIC_IMUL, ALWAYS, SF | ZF | AF | PF,
     "IMUL: SF, ZF, AF, and PF are undefined (SF not in all forms)"},
    {ZYDIS_MNEMONIC_DIV, ALWAYS, RC_ARITH, "DIV: CF, OF, SF, ZF, AF, and PF are undefined"},
    {ZYDIS_MNEMONIC_IDIV, ALWAYS, RC_ARITH, "IDIV: CF, OF, SF, ZF, AF, and PF are undefined"},
    {ZYDIS_MNEMONIC_AAA, ALWAYS, OF | SF | ZF | PF, "AAA: OF, SF, ZF, and PF are undefined"},
    {ZYDIS_MNEMONIC_AAS, ALWAYS, OF | SF | ZF | PF, "AAS: OF, SF, ZF, and PF are undefined"},
    {ZYDIS_MNEMONIC_DAA, ALWAYS, OF, "DAA: the OF flag is undefined"},
    {ZYDIS_MNEMONIC_DAS, ALWAYS, OF, "DAS: the OF flag is undefined"},
    {ZYDIS_MNEMONIC_AAM, ALWAYS, OF | AF | CF, "AAM: OF, AF, and CF are undefined"},
    {ZYDIS_MNEMONIC_AAD, ALWAYS, OF | AF | CF, "AAD: OF, AF, and CF are undefined"},
    {ZYDIS_MNEMONIC_BSF, ALWAYS, CF | OF | SF | AF | PF, "BSF: CF, OF, SF, AF, and PF are undefined"},
    {ZYDIS_MNEMONIC_BSR, ALWAYS, CF | OF | SF | AF | PF, "BSR: CF, OF, SF, AF, and PF are undefined"},
    {ZYDIS_MNEMONIC_BT, ALWAYS, OF | SF | AF | PF, "BT: OF, SF, AF, and PF are undefined; ZF is unaffected"},
    {ZYDIS_MNEMONIC_BTS, ALWAYS, OF | SF | AF | PF, "BTS: OF, SF, AF, and PF are undefined"},
    {ZYDIS_MNEMONIC_BTR, ALWAYS, OF | SF | AF | PF, "BTR: OF, SF, AF, and PF are undefined"},
    {ZYDIS_MNEMONIC_BTC, ALWAYS, OF | SF | AF | PF, "BTC: OF, SF, AF, and PF are undefined"},
    {ZYDIS_MNEMONIC_TZCNT, ALWAYS, OF | SF | PF | AF, "TZCNT: OF, SF, PF, and AF flags are undefined"},
    {ZYDIS_MNEMONIC_LZCNT, ALWAYS, OF | SF | PF | AF, "LZCNT: OF, SF, PF, and AF flags are undefined"},
    {ZYDIS_MNEMONIC_ANDN, ALWAYS, AF | PF, "ANDN: AF and PF flags are undefined"},
    {ZYDIS_MNEMONIC_BEXTR, ALWAYS, AF | SF | PF, "BEXTR: AF, SF, and PF flags are undefined"},
    {ZYDIS_MNEMONIC_BLSI, ALWAYS, AF | PF, "BLSI: AF and PF flags are undefined"},
    {ZYDIS_MNEMONIC_BLSMSK, ALWAYS, AF | PF, "BLSMSK: AF and PF flags are undefined"},
    {ZYDIS_MNEMONIC_BLSR, ALWAYS, AF | PF, "BLSR: AF and PF flags are undefined"},
    {ZYDIS_MNEMONIC_BZHI, ALWAYS, AF | PF, "BZHI: AF and PF flags are undefined"},
    /* CF: undefined when the count reaches the operand's width, which 5 bits can for 8- and 16-bit operands */
    {ZYDIS_MNEMONIC_SHL, COUNTED, AF | CF,
     "SAL/SAR/SHL/SHR: AF undefined for a count that is not 0; CF by width"},
    {ZYDIS_MNEMONIC_SHR, COUNTED, AF | CF,
     "SAL/SAR/SHL/SHR: AF undefined for a count that is not 0; CF by width"},
    {ZYDIS_MNEMONIC_SAR, COUNTED, AF, "SAL/SAR/SHL/SHR: AF is undefined for a count that is not 0"},
    {ZYDIS_MNEMONIC_SHL, COUNT_NOT_1, OF,
     "SAL/SAR/SHL/SHR: OF is affected only on 1-bit shifts, else undefined"},
    {ZYDIS_MNEMONIC_SHR, COUNT_NOT_1, OF,
     "SAL/SAR/SHL/SHR: OF is affected only on 1-bit shifts, else undefined"},
    {ZYDIS_MNEMONIC_SAR, COUNT_NOT_1, OF,
     "SAL/SAR/SHL/SHR: OF is affected only on 1-bit shifts, else undefined"},
    {ZYDIS_MNEMONIC_ROL, COUNT_NOT_1, OF, "RCL/RCR/ROL/ROR: OF is undefined for multi-bit rotates"},
    {ZYDIS_MNEMONIC_ROR, COUNT_NOT_1, OF, "RCL/RCR/ROL/ROR: OF is undefined for multi-bit rotates"},
    {ZYDIS_MNEMONIC_RCL, COUNT_NOT_1, OF, "RCL/RCR/ROL/ROR: OF is undefined for multi-bit rotates"},
    {ZYDIS_MNEMONIC_RCR, COUNT_NOT_1, OF, "RCL/RCR/ROL/ROR: OF is undefined for multi-bit rotates"},
    {ZYDIS_MNEMONIC_SHLD, COUNTED, AF, "SHLD: for a count that is not 0 AF is undefined"},
    {ZYDIS_MNEMONIC_SHRD, COUNTED, AF, "SHRD: for a count that is not 0 AF is undefined"},
    {ZYDIS_MNEMONIC_SHLD, COUNT_NOT_1, OF | CF | SF | ZF | PF,
     "SHLD: OF is undefined for counts over 1; all flags, when the count exceeds the operand's width"},
    {ZYDIS_MNEMONIC_SHRD, COUNT_NOT_1, OF | CF | SF | ZF | PF,
     "SHRD: OF is undefined for counts over 1; all flags, when the count exceeds the operand's width"},
};

static bool is_shift(const ZydisDecodedInstruction *z)
{
    return z->meta.category == ZYDIS_CATEGORY_SHIFT || z->meta.category == ZYDIS_CATEGORY_ROTATE;
}

/* The count, or -1: in CL. */
static int shift_count(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
    unsigned last = z->mnemonic == ZYDIS_MNEMONIC_SHLD || z->mnemonic == ZYDIS_MNEMONIC_SHRD ? 2 : 1;
    return op[last].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (int)(op[last].imm.value.u & 31) : -1;
}

static uint32_t undefined_by(const struct row *row, const ZydisDecodedInstruction *z,
                             const ZydisDecodedOperand *op)
{
    int count = row->when == ALWAYS ? -1 : shift_count(z, op);
    uint32_t u = row->undefined;
    if (row->when == ALWAYS)
        return u;
    if (count == 0 || (row->when == COUNT_NOT_1 && count == 1))
        return 0;
    /* 32-bit operands: no count reaches the width, so only OF and AF are open */
    if (z->operand_width == 32)
        u &= OF | AF;
    else if (count > 0 && count < z->operand_width)
        u &= OF | AF;
    return u;
}

/* Instructions that in some case leave the flags as they were. */
static bool may_do_nothing(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op)
{
    if (is_shift(z))
        return shift_count(z, op) <= 0;
    return (z->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) != 0;
}

void oracle_flags(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op, uint32_t *reads,
                  uint32_t *defines, uint32_t *leaves)
{
    *reads = *defines = *leaves = 0;
    for (unsigned k = 0; k < sizeof rows / sizeof *rows; k++)
        if (rows[k].mnemonic == z->mnemonic)
            *leaves |= undefined_by(&rows[k], z, op);
    if (!z->cpu_flags)
        return;
    *reads = z->cpu_flags->tested & RC_ARITH;
    if (z->mnemonic == ZYDIS_MNEMONIC_LAHF)
        *reads |= RC_ARITH & ~OF;
    if (z->mnemonic == ZYDIS_MNEMONIC_PUSHFD || z->mnemonic == ZYDIS_MNEMONIC_PUSHF)
        *reads = RC_ARITH;
    if (!may_do_nothing(z, op))
        *defines = (z->cpu_flags->modified | z->cpu_flags->set_0 | z->cpu_flags->set_1) & RC_ARITH & ~*leaves;
}

/* ---- over a sequence ---- */

struct flow {
    const struct oracle_case *c;
    struct bt_decoder d;
    uint32_t *undefined;
    bool changed, read;
};

static void join(struct flow *f, unsigned at, uint32_t undefined)
{
    f->changed |= (undefined & ~f->undefined[at]) != 0;
    f->undefined[at] |= undefined;
}

static void pass(struct flow *f, unsigned n)
{
    const struct oracle_item *item = &f->c->item[n];
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    uint32_t reads, defines, leaves, u = f->undefined[f->c->offset[n]];
    if (item->dead || !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&f->d.d32, item->bytes, item->len, &z, op)))
        return;
    oracle_flags(&z, op, &reads, &defines, &leaves);
    f->read |= (u & reads) != 0;
    u = (u & ~defines) | leaves;
    join(f, f->c->offset[n + 1], u);
    if (item->rel_size) /* an absolute reference is a jump to come: nothing in between touches flags */
        join(f, f->c->offset[item->target], u);
}

bool oracle_undefined(const struct oracle_case *c, uint32_t undefined[ORACLE_SEQ_BYTES + 1])
{
    struct flow f = {.c = c, .undefined = undefined, .changed = true};
    bt_decoder_init(&f.d);
    memset(undefined, 0, sizeof undefined[0] * (ORACLE_SEQ_BYTES + 1));
    while (f.changed) {
        f.changed = false;
        for (unsigned n = 0; n < c->count; n++)
            pass(&f, n);
    }
    return !f.read;
}
