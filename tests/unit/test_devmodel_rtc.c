/* Unit test of devmodel's MC146818 and CMOS memory. Expected values: Motorola MC146818A data sheet; calendar
 * by hand. The rig's clock starts at 2001-09-09 01:46:40, a Sunday. */
#include "test_devmodel_rig.h"

static uint8_t cmos(struct rig *r, uint8_t index)
{
    outb(r, 0x70, index);
    return inb(r, 0x71);
}

static void cmos_set(struct rig *r, uint8_t index, uint8_t v)
{
    outb(r, 0x70, index);
    outb(r, 0x71, v);
}

static void assert_date(struct rig *r, const uint8_t *want) /* century year month day weekday */
{
    static const uint8_t index[] = {0x32, 9, 8, 7, 6};
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(cmos(r, index[i]), want[i]);
}

static void assert_time(struct rig *r, uint8_t h, uint8_t m, uint8_t s)
{
    assert_int_equal(cmos(r, 4), h);
    assert_int_equal(cmos(r, 2), m);
    assert_int_equal(cmos(r, 0), s);
}

static void set_all(struct rig *r, const uint8_t *date, uint8_t h, uint8_t m, uint8_t s)
{
    static const uint8_t index[] = {0x32, 9, 8, 7, 6};
    uint8_t b = cmos(r, 0x0b);
    cmos_set(r, 0x0b, b | 0x80);
    for (unsigned i = 0; i < 5; i++)
        cmos_set(r, index[i], date[i]);
    cmos_set(r, 4, h);
    cmos_set(r, 2, m);
    cmos_set(r, 0, s);
    cmos_set(r, 0x0b, b);
}

static void test_epoch(void **state)
{
    struct rig *r = *state;
    assert_date(r, (uint8_t[]){0x20, 0x01, 0x09, 0x09, 0x01});
    assert_time(r, 0x01, 0x46, 0x40);
    assert_int_equal(cmos(r, 0x0a), 0x26);
    assert_int_equal(cmos(r, 0x0b), 0x02);
    assert_int_equal(cmos(r, 0x0d), 0x80); /* valid RAM and time */
    assert_int_equal(inb(r, 0x70), 0xff);
    rig_pass(r, 999999999);
    assert_time(r, 0x01, 0x46, 0x40);
    rig_pass(r, 1);
    assert_time(r, 0x01, 0x46, 0x41);
    rig_pass(r, 86400 * SEC);
    assert_date(r, (uint8_t[]){0x20, 0x01, 0x09, 0x10, 0x02});
}

static void test_calendar(void **state)
{
    struct rig *r = *state;
    static const struct {
        uint8_t before[5], after[5];
    } rows[] = {
        {{0x20, 0x00, 0x02, 0x28, 2}, {0x20, 0x00, 0x02, 0x29, 3}}, /* 2000 is a leap year */
        {{0x19, 0x00, 0x02, 0x28, 4}, {0x19, 0x00, 0x03, 0x01, 5}}, /* 1900 is not */
        {{0x20, 0x24, 0x02, 0x29, 5}, {0x20, 0x24, 0x03, 0x01, 6}},
        {{0x19, 0x99, 0x12, 0x31, 6}, {0x20, 0x00, 0x01, 0x01, 7}},
        {{0x20, 0x23, 0x04, 0x30, 1}, {0x20, 0x23, 0x05, 0x01, 2}},
        {{0x20, 0x23, 0x04, 0x30, 7}, {0x20, 0x23, 0x05, 0x01, 1}}, /* weekdays are counted, not computed */
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        set_all(r, rows[i].before, 0x23, 0x59, 0x59);
        assert_date(r, rows[i].before);
        rig_pass(r, SEC);
        assert_date(r, rows[i].after);
        assert_time(r, 0, 0, 0);
    }
}

static void test_formats(void **state)
{
    struct rig *r = *state;
    cmos_set(r, 0x0b, 0x06); /* binary, 24 hours */
    assert_date(r, (uint8_t[]){20, 1, 9, 9, 1});
    assert_time(r, 1, 46, 40);
    cmos_set(r, 0x0b, 0x00); /* BCD, 12 hours */
    assert_time(r, 0x01, 0x46, 0x40);
    static const struct {
        uint8_t twelve, twenty_four;
    } rows[] = {{0x12, 0x00}, {0x11, 0x11}, {0x92, 0x12}, {0x81, 0x13}, {0x91, 0x23}};
    for (unsigned i = 0; i < 5; i++) {
        cmos_set(r, 0x0b, 0x00);
        cmos_set(r, 4, rows[i].twelve);
        assert_int_equal(cmos(r, 4), rows[i].twelve);
        cmos_set(r, 0x0b, 0x02);
        assert_int_equal(cmos(r, 4), rows[i].twenty_four);
    }
}

/* While SET is 1 the registers stand still and keep even nonsense; the clock then goes on from them. */
static void test_set_stops_the_clock(void **state)
{
    struct rig *r = *state;
    cmos_set(r, 0x0b, 0x92);
    assert_int_equal(cmos(r, 0x0b), 0x82); /* SET clears UIE */
    rig_pass(r, 100 * SEC);
    assert_time(r, 0x01, 0x46, 0x40);
    cmos_set(r, 2, 0xff);
    assert_int_equal(cmos(r, 2), 0xff);
    cmos_set(r, 2, 0x30);
    cmos_set(r, 0x0b, 0x02);
    rig_pass(r, SEC);
    assert_time(r, 0x01, 0x30, 0x41);
}

/* Out of reset the divider takes half a second to the first update. */
static void test_divider_reset(void **state)
{
    struct rig *r = *state;
    rig_pass(r, 300 * MS);
    cmos_set(r, 0x0a, 0x76);
    rig_pass(r, 5 * SEC);
    assert_int_equal(cmos(r, 0x0a), 0x76);
    cmos_set(r, 0x0a, 0x26);
    assert_time(r, 0x01, 0x46, 0x40);
    rig_pass(r, 499 * MS);
    assert_time(r, 0x01, 0x46, 0x40);
    rig_pass(r, MS);
    assert_time(r, 0x01, 0x46, 0x41);
    rig_pass(r, SEC);
    assert_time(r, 0x01, 0x46, 0x42);
}

/* UIP rises 244 us before the update cycle of 1984 us and falls with its end. */
static void test_update_in_progress(void **state)
{
    struct rig *r = *state;
    rig_pass(r, SEC - 2229 * US);
    assert_int_equal(cmos(r, 0x0a), 0x26);
    rig_pass(r, 2 * US);
    assert_int_equal(cmos(r, 0x0a), 0xa6);
    rig_pass(r, 2226 * US);
    assert_int_equal(cmos(r, 0x0a), 0xa6);
    assert_time(r, 0x01, 0x46, 0x40);
    rig_pass(r, US);
    assert_int_equal(cmos(r, 0x0a), 0x26);
    assert_time(r, 0x01, 0x46, 0x41);
    cmos_set(r, 0x0b, 0x82);
    rig_pass(r, SEC - US);
    assert_int_equal(cmos(r, 0x0a), 0x26); /* SET: no updates */
    cmos_set(r, 0x0a, 0xa6);
    assert_int_equal(cmos(r, 0x0a), 0x26); /* UIP cannot be written */
}

static void test_flags_without_interrupts(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    cmos(r, 0x0c);
    assert_int_equal(cmos(r, 0x0c), 0x00);
    rig_pass(r, 2 * MS); /* 1024 Hz */
    assert_int_equal(cmos(r, 0x0c), 0x40);
    assert_int_equal(cmos(r, 0x0c), 0x00);
    rig_pass(r, SEC);
    assert_int_equal(cmos(r, 0x0c), 0x50);
    assert_false(r->intr);
    assert_int_equal(host_loop_next_deadline(r->loop), UINT64_MAX);
}

static bool take_irq8(struct rig *r)
{
    if (!r->intr)
        return false;
    assert_int_equal(dev_board_intack(r->board), 0x28);
    outb(r, 0xa0, 0x20);
    outb(r, 0x20, 0x20);
    return true;
}

static void test_update_interrupt(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    cmos(r, 0x0c);
    cmos_set(r, 0x0a, 0x20); /* no periodic rate */
    cmos_set(r, 0x0b, 0x12);
    for (unsigned i = 0; i < 3; i++) {
        rig_pass(r, SEC - 1);
        assert_false(r->intr);
        rig_pass(r, 1);
        assert_true(take_irq8(r));
        rig_pass(r, 0);
        assert_int_equal(cmos(r, 0x0c), 0x90);
    }
    rig_pass(r, 3 * SEC);
    assert_true(take_irq8(r));
    rig_pass(r, SEC); /* not acknowledged in the clock: the line stays high, no new edge */
    assert_false(take_irq8(r));
}

static void test_periodic_interrupt(void **state)
{
    struct rig *r = *state;
    static const struct {
        uint8_t rate;
        unsigned hz;
    } rows[] = {{1, 256}, {2, 128}, {3, 8192}, {6, 1024}, {15, 2}};
    rig_pic_init(r, 0);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        cmos_set(r, 0x0a, 0x20 | rows[i].rate);
        cmos_set(r, 0x0b, 0x42);
        cmos(r, 0x0c);
        unsigned ticks = 0;
        uint64_t end = host_clock_ns(&r->clock) + SEC;
        while (host_loop_next_deadline(r->loop) <= end) {
            rig_pass(r, host_loop_next_deadline(r->loop) - host_clock_ns(&r->clock));
            assert_true(take_irq8(r));
            assert_int_equal(cmos(r, 0x0c) & 0xc0, 0xc0);
            ticks++;
        }
        rig_pass(r, end - host_clock_ns(&r->clock));
        assert_int_equal(ticks, rows[i].hz);
        cmos_set(r, 0x0b, 0x02);
    }
}

static void test_alarm(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    cmos_set(r, 0x0a, 0x20);
    cmos_set(r, 5, 0x01);
    cmos_set(r, 3, 0x47);
    cmos_set(r, 1, 0x05);
    cmos(r, 0x0c);
    cmos_set(r, 0x0b, 0x22);
    rig_pass(r, 24 * SEC);
    assert_false(r->intr);
    rig_pass(r, SEC); /* 01:47:05 */
    assert_true(take_irq8(r));
    assert_int_equal(cmos(r, 0x0c), 0xb0); /* AF, and UF of the updates so far */
    cmos_set(r, 5, 0xc0);                  /* every hour */
    cmos_set(r, 3, 0xff);                  /* every minute */
    for (unsigned i = 0; i < 3; i++) {
        rig_pass(r, 59 * SEC);
        assert_false(r->intr);
        rig_pass(r, SEC);
        assert_true(take_irq8(r));
        cmos(r, 0x0c);
    }
    cmos_set(r, 5, 0x24); /* never */
    rig_pass(r, 2 * 86400 * SEC);
    assert_false(r->intr);
    cmos_set(r, 5, 0x81); /* one in the afternoon */
    cmos_set(r, 3, 0x00);
    cmos_set(r, 1, 0x00);
    cmos_set(r, 0x0b, 0x20);
    set_all(r, (uint8_t[]){0x20, 0x01, 0x09, 0x09, 0x01}, 0x12, 0x59, 0x58); /* two to one at night */
    rig_pass(r, 3 * SEC);
    assert_false(r->intr);
    rig_pass(r, 43200 * SEC);
    assert_true(take_irq8(r));
}

static void test_memory_sizes(void **state)
{
    struct rig *r = *state; /* 64 MiB */
    assert_int_equal(cmos(r, 0x15) | cmos(r, 0x16) << 8, 640);
    assert_int_equal(cmos(r, 0x17) | cmos(r, 0x18) << 8, 63 * 1024);
    assert_int_equal(cmos(r, 0x30) | cmos(r, 0x31) << 8, 63 * 1024);
    assert_int_equal(cmos(r, 0x34) | cmos(r, 0x35) << 8, 48 * 16); /* 64 KiB units above 16 MiB */
    assert_int_equal(cmos(r, 0x14), 0x02);
    unsigned sum = 0;
    for (uint8_t i = 0x10; i <= 0x2d; i++)
        sum += cmos(r, i);
    assert_int_equal(cmos(r, 0x2e) << 8 | cmos(r, 0x2f), sum);
}

static void test_memory_and_nmi_bit(void **state)
{
    struct rig *r = *state;
    cmos_set(r, 0xc0, 0x5a); /* bit 7 is the NMI mask, the index is 40h */
    assert_int_equal(cmos(r, 0x40), 0x5a);
    dev_board_reset(r->board);
    assert_int_equal(cmos(r, 0x40), 0x5a); /* battery */
}

static void test_reset_keeps_time(void **state)
{
    struct rig *r = *state;
    set_all(r, (uint8_t[]){0x20, 0x24, 0x02, 0x29, 5}, 0x10, 0x20, 0x30);
    cmos_set(r, 0x0b, 0x72);
    dev_board_reset(r->board);
    assert_int_equal(cmos(r, 0x0b), 0x02);
    assert_date(r, (uint8_t[]){0x20, 0x24, 0x02, 0x29, 5});
    assert_time(r, 0x10, 0x20, 0x30);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_epoch),
        T(test_calendar),
        T(test_formats),
        T(test_set_stops_the_clock),
        T(test_divider_reset),
        T(test_update_in_progress),
        T(test_flags_without_interrupts),
        T(test_update_interrupt),
        T(test_periodic_interrupt),
        T(test_alarm),
        T(test_memory_sizes),
        T(test_memory_and_nmi_bit),
        T(test_reset_keeps_time),
    };
    return cmocka_run_group_tests_name("devmodel: MC146818", tests, NULL, NULL);
}
