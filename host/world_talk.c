/* The monitor and a world's tasks talk through seccomp notifications: a call that a filter holds until it is answered. */
#define _GNU_SOURCE
#include "world.h"
#include "entry.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
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

/* A kick was sent and nothing came. No way is known by which code in a world could bring that about, which can neither
 * block signals nor sleep. If there is one, here it ends. */
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

/* ---- A wait that no kick gets lost in. ---- */

/*T:715 Asleep in one system call
 * To wait with poll and then to fetch with ioctl are two system calls where one would do: the ioctl sleeps too. But it
 * knows no time-out, and the time-out is what brings us back when hostile code does not stop for a kick. So a kick has to
 * end the sleep. Being a signal it does, once we sleep; the instant that matters is the one between the last look at
 * `kicked` and the system call. A signal that comes then has been and gone when the sleep begins. Therefore look and call
 * are four instructions that the handler knows: if it finds that it interrupted one of them, the call not yet made, it
 * moves the instruction pointer to where the call has failed with EINTR. The kernel, when it means to make an interrupted
 * call once more, points at the very same SYSCALL, so that this case needs no rule of its own.
 :*/
long host_world_sleep(int listener, unsigned long request, void *to, const int *kicked);
extern const uint8_t host_world_sleep_begin[], host_world_sleep_end[], host_world_sleep_not[];
__asm__(".pushsection .text\n"
        ".globl host_world_sleep, host_world_sleep_begin, host_world_sleep_end, host_world_sleep_not\n"
        ".hidden host_world_sleep, host_world_sleep_begin, host_world_sleep_end, host_world_sleep_not\n"
        ".type host_world_sleep, @function\n"
        "host_world_sleep:\n"
        "host_world_sleep_begin:\n"
        "    cmpl $0, (%rcx)\n"
        "    jne host_world_sleep_not\n"
        "    mov $16, %eax\n" /* ioctl */
        "    syscall\n"
        "host_world_sleep_end:\n"
        "    ret\n"
        "host_world_sleep_not:\n"
        "    mov $-4, %rax\n" /* EINTR */
        "    ret\n"
        ".size host_world_sleep, . - host_world_sleep\n"
        ".popsection\n");
_Static_assert(SYS_ioctl == 16 && EINTR == 4, "above");

void host_world_wake(ucontext_t *uc)
{
    greg_t *rip = &uc->uc_mcontext.gregs[REG_RIP];
    if (*rip >= (greg_t)(uintptr_t)host_world_sleep_begin && *rip < (greg_t)(uintptr_t)host_world_sleep_end)
        *rip = (greg_t)(uintptr_t)host_world_sleep_not;
}

/* Linux 6.11: the sleep ends when all who could notify have. Before that it would be for ever. */
static bool sleep_ends(void)
{
    struct utsname name;
    unsigned major, minor;

    return uname(&name) == 0 && sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 11));
}

static int thread_id(void)
{
    return (int)syscall(SYS_gettid);
}

void host_world_may_sleep(struct host_world *w)
{
    w->home = getpid();
    w->sleeps = sleep_ends() && w->home > 0 && thread_id() > 0 && poll(NULL, 0, 0) == 0;
    if (w->sleeps)
        host_signal_install_kick();
}

/* Kept, for it is a system call; a child of fork is another process with the same memory. */
int host_world_driver(const struct host_world *w)
{
    static _Thread_local struct {
        int process, thread;
    } me;

    if (me.process != w->home) {
        me.process = w->home;
        me.thread = thread_id();
    }
    return me.thread;
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

/* Take the notification that is there, or wait for one as long as *unless is 0. False: there is none. EINTR says so, and
 * ENOENT, because its task was killed. */
static bool receive(struct host_world *w, const int *unless)
{
    memset(w->notif, 0, w->notif_bytes); /* the kernel insists */
    long r = host_world_sleep(w->listener, SECCOMP_IOCTL_NOTIF_RECV, w->notif, unless);
    if (r == 0)
        note(w, w->notif);
    else if (r != -EINTR && r != -ENOENT)
        host_world_died(w, "ioctl(SECCOMP_IOCTL_NOTIF_RECV) is refused (%s)", strerror((int)-r));
    return r == 0;
}

/* Wait, but not for ever. */
static void look(struct host_world *w, struct patience *patience)
{
    static const int never;
    struct pollfd fd = {.fd = w->listener, .events = POLLIN};
    int n = poll(&fd, 1, LOOK_MS);

    if (n < 0 && errno != EINTR)
        host_world_died(w, "poll is refused (%s)", strerror(errno));
    else if (n > 0 && (fd.revents & POLLIN))
        receive(w, &never);
    else if (reap(w))
        return;
    else if (n > 0)
        usleep(1000); /* hung up: its end is near */
    else
        lose_patience(w, patience);
}

/* When the sleep ended without a notification (a kick, or the world is no more) the rest is done with open eyes. */
bool host_world_await(struct host_world *w, struct world_task *task)
{
    struct patience patience = {0};
    bool sleeps = w->sleeps;

    while (!task->waits && !w->dead) {
        if (sleeps)
            sleeps = receive(w, &w->kicked);
        else
            look(w, &patience);
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
