/* Far jumps, calls, returns, IRET, SYSENTER/SYSEXIT and task switches (chapters 5, 6, 7; vol. 2). */
#include "test_ringcomp_rig.h"

enum { NEXT = 0x7007 }; /* EIP of the instruction after the one at 0x7000 */
enum { NONE = 255 };

static void push_words(struct rig *r, const uint32_t *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put32(r, r->cpu.gpr[RC_ESP] + 4 * i, words[i]);
}

/* ---- IRET ---- */

static void iret_same_ring(void **state)
{
    struct rig *r = *state;
    push_words(r, (uint32_t[]){0x1234, KCODE, RC_IF | RC_CF | RC_IOPL | RC_RF | RC_AC | RC_ID}, 3);
    assert_int_equal(rc_iret(&r->cpu, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.eip, 0x1234);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x900c);
    assert_int_equal(rc_eflags(&r->cpu), RC_IF | RC_CF | RC_IOPL | RC_RF | RC_AC | RC_ID | 2);
    assert_int_equal(r->cpu.irets, 1);
}

static void iret_16_bit(void **state)
{
    struct rig *r = *state;
    put16(r, 0x9000, 0x1234);
    put16(r, 0x9002, KCODE);
    put16(r, 0x9004, RC_IF | RC_SF);
    rc_set_eflags(&r->cpu, RC_AC);
    assert_int_equal(rc_iret(&r->cpu, 2, NEXT), RC_OK);
    assert_int_equal(r->cpu.eip, 0x1234);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x9006);
    assert_int_equal(rc_eflags(&r->cpu), RC_IF | RC_SF | RC_AC | 2); /* 31:16 stay */
}

static void iret_to_user(void **state)
{
    struct rig *r = *state;
    set_seg(r, RC_FS, 3, 0, 0, 0);                   /* null with RPL: becomes 0 */
    set_seg(r, RC_GS, UDATA, 0, UINT32_MAX, 0xc0f3); /* outer: stays */
    set_seg(r, RC_ES, SLOT, 0, UINT32_MAX, 0xc09f);  /* conforming code of DPL 0: stays */
    push_words(r, (uint32_t[]){0x1234, UCODE, RC_IF, 0xc100, UDATA}, 5);
    assert_int_equal(rc_iret(&r->cpu, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.cpl, 3);
    assert_int_equal(r->cpu.eip, 0x1234);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0xc100);
    assert_int_equal(r->cpu.seg[RC_CS].selector, UCODE);
    assert_int_equal(r->cpu.seg[RC_SS].selector, UDATA);
    assert_int_equal(r->cpu.seg[RC_DS].selector, 0); /* KDATA: user mode must not see it */
    assert_int_equal(r->cpu.seg[RC_DS].attr & RC_ATTR_P, 0);
    assert_true(r->cpu.seg[RC_DS].soft == RC_SOFT_ODD << 32);
    assert_int_equal(r->cpu.seg[RC_FS].selector, 0);
    assert_int_equal(r->cpu.seg[RC_GS].selector, UDATA);
    assert_int_equal(r->cpu.seg[RC_ES].selector, SLOT);
    assert_int_equal(r->cpu.iflag, 1);
}

static void iret_to_a_16_bit_stack_leaves_the_upper_half(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0, 0xffff, 0xf3, G0);
    r->cpu.gpr[RC_ESP] = 0x19000;
    push_words(r, (uint32_t[]){0x1234, UCODE, 0, 0xabcdc100, SLOT | 3}, 5);
    assert_int_equal(rc_iret(&r->cpu, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x1c100);
}

/* What an IRET at CPL with IOPL sets beyond the flags anyone may set, from an image of all ones (but VM and
 * NT). */
struct iret_flags {
    unsigned cpl, iopl;
    uint32_t set;
};
static const struct iret_flags iret_flag_cases[] = {
    {0, 0, RC_IF | RC_VIF | RC_VIP}, {1, 1, RC_IF}, {1, 0, 0}, {3, 3, RC_IF}, {3, 2, 0},
};

static void iret_flags(void **state)
{
    const uint32_t always = RC_ARITH | RC_TF | RC_DF | RC_RF | RC_AC | RC_ID | 2;
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof iret_flag_cases / sizeof *iret_flag_cases; i++) {
        const struct iret_flags *c = &iret_flag_cases[i];
        const uint16_t cs = (uint16_t)(SLOT | c->cpl);
        const uint32_t iopl = c->iopl << 12;
        gdt(r, SLOT, 0, FLAT_LIMIT, (uint8_t)(0x9b | c->cpl << 5), G32);
        go_ring(r, c->cpl, cs, (uint16_t)(SLOT2 | c->cpl));
        r->cpu.gpr[RC_ESP] = 0x9000;
        rc_set_eflags(&r->cpu, iopl);
        push_words(r, (uint32_t[]){0x1234, cs, ~(uint32_t)(RC_VM | RC_NT)}, 3);
        print_message("    cpl %u iopl %u\n", c->cpl, c->iopl);
        assert_int_equal(rc_iret(&r->cpu, 4, NEXT), RC_OK);
        const uint32_t expect_iopl = c->cpl == 0 ? RC_IOPL : iopl;
        assert_int_equal(rc_eflags(&r->cpu), (always | c->set | expect_iopl));
    }
}

/* One IRET or RETF from ring cpl to SLOT (CS), with SLOT2 as SS when outwards. */
struct return_case {
    const char *what;
    unsigned cpl;
    uint16_t cs;
    uint8_t cs_access;
    uint16_t ss;
    uint8_t ss_access;
    unsigned vector;
    uint32_t error;
};
static const struct return_case return_cases[] = {
    {"null CS", 0, 3, 0x9b, 0, 0, RC_GP, 0},
    {"CS beyond the GDT", 0, 0x100, 0x9b, 0, 0, RC_GP, 0x100},
    {"data as CS", 0, SLOT, 0x93, 0, 0, RC_GP, SLOT},
    {"a gate as CS", 0, SLOT, 0x8c, 0, 0, RC_GP, SLOT},
    {"inwards", 3, SLOT, 0x9b, 0, 0, RC_GP, SLOT},
    {"inwards to conforming code", 3, SLOT, 0x9f, 0, 0, RC_GP, SLOT},
    {"DPL is not RPL", 0, SLOT, 0xfb, 0, 0, RC_GP, SLOT},
    {"conforming, DPL above RPL", 0, SLOT, 0xff, 0, 0, RC_GP, SLOT},
    {"CS not present", 0, SLOT, 0x1b, 0, 0, RC_NP, SLOT},
    {"CS not present and DPL: privilege first", 0, SLOT, 0x7b, 0, 0, RC_GP, SLOT},
    {"EIP beyond the limit", 0, SLOT, 0x9b, 0, 0, RC_GP, 0},
    {"outwards, null SS", 0, SLOT | 3, 0xfb, 3, 0xf3, RC_GP, 0},
    {"outwards, SS beyond the GDT", 0, SLOT | 3, 0xfb, 0x103, 0xf3, RC_GP, 0x100},
    {"outwards, RPL of SS", 0, SLOT | 3, 0xfb, SLOT2 | 2, 0xf3, RC_GP, SLOT2},
    {"outwards, DPL of SS", 0, SLOT | 3, 0xfb, SLOT2 | 3, 0xd3, RC_GP, SLOT2},
    {"outwards, read-only SS", 0, SLOT | 3, 0xfb, SLOT2 | 3, 0xf1, RC_GP, SLOT2},
    {"outwards, code as SS", 0, SLOT | 3, 0xfb, SLOT2 | 3, 0xfb, RC_GP, SLOT2},
    {"outwards, SS not present", 0, SLOT | 3, 0xfb, SLOT2 | 3, 0x73, RC_SSF, SLOT2},
    {"outwards, EIP beyond the limit", 0, SLOT | 3, 0xfb, SLOT2 | 3, 0xf3, RC_GP, 0},
    {"outwards to conforming code, EIP", 0, SLOT | 3, 0x9f, SLOT2 | 3, 0xf3, RC_GP, 0},
};

static void returns_refused(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof return_cases / sizeof *return_cases; i++) {
        const struct return_case *c = &return_cases[i];
        print_message("    %s\n", c->what);
        gdt(r, SLOT, 0, 0x1233, c->cs_access, D32);
        gdt(r, SLOT2, 0, FLAT_LIMIT, c->ss_access, G32);
        go_ring(r, c->cpl, c->cpl ? UCODE : KCODE, c->cpl ? UDATA : KDATA);
        push_words(r, (uint32_t[]){0x1234, c->cs, RC_IF, 0xc000, c->ss}, 5);
        remember(r);
        check_fault(r, rc_iret(&r->cpu, 4, NEXT), c->vector, c->error);
        push_words(r, (uint32_t[]){0x1234, c->cs, 0xc000, c->ss}, 4);
        check_fault(r, rc_far_ret(&r->cpu, 4, 0), c->vector, c->error);
    }
}

static void returns_beyond_the_stack(void **state)
{
    struct rig *r = *state;
    push_words(r, (uint32_t[]){0x1234, UCODE, 0, 0xc000, UDATA}, 5);
    set_seg(r, RC_SS, KDATA, 0, 0x900a, 0x4093); /* one byte short of three */
    remember(r);
    check_fault(r, rc_iret(&r->cpu, 4, NEXT), RC_SSF, 0);
    set_seg(r, RC_SS, KDATA, 0, 0x9012, 0x4093); /* one byte short of five */
    remember(r);
    check_fault(r, rc_iret(&r->cpu, 4, NEXT), RC_SSF, 0);
    set_seg(r, RC_SS, KDATA, 0, 0x9006, 0x4093); /* RETF: one byte short of two */
    remember(r);
    check_fault(r, rc_far_ret(&r->cpu, 4, 0), RC_SSF, 0);
}

static void iret_across_a_page_that_is_missing(void **state)
{
    struct rig *r = *state;
    go_paged(r, 0x9000);
    r->cpu.gpr[RC_ESP] = 0x8ff4; /* the first three words are there, ESP and SS are not */
    push_words(r, (uint32_t[]){0x1234, UCODE, 0}, 3);
    remember(r);
    check_fault(r, rc_iret(&r->cpu, 4, NEXT), RC_PFAULT, 0);
    assert_int_equal(r->cpu.fault.cr2, 0x9000);
    push_words(r, (uint32_t[]){0x1234, KCODE, 0}, 3); /* the same ring does not look there */
    assert_int_equal(rc_iret(&r->cpu, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x9000);
}

static void returns_mark_what_they_load(void **state)
{
    struct rig *r = *state;
    for (unsigned form = 0; form < 2; form++) {
        gdt(r, SLOT, 0, 0x1234, 0xfa, D32); /* EIP is the last byte of the segment */
        gdt(r, SLOT2, 0, FLAT_LIMIT, 0xf2, G32);
        go_ring(r, 0, KCODE, KDATA);
        r->cpu.gpr[RC_ESP] = 0x9000;
        push_words(r, (uint32_t[]){0x1234, SLOT | 3, form ? 0xc000 : 2, form ? SLOT2 | 3 : 0xc000, SLOT2 | 3},
                   5);
        assert_int_equal(form ? rc_far_ret(&r->cpu, 4, 0) : rc_iret(&r->cpu, 4, NEXT), RC_OK);
        assert_int_equal(access_byte(r, SLOT), 0xfb);
        assert_int_equal(access_byte(r, SLOT2), 0xf3);
        assert_int_equal(r->cpu.seg[RC_SS].attr, 0xc0f3);
    }
    gdt(r, SLOT, 0, FLAT_LIMIT, 0x9e, G32); /* conforming code of DPL 0 in ring 3, from ring 3 */
    push_words(r, (uint32_t[]){0x1234, SLOT | 3, 2}, 3);
    assert_int_equal(rc_iret(&r->cpu, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.cpl, 3);
}

static void iret_in_real_mode(void **state)
{
    struct rig *r = *state;
    rc_cpu_reset(&r->cpu);
    r->cpu.gpr[RC_ESP] = 0x8000;
    put16(r, 0x8000, 0x1234);
    put16(r, 0x8002, 0x0700);
    put16(r, 0x8004, 0xffff);
    assert_int_equal(rc_iret(&r->cpu, 2, NEXT), RC_OK);
    assert_int_equal(r->cpu.eip, 0x1234);
    assert_int_equal(r->cpu.seg[RC_CS].base, 0x7000);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x8006);
    assert_int_equal(rc_eflags(&r->cpu), 0x7fd7); /* IOPL and NT too */
    put32(r, 0x8006, 0x1234);
    put32(r, 0x800a, 0x0700);
    put32(r, 0x800e, 0xffffffff);
    assert_int_equal(rc_iret(&r->cpu, 4, NEXT), RC_OK);
    assert_int_equal(rc_eflags(&r->cpu), 0x257fd7); /* not VM, VIF, VIP */
    put32(r, 0x8012, 0x10000);
    remember(r);
    check_fault(r, rc_iret(&r->cpu, 4, NEXT), RC_GP, 0);
}

/* ---- Virtual-8086 mode ---- */

static void iret_to_v86(void **state)
{
    struct rig *r = *state;
    push_words(
        r,
        (uint32_t[]){0x1234, 0xf000, RC_VM | RC_IF | 3 << 12, 0xfff0, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000},
        9);
    assert_int_equal(rc_iret(&r->cpu, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.cpl, 3);
    assert_int_equal(rc_eflags(&r->cpu), RC_VM | RC_IF | 3 << 12 | 2);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0xfff0);
    const uint16_t expect[] = {0x3000, 0xf000, 0x2000, 0x4000, 0x5000, 0x6000};
    for (unsigned seg = RC_ES; seg <= RC_GS; seg++) {
        assert_int_equal(r->cpu.seg[seg].selector, expect[seg]);
        assert_int_equal(r->cpu.seg[seg].base, (uint32_t)expect[seg] << 4);
        assert_int_equal(r->cpu.seg[seg].limit, 0xffff);
        assert_int_equal(r->cpu.seg[seg].attr, 0xf3);
    }
}

static void vm_in_the_image_needs_ring_0_and_32_bits(void **state)
{
    struct rig *r = *state;
    push_words(r, (uint32_t[]){0x10000, KCODE, RC_VM, 0, 0, 0, 0, 0, 0}, 9);
    remember(r);
    check_fault(r, rc_iret(&r->cpu, 4, NEXT), RC_GP, 0); /* EIP above FFFF */
    go_user(r);
    push_words(r, (uint32_t[]){0x1234, UCODE, RC_VM}, 3);
    assert_int_equal(rc_iret(&r->cpu, 4, NEXT), RC_OK);
    assert_int_equal(rc_eflags(&r->cpu), 2); /* VM ignored */
    assert_int_equal(r->cpu.eip, 0x1234);
}

static void iret_within_v86(void **state)
{
    struct rig *r = *state;
    go_v86(r, 2);
    remember(r);
    check_fault(r, rc_iret(&r->cpu, 2, NEXT), RC_GP, 0);
    go_v86(r, 3);
    r->cpu.gpr[RC_ESP] = 0x100; /* SS base is 0x3000 */
    put16(r, 0x3100, 0x1234);
    put16(r, 0x3102, 0x0800);
    put16(r, 0x3104, RC_CF);
    assert_int_equal(rc_iret(&r->cpu, 2, NEXT), RC_OK);
    assert_int_equal(rc_eflags(&r->cpu), RC_VM | 3 << 12 | RC_CF | 2); /* IOPL stays */
    assert_int_equal(r->cpu.seg[RC_CS].base, 0x8000);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x106);
}

/* ---- Direct far jumps and calls ---- */

struct far_case {
    const char *what;
    unsigned cpl;
    uint16_t selector;
    uint8_t access;
    unsigned vector;
    uint32_t error;
};
static const struct far_case far_cases[] = {
    {"null", 0, 0, 0x9b, RC_GP, 0},
    {"beyond the GDT", 0, 0x100, 0x9b, RC_GP, 0x100},
    {"data", 0, SLOT, 0x93, RC_GP, SLOT},
    {"an LDT", 0, SLOT, 0x82, RC_GP, SLOT},
    {"an interrupt gate", 0, SLOT, 0x8e, RC_GP, SLOT},
    {"a busy TSS", 0, SLOT, 0x8b, RC_GP, SLOT},
    {"outer code", 0, SLOT, 0xfb, RC_GP, SLOT},
    {"inner code", 3, SLOT | 3, 0x9b, RC_GP, SLOT},
    {"RPL above CPL", 0, SLOT | 3, 0x9b, RC_GP, SLOT},
    {"outer conforming code", 0, SLOT, 0xff, RC_GP, SLOT},
    {"not present", 0, SLOT, 0x1b, RC_NP, SLOT},
    {"not present and inner: privilege first", 3, SLOT, 0x1b, RC_GP, SLOT},
    {"beyond the code's limit", 0, SLOT, 0x9b, RC_GP, 0},
    {"beyond the conforming code's limit", 3, SLOT, 0x9f, RC_GP, 0},
};

static void far_targets_refused(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof far_cases / sizeof *far_cases; i++) {
        const struct far_case *c = &far_cases[i];
        print_message("    %s\n", c->what);
        gdt(r, SLOT, 0, 0x1233, c->access, D32);
        go_ring(r, c->cpl, c->cpl ? UCODE : KCODE, c->cpl ? UDATA : KDATA);
        remember(r);
        check_fault(r, rc_far_jmp(&r->cpu, c->selector, 0x1234, 4, NEXT), c->vector, c->error);
        check_fault(r, rc_far_call(&r->cpu, c->selector, 0x1234, 4, NEXT), c->vector, c->error);
    }
}

static void far_jumps(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0x100, 0xffff, 0x9a, G0);
    assert_int_equal(rc_far_jmp(&r->cpu, SLOT, 0xabcd1234, 2, NEXT), RC_OK);
    assert_int_equal(r->cpu.eip, 0x1234); /* a 16-bit offset */
    assert_int_equal(r->cpu.seg[RC_CS].base, 0x100);
    assert_int_equal(r->cpu.seg[RC_CS].attr, 0x009b);
    assert_int_equal(access_byte(r, SLOT), 0x9b);
    gdt(r, SLOT, 0, FLAT_LIMIT, 0x9e, G32);
    go_user(r);
    assert_int_equal(rc_far_jmp(&r->cpu, SLOT, 0x1234, 4, NEXT), RC_OK); /* conforming, RPL does not count */
    assert_int_equal(r->cpu.seg[RC_CS].selector, SLOT | 3);
    assert_int_equal(r->cpu.cpl, 3);
}

static void far_calls_and_returns(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rc_far_call(&r->cpu, KCODE, 0x1234, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.eip, 0x1234);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x8ff8);
    assert_int_equal(get32(r, 0x8ff8), NEXT);
    assert_int_equal(get32(r, 0x8ffc), KCODE);
    assert_int_equal(rc_far_ret(&r->cpu, 4, 12), RC_OK);
    assert_int_equal(r->cpu.eip, NEXT);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x900c);
    r->cpu.gpr[RC_ESP] = 0x9000;
    assert_int_equal(rc_far_call(&r->cpu, KCODE, 0x1234, 2, 0xabcd7007), RC_OK);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x8ffc);
    assert_int_equal(get16(r, 0x8ffc), 0x7007);
    assert_int_equal(get16(r, 0x8ffe), KCODE);
    set_seg(r, RC_SS, KDATA, 0x1000, 0xfff, 0x4093);
    r->cpu.gpr[RC_ESP] = 0x1005; /* the first push straddles the limit */
    remember(r);
    check_fault(r, rc_far_call(&r->cpu, KCODE, 0x1234, 4, NEXT), RC_SSF, 0);
}

static void far_return_outwards(void **state)
{
    struct rig *r = *state;
    push_words(r, (uint32_t[]){0x1234, UCODE, 0xaaaa, 0xbbbb, 0xc000, UDATA}, 6);
    assert_int_equal(rc_far_ret(&r->cpu, 4, 8), RC_OK);
    assert_int_equal(r->cpu.cpl, 3);
    assert_int_equal(r->cpu.eip, 0x1234);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0xc008); /* parameters are dropped from both stacks */
    assert_int_equal(r->cpu.seg[RC_SS].selector, UDATA);
    assert_int_equal(r->cpu.seg[RC_DS].selector, 0);
}

static void far_transfers_in_v86(void **state)
{
    struct rig *r = *state;
    go_v86(r, 0);
    r->cpu.gpr[RC_ESP] = 0x100;
    assert_int_equal(rc_far_call(&r->cpu, 0x0800, 0x1234, 2, 0x7007), RC_OK);
    assert_int_equal(r->cpu.seg[RC_CS].base, 0x8000);
    assert_int_equal(get16(r, 0x30fc), 0x7007);
    assert_int_equal(get16(r, 0x30fe), 0x200);
    assert_int_equal(rc_far_ret(&r->cpu, 2, 0), RC_OK);
    assert_int_equal(r->cpu.seg[RC_CS].selector, 0x200);
    assert_int_equal(r->cpu.eip, 0x7007);
    remember(r);
    check_fault(r, rc_far_jmp(&r->cpu, 0x800, 0x10000, 4, NEXT), RC_GP, 0);
}

/* ---- Call gates (5.8.3, 5.8.5) ---- */

static void call_gate_with_parameters(void **state)
{
    struct rig *r = *state;
    put_gate(r, GDT + SLOT, KCODE | 3, 0x12345678, 0xec, 3); /* the target's RPL does not count */
    go_user(r);
    push_words(r, (uint32_t[]){0x11, 0x22, 0x33, 0x44}, 4);
    assert_int_equal(rc_far_call(&r->cpu, SLOT | 3, 0xdeadbeef, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.cpl, 0);
    assert_int_equal(r->cpu.eip, 0x12345678);
    assert_int_equal(r->cpu.seg[RC_CS].selector, KCODE);
    assert_int_equal(r->cpu.gpr[RC_ESP], KSTACK - 28);
    const uint32_t expect[] = {NEXT, UCODE, 0x11, 0x22, 0x33, USTACK, UDATA};
    for (unsigned i = 0; i < 7; i++)
        assert_int_equal(get32(r, KSTACK - 28 + 4 * i), expect[i]);
    assert_int_equal(rc_far_ret(&r->cpu, 4, 12), RC_OK);
    assert_int_equal(r->cpu.cpl, 3);
    assert_int_equal(r->cpu.gpr[RC_ESP], USTACK + 12);
    assert_int_equal(r->cpu.eip, NEXT);
}

static void call_gate_of_16_bits(void **state)
{
    struct rig *r = *state;
    put_gate(r, GDT + SLOT, KCODE, 0xffff1234, 0xe4, 2);
    go_user(r);
    push_words(r, (uint32_t[]){0x22221111}, 1);
    assert_int_equal(rc_far_call(&r->cpu, SLOT | 3, 0, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.eip, 0x1234);
    assert_int_equal(r->cpu.gpr[RC_ESP], KSTACK - 12);
    const uint16_t expect[] = {NEXT, UCODE, 0x1111, 0x2222, USTACK, UDATA};
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(get16(r, KSTACK - 12 + 2 * i), expect[i]);
}

static void gates_within_a_ring(void **state)
{
    struct rig *r = *state;
    put_gate(r, GDT + SLOT, KCODE, 0x1234, 0x8c, 5);
    assert_int_equal(rc_far_jmp(&r->cpu, SLOT, 0, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.eip, 0x1234);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x9000);
    assert_int_equal(rc_far_call(&r->cpu, SLOT, 0, 2, NEXT), RC_OK); /* the gate's size, not the operand's */
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x8ff8);                    /* no parameters are copied */
    assert_int_equal(get32(r, 0x8ff8), NEXT);
}

struct gate_case {
    const char *what;
    unsigned cpl;
    uint16_t selector;   /* of the gate, in SLOT */
    uint8_t gate_access; /* type 0xc */
    uint16_t target;     /* code in SLOT2 */
    uint8_t code_access;
    unsigned jmp, call; /* vectors, or NONE */
    uint32_t error;
};
static const struct gate_case gate_cases[] = {
    {"gate DPL below CPL", 3, SLOT, 0x8c, SLOT2, 0x9b, RC_GP, RC_GP, SLOT},
    {"gate DPL below RPL", 0, SLOT | 1, 0x8c, SLOT2, 0x9b, RC_GP, RC_GP, SLOT},
    {"gate not present", 0, SLOT, 0x0c, SLOT2, 0x9b, RC_NP, RC_NP, SLOT},
    {"null target", 0, SLOT, 0x8c, 0, 0x9b, RC_GP, RC_GP, 0},
    {"target beyond the GDT", 0, SLOT, 0x8c, 0x100, 0x9b, RC_GP, RC_GP, 0x100},
    {"data", 0, SLOT, 0x8c, SLOT2, 0x93, RC_GP, RC_GP, SLOT2},
    {"outer code", 0, SLOT, 0x8c, SLOT2, 0xfb, RC_GP, RC_GP, SLOT2},
    {"outer conforming code", 0, SLOT, 0x8c, SLOT2, 0xff, RC_GP, RC_GP, SLOT2},
    {"not present", 0, SLOT, 0x8c, SLOT2, 0x1b, RC_NP, RC_NP, SLOT2},
    {"inner code: CALL may, JMP may not", 3, SLOT, 0xec, SLOT2, 0x9b, RC_GP, NONE, SLOT2},
    {"inner conforming code: both may", 3, SLOT, 0xec, SLOT2, 0x9f, NONE, NONE, 0},
};

static void gates_refused(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof gate_cases / sizeof *gate_cases; i++) {
        const struct gate_case *c = &gate_cases[i];
        print_message("    %s\n", c->what);
        put_gate(r, GDT + SLOT, c->target, 0x1234, c->gate_access, 0);
        gdt(r, SLOT2, 0, FLAT_LIMIT, c->code_access, G32);
        for (unsigned call = 0; call < 2; call++) {
            const unsigned vector = call ? c->call : c->jmp;
            go_ring(r, c->cpl, c->cpl ? UCODE : KCODE, c->cpl ? UDATA : KDATA);
            r->cpu.gpr[RC_ESP] = c->cpl ? USTACK : 0x9000;
            remember(r);
            const enum rc_result result = call ? rc_far_call(&r->cpu, c->selector, 0, 4, NEXT)
                                               : rc_far_jmp(&r->cpu, c->selector, 0, 4, NEXT);
            if (vector != NONE)
                check_fault(r, result, vector, c->error);
            else
                assert_int_equal(result, RC_OK);
        }
    }
}

static void inner_call_stacks_refused(void **state)
{
    struct rig *r = *state;
    put_gate(r, GDT + SLOT, KCODE, 0x1234, 0xec, 31);
    go_user(r);
    remember(r);
    put32(r, TSS + 8, 0);
    check_fault(r, rc_far_call(&r->cpu, SLOT, 0, 4, NEXT), RC_TS, 0);
    put32(r, TSS + 8, UDATA);
    check_fault(r, rc_far_call(&r->cpu, SLOT, 0, 4, NEXT), RC_TS, UDATA & ~3u);
    put32(r, TSS + 8, SLOT2);
    gdt(r, SLOT2, 0, 0xfff, 0x13, D32);
    check_fault(r, rc_far_call(&r->cpu, SLOT, 0, 4, NEXT), RC_SSF, SLOT2);
    gdt(r, SLOT2, 0, 0xfff, 0x93, D32);
    put32(r, TSS + 4, 35 * 4 - 1); /* 31 parameters and 4: one byte short */
    check_fault(r, rc_far_call(&r->cpu, SLOT, 0, 4, NEXT), RC_SSF, SLOT2);
    put32(r, TSS + 4, 35 * 4);
    assert_int_equal(rc_far_call(&r->cpu, SLOT, 0, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0);
}

/* ---- SYSENTER, SYSEXIT ---- */

static void sysenter_and_sysexit(void **state)
{
    struct rig *r = *state;
    go_user(r);
    rc_set_eflags(&r->cpu, RC_IF | RC_RF | RC_TF | RC_CF);
    remember(r);
    check_fault(r, rc_sysenter(&r->cpu), RC_GP, 0); /* SYSENTER_CS is null */
    r->cpu.sysenter_cs = 0x62;                      /* RPL is ignored */
    r->cpu.sysenter_esp = 0xb000;
    r->cpu.sysenter_eip = 0x12345678;
    assert_int_equal(rc_sysenter(&r->cpu), RC_OK);
    assert_int_equal(r->cpu.cpl, 0);
    assert_int_equal(r->cpu.eip, 0x12345678);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0xb000);
    assert_int_equal(r->cpu.seg[RC_CS].selector, 0x60);
    assert_int_equal(r->cpu.seg[RC_CS].attr, 0xc09b);
    assert_int_equal(r->cpu.seg[RC_SS].selector, 0x68);
    assert_int_equal(r->cpu.seg[RC_SS].attr, 0xc093);
    assert_true(r->cpu.seg[RC_SS].soft == 0);
    assert_int_equal(rc_eflags(&r->cpu), RC_TF | RC_CF | 2); /* TF is the guest's to clear */
    r->cpu.gpr[RC_ECX] = 0xc000;
    r->cpu.gpr[RC_EDX] = 0x7777;
    assert_int_equal(rc_sysexit(&r->cpu), RC_OK);
    assert_int_equal(r->cpu.cpl, 3);
    assert_int_equal(r->cpu.seg[RC_CS].selector, 0x73);
    assert_int_equal(r->cpu.seg[RC_CS].attr, 0xc0fb);
    assert_int_equal(r->cpu.seg[RC_SS].selector, 0x7b);
    assert_int_equal(r->cpu.seg[RC_SS].attr, 0xc0f3);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0xc000);
    assert_int_equal(r->cpu.eip, 0x7777);
    remember(r);
    check_fault(r, rc_sysexit(&r->cpu), RC_GP, 0); /* not in ring 0 */
}

static void sysenter_from_v86(void **state)
{
    struct rig *r = *state;
    go_v86(r, 0);
    r->cpu.sysenter_cs = 0x60;
    assert_int_equal(rc_sysenter(&r->cpu), RC_OK);
    assert_int_equal(rc_eflags(&r->cpu), 2);
}

static void sysenter_masked_out(void **state)
{
    struct rig *r = *state;
    struct host_err err;
    assert_int_equal(rc_config_mask(&r->cpu.config, "-sep", &err), 0);
    r->cpu.sysenter_cs = 0x60;
    remember(r);
    check_plain_fault(r, rc_sysenter(&r->cpu), RC_UD);
    check_plain_fault(r, rc_sysexit(&r->cpu), RC_UD);
}

/* ---- Task switches (7.3) ---- */

static void make_task(struct rig *r)
{
    for (unsigned i = 0; i < 8; i++)
        put32(r, TSS_B + 0x28 + 4 * i, 0xb0000000 + i);
    put32(r, TSS_B + 0x1c, 0xabc000); /* CR3, not loaded while paging is off */
    put32(r, TSS_B + 0x20, 0x5555);
    put32(r, TSS_B + 0x24, RC_CF);
    for (unsigned i = 0; i < 6; i++)
        put32(r, TSS_B + 0x48 + 4 * i, i == 1 ? KCODE : KDATA);
    put32(r, TSS_B + 0x60, LDT_SEL);
}

static void check_task_b(const struct rig *r)
{
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(r->cpu.gpr[i], 0xb0000000 + i);
    assert_int_equal(r->cpu.eip, 0x5555);
    assert_int_equal(r->cpu.seg[RC_TR].selector, TSS_B_SEL);
    assert_int_equal(r->cpu.seg[RC_TR].base, TSS_B);
    assert_int_equal(r->cpu.seg[RC_TR].attr, 0x8b);
    assert_int_equal(r->cpu.seg[RC_LDTR].selector, LDT_SEL);
    assert_int_equal(r->cpu.seg[RC_LDTR].base, LDT);
    assert_int_equal(r->cpu.seg[RC_CS].selector, KCODE);
    assert_int_equal(r->cpu.cr0 & RC_CR0_TS, RC_CR0_TS);
}

static void jump_to_a_task(void **state)
{
    struct rig *r = *state;
    make_task(r);
    for (unsigned i = 0; i < 8; i++)
        r->cpu.gpr[i] = 0xa0000000 + i;
    rc_set_eflags(&r->cpu, RC_IF | RC_NT | RC_ZF);
    r->cpu.dr[7] = 0x7ff;
    assert_int_equal(rc_far_jmp(&r->cpu, TSS_B_SEL, 0xdeadbeef, 4, NEXT), RC_OK);
    check_task_b(r);
    assert_int_equal(rc_eflags(&r->cpu), RC_CF | 2);
    assert_int_equal(r->cpu.dr[7], 0x6aa); /* local breakpoints off */
    assert_int_equal(access_byte(r, TSS_SEL), 0x89);
    assert_int_equal(access_byte(r, TSS_B_SEL), 0x8b);
    assert_int_equal(get16(r, TSS_B), 0); /* no link */
    assert_int_equal(get32(r, TSS + 0x20), NEXT);
    assert_int_equal(get32(r, TSS + 0x24), RC_IF | RC_NT | RC_ZF | 2);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(get32(r, TSS + 0x28 + 4 * i), 0xa0000000 + i);
    assert_int_equal(get32(r, TSS + 0x4c), KCODE);
    assert_int_equal(r->cpu.task_switches, 1);
}

static void call_a_task_and_return(void **state)
{
    struct rig *r = *state;
    make_task(r);
    r->cpu.gpr[RC_EBX] = 0x1b1b;
    assert_int_equal(rc_far_call(&r->cpu, TSS_B_SEL, 0, 4, NEXT), RC_OK);
    check_task_b(r);
    assert_int_equal(rc_eflags(&r->cpu), RC_CF | RC_NT | 2);
    assert_int_equal(access_byte(r, TSS_SEL), 0x8b); /* stays busy */
    assert_int_equal(access_byte(r, TSS_B_SEL), 0x8b);
    assert_int_equal(get16(r, TSS_B), TSS_SEL);
    assert_int_equal(rc_iret(&r->cpu, 4, 0x5556), RC_OK);
    assert_int_equal(r->cpu.seg[RC_TR].selector, TSS_SEL);
    assert_int_equal(r->cpu.eip, NEXT);
    assert_int_equal(r->cpu.gpr[RC_EBX], 0x1b1b);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x9000);
    assert_int_equal(rc_eflags(&r->cpu), 2);
    assert_int_equal(access_byte(r, TSS_SEL), 0x8b);
    assert_int_equal(access_byte(r, TSS_B_SEL), 0x89); /* free again */
    assert_int_equal(get32(r, TSS_B + 0x20), 0x5556);
    assert_int_equal(get32(r, TSS_B + 0x24), RC_CF | 2); /* NT was cleared in the image */
}

static void tasks_refused(void **state)
{
    struct rig *r = *state;
    make_task(r);
    put_gate(r, GDT + SLOT, TSS_B_SEL, 0, 0x85, 0);
    go_user(r);
    remember(r);
    check_fault(r, rc_far_jmp(&r->cpu, TSS_B_SEL, 0, 4, NEXT), RC_GP, TSS_B_SEL); /* DPL 0 */
    check_fault(r, rc_far_call(&r->cpu, SLOT, 0, 4, NEXT), RC_GP, SLOT);
    rc_cpu_flat(&r->cpu, KCODE, KDATA);
    r->cpu.gdtr = (struct rc_table){GDT, GDT_LIMIT};
    set_seg(r, RC_TR, TSS_SEL, TSS, 0x67, 0x8b);
    r->cpu.gpr[RC_ESP] = 0x9000;
    gdt(r, TSS_B_SEL, TSS_B, 0x67, 0x09, G0);
    remember(r);
    check_fault(r, rc_far_jmp(&r->cpu, TSS_B_SEL, 0, 4, NEXT), RC_NP, TSS_B_SEL);
    gdt(r, TSS_B_SEL, TSS_B, 0x66, 0x89, G0);
    check_fault(r, rc_far_jmp(&r->cpu, SLOT, 0, 4, NEXT), RC_TS, TSS_B_SEL);
    put_gate(r, GDT + SLOT, TSS_B_SEL, 0, 0x05, 0);
    check_fault(r, rc_far_jmp(&r->cpu, SLOT, 0, 4, NEXT), RC_NP, SLOT);
    /* IRET with NT: the link must name a busy TSS in the GDT. */
    r->cpu.eflags |= RC_NT;
    remember(r);
    put16(r, TSS, TSS_B_SEL);
    gdt(r, TSS_B_SEL, TSS_B, 0x67, 0x89, G0);
    check_fault(r, rc_iret(&r->cpu, 4, NEXT), RC_TS, TSS_B_SEL);
    put16(r, TSS, TSS_B_SEL | 4);
    check_fault(r, rc_iret(&r->cpu, 4, NEXT), RC_TS, TSS_B_SEL | 4);
    put16(r, TSS, TSS_B_SEL);
    gdt(r, TSS_B_SEL, TSS_B, 0x67, 0x0b, G0);
    check_fault(r, rc_iret(&r->cpu, 4, NEXT), RC_NP, TSS_B_SEL);
}

/* Segments of the new task that cannot be loaded: table 7-1. The exception is the new task's. */
struct task_case {
    const char *what;
    unsigned field; /* offset in the TSS */
    uint16_t selector;
    uint8_t access; /* of SLOT */
    unsigned vector;
    uint32_t error;
};
static const struct task_case task_cases[] = {
    {"LDT is none", 0x60, KDATA, 0x82, RC_TS, KDATA},
    {"LDT not present", 0x60, SLOT, 0x02, RC_TS, SLOT},
    {"LDT in the LDT", 0x60, 4, 0x82, RC_TS, 4},
    {"DS beyond the GDT", 0x54, 0x100, 0x93, RC_TS, 0x100},
    {"DS is execute-only code", 0x54, SLOT, 0x99, RC_TS, SLOT},
    {"DS not present", 0x54, SLOT, 0x13, RC_NP, SLOT},
    {"FS inner by RPL", 0x58, SLOT | 3, 0x93, RC_TS, SLOT},
    {"ES null", 0x48, 0, 0x93, NONE, 0},
    {"CS null", 0x4c, 0, 0x9b, RC_TS, 0},
    {"CS beyond the GDT", 0x4c, 0x100, 0x9b, RC_TS, 0x100},
    {"CS is data", 0x4c, SLOT, 0x93, RC_TS, SLOT},
    {"CS is of another ring than its RPL", 0x4c, SLOT, 0xfb, RC_TS, SLOT},
    {"CS is conforming and outer", 0x4c, SLOT, 0xff, RC_TS, SLOT},
    {"CS not present", 0x4c, SLOT, 0x1b, RC_NP, SLOT},
    {"EIP beyond CS", 0x4c, SLOT, 0x9b, RC_GP, 0},
    {"SS null", 0x50, 0, 0x93, RC_TS, 0},
    {"SS is code", 0x50, SLOT, 0x9b, RC_TS, SLOT},
    {"SS by RPL", 0x50, SLOT | 3, 0x93, RC_TS, SLOT},
    {"SS by DPL", 0x50, SLOT, 0xf3, RC_TS, SLOT},
    {"SS not present", 0x50, SLOT, 0x13, RC_SSF, SLOT},
    {"GS inner by DPL in ring 0: none is", 0x5c, SLOT, 0xf3, NONE, 0},
};

static void segments_of_the_new_task(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof task_cases / sizeof *task_cases; i++) {
        const struct task_case *c = &task_cases[i];
        print_message("    %s\n", c->what);
        /* A table-7-1 fault before SS is loaded has no stack: let the handler be a task of its own ... */
        rig_tables(r);
        gdt(r, TSS_SEL, TSS, 0x67, 0x8b, G0);
        gdt(r, SLOT, 0, 0x5554, c->access, G0); /* one byte short of the new task's EIP */
        gdt(r, SLOT3, 0x6000, 0x67, 0x89, G0);
        make_task(r);
        memcpy(r->ram.base + 0x6000, r->ram.base + TSS_B, 0x68);
        put32(r, 0x6000 + 0x20, 0x6666);
        put32(r, 0x6000 + 0x38, 0xb000);
        idt(r, c->vector == NONE ? 0xff : c->vector, SLOT3, 0, 0x85);
        put16(r, TSS_B + c->field, c->selector);
        set_seg(r, RC_TR, TSS_SEL, TSS, 0x67, 0x8b);
        go_ring(r, 0, KCODE, KDATA);
        assert_int_equal(rc_far_jmp(&r->cpu, TSS_B_SEL, 0, 4, NEXT), RC_OK);
        if (c->vector == NONE) {
            check_task_b(r);
            continue;
        }
        /* ... which shows that TSS_B was current and at its first instruction when the fault came. */
        assert_int_equal(r->cpu.shutdown, 0);
        assert_int_equal(r->cpu.eip, 0x6666);
        assert_int_equal(get16(r, 0x6000), TSS_B_SEL);
        assert_int_equal(get32(r, TSS_B + 0x20), 0x5555);
        assert_int_equal(get32(r, 0xb000 - 4), c->error);
    }
}

static void a_16_bit_task(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0x6000, 0x2b, 0x81, G0);
    put16(r, 0x6000 + 0x0e, 0x5555);
    put16(r, 0x6000 + 0x10, RC_CF);
    for (unsigned i = 0; i < 8; i++)
        put16(r, 0x6000 + 0x12 + 2 * i, (uint16_t)(0xb000 + i));
    for (unsigned i = 0; i < 4; i++)
        put16(r, 0x6000 + 0x22 + 2 * i, i == 1 ? KCODE : KDATA);
    assert_int_equal(rc_far_call(&r->cpu, SLOT, 0, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.eip, 0x5555);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(r->cpu.gpr[i] & 0xffff, 0xb000 + i);
    assert_int_equal(r->cpu.seg[RC_DS].selector, KDATA);
    assert_int_equal(r->cpu.seg[RC_FS].selector, 0);
    assert_int_equal(access_byte(r, SLOT), 0x83);
    r->cpu.gpr[RC_ESI] = 0x12345678;
    assert_int_equal(rc_iret(&r->cpu, 4, 0x5557), RC_OK);
    assert_int_equal(r->cpu.eip, NEXT);
    assert_int_equal(get16(r, 0x6000 + 0x0e), 0x5557);
    assert_int_equal(get16(r, 0x6000 + 0x1e), 0x5678);
    assert_int_equal(access_byte(r, SLOT), 0x81);
}

static void the_t_bit_traps(void **state)
{
    struct rig *r = *state;
    make_task(r);
    put32(r, TSS_B + 0x38, 0xb000);
    put16(r, TSS_B + 0x64, 1);
    assert_int_equal(rc_far_jmp(&r->cpu, TSS_B_SEL, 0, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.eip, handler(RC_DB));
    assert_int_equal(get32(r, 0xb000 - 12), 0x5555);
    assert_int_equal(r->cpu.dr[6], 0xffff8ff0); /* BT */
}

static void a_v86_task(void **state)
{
    struct rig *r = *state;
    make_task(r);
    put32(r, TSS_B + 0x24, RC_VM);
    put32(r, TSS_B + 0x4c, 0xf000);
    put32(r, TSS_B + 0x54, 0x4000);
    assert_int_equal(rc_far_jmp(&r->cpu, TSS_B_SEL, 0, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.cpl, 3);
    assert_int_equal(r->cpu.seg[RC_CS].base, 0xf0000);
    assert_int_equal(r->cpu.seg[RC_DS].base, 0x40000);
    assert_int_equal(r->cpu.seg[RC_DS].attr, 0xf3);
}

static void cr3_comes_with_the_task(void **state)
{
    struct rig *r = *state;
    make_task(r);
    put32(r, 0x82000, PT | 7); /* a second directory, same pages */
    put32(r, TSS_B + 0x1c, 0x82000);
    go_paged(r, 0);
    assert_int_equal(rc_far_jmp(&r->cpu, TSS_B_SEL, 0, 4, NEXT), RC_OK);
    assert_int_equal(r->cpu.cr3, 0x82000);
    assert_int_equal(spt_paging(r->spt)->cr3, 0x82000);
    check_task_b(r);
}

static void an_old_tss_that_cannot_be_written(void **state)
{
    struct rig *r = *state;
    make_task(r);
    go_paged(r, 0);
    put32(r, PT + 4 * (TSS >> 12), TSS | 5); /* read-only; both TSSs lie in this page */
    spt_invlpg(r->spt, TSS);
    remember(r);
    check_fault(r, rc_far_jmp(&r->cpu, TSS_B_SEL, 0, 4, NEXT), RC_PFAULT, SPT_WRITE | SPT_PRESENT);
    assert_int_equal(r->cpu.fault.cr2, TSS + 0x20);
    assert_int_equal(access_byte(r, TSS_B_SEL), 0x89);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(iret_same_ring),
        rig_test(iret_16_bit),
        rig_test(iret_to_user),
        rig_test(iret_to_a_16_bit_stack_leaves_the_upper_half),
        rig_test(iret_flags),
        rig_test(returns_refused),
        rig_test(returns_beyond_the_stack),
        rig_test(iret_across_a_page_that_is_missing),
        rig_test(returns_mark_what_they_load),
        rig_test(iret_in_real_mode),
        rig_test(iret_to_v86),
        rig_test(vm_in_the_image_needs_ring_0_and_32_bits),
        rig_test(iret_within_v86),
        rig_test(far_targets_refused),
        rig_test(far_jumps),
        rig_test(far_calls_and_returns),
        rig_test(far_return_outwards),
        rig_test(far_transfers_in_v86),
        rig_test(call_gate_with_parameters),
        rig_test(call_gate_of_16_bits),
        rig_test(gates_within_a_ring),
        rig_test(gates_refused),
        rig_test(inner_call_stacks_refused),
        rig_test(sysenter_and_sysexit),
        rig_test(sysenter_from_v86),
        rig_test(sysenter_masked_out),
        rig_test(jump_to_a_task),
        rig_test(call_a_task_and_return),
        rig_test(tasks_refused),
        rig_test(segments_of_the_new_task),
        rig_test(a_16_bit_task),
        rig_test(the_t_bit_traps),
        rig_test(a_v86_task),
        rig_test(cr3_comes_with_the_task),
        rig_test(an_old_tss_that_cannot_be_written),
    };
    return cmocka_run_group_tests_name("ringcomp transfers", tests, NULL, NULL);
}
