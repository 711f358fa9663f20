/* Gates and IRET between flat segments: what a kernel of today does at each system call and interrupt. */
#include "ring.h"

/*T:565 The same, for the case that is always the case
 *
 * The general ways through a gate and back (exceptions.c, iret.c) check descriptors of any kind. Kernels have four: code
 * and data of ring 0 and ring 3, flat, 32-bit, accessed. A descriptor is one of these if it is equal, but for one bit
 * that means nothing, to a constant; then all checks have passed and the hidden half of the segment register is known.
 * Whatever is not so, or lies across two pages, is left to the general way with nothing changed. A unit test goes both
 * ways from random states.
:*/
enum {
    CODE_LIKE =
        0x00cf9b00, /* upper half: base 0, limit 4 GiB, 32-bit, present, accessed; the DPL is or-ed in */
    DATA_LIKE = 0x00cf9300,
    AVAILABLE = 1 << 20,
    LOWER = 0xffff,
    GATE_KIND = 0x9e00, /* P, S, and the type but for interrupt or trap */
    GATE_32 = 0x8e00,
};

#define INLINE inline __attribute__((always_inline))

/* known: only what the software TLB holds. */
static INLINE uint8_t *door(struct rc_cpu *cpu, bool known, uint32_t gva, unsigned len, uint32_t access)
{
    return known ? spt_ptr_known(cpu->spt, gva, len, access) : spt_ptr(cpu->spt, gva, len, access);
}

/* The upper half of the descriptor of selector if it is `like`, of DPL equal to the selector's RPL, in the GDT; else 0. */
static INLINE uint32_t flat_descriptor(struct rc_cpu *cpu, bool known, uint32_t selector, uint32_t like)
{
    if (RC_UNLIKELY((selector & 4) || selector < 8 || (selector | 7) > cpu->gdtr.limit))
        return 0;
    const uint8_t *p = door(cpu, known, cpu->gdtr.base + (selector & 0xfff8), 8, SPT_READ);
    if (RC_UNLIKELY(!p || rc_load32(p) != LOWER))
        return 0;
    const uint32_t hi = rc_load32(p + 4);
    return (hi & ~(uint32_t)AVAILABLE) == (like | (selector & 3) << 13) ? hi : 0;
}

static inline void set_flat(struct rc_seg *s, uint32_t selector, uint32_t hi, uint64_t soft)
{
    s->base = 0;
    s->limit = UINT32_MAX;
    s->selector = (uint16_t)selector;
    s->attr = (uint16_t)(hi >> 8 & 0xf0ff);
    s->soft = soft;
}

static inline bool stack_is_flat(const struct rc_cpu *cpu)
{
    return rc_is_flat(&cpu->seg[RC_SS]) && !cpu->seg[RC_SS].base && (cpu->seg[RC_SS].attr & RC_ATTR_DB);
}

/* SS0 and ESP0 of a 32-bit TSS. */
static INLINE const uint8_t *inner_stack(struct rc_cpu *cpu, bool known)
{
    const struct rc_seg *tr = &cpu->seg[RC_TR];
    if (RC_UNLIKELY(!(tr->attr & RC_ATTR_P) || !(tr->attr & RC_TYPE_IS32) || tr->limit < 9))
        return NULL;
    return door(cpu, known, tr->base + 4, 6, SPT_READ);
}

/* Any base: a kernel's per-CPU segment, a program's thread-local one. D/B says nothing of data that is no stack and does not
 * expand down (3.4.5), and Linux leaves it clear in the former. */
static INLINE bool load(struct rc_cpu *cpu, bool known, unsigned seg, uint16_t selector)
{
    enum { BASE = 0xff0000ff, DPL = 3 << 13, BIG = 1 << 22 };
    if (RC_UNLIKELY((selector & 4) || selector < 8 || (selector | 7u) > cpu->gdtr.limit))
        return false;
    const uint8_t *p = door(cpu, known, cpu->gdtr.base + (selector & 0xfff8u), 8, SPT_READ);
    if (RC_UNLIKELY(!p))
        return false;
    const uint32_t lo = rc_load32(p), hi = rc_load32(p + 4), dpl = hi >> 13 & 3;
    if (RC_UNLIKELY((lo & LOWER) != LOWER ||
                    ((hi | BIG) & ~(uint32_t)(BASE | AVAILABLE | DPL)) != DATA_LIKE || dpl < cpu->cpl ||
                    dpl < (selector & 3u)))
        return false;
    struct rc_seg *s = &cpu->seg[seg];
    const uint32_t base = rc_desc_base(&(struct rc_desc){lo, hi, 0});
    set_flat(s, selector, hi, base);
    s->base = base;
    return true;
}

static INLINE bool deliver(struct rc_cpu *cpu, bool known, const struct rc_event *e)
{
    if (RC_UNLIKELY(!rc_is_protected(cpu) || e->vector * 8u + 7 > cpu->idtr.limit))
        return false;
    const uint8_t *gate = door(cpu, known, cpu->idtr.base + e->vector * 8u, 8, SPT_READ);
    if (RC_UNLIKELY(!gate))
        return false;
    const uint32_t lo = rc_load32(gate), hi = rc_load32(gate + 4), selector = lo >> 16;
    if (RC_UNLIKELY((hi & GATE_KIND) != GATE_32 || (e->software && (hi >> 13 & 3) < cpu->cpl) ||
                    (selector & 3)))
        return false;
    const uint32_t cs = flat_descriptor(cpu, known, selector, CODE_LIKE);
    if (RC_UNLIKELY(!cs))
        return false;

    uint32_t esp = cpu->gpr[RC_ESP], ss = 0, ss_selector = 0, bytes = 12 + 4u * e->has_error;
    if (cpu->cpl == 3) {
        const uint8_t *st = inner_stack(cpu, known);
        if (RC_UNLIKELY(!st))
            return false;
        esp = rc_load32(st);
        ss_selector = rc_load16(st + 4);
        ss = ss_selector & 3 ? 0 : flat_descriptor(cpu, known, ss_selector, DATA_LIKE);
        bytes += 8;
        if (RC_UNLIKELY(!ss))
            return false;
    } else if (RC_UNLIKELY(cpu->cpl || !stack_is_flat(cpu)))
        return false;
    uint8_t *frame = esp < bytes ? NULL : door(cpu, known, esp - bytes, bytes, SPT_WRITE);
    if (RC_UNLIKELY(!frame))
        return false;

    if (ss) {
        rc_store32(frame + bytes - 4, cpu->seg[RC_SS].selector);
        rc_store32(frame + bytes - 8, cpu->gpr[RC_ESP]);
        set_flat(&cpu->seg[RC_SS], ss_selector, ss, 0);
    }
    if (e->has_error) {
        rc_store32(frame, e->error);
        frame += 4;
    }
    rc_store32(frame, e->return_eip);
    rc_store32(frame + 4, cpu->seg[RC_CS].selector);
    rc_store32(frame + 8, e->flags);
    cpu->eflags &= ~(uint32_t)(RC_TF | RC_VM | RC_RF | RC_NT);
    if (!(hi & 1 << 8)) /* an interrupt gate */
        cpu->iflag = 0;
    cpu->cpl = 0;
    cpu->gpr[RC_ESP] = esp - bytes;
    set_flat(&cpu->seg[RC_CS], selector, cs, RC_SOFT_ODD << 32);
    cpu->eip = rc_gate_offset(&(struct rc_desc){lo, hi, 0}, true);
    return true;
}

/* From ring 0, with a frame of 32-bit words, to ring 0 or 3. */
static INLINE bool iret(struct rc_cpu *cpu, bool known)
{
    enum {
        KEPT = RC_VM,
        CHANGED = RC_ARITH | RC_TF | RC_DF | RC_NT | RC_RF | RC_AC | RC_ID | RC_IOPL | RC_VIF | RC_VIP
    };
    if (RC_UNLIKELY(!rc_is_protected(cpu) || (cpu->eflags & RC_NT) || cpu->cpl || !stack_is_flat(cpu)))
        return false;
    const uint32_t esp = cpu->gpr[RC_ESP];
    const uint8_t *frame = door(cpu, known, esp, 20, SPT_READ);
    if (RC_UNLIKELY(!frame || esp > UINT32_MAX - 20))
        return false;
    const uint32_t eip = rc_load32(frame), selector = rc_load32(frame + 4) & 0xffff,
                   flags = rc_load32(frame + 8);
    const uint32_t cs = flat_descriptor(cpu, known, selector, CODE_LIKE);
    if (RC_UNLIKELY(!cs || (flags & RC_VM)))
        return false;
    if (selector & 3) {
        const uint32_t ss_selector = rc_load16(frame + 16);
        const uint32_t ss = (selector & 3) == 3 && (ss_selector & 3) == 3
                                ? flat_descriptor(cpu, known, ss_selector, DATA_LIKE)
                                : 0;
        if (RC_UNLIKELY(!ss))
            return false;
        cpu->gpr[RC_ESP] = rc_load32(frame + 12);
        set_flat(&cpu->seg[RC_SS], ss_selector, ss, 0);
        cpu->cpl = 3;
        rc_seg_drop_inner(cpu);
    } else
        cpu->gpr[RC_ESP] = esp + 12;
    set_flat(&cpu->seg[RC_CS], selector, cs, RC_SOFT_ODD << 32);
    cpu->eip = eip;
    cpu->eflags = (cpu->eflags & KEPT) | (flags & CHANGED) | 2;
    cpu->iflag = flags >> 9 & 1;
    return true;
}

bool rc_flat_load(struct rc_cpu *cpu, unsigned seg, uint16_t selector)
{
    return load(cpu, false, seg, selector);
}

bool rc_flat_deliver(struct rc_cpu *cpu, const struct rc_event *e)
{
    return deliver(cpu, false, e);
}

bool rc_flat_iret(struct rc_cpu *cpu)
{
    return iret(cpu, false);
}

/* ---- Quick: without leaving general registers and plain memory ---- */

bool rc_quick_load(struct rc_cpu *cpu, unsigned seg, uint16_t selector)
{
    if (RC_UNLIKELY(!rc_is_protected(cpu)))
        return false;
    if (rc_is_null(selector)) {
        rc_seg_null(cpu, seg, selector);
        return true;
    }
    return load(cpu, true, seg, selector);
}

bool rc_quick_int(struct rc_cpu *cpu, uint8_t vector, uint32_t return_eip)
{
    const struct rc_event e = {
        .vector = vector, .software = true, .return_eip = return_eip, .flags = rc_eflags(cpu)};
    if (RC_UNLIKELY(cpu->trace != NULL) || !deliver(cpu, true, &e))
        return false;
    cpu->software_ints++;
    cpu->irq_shadow = 0;
    cpu->halted = 0;
    return true;
}

bool rc_quick_iret(struct rc_cpu *cpu)
{
    if (!iret(cpu, true))
        return false;
    cpu->irets++;
    return true;
}
