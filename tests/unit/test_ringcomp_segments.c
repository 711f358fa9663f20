/* Segment loads, limits, LAR and kin, LLDT and LTR against vol. 2's and chapter 5's checks. */
#include "test_ringcomp_rig.h"

/* One descriptor in SLOT, one load. access: bits 47:40 of the descriptor. vector NONE: the load succeeds. */
enum { NONE = 255 };
struct load_case {
    const char *what;
    unsigned seg, cpl;
    uint16_t selector;
    uint8_t access;
    unsigned vector;
    uint32_t error;
};

static const struct load_case load_cases[] = {
    /* SS: MOV's protected-mode exceptions, in order */
    {"null", RC_SS, 0, 0, 0x92, RC_GP, 0},
    {"null with RPL", RC_SS, 3, 3, 0xf2, RC_GP, 0},
    {"beyond the GDT", RC_SS, 0, 0x100, 0x92, RC_GP, 0x100},
    {"in an LDT that is not there", RC_SS, 0, 0x44, 0x92, RC_GP, 0x44},
    {"good", RC_SS, 0, SLOT, 0x92, NONE, 0},
    {"good, expand-down", RC_SS, 0, SLOT, 0x96, NONE, 0},
    {"good in ring 1", RC_SS, 1, SLOT | 1, 0xb2, NONE, 0},
    {"good in ring 3", RC_SS, 3, SLOT | 3, 0xf2, NONE, 0},
    {"RPL above CPL", RC_SS, 0, SLOT | 3, 0x92, RC_GP, SLOT},
    {"RPL below CPL", RC_SS, 3, SLOT, 0xf2, RC_GP, SLOT},
    {"DPL above CPL", RC_SS, 0, SLOT, 0xf2, RC_GP, SLOT},
    {"DPL below CPL", RC_SS, 3, SLOT | 3, 0x92, RC_GP, SLOT},
    {"read-only data", RC_SS, 0, SLOT, 0x90, RC_GP, SLOT},
    {"readable code", RC_SS, 0, SLOT, 0x9a, RC_GP, SLOT},
    {"a TSS", RC_SS, 0, SLOT, 0x89, RC_GP, SLOT},
    {"a type whose bits look like writable data", RC_SS, 0, SLOT, 0x82, RC_GP, SLOT},
    {"not present", RC_SS, 0, SLOT, 0x12, RC_SSF, SLOT},
    {"not present and code: type first", RC_SS, 0, SLOT, 0x1a, RC_GP, SLOT},
    {"not present and RPL: privilege first", RC_SS, 0, SLOT | 1, 0x12, RC_GP, SLOT},
    /* Data segments */
    {"null", RC_DS, 0, 0, 0x92, NONE, 0},
    {"null with RPL 3", RC_ES, 3, 3, 0x92, NONE, 0},
    {"beyond the GDT", RC_ES, 0, 0x103, 0x92, RC_GP, 0x100},
    {"in an LDT that is not there", RC_FS, 3, 0x47, 0xf2, RC_GP, 0x44},
    {"good", RC_DS, 0, SLOT, 0x92, NONE, 0},
    {"read-only is good", RC_ES, 0, SLOT, 0x90, NONE, 0},
    {"readable code is good", RC_FS, 0, SLOT, 0x9a, NONE, 0},
    {"execute-only code", RC_GS, 0, SLOT, 0x98, RC_GP, SLOT},
    {"execute-only conforming code", RC_GS, 0, SLOT, 0x9c, RC_GP, SLOT},
    {"readable conforming code from outside", RC_DS, 3, SLOT | 3, 0x9e, NONE, 0},
    {"inner data", RC_DS, 3, SLOT, 0x92, RC_GP, SLOT},
    {"inner data by RPL", RC_DS, 0, SLOT | 3, 0x92, RC_GP, SLOT},
    {"inner readable code", RC_DS, 3, SLOT | 3, 0x9a, RC_GP, SLOT},
    {"RPL below CPL, DPL fits", RC_DS, 3, SLOT, 0xf2, NONE, 0},
    {"ring 2, RPL 1, DPL 2", RC_DS, 2, SLOT | 1, 0xd2, NONE, 0},
    {"ring 1, RPL 2, DPL 1", RC_DS, 1, SLOT | 2, 0xb2, RC_GP, SLOT},
    {"outer data", RC_DS, 0, SLOT, 0xf2, NONE, 0},
    {"an LDT", RC_DS, 0, SLOT, 0x82, RC_GP, SLOT},
    {"a call gate", RC_DS, 0, SLOT, 0x8c, RC_GP, SLOT},
    {"not present", RC_DS, 0, SLOT, 0x12, RC_NP, SLOT},
    {"not present readable code", RC_DS, 0, SLOT, 0x1a, RC_NP, SLOT},
    {"not present and inner: privilege first", RC_DS, 3, SLOT, 0x12, RC_GP, SLOT},
};

static void check_load_case(struct rig *r, const struct load_case *c)
{
    gdt(r, SLOT, 0x12345678, 0x0fff, c->access, D32);
    go_ring(r, c->cpl, c->cpl == 3 ? UCODE : KCODE, c->cpl == 3 ? UDATA : KDATA);
    remember(r);
    const enum rc_result result = rc_load_seg(&r->cpu, c->seg, c->selector);
    if (c->vector != NONE) {
        check_fault(r, result, c->vector, c->error);
        assert_int_equal(access_byte(r, SLOT), c->access);
        return;
    }
    const struct rc_seg *s = &r->cpu.seg[c->seg];
    assert_int_equal(result, RC_OK);
    assert_int_equal(s->selector, c->selector);
    if (c->selector < 4) {
        assert_int_equal(s->attr & RC_ATTR_P, 0);
        return;
    }
    assert_int_equal(access_byte(r, SLOT), c->access | 1);
    assert_int_equal(s->base, 0x12345678);
    assert_int_equal(s->limit, 0xfff);
    assert_int_equal(s->attr, 0x4000 | c->access | 1);
}

static void loads(void **state)
{
    for (unsigned i = 0; i < sizeof load_cases / sizeof *load_cases; i++) {
        print_message("    %u %s\n", load_cases[i].seg, load_cases[i].what);
        check_load_case(*state, &load_cases[i]);
    }
}

static void a_descriptor_cut_by_the_limit(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0, FLAT_LIMIT, 0x93, G32);
    r->cpu.gdtr.limit = SLOT + 6;
    remember(r);
    check_fault(r, rc_load_seg(&r->cpu, RC_DS, SLOT), RC_GP, SLOT);
    r->cpu.gdtr.limit = SLOT + 7;
    assert_int_equal(rc_load_seg(&r->cpu, RC_DS, SLOT), RC_OK);
}

static void granularity_and_soft(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0xc0001000, FLAT_LIMIT, 0x92, G32);
    assert_int_equal(rc_load_seg(&r->cpu, RC_FS, SLOT), RC_OK);
    assert_int_equal(r->cpu.seg[RC_FS].limit, UINT32_MAX);
    assert_true(r->cpu.seg[RC_FS].soft == 0xc0001000);
    gdt(r, SLOT, 0, FLAT_LIMIT, 0x90, G32); /* flat but read-only */
    assert_int_equal(rc_load_seg(&r->cpu, RC_FS, SLOT), RC_OK);
    assert_true(r->cpu.seg[RC_FS].soft == RC_SOFT_ODD << 32);
    gdt(r, SLOT, 0, 0xffffe, 0x92, G32); /* one page short */
    assert_int_equal(rc_load_seg(&r->cpu, RC_FS, SLOT), RC_OK);
    assert_int_equal(r->cpu.seg[RC_FS].limit, 0xffffefff);
    assert_true(r->cpu.seg[RC_FS].soft == RC_SOFT_ODD << 32);
    assert_int_equal(rc_load_seg(&r->cpu, RC_FS, 0), RC_OK);
    assert_true(r->cpu.seg[RC_FS].soft == RC_SOFT_ODD << 32);
}

static void through_the_ldt(void **state)
{
    struct rig *r = *state;
    put_desc(r, LDT, 0x5000, 0xff, 0x92, D32); /* entry 0 of an LDT is an entry like others */
    assert_int_equal(rc_lldt(&r->cpu, LDT_SEL), RC_OK);
    assert_int_equal(rc_load_seg(&r->cpu, RC_GS, 4), RC_OK);
    assert_int_equal(r->cpu.seg[RC_GS].base, 0x5000);
    assert_int_equal(get8(r, LDT + 5), 0x93);
    remember(r);
    check_fault(r, rc_load_seg(&r->cpu, RC_GS, 0x24), RC_GP, 0x24); /* limit is 0x1f */
}

static void a_table_page_that_is_not_there(void **state)
{
    struct rig *r = *state;
    go_paged(r, LDT);
    assert_int_equal(rc_lldt(&r->cpu, LDT_SEL), RC_OK);
    go_user(r);
    remember(r);
    /* An implicit supervisor read: the U bit of the error code is clear although CPL is 3. */
    check_fault(r, rc_load_seg(&r->cpu, RC_GS, 7), RC_PFAULT, 0);
    assert_int_equal(r->cpu.fault.cr2, LDT);
}

static void in_virtual_8086_mode(void **state)
{
    struct rig *r = *state;
    go_v86(r, 0);
    assert_int_equal(rc_load_seg(&r->cpu, RC_DS, 0xb800), RC_OK);
    assert_int_equal(r->cpu.seg[RC_DS].base, 0xb8000);
    assert_int_equal(r->cpu.seg[RC_DS].limit, 0xffff);
    assert_int_equal(r->cpu.seg[RC_DS].attr, 0xf3);
}

/* ---- Limits (5.3) ---- */

struct limit_case {
    const char *what;
    uint32_t limit;
    uint16_t attr;
    uint32_t off;
    unsigned len;
    bool write, allowed;
};
static const struct limit_case limit_cases[] = {
    {"last byte", 0xfff, 0x4093, 0xfff, 1, true, true},
    {"one beyond", 0xfff, 0x4093, 0x1000, 1, true, false},
    {"straddles the limit", 0xfff, 0x4093, 0xffd, 4, false, false},
    {"ends at the limit", 0xfff, 0x4093, 0xffc, 4, false, true},
    {"wraps", 0xfffffffe, 0x4093, 0xfffffffe, 4, false, false},
    {"wraps although the limit is 4 GiB - 1", 0xffffffff, 0x4093, 0xfffffffe, 4, false, false},
    {"read-only: read", 0xfff, 0x4091, 0, 4, false, true},
    {"read-only: write", 0xfff, 0x4091, 0, 4, true, false},
    {"readable code: read", 0xfff, 0x409b, 0, 4, false, true},
    {"readable code: write", 0xfff, 0x409b, 0, 4, true, false},
    {"execute-only: read", 0xfff, 0x4099, 0, 4, false, false},
    {"null", 0, 0, 0, 1, false, false},
    {"expand-down: at the limit", 0xfff, 0x4097, 0xfff, 1, true, false},
    {"expand-down: above it", 0xfff, 0x4097, 0x1000, 4, true, true},
    {"expand-down: to the top", 0xfff, 0x4097, 0xfffffffc, 4, true, true},
    {"expand-down: over the top", 0xfff, 0x4097, 0xfffffffd, 4, true, false},
    {"expand-down 16-bit: to the top", 0xfff, 0x0097, 0xfffe, 2, true, true},
    {"expand-down 16-bit: over the top", 0xfff, 0x0097, 0xffff, 2, true, false},
    {"expand-down with limit 4 GiB - 1 is empty", 0xffffffff, 0x4097, 0, 1, true, false},
};

static void limits(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof limit_cases / sizeof *limit_cases; i++) {
        const struct limit_case *c = &limit_cases[i];
        uint32_t lin = 0;
        print_message("    %s\n", c->what);
        set_seg(r, RC_DS, SLOT, 0x10000, c->limit, c->attr);
        set_seg(r, RC_SS, SLOT, 0x10000, c->limit, c->attr);
        remember(r);
        if (c->allowed) {
            assert_int_equal(rc_linear(&r->cpu, RC_DS, c->off, c->len, c->write, &lin), RC_OK);
            assert_int_equal(lin, 0x10000 + c->off);
        } else {
            check_fault(r, rc_linear(&r->cpu, RC_DS, c->off, c->len, c->write, &lin), RC_GP, 0);
            check_fault(r, rc_linear(&r->cpu, RC_SS, c->off, c->len, c->write, &lin), RC_SSF, 0);
        }
    }
}

static void pushes_and_pops(void **state)
{
    struct rig *r = *state;
    uint32_t value;
    assert_int_equal(rc_push(&r->cpu, 0x11223344, 4), RC_OK);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x8ffc);
    assert_int_equal(get32(r, 0x8ffc), 0x11223344);
    assert_int_equal(rc_pop(&r->cpu, &value, 2), RC_OK);
    assert_int_equal(value, 0x3344);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0x8ffe);
    /* A 16-bit stack wraps SP and leaves the upper half of ESP alone. */
    set_seg(r, RC_SS, SLOT, 0x10000, 0xffff, 0x0093);
    r->cpu.gpr[RC_ESP] = 0xabcd0000;
    assert_int_equal(rc_push(&r->cpu, 0xbeef, 2), RC_OK);
    assert_int_equal(r->cpu.gpr[RC_ESP], 0xabcdfffe);
    assert_int_equal(get16(r, 0x1fffe), 0xbeef);
    r->cpu.gpr[RC_ESP] = 0xabcd0002; /* four bytes at FFFE straddle the limit */
    remember(r);
    check_fault(r, rc_push(&r->cpu, 1, 4), RC_SSF, 0);
}

static void a_push_to_a_missing_page(void **state)
{
    struct rig *r = *state;
    go_paged(r, 0xb000);
    go_user(r);
    r->cpu.gpr[RC_ESP] = 0xc002;
    remember(r);
    check_fault(r, rc_push(&r->cpu, 1, 4), RC_PFAULT, SPT_WRITE | SPT_USER);
    assert_int_equal(r->cpu.fault.cr2, 0xbffe);
    check_fault(r, rc_check_rmw(&r->cpu, RC_DS, 0xbffe, 4), RC_PFAULT, SPT_WRITE | SPT_USER);
    assert_int_equal(rc_check_rmw(&r->cpu, RC_DS, 0xc000, 4), RC_OK);
}

static void stores_to_a_read_only_page(void **state)
{
    struct rig *r = *state;
    uint32_t value = 1;
    go_paged(r, 0);
    put32(r, PT + 4 * 0xb, 0xb000 | 5);
    spt_invlpg(r->spt, 0xb000);
    assert_int_equal(rc_read(&r->cpu, RC_DS, 0xb000, &value, 4), RC_OK); /* now it can be read at once */
    assert_int_equal(value, 0);
    value = 1;
    remember(r);
    check_fault(r, rc_write(&r->cpu, RC_DS, 0xb000, &value, 4), RC_PFAULT, SPT_WRITE | SPT_PRESENT);
    check_fault(r, rc_check_rmw(&r->cpu, RC_DS, 0xb000, 4), RC_PFAULT, SPT_WRITE | SPT_PRESENT);
    assert_int_equal(get32(r, 0xb000), 0);
    assert_int_equal(get32(r, PT + 4 * 0xb) & 0x60, 0x20); /* A, not D */
}

static void copies_of_every_size(void **state)
{
    struct rig *r = *state;
    uint8_t out[512], in[512];
    for (unsigned i = 0; i < sizeof out; i++)
        out[i] = (uint8_t)(i * 7 + 1);
    for (unsigned len = 1; len <= 16; len++) {
        memset(in, 0, sizeof in);
        assert_int_equal(rc_write(&r->cpu, RC_DS, 0xbff9, out, len), RC_OK); /* also across pages */
        assert_int_equal(rc_read(&r->cpu, RC_DS, 0xbff9, in, len), RC_OK);
        assert_memory_equal(in, out, len);
        assert_memory_equal(r->ram.base + 0xbff9, out, len);
    }
    assert_int_equal(rc_write(&r->cpu, RC_DS, 0xc100, out, 512), RC_OK);
    assert_int_equal(rc_read(&r->cpu, RC_DS, 0xc100, in, 512), RC_OK);
    assert_memory_equal(in, out, 512);
}

static void fetches(void **state)
{
    struct rig *r = *state;
    uint8_t buf[16];
    go_paged(r, 0x8000);
    for (unsigned i = 0; i < 16; i++)
        put8(r, 0x7ff0 + i, (uint8_t)(i + 1));
    assert_int_equal(rc_fetch(&r->cpu, 0x7ffb, buf, 15), 5); /* to the end of the last good page */
    assert_int_equal(buf[0], 12);
    assert_int_equal(buf[4], 16);
    assert_int_equal(rc_fetch(&r->cpu, 0x8000, buf, 15), 0);
    assert_int_equal(r->cpu.fault.vector, RC_PFAULT);
    assert_int_equal(r->cpu.fault.cr2, 0x8000);
    set_seg(r, RC_CS, KCODE, 0x7000, 0xff2, 0x409b);
    assert_int_equal(rc_fetch(&r->cpu, 0xff1, buf, 15), 2); /* to the limit */
    assert_int_equal(buf[1], 3);
    assert_int_equal(rc_fetch(&r->cpu, 0xff3, buf, 15), 0);
    assert_int_equal(r->cpu.fault.vector, RC_GP);
    assert_int_equal(r->cpu.fault.error, 0);
}

static void a_fetch_from_a_no_execute_page(void **state)
{
    struct rig *r = *state;
    uint8_t buf[4];
    put32(r, 0x83000, 0x84001); /* PDPT; one directory; one table: page 8 is NX */
    put32(r, 0x84000, 0x85007);
    for (unsigned i = 0; i < 512; i++)
        put32(r, 0x85000 + 8 * i, i << 12 | 7);
    put32(r, 0x85000 + 8 * 8 + 4, 0x80000000);
    r->cpu.gpr[RC_ECX] = 0xc0000080;
    r->cpu.gpr[RC_EAX] = 0x800;
    r->cpu.gpr[RC_EDX] = 0;
    assert_int_equal(rc_wrmsr(&r->cpu), RC_OK);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 4, RC_CR4_PAE), RC_OK);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 3, 0x83000), RC_OK);
    assert_int_equal(rc_mov_to_cr(&r->cpu, 0, RC_CR0_PE | RC_CR0_PG), RC_OK);
    assert_int_equal(rc_read(&r->cpu, RC_DS, 0x8000, buf, 4), RC_OK);
    assert_int_equal(rc_fetch(&r->cpu, 0x7ffe, buf, 4), 2);
    remember(r);
    assert_int_equal(rc_fetch(&r->cpu, 0x8000, buf, 4), 0);
    check_fault(r, RC_FAULT, RC_PFAULT, SPT_PRESENT | SPT_EXEC);
}

/* ---- LAR LSL VERR VERW ---- */

struct probe_case {
    unsigned cpl;
    uint16_t selector;
    uint8_t access;
    bool lar, lsl, verr, verw;
};
static const struct probe_case probe_cases[] = {
    {0, 0, 0x92, false, false, false, false},        /* null */
    {0, 0x100, 0x92, false, false, false, false},    /* beyond the table */
    {0, SLOT | 4, 0x92, false, false, false, false}, /* no LDT */
    {0, SLOT, 0x92, true, true, true, true},
    {0, SLOT, 0x12, true, true, true, true}, /* presence is not asked for */
    {0, SLOT, 0x90, true, true, true, false},
    {0, SLOT, 0x98, true, true, false, false},
    {0, SLOT, 0x9a, true, true, true, false},
    {3, SLOT, 0x92, false, false, false, false},     /* DPL < CPL */
    {0, SLOT | 3, 0x92, false, false, false, false}, /* DPL < RPL */
    {3, SLOT | 3, 0xf2, true, true, true, true},
    {3, SLOT | 3, 0x9e, true, true, true, false}, /* conforming */
    {3, SLOT | 3, 0x9c, true, true, false, false},
    {0, SLOT, 0x80, false, false, false, false}, /* reserved type 0 */
    {0, SLOT, 0x81, true, true, false, false},   /* TSS16 */
    {0, SLOT, 0x82, true, true, false, false},   /* LDT */
    {0, SLOT, 0x83, true, true, false, false},
    {0, SLOT, 0x84, true, false, false, false},  /* call gate 16 */
    {0, SLOT, 0x85, true, false, false, false},  /* task gate */
    {0, SLOT, 0x86, false, false, false, false}, /* interrupt gate */
    {0, SLOT, 0x87, false, false, false, false},
    {0, SLOT, 0x88, false, false, false, false},
    {0, SLOT, 0x89, true, true, false, false},
    {0, SLOT, 0x8a, false, false, false, false},
    {0, SLOT, 0x8b, true, true, false, false},
    {0, SLOT, 0x8c, true, false, false, false},
    {0, SLOT, 0x8d, false, false, false, false},
    {0, SLOT, 0x8e, false, false, false, false},
    {0, SLOT, 0x8f, false, false, false, false},
    {3, SLOT | 3, 0x89, false, false, false, false},
    {3, SLOT | 3, 0xe9, true, true, false, false},
};

static void probes(void **state)
{
    struct rig *r = *state;
    for (unsigned i = 0; i < sizeof probe_cases / sizeof *probe_cases; i++) {
        const struct probe_case *c = &probe_cases[i];
        uint32_t lar = 1, lsl = 1;
        bool zf;
        print_message("    cpl %u selector %x access %x\n", c->cpl, c->selector, c->access);
        gdt(r, SLOT, 0x00cafe00, 0x12345, c->access, G32);
        r->cpu.cpl = (uint8_t)c->cpl;
        assert_int_equal(rc_lar(&r->cpu, c->selector, &lar, &zf), RC_OK);
        assert_int_equal(zf, c->lar);
        assert_int_equal(lar, c->lar ? 0x00c00000u | (uint32_t)c->access << 8 : 1);
        assert_int_equal(rc_lsl(&r->cpu, c->selector, &lsl, &zf), RC_OK);
        assert_int_equal(zf, c->lsl);
        assert_int_equal(lsl, c->lsl ? 0x12345fff : 1);
        assert_int_equal(rc_verr(&r->cpu, c->selector, false, &zf), RC_OK);
        assert_int_equal(zf, c->verr);
        assert_int_equal(rc_verr(&r->cpu, c->selector, true, &zf), RC_OK);
        assert_int_equal(zf, c->verw);
    }
}

static void probes_at_the_end_of_a_table(void **state)
{
    struct rig *r = *state;
    bool zf;
    gdt(r, SLOT, 0, FLAT_LIMIT, 0x92, G32);
    r->cpu.gdtr.limit = SLOT + 7;
    assert_int_equal(rc_verr(&r->cpu, SLOT, true, &zf), RC_OK);
    assert_true(zf);
    r->cpu.gdtr.limit = SLOT + 6;
    assert_int_equal(rc_verr(&r->cpu, SLOT, true, &zf), RC_OK);
    assert_false(zf);
    assert_int_equal(rc_lldt(&r->cpu, LDT_SEL), RC_OK);
    put_desc(r, LDT + 0x18, 0, FLAT_LIMIT, 0x92, G32);
    assert_int_equal(rc_verr(&r->cpu, 0x1c, true, &zf), RC_OK); /* limit 0x1f: the last entry */
    assert_true(zf);
    assert_int_equal(rc_verr(&r->cpu, 0x24, true, &zf), RC_OK);
    assert_false(zf);
}

static void probes_do_not_exist_outside_protected_mode(void **state)
{
    struct rig *r = *state;
    uint32_t value;
    bool zf;
    go_v86(r, 3);
    remember(r);
    check_plain_fault(r, rc_lar(&r->cpu, SLOT, &value, &zf), RC_UD);
    check_plain_fault(r, rc_lsl(&r->cpu, SLOT, &value, &zf), RC_UD);
    check_plain_fault(r, rc_verr(&r->cpu, SLOT, false, &zf), RC_UD);
    check_plain_fault(r, rc_lldt(&r->cpu, LDT_SEL), RC_UD);
    check_plain_fault(r, rc_ltr(&r->cpu, TSS_B_SEL), RC_UD);
}

/* ---- LLDT, LTR ---- */

static void lldt(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0, 0xff, 0x02, G0);
    remember(r);
    check_fault(r, rc_lldt(&r->cpu, LDT_SEL | 4), RC_GP, LDT_SEL | 4);
    check_fault(r, rc_lldt(&r->cpu, 0x100), RC_GP, 0x100);
    check_fault(r, rc_lldt(&r->cpu, KDATA), RC_GP, KDATA);
    check_fault(r, rc_lldt(&r->cpu, TSS_B_SEL), RC_GP, TSS_B_SEL);
    check_fault(r, rc_lldt(&r->cpu, SLOT), RC_NP, SLOT);
    assert_int_equal(rc_lldt(&r->cpu, LDT_SEL), RC_OK);
    assert_int_equal(r->cpu.seg[RC_LDTR].base, LDT);
    assert_int_equal(r->cpu.seg[RC_LDTR].limit, 0x1f);
    assert_int_equal(rc_lldt(&r->cpu, 0), RC_OK);
    assert_int_equal(r->cpu.seg[RC_LDTR].attr & RC_ATTR_P, 0);
    r->cpu.cpl = 1;
    remember(r);
    check_fault(r, rc_lldt(&r->cpu, LDT_SEL), RC_GP, 0);
}

static void ltr(void **state)
{
    struct rig *r = *state;
    gdt(r, SLOT, 0, 0x67, 0x09, G0);
    remember(r);
    check_fault(r, rc_ltr(&r->cpu, 0), RC_GP, 0);
    check_fault(r, rc_ltr(&r->cpu, TSS_B_SEL | 4), RC_GP, TSS_B_SEL | 4);
    check_fault(r, rc_ltr(&r->cpu, TSS_SEL), RC_GP, TSS_SEL); /* busy */
    check_fault(r, rc_ltr(&r->cpu, LDT_SEL), RC_GP, LDT_SEL);
    check_fault(r, rc_ltr(&r->cpu, SLOT), RC_NP, SLOT);
    assert_int_equal(access_byte(r, TSS_SEL), 0x8b); /* the rig's own LTR */
    gdt(r, SLOT, 0x6000, 0x2b, 0x81, G0);            /* a 16-bit TSS will do */
    assert_int_equal(rc_ltr(&r->cpu, SLOT), RC_OK);
    assert_int_equal(access_byte(r, SLOT), 0x83);
    assert_int_equal(r->cpu.seg[RC_TR].base, 0x6000);
    assert_int_equal(r->cpu.seg[RC_TR].attr, 0x83);
    r->cpu.cpl = 3;
    remember(r);
    check_fault(r, rc_ltr(&r->cpu, TSS_B_SEL), RC_GP, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        rig_test(loads),
        rig_test(a_descriptor_cut_by_the_limit),
        rig_test(granularity_and_soft),
        rig_test(through_the_ldt),
        rig_test(a_table_page_that_is_not_there),
        rig_test(in_virtual_8086_mode),
        rig_test(limits),
        rig_test(pushes_and_pops),
        rig_test(a_push_to_a_missing_page),
        rig_test(stores_to_a_read_only_page),
        rig_test(copies_of_every_size),
        rig_test(fetches),
        rig_test(a_fetch_from_a_no_execute_page),
        rig_test(probes),
        rig_test(probes_at_the_end_of_a_table),
        rig_test(probes_do_not_exist_outside_protected_mode),
        rig_test(lldt),
        rig_test(ltr),
    };
    return cmocka_run_group_tests_name("ringcomp segments", tests, NULL, NULL);
}
