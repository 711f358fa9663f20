/* Timers of the event loop: one sorted list, and one POSIX timer that stands at its head. */
#define _GNU_SOURCE
#include "loop.h"
#include "entry.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* Callbacks per run. A callback that sets its timer to a time already past would otherwise keep run from
 * returning; what is left over is still due and runs next time. */
#define RUN_BUDGET 4096u

/* How often an always-ready file descriptor is offered to its owner while guest code runs. */
#define ALWAYS_READY_NS 1000000u

/* ---- The list. A dozen timers at most, so insertion by walking is cheaper than any heap. ---- */

static void list_remove(struct host_timer *t)
{
    if (t->prev)
        t->prev->next = t->next;
    else
        t->loop->timers = t->next;
    if (t->next)
        t->next->prev = t->prev;
    t->prev = t->next = NULL;
}

/* Behind its equals: timers of one deadline fire in the order in which they were set. */
static void list_insert(struct host_timer *t)
{
    struct host_timer *before = NULL, *after = t->loop->timers;
    while (after && after->deadline <= t->deadline) {
        before = after;
        after = after->next;
    }
    t->prev = before;
    t->next = after;
    if (before)
        before->next = t;
    else
        t->loop->timers = t;
    if (after)
        after->prev = t;
}

static void move_to(struct host_timer *t, uint64_t deadline)
{
    list_remove(t);
    t->deadline = deadline;
    list_insert(t);
}

struct host_timer *host_timer_create(struct host_loop *loop, host_event_fn fn, void *ctx)
{
    struct host_timer *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->loop = loop;
    t->deadline = HOST_NEVER;
    t->fn = fn;
    t->ctx = ctx;
    list_insert(t);
    return t;
}

void host_timer_destroy(struct host_timer *t)
{
    if (!t)
        return;
    list_remove(t);
    free(t);
}

void host_timer_set(struct host_timer *t, uint64_t deadline_ns)
{
    if (t->deadline == deadline_ns)
        return;
    move_to(t, deadline_ns);
    if (!t->loop->running)
        host_timers_arm(t->loop);
}

void host_timer_cancel(struct host_timer *t)
{
    if (t->deadline != HOST_NEVER)
        move_to(
            t,
            HOST_NEVER); /* the POSIX timer may fire once for nothing, which is cheaper than disarming it */
}

uint64_t host_loop_next_deadline(struct host_loop *loop)
{
    return loop->timers ? loop->timers->deadline : HOST_NEVER;
}

/* ---- The POSIX timer. ---- */

static int create_posix_timer(struct host_loop *loop, int tid)
{
    struct sigevent event;
    memset(&event, 0, sizeof(event));
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = HOST_SIG_KICK;
    event.sigev_notify_thread_id = tid;
    if (timer_create(CLOCK_MONOTONIC, &event, &loop->posix_timer) != 0)
        return -1;
    loop->posix_tid = tid;
    loop->armed = HOST_NEVER;
    return 0;
}

static void delete_posix_timer(struct host_loop *loop)
{
    if (loop->posix_tid)
        timer_delete(loop->posix_timer);
    loop->posix_tid = 0;
    loop->armed = HOST_NEVER;
}

/* The thread may enter (and so get its tid) after the loop was created, or move to another thread. */
static bool follow_thread(struct host_loop *loop)
{
    int tid = __atomic_load_n(&loop->thread->tid, __ATOMIC_SEQ_CST);
    if (tid == 0)
        return false;
    if (tid == loop->posix_tid)
        return true;
    delete_posix_timer(loop);
    return create_posix_timer(loop, tid) == 0;
}

static struct timespec absolute(const struct host_loop *loop, uint64_t deadline)
{
    uint64_t ns = loop->clock->base_ns + deadline;
    if (ns < deadline || ns > INT64_MAX)
        ns = INT64_MAX; /* 292 years */
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

/*T:704 One alarm clock
 * Devices set timers all the time: a guest that reprograms its 8254 for every tick moves a deadline
 * thousands of times a second, mostly further away. Only one of all the deadlines matters to the host, the
 * nearest, because only that one has to interrupt running guest code. And even that one is told to the
 * kernel only when it moves closer. When it moves away the alarm is left standing: it rings once for
 * nothing, the loop looks at the list, finds nothing due and sets it right. One unneeded signal at most,
 * against a system call for every change.
 :*/
void host_timers_arm(struct host_loop *loop)
{
    if (!host_loop_kicks(loop) || !follow_thread(loop))
        return;
    uint64_t nearest = host_loop_next_deadline(loop);
    if (host_watches_always_ready(loop)) {
        uint64_t poll = host_clock_ns(loop->clock) + ALWAYS_READY_NS;
        nearest = nearest < poll ? nearest : poll;
    }
    if (nearest >= loop->armed)
        return;
    struct itimerspec when = {.it_value = absolute(loop, nearest)};
    timer_settime(loop->posix_timer, TIMER_ABSTIME, &when, NULL);
    loop->armed = nearest;
}

unsigned host_timers_run(struct host_loop *loop)
{
    uint64_t now = host_clock_ns(loop->clock);
    unsigned ran = 0;

    if (loop->armed <= now)
        loop->armed = HOST_NEVER; /* it has fired, or is about to */
    while (ran < RUN_BUDGET && loop->timers && loop->timers->deadline <= now &&
           loop->timers->deadline != HOST_NEVER) {
        struct host_timer *t = loop->timers;
        move_to(t, HOST_NEVER); /* before fn, which may set or destroy it */
        t->fn(t->ctx);
        ran++;
    }
    return ran;
}

int host_timers_init(struct host_loop *loop, struct host_err *err)
{
    loop->armed = HOST_NEVER;
    if (!host_loop_kicks(loop))
        return 0;
    /* The limits that could forbid a timer are found now, when there is someone to tell. */
    int tid = __atomic_load_n(&loop->thread->tid, __ATOMIC_SEQ_CST);
    if (create_posix_timer(loop, tid ? tid : (int)syscall(SYS_gettid)) != 0)
        return host_fail(err, "cannot create a timer (%s); raise `ulimit -i`", strerror(errno));
    return 0;
}

void host_timers_finish(struct host_loop *loop)
{
    delete_posix_timer(loop);
    while (loop->timers)
        host_timer_destroy(loop->timers);
}
