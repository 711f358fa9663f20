/* What devmodel's unit tests share: a board on a virtual clock, and the monitor's side of it. */
#ifndef TEST_DEVMODEL_RIG_H
#define TEST_DEVMODEL_RIG_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include "devmodel/devmodel.h"

#define US  UINT64_C(1000)
#define MS  UINT64_C(1000000)
#define SEC UINT64_C(1000000000)

struct rig {
    struct host_ram ram;
    struct host_clock clock;
    struct host_loop *loop;
    struct dev_board *board;
    struct dev_bus *bus;
    unsigned intr_calls;
    bool intr, intr_repeated; /* repeated: told of a level it already had */
    unsigned events;
    enum dev_event event;
    uint32_t event_value;
};

static void rig_intr_changed(void *ctx, bool level)
{
    struct rig *r = ctx;
    r->intr_repeated |= level == r->intr;
    r->intr = level;
    r->intr_calls++;
}

static void rig_event(void *ctx, enum dev_event ev, uint32_t v)
{
    struct rig *r = ctx;
    r->events++;
    r->event = ev;
    r->event_value = v;
}

static struct dev_board_config rig_config(struct rig *r)
{
    return (struct dev_board_config){
        .ram = &r->ram,
        .loop = r->loop,
        .ops = {.ctx = r, .intr_changed = rig_intr_changed, .event = rig_event},
        .serial_count = 4,
        .debug_exit_port = 0xf4,
        .rtc_epoch = 1000000000, /* 2001-09-09 01:46:40 UTC, a Sunday */
    };
}

static void rig_host(struct rig *r, uint64_t ram_size)
{
    memset(r, 0, sizeof *r);
    struct host_err err = {""};
    if (host_ram_init(&r->ram, ram_size, &err))
        fail_msg("%s", err.text);
    host_clock_init(&r->clock, true);
    assert_int_equal(host_loop_create(&r->loop, &r->clock, NULL, &err), 0);
}

static void rig_board(struct rig *r, const struct dev_board_config *cfg)
{
    struct host_err err = {""};
    if (dev_board_create(&r->board, cfg, &err))
        fail_msg("%s", err.text);
    r->bus = dev_board_bus(r->board);
}

static void rig_finish(struct rig *r)
{
    dev_board_destroy(r->board);
    host_loop_destroy(r->loop);
    host_ram_finish(&r->ram);
}

static inline int rig_setup(void **state)
{
    struct rig *r = malloc(sizeof *r);
    assert_non_null(r);
    rig_host(r, 64 << 20);
    struct dev_board_config cfg = rig_config(r);
    rig_board(r, &cfg);
    *state = r;
    return 0;
}

static inline int rig_teardown(void **state)
{
    struct rig *r = *state;
    assert_false(r->intr_repeated);
    rig_finish(r);
    free(r);
    return 0;
}

static inline void outb(struct rig *r, uint16_t port, uint8_t v)
{
    dev_bus_out(r->bus, port, 1, v);
}

static inline uint8_t inb(struct rig *r, uint16_t port)
{
    return (uint8_t)dev_bus_in(r->bus, port, 1);
}

/* Let guest time pass, running what becomes due at its own moment, as a prompt host would. */
static inline void rig_pass(struct rig *r, uint64_t ns)
{
    uint64_t end = host_clock_ns(&r->clock) + ns;
    for (;;) {
        uint64_t at = host_loop_next_deadline(r->loop);
        if (at > end)
            break;
        uint64_t now = host_clock_ns(&r->clock);
        host_clock_advance(&r->clock, at > now ? at - now : 0);
        host_loop_run(r->loop);
    }
    host_clock_advance(&r->clock, end - host_clock_ns(&r->clock));
    host_loop_run(r->loop);
}

/* The initialization every PC kernel does: vectors 20h and 28h, cascade on IR2, nothing masked but `mask`. */
static inline void rig_pic_init(struct rig *r, uint16_t mask)
{
    static const uint8_t master[] = {0x20, 0x04, 0x01}, slave[] = {0x28, 0x02, 0x01};
    outb(r, 0x20, 0x11);
    outb(r, 0xa0, 0x11);
    for (unsigned i = 0; i < 3; i++) {
        outb(r, 0x21, master[i]);
        outb(r, 0xa1, slave[i]);
    }
    outb(r, 0x21, (uint8_t)mask);
    outb(r, 0xa1, (uint8_t)(mask >> 8));
}

/* Devices as sources of levels: IRQ 1 by a byte in the keyboard controller's output buffer, 3 and 4 by an
 * enabled empty transmitter of COM2 and COM1. */
static inline void rig_irq1(struct rig *r, bool level)
{
    if (!level) {
        inb(r, 0x60);
        return;
    }
    outb(r, 0x64, 0xd2);
    outb(r, 0x60, 0x55);
}

static inline void rig_irq_com(struct rig *r, uint16_t base, bool level)
{
    outb(r, base + 4, 0x08);
    outb(r, base + 1, level ? 0x02 : 0);
}

#endif
