/* A vCPU on two MiB of RAM with tables written by hand, for the tests of ringcomp. Paging is off unless a
 * test turns it on, so linear addresses are offsets in RAM. Expected values come from the SDM. */
#ifndef TEST_RINGCOMP_RIG_H
#define TEST_RINGCOMP_RIG_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include "ringcomp/ringcomp.h"

/* Where things lie. */
enum { GDT = 0x1000, IDT = 0x2000, TSS = 0x3000, TSS_B = 0x3800, LDT = 0x4000, PD = 0x80000, PT = 0x81000 };
enum { GDT_LIMIT = 0xff, KSTACK = 0xa000, USTACK = 0xc000 };
/* Selectors. */
enum {
    KCODE = 0x08,
    KDATA = 0x10,
    UCODE = 0x1b,
    UDATA = 0x23,
    TSS_SEL = 0x28,
    LDT_SEL = 0x30,
    TSS_B_SEL = 0x38,
    SLOT = 0x40, /* the test's own */
    SLOT2 = 0x48,
    SLOT3 = 0x50
};
enum { FLAT_LIMIT = 0xfffff, G32 = 0xc, G0 = 0, D32 = 4 }; /* descriptor flags: G and D */

struct rig {
    struct host_ram ram;
    struct host_counts counts;
    struct spt *spt;
    struct rc_cpu cpu, before;
    uint64_t now;
};

static uint64_t rig_mmio_read(void *ctx, uint64_t gpa, unsigned len)
{
    (void)ctx, (void)gpa, (void)len;
    return UINT64_MAX;
}
static void rig_mmio_write(void *ctx, uint64_t gpa, unsigned len, uint64_t value)
{
    (void)ctx, (void)gpa, (void)len, (void)value;
}
static void rig_code_write(void *ctx, uint64_t gpa, unsigned len)
{
    (void)ctx, (void)gpa, (void)len;
}
static void rig_fetch_gone(void *ctx, unsigned space, uint32_t gva, uint32_t pages)
{
    (void)ctx, (void)space, (void)gva, (void)pages;
}
static uint64_t rig_tsc(void *ctx)
{
    return ((struct rig *)ctx)->now;
}

/* ---- Memory ---- */

static inline void put8(struct rig *r, uint32_t at, uint8_t v)
{
    r->ram.base[at] = v;
}
static inline void put16(struct rig *r, uint32_t at, uint16_t v)
{
    memcpy(r->ram.base + at, &v, 2);
}
static inline void put32(struct rig *r, uint32_t at, uint32_t v)
{
    memcpy(r->ram.base + at, &v, 4);
}
static inline uint8_t get8(const struct rig *r, uint32_t at)
{
    return r->ram.base[at];
}
static inline uint16_t get16(const struct rig *r, uint32_t at)
{
    uint16_t v;
    memcpy(&v, r->ram.base + at, 2);
    return v;
}
static inline uint32_t get32(const struct rig *r, uint32_t at)
{
    uint32_t v;
    memcpy(&v, r->ram.base + at, 4);
    return v;
}

/* Figure 3-8. limit: the 20 bits as stored; flags: bits 55:52. */
static inline void put_desc(struct rig *r, uint32_t at, uint32_t base, uint32_t limit, uint8_t access,
                            unsigned flags)
{
    put32(r, at, (limit & 0xffff) | base << 16);
    put32(r, at + 4,
          (base >> 16 & 0xff) | (uint32_t)access << 8 | (limit & 0xf0000) | flags << 20 |
              (base & 0xff000000));
}
static inline void gdt(struct rig *r, uint16_t sel, uint32_t base, uint32_t limit, uint8_t access,
                       unsigned flags)
{
    put_desc(r, GDT + (sel & 0xfff8u), base, limit, access, flags);
}
/* Figure 6-2; call gates (figure 5-8) have the same shape, with a parameter count. */
static inline void put_gate(struct rig *r, uint32_t at, uint16_t sel, uint32_t offset, uint8_t access,
                            unsigned count)
{
    put32(r, at, (uint32_t)sel << 16 | (offset & 0xffff));
    put32(r, at + 4, (offset & 0xffff0000) | (uint32_t)access << 8 | count);
}
static inline void idt(struct rig *r, unsigned vector, uint16_t sel, uint32_t offset, uint8_t access)
{
    put_gate(r, IDT + 8 * vector, sel, offset, access, 0);
}
static inline uint8_t access_byte(const struct rig *r, uint16_t sel)
{
    return get8(r, GDT + (sel & 0xfff8u) + 5);
}

/* ---- The machine ---- */

/* Handlers of exceptions lie at 0xE000 + 0x10 * vector, through 32-bit interrupt gates of DPL 0. */
static inline uint32_t handler(unsigned vector)
{
    return 0xe000 + 0x10 * vector;
}

static inline void rig_tables(struct rig *r)
{
    gdt(r, KCODE, 0, FLAT_LIMIT, 0x9b, G32);
    gdt(r, KDATA, 0, FLAT_LIMIT, 0x93, G32);
    gdt(r, UCODE, 0, FLAT_LIMIT, 0xfb, G32);
    gdt(r, UDATA, 0, FLAT_LIMIT, 0xf3, G32);
    gdt(r, TSS_SEL, TSS, 0x67, 0x89, G0);
    gdt(r, LDT_SEL, LDT, 0x1f, 0x82, G0);
    gdt(r, TSS_B_SEL, TSS_B, 0x67, 0x89, G0);
    put32(r, TSS + 4, KSTACK);
    put32(r, TSS + 8, KDATA);
    for (unsigned v = 0; v < 32; v++)
        idt(r, v, KCODE, handler(v), 0x8e);
}

static inline int rig_setup(void **state)
{
    static struct rig storage; /* cmocka runs one test at a time */
    struct rig *r = &storage;
    struct host_err err = {""};
    struct rc_config config;

    memset(r, 0, sizeof *r);
    if (host_ram_init(&r->ram, 2 << 20, &err))
        fail_msg("%s", err.text);
    const struct spt_config cfg = {
        .ram = &r->ram,
        .counts = &r->counts,
        .ops = {.ctx = r,
                .mmio_read = rig_mmio_read,
                .mmio_write = rig_mmio_write,
                .code_write = rig_code_write,
                .fetch_gone = rig_fetch_gone},
        .max_user_spaces = 2,
        .max_maps = 100,
        .no_windows = true,
    };
    if (spt_create(&r->spt, &cfg, &err))
        fail_msg("%s", err.text);
    rc_config_host(&config);
    rc_cpu_init(&r->cpu, r->spt, &config, &(struct rc_ops){r, rig_tsc});
    rc_cpu_flat(&r->cpu, KCODE, KDATA);
    rig_tables(r);
    r->cpu.gdtr = (struct rc_table){GDT, GDT_LIMIT};
    r->cpu.idtr = (struct rc_table){IDT, 0x7ff};
    r->cpu.gpr[RC_ESP] = 0x9000;
    r->cpu.eip = 0x7000;
    if (rc_ltr(&r->cpu, TSS_SEL) != RC_OK)
        fail_msg("LTR");
    *state = r;
    return 0;
}

static inline int rig_teardown(void **state)
{
    struct rig *r = *state;
    spt_destroy(r->spt);
    host_ram_finish(&r->ram);
    return 0;
}

/* Hidden part by hand; D/B and G come with attr. */
static inline void set_seg(struct rig *r, unsigned seg, uint16_t sel, uint32_t base, uint32_t limit,
                           uint16_t attr)
{
    const bool odd = (attr & 0x9e) != 0x92 || limit != UINT32_MAX;
    r->cpu.seg[seg] = (struct rc_seg){
        .base = base,
        .limit = limit,
        .selector = sel,
        .attr = attr,
        .soft = base | (odd ? RC_SOFT_ODD << 32 : 0),
    };
}

/* Flat segments of any ring, as if loaded. */
static inline void go_ring(struct rig *r, unsigned cpl, uint16_t cs, uint16_t ss)
{
    const uint16_t dpl = (uint16_t)(cpl << 5);
    r->cpu.cpl = (uint8_t)cpl;
    set_seg(r, RC_CS, cs, 0, UINT32_MAX, 0xc09b | dpl);
    set_seg(r, RC_SS, ss, 0, UINT32_MAX, 0xc093 | dpl);
}
static inline void go_user(struct rig *r)
{
    go_ring(r, 3, UCODE, UDATA);
    for (unsigned seg = RC_DS; seg <= RC_GS; seg++)
        set_seg(r, seg, UDATA, 0, UINT32_MAX, 0xc0f3);
    set_seg(r, RC_ES, UDATA, 0, UINT32_MAX, 0xc0f3);
    r->cpu.gpr[RC_ESP] = USTACK;
}
static inline void go_v86(struct rig *r, unsigned iopl)
{
    rc_set_eflags(&r->cpu, RC_VM | iopl << 12 | RC_IF);
    r->cpu.cpl = 3;
    for (unsigned seg = RC_ES; seg <= RC_GS; seg++)
        set_seg(r, seg, (uint16_t)(0x100 * (seg + 1)), 0x1000 * (seg + 1), 0xffff, 0xf3);
    r->cpu.gpr[RC_ESP] = 0xfff0;
}

/* Identity-map all of RAM, user and writable; page, if not 0, stays not present. */
static inline void go_paged(struct rig *r, uint32_t absent_page)
{
    put32(r, PD, PT | 7);
    for (uint32_t i = 0; i < 512; i++)
        put32(r, PT + 4 * i, absent_page && i == absent_page >> 12 ? 0 : i << 12 | 7);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 3, PD), RC_OK);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 0, RC_CR0_PE | RC_CR0_PG | RC_CR0_WP | RC_CR0_ET), RC_OK);
}

/* ---- Expectations ---- */

static inline void remember(struct rig *r)
{
    memcpy(&r->before, &r->cpu, sizeof r->cpu);
}

/* RC_FAULT must leave everything but the fault and the counters as remembered. */
static inline void check_unchanged(struct rig *r)
{
    r->before.fault = r->cpu.fault;
    memcpy(r->before.exceptions, r->cpu.exceptions, sizeof r->cpu.exceptions);
    r->before.irets = r->cpu.irets;
    r->before.software_ints = r->cpu.software_ints;
    assert_memory_equal(&r->before, &r->cpu, sizeof r->cpu);
}
static inline void check_fault(struct rig *r, enum rc_result result, unsigned vector, uint32_t error)
{
    assert_int_equal(result, RC_FAULT);
    assert_int_equal(r->cpu.fault.vector, vector);
    assert_true(r->cpu.fault.has_error);
    assert_int_equal(r->cpu.fault.error, error);
    check_unchanged(r);
}
static inline void check_plain_fault(struct rig *r, enum rc_result result, unsigned vector)
{
    assert_int_equal(result, RC_FAULT);
    assert_int_equal(r->cpu.fault.vector, vector);
    assert_false(r->cpu.fault.has_error);
    check_unchanged(r);
}

#define rig_test(fn) cmocka_unit_test_setup_teardown(fn, rig_setup, rig_teardown)

#endif
