/*
 * One counter of an 8254, without clock, ports or interrupts: everything is a function of the tick number
 * at which it is asked. Ticks never go backwards. Numbers and mode descriptions: Intel 8254 data sheet
 * (order number 231164).
 */
#ifndef DEVMODEL_I8254_COUNTER_H
#define DEVMODEL_I8254_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

struct counter {
    uint8_t control;            /* RW, M, BCD bits of the last control word, as the status byte shows them */
    uint8_t write_low;          /* first byte of a two-byte count */
    bool write_high, read_high; /* the next byte of a pair is the high one */
    bool count_latched, status_latched;
    uint16_t latched_count;
    uint8_t latched_status;

    bool gate;
    bool armed;      /* a complete count was written since the control word */
    uint32_t reg;    /* count register: the last complete count, 1..65536 */
    uint32_t period; /* what the counting element counts from */
    bool running;    /* the counting element was loaded, at tick start (which may be the next one) */
    bool frozen;     /* modes 0 and 4 with the gate low: elapsed stands still */
    int64_t start, elapsed_frozen;
    bool reload_pending; /* modes 2 and 3: reg becomes period at tick reload_at */
    uint64_t reload_at;
    uint64_t null_until; /* null count flag is set before this tick */
    uint32_t idle_count; /* what a read shows while nothing was loaded */
    bool idle_out;
    uint64_t edges; /* rising edges of OUT before start */
};

void counter_reset(struct counter *c, bool gate);
void counter_control(struct counter *c, uint64_t now, uint8_t control); /* RW field not 0 */
void counter_write(struct counter *c, uint64_t now, uint8_t byte);
uint8_t counter_read(struct counter *c, uint64_t now);
void counter_latch(struct counter *c, uint64_t now, bool count, bool status);
void counter_gate(struct counter *c, uint64_t now, bool gate);
bool counter_out(struct counter *c, uint64_t now);
/* Rising edges of OUT since the control word, and the next tick after now at which to look again
 * (UINT64_MAX: none). */
uint64_t counter_edges(struct counter *c, uint64_t now);
uint64_t counter_next_edge(struct counter *c, uint64_t now);
bool counter_is_periodic(const struct counter *c);

#endif
