/* C code that translated code calls: one guest instruction through the interpreter. */
#include "impl.h"

static void flags_in(struct bt_vcpu *v)
{
    v->cpu.eflags =
        (v->cpu.eflags & ~(uint32_t)(RC_ARITH | RC_DF)) | ((uint32_t)v->host_flags & (RC_ARITH | RC_DF));
}

static void flags_out(struct bt_vcpu *v)
{
    v->host_flags = (v->cpu.eflags & (RC_ARITH | RC_DF)) | 0x202;
}

static bool is_string(const struct bt_insn *i)
{
    return i->map == ZYDIS_OPCODE_MAP_DEFAULT && i->opcode >= 0xa4 && i->opcode <= 0xaf &&
           (i->opcode & 0xfe) != 0xa8;
}

/* Which page a soft site is about to touch: its memory operand, EDI or ESI, or the stack; and how many more.
 */
static bool soft_used(struct bt_vcpu *v, const struct bt_site *site)
{
    const struct rc_cpu *cpu = &v->cpu;
    const struct bt_insn *i = &site->insn;
    uint32_t a, more = 0;
    if (i->is_mem)
        a = (i->base == BT_NOREG ? 0 : cpu->gpr[i->base]) +
            (i->index == BT_NOREG ? 0 : cpu->gpr[i->index] * i->scale) + (uint32_t)i->disp +
            cpu->seg[i->seg].base;
    else if (is_string(i)) {
        a = cpu->gpr[(i->opcode & 0xfe) == 0xac ? RC_ESI : RC_EDI];
        more = i->rep || i->repne ? cpu->gpr[RC_ECX] / (HOST_PAGE / 4) : 0;
    } else
        a = cpu->gpr[RC_ESP] - 4;
    return bt_form_soft_used(v, site->soft, a / HOST_PAGE | spt_user_space(v->spt) << 20, more);
}

/*T:350 Callouts
 *
 * Whatever may not be copied is executed here by the interpreter, while the block waits. The block goes on
only if
 * everything it was translated for still holds: the next instruction is the expected one, the mode key is the
same,
 * no interrupt has become deliverable, and nothing it relied on was dropped meanwhile.
:*/
uint32_t bt_callout_insn(struct bt_vcpu *v, uint32_t n)
{
    struct rc_cpu *cpu = &v->cpu;
    struct bt_site *site = &v->site[n];
    const struct bt_block *blk = &v->block[site->block];
    uint32_t space = spt_user_space(v->spt);
    flags_in(v);
    cpu->eip = site->eip;
    v->counts.callouts++;
    if (site->insn.class != BT_CLASS_INT || cpu->trace)
        bt_fpu_park(v);
    if (site->soft && soft_used(v, site)) {
        v->drop_block = site->block;
        v->leave_pending = true;
    }
    enum bt_step step = bt_interp_insn(v->interp, &site->insn);
    flags_out(v);
    v->leave_block = site->block;
    v->leave_index = site->index + (step == BT_STEP_OK || step == BT_STEP_HALT);
    if (cpu->irq_shadow)
        v->shadow_eip = cpu->eip;
    if (step != BT_STEP_OK || v->leave_pending || v->flush_wanted || cpu->shutdown ||
        cpu->eip != site->eip + site->insn.length || bt_mode(v) != blk->mode ||
        spt_user_space(v->spt) != space)
        return 1;
    return cpu->iflag && v->cfg.ops.intr(v->cfg.ops.ctx);
}
