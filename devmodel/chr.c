/*
 * The host's end of a serial line: nothing, the terminal, or a file.
 *
 * Output is never lost and never blocks the vCPU: what the host does not take now waits in a ring, and when
 * the ring is full the UART keeps the byte and the guest waits for its transmitter. Input is read ahead
 * into a ring of its own so that the escape key works while the guest does not listen.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "devices.h"

enum {
    OUT_RING = 65536,
    IN_RING = 16384,
    FLUSH_AT = 1024, /* bytes; or at a newline, or after: */
    FLUSH_NS =
        1000000,    /* 1 ms: console output comes byte by byte, a write() for each would cost more than it */
    CAUTIOUS = 256, /* bytes written at a time to something that may block */
    LINGER_MS = 2000, /* how long destroy waits for a reader that does not move */
};

enum { CTRL_A = 1 };

static const char help_text[] = "\r\nCtrl-A x       quit ringlet\r\n"
                                "Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n"
                                "Ctrl-A h       this help\r\n";

struct chr {
    struct chr_config cfg;
    struct chr_ops ops;
    struct host_loop *loop;
    struct host_timer *flush_timer;
    bool flush_timer_set;
    int in_fd, out_fd; /* -1: none */
    bool in_paused, out_waits, out_owned, out_socket, out_cautious, after_ctrl_a;
    uint64_t in_head, in_tail, out_head, out_tail; /* running counts; ring index is modulo the size */
    uint64_t dropped;
    uint8_t in[IN_RING], out[OUT_RING];
};

/* ---- Writing to the host ---- */

/* write() that turns SIGPIPE into EPIPE without touching the process's signal disposition. */
static ssize_t write_without_sigpipe(int fd, const uint8_t *p, size_t n)
{
    sigset_t pipe_set, old, pending;
    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_set, &old);
    ssize_t done = write(fd, p, n);
    int error = errno;
    if (done < 0 && error == EPIPE && !was_pending)
        sigtimedwait(&pipe_set, NULL, &(struct timespec){0, 0});
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = error;
    return done;
}

static ssize_t chr_host_write(struct chr *c, const uint8_t *p, size_t n)
{
    if (c->out_socket)
        return send(c->out_fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (c->out_cautious) {
        struct pollfd ready = {.fd = c->out_fd, .events = POLLOUT};
        if (poll(&ready, 1, 0) <= 0) {
            errno = EAGAIN;
            return -1;
        }
        n = n < CAUTIOUS ? n : CAUTIOUS;
    }
    return write_without_sigpipe(c->out_fd, p, n);
}

static size_t out_pending(const struct chr *c)
{
    return (size_t)(c->out_head - c->out_tail);
}

static void chr_out_ready(void *ctx);

static void chr_wait_for_room(struct chr *c, bool wait)
{
    if (c->out_waits == wait)
        return;
    c->out_waits = wait;
    host_loop_watch(c->loop, c->out_fd, false, wait, chr_out_ready, c);
}

/* The reader is gone or the disk is full: nothing more can be kept, and the guest must not hang on it. */
static void chr_out_broken(struct chr *c)
{
    c->dropped += out_pending(c);
    c->out_tail = c->out_head;
    if (c->out_waits)
        host_loop_unwatch(c->loop, c->out_fd);
    c->out_waits = false;
    if (c->out_owned)
        close(c->out_fd);
    c->out_fd = -1;
}

void chr_flush(struct chr *c)
{
    while (out_pending(c)) {
        size_t at = c->out_tail % OUT_RING, n = out_pending(c);
        if (n > OUT_RING - at)
            n = OUT_RING - at;
        ssize_t done = chr_host_write(c, c->out + at, n);
        if (done > 0) {
            c->out_tail += (uint64_t)done;
            continue;
        }
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
            chr_out_broken(c);
        else
            chr_wait_for_room(c, true);
        return;
    }
    if (c->out_fd >= 0)
        chr_wait_for_room(c, false);
}

static void chr_out_ready(void *ctx)
{
    struct chr *c = ctx;
    chr_flush(c);
    if (out_pending(c) < OUT_RING && c->ops.drained)
        c->ops.drained(c->ops.ctx);
}

static void chr_flush_timer(void *ctx)
{
    struct chr *c = ctx;
    c->flush_timer_set = false;
    if (!c->out_waits)
        chr_flush(c);
}

/* A virtual clock may never move again; then every byte goes out at once. */
static void chr_flush_soon(struct chr *c, bool now)
{
    struct host_clock *clock = host_loop_clock(c->loop);
    if (c->out_waits)
        return;
    if (now || out_pending(c) >= FLUSH_AT || clock->is_virtual) {
        chr_flush(c);
    } else if (!c->flush_timer_set) {
        c->flush_timer_set = true;
        host_timer_set(c->flush_timer, host_clock_ns(clock) + FLUSH_NS);
    }
}

size_t chr_write(struct chr *c, const uint8_t *bytes, size_t n)
{
    if (c->out_fd < 0)
        return n;
    size_t room = OUT_RING - out_pending(c), taken = n < room ? n : room;
    for (size_t i = 0; i < taken; i++)
        c->out[c->out_head++ % OUT_RING] = bytes[i];
    if (taken)
        chr_flush_soon(c, memchr(bytes, '\n', taken) != NULL);
    return taken;
}

/* ---- Reading from the host ---- */

static size_t in_pending(const struct chr *c)
{
    return (size_t)(c->in_head - c->in_tail);
}

static void chr_host_readable(void *ctx);

/* Reading pauses while the ring is full; the host's pipe or terminal then holds the rest. */
static void chr_watch_input(struct chr *c)
{
    bool pause = in_pending(c) == IN_RING;
    if (c->in_fd < 0 || pause == c->in_paused)
        return;
    c->in_paused = pause;
    host_loop_watch(c->loop, c->in_fd, !pause, false, chr_host_readable, c);
}

static void chr_deliver(struct chr *c)
{
    while (in_pending(c) && c->ops.receive) {
        size_t at = c->in_tail % IN_RING, n = in_pending(c), room = c->ops.room(c->ops.ctx);
        n = n < IN_RING - at ? n : IN_RING - at;
        n = n < room ? n : room;
        if (!n)
            break;
        c->in_tail += n; /* first: the receiver may ask for more */
        c->ops.receive(c->ops.ctx, c->in + at, n);
    }
    chr_watch_input(c);
}

void chr_resume(struct chr *c)
{
    if (in_pending(c))
        chr_deliver(c);
}

static void chr_escape(struct chr *c, uint8_t key)
{
    if (key == 'x' || key == 'X')
        c->cfg.quit(c->cfg.quit_ctx);
    else if (key == 'h' || key == 'H' || key == '?')
        chr_write(c, (const uint8_t *)help_text, sizeof help_text - 1);
    else if (key == CTRL_A)
        c->in[c->in_head++ % IN_RING] = key;
}

static void chr_take(struct chr *c, uint8_t key)
{
    if (c->after_ctrl_a) {
        c->after_ctrl_a = false;
        chr_escape(c, key);
    } else if (c->cfg.escape && key == CTRL_A) {
        c->after_ctrl_a = true;
    } else {
        c->in[c->in_head++ % IN_RING] = key;
    }
}

static void chr_host_readable(void *ctx)
{
    struct chr *c = ctx;
    uint8_t buf[512];
    size_t room = IN_RING - in_pending(c);
    struct pollfd ready = {.fd = c->in_fd, .events = POLLIN};
    if (!room || poll(&ready, 1, 0) <= 0) /* somebody else on this terminal may have been faster */
        return;
    ssize_t n = read(c->in_fd, buf, room < sizeof buf ? room : sizeof buf);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) { /* end of input: the guest goes on without */
        host_loop_unwatch(c->loop, c->in_fd);
        c->in_fd = -1;
        return;
    }
    for (ssize_t i = 0; i < n; i++)
        chr_take(c, buf[i]);
    chr_deliver(c);
}

/* ---- Opening ---- */

/* Our own open file description of stdout lets us set O_NONBLOCK without changing it for the shell we
 * came from. Only for what has no file offset to share. */
static void chr_open_stdout(struct chr *c)
{
    struct stat st;
    c->out_fd = STDOUT_FILENO;
    if (fstat(STDOUT_FILENO, &st)) {
        c->out_fd = -1; /* closed: as if null */
        return;
    }
    c->out_socket = S_ISSOCK(st.st_mode);
    if (!S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode))
        return;
    int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    c->out_cautious = fd < 0;
    c->out_owned = fd >= 0;
    if (fd >= 0)
        c->out_fd = fd;
}

static int chr_open_stdio(struct chr *c, struct host_err *err)
{
    chr_open_stdout(c);
    if (fcntl(STDIN_FILENO, F_GETFD) < 0)
        return 0; /* no stdin at all */
    if (isatty(STDIN_FILENO) && host_term_raw(STDIN_FILENO, err))
        return -1;
    c->in_fd = STDIN_FILENO;
    return host_loop_watch(c->loop, c->in_fd, true, false, chr_host_readable, c)
               ? host_fail(err, "cannot watch standard input: %s", strerror(errno))
               : 0;
}

static int chr_open_file(struct chr *c, struct host_err *err)
{
    const char *path = c->cfg.host.path ? c->cfg.host.path : "";
    c->out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    if (c->out_fd < 0)
        return host_fail(err, "cannot write serial output to '%s': %s", path,
                         errno == ENXIO ? "nobody reads this pipe" : strerror(errno));
    c->out_owned = true;
    return 0;
}

int chr_create(struct chr **out, const struct chr_config *cfg, struct host_loop *loop, struct host_err *err)
{
    struct chr *c = *out = calloc(1, sizeof *c);
    if (!c)
        return host_fail(err, "no memory for a serial back end");
    c->cfg = *cfg;
    c->loop = loop;
    c->in_fd = c->out_fd = -1;
    c->flush_timer = host_timer_create(loop, chr_flush_timer, c);
    if (!c->flush_timer)
        return host_fail(err, "no memory for a serial back end's timer");
    switch (cfg->host.kind) {
    case DEV_CHR_NULL:
        return 0;
    case DEV_CHR_STDIO:
        return chr_open_stdio(c, err);
    case DEV_CHR_FILE:
        return chr_open_file(c, err);
    }
    return host_fail(err, "unknown kind of serial back end %d", (int)cfg->host.kind);
}

void chr_attach(struct chr *c, const struct chr_ops *ops)
{
    c->ops = *ops;
}

/* Output that waits is worth a moment's patience, as long as the reader makes progress. */
static void chr_linger(struct chr *c)
{
    chr_flush(c);
    while (out_pending(c)) {
        struct pollfd ready = {.fd = c->out_fd, .events = POLLOUT};
        uint64_t tail = c->out_tail;
        if (poll(&ready, 1, LINGER_MS) < 0 && errno == EINTR)
            continue;
        chr_flush(c);
        if (c->out_tail == tail)
            return;
    }
}

void chr_destroy(struct chr *c)
{
    if (!c)
        return;
    chr_linger(c);
    if (c->in_fd >= 0)
        host_loop_unwatch(c->loop, c->in_fd);
    if (c->out_fd >= 0)
        host_loop_unwatch(c->loop, c->out_fd);
    if (c->out_fd >= 0 && c->out_owned)
        close(c->out_fd);
    if (c->flush_timer)
        host_timer_destroy(c->flush_timer);
    free(c);
}

void chr_report(const struct chr *c, const char *name, FILE *out)
{
    if (c->dropped)
        fprintf(out, "%s: %" PRIu64 " bytes dropped because the host refused them\n", name, c->dropped);
}
