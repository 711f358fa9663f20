/* Delivery of exceptions and interrupts: frames, error codes, double and triple faults (SDM vol. 3, chapter
 * 6). */
#include "test_ringcomp_rig.h"

#include <stdlib.h>

enum { INT32 = 0x8e, TRAP32 = 0x8f, INT16 = 0x86, DPL3 = 0x60, IRQ = 0x30 };

static void check_stack(const struct rig *r, uint32_t esp, const uint32_t *words, unsigned count)
{
    assert_int_equal(r->cpu.gpr[RC_ESP], esp);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(get32(r, esp + 4 * i), words[i]);
}

/* ---- Frames ---- */

static void irq_in_the_same_ring(void **state)
{
    struct rig *r = *state;
    idt(r, IRQ, KCODE, 0x12345678, INT32);
    rc_set_eflags(&r->cpu, RC_IF | RC_CF | RC_TF | RC_NT | RC_RF | RC_AC);
    r->cpu.halted = 1;
    r->cpu.irq_shadow = 1;
    rc_deliver_irq(&r->cpu, IRQ);
    assert_int_equal(r->cpu.irq_shadow, 0);
    check_stack(r, 0x8ff4, (uint32_t[]){0x7000, KCODE, 0x00054303}, 3);
    assert_int_equal(r->cpu.eip, 0x12345678);
    assert_int_equal(rc_eflags(&r->cpu), RC_CF | RC_AC | 2);
    assert_int_equal(r->cpu.halted, 0);
    assert_int_equal(r->cpu.interrupts, 1);
}

static void a_trap_gate_leaves_if(void **state)
{
    struct rig *r = *state;
    idt(r, IRQ, KCODE, 0x4000, TRAP32);
    rc_set_eflags(&r->cpu, RC_IF);
    rc_deliver_irq(&r->cpu, IRQ);
    assert_int_equal(r->cpu.iflag, 1);
}

static void irq_from_user_mode(void **state)
{
    struct rig *r = *state;
    idt(r, IRQ, KCODE, 0x4000, INT32);
    go_user(r);
    rc_set_eflags(&r->cpu, RC_IF);
    rc_deliver_irq(&r->cpu, IRQ);
    check_stack(r, KSTACK - 20, (uint32_t[]){0x7000, UCODE, 0x202, USTACK, UDATA}, 5);
    assert_int_equal(r->cpu.cpl, 0);
    assert_int_equal(r->cpu.seg[RC_CS].selector, KCODE);
    assert_int_equal(r->cpu.seg[RC_SS].selector, KDATA);
    assert_int_equal(r->cpu.seg[RC_SS].attr, 0xc093);
    assert_int_equal(r->cpu.seg[RC_DS].selector, UDATA); /* data segments stay */
}

static void an_inner_stack_page_is_a_supervisor_page(void **state)
{
    struct rig *r = *state;
    go_paged(r, 0);
    put32(r, PT + 4 * 9, 0x9000 | 3); /* page of KSTACK - 20: U = 0 */
    spt_invlpg(r->spt, 0x9000);
    go_user(r);
    rc_raise_error(&r->cpu, RC_GP, 0);
    rc_deliver_fault(&r->cpu);
    check_stack(r, KSTACK - 24, (uint32_t[]){0, 0x7000, UCODE, RC_RF | 2, USTACK, UDATA}, 6);
    assert_int_equal(r->cpu.eip, handler(RC_GP));
}

static void error_codes_and_rf(void **state)
{
    struct rig *r = *state;
    rc_raise_error(&r->cpu, RC_NP, 0x1234);
    rc_deliver_fault(&r->cpu);
    check_stack(r, 0x8ff0, (uint32_t[]){0x1234, 0x7000, KCODE, RC_RF | 2}, 4);
    assert_int_equal(r->cpu.exceptions[RC_NP], 1);
    assert_int_equal(r->cpu.eflags & RC_RF, 0);

    const struct spt_info info = {.gva = 0xdeadb000, .pfec = 6};
    r->cpu.gpr[RC_ESP] = 0x9000;
    r->cpu.eip = 0x7000;
    rc_raise_pf(&r->cpu, &info);
    assert_int_equal(r->cpu.cr2, 0); /* not before delivery */
    rc_deliver_fault(&r->cpu);
    check_stack(r, 0x8ff0, (uint32_t[]){6, 0x7000, KCODE, RC_RF | 2}, 4);
    assert_int_equal(r->cpu.cr2, 0xdeadb000);
}

static void debug_exceptions(void **state)
{
    struct rig *r = *state;
    r->cpu.dr[7] = 0x2400;
    rc_raise(&r->cpu, RC_DB);
    r->cpu.fault.dr6 = 1 << 14;
    rc_deliver_fault(&r->cpu);
    check_stack(r, 0x8ff4, (uint32_t[]){0x7000, KCODE, 2}, 3); /* a trap: RF as it was */
    assert_int_equal(r->cpu.dr[6], 0xffff4ff0);
    assert_int_equal(r->cpu.dr[7], 0x400); /* GD cleared */
    rc_raise(&r->cpu, RC_DB);
    r->cpu.fault.dr6 = 1 << 13; /* general detect: a fault */
    r->cpu.gpr[RC_ESP] = 0x9000;
    rc_deliver_fault(&r->cpu);
    assert_int_equal(get32(r, 0x8ffc), RC_RF | 2);
}

static void a_16_bit_gate(void **state)
{
    struct rig *r = *state;
    put_gate(r, IDT + 8 * RC_GP, KCODE, 0xabcd1234, INT16, 0);
    rc_raise_error(&r->cpu, RC_GP, 0x5678);
    rc_deliver_fault(&r->cpu);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x8ff8);
    assert_int_equal(get16(r, 0x8ff8), 0x5678);
    assert_int_equal(get16(r, 0x8ffa), 0x7000);
    assert_int_equal(get16(r, 0x8ffc), KCODE);
    assert_int_equal(get16(r, 0x8ffe), 2);
    assert_int_equal(r->cpu.eip, 0x1234); /* bits 31:16 of a 16-bit gate are not an offset */
}

static void a_16_bit_inner_stack_wraps(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0x10000, 0xffff, 0x93, G0);
    put32(r, TSS + 4, 0x00050008);
    put32(r, TSS + 8, SLOT);
    go_user(r);
    idt(r, IRQ, KCODE, 0x4000, INT32);
    rc_deliver_irq(&r->cpu, IRQ);
    /* Five doublewords from SP = 8 downwards: 4, 0, FFFC, FFF8, FFF4. ESP's upper half is the TSS'. */
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x0005fff4);
    assert_int_equal(get32(r, 0x10004), UDATA);
    assert_int_equal(get32(r, 0x10000), USTACK);
    assert_int_equal(get32(r, 0x1fff4), 0x7000);
}

static void a_wrapping_frame_is_probed_whole(void **state)
{
    struct rig *r = *state;
    go_paged(r, 0x1f000);
    gdt(r, SLOT, 0x10000, 0xffff, 0x93, G0);
    put32(r, TSS + 4, 8);
    put32(r, TSS + 8, SLOT);
    put32(r, 0x10000, 0x5a5a5a5a);
    go_user(r);
    idt(r, 0x80, KCODE, 0x4000, INT32 | DPL3);
    remember(r);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_PFAULT, SPT_WRITE);
    assert_int_equal(r->cpu.fault.cr2, 0x1fff4);
    assert_int_equal(get32(r, 0x10000), 0x5a5a5a5a); /* no half frame */
}

static void the_last_byte_of_a_segment_is_a_handler(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0, 0x4000, 0x9a, D32);
    idt(r, IRQ, SLOT, 0x4000, INT32);
    rc_deliver_irq(&r->cpu, IRQ);
    assert_int_equal(r->cpu.eip, 0x4000);
    assert_int_equal(access_byte(r, SLOT), 0x9b);
}

static void a_frame_across_two_pages(void **state)
{
    struct rig *r = *state;
    go_paged(r, 0);
    idt(r, IRQ, KCODE, 0x4000, INT32);
    r->cpu.gpr[RC_ESP] = 0x9006;
    rc_deliver_irq(&r->cpu, IRQ);
    check_stack(r, 0x8ffa, (uint32_t[]){0x7000, KCODE, 2}, 3);
}

static void conforming_handler_stays_in_ring_3(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0, FLAT_LIMIT, 0x9e, G32);
    idt(r, IRQ, SLOT, 0x4000, INT32);
    go_user(r);
    rc_deliver_irq(&r->cpu, IRQ);
    assert_int_equal(r->cpu.cpl, 3);
    assert_int_equal(r->cpu.seg[RC_CS].selector, SLOT | 3);
    check_stack(r, USTACK - 12, (uint32_t[]){0x7000, UCODE, 2}, 3);
    assert_int_equal(access_byte(r, SLOT), 0x9f);
}

/* ---- INT n and its refusals ---- */

static void int_n_from_user_mode(void **state)
{
    struct rig *r = *state;
    idt(r, 0x80, KCODE, 0x4000, TRAP32 | DPL3);
    go_user(r);
    rc_set_eflags(&r->cpu, RC_IF);
    assert_int_equal(rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_OK);
    check_stack(r, KSTACK - 20, (uint32_t[]){0x7002, UCODE, 0x202, USTACK, UDATA}, 5);
    assert_int_equal(r->cpu.software_ints, 1);
    assert_int_equal(r->cpu.iflag, 1);
}

static void int_n_refused(void **state)
{
    struct rig *r = *state;
    go_user(r);
    remember(r);
    /* Gate DPL, for INT n, INT3 and INTO alike; EXT is clear in all of these. */
    check_fault(r, rc_software_int(&r->cpu, RC_GP, true, 0x7002), RC_GP, RC_GP * 8 + 2);
    check_fault(r, rc_software_int(&r->cpu, RC_BP, false, 0x7001), RC_GP, RC_BP * 8 + 2);
    check_fault(r, rc_software_int(&r->cpu, RC_OF_TRAP, false, 0x7001), RC_GP, RC_OF_TRAP * 8 + 2);
    idt(r, 0x80, KCODE, 0, 0x6e); /* not present, DPL 3 */
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_NP, 0x80 * 8 + 2);
    idt(r, 0x80, KCODE, 0, 0x0e); /* not present, DPL 0: privilege first */
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_GP, 0x80 * 8 + 2);
    for (unsigned type = 0; type < 32; type++) {
        if (type == 5 || type == 6 || type == 7 || type == 14 || type == 15)
            continue;
        idt(r, 0x80, KCODE, 0, (uint8_t)(0xe0 | type));
        check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_GP, 0x80 * 8 + 2);
    }
    r->cpu.idtr.limit = 0x80 * 8 + 6;
    remember(r);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_GP, 0x80 * 8 + 2);
    r->cpu.idtr.limit++;
    idt(r, 0x80, KCODE, 0x4000, INT32 | DPL3);
    assert_int_equal(rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_OK);
}

struct target_case {
    const char *what;
    uint16_t selector;
    uint8_t access;
    unsigned vector;
    uint32_t error;
};
static const struct target_case target_cases[] = {
    {"null", 0, 0x9a, RC_GP, 0},
    {"beyond the GDT", 0x100, 0x9a, RC_GP, 0x100},
    {"data", SLOT, 0x92, RC_GP, SLOT},
    {"a TSS", SLOT, 0x89, RC_GP, SLOT},
    {"outer code", SLOT, 0xfa, RC_GP, SLOT},
    {"not present", SLOT, 0x1a, RC_NP, SLOT},
    {"outer and not present: privilege first", SLOT, 0x7a, RC_GP, SLOT},
    {"offset beyond the limit", SLOT, 0x9a, RC_GP, 0},
};

static void gate_targets_refused(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof target_cases / sizeof *target_cases; i++) {
        const struct target_case *c = &target_cases[i];
        print_message("    %s\n", c->what);
        gdt(r, SLOT, 0, 0x3ffe, c->access, D32);
        idt(r, 0x80, c->selector, 0x3fff, INT32);
        remember(r);
        check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), c->vector, c->error);
    }
}

struct stack_case {
    const char *what;
    uint16_t ss0;
    uint8_t access; /* of SLOT */
    unsigned vector;
    uint32_t error;
};
static const struct stack_case stack_cases[] = {
    {"null", 0, 0x93, RC_TS, 0},
    {"beyond the GDT", 0x100, 0x93, RC_TS, 0x100},
    {"RPL", SLOT | 1, 0x93, RC_TS, SLOT},
    {"DPL", SLOT, 0xb3, RC_TS, SLOT},
    {"read-only", SLOT, 0x91, RC_TS, SLOT},
    {"code", SLOT, 0x9b, RC_TS, SLOT},
    {"not present", SLOT, 0x13, RC_SSF, SLOT},
    {"too small", SLOT, 0x93, RC_SSF, SLOT},
};

static void inner_stacks_refused(void **state)
{
    struct rig *r = *state;
    go_user(r);
    idt(r, 0x80, KCODE, 0x4000, INT32 | DPL3);
    put32(r, TSS + 4, 19); /* one byte short of five doublewords */
    for (unsigned i = 0; i < sizeof stack_cases / sizeof *stack_cases; i++) {
        const struct stack_case *c = &stack_cases[i];
        print_message("    %s\n", c->what);
        gdt(r, SLOT, 0, 0xfff, c->access, D32);
        put32(r, TSS + 8, c->ss0);
        remember(r);
        check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), c->vector, c->error);
    }
    /* SS0 is read from bytes 8 and 9 of the TSS. */
    r->cpu.seg[RC_TR].limit = 8;
    remember(r);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_TS, TSS_SEL);
    r->cpu.seg[RC_TR].attr = 0; /* no TSS at all */
    remember(r);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_TS, TSS_SEL);
}

static void inner_stack_from_a_16_bit_tss(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0x6000, 0x2b, 0x81, G0);
    assert_int_equal(rc_ltr(&r->cpu, SLOT), RC_OK);
    put16(r, 0x6002, 0x9800);
    put16(r, 0x6004, KDATA);
    go_user(r);
    idt(r, 0x80, KCODE, 0x4000, INT32 | DPL3);
    assert_int_equal(rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_OK);
    check_stack(r, 0x9800 - 20, (uint32_t[]){0x7002, UCODE, 2, USTACK, UDATA}, 5);
    r->cpu.seg[RC_TR].limit = 4;
    go_user(r);
    remember(r);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_TS, SLOT);
}

/* ---- EXT ---- */

/* #TS while an interrupt looks for its stack, taken by a conforming handler that needs no stack switch. */
static void ext_is_set_for_external_events(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0, FLAT_LIMIT, 0x9f, G32);
    idt(r, RC_TS, SLOT, 0x4444, INT32);
    idt(r, IRQ, KCODE, 0x4000, INT32);
    put32(r, TSS + 8, SLOT2 | 1); /* RPL 1 */
    go_user(r);
    rc_deliver_irq(&r->cpu, IRQ);
    assert_int_equal(r->cpu.eip, 0x4444);
    check_stack(r, USTACK - 16, (uint32_t[]){SLOT2 | 1, 0x7000, UCODE, RC_RF | 2}, 4);
    put32(r, TSS + 8, 0); /* null: only EXT is left of the error code */
    go_user(r);
    r->cpu.eip = 0x7000;
    rc_deliver_irq(&r->cpu, IRQ);
    assert_int_equal(get32(r, USTACK - 16), 1);
}

/* ---- Table 6-5 ---- */

/* How the gate of the first exception is broken. */
enum spoil { GATE_NOT_PRESENT, GATE_PAGE_FAULT };
struct pair {
    unsigned first;
    enum spoil spoil;
    unsigned handled;
    uint32_t error;
};
static const struct pair pairs[] = {
    /* benign, anything: one after the other */
    {RC_DB, GATE_NOT_PRESENT, RC_NP, RC_DB * 8 + 3},
    {RC_UD, GATE_NOT_PRESENT, RC_NP, RC_UD * 8 + 3},
    {RC_AC_FAULT, GATE_NOT_PRESENT, RC_NP, RC_AC_FAULT * 8 + 3},
    {RC_BR, GATE_PAGE_FAULT, RC_PFAULT, 0},
    {RC_NM, GATE_PAGE_FAULT, RC_PFAULT, 0},
    {RC_MF, GATE_PAGE_FAULT, RC_PFAULT, 0},
    {RC_XM, GATE_NOT_PRESENT, RC_NP, RC_XM * 8 + 3},
    /* contributory, contributory: double */
    {RC_DE, GATE_NOT_PRESENT, RC_DF_ABORT, 0},
    {RC_TS, GATE_NOT_PRESENT, RC_DF_ABORT, 0},
    {RC_SSF, GATE_NOT_PRESENT, RC_DF_ABORT, 0},
    {RC_GP, GATE_NOT_PRESENT, RC_DF_ABORT, 0},
    {RC_NP, GATE_NOT_PRESENT, RC_DF_ABORT, 0},
    /* contributory, page fault: one after the other */
    {RC_DE, GATE_PAGE_FAULT, RC_PFAULT, 0},
    {RC_GP, GATE_PAGE_FAULT, RC_PFAULT, 0},
    {RC_NP, GATE_PAGE_FAULT, RC_PFAULT, 0},
    /* page fault, either: double */
    {RC_PFAULT, GATE_NOT_PRESENT, RC_DF_ABORT, 0},
    {RC_PFAULT, GATE_PAGE_FAULT, RC_DF_ABORT, 0},
};

static void check_pair(struct rig *r, const struct pair *p)
{
    const bool has_error = p->first >= 10 && p->first <= 14;
    const struct spt_info info = {.gva = 0x1111, .pfec = 2};
    print_message("    %u then %s: %u\n", p->first, p->spoil == GATE_PAGE_FAULT ? "#PF" : "#NP", p->handled);
    rig_tables(r);
    idt(r, p->first, p->spoil == GATE_PAGE_FAULT ? 4 : KCODE, 0, p->spoil == GATE_PAGE_FAULT ? INT32 : 0x0e);
    r->cpu.gpr[RC_ESP] = 0x9000;
    r->cpu.eip = 0x7000;
    if (p->first == RC_PFAULT)
        rc_raise_pf(&r->cpu, &info);
    else if (has_error)
        rc_raise_error(&r->cpu, p->first, 0);
    else
        rc_raise(&r->cpu, p->first);
    rc_deliver_fault(&r->cpu);
    assert_int_equal(r->cpu.shutdown, 0);
    assert_int_equal(r->cpu.eip, handler(p->handled));
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x8ff0);
    assert_int_equal(get32(r, 0x8ff0), p->error);
    assert_int_equal(get32(r, 0x8ff4), 0x7000);
    if (p->spoil == GATE_PAGE_FAULT)
        assert_int_equal(r->cpu.cr2, LDT);
}

static void double_faults(void **state)
{
    struct rig *r = *state;
    go_paged(r, LDT); /* a gate into the LDT page-faults */
    assert_int_equal(rc_lldt(&r->cpu, LDT_SEL), RC_OK);
    for (unsigned i = 0; i < sizeof pairs / sizeof *pairs; i++)
        check_pair(r, &pairs[i]);
}

static void triple_faults(void **state)
{
    struct rig *r = *state;
    idt(r, RC_GP, KCODE, 0, 0x0e);
    idt(r, RC_DF_ABORT, KCODE, 0, 0x0e);
    rc_raise_error(&r->cpu, RC_GP, 0);
    rc_deliver_fault(&r->cpu);
    assert_int_equal(r->cpu.shutdown, 1);
    r->cpu.shutdown = 0;
    r->cpu.idtr.limit = 0; /* what a kernel does to reset the machine */
    assert_int_equal(rc_software_int(&r->cpu, RC_BP, false, 0x7001), RC_FAULT);
    rc_deliver_fault(&r->cpu);
    assert_int_equal(r->cpu.shutdown, 1);
}

static void a_software_interrupt_is_benign(void **state)
{
    struct rig *r = *state;
    /* INT 13 through a gate that is not present is #NP, not a double fault: INT n is no #GP. */
    idt(r, RC_GP, KCODE, 0, 0x0e);
    assert_int_equal(rc_software_int(&r->cpu, RC_GP, true, 0x7002), RC_FAULT);
    rc_deliver_fault(&r->cpu);
    assert_int_equal(r->cpu.eip, handler(RC_NP));
    assert_int_equal(get32(r, 0x8ff0), RC_GP * 8 + 2);
    assert_int_equal(get32(r, 0x8ff4), 0x7000); /* a fault: the INT itself */
}

/* ---- Task gate (the double-fault task of many kernels) ---- */

static void double_fault_task(void **state)
{
    struct rig *r = *state;
    idt(r, RC_DF_ABORT, TSS_B_SEL, 0, 0x85);
    idt(r, RC_GP, KCODE, 0, 0x0e);
    put32(r, TSS_B + 0x20, 0x5555);
    put32(r, TSS_B + 0x24, 2);
    put32(r, TSS_B + 0x38, 0xb000);
    for (unsigned i = 0; i < 6; i++)
        put32(r, TSS_B + 0x48 + 4 * i, i == 1 ? KCODE : KDATA);
    r->cpu.gpr[RC_ESP] = 0x10; /* the kernel's stack is gone */
    set_seg(r, RC_SS, KDATA, 0, 0xf, 0x4093);
    rc_raise_error(&r->cpu, RC_GP, 0);
    rc_deliver_fault(&r->cpu);
    assert_int_equal(r->cpu.shutdown, 0);
    assert_int_equal(r->cpu.eip, 0x5555);
    check_stack(r, 0xb000 - 4, (uint32_t[]){0}, 1); /* the error code is on the new stack */
    assert_int_equal(get32(r, TSS + 0x20), 0x7000);
    assert_int_equal(get16(r, TSS_B), TSS_SEL); /* link */
    assert_int_equal(r->cpu.eflags & RC_NT, RC_NT);
    assert_int_equal(access_byte(r, TSS_SEL), 0x8b);
    assert_int_equal(access_byte(r, TSS_B_SEL), 0x8b);
    assert_int_equal(r->cpu.cr0 & RC_CR0_TS, RC_CR0_TS);
}

static void a_fault_of_the_task_a_gate_led_to(void **state)
{
    struct rig *r = *state;
    idt(r, 0x80, TSS_B_SEL, 0, 0x85);
    put32(r, TSS_B + 0x20, 0x5555);
    put32(r, TSS_B + 0x38, 0xb000);
    for (unsigned i = 0; i < 6; i++)
        put32(r, TSS_B + 0x48 + 4 * i, i == 1 ? KCODE : KDATA);
    put32(r, TSS_B + 0x54, 0x100); /* DS is bad: #TS in the new task, on its stack, with its EIP */
    assert_int_equal(rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_OK);
    assert_int_equal(r->cpu.seg[RC_TR].selector, TSS_B_SEL);
    assert_int_equal(r->cpu.eip, handler(RC_TS));
    check_stack(r, 0xb000 - 16, (uint32_t[]){0x100, 0x5555, KCODE, RC_RF | RC_NT | 2}, 4);
    assert_int_equal(get32(r, TSS + 0x20), 0x7002);
}

static void task_gates_refused(void **state)
{
    struct rig *r = *state;
    remember(r);
    idt(r, 0x80, TSS_SEL, 0, 0x85); /* busy */
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_GP, TSS_SEL);
    idt(r, 0x80, TSS_B_SEL | 4, 0, 0x85);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_GP, TSS_B_SEL | 4);
    idt(r, 0x80, KDATA, 0, 0x85);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_GP, KDATA);
    idt(r, 0x80, 0, 0, 0x85);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_GP, 0);
    gdt(r, TSS_B_SEL, TSS_B, 0x67, 0x09, G0);
    idt(r, 0x80, TSS_B_SEL, 0, 0x85);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_NP, TSS_B_SEL);
    gdt(r, TSS_B_SEL, TSS_B, 0x66, 0x89, G0);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 0x7002), RC_TS, TSS_B_SEL);
}

/* ---- Virtual-8086 mode ---- */

static void out_of_v86(void **state)
{
    struct rig *r = *state;
    go_v86(r, 0);
    rc_raise_error(&r->cpu, RC_GP, 0);
    rc_deliver_fault(&r->cpu);
    check_stack(
        r, KSTACK - 40,
        (uint32_t[]){0, 0x7000, 0x200, RC_VM | RC_IF | RC_RF | 2, 0xfff0, 0x300, 0x100, 0x400, 0x500, 0x600},
        10);
    assert_int_equal(r->cpu.cpl, 0);
    assert_int_equal(rc_eflags(&r->cpu), 2);
    for (unsigned seg = RC_DS; seg <= RC_GS; seg++) {
        assert_int_equal(r->cpu.seg[seg].selector, 0);
        assert_int_equal(r->cpu.seg[seg].attr & RC_ATTR_P, 0);
    }
    assert_int_equal(r->cpu.seg[RC_ES].selector, 0);
}

static void v86_enters_ring_0_only(void **state)
{
    struct rig *r = *state;
    go_v86(r, 3);
    gdt(r, SLOT, 0, FLAT_LIMIT, 0xba, G32);  /* DPL 1 */
    gdt(r, SLOT2, 0, FLAT_LIMIT, 0x9e, G32); /* conforming */
    remember(r);
    idt(r, 0x80, SLOT, 0x4000, INT32 | DPL3);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 2), RC_GP, SLOT);
    idt(r, 0x80, SLOT2, 0x4000, INT32 | DPL3);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 2), RC_GP, SLOT2);
    idt(r, 0x80, KCODE, 0x4000, INT32);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 2), RC_GP, 0x80 * 8 + 2);
}

static void int_in_v86_is_iopl_sensitive(void **state)
{
    struct rig *r = *state;
    go_v86(r, 2);
    idt(r, 0x80, KCODE, 0x4000, INT32 | DPL3);
    idt(r, RC_BP, KCODE, 0x4000, INT32 | DPL3);
    remember(r);
    check_fault(r, rc_software_int(&r->cpu, 0x80, true, 2), RC_GP, 0);
    assert_int_equal(rc_software_int(&r->cpu, RC_BP, false, 1), RC_OK); /* INT3 is not */
    assert_int_equal(r->cpu.cpl, 0);
}

/* ---- --trace=exception ---- */

static void a_line_per_delivery(void **state)
{
    struct rig *r = *state;
    const struct spt_info info = {.gva = 0xcafe1000, .pfec = 5};
    char *text = NULL;
    size_t size;
    r->cpu.trace = open_memstream(&text, &size);
    rc_raise_pf(&r->cpu, &info);
    rc_deliver_fault(&r->cpu);
    rc_deliver_irq(&r->cpu, RC_PFAULT); /* an interrupt of the same number has neither error code nor CR2 */
    fclose(r->cpu.trace);
    const char *second = strchr(text, '\n');
    assert_non_null(second);
    assert_non_null(strstr(text, "event 0e error 00000005 cr2 cafe1000 at 0008:00007000"));
    assert_non_null(strstr(second, "event 0e at 0008:0000e0e0"));
    free(text);
}

/* ---- Real mode ---- */

static void real_mode_vectors(void **state)
{
    struct rig *r = *state;
    rc_cpu_reset(&r->cpu);
    put16(r, 4 * IRQ, 0x1234);
    put16(r, 4 * IRQ + 2, 0x0700);
    r->cpu.gpr[RC_ESP] = 0x8000;
    rc_set_eflags(&r->cpu, RC_IF | RC_CF | RC_AC | RC_RF);
    r->cpu.idtr.limit = 4 * IRQ + 3; /* just enough */
    rc_deliver_irq(&r->cpu, IRQ);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x7ffa);
    assert_int_equal(get16(r, 0x7ffa), 0xfff0);
    assert_int_equal(get16(r, 0x7ffc), 0xf000);
    assert_int_equal(get16(r, 0x7ffe), 0x203);
    assert_int_equal(r->cpu.eip, 0x1234);
    assert_int_equal(r->cpu.seg[RC_CS].base, 0x7000);
    assert_int_equal(rc_eflags(&r->cpu), RC_CF | 2);
    r->cpu.idtr.limit = 3; /* not even vector 8 can be reached */
    rc_raise(&r->cpu, RC_UD);
    rc_deliver_fault(&r->cpu);
    assert_int_equal(r->cpu.shutdown, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(irq_in_the_same_ring),
        rig_test(a_trap_gate_leaves_if),
        rig_test(irq_from_user_mode),
        rig_test(an_inner_stack_page_is_a_supervisor_page),
        rig_test(error_codes_and_rf),
        rig_test(debug_exceptions),
        rig_test(a_16_bit_gate),
        rig_test(a_16_bit_inner_stack_wraps),
        rig_test(a_wrapping_frame_is_probed_whole),
        rig_test(the_last_byte_of_a_segment_is_a_handler),
        rig_test(a_frame_across_two_pages),
        rig_test(conforming_handler_stays_in_ring_3),
        rig_test(int_n_from_user_mode),
        rig_test(int_n_refused),
        rig_test(gate_targets_refused),
        rig_test(inner_stacks_refused),
        rig_test(inner_stack_from_a_16_bit_tss),
        rig_test(ext_is_set_for_external_events),
        rig_test(double_faults),
        rig_test(triple_faults),
        rig_test(a_software_interrupt_is_benign),
        rig_test(double_fault_task),
        rig_test(a_fault_of_the_task_a_gate_led_to),
        rig_test(task_gates_refused),
        rig_test(out_of_v86),
        rig_test(v86_enters_ring_0_only),
        rig_test(int_in_v86_is_iopl_sensitive),
        rig_test(a_line_per_delivery),
        rig_test(real_mode_vectors),
    };
    return cmocka_run_group_tests_name("ringcomp events", tests, NULL, NULL);
}
