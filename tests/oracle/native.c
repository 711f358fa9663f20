/*
 * The physical CPU: this process enters compatibility mode by a far return to the kernel's 32-bit user code segment and
 * runs the sequence there. Its memory is where the guests have theirs, mapped from a host_ram of its own, so that a
 * fault of the sequence is a signal of this process.
 *
 * In no other memory below 4 GiB is anything of ours but the page of state and the few instructions around the
 * sequence; a stray store that hits them has odds of one to a million per address made up by the dice.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include "oracle.h"

enum {
    HOME = 0x5a5c3000, /* of the code around the sequence */
    ENTRY64 = HOME,
    BACK64 = HOME + 0x200,
    ENTRY32 = HOME + 0x400,
    EXIT32 = HOME + 0x600,
    STATE = HOME + 0x1000,
    INNER_STACK = HOME + 0x2f00,
    HOME_SIZE = 0x3000,
    SEL32 = 0x23,
    SEL64 = 0x33,
    SELDATA = 0x2b,
    SELGS = 7, /* entry 0 of the LDT */
};

/* At STATE, addressed absolutely. */
struct state {
    uint32_t gpr[8], eflags, eip;
    uint64_t host_rsp;
    uint8_t fpu[4096 - 64] __attribute__((aligned(64)));
};

struct oracle_native {
    struct host_ram ram;
    struct state *s;
    struct oracle_result *r; /* of the run under way */
};

/* ---- the code around the sequence ---- */

struct asm32 {
    uint8_t *p;
};

static void put(struct asm32 *a, unsigned n, const uint8_t *b)
{
    memcpy(a->p, b, n);
    a->p += n;
}
#define PUT(a, ...) put(a, sizeof((uint8_t[]){__VA_ARGS__}), (uint8_t[]){__VA_ARGS__})
static void put32(struct asm32 *a, uint32_t v)
{
    put(a, 4, (uint8_t *)&v);
}

static uint32_t field(size_t off)
{
    return STATE + (uint32_t)off;
}
#define FIELD(f) field(offsetof(struct state, f))

static struct asm32 at(uint32_t address)
{
    return (struct asm32){(uint8_t *)(uintptr_t)address};
}

/* Registers by XSAVE where the host has it: XMM7 up and whatever else sequences must not change come back too. */
static void put_fpu(struct asm32 *a, bool save, bool xsave)
{
    if (xsave) /* mov eax, 7; xor edx, edx; xsave64 or xrstor64 */
        PUT(a, 0xb8, 7, 0, 0, 0, 0x31, 0xd2, 0x48, 0x0f, 0xae, save ? 0x24 : 0x2c, 0x25);
    else
        PUT(a, 0x48, 0x0f, 0xae, save ? 0x04 : 0x0c, 0x25);
    put32(a, FIELD(fpu));
}

static void put_host(bool xsave)
{
    struct asm32 a = at(ENTRY64);
    /* push rbx rbp r12-r15; mov [host_rsp], rsp */
    PUT(&a, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x89, 0x24, 0x25);
    put32(&a, FIELD(host_rsp));
    put_fpu(&a, false, xsave);
    PUT(&a, 0xb8, SELDATA, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0); /* mov eax; mov ds, eax; mov es, eax */
    PUT(&a, 0xb8, SELGS, 0, 0, 0, 0x8e, 0xe8);               /* mov eax; mov gs, eax */
    PUT(&a, 0x6a, SEL32, 0x68);                              /* push 23h, entry; lretq */
    put32(&a, ENTRY32);
    PUT(&a, 0x48, 0xcb);

    a = at(BACK64);
    put_fpu(&a, true, xsave);
    PUT(&a, 0x31, 0xc0, 0x8e, 0xe8, 0x8e, 0xd8, 0x8e, 0xc0, 0x48, 0x8b, 0x24,
        0x25); /* gs, ds, es = 0; mov rsp */
    put32(&a, FIELD(host_rsp));
    /* cld; fninit; push 1f80h; ldmxcsr [rsp]; pop rax; pop r15-r12 rbp rbx; ret */
    PUT(&a, 0xfc, 0xdb, 0xe3, 0x68, 0x80, 0x1f, 0, 0, 0x0f, 0xae, 0x14, 0x24, 0x58);
    PUT(&a, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
}

static void put_guest_side(void)
{
    struct asm32 a = at(ENTRY32);
    PUT(&a, 0xb8, SELDATA, 0, 0, 0, 0x8e, 0xd0, 0xbc); /* mov eax; mov ss, eax; mov esp */
    put32(&a, INNER_STACK);
    PUT(&a, 0xff, 0x35); /* push [eflags] */
    put32(&a, FIELD(eflags));
    PUT(&a, 0x9d); /* popfd */
    for (uint8_t r = 0; r < 8; r++) {
        PUT(&a, 0x8b, 5 | r << 3); /* mov r, [] */
        put32(&a, FIELD(gpr) + 4 * r);
    }
    PUT(&a, 0xff, 0x25); /* jmp [eip] */
    put32(&a, FIELD(eip));

    a = at(EXIT32);
    for (uint8_t r = 0; r < 8; r++) {
        PUT(&a, 0x89, 5 | r << 3);
        put32(&a, FIELD(gpr) + 4 * r);
    }
    PUT(&a, 0xbc);
    put32(&a, INNER_STACK);
    PUT(&a, 0x9c, 0x8f, 0x05); /* pushfd; pop [eflags] */
    put32(&a, FIELD(eflags));
    PUT(&a, 0xea); /* ljmp 33h:BACK64 */
    put32(&a, BACK64);
    PUT(&a, SEL64, 0);
}

static bool have_xsave(void)
{
    uint32_t a = 1, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return c >> 27 & 1; /* OSXSAVE */
}

/* ---- life ---- */

static int map_ram(struct oracle_native *n, uint32_t lin, uint32_t len, int prot, struct host_err *err)
{
    void *want = (void *)(uintptr_t)lin;
    if (mmap(want, len, prot, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_POPULATE, n->ram.fd, lin) != want)
        return host_fail(err, "the oracle's memory at %x is taken", lin);
    return 0;
}

static int map_all(struct oracle_native *n, struct host_err *err)
{
    static const int prot[] = {[ORACLE_RW] = PROT_READ | PROT_WRITE,
                               [ORACLE_RO] = PROT_READ,
                               [ORACLE_NONE] = -1,
                               [ORACLE_SUPERVISOR] = -1};
    void *home = mmap((void *)(uintptr_t)HOME, HOME_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
    if (home != (void *)(uintptr_t)HOME)
        return host_fail(err, "the oracle's memory at %x is taken", HOME);
    if (map_ram(n, ORACLE_CODE, ORACLE_CODE_SIZE, PROT_READ | PROT_EXEC, err) ||
        map_ram(n, ORACLE_EXIT, HOST_PAGE, PROT_READ | PROT_EXEC, err))
        return -1;
    for (unsigned p = 0; p < ORACLE_PAGES; p++)
        if (prot[oracle_page_kind(p)] >= 0 &&
            map_ram(n, ORACLE_DATA + p * HOST_PAGE, HOST_PAGE, prot[oracle_page_kind(p)], err))
            return -1;
    return 0;
}

static int set_gs(struct host_err *err)
{
    struct user_desc d = {.entry_number = 0,
                          .base_addr = ORACLE_DATA,
                          .limit = 0xfffff,
                          .seg_32bit = 1,
                          .limit_in_pages = 1,
                          .useable = 1};
    if (syscall(SYS_modify_ldt, 1, &d, sizeof d))
        return host_fail(err, "modify_ldt is refused: the oracle needs a segment of its own");
    return 0;
}

int oracle_native_create(struct oracle_native **out, struct host_err *err)
{
    struct oracle_native *n = calloc(1, sizeof *n);
    if (!n)
        return host_fail(err, "no memory");
    if (host_ram_init(&n->ram, ORACLE_RAM, err) || map_all(n, err) || set_gs(err))
        return -1;
    put_host(have_xsave());
    put_guest_side();
    memset(n->ram.base + ORACLE_CODE, 0xf4, ORACLE_CODE_SIZE);
    struct asm32 a = {n->ram.base + ORACLE_EXIT};
    PUT(&a, 0xe9); /* jmp */
    put32(&a, EXIT32 - (ORACLE_EXIT + 5));
    n->s = (struct state *)(uintptr_t)STATE;
    *out = n;
    return 0;
}

void oracle_native_destroy(struct oracle_native *n)
{
    munmap((void *)(uintptr_t)HOME, HOME_SIZE);
    munmap((void *)(uintptr_t)ORACLE_CODE, ORACLE_CODE_SIZE);
    munmap((void *)(uintptr_t)ORACLE_EXIT, HOST_PAGE);
    munmap((void *)(uintptr_t)ORACLE_DATA, ORACLE_DATA_SIZE);
    host_ram_finish(&n->ram);
    free(n);
}

struct host_ram *oracle_native_ram(struct oracle_native *n)
{
    return &n->ram;
}

/* ---- one case ---- */

/* A trap of the sequence: its registers are the result. Execution goes on behind the exit's own saves. */
bool oracle_native_trap(struct oracle_native *n, struct host_trap *t)
{
    static const int reg[8] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI};
    ucontext_t *uc = t->uc;
    greg_t *g = uc->uc_mcontext.gregs;
    struct oracle_result *r = n->r;
    if (!r || t->kind != HOST_TRAP_CPU || (uint16_t)g[REG_CSGSFS] != SEL32)
        return false;
    r->vector = t->vector;
    r->error = t->vector >= RC_TS && t->vector <= RC_PFAULT ? t->error : 0;
    r->cr2 = t->vector == RC_PFAULT ? (uint32_t)t->addr : 0;
    if (t->vector == RC_PFAULT && oracle_is_supervisor(r->cr2))
        r->error |= 1; /* the guests have a page there that is not theirs, this process has none */
    for (unsigned k = 0; k < 8; k++)
        n->s->gpr[k] = (uint32_t)g[reg[k]];
    n->s->eflags = (uint32_t)g[REG_EFL];
    r->eip = (uint32_t)g[REG_RIP];
    g[REG_RIP] = BACK64;
    g[REG_EFL] = 0x202;
    ((uint16_t *)&g[REG_CSGSFS])[0] = SEL64;
    return true;
}

void oracle_native_run(struct oracle_native *n, const struct oracle_case *c, struct oracle_result *r)
{
    struct state *s = n->s;
    memcpy(s->gpr, c->gpr, sizeof s->gpr);
    memset(s->fpu, 0, 1024);
    memcpy(s->fpu, c->fpu, ORACLE_FPU);
    s->eflags = c->eflags | 0x202;
    s->eip = c->eip;
    *r = (struct oracle_result){.vector = ORACLE_ENDED, .eip = ORACLE_EXIT + 2};
    n->r = r;
    ((void (*)(void))(uintptr_t)ENTRY64)();
    n->r = NULL;
    memcpy(r->gpr, s->gpr, sizeof r->gpr);
    memcpy(r->fpu, s->fpu, ORACLE_FPU);
    bt_xstate_complete(r->fpu);
    r->eflags = s->eflags;
}
