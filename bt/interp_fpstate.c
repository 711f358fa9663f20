/*
 * FPU state as a 32-bit guest sees it: FXSAVE, FXRSTOR, MXCSR, and the x87 instruction and data pointers.
 *
 * No host address may show in a guest's FNSTENV or FXSAVE. The pointers of what the interpreter executes are
 * the guest's; values beyond 4 GiB were left by translated code or a thunk and read as 0.
 */
#include "interp_thunk.h"

static uint32_t guest_pointer(const uint8_t *p)
{
    uint64_t v;
    __builtin_memcpy(&v, p, 8);
    return v >> 32 ? 0 : (uint32_t)v;
}

bool bt_fpu_aligned(struct bt_interp *in, const struct bt_insn *i, uint32_t off, unsigned len, unsigned to,
                    bool write)
{
    uint32_t lin;
    if (rc_linear(in->cpu, i->seg, off, len, write, &lin) != RC_OK)
        return false;
    if (lin & (to - 1)) {
        rc_raise_error(in->cpu, RC_GP, 0);
        return false;
    }
    return true;
}

/* The 32-bit layout differs from FXSAVE64's in bytes 8 to 23: 32-bit offsets with selectors, which like
 * today's CPUs we store as 0. */
void bt_fpu_image32(const struct rc_cpu *cpu, uint8_t image[BT_FX_END32])
{
    __builtin_memcpy(image, cpu->fpu, BT_FX_END32);
    uint64_t fip = guest_pointer(image + BT_FX_FIP), fdp = guest_pointer(image + BT_FX_FDP);
    uint32_t mask = BT_MXCSR_VALID;
    __builtin_memcpy(image + BT_FX_FIP, &fip, 8);
    __builtin_memcpy(image + BT_FX_FDP, &fdp, 8);
    __builtin_memcpy(image + BT_FX_MXCSR_MASK, &mask, 4);
}

/* Bits the registers do not have are dropped; ES and B say whether an exception is pending, whatever the image says
 * (vol. 1 8.1.3.3). */
void bt_fpu_x87_from32(struct rc_cpu *cpu, const uint8_t *image)
{
    enum {
        FCW_BITS = 0x1f3f,
        FCW_ONE = 0x40,
        FSW_BITS = 0x7f7f,
        ES_AND_B = 0x8080,
        EXCEPTIONS = 0x3f,
        FOP_BITS = 0x7ff
    };
    uint64_t fip = bt_load(image + BT_FX_FIP, 4), fdp = bt_load(image + BT_FX_FDP, 4);
    uint32_t fcw = (bt_load(image + BT_FX_FCW, 2) & FCW_BITS) | FCW_ONE,
             fsw = bt_load(image + BT_FX_FSW, 2) & FSW_BITS;
    bt_store(cpu->fpu + BT_FX_FCW, 2, fcw);
    bt_store(cpu->fpu + BT_FX_FSW, 2, fsw | (fsw & ~fcw & EXCEPTIONS ? ES_AND_B : 0));
    bt_store(cpu->fpu + BT_FX_FTW, 2, image[BT_FX_FTW]);
    bt_store(cpu->fpu + BT_FX_FOP, 2, bt_load(image + BT_FX_FOP, 2) & FOP_BITS);
    __builtin_memcpy(cpu->fpu + BT_FX_FIP, &fip, 8);
    __builtin_memcpy(cpu->fpu + BT_FX_FDP, &fdp, 8);
    for (unsigned at = BT_FX_ST; at < BT_FX_XMM; at += 16) {
        __builtin_memcpy(cpu->fpu + at, image + at, 10);
        __builtin_memset(cpu->fpu + at + 10, 0, 6);
    }
}

void bt_fpu_x87_init(struct rc_cpu *cpu)
{
    __builtin_memset(cpu->fpu, 0, BT_FX_MXCSR);
    __builtin_memset(cpu->fpu + BT_FX_ST, 0, BT_FX_XMM - BT_FX_ST);
    bt_store(cpu->fpu + BT_FX_FCW, 2, 0x37f);
}

/* Beyond XMM7 memory is left alone. */
enum bt_step bt_fpu_fxsave(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t off = bt_ea(in, i);
    uint8_t image[BT_FX_END32];
    if (!bt_fpu_aligned(in, i, off, 512, 16, true) || !bt_check_rmw(in, i->seg, off, 512))
        return BT_STEP_FAULT;
    bt_fpu_image32(in->cpu, image);
    return bt_write_bytes(in, i->seg, off, image, sizeof image) ? BT_STEP_OK : BT_STEP_FAULT;
}

enum bt_step bt_fpu_fxrstor(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t off = bt_ea(in, i);
    uint8_t image[512];
    if (!bt_fpu_aligned(in, i, off, 512, 16, false) || !bt_read_bytes(in, i->seg, off, image, sizeof image))
        return BT_STEP_FAULT;
    if (bt_load(image + BT_FX_MXCSR, 4) & ~(uint32_t)BT_MXCSR_VALID)
        return bt_raise0(in, RC_GP);
    bt_fpu_x87_from32(in->cpu, image);
    __builtin_memcpy(in->cpu->fpu + BT_FX_MXCSR, image + BT_FX_MXCSR, 4);
    __builtin_memcpy(in->cpu->fpu + BT_FX_XMM, image + BT_FX_XMM, BT_FX_END32 - BT_FX_XMM);
    return BT_STEP_OK;
}

/* LDMXCSR /2, STMXCSR /3 */
enum bt_step bt_fpu_mxcsr(struct bt_interp *in, const struct bt_insn *i)
{
    uint8_t *mxcsr = in->cpu->fpu + BT_FX_MXCSR;
    uint32_t v;
    if (i->reg == 3)
        return bt_write(in, i->seg, bt_ea(in, i), 4, bt_load(mxcsr, 4)) ? BT_STEP_OK : BT_STEP_FAULT;
    if (!bt_read(in, i->seg, bt_ea(in, i), 4, &v))
        return BT_STEP_FAULT;
    if (v & ~(uint32_t)BT_MXCSR_VALID)
        return bt_raise0(in, RC_GP);
    bt_store(mxcsr, 4, v);
    return BT_STEP_OK;
}

/* ---- FIP, FDP, FOP ---- */
void bt_fpu_pointers_get(const struct rc_cpu *cpu, struct bt_fpu_pointers *p)
{
    p->fip = guest_pointer(cpu->fpu + BT_FX_FIP);
    p->fdp = guest_pointer(cpu->fpu + BT_FX_FDP);
    p->fop = (uint16_t)bt_load(cpu->fpu + BT_FX_FOP, 2);
}

/* FNSTENV and FNSAVE: the pointers in protected-mode format (vol. 1 figures 8-9 and 8-11). */
static void env_store(const struct bt_insn *i, const struct bt_fpu_pointers *p, uint8_t *mem)
{
    if (i->osz == 4) {
        bt_store(mem + 12, 4, (uint32_t)p->fip);
        bt_store(mem + 16, 4, (uint32_t)p->fop << 16);
        bt_store(mem + 20, 4, (uint32_t)p->fdp);
        bt_store(mem + 24, 2, 0);
    } else {
        bt_store(mem + 6, 2, (uint32_t)p->fip);
        bt_store(mem + 8, 2, 0);
        bt_store(mem + 10, 2, (uint32_t)p->fdp);
        bt_store(mem + 12, 2, 0);
    }
}

static struct bt_fpu_pointers env_load(const struct bt_insn *i, const uint8_t *mem)
{
    if (i->osz == 4)
        return (struct bt_fpu_pointers){bt_load(mem + 12, 4), bt_load(mem + 20, 4),
                                        (uint16_t)(bt_load(mem + 18, 2) & 0x7ff)};
    return (struct bt_fpu_pointers){bt_load(mem + 6, 2), bt_load(mem + 10, 2), 0};
}

void bt_fpu_pointers_put(struct bt_interp *in, const struct bt_insn *i, const struct bt_fpu_pointers *p,
                         uint8_t *mem)
{
    struct bt_fpu_pointers now = *p;
    uint8_t *fpu = in->cpu->fpu;
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
        env_store(i, p, mem);
        break;
    case ZYDIS_MNEMONIC_FNSAVE:
        env_store(i, p, mem);
        now = (struct bt_fpu_pointers){0};
        break;
    case ZYDIS_MNEMONIC_FNINIT:
        now = (struct bt_fpu_pointers){0};
        break;
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FRSTOR:
        now = env_load(i, mem);
        break;
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNSTSW:
        break;
    default:
        if (i->class != BT_CLASS_X87)
            break;
        now.fip = in->cpu->eip;
        now.fop = (uint16_t)((i->opcode & 7) << 8 | i->modrm);
        if (i->is_mem)
            now.fdp = bt_ea(in, i);
        break;
    }
    __builtin_memcpy(fpu + BT_FX_FIP, &now.fip, 8);
    __builtin_memcpy(fpu + BT_FX_FDP, &now.fdp, 8);
    bt_store(fpu + BT_FX_FOP, 2, now.fop);
}
