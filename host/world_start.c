/* A world is started: its process, then what the stub is told to do until two tasks hold guest memory and can do nothing else. */
#define _GNU_SOURCE
#include "world.h"
#include "memfd.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <linux/filter.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define AREA_BYTES (WORLD_ORDERS_BYTES + WORLD_STATE_BYTES)

/* ---- Upbringing: system calls that the stub makes for us; each has a name for the case that it is refused. ---- */

#define ARGS(offset) ((uint64_t)WORLD_ORDERS + ORDERS_ARGS + (offset))
enum {
    ARGS_FILTER = 0,
    ARGS_PROGRAM = 512,
    ARGS_ACTION = 544,
    ARGS_NAME = 576,
    ARGS_BLOCKED = 576,
    ARGS_STACK = 592,
    ARGS_LIMIT = 616,
    ARGS_SEGMENT = 632
};

struct lesson {
    const char *name;
    struct world_call call;
};

enum { LESSONS_MAX = 16 };

/* All of list, in one go. */
static int teach(struct host_world *w, struct world_task *task, const struct lesson *list, size_t n,
                 struct host_err *err)
{
    struct world_call calls[LESSONS_MAX];
    unsigned at;
    int error;

    for (size_t i = 0; i < n; i++)
        calls[i] = list[i].call;
    if (host_world_order(w, task, calls, (unsigned)n, &at, &error) == 0)
        return 0;
    if (w->dead)
        return host_fail(err, "world: %s", w->text);
    return host_fail(err, "world: %s is refused (%s)%s", list[at].name, strerror(error),
                     host_world_advice(list[at].name, error));
}

static void put_args(struct host_world *w, unsigned offset, const void *what, size_t bytes)
{
    memcpy(w->orders + ORDERS_ARGS + offset, what, bytes);
}

static void put_filter(struct host_world *w, unsigned (*make)(struct sock_filter *))
{
    struct sock_filter code[WORLD_FILTER_MAX];
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
    uint64_t handler = host_world_stub_at(host_world_stub_handler);
    /* The kernel's struct sigaction: handler, flags, restorer, mask. The restorer is demanded and never used; nothing is
     * blocked in the handler, since it does not return. */
    uint64_t flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | KERNEL_SA_RESTORER;
    uint64_t action[4] = {handler, flags, handler, 0};

    put_args(w, ARGS_ACTION, action, sizeof(action));
    struct lesson list[sizeof(signals) / sizeof(signals[0])];
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        list[i] = (struct lesson){
            "rt_sigaction",
            {.nr = SYS_rt_sigaction, .args = {(uint64_t)signals[i], ARGS(ARGS_ACTION), 0, 8}}};
    return teach(w, &w->mapper, list, sizeof(list) / sizeof(list[0]), err);
}

static bool try_call(struct host_world *w, struct world_task *task, struct world_call call)
{
    struct host_err ignored;
    struct lesson lesson = {"", call};
    return teach(w, task, &lesson, 1, &ignored) == 0;
}

static void teach_segments(struct host_world *w)
{
    struct user_desc desc = {.entry_number = 0, .limit = 0xffff, .seg_not_present = 1};
    struct world_call call = {.nr = SYS_modify_ldt, .args = {0x11, ARGS(ARGS_SEGMENT), sizeof(desc)}};

    put_args(w, ARGS_SEGMENT, &desc, sizeof(desc));
    w->small_segments = try_call(w, &w->mapper, call);
}

/* vm.mmap_min_addr, as this process meets it. */
static int teach_lowest(struct host_world *w, struct host_err *err)
{
    static const uint32_t candidates[] = {0, 0x1000, 0x8000, 0x10000, 0x100000};
    uint64_t flags = MAP_SHARED | MAP_FIXED;

    for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
        struct world_call call = {.nr = SYS_mmap,
                                  .args = {candidates[i], HOST_PAGE, PROT_READ, flags, WORLD_FD_RAM, 0}};
        w->lowest = candidates[i];
        if (try_call(w, &w->mapper, call)) {
            call = (struct world_call){.nr = SYS_munmap, .args = {candidates[i], HOST_PAGE}};
            try_call(w, &w->mapper, call);
            return 0;
        }
    }
    return host_fail(err, "world: mmap of guest RAM is refused (%s)", w->dead ? w->text : "at any address");
}

static int raise_mapper(struct host_world *w, struct host_err *err)
{
    static const struct lesson list[] = {
        {"prctl(PR_SET_PDEATHSIG)", {.nr = SYS_prctl, .args = {PR_SET_PDEATHSIG, SIGKILL}}},
        {"prctl(PR_SET_NAME)", {.nr = SYS_prctl, .args = {PR_SET_NAME, ARGS(ARGS_NAME)}}},
        {"munmap", {.nr = SYS_munmap, .args = {0, WORLD_STUB}}},
        {"munmap",
         {.nr = SYS_munmap,
          .args = {WORLD_STUB + WORLD_STUB_BYTES, WORLD_ORDERS - WORLD_STUB - WORLD_STUB_BYTES}}},
        {"munmap",
         {.nr = SYS_munmap,
          .args = {WORLD_ORDERS + WORLD_ORDERS_BYTES, WORLD_STATE - WORLD_ORDERS - WORLD_ORDERS_BYTES}}},
        {"munmap of the vdso (a kernel with CONFIG_MSEAL_SYSTEM_MAPPINGS does not allow it)",
         {.nr = SYS_munmap,
          .args = {WORLD_STATE + WORLD_STATE_BYTES, WORLD_END - WORLD_STATE - WORLD_STATE_BYTES}}},
        {"close", {.nr = SYS_close, .args = {WORLD_FD_AREA}}},
        {"modify_ldt", {.nr = SYS_modify_ldt, .args = {0x11, ARGS(ARGS_SEGMENT), sizeof(struct user_desc)}}},
    };
    struct user_desc desc = {.entry_number = 0, .limit = 0xffff, .seg_32bit = 1, .seg_not_present = 1};
    struct rlimit one = {.rlim_cur = 1, .rlim_max = 1};

    put_args(w, ARGS_NAME, "ringlet-world", 14);
    put_args(w, ARGS_SEGMENT, &desc, sizeof(desc));
    if (teach(w, &w->mapper, list, sizeof(list) / sizeof(list[0]), err) != 0 || teach_signals(w, err) != 0)
        return -1;
    /* A dump of a world would be a dump of the guest. 1 byte means no file and, unlike 0, no pipe either. */
    put_args(w, ARGS_LIMIT, &one, sizeof(one));
    if (!try_call(w, &w->mapper,
                  (struct world_call){.nr = SYS_setrlimit, .args = {RLIMIT_CORE, ARGS(ARGS_LIMIT)}}))
        try_call(w, &w->mapper, (struct world_call){.nr = SYS_prctl, .args = {PR_SET_DUMPABLE, 0}});
    teach_segments(w);
    return teach_lowest(w, err);
}

#define RUNNER_FLAGS (CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

static int raise_runner(struct host_world *w, struct host_err *err)
{
    static const struct lesson birth = {"clone", {.nr = SYS_clone, .args = {RUNNER_FLAGS}}};
    static const struct lesson list[] = {
        {"close", {.nr = SYS_close, .args = {WORLD_FD_RAM}}},
        {"sigaltstack", {.nr = SYS_sigaltstack, .args = {ARGS(ARGS_STACK)}}},
        {"rt_sigprocmask", {.nr = SYS_rt_sigprocmask, .args = {SIG_SETMASK, ARGS(ARGS_BLOCKED), 0, 8}}},
    };
    static const struct world_call last[] = {
        {.nr = SYS_seccomp, .args = {SECCOMP_SET_MODE_FILTER, 0, ARGS(ARGS_PROGRAM)}},
        {.nr = CALL_TRAP},
    };
    stack_t stack = {.ss_sp = (void *)(WORLD_STATE + STATE_STACK), .ss_size = STATE_STACK_END - STATE_STACK};
    uint64_t blocked = host_world_blocked_signals();
    unsigned at;
    int error;

    put_args(w, ARGS_STACK, &stack, sizeof(stack));
    put_args(w, ARGS_BLOCKED, &blocked, sizeof(blocked));
    put_filter(w, host_world_filter_runner);
    if (teach(w, &w->mapper, &birth, 1, err) != 0)
        return -1;
    if (!host_world_await(w, &w->runner))
        return host_fail(err, "world: %s", w->text);
    if (teach(w, &w->runner, list, sizeof(list) / sizeof(list[0]), err) != 0)
        return -1;
    /* CPUID then faults, so that it can be answered as everywhere else. Intel since 2012, AMD rarely. */
    w->cpuid_faults =
        try_call(w, &w->runner, (struct world_call){.nr = SYS_arch_prctl, .args = {ARCH_SET_CPUID, 0}});
    if (host_world_order(w, &w->runner, last, 2, &at, &error) != 0)
        return host_fail(err, "world: seccomp is refused (%s)", w->dead ? w->text : strerror(error));
    return host_world_frame_learn(w, err);
}

static int lock_mapper(struct host_world *w, struct host_err *err)
{
    static const struct lesson lock = {
        "seccomp", {.nr = SYS_seccomp, .args = {SECCOMP_SET_MODE_FILTER, 0, ARGS(ARGS_PROGRAM)}}};
    put_filter(w, host_world_filter_mapper);
    return teach(w, &w->mapper, &lock, 1, err);
}

/* ---- All of it. ---- */

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
        return host_fail(err, "world: seccomp(SECCOMP_GET_NOTIF_SIZES) is refused (%s)%s", strerror(errno),
                         host_world_advice("seccomp", errno));
    w->notif_bytes = sizes.seccomp_notif > sizeof(*w->notif) ? sizes.seccomp_notif : sizeof(*w->notif);
    w->resp_bytes = sizes.seccomp_notif_resp > sizeof(*w->resp) ? sizes.seccomp_notif_resp : sizeof(*w->resp);
    w->notif = calloc(1, w->notif_bytes);
    w->resp = calloc(1, w->resp_bytes);
    return w->notif && w->resp ? 0 : host_fail(err, "out of memory for a world");
}

/* Linux 6.6, see world_place.c: who is woken runs on the CPU of the one who wakes it. */
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
    int failed = host_world_birth(w, area_fd, err);
    close(area_fd);
    if (failed)
        goto failed;
    w->hands_over = ioctl(w->listener, NOTIF_SET_FLAGS, NOTIF_SYNC) == 0;
    host_world_may_sleep(w);
    w->cpu = -1;
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
