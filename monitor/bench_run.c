/* Rounds of jobs. A job is one start of one engine: the nano kernel, or a boot of Debian's kernel that then runs all
 * rows that are due, or the programs natively. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench.h"

enum { SILENCE_SECONDS = BENCH_ROW_SECONDS + 30, LINUX_RESERVE_MIB = 64, HOST_RESERVE_MIB = 256 };

struct bench_job {
    unsigned round;
    enum bench_engine engine;
    enum bench_group group;
};
struct bench_plan {
    struct bench_job job[BENCH_MAX_ROUNDS * BENCH_ENGINES * BENCH_GROUPS];
    unsigned jobs, at;
    double seconds[BENCH_ENGINES]
                  [BENCH_GROUPS]; /* how long one takes: a guess, then what the last one took */
    double spent, started;
    const struct bench_config *config;
    struct bench_results *results;
    bool terminal, ready[BENCH_GROUPS];
    unsigned memory[BENCH_GROUPS]; /* MiB */
};

/* What a group's guest is made of: files in the cache, MiB (0: what --memory says), a first guess at its seconds. */
static const struct {
    const char *kernel, *initrd, *fetch;
    unsigned memory;
    double seconds;
} groups[BENCH_GROUPS] = {
    [BENCH_GROUP_NANO] = {NULL, NULL, NULL, 64, 8},
    [BENCH_GROUP_LINUX] = {"vmlinuz-686", "initramfs.cpio.gz", "guests", 0, 60},
    [BENCH_GROUP_2G] = {"vmlinuz-686", "initramfs.cpio.gz", "guests", 2048, 40},
    [BENCH_GROUP_PAE] = {"vmlinuz-686-pae", "initramfs.cpio.gz", "guests", 0, 6},
    [BENCH_GROUP_APPS] = {"vmlinuz-686", "apps.cpio", "apps", 1536, 60},
    [BENCH_GROUP_SCALE] = {"vmlinuz-686", "initramfs.cpio.gz", "guests", 2304, 20},
};
static const enum bench_group suite_groups[BENCH_SUITES] = {
    [BENCH_NANO] = BENCH_GROUP_NANO,     [BENCH_LINUX] = BENCH_GROUP_LINUX, [BENCH_LINUX_2G] = BENCH_GROUP_2G,
    [BENCH_COMPUTE] = BENCH_GROUP_LINUX, [BENCH_APPS] = BENCH_GROUP_APPS,   [BENCH_BOOT] = BENCH_GROUP_LINUX,
    [BENCH_SCALE] = BENCH_GROUP_SCALE,
};

static double run_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static enum bench_group row_group(unsigned row)
{
    return strcmp(bench_rows[row].name, "boot_pae") == 0 ? BENCH_GROUP_PAE
                                                         : suite_groups[bench_rows[row].suite];
}

/* Can it run on the host? Not when it is about a machine, or about how much memory a machine has. */
static bool row_native(unsigned row)
{
    enum bench_suite s = bench_rows[row].suite;

    return s != BENCH_NANO && s != BENCH_BOOT && s != BENCH_LINUX_2G;
}

/* Which rows does this job measure? Returns how many. */
static unsigned job_rows(const struct bench_plan *p, const struct bench_job *j, bool *due)
{
    unsigned n = 0;

    for (unsigned i = 0; i < bench_row_count; i++) {
        due[i] = row_group(i) == j->group && bench_row_due(p->results, i, j->round) &&
                 (j->engine != BENCH_NATIVE || row_native(i));
        n += due[i];
    }
    return n;
}

/* ---- Progress ---- */

static double plan_left(const struct bench_plan *p)
{
    double left = 0, now = run_clock() - p->started;

    for (unsigned i = p->at; i < p->jobs; i++)
        left += p->seconds[p->job[i].engine][p->job[i].group];
    if (p->at < p->jobs) {
        double current = p->seconds[p->job[p->at].engine][p->job[p->at].group];

        left -= now < current ? now : current;
    }
    return left;
}

static void plan_progress(void *ctx)
{
    struct bench_plan *p = ctx;
    static const char bar[] = "##############################";
    const struct bench_job *j = &p->job[p->at];
    double left = plan_left(p), done = p->spent + run_clock() - p->started;
    int full = (int)(30 * done / (done + left + 0.001));

    if (p->terminal)
        fprintf(stderr, "\r[%-30.*s] %3d%%  round %u of %u: %s %s, about %dm%02ds left\033[K", full, bar,
                full * 100 / 30, j->round + 1, p->results->rounds, bench_engine_names[j->engine],
                bench_group_names[j->group], (int)left / 60, (int)left % 60);
}

static void plan_announce(const struct bench_plan *p)
{
    const struct bench_job *j = &p->job[p->at];

    if (!p->terminal)
        fprintf(stderr, "ringlet: bench: round %u of %u: %s %s, about %d s left in all\n", j->round + 1,
                p->results->rounds, bench_engine_names[j->engine], bench_group_names[j->group],
                (int)plan_left(p));
}

/* ---- One job ---- */

/* What a guest did not print has failed; why is known from how it ended. */
static void job_judge(struct bench_sink *sink, const struct bench_child_result *res)
{
    for (unsigned i = 0; i < bench_row_count; i++) {
        struct bench_cell *cell = &sink->results->cell[i][sink->engine];

        if (!sink->due[i] || res->interrupted)
            continue;
        if (res->timed_out)
            bench_cell_fail(cell, "no sign of life for %d s", SILENCE_SECONDS);
        else if (WIFSIGNALED(res->status))
            bench_cell_fail(cell, "%s was ended by signal %d before", bench_engine_names[sink->engine],
                            WTERMSIG(res->status));
        else
            bench_cell_fail(cell, "the guest ended before, with status %d", WEXITSTATUS(res->status));
    }
}

static void job_boot_time(struct bench_sink *sink, const struct bench_child_result *res)
{
    for (unsigned i = 0; i < bench_row_count; i++)
        if (sink->due[i] && bench_rows[i].suite == BENCH_BOOT && res->marker >= 0) {
            sink->due[i] = false;
            bench_cell_add(&sink->results->cell[i][sink->engine], res->marker * 1e9);
        }
}

/* Returns -1 when there was no machine to run, 1 when interrupted. */
static int job_machine(struct bench_plan *p, struct bench_sink *sink, const struct bench_machine *m,
                       const char *marker, struct host_err *err)
{
    struct bench_child_result res;
    struct bench_command cmd;
    bool interrupted;

    bench_engine_command(p->config, sink->engine, m, &cmd);
    if (bench_child_run(p->config, cmd.argv, marker, SILENCE_SECONDS, plan_progress, p, &res, err) < 0)
        return -1;
    bench_parse_text(sink, res.text, res.length);
    if (sink->engine < BENCH_RINGLETS)
        bench_parse_marks(p->results, sink->engine, res.text);
    if (sink->engine == bench_subject(p->results))
        bench_parse_split(res.text, &p->results->split[p->job[p->at].group]);
    job_boot_time(sink, &res);
    job_judge(sink, &res);
    interrupted = res.interrupted;
    free(res.text);
    return interrupted;
}

static int job_nano(struct bench_plan *p, struct bench_sink *sink, struct host_err *err)
{
    char path[4096];
    struct bench_machine m = {.multiboot = path, .memory = 64};

    snprintf(path, sizeof(path), "%s/nano.elf", p->config->programs);
    return job_machine(p, sink, &m, NULL, err);
}

static int job_linux(struct bench_plan *p, struct bench_sink *sink, enum bench_group group,
                     struct host_err *err)
{
    char path[4096], initrd[64];
    struct bench_machine m = {.kernel = path, .initrd = initrd, .memory = p->memory[group]};
    int fd = bench_initrd_create(p->config, p->results, groups[group].initrd, sink->due, err), status;

    if (fd < 0)
        return -1;
    snprintf(path, sizeof(path), "%s/%s", p->config->cache, groups[group].kernel);
    snprintf(initrd, sizeof(initrd), "/proc/self/fd/%d", fd);
    status = job_machine(p, sink, &m, BENCH_MARKER, err);
    close(fd);
    return status;
}

static int job_native_row(struct bench_plan *p, struct bench_sink *sink, unsigned row, struct host_err *err)
{
    const struct bench_row *b = &bench_rows[row];
    struct bench_child_result res;
    char program[4096], busybox[4096], root[4096], name[32], effort[8];
    char *const argv[] = {program, name, effort, busybox, root, NULL};
    bool interrupted;

    snprintf(program, sizeof(program), "%s/%s", p->config->programs, bench_suite_names[b->suite]);
    snprintf(busybox, sizeof(busybox), "%s/busybox", p->config->cache);
    snprintf(root, sizeof(root), "%s/apps", p->config->cache);
    snprintf(name, sizeof(name), "%s", b->name);
    snprintf(effort, sizeof(effort), "%s", p->results->quick ? "quick" : "full");
    if (bench_child_run(p->config, argv, NULL, BENCH_ROW_SECONDS, plan_progress, p, &res, err) < 0)
        return -1;
    bench_parse_text(sink, res.text, res.length);
    interrupted = res.interrupted;
    if (sink->due[row] && !interrupted)
        bench_cell_fail(&sink->results->cell[row][BENCH_NATIVE], "%s",
                        res.timed_out ? "took too long" : bench_last_line(res.text));
    free(res.text);
    return interrupted;
}

static int job_native(struct bench_plan *p, struct bench_sink *sink, struct host_err *err)
{
    bool due[sizeof(sink->due)];
    int status = 0;

    memcpy(due, sink->due, sizeof(due));
    for (unsigned i = 0; i < bench_row_count && status == 0; i++)
        if (due[i])
            status = job_native_row(p, sink, i, err);
    return status;
}

/* What does not fit is not tried: a guest out of memory takes the rows after it along. Natively the same limit
 * holds, so that figures come in pairs. */
static void job_drop_large(struct bench_plan *p, struct bench_sink *sink)
{
    for (unsigned i = 0; i < bench_row_count; i++) {
        const struct bench_row *b = &bench_rows[i];

        if (!sink->due[i] || b->suite != BENCH_SCALE ||
            b->needs + LINUX_RESERVE_MIB <= p->memory[BENCH_GROUP_SCALE])
            continue;
        sink->due[i] = false;
        bench_cell_fail(&p->results->cell[i][sink->engine],
                        "left out: needs a guest of %u MiB, for which this host has no memory",
                        b->needs + LINUX_RESERVE_MIB);
    }
}

static int job_run(struct bench_plan *p, const struct bench_job *j, struct host_err *err)
{
    struct bench_sink sink = {.results = p->results, .engine = j->engine};

    job_rows(p, j, sink.due);
    job_drop_large(p, &sink);
    if (j->engine == BENCH_NATIVE)
        return job_native(p, &sink, err);
    if (j->group == BENCH_GROUP_NANO)
        return job_nano(p, &sink, err);
    return job_linux(p, &sink, j->group, err);
}

/* ---- All jobs ---- */

static bool plan_has_file(const struct bench_plan *p, const char *name)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", p->config->cache, name);
    return access(path, R_OK) == 0;
}

static bool plan_wants(const struct bench_plan *p, enum bench_group g)
{
    for (unsigned i = 0; i < bench_row_count; i++)
        if (row_group(i) == g && bench_row_selected(p->results, i))
            return true;
    return false;
}

/* A guest that the host would have to swap for measures the host's disk. */
static bool plan_fits(struct bench_plan *p, enum bench_group g)
{
    unsigned room = p->config->host_mib > HOST_RESERVE_MIB ? p->config->host_mib - HOST_RESERVE_MIB : 0;

    p->memory[g] = groups[g].memory ? groups[g].memory : (unsigned)(p->results->memory >> 20);
    if (!p->config->host_mib || p->memory[g] <= room)
        return true;
    if (g == BENCH_GROUP_SCALE && room >= 128) {
        p->memory[g] = room;
        return true;
    }
    bench_results_note(p->results, "%s: a guest of %u MiB, and this host has %u MiB to spare",
                       bench_group_names[g], p->memory[g], room);
    return false;
}

static bool plan_ready(struct bench_plan *p, enum bench_group g)
{
    if (!plan_wants(p, g))
        return false;
    if (groups[g].kernel && !(plan_has_file(p, groups[g].kernel) && plan_has_file(p, groups[g].initrd))) {
        bench_results_note(p->results, "%s: no guest in %.100s (sh host/bootstrap %s fetches it)",
                           bench_group_names[g], p->config->cache, groups[g].fetch);
        return false;
    }
    return plan_fits(p, g);
}

/* Natively nothing is booted, but the applications must be there. */
static bool plan_possible(const struct bench_plan *p, enum bench_engine e, enum bench_group g)
{
    if (!p->results->engine[e].here)
        return false;
    return p->ready[g] || (e == BENCH_NATIVE && (g != BENCH_GROUP_APPS || plan_has_file(p, "apps/usr/bin")));
}

/*T:850 Measuring on a machine that others use
 * A machine is never quiet. If all runs of one engine came first and all of the next one later, a neighbour's busy
 * minute would look like a difference between engines. So every round runs each engine once, in turn, and what is
 * shown is the median of the rounds with the least and the most beside it: a ratio smaller than that spread says
 * nothing. The programs are the same files everywhere, the clock is the guest's own, and user programs are kept on
 * one CPU, because a guest has no more. :*/
static void plan_make(struct bench_plan *p)
{
    bool due[sizeof(((struct bench_sink *)0)->due)];

    for (unsigned g = 0; g < BENCH_GROUPS; g++) {
        p->ready[g] = plan_ready(p, g);
        for (unsigned e = 0; e < BENCH_ENGINES; e++)
            p->seconds[e][g] = groups[g].seconds / (p->results->quick ? 3 : 1);
    }
    for (unsigned round = 0; round < p->results->rounds; round++)
        for (unsigned g = 0; g < BENCH_GROUPS; g++)
            for (unsigned e = 0; e < BENCH_ENGINES; e++) {
                struct bench_job j = {round, e, g};

                if (plan_possible(p, e, g) && job_rows(p, &j, due))
                    p->job[p->jobs++] = j;
            }
}

static int plan_run(struct bench_plan *p, struct host_err *err)
{
    int status = 0;

    for (p->at = 0; p->at < p->jobs && status == 0; p->at++) {
        const struct bench_job *j = &p->job[p->at];
        double took;

        p->started = run_clock();
        plan_announce(p);
        plan_progress(p);
        status = job_run(p, j, err);
        took = run_clock() - p->started;
        p->seconds[j->engine][j->group] = took;
        p->spent += took;
    }
    if (p->terminal)
        fputs("\r\033[K", stderr);
    return status;
}

int bench_run(const struct bench_config *c, struct bench_results *r, struct host_err *err)
{
    struct bench_plan *p = calloc(1, sizeof(*p));
    int status;

    if (!p)
        return host_fail(err, "no memory for a plan");
    p->config = c;
    p->results = r;
    p->terminal = isatty(2);
    plan_make(p);
    if (!p->jobs)
        bench_results_note(r, "everything: no engine that is here runs a row of these suites");
    status = plan_run(p, err);
    r->partial = status != 0;
    free(p);
    return status < 0 ? -1 : 0;
}
