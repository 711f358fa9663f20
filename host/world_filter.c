/* What a world's tasks may ask of the kernel. */
#define _GNU_SOURCE
#include "world.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>

uint64_t host_world_stub_at(const uint8_t *label)
{
    return WORLD_STUB + (uint64_t)(label - host_world_stub_begin);
}

/* seccomp_data holds the address after the SYSCALL instruction. */

#define LOAD(field, plus) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + (plus))
#define ANSWER(action)    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_##action)
/* Skip the next n instructions unless the loaded word is k. */
#define UNLESS(k, n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(k), 0, n)
#define LOW(label)   ((uint32_t)host_world_stub_at(label))
#define STUB_HIGH    ((uint32_t)(WORLD_STUB >> 32))

/* Both tasks: what waits for the monitor waits until it answers. Forbids nothing; the two below do. */
WORLD_IN_CHILD unsigned host_world_filter_notify(struct sock_filter *to)
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

/* The runner: one call, from one instruction. All else becomes SIGSYS, hence an exit. */
unsigned host_world_filter_runner(struct sock_filter *to)
{
    const struct sock_filter code[] = {
        LOAD(instruction_pointer, 0),
        UNLESS(LOW(host_world_stub_handler_notify), 7),
        LOAD(instruction_pointer, 4),
        UNLESS(STUB_HIGH, 5),
        LOAD(arch, 0),
        UNLESS(AUDIT_ARCH_X86_64, 3),
        LOAD(nr, 0),
        UNLESS(SYS_pause, 1),
        ANSWER(ALLOW),
        ANSWER(TRAP),
    };
    memcpy(to, code, sizeof(code));
    return sizeof(code) / sizeof(code[0]);
}

/* The mapper: runs no guest code and obeys only the monitor. Should it ever do anything else, the world ends. */
unsigned host_world_filter_mapper(struct sock_filter *to)
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
