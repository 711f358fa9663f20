/* A child process watched: its output collected, its silence limited, nothing of it left behind. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "bench.h"

enum { CHILD_MOST_OUTPUT = 4 << 20, CHILD_TICK_MS = 200 };

struct bench_child {
    pid_t pid;
    int out;
    double started, heard;
    size_t room;
    struct bench_child_result *res;
};

static double bench_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* In the child. A process group of its own keeps the terminal's Ctrl-C from it: the parent decides what ends when. */
static _Noreturn void bench_child_become(char *const *argv, int out, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY);
    sigset_t none;

    setpgid(0, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before it could be watched */
        _exit(126);
    dup2(null, 0);
    dup2(out, 1);
    dup2(out, 2);
    execv(argv[0], argv);
    dprintf(2, "bench: %s cannot be run: %s\n", argv[0], strerror(errno));
    _exit(126);
}

static int bench_child_start(struct bench_child *ch, char *const *argv, struct host_err *err)
{
    pid_t parent = getpid();
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return host_fail(err, "pipe: %s", strerror(errno));
    ch->pid = fork();
    if (ch->pid == 0)
        bench_child_become(argv, fds[1], parent);
    close(fds[1]);
    if (ch->pid < 0) {
        close(fds[0]);
        return host_fail(err, "fork: %s", strerror(errno));
    }
    setpgid(ch->pid, ch->pid); /* here and there: whoever is first */
    ch->out = fds[0];
    ch->started = ch->heard = bench_clock();
    return 0;
}

/* Makes room for more and a terminating zero; false when there is none, or the child talks without end. */
static bool bench_child_room(struct bench_child *ch)
{
    size_t want = ch->room ? ch->room * 2 : 65536;
    char *text;

    if (ch->res->length + 1 < ch->room)
        return true;
    text = want <= CHILD_MOST_OUTPUT ? realloc(ch->res->text, want) : NULL;
    if (!text)
        return false;
    ch->res->text = text;
    ch->room = want;
    return true;
}

/* Returns false at the end of its output. */
static bool bench_child_hear(struct bench_child *ch, const char *marker)
{
    struct bench_child_result *r = ch->res;
    ssize_t n;

    if (!bench_child_room(ch))
        return false;
    n = read(ch->out, r->text + r->length, ch->room - r->length - 1);
    if (n <= 0)
        return n < 0 && errno == EINTR;
    for (ssize_t i = 0; i < n; i++)
        if (!r->text[r->length + i]) /* so that what searches text sees all of it */
            r->text[r->length + i] = '?';
    r->length += n;
    r->text[r->length] = 0;
    ch->heard = bench_clock();
    if (marker && r->marker < 0 && strstr(r->text, marker))
        r->marker = ch->heard - ch->started;
    return true;
}

static void bench_child_watch(struct bench_child *ch, const struct bench_config *c, const char *marker,
                              double silence, void (*tick)(void *), void *tick_ctx)
{
    struct pollfd fds[2] = {{.fd = ch->out, .events = POLLIN}, {.fd = c->signals, .events = POLLIN}};

    for (;;) {
        if (poll(fds, 2, CHILD_TICK_MS) < 0 && errno != EINTR)
            return;
        if (tick)
            tick(tick_ctx);
        if (fds[1].revents & POLLIN) {
            ch->res->interrupted = true;
            return;
        }
        if ((fds[0].revents & (POLLIN | POLLHUP | POLLERR)) && !bench_child_hear(ch, marker))
            return;
        if (bench_clock() - ch->heard > silence) {
            ch->res->timed_out = true;
            return;
        }
    }
}

/* It has closed its output; does it end by itself? */
static bool bench_child_ended(const struct bench_child *ch)
{
    const struct timespec pause = {.tv_nsec = 10000000};

    for (unsigned i = 0; i < 300; i++) {
        siginfo_t info = {.si_pid = 0};

        if (waitid(P_PID, (id_t)ch->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid)
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* While the dead child has not been waited for, its process group's number is nobody else's: the time to end what it
 * left running. */
static void bench_child_reap(struct bench_child *ch)
{
    siginfo_t info;

    while (waitid(P_PID, (id_t)ch->pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        ;
    kill(-ch->pid, SIGKILL);
    while (waitpid(ch->pid, &ch->res->status, 0) < 0 && errno == EINTR)
        ;
}

int bench_child_run(const struct bench_config *c, char *const *argv, const char *marker, double silence,
                    void (*tick)(void *), void *tick_ctx, struct bench_child_result *res,
                    struct host_err *err)
{
    struct bench_child ch = {.res = res};

    *res = (struct bench_child_result){.marker = -1};
    if (!bench_child_room(&ch))
        return host_fail(err, "no memory for a program's output");
    res->text[0] = 0;
    if (bench_child_start(&ch, argv, err) < 0)
        return -1;
    bench_child_watch(&ch, c, marker, silence, tick, tick_ctx);
    close(ch.out); /* one that goes on writing gets SIGPIPE */
    if (res->timed_out || res->interrupted || !bench_child_ended(&ch))
        kill(-ch.pid, SIGKILL);
    bench_child_reap(&ch);
    return 0;
}

char *bench_last_line(char *text)
{
    char *end = text + strlen(text), *newline;

    while (end > text && (end[-1] == '\n' || end[-1] == '\r'))
        *--end = 0;
    newline = strrchr(text, '\n');
    return newline ? newline + 1 : text;
}
