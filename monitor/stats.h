/* stats: what a machine counted, as text for people or JSON for programs; rows in stats.def. */
#ifndef MONITOR_STATS_H
#define MONITOR_STATS_H

#include "monitor/monitor.h"

void stats_print(struct vm *vm, bool json, FILE *out);

#endif
