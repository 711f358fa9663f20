/* A world's registers cross in the signal frame: the kernel writes it at an exit and restores from it at an entry. */
#define _GNU_SOURCE
#include "world.h"

#include <errno.h>
#include <linux/audit.h>
#include <stddef.h>
#include <string.h>

/* ---- Linux' x86-64 signal frame (arch/x86/include/uapi/asm/sigcontext.h, ucontext.h), and XSAVE's standard format. ---- */

struct frame {
    uint64_t return_address;
    uint64_t uc_flags, uc_link;
    uint64_t stack, stack_flags, stack_bytes;
    uint64_t r8_to_r15[8];
    uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
    uint16_t cs, gs, fs, ss;
    uint64_t error, trapno, oldmask, cr2;
    uint64_t fpu;
    uint64_t reserved[8];
    uint64_t mask;
    struct {
        int32_t signo, error, code, pad;
        uint64_t call_at;
        int32_t call;
        uint32_t arch;
        uint8_t rest[96];
    } info;
};
_Static_assert(offsetof(struct frame, r8_to_r15) == 48 && offsetof(struct frame, mask) == 304 &&
                   offsetof(struct frame, info) == 312 && sizeof(struct frame) == 440,
               "the kernel's layout");

#define FP_MAGIC1 0x46505853u
#define HOST_CS   0x33u /* Linux' __USER_CS: 64-bit code */

enum {
    FPU_MXCSR = 24,
    FPU_MXCSR_MASK = 28,
    FPU_SOFTWARE = 464, /* unused by the CPU: the kernel's magic, sizes and feature bits */
    FPU_HEADER = 512,   /* XSTATE_BV, XCOMP_BV, reserved */
    FPU_AVX = 576,
    FPU_AVX_BYTES = 256,
};
#define XSTATE_AVX   4u
#define XSTATE_GUEST 7u /* x87, SSE, AVX: the rest of the CPU's state is its initial one for the guest */

struct software {
    uint32_t magic1, extended_size;
    uint64_t xfeatures;
    uint32_t xstate_size, padding[7];
};

#define FLAGS_GUEST 0x244dd5u /* CF PF AF ZF SF TF DF OF NT AC ID */
#define FLAGS_FIXED 0x202u    /* bit 1, and the host's IF */

static uint64_t le64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof(v));
    return v;
}

static void put16(uint8_t *at, uint16_t v)
{
    memcpy(at, &v, sizeof(v));
}

static void put32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, sizeof(v));
}

static void put64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, sizeof(v));
}

static uint32_t default_mask(uint32_t mask)
{
    return mask ? mask : 0xffbf; /* SDM vol. 1 11.6.6: 0 means that DAZ is not there */
}

/*T:711 The kernel as a save area
 * Nothing in a world saves the guest's registers. When guest code traps, the kernel builds a signal frame on the alternate
 * stack, in memory that the monitor sees too: general registers, flags, CS and SS, and the whole XSAVE image. The
 * monitor reads the guest's state there. Only DS, ES, FS and GS are missing, for Linux has no use for them in 64-bit
 * processes; the handler stores them with four moves.
 *
 * The way back could be rt_sigreturn, which loads all of the frame in one step. But it is a system call, and it asks for
 * much that we do not need; half a microsecond is saved by a few instructions of the stub that load the registers from
 * the orders and end with IRETQ, for which a return from 64-bit to 32-bit code is no matter of privilege. And a system
 * call less is one that hostile code cannot forge a frame for: nothing in a world can block signals or move the
 * alternate stack.
 *
 * The handler never returns, hence signals are never blocked: a kick may arrive at each instruction of the stub. As long as
 * the handler has not been told to enter, its stack pointer is the guest's frame, and a kick's frame begins below. Then
 * it points into the orders, and a kick's frame begins where the guest's was. Two facts tell which it is: the monitor
 * marks the guest's frame as empty before each entry, and the kernel says which instruction a signal came at.
 *   - no signal in the frame at the top: nothing has run since (the stub was told to enter, and had not yet begun);
 *   - one that came at the stub's instructions for entering: nothing has run either (or at those before, of a new world's
 *     first entry, for where a frame begins was not known when its handler was called);
 *   - all else is guest code's state, no matter what is stored below.
 *
 * Guest code that has found its way into 64-bit mode can write to the frame. So everything read is copied and
 * then looked at, and what the CPU is to load comes from the orders, which the world cannot write.
 :*/
int host_world_frame_learn(struct host_world *w, struct host_err *err)
{
    struct world_frame_shape *shape = &w->shape;
    uint64_t at = le64(w->state + STATE_FRAME) - WORLD_STATE;
    struct frame f;
    struct software sw;

    if (at < STATE_STACK || at > STATE_STACK_END - sizeof(f))
        return host_fail(err, "world: no signal frame on the alternate stack");
    memcpy(&f, w->state + at, sizeof(f));
    uint64_t fpu = f.fpu - WORLD_STATE;
    if (f.info.signo != SIGILL || fpu < at || fpu > STATE_STACK_END - FPU_HEADER)
        return host_fail(err, "world: the signal frame does not look like Linux'");
    memcpy(&sw, w->state + fpu + FPU_SOFTWARE, sizeof(sw));
    if (sw.magic1 != FP_MAGIC1 || (sw.xfeatures & 3) != 3 || sw.xstate_size < FPU_AVX ||
        fpu + sw.xstate_size + 4 > STATE_STACK_END)
        return host_fail(err, "world: needs a CPU with XSAVE, and its use by the kernel");
    if ((sw.xfeatures & XSTATE_AVX) && sw.xstate_size < FPU_AVX + FPU_AVX_BYTES)
        return host_fail(err, "world: an XSAVE image of %u bytes has no room for AVX", sw.xstate_size);
    shape->frame = (uint32_t)at;
    shape->fpu = (uint32_t)fpu;
    shape->xfeatures = sw.xfeatures & XSTATE_GUEST;
    memcpy(&shape->mxcsr_mask, w->state + fpu + FPU_MXCSR_MASK, 4);
    shape->mxcsr_mask = default_mask(shape->mxcsr_mask);
    put64(w->orders + ENTER_FRAME, WORLD_STATE + at);
    return 0;
}

/* ---- Entry. ---- */

static void write_fpu(const struct host_world *w, const uint8_t *from)
{
    const struct world_frame_shape *shape = &w->shape;
    uint8_t *to = w->orders + ENTER_FPU;
    uint32_t mxcsr;

    memcpy(to, from, FPU_SOFTWARE);
    memcpy(&mxcsr, from + FPU_MXCSR, 4);
    put32(to + FPU_MXCSR, mxcsr & shape->mxcsr_mask);
    put64(to + FPU_HEADER, le64(from + FPU_HEADER) & shape->xfeatures);
    if (shape->xfeatures & XSTATE_AVX) /* even if it is not in use: what was here may be another program's */
        memcpy(to + FPU_AVX, from + FPU_AVX, FPU_AVX_BYTES);
}

uint64_t host_world_blocked_signals(void)
{
    static const int wanted[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, WORLD_SIG_KICK};
    uint64_t mask = ~UINT64_C(0);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        mask &= ~(UINT64_C(1) << (wanted[i] - 1));
    return mask;
}

/* No signal has come: an exit that leaves this 0 was none, or is a forged one. */
static void mark_empty(struct host_world *w)
{
    put32(w->state + w->shape.frame + offsetof(struct frame, info.signo), 0);
    put64(w->state + STATE_FRAME, 0); /* an old kick's frame may still be stored there */
    w->state[STATE_STORED] = 0;
}

void host_world_frame_write(struct host_world *w, const struct host_world_state *st, bool small_stack)
{
    static const uint8_t order[] = {0, 1, 2, 3, 5, 6, 7}; /* in which the orders list them: all but ESP */
    uint8_t *orders = w->orders;

    put64(orders + ENTER_PLAIN, FLAGS_FIXED);
    put64(orders + ENTER_RIP, st->eip);
    put64(orders + ENTER_CS, st->sel[1]);
    put64(orders + ENTER_FLAGS, (st->eflags & FLAGS_GUEST) | FLAGS_FIXED);
    put64(orders + ENTER_RSP, st->gpr[4]);
    put64(orders + ENTER_SS, st->sel[2]);
    for (unsigned i = 0; i < sizeof(order); i++)
        put32(orders + ENTER_EAX + 4 * i, st->gpr[order[i]]);
    put16(orders + ENTER_ES, st->sel[0]);
    put16(orders + ENTER_DS, st->sel[3]);
    put16(orders + ENTER_FS, st->sel[4]);
    put16(orders + ENTER_GS, st->sel[5]);
    put32(orders + ENTER_FAR, st->eip);
    put16(orders + ENTER_FAR + 4, st->sel[1]);
    orders[ENTER_SMALL] = small_stack;
    write_fpu(w, st->fpu);
    mark_empty(w);
}

/* ---- Exit. ---- */

static void read_fpu(const struct host_world *w, uint8_t *to)
{
    const struct world_frame_shape *shape = &w->shape;
    const uint8_t *from = w->state + shape->fpu;
    uint32_t mxcsr;

    memset(to + FPU_SOFTWARE, 0, HOST_WORLD_FPU_BYTES - FPU_SOFTWARE);
    memcpy(to, from, FPU_SOFTWARE);
    memcpy(&mxcsr, to + FPU_MXCSR, 4);
    put32(to + FPU_MXCSR, mxcsr & shape->mxcsr_mask);
    put32(to + FPU_MXCSR_MASK, shape->mxcsr_mask);
    put64(to + FPU_HEADER, le64(from + FPU_HEADER) & shape->xfeatures);
    if (le64(to + FPU_HEADER) & XSTATE_AVX)
        memcpy(to + FPU_AVX, from + FPU_AVX, FPU_AVX_BYTES);
}

static void read_registers(const struct frame *f, const uint16_t sel[4], struct host_world_state *st)
{
    const uint64_t gpr[8] = {f->rax, f->rcx, f->rdx, f->rbx, f->rsp, f->rbp, f->rsi, f->rdi};
    const uint16_t all[6] = {sel[0], f->cs, f->ss, sel[1], sel[2], sel[3]};

    for (unsigned i = 0; i < 8; i++)
        st->gpr[i] = (uint32_t)gpr[i];
    for (unsigned i = 0; i < 6; i++)
        st->sel[i] = all[i];
    st->eip = (uint32_t)f->rip;
    st->eflags = ((uint32_t)f->eflags & FLAGS_GUEST) | 2;
}

/* A selector of the LDT, or null where that is allowed. RPL is 0 to 3 in both. */
static bool ours(uint16_t sel, bool null_ok)
{
    return (sel & 4) != 0 || (null_ok && sel < 4);
}

static const char *wild(const struct frame *f, const struct host_world_state *st)
{
    if (f->info.signo == 0)
        return "stopped without a signal, or on the signal stack";
    if (f->cs == HOST_CS)
        return "64-bit code";
    if (!ours(f->cs, false))
        return "a host code segment; SYSENTER and SYSCALL do that";
    if (f->rip >> 32)
        return "an address above 4 GiB";
    for (unsigned i = 0; i < 6; i++)
        if (!ours(st->sel[i], i != 1 && i != 2))
            return "a host selector in a segment register";
    return NULL;
}

#define AUDIT_I386 (3u | __AUDIT_ARCH_LE) /* EM_386 */

/* The kernel saves the number of the thread's last exception, which need not be the reason of this signal. */
static unsigned vector_of(int signo, uint64_t trapno)
{
    static const struct {
        int signo;
        uint32_t vectors; /* those that Linux turns into it, arch/x86/kernel/traps.c and fault.c */
        unsigned otherwise;
    } rows[] = {
        {SIGSEGV, 1u << 4 | 1u << 5 | 1u << 9 | 1u << 10 | 1u << 13 | 1u << 14, 13},
        {SIGBUS, 1u << 11 | 1u << 12 | 1u << 17, 13},
        {SIGILL, 1u << 6, 6},
        {SIGFPE, 1u << 0 | 1u << 16 | 1u << 19, 16},
        {SIGTRAP, 1u << 1 | 1u << 3, 1},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].signo == signo)
            return trapno < 32 && (rows[i].vectors >> trapno & 1) ? (unsigned)trapno : rows[i].otherwise;
    return (unsigned)trapno;
}

static bool out_of_memory(const struct frame *f)
{
    int code = f->info.code;
    return f->info.signo == SIGBUS &&
           (code == BUS_ADRERR || code == BUS_OBJERR || code == BUS_MCEERR_AR || code == BUS_MCEERR_AO);
}

static void classify(const struct frame *f, struct host_world_state *st, struct host_world_exit *ex)
{
    ex->vector = vector_of(f->info.signo, f->trapno);
    ex->error = ex->vector == f->trapno ? (unsigned)f->error : 0;
    ex->addr = (uint32_t)f->cr2;
    ex->why = HOST_WORLD_TRAP;
    switch (f->info.signo) {
    case SIGSYS:
        ex->why = f->info.arch == AUDIT_I386 ? HOST_WORLD_SYSCALL : HOST_WORLD_WILD;
        /* An EAX that looks like an errno of the kernel's own (-512 to -516) made it prepare a restart of the call. */
        st->gpr[0] = (uint32_t)f->info.call;
        st->eip = (uint32_t)f->info.call_at;
        break;
    case SIGSEGV:
        if (ex->vector == 13 && ex->error == (0x80u << 3 | 2)) {
            /* A host without 32-bit system calls has no gate for them either. */
            ex->why = HOST_WORLD_SYSCALL;
            st->eip += 2;
        }
        break;
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
        break;
    default:
        ex->why = HOST_WORLD_KICK;
    }
    /* Sent with kill(2), by whomever: the saved vector is a left-over. */
    if (f->info.code <= 0)
        ex->why = HOST_WORLD_KICK;
}

/* Did this signal come there? Where an old one came may still be stored. */
static bool in_stub(const struct frame *f, const uint8_t *from, const uint8_t *to)
{
    return f->info.signo != 0 && f->cs == HOST_CS && f->rip >= host_world_stub_at(from) &&
           f->rip < host_world_stub_at(to);
}

/* Did a kick come after the handler was told to enter, and before it turned away from the guest's old frame? */
static bool stopped_before(const struct host_world *w, const struct frame *top, uint64_t at)
{
    struct frame inner;

    at -= WORLD_STATE;
    if (top->info.signo != 0 || at < STATE_STACK || at > STATE_STACK_END - sizeof(inner))
        return false;
    memcpy(&inner, w->state + at, sizeof(inner));
    return in_stub(&inner, host_world_stub_handler, host_world_stub_enter);
}

/* A signal while the stub loads the registers: a kick, or its last instruction refuses what a far jump would refuse, an
 * EIP beyond its segment's limit. */
static bool stopped_entering(const struct frame *f, struct host_world_exit *ex)
{
    struct host_world_state ignored = {0};
    bool last = (f->rip == host_world_stub_at(host_world_stub_iret) && f->rsp == WORLD_ORDERS + ENTER_RIP) ||
                f->rip == host_world_stub_at(host_world_stub_far);

    classify(f, &ignored, ex);
    return ex->why == HOST_WORLD_KICK || (last && ex->why == HOST_WORLD_TRAP && ex->vector == 13);
}

/* Then *st is what it was when the world was entered. */
static bool nothing_has_run(const struct host_world *w, const struct frame *f, struct host_world_exit *ex)
{
    return stopped_before(w, f, le64(w->state + STATE_FRAME)) ||
           (in_stub(f, host_world_stub_handler, host_world_stub_entered) && stopped_entering(f, ex));
}

void host_world_frame_read(struct host_world *w, struct host_world_state *st, struct host_world_exit *ex)
{
    struct frame f;
    uint16_t sel[4];

    ex->why = HOST_WORLD_KICK;
    memcpy(&f, w->state + w->shape.frame, sizeof(f));
    memcpy(sel, w->state + STATE_ES, sizeof(sel));
    if (out_of_memory(&f)) {
        host_world_died(w, "the host could not supply a page of memory");
        return;
    }
    if (nothing_has_run(w, &f, ex))
        return;
    read_registers(&f, sel, st);
    read_fpu(w, st->fpu);
    classify(&f, st, ex);
    const char *why = wild(&f, st);
    if (why) {
        ex->why = HOST_WORLD_WILD;
        strncpy(ex->text, why, sizeof(ex->text) - 1);
    } else if (ex->why == HOST_WORLD_WILD) {
        strcpy(ex->text, "a 64-bit system call");
    }
}
