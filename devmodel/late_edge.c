/* An edge that a guest sees late: see the header. */
#include "late_edge.h"

/*T:625 A hole in time, and where to put it
 *
 * Linux trusts the ACPI timer only after this test: start 30 ms of the 8254's counter 2, read the ACPI timer,
 * look at port 61h until the counter's output rises, read the ACPI timer again. The two readings must be 30 ms
 * apart, give or take 1.5. On a busy host the thread is taken off its CPU for 10 ms at a time; if the output
 * rises in such a hole, the guest sees it afterwards, and both timers, each exact, convict each other. Linux is
 * left without an ACPI timer, has to watch the TSC with something worse, and ends up without a TSC.
 *
 * The hole is real, the TSC shows it, and nothing can undo it. But a guest that looks at no clock does not know
 * where it was: between two looks at port 61h, or just after. So when a close run of looks has a hole in which
 * the edge happens, the ACPI timer, if it is what the guest reads next, is read as of the edge. The hole then
 * appears to follow that reading. A look at the TSC in between ends this: it has shown the hole, and Linux'
 * calibration of the TSC, which reads it at either side of the ACPI timer, needs the true distance of the two.
 *
 * Most likely the hole has also made ticks of counter 0 due, and their handler reads the TSC: i8254.c holds them
 * back until the moment in which the reading must come is over (LATE_EDGE_MOMENT_NS).
 *
 * No host call is needed to tell that the thread did not run: a guest that has looked every microsecond and then
 * not for twenty was not there. If it was, and did something else, the worst it gets is one reading of a moment
 * ago, never one before an earlier reading.
 :*/

enum {
    CLOSE_NS = 20000, /* looks that follow within this belong together */
    CLOSE_RUN = 8,    /* so many of them are a guest that waits for the edge and does nothing else */
};

void late_edge_missing(struct late_edge *l, uint64_t now)
{
    l->run = now - l->looked <= CLOSE_NS ? l->run + 1 : 0;
    l->looked = now;
    l->lag = 0;
}

bool late_edge_seen(struct late_edge *l, uint64_t now, uint64_t rise)
{
    bool late = l->run >= CLOSE_RUN && now - l->looked > CLOSE_NS && rise > l->looked && rise < now;
    l->run = 0; /* looking again changes nothing */
    if (late) {
        l->seen = now;
        l->lag = now - rise;
    }
    return late;
}

uint64_t late_edge_lag(const struct late_edge *l, uint64_t now)
{
    return now - l->seen <= LATE_EDGE_MOMENT_NS ? l->lag : 0;
}

void late_edge_forget(struct late_edge *l)
{
    l->lag = 0;
    l->run = 0;
}
