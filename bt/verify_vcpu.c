/*
 * The SFI verifier, what touches the monitor's own memory: which fields of the vCPU structure translated code
 * may read or write, and in which way; and the two pairs of instructions that borrow a slot of the host
 * stack.
 */
#include <stddef.h>
#include "verify.h"

enum vf_use {
    VF_LOAD_NUM,    /* MOV or MOVZX into any register but the host's: a number */
    VF_LOAD_ODD,    /* MOV into a scratch register: 0 or 4 GiB / 8 */
    VF_LOAD_KERNEL, /* the same: the base of the kernel's window, for supervisor code */
    VF_LOAD_USER,   /* the same: the user's, for user code */
    VF_LOAD_SHOWN,  /* the same: the table of what a window is believed to show */
    VF_LOAD_RING0,  /* LOAD_NUM, of what only CPL 0 may see */
    VF_TEST,        /* CMP with an immediate */
    VF_STORE_BOOL,  /* MOV of 0 or 1, SETcc */
    VF_STORE_IF,    /* the same, with the I/O privilege */
    VF_STORE_IMM,
};

#define CPU(field)    offsetof(struct rc_cpu, field)
#define VCPU(field)   offsetof(struct bt_vcpu, field)
#define SEG(s, field) (CPU(seg) + (s) * sizeof(struct rc_seg) + offsetof(struct rc_seg, field))

/* Default is refuse: a field that no row names is the monitor's alone. */
static const struct vf_field {
    size_t offset;
    uint8_t size, use;
} field_table[] = {
    {VCPU(window_k), 8, VF_LOAD_KERNEL},
    {VCPU(window_u), 8, VF_LOAD_USER},
    {VCPU(shown), 8, VF_LOAD_SHOWN},
    {CPU(cr0), 4, VF_LOAD_RING0},
    {CPU(cr2), 4, VF_LOAD_RING0},
    {CPU(cr3), 4, VF_LOAD_RING0},
    {CPU(cr4), 4, VF_LOAD_RING0},
    {SEG(RC_FS, soft), 4, VF_LOAD_NUM},
    {SEG(RC_GS, soft), 4, VF_LOAD_NUM},
    {SEG(RC_FS, soft) + 4, 4, VF_LOAD_ODD},
    {SEG(RC_GS, soft) + 4, 4, VF_LOAD_ODD},
    {SEG(RC_ES, selector), 2, VF_LOAD_NUM}, /* MOV r, sreg and PUSH sreg */
    {SEG(RC_CS, selector), 2, VF_LOAD_NUM},
    {SEG(RC_SS, selector), 2, VF_LOAD_NUM},
    {SEG(RC_DS, selector), 2, VF_LOAD_NUM},
    {SEG(RC_FS, selector), 2, VF_LOAD_NUM},
    {SEG(RC_GS, selector), 2, VF_LOAD_NUM},
    {CPU(iflag), 1, VF_STORE_IF}, /* CLI, STI, POPF */
    {CPU(irq_shadow), 1, VF_STORE_BOOL},
    {VCPU(shadow_eip), 4, VF_STORE_IMM},
    {CPU(iflag) - 1, 2, VF_LOAD_NUM},  /* PUSHF: IF in bit 8 */
    {CPU(eflags) + 2, 2, VF_LOAD_NUM}, /* PUSHF, POPF: ID in bit 5 */
    {VCPU(irq_waiting), 1, VF_LOAD_NUM},
    {VCPU(irq_waiting), 1, VF_TEST},
    {VCPU(tsc_read), 1, VF_STORE_BOOL}, /* RDTSC */
};

static int vcpu_operand(const struct vf *f)
{
    for (unsigned i = 0; i < f->insn.operand_count; i++)
        if (f->op[i].type == ZYDIS_OPERAND_TYPE_MEMORY && f->op[i].mem.base == ZYDIS_REGISTER_R15)
            return (int)i;
    return -1;
}

bool vf_names_vcpu(const struct vf *f)
{
    return vcpu_operand(f) >= 0;
}

static bool load(struct vf *f, struct vf_value x, bool scratch_only)
{
    int r = vf_gpr(f->op[0].reg.value);
    if (vf_is_host(r) || (scratch_only && !vf_is_scratch(r)))
        return vf_refuse(f, "monitor memory is loaded into a register that may not hold it");
    f->state.reg[r] = x;
    return true;
}

/* The window table: a window chosen by the top byte of an address, for supervisor code only. */
static bool load_window(struct vf *f)
{
    const ZydisDecodedOperandMem *m = &f->op[1].mem;
    int index = vf_gpr(m->index);
    if (f->insn.mnemonic != ZYDIS_MNEMONIC_MOV || f->op[0].size != 64 || m->scale != 8 ||
        m->disp.value != (ZyanI64)VCPU(window) || index < 0 || f->state.reg[index].kind != VF_NUM ||
        f->state.reg[index].bits > 255)
        return vf_refuse(f, "window table read without an 8-bit index");
    if (f->b->mode & RC_MODE_USER)
        return vf_refuse(f, "user code may not select a window");
    return load(f, (struct vf_value){.kind = VF_WINDOW}, true);
}

/* What the instruction does with the field, as a bit mask of enum vf_use. */
static unsigned uses(const struct vf *f, int which)
{
    const ZydisDecodedInstruction *z = &f->insn;
    const ZydisDecodedOperand *o = f->op;
    bool loads = which == 1 && o[0].type == ZYDIS_OPERAND_TYPE_REGISTER && vf_gpr(o[0].reg.value) >= 0;
    bool imm = which == 0 && o[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    if (loads && z->mnemonic == ZYDIS_MNEMONIC_MOV)
        return o[0].size == 64   ? 1u << VF_LOAD_KERNEL | 1u << VF_LOAD_USER | 1u << VF_LOAD_SHOWN
               : o[0].size == 32 ? 1u << VF_LOAD_NUM | 1u << VF_LOAD_ODD | 1u << VF_LOAD_RING0
                                 : 0;
    if (loads && z->mnemonic == ZYDIS_MNEMONIC_MOVZX && o[0].size == 32)
        return 1u << VF_LOAD_NUM;
    if (imm && z->mnemonic == ZYDIS_MNEMONIC_CMP)
        return 1u << VF_TEST;
    if (which == 0 && z->meta.category == ZYDIS_CATEGORY_SETCC)
        return 1u << VF_STORE_BOOL | 1u << VF_STORE_IF;
    if (imm && z->mnemonic == ZYDIS_MNEMONIC_MOV)
        return 1u << VF_STORE_IMM | (o[1].imm.value.u <= 1 ? 1u << VF_STORE_BOOL | 1u << VF_STORE_IF : 0);
    return 0;
}

static bool apply(struct vf *f, const struct vf_field *row)
{
    switch (row->use) {
    case VF_LOAD_NUM:
        return load(f, vf_num(row->size == 1 ? UINT8_MAX : row->size == 2 ? UINT16_MAX : UINT32_MAX), false);
    case VF_LOAD_RING0: /* CPL <= IOPL, and IOPL is 0 */
        if ((f->b->mode & (RC_MODE_USER | RC_MODE_IOPL | BT_MODE_FLAGS_ODD)) != RC_MODE_IOPL)
            return vf_refuse(f, "a control register is read that only ring 0 may read");
        return load(f, vf_num(UINT32_MAX), false);
    case VF_LOAD_ODD:
        return load(f, (struct vf_value){.kind = VF_ODD}, true);
    case VF_LOAD_KERNEL:
    case VF_LOAD_USER:
        if ((row->use == VF_LOAD_USER) != !!(f->b->mode & RC_MODE_USER))
            return vf_refuse(f, "the window of another privilege");
        return load(f, (struct vf_value){.kind = VF_WINDOW}, true);
    case VF_LOAD_SHOWN:
        return load(f, (struct vf_value){.kind = VF_SHOWN}, true);
    case VF_STORE_IF:
        if (!(f->b->mode & RC_MODE_IOPL))
            return vf_refuse(f, "code without the I/O privilege may not change IF");
        return true;
    default:
        return true;
    }
}

bool vf_vcpu(struct vf *f)
{
    int which = vcpu_operand(f);
    const ZydisDecodedOperand *o = &f->op[which];
    unsigned use = uses(f, which);
    if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM || f->insn.address_width != 64 || vf_in_segment(o))
        return vf_refuse(f, "the vCPU structure is addressed in an unknown way");
    if (o->mem.index != ZYDIS_REGISTER_NONE)
        return which == 1 ? load_window(f)
                          : vf_refuse(f, "the window table is not translated code's to write");
    for (unsigned i = 0; i < sizeof field_table / sizeof *field_table; i++) {
        const struct vf_field *row = &field_table[i];
        if ((ZyanI64)row->offset == o->mem.disp.value && row->size * 8 == o->size && use & 1u << row->use)
            return apply(f, row);
    }
    return vf_refuse(f, "this field of the vCPU may not be used like this");
}

/* ---- pushfq; pop scratch (PUSHF's image) and push scratch; popfq (POPF) ---- */

bool vf_is_stack(const ZydisDecodedInstruction *z)
{
    return z->mnemonic == ZYDIS_MNEMONIC_PUSH || z->mnemonic == ZYDIS_MNEMONIC_POP ||
           z->mnemonic == ZYDIS_MNEMONIC_PUSHFQ || z->mnemonic == ZYDIS_MNEMONIC_POPFQ;
}

bool vf_stack(struct vf *f)
{
    const ZydisDecodedOperand *o = &f->op[0];
    enum vf_owed owed = f->owed;
    int r = o->type == ZYDIS_OPERAND_TYPE_REGISTER ? vf_gpr(o->reg.value) : -1;
    bool scratch = vf_is_scratch(r) && o->size == 64;
    f->owed = VF_NOTHING;
    if (!owed && f->insn.mnemonic == ZYDIS_MNEMONIC_PUSHFQ) {
        f->owed = VF_POP;
        return true;
    }
    if (!owed && f->insn.mnemonic == ZYDIS_MNEMONIC_PUSH && scratch) {
        if (f->state.reg[r].kind != VF_NUM || f->state.reg[r].bits & ~(uint32_t)(RC_ARITH | RC_DF))
            return vf_refuse(f, "flags other than the arithmetic ones and DF are not the guest's to set");
        f->owed = VF_POPF;
        return true;
    }
    if (owed == VF_POP && f->insn.mnemonic == ZYDIS_MNEMONIC_POP && scratch) {
        f->state.reg[r] = vf_num(UINT32_MAX);
        return true;
    }
    if (owed == VF_POPF && f->insn.mnemonic == ZYDIS_MNEMONIC_POPFQ)
        return true;
    return vf_refuse(f, "the host stack is not translated code's");
}
