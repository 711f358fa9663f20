/* Plain decoding against Zydis: whatever decode_plain.c accepts must be what Zydis says, field by field, for every opcode,
 * ModRM, SIB and prefix, however short the code is, and for random bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "insn.h"

static struct bt_decoder decoder;

static void report(const char *field, const uint8_t *code, unsigned len, long got, long want)
{
    char hex[2 * BT_MAX_INSN + 1] = "";
    for (unsigned i = 0; i < len; i++)
        snprintf(hex + 2 * i, 3, "%02x", code[i]);
    fail_msg("%s: %s is %ld, Zydis says %ld", hex, field, got, want);
}

/* Whether the code is plain. If it is, every field is compared. */
static bool check(const uint8_t *code, unsigned len)
{
    struct bt_insn got, want;
    if (!bt_decode_plain(&decoder, code, len, &got))
        return false;
    enum bt_decode result = bt_decode_by_zydis(&decoder, true, code, len, &want);
    if (result != BT_DECODE_OK)
        report("result", code, len, BT_DECODE_OK, result);
#define SAME(f)                                                                                              \
    if (got.f != want.f)                                                                                     \
    report(#f, code, len, (long)got.f, (long)want.f)
    SAME(mnemonic);
    SAME(length);
    SAME(opsize);
    SAME(osz);
    SAME(asz);
    SAME(map);
    SAME(opcode);
    SAME(opcode_off);
    SAME(class);
    SAME(lock);
    SAME(rep);
    SAME(repne);
    SAME(has_modrm);
    SAME(is_mem);
    SAME(modrm);
    SAME(mod);
    SAME(reg);
    SAME(rm);
    SAME(modrm_off);
    SAME(sib_off);
    SAME(disp_off);
    SAME(disp_size);
    SAME(imm_off);
    SAME(imm_size);
    SAME(seg);
    SAME(base);
    SAME(index);
    SAME(scale);
    SAME(mem_written);
    SAME(mem_size);
    SAME(disp);
    SAME(imm);
    SAME(imm2);
    SAME(vex);
    SAME(vex_gpr);
    SAME(vsib);
#undef SAME
    if (memcmp(got.bytes, want.bytes, sizeof(got.bytes)) != 0)
        report("bytes", code, len, 0, 0);
    return true;
}

static uint64_t seed = 88172645463325252u;

static uint8_t noise(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (uint8_t)(seed >> 24);
}

/* ---- Every form ---- */

struct prefixes {
    uint8_t len, byte[4];
};
static const struct prefixes prefix_sets[] = {
    {0, {0}},
    {1, {0x66}},
    {1, {0xf2}},
    {1, {0xf3}},
    {1, {0x26}},
    {1, {0x2e}},
    {1, {0x36}},
    {1, {0x3e}},
    {1, {0x64}},
    {1, {0x65}},
    {1, {0x67}},
    {1, {0xf0}},
    {2, {0x66, 0x66}},
    {2, {0x66, 0xf2}},
    {2, {0xf2, 0x66}},
    {2, {0x66, 0xf3}},
    {2, {0xf3, 0x66}},
    {2, {0xf2, 0xf3}},
    {2, {0xf3, 0xf2}},
    {2, {0xf3, 0xf3}},
    {2, {0x66, 0x67}},
    {2, {0x66, 0xf0}},
    {2, {0x2e, 0x66}},
    {2, {0x66, 0x64}},
    {2, {0x65, 0xf3}},
    {3, {0x3e, 0xf2, 0x64}},
    {3, {0x66, 0x36, 0x66}},
    {4, {0x64, 0x65, 0x26, 0x2e}},
};

struct form {
    const struct prefixes *prefixes;
    bool map_0f;
    uint8_t opcode, modrm, sib;
};

/* Whatever is no part of the form is noise: displacements and immediates of all signs. */
static unsigned spell(const struct form *f, uint8_t code[BT_MAX_INSN])
{
    unsigned n = 0;
    for (unsigned i = 0; i < BT_MAX_INSN; i++)
        code[i] = noise();
    for (; n < f->prefixes->len; n++)
        code[n] = f->prefixes->byte[n];
    if (f->map_0f)
        code[n++] = 0x0f;
    code[n++] = f->opcode;
    code[n++] = f->modrm;
    if (f->modrm < 0xc0 && (f->modrm & 7) == 4)
        code[n++] = f->sib;
    return n;
}

static bool has_sib(unsigned modrm)
{
    return modrm < 0xc0 && (modrm & 7) == 4;
}

/* No base, no index, neither, both. */
static const uint8_t few_sibs[] = {0x25, 0xe5, 0x20, 0x24, 0x8d, 0xc8, 0x5c, 0x65};

static unsigned check_opcode(struct form f, bool all_sibs)
{
    uint8_t code[BT_MAX_INSN];
    unsigned plain = 0;
    for (unsigned modrm = 0; modrm < 256; modrm++) {
        unsigned sibs = !has_sib(modrm) ? 1 : all_sibs ? 256 : sizeof few_sibs;
        f.modrm = (uint8_t)modrm;
        for (unsigned sib = 0; sib < sibs; sib++) {
            f.sib = all_sibs ? (uint8_t)sib : few_sibs[sib];
            spell(&f, code);
            plain += check(code, BT_MAX_INSN);
        }
    }
    return plain;
}

static void every_form(void **state)
{
    unsigned plain_opcodes = 0;
    (void)state;
    for (unsigned set = 0; set < sizeof prefix_sets / sizeof prefix_sets[0]; set++)
        for (unsigned opcode = 0; opcode < 512; opcode++) {
            struct form f = {
                .prefixes = &prefix_sets[set], .map_0f = opcode > 255, .opcode = (uint8_t)opcode};
            unsigned plain = check_opcode(f, set < 2);
            plain_opcodes += set == 0 && plain != 0;
        }
    /* 256 less 11 prefixes, 0F, 53 that are sensitive or rare; and as many again behind 0F */
    assert_true(plain_opcodes > 380);
}

/* ---- Code that ends ---- */

/* The last page before one that must not be touched. */
static uint8_t *page_end(void)
{
    uint8_t *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    assert_int_equal(mprotect(p + 4096, 4096, PROT_NONE), 0);
    return p + 4096;
}

static void check_cut(const struct form *f, uint8_t *end)
{
    uint8_t code[BT_MAX_INSN];
    struct bt_insn i;
    spell(f, code);
    bool plain = bt_decode_plain(&decoder, code, BT_MAX_INSN, &i);
    unsigned length = plain ? i.length : BT_MAX_INSN;
    for (unsigned len = 0; len < BT_MAX_INSN; len++) {
        memcpy(end - len, code, len);
        if (check(end - len, len) != (plain && len >= length))
            report("enough", code, len, len, length);
        enum bt_decode got = bt_decode(&decoder, true, end - len, len, &i);
        enum bt_decode want = bt_decode_by_zydis(&decoder, true, end - len, len, &i);
        if (got != want)
            report("result of the cut instruction", code, len, got, want);
    }
}

static void cut_at_every_length(void **state)
{
    static const uint8_t modrms[] = {0x00, 0x05, 0x04, 0x44, 0x4d, 0x84, 0x90, 0xc0, 0xff};
    static const uint8_t sibs[] = {0x25, 0x08};
    uint8_t *end = page_end();
    (void)state;
    for (unsigned set = 0; set < sizeof prefix_sets / sizeof prefix_sets[0]; set += set < 4 ? 1 : 5)
        for (unsigned opcode = 0; opcode < 512; opcode++)
            for (unsigned m = 0; m < sizeof modrms; m++)
                for (unsigned s = 0; s < (has_sib(modrms[m]) ? 2 : 1); s++) {
                    struct form f = {&prefix_sets[set], opcode > 255, (uint8_t)opcode, modrms[m], sibs[s]};
                    check_cut(&f, end);
                }
    munmap(end - 4096, 8192);
}

/* Prefixes until nothing else fits: 15 bytes are an instruction, 16 are none. */
static void too_many_prefixes(void **state)
{
    static const uint8_t tails[][6] = {{0x90}, {0x0f, 0x1f, 0x40, 0x00}, {0x81, 0xc0, 1, 2, 3, 4}};
    static const uint8_t lengths[] = {1, 4, 6};
    (void)state;
    for (unsigned tail = 0; tail < 3; tail++)
        for (unsigned prefixes = 0; prefixes <= BT_MAX_INSN; prefixes++) {
            uint8_t code[32];
            struct bt_insn i;
            struct bt_plain p;
            memset(code, 0x2e, prefixes);
            memcpy(code + prefixes, tails[tail], lengths[tail]);
            assert_int_equal(check(code, BT_MAX_INSN), bt_plain_find(&decoder, code, &p));
            assert_int_equal(bt_decode(&decoder, true, code, BT_MAX_INSN, &i),
                             prefixes + lengths[tail] <= BT_MAX_INSN ? BT_DECODE_OK : BT_DECODE_LONG);
        }
}

/* ---- Noise, and code of the other size ---- */

static void random_code(void **state)
{
    static const uint8_t starts[] = {0x66, 0xf2, 0xf3, 0x65, 0x0f, 0x2e, 0x67, 0xf0};
    unsigned plain = 0;
    (void)state;
    for (unsigned n = 0; n < 4000000; n++) {
        uint8_t code[BT_MAX_INSN];
        for (unsigned k = 0; k < BT_MAX_INSN; k++)
            code[k] = noise();
        for (unsigned k = 0; k < (n & 3); k++)
            code[k] = starts[code[k] % sizeof starts];
        plain += check(code, n % 7 ? BT_MAX_INSN : n / 7 % BT_MAX_INSN);
    }
    assert_true(plain > 1000000);
}

static void only_32_bit_code(void **state)
{
    static const uint8_t code[] = {0xb8, 1, 2, 3, 4, 5}; /* MOV AX, 0201 or MOV EAX, 04030201 */
    struct bt_insn i;
    (void)state;
    assert_int_equal(bt_decode(&decoder, true, code, sizeof(code), &i), BT_DECODE_OK);
    assert_int_equal(i.imm, 0x04030201);
    assert_int_equal(bt_decode(&decoder, false, code, sizeof(code), &i), BT_DECODE_OK);
    assert_int_equal(i.imm, 0x0201);
}

/* What is common must be plain, or all the rest is for nothing. */
static void common_code(void **state)
{
    static const uint8_t code[][8] = {
        {0x8b, 0x44, 0x24, 0x08},          /* MOV EAX, [ESP+8] */
        {0x89, 0xc3},                      /* MOV EBX, EAX */
        {0x8d, 0xb4, 0x26, 0, 0, 0, 0},    /* LEA ESI, [ESI+0] */
        {0x55},                            /* PUSH EBP */
        {0xe8, 1, 2, 3, 4},                /* CALL */
        {0x0f, 0x84, 1, 2, 3, 4},          /* JE */
        {0x74, 0x05},                      /* JE */
        {0xc3},                            /* RET */
        {0x83, 0xec, 0x1c},                /* SUB ESP, 1C */
        {0xc7, 0x44, 0x24, 4, 1, 0, 0, 0}, /* MOV dword [ESP+4], 1 */
        {0x0f, 0xb6, 0xc0},                /* MOVZX EAX, AL */
        {0xf7, 0xd8},                      /* NEG EAX */
        {0xff, 0xd2},                      /* CALL EDX */
        {0xa1, 1, 2, 3, 4},                /* MOV EAX, [04030201] */
        {0xf3, 0xa5},                      /* REP MOVSD */
        {0x66, 0x89, 0x08},                /* MOV [EAX], CX */
        {0xf2, 0x0f, 0x58, 0xc1},          /* ADDSD XMM0, XMM1 */
        {0x66, 0x0f, 0xef, 0xc0},          /* PXOR XMM0, XMM0 */
        {0xdd, 0x45, 0x08},                /* FLD qword [EBP+8] */
        {0xde, 0xc1},                      /* FADDP */
        {0x65, 0xa1, 0x14, 0, 0, 0},       /* MOV EAX, GS:[14] */
    };
    (void)state;
    for (unsigned n = 0; n < sizeof code / sizeof code[0]; n++)
        if (!check(code[n], sizeof(code[n])))
            fail_msg("row %u is not plain", n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(common_code),         cmocka_unit_test(every_form),
        cmocka_unit_test(cut_at_every_length), cmocka_unit_test(too_many_prefixes),
        cmocka_unit_test(random_code),         cmocka_unit_test(only_32_bit_code),
    };
    bt_decoder_init(&decoder);
    return cmocka_run_group_tests_name("bt_decode_plain", tests, NULL, NULL);
}
