/* One case through the interpreter, the translator and the CPU, and the comparison. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "run.h"

static bool on_trap(void *ctx, struct host_trap *t)
{
    struct oracle *o = ctx;
    return o->running ? bt_trap(o->running, t) : o->native && oracle_native_trap(o->native, t);
}

/* A sequence without end is a bug of the dice or of an engine; which one it was is worth knowing. */
static struct oracle *watched;
static void on_alarm(int signal)
{
    char text[64];
    int n = snprintf(text, sizeof text, "oracle: stuck in seed %llu\n", (unsigned long long)watched->current);
    (void)signal;
    if (write(2, text, (size_t)n) != n)
        _exit(3);
    _exit(1);
}

int oracle_create(struct oracle **out, bool verify, bool world, struct host_err *err)
{
    struct oracle *o = aligned_alloc(64, (sizeof *o + 63) & ~(size_t)63);
    struct oracle_random r = {0x123456789};
    if (!o)
        return host_fail(err, "no memory");
    memset(o, 0, sizeof *o);
    bt_decoder_init(&o->decoder);
    o->avx = oracle_has_avx();
    for (unsigned n = 0; n < sizeof o->background; n++)
        o->background[n] = (uint8_t)(oracle_below(&r, 4) ? oracle_random(&r) : 0);
    if ((world ? oracle_world_create(&o->world, err) : oracle_native_create(&o->native, err)) ||
        oracle_guest_create(&o->interp, BT_INTERPRET, verify, err) ||
        oracle_guest_create(&o->trans, BT_TRANSLATE, verify, err) ||
        host_thread_enter(&o->thread, on_trap, o, &o->counts, err))
        return -1;
    o->ram[ORACLE_INTERP] = &o->interp.ram;
    o->ram[ORACLE_TRANS] = &o->trans.ram;
    o->ram[ORACLE_NATIVE] = world ? oracle_world_ram(o->world) : oracle_native_ram(o->native);
    watched = o;
    signal(SIGALRM, on_alarm);
    *out = o;
    return 0;
}

void oracle_destroy(struct oracle *o)
{
    host_thread_leave(&o->thread);
    oracle_guest_destroy(&o->interp);
    oracle_guest_destroy(&o->trans);
    if (o->native)
        oracle_native_destroy(o->native);
    oracle_world_destroy(o->world);
    free(o);
}

bool oracle_plant(struct oracle *o, const char *mnemonic)
{
    for (unsigned k = 1; k <= ZYDIS_MNEMONIC_MAX_VALUE; k++)
        if (!strcasecmp(ZydisMnemonicGetString((ZydisMnemonic)k), mnemonic))
            o->plant = (uint16_t)k;
    return o->plant;
}

void oracle_refresh(struct oracle *o)
{
    o->trans.v->forms_used = o->trans.v->forms_mask; /* as if there were no room for more: they go, too */
    bt_cache_flush(o->trans.v);
}

/* ---- running ---- */

static void fill_memory(struct oracle *o, const struct oracle_case *c, const struct host_ram *ram)
{
    memcpy(ram->base + ORACLE_DATA, o->background, ORACLE_DATA_SIZE);
    for (unsigned n = 0; n < c->patches; n++)
        memcpy(ram->base + c->patch[n].at, &c->patch[n].value, 4);
}

/* In place of the last one, whose room is filled with HLT: a stray return must not find it. */
static void put_code(struct oracle *o, const struct oracle_case *c)
{
    uint8_t *native = o->ram[ORACLE_NATIVE]->base;
    if (o->code_len) {
        memset(native + o->code_at, 0xf4, o->code_len);
        oracle_guest_code(&o->interp, o->code_at, native + o->code_at, o->code_len);
        oracle_guest_code(&o->trans, o->code_at, native + o->code_at, o->code_len);
    }
    memcpy(native + c->eip, c->code, c->code_len);
    oracle_guest_code(&o->interp, c->eip, c->code, c->code_len);
    oracle_guest_code(&o->trans, c->eip, c->code, c->code_len);
    o->code_at = c->eip;
    o->code_len = c->code_len;
}

static bool contains(struct oracle *o, const struct oracle_case *c, uint16_t mnemonic)
{
    struct bt_insn i;
    for (unsigned n = 0; n < c->count; n++)
        if (!c->item[n].dead &&
            bt_decode(&o->decoder, true, c->item[n].bytes, c->item[n].len, &i) == BT_DECODE_OK &&
            i.mnemonic == mnemonic)
            return true;
    return false;
}

/* A return that finds its own address runs for ever. The interpreter comes first and finds out. */
static bool run_all(struct oracle *o, const struct oracle_case *c)
{
    for (unsigned e = 0; e < ORACLE_ENGINES; e++)
        fill_memory(o, c, o->ram[e]);
    put_code(o, c);
    o->running = o->interp.v;
    oracle_guest_run(&o->interp, c, 20000, &o->result[ORACLE_INTERP]);
    if (o->result[ORACLE_INTERP].vector == ORACLE_ENDLESS)
        return false;
    o->running = o->trans.v;
    oracle_guest_run(&o->trans, c, UINT64_MAX, &o->result[ORACLE_TRANS]);
    o->running = NULL;
    if (o->world)
        oracle_world_run(o->world, c, &o->result[ORACLE_NATIVE]);
    else
        oracle_native_run(o->native, c, &o->result[ORACLE_NATIVE]);
    if (o->plant && contains(o, c, o->plant))
        o->result[ORACLE_INTERP].gpr[RC_ESI] ^= 1;
    return true;
}

/* ---- comparing ---- */

/* x87 pointers are host addresses in native and translated code and never shown to a guest; MXCSR_MASK is the model's. */
static const struct {
    const char *name;
    uint16_t at, size;
} fpu_field[] = {
    {"FCW", 0, 2},     {"FSW", 2, 2},     {"FTW", 4, 1},     {"MXCSR", 24, 4},  {"ST0", 32, 10},
    {"ST1", 48, 10},   {"ST2", 64, 10},   {"ST3", 80, 10},   {"ST4", 96, 10},   {"ST5", 112, 10},
    {"ST6", 128, 10},  {"ST7", 144, 10},  {"XMM0", 160, 16}, {"XMM1", 176, 16}, {"XMM2", 192, 16},
    {"XMM3", 208, 16}, {"XMM4", 224, 16}, {"XMM5", 240, 16}, {"XMM6", 256, 16}, {"XMM7", 272, 16},
};

/* Of YMM0-7; zero when the image says that they are in their initial configuration. */
static const uint8_t *ymm_high(const uint8_t *fpu)
{
    static const uint8_t zero[128];
    return fpu[RC_XSAVE_XSTATE_BV] & RC_XCR0_AVX ? fpu + RC_XSAVE_YMM_HIGH : zero;
}

static const char *fpu_differs(const uint8_t *a, const uint8_t *b)
{
    for (unsigned k = 0; k < sizeof fpu_field / sizeof *fpu_field; k++)
        if (memcmp(a + fpu_field[k].at, b + fpu_field[k].at, fpu_field[k].size))
            return fpu_field[k].name;
    return memcmp(ymm_high(a), ymm_high(b), 128) ? "the upper half of a YMM register" : NULL;
}

/* Instructions of many accesses: which of them faults first, and what has happened by then, is the CPU's own affair. */
enum { LOOSE_CR2 = 1, LOOSE_FPU = 2, LOOSE_GPR = 4, LOOSE_MEMORY = 8, LOOSE_ALL = 16 };
static const struct {
    uint16_t mnemonic;
    uint8_t what;
    const char *why;
} loose[] = {
    {ZYDIS_MNEMONIC_FLDENV, LOOSE_CR2, "vol. 2: the order of its reads is not said; AMD reads the end first"},
    {ZYDIS_MNEMONIC_FRSTOR, LOOSE_CR2, "the same"},
    {ZYDIS_MNEMONIC_MASKMOVQ, LOOSE_ALL,
     "vol. 2: whether masked-out bytes fault is implementation dependent"},
    {ZYDIS_MNEMONIC_MASKMOVDQU, LOOSE_ALL,
     "vol. 2: whether masked-out bytes fault is implementation dependent"},
    {ZYDIS_MNEMONIC_VMASKMOVDQU, LOOSE_ALL, "the same"},
    {ZYDIS_MNEMONIC_POPA, LOOSE_GPR, "AMD has popped some registers by then"},
    {ZYDIS_MNEMONIC_POPAD, LOOSE_GPR, "AMD has popped some registers by then"},
    {ZYDIS_MNEMONIC_PUSHA, LOOSE_MEMORY, "AMD has pushed some registers by then"},
    {ZYDIS_MNEMONIC_PUSHAD, LOOSE_MEMORY, "AMD has pushed some registers by then"},
};

/* The instruction a run stopped at. */
static bool stopped_at(struct oracle *o, const struct oracle_case *c, const struct oracle_result *r,
                       struct bt_insn *i)
{
    uint32_t at = r->eip - c->eip;
    return r->vector != ORACLE_ENDED && at < c->code_len &&
           bt_decode(&o->decoder, true, c->code + at, c->code_len - at, i) == BT_DECODE_OK;
}

/* Vol. 3 5.3: accesses beyond an effective limit of FFFFFFFFh may or may not fault. */
static bool beyond_4g(const struct bt_insn *i, const struct oracle_result *r)
{
    uint32_t ea = (uint32_t)i->disp;
    if (!i->is_mem || i->asz == 2)
        return false;
    ea += i->base == BT_NOREG ? 0 : r->gpr[i->base];
    ea += i->index == BT_NOREG ? 0 : r->gpr[i->index] * i->scale;
    return (uint64_t)ea + i->mem_size > UINT64_C(1) << 32;
}

static unsigned looseness(struct oracle *o, const struct oracle_case *c, const struct oracle_result *r)
{
    struct bt_insn i;
    if (!stopped_at(o, c, r, &i))
        return 0;
    /* In DS this CPU does fault as the limit demands, but for FBSTP, whose first eight bytes miss their page before. */
    if ((i.seg != RC_DS || i.mnemonic == ZYDIS_MNEMONIC_FBSTP) && beyond_4g(&i, r))
        return LOOSE_ALL;
    for (unsigned k = 0; k < sizeof loose / sizeof *loose; k++)
        if (loose[k].mnemonic == i.mnemonic)
            return loose[k].what;
    if (i.vsib) /* vol. 2 VPGATHERDD: elements beyond the one that faults may or may not be complete */
        return LOOSE_CR2 | LOOSE_FPU;
    return 0;
}

/* Flags undefined where the run stopped; a stray return may stop it anywhere, after any instruction. */
static uint32_t open_flags(const struct oracle_case *c, uint32_t eip, const uint32_t *undefined)
{
    uint32_t at = eip - c->eip, all = 0;
    if (at < c->code_len)
        return undefined[at];
    for (unsigned k = 0; k <= c->offset[c->count]; k++)
        all |= undefined[k];
    return eip == ORACLE_EXIT + 2 ? undefined[c->offset[c->count]] : all;
}

static const char *results_differ(const struct oracle_case *c, const struct oracle_result *a,
                                  const struct oracle_result *b, const uint32_t *undefined, unsigned ignore)
{
    uint32_t open = open_flags(c, a->eip, undefined);
    if (a->vector == ORACLE_STOPPED || b->vector == ORACLE_STOPPED)
        return "an engine stopped";
    if (a->vector != b->vector)
        return "the exception";
    if (a->eip != b->eip)
        return "EIP";
    if (a->error != b->error)
        return "the error code";
    if (a->cr2 != b->cr2 && !(ignore & LOOSE_CR2))
        return "CR2";
    if (memcmp(a->gpr, b->gpr, sizeof a->gpr) && !(ignore & LOOSE_GPR))
        return "a register";
    if ((a->eflags ^ b->eflags) & (RC_ARITH | RC_DF) & ~open)
        return "a flag";
    return ignore & LOOSE_FPU ? NULL : fpu_differs(a->fpu, b->fpu);
}

const char *oracle_differs(struct oracle *o, const struct oracle_case *c)
{
    static uint32_t undefined[ORACLE_SEQ_BYTES + 1];
    static const uint8_t other[] = {ORACLE_INTERP, ORACLE_TRANS};
    if (!oracle_undefined(c, undefined))
        return NULL; /* decides nothing: the shrinker may make such */
    if (!run_all(o, c))
        return NULL;
    for (unsigned k = 0; k < sizeof other; k++) {
        const struct oracle_result *a = &o->result[ORACLE_NATIVE], *b = &o->result[other[k]];
        unsigned ignore = looseness(o, c, a) | looseness(o, c, b);
        const char *what = ignore & LOOSE_ALL ? NULL : results_differ(c, a, b, undefined, ignore);
        if (what)
            return what;
        if (!(ignore & (LOOSE_ALL | LOOSE_MEMORY)) &&
            memcmp(o->ram[ORACLE_NATIVE]->base + ORACLE_DATA, o->ram[other[k]]->base + ORACLE_DATA,
                   ORACLE_DATA_SIZE))
            return "memory";
    }
    return NULL;
}

static void account(struct oracle *o, const struct oracle_case *c)
{
    struct bt_insn i;
    o->vectors[o->result[ORACLE_NATIVE].vector & 255]++;
    uint32_t end = o->result[ORACLE_NATIVE].eip - c->eip;
    for (unsigned n = 0; n < c->count; n++)
        if ((o->result[ORACLE_NATIVE].vector == ORACLE_ENDED || c->offset[n] < end) &&
            bt_decode(&o->decoder, true, c->item[n].bytes, c->item[n].len, &i) == BT_DECODE_OK) {
            o->met[i.mnemonic] = 1;
            o->insns++;
        }
}

bool oracle_one(struct oracle *o, struct oracle_case *c, uint64_t seed)
{
    o->current = seed;
    if (!oracle_generate(c, seed, &o->decoder, o->avx)) {
        o->discarded++;
        return true;
    }
    if (o->show)
        oracle_show(o, c, "nothing yet");
    const char *what = oracle_differs(o, c);
    if (!what) {
        account(o, c);
        return true;
    }
    o->divergences++;
    alarm(20);
    struct oracle_result first[ORACLE_ENGINES];
    memcpy(first, o->result, sizeof first);
    oracle_shrink(o, c);
    oracle_refresh(o);
    const char *again = oracle_differs(o, c);
    if (!again) {
        memcpy(o->result, first, sizeof first);
        printf("(only the first time: it depends on what ran before)\n");
    }
    oracle_show(o, c, again ? again : what);
    return false;
}
