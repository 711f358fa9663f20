/* The interpreter by table: results worked out from the SDM's descriptions, control flow, string
 * instructions, debug traps, self-modifying code. */
#include "test_bt_interp_rig.h"

/* ---- One instruction, one result ---- */
struct value {
    uint8_t reg;
    uint32_t v;
};
struct result_case {
    const char *hex;
    struct value before[3];
    uint32_t flags;
    struct value after[3];
    uint32_t flags_after, flags_mask;
    uint32_t mem; /* expected at DATA when not 0 */
};
enum { ALL = RC_ARITH };
static const struct result_case result_cases[] = {
    /* ADD EAX, EBX: signed overflow; carry out with zero */
    {"01d8", {{EAX, 0x7fffffff}, {EBX, 1}}, 0, {{EAX, 0x80000000}}, RC_OF | RC_SF | RC_AF | RC_PF, ALL, 0},
    {"01d8", {{EAX, 0xffffffff}, {EBX, 1}}, 0, {{EAX, 0}}, RC_CF | RC_ZF | RC_AF | RC_PF, ALL, 0},
    /* ADC AL, imm8 with carry in; SBB AX, imm16 */
    {"1400", {{EAX, 0xff}, {NONE, 0}}, RC_CF, {{EAX, 0}}, RC_CF | RC_ZF | RC_AF | RC_PF, ALL, 0},
    {"661d0000", {{EAX, 0x12340000}}, RC_CF, {{EAX, 0x1234ffff}}, RC_CF | RC_SF | RC_AF | RC_PF, ALL, 0},
    /* ADD AH, BL: high byte registers */
    {"00dc", {{EAX, 0x0100}, {EBX, 0x7f}}, 0, {{EAX, 0x8000}}, RC_OF | RC_SF | RC_AF, ALL, 0},
    /* INC leaves CF alone */
    {"40", {{EAX, 0xffffffff}}, RC_CF, {{EAX, 0}}, RC_CF | RC_ZF | RC_AF | RC_PF, ALL, 0},
    /* a shift by a multiple of 32 changes nothing, flags included */
    {"d3e0", {{EAX, 5}, {ECX, 32}}, RC_CF | RC_OF, {{EAX, 5}}, RC_CF | RC_OF, ALL, 0},
    {"c1e01c",
     {{EAX, 0x1f}},
     0,
     {{EAX, 0xf0000000}},
     RC_CF | RC_SF | RC_PF,
     RC_CF | RC_SF | RC_ZF | RC_PF,
     0},
    /* RCL by 1 rotates through the carry */
    {"d1d0", {{EAX, 0x80000000}}, RC_CF, {{EAX, 1}}, RC_CF | RC_OF, RC_CF | RC_OF, 0},
    /* SHLD EAX, EBX, 8 */
    {"0fa4d808", {{EAX, 0x12345678}, {EBX, 0xabcdef01}}, 0, {{EAX, 0x345678ab}}, 0, RC_CF | RC_ZF, 0},
    /* MUL, IMUL of three operands, DIV, IDIV of a negative number truncates towards zero */
    {"f7e3", {{EAX, 0x80000000}, {EBX, 4}}, 0, {{EAX, 0}, {EDX, 2}}, RC_CF | RC_OF, RC_CF | RC_OF, 0},
    {"6bc3fe", {{EBX, 7}}, 0, {{EAX, 0xfffffff2}}, 0, RC_CF | RC_OF, 0},
    {"f7f3", {{EDX, 1}, {EAX, 5}, {EBX, 16}}, 0, {{EAX, 0x10000000}, {EDX, 5}}, 0, 0, 0},
    {"f7fb",
     {{EDX, 0xffffffff}, {EAX, 0xfffffff9}, {EBX, 2}},
     0,
     {{EAX, 0xfffffffd}, {EDX, 0xffffffff}},
     0,
     0,
     0},
    /* decimal: 79 + 35 = ae, DAA makes it 14 with a carry; 35 - 47 = ee, DAS 88 with a borrow (vol. 2) */
    {"27", {{EAX, 0xae}}, 0, {{EAX, 0x14}}, RC_CF | RC_AF | RC_PF, RC_CF | RC_AF | RC_ZF | RC_SF | RC_PF, 0},
    {"2f",
     {{EAX, 0xee}},
     RC_CF | RC_AF,
     {{EAX, 0x88}},
     RC_CF | RC_AF | RC_SF | RC_PF,
     RC_CF | RC_AF | RC_ZF | RC_SF | RC_PF,
     0},
    {"37", {{EAX, 0x010e}}, 0, {{EAX, 0x0204}}, RC_CF | RC_AF, RC_CF | RC_AF, 0},
    {"3f", {{EAX, 0x02fe}}, RC_AF, {{EAX, 0x0108}}, RC_CF | RC_AF, RC_CF | RC_AF, 0},
    {"d40a", {{EAX, 0x2b}}, 0, {{EAX, 0x0403}}, RC_PF, RC_ZF | RC_SF | RC_PF, 0},
    {"d50a", {{EAX, 0x0403}}, 0, {{EAX, 0x2b}}, RC_PF, RC_ZF | RC_SF | RC_PF, 0},
    /* MOVSX, MOVZX, CWDE, CDQ, BSWAP, XCHG, XADD, CMPXCHG both ways */
    {"0fbec3", {{EBX, 0x80}}, 0, {{EAX, 0xffffff80}}, 0, 0, 0},
    {"660fb6c3", {{EAX, 0x11112222}, {EBX, 0x80}}, 0, {{EAX, 0x11110080}}, 0, 0, 0},
    {"98", {{EAX, 0x12348000}}, 0, {{EAX, 0xffff8000}}, 0, 0, 0},
    {"6699", {{EAX, 0x8000}, {EDX, 0x55550000}}, 0, {{EDX, 0x5555ffff}}, 0, 0, 0},
    {"0fc8", {{EAX, 0x11223344}}, 0, {{EAX, 0x44332211}}, 0, 0, 0},
    {"0fc1d8", {{EAX, 3}, {EBX, 4}}, 0, {{EAX, 7}, {EBX, 3}}, 0, RC_CF | RC_ZF, 0},
    {"0fb1cb", {{EAX, 9}, {EBX, 9}, {ECX, 5}}, 0, {{EBX, 5}, {EAX, 9}}, RC_ZF, RC_ZF, 0},
    {"0fb1cb", {{EAX, 8}, {EBX, 9}, {ECX, 5}}, 0, {{EBX, 9}, {EAX, 9}}, 0, RC_ZF, 0},
    /* BSF of zero leaves the register, BTS mod 32, SETcc, CMOVcc */
    {"0fbcc3", {{EAX, 77}, {EBX, 0}}, 0, {{EAX, 77}}, RC_ZF, RC_ZF, 0},
    {"0fbdc3", {{EBX, 0x00100001}}, 0, {{EAX, 20}}, 0, RC_ZF, 0},
    {"0fabd8", {{EAX, 0}, {EBX, 33}}, 0, {{EAX, 2}}, 0, RC_CF, 0},
    {"0f9cc0", {{EAX, 0x1200}}, RC_SF, {{EAX, 0x1201}}, RC_SF, ALL, 0},
    {"0f44c3", {{EAX, 1}, {EBX, 2}}, 0, {{EAX, 1}}, 0, 0, 0},
    /* memory: 32-bit and 16-bit addressing, SIB, moffs, BTS beyond the operand, XLAT */
    {"891d00000300", {{EBX, 0xcafe0001}}, 0, {{EBX, 0xcafe0001}}, 0, 0, 0xcafe0001},
    {"895c8af8", {{EBX, 77}, {EDX, DATA}, {ECX, 2}}, 0, {{EBX, 77}}, 0, 0, 77},
    {"a300000300", {{EAX, 0x01020304}}, 0, {{EAX, 0x01020304}}, 0, 0, 0x01020304},
    {"0fab0dfcff0200", {{ECX, 35}}, 0, {{ECX, 35}}, 0, RC_CF, 8},
    {"67668b4702", {{EBX, 0xffff8000}, {EAX, 0x55555555}}, 0, {{EAX, 0x55550000}}, 0, 0, 0}, /* [bx+2]: 8002
                                                                                              */
    /* stack: PUSH ESP pushes the old value, POP ESP loads it */
    {"58", {{ESP, DATA + 0x100}}, 0, {{ESP, DATA + 0x104}, {EAX, 0}}, 0, 0, 0},
    {"54", {{ESP, DATA + 4}}, 0, {{ESP, DATA}}, 0, 0, DATA + 4},
    {"666a80", {{ESP, DATA + 4}}, 0, {{ESP, DATA + 2}}, 0, 0, 0xff800000},
    /* CRC32 of a byte: polynomial 11EDC6F41 reflected; CRC-32C of "\0" from 0 is 0, of 01 its table entry */
    {"f20f38f0c3", {{EAX, 0}, {EBX, 1}}, 0, {{EAX, 0xf26b8303}}, 0, 0, 0},
    {"f30fb8c3", {{EBX, 0xf0f0f0f0}}, ALL, {{EAX, 16}}, 0, ALL, 0},
    {"0f38f105 00000300", {{EAX, 0x11223344}}, 0, {{EAX, 0x11223344}}, 0, 0, 0x44332211},
    /* LEA with 16-bit addresses, MOVNTI, LAHF */
    {"678d4010", {{EBX, 0x1ffff}, {ESI, 1}, {EAX, 0}}, 0, {{EAX, 0x10}}, 0, 0, 0},
    {"0fc31d00000300", {{EBX, 0x600d}}, 0, {{EBX, 0x600d}}, 0, 0, 0x600d},
    {"9f", {{EAX, 0}}, RC_CF | RC_ZF, {{EAX, 0x4300}}, RC_CF | RC_ZF, ALL, 0},
};

static void test_results(void **state)
{
    struct rig *r = *state;
    for (unsigned n = 0; n < sizeof result_cases / sizeof result_cases[0]; n++) {
        const struct result_case *c = &result_cases[n];
        rig_reset(r);
        for (unsigned k = 0; k < 0x200; k += 4)
            rig_put32(r, DATA + k, 0);
        for (unsigned k = 0; k < 3; k++)
            if (c->before[k].reg != NONE && (k == 0 || c->before[k].reg || c->before[k].v))
                r->cpu.gpr[c->before[k].reg] = c->before[k].v;
        r->cpu.eflags |= c->flags;
        if (rig_step(r, c->hex) != BT_STEP_OK)
            fail_msg("%s did not retire: vector %d", c->hex, rig_vector(r));
        for (unsigned k = 0; k < 3; k++)
            if ((k == 0 || c->after[k].reg || c->after[k].v) && r->cpu.gpr[c->after[k].reg] != c->after[k].v)
                fail_msg("%s: register %u is %x, expected %x", c->hex, c->after[k].reg,
                         r->cpu.gpr[c->after[k].reg], c->after[k].v);
        if ((r->cpu.eflags ^ c->flags_after) & c->flags_mask)
            fail_msg("%s: flags %x, expected %x", c->hex, r->cpu.eflags, c->flags_after);
        if (c->mem && rig_get32(r, DATA) != c->mem)
            fail_msg("%s: memory %x, expected %x", c->hex, rig_get32(r, DATA), c->mem);
    }
}

/* ---- Control flow ---- */
struct flow_case {
    const char *hex;
    uint32_t flags, ecx, eip; /* expected EIP */
    uint32_t pushed;          /* expected at the top of stack, 0: nothing pushed */
};
static const struct flow_case flow_cases[] = {
    {"eb10", 0, 0, CODE + 0x12, 0},
    {"e9fbfeffff", 0, 0, CODE - 0x100, 0},
    {"7410", RC_ZF, 0, CODE + 0x12, 0},
    {"7410", 0, 0, CODE + 2, 0},
    {"0f8f00010000", RC_SF | RC_OF, 0, CODE + 0x106, 0},
    {"0f8f00010000", RC_SF, 0, CODE + 6, 0},
    {"7e10", RC_OF, 0, CODE + 0x12, 0},
    {"e210", 0, 2, CODE + 0x12, 0},
    {"e210", 0, 1, CODE + 2, 0},
    {"67e210", 0, 0x10001, CODE + 3, 0}, /* CX counts */
    {"e110", 0, 5, CODE + 2, 0},
    {"e010", 0, 5, CODE + 0x12, 0},
    {"e310", 0, 0, CODE + 0x12, 0},
    {"67e310", 0, 0x70000, CODE + 0x13, 0},
    {"e8fb000000", 0, 0, CODE + 0x100, CODE + 5},
    {"66eb10", 0, 0, 0x13, 0}, /* a 16-bit operand truncates EIP: 10013 */
    {"ea341200000800", 0, 0, 0x1234, 0},
    {"9a3412000008 00", 0, 0, 0x1234, CODE + 7},
};

static void test_flow(void **state)
{
    struct rig *r = *state;
    for (unsigned n = 0; n < sizeof flow_cases / sizeof flow_cases[0]; n++) {
        const struct flow_case *c = &flow_cases[n];
        rig_reset(r);
        r->cpu.eflags |= c->flags;
        r->cpu.gpr[ECX] = c->ecx;
        assert_int_equal(rig_step(r, c->hex), BT_STEP_OK);
        if (r->cpu.eip != c->eip)
            fail_msg("%s: EIP %x, expected %x", c->hex, r->cpu.eip, c->eip);
        if (c->pushed)
            assert_int_equal(rig_get32(r, r->cpu.gpr[ESP]), c->pushed);
        else
            assert_int_equal(r->cpu.gpr[ESP], STACK_TOP);
    }
}

static void test_ret(void **state)
{
    struct rig *r = *state;
    rig_put32(r, STACK_TOP - 8, 0x4321);
    r->cpu.gpr[ESP] = STACK_TOP - 8;
    assert_int_equal(rig_step(r, "c20400"), BT_STEP_OK);
    assert_int_equal(r->cpu.eip, 0x4321);
    assert_int_equal(r->cpu.gpr[ESP], STACK_TOP);
}

/* Segment limits: FS is 256 bytes, GS expands down above FFF, SS small for #SS, and null is #GP. */
static void test_segment_limits(void **state)
{
    struct rig *r = *state;
    static const struct {
        const char *hex;
        int vector;
    } cases[] = {
        {"64a1fc000000", -1},    {"64a1fd000000", RC_GP}, {"65a1fd0f0000", RC_GP}, {"65a100100000", -1},
        {"64a000010000", RC_GP}, {"26a100000000", RC_GP}, {"2ea300000000", RC_GP}, {"36a100010000", RC_SSF},
    };
    for (unsigned n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        rig_reset(r);
        assert_int_equal(rc_load_seg(&r->cpu, RC_FS, SEL_SMALL), RC_OK);
        assert_int_equal(rc_load_seg(&r->cpu, RC_GS, SEL_DOWN), RC_OK);
        assert_int_equal(rc_load_seg(&r->cpu, RC_ES, 0), RC_OK);
        assert_int_equal(rc_load_seg(&r->cpu, RC_SS, SEL_SMALL), RC_OK);
        r->cpu.gpr[ESP] = 0x80; /* within SS' 256 bytes */
        enum bt_step s = rig_step(r, cases[n].hex);
        if (rig_vector(r) != cases[n].vector || s != (cases[n].vector < 0 ? BT_STEP_OK : BT_STEP_FAULT))
            fail_msg("%s: vector %d", cases[n].hex, rig_vector(r));
    }
}

/* A 16-bit stack wraps SP and leaves the upper half of ESP; 16-bit code pushes words. */
static void test_16bit(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rc_load_seg(&r->cpu, RC_SS, SEL_DATA16), RC_OK);
    r->cpu.gpr[ESP] = 0x70000;
    r->cpu.gpr[EAX] = 0x11223344;
    assert_int_equal(rig_step(r, "50"), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[ESP], 0x7fffc);
    assert_int_equal(rig_get32(r, 0xfffc), 0x11223344);
    assert_int_equal(rig_step(r, "ea005000002800"), BT_STEP_OK); /* to 16-bit code */
    assert_int_equal(rig_step(r, "50"), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[ESP], 0x7fffa);
    assert_int_equal(rig_step(r, "6658"), BT_STEP_OK); /* POP EAX */
    assert_int_equal(r->cpu.gpr[EAX], 0x33443344);
    assert_int_equal(rig_step(r, "b83412"), BT_STEP_OK); /* MOV AX, 1234 */
    assert_int_equal(r->cpu.gpr[EAX], 0x33441234);
    assert_int_equal(r->cpu.eip, 0x5000 + 1 + 2 + 3);
}

/* ---- String instructions ---- */
static void test_rep_movs_pages(void **state)
{
    struct rig *r = *state;
    enum { N = 10000, FROM = 0x41003, TO = 0x51801 };
    for (unsigned n = 0; n < N; n++)
        r->ram.base[FROM + n] = (uint8_t)(n * 7 + n / 256);
    r->cpu.gpr[ESI] = FROM;
    r->cpu.gpr[EDI] = TO;
    r->cpu.gpr[ECX] = N / 4;
    assert_int_equal(rig_step(r, "f3a5"), BT_STEP_OK);
    assert_memory_equal(r->ram.base + FROM, r->ram.base + TO, N);
    assert_int_equal(r->ram.base[TO + N], 0);
    assert_int_equal(r->cpu.gpr[ECX], 0);
    assert_int_equal(r->cpu.gpr[ESI], FROM + N);
    assert_int_equal(r->cpu.gpr[EDI], TO + N);
}

/* A fault half way leaves the registers at the iteration that failed; it can be resumed. */
static void test_rep_fault(void **state)
{
    struct rig *r = *state;
    rig_paged(r, 0);
    r->cpu.gpr[EDI] = NOT_PRESENT - 40;
    r->cpu.gpr[EAX] = 0x77777777;
    r->cpu.gpr[ECX] = 100;
    assert_int_equal(rig_step(r, "f3ab"), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_PFAULT);
    assert_int_equal(r->cpu.gpr[ECX], 90);
    assert_int_equal(r->cpu.gpr[EDI], NOT_PRESENT);
    assert_int_equal(r->cpu.cr2, NOT_PRESENT);
    assert_int_equal(rig_get32(r, r->cpu.gpr[ESP] + 4), CODE + 0x40);
}

static void test_rep_interrupted(void **state)
{
    struct rig *r = *state;
    r->cpu.gpr[ESI] = DATA;
    r->cpu.gpr[ECX] = 3;
    r->cpu.request = 1;
    assert_int_equal(rig_step(r, "f3ac"), BT_STEP_PARTIAL); /* REP LODSB */
    assert_int_equal(r->cpu.eip, CODE);
    assert_int_equal(r->cpu.gpr[ECX], 2);
    assert_int_equal(bt_interp_step(r->in), BT_STEP_PARTIAL);
    assert_int_equal(bt_interp_step(r->in), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[ECX], 0);
    assert_int_equal(r->cpu.eip, CODE + 2);
    r->cpu.request = 0;
}

static void test_ports(void **state)
{
    struct rig *r = *state;
    r->port_in[0] = 0xa1b2c3d4;
    r->cpu.gpr[EDX] = 0x3f8;
    assert_int_equal(rig_step(r, "66ed"), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[EAX], 0xc3d4);
    assert_int_equal(rig_step(r, "e680"), BT_STEP_OK);
    assert_int_equal(r->out_port, 0x80);
    assert_int_equal(r->out_value, 0xd4);
    r->cpu.gpr[EDI] = DATA;
    r->cpu.gpr[ECX] = 3;
    assert_int_equal(rig_step(r, "f36d"), BT_STEP_OK);
    assert_int_equal(rig_get32(r, DATA + 8), 0xa1b2c3d4);
    assert_int_equal(r->ins, 4);
    r->cpu.gpr[ESI] = DATA;
    r->cpu.gpr[ECX] = 2;
    assert_int_equal(rig_step(r, "f36e"), BT_STEP_OK);
    assert_int_equal(r->outs, 3);
    assert_int_equal(r->out_value, 0xc3);
    /* an INS whose destination faults must not read the port */
    rig_paged(r, 0);
    r->cpu.gpr[EDI] = NOT_PRESENT;
    assert_int_equal(rig_step(r, "6d"), BT_STEP_FAULT);
    assert_int_equal(r->ins, 0);
}

/* ---- Debugging ---- */
static void test_single_step(void **state)
{
    struct rig *r = *state;
    r->cpu.eflags |= RC_TF;
    assert_int_equal(rig_step(r, "40"), BT_STEP_OK);
    assert_int_equal(rig_vector(r), RC_DB);
    assert_int_equal(rig_get32(r, r->cpu.gpr[ESP]), CODE + 1); /* a trap: EIP behind it */
    assert_int_equal(r->cpu.dr[6] & 0x4000, 0x4000);
    assert_int_equal(r->cpu.eflags & RC_TF, 0);
    /* MOV SS holds the trap back by one instruction */
    rig_reset(r);
    r->cpu.eflags |= RC_TF;
    r->cpu.gpr[EAX] = SEL_DATA;
    assert_int_equal(rig_step(r, "8ed0"), BT_STEP_OK);
    assert_int_equal(r->cpu.eip, CODE + 2);
    assert_int_equal(r->cpu.irq_shadow, 1);
    assert_int_equal(rig_step(r, "90"), BT_STEP_OK);
    assert_int_equal(rig_vector(r), RC_DB);
    assert_int_equal(rig_get32(r, r->cpu.gpr[ESP]), CODE + 3);
    /* POPF that sets TF: the next instruction is the first to trap */
    rig_reset(r);
    rig_put32(r, STACK_TOP - 4, 0x102);
    r->cpu.gpr[ESP] = STACK_TOP - 4;
    assert_int_equal(rig_step(r, "9d"), BT_STEP_OK);
    assert_int_equal(r->cpu.eip, CODE + 1);
    assert_int_equal(rig_step(r, "90"), BT_STEP_OK);
    assert_int_equal(rig_vector(r), RC_DB);
    /* REP traps after each iteration, EIP still at it */
    rig_reset(r);
    r->cpu.eflags |= RC_TF;
    r->cpu.gpr[ECX] = 5;
    r->cpu.gpr[EDI] = DATA;
    rig_step(r, "f3aa");
    assert_int_equal(rig_vector(r), RC_DB);
    assert_int_equal(rig_get32(r, r->cpu.gpr[ESP]), CODE);
    assert_int_equal(r->cpu.gpr[ECX], 4);
}

static void test_shadow(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_step(r, "fb"), BT_STEP_OK);
    assert_int_equal(r->cpu.iflag, 1);
    assert_int_equal(r->cpu.irq_shadow, 1);
    assert_int_equal(rig_step(r, "90"), BT_STEP_OK);
    assert_int_equal(r->cpu.irq_shadow, 0);
    assert_int_equal(rig_step(r, "fb"), BT_STEP_OK); /* IF was 1 already */
    assert_int_equal(r->cpu.irq_shadow, 0);
    assert_int_equal(rig_step(r, "f4"), BT_STEP_HALT);
    assert_int_equal(r->cpu.halted, 1);
    assert_int_equal(r->cpu.eip, CODE + 4);
}

static void test_breakpoints(void **state)
{
    struct rig *r = *state;
    r->cpu.dr[0] = CODE;
    r->cpu.dr[7] = 0x402; /* G0, execute */
    assert_int_equal(rig_step(r, "40"), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_DB);
    assert_int_equal(r->cpu.gpr[EAX], 0);
    assert_int_equal(rig_get32(r, r->cpu.gpr[ESP]), CODE);
    assert_int_equal(r->cpu.dr[6] & 15, 1);
    /* with RF the instruction runs, and RF is spent */
    rig_reset(r);
    r->cpu.dr[0] = CODE;
    r->cpu.dr[7] = 0x402;
    r->cpu.eflags |= RC_RF;
    assert_int_equal(rig_step(r, "40"), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[EAX], 1);
    assert_int_equal(r->cpu.eflags & RC_RF, 0);
    /* data write of 4 bytes at DATA, hit by a byte in its middle; a read does not count */
    rig_reset(r);
    r->cpu.dr[1] = DATA;
    r->cpu.dr[7] = 0x408 | 0xd << 20;
    assert_int_equal(rig_step(r, "a002000300"), BT_STEP_OK);
    assert_int_equal(rig_vector(r), -1);
    assert_int_equal(rig_step(r, "a202000300"), BT_STEP_OK);
    assert_int_equal(rig_vector(r), RC_DB);
    assert_int_equal(r->cpu.dr[6] & 15, 2);
    assert_int_equal(rig_get32(r, r->cpu.gpr[ESP]), CODE + 10);
}

static void test_alignment(void **state)
{
    struct rig *r = *state;
    rig_paged(r, USER);
    r->cpu.cr0 |= RC_CR0_AM;
    r->cpu.eflags |= RC_AC;
    assert_int_equal(rig_step(r, "a104000300"), BT_STEP_OK);
    assert_int_equal(rig_step(r, "a102000300"), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_AC_FAULT);
}

/* ---- Code that changes ---- */
static void test_self_modifying(void **state)
{
    struct rig *r = *state;
    for (unsigned n = 0; n < 3; n++) { /* decode and cache INC EAX */
        r->cpu.eip = CODE + 0x10;
        if (n == 0)
            rig_step(r, "40");
        else
            bt_interp_step(r->in);
    }
    assert_int_equal(r->cpu.gpr[EAX], 3);
    r->cpu.eip = CODE;
    assert_int_equal(rig_step(r, "c60510000100 48"), BT_STEP_OK); /* MOV byte [CODE+10], DEC EAX */
    r->cpu.eip = CODE + 0x10;
    assert_int_equal(bt_interp_step(r->in), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[EAX], 2);
    /* DMA into it */
    uint8_t nop = 0x90;
    rig_put(r, CODE + 0x10, &nop, 1);
    r->cpu.eip = CODE + 0x10;
    assert_int_equal(bt_interp_step(r->in), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[EAX], 2);
}

/* The same linear address, another page behind it. */
static void test_remapped_code(void **state)
{
    struct rig *r = *state;
    rig_paged(r, 0);
    uint8_t inc = 0x40, dec = 0x48;
    rig_put(r, 0xc00000, &inc, 1);
    rig_put(r, 0x1000000, &dec, 1);
    r->cpu.eip = 0xc00000;
    assert_int_equal(bt_interp_step(r->in), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[EAX], 1);
    rig_put32(r, 0x5000 + 12, 0x10000e7); /* 00C00000 -> 01000000 */
    assert_int_equal(rc_mov_to_cr(&r->cpu, 3, 0x5000), RC_OK);
    r->cpu.eip = 0xc00000;
    assert_int_equal(bt_interp_step(r->in), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[EAX], 0);
}

/* An instruction across a page boundary: complete when both pages are there, #PF at the second page's address
 * when it is not, and #UD rather than #PF when the first byte already decides. */
static void test_page_crossing(void **state)
{
    struct rig *r = *state;
    rig_paged(r, 0);
    r->cpu.eip = 0x11ffe;
    assert_int_equal(rig_step(r, "b878563412"), BT_STEP_OK);
    assert_int_equal(r->cpu.gpr[EAX], 0x12345678);
    uint8_t b8 = 0xb8, ud[2] = {0x0f, 0x0b};
    rig_put(r, NOT_PRESENT - 1, &b8, 1);
    r->cpu.eip = NOT_PRESENT - 1;
    assert_int_equal(bt_interp_step(r->in), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_PFAULT);
    assert_int_equal(r->cpu.cr2, NOT_PRESENT);
    assert_int_equal(rig_get32(r, r->cpu.gpr[ESP] + 4), NOT_PRESENT - 1);
    rig_put(r, NOT_PRESENT - 2, ud, 2);
    r->cpu.eip = NOT_PRESENT - 2;
    assert_int_equal(bt_interp_step(r->in), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_UD);
}

/* CS' limit: the byte behind it is #GP, and so is a branch there. */
static void test_code_limit(void **state)
{
    struct rig *r = *state;
    rig_descriptor(r, SEL_CODE16, CODE, 0xf, 0x9a, 4); /* 32-bit, 16 bytes */
    assert_int_equal(rc_far_jmp(&r->cpu, SEL_CODE16, 0xe, 4, 0), RC_OK);
    assert_int_equal(rig_step(r, "b001"), BT_STEP_OK);
    assert_int_equal(bt_interp_step(r->in), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_GP);
    rig_reset(r);
    rig_descriptor(r, SEL_CODE16, CODE, 0xf, 0x9a, 4);
    assert_int_equal(rc_far_jmp(&r->cpu, SEL_CODE16, 0, 4, 0), RC_OK);
    assert_int_equal(rig_step(r, "eb10"), BT_STEP_FAULT);
    assert_int_equal(rig_vector(r), RC_GP);
    assert_int_equal(rig_get32(r, r->cpu.gpr[ESP] + 4), 0); /* of the branch itself */
}

/* ---- System instructions' operands ---- */
static void test_system_operands(void **state)
{
    struct rig *r = *state;
    r->cpu.idtr = (struct rc_table){0x12345678, 0x7ff};
    assert_int_equal(rig_step(r, "0f010d00000300"), BT_STEP_OK); /* SIDT */
    assert_int_equal(rig_get32(r, DATA), 0x567807ff);
    assert_int_equal(rig_get32(r, DATA + 4) & 0xffff, 0x1234);
    assert_int_equal(rig_step(r, "660f011500000300"), BT_STEP_OK); /* LGDT of 24 bits */
    assert_int_equal(r->cpu.gdtr.base, 0x345678);
    assert_int_equal(r->cpu.gdtr.limit, 0x7ff);
    r->cpu.gpr[EAX] = UINT32_MAX;
    assert_int_equal(rig_step(r, "8cd8"), BT_STEP_OK); /* MOV EAX, DS zero-extends */
    assert_int_equal(r->cpu.gpr[EAX], SEL_DATA);
    r->cpu.gpr[EAX] = UINT32_MAX;
    assert_int_equal(rig_step(r, "660f00c8"), BT_STEP_OK); /* STR AX */
    assert_int_equal(r->cpu.gpr[EAX], 0xffff0000 | SEL_TSS);
    r->cpu.gpr[EAX] = 0x21;
    r->cpu.gpr[ECX] = 0x13;
    assert_int_equal(rig_step(r, "63c8"), BT_STEP_OK); /* ARPL AX, CX */
    assert_int_equal(r->cpu.gpr[EAX], 0x23);
    assert_int_equal(r->cpu.eflags & RC_ZF, RC_ZF);
    assert_int_equal(rig_step(r, "0f20c2"), BT_STEP_OK); /* MOV EDX, CR0 */
    assert_int_equal(r->cpu.gpr[EDX], r->cpu.cr0);
    r->cpu.eflags |= RC_VM; /* as V86 mode sees them */
    assert_int_equal(rig_step(r, "0f00c8"), BT_STEP_FAULT);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_results),       T(test_flow),
        T(test_ret),           T(test_segment_limits),
        T(test_16bit),         T(test_rep_movs_pages),
        T(test_rep_fault),     T(test_rep_interrupted),
        T(test_ports),         T(test_single_step),
        T(test_shadow),        T(test_breakpoints),
        T(test_alignment),     T(test_self_modifying),
        T(test_remapped_code), T(test_page_crossing),
        T(test_code_limit),    T(test_system_operands),
    };
    return cmocka_run_group_tests_name("bt_interp", tests, NULL, NULL);
}
