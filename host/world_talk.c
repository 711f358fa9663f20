/* The monitor and a world's tasks talk through seccomp notifications: a call that a filter holds until it is answered. */
#define _GNU_SOURCE
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOOK_MS     200  /* how often a wait looks whether the world still lives */
#define PATIENCE_MS 1000 /* how long a kicked world may take to come back, */
#define WASTE_MS    500  /* and how much of a CPU's time: a busy host may let it wait for its turn */

void host_world_died(struct host_world *w, const char *fmt, ...)
{
    va_list args;

    if (!w->dead) {
        va_start(args, fmt);
        vsnprintf(w->text, sizeof(w->text), fmt, args);
        va_end(args);
    }
    w->dead = true;
}

/* ---- Why is it silent? ---- */

static bool reap(struct host_world *w)
{
    int status;

    if (w->pid <= 0 || waitpid(w->pid, &status, WNOHANG | __WALL) != w->pid)
        return w->pid <= 0;
    w->pid = 0;
    if (WIFSIGNALED(status))
        host_world_died(w, "the world was killed by signal %d%s", WTERMSIG(status),
                        WTERMSIG(status) == SIGKILL ? " (by the host, for want of memory?)" : "");
    else
        host_world_died(w, "the world ended with status %d", WEXITSTATUS(status));
    return true;
}

static uint64_t ms(clockid_t clock)
{
    struct timespec t = {0};
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* CPU time of the world; where it cannot be had, real time. */
static uint64_t used_ms(const struct host_world *w)
{
    clockid_t clock;
    return ms(clock_getcpuclockid(w->pid, &clock) == 0 ? clock : CLOCK_MONOTONIC);
}

struct patience {
    bool waiting;
    uint64_t since, used; /* when it was first seen to be kicked */
};

/* A kick was sent and nothing came. 64-bit code can block signals and loop; it cannot sleep. */
static void lose_patience(struct host_world *w, struct patience *p)
{
    bool kicked =
        __atomic_load_n(&w->kicked, __ATOMIC_SEQ_CST) && __atomic_load_n(&w->running, __ATOMIC_SEQ_CST);

    if (!kicked || !p->waiting) {
        *p = (struct patience){kicked, ms(CLOCK_MONOTONIC), used_ms(w)};
    } else if (ms(CLOCK_MONOTONIC) - p->since >= PATIENCE_MS && used_ms(w) - p->used >= WASTE_MS) {
        host_world_died(w, "the world did not stop when it was told to");
        kill(w->pid, SIGKILL);
    }
}

/* ---- Notifications. ---- */

static void note(struct host_world *w, const struct seccomp_notif *n)
{
    struct world_task *task = (int)n->pid == w->mapper.tid ? &w->mapper : &w->runner;

    task->waits = true;
    task->id = n->id;
    task->tid = (int)n->pid;
    task->result = n->data.args[0];
    task->left = n->data.args[1];
}

/* Take the notification that is there. EINTR and ENOENT (its task was killed) mean: look again. */
static void receive(struct host_world *w)
{
    memset(w->notif, 0, w->notif_bytes); /* the kernel insists */
    if (ioctl(w->listener, SECCOMP_IOCTL_NOTIF_RECV, w->notif) == 0)
        note(w, w->notif);
    else if (errno != EINTR && errno != ENOENT)
        host_world_died(w, "ioctl(SECCOMP_IOCTL_NOTIF_RECV) is refused (%s)", strerror(errno));
}

bool host_world_await(struct host_world *w, struct world_task *task)
{
    struct patience patience = {0};

    while (!task->waits && !w->dead) {
        struct pollfd fd = {.fd = w->listener, .events = POLLIN};
        int n = poll(&fd, 1, LOOK_MS);
        if (n < 0 && errno != EINTR)
            host_world_died(w, "poll is refused (%s)", strerror(errno));
        else if (n > 0 && (fd.revents & POLLIN))
            receive(w);
        else if (reap(w))
            break;
        else if (n > 0)
            usleep(1000); /* hung up: its end is near */
        else
            lose_patience(w, &patience);
    }
    return !w->dead;
}

bool host_world_answer(struct host_world *w, struct world_task *task, uint64_t value)
{
    memset(w->resp, 0, w->resp_bytes);
    w->resp->id = task->id;
    w->resp->val = (int64_t)value;
    task->waits = false;
    if (w->counts)
        w->counts->world_switches++;
    if (ioctl(w->listener, SECCOMP_IOCTL_NOTIF_SEND, w->resp) == 0)
        return true;
    if (errno != ENOENT)
        host_world_died(w, "ioctl(SECCOMP_IOCTL_NOTIF_SEND) is refused (%s)", strerror(errno));
    return false;
}

int host_world_order(struct host_world *w, struct world_task *task, const struct world_call *list, unsigned n,
                     unsigned *at, int *error)
{
    memcpy(w->orders + ORDERS_CALLS, list, n * sizeof(*list));
    *at = 0;
    *error = ESRCH;
    host_world_answer(w, task, n);
    if (!host_world_await(w, task))
        return -1;
    /* Guest code could read where in RAM its pages are. */
    memset(w->orders + ORDERS_CALLS, 0, n * sizeof(*list));
    if (task->left == 0)
        return 0;
    *at = n - (unsigned)task->left;
    *error = (int)-(int64_t)task->result;
    return -1;
}
