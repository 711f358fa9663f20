/* x87, MMX and SSE through the interpreter: availability, exceptions, state images, operands. Results of the
 * arithmetic are the oracle's subject. */
#include "test_bt_interp_rig.h"

static void test_fpu_gates(void **state)
{
    struct rig *r = *state;
    static const struct {
        const char *hex;
        uint32_t cr0_set, cr4_clear;
        int vector;
    } cases[] = {
        {"d9e8", 0, 0, -1},
        {"d9e8", RC_CR0_TS, 0, RC_NM},
        {"d9e8", RC_CR0_EM, 0, RC_NM},
        {"9b", RC_CR0_TS, 0, -1},
        {"9b", RC_CR0_TS | RC_CR0_MP, 0, RC_NM},
        {"0f57c0", 0, 0, -1},
        {"0f57c0", RC_CR0_TS, 0, RC_NM},
        {"0f57c0", RC_CR0_EM, 0, RC_UD},
        {"0f57c0", 0, RC_CR4_OSFXSR, RC_UD},
        {"0fefc0", 0, RC_CR4_OSFXSR, -1}, /* MMX needs none */
        {"0fefc0", RC_CR0_EM, 0, RC_UD},
        {"0fae0500000300", RC_CR0_TS, 0, RC_NM},
        {"0fae0500000300", 0, RC_CR4_OSFXSR, -1},
        {"f30fb8c0", RC_CR0_TS, RC_CR4_OSFXSR, -1}, /* POPCNT is integer */
        {"0fc30500000300", RC_CR0_TS, RC_CR4_OSFXSR, -1},
    };
    rig_enter(r);
    for (unsigned n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        rig_reset(r);
        r->cpu.cr0 |= cases[n].cr0_set;
        r->cpu.cr4 &= ~cases[n].cr4_clear;
        rig_step(r, cases[n].hex);
        if (rig_vector(r) != cases[n].vector)
            fail_msg("case %u, %s: vector %d", n, cases[n].hex, rig_vector(r));
    }
}

static void step_ok(struct rig *r, const char *hex)
{
    if (rig_step(r, hex) != BT_STEP_OK)
        fail_msg("%s: vector %d", hex, rig_vector(r));
}

/* 1/0 unmasked: FDIV itself retires, the next waiting instruction raises #MF, FNSTSW does not wait. */
static void test_x87_exception(void **state)
{
    struct rig *r = *state;
    rig_enter(r);
    rig_put32(r, DATA, 0x037b); /* ZM clear */
    step_ok(r, "dbe3");         /* FNINIT */
    step_ok(r, "d92d00000300"); /* FLDCW */
    step_ok(r, "d9e8");         /* FLD1 */
    step_ok(r, "d9ee");         /* FLDZ */
    uint32_t divide = r->cpu.eip;
    step_ok(r, "def9"); /* FDIVP */
    step_ok(r, "dfe0"); /* FNSTSW AX */
    assert_int_equal(r->cpu.gpr[EAX] & 0x84, 0x84);
    step_ok(r, "d93540000300"); /* FNSTENV: FIP is the division's, in the guest's terms */
    assert_int_equal(rig_get32(r, DATA + 0x40 + 12), divide);
    assert_int_equal(rig_get32(r, DATA + 0x40 + 16) >> 16, 0x6f9); /* DE F9 */
    assert_int_equal(r->cpu.fpu[0] & 0x3f, 0x3f);                  /* and it masks all */
    step_ok(r, "d92540000300");                                    /* FLDENV: pending again */
    assert_int_equal(rig_step(r, "d9e8"), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_MF);
    /* with NE clear it is an interrupt line nobody wired: execution goes on */
    r->cpu.cr0 &= ~(uint32_t)RC_CR0_NE;
    r->cpu.eip = CODE + 0x100;
    step_ok(r, "d9e8");
    assert_int_equal(r->cpu.eip, CODE + 0x102);
}

static void test_simd_exception(void **state)
{
    struct rig *r = *state;
    rig_enter(r);
    for (unsigned n = 0; n < 2; n++) {
        rig_reset(r);
        rig_put32(r, DATA, 0x1d80); /* ZM clear */
        rig_put32(r, DATA + 4, 0x3f800000);
        step_ok(r, "0fae1500000300");   /* LDMXCSR */
        step_ok(r, "f30f100504000300"); /* MOVSS XMM0, 1.0 */
        step_ok(r, "0f57c9");           /* XMM1 = 0 */
        if (n)
            r->cpu.cr4 &= ~(uint32_t)RC_CR4_OSXMMEXCPT;
        assert_int_equal(rig_step(r, "f30f5ec1"), BT_STEP_FAULT); /* DIVSS */
        assert_int_equal(rig_vector(r), n ? RC_UD : RC_XM);
        uint32_t mxcsr, one;
        memcpy(&mxcsr, r->cpu.fpu + 24, 4);
        memcpy(&one, r->cpu.fpu + 160, 4);
        assert_int_equal(mxcsr, 0x1d84); /* ZE */
        assert_int_equal(one, 0x3f800000);
    }
    rig_reset(r);
    rig_put32(r, DATA, 0x10000);
    assert_int_equal(rig_step(r, "0fae1500000300"), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_GP);
}

/* FXSAVE in the 32-bit layout; no host address anywhere in it; memory beyond XMM7 untouched. */
static void test_fxsave(void **state)
{
    struct rig *r = *state;
    rig_enter(r);
    memset(r->ram.base + DATA, 0xee, 512);
    uint64_t host = 0x7f1234567890;
    step_ok(r, "d9e8");
    memcpy(r->cpu.fpu + 8, &host, 8); /* as translated code would leave it */
    memcpy(r->cpu.fpu + 16, &host, 8);
    step_ok(r, "0fae0500000300");
    assert_int_equal(rig_get32(r, DATA), 0x3800037f); /* FCW, FSW with TOP 7 */
    assert_int_equal(r->ram.base[DATA + 4], 0x80);
    assert_int_equal(rig_get32(r, DATA + 8), 0);
    assert_int_equal(rig_get32(r, DATA + 12), 0);
    assert_int_equal(rig_get32(r, DATA + 16), 0);
    assert_int_equal(rig_get32(r, DATA + 24), 0x1f80);
    assert_int_equal(rig_get32(r, DATA + 28), 0xffff);
    assert_int_equal(rig_get32(r, DATA + 36), 0x80000000); /* 1.0 */
    assert_int_equal(rig_get32(r, DATA + 288), 0xeeeeeeee);
    step_ok(r, "dd3500020300"); /* FNSAVE initializes */
    assert_int_equal(rig_get32(r, 0x30200 + 12), 0);
    assert_int_equal(r->cpu.fpu[4], 0);
    step_ok(r, "0fae0d00000300"); /* FXRSTOR */
    assert_int_equal(r->cpu.fpu[4], 0x80);
    rig_put32(r, DATA + 24, 0x80001f80);
    assert_int_equal(rig_step(r, "0fae0d00000300"), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_GP);
}

/* Registers as FPU operands, ESP among them, and MASKMOVDQU that touches only what its mask selects. */
static void test_fpu_operands(void **state)
{
    struct rig *r = *state;
    rig_enter(r);
    rig_paged(r, 0);
    r->cpu.gpr[ESP] = 0x12345678;
    step_ok(r, "660f6ec4"); /* MOVD XMM0, ESP */
    step_ok(r, "660f7ec5"); /* MOVD EBP, XMM0 */
    assert_int_equal(r->cpu.gpr[EBP], 0x12345678);
    r->cpu.gpr[EAX] = 0x80008000;
    step_ok(r, "660f6ec8"); /* XMM1 = bytes 1 and 3 selected */
    r->cpu.gpr[EDI] = NOT_PRESENT - 4;
    rig_put32(r, NOT_PRESENT - 4, 0xffffffff);
    step_ok(r, "660ff7c1"); /* the rest would lie in the hole */
    assert_int_equal(rig_get32(r, NOT_PRESENT - 4), 0x12ff56ff);
    r->cpu.gpr[EDI]++;
    r->cpu.gpr[ESP] = STACK_TOP;
    assert_int_equal(rig_step(r, "660ff7c1"), BT_STEP_FAULT); /* byte 3 is in it now, and byte 1 waits */
    assert_int_equal(rig_vector(r), RC_PFAULT);
    assert_int_equal(rig_get32(r, NOT_PRESENT - 4), 0x12ff56ff);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_fpu_gates), T(test_x87_exception), T(test_simd_exception),
        T(test_fxsave),    T(test_fpu_operands),
    };
    return cmocka_run_group_tests_name("bt_interp_fpu", tests, NULL, NULL);
}
