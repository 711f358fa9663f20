/*
 * The machine: which devices there are, at which interrupt line each sits, and who hears of reset and
 * power-off. Nothing else in devmodel knows two devices at once.
 */
#include <stdlib.h>
#include <string.h>
#include "devices.h"

/*T:600 The board
 *
 * A PC is a list of wires. board_wire() below is that list: every device is created with the bus, so that
 * it can claim its ports, and with the far ends of its wires, an interrupt pin of the 8259 pair or a
 * function of the board. No device finds another by name, none registers itself before main(), and the
 * order of the lines does not matter to any of them. To take a device off the board, delete its line; to
 * build a second machine, call it twice.
 *
 *     IRQ 0  8254 counter 0        IRQ 4  COM1, COM3      IRQ 9  ACPI (SCI)
 *     IRQ 1  keyboard controller   IRQ 3  COM2, COM4
 *     IRQ 2  slave 8259            IRQ 8  real-time clock
 :*/

enum { SERIAL_PORTS = 4 };

static const struct {
    const char *name;
    uint16_t base;
    uint8_t irq;
} serial_row[SERIAL_PORTS] = {{"COM1", 0x3f8, 4}, {"COM2", 0x2f8, 3}, {"COM3", 0x3e8, 4}, {"COM4", 0x2e8, 3}};

struct dev_board {
    struct dev_board_config cfg;
    struct dev_bus *bus;
    struct i8259 *pic;
    struct i8254 *pit;
    struct rtc *rtc;
    struct i8042 *kbc;
    struct acpi *acpi;
    struct pci *pci;
    struct isapnp *isapnp;
    struct vga *vga;
    struct latch *latch;
    struct debug_exit *debug_exit;
    struct irq_join serial_irq[2]; /* IRQ 3 and IRQ 4 */
    struct chr *chr[SERIAL_PORTS];
    struct ns16550 *serial[SERIAL_PORTS];
};

/* ---- What devices say to the board ---- */

static void board_event(struct dev_board *b, enum dev_event ev, uint32_t v)
{
    for (unsigned i = 0; i < b->cfg.serial_count; i++)
        chr_flush(b->chr[i]); /* the guest's last words come before anything the monitor prints */
    if (b->cfg.ops.event)
        b->cfg.ops.event(b->cfg.ops.ctx, ev, v);
}

static void board_on_reset(void *ctx)
{
    board_event(ctx, DEV_RESET, 0);
}

static void board_on_power_off(void *ctx)
{
    board_event(ctx, DEV_POWER_OFF, 0);
}

static void board_on_debug_exit(void *ctx, uint32_t value)
{
    board_event(ctx, DEV_DEBUG_EXIT, value);
}

static void board_on_quit(void *ctx)
{
    board_event(ctx, DEV_ESCAPE_QUIT, 0);
}

static void board_on_intr(void *ctx, unsigned pin, bool level)
{
    struct dev_board *b = ctx;
    (void)pin;
    if (b->cfg.ops.intr_changed)
        b->cfg.ops.intr_changed(b->cfg.ops.ctx, level);
}

static void board_on_irq_changed(void *ctx, unsigned irq, enum i8259_change what)
{
    struct dev_board *b = ctx;
    if (irq == 0 && b->pit)
        i8254_irq0_changed(b->pit, what);
}

static bool board_irq0_unheard(void *ctx)
{
    struct dev_board *b = ctx;
    return i8259_requested(b->pic, 0);
}

static uint64_t board_lag(void *ctx, uint64_t ns)
{
    struct dev_board *b = ctx;
    return i8254_lag_ns(b->pit, ns);
}

static bool board_tsc_read(void *ctx)
{
    struct dev_board *b = ctx;
    return b->cfg.ops.tsc_read(b->cfg.ops.ctx);
}

/* ---- Wiring ---- */

static int board_wire_serial(struct dev_board *b, unsigned i, struct host_err *err)
{
    struct irq_join *join = &b->serial_irq[serial_row[i].irq - 3];
    struct chr_config c = {.host = b->cfg.serial[i], .quit = board_on_quit, .quit_ctx = b};
    c.escape = b->cfg.escape && c.host.kind == DEV_CHR_STDIO;
    if (chr_create(&b->chr[i], &c, b->cfg.loop, err))
        return -1;
    return ns16550_create(&b->serial[i], b->bus, b->cfg.loop, serial_row[i].name, serial_row[i].base,
                          irq_join_input(join, i), b->chr[i], err);
}

static int board_wire(struct dev_board *b, struct host_err *err)
{
    struct host_loop *loop = b->cfg.loop;
    struct i8259_wiring pic = {.intr = {board_on_intr, b, 0}, .changed = board_on_irq_changed, .ctx = b};
    struct i8042_wiring kbc = {.reset = board_on_reset, .ctx = b};
    struct acpi_wiring acpi = {.power_off = board_on_power_off, .lag_ns = board_lag, .ctx = b};
    struct i8254_wiring pit = {.unheard = board_irq0_unheard, .ctx = b};

    if (dev_bus_create(&b->bus, err) || i8259_create(&b->pic, b->bus, &pic, err))
        return -1;
    pit.irq0 = i8259_pin(b->pic, 0);
    pit.tsc_read = b->cfg.ops.tsc_read ? board_tsc_read : NULL;
    kbc.irq1 = i8259_pin(b->pic, 1);
    b->serial_irq[0].out = i8259_pin(b->pic, 3);
    b->serial_irq[1].out = i8259_pin(b->pic, 4);
    acpi.sci = i8259_pin(b->pic, ACPI_SCI_IRQ);
    if (i8254_create(&b->pit, b->bus, loop, &pit, err) ||
        rtc_create(&b->rtc, b->bus, loop, i8259_pin(b->pic, 8), b->cfg.rtc_epoch, err) ||
        i8042_create(&b->kbc, b->bus, &kbc, err) || acpi_create(&b->acpi, b->bus, loop, &acpi, err) ||
        pci_create(&b->pci, b->bus, &(struct pci_wiring){board_on_reset, b}, err) ||
        isapnp_create(&b->isapnp, b->bus, err) || vga_create(&b->vga, b->bus, err) ||
        latch_create(&b->latch, b->bus, err))
        return -1;
    for (unsigned i = 0; i < b->cfg.serial_count; i++)
        if (board_wire_serial(b, i, err))
            return -1;
    if (!b->cfg.debug_exit_port)
        return 0;
    return debug_exit_create(&b->debug_exit, b->bus, b->cfg.debug_exit_port,
                             &(struct debug_exit_wiring){board_on_debug_exit, b}, err);
}

/* ---- What firmware would have left in CMOS ---- */

static uint16_t at_most_16_bits(uint64_t v)
{
    return v > 0xffff ? 0xffff : (uint16_t)v;
}

static void board_set_cmos_word(struct dev_board *b, unsigned low, unsigned high, uint16_t v)
{
    rtc_cmos_set(b->rtc, low, (uint8_t)v);
    rtc_cmos_set(b->rtc, high, (uint8_t)(v >> 8));
}

static void board_set_cmos(struct dev_board *b)
{
    uint64_t size = b->cfg.ram->size, above_16m = size > 16 << 20 ? size - (16 << 20) : 0;
    uint16_t extended_kib = at_most_16_bits((size - (1 << 20)) >> 10);
    rtc_cmos_set(b->rtc, 0x14, 0x02); /* equipment: an FPU, a VGA, no floppy */
    board_set_cmos_word(b, 0x15, 0x16, 640);
    board_set_cmos_word(b, 0x17, 0x18, extended_kib);
    board_set_cmos_word(b, 0x30, 0x31, extended_kib);
    board_set_cmos_word(b, 0x34, 0x35, at_most_16_bits(above_16m >> 16));
    rtc_cmos_seal(b->rtc);
}

/* ---- Life cycle ---- */

static int board_check(const struct dev_board_config *cfg, struct host_err *err)
{
    unsigned terminals = 0;
    if (cfg->serial_count < 1 || cfg->serial_count > SERIAL_PORTS)
        return host_fail(err, "%u serial ports asked for: a PC has one to four", cfg->serial_count);
    for (unsigned i = 0; i < cfg->serial_count; i++)
        terminals += cfg->serial[i].kind == DEV_CHR_STDIO;
    if (terminals > 1)
        return host_fail(
            err, "%u serial ports want the terminal: only one can have it, use file: or null for the others",
            terminals);
    return 0;
}

int dev_board_create(struct dev_board **out, const struct dev_board_config *cfg, struct host_err *err)
{
    *out = NULL;
    if (board_check(cfg, err))
        return -1;
    struct dev_board *b = calloc(1, sizeof *b);
    if (!b)
        return host_fail(err, "no memory for the board");
    b->cfg = *cfg;
    if (acpi_tables_write(cfg->ram, cfg->serial_count, err) || board_wire(b, err)) {
        dev_board_destroy(b);
        return -1;
    }
    dev_board_reset(b);
    *out = b;
    return 0;
}

void dev_board_destroy(struct dev_board *b)
{
    if (!b)
        return;
    for (unsigned i = 0; i < SERIAL_PORTS; i++) {
        ns16550_destroy(b->serial[i]);
        chr_destroy(b->chr[i]);
    }
    debug_exit_destroy(b->debug_exit);
    latch_destroy(b->latch);
    vga_destroy(b->vga);
    isapnp_destroy(b->isapnp);
    pci_destroy(b->pci);
    acpi_destroy(b->acpi);
    i8042_destroy(b->kbc);
    rtc_destroy(b->rtc);
    i8254_destroy(b->pit);
    i8259_destroy(b->pic);
    dev_bus_destroy(b->bus);
    free(b);
}

/* The interrupt controllers come first, so that no moving line reaches the CPU, and last, to forget it moved.
 */
void dev_board_reset(struct dev_board *b)
{
    acpi_tables_write(b->cfg.ram, b->cfg.serial_count, NULL); /* cannot fail: it did not at create */
    board_set_cmos(b);
    i8259_reset(b->pic);
    i8254_reset(b->pit);
    rtc_reset(b->rtc);
    i8042_reset(b->kbc);
    acpi_reset(b->acpi);
    pci_reset(b->pci);
    isapnp_reset(b->isapnp);
    vga_reset(b->vga);
    latch_reset(b->latch);
    for (unsigned i = 0; i < b->cfg.serial_count; i++)
        ns16550_reset(b->serial[i]);
    i8259_reset(b->pic);
}

/* ---- What the monitor asks ---- */

struct dev_bus *dev_board_bus(struct dev_board *b)
{
    return b->bus;
}

uint8_t dev_board_intack(struct dev_board *b)
{
    return i8259_acknowledge(b->pic);
}

bool dev_board_intr(const struct dev_board *b)
{
    return i8259_int(b->pic);
}

void dev_board_acpi_range(const struct dev_board *b, uint64_t *base, uint64_t *size, uint64_t *rsdp)
{
    (void)b;
    *base = *rsdp = ACPI_TABLES_BASE;
    *size = ACPI_TABLES_SIZE;
}

const struct dev_timer_counts *dev_board_timer(const struct dev_board *b)
{
    return i8254_counts(b->pit);
}
