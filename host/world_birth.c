/* A world's process: a program of one page, started without copying the monitor. */
#define _GNU_SOURCE
#include "world.h"
#include "memfd.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- The image: the stub as an ELF program of one page. ---- */

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

/* ---- Birth: between vfork and exec. ---- */

struct birth {
    int ram_fd, area_fd, image_fd, socket;
    const char *refused; /* the call that failed, NULL: none did */
    int error;
};

WORLD_IN_CHILD static int child_fails(struct birth *b, const char *call)
{
    b->refused = call;
    b->error = errno;
    return 127;
}

WORLD_IN_CHILD static int install_listener(void)
{
    struct sock_filter code[WORLD_FILTER_MAX];
    struct sock_fprog program = {.len = (unsigned short)host_world_filter_notify(code), .filter = code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

/* One byte, and a descriptor. */
WORLD_IN_CHILD static ssize_t socket_send(int socket, int fd)
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

/* Nothing the monitor has open may be open in the world, but the two it is meant to have; and these two must be what
 * they are meant to be. */
WORLD_IN_CHILD static bool keep_two(const struct birth *b)
{
    /* First out of the way: one of them may have the number of another. */
    struct birth high = {.ram_fd = fcntl(b->ram_fd, F_DUPFD_CLOEXEC, 8),
                         .area_fd = fcntl(b->area_fd, F_DUPFD_CLOEXEC, 8),
                         .image_fd = fcntl(b->image_fd, F_DUPFD_CLOEXEC, 8)};

    if (high.ram_fd < 0 || high.area_fd < 0 || high.image_fd < 0 || dup2(high.ram_fd, WORLD_FD_RAM) < 0 ||
        dup2(high.area_fd, WORLD_FD_AREA) < 0 || dup3(high.image_fd, WORLD_FD_IMAGE, O_CLOEXEC) < 0)
        return false;
    for (int fd = 0; fd < WORLD_FD_RAM; fd++)
        close(fd);
    unsigned first = WORLD_FD_IMAGE + 1;
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return true;
    struct rlimit limit = {.rlim_cur = 65536};
    getrlimit(RLIMIT_NOFILE, &limit);
    for (unsigned fd = first; fd < limit.rlim_cur && fd < 1u << 20; fd++)
        close((int)fd);
    return true;
}

/* Shares the monitor's memory (and its errno) while the monitor stands still, has its own descriptors. */
WORLD_IN_CHILD static int child_main(void *arg)
{
    struct birth *b = arg;
    static char name[] = "ringlet-world";
    char *const argv[] = {name, NULL}, *const none[] = {NULL};

    setpgid(0, 0); /* Ctrl-C at the terminal is the monitor's affair */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return child_fails(b, "prctl(PR_SET_NO_NEW_PRIVS)");
    int listener = install_listener();
    if (listener < 0)
        return child_fails(b, "seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)");
    if (socket_send(b->socket, listener) != 1)
        return child_fails(b, "sendmsg(SCM_RIGHTS)");
    if (!keep_two(b))
        return child_fails(b, "dup2");
    syscall(SYS_execveat, WORLD_FD_IMAGE, "", argv, none, AT_EMPTY_PATH);
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
 * and unmaps, and never runs guest code. The *runner* closes everything, and a seccomp filter leaves it one
 * system call: wait for the monitor. Guest code runs on the runner. Whatever it does, even in 64-bit
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

/* ---- The whole of it. ---- */

const char *host_world_advice(const char *call, int error)
{
    if (strstr(call, "seccomp"))
        return error == EBUSY ? "; this container already watches system calls, which Linux allows only once"
               : error == EPERM ? "; a seccomp profile or security module forbids it"
                                : "; needs Linux 5.0 or newer with CONFIG_SECCOMP_FILTER";
    if (strcmp(call, "dup2") == 0)
        return "; raise `ulimit -n`";
    if (strcmp(call, "modify_ldt") == 0 && error == ENOSYS)
        return "; needs a kernel with CONFIG_MODIFY_LDT_SYSCALL, or a seccomp profile forbids it";
    return error == EPERM || error == EACCES || error == ENOSYS
               ? "; a seccomp profile or security module forbids it"
               : "";
}

int host_world_birth(struct host_world *w, int area_fd, struct host_err *err)
{
    struct birth b = {.ram_fd = w->ram->fd, .area_fd = area_fd};
    int pair[2];

    b.image_fd = host_memfd_open("world", 2 * HOST_PAGE, true, err);
    if (b.image_fd < 0)
        return -1;
    int failed = image_write(b.image_fd, err);
    if (!failed && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        failed = host_fail(err, "world: no socket pair (%s)", strerror(errno));
    if (failed) {
        close(b.image_fd);
        return -1;
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
                         host_world_advice(b.refused, b.error));
    if (w->listener < 0)
        return host_fail(err, "world: lost its listener; raise `ulimit -n`");
    return 0;
}
