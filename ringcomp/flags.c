/* EFLAGS: which bits an instruction may change, by CPL, IOPL and mode (SDM vol. 1, 3.4.3; vol. 2 POPF). */
#include "ring.h"

enum {
    /* Bits that are defined; IF is kept apart, in iflag. */
    DEFINED = RC_ARITH | RC_TF | RC_DF | RC_IOPL | RC_NT | RC_RF | RC_VM | RC_AC | RC_VIF | RC_VIP | RC_ID,
    /* What POPF may change whatever the CPL is. */
    POPF_ANY = RC_ARITH | RC_TF | RC_DF | RC_NT | RC_AC | RC_ID,
    ALWAYS_ONE = 1 << 1,
};

void rc_set_eflags(struct rc_cpu *cpu, uint32_t value)
{
    cpu->eflags = (value & DEFINED) | ALWAYS_ONE;
    cpu->iflag = value >> 9 & 1;
}

/*T:520 POPF, the instruction that made x86 unvirtualizable
 *
 * POPF outside ring 0 does not fault when the program asks for what it may not have: IOPL, and IF unless
 * CPL <= IOPL, simply stay as they are. A kernel that was moved from ring 0 to ring 3 and executes CLI ...
 *POPF would run on with interrupts in a state it never asked for, and nobody would be told. So translated
 *kernel code must not contain a POPF of its own; it comes here instead, where the *guest's* CPL decides.
 *:*/
enum rc_result rc_popf(struct rc_cpu *cpu, uint32_t value, unsigned size)
{
    uint32_t may_change = POPF_ANY;

    if (RC_UNLIKELY(rc_is_v86(cpu))) {
        if (rc_iopl(cpu) < 3)
            return rc_raise_error(cpu, RC_GP, 0);
        may_change |= RC_IF;
    } else if (cpu->cpl == 0) {
        may_change |= RC_IF | RC_IOPL;
    } else if (cpu->cpl <= rc_iopl(cpu)) {
        may_change |= RC_IF;
    }
    if (size == 2)
        may_change &= 0xffff;

    uint32_t flags = (rc_eflags(cpu) & ~may_change) | (value & may_change);
    if (size == 4)
        flags &= ~(uint32_t)RC_RF;
    rc_set_eflags(cpu, flags);
    return RC_OK;
}

enum rc_result rc_pushf_value(struct rc_cpu *cpu, uint32_t *value)
{
    if (RC_UNLIKELY(rc_is_v86(cpu)) && rc_iopl(cpu) < 3)
        return rc_raise_error(cpu, RC_GP, 0);
    *value = rc_eflags(cpu) & ~(uint32_t)(RC_VM | RC_RF);
    return RC_OK;
}

static bool may_change_if(const struct rc_cpu *cpu)
{
    return cpu->cpl <= rc_iopl(cpu) || !(cpu->cr0 & RC_CR0_PE);
}

enum rc_result rc_cli(struct rc_cpu *cpu)
{
    if (!may_change_if(cpu))
        return rc_raise_error(cpu, RC_GP, 0);
    cpu->iflag = 0;
    return RC_OK;
}

enum rc_result rc_sti(struct rc_cpu *cpu)
{
    if (!may_change_if(cpu))
        return rc_raise_error(cpu, RC_GP, 0);
    /* Only a change holds interrupts off for one instruction (6.8.1): STI; STI; STI ... must not starve them.
     */
    if (!cpu->iflag)
        cpu->irq_shadow = 1;
    cpu->iflag = 1;
    return RC_OK;
}
