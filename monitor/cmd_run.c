/* ringlet run: a machine from the command line, its end turned into an exit status. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cmd.h"
#include "options.h"
#include "stats.h"

/*T:250 Signals as events
 * Somebody types kill: the machine must stop at a sane point, print its statistics and give the terminal
 * back. A signal handler may do almost nothing safely, so there is none: the signals are blocked, a thread
 * waits for them and writes their numbers to a pipe, which the event loop watches like any device. signalfd
 * would need no thread, but the kernel wakes whoever polls one at every signal of the process, and guest
 * faults are signals: two switches of threads and half a microsecond more for each. Ctrl-C is no signal at all
 * while the terminal is raw: it is a byte for the guest. :*/
struct run_signals {
    int fd, write_fd;
    sigset_t set;
    pthread_t thread;
    bool waiting; /* the thread is there */
    int closing;  /* atomic: the next signal is for the thread alone */
    int any;      /* a signal of the set, 0: it is empty */
    int got;      /* signal number, 0: none yet */
    struct vm *vm;
};

static const int run_ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

/* nohup and shells' background jobs ignore signals on purpose; those stay ignored. */
static bool run_ignored(int signo)
{
    struct sigaction sa;

    return sigaction(signo, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

static void *run_signals_wait(void *arg)
{
    const struct run_signals *s = arg;

    for (;;) {
        int signo;
        unsigned char byte;

        if (sigwait(&s->set, &signo) != 0)
            continue;
        if (__atomic_load_n(&s->closing, __ATOMIC_ACQUIRE))
            return NULL;
        byte = (unsigned char)signo;
        if (write(s->write_fd, &byte, 1) < 0)
            continue; /* full: the first one ends the machine anyway */
    }
}

static int run_signals_open(struct run_signals *s, struct host_err *err)
{
    pthread_attr_t attr;
    int fds[2], failed;

    sigemptyset(&s->set);
    for (unsigned i = 0; i < sizeof(run_ending_signals) / sizeof(run_ending_signals[0]); i++)
        if (!run_ignored(run_ending_signals[i]))
            sigaddset(&s->set, s->any = run_ending_signals[i]);
    /* Before any thread is made: they inherit the mask. */
    if (pthread_sigmask(SIG_BLOCK, &s->set, NULL) != 0)
        return host_fail(err, "cannot block signals: %s", strerror(errno));
    if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0)
        return host_fail(err, "cannot make a pipe: %s", strerror(errno));
    s->fd = fds[0];
    s->write_fd = fds[1];
    if (!s->any)
        return 0; /* nothing to wait for */
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN + 65536);
    failed = pthread_create(&s->thread, &attr, run_signals_wait, s);
    pthread_attr_destroy(&attr);
    s->waiting = !failed;
    return failed ? host_fail(err, "cannot start a thread: %s", strerror(failed)) : 0;
}

static void run_signals_close(struct run_signals *s)
{
    if (s->waiting) { /* not pthread_cancel: that loads a library first, and aborts when no descriptor is left for it */
        __atomic_store_n(&s->closing, 1, __ATOMIC_RELEASE);
        pthread_kill(s->thread, s->any);
        pthread_join(s->thread, NULL);
    }
    if (s->fd >= 0) {
        close(s->fd);
        close(s->write_fd);
    }
}

static void run_signal(void *ctx)
{
    struct run_signals *s = ctx;
    unsigned char byte;

    if (read(s->fd, &byte, 1) != 1)
        return;
    s->got = byte;
    vm_stop(s->vm);
}

static int run_status(const struct vm_result *res, int signal)
{
    switch (res->end) {
    case VM_END_POWER_OFF:
        return CMD_OK;
    case VM_END_DEBUG_EXIT:
        return (int)((res->debug_exit << 1 | 1) & 0xff);
    case VM_END_RESET:
        if (!res->reason[0])
            return CMD_OK;
        cmd_say("%s", res->reason);
        return CMD_TRIPLE_FAULT;
    case VM_END_QUIT:
        if (!signal)
            return CMD_OK;
        cmd_say("stopped by signal %d (%s); the guest was at %s", signal, strsignal(signal), res->reason);
        return 128 + signal;
    case VM_END_STOPPED:
        cmd_say("%s", res->reason);
        return CMD_GUEST_STOPPED;
    }
    return CMD_GUEST_STOPPED;
}

static int run_machine(struct options *o, struct run_signals *signals, struct host_err *err)
{
    struct vm_result res;
    struct vm *vm;
    int status = -1;

    if (vm_create(&vm, &o->vm, err) < 0)
        return -1;
    signals->vm = vm;
    if (host_loop_watch(vm_loop(vm), signals->fd, true, false, run_signal, signals) < 0)
        host_fail(err, "cannot watch for signals: %s", strerror(errno));
    else if (vm_run(vm, &res, err) == 0)
        status = run_status(&res, signals->got);
    if (status >= 0 && o->stats != OPTIONS_NO_STATS) {
        host_term_restore();
        stats_print(vm, o->stats == OPTIONS_STATS_JSON, stderr);
    }
    host_loop_unwatch(vm_loop(vm), signals->fd);
    vm_destroy(vm);
    return status;
}

static int run_open_trace(struct options *o, struct host_err *err)
{
    o->vm.trace_out = stderr;
    if (!o->trace_file)
        return 0;
    o->vm.trace_out = fopen(o->trace_file, "we");
    if (!o->vm.trace_out)
        return host_fail(err, "trace file %s cannot be written: %s", o->trace_file, strerror(errno));
    return 0;
}

static int run_guest(struct options *o, struct host_err *err)
{
    struct run_signals signals = {.fd = -1};
    int status = -1;

    if (cmd_doctor_check(o->vm.engine, err) == 0 && run_open_trace(o, err) == 0 &&
        run_signals_open(&signals, err) == 0)
        status = run_machine(o, &signals, err);
    run_signals_close(&signals);
    if (o->vm.trace_out && o->vm.trace_out != stderr)
        fclose(o->vm.trace_out);
    return status;
}

int cmd_run(int argc, char *const *argv)
{
    struct options o;
    struct host_err err = {""};
    int status;

    if (options_parse(&o, argc, argv, &err) < 0) {
        cmd_say("%s", err.text);
        status = CMD_USAGE;
    } else if (o.help) {
        cmd_help_run(stdout);
        status = CMD_OK;
    } else {
        status = run_guest(&o, &err);
        if (status < 0) {
            cmd_say("%s", err.text);
            status = CMD_CANNOT_START;
        }
    }
    options_finish(&o);
    return status;
}
