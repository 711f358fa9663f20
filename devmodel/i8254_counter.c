/* One counter of an 8254: see the header. */
#include "i8254_counter.h"

enum { RW_LOW = 1, RW_HIGH = 2, RW_BOTH = 3 };

static unsigned counter_mode(const struct counter *c)
{
    unsigned mode = c->control >> 1 & 7;
    return mode > 5 ? mode - 4 : mode; /* X10 and X11 */
}

bool counter_is_periodic(const struct counter *c)
{
    return counter_mode(c) == 2 || counter_mode(c) == 3;
}

static bool counter_is_triggered(const struct counter *c)
{
    return counter_mode(c) == 1 || counter_mode(c) == 5;
}

static uint32_t counter_modulus(const struct counter *c)
{
    return c->control & 1 ? 10000 : 65536;
}

/* Ticks since the counting element was loaded; negative while the load is still to come. */
static int64_t counter_elapsed(const struct counter *c, uint64_t now)
{
    return c->frozen ? c->elapsed_frozen : (int64_t)now - c->start;
}

/* Mode 3: OUT is high for the first half, the longer one if the count is odd. */
static uint32_t high_half(uint32_t period)
{
    return (period + 1) / 2;
}

/* Let a count that waited for the end of the period take over. */
static void counter_settle(struct counter *c, uint64_t now)
{
    if (!c->reload_pending || !c->running || now < c->reload_at)
        return;
    uint64_t done = c->reload_at - (uint64_t)c->start;
    c->edges += done / c->period;
    c->start = (int64_t)c->reload_at;
    if (done % c->period) /* mode 3, between the halves: the low half goes on with the new count */
        c->start -= high_half(c->reg);
    c->period = c->reg;
    c->reload_pending = false;
}

/* ---- Counting ---- */

static uint32_t square_count(uint32_t period, uint32_t e)
{
    uint32_t high = high_half(period);
    uint32_t in_half = e < high ? e : e - high;
    return (period & ~1u) -
           2 * in_half; /* an odd count is loaded less one and spends one tick at zero when high */
}

static uint32_t counter_count(struct counter *c, uint64_t now)
{
    counter_settle(c, now);
    int64_t e = c->running ? counter_elapsed(c, now) : -1;
    if (e < 0)
        return c->idle_count;
    if (counter_mode(c) == 2)
        return c->period - (uint32_t)((uint64_t)e % c->period);
    if (counter_mode(c) == 3)
        return square_count(c->period, (uint32_t)((uint64_t)e % c->period));
    uint32_t modulus = counter_modulus(c); /* the others go through zero and on */
    return (c->period + modulus * 2 - (uint32_t)((uint64_t)e % modulus)) % modulus;
}

bool counter_out(struct counter *c, uint64_t now)
{
    counter_settle(c, now);
    int64_t e = c->running ? counter_elapsed(c, now) : -1;
    if (e < 0)
        return c->idle_out;
    switch (counter_mode(c)) {
    case 0:
    case 1:
        return e >= c->period;
    case 2:
        return (uint64_t)e % c->period != c->period - 1;
    case 3:
        return (uint64_t)e % c->period < high_half(c->period);
    default:
        return e != c->period;
    }
}

uint64_t counter_edges(struct counter *c, uint64_t now)
{
    counter_settle(c, now);
    int64_t e = c->running ? counter_elapsed(c, now) : -1;
    if (e < 0)
        return c->edges;
    if (counter_is_periodic(c))
        return c->edges + (uint64_t)e / c->period;
    return c->edges + (e >= c->period + (counter_mode(c) >= 4));
}

uint64_t counter_next_edge(struct counter *c, uint64_t now)
{
    counter_settle(c, now);
    if (!c->running || c->frozen)
        return UINT64_MAX;
    int64_t e = counter_elapsed(c, now);
    if (counter_is_periodic(c)) {
        uint64_t next = (uint64_t)c->start + (e < 0 ? 1 : (uint64_t)e / c->period + 1) * c->period;
        return c->reload_pending && c->reload_at < next ? c->reload_at : next;
    }
    int64_t at = c->period + (counter_mode(c) >= 4);
    return e < at ? (uint64_t)(c->start + at) : UINT64_MAX;
}

/* ---- Loading ---- */

/* What OUT and the count show until the counting element is loaded at the next clock. */
static void counter_keep(struct counter *c, uint64_t now, bool out)
{
    c->idle_count = counter_count(c, now);
    c->edges = counter_edges(c, now);
    c->idle_out = out;
    c->running = c->frozen = c->reload_pending = false;
}

static void counter_start(struct counter *c, uint64_t now)
{
    c->period = c->reg;
    c->start = (int64_t)now + 1;
    c->running = true;
    c->null_until = now + 1;
}

void counter_control(struct counter *c, uint64_t now, uint8_t control)
{
    counter_keep(c, now, false);
    c->control = control & 0x3f;
    c->idle_out = counter_mode(c) != 0;
    c->edges = 0;
    c->armed = false;
    c->null_until = UINT64_MAX;
    c->write_high = c->read_high = c->count_latched = c->status_latched = false;
}

/* A new count while one is being counted: the period, or in mode 3 the half, is finished first. */
static void counter_reload_later(struct counter *c, uint64_t now)
{
    counter_settle(c, now);
    int64_t e = counter_elapsed(c, now);
    c->null_until = now + 1;
    if (e < 0) { /* the count before was not even loaded yet */
        c->period = c->reg;
        return;
    }
    uint64_t into = (uint64_t)e % c->period, left = c->period - into;
    if (counter_mode(c) == 3 && into < high_half(c->period))
        left = high_half(c->period) - into;
    c->reload_pending = true;
    c->reload_at = now + left;
    c->null_until = c->reload_at;
}

static void counter_load(struct counter *c, uint64_t now, uint32_t count)
{
    uint32_t digits = (count >> 12) * 1000 + (count >> 8 & 15) * 100 + (count >> 4 & 15) * 10 + (count & 15);
    if (c->control & 1)
        count = digits;
    if (!count)
        count = counter_modulus(c);
    if (count == 1 && counter_is_periodic(c))
        count = 2; /* illegal by the data sheet; the shortest period there is */
    counter_settle(c, now);
    c->reg = count;
    c->armed = true;
    c->null_until = UINT64_MAX;
    if (counter_is_triggered(c))
        return; /* waits for the gate */
    if (counter_is_periodic(c)) {
        if (c->running)
            counter_reload_later(c, now);
        else if (c->gate)
            counter_start(c, now);
        return;
    }
    counter_keep(c, now, counter_mode(c) != 0);
    counter_start(c, now);
    if (!c->gate) { /* loaded all the same, but stands */
        c->frozen = true;
        c->elapsed_frozen = 0;
    }
}

void counter_gate(struct counter *c, uint64_t now, bool gate)
{
    if (c->gate == gate)
        return;
    c->gate = gate;
    if (!counter_is_periodic(c) && !counter_is_triggered(c)) { /* modes 0 and 4: the gate enables counting */
        if (!c->running)
            return;
        int64_t e = counter_elapsed(c, now);
        c->frozen = !gate;
        c->elapsed_frozen = e < 0 ? 0 : e;
        c->start = (int64_t)now - c->elapsed_frozen;
        return;
    }
    if (gate && c->armed) { /* a trigger */
        counter_keep(c, now, counter_out(c, now));
        counter_start(c, now);
    } else if (!gate && counter_is_periodic(c)) {
        counter_keep(c, now, true);
    }
}

/* ---- Bytes ---- */

void counter_write(struct counter *c, uint64_t now, uint8_t byte)
{
    switch (c->control >> 4 & 3) {
    case RW_LOW:
        counter_load(c, now, byte);
        break;
    case RW_HIGH:
        counter_load(c, now, (uint32_t)byte << 8);
        break;
    case RW_BOTH:
        if (c->write_high) {
            c->write_high = false;
            counter_load(c, now, (uint32_t)byte << 8 | c->write_low);
            break;
        }
        c->write_high = true;
        c->write_low = byte;
        if (counter_mode(c) == 0) /* the first byte stops the counter and OUT falls */
            counter_keep(c, now, false);
        break;
    default:
        break; /* never programmed */
    }
}

static uint16_t counter_visible(struct counter *c, uint64_t now)
{
    uint32_t v = counter_count(c, now);
    if (!(c->control & 1))
        return (uint16_t)v;
    v %= 10000;
    return (uint16_t)(v / 1000 << 12 | v / 100 % 10 << 8 | v / 10 % 10 << 4 | v % 10);
}

void counter_latch(struct counter *c, uint64_t now, bool count, bool status)
{
    if (status && !c->status_latched) {
        c->status_latched = true;
        c->latched_status = (uint8_t)(counter_out(c, now) << 7 | (now < c->null_until) << 6 | c->control);
    }
    if (count && !c->count_latched) {
        c->count_latched = true;
        c->latched_count = counter_visible(c, now);
    }
}

uint8_t counter_read(struct counter *c, uint64_t now)
{
    if (c->status_latched) { /* the first read returns the status, whichever was latched first */
        c->status_latched = false;
        return c->latched_status;
    }
    uint16_t v = c->count_latched ? c->latched_count : counter_visible(c, now);
    unsigned rw = c->control >> 4 & 3;
    bool high = rw == RW_HIGH || (rw == RW_BOTH && c->read_high);
    if (rw == RW_BOTH)
        c->read_high = !c->read_high;
    if (rw != RW_BOTH || high)
        c->count_latched = false;
    return (uint8_t)(high ? v >> 8 : v);
}

void counter_reset(struct counter *c, bool gate)
{
    *c = (struct counter){.control = 0x30 | 3 << 1, .gate = gate, .null_until = UINT64_MAX, .idle_out = true};
    c->period = c->reg = 65536;
}
