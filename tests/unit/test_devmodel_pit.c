/* Unit test of devmodel's 8254 and port 61h. Expected values: Intel 8254 data sheet, at 1193182 Hz. */
#include "test_devmodel_rig.h"

#define HZ UINT64_C(1193182)

/* The middle of clock period k, so that rounding cannot matter. */
static uint64_t middle_of(uint64_t k)
{
    return (k * 2 + 1) * SEC / (2 * HZ);
}

static void go_to(struct rig *r, uint64_t k)
{
    rig_pass(r, middle_of(k) - host_clock_ns(&r->clock));
}

static unsigned latched(struct rig *r, unsigned counter)
{
    outb(r, 0x43, (uint8_t)(counter << 6));
    unsigned low = inb(r, 0x40 + counter);
    return low | (unsigned)inb(r, 0x40 + counter) << 8;
}

static unsigned status(struct rig *r, unsigned counter)
{
    outb(r, 0x43, (uint8_t)(0xe0 | 2u << counter));
    return inb(r, 0x40 + counter);
}

static bool out2(struct rig *r)
{
    return inb(r, 0x61) & 0x20;
}

static void program(struct rig *r, unsigned counter, unsigned mode, unsigned count)
{
    outb(r, 0x43, (uint8_t)(counter << 6 | 0x30 | mode << 1));
    outb(r, 0x40 + counter, (uint8_t)count);
    outb(r, 0x40 + counter, (uint8_t)(count >> 8));
}

/* Counter 2 in clock period 100: loaded at 101. */
static void test_mode0(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 1);
    go_to(r, 100);
    program(r, 2, 0, 5);
    assert_false(out2(r));
    assert_int_equal(status(r, 2), 0x70); /* OUT 0, null count, both bytes, mode 0 */
    static const unsigned count[] = {5, 4, 3, 2, 1, 0, 0xffff, 0xfffe};
    for (unsigned i = 0; i < 8; i++) {
        go_to(r, 101 + i);
        assert_int_equal(latched(r, 2), count[i]);
        assert_int_equal(out2(r), i >= 5); /* N+1 clocks after the write */
    }
    assert_int_equal(status(r, 2), 0xb0);
    outb(r, 0x42, 9); /* the first byte stops counting and drops OUT */
    assert_false(out2(r));
    go_to(r, 200);
    assert_false(out2(r));
    assert_int_equal(latched(r, 2), 0xfffe);
    outb(r, 0x42, 0);
    go_to(r, 201);
    assert_int_equal(latched(r, 2), 9);
}

static void test_mode0_gate(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 0);
    go_to(r, 10);
    program(r, 2, 0, 10);
    go_to(r, 50);
    assert_int_equal(latched(r, 2), 10); /* loaded, but the gate is low */
    outb(r, 0x61, 1);
    go_to(r, 53);
    assert_int_equal(latched(r, 2), 7);
    outb(r, 0x61, 0);
    go_to(r, 99);
    assert_int_equal(latched(r, 2), 7);
    outb(r, 0x61, 1);
    go_to(r, 105);
    assert_false(out2(r));
    go_to(r, 106); /* no further clock is needed to load: N counts after the gate */
    assert_true(out2(r));
}

static void test_mode1(void **state)
{
    struct rig *r = *state;
    go_to(r, 10);
    program(r, 2, 1, 3);
    assert_true(out2(r));
    go_to(r, 20);
    assert_int_equal(status(r, 2), 0xf2); /* null count until the trigger */
    outb(r, 0x61, 1);
    assert_true(out2(r));
    go_to(r, 21);
    assert_false(out2(r));
    assert_int_equal(latched(r, 2), 3);
    go_to(r, 22);
    outb(r, 0x61, 0); /* the gate's fall does nothing, its rise triggers anew */
    outb(r, 0x61, 1);
    go_to(r, 25);
    assert_false(out2(r));
    go_to(r, 26);
    assert_true(out2(r));
    assert_int_equal(latched(r, 2), 0);
    go_to(r, 27);
    assert_int_equal(latched(r, 2), 0xffff);
}

static void test_mode2(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 1);
    go_to(r, 10);
    program(r, 2, 2, 3);
    for (unsigned i = 0; i < 9; i++) {
        go_to(r, 11 + i);
        assert_int_equal(latched(r, 2), 3 - i % 3);
        assert_int_equal(out2(r), i % 3 != 2);
    }
    outb(r, 0x42, 5); /* written at count 1: taken over at the next reload */
    outb(r, 0x42, 0);
    assert_int_equal(status(r, 2) & 0x40, 0x40);
    static const unsigned count[] = {5, 4, 3, 2, 1, 5};
    for (unsigned i = 0; i < 6; i++) {
        go_to(r, 20 + i);
        assert_int_equal(latched(r, 2), count[i]);
    }
    assert_int_equal(status(r, 2), 0xb4);
    outb(r, 0x61, 0);
    go_to(r, 40);
    assert_true(out2(r));
    assert_int_equal(latched(r, 2), 5);
    outb(r, 0x61, 1); /* trigger: reloaded with the next clock */
    go_to(r, 42);
    assert_int_equal(latched(r, 2), 4);
}

/* Even: both halves count down by two. Odd: the high half is one clock longer and ends at zero. */
static void test_mode3(void **state)
{
    struct rig *r = *state;
    static const unsigned even[] = {4, 2, 4, 2}, odd[] = {4, 2, 0, 4, 2};
    outb(r, 0x61, 1);
    go_to(r, 10);
    program(r, 2, 3, 4);
    for (unsigned i = 0; i < 8; i++) {
        go_to(r, 11 + i);
        assert_int_equal(latched(r, 2), even[i % 4]);
        assert_int_equal(out2(r), i % 4 < 2);
    }
    go_to(r, 20);
    program(r, 2, 3, 5);
    for (unsigned i = 0; i < 10; i++) {
        go_to(r, 21 + i);
        assert_int_equal(latched(r, 2), odd[i % 5]);
        assert_int_equal(out2(r), i % 5 < 3);
    }
    go_to(r, 31); /* first clock of a high half of three; a new count waits for the end of the half */
    outb(r, 0x42, 8);
    outb(r, 0x42, 0);
    go_to(r, 33);
    assert_int_equal(latched(r, 2), 0);
    static const bool level[] = {0, 0, 0, 0, 1, 1, 1, 1, 0};
    for (unsigned i = 0; i < 9; i++) {
        go_to(r, 34 + i);
        assert_int_equal(out2(r), level[i]);
        assert_int_equal(latched(r, 2), 8 - 2 * (i % 4));
    }
}

static void test_mode4_and_5(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 1);
    go_to(r, 10);
    program(r, 2, 4, 3);
    for (unsigned i = 0; i < 7; i++) {
        go_to(r, 11 + i);
        assert_int_equal(out2(r), i != 3); /* one clock low, N+1 clocks after the write */
        assert_int_equal(latched(r, 2), (3 - i) & 0xffff);
    }
    outb(r, 0x61, 0);
    program(r, 2, 5, 3);
    go_to(r, 30);
    assert_true(out2(r));
    outb(r, 0x61, 1);
    for (unsigned i = 0; i < 6; i++) {
        go_to(r, 31 + i);
        assert_int_equal(out2(r), i != 3);
    }
}

static void test_bcd_and_full_count(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 1);
    go_to(r, 10);
    program(r, 2, 0, 0); /* 0 is 65536 */
    go_to(r, 11);
    assert_int_equal(latched(r, 2), 0);
    go_to(r, 12);
    assert_int_equal(latched(r, 2), 0xffff);
    go_to(r, 11 + 65535);
    assert_false(out2(r));
    go_to(r, 11 + 65536);
    assert_true(out2(r));

    go_to(r, 100000);
    outb(r, 0x43, 0xb1); /* mode 0, BCD */
    outb(r, 0x42, 0x00);
    outb(r, 0x42, 0x20); /* 2000 */
    go_to(r, 100002);
    assert_int_equal(latched(r, 2), 0x1999);
    go_to(r, 100001 + 2001);
    assert_true(out2(r));
    assert_int_equal(latched(r, 2), 0x9999);
    outb(r, 0x43, 0xb1);
    outb(r, 0x42, 0);
    outb(r, 0x42, 0); /* 0 is 10000 */
    uint64_t start = 102003;
    go_to(r, start + 1);
    assert_int_equal(latched(r, 2), 0x9999);
    go_to(r, start + 9999);
    assert_false(out2(r));
    go_to(r, start + 10000);
    assert_true(out2(r));
}

static void test_access_modes(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 1);
    go_to(r, 10);
    outb(r, 0x43, 0x90); /* counter 2, low byte only, mode 0 */
    outb(r, 0x42, 0x80);
    go_to(r, 12);
    assert_int_equal(inb(r, 0x42), 0x7f);
    assert_int_equal(inb(r, 0x42), 0x7f);
    outb(r, 0x43, 0xa0); /* high byte only */
    outb(r, 0x42, 0x12);
    go_to(r, 14);
    assert_int_equal(inb(r, 0x42), 0x11); /* 1200h - 1 = 11FFh */
    program(r, 2, 0, 0x1234);
    go_to(r, 16);
    assert_int_equal(inb(r, 0x42), 0x33); /* unlatched, low then high */
    assert_int_equal(inb(r, 0x42), 0x12);
    inb(r, 0x42);
    program(r, 2, 0, 0x1234); /* a control word starts with the low byte again */
    go_to(r, 18);
    assert_int_equal(inb(r, 0x42), 0x33);
}

static void test_latches(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 1);
    go_to(r, 10);
    program(r, 2, 2, 1000);
    go_to(r, 11 + 100);
    outb(r, 0x43, 0x80);
    go_to(r, 11 + 200);
    outb(r, 0x43, 0x80); /* ignored: the first latch was not read yet */
    outb(r, 0x43, 0xe8); /* read back the status of counter 2 */
    go_to(r, 11 + 300);
    assert_int_equal(inb(r, 0x42), 0xb4); /* status first */
    assert_int_equal(inb(r, 0x42), 900 & 0xff);
    assert_int_equal(inb(r, 0x42), 900 >> 8);
    assert_int_equal(latched(r, 2), 700);
    outb(r, 0x43, 0xd8); /* read back the count, and not the status, of counter 2 */
    go_to(r, 11 + 400);
    assert_int_equal(inb(r, 0x42), 700 & 0xff);
    assert_int_equal(inb(r, 0x42), 700 >> 8);
    outb(r, 0x43, 0x80);
    outb(r, 0x43, 0xb4); /* reprogramming drops the latch; the other counters' commands do not */
    outb(r, 0x42, 50);
    outb(r, 0x42, 0);
    go_to(r, 11 + 402);
    assert_int_equal(inb(r, 0x42), 49);
}

static void test_port61(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 0xff);
    assert_int_equal(inb(r, 0x61) & 0xcf, 0x0f);
    unsigned changes = 0, last = inb(r, 0x61) & 0x10;
    for (uint64_t k = 0; k < 180; k++) { /* 15 us at a time: 18 clocks each way */
        go_to(r, k);
        changes += (inb(r, 0x61) & 0x10) != last;
        last = inb(r, 0x61) & 0x10;
    }
    assert_int_equal(changes, 9);
}

/* Linux measures the TSC against this: 50 ms of counter 2 are 59659 clocks. */
static void test_calibration_is_exact(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 1);
    uint64_t start = host_clock_ns(&r->clock);
    outb(r, 0x43, 0xb0);
    outb(r, 0x42, 59659 & 0xff);
    outb(r, 0x42, 59659 >> 8);
    while (!out2(r))
        host_clock_advance(&r->clock, 100);
    uint64_t ns = host_clock_ns(&r->clock) - start;
    assert_in_range(ns, 59660 * SEC / HZ, 59660 * SEC / HZ + 1100);
}

/* ---- Counter 0 and IRQ 0 ---- */

static bool take_tick(struct rig *r)
{
    if (!r->intr)
        return false;
    assert_int_equal(dev_board_intack(r->board), 0x20);
    outb(r, 0x20, 0x20);
    return true;
}

static void test_no_host_timer_unless_wanted(void **state)
{
    struct rig *r = *state;
    outb(r, 0x61, 1);
    program(r, 2, 2, 100);
    assert_int_equal(host_loop_next_deadline(r->loop), UINT64_MAX);
    rig_pic_init(r, 0xffff);
    program(r, 0, 2, 1000); /* masked: one tick waits in IRR, then silence */
    rig_pass(r, 10 * MS);
    assert_int_equal(host_loop_next_deadline(r->loop), UINT64_MAX);
}

static void test_periodic_has_no_drift(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0xfffe);
    go_to(r, 10);
    program(r, 0, 2, 11932); /* 100 Hz as Linux has it */
    take_tick(r);
    for (uint64_t i = 1; i <= 1000; i++) {
        go_to(r, 11 + i * 11932 - 1);
        assert_false(r->intr);
        go_to(r, 11 + i * 11932 + 1);
        assert_true(take_tick(r));
    }
}

static void test_mode3_ticks_and_mask_handler(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0xfffe);
    go_to(r, 10);
    program(r, 0, 3, 2000);
    take_tick(r);
    for (uint64_t i = 1; i <= 50; i++) {
        go_to(r, 11 + i * 2000 - 1);
        assert_false(r->intr);
        go_to(r, 11 + i * 2000 + 1);
        assert_true(r->intr);
        dev_board_intack(r->board);
        outb(r, 0x21, 0xff); /* Linux: mask and end, handle, unmask */
        outb(r, 0x20, 0x60);
        rig_pass(r, 100 * US);
        outb(r, 0x21, 0xfe);
        assert_false(r->intr);
    }
}

static void test_one_shot(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0xfffe);
    for (unsigned mode = 0; mode <= 4; mode += 4) {
        go_to(r, 1000 + mode * 1000);
        program(r, 0, mode, 500);
        take_tick(r);
        uint64_t start = 1001 + mode * 1000;
        unsigned rise = mode ? 501 : 500; /* mode 0 rises at N, mode 4 after its strobe at N+1 */
        go_to(r, start + rise - 1);
        assert_false(r->intr);
        go_to(r, start + rise);
        assert_true(take_tick(r));
        go_to(r, start + 999);
        assert_false(r->intr);
        assert_int_equal(host_loop_next_deadline(r->loop), UINT64_MAX);
        outb(r, 0x40, 100); /* a new count arms it again */
        outb(r, 0x40, 0);
        go_to(r, start + 1200);
        assert_true(take_tick(r));
    }
}

/* The host sleeps through five ticks: they come after all, one at a time, and then the raster is the old one.
 */
static void test_late_host_catches_up(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0xfffe);
    go_to(r, 10);
    program(r, 0, 2, 10000);
    take_tick(r);
    host_clock_advance(&r->clock, middle_of(11 + 54000) - host_clock_ns(&r->clock));
    host_loop_run(r->loop);
    unsigned ticks = 0;
    for (uint64_t k = 54001; k < 100000; k += 100) {
        go_to(r, 11 + k);
        ticks += take_tick(r);
    }
    assert_int_equal(ticks, 9); /* 90000 clocks were over by then */
    go_to(r, 11 + 100000 + 1);
    assert_true(take_tick(r));
    go_to(r, 11 + 110000 - 1);
    assert_false(take_tick(r));
    go_to(r, 11 + 110000 + 1);
    assert_true(take_tick(r));
}

static void test_long_sleep_loses_ticks(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0xfffe);
    program(r, 0, 2, 11932);
    take_tick(r);
    host_clock_advance(&r->clock, 10 * SEC); /* 1000 ticks; a second's worth is 100 */
    host_loop_run(r->loop);
    unsigned ticks = 0;
    for (unsigned i = 0; i < 1000; i++) {
        ticks += take_tick(r);
        rig_pass(r, MS);
    }
    assert_in_range(ticks, 198, 202); /* 100 or so owed and 100 of this second */
}

/* The vCPU's thread runs for 2 ms of every 16, and what became due while it did not run it hears only then. */
static void test_an_eighth_of_a_cpu_loses_no_tick(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0xfffe);
    program(r, 0, 2, 4773); /* 250 Hz */
    take_tick(r);
    unsigned ticks = 0, most = 0;
    for (unsigned slice = 0; slice < 250; slice++) {
        unsigned before = ticks;
        host_clock_advance(&r->clock, 14 * MS);
        host_loop_run(r->loop);
        for (unsigned i = 0; i < 100; i++) {
            rig_pass(r, 20 * US);
            ticks += take_tick(r);
        }
        most = ticks - before > most ? ticks - before : most;
    }
    assert_in_range(ticks, 997, 1000); /* 4 s, of which the last slice's ticks may still be owed */
    assert_in_range(most, 4, 6);       /* and never a storm */
}

static void test_masked_ticks_are_gone(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0xfffe);
    program(r, 0, 2, 11932);
    take_tick(r);
    outb(r, 0x21, 0xff);
    rig_pass(r, 205 * MS);
    outb(r, 0x21, 0xfe);
    assert_true(take_tick(r)); /* the one that waited in IRR */
    unsigned ticks = 0;
    for (unsigned i = 0; i < 50; i++) {
        rig_pass(r, MS);
        ticks += take_tick(r);
    }
    assert_in_range(ticks, 5, 6);
}

static void test_fastest_program_is_bounded(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0xfffe);
    program(r, 0, 2, 1);
    unsigned ticks = 0;
    for (unsigned i = 0; i < 10000; i++) {
        rig_pass(r, US);
        ticks += take_tick(r);
    }
    assert_in_range(ticks, 300, 501); /* 10 ms at no more than one in 20 us */
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_mode0),
        T(test_mode0_gate),
        T(test_mode1),
        T(test_mode2),
        T(test_mode3),
        T(test_mode4_and_5),
        T(test_bcd_and_full_count),
        T(test_access_modes),
        T(test_latches),
        T(test_port61),
        T(test_calibration_is_exact),
        T(test_no_host_timer_unless_wanted),
        T(test_periodic_has_no_drift),
        T(test_mode3_ticks_and_mask_handler),
        T(test_one_shot),
        T(test_late_host_catches_up),
        T(test_an_eighth_of_a_cpu_loses_no_tick),
        T(test_long_sleep_loses_ticks),
        T(test_masked_ticks_are_gone),
        T(test_fastest_program_is_bounded),
    };
    return cmocka_run_group_tests_name("devmodel: 8254", tests, NULL, NULL);
}
