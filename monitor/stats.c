#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "stats.h"
#include "vm.h"

enum stats_source {
    STATS_bt,
    STATS_vm,
    STATS_spt,
    STATS_host,
    STATS_cpu,
    STATS_direct,
    STATS_timer,
    STATS_SOURCES
};
typedef struct bt_counts stats_type_bt;
typedef struct vm_counts stats_type_vm;
typedef struct spt_counts stats_type_spt;
typedef struct host_counts stats_type_host;
typedef struct rc_cpu stats_type_cpu;
typedef struct bt_direct_counts stats_type_direct;
typedef struct dev_timer_counts stats_type_timer;

struct stats_row {
    const char *name, *title;
    enum stats_source source; /* STATS_SOURCES: a group's head */
    size_t offset;
};
#define GROUP(name, title) {name, title, STATS_SOURCES, 0},
#define COUNTER(name, title, source, field)                                                                  \
    {name, title, STATS_##source, offsetof(stats_type_##source, field)},
static const struct stats_row stats_rows[] = {
#include "stats.def"
};
#undef GROUP
#undef COUNTER
enum { STATS_ROWS = sizeof(stats_rows) / sizeof(stats_rows[0]) };

static const char *const stats_vectors[32] = {
    [0] = "#DE",  [1] = "#DB",  [2] = "NMI",  [3] = "#BP",  [4] = "#OF",  [5] = "#BR",
    [6] = "#UD",  [7] = "#NM",  [8] = "#DF",  [10] = "#TS", [11] = "#NP", [12] = "#SS",
    [13] = "#GP", [14] = "#PF", [16] = "#MF", [17] = "#AC", [18] = "#MC", [19] = "#XM",
};

struct stats_view {
    const uint8_t *source[STATS_SOURCES];
    const struct rc_cpu *cpu;
    const uint64_t *leaves; /* exits from translated code, by bt_exit_name() */
    uint64_t kernel, user, direct, monitor, devices, idle, total; /* ns */
    uint64_t host_kernel; /* ns of the process in the host's kernel: calls, signals, page faults, start-up */
    long rss_kib;
};

/* bt measures its shares with the TSC, whose rate it need not know: here they divide up the time its runs
 * took. */
static void stats_share_time(struct stats_view *v)
{
    double sum = (double)v->kernel + (double)v->user + (double)v->monitor;
    double spent = (double)v->total - (double)v->idle - (double)v->devices - (double)v->direct, scale;

    if (sum <= 0 || spent <= 0)
        return;
    scale = spent / sum;
    v->kernel = (uint64_t)((double)v->kernel * scale);
    v->user = (uint64_t)((double)v->user * scale);
    v->monitor = (uint64_t)((double)v->monitor * scale);
}

/* Also right while the machine runs, as for a mark. */
static uint64_t stats_total(const struct vm *vm)
{
    return vm->counts.ns_total + (vm->run_since ? vm_host_ns() - vm->run_since : 0);
}

static void stats_collect(struct vm *vm, struct stats_view *v)
{
    static const struct bt_direct_counts none;
    const struct bt_counts *bt = bt_stats(vm->vcpu);
    const struct bt_direct_counts *direct = bt_direct_stats(vm->vcpu);
    struct rusage ru = {0};

    getrusage(RUSAGE_SELF, &ru);
    *v = (struct stats_view){
        .source = {[STATS_bt] = (const uint8_t *)bt,
                   [STATS_vm] = (const uint8_t *)&vm->counts,
                   [STATS_spt] = (const uint8_t *)spt_stats(bt_spt(vm->vcpu)),
                   [STATS_host] = (const uint8_t *)&vm->host,
                   [STATS_cpu] = (const uint8_t *)bt_cpu(vm->vcpu),
                   [STATS_direct] = (const uint8_t *)(direct ? direct : &none),
                   [STATS_timer] = (const uint8_t *)dev_board_timer(vm->board)},
        .cpu = bt_cpu(vm->vcpu),
        .leaves = bt->exits,
        .kernel = bt->ticks_kernel,
        .user = bt->ticks_user,
        .monitor = bt->ticks_monitor,
        .direct = vm->counts.ns_direct,
        .devices = vm->counts.ns_devices,
        .idle = vm->counts.ns_idle,
        .total = stats_total(vm),
        .host_kernel = (uint64_t)ru.ru_stime.tv_sec * 1000000000u + (uint64_t)ru.ru_stime.tv_usec * 1000u,
        .rss_kib = ru.ru_maxrss,
    };
    stats_share_time(v);
}

static uint64_t stats_value(const struct stats_view *v, const struct stats_row *row)
{
    uint64_t n;

    memcpy(&n, v->source[row->source] + row->offset, sizeof(n));
    return n;
}

/* What dev_bus_report writes, as one string to free(). NULL when there is no memory for it. */
static char *stats_devices(struct vm *vm)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    if (!f)
        return NULL;
    dev_bus_report(dev_board_bus(vm->board), f);
    fclose(f);
    return text;
}

/* ---- Text ---- */

static void stats_text_time(FILE *out, const char *title, uint64_t ns, uint64_t total)
{
    fprintf(out, "  %-36s %12.3f s %5.1f %%\n", title, (double)ns / 1e9,
            total ? 100.0 * (double)ns / (double)total : 0.0);
}

static void stats_text(const struct stats_view *v, char *devices, FILE *out)
{
    char *rest = NULL;

    fprintf(out, "Time\n");
    stats_text_time(out, "guest user code, translated", v->user, v->total);
    stats_text_time(out, "guest user code, direct", v->direct, v->total);
    stats_text_time(out, "guest kernel code", v->kernel, v->total);
    stats_text_time(out, "monitor", v->monitor, v->total);
    stats_text_time(out, "device events", v->devices, v->total);
    stats_text_time(out, "idle", v->idle, v->total);
    stats_text_time(out, "all", v->total, v->total);
    stats_text_time(out, "this process, in the host's kernel", v->host_kernel, v->total);
    for (const struct stats_row *r = stats_rows; r < stats_rows + STATS_ROWS; r++) {
        if (r->source == STATS_SOURCES)
            fprintf(out, "%s\n", r->title);
        else
            fprintf(out, "  %-36s %12" PRIu64 "\n", r->title, stats_value(v, r));
    }
    fprintf(out, "Exits from translated code, by reason\n");
    for (unsigned i = 0; bt_exit_name(i); i++)
        fprintf(out, "  %-36s %12" PRIu64 "\n", bt_exit_name(i), v->leaves[i]);
    fprintf(out, "Exceptions delivered\n");
    for (unsigned i = 0; i < 32; i++)
        if (v->cpu->exceptions[i])
            fprintf(out, "  %2u %-33s %12" PRIu64 "\n", i, stats_vectors[i] ? stats_vectors[i] : "",
                    v->cpu->exceptions[i]);
    fprintf(out, "Device accesses\n");
    for (char *line = devices ? strtok_r(devices, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest))
        fprintf(out, "  %s\n", line);
    fprintf(out, "Peak resident memory\n  %-36s %12ld\n", "KiB", v->rss_kib);
}

/* ---- JSON (RFC 8259) ---- */

static void stats_json_string(FILE *out, const char *s)
{
    fputc('"', out);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            fprintf(out, "\\u%04x", (unsigned char)*s);
        else
            fputc(*s, out);
    }
    fputc('"', out);
}

static void stats_json_counters(const struct stats_view *v, FILE *out)
{
    bool first = true;

    for (const struct stats_row *r = stats_rows; r < stats_rows + STATS_ROWS; r++) {
        if (r->source == STATS_SOURCES) {
            fprintf(out, "%s,\n  \"%s\": {", r == stats_rows ? "" : "}", r->name);
            first = true;
        } else {
            fprintf(out, "%s\"%s\": %" PRIu64, first ? "" : ", ", r->name, stats_value(v, r));
            first = false;
        }
    }
    fprintf(out, "}");
}

static void stats_json(const struct stats_view *v, const char *mark, char *devices, FILE *out)
{
    const char *sep = "";
    char *rest = NULL;

    fputs("{\n", out);
    if (mark)
        fprintf(out, "  \"mark\": \"%s\",\n", mark);
    fprintf(out,
            "  \"time_ns\": {\"user\": %" PRIu64 ", \"direct\": %" PRIu64 ", \"kernel\": %" PRIu64
            ", \"monitor\": %" PRIu64 ", \"devices\": %" PRIu64 ", \"idle\": %" PRIu64 ", \"all\": %" PRIu64
            ", \"host_kernel\": %" PRIu64 "}",
            v->user, v->direct, v->kernel, v->monitor, v->devices, v->idle, v->total, v->host_kernel);
    stats_json_counters(v, out);
    fprintf(out, ",\n  \"cache_exits\": {");
    for (unsigned i = 0; bt_exit_name(i); i++)
        fprintf(out, "%s\"%s\": %" PRIu64, i ? ", " : "", bt_exit_name(i), v->leaves[i]);
    fprintf(out, "},\n  \"exceptions\": {");
    for (unsigned i = 0; i < 32; i++)
        if (v->cpu->exceptions[i]) {
            fprintf(out, "%s\"%u\": %" PRIu64, sep, i, v->cpu->exceptions[i]);
            sep = ", ";
        }
    fprintf(out, "},\n  \"device_accesses\": [");
    sep = "";
    for (char *line = devices ? strtok_r(devices, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest)) {
        fprintf(out, "%s\n    ", sep);
        stats_json_string(out, line);
        sep = ",";
    }
    fprintf(out, "],\n  \"peak_rss_kib\": %ld\n}\n", v->rss_kib);
}

void stats_print(struct vm *vm, bool json, FILE *out)
{
    char *devices = stats_devices(vm);
    struct stats_view v;

    stats_collect(vm, &v);
    if (json)
        stats_json(&v, NULL, devices, out);
    else
        stats_text(&v, devices, out);
    free(devices);
}

void stats_print_mark(struct vm *vm, const char *label, FILE *out)
{
    struct stats_view v;
    char *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&text, &size);

    if (!f)
        return; /* statistics are not worth a machine */
    stats_collect(vm, &v);
    stats_json(&v, label, NULL, f);
    if (fclose(f) == 0 && out)
        fwrite(text, 1, size, out); /* in one piece: the console may go to the same place */
    free(text);
}
