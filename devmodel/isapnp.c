/*
 * A Plug and Play ISA card that does nothing (Plug and Play ISA Specification 1.0a; section numbers below are
 * its). It is on the board because of how kernels look for such cards: see the passage.
 *
 * The card has an identifier and a name but no logical device, so it asks for no port, no memory and no
 * interrupt, and no driver can bind to it. Section 7 demands a version and a name of every card, and the rest of
 * every logical device.
 */
#include <stdlib.h>
#include <string.h>
#include "devices.h"

/*T:650 A card that is there so that nobody searches on
 *
 * Plug and Play ISA cards have no address of their own. They hear a key of 32 bytes at the printer's status
 * port, and are then read bit by bit through a port that the software chooses; whether that port collides with
 * something is found out by reading an identifier with a valid checksum, or not. Absence therefore looks like
 * a bad choice of port, and the software goes on to the next. Linux reads 144 times with 250 us of waiting
 * after each, at each of eight ports: a third of a second, a quarter of what a boot takes, in which a virtual
 * machine can do nothing but spin, since the waiting is the guest's own. With one card present the first port
 * is right, one more round finds no second card, and that is the end: two rounds instead of eight.
 :*/

enum { KEY_START = 0x6a, KEY_LENGTH = 32 };
enum { HEADER = 9, HEADER_BITS = 8 * HEADER };
enum { READ_FIRST = 0x203, READ_LAST = 0x3ff, NOT_DRIVEN = 0xff };

enum { SET_READ_PORT, SERIAL_ISOLATION, CONFIG_CONTROL, WAKE, RESOURCE_DATA, STATUS, SELECT_NUMBER };
enum { FIRST_DEVICE_REGISTER = 0x30 }; /* from here on a logical device answers, and there is none */
enum { CONTROL_WAIT_FOR_KEY = 0x02, CONTROL_RESET_CSN = 0x04, STATUS_READY = 0x01 };

/* Section 6: the serial identifier, then resource data. No vendor is registered as RLT. */
static const uint8_t rom[] = "\x49\x94\x00\x10" /* RLT, product 001, revision 0 */
                             "\xff\xff\xff\xff" /* no serial number */
                             "\x31"             /* checksum of the eight, as in appendix B.2 */
                             "\x0a\x10\x00"     /* Plug and Play version 1.0, ours 0 */
                             "\x82\x1b\x00"     /* a name of 27 bytes */
                             "ringlet: no other ISA cards"
                             "\x79\x38"; /* end; all from the version on adds up to 0 */
enum { ROM_SIZE = sizeof rom - 1 };      /* without the string's NUL */

/* Section 4.1. */
enum card_state { WAIT_FOR_KEY, SLEEP, ISOLATION, CONFIG };

struct isapnp {
    struct dev_bus *bus;
    unsigned read_port; /* handle of the movable region */
    enum card_state state;
    uint8_t key;       /* what the next byte of the key must be */
    unsigned key_seen; /* bytes of it heard so far, less than KEY_LENGTH */
    uint8_t address;   /* selected register */
    uint8_t csn;       /* card select number; 0: not isolated yet */
    unsigned bit;      /* of the header, in ISOLATION; HEADER_BITS: all shifted out */
    bool second;       /* the next read is the second of that bit's pair */
    unsigned next;     /* of rom, in CONFIG */
};

/* ---- ADDRESS, 279h ---- */

static uint8_t key_after(uint8_t key)
{
    return (uint8_t)(key >> 1 | ((key ^ key >> 1) & 1) << 7);
}

static void key_restart(struct isapnp *c)
{
    c->key = KEY_START;
    c->key_seen = 0;
}

/* Appendix B.1: a byte that does not match only resets, even when it is the first of a key. */
static void key_hear(struct isapnp *c, uint8_t v)
{
    if (v != c->key) {
        key_restart(c);
        return;
    }
    c->key = key_after(c->key);
    if (++c->key_seen < KEY_LENGTH)
        return;
    key_restart(c);
    c->state = SLEEP;
}

static void address_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct isapnp *c = ctx;
    (void)offset, (void)size;
    if (c->state == WAIT_FOR_KEY)
        key_hear(c, (uint8_t)v);
    else
        c->address = (uint8_t)v;
}

/* ---- WRITE_DATA, A79h ---- */

static void set_read_port(struct isapnp *c, uint8_t v)
{
    uint32_t port = (uint32_t)v << 2 | 3;
    if (c->state != ISOLATION)
        return;
    if (port < READ_FIRST || port > READ_LAST)
        port = BUS_NOWHERE;
    /* Where another device answers already, two would drive the bus and isolation fail: so it does here. */
    bus_move_io(c->bus, c->read_port, port);
}

static void config_control(struct isapnp *c, uint8_t v)
{
    if (v & CONTROL_RESET_CSN)
        c->csn = 0;
    if (v & CONTROL_WAIT_FOR_KEY)
        c->state = WAIT_FOR_KEY;
}

/* Whom the number does not name falls asleep; whom it names starts over with its header. */
static void wake(struct isapnp *c, uint8_t csn)
{
    c->state = csn != c->csn ? SLEEP : csn ? CONFIG : ISOLATION;
    c->bit = c->next = 0;
    c->second = false;
}

static void set_select_number(struct isapnp *c, uint8_t v)
{
    if (c->state == SLEEP)
        return;
    if (c->state == ISOLATION)
        c->next = HEADER; /* section 4.5: the header has been read already */
    c->csn = v;
    c->state = CONFIG;
}

static void data_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct isapnp *c = ctx;
    (void)offset, (void)size;
    if (c->state == WAIT_FOR_KEY)
        return;
    if (c->address == SET_READ_PORT)
        set_read_port(c, (uint8_t)v);
    else if (c->address == CONFIG_CONTROL)
        config_control(c, (uint8_t)v);
    else if (c->address == WAKE)
        wake(c, (uint8_t)v);
    else if (c->address == SELECT_NUMBER)
        set_select_number(c, (uint8_t)v);
}

/* ---- READ_DATA, where SET_READ_PORT put it ---- */

/* Section 3.3.1: a 1 is driven as 55h, then AAh; during a 0 the card listens whether another drives a 1 and
 * would fall asleep. This card is alone, so it always wins. */
static uint8_t isolation_read(struct isapnp *c)
{
    if (c->bit == HEADER_BITS)
        return NOT_DRIVEN;
    bool one = rom[c->bit / 8] >> c->bit % 8 & 1;
    uint8_t driven = c->second ? 0xaa : 0x55;
    c->bit += c->second;
    c->second = !c->second;
    return one ? driven : NOT_DRIVEN;
}

static uint8_t config_read(struct isapnp *c)
{
    if (c->address == RESOURCE_DATA)
        return c->next < ROM_SIZE ? rom[c->next++] : 0; /* 0 is no tag: nobody reads on */
    if (c->address == STATUS)
        return STATUS_READY;
    if (c->address == SELECT_NUMBER)
        return c->csn;
    return c->address < FIRST_DEVICE_REGISTER ? 0 : NOT_DRIVEN; /* appendix A: what is not there reads 0 */
}

static uint64_t data_read(void *ctx, uint64_t offset, unsigned size)
{
    struct isapnp *c = ctx;
    (void)offset, (void)size;
    if (c->state == ISOLATION && c->address == SERIAL_ISOLATION)
        return isolation_read(c);
    return c->state == CONFIG ? config_read(c) : NOT_DRIVEN;
}

/* ---- Port map ---- */

static uint64_t not_readable(void *ctx, uint64_t offset, unsigned size)
{
    (void)ctx, (void)offset, (void)size;
    return UINT64_MAX;
}

static void not_writable(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    (void)ctx, (void)offset, (void)size, (void)v;
}

static const struct dev_region ports[] = {
    {"isapnp address", 0x279, 1, not_readable, address_write, NULL, 1},
    {"isapnp write", 0xa79, 1, not_readable, data_write, NULL, 1},
};
static const struct dev_region read_port = {"isapnp read", READ_FIRST, 1, data_read, not_writable, NULL, 1};

void isapnp_reset(struct isapnp *c)
{
    c->state = WAIT_FOR_KEY;
    key_restart(c);
    c->address = c->csn = 0;
    c->bit = c->next = 0;
    c->second = false;
    bus_move_io(c->bus, c->read_port, BUS_NOWHERE);
}

int isapnp_create(struct isapnp **out, struct dev_bus *bus, struct host_err *err)
{
    struct isapnp *c = *out = calloc(1, sizeof *c);
    if (!c)
        return host_fail(err, "no memory for the Plug and Play card");
    struct dev_region r = read_port;
    r.ctx = c;
    c->bus = bus;
    if (bus_add_movable_io(bus, &r, &c->read_port, err))
        return -1;
    return bus_add_ports(bus, ports, sizeof ports / sizeof *ports, c, err);
}

void isapnp_destroy(struct isapnp *c)
{
    free(c);
}
