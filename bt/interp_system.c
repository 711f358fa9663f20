/*
 * Segment registers, descriptor tables, control and debug registers, port I/O and the rest of what rows of
 * the sensitive-instruction table name. The privilege rules are ringcomp's; operands are fetched here.
 */
#include "interp_families.h"

/* A register destination gets the operand size, memory always 16 bits (vol. 2 MOV, SLDT, STR, SMSW). */
static enum bt_step write_selector(struct bt_interp *in, const struct bt_insn *i, uint32_t value)
{
    return bt_write_rm(in, i, i->is_mem ? 2 : i->osz, value) ? BT_STEP_OK : BT_STEP_FAULT;
}

enum bt_step bt_h_mov_rm_seg(struct bt_interp *in, const struct bt_insn *i)
{
    if (i->reg > RC_GS)
        return bt_raise(in, RC_UD);
    return write_selector(in, i, in->cpu->seg[i->reg].selector);
}

/* MOV SS holds back interrupts and debug traps until the next instruction, which sets ESP, has completed
 * (vol. 3 6.8.3). */
static enum bt_step load_seg(struct bt_interp *in, unsigned seg, uint16_t selector)
{
    if (rc_load_seg(in->cpu, seg, selector) != RC_OK)
        return BT_STEP_FAULT;
    if (seg == RC_SS) {
        in->cpu->irq_shadow = 1;
        in->after_mov_ss = in->no_trap = true;
    }
    return BT_STEP_OK;
}

enum bt_step bt_h_mov_seg_rm(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (i->reg == RC_CS || i->reg > RC_GS)
        return bt_raise(in, RC_UD);
    return bt_read_rm(in, i, 2, &v) ? load_seg(in, i->reg, (uint16_t)v) : BT_STEP_FAULT;
}

static unsigned far_pointer_seg(const struct bt_insn *i)
{
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT)
        return i->opcode == 0xc4 ? RC_ES : RC_DS;
    return i->opcode == 0xb2 ? RC_SS : i->opcode == 0xb4 ? RC_FS : RC_GS;
}

/* LES LDS LSS LFS LGS. LSS needs no shadow: it loads ESP itself. */
enum bt_step bt_h_load_far_pointer(struct bt_interp *in, const struct bt_insn *i)
{
    uint8_t buf[6];
    if (!i->is_mem)
        return bt_raise(in, RC_UD);
    if (!bt_read_bytes(in, i->seg, bt_ea(in, i), buf, i->osz + 2u) ||
        rc_load_seg(in->cpu, far_pointer_seg(i), (uint16_t)bt_load(buf + i->osz, 2)) != RC_OK)
        return BT_STEP_FAULT;
    bt_set_reg(in, i->reg, i->osz, bt_load(buf, i->osz));
    return BT_STEP_OK;
}

/* ---- 0F 00: protected mode only ---- */
enum bt_step bt_h_sldt(struct bt_interp *in, const struct bt_insn *i)
{
    if (!bt_protected(in))
        return bt_raise(in, RC_UD);
    return write_selector(in, i, in->cpu->seg[RC_LDTR].selector);
}

enum bt_step bt_h_str(struct bt_interp *in, const struct bt_insn *i)
{
    if (!bt_protected(in))
        return bt_raise(in, RC_UD);
    return write_selector(in, i, in->cpu->seg[RC_TR].selector);
}

/* LLDT and LTR are refused by privilege before their operand is touched. */
static bool ring0(struct bt_interp *in)
{
    if (in->cpu->cpl == 0)
        return true;
    rc_raise_error(in->cpu, RC_GP, 0);
    return false;
}

enum bt_step bt_h_lldt(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!bt_protected(in))
        return bt_raise(in, RC_UD);
    if (!ring0(in) || !bt_read_rm(in, i, 2, &v))
        return BT_STEP_FAULT;
    return bt_result(rc_lldt(in->cpu, (uint16_t)v));
}

enum bt_step bt_h_ltr(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!bt_protected(in))
        return bt_raise(in, RC_UD);
    if (!ring0(in) || !bt_read_rm(in, i, 2, &v))
        return BT_STEP_FAULT;
    return bt_result(rc_ltr(in->cpu, (uint16_t)v));
}

static enum bt_step set_zf(struct bt_interp *in, bool zf)
{
    in->cpu->eflags = (in->cpu->eflags & ~(uint32_t)RC_ZF) | (zf ? RC_ZF : 0);
    return BT_STEP_OK;
}

static enum bt_step verify(struct bt_interp *in, const struct bt_insn *i, bool write)
{
    uint32_t v;
    bool zf;
    if (!bt_protected(in))
        return bt_raise(in, RC_UD);
    if (!bt_read_rm(in, i, 2, &v) || rc_verr(in->cpu, (uint16_t)v, write, &zf) != RC_OK)
        return BT_STEP_FAULT;
    return set_zf(in, zf);
}

enum bt_step bt_h_verr(struct bt_interp *in, const struct bt_insn *i)
{
    return verify(in, i, false);
}

enum bt_step bt_h_verw(struct bt_interp *in, const struct bt_insn *i)
{
    return verify(in, i, true);
}

typedef enum rc_result query_fn(struct rc_cpu *cpu, uint16_t sel, uint32_t *value, bool *zf);

static enum bt_step query(struct bt_interp *in, const struct bt_insn *i, query_fn *fn)
{
    uint32_t sel, v;
    bool zf;
    if (!bt_protected(in))
        return bt_raise(in, RC_UD);
    if (!bt_read_rm(in, i, 2, &sel) || fn(in->cpu, (uint16_t)sel, &v, &zf) != RC_OK)
        return BT_STEP_FAULT;
    if (zf)
        bt_set_reg(in, i->reg, i->osz, v);
    return set_zf(in, zf);
}

enum bt_step bt_h_lar(struct bt_interp *in, const struct bt_insn *i)
{
    return query(in, i, rc_lar);
}

enum bt_step bt_h_lsl(struct bt_interp *in, const struct bt_insn *i)
{
    return query(in, i, rc_lsl);
}

/* Raise the selector's RPL to the source's: compares two numbers, so it needs no descriptor. */
enum bt_step bt_h_arpl(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t dst, rpl = bt_reg(in, i->reg, 2) & 3;
    if (!bt_protected(in))
        return bt_raise(in, RC_UD);
    if (!bt_read_rm(in, i, 2, &dst)) /* a read like any other: it is written only to be changed */
        return BT_STEP_FAULT;
    bool raise = (dst & 3) < rpl;
    if (raise && !bt_write_rm(in, i, 2, (dst & ~3u) | rpl))
        return BT_STEP_FAULT;
    return set_zf(in, raise);
}

/* ---- 0F 01 ---- */
static enum bt_step store_table(struct bt_interp *in, const struct bt_insn *i, const struct rc_table *t)
{
    uint8_t buf[6];
    if (!i->is_mem)
        return bt_raise(in, RC_UD);
    bt_store(buf, 2, t->limit);
    bt_store(buf + 2, 4, i->osz == 2 ? t->base & 0xffffff : t->base);
    return bt_write_bytes(in, i->seg, bt_ea(in, i), buf, 6) ? BT_STEP_OK : BT_STEP_FAULT;
}

enum bt_step bt_h_sgdt(struct bt_interp *in, const struct bt_insn *i)
{
    return store_table(in, i, &in->cpu->gdtr);
}

enum bt_step bt_h_sidt(struct bt_interp *in, const struct bt_insn *i)
{
    return store_table(in, i, &in->cpu->idtr);
}

typedef enum rc_result table_fn(struct rc_cpu *cpu, uint32_t base, uint16_t limit);

static enum bt_step load_table(struct bt_interp *in, const struct bt_insn *i, table_fn *fn)
{
    uint8_t buf[6];
    if (!i->is_mem)
        return bt_raise(in, RC_UD);
    if (!ring0(in) || !bt_read_bytes(in, i->seg, bt_ea(in, i), buf, 6))
        return BT_STEP_FAULT;
    uint32_t base = bt_load(buf + 2, 4);
    return bt_result(fn(in->cpu, i->osz == 2 ? base & 0xffffff : base, (uint16_t)bt_load(buf, 2)));
}

enum bt_step bt_h_lgdt(struct bt_interp *in, const struct bt_insn *i)
{
    return load_table(in, i, rc_lgdt);
}

enum bt_step bt_h_lidt(struct bt_interp *in, const struct bt_insn *i)
{
    return load_table(in, i, rc_lidt);
}

enum bt_step bt_h_smsw(struct bt_interp *in, const struct bt_insn *i)
{
    return write_selector(in, i, in->cpu->cr0);
}

enum bt_step bt_h_lmsw(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!ring0(in) || !bt_read_rm(in, i, 2, &v))
        return BT_STEP_FAULT;
    enum rc_result r = rc_lmsw(in->cpu, (uint16_t)v);
    bt_interp_fetch_gone(in);
    return bt_result(r);
}

/* The linear address counts, whatever limit or type the segment has (vol. 2 INVLPG). */
enum bt_step bt_h_invlpg(struct bt_interp *in, const struct bt_insn *i)
{
    if (!i->is_mem)
        return bt_raise(in, RC_UD);
    enum rc_result r = rc_invlpg(in->cpu, in->cpu->seg[i->seg].base + bt_ea(in, i));
    bt_interp_fetch_gone(in);
    return bt_result(r);
}

enum bt_step bt_h_clts(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_result(rc_clts(in->cpu));
}

enum bt_step bt_h_invd(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_result(rc_invd(in->cpu));
}

/* 0F 20-23: bit 0 DR, bit 1 to the special register. A paging register may have changed: what was fetched
 * through the old mapping is asked for anew. */
enum bt_step bt_h_mov_crdr(struct bt_interp *in, const struct bt_insn *i)
{
    struct rc_cpu *cpu = in->cpu;
    uint32_t v = cpu->gpr[i->rm];
    enum rc_result r;
    switch (i->opcode & 3) {
    case 0:
        r = rc_mov_from_cr(cpu, i->reg, &v);
        break;
    case 1:
        r = rc_mov_from_dr(cpu, i->reg, &v);
        break;
    case 2:
        r = rc_mov_to_cr(cpu, i->reg, v);
        bt_interp_fetch_gone(in);
        break;
    default:
        r = rc_mov_to_dr(cpu, i->reg, v);
        break;
    }
    if (r == RC_OK && !(i->opcode & 2))
        cpu->gpr[i->rm] = v;
    return bt_result(r);
}

enum bt_step bt_h_rdmsr(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_result(rc_rdmsr(in->cpu));
}

enum bt_step bt_h_wrmsr(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    enum rc_result r = rc_wrmsr(in->cpu);
    bt_interp_fetch_gone(in); /* EFER.NXE */
    return bt_result(r);
}

enum bt_step bt_h_xcr(struct bt_interp *in, const struct bt_insn *i)
{
    return bt_result(i->mnemonic == ZYDIS_MNEMONIC_XGETBV ? rc_xgetbv(in->cpu) : rc_xsetbv(in->cpu));
}

enum bt_step bt_h_rdtsc(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_result(rc_rdtsc(in->cpu));
}

enum bt_step bt_h_rdpmc(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_result(rc_rdpmc(in->cpu));
}

enum bt_step bt_h_cpuid(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_result(rc_cpuid(in->cpu));
}

enum bt_step bt_h_hlt(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return rc_hlt(in->cpu) == RC_OK ? BT_STEP_HALT : BT_STEP_FAULT;
}

enum bt_step bt_h_cli(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    return bt_result(rc_cli(in->cpu));
}

enum bt_step bt_h_sti(struct bt_interp *in, const struct bt_insn *i)
{
    (void)i;
    in->after_mov_ss = false;
    return bt_result(rc_sti(in->cpu));
}

/* ---- Ports: E4-E7 by immediate, EC-EF by DX ---- */
static uint16_t io_port(const struct bt_interp *in, const struct bt_insn *i)
{
    return i->opcode & 8 ? (uint16_t)in->cpu->gpr[RC_EDX] : (uint16_t)(i->imm & 0xff);
}

enum bt_step bt_h_in(struct bt_interp *in, const struct bt_insn *i)
{
    unsigned size = i->opcode & 1 ? i->osz : 1;
    uint16_t port = io_port(in, i);
    if (rc_check_io(in->cpu, port, size) != RC_OK)
        return BT_STEP_FAULT;
    bt_watch_io(in, port, size);
    bt_set_reg(in, RC_EAX, size, in->ops.in(in->ops.ctx, port, size));
    return BT_STEP_OK;
}

enum bt_step bt_h_out(struct bt_interp *in, const struct bt_insn *i)
{
    unsigned size = i->opcode & 1 ? i->osz : 1;
    uint16_t port = io_port(in, i);
    if (rc_check_io(in->cpu, port, size) != RC_OK)
        return BT_STEP_FAULT;
    bt_watch_io(in, port, size);
    in->ops.out(in->ops.ctx, port, size, bt_reg(in, RC_EAX, size));
    return BT_STEP_OK;
}

enum { FEATURE_ECX_RDRAND = 1 << 30 };

enum bt_step bt_h_rdrand(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    uint8_t cf;
    if (!(in->cpu->config.feature_ecx & FEATURE_ECX_RDRAND))
        return bt_raise(in, RC_UD);
    __asm__ volatile("rdrand %0\n\tsetc %1" : "=r"(v), "=q"(cf) : : "cc");
    bt_set_reg(in, i->rm, i->osz, v);
    in->cpu->eflags = (in->cpu->eflags & ~(uint32_t)RC_ARITH) | (cf ? RC_CF : 0);
    return BT_STEP_OK;
}
