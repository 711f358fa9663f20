/* Unit test of devmodel's 8259A pair. Expected values: Intel 8259A data sheet; 82371AB data sheet for
 * 4D0h/4D1h. */
#include "test_devmodel_rig.h"

static void rig_irq8(struct rig *r) /* the clock's update interrupt, at the end of this second */
{
    outb(r, 0x70, 0x0b);
    outb(r, 0x71, 0x12);
    rig_pass(r, SEC);
}

static void rig_irq8_drop(struct rig *r)
{
    outb(r, 0x70, 0x0c);
    inb(r, 0x71);
    outb(r, 0x70, 0x0b);
    outb(r, 0x71, 0x02);
}

static void test_masked_until_programmed(void **state)
{
    struct rig *r = *state;
    rig_irq1(r, true);
    assert_false(dev_board_intr(r->board));
    assert_int_equal(r->intr_calls, 0);
}

static void test_acknowledge_and_eoi(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    rig_irq1(r, true);
    assert_true(dev_board_intr(r->board));
    assert_true(r->intr);
    assert_int_equal(inb(r, 0x20), 0x02); /* IRR is what is read after ICW1 */
    assert_int_equal(dev_board_intack(r->board), 0x21);
    assert_false(r->intr);
    assert_int_equal(inb(r, 0x20), 0x00);
    outb(r, 0x20, 0x0b);
    assert_int_equal(inb(r, 0x20), 0x02); /* ISR */
    outb(r, 0x20, 0x20);
    assert_int_equal(inb(r, 0x20), 0x00);
    assert_false(r->intr); /* still high, but no new edge */
    rig_irq1(r, false);
    rig_irq1(r, true);
    assert_true(r->intr);
}

static void test_mask(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0x0002);
    rig_irq1(r, true);
    assert_false(r->intr);
    assert_int_equal(inb(r, 0x21), 0x02);
    assert_int_equal(inb(r, 0x20), 0x02); /* a masked request still waits in IRR */
    outb(r, 0x21, 0x00);
    assert_true(r->intr);
    outb(r, 0x21, 0x02);
    assert_false(r->intr);
    assert_int_equal(r->intr_calls, 2);
}

/* A request that goes away before the acknowledge: vector 7, ISR untouched. */
static void test_spurious_master(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    rig_irq1(r, true);
    rig_irq1(r, false);
    assert_false(r->intr);
    assert_int_equal(dev_board_intack(r->board), 0x27);
    outb(r, 0x20, 0x0b);
    assert_int_equal(inb(r, 0x20), 0x00);
}

static void test_cascade(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    rig_irq8(r);
    assert_true(r->intr);
    assert_int_equal(inb(r, 0x20), 0x04);
    assert_int_equal(inb(r, 0xa0), 0x01);
    assert_int_equal(dev_board_intack(r->board), 0x28);
    outb(r, 0x20, 0x0b);
    outb(r, 0xa0, 0x0b);
    assert_int_equal(inb(r, 0x20), 0x04);
    assert_int_equal(inb(r, 0xa0), 0x01);
    rig_irq8_drop(r);
    rig_irq8(r); /* again, before any EOI: blocked in the slave */
    assert_false(r->intr);
    outb(r, 0xa0, 0x20);
    assert_false(r->intr); /* the slave asks, the master still serves IR2 */
    outb(r, 0x20, 0x20);
    assert_true(r->intr);
    assert_int_equal(dev_board_intack(r->board), 0x28);
}

/* The slave's request is withdrawn after it reached the master; then one taken from the slave behind its
 * back. */
static void test_spurious_slave(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    rig_irq8(r);
    outb(r, 0xa1, 0x01); /* masked: the slave's INT falls, and with it the master's IR2 */
    assert_false(r->intr);
    assert_int_equal(dev_board_intack(r->board), 0x27);

    /* Poll the slave behind the master's back while the master has latched IR2: the same, seen from the
     * slave. */
    outb(r, 0xa1, 0x00);
    assert_true(r->intr);
    outb(r, 0x20, 0x0c); /* poll command on the master: takes IR2 */
    assert_int_equal(inb(r, 0x20), 0x82);
    outb(r, 0xa0, 0x0c);
    assert_int_equal(inb(r, 0xa0), 0x80);
    outb(r, 0xa0, 0x0c);
    assert_int_equal(inb(r, 0xa0) & 0x80, 0x00); /* no request left */
}

static void test_nesting(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    rig_irq_com(r, 0x3f8, true); /* IRQ 4 */
    assert_int_equal(dev_board_intack(r->board), 0x24);
    rig_irq_com(r, 0x2f8, true); /* IRQ 3 is higher */
    assert_true(r->intr);
    assert_int_equal(dev_board_intack(r->board), 0x23);
    rig_irq_com(r, 0x3f8, false);
    rig_irq_com(r, 0x3f8, true); /* lower: waits */
    assert_false(r->intr);
    outb(r, 0x20, 0x20); /* non-specific: ends 3, the highest in service */
    outb(r, 0x20, 0x0b);
    assert_int_equal(inb(r, 0x20), 0x10);
    assert_false(r->intr);
    outb(r, 0x20, 0x64); /* specific EOI of 4 */
    assert_true(r->intr);
    assert_int_equal(dev_board_intack(r->board), 0x24);
}

static void test_specific_priority(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    outb(r, 0x20, 0xc3); /* set priority: 3 is lowest, so 4 is highest */
    rig_irq_com(r, 0x2f8, true);
    rig_irq1(r, true);
    rig_irq_com(r, 0x3f8, true);
    assert_int_equal(dev_board_intack(r->board), 0x24);
    outb(r, 0x20, 0xe4); /* rotate on specific EOI: now 4 is lowest, 5 highest */
    assert_int_equal(dev_board_intack(r->board), 0x21); /* order 5 6 7 0 1 2 3 4 */
    outb(r, 0x20, 0xa0); /* rotate on non-specific EOI: 1 lowest, order 2 3 ... */
    rig_irq1(r, false);
    rig_irq1(r, true);
    assert_int_equal(dev_board_intack(r->board), 0x23);
}

static void test_special_mask(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    rig_irq1(r, true);
    assert_int_equal(dev_board_intack(r->board), 0x21);
    rig_irq_com(r, 0x3f8, true);
    assert_false(r->intr);
    outb(r, 0x20, 0x68); /* ESMM, SMM */
    outb(r, 0x21, 0x02); /* mask the level in service: lower ones may come */
    assert_true(r->intr);
    assert_int_equal(dev_board_intack(r->board), 0x24);
    outb(r, 0x20, 0x20); /* non-specific EOI does not see the masked bit 1 */
    outb(r, 0x20, 0x0b);
    assert_int_equal(inb(r, 0x20), 0x02);
    outb(r, 0x20, 0x48); /* ESMM without SMM: off */
    outb(r, 0x20, 0x20);
    assert_int_equal(inb(r, 0x20), 0x00);
}

static void test_automatic_eoi(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    outb(r, 0x20, 0x11);
    outb(r, 0x21, 0x40);
    outb(r, 0x21, 0x04);
    outb(r, 0x21, 0x03); /* AEOI */
    rig_irq_com(r, 0x2f8, true);
    rig_irq_com(r, 0x3f8, true);
    assert_int_equal(dev_board_intack(r->board), 0x43);
    assert_true(r->intr); /* nothing in service: the next one at once */
    outb(r, 0x20, 0x0b);
    assert_int_equal(inb(r, 0x20), 0x00);
    outb(r, 0x20, 0x80); /* rotate in automatic EOI mode */
    assert_int_equal(dev_board_intack(r->board), 0x44);
    rig_irq_com(r, 0x3f8, false);
    rig_irq_com(r, 0x2f8, false);
    rig_irq_com(r, 0x3f8, true);
    rig_irq_com(r, 0x2f8, true);
    assert_int_equal(dev_board_intack(r->board), 0x43); /* 4 was served and is lowest now */
    rig_irq_com(r, 0x2f8, false);
    rig_irq_com(r, 0x2f8, true);
    assert_int_equal(dev_board_intack(r->board), 0x44); /* now 3 is */
}

/* Special fully nested mode: a higher request of the slave interrupts the service of a lower one. */
static void test_special_fully_nested(void **state)
{
    struct rig *r = *state;
    for (unsigned sfnm = 0; sfnm < 2; sfnm++) {
        rig_pic_init(r, 0);
        outb(r, 0x20, 0x11);
        outb(r, 0x21, 0x20);
        outb(r, 0x21, 0x04);
        outb(r, 0x21, sfnm ? 0x11 : 0x01);
        /* IRQ 9: the PM timer's bit 31 changes every 2^31 / 3579545 s = 599.9 s */
        dev_bus_out(r->bus, 0x600, 2, 0x0001);
        dev_bus_out(r->bus, 0x602, 2, 0x0001);
        rig_pass(r, 601 * SEC);
        assert_int_equal(dev_board_intack(r->board), 0x29);
        rig_irq8(r);
        assert_int_equal(r->intr, sfnm);
        rig_irq8_drop(r);
        dev_bus_out(r->bus, 0x602, 2, 0);
    }
}

/* Two requests wait in a slave with automatic EOI: taking the first must give the master a new edge for the
 * second. */
static void test_cascaded_automatic_eoi(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    outb(r, 0xa0, 0x11);
    outb(r, 0xa1, 0x28);
    outb(r, 0xa1, 0x02);
    outb(r, 0xa1, 0x03);
    dev_bus_out(r->bus, 0x602, 2, 0x0001);
    rig_pass(r, 600 * SEC); /* IRQ 9, see above */
    rig_irq8(r);
    assert_int_equal(dev_board_intack(r->board), 0x28);
    assert_false(r->intr);
    outb(r, 0x20, 0x20);
    assert_true(r->intr);
    assert_int_equal(dev_board_intack(r->board), 0x29);
}

static void test_level_triggered(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    outb(r, 0x4d0, 0xff);
    outb(r, 0x4d1, 0xff);
    assert_int_equal(inb(r, 0x4d0), 0xf8); /* 0, 1, 2 and 8, 13 are always edge */
    assert_int_equal(inb(r, 0x4d1), 0xde);
    rig_irq_com(r, 0x3f8, true);
    assert_int_equal(dev_board_intack(r->board), 0x24);
    assert_int_equal(inb(r, 0x20), 0x10); /* IRR follows the line */
    outb(r, 0x20, 0x20);
    assert_true(r->intr); /* not served: comes again */
    rig_irq_com(r, 0x3f8, false);
    assert_false(r->intr);
}

static void test_icw1_resets_edges(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    rig_irq1(r, true);
    assert_true(r->intr);
    rig_pic_init(r, 0);
    assert_false(r->intr);
    assert_int_equal(inb(r, 0x20), 0x00);
    assert_int_equal(inb(r, 0x21), 0x00); /* IMR is cleared by ICW1 */
    rig_irq1(r, false);
    rig_irq1(r, true);
    assert_true(r->intr);
}

/* ICW1 with SNGL: no ICW3 is expected, IC4 = 0: no ICW4 either. */
static void test_short_initialization(void **state)
{
    struct rig *r = *state;
    outb(r, 0x20, 0x12);
    outb(r, 0x21, 0x50);
    outb(r, 0x21, 0xfd); /* already OCW1 */
    assert_int_equal(inb(r, 0x21), 0xfd);
    rig_irq1(r, true);
    assert_int_equal(dev_board_intack(r->board), 0x51);
}

static void test_shared_line(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    rig_irq_com(r, 0x3f8, true);
    rig_irq_com(r, 0x3e8, true);
    assert_int_equal(dev_board_intack(r->board), 0x24);
    outb(r, 0x20, 0x20);
    rig_irq_com(r, 0x3f8, false); /* COM3 still holds the line: no fall, no new edge */
    rig_irq_com(r, 0x3f8, true);
    assert_false(r->intr);
    rig_irq_com(r, 0x3f8, false);
    rig_irq_com(r, 0x3e8, false);
    rig_irq_com(r, 0x3e8, true);
    assert_true(r->intr);
}

static void test_reset(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    rig_irq1(r, true);
    rig_irq8(r);
    assert_true(r->intr);
    dev_board_reset(r->board);
    assert_false(r->intr);
    assert_false(dev_board_intr(r->board));
    assert_int_equal(inb(r, 0x21), 0xff);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_masked_until_programmed),
        T(test_acknowledge_and_eoi),
        T(test_mask),
        T(test_spurious_master),
        T(test_cascade),
        T(test_spurious_slave),
        T(test_nesting),
        T(test_specific_priority),
        T(test_special_mask),
        T(test_automatic_eoi),
        T(test_special_fully_nested),
        T(test_cascaded_automatic_eoi),
        T(test_level_triggered),
        T(test_icw1_resets_edges),
        T(test_short_initialization),
        T(test_shared_line),
        T(test_reset),
    };
    return cmocka_run_group_tests_name("devmodel: 8259A", tests, NULL, NULL);
}
