/* The interpreter against the physical CPU. The same 32-bit instruction with the same registers, flags, FPU
 * state and memory is executed by both: natively in compatibility mode, which an ordinary process enters by a
 * far return to the kernel's 32-bit user code segment. Undefined flags are compared too: translated code runs
 * on this very CPU. */
#define _GNU_SOURCE
#include "test_bt_interp_rig.h"
#include <sys/mman.h>
#include <ucontext.h>

enum {
    N_BASE = 0x1000000, /* where native memory is; the guest uses the same addresses */
    N_DATA = N_BASE,
    N_DATA_SIZE = 0x2000,
    N_STACK = N_BASE + 0x2000, /* top: + 0x1000 */
    N_COMPARED = 0x4000,
    N_CODE = N_BASE + 0x8000,
    N_ENTRY32 = N_BASE + 0x9000,
    N_EXIT32 = N_BASE + 0x9800,
    N_ENTER64 = N_BASE + 0xa000,
    N_BACK64 = N_BASE + 0xa800,
    N_STATE = N_BASE + 0xb000,
    N_INNER_STACK = N_BASE + 0xd000,
    N_SIZE = 0x10000,
    SEL32 = 0x23,
    SEL64 = 0x33,
    SELDATA = 0x2b,
    NO_TRAP = 255,
};

/* At N_STATE, addressed absolutely by the native code. */
struct native {
    uint32_t gpr[8], eflags, pad[7];
    uint64_t host_rsp, pad2[7];
    uint8_t fpu[512];
};

struct emit {
    uint8_t *p;
    uint32_t at;
};

static void put(struct emit *e, unsigned n, const uint8_t *b)
{
    memcpy(e->p + (e->at - N_BASE), b, n);
    e->at += n;
}
#define PUT(e, ...) put(e, sizeof((uint8_t[]){__VA_ARGS__}), (uint8_t[]){__VA_ARGS__})
static void put32(struct emit *e, uint32_t v)
{
    put(e, 4, (uint8_t *)&v);
}

static uint32_t field(size_t off)
{
    return N_STATE + (uint32_t)off;
}

static void emit_entry(struct emit *e)
{
    e->at = N_ENTRY32;
    PUT(e, 0x66, 0xb8, SELDATA, 0, 0x8e, 0xd8, 0x8e, 0xc0); /* mov ax; mov ds, ax; mov es, ax */
    PUT(e, 0xbc);                                           /* mov esp, */
    put32(e, N_INNER_STACK);
    PUT(e, 0x0f, 0xae, 0x0d); /* fxrstor */
    put32(e, field(offsetof(struct native, fpu)));
    PUT(e, 0xff, 0x35); /* push [eflags] */
    put32(e, field(offsetof(struct native, eflags)));
    PUT(e, 0x9d); /* popfd */
    for (uint8_t r = 0; r < 8; r++) {
        PUT(e, 0x8b, 5 | r << 3); /* mov r, [] */
        put32(e, field(4 * r));
    }
    PUT(e, 0xe9); /* jmp */
    put32(e, N_CODE - (e->at + 4));
}

static void emit_exit(struct emit *e)
{
    e->at = N_EXIT32;
    for (uint8_t r = 0; r < 8; r++) {
        PUT(e, 0x89, 5 | r << 3);
        put32(e, field(4 * r));
    }
    PUT(e, 0xbc);
    put32(e, N_INNER_STACK);
    PUT(e, 0x9c, 0x8f, 0x05); /* pushfd; pop [eflags] */
    put32(e, field(offsetof(struct native, eflags)));
    PUT(e, 0x0f, 0xae, 0x05); /* fxsave */
    put32(e, field(offsetof(struct native, fpu)));
    PUT(e, 0xea); /* ljmp 33: */
    put32(e, N_BACK64);
    PUT(e, SEL64, 0);
}

static void emit_host(struct emit *e)
{
    e->at = N_ENTER64; /* push rbx rbp r12-r15; mov [host_rsp], rsp; push 23, entry; retfq */
    PUT(e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x89, 0x24, 0x25);
    put32(e, field(offsetof(struct native, host_rsp)));
    PUT(e, 0x6a, SEL32, 0x68);
    put32(e, N_ENTRY32);
    PUT(e, 0x48, 0xcb);
    e->at = N_BACK64;
    PUT(e, 0x48, 0x8b, 0x24, 0x25);
    put32(e, field(offsetof(struct native, host_rsp)));
    PUT(e, 0xfc, 0xdb, 0xe3, 0x68, 0x80, 0x1f, 0, 0, 0x0f, 0xae, 0x14, 0x24, 0x58); /* cld; fninit; ldmxcsr */
    PUT(e, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
}

struct oracle {
    struct rig *r;
    uint8_t *base; /* native memory */
    struct native *n;
    unsigned native_vector;
    uint64_t rng;
    uint8_t code[16];
    unsigned len;
};
static struct oracle oracle; /* one per process: native memory has a fixed address */

static uint32_t rnd(void)
{
    oracle.rng ^= oracle.rng << 13;
    oracle.rng ^= oracle.rng >> 7;
    oracle.rng ^= oracle.rng << 17;
    return (uint32_t)(oracle.rng >> 16);
}

static uint32_t rnd_below(uint32_t n)
{
    return rnd() % n;
}

/* Values around which arithmetic is interesting, and any. */
static uint32_t rnd_value(void)
{
    static const uint32_t edge[] = {0,      1,      2,      0x7f,       0x80,      0xff,
                                    0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000};
    uint32_t v = edge[rnd_below(sizeof edge / sizeof edge[0])];
    switch (rnd_below(4)) {
    case 0:
        return v;
    case 1:
        return 0u - v;
    case 2:
        return v + rnd_below(16);
    default:
        return rnd();
    }
}

/* A trap of native 32-bit code: note it and go back. */
static bool native_trap(struct rig *r, struct host_trap *t)
{
    ucontext_t *uc = t->uc;
    uint64_t rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    (void)r;
    if (t->kind != HOST_TRAP_CPU || rip < N_BASE || rip >= N_BASE + N_SIZE)
        return false;
    oracle.native_vector = t->vector;
    uc->uc_mcontext.gregs[REG_RIP] = N_BACK64;
    uc->uc_mcontext.gregs[REG_EFL] = 0x202;
    ((uint16_t *)&uc->uc_mcontext.gregs[REG_CSGSFS])[0] = SEL64;
    return true;
}

static int oracle_setup(void **state)
{
    struct oracle *o = &oracle;
    o->r = rig_create();
    o->r->trap = native_trap;
    o->base = mmap((void *)(uintptr_t)N_BASE, N_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (o->base != (uint8_t *)(uintptr_t)N_BASE)
        return -1;
    struct emit e = {.p = o->base};
    emit_entry(&e);
    emit_exit(&e);
    emit_host(&e);
    o->n = (struct native *)(o->base + (N_STATE - N_BASE));
    *state = o;
    return 0;
}

static int oracle_teardown(void **state)
{
    (void)state;
    munmap(oracle.base, N_SIZE);
    rig_destroy(oracle.r);
    return 0;
}

/* Run oracle.code on the CPU from the state in cpu (and o->n->fpu). */
static void run_native(const struct rc_cpu *cpu)
{
    struct oracle *o = &oracle;
    struct emit e = {o->base, N_CODE};
    memcpy(o->n->gpr, cpu->gpr, sizeof o->n->gpr);
    o->n->eflags = (cpu->eflags & (RC_ARITH | RC_DF)) | 0x202;
    put(&e, o->len, o->code);
    PUT(&e, 0xe9);
    put32(&e, N_EXIT32 - (e.at + 4));
    o->native_vector = NO_TRAP;
    ((void (*)(void))(uintptr_t)N_ENTER64)();
}

static void fail_case(const char *what, const struct rc_cpu *before)
{
    struct oracle *o = &oracle;
    printf("%s differs:", what);
    for (unsigned k = 0; k < o->len; k++)
        printf(" %02x", o->code[k]);
    printf("\n  before");
    for (unsigned k = 0; k < 8; k++)
        printf(" %08x", before->gpr[k]);
    printf(" fl %08x\n  native", before->eflags);
    for (unsigned k = 0; k < 8; k++)
        printf(" %08x", o->n->gpr[k]);
    printf(" fl %08x vector %u\n  interp", o->n->eflags, o->native_vector);
    for (unsigned k = 0; k < 8; k++)
        printf(" %08x", o->r->cpu.gpr[k]);
    printf(" fl %08x vector %d\n", o->r->cpu.eflags, rig_vector(o->r));
    fail();
}

/* x87 pointers are nobody's business, and MXCSR_MASK is the model's. */
static bool same_fpu(const uint8_t *a, const uint8_t *b)
{
    if (memcmp(a, b, 5) || memcmp(a + 24, b + 24, 4) || memcmp(a + 160, b + 160, 128))
        return false;
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(a + 32 + 16 * n, b + 32 + 16 * n, 10))
            return false;
    return true;
}

/* Execute oracle.code by both from the rig's present state and compare everything. Returns false when both
 * trapped alike. ignore: flags the manual leaves open and no 64-bit code can produce. */
static bool run_case(uint32_t ignore)
{
    struct oracle *o = &oracle;
    struct rc_cpu *cpu = &o->r->cpu, before = *cpu;
    uint8_t *guest = o->r->ram.base + N_BASE;
    memcpy(guest, o->base, N_COMPARED);
    memcpy(guest + (N_CODE - N_BASE), o->code, o->len);
    bt_interp_code_write(o->r->in, N_CODE, 64);
    memcpy(o->n->fpu, cpu->fpu, 512);
    run_native(cpu);
    cpu->eip = N_CODE;
    enum bt_step step = bt_interp_step(o->r->in);
    if (step == BT_STEP_FAULT || o->native_vector != NO_TRAP) {
        unsigned vector = o->native_vector == NO_TRAP ? 256 : o->native_vector;
        if (step != BT_STEP_FAULT || rig_vector(o->r) != (int)vector)
            fail_case("outcome", &before);
        before.gpr[RC_ESP] = cpu->gpr[RC_ESP]; /* the frame */
        if (memcmp(before.gpr, cpu->gpr, sizeof before.gpr))
            fail_case("a faulting instruction's registers", &before);
        return false;
    }
    if (step != BT_STEP_OK || cpu->eip != N_CODE + o->len)
        fail_case("retirement", &before);
    if (memcmp(cpu->gpr, o->n->gpr, sizeof cpu->gpr))
        fail_case("a register", &before);
    if ((cpu->eflags ^ o->n->eflags) & (RC_ARITH | RC_DF) & ~ignore)
        fail_case("a flag", &before);
    if (memcmp(guest, o->base, N_COMPARED))
        fail_case("memory", &before);
    if (!same_fpu(cpu->fpu, o->n->fpu))
        fail_case("the FPU", &before);
    return true;
}

/* ---- Making instructions ---- */
static void code(unsigned n, const uint8_t *b)
{
    memcpy(oracle.code + oracle.len, b, n);
    oracle.len += n;
}
#define CODE(...) code(sizeof((uint8_t[]){__VA_ARGS__}), (uint8_t[]){__VA_ARGS__})
static void code32(uint32_t v)
{
    code(4, (uint8_t *)&v);
}

static void random_state(void)
{
    struct rc_cpu *cpu = &oracle.r->cpu;
    for (unsigned n = 0; n < 8; n++)
        cpu->gpr[n] = rnd_value();
    cpu->gpr[RC_ESP] = N_STACK + 0x800;
    cpu->eflags = (rnd() & (RC_ARITH | RC_DF)) | 2;
    oracle.len = 0;
    for (unsigned n = 0; n < 64; n++) {
        uint32_t v = rnd_value();
        memcpy(oracle.base + rnd_below(N_DATA_SIZE / 4) * 4, &v, 4);
    }
}

/* ModRM with a random register, or memory in the data area by one of four addressing forms. align: power of
 * two the operand is aligned to. */
static void random_modrm(unsigned reg, bool mem, unsigned align)
{
    uint32_t addr = N_DATA + 0x800 + (rnd_below(0x400) & ~(align - 1)), disp = rnd_below(256) & ~(align - 1);
    uint32_t *gpr = oracle.r->cpu.gpr;
    uint8_t r = (uint8_t)(reg << 3), base = (uint8_t)rnd_below(8);
    if (!mem) {
        CODE(0xc0 | r | (uint8_t)rnd_below(8));
        return;
    }
    if (base == RC_ESP || base == (reg & 7))
        base = (reg & 7) == RC_EBX ? RC_ESI : RC_EBX;
    switch (rnd_below(4)) {
    case 0: /* [disp32] */
        CODE(5 | r);
        code32(addr);
        break;
    case 1: /* [base+disp8] */
        gpr[base] = addr - (uint32_t)(int8_t)disp;
        CODE(0x40 | r | base, (uint8_t)disp);
        break;
    case 2: /* [base+disp32] */
        gpr[base] = addr - disp;
        CODE(0x80 | r | base);
        code32(disp);
        break;
    default: /* [index*4+disp32] */
        gpr[base] = disp / 4;
        CODE(4 | r, 0x85 | base << 3);
        code32(addr);
        break;
    }
}

enum {
    IMM8 = 1,
    IMMZ = 2, /* of the operand size */
    MODRM = 4,
    GROUP = 8,   /* reg is given */
    MEMORY = 16, /* never a register */
    REGISTER = 32,
    WIDE = 64,  /* takes an operand-size prefix */
    PAIR = 128, /* the odd opcode is the wide form, the even one of bytes */
    BITS = 256, /* the register is a bit offset: keep it in the data area */
    DIVIDE = 512,
    LOCKABLE = 1024, /* LOCK when memory */
};
struct form {
    uint8_t escape; /* 0, 0x0f, 0x38: 0F 38 */
    uint8_t prefix; /* mandatory or 0 */
    uint8_t first, last;
    int8_t reg_first, reg_last;
    uint16_t flags;
    uint32_t ignore;
};
enum { UNDEF_AAA = RC_OF | RC_SF | RC_ZF | RC_PF };
static const struct form forms[] = {
#define ALU(base, lock)                                                                                      \
    {0, 0, base, base + 1, 0, 7, MODRM | PAIR | (lock), 0},                                                  \
        {0, 0, base + 2, base + 3, 0, 7, MODRM | PAIR, 0}, {0, 0, base + 4, base + 4, 0, 0, IMM8, 0},        \
    {                                                                                                        \
        0, 0, base + 5, base + 5, 0, 0, IMMZ | WIDE, 0                                                       \
    }
    ALU(0x00, LOCKABLE),
    ALU(0x08, LOCKABLE),
    ALU(0x10, LOCKABLE),
    ALU(0x18, LOCKABLE),
    ALU(0x20, LOCKABLE),
    ALU(0x28, LOCKABLE),
    ALU(0x30, LOCKABLE),
    ALU(0x38, 0),
    {0, 0, 0x80, 0x80, 0, 7, MODRM | GROUP | IMM8, 0},
    {0, 0, 0x81, 0x81, 0, 7, MODRM | GROUP | IMMZ | WIDE, 0},
    {0, 0, 0x82, 0x82, 0, 7, MODRM | GROUP | IMM8, 0},
    {0, 0, 0x83, 0x83, 0, 7, MODRM | GROUP | IMM8 | WIDE, 0},
    {0, 0, 0x40, 0x4f, 0, 0, WIDE, 0},
    {0, 0, 0xfe, 0xff, 0, 1, MODRM | GROUP | PAIR | LOCKABLE, 0},
    {0, 0, 0xf6, 0xf6, 0, 1, MODRM | GROUP | IMM8, 0},
    {0, 0, 0xf7, 0xf7, 0, 1, MODRM | GROUP | IMMZ | WIDE, 0},
    {0, 0, 0xf6, 0xf7, 2, 3, MODRM | GROUP | PAIR | LOCKABLE, 0},
    {0, 0, 0xf6, 0xf7, 4, 5, MODRM | GROUP | PAIR, 0},
    {0, 0, 0xf6, 0xf7, 6, 7, MODRM | GROUP | PAIR | DIVIDE, 0},
    {0, 0, 0x84, 0x85, 0, 7, MODRM | PAIR, 0},
    {0, 0, 0xa8, 0xa8, 0, 0, IMM8, 0},
    {0, 0, 0xa9, 0xa9, 0, 0, IMMZ | WIDE, 0},
    {0, 0, 0x86, 0x87, 0, 7, MODRM | PAIR | LOCKABLE, 0},
    {0, 0, 0x88, 0x8b, 0, 7, MODRM | PAIR, 0},
    {0, 0, 0x8d, 0x8d, 0, 7, MODRM | WIDE | MEMORY, 0},
    {0, 0, 0x90, 0x97, 0, 0, WIDE, 0},
    {0, 0, 0x98, 0x99, 0, 0, WIDE, 0},
    {0, 0, 0x9e, 0x9f, 0, 0, 0, 0},
    {0, 0, 0xb0, 0xb7, 0, 0, IMM8, 0},
    {0, 0, 0xb8, 0xbf, 0, 0, IMMZ | WIDE, 0},
    {0, 0, 0xc0, 0xc1, 0, 7, MODRM | GROUP | IMM8 | PAIR, 0},
    {0, 0, 0xd0, 0xd3, 0, 7, MODRM | GROUP | PAIR, 0},
    {0, 0, 0xc6, 0xc6, 0, 0, MODRM | GROUP | IMM8, 0},
    {0, 0, 0xc7, 0xc7, 0, 0, MODRM | GROUP | IMMZ | WIDE, 0},
    {0, 0, 0x69, 0x69, 0, 7, MODRM | IMMZ | WIDE, 0},
    {0, 0, 0x6b, 0x6b, 0, 7, MODRM | IMM8 | WIDE, 0},
    {0, 0, 0x27, 0x27, 0, 0, 0, RC_OF},
    {0, 0, 0x2f, 0x2f, 0, 0, 0, RC_OF},
    {0, 0, 0x37, 0x37, 0, 0, 0, UNDEF_AAA},
    {0, 0, 0x3f, 0x3f, 0, 0, 0, UNDEF_AAA},
    {0, 0, 0xd4, 0xd5, 0, 0, IMM8, RC_OF | RC_AF | RC_CF},
    {0, 0, 0xd6, 0xd6, 0, 0, 0, 0},
    {0, 0, 0xf5, 0xf5, 0, 0, 0, 0},
    {0, 0, 0xf8, 0xf9, 0, 0, 0, 0},
    {0, 0, 0xfc, 0xfd, 0, 0, 0, 0},
    {0, 0, 0x50, 0x5f, 0, 0, WIDE, 0},
    {0, 0, 0x60, 0x61, 0, 0, WIDE, 0},
    {0, 0, 0x68, 0x68, 0, 0, IMMZ | WIDE, 0},
    {0, 0, 0x6a, 0x6a, 0, 0, IMM8 | WIDE, 0},
    {0, 0, 0x8f, 0x8f, 0, 0, MODRM | GROUP | WIDE, 0},
    {0, 0, 0xff, 0xff, 6, 6, MODRM | GROUP | WIDE, 0},
    {0x0f, 0, 0x1f, 0x1f, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0, 0x40, 0x4f, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0, 0x90, 0x9f, 0, 7, MODRM, 0},
    {0x0f, 0, 0xa3, 0xa3, 0, 7, MODRM | WIDE | BITS, 0},
    {0x0f, 0, 0xab, 0xab, 0, 7, MODRM | WIDE | BITS | LOCKABLE, 0},
    {0x0f, 0, 0xb3, 0xb3, 0, 7, MODRM | WIDE | BITS | LOCKABLE, 0},
    {0x0f, 0, 0xbb, 0xbb, 0, 7, MODRM | WIDE | BITS | LOCKABLE, 0},
    {0x0f, 0, 0xba, 0xba, 4, 7, MODRM | GROUP | WIDE | IMM8, 0},
    {0x0f, 0, 0xa4, 0xa4, 0, 7, MODRM | WIDE | IMM8, 0},
    {0x0f, 0, 0xac, 0xac, 0, 7, MODRM | WIDE | IMM8, 0},
    {0x0f, 0, 0xa5, 0xa5, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0, 0xad, 0xad, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0, 0xaf, 0xaf, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0, 0xb0, 0xb1, 0, 7, MODRM | PAIR | LOCKABLE, 0},
    {0x0f, 0, 0xb6, 0xb7, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0, 0xbe, 0xbf, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0, 0xbc, 0xbd, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0xf3, 0xbc, 0xbd, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0xf3, 0xb8, 0xb8, 0, 7, MODRM | WIDE, 0},
    {0x0f, 0, 0xc0, 0xc1, 0, 7, MODRM | PAIR | LOCKABLE, 0},
    {0x0f, 0, 0xc3, 0xc3, 0, 7, MODRM | MEMORY, 0},
    {0x0f, 0, 0xc7, 0xc7, 1, 1, MODRM | GROUP | MEMORY | LOCKABLE, 0},
    {0x0f, 0, 0xc8, 0xcf, 0, 0, WIDE, 0},
    {0x38, 0, 0xf0, 0xf1, 0, 7, MODRM | MEMORY | WIDE, 0},
    {0x38, 0xf2, 0xf0, 0xf1, 0, 7, MODRM | WIDE, 0},
    {0x38, 0x66, 0xf6, 0xf6, 0, 7, MODRM, 0},
    {0x38, 0xf3, 0xf6, 0xf6, 0, 7, MODRM, 0},
};

static void make_insn(const struct form *f)
{
    uint8_t op = (uint8_t)(f->first + rnd_below(f->last - f->first + 1u));
    unsigned reg = (unsigned)f->reg_first + rnd_below((unsigned)(f->reg_last - f->reg_first) + 1);
    bool mem = (f->flags & MEMORY) || (!(f->flags & REGISTER) && rnd_below(2));
    bool wide = (f->flags & WIDE) || ((f->flags & PAIR) && (op & 1)), half = wide && rnd_below(3) == 0;
    if ((f->flags & LOCKABLE) && mem && rnd_below(4) == 0)
        CODE(0xf0);
    if (half)
        CODE(0x66);
    if (f->prefix)
        CODE(f->prefix);
    if (f->escape)
        CODE(0x0f);
    if (f->escape == 0x38)
        CODE(0x38);
    CODE(op);
    if (f->flags & MODRM) {
        if (f->flags & BITS)
            oracle.r->cpu.gpr[reg] = (uint32_t)(int32_t)((int)rnd_below(8192) - 4096);
        random_modrm(reg, mem, 1);
    }
    if (f->flags & IMM8)
        CODE((uint8_t)rnd_value());
    if (f->flags & IMMZ) {
        uint32_t v = rnd_value();
        code(half ? 2 : 4, (uint8_t *)&v);
    }
}

static void test_integer(void **state)
{
    (void)state;
    rig_enter(oracle.r);
    unsigned done[sizeof forms / sizeof forms[0]] = {0};
    for (unsigned n = 0; n < 120000; n++) {
        unsigned k = n % (sizeof forms / sizeof forms[0]);
        const struct form *f = &forms[k];
        random_state();
        if ((f->flags & DIVIDE) && rnd_below(2)) {
            oracle.r->cpu.gpr[RC_EDX] = rnd_below(3) - 1;
            oracle.r->cpu.gpr[RC_EAX] &= rnd_below(2) ? 0xff : UINT32_MAX;
        }
        oracle.r->cpu.gpr[RC_EBP] = N_STACK + 0x900;
        make_insn(f);
        done[k] += run_case(f->ignore);
    }
    for (unsigned k = 0; k < sizeof done / sizeof done[0]; k++)
        assert_true(done[k] > 0); /* a row that only ever traps tests nothing */
}

static void test_strings(void **state)
{
    static const uint8_t ops[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
    (void)state;
    rig_enter(oracle.r);
    for (unsigned n = 0; n < 20000; n++) {
        struct rc_cpu *cpu = &oracle.r->cpu;
        random_state();
        cpu->gpr[RC_ESI] = N_DATA + 0x800 + rnd_below(0x900);
        cpu->gpr[RC_EDI] =
            rnd_below(2) ? N_DATA + 0x800 + rnd_below(0x900) : cpu->gpr[RC_ESI] + rnd_below(9) - 4;
        cpu->gpr[RC_ECX] = rnd_below(8) ? rnd_below(24) : rnd_below(400);
        if (rnd_below(2)) /* equal runs for the compares */
            memset(oracle.base + 0x700, 0, 0xa00), cpu->gpr[RC_EAX] = 0;
        if (rnd_below(3))
            CODE(rnd_below(3) ? 0xf3 : 0xf2);
        if (rnd_below(3) == 0)
            CODE(0x66);
        CODE(ops[rnd_below(sizeof ops)]);
        run_case(0);
    }
}

/* ENTER with nesting, LEAVE, XLAT, LOOP and JCXZ not taken, BOUND inside and outside. */
static void test_frames(void **state)
{
    (void)state;
    rig_enter(oracle.r);
    for (unsigned n = 0; n < 4000; n++) {
        struct rc_cpu *cpu = &oracle.r->cpu;
        random_state();
        cpu->gpr[RC_EBP] = N_STACK + 0x600 + rnd_below(0x100);
        switch (n % 4) {
        case 0:
            if (rnd_below(3) == 0) { /* 16-bit pushes read BP and write SP only */
                CODE(0x66);
            }
            CODE(0xc8, (uint8_t)rnd(), 0, (uint8_t)(rnd_below(8) + (rnd_below(8) == 0 ? 32 : 0)));
            break;
        case 1:
            CODE(0xc9);
            break;
        case 2:
            cpu->gpr[RC_EBX] = N_DATA + 0x900;
            CODE(0xd7);
            break;
        default: {
            int32_t bounds[2] = {-5, 100};
            memcpy(oracle.base + 0x900, bounds, 8);
            cpu->gpr[RC_EDX] = rnd_below(120) - 10;
            CODE(0x62, 0x15);
            code32(N_DATA + 0x900);
            break;
        }
        }
        run_case(0);
    }
}

/* Every addressing form of both sizes through LEA, which touches no memory. */
static void test_addressing(void **state)
{
    (void)state;
    rig_enter(oracle.r);
    for (unsigned n = 0; n < 20000; n++) {
        uint8_t modrm = (uint8_t)(n % 0xc0);
        struct bt_decoder d;
        struct bt_insn i;
        random_state();
        oracle.r->cpu.gpr[RC_ESP] = rnd_value();
        if (n & 1)
            CODE(0x67);
        if (rnd_below(4) == 0)
            CODE(0x66);
        CODE(0x8d, modrm, (uint8_t)rnd(), (uint8_t)rnd(), (uint8_t)rnd(), (uint8_t)rnd(), (uint8_t)rnd());
        bt_decoder_init(&d);
        assert_int_equal(bt_decode(&d, true, oracle.code, oracle.len, &i), BT_DECODE_OK);
        oracle.len = i.length;
        assert_true(run_case(0));
    }
}

/* ---- x87, MMX, SSE: every encoding the decoder accepts ---- */
static void random_fpu(void)
{
    uint8_t *fpu = oracle.r->cpu.fpu;
    for (unsigned n = 32; n < 288; n++)
        fpu[n] = (uint8_t)(rnd_below(6) ? rnd() : 0);
    for (unsigned n = 0; n < 8; n++) { /* mostly ordinary numbers in the x87 and XMM registers */
        if (rnd_below(4)) {
            uint64_t one = UINT64_C(0x8000000000000000) | (uint64_t)rnd() << 20;
            uint16_t exp = (uint16_t)(0x3ff0 + rnd_below(32));
            memcpy(fpu + 32 + 16 * n, &one, 8);
            memcpy(fpu + 40 + 16 * n, &exp, 2);
        }
        if (rnd_below(2)) {
            double d = (double)(int32_t)rnd() / 65536.0;
            float s = (float)(int32_t)rnd() / 65536.0f;
            memcpy(fpu + 160 + 16 * n, rnd_below(2) ? (void *)&d : (void *)&s, 4);
            memcpy(fpu + 160 + 16 * n, &d, rnd_below(2) ? 8 : 0);
        }
        for (unsigned k = 10; k < 16; k++)
            fpu[32 + 16 * n + k] = 0;
    }
    uint16_t fcw = (uint16_t)(0x7f & ~(rnd_below(4) ? 0 : rnd() & 0x3f)) | (uint16_t)(rnd_below(16) << 8);
    uint16_t fsw = (uint16_t)(rnd() & 0x7f00);
    uint32_t mxcsr = 0x1f80 | rnd_below(4) << 13 | (rnd_below(4) ? 0 : 0x8040);
    if (rnd_below(4) == 0)
        mxcsr &= ~(rnd() & 0x1f80);
    memcpy(fpu, &fcw, 2);
    memcpy(fpu + 2, &fsw, 2);
    fpu[4] = (uint8_t)(rnd_below(2) ? 0xff : rnd());
    memcpy(fpu + 24, &mxcsr, 4);
}

static bool wanted(const struct bt_insn *i)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE: /* pointers and mask differ by design: table cases have them */
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_XSAVE: /* the same, and random headers */
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_LDMXCSR: /* AMD's misaligned mode bit */
        return false;
    default:
        return i->class != BT_CLASS_INT;
    }
}

/* ran: which mnemonics retired */
static void fpu_case(const uint8_t *prefix, unsigned n_prefix, unsigned align, bool *ran)
{
    struct bt_decoder d;
    struct bt_insn i;
    random_state();
    random_fpu();
    code(n_prefix, prefix);
    random_modrm(rnd_below(8), rnd_below(2), align);
    oracle.r->cpu.gpr[RC_EDI] = N_DATA + 0xa00 + rnd_below(64);
    if (oracle.code[n_prefix] < 0xc0) { /* EDI may have been the base: address it absolutely */
        oracle.len = n_prefix;
        CODE((uint8_t)(5 | (oracle.code[n_prefix] & 0x38)));
        code32(N_DATA + 0x800 + (rnd_below(0x400) & ~(align - 1)));
    }
    CODE((uint8_t)rnd());
    bt_decoder_init(&d);
    if (bt_decode(&d, true, oracle.code, oracle.len, &i) != BT_DECODE_OK || !wanted(&i))
        return;
    oracle.len = i.length;
    ran[i.mnemonic] |= run_case(0);
}

static unsigned count(const bool *ran)
{
    unsigned n = 0;
    for (unsigned k = 0; k <= ZYDIS_MNEMONIC_MAX_VALUE; k++)
        n += ran[k];
    return n;
}

static void test_x87(void **state)
{
    static bool ran[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    (void)state;
    rig_enter(oracle.r);
    for (unsigned n = 0; n < 20000; n++) {
        uint8_t op = (uint8_t)(0xd8 + n % 8);
        fpu_case(&op, 1, rnd_below(2) ? 1 : 8, ran);
    }
    assert_true(count(ran) > 80);
}

static void test_sse(void **state)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    static bool ran[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    (void)state;
    rig_enter(oracle.r);
    for (unsigned n = 0; n < 80000; n++) {
        uint8_t b[4], p = prefixes[n % 4], map = (uint8_t)(n / 4 % 3);
        unsigned len = 0;
        if (p)
            b[len++] = p;
        b[len++] = 0x0f;
        if (map)
            b[len++] = map == 1 ? 0x38 : 0x3a;
        b[len++] = (uint8_t)rnd();
        if (!map && (b[len - 1] == 0x38 || b[len - 1] == 0x3a))
            continue;
        fpu_case(b, len, rnd_below(8) ? 16 : 1, ran);
    }
    assert_true(count(ran) > 240);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integer),    cmocka_unit_test(test_strings), cmocka_unit_test(test_frames),
        cmocka_unit_test(test_addressing), cmocka_unit_test(test_x87),     cmocka_unit_test(test_sse),
    };
    const char *seed = getenv("SEED");
    oracle.rng =
        seed ? strtoull(seed, NULL, 0) * UINT64_C(0x9e3779b97f4a7c15) + 1 : UINT64_C(0x2545f4914f6cdd1d);
    return cmocka_run_group_tests(tests, oracle_setup, oracle_teardown);
}
