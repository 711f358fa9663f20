/*
 * The operations compare times, in one Linux/i386 program without a C library, so that exactly the same
 * binary runs in a guest and on the host. Each row prints "bench NAME NANOSECONDS" for one operation: the
 * median of five runs.
 */
#include "../guests/user/sys.h"

enum { RUNS = 5, PAGE = 4096, COPY = 8 << 20 };

static u64 now(void)
{
    struct {
        i32 seconds, nanoseconds;
    } t;
    sys(SYS_CLOCK_GETTIME, 1, (u32)&t, 0);
    return (u64)(u32)t.seconds * 1000000000u + (u32)t.nanoseconds;
}

/* 64 by 32 bits without libgcc. */
static u32 divide(u64 n, u32 d)
{
    u32 high = n >> 32, low = n, q, r;
    if (high >= d)
        return 0xffffffff;
    __asm__("divl %4" : "=a"(q), "=d"(r) : "a"(low), "d"(high), "r"(d));
    return q;
}

/* ---- The rows: each does its work n times ---- */
static void getppid_int80(u32 n)
{
    while (n--)
        sys(SYS_GETPPID, 0, 0, 0);
}

static void pipe_ping_pong(u32 n)
{
    i32 there[2], back[2];
    char c = 'x';
    sys(SYS_PIPE, (u32)there, 0, 0);
    sys(SYS_PIPE, (u32)back, 0, 0);
    i32 child = sys(SYS_FORK, 0, 0, 0);
    if (child == 0) {
        for (u32 i = 0; i < n; i++) {
            sys(SYS_READ, there[0], (u32)&c, 1);
            sys(SYS_WRITE, back[1], (u32)&c, 1);
        }
        sys(SYS_EXIT, 0, 0, 0);
    }
    for (u32 i = 0; i < n; i++) {
        sys(SYS_WRITE, there[1], (u32)&c, 1);
        sys(SYS_READ, back[0], (u32)&c, 1);
    }
    sys(SYS_WAITPID, child, 0, 0);
    for (u32 i = 0; i < 2; i++) {
        sys(6, there[i], 0, 0); /* close */
        sys(6, back[i], 0, 0);
    }
}

static void fork_wait(u32 n)
{
    while (n--) {
        i32 child = sys(SYS_FORK, 0, 0, 0);
        if (child == 0)
            sys(SYS_EXIT, 0, 0, 0);
        sys(SYS_WAITPID, child, 0, 0);
    }
}

static void anonymous_fault(u32 n)
{
    volatile char *p = (volatile char *)sys_mmap_anonymous(n * PAGE);
    for (u32 i = 0; i < n; i++)
        p[i * PAGE] = 1;
    sys(SYS_MUNMAP, (u32)p, n * PAGE, 0);
}

static __attribute__((noinline)) u32 fib_of(volatile u32 n)
{
    return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}

static volatile u32 sink;

static void fib(u32 n)
{
    while (n--)
        sink = fib_of(35);
}

static void memory_copy(u32 n)
{
    u8 *a = (u8 *)sys_mmap_anonymous(2 * COPY);
    void *from = a, *to = a + COPY;
    u32 words = COPY / 4;
    __asm__ volatile("rep stosl"
                     : "+D"(from), "+c"(words)
                     : "a"(1)
                     : "memory"); /* touch before the clock counts */
    while (n--) {
        from = a;
        to = a + COPY;
        words = COPY / 4;
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    }
    sys(SYS_MUNMAP, (u32)a, 2 * COPY, 0);
}

static const struct {
    const char *name;
    void (*run)(u32 n);
    u32 n;
} rows[] = {
    {"getppid", getppid_int80, 100000},
    {"pipe", pipe_ping_pong, 2000},
    {"fork", fork_wait, 200},
    {"fault", anonymous_fault, 4000},
    {"fib", fib, 1},
    {"memcpy", memory_copy, 10},
};

static u32 median_run(void (*run)(u32), u32 n)
{
    u32 t[RUNS];
    for (u32 i = 0; i < RUNS; i++) {
        u64 start = now();
        run(n);
        u32 each = divide(now() - start, n), at = i;
        for (; at && t[at - 1] > each; at--)
            t[at] = t[at - 1];
        t[at] = each;
    }
    return t[RUNS / 2];
}

static int run_all(void)
{
    for (u32 i = 0; i < sizeof rows / sizeof *rows; i++) {
        rows[i].run(rows[i].n / 10 + 1); /* warm up */
        say("bench ");
        say(rows[i].name);
        say(" ");
        say_number(median_run(rows[i].run, rows[i].n));
        say("\n");
    }
    say("bench done\n");
    return 0;
}
PROGRAM(run_all)
