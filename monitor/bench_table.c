/* The results as a table for a terminal. */
#include <math.h>
#include <string.h>
#include "bench.h"

enum { WHAT = 56, FIGURE = 26, RATIO = 12 };

const char *bench_number(double v, char text[32])
{
    int whole = v > 0 ? (int)floor(log10(v)) + 1 : 1;
    int decimals = whole >= 3 ? 0 : whole < -3 ? 6 : 3 - whole;

    snprintf(text, 32, "%.*f", decimals, v);
    return text;
}

static void bench_table_figure(const struct bench_results *r, enum bench_figure f, unsigned row,
                               enum bench_engine e, FILE *out)
{
    struct bench_summary s;
    char cell[128] = "-", median[32], min[32], max[32];

    if (bench_figure_summary(r, f, row, e, &s)) {
        if (bench_figure_cell(r, f, row, e)->n > 1)
            snprintf(cell, sizeof(cell), "%s [%s..%s]", bench_number(s.median, median),
                     bench_number(s.min, min), bench_number(s.max, max));
        else
            snprintf(cell, sizeof(cell), "%s", bench_number(s.median, median));
    }
    fprintf(out, " %*s", FIGURE, cell);
}

static void bench_table_ratio(double ratio, FILE *out)
{
    char text[40] = "-", number[32];

    if (ratio > 0)
        snprintf(text, sizeof(text), "%sx", bench_number(ratio, number));
    fprintf(out, " %*s", RATIO, text);
}

static void bench_table_head(const struct bench_results *r, enum bench_figure f, enum bench_suite suite,
                             FILE *out)
{
    char title[40];

    snprintf(title, sizeof(title), "%s%s", bench_suite_names[suite],
             f == BENCH_USER_TIME ? ", user time" : "");
    fprintf(out, "\n%-*s", WHAT, title);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_suite_has(r, suite, e))
            fprintf(out, " %*s", FIGURE, bench_engine_names[e]);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_compared(r, e) && bench_suite_has(r, suite, e)) {
            snprintf(title, sizeof(title), "to %s", bench_engine_names[e]);
            fprintf(out, " %*s", RATIO, title);
        }
    if (suite == BENCH_LINUX_2G && bench_subject(r) < BENCH_ENGINES)
        fprintf(out, " %*s", RATIO, "cost to linux");
    fputc('\n', out);
}

static void bench_table_row(const struct bench_results *r, enum bench_figure f, unsigned row, FILE *out)
{
    char what[160];

    snprintf(what, sizeof(what), "%s, %s", bench_rows[row].what, bench_unit_name(bench_rows[row].unit));
    fprintf(out, "%-*s", WHAT, what);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_suite_has(r, bench_rows[row].suite, e))
            bench_table_figure(r, f, row, e, out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_compared(r, e) && bench_suite_has(r, bench_rows[row].suite, e))
            bench_table_ratio(bench_figure_speedup(r, f, row, bench_subject(r), e), out);
    if (bench_rows[row].twin && bench_subject(r) < BENCH_ENGINES)
        bench_table_ratio(bench_twin_ratio(r, row, bench_subject(r)), out);
    fputc('\n', out);
}

static void bench_table_mean(const struct bench_results *r, enum bench_figure f, enum bench_suite suite,
                             FILE *out)
{
    fprintf(out, "%-*s", WHAT, "geometric mean");
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_suite_has(r, suite, e))
            fprintf(out, " %*s", FIGURE, "");
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_compared(r, e) && bench_suite_has(r, suite, e))
            bench_table_ratio(bench_figure_mean(r, f, suite, bench_subject(r), e), out);
    fputc('\n', out);
}

static void bench_table_suite(const struct bench_results *r, enum bench_figure f, enum bench_suite suite,
                              FILE *out)
{
    bench_table_head(r, f, suite, out);
    for (unsigned i = 0; i < bench_row_count; i++)
        if (bench_rows[i].suite == suite && bench_row_selected(r, i))
            bench_table_row(r, f, i, out);
    bench_table_mean(r, f, suite, out);
}

/* Does a unit cost more the more there are? */
static void bench_table_rises(const struct bench_results *r, FILE *out)
{
    const char *last = "";
    char number[32];

    for (unsigned i = 0; i < bench_row_count; i++) {
        const char *series = bench_rows[i].series;

        if (!series || strcmp(series, last) == 0)
            continue;
        last = series;
        fprintf(out, "%s: the cost of one rises with their number by at most", series);
        for (unsigned e = 0; e < BENCH_ENGINES; e++) {
            double rise = bench_series_rise(r, series, e);

            if (rise > 0)
                fprintf(out, " %sx (%s)", bench_number(fmax(rise, 1), number), bench_engine_names[e]);
        }
        fputc('\n', out);
    }
}

/* Behind by so much that it is no accident of these rounds. */
static bool bench_policy_behind(const struct bench_results *r, unsigned row, double cost,
                                enum bench_engine better)
{
    return cost > BENCH_POLICY_GOAL && !bench_spreads_overlap(r, row, BENCH_AUTO, better);
}

static void bench_policy_rows(const struct bench_results *r, bool behind, const char *end, FILE *out)
{
    enum bench_engine better;
    char number[32];

    for (unsigned i = 0; i < bench_row_count; i++) {
        double cost = bench_policy_cost(r, i, &better);

        if (cost > BENCH_POLICY_GOAL && bench_policy_behind(r, i, cost, better) == behind)
            fprintf(out, "  %s: %sx %s%s\n", bench_rows[i].name, bench_number(cost, number),
                    bench_engine_names[better], end);
    }
}

void bench_policy_print(const struct bench_results *r, FILE *out)
{
    unsigned rows = 0, behind = 0, unsure = 0;
    double worst = 0;
    char number[32];
    enum bench_engine better;

    for (unsigned i = 0; i < bench_row_count; i++) {
        double cost = bench_policy_cost(r, i, &better);
        bool certain = cost > 0 && bench_policy_behind(r, i, cost, better);

        rows += cost > 0;
        behind += certain;
        unsure += cost > BENCH_POLICY_GOAL && !certain;
        if (certain || cost <= BENCH_POLICY_GOAL)
            worst = fmax(worst, cost);
    }
    if (!rows)
        return;
    fprintf(out, "%s against the better of %s and %s, of %u rows: behind by more than %.0f %% in %u",
            bench_engine_names[BENCH_AUTO], bench_engine_names[BENCH_DIRECT],
            bench_engine_names[BENCH_TRANSLATE], rows, (BENCH_POLICY_GOAL - 1) * 100, behind);
    if (worst > 0)
        fprintf(out, ", at most %sx its cost", bench_number(worst, number));
    fprintf(out, "; %u within noise\n", unsure);
    bench_policy_rows(r, true, "", out);
    bench_policy_rows(r, false, ", but their rounds overlap: noise", out);
}

/* Why figures are missing, below the figures. */
static void bench_table_missing(const struct bench_results *r, FILE *out)
{
    for (unsigned i = 0; i < r->notes; i++)
        fprintf(out, "left out: %s\n", r->note[i]);
    for (unsigned e = 0; e < BENCH_ENGINES; e++) {
        if (r->engine[e].wanted && !r->engine[e].here)
            fprintf(out, "left out: %s: %s\n", bench_engine_names[e], r->engine[e].note);
        for (unsigned i = 0; i < bench_row_count; i++)
            if (r->cell[i][e].why[0])
                fprintf(out, "%s, %s: %s\n", bench_engine_names[e], bench_rows[i].name, r->cell[i][e].why);
    }
}

void bench_table_print(const struct bench_results *r, FILE *out)
{
    fprintf(out,
            "%s\n%s; ringlet %s; %u round%s%s; medians [least..most]; a ratio above 1: ringlet is ahead\n",
            r->host, r->date, r->version, r->rounds, r->rounds == 1 ? "" : "s",
            r->partial ? "; PARTIAL: interrupted" : "");
    if (bench_host_busy(r))
        fprintf(out, "the host was busy: before the run %.1f programs wanted each of its CPUs\n", r->load);
    for (unsigned s = 0; s < BENCH_SUITES; s++) {
        if (!r->suite[s])
            continue;
        bench_table_suite(r, BENCH_FIGURE, s, out);
        if (bench_suite_used(r, s)) {
            bench_table_suite(r, BENCH_USER_TIME, s, out);
            if (bench_host_busy(r))
                fputs("the host was busy, and a guest counts as user time what other programs of the host "
                      "took\n",
                      out);
        }
        if (s == BENCH_SCALE)
            bench_table_rises(r, out);
    }
    fputc('\n', out);
    bench_policy_print(r, out);
    bench_table_missing(r, out);
}
