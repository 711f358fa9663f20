/* Unit test of ringcomp's direct execution: when it is possible, which descriptors a world gets, what comes back. */
#include "test_ringcomp_rig.h"

struct ldt {
    struct host_world_segment entry[HOST_WORLD_LDT_ENTRIES];
    unsigned installs;
    bool refuse;
};

static struct ldt ldt;
static struct rc_world world;
static struct host_world_state st;

static int install(void *ctx, unsigned index, const struct host_world_segment *seg)
{
    struct ldt *l = ctx;
    assert_in_range(index, 1, HOST_WORLD_LDT_ENTRIES - 1);
    if (l->refuse)
        return -1;
    l->entry[index] = *seg;
    l->installs++;
    return 0;
}

static void start(struct rig *r)
{
    memset(&ldt, 0, sizeof ldt);
    memset(&world, 0xff, sizeof world);
    memset(&st, 0xff, sizeof st);
    rc_world_init(&world);
    go_paged(r, 0);
    go_user(r);
    rc_set_eflags(&r->cpu, RC_IF | RC_CF);
    r->cpu.cr4 |= RC_CR4_OSFXSR;
}

static bool enter(struct rig *r)
{
    return rc_world_enter(&r->cpu, &world, &st, install, &ldt);
}

static const struct host_world_segment *in(uint16_t sel)
{
    assert_int_equal(sel & 7, 7);
    return &ldt.entry[sel >> 3];
}

static void possible(void **state)
{
    static const uint32_t odd[] = {RC_TF, RC_AC, RC_VM, 1 << 12, 2 << 12, RC_IOPL, RC_VIF, RC_VIP};
    struct rig *r = *state;
    start(r);
    assert_true(rc_direct_possible(&r->cpu));
    for (unsigned i = 0; i < sizeof odd / sizeof *odd; i++) {
        rc_set_eflags(&r->cpu, RC_IF | odd[i]);
        assert_false(rc_direct_possible(&r->cpu));
    }
    rc_set_eflags(&r->cpu, RC_ARITH | RC_DF); /* IF clear */
    assert_false(rc_direct_possible(&r->cpu));
    rc_set_eflags(&r->cpu, RC_ARITH | RC_DF | RC_IF | RC_RF | RC_ID | RC_NT);
    assert_true(rc_direct_possible(&r->cpu));
    r->cpu.irq_shadow = 1;
    assert_false(rc_direct_possible(&r->cpu));
    r->cpu.irq_shadow = 0;
    r->cpu.cr0 |= RC_CR0_TS;
    assert_false(rc_direct_possible(&r->cpu));
    r->cpu.cr0 = (r->cpu.cr0 & ~(uint32_t)RC_CR0_TS) | RC_CR0_EM;
    assert_false(rc_direct_possible(&r->cpu));
    r->cpu.cr0 &= ~(uint32_t)RC_CR0_EM;
    r->cpu.cr4 = 0; /* SSE would be #UD */
    assert_false(rc_direct_possible(&r->cpu));
    r->cpu.cr4 = RC_CR4_OSFXSR;
    r->cpu.dr[7] |= 1;
    assert_false(rc_direct_possible(&r->cpu));
    r->cpu.dr[7] = 0x400;
    assert_true(rc_direct_possible(&r->cpu));
    set_seg(r, RC_CS, UCODE, 0x1000, UINT32_MAX, 0xc0fb);
    assert_false(rc_direct_possible(&r->cpu));
    set_seg(r, RC_CS, UCODE, 0, UINT32_MAX, 0x80fb); /* 16-bit code */
    assert_false(rc_direct_possible(&r->cpu));
    go_ring(r, 0, KCODE, KDATA);
    assert_false(rc_direct_possible(&r->cpu));
}

static void registers_go_in(void **state)
{
    struct rig *r = *state;
    start(r);
    for (unsigned i = 0; i < 8; i++)
        r->cpu.gpr[i] = 0x01010101 * (i + 1);
    r->cpu.eip = 0x12345678;
    rc_set_eflags(&r->cpu, RC_IF | RC_RF | RC_CF | RC_ZF | RC_DF | RC_OF | RC_ID | RC_NT);
    assert_true(enter(r));
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(st.gpr[i], 0x01010101 * (i + 1));
    assert_int_equal(st.eip, 0x12345678);
    assert_int_equal(st.eflags, 2 | RC_IF | RC_CF | RC_ZF | RC_DF | RC_OF | RC_ID | RC_NT);
    const struct host_world_segment *cs = in(st.sel[RC_CS]), *ss = in(st.sel[RC_SS]);
    assert_int_equal(cs->base, 0);
    assert_int_equal(cs->limit, UINT32_MAX);
    assert_int_equal(cs->type & ~1, 0xa);
    assert_true(cs->present && cs->big);
    assert_int_equal(ss->type & ~1, 2);
    assert_true(ss->present && ss->big);
    assert_int_equal(ldt.installs, 2); /* flat code; one flat data segment for five registers */
    assert_int_equal(st.sel[RC_DS], st.sel[RC_SS]);
    assert_true(enter(r));
    assert_int_equal(ldt.installs, 2);
}

static void odd_segments(void **state)
{
    struct rig *r = *state;
    start(r);
    set_seg(r, RC_GS, 0x33, 0xb7f00000, UINT32_MAX, 0xc0f3); /* thread-local storage */
    set_seg(r, RC_FS, 0x0f, 0x1000, 0x1234, 0x40f5);         /* expand down, read-only */
    set_seg(r, RC_ES, 0, 0, 0, 0);                           /* null */
    set_seg(r, RC_DS, 0x4b, 0, UINT32_MAX, 0xc0ff);          /* conforming code */
    assert_true(enter(r));
    assert_int_equal(st.sel[RC_ES], 0);
    const struct host_world_segment *gs = in(st.sel[RC_GS]), *fs = in(st.sel[RC_FS]), *ds = in(st.sel[RC_DS]);
    assert_int_equal(gs->base, 0xb7f00000);
    assert_int_equal(gs->type & ~1, 2);
    assert_int_equal(fs->base, 0x1000);
    assert_int_equal(fs->limit, 0x1234);
    assert_int_equal(fs->type & ~1, 4);
    assert_int_equal(ds->type & ~1,
                     0xa); /* the host takes no conforming ones; there is no difference at ring 3 */
    /* a descriptor's change shows at the next load, not before */
    r->cpu.seg[RC_GS].base = 0xb7e00000;
    uint16_t old = st.sel[RC_GS];
    assert_true(enter(r));
    assert_int_not_equal(st.sel[RC_GS], old);
    assert_int_equal(in(st.sel[RC_GS])->base, 0xb7e00000);
    ldt.refuse = true;
    assert_true(enter(r)); /* nothing new */
    r->cpu.seg[RC_GS].base = 0xb7d00000;
    assert_false(enter(r));
}

/* More threads than slots: the slot taken is not one that another register uses now. */
static void many_threads(void **state)
{
    struct rig *r = *state;
    start(r);
    for (unsigned i = 0; i < 10000; i++) {
        set_seg(r, RC_GS, 0x33, 0x10000000 + (i * 7 % 100) * 0x1000, UINT32_MAX, 0xc0f3);
        set_seg(r, RC_FS, 0x3b, 0x20000000 + (i % 90) * 0x1000, UINT32_MAX, 0xc0f3);
        assert_true(enter(r));
        assert_int_equal(in(st.sel[RC_GS])->base, r->cpu.seg[RC_GS].base);
        assert_int_equal(in(st.sel[RC_FS])->base, r->cpu.seg[RC_FS].base);
        assert_int_equal(in(st.sel[RC_CS])->type & 8, 8);
        assert_int_equal(in(st.sel[RC_DS])->base, 0);
    }
    world.clock = UINT32_MAX - 3; /* stamps wrap */
    for (unsigned i = 0; i < 10; i++) {
        assert_true(enter(r));
        assert_int_equal(in(st.sel[RC_GS])->base, r->cpu.seg[RC_GS].base);
    }
}

static void registers_come_back(void **state)
{
    struct rig *r = *state;
    start(r);
    assert_true(enter(r));
    for (unsigned i = 0; i < 8; i++)
        st.gpr[i] = 0xf0000000 + i;
    st.eip = 0x4321;
    st.eflags = 0xffffffff; /* IF and IOPL are not a world's to change, nor VM */
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_SAME);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(r->cpu.gpr[i], 0xf0000000 + i);
    assert_int_equal(r->cpu.eip, 0x4321);
    assert_int_equal(rc_eflags(&r->cpu), 2 | RC_ARITH | RC_DF | RC_IF | RC_TF | RC_NT | RC_AC | RC_ID);
    assert_int_equal(r->cpu.cpl, 3);
    st.eflags = 0;
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_SAME);
    assert_int_equal(rc_eflags(&r->cpu), 2 | RC_IF);
}

static void fpu_crosses(void **state)
{
    struct rig *r = *state;
    start(r);
    for (unsigned i = 0; i < 416; i++)
        r->cpu.fpu[i] = (uint8_t)(i * 5 + 1);
    uint32_t mxcsr = 0x1f80;
    memcpy(r->cpu.fpu + 24, &mxcsr, 4);
    assert_true(enter(r));
    assert_memory_equal(st.fpu, r->cpu.fpu, 416);
    assert_int_equal(st.fpu[512] & 3, 3); /* XSTATE_BV: x87 and SSE are to be loaded */
    assert_int_equal(st.fpu[520], 0);     /* XCOMP_BV: the standard format */
    memset(st.fpu + 416, 0xee, 96);       /* the host's own, not for the guest */
    st.fpu[200] ^= 0xff;
    mxcsr = 0xffff1f80; /* forged: FXRSTOR of this would fault */
    memcpy(st.fpu + 24, &mxcsr, 4);
    uint8_t expect[464];
    memcpy(expect, st.fpu, 464);
    mxcsr = 0x1f80;
    memcpy(expect + 24, &mxcsr, 4);
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_SAME);
    assert_memory_equal(r->cpu.fpu, expect, 416);
    /* XSTATE_BV says that x87 and SSE are in their initial state, whatever the bytes are (SDM vol. 1 13.8) */
    st.fpu[512] = 0;
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_SAME);
    assert_int_equal(r->cpu.fpu[0] | r->cpu.fpu[1] << 8, 0x037f);
    for (unsigned i = 32; i < 416; i++)
        assert_int_equal(r->cpu.fpu[i], 0);
    assert_int_equal(r->cpu.fpu[4], 0); /* abridged tag word: all empty */
}

static void selectors_loaded_inside(void **state)
{
    struct rig *r = *state;
    start(r);
    gdt(r, SLOT, 0x5000, 0xfff, 0xf3, D32);
    gdt(r, SLOT2, 0, FLAT_LIMIT, 0x93, G32); /* DPL 0 */
    assert_true(enter(r));
    uint16_t ours = st.sel[RC_DS];
    st.sel[RC_FS] = SLOT | 3; /* by its number, from the host's GDT */
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_RELOADED);
    assert_int_equal(r->cpu.seg[RC_FS].base, 0x5000);
    assert_int_equal(r->cpu.seg[RC_FS].selector, SLOT | 3);
    assert_true(enter(r));
    st.sel[RC_GS] = 0; /* null is nobody's */
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_RELOADED);
    assert_int_equal(r->cpu.seg[RC_GS].attr & RC_ATTR_P, 0);
    assert_true(enter(r));
    st.sel[RC_ES] = st.sel[RC_FS]; /* MOV AX, FS; MOV ES, AX: the guest's selector behind ours */
    assert_int_not_equal(st.sel[RC_ES], ours);
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_RELOADED);
    assert_int_equal(r->cpu.seg[RC_ES].selector, SLOT | 3);
    assert_int_equal(r->cpu.seg[RC_ES].base, 0x5000);
    assert_true(enter(r));
    st.sel[RC_DS] = SLOT2 | 3; /* not for ring 3 */
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_FAULT);
    assert_int_equal(r->cpu.fault.vector, RC_GP);
    assert_int_equal(r->cpu.fault.error, SLOT2);
    assert_true(enter(r));
    st.sel[RC_SS] = 0x2b; /* beyond what the guest has there: its TSS */
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_FAULT);
    assert_int_equal(r->cpu.fault.vector, RC_GP);
    assert_int_equal(r->cpu.fault.error, 0x28);
    assert_true(enter(r));
    st.sel[RC_CS] = 0x33; /* the host's 64-bit code segment */
    assert_int_equal(rc_world_leave(&r->cpu, &world, &st), RC_WORLD_FAULT);
    assert_int_equal(r->cpu.fault.vector, RC_GP);
    assert_int_equal(r->cpu.fault.error, 0x30);
    assert_int_equal(r->cpu.cpl, 3);
    assert_int_equal(r->cpu.seg[RC_CS].selector, UCODE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(possible),
        rig_test(registers_go_in),
        rig_test(odd_segments),
        rig_test(many_threads),
        rig_test(registers_come_back),
        rig_test(fpu_crosses),
        rig_test(selectors_loaded_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
