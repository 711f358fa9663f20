/*
 * A pair of 8259A interrupt controllers, cascaded as in the PC/AT: the slave's INT is the master's IR2.
 * Register and command names are those of Intel's 8259A data sheet (order number 231468); the edge/level
 * registers at 4D0h/4D1h are the PIIX's, which override ICW1's LTIM bit.
 */
#include <stdlib.h>
#include "devices.h"

/*T:610 How an interrupt reaches the CPU
 *
 * A device only raises a wire. The 8259 remembers the rising edge in IRR, drops it if the mask register
 * (IMR) has the bit set, compares its priority with what is being served (ISR), and raises INT, the one
 * wire into the CPU. The CPU answers with an acknowledge cycle, and only then does the controller decide
 * which vector to give: the best request at that moment. If the request went away in between, there must
 * still be an answer: vector 7 of the controller, with no bit in ISR, the famous spurious interrupt.
 *
 * Real hardware does all this with gates, continuously. We do it after every change of an input:
 * chip_update() computes INT afresh and tells the next stage only when it moved. The monitor therefore
 * hears of an interrupt exactly when the CPU's pin would have moved, and needs no polling.
 :*/

enum { CHIP_MASTER, CHIP_SLAVE, CASCADE_PIN = 2 };

enum { ICW1_INIT = 0x10, ICW1_SNGL = 0x02, ICW1_IC4 = 0x01 };
enum { ICW4_SFNM = 0x10, ICW4_AEOI = 0x02 };
enum { OCW2_ROTATE = 0x80, OCW2_SPECIFIC = 0x40, OCW2_EOI = 0x20 };
enum {
    OCW3_SELECT = 0x08,
    OCW3_ESMM = 0x40,
    OCW3_SMM = 0x20,
    OCW3_POLL = 0x04,
    OCW3_RR = 0x02,
    OCW3_RIS = 0x01
};

/* Pins whose trigger mode can be chosen: not the timer, keyboard, cascade, clock and FPU (82371AB,
 * ELCR1/ELCR2). */
static const uint8_t elcr_writable[2] = {0xf8, 0xde};

enum init_state { READY, EXPECT_ICW2, EXPECT_ICW3, EXPECT_ICW4 };

struct chip {
    uint8_t lines; /* input pins */
    uint8_t irr, isr, imr, elcr;
    uint8_t vector_base; /* ICW2 */
    uint8_t icw1, icw3, icw4;
    uint8_t lowest; /* the level with the lowest priority: 7 until rotated */
    bool rotate_on_aeoi, special_mask, poll, read_isr;
    enum init_state state;
    bool int_out;
};

struct i8259 {
    struct chip chip[2];
    struct i8259_wiring w;
};

static void tell(struct i8259 *p, const struct chip *c, unsigned level, enum i8259_change what)
{
    if (p->w.changed)
        p->w.changed(p->w.ctx, (c == &p->chip[CHIP_SLAVE] ? 8 : 0) + level, what);
}

/* ---- Priority resolver ---- */

/* The first level set in bits, starting with the highest priority; 8: none. */
static unsigned chip_highest(const struct chip *c, uint8_t bits)
{
    for (unsigned i = 1; bits && i <= 8; i++)
        if (bits >> ((c->lowest + i) & 7) & 1)
            return (c->lowest + i) & 7;
    return 8;
}

static unsigned chip_rank(const struct chip *c, unsigned level)
{
    return level == 8 ? 8 : (level - c->lowest - 1) & 7;
}

/* The level that may interrupt now; 8: none. */
static unsigned chip_candidate(const struct i8259 *p, const struct chip *c)
{
    unsigned level = chip_highest(c, c->irr & ~c->imr);
    if (level == 8)
        return 8;
    uint8_t serving = c->special_mask ? c->isr & ~c->imr : c->isr;
    unsigned rank = chip_rank(c, level), bar = chip_rank(c, chip_highest(c, serving));
    /* Special fully nested mode: a slave being served may interrupt again, it knows its own priorities. */
    bool nested_slave = c->icw4 & ICW4_SFNM && c == &p->chip[CHIP_MASTER] && level == CASCADE_PIN;
    return rank < bar || (rank == bar && nested_slave) ? level : 8;
}

/* ---- Pins ---- */

static void chip_update(struct i8259 *p, struct chip *c);

static void chip_input(struct i8259 *p, struct chip *c, unsigned level, bool high)
{
    uint8_t bit = (uint8_t)(1u << level);
    if (high) {
        if (!(c->lines & bit) || c->elcr & bit)
            c->irr |= bit;
        c->lines |= bit;
    } else { /* a request must stay until it is acknowledged, in edge mode too */
        c->lines &= (uint8_t)~bit;
        c->irr &= (uint8_t)~bit;
    }
    chip_update(p, c);
}

static void chip_set_int(struct i8259 *p, struct chip *c, bool high)
{
    if (c->int_out == high)
        return;
    c->int_out = high;
    if (c == &p->chip[CHIP_SLAVE])
        chip_input(p, &p->chip[CHIP_MASTER], CASCADE_PIN, high);
    else
        dev_irq_set(&p->w.intr, high);
}

static void chip_update(struct i8259 *p, struct chip *c)
{
    chip_set_int(p, c, chip_candidate(p, c) != 8);
}

static void i8259_set_pin(void *ctx, unsigned irq, bool high)
{
    struct i8259 *p = ctx;
    chip_input(p, &p->chip[irq >> 3 & 1], irq & 7, high);
}

struct dev_irq i8259_pin(struct i8259 *p, unsigned irq)
{
    return (struct dev_irq){i8259_set_pin, p, irq & 15};
}

/* ---- Acknowledge ---- */

static void chip_end(struct chip *c, unsigned level, bool rotate)
{
    if (level == 8)
        return;
    c->isr &= (uint8_t) ~(1u << level);
    if (rotate)
        c->lowest = (uint8_t)level;
}

/* One INTA sequence (or poll read) seen by this chip: returns the level, 8 if there is no request any
 * more. / */
static unsigned chip_take(struct i8259 *p, struct chip *c)
{
    unsigned level = chip_candidate(p, c);
    if (level == 8)
        return 8;
    uint8_t bit = (uint8_t)(1u << level);
    c->isr |= bit;
    if (!(c->elcr & bit))
        c->irr &= (uint8_t)~bit;
    if (c->icw4 & ICW4_AEOI)
        chip_end(c, level, c->rotate_on_aeoi);
    /* INT falls with the acknowledge; a further request makes a new edge, which a cascaded master needs. */
    chip_set_int(p, c, false);
    chip_update(p, c);
    tell(p, c, level, I8259_TAKEN);
    return level;
}

static bool chip_has_slave(const struct chip *master, unsigned level)
{
    return level == CASCADE_PIN && !(master->icw1 & ICW1_SNGL) && master->icw3 & 1u << level;
}

uint8_t i8259_acknowledge(struct i8259 *p)
{
    struct chip *c = &p->chip[CHIP_MASTER];
    unsigned level = chip_take(p, c);
    if (chip_has_slave(c, level)) {
        c = &p->chip[CHIP_SLAVE];
        level = chip_take(p, c);
    }
    return c->vector_base | (level & 7) | (level == 8 ? 7 : 0);
}

bool i8259_int(const struct i8259 *p)
{
    return p->chip[CHIP_MASTER].int_out;
}

bool i8259_requested(const struct i8259 *p, unsigned irq)
{
    return p->chip[irq >> 3 & 1].irr >> (irq & 7) & 1;
}

/* ---- Commands ---- */

static void chip_set_mask(struct i8259 *p, struct chip *c, uint8_t imr)
{
    uint8_t moved = c->imr ^ imr;
    c->imr = imr;
    for (unsigned i = 0; moved >> i; i++)
        if (moved >> i & 1)
            tell(p, c, i, imr >> i & 1 ? I8259_MASKED : I8259_UNMASKED);
}

static void chip_icw1(struct i8259 *p, struct chip *c, uint8_t v)
{
    uint8_t forgotten = c->irr & (uint8_t)~c->elcr;
    c->icw1 = v;
    c->irr = c->lines & c->elcr; /* the edge detectors start anew: a line must go low and high again */
    c->isr = 0;
    c->lowest = 7;
    c->icw3 = c == &p->chip[CHIP_SLAVE] ? 7 : 0;
    c->rotate_on_aeoi = c->special_mask = c->poll = c->read_isr = false;
    if (!(v & ICW1_IC4))
        c->icw4 = 0;
    c->state = EXPECT_ICW2;
    chip_set_mask(p, c, 0);
    for (unsigned i = 0; i < 8; i++)
        if (forgotten >> i & 1)
            tell(p, c, i, I8259_TAKEN);
}

static void chip_ocw2(struct chip *c, uint8_t v)
{
    unsigned level = v & 7;
    bool rotate = v & OCW2_ROTATE;
    if (!(v & OCW2_EOI)) { /* 000/100: rotate in automatic EOI mode; 110: set priority; 010: nothing */
        if (!(v & OCW2_SPECIFIC))
            c->rotate_on_aeoi = rotate;
        else if (rotate)
            c->lowest = (uint8_t)level;
        return;
    }
    if (!(v &
          OCW2_SPECIFIC)) /* in special mask mode a masked level does not take part in a non-specific EOI */
        level = chip_highest(c, c->special_mask ? c->isr & ~c->imr : c->isr);
    chip_end(c, level, rotate);
}

static void chip_ocw3(struct chip *c, uint8_t v)
{
    if (v & OCW3_ESMM)
        c->special_mask = v & OCW3_SMM;
    if (v & OCW3_RR)
        c->read_isr = v & OCW3_RIS;
    c->poll = v & OCW3_POLL;
}

static void chip_command(struct i8259 *p, struct chip *c, uint8_t v)
{
    if (v & ICW1_INIT)
        chip_icw1(p, c, v);
    else if (v & OCW3_SELECT)
        chip_ocw3(c, v);
    else
        chip_ocw2(c, v);
    chip_update(p, c);
}

static enum init_state chip_after_icw3(const struct chip *c)
{
    return c->icw1 & ICW1_IC4 ? EXPECT_ICW4 : READY;
}

static void chip_data(struct i8259 *p, struct chip *c, uint8_t v)
{
    switch (c->state) {
    case READY:
        chip_set_mask(p, c, v);
        break;
    case EXPECT_ICW2:
        c->vector_base = v & 0xf8;
        c->state = c->icw1 & ICW1_SNGL ? chip_after_icw3(c) : EXPECT_ICW3;
        break;
    case EXPECT_ICW3:
        c->icw3 = v;
        c->state = chip_after_icw3(c);
        break;
    case EXPECT_ICW4:
        c->icw4 = v;
        c->state = READY;
        break;
    }
    chip_update(p, c);
}

/* ---- Ports ---- */

static void pic_write(void *ctx, uint64_t offset, unsigned which, uint64_t v)
{
    struct i8259 *p = ctx;
    if (offset)
        chip_data(p, &p->chip[which], (uint8_t)v);
    else
        chip_command(p, &p->chip[which], (uint8_t)v);
}

static uint64_t pic_read(void *ctx, uint64_t offset, unsigned which)
{
    struct i8259 *p = ctx;
    struct chip *c = &p->chip[which];
    if (c->poll) { /* the read itself is the acknowledge */
        c->poll = false;
        unsigned level = chip_take(p, c);
        return level == 8 ? 0 : 0x80 | level;
    }
    return offset ? c->imr : c->read_isr ? c->isr : c->irr;
}

static uint64_t master_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)size;
    return pic_read(ctx, offset, CHIP_MASTER);
}

static void master_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    (void)size;
    pic_write(ctx, offset, CHIP_MASTER, v);
}

static uint64_t slave_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)size;
    return pic_read(ctx, offset, CHIP_SLAVE);
}

static void slave_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    (void)size;
    pic_write(ctx, offset, CHIP_SLAVE, v);
}

static uint64_t elcr_read(void *ctx, uint64_t offset, unsigned size)
{
    struct i8259 *p = ctx;
    (void)size;
    return p->chip[offset & 1].elcr;
}

static void elcr_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct i8259 *p = ctx;
    struct chip *c = &p->chip[offset & 1];
    (void)size;
    c->elcr = (uint8_t)v & elcr_writable[offset & 1];
    c->irr = (uint8_t)((c->irr & ~c->elcr) | (c->lines & c->elcr));
    chip_update(p, c);
}

static const struct dev_region ports[] = {
    {.name = "pic master",
     .base = 0x20,
     .size = 2,
     .read = master_read,
     .write = master_write,
     .max_size = 1},
    {.name = "pic slave", .base = 0xa0, .size = 2, .read = slave_read, .write = slave_write, .max_size = 1},
    {.name = "pic elcr", .base = 0x4d0, .size = 2, .read = elcr_read, .write = elcr_write, .max_size = 1},
};

/* Before ICW1 the chip's state is undefined. We leave what a PC BIOS leaves, except that everything is
 * masked. */
void i8259_reset(struct i8259 *p)
{
    for (unsigned i = 0; i < 2; i++) {
        struct chip *c = &p->chip[i];
        uint8_t lines = c->lines & (uint8_t)(i == CHIP_MASTER ? ~(1u << CASCADE_PIN) : ~0u);
        bool was = c->int_out;
        *c = (struct chip){
            .lines = lines, .imr = 0xff, .lowest = 7, .icw1 = 0x11, .icw4 = 0x01, .int_out = was};
        c->vector_base = i == CHIP_MASTER ? 0x08 : 0x70;
        c->icw3 = i == CHIP_MASTER ? 1u << CASCADE_PIN : CASCADE_PIN;
    }
    chip_update(p, &p->chip[CHIP_SLAVE]);
    chip_update(p, &p->chip[CHIP_MASTER]);
}

int i8259_create(struct i8259 **out, struct dev_bus *bus, const struct i8259_wiring *w, struct host_err *err)
{
    struct i8259 *p = *out = calloc(1, sizeof *p);
    if (!p)
        return host_fail(err, "no memory for the interrupt controllers");
    p->w = *w;
    i8259_reset(p);
    return bus_add_ports(bus, ports, sizeof ports / sizeof *ports, p, err);
}

void i8259_destroy(struct i8259 *p)
{
    free(p);
}
