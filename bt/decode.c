/*
 * The decoder: Zydis does the parsing; what follows decides which instructions exist on the CPU we model and
 * reduces them to struct bt_insn. Default is refuse: an instruction set that no row below names is #UD.
 */
#include <string.h>
#include "insn.h"
#include "ringcomp/ringcomp.h"

/* Instruction set extensions a guest may use, and the class of their instructions. */
struct ext_row {
    bool allowed; /* in its legacy encoding; VEX below */
    uint8_t class;
};
static const struct ext_row ext_table[ZYDIS_ISA_EXT_MAX_VALUE + 1] = {
    [ZYDIS_ISA_EXT_BASE] = {true, BT_CLASS_INT},
    [ZYDIS_ISA_EXT_AMD3DNOW_PREFETCH] = {true, BT_CLASS_INT},
    [ZYDIS_ISA_EXT_PREFETCHWT1] = {true, BT_CLASS_INT}, /* 0F 0D /2: a NOP where it is not offered */
    [ZYDIS_ISA_EXT_ADOX_ADCX] = {true, BT_CLASS_INT},
    [ZYDIS_ISA_EXT_BMI1] = {true, BT_CLASS_INT}, /* TZCNT only: the rest is VEX-coded */
    [ZYDIS_ISA_EXT_XSAVE] = {true, BT_CLASS_X87},
    [ZYDIS_ISA_EXT_XSAVEOPT] = {true, BT_CLASS_X87},
    [ZYDIS_ISA_EXT_LZCNT] = {true, BT_CLASS_INT},
    [ZYDIS_ISA_EXT_CLFSH] = {true, BT_CLASS_INT},
    [ZYDIS_ISA_EXT_MOVBE] = {true, BT_CLASS_INT},
    [ZYDIS_ISA_EXT_PAUSE] = {true, BT_CLASS_INT},
    [ZYDIS_ISA_EXT_RDRAND] = {true, BT_CLASS_INT},
    [ZYDIS_ISA_EXT_X87] = {true, BT_CLASS_X87},
    [ZYDIS_ISA_EXT_MMX] = {true, BT_CLASS_MMX},
    [ZYDIS_ISA_EXT_SSE] = {true, BT_CLASS_SSE},
    [ZYDIS_ISA_EXT_SSE2] = {true, BT_CLASS_SSE},
    [ZYDIS_ISA_EXT_SSE3] = {true, BT_CLASS_SSE},
    [ZYDIS_ISA_EXT_SSSE3] = {true, BT_CLASS_SSE},
    [ZYDIS_ISA_EXT_SSE4] = {true, BT_CLASS_SSE},
    [ZYDIS_ISA_EXT_AES] = {true, BT_CLASS_SSE},
    [ZYDIS_ISA_EXT_PCLMULQDQ] = {true, BT_CLASS_SSE},
    [ZYDIS_ISA_EXT_SHA] = {true, BT_CLASS_SSE},
};

/* The same for VEX. VAES, VPCLMULQDQ on YMM, GFNI and AVX-VNNI have features of their own that are not offered. */
static const uint8_t vex_table[ZYDIS_ISA_EXT_MAX_VALUE + 1] = {
    [ZYDIS_ISA_EXT_AVX] = BT_CLASS_AVX,        [ZYDIS_ISA_EXT_AVX2] = BT_CLASS_AVX,
    [ZYDIS_ISA_EXT_AVX2GATHER] = BT_CLASS_AVX, [ZYDIS_ISA_EXT_AVXAES] = BT_CLASS_AVX,
    [ZYDIS_ISA_EXT_FMA] = BT_CLASS_AVX,        [ZYDIS_ISA_EXT_F16C] = BT_CLASS_AVX,
    [ZYDIS_ISA_EXT_BMI1] = BT_CLASS_BMI,       [ZYDIS_ISA_EXT_BMI2] = BT_CLASS_BMI,
};

/* Members of an allowed extension that do not follow it. */
struct mnemonic_row {
    uint16_t mnemonic;
    bool allowed;
    uint8_t class;
};
static const struct mnemonic_row mnemonic_table[] = {
    {ZYDIS_MNEMONIC_SYSCALL, false, 0}, /* EFER.SCE is never set */
    {ZYDIS_MNEMONIC_SYSRET, false, 0},
    {ZYDIS_MNEMONIC_RSM, false, 0}, /* #UD outside system management mode, which there is none of */
    {ZYDIS_MNEMONIC_FXSAVE, true, BT_CLASS_X87}, /* #NM by TS and EM, never #UD by OSFXSR (vol. 2) */
    {ZYDIS_MNEMONIC_FXRSTOR, true, BT_CLASS_X87},
    {ZYDIS_MNEMONIC_XGETBV, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_XSETBV, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_FISTTP, true, BT_CLASS_X87},
    {ZYDIS_MNEMONIC_SFENCE, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_LFENCE, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_MFENCE, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_PREFETCHT0, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_PREFETCHT1, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_PREFETCHT2, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_PREFETCHNTA, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_MOVNTI, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_CRC32, true, BT_CLASS_INT},
    {ZYDIS_MNEMONIC_POPCNT, true, BT_CLASS_INT},
};

/* Instructions whose memory operand is no ordinary access of a fixed size. */
static bool touches_no_memory(uint16_t mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_INVLPG:
    case ZYDIS_MNEMONIC_CLFLUSH:
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
        return true;
    default:
        return false;
    }
}

void bt_decoder_init(struct bt_decoder *d)
{
    /* What these modes name is a NOP (or plain WBINVD) on a CPU that does not offer it, and ours does not. */
    static const ZydisDecoderMode off[] = {ZYDIS_DECODER_MODE_MPX, ZYDIS_DECODER_MODE_CET,
                                           ZYDIS_DECODER_MODE_CLDEMOTE, ZYDIS_DECODER_MODE_WBNOINVD};
    memset(d, 0, sizeof(*d));
    ZydisDecoderInit(&d->d32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&d->d16, ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    for (unsigned i = 0; i < sizeof off / sizeof off[0]; i++) {
        ZydisDecoderEnableMode(&d->d32, off[i], ZYAN_FALSE);
        ZydisDecoderEnableMode(&d->d16, off[i], ZYAN_FALSE);
    }
}

/* Legacy prefixes. Of a group's several the last one counts. */
static int scan_prefixes(const ZydisDecodedInstruction *z, struct bt_insn *out)
{
    int seg = -1;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        switch (z->raw.prefixes[i].value) {
        case 0x26:
            seg = RC_ES;
            break;
        case 0x2e:
            seg = RC_CS;
            break;
        case 0x36:
            seg = RC_SS;
            break;
        case 0x3e:
            seg = RC_DS;
            break;
        case 0x64:
            seg = RC_FS;
            break;
        case 0x65:
            seg = RC_GS;
            break;
        case 0xf0:
            out->lock = true;
            break;
        case 0xf2:
            out->repne = true;
            out->rep = false;
            break;
        case 0xf3:
            out->rep = true;
            out->repne = false;
            break;
        }
    }
    return seg;
}

/* A prefix repeated is a prefix given once. */
static void fill_sizes(const ZydisDecodedInstruction *z, bool big, struct bt_insn *out)
{
    bool has66 = false, has67 = false;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        has66 |= z->raw.prefixes[i].value == 0x66;
        has67 |= z->raw.prefixes[i].value == 0x67;
    }
    out->osz = big != has66 ? 4 : 2;
    out->asz = big != has67 ? 4 : 2;
}

static void fill_address16(struct bt_insn *out)
{
    static const uint8_t base[8] = {RC_EBX, RC_EBX, RC_EBP, RC_EBP, RC_ESI, RC_EDI, RC_EBP, RC_EBX};
    static const uint8_t index[8] = {RC_ESI, RC_EDI, RC_ESI, RC_EDI, BT_NOREG, BT_NOREG, BT_NOREG, BT_NOREG};
    if (out->mod == 0 && out->rm == 6)
        return;
    out->base = base[out->rm];
    out->index = index[out->rm];
    out->scale = out->index == BT_NOREG ? 0 : 1;
}

static void fill_address32(const ZydisDecodedInstruction *z, struct bt_insn *out)
{
    if (!out->sib_off) {
        if (out->mod != 0 || out->rm != 5)
            out->base = out->rm;
        return;
    }
    if (out->mod != 0 || z->raw.sib.base != 5)
        out->base = z->raw.sib.base;
    if (z->raw.sib.index != 4 && !out->vsib) {
        out->index = z->raw.sib.index;
        out->scale = (uint8_t)(1 << z->raw.sib.scale);
    }
}

static bool is_moffs(const struct bt_insn *i)
{
    return i->map == ZYDIS_OPCODE_MAP_DEFAULT && (i->opcode & 0xfc) == 0xa0;
}

/* MOV to and from CRn/DRn ignore ModRM.mod: rm is always a register. */
static bool is_mov_crdr(const struct bt_insn *i)
{
    return i->map == ZYDIS_OPCODE_MAP_0F && (i->opcode & 0xfc) == 0x20;
}

static void fill_operands(const ZydisDecodedInstruction *z, int seg_override, struct bt_insn *out)
{
    out->base = out->index = BT_NOREG;
    out->has_modrm = (z->attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
    if (out->has_modrm) {
        out->mod = z->raw.modrm.mod;
        out->reg = z->raw.modrm.reg;
        out->rm = z->raw.modrm.rm;
        out->modrm_off = z->raw.modrm.offset;
        out->modrm = out->bytes[out->modrm_off];
    }
    out->is_mem = is_moffs(out) || (out->has_modrm && out->mod != 3 && !is_mov_crdr(out));
    out->sib_off = z->raw.sib.offset;
    out->disp_off = z->raw.disp.offset;
    out->disp_size = z->raw.disp.size / 8;
    if (out->disp_size)
        out->disp = (int32_t)z->raw.disp.value;
    out->imm_off = z->raw.imm[0].offset;
    out->imm_size = z->raw.imm[0].size / 8;
    out->imm = out->imm_size ? (uint32_t)z->raw.imm[0].value.u : 0;
    out->imm2 = z->raw.imm[1].size ? (uint32_t)z->raw.imm[1].value.u : 0;
    if (out->is_mem && out->has_modrm) {
        if (out->asz == 2)
            fill_address16(out);
        else
            fill_address32(z, out);
    }
    if (seg_override >= 0)
        out->seg = (uint8_t)seg_override;
    else
        out->seg = out->base == RC_EBP || out->base == RC_ESP ? RC_SS : RC_DS;
}

static bool is_string(const struct bt_insn *i)
{
    return i->map == ZYDIS_OPCODE_MAP_DEFAULT &&
           ((i->opcode >= 0x6c && i->opcode <= 0x6f) ||
            (i->opcode >= 0xa4 && i->opcode <= 0xaf && i->opcode != 0xa8 && i->opcode != 0xa9));
}

static uint8_t vex_field(ZydisOperandEncoding e)
{
    return e == ZYDIS_OPERAND_ENCODING_MODRM_REG  ? BT_VEX_REG
           : e == ZYDIS_OPERAND_ENCODING_MODRM_RM ? BT_VEX_RM
           : e == ZYDIS_OPERAND_ENCODING_NDSNDD   ? BT_VEX_V
                                                  : 0;
}

static bool is_access(ZydisMemoryOperandType t)
{
    return t == ZYDIS_MEMOP_TYPE_MEM || t == ZYDIS_MEMOP_TYPE_VSIB;
}

/* Size of the memory operand, and MMX or SSE by the registers that are named. */
static bool fill_operand_sizes(const ZydisDecoder *d, const ZydisDecoderContext *ctx,
                               const ZydisDecodedInstruction *z, struct bt_insn *out)
{
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    bool mmx = false, xmm = false;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeOperands(d, ctx, z, op, z->operand_count)))
        return false;
    for (unsigned i = 0; i < z->operand_count; i++) {
        if (op[i].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass c = ZydisRegisterGetClass(op[i].reg.value);
            if (out->vex && c >= ZYDIS_REGCLASS_GPR8 && c <= ZYDIS_REGCLASS_GPR64)
                out->vex_gpr |= vex_field(op[i].encoding);
            mmx |= c == ZYDIS_REGCLASS_MMX;
            xmm |= c == ZYDIS_REGCLASS_XMM;
        } else if (op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && out->is_mem && !out->mem_size &&
                   op[i].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN && is_access(op[i].mem.type) &&
                   !touches_no_memory(out->mnemonic)) {
            out->mem_size = op[i].size / 8 > 255 ? 255 : (uint8_t)(op[i].size / 8);
            out->mem_written = op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        }
    }
    if (out->class == BT_CLASS_SSE && mmx && !xmm)
        out->class = BT_CLASS_MMX;
    if (is_string(out))
        out->mem_size = out->opsize;
    else if (out->mnemonic == ZYDIS_MNEMONIC_XLAT)
        out->mem_size = 1;
    else if (out->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ)
        out->mem_size = 8;
    else if (out->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU || out->mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU)
        out->mem_size = 16;
    return true;
}

static bool classify(const ZydisDecodedInstruction *z, struct bt_insn *out)
{
    const struct ext_row *row = &ext_table[z->meta.isa_ext];
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        out->vex = z->raw.vex.size;
        out->vsib = z->meta.isa_ext == ZYDIS_ISA_EXT_AVX2GATHER;
        out->class = vex_table[z->meta.isa_ext];
        return out->class != 0;
    }
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY || !row->allowed)
        return false;
    out->class = row->class;
    for (unsigned i = 0; i < sizeof mnemonic_table / sizeof mnemonic_table[0]; i++)
        if (mnemonic_table[i].mnemonic == z->mnemonic) {
            out->class = mnemonic_table[i].class;
            return mnemonic_table[i].allowed;
        }
    return true;
}

static enum bt_decode status_to_result(ZyanStatus status, unsigned len)
{
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        return BT_DECODE_LONG;
    if (status == ZYDIS_STATUS_NO_MORE_DATA)
        return len >= BT_MAX_INSN ? BT_DECODE_LONG : BT_DECODE_SHORT;
    return BT_DECODE_UD;
}

static enum bt_decode decode_opcode(const ZydisDecoder *zd, ZydisDecoderContext *ctx, const uint8_t *code,
                                    unsigned len, ZydisDecodedInstruction *z, struct bt_insn *out)
{
    ZyanStatus status = ZydisDecoderDecodeInstruction(zd, ctx, code, len, z);
    if (!ZYAN_SUCCESS(status))
        return status_to_result(status, len);
    *out = (struct bt_insn){.mnemonic = (uint16_t)z->mnemonic,
                            .length = z->length,
                            .opsize = z->operand_width / 8,
                            .map = (uint8_t)z->opcode_map,
                            .opcode = z->opcode};
    for (unsigned i = 0; i < z->length; i++)
        out->bytes[i] = code[i];
    return classify(z, out) ? BT_DECODE_OK : BT_DECODE_UD;
}

enum bt_decode bt_decode_by_zydis(const struct bt_decoder *d, bool big, const uint8_t *code, unsigned len,
                                  struct bt_insn *out)
{
    const ZydisDecoder *zd = big ? &d->d32 : &d->d16;
    ZydisDecoderContext ctx;
    ZydisDecodedInstruction z;
    enum bt_decode result = decode_opcode(zd, &ctx, code, len, &z, out);
    if (result != BT_DECODE_OK)
        return result;
    int seg = scan_prefixes(&z, out);
    fill_sizes(&z, big, out);
    fill_operands(&z, seg, out);
    /* prefixes, then the escape bytes of the opcode map, then the opcode */
    static const uint8_t escape[] = {[ZYDIS_OPCODE_MAP_DEFAULT] = 0,
                                     [ZYDIS_OPCODE_MAP_0F] = 1,
                                     [ZYDIS_OPCODE_MAP_0F38] = 2,
                                     [ZYDIS_OPCODE_MAP_0F3A] = 2};
    if (out->map >= sizeof escape)
        return BT_DECODE_UD;
    out->opcode_off = (uint8_t)(z.raw.prefix_count + (out->vex ? out->vex : escape[out->map]));
    return fill_operand_sizes(zd, &ctx, &z, out) ? BT_DECODE_OK : BT_DECODE_UD;
}

enum bt_decode bt_decode(struct bt_decoder *d, bool big, const uint8_t *code, unsigned len,
                         struct bt_insn *out)
{
    if (big && bt_decode_plain(d, code, len, out))
        return BT_DECODE_OK;
    return bt_decode_by_zydis(d, big, code, len, out);
}
