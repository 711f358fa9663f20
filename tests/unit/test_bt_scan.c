/* Unit test of the scan: which instructions may run natively, where instructions begin. Encodings by hand from SDM
 * vol. 2; every row of the sensitive table has a case here. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include "bt/bt.h"
#include "scan.h"

enum verdict { REFUSED, RUNS, NEEDS_TSC };
struct row_case {
    const char *mnemonic, *form;
    enum verdict want;
    uint8_t len, code[8];
};
static const struct row_case row_cases[] = {
    {"sgdt", "", REFUSED, 3, {0x0f, 0x01, 0x00}},
    {"sidt", "", REFUSED, 3, {0x0f, 0x01, 0x08}},
    {"sldt", "", REFUSED, 3, {0x0f, 0x00, 0xc0}},
    {"str", "", REFUSED, 3, {0x0f, 0x00, 0xc8}},
    {"smsw", "", REFUSED, 3, {0x0f, 0x01, 0xe0}},
    {"pushf", "", RUNS, 2, {0x66, 0x9c}},
    {"pushfd", "", RUNS, 1, {0x9c}},
    {"popf", "", RUNS, 2, {0x66, 0x9d}},
    {"popfd", "", RUNS, 1, {0x9d}},
    {"lar", "", REFUSED, 3, {0x0f, 0x02, 0xc1}},
    {"lsl", "", REFUSED, 3, {0x0f, 0x03, 0xc1}},
    {"verr", "", REFUSED, 3, {0x0f, 0x00, 0xe0}},
    {"verw", "", REFUSED, 3, {0x0f, 0x00, 0xe8}},
    {"pop", "sreg", REFUSED, 1, {0x07}},
    {"pop", "sreg", REFUSED, 1, {0x17}},
    {"pop", "sreg", REFUSED, 1, {0x1f}},
    {"pop", "sreg", REFUSED, 2, {0x0f, 0xa1}},
    {"pop", "sreg", REFUSED, 2, {0x0f, 0xa9}},
    {"push", "sreg", REFUSED, 1, {0x06}},
    {"push", "sreg", REFUSED, 1, {0x0e}},
    {"push", "sreg", REFUSED, 1, {0x16}},
    {"push", "sreg", REFUSED, 1, {0x1e}},
    {"push", "sreg", REFUSED, 2, {0x0f, 0xa0}},
    {"push", "sreg", REFUSED, 2, {0x0f, 0xa8}},
    {"mov", "sreg, r/m16", REFUSED, 2, {0x8e, 0xd8}},
    {"mov", "sreg, r/m16", REFUSED, 3, {0x8e, 0x40, 0x04}},
    {"mov", "r/m16, sreg", REFUSED, 2, {0x8c, 0xe8}},
    {"call", "far", REFUSED, 7, {0x9a, 0, 0, 0, 0, 0x33, 0}},
    {"call", "far", REFUSED, 2, {0xff, 0x18}},
    {"jmp", "far", REFUSED, 7, {0xea, 0, 0, 0, 0, 0x33, 0}},
    {"jmp", "far", REFUSED, 2, {0xff, 0x28}},
    {"ret", "far", REFUSED, 1, {0xcb}},
    {"ret", "far", REFUSED, 3, {0xca, 4, 0}},
    {"int", "", RUNS, 2, {0xcd, 0x80}},
    {"iret", "", REFUSED, 2, {0x66, 0xcf}},
    {"iretd", "", REFUSED, 1, {0xcf}},
    {"int3", "", RUNS, 1, {0xcc}},
    {"int1", "", REFUSED, 1, {0xf1}},
    {"into", "", RUNS, 1, {0xce}},
    {"bound", "", RUNS, 2, {0x62, 0x00}},
    {"les", "", REFUSED, 2, {0xc4, 0x00}},
    {"lds", "", REFUSED, 2, {0xc5, 0x00}},
    {"lss", "", REFUSED, 3, {0x0f, 0xb2, 0x00}},
    {"lfs", "", REFUSED, 3, {0x0f, 0xb4, 0x00}},
    {"lgs", "", REFUSED, 3, {0x0f, 0xb5, 0x00}},
    {"sysenter", "", REFUSED, 2, {0x0f, 0x34}},
    {"sysexit", "", RUNS, 2, {0x0f, 0x35}},
    {"syscall", "", REFUSED, 2, {0x0f, 0x05}},
    {"sysret", "", REFUSED, 2, {0x0f, 0x07}},
    {"cpuid", "", REFUSED, 2, {0x0f, 0xa2}},
    {"rdtsc", "", NEEDS_TSC, 2, {0x0f, 0x31}},
    {"rdtscp", "", REFUSED, 3, {0x0f, 0x01, 0xf9}},
    {"rdpid", "", REFUSED, 4, {0xf3, 0x0f, 0xc7, 0xf8}},
    {"xgetbv", "", REFUSED, 3, {0x0f, 0x01, 0xd0}},
    {"cli", "", RUNS, 1, {0xfa}},
    {"sti", "", RUNS, 1, {0xfb}},
    {"in", "", RUNS, 2, {0xe4, 0x80}},
    {"out", "", RUNS, 1, {0xee}},
    {"insb", "", RUNS, 1, {0x6c}},
    {"insw", "", RUNS, 2, {0x66, 0x6d}},
    {"insd", "", RUNS, 1, {0x6d}},
    {"outsb", "", RUNS, 1, {0x6e}},
    {"outsw", "", RUNS, 2, {0x66, 0x6f}},
    {"outsd", "", RUNS, 1, {0x6f}},
    {"hlt", "", RUNS, 1, {0xf4}},
    {"lgdt", "", RUNS, 3, {0x0f, 0x01, 0x10}},
    {"lidt", "", RUNS, 3, {0x0f, 0x01, 0x18}},
    {"lldt", "", RUNS, 3, {0x0f, 0x00, 0xd0}},
    {"ltr", "", RUNS, 3, {0x0f, 0x00, 0xd8}},
    {"lmsw", "", RUNS, 3, {0x0f, 0x01, 0xf0}},
    {"clts", "", RUNS, 2, {0x0f, 0x06}},
    {"mov", "cr, r32", RUNS, 3, {0x0f, 0x22, 0xc0}},
    {"mov", "r32, cr", RUNS, 3, {0x0f, 0x20, 0xc0}},
    {"mov", "dr, r32", RUNS, 3, {0x0f, 0x23, 0xf8}},
    {"mov", "r32, dr", RUNS, 3, {0x0f, 0x21, 0xf8}},
    {"invlpg", "", RUNS, 3, {0x0f, 0x01, 0x38}},
    {"invd", "", RUNS, 2, {0x0f, 0x08}},
    {"wbinvd", "", RUNS, 2, {0x0f, 0x09}},
    {"rdmsr", "", RUNS, 2, {0x0f, 0x32}},
    {"wrmsr", "", RUNS, 2, {0x0f, 0x30}},
    {"rdpmc", "", RUNS, 2, {0x0f, 0x33}},
    {"xsetbv", "", RUNS, 3, {0x0f, 0x01, 0xd1}},
    {"xsave", "", REFUSED, 3, {0x0f, 0xae, 0x20}},
    {"xsaveopt", "", REFUSED, 3, {0x0f, 0xae, 0x30}},
    {"xrstor", "", REFUSED, 3, {0x0f, 0xae, 0x28}},
    {"monitor", "", REFUSED, 3, {0x0f, 0x01, 0xc8}},
    {"mwait", "", REFUSED, 3, {0x0f, 0x01, 0xc9}},
    {"rsm", "", REFUSED, 2, {0x0f, 0xaa}},
};

static struct bt_scan_text text;

static void fill_with_nops(void)
{
    memset(&text, 0, sizeof(text));
    memset(text.byte, 0x90, sizeof(text.byte));
    text.has_before = text.has_after = true;
}

static void put(unsigned at, const uint8_t *code, unsigned len)
{
    memcpy(text.byte + BT_SCAN_BEFORE + at, code, len);
}

static void entry(unsigned at)
{
    text.entry[at / 64] |= UINT64_C(1) << at % 64;
}

static struct bt_verdict scan_text(void)
{
    struct bt_scan *s = bt_scan_create();
    assert_non_null(s);
    struct bt_verdict v = bt_scan_page(s, &text);
    bt_scan_destroy(s);
    return v;
}

/* VEX runs natively whether the guest's kernel allows it or not: so it must allow it. */
static void what_vex_needs(void **state)
{
    static const struct {
        uint8_t needs, len, code[5];
    } cases[] = {
        {BT_NEED_AVX, 4, {0xc5, 0xf8, 0x58, 0xc1}},       /* vaddps */
        {BT_NEED_AVX, 3, {0xc5, 0xf8, 0x77}},             /* vzeroupper */
        {BT_NEED_BMI, 5, {0xc4, 0xe2, 0x70, 0xf2, 0xc1}}, /* andn */
        {BT_NEED_BMI, 4, {0xf3, 0x0f, 0xbc, 0xc1}},       /* tzcnt */
        {0, 3, {0x0f, 0xbc, 0xc1}},                       /* bsf */
        {0, 3, {0x0f, 0x58, 0xc1}},                       /* addps */
    };
    (void)state;
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fill_with_nops();
        put(1000, cases[i].code, cases[i].len);
        struct bt_verdict v = scan_text();
        assert_false(v.refused);
        assert_int_equal(v.needs, cases[i].needs);
    }
}

static void every_sensitive_row(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof row_cases / sizeof row_cases[0]; i++) {
        const struct row_case *c = &row_cases[i];
        fill_with_nops();
        entry(990);
        put(1000, c->code, c->len);
        struct bt_verdict v = scan_text();
        if (v.refused != (c->want == REFUSED) ||
            (!v.refused && v.needs != (c->want == NEEDS_TSC ? BT_NEED_TSC : 0)))
            fail_msg("%s %s: refused %d, needs %u", c->mnemonic, c->form, v.refused, v.needs);
        if (v.refused)
            assert_int_equal(v.at, 1000);
    }
    for (unsigned row = 0; row < rc_sensitive_count; row++) {
        bool has_case = false;
        for (unsigned i = 0; i < sizeof row_cases / sizeof row_cases[0]; i++)
            has_case |= strcmp(row_cases[i].mnemonic, rc_sensitive_table[row].mnemonic) == 0 &&
                        strcmp(row_cases[i].form, rc_sensitive_table[row].form) == 0;
        if (!has_case)
            fail_msg("row %s %s has no case", rc_sensitive_table[row].mnemonic, rc_sensitive_table[row].form);
    }
}

/* The scan hurries past plain instructions: none of the table's may be one, whatever stands before it. */
static void nothing_sensitive_is_plain(void **state)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3, 0x3e, 0x65};
    static struct bt_decoder d;
    (void)state;
    bt_decoder_init(&d);
    for (unsigned i = 0; i < sizeof row_cases / sizeof row_cases[0]; i++)
        for (unsigned k = 0; k < sizeof prefixes; k++) {
            const struct row_case *c = &row_cases[i];
            uint8_t code[BT_MAX_INSN + 8] = {prefixes[k]};
            struct bt_plain plain;
            memcpy(code + !!prefixes[k], c->code, sizeof(c->code));
            if (bt_plain_find(&d, code, &plain))
                fail_msg("%s %s behind %02x is plain", c->mnemonic, c->form, prefixes[k]);
        }
}

/* What was seen of an instruction first must not hide what is odd about another one of its shape, nor the reverse. */
static void one_scan_for_many_pages(void **state)
{
    static const uint8_t code[] = {0xc3, 0x0f, 0xa2, 0x00,
                                   0x08, 0x00, 0x01, 0xc3}; /* RET; CPUID; ADD; ADD; RET */
    static const uint8_t data[] = {0xc3, 0x0f, 0xa2, 0x00,
                                   0x08, 0x00, 0x00, 0xc3}; /* ADD [EAX], AL: zeroes */
    struct bt_scan *s = bt_scan_create();
    (void)state;
    assert_non_null(s);
    for (unsigned round = 0; round < 6; round++) {
        bool is_code = round % 3 != 1;
        fill_with_nops();
        put(100, is_code ? code : data, sizeof(code));
        assert_int_equal(bt_scan_page(s, &text).refused, is_code);
    }
    bt_scan_destroy(s);
}

/* Neighbours in the opcode map of what is refused, and segment overrides. */
static void ordinary_code(void **state)
{
    static const uint8_t code[] = {
        0x50, 0x58, 0x68, 1,    0,    0,    0,    0x6a, 1,    0xff, 0x30, 0x8f, 0x00, /* push, pop of other kinds */
        0x65, 0xa1, 0x14, 0,    0,    0,    0x64, 0x8b, 0x18,                         /* through GS, FS */
        0xff, 0x10, 0xff, 0x20, 0xc3, 0xc2, 4,    0,    0xe8, 0,    0,    0,    0,    /* near transfers */
        0x89, 0xc8, 0x8b, 0x08, 0x8d, 0x40, 4,    0x0f, 0xaf, 0xc1, 0x0f, 0xa3, 0xc8, /* MOV, LEA, IMUL, BT */
        0x0f, 0xb6, 0xc0, 0x0f, 0x28, 0xc1, 0xdf, 0xe0, 0x0f, 0x0b, 0xf0, 0x0f, 0xb1, 0x08,
    };
    (void)state;
    fill_with_nops();
    put(512, code, sizeof(code));
    struct bt_verdict v = scan_text();
    if (v.refused)
        fail_msg("+%u: %s", v.at, v.reason);
    assert_int_equal(v.needs, 0);
}

static void what_the_guest_cpu_lacks(void **state)
{
    static const uint8_t code[][6] = {
        {0x0f, 0x01, 0xee},                   /* RDPKRU */
        {0x62, 0xf1, 0x7c, 0x48, 0x28, 0xc1}, /* VMOVAPS ZMM0, ZMM1 */
        {0x0f, 0x01, 0xd9},                   /* VMMCALL */
    };
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        fill_with_nops();
        entry(90);
        put(100, code[i], 6);
        struct bt_verdict v = scan_text();
        assert_true(v.refused);
        assert_int_equal(v.at, 100);
        assert_non_null(strstr(v.reason, "lacks"));
    }
    static const uint8_t nothing[] = {0x0f, 0xff, 0xc0, 0x0f, 0x04}; /* UD0; an opcode that nobody has */
    fill_with_nops();
    put(100, nothing, sizeof(nothing));
    assert_false(scan_text().refused);
}

/* Transactions are in every C library's locks: they keep a page from running only where the host has them. */
static void what_both_cpus_lack(void **state)
{
    static const uint8_t code[][6] = {
        {0xc7, 0xf8, 0, 0, 0, 0}, /* XBEGIN */
        {0x0f, 0x01, 0xd5},       /* XEND */
        {0x0f, 0x01, 0xd6},       /* XTEST */
        {0xc6, 0xf8, 0xff},       /* XABORT */
    };
    unsigned a = 0, b = 0, c = 0, d = 0;
    (void)state;
    (void)__get_cpuid_count(7, 0, &a, &b, &c, &d);
    bool host_has = ((b | d) >> 11) & 1; /* SDM vol. 2, CPUID: RTM, RTM_ALWAYS_ABORT */
    for (unsigned i = 0; i < sizeof code / sizeof code[0]; i++) {
        fill_with_nops();
        entry(90);
        put(100, code[i], 6);
        assert_int_equal(scan_text().refused, host_has);
    }
}

/* B8 07 1F 06 9A hides POP ES, POP DS, PUSH ES and a far call in an immediate: on the right track it is one MOV. */
static const uint8_t hidden[] = {0xb8, 0x07, 0x1f, 0x06, 0x9a};

static void hidden_in_immediates(void **state)
{
    (void)state;
    fill_with_nops();
    put(300, hidden, 5);
    assert_false(scan_text().refused);
    entry(301); /* somebody jumps into the middle of it */
    struct bt_verdict v = scan_text();
    assert_true(v.refused);
    assert_int_equal(v.at, 301);
}

/* Data that begins like an instruction would pull decoding over a known entry: the entry wins. */
static void resynchronised_by_entries(void **state)
{
    static const uint8_t data[] = {0x0f, 0x80}; /* the beginning of a long JO */
    (void)state;
    fill_with_nops();
    put(200, data, 2);
    put(202, (const uint8_t[]){0x0f, 0xa2}, 2); /* CPUID, inside the JO's displacement */
    assert_false(scan_text().refused);
    entry(202);
    assert_true(scan_text().refused);
}

static void page_edges(void **state)
{
    (void)state;
    /* an instruction that began in the page before: its bytes here are none */
    fill_with_nops();
    memcpy(text.byte + BT_SCAN_BEFORE - 1, hidden, 5);
    assert_false(scan_text().refused);
    /* the same bytes without what comes before: several tracks, and no judgement until they agree */
    text.has_before = false;
    assert_false(scan_text().refused);
    entry(0);
    assert_true(scan_text().refused);
    /* one that ends in the page after */
    fill_with_nops();
    put(4095, (const uint8_t[]){0x0f, 0xa2}, 2); /* CPUID over the edge */
    struct bt_verdict v = scan_text();
    assert_true(v.refused);
    assert_int_equal(v.at, 4095);
    text.byte[BT_SCAN_BEFORE + 4096] = 0xaf; /* IMUL */
    assert_false(scan_text().refused);
    memset(text.byte + BT_SCAN_BEFORE + 4096, 0, BT_SCAN_AFTER);
    text.has_after = false; /* not known: it is for the page after to say */
    assert_false(scan_text().refused);
    fill_with_nops();
    memcpy(text.byte + BT_SCAN_BEFORE - 1, (const uint8_t[]){0x0f, 0xa2}, 2);
    v = scan_text();
    assert_true(v.refused);
    assert_int_equal(v.at, 0);
    text.has_before = false;
    assert_false(scan_text().refused);
    /* beyond the page nothing is judged */
    fill_with_nops();
    put(4096, (const uint8_t[]){0x0f, 0xa2}, 2);
    assert_false(scan_text().refused);
}

static void runs_of_known_instructions(void **state)
{
    static const uint8_t code[] = {0x90, 0x0f, 0x31, 0x8e, 0xd8};
    (void)state;
    struct bt_scan *s = bt_scan_create();
    struct bt_verdict v = bt_scan_run(s, code, 3);
    assert_false(v.refused);
    assert_int_equal(v.needs, BT_NEED_TSC);
    v = bt_scan_run(s, code, 5);
    assert_true(v.refused);
    assert_int_equal(v.at, 3);
    assert_string_equal(v.reason, "mov");
    bt_scan_destroy(s);
}

/* Behind a RET nothing is known. What is refused there must be an instruction that programs use, and what follows it
 * must go on like code to the next end. */
static void tables_between_functions(void **state)
{
    static const uint8_t cpuid[] = {0xc3, 0x0f, 0xa2, 0x89, 0xc8, 0xc3};      /* RET; CPUID; MOV; RET */
    static const uint8_t data[] = {0xc3, 0x0f, 0xa2, 0x27, 0x89, 0xc8, 0xc3}; /* a DAA: nobody writes that */
    static const uint8_t nothing[] = {0xc3, 0x0f, 0xa2, 0x0f, 0x04, 0x89, 0xc8, 0xc3};   /* no such opcode */
    static const uint8_t odd[] = {0xc3, 0x06, 0x1e, 0xc5, 0x00, 0xcb, 0x89, 0xc8, 0xc3}; /* PUSH, LDS, RETF */
    static const uint8_t jump[] = {0xeb, 0x02, 0x0f, 0xa2, 0x27, 0x90};                  /* over something */
    (void)state;
    fill_with_nops();
    put(100, cpuid, sizeof(cpuid));
    struct bt_verdict v = scan_text();
    assert_true(v.refused);
    assert_int_equal(v.at, 101);
    assert_string_equal(v.reason, "cpuid");
    fill_with_nops();
    put(100, data, sizeof(data));
    assert_false(scan_text().refused);
    entry(101);
    assert_true(scan_text().refused);
    fill_with_nops();
    put(100, nothing, sizeof(nothing));
    assert_false(scan_text().refused);
    fill_with_nops();
    put(100, odd, sizeof(odd));
    assert_false(scan_text().refused);
    entry(101);
    assert_int_equal(scan_text().at, 101);
    fill_with_nops();
    entry(50);
    put(100, jump, sizeof(jump));
    assert_false(scan_text().refused);
    put(104, (const uint8_t[]){0x89, 0xc8}, 2); /* now it could be code, and nothing says that it is not */
    assert_true(scan_text().refused);
    /* what runs into a known instruction is code */
    fill_with_nops();
    put(100, cpuid, 4);
    entry(103);
    assert_true(scan_text().refused);
}

/* Any bytes at all: an answer, within the page. */
static void random_pages(void **state)
{
    uint64_t seed = 1;
    unsigned refused = 0;
    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        memset(&text, 0, sizeof(text));
        for (unsigned i = 0; i < sizeof(text.byte); i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            text.byte[i] = (uint8_t)(seed >> 56);
            if (i < 64)
                text.entry[i] = round % 2 ? seed : 0;
        }
        text.has_before = round % 3;
        text.has_after = round % 5;
        struct bt_verdict v = scan_text();
        assert_true(!v.refused || (v.at < 4096 && *v.reason));
        refused += v.refused;
        if (round % 2) /* known entries everywhere: some of everything is found */
            assert_true(v.refused);
    }
    assert_true(refused < 200); /* noise alone is no program */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sensitive_row),
        cmocka_unit_test(nothing_sensitive_is_plain),
        cmocka_unit_test(one_scan_for_many_pages),
        cmocka_unit_test(what_vex_needs),
        cmocka_unit_test(ordinary_code),
        cmocka_unit_test(what_the_guest_cpu_lacks),
        cmocka_unit_test(what_both_cpus_lack),
        cmocka_unit_test(hidden_in_immediates),
        cmocka_unit_test(resynchronised_by_entries),
        cmocka_unit_test(page_edges),
        cmocka_unit_test(runs_of_known_instructions),
        cmocka_unit_test(random_pages),
        cmocka_unit_test(tables_between_functions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
