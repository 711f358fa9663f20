/* A port through which a test guest ends the machine with a value, like QEMU's isa-debug-exit. */
#include <stdlib.h>
#include "devices.h"

struct debug_exit {
    struct debug_exit_wiring w;
};

static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)ctx, (void)offset, (void)size;
    return 0;
}

static void port_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct debug_exit *d = ctx;
    (void)offset, (void)size;
    d->w.exit(d->w.ctx, (uint32_t)v);
}

int debug_exit_create(struct debug_exit **out, struct dev_bus *bus, uint16_t port,
                      const struct debug_exit_wiring *w, struct host_err *err)
{
    struct debug_exit *d = *out = calloc(1, sizeof *d);
    if (!d)
        return host_fail(err, "no memory for the debug-exit port");
    d->w = *w;
    return dev_bus_add_io(bus, &(struct dev_region){"debug exit", port, 4, port_read, port_write, d, 4}, err);
}

void debug_exit_destroy(struct debug_exit *d)
{
    free(d);
}
