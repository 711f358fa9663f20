/* The interpreter by table: results worked out from the SDM's descriptions, faults with everything left as it
 * was, debug traps, self-modifying code, the FPU's state images. */
#include "test_bt_interp_rig.h"

enum { EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI, NONE };
enum { NOT_PRESENT = 0x400000 }; /* with paging on, 4 MiB from here are absent */

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
#define ALL RC_ARITH
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

/* ---- Faults ---- */
static void paging_on(struct rig *r)
{
    for (uint32_t n = 0; n < 1024; n++)
        rig_put32(r, 0x5000 + 4 * n, n < 8 && n != NOT_PRESENT >> 22 ? n << 22 | 0xe7 : 0);
    rc_mov_to_cr(&r->cpu, 4, r->cpu.cr4 | RC_CR4_PSE);
    rc_mov_to_cr(&r->cpu, 3, 0x5000);
    rc_mov_to_cr(&r->cpu, 0, r->cpu.cr0 | RC_CR0_PG);
}

static void user_mode(struct rig *r)
{
    static const unsigned data[] = {RC_DS, RC_ES, RC_SS};
    struct rc_cpu *cpu = &r->cpu;
    /* IRET to ring 3, as a kernel does it */
    uint32_t frame[5] = {CODE, SEL_UCODE, 2, STACK_TOP, SEL_UDATA};
    rig_put(r, STACK_TOP - 64, frame, sizeof frame);
    cpu->gpr[ESP] = STACK_TOP - 64;
    assert_int_equal(rig_step(r, "cf"), BT_STEP_OK);
    assert_int_equal(cpu->cpl, 3);
    for (unsigned n = 0; n < 2; n++)
        assert_int_equal(rc_load_seg(cpu, data[n], SEL_UDATA), RC_OK);
}

enum { USER = 1, WATCH_EDI = 2 };
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

static void fault_state(struct rig *r, const struct fault_case *c)
{
    static const uint32_t bounds[2] = {0, 4};
    rig_reset(r);
    paging_on(r);
    rig_put(r, DATA, bounds, 8);
    if (c->mode & USER)
        user_mode(r);
    memset(r->cpu.gpr, 0, 16);
    r->cpu.gpr[EBX] = NOT_PRESENT;
    r->cpu.gpr[ESI] = NOT_PRESENT - 2;
    r->cpu.gpr[EDX] = 5;
    r->cpu.gpr[ECX] = 0x100;
    r->cpu.gpr[ESP] = STACK_TOP - 16;
    r->cpu.gpr[EBP] = 0xbbbb;
    r->cpu.gpr[EDI] = DATA;
    if ((c->mode & WATCH_EDI) && !(c->mode & USER))
        r->cpu.gpr[EAX] = 0x5ff;
    if (c->mode & USER) { /* vector 80 for the kernel only */
        uint32_t gate[2] = {SEL_CODE << 16 | 0x8800, 0x8e00};
        rig_put(r, IDT + 8 * 0x80, gate, 8);
    }
    r->cpu.eip = CODE + 0x40; /* CODE itself may hold user_mode's IRET */
}

static void test_faults(void **state)
{
    struct rig *r = *state;
    rig_enter(r);
    for (unsigned n = 0; n < sizeof fault_cases / sizeof fault_cases[0]; n++) {
        const struct fault_case *c = &fault_cases[n];
        fault_state(r, c);
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
    static const struct fault_case none = {"", 0, 0, USER};
    for (unsigned n = 0; n < sizeof hex / sizeof hex[0]; n++) {
        fault_state(r, &none);
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
    static const struct fault_case none = {"", 0, 0, 0};
    fault_state(r, &none);
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
    static const struct fault_case none = {"", 0, 0, 0};
    fault_state(r, &none);
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
    static const struct fault_case none = {"", 0, 0, USER};
    fault_state(r, &none);
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
    static const struct fault_case none = {"", 0, 0, 0};
    fault_state(r, &none);
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
    static const struct fault_case none = {"", 0, 0, 0};
    fault_state(r, &none);
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

/* ---- FPU ---- */
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
    static const struct fault_case none = {"", 0, 0, 0};
    rig_enter(r);
    fault_state(r, &none);
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

/* A guest that executes garbage with garbage in its registers, in all modes a step can be in: whatever
 * happens is an exception, and the interpreter stays whole. */
static void hostile_state(struct rig *r, uint64_t *x)
{
    static const struct fault_case kernel = {"", 0, 0, 0}, user = {"", 0, 0, USER};
    fault_state(r, *x & 1 ? &user : &kernel);
    for (unsigned k = 0; k < 8; k++) {
        *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
        if (k != ESP)
            r->cpu.gpr[k] = *x >> 60 < 10 ? (uint32_t)(*x >> 8) & 0x7fffff : (uint32_t)(*x >> 8);
    }
    r->cpu.gpr[ESP] = *x & 0x100 ? STACK_TOP : r->cpu.gpr[ESP] + (uint32_t)(*x >> 40);
    r->cpu.eflags |= (*x >> 20) & (ALL | RC_DF | RC_NT | (*x >> 56 == 0 ? RC_TF | RC_AC | RC_RF : 0));
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
        T(test_results),
        T(test_flow),
        T(test_ret),
        T(test_faults),
        T(test_stack_faults),
        T(test_segment_limits),
        T(test_16bit),
        T(test_rep_movs_pages),
        T(test_rep_fault),
        T(test_rep_interrupted),
        T(test_ports),
        T(test_single_step),
        T(test_shadow),
        T(test_breakpoints),
        T(test_alignment),
        T(test_self_modifying),
        T(test_remapped_code),
        T(test_page_crossing),
        T(test_code_limit),
        T(test_system_operands),
        T(test_fpu_gates),
        T(test_x87_exception),
        T(test_simd_exception),
        T(test_fxsave),
        T(test_fpu_operands),
        T(test_hostile),
    };
    return cmocka_run_group_tests_name("bt_interp", tests, NULL, NULL);
}
