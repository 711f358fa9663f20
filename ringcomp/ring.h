/*
 * ringcomp's own files among themselves: descriptors as memory holds them, events on their way to a handler,
 * stack frames, task switches. Nothing here is for other modules.
 *
 * Everything that runs at a guest system call or interrupt is called from translated code while the guest's
 * FPU and vector state is in the hardware registers. So the module is compiled for general registers only,
 * and small copies are written as loops or single loads: a libc memcpy would use vector registers.
 */
#ifndef RINGCOMP_RING_H
#define RINGCOMP_RING_H

#include "ringcomp/ringcomp.h"

#define RC_LIKELY(x)   __builtin_expect(!!(x), 1)
#define RC_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Guest structures lie at any alignment. */
struct rc_unaligned32 {
    uint32_t value;
} __attribute__((packed, may_alias));
struct rc_unaligned16 {
    uint16_t value;
} __attribute__((packed, may_alias));
static inline uint32_t rc_load32(const void *p)
{
    return ((const struct rc_unaligned32 *)p)->value;
}
static inline uint16_t rc_load16(const void *p)
{
    return ((const struct rc_unaligned16 *)p)->value;
}
static inline void rc_store32(void *p, uint32_t value)
{
    ((struct rc_unaligned32 *)p)->value = value;
}
static inline void rc_store16(void *p, uint16_t value)
{
    ((struct rc_unaligned16 *)p)->value = value;
}

/* ---- The state in short ---- */

static inline bool rc_is_protected(const struct rc_cpu *cpu) /* protected mode, and not virtual-8086 */
{
    return (cpu->cr0 & RC_CR0_PE) && !(cpu->eflags & RC_VM);
}
static inline bool rc_is_v86(const struct rc_cpu *cpu)
{
    return cpu->eflags & RC_VM;
}
static inline unsigned rc_iopl(const struct rc_cpu *cpu)
{
    return cpu->eflags >> 12 & 3;
}
/* How shadowpt's doors must see an access of this CPL. */
static inline uint32_t rc_access(unsigned cpl)
{
    return cpl == 3 ? SPT_USER : 0;
}
static inline bool rc_is_null(uint16_t selector)
{
    return !(selector & 0xfffc);
}
static inline bool rc_is_flat(const struct rc_seg *s)
{
    return !(s->soft >> 32);
}
/* The part of ESP the stack segment uses (SDM vol. 1, 6.2.3). */
static inline uint32_t rc_stack_mask(const struct rc_seg *ss)
{
    return ss->attr & RC_ATTR_DB ? UINT32_MAX : 0xffff;
}
static inline uint32_t rc_stack_merge(const struct rc_seg *ss, uint32_t old, uint32_t sp)
{
    const uint32_t mask = rc_stack_mask(ss);
    return (old & ~mask) | (sp & mask);
}

/* ---- Descriptors (3.4.5, 3.5) ---- */

struct rc_desc {
    uint32_t lo, hi;
    uint32_t lin; /* where it was read, to set its accessed or busy bit */
};

enum rc_system_type { /* with RC_ATTR_S clear (table 3-2) */
                      RC_TYPE_TSS16 = 1,
                      RC_TYPE_LDT = 2,
                      RC_TYPE_TSS16_BUSY = 3,
                      RC_TYPE_CALL16 = 4,
                      RC_TYPE_TASK = 5,
                      RC_TYPE_INT16 = 6,
                      RC_TYPE_TRAP16 = 7,
                      RC_TYPE_TSS32 = 9,
                      RC_TYPE_TSS32_BUSY = 11,
                      RC_TYPE_CALL32 = 12,
                      RC_TYPE_INT32 = 14,
                      RC_TYPE_TRAP32 = 15,
};
enum { RC_TYPE_BUSY = 2, RC_TYPE_IS32 = 8 };

static inline uint32_t rc_desc_base(const struct rc_desc *d)
{
    return d->lo >> 16 | (d->hi & 0xff) << 16 | (d->hi & 0xff000000);
}
static inline uint32_t rc_desc_limit(const struct rc_desc *d)
{
    const uint32_t raw = (d->lo & 0xffff) | (d->hi & 0xf0000);
    return d->hi >> 23 & 1 ? raw << 12 | 0xfff : raw;
}
static inline unsigned rc_desc_attr(const struct rc_desc *d)
{
    return d->hi >> 8 & 0xf0ff;
}
/* S and the type: an enum rc_system_type when it is a system descriptor. */
static inline unsigned rc_attr_type(unsigned attr)
{
    return attr & 0x1f;
}
static inline bool rc_attr_is_code(unsigned attr)
{
    return (attr & (RC_ATTR_S | RC_ATTR_CODE)) == (RC_ATTR_S | RC_ATTR_CODE);
}
static inline bool rc_attr_is_conforming(unsigned attr)
{
    return rc_attr_is_code(attr) && (attr & RC_ATTR_E);
}
static inline bool rc_attr_is_stack(unsigned attr) /* writable data */
{
    return (attr & (RC_ATTR_S | RC_ATTR_CODE | RC_ATTR_W)) == (RC_ATTR_S | RC_ATTR_W);
}
static inline bool rc_attr_is_readable(unsigned attr) /* data, or readable code */
{
    return (attr & RC_ATTR_S) && (attr & (RC_ATTR_CODE | RC_ATTR_W)) != RC_ATTR_CODE;
}

static inline uint16_t rc_gate_selector(const struct rc_desc *gate)
{
    return (uint16_t)(gate->lo >> 16);
}
static inline uint32_t rc_gate_offset(const struct rc_desc *gate, bool is32)
{
    return (gate->lo & 0xffff) | (is32 ? gate->hi & 0xffff0000 : 0);
}

/* Read the eight bytes at lin as the CPU does: supervisor, whatever the CPL. */
enum rc_result rc_desc_read_at(struct rc_cpu *cpu, uint32_t lin, struct rc_desc *d);
/* Read selector's descriptor from GDT or LDT; beyond the table: #vector(selector | ext). The caller has dealt
 * with null selectors. ext is 1 when the access is part of delivering an external event or exception. */
enum rc_result rc_desc_read(struct rc_cpu *cpu, uint16_t selector, unsigned vector, unsigned ext,
                            struct rc_desc *d);
/* Set the accessed bit of a code or data descriptor, in memory and in *d. */
enum rc_result rc_desc_mark_accessed(struct rc_cpu *cpu, struct rc_desc *d);

/* rc_raise_error with a selector error code (6.13). */
static inline enum rc_result rc_raise_selector(struct rc_cpu *cpu, unsigned vector, uint16_t selector,
                                               unsigned ext)
{
    return rc_raise_error(cpu, vector, (selector & 0xfffcu) | ext);
}

/* ---- Segment registers ---- */

void rc_seg_changed(struct rc_cpu *cpu, unsigned seg); /* base, limit or attr did: keep `soft` right */
void rc_seg_fill(struct rc_cpu *cpu, unsigned seg, uint16_t selector, const struct rc_desc *d);
void rc_seg_null(struct rc_cpu *cpu, unsigned seg, uint16_t selector);
void rc_seg_real(struct rc_cpu *cpu, unsigned seg, uint16_t selector); /* real and virtual-8086 mode */
void rc_seg_drop_inner(struct rc_cpu *cpu); /* a return to the current CPL: null what it must not see */
/* May [off, off+len) of s be accessed so? */
bool rc_seg_allows(const struct rc_seg *s, uint32_t off, unsigned len, bool write);

/* ---- Stack frames: several pushes that succeed or fail as one ---- */

enum { RC_FRAME_MAX = 36 }; /* call gate: SS, ESP, 31 parameters, CS, EIP */
struct rc_frame {
    unsigned count, size;        /* words pushed; bytes per word: 2 or 4 */
    uint32_t low;                /* offset of the last word pushed, set by place */
    bool wraps;                  /* crosses the end of the stack segment's offset space */
    uint32_t word[RC_FRAME_MAX]; /* in the order of the pushes */
};
static inline void rc_frame_init(struct rc_frame *f, unsigned size)
{
    f->count = 0;
    f->size = size;
}
static inline void rc_frame_push(struct rc_frame *f, uint32_t value)
{
    f->word[f->count++] = value;
}
/* Find the frame's place below esp; false when it does not fit within ss. */
bool rc_frame_place(struct rc_frame *f, const struct rc_seg *ss, uint32_t esp);
/* Write a placed frame; access as for spt_write. */
enum rc_result rc_frame_write(struct rc_cpu *cpu, const struct rc_frame *f, const struct rc_seg *ss,
                              uint32_t access);
/* Read count words of size bytes from the top of the current stack, starting skip bytes above ESP, into
 * words: #SS(0) beyond its limit. */
enum rc_result rc_stack_peek(struct rc_cpu *cpu, uint32_t skip, unsigned count, unsigned size,
                             uint32_t *words);

/* The stack for an inner ring, as the TSS names it (6.12.1, vol. 2 CALL and INT n), fully checked. */
struct rc_inner_stack {
    struct rc_seg seg; /* as rc_seg_fill would make it */
    struct rc_desc desc;
    uint16_t selector;
    uint32_t esp;
};
enum rc_result rc_inner_stack_find(struct rc_cpu *cpu, unsigned cpl, unsigned ext, struct rc_inner_stack *st);

/* What far returns and IRET demand of the CS image, and of the SS image when they go outwards to rpl. */
enum rc_result rc_return_check_cs(struct rc_cpu *cpu, uint16_t selector, struct rc_desc *cs);
enum rc_result rc_return_check_ss(struct rc_cpu *cpu, uint16_t selector, unsigned rpl, struct rc_desc *ss);

/* ---- Events ---- */

struct rc_event {
    uint8_t vector;
    bool software; /* INT n, INT3, INTO: the gate's DPL counts */
    bool has_error;
    bool switched; /* out: a task gate was taken so far that the new task is current */
    uint8_t ext;   /* error codes of faults on the way get EXT */
    uint32_t error;
    uint32_t return_eip;
    uint32_t flags; /* the EFLAGS image to save */
};
/* Deliver through IDT or IVT. A fault before the handler's first instruction is left in cpu->fault; cpu->eip
 * is then the EIP the *next* delivery must save (it changes when a task switch was half-way). */
enum rc_result rc_event_deliver(struct rc_cpu *cpu, struct rc_event *e);

/* flat.c: the same where everything is flat. False: nothing was changed, go the general way. */
bool rc_flat_deliver(struct rc_cpu *cpu, const struct rc_event *e);
bool rc_flat_iret(struct rc_cpu *cpu);
bool rc_flat_load(struct rc_cpu *cpu, unsigned seg, uint16_t selector); /* ES DS FS GS, protected mode */
/* Those ways, for the test that compares. */
enum rc_result rc_general_deliver(struct rc_cpu *cpu, struct rc_event *e);
enum rc_result rc_general_iret(struct rc_cpu *cpu, unsigned opsize, uint32_t next_eip);
enum rc_result rc_general_load(struct rc_cpu *cpu, unsigned seg, uint16_t selector);

/* ---- Task switches (7.3) ---- */

enum rc_switch_kind { RC_SWITCH_JMP, RC_SWITCH_CALL, RC_SWITCH_IRET, RC_SWITCH_EVENT };
struct rc_switch {
    enum rc_switch_kind kind;
    uint16_t selector; /* of the new TSS */
    unsigned ext;
    uint32_t eip, flags; /* to save in the old TSS */
    bool committed;      /* out: the new task is current; a fault belongs to it */
    bool debug_trap;     /* out: its T bit is set */
};
enum rc_result rc_task_switch(struct rc_cpu *cpu, struct rc_switch *sw);
/* The same for an instruction: faults of the new task and its debug trap are delivered here. */
enum rc_result rc_task_switch_by_insn(struct rc_cpu *cpu, enum rc_switch_kind kind, uint16_t selector,
                                      uint32_t eip);

/* ---- Registers ---- */

/* CR4.OSXSAVE or XCR0 changed. */
void rc_xstate_changed(struct rc_cpu *cpu);
/* Bits of XCR0 the model has. */
uint32_t rc_xcr0_known(const struct rc_cpu *cpu);
/* Tell shadowpt; pdpte NULL: as before. */
void rc_paging_changed(struct rc_cpu *cpu, const uint64_t pdpte[4]);
/* Load CR3: with PAE paging the PDPTEs too, #GP(0) when they are bad. */
enum rc_result rc_cr3_load(struct rc_cpu *cpu, uint32_t value);
void rc_fpu_init_x87(struct rc_cpu *cpu); /* FNINIT in cpu->fpu */
uint64_t rc_tsc(struct rc_cpu *cpu);
bool rc_vendor_is_amd(struct rc_cpu *cpu);
/* MTRRs and PAT: power-on, and as firmware leaves them. */
void rc_msr_reset(struct rc_cpu *cpu);
void rc_msr_firmware(struct rc_cpu *cpu);

/* ---- CPUID features by name ---- */
enum rc_cpuid_word {
    RC_F1_EDX,
    RC_F1_ECX,
    RC_F7_EBX,
    RC_F7_EDX,
    RC_FX_EDX,
    RC_FX_ECX,
    RC_FD_EAX,
    RC_F_WORDS
};
enum {
    RC_F1_EDX_FPU = 1 << 0,
    RC_F1_EDX_DE = 1 << 2,
    RC_F1_EDX_PSE = 1 << 3,
    RC_F1_EDX_TSC = 1 << 4,
    RC_F1_EDX_MSR = 1 << 5,
    RC_F1_EDX_PAE = 1 << 6,
    RC_F1_EDX_MCE = 1 << 7,
    RC_F1_EDX_SEP = 1 << 11,
    RC_F1_EDX_MTRR = 1 << 12,
    RC_F1_EDX_PGE = 1 << 13,
    RC_F1_EDX_PAT = 1 << 16,
    RC_F1_EDX_CLFLUSH = 1 << 19,
    RC_F1_EDX_FXSR = 1 << 24,
    RC_F1_EDX_SSE = 1 << 25,
    RC_F1_ECX_XSAVE = 1 << 26,
    RC_F1_ECX_OSXSAVE = 1 << 27,
    RC_F1_ECX_AVX = 1 << 28,
    RC_F7_EDX_SPEC_CTRL = 1 << 26,
    RC_F7_EDX_ARCH_CAP = 1 << 29,
    RC_FX_EDX_NX = 1 << 20,
};
#define RC_F1_ECX_HYPERVISOR UINT32_C(0x80000000)

#endif
