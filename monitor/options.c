#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "options.h"

enum option_kind { STRING, FLAG, SIZE, COUNT, CALL };
struct option {
    const char *name, *argument, *help;
    enum option_kind kind;
    size_t offset; /* of the field in struct options */
    int (*call)(struct options *o, const char *value, struct host_err *err);
};

/* ---- Values with a syntax of their own ---- */

static int options_module(struct options *o, const char *value, struct host_err *err)
{
    size_t path = strcspn(value, " ");
    struct vm_module *m = &o->vm.module[o->vm.module_count];

    if (o->vm.module_count == VM_MAX_MODULES)
        return host_fail(err, "--module: at most %d modules are possible", VM_MAX_MODULES);
    if (path == 0)
        return host_fail(err, "--module needs a file name first: --module \"FILE ARGS\"");
    m->path = o->owned[o->owned_count] = strndup(value, path);
    if (!m->path)
        return host_fail(err, "no memory for the options");
    o->owned_count++;
    o->vm.module_count++;
    m->cmdline = value[path] ? value + path + 1 : "";
    return 0;
}

static int options_serial(struct options *o, const char *value, struct host_err *err)
{
    struct dev_chr_config c = {.kind = DEV_CHR_NULL, .path = NULL};

    if (o->vm.serial_count == 4)
        return host_fail(err, "--serial: a PC has 4 serial ports at most");
    if (strcmp(value, "stdio") == 0)
        c.kind = DEV_CHR_STDIO;
    else if (strncmp(value, "file:", 5) == 0 && value[5])
        c = (struct dev_chr_config){DEV_CHR_FILE, value + 5};
    else if (strcmp(value, "null") != 0)
        return host_fail(err, "--serial %s: give stdio, file:PATH or null", value);
    for (unsigned i = 0; i < o->vm.serial_count; i++)
        if (c.kind == DEV_CHR_STDIO && o->vm.serial[i].kind == DEV_CHR_STDIO)
            return host_fail(err, "--serial stdio: only one serial port can have the terminal");
    o->vm.serial[o->vm.serial_count++] = c;
    return 0;
}

static int options_debug_exit(struct options *o, const char *value, struct host_err *err)
{
    uint64_t port;

    if (strcmp(value, "none") == 0) {
        o->vm.debug_exit_port = -1;
        return 0;
    }
    if (!options_size(value, 1, &port) || port == 0 || port > 0xfffc)
        return host_fail(err, "--debug-exit %s: give a port number from 1 to 0xfffc, or none", value);
    o->vm.debug_exit_port = (int)port;
    return 0;
}

static int options_stats_port(struct options *o, const char *value, struct host_err *err)
{
    uint64_t port;

    if (!options_size(value, 1, &port) || port == 0 || port > 0xffff)
        return host_fail(err, "--stats-port %s: give a port number from 1 to 0xffff", value);
    o->vm.stats_port = (uint16_t)port;
    o->vm.stats_out = stderr;
    return 0;
}

static int options_engine(struct options *o, const char *value, struct host_err *err)
{
    if (strcmp(value, "bt") != 0 && strcmp(value, "interp") != 0)
        return host_fail(err, "--engine %s: give bt or interp", value);
    o->vm.engine = strcmp(value, "bt") == 0 ? BT_TRANSLATE : BT_INTERPRET;
    return 0;
}

static int options_user(struct options *o, const char *value, struct host_err *err)
{
    static const char *const names[] = {
        [VM_USER_TRANSLATE] = "translate", [VM_USER_AUTO] = "auto", [VM_USER_DIRECT] = "direct"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(value, names[i]) == 0) {
            o->vm.user = (enum vm_user)i;
            return 0;
        }
    return host_fail(err, "--user %s: give auto, direct or translate", value);
}

static int options_stats(struct options *o, const char *value, struct host_err *err)
{
    if (value && strcmp(value, "json") != 0)
        return host_fail(err, "--stats=%s: give --stats or --stats=json", value);
    o->stats = value ? OPTIONS_STATS_JSON : OPTIONS_STATS_TEXT;
    return 0;
}

static int options_trace_word(struct options *o, const char *word, size_t length, struct host_err *err)
{
    static const struct {
        const char *name;
        unsigned bit;
    } categories[] = {
        {"block", BT_TRACE_BLOCK},   {"exception", BT_TRACE_EXCEPTION}, {"shadow", BT_TRACE_SHADOW},
        {"device", VM_TRACE_DEVICE}, {"world", VM_TRACE_WORLD},
    };

    for (unsigned i = 0; i < sizeof(categories) / sizeof(categories[0]); i++)
        if (strlen(categories[i].name) == length && strncmp(categories[i].name, word, length) == 0) {
            o->vm.trace |= categories[i].bit;
            return 0;
        }
    return host_fail(err, "--trace: \"%.*s\" is none of block, exception, shadow, device, world", (int)length,
                     word);
}

static int options_trace(struct options *o, const char *value, struct host_err *err)
{
    size_t list = strcspn(value, ":");

    if (value[list] == ':') {
        if (!value[list + 1])
            return host_fail(err, "--trace %s: a file name is missing after the colon", value);
        o->trace_file = value + list + 1;
    }
    for (size_t at = 0, n; at <= list; at += n + 1) {
        n = strcspn(value + at, ",:");
        if (options_trace_word(o, value + at, n, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- The table ---- */

#define GROUP(title)
#define OPTION(name, argument, kind, field, handler, help)                                                   \
    {name, argument, help, kind, offsetof(struct options, field), handler},
static const struct option options_table[] = {
#include "options.def"
};
#undef GROUP
#undef OPTION
enum { OPTIONS_COUNT = sizeof(options_table) / sizeof(options_table[0]) };

bool options_size(const char *text, uint64_t unit, uint64_t *bytes)
{
    static const struct {
        const char *suffix;
        uint64_t unit;
    } units[] = {{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30},
                 {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}};
    unsigned long long n;
    char *end;

    if (*text < '0' || *text > '9') /* strtoull takes blanks and signs; a size has neither */
        return false;
    errno = 0;
    n = strtoull(text, &end, 0);
    if (errno)
        return false;
    for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]) && *end; i++)
        if (strcmp(end, units[i].suffix) == 0) {
            unit = units[i].unit;
            end++;
        }
    return !*end && !__builtin_mul_overflow((uint64_t)n, unit, bytes);
}

/* Levenshtein distance, for words up to 31 characters. */
static unsigned options_distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b);
    unsigned row[32];

    if (la > 31 || lb > 31)
        return 99;
    for (unsigned j = 0; j <= lb; j++)
        row[j] = j;
    for (unsigned i = 1; i <= la; i++) {
        unsigned diagonal = row[0];

        row[0] = i;
        for (unsigned j = 1; j <= lb; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

const char *options_nearest(const char *word, const char *const *names, unsigned count)
{
    unsigned best = 3; /* more than two slips is another word */
    const char *near = NULL;

    for (unsigned i = 0; i < count; i++) {
        unsigned d = options_distance(word, names[i]);

        if (d < best) {
            best = d;
            near = names[i];
        } else if (!near && strlen(word) >= 3 && strncmp(word, names[i], strlen(word)) == 0) {
            near = names[i];
        }
    }
    return near;
}

static int options_unknown(const char *name, struct host_err *err)
{
    const char *names[OPTIONS_COUNT], *near;

    for (unsigned i = 0; i < OPTIONS_COUNT; i++)
        names[i] = options_table[i].name;
    near = options_nearest(name, names, OPTIONS_COUNT);
    if (near)
        return host_fail(err, "there is no option --%s; did you mean --%s?", name, near);
    return host_fail(err, "there is no option --%s; `ringlet run --help` lists all", name);
}

static int options_store(struct options *o, const struct option *opt, const char *value, struct host_err *err)
{
    void *field = (char *)o + opt->offset;
    uint64_t n;

    switch (opt->kind) {
    case STRING:
        memcpy(field, &value, sizeof(value));
        return 0;
    case FLAG:
        *(bool *)field = true;
        return 0;
    case SIZE:
        if (!options_size(value, 1 << 20, &n))
            return host_fail(err, "--%s %s: not a size; write for instance 512M", opt->name, value);
        memcpy(field, &n, sizeof(n));
        return 0;
    case COUNT:
        if (!options_size(value, 1, &n) || n == 0 || n > INT32_MAX)
            return host_fail(err, "--%s %s: not a positive number", opt->name, value);
        *(unsigned *)field = (unsigned)n;
        return 0;
    case CALL:
        return opt->call(o, value, err);
    }
    return -1;
}

static bool options_value_optional(const struct option *opt)
{
    return opt->argument && opt->argument[0] == '[';
}

/* One option at argv[*i]; moves *i over a value of its own. */
static int options_one(struct options *o, int argc, char *const *argv, int *i, struct host_err *err)
{
    const char *arg = argv[*i], *name = arg + 2, *value = NULL;
    size_t length;

    if (strcmp(arg, "-h") == 0)
        name = "help";
    else if (strncmp(arg, "--", 2) != 0 || !arg[2])
        return host_fail(
            err, "unexpected argument %s; a guest is given with --kernel FILE or --multiboot FILE", arg);
    length = strcspn(name, "=");
    if (name[length] == '=')
        value = name + length + 1;
    for (const struct option *opt = options_table; opt < options_table + OPTIONS_COUNT; opt++) {
        if (strlen(opt->name) != length || strncmp(opt->name, name, length) != 0)
            continue;
        if (!opt->argument && value)
            return host_fail(err, "--%s takes no value", opt->name);
        if (opt->argument && !value && !options_value_optional(opt)) {
            if (*i + 1 >= argc)
                return host_fail(err, "--%s needs a value: --%s %s", opt->name, opt->name, opt->argument);
            value = argv[++*i];
        }
        return options_store(o, opt, value, err);
    }
    char word[64];
    snprintf(word, sizeof(word), "%.*s", (int)(length < 63 ? length : 63), name);
    return options_unknown(word, err);
}

/* Options that are fine alone but not together, and limits that need all of them. */
static int options_check(struct options *o, struct host_err *err)
{
    struct vm_config *c = &o->vm;

    if (c->kernel && c->multiboot)
        return host_fail(err, "--kernel and --multiboot exclude each other");
    if (c->initrd && !c->kernel)
        return host_fail(err, "--initrd needs --kernel%s",
                         c->multiboot ? "; a Multiboot guest takes --module" : "");
    if (c->module_count && !c->multiboot)
        return host_fail(err, "--module needs --multiboot");
    if (c->append && !c->kernel && !c->multiboot)
        return host_fail(err, "--append needs --kernel or --multiboot");
    if (c->memory < (UINT64_C(4) << 20) || c->memory > (UINT64_C(3584) << 20))
        return host_fail(err, "--memory: a 32-bit PC takes 4M to 3584M");
    if (c->memory % (1 << 20) != 0)
        return host_fail(err, "--memory: give whole MiB");
    if (o->cache && (o->cache < (1 << 20) || o->cache > (UINT64_C(1) << 30)))
        return host_fail(err, "--cache: 1M to 1024M are possible");
    if (c->max_user_spaces >= SPT_MAX_SPACES)
        return host_fail(err, "--max-windows: 1 to %u are possible", SPT_MAX_SPACES - 1);
    if (c->user == VM_USER_DIRECT && c->engine != BT_TRANSLATE)
        return host_fail(err, "--user direct needs --engine bt: the interpreter has no worlds");
    if (c->worlds >= SPT_MAX_SPACES)
        return host_fail(err, "--worlds: 1 to %u are possible", SPT_MAX_SPACES - 1);
    return 0;
}

int options_parse(struct options *o, int argc, char *const *argv, struct host_err *err)
{
    *o = (struct options){
        .vm = {.memory = UINT64_C(512) << 20, .escape = true, .engine = BT_TRANSLATE, .user = VM_USER_AUTO}};
    for (int i = 0; i < argc; i++)
        if (options_one(o, argc, argv, &i, err) < 0)
            return -1;
    if (o->help)
        return 0;
    if (o->vm.serial_count == 0)
        o->vm.serial[o->vm.serial_count++] = (struct dev_chr_config){.kind = DEV_CHR_STDIO};
    o->vm.cache_bytes = o->cache;
    return options_check(o, err);
}

void options_finish(struct options *o)
{
    for (unsigned i = 0; i < o->owned_count; i++)
        free(o->owned[i]);
    o->owned_count = 0;
}

/* ---- Help ---- */

static void options_help_row(FILE *out, const char *name, const char *argument, const char *help)
{
    const char *sep = !argument ? "" : argument[0] == '[' ? "[=" : " ";
    char left[64];

    snprintf(left, sizeof(left), "--%s%s%s", name, sep, argument ? argument + (argument[0] == '[') : "");
    if (strlen(left) > 24)
        fprintf(out, "  %s\n  %-24s  %s\n", left, "", help);
    else
        fprintf(out, "  %-24s  %s\n", left, help);
}

void options_help(FILE *out)
{
#define GROUP(title)                                       fprintf(out, "\n%s\n", title);
#define OPTION(name, argument, kind, field, handler, help) options_help_row(out, name, argument, help);
#include "options.def"
#undef GROUP
#undef OPTION
}
