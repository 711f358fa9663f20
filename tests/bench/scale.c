/*
 * The suite `scale`: the cost of one unit as their number grows. The row's name ends in the number: touch_64. One
 * measurement each: the numbers are large enough.
 */
#include "program.h"

enum { MOST_PROCESSES = 256, PAGES_EACH = 16 };

/* Per page of x MiB touched for the first time. */
static u64 touch(u32 mib)
{
    u32 bytes = mib << 20;
    volatile u8 *p = memory_get(bytes);
    memory_small_pages(p, bytes);
    u64 start = now();
    for (u32 at = 0; at < bytes; at += PAGE)
        p[at] = 1;
    u64 took = now() - start;
    memory_put(p, bytes);
    return divide(took, bytes / PAGE);
}

/* Per page table of x: one page touched in every 4 MiB, from end to end and then once more. */
static u64 tables(u32 count)
{
    enum { SPAN = 4 << 20 };
    u32 bytes = count * SPAN; /* more than there is memory: the kernel need not set it aside */
    volatile u8 *p = (u8 *)sys_mmap(bytes, 3, MMAP_PRIVATE | MMAP_ANONYMOUS | MMAP_NORESERVE, -1);
    memory_small_pages(p, bytes);
    u64 start = now();
    for (u32 round = 0; round < 2; round++)
        for (u32 i = 0; i < count; i++)
            p[i * SPAN] = round;
    u64 took = now() - start;
    memory_put(p, bytes);
    return divide(took, count);
}

static void child_life(i32 in, volatile u8 *pages)
{
    char c;
    for (u32 i = 0; i < PAGES_EACH; i++)
        pages[i * PAGE] = 1;
    sys(SYS_READ, in, (u32)&c, 1); /* until the parent closes its end */
    sys(SYS_EXIT, 0, 0, 0);
}

/* Per process of x that live at the same time, each with 16 pages of its own: made, run, ended. */
static u64 processes(u32 count)
{
    i32 child[MOST_PROCESSES], gate[2];
    u8 *pages = memory_get(PAGES_EACH * PAGE);
    if (count > MOST_PROCESSES)
        fail("too many processes");
    must("pipe failed", sys(SYS_PIPE, (u32)gate, 0, 0));
    u64 start = now();
    for (u32 i = 0; i < count; i++) {
        child[i] = must("fork failed", sys(SYS_FORK, 0, 0, 0));
        if (child[i] == 0) {
            sys(SYS_CLOSE, gate[1], 0, 0);
            child_life(gate[0], pages);
        }
    }
    sys(SYS_CLOSE, gate[1], 0, 0);
    for (u32 i = 0; i < count; i++)
        sys(SYS_WAITPID, child[i], 0, 0);
    u64 took = now() - start;
    sys(SYS_CLOSE, gate[0], 0, 0);
    return divide(took, count);
}

static const struct {
    const char *name;
    u64 (*run)(u32 x);
} series[] = {{"touch_", touch}, {"tables_", tables}, {"processes_", processes}};

/* The number behind prefix, 0 when text does not begin with it. */
static u32 number_after(const char *prefix, const char *text)
{
    u32 v = 0;
    for (; *prefix; prefix++, text++)
        if (*prefix != *text)
            return 0;
    for (; *text >= '0' && *text <= '9'; text++)
        v = v * 10 + *text - '0';
    return *text ? 0 : v;
}

int bench_program(const struct arguments *a)
{
    one_cpu();
    for (u32 i = 0; i < sizeof series / sizeof *series; i++) {
        u32 x = number_after(series[i].name, a->row);
        if (x) {
            mark_begin(a);
            u64 each = series[i].run(x);
            mark_end(a, i == 0 ? x << 8 : x); /* 256 pages to the MiB */
            print_row(a->row, each);
            return 0;
        }
    }
    fail("no such row");
}
