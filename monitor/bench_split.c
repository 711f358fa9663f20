/* The report's answer to "where did ringlet's time go": shares of time as bars, and what one event cost. */
#include <string.h>
#include "bench_html.h"

enum { SPLIT_LEFT = 90, SPLIT_WIDTH = 820, SPLIT_BAR = 20, ROW_WIDTH = 180, ROW_BAR = 14 };

struct split_place {
    double x, width;
    unsigned y, height;
    double least_named; /* shares of at least this much have their name in the bar */
};

static double split_total(const struct bench_split *s)
{
    double total = 0;

    for (unsigned i = 0; i < BENCH_SHARES; i++)
        total += s->ns[i];
    return total;
}

static void split_bar(const struct bench_split *s, const struct split_place *p, FILE *out)
{
    double total = split_total(s), x = p->x;

    for (unsigned i = 0; i < BENCH_SHARES && total > 0; i++) {
        double share = s->ns[i] / total, width = share * p->width;

        if (width < 0.05)
            continue;
        fprintf(out, "<rect class=\"s%u\" x=\"%.1f\" y=\"%u\" width=\"%.1f\" height=\"%u\"/>", i, x, p->y,
                width, p->height);
        if (share >= p->least_named)
            fprintf(out, "<text class=\"in\" x=\"%.1f\" y=\"%u\">%s %.0f%%</text>", x + 4,
                    p->y + p->height * 3 / 4, bench_share_names[i], share * 100);
        x += width;
    }
}

static void split_key(FILE *out)
{
    fputs("<p class=\"note\">", out);
    for (unsigned i = 0; i < BENCH_SHARES; i++)
        fprintf(out, "<span class=\"key s%u\"></span>%s", i, bench_share_names[i]);
    fputs(". Time in the host's kernel (calls, signals, page faults) is part of whichever share caused "
          "it.</p>\n",
          out);
}

void html_splits(const struct bench_results *r, FILE *out)
{
    unsigned y = 4, bars = 0;

    for (unsigned g = 0; g < BENCH_GROUPS; g++)
        bars += r->split[g].known;
    if (!bars)
        return;
    html_element(out, "h2", "Where ringlet's time went, last round");
    split_key(out);
    fprintf(out, "<svg viewBox=\"0 0 %d %u\" width=\"%d\" role=\"img\">\n", SPLIT_LEFT + SPLIT_WIDTH + 90,
            bars * 26 + 4, SPLIT_LEFT + SPLIT_WIDTH + 90);
    for (unsigned g = 0; g < BENCH_GROUPS; g++)
        if (r->split[g].known) {
            struct split_place p = {SPLIT_LEFT, SPLIT_WIDTH, y, SPLIT_BAR, 0.09};

            fprintf(out, "<text x=\"0\" y=\"%u\">%s</text>", y + 15, bench_group_names[g]);
            split_bar(&r->split[g], &p, out);
            fprintf(out, "<text x=\"%d\" y=\"%u\">%.2f s</text>\n", SPLIT_LEFT + SPLIT_WIDTH + 8, y + 15,
                    split_total(&r->split[g]) / 1e9);
            y += 26;
        }
    fputs("</svg>\n", out);
}

/* ---- Row by row ---- */

static void work_number_cell(double v, FILE *out)
{
    char number[32];

    if (v <= 0)
        fputs("<td class=\"spread\">0</td>", out);
    else if (v < 0.01)
        fputs("<td class=\"spread\">&lt;0.01</td>", out);
    else
        fprintf(out, "<td>%s</td>", bench_number(v, number));
}

/* What never happened in the whole suite gets no column. */
static bool work_counted(const struct bench_results *r, enum bench_suite suite, unsigned count)
{
    for (unsigned i = 0; i < bench_row_count; i++)
        if (bench_rows[i].suite == suite && r->work[i][bench_subject(r)].count[count] > 0)
            return true;
    return false;
}

static void work_row(const struct bench_results *r, unsigned row, FILE *out)
{
    const struct bench_work *w = &r->work[row][bench_subject(r)];
    struct split_place p = {0, ROW_WIDTH, 0, ROW_BAR, 2};
    double total = split_total(&w->split), host = total > 0 ? w->host_kernel / total : 0;

    host = host > 1 ? 1 : host; /* the host samples it: of a short row it can be more than there was */
    fputs("<tr>", out);
    html_element(out, "td", bench_rows[row].name);
    fprintf(out, "<td><svg width=\"%d\" height=\"%d\" role=\"img\">", ROW_WIDTH, ROW_BAR);
    split_bar(&w->split, &p, out);
    fprintf(out, "</svg></td><td>%.0f%%</td>", host * 100);
    for (unsigned i = 0; i < BENCH_COUNTS; i++)
        if (work_counted(r, bench_rows[row].suite, i))
            work_number_cell(w->count[i] / w->units, out);
    fputs("</tr>\n", out);
}

static void work_head(const struct bench_results *r, enum bench_suite suite, FILE *out)
{
    fputs("<div class=\"wide\"><table class=\"work\"><tr><th>row</th><th>time</th><th>in the host's "
          "kernel</th>",
          out);
    for (unsigned i = 0; i < BENCH_COUNTS; i++) {
        if (!work_counted(r, suite, i))
            continue;
        fputs("<th>", out);
        for (const char *c = bench_count_names[i]; *c; c++)
            fputc(*c == '_' ? ' ' : *c, out);
        fputs("</th>", out);
    }
    fputs("</tr>\n", out);
}

void html_work(const struct bench_results *r, enum bench_suite suite, FILE *out)
{
    enum bench_engine subject = bench_subject(r);
    bool any = false;

    for (unsigned i = 0; i < bench_row_count; i++) {
        const struct bench_work *w = subject < BENCH_RINGLETS ? &r->work[i][subject] : NULL;

        if (!w || bench_rows[i].suite != suite || !w->split.known)
            continue;
        if (!any) {
            fprintf(out,
                    "<details open><summary>Where ringlet's time went row by row, and what one event cost "
                    "(last round, %s)</summary>\n",
                    suite == BENCH_APPS ? "one run is one event" : "set-up included");
            split_key(out);
            work_head(r, suite, out);
        }
        any = true;
        work_row(r, i, out);
    }
    if (any)
        fputs("</table></div></details>\n", out);
}
