/* Unit test of the module host: worlds whose guest code tries to get out. Links only host. */
#define _GNU_SOURCE
#include "test_host_world_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where a world keeps what is not the guest's: a guest can find out too. */
#define STUB   UINT64_C(0x700000000000)
#define ORDERS UINT64_C(0x700000100000)
#define STATE  UINT64_C(0x700000200000)
extern const uint8_t host_world_stub_begin[], host_world_stub_end[], host_world_stub_handler_notify[];

/* A far jump to the host's 64-bit code segment, and what then follows. */
#define LONG_MODE "ljmp $0x33, $0x400007\n.code64\n"

PROGRAM(honest, "mov $1, %eax\n int $0x80");

static void expect_honest_work(struct rig *r)
{
    rig_state(r);
    RUN(r, honest);
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 7);
}

/* ---- What a world's process consists of. ---- */

struct range {
    uint64_t from, to;
    char perms[5];
};

/* The mappings of the world, but the vsyscall page, which is the kernel's and no mapping. */
static unsigned mappings(struct range *out, unsigned max)
{
    char path[64], line[256];
    unsigned n = 0;
    snprintf(path, sizeof(path), "/proc/%d/maps", rig_child_of(getpid()));
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        if (strstr(line, "[vsyscall]"))
            continue;
        assert_in_range(n, 0, max - 1);
        assert_int_equal(sscanf(line, "%lx-%lx %4s", &out[n].from, &out[n].to, out[n].perms), 3);
        n++;
    }
    fclose(f);
    return n;
}

static void expect_only_guest_and_stub(void)
{
    static const struct range expected[] = {
        {RIG_CODE, RIG_CODE + 0x4000, "r-xs"}, {RIG_DATA, RIG_DATA + 0x4000, "rw-s"},
        {RIG_ROM, RIG_ROM + 0x1000, "r--s"},   {STUB, STUB + 0x1000, "r-xp"},
        {ORDERS, ORDERS + 0x10000, "r--s"},    {STATE, STATE + 0x9000, "rw-s"},
    };
    struct range got[16];
    unsigned n = mappings(got, 16);
    assert_int_equal(n, sizeof(expected) / sizeof(expected[0]));
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(got[i].from, expected[i].from);
        assert_int_equal(got[i].to, expected[i].to);
        assert_string_equal(got[i].perms, expected[i].perms);
    }
}

static void nothing_is_mapped_but_guest_and_stub(void **state)
{
    RUN((struct rig *)*state, honest);
    expect_only_guest_and_stub();
}

static unsigned open_files(int pid, int tid, char *names, size_t room)
{
    unsigned n = 0;
    names[0] = '\0';
    for (int fd = 0; fd < 1024; fd++) {
        char path[64], target[128];
        snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", pid, tid, fd);
        ssize_t len = readlink(path, target, sizeof(target) - 1);
        if (len < 0)
            continue;
        target[len] = '\0';
        strncat(names, target, room - strlen(names) - 1);
        n++;
    }
    return n;
}

static void the_runner_has_no_file_and_the_mapper_one(void **state)
{
    char names[1024];
    (void)state;
    int pid = rig_child_of(getpid());
    assert_int_equal(open_files(pid, rig_runner_of(pid), names, sizeof(names)), 0);
    assert_int_equal(open_files(pid, pid, names, sizeof(names)), 1);
    assert_non_null(strstr(names, "memfd:ringlet"));
}

static void the_world_is_shut(void **state)
{
    char path[64], text[4096];
    (void)state;
    snprintf(path, sizeof(path), "/proc/%d/status", rig_child_of(getpid()));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    close(fd);
    assert_non_null(strstr(text, "NoNewPrivs:\t1"));
    assert_non_null(strstr(text, "Seccomp:\t2"));
    assert_non_null(strstr(text, "Threads:\t2"));
}

/* ---- System calls ---- */

PROGRAM(call_64, LONG_MODE "syscall\n ud2");
PROGRAM(call_80_from_64, LONG_MODE "int $0x80\n ud2");

#define BAIT "/tmp/ringlet-escaped"

/* uretprobe and uprobe (Linux 6.11, 6.18) are exempt from seccomp. They serve the kernel's own trampolines; to whoever calls
 * them from elsewhere they send SIGILL or return an error, and a world has no trampoline. */
static bool passes_every_filter(size_t gate, uint32_t nr)
{
    return gate == 0 && (nr == 335 || nr == 336);
}

/* Every number there is, from 64-bit code, by both gates: each is a stop, and none had an effect. */
static void no_system_call_gets_through(void **state)
{
    struct rig *r = *state;
    static const struct {
        const uint8_t *from, *to;
        uint32_t also;
    } gates[] = {{call_64, call_64_end, 0},
                 {call_64, call_64_end, 0x40000000}, /* the x32 numbers */
                 {call_80_from_64, call_80_from_64_end, 0}};

    unlink(BAIT);
    for (size_t g = 0; g < sizeof(gates) / sizeof(gates[0]); g++) {
        for (uint32_t nr = 0; nr < 600; nr++) {
            rig_state(r);
            rig_code(r, gates[g].from, gates[g].to);
            strcpy((char *)r->ram.base + RIG_DATA_RAM, BAIT);
            r->st.gpr[EAX] = nr | gates[g].also;
            r->st.gpr[EDI] = r->st.gpr[EBX] = RIG_DATA; /* open, creat, execve, ...: a path */
            r->st.gpr[ESI] = r->st.gpr[ECX] = 0x42;     /* O_CREAT | O_RDWR; a length */
            r->st.gpr[EDX] = 7;
            rig_run(r);
            rig_expect(r, HOST_WORLD_WILD, RIG_CODE + 9);
            if (!passes_every_filter(g, nr))
                assert_int_equal(r->st.gpr[EAX], nr | gates[g].also);
        }
    }
    assert_int_equal(access(BAIT, F_OK), -1);
    expect_only_guest_and_stub();
    expect_honest_work(r);
}

/* ---- The same, watched by strace: what it saw, and not what we believe. ---- */

static void attack(void)
{
    struct rig r;
    rig_init(&r);
    for (uint32_t nr = 0; nr < 600; nr++) {
        rig_state(&r);
        rig_code(&r, call_64, call_64_end);
        r.st.gpr[EAX] = nr;
        r.st.gpr[EDI] = RIG_DATA;
        r.st.gpr[ESI] = 0x42;
        rig_run(&r);
    }
    rig_finish(&r);
}

/* Whether strace's line shows a system call that a runner may complete. */
static bool allowed(const char *text)
{
    static const char *const starts[] = {"pause(", "--- SIG", "+++ killed"};
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++)
        if (strncmp(text, starts[i], strlen(starts[i])) == 0)
            return true;
    return false;
}

struct verdict {
    unsigned trapped, passed;
    char last[256]; /* a call that strace saw begin, and nobody stop */
};

static void judge(struct verdict *v, const char *text)
{
    if (strncmp(text, "<... ", 5) == 0)
        return; /* the rest of a line that was judged when it began */
    if (v->last[0] && strstr(text, "si_code=SYS_SECCOMP")) {
        v->trapped++;
        v->last[0] = '\0';
    } else if (v->last[0]) {
        v->passed++;
        /* the two exempt ones; strace knows their names or gives their numbers */
        if (!strstr(v->last, "probe") && !strstr(v->last, "0x14f") && !strstr(v->last, "0x150"))
            fail_msg("not stopped: %s", v->last);
        v->last[0] = '\0';
    }
    if (!allowed(text))
        snprintf(v->last, sizeof(v->last), "%s", text);
}

/* The runner is the task with the alternate stack; it is locked in when its seccomp call is done. */
static struct verdict read_strace(const char *path)
{
    struct verdict v = {0};
    char line[4096];
    int runner = -1, tid, at;
    bool locked = false;
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%d %n", &tid, &at) != 1)
            continue;
        if (strstr(line, "sigaltstack({ss_sp=0x700000201000"))
            runner = tid;
        if (tid != runner)
            continue;
        if (locked)
            judge(&v, line + at);
        locked |= strncmp(line + at, "seccomp(", 8) == 0;
    }
    fclose(f);
    return v;
}

static void strace_sees_no_other_call(void **state)
{
    char path[] = "/tmp/ringlet-strace-XXXXXX", self[1024] = "";
    int status, fd = mkstemp(path);
    (void)state;
    close(fd);
    assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
    pid_t child = fork();
    if (child == 0) {
        execlp("strace", "strace", "-f", "-o", path, self, "attack", NULL);
        _exit(127);
    }
    waitpid(child, &status, 0);
    if (WEXITSTATUS(status) == 127 || WEXITSTATUS(status) == 1) {
        printf("no strace here, or it may not trace\n");
        unlink(path);
        skip();
        return;
    }
    assert_int_equal(status, 0);
    struct verdict v = read_strace(path);
    unlink(path);
    /* 600, but pause, which allowed() takes for the stub's, and the two exempt ones */
    assert_in_range(v.trapped, 590, 600);
    assert_in_range(v.passed, 0, 2);
}

PROGRAM(call_80, "int $0x80\n jmp .");

static void no_32_bit_system_call_gets_through(void **state)
{
    struct rig *r = *state;
    for (uint32_t nr = 0; nr < 600; nr++) {
        rig_state(r);
        r->st.gpr[EAX] = nr;
        r->st.gpr[EBX] = RIG_DATA;
        RUN(r, call_80);
        rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 2);
        assert_int_equal(r->st.gpr[EAX], nr);
    }
    expect_only_guest_and_stub();
}

PROGRAM(sysenter, "mov $20, %eax\n mov %esp, %ebp\n sysenter\n jmp .");
PROGRAM(syscall32, "mov $20, %eax\n syscall\n jmp .");

/* One of them is #UD, depending on the CPU's maker; the other one is stopped, its state lost. */
static void fast_system_calls_do_not_get_through(void **state)
{
    struct rig *r = *state;
    RUN(r, sysenter);
    if (r->ex.why == HOST_WORLD_TRAP)
        rig_expect_trap(r, 6, 0, RIG_CODE + 7);
    else
        assert_int_equal(r->ex.why, HOST_WORLD_WILD);
    rig_state(r);
    RUN(r, syscall32);
    if (r->ex.why == HOST_WORLD_TRAP)
        rig_expect_trap(r, 6, 0, RIG_CODE + 5);
    else
        assert_int_equal(r->ex.why, HOST_WORLD_WILD);
    expect_honest_work(r);
}

PROGRAM(vsyscall,
        LONG_MODE "mov $0x501000, %edi\n xor %esi, %esi\n mov $-10485760, %rax\n call *%rax\n jmp .");

static void the_vsyscall_page_tells_no_time(void **state)
{
    struct rig *r = *state;
    memset(r->ram.base + RIG_DATA_RAM + 0x1000, 0, 16);
    RUN(r, vsyscall);
    assert_int_equal(r->ex.why, HOST_WORLD_WILD);
    assert_int_equal(rig_peek(r, RIG_DATA_RAM + 0x1000), 0);
    expect_honest_work(r);
}

/* ---- The stub ---- */

struct watchdog {
    struct rig *r;
    int stop;
    unsigned kicks;
};

static void *watch(void *arg)
{
    struct watchdog *dog = arg;
    while (!__atomic_load_n(&dog->stop, __ATOMIC_SEQ_CST)) {
        usleep(2000);
        __atomic_add_fetch(&dog->kicks, 1, __ATOMIC_SEQ_CST);
        host_world_kick(dog->r->w);
    }
    return NULL;
}

PROGRAM(jump_into, LONG_MODE "mov 0x500000, %r11\n mov $0x500100, %r10d\n mov $0x22, %r8d\n xor %r9d, %r9d\n"
                             "mov $1, %r12d\n mov $0x500200, %ebx\n jmp *%r11");

static void renew_when_dead(struct rig *r)
{
    if (r->ex.why != HOST_WORLD_DEAD)
        return;
    host_world_destroy(r->w);
    assert_int_equal(host_world_create(&r->w, &r->ram, &r->counts, NULL), 0);
    rig_segment(r, RIG_CS, 0, 0xffffffff, 0xb);
    rig_segment(r, RIG_DS, 0, 0xffffffff, 0x3);
    rig_maps(r);
}

/* To every byte of the stub, with the registers of a call that would map memory, make memory writable, ... */
static void jumping_into_the_stub(void **state)
{
    struct rig *r = *state;
    static const uint32_t calls[][4] = {
        /* eax, edi, esi, edx; r10, r8 and r9 say MAP_FIXED | MAP_ANONYMOUS */
        {SYS_mmap, 0x900000, 0x1000, 7},
        {SYS_mprotect, RIG_ROM, 0x1000, 7},
        {SYS_munmap, RIG_ROM, 0x1000, 0},
        {SYS_pause, 0, 0, 0},
        {SYS_rt_sigreturn, 0, 0, 0},
        {SYS_exit_group, 3, 0, 0},
        {0xffff, 0xffffffff, 0xffffffff, 0xffffffff},
    };
    struct watchdog dog = {.r = r};
    pthread_t t;
    unsigned ends[5] = {0}, runs = 0, bytes = (unsigned)(host_world_stub_end - host_world_stub_begin);

    assert_true(bytes > 100 && bytes < HOST_PAGE);
    for (unsigned at = 0; at < bytes; at++) {
        __atomic_store_n(&dog.stop, 0, __ATOMIC_SEQ_CST);
        assert_int_equal(pthread_create(&t, NULL, watch, &dog), 0);
        for (size_t c = 0; c < sizeof(calls) / sizeof(calls[0]); c++) {
            uint64_t target = STUB + at;
            rig_state(r);
            rig_code(r, jump_into, jump_into_end);
            memcpy(r->ram.base + RIG_DATA_RAM, &target, 8);
            /* for the loop that makes calls: a list of its own */
            memcpy(r->ram.base + RIG_DATA_RAM + 0x200, calls[c], 16);
            r->st.gpr[EAX] = calls[c][0];
            r->st.gpr[EDI] = calls[c][1];
            r->st.gpr[ESI] = calls[c][2];
            r->st.gpr[EDX] = calls[c][3];
            do {
                rig_run(r); /* a kick while it is still in its own code, or enters */
                runs++;
            } while (r->ex.why == HOST_WORLD_KICK && r->st.eip == RIG_CODE);
            if (r->ex.why == HOST_WORLD_TRAP || r->ex.why == HOST_WORLD_SYSCALL)
                rig_print(r);
            assert_true(r->ex.why == HOST_WORLD_WILD || r->ex.why == HOST_WORLD_DEAD ||
                        r->ex.why == HOST_WORLD_KICK);
            ends[r->ex.why]++;
        }
        __atomic_store_n(&dog.stop, 1, __ATOMIC_SEQ_CST);
        pthread_join(t, NULL);
        renew_when_dead(r);
    }
    assert_true(ends[HOST_WORLD_WILD] > bytes);
    /* no kick but those that were sent */
    assert_in_range(runs, 0, bytes * sizeof(calls) / sizeof(calls[0]) + 2 * dog.kicks);
    rig_state(r);
    do
        RUN(r, honest);
    while (r->ex.why == HOST_WORLD_KICK);
    expect_only_guest_and_stub();
}

/* rdi, rcx and al come from the registers */
PROGRAM(fill, LONG_MODE "mov 0x500000, %rdi\n cld\n rep stosb\n ud2");

static void junk_in_the_state(void **state)
{
    struct rig *r = *state;
    static const uint8_t junk[] = {0xff, 0, 0x55, 0x80};
    for (size_t i = 0; i < sizeof(junk); i++) {
        uint64_t target = STATE;
        rig_state(r);
        memcpy(r->ram.base + RIG_DATA_RAM, &target, 8);
        r->st.gpr[EAX] = junk[i];
        r->st.gpr[ECX] = 0x9000;
        RUN(r, fill);
        assert_int_equal(r->ex.why, HOST_WORLD_WILD);
        expect_honest_work(r);
    }
}

static void the_orders_and_the_stub_cannot_be_written(void **state)
{
    struct rig *r = *state;
    static const uint64_t targets[] = {ORDERS, ORDERS + 0x2000, STUB};
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        rig_state(r);
        memcpy(r->ram.base + RIG_DATA_RAM, &targets[i], 8);
        r->st.gpr[ECX] = 1;
        RUN(r, fill);
        assert_int_equal(r->ex.why, HOST_WORLD_WILD);
        assert_int_equal(r->ex.vector, 14);
        assert_int_equal(r->ex.error & 2, 2);
        expect_honest_work(r);
    }
}

/* from 500000h to 501000h, 3000h bytes */
PROGRAM(copy,
        LONG_MODE "mov 0x500000, %rsi\n mov $0x501000, %edi\n mov $0x3000, %ecx\n cld\n rep movsb\n ud2");

static bool holds(struct rig *r, uint64_t from, uint8_t byte)
{
    rig_state(r);
    memcpy(r->ram.base + RIG_DATA_RAM, &from, 8);
    RUN(r, copy);
    assert_int_equal(r->ex.why, HOST_WORLD_WILD);
    assert_int_equal(r->st.gpr[ECX], 0);
    return memchr(r->ram.base + RIG_DATA_RAM + 0x1000, byte, 0x3000) != NULL;
}

PROGRAM(high_registers_in,
        LONG_MODE "mov $-1, %r8\n mov %r8, %r9\n mov %r8, %r10\n mov %r8, %r11\n mov %r8, %r12\n"
                  "mov %r8, %r13\n mov %r8, %r14\n mov %r8, %r15\n ud2");
PROGRAM(high_registers_out,
        LONG_MODE "or %r9, %r8\n or %r10, %r8\n or %r11, %r8\n or %r12, %r8\n or %r13, %r8\n or %r14, %r8\n"
                  "or %r15, %r8\n mov %r8, 0x500000\n ud2");

static void a_reset_world_remembers_nothing(void **state)
{
    struct rig *r = *state;
    uint64_t target = STATE;
    memcpy(r->ram.base + RIG_DATA_RAM, &target, 8);
    r->st.gpr[EAX] = 0xe7;
    r->st.gpr[ECX] = 0x9000;
    RUN(r, fill);
    assert_true(holds(r, STATE + 0x1000, 0xe7)); /* the test can see it */
    host_world_reset(r->w);
    rig_maps(r);
    assert_false(holds(r, STATE + 0x1000, 0xe7));
    assert_false(holds(r, STATE + 0x4000, 0xe7));
    assert_false(holds(r, ORDERS + 0x2000, SYS_mmap)); /* nor what was mapped where */
    rig_state(r);
    RUN(r, high_registers_in);
    assert_int_equal(r->ex.vector, 6);
    rig_state(r);
    memset(r->ram.base + RIG_DATA_RAM, 0xff, 8);
    RUN(r, high_registers_out);
    assert_int_equal(r->ex.vector, 6);
    assert_int_equal(rig_peek(r, RIG_DATA_RAM), 0);
    assert_int_equal(rig_peek(r, RIG_DATA_RAM + 4), 0);
}

/* ---- Forged signal frames (Linux: struct rt_sigframe of x86-64, see host/world_frame.c) ---- */

#define FORGED_DONE 0x500800
PROGRAM(forged_return, LONG_MODE "mov 0x500000, %r11\n mov $0x500108, %esp\n mov $15, %eax\n jmp *%r11\n"
                                 ".balign 64\n incl 0x500800\n ud2");
PROGRAM(own_return, LONG_MODE "mov $0x500108, %esp\n mov $15, %eax\n syscall\n ud2\n"
                              ".balign 64\n incl 0x500800\n ud2");

static void put64(struct rig *r, unsigned at, uint64_t v)
{
    memcpy(r->ram.base + RIG_DATA_RAM + 0x100 + at, &v, 8);
}

/* The frame at RIG_DATA + 100h: continue at the 64th byte of the code, in 64-bit mode, with all signals blocked and
 * another alternate stack. */
static void forge(struct rig *r)
{
    memset(r->ram.base + RIG_DATA_RAM, 0, 0x1000);
    put64(r, 8, 6); /* uc_flags: SS is there */
    put64(r, 24, RIG_DATA);
    put64(r, 40, 0x8000);
    put64(r, 168, RIG_STACK);
    put64(r, 176, RIG_CODE + 64);
    put64(r, 184, 0x202);
    put64(r, 192, (uint64_t)0x2b << 48 | 0x33);
    put64(r, 304, ~UINT64_C(0));
}

static void expect_no_return(struct rig *r)
{
    rig_run(r);
    assert_int_equal(r->ex.why, HOST_WORLD_WILD);
    assert_int_equal(r->st.gpr[EAX], SYS_rt_sigreturn);
    assert_int_equal(rig_peek(r, FORGED_DONE - RIG_DATA + RIG_DATA_RAM), 0);
    expect_honest_work(r);
    rig_state(r);
}

/* From no SYSCALL instruction, the stub's own included. */
static void nobody_returns_from_a_signal(void **state)
{
    struct rig *r = *state;
    unsigned calls = 0;

    forge(r);
    rig_code(r, own_return, own_return_end);
    expect_no_return(r);
    for (const uint8_t *at = host_world_stub_begin; at + 1 < host_world_stub_end; at++) {
        uint64_t target = STUB + (uint64_t)(at - host_world_stub_begin);
        if (memcmp(at, "\x0f\x05", 2) != 0)
            continue;
        forge(r);
        memcpy(r->ram.base + RIG_DATA_RAM, &target, 8);
        rig_code(r, forged_return, forged_return_end);
        expect_no_return(r);
        calls++;
    }
    assert_in_range(calls, 5, 20); /* it has some */
}

/* What a forged frame could do if the kernel took it, one could do better with a jump to the instructions that enter. */
PROGRAM(enter_again,
        "incl 0x500800\n ljmp $0x33, $0x40000d\n.code64\n mov 0x500000, %r11\n xor %eax, %eax\n jmp *%r11");

static void jumping_to_the_entry_is_an_endless_loop(void **state)
{
    struct rig *r = *state;
    struct watchdog dog = {.r = r};
    uint64_t target = STUB + (uint64_t)(host_world_stub_handler_notify - host_world_stub_begin);
    pthread_t t;

    memset(r->ram.base + RIG_DATA_RAM, 0, 0x1000);
    memcpy(r->ram.base + RIG_DATA_RAM, &target, 8);
    rig_code(r, enter_again, enter_again_end);
    assert_int_equal(pthread_create(&t, NULL, watch, &dog), 0);
    for (unsigned i = 0; i < 20; i++) {
        rig_state(r);
        struct host_world_state before = r->st;
        rig_run(r);
        assert_true(r->ex.why == HOST_WORLD_KICK || r->ex.why == HOST_WORLD_WILD);
        if (r->ex.why == HOST_WORLD_KICK && r->st.eip == RIG_CODE)
            assert_memory_equal(r->st.gpr, before.gpr, sizeof(before.gpr));
    }
    __atomic_store_n(&dog.stop, 1, __ATOMIC_SEQ_CST);
    pthread_join(t, NULL);
    assert_true(rig_peek(r, FORGED_DONE - RIG_DATA + RIG_DATA_RAM) > 20); /* so it did loop */
    rig_state(r);
    do
        RUN(r, honest);
    while (r->ex.why == HOST_WORLD_KICK);
    rig_expect(r, HOST_WORLD_SYSCALL, RIG_CODE + 7);
}

/* ---- Segments, stacks ---- */

PROGRAM(host_selectors,
        "mov $0x2b, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n mov $0x33, %eax\n mov %eax, "
        "%fs\n mov $0x23, %eax\n mov %eax, %gs\n int $0x80");

static void host_selectors_are_noticed_and_gone(void **state)
{
    struct rig *r = *state;
    RUN(r, host_selectors);
    assert_int_equal(r->ex.why, HOST_WORLD_WILD);
    assert_int_equal(r->st.sel[DS], 0x2b);
    assert_int_equal(r->st.sel[SS], 0x2b);
    expect_honest_work(r);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(r->st.sel[i], HOST_WORLD_SELECTOR(i == CS ? RIG_CS : RIG_DS));
}

PROGRAM(host_code_segment, "ljmp $0x23, $0x400007\n mov $7, %eax\n ud2");

static void the_host_s_32_bit_segment(void **state)
{
    struct rig *r = *state;
    RUN(r, host_code_segment);
    rig_expect(r, HOST_WORLD_WILD, RIG_CODE + 12);
    assert_int_equal(r->st.sel[CS], 0x23);
    expect_honest_work(r);
}

PROGRAM(recursion, "1: call 1b");
PROGRAM(no_stack, LONG_MODE "mov $0x8000000000000000, %rsp\n push %rax\n jmp .");
PROGRAM(stack_in_state, LONG_MODE "mov 0x500000, %rsp\n ud2");

static void stacks_that_lead_nowhere(void **state)
{
    struct rig *r = *state;
    RUN(r, recursion);
    rig_expect(r, HOST_WORLD_TRAP, RIG_CODE);
    assert_int_equal(r->ex.vector, 14);
    assert_int_equal(r->ex.addr, RIG_DATA - 4);
    RUN(r, no_stack);
    assert_int_equal(r->ex.why, HOST_WORLD_WILD);
    expect_honest_work(r);
    for (uint64_t at = STATE; at <= STATE + 0x9000; at += 0x400) {
        rig_state(r);
        memcpy(r->ram.base + RIG_DATA_RAM, &at, 8);
        RUN(r, stack_in_state);
        assert_true(r->ex.why == HOST_WORLD_WILD || r->ex.why == HOST_WORLD_DEAD);
        renew_when_dead(r);
        expect_honest_work(r);
    }
}

/* ---- Death ---- */

static void *kill_later(void *arg)
{
    usleep(20000);
    kill(*(int *)arg, SIGKILL);
    return NULL;
}

PROGRAM(endless, "1: incl 0x500000\n jmp 1b");

static void killed_from_outside(void **state)
{
    struct rig *r = *state;
    pthread_t t;
    int pid = rig_child_of(getpid());
    struct host_world_state before;

    assert_int_equal(pthread_create(&t, NULL, kill_later, &pid), 0);
    rig_code(r, endless, endless_end);
    before = r->st;
    rig_run(r);
    pthread_join(t, NULL);
    assert_int_equal(r->ex.why, HOST_WORLD_DEAD);
    assert_non_null(strstr(r->ex.text, "signal 9"));
    assert_memory_equal(&r->st, &before, sizeof(before));
    host_world_map(r->w, RIG_HOLE, 0, HOST_PAGE, PROT_READ);
    rig_run(r);
    assert_int_equal(r->ex.why, HOST_WORLD_DEAD);
    host_world_kick(r->w); /* goes nowhere */
}

static void killed_while_it_waits(void **state)
{
    struct rig *r = *state;
    RUN(r, honest);
    assert_true(r->ex.ran);
    kill(rig_child_of(getpid()), SIGKILL);
    usleep(50000);
    RUN(r, honest);
    assert_int_equal(r->ex.why, HOST_WORLD_DEAD);
    assert_false(r->ex.ran);
}

static void killed_before_it_maps(void **state)
{
    struct rig *r = *state;
    RUN(r, honest);
    host_world_map(r->w, RIG_HOLE, 0, HOST_PAGE, PROT_READ);
    kill(rig_child_of(getpid()), SIGKILL);
    RUN(r, honest);
    assert_int_equal(r->ex.why, HOST_WORLD_DEAD);
    assert_false(r->ex.ran);
}

/* More mappings than the host allows: no instruction runs, and the reason says what to do. */
static void more_mappings_than_the_host_has(void **state)
{
    struct rig *r = *state;
    unsigned limit = 0;
    FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%u", &limit), 1);
    fclose(f);
    if (limit > 200000) {
        skip(); /* would take too long */
        return;
    }
    rig_code(r, honest, honest_end);
    struct host_world_state before = r->st;
    for (uint32_t i = 0; i <= limit; i++) /* every other page */
        host_world_map(r->w, 0x10000000 + i * 2 * HOST_PAGE, RIG_ROM_RAM, HOST_PAGE, PROT_READ);
    rig_run(r);
    assert_int_equal(r->ex.why, HOST_WORLD_DEAD);
    assert_false(r->ex.ran);
    assert_non_null(strstr(r->ex.text, "vm.max_map_count"));
    assert_memory_equal(&r->st, &before, sizeof(before));
}

/* A monitor with a world in an endless loop is killed: the world's process ends. */
static void worlds_die_with_the_monitor(void **state)
{
    int fds[2], pid = 0, status;
    struct rig *r = *state;
    host_world_destroy(r->w); /* so that the new one is the only child's only child */
    r->w = NULL;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
    assert_int_equal(pipe(fds), 0);
    pid_t monitor = fork();
    if (monitor == 0) {
        if (host_world_create(&r->w, &r->ram, NULL, NULL) != 0)
            _exit(1);
        rig_segment(r, RIG_CS, 0, 0xffffffff, 0xb);
        rig_segment(r, RIG_DS, 0, 0xffffffff, 0x3);
        rig_maps(r);
        pid = rig_child_of(getpid());
        if (write(fds[1], &pid, sizeof(pid)) != sizeof(pid))
            _exit(1);
        RUN(r, endless);
        _exit(2);
    }
    assert_int_equal(read(fds[0], &pid, sizeof(pid)), sizeof(pid));
    usleep(50000);
    assert_int_equal(waitpid(monitor, &status, WNOHANG), 0); /* it runs */
    kill(monitor, SIGKILL);
    assert_int_equal(waitpid(monitor, &status, 0), monitor);
    assert_int_equal(waitpid(pid, &status, __WALL), pid); /* orphaned to us; hangs if it lives on */
    /* Either the kernel's death signal came first, or the mapper noticed that nobody listens any more. */
    assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 1);
    close(fds[0]);
    close(fds[1]);
}

static unsigned open_here(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void nothing_is_left_of_a_world(void **state)
{
    struct rig *r = *state;
    host_world_destroy(r->w);
    r->w = NULL;
    unsigned before = open_here();
    for (int i = 0; i < 20; i++) {
        struct host_world *w;
        assert_int_equal(host_world_create(&w, &r->ram, NULL, NULL), 0);
        host_world_destroy(w);
    }
    assert_int_equal(open_here(), before);
    assert_int_equal(waitpid(-1, NULL, __WALL | WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "attack") == 0) {
        attack();
        _exit(0); /* LeakSanitizer does not work under strace */
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_is_mapped_but_guest_and_stub, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(the_runner_has_no_file_and_the_mapper_one, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(the_world_is_shut, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(no_system_call_gets_through, rig_setup, rig_teardown),
        cmocka_unit_test(strace_sees_no_other_call),
        cmocka_unit_test_setup_teardown(no_32_bit_system_call_gets_through, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(fast_system_calls_do_not_get_through, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(the_vsyscall_page_tells_no_time, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(jumping_into_the_stub, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(junk_in_the_state, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(the_orders_and_the_stub_cannot_be_written, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(a_reset_world_remembers_nothing, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(nobody_returns_from_a_signal, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(jumping_to_the_entry_is_an_endless_loop, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(host_selectors_are_noticed_and_gone, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(the_host_s_32_bit_segment, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(stacks_that_lead_nowhere, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(killed_from_outside, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(killed_while_it_waits, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(killed_before_it_maps, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(more_mappings_than_the_host_has, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(worlds_die_with_the_monitor, rig_setup, rig_teardown),
        cmocka_unit_test_setup_teardown(nothing_is_left_of_a_world, rig_setup, rig_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
