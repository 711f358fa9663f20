/* Unit test of devmodel against a hostile guest: every port, every width, random values, time that jumps.
 * What is checked is that nothing crashes (run it under ASan and UBSan), that INTR is only told when it
 * changes, and that the machine still works afterwards. */
#include "test_devmodel_rig.h"

static uint64_t next_random(uint64_t *s) /* xorshift64* */
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * UINT64_C(0x2545f4914f6cdd1d);
}

static void test_every_port_every_size(void **state)
{
    struct rig *r = *state;
    static const uint32_t values[] = {0, UINT32_MAX, 0xa5c39687};
    for (uint32_t port = 0; port < 0x10000; port++)
        for (unsigned size = 1; size <= 4; size *= 2)
            for (unsigned v = 0; v < 3; v++) {
                uint32_t in = dev_bus_in(r->bus, (uint16_t)port, size);
                assert_true(size == 4 || in >> 8 * size == 0);
                dev_bus_out(r->bus, (uint16_t)port, size, values[v]);
            }
    for (unsigned size = 0; size < 10; size++) { /* sizes there are none of */
        dev_bus_out(r->bus, 0x3f8, size == 1 || size == 2 || size == 4 ? 3 : size, 0);
        dev_bus_mmio_write(r->bus, 0xa0000, size, 0);
        dev_bus_mmio_read(r->bus, 0xbfffd, size);
    }
}

static uint16_t likely_port(uint64_t x)
{
    static const uint16_t base[] = {0x20,  0xa0,  0x40,  0x60,  0x70,  0x4d0, 0x3f8, 0x2f8,
                                    0x3e8, 0x2e8, 0x600, 0xcf8, 0x92,  0xf4,  0x3b0, 0x3c0,
                                    0x3d0, 0x00,  0x80,  0xc0,  0x279, 0xa79, 0x203, 0x213};
    return x & 0x300 ? (uint16_t)(base[x % (sizeof base / sizeof *base)] + (x >> 32 & 15))
                     : (uint16_t)(x >> 40);
}

static void test_random_accesses(void **state)
{
    struct rig *r = *state;
    uint64_t seed = 0x9e3779b97f4a7c15;
    for (unsigned i = 0; i < 1000000; i++) {
        uint64_t x = next_random(&seed), v = next_random(&seed);
        unsigned size = 1u << (x >> 60) % 3;
        if (x >> 56 & 1)
            dev_bus_in(r->bus, likely_port(x), size);
        else
            dev_bus_out(r->bus, likely_port(x), size, (uint32_t)(v & 0x10000000000 ? v & 0xff : v));
        if (!(i % 16)) {
            host_clock_advance(&r->clock, v % (i % 4096 ? 20000 : 3 * SEC));
            host_loop_run(r->loop);
        }
        if (x >> 57 & 1 && r->intr)
            dev_board_intack(r->board);
        assert_int_equal(r->intr, dev_board_intr(r->board));
        if (!(i % 64)) {
            uint64_t at = 0xa0000 - 16 + v % 0x20020;
            dev_bus_mmio_write(r->bus, at, 1u << v % 4, v);
            dev_bus_mmio_read(r->bus, at ^ 5, 1u << x % 4);
        }
    }
}

static void test_still_alive(void **state)
{
    test_random_accesses(state);
    struct rig *r = *state;
    dev_board_reset(r->board);
    rig_pic_init(r, 0);
    assert_false(r->intr);
    rig_irq1(r, true);
    assert_int_equal(dev_board_intack(r->board), 0x21);
    outb(r, 0x20, 0x20);
    r->events = 0;
    dev_bus_out(r->bus, 0x604, 2, 5 << 10 | 1 << 13);
    assert_int_equal(r->events, 1);
    assert_int_equal(r->event, DEV_POWER_OFF);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {T(test_every_port_every_size), T(test_still_alive)};
    return cmocka_run_group_tests_name("devmodel: hostile guest", tests, NULL, NULL);
}
