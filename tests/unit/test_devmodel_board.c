/* Unit test of devmodel's bus, keyboard controller, ACPI registers, PCI bridge, VGA and board. Expected
 * values: IBM PS/2 technical reference, ACPI 3.0, PCI 2.1, 82441FX data sheet. */
#include "test_devmodel_rig.h"

#include <stdio.h>

/* ---- Bus ---- */

struct probe {
    unsigned calls;
    uint64_t offset[8];
    unsigned size[8];
    uint64_t value[8];
};

static uint64_t probe_read(void *ctx, uint64_t offset, unsigned size)
{
    struct probe *p = ctx;
    p->offset[p->calls % 8] = offset;
    p->size[p->calls++ % 8] = size;
    return UINT64_C(0x1122334455667710) + offset;
}

static void probe_write(void *ctx, uint64_t offset, unsigned size, uint64_t v)
{
    struct probe *p = ctx;
    p->offset[p->calls % 8] = offset;
    p->value[p->calls % 8] = v;
    p->size[p->calls++ % 8] = size;
}

static struct dev_region probe_region(struct probe *p, uint64_t base, uint64_t size, unsigned max)
{
    return (struct dev_region){"probe", base, size, probe_read, probe_write, p, max};
}

static void test_bus_splits(void **state)
{
    (void)state;
    struct dev_bus *bus;
    struct probe byte = {0}, word = {0};
    assert_int_equal(dev_bus_create(&bus, NULL), 0);
    struct dev_region r = probe_region(&byte, 0x100, 4, 1);
    assert_int_equal(dev_bus_add_io(bus, &r, NULL), 0);
    r = probe_region(&word, 0x104, 4, 2);
    assert_int_equal(dev_bus_add_io(bus, &r, NULL), 0);
    assert_int_equal(dev_bus_in(bus, 0x100, 4), 0x13121110);
    assert_int_equal(byte.calls, 4);
    assert_int_equal(byte.offset[3], 3);
    dev_bus_out(bus, 0x104, 4, 0xaabbccdd);
    assert_int_equal(word.calls, 2);
    assert_int_equal(word.value[0], 0xccdd);
    assert_int_equal(word.value[1], 0xaabb);
    assert_int_equal(word.offset[1], 2);
    byte.calls = word.calls = 0;
    dev_bus_out(bus, 0x102, 4, 0xaabbccdd); /* across both */
    assert_int_equal(byte.calls, 2);
    assert_int_equal(byte.value[0], 0xdd);
    assert_int_equal(byte.value[1], 0xcc);
    assert_int_equal(word.calls, 1);
    assert_int_equal(word.value[0], 0xaabb);
    assert_int_equal(dev_bus_in(bus, 0x106, 4), 0xffff7712); /* half of it unclaimed */
    dev_bus_destroy(bus);
}

static void test_bus_refuses(void **state)
{
    (void)state;
    struct dev_bus *bus;
    struct probe p = {0};
    struct host_err err;
    assert_int_equal(dev_bus_create(&bus, NULL), 0);
    struct dev_region r = probe_region(&p, 0x100, 8, 0);
    assert_int_equal(dev_bus_add_io(bus, &r, &err), 0);
    r = probe_region(&p, 0x107, 2, 0);
    assert_int_equal(dev_bus_add_io(bus, &r, &err), -1);
    assert_non_null(strstr(err.text, "probe"));
    r = probe_region(&p, 0xffff, 2, 0);
    assert_int_equal(dev_bus_add_io(bus, &r, &err), -1);
    r = probe_region(&p, 0x200, 0, 0);
    assert_int_equal(dev_bus_add_io(bus, &r, &err), -1);
    r = probe_region(&p, 0x200, 4, 3);
    assert_int_equal(dev_bus_add_io(bus, &r, &err), -1);
    r = probe_region(&p, 0xf0000000, 0x1000, 0);
    assert_int_equal(dev_bus_add_mmio(bus, &r, &err), 0);
    r = probe_region(&p, 0xf0000fff, 1, 0);
    assert_int_equal(dev_bus_add_mmio(bus, &r, &err), -1);
    r = probe_region(&p, UINT64_MAX, 2, 0);
    assert_int_equal(dev_bus_add_mmio(bus, &r, &err), -1);
    dev_bus_destroy(bus);
}

static void test_bus_memory(void **state)
{
    (void)state;
    struct dev_bus *bus;
    struct probe p = {0};
    assert_int_equal(dev_bus_create(&bus, NULL), 0);
    struct dev_region r = probe_region(&p, 0xf0000000, 0x1000, 4);
    assert_int_equal(dev_bus_add_mmio(bus, &r, NULL), 0);
    assert_int_equal(dev_bus_mmio_read(bus, 0xf0000010, 8), UINT64_C(0x5566772455667720));
    assert_int_equal(p.calls, 2);
    assert_int_equal(dev_bus_mmio_read(bus, 0xf0000ffe, 4), 0xffff870e); /* two bytes each */
    assert_int_equal(dev_bus_mmio_read(bus, 0xe0000000, 8), UINT64_MAX);
    assert_int_equal(dev_bus_mmio_read(bus, UINT64_MAX, 8), UINT64_MAX);
    dev_bus_destroy(bus);
}

static void test_bus_report_and_trace(void **state)
{
    struct rig *r = *state;
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);
    assert_non_null(f);
    dev_bus_trace(r->bus, f);
    assert_int_equal(inb(r, 0x1f7), 0xff);
    outb(r, 0x1f7, 1);
    assert_int_equal(dev_bus_in(r->bus, 0x1234, 4), 0xffffffff);
    inb(r, 0x3fd);
    dev_bus_trace(r->bus, NULL);
    inb(r, 0x3fd);
    fflush(f);
    assert_non_null(strstr(text, "in  01f7h/1 -> ffh unclaimed"));
    assert_non_null(strstr(text, "in  03fdh/1 -> 60h COM1"));
    dev_bus_report(r->bus, f);
    fflush(f);
    assert_non_null(strstr(text, "1f7h            2 accesses"));
    assert_non_null(strstr(text, "1234h            1 accesses"));
    assert_non_null(strstr(text, "COM1                3f8h            2 reads            0 writes"));
    fclose(f);
    free(text);
}

/* ---- Keyboard controller ---- */

static void kbc_expect(struct rig *r, const uint8_t *bytes, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(inb(r, 0x64) & 0x21, 0x01);
        assert_int_equal(inb(r, 0x60), bytes[i]);
    }
    assert_int_equal(inb(r, 0x64) & 0x01, 0x00);
}

static void test_i8042_controller(void **state)
{
    struct rig *r = *state;
    static const struct {
        uint8_t command, answer;
    } rows[] = {{0xaa, 0x55}, {0xab, 0x00}, {0xa9, 0x01}, {0x20, 0x65}, {0xe0, 0x03}, {0xd0, 0xcf}};
    assert_int_equal(inb(r, 0x64), 0x14);
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        outb(r, 0x64, rows[i].command);
        kbc_expect(r, &rows[i].answer, 1);
    }
    outb(r, 0x64, 0xad);
    outb(r, 0x64, 0x20);
    kbc_expect(r, (uint8_t[]){0x75}, 1);
    outb(r, 0x64, 0xa8); /* enable a port there is not: bit 5 stays */
    outb(r, 0x64, 0x60);
    assert_int_equal(inb(r, 0x64) & 0x08, 0x08);
    outb(r, 0x60, 0x04);
    assert_int_equal(inb(r, 0x64) & 0x08, 0x00);
    outb(r, 0x64, 0x20);
    kbc_expect(r, (uint8_t[]){0x24}, 1);
    outb(r, 0x64, 0x65); /* controller RAM */
    outb(r, 0x60, 0x99);
    outb(r, 0x64, 0x25);
    kbc_expect(r, (uint8_t[]){0x99}, 1);
}

static void test_i8042_keyboard(void **state)
{
    struct rig *r = *state;
    outb(r, 0x60, 0xff);
    kbc_expect(r, (uint8_t[]){0xfa, 0xaa}, 2);
    outb(r, 0x60, 0xf2);
    kbc_expect(r, (uint8_t[]){0xfa, 0xab, 0x41}, 3); /* translated */
    outb(r, 0x64, 0x60);
    outb(r, 0x60, 0x05);
    outb(r, 0x60, 0xf2);
    kbc_expect(r, (uint8_t[]){0xfa, 0xab, 0x83}, 3);
    outb(r, 0x60, 0xee);
    kbc_expect(r, (uint8_t[]){0xee}, 1);
    outb(r, 0x60, 0xed);
    outb(r, 0x60, 0x02);
    kbc_expect(r, (uint8_t[]){0xfa, 0xfa}, 2);
    outb(r, 0x60, 0xf0);
    outb(r, 0x60, 0x03);
    outb(r, 0x60, 0xf0);
    outb(r, 0x60, 0x00);
    kbc_expect(r, (uint8_t[]){0xfa, 0xfa, 0xfa, 0xfa, 0x03}, 5);
    outb(r, 0x60, 0x12); /* no such command */
    kbc_expect(r, (uint8_t[]){0xfe}, 1);
}

static void test_i8042_interrupt(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    outb(r, 0x60, 0xf2);
    for (unsigned i = 0; i < 3; i++) { /* each byte is an edge */
        assert_true(r->intr);
        assert_int_equal(dev_board_intack(r->board), 0x21);
        outb(r, 0x20, 0x20);
        inb(r, 0x60);
    }
    assert_false(r->intr);
    outb(r, 0x64, 0x60);
    outb(r, 0x60, 0x64); /* interrupt off */
    outb(r, 0x60, 0xee);
    assert_false(r->intr);
}

static void expect_event(struct rig *r, enum dev_event ev, unsigned count)
{
    assert_int_equal(r->events, count);
    assert_int_equal(r->event, ev);
    r->events = 0;
}

static void test_resets(void **state)
{
    struct rig *r = *state;
    outb(r, 0x64, 0xfe);
    expect_event(r, DEV_RESET, 1);
    outb(r, 0x64, 0xff); /* pulses nothing */
    assert_int_equal(r->events, 0);
    outb(r, 0x64, 0xd1);
    outb(r, 0x60, 0x02); /* output port with bit 0 low */
    expect_event(r, DEV_RESET, 1);
    outb(r, 0x92, 0x02);
    outb(r, 0x92, 0x03);
    expect_event(r, DEV_RESET, 1);
    outb(r, 0x92, 0x03); /* no edge */
    assert_int_equal(r->events, 0);
    outb(r, 0xcf9, 0x02);
    assert_int_equal(r->events, 0);
    outb(r, 0xcf9, 0x06);
    expect_event(r, DEV_RESET, 1);
    assert_int_equal(inb(r, 0xcf9), 0x06);
}

static void test_a20(void **state)
{
    struct rig *r = *state;
    assert_int_equal(inb(r, 0x92), 0x02);
    outb(r, 0x64, 0xd1);
    outb(r, 0x60, 0xdd);
    assert_int_equal(inb(r, 0x92), 0x00);
    outb(r, 0x92, 0x02);
    outb(r, 0x64, 0xd0);
    assert_int_equal(inb(r, 0x60) & 0x03, 0x03);
    assert_int_equal(r->events, 0);
}

/* ---- ACPI registers ---- */

static void test_pm_timer(void **state)
{
    struct rig *r = *state;
    assert_int_equal(dev_bus_in(r->bus, 0x608, 4), 0);
    rig_pass(r, SEC);
    assert_int_equal(dev_bus_in(r->bus, 0x608, 4), 3579545);
    rig_pass(r, 999 * SEC);
    assert_int_equal(dev_bus_in(r->bus, 0x608, 4), UINT32_C(3579545000));
    assert_int_equal(inb(r, 0x609), UINT32_C(3579545000) >> 8 & 0xff);
    rig_pass(r, 1000 * SEC);
    assert_int_equal(dev_bus_in(r->bus, 0x608, 4), (uint32_t)UINT64_C(7159090000));
}

static void test_pm_timer_interrupt(void **state)
{
    struct rig *r = *state;
    rig_pic_init(r, 0);
    outb(r, 0x4d1, 0x02); /* SCI is level triggered */
    dev_bus_out(r->bus, 0x602, 2, 0x0001);
    rig_pass(r, 599 * SEC);
    assert_int_equal(dev_bus_in(r->bus, 0x600, 2), 0);
    rig_pass(r, SEC); /* 2^31 ticks are 599.93 s */
    assert_true(r->intr);
    assert_int_equal(dev_board_intack(r->board), 0x29);
    assert_int_equal(dev_bus_in(r->bus, 0x600, 2), 0x0001);
    dev_bus_out(r->bus, 0x600, 2, 0x0001); /* write one to clear */
    assert_int_equal(dev_bus_in(r->bus, 0x600, 2), 0);
    outb(r, 0xa0, 0x20);
    outb(r, 0x20, 0x20);
    assert_false(r->intr);
    assert_int_equal(dev_bus_in(r->bus, 0x600, 4), 0x00010000); /* status and enable in one read */
}

static void test_power_off(void **state)
{
    struct rig *r = *state;
    assert_int_equal(dev_bus_in(r->bus, 0x604, 2), 0x0001); /* SCI_EN: ACPI mode from the start */
    dev_bus_out(r->bus, 0x604, 2, 3 << 10 | 1 << 13);       /* S3: not offered */
    assert_int_equal(r->events, 0);
    dev_bus_out(r->bus, 0x604, 2, 5 << 10); /* type alone */
    assert_int_equal(r->events, 0);
    assert_int_equal(dev_bus_in(r->bus, 0x604, 2), 5 << 10 | 1);
    outb(r, 0x605, 5 << 2 | 1 << 5); /* as Linux writes it, type first; here in a byte */
    expect_event(r, DEV_POWER_OFF, 1);
    assert_int_equal(dev_bus_in(r->bus, 0x604, 2), 5 << 10 | 1); /* SLP_EN reads 0 */
}

/* ---- PCI ---- */

static uint32_t pci_config(struct rig *r, uint32_t address)
{
    dev_bus_out(r->bus, 0xcf8, 4, address);
    return dev_bus_in(r->bus, 0xcfc, 4);
}

static void test_pci(void **state)
{
    struct rig *r = *state;
    outb(r, 0xcfb, 0x01); /* Linux' probe of mechanism 1 */
    dev_bus_out(r->bus, 0xcf8, 4, 0x80000000);
    assert_int_equal(dev_bus_in(r->bus, 0xcf8, 4), 0x80000000);
    assert_int_equal(dev_bus_in(r->bus, 0xcfc, 4), 0x12378086);
    assert_int_equal(dev_bus_in(r->bus, 0xcfe, 2), 0x1237);
    assert_int_equal(pci_config(r, 0x80000008) >> 16, 0x0600); /* class: host bridge */
    assert_int_equal(pci_config(r, 0x8000000c) >> 16 & 0xff, 0x00);
    for (uint32_t function = 1; function < 256; function++)
        assert_int_equal(pci_config(r, 0x80000000 | function << 8), UINT32_MAX);
    assert_int_equal(pci_config(r, 0x80010000), UINT32_MAX); /* bus 1 */
    assert_int_equal(pci_config(r, 0x00000000), UINT32_MAX); /* not enabled */
    pci_config(r, 0x80000000);
    dev_bus_out(r->bus, 0xcfc, 4, 0);
    assert_int_equal(dev_bus_in(r->bus, 0xcfc, 4), 0x12378086); /* read only */
    pci_config(r, 0x80000058);
    outb(r, 0xcfd, 0x77); /* 59h, PAM0 */
    assert_int_equal(inb(r, 0xcfd), 0x77);
    dev_bus_out(r->bus, 0xcf8, 4, 0xffffffff);
    assert_int_equal(dev_bus_in(r->bus, 0xcf8, 4), 0x80fffffc);
    assert_int_equal(r->events, 0); /* none of it touched CF9's reset */
    assert_int_equal(inb(r, 0xcf9), 0);
}

/* ---- The rest ---- */

static void test_debug_exit(void **state)
{
    struct rig *r = *state;
    dev_bus_out(r->bus, 0xf4, 4, 0x12345678);
    assert_int_equal(r->event_value, 0x12345678);
    expect_event(r, DEV_DEBUG_EXIT, 1);
    outb(r, 0xf4, 0x31);
    assert_int_equal(r->event_value, 0x31);
    expect_event(r, DEV_DEBUG_EXIT, 1);
}

static void test_vga(void **state)
{
    struct rig *r = *state;
    dev_bus_mmio_write(r->bus, 0xb8000, 2, 0x0741);
    assert_int_equal(dev_bus_mmio_read(r->bus, 0xb8000, 4), 0x07200741); /* next cell is blank */
    dev_bus_mmio_write(r->bus, 0xa0000, 8, UINT64_C(0x0123456789abcdef));
    assert_int_equal(dev_bus_mmio_read(r->bus, 0xa0001, 4), 0x6789abcd);
    assert_int_equal(dev_bus_mmio_read(r->bus, 0xbffff, 2), 0xff00); /* C0000h is not ours */
    outb(r, 0x3d4, 0x0e);
    outb(r, 0x3d5, 0x12);
    outb(r, 0x3d4, 0x0f);
    outb(r, 0x3d5, 0x34);
    outb(r, 0x3d4, 0x0e);
    assert_int_equal(inb(r, 0x3d5), 0x12);
    uint8_t first = inb(r, 0x3da), second = inb(r, 0x3da);
    assert_int_equal(first ^ second, 0x09); /* both retrace bits change */
    outb(r, 0x3c0, 0x01);                   /* an index; the flip-flop now expects data, */
    inb(r, 0x3da);                          /* but reading 3DAh resets it */
    outb(r, 0x3c0, 0x10);                   /* index, the flip-flop was reset by reading 3DAh */
    outb(r, 0x3c0, 0x0c);
    assert_int_equal(inb(r, 0x3c1), 0x0c);
    outb(r, 0x3c8, 5);
    for (uint8_t i = 1; i <= 3; i++)
        outb(r, 0x3c9, i * 16);
    outb(r, 0x3c7, 5);
    for (uint8_t i = 1; i <= 3; i++)
        assert_int_equal(inb(r, 0x3c9), i * 16);
    outb(r, 0x3c2, 0x63);
    assert_int_equal(inb(r, 0x3cc), 0x63);
}

static void test_latches(void **state)
{
    struct rig *r = *state;
    static const uint16_t ports[] = {0x00, 0x0f, 0x80, 0x8f, 0xc0, 0xdf, 0xed, 0xf0};
    for (unsigned i = 0; i < sizeof ports / sizeof *ports; i++) {
        outb(r, ports[i], (uint8_t)(0xa0 + i));
        assert_int_equal(inb(r, ports[i]), 0xa0 + i);
    }
}

static void expect_refused(struct rig *r, struct dev_board_config cfg, const char *why)
{
    struct host_err err = {""};
    struct dev_board *b = NULL;
    assert_int_equal(dev_board_create(&b, &cfg, &err), -1);
    assert_null(b);
    if (!strstr(err.text, why))
        fail_msg("'%s' does not mention '%s'", err.text, why);
    (void)r;
}

static void test_bad_configurations(void **state)
{
    struct rig *r = *state;
    struct dev_board_config cfg = rig_config(r);
    cfg.serial_count = 0;
    expect_refused(r, cfg, "serial");
    cfg.serial_count = 5;
    expect_refused(r, cfg, "serial");
    cfg = rig_config(r);
    cfg.serial[0].kind = cfg.serial[2].kind = DEV_CHR_STDIO;
    expect_refused(r, cfg, "terminal");
    cfg = rig_config(r);
    cfg.debug_exit_port = 0x3f8;
    expect_refused(r, cfg, "COM1");
    cfg.debug_exit_port = 0xfffe;
    expect_refused(r, cfg, "FFFF");
    cfg = rig_config(r);
    cfg.rtc_epoch = UINT64_MAX;
    expect_refused(r, cfg, "9999");
    struct host_ram tiny = r->ram;
    tiny.size = 0xff000;
    cfg = rig_config(r);
    cfg.ram = &tiny;
    expect_refused(r, cfg, "memory");
}

static void test_without_debug_exit_and_ops(void **state)
{
    (void)state;
    struct rig r;
    rig_host(&r, 1 << 20);
    struct dev_board_config cfg = rig_config(&r);
    cfg.debug_exit_port = 0;
    cfg.serial_count = 1;
    cfg.ops = (struct dev_board_ops){0};
    rig_board(&r, &cfg);
    assert_int_equal(dev_bus_in(r.bus, 0xf4, 4), UINT32_MAX);
    assert_int_equal(inb(&r, 0x2f8 + 5), 0xff); /* COM2 is absent */
    outb(&r, 0x64, 0xfe);
    rig_pic_init(&r, 0);
    rig_irq1(&r, true);
    assert_true(dev_board_intr(r.board));
    rig_finish(&r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bus_splits),
        cmocka_unit_test(test_bus_refuses),
        cmocka_unit_test(test_bus_memory),
        T(test_bus_report_and_trace),
        T(test_i8042_controller),
        T(test_i8042_keyboard),
        T(test_i8042_interrupt),
        T(test_resets),
        T(test_a20),
        T(test_pm_timer),
        T(test_pm_timer_interrupt),
        T(test_power_off),
        T(test_pci),
        T(test_debug_exit),
        T(test_vga),
        T(test_latches),
        T(test_bad_configurations),
        cmocka_unit_test(test_without_debug_exit_and_ops),
    };
    return cmocka_run_group_tests_name("devmodel: board", tests, NULL, NULL);
}
