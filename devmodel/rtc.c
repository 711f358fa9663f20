/*
 * MC146818 real-time clock and the CMOS memory behind ports 70h/71h, interrupt line 8. Register names,
 * update cycle and flags are those of Motorola's data sheet (MC146818A, ADI856); the meaning of bytes
 * 0Eh-7Fh is the PC/AT BIOS's. The century is kept in byte 32h, where FADT.CENTURY says it is.
 *
 * The clock is a difference to guest time, not a counter: seconds = (guest time - base) + seconds at base.
 * It keeps running over a reset, as a battery-backed chip does.
 */
#include <stdlib.h>
#include <string.h>
#include "devices.h"
#include "ticks.h"

enum {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    CMOS_FIRST,
    CENTURY = 0x32,
    CMOS_SIZE = 0x80,
};

enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_DIVIDER_RESET = 0x60, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VRT = 0x80 };

enum {
    CRYSTAL_HZ = 32768,
    UPDATE_NS = 244000 + 1984000, /* UIP rises t_BUC before the update cycle, which takes t_UC */
    DAY_SECONDS = 86400,
    FIRST_UPDATE = 500000000, /* ns from the end of a divider reset to the first update */
};

struct rtc {
    uint8_t cmos[CMOS_SIZE]; /* time registers are valid only while the clock is stopped */
    uint8_t index;
    struct host_clock *clock;
    struct host_timer *timer;
    struct dev_irq irq;
    int64_t base_seconds;   /* since 1970, at base_ns */
    int64_t base_ns;        /* guest time of a second's start; may lie in the future or before 0 */
    int weekday_shift;      /* the weekday register counts on its own */
    int64_t settled_second; /* flags are up to date up to here */
    uint64_t settled_period;
};

/* ---- Calendar ---- */

struct date {
    int64_t year;
    unsigned month, day; /* from 1 */
};

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Days since 1970-01-01 in the Gregorian calendar. Years start in March so that the leap day comes last;
 * 400 years have 146097 days. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year, era = floor_div(y, 400), in_era = y - era * 400;
    int64_t in_year = (153 * ((int64_t)month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

static struct date date_of(int64_t days)
{
    int64_t z = days + 719468, era = floor_div(z, 146097), in_era = z - era * 146097;
    int64_t y = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * y + y / 4 - y / 100), m = (5 * in_year + 2) / 153;
    struct date d = {.year = era * 400 + y, .day = (unsigned)(in_year - (153 * m + 2) / 5 + 1)};
    d.month = (unsigned)(m < 10 ? m + 3 : m - 9);
    d.year += d.month <= 2;
    return d;
}

/* ---- The number format of the registers ---- */

static uint8_t encode(const struct rtc *r, unsigned v)
{
    return (uint8_t)(r->cmos[REG_B] & B_BINARY ? v : v / 10 % 10 << 4 | v % 10);
}

static unsigned decode(const struct rtc *r, uint8_t v)
{
    return r->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hours(const struct rtc *r, unsigned hours)
{
    if (r->cmos[REG_B] & B_24H)
        return encode(r, hours);
    return encode(r, hours % 12 ? hours % 12 : 12) | (hours >= 12 ? 0x80 : 0);
}

static unsigned decode_hours(const struct rtc *r, uint8_t v)
{
    if (r->cmos[REG_B] & B_24H)
        return decode(r, v) % 24;
    return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

/* ---- Running and stopping ---- */

static bool divider_is_reset(const struct rtc *r)
{
    return (r->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static bool rtc_is_stopped(const struct rtc *r)
{
    return r->cmos[REG_B] & B_SET || divider_is_reset(r);
}

static int64_t rtc_ns(const struct rtc *r)
{
    return (int64_t)host_clock_ns(r->clock);
}

static int64_t rtc_second_index(const struct rtc *r)
{
    return floor_div(rtc_ns(r) - r->base_ns, (int64_t)NS_PER_S);
}

static int64_t rtc_seconds(const struct rtc *r)
{
    return r->base_seconds + rtc_second_index(r);
}

static void time_to_registers(struct rtc *r, uint8_t *reg)
{
    int64_t now = rtc_seconds(r), days = floor_div(now, DAY_SECONDS), tod = now - days * DAY_SECONDS;
    struct date d = date_of(days);
    reg[SECONDS] = encode(r, (unsigned)(tod % 60));
    reg[MINUTES] = encode(r, (unsigned)(tod / 60 % 60));
    reg[HOURS] = encode_hours(r, (unsigned)(tod / 3600));
    int64_t weekday = (days + 4 + r->weekday_shift) % 7; /* 1970-01-01 was a Thursday; Sunday is 1 */
    reg[WEEKDAY] = encode(r, (unsigned)((weekday + 7) % 7 + 1));
    reg[DAY] = encode(r, d.day);
    reg[MONTH] = encode(r, d.month);
    reg[YEAR] = encode(r, (unsigned)(d.year % 100));
    reg[CENTURY] = encode(r, (unsigned)(d.year / 100));
}

static unsigned within(unsigned v, unsigned low, unsigned high)
{
    return v < low ? low : v > high ? high : v;
}

/* Make the time registers the clock's time; nonsense is forced into range since something must be shown
 * next second. */
static void time_from_registers(struct rtc *r)
{
    const uint8_t *reg = r->cmos;
    int64_t year = within(decode(r, reg[CENTURY]), 0, 99) * 100 + within(decode(r, reg[YEAR]), 0, 99);
    int64_t days = days_of(year, within(decode(r, reg[MONTH]), 1, 12), within(decode(r, reg[DAY]), 1, 31));
    int64_t seconds = days * DAY_SECONDS + decode_hours(r, reg[HOURS]) * 3600 +
                      within(decode(r, reg[MINUTES]), 0, 59) * 60 + within(decode(r, reg[SECONDS]), 0, 59);
    r->base_seconds = seconds - rtc_second_index(r);
    int64_t weekday = (days + 4) % 7;
    r->weekday_shift = (int)(within(decode(r, reg[WEEKDAY]), 1, 7) - 1) - (int)weekday;
}

/* ---- Flags and interrupts ---- */

static uint64_t period_in_crystal_ticks(const struct rtc *r)
{
    unsigned rate = r->cmos[REG_A] & A_RATE;
    if (!rate || divider_is_reset(r))
        return 0;
    return 1u << (rate <= 2 ? rate + 6
                            : rate - 1); /* 256 Hz and 128 Hz come first, then 8192 Hz down to 2 Hz */
}

static uint64_t crystal_ticks(const struct rtc *r)
{
    int64_t ns = rtc_ns(r) - r->base_ns;
    return ns < 0 ? 0 : ticks_at((uint64_t)ns, CRYSTAL_HZ);
}

static bool alarm_byte_matches(uint8_t alarm, uint8_t now)
{
    return alarm >= 0xc0 || alarm == now;
}

/* Seconds from `from` (inclusive) to the next one the alarm registers match, at most a day; -1: none. */
static int64_t alarm_distance(const struct rtc *r, int64_t from)
{
    int64_t t = from, end = from + DAY_SECONDS;
    while (t < end) {
        int64_t tod = t - floor_div(t, DAY_SECONDS) * DAY_SECONDS;
        if (!alarm_byte_matches(r->cmos[HOURS_ALARM], encode_hours(r, (unsigned)(tod / 3600))))
            t += 3600 - tod % 3600;
        else if (!alarm_byte_matches(r->cmos[MINUTES_ALARM], encode(r, (unsigned)(tod / 60 % 60))))
            t += 60 - tod % 60;
        else if (!alarm_byte_matches(r->cmos[SECONDS_ALARM], encode(r, (unsigned)(tod % 60))))
            t++;
        else
            return t - from;
    }
    return -1;
}

/* Bring the flags up to now. */
static void rtc_settle(struct rtc *r)
{
    uint64_t period = period_in_crystal_ticks(r);
    if (period) {
        uint64_t count = crystal_ticks(r) / period;
        if (count > r->settled_period)
            r->cmos[REG_C] |= C_PF;
        r->settled_period = count;
    }
    int64_t second = rtc_second_index(r);
    int64_t passed = second - r->settled_second;
    if (passed > 0 && !rtc_is_stopped(r)) {
        int64_t alarm = alarm_distance(r, r->base_seconds + second - passed + 1);
        r->cmos[REG_C] |= C_UF | (alarm >= 0 && alarm < passed ? C_AF : 0);
    }
    r->settled_second = second;
}

/* When a flag that is enabled and not yet set will be set; -1: never. */
static int64_t rtc_next_event(const struct rtc *r)
{
    uint8_t wanted = r->cmos[REG_B] & (uint8_t)~r->cmos[REG_C];
    uint64_t period = period_in_crystal_ticks(r);
    int64_t at = INT64_MAX, second = rtc_second_index(r);
    if (wanted & B_PIE && period)
        at = r->base_ns + (int64_t)ticks_to_ns((crystal_ticks(r) / period + 1) * period, CRYSTAL_HZ);
    if (!rtc_is_stopped(r)) {
        int64_t ahead = wanted & B_UIE   ? 0
                        : wanted & B_AIE ? alarm_distance(r, r->base_seconds + second + 1)
                                         : -1;
        int64_t update = r->base_ns + (second + 1 + ahead) * (int64_t)NS_PER_S;
        if (ahead >= 0 && update < at)
            at = update;
    }
    return at == INT64_MAX ? -1 : at;
}

/* Interrupt line and host timer follow the registers. */
static void rtc_update(struct rtc *r)
{
    rtc_settle(r);
    bool irq = r->cmos[REG_C] & r->cmos[REG_B] & (C_PF | C_AF | C_UF);
    r->cmos[REG_C] = (uint8_t)((r->cmos[REG_C] & ~C_IRQF) | (irq ? C_IRQF : 0));
    dev_irq_set(&r->irq, irq);
    int64_t at = irq ? -1 : rtc_next_event(r); /* the line is high already: nothing new can be said */
    if (at < 0)
        host_timer_cancel(r->timer);
    else
        host_timer_set(r->timer, (uint64_t)at);
}

static void rtc_timer(void *ctx)
{
    rtc_update(ctx);
}

/* ---- Registers ---- */

static bool is_time_register(unsigned i)
{
    return (i <= YEAR && i != SECONDS_ALARM && i != MINUTES_ALARM && i != HOURS_ALARM) || i == CENTURY;
}

/* UIP: the time is about to change; a guest that sees 0 has t_BUC = 244 us to read it. */
static bool rtc_updates_soon(const struct rtc *r)
{
    int64_t into = rtc_ns(r) - r->base_ns - rtc_second_index(r) * (int64_t)NS_PER_S;
    return !rtc_is_stopped(r) && into >= (int64_t)NS_PER_S - UPDATE_NS;
}

/* The clock stops with its last time in the registers and goes on from whatever is there. */
static void rtc_write_control(struct rtc *r, unsigned index, uint8_t v)
{
    bool was_stopped = rtc_is_stopped(r), was_reset = divider_is_reset(r);
    rtc_settle(r);
    uint8_t time[CMOS_SIZE];
    time_to_registers(r, time);
    if (index == REG_B && v & B_SET)
        v &= (uint8_t)~B_UIE;
    r->cmos[index] = index == REG_A ? v & (uint8_t)~A_UIP : v;
    if (!was_stopped && rtc_is_stopped(r))
        for (unsigned i = 0; i < CMOS_SIZE; i++)
            if (is_time_register(i))
                r->cmos[i] = time[i];
    if (was_reset && !divider_is_reset(r)) /* the divider chain starts: keep seconds, move their start */
        r->base_ns = rtc_ns(r) + FIRST_UPDATE - (int64_t)NS_PER_S;
    if (was_stopped && !rtc_is_stopped(r))
        time_from_registers(r);
    r->settled_second = rtc_second_index(r);
    uint64_t period = period_in_crystal_ticks(r);
    r->settled_period = period ? crystal_ticks(r) / period : 0;
}

static void rtc_write_time(struct rtc *r, unsigned index, uint8_t v)
{
    uint8_t time[CMOS_SIZE];
    if (!rtc_is_stopped(r)) {
        time_to_registers(r, time);
        for (unsigned i = 0; i < CMOS_SIZE; i++)
            if (is_time_register(i))
                r->cmos[i] = time[i];
    }
    r->cmos[index] = v;
    if (!rtc_is_stopped(r))
        time_from_registers(r);
}

static void rtc_write(struct rtc *r, unsigned index, uint8_t v)
{
    if (index == REG_C || index == REG_D)
        return;
    if (is_time_register(index))
        rtc_write_time(r, index, v);
    else if (index == REG_A || index == REG_B)
        rtc_write_control(r, index, v);
    else
        r->cmos[index] = v;
    if (index < CMOS_FIRST)
        rtc_update(r);
}

static uint8_t rtc_read(struct rtc *r, unsigned index)
{
    uint8_t time[CMOS_SIZE];
    if (is_time_register(index) && !rtc_is_stopped(r)) {
        time_to_registers(r, time);
        return time[index];
    }
    if (index == REG_A)
        return r->cmos[REG_A] | (rtc_updates_soon(r) ? A_UIP : 0);
    if (index == REG_C) {
        rtc_settle(r);
        uint8_t v = r->cmos[REG_C];
        v |= v & r->cmos[REG_B] & (C_PF | C_AF | C_UF) ? C_IRQF : 0;
        r->cmos[REG_C] = 0; /* reading clears all flags and releases the line */
        rtc_update(r);
        return v;
    }
    return r->cmos[index];
}

/* ---- Ports: 70h selects (bit 7 masks NMI, of which this machine has none), 71h is the data ---- */

static uint64_t port_read(void *ctx, uint64_t offset, unsigned size)
{
    struct rtc *r = ctx;
    (void)size;
    return offset ? rtc_read(r, r->index) : 0xff; /* 70h is write only */
}

static void port_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct rtc *r = ctx;
    (void)size;
    if (offset)
        rtc_write(r, r->index, (uint8_t)v);
    else
        r->index = v & 0x7f;
}

static const struct dev_region ports[] = {
    {.name = "rtc", .base = 0x70, .size = 2, .read = port_read, .write = port_write, .max_size = 1},
};

void rtc_cmos_set(struct rtc *r, unsigned index, uint8_t value)
{
    if (index >= CMOS_FIRST && index < CMOS_SIZE && index != CENTURY)
        r->cmos[index] = value;
}

void rtc_cmos_seal(struct rtc *r)
{
    unsigned sum = 0;
    for (unsigned i = 0x10; i <= 0x2d; i++)
        sum += r->cmos[i];
    r->cmos[0x2e] = (uint8_t)(sum >> 8);
    r->cmos[0x2f] = (uint8_t)sum;
}

/* RESET clears the interrupt enables and flags; time and memory live on. A BIOS would have started the
 * clock. / */
void rtc_reset(struct rtc *r)
{
    if (rtc_is_stopped(r))
        rtc_write_control(r, REG_B, r->cmos[REG_B] & (uint8_t)~B_SET);
    if (divider_is_reset(r))
        rtc_write_control(r, REG_A, 0x26);
    rtc_write_control(r, REG_B, r->cmos[REG_B] & (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE));
    r->index = 0;
    r->cmos[REG_C] = 0;
    rtc_update(r);
}

int rtc_create(struct rtc **out, struct dev_bus *bus, struct host_loop *loop, struct dev_irq irq8,
               uint64_t epoch, struct host_err *err)
{
    struct rtc *r = *out = calloc(1, sizeof *r);
    if (!r)
        return host_fail(err, "no memory for the real-time clock");
    if (epoch > UINT64_C(253402300799)) /* end of the year 9999: two digits of century */
        return host_fail(err, "the real-time clock cannot show a time beyond the year 9999");
    r->clock = host_loop_clock(loop);
    r->irq = irq8;
    r->base_seconds = (int64_t)epoch;
    r->cmos[REG_A] = 0x26; /* 32.768 kHz, 1024 Hz */
    r->cmos[REG_B] = B_24H;
    r->cmos[REG_D] = D_VRT;
    r->timer = host_timer_create(loop, rtc_timer, r);
    if (!r->timer)
        return host_fail(err, "no memory for the real-time clock's host timer");
    return bus_add_ports(bus, ports, sizeof ports / sizeof *ports, r, err);
}

void rtc_destroy(struct rtc *r)
{
    if (r && r->timer)
        host_timer_destroy(r->timer);
    free(r);
}
