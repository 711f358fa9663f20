/* host-internal: the parts of the event loop. timer.c owns the deadlines, watch.c the file descriptors,
 * loop.c turns. */
#ifndef HOST_LOOP_H
#define HOST_LOOP_H

#include <pthread.h>
#include <time.h>
#include "host/host.h"

#define HOST_NEVER UINT64_MAX

struct host_timer {
    struct host_loop *loop;
    struct host_timer *prev, *next;
    uint64_t deadline; /* HOST_NEVER: not set */
    host_event_fn fn;
    void *ctx;
};

struct host_watch {
    struct host_watch *next;
    uint64_t id; /* never reused: an event of a watch that is gone finds nobody */
    int fd;
    bool want_read, want_write;
    bool always_ready; /* epoll refuses it: regular files, /dev/null */
    bool in_epoll;
    uint64_t last_round; /* always_ready: the round in which fn ran */
    host_event_fn fn;
    void *ctx;
};

struct host_loop {
    struct host_clock *clock;
    struct host_thread *thread; /* whom to kick, or NULL */
    bool running;               /* inside host_loop_run: timers are armed once, at its end */

    struct host_timer *timers; /* all of them, ascending by deadline, those not set last */
    timer_t posix_timer;
    int posix_tid;  /* the thread posix_timer signals; 0: there is no posix_timer */
    uint64_t armed; /* the deadline posix_timer stands at, HOST_NEVER when it has fired or was never set */

    struct host_watch *watches;
    uint64_t next_id, round;
    unsigned in_epoll; /* watches that epoll_fd holds */
    int epoll_fd;

    /* The waker thread sleeps on wake_fd, which holds epoll_fd (one-shot) and stop_fd. */
    pthread_t waker;
    bool waker_started;
    int wake_fd, stop_fd;
    int fd_ready; /* atomic: the waker saw readiness; its one-shot must be set again */
    int waiting;  /* atomic: the owner sleeps in host_loop_wait and sees readiness itself */
};

/* Kicks are for guest code that runs in real time. */
static inline bool host_loop_kicks(const struct host_loop *loop)
{
    return loop->thread && !loop->clock->is_virtual;
}

/* timer.c */
int host_timers_init(struct host_loop *loop, struct host_err *err);
void host_timers_finish(struct host_loop *loop);
unsigned host_timers_run(struct host_loop *loop);
void host_timers_arm(struct host_loop *loop);

/* watch.c */
int host_watches_init(struct host_loop *loop, struct host_err *err);
void host_watches_finish(struct host_loop *loop);
/* force: ask the kernel even if the waker has seen nothing (yet). */
unsigned host_watches_run(struct host_loop *loop, bool force);
bool host_watches_always_ready(const struct host_loop *loop);

#endif
