/* SYSENTER and SYSEXIT (5.8.7): ring changes that read no descriptor. */
#include "ring.h"

enum {
    FLAT = RC_ATTR_P | RC_ATTR_S | RC_ATTR_W | RC_ATTR_A | RC_ATTR_DB | RC_ATTR_G,
};

static void set_flat(struct rc_cpu *cpu, unsigned seg, uint32_t selector, unsigned attr)
{
    struct rc_seg *s = &cpu->seg[seg];
    s->base = 0;
    s->limit = UINT32_MAX;
    s->selector = (uint16_t)selector;
    s->attr = (uint16_t)attr;
    rc_seg_changed(cpu, seg);
}

static bool is_offered(const struct rc_cpu *cpu)
{
    return cpu->config.feature_edx & RC_F1_EDX_SEP;
}

enum rc_result rc_sysenter(struct rc_cpu *cpu)
{
    const uint32_t cs = cpu->sysenter_cs & 0xfffc;

    if (!is_offered(cpu))
        return rc_raise(cpu, RC_UD);
    if (!(cpu->cr0 & RC_CR0_PE) || !cs)
        return rc_raise_error(cpu, RC_GP, 0);
    cpu->eflags &= ~(uint32_t)(RC_VM | RC_RF);
    cpu->iflag = 0;
    cpu->cpl = 0;
    set_flat(cpu, RC_CS, cs, FLAT | RC_ATTR_CODE);
    set_flat(cpu, RC_SS, cs + 8, FLAT);
    cpu->gpr[RC_ESP] = cpu->sysenter_esp;
    cpu->eip = cpu->sysenter_eip;
    return RC_OK;
}

enum rc_result rc_sysexit(struct rc_cpu *cpu)
{
    enum { DPL3 = 3 << 5 };
    const uint32_t cs = cpu->sysenter_cs & 0xfffc;

    if (!is_offered(cpu))
        return rc_raise(cpu, RC_UD);
    if (!(cpu->cr0 & RC_CR0_PE) || cpu->cpl != 0 || !cs)
        return rc_raise_error(cpu, RC_GP, 0);
    cpu->cpl = 3;
    set_flat(cpu, RC_CS, (cs + 16) | 3, FLAT | RC_ATTR_CODE | DPL3);
    set_flat(cpu, RC_SS, (cs + 24) | 3, FLAT | DPL3);
    cpu->gpr[RC_ESP] = cpu->gpr[RC_ECX];
    cpu->eip = cpu->gpr[RC_EDX];
    cpu->sysexits++;
    return RC_OK;
}
