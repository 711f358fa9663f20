/*
 * PCI configuration mechanism #1 (PCI Local Bus Specification 2.1, section 3.7.4.1): address at CF8h, data
 * at CFCh. Bus 0 holds one function, the host bridge of an 82441FX; reading any other gives all ones,
 * "nobody there".
 *
 * CF8h is an address only as a whole dword. A byte at CF9h is another register altogether, the PIIX's reset
 * control.
 */
#include <stdlib.h>
#include <string.h>
#include "devices.h"

enum { ADDRESS_ENABLE = 0x80000000, ADDRESS_BITS = 0x80fffffc, ADDRESS_FUNCTION = 0x00ffff00 };
enum { RESET_HARD = 0x02, RESET_CPU = 0x04, RESET_BITS = 0x06 };
enum { CONFIG_SIZE = 256 };

struct config_row {
    uint8_t offset, value, writable;
};

/* 82441FX data sheet (290549), section 3.2: what is not 0 or can be written. */
static const struct config_row bridge[] = {
    {0x00, 0x86, 0x00}, {0x01, 0x80, 0x00}, /* vendor */
    {0x02, 0x37, 0x00}, {0x03, 0x12, 0x00}, /* device */
    {0x04, 0x06, 0x40}, {0x05, 0x00, 0x01}, /* command: memory and master always on; PERR, SERR */
    {0x06, 0x80, 0x00}, {0x07, 0x02, 0x00}, /* status: fast back-to-back, medium DEVSEL */
    {0x08, 0x02, 0x00}, {0x0b, 0x06, 0x00}, /* revision; class: bridge, host */
    {0x0d, 0x00, 0xf8},                     /* latency timer */
    {0x50, 0x00, 0xff}, {0x51, 0x00, 0xff}, /* 82441FX configuration */
    {0x52, 0x00, 0xff}, {0x53, 0x00, 0xff}, {0x55, 0x00, 0xff}, {0x56, 0x00, 0xff},
    {0x57, 0x01, 0xff}, {0x58, 0x10, 0xff},                     /* DRAM */
    {0x59, 0x30, 0xff}, {0x5a, 0x33, 0xff}, {0x5b, 0x33, 0xff}, /* PAM: all of C0000-FFFFF is RAM */
    {0x5c, 0x33, 0xff}, {0x5d, 0x33, 0xff}, {0x5e, 0x33, 0xff}, {0x5f, 0x33, 0xff},
    {0x60, 0x00, 0xff}, {0x61, 0x00, 0xff}, {0x62, 0x00, 0xff}, {0x63, 0x00, 0xff}, /* DRAM row boundaries */
    {0x64, 0x00, 0xff}, {0x65, 0x00, 0xff}, {0x66, 0x00, 0xff}, {0x67, 0x00, 0xff},
    {0x68, 0x00, 0xff}, {0x70, 0x00, 0xff}, {0x71, 0x00, 0xff}, {0x72, 0x02, 0xff}, /* hole, timers, SMRAM */
    {0x93, 0x00, 0xff},                                                             /* turbo reset control */
};

struct pci {
    uint32_t address;
    uint8_t reset_control;
    uint8_t config[CONFIG_SIZE], writable[CONFIG_SIZE];
    struct pci_wiring w;
};

/* ---- CF8h-CFBh ---- */

static uint64_t address_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct pci *p = ctx;
    if (size == 4)
        return p->address;
    return size == 1 && offset == 1 ? p->reset_control : UINT64_MAX;
}

static void reset_write(struct pci *p, uint8_t v)
{
    bool rises = v & RESET_CPU && !(p->reset_control & RESET_CPU);
    p->reset_control = v & RESET_BITS;
    if (rises) /* hard or soft: this board knows one kind of reset */
        p->w.reset(p->w.ctx);
}

static void address_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct pci *p = ctx;
    if (size == 4)
        p->address = (uint32_t)v & ADDRESS_BITS;
    else if (size == 1 && offset == 1)
        reset_write(p, (uint8_t)v);
}

/* ---- CFCh-CFFh ---- */

/* The addressed byte in the bridge's configuration space; -1: nobody there. */
static int config_index(const struct pci *p, uint64_t offset)
{
    if (!(p->address & ADDRESS_ENABLE) || p->address & ADDRESS_FUNCTION)
        return -1;
    return (int)((p->address & 0xfc) + offset);
}

static uint64_t data_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct pci *p = ctx;
    int at = config_index(p, offset);
    uint64_t v = 0;
    if (at < 0)
        return UINT64_MAX;
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)p->config[at + (int)i] << 8 * i;
    return v;
}

static void data_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct pci *p = ctx;
    int at = config_index(p, offset);
    for (unsigned i = 0; at >= 0 && i < size; i++) {
        uint8_t mask = p->writable[at + (int)i], byte = (uint8_t)(v >> 8 * i);
        p->config[at + (int)i] = (uint8_t)((p->config[at + (int)i] & ~mask) | (byte & mask));
    }
}

static const struct dev_region ports[] = {
    {.name = "pci address",
     .base = 0xcf8,
     .size = 4,
     .read = address_read,
     .write = address_write,
     .max_size = 4},
    {.name = "pci data", .base = 0xcfc, .size = 4, .read = data_read, .write = data_write, .max_size = 4},
};

void pci_reset(struct pci *p)
{
    p->address = 0;
    p->reset_control = 0;
    memset(p->config, 0, sizeof p->config);
    for (unsigned i = 0; i < sizeof bridge / sizeof *bridge; i++) {
        p->config[bridge[i].offset] = bridge[i].value;
        p->writable[bridge[i].offset] = bridge[i].writable;
    }
}

int pci_create(struct pci **out, struct dev_bus *bus, const struct pci_wiring *w, struct host_err *err)
{
    struct pci *p = *out = calloc(1, sizeof *p);
    if (!p)
        return host_fail(err, "no memory for the PCI bridge");
    p->w = *w;
    return bus_add_ports(bus, ports, sizeof ports / sizeof *ports, p, err);
}

void pci_destroy(struct pci *p)
{
    free(p);
}
