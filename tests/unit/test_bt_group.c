/*
 * Blocks that move: a page of user code seen by address spaces that live and end, translated, looked up and moved by
 * hand, without running any of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "impl.h"

enum {
    TABLES = 0x10000, /* space n: its directory at TABLES + n * 8 KiB, its table behind that */
    CODE = 0x80000,
    FIRST = 0x40001000,
    OTHER = 0x40055000,
    THIRD = 0x400a7000,
    SPACES = 6,
    MODE = RC_MODE_USER,
};

struct rig {
    struct host_ram ram;
    struct host_counts counts;
    struct bt_vcpu *v;
};

static bool no_intr(void *ctx)
{
    (void)ctx;
    return false;
}

/* push ebx; call +3; jmp -8; nop; 8: xor eax,eax; ret */
static const uint8_t code[] = {0x53, 0xe8, 3, 0, 0, 0, 0xeb, 0xf8, 0x90, 0x31, 0xc0, 0xc3};
enum { CALLED = 9 };

static int rig_up(void **state)
{
    struct host_err err;
    struct rig *r = calloc(1, sizeof *r);
    assert_non_null(r);
    assert_int_equal(host_ram_init(&r->ram, 4 << 20, &err), 0);
    struct bt_config cfg = {.ram = &r->ram,
                            .counts = &r->counts,
                            .engine = BT_TRANSLATE,
                            .verify = true,
                            .ops = {.intr = no_intr},
                            .cache_bytes = 4 << 20};
    rc_config_host(&cfg.cpu);
    assert_int_equal(bt_create(&r->v, &cfg, &err), 0);
    memcpy(r->ram.base + CODE, code, sizeof code);
    *state = r;
    return 0;
}

static int rig_down(void **state)
{
    struct rig *r = *state;
    bt_destroy(r->v);
    host_ram_finish(&r->ram);
    free(r);
    return 0;
}

static void poke(struct rig *r, uint32_t gpa, uint32_t value)
{
    assert_true(spt_phys_write(bt_spt(r->v), gpa, &value, 4));
}

static uint32_t directory(unsigned n)
{
    return TABLES + n * 0x2000;
}

/* Space n is current, and shows the page of code at eip. */
static void show(struct rig *r, unsigned n, uint32_t eip)
{
    struct spt_paging p = {.cr0 = 0x80000001, .cr3 = directory(n)};
    poke(r, directory(n) + (eip >> 22) * 4, (directory(n) + 0x1000) | 7);
    poke(r, directory(n) + 0x1000 + (eip >> 12 & 1023) * 4, CODE | 5);
    if (spt_paging(bt_spt(r->v))->cr0 >> 31)
        spt_set_cr3(bt_spt(r->v), p.cr3, NULL);
    else
        spt_set_paging(bt_spt(r->v), &p);
}

/* A process ends: its directory is cleared while another one is current. */
static void end(struct rig *r, unsigned n, uint32_t eip)
{
    spt_set_cr3(bt_spt(r->v), directory(SPACES), NULL);
    poke(r, directory(n) + 0x1000 + (eip >> 12 & 1023) * 4, 0);
    poke(r, directory(n) + (eip >> 22) * 4, 0);
    spt_set_cr3(bt_spt(r->v), directory(SPACES), NULL);
}

/* What bt_run does to find the block at eip of the current space. */
static uint32_t want(struct rig *r, uint32_t eip)
{
    uint64_t gpa;
    unsigned space;
    struct spt_info info;
    assert_true(spt_fetch(bt_spt(r->v), eip, SPT_EXEC | SPT_USER, &gpa, &space, &info));
    assert_int_equal(gpa, CODE + eip % HOST_PAGE);
    uint32_t b = bt_cache_find(r->v, gpa, eip, MODE);
    if (!b)
        b = bt_translate(r->v, eip, gpa, space, MODE);
    assert_true(b && b != BT_BAD_BLOCK);
    bt_group_used(r->v, b, space);
    assert_int_equal(r->v->block[b].eip, eip);
    assert_true(bt_verify_block(r->v, &r->v->block[b]));
    assert_int_equal(bt_cache_find(r->v, gpa, eip, MODE), b);
    return b;
}

/* The guest address that the call in block b pushes. */
static uint32_t pushed(const struct rig *r, uint32_t b)
{
    const struct bt_block *blk = &r->v->block[b];
    uint32_t next = blk->eip + 6;
    for (uint32_t at = blk->main; at + 4 <= blk->end; at++)
        if (!memcmp(r->v->arena.rw + at, &next, 4))
            return next;
    return 0;
}

static void the_dead_leave_their_blocks(void **state)
{
    struct rig *r = *state;
    show(r, 0, FIRST);
    uint32_t b = want(r, FIRST);
    assert_int_equal(pushed(r, b), FIRST + 6);
    end(r, 0, FIRST);
    show(r, 1, OTHER);
    assert_int_equal(want(r, OTHER), b);
    assert_int_equal(pushed(r, b), OTHER + 6);
    assert_int_equal(bt_cache_find(r->v, CODE, FIRST, MODE), 0);
    assert_int_equal(bt_stats(r->v)->rebased, 0);
    assert_int_equal(bt_stats(r->v)->moved, 1);
}

static void the_living_keep_theirs(void **state)
{
    struct rig *r = *state;
    show(r, 0, FIRST);
    uint32_t a = want(r, FIRST);
    show(r, 1, OTHER);
    uint32_t b = want(r, OTHER);
    assert_int_not_equal(a, b);
    assert_int_equal(bt_stats(r->v)->moved, 0);
    for (unsigned i = 0; i < 3; i++) {
        show(r, 0, FIRST);
        assert_int_equal(want(r, FIRST), a);
        show(r, 1, OTHER);
        assert_int_equal(want(r, OTHER), b);
    }
    end(r, 0, FIRST);
    show(r, 2, THIRD);
    assert_int_equal(want(r, THIRD), a);
    assert_int_equal(bt_cache_find(r->v, CODE, OTHER, MODE), b);
}

/* A block that was not wanted at one address follows to the next one. */
static void who_stays_behind_follows_later(void **state)
{
    struct rig *r = *state;
    show(r, 0, FIRST);
    uint32_t a = want(r, FIRST), b = want(r, FIRST + CALLED);
    end(r, 0, FIRST);
    show(r, 1, OTHER);
    assert_int_equal(want(r, OTHER), a);
    assert_int_equal(bt_cache_find(r->v, CODE + CALLED, OTHER + CALLED, MODE), 0);
    assert_int_equal(bt_cache_find_unsettled(r->v, CODE + CALLED, OTHER + CALLED, MODE), b);
    end(r, 1, OTHER);
    show(r, 2, FIRST); /* its old address again: it has not moved, but what it may be chained to has */
    assert_int_equal(bt_cache_find(r->v, CODE + CALLED, FIRST + CALLED, MODE), 0);
    assert_int_equal(want(r, FIRST + CALLED), b);
    assert_int_equal(want(r, FIRST), a);
}

static void chained_blocks_come_along(void **state)
{
    struct rig *r = *state;
    show(r, 0, FIRST);
    uint32_t a = want(r, FIRST), b = want(r, FIRST + CALLED);
    uint32_t link = r->v->block[a].first_link;
    assert_int_equal(r->v->link[link].target_eip, FIRST + CALLED);
    bt_cache_link(r->v, link, b);
    end(r, 0, FIRST);
    show(r, 1, OTHER);
    assert_int_equal(want(r, OTHER), a);
    assert_int_equal(bt_cache_find(r->v, CODE + CALLED, OTHER + CALLED, MODE), b);
    assert_int_equal(r->v->link[link].to, b);
}

/* Whose number of users is not known any more stays, even when all of them have ended. */
static void many_users_pin(void **state)
{
    struct rig *r = *state;
    uint32_t a = 0;
    for (unsigned n = 0; n <= BT_GROUP_OWNERS; n++) {
        show(r, n, FIRST);
        uint32_t b = want(r, FIRST);
        assert_true(!a || a == b);
        a = b;
    }
    for (unsigned n = 0; n <= BT_GROUP_OWNERS; n++)
        end(r, n, FIRST);
    show(r, 0, OTHER);
    assert_int_not_equal(want(r, OTHER), a);
    assert_int_equal(bt_stats(r->v)->moved, 0);
}

/* One after the other is not many. */
static void users_that_ended_do_not_pin(void **state)
{
    struct rig *r = *state;
    show(r, 0, FIRST);
    uint32_t a = want(r, FIRST);
    for (unsigned n = 0; n < 3 * BT_GROUP_OWNERS; n++) {
        show(r, 1 + n % 2, FIRST);
        assert_int_equal(want(r, FIRST), a);
        end(r, 1 + n % 2, FIRST);
    }
    end(r, 0, FIRST);
    show(r, 3, OTHER);
    assert_int_equal(want(r, OTHER), a);
}

static void without_paging_nothing_moves(void **state)
{
    struct rig *r = *state;
    uint32_t a = want(r, CODE);
    show(r, 0, OTHER);
    assert_int_not_equal(want(r, OTHER), a);
    assert_int_equal(bt_cache_find(r->v, CODE, CODE, MODE), a);
    assert_int_equal(bt_stats(r->v)->moved, 0);
}

static void groups_end_with_their_blocks(void **state)
{
    struct rig *r = *state;
    show(r, 0, FIRST);
    uint32_t a = want(r, FIRST), n = r->v->block[a].group;
    assert_int_equal(bt_group_find(r->v, CODE, FIRST), n);
    bt_cache_drop(r->v, a);
    assert_int_equal(bt_group_find(r->v, CODE, FIRST), 0);
    uint32_t b = want(r, FIRST);
    assert_int_not_equal(a, b);
    assert_int_equal(r->v->block[b].group, n);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_up, rig_down)
    const struct CMUnitTest tests[] = {
        TEST(the_dead_leave_their_blocks),
        TEST(the_living_keep_theirs),
        TEST(who_stays_behind_follows_later),
        TEST(chained_blocks_come_along),
        TEST(many_users_pin),
        TEST(users_that_ended_do_not_pin),
        TEST(without_paging_nothing_moves),
        TEST(groups_end_with_their_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
