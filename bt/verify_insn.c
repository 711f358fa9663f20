/*
 * The SFI verifier, single instructions: which may appear in translated code at all, what their operands may
 * name, and what is known about the registers after them. Default is refuse.
 */
#include <stddef.h>
#include "verify.h"

enum { RAX = 0, RDX = 2, RSP = 4, RSI = 6, RDI = 7, R8 = 8, R11 = 11, R12 = 12, R13 = 13 };

/* ---- what may appear ---- */

enum vf_allow { VF_NO, VF_YES, VF_LISTED /* only the mnemonics listed below */ };

static const uint8_t category_table[ZYDIS_CATEGORY_MAX_VALUE + 1] = {
    [ZYDIS_CATEGORY_ADOX_ADCX] = VF_YES,  [ZYDIS_CATEGORY_AES] = VF_YES,
    [ZYDIS_CATEGORY_BINARY] = VF_YES,     [ZYDIS_CATEGORY_BITBYTE] = VF_YES,
    [ZYDIS_CATEGORY_BMI1] = VF_LISTED,    [ZYDIS_CATEGORY_CMOV] = VF_YES,
    [ZYDIS_CATEGORY_CONVERT] = VF_YES,    [ZYDIS_CATEGORY_DATAXFER] = VF_YES,
    [ZYDIS_CATEGORY_FCMOV] = VF_YES,      [ZYDIS_CATEGORY_FLAGOP] = VF_LISTED,
    [ZYDIS_CATEGORY_LOGICAL] = VF_YES,    [ZYDIS_CATEGORY_LZCNT] = VF_YES,
    [ZYDIS_CATEGORY_LOGICAL_FP] = VF_YES, [ZYDIS_CATEGORY_MISC] = VF_LISTED,
    [ZYDIS_CATEGORY_MMX] = VF_YES,        [ZYDIS_CATEGORY_NOP] = VF_YES,
    [ZYDIS_CATEGORY_PCLMULQDQ] = VF_YES,  [ZYDIS_CATEGORY_RDRAND] = VF_YES,
    [ZYDIS_CATEGORY_ROTATE] = VF_YES,     [ZYDIS_CATEGORY_SEMAPHORE] = VF_YES,
    [ZYDIS_CATEGORY_SETCC] = VF_YES,      [ZYDIS_CATEGORY_SHA] = VF_YES,
    [ZYDIS_CATEGORY_SHIFT] = VF_YES,      [ZYDIS_CATEGORY_SSE] = VF_YES,
    [ZYDIS_CATEGORY_STRINGOP] = VF_YES,   [ZYDIS_CATEGORY_STTNI] = VF_YES,
    [ZYDIS_CATEGORY_X87_ALU] = VF_YES,
};

/* VEX: by what CPUID would have to offer, since all of it is the guest's to use. */
static bool vex_may_appear(const ZydisDecodedInstruction *z)
{
    switch (z->meta.isa_ext) {
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
        return true;
    default:
        return false;
    }
}

static const uint16_t listed[] = {
    ZYDIS_MNEMONIC_TZCNT,  ZYDIS_MNEMONIC_CLC,   ZYDIS_MNEMONIC_STC,    ZYDIS_MNEMONIC_CMC,
    ZYDIS_MNEMONIC_CLD,    ZYDIS_MNEMONIC_STD,   ZYDIS_MNEMONIC_LAHF,   ZYDIS_MNEMONIC_SAHF,
    ZYDIS_MNEMONIC_LEA,    ZYDIS_MNEMONIC_PAUSE, ZYDIS_MNEMONIC_LFENCE, ZYDIS_MNEMONIC_MFENCE,
    ZYDIS_MNEMONIC_SFENCE,
};

/* Members of an allowed category that show or load host addresses (FIP, FDP) or state that is not the
 * guest's. */
static const uint16_t barred[] = {
    ZYDIS_MNEMONIC_FNSTENV, ZYDIS_MNEMONIC_FNSAVE,   ZYDIS_MNEMONIC_FLDENV,  ZYDIS_MNEMONIC_FRSTOR,
    ZYDIS_MNEMONIC_FXSAVE,  ZYDIS_MNEMONIC_FXSAVE64, ZYDIS_MNEMONIC_FXRSTOR, ZYDIS_MNEMONIC_FXRSTOR64,
};

static bool in_list(const uint16_t *list, unsigned n, ZydisMnemonic m)
{
    for (unsigned i = 0; i < n; i++)
        if (list[i] == m)
            return true;
    return false;
}

static bool may_appear(const ZydisDecodedInstruction *z)
{
    if (z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        return vex_may_appear(z);
    if (z->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    switch (category_table[z->meta.category]) {
    case VF_YES:
        return !in_list(barred, sizeof barred / sizeof *barred, z->mnemonic);
    case VF_LISTED:
        return in_list(listed, sizeof listed / sizeof *listed, z->mnemonic);
    default:
        return false;
    }
}

/* ---- registers ---- */

int vf_gpr(ZydisRegister reg)
{
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg) - ZYDIS_REGISTER_RAX;
    default:
        return -1;
    }
}

bool vf_is_guest(int gpr)
{
    return (gpr >= 0 && gpr < R8 && gpr != RSP) || gpr == R12;
}

bool vf_is_scratch(int gpr)
{
    return gpr >= R8 && gpr <= R11;
}

/* The segment register whose base is the window of the block's privilege. */
ZydisRegister vf_window(const struct vf *f)
{
    return f->b->mode & RC_MODE_USER ? ZYDIS_REGISTER_FS : ZYDIS_REGISTER_GS;
}

bool vf_in_segment(const ZydisDecodedOperand *o)
{
    return o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS;
}

bool vf_is_host(int gpr) /* RSP and the translator's bases */
{
    return gpr == RSP || gpr >= R13;
}

static const struct vf_value *value(const struct vf *f, ZydisRegister reg)
{
    static const struct vf_value nothing = {.kind = VF_ANY};
    int r = vf_gpr(reg);
    return r < 0 ? &nothing : &f->state.reg[r];
}

static bool is_num(const struct vf *f, ZydisRegister reg, uint32_t max)
{
    const struct vf_value *x = value(f, reg);
    return x->kind == VF_NUM && x->bits <= max;
}

static bool is_kind(const struct vf *f, ZydisRegister reg, enum vf_kind kind)
{
    return value(f, reg)->kind == kind;
}

static bool set(struct vf *f, ZydisRegister reg, struct vf_value x)
{
    f->state.reg[vf_gpr(reg)] = x;
    return true;
}

static bool set_kind(struct vf *f, ZydisRegister reg, enum vf_kind kind)
{
    return set(f, reg, (struct vf_value){.kind = (uint8_t)kind});
}

/* ---- memory ---- */

static bool names_host(const ZydisDecodedOperandMem *m)
{
    int base = vf_gpr(m->base), index = vf_gpr(m->index);
    return (base >= 0 && vf_is_host(base)) || (index >= 0 && vf_is_host(index));
}

/* The ways to guest memory. Each keeps an access inside [window, window + 4 GiB) or its unmapped guard. */
static bool check_guest_memory(struct vf *f, const ZydisDecodedOperand *o)
{
    const ZydisDecodedOperandMem *m = &o->mem;
    bool window = m->segment == vf_window(f);
    if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
        return vf_refuse(f, "an implicit memory operand cannot be confined to a window");
    if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
        return vf_refuse(f, "memory relative to RIP is the cache's own");
    if (names_host(m))
        return vf_refuse(f, "memory at a host register is not the guest's");
    if (is_kind(f, m->base, VF_PAGE))
        return vf_page_access(f, o);
    if (window && f->insn.address_width == 32)
        return true;
    if (window && vf_is_scratch(vf_gpr(m->base)) && is_num(f, m->base, UINT32_MAX)) {
        if (is_kind(f, m->index, VF_ODD) && m->scale == 8 && !m->disp.value)
            return true;
        return vf_refuse(f, "64-bit address in the window without the segment's high half as index");
    }
    if (window)
        return vf_refuse(f, "64-bit address in the window whose base is not known to have 32 bits");
    if (is_kind(f, m->base, VF_WINDOW) && is_num(f, m->index, UINT32_MAX) && m->scale == 1 && !m->disp.value)
        return true;
    return vf_refuse(
        f, "memory neither in this privilege's window with a 32-bit address nor at a selected window");
}

static bool load_jump_offset(struct vf *f)
{
    const ZydisDecodedOperandMem *m = &f->op[1].mem;
    ZydisRegister to = f->op[0].reg.value;
    if (f->insn.mnemonic != ZYDIS_MNEMONIC_MOV || f->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        f->op[0].size != 32 || !vf_is_scratch(vf_gpr(to)) || f->insn.address_width != 64 ||
        vf_in_segment(&f->op[1]) || m->scale != 4 || m->disp.value)
        return vf_refuse(f, "the jump table is only for loads of an entry into r8-r11");
    if (!is_num(f, m->index, BT_JTAB_ENTRIES - 1))
        return vf_refuse(f, "jump table index that is not a 16-bit number");
    return set_kind(f, to, VF_JUMP_OFF);
}

/* What the window is believed to show of a page: a number that only a guess hangs on. */
static bool load_shown(struct vf *f)
{
    const ZydisDecodedOperandMem *m = &f->op[1].mem;
    ZydisRegister to = f->op[0].reg.value;
    if (f->insn.mnemonic != ZYDIS_MNEMONIC_MOVZX || f->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
        f->op[0].size != 32 || f->op[1].size != 16 || !vf_is_scratch(vf_gpr(to)) ||
        f->insn.address_width != 64 || vf_in_segment(&f->op[1]) || m->scale != 2 || m->disp.value)
        return vf_refuse(f, "the table of shown pages is only for loads of an entry into r8-r11");
    if (!is_num(f, m->index, BT_SHOWN_PAGES - 1))
        return vf_refuse(f, "index into the table of shown pages that is not a page number");
    return set(f, to, vf_num(UINT16_MAX));
}

/* ---- instructions with 64-bit operands: moves and sums of addresses ---- */

static bool move64(struct vf *f)
{
    ZydisRegister to = f->op[0].reg.value, from = f->op[1].reg.value;
    struct vf_value x = *value(f, from);
    if (vf_is_host(vf_gpr(to)))
        return vf_refuse(f, "writes a host register");
    if (vf_is_host(vf_gpr(from)))
        return vf_refuse(f, "reads a host register");
    if (vf_is_guest(vf_gpr(to)) && x.kind != VF_NUM)
        return vf_refuse(f, "a guest register would get more than 32 bits");
    return set(f, to, x);
}

static bool lea64(struct vf *f)
{
    ZydisRegister to = f->op[0].reg.value;
    const ZydisDecodedOperandMem *m = &f->op[1].mem;
    if (f->insn.address_width != 64 || m->scale > 1 || m->disp.value)
        return vf_refuse(f, "64-bit sum of an unknown shape");
    if (m->index == ZYDIS_REGISTER_R13 && is_kind(f, m->base, VF_JUMP_OFF) && vf_is_scratch(vf_gpr(to)))
        return set_kind(f, to, VF_CODE);
    if ((to == ZYDIS_REGISTER_RSI || to == ZYDIS_REGISTER_RDI) && m->index == to &&
        is_kind(f, m->base, VF_WINDOW) && is_num(f, to, UINT32_MAX))
        return set_kind(f, to, VF_POINTER);
    return vf_refuse(f, "64-bit sum of an unknown shape");
}

/* ---- the general case ---- */

static bool is_address(enum vf_kind k)
{
    return k != VF_ANY && k != VF_NUM;
}

/* VZEROALL and VZEROUPPER name all sixteen, and take knowledge away. */
static bool only_clears(const struct vf *f)
{
    return f->insn.mnemonic == ZYDIS_MNEMONIC_VZEROALL || f->insn.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER;
}

static bool check_register(struct vf *f, const ZydisDecodedOperand *o)
{
    int r = vf_gpr(o->reg.value);
    bool read = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    if (r < 0) {
        switch (ZydisRegisterGetClass(o->reg.value)) {
        case ZYDIS_REGCLASS_FLAGS:
        case ZYDIS_REGCLASS_X87:
        case ZYDIS_REGCLASS_MMX:
            return true;
        case ZYDIS_REGCLASS_XMM: /* the guest has eight; what is in the others nobody knows */
        case ZYDIS_REGCLASS_YMM:
            return ZydisRegisterGetId(o->reg.value) < 8 || only_clears(f) ||
                   vf_refuse(f, "names a vector register that 32-bit code does not have");
        default:
            break;
        }
        switch (o->reg.value) {
        case ZYDIS_REGISTER_MXCSR:
        case ZYDIS_REGISTER_X87CONTROL:
        case ZYDIS_REGISTER_X87STATUS:
        case ZYDIS_REGISTER_X87TAG:
            return true;
        default:
            return vf_refuse(f, "names a register that is not the guest's to have natively");
        }
    }
    if (vf_is_host(r))
        return vf_refuse(f, o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? "writes a host register"
                                                                         : "reads a host register");
    if (o->size == 64)
        return vf_refuse(f, "64-bit operand size outside the known sequences");
    if (read && vf_is_scratch(r) && is_address((enum vf_kind)f->state.reg[r].kind))
        return vf_refuse(f, "a host address would become data");
    return true;
}

/* Every element has an address of its own, and all are sums of 32 bits only with addr32: 32-bit address calculations
 * are truncated and zero-extended in 64-bit mode (vol. 1 3.3.7.1). */
static bool check_gather(struct vf *f, const ZydisDecodedOperand *o)
{
    if (o->mem.segment != vf_window(f) || f->insn.address_width != 32)
        return vf_refuse(f, "a gather that is not in the window with 32-bit addresses");
    if (ZydisRegisterGetId(o->mem.index) >= 8)
        return vf_refuse(f, "names a vector register that 32-bit code does not have");
    return check_guest_memory(f, o);
}

static bool check_operands(struct vf *f)
{
    for (unsigned i = 0; i < f->insn.operand_count; i++) {
        const ZydisDecodedOperand *o = &f->op[i];
        switch (o->type) {
        case ZYDIS_OPERAND_TYPE_REGISTER:
            if (!check_register(f, o))
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_MEMORY:
            if (o->mem.type == ZYDIS_MEMOP_TYPE_AGEN && f->insn.mnemonic == ZYDIS_MNEMONIC_LEA) {
                if (names_host(&o->mem) || ZydisRegisterGetClass(o->mem.base) == ZYDIS_REGCLASS_IP)
                    return vf_refuse(f, "a host address would become data");
            } else if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB) {
                if (!check_gather(f, o))
                    return false;
            } else if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM)
                return vf_refuse(f, "memory operand of an unknown shape");
            else if (!check_guest_memory(f, o))
                return false;
            break;
        case ZYDIS_OPERAND_TYPE_IMMEDIATE:
            break;
        default:
            return vf_refuse(f, "operand of an unknown kind");
        }
    }
    return true;
}

/* Instructions that always write all 64 bits of a 32-bit destination (BSF of 0, for one, may not). */
static bool writes_whole(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_MOV || m == ZYDIS_MNEMONIC_LEA || m == ZYDIS_MNEMONIC_MOVZX ||
           m == ZYDIS_MNEMONIC_BSWAP || m == ZYDIS_MNEMONIC_AND || m == ZYDIS_MNEMONIC_SHRX ||
           m == ZYDIS_MNEMONIC_RORX;
}

static struct vf_value result(const struct vf *f)
{
    const ZydisDecodedOperand *src = &f->op[1];
    if (f->insn.mnemonic == ZYDIS_MNEMONIC_AND)
        return vf_num(src->type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? (uint32_t)src->imm.value.u : UINT32_MAX);
    if (f->insn.mnemonic == ZYDIS_MNEMONIC_SHRX) { /* by the low five bits of its count: SDM vol. 2 */
        const struct vf_value *from = value(f, src->reg.value), *by = value(f, f->op[2].reg.value);
        bool both = src->type == ZYDIS_OPERAND_TYPE_REGISTER && from->kind == VF_NUM && by->kind == VF_NUM &&
                    by->known;
        return vf_num(both ? from->bits >> by->bits % 32 : UINT32_MAX);
    }
    if (f->insn.mnemonic == ZYDIS_MNEMONIC_MOVZX)
        return vf_num(src->size == 8 ? UINT8_MAX : UINT16_MAX);
    if (f->insn.mnemonic != ZYDIS_MNEMONIC_MOV)
        return vf_num(UINT32_MAX);
    if (src->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return (struct vf_value){.kind = VF_NUM, .known = true, .bits = (uint32_t)src->imm.value.u};
    if (src->type == ZYDIS_OPERAND_TYPE_REGISTER && value(f, src->reg.value)->kind == VF_NUM)
        return *value(f, src->reg.value);
    return vf_num(UINT32_MAX);
}

static bool apply_writes(struct vf *f)
{
    bool whole = writes_whole(f->insn.mnemonic);
    struct vf_value x = whole ? result(f) : vf_num(UINT32_MAX);
    for (unsigned i = 0; i < f->insn.operand_count; i++) {
        const ZydisDecodedOperand *o = &f->op[i];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !(o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        int r = vf_gpr(o->reg.value);
        if (r < 0)
            continue;
        struct vf_value *old = &f->state.reg[r];
        if (whole && o->size == 32)
            *old = x;
        else if (vf_is_scratch(r))
            *old = (struct vf_value){.kind = VF_ANY};
        else if (old->kind != VF_NUM) /* upper bits may survive */
            return vf_refuse(f, "a window address in RSI or RDI is changed instead of truncated");
        else
            *old = vf_num(UINT32_MAX);
    }
    return true;
}

/* ---- string instructions ---- */

static bool string_insn(struct vf *f)
{
    bool used[16] = {false};
    if (f->insn.address_width != 64)
        return vf_refuse(f, "a string instruction with 32-bit addresses ignores the window");
    for (unsigned i = 0; i < f->insn.operand_count; i++) {
        const ZydisDecodedOperand *o = &f->op[i];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (vf_in_segment(o))
                return vf_refuse(f, "a string instruction with a prefix adds the window twice");
            if (!is_kind(f, o->mem.base, VF_POINTER))
                return vf_refuse(f, "a string instruction whose RSI or RDI does not point into a window");
            if (o->size == 64)
                return vf_refuse(f, "64-bit operand size outside the known sequences");
            used[vf_gpr(o->mem.base)] = true;
        } else if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            int r = vf_gpr(o->reg.value);
            if (r == RSP || r >= R8 || (r < 0 && ZydisRegisterGetClass(o->reg.value) != ZYDIS_REGCLASS_FLAGS))
                return vf_refuse(f, "string instruction of an unknown shape");
        } else
            return vf_refuse(f, "string instruction of an unknown shape");
    }
    for (int r = RSI; r <= RDI; r++)
        if (used[r])
            f->state.reg[r] = (struct vf_value){.kind = VF_MOVED};
    return true;
}

/* Only where the mode says that the guest's counter is the host's. */
static bool rdtsc(struct vf *f)
{
    if ((f->b->mode & BT_MODE_TSC_OWN) || f->insn.length != 2)
        return vf_refuse(f, "the host's time-stamp counter is not this guest's");
    f->state.reg[RAX] = f->state.reg[RDX] = vf_num(UINT32_MAX);
    return true;
}

bool vf_plain(struct vf *f)
{
    const ZydisDecodedInstruction *z = &f->insn;
    const ZydisDecodedOperand *o = f->op;
    if (z->mnemonic == ZYDIS_MNEMONIC_RDTSC)
        return rdtsc(f);
    if (!may_appear(z))
        return vf_refuse(f, "no instruction translated code may contain");
    if (z->meta.category == ZYDIS_CATEGORY_STRINGOP)
        return string_insn(f);
    if (vf_names_vcpu(f))
        return vf_vcpu(f);
    if (o[1].type == ZYDIS_OPERAND_TYPE_MEMORY && o[1].mem.base == ZYDIS_REGISTER_R14)
        return load_jump_offset(f);
    if (o[1].type == ZYDIS_OPERAND_TYPE_MEMORY && is_kind(f, o[1].mem.base, VF_SHOWN))
        return load_shown(f);
    if (z->mnemonic == ZYDIS_MNEMONIC_MOV && o[0].size == 64 && vf_gpr(o[0].reg.value) >= 0 &&
        o[1].type == ZYDIS_OPERAND_TYPE_REGISTER && vf_gpr(o[1].reg.value) >= 0)
        return move64(f);
    if (z->mnemonic == ZYDIS_MNEMONIC_LEA && o[0].size == 64)
        return lea64(f);
    return check_operands(f) && apply_writes(f);
}
