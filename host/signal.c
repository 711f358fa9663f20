/* Signal entry: CPU exceptions and kicks become host_traps of the thread that runs guest code. */
#define _GNU_SOURCE
#include "host/host.h"
#include "entry.h"

#include <asm/prctl.h>
#include <errno.h>
#include <execinfo.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* The process-wide state host.h admits to. initial-exec: no lazy allocation on first use, which may be in a
 * handler. */
static _Thread_local struct host_thread *current __attribute__((tls_model("initial-exec")));
static _Thread_local bool in_trap __attribute__((tls_model("initial-exec")));

static const int cpu_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
#define CPU_SIGNAL_COUNT (sizeof(cpu_signals) / sizeof(cpu_signals[0]))

static void count_signal(struct host_counts *counts, int signo)
{
    if (!counts)
        return;
    counts->signals++;
    switch (signo) {
    case SIGSEGV:
    case SIGBUS:
        counts->segv++;
        break;
    case SIGILL:
        counts->ill++;
        break;
    case SIGFPE:
        counts->fpe++;
        break;
    case SIGTRAP:
        counts->trap++;
        break;
    default:
        counts->kick++;
    }
}

/*T:703 How a fault of the guest arrives
 * Translated guest code runs as ordinary code of this process. When it divides by zero or touches an
 * address the window does not show, the CPU raises the same exception it would raise for a guest on bare
 * metal; the Linux kernel takes it and hands it to us as a signal. The signal's number says little (SIGSEGV
 * is #PF, #GP, #SS ...), but the saved context carries what the CPU said: the exception's vector, its error
 * code and, for #PF, the address.
 *
 * The handler may run on no stack of the guest's making, so it has its own, with a guard page below. What
 * it changes in the saved context (registers, instruction pointer, flags) is what the CPU continues with.
 *
 * Three things look like such faults and are not. A signal sent with kill(2) has si_code <= 0, and its
 * saved vector is a left-over. A SIGBUS from a page fault means the host could not supply a page of guest
 * RAM. And a fault inside the handler is our own bug. All three end in a report, because handing them to
 * the guest would hide them.
 :*/
static bool deliver(struct host_thread *t, struct host_trap *trap, int signo)
{
    in_trap = true; /* from here on a fault is ours, be it only that t is broken */
    count_signal(t->counts, signo);
    bool handled = t->fn(t->ctx, trap);
    in_trap = false;
    return handled;
}

static void on_cpu_signal(int signo, siginfo_t *info, ucontext_t *uc, uint64_t *fs_base)
{
    struct host_thread *t = current;
    const greg_t *regs = uc->uc_mcontext.gregs;
    struct host_trap trap = {
        .kind = HOST_TRAP_CPU,
        .vector = (unsigned)regs[REG_TRAPNO],
        .error = (unsigned)regs[REG_ERR],
        .addr = (uint64_t)(uintptr_t)info->si_addr,
        .uc = uc,
        .fs_base = fs_base,
    };

    if (info->si_code <= 0)
        host_crash(signo, info, uc, "the signal was sent by a process");
    if (in_trap)
        host_crash(signo, info, uc, "bug in ringlet: fault inside the trap handler");
    if (signo == SIGBUS && trap.vector == 14) /* others: #SS, #AC */
        host_crash(signo, info, uc,
                   "the host could not supply a page of memory; free memory or start with less --memory");
    if (!t)
        host_crash(signo, info, uc, "bug in ringlet: fault while no guest code was running");
    if (!deliver(t, &trap, signo))
        host_crash(signo, info, uc, "bug in ringlet: fault in the monitor's own code");
}

static void on_kick(int signo, ucontext_t *uc)
{
    struct host_thread *t = current;
    struct host_trap trap = {.kind = HOST_TRAP_KICK, .uc = uc};

    host_world_kick_inside(uc);
    if (!t)
        return; /* a timer that fired while the thread was leaving */
    for (struct host_thread *each = t; each; each = each->outer)
        __atomic_store_n(&each->kicked, 1, __ATOMIC_SEQ_CST);
    deliver(t, &trap, signo);
}

HOST_SIGNAL_ENTRY(host_signal_entry, host_signal_dispatch);

__attribute__((used)) void host_signal_dispatch(int signo, siginfo_t *info, void *uc, uint64_t *fs_base)
{
    int saved_errno = errno;
    if (signo == HOST_SIG_KICK)
        on_kick(signo, uc);
    else
        on_cpu_signal(signo, info, uc, fs_base);
    errno = saved_errno;
}

void host_signal_install(int signo, host_signal_fn fn, bool sync)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = fn;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | (sync ? SA_NODEFER : 0);
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < CPU_SIGNAL_COUNT; i++)
        sigdelset(&action.sa_mask, cpu_signals[i]);
    sigaction(signo, &action, NULL);
}

void host_signal_install_kick(void)
{
    host_signal_install(HOST_SIG_KICK, HOST_SIGNAL_FN(host_signal_entry), false);
}

void host_signal_install_all(void)
{
    void *frame;
    /* The first backtrace() loads a library, which must not happen in a handler. */
    backtrace(&frame, 1);
    for (size_t i = 0; i < CPU_SIGNAL_COUNT; i++)
        host_signal_install(cpu_signals[i], HOST_SIGNAL_FN(host_signal_entry), true);
    host_signal_install_kick();
}

/* ---- The alternate stack, at a multiple of its size, in its lowest word FS.base of the thread that runs on it (entry.h);
 * below it a guard page, and what was set before. ---- */

struct altstack {
    stack_t previous;
    void *mapping;
};

#define ALTSTACK_HEADER  (2 * (size_t)HOST_PAGE)
#define ALTSTACK_MAPPING (ALTSTACK_HEADER + 2 * (size_t)HOST_SIGNAL_STACK)

static uint8_t *altstack_base(void *mapping)
{
    uintptr_t least = (uintptr_t)mapping + ALTSTACK_HEADER;
    return (uint8_t *)((least + HOST_SIGNAL_STACK - 1) & -(uintptr_t)HOST_SIGNAL_STACK);
}

/* A base that looks like a window's would be taken for one; no C library has it there. */
static int own_fs_base(uint64_t *base, struct host_err *err)
{
    if (syscall(SYS_arch_prctl, ARCH_GET_FS, base) != 0)
        return host_fail(err, "cannot read FS.base (%s)", strerror(errno));
    return (uint32_t)*base ? 0 : host_fail(err, "this thread's data is at a multiple of 4 GiB");
}

static int altstack_push(struct host_thread *t, struct host_err *err)
{
    uint64_t fs_base;
    if (own_fs_base(&fs_base, err) != 0)
        return -1;
    void *at = mmap(NULL, ALTSTACK_MAPPING, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return host_fail(err, "cannot map a signal stack (%s)", strerror(errno));
    uint8_t *base = altstack_base(at);
    struct altstack *header = (struct altstack *)(base - ALTSTACK_HEADER);
    stack_t stack = {.ss_sp = base, .ss_size = HOST_SIGNAL_STACK};
    header->mapping = at;
    *(uint64_t *)base = fs_base;
    if (mprotect(base - HOST_PAGE, HOST_PAGE, PROT_NONE) != 0 ||
        sigaltstack(&stack, &header->previous) != 0) {
        host_fail(err, "cannot set the signal stack (%s)", strerror(errno));
        munmap(at, ALTSTACK_MAPPING);
        return -1;
    }
    t->altstack = header;
    return 0;
}

static void altstack_pop(struct host_thread *t)
{
    struct altstack *header = t->altstack;
    sigaltstack(&header->previous, NULL);
    munmap(header->mapping, ALTSTACK_MAPPING);
    t->altstack = NULL;
}

/* ---- Threads. ---- */

static void unblock_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < CPU_SIGNAL_COUNT; i++)
        sigaddset(&set, cpu_signals[i]);
    sigaddset(&set, HOST_SIG_KICK);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

int host_thread_enter(struct host_thread *t, host_trap_fn fn, void *ctx, struct host_counts *counts,
                      struct host_err *err)
{
    t->fn = fn;
    t->ctx = ctx;
    t->counts = counts;
    t->outer = current;
    t->altstack = NULL;
    /* One stack serves all nested entries of a thread. */
    if (!current && altstack_push(t, err) != 0)
        return -1;
    host_signal_install_all();
    unblock_signals();
    current = t;
    __atomic_store_n(&t->tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    return 0;
}

void host_thread_leave(struct host_thread *t)
{
    __atomic_store_n(&t->tid, 0, __ATOMIC_SEQ_CST);
    current = t->outer;
    t->outer = NULL;
    if (t->altstack)
        altstack_pop(t);
}

void host_thread_kick(struct host_thread *t)
{
    int saved_errno = errno;
    int tid = __atomic_load_n(&t->tid, __ATOMIC_SEQ_CST);
    __atomic_store_n(&t->kicked, 1, __ATOMIC_SEQ_CST);
    if (tid != 0)
        syscall(SYS_tgkill, getpid(), tid, HOST_SIG_KICK);
    errno = saved_errno;
}

bool host_thread_take_kick(struct host_thread *t)
{
    return t && __atomic_exchange_n(&t->kicked, 0, __ATOMIC_SEQ_CST) != 0;
}
