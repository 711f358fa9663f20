/* Unit test of devmodel's 16550A and its back ends. Expected values: National PC16550D data sheet, section 8.
 */
#define _GNU_SOURCE
#include "test_devmodel_rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR, COM1 = 0x3f8 };

/* COM1 is the process's stdin and stdout, which are pipes here; the test holds the other ends. */
struct wire {
    struct rig rig;
    int guest_in, guest_out; /* what the test writes to and reads from */
    int saved[2];
};

static int wire_setup_with(void **state, bool escape)
{
    struct wire *w = calloc(1, sizeof *w);
    int in[2], out[2];
    fflush(stdout);
    if (!w || pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        return -1;
    w->saved[0] = dup(0);
    w->saved[1] = dup(1);
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(in[0]);
    close(out[1]);
    w->guest_in = in[1];
    w->guest_out = out[0];
    fcntl(w->guest_out, F_SETFL, O_NONBLOCK);
    rig_host(&w->rig, 4 << 20);
    struct dev_board_config cfg = rig_config(&w->rig);
    cfg.serial[0].kind = DEV_CHR_STDIO;
    cfg.serial_count = 1;
    cfg.escape = escape;
    rig_board(&w->rig, &cfg);
    *state = w;
    return 0;
}

static int wire_setup(void **state)
{
    return wire_setup_with(state, false);
}

static int wire_setup_escape(void **state)
{
    return wire_setup_with(state, true);
}

static int wire_teardown(void **state)
{
    struct wire *w = *state;
    rig_finish(&w->rig);
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        dup2(w->saved[i], i);
        close(w->saved[i]);
    }
    if (w->guest_in >= 0)
        close(w->guest_in);
    close(w->guest_out);
    free(w);
    return 0;
}

static void type(struct wire *w, const char *text, size_t n)
{
    assert_int_equal(write(w->guest_in, text, n), n);
    host_loop_run(w->rig.loop);
}

static size_t printed(struct wire *w, char *buf, size_t size)
{
    ssize_t n = read(w->guest_out, buf, size);
    return n < 0 ? 0 : (size_t)n;
}

static void set(struct rig *r, unsigned reg, uint8_t v)
{
    outb(r, (uint16_t)(COM1 + reg), v);
}

static uint8_t get(struct rig *r, unsigned reg)
{
    return inb(r, (uint16_t)(COM1 + reg));
}

/* ---- Registers ---- */

static void test_reset_values(void **state)
{
    struct rig *r = *state;
    static const uint8_t want[] = {0x00, 0x00, 0x01, 0x00, 0x00, 0x60, 0xb0, 0x00};
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(get(r, i), want[i]);
}

static void test_register_bits(void **state)
{
    struct rig *r = *state;
    set(r, IER, 0xff);
    assert_int_equal(get(r, IER), 0x0f);
    set(r, MCR, 0xff);
    assert_int_equal(get(r, MCR), 0x1f);
    set(r, MCR, 0);
    set(r, SCR, 0xa7);
    assert_int_equal(get(r, SCR), 0xa7);
    set(r, LCR, 0x83); /* DLAB */
    set(r, 0, 0x34);
    set(r, 1, 0x12);
    assert_int_equal(get(r, 0), 0x34);
    assert_int_equal(get(r, 1), 0x12);
    set(r, LCR, 0x03);
    assert_int_equal(get(r, IER), 0x0f);
}

static void test_fifo_identification(void **state)
{
    struct rig *r = *state;
    set(r, FCR, 0x01);
    assert_int_equal(get(r, IIR), 0xc1);
    set(r, LCR, 0x80);
    set(r, FCR, 0x21); /* 16750's 64-byte mode does not exist */
    assert_int_equal(get(r, IIR), 0xc1);
    set(r, LCR, 0xbf); /* nor a 16650's EFR */
    assert_int_equal(get(r, IIR), 0xc1);
    set(r, LCR, 0);
    set(r, FCR, 0x00);
    assert_int_equal(get(r, IIR), 0x01);
    set(r, FCR, 0xc0); /* bits count only together with bit 0 */
    assert_int_equal(get(r, IIR), 0x01);
}

static void test_loopback_modem(void **state)
{
    struct rig *r = *state;
    set(r, MCR, 0x10);
    get(r, MSR);
    static const struct {
        uint8_t mcr, msr;
    } rows[] = {{0x01, 0x20}, {0x02, 0x10}, {0x04, 0x40}, {0x08, 0x80}, {0x0a, 0x90}};
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        set(r, MCR, 0x10 | rows[i].mcr);
        assert_int_equal(get(r, MSR) & 0xf0, rows[i].msr);
    }
    set(r, MCR, 0x10);
    get(r, MSR);
    set(r, MCR, 0x13);
    assert_int_equal(get(r, MSR), 0x33); /* CTS, DSR and their deltas */
    assert_int_equal(get(r, MSR), 0x30); /* reading clears the deltas */
    set(r, MCR, 0x14);
    assert_int_equal(get(r, MSR) & 0x44, 0x40); /* RI's leading edge does not count */
    set(r, MCR, 0x10);
    assert_int_equal(get(r, MSR) & 0x44, 0x04); /* its trailing edge does */
}

static void test_loopback_data(void **state)
{
    struct rig *r = *state;
    set(r, MCR, 0x10);
    set(r, RBR, 0x41);
    assert_int_equal(get(r, LSR), 0x61);
    set(r, RBR, 0x42); /* 16450 mode: the unread byte is overwritten */
    assert_int_equal(get(r, LSR), 0x63);
    assert_int_equal(get(r, LSR), 0x61); /* OE is cleared by the read */
    assert_int_equal(get(r, RBR), 0x42);
    assert_int_equal(get(r, LSR), 0x60);
    set(r, FCR, 0x01);
    for (unsigned i = 0; i < 17; i++)
        set(r, RBR, (uint8_t)i);
    assert_int_equal(get(r, LSR), 0x63); /* FIFO mode: the FIFO is kept, the 17th byte lost */
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(get(r, RBR), i);
    assert_int_equal(get(r, LSR), 0x60);
    set(r, RBR, 1);
    set(r, FCR, 0x03); /* clear the receiver */
    assert_int_equal(get(r, LSR), 0x60);
}

/* ---- Interrupts ---- */

static void test_thre(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    set(r, MCR, 0x08);
    set(r, IER, 0x02); /* enabling with an empty transmitter is an interrupt */
    assert_true(r->intr);
    assert_int_equal(get(r, IIR), 0x02);
    assert_false(r->intr); /* reading IIR was the acknowledgement */
    assert_int_equal(get(r, IIR), 0x01);
    set(r, IER, 0x02); /* no change, no event */
    assert_int_equal(get(r, IIR), 0x01);
    set(r, IER, 0x00);
    set(r, IER, 0x02);
    assert_int_equal(get(r, IIR), 0x02);
    set(r, RBR, 'x'); /* sent at once: empty again */
    assert_int_equal(get(r, IIR), 0x02);
    assert_int_equal(get(r, LSR), 0x60);
    assert_int_equal(get(r, IIR), 0x01);
}

static void test_out2_gates_the_line(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    set(r, IER, 0x02);
    assert_false(r->intr);
    set(r, MCR, 0x08);
    assert_true(r->intr);
    set(r, MCR, 0x18); /* loop-back forces OUT2 inactive */
    assert_false(r->intr);
}

static void test_priorities(void **state)
{
    struct rig *r = *state;
    set(r, MCR, 0x10);
    set(r, IER, 0x0f);
    set(r, RBR, 1);
    set(r, RBR, 2); /* overrun */
    assert_int_equal(get(r, IIR), 0x06);
    get(r, LSR);
    assert_int_equal(get(r, IIR), 0x04);
    get(r, RBR);
    assert_int_equal(get(r, IIR), 0x02); /* THRE comes before modem status */
    assert_int_equal(get(r, IIR), 0x00);
    get(r, MSR);
    assert_int_equal(get(r, IIR), 0x01);
    set(r, IER, 0x00);
    set(r, MCR, 0x12); /* a modem change, not enabled */
    assert_int_equal(get(r, IIR), 0x01);
}

static void test_trigger_levels(void **state)
{
    struct rig *r = *state;
    static const unsigned level[] = {1, 4, 8, 14};
    set(r, MCR, 0x10);
    set(r, IER, 0x01);
    for (unsigned t = 0; t < 4; t++) {
        set(r, FCR, (uint8_t)(t << 6 | 0x07));
        for (unsigned i = 1; i <= 16; i++) {
            set(r, RBR, 0);
            assert_int_equal(get(r, IIR), i >= level[t] ? 0xc4 : 0xc1);
        }
        for (unsigned i = 16; i-- > level[t];)
            get(r, RBR);
        assert_int_equal(get(r, IIR), 0xc4);
        get(r, RBR); /* drops below the level */
        assert_int_equal(get(r, IIR), 0xc1);
    }
}

/* 9600 baud, 8N1: four characters of ten bits are 4.1667 ms. */
static void test_receive_timeout(void **state)
{
    struct rig *r = *state;
    set(r, LCR, 0x80);
    set(r, 0, 12);
    set(r, 1, 0);
    set(r, LCR, 0x03);
    set(r, FCR, 0x81); /* trigger level 8 */
    set(r, IER, 0x01);
    set(r, MCR, 0x10);
    set(r, RBR, 1);
    rig_pass(r, 4 * MS);
    assert_int_equal(get(r, IIR), 0xc1);
    set(r, RBR, 2); /* a new character starts the time anew */
    rig_pass(r, 4166 * US);
    assert_int_equal(get(r, IIR), 0xc1);
    rig_pass(r, US);
    assert_int_equal(get(r, IIR), 0xcc);
    assert_int_equal(get(r, IIR), 0xcc); /* only reading the FIFO clears it */
    assert_int_equal(get(r, RBR), 1);
    assert_int_equal(get(r, IIR), 0xc1);
    rig_pass(r, 5 * MS); /* one byte is still there */
    assert_int_equal(get(r, IIR), 0xcc);
    assert_int_equal(get(r, RBR), 2);
    rig_pass(r, 5 * MS);
    assert_int_equal(get(r, IIR), 0xc1);
}

static void test_all_four_ports(void **state)
{
    struct rig *r = *state;
    static const struct {
        uint16_t base;
        uint8_t vector;
    } rows[] = {{0x3f8, 0x24}, {0x2f8, 0x23}, {0x3e8, 0x24}, {0x2e8, 0x23}};
    rig_pic_init(r, 0);
    for (unsigned i = 0; i < 4; i++) {
        rig_irq_com(r, rows[i].base, true);
        assert_int_equal(dev_board_intack(r->board), rows[i].vector);
        rig_irq_com(r, rows[i].base, false);
        outb(r, 0x20, 0x20);
    }
}

/* ---- Back ends ---- */

static void test_output(void **state)
{
    struct wire *w = *state;
    char buf[64];
    for (const char *p = "hello\n"; *p; p++)
        set(&w->rig, RBR, (uint8_t)*p);
    assert_int_equal(printed(w, buf, sizeof buf), 6);
    assert_memory_equal(buf, "hello\n", 6);
}

/* With a real clock output is gathered for a moment, but a line's end, an event or a millisecond pushes it
 * out. */
static void test_output_gathers(void **state)
{
    struct wire *w = *state;
    struct rig *r = &w->rig;
    char buf[64];
    rig_finish(r);
    rig_host(r, 4 << 20);
    host_clock_init(&r->clock, false);
    struct dev_board_config cfg = rig_config(r);
    cfg.serial[0].kind = DEV_CHR_STDIO;
    rig_board(r, &cfg);
    set(r, RBR, '$');
    for (unsigned i = 0; i < 1000 && !printed(w, buf, 1); i++)
        host_loop_wait(r->loop, MS);
    assert_int_equal(buf[0], '$');
    set(r, RBR, 'a');
    set(r, RBR, '\n');
    assert_int_equal(printed(w, buf, sizeof buf), 2);
    set(r, RBR, 'b');
    outb(r, 0xf4, 1);
    assert_int_equal(r->events, 1);
    assert_int_equal(printed(w, buf, sizeof buf), 1);
    set(r, RBR, 'c');
    dev_board_destroy(r->board);
    r->board = NULL;
    assert_int_equal(printed(w, buf, sizeof buf), 1);
}

/* A reader that does not read: nothing is lost, and the guest sees a transmitter that is not empty. */
static void test_output_back_pressure(void **state)
{
    struct wire *w = *state;
    struct rig *r = &w->rig;
    unsigned sent = 0;
    rig_pic_init(r, 0);
    set(r, MCR, 0x08);
    set(r, IER, 0x02);
    while (get(r, LSR) & 0x20) {
        set(r, RBR, (uint8_t)(sent++ * 7));
        assert_true(sent < 1 << 20);
    }
    get(r, IIR);
    dev_board_intack(r->board);
    outb(r, 0x20, 0x20);
    assert_false(r->intr);
    assert_int_equal(get(r, LSR), 0x00);
    unsigned got = 0;
    for (unsigned idle = 0; idle < 4;) {
        char buf[4096];
        size_t n = printed(w, buf, sizeof buf);
        for (size_t i = 0; i < n; i++)
            assert_int_equal((uint8_t)buf[i], (uint8_t)(got++ * 7));
        idle = n ? 0 : idle + 1;
        host_loop_run(r->loop);
    }
    assert_int_equal(got, sent);
    assert_int_equal(get(r, LSR), 0x60);
    assert_true(r->intr); /* THRE when it drained */
}

static void test_broken_pipe(void **state)
{
    struct wire *w = *state;
    close(w->guest_out);
    w->guest_out = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (unsigned i = 0; i < 100; i++) /* neither a signal nor a hang */
        set(&w->rig, RBR, '\n');
    assert_int_equal(get(&w->rig, LSR), 0x60);
}

static void test_input(void **state)
{
    struct wire *w = *state;
    struct rig *r = &w->rig;
    rig_pic_init(r, 0);
    set(r, MCR, 0x08);
    set(r, IER, 0x01);
    type(w, "abc", 3);
    assert_true(r->intr);
    assert_int_equal(get(r, LSR), 0x61);
    assert_int_equal(get(r, IIR), 0x04);
    assert_int_equal(get(r, RBR), 'a'); /* no FIFO: one at a time */
    assert_int_equal(get(r, RBR), 'b');
    assert_int_equal(get(r, RBR), 'c');
    assert_int_equal(get(r, LSR), 0x60);
    assert_false(r->intr);
}

/* A handler that takes one byte per interrupt, without looking whether there are more, gets them all: every
 * byte is an edge of its own. */
static void test_input_one_byte_per_edge(void **state)
{
    struct wire *w = *state;
    struct rig *r = &w->rig;
    rig_pic_init(r, 0);
    set(r, MCR, 0x08);
    set(r, IER, 0x01);
    type(w, "0123456789", 10);
    for (unsigned i = 0; i < 10; i++) {
        assert_true(r->intr);
        assert_int_equal(dev_board_intack(r->board), 0x24);
        assert_int_equal(get(r, RBR), '0' + i);
        outb(r, 0x20, 0x20);
    }
    assert_false(r->intr);
}

/* The same with the FIFO: a handler that empties it is called again for what waited outside. */
static void test_input_one_fifo_per_edge(void **state)
{
    struct wire *w = *state;
    struct rig *r = &w->rig;
    rig_pic_init(r, 0);
    set(r, FCR, 0x01);
    set(r, MCR, 0x08);
    set(r, IER, 0x01);
    type(w, "0123456789abcdefghij", 20);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(dev_board_intack(r->board), 0x24);
        for (unsigned n = 0; n < (i ? 4 : 16); n++)
            assert_int_equal(get(r, RBR), "0123456789abcdefghij"[i * 16 + n]);
        outb(r, 0x20, 0x20);
        assert_int_equal(r->intr, i == 0);
    }
}

/* Far more than all buffers hold: everything arrives in order and nothing is overrun. */
static void test_input_back_pressure(void **state)
{
    struct wire *w = *state;
    struct rig *r = &w->rig;
    unsigned sent = 0, got = 0;
    fcntl(w->guest_in, F_SETFL, O_NONBLOCK);
    set(r, FCR, 0x01);
    while (got < 300000) {
        uint8_t byte = (uint8_t)(sent * 13);
        while (sent < 300000 && write(w->guest_in, &byte, 1) == 1)
            byte = (uint8_t)(++sent * 13);
        host_loop_run(r->loop);
        for (unsigned i = 0, lsr; i < 40000 && (lsr = get(r, LSR)) & 1; i++) {
            assert_int_equal(lsr, 0x61);
            assert_int_equal(get(r, RBR), (uint8_t)(got++ * 13));
        }
    }
    assert_int_equal(got, 300000);
}

static void test_end_of_input(void **state)
{
    struct wire *w = *state;
    type(w, "z", 1);
    close(w->guest_in);
    w->guest_in = -1;
    for (unsigned i = 0; i < 3; i++)
        host_loop_run(w->rig.loop);
    assert_int_equal(host_loop_run(w->rig.loop), 0); /* no longer watched */
    assert_int_equal(get(&w->rig, RBR), 'z');
    set(&w->rig, RBR, '!');
    char buf[8];
    assert_int_equal(printed(w, buf, sizeof buf), 1);
}

static void test_escape(void **state)
{
    struct wire *w = *state;
    struct rig *r = &w->rig;
    set(r, FCR, 0x01);
    type(w, "a\001\001b\001", 5);
    assert_int_equal(get(r, RBR), 'a');
    assert_int_equal(get(r, RBR), 1);
    assert_int_equal(get(r, RBR), 'b');
    assert_int_equal(get(r, LSR) & 1, 0);
    type(w, "h", 1);
    char buf[512];
    size_t n = printed(w, buf, sizeof buf - 1);
    buf[n] = 0;
    assert_non_null(strstr(buf, "Ctrl-A x"));
    assert_int_equal(r->events, 0);
    type(w, "\001x", 2);
    assert_int_equal(r->events, 1);
    assert_int_equal(r->event, DEV_ESCAPE_QUIT);
    assert_int_equal(get(r, LSR) & 1, 0);
}

/* The guest hangs and reads nothing: Ctrl-A x still works. */
static void test_escape_with_deaf_guest(void **state)
{
    struct wire *w = *state;
    for (unsigned i = 0; i < 100; i++)
        type(w, "xxxxxxxxxx", 10);
    type(w, "\001x", 2);
    for (unsigned i = 0; i < 10; i++)
        host_loop_run(w->rig.loop);
    assert_int_equal(w->rig.events, 1);
    assert_int_equal(w->rig.event, DEV_ESCAPE_QUIT);
}

static void test_no_escape(void **state)
{
    struct wire *w = *state;
    set(&w->rig, FCR, 0x01);
    type(w, "\001x", 2);
    assert_int_equal(w->rig.events, 0);
    assert_int_equal(get(&w->rig, RBR), 1);
    assert_int_equal(get(&w->rig, RBR), 'x');
}

/* The shell's own standard output must not become non-blocking. */
static void test_stdout_flags_untouched(void **state)
{
    struct wire *w = *state;
    set(&w->rig, RBR, '\n');
    assert_int_equal(fcntl(1, F_GETFL) & O_NONBLOCK, 0);
}

static void test_file(void **state)
{
    (void)state;
    char path[] = "/tmp/ringlet-test-XXXXXX", buf[16];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "old contents", 12), 12);
    struct rig r;
    rig_host(&r, 4 << 20);
    struct dev_board_config cfg = rig_config(&r);
    cfg.serial[1] = (struct dev_chr_config){DEV_CHR_FILE, path};
    rig_board(&r, &cfg);
    outb(&r, 0x2f8, 'o');
    outb(&r, 0x2f8, 'k');
    rig_finish(&r);
    assert_int_equal(pread(fd, buf, sizeof buf, 0), 2);
    assert_memory_equal(buf, "ok", 2);
    close(fd);
    unlink(path);
}

static void test_file_that_cannot_be(void **state)
{
    (void)state;
    struct rig r;
    struct host_err err = {""};
    rig_host(&r, 4 << 20);
    struct dev_board_config cfg = rig_config(&r);
    cfg.serial[1] = (struct dev_chr_config){DEV_CHR_FILE, "/nonexistent/dir/file"};
    assert_int_equal(dev_board_create(&r.board, &cfg, &err), -1);
    assert_non_null(strstr(err.text, "/nonexistent/dir/file"));
    assert_null(r.board);
    rig_finish(&r);
}

/* A full disk: the guest goes on. */
static void test_full_disk(void **state)
{
    (void)state;
    struct rig r;
    rig_host(&r, 4 << 20);
    struct dev_board_config cfg = rig_config(&r);
    cfg.serial[0] = (struct dev_chr_config){DEV_CHR_FILE, "/dev/full"};
    rig_board(&r, &cfg);
    for (unsigned i = 0; i < 100; i++)
        set(&r, RBR, 'x');
    assert_int_equal(get(&r, LSR), 0x60);
    rig_finish(&r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
#define W(f) cmocka_unit_test_setup_teardown(f, wire_setup, wire_teardown)
#define E(f) cmocka_unit_test_setup_teardown(f, wire_setup_escape, wire_teardown)
    const struct CMUnitTest tests[] = {
        T(test_reset_values),
        T(test_register_bits),
        T(test_fifo_identification),
        T(test_loopback_modem),
        T(test_loopback_data),
        T(test_thre),
        T(test_out2_gates_the_line),
        T(test_priorities),
        T(test_trigger_levels),
        T(test_receive_timeout),
        T(test_all_four_ports),
        W(test_output),
        W(test_output_gathers),
        W(test_output_back_pressure),
        W(test_input_one_byte_per_edge),
        W(test_input_one_fifo_per_edge),
        W(test_broken_pipe),
        W(test_input),
        W(test_input_back_pressure),
        W(test_end_of_input),
        E(test_escape),
        E(test_escape_with_deaf_guest),
        W(test_no_escape),
        W(test_stdout_flags_untouched),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_file_that_cannot_be),
        cmocka_unit_test(test_full_disk),
    };
    return cmocka_run_group_tests_name("devmodel: 16550A", tests, NULL, NULL);
}
