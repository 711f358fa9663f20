/* Faults of the interpreter: the right vector and error code, and everything else as it was. */
#include "test_bt_interp_rig.h"

struct fault_case {
    const char *hex;
    uint8_t vector;
    int32_t error; /* -1: none */
    unsigned mode;
};
/* EAX = 0, EBX = NOT_PRESENT, ESI = NOT_PRESENT - 2, EDX = 5, ECX = 3, ESP per mode */
static const struct fault_case fault_cases[] = {
    {"f7f0", RC_DE, -1, 0},          /* DIV EAX: zero */
    {"f6f2", RC_DE, -1, WATCH_EDI},  /* DIV DL with AX = 5xx: too big */
    {"d400", RC_DE, -1, 0},          /* AAM 0 */
    {"6215 00000300", RC_BR, -1, 0}, /* BOUND EDX, [0, 4] */
    {"0f0b", RC_UD, -1, 0},          /* UD2 */
    {"0fffc0", RC_UD, -1, 0},        /* UD0 */
    {"0fb9c0", RC_UD, -1, 0},        /* UD1 */
    {"f00fa2", RC_UD, -1, 0},        /* LOCK CPUID */
    {"f001d8", RC_UD, -1, 0},        /* LOCK ADD reg */
    {"f03903", RC_UD, -1, 0},        /* LOCK CMP mem */
    {"8ec8", RC_UD, -1, 0},          /* MOV CS, EAX */
    {"8ef0", RC_UD, -1, 0},          /* MOV of segment register 6 */
    {"8dc0", RC_UD, -1, 0},          /* LEA of a register */
    {"ffd8", RC_UD, -1, 0},          /* far CALL of a register */
    {"0fc7c8", RC_UD, -1, 0},        /* CMPXCHG8B reg */
    {"0f01c1", RC_UD, -1, 0},        /* VMCALL */
    {"c5f877", RC_UD, -1, 0},        /* VZEROUPPER */
    {"0f05", RC_UD, -1, 0},          /* SYSCALL */
    {"0f20c8", RC_UD, -1, 0},        /* MOV EAX, CR1 */
    {"8b03", RC_PFAULT, 0, 0},       /* MOV EAX, [EBX] */
    {"8903", RC_PFAULT, 2, 0},       /* MOV [EBX], EAX */
    {"0103", RC_PFAULT, 2, 0},       /* ADD: checked for writing */
    {"0fb103", RC_PFAULT, 2, 0},     /* CMPXCHG */
    {"0fc70b", RC_PFAULT, 2, 0},     /* CMPXCHG8B */
    {"8706", RC_PFAULT, 2, 0},       /* XCHG across into the hole */
    {"ff33", RC_PFAULT, 0, 0},       /* PUSH [EBX] */
    {"8f03", RC_PFAULT, 2, 0},       /* POP [EBX]: ESP comes back */
    {"ff13", RC_PFAULT, 0, 0},       /* CALL [EBX] */
    {"a5", RC_PFAULT, 0, 0},         /* MOVSD from ESI, two bytes before the hole */
    {"0f1003", RC_PFAULT, 0, 0},     /* MOVUPS */
    {"0f1103", RC_PFAULT, 2, 0},
    {"dd13", RC_PFAULT, 2, 0},                /* FST m64 */
    {"0f28053c000300", RC_GP, 0, 0},          /* MOVAPS misaligned */
    {"0fae053c000300", RC_GP, 0, 0},          /* FXSAVE misaligned */
    {"8ed9", RC_GP, 0x100, 0},                /* MOV DS: selector 100 beyond the GDT (ECX set) */
    {"f4", RC_GP, 0, USER},                   /* HLT */
    {"fa", RC_GP, 0, USER},                   /* CLI with IOPL 0 */
    {"e460", RC_GP, 0, USER},                 /* IN */
    {"6c", RC_GP, 0, USER},                   /* INSB */
    {"0f22c0", RC_GP, 0, USER},               /* MOV CR0 */
    {"0f30", RC_GP, 0, USER},                 /* WRMSR */
    {"0f0113", RC_GP, 0, USER},               /* LGDT: privilege before the operand */
    {"cd80", RC_GP, 0x402, USER | WATCH_EDI}, /* INT through a gate of DPL 0 (made below) */
    {"8b03", RC_PFAULT, 4, USER},
    {"8903", RC_PFAULT, 6, USER},
    {"66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", RC_GP, 0, 0}, /* 16 bytes */
};

static void test_faults(void **state)
{
    struct rig *r = *state;
    rig_enter(r);
    for (unsigned n = 0; n < sizeof fault_cases / sizeof fault_cases[0]; n++) {
        const struct fault_case *c = &fault_cases[n];
        rig_paged(r, c->mode);
        struct rc_cpu before = r->cpu;
        uint32_t stack = STACK_TOP - 16;
        uint32_t top = rig_get32(r, stack);
        if (rig_step(r, c->hex) != BT_STEP_FAULT || rig_vector(r) != c->vector)
            fail_msg("%s: vector %d, expected %u", c->hex, rig_vector(r), c->vector);
        uint32_t frame = r->cpu.gpr[ESP];
        if (c->error >= 0) {
            if (rig_get32(r, frame) != (uint32_t)c->error)
                fail_msg("%s: error code %x, expected %x", c->hex, rig_get32(r, frame), c->error);
            frame += 4;
        }
        /* the frame names this instruction and the old stack, and nothing else has changed */
        assert_int_equal(rig_get32(r, frame), before.eip);
        if (c->mode & USER)
            assert_int_equal(rig_get32(r, frame + 12), stack);
        else
            assert_int_equal(frame + 12, stack);
        assert_int_equal(rig_get32(r, stack), top);
        r->cpu.gpr[ESP] = before.gpr[ESP];
        if (memcmp(before.gpr, r->cpu.gpr, sizeof before.gpr))
            fail_msg("%s: a register changed", c->hex);
        assert_memory_equal(before.fpu, r->cpu.fpu, 512);
        assert_int_equal(before.seg[RC_DS].selector, r->cpu.seg[RC_DS].selector);
        if (c->vector == RC_PFAULT)
            assert_in_range(r->cpu.cr2, NOT_PRESENT - 2, NOT_PRESENT + 64);
    }
}

/* PUSH, CALL, PUSHA and ENTER with a stack that ends in the hole: ESP and memory below stay. */
static void test_stack_faults(void **state)
{
    static const char *const hex[] = {"50", "e800000000", "60", "ff742404", "c8000000", "9c", "1e"};
    struct rig *r = *state;
    for (unsigned n = 0; n < sizeof hex / sizeof hex[0]; n++) {
        rig_paged(r, USER);
        r->cpu.gpr[ESP] = 2 * NOT_PRESENT; /* pushes go into the hole below 8 MiB */
        if (n == 2) {                      /* PUSHA: the first slots are fine, the last are not */
            r->cpu.gpr[ESP] = 2 * NOT_PRESENT + 8;
            rig_put32(r, 2 * NOT_PRESENT + 4, 0x5a5a5a5a);
        }
        struct rc_cpu before = r->cpu;
        assert_int_equal(rig_step(r, hex[n]), BT_STEP_FAULT);
        assert_int_equal(rig_vector(r), RC_PFAULT);
        assert_int_equal(rig_get32(r, r->cpu.gpr[ESP]), 6);
        assert_int_equal(rig_get32(r, r->cpu.gpr[ESP] + 16), before.gpr[ESP]);
        r->cpu.gpr[ESP] = before.gpr[ESP];
        assert_memory_equal(before.gpr, r->cpu.gpr, sizeof before.gpr);
        if (n == 2)
            assert_int_equal(rig_get32(r, 2 * NOT_PRESENT + 4), 0x5a5a5a5a);
    }
}

/* A guest that executes garbage with garbage in its registers, in all modes a step can be in: whatever
 * happens is an exception, and the interpreter stays whole. */
static void hostile_state(struct rig *r, uint64_t *x)
{
    rig_paged(r, *x & 1 ? USER : 0);
    for (unsigned k = 0; k < 8; k++) {
        *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
        if (k != ESP)
            r->cpu.gpr[k] = *x >> 60 < 10 ? (uint32_t)(*x >> 8) & 0x7fffff : (uint32_t)(*x >> 8);
    }
    r->cpu.gpr[ESP] = *x & 0x100 ? STACK_TOP : r->cpu.gpr[ESP] + (uint32_t)(*x >> 40);
    r->cpu.eflags |= (*x >> 20) & (RC_ARITH | RC_DF | RC_NT | (*x >> 56 == 0 ? RC_TF | RC_AC | RC_RF : 0));
    if (*x >> 58 == 1) {
        r->cpu.dr[7] = (uint32_t)(*x >> 3) & 0xffff00ff;
        r->cpu.dr[1] = DATA;
    }
    if ((*x >> 50 & 15) == 3)
        rc_load_seg(&r->cpu, RC_SS, SEL_DATA16);
    r->cpu.eip = CODE;
}

static void test_hostile(void **state)
{
    struct rig *r = *state;
    uint64_t x = 0x9e3779b97f4a7c15;
    unsigned retired = 0, faults = 0;
    rig_enter(r);
    for (unsigned n = 0; n < 60000; n++) {
        uint8_t b[15];
        hostile_state(r, &x);
        for (unsigned k = 0; k < sizeof b; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            b[k] = (uint8_t)(x >> 24);
        }
        if (n & 1)
            b[0] = 0x0f;
        if (n % 5 == 0)
            b[0] = (uint8_t)(0xd8 | (b[0] & 7));
        rig_put(r, CODE, b, sizeof b);
        r->cpu.request = 1; /* a REP of 2^32 iterations must not take them all */
        enum bt_step s = bt_interp_step(r->in);
        r->cpu.request = 0;
        if (s == BT_STEP_UNSUPPORTED)
            fail_msg("unsupported: %02x %02x %02x %02x", b[0], b[1], b[2], b[3]);
        retired += s == BT_STEP_OK;
        faults += s == BT_STEP_FAULT;
    }
    assert_true(retired > 10000 && faults > 10000);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_faults),
        T(test_stack_faults),
        T(test_hostile),
    };
    return cmocka_run_group_tests_name("bt_interp_faults", tests, NULL, NULL);
}
