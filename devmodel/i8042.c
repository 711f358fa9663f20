/*
 * 8042 keyboard controller at 60h/64h with a keyboard nobody types on, and the system control port 92h.
 *
 * Guests use it to find a keyboard, to reset the machine and to open the A20 gate. The keyboard answers
 * every command of the PS/2 keyboard interface at once. There is no auxiliary (mouse) port, as on a PC/AT:
 * command byte bit 5 cannot be cleared and the port test fails, which is how drivers tell. Command names:
 * IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller".
 */
#include <stdlib.h>
#include <string.h>
#include "devices.h"

enum { STATUS_OBF = 0x01, STATUS_SYSTEM = 0x04, STATUS_COMMAND = 0x08, STATUS_UNLOCKED = 0x10 };
enum {
    MODE_KEYBOARD_IRQ = 0x01,
    MODE_SYSTEM = 0x04,
    MODE_NO_KEYBOARD = 0x10,
    MODE_NO_AUX = 0x20,
    MODE_TRANSLATE = 0x40
};
enum { OUTPUT_NO_RESET = 0x01, OUTPUT_A20 = 0x02, OUTPUT_OBF = 0x10, OUTPUT_REST = 0xcc };
enum { PORT92_RESET = 0x01, PORT92_A20 = 0x02 };
enum { KEYBOARD_ACK = 0xfa, KEYBOARD_RESEND = 0xfe, KEYBOARD_PASSED = 0xaa };
enum { QUEUE = 16, RAM = 32 };

struct i8042 {
    uint8_t ram[RAM]; /* byte 0 is the command byte ("mode" here) */
    uint8_t queue[QUEUE];
    unsigned first, count; /* queue[first] is in the output buffer when count is not 0 */
    uint8_t pending;       /* controller command whose parameter comes next through 60h; 0: none */
    uint8_t keyboard_pending;
    uint8_t scancode_set, last_sent;
    bool system_flag, last_was_command, a20;
    uint8_t port92;
    struct i8042_wiring w;
};

/* ---- Output buffer ---- */

static void kbc_update(struct i8042 *k)
{
    dev_irq_set(&k->w.irq1, k->count && k->ram[0] & MODE_KEYBOARD_IRQ);
}

static void kbc_queue(struct i8042 *k, uint8_t v)
{
    if (k->count < QUEUE)
        k->queue[(k->first + k->count++) % QUEUE] = v;
    kbc_update(k);
}

static uint8_t kbc_dequeue(struct i8042 *k)
{
    uint8_t v = k->queue[k->first];
    if (!k->count)
        return v; /* the buffer keeps its last byte */
    k->count--;
    if (k->count)
        k->first = (k->first + 1) % QUEUE;
    dev_irq_set(&k->w.irq1, false); /* the next byte, if any, makes an edge of its own */
    kbc_update(k);
    return v;
}

/* ---- Keyboard ---- */

/* Translation from scan code set 2 to 1, of the only bytes this keyboard sends that it changes. */
static uint8_t kbc_translate(const struct i8042 *k, uint8_t v)
{
    static const uint8_t rows[][2] = {{0x01, 0x43}, {0x02, 0x41}, {0x03, 0x3f}, {0x83, 0x41}};
    for (unsigned i = 0; k->ram[0] & MODE_TRANSLATE && i < sizeof rows / sizeof *rows; i++)
        if (rows[i][0] == v)
            return rows[i][1];
    return v;
}

static void keyboard_send(struct i8042 *k, uint8_t v)
{
    k->last_sent = v;
    kbc_queue(k, kbc_translate(k, v));
}

static void keyboard_parameter(struct i8042 *k, uint8_t command, uint8_t v)
{
    keyboard_send(k, KEYBOARD_ACK);
    if (command != 0xf0)
        return; /* indicators and typematic rate: nobody to see them */
    if (!v)
        keyboard_send(k, k->scancode_set);
    else if (v <= 3)
        k->scancode_set = v;
}

struct keyboard_row {
    uint8_t command, count, answer[3];
    bool has_parameter;
};

static const struct keyboard_row keyboard_commands[] = {
    {0xed, 1, {KEYBOARD_ACK}, true},                   /* set indicators */
    {0xee, 1, {0xee}, false},                          /* echo */
    {0xf0, 1, {KEYBOARD_ACK}, true},                   /* scan code set */
    {0xf2, 3, {KEYBOARD_ACK, 0xab, 0x83}, false},      /* identify */
    {0xf3, 1, {KEYBOARD_ACK}, true},                   /* typematic rate */
    {0xf4, 1, {KEYBOARD_ACK}, false},                  /* enable */
    {0xf5, 1, {KEYBOARD_ACK}, false},                  /* default, disable */
    {0xf6, 1, {KEYBOARD_ACK}, false},                  /* default */
    {0xf7, 1, {KEYBOARD_ACK}, false},                  /* all keys typematic */
    {0xf8, 1, {KEYBOARD_ACK}, false},                  /* all keys make/break */
    {0xf9, 1, {KEYBOARD_ACK}, false},                  /* all keys make */
    {0xfa, 1, {KEYBOARD_ACK}, false},                  /* all keys everything */
    {0xff, 2, {KEYBOARD_ACK, KEYBOARD_PASSED}, false}, /* reset */
};

static void keyboard_command(struct i8042 *k, uint8_t v)
{
    uint8_t pending = k->keyboard_pending;
    k->keyboard_pending = 0;
    if (pending && v < 0xed) {
        keyboard_parameter(k, pending, v);
        return;
    }
    if (v == 0xfe) { /* resend */
        keyboard_send(k, k->last_sent);
        return;
    }
    for (unsigned i = 0; i < sizeof keyboard_commands / sizeof *keyboard_commands; i++) {
        const struct keyboard_row *row = &keyboard_commands[i];
        if (row->command != v)
            continue;
        for (unsigned n = 0; n < row->count; n++)
            keyboard_send(k, row->answer[n]);
        k->keyboard_pending = row->has_parameter ? v : 0;
        if (v == 0xff || v == 0xf6 || v == 0xf5)
            k->scancode_set = 2;
        return;
    }
    keyboard_send(k, KEYBOARD_RESEND);
}

/* ---- Controller ---- */

static uint8_t kbc_output_port(const struct i8042 *k)
{
    return OUTPUT_REST | OUTPUT_NO_RESET | (k->a20 ? OUTPUT_A20 : 0) | (k->count ? OUTPUT_OBF : 0);
}

/* Every wired pulse or level on bit 0 of the output port pulls the processor's reset line. */
static void kbc_set_output_port(struct i8042 *k, uint8_t v)
{
    k->a20 = v & OUTPUT_A20;
    if (!(v & OUTPUT_NO_RESET))
        k->w.reset(k->w.ctx);
}

static void kbc_set_mode(struct i8042 *k, uint8_t v)
{
    k->ram[0] = v | MODE_NO_AUX;
    k->system_flag = v & MODE_SYSTEM;
    kbc_update(k);
}

static void kbc_command(struct i8042 *k, uint8_t v)
{
    k->pending = 0;
    if (v >= 0x20 && v <= 0x3f)
        kbc_queue(k, k->ram[v - 0x20]);
    else if (v >= 0x60 && v <= 0x7f)
        k->pending = v;
    else if (v >= 0xf0) /* pulse output port bits that are 0 in the low nibble */
        kbc_set_output_port(k, (v & 1) | (k->a20 ? OUTPUT_A20 : 0));
    switch (v) {
    case 0xa9: /* test auxiliary port: clock line stuck low */
        kbc_queue(k, 0x01);
        break;
    case 0xaa: /* self test */
        k->system_flag = true;
        k->ram[0] |= MODE_SYSTEM;
        kbc_queue(k, 0x55);
        break;
    case 0xab: /* test keyboard port */
        kbc_queue(k, 0x00);
        break;
    case 0xad:
        k->ram[0] |= MODE_NO_KEYBOARD;
        break;
    case 0xae:
        k->ram[0] &= (uint8_t)~MODE_NO_KEYBOARD;
        break;
    case 0xc0: /* input port: not locked, no manufacturing jumper */
        kbc_queue(k, 0xb0);
        break;
    case 0xd0:
        kbc_queue(k, kbc_output_port(k));
        break;
    case 0xd1:
    case 0xd2:
    case 0xd3:
    case 0xd4:
        k->pending = v;
        break;
    case 0xdd: /* A20 off and on, as many clones have it */
    case 0xdf:
        k->a20 = v & OUTPUT_A20;
        break;
    case 0xe0: /* test inputs: clock and data high */
        kbc_queue(k, 0x03);
        break;
    default:
        break;
    }
}

static void kbc_data(struct i8042 *k, uint8_t v)
{
    uint8_t pending = k->pending;
    k->pending = 0;
    if (pending == 0x60)
        kbc_set_mode(k, v);
    else if (pending > 0x60 && pending <= 0x7f)
        k->ram[pending - 0x60] = v;
    else if (pending == 0xd1)
        kbc_set_output_port(k, v);
    else if (pending == 0xd2 ||
             pending == 0xd3) /* without an auxiliary port both are the keyboard's buffer */
        kbc_queue(k, v);
    else if (pending == 0xd4)
        return; /* nobody there */
    else {
        k->ram[0] &= (uint8_t)~MODE_NO_KEYBOARD; /* sending opens the interface */
        keyboard_command(k, v);
    }
}

/* ---- Ports ---- */

static uint64_t data_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)offset, (void)size;
    return kbc_dequeue(ctx);
}

static void data_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct i8042 *k = ctx;
    (void)offset, (void)size;
    k->last_was_command = false;
    kbc_data(k, (uint8_t)v);
}

static uint64_t status_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct i8042 *k = ctx;
    (void)offset, (void)size;
    return STATUS_UNLOCKED | (k->count ? STATUS_OBF : 0) | (k->system_flag ? STATUS_SYSTEM : 0) |
           (k->last_was_command ? STATUS_COMMAND : 0);
}

static void command_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct i8042 *k = ctx;
    (void)offset, (void)size;
    k->last_was_command = true;
    kbc_command(k, (uint8_t)v);
}

static uint64_t port92_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct i8042 *k = ctx;
    (void)offset, (void)size;
    return k->port92 | (k->a20 ? PORT92_A20 : 0);
}

static void port92_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct i8042 *k = ctx;
    bool pulse = v & PORT92_RESET && !(k->port92 & PORT92_RESET);
    (void)offset, (void)size;
    k->port92 = (uint8_t)v & (uint8_t)~PORT92_A20;
    k->a20 = v & PORT92_A20;
    if (pulse)
        k->w.reset(k->w.ctx);
}

static const struct dev_region ports[] = {
    {.name = "i8042 data", .base = 0x60, .size = 1, .read = data_read, .write = data_write, .max_size = 1},
    {.name = "i8042 command",
     .base = 0x64,
     .size = 1,
     .read = status_read,
     .write = command_write,
     .max_size = 1},
    {.name = "port 92h", .base = 0x92, .size = 1, .read = port92_read, .write = port92_write, .max_size = 1},
};

/* As a BIOS leaves it: tested, translating, keyboard interrupt on, A20 open. */
void i8042_reset(struct i8042 *k)
{
    struct i8042_wiring w = k->w;
    *k = (struct i8042){.w = w, .system_flag = true, .a20 = true, .scancode_set = 2};
    k->ram[0] = MODE_KEYBOARD_IRQ | MODE_SYSTEM | MODE_NO_AUX | MODE_TRANSLATE;
    kbc_update(k);
}

int i8042_create(struct i8042 **out, struct dev_bus *bus, const struct i8042_wiring *w, struct host_err *err)
{
    struct i8042 *k = *out = calloc(1, sizeof *k);
    if (!k)
        return host_fail(err, "no memory for the keyboard controller");
    k->w = *w;
    return bus_add_ports(bus, ports, sizeof ports / sizeof *ports, k, err);
}

void i8042_destroy(struct i8042 *k)
{
    free(k);
}
