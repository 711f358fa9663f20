/*
 * host: what ringlet needs of the Linux host and nothing of the guest's architecture.
 *
 * Guest RAM (one memfd), windows (4 GiB views of it that the host MMU walks), the W^X code arena, signal
 * entry, clocks, the event loop and the terminal. Everything is an instance in the caller's storage or on the
 * heap; the only process-wide state is the installed signal handlers and a thread-local pointer to the
 * running host_thread.
 *
 * Unless said otherwise functions return 0 on success and -1 on failure with a sentence in *err that names
 * the cause and what to do about it. Lengths and addresses are bytes; times are nanoseconds.
 */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define HOST_PAGE 4096u

struct host_err {
    char text[512];
};
/* Formats into err (may be NULL); always returns -1, so that `return host_fail(err, ...)` reads well. */
int host_fail(struct host_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Host calls and signals counted per VM; shown by --stats. */
struct host_counts {
    uint64_t mmap, munmap, mprotect, signals, segv, ill, fpe, trap, kick;
    uint64_t world_runs, world_maps,
        world_switches; /* entries; mapping calls made in worlds; thread hand-overs */
};

/* ---- Guest RAM: guest physical [0, size) is base[0, size). One memfd, mapped once, linearly, read-write.
 * ---- */
struct host_ram {
    int fd;
    uint8_t *base;
    uint64_t size;
};
int host_ram_init(struct host_ram *ram, uint64_t size, struct host_err *err);
void host_ram_finish(struct host_ram *ram);

/* ---- Windows: 4 GiB of address space, 4 GiB aligned, followed by a 4 GiB guard that is never mapped (and
 * preceded by one). Window offset v shows whatever RAM page was mapped there; all else is PROT_NONE. ---- */
#define HOST_WINDOW_SIZE (UINT64_C(1) << 32)
struct host_window {
    uint8_t *base;
    void *reservation; /* what munmap must give back */
    const struct host_ram *ram;
    struct host_counts *counts;
};
/* With err NULL async-signal-safe, and without vector registers, as the calls below are. */
int host_window_init(struct host_window *w, const struct host_ram *ram, struct host_counts *counts,
                     struct host_err *err);
void host_window_finish(struct host_window *w);
/* Map [gva, gva+len) to RAM [gpa, gpa+len), replacing what was there. prot is PROT_READ[|PROT_WRITE].
 * populate asks the host to pre-fault. Page-aligned; gva+len <= 4 GiB; gpa+len <= ram->size. Returns 0 or
 * -errno (ENOMEM: too many mappings). Async-signal-safe: may be called from the trap handler. Same for the
 * next three. */
int host_window_map(struct host_window *w, uint32_t gva, uint64_t gpa, uint64_t len, int prot, bool populate);
int host_window_unmap(struct host_window *w, uint32_t gva, uint64_t len);
int host_window_protect(struct host_window *w, uint32_t gva, uint64_t len, int prot);
int host_window_reset(struct host_window *w); /* drop everything in one call */

/* ---- Code arena: the same memory twice, once writable, once executable. rx is within +-2 GiB of itself
 * only. ---- */
struct host_arena {
    uint8_t *rw, *rx;
    size_t size;
    int fd;
};
int host_arena_init(struct host_arena *a, size_t size, struct host_err *err);
void host_arena_finish(struct host_arena *a);

/* ---- Signal entry. ---- */
enum host_trap_kind {
    HOST_TRAP_CPU,  /* SIGSEGV SIGBUS SIGILL SIGFPE SIGTRAP: a CPU exception, see vector/error/addr */
    HOST_TRAP_KICK, /* host_thread_kick() or the loop's timer */
};
struct host_trap {
    enum host_trap_kind kind;
    unsigned vector; /* x86 exception number (REG_TRAPNO): 0 #DE 1 #DB 3 #BP 6 #UD 13 #GP 14 #PF 16 #MF 17 #AC
                        19 #XM */
    unsigned error;  /* REG_ERR: for #PF bit 1 is set for a write, bit 4 for a fetch */
    uint64_t addr;   /* faulting address for #PF */
    void *uc;        /* ucontext_t*: the interrupted state, editable; takes effect at return */
    uint64_t *fs_base; /* CPU: FS.base of that state, likewise; NULL where it cannot change */
};
/* Runs on the alternate stack with all signals blocked. Returns true when handled: execution resumes with uc.
 * False for HOST_TRAP_CPU means a bug of ours: host prints registers and a backtrace, restores the terminal
 * and aborts. */
typedef bool (*host_trap_fn)(void *ctx, struct host_trap *trap);

/* One per thread that runs guest code. */
struct host_thread {
    host_trap_fn fn;
    void *ctx;
    struct host_counts *counts;
    int tid;
    void *altstack;
    struct host_thread *outer;
    int kicked; /* a kick arrived that no host_loop_wait has consumed yet; host's own, atomic */
};
/* Install handlers (first time in the process), this thread's alternate stack, and make t current; leave
 * undoes it. Nestable: leave restores the thread entered before. */
int host_thread_enter(struct host_thread *t, host_trap_fn fn, void *ctx, struct host_counts *counts,
                      struct host_err *err);
void host_thread_leave(struct host_thread *t);
/* Make t's handler run with HOST_TRAP_KICK soon. Any thread; async-signal-safe. */
void host_thread_kick(struct host_thread *t);

/* ---- Clocks. Real: CLOCK_MONOTONIC and the hardware TSC. Virtual: moves only by host_clock_advance (lock
 * step and deterministic tests); its TSC runs at 1 GHz. ---- */
struct host_clock {
    bool is_virtual;
    uint64_t virtual_ns;
    uint64_t base_ns; /* real: value of CLOCK_MONOTONIC that is guest time 0 */
};
uint64_t host_read_clock(clockid_t id); /* the host's own, in ns; 0: there is none */
void host_clock_init(struct host_clock *c, bool is_virtual);
uint64_t host_clock_ns(const struct host_clock *c);
uint64_t host_clock_tsc(const struct host_clock *c);
void host_clock_advance(struct host_clock *c, uint64_t ns);

/* ---- Event loop: timers and file descriptors, all callbacks on the thread that calls run/wait. With a real
 * clock a POSIX timer and a waker thread kick `thread` when something is due while guest code runs. ---- */
struct host_loop;
struct host_timer; /* one-shot */
typedef void (*host_event_fn)(void *ctx);

/* thread: whom to kick, NULL for none (then the owner must poll by host_loop_run). It may be entered later,
 * but must be zero-initialised by then; call host_loop_run once after entering, so that timers set before can
 * reach it. */
int host_loop_create(struct host_loop **out, struct host_clock *clock, struct host_thread *thread,
                     struct host_err *err);
void host_loop_destroy(struct host_loop *loop);
struct host_clock *host_loop_clock(struct host_loop *loop);
/* Heap objects, destroyed with _destroy or with the loop. */
struct host_timer *host_timer_create(struct host_loop *loop, host_event_fn fn, void *ctx);
void host_timer_destroy(struct host_timer *t);
void host_timer_set(struct host_timer *t, uint64_t deadline_ns); /* absolute, host_clock_ns scale; replaces */
void host_timer_cancel(struct host_timer *t);
/* Watch fd for readability (want_read) and/or writability; one registration per fd. fn runs while the
 * condition holds (level-triggered). Set both false to pause. Regular files and /dev/null are always ready.
 */
int host_loop_watch(struct host_loop *loop, int fd, bool want_read, bool want_write, host_event_fn fn,
                    void *ctx);
void host_loop_unwatch(struct host_loop *loop, int fd);
/* Run everything due now; never blocks. Returns the number of callbacks run. */
unsigned host_loop_run(struct host_loop *loop);
/* Block until something ran or a kick arrived, at most max_ns (UINT64_MAX: forever). Virtual clock: advance
 * to the next deadline instead of sleeping. Never loses a wake-up that came between run and wait. */
void host_loop_wait(struct host_loop *loop, uint64_t max_ns);
uint64_t host_loop_next_deadline(struct host_loop *loop); /* UINT64_MAX: none */

/* ---- Worlds: sandboxed host processes in which guest user code runs natively, in compatibility mode
 * (Intel SDM vol. 3 9.7 of IA-32e mode). A world holds one guest address space's user pages at their true
 * addresses below 4 GiB, a stub, a state page, and nothing else; seccomp refuses every system call but the
 * stub's own. What comes out of a world is guest input: nothing in it is trusted.
 *
 * The thread that creates a world must live as long as the world: the kernel kills it when that thread ends.
 * One world is driven by one thread at a time. Mappings and descriptors are queued and take effect before the
 * next instruction of host_world_run; an address nothing was mapped at faults. A world that dies (killed,
 * out of memory, refused by seccomp) makes host_world_run return HOST_WORLD_DEAD with a sentence; never a
 * hang. When the monitor dies every world is killed by the kernel. ---- */
struct host_world;

#define HOST_WORLD_FPU_BYTES 832u /* XSAVE image, standard format: x87, SSE, AVX (SDM vol. 1 13.4) */

struct host_world_state {
    uint32_t gpr[8]; /* EAX ECX EDX EBX ESP EBP ESI EDI */
    uint32_t eip, eflags;
    uint16_t sel[6]; /* ES CS SS DS FS GS as the world's hardware sees them: HOST_WORLD_SELECTOR or null */
    uint8_t fpu[HOST_WORLD_FPU_BYTES] __attribute__((aligned(64)));
};

/* A descriptor of the world's LDT. DPL is always 3; type as in a descriptor's bits 40-43. */
#define HOST_WORLD_LDT_ENTRIES     8192u
#define HOST_WORLD_SELECTOR(index) ((uint16_t)((index) << 3 | 7))
struct host_world_segment {
    uint32_t base, limit; /* limit in bytes, inclusive */
    uint8_t type;         /* 0-15: data and code types of SDM vol. 3 table 3-1 */
    bool present, big;    /* big: D/B */
};

enum host_world_why {
    HOST_WORLD_TRAP, /* a CPU exception: vector, error, addr; state is at the faulting instruction (traps: after it) */
    HOST_WORLD_SYSCALL, /* int 0x80 was executed; state.eip is after it. Not SYSENTER and SYSCALL: Linux saves
                         * no return address for either, they are WILD with eip and ebp lost */
    HOST_WORLD_KICK,    /* host_world_kick; state is at an instruction boundary */
    HOST_WORLD_WILD,    /* the code left 32-bit mode or forged its frame: state is what could be made of it,
                         * selectors are not those of the LDT. Or it was entered with such selectors, or with TF and
                         * a 16-bit stack segment: nothing has run */
    HOST_WORLD_DEAD,    /* text says how; destroy the world, the guest's state is the one of the last entry */
};
struct host_world_exit {
    enum host_world_why why;
    unsigned vector;
    unsigned error; /* #PF: bit 0 is about the host's page tables, the others about the access */
    uint32_t addr;  /* #PF: linear address */
    /* False: no instruction was executed. A DEAD that did not run (it could not map, was killed while it waited) is
     * no loss: *st is current and can go on elsewhere. */
    bool ran;
    char text[128]; /* WILD, DEAD */
};

/* Can this host run worlds at all? Names the call that is refused and what allows it. */
int host_worlds_probe(struct host_err *err);
int host_world_create(struct host_world **out, const struct host_ram *ram, struct host_counts *counts,
                      struct host_err *err);
void host_world_destroy(struct host_world *w); /* NULL is fine */
/* Queue: show RAM [gpa, gpa+len) at gva. prot: PROT_READ [| PROT_WRITE] [| PROT_EXEC], replaces what was
 * there (len, gva, gpa page-aligned). Unmap: nothing there any more. Reset: nothing anywhere. Queues never
 * fail; when they grow too long the world executes them early. Async-signal-safe unless the queue is full. */
void host_world_map(struct host_world *w, uint32_t gva, uint64_t gpa, uint64_t len, int prot);
void host_world_unmap(struct host_world *w, uint32_t gva, uint64_t len);
void host_world_reset(struct host_world *w);
/* Whether CPUID in this world is a #GP (the CPU can do that) and not the host's own answer. */
bool host_world_cpuid_faults(const struct host_world *w);
/* CPU time that the world has had so far, in ns; a system call. */
uint64_t host_world_cpu_ns(const struct host_world *w);
/* seg NULL: empty. Returns -1 when the host refuses this descriptor (16-bit segments on some kernels). */
int host_world_segment(struct host_world *w, unsigned index, const struct host_world_segment *seg);
/* Run user code from *st until it leaves; *st is then the state it left with. */
void host_world_run(struct host_world *w, struct host_world_state *st, struct host_world_exit *ex);
/* Make a running host_world_run return HOST_WORLD_KICK soon (or the next one at once). Any thread and the
 * trap handler; async-signal-safe. host_thread_kick of the thread inside host_world_run does the same. */
void host_world_kick(struct host_world *w);

/* ---- Terminal: raw mode that is undone on every exit path (exit(), fatal signals, SIGTSTP/SIGCONT, host
 * bug). ---- */
int host_term_raw(int fd, struct host_err *err); /* no-op when fd is no terminal */
void host_term_restore(void);                    /* idempotent, async-signal-safe */

/* ---- Host features, for doctor and start-up checks. ---- */
struct host_features {
    bool fsgsbase; /* wrgsbase usable (AT_HWCAP2 bit 1) */
    bool memfd;
    bool kvm;           /* /dev/kvm can be opened: shown only for information */
    bool overcommit_ok; /* an 8 GiB PROT_NONE reservation succeeds */
    bool exec_memfd;    /* a memfd can be mapped PROT_EXEC */
    bool ldt;           /* modify_ldt works (direct execution) */
    bool seccomp;
    bool seccomp_notify;    /* seccomp listeners (direct execution) */
    bool worlds;            /* one was made and ran (direct execution) */
    char worlds_error[256]; /* why not */
    unsigned max_map_count;
    unsigned cpus;
    char cpu_name[64];
    char kernel[128];
};
/* Tries everything once, a world included: milliseconds. */
void host_features_probe(struct host_features *f);
unsigned host_max_map_count(void); /* vm.max_map_count alone */

#endif
