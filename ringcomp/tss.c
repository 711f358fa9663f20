/* Hardware task switches (chapter 7). */
#include "ring.h"

/* Where things lie in the two kinds of TSS (figures 7-2 and 7-10). The dynamic fields from EIP to the last
 * selector are contiguous, words of `width` bytes in the order EIP, EFLAGS, EAX..EDI, ES, CS, SS, DS[, FS,
 * GS]. */
struct tss_layout {
    unsigned min_limit, width, dynamic, segments, ldt, cr3, trap;
};
static const struct tss_layout layout16 = {0x2b, 2, 0x0e, 4, 0x2a, 0, 0};
static const struct tss_layout layout32 = {0x67, 4, 0x20, 6, 0x60, 0x1c, 0x64};
enum { TSS_MAX = 0x68, WORD_EIP = 0, WORD_FLAGS = 1, WORD_GPR = 2, WORD_SEG = 10, WORDS_MAX = 16 };

static const uint8_t segment_order[] = {RC_ES, RC_CS, RC_SS, RC_DS, RC_FS, RC_GS};

static const struct tss_layout *layout_of(unsigned attr)
{
    return attr & RC_TYPE_IS32 ? &layout32 : &layout16;
}
static unsigned dynamic_words(const struct tss_layout *l)
{
    return WORD_SEG + l->segments;
}
static uint32_t field_get(const struct tss_layout *l, const uint8_t *p)
{
    return l->width == 4 ? rc_load32(p) : rc_load16(p);
}

/* The incoming task as its TSS describes it. */
struct task {
    struct rc_desc desc;
    const struct tss_layout *layout;
    uint32_t word[WORDS_MAX];
    uint32_t cr3;
    uint16_t ldt;
    bool trap;
};

static enum rc_result raise_tss(struct rc_cpu *cpu, const struct rc_switch *sw, unsigned vector)
{
    return rc_raise_selector(cpu, vector, sw->selector, sw->ext);
}

/* ---- Before the point of no return ---- */

static enum rc_result check_descriptor(struct rc_cpu *cpu, const struct rc_switch *sw, struct task *t)
{
    const bool is_return = sw->kind == RC_SWITCH_IRET;
    const unsigned bad = is_return ? RC_TS : RC_GP;

    if (rc_is_null(sw->selector) || (sw->selector & 4))
        return raise_tss(cpu, sw, bad);
    if (rc_desc_read(cpu, sw->selector, bad, sw->ext, &t->desc) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(&t->desc);
    const unsigned wanted = is_return ? RC_TYPE_TSS16_BUSY : RC_TYPE_TSS16;
    if ((rc_attr_type(attr) & ~(unsigned)RC_TYPE_IS32) != wanted)
        return raise_tss(cpu, sw, bad);
    if (!(attr & RC_ATTR_P))
        return raise_tss(cpu, sw, RC_NP);
    t->layout = layout_of(attr);
    if (rc_desc_limit(&t->desc) < t->layout->min_limit)
        return raise_tss(cpu, sw, RC_TS);
    const struct rc_seg *tr = &cpu->seg[RC_TR];
    if (!(tr->attr & RC_ATTR_P) || tr->limit < layout_of(tr->attr)->min_limit)
        return rc_raise_selector(cpu, RC_TS, tr->selector, sw->ext);
    return RC_OK;
}

static enum rc_result read_task(struct rc_cpu *cpu, struct task *t)
{
    const struct tss_layout *l = t->layout;
    uint8_t image[TSS_MAX];
    struct spt_info info;

    if (!spt_read(cpu->spt, rc_desc_base(&t->desc), image, l->min_limit + 1, SPT_READ, &info))
        return rc_raise_pf(cpu, &info);
    for (unsigned i = 0; i < WORDS_MAX; i++)
        t->word[i] = i < dynamic_words(l) ? field_get(l, image + l->dynamic + i * l->width) : 0;
    t->cr3 = l->cr3 ? rc_load32(image + l->cr3) : cpu->cr3;
    t->ldt = rc_load16(image + l->ldt);
    t->trap = l->trap && (image[l->trap] & 1);
    return RC_OK;
}

static bool is_nesting(const struct rc_switch *sw)
{
    return sw->kind == RC_SWITCH_CALL || sw->kind == RC_SWITCH_EVENT;
}

static uint32_t current_descriptor(const struct rc_cpu *cpu)
{
    return cpu->gdtr.base + (cpu->seg[RC_TR].selector & 0xfff8u);
}

static enum rc_result probe(struct rc_cpu *cpu, uint32_t lin, unsigned len)
{
    struct spt_info info;
    return spt_probe_write(cpu->spt, lin, len, SPT_READ, &info) ? RC_OK : rc_raise_pf(cpu, &info);
}

/* Step 7.3 (4): everything the switch will write is there to be written. */
static enum rc_result probe_writes(struct rc_cpu *cpu, const struct rc_switch *sw, const struct task *t)
{
    const struct tss_layout *old = layout_of(cpu->seg[RC_TR].attr);
    if (probe(cpu, cpu->seg[RC_TR].base + old->dynamic, dynamic_words(old) * old->width) != RC_OK)
        return RC_FAULT;
    if (is_nesting(sw) && probe(cpu, rc_desc_base(&t->desc), 2) != RC_OK)
        return RC_FAULT;
    if (!is_nesting(sw) && probe(cpu, current_descriptor(cpu) + 4, 4) != RC_OK)
        return RC_FAULT;
    if (sw->kind != RC_SWITCH_IRET && probe(cpu, t->desc.lin + 4, 4) != RC_OK)
        return RC_FAULT;
    return RC_OK;
}

/* ---- The switch itself. Writes were probed; one that fails all the same (the structures overlap in ways
 * that take each other's pages away) is lost, as it would be on hardware. ---- */

static void poke(struct rc_cpu *cpu, uint32_t lin, const void *buf, unsigned len)
{
    struct spt_info info;
    (void)spt_write(cpu->spt, lin, buf, len, SPT_READ, &info);
}

static void set_busy(struct rc_cpu *cpu, uint32_t desc_lin, bool busy)
{
    struct spt_info info;
    uint8_t byte;
    if (!spt_read(cpu->spt, desc_lin + 5, &byte, 1, SPT_READ, &info))
        return;
    byte = (uint8_t)(busy ? byte | RC_TYPE_BUSY : byte & ~RC_TYPE_BUSY);
    poke(cpu, desc_lin + 5, &byte, 1);
}

static void save_task(struct rc_cpu *cpu, const struct rc_switch *sw)
{
    const struct tss_layout *l = layout_of(cpu->seg[RC_TR].attr);
    uint32_t word[WORDS_MAX];
    uint8_t image[WORDS_MAX * 4];

    word[WORD_EIP] = sw->eip;
    word[WORD_FLAGS] = sw->kind == RC_SWITCH_IRET ? sw->flags & ~(uint32_t)RC_NT : sw->flags;
    for (unsigned i = 0; i < 8; i++)
        word[WORD_GPR + i] = cpu->gpr[i];
    for (unsigned i = 0; i < l->segments; i++)
        word[WORD_SEG + i] = cpu->seg[segment_order[i]].selector;
    for (unsigned i = 0; i < dynamic_words(l); i++) {
        if (l->width == 4)
            rc_store32(image + 4 * i, word[i]);
        else
            rc_store16(image + 2 * i, (uint16_t)word[i]);
    }
    poke(cpu, cpu->seg[RC_TR].base + l->dynamic, image, dynamic_words(l) * l->width);
}

static void change_tr(struct rc_cpu *cpu, const struct rc_switch *sw, struct task *t)
{
    const uint16_t link = cpu->seg[RC_TR].selector;

    if (!is_nesting(sw))
        set_busy(cpu, current_descriptor(cpu), false);
    if (is_nesting(sw))
        poke(cpu, rc_desc_base(&t->desc), &link, 2);
    if (sw->kind != RC_SWITCH_IRET)
        set_busy(cpu, t->desc.lin, true);
    t->desc.hi |= RC_TYPE_BUSY << 8;
    rc_seg_fill(cpu, RC_TR, sw->selector, &t->desc);
}

/* The registers that need no descriptor. Selectors are loaded now, their hidden parts stay invalid until each
 * has been checked in the context of the new task. */
static void load_registers(struct rc_cpu *cpu, const struct rc_switch *sw, const struct task *t)
{
    cpu->cr0 |= RC_CR0_TS;
    cpu->dr[7] &= ~UINT32_C(0x155); /* L0-L3, LE */
    cpu->eip = t->word[WORD_EIP];
    rc_set_eflags(cpu, t->word[WORD_FLAGS] | (is_nesting(sw) ? RC_NT : 0));
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = t->word[WORD_GPR + i];
    for (unsigned i = 0; i < sizeof segment_order; i++)
        rc_seg_null(cpu, segment_order[i], (uint16_t)t->word[WORD_SEG + i]);
    rc_seg_null(cpu, RC_LDTR, t->ldt);
    cpu->cpl = rc_is_v86(cpu) ? 3 : cpu->seg[RC_CS].selector & 3;
}

/* ---- In the context of the new task (table 7-1, checks from the LDT on) ---- */

static enum rc_result load_ldt(struct rc_cpu *cpu, unsigned ext)
{
    const uint16_t selector = cpu->seg[RC_LDTR].selector;
    struct rc_desc d;

    if (rc_is_null(selector))
        return RC_OK;
    if (selector & 4)
        return rc_raise_selector(cpu, RC_TS, selector, ext);
    if (rc_desc_read(cpu, selector, RC_TS, ext, &d) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(&d);
    if (rc_attr_type(attr) != RC_TYPE_LDT || !(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_TS, selector, ext);
    rc_seg_fill(cpu, RC_LDTR, selector, &d);
    return RC_OK;
}

static enum rc_result load_checked(struct rc_cpu *cpu, unsigned seg, unsigned ext)
{
    const uint16_t selector = cpu->seg[seg].selector;
    const unsigned rpl = selector & 3, cpl = cpu->cpl;
    struct rc_desc d;
    bool allowed;

    if (rc_is_null(selector)) {
        if (seg != RC_CS && seg != RC_SS)
            return RC_OK;
        return rc_raise_selector(cpu, RC_TS, selector, ext);
    }
    if (rc_desc_read(cpu, selector, RC_TS, ext, &d) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(&d), dpl = rc_attr_dpl(attr);
    if (seg == RC_CS)
        allowed = rc_attr_is_code(attr) && (attr & RC_ATTR_E ? dpl <= rpl : dpl == rpl);
    else if (seg == RC_SS)
        allowed = rc_attr_is_stack(attr) && dpl == cpl && rpl == cpl;
    else
        allowed = rc_attr_is_readable(attr) && (rc_attr_is_conforming(attr) || (dpl >= cpl && dpl >= rpl));
    if (!allowed)
        return rc_raise_selector(cpu, RC_TS, selector, ext);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, seg == RC_SS ? RC_SSF : RC_NP, selector, ext);
    if (rc_desc_mark_accessed(cpu, &d) != RC_OK)
        return RC_FAULT;
    rc_seg_fill(cpu, seg, selector, &d);
    return RC_OK;
}

static enum rc_result load_segments(struct rc_cpu *cpu, unsigned ext)
{
    static const uint8_t check_order[] = {RC_CS, RC_SS, RC_ES, RC_DS, RC_FS, RC_GS};

    if (load_ldt(cpu, ext) != RC_OK)
        return RC_FAULT;
    for (unsigned i = 0; i < sizeof check_order; i++) {
        const unsigned seg = check_order[i];
        if (rc_is_v86(cpu))
            rc_seg_real(cpu, seg, cpu->seg[seg].selector);
        else if (load_checked(cpu, seg, ext) != RC_OK)
            return RC_FAULT;
    }
    return cpu->eip <= cpu->seg[RC_CS].limit ? RC_OK : rc_raise_error(cpu, RC_GP, ext);
}

/*T:570 A task switch has two halves
 *
 * A TSS descriptor can be jumped to, called, returned to or named by an interrupt; each time the CPU stores
 *all registers in one structure and loads them from another. No kernel of today does that in earnest, except
 * for one purpose: a double fault may mean that the kernel's stack is gone, and only a task gate brings a new
 * one with certainty. Linux and the BSDs on i386 still have exactly that gate.
 *
 * Up to a point every failure is the old task's: its state is intact and the exception is raised there.
 * After it the new task is current, and a segment of its that cannot be loaded is *its* exception, taken with
 * its registers at its EIP. So the result says which side of the line a fault lies on.
 *:*/
enum rc_result rc_task_switch(struct rc_cpu *cpu, struct rc_switch *sw)
{
    struct task t;

    if (check_descriptor(cpu, sw, &t) != RC_OK || read_task(cpu, &t) != RC_OK)
        return RC_FAULT;
    if (probe_writes(cpu, sw, &t) != RC_OK)
        return RC_FAULT;

    cpu->task_switches++;
    save_task(cpu, sw);
    change_tr(cpu, sw, &t);
    sw->committed = true;
    sw->debug_trap = t.trap;
    load_registers(cpu, sw, &t);
    if (t.layout->cr3 && (cpu->cr0 & RC_CR0_PG) && rc_cr3_load(cpu, t.cr3) != RC_OK)
        return RC_FAULT;
    return load_segments(cpu, sw->ext);
}

enum rc_result rc_task_switch_by_insn(struct rc_cpu *cpu, enum rc_switch_kind kind, uint16_t selector,
                                      uint32_t eip)
{
    struct rc_switch sw = {.kind = kind, .selector = selector, .eip = eip, .flags = rc_eflags(cpu)};

    if (rc_task_switch(cpu, &sw) != RC_OK) {
        if (!sw.committed)
            return RC_FAULT;
        rc_deliver_fault(cpu);
    } else if (sw.debug_trap) {
        rc_raise(cpu, RC_DB);
        cpu->fault.dr6 = 1 << 15; /* BT */
        rc_deliver_fault(cpu);
    }
    return RC_OK;
}
