/*
 * The bus: who answers at which port or guest-physical address.
 *
 * Ports are looked up in a direct table of 65536 bytes, since a port access is the most frequent thing a
 * guest does with a device. An access that fits into one region goes there whole; anything else is split,
 * low address first, as the ISA bus controller would (a dword at 3FEh is not one register of anybody).
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "devices.h"

enum { IO_PORTS = 0x10000, IO_REGIONS = 96, MMIO_REGIONS = 16 };

struct slot {
    struct dev_region r;
    uint64_t reads, writes;
};

struct dev_bus {
    uint8_t io_owner[IO_PORTS]; /* 0: nobody, else index into io + 1 */
    uint32_t io_unclaimed[IO_PORTS];
    struct slot io[IO_REGIONS], mmio[MMIO_REGIONS];
    unsigned io_count, mmio_count;
    uint64_t mmio_unclaimed, mmio_unclaimed_last;
    FILE *trace;
};

int dev_bus_create(struct dev_bus **out, struct host_err *err)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : host_fail(err, "no memory for the device bus");
}

void dev_bus_destroy(struct dev_bus *bus)
{
    free(bus);
}

void dev_bus_trace(struct dev_bus *bus, FILE *out)
{
    bus->trace = out;
}

static bool size_is_valid(unsigned size, unsigned largest)
{
    return size && size <= largest && !(size & (size - 1));
}

static int region_check(const struct dev_region *r, unsigned largest, struct host_err *err)
{
    if (!r->size || !r->read || !r->write || (r->max_size && !size_is_valid(r->max_size, largest)))
        return host_fail(err, "device region '%s' is malformed", r->name ? r->name : "?");
    return 0;
}

int dev_bus_add_io(struct dev_bus *bus, const struct dev_region *r, struct host_err *err)
{
    if (region_check(r, 4, err))
        return -1;
    if (r->base >= IO_PORTS || r->size > IO_PORTS - r->base)
        return host_fail(err, "ports of '%s' lie beyond FFFFh", r->name);
    if (bus->io_count == IO_REGIONS)
        return host_fail(err, "too many port regions: no room for '%s'", r->name);
    for (uint64_t p = r->base; p < r->base + r->size; p++)
        if (bus->io_owner[p])
            return host_fail(err, "port %04" PRIx64 "h of '%s' already belongs to '%s'; choose another port",
                             p, r->name, bus->io[bus->io_owner[p] - 1].r.name);
    bus->io[bus->io_count++].r = *r;
    memset(bus->io_owner + r->base, (int)bus->io_count, r->size);
    return 0;
}

int bus_add_movable_io(struct dev_bus *bus, const struct dev_region *r, unsigned *handle,
                       struct host_err *err)
{
    if (region_check(r, 4, err))
        return -1;
    if (bus->io_count == IO_REGIONS)
        return host_fail(err, "too many port regions: no room for '%s'", r->name);
    *handle = bus->io_count;
    bus->io[bus->io_count++].r = *r;
    return 0;
}

bool bus_move_io(struct dev_bus *bus, unsigned handle, uint32_t base)
{
    struct dev_region *r = &bus->io[handle].r;
    for (uint64_t p = r->base; p < r->base + r->size; p++)
        if (bus->io_owner[p] == handle + 1)
            bus->io_owner[p] = 0;
    if (base >= IO_PORTS || r->size > IO_PORTS - base)
        return false;
    for (uint64_t p = base; p < base + r->size; p++)
        if (bus->io_owner[p])
            return false;
    r->base = base;
    memset(bus->io_owner + base, (int)handle + 1, r->size);
    return true;
}

int bus_add_ports(struct dev_bus *bus, const struct dev_region *rows, unsigned count, void *ctx,
                  struct host_err *err)
{
    for (unsigned i = 0; i < count; i++) {
        struct dev_region r = rows[i];
        r.ctx = ctx;
        if (dev_bus_add_io(bus, &r, err))
            return -1;
    }
    return 0;
}

int dev_bus_add_mmio(struct dev_bus *bus, const struct dev_region *r, struct host_err *err)
{
    if (region_check(r, 8, err))
        return -1;
    if (r->size - 1 > UINT64_MAX - r->base)
        return host_fail(err, "memory of '%s' wraps around", r->name);
    if (bus->mmio_count == MMIO_REGIONS)
        return host_fail(err, "too many memory regions: no room for '%s'", r->name);
    for (unsigned i = 0; i < bus->mmio_count; i++) {
        const struct dev_region *o = &bus->mmio[i].r;
        if (r->base <= o->base + (o->size - 1) && o->base <= r->base + (r->size - 1))
            return host_fail(err, "memory of '%s' overlaps '%s'", r->name, o->name);
    }
    bus->mmio[bus->mmio_count++].r = *r;
    return 0;
}

static uint64_t ones(unsigned size)
{
    return UINT64_MAX >> (64 - 8 * size);
}

/* The region that takes [addr, addr+size) in one go, given the one that owns addr. */
static struct slot *slot_whole(struct slot *s, uint64_t addr, unsigned size)
{
    uint64_t room = s->r.size - (addr - s->r.base);
    return room >= size && (!s->r.max_size || size <= s->r.max_size) ? s : NULL;
}

/* ---- Ports ---- */

static struct slot *io_find(struct dev_bus *bus, uint16_t port, unsigned size)
{
    unsigned owner = bus->io_owner[port];
    return owner ? slot_whole(&bus->io[owner - 1], port, size) : NULL;
}

static bool io_is_unclaimed(const struct dev_bus *bus, uint16_t port, unsigned size)
{
    for (unsigned i = 0; i < size; i++)
        if (bus->io_owner[(uint16_t)(port + i)])
            return false;
    return true;
}

static uint32_t io_read(struct dev_bus *bus, uint16_t port, unsigned size)
{
    struct slot *s = io_find(bus, port, size);
    if (s) {
        s->reads++;
        return (uint32_t)(s->r.read(s->r.ctx, port - s->r.base, size) & ones(size));
    }
    if (io_is_unclaimed(bus, port, size)) {
        bus->io_unclaimed[port]++;
        return (uint32_t)ones(size);
    }
    unsigned half = size / 2; /* size is at least 2: a claimed byte is always taken whole */
    uint32_t low = io_read(bus, port, half);
    return low | io_read(bus, (uint16_t)(port + half), half) << (8 * half);
}

static void io_write(struct dev_bus *bus, uint16_t port, unsigned size, uint32_t value)
{
    struct slot *s = io_find(bus, port, size);
    if (s) {
        s->writes++;
        s->r.write(s->r.ctx, port - s->r.base, size, value & ones(size));
        return;
    }
    if (io_is_unclaimed(bus, port, size)) {
        bus->io_unclaimed[port]++;
        return;
    }
    unsigned half = size / 2;
    io_write(bus, port, half, value);
    io_write(bus, (uint16_t)(port + half), half, value >> (8 * half));
}

static const char *io_name(const struct dev_bus *bus, uint16_t port)
{
    return bus->io_owner[port] ? bus->io[bus->io_owner[port] - 1].r.name : "unclaimed";
}

uint32_t dev_bus_in(struct dev_bus *bus, uint16_t port, unsigned size)
{
    if (!size_is_valid(size, 4))
        return UINT32_MAX;
    uint32_t v = io_read(bus, port, size);
    if (bus->trace)
        fprintf(bus->trace, "device: in  %04xh/%u -> %0*xh %s\n", port, size, (int)size * 2, v,
                io_name(bus, port));
    return v;
}

void dev_bus_out(struct dev_bus *bus, uint16_t port, unsigned size, uint32_t value)
{
    if (!size_is_valid(size, 4))
        return;
    if (bus->trace)
        fprintf(bus->trace, "device: out %04xh/%u <- %0*xh %s\n", port, size, (int)size * 2,
                (unsigned)(value & ones(size)), io_name(bus, port));
    io_write(bus, port, size, value);
}

/* ---- Memory ---- */

static struct slot *mmio_owner(struct dev_bus *bus, uint64_t gpa)
{
    for (unsigned i = 0; i < bus->mmio_count; i++)
        if (gpa - bus->mmio[i].r.base < bus->mmio[i].r.size)
            return &bus->mmio[i];
    return NULL;
}

static void mmio_count_unclaimed(struct dev_bus *bus, uint64_t gpa)
{
    bus->mmio_unclaimed++;
    bus->mmio_unclaimed_last = gpa;
}

static uint64_t mmio_read(struct dev_bus *bus, uint64_t gpa, unsigned size)
{
    struct slot *owner = mmio_owner(bus, gpa);
    struct slot *s = owner ? slot_whole(owner, gpa, size) : NULL;
    if (s) {
        s->reads++;
        return s->r.read(s->r.ctx, gpa - s->r.base, size) & ones(size);
    }
    if (size == 1 || (!owner && !mmio_owner(bus, gpa + size - 1))) {
        mmio_count_unclaimed(bus, gpa);
        return ones(size);
    }
    unsigned half = size / 2;
    uint64_t low = mmio_read(bus, gpa, half);
    return low | mmio_read(bus, gpa + half, half) << (8 * half);
}

static void mmio_write(struct dev_bus *bus, uint64_t gpa, unsigned size, uint64_t value)
{
    struct slot *owner = mmio_owner(bus, gpa);
    struct slot *s = owner ? slot_whole(owner, gpa, size) : NULL;
    if (s) {
        s->writes++;
        s->r.write(s->r.ctx, gpa - s->r.base, size, value & ones(size));
        return;
    }
    if (size == 1 || (!owner && !mmio_owner(bus, gpa + size - 1))) {
        mmio_count_unclaimed(bus, gpa);
        return;
    }
    unsigned half = size / 2;
    mmio_write(bus, gpa, half, value);
    mmio_write(bus, gpa + half, half, value >> (8 * half));
}

static const char *mmio_name(struct dev_bus *bus, uint64_t gpa)
{
    struct slot *s = mmio_owner(bus, gpa);
    return s ? s->r.name : "unclaimed";
}

uint64_t dev_bus_mmio_read(struct dev_bus *bus, uint64_t gpa, unsigned size)
{
    if (!size_is_valid(size, 8))
        return UINT64_MAX;
    uint64_t v = mmio_read(bus, gpa, size);
    if (bus->trace)
        fprintf(bus->trace, "device: read  %08" PRIx64 "/%u -> %0*" PRIx64 " %s\n", gpa, size, (int)size * 2,
                v, mmio_name(bus, gpa));
    return v;
}

void dev_bus_mmio_write(struct dev_bus *bus, uint64_t gpa, unsigned size, uint64_t value)
{
    if (!size_is_valid(size, 8))
        return;
    if (bus->trace)
        fprintf(bus->trace, "device: write %08" PRIx64 "/%u <- %0*" PRIx64 " %s\n", gpa, size, (int)size * 2,
                value & ones(size), mmio_name(bus, gpa));
    mmio_write(bus, gpa, size, value);
}

/* ---- Report ---- */

static void report_slots(const struct slot *s, unsigned count, FILE *out)
{
    for (unsigned i = 0; i < count; i++)
        if (s[i].reads || s[i].writes)
            fprintf(out, "%-14s %8" PRIx64 "h %12" PRIu64 " reads %12" PRIu64 " writes\n", s[i].r.name,
                    s[i].r.base, s[i].reads, s[i].writes);
}

void dev_bus_report(struct dev_bus *bus, FILE *out)
{
    report_slots(bus->io, bus->io_count, out);
    report_slots(bus->mmio, bus->mmio_count, out);
    for (unsigned p = 0; p < IO_PORTS; p++)
        if (bus->io_unclaimed[p])
            fprintf(out, "%-14s %8xh %12" PRIu32 " accesses\n", "unclaimed port", p, bus->io_unclaimed[p]);
    if (bus->mmio_unclaimed)
        fprintf(out, "unclaimed memory: %" PRIu64 " accesses, the last at %" PRIx64 "h\n",
                bus->mmio_unclaimed, bus->mmio_unclaimed_last);
}
