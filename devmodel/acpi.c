/*
 * ACPI fixed hardware: PM1a event block, PM1a control block, power management timer (ACPI 3.0 section
 * 4.7.3). There is no SMI command port: FADT.SMI_CMD is 0, so the machine is in ACPI mode from the start
 * and SCI_EN reads 1.
 */
#include <stdlib.h>
#include "devices.h"
#include "ticks.h"

enum { PM_TIMER_HZ = 3579545, CARRY_TICKS_LOG2 = 31 };

enum { STS_TMR = 0x0001, STS_W1C = 0x8f31, EN_TMR = 0x0001, EN_BITS = 0x4721 };
enum {
    CNT_SCI_EN = 0x0001,
    CNT_BM_RLD = 0x0002,
    CNT_SLP_TYP = 0x1c00,
    CNT_SLP_TYP_SHIFT = 10,
    CNT_SLP_EN = 0x2000
};

struct acpi {
    uint16_t status, enable, control;
    uint64_t carries; /* changes of the timer's bit 31 already seen in status */
    uint64_t shown;   /* time of the timer's last reading */
    struct host_clock *clock;
    struct host_timer *timer;
    struct acpi_wiring w;
};

static uint64_t pm_ticks(const struct acpi *a)
{
    return ticks_at(host_clock_ns(a->clock), PM_TIMER_HZ);
}

/* TMR_STS, the SCI line and the host timer follow time and registers. */
static void acpi_update(struct acpi *a)
{
    uint64_t carries = pm_ticks(a) >> CARRY_TICKS_LOG2;
    if (carries != a->carries)
        a->status |= STS_TMR;
    a->carries = carries;
    bool sci = a->status & a->enable & STS_TMR;
    dev_irq_set(&a->w.sci, sci);
    if (a->enable & EN_TMR && !sci)
        host_timer_set(a->timer, ticks_to_ns((carries + 1) << CARRY_TICKS_LOG2, PM_TIMER_HZ));
    else
        host_timer_cancel(a->timer);
}

static void acpi_timer(void *ctx)
{
    acpi_update(ctx);
}

/* A byte access to a 16-bit register: which bits it covers, and its value in their place. */
static uint16_t lanes(uint64_t offset, unsigned size)
{
    return size == 2 ? 0xffff : offset ? 0xff00 : 0x00ff;
}

static uint16_t in_lanes(uint64_t offset, unsigned size, uint64_t v)
{
    return (uint16_t)(v << 8 * offset) & lanes(offset, size);
}

static uint64_t status_read(void *ctx, uint64_t offset, unsigned size)
{
    struct acpi *a = ctx;
    (void)size;
    acpi_update(a);
    return a->status >> 8 * offset;
}

static void status_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct acpi *a = ctx;
    acpi_update(a);
    a->status &= (uint16_t) ~(in_lanes(offset, size, v) & STS_W1C);
    acpi_update(a);
}

static uint64_t enable_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct acpi *a = ctx;
    (void)size;
    return a->enable >> 8 * offset;
}

static void enable_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct acpi *a = ctx;
    a->enable = ((a->enable & ~lanes(offset, size)) | in_lanes(offset, size, v)) & EN_BITS;
    acpi_update(a);
}

static uint64_t control_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct acpi *a = ctx;
    (void)size;
    return (a->control | CNT_SCI_EN) >> 8 * offset;
}

/* SLP_EN starts the transition to the state SLP_TYP names. Only S5, off, exists; \_S5 is all the DSDT
 * offers. / */
static void control_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct acpi *a = ctx;
    uint16_t bits = in_lanes(offset, size, v);
    a->control = ((a->control & ~lanes(offset, size)) | bits) & (CNT_BM_RLD | CNT_SLP_TYP);
    if (bits & CNT_SLP_EN && (a->control & CNT_SLP_TYP) >> CNT_SLP_TYP_SHIFT == ACPI_S5_TYP)
        a->w.power_off(a->w.ctx);
}

static uint64_t timer_read(void *ctx, uint64_t offset, unsigned size)
{
    struct acpi *a = ctx;
    uint64_t ns = host_clock_ns(a->clock);
    (void)size;
    ns -= a->w.lag_ns(a->w.ctx, ns);
    a->shown = ns > a->shown ? ns : a->shown; /* put back, but never before what the guest has seen */
    return (uint32_t)ticks_at(a->shown, PM_TIMER_HZ) >> 8 * offset;
}

static void timer_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    (void)ctx, (void)offset, (void)size, (void)v; /* read only */
}

static const struct dev_region ports[] = {
    {.name = "acpi status",
     .base = ACPI_PM1A_EVT,
     .size = 2,
     .read = status_read,
     .write = status_write,
     .max_size = 2},
    {.name = "acpi enable",
     .base = ACPI_PM1A_EVT + 2,
     .size = 2,
     .read = enable_read,
     .write = enable_write,
     .max_size = 2},
    {.name = "acpi control",
     .base = ACPI_PM1A_CNT,
     .size = 2,
     .read = control_read,
     .write = control_write,
     .max_size = 2},
    {.name = "acpi timer",
     .base = ACPI_PM_TMR,
     .size = 4,
     .read = timer_read,
     .write = timer_write,
     .max_size = 4},
};

void acpi_reset(struct acpi *a)
{
    a->status = a->enable = a->control = 0;
    a->carries = pm_ticks(a) >> CARRY_TICKS_LOG2;
    acpi_update(a);
}

int acpi_create(struct acpi **out, struct dev_bus *bus, struct host_loop *loop, const struct acpi_wiring *w,
                struct host_err *err)
{
    struct acpi *a = *out = calloc(1, sizeof *a);
    if (!a)
        return host_fail(err, "no memory for the ACPI registers");
    a->clock = host_loop_clock(loop);
    a->w = *w;
    a->timer = host_timer_create(loop, acpi_timer, a);
    if (!a->timer)
        return host_fail(err, "no memory for the ACPI timer's host timer");
    return bus_add_ports(bus, ports, sizeof ports / sizeof *ports, a, err);
}

void acpi_destroy(struct acpi *a)
{
    if (a && a->timer)
        host_timer_destroy(a->timer);
    free(a);
}
