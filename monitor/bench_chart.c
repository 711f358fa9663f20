/* The report's charts that compare engines: ratios, and cost over number. */
#include <math.h>
#include <string.h>
#include "bench_html.h"

enum { LABEL = 400, PLOT = 420, BAR = 14, SCALE_DECADES = 2 };

/* ---- Ratio bars: one per row and engine, right of the middle where ringlet is ahead, logarithmic ---- */

static double html_bar_end(double ratio)
{
    double at = log10(ratio) / SCALE_DECADES;

    at = at > 1 ? 1 : at < -1 ? -1 : at;
    return LABEL + PLOT / 2 * (1 + at);
}

static void html_bar(const struct bench_results *r, unsigned row, enum bench_engine e, unsigned y, FILE *out)
{
    double ratio = bench_speedup(r, row, bench_subject(r), e), middle = html_bar_end(1), end;
    char number[32];

    if (ratio <= 0)
        return;
    end = html_bar_end(ratio);
    fprintf(out, "<rect class=\"e%u\" x=\"%.1f\" y=\"%u\" width=\"%.1f\" height=\"%d\"/>", e,
            ratio >= 1 ? middle : end, y, fabs(end - middle), BAR - 3);
    fprintf(out, "<text x=\"%d\" y=\"%u\">%sx of %s</text>\n", LABEL + PLOT + 8, y + BAR - 4,
            bench_number(ratio, number), bench_engine_names[e]);
}

static void html_grid(unsigned height, FILE *out)
{
    static const double lines[] = {0.01, 0.1, 1, 10, 100};

    for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        fprintf(out,
                "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"16\" y2=\"%u\" class=\"%s\"/>"
                "<text x=\"%.1f\" y=\"12\" text-anchor=\"middle\">%gx</text>\n",
                html_bar_end(lines[i]), html_bar_end(lines[i]), height, lines[i] == 1 ? "axis" : "grid",
                html_bar_end(lines[i]), lines[i]);
}

static bool html_bar_row(const struct bench_results *r, unsigned row, enum bench_suite suite)
{
    return bench_rows[row].suite == suite && bench_row_selected(r, row);
}

static bool html_bar_wanted(const struct bench_results *r, enum bench_suite suite, unsigned e)
{
    return bench_compared(r, e) && bench_suite_speedup(r, suite, bench_subject(r), e) > 0;
}

void html_bars(const struct bench_results *r, enum bench_suite suite, FILE *out)
{
    unsigned bars = 0, rows = 0, y = 20;

    for (unsigned i = 0; i < bench_row_count; i++)
        if (html_bar_row(r, i, suite)) {
            rows++;
            for (unsigned e = 0; e < BENCH_ENGINES; e++)
                bars += html_bar_wanted(r, suite, e);
        }
    if (!bars)
        return;
    fprintf(out, "<svg viewBox=\"0 0 %d %u\" width=\"%d\" role=\"img\">\n", LABEL + PLOT + 190,
            24 + bars * BAR + rows * 6, LABEL + PLOT + 190);
    html_grid(20 + bars * BAR + rows * 6, out);
    for (unsigned i = 0; i < bench_row_count; i++) {
        if (!html_bar_row(r, i, suite))
            continue;
        fprintf(out, "<text x=\"0\" y=\"%u\">", y + BAR - 4);
        html_text(out, bench_rows[i].what);
        fputs("</text>\n", out);
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (html_bar_wanted(r, suite, e)) {
                html_bar(r, i, e, y, out);
                y += BAR;
            }
        y += 6;
    }
    fputs("</svg>\n", out);
}

/* ---- Growth: the cost of a unit over their number, a line per engine, both axes logarithmic ---- */

struct html_axes {
    double x0, x1, y0, y1; /* logarithms */
};
enum { GROWTH_WIDTH = 560, GROWTH_HEIGHT = 220, GROWTH_LEFT = 70, GROWTH_BOTTOM = 30 };

static bool html_in_series(const struct bench_results *r, unsigned row, const char *series)
{
    return bench_rows[row].series && strcmp(bench_rows[row].series, series) == 0 &&
           bench_row_selected(r, row);
}

static bool html_axes(const struct bench_results *r, const char *series, struct html_axes *a)
{
    struct bench_summary s;
    bool any = false;

    *a = (struct html_axes){1e9, -1e9, 1e9, -1e9};
    for (unsigned i = 0; i < bench_row_count; i++)
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (html_in_series(r, i, series) && bench_cell_summary(r, i, e, &s) && s.median > 0) {
                any = true;
                a->x0 = fmin(a->x0, log2(bench_rows[i].x));
                a->x1 = fmax(a->x1, log2(bench_rows[i].x));
                a->y0 = fmin(a->y0, log2(s.median));
                a->y1 = fmax(a->y1, log2(s.median));
            }
    a->x1 = fmax(a->x1, a->x0 + 1);
    a->y0 -= 0.5;
    a->y1 += 0.5;
    return any;
}

static double html_growth_x(const struct html_axes *a, double x)
{
    return GROWTH_LEFT + (log2(x) - a->x0) / (a->x1 - a->x0) * (GROWTH_WIDTH - GROWTH_LEFT - 60);
}

static double html_growth_y(const struct html_axes *a, double y)
{
    return 10 + (a->y1 - log2(y)) / (a->y1 - a->y0) * (GROWTH_HEIGHT - GROWTH_BOTTOM - 10);
}

static void html_growth_line(const struct bench_results *r, const char *series, const struct html_axes *a,
                             enum bench_engine e, FILE *out)
{
    double last_x = 0, last_y = 0;
    struct bench_summary s;

    fprintf(out, "<polyline class=\"curve e%u\" points=\"", e);
    for (unsigned i = 0; i < bench_row_count; i++)
        if (html_in_series(r, i, series) && bench_cell_summary(r, i, e, &s) && s.median > 0) {
            last_x = html_growth_x(a, bench_rows[i].x);
            last_y = html_growth_y(a, s.median);
            fprintf(out, "%.1f,%.1f ", last_x, last_y);
        }
    fprintf(out, "\"/><text x=\"%.1f\" y=\"%.1f\">%s</text>\n", last_x + 5, last_y + 4,
            bench_engine_names[e]);
}

static void html_growth_axes(const struct bench_results *r, const char *series, const struct html_axes *a,
                             FILE *out)
{
    const double values[] = {exp2(a->y0 + 0.5), exp2(a->y1 - 0.5)};
    char number[32];

    for (unsigned i = 0; i < 2; i++)
        fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n", GROWTH_LEFT - 6,
                html_growth_y(a, values[i]) + 4, bench_number(values[i], number));
    for (unsigned i = 0; i < bench_row_count; i++)
        if (html_in_series(r, i, series) && log2(bench_rows[i].x) <= a->x1)
            fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%u</text>\n",
                    html_growth_x(a, bench_rows[i].x), GROWTH_HEIGHT - 10, bench_rows[i].x);
    fprintf(out, "<path d=\"M%d 10V%dH%d\" class=\"axis\"/>\n", GROWTH_LEFT, GROWTH_HEIGHT - GROWTH_BOTTOM,
            GROWTH_WIDTH - 50);
}

static void html_growth(const struct bench_results *r, unsigned first, FILE *out)
{
    const char *series = bench_rows[first].series;
    struct bench_summary s;
    struct html_axes a;
    char title[160];

    if (!html_axes(r, series, &a))
        return;
    snprintf(title, sizeof(title), "%s: %s (the same for all points)", series,
             bench_unit_name(bench_rows[first].unit));
    html_element(out, "h3", title);
    fprintf(out, "<svg width=\"%d\" height=\"%d\" role=\"img\">\n", GROWTH_WIDTH, GROWTH_HEIGHT);
    html_growth_axes(r, series, &a, out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        for (unsigned i = 0; i < bench_row_count; i++)
            if (html_in_series(r, i, series) && bench_cell_summary(r, i, e, &s) && s.median > 0) {
                html_growth_line(r, series, &a, e, out);
                break;
            }
    fputs("</svg>\n", out);
}

void html_growths(const struct bench_results *r, FILE *out)
{
    const char *last = "";

    for (unsigned i = 0; i < bench_row_count; i++)
        if (bench_rows[i].series && strcmp(bench_rows[i].series, last) != 0) {
            last = bench_rows[i].series;
            html_growth(r, i, out);
        }
}
