/*
 * What the benchmark programs share: Linux/i386, static, no C library, so that the same file runs in a guest and on
 * the host. `program ROW [quick|full] [BUSYBOX [ROOT [mark]]]` measures one row and prints "row NAME VALUE", where the user time is of
 * interest "user NAME NANOSECONDS" before; a program that cannot says why on standard error and ends with status 1.
 */
#ifndef BENCH_PROGRAM_H
#define BENCH_PROGRAM_H

#include <stdbool.h>
#include "../guests/user/sys.h"

enum {
    SYS_OPEN = 5,
    SYS_CLOSE = 6,
    SYS_EXECVE = 11,
    SYS_IOPL = 110,
    SYS_KILL = 37,
    SYS_GETPID = 20,
    SYS_RT_SIGACTION = 174,
    SYS_MADVISE = 219,
    SYS_FTRUNCATE = 93,
    SYS_SCHED_SETAFFINITY = 241,
    SYS_MEMFD_CREATE = 356,
    MMAP_SHARED = 1,
    MMAP_PRIVATE = 2,
    MMAP_ANONYMOUS = 0x20,
    MMAP_NORESERVE = 0x4000,
    PAGE = 4096,
};

struct arguments {
    const char *row, *busybox;
    const char *root; /* NULL, or a directory to be made the root before the row runs */
    bool quick;
    bool mark; /* this is a guest: say where the row begins and ends on the statistics port */
};
int bench_program(const struct arguments *a);

/* The kernel leaves argc, argv[0], ... on the stack. */
__asm__(
    ".globl _start\n_start: xorl %ebp, %ebp; movl %esp, %eax; andl $-16, %esp; subl $12, %esp; pushl %eax\n"
    " call bench_start; movl %eax, %ebx; movl $1, %eax; int $0x80");

static inline bool same(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

int bench_start(const u32 *stack);
int bench_start(const u32 *stack)
{
    u32 argc = stack[0];
    const char *const *argv = (const char *const *)(stack + 1);
    struct arguments a = {.row = argc > 1 ? argv[1] : "",
                          .quick = argc > 2 && same(argv[2], "quick"),
                          .busybox = argc > 3 ? argv[3] : "/bin/busybox",
                          .root = argc > 4 && !same(argv[4], "-") ? argv[4] : NULL,
                          .mark = argc > 5 && same(argv[5], "mark")};

    return bench_program(&a);
}

_Noreturn static inline void fail(const char *why)
{
    u32 n = 0;
    while (why[n])
        n++;
    sys(SYS_WRITE, 2, (u32)why, n);
    sys(SYS_WRITE, 2, (u32) "\n", 1);
    for (;;)
        sys(SYS_EXIT, 1, 0, 0);
}

/* A system call whose failure makes the row meaningless. */
static inline i32 must(const char *what, i32 result)
{
    if (result < 0 && result > -4096)
        fail(what);
    return result;
}

static inline i32 sys_mmap(u32 length, u32 prot, u32 flags, i32 fd)
{
    i32 r;
    __asm__ volatile("pushl %%ebp; xorl %%ebp, %%ebp; int $0x80; popl %%ebp"
                     : "=a"(r)
                     : "a"(SYS_MMAP2), "b"(0), "c"(length), "d"(prot), "S"(flags), "D"(fd)
                     : "memory");
    return must("mmap failed", r);
}

static inline u8 *memory_get(u32 length)
{
    return (u8 *)sys_mmap(length, 3, MMAP_PRIVATE | MMAP_ANONYMOUS, -1);
}

/* Rows about single pages must not be given huge ones, which guests with much memory do by default. A kernel without
 * huge pages refuses, and need not be asked. */
static inline void memory_small_pages(volatile void *p, u32 length)
{
    enum { MADV_NOHUGEPAGE = 15 };
    sys(SYS_MADVISE, (u32)p, length, MADV_NOHUGEPAGE);
}

static inline void memory_put(volatile void *p, u32 length)
{
    must("munmap failed", sys(SYS_MUNMAP, (u32)p, length, 0));
}

/* Nanoseconds of the monotonic clock. */
static inline u64 now(void)
{
    struct {
        i32 seconds, nanoseconds;
    } t;
    sys(SYS_CLOCK_GETTIME, 1, (u32)&t, 0);
    return (u64)(u32)t.seconds * 1000000000u + (u32)t.nanoseconds;
}

/* 64 by 32 bits without libgcc, one digit of base 2^32 after the other. */
static inline u64 divide(u64 n, u32 d)
{
    u32 high = n >> 32, q, r = high % d;
    __asm__("divl %4" : "=a"(q), "=d"(r) : "a"((u32)n), "d"(r), "r"(d));
    return (u64)(high / d) << 32 | q;
}

/* On one CPU everywhere: a guest has only one, and a comparison with two would compare something else. */
static inline void one_cpu(void)
{
    for (u32 cpu = 0; cpu < 32; cpu++) {
        u32 mask = 1u << cpu;
        if (sys(SYS_SCHED_SETAFFINITY, 0, sizeof mask, (u32)&mask) == 0)
            return;
    }
}

/* "ROW begin", "ROW end UNITS" and a line feed, byte by byte, to the port that `ringlet run --stats-port` was told;
 * elsewhere nothing listens there. Never on the host, whose ports are real. */
static inline void mark_text(const char *text)
{
    for (; *text; text++)
        __asm__ volatile("outb %b0, %w1" : : "a"(*text), "d"(0xe9));
}

static inline void mark(const struct arguments *a, const char *what, u32 units)
{
    char digits[12] = "\n";
    u32 at = sizeof digits - 1;
    if (!a->mark || sys(SYS_IOPL, 3, 0, 0) != 0)
        return;
    digits[at] = 0;
    digits[--at] = '\n';
    for (; units; units = units / 10)
        digits[--at] = '0' + units % 10;
    mark_text(a->row);
    mark_text(what);
    mark_text(digits + at);
    sys(SYS_IOPL, 0, 0, 0);
}

static inline void mark_begin(const struct arguments *a)
{
    mark(a, " begin", 0);
}

static inline void mark_end(const struct arguments *a, u32 units)
{
    mark(a, " end ", units);
}

static inline u32 string_length(const char *text)
{
    u32 n = 0;
    while (text[n])
        n++;
    return n;
}

/* In one write, so that nothing gets between. word ends with a blank. */
static inline void print_figure(const char *word, const char *name, u64 value)
{
    char line[96];
    u32 at = sizeof line;
    line[--at] = '\n';
    do {
        u64 tens = divide(value, 10);
        line[--at] = '0' + (u32)(value - tens * 10);
        value = tens;
    } while (value);
    line[--at] = ' ';
    for (u32 length = string_length(name); length && at > 8;)
        line[--at] = name[--length];
    for (u32 length = string_length(word); length && at;)
        line[--at] = word[--length];
    sys(SYS_WRITE, 1, (u32)line + at, sizeof line - at);
}

static inline void print_row(const char *name, u64 value)
{
    print_figure("row ", name, value);
}

/* ---- Rows that repeat an operation ---- */

struct repeated {
    const char *name;
    u64 (*run)(u32 n); /* does it n times; returns the nanoseconds that took, set-up excluded */
    u32 least, most;   /* n is never less or more */
    u32 bytes;         /* not 0: one operation moves that many, and the row is MB/s */
};

/* How often it must be done for the clock to see it well: doubled until a run takes long enough. */
static inline u32 repeat_count(const struct repeated *r, u32 enough, u64 *took)
{
    u32 n = r->least;
    while ((*took = r->run(n)) < enough && n < r->most)
        n = n * 2 < r->most ? n * 2 : r->most;
    return n;
}

/* Median of three, or the one run when that took so long that noise is no matter. */
static inline u64 repeat_measure(const struct repeated *r, const struct arguments *a)
{
    enum { RUNS = 3, LONG = 300000000 };
    u64 took, t[RUNS];
    mark_begin(a);
    u32 n = repeat_count(r, a->quick ? 3000000 : 20000000, &took);
    if (took >= LONG)
        mark_end(a, 2 * n - r->least); /* it was doubled up to n */
    else {
        mark_begin(a); /* what came before was to warm up */
        for (u32 i = 0; i < RUNS; i++) {
            u64 one = r->run(n);
            u32 at = i;
            for (; at && t[at - 1] > one; at--)
                t[at] = t[at - 1];
            t[at] = one;
        }
        mark_end(a, RUNS * n);
        took = t[RUNS / 2];
    }
    if (!took)
        fail("the clock stood still");
    if (r->bytes)
        return divide((u64)r->bytes * n, (u32)(took < 1000 ? 1 : divide(took, 1000)));
    return divide(took, n);
}

/* The same row with 2 GiB is called NAME_2g. */
static inline bool same_row(const char *name, const char *row)
{
    for (; *name && *name == *row; name++)
        row++;
    return !*name && (!*row || same(row, "_2g"));
}

static inline int repeat_row(const struct repeated *rows, u32 count, const struct arguments *a)
{
    for (u32 i = 0; i < count; i++)
        if (same_row(rows[i].name, a->row)) {
            print_row(a->row, repeat_measure(&rows[i], a));
            return 0;
        }
    fail("no such row");
}

#endif
