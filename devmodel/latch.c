/*
 * Ports that every PC has and guests poke without expecting much: they keep what is written and do nothing
 * else. Without them a boot would bury the unclaimed accesses worth looking at.
 */
#include <stdlib.h>
#include <string.h>
#include "devices.h"

struct latch_row {
    const char *name;
    uint16_t base, size;
};

static const struct latch_row rows[] = {
    {"dma 1", 0x00, 16},          /* 8237: four 8-bit channels */
    {"post, dma page", 0x80, 16}, /* 80h is also where kernels write to wait a microsecond */
    {"dma 2", 0xc0, 32},          /* 8237: four 16-bit channels */
    {"delay", 0xed, 1},           /* the other port for waiting */
    {"fpu busy", 0xf0, 2},        /* clears IGNNE# latch of a 387; FPU errors are #MF here */
};

enum { ROWS = sizeof rows / sizeof *rows, LARGEST = 32 };

struct latch {
    uint8_t bytes[ROWS][LARGEST];
};

static uint64_t latch_read(void *ctx, uint64_t offset, unsigned size)
{
    const uint8_t *bytes = ctx;
    (void)size;
    return bytes[offset];
}

static void latch_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    uint8_t *bytes = ctx;
    (void)size;
    bytes[offset] = (uint8_t)v;
}

void latch_reset(struct latch *l)
{
    memset(l->bytes, 0, sizeof l->bytes);
}

int latch_create(struct latch **out, struct dev_bus *bus, struct host_err *err)
{
    struct latch *l = *out = calloc(1, sizeof *l);
    if (!l)
        return host_fail(err, "no memory for port latches");
    for (unsigned i = 0; i < ROWS; i++) {
        struct dev_region r = {
            rows[i].name, rows[i].base, rows[i].size, latch_read, latch_write, l->bytes[i], 1};
        if (dev_bus_add_io(bus, &r, err))
            return -1;
    }
    return 0;
}

void latch_destroy(struct latch *l)
{
    free(l);
}
