/* Rows, samples, and what follows from them. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "bench.h"

const struct bench_row bench_rows[] = {
#define ROW(suite, name, what, unit, better, flags)                                                          \
    {BENCH_##suite, #name, what, BENCH_##unit, BENCH_##better, flags, NULL, 0, 0, NULL},
#define LINUX(name, what, unit, better, flags)                                                               \
    {BENCH_LINUX, #name, what, BENCH_##unit, BENCH_##better, flags, NULL, 0, 0, NULL},                       \
        {BENCH_LINUX_2G, #name "_2g", what, BENCH_##unit, BENCH_##better, flags, NULL, 0, 0, #name},
#define POINT(series, x, what, unit, needs)                                                                  \
    {BENCH_SCALE, #series "_" #x, what, BENCH_##unit, BENCH_LOWER, 0, #series, x, needs, NULL},
#include "bench_rows.def"
#undef ROW
#undef LINUX
#undef POINT
};
enum { ROWS = sizeof(bench_rows) / sizeof(bench_rows[0]) };
const unsigned bench_row_count = ROWS;
_Static_assert(ROWS <= sizeof(((struct bench_sink *)0)->due), "more rows than a sink has room for");

const char *const bench_suite_names[] = {"nano", "linux", "linux-2g", "compute", "apps", "boot", "scale"};
const char *const bench_share_names[] = {"user", "direct", "kernel", "monitor", "devices", "idle"};
const char *const bench_group_names[] = {"nano", "linux", "linux 2g", "linux pae", "apps", "scale"};
const char *const bench_engine_names[] = {"ringlet", "ringlet-auto", "ringlet-direct", "ringlet-translate",
                                          "tcg",     "kvm",          "native"};

static const struct {
    const char *name;
    double scale;
} bench_units[] = {[BENCH_CYCLES] = {"cycles", 1}, [BENCH_NS] = {"ns", 1}, [BENCH_US] = {"us", 1e3},
                   [BENCH_MS] = {"ms", 1e6},       [BENCH_S] = {"s", 1e9}, [BENCH_MBS] = {"MB/s", 1},
                   [BENCH_OPS] = {"/s", 1e3}};

const char *bench_unit_name(enum bench_unit unit)
{
    return bench_units[unit].name;
}

double bench_unit_scale(enum bench_unit unit)
{
    return bench_units[unit].scale;
}

int bench_results_init(struct bench_results *r, struct host_err *err)
{
    r->cell = calloc(bench_row_count, sizeof(*r->cell));
    r->used = calloc(bench_row_count, sizeof(*r->used));
    r->work = calloc(bench_row_count, sizeof(*r->work));
    if (r->cell && r->used && r->work)
        return 0;
    bench_results_finish(r);
    return host_fail(err, "no memory for the results");
}

void bench_results_finish(struct bench_results *r)
{
    free(r->cell);
    free(r->used);
    free(r->work);
    r->cell = r->used = NULL;
    r->work = NULL;
}

static int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

bool bench_summarize(const double *v, unsigned n, struct bench_summary *s)
{
    double sorted[BENCH_MAX_ROUNDS];

    if (n == 0 || n > BENCH_MAX_ROUNDS)
        return false;
    memcpy(sorted, v, n * sizeof(*v));
    qsort(sorted, n, sizeof(*sorted), bench_compare);
    *s = (struct bench_summary){(sorted[(n - 1) / 2] + sorted[n / 2]) / 2, sorted[0], sorted[n - 1]};
    return true;
}

const struct bench_cell *bench_figure_cell(const struct bench_results *r, enum bench_figure f, unsigned row,
                                           enum bench_engine engine)
{
    bool used = f == BENCH_USER_TIME && (bench_rows[row].flags & BENCH_USED);

    return used ? &r->used[row][engine] : &r->cell[row][engine];
}

bool bench_figure_summary(const struct bench_results *r, enum bench_figure f, unsigned row,
                          enum bench_engine engine, struct bench_summary *s)
{
    const struct bench_cell *c = bench_figure_cell(r, f, row, engine);
    double scale = bench_unit_scale(bench_rows[row].unit);

    if (!bench_summarize(c->v, c->n, s))
        return false;
    s->median /= scale;
    s->min /= scale;
    s->max /= scale;
    return true;
}

double bench_figure_speedup(const struct bench_results *r, enum bench_figure f, unsigned row,
                            enum bench_engine engine, enum bench_engine base)
{
    struct bench_summary a, b;

    if (!bench_figure_summary(r, f, row, engine, &a) || !bench_figure_summary(r, f, row, base, &b) ||
        a.median <= 0 || b.median <= 0)
        return 0;
    return bench_rows[row].better == BENCH_LOWER ? b.median / a.median : a.median / b.median;
}

double bench_figure_mean(const struct bench_results *r, enum bench_figure f, enum bench_suite suite,
                         enum bench_engine engine, enum bench_engine base)
{
    double sum = 0;
    unsigned n = 0;

    for (unsigned i = 0; i < bench_row_count; i++) {
        double s = bench_rows[i].suite == suite ? bench_figure_speedup(r, f, i, engine, base) : 0;

        if (s > 0) {
            sum += log(s);
            n++;
        }
    }
    return n ? exp(sum / n) : 0;
}

bool bench_cell_summary(const struct bench_results *r, unsigned row, enum bench_engine engine,
                        struct bench_summary *s)
{
    return bench_figure_summary(r, BENCH_FIGURE, row, engine, s);
}

double bench_speedup(const struct bench_results *r, unsigned row, enum bench_engine engine,
                     enum bench_engine base)
{
    return bench_figure_speedup(r, BENCH_FIGURE, row, engine, base);
}

double bench_suite_speedup(const struct bench_results *r, enum bench_suite suite, enum bench_engine engine,
                           enum bench_engine base)
{
    return bench_figure_mean(r, BENCH_FIGURE, suite, engine, base);
}

bool bench_suite_used(const struct bench_results *r, enum bench_suite suite)
{
    for (unsigned i = 0; i < bench_row_count; i++)
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            if (bench_rows[i].suite == suite && r->used[i][e].n)
                return true;
    return false;
}

enum bench_engine bench_subject(const struct bench_results *r)
{
    for (unsigned e = 0; e < BENCH_RINGLETS; e++)
        if (r->engine[e].here)
            return e;
    return BENCH_ENGINES;
}

bool bench_compared(const struct bench_results *r, enum bench_engine engine)
{
    enum bench_engine subject = bench_subject(r);

    return subject < BENCH_ENGINES && engine != subject && r->engine[engine].here;
}

bool bench_host_busy(const struct bench_results *r)
{
    return r->load > 0.4;
}

double bench_twin_ratio(const struct bench_results *r, unsigned row, enum bench_engine engine)
{
    const char *twin = bench_rows[row].twin;
    struct bench_summary with, without;

    if (!twin || !bench_cell_summary(r, row, engine, &with) ||
        !bench_cell_summary(r, (unsigned)bench_row_find(twin, strlen(twin)), engine, &without) ||
        with.median <= 0 || without.median <= 0)
        return 0;
    return bench_rows[row].better == BENCH_LOWER ? with.median / without.median
                                                 : without.median / with.median;
}

double bench_policy_cost(const struct bench_results *r, unsigned row, enum bench_engine *better)
{
    double direct = bench_speedup(r, row, BENCH_DIRECT, BENCH_AUTO);
    double translate = bench_speedup(r, row, BENCH_TRANSLATE, BENCH_AUTO);

    *better = direct > translate ? BENCH_DIRECT : BENCH_TRANSLATE;
    return direct > 0 && translate > 0 ? fmax(direct, translate) : 0;
}

bool bench_spreads_overlap(const struct bench_results *r, unsigned row, enum bench_engine a,
                           enum bench_engine b)
{
    struct bench_summary x, y;

    return r->cell[row][a].n > 1 && r->cell[row][b].n > 1 && bench_cell_summary(r, row, a, &x) &&
           bench_cell_summary(r, row, b, &y) && x.min <= y.max && y.min <= x.max;
}

double bench_series_rise(const struct bench_results *r, const char *series, enum bench_engine engine)
{
    double least = 0, rise = 0;
    struct bench_summary s;

    for (unsigned i = 0; i < bench_row_count; i++) {
        const char *own = bench_rows[i].series;

        if (!own || strcmp(own, series) != 0 || !bench_cell_summary(r, i, engine, &s) || s.median <= 0)
            continue;
        if (least > 0)
            rise = fmax(rise, s.median / least);
        least = least > 0 ? fmin(least, s.median) : s.median;
    }
    return rise;
}

bool bench_suite_has(const struct bench_results *r, enum bench_suite suite, enum bench_engine engine)
{
    for (unsigned i = 0; i < bench_row_count; i++)
        if (bench_rows[i].suite == suite && (r->cell[i][engine].n || r->cell[i][engine].why[0]))
            return true;
    return false;
}

bool bench_row_selected(const struct bench_results *r, unsigned row)
{
    return r->suite[bench_rows[row].suite] && !(r->quick && (bench_rows[row].flags & BENCH_HEAVY));
}

bool bench_row_due(const struct bench_results *r, unsigned row, unsigned round)
{
    return bench_row_selected(r, row) && (round == 0 || !(bench_rows[row].flags & BENCH_HEAVY));
}

int bench_row_find(const char *name, size_t length)
{
    for (unsigned i = 0; i < bench_row_count; i++)
        if (strlen(bench_rows[i].name) == length && memcmp(bench_rows[i].name, name, length) == 0)
            return (int)i;
    return -1;
}

void bench_cell_add(struct bench_cell *c, double value)
{
    if (c->n < BENCH_MAX_ROUNDS)
        c->v[c->n++] = value;
}

void bench_cell_fail(struct bench_cell *c, const char *fmt, ...)
{
    va_list ap;

    if (c->why[0]) /* the first trouble is the one to tell */
        return;
    va_start(ap, fmt);
    vsnprintf(c->why, sizeof(c->why), fmt, ap);
    va_end(ap);
}

void bench_results_note(struct bench_results *r, const char *fmt, ...)
{
    va_list ap;

    if (r->notes == BENCH_MAX_NOTES)
        return;
    va_start(ap, fmt);
    vsnprintf(r->note[r->notes++], sizeof(r->note[0]), fmt, ap);
    va_end(ap);
}

/* ---- What programs print ---- */

/* Splits "word name number" at single blanks; false when it is anything else. */
static bool bench_parse_fields(const char *text, const char *word, const char **name, size_t *name_length,
                               double *value)
{
    size_t n = strlen(word);
    char *end;

    if (strncmp(text, word, n) != 0 || text[n] != ' ')
        return false;
    *name = text + n + 1;
    *name_length = strcspn(*name, " ");
    text = *name + *name_length;
    if (*text != ' ' || text[1] < '0' || text[1] > '9')
        return false;
    *value = strtod(text + 1, &end);
    return !*end && isfinite(*value);
}

static bool bench_take_row(struct bench_sink *s, unsigned row, double value)
{
    s->due[row] = false;
    bench_cell_add(&s->results->cell[row][s->engine], value);
    if (s->used[row] > 0)
        bench_cell_add(&s->results->used[row][s->engine], s->used[row]);
    return true;
}

static bool bench_take_user(struct bench_sink *s, unsigned row, double value)
{
    if (!(bench_rows[row].flags & BENCH_USED) || s->used[row] > 0)
        return false;
    s->used[row] = value;
    return true;
}

static bool bench_take_failure(struct bench_sink *s, unsigned row, double value)
{
    s->due[row] = false;
    bench_cell_fail(&s->results->cell[row][s->engine],
                    value == 137 ? "took too long" : "the program failed (status %.0f)", value);
    return true;
}

static const struct {
    const char *word;
    bool (*take)(struct bench_sink *s, unsigned row, double value);
} bench_lines[] = {{"row", bench_take_row}, {"user", bench_take_user}, {"fail", bench_take_failure}};

bool bench_parse_line(struct bench_sink *s, const char *line, size_t length)
{
    char text[128];
    const char *name;
    size_t name_length;
    double value;

    while (length && (line[length - 1] == '\r' || line[length - 1] == '\n'))
        length--;
    if (length >= sizeof(text))
        return false;
    memcpy(text, line, length);
    text[length] = 0;
    for (unsigned i = 0; i < sizeof(bench_lines) / sizeof(bench_lines[0]); i++)
        if (bench_parse_fields(text, bench_lines[i].word, &name, &name_length, &value)) {
            int row = bench_row_find(name, name_length);

            return row >= 0 && s->due[row] && bench_lines[i].take(s, (unsigned)row, value);
        }
    return false;
}

void bench_parse_text(struct bench_sink *s, const char *text, size_t length)
{
    while (length) {
        const char *end = memchr(text, '\n', length);
        size_t n = end ? (size_t)(end - text) + 1 : length;

        bench_parse_line(s, text, n);
        text += n;
        length -= n;
    }
}

/* The number behind "name": in what lies before end, or false. */
static bool bench_parse_share(const char *text, const char *end, const char *name, double *value)
{
    char key[24];
    int n = snprintf(key, sizeof(key), "\"%s\": ", name);
    const char *at = strstr(text, key);

    if (!at || at >= end || at[n] < '0' || at[n] > '9')
        return false;
    *value = (double)strtoull(at + n, NULL, 10);
    return true;
}

bool bench_parse_split(const char *text, struct bench_split *split)
{
    static const char head[] = "\"time_ns\": {";
    const char *at = NULL;

    for (const char *p = strstr(text, head); p; p = strstr(p + 1, head))
        at = p + strlen(head);
    split->known = at != NULL;
    for (unsigned i = 0; i < BENCH_SHARES && split->known; i++)
        split->known = bench_parse_share(at, at + strcspn(at, "}"), bench_share_names[i], &split->ns[i]);
    return split->known;
}
