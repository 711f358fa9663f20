/* Unit test of the module host: a kick at each instruction of a world's stub, and a world that hears none. Links only host.
 * The kernel's debugging interface stops the world's task exactly there. */
#define _GNU_SOURCE
#include "test_host_world_rig.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define STUB UINT64_C(0x700000000000)
extern const uint8_t host_world_stub_begin[], host_world_stub_handler[], host_world_stub_handler_notify[],
    host_world_stub_enter[], host_world_stub_iret[], host_world_stub_far[], host_world_stub_entered[];

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- The debugger: a thread of its own, for the other one waits for the world. ---- */

enum { KICKS_MAX = 2, PLACES_MAX = 200 };

struct debugger {
    struct rig *r;
    int pid, tid;
    sem_t ready;
    bool refused; /* the host does not let us */
    bool small;   /* enter with a stack segment of 16 bits */
    int over;     /* atomic: the run has ended */
    /* For kicker(): send one after at[0] instructions in the stub, one after at[1] further ones. */
    unsigned kicks, at[KICKS_MAX];
    unsigned sent;
    uint64_t place[KICKS_MAX]; /* where: offsets in the stub */
};

/* Wait for the next stop; its signal, or -1 when the run is over. */
static int next_stop(struct debugger *d)
{
    int status;
    for (;;) {
        pid_t tid = waitpid(d->tid, &status, __WALL | WNOHANG);
        if (tid == d->tid)
            return WIFSTOPPED(status) ? WSTOPSIG(status) : -1;
        if (tid < 0 || __atomic_load_n(&d->over, __ATOMIC_SEQ_CST))
            return -1;
        usleep(10);
    }
}

static bool seize(struct debugger *d)
{
    d->refused =
        ptrace(PTRACE_SEIZE, d->tid, NULL, NULL) != 0 || ptrace(PTRACE_INTERRUPT, d->tid, NULL, NULL) != 0;
    return !d->refused && next_stop(d) == SIGTRAP;
}

/* The task may be running: it must be stopped first. A signal it stops for meanwhile is delivered. */
static void release(struct debugger *d)
{
    int status;
    if (ptrace(PTRACE_DETACH, d->tid, NULL, NULL) == 0 || errno != ESRCH)
        return;
    ptrace(PTRACE_INTERRUPT, d->tid, NULL, NULL);
    if (waitpid(d->tid, &status, __WALL) == d->tid && WIFSTOPPED(status)) {
        int signo = status >> 16 ? 0 : WSTOPSIG(status);
        ptrace(PTRACE_DETACH, d->tid, NULL, (long)signo);
    }
}

static bool in_stub(const struct debugger *d, uint64_t *place)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, d->tid, NULL, &regs) != 0 || regs.cs != 0x33)
        return false;
    *place = regs.rip - STUB;
    return *place >= (uint64_t)(host_world_stub_handler - host_world_stub_begin) &&
           *place < (uint64_t)(host_world_stub_entered - host_world_stub_begin);
}

static void kick(struct debugger *d, uint64_t place)
{
    d->place[d->sent++] = place;
    syscall(SYS_tgkill, d->pid, d->tid, SIGUSR1);
}

/* The kernel makes steps by TF. After a POPF or IRETQ it would take what is its own for the guest's. */
static void go_on(struct debugger *d)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, d->tid, NULL, &regs) == 0) {
        regs.eflags &= ~UINT64_C(0x100);
        ptrace(PTRACE_SETREGS, d->tid, NULL, &regs);
    }
    ptrace(PTRACE_CONT, d->tid, NULL, NULL);
}

/* Of the stub each instruction alone, but the two that lead to the guest's code. */
static bool is_stepped(uint64_t place)
{
    return place != (uint64_t)(host_world_stub_iret - host_world_stub_begin) &&
           place != (uint64_t)(host_world_stub_far - host_world_stub_begin);
}

/* Until all kicks are sent. */
static void *kicker(void *arg)
{
    struct debugger *d = arg;
    unsigned steps = 0;
    int stop = SIGTRAP;
    bool seized = seize(d);

    sem_post(&d->ready);
    while (seized && stop > 0 && d->sent < d->kicks) {
        uint64_t place = 0;
        int signo = stop == SIGTRAP ? 0 : stop; /* to be delivered: a kick, the guest's own */
        bool ours = !signo && in_stub(d, &place);
        if (ours && steps++ == d->at[d->sent]) {
            kick(d, place);
            steps = 0;
        }
        if (signo || (ours && is_stepped(place)))
            ptrace(PTRACE_SINGLESTEP, d->tid, NULL, (long)signo);
        else
            go_on(d);
        stop = next_stop(d);
    }
    if (seized && stop > 0)
        ptrace(PTRACE_DETACH, d->tid, NULL, (long)(stop == SIGTRAP ? 0 : stop));
    else if (seized)
        release(d);
    return NULL;
}

static void debug(struct debugger *d, struct rig *r, pthread_t *t, void *(*what)(void *))
{
    d->r = r;
    d->pid = rig_child_of(getpid());
    d->tid = rig_runner_of(d->pid);
    assert_int_equal(sem_init(&d->ready, 0, 0), 0);
    assert_int_equal(pthread_create(t, NULL, what, d), 0);
    sem_wait(&d->ready);
}

static void debugged(struct debugger *d, pthread_t t)
{
    __atomic_store_n(&d->over, 1, __ATOMIC_SEQ_CST);
    pthread_join(t, NULL);
    sem_destroy(&d->ready);
}

/* ---- Each instruction ---- */

PROGRAM(call, "int $0x80");
enum { SMALL = 20 }; /* a descriptor's number */

/* Every register its own value. */
static void distinct_state(struct rig *r, unsigned stack_segment)
{
    rig_state(r);
    for (unsigned i = 0; i < 8; i++)
        r->st.gpr[i] = 0x11111111 * (i + 1);
    r->st.eflags = 0x8d7;
    for (unsigned i = 0; i < 6; i++)
        if (i != CS && i != SS)
            r->st.sel[i] = HOST_WORLD_SELECTOR(10 + i);
    r->st.sel[SS] = HOST_WORLD_SELECTOR(stack_segment);
    for (unsigned i = 160; i < 160 + 8 * 16; i++) /* XMM0 to XMM7 */
        r->st.fpu[i] = (uint8_t)(i * 7);
}

static void expect_same(const struct host_world_state *a, const struct host_world_state *b, unsigned eip)
{
    assert_memory_equal(a->gpr, b->gpr, sizeof(a->gpr));
    assert_memory_equal(a->sel, b->sel, sizeof(a->sel));
    assert_int_equal(a->eflags, b->eflags);
    assert_int_equal(a->eip, b->eip + eip);
    assert_memory_equal(a->fpu + 160, b->fpu + 160, 128);
}

/* Run one system call, with kicks on the way in or out. Whatever they interrupt: none, or all of it has happened. */
static void call_with_kicks(struct rig *r, struct debugger *d)
{
    pthread_t t;
    unsigned stops = 0;

    distinct_state(r, d->small ? SMALL : RIG_DS);
    struct host_world_state before = r->st;
    debug(d, r, &t, kicker);
    if (!d->refused) {
        do {
            rig_run(r);
            expect_same(&r->st, &before, r->ex.why == HOST_WORLD_SYSCALL ? 2 : 0);
        } while (r->ex.why == HOST_WORLD_KICK && stops++ < 20);
        if (r->ex.why != HOST_WORLD_SYSCALL)
            rig_print(r);
        assert_int_equal(r->ex.why, HOST_WORLD_SYSCALL);
    }
    debugged(d, t);
}

static void prepare_world(struct rig *r)
{
    for (unsigned i = 0; i < 6; i++)
        rig_segment(r, 10 + i, i << 16, 0xffffffff, 0x3);
    rig_code(r, call, call_end);
}

/* False: not possible here. */
static bool prepare(struct rig *r)
{
    struct debugger d = {0};

    prepare_world(r);
    call_with_kicks(r, &d); /* with none */
    if (d.refused)
        printf("this host does not let a parent debug its children\n");
    return !d.refused;
}

static unsigned offset(const uint8_t *label)
{
    return (unsigned)(label - host_world_stub_begin);
}

/* Their number. */
static unsigned kick_at_each(struct rig *r, bool small, bool seen[HOST_PAGE])
{
    for (unsigned n = 0;; n++) {
        struct debugger d = {.kicks = 1, .at = {n}, .small = small};
        call_with_kicks(r, &d);
        if (!d.sent)
            return n;
        seen[d.place[0]] = true;
    }
}

static void a_kick_at_each_instruction(void **state)
{
    struct rig *r = *state;
    bool seen[HOST_PAGE] = {0};

    if (!prepare(r)) {
        skip();
        return;
    }
    unsigned n = kick_at_each(r, false, seen);
    /* Not some of them: both ends of the handler, the instruction after the wait, both ends of the entry. */
    assert_in_range(n, 30, PLACES_MAX);
    assert_true(seen[offset(host_world_stub_handler)]);
    assert_true(seen[offset(host_world_stub_handler_notify) - 2]);
    assert_true(seen[offset(host_world_stub_handler_notify)]);
    assert_true(seen[offset(host_world_stub_enter) - 10]);
    assert_true(seen[offset(host_world_stub_enter)]);
    assert_true(seen[offset(host_world_stub_iret)]);
}

/* The stub then comes from where the world was made, and not from an exit. */
static void a_kick_on_the_first_way_in(void **state)
{
    struct rig *r = *state;
    unsigned n = 0;

    if (!prepare(r)) {
        skip();
        return;
    }
    for (struct debugger d; d = (struct debugger){.kicks = 1, .at = {n}}, n < 30; n++) {
        rig_finish(r);
        rig_init(r);
        prepare_world(r);
        call_with_kicks(r, &d);
        assert_int_equal(d.sent, 1);
    }
}

static void a_kick_on_the_way_to_a_small_stack(void **state)
{
    struct rig *r = *state;
    struct host_world_segment stack = {RIG_DATA, 0xffff, 0x3, true, false};
    bool seen[HOST_PAGE] = {0};

    if (!prepare(r) || host_world_segment(r->w, SMALL, &stack) != 0) {
        skip();
        return;
    }
    assert_in_range(kick_at_each(r, true, seen), 30, PLACES_MAX);
    assert_false(seen[offset(host_world_stub_iret)]);
    assert_true(seen[offset(host_world_stub_far)]);
}

/* The second while the handler is at work for the first. */
static void two_kicks(void **state)
{
    struct rig *r = *state;
    static const unsigned later[] = {0, 1, 2, 3, 4, 5, 8, 12, 16};

    if (!prepare(r)) {
        skip();
        return;
    }
    unsigned both = 0;
    for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++)
        for (unsigned n = 0;; n++) {
            struct debugger d = {.kicks = 2, .at = {n, later[i]}};
            call_with_kicks(r, &d);
            both += d.sent == 2;
            if (!d.sent)
                break;
        }
    assert_true(both > 200);
}

/* ---- A world that hears no kick. Code in it cannot bring this about, but should it ever: no hang. ---- */

static void *deafen(void *arg)
{
    struct debugger *d = arg;
    uint64_t all = ~UINT64_C(0);
    if (seize(d)) {
        ptrace(PTRACE_SETSIGMASK, d->tid, (void *)sizeof(all), &all);
        ptrace(PTRACE_DETACH, d->tid, NULL, NULL);
    }
    sem_post(&d->ready);
    while (!__atomic_load_n(&d->over, __ATOMIC_SEQ_CST)) {
        usleep(2000);
        if (d->kicks)
            host_world_kick(d->r->w);
    }
    return NULL;
}

PROGRAM(endless, "1: jmp 1b");
PROGRAM(fault, "ud2");

static bool run_deaf(struct rig *r, bool kicks)
{
    struct debugger d = {.kicks = kicks};
    pthread_t t;
    debug(&d, r, &t, deafen);
    if (!d.refused)
        do
            rig_run(r);
        while (r->ex.why == HOST_WORLD_KICK);
    debugged(&d, t);
    return !d.refused;
}

static void blocked_signals_and_an_endless_loop(void **state)
{
    struct rig *r = *state;
    rig_code(r, endless, endless_end);
    uint64_t start = now_ms();
    if (!run_deaf(r, true)) {
        skip();
        return;
    }
    uint64_t end = now_ms();
    assert_int_equal(r->ex.why, HOST_WORLD_DEAD);
    assert_non_null(strstr(r->ex.text, "did not stop"));
    assert_in_range(end - start, 900, 60000); /* half a second of CPU time, which others want too */
    rig_run(r);
    assert_int_equal(r->ex.why, HOST_WORLD_DEAD); /* and stays so */
}

static void blocked_signals_and_a_fault(void **state)
{
    struct rig *r = *state;
    rig_code(r, fault, fault_end);
    if (!run_deaf(r, false)) {
        skip();
        return;
    }
    assert_int_equal(r->ex.why, HOST_WORLD_DEAD);
    assert_non_null(strstr(r->ex.text, "signal 4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_kick_at_each_instruction, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_kick_on_the_first_way_in, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_kick_on_the_way_to_a_small_stack, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(two_kicks, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(blocked_signals_and_an_endless_loop, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(blocked_signals_and_a_fault, rig_setup, rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
