/*
 * As much VGA as a kernel needs to print into text memory and not hang: 128 KiB of memory at A0000h-BFFFFh
 * and registers 3B0h-3DFh that keep what is written. Nothing is displayed. Names: IBM VGA/XGA Technical
 * Reference.
 */
#include <stdlib.h>
#include <string.h>
#include "devices.h"

enum { MEMORY_BASE = 0xa0000, MEMORY_SIZE = 0x20000, PORT_BASE = 0x3b0, PORT_COUNT = 0x30, INDEXED = 64 };

enum {
    ATTRIBUTE = 0x3c0,
    ATTRIBUTE_READ = 0x3c1,
    MISC_WRITE = 0x3c2,
    MISC_READ = 0x3cc,
    SEQUENCER = 0x3c4,
    GRAPHICS = 0x3ce,
    CRTC_MONO = 0x3b4,
    CRTC = 0x3d4,
    STATUS_MONO = 0x3ba,
    STATUS = 0x3da,
    DAC_READ = 0x3c7,
    DAC_WRITE = 0x3c8,
    DAC_DATA = 0x3c9,
};

enum { STATUS_RETRACE = 0x09 }; /* display disabled, vertical retrace */

/* Register files behind an index port; the data port follows it. The attribute controller is special. */
enum file { FILE_SEQUENCER, FILE_GRAPHICS, FILE_CRTC, FILE_CRTC_MONO, FILE_ATTRIBUTE, FILES };
static const uint16_t file_port[FILES] = {SEQUENCER, GRAPHICS, CRTC, CRTC_MONO, ATTRIBUTE};

struct vga {
    uint8_t port[PORT_COUNT]; /* plain latches, and index registers */
    uint8_t file[FILES][INDEXED];
    uint8_t palette[256 * 3];
    unsigned dac_read, dac_write; /* byte positions in the palette */
    bool attribute_data;          /* flip-flop: the next write to 3C0h is data */
    uint8_t status;
    uint8_t *memory;
};

static uint8_t *indexed(struct vga *v, unsigned file)
{
    return &v->file[file][v->port[file_port[file] - PORT_BASE] % INDEXED];
}

static int file_of_data_port(uint16_t port)
{
    for (int f = 0; f < FILE_ATTRIBUTE; f++)
        if (port == file_port[f] + 1)
            return f;
    return -1;
}

static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    struct vga *v = ctx;
    uint16_t port = (uint16_t)(PORT_BASE + offset);
    int file = file_of_data_port(port);
    (void)size;
    if (file >= 0)
        return *indexed(v, (unsigned)file);
    switch (port) {
    case ATTRIBUTE_READ:
        return *indexed(v, FILE_ATTRIBUTE);
    case MISC_READ:
        return v->port[MISC_WRITE - PORT_BASE];
    case MISC_WRITE: /* input status 0 */
        return 0;
    case DAC_DATA:
        v->dac_read = (v->dac_read + 1) % sizeof v->palette;
        return v->palette[(v->dac_read + sizeof v->palette - 1) % sizeof v->palette];
    case STATUS:
    case STATUS_MONO: /* each look sees the other half of the frame, so no wait for retrace ever hangs */
        v->attribute_data = false;
        v->status ^= STATUS_RETRACE;
        return v->status;
    default:
        return v->port[offset];
    }
}

static void attribute_write(struct vga *v, uint8_t byte)
{
    if (v->attribute_data)
        *indexed(v, FILE_ATTRIBUTE) = byte;
    else
        v->port[ATTRIBUTE - PORT_BASE] = byte & 0x3f;
    v->attribute_data = !v->attribute_data;
}

static void port_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vga *v = ctx;
    uint16_t port = (uint16_t)(PORT_BASE + offset);
    uint8_t byte = (uint8_t)value;
    int file = file_of_data_port(port);
    (void)size;
    if (file >= 0) {
        *indexed(v, (unsigned)file) = byte;
        return;
    }
    switch (port) {
    case ATTRIBUTE:
        attribute_write(v, byte);
        break;
    case DAC_READ:
        v->dac_read = byte * 3u;
        break;
    case DAC_WRITE:
        v->dac_write = byte * 3u;
        break;
    case DAC_DATA:
        v->palette[v->dac_write] = byte & 0x3f;
        v->dac_write = (v->dac_write + 1) % sizeof v->palette;
        break;
    default:
        v->port[offset] = byte;
        break;
    }
}

/* The bus never passes more than the region holds. */
static uint64_t memory_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct vga *v = ctx;
    uint64_t value = 0;
    memcpy(&value, v->memory + offset, size);
    return value;
}

static void memory_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vga *v = ctx;
    memcpy(v->memory + offset, &value, size);
}

static const struct dev_region ports[] = {
    {.name = "vga",
     .base = PORT_BASE,
     .size = PORT_COUNT,
     .read = port_read,
     .write = port_write,
     .max_size = 1},
};

/* Text mode 3 as a BIOS sets it: colour addressing, a blank screen. */
void vga_reset(struct vga *v)
{
    uint8_t *memory = v->memory;
    *v = (struct vga){.memory = memory};
    v->port[MISC_WRITE - PORT_BASE] = 0x67;
    memset(memory, 0, MEMORY_SIZE);
    for (unsigned i = 0x18000; i < 0x18000 + 80 * 25 * 2; i += 2) {
        memory[i] = ' ';
        memory[i + 1] = 0x07;
    }
}

int vga_create(struct vga **out, struct dev_bus *bus, struct host_err *err)
{
    struct vga *v = *out = calloc(1, sizeof *v);
    if (!v || !(v->memory = calloc(1, MEMORY_SIZE)))
        return host_fail(err, "no memory for the VGA text buffer");
    struct dev_region memory = {"vga memory", MEMORY_BASE, MEMORY_SIZE, memory_read, memory_write, v, 8};
    if (dev_bus_add_mmio(bus, &memory, err))
        return -1;
    return bus_add_ports(bus, ports, sizeof ports / sizeof *ports, v, err);
}

void vga_destroy(struct vga *v)
{
    if (v)
        free(v->memory);
    free(v);
}
