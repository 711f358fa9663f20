/* The results as JSON: one object, figures in each row's unit. */
#include <inttypes.h>
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

static void bench_json_splits(const struct bench_results *r, FILE *out)
{
    const char *comma = "";

    fputs("  \"ringlet_time_ns\": {", out);
    for (unsigned g = 0; g < BENCH_GROUPS; g++) {
        if (!r->split[g].known)
            continue;
        fprintf(out, "%s\n    \"%s\": {", comma, bench_group_names[g]);
        for (unsigned i = 0; i < BENCH_SHARES; i++)
            fprintf(out, "%s\"%s\": %.0f", i ? ", " : "", bench_share_names[i], r->split[g].ns[i]);
        fputc('}', out);
        comma = ",";
    }
    fputs("},\n", out);
}

static void bench_json_cell(const struct bench_results *r, unsigned row, enum bench_engine e, FILE *out)
{
    const struct bench_cell *c = &r->cell[row][e];
    double scale = bench_unit_scale(bench_rows[row].unit);
    struct bench_summary s;

    fprintf(out, "\"%s\": {", bench_engine_names[e]);
    if (bench_cell_summary(r, row, e, &s)) {
        fprintf(out, "\"median\": %.9g, \"min\": %.9g, \"max\": %.9g, \"samples\": [", s.median, s.min,
                s.max);
        for (unsigned i = 0; i < c->n; i++)
            fprintf(out, "%s%.9g", i ? ", " : "", c->v[i] / scale);
        fputs(c->why[0] ? "], " : "]", out);
    }
    if (c->why[0])
        bench_json_field(out, "failed", c->why, "");
    fputc('}', out);
}

static void bench_json_results(const struct bench_results *r, unsigned row, FILE *out)
{
    const char *comma = "";

    fputs("\"results\": {", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (r->cell[row][e].n || r->cell[row][e].why[0]) {
            fputs(comma, out);
            bench_json_cell(r, row, e, out);
            comma = ", ";
        }
    fputs("}, \"ahead_of\": {", out);
    comma = "";
    for (unsigned e = BENCH_RINGLET + 1; e < BENCH_ENGINES; e++) {
        double ratio = bench_speedup(r, row, BENCH_RINGLET, e);

        if (ratio > 0) {
            fprintf(out, "%s\"%s\": %.4g", comma, bench_engine_names[e], ratio);
            comma = ", ";
        }
    }
    fputs("}", out);
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
    fputc('}', out);
}

void bench_json_print(const struct bench_results *r, FILE *out)
{
    const char *comma = "";

    fputs("{\n  ", out);
    bench_json_field(out, "ringlet", r->version, ",\n  ");
    bench_json_field(out, "host", r->host, ",\n  ");
    bench_json_field(out, "date", r->date, ",\n");
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
    fputs("  \"rows\": [", out);
    for (unsigned i = 0; i < bench_row_count; i++)
        if (bench_row_selected(r, i)) {
            fprintf(out, "%s\n", comma);
            bench_json_row(r, i, out);
            comma = ",";
        }
    fputs("]\n}\n", out);
}
