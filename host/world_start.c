/* A world's process: from nothing to two tasks that hold guest memory and can do nothing else. */
#define _GNU_SOURCE
#include "world.h"
#include "memfd.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define AREA_BYTES (WORLD_ORDERS_BYTES + WORLD_STATE_BYTES)

/* ---- The image: the stub as an ELF program of one page. ---- */

extern const uint8_t host_world_stub_begin[], host_world_stub_end[], host_world_stub_serve_notify[],
    host_world_stub_serve_call[], host_world_stub_exit[], host_world_stub_handler[],
    host_world_stub_handler_notify[], host_world_stub_sigreturn[];

static uint64_t in_world(const uint8_t *label)
{
    return WORLD_STUB + (uint64_t)(label - host_world_stub_begin);
}

static int image_write(int fd, struct host_err *err)
{
    size_t bytes = (size_t)(host_world_stub_end - host_world_stub_begin);
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr text, stack;
    } elf = {
        .header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                   .e_type = ET_EXEC,
                   .e_machine = EM_X86_64,
                   .e_version = EV_CURRENT,
                   .e_entry = WORLD_STUB,
                   .e_phoff = sizeof(Elf64_Ehdr),
                   .e_ehsize = sizeof(Elf64_Ehdr),
                   .e_phentsize = sizeof(Elf64_Phdr),
                   .e_phnum = 2},
        .text = {.p_type = PT_LOAD,
                 .p_flags = PF_R | PF_X,
                 .p_offset = HOST_PAGE,
                 .p_vaddr = WORLD_STUB,
                 .p_filesz = WORLD_STUB_BYTES,
                 .p_memsz = WORLD_STUB_BYTES,
                 .p_align = HOST_PAGE},
        .stack = {.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W},
    };
    if (pwrite(fd, &elf, sizeof(elf), 0) != (ssize_t)sizeof(elf) ||
        pwrite(fd, host_world_stub_begin, bytes, HOST_PAGE) != (ssize_t)bytes)
        return host_fail(err, "world: cannot write its program (%s)", strerror(errno));
    return 0;
}

/* ---- Filters. seccomp_data holds the address after the SYSCALL instruction. ---- */

#define LOAD(field, plus) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + (plus))
#define ANSWER(action)    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_##action)
/* Skip the next n instructions unless the loaded word is k. */
#define UNLESS(k, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(k), 0, n)
#define LOW(label)   ((uint32_t)in_world(label))
#define STUB_HIGH    ((uint32_t)(WORLD_STUB >> 32))

/* Both tasks: what waits for the monitor waits until it answers. Forbids nothing; the two below do. */
static unsigned filter_notify(struct sock_filter *to)
{
    const struct sock_filter code[] = {
        LOAD(nr, 0),
        UNLESS(SYS_pause, 7),
        LOAD(instruction_pointer, 4),
        UNLESS(STUB_HIGH, 5),
        LOAD(instruction_pointer, 0),
        UNLESS(LOW(host_world_stub_handler_notify), 1),
        ANSWER(USER_NOTIF),
        UNLESS(LOW(host_world_stub_serve_notify), 1),
        ANSWER(USER_NOTIF),
        ANSWER(ALLOW),
    };
    memcpy(to, code, sizeof(code));
    return sizeof(code) / sizeof(code[0]);
}

/* The runner: two calls, each from its own instruction. All else becomes SIGSYS, hence an exit. */
static unsigned filter_runner(struct sock_filter *to)
{
    const struct sock_filter code[] = {
        LOAD(arch, 0),
        UNLESS(AUDIT_ARCH_X86_64, 9),
        LOAD(instruction_pointer, 4),
        UNLESS(STUB_HIGH, 7),
        LOAD(instruction_pointer, 0),
        UNLESS(LOW(host_world_stub_handler_notify), 2),
        LOAD(nr, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pause, 4, 3),
        UNLESS(LOW(host_world_stub_sigreturn), 2),
        LOAD(nr, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
        ANSWER(TRAP),
        ANSWER(ALLOW),
    };
    memcpy(to, code, sizeof(code));
    return sizeof(code) / sizeof(code[0]);
}

/* The mapper: runs no guest code and obeys only the monitor. Should it ever do anything else, the world ends. */
static unsigned filter_mapper(struct sock_filter *to)
{
    const struct sock_filter code[] = {
        LOAD(arch, 0),
        UNLESS(AUDIT_ARCH_X86_64, 14),
        LOAD(instruction_pointer, 4),
        UNLESS(STUB_HIGH, 12),
        LOAD(instruction_pointer, 0),
        UNLESS(LOW(host_world_stub_serve_notify), 2),
        LOAD(nr, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pause, 9, 8),
        UNLESS(LOW(host_world_stub_exit), 2),
        LOAD(nr, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 6, 5),
        UNLESS(LOW(host_world_stub_serve_call), 4),
        LOAD(nr, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_munmap, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_modify_ldt, 1, 0),
        ANSWER(KILL_PROCESS),
        ANSWER(ALLOW),
    };
    memcpy(to, code, sizeof(code));
    return sizeof(code) / sizeof(code[0]);
}

#define FILTER_MAX 32

/* ---- Birth: between vfork and exec. ---- */

struct birth {
    int ram_fd, area_fd, image_fd, socket;
    const char *refused; /* the call that failed, NULL: none did */
    int error;
};

static int child_fails(struct birth *b, const char *call)
{
    b->refused = call;
    b->error = errno;
    return 127;
}

static int install_listener(void)
{
    struct sock_filter code[FILTER_MAX];
    struct sock_fprog program = {.len = (unsigned short)filter_notify(code), .filter = code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* One byte, with a descriptor when fd is not negative. */
static ssize_t socket_send(int socket, int fd)
{
    char byte = 0;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    memset(&control, 0, sizeof(control));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    return sendmsg(socket, &message, 0);
}

static int socket_receive(int socket)
{
    char byte;
    int fd = -1;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {
        .msg_iov = &io, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};

    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) == 1 && CMSG_FIRSTHDR(&message))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

/* Nothing the monitor has open may be open in the world, but the two it is meant to have. */
static void keep_two(const struct birth *b)
{
    int ram = fcntl(b->ram_fd, F_DUPFD_CLOEXEC, 8), area = fcntl(b->area_fd, F_DUPFD_CLOEXEC, 8);
    int image = fcntl(b->image_fd, F_DUPFD_CLOEXEC, 8);

    dup2(ram, WORLD_FD_RAM);
    dup2(area, WORLD_FD_AREA);
    dup3(image, WORLD_FD_AREA + 1, O_CLOEXEC);
    for (int fd = 0; fd < WORLD_FD_RAM; fd++)
        close(fd);
    unsigned first = WORLD_FD_AREA + 2;
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
    struct rlimit limit = {.rlim_cur = 65536};
    getrlimit(RLIMIT_NOFILE, &limit);
    for (unsigned fd = first; fd < limit.rlim_cur && fd < 1u << 20; fd++)
        close((int)fd);
}

/* Shares the monitor's memory (and its errno) while the monitor stands still, has its own descriptors. */
static int child_main(void *arg)
{
    struct birth *b = arg;
    char *const none[] = {NULL};

    setpgid(0, 0); /* Ctrl-C at the terminal is the monitor's affair */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return child_fails(b, "prctl(PR_SET_NO_NEW_PRIVS)");
    int listener = install_listener();
    if (listener < 0)
        return child_fails(b, "seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)");
    if (socket_send(b->socket, listener) != 1)
        return child_fails(b, "sendmsg(SCM_RIGHTS)");
    keep_two(b);
    syscall(SYS_execveat, WORLD_FD_AREA + 1, "", none, none, AT_EMPTY_PATH);
    return child_fails(b, "execveat");
}

#define CHILD_STACK ((size_t)64 << 10)

/*T:710 A world is born
 * fork would copy the monitor's page tables: tens of thousands of mappings, only to drop them again. So the child
 * shares the monitor's memory until it executes a program of one page, the stub, which exists only in a memfd. Two
 * files stay open for it: guest RAM, and the area through which it and the monitor talk.
 *
 * The stub then does what it is told: unmap everything that exec left (stack, vdso), install the signal handlers, and
 * split into two tasks which share the address space but not the file table. The *mapper* keeps guest RAM open, maps
 * and unmaps, and never runs guest code. The *runner* closes everything, and a seccomp filter leaves it two
 * system calls: wait for the monitor, and return from a signal. Guest code runs on the runner. Whatever it does, even in 64-bit
 * mode, even by jumping into the stub, there is no call that maps memory, and no file to map.
 :*/
static int give_birth(struct birth *b)
{
    sigset_t all, before;
    char *stack = mmap(NULL, CHILD_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (stack == MAP_FAILED)
        return -1;
    /* No handler of the monitor's may run in the child: they share memory. The world inherits this mask. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* No exit signal: only those who ask for clones (__WALL) see this child. */
    int pid = clone(child_main, stack + CHILD_STACK, CLONE_VM | CLONE_VFORK, b);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    munmap(stack, CHILD_STACK);
    errno = error;
    return pid;
}

/* ---- Upbringing: system calls that the stub makes for us, one at a time, so that a refusal has a name. ---- */

#define ARGS(offset) ((uint64_t)WORLD_ORDERS + ORDERS_ARGS + (offset))
enum {
    ARGS_FILTER = 0,
    ARGS_PROGRAM = 512,
    ARGS_ACTION = 544,
    ARGS_EMPTY = 576,
    ARGS_STACK = 584,
    ARGS_LIMIT = 608,
    ARGS_SEGMENT = 624
};

struct lesson {
    const char *name;
    struct world_call call;
};

static int teach(struct host_world *w, struct world_task *task, const struct lesson *lesson,
                 struct host_err *err)
{
    unsigned at;
    int error;

    if (host_world_order(w, task, &lesson->call, 1, &at, &error) == 0)
        return 0;
    if (w->dead)
        return host_fail(err, "world: %s: %s", lesson->name, w->text);
    return host_fail(err, "world: %s is refused (%s)", lesson->name, strerror(error));
}

static int teach_all(struct host_world *w, struct world_task *task, const struct lesson *list, size_t n,
                     struct host_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (teach(w, task, &list[i], err) != 0)
            return -1;
    return 0;
}

static void put_args(struct host_world *w, unsigned offset, const void *what, size_t bytes)
{
    memcpy(w->orders + ORDERS_ARGS + offset, what, bytes);
}

static void put_filter(struct host_world *w, unsigned (*make)(struct sock_filter *))
{
    struct sock_filter code[FILTER_MAX];
    struct {
        uint64_t len, code;
    } program = {.len = make(code), .code = ARGS(ARGS_FILTER)};

    put_args(w, ARGS_FILTER, code, sizeof(code));
    put_args(w, ARGS_PROGRAM, &program, sizeof(program));
}

#define KERNEL_SA_RESTORER 0x04000000u

static int teach_signals(struct host_world *w, struct host_err *err)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, WORLD_SIG_KICK};
    uint64_t handler = in_world(host_world_stub_handler);
    /* The kernel's struct sigaction: handler, flags, restorer, mask. The restorer is demanded and never used. */
    uint64_t action[4] = {handler, SA_SIGINFO | SA_ONSTACK | KERNEL_SA_RESTORER, handler, ~UINT64_C(0)};

    put_args(w, ARGS_ACTION, action, sizeof(action));
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        struct lesson lesson = {
            "rt_sigaction",
            {.nr = SYS_rt_sigaction, .args = {(uint64_t)signals[i], ARGS(ARGS_ACTION), 0, 8}}};
        if (teach(w, &w->mapper, &lesson, err) != 0)
            return -1;
    }
    return 0;
}

static bool try_call(struct host_world *w, struct world_task *task, struct world_call call)
{
    struct host_err ignored;
    struct lesson lesson = {"", call};
    return teach(w, task, &lesson, &ignored) == 0;
}

static void teach_segments(struct host_world *w)
{
    struct user_desc desc = {.entry_number = 0, .limit = 0xffff, .seg_not_present = 1};
    struct world_call call = {.nr = SYS_modify_ldt, .args = {0x11, ARGS(ARGS_SEGMENT), sizeof(desc)}};

    put_args(w, ARGS_SEGMENT, &desc, sizeof(desc));
    w->small_segments = try_call(w, &w->mapper, call);
}

/* vm.mmap_min_addr, as this process meets it. */
static void teach_lowest(struct host_world *w)
{
    static const uint32_t candidates[] = {0, 0x1000, 0x8000, 0x10000};
    uint64_t flags = MAP_SHARED | MAP_FIXED;

    for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
        struct world_call call = {.nr = SYS_mmap,
                                  .args = {candidates[i], HOST_PAGE, PROT_READ, flags, WORLD_FD_RAM, 0}};
        w->lowest = candidates[i];
        if (try_call(w, &w->mapper, call)) {
            call = (struct world_call){.nr = SYS_munmap, .args = {candidates[i], HOST_PAGE}};
            try_call(w, &w->mapper, call);
            return;
        }
    }
    w->lowest = 1u << 20; /* nobody asks for more */
}

static int raise_mapper(struct host_world *w, struct host_err *err)
{
    static const struct lesson list[] = {
        {"prctl(PR_SET_PDEATHSIG)", {.nr = SYS_prctl, .args = {PR_SET_PDEATHSIG, SIGKILL}}},
        {"prctl(PR_SET_NAME)", {.nr = SYS_prctl, .args = {PR_SET_NAME, ARGS(ARGS_EMPTY)}}},
        {"munmap", {.nr = SYS_munmap, .args = {0, WORLD_STUB}}},
        {"munmap",
         {.nr = SYS_munmap,
          .args = {WORLD_STUB + WORLD_STUB_BYTES, WORLD_ORDERS - WORLD_STUB - WORLD_STUB_BYTES}}},
        {"munmap",
         {.nr = SYS_munmap,
          .args = {WORLD_ORDERS + WORLD_ORDERS_BYTES, WORLD_STATE - WORLD_ORDERS - WORLD_ORDERS_BYTES}}},
        {"munmap (of the vdso too)",
         {.nr = SYS_munmap,
          .args = {WORLD_STATE + WORLD_STATE_BYTES, WORLD_END - WORLD_STATE - WORLD_STATE_BYTES}}},
        {"close", {.nr = SYS_close, .args = {WORLD_FD_AREA}}},
        {"modify_ldt (kernel with CONFIG_MODIFY_LDT_SYSCALL)",
         {.nr = SYS_modify_ldt, .args = {0x11, ARGS(ARGS_SEGMENT), sizeof(struct user_desc)}}},
    };
    struct user_desc desc = {.entry_number = 0, .limit = 0xffff, .seg_32bit = 1, .seg_not_present = 1};
    struct rlimit one = {.rlim_cur = 1, .rlim_max = 1};

    put_args(w, ARGS_EMPTY, "ringlet-world", 14);
    put_args(w, ARGS_SEGMENT, &desc, sizeof(desc));
    if (teach_all(w, &w->mapper, list, sizeof(list) / sizeof(list[0]), err) != 0 ||
        teach_signals(w, err) != 0)
        return -1;
    /* A dump of a world would be a dump of the guest. 1 byte means no file and, unlike 0, no pipe either. */
    put_args(w, ARGS_LIMIT, &one, sizeof(one));
    if (!try_call(w, &w->mapper,
                  (struct world_call){.nr = SYS_setrlimit, .args = {RLIMIT_CORE, ARGS(ARGS_LIMIT)}}))
        try_call(w, &w->mapper, (struct world_call){.nr = SYS_prctl, .args = {PR_SET_DUMPABLE, 0}});
    teach_segments(w);
    teach_lowest(w);
    return w->dead ? host_fail(err, "world: %s", w->text) : 0;
}

#define RUNNER_FLAGS (CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static int raise_runner(struct host_world *w, struct host_err *err)
{
    static const struct lesson birth = {"clone", {.nr = SYS_clone, .args = {RUNNER_FLAGS}}};
    static const struct lesson list[] = {
        {"close", {.nr = SYS_close, .args = {WORLD_FD_RAM}}},
        {"sigaltstack", {.nr = SYS_sigaltstack, .args = {ARGS(ARGS_STACK)}}},
        {"rt_sigprocmask", {.nr = SYS_rt_sigprocmask, .args = {SIG_SETMASK, ARGS(ARGS_EMPTY), 0, 8}}},
    };
    static const struct world_call last[] = {
        {.nr = SYS_seccomp, .args = {SECCOMP_SET_MODE_FILTER, 0, ARGS(ARGS_PROGRAM)}},
        {.nr = CALL_TRAP},
    };
    stack_t stack = {.ss_sp = (void *)(WORLD_STATE + STATE_STACK), .ss_size = STATE_STACK_END - STATE_STACK};
    uint64_t empty = 0;
    unsigned at;
    int error;

    put_args(w, ARGS_STACK, &stack, sizeof(stack));
    put_args(w, ARGS_EMPTY, &empty, sizeof(empty));
    put_filter(w, filter_runner);
    if (teach(w, &w->mapper, &birth, err) != 0)
        return -1;
    if (!host_world_await(w, &w->runner))
        return host_fail(err, "world: %s", w->text);
    if (teach_all(w, &w->runner, list, sizeof(list) / sizeof(list[0]), err) != 0)
        return -1;
    /* CPUID then faults, so that it can be answered as everywhere else. Intel since 2012, AMD rarely. */
    w->cpuid_faults =
        try_call(w, &w->runner, (struct world_call){.nr = SYS_arch_prctl, .args = {ARCH_SET_CPUID, 0}});
    if (host_world_order(w, &w->runner, last, 2, &at, &error) != 0)
        return host_fail(err, "world: its seccomp filter is refused (%s)",
                         w->dead ? w->text : strerror(error));
    return host_world_frame_learn(w, err);
}

static int lock_mapper(struct host_world *w, struct host_err *err)
{
    static const struct lesson lock = {
        "seccomp", {.nr = SYS_seccomp, .args = {SECCOMP_SET_MODE_FILTER, 0, ARGS(ARGS_PROGRAM)}}};
    put_filter(w, filter_mapper);
    return teach(w, &w->mapper, &lock, err);
}

/* ---- All of it. ---- */

static const char *advice(const char *call, int error)
{
    if (strstr(call, "seccomp"))
        return error == EBUSY ? "; this container already watches system calls, which Linux allows only once"
                              : "; needs Linux 5.0 or newer with CONFIG_SECCOMP_FILTER";
    return error == EPERM || error == EACCES ? "; a seccomp profile or security module forbids it" : "";
}

static int start_process(struct host_world *w, int area_fd, struct host_err *err)
{
    struct birth b = {.ram_fd = w->ram->fd, .area_fd = area_fd};
    int pair[2];

    b.image_fd = host_memfd_open("world", 2 * HOST_PAGE, true, err);
    if (b.image_fd < 0)
        return -1;
    if (image_write(b.image_fd, err) != 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        close(b.image_fd);
        return host_fail(err, "world: no socket pair (%s)", strerror(errno));
    }
    b.socket = pair[1];
    int pid = give_birth(&b);
    if (pid > 0) {
        w->pid = pid;
        w->mapper.tid = pid;
        w->listener = socket_receive(pair[0]);
    }
    close(pair[0]);
    close(pair[1]);
    close(b.image_fd);
    if (pid < 0)
        return host_fail(err, "world: clone is refused (%s); raise `ulimit -u`", strerror(errno));
    if (b.refused)
        return host_fail(err, "world: %s is refused (%s)%s", b.refused, strerror(b.error),
                         advice(b.refused, b.error));
    if (w->listener < 0)
        return host_fail(err, "world: lost its listener; raise `ulimit -n`");
    return 0;
}

static int start_area(struct host_world *w, struct host_err *err)
{
    int fd = host_memfd_open("world", AREA_BYTES, false, err);
    if (fd < 0)
        return -1;
    w->area = mmap(NULL, AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (w->area == MAP_FAILED) {
        w->area = NULL;
        host_fail(err, "world: cannot map its area (%s)", strerror(errno));
        close(fd);
        return -1;
    }
    w->orders = w->area;
    w->state = w->area + WORLD_ORDERS_BYTES;
    return fd;
}

static int start_talk(struct host_world *w, struct host_err *err)
{
    struct seccomp_notif_sizes sizes;

    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0)
        return host_fail(err,
                         "world: seccomp(SECCOMP_GET_NOTIF_SIZES) is refused (%s); needs Linux 5.0 or newer",
                         strerror(errno));
    w->notif_bytes = sizes.seccomp_notif > sizeof(*w->notif) ? sizes.seccomp_notif : sizeof(*w->notif);
    w->resp_bytes = sizes.seccomp_notif_resp > sizeof(*w->resp) ? sizes.seccomp_notif_resp : sizeof(*w->resp);
    w->notif = calloc(1, w->notif_bytes);
    w->resp = calloc(1, w->resp_bytes);
    return w->notif && w->resp ? 0 : host_fail(err, "out of memory for a world");
}

/* Linux 6.6: the one who waits is woken on the CPU of the one who wakes, where the caches are warm and nothing
 * sleeps. Without it a round trip takes 5 to 10 times as long whenever the two are on different CPUs. */
#define NOTIF_SET_FLAGS _IOW('!', 4, uint64_t)
#define NOTIF_SYNC      1u

int host_world_start(struct host_world *w, struct host_err *err)
{
    w->listener = -1;
    if (start_talk(w, err) != 0)
        goto failed;
    int area_fd = start_area(w, err);
    if (area_fd < 0)
        goto failed;
    int failed = start_process(w, area_fd, err);
    close(area_fd);
    if (failed)
        goto failed;
    ioctl(w->listener, NOTIF_SET_FLAGS, NOTIF_SYNC);
    if (!host_world_await(w, &w->mapper)) {
        host_fail(err, "world: %s", w->text);
        goto failed;
    }
    if (raise_mapper(w, err) != 0 || raise_runner(w, err) != 0 || lock_mapper(w, err) != 0)
        goto failed;
    return 0;
failed:
    host_world_stop(w);
    return -1;
}

void host_world_stop(struct host_world *w)
{
    if (w->pid > 0) {
        kill(w->pid, SIGKILL);
        waitpid(w->pid, NULL, __WALL);
    }
    if (w->listener >= 0)
        close(w->listener);
    if (w->area)
        munmap(w->area, AREA_BYTES);
    free(w->notif);
    free(w->resp);
    w->pid = 0;
    w->listener = -1;
    w->area = NULL;
    w->notif = NULL;
    w->resp = NULL;
}
