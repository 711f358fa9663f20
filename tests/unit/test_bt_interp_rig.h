/* A flat 32-bit machine for the interpreter's tests: 32 MiB of RAM, no paging unless a test turns it on, a
 * GDT with ring 0 and ring 3 segments, and an IDT whose every vector has a handler address of its own, so
 * that a test sees which exception was delivered by where EIP went. */
#ifndef TEST_BT_INTERP_RIG_H
#define TEST_BT_INTERP_RIG_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "interp.h"

enum {
    GDT = 0x1000,
    IDT = 0x2000,
    TSS = 0x3000,
    HANDLERS = 0x8000, /* + 16 * vector */
    CODE = 0x10000,
    STACK_TOP = 0x20000,
    DATA = 0x30000,
    SEL_CODE = 0x08,
    SEL_DATA = 0x10,
    SEL_UCODE = 0x1b,
    SEL_UDATA = 0x23,
    SEL_CODE16 = 0x28,
    SEL_DATA16 = 0x30,
    SEL_SMALL = 0x38, /* data of 256 bytes at DATA */
    SEL_TSS = 0x40,
    SEL_DOWN = 0x48, /* expand-down above offset FFF */
};

struct rig {
    struct host_ram ram;
    struct host_counts counts;
    struct spt *spt;
    struct rc_cpu cpu;
    struct bt_interp *in;
    struct host_thread thread;
    bool entered;
    uint32_t port_in[4], out_value;
    uint16_t out_port;
    unsigned outs, ins;
    bool (*trap)(struct rig *r, struct host_trap *t); /* before the interpreter's */
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
    struct rig *r = ctx;
    bt_interp_code_write(r->in, gpa, len);
    spt_untrace_code(r->spt, gpa);
}

static void rig_fetch_gone(void *ctx, unsigned space, uint32_t gva, uint32_t pages)
{
    struct rig *r = ctx;
    (void)space, (void)gva, (void)pages;
    if (r->in)
        bt_interp_fetch_gone(r->in);
}

static uint64_t rig_tsc(void *ctx)
{
    (void)ctx;
    return 0x123456789abcdef0;
}

static uint32_t rig_in(void *ctx, uint16_t port, unsigned size)
{
    struct rig *r = ctx;
    (void)size;
    r->ins++;
    return r->port_in[port & 3];
}

static void rig_out(void *ctx, uint16_t port, unsigned size, uint32_t value)
{
    struct rig *r = ctx;
    (void)size;
    r->outs++;
    r->out_port = port;
    r->out_value = value;
}

static bool rig_intr(void *ctx)
{
    (void)ctx;
    return false;
}

static uint8_t rig_intack(void *ctx)
{
    (void)ctx;
    return 0;
}

static bool rig_trap(void *ctx, struct host_trap *t)
{
    struct rig *r = ctx;
    if (r->trap && r->trap(r, t))
        return true;
    return bt_interp_trap(r->in, t);
}

static void rig_put(struct rig *r, uint32_t gpa, const void *bytes, unsigned len)
{
    assert_true(spt_phys_write(r->spt, gpa, bytes, len));
}

static inline uint32_t rig_get32(struct rig *r, uint32_t gpa)
{
    uint32_t v;
    memcpy(&v, r->ram.base + gpa, 4);
    return v;
}

static void rig_put32(struct rig *r, uint32_t gpa, uint32_t v)
{
    rig_put(r, gpa, &v, 4);
}

/* access: bits 40-47; flags: 52-55 */
static void rig_descriptor(struct rig *r, unsigned sel, uint32_t base, uint32_t limit, unsigned access,
                           unsigned flags)
{
    uint64_t d = (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
                 (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
    rig_put(r, GDT + (sel & ~7u), &d, 8);
}

static void rig_tables(struct rig *r)
{
    rig_descriptor(r, SEL_CODE, 0, 0xfffff, 0x9a, 0xc);
    rig_descriptor(r, SEL_DATA, 0, 0xfffff, 0x92, 0xc);
    rig_descriptor(r, SEL_UCODE, 0, 0xfffff, 0xfa, 0xc);
    rig_descriptor(r, SEL_UDATA, 0, 0xfffff, 0xf2, 0xc);
    rig_descriptor(r, SEL_CODE16, 0, 0xffff, 0x9a, 0);
    rig_descriptor(r, SEL_DATA16, 0, 0xffff, 0x92, 0);
    rig_descriptor(r, SEL_SMALL, DATA, 0xff, 0x92, 4);
    rig_descriptor(r, SEL_DOWN, 0, 0xfff, 0x96, 4);
    rig_descriptor(r, SEL_TSS, TSS, 0x67, 0x8b, 0);
    r->cpu.gdtr = (struct rc_table){GDT, 0x4f};
    for (unsigned v = 0; v < 256; v++) {
        uint32_t target = HANDLERS + 16 * v;
        uint32_t gate[2] = {(target & 0xffff) | SEL_CODE << 16, (target & 0xffff0000) | 0xee00};
        rig_put(r, IDT + 8 * v, gate, 8);
    }
    r->cpu.idtr = (struct rc_table){IDT, 0x7ff};
    rig_put32(r, TSS + 4, STACK_TOP + 0x8000); /* ESP0 */
    rig_put32(r, TSS + 8, SEL_DATA);
    rig_put32(r, TSS + 0x64, 0x680000); /* no I/O bitmap */
    r->cpu.seg[RC_TR] = (struct rc_seg){.base = TSS, .limit = 0x67, .selector = SEL_TSS, .attr = 0x8b};
}

/* Registers as every case begins. */
static void rig_reset(struct rig *r)
{
    rc_cpu_reset(&r->cpu);
    rc_cpu_flat(&r->cpu, SEL_CODE, SEL_DATA);
    rig_tables(r);
    memset(r->cpu.gpr, 0, sizeof r->cpu.gpr);
    r->cpu.gpr[RC_ESP] = STACK_TOP;
    r->cpu.eip = CODE;
    r->cpu.eflags = 2;
    r->cpu.cr0 |= RC_CR0_NE;
    r->cpu.cr4 |= RC_CR4_OSFXSR | RC_CR4_OSXMMEXCPT;
    r->outs = r->ins = 0;
}

static struct rig *rig_create(void)
{
    struct rig *r = aligned_alloc(64, (sizeof *r + 63) & ~(size_t)63);
    struct host_err err = {""};
    assert_non_null(r);
    memset(r, 0, sizeof *r);
    assert_int_equal(host_ram_init(&r->ram, 32u << 20, &err), 0);
    struct spt_config sc = {.ram = &r->ram,
                            .counts = &r->counts,
                            .ops = {.ctx = r,
                                    .mmio_read = rig_mmio_read,
                                    .mmio_write = rig_mmio_write,
                                    .code_write = rig_code_write,
                                    .fetch_gone = rig_fetch_gone},
                            .max_user_spaces = 4,
                            .max_maps = 1000,
                            .no_windows = true};
    assert_int_equal(spt_create(&r->spt, &sc, &err), 0);
    struct rc_config config;
    struct rc_ops rops = {r, rig_tsc};
    rc_config_host(&config);
    rc_cpu_init(&r->cpu, r->spt, &config, &rops);
    struct bt_ops ops = {r, rig_in, rig_out, rig_intr, rig_intack, NULL};
    assert_int_equal(bt_interp_create(&r->in, &r->cpu, &ops, &err), 0);
    rig_reset(r);
    return r;
}

/* Signal handlers in place. At the start of a test, not in its setup: cmocka installs its own around each. */
static inline void rig_enter(struct rig *r)
{
    struct host_err err = {""};
    if (r->entered)
        host_thread_leave(&r->thread);
    assert_int_equal(host_thread_enter(&r->thread, rig_trap, r, &r->counts, &err), 0);
    r->entered = true;
}

static void rig_destroy(struct rig *r)
{
    if (r->entered)
        host_thread_leave(&r->thread);
    bt_interp_destroy(r->in);
    spt_destroy(r->spt);
    host_ram_finish(&r->ram);
    free(r);
}

/* Execute one instruction given as hexadecimal digits. */
static inline enum bt_step rig_step(struct rig *r, const char *hex)
{
    uint8_t b[32];
    unsigned n = 0, v;
    for (const char *p = hex; *p; p += *p == ' ' ? 1 : 2)
        if (*p != ' ' && sscanf(p, "%2x", &v) == 1)
            b[n++] = (uint8_t)v;
    rig_put(r, r->cpu.seg[RC_CS].base + r->cpu.eip, b, n);
    return bt_interp_step(r->in);
}

/* The exception just delivered: EIP is at its handler. */
static inline int rig_vector(const struct rig *r)
{
    return r->cpu.eip >= HANDLERS && r->cpu.eip < HANDLERS + 16 * 256 ? (int)(r->cpu.eip - HANDLERS) / 16
                                                                      : -1;
}

static inline int rig_setup(void **state)
{
    *state = rig_create();
    return 0;
}

static inline int rig_teardown(void **state)
{
    rig_destroy(*state);
    return 0;
}

/* ---- Paging and rings ---- */
enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, NONE };
enum { NOT_PRESENT = 0x400000 }; /* with paging on, 4 MiB from here are absent */
enum { USER = 1, WATCH_EDI = 2 };

static inline void rig_paging_on(struct rig *r)
{
    for (uint32_t n = 0; n < 1024; n++)
        rig_put32(r, 0x5000 + 4 * n, n < 8 && n != NOT_PRESENT >> 22 ? n << 22 | 0xe7 : 0);
    rc_mov_to_cr(&r->cpu, 4, r->cpu.cr4 | RC_CR4_PSE);
    rc_mov_to_cr(&r->cpu, 3, 0x5000);
    rc_mov_to_cr(&r->cpu, 0, r->cpu.cr0 | RC_CR0_PG);
}

static inline void rig_user_mode(struct rig *r)
{
    static const unsigned data[] = {RC_DS, RC_ES, RC_SS};
    struct rc_cpu *cpu = &r->cpu;
    /* IRET to ring 3, as a kernel does it */
    uint32_t frame[5] = {CODE, SEL_UCODE, 2, STACK_TOP, SEL_UDATA};
    rig_put(r, STACK_TOP - 64, frame, sizeof frame);
    cpu->gpr[ESP] = STACK_TOP - 64;
    assert_int_equal(rig_step(r, "cf"), BT_STEP_OK);
    assert_int_equal(cpu->cpl, 3);
    for (unsigned n = 0; n < 2; n++)
        assert_int_equal(rc_load_seg(cpu, data[n], SEL_UDATA), RC_OK);
}

/* EAX = 0, EBX = NOT_PRESENT, ESI two bytes before it, EDX = 5, ECX = 100h, paging on, EIP at CODE + 40h */
static inline void rig_paged(struct rig *r, unsigned mode)
{
    static const uint32_t bounds[2] = {0, 4};
    rig_reset(r);
    rig_paging_on(r);
    rig_put(r, DATA, bounds, 8);
    if (mode & USER)
        rig_user_mode(r);
    memset(r->cpu.gpr, 0, 16);
    r->cpu.gpr[EBX] = NOT_PRESENT;
    r->cpu.gpr[ESI] = NOT_PRESENT - 2;
    r->cpu.gpr[EDX] = 5;
    r->cpu.gpr[ECX] = 0x100;
    r->cpu.gpr[ESP] = STACK_TOP - 16;
    r->cpu.gpr[EBP] = 0xbbbb;
    r->cpu.gpr[EDI] = DATA;
    if ((mode & WATCH_EDI) && !(mode & USER))
        r->cpu.gpr[EAX] = 0x5ff;
    if (mode & USER) { /* vector 80 for the kernel only */
        uint32_t gate[2] = {SEL_CODE << 16 | 0x8800, 0x8e00};
        rig_put(r, IDT + 8 * 0x80, gate, 8);
    }
    r->cpu.eip = CODE + 0x40; /* CODE itself may hold user_mode's IRET */
}

#endif
