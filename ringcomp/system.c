/* Control and debug registers, descriptor-table registers, and the checks before x87 and SSE instructions
 * (2.3-2.8, 4.4.1, 17.2). */
#include "ring.h"

static enum rc_result require_cpl0(struct rc_cpu *cpu)
{
    return cpu->cpl == 0 ? RC_OK : rc_raise_error(cpu, RC_GP, 0);
}

/* ---- What paging depends on ---- */

void rc_paging_changed(struct rc_cpu *cpu, const uint64_t pdpte[4])
{
    const uint64_t *from = pdpte ? pdpte : spt_paging(cpu->spt)->pdpte;
    struct spt_paging p = {
        .cr0 = cpu->cr0,
        .cr3 = cpu->cr3,
        .cr4 = cpu->cr4,
        .nxe = cpu->efer >> 11 & 1,
        .pdpte = {from[0], from[1], from[2], from[3]},
    };
    spt_set_paging(cpu->spt, &p);
}

/* Tables 4-8, 4-12: the four entries are read when CR3 is loaded, and bad ones are the writer's #GP(0).
 * Entries outside RAM read as 0. */
static enum rc_result load_pdptes(struct rc_cpu *cpu, uint32_t cr3, uint64_t pdpte[4])
{
    const uint64_t reserved =
        UINT64_C(0xfffffff0000001e6); /* 63:36 (the address is 36 bits wide), 8:5, 2:1 */
    const uint32_t at = cr3 & ~UINT32_C(31);

    for (unsigned i = 0; i < 4; i++) {
        if (!spt_phys_read(cpu->spt, at + 8 * i, &pdpte[i], 8))
            pdpte[i] = 0;
        if ((pdpte[i] & 1) && (pdpte[i] & reserved))
            return rc_raise_error(cpu, RC_GP, 0);
    }
    return RC_OK;
}

enum rc_result rc_cr3_load(struct rc_cpu *cpu, uint32_t value)
{
    uint64_t pdpte[4] = {0, 0, 0, 0};

    if (!(cpu->cr0 & RC_CR0_PG)) { /* turning paging on hands it to shadowpt */
        cpu->cr3 = value;
        return RC_OK;
    }
    if ((cpu->cr4 & RC_CR4_PAE) && load_pdptes(cpu, value, pdpte) != RC_OK)
        return RC_FAULT;
    cpu->cr3 = value;
    spt_set_cr3(cpu->spt, value, pdpte);
    return RC_OK;
}

/* Write CR0 and CR4 together with what they entail. */
static enum rc_result paging_bits_load(struct rc_cpu *cpu, uint32_t cr0, uint32_t cr4, bool reload_pdptes)
{
    uint64_t pdpte[4];
    const bool pae = (cr0 & RC_CR0_PG) && (cr4 & RC_CR4_PAE) && reload_pdptes;

    if (pae && load_pdptes(cpu, cpu->cr3, pdpte) != RC_OK)
        return RC_FAULT;
    cpu->cr0 = cr0;
    cpu->cr4 = cr4;
    rc_xstate_changed(cpu);
    rc_paging_changed(cpu, pae ? pdpte : NULL);
    return RC_OK;
}

/* ---- CR0, CR4 ---- */

static enum rc_result load_cr0(struct rc_cpu *cpu, uint32_t value)
{
    const uint32_t known = RC_CR0_PE | RC_CR0_MP | RC_CR0_EM | RC_CR0_TS | RC_CR0_NE | RC_CR0_WP | RC_CR0_AM |
                           RC_CR0_NW | RC_CR0_CD | RC_CR0_PG;
    const uint32_t reloads = RC_CR0_PG | RC_CR0_CD | RC_CR0_NW;

    value = (value & known) | RC_CR0_ET;
    if ((value & RC_CR0_PG) && !(value & RC_CR0_PE))
        return rc_raise_error(cpu, RC_GP, 0);
    if ((value & RC_CR0_NW) && !(value & RC_CR0_CD))
        return rc_raise_error(cpu, RC_GP, 0);

    const uint32_t changed = value ^ cpu->cr0;
    if (changed & (reloads | RC_CR0_PE | RC_CR0_WP))
        return paging_bits_load(cpu, value, cpu->cr4, changed & reloads);
    cpu->cr0 = value; /* TS and kin, at every other context switch: nothing for paging */
    return RC_OK;
}

/* CR4 bits exist when CPUID says so (2.5); all others fault. */
static uint32_t known_cr4(const struct rc_cpu *cpu)
{
    static const struct {
        uint32_t feature, cr4;
    } map[] = {
        {RC_F1_EDX_TSC, RC_CR4_TSD},     {RC_F1_EDX_DE, RC_CR4_DE},          {RC_F1_EDX_PSE, RC_CR4_PSE},
        {RC_F1_EDX_PAE, RC_CR4_PAE},     {RC_F1_EDX_MCE, RC_CR4_MCE},        {RC_F1_EDX_PGE, RC_CR4_PGE},
        {RC_F1_EDX_FXSR, RC_CR4_OSFXSR}, {RC_F1_EDX_SSE, RC_CR4_OSXMMEXCPT},
    };
    uint32_t known = RC_CR4_PCE | (cpu->config.feature_ecx & RC_F1_ECX_XSAVE ? RC_CR4_OSXSAVE : 0);
    for (unsigned i = 0; i < sizeof map / sizeof *map; i++)
        known |= cpu->config.feature_edx & map[i].feature ? map[i].cr4 : 0;
    return known;
}

static enum rc_result load_cr4(struct rc_cpu *cpu, uint32_t value)
{
    const uint32_t flushes = RC_CR4_PAE | RC_CR4_PSE | RC_CR4_PGE;

    if (value & ~known_cr4(cpu))
        return rc_raise_error(cpu, RC_GP, 0);
    if ((value ^ cpu->cr4) & flushes)
        return paging_bits_load(cpu, cpu->cr0, value, true);
    cpu->cr4 = value;
    rc_xstate_changed(cpu);
    return RC_OK;
}

enum rc_result rc_mov_from_cr(struct rc_cpu *cpu, unsigned n, uint32_t *value)
{
    if (n > 4 || n == 1)
        return rc_raise(cpu, RC_UD);
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    *value = n == 0 ? cpu->cr0 : n == 2 ? cpu->cr2 : n == 3 ? cpu->cr3 : cpu->cr4;
    return RC_OK;
}

enum rc_result rc_mov_to_cr(struct rc_cpu *cpu, unsigned n, uint32_t value)
{
    if (n > 4 || n == 1)
        return rc_raise(cpu, RC_UD);
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    switch (n) {
    case 0:
        return load_cr0(cpu, value);
    case 2:
        cpu->cr2 = value;
        return RC_OK;
    case 3:
        return rc_cr3_load(cpu, value);
    default:
        return load_cr4(cpu, value);
    }
}

enum rc_result rc_lmsw(struct rc_cpu *cpu, uint16_t value)
{
    const uint32_t bits = RC_CR0_PE | RC_CR0_MP | RC_CR0_EM | RC_CR0_TS;
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    /* LMSW can set PE, not clear it. */
    return load_cr0(cpu, (cpu->cr0 & (~bits | RC_CR0_PE)) | (value & bits));
}

enum rc_result rc_clts(struct rc_cpu *cpu)
{
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    cpu->cr0 &= ~(uint32_t)RC_CR0_TS;
    return RC_OK;
}

/* ---- Debug registers (17.2) ---- */

/* DR4 and DR5 are other names of DR6 and DR7 until CR4.DE; DR7.GD guards them all. */
static enum rc_result check_dr(struct rc_cpu *cpu, unsigned *n)
{
    if (*n > 7 || ((*n == 4 || *n == 5) && (cpu->cr4 & RC_CR4_DE)))
        return rc_raise(cpu, RC_UD);
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    if (cpu->dr[7] & 1 << 13) {
        rc_raise(cpu, RC_DB);
        cpu->fault.dr6 = 1 << 13; /* BD */
        return RC_FAULT;
    }
    *n |= *n & 4 ? 2 : 0;
    return RC_OK;
}

enum rc_result rc_mov_from_dr(struct rc_cpu *cpu, unsigned n, uint32_t *value)
{
    if (check_dr(cpu, &n) != RC_OK)
        return RC_FAULT;
    *value = cpu->dr[n];
    return RC_OK;
}

enum rc_result rc_mov_to_dr(struct rc_cpu *cpu, unsigned n, uint32_t value)
{
    if (check_dr(cpu, &n) != RC_OK)
        return RC_FAULT;
    if (n == 6)
        value = (value & 0xe00f) | 0xffff0ff0;
    if (n == 7)
        value = (value & 0xffff23ff) | 0x400;
    cpu->dr[n] = value;
    return RC_OK;
}

/* ---- Table registers ---- */

static enum rc_result load_table(struct rc_cpu *cpu, struct rc_table *table, uint32_t base, uint16_t limit)
{
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    table->base = base;
    table->limit = limit;
    return RC_OK;
}

enum rc_result rc_lgdt(struct rc_cpu *cpu, uint32_t base, uint16_t limit)
{
    return load_table(cpu, &cpu->gdtr, base, limit);
}

enum rc_result rc_lidt(struct rc_cpu *cpu, uint32_t base, uint16_t limit)
{
    return load_table(cpu, &cpu->idtr, base, limit);
}

/* A system descriptor in the GDT for LLDT or LTR. */
static enum rc_result read_system(struct rc_cpu *cpu, uint16_t sel, unsigned type, struct rc_desc *d)
{
    if (sel & 4)
        return rc_raise_selector(cpu, RC_GP, sel, 0);
    if (rc_desc_read(cpu, sel, RC_GP, 0, d) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(d);
    const unsigned found = rc_attr_type(attr) & ~(type == RC_TYPE_TSS16 ? (unsigned)RC_TYPE_IS32 : 0);
    if (found != type)
        return rc_raise_selector(cpu, RC_GP, sel, 0);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_NP, sel, 0);
    return RC_OK;
}

enum rc_result rc_lldt(struct rc_cpu *cpu, uint16_t sel)
{
    struct rc_desc d;
    if (!rc_is_protected(cpu))
        return rc_raise(cpu, RC_UD);
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    if (rc_is_null(sel)) {
        rc_seg_null(cpu, RC_LDTR, sel);
        return RC_OK;
    }
    if (read_system(cpu, sel, RC_TYPE_LDT, &d) != RC_OK)
        return RC_FAULT;
    rc_seg_fill(cpu, RC_LDTR, sel, &d);
    return RC_OK;
}

enum rc_result rc_ltr(struct rc_cpu *cpu, uint16_t sel)
{
    struct spt_info info;
    struct rc_desc d;

    if (!rc_is_protected(cpu))
        return rc_raise(cpu, RC_UD);
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    if (rc_is_null(sel))
        return rc_raise_error(cpu, RC_GP, 0);
    if (read_system(cpu, sel, RC_TYPE_TSS16, &d) != RC_OK)
        return RC_FAULT;
    d.hi |= RC_TYPE_BUSY << 8;
    const uint8_t byte = (uint8_t)(d.hi >> 8);
    if (!spt_write(cpu->spt, d.lin + 5, &byte, 1, SPT_READ, &info))
        return rc_raise_pf(cpu, &info);
    rc_seg_fill(cpu, RC_TR, sel, &d);
    return RC_OK;
}

/* ---- The rest of ring 0's own ---- */

enum rc_result rc_invlpg(struct rc_cpu *cpu, uint32_t lin)
{
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    spt_invlpg(cpu->spt, lin);
    return RC_OK;
}

enum rc_result rc_invd(struct rc_cpu *cpu)
{
    return require_cpl0(cpu); /* the host's caches are coherent: there is nothing to lose or write back */
}

enum rc_result rc_hlt(struct rc_cpu *cpu)
{
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    cpu->halted = 1;
    return RC_OK;
}

/* ---- x87, MMX and SSE (2.5, tables 12-1 and 13-1) ---- */

enum rc_result rc_check_x87(struct rc_cpu *cpu, bool is_wait)
{
    const uint32_t wait_bits = RC_CR0_MP | RC_CR0_TS;
    if (is_wait ? (cpu->cr0 & wait_bits) == wait_bits : cpu->cr0 & (RC_CR0_EM | RC_CR0_TS))
        return rc_raise(cpu, RC_NM);
    return RC_OK;
}

enum rc_result rc_check_sse(struct rc_cpu *cpu, bool is_mmx)
{
    if ((cpu->cr0 & RC_CR0_EM) || (!is_mmx && !(cpu->cr4 & RC_CR4_OSFXSR)))
        return rc_raise(cpu, RC_UD);
    if (cpu->cr0 & RC_CR0_TS)
        return rc_raise(cpu, RC_NM);
    return RC_OK;
}

/* ---- XSAVE's control register, and what depends on it (vol. 1 13.3) ---- */

void rc_xstate_changed(struct rc_cpu *cpu)
{
    const uint32_t ymm = RC_XCR0_SSE | RC_XCR0_AVX;
    cpu->avx = (cpu->cr4 & RC_CR4_OSXSAVE) && (cpu->xcr0 & ymm) == ymm;
}

enum rc_result rc_check_xsave(struct rc_cpu *cpu)
{
    if (!(cpu->cr4 & RC_CR4_OSXSAVE))
        return rc_raise(cpu, RC_UD);
    return cpu->cr0 & RC_CR0_TS ? rc_raise(cpu, RC_NM) : RC_OK;
}

/* VEX does not exist in real and V86 mode. CR0.EM does not matter to it. */
enum rc_result rc_check_avx(struct rc_cpu *cpu)
{
    if (!cpu->avx || !rc_is_protected(cpu))
        return rc_raise(cpu, RC_UD);
    return cpu->cr0 & RC_CR0_TS ? rc_raise(cpu, RC_NM) : RC_OK;
}

enum rc_result rc_xgetbv(struct rc_cpu *cpu)
{
    if (!(cpu->cr4 & RC_CR4_OSXSAVE))
        return rc_raise(cpu, RC_UD);
    if (cpu->gpr[RC_ECX]) /* XGETBV of 1 is a feature of its own (leaf 0Dh), not offered */
        return rc_raise_error(cpu, RC_GP, 0);
    cpu->gpr[RC_EAX] = cpu->xcr0;
    cpu->gpr[RC_EDX] = 0;
    return RC_OK;
}

uint32_t rc_xcr0_known(const struct rc_cpu *cpu)
{
    return RC_XCR0_X87 | RC_XCR0_SSE | (rc_has_avx(&cpu->config) ? RC_XCR0_AVX : 0);
}

/* x87 cannot be taken out, and AVX needs SSE (vol. 2 XSETBV). */
enum rc_result rc_xsetbv(struct rc_cpu *cpu)
{
    const uint32_t value = cpu->gpr[RC_EAX];
    if (!(cpu->cr4 & RC_CR4_OSXSAVE))
        return rc_raise(cpu, RC_UD);
    if (require_cpl0(cpu) != RC_OK)
        return RC_FAULT;
    if (cpu->gpr[RC_ECX] || cpu->gpr[RC_EDX] || (value & ~rc_xcr0_known(cpu)) || !(value & RC_XCR0_X87) ||
        ((value & RC_XCR0_AVX) && !(value & RC_XCR0_SSE)))
        return rc_raise_error(cpu, RC_GP, 0);
    cpu->xcr0 = value;
    rc_xstate_changed(cpu);
    return RC_OK;
}

/* ---- Port I/O (vol. 1, 18.5) ---- */

enum rc_result rc_check_io(struct rc_cpu *cpu, uint16_t port, unsigned size)
{
    enum { MAP_BASE = 0x66, MIN_LIMIT = 0x67 };
    const struct rc_seg *tr = &cpu->seg[RC_TR];
    struct spt_info info;
    uint16_t map, bits;

    if (!(cpu->cr0 & RC_CR0_PE) || (cpu->cpl <= rc_iopl(cpu) && !rc_is_v86(cpu)))
        return RC_OK;
    if (!(tr->attr & RC_ATTR_P) || !(tr->attr & RC_TYPE_IS32) || tr->limit < MIN_LIMIT)
        return rc_raise_error(cpu, RC_GP, 0);
    if (!spt_read(cpu->spt, tr->base + MAP_BASE, &map, 2, SPT_READ, &info))
        return rc_raise_pf(cpu, &info);
    /* The CPU always reads two bytes, so the map must be followed by one more. */
    const uint32_t at = map + port / 8u;
    if (at + 1 > tr->limit)
        return rc_raise_error(cpu, RC_GP, 0);
    if (!spt_read(cpu->spt, tr->base + at, &bits, 2, SPT_READ, &info))
        return rc_raise_pf(cpu, &info);
    if (bits >> (port & 7) & ((1u << size) - 1))
        return rc_raise_error(cpu, RC_GP, 0);
    return RC_OK;
}
