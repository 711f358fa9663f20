/* What a row made ringlet do, from the statistics it prints around it (`ringlet run --stats-port`). */
#include <stdlib.h>
#include <string.h>
#include "bench.h"

const char *const bench_count_names[BENCH_COUNTS] = {
    "entries",    "callouts",    "signals",       "mmap",           "munmap",
    "mprotect",   "true_faults", "hidden_faults", "pages_filled",   "pt_writes",
    "cr3_writes", "blocks",      "interpreted",   "world_switches", "world_maps",
};
/* Names of the same in the JSON of --stats, each the first of its name there (stats.def). */
static const char *const work_keys[BENCH_COUNTS] = {
    "entries",    "callouts",    "signals",       "mmap",         "munmap",
    "mprotect",   "true_faults", "hidden_faults", "pages_filled", "pt_writes",
    "cr3_writes", "blocks",      "interpreted",   "switches",     "maps",
};

/* One snapshot, and the text it is found in: [at, end). */
struct work_mark {
    const char *at, *end;
    int row;
    double units; /* 0: the row begins */
};

/* The number behind "name":, 0 when it is not there. */
static double work_number(const struct work_mark *m, const char *name)
{
    char key[40];
    int n = snprintf(key, sizeof(key), "\"%s\": ", name);
    const char *found = strstr(m->at, key);

    return found && found < m->end ? (double)strtoull(found + n, NULL, 10) : 0;
}

/* The next {"mark": "ROW begin" or "ROW end UNITS" at or behind text. */
static bool work_next(const char *text, struct work_mark *m)
{
    static const char head[] = "\"mark\": \"", begin[] = " begin\"", end[] = " end ";
    const char *at = strstr(text, head), *next;
    size_t name;

    if (!at)
        return false;
    at += strlen(head);
    next = strstr(at, head);
    name = strcspn(at, " \"\n");
    *m = (struct work_mark){at, next ? next : at + strlen(at), bench_row_find(at, name), 0};
    if (strncmp(at + name, end, strlen(end)) == 0 && at[name + strlen(end)] >= '0' &&
        at[name + strlen(end)] <= '9')
        m->units = (double)strtoull(at + name + strlen(end), NULL, 10);
    else if (strncmp(at + name, begin, strlen(begin)) != 0)
        m->row = -1;
    return true;
}

/* A guest can print what looks like a snapshot of ours; the least it must not do is to make a share negative. */
static double work_difference(const struct work_mark *from, const struct work_mark *to, const char *name)
{
    double d = work_number(to, name) - work_number(from, name);

    return d > 0 ? d : 0;
}

static void work_between(struct bench_work *w, const struct work_mark *from, const struct work_mark *to)
{
    w->split.known = true;
    for (unsigned i = 0; i < BENCH_SHARES; i++)
        w->split.ns[i] = work_difference(from, to, bench_share_names[i]);
    for (unsigned i = 0; i < BENCH_COUNTS; i++)
        w->count[i] = work_difference(from, to, work_keys[i]);
    w->host_kernel = work_difference(from, to, "host_kernel");
    w->units = to->units;
}

void bench_parse_marks(struct bench_results *r, enum bench_engine engine, const char *text)
{
    struct work_mark from = {.row = -1}, m;

    while (work_next(text, &m)) {
        if (m.row >= 0 && m.row == from.row && m.units >= 1)
            work_between(&r->work[m.row][engine], &from, &m);
        from = m;
        if (m.units > 0)
            from.row = -1;
        text = m.at;
    }
}
