/* File descriptors of the event loop, and the thread that notices them while guest code runs. */
#define _GNU_SOURCE
#include "loop.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BATCH 16

static bool wanted(const struct host_watch *w)
{
    return w->want_read || w->want_write;
}

static struct host_watch *find_fd(struct host_loop *loop, int fd)
{
    struct host_watch *w = loop->watches;
    while (w && w->fd != fd)
        w = w->next;
    return w;
}

static struct host_watch *find_id(struct host_loop *loop, uint64_t id)
{
    struct host_watch *w = loop->watches;
    while (w && w->id != id)
        w = w->next;
    return w;
}

/* ---- The waker. ---- */

/*T:705 Noticing input while the guest computes
 * The vCPU thread runs guest code and looks at nothing else for as long as it can. Somebody has to notice
 * the key the user pressed: a second thread that sleeps in epoll_wait and, when woken, kicks the vCPU
 * thread with a signal. It reads nothing and calls nobody; all devices stay single-threaded.
 *
 * Its interest is one-shot, or it would spin for as long as the vCPU thread has not yet read. The vCPU
 * thread sets it again after every look at the descriptors, and setting it again fires at once if something
 * is still ready, so no readiness can fall between. While the vCPU thread sleeps in host_loop_wait it sees
 * the descriptors itself; `waiting` spares it the signal. The two flags are written before the other one is
 * read, on both sides, so at least one side sees the other.
 :*/
static void *waker_main(void *arg)
{
    struct host_loop *loop = arg;
    for (;;) {
        struct epoll_event event;
        int n = epoll_wait(loop->wake_fd, &event, 1, -1);
        if (n < 1)
            continue; /* EINTR */
        if (event.data.fd == loop->stop_fd)
            return NULL;
        __atomic_store_n(&loop->fd_ready, 1, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&loop->waiting, __ATOMIC_SEQ_CST))
            host_thread_kick(loop->thread);
    }
}

static void set_oneshot(struct host_loop *loop, int op)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = loop->epoll_fd};
    epoll_ctl(loop->wake_fd, op, loop->epoll_fd, &event);
}

/* Signals are the vCPU thread's business. */
static int create_thread_without_signals(struct host_loop *loop)
{
    sigset_t all, old;
    pthread_attr_t attr;

    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN + 65536);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int failed = pthread_create(&loop->waker, &attr, waker_main, loop);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    return failed;
}

/* On the first descriptor: many loops have none. */
static int start_waker(struct host_loop *loop)
{
    if (loop->waker_started || !host_loop_kicks(loop))
        return 0;
    int failed = create_thread_without_signals(loop);
    if (failed) {
        errno = failed;
        return -1;
    }
    loop->waker_started = true;
    return 0;
}

static void stop_waker(struct host_loop *loop)
{
    if (!loop->waker_started)
        return;
    eventfd_write(loop->stop_fd, 1);
    pthread_join(loop->waker, NULL);
    loop->waker_started = false;
}

/* ---- Registration. ---- */

static void remove_from_epoll(struct host_loop *loop, struct host_watch *w)
{
    if (!w->in_epoll)
        return;
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
    w->in_epoll = false;
    loop->in_epoll--;
}

/* Paused watches leave epoll: it reports hang-ups even of descriptors of which nothing is wanted. */
static int apply(struct host_loop *loop, struct host_watch *w)
{
    if (!wanted(w) || w->always_ready) {
        remove_from_epoll(loop, w);
        return 0;
    }
    struct epoll_event event = {.events = (w->want_read ? EPOLLIN : 0u) | (w->want_write ? EPOLLOUT : 0u),
                                .data.u64 = w->id};
    int failed = epoll_ctl(loop->epoll_fd, w->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, w->fd, &event);
    if (failed && errno == EPERM) {
        w->always_ready = true;
        return 0;
    }
    if (failed)
        return -1;
    if (!w->in_epoll)
        loop->in_epoll++;
    w->in_epoll = true;
    return start_waker(loop);
}

static struct host_watch *add_watch(struct host_loop *loop, int fd)
{
    struct host_watch *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->fd = fd;
    w->id = ++loop->next_id;
    w->next = loop->watches;
    loop->watches = w;
    return w;
}

int host_loop_watch(struct host_loop *loop, int fd, bool want_read, bool want_write, host_event_fn fn,
                    void *ctx)
{
    struct host_watch *w = find_fd(loop, fd);
    if (!w)
        w = add_watch(loop, fd);
    if (!w)
        return -1;
    w->fn = fn;
    w->ctx = ctx;
    if (w->want_read == want_read && w->want_write == want_write)
        return 0; /* devices ask for what they have all the time */
    w->want_read = want_read;
    w->want_write = want_write;
    if (apply(loop, w) != 0) {
        int saved_errno = errno;
        host_loop_unwatch(loop, fd);
        errno = saved_errno;
        return -1;
    }
    if (w->always_ready && !loop->running)
        host_timers_arm(loop);
    return 0;
}

void host_loop_unwatch(struct host_loop *loop, int fd)
{
    struct host_watch **link = &loop->watches;
    while (*link && (*link)->fd != fd)
        link = &(*link)->next;
    struct host_watch *w = *link;
    if (!w)
        return;
    remove_from_epoll(loop, w);
    *link = w->next;
    free(w);
}

/* ---- Dispatch. ---- */

bool host_watches_always_ready(const struct host_loop *loop)
{
    for (const struct host_watch *w = loop->watches; w; w = w->next) {
        if (w->always_ready && wanted(w))
            return true;
    }
    return false;
}

/* Each once per round. A callback may change the list, so the search starts anew after each. */
static unsigned run_always_ready(struct host_loop *loop)
{
    unsigned ran = 0;
    loop->round++;
    for (struct host_watch *w = loop->watches; w;) {
        if (!w->always_ready || !wanted(w) || w->last_round == loop->round) {
            w = w->next;
            continue;
        }
        w->last_round = loop->round;
        w->fn(w->ctx);
        ran++;
        w = loop->watches;
    }
    return ran;
}

static unsigned run_epoll(struct host_loop *loop)
{
    struct epoll_event events[BATCH];
    unsigned ran = 0;
    int n = epoll_wait(loop->epoll_fd, events, BATCH, 0);
    for (int i = 0; i < n; i++) {
        struct host_watch *w = find_id(loop, events[i].data.u64);
        if (w && wanted(w)) { /* an earlier callback of this batch may have removed or paused it */
            w->fn(w->ctx);
            ran++;
        }
    }
    return ran;
}

unsigned host_watches_run(struct host_loop *loop, bool force)
{
    unsigned ran = loop->watches ? run_always_ready(loop) : 0;
    bool seen = __atomic_exchange_n(&loop->fd_ready, 0, __ATOMIC_SEQ_CST) != 0;
    if (loop->in_epoll > 0 && (force || seen || !loop->waker_started))
        ran += run_epoll(loop);
    if (seen)
        set_oneshot(loop, EPOLL_CTL_MOD);
    return ran;
}

int host_watches_init(struct host_loop *loop, struct host_err *err)
{
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (loop->epoll_fd < 0 || loop->wake_fd < 0 || loop->stop_fd < 0)
        return host_fail(err, "cannot create the event loop's descriptors (%s); raise `ulimit -n`",
                         strerror(errno));
    struct epoll_event stop = {.events = EPOLLIN, .data.fd = loop->stop_fd};
    if (epoll_ctl(loop->wake_fd, EPOLL_CTL_ADD, loop->stop_fd, &stop) != 0)
        return host_fail(err, "cannot watch the event loop's descriptors (%s)", strerror(errno));
    set_oneshot(loop, EPOLL_CTL_ADD);
    return 0;
}

void host_watches_finish(struct host_loop *loop)
{
    stop_waker(loop);
    while (loop->watches)
        host_loop_unwatch(loop, loop->watches->fd);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    if (loop->stop_fd >= 0)
        close(loop->stop_fd);
}
