/* The results as JSON: one object, figures in each row's unit. */
#include <inttypes.h>
#include <string.h>
#include "bench.h"

/* RFC 8259 section 7. Bytes above 7Fh are passed on: the texts are UTF-8. */
static void bench_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if ((unsigned char)*text < 0x20)
            fprintf(out, "\\u%04x", (unsigned char)*text);
        else
            fputc(*text, out);
    fputc('"', out);
}

static void bench_json_field(FILE *out, const char *name, const char *text, const char *end)
{
    fprintf(out, "\"%s\": ", name);
    bench_json_string(out, text);
    fputs(end, out);
}

static void bench_json_engines(const struct bench_results *r, FILE *out)
{
    const char *comma = "";

    fputs("  \"engines\": [", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++) {
        if (!r->engine[e].wanted)
            continue;
        fprintf(out, "%s\n    {", comma);
        bench_json_field(out, "name", bench_engine_names[e], ", ");
        fprintf(out, "\"here\": %s, ", r->engine[e].here ? "true" : "false");
        bench_json_field(out, "note", r->engine[e].note, "}");
        comma = ",";
    }
    fputs("],\n", out);
}

static void bench_json_shares(const struct bench_split *split, FILE *out)
{
    for (unsigned i = 0; i < BENCH_SHARES; i++)
        fprintf(out, "%s\"%s\": %.0f", i ? ", " : "", bench_share_names[i], split->ns[i]);
}

static void bench_json_splits(const struct bench_results *r, FILE *out)
{
    const char *comma = "";

    fputs("  \"ringlet_time_ns\": {", out);
    for (unsigned g = 0; g < BENCH_GROUPS; g++) {
        if (!r->split[g].known)
            continue;
        fprintf(out, "%s\n    \"%s\": {", comma, bench_group_names[g]);
        bench_json_shares(&r->split[g], out);
        fputc('}', out);
        comma = ",";
    }
    fputs("},\n", out);
}

/* Per event of the row, because the absolute numbers say mostly how long it was repeated. */
static void bench_json_work(const struct bench_work *w, FILE *out)
{
    fprintf(out, ", \"events\": %.0f, \"time_ns\": {", w->units);
    bench_json_shares(&w->split, out);
    fprintf(out, ", \"host_kernel\": %.0f}, \"per_event\": {", w->host_kernel);
    for (unsigned i = 0; i < BENCH_COUNTS; i++)
        fprintf(out, "%s\"%s\": %.6g", i ? ", " : "", bench_count_names[i], w->count[i] / w->units);
    fputc('}', out);
}

static bool bench_json_figure(const struct bench_results *r, enum bench_figure f, unsigned row,
                              enum bench_engine e, FILE *out)
{
    const struct bench_cell *c = bench_figure_cell(r, f, row, e);
    double scale = bench_unit_scale(bench_rows[row].unit);
    struct bench_summary s;

    if (!bench_figure_summary(r, f, row, e, &s))
        return false;
    fprintf(out, "\"median\": %.9g, \"min\": %.9g, \"max\": %.9g, \"samples\": [", s.median, s.min, s.max);
    for (unsigned i = 0; i < c->n; i++)
        fprintf(out, "%s%.9g", i ? ", " : "", c->v[i] / scale);
    fputc(']', out);
    return true;
}

static void bench_json_cell(const struct bench_results *r, unsigned row, enum bench_engine e, FILE *out)
{
    const struct bench_cell *c = &r->cell[row][e];

    fprintf(out, "\"%s\": {", bench_engine_names[e]);
    if (bench_json_figure(r, BENCH_FIGURE, row, e, out)) {
        if (r->used[row][e].n) {
            fputs(", \"user\": {", out);
            bench_json_figure(r, BENCH_USER_TIME, row, e, out);
            fputc('}', out);
        }
        if (e < BENCH_RINGLETS && r->work[row][e].split.known)
            bench_json_work(&r->work[row][e], out);
        fputs(c->why[0] ? ", " : "", out);
    }
    if (c->why[0])
        bench_json_field(out, "failed", c->why, "");
    fputc('}', out);
}

/* By how much the subject is ahead of the others: on a row, or (row NULL) in a suite's mean. */
static void bench_json_ahead(const struct bench_results *r, enum bench_figure f, const unsigned *row,
                             enum bench_suite suite, FILE *out)
{
    enum bench_engine subject = bench_subject(r);
    const char *comma = "";

    fputc('{', out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++) {
        double ratio = !bench_compared(r, e) ? 0
                       : row                 ? bench_figure_speedup(r, f, *row, subject, e)
                                             : bench_figure_mean(r, f, suite, subject, e);

        if (ratio > 0) {
            fprintf(out, "%s\"%s\": %.4g", comma, bench_engine_names[e], ratio);
            comma = ", ";
        }
    }
    fputc('}', out);
}

static void bench_json_results(const struct bench_results *r, unsigned row, FILE *out)
{
    enum bench_suite suite = bench_rows[row].suite;
    const char *comma = "";

    fputs("\"results\": {", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (r->cell[row][e].n || r->cell[row][e].why[0]) {
            fputs(comma, out);
            bench_json_cell(r, row, e, out);
            comma = ", ";
        }
    fputs("}, \"ahead_of\": ", out);
    bench_json_ahead(r, BENCH_FIGURE, &row, suite, out);
    if (bench_suite_used(r, suite)) {
        fputs(", \"user_ahead_of\": ", out);
        bench_json_ahead(r, BENCH_USER_TIME, &row, suite, out);
    }
}

/* Geometric means, by suite. */
static void bench_json_means(const struct bench_results *r, enum bench_figure f, const char *name, FILE *out)
{
    const char *comma = "";

    fprintf(out, "  \"%s\": {", name);
    for (unsigned s = 0; s < BENCH_SUITES; s++) {
        if (!r->suite[s] || (f == BENCH_USER_TIME && !bench_suite_used(r, s)))
            continue;
        fprintf(out, "%s\"%s\": ", comma, bench_suite_names[s]);
        bench_json_ahead(r, f, NULL, s, out);
        comma = ", ";
    }
    fputs("},\n", out);
}

/* What the same row costs with more memory, over what it costs with less. */
static void bench_json_twins(const struct bench_results *r, unsigned row, FILE *out)
{
    const char *comma = "";

    if (!bench_rows[row].twin)
        return;
    fputs(", \"cost_to_linux\": {", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++) {
        double ratio = bench_twin_ratio(r, row, e);

        if (ratio > 0) {
            fprintf(out, "%s\"%s\": %.4g", comma, bench_engine_names[e], ratio);
            comma = ", ";
        }
    }
    fputc('}', out);
}

static void bench_json_policy(const struct bench_results *r, unsigned row, FILE *out)
{
    enum bench_engine better;
    double cost = bench_policy_cost(r, row, &better);

    if (cost > 0)
        fprintf(out, ", \"auto_cost\": {\"better\": \"%s\", \"ratio\": %.4g, \"spreads_overlap\": %s}",
                bench_engine_names[better], cost,
                bench_spreads_overlap(r, row, BENCH_AUTO, better) ? "true" : "false");
}

static void bench_json_row(const struct bench_results *r, unsigned row, FILE *out)
{
    const struct bench_row *b = &bench_rows[row];

    fputs("    {", out);
    bench_json_field(out, "suite", bench_suite_names[b->suite], ", ");
    bench_json_field(out, "name", b->name, ", ");
    bench_json_field(out, "what", b->what, ", ");
    bench_json_field(out, "unit", bench_unit_name(b->unit), ", ");
    bench_json_field(out, "better", b->better == BENCH_LOWER ? "lower" : "higher", ", ");
    if (b->series) {
        bench_json_field(out, "series", b->series, ", ");
        fprintf(out, "\"x\": %u, ", b->x);
    }
    bench_json_results(r, row, out);
    bench_json_twins(r, row, out);
    bench_json_policy(r, row, out);
    fputc('}', out);
}

static void bench_json_rises(const struct bench_results *r, FILE *out)
{
    const char *last = "", *comma = "";

    fputs("  \"largest_rise\": {", out);
    for (unsigned i = 0; i < bench_row_count; i++) {
        const char *series = bench_rows[i].series, *inner = "";

        if (!series || strcmp(series, last) == 0 || !bench_row_selected(r, i))
            continue;
        last = series;
        fprintf(out, "%s\"%s\": {", comma, series);
        comma = ", ";
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (bench_series_rise(r, series, e) > 0) {
                fprintf(out, "%s\"%s\": %.4g", inner, bench_engine_names[e], bench_series_rise(r, series, e));
                inner = ", ";
            }
        fputc('}', out);
    }
    fputs("},\n", out);
}

void bench_json_print(const struct bench_results *r, FILE *out)
{
    const char *comma = "";

    fputs("{\n  ", out);
    bench_json_field(out, "ringlet", r->version, ",\n  ");
    bench_json_field(out, "host", r->host, ",\n  ");
    bench_json_field(out, "date", r->date, ",\n");
    fprintf(out, "  \"load_per_cpu\": %.3g,\n", r->load);
    fprintf(out, "  \"rounds\": %u,\n  \"quick\": %s,\n  \"partial\": %s,\n  \"memory_mib\": %" PRIu64 ",\n",
            r->rounds, r->quick ? "true" : "false", r->partial ? "true" : "false", r->memory >> 20);
    bench_json_engines(r, out);
    fputs("  \"left_out\": [", out);
    for (unsigned i = 0; i < r->notes; i++) {
        fputs(i ? ", " : "", out);
        bench_json_string(out, r->note[i]);
    }
    fputs("],\n", out);
    bench_json_splits(r, out);
    bench_json_rises(r, out);
    bench_json_means(r, BENCH_FIGURE, "mean_ahead_of", out);
    bench_json_means(r, BENCH_USER_TIME, "mean_user_ahead_of", out);
    fputs("  \"rows\": [", out);
    for (unsigned i = 0; i < bench_row_count; i++)
        if (bench_row_selected(r, i)) {
            fprintf(out, "%s\n", comma);
            bench_json_row(r, i, out);
            comma = ",";
        }
    fputs("]\n}\n", out);
}
