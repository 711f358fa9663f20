/* The decoder: what each field says, what is refused, and random bytes against Zydis' own word on length. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "insn.h"
#include "interp_impl.h"

static unsigned parse(const char *hex, uint8_t *b)
{
    unsigned n = 0, v;
    for (const char *p = hex; *p; p += *p == ' ' ? 1 : 2)
        if (*p != ' ' && sscanf(p, "%2x", &v) == 1)
            b[n++] = (uint8_t)v;
    return n;
}

static enum bt_decode decode(bool big, const char *hex, struct bt_insn *i)
{
    struct bt_decoder d;
    uint8_t b[32];
    bt_decoder_init(&d);
    return bt_decode(&d, big, b, parse(hex, b), i);
}

enum { NO = BT_NOREG };
struct field_case {
    const char *hex;
    bool big;
    uint8_t length, opsize, osz, asz, class;
    bool is_mem;
    uint8_t seg, base, index, scale, mem_size;
    int32_t disp;
    uint32_t imm, imm2;
};
static const struct field_case field_cases[] = {
    /* registers and immediates */
    {"90", true, 1, 4, 4, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0, 0},
    {"04ff", true, 2, 1, 4, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0xffffffff, 0},
    {"83c0fe", true, 3, 4, 4, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0xfffffffe, 0},
    {"6681c03412", true, 5, 2, 2, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0x1234, 0},
    {"e8fbffffff", true, 5, 4, 4, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0xfffffffb, 0},
    {"c8341205", true, 4, 4, 4, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0x1234, 5},
    {"ea785634122300", true, 7, 4, 4, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0x12345678, 0x23},
    {"669a34122300", true, 6, 2, 2, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0x1234, 0x23},
    /* 32-bit addressing: EBP and ESP bases mean SS, an index of ESP none, base 5 with mod 0 none */
    {"8b4508", true, 3, 4, 4, 4, 0, true, RC_SS, RC_EBP, NO, 0, 4, 8, 0, 0},
    {"8b442404", true, 4, 4, 4, 4, 0, true, RC_SS, RC_ESP, NO, 0, 4, 4, 0, 0},
    {"8b04cd10000000", true, 7, 4, 4, 4, 0, true, RC_DS, NO, RC_ECX, 8, 4, 16, 0, 0},
    {"8b0428", true, 3, 4, 4, 4, 0, true, RC_DS, RC_EAX, RC_EBP, 1, 4, 0, 0, 0},
    {"8b0578563412", true, 6, 4, 4, 4, 0, true, RC_DS, NO, NO, 0, 4, 0x12345678, 0, 0},
    {"658b00", true, 3, 4, 4, 4, 0, true, RC_GS, RC_EAX, NO, 0, 4, 0, 0, 0},
    {"3e2e8b4500", true, 5, 4, 4, 4, 0, true, RC_CS, RC_EBP, NO, 0, 4, 0, 0, 0}, /* the last prefix counts */
    /* 16-bit addressing */
    {"678b4202", true, 4, 4, 4, 2, 0, true, RC_SS, RC_EBP, RC_ESI, 1, 4, 2, 0, 0},
    {"678b0e3412", true, 5, 4, 4, 2, 0, true, RC_DS, NO, NO, 0, 4, 0x1234, 0, 0},
    {"678b07", true, 3, 4, 4, 2, 0, true, RC_DS, RC_EBX, NO, 0, 4, 0, 0, 0},
    {"8b01", false, 2, 2, 2, 2, 0, true, RC_DS, RC_EBX, RC_EDI, 1, 2, 0, 0, 0},
    {"66678b01", false, 4, 4, 4, 4, 0, true, RC_DS, RC_ECX, NO, 0, 4, 0, 0, 0},
    {"66668b01", true, 4, 2, 2, 4, 0, true, RC_DS, RC_ECX, NO, 0, 2, 0, 0, 0}, /* 66 twice is 66 */
    /* moffs, strings, XLAT */
    {"a010000080", true, 5, 1, 4, 4, 0, true, RC_DS, NO, NO, 0, 1, (int32_t)0x80000010, 0, 0},
    {"67a31000", true, 4, 4, 4, 2, 0, true, RC_DS, NO, NO, 0, 4, 0x10, 0, 0},
    {"f364a5", true, 3, 4, 4, 4, 0, false, RC_FS, NO, NO, 0, 4, 0, 0, 0},
    {"d7", true, 1, 4, 4, 4, 0, false, RC_DS, NO, NO, 0, 1, 0, 0, 0},
    /* special sizes */
    {"8d4004", true, 3, 4, 4, 4, 0, true, RC_DS, RC_EAX, NO, 0, 0, 4, 0, 0},
    {"0f0138", true, 3, 1, 4, 4, 0, true, RC_DS, RC_EAX, NO, 0, 0, 0, 0, 0},
    {"0f0110", true, 3, 4, 4, 4, 0, true, RC_DS, RC_EAX, NO, 0, 6, 0, 0, 0},
    {"ff28", true, 2, 4, 4, 4, 0, true, RC_DS, RC_EAX, NO, 0, 6, 0, 0, 0},
    {"0fc708", true, 3, 4, 4, 4, 0, true, RC_DS, RC_EAX, NO, 0, 8, 0, 0, 0},
    {"6208", true, 2, 4, 4, 4, 0, true, RC_DS, RC_EAX, NO, 0, 8, 0, 0, 0},
    {"0fae00", true, 3, 4, 4, 4, BT_CLASS_X87, true, RC_DS, RC_EAX, NO, 0, 255, 0, 0, 0},
    /* MOV CR: mod is ignored, rm is a register */
    {"0f2205", true, 3, 4, 4, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0, 0},
    /* classes */
    {"db28", true, 2, 4, 4, 4, BT_CLASS_X87, true, RC_DS, RC_EAX, NO, 0, 10, 0, 0, 0},
    {"9b", true, 1, 4, 4, 4, BT_CLASS_X87, false, RC_DS, NO, NO, 0, 0, 0, 0, 0},
    {"0f6f00", true, 3, 4, 4, 4, BT_CLASS_MMX, true, RC_DS, RC_EAX, NO, 0, 8, 0, 0, 0},
    {"0f3800c1", true, 4, 4, 4, 4, BT_CLASS_MMX, false, RC_DS, NO, NO, 0, 0, 0, 0, 0},
    {"f30f1008", true, 4, 4, 4, 4, BT_CLASS_SSE, true, RC_DS, RC_EAX, NO, 0, 4, 0, 0, 0},
    {"0f2ac1", true, 3, 4, 4, 4, BT_CLASS_SSE, false, RC_DS, NO, NO, 0, 0, 0, 0, 0}, /* CVTPI2PS */
    {"0fae10", true, 3, 4, 4, 4, BT_CLASS_SSE, true, RC_DS, RC_EAX, NO, 0, 4, 0, 0, 0},
    {"0fc300", true, 3, 4, 4, 4, 0, true, RC_DS, RC_EAX, NO, 0, 4, 0, 0, 0}, /* MOVNTI */
    {"0faee8", true, 3, 4, 4, 4, 0, false, RC_DS, NO, NO, 0, 0, 0, 0, 0},
};

static void test_fields(void **state)
{
    (void)state;
    for (unsigned n = 0; n < sizeof field_cases / sizeof field_cases[0]; n++) {
        const struct field_case *c = &field_cases[n];
        struct bt_insn i;
        if (decode(c->big, c->hex, &i) != BT_DECODE_OK)
            fail_msg("%s: refused", c->hex);
#define SAME(f)                                                                                              \
    if (i.f != c->f)                                                                                         \
    fail_msg("%s: " #f " is %d, expected %d", c->hex, (int)i.f, (int)c->f)
        SAME(length);
        SAME(opsize);
        SAME(osz);
        SAME(asz);
        SAME(class);
        SAME(is_mem);
        SAME(seg);
        SAME(base);
        SAME(index);
        SAME(scale);
        SAME(mem_size);
        SAME(disp);
        SAME(imm);
        SAME(imm2);
    }
}

static void test_offsets(void **state)
{
    struct bt_insn i;
    (void)state;
    /* 66 F0 ADD [EAX+ECX*4+12345678], imm16 */
    assert_int_equal(decode(true, "66f081848878563412 3412", &i), BT_DECODE_OK);
    assert_true(i.lock);
    assert_int_equal(i.opcode_off, 2);
    assert_int_equal(i.modrm_off, 3);
    assert_int_equal(i.sib_off, 4);
    assert_int_equal(i.disp_off, 5);
    assert_int_equal(i.disp_size, 4);
    assert_int_equal(i.imm_off, 9);
    assert_int_equal(i.imm_size, 2);
    assert_int_equal(decode(true, "660f3a0fc105", &i), BT_DECODE_OK); /* PALIGNR */
    assert_int_equal(i.map, ZYDIS_OPCODE_MAP_0F3A);
    assert_int_equal(i.opcode, 0x0f);
    assert_int_equal(i.opcode_off, 3);
    assert_int_equal(decode(true, "f2f3a4", &i), BT_DECODE_OK);
    assert_true(i.rep && !i.repne);
    assert_int_equal(decode(true, "f3f2ae", &i), BT_DECODE_OK);
    assert_true(i.repne && !i.rep);
}

static void test_refused(void **state)
{
    static const struct {
        const char *hex;
        enum bt_decode result;
    } cases[] = {
        {"0f0100", BT_DECODE_OK},
        {"0f01c1", BT_DECODE_UD},     /* VMCALL */
        {"0f01d9", BT_DECODE_UD},     /* VMMCALL */
        {"0f01c8", BT_DECODE_UD},     /* MONITOR */
        {"0f01d0", BT_DECODE_OK},     /* XGETBV */
        {"0f01d1", BT_DECODE_OK},     /* XSETBV */
        {"0f01f9", BT_DECODE_UD},     /* RDTSCP */
        {"0f01ca", BT_DECODE_UD},     /* CLAC */
        {"0fae20", BT_DECODE_OK},     /* XSAVE */
        {"0fae28", BT_DECODE_OK},     /* XRSTOR */
        {"0fae30", BT_DECODE_OK},     /* XSAVEOPT */
        {"0fc720", BT_DECODE_UD},     /* XSAVEC */
        {"0fc728", BT_DECODE_UD},     /* XSAVES */
        {"0fc718", BT_DECODE_UD},     /* XRSTORS */
        {"0f05", BT_DECODE_UD},       /* SYSCALL */
        {"0f0e", BT_DECODE_UD},       /* FEMMS */
        {"0f0fc10c", BT_DECODE_UD},   /* 3DNow! */
        {"c5f877", BT_DECODE_OK},     /* VZEROUPPER */
        {"c4e270f2c1", BT_DECODE_OK}, /* ANDN */
        {"f0c5f877", BT_DECODE_UD},   /* ... with LOCK, 66, F2, F3 before VEX */
        {"66c5f877", BT_DECODE_UD},
        {"f2c5f877", BT_DECODE_UD},
        {"f3c5f877", BT_DECODE_UD},
        {"64c5fc10442408", BT_DECODE_OK}, /* and with a segment */
        {"c5fa10", BT_DECODE_SHORT},
        {"c500", BT_DECODE_OK},                 /* LDS eax, [eax] */
        {"c4442408", BT_DECODE_OK},             /* LES eax, [esp+8] */
        {"c4e3e84844cb0407", BT_DECODE_UD},     /* VPERMIL2PS: XOP's sibling */
        {"c4e279dcc1", BT_DECODE_OK},           /* VAESENC of XMM is AVX's */
        {"c4e27ddcc1", BT_DECODE_UD},           /* ... of YMM is VAES's */
        {"c4e24150c2", BT_DECODE_UD},           /* VPDPBUSD is AVX-VNNI's */
        {"c4e379cfc200", BT_DECODE_UD},         /* VGF2P8AFFINEINVQB */
        {"c4e26990040d00000000", BT_DECODE_OK}, /* VPGATHERDD */
        {"67c4e269900400", BT_DECODE_UD},       /* ... has no 16-bit addresses */
        {"62f17c4858c1", BT_DECODE_UD},         /* EVEX */
        {"8fe97c9ac1", BT_DECODE_UD},           /* XOP */
        {"c7f800000000", BT_DECODE_UD},         /* XBEGIN */
        {"0fc7f8", BT_DECODE_UD},               /* RDSEED */
        {"660f38cfc1", BT_DECODE_UD},           /* GF2P8MULB */
        {"660f38810b", BT_DECODE_UD},           /* INVVPID */
        {"f00fb100", BT_DECODE_OK},             /* LOCK CMPXCHG */
        {"f00fb1c1", BT_DECODE_UD},             /* ... of a register */
        {"f0c3", BT_DECODE_UD},                 /* LOCK RET */
        {"f08b00", BT_DECODE_UD},               /* LOCK MOV */
        {"f00fa300", BT_DECODE_UD},             /* LOCK BT */
        {"f00fab00", BT_DECODE_OK},             /* LOCK BTS */
        {"f00fc708", BT_DECODE_OK},             /* LOCK CMPXCHG8B */
        {"8ec8", BT_DECODE_UD},                 /* MOV CS */
        {"0f20c8", BT_DECODE_UD},               /* MOV from CR1 */
        {"0f24c0", BT_DECODE_UD},               /* MOV from TR0 */
        {"f30f1efb", BT_DECODE_OK},             /* ENDBR32 is a NOP without CET */
        {"0f1ac0", BT_DECODE_OK},               /* MPX likewise */
        {"0f1f00", BT_DECODE_OK},
        {"", BT_DECODE_SHORT},
        {"66", BT_DECODE_SHORT},
        {"0f", BT_DECODE_SHORT},
        {"8b84", BT_DECODE_SHORT},
        {"e8010203", BT_DECODE_SHORT},
        {"6666666666666666666666666666 90", BT_DECODE_OK},
        {"666666666666666666666666666666", BT_DECODE_LONG},
        {"66666666666666666666666666666690", BT_DECODE_LONG},
        {"666666666666666666 81840000000000 1111", BT_DECODE_LONG},
    };
    (void)state;
    for (unsigned n = 0; n < sizeof cases / sizeof cases[0]; n++) {
        struct bt_insn i;
        enum bt_decode got = decode(true, cases[n].hex, &i);
        if (got != cases[n].result)
            fail_msg("%s: %d, expected %d", cases[n].hex, got, cases[n].result);
    }
}

/* Whatever the bytes: no crash, Zydis' length, fields within bounds, a handler for all that is accepted, and
 * a truncated instruction is short, never something else. */
static void test_random(void **state)
{
    struct bt_decoder d;
    uint64_t x = 88172645463325252u;
    unsigned accepted = 0;
    (void)state;
    bt_decoder_init(&d);
    for (unsigned n = 0; n < 300000; n++) {
        uint8_t b[16];
        struct bt_insn i, again;
        ZydisDecodedInstruction z;
        bool big = n & 1;
        for (unsigned k = 0; k < 16; k++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            b[k] = (uint8_t)(x >> 24);
        }
        if (n & 2)
            b[0] = 0x0f;
        if (bt_decode(&d, big, b, 15, &i) != BT_DECODE_OK)
            continue;
        accepted++;
        if (!bt_interp_lookup(&i))
            fail_msg("no handler for map %u opcode %02x reg %u", i.map, i.opcode, i.reg);
        assert_true(ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(big ? &d.d32 : &d.d16, NULL, b, 15, &z)));
        assert_int_equal(i.length, z.length);
        assert_memory_equal(i.bytes, b, i.length);
        assert_int_equal(i.bytes[i.opcode_off], i.opcode);
        assert_true(i.disp_off + i.disp_size <= i.length && i.imm_off + i.imm_size <= i.length);
        assert_true(i.osz == 2 || i.osz == 4);
        assert_true(i.base == BT_NOREG || i.base < 8);
        assert_true(i.index == BT_NOREG || i.index < 8);
        assert_true(i.seg <= RC_GS);
        if (!i.is_mem || i.class == BT_CLASS_INT)
            assert_true(i.mem_size <= 8);
        assert_int_equal(bt_decode(&d, big, b, i.length, &again), BT_DECODE_OK);
        if (i.length > 1)
            assert_int_equal(bt_decode(&d, big, b, i.length - 1u, &again), BT_DECODE_SHORT);
    }
    assert_true(accepted > 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests_name("bt_decode", tests, NULL, NULL);
}
