/*
 * x87, MMX and SSE instructions: the checks before (#NM, #UD, pending #MF), operands in, the thunk, operands
 * out, and its trap turned into the guest's exception.
 */
#include "interp_thunk.h"

enum { FSW_ES = 0x80, FCW_MASKS = 0x3f };

/* x87 instructions that do not wait for a pending exception (vol. 1 8.3.12). */
static bool is_no_wait(const struct bt_insn *i)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_FNINIT:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
        return true;
    default:
        return false;
    }
}

static bool is_xsave(const struct bt_insn *i)
{
    return i->mnemonic == ZYDIS_MNEMONIC_XSAVE || i->mnemonic == ZYDIS_MNEMONIC_XSAVEOPT ||
           i->mnemonic == ZYDIS_MNEMONIC_XRSTOR;
}

static bool x87_pending(const struct rc_cpu *cpu)
{
    return cpu->fpu[BT_FX_FSW] & FSW_ES;
}

/* BMI1 or BMI2, each a CPUID bit of its own. VEX does not exist outside protected mode. */
static enum rc_result check_bmi(struct bt_interp *in, const struct bt_insn *i)
{
    enum { BMI1 = 1 << 3, BMI2 = 1 << 8 };
    uint32_t need = BMI2;
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BLSR:
        need = BMI1;
        break;
    default:
        break;
    }
    return bt_protected(in) && (in->cpu->config.feature7_ebx & need) ? RC_OK : rc_raise(in->cpu, RC_UD);
}

static enum rc_result check_available(struct bt_interp *in, const struct bt_insn *i)
{
    if (i->class == BT_CLASS_BMI)
        return check_bmi(in, i);
    if (i->class == BT_CLASS_AVX)
        return rc_check_avx(in->cpu);
    if (is_xsave(i))
        return rc_check_xsave(in->cpu);
    if (i->class == BT_CLASS_X87)
        return rc_check_x87(in->cpu, i->mnemonic == ZYDIS_MNEMONIC_FWAIT);
    return rc_check_sse(in->cpu, i->class == BT_CLASS_MMX);
}

/* The thunk's trap is the guest's. A misaligned 16-byte operand shows as #GP. */
static enum bt_step raise_trapped(struct bt_interp *in)
{
    switch (in->fpu.vector) {
    case RC_GP:
        return bt_raise0(in, RC_GP);
    case RC_MF:
        return bt_raise(in, RC_MF);
    case RC_XM:
        return bt_raise(in, in->cpu->cr4 & RC_CR4_OSXMMEXCPT ? RC_XM : RC_UD);
    default:
        return bt_raise(in, RC_UD); /* an extension this host lacks */
    }
}

/* Alignment is checked before translation (vol. 3 table 6-2: #GP before #PF). Whether this instruction asks for it, it
 * says itself: it is run, on a copy of nothing that matters. */
static bool misaligned(struct bt_interp *in, unsigned slot, const uint8_t *mem)
{
    uint8_t fpu[sizeof in->cpu->fpu];
    if (!((uintptr_t)mem & 31))
        return false;
    __builtin_memcpy(fpu, in->cpu->fpu, sizeof fpu);
    bool ok = bt_thunk_run(in, slot, (void *)(uintptr_t)mem);
    __builtin_memcpy(in->cpu->fpu, fpu, sizeof fpu);
    return !ok && in->fpu.vector == RC_GP;
}

static bool operand_ready(struct bt_interp *in, const struct bt_insn *i, const struct bt_thunk *t,
                          uint32_t off, uint8_t *mem)
{
    bool keep = t->reads || i->class == BT_CLASS_X87;
    if (t->writes && !bt_check_rmw(in, i->seg, off, i->mem_size))
        return false;
    return !keep || bt_read_bytes(in, i->seg, off, mem, i->mem_size);
}

/* The operand into the buffer, at the guest address' offset in 32 bytes. What is written is read first, too:
 * an x87 store with an unmasked exception writes nothing. */
static uint8_t *operand_in(struct bt_interp *in, const struct bt_insn *i, const struct bt_thunk *t,
                           unsigned slot, uint32_t off)
{
    uint32_t lin;
    if (rc_linear(in->cpu, i->seg, off, i->mem_size, t->writes, &lin) != RC_OK)
        return NULL;
    uint8_t *mem = in->fpu.buf + (lin & 31);
    if (operand_ready(in, i, t, off, mem))
        return mem;
    struct rc_fault fault = in->cpu->fault;
    if (i->class != BT_CLASS_X87 && misaligned(in, slot, mem))
        bt_raise0(in, RC_GP);
    else
        in->cpu->fault = fault;
    return NULL;
}

/* With CR0.NE clear a pending exception is reported through an interrupt line that no board of ours wires:
 * the instruction runs as if it were masked. */
static bool run_masked(struct bt_interp *in, const struct bt_insn *i, unsigned slot, void *mem)
{
    uint8_t *fcw = in->cpu->fpu + BT_FX_FCW, *fsw = in->cpu->fpu + BT_FX_FSW;
    uint8_t unmasked = ~fcw[0] & FCW_MASKS;
    fcw[0] |= FCW_MASKS;
    fsw[0] &= (uint8_t)~FSW_ES;
    bool ok = bt_thunk_run(in, slot, mem);
    if (i->mnemonic == ZYDIS_MNEMONIC_FLDCW || i->mnemonic == ZYDIS_MNEMONIC_FLDENV ||
        i->mnemonic == ZYDIS_MNEMONIC_FRSTOR)
        return ok;
    fcw[0] &= (uint8_t)~unmasked;
    if (fsw[0] & unmasked)
        fsw[0] |= FSW_ES;
    return ok;
}

static bool run(struct bt_interp *in, const struct bt_insn *i, const struct bt_thunk *t, unsigned slot,
                void *mem)
{
    bool waits = i->class == BT_CLASS_X87 ? !is_no_wait(i) : t->mmx;
    return waits && x87_pending(in->cpu) ? run_masked(in, i, slot, mem) : bt_thunk_run(in, slot, mem);
}

static enum bt_step execute(struct bt_interp *in, const struct bt_insn *i, const struct bt_thunk *t,
                            unsigned slot)
{
    struct bt_fpu_pointers pointers;
    uint32_t off = i->is_mem ? bt_ea(in, i) : 0;
    uint8_t *mem = in->fpu.buf;
    if (i->is_mem && i->mem_size && !(mem = operand_in(in, i, t, slot, off)))
        return BT_STEP_FAULT;
    bt_fpu_pointers_get(in->cpu, &pointers);
    bool ok = run(in, i, t, slot, mem);
    bt_fpu_pointers_put(in, i, &pointers, mem);
    if (!ok)
        return raise_trapped(in);
    bt_thunk_commit(in);
    if (i->is_mem && t->writes && !bt_write_bytes(in, i->seg, off, mem, i->mem_size))
        return BT_STEP_FAULT;
    return BT_STEP_OK;
}

/* Any MMX instruction sets TOP to 0 and all tags to valid (vol. 1 9.5.1). MMn is the physical register n,
 * while the image is ordered from the top of the stack. */
static void enter_mmx(struct rc_cpu *cpu)
{
    uint8_t old[128], *st = cpu->fpu + BT_FX_ST;
    unsigned top = cpu->fpu[BT_FX_FSW + 1] >> 3 & 7;
    __builtin_memcpy(old, st, sizeof old);
    for (unsigned n = 0; n < 8; n++)
        __builtin_memcpy(st + 16 * n, old + 16 * ((n - top) & 7), 16);
    cpu->fpu[BT_FX_FSW + 1] &= (uint8_t)~0x38;
    cpu->fpu[BT_FX_FTW] = 0xff;
}

/* MASKMOVQ, MASKMOVDQU store the bytes of reg that the sign bits of rm select to [EDI]. All of them are
 * checked before one is written; a mask of zeros touches no memory. */
static enum bt_step masked_store(struct bt_interp *in, const struct bt_insn *i)
{
    bool xmm = i->mnemonic != ZYDIS_MNEMONIC_MASKMOVQ;
    uint32_t off = i->asz == 2 ? in->cpu->gpr[RC_EDI] & 0xffff : in->cpu->gpr[RC_EDI];
    unsigned top = xmm ? 0 : in->cpu->fpu[BT_FX_FSW + 1] >> 3 & 7, size = xmm ? 16 : 8;
    const uint8_t *base = in->cpu->fpu + (xmm ? BT_FX_XMM : BT_FX_ST);
    const uint8_t *data = base + 16 * ((i->reg - top) & 7), *mask = base + 16 * ((i->rm - top) & 7);
    for (unsigned n = 0; n < size; n++)
        if ((mask[n] & 0x80) && !bt_check_rmw(in, i->seg, off + n, 1))
            return BT_STEP_FAULT;
    for (unsigned n = 0; n < size; n++)
        if ((mask[n] & 0x80) && !bt_write(in, i->seg, off + n, 1, data[n]))
            return BT_STEP_FAULT;
    if (!xmm)
        enter_mmx(in->cpu);
    return BT_STEP_OK;
}

enum bt_step bt_interp_fpu(struct bt_interp *in, const struct bt_insn *i)
{
    unsigned slot;
    if (check_available(in, i) != RC_OK)
        return BT_STEP_FAULT;
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE:
        return bt_fpu_fxsave(in, i);
    case ZYDIS_MNEMONIC_FXRSTOR:
        return bt_fpu_fxrstor(in, i);
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVEOPT:
        return bt_fpu_xsave(in, i);
    case ZYDIS_MNEMONIC_XRSTOR:
        return bt_fpu_xrstor(in, i);
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return bt_avx_masked(in, i);
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return masked_store(in, i);
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_STMXCSR:
        return bt_fpu_mxcsr(in, i);
    default:
        break;
    }
    if (i->vsib)
        return bt_avx_gather(in, i);
    const struct bt_thunk *t = bt_thunk_get(in, i, &slot);
    if (!t)
        return BT_STEP_UNSUPPORTED;
    bool waits = i->class == BT_CLASS_X87 ? !is_no_wait(i) : t->mmx;
    if (waits && x87_pending(in->cpu) && (in->cpu->cr0 & RC_CR0_NE))
        return bt_raise(in, RC_MF);
    if (i->mnemonic == ZYDIS_MNEMONIC_FWAIT)
        return BT_STEP_OK;
    if (i->mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || i->mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU)
        return masked_store(in, i);
    return execute(in, i, t, slot);
}
