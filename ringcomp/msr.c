/* Model-specific registers (vol. 4): one table of those that exist. Any other is #GP(0), which every kernel
 * that probes expects. */
#include "ring.h"

#include <stddef.h>

/* Memory types (11.11.2, 11.12.2): UC 0, WC 1, WT 4, WP 5, WB 6, and UC- 7 in the PAT only. */
enum { MTRR_TYPES = 0x73, PAT_TYPES = 0xf3, TYPE_UC = 0, TYPE_WB = 6 };
enum { MTRR_VARIABLE = 0, MTRR_FIXED = 16 }; /* where in cpu->mtrr they are stored */
enum { MTRR_COUNT = 8, EFER_NXE = 1 << 11 };
#define PAT_RESET      UINT64_C(0x0007040600070406)
#define PHYSICAL_MASK  UINT64_C(0xfffffffff) /* MAXPHYADDR 36, as CPUID 80000008 says */
#define FIXED_ALL(t)   (UINT64_C(0x0101010101010101) * (t))
#define HWCR_TSC_AT_P0 (UINT64_C(1) << 24)

/* What the processor does not suffer from (IA32_ARCH_CAPABILITIES). Guest user code and guest kernel code
 * never run in one host address space view under the control of the guest's own page tables: user code is
 * translated and can address nothing but its window. The defences a kernel would otherwise put up (PTI,
 * retpolines: a return that goes elsewhere, which no return predictor survives) would cost much and defend
 * nothing. Bits: RDCL 0, IBRS_ALL 1, L1TF 3, SSB 4, MDS 5, page size change MC 6, TAA 8, SBDR 13, FBSDP 14,
 * PSDP 15, BHI 20, PBRSB 24, GDS 26, RFDS 27, ITS 62. */
#define ARCH_CAPABILITIES UINT64_C(0x400000000d10e17b)

struct msr;
typedef enum rc_result (*msr_get)(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t *value);
typedef enum rc_result (*msr_set)(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value);

struct msr {
    uint32_t first, last;
    enum rc_cpuid_word word; /* offered when these CPUID bits are */
    uint32_t feature;        /* 0: always */
    msr_get get;             /* NULL: write-only */
    msr_set set;             /* NULL: read-only */
    size_t field;            /* of struct rc_cpu, for the stored ones */
    uint64_t value;          /* reserved bits, or the constant */
};

static enum rc_result raise_gp(struct rc_cpu *cpu)
{
    return rc_raise_error(cpu, RC_GP, 0);
}

/* ---- Constants and plain stores ---- */

static enum rc_result get_constant(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t *value)
{
    (void)cpu, (void)n;
    *value = m->value;
    return RC_OK;
}

static enum rc_result get_amd_constant(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t *value)
{
    return rc_vendor_is_amd(cpu) ? get_constant(cpu, m, n, value) : raise_gp(cpu);
}

static enum rc_result set_ignored(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    (void)cpu, (void)m, (void)n, (void)value;
    return RC_OK;
}

static enum rc_result set_amd_ignored(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    return rc_vendor_is_amd(cpu) ? set_ignored(cpu, m, n, value) : raise_gp(cpu);
}

/* Registers that may be written with what they hold and nothing else. */
static enum rc_result set_same(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    (void)n;
    return value == m->value ? RC_OK : raise_gp(cpu);
}

static enum rc_result get_32(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t *value)
{
    (void)n;
    *value = *(uint32_t *)((char *)cpu + m->field);
    return RC_OK;
}

static enum rc_result set_32(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    (void)n;
    *(uint32_t *)((char *)cpu + m->field) = (uint32_t)value; /* 63:32 do not exist without 64-bit mode */
    return RC_OK;
}

static enum rc_result get_64(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t *value)
{
    (void)n;
    *value = *(uint64_t *)((char *)cpu + m->field);
    return RC_OK;
}

static enum rc_result set_64(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    (void)n;
    if (value & m->value)
        return raise_gp(cpu);
    *(uint64_t *)((char *)cpu + m->field) = value;
    return RC_OK;
}

/* ---- Those that do something ---- */

static enum rc_result get_tsc(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t *value)
{
    (void)m, (void)n;
    *value = rc_tsc(cpu);
    return RC_OK;
}

static enum rc_result set_tsc(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    (void)m, (void)n;
    cpu->tsc_offset += value - rc_tsc(cpu);
    return RC_OK;
}

static enum rc_result set_efer(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    (void)m, (void)n;
    if (value & ~(uint64_t)EFER_NXE)
        return raise_gp(cpu);
    if (cpu->efer != value) {
        cpu->efer = value;
        rc_paging_changed(cpu, NULL);
    }
    return RC_OK;
}

static bool are_types(uint64_t value, unsigned types)
{
    for (unsigned i = 0; i < 8; i++, value >>= 8)
        if ((value & 0xff) > 7 || !(types >> (value & 7) & 1))
            return false;
    return true;
}

static enum rc_result set_pat(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    (void)m, (void)n;
    if (!are_types(value, PAT_TYPES))
        return raise_gp(cpu);
    cpu->pat = value;
    return RC_OK;
}

static enum rc_result set_mtrr_default(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    (void)m, (void)n;
    if ((value & ~UINT64_C(0xcff)) || !are_types(value & 0xff, MTRR_TYPES))
        return raise_gp(cpu);
    cpu->mtrr_def = value;
    return RC_OK;
}

static enum rc_result get_mtrr_variable(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t *value)
{
    *value = cpu->mtrr[MTRR_VARIABLE + n - m->first];
    return RC_OK;
}

static enum rc_result set_mtrr_variable(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    const bool is_mask = n & 1;
    const uint64_t reserved = ~(PHYSICAL_MASK & ~UINT64_C(0xfff)) & ~UINT64_C(0xff);

    if (is_mask ? value & ((reserved | 0xff) & ~UINT64_C(0x800))
                : (value & reserved) || !are_types(value & 0xff, MTRR_TYPES))
        return raise_gp(cpu);
    cpu->mtrr[MTRR_VARIABLE + n - m->first] = value;
    return RC_OK;
}

/* 250; 258, 259; 268..26F: the eleven fixed-range registers in order (table 11-9). */
static unsigned fixed_index(uint32_t n)
{
    return MTRR_FIXED + (n == 0x250 ? 0 : n < 0x260 ? n - 0x258 + 1 : n - 0x268 + 3);
}

static enum rc_result get_mtrr_fixed(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t *value)
{
    (void)m;
    *value = cpu->mtrr[fixed_index(n)];
    return RC_OK;
}

static enum rc_result set_mtrr_fixed(struct rc_cpu *cpu, const struct msr *m, uint32_t n, uint64_t value)
{
    (void)m;
    if (!are_types(value, MTRR_TYPES))
        return raise_gp(cpu);
    cpu->mtrr[fixed_index(n)] = value;
    return RC_OK;
}

/* ---- The table ---- */

#define FIELD(f)        offsetof(struct rc_cpu, f)
#define ALWAYS          RC_F1_EDX, 0
#define WITH(word, bit) RC_##word, RC_##word##_##bit
/* clang-format off */
static const struct msr msr_table[] = {
    /* first       last        feature                  read               write              field, value */
    {0x10,       0x10,       WITH(F1_EDX, TSC),       get_tsc,           set_tsc,           0, 0},
    {0x17,       0x17,       ALWAYS,                  get_constant,      NULL,              0, 0}, /* platform id */
    {0x48,       0x48,       WITH(F7_EDX, SPEC_CTRL), get_64,            set_64,            FIELD(spec_ctrl), ~UINT64_C(7)},
    {0x49,       0x49,       WITH(F7_EDX, SPEC_CTRL), NULL,              set_ignored,       0, 0}, /* IBPB */
    {0x8b,       0x8b,       ALWAYS,                  get_constant,      set_ignored,       0, 0}, /* microcode revision: none */
    {0xfe,       0xfe,       WITH(F1_EDX, MTRR),      get_constant,      NULL,              0, 0x500 | MTRR_COUNT}, /* MTRRCAP: FIX, WC */
    {0x10a,      0x10a,      WITH(F7_EDX, ARCH_CAP),  get_constant,      NULL,              0, ARCH_CAPABILITIES},
    {0x174,      0x174,      WITH(F1_EDX, SEP),       get_32,            set_32,            FIELD(sysenter_cs), 0},
    {0x175,      0x175,      WITH(F1_EDX, SEP),       get_32,            set_32,            FIELD(sysenter_esp), 0},
    {0x176,      0x176,      WITH(F1_EDX, SEP),       get_32,            set_32,            FIELD(sysenter_eip), 0},
    {0x1a0,      0x1a0,      ALWAYS,                  get_64,            set_64,            FIELD(misc_enable), 0},
    {0x1d9,      0x1d9,      ALWAYS,                  get_constant,      set_same,          0, 0}, /* DEBUGCTL: no LBR, no BTF */
    {0x200,      0x20f,      WITH(F1_EDX, MTRR),      get_mtrr_variable, set_mtrr_variable, 0, 0},
    {0x250,      0x250,      WITH(F1_EDX, MTRR),      get_mtrr_fixed,    set_mtrr_fixed,    0, 0},
    {0x258,      0x259,      WITH(F1_EDX, MTRR),      get_mtrr_fixed,    set_mtrr_fixed,    0, 0},
    {0x268,      0x26f,      WITH(F1_EDX, MTRR),      get_mtrr_fixed,    set_mtrr_fixed,    0, 0},
    {0x277,      0x277,      WITH(F1_EDX, PAT),       get_64,            set_pat,           FIELD(pat), 0},
    {0x2ff,      0x2ff,      WITH(F1_EDX, MTRR),      get_64,            set_mtrr_default,  FIELD(mtrr_def), 0},
    {0xc0000080, 0xc0000080, WITH(FX_EDX, NX),        get_64,            set_efer,          FIELD(efer), 0},
    /* AMD's, read by its kernels' start-up code without precautions */
    {0xc0010010, 0xc0010010, ALWAYS,                  get_amd_constant,  set_amd_ignored,   0, 0}, /* SYSCFG */
    {0xc0010015, 0xc0010015, ALWAYS,                  get_amd_constant,  set_amd_ignored,   0, HWCR_TSC_AT_P0},
    {0xc001001f, 0xc001001f, ALWAYS,                  get_amd_constant,  set_amd_ignored,   0, 0}, /* NB_CFG */
    {0xc0011029, 0xc0011029, ALWAYS,                  get_amd_constant,  set_amd_ignored,   0, 2}, /* DE_CFG: LFENCE serializes */
};
/* clang-format on */

static bool is_offered(const struct rc_cpu *cpu, const struct msr *m)
{
    const struct rc_config *c = &cpu->config;
    const uint32_t words[RC_F_WORDS] = {
        [RC_F1_EDX] = c->feature_edx,  [RC_F1_ECX] = c->feature_ecx, [RC_F7_EBX] = c->feature7_ebx,
        [RC_F7_EDX] = c->feature7_edx, [RC_FX_EDX] = c->ext_edx,     [RC_FX_ECX] = c->ext_ecx,
    };
    return !m->feature || (words[m->word] & m->feature);
}

static const struct msr *find(const struct rc_cpu *cpu, uint32_t n)
{
    for (unsigned i = 0; i < sizeof msr_table / sizeof *msr_table; i++) {
        const struct msr *m = &msr_table[i];
        if (n >= m->first && n <= m->last)
            return is_offered(cpu, m) ? m : NULL;
    }
    return NULL;
}

enum rc_result rc_rdmsr(struct rc_cpu *cpu)
{
    const uint32_t n = cpu->gpr[RC_ECX];
    const struct msr *m = find(cpu, n);
    uint64_t value;

    if (cpu->cpl != 0 || !m || !m->get)
        return raise_gp(cpu);
    if (m->get(cpu, m, n, &value) != RC_OK)
        return RC_FAULT;
    cpu->gpr[RC_EAX] = (uint32_t)value;
    cpu->gpr[RC_EDX] = (uint32_t)(value >> 32);
    return RC_OK;
}

enum rc_result rc_wrmsr(struct rc_cpu *cpu)
{
    const uint32_t n = cpu->gpr[RC_ECX];
    const struct msr *m = find(cpu, n);

    if (cpu->cpl != 0 || !m || !m->set)
        return raise_gp(cpu);
    return m->set(cpu, m, n, (uint64_t)cpu->gpr[RC_EDX] << 32 | cpu->gpr[RC_EAX]);
}

/* ---- Counters ---- */

uint64_t rc_tsc(struct rc_cpu *cpu)
{
    return cpu->ops.tsc(cpu->ops.ctx) + cpu->tsc_offset;
}

enum rc_result rc_rdtsc(struct rc_cpu *cpu)
{
    if (cpu->cpl != 0 && (cpu->cr4 & RC_CR4_TSD))
        return raise_gp(cpu);
    const uint64_t tsc = rc_tsc(cpu);
    cpu->gpr[RC_EAX] = (uint32_t)tsc;
    cpu->gpr[RC_EDX] = (uint32_t)(tsc >> 32);
    return RC_OK;
}

enum rc_result rc_rdpmc(struct rc_cpu *cpu)
{
    return raise_gp(
        cpu); /* without CR4.PCE outside ring 0; and else because no counter ECX could name exists */
}

/* ---- Reset ---- */

void rc_msr_reset(struct rc_cpu *cpu)
{
    cpu->pat = PAT_RESET;
    cpu->mtrr_def = 0;
    cpu->misc_enable = 1; /* fast strings */
    for (unsigned i = 0; i < sizeof cpu->mtrr / sizeof *cpu->mtrr; i++)
        cpu->mtrr[i] = 0;
}

/* A kernel that finds the MTRRs off believes that firmware failed and turns the PAT off. Everything is
 * write-back but the legacy video hole. */
void rc_msr_firmware(struct rc_cpu *cpu)
{
    enum { ENABLED = 3 << 10 };
    for (uint32_t n = 0x250; n <= 0x26f; n++)
        if (n == 0x250 || n == 0x258 || n >= 0x268)
            cpu->mtrr[fixed_index(n)] = FIXED_ALL(TYPE_WB);
    cpu->mtrr[fixed_index(0x259)] = FIXED_ALL(TYPE_UC);
    cpu->mtrr_def = ENABLED | TYPE_WB;
}
