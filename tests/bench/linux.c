/* The suite `linux`: what the guest's kernel does for its processes. Nanoseconds for one operation. */
#include "program.h"

static const struct arguments *arguments;

/* ---- Calls ---- */

static u64 getppid(u32 n)
{
    u64 start = now();
    while (n--)
        sys(SYS_GETPPID, 0, 0, 0);
    return now() - start;
}

static u64 transfer(u32 n, const char *path, u32 call)
{
    i32 fd = must("a device is missing", sys(SYS_OPEN, (u32)path, 2, 0));
    char c = 0;
    u64 start = now();
    while (n--)
        sys(call, fd, (u32)&c, 1);
    u64 took = now() - start;
    sys(SYS_CLOSE, fd, 0, 0);
    return took;
}

static u64 read_zero(u32 n)
{
    return transfer(n, "/dev/zero", SYS_READ);
}

static u64 write_null(u32 n)
{
    return transfer(n, "/dev/null", SYS_WRITE);
}

static volatile u32 signals_seen;
static void on_signal(int number)
{
    (void)number;
    signals_seen++;
}

extern const char signal_return[];
__asm__("signal_return: popl %eax; movl $119, %eax; int $0x80"); /* sigreturn */

static u64 signal(u32 n)
{
    enum { SIGUSR1 = 10, SA_RESTORER = 0x04000000 };
    struct {
        u32 handler, flags, restorer;
        u64 mask;
    } __attribute__((packed)) action = {(u32)on_signal, SA_RESTORER, (u32)signal_return, 0};
    i32 self = sys(SYS_GETPID, 0, 0, 0);
    i32 r;
    __asm__ volatile("int $0x80"
                     : "=a"(r)
                     : "a"(SYS_RT_SIGACTION), "b"(SIGUSR1), "c"(&action), "d"(0), "S"(8)
                     : "memory");
    must("sigaction failed", r);
    signals_seen = 0;
    u64 start = now();
    for (u32 i = 0; i < n; i++)
        sys(SYS_KILL, self, SIGUSR1, 0);
    u64 took = now() - start;
    if (signals_seen != n)
        fail("signals were lost");
    return took;
}

/* ---- Processes that wake each other ---- */

enum { MOST_PROCESSES = 96 };

static void ring_member(i32 in, i32 out, u32 laps)
{
    char c;
    while (laps--) {
        if (sys(SYS_READ, in, (u32)&c, 1) != 1)
            break;
        sys(SYS_WRITE, out, (u32)&c, 1);
    }
}

/* A token goes round a ring of pipes; n is the number of hops, and a hop is a write, a switch and a read. */
static u64 ring(u32 processes, u32 n)
{
    i32 pipes[MOST_PROCESSES][2], child[MOST_PROCESSES];
    u32 laps = n / processes + 1;
    for (u32 i = 0; i < processes; i++)
        must("pipe failed", sys(SYS_PIPE, (u32)pipes[i], 0, 0));
    for (u32 i = 1; i < processes; i++) {
        child[i] = must("fork failed", sys(SYS_FORK, 0, 0, 0));
        if (child[i] == 0) {
            ring_member(pipes[i - 1][0], pipes[i][1], laps + 1);
            sys(SYS_EXIT, 0, 0, 0);
        }
    }
    char c = 'x';
    u64 start = 0;
    for (u32 lap = 0; lap <= laps; lap++) {
        if (lap == 1)
            start = now(); /* the first lap is the children's way to their first read */
        sys(SYS_WRITE, pipes[0][1], (u32)&c, 1);
        if (sys(SYS_READ, pipes[processes - 1][0], (u32)&c, 1) != 1)
            fail("the token was lost");
    }
    u64 took = now() - start;
    for (u32 i = 1; i < processes; i++)
        sys(SYS_WAITPID, child[i], 0, 0);
    for (u32 i = 0; i < processes; i++) {
        sys(SYS_CLOSE, pipes[i][0], 0, 0);
        sys(SYS_CLOSE, pipes[i][1], 0, 0);
    }
    u32 hops = laps * processes;
    return hops == n ? took : divide(took, hops) * n;
}

static u64 pipe_round_trip(u32 n)
{
    return ring(2, 2 * n);
}

static u64 switch_2(u32 n)
{
    return ring(2, n);
}

static u64 switch_16(u32 n)
{
    return ring(16, n);
}

static u64 switch_96(u32 n)
{
    return ring(96, n);
}

/* ---- Memory ---- */

static u64 mmap_munmap(u32 n)
{
    u64 start = now();
    while (n--)
        memory_put(memory_get(16 * PAGE), 16 * PAGE);
    return now() - start;
}

static u64 touch_all(volatile u8 *p, u32 pages)
{
    u64 start = now();
    for (u32 i = 0; i < pages; i++)
        p[i * PAGE] = 1;
    return now() - start;
}

static u64 anonymous_fault(u32 n)
{
    u8 *p = memory_get(n * PAGE);
    memory_small_pages(p, n * PAGE);
    u64 took = touch_all(p, n);
    memory_put(p, n * PAGE);
    return took;
}

/* Pages of a file that are in the page cache already: what a program's text costs. Per page; the kernel maps up to 16
 * around each fault. */
static u64 file_fault(u32 n)
{
    i32 fd = must("memfd_create failed", sys(SYS_MEMFD_CREATE, (u32) "bench", 0, 0));
    must("ftruncate failed", sys(SYS_FTRUNCATE, fd, n * PAGE, 0));
    u8 *p = (u8 *)sys_mmap(n * PAGE, 3, MMAP_SHARED, fd);
    touch_all(p, n);
    memory_put(p, n * PAGE);
    volatile u8 *q = (u8 *)sys_mmap(n * PAGE, 1, MMAP_SHARED, fd);
    u64 start = now();
    for (u32 i = 0; i < n; i++) {
        u8 v = q[i * PAGE];
        (void)v;
    }
    u64 took = now() - start;
    memory_put(q, n * PAGE);
    sys(SYS_CLOSE, fd, 0, 0);
    return took;
}

/* ---- New processes ---- */

static void wait_for(i32 child)
{
    i32 status = -1;
    if (sys(SYS_WAITPID, child, (u32)&status, 0) != child || status != 0)
        fail("a child failed");
}

static u64 fork_wait(u32 n)
{
    u64 start = now();
    while (n--) {
        i32 child = must("fork failed", sys(SYS_FORK, 0, 0, 0));
        if (child == 0)
            sys(SYS_EXIT, 0, 0, 0);
        wait_for(child);
    }
    return now() - start;
}

static void fork_exec_once(const char *const *argv)
{
    static const char *const environment[] = {NULL};
    i32 child = must("fork failed", sys(SYS_FORK, 0, 0, 0));
    if (child == 0) {
        sys(SYS_EXECVE, (u32)argv[0], (u32)argv, (u32)environment);
        sys(SYS_EXIT, 1, 0, 0);
    }
    wait_for(child);
}

static u64 fork_exec(u32 n)
{
    static const char *const argv[] = {"/proc/self/exe", "nothing", NULL};
    u64 start = now();
    while (n--)
        fork_exec_once(argv);
    return now() - start;
}

/* Turns of a shell's loop. The path makes it fork and execute. */
static u64 shell_loop(u32 n)
{
    char digits[12], *turns = digits + sizeof digits - 1;
    const char *argv[] = {
        arguments->busybox, "sh", "-c", "i=0; while [ $i -lt $1 ]; do $0 true; i=$((i+1)); done",
        arguments->busybox, NULL, NULL};
    *turns = 0;
    for (u32 v = n; v; v /= 10)
        *--turns = (char)('0' + v % 10);
    argv[5] = turns;
    u64 start = now();
    fork_exec_once(argv);
    return now() - start;
}

/* One operation is all 40,000: what leaks or grows with the number of processes ever made shows here. */
static u64 forkwait_40000(u32 n)
{
    (void)n;
    return fork_wait(40000);
}

static const struct repeated rows[] = {
    {"getppid", getppid, 1, 1 << 22, 0},      {"read", read_zero, 1, 1 << 22, 0},
    {"write", write_null, 1, 1 << 22, 0},     {"signal", signal, 1, 1 << 20, 0},
    {"pipe", pipe_round_trip, 1, 1 << 20, 0}, {"switch_2", switch_2, 1, 1 << 20, 0},
    {"switch_16", switch_16, 1, 1 << 20, 0},  {"switch_96", switch_96, 1, 1 << 20, 0},
    {"mmap", mmap_munmap, 1, 1 << 20, 0},     {"anon_fault", anonymous_fault, 1, 8192, 0},
    {"file_fault", file_fault, 1, 8192, 0},   {"fork", fork_wait, 1, 4096, 0},
    {"exec", fork_exec, 1, 4096, 0},          {"shell", shell_loop, 64, 4096, 0},
    {"forkwait", forkwait_40000, 1, 1, 0},
};

int bench_program(const struct arguments *a)
{
    if (same(a->row, "nothing"))
        return 0;
    arguments = a;
    one_cpu();
    return repeat_row(rows, sizeof rows / sizeof *rows, a);
}
