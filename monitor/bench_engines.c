/* Which engines this host has, and how each runs a machine. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>
#include "bench.h"

enum { PROBE_VALUE = 42, PROBE_SECONDS = 20 };

static const char bench_qemu[] = "qemu-system-i386";
/* Where guests' programs write before and after a row (tests/bench/program.h). */
static const char bench_stats_port[] = "0xe9";

/* What makes an engine of its own out of ringlet: how user code runs. */
static const char *const bench_ringlet_user[BENCH_RINGLETS] = {NULL, "auto", "direct", "translate"};

/* The whole path, because what runs it does not search. */
static bool bench_find_program(const char *name, char *path, size_t size)
{
    const char *dirs = getenv("PATH");

    if (!dirs)
        dirs = "/usr/local/bin:/usr/bin:/bin";
    while (*dirs) {
        size_t n = strcspn(dirs, ":");

        snprintf(path, size, "%.*s/%s", (int)n, dirs, name);
        if (n && access(path, X_OK) == 0)
            return true;
        dirs += n + (dirs[n] == ':');
    }
    return false;
}

struct bench_argv {
    char **argv;
    unsigned n;
};

static void bench_arg(struct bench_argv *a, const char *text)
{
    if (a->n + 1 < BENCH_MAX_ARGV)
        a->argv[a->n++] = (char *)(uintptr_t)text; /* execv wants it so, and changes nothing */
    a->argv[a->n] = NULL;
}

static void bench_args(struct bench_argv *a, const char *const *texts)
{
    while (*texts)
        bench_arg(a, *texts++);
}

static void bench_option(struct bench_argv *a, const char *option, const char *value)
{
    if (value) {
        bench_arg(a, option);
        bench_arg(a, value);
    }
}

static void bench_command_ringlet(const struct bench_config *c, enum bench_engine engine,
                                  const struct bench_machine *m, struct bench_argv *a, const char *memory)
{
    bench_arg(a, c->self);
    bench_args(a, (const char *const[]){"run", "--serial", "stdio", "--no-reboot", "--stats=json", NULL});
    bench_option(a, "--stats-port", bench_stats_port);
    bench_option(a, "--user", bench_ringlet_user[engine]);
    bench_option(a, "--memory", memory);
    bench_option(a, "--multiboot", m->multiboot);
    bench_option(a, "--kernel", m->kernel);
    bench_option(a, "--initrd", m->initrd);
    bench_option(a, "--append", m->kernel ? c->append : NULL);
    for (unsigned i = 0; i < c->extra_count; i++)
        bench_arg(a, c->extra[i]);
}

static void bench_command_qemu(const struct bench_config *c, enum bench_engine engine,
                               const struct bench_machine *m, struct bench_argv *a, const char *memory)
{
    static const char *const machine[] = {"-display",
                                          "none",
                                          "-vga",
                                          "none",
                                          "-net",
                                          "none",
                                          "-no-reboot",
                                          "-monitor",
                                          "none",
                                          "-serial",
                                          "stdio",
                                          "-device",
                                          "isa-debug-exit,iobase=0xf4,iosize=4",
                                          NULL};

    bench_arg(a, c->qemu);
    bench_option(a, "-accel", engine == BENCH_KVM ? "kvm" : "tcg");
    bench_option(a, "-cpu", engine == BENCH_KVM ? "host" : "max");
    bench_option(a, "-m", memory);
    bench_args(a, machine);
    bench_option(a, "-kernel", m->multiboot ? m->multiboot : m->kernel);
    bench_option(a, "-initrd", m->initrd);
    bench_option(a, "-append", m->kernel ? c->append : NULL);
}

void bench_engine_command(const struct bench_config *c, enum bench_engine engine,
                          const struct bench_machine *m, struct bench_command *cmd)
{
    struct bench_argv a = {cmd->argv, 0};

    snprintf(cmd->memory, sizeof(cmd->memory), "%uM", m->memory);
    if (engine < BENCH_RINGLETS)
        bench_command_ringlet(c, engine, m, &a, cmd->memory);
    else
        bench_command_qemu(c, engine, m, &a, cmd->memory);
}

/* ---- Probing ---- */

/* Runs argv; does it end with this status? `said` gets the last line it printed. */
static bool bench_probe(const struct bench_config *c, char *const *argv, int status, char *said, size_t size)
{
    struct bench_child_result res;
    struct host_err err = {""};
    bool good;

    if (bench_child_run(c, argv, NULL, PROBE_SECONDS, NULL, NULL, &res, &err) < 0) {
        snprintf(said, size, "%.*s", (int)size - 1, err.text);
        return false;
    }
    snprintf(said, size, "%s", bench_last_line(res.text));
    good = !res.timed_out && WIFEXITED(res.status) && WEXITSTATUS(res.status) == status;
    free(res.text);
    return good;
}

/* A machine of this engine that does nothing but end: that /dev/kvm exists says little. */
static bool bench_probe_machine(const struct bench_config *c, enum bench_engine engine, char *said,
                                size_t size)
{
    char path[4096];
    struct bench_machine m = {.multiboot = path, .memory = 64};
    struct bench_command cmd;

    snprintf(path, sizeof(path), "%s/probe.elf", c->programs);
    bench_engine_command(c, engine, &m, &cmd);
    return bench_probe(c, cmd.argv, PROBE_VALUE << 1 | 1, said, size);
}

static void bench_probe_qemu(const struct bench_config *c, struct bench_results *r, enum bench_engine engine)
{
    struct bench_engine_state *s = &r->engine[engine];
    char said[120];

    if (!c->qemu[0]) {
        snprintf(s->note, sizeof(s->note), "%s is not installed", bench_qemu);
    } else if (engine == BENCH_KVM && access("/dev/kvm", R_OK | W_OK) != 0) {
        snprintf(s->note, sizeof(s->note), "/dev/kvm cannot be opened");
    } else if (!bench_probe_machine(c, engine, said, sizeof(said))) {
        snprintf(s->note, sizeof(s->note), "does not run a guest: %s", said);
    } else {
        char *const version[] = {(char *)(uintptr_t)c->qemu, "--version", NULL};
        struct bench_child_result res;

        s->here = true;
        if (bench_child_run(c, version, NULL, PROBE_SECONDS, NULL, NULL, &res, NULL) == 0) {
            snprintf(s->note, sizeof(s->note), "%.*s", (int)strcspn(res.text, "\n"), res.text);
            free(res.text);
        }
    }
}

static void bench_probe_ringlet(const struct bench_config *c, struct bench_results *r,
                                enum bench_engine engine)
{
    struct bench_engine_state *s = &r->engine[engine];
    const char *user = bench_ringlet_user[engine];
    char said[120];

    s->here = bench_probe_machine(c, engine, said, sizeof(said));
    if (s->here)
        snprintf(s->note, sizeof(s->note), "ringlet %s%s%s", r->version, user ? ", --user " : "",
                 user ? user : "");
    else
        snprintf(s->note, sizeof(s->note), "does not run a guest: %s", said);
}

static void bench_probe_native(const struct bench_config *c, struct bench_results *r)
{
    struct bench_engine_state *s = &r->engine[BENCH_NATIVE];
    char path[4096], said[120];
    char *const argv[] = {path, "nothing", NULL};

    snprintf(path, sizeof(path), "%s/linux", c->programs);
    s->here = bench_probe(c, argv, 0, said, sizeof(said));
    if (s->here)
        snprintf(s->note, sizeof(s->note), "the same programs on the host, on one CPU");
    else
        snprintf(s->note, sizeof(s->note), "this host does not run 32-bit programs: %s", said);
}

/* The rate of the time-stamp counter, which is the guests' too, by the host's clock. */
static unsigned bench_tsc_khz(void)
{
    const struct timespec pause = {.tv_nsec = 200000000};
    struct timespec a, b;
    uint64_t from, to;
    double ns;

    clock_gettime(CLOCK_MONOTONIC, &a);
    from = __rdtsc();
    nanosleep(&pause, NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    to = __rdtsc();
    ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
    return (unsigned)((double)(to - from) * 1e6 / ns);
}

/* Linux finds out how fast its time-stamp counter counts by comparing it with timers for some milliseconds. On a busy
 * host those are lost to somebody else, and a guest that is wrong about it measures everything wrong: by nine times, or
 * with a clock that stands still for milliseconds. So all guests are told. */
static void bench_make_append(struct bench_config *c)
{
    snprintf(c->append, sizeof(c->append),
             "console=ttyS0 quiet rdinit=/bin/bench-init tsc_early_khz=%u tsc=reliable", bench_tsc_khz());
}

void bench_engines_probe(struct bench_config *c, struct bench_results *r)
{
    bench_make_append(c);
    if (!bench_find_program(bench_qemu, c->qemu, sizeof(c->qemu)))
        c->qemu[0] = 0;
    for (unsigned e = 0; e < BENCH_RINGLETS; e++)
        if (r->engine[e].wanted)
            bench_probe_ringlet(c, r, e);
    for (unsigned e = BENCH_TCG; e <= BENCH_KVM; e++)
        if (r->engine[e].wanted)
            bench_probe_qemu(c, r, e);
    if (r->engine[BENCH_NATIVE].wanted)
        bench_probe_native(c, r);
}
