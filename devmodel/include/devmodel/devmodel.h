/*
 * devmodel: the machine around the CPU: bus, interrupt lines, devices and the board that wires them.
 *
 * Knows host (RAM, loop, clock) and nothing of the CPU's inside. All calls on the vCPU's thread; device
 * callbacks (timers, file descriptors) run from host_loop_run/host_loop_wait on the same thread, so there are
 * no locks.
 */
#ifndef DEVMODEL_DEVMODEL_H
#define DEVMODEL_DEVMODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "host/host.h"

/* ---- Interrupt lines: an output pin wired to somebody's input. Level semantics; edges are derived by the
 * sink. ---- */
struct dev_irq {
    void (*set)(void *ctx, unsigned pin, bool level);
    void *ctx;
    unsigned pin;
};
void dev_irq_set(const struct dev_irq *irq, bool level); /* NULL or unwired: no-op */

/* ---- Bus. size is 1, 2 or 4 (mmio also 8). An access no device claims reads all ones, ignores writes and is
 * counted. ---- */
struct dev_bus;
struct dev_region {
    const char *name;
    uint64_t base, size;
    uint64_t (*read)(void *ctx, uint64_t offset, unsigned size);
    void (*write)(void *ctx, uint64_t offset, unsigned size, uint64_t value);
    void *ctx;
    unsigned max_size; /* wider accesses are split into this size, low address first; 0: as is */
};
int dev_bus_create(struct dev_bus **out, struct host_err *err);
void dev_bus_destroy(struct dev_bus *bus);
int dev_bus_add_io(struct dev_bus *bus, const struct dev_region *r, struct host_err *err);
int dev_bus_add_mmio(struct dev_bus *bus, const struct dev_region *r, struct host_err *err);
uint32_t dev_bus_in(struct dev_bus *bus, uint16_t port, unsigned size);
void dev_bus_out(struct dev_bus *bus, uint16_t port, unsigned size, uint32_t value);
uint64_t dev_bus_mmio_read(struct dev_bus *bus, uint64_t gpa, unsigned size);
void dev_bus_mmio_write(struct dev_bus *bus, uint64_t gpa, unsigned size, uint64_t value);
/* --trace=device: one line per access to out; NULL: off. */
void dev_bus_trace(struct dev_bus *bus, FILE *out);
/* Per region: accesses; and unclaimed ports with counts. For --stats. */
void dev_bus_report(struct dev_bus *bus, FILE *out);

/* ---- Character back ends of the serial ports. ---- */
enum dev_chr_kind { DEV_CHR_NULL, DEV_CHR_STDIO, DEV_CHR_FILE };
struct dev_chr_config {
    enum dev_chr_kind kind;
    const char *path; /* FILE */
};

/* ---- The board: a PC with 8259 pair, 8254 + port 61h, MC146818, COM1-4, i8042, ACPI, PCI host bridge, debug
 * exit. ---- */
enum dev_event { DEV_POWER_OFF, DEV_RESET, DEV_DEBUG_EXIT, DEV_ESCAPE_QUIT };
struct dev_board_ops {
    void *ctx;
    void (*intr_changed)(void *ctx, bool level);             /* INTR output of the master PIC */
    void (*event)(void *ctx, enum dev_event ev, uint32_t v); /* v: debug-exit value */
    /* Has the guest read its time-stamp counter since this was asked last? In doubt, yes. NULL: always. */
    bool (*tsc_read)(void *ctx);
};
struct dev_board_config {
    struct host_ram *ram; /* ACPI tables are written into [0xE0000, 0x100000) at create and reset */
    struct host_loop *loop;
    struct dev_board_ops ops;
    struct dev_chr_config serial[4]; /* COM1..4 */
    unsigned serial_count;           /* ports present, 1..4 */
    bool escape;                     /* Ctrl-A x / Ctrl-A h / Ctrl-A Ctrl-A on a STDIO serial */
    uint16_t debug_exit_port;        /* 0: absent. ringlet's default is 0xf4, 4 bytes wide */
    uint64_t rtc_epoch;              /* seconds since 1970 at guest time 0 */
};
struct dev_board;
int dev_board_create(struct dev_board **out, const struct dev_board_config *cfg, struct host_err *err);
void dev_board_destroy(struct dev_board *b);
void dev_board_reset(struct dev_board *b); /* all devices to their power-on state */
struct dev_bus *dev_board_bus(struct dev_board *b);
/* Interrupt acknowledge cycle: returns the vector (8259 data sheet, INTA sequence; spurious gives IRQ7's). */
uint8_t dev_board_intack(struct dev_board *b);
bool dev_board_intr(const struct dev_board *b);
struct dev_timer_counts {
    uint64_t ticks, lost; /* interrupts of the 8254: raised, and given up because too many were owed */
    uint64_t late_edges;  /* counter 2 was waited for and seen late */
};
const struct dev_timer_counts *dev_board_timer(const struct dev_board *b);
/* Physical range of the ACPI tables for e820, and the RSDP's address. */
void dev_board_acpi_range(const struct dev_board *b, uint64_t *base, uint64_t *size, uint64_t *rsdp);

#endif
