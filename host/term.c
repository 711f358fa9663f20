/* The user's terminal: raw while the guest has it, and given back on every way out of the process. */
#define _GNU_SOURCE
#include "host/host.h"
#include "entry.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

/*
 * A process has one controlling terminal, and signal handlers take no context argument, so this is
 * process-wide like the handlers themselves. raw is set last and cleared first: a handler that sees it set
 * sees the rest complete.
 */
static struct {
    volatile sig_atomic_t raw;    /* the terminal is in raw mode now */
    volatile sig_atomic_t wanted; /* it should be whenever we are in the foreground */
    bool hooked;                  /* atexit and signal handlers are in place */
    int fd;
    struct termios cooked, raw_mode;
} term = {.fd = -1};

/* Signals that end the process by default and that can reach a terminal program in daily life. */
static const int fatal_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGABRT, SIGPIPE, SIGALRM, SIGXCPU};

/* Changing the terminal from the background raises SIGTTOU, which would stop us; blocked, the change goes
 * through. */
static void set_mode(const struct termios *mode)
{
    sigset_t ttou, old;
    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &ttou, &old);
    while (tcsetattr(term.fd, TCSANOW, mode) != 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void enter_raw(void)
{
    pid_t owner = tcgetpgrp(term.fd);
    if (term.raw || !term.wanted || (owner >= 0 && owner != getpgrp()))
        return; /* continued in the background: the terminal is the shell's */
    set_mode(&term.raw_mode);
    term.raw = 1;
}

static void leave_raw(void)
{
    if (!term.raw)
        return;
    term.raw = 0;
    set_mode(&term.cooked);
}

void host_term_restore(void)
{
    int saved_errno = errno;
    term.wanted = 0;
    leave_raw();
    errno = saved_errno;
}

HOST_SIGNAL_ENTRY(host_term_entry, host_term_signal);

/* Give the terminal back, stop as SIGTSTP stops everyone, and take it again when continued. */
static void stop_self(void)
{
    sigset_t set;
    struct sigaction by_default;

    leave_raw();
    memset(&by_default, 0, sizeof(by_default));
    by_default.sa_handler = SIG_DFL;
    sigaction(SIGTSTP, &by_default, NULL);
    raise(SIGTSTP);
    sigemptyset(&set);
    sigaddset(&set, SIGTSTP);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* stops here */
    host_signal_install(SIGTSTP, HOST_SIGNAL_FN(host_term_entry), false);
    enter_raw();
}

__attribute__((used)) void host_term_signal(int signo, siginfo_t *info, void *uc, uint64_t *fs_base)
{
    int saved_errno = errno;
    (void)info;
    (void)uc;
    (void)fs_base;
    if (signo == SIGTSTP) {
        stop_self();
    } else if (signo == SIGCONT) {
        /* After SIGSTOP nobody could restore; the shell has set its own modes since. */
        term.raw = 0;
        enter_raw();
    } else {
        host_term_restore();
        host_die_by(signo);
    }
    errno = saved_errno;
}

/* Only where nobody else has a handler: one who does is expected to leave through exit(). */
static void hook_if_default(int signo)
{
    struct sigaction now;
    if (sigaction(signo, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL)
        host_signal_install(signo, HOST_SIGNAL_FN(host_term_entry), false);
}

static void hook_exits(void)
{
    if (!term.hooked)
        atexit(host_term_restore);
    term.hooked = true;
    host_signal_install_all(); /* a crash must restore too, even outside guest code */
    for (size_t i = 0; i < sizeof(fatal_signals) / sizeof(fatal_signals[0]); i++)
        hook_if_default(fatal_signals[i]);
    hook_if_default(SIGTSTP);
    hook_if_default(SIGCONT);
}

/* cfmakeraw, except that output processing stays: our own messages end in a bare newline. */
static void make_raw(struct termios *mode)
{
    tcflag_t output = mode->c_oflag;
    cfmakeraw(mode);
    mode->c_oflag = output;
    mode->c_cc[VMIN] = 1;
    mode->c_cc[VTIME] = 0;
}

int host_term_raw(int fd, struct host_err *err)
{
    if (!isatty(fd))
        return 0;
    if (term.wanted)
        return fd == term.fd ? 0 : host_fail(err, "only one terminal can be in raw mode");
    if (tcgetattr(fd, &term.cooked) != 0)
        return host_fail(err, "cannot read the terminal's settings (%s)", strerror(errno));
    term.raw_mode = term.cooked;
    make_raw(&term.raw_mode);
    term.fd = fd;
    hook_exits();
    term.wanted = 1;
    enter_raw();
    return 0;
}
