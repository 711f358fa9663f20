/*
 * A device clock of hz as a function of absolute guest time. Converting the absolute time, and not
 * differences, is what keeps a periodic timer free of drift: rounding never accumulates.
 */
#ifndef DEVMODEL_TICKS_H
#define DEVMODEL_TICKS_H

#include <stdint.h>

#define NS_PER_S UINT64_C(1000000000)

/* Clock edges at or before ns. */
static inline uint64_t ticks_at(uint64_t ns, uint64_t hz)
{
    return (uint64_t)((unsigned __int128)ns * hz / NS_PER_S);
}

/* The first nanosecond at which ticks_at() is at least tick; UINT64_MAX for a tick beyond all time. */
static inline uint64_t ticks_to_ns(uint64_t tick, uint64_t hz)
{
    unsigned __int128 ns = ((unsigned __int128)tick * NS_PER_S + hz - 1) / hz;
    return ns > UINT64_MAX ? UINT64_MAX : (uint64_t)ns;
}

#endif
