/* Deliveries and IRETs of the flat kind against the general way, from random states: the same machine, the same memory;
 * and where the flat way declines, nothing has changed. */
#include "test_ringcomp_rig.h"

#include "../../ringcomp/ring.h"

enum { VECTOR = 0x41, ROUNDS = 40000, SHOWN = 0x10000 /* of RAM is compared */ };

struct random {
    uint64_t state;
};

static uint32_t draw(struct random *x, uint32_t below)
{
    x->state = x->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(x->state >> 33) % below;
}

#define PICK(x, ...)                                                                                         \
    ((const uint32_t[]){__VA_ARGS__}[draw(x, sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))])

static uint32_t any_selector(struct random *x)
{
    return draw(x, 8) ? PICK(x, KCODE, KDATA, UCODE, UDATA) : draw(x, 0x60);
}

/* Mostly sound, often with one thing wrong. */
static void scramble(struct rig *r, struct random *x)
{
    static const uint32_t flags[] = {RC_CF, RC_ZF, RC_IF, RC_DF, RC_OF,   RC_TF,
                                     RC_NT, RC_RF, RC_AC, RC_ID, 1 << 12, 3 << 12};
    uint32_t eflags = 0;
    rig_tables(r);
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++)
        eflags |= draw(x, 6) ? 0 : flags[i];
    rc_set_eflags(&r->cpu, eflags | (draw(x, 60) ? 0 : RC_VM));
    go_ring(r, 0, KCODE, KDATA);
    for (unsigned seg = RC_DS; seg <= RC_GS; seg++)
        set_seg(r, seg, draw(x, 2) ? KDATA : UDATA, 0, UINT32_MAX, draw(x, 2) ? 0xc093 : 0xc0f3);
    if (draw(x, 2))
        go_ring(r, 3, UCODE, UDATA);
    else if (!draw(x, 10))
        set_seg(r, RC_SS, KDATA, draw(x, 3) ? 0 : 0x10, draw(x, 2) ? UINT32_MAX : 0xffff,
                draw(x, 2) ? 0x8093 : 0xc093);
    r->cpu.gpr[RC_ESP] = PICK(x, 0x9000, 0x8fec, 0x9004, 0x8ff0, 0x10, 0xfffffff0, 0x9ffc, 2);
    r->cpu.gdtr.limit = (uint16_t)PICK(x, GDT_LIMIT, GDT_LIMIT, GDT_LIMIT, 0x17, 0x1e);
    r->cpu.idtr.limit = (uint16_t)PICK(x, 0x7ff, 0x7ff, 0x7ff, VECTOR * 8 + 6);
    put32(r, TSS + 4, PICK(x, KSTACK, KSTACK - 8, KSTACK + 0x1000, 8, 0xfffffffc));
    put32(r, TSS + 8, PICK(x, KDATA, KDATA, KDATA, UDATA, KCODE, 0));
    idt(r, VECTOR, (uint16_t)PICK(x, KCODE, KCODE, KCODE, KCODE | 3, KDATA, UCODE, 0), 0x12345678,
        (uint8_t)PICK(x, 0x8e, 0xee, 0x8f, 0xef, 0x86, 0x85, 0x0e));
    for (unsigned n = draw(x, 3); n; n--) /* one bit of a descriptor */
        r->ram.base[GDT + 8 + draw(x, 32)] ^= (uint8_t)(1u << draw(x, 8));
    const uint32_t frame = r->cpu.gpr[RC_ESP];
    if (frame < SHOWN - 20) {
        put32(r, frame, PICK(x, 0x7000, 0xffffffff, 0x12345));
        put32(r, frame + 4, any_selector(x) | (draw(x, 9) ? 0 : 0xabcd0000));
        put32(r, frame + 8, draw(x, 1u << 22) & (draw(x, 4) ? ~(uint32_t)RC_VM : ~0u));
        put32(r, frame + 12, draw(x, 1u << 30));
        put32(r, frame + 16, any_selector(x));
    }
}

struct image {
    struct rc_cpu cpu;
    uint8_t ram[SHOWN];
};

/* Padding is nobody's. */
static void take(struct image *to, struct rig *r)
{
    for (unsigned i = 0; i < RC_SEG_COUNT; i++)
        memset((char *)&r->cpu.seg[i].attr + 2, 0,
               offsetof(struct rc_seg, soft) - offsetof(struct rc_seg, attr) - 2);
    memcpy(&to->cpu, &r->cpu, sizeof to->cpu);
    memcpy(to->ram, r->ram.base, SHOWN);
}

static void put_back(struct rig *r, const struct image *from)
{
    memcpy(&r->cpu, &from->cpu, sizeof r->cpu);
    memcpy(r->ram.base, from->ram, SHOWN);
}

static void assert_same(struct rig *r, const struct image *i)
{
    static struct image now;
    take(&now, r);
    assert_memory_equal(&r->cpu, &i->cpu, sizeof r->cpu);
    assert_memory_equal(r->ram.base, i->ram, SHOWN);
}

static bool deliver(struct rig *r, struct random *x, struct rc_event *e)
{
    *e = (struct rc_event){.vector = VECTOR,
                           .software = draw(x, 2),
                           .has_error = draw(x, 2),
                           .error = draw(x, 1 << 16),
                           .return_eip = draw(x, 1u << 31),
                           .flags = rc_eflags(&r->cpu) | (draw(x, 2) ? RC_RF : 0)};
    return rc_flat_deliver(&r->cpu, e);
}

static void both_ways(struct rig *r, bool is_iret)
{
    static struct image before, flat;
    struct random x = {is_iret ? 2 : 1};
    unsigned taken = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct rc_event e;
        scramble(r, &x);
        take(&before, r);
        const bool done = is_iret ? rc_flat_iret(&r->cpu) : deliver(r, &x, &e);
        if (!done) {
            assert_same(r, &before);
            continue;
        }
        taken++;
        take(&flat, r);
        put_back(r, &before);
        assert_int_equal(is_iret ? rc_general_iret(&r->cpu, 4, 0) : rc_general_deliver(&r->cpu, &e), RC_OK);
        assert_same(r, &flat);
    }
    assert_true(taken > ROUNDS / 50);
    assert_true(taken < ROUNDS / 2);
}

static void flat_deliveries(void **state)
{
    both_ways(*state, false);
}

static void flat_irets(void **state)
{
    both_ways(*state, true);
}

/* Segments of any base, DPL against CPL and RPL. */
static void flat_loads(void **state)
{
    static struct image before, flat;
    struct rig *r = *state;
    struct random x = {3};
    unsigned taken = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        scramble(r, &x);
        gdt(r, SLOT, draw(&x, 2) ? 0 : draw(&x, 1u << 31), draw(&x, 5) ? FLAT_LIMIT : draw(&x, 1 << 20),
            (uint8_t)PICK(&x, 0x93, 0xf3, 0xb3, 0x92, 0x91, 0x9b, 0x97, 0x13, 0x73),
            draw(&x, 5) ? G32 : draw(&x, 16));
        const unsigned seg = PICK(&x, RC_ES, RC_DS, RC_FS, RC_GS);
        const uint16_t selector =
            (uint16_t)(PICK(&x, KDATA, UDATA & ~3u, SLOT, SLOT, SLOT, 0, SLOT | 4) | draw(&x, 4));
        take(&before, r);
        if (!rc_flat_load(&r->cpu, seg, selector)) {
            assert_same(r, &before);
            continue;
        }
        taken++;
        take(&flat, r);
        put_back(r, &before);
        assert_int_equal(rc_general_load(&r->cpu, seg, selector), RC_OK);
        assert_same(r, &flat);
    }
    assert_true(taken > ROUNDS / 50);
    assert_true(taken < ROUNDS / 2);
}

/* The quick ways do what the whole functions do, or nothing. */
static void quick_ways(void **state)
{
    enum way { INT, IRET, LOAD, WAYS };
    static struct image before, whole;
    struct rig *r = *state;
    struct random x = {4};
    unsigned taken[WAYS] = {0};
    for (unsigned i = 0; i < 2 * ROUNDS; i++) {
        const enum way way = (enum way)(i % WAYS);
        const unsigned seg = PICK(&x, RC_ES, RC_DS, RC_FS, RC_GS);
        const uint16_t selector = (uint16_t)(PICK(&x, KDATA, UDATA & ~3u, 0, 0xffe0) | draw(&x, 4));
        scramble(r, &x);
        take(&before, r);
        const enum rc_result done = way == INT    ? rc_software_int(&r->cpu, VECTOR, true, 0x1234)
                                    : way == IRET ? rc_iret(&r->cpu, 4, 0x1234)
                                                  : rc_load_seg(&r->cpu, seg, selector);
        take(&whole, r);
        put_back(r, &before);
        const bool quick = way == INT    ? rc_quick_int(&r->cpu, VECTOR, 0x1234)
                           : way == IRET ? rc_quick_iret(&r->cpu)
                                         : rc_quick_load(&r->cpu, seg, selector);
        assert_true(done == RC_OK || !quick);
        assert_same(r, quick ? &whole : &before);
        taken[way] += quick;
    }
    for (unsigned way = 0; way < WAYS; way++) {
        assert_true(taken[way] > ROUNDS / 100);
        assert_true(taken[way] < ROUNDS / 2);
    }
}

/* They touch no page that is not known already. */
static void quick_ways_know(void **state)
{
    struct rig *r = *state;
    struct random x = {5};
    for (unsigned i = 0; i < ROUNDS; i++) {
        scramble(r, &x);
        const bool first = rc_quick_load(&r->cpu, RC_DS, UDATA);
        spt_set_cr3(r->cpu.spt, r->cpu.cr3, NULL); /* forgets */
        assert_false(rc_quick_load(&r->cpu, RC_DS, UDATA));
        assert_false(rc_quick_int(&r->cpu, VECTOR, 0));
        assert_false(rc_quick_iret(&r->cpu));
        if (first)
            return;
        rc_load_seg(&r->cpu, RC_DS, UDATA);
    }
    fail();
}

int main(void)
{
    const struct CMUnitTest tests[] = {rig_test(flat_deliveries), rig_test(flat_irets), rig_test(flat_loads),
                                       rig_test(quick_ways), rig_test(quick_ways_know)};
    return cmocka_run_group_tests_name("ringcomp: flat ways", tests, NULL, NULL);
}
