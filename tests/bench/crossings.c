/*
 * What a world costs: from user code's fault to its going on, with and without mappings to be made, against what the same
 * host asks for a futex round trip of two processes and for one signal. `crossings [ROUNDS]`: CPU time of both sides, which
 * other work on the machine disturbs least; microseconds, median and least of all rounds. The figures of host/README.md.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>
#include "host/host.h"

enum { EACH = 1000, ROUNDS_MAX = 1000, CODE = 0x400000, HOLE = 0x700000, MAPPED = 0x800000, FRAMES = 256 };

/* The other end, if there is one: a process, or a world. */
static pid_t other;
static const struct host_world *beyond;

static double seconds(void)
{
    clockid_t clock;
    uint64_t ns = host_read_clock(CLOCK_PROCESS_CPUTIME_ID);
    if (other && clock_getcpuclockid(other, &clock) == 0)
        ns += host_read_clock(clock);
    if (beyond)
        ns += host_world_cpu_ns(beyond);
    return (double)ns / 1e9;
}

static int smaller_first(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* ---- In and out of a world ---- */

struct rig {
    struct host_ram ram;
    struct host_counts counts;
    struct host_world *world;
    struct host_world_state state;
    unsigned turn;
};

static void expect(struct rig *r, uint32_t eip, enum host_world_why why)
{
    struct host_world_exit ex;

    r->state.eip = eip;
    host_world_run(r->world, &r->state, &ex);
    if (ex.why == why)
        return;
    fprintf(stderr, "crossings: left the world otherwise than expected %s\n", ex.text);
    exit(1);
}

static void by_fault(struct rig *r)
{
    expect(r, CODE, HOST_WORLD_TRAP);
}

static void by_int80(struct rig *r)
{
    expect(r, CODE + 16, HOST_WORLD_SYSCALL);
}

/* A page where there was none, as after the guest's own page fault. Not in order, or they would be one mapping. */
static void show(struct rig *r)
{
    if (r->turn++ % FRAMES == 0)
        host_world_unmap(r->world, MAPPED, (uint64_t)FRAMES * HOST_PAGE);
    host_world_map(r->world, MAPPED + r->turn % FRAMES * HOST_PAGE,
                   (uint64_t)(r->turn * 7 % FRAMES) * HOST_PAGE, HOST_PAGE, PROT_READ | PROT_WRITE);
}

static void by_fault_and_mapping(struct rig *r)
{
    show(r);
    by_fault(r);
}

static void by_fault_and_eight(struct rig *r)
{
    for (unsigned i = 0; i < 8; i++)
        show(r);
    by_fault(r);
}

static int rig_create(struct rig *r)
{
    static const struct host_world_segment code = {0, 0xffffffff, 0xb, true, true};
    static const struct host_world_segment data = {0, 0xffffffff, 0x3, true, true};
    static const uint8_t program[] = {0xa1, 0,           0,   HOLE >> 16,
                                      0,    [16] = 0xcd, 0x80}; /* movl HOLE, %eax; int $0x80 */
    struct host_err err = {""};

    if (host_ram_init(&r->ram, (uint64_t)FRAMES * HOST_PAGE, &err) != 0 ||
        host_world_create(&r->world, &r->ram, &r->counts, &err) != 0) {
        fprintf(stderr, "crossings: %s\n", err.text);
        return -1;
    }
    memcpy(r->ram.base, program, sizeof(program));
    host_world_segment(r->world, 1, &code);
    host_world_segment(r->world, 2, &data);
    host_world_map(r->world, CODE, 0, HOST_PAGE, PROT_READ | PROT_EXEC);
    r->state.eflags = 2;
    for (unsigned i = 0; i < 6; i++)
        r->state.sel[i] = HOST_WORLD_SELECTOR(i == 1 ? 1 : 2);
    return 0;
}

/* ---- What the host itself takes ---- */

static void post(volatile int *word, int value)
{
    *word = value;
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void await(volatile int *word, int value)
{
    while (*word != value)
        syscall(SYS_futex, word, FUTEX_WAIT, !value, NULL, NULL, 0);
}

static void skip_instruction(int signo, siginfo_t *info, void *uc)
{
    (void)signo;
    (void)info;
    ((ucontext_t *)uc)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void take_signal(void)
{
    __asm__ volatile("movb (%0), %%al" : : "a"((uintptr_t)8) : "memory");
}

static volatile int *futex_word;

/* with_signal: it takes one in each round, as the world does. */
static pid_t futex_partner(bool with_signal)
{
    cpu_set_t here;

    CPU_ZERO(&here);
    CPU_SET((size_t)sched_getcpu(), &here);
    sched_setaffinity(0, sizeof(here), &here);
    futex_word = mmap(NULL, HOST_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = futex_word == MAP_FAILED ? -1 : fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
        await(futex_word, 1);
        if (with_signal)
            take_signal();
        post(futex_word, 0);
    }
}

static void by_futex(struct rig *r)
{
    (void)r;
    post(futex_word, 1);
    await(futex_word, 0);
}

static void by_signal(struct rig *r)
{
    (void)r;
    take_signal();
}

/* ---- Rows ---- */

static double measure(struct rig *r, void (*once)(struct rig *), unsigned rounds, const char *name)
{
    static double took[ROUNDS_MAX];
    uint64_t switches = r->counts.world_switches, maps = r->counts.world_maps;
    double times = (double)rounds * EACH;

    for (unsigned i = 0; i < rounds; i++) {
        double start = seconds();
        for (unsigned n = 0; n < EACH; n++)
            once(r);
        took[i] = (seconds() - start) * 1e6 / EACH;
    }
    qsort(took, rounds, sizeof(took[0]), smaller_first);
    printf("%-36s %6.2f  least %6.2f  hand-overs %.2f  mapping calls %.2f\n", name, took[rounds / 2], took[0],
           (double)(r->counts.world_switches - switches) / times,
           (double)(r->counts.world_maps - maps) / times);
    return took[0];
}

static double with_partner(struct rig *r, bool with_signal, unsigned rounds, const char *name)
{
    other = futex_partner(with_signal);
    if (other < 0)
        exit(1);
    double took = measure(r, by_futex, rounds, name);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    other = 0;
    return took;
}

int main(int argc, char **argv)
{
    static struct rig r;
    struct sigaction skip = {.sa_sigaction = skip_instruction, .sa_flags = SA_SIGINFO};
    int asked = argc > 1 ? atoi(argv[1]) : 31;
    unsigned rounds = asked < 1 ? 1 : asked > ROUNDS_MAX ? ROUNDS_MAX : (unsigned)asked;

    if (rig_create(&r) != 0)
        return 1;
    beyond = r.world;
    double crossing = measure(&r, by_fault, rounds, "exit by a fault, and entry");
    measure(&r, by_int80, rounds, "exit by int 80h, and entry");
    measure(&r, by_fault_and_mapping, rounds, "the first, and one page mapped");
    measure(&r, by_fault_and_eight, rounds, "the first, and eight");
    beyond = NULL;
    host_world_destroy(r.world);
    if (sigaction(SIGSEGV, &skip, NULL) != 0)
        return 1;
    double futex = with_partner(&r, false, rounds, "futex round trip on one CPU");
    double both = with_partner(&r, true, rounds, "the same, the other takes a SIGSEGV");
    double signal = measure(&r, by_signal, rounds, "SIGSEGV, handled and returned from");
    printf("least: the first is %.2f of a futex round trip and a signal, %.2f of both in one loop\n",
           crossing / (futex + signal), crossing / both);
    return 0;
}
