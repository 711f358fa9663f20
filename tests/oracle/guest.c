/*
 * A guest that is all user mode: page tables that map the sequences' world one to one, an IDT whose every handler
 * is a HLT, and nothing else. A sequence ends by INT 80h or by a fault; either way the frame on the kernel's
 * stack is the result.
 */
#include <string.h>
#include "oracle.h"

enum {
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    PDPT = 0x4000,
    PD = 0x5000,
    PT = 0x10000,      /* sixteen page tables: 32 MiB */
    HANDLERS = 0x8000, /* + 16 * vector */
    STACK_TOP = 0xf000,
    SEL_CODE = 0x08,
    SEL_DATA = 0x10,
    SEL_UCODE = 0x1b,
    SEL_UDATA = 0x23,
    SEL_GS = 0x2b,
    SEL_TSS = 0x30,
};
#define NX (UINT64_C(1) << 63)

enum oracle_page oracle_page_kind(unsigned page)
{
    static const uint8_t kind[ORACLE_PAGES] = {ORACLE_RW,         ORACLE_RW,   ORACLE_RO,
                                               ORACLE_RW,         ORACLE_NONE, ORACLE_RW,
                                               ORACLE_SUPERVISOR, ORACLE_RW,   ORACLE_NONE};
    return page < ORACLE_PAGES ? (enum oracle_page)kind[page] : ORACLE_NONE;
}

bool oracle_is_supervisor(uint32_t lin)
{
    return lin < 0x100000 || (lin >= ORACLE_DATA && lin < ORACLE_DATA + ORACLE_DATA_SIZE &&
                              oracle_page_kind((lin - ORACLE_DATA) / HOST_PAGE) == ORACLE_SUPERVISOR);
}

/* ---- tables in guest memory ---- */

static void put64(struct oracle_guest *g, uint32_t at, uint64_t v)
{
    memcpy(g->ram.base + at, &v, 8);
}

static void put32(struct oracle_guest *g, uint32_t at, uint32_t v)
{
    memcpy(g->ram.base + at, &v, 4);
}

static uint64_t page_entry(uint32_t lin)
{
    enum { PRESENT = 1, WRITABLE = 2, USER = 4, ACCESSED = 0x20, DIRTY = 0x40 };
    uint32_t page = (lin - ORACLE_DATA) / HOST_PAGE;
    if (lin < 0x100000)
        return lin | PRESENT | WRITABLE | ACCESSED | DIRTY;
    if ((lin >= ORACLE_CODE && lin < ORACLE_CODE + ORACLE_CODE_SIZE) || lin == ORACLE_EXIT)
        return lin | PRESENT | USER | ACCESSED;
    if (lin < ORACLE_DATA || lin >= ORACLE_DATA + ORACLE_DATA_SIZE)
        return 0;
    switch (oracle_page_kind(page)) {
    case ORACLE_RW:
        return lin | PRESENT | WRITABLE | USER | ACCESSED | DIRTY | NX;
    case ORACLE_RO:
        return lin | PRESENT | USER | ACCESSED | NX;
    case ORACLE_SUPERVISOR:
        return lin | PRESENT | WRITABLE | ACCESSED | DIRTY | NX;
    default:
        return 0;
    }
}

static void descriptor(struct oracle_guest *g, unsigned sel, uint32_t base, uint32_t limit, unsigned access,
                       unsigned flags)
{
    put64(g, GDT + (sel & ~7u),
          (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
              (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56);
}

/* As a host's kernel has it: INT3, INTO and the system call are open to programs, other vectors are not. */
static void gate(struct oracle_guest *g, unsigned vector)
{
    uint32_t target = HANDLERS + 16 * vector;
    bool open = vector == RC_BP || vector == RC_OF_TRAP || vector == ORACLE_ENDED;
    put32(g, IDT + 8 * vector, (target & 0xffff) | SEL_CODE << 16);
    put32(g, IDT + 8 * vector + 4, (target & 0xffff0000) | (open ? 0xee00 : 0x8e00));
    g->ram.base[target] = 0xf4; /* hlt */
}

static void tables(struct oracle_guest *g)
{
    descriptor(g, SEL_CODE, 0, 0xfffff, 0x9b, 0xc);
    descriptor(g, SEL_DATA, 0, 0xfffff, 0x93, 0xc);
    descriptor(g, SEL_UCODE, 0, 0xfffff, 0xfb, 0xc);
    descriptor(g, SEL_UDATA, 0, 0xfffff, 0xf3, 0xc);
    descriptor(g, SEL_GS, ORACLE_DATA, 0xfffff, 0xf3, 0xc);
    descriptor(g, SEL_TSS, TSS, 0x67, 0x89, 0);
    for (unsigned v = 0; v < 256; v++)
        gate(g, v);
    put32(g, TSS + 4, STACK_TOP);
    put32(g, TSS + 8, SEL_DATA);
    put32(g, TSS + 0x64, 0x680000); /* no I/O bitmap */
    memset(g->ram.base + ORACLE_CODE, 0xf4, ORACLE_CODE_SIZE);
    put64(g, PDPT, PD | 1);
    for (uint32_t n = 0; n < ORACLE_RAM >> 21; n++)
        put64(g, PD + 8 * n, (PT + n * HOST_PAGE) | 0x27);
    for (uint32_t n = 0; n < ORACLE_RAM / HOST_PAGE; n++)
        put64(g, PT + 8 * n, page_entry(n * HOST_PAGE));
    static const uint8_t exit_code[] = {0xcd, ORACLE_ENDED}; /* int 80h */
    memcpy(g->ram.base + ORACLE_EXIT, exit_code, sizeof exit_code);
}

/* ---- the machine around it: there is none ---- */

static uint64_t no_mmio_read(void *ctx, uint64_t gpa, unsigned len)
{
    (void)ctx, (void)gpa, (void)len;
    return UINT64_MAX;
}

static void no_mmio_write(void *ctx, uint64_t gpa, unsigned len, uint64_t value)
{
    (void)ctx, (void)gpa, (void)len, (void)value;
}

static uint32_t no_in(void *ctx, uint16_t port, unsigned size)
{
    (void)ctx, (void)port, (void)size;
    return UINT32_MAX;
}

static void no_out(void *ctx, uint16_t port, unsigned size, uint32_t value)
{
    (void)ctx, (void)port, (void)size, (void)value;
}

static bool no_intr(void *ctx)
{
    (void)ctx;
    return false;
}

static uint8_t no_intack(void *ctx)
{
    (void)ctx;
    return 0;
}

static bool wrmsr_nxe(struct rc_cpu *cpu)
{
    cpu->gpr[RC_ECX] = 0xc0000080;
    cpu->gpr[RC_EDX] = 0;
    cpu->gpr[RC_EAX] = 1 << 11;
    return rc_wrmsr(cpu) == RC_OK;
}

static bool enable_avx(struct rc_cpu *cpu)
{
    cpu->gpr[RC_ECX] = cpu->gpr[RC_EDX] = 0;
    cpu->gpr[RC_EAX] = RC_XCR0_X87 | RC_XCR0_SSE | RC_XCR0_AVX;
    return rc_mov_to_cr(cpu, 4, cpu->cr4 | RC_CR4_OSXSAVE) == RC_OK && rc_xsetbv(cpu) == RC_OK;
}

/* Into protected mode with paging, then to ring 3 by IRET, as a kernel does it; the segments are kept. */
static bool to_user(struct oracle_guest *g)
{
    struct rc_cpu *cpu = bt_cpu(g->v);
    static const uint32_t frame[5] = {ORACLE_CODE, SEL_UCODE, 0x202, ORACLE_DATA, SEL_UDATA};
    static const struct {
        uint8_t seg;
        uint16_t sel;
    } data[] = {{RC_DS, SEL_UDATA}, {RC_ES, SEL_UDATA}, {RC_FS, 0}, {RC_GS, SEL_GS}};
    rc_cpu_flat(cpu, SEL_CODE, SEL_DATA);
    bool ok = rc_lgdt(cpu, GDT, 0x37) == RC_OK && rc_lidt(cpu, IDT, 0x7ff) == RC_OK &&
              rc_ltr(cpu, SEL_TSS) == RC_OK && wrmsr_nxe(cpu) &&
              rc_mov_to_cr(cpu, 4, RC_CR4_PAE | RC_CR4_OSFXSR | RC_CR4_OSXMMEXCPT) == RC_OK &&
              rc_mov_to_cr(cpu, 3, PDPT) == RC_OK &&
              rc_mov_to_cr(cpu, 0, cpu->cr0 | RC_CR0_PG | RC_CR0_WP | RC_CR0_NE) == RC_OK;
    if (rc_has_avx(&cpu->config))
        ok = ok && enable_avx(cpu);
    cpu->gpr[RC_ESP] = STACK_TOP - sizeof frame;
    memcpy(g->ram.base + cpu->gpr[RC_ESP], frame, sizeof frame);
    ok = ok && rc_iret(cpu, 4, 0) == RC_OK;
    for (unsigned k = 0; k < sizeof data / sizeof *data; k++)
        ok = ok && rc_load_seg(cpu, data[k].seg, data[k].sel) == RC_OK;
    memcpy(g->seg, cpu->seg, sizeof g->seg);
    return ok && cpu->cpl == 3;
}

int oracle_guest_create(struct oracle_guest *g, enum bt_engine engine, bool verify, struct host_err *err)
{
    struct bt_config cfg = {
        .engine = engine,
        .ram = &g->ram,
        .counts = &g->counts,
        .clock = &g->clock,
        .ops = {.ctx = g, .in = no_in, .out = no_out, .intr = no_intr, .intack = no_intack},
        .mem = {.ctx = g, .mmio_read = no_mmio_read, .mmio_write = no_mmio_write},
        .max_user_spaces = 4,
        .verify = verify,
    };
    host_clock_init(&g->clock, true);
    rc_config_host(&cfg.cpu);
    if (host_ram_init(&g->ram, ORACLE_RAM, err))
        return -1;
    tables(g);
    if (bt_create(&g->v, &cfg, err))
        return -1;
    return to_user(g) ? 0 : host_fail(err, "the guest does not reach user mode");
}

void oracle_guest_destroy(struct oracle_guest *g)
{
    bt_destroy(g->v);
    host_ram_finish(&g->ram);
}

/* ---- one case ---- */

void oracle_guest_code(struct oracle_guest *g, uint32_t at, const uint8_t *code, unsigned len)
{
    spt_phys_write(bt_spt(g->v), at, code, len);
}

static void prepare(struct oracle_guest *g, const struct oracle_case *c)
{
    struct rc_cpu *cpu = bt_cpu(g->v);
    memcpy(cpu->seg, g->seg, sizeof cpu->seg);
    memcpy(cpu->gpr, c->gpr, sizeof cpu->gpr);
    memcpy(cpu->fpu, c->fpu, sizeof cpu->fpu);
    rc_set_eflags(cpu, c->eflags | RC_IF);
    cpu->cpl = 3;
    cpu->halted = cpu->irq_shadow = 0;
    cpu->cr2 = 0;
    cpu->eip = c->eip;
}

static void take(struct oracle_guest *g, struct oracle_result *r)
{
    const struct rc_cpu *cpu = bt_cpu(g->v);
    uint32_t frame[6];
    r->vector = (cpu->eip - 1 - HANDLERS) / 16;
    bool error = r->vector < 18 && (1u << r->vector & 0x27d00);
    memcpy(frame, g->ram.base + cpu->gpr[RC_ESP] % HOST_PAGE + (STACK_TOP - HOST_PAGE), sizeof frame);
    r->error = error ? frame[0] : 0;
    r->cr2 = r->vector == RC_PFAULT ? cpu->cr2 : 0;
    r->eip = frame[error];
    r->eflags = frame[error + 2];
    memcpy(r->gpr, cpu->gpr, sizeof r->gpr);
    r->gpr[RC_ESP] = frame[error + 3];
    memcpy(r->fpu, cpu->fpu, sizeof r->fpu);
}

void oracle_guest_run(struct oracle_guest *g, const struct oracle_case *c, uint64_t limit,
                      struct oracle_result *r)
{
    enum bt_exit exit;
    prepare(g, c);
    memset(r, 0, sizeof *r);
    do
        exit = bt_run(g->v, limit, NULL);
    while (exit == BT_EXIT_EVENT);
    if (exit == BT_EXIT_HALT) {
        take(g, r);
        return;
    }
    r->vector = exit == BT_EXIT_LIMIT ? ORACLE_ENDLESS : ORACLE_STOPPED;
    snprintf(r->why, sizeof r->why, "exit %d: %.200s", (int)exit, bt_reason(g->v));
}
