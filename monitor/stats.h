/* stats: what a machine counted, as text for people or JSON for programs; rows in stats.def. */
#ifndef MONITOR_STATS_H
#define MONITOR_STATS_H

#include "monitor/monitor.h"

void stats_print(struct vm *vm, bool json, FILE *out);

/* The same as JSON, without device accesses, while the machine runs; label is shown as "mark" and has neither quotes nor
 * backslashes. */
void stats_print_mark(struct vm *vm, const char *label, FILE *out);

#endif
