/* Exceptions and interrupts: raising, delivery through the IDT, double and triple faults (chapter 6). */
#include "ring.h"

/* ---- Raising ---- */

enum rc_result rc_raise(struct rc_cpu *cpu, unsigned vector)
{
    struct rc_fault *f = &cpu->fault;
    f->vector = (uint8_t)vector;
    f->has_error = false;
    f->error = f->cr2 = f->dr6 = 0;
    return RC_FAULT;
}

enum rc_result rc_raise_error(struct rc_cpu *cpu, unsigned vector, uint32_t error)
{
    rc_raise(cpu, vector);
    cpu->fault.has_error = true;
    cpu->fault.error = error;
    return RC_FAULT;
}

enum rc_result rc_raise_pf(struct rc_cpu *cpu, const struct spt_info *info)
{
    rc_raise_error(cpu, RC_PFAULT, info->pfec);
    cpu->fault.cr2 = info->gva;
    return RC_FAULT;
}

/* ---- Through an interrupt or trap gate (6.12.1, 6.12.2; vol. 2 INT n) ---- */

/* The way in: everything that is decided before the first push. */
struct entry {
    struct rc_desc cs;
    uint16_t selector;
    uint32_t offset;
    bool is32, clears_if, inner;
    uint8_t cpl; /* of the handler */
    struct rc_inner_stack stack;
};

static enum rc_result check_gate_target(struct rc_cpu *cpu, const struct rc_event *e, struct entry *in)
{
    if (rc_is_null(in->selector))
        return rc_raise_error(cpu, RC_GP, e->ext);
    if (rc_desc_read(cpu, in->selector, RC_GP, e->ext, &in->cs) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(&in->cs), dpl = rc_attr_dpl(attr);
    if (!rc_attr_is_code(attr) || dpl > cpu->cpl)
        return rc_raise_selector(cpu, RC_GP, in->selector, e->ext);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_NP, in->selector, e->ext);
    in->cpl = attr & RC_ATTR_E ? cpu->cpl : (uint8_t)dpl;
    in->inner = in->cpl < cpu->cpl;
    /* Virtual-8086 code is left for ring 0 and nothing else (20.3.1.1). */
    if (rc_is_v86(cpu) && in->cpl != 0)
        return rc_raise_selector(cpu, RC_GP, in->selector, e->ext);
    return RC_OK;
}

static void build_frame(const struct rc_cpu *cpu, const struct rc_event *e, const struct entry *in,
                        struct rc_frame *f)
{
    rc_frame_init(f, in->is32 ? 4 : 2);
    if (in->inner) {
        if (RC_UNLIKELY(rc_is_v86(cpu))) {
            rc_frame_push(f, cpu->seg[RC_GS].selector);
            rc_frame_push(f, cpu->seg[RC_FS].selector);
            rc_frame_push(f, cpu->seg[RC_DS].selector);
            rc_frame_push(f, cpu->seg[RC_ES].selector);
        }
        rc_frame_push(f, cpu->seg[RC_SS].selector);
        rc_frame_push(f, cpu->gpr[RC_ESP]);
    }
    rc_frame_push(f, e->flags);
    rc_frame_push(f, cpu->seg[RC_CS].selector);
    rc_frame_push(f, e->return_eip);
    if (e->has_error)
        rc_frame_push(f, e->error);
}

static void enter_handler(struct rc_cpu *cpu, const struct entry *in, uint32_t low)
{
    const bool from_v86 = rc_is_v86(cpu);

    cpu->eflags &= ~(uint32_t)(RC_TF | RC_VM | RC_RF | RC_NT);
    if (in->clears_if)
        cpu->iflag = 0;
    cpu->cpl = in->cpl;
    if (in->inner)
        cpu->seg[RC_SS] = in->stack.seg;
    cpu->gpr[RC_ESP] = rc_stack_merge(&cpu->seg[RC_SS], in->inner ? in->stack.esp : cpu->gpr[RC_ESP], low);
    rc_seg_fill(cpu, RC_CS, (in->selector & ~3) | in->cpl, &in->cs);
    cpu->eip = in->offset;
    if (RC_UNLIKELY(from_v86)) {
        rc_seg_null(cpu, RC_ES, 0);
        rc_seg_null(cpu, RC_DS, 0);
        rc_seg_null(cpu, RC_FS, 0);
        rc_seg_null(cpu, RC_GS, 0);
    }
}

static enum rc_result deliver_interrupt_gate(struct rc_cpu *cpu, const struct rc_event *e,
                                             const struct rc_desc *gate)
{
    const unsigned type = rc_attr_type(rc_desc_attr(gate));
    struct entry in;
    struct rc_frame frame;

    in.is32 = type & RC_TYPE_IS32;
    in.clears_if = !(type & 1);
    in.selector = rc_gate_selector(gate);
    in.offset = rc_gate_offset(gate, in.is32);
    if (check_gate_target(cpu, e, &in) != RC_OK)
        return RC_FAULT;
    if (in.inner && rc_inner_stack_find(cpu, in.cpl, e->ext, &in.stack) != RC_OK)
        return RC_FAULT;

    const struct rc_seg *ss = in.inner ? &in.stack.seg : &cpu->seg[RC_SS];
    build_frame(cpu, e, &in, &frame);
    if (!rc_frame_place(&frame, ss, in.inner ? in.stack.esp : cpu->gpr[RC_ESP]))
        return rc_raise_selector(cpu, RC_SSF, in.inner ? in.stack.selector : 0, e->ext);
    if (in.offset > rc_desc_limit(&in.cs))
        return rc_raise_error(cpu, RC_GP, e->ext);
    if (rc_desc_mark_accessed(cpu, &in.cs) != RC_OK ||
        (in.inner && rc_desc_mark_accessed(cpu, &in.stack.desc) != RC_OK))
        return RC_FAULT;
    if (rc_frame_write(cpu, &frame, ss, rc_access(in.cpl)) != RC_OK)
        return RC_FAULT;
    enter_handler(cpu, &in, frame.low);
    return RC_OK;
}

/* ---- Through a task gate (6.12.2) ---- */

static enum rc_result push_task_error(struct rc_cpu *cpu, const struct rc_event *e)
{
    const unsigned size = cpu->seg[RC_TR].attr & RC_TYPE_IS32 ? 4 : 2;
    if (rc_push(cpu, e->error, size) == RC_OK)
        return RC_OK;
    if (cpu->fault.vector != RC_PFAULT)
        cpu->fault.error |= e->ext;
    return RC_FAULT;
}

static enum rc_result deliver_task_gate(struct rc_cpu *cpu, struct rc_event *e, const struct rc_desc *gate)
{
    struct rc_switch sw = {
        .kind = RC_SWITCH_EVENT,
        .selector = rc_gate_selector(gate),
        .ext = e->ext,
        .eip = e->return_eip,
        .flags = e->flags,
    };
    const enum rc_result r = rc_task_switch(cpu, &sw);
    e->switched = sw.committed;
    if (r != RC_OK)
        return RC_FAULT;
    if (e->has_error && push_task_error(cpu, e) != RC_OK)
        return RC_FAULT;
    if (sw.debug_trap) {
        rc_raise(cpu, RC_DB);
        cpu->fault.dr6 = 1 << 15; /* BT */
        rc_deliver_fault(cpu);
    }
    return RC_OK;
}

/* ---- The IDT ---- */

static enum rc_result deliver_protected(struct rc_cpu *cpu, struct rc_event *e)
{
    const uint32_t idt_error = e->vector * 8u + 2 + e->ext;
    struct rc_desc gate;

    if (e->vector * 8u + 7 > cpu->idtr.limit)
        return rc_raise_error(cpu, RC_GP, idt_error);
    if (rc_desc_read_at(cpu, cpu->idtr.base + e->vector * 8u, &gate) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(&gate), type = rc_attr_type(attr);
    const bool is_task = type == RC_TYPE_TASK;
    if (!is_task && (type & ~(unsigned)(RC_TYPE_IS32 | 1)) != RC_TYPE_INT16)
        return rc_raise_error(cpu, RC_GP, idt_error);
    if (e->software && rc_attr_dpl(attr) < cpu->cpl)
        return rc_raise_error(cpu, RC_GP, idt_error);
    if (!(attr & RC_ATTR_P))
        return rc_raise_error(cpu, RC_NP, idt_error);
    if (RC_UNLIKELY(is_task))
        return deliver_task_gate(cpu, e, &gate);
    return deliver_interrupt_gate(cpu, e, &gate);
}

/* Real mode: a table of far pointers, no error codes (20.1.4). */
static enum rc_result deliver_real(struct rc_cpu *cpu, const struct rc_event *e)
{
    const uint32_t at = cpu->idtr.base + e->vector * 4u;
    struct rc_frame frame;
    struct spt_info info;
    uint8_t vector[4];

    if (e->vector * 4u + 3 > cpu->idtr.limit)
        return rc_raise(cpu, RC_GP);
    if (!spt_read(cpu->spt, at, vector, 4, SPT_READ, &info))
        return rc_raise_pf(cpu, &info);
    rc_frame_init(&frame, 2);
    rc_frame_push(&frame, e->flags);
    rc_frame_push(&frame, cpu->seg[RC_CS].selector);
    rc_frame_push(&frame, e->return_eip);
    if (!rc_frame_place(&frame, &cpu->seg[RC_SS], cpu->gpr[RC_ESP]))
        return rc_raise(cpu, RC_SSF);
    if (rc_frame_write(cpu, &frame, &cpu->seg[RC_SS], 0) != RC_OK)
        return RC_FAULT;
    cpu->gpr[RC_ESP] = rc_stack_merge(&cpu->seg[RC_SS], cpu->gpr[RC_ESP], frame.low);
    cpu->eflags &= ~(uint32_t)(RC_TF | RC_RF | RC_AC);
    cpu->iflag = 0;
    rc_seg_real(cpu, RC_CS, rc_load16(vector + 2));
    cpu->eip = rc_load16(vector);
    return RC_OK;
}

static void trace_event(const struct rc_cpu *cpu, const struct rc_event *e)
{
    fprintf(cpu->trace, "%s %02x", e->software ? "int" : "event", e->vector);
    if (e->has_error)
        fprintf(cpu->trace, " error %08x", e->error);
    if (e->vector == RC_PFAULT && e->has_error)
        fprintf(cpu->trace, " cr2 %08x", cpu->cr2);
    fprintf(cpu->trace, " at %04x:%08x cpl %u esp %04x:%08x eflags %08x eax %08x\n", cpu->seg[RC_CS].selector,
            e->return_eip, cpu->cpl, cpu->seg[RC_SS].selector, cpu->gpr[RC_ESP], e->flags, cpu->gpr[RC_EAX]);
}

enum rc_result rc_general_deliver(struct rc_cpu *cpu, struct rc_event *e)
{
    return cpu->cr0 & RC_CR0_PE ? deliver_protected(cpu, e) : deliver_real(cpu, e);
}

enum rc_result rc_event_deliver(struct rc_cpu *cpu, struct rc_event *e)
{
    if (RC_UNLIKELY(cpu->trace != NULL))
        trace_event(cpu, e);
    const enum rc_result r = RC_LIKELY(rc_flat_deliver(cpu, e)) ? RC_OK : rc_general_deliver(cpu, e);
    if (RC_LIKELY(r == RC_OK)) {
        cpu->irq_shadow = 0;
        cpu->halted = 0;
    }
    return r;
}

/* ---- Faults: delivery and what happens when that fails (6.15, table 6-5) ---- */

/*T:550 When the handler cannot be reached
 *
 * Delivering an exception reads the IDT, a code descriptor, perhaps the TSS and a stack descriptor, and
 *writes a stack. Each of them can fault. Whether the new fault is simply delivered in its turn, or the two
 *become a double fault, depends on the pair: a page fault on the way to a page-fault handler can never get
 *better, but a page fault while delivering #GP can (the handler's stack may only be swapped out). The table
 *has three classes of exception. The third failure, on the way to the double-fault handler, is the end: the
 *CPU shuts down and waits for a reset, and the monitor reports a triple fault.
 *:*/
enum fault_class { BENIGN, CONTRIBUTORY, PAGE_FAULT };

static enum fault_class class_of(unsigned vector)
{
    switch (vector) {
    case RC_DE:
    case RC_TS:
    case RC_NP:
    case RC_SSF:
    case RC_GP:
        return CONTRIBUTORY;
    case RC_PFAULT:
        return PAGE_FAULT;
    default:
        return BENIGN;
    }
}

static bool is_double_fault(unsigned first, unsigned second)
{
    const enum fault_class a = class_of(first), b = class_of(second);
    return (a == CONTRIBUTORY && b == CONTRIBUTORY) || (a == PAGE_FAULT && b != BENIGN);
}

/* The saved EFLAGS has RF set for faults, so that IRET back to an instruction with a breakpoint on it
 * executes it (17.3.1.1); not for traps, aborts, and instruction breakpoints themselves. */
static bool saves_rf(const struct rc_fault *f)
{
    switch (f->vector) {
    case RC_DB:
        return f->dr6 & 1 << 13; /* general detect is a fault */
    case RC_NMI:
    case RC_BP:
    case RC_OF_TRAP:
    case RC_DF_ABORT:
    case RC_MC:
        return false;
    default:
        return true;
    }
}

/* What the CPU records when it recognizes the exception, delivered or not. */
static void recognize(struct rc_cpu *cpu, const struct rc_fault *f)
{
    if (f->vector == RC_PFAULT)
        cpu->cr2 = f->cr2;
    if (f->vector == RC_DB) {
        cpu->dr[6] |= f->dr6;
        cpu->dr[7] &= ~(UINT32_C(1) << 13); /* GD: the handler may use the debug registers */
    }
    if (f->vector < 32)
        cpu->exceptions[f->vector]++;
}

void rc_deliver_fault(struct rc_cpu *cpu)
{
    for (;;) {
        const struct rc_fault *f = &cpu->fault;
        const unsigned first = f->vector;
        recognize(cpu, f);
        struct rc_event e = {
            .vector = f->vector,
            .has_error = f->has_error,
            .ext = 1,
            .error = f->error,
            .return_eip = cpu->eip,
            .flags = rc_eflags(cpu) | (saves_rf(f) ? RC_RF : 0),
        };
        if (RC_LIKELY(rc_event_deliver(cpu, &e) == RC_OK))
            return;
        if (first == RC_DF_ABORT) {
            cpu->shutdown = 1;
            return;
        }
        if (is_double_fault(first, f->vector)) {
            recognize(cpu, f);
            rc_raise_error(cpu, RC_DF_ABORT, 0);
        }
    }
}

void rc_deliver_irq(struct rc_cpu *cpu, uint8_t vector)
{
    struct rc_event e = {
        .vector = vector,
        .ext = 1,
        .return_eip = cpu->eip,
        .flags = rc_eflags(cpu),
    };
    cpu->interrupts++;
    cpu->halted = 0;
    if (rc_event_deliver(cpu, &e) != RC_OK)
        rc_deliver_fault(cpu);
}

enum rc_result rc_software_int(struct rc_cpu *cpu, uint8_t vector, bool is_int_n, uint32_t return_eip)
{
    struct rc_event e = {
        .vector = vector,
        .software = true,
        .return_eip = return_eip,
        .flags = rc_eflags(cpu),
    };
    if (RC_UNLIKELY(is_int_n && rc_is_v86(cpu) && rc_iopl(cpu) < 3))
        return rc_raise_error(cpu, RC_GP, 0);

    cpu->software_ints++;
    if (!is_int_n && vector < 32)
        cpu->exceptions[vector]++;
    if (rc_event_deliver(cpu, &e) == RC_OK)
        return RC_OK;
    if (RC_LIKELY(!e.switched))
        return RC_FAULT;
    /* A task gate got as far as the new task: the fault is that task's, and the caller must not move EIP. */
    rc_deliver_fault(cpu);
    return RC_OK;
}
