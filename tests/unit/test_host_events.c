/* Unit test of the module host: kicks, clocks, the event loop, the terminal. Links only host. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include "host/host.h"

#define MS UINT64_C(1000000)

/* A thread that can be kicked. */
struct guest {
    struct host_thread thread;
    struct host_counts counts;
    int kicks;
    volatile bool stop;
};

static bool on_trap(void *ctx, struct host_trap *trap)
{
    struct guest *g = ctx;
    if (trap->kind != HOST_TRAP_KICK)
        return false;
    g->kicks++;
    g->stop = true;
    return true;
}

static void guest_enter(struct guest *g)
{
    g->kicks = 0;
    g->stop = false;
    assert_int_equal(host_thread_enter(&g->thread, on_trap, g, &g->counts, NULL), 0);
}

static void guest_leave(struct guest *g)
{
    host_thread_leave(&g->thread);
}

/* ---- Kicks ---- */

static void sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static void *kick_after_20ms(void *arg)
{
    sleep_ms(20);
    host_thread_kick(arg);
    return NULL;
}

static void kick_interrupts_a_spinning_thread(void **state)
{
    struct guest g = {0};
    pthread_t other;
    (void)state;
    guest_enter(&g);
    pthread_create(&other, NULL, kick_after_20ms, &g.thread);
    while (!g.stop) {
    }
    pthread_join(other, NULL);
    assert_int_equal(g.kicks, 1);
    assert_int_equal(g.counts.kick, 1);
    guest_leave(&g);
    host_thread_kick(&g.thread); /* nobody there: nothing happens */
}

/* ---- Clock ---- */

static void virtual_clock_moves_only_when_told(void **state)
{
    struct host_clock c;
    (void)state;
    host_clock_init(&c, true);
    assert_int_equal(host_clock_ns(&c), 0);
    sleep_ms(2);
    assert_int_equal(host_clock_ns(&c), 0);
    host_clock_advance(&c, 1500);
    assert_int_equal(host_clock_ns(&c), 1500);
    assert_int_equal(host_clock_tsc(&c), 1500); /* 1 GHz */
}

static void real_clock_follows_the_host(void **state)
{
    struct host_clock c;
    struct timespec before, after;
    (void)state;
    host_clock_init(&c, false);
    uint64_t start = host_clock_ns(&c), tsc = host_clock_tsc(&c);
    assert_true(start < 1000 * MS);
    clock_gettime(CLOCK_MONOTONIC, &before);
    sleep_ms(20);
    clock_gettime(CLOCK_MONOTONIC, &after);
    uint64_t slept = (uint64_t)(after.tv_sec - before.tv_sec) * 1000 * MS + (uint64_t)after.tv_nsec -
                     (uint64_t)before.tv_nsec;
    uint64_t passed = host_clock_ns(&c) - start;
    assert_true(passed >= slept);
    host_clock_advance(&c, 3600 * 1000 * MS);
    assert_true(host_clock_ns(&c) - start < 3600 * 1000 * MS);
    assert_true(host_clock_tsc(&c) > tsc);
}

/* ---- Loop ---- */

struct record {
    char names[32];
    unsigned len;
};

struct note {
    struct record *to;
    char name;
    struct host_timer *timer, *other;
    uint64_t again; /* set timer to this */
};

static void write_down(void *ctx)
{
    struct note *n = ctx;
    if (n->to->len < sizeof(n->to->names) - 1)
        n->to->names[n->to->len++] = n->name;
    if (n->other)
        host_timer_cancel(n->other);
    if (n->again) {
        uint64_t when = n->again;
        n->again = 0;
        host_timer_set(n->timer, when);
    }
}

static void timers_fire_in_order(void **state)
{
    struct host_clock clock;
    struct host_loop *loop;
    struct record r = {"", 0};
    struct note notes[5];
    (void)state;
    host_clock_init(&clock, true);
    assert_int_equal(host_loop_create(&loop, &clock, NULL, NULL), 0);
    assert_ptr_equal(host_loop_clock(loop), &clock);
    assert_int_equal(host_loop_next_deadline(loop), UINT64_MAX);
    for (int i = 0; i < 5; i++) {
        notes[i] = (struct note){.to = &r, .name = (char)('a' + i)};
        notes[i].timer = host_timer_create(loop, write_down, &notes[i]);
    }
    host_timer_set(notes[0].timer, 300);
    host_timer_set(notes[1].timer, 100);
    host_timer_set(notes[2].timer, 200);
    host_timer_set(notes[3].timer, 100); /* tie with b: fires after it */
    host_timer_set(notes[4].timer, 50);
    host_timer_cancel(notes[4].timer);
    assert_int_equal(host_loop_next_deadline(loop), 100);
    assert_int_equal(host_loop_run(loop), 0);
    host_clock_advance(&clock, 99);
    assert_int_equal(host_loop_run(loop), 0);
    host_clock_advance(&clock, 1);
    assert_int_equal(host_loop_run(loop), 2);
    assert_string_equal(r.names, "bd");
    assert_int_equal(host_loop_run(loop), 0); /* one-shot */
    notes[2].again = 250;
    notes[2].other = notes[0].timer; /* c cancels a, which is due in the same run */
    host_clock_advance(&clock, 1000);
    assert_int_equal(host_loop_run(loop), 2);
    assert_string_equal(r.names, "bdcc");
    /* Replacing moves; destroying one that is set takes it out. */
    host_timer_set(notes[0].timer, 5000);
    host_timer_set(notes[0].timer, 9000);
    host_timer_set(notes[1].timer, 6000);
    assert_int_equal(host_loop_next_deadline(loop), 6000);
    host_timer_destroy(notes[1].timer);
    assert_int_equal(host_loop_next_deadline(loop), 9000);
    host_loop_destroy(loop); /* frees the rest; the leak checker of the ASan build looks */
}

static void set_in_the_past(void *ctx)
{
    struct note *n = ctx;
    n->to->len++;
    host_timer_set(n->timer, 1);
}

static void a_timer_in_the_past_does_not_hang_run(void **state)
{
    struct host_clock clock;
    struct host_loop *loop;
    struct record r = {"", 0};
    struct note n = {.to = &r};
    (void)state;
    host_clock_init(&clock, true);
    assert_int_equal(host_loop_create(&loop, &clock, NULL, NULL), 0);
    n.timer = host_timer_create(loop, set_in_the_past, &n);
    host_clock_advance(&clock, 10);
    host_timer_set(n.timer, 1);
    unsigned ran = host_loop_run(loop);
    assert_true(ran >= 1);
    assert_int_equal(ran, r.len);
    assert_int_equal(host_loop_next_deadline(loop), 1);
    host_loop_destroy(loop);
}

static void virtual_wait_jumps_to_the_deadline(void **state)
{
    struct host_clock clock;
    struct host_loop *loop;
    struct record r = {"", 0};
    struct note n = {.to = &r, .name = 'x'};
    (void)state;
    host_clock_init(&clock, true);
    assert_int_equal(host_loop_create(&loop, &clock, NULL, NULL), 0);
    n.timer = host_timer_create(loop, write_down, &n);
    host_timer_set(n.timer, 3600 * 1000 * MS);
    host_loop_wait(loop, 1000);
    assert_int_equal(host_clock_ns(&clock), 1000);
    assert_int_equal(r.len, 0);
    host_loop_wait(loop, UINT64_MAX);
    assert_int_equal(host_clock_ns(&clock), 3600 * 1000 * MS);
    assert_int_equal(r.len, 1);
    host_loop_destroy(loop);
}

/* A loop with a real clock on a thread that can be kicked. */
struct live {
    struct guest g;
    struct host_clock clock;
    struct host_loop *loop;
    struct record r;
    struct note note;
};

static void live_init(struct live *l)
{
    memset(l, 0, sizeof(*l));
    guest_enter(&l->g);
    host_clock_init(&l->clock, false);
    assert_int_equal(host_loop_create(&l->loop, &l->clock, &l->g.thread, NULL), 0);
    l->note = (struct note){.to = &l->r, .name = 't'};
    l->note.timer = host_timer_create(l->loop, write_down, &l->note);
}

static void live_finish(struct live *l)
{
    host_loop_destroy(l->loop);
    guest_leave(&l->g);
}

/* Spin as guest code does until a kick comes; false when none came for 5 s. */
static bool spin_until_kick(struct live *l)
{
    uint64_t limit = host_clock_ns(&l->clock) + 5000 * MS;
    while (!l->g.stop && host_clock_ns(&l->clock) < limit) {
    }
    bool kicked = l->g.stop;
    l->g.stop = false;
    return kicked;
}

static void a_due_timer_kicks_running_code(void **state)
{
    struct live l;
    (void)state;
    live_init(&l);
    uint64_t deadline = host_clock_ns(&l.clock) + 20 * MS;
    host_timer_set(l.note.timer, deadline + 3600 * 1000 * MS);
    host_timer_set(l.note.timer, deadline); /* nearer: must be armed anew */
    assert_true(spin_until_kick(&l));
    assert_true(host_clock_ns(&l.clock) >= deadline);
    assert_int_equal(host_loop_run(l.loop), 1);
    assert_int_equal(l.r.len, 1);

    /* Moved away, the first alarm rings for nothing and the second for the timer. */
    deadline = host_clock_ns(&l.clock) + 10 * MS;
    host_timer_set(l.note.timer, deadline);
    host_timer_set(l.note.timer, deadline + 20 * MS);
    for (int i = 0; i < 2 && l.r.len == 1; i++) {
        assert_true(spin_until_kick(&l));
        host_loop_run(l.loop);
    }
    assert_int_equal(l.r.len, 2);
    assert_true(host_clock_ns(&l.clock) >= deadline + 20 * MS);
    live_finish(&l);
}

static void timer_set_before_the_thread_enters(void **state)
{
    struct live l;
    (void)state;
    memset(&l, 0, sizeof(l));
    host_clock_init(&l.clock, false);
    assert_int_equal(host_loop_create(&l.loop, &l.clock, &l.g.thread, NULL), 0);
    l.note = (struct note){.to = &l.r, .name = 't'};
    l.note.timer = host_timer_create(l.loop, write_down, &l.note);
    host_timer_set(l.note.timer, host_clock_ns(&l.clock) + 20 * MS);
    struct host_loop *loop = l.loop;
    guest_enter(&l.g);
    assert_int_equal(host_loop_run(loop), 0);
    assert_true(spin_until_kick(&l));
    assert_int_equal(host_loop_run(loop), 1);
    live_finish(&l);
}

static void real_wait_sleeps_until_the_deadline(void **state)
{
    struct live l;
    (void)state;
    live_init(&l);
    uint64_t start = host_clock_ns(&l.clock);
    host_timer_set(l.note.timer, start + 30 * MS);
    for (int i = 0; i < 10 && l.r.len == 0; i++)
        host_loop_wait(l.loop, UINT64_MAX);
    assert_int_equal(l.r.len, 1);
    assert_true(host_clock_ns(&l.clock) >= start + 30 * MS);

    /* At most max_ns. */
    start = host_clock_ns(&l.clock);
    host_timer_set(l.note.timer, start + 3600 * 1000 * MS);
    host_loop_wait(l.loop, 10 * MS);
    assert_true(host_clock_ns(&l.clock) - start < 3000 * MS);
    assert_int_equal(l.r.len, 1);
    live_finish(&l);
}

struct pipe_end {
    int fd;
    int calls;
    bool drain;
};

static void on_readable(void *ctx)
{
    struct pipe_end *p = ctx;
    char byte;
    p->calls++;
    if (p->drain)
        assert_int_equal(read(p->fd, &byte, 1), 1);
}

static void watch_is_level_triggered_and_pauses(void **state)
{
    struct host_clock clock;
    struct host_loop *loop;
    int fds[2];
    (void)state;
    host_clock_init(&clock, false);
    assert_int_equal(host_loop_create(&loop, &clock, NULL, NULL), 0);
    assert_int_equal(pipe(fds), 0);
    struct pipe_end p = {.fd = fds[0]};
    assert_int_equal(host_loop_watch(loop, fds[0], true, false, on_readable, &p), 0);
    assert_int_equal(host_loop_run(loop), 0);
    assert_int_equal(write(fds[1], "ab", 2), 2);
    assert_int_equal(host_loop_run(loop), 1);
    assert_int_equal(host_loop_run(loop), 1); /* still readable */
    host_loop_watch(loop, fds[0], false, false, on_readable, &p);
    assert_int_equal(host_loop_run(loop), 0);
    p.drain = true;
    host_loop_watch(loop, fds[0], true, false, on_readable, &p);
    assert_int_equal(host_loop_run(loop), 1);
    host_loop_wait(loop, UINT64_MAX);
    assert_int_equal(host_loop_run(loop), 0);
    assert_int_equal(p.calls, 4);
    /* Writability of the other end. */
    struct pipe_end out = {.fd = fds[1]};
    assert_int_equal(host_loop_watch(loop, fds[1], false, true, on_readable, &out), 0);
    assert_int_equal(host_loop_run(loop), 1);
    host_loop_unwatch(loop, fds[1]);
    assert_int_equal(host_loop_run(loop), 0);
    host_loop_unwatch(loop, fds[1]); /* again: nothing */
    host_loop_unwatch(loop, fds[0]);
    assert_int_equal(host_loop_watch(loop, -1, true, false, on_readable, &out), -1);
    assert_int_equal(errno, EBADF);
    close(fds[0]);
    close(fds[1]);
    host_loop_destroy(loop);
}

static void input_kicks_running_code_each_time(void **state)
{
    struct live l;
    int fds[2];
    (void)state;
    live_init(&l);
    assert_int_equal(pipe(fds), 0);
    struct pipe_end p = {.fd = fds[0], .drain = true};
    assert_int_equal(host_loop_watch(l.loop, fds[0], true, false, on_readable, &p), 0);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(write(fds[1], "x", 1), 1);
        assert_true(spin_until_kick(&l));
        assert_int_equal(host_loop_run(l.loop), 1);
        assert_int_equal(p.calls, i);
    }
    /* Two bytes, one taken per call: the second must be announced as well. */
    assert_int_equal(write(fds[1], "yz", 2), 2);
    for (int i = 0; i < 3 && p.calls < 5; i++) {
        assert_true(spin_until_kick(&l));
        host_loop_run(l.loop);
    }
    assert_int_equal(p.calls, 5);
    host_loop_unwatch(l.loop, fds[0]);
    close(fds[0]);
    close(fds[1]);
    live_finish(&l);
}

static void *write_after_20ms(void *arg)
{
    sleep_ms(20);
    return write(*(int *)arg, "x", 1) == 1 ? arg : NULL;
}

static void input_ends_a_wait(void **state)
{
    struct live l;
    int fds[2];
    pthread_t other;
    (void)state;
    live_init(&l);
    assert_int_equal(pipe(fds), 0);
    struct pipe_end p = {.fd = fds[0], .drain = true};
    assert_int_equal(host_loop_watch(l.loop, fds[0], true, false, on_readable, &p), 0);
    pthread_create(&other, NULL, write_after_20ms, &fds[1]);
    for (int i = 0; i < 10 && p.calls == 0; i++)
        host_loop_wait(l.loop, 5000 * MS);
    assert_int_equal(p.calls, 1);
    pthread_join(other, NULL);
    host_loop_unwatch(l.loop, fds[0]);
    close(fds[0]);
    close(fds[1]);
    live_finish(&l);
}

static void files_and_dev_null_are_always_ready(void **state)
{
    struct live l;
    (void)state;
    live_init(&l);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), file = memfd_create("file", MFD_CLOEXEC);
    struct pipe_end p = {.fd = null}, q = {.fd = file};
    assert_int_equal(host_loop_watch(l.loop, null, true, false, on_readable, &p), 0);
    assert_int_equal(host_loop_watch(l.loop, file, false, true, on_readable, &q), 0);
    assert_int_equal(host_loop_run(l.loop), 2);
    assert_int_equal(host_loop_run(l.loop), 2);
    host_loop_wait(l.loop, UINT64_MAX); /* does not block */
    assert_true(p.calls >= 3 && q.calls >= 3);
    l.g.stop = false;
    assert_true(spin_until_kick(&l)); /* and running code is told from time to time */
    host_loop_watch(l.loop, null, false, false, on_readable, &p);
    host_loop_unwatch(l.loop, file);
    assert_int_equal(host_loop_run(l.loop), 0);
    close(null);
    close(file);
    live_finish(&l);
}

struct unwatcher {
    struct host_loop *loop;
    int self, other, calls;
};

static void unwatch_both(void *ctx)
{
    struct unwatcher *u = ctx;
    u->calls++;
    host_loop_unwatch(u->loop, u->self);
    host_loop_unwatch(u->loop, u->other);
}

/* Both ready in one batch; whichever runs first removes both. */
static void callbacks_may_unwatch(void **state)
{
    struct host_clock clock;
    struct host_loop *loop;
    int fds[2], more[2];
    (void)state;
    host_clock_init(&clock, true);
    assert_int_equal(host_loop_create(&loop, &clock, NULL, NULL), 0);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(pipe(more), 0);
    struct unwatcher a = {loop, fds[1], more[1], 0}, b = {loop, more[1], fds[1], 0};
    assert_int_equal(host_loop_watch(loop, fds[1], false, true, unwatch_both, &a), 0);
    assert_int_equal(host_loop_watch(loop, more[1], false, true, unwatch_both, &b), 0);
    assert_int_equal(host_loop_run(loop), 1);
    assert_int_equal(a.calls + b.calls, 1);
    assert_int_equal(host_loop_run(loop), 0);
    for (int i = 0; i < 2; i++) {
        close(fds[i]);
        close(more[i]);
    }
    host_loop_destroy(loop);
}

/* A kick between run and wait, the moment in which a naive loop loses it: the wait must not sleep. */
static void wait_does_not_lose_a_kick_before_it(void **state)
{
    struct live l;
    (void)state;
    live_init(&l);
    host_loop_run(l.loop);
    host_thread_kick(&l.g.thread);
    uint64_t start = host_clock_ns(&l.clock);
    host_loop_wait(l.loop, 10000 * MS);
    assert_true(host_clock_ns(&l.clock) - start < 5000 * MS);
    assert_int_equal(l.g.kicks, 1);
    /* It was consumed: the next wait sleeps. */
    start = host_clock_ns(&l.clock);
    host_loop_wait(l.loop, 20 * MS);
    assert_true(host_clock_ns(&l.clock) - start >= 20 * MS);
    live_finish(&l);
}

/* Stands in for the C library's: kicks in the last moment before the thread falls asleep, the moment in which
 * a handler that runs too early is of no use. */
static struct host_thread *kick_before_sleep;
static int sleeps;

int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
    struct timespec copy = timeout ? *timeout : (struct timespec){0};
    sleeps++;
    if (kick_before_sleep)
        host_thread_kick(kick_before_sleep);
    return (int)syscall(SYS_ppoll, fds, n, timeout ? &copy : NULL, mask, (size_t)8);
}

static void wait_does_not_lose_a_kick_on_falling_asleep(void **state)
{
    struct live l;
    (void)state;
    live_init(&l);
    uint64_t start = host_clock_ns(&l.clock);
    kick_before_sleep = &l.g.thread;
    sleeps = 0;
    host_loop_wait(l.loop, 10000 * MS);
    kick_before_sleep = NULL;
    assert_int_equal(sleeps, 1);
    assert_int_equal(l.g.kicks, 1);
    assert_true(host_clock_ns(&l.clock) - start < 5000 * MS);
    live_finish(&l);
}

/* ---- Terminal, on a pty of which this process holds the master. ---- */

static int open_pty(int *slave)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    *slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(*slave >= 0);
    return master;
}

static bool is_raw(int fd)
{
    struct termios mode;
    assert_int_equal(tcgetattr(fd, &mode), 0);
    return !(mode.c_lflag & (ICANON | ECHO | ISIG));
}

static void raw_is_undone_by_restore(void **state)
{
    struct termios before = {0}, after = {0};
    struct host_err err = {""};
    int slave, master = open_pty(&slave);
    (void)state;
    tcgetattr(slave, &before);
    assert_false(is_raw(slave));
    assert_int_equal(host_term_raw(slave, &err), 0);
    assert_true(is_raw(slave));
    tcgetattr(slave, &after);
    assert_true(after.c_oflag & OPOST); /* our own messages stay readable */
    host_term_restore();
    host_term_restore();
    tcgetattr(slave, &after);
    assert_memory_equal(&before, &after, sizeof(before));
    /* And a file is left alone. */
    int null = open("/dev/null", O_RDWR);
    assert_int_equal(host_term_raw(null, &err), 0);
    close(null);
    close(slave);
    close(master);
}

static void leave_by_exit(void)
{
    exit(3);
}
static void leave_by_sigint(void)
{
    raise(SIGINT);
}
static void leave_by_sigterm(void)
{
    raise(SIGTERM);
}
static void leave_by_sighup(void)
{
    raise(SIGHUP);
}
static void leave_by_sigquit(void)
{
    raise(SIGQUIT);
}
static void leave_by_abort(void)
{
    abort();
}
static void leave_by_crash(void)
{
    __asm__ volatile("movb 0x1238, %%al" : : : "rax", "memory");
}

static void every_exit_restores_the_terminal(void **state)
{
    static const struct {
        void (*leave)(void);
        int signo; /* 0: exit status 3 */
    } rows[] = {
        {leave_by_exit, 0},        {leave_by_sigint, SIGINT},   {leave_by_sigterm, SIGTERM},
        {leave_by_sighup, SIGHUP}, {leave_by_sigquit, SIGQUIT}, {leave_by_abort, SIGABRT},
        {leave_by_crash, SIGSEGV},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int slave, status, was_raw[2], master = open_pty(&slave);
        char raw = 0;
        assert_int_equal(pipe(was_raw), 0);
        pid_t child = fork();
        if (child == 0) {
            struct rlimit no_core = {0, 0};
            setrlimit(RLIMIT_CORE, &no_core);
            for (int s = 1; s < 32; s++)
                signal(s, SIG_DFL); /* the harness's handlers are not what we test */
            int null = open("/dev/null", O_WRONLY);
            dup2(null, STDERR_FILENO);
            host_term_raw(slave, NULL);
            raw = is_raw(slave);
            if (write(was_raw[1], &raw, 1) == 1)
                rows[i].leave();
            _exit(99);
        }
        assert_int_equal(read(was_raw[0], &raw, 1), 1);
        waitpid(child, &status, 0);
        assert_true(raw);
        assert_false(is_raw(slave));
        if (rows[i].signo) {
            assert_true(WIFSIGNALED(status));
            assert_int_equal(WTERMSIG(status), rows[i].signo);
        } else {
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 3);
        }
        close(slave);
        close(master);
        close(was_raw[0]);
        close(was_raw[1]);
    }
}

static void wait_for_raw(int fd, bool raw)
{
    for (int i = 0; i < 2000 && is_raw(fd) != raw; i++)
        sleep_ms(1);
    assert_int_equal(is_raw(fd), raw);
}

static void stop_gives_back_and_continue_takes_again(void **state)
{
    int slave, status, master = open_pty(&slave);
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        /* A group whose leader's parent is in another group of the session: not orphaned, so SIGTSTP stops
         * it. */
        setpgid(0, 0);
        signal(SIGTSTP, SIG_DFL);
        signal(SIGCONT, SIG_DFL);
        host_term_raw(slave, NULL);
        for (;;)
            pause();
    }
    wait_for_raw(slave, true);
    kill(child, SIGTSTP);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
    assert_false(is_raw(slave));
    kill(child, SIGCONT);
    wait_for_raw(slave, true);
    kill(child, SIGTSTP); /* and once more */
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
    assert_false(is_raw(slave));
    kill(child, SIGCONT);
    wait_for_raw(slave, true);
    kill(child, SIGTERM);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_false(is_raw(slave));
    close(slave);
    close(master);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kick_interrupts_a_spinning_thread),
        cmocka_unit_test(virtual_clock_moves_only_when_told),
        cmocka_unit_test(real_clock_follows_the_host),
        cmocka_unit_test(timers_fire_in_order),
        cmocka_unit_test(a_timer_in_the_past_does_not_hang_run),
        cmocka_unit_test(virtual_wait_jumps_to_the_deadline),
        cmocka_unit_test(a_due_timer_kicks_running_code),
        cmocka_unit_test(timer_set_before_the_thread_enters),
        cmocka_unit_test(real_wait_sleeps_until_the_deadline),
        cmocka_unit_test(watch_is_level_triggered_and_pauses),
        cmocka_unit_test(input_kicks_running_code_each_time),
        cmocka_unit_test(input_ends_a_wait),
        cmocka_unit_test(files_and_dev_null_are_always_ready),
        cmocka_unit_test(callbacks_may_unwatch),
        cmocka_unit_test(wait_does_not_lose_a_kick_before_it),
        cmocka_unit_test(wait_does_not_lose_a_kick_on_falling_asleep),
        cmocka_unit_test(raw_is_undone_by_restore),
        cmocka_unit_test(every_exit_restores_the_terminal),
        cmocka_unit_test(stop_gives_back_and_continue_takes_again),
    };
    return cmocka_run_group_tests_name("host events", tests, NULL, NULL);
}
