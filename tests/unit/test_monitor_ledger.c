/* Unit test of the module monitor: what policy `auto` decides about programs that are made up here, in time that is made
 * up as well. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../monitor/direct.h"

#define US UINT64_C(1000)
#define MS (1000 * US)
#define S  (1000 * MS)

/* A program, and the machine's clock while it runs. */
struct life {
    struct direct_space space;
    uint64_t now, returns; /* of the CPU: not zero when a program begins */
    bool refused;          /* it exits into a page that stays translated */
    uint64_t gained;       /* it comes to code that is new */
};

static void begin(struct life *l)
{
    *l = (struct life){.now = 12345 * S, .returns = 1000};
    direct_ledger_open(&l->space, 7);
}

/* A timer's tick, step later, finds it translated and in user mode; since then it came back to user mode every so often. */
static bool tick(struct life *l, uint64_t step, uint64_t between_returns)
{
    uint64_t stretch;

    l->now += step;
    l->returns += step / between_returns;
    return direct_ledger_seen(&l->space, l->now, step, l->returns, &stretch);
}

/* How many ticks until it is promoted; max when it is not. */
static unsigned ticks_to_promotion(struct life *l, uint64_t step, uint64_t between_returns, unsigned max)
{
    for (unsigned i = 0; i < max; i++)
        if (tick(l, step, between_returns))
            return i;
    return max;
}

static void promote(struct life *l)
{
    assert_in_range(ticks_to_promotion(l, 4 * MS, 4 * MS, 1000), 0, 999);
    direct_ledger_entered(&l->space);
}

/* So long in its world, at such a price. True: it stays. */
static bool exits(struct life *l, uint64_t inside, uint64_t overhead)
{
    l->now += inside + overhead;
    l->returns++;
    return direct_ledger_exit(&l->space, &(struct direct_bill){.inside_ns = inside,
                                                               .overhead_ns = overhead,
                                                               .gained_ns = l->gained,
                                                               .refused = l->refused});
}

/* ---- Who is promoted ---- */

static void one_that_computes_is_promoted_soon_but_not_at_once(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    assert_false(tick(&l, 4 * MS, 4 * MS)); /* nothing is known yet */
    assert_false(tick(&l, 4 * MS, 4 * MS)); /* once may be chance */
    assert_in_range(ticks_to_promotion(&l, 4 * MS, 4 * MS, 100), 0, 25);
}

static void one_that_calls_the_kernel_all_the_time_is_not(void **state)
{
    static const uint64_t between[] = {300, 1 * US, 5 * US, 20 * US};
    (void)state;
    for (size_t i = 0; i < sizeof(between) / sizeof(between[0]); i++) {
        struct life l;
        begin(&l);
        assert_int_equal(ticks_to_promotion(&l, 4 * MS, between[i], 10000), 10000);
    }
}

static void samples_must_follow_each_other(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    for (unsigned i = 0; i < 1000; i++) {
        assert_false(tick(&l, 4 * MS, 4 * MS));
        assert_false(tick(&l, 4 * MS, 2 * US));
    }
}

/* A storm of interrupts finds one program many times within a moment: that is one observation. */
static void close_samples_are_one(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    tick(&l, 10 * MS, 10 * MS);
    for (unsigned i = 0; i < 3; i++)
        assert_false(tick(&l, 150 * US, 100 * MS));
}

/* Found running once in ten seconds of the thread's time: most of that was others'. */
static void a_sample_stands_for_little(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    tick(&l, 10 * S, 10 * S);
    assert_in_range(l.space.user_ns, 0, 100 * MS);
}

/* ---- Who stays ---- */

static void one_that_goes_on_computing_stays(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    promote(&l);
    assert_true(exits(&l, 4 * MS, 300 * US)); /* its memory is mapped */
    for (unsigned i = 0; i < 100000; i++)
        assert_true(
            exits(&l, 200 * US, 12 * US)); /* more than a twentieth, but that is not all it has to set off */
}

/* What it has lost when it is demoted; it must be. */
static uint64_t lose(struct life *l, uint64_t inside, uint64_t overhead)
{
    uint64_t lost = 0;

    for (unsigned i = 0; i < 10000000; i++) {
        lost += overhead;
        if (!exits(l, inside, overhead)) {
            direct_ledger_left(&l->space);
            return lost;
        }
    }
    fail_msg("never demoted");
    return 0;
}

static void one_that_only_loses_is_demoted(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    promote(&l);
    assert_in_range(lose(&l, 2 * US, 12 * US), 1,
                    5 * MS); /* less inside than the way there costs: no time is negative */
    assert_false(l.space.on);
}

static void a_burst_of_exits_means_nothing(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    promote(&l);
    for (unsigned i = 0; i < 60; i++)
        assert_true(exits(&l, 1 * US, 12 * US));
}

/* An hour of gain, then system calls only: the hour's twentieth may be lost, not what it has gained. */
static void credit_is_capped(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    promote(&l);
    for (unsigned i = 0; i < 1000; i++)
        assert_true(exits(&l, 10 * MS, 0));
    assert_in_range(lose(&l, 0, 12 * US), 1, 10 * S / 20 + 20 * MS);
}

/* Code that it comes to for the first time is cheaper to look through than to translate. */
static void one_that_meets_new_code_stays(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    promote(&l);
    l.gained = 30 * US;
    for (unsigned i = 0; i < 1000; i++)
        assert_true(exits(&l, 10 * US, 25 * US));
    l.gained = 0;
    assert_in_range(lose(&l, 10 * US, 25 * US), 1, 20 * MS);
}

/* ---- Storms ---- */

/* So many page faults, each after so long in its world, until it is to be paused; max when it is not. */
static unsigned faults_to_pause(struct life *l, uint64_t inside, unsigned max)
{
    const struct direct_bill fault = {.inside_ns = inside, .needless = true};

    for (unsigned i = 0; i < max; i++)
        if (direct_ledger_storm(&l->space, &fault))
            return i;
    return max;
}

static void pause(struct life *l)
{
    assert_in_range(faults_to_pause(l, 20 * US, 100), 8, 40);
    direct_ledger_paused(&l->space, l->now, l->returns);
}

/* Paused, how many milliseconds until it may go on, when it comes back from the kernel every so often. */
static unsigned ms_to_resume(struct life *l, uint64_t between_returns, unsigned max)
{
    return ticks_to_promotion(l, 1 * MS, between_returns, max);
}

static void faults_right_behind_each_other_pause(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    promote(&l);
    assert_int_equal(faults_to_pause(&l, 200 * US, 1000), 1000);
    pause(&l);
    assert_true(l.space.on);
}

/* To be inside for long. What else brings it out, soon, does not end the storm: a hidden fault may follow each true one. */
static void a_stay_ends_a_storm(void **state)
{
    const struct direct_bill stay = {.inside_ns = 200 * US}, hidden = {.inside_ns = 5 * US};
    struct life l;
    (void)state;
    begin(&l);
    promote(&l);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(faults_to_pause(&l, 20 * US, 4), 4);
        assert_false(direct_ledger_storm(&l.space, &stay));
    }
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(faults_to_pause(&l, 20 * US, 3), 3);
        assert_false(direct_ledger_storm(&l.space, &hidden));
    }
    assert_in_range(faults_to_pause(&l, 20 * US, 100), 0, 39 - 4 * 3);
}

static void a_storm_is_over_when_it_is_over(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    promote(&l);
    pause(&l);
    assert_int_equal(ms_to_resume(&l, 2 * US, 1000), 1000);
    assert_in_range(ms_to_resume(&l, 10 * MS, 1000), 0, 3);
}

/* What goes on only to storm again is looked at more rarely, but not ever more rarely; and who computed meanwhile has
 * earned a quick look. */
static void storm_upon_storm_waits_longer(void **state)
{
    struct life l;
    unsigned first, last = 0;
    (void)state;
    begin(&l);
    promote(&l);
    pause(&l);
    first = ms_to_resume(&l, 10 * MS, 1000);
    for (unsigned i = 0; i < 20; i++) {
        direct_ledger_resumed(&l.space);
        pause(&l);
        last = ms_to_resume(&l, 10 * MS, 1000);
        assert_in_range(last, first, 100);
    }
    assert_in_range(last, 4 * first + 4, 100);
    direct_ledger_resumed(&l.space);
    assert_true(exits(&l, 10 * MS, 12 * US));
    pause(&l);
    assert_int_equal(ms_to_resume(&l, 10 * MS, 1000), first);
}

/* ---- How long it ran ---- */

/* What counts of ten entries of 200 us each, if at the end of each 1 ms the world's clock says that it ran for so long. */
static uint64_t counted(uint64_t ran, bool says_nothing)
{
    struct direct_watch w = {0};
    uint64_t sum = 0, clock = 7 * S;

    direct_ledger_ran(&w, 0, says_nothing ? 0 : clock);
    for (unsigned i = 0; i < 10; i++) {
        uint64_t inside = 200 * US;
        if (direct_ledger_looks(&w, inside)) {
            clock += ran;
            inside = direct_ledger_ran(&w, inside, says_nothing ? 0 : clock);
        }
        sum += inside;
    }
    return sum;
}

static void waiting_for_the_cpu_is_not_running(void **state)
{
    (void)state;
    assert_int_equal(counted(1 * MS, false), 2 * MS);
    assert_in_range(counted(100 * US, false), 100 * US, 1700 * US);
}

/* A host that tells nobody how long its processes ran: all of it counts, each time that it is asked. */
static void a_clock_that_says_nothing_counts_all(void **state)
{
    (void)state;
    assert_int_equal(counted(0, true), 2 * MS);
}

/* ---- Once more ---- */

static void another_try_when_it_has_run_long_enough(void **state)
{
    struct life l;
    unsigned first, second;
    (void)state;
    begin(&l);
    first = ticks_to_promotion(&l, 4 * MS, 4 * MS, 1000);
    direct_ledger_entered(&l.space);
    lose(&l, 0, 3 * MS); /* dear mappings, all for nothing */
    second = ticks_to_promotion(&l, 4 * MS, 4 * MS, 10000);
    assert_in_range(second, 2 * first, 9999);
}

/* What a try takes to map is known after the first: the next waits until that can be paid. */
static void a_dear_try_waits_longer(void **state)
{
    unsigned ticks[2];
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct life l;
        begin(&l);
        promote(&l);
        l.space.maps = i ? 20000 : 20;
        lose(&l, 0, 1 * MS);
        ticks[i] = ticks_to_promotion(&l, 4 * MS, 4 * MS, 100000);
    }
    assert_in_range(ticks[1], 2 * ticks[0], 99999);
}

static unsigned tries_within(struct life *l, uint64_t time)
{
    unsigned tries = 0;

    for (uint64_t began = l->now; l->now - began < time;)
        if (tick(l, 4 * MS, 4 * MS)) {
            direct_ledger_entered(&l->space);
            lose(l, 1 * US, 12 * US);
            tries++;
        }
    return tries;
}

/* What keeps calling into a page that stays translated will do so the next time. What maps its memory has it then. */
static void refused_pages_make_tries_rarer(void **state)
{
    unsigned tries[2];
    struct life l;
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        begin(&l);
        l.refused = i;
        tries[i] = tries_within(&l, 100 * S);
    }
    assert_in_range(tries[1], 5, tries[0] / 20); /* 63 times rarer in the end, but never none */
    promote(&l);                                 /* it does something else now */
    for (unsigned i = 0; i < 10000 && l.space.backoff; i++)
        assert_true(exits(&l, 1 * MS, 12 * US));
    lose(&l, 0, 12 * US);
    assert_in_range(l.space.backoff, 1, 1);
}

/* The worst there is: it computes while it is translated, and comes out at once whenever it runs directly. */
static void no_program_loses_more_than_a_twentieth(void **state)
{
    struct life l;
    uint64_t lost = 0, began;
    unsigned tries = 0;
    (void)state;
    begin(&l);
    began = l.now;
    while (l.now - began < 100 * S) {
        if (!tick(&l, 4 * MS, 4 * MS))
            continue;
        direct_ledger_entered(&l.space);
        tries++;
        lost += l.space.maps * 3 * US; /* what it has mapped, anew each time */
        exits(&l, 0, l.space.maps * 3 * US);
        lost += lose(&l, 1 * US, 12 * US);
    }
    assert_in_range(lost, 1, (l.now - began) / 20 + 1 * MS);
    assert_in_range(tries, 2, 25000);
}

static void barred_stays_barred(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    l.space.barred = true;
    assert_int_equal(ticks_to_promotion(&l, 4 * MS, 4 * MS, 10000), 10000);
}

static void who_runs_directly_is_not_promoted_again(void **state)
{
    struct life l;
    (void)state;
    begin(&l);
    promote(&l);
    assert_int_equal(ticks_to_promotion(&l, 4 * MS, 4 * MS, 10000), 10000);
}

/* The number of an address space is given to another program. */
static void a_recycled_number_forgets(void **state)
{
    struct life fresh, l;
    struct direct_world *world = (struct direct_world *)&fresh;
    (void)state;
    begin(&fresh);
    begin(&l);
    promote(&l);
    lose(&l, 0, 100 * MS);
    l.space.maps = 60000;
    l.space.deaths = 2;
    l.space.barred = true;
    l.space.world = world;
    direct_ledger_open(&l.space, 8);
    assert_ptr_equal(l.space.world, world);
    assert_int_equal(l.space.serial, 8);
    assert_int_equal(l.space.deaths, 0);
    assert_false(l.space.on);
    assert_int_equal(ticks_to_promotion(&l, 4 * MS, 4 * MS, 1000),
                     ticks_to_promotion(&fresh, 4 * MS, 4 * MS, 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_computes_is_promoted_soon_but_not_at_once),
        cmocka_unit_test(one_that_calls_the_kernel_all_the_time_is_not),
        cmocka_unit_test(samples_must_follow_each_other),
        cmocka_unit_test(close_samples_are_one),
        cmocka_unit_test(a_sample_stands_for_little),
        cmocka_unit_test(one_that_goes_on_computing_stays),
        cmocka_unit_test(one_that_only_loses_is_demoted),
        cmocka_unit_test(a_burst_of_exits_means_nothing),
        cmocka_unit_test(credit_is_capped),
        cmocka_unit_test(one_that_meets_new_code_stays),
        cmocka_unit_test(faults_right_behind_each_other_pause),
        cmocka_unit_test(a_stay_ends_a_storm),
        cmocka_unit_test(a_storm_is_over_when_it_is_over),
        cmocka_unit_test(storm_upon_storm_waits_longer),
        cmocka_unit_test(waiting_for_the_cpu_is_not_running),
        cmocka_unit_test(a_clock_that_says_nothing_counts_all),
        cmocka_unit_test(another_try_when_it_has_run_long_enough),
        cmocka_unit_test(a_dear_try_waits_longer),
        cmocka_unit_test(refused_pages_make_tries_rarer),
        cmocka_unit_test(no_program_loses_more_than_a_twentieth),
        cmocka_unit_test(barred_stays_barred),
        cmocka_unit_test(who_runs_directly_is_not_promoted_again),
        cmocka_unit_test(a_recycled_number_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
