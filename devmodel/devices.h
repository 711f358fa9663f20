/*
 * The devices' constructors and pins, private to devmodel. board.c is the only file that sees more than one
 * device.
 *
 * A device is created with the bus it registers its ports on and the interrupt lines it drives; reset puts
 * it into the state the guest finds at power-on. Guest time is host_clock_ns of the loop's clock, always
 * absolute: a device keeps the time at which something started, never a running sum, so nothing can drift.
 */
#ifndef DEVMODEL_DEVICES_H
#define DEVMODEL_DEVICES_H

#include "devmodel/devmodel.h"

/* ---- bus.c: register a device's whole port map; rows' ctx is replaced by ctx. ---- */
int bus_add_ports(struct dev_bus *bus, const struct dev_region *rows, unsigned count, void *ctx,
                  struct host_err *err);

/* A region whose place the guest chooses: added at no port, r->base (r->base + size at most 10000h) being only
 * what reports show. bus_move_io takes it from where it is and puts it at base; BUS_NOWHERE, or a base where any
 * port has an owner already, leaves it at no port and returns false. */
enum { BUS_NOWHERE = 0x10000 };
int bus_add_movable_io(struct dev_bus *bus, const struct dev_region *r, unsigned *handle,
                       struct host_err *err);
bool bus_move_io(struct dev_bus *bus, unsigned handle, uint32_t base);

/* ---- irq.c: several outputs on one line (wired OR), as COM1 and COM3 on IRQ 4. ---- */
struct irq_join {
    struct dev_irq out;
    uint32_t levels;
};
struct dev_irq irq_join_input(struct irq_join *j, unsigned input); /* input < 32 */

/* ---- i8259.c: the pair of interrupt controllers. ---- */
enum i8259_change { I8259_TAKEN, I8259_MASKED, I8259_UNMASKED };
struct i8259_wiring {
    struct dev_irq intr; /* INT of the master */
    /* Tells a source what became of its request, for time keepers that must know whether a tick was
     * heard. TAKEN: the request left IRR (acknowledged, polled or initialised away). May be NULL. */
    void (*changed)(void *ctx, unsigned irq, enum i8259_change what);
    void *ctx;
};
struct i8259;
int i8259_create(struct i8259 **out, struct dev_bus *bus, const struct i8259_wiring *w, struct host_err *err);
void i8259_destroy(struct i8259 *p);
void i8259_reset(struct i8259 *p);
struct dev_irq i8259_pin(struct i8259 *p, unsigned irq); /* irq < 16 and not 2 */
uint8_t i8259_acknowledge(struct i8259 *p);
bool i8259_int(const struct i8259 *p);
bool i8259_requested(const struct i8259 *p, unsigned irq); /* waits in IRR */

/* ---- i8254.c: three counters and port 61h. ---- */
struct i8254_wiring {
    struct dev_irq irq0;
    bool (*unheard)(void *ctx);  /* the last tick still waits in the interrupt controller */
    bool (*tsc_read)(void *ctx); /* dev_board_ops.tsc_read; NULL: no reading is ever put back */
    void *ctx;
};
struct i8254;
int i8254_create(struct i8254 **out, struct dev_bus *bus, struct host_loop *loop,
                 const struct i8254_wiring *w, struct host_err *err);
void i8254_destroy(struct i8254 *p);
void i8254_reset(struct i8254 *p);
void i8254_irq0_changed(struct i8254 *p, enum i8259_change what);
/* By how much another timer's reading at ns is to be put back, because the guest saw counter 2's edge late. */
uint64_t i8254_lag_ns(struct i8254 *p, uint64_t ns);
const struct dev_timer_counts *i8254_counts(const struct i8254 *p);

/* ---- rtc.c: MC146818 and CMOS. ---- */
struct rtc;
int rtc_create(struct rtc **out, struct dev_bus *bus, struct host_loop *loop, struct dev_irq irq8,
               uint64_t epoch, struct host_err *err);
void rtc_destroy(struct rtc *r);
void rtc_reset(struct rtc *r);
void rtc_cmos_set(struct rtc *r, unsigned index,
                  uint8_t value);  /* what a BIOS would store there; 0Eh <= index < 80h */
void rtc_cmos_seal(struct rtc *r); /* checksum of 10h..2Dh */

/* ---- chr.c: the host's end of a serial line. ---- */
struct chr_ops {
    void *ctx;
    size_t (*room)(void *ctx);                                  /* bytes the receiver can take now */
    void (*receive)(void *ctx, const uint8_t *bytes, size_t n); /* n <= room */
    void (*drained)(void *ctx);                                 /* chr_write has room again */
};
struct chr_config {
    struct dev_chr_config host;
    bool escape;
    void (*quit)(void *ctx); /* Ctrl-A x */
    void *quit_ctx;
};
struct chr;
int chr_create(struct chr **out, const struct chr_config *cfg, struct host_loop *loop, struct host_err *err);
void chr_destroy(struct chr *c); /* waits a moment for a slow reader of pending output */
void chr_attach(struct chr *c, const struct chr_ops *ops);
size_t chr_write(struct chr *c, const uint8_t *bytes, size_t n); /* returns how many were taken */
void chr_resume(struct chr *c);                                  /* the receiver has room again */
void chr_flush(struct chr *c); /* push out what the host takes without waiting */
void chr_report(const struct chr *c, const char *name, FILE *out);

/* ---- ns16550.c ---- */
struct ns16550;
int ns16550_create(struct ns16550 **out, struct dev_bus *bus, struct host_loop *loop, const char *name,
                   uint16_t base, struct dev_irq irq, struct chr *chr, struct host_err *err);
void ns16550_destroy(struct ns16550 *u);
void ns16550_reset(struct ns16550 *u);

/* ---- i8042.c: keyboard controller with a keyboard nobody types on, and port 92h. ---- */
struct i8042_wiring {
    struct dev_irq irq1;
    void (*reset)(void *ctx);
    void *ctx;
};
struct i8042;
int i8042_create(struct i8042 **out, struct dev_bus *bus, const struct i8042_wiring *w, struct host_err *err);
void i8042_destroy(struct i8042 *k);
void i8042_reset(struct i8042 *k);

/* ---- acpi.c: fixed hardware: PM1a event and control block, PM timer. ---- */
enum {
    ACPI_PM1A_EVT = 0x600,
    ACPI_PM1A_CNT = 0x604,
    ACPI_PM_TMR = 0x608,
    ACPI_SCI_IRQ = 9,
    ACPI_S5_TYP = 5, /* SLP_TYP value of \_S5 in dsdt.asl */
};
struct acpi_wiring {
    struct dev_irq sci;
    void (*power_off)(void *ctx);
    uint64_t (*lag_ns)(void *ctx, uint64_t ns); /* by how much a reading of the timer at ns is put back */
    void *ctx;
};
struct acpi;
int acpi_create(struct acpi **out, struct dev_bus *bus, struct host_loop *loop, const struct acpi_wiring *w,
                struct host_err *err);
void acpi_destroy(struct acpi *a);
void acpi_reset(struct acpi *a);

/* ---- acpi_tables.c: RSDP, RSDT, FADT, FACS and DSDT in the BIOS area. ---- */
enum { ACPI_TABLES_BASE = 0xe0000, ACPI_TABLES_SIZE = 0x20000 };
int acpi_tables_write(struct host_ram *ram, unsigned serial_count, struct host_err *err);

/* ---- pci.c: configuration mechanism #1, the host bridge and the reset register at CF9h. ---- */
struct pci_wiring {
    void (*reset)(void *ctx);
    void *ctx;
};
struct pci;
int pci_create(struct pci **out, struct dev_bus *bus, const struct pci_wiring *w, struct host_err *err);
void pci_destroy(struct pci *p);
void pci_reset(struct pci *p);

/* ---- isapnp.c: a Plug and Play ISA card without a function, so that a search for cards ends early. ---- */
struct isapnp;
int isapnp_create(struct isapnp **out, struct dev_bus *bus, struct host_err *err);
void isapnp_destroy(struct isapnp *c);
void isapnp_reset(struct isapnp *c);

/* ---- vga.c: text memory, and registers that keep what is written. ---- */
struct vga;
int vga_create(struct vga **out, struct dev_bus *bus, struct host_err *err);
void vga_destroy(struct vga *v);
void vga_reset(struct vga *v);

/* ---- debug_exit.c: four ports at `port`; a write of any width ends the machine with the value written.
 * ---- / */
struct debug_exit_wiring {
    void (*exit)(void *ctx, uint32_t value);
    void *ctx;
};
struct debug_exit;
int debug_exit_create(struct debug_exit **out, struct dev_bus *bus, uint16_t port,
                      const struct debug_exit_wiring *w, struct host_err *err);
void debug_exit_destroy(struct debug_exit *d);

/* ---- latch.c: ports that keep what is written and do nothing. ---- */
struct latch;
int latch_create(struct latch **out, struct dev_bus *bus, struct host_err *err);
void latch_destroy(struct latch *l);
void latch_reset(struct latch *l);

#endif
