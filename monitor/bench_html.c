/* The results as one HTML page that needs nothing else: charts are inline SVG. */
#include <math.h>
#include <string.h>
#include "bench.h"

enum { LABEL = 380, PLOT = 420, BAR = 14, SCALE_DECADES = 2, SPLIT_LEFT = 90, SPLIT_WIDTH = 800 };

static const char *const engine_colours[BENCH_ENGINES] = {"#2266cc", "#22aacc", "#6688dd",
                                                          "#d08020", "#8844aa", "#448844"};

static const char html_head[] =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ringlet bench</title>\n<style>\n"
    "body{font:14px sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222;background:#fff}\n"
    "table{border-collapse:collapse}td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}\n"
    "td:first-child,th:first-child{text-align:left}.spread{color:#888;font-size:85%}\n"
    ".ahead{color:#186a18}.behind{color:#b02010}.partial{color:#b02010;font-weight:bold}\n"
    "svg text{font:12px sans-serif;fill:#222}\n</style></head><body>\n<h1>ringlet bench</h1>\n";

static void html_text(FILE *out, const char *text)
{
    for (; *text; text++)
        switch (*text) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        default:
            fputc(*text, out);
        }
}

static void html_element(FILE *out, const char *tag, const char *text)
{
    fprintf(out, "<%s>", tag);
    html_text(out, text);
    fprintf(out, "</%.*s>\n", (int)strcspn(tag, " "), tag);
}

/* ---- Tables ---- */

static void html_figure(const struct bench_results *r, unsigned row, enum bench_engine e, FILE *out)
{
    char median[32], min[32], max[32];
    struct bench_summary s;

    fputs("<td>", out);
    if (!bench_cell_summary(r, row, e, &s))
        html_text(out, r->cell[row][e].why[0] ? "failed" : "-");
    else if (r->cell[row][e].n == 1)
        fputs(bench_number(s.median, median), out);
    else
        fprintf(out, "%s <span class=\"spread\">%s..%s</span>", bench_number(s.median, median),
                bench_number(s.min, min), bench_number(s.max, max));
    fputs("</td>", out);
}

static void html_ratio(double ratio, FILE *out)
{
    char number[32];

    if (ratio > 0)
        fprintf(out, "<td class=\"%s\">%sx</td>", ratio >= 1 ? "ahead" : "behind",
                bench_number(ratio, number));
    else
        fputs("<td>-</td>", out);
}

static void html_table_head(const struct bench_results *r, FILE *out)
{
    fputs("<table><tr><th>row</th><th>unit</th>", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (r->engine[e].here)
            html_element(out, "th", bench_engine_names[e]);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_compared(r, e))
            fprintf(out, "<th>to %s</th>", bench_engine_names[e]);
    fputs("</tr>\n", out);
}

static void html_table(const struct bench_results *r, enum bench_suite suite, FILE *out)
{
    html_table_head(r, out);
    for (unsigned i = 0; i < bench_row_count; i++) {
        if (bench_rows[i].suite != suite || !bench_row_selected(r, i))
            continue;
        fputs("<tr>", out);
        html_element(out, "td", bench_rows[i].what);
        html_element(out, "td", bench_unit_name(bench_rows[i].unit));
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (r->engine[e].here)
                html_figure(r, i, e, out);
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (bench_compared(r, e))
                html_ratio(bench_speedup(r, i, bench_subject(r), e), out);
        fputs("</tr>\n", out);
    }
    fputs("<tr><td>geometric mean</td><td></td>", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (r->engine[e].here)
            fputs("<td></td>", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_compared(r, e))
            html_ratio(bench_suite_speedup(r, suite, bench_subject(r), e), out);
    fputs("</tr></table>\n", out);
}

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
    fprintf(out, "<rect x=\"%.1f\" y=\"%u\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>",
            ratio >= 1 ? middle : end, y, fabs(end - middle), BAR - 3, engine_colours[e]);
    fprintf(out, "<text x=\"%d\" y=\"%u\">%sx %s</text>\n", LABEL + PLOT + 8, y + BAR - 4,
            bench_number(ratio, number), bench_engine_names[e]);
}

static void html_grid(unsigned height, FILE *out)
{
    static const double lines[] = {0.01, 0.1, 1, 10, 100};

    for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        fprintf(out,
                "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"16\" y2=\"%u\" stroke=\"%s\"/>"
                "<text x=\"%.1f\" y=\"12\" text-anchor=\"middle\">%gx</text>\n",
                html_bar_end(lines[i]), html_bar_end(lines[i]), height, lines[i] == 1 ? "#222" : "#ccc",
                html_bar_end(lines[i]), lines[i]);
}

static void html_bars(const struct bench_results *r, enum bench_suite suite, FILE *out)
{
    unsigned compared = 0, rows = 0, y = 20;

    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        compared += bench_compared(r, e);
    for (unsigned i = 0; i < bench_row_count; i++)
        rows += bench_rows[i].suite == suite && bench_row_selected(r, i);
    if (!compared)
        return;
    fprintf(out, "<svg width=\"%d\" height=\"%u\" role=\"img\">\n", LABEL + PLOT + 140,
            24 + rows * (compared * BAR + 6));
    html_grid(20 + rows * (compared * BAR + 6), out);
    for (unsigned i = 0; i < bench_row_count; i++) {
        if (bench_rows[i].suite != suite || !bench_row_selected(r, i))
            continue;
        fprintf(out, "<text x=\"0\" y=\"%u\">", y + BAR - 4);
        html_text(out, bench_rows[i].what);
        fputs("</text>\n", out);
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (bench_compared(r, e)) {
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

    fprintf(out, "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"%s\" points=\"", engine_colours[e]);
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
    fprintf(out, "<path d=\"M%d 10V%dH%d\" fill=\"none\" stroke=\"#222\"/>\n", GROWTH_LEFT,
            GROWTH_HEIGHT - GROWTH_BOTTOM, GROWTH_WIDTH - 50);
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

static void html_growths(const struct bench_results *r, FILE *out)
{
    const char *last = "";

    for (unsigned i = 0; i < bench_row_count; i++)
        if (bench_rows[i].series && strcmp(bench_rows[i].series, last) != 0) {
            last = bench_rows[i].series;
            html_growth(r, i, out);
        }
}

/* ---- Where ringlet's time went: one bar per job ---- */

static void html_split_bar(const struct bench_split *s, unsigned y, FILE *out)
{
    static const char *const colours[BENCH_SHARES] = {"#448844", "#2266cc", "#c04030", "#d08020", "#bbbbbb"};
    double total = 0, x = SPLIT_LEFT;

    for (unsigned i = 0; i < BENCH_SHARES; i++)
        total += s->ns[i];
    for (unsigned i = 0; i < BENCH_SHARES && total > 0; i++) {
        double width = s->ns[i] / total * SPLIT_WIDTH;

        fprintf(out, "<rect x=\"%.1f\" y=\"%u\" width=\"%.1f\" height=\"20\" fill=\"%s\"/>", x, y, width,
                colours[i]);
        if (s->ns[i] >= total / 20)
            fprintf(out, "<text x=\"%.1f\" y=\"%u\" style=\"fill:#fff\">%s %.0f%%</text>", x + 4, y + 14,
                    bench_share_names[i], s->ns[i] / total * 100);
        x += width;
    }
    fprintf(out, "<text x=\"%d\" y=\"%u\">%.2f s</text>\n", SPLIT_LEFT + SPLIT_WIDTH + 8, y + 14,
            total / 1e9);
}

static void html_splits(const struct bench_results *r, FILE *out)
{
    unsigned y = 4, bars = 0;

    for (unsigned g = 0; g < BENCH_GROUPS; g++)
        bars += r->split[g].known;
    if (!bars)
        return;
    html_element(out, "h2", "Where ringlet's time went, last round");
    fprintf(out, "<svg width=\"%d\" height=\"%u\" role=\"img\">\n", SPLIT_LEFT + SPLIT_WIDTH + 100,
            bars * 26 + 4);
    for (unsigned g = 0; g < BENCH_GROUPS; g++)
        if (r->split[g].known) {
            fprintf(out, "<text x=\"0\" y=\"%u\">%s</text>", y + 14, bench_group_names[g]);
            html_split_bar(&r->split[g], y, out);
            y += 26;
        }
    fputs("</svg>\n", out);
}

/* ---- The page ---- */

static void html_intro(const struct bench_results *r, FILE *out)
{
    char line[256];

    fputs(html_head, out);
    html_element(out, "p", r->host);
    snprintf(line, sizeof(line),
             "%s; ringlet %s; %u rounds%s; Linux guests with %u MiB. Figures are medians, with the "
             "least and the most of all rounds.",
             r->date, r->version, r->rounds, r->quick ? ", quick" : "", (unsigned)(r->memory >> 20));
    html_element(out, "p", line);
    html_element(out, "p", "Ratios compare ringlet with each other engine: above 1, ringlet is ahead.");
    if (r->partial)
        fputs("<p class=\"partial\">Partial: the run was interrupted.</p>\n", out);
}

static void html_missing(const struct bench_results *r, FILE *out)
{
    char line[BENCH_WHY + 128];

    html_element(out, "h2", "Engines, and what is missing");
    fputs("<ul>\n", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (r->engine[e].wanted) {
            snprintf(line, sizeof(line), "%s: %s%s", bench_engine_names[e],
                     r->engine[e].here ? "" : "left out: ", r->engine[e].note);
            html_element(out, "li", line);
        }
    for (unsigned i = 0; i < r->notes; i++)
        html_element(out, "li", r->note[i]);
    for (unsigned i = 0; i < bench_row_count; i++)
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (r->cell[i][e].why[0]) {
                snprintf(line, sizeof(line), "%s, %s: %s", bench_engine_names[e], bench_rows[i].name,
                         r->cell[i][e].why);
                html_element(out, "li", line);
            }
    fputs("</ul>\n", out);
}

void bench_html_print(const struct bench_results *r, FILE *out)
{
    html_intro(r, out);
    for (unsigned s = 0; s < BENCH_SUITES; s++)
        if (r->suite[s]) {
            html_element(out, "h2", bench_suite_names[s]);
            html_bars(r, s, out);
            html_table(r, s, out);
            if (s == BENCH_SCALE)
                html_growths(r, out);
        }
    html_splits(r, out);
    html_missing(r, out);
    fputs("</body></html>\n", out);
}
