/* On which CPU a world runs, where the kernel does not see to it itself. */
#define _GNU_SOURCE
#include "world.h"

#include <sched.h>
#include <time.h>

#define STAY_MS 200 /* how long a placement stands before the scheduler is asked again */

/* Of this thread: Linux keeps affinity per thread. */
static _Thread_local struct {
    bool pinned;
    int cpu;
    uint64_t since;
    cpu_set_t before;
} placement __attribute__((tls_model("initial-exec")));

static uint64_t coarse_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void let_world(struct host_world *w, const cpu_set_t *set, int cpu)
{
    sched_setaffinity(w->mapper.tid, sizeof(*set), set);
    sched_setaffinity(w->runner.tid, sizeof(*set), set);
    w->cpu = cpu;
}

static void pin(uint64_t now)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    placement.cpu = sched_getcpu();
    CPU_SET((size_t)placement.cpu, &one);
    if (sched_getaffinity(0, sizeof(placement.before), &placement.before) != 0)
        return;
    placement.pinned = sched_setaffinity(0, sizeof(one), &one) == 0;
    placement.since = now;
}

void host_world_unplace(void)
{
    if (placement.pinned)
        sched_setaffinity(0, sizeof(placement.before), &placement.before);
    placement.pinned = false;
}

/*T:713 Two that take turns
 * The monitor's thread and the world are never busy at the same time, and still they are two threads. When one wakes the
 * other, the scheduler looks for an idle CPU, finds one, and wakes it from sleep by an interrupt: some 40 us, where the
 * hand-over on one CPU takes 4. Since Linux 6.6 a seccomp listener can be told that such a wake-up is a hand-over. Before
 * that, the two are bound to the CPU they are on. Not for ever, though, or several machines that happened to start on one CPU
 * would stay there: five times a second one run goes without, and the scheduler may choose anew.
 :*/
void host_world_place(struct host_world *w)
{
    if (w->hands_over)
        return;
    uint64_t now = coarse_ms();
    if (placement.pinned && now - placement.since >= STAY_MS) {
        host_world_unplace();
        let_world(w, &placement.before, -1);
        return;
    }
    if (!placement.pinned)
        pin(now);
    if (placement.pinned && w->cpu != placement.cpu) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET((size_t)placement.cpu, &one);
        let_world(w, &one, placement.cpu);
    }
}
