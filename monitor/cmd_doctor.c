/* ringlet doctor: what this host offers, what is missing, what to do. The same table guards `ringlet run`. */
#include "cmd.h"

enum doctor_need { DOCTOR_REQUIRED, DOCTOR_TRANSLATE, DOCTOR_OPTIONAL };
struct doctor_row {
    const char *label, *used_for, *advice;
    enum doctor_need need;
    bool found;
};
enum { DOCTOR_MAX_ROWS = 16 };

static unsigned doctor_rows(const struct host_features *f, struct doctor_row rows[DOCTOR_MAX_ROWS])
{
#define FEATURE(label, found, need, used_for, advice) {label, used_for, advice, DOCTOR_##need, found},
    const struct doctor_row all[] = {
#include "doctor.def"
    };
#undef FEATURE
    unsigned n = sizeof(all) / sizeof(all[0]);

    _Static_assert(sizeof(all) / sizeof(all[0]) <= DOCTOR_MAX_ROWS, "more rows than room");
    for (unsigned i = 0; i < n; i++)
        rows[i] = all[i];
    return n;
}

static bool doctor_blocks(const struct doctor_row *row, enum bt_engine engine)
{
    return !row->found &&
           (row->need == DOCTOR_REQUIRED || (row->need == DOCTOR_TRANSLATE && engine == BT_TRANSLATE));
}

int cmd_doctor_check(enum bt_engine engine, struct host_err *err)
{
    struct doctor_row rows[DOCTOR_MAX_ROWS];
    struct host_features f;
    unsigned n;

    host_features_probe(&f);
    n = doctor_rows(&f, rows);
    for (unsigned i = 0; i < n; i++)
        if (doctor_blocks(&rows[i], engine))
            return host_fail(err, "this host lacks: %s (needed for %s). %s. `ringlet doctor` shows all%s",
                             rows[i].label, rows[i].used_for, rows[i].advice,
                             rows[i].need == DOCTOR_TRANSLATE ? "; --engine interp works without it" : "");
    return 0;
}

static void doctor_print(const struct doctor_row *row)
{
    static const char *const need[] = {"required", "required by --engine bt", "optional"};

    printf("  %-22s %-4s %-24s %s\n", row->label, row->found ? "yes" : "NO", need[row->need], row->used_for);
    if (!row->found)
        printf("  %-22s      -> %s\n", "", row->advice);
}

int cmd_doctor(int argc, char *const *argv)
{
    struct doctor_row rows[DOCTOR_MAX_ROWS];
    struct host_features f;
    unsigned n, missing = 0;

    if (argc > 0) {
        cmd_say("doctor takes no arguments, and got %s", argv[0]);
        return CMD_USAGE;
    }
    host_features_probe(&f);
    n = doctor_rows(&f, rows);
    printf("host: %s, %u CPUs, %s, vm.max_map_count %u\n\n", f.cpu_name, f.cpus, f.kernel, f.max_map_count);
    printf("  %-22s %-4s %-24s %s\n", "feature", "here", "need", "used for");
    for (unsigned i = 0; i < n; i++) {
        doctor_print(&rows[i]);
        missing += doctor_blocks(&rows[i], BT_TRANSLATE);
    }
    printf("\n%s\n",
           missing ? "Something required is missing: see the arrows." : "Everything ringlet needs is here.");
    return missing ? CMD_CANNOT_START : CMD_OK;
}
