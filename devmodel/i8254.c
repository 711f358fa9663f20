/*
 * 8254 interval timer at 40h-43h and the speaker port 61h. Counter 0 drives IRQ 0, counter 1 once refreshed
 * DRAM, counter 2 is gated by port 61h and can be read there.
 */
#include <stdlib.h>
#include "devices.h"
#include "i8254_counter.h"
#include "late_edge.h"
#include "ticks.h"

/*T:620 Time that a descheduled host cannot bend
 *
 * A guest measures the TSC against the 8254: it starts counter 2, reads the TSC, polls until the count has
 * gone down, reads the TSC again. If the count were advanced by host timers, every delay of the host would
 * show up as a wrong CPU frequency. So nothing here is ever "ticked". A counter only remembers the tick at
 * which it was loaded; count, OUT and the number of edges so far are worked out from the clock at the
 * moment somebody asks (i8254_counter.c).
 *
 * One thing must happen by itself: counter 0's interrupt. A host timer is set for the next rising edge, and
 * the edge number, not the timer, is the truth: when the host wakes us late, the edges that have passed are
 * owed to the guest. They are handed out one at a time, each only after the guest has taken the one before.
 * How soon after it? Not at once, or a guest whose handler takes long would do nothing else. But a guest that
 * gets a quarter of a CPU, four milliseconds out of sixteen, must be given four milliseconds' ticks of each
 * millisecond it runs, or it falls behind for ever: Linux then finds its jiffies slower than the TSC and
 * trusts the TSC no more. A sixteenth of a period is enough for a sixteenth of a CPU. What is older than a
 * second is counted as lost: a machine that was stopped for an hour need not live through it again.
 *
 * A guest that masks the timer costs nothing: the tick waits in the 8259, and as long as it does no host
 * timer runs.
 :*/

enum {
    PIT_HZ = 1193182,
    SHORTEST_GAP = 24, /* ticks: 20 us between two interrupts, whatever the guest programs */
    HANDLER_MAX =
        PIT_HZ / 20,    /* ticks: 50 ms, longer than a host's scheduler keeps us waiting in a handler */
    OWED_MAX = PIT_HZ,  /* ticks' worth of edges that may be caught up */
    HURRY = 16,         /* parts of a period between two edges that are caught up */
    REFRESH_TICKS = 18, /* counter 1's period as every PC BIOS programs it: 15 us */
};

struct i8254 {
    struct counter counter[3];
    struct host_clock *clock;
    struct host_timer *timer;
    struct i8254_wiring w;
    uint64_t delivered;     /* edges of counter 0 that were given to IRQ 0 or given up */
    uint64_t last_delivery; /* tick */
    uint64_t hold;          /* no interrupt before this tick: the guest has just seen a late edge */
    uint64_t timer_at;      /* tick the host timer is set for; UINT64_MAX: not set */
    uint64_t edges_at_mask; /* counter_edges when IRQ 0 was masked */
    struct dev_timer_counts counts;
    struct late_edge out2; /* who waits for counter 2 at port 61h */
    uint64_t out2_rise;    /* tick of its next rise, as of out2.looked */
    uint8_t port61;
};

static uint64_t pit_now(const struct i8254 *p)
{
    return ticks_at(host_clock_ns(p->clock), PIT_HZ);
}

/* ---- IRQ 0 ---- */

/* The earliest tick for the next interrupt, when so many edges are owed. */
static uint64_t pit_earliest(const struct i8254 *p, uint64_t owed)
{
    const struct counter *c = &p->counter[0];
    if (!counter_is_periodic(c))
        return 0; /* each needs a new count from the guest */
    uint64_t gap = c->period / (owed > 1 ? HURRY : 2);
    uint64_t at = p->last_delivery + (gap < SHORTEST_GAP ? SHORTEST_GAP : gap);
    return at < p->hold ? p->hold : at;
}

static void pit_schedule(struct i8254 *p, uint64_t now)
{
    struct counter *c = &p->counter[0];
    uint64_t owed = counter_edges(c, now) - p->delivered;
    uint64_t at = counter_next_edge(c, now), earliest = pit_earliest(p, owed);
    if (owed)
        at = now;
    if (at < earliest)
        at = earliest;
    if (p->w.unheard(p->w.ctx))
        at = UINT64_MAX;
    if (at ==
        p->timer_at) /* setting a host timer is a system call; a tick's handler comes here three times */
        return;
    p->timer_at = at;
    if (at == UINT64_MAX)
        host_timer_cancel(p->timer);
    else
        host_timer_set(p->timer, ticks_to_ns(at, PIT_HZ));
}

static void pit_give_up(struct i8254 *p, uint64_t edges)
{
    p->delivered += edges;
    p->counts.lost += edges;
}

/* Hand the next edge to the interrupt controller if one is due, and arrange to come back. */
static void pit_advance(struct i8254 *p)
{
    struct counter *c = &p->counter[0];
    uint64_t now = pit_now(p), due = counter_edges(c, now) - p->delivered, most = OWED_MAX / c->period + 1;
    if (due > most)
        pit_give_up(p, due - most);
    if (due && now >= pit_earliest(p, due) && !p->w.unheard(p->w.ctx)) {
        p->delivered++;
        p->counts.ticks++;
        p->last_delivery = now;
        /* In modes 2 and 3 OUT is high most of the time; only its rise matters, so the fall is made up
         * just before. */
        dev_irq_set(&p->w.irq0, false);
        dev_irq_set(&p->w.irq0, true);
    }
    pit_schedule(p, now);
}

static void pit_timer(void *ctx)
{
    struct i8254 *p = ctx;
    p->timer_at = UINT64_MAX;
    pit_advance(p);
}

void i8254_irq0_changed(struct i8254 *p, enum i8259_change what)
{
    struct counter *c = &p->counter[0];
    uint64_t now = pit_now(p), edges = counter_edges(c, now);
    if (what == I8259_MASKED) {
        p->edges_at_mask = edges;
        return;
    }
    /* Ticks that came while the guest did not want any are gone, as they would be on hardware. But Linux
     * masks the line in every interrupt handler, and a host that takes the CPU away just then would bend the
     * guest's time: a mask that was short loses nothing. */
    if (what == I8259_UNMASKED && (edges - p->edges_at_mask) * c->period > HANDLER_MAX &&
        edges > p->edges_at_mask + 1 && edges > p->delivered + 1)
        pit_give_up(p, edges - 1 - (p->delivered > p->edges_at_mask ? p->delivered : p->edges_at_mask));
    pit_schedule(p, now);
}

/* ---- Ports 40h-43h ---- */

static void pit_control(struct i8254 *p, uint64_t now, uint8_t v)
{
    unsigned select = v >> 6;
    if (select == 3) { /* read-back: bits 5 and 4 are active low */
        for (unsigned i = 0; i < 3; i++)
            if (v >> (i + 1) & 1)
                counter_latch(&p->counter[i], now, !(v & 0x20), !(v & 0x10));
        return;
    }
    if (!(v & 0x30)) {
        counter_latch(&p->counter[select], now, true, false);
        return;
    }
    counter_control(&p->counter[select], now, v);
    if (select == 0)
        p->delivered = p->edges_at_mask = 0;
}

/* A program for counter 0: its OUT may move at once. */
static void pit_irq0_program(struct i8254 *p, uint64_t offset, uint8_t v)
{
    struct counter *c = &p->counter[0];
    pit_advance(p); /* what was due under the old program stays due */
    uint64_t now = pit_now(p);
    if (offset == 3)
        pit_control(p, now, v);
    else
        counter_write(c, now, v);
    if (offset == 3 && v & 0x30)
        dev_irq_set(&p->w.irq0, counter_out(c, now));
    else if (!counter_is_periodic(c) && !counter_out(c, now))
        dev_irq_set(&p->w.irq0, false);
    pit_schedule(p, now);
}

static void pit_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct i8254 *p = ctx;
    (void)size;
    late_edge_forget(&p->out2);
    if (offset == 0 || (offset == 3 && !(v & 0xc0)))
        pit_irq0_program(p, offset, (uint8_t)v);
    else if (offset == 3)
        pit_control(p, pit_now(p), (uint8_t)v);
    else
        counter_write(&p->counter[offset], pit_now(p), (uint8_t)v);
}

static uint64_t pit_read(void *ctx, uint64_t offset, unsigned size)
{
    struct i8254 *p = ctx;
    (void)size;
    return offset == 3 ? 0xff : counter_read(&p->counter[offset], pit_now(p));
}

/* ---- Port 61h: bit 0 gate of counter 2, 1 speaker, 2-3 stored, 4 refresh toggle, 5 OUT of counter 2 ---- */

static void speaker_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct i8254 *p = ctx;
    (void)offset, (void)size;
    p->port61 = v & 0x0f;
    counter_gate(&p->counter[2], pit_now(p), v & 1);
}

/* The guest looks at OUT of counter 2 (late_edge.c). */
static bool out2_look(struct i8254 *p, uint64_t ns, uint64_t now)
{
    struct counter *c = &p->counter[2];
    if (!counter_out(c, now)) {
        late_edge_missing(&p->out2, ns);
        p->out2_rise = counter_next_edge(c, now);
        return false;
    }
    if (p->w.tsc_read && late_edge_seen(&p->out2, ns, ticks_to_ns(p->out2_rise, PIT_HZ))) {
        p->w.tsc_read(p->w.ctx); /* what it read before does not count */
        p->counts.late_edges++;
        p->hold = ticks_at(ns + LATE_EDGE_MOMENT_NS, PIT_HZ);
    }
    return true;
}

uint64_t i8254_lag_ns(struct i8254 *p, uint64_t ns)
{
    uint64_t lag = late_edge_lag(&p->out2, ns);
    if (!lag || !p->w.tsc_read(p->w.ctx))
        return lag;
    late_edge_forget(&p->out2);
    return 0;
}

static uint64_t speaker_read(void *ctx, uint64_t offset, unsigned size)
{
    struct i8254 *p = ctx;
    uint64_t ns = host_clock_ns(p->clock), now = ticks_at(ns, PIT_HZ);
    (void)offset, (void)size;
    return p->port61 | (now / REFRESH_TICKS & 1) << 4 | (uint64_t)out2_look(p, ns, now) << 5;
}

static const struct dev_region ports[] = {
    {.name = "pit", .base = 0x40, .size = 4, .read = pit_read, .write = pit_write, .max_size = 1},
    {.name = "speaker", .base = 0x61, .size = 1, .read = speaker_read, .write = speaker_write, .max_size = 1},
};

const struct dev_timer_counts *i8254_counts(const struct i8254 *p)
{
    return &p->counts;
}

/* Undefined until programmed; ours stand still with OUT high. */
void i8254_reset(struct i8254 *p)
{
    for (unsigned i = 0; i < 3; i++)
        counter_reset(&p->counter[i], i != 2);
    p->delivered = p->edges_at_mask = p->last_delivery = p->hold = 0;
    p->port61 = 0;
    late_edge_forget(&p->out2);
    p->timer_at = UINT64_MAX;
    host_timer_cancel(p->timer);
    dev_irq_set(&p->w.irq0, true);
}

int i8254_create(struct i8254 **out, struct dev_bus *bus, struct host_loop *loop,
                 const struct i8254_wiring *w, struct host_err *err)
{
    struct i8254 *p = *out = calloc(1, sizeof *p);
    if (!p)
        return host_fail(err, "no memory for the timer");
    p->clock = host_loop_clock(loop);
    p->w = *w;
    p->timer_at = UINT64_MAX;
    p->timer = host_timer_create(loop, pit_timer, p);
    if (!p->timer)
        return host_fail(err, "no memory for the timer's host timer");
    return bus_add_ports(bus, ports, sizeof ports / sizeof *ports, p, err);
}

void i8254_destroy(struct i8254 *p)
{
    if (p && p->timer)
        host_timer_destroy(p->timer);
    free(p);
}
