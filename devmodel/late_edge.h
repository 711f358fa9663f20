/*
 * An edge that a guest sees late, because the host did not let it look in time. Times are in ns of the loop's
 * clock.
 */
#ifndef DEVMODEL_LATE_EDGE_H
#define DEVMODEL_LATE_EDGE_H

#include <stdbool.h>
#include <stdint.h>

/* What comes later than this after the edge was seen has nothing to do with it. Long for three instructions, but they
 * may have to be translated first. */
enum { LATE_EDGE_MOMENT_NS = 200000 };

struct late_edge {
    uint64_t looked; /* when the guest last looked for the edge and there was none */
    uint64_t seen;   /* when it saw it ... */
    uint64_t lag;    /* ... and how long ago that then was; 0: it was in time */
    unsigned run;    /* looks in a row that came close upon each other */
};

void late_edge_missing(struct late_edge *l, uint64_t now); /* the guest looked: not yet */
/* The guest looked: there it is, since rise. True if a close run of looks had a hole just here. */
bool late_edge_seen(struct late_edge *l, uint64_t now, uint64_t rise);
/* By how much another timer that is read now must be put back to fit what the guest saw. */
uint64_t late_edge_lag(const struct late_edge *l, uint64_t now);
void late_edge_forget(struct late_edge *l);

#endif
