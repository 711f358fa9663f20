/* ringlet bench: this very executable against QEMU and the bare host, on the programs of tests/bench. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include "bench.h"
#include "cmd.h"
#include "options.h"

#ifndef RINGLET_VERSION
#define RINGLET_VERSION "unversioned"
#endif

struct bench_options {
    struct bench_config config;
    struct bench_results results;
    const char *json, *html;
    FILE *json_out, *html_out;
    char self[4096], programs[4096], cache[4096];
    bool help;
};
struct bench_option {
    const char *name, *argument, *help;
    int (*set)(struct bench_options *o, const char *value, struct host_err *err);
};

/* ---- Options ---- */

/* Marks each word of a comma-separated list; names has `count`. */
static int bench_words(const char *list, const char *what, const char *const *names, unsigned count,
                       bool *marked, struct host_err *err)
{
    for (const char *word = list;; word++) {
        size_t n = strcspn(word, ",");
        unsigned i = 0;

        while (i < count && (strlen(names[i]) != n || strncmp(names[i], word, n) != 0))
            i++;
        if (i == count)
            return host_fail(err, "there is no %s \"%.*s\"; `ringlet bench --help` lists all", what, (int)n,
                             word);
        marked[i] = true;
        word += n;
        if (!*word)
            return 0;
    }
}

static int set_suite(struct bench_options *o, const char *value, struct host_err *err)
{
    return bench_words(value, "suite", bench_suite_names, BENCH_SUITES, o->results.suite, err);
}

static int set_engines(struct bench_options *o, const char *value, struct host_err *err)
{
    bool marked[BENCH_ENGINES] = {false};

    if (bench_words(value, "engine", bench_engine_names, BENCH_ENGINES, marked, err) < 0)
        return -1;
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        o->results.engine[e].wanted |= marked[e];
    return 0;
}

static int set_rounds(struct bench_options *o, const char *value, struct host_err *err)
{
    uint64_t n;

    if (!options_size(value, 1, &n) || n == 0 || n > BENCH_MAX_ROUNDS)
        return host_fail(err, "--rounds %s: 1 to %d are possible", value, BENCH_MAX_ROUNDS);
    o->results.rounds = (unsigned)n;
    return 0;
}

static int set_memory(struct bench_options *o, const char *value, struct host_err *err)
{
    uint64_t *m = &o->results.memory;

    if (!options_size(value, 1 << 20, m) || *m < (64 << 20) || *m > (UINT64_C(3584) << 20))
        return host_fail(err, "--memory %s: 64M to 3584M are possible", value);
    return 0;
}

static int set_path(char *field, size_t size, const char *name, const char *value, struct host_err *err)
{
    if ((size_t)snprintf(field, size, "%s", value) >= size)
        return host_fail(err, "%s: the path is too long", name);
    return 0;
}

static int set_programs(struct bench_options *o, const char *value, struct host_err *err)
{
    return set_path(o->programs, sizeof(o->programs), "--programs", value, err);
}

static int set_cache(struct bench_options *o, const char *value, struct host_err *err)
{
    return set_path(o->cache, sizeof(o->cache), "--cache", value, err);
}

static int set_json(struct bench_options *o, const char *value, struct host_err *err)
{
    (void)err;
    o->json = value;
    return 0;
}

static int set_html(struct bench_options *o, const char *value, struct host_err *err)
{
    (void)err;
    o->html = value;
    return 0;
}

static int set_extra(struct bench_options *o, const char *value, struct host_err *err)
{
    if (o->config.extra_count == BENCH_MAX_EXTRA)
        return host_fail(err, "--extra: at most %d", BENCH_MAX_EXTRA);
    o->config.extra[o->config.extra_count++] = value;
    return 0;
}

static int set_quick(struct bench_options *o, const char *value, struct host_err *err)
{
    (void)value;
    (void)err;
    o->results.quick = true;
    return 0;
}

static int set_help(struct bench_options *o, const char *value, struct host_err *err)
{
    (void)value;
    (void)err;
    o->help = true;
    return 0;
}

static const struct bench_option bench_options[] = {
    {"suite", "LIST", "of nano, linux, linux-2g, compute, apps, boot, scale, comma-separated; default: all",
     set_suite},
    {"engines", "LIST",
     "of ringlet, tcg, kvm, native; default: all that work here; also ringlet-auto, ringlet-direct, "
     "ringlet-translate",
     set_engines},
    {"rounds", "N", "how often each engine runs everything, in turn; default 3, with --quick 1", set_rounds},
    {"quick", NULL, "shorter runs, one round, without the rows that take long", set_quick},
    {"memory", "SIZE", "memory of the Linux guests, default 512M (linux-2g, apps and scale have their own)",
     set_memory},
    {"json", "FILE", "write the figures as JSON as well", set_json},
    {"html", "FILE", "write a report with charts as well", set_html},
    {"cache", "DIR", "where Debian's kernel and initramfs are; default: ${RINGLET_CACHE:-~/.cache/ringlet}",
     set_cache},
    {"programs", "DIR", "where the benchmark programs are; default: beside this executable's build",
     set_programs},
    {"extra", "ARG", "one more argument for `ringlet run`; may be repeated", set_extra},
    {"help", NULL, "this text", set_help},
};
enum { BENCH_OPTIONS = sizeof(bench_options) / sizeof(bench_options[0]) };

void cmd_help_bench(FILE *out)
{
    fputs("usage: ringlet bench [options]\n\n"
          "Runs small programs as guests of ringlet, of QEMU (tcg, kvm) and on the bare host, and compares. "
          "What this\n"
          "host lacks is said and left out. Ctrl-C ends it and keeps what has been measured.\n\n",
          out);
    for (unsigned i = 0; i < BENCH_OPTIONS; i++) {
        const struct bench_option *b = &bench_options[i];
        char left[40];

        snprintf(left, sizeof(left), "--%s%s%s", b->name, b->argument ? " " : "",
                 b->argument ? b->argument : "");
        fprintf(out, "  %-18s  %s\n", left, b->help);
    }
    fputs("\nExamples\n"
          "  ringlet bench --quick\n"
          "  ringlet bench --suite nano --engines ringlet,tcg --rounds 5\n"
          "  ringlet bench --json bench.json --html bench.html\n",
          out);
}

static int bench_unknown(const char *arg, struct host_err *err)
{
    const char *names[BENCH_OPTIONS], *near;

    for (unsigned i = 0; i < BENCH_OPTIONS; i++)
        names[i] = bench_options[i].name;
    near = strncmp(arg, "--", 2) == 0 ? options_nearest(arg + 2, names, BENCH_OPTIONS) : NULL;
    if (near)
        return host_fail(err, "there is no option %s; did you mean --%s?", arg, near);
    return host_fail(err, "unexpected argument %s; `ringlet bench --help` lists all", arg);
}

static int bench_option_parse(struct bench_options *o, int argc, char *const *argv, int *i,
                              struct host_err *err)
{
    const char *arg = argv[*i], *name = strncmp(arg, "--", 2) == 0 ? arg + 2
                                        : strcmp(arg, "-h") == 0   ? "help"
                                                                   : "";
    size_t n = strcspn(name, "=");

    for (unsigned k = 0; k < BENCH_OPTIONS; k++) {
        const struct bench_option *b = &bench_options[k];
        const char *value = name[n] ? name + n + 1 : NULL;

        if (strlen(b->name) != n || strncmp(b->name, name, n) != 0)
            continue;
        if (!b->argument && value)
            return host_fail(err, "--%s takes no value", b->name);
        if (b->argument && !value && *i + 1 >= argc)
            return host_fail(err, "--%s needs a value: --%s %s", b->name, b->name, b->argument);
        if (b->argument && !value)
            value = argv[++*i];
        return b->set(o, value, err);
    }
    return bench_unknown(arg, err);
}

static void bench_defaults(struct bench_options *o)
{
    struct bench_results *r = &o->results;
    bool any_suite = false, any_engine = false;

    for (unsigned s = 0; s < BENCH_SUITES; s++)
        any_suite |= r->suite[s];
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        any_engine |= r->engine[e].wanted;
    for (unsigned s = 0; s < BENCH_SUITES; s++)
        r->suite[s] |= !any_suite;
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        r->engine[e].wanted |= !any_engine && (e == BENCH_RINGLET || e >= BENCH_RINGLETS);
    if (!r->rounds)
        r->rounds = r->quick ? 1 : 3;
    if (!r->memory)
        r->memory = UINT64_C(512) << 20;
    r->version = RINGLET_VERSION;
}

static int bench_parse(struct bench_options *o, int argc, char *const *argv, struct host_err *err)
{
    for (int i = 0; i < argc; i++)
        if (bench_option_parse(o, argc, argv, &i, err) < 0)
            return -1;
    bench_defaults(o);
    return 0;
}

/* ---- Where things are ---- */

static void bench_default_cache(struct bench_options *o)
{
    const char *own = getenv("RINGLET_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (o->cache[0])
        return;
    if (own && *own)
        snprintf(o->cache, sizeof(o->cache), "%s", own);
    else if (xdg && *xdg)
        snprintf(o->cache, sizeof(o->cache), "%s/ringlet", xdg);
    else
        snprintf(o->cache, sizeof(o->cache), "%s/.cache/ringlet", home && *home ? home : "/root");
}

/* In the build directory the programs are in tests/bench, installed in libexec. */
static int bench_default_programs(struct bench_options *o, struct host_err *err)
{
    static const char *const places[] = {"../tests/bench", "../libexec/ringlet/bench"};
    char probe[4200];
    int directory = (int)(strrchr(o->self, '/') - o->self);

    for (unsigned i = 0; i < 2 && !o->programs[0]; i++) {
        snprintf(probe, sizeof(probe), "%.*s/%s/nano.elf", directory, o->self, places[i]);
        if (access(probe, R_OK) == 0)
            snprintf(o->programs, sizeof(o->programs), "%.*s/%.40s", directory > 4000 ? 4000 : directory,
                     o->self, places[i]);
    }
    if (!o->programs[0])
        return host_fail(err,
                         "the benchmark programs are neither in tests/bench of the build directory nor in "
                         "libexec/ringlet/bench; build them (ninja) or name the place with --programs DIR");
    snprintf(probe, sizeof(probe), "%s/nano.elf", o->programs);
    if (access(probe, R_OK) != 0)
        return host_fail(err, "--programs %.300s: there is no nano.elf", o->programs);
    return 0;
}

static int bench_find(struct bench_options *o, struct host_err *err)
{
    ssize_t n = readlink("/proc/self/exe", o->self, sizeof(o->self) - 1);

    if (n <= 0)
        return host_fail(err, "/proc/self/exe cannot be read (%s); is /proc mounted?", strerror(errno));
    o->self[n] = 0;
    bench_default_cache(o);
    o->config.self = o->self;
    o->config.cache = o->cache;
    o->config.programs = o->programs;
    return bench_default_programs(o, err);
}

/* MemAvailable, which counts the page cache; 0 when it cannot be read. */
static unsigned bench_host_mib(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    unsigned long kib = 0;
    char line[128];

    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "MemAvailable: %lu", &kib) == 1)
            break;
    if (f)
        fclose(f);
    return (unsigned)(kib / 1024);
}

static void bench_describe_host(struct bench_results *r)
{
    struct host_features f;
    time_t now = time(NULL);
    struct tm tm;
    double load;

    host_features_probe(&f);
    if (getloadavg(&load, 1) == 1 && f.cpus)
        r->load = load / f.cpus;
    snprintf(r->host, sizeof(r->host), "%s, %u CPUs, %s", f.cpu_name, f.cpus, f.kernel);
    strftime(r->date, sizeof(r->date), "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &tm));
}

/* ---- Running ---- */

static int bench_signals(struct host_err *err)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return fd < 0 ? host_fail(err, "signalfd: %s", strerror(errno)) : fd;
}

/* Before anything is measured: half an hour later is too late to hear that a file cannot be written. */
static int bench_open(FILE **out, const char *path, struct host_err *err)
{
    if (!path)
        return 0;
    *out = fopen(path, "we");
    return *out ? 0 : host_fail(err, "%s cannot be written: %s", path, strerror(errno));
}

static int bench_write(FILE **out, const char *path, void (*print)(const struct bench_results *, FILE *),
                       const struct bench_results *r, struct host_err *err)
{
    FILE *f = *out;
    bool bad;

    if (!f)
        return 0;
    print(r, f);
    *out = NULL;
    bad = ferror(f);
    if (fclose(f) != 0 || bad)
        return host_fail(err, "%s cannot be written completely: %s", path, strerror(errno));
    return 0;
}

/* The signal that interrupted; what is readable from a signalfd is there already. */
static int bench_interrupted(const struct bench_options *o)
{
    struct signalfd_siginfo info;

    if (read(o->config.signals, &info, sizeof(info)) != sizeof(info))
        return CMD_CANNOT_START;
    return 128 + (int)info.ssi_signo;
}

static void bench_say_engines(const struct bench_results *r)
{
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (r->engine[e].wanted && !r->engine[e].here)
            cmd_say("bench: without %s: %s", bench_engine_names[e], r->engine[e].note);
}

static int bench_prepare(struct bench_options *o, struct host_err *err)
{
    struct bench_results *r = &o->results;

    if (bench_find(o, err) < 0 || bench_open(&o->json_out, o->json, err) < 0 ||
        bench_open(&o->html_out, o->html, err) < 0 || (o->config.signals = bench_signals(err)) < 0)
        return -1;
    bench_describe_host(r);
    o->config.host_mib = bench_host_mib();
    bench_engines_probe(&o->config, r);
    bench_say_engines(r);
    if (bench_host_busy(r))
        cmd_say("bench: this host is busy: %.1f programs want each of its CPUs; a quiet one measures better",
                r->load);
    for (unsigned e = 0; e < BENCH_ENGINES; e++)
        if (r->engine[e].here)
            return 0;
    return host_fail(err, "no engine works on this host");
}

static int bench_all(struct bench_options *o, struct host_err *err)
{
    struct bench_results *r = &o->results;

    if (bench_prepare(o, err) < 0)
        return -1;
    if (bench_run(&o->config, r, err) < 0)
        cmd_say("%s", err->text); /* and show what there is */
    bench_table_print(r, stdout);
    if (bench_write(&o->json_out, o->json, bench_json_print, r, err) < 0 ||
        bench_write(&o->html_out, o->html, bench_html_print, r, err) < 0)
        return -1;
    return r->partial ? bench_interrupted(o) : CMD_OK;
}

static void bench_finish(struct bench_options *o)
{
    if (o->json_out)
        fclose(o->json_out);
    if (o->html_out)
        fclose(o->html_out);
    if (o->config.signals >= 0)
        close(o->config.signals);
    bench_results_finish(&o->results);
    free(o);
}

int cmd_bench(int argc, char *const *argv)
{
    struct bench_options *o = calloc(1, sizeof(*o));
    struct host_err err = {""};
    int status = CMD_USAGE;

    if (!o || bench_results_init(&o->results, &err) < 0) {
        cmd_say("no memory");
        free(o);
        return CMD_CANNOT_START;
    }
    o->config.signals = -1;
    if (bench_parse(o, argc, argv, &err) < 0) {
        cmd_say("%s", err.text);
    } else if (o->help) {
        cmd_help_bench(stdout);
        status = CMD_OK;
    } else if ((status = bench_all(o, &err)) < 0) {
        cmd_say("%s", err.text);
        status = CMD_CANNOT_START;
    }
    bench_finish(o);
    return status;
}
