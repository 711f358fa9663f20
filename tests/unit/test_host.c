/* Unit test of the module host: memory, traps, crash reports, features. Links only host. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include "host/host.h"

#define MIB (UINT64_C(1) << 20)

/* ---- Memory ---- */

struct memory {
    struct host_ram ram;
    struct host_window window;
    struct host_counts counts;
};

static void memory_init(struct memory *m, uint64_t size)
{
    struct host_err err = {""};
    memset(m, 0, sizeof(*m));
    assert_int_equal(host_ram_init(&m->ram, size, &err), 0);
    assert_int_equal(host_window_init(&m->window, &m->ram, &m->counts, &err), 0);
}

static void memory_finish(struct memory *m)
{
    host_window_finish(&m->window);
    host_ram_finish(&m->ram);
}

/* Whether a byte can be read / written, asked of the kernel: a system call reports EFAULT where we would
 * trap. */
static bool readable(const uint8_t *at)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    bool ok = write(fds[1], at, 1) == 1;
    close(fds[0]);
    close(fds[1]);
    return ok;
}

static bool writable(uint8_t *at)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], "w", 1), 1);
    bool ok = read(fds[0], at, 1) == 1;
    close(fds[0]);
    close(fds[1]);
    return ok;
}

static void ram_of_3584_mib_is_zero_and_sparse(void **state)
{
    struct host_ram ram;
    struct host_err err = {""};
    (void)state;
    assert_int_equal(host_ram_init(&ram, 3584 * MIB, &err), 0);
    assert_int_equal(ram.size, 3584 * MIB);
    assert_int_equal(ram.base[0], 0);
    ram.base[ram.size - 1] = 7;
    assert_int_equal(ram.base[ram.size - 1], 7);
    host_ram_finish(&ram);
    assert_null(ram.base);
    host_ram_finish(&ram); /* again: nothing happens */
}

static void ram_that_cannot_be_had_says_why(void **state)
{
    struct host_ram ram;
    struct host_err err = {""};
    (void)state;
    assert_int_equal(host_ram_init(&ram, 0, &err), -1);
    assert_int_equal(host_ram_init(&ram, 4097, &err), -1);
    assert_non_null(strstr(err.text, "4097"));
    assert_int_equal(host_ram_init(&ram, UINT64_C(1) << 40, &err), -1);

    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {.rlim_cur = 1 << 30, .rlim_max = 1 << 30};
        setrlimit(RLIMIT_AS, &limit);
        int failed = host_ram_init(&ram, 2048 * MIB, &err);
        _exit(failed == -1 && strstr(err.text, "2048 MiB") && strstr(err.text, "less memory") ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
}

static void windows_are_aligned_and_guarded(void **state)
{
    struct memory m;
    struct host_window second;
    (void)state;
    memory_init(&m, 4 * MIB);
    assert_int_equal(host_window_init(&second, &m.ram, NULL, NULL), 0);
    assert_int_equal((uintptr_t)m.window.base & 0xffffffff, 0);
    assert_int_equal((uintptr_t)second.base & 0xffffffff, 0);
    uint64_t apart = (uint64_t)llabs((int64_t)(m.window.base - second.base));
    assert_true(apart >= 2 * HOST_WINDOW_SIZE);

    assert_int_equal(host_window_map(&m.window, 0, 0, 4096, PROT_READ | PROT_WRITE, false), 0);
    assert_int_equal(host_window_map(&m.window, 0xfffff000, 0, 4096, PROT_READ | PROT_WRITE, false), 0);
    assert_true(readable(m.window.base));
    assert_true(readable(m.window.base + 0xffffffff));
    assert_false(readable(m.window.base - 1));
    assert_false(readable(m.window.base + HOST_WINDOW_SIZE));
    assert_false(readable(m.window.base - HOST_WINDOW_SIZE));
    assert_false(readable(m.window.base + 2 * HOST_WINDOW_SIZE - 1));
    host_window_finish(&second);
    memory_finish(&m);
}

static void windows_show_ram(void **state)
{
    struct memory m;
    (void)state;
    memory_init(&m, 4 * MIB);
    uint8_t *win = m.window.base;
    assert_false(readable(win + 0xc0001000));
    assert_int_equal(host_window_map(&m.window, 0xc0001000, 0x5000, 0x3000, PROT_READ | PROT_WRITE, true), 0);
    assert_int_equal(host_window_map(&m.window, 0x08048000, 0x6000, 0x1000, PROT_READ, false), 0);
    m.ram.base[0x6123] = 0x5a;
    assert_int_equal(win[0xc0002123], 0x5a); /* 0xc0001000 -> 0x5000, so 0xc0002123 -> 0x6123 */
    assert_int_equal(win[0x08048123], 0x5a);
    win[0xc0002123] = 0xa5;
    assert_int_equal(m.ram.base[0x6123], 0xa5);
    assert_false(readable(win + 0xc0000fff));
    assert_false(readable(win + 0xc0004000));
    /* Replacing shows the other page. */
    m.ram.base[0x9123] = 0x11;
    assert_int_equal(host_window_map(&m.window, 0xc0002000, 0x9000, 0x1000, PROT_READ, false), 0);
    assert_int_equal(win[0xc0002123], 0x11);
    assert_false(writable(win + 0xc0002123));
    assert_true(writable(win + 0xc0001123));
    memory_finish(&m);
}

static void windows_protect_unmap_reset(void **state)
{
    struct memory m;
    (void)state;
    memory_init(&m, 4 * MIB);
    uint8_t *win = m.window.base;
    assert_int_equal(host_window_map(&m.window, 0x10000, 0, 0x4000, PROT_READ | PROT_WRITE, false), 0);
    assert_int_equal(host_window_protect(&m.window, 0x11000, 0x1000, PROT_READ), 0);
    assert_true(writable(win + 0x10000));
    assert_true(readable(win + 0x11000));
    assert_false(writable(win + 0x11000));
    assert_int_equal(host_window_protect(&m.window, 0x11000, 0x1000, PROT_READ | PROT_WRITE), 0);
    assert_true(writable(win + 0x11000));
    assert_int_equal(host_window_unmap(&m.window, 0x12000, 0x1000), 0);
    assert_true(readable(win + 0x11fff));
    assert_false(readable(win + 0x12000));
    assert_true(readable(win + 0x13000));
    assert_int_equal(host_window_reset(&m.window), 0);
    assert_false(readable(win + 0x10000));
    assert_false(readable(win + 0x13000));
    /* Counted: one map, two protects, an unmap and a reset. */
    assert_int_equal(m.counts.mmap, 1);
    assert_int_equal(m.counts.mprotect, 2);
    assert_int_equal(m.counts.munmap, 2);
    memory_finish(&m);
}

static void windows_refuse_bad_ranges(void **state)
{
    static const struct {
        uint32_t gva;
        uint64_t gpa, len;
        int prot;
    } bad[] = {
        {0x1001, 0, 0x1000, PROT_READ},                  /* gva not page-aligned */
        {0x1000, 1, 0x1000, PROT_READ},                  /* gpa not page-aligned */
        {0x1000, 0, 0x1001, PROT_READ},                  /* length not */
        {0x1000, 0, 0, PROT_READ},                       /* nothing */
        {0xfffff000, 0, 0x2000, PROT_READ},              /* runs into the guard */
        {0x1000, 4 * MIB, 0x1000, PROT_READ},            /* behind RAM */
        {0x1000, 4 * MIB - 0x1000, 0x2000, PROT_READ},   /* over its end */
        {0x1000, UINT64_MAX - 0xfff, 0x2000, PROT_READ}, /* overflow */
        {0x1000, 0, UINT64_MAX - 0xfff, PROT_READ},      /* overflow */
        {0x1000, 0, 0x1000, PROT_READ | PROT_EXEC},      /* guest bytes must never be executable */
    };
    struct memory m;
    (void)state;
    memory_init(&m, 4 * MIB);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(host_window_map(&m.window, bad[i].gva, bad[i].gpa, bad[i].len, bad[i].prot, false),
                         -EINVAL);
    assert_int_equal(host_window_unmap(&m.window, 0xfffff000, 0x2000), -EINVAL);
    assert_int_equal(host_window_protect(&m.window, 0x1000, 0x1000, PROT_EXEC), -EINVAL);
    assert_int_equal(m.counts.mmap, 0);
    memory_finish(&m);
}

/* Map single pages with gaps until the host refuses; reset must still work and give everything back. */
static void exhausted_window_recovers_by_reset(void **state)
{
    struct memory m;
    struct host_features f;
    (void)state;
    host_features_probe(&f);
    if (f.max_map_count > 200000)
        skip();
    memory_init(&m, 4 * MIB);
    int error = 0;
    uint32_t page = 0;
    for (; page < 400000 && error == 0; page += 2)
        error = host_window_map(&m.window, page * 4096, (page % 1024) * 4096, 4096, PROT_READ, false);
    assert_int_equal(error, -ENOMEM);
    assert_true(page > 1000);
    assert_int_equal(host_window_reset(&m.window), 0);
    assert_false(readable(m.window.base));
    assert_int_equal(host_window_map(&m.window, 0, 0, 4096, PROT_READ, false), 0);
    assert_true(readable(m.window.base));
    assert_false(readable(m.window.base + HOST_WINDOW_SIZE));
    memory_finish(&m);
}

/* "rw-s" or "r-xs" of the mapping that starts at, from the kernel's own list. */
static void permissions(const void *at, char out[5])
{
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    out[0] = '\0';
    while (fgets(line, sizeof(line), maps)) {
        unsigned long long from, to;
        char perm[5];
        if (sscanf(line, "%llx-%llx %4s", &from, &to, perm) == 3 && from <= (uintptr_t)at &&
            (uintptr_t)at < to)
            memcpy(out, perm, 5);
    }
    fclose(maps);
}

static void arena_is_writable_or_executable(void **state)
{
    struct host_arena a;
    struct host_err err = {""};
    char perm[5];
    (void)state;
    assert_int_equal(host_arena_init(&a, 16 * MIB, &err), 0);
    permissions(a.rw, perm);
    assert_string_equal(perm, "rw-s");
    permissions(a.rx, perm);
    assert_string_equal(perm, "r-xs");
    /* mov eax, 42; ret. Then change the constant through rw and see the CPU execute the new bytes. */
    static const uint8_t code[] = {0xb8, 42, 0, 0, 0, 0xc3};
    memcpy(a.rw + 0x1000, code, sizeof(code));
    int (*fn)(void) = (int (*)(void))(uintptr_t)(a.rx + 0x1000);
    assert_int_equal(fn(), 42);
    a.rw[0x1001] = 43;
    assert_int_equal(fn(), 43);
    host_arena_finish(&a);
    assert_int_equal(host_arena_init(&a, 100, &err), -1);
    assert_int_equal(host_arena_init(&a, (size_t)4 << 30, &err), -1);
}

/* ---- Traps ---- */

struct trap_log {
    struct host_trap last;
    int cpu, kicks;
    uint64_t resume_at; /* where to continue; 0: where it was */
    uint64_t rip, flags, handler_flags;
    struct host_window *window; /* map a page for #PF */
    int steps;                  /* #DB still to take */
    bool handled;
    volatile bool stop;
};

static bool log_trap(void *ctx, struct host_trap *trap)
{
    struct trap_log *log = ctx;
    greg_t *regs = ((ucontext_t *)trap->uc)->uc_mcontext.gregs;
    if (trap->kind == HOST_TRAP_KICK) {
        log->kicks++;
        log->stop = true;
        return true;
    }
    log->cpu++;
    log->last = *trap;
    log->rip = (uint64_t)regs[REG_RIP];
    log->flags = (uint64_t)regs[REG_EFL];
    log->handler_flags = __builtin_ia32_readeflags_u64();
    if (log->window)
        host_window_map(log->window, (uint32_t)trap->addr & ~0xfffu, 0, 4096, PROT_READ | PROT_WRITE, false);
    if (trap->vector == 1 && --log->steps <= 0)
        regs[REG_EFL] &= ~0x100; /* TF */
    if (log->resume_at)
        regs[REG_RIP] = (greg_t)log->resume_at;
    return log->handled;
}

struct guest {
    struct host_thread thread;
    struct host_counts counts;
    struct host_arena arena;
    struct trap_log log;
};

static void guest_enter(struct guest *g)
{
    struct host_err err = {""};
    memset(g, 0, sizeof(*g));
    g->log.handled = true;
    assert_int_equal(host_arena_init(&g->arena, 1 * MIB, &err), 0);
    assert_int_equal(host_thread_enter(&g->thread, log_trap, &g->log, &g->counts, &err), 0);
}

static void guest_leave(struct guest *g)
{
    host_thread_leave(&g->thread);
    host_arena_finish(&g->arena);
}

/* Run code (which ends in its own ret) with rdi = arg; returns rax. */
static uint64_t guest_call(struct guest *g, const void *code, size_t len, uint64_t arg)
{
    memset(g->arena.rw, 0x90, 256);
    memcpy(g->arena.rw, code, len);
    uint64_t (*fn)(uint64_t) = (uint64_t(*)(uint64_t))(uintptr_t)g->arena.rx;
    return fn(arg);
}

/* Each CPU exception with the vector and error code of Intel SDM vol. 3 chapter 6.15, the fault at offset
 * `at` and execution resumed at a `ret` behind the instruction. */
static void cpu_exceptions_are_classified(void **state)
{
    static const struct {
        const char *name;
        const char *code;
        unsigned len, at, resume;
        unsigned vector, error;
        uint64_t arg, addr;
        char counter;
    } rows[] = {
        /* xor eax,eax; xor edx,edx; div eax; ret. Fault: reported at the div. */
        {"#DE", "\x31\xc0\x31\xd2\xf7\xf0\xc3", 7, 4, 6, 0, 0, 0, 0, 'f'},
        /* int3; ret. Trap: reported behind it. */
        {"#BP", "\xcc\xc3", 2, 1, 1, 3, 0, 0, 0, 't'},
        /* ud2; ret */
        {"#UD", "\x0f\x0b\xc3", 3, 0, 2, 6, 0, 0, 0, 'i'},
        /* hlt; ret: privileged, error code 0 */
        {"#GP", "\xf4\xc3", 2, 0, 1, 13, 0, 0, 0, 's'},
        /* int 0x21; ret: IDT entry 0x21 is not for ring 3; error code 0x21*8 + IDT bit 2 */
        {"#GP(int)", "\xcd\x21\xc3", 3, 0, 2, 13, 0x21 * 8 + 2, 0, 0, 's'},
        /* mov eax,[rdi]; ret: user read of a page that is not there: error code U=4 */
        {"#PF read", "\x8b\x07\xc3", 3, 0, 2, 14, 4, 0x1238, 0x1238, 's'},
        /* mov [rdi],eax; ret: U=4 + W=2 */
        {"#PF write", "\x89\x07\xc3", 3, 0, 2, 14, 6, 0x1238, 0x1238, 's'},
        /* fldz; fld1; fdivrp? division by zero with ZM unmasked: fninit; push 0x33b; fldcw [rsp]; pop rax;
         * fld1; fldz; fdivp; fwait; ret */
        {"#MF", "\xdb\xe3\x68\x3b\x03\x00\x00\xd9\x2c\x24\x58\xd9\xe8\xd9\xee\xde\xf9\x9b\xc3", 19, 17, 18,
         16, 0, 0, 0, 'f'},
        /* push 0x1d80 (ZM, bit 9, unmasked); ldmxcsr [rsp]; pop rax; pcmpeqd xmm0,xmm0; xorps xmm1,xmm1;
         * cvtdq2ps xmm0,xmm0; divps xmm0,xmm1; ret */
        {"#XM",
         "\x68\x80\x1d\x00\x00\x0f\xae\x14\x24\x58\x66\x0f\x76\xc0\x0f\x57\xc9\x0f\x5b\xc0\x0f\x5e\xc1\xc3",
         24, 20, 23, 19, 0, 0, 0, 'f'},
    };
    struct guest g;
    (void)state;
    guest_enter(&g);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t mxcsr = __builtin_ia32_stmxcsr();
        memset(&g.counts, 0, sizeof(g.counts));
        g.log.cpu = 0;
        g.log.resume_at = (uintptr_t)g.arena.rx + rows[i].resume;
        guest_call(&g, rows[i].code, rows[i].len, rows[i].arg);
        __asm__ volatile("fninit");
        __builtin_ia32_ldmxcsr(mxcsr);
        if (g.log.cpu != 1 || g.log.last.vector != rows[i].vector)
            print_error("%s: %d traps, vector %u\n", rows[i].name, g.log.cpu, g.log.last.vector);
        assert_int_equal(g.log.cpu, 1);
        assert_int_equal(g.log.last.kind, HOST_TRAP_CPU);
        assert_int_equal(g.log.last.vector, rows[i].vector);
        assert_int_equal(g.log.last.error, rows[i].error);
        assert_int_equal(g.log.rip, (uintptr_t)g.arena.rx + rows[i].at);
        if (rows[i].vector == 14)
            assert_int_equal(g.log.last.addr, rows[i].addr);
        assert_int_equal(g.counts.signals, 1);
        assert_int_equal(g.counts.fpe, rows[i].counter == 'f');
        assert_int_equal(g.counts.trap, rows[i].counter == 't');
        assert_int_equal(g.counts.ill, rows[i].counter == 'i');
        assert_int_equal(g.counts.segv, rows[i].counter == 's');
    }
    guest_leave(&g);
}

/* A handler that fills the window and says "handled" makes the same instruction succeed. */
static void hidden_fault_is_filled_and_retried(void **state)
{
    static const uint8_t code[] = {0x8b, 0x07, 0xc3}; /* mov eax,[rdi]; ret */
    struct guest g;
    struct memory m;
    (void)state;
    memory_init(&m, 1 * MIB);
    guest_enter(&g);
    memcpy(m.ram.base + 0x10, "\x78\x56\x34\x12", 4);
    g.log.window = &m.window;
    errno = 77;
    assert_int_equal(guest_call(&g, code, sizeof(code), (uintptr_t)m.window.base + 0x80000010u), 0x12345678);
    assert_int_equal(errno, 77);
    assert_int_equal(g.log.cpu, 1);
    assert_int_equal((uint32_t)g.log.last.addr, 0x80000010u); /* the guest address by truncation */
    assert_int_equal(m.counts.mmap, 1);
    guest_leave(&g);
    memory_finish(&m);
}

/* pushfq; or dword [rsp],0x100; popfq; nop; nop; nop; ret: TF takes effect after the instruction behind
 * popfq, so #DB is reported behind each nop (SDM vol. 3 17.3.1.4). Three are taken, then the handler clears
 * TF. */
static void single_steps_until_the_handler_stops(void **state)
{
    static const uint8_t code[] = {0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90, 0x90, 0xc3};
    struct guest g;
    (void)state;
    guest_enter(&g);
    g.log.steps = 3;
    guest_call(&g, code, sizeof(code), 0);
    assert_int_equal(g.log.cpu, 3);
    assert_int_equal(g.log.last.vector, 1);
    assert_int_equal(g.log.rip, (uintptr_t)g.arena.rx + 12);
    assert_int_equal(g.counts.trap, 3);
    guest_leave(&g);
}

/* Guest flags and stack must not reach the handler: DF and AC set, RSP 16, then ud2. The handler repairs. */
static void handler_is_safe_from_guest_state(void **state)
{
    /* mov rax,rsp; pushfq; or dword [rsp],0x40400; popfq; mov esp,16; ud2; mov rsp,rax; pushfq;
     * and dword [rsp],~0x40400; popfq; ret */
    static const uint8_t code[] = {0x48, 0x89, 0xe0, 0x9c, 0x81, 0x0c, 0x24, 0x00, 0x04, 0x04, 0x00,
                                   0x9d, 0xbc, 0x10, 0,    0,    0,    0x0f, 0x0b, 0x48, 0x89, 0xc4,
                                   0x9c, 0x81, 0x24, 0x24, 0xff, 0xfb, 0xfb, 0xff, 0x9d, 0xc3};
    struct guest g;
    (void)state;
    guest_enter(&g);
    g.log.resume_at = (uintptr_t)g.arena.rx + 19;
    guest_call(&g, code, sizeof(code), 0);
    assert_int_equal(g.log.cpu, 1);
    assert_int_equal(g.log.last.vector, 6);
    assert_int_equal(g.log.flags & 0x40400, 0x40400);   /* what the guest had is in the context */
    assert_int_equal(g.log.handler_flags & 0x40400, 0); /* and not in the handler */
    guest_leave(&g);
}

static void enter_nests(void **state)
{
    static const uint8_t ud2[] = {0x0f, 0x0b, 0xc3};
    struct guest outer, inner;
    (void)state;
    guest_enter(&outer);
    guest_enter(&inner);
    inner.log.resume_at = (uintptr_t)inner.arena.rx + 2;
    guest_call(&inner, ud2, sizeof(ud2), 0);
    assert_int_equal(inner.log.cpu, 1);
    assert_int_equal(outer.log.cpu, 0);
    guest_leave(&inner);
    outer.log.resume_at = (uintptr_t)outer.arena.rx + 2;
    guest_call(&outer, ud2, sizeof(ud2), 0);
    assert_int_equal(outer.log.cpu, 1);
    guest_leave(&outer);
}

/* ---- Crashes, each in a child whose standard error is read. ---- */

struct death {
    int status;
    char text[8192];
};

static void die_in_child(struct death *d, void (*fn)(void))
{
    int fds[2];
    size_t len = 0;
    ssize_t n;
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        fn();
        _exit(0);
    }
    close(fds[1]);
    while (len < sizeof(d->text) - 1 && (n = read(fds[0], d->text + len, sizeof(d->text) - 1 - len)) > 0)
        len += (size_t)n;
    d->text[len] = '\0';
    close(fds[0]);
    waitpid(child, &d->status, 0);
}

static void touch(uintptr_t address)
{
    __asm__ volatile("movb (%0), %%al" : : "r"(address) : "rax", "memory");
}

static void die_unhandled(void)
{
    struct guest g;
    guest_enter(&g);
    g.log.handled = false;
    touch(0x1238);
}

static void die_outside(void)
{
    struct guest g;
    guest_enter(&g);
    guest_leave(&g);
    touch(0x1238);
}

static bool faulty_handler(void *ctx, struct host_trap *trap)
{
    (void)ctx;
    (void)trap;
    touch(0x5678);
    return true;
}

static void die_in_handler(void)
{
    struct host_thread t = {0};
    host_thread_enter(&t, faulty_handler, NULL, NULL, NULL);
    touch(0x1238);
}

static void die_by_kill(void)
{
    struct guest g;
    guest_enter(&g);
    kill(getpid(), SIGSEGV);
}

/* RAM whose file has shrunk stands for a host that cannot supply the page: the same SIGBUS. */
static void die_without_memory(void)
{
    struct guest g;
    struct memory m;
    guest_enter(&g);
    memory_init(&m, 1 * MIB);
    if (ftruncate(m.ram.fd, 4096) == 0)
        touch((uintptr_t)m.ram.base + 0x8000);
}

static void our_own_bugs_are_reported(void **state)
{
    static const struct {
        void (*fn)(void);
        int signo;
        const char *says;
    } rows[] = {
        {die_unhandled, SIGSEGV, "monitor's own code"},
        {die_outside, SIGSEGV, "no guest code was running"},
        {die_in_handler, SIGSEGV, "inside the trap handler"},
        {die_by_kill, SIGSEGV, "sent by a process"},
        {die_without_memory, SIGBUS, "could not supply a page of memory"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct death d;
        die_in_child(&d, rows[i].fn);
        assert_true(WIFSIGNALED(d.status));
        assert_int_equal(WTERMSIG(d.status), rows[i].signo);
        assert_non_null(strstr(d.text, rows[i].says));
        assert_non_null(strstr(d.text, "rip 0x"));
        assert_non_null(strstr(d.text, "backtrace"));
        if (i < 2) {
            assert_non_null(strstr(d.text, "address 0x0000000000001238, vector 14, error code 0x00000004"));
            assert_non_null(strstr(d.text, "rsp "));
        }
        /* One report, not one per nesting level. */
        assert_null(strstr(strstr(d.text, "  at rip") + 1, "  at rip"));
    }
}

/* ---- Features ---- */

static void features_agree_with_proc(void **state)
{
    struct host_features f;
    unsigned maps = 0;
    (void)state;
    host_features_probe(&f);
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%u", &maps), 1);
    fclose(file);
    assert_int_equal(f.max_map_count, maps);
    assert_true(f.cpus >= 1 && f.cpus <= sysconf(_SC_NPROCESSORS_CONF));
    assert_true(f.memfd && f.exec_memfd && f.overcommit_ok); /* the tests above needed all three */
    assert_int_equal(f.kvm, access("/dev/kvm", R_OK | W_OK) == 0);
    assert_non_null(strstr(f.kernel, "Linux "));
    assert_true(strlen(f.cpu_name) > 3);
}

static void errors_are_formatted_and_cut(void **state)
{
    struct host_err err;
    char longer[1000];
    (void)state;
    assert_int_equal(host_fail(&err, "disk %d: %s", 7, "gone"), -1);
    assert_string_equal(err.text, "disk 7: gone");
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    host_fail(&err, "%s", longer);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_int_equal(host_fail(NULL, "nobody listens"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_formatted_and_cut),
        cmocka_unit_test(ram_of_3584_mib_is_zero_and_sparse),
        cmocka_unit_test(ram_that_cannot_be_had_says_why),
        cmocka_unit_test(windows_are_aligned_and_guarded),
        cmocka_unit_test(windows_show_ram),
        cmocka_unit_test(windows_protect_unmap_reset),
        cmocka_unit_test(windows_refuse_bad_ranges),
        cmocka_unit_test(exhausted_window_recovers_by_reset),
        cmocka_unit_test(arena_is_writable_or_executable),
        cmocka_unit_test(cpu_exceptions_are_classified),
        cmocka_unit_test(hidden_fault_is_filled_and_retried),
        cmocka_unit_test(single_steps_until_the_handler_stops),
        cmocka_unit_test(handler_is_safe_from_guest_state),
        cmocka_unit_test(enter_nests),
        cmocka_unit_test(our_own_bugs_are_reported),
        cmocka_unit_test(features_agree_with_proc),
    };
    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
