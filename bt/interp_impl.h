/*
 * Inside the interpreter: its instance, and the operand access every instruction family is built from.
 *
 * A handler executes one instruction. It finds cpu->eip at the instruction and in->next behind it, and
 * returns BT_STEP_OK (EIP becomes in->next), BT_STEP_FAULT with cpu->fault raised and nothing changed but
 * possibly ESP, which the caller restores, or another bt_step. Helpers return false when they raised a fault.
 */
#ifndef BT_INTERP_IMPL_H
#define BT_INTERP_IMPL_H

#include "interp.h"

#define BT_LIKELY(x)   __builtin_expect(!!(x), 1)
#define BT_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define BT_INLINE      static inline __attribute__((always_inline))

typedef enum bt_step (*bt_handler)(struct bt_interp *in, const struct bt_insn *i);

/* One decoded instruction of guest RAM. Valid while gen equals its page's generation. */
struct bt_cached {
    uint64_t gpa; /* UINT64_MAX: empty */
    uint32_t gen;
    bool big; /* CS.D it was decoded for */
    bt_handler handler;
    struct bt_insn insn;
};
enum { BT_CACHE_BITS = 14, BT_PAGE_GENS = 4096, BT_FETCH_SLOTS = 256 };

/* The interpreter's instruction TLB: what spt_fetch said, until bt_interp_fetch_gone. */
struct bt_fetch {
    uint32_t tag; /* linear page | generation << 2 | user << 1 | 1 */
    uint32_t *gen;
    uint64_t gpa;
};

/* A re-encoded x87, MMX, SSE or VEX-coded instruction, in slot n of the arena: 16 bytes. */
struct bt_thunk {
    uint8_t key[16];    /* canonical bytes; length in the last */
    bool reads, writes; /* its memory operand */
    bool mmx;           /* names an MMX register: waits for pending x87 exceptions */
    bool avx;           /* uses more of the vector registers than FXSAVE has */
};
enum { BT_THUNKS = 4096, BT_THUNK_BYTES = 16 };

/* What the assembly around a thunk shares with C; offsets are known to interp_thunk.c. */
struct bt_thunk_regs {
    void *fpu;        /*  0: XSAVE image; only its first 512 bytes when avx is 0 */
    void *mem;        /*  8: stands for the memory operand */
    void *code;       /* 16 */
    uint64_t rflags;  /* 24 */
    uint64_t gpr[8];  /* 32: enum rc_gpr */
    uint64_t faulted; /* 96 */
    uint64_t avx;     /* 104: by XSAVE and XRSTOR */
};

struct bt_fpu {
    struct host_arena arena;
    struct bt_thunk *thunk; /* BT_THUNKS */
    struct bt_thunk_regs regs;
    bool active; /* a thunk is running: traps inside the arena are its */
    unsigned vector;
    uint8_t buf[640] __attribute__((aligned(64)));
};

struct bt_interp {
    struct rc_cpu *cpu;
    struct bt_ops ops;
    uint32_t next;     /* EIP after the current instruction */
    bool careful;      /* alignment checks or data breakpoints: no fast memory path */
    bool single;       /* TF: string instructions stop after each iteration */
    bool no_trap;      /* MOV SS, INT n: no single-step trap after this instruction */
    bool keep_rf;      /* IRET loaded RF */
    bool after_mov_ss; /* irq_shadow comes from MOV SS: breakpoints are held back too */
    uint32_t db_hits;  /* DR6 bits of data breakpoints met */
    struct bt_decoder dec;
    struct bt_fetch fetch[BT_FETCH_SLOTS];
    uint32_t fetch_gen; /* 0 to 1023: the slots of another one are empty */
    uint32_t page_gen[BT_PAGE_GENS];
    struct bt_cached *cache;
    struct bt_insn scratch;
    struct bt_fpu fpu;
};

bt_handler bt_interp_lookup(const struct bt_insn *i);
enum bt_step bt_interp_fpu(struct bt_interp *in, const struct bt_insn *i);
int bt_interp_fpu_init(struct bt_interp *in, struct host_err *err);
void bt_interp_fpu_finish(struct bt_interp *in);

/* ---- Results ---- */
BT_INLINE enum bt_step bt_raise(struct bt_interp *in, unsigned vector)
{
    rc_raise(in->cpu, vector);
    return BT_STEP_FAULT;
}

BT_INLINE enum bt_step bt_raise0(struct bt_interp *in, unsigned vector)
{
    rc_raise_error(in->cpu, vector, 0);
    return BT_STEP_FAULT;
}

BT_INLINE enum bt_step bt_result(enum rc_result r)
{
    return r == RC_OK ? BT_STEP_OK : BT_STEP_FAULT;
}

/* After an rc_ function that sets CS:EIP. */
BT_INLINE enum bt_step bt_jumped(struct bt_interp *in, enum rc_result r)
{
    if (r != RC_OK)
        return BT_STEP_FAULT;
    in->next = in->cpu->eip;
    return BT_STEP_OK;
}

/* LDT, TR and their like exist in protected mode only; V86 mode is not that. */
BT_INLINE bool bt_protected(const struct bt_interp *in)
{
    return (in->cpu->cr0 & RC_CR0_PE) && !(in->cpu->eflags & RC_VM);
}

/* ---- Little-endian scalars in host memory ---- */
BT_INLINE uint32_t bt_load(const void *p, unsigned size)
{
    uint16_t h;
    uint32_t w;
    if (size == 1)
        return *(const uint8_t *)p;
    if (size == 2) {
        __builtin_memcpy(&h, p, 2);
        return h;
    }
    __builtin_memcpy(&w, p, 4);
    return w;
}

BT_INLINE void bt_store(void *p, unsigned size, uint32_t value)
{
    uint16_t h = (uint16_t)value;
    if (size == 1)
        *(uint8_t *)p = (uint8_t)value;
    else if (size == 2)
        __builtin_memcpy(p, &h, 2);
    else
        __builtin_memcpy(p, &value, 4);
}

/* ---- Registers: AH..BH are the second bytes of EAX..EBX ---- */
BT_INLINE void *bt_reg_ptr(struct bt_interp *in, unsigned n, unsigned size)
{
    if (size == 1)
        return (uint8_t *)&in->cpu->gpr[n & 3] + (n >> 2);
    return &in->cpu->gpr[n];
}

BT_INLINE uint32_t bt_reg(struct bt_interp *in, unsigned n, unsigned size)
{
    return bt_load(bt_reg_ptr(in, n, size), size);
}

BT_INLINE void bt_set_reg(struct bt_interp *in, unsigned n, unsigned size, uint32_t value)
{
    bt_store(bt_reg_ptr(in, n, size), size, value);
}

/* ---- Memory ---- */
BT_INLINE uint32_t bt_ea(const struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t a = (uint32_t)i->disp;
    if (i->base != BT_NOREG)
        a += in->cpu->gpr[i->base];
    if (i->index != BT_NOREG)
        a += in->cpu->gpr[i->index] * i->scale;
    return i->asz == 2 ? a & 0xffff : a;
}

/* Host address of [seg:off, +len), or NULL: take the checked door. */
BT_INLINE void *bt_fast(struct bt_interp *in, unsigned seg, uint32_t off, unsigned len, unsigned access)
{
    uint64_t soft = in->cpu->seg[seg].soft;
    if (BT_UNLIKELY(soft >> 32 || in->careful))
        return NULL;
    return spt_ptr(in->cpu->spt, (uint32_t)soft + off, len, access | (in->cpu->cpl == 3 ? SPT_USER : 0));
}

/* The doors, with alignment checks and data breakpoints (interp_memory.c). */
bool bt_read_bytes(struct bt_interp *in, unsigned seg, uint32_t off, void *buf, unsigned len);
bool bt_write_bytes(struct bt_interp *in, unsigned seg, uint32_t off, const void *buf, unsigned len);
/* Both a read and a write of this range will succeed. */
bool bt_check_rmw(struct bt_interp *in, unsigned seg, uint32_t off, unsigned len);
bool bt_read_slow(struct bt_interp *in, unsigned seg, uint32_t off, unsigned size, uint32_t *value);
bool bt_write_slow(struct bt_interp *in, unsigned seg, uint32_t off, unsigned size, uint32_t value);
bool bt_push_slow(struct bt_interp *in, uint32_t value, unsigned size);
bool bt_pop_slow(struct bt_interp *in, uint32_t *value, unsigned size);
void bt_watch_io(struct bt_interp *in, uint16_t port, unsigned size);

BT_INLINE bool bt_read(struct bt_interp *in, unsigned seg, uint32_t off, unsigned size, uint32_t *value)
{
    const void *p = bt_fast(in, seg, off, size, SPT_READ);
    if (BT_UNLIKELY(!p))
        return bt_read_slow(in, seg, off, size, value);
    *value = bt_load(p, size);
    return true;
}

BT_INLINE bool bt_write(struct bt_interp *in, unsigned seg, uint32_t off, unsigned size, uint32_t value)
{
    void *p = bt_fast(in, seg, off, size, SPT_WRITE);
    if (BT_UNLIKELY(!p))
        return bt_write_slow(in, seg, off, size, value);
    bt_store(p, size, value);
    return true;
}

/* ---- The ModRM operand ---- */
BT_INLINE bool bt_read_rm(struct bt_interp *in, const struct bt_insn *i, unsigned size, uint32_t *value)
{
    if (i->is_mem)
        return bt_read(in, i->seg, bt_ea(in, i), size, value);
    *value = bt_reg(in, i->rm, size);
    return true;
}

BT_INLINE bool bt_write_rm(struct bt_interp *in, const struct bt_insn *i, unsigned size, uint32_t value)
{
    if (i->is_mem)
        return bt_write(in, i->seg, bt_ea(in, i), size, value);
    bt_set_reg(in, i->rm, size, value);
    return true;
}

/* A read-modify-write operand: a register and RAM are host pointers alike; everything else goes through the
 * doors, checked for writing before it is read. Nothing may happen between open and close that could change
 * mappings. */
struct bt_rmw {
    void *p;
    uint32_t off;
    unsigned seg, size;
};

BT_INLINE bool bt_rmw_open_at(struct bt_interp *in, unsigned seg, uint32_t off, unsigned size,
                              struct bt_rmw *m, uint32_t *value)
{
    *m = (struct bt_rmw){bt_fast(in, seg, off, size, SPT_WRITE), off, seg, size};
    if (BT_UNLIKELY(!m->p))
        return bt_check_rmw(in, seg, off, size) && bt_read_slow(in, seg, off, size, value);
    *value = bt_load(m->p, size);
    return true;
}

BT_INLINE bool bt_rmw_open(struct bt_interp *in, const struct bt_insn *i, unsigned size, struct bt_rmw *m,
                           uint32_t *value)
{
    if (i->is_mem)
        return bt_rmw_open_at(in, i->seg, bt_ea(in, i), size, m, value);
    *m = (struct bt_rmw){.p = bt_reg_ptr(in, i->rm, size), .size = size};
    *value = bt_load(m->p, size);
    return true;
}

BT_INLINE bool bt_rmw_close(struct bt_interp *in, const struct bt_rmw *m, uint32_t value)
{
    if (BT_UNLIKELY(!m->p))
        return bt_write_slow(in, m->seg, m->off, m->size, value);
    bt_store(m->p, m->size, value);
    return true;
}

/* ---- The stack ---- */
BT_INLINE uint32_t bt_sp_mask(const struct bt_interp *in)
{
    return in->cpu->seg[RC_SS].attr & RC_ATTR_DB ? UINT32_MAX : 0xffff;
}

BT_INLINE void bt_set_sp(struct bt_interp *in, uint32_t value)
{
    uint32_t mask = bt_sp_mask(in);
    in->cpu->gpr[RC_ESP] = (in->cpu->gpr[RC_ESP] & ~mask) | (value & mask);
}

BT_INLINE bool bt_push(struct bt_interp *in, uint32_t value, unsigned size)
{
    uint32_t sp = in->cpu->gpr[RC_ESP] - size;
    void *p = in->cpu->seg[RC_SS].attr & RC_ATTR_DB ? bt_fast(in, RC_SS, sp, size, SPT_WRITE) : NULL;
    if (BT_UNLIKELY(!p))
        return bt_push_slow(in, value, size);
    bt_store(p, size, value);
    in->cpu->gpr[RC_ESP] = sp;
    return true;
}

BT_INLINE bool bt_pop(struct bt_interp *in, uint32_t *value, unsigned size)
{
    uint32_t sp = in->cpu->gpr[RC_ESP];
    const void *p = in->cpu->seg[RC_SS].attr & RC_ATTR_DB ? bt_fast(in, RC_SS, sp, size, SPT_READ) : NULL;
    if (BT_UNLIKELY(!p))
        return bt_pop_slow(in, value, size);
    *value = bt_load(p, size);
    in->cpu->gpr[RC_ESP] = sp + size;
    return true;
}

/* ---- Branches ---- */
/* Near transfer: 16-bit operands truncate, a target beyond CS' limit is #GP(0) of the branch (vol. 2 JMP). */
BT_INLINE enum bt_step bt_branch(struct bt_interp *in, uint32_t target, unsigned osz)
{
    if (osz == 2)
        target &= 0xffff;
    if (BT_UNLIKELY(target > in->cpu->seg[RC_CS].limit))
        return bt_raise0(in, RC_GP);
    in->next = target;
    return BT_STEP_OK;
}

#endif
