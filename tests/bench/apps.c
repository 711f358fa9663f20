/*
 * The suite `apps`: Debian's own i386 programs, as `sh host/bootstrap apps` keeps them. Nanoseconds from fork to wait, and
 * how many of them were user time of the program and its children (wait4(2)); or what the program itself says it did per
 * second. Run once, as one would use it: what a translator has to learn first belongs to its cost.
 */
#include "program.h"

enum { SYS_LSEEK = 19, SYS_DUP2 = 63, SYS_WAIT4 = 114, OUTPUT = 4 << 10, MOST_ARGUMENTS = 12 };

/* Inputs that are written here, not fetched: a program for GCC to compile and one for Python to run. */
extern const char gcc_input[], gcc_input_end[], python_input[], python_input_end[];
__asm__(".section .rodata\n"
        "gcc_input: .incbin \"" BENCH_INPUTS "/apps_gcc.c\"\ngcc_input_end: .byte 0\n"
        "python_input: .incbin \"" BENCH_INPUTS "/apps_python.py\"\npython_input_end: .byte 0\n"
        ".text\n");

#define LIBRARY "/usr/lib/i386-linux-gnu/"
#define SPEED   "/usr/bin/openssl", "speed", "-elapsed", "-mr", "-seconds"
#define SHELL   "/usr/bin/dash", "-c"

static const struct app {
    const char *name;
    const char *argv[MOST_ARGUMENTS];
    const char *input, *input_end;
    /* Not NULL: the program prints its own figure, in a line that begins so, behind two more colons. The row's value is
     * a thousandth of that over divisor. */
    const char *figure;
    u32 divisor;
} apps[] = {
    {.name = "gzip", .argv = {"/usr/bin/gzip", "-c", LIBRARY "libcrypto.so.3"}},
    {.name = "xz", .argv = {"/usr/bin/xz", "-c", LIBRARY "libm.so.6"}},
    {.name = "rsa2048", .argv = {SPEED, "2", "rsa2048"}, .figure = "+F2:", .divisor = 1},
    {.name = "sha256",
     .argv = {SPEED, "2", "-bytes", "16384", "-evp", "sha256"},
     .figure = "+F:",
     .divisor = 1000000000},
    {.name = "python",
     .argv = {"/usr/bin/python3", "-I", "-S", "-B", "-"},
     .input = python_input,
     .input_end = python_input_end},
    {.name = "gcc",
     .argv = {"/usr/lib/gcc/i686-linux-gnu/12/cc1", "-quiet", "-O2", "-ffreestanding", "-", "-o", "-"},
     .input = gcc_input,
     .input_end = gcc_input_end},
    {.name = "tar",
     .argv = {SHELL, "mkdir /tmp/ringlet-bench && tar -C / -cf - usr/bin usr/lib/python3.11 | tar -C "
                     "/tmp/ringlet-bench -xf -"}},
    {.name = "hackbench", .argv = {"/usr/bin/hackbench", "-l", "100"}},
    {.name = "exec500", .argv = {SHELL, "i=0; while [ $i -lt 500 ]; do /bin/true; i=$((i+1)); done"}},
    {.name = "sysbench",
     .argv = {"/usr/bin/sysbench", "cpu", "--cpu-max-prime=10000", "--events=500", "--time=0", "run"}},
};

static const struct app tidy = {.name = "tidy", .argv = {"/usr/bin/rm", "-rf", "/tmp/ringlet-bench"}};

/* ---- Another root directory, for runs on the host ---- */

enum {
    SYS_CHDIR = 12,
    SYS_MOUNT = 21,
    SYS_CHROOT = 61,
    SYS_GETUID32 = 199,
    SYS_GETGID32 = 200,
    SYS_UNSHARE = 310,
    CLONE_NEWNS = 0x20000,
    CLONE_NEWUSER = 0x10000000,
    MS_REC = 0x4000,
    MS_PRIVATE = 1 << 18,
    O_WRONLY = 1,
};

static i32 mount(const char *what, const char *where, const char *type, u32 flags)
{
    i32 r;
    __asm__ volatile("int $0x80"
                     : "=a"(r)
                     : "a"(SYS_MOUNT), "b"(what), "c"(where), "d"(type), "S"(flags), "D"(0)
                     : "memory");
    return r;
}

static void write_file(const char *path, const char *text, u32 length)
{
    i32 fd = sys(SYS_OPEN, (u32)path, O_WRONLY, 0);
    if (fd >= 0) {
        sys(SYS_WRITE, fd, (u32)text, length);
        sys(SYS_CLOSE, fd, 0, 0);
    }
}

/* "0 ID 1": root in there is the user out here. */
static void write_map(const char *path, u32 id)
{
    char text[16] = "0 ", digits[10];
    u32 length = 2, n = 0;
    do
        digits[n++] = '0' + id % 10;
    while (id /= 10);
    while (n)
        text[length++] = digits[--n];
    text[length++] = ' ';
    text[length++] = '1';
    write_file(path, text, length);
}

/* As root where one is root, else in a user namespace, which most hosts allow. /tmp is memory if it can be, as it is
 * in the guests. */
static void enter_root(const char *root)
{
    u32 uid = sys(SYS_GETUID32, 0, 0, 0), gid = sys(SYS_GETGID32, 0, 0, 0);
    i32 mounts = sys(SYS_UNSHARE, uid ? CLONE_NEWNS | CLONE_NEWUSER : CLONE_NEWNS, 0, 0);
    if (uid && mounts == 0) {
        write_file("/proc/self/setgroups", "deny", 4);
        write_map("/proc/self/uid_map", uid);
        write_map("/proc/self/gid_map", gid);
    }
    bool own = mounts == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE) == 0;
    must("this host lets no user change the root directory (neither chroot nor user namespaces)",
         sys(SYS_CHROOT, (u32)root, 0, 0));
    must("chdir failed", sys(SYS_CHDIR, (u32) "/", 0, 0));
    if (own)
        mount("tmpfs", "/tmp", "tmpfs", 0);
}

/* ---- Running one ---- */

static i32 open_null(u32 flags)
{
    return must("/dev/null is missing", sys(SYS_OPEN, (u32) "/dev/null", flags, 0));
}

static i32 memory_file(const char *from, const char *end)
{
    i32 fd = must("memfd_create failed", sys(SYS_MEMFD_CREATE, (u32) "bench", 0, 0));
    if (from && sys(SYS_WRITE, fd, (u32)from, end - from) != end - from)
        fail("an input cannot be written");
    sys(SYS_LSEEK, fd, 0, 0);
    return fd;
}

/* What getrusage(2) calls a struct rusage; of interest is its beginning. */
struct usage {
    i32 user_seconds, user_microseconds, rest[16];
};

/* Nanoseconds from fork to wait. */
struct spent {
    u64 all, user;
};

static struct spent run(const struct app *app, i32 in, i32 out)
{
    static const char *const environment[] = {"PATH=/usr/bin:/bin", "HOME=/tmp", "LC_ALL=C", NULL};
    i32 status = -1, waited;
    struct usage usage = {.user_seconds = 0};
    u64 start = now();
    i32 child = must("fork failed", sys(SYS_FORK, 0, 0, 0));
    if (child == 0) {
        sys(SYS_DUP2, in, 0, 0);
        sys(SYS_DUP2, out, 1, 0);
        sys(SYS_EXECVE, (u32)app->argv[0], (u32)app->argv, (u32)environment);
        fail("the program cannot be executed");
    }
    __asm__ volatile("int $0x80"
                     : "=a"(waited)
                     : "a"(SYS_WAIT4), "b"(child), "c"(&status), "d"(0), "S"(&usage)
                     : "memory");
    struct spent spent = {.all = now() - start,
                          .user = (u64)(u32)usage.user_seconds * 1000000000u +
                                  (u32)usage.user_microseconds * 1000u};
    if (waited != child || status != 0)
        fail("the program failed");
    return spent;
}

/* What `-mr` makes openssl print: "+F2:2:2048:1514.231:53211.5". */
static const char *figure_in(const char *text, const char *head)
{
    for (; *text; text++) {
        const char *t = text, *h = head;
        while (*h && *t == *h) {
            t++;
            h++;
        }
        if (*h)
            continue;
        for (u32 colons = 0; colons < 2; t++)
            if (!*t)
                return NULL;
            else
                colons += *t == ':';
        return t;
    }
    return NULL;
}

static u64 thousandths(const char *digits)
{
    u64 v = 0;
    for (; *digits >= '0' && *digits <= '9'; digits++)
        v = v * 10 + (u32)(*digits - '0');
    digits += *digits == '.';
    for (u32 i = 0; i < 3; i++) {
        bool digit = *digits >= '0' && *digits <= '9';
        v = v * 10 + (u32)(digit ? *digits++ - '0' : 0);
    }
    return v;
}

/* A program that runs for a fixed time uses as much of it as there is: its figure alone says how fast it was. */
static struct spent own_figure(const struct app *app, i32 in)
{
    static char text[OUTPUT];
    i32 out = memory_file(NULL, NULL);
    run(app, in, out);
    sys(SYS_LSEEK, out, 0, 0);
    must("what the program printed cannot be read", sys(SYS_READ, out, (u32)text, sizeof text - 1));
    const char *digits = figure_in(text, app->figure);
    if (!digits)
        fail("the program did not print its figure");
    return (struct spent){.all = divide(thousandths(digits), app->divisor)};
}

int bench_program(const struct arguments *a)
{
    for (const struct app *app = apps; app < apps + sizeof apps / sizeof *apps; app++) {
        if (!same(app->name, a->row))
            continue;
        one_cpu();
        i32 null = open_null(2), in = app->input ? memory_file(app->input, app->input_end) : null;
        if (a->root)
            enter_root(a->root);
        run(&tidy, null, null);
        mark_begin(a);
        struct spent spent = app->figure ? own_figure(app, in) : run(app, in, null);
        mark_end(a, 1);
        run(&tidy, null, null);
        if (!app->figure)
            print_figure("user ", a->row, spent.user);
        print_row(a->row, spent.all);
        return 0;
    }
    fail("no such row");
}
