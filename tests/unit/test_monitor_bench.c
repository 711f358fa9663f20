/* Unit test of the module monitor: what `ringlet bench` makes of figures, and how it watches programs. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../../monitor/bench.h"

static void near(double got, double want)
{
    if (fabs(got - want) > 1e-9 * fabs(want) + 1e-12)
        fail_msg("got %.12g, want %.12g", got, want);
}

static struct bench_results results(void)
{
    struct bench_results r = {
        .rounds = 3, .memory = 512 << 20, .version = "0", .host = "a host", .date = "a day"};
    struct host_err err = {""};

    assert_int_equal(bench_results_init(&r, &err), 0);
    return r;
}

static unsigned row(const char *name)
{
    int i = bench_row_find(name, strlen(name));

    if (i < 0)
        fail_msg("no row %s", name);
    return (unsigned)i;
}

/* ---- The table of rows ---- */

static void rows_make_sense(void **state)
{
    (void)state;
    for (unsigned i = 0; i < bench_row_count; i++) {
        const struct bench_row *b = &bench_rows[i];

        if (bench_row_find(b->name, strlen(b->name)) != (int)i)
            fail_msg("the name %s is not unique", b->name);
        assert_true(b->what[0] && b->suite < BENCH_SUITES);
        assert_true(!strpbrk(b->name, " \n\"'$`;&|")); /* it becomes part of a shell script */
        assert_int_equal(b->suite == BENCH_APPS && b->unit == BENCH_MS, (b->flags & BENCH_USED) != 0);
        assert_true((b->unit == BENCH_MBS || b->unit == BENCH_OPS) == (b->better == BENCH_HIGHER));
        assert_int_equal(b->suite == BENCH_LINUX_2G, b->twin != NULL);
        if (b->twin)
            assert_int_equal(bench_rows[row(b->twin)].suite, BENCH_LINUX);
        assert_int_equal(b->suite == BENCH_SCALE, b->series != NULL);
        if (i && b->series && bench_rows[i - 1].series && !strcmp(b->series, bench_rows[i - 1].series))
            assert_true(b->x > bench_rows[i - 1].x);
    }
    assert_int_equal(bench_row_find("fib", 2), -1);
    assert_int_equal(bench_row_find("", 0), -1);
}

static void rows_are_due(void **state)
{
    struct bench_results r = results();
    unsigned heavy = row("forkwait"), light = row("fork");

    (void)state;
    assert_false(bench_row_due(&r, light, 0)); /* its suite was not asked for */
    r.suite[BENCH_LINUX] = true;
    assert_true(bench_row_due(&r, light, 0) && bench_row_due(&r, light, 2));
    assert_true(bench_row_due(&r, heavy, 0));
    assert_false(bench_row_due(&r, heavy, 1));
    r.quick = true;
    assert_false(bench_row_due(&r, heavy, 0));
    bench_results_finish(&r);
}

/* ---- Statistics ---- */

static void medians(void **state)
{
    struct bench_summary s;

    (void)state;
    assert_false(bench_summarize((double[]){1}, 0, &s));
    assert_true(bench_summarize((double[]){7}, 1, &s));
    near(s.median, 7);
    assert_true(bench_summarize((double[]){9, 1, 4}, 3, &s));
    near(s.median, 4);
    near(s.min, 1);
    near(s.max, 9);
    assert_true(bench_summarize((double[]){10, 1, 2, 4}, 4, &s));
    near(s.median, 3);
    assert_false(bench_summarize((double[]){1}, BENCH_MAX_ROUNDS + 1, &s));
}

static void speedups(void **state)
{
    struct bench_results r = results();
    unsigned fork = row("fork"), exec = row("exec"), copy = row("memcpy");

    (void)state;
    bench_cell_add(&r.cell[fork][BENCH_RINGLET], 50000);
    near(bench_speedup(&r, fork, BENCH_RINGLET, BENCH_TCG), 0); /* one figure is no ratio */
    bench_cell_add(&r.cell[fork][BENCH_TCG], 400000);
    near(bench_speedup(&r, fork, BENCH_RINGLET, BENCH_TCG), 8);
    near(bench_speedup(&r, fork, BENCH_TCG, BENCH_RINGLET), 0.125);
    bench_cell_add(&r.cell[copy][BENCH_RINGLET], 30000); /* MB/s: more is better */
    bench_cell_add(&r.cell[copy][BENCH_TCG], 10000);
    near(bench_speedup(&r, copy, BENCH_RINGLET, BENCH_TCG), 3);
    bench_cell_add(&r.cell[exec][BENCH_RINGLET], 200);
    bench_cell_add(&r.cell[exec][BENCH_TCG], 400);
    near(bench_suite_speedup(&r, BENCH_LINUX, BENCH_RINGLET, BENCH_TCG), 4); /* the root of 8 times 2 */
    near(bench_suite_speedup(&r, BENCH_NANO, BENCH_RINGLET, BENCH_TCG), 0);
    bench_cell_add(&r.cell[row("loop")][BENCH_RINGLET], 0); /* no division by it */
    bench_cell_add(&r.cell[row("loop")][BENCH_TCG], 0);
    near(bench_speedup(&r, row("loop"), BENCH_RINGLET, BENCH_TCG), 0);
    bench_results_finish(&r);
}

static void user_times(void **state)
{
    struct bench_results r = results();
    unsigned gzip = row("gzip"), rsa = row("rsa2048");
    struct bench_summary s;

    (void)state;
    assert_false(bench_suite_used(&r, BENCH_APPS));
    bench_cell_add(&r.cell[gzip][BENCH_RINGLET], 400e6);
    bench_cell_add(&r.cell[gzip][BENCH_NATIVE], 100e6);
    near(bench_figure_speedup(&r, BENCH_USER_TIME, gzip, BENCH_RINGLET, BENCH_NATIVE), 0); /* not known */
    bench_cell_add(&r.used[gzip][BENCH_RINGLET], 160e6);
    bench_cell_add(&r.used[gzip][BENCH_NATIVE], 80e6);
    assert_true(bench_suite_used(&r, BENCH_APPS));
    assert_false(bench_suite_used(&r, BENCH_LINUX));
    assert_true(bench_figure_summary(&r, BENCH_USER_TIME, gzip, BENCH_RINGLET, &s));
    near(s.median, 160);
    near(bench_figure_speedup(&r, BENCH_USER_TIME, gzip, BENCH_RINGLET, BENCH_NATIVE), 0.5);
    near(bench_figure_speedup(&r, BENCH_FIGURE, gzip, BENCH_RINGLET, BENCH_NATIVE), 0.25);
    bench_cell_add(&r.cell[rsa][BENCH_RINGLET], 120); /* a rate stands for itself */
    bench_cell_add(&r.cell[rsa][BENCH_NATIVE], 60);
    near(bench_figure_speedup(&r, BENCH_USER_TIME, rsa, BENCH_RINGLET, BENCH_NATIVE), 2);
    near(bench_figure_mean(&r, BENCH_USER_TIME, BENCH_APPS, BENCH_RINGLET, BENCH_NATIVE), 1); /* 0.5 and 2 */
    near(bench_suite_speedup(&r, BENCH_APPS, BENCH_RINGLET, BENCH_NATIVE), sqrt(0.5));
    bench_results_finish(&r);
}

static void figures_have_units(void **state)
{
    struct bench_results r = results();
    struct bench_summary s;

    (void)state;
    bench_cell_add(&r.cell[row("fork")][BENCH_NATIVE], 62500); /* ns; the row is in us */
    assert_true(bench_cell_summary(&r, row("fork"), BENCH_NATIVE, &s));
    near(s.median, 62.5);
    bench_cell_add(&r.cell[row("forkwait")][BENCH_NATIVE], 2.5e9);
    assert_true(bench_cell_summary(&r, row("forkwait"), BENCH_NATIVE, &s));
    near(s.median, 2.5);
    bench_cell_add(&r.cell[row("rsa2048")][BENCH_NATIVE], 242500); /* thousandths of one per second */
    assert_true(bench_cell_summary(&r, row("rsa2048"), BENCH_NATIVE, &s));
    near(s.median, 242.5);
    bench_results_finish(&r);
}

static void policy_figures(struct bench_results *r, const char *name, double automatic, double direct,
                           double translate)
{
    bench_cell_add(&r->cell[row(name)][BENCH_AUTO], automatic);
    bench_cell_add(&r->cell[row(name)][BENCH_DIRECT], direct);
    bench_cell_add(&r->cell[row(name)][BENCH_TRANSLATE], translate);
}

static void policies(void **state)
{
    struct bench_results r = results();
    enum bench_engine better;
    char text[2048] = "";
    FILE *out = fmemopen(text, sizeof(text), "w");

    (void)state;
    bench_policy_print(&r, out); /* nothing was compared: nothing is said */
    assert_int_equal(ftell(out), 0);
    bench_cell_add(&r.cell[row("exec")][BENCH_AUTO], 900);
    bench_cell_add(&r.cell[row("exec")][BENCH_DIRECT], 100);
    near(bench_policy_cost(&r, row("exec"), &better), 0); /* without translate there is no better of two */
    policy_figures(&r, "fork", 105, 300, 100);
    near(bench_policy_cost(&r, row("fork"), &better), 1.05);
    assert_int_equal(better, BENCH_TRANSLATE);
    policy_figures(&r, "fib", 30, 20, 40);
    near(bench_policy_cost(&r, row("fib"), &better), 1.5);
    assert_int_equal(better, BENCH_DIRECT);
    policy_figures(&r, "memcpy", 10000, 20000, 5000); /* MB/s: more is better */
    near(bench_policy_cost(&r, row("memcpy"), &better), 2);
    assert_int_equal(better, BENCH_DIRECT);
    assert_false(bench_spreads_overlap(&r, row("memcpy"), BENCH_AUTO, BENCH_DIRECT)); /* one round */
    policy_figures(&r, "memcpy", 12000, 25000, 6000);
    assert_false(bench_spreads_overlap(&r, row("memcpy"), BENCH_AUTO, BENCH_DIRECT));
    policy_figures(&r, "fib", 20, 31, 40);
    assert_true(bench_spreads_overlap(&r, row("fib"), BENCH_AUTO, BENCH_DIRECT));
    policy_figures(&r, "fib", 29, 20, 40); /* medians 29 and 20 */
    bench_policy_print(&r, out);
    fclose(out);
    assert_non_null(
        strstr(text, "of 3 rows: behind by more than 10 % in 1, at most 2.05x its cost; 1 within noise\n"));
    assert_non_null(strstr(text, "  memcpy: 2.05x ringlet-direct\n"));
    assert_non_null(strstr(text, "  fib: 1.45x ringlet-direct, but their rounds overlap: noise\n"));
    assert_null(strstr(text, "fork"));
    bench_results_finish(&r);
}

/* What is only noise does not set the worst figure either, and nothing else is no reason to say nothing. */
static void policies_within_noise(void **state)
{
    struct bench_results r = results();
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    (void)state;
    policy_figures(&r, "fib", 20, 31, 40);
    policy_figures(&r, "fib", 60, 20, 40);
    policy_figures(&r, "fib", 60, 20, 40); /* 60 against 20, but each has been at 20 */
    bench_policy_print(&r, f);
    fclose(f);
    assert_string_equal(
        text, "ringlet-auto against the better of ringlet-direct and ringlet-translate, of 1 rows: behind by "
              "more than 10 % in 0; 1 within noise\n"
              "  fib: 3.00x ringlet-direct, but their rounds overlap: noise\n");
    free(text);
    bench_results_finish(&r);
}

static void twins(void **state)
{
    struct bench_results r = results();
    unsigned more = row("fork_2g");

    (void)state;
    bench_cell_add(&r.cell[more][BENCH_RINGLET], 130);
    near(bench_twin_ratio(&r, more, BENCH_RINGLET), 0); /* one figure is no ratio */
    bench_cell_add(&r.cell[row("fork")][BENCH_RINGLET], 100);
    near(bench_twin_ratio(&r, more, BENCH_RINGLET), 1.3);
    near(bench_twin_ratio(&r, more, BENCH_TCG), 0);
    near(bench_twin_ratio(&r, row("fork"), BENCH_RINGLET), 0); /* has none */
    bench_results_finish(&r);
}

static void rises(void **state)
{
    static const double cost[] = {50, 20, 30, 25, 36}; /* 36 over 20; the fall from 50 is none */
    static const unsigned x[] = {1, 4, 16, 64, 256};
    struct bench_results r = results();

    (void)state;
    near(bench_series_rise(&r, "processes", BENCH_TCG), 0);
    for (unsigned i = 0; i < 5; i++) {
        char name[32];

        snprintf(name, sizeof(name), "processes_%u", x[i]);
        bench_cell_add(&r.cell[row(name)][BENCH_TCG], cost[i]);
    }
    near(bench_series_rise(&r, "processes", BENCH_TCG), 1.8);
    near(bench_series_rise(&r, "processes", BENCH_RINGLET), 0);
    near(bench_series_rise(&r, "touch", BENCH_TCG), 0);
    bench_results_finish(&r);
}

/* The first of ringlet's engines that is here is what the others are compared with. */
static void subjects(void **state)
{
    struct bench_results r = results();

    (void)state;
    r.engine[BENCH_TCG].here = true;
    assert_int_equal(bench_subject(&r), BENCH_ENGINES);
    assert_false(bench_compared(&r, BENCH_TCG));
    r.engine[BENCH_TRANSLATE].here = true;
    assert_int_equal(bench_subject(&r), BENCH_TRANSLATE);
    r.engine[BENCH_RINGLET].here = true;
    assert_int_equal(bench_subject(&r), BENCH_RINGLET);
    assert_true(bench_compared(&r, BENCH_TCG) && bench_compared(&r, BENCH_TRANSLATE));
    assert_false(bench_compared(&r, BENCH_RINGLET) || bench_compared(&r, BENCH_KVM));
    bench_results_finish(&r);
}

static void too_many_samples(void **state)
{
    struct bench_cell c = {.n = 0};

    (void)state;
    for (unsigned i = 0; i < BENCH_MAX_ROUNDS + 5; i++)
        bench_cell_add(&c, i);
    assert_int_equal(c.n, BENCH_MAX_ROUNDS);
}

static void numbers(void **state)
{
    char text[32];

    (void)state;
    assert_string_equal(bench_number(0, text), "0.00");
    assert_string_equal(bench_number(3.14159, text), "3.14");
    assert_string_equal(bench_number(31.4159, text), "31.4");
    assert_string_equal(bench_number(314.159, text), "314");
    assert_string_equal(bench_number(63252.4, text), "63252");
    assert_string_equal(bench_number(0.0314159, text), "0.0314");
}

/* ---- Lines of programs ---- */

static bool takes(struct bench_sink *s, const char *line)
{
    return bench_parse_line(s, line, strlen(line));
}

static void lines_are_taken(void **state)
{
    struct bench_results r = results();
    struct bench_sink s = {.results = &r, .engine = BENCH_TCG};
    struct bench_cell *c = &r.cell[row("fork")][BENCH_TCG];

    (void)state;
    assert_false(takes(&s, "row fork 100")); /* not due */
    s.due[row("fork")] = s.due[row("exec")] = s.due[row("in")] = true;
    assert_true(takes(&s, "row fork 62295\r\n"));
    assert_int_equal(c->n, 1);
    near(c->v[0], 62295);
    assert_false(takes(&s, "row fork 1")); /* once per job */
    assert_int_equal(c->n, 1);
    assert_true(takes(&s, "row in 80.5\n"));
    near(r.cell[row("in")][BENCH_TCG].v[0], 80.5);
    assert_true(takes(&s, "fail exec 137\r\n"));
    assert_string_equal(r.cell[row("exec")][BENCH_TCG].why, "took too long");
    assert_int_equal(r.cell[row("exec")][BENCH_TCG].n, 0);
    bench_results_finish(&r);
}

/* User time comes ahead of the row and counts only with it. */
static void user_times_are_taken(void **state)
{
    struct bench_results r = results();
    struct bench_sink s = {.results = &r, .engine = BENCH_TCG}, next = s;
    const struct bench_cell *used = &r.used[row("gzip")][BENCH_TCG];

    (void)state;
    assert_false(takes(&s, "user gzip 100")); /* not due */
    memset(s.due, true, sizeof(s.due));
    assert_false(takes(&s, "user fork 100"));    /* rows that print none */
    assert_false(takes(&s, "user rsa2048 100")); /* whose figure is a rate */
    assert_true(takes(&s, "user gzip 150000000\r\n"));
    assert_false(takes(&s, "user gzip 1")); /* once per job */
    assert_int_equal(used->n, 0);
    assert_true(takes(&s, "row gzip 200000000"));
    assert_int_equal(used->n, 1);
    near(used->v[0], 150000000);
    assert_false(takes(&s, "user gzip 1"));
    assert_true(takes(&s, "user xz 5"));
    assert_true(takes(&s, "fail xz 1"));
    assert_int_equal(r.used[row("xz")][BENCH_TCG].n, 0);
    next.due[row("gzip")] = true; /* a job without one takes none from the last */
    assert_true(takes(&next, "row gzip 300000000"));
    assert_int_equal(used->n, 1);
    assert_int_equal(r.cell[row("gzip")][BENCH_TCG].n, 2);
    bench_results_finish(&r);
}

static void lines_are_not_trusted(void **state)
{
    static const char *const bad[] = {
        "",
        "row",
        "row ",
        "row fork",
        "row fork ",
        "row fork x",
        "row fork -1",
        "row fork 1 2",
        "row fork 1x",
        "row fork nan",
        "row fork inf",
        "row fork 1e999",
        "rows fork 1",
        " row fork 1",
        "row nothing 1",
        "row  fork 1",
        "Row fork 1",
        "row fork\t1",
        "fail",
        "fail fork",
        "fail nothing 1",
        "row fork  1",
        "row fork .5",
        "user gzip",
        "user gzip -1",
        "user gzip 1 2",
        "user nothing 1",
        "users gzip 1",
    };
    struct bench_results r = results();
    struct bench_sink s = {.results = &r, .engine = BENCH_RINGLET};
    char line[4096] = "row fork 1";

    (void)state;
    s.due[row("fork")] = s.due[row("gzip")] = true;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (takes(&s, bad[i]))
            fail_msg("\"%s\" was taken", bad[i]);
    memset(line + 10, '1', sizeof(line) - 11); /* longer than any honest line */
    assert_false(takes(&s, line));
    assert_int_equal(r.cell[row("fork")][BENCH_RINGLET].n, 0);
    bench_results_finish(&r);
}

static void texts_are_split(void **state)
{
    static const char text[] = "ok: started\r\nrow in 1\r\n\nnoise row cr3 5\nrow iret 7";
    struct bench_results r = results();
    struct bench_sink s = {.results = &r, .engine = BENCH_KVM};

    (void)state;
    memset(s.due, true, sizeof(s.due));
    bench_parse_text(&s, text, sizeof(text) - 1);
    near(r.cell[row("in")][BENCH_KVM].v[0], 1);
    assert_int_equal(r.cell[row("cr3")][BENCH_KVM].n, 0);
    near(r.cell[row("iret")][BENCH_KVM].v[0], 7);
    bench_results_finish(&r);
}

static void splits_are_found(void **state)
{
    static const char *const bad[] = {
        "",
        "\"time_ns\": {",
        "\"time_ns\": {\"user\": 1, \"kernel\": 2}",
        "\"time_ns\": {\"user\": -1, \"kernel\": 2",
        "\"time_ns\": {\"user\": 1, \"direct\": 1, \"kernel\": 1, \"monitor\": 3, \"devices\": 4} \"idle\": "
        "5",
        "\"time_ns\": {\"user\": 1, \"direct\": x, \"kernel\": 1, \"monitor\": 3, \"devices\": 4, \"idle\": "
        "5}",
    };
    struct bench_split s;

    (void)state;
    assert_true(bench_parse_split("\"time_ns\": {\"user\": what the guest says\n{\n  \"time_ns\": {\"user\": "
                                  "1, \"kernel\": 22, \"direct\": 7, "
                                  "\"monitor\": 333, \"devices\": 4444, \"idle\": 0, \"all\": 4800},\n",
                                  &s));
    near(s.ns[BENCH_USER], 1);
    near(s.ns[BENCH_USER_DIRECT], 7);
    near(s.ns[BENCH_KERNEL], 22);
    near(s.ns[BENCH_MONITOR], 333);
    near(s.ns[BENCH_DEVICES], 4444);
    near(s.ns[BENCH_IDLE], 0);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(bench_parse_split(bad[i], &s) || s.known);
}

/* ---- What a row made ringlet do ---- */

static void marks_are_subtracted(void **state)
{
    static const char text[] =
        "noise\n{\n  \"mark\": \"fork begin\",\n  \"time_ns\": {\"user\": 100, \"kernel\": 1000, "
        "\"monitor\": 5, "
        "\"devices\": 0, \"idle\": 7, \"all\": 9, \"host_kernel\": 50},\n  \"host\": {\"mmap\": 10, "
        "\"signals\": 3}}\n"
        "{\n  \"mark\": \"fork end 4\",\n  \"time_ns\": {\"user\": 150, \"kernel\": 1600, \"monitor\": 5, "
        "\"devices\": 1, \"idle\": 7, \"all\": 9, \"host_kernel\": 80},\n  \"host\": {\"mmap\": 18, "
        "\"signals\": 3}}\n"
        "row fork 1\n";
    struct bench_results r = results();
    const struct bench_work *w = &r.work[row("fork")][BENCH_RINGLET];

    (void)state;
    bench_parse_marks(&r, BENCH_RINGLET, text);
    assert_true(w->split.known);
    near(w->units, 4);
    near(w->split.ns[BENCH_USER], 50);
    near(w->split.ns[BENCH_KERNEL], 600);
    near(w->split.ns[BENCH_DEVICES], 1);
    near(w->host_kernel, 30);
    for (unsigned i = 0; i < BENCH_COUNTS; i++)
        near(w->count[i], strcmp(bench_count_names[i], "mmap") == 0 ? 8 : 0);
    assert_false(r.work[row("exec")][BENCH_RINGLET].split.known);
    assert_false(r.work[row("fork")][BENCH_DIRECT].split.known);
    bench_results_finish(&r);
}

/* A row begins anew before it ends when its first runs were to warm up. */
static void marks_begin_again(void **state)
{
    static const char text[] =
        "\"mark\": \"fork begin\" \"mmap\": 1\n\"mark\": \"fork begin\" \"mmap\": 5\n"
        "\"mark\": \"fork end 2\" \"mmap\": 6\n\"mark\": \"fork end 9\" \"mmap\": 99\n";
    struct bench_results r = results();
    const struct bench_work *w = &r.work[row("fork")][BENCH_RINGLET];

    (void)state;
    bench_parse_marks(&r, BENCH_RINGLET, text);
    near(w->units, 2);
    for (unsigned i = 0; i < BENCH_COUNTS; i++)
        near(w->count[i], strcmp(bench_count_names[i], "mmap") == 0 ? 1 : 0);
    bench_results_finish(&r);
}

static void marks_are_not_trusted(void **state)
{
    static const char *const bad[] = {
        "",
        "\"mark\": \"",
        "\"mark\": \"fork end 4\"",
        "\"mark\": \"fork begin\"",
        "\"mark\": \"fork begin\" \"mark\": \"exec end 4\"",
        "\"mark\": \"fork begin\" \"mark\": \"fork end 0\"",
        "\"mark\": \"fork begin\" \"mark\": \"fork end -4\" ",
        "\"mark\": \"fork begin\" \"mark\": \"fork end\"",
        "\"mark\": \"fork begins\" \"mark\": \"fork end 4\"",
        "\"mark\": \"nothing begin\" \"mark\": \"nothing end 4\"",
    };
    struct bench_results r = results();
    const struct bench_work *w = &r.work[row("fork")][BENCH_RINGLET];

    (void)state;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bench_parse_marks(&r, BENCH_RINGLET, bad[i]);
        for (unsigned k = 0; k < bench_row_count; k++)
            if (r.work[k][BENCH_RINGLET].split.known)
                fail_msg("\"%s\" was taken", bad[i]);
    }
    memset(r.work, 0, bench_row_count * sizeof(*r.work));
    bench_parse_marks(&r, BENCH_RINGLET,
                      "\"mark\": \"fork begin\" \"mmap\": 9 \"mark\": \"fork end 1\" \"mmap\": 3");
    assert_true(w->split.known);
    for (unsigned i = 0; i < BENCH_COUNTS; i++)
        near(w->count[i], 0); /* counters do not go back */
    bench_results_finish(&r);
}

static void last_lines(void **state)
{
    char two[] = "first\nsecond\r\n\n", none[] = "\n", one[] = "only";

    (void)state;
    assert_string_equal(bench_last_line(two), "second");
    assert_string_equal(bench_last_line(none), "");
    assert_string_equal(bench_last_line(one), "only");
}

/* ---- Writers ---- */

static char *printed(void (*print)(const struct bench_results *, FILE *), const struct bench_results *r)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    print(r, f);
    fclose(f);
    return text;
}

static void has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" is missing in:\n%s", part, text);
}

static void has_after(const char *text, const char *mark, const char *part)
{
    const char *from = strstr(text, mark);

    has(from ? from : "", part);
}

static struct bench_results small(void)
{
    struct bench_results r = results();

    r.suite[BENCH_BOOT] = true;
    r.engine[BENCH_RINGLET] = (struct bench_engine_state){true, true, "ours"};
    r.engine[BENCH_TCG] = (struct bench_engine_state){true, true, "a \"quoted\" <b>\\name\n"};
    r.engine[BENCH_KVM] = (struct bench_engine_state){true, false, "not here"};
    for (unsigned i = 0; i < 3; i++) {
        bench_cell_add(&r.cell[row("boot_686")][BENCH_RINGLET], (1 + i) * 1e9);
        bench_cell_add(&r.cell[row("boot_686")][BENCH_TCG], 4e9);
    }
    bench_cell_fail(&r.cell[row("boot_pae")][BENCH_TCG], "no <reason>");
    bench_cell_fail(&r.cell[row("boot_pae")][BENCH_TCG], "a second reason");
    bench_results_note(&r, "left \"this\" & that");
    r.split[BENCH_GROUP_PAE] = (struct bench_split){{1e9, 0, 2e9, 1e9, 0, 0}, true};
    return r;
}

static void json(void **state)
{
    struct bench_results r = small();
    char *text = printed(bench_json_print, &r);

    (void)state;
    has(text, "\"partial\": false,");
    has(text, "\"memory_mib\": 512,");
    has(text, "{\"name\": \"tcg\", \"here\": true, \"note\": \"a \\\"quoted\\\" <b>\\\\name\\u000a\"}");
    has(text, "{\"name\": \"kvm\", \"here\": false, \"note\": \"not here\"}");
    has(text, "\"ringlet_time_ns\": {\n    \"linux pae\": {\"user\": 1000000000, \"direct\": 0, \"kernel\": "
              "2000000000, "
              "\"monitor\": 1000000000, \"devices\": 0, \"idle\": 0}},");
    has(text, "\"left_out\": [\"left \\\"this\\\" & that\"]");
    has(text,
        "{\"suite\": \"boot\", \"name\": \"boot_686\", \"what\": \"Debian's 686 kernel, start to /init\", "
        "\"unit\": \"s\", \"better\": \"lower\", \"results\": {"
        "\"ringlet\": {\"median\": 2, \"min\": 1, \"max\": 3, \"samples\": [1, 2, 3]}, "
        "\"tcg\": {\"median\": 4, \"min\": 4, \"max\": 4, \"samples\": [4, 4, 4]}}, "
        "\"ahead_of\": {\"tcg\": 2}}");
    has(text, "\"results\": {\"tcg\": {\"failed\": \"no <reason>\"}}, \"ahead_of\": {}}");
    assert_null(strstr(text, "fork")); /* a suite that was not asked for */
    free(text);
    bench_results_finish(&r);
}

static void html(void **state)
{
    struct bench_results r = small();
    char *text;

    (void)state;
    r.partial = true;
    r.load = 2.5;
    text = printed(bench_html_print, &r);
    has(text, "before the run 2.5 programs wanted each");
    has(text, "<!DOCTYPE html>");
    has(text, "Partial: the run was interrupted");
    has(text, "a &quot;quoted&quot; &lt;b&gt;\\name");
    has(text, "no &lt;reason&gt;");
    has(text, "left &quot;this&quot; &amp; that");
    has(text, "<td>2.00 <span class=\"spread\">1.00..3.00</span></td>");
    has(text, "<td class=\"ahead\">2.00x</td>");
    assert_null(strstr(text, "<b>"));
    assert_null(strstr(text, "http")); /* self-contained */
    has(text, "kernel 50%");           /* half of four seconds: half of 820 pixels, behind user's quarter */
    has(text, "<rect class=\"s2\" x=\"295.0\" y=\"4\" width=\"410.0\"");
    has(text, "4.00 s");
    /* The middle is at 400 + 210; twice as fast is log10(2) / 2 of 210 pixels to the right: 31.6. */
    has(text, "<rect class=\"e4\" x=\"610.0\" y=\"20\" width=\"31.6\"");
    free(text);
    bench_results_finish(&r);
}

static void table(void **state)
{
    struct bench_results r = small();
    char *text = printed(bench_table_print, &r);

    (void)state;
    has(text, "2.00 [1.00..3.00]");
    has(text, "2.00x");
    has(text, "left out: kvm: not here");
    has(text, "left out: left \"this\" & that");
    has(text, "tcg, boot_pae: no <reason>");
    assert_null(strstr(text, "PARTIAL"));
    assert_null(strstr(text, "busy"));
    free(text);
    bench_results_finish(&r);
}

/* User times are a second table, as long as the first, in all three. */
static void user_times_are_shown(void **state)
{
    struct bench_results r = small();
    char *text;

    (void)state;
    r.suite[BENCH_APPS] = true;
    r.engine[BENCH_NATIVE] = (struct bench_engine_state){true, true, "bare"};
    bench_cell_add(&r.cell[row("gzip")][BENCH_RINGLET], 400e6);
    bench_cell_add(&r.cell[row("gzip")][BENCH_NATIVE], 100e6);
    text = printed(bench_table_print, &r);
    assert_null(strstr(text, "user time")); /* no program printed any */
    free(text);
    bench_cell_add(&r.used[row("gzip")][BENCH_RINGLET], 160e6);
    bench_cell_add(&r.used[row("gzip")][BENCH_NATIVE], 80e6);
    bench_cell_add(&r.cell[row("rsa2048")][BENCH_RINGLET], 60000);
    bench_cell_add(&r.cell[row("rsa2048")][BENCH_NATIVE], 60000);
    text = printed(bench_table_print, &r);
    has(text, "\napps, user time ");
    assert_null(strstr(text, "boot, user time"));
    has_after(text, "apps, user time", "0.500x"); /* gzip */
    has_after(text, "apps, user time", "0.707x"); /* geometric mean with rsa2048's 1 */
    free(text);
    text = printed(bench_json_print, &r);
    has(text,
        "\"samples\": [400], \"user\": {\"median\": 160, \"min\": 160, \"max\": 160, \"samples\": [160]}}");
    has(text, "\"ahead_of\": {\"native\": 0.25}, \"user_ahead_of\": {\"native\": 0.5}}");
    has(text, "\"mean_ahead_of\": {\"apps\": {\"native\": 0.5}, \"boot\": {\"tcg\": 2}},");
    has(text, "\"mean_user_ahead_of\": {\"apps\": {\"native\": 0.7071}},");
    free(text);
    text = printed(bench_html_print, &r);
    has(text, "<h3>User time of the same runs");
    has_after(text, "<h3>User time", "<td class=\"behind\">0.500x</td>");
    has(text, "<td>apps, user time</td>");
    free(text);
    r.load = 2.5;
    text = printed(bench_table_print, &r);
    has_after(text, "apps, user time", "a guest counts as user time what other programs of the host took");
    free(text);
    bench_results_finish(&r);
}

/* ---- The initramfs ---- */

/* Linux Documentation/driver-api/early-userspace/buffer-format.rst: thirteen fields of 8 hexadecimal digits behind the
 * magic number; name and data padded to multiples of 4. */
static void cpio(void **state)
{
    static const char want[] = "070701"
                               "00000000"
                               "000081ED" /* 0100755 */
                               "00000000"
                               "00000000"
                               "00000001"
                               "00000000"
                               "00000005"
                               "00000000"
                               "00000000"
                               "00000000"
                               "00000000"
                               "00000006"
                               "00000000"
                               "bin/a\0" /* 116 bytes so far */
                               "hello\0\0";
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    (void)state;
    bench_cpio_entry(f, "bin/a", 0100755, "hello", 5);
    fclose(f);
    assert_int_equal(size, 124);
    assert_memory_equal(text, want, 124);
    free(text);
}

static void init_script(void **state)
{
    struct bench_results r = results();
    bool due[256] = {false};
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    (void)state;
    due[row("fork_2g")] = due[row("fork")] = due[row("divsd")] = due[row("gzip")] = due[row("touch_64")] =
        due[row("boot_686")] = due[row("in")] = true;
    bench_init_script(&r, due, f);
    fclose(f);
    has(text, "#!/bin/busybox sh\n");
    has(text, "\nrun linux fork\nrun linux fork_2g\nrun compute divsd\nrun apps gzip\nrun scale touch_64\n"
              "$B poweroff -f\n");
    has(text, BENCH_MARKER);
    assert_null(strstr(text, "boot_686")); /* needs no program */
    free(text);
    bench_results_finish(&r);
}

/* ---- Commands ---- */

static void command_is(const struct bench_command *cmd, const char *want)
{
    char got[1024] = "";

    for (unsigned i = 0; cmd->argv[i]; i++) {
        strcat(got, i ? " " : "");
        strcat(got, cmd->argv[i]);
    }
    assert_string_equal(got, want);
}

static void commands(void **state)
{
    struct bench_config c = {
        .self = "/r", .qemu = "/q", .extra = {"--verify"}, .extra_count = 1, .append = "a b"};
    struct bench_machine nano = {.multiboot = "n.elf", .memory = 64};
    struct bench_machine debian = {.kernel = "k", .initrd = "i", .memory = 512};
    struct bench_command cmd;

    (void)state;
    bench_engine_command(&c, BENCH_RINGLET, &nano, &cmd);
    command_is(
        &cmd,
        "/r run --serial stdio --no-reboot --stats=json --stats-port 0xe9 --memory 64M --multiboot n.elf "
        "--verify");
    bench_engine_command(&c, BENCH_DIRECT, &nano, &cmd);
    command_is(&cmd,
               "/r run --serial stdio --no-reboot --stats=json --stats-port 0xe9 --user direct --memory 64M "
               "--multiboot n.elf --verify");
    bench_engine_command(&c, BENCH_KVM, &debian, &cmd);
    command_is(&cmd,
               "/q -accel kvm -cpu host -m 512M -display none -vga none -net none -no-reboot -monitor none "
               "-serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel k -initrd i "
               "-append a b");
}

/* ---- Children ---- */

static struct bench_child_result run_shell(const char *script, double silence, int signals)
{
    struct bench_config c = {.signals = signals};
    char *argv[] = {"/bin/sh", "-c", (char *)(uintptr_t)script, NULL};
    struct bench_child_result res;
    struct host_err err = {""};

    assert_int_equal(bench_child_run(&c, argv, "ready", silence, NULL, NULL, &res, &err), 0);
    return res;
}

static void child_is_heard(void **state)
{
    struct bench_child_result res = run_shell("echo is ready; echo trouble >&2; cat; exit 3", 30, -1);

    (void)state;
    assert_string_equal(res.text, "is ready\ntrouble\n"); /* and cat saw an end at once */
    assert_true(WIFEXITED(res.status) && WEXITSTATUS(res.status) == 3);
    assert_true(res.marker >= 0 && !res.timed_out && !res.interrupted);
    free(res.text);
}

static void child_is_silent(void **state)
{
    struct bench_child_result res = run_shell("echo x; sleep 600", 0.3, -1);

    (void)state;
    assert_true(res.timed_out && res.marker < 0);
    assert_true(WIFSIGNALED(res.status) && WTERMSIG(res.status) == SIGKILL);
    free(res.text);
}

static void child_is_interrupted(void **state)
{
    int fds[2];
    struct bench_child_result res;

    (void)state;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "!", 1), 1); /* readable, as a signalfd is after a signal */
    res = run_shell("sleep 600", 600, fds[0]);
    assert_true(res.interrupted && !res.timed_out);
    assert_true(WIFSIGNALED(res.status));
    free(res.text);
    close(fds[0]);
    close(fds[1]);
}

static void child_says_too_much(void **state)
{
    struct bench_child_result res = run_shell("exec yes", 30, -1);

    (void)state;
    assert_true(res.length > 1 << 20 && res.length < 8 << 20);
    assert_true(WIFSIGNALED(res.status));
    free(res.text);
}

static void child_cannot_start(void **state)
{
    struct bench_config c = {.signals = -1};
    char *argv[] = {"/nonexistent/program", NULL};
    struct bench_child_result res;
    struct host_err err = {""};

    (void)state;
    assert_int_equal(bench_child_run(&c, argv, NULL, 30, NULL, NULL, &res, &err), 0);
    has(res.text, "/nonexistent/program cannot be run: No such file");
    assert_true(WIFEXITED(res.status) && WEXITSTATUS(res.status) == 126);
    free(res.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_make_sense),
        cmocka_unit_test(rows_are_due),
        cmocka_unit_test(medians),
        cmocka_unit_test(speedups),
        cmocka_unit_test(user_times),
        cmocka_unit_test(figures_have_units),
        cmocka_unit_test(too_many_samples),
        cmocka_unit_test(numbers),
        cmocka_unit_test(policies),
        cmocka_unit_test(policies_within_noise),
        cmocka_unit_test(twins),
        cmocka_unit_test(rises),
        cmocka_unit_test(subjects),
        cmocka_unit_test(marks_are_subtracted),
        cmocka_unit_test(marks_begin_again),
        cmocka_unit_test(marks_are_not_trusted),
        cmocka_unit_test(last_lines),
        cmocka_unit_test(lines_are_taken),
        cmocka_unit_test(user_times_are_taken),
        cmocka_unit_test(lines_are_not_trusted),
        cmocka_unit_test(texts_are_split),
        cmocka_unit_test(splits_are_found),
        cmocka_unit_test(json),
        cmocka_unit_test(html),
        cmocka_unit_test(table),
        cmocka_unit_test(user_times_are_shown),
        cmocka_unit_test(cpio),
        cmocka_unit_test(init_script),
        cmocka_unit_test(commands),
        cmocka_unit_test(child_is_heard),
        cmocka_unit_test(child_is_silent),
        cmocka_unit_test(child_is_interrupted),
        cmocka_unit_test(child_says_too_much),
        cmocka_unit_test(child_cannot_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
