/* host-internal: signal entry, the crash report, and what the loop and the terminal need of them. */
#ifndef HOST_ENTRY_H
#define HOST_ENTRY_H

#include <signal.h>
#include <stdbool.h>
#include "host/host.h"

/* Kicks. Some real-time signal that neither glibc (SIGRTMIN and below) nor a debugger is likely to use. */
#define HOST_SIG_KICK (SIGRTMIN + 5)

/*
 * Defines name(signo, info, uc): an entry point fit for sigaction that clears RFLAGS.AC and continues in the
 * C function target. The kernel clears DF and TF when it enters a handler, but leaves AC as the interrupted
 * code had it; a guest that sets AC would otherwise make the compiler's first unaligned access in a handler
 * raise #AC.
 */
#define HOST_SIGNAL_ENTRY(name, target)                                                                      \
    void name(int signo, siginfo_t *info, void *uc);                                                         \
    void target(int signo, siginfo_t *info, void *uc);                                                       \
    __asm__(".pushsection .text\n"                                                                           \
            ".type " #name ", @function\n" #name ":\n"                                                       \
            "    pushfq\n"                                                                                   \
            "    andl $~0x40000, (%rsp)\n"                                                                   \
            "    popfq\n"                                                                                    \
            "    jmp " #target "\n"                                                                          \
            ".size " #name ", . - " #name "\n"                                                               \
            ".popsection")

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
