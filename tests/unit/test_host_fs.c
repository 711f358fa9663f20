/* Signals that interrupt code whose FS.base is a window: handlers have their thread's own, and the window is back behind
 * them. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/auxv.h>
#include <time.h>
#include <ucontext.h>
#include "host/host.h"

/* FS.base is `base` meanwhile; what it is behind the signal is returned. */
uint64_t run_ud2(uint64_t base);
uint64_t run_spin(uint64_t base, volatile bool *until);
__asm__(".pushsection .text\n"
        "run_ud2: rdfsbase %rsi; wrfsbase %rdi; ud2; rdfsbase %rax; wrfsbase %rsi; ret\n"
        "run_spin: rdfsbase %rdx; wrfsbase %rdi; 1: pause; cmpb $0, (%rsi); je 1b\n"
        "    rdfsbase %rax; wrfsbase %rdx; ret\n"
        ".popsection\n");

static inline uint64_t fs_base(void)
{
    uint64_t base;
    __asm__ volatile("rdfsbase %0" : "=r"(base));
    return base;
}

static _Thread_local int mine; /* lives where FS.base says */

struct guest {
    struct host_thread thread;
    struct host_counts counts;
    bool kick_meanwhile, give_back;
    int cpu, kicks;
    uint64_t bases[4]; /* that handlers had */
    int mine[4];
    volatile bool stop;
};

static bool on_trap(void *ctx, struct host_trap *trap)
{
    struct guest *g = ctx;
    greg_t *regs = ((ucontext_t *)trap->uc)->uc_mcontext.gregs;
    int n = g->cpu + g->kicks;
    g->bases[n & 3] = fs_base();
    g->mine[n & 3] = mine;
    errno = 5;
    if (trap->kind == HOST_TRAP_KICK) {
        g->kicks++;
        g->stop = true;
        return true;
    }
    g->cpu++;
    regs[REG_RIP] += 2;
    if (g->give_back)
        *trap->fs_base = fs_base();
    if (g->kick_meanwhile)
        host_thread_kick(&g->thread);
    return true;
}

struct rig {
    struct guest g;
    struct host_ram ram;
    struct host_window window;
    uint64_t own;
};

static bool rig_init(struct rig *r)
{
    struct host_err err;
    memset(r, 0, sizeof *r);
    if (!(getauxval(AT_HWCAP2) & 2))
        return false;
    assert_int_equal(host_ram_init(&r->ram, 1 << 20, &err), 0);
    assert_int_equal(host_window_init(&r->window, &r->ram, NULL, &err), 0);
    assert_int_equal(host_thread_enter(&r->g.thread, on_trap, &r->g, &r->g.counts, &err), 0);
    r->own = fs_base();
    mine = 4711;
    errno = 77;
    return true;
}

static void rig_finish(struct rig *r)
{
    assert_int_equal(errno, 77);
    assert_true(fs_base() == r->own);
    for (int i = 0; i < r->g.cpu + r->g.kicks; i++) {
        assert_true(r->g.bases[i] == r->own);
        assert_int_equal(r->g.mine[i], 4711);
    }
    host_thread_leave(&r->g.thread);
    host_window_finish(&r->window);
    host_ram_finish(&r->ram);
}

static void faults_find_the_threads_own_data(void **state)
{
    struct rig r;
    (void)state;
    if (!rig_init(&r))
        skip();
    assert_true(run_ud2((uint64_t)r.window.base) == (uint64_t)r.window.base);
    assert_true(run_ud2(r.own) == r.own);
    assert_int_equal(r.g.cpu, 2);
    rig_finish(&r);
}

/* What the handler stores is what the interrupted code goes on with. */
static void the_handler_may_give_it_back(void **state)
{
    struct rig r;
    (void)state;
    if (!rig_init(&r))
        skip();
    r.g.give_back = true;
    assert_true(run_ud2((uint64_t)r.window.base) == r.own);
    rig_finish(&r);
}

/* The kick is held back until the handler returns: it comes with the window's base again. */
static void a_kick_inside_a_handler_comes_behind_it(void **state)
{
    struct rig r;
    (void)state;
    if (!rig_init(&r))
        skip();
    r.g.kick_meanwhile = true;
    assert_true(run_ud2((uint64_t)r.window.base) == (uint64_t)r.window.base);
    assert_int_equal(r.g.cpu, 1);
    assert_int_equal(r.g.kicks, 1);
    rig_finish(&r);
}

static void *kick_soon(void *arg)
{
    struct timespec t = {.tv_nsec = 5000000};
    nanosleep(&t, NULL);
    host_thread_kick(arg);
    return NULL;
}

static void kicks_from_elsewhere_too(void **state)
{
    struct rig r;
    pthread_t other;
    (void)state;
    if (!rig_init(&r))
        skip();
    assert_int_equal(pthread_create(&other, NULL, kick_soon, &r.g.thread), 0);
    uint64_t behind = run_spin((uint64_t)r.window.base, &r.g.stop);
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_true(behind == (uint64_t)r.window.base);
    assert_int_equal(r.g.kicks, 1);
    rig_finish(&r);
}

/* Each thread's signal stack names that thread's data. */
static void *fault_in_a_thread(void *arg)
{
    struct rig r;
    (void)arg;
    if (rig_init(&r)) {
        assert_true(run_ud2((uint64_t)r.window.base) == (uint64_t)r.window.base);
        rig_finish(&r);
    }
    return NULL;
}

static void every_thread_has_its_own(void **state)
{
    struct rig r;
    pthread_t other;
    (void)state;
    if (!rig_init(&r))
        skip();
    assert_int_equal(pthread_create(&other, NULL, fault_in_a_thread, NULL), 0);
    assert_int_equal(pthread_join(other, NULL), 0);
    assert_true(run_ud2((uint64_t)r.window.base) == (uint64_t)r.window.base);
    rig_finish(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults_find_the_threads_own_data),
        cmocka_unit_test(the_handler_may_give_it_back),
        cmocka_unit_test(a_kick_inside_a_handler_comes_behind_it),
        cmocka_unit_test(kicks_from_elsewhere_too),
        cmocka_unit_test(every_thread_has_its_own),
    };
    return cmocka_run_group_tests_name("host: FS.base in handlers", tests, NULL, NULL);
}
