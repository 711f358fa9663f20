/* The report of a fault that is nobody's but ours, and the death that follows. */
#define _GNU_SOURCE
#include "host/host.h"
#include "entry.h"

#include <execinfo.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* A line under construction; printf is not allowed in a handler. */
struct line {
    char text[256];
    size_t len;
};

static void put(struct line *l, const char *s)
{
    while (*s && l->len < sizeof(l->text))
        l->text[l->len++] = *s++;
}

static void put_hex(struct line *l, uint64_t v, unsigned digits)
{
    char buf[17];
    for (unsigned i = 0; i < digits; i++)
        buf[i] = "0123456789abcdef"[(v >> (4 * (digits - 1 - i))) & 15];
    buf[digits] = '\0';
    put(l, buf);
}

static void put_decimal(struct line *l, unsigned v)
{
    char buf[12];
    char *p = buf + sizeof(buf) - 1;
    *p = '\0';
    do {
        *--p = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    put(l, p);
}

static void flush(struct line *l)
{
    put(l, "\n");
    ssize_t ignored = write(STDERR_FILENO, l->text, l->len);
    (void)ignored;
    l->len = 0;
}

static const struct {
    int signo;
    const char *name;
} signal_names[] = {
    {SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGILL, "SIGILL"}, {SIGFPE, "SIGFPE"}, {SIGTRAP, "SIGTRAP"},
};

static const struct {
    int index;
    const char *name;
} reg_names[] = {
    {REG_RAX, "rax"}, {REG_RBX, "rbx"}, {REG_RCX, "rcx"}, {REG_RDX, "rdx"}, {REG_RSI, "rsi"},
    {REG_RDI, "rdi"}, {REG_RBP, "rbp"}, {REG_RSP, "rsp"}, {REG_R8, "r8 "},  {REG_R9, "r9 "},
    {REG_R10, "r10"}, {REG_R11, "r11"}, {REG_R12, "r12"}, {REG_R13, "r13"}, {REG_R14, "r14"},
    {REG_R15, "r15"}, {REG_RIP, "rip"}, {REG_EFL, "efl"},
};

static void report_cause(int signo, const siginfo_t *info, const greg_t *regs, const char *why)
{
    struct line l = {.len = 0};
    put(&l, "ringlet: ");
    for (size_t i = 0; i < sizeof(signal_names) / sizeof(signal_names[0]); i++) {
        if (signal_names[i].signo == signo)
            put(&l, signal_names[i].name);
    }
    put(&l, ": ");
    put(&l, why);
    flush(&l);
    put(&l, "  at rip 0x");
    put_hex(&l, (uint64_t)regs[REG_RIP], 16);
    if (info->si_code > 0) {
        put(&l, ", address 0x");
        put_hex(&l, (uint64_t)(uintptr_t)info->si_addr, 16);
        put(&l, ", vector ");
        put_decimal(&l, (unsigned)regs[REG_TRAPNO]);
        put(&l, ", error code 0x");
        put_hex(&l, (uint64_t)regs[REG_ERR] & 0xffffffff, 8);
    } else {
        put(&l, ", sent by process ");
        put_decimal(&l, (unsigned)info->si_pid);
    }
    flush(&l);
}

static void report_registers(const greg_t *regs)
{
    struct line l = {.len = 0};
    for (size_t i = 0; i < sizeof(reg_names) / sizeof(reg_names[0]); i++) {
        put(&l, "  ");
        put(&l, reg_names[i].name);
        put(&l, " ");
        put_hex(&l, (uint64_t)regs[reg_names[i].index], 16);
        if (i % 3 == 2)
            flush(&l);
    }
}

static void set_default(int signo)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    sigaction(signo, &action, NULL);
}

void host_die_by(int signo)
{
    sigset_t set;
    set_default(signo);
    sigemptyset(&set);
    sigaddset(&set, signo);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), signo);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    _exit(128 + signo); /* not reached: the default action of every signal we pass terminates */
}

void host_crash(int signo, const siginfo_t *info, void *uc_, const char *why)
{
    const greg_t *regs = ((ucontext_t *)uc_)->uc_mcontext.gregs;
    void *frames[48];

    /* From here on a second fault (a stack too broken to walk) kills by default instead of recursing. */
    for (size_t i = 0; i < sizeof(signal_names) / sizeof(signal_names[0]); i++)
        set_default(signal_names[i].signo);
    host_term_restore();
    report_cause(signo, info, regs, why);
    report_registers(regs);
    struct line l = {.len = 0};
    put(&l, "  host backtrace (resolve with addr2line -e build/monitor/ringlet):");
    flush(&l);
    int n = backtrace(frames, (int)(sizeof(frames) / sizeof(frames[0])));
    backtrace_symbols_fd(frames, n, STDERR_FILENO);
    host_die_by(signo);
}
