/* What the dice may not throw, one row and one reason each. All else that the decoder accepts is compared. */
#include "oracle.h"

static const struct {
    uint16_t mnemonic;
    const char *why;
} refusals[] = {
    {ZYDIS_MNEMONIC_CPUID, "the model's answer is not the host's"},
    {ZYDIS_MNEMONIC_RDTSC, "time"},
    {ZYDIS_MNEMONIC_RDRAND, "chance"},
    {ZYDIS_MNEMONIC_SGDT, "shows the host's state (the guest sees its own)"},
    {ZYDIS_MNEMONIC_SIDT, "shows the host's state"},
    {ZYDIS_MNEMONIC_SLDT, "shows the host's state"},
    {ZYDIS_MNEMONIC_STR, "shows the host's state"},
    {ZYDIS_MNEMONIC_SMSW, "shows the host's state"},
    {ZYDIS_MNEMONIC_XGETBV, "shows the host's state"},
    {ZYDIS_MNEMONIC_LAR, "looks at the host's descriptors"},
    {ZYDIS_MNEMONIC_LSL, "looks at the host's descriptors"},
    {ZYDIS_MNEMONIC_VERR, "looks at the host's descriptors"},
    {ZYDIS_MNEMONIC_VERW, "looks at the host's descriptors"},
    {ZYDIS_MNEMONIC_LES, "loads a host descriptor"},
    {ZYDIS_MNEMONIC_LDS, "loads a host descriptor"},
    {ZYDIS_MNEMONIC_LSS, "loads a host descriptor"},
    {ZYDIS_MNEMONIC_LFS, "loads a host descriptor"},
    {ZYDIS_MNEMONIC_LGS, "loads a host descriptor"},
    {ZYDIS_MNEMONIC_SYSENTER, "calls the host's kernel"},
    {ZYDIS_MNEMONIC_SYSCALL, "calls the host's kernel"},
    {ZYDIS_MNEMONIC_INT, "made by the generator, with the vectors that are closed to programs"},
    {ZYDIS_MNEMONIC_IRET, "goes to a host selector"},
    {ZYDIS_MNEMONIC_IRETD, "goes to a host selector"},
    {ZYDIS_MNEMONIC_POPF, "made by the generator, with flags the host allows"},
    {ZYDIS_MNEMONIC_POPFD, "made by the generator, with flags the host allows"},
    {ZYDIS_MNEMONIC_PUSHF, "shows ID and AC, which are the host's"},
    {ZYDIS_MNEMONIC_FXSAVE, "FIP and FDP are host addresses there, and MXCSR_MASK the model's"},
    {ZYDIS_MNEMONIC_FXRSTOR, "bit 17 of MXCSR is AMD's own (MXCSR_MASK)"},
    {ZYDIS_MNEMONIC_LDMXCSR, "bit 17 of MXCSR is AMD's own; made by the generator"},
    {ZYDIS_MNEMONIC_VLDMXCSR, "bit 17 of MXCSR is AMD's own"},
    {ZYDIS_MNEMONIC_FNSAVE, "stores FIP and FDP"},
    {ZYDIS_MNEMONIC_FNSTENV, "stores FIP and FDP"},
    {ZYDIS_MNEMONIC_XSAVE, "stores FIP and FDP"},
    {ZYDIS_MNEMONIC_XSAVEOPT, "stores FIP and FDP"},
    {ZYDIS_MNEMONIC_XRSTOR, "random headers only ever fault; made by the generator"},
    {ZYDIS_MNEMONIC_XSETBV, "privileged, and before that #UD depends on the host's CR4"},
    {ZYDIS_MNEMONIC_PREFETCHW, "an AMD host and the model agree, others need not"},
    {ZYDIS_MNEMONIC_INT1, "the host's kernel takes ICEBP for a step of its own"},
};

static const char *by_operands(const struct bt_insn *i)
{
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT && (i->opcode == 0x8c || i->opcode == 0x8e))
        return "moves a selector";
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT && (i->opcode & 0xe6) == 0x06 && i->opcode < 0x20)
        return "pushes or pops a selector";
    if (i->map == ZYDIS_OPCODE_MAP_0F && (i->opcode & 0xf6) == 0xa0)
        return "pushes or pops a selector";
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT && i->opcode == 0xff && (i->reg == 3 || i->reg == 5))
        return "a far transfer goes to a host selector";
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT &&
        (i->opcode == 0x9a || i->opcode == 0xea || i->opcode == 0xca || i->opcode == 0xcb))
        return "a far transfer goes to a host selector";
    if (i->map == ZYDIS_OPCODE_MAP_0F && i->opcode == 0x0d && !i->is_mem)
        return "PREFETCHW of a register: a NOP for Intel, #UD for AMD";
    if (i->vex == 3 && i->map == ZYDIS_OPCODE_MAP_0F3A && (i->opcode == 0x16 || i->opcode == 0x22) &&
        (i->bytes[i->opcode_off - 1] & 0x80))
        return "VPEXTRQ and VPINSRQ: Intel ignores VEX.W in 32-bit code, for AMD it is #UD";
    return NULL;
}

const char *oracle_refused(const struct bt_insn *i)
{
    for (unsigned k = 0; k < sizeof refusals / sizeof *refusals; k++)
        if (refusals[k].mnemonic == i->mnemonic)
            return refusals[k].why;
    return by_operands(i);
}
