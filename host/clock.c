/* Guest time: the host's monotonic clock, or a counter that moves only when told. */
#include "host/host.h"

#include <x86intrin.h>

uint64_t host_read_clock(clockid_t id)
{
    struct timespec now;
    if (clock_gettime(id, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t monotonic_ns(void)
{
    return host_read_clock(CLOCK_MONOTONIC);
}

void host_clock_init(struct host_clock *c, bool is_virtual)
{
    *c = (struct host_clock){.is_virtual = is_virtual, .base_ns = is_virtual ? 0 : monotonic_ns()};
}

uint64_t host_clock_ns(const struct host_clock *c)
{
    return c->is_virtual ? c->virtual_ns : monotonic_ns() - c->base_ns;
}

uint64_t host_clock_tsc(const struct host_clock *c)
{
    return c->is_virtual ? c->virtual_ns : __rdtsc(); /* virtual: 1 GHz, so one tick is one nanosecond */
}

void host_clock_advance(struct host_clock *c, uint64_t ns)
{
    if (c->is_virtual)
        c->virtual_ns += ns;
}
