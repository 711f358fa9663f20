/* Unit test of shadowpt's followers: what they are told, when a space becomes another one. The random guest of
 * test_shadowpt_model.c compares a follower's copy with the window itself. */
#include "test_shadowpt_rig.h"

enum { PD_A = 0x1000, PD_B = 0x2000, PT_A = 0x3000, PT_B = 0x4000 };
enum { R = PROT_READ, RW = PROT_READ | PROT_WRITE, X = PROT_EXEC };
#define UVA 0x00400000u
#define ALL (P | W | U | A | D)

static void start(struct rig *r, unsigned spaces)
{
    rig_init_with(r, 16 * MIB, spaces, 4000, false);
    put32(r, PD_A + 4, PT_A | P | W | U | A);
    put32(r, PD_B + 4, PT_B | P | W | U | A);
    put32(r, PT_A, 0x110000 | ALL);
    put32(r, PT_A + 4, 0x111000 | ALL);
    put32(r, PT_A + 8, 0x115000 | P | U | A);
    paging_on(r, PD_A, PSE, false);
}

static void switch_to(struct rig *r, uint32_t cr3)
{
    static const uint64_t none[4];
    spt_set_cr3(r->s, cr3, none);
}

static uint64_t told(struct rig *r, uint32_t gva)
{
    return rig_mirror(r, 1)->page[gva / PAGE];
}

static void what_is_there_and_what_comes(void **state)
{
    (void)state;
    struct rig r;
    start(&r, 8);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_null(r.mirror[1]); /* nobody follows yet */
    assert_int_equal(spt_user_space(r.s), 1);
    spt_follow(r.s, 1, true);
    assert_int_equal(told(&r, UVA), 0x110000 | RW);
    assert_int_equal(told(&r, UVA + PAGE), 0x111000 | RW);
    assert_int_equal(told(&r, UVA + 2 * PAGE), 0);
    assert_true(spt_user_grants(r.s, UVA + 5, false));
    assert_false(spt_user_grants(r.s, UVA + 2 * PAGE, false));
    assert_false(spt_user_grants(r.s, 0x40000000, false));
    assert_int_equal(user_fault(&r, UVA + 2 * PAGE, 0), SPT_RETRY);
    assert_int_equal(told(&r, UVA + 2 * PAGE), 0x115000 | R);
    store32(&r, PT_A + 4, 0);
    assert_int_equal(told(&r, UVA + PAGE), 0x111000 | RW); /* as long as a TLB may have it */
    spt_invlpg(r.s, UVA + PAGE);
    assert_int_equal(told(&r, UVA + PAGE), 0);
    spt_follow(r.s, 1, false);
    assert_int_equal(user_fault(&r, UVA + PAGE, 0), SPT_TRUE_FAULT);
    store32(&r, PT_A + 4, 0x111000 | ALL);
    assert_int_equal(user_fault(&r, UVA + PAGE, 0), SPT_RETRY);
    assert_int_equal(told(&r, UVA + PAGE), 0);
    rig_finish(&r);
}

static void rights_come_and_go(void **state)
{
    (void)state;
    struct rig r;
    uint64_t gpa;
    unsigned space;
    start(&r, 8);
    spt_follow(r.s, 1, true);
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_RETRY);
    assert_true(spt_fetch(r.s, UVA + 7, SPT_EXEC | SPT_USER, &gpa, &space, &r.info));
    assert_int_equal(told(&r, UVA), 0x110000 | RW | X);
    assert_int_equal(told(&r, UVA + PAGE), 0x111000 | RW);
    spt_trace_code(r.s, 0x110000);
    assert_int_equal(told(&r, UVA), 0x110000 | R | X);
    spt_untrace_code(r.s, 0x110000);
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_RETRY);
    assert_int_equal(told(&r, UVA), 0x110000 | RW | X);
    rig_mirror(&r, 1)->page[UVA / PAGE] = 0;
    rig_mirror(&r, 1)->page[UVA / PAGE + 1] = 0;
    spt_follow_page(r.s, 0x110123); /* told again, and only this page */
    assert_int_equal(told(&r, UVA), 0x110000 | RW | X);
    assert_int_equal(told(&r, UVA + PAGE), 0);
    rig_mirror(&r, 1)->page[UVA / PAGE + 1] = 0x111000 | RW;
    store32(&r, PT_A, 0x110000 | P | U | A | D); /* fork: only the right to write goes */
    switch_to(&r, PD_A);
    assert_int_equal(told(&r, UVA), 0x110000 | R | X);
    spt_follow_page(r.s, UINT64_C(1) << 40); /* no RAM */
    rig_finish(&r);
}

static void a_space_becomes_another(void **state)
{
    (void)state;
    struct rig r;
    start(&r, 1);
    uint64_t first = spt_user_serial(r.s);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    spt_follow(r.s, 1, true);
    switch_to(&r, PD_A);
    assert_int_equal(spt_user_serial(r.s), first);
    switch_to(&r, PD_B); /* there is one window only */
    assert_int_equal(spt_user_space(r.s), 1);
    assert_int_not_equal(spt_user_serial(r.s), first);
    assert_int_equal(told(&r, UVA), 0);
    assert_int_equal(rig_mirror(&r, 1)->ends, 1);
    store32(&r, PT_B, 0x120000 | ALL);
    assert_int_equal(user_fault(&r, UVA, 0), SPT_RETRY);
    assert_int_equal(told(&r, UVA), 0); /* followed no longer */
    rig_finish(&r);
}

static void a_process_ends(void **state)
{
    (void)state;
    struct rig r;
    start(&r, 8);
    for (unsigned i = 1; i < 4; ++i) {
        put32(&r, PD_A + i * 4, (0x20000 + i * PAGE) | P | W | U | A);
        put32(&r, 0x20000 + i * PAGE, (0x110000 + i * PAGE) | ALL);
        assert_int_equal(user_fault(&r, i << 22, SPT_WRITE), SPT_RETRY);
    }
    spt_follow(r.s, 1, true);
    uint64_t serial = spt_user_serial(r.s);
    for (unsigned i = 1; i < 4; ++i)
        store32(&r, PD_A + i * 4, 0);
    assert_int_equal(rig_mirror(&r, 1)->shown, 3);
    switch_to(&r, PD_A);
    assert_int_equal(rig_mirror(&r, 1)->shown, 0);
    assert_int_equal(rig_mirror(&r, 1)->resets, 1);
    assert_int_equal(rig_mirror(&r, 1)->ends, 0); /* the same page directory: still followed */
    assert_int_not_equal(spt_user_serial(r.s), serial);
    rig_finish(&r);
}

/* Who remembers that a window grants something is told when it may no longer. */
static void less_is_told(void **state)
{
    (void)state;
    struct rig r;
    start(&r, 8);
    assert_false(spt_user_grants(r.s, UVA, false));
    assert_int_equal(user_fault(&r, UVA, SPT_WRITE), SPT_RETRY);
    assert_true(spt_user_grants(r.s, UVA, true));
    assert_true(spt_user_grants(r.s, UVA + PAGE, true)); /* filled along with it */
    assert_int_equal(r.less, 0);
    store32(&r, PT_A, 0x110000 | P | U | A | D);
    switch_to(&r, PD_A);
    assert_int_equal(r.less, 1);
    assert_true(spt_user_grants(r.s, UVA, false));
    assert_false(spt_user_grants(r.s, UVA, true));
    store32(&r, PT_A, 0);
    spt_invlpg(r.s, UVA);
    assert_int_equal(r.less, 2);
    assert_false(spt_user_grants(r.s, UVA, false));
    assert_true(spt_user_grants(r.s, UVA + PAGE, true));
    spt_trace_code(r.s, 0x111000);
    assert_int_equal(r.less, 3);
    assert_false(spt_user_grants(r.s, UVA + PAGE, true));
    rig_finish(&r);
}

static void nonsense_is_ignored(void **state)
{
    (void)state;
    struct rig r;
    start(&r, 8);
    spt_follow(r.s, SPT_KERNEL_SPACE, true);
    spt_follow(r.s, 7, true);
    spt_follow(r.s, SPT_MAX_SPACES, true);
    spt_follow(r.s, UINT32_MAX, true);
    assert_int_equal(kernel_fault(&r, 0, 0), SPT_TRUE_FAULT);
    struct spt_paging off = {.cr0 = PE};
    spt_set_paging(r.s, &off);
    assert_int_equal(spt_user_serial(r.s), 0);
    assert_false(spt_user_grants(r.s, UVA, false));
    rig_finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_there_and_what_comes),
        cmocka_unit_test(rights_come_and_go),
        cmocka_unit_test(a_space_becomes_another),
        cmocka_unit_test(a_process_ends),
        cmocka_unit_test(less_is_told),
        cmocka_unit_test(nonsense_is_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
