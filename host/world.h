/* host-internal: a world's process, its start, its signal frame. */
#ifndef HOST_WORLD_H
#define HOST_WORLD_H

#include <linux/seccomp.h>
#include <signal.h>
#include "host/host.h"
#include "world_layout.h"

/* The only signal a world is sent. Not a real-time one: several kicks are one. */
#define WORLD_SIG_KICK SIGUSR1

/* A system call for the world to make. nr is CALL_TRAP for none, args[3] and [4] may hold what args[1] points to. */
struct world_call {
    uint64_t nr, args[6], unused;
};
_Static_assert(sizeof(struct world_call) == CALL_BYTES, "the stub steps by CALL_BYTES");

/* What one task of a world last said, until it is answered. */
struct world_task {
    int tid;
    bool waits;  /* stopped in the kernel: it runs nothing before the monitor answers */
    uint64_t id; /* of the notification to answer */
    uint64_t result, left;
};

/* What the first frame of a world told us of frames on this host. No guest code had run then. */
struct world_frame_shape {
    uint32_t frame, fpu; /* offsets in the state area */
    uint32_t mxcsr_mask;
    uint64_t xfeatures;
};

struct host_world {
    const struct host_ram *ram;
    struct host_counts *counts;
    int pid, listener;
    int home;        /* the monitor's process, */
    int driver;      /* and its thread that runs this world, as long as running */
    uint8_t *area;   /* orders, then state */
    uint8_t *orders; /* = area */
    uint8_t *state;  /* what the world can write: copy before checking */
    size_t notif_bytes, resp_bytes;
    struct seccomp_notif *notif;
    struct seccomp_notif_resp *resp;
    struct world_task mapper, runner;
    struct world_frame_shape shape;

    struct world_call *calls; /* queued */
    unsigned call_count;
    struct host_world_segment *segments; /* what the LDT holds once the queue is done */
    uint32_t lowest;                     /* first address this host lets us map */
    bool small_segments, cpuid_faults;
    bool sleeps;     /* in one system call until the world stops, see T:715 */
    bool hands_over; /* the kernel runs the world on the monitor's CPU by itself */
    int cpu;         /* it is bound to, -1: none */
    bool used;       /* by a program before the last reset: its state is still there */
    bool dead;
    char text[128]; /* why dead */

    int running; /* atomic: between entry and exit */
    int kicked;  /* atomic: a kick no run has answered */
};

/* world_start.c. Fills pid, listener, area, both tasks (stopped) and shape. On failure everything is undone. */
int host_world_start(struct host_world *w, struct host_err *err);
void host_world_stop(struct host_world *w);

/* world_stub.S: code that is copied to WORLD_STUB, and addresses in it that filters know. */
extern const uint8_t host_world_stub_begin[], host_world_stub_end[], host_world_stub_serve_notify[],
    host_world_stub_serve_call[], host_world_stub_exit[], host_world_stub_handler[],
    host_world_stub_handler_notify[], host_world_stub_enter[], host_world_stub_iret[], host_world_stub_far[],
    host_world_stub_entered[];
/* Where a label of the stub is in a world. */
uint64_t host_world_stub_at(const uint8_t *label);

/* world_birth.c: the process, which then waits in the stub. Fills pid, listener and the mapper's tid, even on failure
 * as far as it came. */
int host_world_birth(struct host_world *w, int area_fd, struct host_err *err);

/* What may allow a refused call: a sentence's end, or nothing. */
const char *host_world_advice(const char *call, int error);

/* For functions that run in the child between vfork and exec. They never return to their stack frames, for exec ends
 * them; AddressSanitizer would take what it has noted about those frames for true of the next child's. */
#define WORLD_IN_CHILD __attribute__((noinline, no_sanitize("address", "undefined")))

/* world_filter.c: each writes a program of at most WORLD_FILTER_MAX instructions and returns their number. */
#define WORLD_FILTER_MAX 32
struct sock_filter;
unsigned host_world_filter_notify(struct sock_filter *to);
unsigned host_world_filter_runner(struct sock_filter *to);
unsigned host_world_filter_mapper(struct sock_filter *to);

/* world_talk.c. */
/* Answer task, which must be waiting; it gets value as its system call's result. False: it no longer waits. */
bool host_world_answer(struct host_world *w, struct world_task *task, uint64_t value);
/* Wait until task waits for an answer. False: the world is dead, text says why. */
bool host_world_await(struct host_world *w, struct world_task *task);
/* Let task make the first n calls of list. 0, or -1 with the errno in *error and the index of the failed call in *at. */
int host_world_order(struct host_world *w, struct world_task *task, const struct world_call *list, unsigned n,
                     unsigned *at, int *error);
/* Find out whether this kernel lets it sleep in one system call. */
void host_world_may_sleep(struct host_world *w);
/* The calling thread's number. */
int host_world_driver(const struct host_world *w);
void host_world_died(struct host_world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* world_place.c: bind the world and this thread to one CPU for a while; undo it for this thread. */
void host_world_place(struct host_world *w);
void host_world_unplace(void);

/* world_frame.c. */
/* Learn the shape from the frame of the runner's first trap. */
int host_world_frame_learn(struct host_world *w, struct host_err *err);
/* Signals that a world has no use for: all but exceptions and kicks. */
uint64_t host_world_blocked_signals(void);
/* Put *st where the stub loads it from. small_stack: its SS is one of 16 bits. */
void host_world_frame_write(struct host_world *w, const struct host_world_state *st, bool small_stack);
/* What the runner stopped with. */
void host_world_frame_read(struct host_world *w, struct host_world_state *st, struct host_world_exit *ex);

#endif
