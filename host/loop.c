/* The event loop: everything that happens beside guest code happens here, on one thread. */
#define _GNU_SOURCE
#include "loop.h"
#include "entry.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

int host_loop_create(struct host_loop **out, struct host_clock *clock, struct host_thread *thread,
                     struct host_err *err)
{
    struct host_loop *loop = calloc(1, sizeof(*loop));
    *out = NULL;
    if (!loop)
        return host_fail(err, "out of memory for the event loop");
    loop->clock = clock;
    loop->thread = thread;
    loop->epoll_fd = loop->wake_fd = loop->stop_fd = -1;
    if (host_watches_init(loop, err) != 0 || host_timers_init(loop, err) != 0) {
        host_loop_destroy(loop);
        return -1;
    }
    *out = loop;
    return 0;
}

void host_loop_destroy(struct host_loop *loop)
{
    if (!loop)
        return;
    host_timers_finish(loop);
    host_watches_finish(loop);
    free(loop);
}

struct host_clock *host_loop_clock(struct host_loop *loop)
{
    return loop->clock;
}

static unsigned run(struct host_loop *loop, bool force)
{
    loop->running = true;
    unsigned ran = host_timers_run(loop);
    ran += host_watches_run(loop, force);
    loop->running = false;
    host_timers_arm(loop);
    return ran;
}

unsigned host_loop_run(struct host_loop *loop)
{
    return run(loop, false);
}

/* ---- Waiting. ---- */

/* Nanoseconds from now to the next deadline, at most max_ns. */
static uint64_t time_to_sleep(struct host_loop *loop, uint64_t max_ns)
{
    uint64_t now = host_clock_ns(loop->clock), next = host_loop_next_deadline(loop);
    if (next == HOST_NEVER)
        return max_ns;
    uint64_t until = next > now ? next - now : 0;
    return until < max_ns ? until : max_ns;
}

/*T:706 Sleeping without missing the alarm
 * A halted guest waits for the next interrupt, and the thread sleeps in ppoll. The classic mistake: look
 * whether anything happened, see nothing, and go to sleep, while the signal that should have prevented it
 * arrived between the look and the sleep. So the kick signal is blocked first; then comes the look, at a
 * flag that every kick sets; then ppoll, which unblocks the signal in the same instant in which it falls
 * asleep. A kick that came before is seen in the flag, one that comes later ends the sleep.
 :*/
static void sleep_until_event(struct host_loop *loop, uint64_t ns)
{
    struct pollfd fds = {.fd = loop->epoll_fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    sigset_t kick, before, during;

    sigemptyset(&kick);
    sigaddset(&kick, HOST_SIG_KICK);
    pthread_sigmask(SIG_BLOCK, &kick, &before);
    during = before;
    sigdelset(&during, HOST_SIG_KICK);
    __atomic_store_n(&loop->waiting, 1, __ATOMIC_SEQ_CST);
    if (!loop->thread || !__atomic_load_n(&loop->thread->kicked, __ATOMIC_SEQ_CST))
        ppoll(&fds, 1, ns == HOST_NEVER ? NULL : &timeout, &during);
    __atomic_store_n(&loop->waiting, 0, __ATOMIC_SEQ_CST);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void host_loop_wait(struct host_loop *loop, uint64_t max_ns)
{
    if (run(loop, true) > 0 || host_thread_take_kick(loop->thread))
        return;
    uint64_t ns = time_to_sleep(loop, max_ns);
    if (loop->clock->is_virtual && ns != HOST_NEVER)
        host_clock_advance(loop->clock, ns);
    else
        sleep_until_event(loop, ns);
    host_thread_take_kick(loop->thread);
    run(loop, true);
}
