/* Unit test of what a guest finds that waits for counter 2 at port 61h and reads the ACPI timer before and after, while
 * the host takes its CPU away. The measurement and its bounds are Linux': 30 ms, give or take a twentieth. */
#include "test_devmodel_rig.h"

enum { PM_TIMER = 0x608, PM_HZ = 3579545, PIT_HZ = 1193182, COUNT = PIT_HZ * 3 / 100 };
#define RISE (30 * MS) /* after start(), to the microsecond */

struct late {
    struct rig r;
    bool tsc;      /* the guest has read its TSC */
    uint64_t from; /* when the counter was started */
    uint32_t pm;   /* the ACPI timer then */
};

static bool tsc_read(void *ctx)
{
    struct late *l = (struct late *)ctx;
    bool read = l->tsc;
    l->tsc = false;
    return read;
}

static int setup(void **state)
{
    struct late *l = calloc(1, sizeof *l);
    assert_non_null(l);
    rig_host(&l->r, 64 << 20);
    struct dev_board_config cfg = rig_config(&l->r);
    cfg.ops.tsc_read = tsc_read; /* r is its first member: one ctx for both */
    rig_board(&l->r, &cfg);
    *state = l;
    return 0;
}

static uint32_t pm(struct late *l)
{
    return dev_bus_in(l->r.bus, PM_TIMER, 4);
}

static bool look(struct late *l)
{
    return inb(&l->r, 0x61) & 0x20;
}

static void start(struct late *l)
{
    outb(&l->r, 0x61, 1);
    outb(&l->r, 0x43, 0xb0);
    outb(&l->r, 0x42, COUNT & 0xff);
    outb(&l->r, 0x42, COUNT >> 8);
    l->from = host_clock_ns(&l->r.clock);
    l->pm = pm(l);
}

/* Look every microsecond until ns after the start. */
static void wait_until(struct late *l, uint64_t ns)
{
    while (host_clock_ns(&l->r.clock) < l->from + ns) {
        assert_false(look(l));
        rig_pass(&l->r, US);
    }
}

static void hole(struct late *l, uint64_t ns)
{
    host_clock_advance(&l->r.clock, ns);
    host_loop_run(l->r.loop);
}

static uint64_t pm_ns(struct late *l)
{
    return (uint64_t)(pm(l) - l->pm) * SEC / PM_HZ;
}

static uint64_t true_ns(struct late *l)
{
    return host_clock_ns(&l->r.clock) - l->from;
}

static void assert_thirty(uint64_t ns)
{
    assert_in_range(ns, RISE - 3 * US, RISE + 3 * US);
}

static void assert_true_time(struct late *l)
{
    assert_in_range(pm_ns(l), true_ns(l) - US, true_ns(l) + US);
}

static void test_no_hole(void **state)
{
    struct late *l = *state;
    start(l);
    wait_until(l, RISE - US);
    while (!look(l))
        rig_pass(&l->r, US);
    assert_thirty(pm_ns(l));
    assert_true_time(l);
}

static void test_hole_before_the_edge(void **state)
{
    struct late *l = *state;
    start(l);
    wait_until(l, 5 * MS);
    hole(l, 15 * MS);
    assert_false(look(l));
    assert_true_time(l);
    wait_until(l, RISE - US);
    while (!look(l))
        rig_pass(&l->r, US);
    assert_thirty(pm_ns(l));
}

static void test_hole_across_the_edge(void **state)
{
    struct late *l = *state;
    static const uint64_t holes[] = {25 * US, 3 * MS, 10 * MS, 100 * MS};
    for (unsigned i = 0; i < sizeof holes / sizeof *holes; i++) {
        start(l);
        wait_until(l, RISE - 10 * US);
        hole(l, holes[i]);
        assert_true(look(l));
        rig_pass(&l->r, US);
        assert_thirty(pm_ns(l));
        assert_thirty(pm_ns(l)); /* and again */
        rig_pass(&l->r, MS);
        assert_true_time(l); /* the hole comes in the end */
    }
    assert_int_equal(dev_board_timer(l->r.board)->late_edges, 4);
}

/* Linux reads the TSC at either side of the ACPI timer: it wants their true distance. */
static void test_tsc_shows_the_hole(void **state)
{
    struct late *l = *state;
    start(l);
    wait_until(l, RISE - MS);
    hole(l, 10 * MS);
    assert_true(look(l));
    l->tsc = true;
    assert_true_time(l);
    rig_pass(&l->r, US);
    assert_true_time(l);
}

/* After the hole an interrupt comes first, and its handler reads the TSC. */
static void test_handler_before_the_look(void **state)
{
    struct late *l = *state;
    start(l);
    wait_until(l, RISE - MS);
    hole(l, 10 * MS);
    l->tsc = true;
    rig_pass(&l->r, 50 * US);
    assert_true(look(l));
    assert_thirty(pm_ns(l));
}

static void test_the_moment_passes(void **state)
{
    struct late *l = *state;
    start(l);
    wait_until(l, RISE - MS);
    hole(l, 10 * MS);
    assert_true(look(l));
    rig_pass(&l->r, 300 * US);
    assert_true_time(l);
}

static void test_never_backwards(void **state)
{
    struct late *l = *state;
    start(l);
    wait_until(l, RISE - MS);
    hole(l, 10 * MS);
    uint32_t handler = pm(l);
    assert_true_time(l);
    assert_true(look(l));
    assert_int_equal(pm(l), handler);
    rig_pass(&l->r, 300 * US);
    assert_true_time(l);
}

/* Not waiting in a loop: the guest was there and did something else. */
static void test_single_looks(void **state)
{
    struct late *l = *state;
    start(l);
    for (unsigned i = 0; i < 20; i++) {
        assert_false(look(l));
        rig_pass(&l->r, MS);
    }
    rig_pass(&l->r, 15 * MS);
    assert_true(look(l));
    assert_true_time(l);
    start(l); /* a new count ends what was known of the last one */
    assert_false(look(l));
    rig_pass(&l->r, 35 * MS);
    assert_true(look(l));
    assert_true_time(l);
}

static unsigned take_ticks(struct rig *r)
{
    unsigned n = 0;
    for (; r->intr; n++) {
        assert_int_equal(dev_board_intack(r->board), 0x20);
        outb(r, 0x20, 0x20);
    }
    return n;
}

/* Of the ticks that the hole has made due one comes at once, the others after the reading, and none is lost. */
static void test_ticks_wait_for_the_reading(void **state)
{
    struct late *l = *state;
    struct rig *r = &l->r;
    unsigned ticks = 0;
    rig_pic_init(r, 0xfffe);
    outb(r, 0x43, 0x34);
    outb(r, 0x40, 4773 & 0xff); /* 250 Hz */
    outb(r, 0x40, 4773 >> 8);
    take_ticks(r);
    start(l);
    for (unsigned us = 0; us < 25000; us++) {
        assert_false(look(l));
        rig_pass(r, US);
        ticks += take_ticks(r);
    }
    assert_int_equal(ticks, 6);
    hole(l, 15 * MS); /* to the 10th, give or take the start */
    assert_int_equal(take_ticks(r), 1);
    rig_pass(r, 150 * US); /* its handler */
    assert_true(look(l));
    for (unsigned us = 0; us < 190; us++) {
        assert_in_range(pm_ns(l), RISE - 3 * US, RISE + (us + 3) * US);
        assert_false(r->intr);
        rig_pass(r, US);
    }
    for (ticks += 1; true_ns(l) < 80 * MS; ticks += take_ticks(r))
        rig_pass(r, 10 * US);
    assert_in_range(ticks, 19, 20);
    assert_int_equal(dev_board_timer(r->board)->lost, 0);
}

static uint32_t pm_of(uint64_t ns)
{
    return (uint32_t)((unsigned __int128)ns * PM_HZ / SEC);
}

/* Whatever a guest does, in whatever order and with whatever holes: the ACPI timer is never ahead, never goes back, and
 * is exact once the TSC was read after the look. */
static void test_random_order(void **state)
{
    struct late *l = *state;
    struct rig *r = &l->r;
    uint64_t seed = 88172645463325252;
    uint32_t last = pm(l);
    bool tsc_after_look = false;
    unsigned put_back = 0;
    for (unsigned i = 0; i < 300000; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        unsigned what = seed >> 32 & 255;
        if (what < 2) { /* short counts in every mode */
            outb(r, 0x43, 0xb0 | (seed >> 40 & 15));
            outb(r, 0x42, seed >> 48 & 255);
            outb(r, 0x42, seed >> 56 & 3);
        } else if (what < 3) {
            outb(r, 0x61, seed >> 40 & 3);
        } else if (what < 8) {
            hole(l, (seed >> 40) % (2 * MS));
        } else if (what < 12) {
            l->tsc = tsc_after_look = true;
        } else if (what < 60) {
            uint32_t now = pm_of(host_clock_ns(&r->clock)), shown = pm(l);
            assert_true((int32_t)(shown - last) >= 0 && (int32_t)(now - shown) >= 0);
            assert_true(shown == now || !tsc_after_look);
            put_back += shown != now;
            last = shown;
        } else {
            look(l);
            tsc_after_look = false;
        }
        rig_pass(r, seed >> 44 & 511);
    }
    assert_true(put_back > 100); /* or nothing was tried */
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_no_hole),
        T(test_hole_before_the_edge),
        T(test_hole_across_the_edge),
        T(test_tsc_shows_the_hole),
        T(test_handler_before_the_look),
        T(test_the_moment_passes),
        T(test_never_backwards),
        T(test_single_looks),
        T(test_ticks_wait_for_the_reading),
        T(test_random_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
