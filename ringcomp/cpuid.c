/* The processor the guest sees: the host's, minus what 32-bit code does not get here (vol. 2 CPUID). */
#include "ring.h"

#include <cpuid.h>
#include <string.h>

enum { EAX, EBX, ECX, EDX };

/* One row per feature a guest may be offered. What has no row does not exist for it: the local APIC, XSAVEC
 * and XSAVES, AVX-512 and whatever else is EVEX-encoded, virtualization, 64-bit mode, MONITOR, PCID, SMEP, SMAP, VME,
 * machine checks, RDTSCP, SYSCALL. */
struct feature {
    const char *name; /* for --cpu */
    enum rc_cpuid_word word;
    unsigned bit;
    bool own;          /* offered whether or not the host has it */
    const char *needs; /* a row above, without which it is not offered */
};
static const struct feature feature_table[] = {
    {"fpu", RC_F1_EDX, 0, false, NULL},
    {"de", RC_F1_EDX, 2, true, NULL},
    {"pse", RC_F1_EDX, 3, true, NULL},
    {"tsc", RC_F1_EDX, 4, false, NULL},
    {"msr", RC_F1_EDX, 5, true, NULL},
    {"pae", RC_F1_EDX, 6, true, NULL},
    {"cx8", RC_F1_EDX, 8, false, NULL},
    {"sep", RC_F1_EDX, 11, true, NULL},
    {"mtrr", RC_F1_EDX, 12, true, NULL},
    {"pge", RC_F1_EDX, 13, true, NULL},
    {"cmov", RC_F1_EDX, 15, false, NULL},
    {"pat", RC_F1_EDX, 16, true, NULL},
    {"pse36", RC_F1_EDX, 17, true, NULL},
    {"clflush", RC_F1_EDX, 19, false, NULL},
    {"mmx", RC_F1_EDX, 23, false, NULL},
    {"fxsr", RC_F1_EDX, 24, false, NULL},
    {"sse", RC_F1_EDX, 25, false, NULL},
    {"sse2", RC_F1_EDX, 26, false, NULL},
    {"sse3", RC_F1_ECX, 0, false, NULL},
    {"pclmulqdq", RC_F1_ECX, 1, false, NULL},
    {"ssse3", RC_F1_ECX, 9, false, NULL},
    {"sse4.1", RC_F1_ECX, 19, false, NULL},
    {"sse4.2", RC_F1_ECX, 20, false, NULL},
    {"movbe", RC_F1_ECX, 22, false, NULL},
    {"popcnt", RC_F1_ECX, 23, false, NULL},
    {"aes", RC_F1_ECX, 25, false, NULL},
    {"xsave", RC_F1_ECX, 26, false, NULL},
    {"avx", RC_F1_ECX, 28, false, "xsave"},
    {"fma", RC_F1_ECX, 12, false, "avx"},
    {"f16c", RC_F1_ECX, 29, false, "avx"},
    {"rdrand", RC_F1_ECX, 30, false, NULL},
    {"hypervisor", RC_F1_ECX, 31, true, NULL},
    {"bmi1", RC_F7_EBX, 3, false, NULL},
    {"avx2", RC_F7_EBX, 5, false, "avx"},
    {"bmi2", RC_F7_EBX, 8, false, NULL},
    {"erms", RC_F7_EBX, 9, false, NULL},
    {"adx", RC_F7_EBX, 19, false, NULL},
    {"sha", RC_F7_EBX, 29, false, NULL},
    {"fsrm", RC_F7_EDX, 4, false, NULL},
    {"spec_ctrl", RC_F7_EDX, 26, true, NULL},
    {"arch_capabilities", RC_F7_EDX, 29, true, NULL},
    {"nx", RC_FX_EDX, 20, true, NULL},
    {"lzcnt", RC_FX_ECX, 5, false, NULL},
    {"prefetchw", RC_FX_ECX, 8, false, NULL},
    {"xsaveopt", RC_FD_EAX, 0, false, "xsave"},
};
enum { FEATURES = sizeof feature_table / sizeof *feature_table };

static uint32_t *word_of(struct rc_config *c, enum rc_cpuid_word word)
{
    switch (word) {
    case RC_F1_EDX:
        return &c->feature_edx;
    case RC_F1_ECX:
        return &c->feature_ecx;
    case RC_F7_EBX:
        return &c->feature7_ebx;
    case RC_F7_EDX:
        return &c->feature7_edx;
    case RC_FX_EDX:
        return &c->ext_edx;
    case RC_FD_EAX:
        return &c->featured_eax;
    default:
        return &c->ext_ecx;
    }
}

/* A leaf of the host's; zeros when it has none such. */
static void host_leaf(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    out[EAX] = out[EBX] = out[ECX] = out[EDX] = 0;
    __get_cpuid_count(leaf, subleaf, &out[EAX], &out[EBX], &out[ECX], &out[EDX]);
}

static const struct feature *feature_find(const char *name, size_t len)
{
    for (unsigned i = 0; i < FEATURES; i++)
        if (strlen(feature_table[i].name) == len && !memcmp(feature_table[i].name, name, len))
            return &feature_table[i];
    return NULL;
}

/* Take away what has lost its ground. Rows come after those they need, so once is enough. */
static void drop_unfounded(struct rc_config *c)
{
    for (unsigned i = 0; i < FEATURES; i++) {
        const struct feature *f = &feature_table[i];
        const struct feature *needs = f->needs ? feature_find(f->needs, strlen(f->needs)) : NULL;
        if (needs && !(*word_of(c, needs->word) >> needs->bit & 1))
            *word_of(c, f->word) &= ~(UINT32_C(1) << f->bit);
    }
}

/* AVX is the host kernel's to allow: it must save the registers of this process (vol. 1 14.3). */
static bool host_saves_ymm(uint32_t leaf1_ecx)
{
    uint32_t low, high;
    if (!(leaf1_ecx & RC_F1_ECX_OSXSAVE))
        return false;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0)); /* xgetbv */
    return (low & (RC_XCR0_SSE | RC_XCR0_AVX)) == (RC_XCR0_SSE | RC_XCR0_AVX);
}

void rc_config_host(struct rc_config *c)
{
    uint32_t leaf1[4], leaf7[4], leafd[4], ext1[4], power[4];
    host_leaf(1, 0, leaf1);
    host_leaf(0xd, 1, leafd);
    if (!host_saves_ymm(leaf1[ECX]))
        leaf1[ECX] &= ~(uint32_t)RC_F1_ECX_AVX;
    host_leaf(7, 0, leaf7);
    host_leaf(0x80000001, 0, ext1);
    host_leaf(0x80000007, 0, power);
    const uint32_t host[RC_F_WORDS] = {
        [RC_F1_EDX] = leaf1[EDX], [RC_F1_ECX] = leaf1[ECX], [RC_F7_EBX] = leaf7[EBX],
        [RC_F7_EDX] = leaf7[EDX], [RC_FX_EDX] = ext1[EDX],  [RC_FX_ECX] = ext1[ECX],
        [RC_FD_EAX] = leafd[EAX],
    };

    *c = (struct rc_config){0};
    for (unsigned i = 0; i < FEATURES; i++) {
        const struct feature *f = &feature_table[i];
        if (f->own || (host[f->word] >> f->bit & 1))
            *word_of(c, f->word) |= UINT32_C(1) << f->bit;
    }
    drop_unfounded(c);
    c->stable_tsc = power[EDX] >> 8 & 1;
}

/* ---- --cpu ---- */

int rc_config_mask(struct rc_config *c, const char *spec, struct host_err *err)
{
    while (*spec) {
        const size_t len = strcspn(spec, ",");
        if (*spec != '-')
            return host_fail(err,
                             "--cpu: \"%.*s\" must be a feature to take away, such as -sse4.2 "
                             "(features cannot be added)",
                             (int)len, spec);
        const struct feature *f = feature_find(spec + 1, len - 1);
        if (!f)
            return host_fail(err, "--cpu: there is no feature called \"%.*s\" (try -sse4.2, -pae, -nx, -sep)",
                             (int)len - 1, spec + 1);
        *word_of(c, f->word) &= ~(UINT32_C(1) << f->bit);
        spec += len;
        spec += *spec == ',';
    }
    drop_unfounded(c);
    return 0;
}

/* ---- The leaves ---- */

/* The same for a leaf the guest asked for, from memory when it was asked for before. */
static void remembered_leaf(struct rc_cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    unsigned i = 0;
    while (i < cpu->host_leaf_count &&
           (cpu->host_leaf[i].leaf != leaf || cpu->host_leaf[i].subleaf != subleaf))
        i++;
    if (i == RC_HOST_LEAVES) { /* cannot happen while the table of leaves below asks for fewer */
        host_leaf(leaf, subleaf, out);
        return;
    }
    struct rc_host_leaf *h = &cpu->host_leaf[i];
    if (i == cpu->host_leaf_count) {
        h->leaf = leaf;
        h->subleaf = subleaf;
        host_leaf(leaf, subleaf, h->value);
        cpu->host_leaf_count++;
    }
    for (unsigned k = 0; k < 4; k++)
        out[k] = h->value[k];
}

bool rc_vendor_is_amd(struct rc_cpu *cpu)
{
    enum { AUTH = 0x68747541, HYGO = 0x6f677948 }; /* "Auth"enticAMD; "Hygo"nGenuine, its sibling */
    uint32_t v[4];
    remembered_leaf(cpu, 0, 0, v);
    return v[EBX] == AUTH || v[EBX] == HYGO;
}

/* Each model function gets the host's leaf in r (zeros where its row says that the host is not asked) and
 * makes it the guest's. */
typedef void (*leaf_model)(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4]);

static uint32_t min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void leaf_as_is(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)cpu, (void)subleaf, (void)r;
}

/* The vendor is the host's, so that a kernel applies the quirks of the CPU its code runs on. */
static void leaf_0(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    r[EAX] = min32(r[EAX], cpu->config.feature_ecx & RC_F1_ECX_XSAVE ? 0xd : 7);
}

enum { FAMILY_MODEL_STEPPING = 0x0fff3fff };

static void leaf_1(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    enum { ONE_LOGICAL_CPU = 1 << 16 };
    (void)subleaf;
    r[EAX] &= FAMILY_MODEL_STEPPING;
    r[EBX] = ONE_LOGICAL_CPU | (cpu->config.feature_edx & RC_F1_EDX_CLFLUSH ? r[EBX] & 0xff00 : 0);
    r[ECX] = cpu->config.feature_ecx | (cpu->cr4 & RC_CR4_OSXSAVE ? RC_F1_ECX_OSXSAVE : 0);
    r[EDX] = cpu->config.feature_edx;
}

/* Cache parameters, of a processor of one core. */
static void leaf_4(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)cpu, (void)subleaf;
    if (r[EAX] & 0x1f)
        r[EAX] &= 0x3fff;
}

static void leaf_7(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    r[EBX] = subleaf ? 0 : cpu->config.feature7_ebx;
    r[EDX] = subleaf ? 0 : cpu->config.feature7_edx;
}

/* Extended state: our own layout is the standard one, whatever the host has beyond it. */
static void leaf_d(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    const uint32_t known = rc_xcr0_known(cpu);
    if (!(cpu->config.feature_ecx & RC_F1_ECX_XSAVE))
        return;
    if (subleaf == 0) {
        r[EAX] = known;
        r[EBX] = cpu->xcr0 & RC_XCR0_AVX ? RC_XSAVE_BYTES : RC_XSAVE_HEADER_END; /* of what is enabled now */
        r[ECX] = known & RC_XCR0_AVX ? RC_XSAVE_BYTES : RC_XSAVE_HEADER_END;
    } else if (subleaf == 1) {
        r[EAX] = cpu->config.featured_eax;
    } else if (subleaf == 2 && (known & RC_XCR0_AVX)) {
        r[EAX] = RC_XSAVE_BYTES - RC_XSAVE_YMM_HIGH;
        r[EBX] = RC_XSAVE_YMM_HIGH;
    }
}

/* Twelve characters in EBX, ECX, EDX; a kernel that does not know them assumes nothing. */
static void leaf_hypervisor(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    static const char signature[] = "RingletVMM32";
    (void)cpu, (void)subleaf;
    r[EAX] = 0x40000000; /* no further leaf */
    r[EBX] = rc_load32(signature);
    r[ECX] = rc_load32(signature + 4);
    r[EDX] = rc_load32(signature + 8);
}

static void leaf_ext0(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    r[EAX] = min32(r[EAX], rc_vendor_is_amd(cpu) ? 0x80000021 : 0x80000008);
}

static void leaf_ext1(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    /* AMD repeats most of leaf 1's EDX here and its kernels look there; bit 11 is SYSCALL in this place. */
    const uint32_t repeated = 0x0183f3ff;
    const bool amd = rc_vendor_is_amd(cpu);
    (void)subleaf;
    r[EAX] = amd ? r[EAX] & FAMILY_MODEL_STEPPING : 0;
    r[EBX] = 0;
    r[ECX] = cpu->config.ext_ecx;
    r[EDX] = cpu->config.ext_edx | (amd ? cpu->config.feature_edx & repeated : 0);
}

static void leaf_ext7(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    r[EDX] = cpu->config.stable_tsc ? 1 << 8 : 0;
}

static void leaf_ext8(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)cpu, (void)subleaf;
    r[EAX] = 32 << 8 | 36; /* linear and physical address width: shadowpt's walker has 36 */
}

/* AMD: LFENCE serializes (2) as DE_CFG says; speculative return stack overflow absent (29). */
static void leaf_ext21(struct rc_cpu *cpu, uint32_t subleaf, uint32_t r[4])
{
    (void)subleaf;
    r[EAX] = rc_vendor_is_amd(cpu) ? 1u << 2 | 1u << 29 : 0;
}

static const struct leaf {
    uint32_t leaf;
    unsigned host_subleaves; /* 0: the host is not asked */
    leaf_model model;
} leaf_table[] = {
    {0, 1, leaf_0},
    {1, 1, leaf_1},
    {2, 1, leaf_as_is}, /* caches and TLBs */
    {4, 8, leaf_4},
    {7, 0, leaf_7},
    {0xd, 0, leaf_d},
    {0x40000000, 0, leaf_hypervisor},
    {0x80000000, 1, leaf_ext0},
    {0x80000001, 1, leaf_ext1},
    {0x80000002, 1, leaf_as_is}, /* brand string */
    {0x80000003, 1, leaf_as_is},
    {0x80000004, 1, leaf_as_is},
    {0x80000005, 1, leaf_as_is}, /* AMD's caches */
    {0x80000006, 1, leaf_as_is},
    {0x80000007, 0, leaf_ext7},
    {0x80000008, 0, leaf_ext8},
    {0x80000021, 0, leaf_ext21},
};

enum rc_result rc_cpuid(struct rc_cpu *cpu)
{
    const uint32_t leaf = cpu->gpr[RC_EAX], subleaf = cpu->gpr[RC_ECX];
    uint32_t r[4] = {0, 0, 0, 0};

    for (unsigned i = 0; i < sizeof leaf_table / sizeof *leaf_table; i++) {
        const struct leaf *l = &leaf_table[i];
        if (l->leaf != leaf)
            continue;
        if (l->host_subleaves == 1)
            remembered_leaf(cpu, leaf, 0, r);
        else if (subleaf < l->host_subleaves)
            remembered_leaf(cpu, leaf, subleaf, r);
        l->model(cpu, subleaf, r);
    }
    cpu->gpr[RC_EAX] = r[EAX];
    cpu->gpr[RC_EBX] = r[EBX];
    cpu->gpr[RC_ECX] = r[ECX];
    cpu->gpr[RC_EDX] = r[EDX];
    return RC_OK;
}
