/* options: the command line of `ringlet run`, parsed by the table in options.def. */
#ifndef MONITOR_OPTIONS_H
#define MONITOR_OPTIONS_H

#include "monitor/monitor.h"

enum options_stats_kind { OPTIONS_NO_STATS, OPTIONS_STATS_TEXT, OPTIONS_STATS_JSON };

struct options {
    struct vm_config vm; /* strings point into argv or are owned (freed by options_finish) */
    enum options_stats_kind stats;
    uint64_t cache;         /* bytes */
    const char *trace_file; /* NULL: standard error */
    bool help;
    char *owned[VM_MAX_MODULES];
    unsigned owned_count;
};
/* argv[0] is the first argument, not the program. Needs options_finish even when it fails. */
int options_parse(struct options *o, int argc, char *const *argv, struct host_err *err);
void options_finish(struct options *o);
/* Every option with its argument and text, grouped, as the table has them. */
void options_help(FILE *out);
/* "64K", "512M", "3G", "0x10"; bare numbers count `unit` bytes. False when it is no such number or overflows.
 */
bool options_size(const char *text, uint64_t unit, uint64_t *bytes);
/* The entry of names (count long) nearest to word if it is near enough to be what was meant, else NULL. */
const char *options_nearest(const char *word, const char *const *names, unsigned count);

#endif
