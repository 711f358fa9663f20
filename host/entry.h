/* host-internal: signal entry, the crash report, and what the loop and the terminal need of them. */
#ifndef HOST_ENTRY_H
#define HOST_ENTRY_H

#include <signal.h>
#include <stdbool.h>
#include "host/host.h"

/* Kicks. Some real-time signal that neither glibc (SIGRTMIN and below) nor a debugger is likely to use. */
#define HOST_SIG_KICK (SIGRTMIN + 5)

/*
 * Defines name(signo, info, uc) and name_fs: entry points fit for sigaction that put straight what the interrupted code
 * may have left and the kernel does not, and call the C function target.
 *
 * RFLAGS.AC: the kernel clears DF and TF when it enters a handler, but leaves AC; a guest that sets it would make the
 * compiler's first unaligned access raise #AC.
 *
 * FS.base (name_fs, for hosts on which user code may change it): translated user code has a window there, whose low 32
 * bits are 0. C needs this thread's own, which is in the lowest word of the signal stack, found by its alignment; the
 * kernel neither saves nor restores it, so what was there is put back, or what target has stored at fs_base (NULL where
 * it is fixed) instead.
 */
#define HOST_SIGNAL_STACK 262144
#define HOST_STRING_(x)   #x
#define HOST_STRING(x)    HOST_STRING_(x)
#define HOST_SIGNAL_ENTRY(name, target)                                                                      \
    void name(int signo, siginfo_t *info, void *uc);                                                         \
    void name##_fs(int signo, siginfo_t *info, void *uc);                                                    \
    void target(int signo, siginfo_t *info, void *uc, uint64_t *fs_base);                                    \
    __asm__(".pushsection .text\n"                                                                           \
            ".type " #name ", @function\n" #name ":\n"                                                       \
            "    pushfq\n"                                                                                   \
            "    andl $~0x40000, (%rsp)\n"                                                                   \
            "    popfq\n"                                                                                    \
            "    xor %ecx, %ecx\n"                                                                           \
            "    jmp " #target "\n"                                                                          \
            ".size " #name ", . - " #name "\n"                                                               \
            ".type " #name "_fs, @function\n" #name "_fs:\n"                                                 \
            "    .cfi_startproc\n"                                                                           \
            "    pushfq\n"                                                                                   \
            "    andl $~0x40000, (%rsp)\n"                                                                   \
            "    popfq\n"                                                                                    \
            "    rdfsbase %rax\n"                                                                            \
            "    push %rax\n"                                                                                \
            "    .cfi_adjust_cfa_offset 8\n"                                                                 \
            "    test %eax, %eax\n"                                                                          \
            "    jnz 1f\n"                                                                                   \
            "    mov %rsp, %rax\n"                                                                           \
            "    and $-" HOST_STRING(HOST_SIGNAL_STACK) ", %rax\n"                                           \
                                                        "    mov (%rax), %rax\n"                             \
                                                        "    wrfsbase %rax\n"                                \
                                                        "1:  mov %rsp, %rcx\n"                               \
                                                        "    call " #target "\n"                             \
                                                        "    pop %rax\n"                                     \
                                                        "    .cfi_adjust_cfa_offset -8\n"                    \
                                                        "    wrfsbase %rax\n"                                \
                                                        "    ret\n"                                          \
                                                        "    .cfi_endproc\n"                                 \
                                                        ".size " #name "_fs, . - " #name "_fs\n"             \
                                                        ".popsection")

/* Of the two the one for this host. */
#define HOST_SIGNAL_FN(name) (host_has_fsgsbase() ? name##_fs : name)
bool host_has_fsgsbase(void);

typedef void (*host_signal_fn)(int signo, siginfo_t *info, void *uc);

/* Install fn for signo: on the alternate stack, other signals blocked. sync: signo is a CPU exception, which
 * must stay deliverable inside handlers (a blocked one kills the process without a word). */
void host_signal_install(int signo, host_signal_fn fn, bool sync);
/* The handlers of the CPU exceptions and of kicks. Idempotent; repeated because others (a test harness) may
 * have put theirs in place meanwhile. */
void host_signal_install_all(void);
void host_signal_install_kick(void);

/* Consume a kick of t that nobody has waited for yet. */
bool host_thread_take_kick(struct host_thread *t);

/* A kick of this thread, which was interrupted in uc: pass it on to the world it is inside of, if any. */
void host_world_kick_inside(ucontext_t *uc);
/* In case this thread was about to sleep until that world stops: it does not. */
void host_world_wake(ucontext_t *uc);

/* Print what happened, then die of signo by its default action. Async-signal-safe as far as backtrace() is.
 */
void host_crash(int signo, const siginfo_t *info, void *uc, const char *why) __attribute__((noreturn));
/* Die of signo as if no handler had ever been installed. */
void host_die_by(int signo) __attribute__((noreturn));

#endif
