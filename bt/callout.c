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
