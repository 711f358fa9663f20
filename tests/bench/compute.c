/* The suite `compute`: code that stays in user mode. Nanoseconds for one run of each row's loop, or MB/s. */
#include "program.h"

enum { COPY = 8 << 20 };

static volatile u32 sink;
static volatile double sink_double;

/* Shifts, adds, multiplications: nothing leaves the registers. */
static u64 integer(u32 n)
{
    u32 x = 12345, sum = 0;
    u64 start = now();
    while (n--)
        for (u32 i = 0; i < 8000000; i++) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            sum += x * 2654435761u;
        }
    sink = sum;
    return now() - start;
}

static __attribute__((noinline)) u32 fib_of(volatile u32 n)
{
    return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}

static u64 fib(u32 n)
{
    u64 start = now();
    while (n--)
        sink = fib_of(35);
    return now() - start;
}

/* A byte-code interpreter in miniature: each step calls through a table, and the next target depends on data. */
static u32 step_add(u32 x)
{
    return x + 0x9e3779b9u;
}
static u32 step_xor(u32 x)
{
    return x ^ x >> 7;
}
static u32 step_mul(u32 x)
{
    return x * 5 + 1;
}
static u32 step_not(u32 x)
{
    return ~x;
}
static u32 (*const volatile steps[4])(u32) = {step_add, step_xor, step_mul, step_not};

static u64 indirect(u32 n)
{
    static const u8 code[] = {0, 1, 2, 0, 3, 1, 0, 2, 2, 1, 3, 0, 1, 2, 3, 1};
    u32 x = 1;
    u64 start = now();
    while (n--)
        for (u32 i = 0; i < 4000000; i++)
            x = steps[code[i & 15]](x);
    sink = x;
    return now() - start;
}

/* A random cycle through 4 MiB: every load waits for the one before. Built by Sattolo's algorithm. */
static u64 chase(u32 n)
{
    enum { CELLS = 1 << 20 };
    u32 *next = (u32 *)memory_get(CELLS * 4), x = 1, at = 0;
    for (u32 i = 0; i < CELLS; i++)
        next[i] = i;
    for (u32 i = CELLS - 1; i; i--) {
        x = x * 1664525u + 1013904223u;
        u32 j = (u32)((u64)x * i >> 32), t = next[i];
        next[i] = next[j];
        next[j] = t;
    }
    u64 start = now();
    while (n--)
        for (u32 i = 0; i < 1000000; i++)
            at = next[at];
    u64 took = now() - start;
    sink = at;
    memory_put(next, CELLS * 4);
    return took;
}

static u64 x87(u32 n)
{
    u64 start = now();
    while (n--) {
        u32 i = 1000000;
        __asm__ volatile("fld1; fldpi\n"
                         "1: fmul %%st, %%st(1); fldpi; fdivrp %%st, %%st(2); fld1; faddp %%st, %%st(2)\n"
                         " decl %0; jnz 1b; fstp %%st(0); fstp %%st(0)"
                         : "+r"(i)
                         :
                         : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");
    }
    return now() - start;
}

static u64 divsd(u32 n)
{
    volatile double divisor = 1.0000001;
    double x = 1e300, d = divisor;
    u64 start = now();
    while (n--)
        for (u32 i = 0; i < 4000000; i++)
            x /= d;
    sink_double = x;
    return now() - start;
}

/* Two buffers touched before the clock counts. */
static u8 *buffers(void)
{
    u8 *a = memory_get(2 * COPY);
    void *to = a;
    u32 words = 2 * COPY / 4;
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(words) : "a"(1) : "memory");
    return a;
}

static u64 memory_copy(u32 n)
{
    u8 *a = buffers();
    u64 start = now();
    while (n--) {
        void *from = a, *to = a + COPY;
        u32 words = COPY / 4;
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    }
    u64 took = now() - start;
    memory_put(a, 2 * COPY);
    return took;
}

static u64 memory_set(u32 n)
{
    u8 *a = buffers();
    u64 start = now();
    while (n--) {
        void *to = a;
        u32 words = COPY / 4;
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(words) : "a"(2) : "memory");
    }
    u64 took = now() - start;
    memory_put(a, 2 * COPY);
    return took;
}

/* What a just-in-time compiler does: writes a small function, calls it a hundred times, writes the next over it. */
static u64 jit(u32 n)
{
    enum { CALLS = 100, VERSIONS = 100 };
    u8 *code = (u8 *)sys_mmap(PAGE, 7, MMAP_PRIVATE | MMAP_ANONYMOUS, -1);
    u32 sum = 0, want = 0;
    u64 start = now();
    for (u32 round = 0; round < n; round++)
        for (u32 v = 0; v < VERSIONS; v++) {
            code[0] = 0xb8; /* movl $v, %eax; ret */
            *(volatile u32 *)(code + 1) = v;
            code[5] = 0xc3;
            for (u32 i = 0; i < CALLS; i++)
                sum += ((u32(*)(void))code)();
            want += v * CALLS;
        }
    u64 took = now() - start;
    if (sum != want)
        fail("a stale version of the code ran");
    memory_put(code, PAGE);
    return took;
}

static const struct repeated rows[] = {
    {"integer", integer, 1, 1 << 10, 0},
    {"fib", fib, 1, 1 << 10, 0},
    {"indirect", indirect, 1, 1 << 10, 0},
    {"chase", chase, 1, 1 << 10, 0},
    {"x87", x87, 1, 1 << 10, 0},
    {"divsd", divsd, 1, 1 << 10, 0},
    {"memcpy", memory_copy, 1, 1 << 10, COPY},
    {"memset", memory_set, 1, 1 << 10, COPY},
    {"jit", jit, 1, 1 << 14, 0},
};

int bench_program(const struct arguments *a)
{
    one_cpu();
    return repeat_row(rows, sizeof rows / sizeof *rows, a);
}
