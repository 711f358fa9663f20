/* bench_html: parts of the HTML report, shared by bench_html.c (the page, tables), bench_chart.c (ratios, growth) and
 * bench_split.c (where ringlet's time went). */
#ifndef MONITOR_BENCH_HTML_H
#define MONITOR_BENCH_HTML_H

#include "bench.h"

/* Text with what HTML would take for its own written as entities. */
void html_text(FILE *out, const char *text);
/* "<tag>text</tag>"; tag may carry attributes. */
void html_element(FILE *out, const char *tag, const char *text);

/* Ratios of the suite's rows as bars: right of the middle where ringlet is ahead, logarithmic. */
void html_bars(const struct bench_results *r, enum bench_suite suite, FILE *out);
/* The cost of one over their number, a curve per engine, for each series. */
void html_growths(const struct bench_results *r, FILE *out);
/* Where ringlet's time went: a bar per job; and for a suite, row by row with what one event cost. */
void html_splits(const struct bench_results *r, FILE *out);
void html_work(const struct bench_results *r, enum bench_suite suite, FILE *out);

#endif
