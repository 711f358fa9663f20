/* Flags, control and debug registers, MSRs, CPUID, port permissions, rc_mode and the sensitive table. */
#include "test_ringcomp_rig.h"

#include <cpuid.h>

/* ---- Power-on (table 10-1) ---- */

static void power_on(void **state)
{
    struct rig *r = *state;
    rc_cpu_reset(&r->cpu);
    assert_int_equal(rc_eflags(&r->cpu), 2);
    assert_int_equal(r->cpu.eip, 0xfff0);
    assert_int_equal(r->cpu.cr0, 0x60000010);
    assert_int_equal(r->cpu.cr3 | r->cpu.cr4 | r->cpu.cr2, 0);
    assert_int_equal(r->cpu.seg[RC_CS].selector, 0xf000);
    assert_int_equal(r->cpu.seg[RC_CS].base, 0xffff0000);
    assert_int_equal(r->cpu.seg[RC_DS].base, 0);
    for (unsigned seg = RC_ES; seg < RC_SEG_COUNT; seg++) {
        assert_int_equal(r->cpu.seg[seg].limit, 0xffff);
        assert_int_equal(r->cpu.seg[seg].attr, seg == RC_TR ? 0x8b : seg == RC_LDTR ? 0x82 : 0x93);
    }
    assert_int_equal(r->cpu.gdtr.limit, 0xffff);
    assert_int_equal(r->cpu.idtr.base, 0);
    assert_int_equal(r->cpu.dr[6], 0xffff0ff0);
    assert_int_equal(r->cpu.dr[7], 0x400);
    assert_true(r->cpu.pat == UINT64_C(0x0007040600070406));
    assert_int_equal(r->cpu.fpu[0] | r->cpu.fpu[1] << 8, 0x37f);    /* FCW */
    assert_int_equal(r->cpu.fpu[4], 0);                             /* FTW: all empty */
    assert_int_equal(r->cpu.fpu[24] | r->cpu.fpu[25] << 8, 0x1f80); /* MXCSR */
    assert_int_equal(spt_paging(r->spt)->cr0 & RC_CR0_PG, 0);
    assert_int_equal(rc_mode(&r->cpu) & RC_MODE_INTERP, RC_MODE_INTERP);
}

/* ---- POPF, PUSHF, CLI, STI ---- */

struct popf_case {
    unsigned cpl, iopl, size;
    bool v86;
    uint32_t result; /* from 0 (and IOPL, VM) with an image of all ones; 0: #GP(0) */
};
enum { ANY = RC_ARITH | RC_TF | RC_DF | RC_NT | 2, ANY32 = ANY | RC_AC | RC_ID };
static const struct popf_case popf_cases[] = {
    {0, 0, 4, false, ANY32 | RC_IF | RC_IOPL},
    {0, 0, 2, false, ANY | RC_IF | RC_IOPL},
    {1, 0, 4, false, ANY32},
    {1, 1, 4, false, ANY32 | RC_IF | 1 << 12},
    {3, 2, 4, false, ANY32 | 2 << 12},
    {3, 3, 4, false, ANY32 | RC_IF | 3 << 12},
    {3, 3, 2, false, ANY | RC_IF | 3 << 12},
    {3, 0, 2, false, ANY},
    {3, 3, 4, true, ANY32 | RC_IF | 3 << 12 | RC_VM},
    {3, 3, 2, true, ANY | RC_IF | 3 << 12 | RC_VM},
    {3, 2, 4, true, 0},
    {3, 2, 2, true, 0},
};

static void popf(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof popf_cases / sizeof *popf_cases; i++) {
        const struct popf_case *c = &popf_cases[i];
        print_message("    cpl %u iopl %u size %u v86 %u\n", c->cpl, c->iopl, c->size, c->v86);
        r->cpu.cpl = (uint8_t)c->cpl;
        rc_set_eflags(&r->cpu, c->iopl << 12 | (c->v86 ? RC_VM : 0));
        remember(r);
        if (!c->result) {
            check_fault(r, rc_popf(&r->cpu, UINT32_MAX, c->size), RC_GP, 0);
            continue;
        }
        assert_int_equal(rc_popf(&r->cpu, UINT32_MAX, c->size), RC_OK);
        assert_int_equal(rc_eflags(&r->cpu), c->result);
    }
    r->cpu.cpl = 3; /* the silent half: an image with IF clear leaves IF set */
    rc_set_eflags(&r->cpu, RC_IF | RC_RF);
    assert_int_equal(rc_popf(&r->cpu, 0, 2), RC_OK);
    assert_int_equal(rc_eflags(&r->cpu), RC_IF | RC_RF | 2); /* 16 bits do not reach RF */
    assert_int_equal(rc_popf(&r->cpu, 0, 4), RC_OK);
    assert_int_equal(rc_eflags(&r->cpu), RC_IF | 2);
}

static void pushf(void **state)
{
    struct rig *r = *state;
    uint32_t value;
    rc_set_eflags(&r->cpu, RC_RF | RC_IF | RC_AC | RC_CF);
    assert_int_equal(rc_pushf_value(&r->cpu, &value), RC_OK);
    assert_int_equal(value, RC_IF | RC_AC | RC_CF | 2);
    go_v86(r, 2);
    remember(r);
    check_fault(r, rc_pushf_value(&r->cpu, &value), RC_GP, 0);
    go_v86(r, 3);
    assert_int_equal(rc_pushf_value(&r->cpu, &value), RC_OK);
    assert_int_equal(value, RC_IF | 3 << 12 | 2); /* VM is not shown */
}

static void undefined_flags_read_as_the_manual_says(void **state)
{
    struct rig *r = *state;
    rc_set_eflags(&r->cpu, UINT32_MAX);
    assert_int_equal(rc_eflags(&r->cpu), 0x003f7fd7);
    rc_set_eflags(&r->cpu, 0);
    assert_int_equal(rc_eflags(&r->cpu), 2);
}

static void cli_and_sti(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rc_sti(&r->cpu), RC_OK);
    assert_int_equal(r->cpu.iflag, 1);
    assert_int_equal(r->cpu.irq_shadow, 1);
    r->cpu.irq_shadow = 0;
    assert_int_equal(rc_sti(&r->cpu), RC_OK); /* was set already: no shadow */
    assert_int_equal(r->cpu.irq_shadow, 0);
    assert_int_equal(rc_cli(&r->cpu), RC_OK);
    assert_int_equal(r->cpu.iflag, 0);
    go_user(r);
    remember(r);
    check_fault(r, rc_cli(&r->cpu), RC_GP, 0);
    check_fault(r, rc_sti(&r->cpu), RC_GP, 0);
    rc_set_eflags(&r->cpu, RC_IOPL);
    assert_int_equal(rc_sti(&r->cpu), RC_OK);
    assert_int_equal(rc_cli(&r->cpu), RC_OK);
}

/* ---- Ring 0 only ---- */

static void privileged(void **state)
{
    struct rig *r = *state;
    uint32_t value;
    go_ring(r, 1, KCODE, KDATA); /* ring 1 is as little ring 0 as ring 3 is */
    remember(r);
    check_fault(r, rc_lgdt(&r->cpu, 0, 0), RC_GP, 0);
    check_fault(r, rc_lidt(&r->cpu, 0, 0), RC_GP, 0);
    check_fault(r, rc_lmsw(&r->cpu, 0), RC_GP, 0);
    check_fault(r, rc_clts(&r->cpu), RC_GP, 0);
    check_fault(r, rc_mov_from_cr(&r->cpu, 0, &value), RC_GP, 0);
    check_fault(r, rc_mov_to_cr(&r->cpu, 2, 0), RC_GP, 0);
    check_fault(r, rc_mov_from_dr(&r->cpu, 0, &value), RC_GP, 0);
    check_fault(r, rc_mov_to_dr(&r->cpu, 0, 0), RC_GP, 0);
    check_fault(r, rc_rdmsr(&r->cpu), RC_GP, 0);
    check_fault(r, rc_wrmsr(&r->cpu), RC_GP, 0);
    check_fault(r, rc_invlpg(&r->cpu, 0), RC_GP, 0);
    check_fault(r, rc_invd(&r->cpu), RC_GP, 0);
    check_fault(r, rc_hlt(&r->cpu), RC_GP, 0);
    check_fault(r, rc_rdpmc(&r->cpu), RC_GP, 0);
    go_ring(r, 0, KCODE, KDATA);
    assert_int_equal(rc_hlt(&r->cpu), RC_OK);
    assert_int_equal(r->cpu.halted, 1);
    assert_int_equal(rc_invd(&r->cpu), RC_OK);
    assert_int_equal(rc_lidt(&r->cpu, 0x1234, 0x56), RC_OK);
    assert_int_equal(r->cpu.idtr.base, 0x1234);
    assert_int_equal(r->cpu.idtr.limit, 0x56);
}

/* ---- CR0, CR3, CR4 ---- */

static void cr0(void **state)
{
    struct rig *r = *state;
    uint32_t value;
    remember(r);
    check_fault(r, rc_mov_to_cr(&r->cpu, 0, RC_CR0_PG), RC_GP, 0);             /* PG without PE */
    check_fault(r, rc_mov_to_cr(&r->cpu, 0, RC_CR0_PE | RC_CR0_NW), RC_GP, 0); /* NW without CD */
    check_plain_fault(r, rc_mov_to_cr(&r->cpu, 1, 0), RC_UD);
    check_plain_fault(r, rc_mov_to_cr(&r->cpu, 5, 0), RC_UD);
    check_plain_fault(r, rc_mov_to_cr(&r->cpu, 8, 0), RC_UD);
    check_plain_fault(r, rc_mov_from_cr(&r->cpu, 1, &value), RC_UD);
    check_plain_fault(r, rc_mov_from_cr(&r->cpu, 8, &value), RC_UD);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 0, 0x0ff5ffef & ~(uint32_t)RC_CR0_EM), RC_OK);
    assert_int_equal(r->cpu.cr0, 0x0005003b); /* reserved bits are dropped, ET is 1 */
    assert_int_equal(rc_clts(&r->cpu), RC_OK);
    assert_int_equal(r->cpu.cr0, 0x00050033);
    assert_int_equal(rc_lmsw(&r->cpu, 0xfff8),
                     RC_OK); /* TS; clears MP and EM; PE stays, the rest is not LMSW's */
    assert_int_equal(r->cpu.cr0, 0x00050039);
}

static void paging_on_and_off(void **state)
{
    struct rig *r = *state;
    uint32_t value;
    go_paged(r, 0);
    assert_int_equal(spt_paging(r->spt)->cr3, PD);
    assert_true(spt_paging(r->spt)->cr0 & RC_CR0_PG);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 2, 0x1234), RC_OK);
    assert_int_equal(rc_mov_from_cr(&r->cpu, 2, &value), RC_OK);
    assert_int_equal(value, 0x1234);
    remember(r);
    check_fault(r, rc_mov_to_cr(&r->cpu, 0, RC_CR0_PG | RC_CR0_ET), RC_GP, 0); /* leaving PE with PG on */
    assert_int_equal(rc_mov_to_cr(&r->cpu, 0, RC_CR0_PE), RC_OK);
    assert_int_equal(spt_paging(r->spt)->cr0 & RC_CR0_PG, 0);
}

static void cr4(void **state)
{
    struct rig *r = *state;
    const uint32_t offered = RC_CR4_TSD | RC_CR4_DE | RC_CR4_PSE | RC_CR4_PAE | RC_CR4_PGE | RC_CR4_PCE |
                             RC_CR4_OSFXSR | RC_CR4_OSXMMEXCPT |
                             (r->cpu.config.feature_ecx & 1 << 26 ? RC_CR4_OSXSAVE : 0);
    struct host_err err;
    for (unsigned bit = 0; bit < 32; bit++) {
        const uint32_t value = UINT32_C(1) << bit;
        remember(r);
        if (value & offered)
            assert_int_equal(rc_mov_to_cr(&r->cpu, 4, value), RC_OK);
        else
            check_fault(r, rc_mov_to_cr(&r->cpu, 4, value), RC_GP, 0);
    }
    assert_int_equal(rc_config_mask(&r->cpu.config, "-pge,-fxsr,-xsave", &err), 0);
    remember(r);
    check_fault(r, rc_mov_to_cr(&r->cpu, 4, RC_CR4_OSXSAVE), RC_GP, 0);
    check_fault(r, rc_mov_to_cr(&r->cpu, 4, RC_CR4_PGE), RC_GP, 0);
    check_fault(r, rc_mov_to_cr(&r->cpu, 4, RC_CR4_OSFXSR), RC_GP, 0);
}

static void pdptes(void **state)
{
    struct rig *r = *state;
    const uint32_t on = RC_CR0_PE | RC_CR0_PG;
    /* A PAE hierarchy: PDPT at 0x83000, one directory at 0x84000 with a 2 MiB page. */
    put32(r, 0x83000, 0x84001);
    put32(r, 0x84000, 0x83 | 0x60);
    put32(r, 0x83018, 0x84021); /* entry 3: bit 5 is reserved */
    assert_int_equal(rc_mov_to_cr(&r->cpu, 4, RC_CR4_PAE), RC_OK);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 3, 0x83000), RC_OK); /* not checked while paging is off */
    remember(r);
    check_fault(r, rc_mov_to_cr(&r->cpu, 0, on), RC_GP, 0);
    put32(r, 0x83018, 0x84020); /* not present: nothing is reserved */
    assert_int_equal(rc_mov_to_cr(&r->cpu, 0, on), RC_OK);
    assert_true(spt_paging(r->spt)->pdpte[0] == 0x84001);
    put32(r, 0x83040 + 4, 0x10); /* another PDPT: bit 36 is beyond MAXPHYADDR */
    put32(r, 0x83040, 0x84001);
    remember(r);
    check_fault(r, rc_mov_to_cr(&r->cpu, 3, 0x83040), RC_GP, 0);
    assert_int_equal(spt_paging(r->spt)->cr3, 0x83000);
    put32(r, 0x83040 + 4, 0);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 3, 0x83040), RC_OK);
    /* MOV to CR4 that changes PGE loads them as well (4.4.1). */
    put32(r, 0x83048, 0x84003);
    remember(r);
    check_fault(r, rc_mov_to_cr(&r->cpu, 4, RC_CR4_PAE | RC_CR4_PGE), RC_GP, 0);
    put32(r, 0x83048, 0x84001);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 4, RC_CR4_PAE | RC_CR4_PGE), RC_OK);
    assert_true(spt_paging(r->spt)->pdpte[1] == 0x84001);
    /* So does MOV to CR0 that changes CD or NW, and none that changes TS. */
    put32(r, 0x83048, 0x84003);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 0, on | RC_CR0_TS), RC_OK);
    remember(r);
    check_fault(r, rc_mov_to_cr(&r->cpu, 0, on | RC_CR0_CD), RC_GP, 0);
    check_fault(r, rc_mov_to_cr(&r->cpu, 0, on | RC_CR0_CD | RC_CR0_NW), RC_GP, 0);
}

/* ---- Debug registers ---- */

static void debug_registers(void **state)
{
    struct rig *r = *state;
    uint32_t value;
    assert_int_equal(rc_mov_to_dr(&r->cpu, 3, 0x12345678), RC_OK);
    assert_int_equal(rc_mov_from_dr(&r->cpu, 3, &value), RC_OK);
    assert_int_equal(value, 0x12345678);
    assert_int_equal(rc_mov_to_dr(&r->cpu, 6, UINT32_MAX), RC_OK);
    assert_int_equal(rc_mov_from_dr(&r->cpu, 6, &value), RC_OK);
    assert_int_equal(value, 0xffffefff);
    assert_int_equal(rc_mov_to_dr(&r->cpu, 4, 0), RC_OK); /* an alias of DR6 */
    assert_int_equal(rc_mov_from_dr(&r->cpu, 6, &value), RC_OK);
    assert_int_equal(value, 0xffff0ff0);
    assert_int_equal(rc_mov_to_dr(&r->cpu, 5, 0xffffdfff), RC_OK);
    assert_int_equal(rc_mov_from_dr(&r->cpu, 7, &value), RC_OK);
    assert_int_equal(value, 0xffff07ff);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 4, RC_CR4_DE), RC_OK);
    remember(r);
    check_plain_fault(r, rc_mov_from_dr(&r->cpu, 4, &value), RC_UD);
    check_plain_fault(r, rc_mov_to_dr(&r->cpu, 5, 0), RC_UD);
    assert_int_equal(rc_mov_to_dr(&r->cpu, 7, 1 << 13), RC_OK); /* GD */
    remember(r);
    check_plain_fault(r, rc_mov_from_dr(&r->cpu, 0, &value), RC_DB);
    assert_int_equal(r->cpu.fault.dr6, 1 << 13);
}

/* ---- MSRs ---- */

static enum rc_result rdmsr(struct rig *r, uint32_t n, uint64_t *value)
{
    r->cpu.gpr[RC_ECX] = n;
    const enum rc_result result = rc_rdmsr(&r->cpu);
    *value = (uint64_t)r->cpu.gpr[RC_EDX] << 32 | r->cpu.gpr[RC_EAX];
    return result;
}
static enum rc_result wrmsr(struct rig *r, uint32_t n, uint64_t value)
{
    r->cpu.gpr[RC_ECX] = n;
    r->cpu.gpr[RC_EAX] = (uint32_t)value;
    r->cpu.gpr[RC_EDX] = (uint32_t)(value >> 32);
    return rc_wrmsr(&r->cpu);
}

struct msr_case {
    uint32_t n;
    uint64_t good; /* may be written and is read back */
    uint64_t bad;  /* may not be written; 0: every value may */
};
static const struct msr_case msr_cases[] = {
    {0x48, 1, 0x100},
    {0x174, 0x60, 0},
    {0x175, 0xc0001000, 0},
    {0x176, 0xc0002000, 0},
    {0x1a0, 0x850089, 0},
    {0x200, 0x0000000fc0000006, 0x0000001000000006}, /* base: beyond 36 bits */
    {0x200, 0x80000001, 0x80000002},                 /* type 2 is reserved */
    {0x20f, 0x0000000fc0000800, 0x0000000fc0000400}, /* mask: only V below bit 12 */
    {0x250, 0x0606060606060606, 0x0606060606060607}, /* UC- is for the PAT */
    {0x259, 0x0001040506000104, 0x0300000000000000},
    {0x26f, 0x0505050505050505, 0x0808080808080808},
    {0x277, 0x0007010600070106, 0x0007010600070102},
    {0x2ff, 0xc06, 0x106},
    {0x2ff, 0, 2},
    {0xc0000080, 0x800, 1}, /* NXE; SCE is not offered */
    {0xc0000080, 0, 0x100}, /* nor is LME */
};

static void msrs(void **state)
{
    struct rig *r = *state;
    uint64_t value;
    for (unsigned i = 0; i < sizeof msr_cases / sizeof *msr_cases; i++) {
        const struct msr_case *c = &msr_cases[i];
        print_message("    %x\n", c->n);
        assert_int_equal(wrmsr(r, c->n, c->good), RC_OK);
        assert_int_equal(rdmsr(r, c->n, &value), RC_OK);
        assert_true(value == c->good);
        if (!c->bad)
            continue;
        assert_int_equal(wrmsr(r, c->n, c->bad), RC_FAULT);
        assert_int_equal(r->cpu.fault.vector, RC_GP);
        assert_int_equal(r->cpu.fault.error, 0);
        assert_int_equal(rdmsr(r, c->n, &value), RC_OK);
        assert_true(value == c->good);
    }
}

static void msrs_that_are_not_there(void **state)
{
    static const uint32_t absent[] = {0x1b /* no APIC */,
                                      0x179 /* no MCG */,
                                      0x3a,
                                      0x122,
                                      0x210,
                                      0x251,
                                      0x260,
                                      0x270,
                                      0x400,
                                      0x802,
                                      0xc0000081,
                                      0xc0000100,
                                      0xc0000103,
                                      UINT32_MAX};
    struct rig *r = *state;
    uint64_t value;
    for (unsigned i = 0; i < sizeof absent / sizeof *absent; i++) {
        assert_int_equal(rdmsr(r, absent[i], &value), RC_FAULT);
        assert_int_equal(r->cpu.fault.vector, RC_GP);
        assert_int_equal(wrmsr(r, absent[i], 0), RC_FAULT);
    }
    assert_int_equal(wrmsr(r, 0xfe, 0), RC_FAULT); /* read-only */
    assert_int_equal(rdmsr(r, 0xfe, &value), RC_OK);
    assert_int_equal(value, 0x508);
    assert_int_equal(rdmsr(r, 0x49, &value), RC_FAULT); /* write-only */
    assert_int_equal(wrmsr(r, 0x49, 1), RC_OK);
    assert_int_equal(rdmsr(r, 0x8b, &value), RC_OK);
    assert_true(value == 0);
    assert_int_equal(wrmsr(r, 0x1d9, 0), RC_OK); /* DEBUGCTL: exists, but nothing can be turned on */
    assert_int_equal(wrmsr(r, 0x1d9, 2), RC_FAULT);
    assert_int_equal(rdmsr(r, 0x1d9, &value), RC_OK);
    assert_true(value == 0);
}

static void mtrrs_at_power_on_and_after_firmware(void **state)
{
    static const uint32_t fixed[] = {0x250, 0x258, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
    struct rig *r = *state;
    uint64_t value;
    for (unsigned i = 0; i < sizeof fixed / sizeof *fixed; i++) { /* the rig called rc_cpu_flat */
        assert_int_equal(rdmsr(r, fixed[i], &value), RC_OK);
        assert_true(value == UINT64_C(0x0606060606060606));
    }
    assert_int_equal(rdmsr(r, 0x259, &value), RC_OK); /* A0000-BFFFF */
    assert_true(value == 0);
    assert_int_equal(rdmsr(r, 0x2ff, &value), RC_OK);
    assert_true(value == 0xc06);
    rc_cpu_reset(&r->cpu);
    assert_int_equal(rdmsr(r, 0x2ff, &value), RC_OK);
    assert_true(value == 0);
    assert_int_equal(rdmsr(r, 0x26f, &value), RC_OK);
    assert_true(value == 0);
}

static void msrs_follow_cpuid(void **state)
{
    struct rig *r = *state;
    struct host_err err;
    uint64_t value;
    assert_int_equal(rc_config_mask(&r->cpu.config, "-nx,-mtrr,-pat,-sep", &err), 0);
    assert_int_equal(rdmsr(r, 0xc0000080, &value), RC_FAULT);
    assert_int_equal(rdmsr(r, 0xfe, &value), RC_FAULT);
    assert_int_equal(rdmsr(r, 0x200, &value), RC_FAULT);
    assert_int_equal(rdmsr(r, 0x277, &value), RC_FAULT);
    assert_int_equal(rdmsr(r, 0x174, &value), RC_FAULT);
}

static void nxe_reaches_the_walker(void **state)
{
    struct rig *r = *state;
    assert_int_equal(wrmsr(r, 0xc0000080, 0x800), RC_OK);
    assert_true(spt_paging(r->spt)->nxe);
    assert_int_equal(wrmsr(r, 0xc0000080, 0), RC_OK);
    assert_false(spt_paging(r->spt)->nxe);
}

static void time_stamps(void **state)
{
    struct rig *r = *state;
    uint64_t value;
    r->now = UINT64_C(0x500000001);
    assert_int_equal(rc_rdtsc(&r->cpu), RC_OK);
    assert_int_equal(r->cpu.gpr[RC_EDX], 5);
    assert_int_equal(r->cpu.gpr[RC_EAX], 1);
    assert_int_equal(wrmsr(r, 0x10, 1000), RC_OK);
    r->now += 24;
    assert_int_equal(rdmsr(r, 0x10, &value), RC_OK);
    assert_int_equal(value, 1024);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 4, RC_CR4_TSD), RC_OK);
    assert_int_equal(rc_rdtsc(&r->cpu), RC_OK); /* ring 0 may */
    go_user(r);
    remember(r);
    check_fault(r, rc_rdtsc(&r->cpu), RC_GP, 0);
}

/* ---- x87, MMX, SSE ---- */

struct fpu_case {
    uint32_t cr0;
    bool osfxsr;
    unsigned x87, wait, mmx, sse; /* vector, or NONE */
};
enum { NONE = 255 };
static const struct fpu_case fpu_cases[] = {
    {0, true, NONE, NONE, NONE, NONE},
    {0, false, NONE, NONE, NONE, RC_UD},
    {RC_CR0_TS, true, RC_NM, NONE, RC_NM, RC_NM},
    {RC_CR0_MP, true, NONE, NONE, NONE, NONE},
    {RC_CR0_MP | RC_CR0_TS, true, RC_NM, RC_NM, RC_NM, RC_NM},
    {RC_CR0_EM, true, RC_NM, NONE, RC_UD, RC_UD},
    {RC_CR0_EM | RC_CR0_TS, true, RC_NM, NONE, RC_UD, RC_UD},
    {RC_CR0_TS, false, RC_NM, NONE, RC_NM, RC_UD},
};

static void check_fpu(struct rig *r, enum rc_result result, unsigned vector)
{
    assert_int_equal(result, vector == NONE ? RC_OK : RC_FAULT);
    if (vector != NONE)
        assert_int_equal(r->cpu.fault.vector, vector);
}

static void fpu_availability(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof fpu_cases / sizeof *fpu_cases; i++) {
        const struct fpu_case *c = &fpu_cases[i];
        r->cpu.cr0 = RC_CR0_PE | RC_CR0_ET | c->cr0;
        r->cpu.cr4 = c->osfxsr ? RC_CR4_OSFXSR : 0;
        check_fpu(r, rc_check_x87(&r->cpu, false), c->x87);
        check_fpu(r, rc_check_x87(&r->cpu, true), c->wait);
        check_fpu(r, rc_check_sse(&r->cpu, true), c->mmx);
        check_fpu(r, rc_check_sse(&r->cpu, false), c->sse);
    }
}

/* ---- CPUID ---- */

static void cpuid(struct rig *r, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    r->cpu.gpr[RC_EAX] = leaf;
    r->cpu.gpr[RC_ECX] = subleaf;
    assert_int_equal(rc_cpuid(&r->cpu), RC_OK);
    out[0] = r->cpu.gpr[RC_EAX];
    out[1] = r->cpu.gpr[RC_EBX];
    out[2] = r->cpu.gpr[RC_ECX];
    out[3] = r->cpu.gpr[RC_EDX];
}

static void cpuid_offers_nothing_it_cannot_keep(void **state)
{
    struct rig *r = *state;
    uint32_t v[4];
    /* Leaf 1 ECX: MONITOR 3, VMX 5, PCID 17, x2APIC 21, OSXSAVE 27 (CR4's). EDX: VME 1, MCE 7, APIC 9, MCA 14,
     * HTT 28. */
    cpuid(r, 1, 0, v);
    assert_int_equal(v[2] & 0x08220028, 0);
    assert_int_equal(v[3] & 0x10004282, 0);
    assert_int_equal(v[2] & 0x80000000, 0x80000000); /* hypervisor */
    assert_int_equal(v[3] & 0x0003386c, 0x0003386c); /* DE PSE MSR PAE SEP MTRR PGE PAT PSE36 */
    assert_int_equal(v[1] & 0xffff00ff, 0x10000);    /* one logical processor, APIC id 0 */
    /* Leaf 7: BMI1 3, AVX2 5, BMI2 8, ERMS 9, ADX 19, SHA 29; not FSGSBASE 0, SMEP 7, INVPCID 10, RTM 11, AVX-512 16
     * ff., SMAP 20; UMIP, PKU, VAES in ECX. */
    cpuid(r, 7, 0, v);
    assert_int_equal(v[0], 0);
    assert_int_equal(v[1] & ~(uint32_t)(1 << 3 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 19 | 1 << 29), 0);
    assert_int_equal(v[2], 0);
    assert_int_equal(v[3] & ~(uint32_t)(1 << 4 | 1 << 26 | 1 << 29), 0);
    cpuid(r, 7, 1, v);
    assert_int_equal(v[0] | v[1] | v[2] | v[3], 0);
    /* 80000001: SVM 2, TOPOEXT 22 in ECX; SYSCALL 11, 1 GiB pages 26, RDTSCP 27, LM 29 in EDX. */
    cpuid(r, 0x80000001, 0, v);
    assert_int_equal(v[2] & 0x00400004, 0);
    assert_int_equal(v[3] & 0x2c000800, 0);
    assert_int_equal(v[3] & 0x00100000, 0x00100000); /* NX */
    cpuid(r, 0x80000008, 0, v);
    assert_int_equal(v[0], 0x2024);
    /* frequencies, performance counters, MWAIT, power: none. */
    static const uint32_t empty[] = {5, 6, 9, 10, 11, 0x15, 0x16, 0x8000001e};
    for (unsigned i = 0; i < sizeof empty / sizeof *empty; i++) {
        cpuid(r, empty[i], 0, v);
        assert_int_equal(v[0] | v[1] | v[2] | v[3], 0);
    }
}

static void cpuid_names_itself(void **state)
{
    struct rig *r = *state;
    uint32_t v[4];
    char name[13] = "";
    cpuid(r, 0x40000000, 0, v);
    assert_int_equal(v[0], 0x40000000);
    memcpy(name, &v[1], 12);
    assert_string_equal(name, "RingletVMM32");
    cpuid(r, 0, 0, v);
    assert_true(v[0] >= 1 && v[0] <= 0xd);
    assert_int_not_equal(v[1], 0);
}

/* Leaves that pass through, in an order that a wrong memory of them would mix up. */
static void cpuid_passes_names_and_caches_through(void **state)
{
    static const uint32_t leaves[] = {0x80000004, 2,          0x80000002, 0x80000006,
                                      0x80000003, 0x80000005, 2,          0x80000004};
    struct rig *r = *state;
    uint32_t v[4], host[4];
    for (unsigned i = 0; i < sizeof leaves / sizeof *leaves; i++) {
        memset(host, 0, sizeof host);
        __get_cpuid(leaves[i], &host[0], &host[1], &host[2], &host[3]);
        cpuid(r, leaves[i], i * 3, v); /* the subleaf does not matter to these */
        assert_memory_equal(v, host, sizeof v);
    }
    memset(host, 0, sizeof host);
    for (uint32_t subleaf = 0; subleaf < 10; subleaf++) {
        cpuid(r, 4, subleaf, v);
        if (subleaf < 8 && __get_cpuid_count(4, subleaf, &host[0], &host[1], &host[2], &host[3])) {
            assert_int_equal(v[0] & 0x3fff, host[0] & 0x3fff);
            assert_int_equal(v[1], host[1]);
        }
        assert_int_equal(v[0] & 0xffffc000, 0); /* one core, no sharing */
    }
}

/* Offered as if the host had all of it: the rules are the model's. */
static void offer_avx(struct rig *r)
{
    r->cpu.config.feature_ecx |= 1u << 26 | 1u << 28;
    r->cpu.config.featured_eax |= 1;
}

static void cpuid_describes_extended_state(void **state)
{
    struct rig *r = *state;
    struct host_err err;
    uint32_t v[4];
    offer_avx(r);
    cpuid(r, 0, 0, v);
    assert_true(v[0] <= 0xd);
    cpuid(r, 0xd, 0, v); /* XCR0 is 1: no AVX area yet */
    assert_int_equal(v[0], 7);
    assert_int_equal(v[1], 576);
    assert_int_equal(v[2], 832);
    assert_int_equal(v[3], 0);
    cpuid(r, 0xd, 1, v);
    assert_int_equal(v[0], 1); /* XSAVEOPT; not XSAVEC, XGETBV of 1, XSAVES */
    assert_int_equal(v[1] | v[2] | v[3], 0);
    cpuid(r, 0xd, 2, v);
    assert_int_equal(v[0], 256);
    assert_int_equal(v[1], 576);
    assert_int_equal(v[2] | v[3], 0);
    for (uint32_t subleaf = 3; subleaf < 64; subleaf++) {
        cpuid(r, 0xd, subleaf, v);
        assert_int_equal(v[0] | v[1] | v[2] | v[3], 0);
    }
    assert_int_equal(rc_mov_to_cr(&r->cpu, 4, RC_CR4_OSXSAVE), RC_OK);
    cpuid(r, 1, 0, v);
    assert_int_equal(v[2] >> 27 & 1, 1);
    r->cpu.gpr[RC_ECX] = r->cpu.gpr[RC_EDX] = 0;
    r->cpu.gpr[RC_EAX] = 7;
    assert_int_equal(rc_xsetbv(&r->cpu), RC_OK);
    cpuid(r, 0xd, 0, v);
    assert_int_equal(v[1], 832);
    /* what stands on AVX goes with it, and all of it with XSAVE */
    r->cpu.config.feature_ecx |= 1u << 12 | 1u << 29;
    r->cpu.config.feature7_ebx |= 1u << 5 | 1u << 3;
    assert_int_equal(rc_config_mask(&r->cpu.config, "-avx", &err), 0);
    assert_int_equal(r->cpu.config.feature_ecx & (1u << 12 | 1u << 28 | 1u << 29), 0);
    assert_int_equal(r->cpu.config.feature7_ebx & (1u << 5 | 1u << 3), 1u << 3);
    cpuid(r, 0xd, 0, v);
    assert_int_equal(v[0], 3);
    assert_int_equal(v[2], 576);
    assert_int_equal(rc_config_mask(&r->cpu.config, "-xsave", &err), 0);
    assert_int_equal(r->cpu.config.featured_eax, 0);
    cpuid(r, 0xd, 0, v);
    assert_int_equal(v[0] | v[1] | v[2] | v[3], 0);
    cpuid(r, 0, 0, v);
    assert_true(v[0] <= 7);
}

/* ECX, EDX:EAX; accepted? (vol. 2 XSETBV) */
static const struct xcr_case {
    uint32_t ecx, eax, edx;
    bool ok;
} xcr_cases[] = {
    {0, 1, 0, true},     {0, 3, 0, true},  {0, 7, 0, true},  {0, 0, 0, false},
    {0, 2, 0, false},    {0, 5, 0, false}, {0, 6, 0, false}, {0, 0xf, 0, false},
    {0, 0xe7, 0, false}, {0, 3, 1, false}, {1, 3, 0, false},
};

static void xcr0(void **state)
{
    struct rig *r = *state;
    struct rc_cpu *cpu = &r->cpu;
    offer_avx(r);
    remember(r);
    check_plain_fault(r, rc_xgetbv(cpu), RC_UD);
    check_plain_fault(r, rc_xsetbv(cpu), RC_UD);
    assert_int_equal(rc_mov_to_cr(cpu, 4, RC_CR4_OSXSAVE), RC_OK);
    for (unsigned n = 0; n < sizeof xcr_cases / sizeof *xcr_cases; n++) {
        const struct xcr_case *c = &xcr_cases[n];
        cpu->xcr0 = 1;
        cpu->gpr[RC_ECX] = c->ecx;
        cpu->gpr[RC_EAX] = c->eax;
        cpu->gpr[RC_EDX] = c->edx;
        remember(r);
        if (!c->ok) {
            check_fault(r, rc_xsetbv(cpu), RC_GP, 0);
            continue;
        }
        assert_int_equal(rc_xsetbv(cpu), RC_OK);
        cpu->gpr[RC_EAX] = cpu->gpr[RC_EDX] = 0x55;
        assert_int_equal(rc_xgetbv(cpu), RC_OK);
        assert_int_equal(cpu->gpr[RC_EAX], c->eax);
        assert_int_equal(cpu->gpr[RC_EDX], 0);
        assert_int_equal(cpu->avx, c->eax == 7);
    }
    cpu->gpr[RC_ECX] = 1;
    remember(r);
    check_fault(r, rc_xgetbv(cpu), RC_GP, 0);
    cpu->gpr[RC_ECX] = 0;
    cpu->cpl = 3;
    remember(r);
    check_fault(r, rc_xsetbv(cpu), RC_GP, 0);
}

static void avx_availability(void **state)
{
    struct rig *r = *state;
    struct rc_cpu *cpu = &r->cpu;
    offer_avx(r);
    check_fpu(r, rc_check_avx(cpu), RC_UD);
    check_fpu(r, rc_check_xsave(cpu), RC_UD);
    assert_int_equal(rc_mov_to_cr(cpu, 4, RC_CR4_OSXSAVE), RC_OK);
    check_fpu(r, rc_check_avx(cpu), RC_UD); /* XCR0 is 1 */
    check_fpu(r, rc_check_xsave(cpu), NONE);
    cpu->gpr[RC_ECX] = cpu->gpr[RC_EDX] = 0;
    cpu->gpr[RC_EAX] = 7;
    assert_int_equal(rc_xsetbv(cpu), RC_OK);
    check_fpu(r, rc_check_avx(cpu), NONE);
    assert_int_equal(rc_mode(cpu) & RC_MODE_NO_AVX, 0);
    cpu->cr0 |= RC_CR0_TS;
    check_fpu(r, rc_check_avx(cpu), RC_NM);
    check_fpu(r, rc_check_xsave(cpu), RC_NM);
    assert_int_equal(rc_mode(cpu) & RC_MODE_NO_AVX, RC_MODE_NO_AVX);
    cpu->cr0 = (cpu->cr0 & ~(uint32_t)RC_CR0_TS) | RC_CR0_EM; /* VEX does not care */
    check_fpu(r, rc_check_avx(cpu), NONE);
    rc_set_eflags(cpu, RC_VM);
    check_fpu(r, rc_check_avx(cpu), RC_UD);
    rc_set_eflags(cpu, 0);
    assert_int_equal(rc_mov_to_cr(cpu, 4, 0), RC_OK);
    check_fpu(r, rc_check_avx(cpu), RC_UD);
}

static void cpuid_masks(void **state)
{
    struct rig *r = *state;
    struct host_err err = {""};
    uint32_t v[4];
    assert_int_equal(rc_config_mask(&r->cpu.config, "", &err), 0);
    assert_int_equal(rc_config_mask(&r->cpu.config, "-sse4.2,-popcnt,-nx,-hypervisor", &err), 0);
    cpuid(r, 1, 0, v);
    assert_int_equal(v[2] & (1u << 20 | 1u << 23 | 1u << 31), 0);
    cpuid(r, 0x80000001, 0, v);
    assert_int_equal(v[3] & 1 << 20, 0);
    assert_int_equal(rc_config_mask(&r->cpu.config, "-sse4.3", &err), -1);
    assert_non_null(strstr(err.text, "sse4.3"));
    assert_int_equal(rc_config_mask(&r->cpu.config, "-sse,+avx", &err), -1);
    assert_non_null(strstr(err.text, "+avx"));
    assert_int_equal(rc_config_mask(&r->cpu.config, "-", &err), -1);
    assert_int_equal(rc_config_mask(&r->cpu.config, "-sse2,,", &err), -1);
}

/* ---- Ports ---- */

static void port_permissions(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rc_check_io(&r->cpu, 0xffff, 4), RC_OK); /* ring 0 */
    go_user(r);
    remember(r);
    check_fault(r, rc_check_io(&r->cpu, 0x3f8, 1), RC_GP, 0); /* the map lies beyond the limit */
    put16(r, TSS + 0x66, 0x68);
    r->cpu.seg[RC_TR].limit = 0x68 + 0x80; /* ports 0-3FF and the byte that must follow */
    for (unsigned i = 0; i <= 0x80; i++)
        put8(r, TSS + 0x68 + i, i == 0x7f ? 0xfe : 0xff); /* port 3F8 only */
    remember(r);
    assert_int_equal(rc_check_io(&r->cpu, 0x3f8, 1), RC_OK);
    check_fault(r, rc_check_io(&r->cpu, 0x3f8, 2), RC_GP, 0);
    check_fault(r, rc_check_io(&r->cpu, 0x3f7, 1), RC_GP, 0);
    check_fault(r, rc_check_io(&r->cpu, 0x400, 1), RC_GP, 0);
    put8(r, TSS + 0x68 + 0x80, 0); /* even if the byte at the limit says yes: two bytes are read */
    check_fault(r, rc_check_io(&r->cpu, 0x400, 1), RC_GP, 0);
    put8(r, TSS + 0x68 + 1, 0x7f); /* port F: a word would need port 10 of the next byte */
    assert_int_equal(rc_check_io(&r->cpu, 0xf, 1), RC_OK);
    check_fault(r, rc_check_io(&r->cpu, 0xf, 2), RC_GP, 0);
    put8(r, TSS + 0x68 + 2, 0xfe);
    assert_int_equal(rc_check_io(&r->cpu, 0xf, 2), RC_OK);
    rc_set_eflags(&r->cpu, RC_IOPL);
    assert_int_equal(rc_check_io(&r->cpu, 0x60, 1), RC_OK); /* CPL <= IOPL */
    go_v86(r, 3);
    remember(r);
    check_fault(r, rc_check_io(&r->cpu, 0x60, 1), RC_GP, 0); /* IOPL does not count there */
    assert_int_equal(rc_check_io(&r->cpu, 0x3f8, 1), RC_OK);
    r->cpu.seg[RC_TR].attr = 0x83; /* a 16-bit TSS has no map */
    remember(r);
    check_fault(r, rc_check_io(&r->cpu, 0x3f8, 1), RC_GP, 0);
}

/* ---- rc_mode ---- */

static void modes(void **state)
{
    struct rig *r = *state;
    const unsigned kernel = RC_MODE_NO_SSE | RC_MODE_NO_AVX | RC_MODE_IOPL;
    for (unsigned seg = RC_ES; seg <= RC_GS; seg++) /* rc_cpu_flat's */
        assert_true(seg == RC_CS || r->cpu.seg[seg].soft == 0);
    assert_int_equal(rc_mode(&r->cpu), kernel);
    r->cpu.cr4 = RC_CR4_OSFXSR;
    assert_int_equal(rc_mode(&r->cpu), RC_MODE_NO_AVX | RC_MODE_IOPL);
    r->cpu.cr0 |= RC_CR0_TS;
    assert_int_equal(rc_mode(&r->cpu), RC_MODE_NO_AVX | RC_MODE_IOPL | RC_MODE_FPU_TRAP | RC_MODE_NO_SSE);
    r->cpu.cr0 &= ~(uint32_t)RC_CR0_TS;
    assert_int_equal(rc_load_seg(&r->cpu, RC_DS, 0), RC_OK);
    assert_int_equal(rc_load_seg(&r->cpu, RC_FS, 0), RC_OK); /* FS and GS always add their base */
    assert_int_equal(rc_mode(&r->cpu), RC_MODE_NO_AVX | RC_MODE_IOPL | RC_MODE_DS_ODD);
    rc_set_eflags(&r->cpu, RC_TF);
    assert_int_equal(rc_mode(&r->cpu) & RC_MODE_INTERP, RC_MODE_INTERP);
    rc_set_eflags(&r->cpu, 0);
    r->cpu.dr[7] = 0x401;
    assert_int_equal(rc_mode(&r->cpu) & RC_MODE_INTERP, RC_MODE_INTERP);
    r->cpu.dr[7] = 0x400;
    set_seg(r, RC_CS, KCODE, 0, UINT32_MAX, 0x809b); /* 16-bit code */
    assert_int_equal(rc_mode(&r->cpu) & RC_MODE_INTERP, RC_MODE_INTERP);
    set_seg(r, RC_CS, KCODE, 0x1000, UINT32_MAX, 0xc09b);
    assert_int_equal(rc_mode(&r->cpu) & RC_MODE_INTERP, RC_MODE_INTERP);
    set_seg(r, RC_CS, KCODE, 0, UINT32_MAX, 0xc09b);
    assert_int_equal(rc_mode(&r->cpu) & RC_MODE_INTERP, 0);
    go_user(r);
    assert_int_equal(rc_mode(&r->cpu), RC_MODE_NO_AVX | RC_MODE_USER | RC_MODE_INTERP); /* without paging */
    r->cpu.cr0 |= RC_CR0_PG;
    assert_int_equal(rc_mode(&r->cpu), RC_MODE_NO_AVX | RC_MODE_USER);
    set_seg(r, RC_SS, UDATA, 0, 0xffff, 0x00f3); /* 16-bit stack */
    assert_int_equal(rc_mode(&r->cpu), RC_MODE_NO_AVX | RC_MODE_USER | RC_MODE_SS_ODD | RC_MODE_INTERP);
    set_seg(r, RC_SS, UDATA, 0, UINT32_MAX, 0xc0f3);
    rc_set_eflags(&r->cpu, RC_AC);
    assert_int_equal(rc_mode(&r->cpu), RC_MODE_NO_AVX | RC_MODE_USER);
    r->cpu.cr0 |= RC_CR0_AM;
    assert_true(rc_alignment_checked(&r->cpu));
    assert_int_equal(rc_mode(&r->cpu), RC_MODE_NO_AVX | RC_MODE_USER | RC_MODE_INTERP);
    rc_set_eflags(&r->cpu, RC_IOPL);
    assert_int_equal(rc_mode(&r->cpu), RC_MODE_NO_AVX | RC_MODE_USER | RC_MODE_IOPL);
    go_v86(r, 3);
    assert_int_equal(rc_mode(&r->cpu) & RC_MODE_INTERP, RC_MODE_INTERP);
}

/* ---- The sensitive table ---- */

static void sensitive_rows(void **state)
{
    (void)state;
    assert_true(rc_sensitive_count >= 17);
    for (unsigned i = 0; i < rc_sensitive_count; i++) {
        const struct rc_sensitive *row = &rc_sensitive_table[i];
        assert_true(row->mnemonic[0] != '\0');
        for (const char *c = row->mnemonic; *c; c++)
            assert_true((*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9'));
        assert_non_null(row->form);
        assert_true(strlen(row->why) > 10);
        assert_true(strlen(row->action) > 10);
        assert_true(row->why[strlen(row->why) - 1] == '.');
        assert_true(row->action[strlen(row->action) - 1] == '.');
        for (unsigned k = 0; k < i; k++)
            assert_false(!strcmp(row->mnemonic, rc_sensitive_table[k].mnemonic) &&
                         !strcmp(row->form, rc_sensitive_table[k].form));
    }
}

/* Robin and Irvine (2000), tables of section 5: none of the seventeen traps, so none may be listed as
 * trapping. */
static void the_seventeen_are_listed(void **state)
{
    static const char *const seventeen[] = {"sgdt", "sidt", "sldt", "smsw", "pushf", "popf",
                                            "lar",  "lsl",  "verr", "verw", "pop",   "push",
                                            "call", "jmp",  "int",  "ret",  "str",   "mov"};
    (void)state;
    for (unsigned i = 0; i < sizeof seventeen / sizeof *seventeen; i++) {
        bool found = false;
        for (unsigned k = 0; k < rc_sensitive_count; k++)
            found |= !strcmp(seventeen[i], rc_sensitive_table[k].mnemonic) &&
                     rc_sensitive_table[k].reason != RC_TRAPS;
        print_message("    %s\n", seventeen[i]);
        assert_true(found);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(power_on),
        rig_test(popf),
        rig_test(pushf),
        rig_test(undefined_flags_read_as_the_manual_says),
        rig_test(cli_and_sti),
        rig_test(privileged),
        rig_test(cr0),
        rig_test(paging_on_and_off),
        rig_test(cr4),
        rig_test(pdptes),
        rig_test(debug_registers),
        rig_test(msrs),
        rig_test(msrs_that_are_not_there),
        rig_test(mtrrs_at_power_on_and_after_firmware),
        rig_test(msrs_follow_cpuid),
        rig_test(nxe_reaches_the_walker),
        rig_test(time_stamps),
        rig_test(cpuid_offers_nothing_it_cannot_keep),
        rig_test(cpuid_names_itself),
        rig_test(cpuid_passes_names_and_caches_through),
        rig_test(cpuid_masks),
        rig_test(port_permissions),
        rig_test(fpu_availability),
        rig_test(avx_availability),
        rig_test(xcr0),
        rig_test(cpuid_describes_extended_state),
        rig_test(modes),
        cmocka_unit_test(sensitive_rows),
        cmocka_unit_test(the_seventeen_are_listed),
    };
    return cmocka_run_group_tests_name("ringcomp system", tests, NULL, NULL);
}
