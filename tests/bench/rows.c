/*
 * The side-by-side rows, as one static i386 program without a C library: it runs unchanged in a guest under ringlet, in
 * the same guest under QEMU, and on the x86-64 host. Prints `row NAME NANOSECONDS` per row: time of one operation, the
 * median of several rounds.
 */
#include "../guests/user/sys.h"

struct timespec32 {
    i32 sec, nsec;
};

static u64 now(void)
{
    struct timespec32 t;
    sys(SYS_CLOCK_GETTIME, 1, (u32)&t, 0);
    return (u64)t.sec * 1000000000u + (u32)t.nsec;
}

/* 64 by 32 division without libgcc */
static u32 divide(u64 n, u32 d)
{
    u32 q, r;
    u32 high = (u32)(n >> 32) % d;
    __asm__("divl %4" : "=a"(q), "=d"(r) : "a"((u32)n), "d"(high), "r"(d));
    return q;
}

static char *source, *target;

static void getppid_int80(u32 n)
{
    while (n--)
        sys(SYS_GETPPID, 0, 0, 0);
}

static void pipe_round_trip(u32 n)
{
    i32 to[2], from[2];
    char c = 0;
    sys(SYS_PIPE, (u32)to, 0, 0);
    sys(SYS_PIPE, (u32)from, 0, 0);
    i32 child = sys(SYS_FORK, 0, 0, 0);
    if (child == 0) {
        for (u32 i = 0; i < n; i++) {
            sys(SYS_READ, (u32)to[0], (u32)&c, 1);
            sys(SYS_WRITE, (u32)from[1], (u32)&c, 1);
        }
        sys(SYS_EXIT, 0, 0, 0);
    }
    for (u32 i = 0; i < n; i++) {
        sys(SYS_WRITE, (u32)to[1], (u32)&c, 1);
        sys(SYS_READ, (u32)from[0], (u32)&c, 1);
    }
    sys(SYS_WAITPID, (u32)child, 0, 0);
    for (int i = 0; i < 2; i++) {
        sys(6 /* close */, (u32)to[i], 0, 0);
        sys(6, (u32)from[i], 0, 0);
    }
}

static void fork_wait(u32 n)
{
    while (n--) {
        i32 child = sys(SYS_FORK, 0, 0, 0);
        if (child == 0)
            sys(SYS_EXIT, 0, 0, 0);
        sys(SYS_WAITPID, (u32)child, 0, 0);
    }
}

static void page_fault(u32 n)
{
    u32 bytes = n * 4096;
    volatile char *p = (volatile char *)sys_mmap_anonymous(bytes);
    for (u32 i = 0; i < bytes; i += 4096)
        p[i] = 1;
    sys(SYS_MUNMAP, (u32)p, bytes, 0);
}

static __attribute__((noinline)) u32 fib(u32 n)
{
    u32 r;
    __asm__ volatile("" : "+r"(n));
    r = n < 2 ? n : fib(n - 1) + fib(n - 2);
    __asm__ volatile("" : "+r"(r));
    return r;
}

static void fib35(u32 n)
{
    while (n--)
        fib(35);
}

static void memcpy_8m(u32 n)
{
    while (n--) {
        void *d = target;
        const void *s = source;
        u32 count = (8u << 20) / 4;
        __asm__ volatile("rep movsl" : "+D"(d), "+S"(s), "+c"(count) : : "memory");
    }
}

static void divsd_1m(u32 n)
{
    double x = 1e300, y = 1.0000001;
    for (u32 k = 0; k < n; k++)
        for (u32 i = 0; i < 1000000; i++)
            __asm__ volatile("divsd %1, %0" : "+x"(x) : "x"(y));
}

static const struct row {
    const char *name;
    void (*run)(u32 n);
    u32 n; /* operations a round */
} rows[] = {
    {"getppid", getppid_int80, 20000}, {"pipe", pipe_round_trip, 1000}, {"fork_wait", fork_wait, 50},
    {"page_fault", page_fault, 2000},  {"fib35", fib35, 1},             {"memcpy_8m", memcpy_8m, 10},
    {"divsd_1m", divsd_1m, 2},
};

enum { ROUNDS = 7 };

static u32 median(u32 *v)
{
    for (int i = 1; i < ROUNDS; i++)
        for (int j = i; j > 0 && v[j - 1] > v[j]; j--) {
            u32 t = v[j];
            v[j] = v[j - 1];
            v[j - 1] = t;
        }
    return v[ROUNDS / 2];
}

static int bench(void)
{
    source = (char *)sys_mmap_anonymous(8u << 20);
    target = (char *)sys_mmap_anonymous(8u << 20);
    for (u32 i = 0; i < 8u << 20; i += 4096)
        source[i] = target[i] = (char)i;
    for (unsigned k = 0; k < sizeof rows / sizeof *rows; k++) {
        u32 ns[ROUNDS];
        rows[k].run(rows[k].n / 10 + 1); /* warm up */
        for (int i = 0; i < ROUNDS; i++) {
            u64 start = now();
            rows[k].run(rows[k].n);
            ns[i] = divide(now() - start, rows[k].n);
        }
        say("row ");
        say(rows[k].name);
        say(" ");
        say_number(median(ns));
        say("\n");
    }
    return 0;
}

PROGRAM(bench)
