/* Unit test of the Plug and Play ISA card. Expected values: Plug and Play ISA Specification 1.0a; the key is
 * appendix B.1's list, the checksum algorithm is checked against the example of appendix B.2. */
#include "test_devmodel_rig.h"

enum { ADDRESS = 0x279, WRITE_DATA = 0xa79 };

static const uint8_t key[32] = {0x6a, 0xb5, 0xda, 0xed, 0xf6, 0xfb, 0x7d, 0xbe, 0xdf, 0x6f, 0x37,
                                0x1b, 0x0d, 0x86, 0xc3, 0x61, 0xb0, 0x58, 0x2c, 0x16, 0x8b, 0x45,
                                0xa2, 0xd1, 0xe8, 0x74, 0x3a, 0x9d, 0xce, 0xe7, 0x73, 0x39};

static void send_key(struct rig *r)
{
    outb(r, ADDRESS, 0);
    outb(r, ADDRESS, 0);
    for (unsigned i = 0; i < sizeof key; i++)
        outb(r, ADDRESS, key[i]);
}

static void card_write(struct rig *r, uint8_t reg, uint8_t v)
{
    outb(r, ADDRESS, reg);
    outb(r, WRITE_DATA, v);
}

static uint8_t card_read(struct rig *r, uint16_t port, uint8_t reg)
{
    outb(r, ADDRESS, reg);
    return inb(r, port);
}

/* From whatever state to ISOLATION, the header not yet begun, with this read port. */
static void go_isolate(struct rig *r, uint16_t port)
{
    card_write(r, 0x02, 0x02);
    send_key(r);
    card_write(r, 0x02, 0x04);
    card_write(r, 0x03, 0);
    card_write(r, 0x00, (uint8_t)(port >> 2));
}

/* 72 pairs of reads, as section 3.3.2 has software do it. */
static void isolate(struct rig *r, uint16_t port, uint8_t header[9])
{
    memset(header, 0, 9);
    outb(r, ADDRESS, 0x01);
    for (unsigned i = 0; i < 72; i++) {
        uint8_t first = inb(r, port), second = inb(r, port);
        if (first == 0x55 && second == 0xaa)
            header[i / 8] |= (uint8_t)(1 << i % 8);
    }
}

static uint8_t checksum(const uint8_t id[8])
{
    uint8_t lfsr = 0x6a;
    for (unsigned i = 0; i < 64; i++) {
        unsigned in = (lfsr ^ lfsr >> 1 ^ id[i / 8] >> i % 8) & 1;
        lfsr = (uint8_t)(lfsr >> 1 | in << 7);
    }
    return lfsr;
}

/* R, L, T are 18, 12, 20: 0 10010 01|100 10100; product 001h, revision 0. */
static const uint8_t id[8] = {0x49, 0x94, 0x00, 0x10, 0xff, 0xff, 0xff, 0xff};
static const char name[] = "ringlet: no other ISA cards";

static void test_isolation(void **state)
{
    struct rig *r = *state;
    static const uint8_t example[8] = {0x43, 0x11, 0x54, 0x09, 0x00, 0x01, 0x00, 0x04};
    uint8_t header[9];
    assert_int_equal(checksum(example), 0xdc);
    go_isolate(r, 0x213);
    isolate(r, 0x213, header);
    assert_memory_equal(header, id, 8);
    assert_int_equal(header[8], checksum(id));
    assert_int_equal(inb(r, 0x213), 0xff); /* all is said */
    card_write(r, 0x06, 1);
    card_write(r, 0x03, 0); /* who has no number yet? */
    isolate(r, 0x213, header);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(header[i], 0);
}

/* The two reads of a pair by themselves, and that Wake starts over in the middle of one. */
static void test_pairs(void **state)
{
    struct rig *r = *state;
    go_isolate(r, 0x203);
    outb(r, ADDRESS, 0x01);
    static const uint8_t pairs[] = {0x55, 0xaa, 0xff, 0xff, 0xff}; /* 49h, bit 0 first */
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < sizeof pairs; i++)
            assert_int_equal(inb(r, 0x203), pairs[i]);
        card_write(r, 0x03, 0);
        outb(r, ADDRESS, 0x01);
    }
}

static void expect_resources(struct rig *r, uint16_t port)
{
    static const uint8_t before[] = {0x0a, 0x10, 0x00, 0x82, sizeof name - 1, 0x00};
    uint8_t sum = 0, got;
    for (unsigned i = 0; i < sizeof before + sizeof name - 1; i++) {
        assert_int_equal(card_read(r, port, 0x05) & 1, 1);
        got = card_read(r, port, 0x04);
        assert_int_equal(got, i < sizeof before ? before[i] : (uint8_t)name[i - sizeof before]);
        sum = (uint8_t)(sum + got);
    }
    got = card_read(r, port, 0x04);
    assert_int_equal(got, 0x79);
    sum = (uint8_t)(sum + got + card_read(r, port, 0x04));
    assert_int_equal(sum, 0);
    for (unsigned i = 0; i < 300; i++)
        assert_int_equal(card_read(r, port, 0x04), 0);
}

static void test_resources(void **state)
{
    struct rig *r = *state;
    uint8_t header[9];
    go_isolate(r, 0x273);
    isolate(r, 0x273, header);
    card_write(r, 0x06, 7);
    expect_resources(r, 0x273); /* straight from isolation: the header is not repeated */
    assert_int_equal(card_read(r, 0x273, 0x06), 7);
    card_write(r, 0x03, 7);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(card_read(r, 0x273, 0x04), header[i]);
    expect_resources(r, 0x273);
    assert_int_equal(card_read(r, 0x273, 0x07), 0x00);
    assert_int_equal(card_read(r, 0x273, 0x2f), 0x00);
    assert_int_equal(card_read(r, 0x273, 0x30), 0xff); /* no logical device */
    card_write(r, 0x03, 8);                            /* somebody else: sleep */
    assert_int_equal(card_read(r, 0x273, 0x06), 0xff);
    card_write(r, 0x02, 0x02);
    send_key(r);
    card_write(r, 0x03, 7); /* number and read port survived Wait for Key */
    assert_int_equal(card_read(r, 0x273, 0x06), 7);
}

static bool answers(struct rig *r)
{
    card_write(r, 0x03, 0);
    card_write(r, 0x00, 0x213 >> 2);
    return card_read(r, 0x213, 0x01) == 0x55;
}

static void test_key(void **state)
{
    struct rig *r = *state;
    assert_int_equal(inb(r, ADDRESS), 0xff);
    assert_int_equal(inb(r, WRITE_DATA), 0xff);
    assert_false(answers(r));
    for (unsigned wrong = 0; wrong < sizeof key; wrong++) {
        dev_board_reset(r->board);
        for (unsigned i = 0; i < sizeof key; i++)
            outb(r, ADDRESS, i == wrong ? key[i] ^ 0x80 : key[i]);
        assert_false(answers(r));
    }
    outb(r, ADDRESS, 0);
    outb(r, ADDRESS, key[0]);
    for (unsigned i = 0; i < sizeof key; i++) /* 6Ah where B5h was due resets and is not a first byte */
        outb(r, ADDRESS, key[i]);
    assert_false(answers(r));
    send_key(r);
    assert_true(answers(r));
    dev_board_reset(r->board);
    assert_false(answers(r));
}

static void test_read_port(void **state)
{
    struct rig *r = *state;
    uint8_t header[9];
    go_isolate(r, 0x213);
    card_write(r, 0x00, 0x393 >> 2);
    assert_int_equal(card_read(r, 0x213, 0x01), 0xff); /* moved away */
    assert_int_equal(card_read(r, 0x393, 0x01), 0x55);
    outb(r, 0x3fb, 0x03);
    go_isolate(r, 0x3fb); /* COM1's line control: the UART stays there, isolation fails */
    assert_int_equal(inb(r, 0x3fb), 0x03);
    isolate(r, 0x3fb, header);
    assert_int_equal(header[0], 0);
    card_write(r, 0x00, 0x1ff >> 2); /* below 203h: nowhere */
    assert_int_equal(card_read(r, 0x1ff, 0x01), 0xff);
    outb(r, 0x3ff, 0xa5);
    card_write(r, 0x00, 0xff);
    assert_int_equal(card_read(r, 0x3ff, 0x01), 0xa5); /* the scratch register */
    card_write(r, 0x00, 0x203 >> 2);
    assert_int_equal(card_read(r, 0x203, 0x01), 0x55);
    card_write(r, 0x06, 1);
    card_write(r, 0x00, 0x213 >> 2); /* only in isolation */
    assert_int_equal(card_read(r, 0x213, 0x06), 0xff);
    assert_int_equal(card_read(r, 0x203, 0x06), 1);
    dev_board_reset(r->board);
    assert_int_equal(inb(r, 0x203), 0xff);
}

/* A guest that knows the protocol and means no good: whatever it does, the other devices keep their ports and
 * the next scan finds the card. */
static void test_hostile(void **state)
{
    struct rig *r = *state;
    uint32_t seed = 1;
    uint8_t header[9];
    for (unsigned n = 0; n < 200000; n++) {
        seed = seed * 1664525 + 1013904223;
        uint8_t v = (uint8_t)(seed >> 24);
        unsigned what = seed >> 20 & 15;
        if (what == 0)
            send_key(r);
        else if (what < 6)
            card_write(r, v & 7, (uint8_t)(seed >> 8) & (v & 8 ? 0xff : 0x03));
        else if (what < 8)
            dev_bus_out(r->bus, v & 1 ? ADDRESS : WRITE_DATA, v & 2 ? 4 : 2, seed);
        else
            dev_bus_in(r->bus, (uint16_t)(0x203 + v * 2), 1u << v % 3);
    }
    outb(r, 0x3fb, 0x1b);
    assert_int_equal(inb(r, 0x3fb), 0x1b);
    go_isolate(r, 0x253);
    isolate(r, 0x253, header);
    assert_memory_equal(header, id, 8);
    assert_int_equal(header[8], checksum(id));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_isolation), T(test_pairs), T(test_resources), T(test_key), T(test_read_port), T(test_hostile),
    };
    return cmocka_run_group_tests_name("devmodel: Plug and Play ISA card", tests, NULL, NULL);
}
