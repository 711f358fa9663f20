/* The results as one HTML page that needs nothing else: style inline, charts as SVG, light or dark as the reader has it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "bench_html.h"

/* e0...: engines, s0...: shares of time; the order of their enums. Colours that differ in lightness too. */
static const char html_head[] =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>ringlet bench</title>\n"
    "<meta name=\"viewport\" content=\"width=device-width\">\n<style>\n"
    ":root{color-scheme:light "
    "dark;--fg:#1c1c1c;--bg:#fff;--faint:#6a6a6a;--line:#d8d8d8;--good:#146414;--bad:#b3200c}\n"
    "@media(prefers-color-scheme:dark){:root{--fg:#e4e4e4;--bg:#17181a;--faint:#9a9a9a;--line:#3a3c40;"
    "--good:#6fce6f;--bad:#ff8068}}\n"
    "body{font:14px/1.45 sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:var(--fg);"
    "background:var(--bg)}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}\n"
    "td,th{padding:2px 9px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}\n"
    "td:first-child,th:first-child{text-align:left;white-space:normal}tr:last-child td{border-bottom:0}\n"
    "h2{margin-top:2.2em;border-bottom:2px solid var(--line)}.wide{overflow-x:auto}\n"
    ".spread,.note{color:var(--faint);font-size:88%}.ahead{color:var(--good)}.behind{color:var(--bad)}\n"
    ".partial{color:var(--bad);font-weight:bold}summary{cursor:pointer;margin:.8em 0}\n"
    "svg{display:block;max-width:100%;height:auto}svg text{font:12px sans-serif;fill:var(--fg)}"
    "svg .in{fill:#fff}.work td,.work th{padding:2px 5px;font-size:88%}.work th{white-space:normal;"
    "vertical-align:bottom}.work svg{max-width:none}\n"
    ".grid{stroke:var(--line)}.axis{stroke:var(--fg);fill:none}.curve{fill:none;stroke-width:2}\n"
    ".e0{--c:#2f74d0}.e1{--c:#0b7f6f}.e2{--c:#15a0b8}.e3{--c:#8aa4ee}.e4{--c:#d98a1f}.e5{--c:#9c59c2}.e6{--c:"
    "#4f9a4f}\n"
    ".s0{--c:#3f8f3f}.s1{--c:#15a0b8}.s2{--c:#2f74d0}.s3{--c:#c4462f}.s4{--c:#b5821b}.s5{--c:#8b8b8b}\n"
    "rect,.key{fill:var(--c)}.curve{stroke:var(--c)}.key{display:inline-block;width:.8em;height:.8em;"
    "background:var(--c);margin:0 .3em 0 1em}\n"
    "</style></head><body>\n<h1>ringlet bench</h1>\n";

void html_text(FILE *out, const char *text)
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

void html_element(FILE *out, const char *tag, const char *text)
{
    fprintf(out, "<%s>", tag);
    html_text(out, text);
    fprintf(out, "</%.*s>\n", (int)strcspn(tag, " "), tag);
}

/* ---- Tables ---- */

static void html_figure(const struct bench_results *r, enum bench_figure f, unsigned row, enum bench_engine e,
                        FILE *out)
{
    char median[32], min[32], max[32];
    struct bench_summary s;

    fputs("<td>", out);
    if (!bench_figure_summary(r, f, row, e, &s))
        html_text(out, r->cell[row][e].why[0] ? "failed" : "-");
    else if (bench_figure_cell(r, f, row, e)->n == 1)
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

/* The column that shows what 2 GiB cost over less. */
static bool html_has_twins(const struct bench_results *r, enum bench_suite suite)
{
    return suite == BENCH_LINUX_2G && r->suite[BENCH_LINUX] && bench_subject(r) < BENCH_ENGINES;
}

static void html_table_head(const struct bench_results *r, enum bench_suite suite, FILE *out)
{
    fputs("<div class=\"wide\"><table><tr><th>row</th><th>unit</th>", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_suite_has(r, suite, e))
            html_element(out, "th", bench_engine_names[e]);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_compared(r, e) && bench_suite_has(r, suite, e))
            fprintf(out, "<th>to %s</th>", bench_engine_names[e]);
    if (html_has_twins(r, suite))
        fprintf(out, "<th>cost over %u MiB</th>", (unsigned)(r->memory >> 20));
    fputs("</tr>\n", out);
}

/* Here less is better: the goal is 1.3 at most. */
static void html_twin(const struct bench_results *r, unsigned row, FILE *out)
{
    double ratio = bench_twin_ratio(r, row, bench_subject(r));
    char number[32];

    if (ratio > 0)
        fprintf(out, "<td class=\"%s\">%sx</td>", ratio <= BENCH_TWIN_GOAL ? "ahead" : "behind",
                bench_number(ratio, number));
    else
        fputs("<td>-</td>", out);
}

static void html_table(const struct bench_results *r, enum bench_figure f, enum bench_suite suite, FILE *out)
{
    html_table_head(r, suite, out);
    for (unsigned i = 0; i < bench_row_count; i++) {
        if (bench_rows[i].suite != suite || !bench_row_selected(r, i))
            continue;
        fputs("<tr>", out);
        html_element(out, "td", bench_rows[i].what);
        html_element(out, "td", bench_unit_name(bench_rows[i].unit));
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (bench_suite_has(r, suite, e))
                html_figure(r, f, i, e, out);
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (bench_compared(r, e) && bench_suite_has(r, suite, e))
                html_ratio(bench_figure_speedup(r, f, i, bench_subject(r), e), out);
        if (html_has_twins(r, suite))
            html_twin(r, i, out);
        fputs("</tr>\n", out);
    }
    fputs("<tr><td>geometric mean</td><td></td>", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_suite_has(r, suite, e))
            fputs("<td></td>", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_compared(r, e) && bench_suite_has(r, suite, e))
            html_ratio(bench_figure_mean(r, f, suite, bench_subject(r), e), out);
    fputs(html_has_twins(r, suite) ? "<td></td></tr></table></div>\n" : "</tr></table></div>\n", out);
}

/* ---- The page ---- */

static void html_intro(const struct bench_results *r, FILE *out)
{
    char line[256];

    fputs(html_head, out);
    html_element(out, "p", r->host);
    snprintf(line, sizeof(line),
             "%s; ringlet %s; %u round%s%s; Linux guests with %u MiB. Figures are medians, with the "
             "least and the most of all rounds.",
             r->date, r->version, r->rounds, r->rounds == 1 ? "" : "s", r->quick ? ", quick" : "",
             (unsigned)(r->memory >> 20));
    html_element(out, "p", line);
    html_element(out, "p", "Ratios compare ringlet with each other engine: above 1, ringlet is ahead.");
    if (bench_host_busy(r))
        fprintf(out,
                "<p class=\"partial\">The host was busy: before the run %.1f programs wanted each of its "
                "CPUs.</p>\n",
                r->load);
    if (r->partial)
        fputs("<p class=\"partial\">Partial: the run was interrupted.</p>\n", out);
}

static void html_mean(const struct bench_results *r, enum bench_figure f, enum bench_suite suite, FILE *out)
{
    fprintf(out, "<tr><td>%s%s</td>", bench_suite_names[suite], f == BENCH_USER_TIME ? ", user time" : "");
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_compared(r, e))
            html_ratio(bench_figure_mean(r, f, suite, bench_subject(r), e), out);
    fputs("</tr>\n", out);
}

/* All suites on one screen. */
static void html_means(const struct bench_results *r, FILE *out)
{
    if (bench_subject(r) == BENCH_ENGINES)
        return;
    html_element(out, "h2", "Geometric means of ratios");
    fputs("<table><tr><th>suite</th>", out);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (bench_compared(r, e))
            fprintf(out, "<th>to %s</th>", bench_engine_names[e]);
    fputs("</tr>\n", out);
    for (unsigned s = 0; s < BENCH_SUITES; s++) {
        if (!r->suite[s])
            continue;
        html_mean(r, BENCH_FIGURE, s, out);
        if (bench_suite_used(r, s))
            html_mean(r, BENCH_USER_TIME, s, out);
    }
    fputs("</table>\n", out);
}

static void html_policy(const struct bench_results *r, FILE *out)
{
    char *text = NULL;
    size_t length;
    FILE *f = open_memstream(&text, &length);

    if (!f)
        return;
    bench_policy_print(r, f);
    if (fclose(f) == 0 && length) {
        html_element(out, "h2", "Policy auto");
        html_element(out, "pre", text);
    }
    free(text);
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
    html_means(r, out);
    for (unsigned s = 0; s < BENCH_SUITES; s++)
        if (r->suite[s]) {
            html_element(out, "h2", bench_suite_names[s]);
            html_bars(r, s, out);
            html_table(r, BENCH_FIGURE, s, out);
            if (bench_suite_used(r, s)) {
                html_element(out, "h3", "User time of the same runs (where the figure is a rate: that)");
                html_table(r, BENCH_USER_TIME, s, out);
            }
            if (s == BENCH_SCALE)
                html_growths(r, out);
            html_work(r, s, out);
        }
    html_policy(r, out);
    html_splits(r, out);
    html_missing(r, out);
    fputs("</body></html>\n", out);
}
