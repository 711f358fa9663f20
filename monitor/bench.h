/*
 * bench: `ringlet bench` below its command line. Rows in a table, samples per row and engine, three ways to show them
 * (table, JSON, HTML), and the machinery that gets them: engines, child processes, jobs.
 *
 * A benchmark never fails as a whole because one row does: what went wrong with a row is written where its figure
 * would be.
 */
#ifndef MONITOR_BENCH_H
#define MONITOR_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "host/host.h"

/* ---- What is measured ---- */

enum bench_suite {
    BENCH_NANO,
    BENCH_LINUX,
    BENCH_LINUX_2G,
    BENCH_COMPUTE,
    BENCH_APPS,
    BENCH_BOOT,
    BENCH_SCALE,
    BENCH_SUITES
};
/* The first ones are ringlet with different options. */
enum bench_engine {
    BENCH_RINGLET,
    BENCH_AUTO,
    BENCH_DIRECT,
    BENCH_TRANSLATE,
    BENCH_TCG,
    BENCH_KVM,
    BENCH_NATIVE,
    BENCH_ENGINES,
    BENCH_RINGLETS = BENCH_TCG
};
enum bench_unit { BENCH_CYCLES, BENCH_NS, BENCH_US, BENCH_MS, BENCH_S, BENCH_MBS, BENCH_OPS };
enum bench_better { BENCH_LOWER, BENCH_HIGHER };
enum { BENCH_HEAVY = 1, BENCH_USED = 2 };
enum { BENCH_ROW_SECONDS = 120 }; /* no row of a Linux guest takes longer */
enum { BENCH_MAX_ROUNDS = 32, BENCH_MAX_EXTRA = 8, BENCH_WHY = 96, BENCH_MAX_NOTES = 8 };

struct bench_row {
    enum bench_suite suite;
    const char *name, *what;
    enum bench_unit unit;
    enum bench_better better;
    unsigned flags;
    const char *series; /* NULL: a row by itself */
    unsigned x, needs;  /* of a series: position, MiB */
    const char *twin;   /* NULL, or the row that is the same with less memory */
};
extern const struct bench_row bench_rows[];
extern const unsigned bench_row_count;
extern const char *const bench_suite_names[BENCH_SUITES], *const bench_engine_names[BENCH_ENGINES];

const char *bench_unit_name(enum bench_unit unit);
/* Programs print cycles, nanoseconds, MB/s or thousandths per second; this many of them make one of the row's unit. */
double bench_unit_scale(enum bench_unit unit);

/* ---- Results ---- */

/* A row has a figure; rows with BENCH_USED have the user time behind it as well, in the same unit. Asked for that, a row
 * without shows its figure: a rate over a fixed time. */
enum bench_figure { BENCH_FIGURE, BENCH_USER_TIME };
struct bench_cell { /* of one row and one engine */
    double v[BENCH_MAX_ROUNDS];
    unsigned n;
    char why[BENCH_WHY]; /* not empty: what went wrong, or why it was left out */
};
struct bench_engine_state {
    bool wanted, here;
    char note[160]; /* version; or why it is not here */
};
/* Where ringlet's time went during a job, as `ringlet run --stats=json` tells it; nanoseconds. */
enum bench_share {
    BENCH_USER,
    BENCH_USER_DIRECT,
    BENCH_KERNEL,
    BENCH_MONITOR,
    BENCH_DEVICES,
    BENCH_IDLE,
    BENCH_SHARES
};
struct bench_split {
    double ns[BENCH_SHARES];
    bool known;
};
/* Rows that share a guest: one start of a machine runs all of them. */
enum bench_group {
    BENCH_GROUP_NANO,
    BENCH_GROUP_LINUX,
    BENCH_GROUP_2G,
    BENCH_GROUP_PAE,
    BENCH_GROUP_APPS,
    BENCH_GROUP_SCALE,
    BENCH_GROUPS
};
extern const char *const bench_share_names[BENCH_SHARES], *const bench_group_names[BENCH_GROUPS];

/* What one row made ringlet do: the statistics after it less those before it (last round). */
enum { BENCH_COUNTS = 15 };
struct bench_work {
    struct bench_split split;
    double host_kernel; /* ns of all shares spent in the host's kernel */
    double units;       /* how many of the row's events that were, runs to warm up included; at least 1 */
    double count[BENCH_COUNTS];
};
extern const char *const bench_count_names[BENCH_COUNTS];

struct bench_results {
    struct bench_engine_state engine[BENCH_ENGINES];
    bool suite[BENCH_SUITES];
    unsigned rounds;
    uint64_t memory; /* bytes, of the Linux guests whose suite does not say */
    bool quick, partial;
    const char *version;
    char host[256], date[32];
    double load; /* the host's load average of the last minute before the run, over its CPUs */
    char note[BENCH_MAX_NOTES][200]; /* what was left out, and why */
    unsigned notes;
    struct bench_split split[BENCH_GROUPS];    /* of the last round */
    struct bench_cell (*cell)[BENCH_ENGINES];  /* [bench_row_count] */
    struct bench_cell (*used)[BENCH_ENGINES];  /* user time, of rows with BENCH_USED */
    struct bench_work (*work)[BENCH_RINGLETS]; /* [bench_row_count] */
};
int bench_results_init(struct bench_results *r, struct host_err *err);
void bench_results_finish(struct bench_results *r);

struct bench_summary {
    double median, min, max;
};
/* Of n samples, in their unit; false when there are none. The median of an even number is the mean of the middle two.
 */
bool bench_summarize(const double *v, unsigned n, struct bench_summary *s);
/* The cell's summary in its row's unit. */
bool bench_cell_summary(const struct bench_results *r, unsigned row, enum bench_engine engine,
                        struct bench_summary *s);
/* How many times as fast (by medians) `engine` is as `base` on this row; 0 when one of them has no figure. */
double bench_speedup(const struct bench_results *r, unsigned row, enum bench_engine engine,
                     enum bench_engine base);
/* Geometric mean of that over a suite; 0 when no row has both figures. */
double bench_suite_speedup(const struct bench_results *r, enum bench_suite suite, enum bench_engine engine,
                           enum bench_engine base);
/* The same three for either figure, and where it is kept. */
bool bench_figure_summary(const struct bench_results *r, enum bench_figure f, unsigned row,
                          enum bench_engine engine, struct bench_summary *s);
double bench_figure_speedup(const struct bench_results *r, enum bench_figure f, unsigned row,
                            enum bench_engine engine, enum bench_engine base);
double bench_figure_mean(const struct bench_results *r, enum bench_figure f, enum bench_suite suite,
                         enum bench_engine engine, enum bench_engine base);
const struct bench_cell *bench_figure_cell(const struct bench_results *r, enum bench_figure f, unsigned row,
                                           enum bench_engine engine);
/* Has any row of the suite user times to show? */
bool bench_suite_used(const struct bench_results *r, enum bench_suite suite);
/* The engine all others are compared with: the first of ringlet's that is here. BENCH_ENGINES when there is none. */
enum bench_engine bench_subject(const struct bench_results *r);
/* Is the engine to be compared with the subject? */
bool bench_compared(const struct bench_results *r, enum bench_engine engine);
/* Were other programs running when it began? Ratios then say more than figures, and neither says much. */
bool bench_host_busy(const struct bench_results *r);
#define BENCH_TWIN_GOAL 1.3
/* How many times the row costs what it costs with less memory (its twin); 0 when one of them has no figure. */
double bench_twin_ratio(const struct bench_results *r, unsigned row, enum bench_engine engine);
#define BENCH_POLICY_GOAL 1.1
/* How many times policy auto (BENCH_AUTO) costs what the better of direct and translate does, and which that is; 0 when
 * one of the three has no figure. */
double bench_policy_cost(const struct bench_results *r, unsigned row, enum bench_engine *better);
/* Do the two have figures in common, from several rounds? Then which of them is ahead is not certain. */
bool bench_spreads_overlap(const struct bench_results *r, unsigned row, enum bench_engine a,
                           enum bench_engine b);
/* How much a unit's cost rises with their number: the most that any point of the series costs over any point before
 * it. 0 with less than two figures. */
double bench_series_rise(const struct bench_results *r, const char *series, enum bench_engine engine);
/* Has the engine anything to show of the suite: a figure, or why there is none? */
bool bench_suite_has(const struct bench_results *r, enum bench_suite suite, enum bench_engine engine);
/* Is the row to be run at all, and in this round (0...)? */
bool bench_row_selected(const struct bench_results *r, unsigned row);
bool bench_row_due(const struct bench_results *r, unsigned row, unsigned round);
/* Index of the row of that name, or -1. */
int bench_row_find(const char *name, size_t length);
void bench_cell_add(struct bench_cell *c, double value);
void bench_results_note(struct bench_results *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bench_cell_fail(struct bench_cell *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- What programs print. A guest is not trusted: unknown rows, numbers that are none and a second figure in the
 * same round are ignored. ---- */

struct bench_sink {
    struct bench_results *results;
    enum bench_engine engine;
    bool due[192];    /* rows whose figure this job still waits for */
    double used[192]; /* user time that was printed ahead of one; 0: none */
};
/* Takes "row NAME VALUE", "user NAME NANOSECONDS" and "fail NAME STATUS"; true when the line was one of these and
 * wanted. */
bool bench_parse_line(struct bench_sink *s, const char *line, size_t length);
void bench_parse_text(struct bench_sink *s, const char *text, size_t length);

/* Finds the shares in what a machine printed (the last ones: a guest may print the same). False when there are none. */
bool bench_parse_split(const char *text, struct bench_split *split);

/* Takes what `--stats-port` made a machine print around each row: {"mark": "ROW begin", ...}, {"mark": "ROW end N",
 * ...}. Nor is this trusted: marks in any order, of any row, with any numbers. */
void bench_parse_marks(struct bench_results *r, enum bench_engine engine, const char *text);

/* ---- Showing ---- */

void bench_table_print(const struct bench_results *r, FILE *out);
void bench_json_print(const struct bench_results *r, FILE *out);
/* Where auto is behind by more than BENCH_POLICY_GOAL, in lines of text; nothing where that was not measured. Rows whose
 * rounds overlap with those of the better one are shown, but not counted as behind. */
void bench_policy_print(const struct bench_results *r, FILE *out);
void bench_html_print(const struct bench_results *r, FILE *out);
/* "12.3", "0.0120", "63252": three digits that count, and no exponent. */
const char *bench_number(double v, char text[32]);

/* ---- Running ---- */

struct bench_config {
    const char *programs, *cache; /* directories */
    const char *self;             /* path of this executable */
    const char *extra[BENCH_MAX_EXTRA];
    unsigned extra_count; /* more arguments for `ringlet run` */
    int signals;          /* signalfd: readable means stop now */
    char qemu[4096];      /* path, empty when there is none; found by bench_engines_probe */
    char append[120];     /* the Linux guests' command line; found by bench_engines_probe */
    unsigned host_mib;    /* memory the host could give to guests; 0: not known */
};

struct bench_child_result {
    char *text; /* standard output and error together; freed by the caller */
    size_t length;
    int status;     /* of waitpid */
    double marker;  /* seconds until the marker was seen; negative: never */
    bool timed_out; /* silent for too long, and killed */
    bool interrupted;
};
/* Runs argv until it ends, is silent for `silence` seconds, or a signal arrives. tick is called several times a
 * second. Fails only when the child cannot be made. */
int bench_child_run(const struct bench_config *c, char *const *argv, const char *marker, double silence,
                    void (*tick)(void *), void *tick_ctx, struct bench_child_result *res,
                    struct host_err *err);

/* The last line of a program's text that says something; what follows it is cut off. */
char *bench_last_line(char *text);

/* The cached archive `base`, and behind it an archive with busybox, the programs and an init that runs the due rows.
 * Returns a descriptor whose /proc/self/fd name a child can open, or -1. */
int bench_initrd_create(const struct bench_config *c, const struct bench_results *r, const char *base,
                        const bool *due, struct host_err *err);
/* The script that archive starts, as text; what was due runs in its order. */
void bench_init_script(const struct bench_results *r, const bool *due, FILE *out);
/* One entry of a "newc" archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst); mode 0: the
 * trailer. */
void bench_cpio_entry(FILE *out, const char *name, unsigned mode, const void *data, size_t size);
#define BENCH_MARKER "bench: userspace"

/* Finds out which engines work, with a sentence for each in its note. */
void bench_engines_probe(struct bench_config *c, struct bench_results *r);
struct bench_machine {
    const char *multiboot, *kernel, *initrd;
    unsigned memory; /* MiB */
};
enum { BENCH_MAX_ARGV = 64 };
struct bench_command {
    char *argv[BENCH_MAX_ARGV];
    char memory[16];
};
/* The command that runs this machine; its strings live as long as c, m and cmd. */
void bench_engine_command(const struct bench_config *c, enum bench_engine engine,
                          const struct bench_machine *m, struct bench_command *cmd);

/* All jobs of all rounds. Returns 0 also when interrupted: the results then say partial. */
int bench_run(const struct bench_config *c, struct bench_results *r, struct host_err *err);

#endif
