/*
 * The dice. A sequence is a list of instructions; most are any encoding the decoder accepts, with an operand in memory
 * that lies where memory is to be found: the generator knows which registers hold which numbers, and loads one when it
 * needs an address. The rest are made on purpose: branches, calls, strings, divisions, flags images.
 */
#include <string.h>
#include "oracle.h"

struct gen {
    struct oracle_random r;
    struct oracle_case *c;
    struct bt_decoder *d;
    uint8_t known;     /* bit n: register n holds value[n] */
    uint8_t hands_off; /* bit n: register n may not be written */
    uint32_t value[8];
    bool avx;
    uint32_t undefined; /* flags, on the straight path */
    uint32_t joins[ORACLE_ITEMS + 1];
};

/* ---- chance ---- */

uint32_t oracle_random(struct oracle_random *r)
{
    r->x ^= r->x << 13;
    r->x ^= r->x >> 7;
    r->x ^= r->x << 17;
    return (uint32_t)(r->x >> 16);
}

uint32_t oracle_below(struct oracle_random *r, uint32_t n)
{
    return oracle_random(r) % n;
}

uint32_t oracle_value(struct oracle_random *r)
{
    static const uint32_t edge[] = {0,      1,      2,      0x7f,       0x80,      0xff,
                                    0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000};
    uint32_t v = edge[oracle_below(r, sizeof edge / sizeof *edge)];
    switch (oracle_below(r, 4)) {
    case 0:
        return v;
    case 1:
        return 0u - v;
    case 2:
        return v + oracle_below(r, 16);
    default:
        return oracle_random(r);
    }
}

static uint32_t below(struct gen *g, uint32_t n)
{
    return oracle_below(&g->r, n);
}

static bool one_in(struct gen *g, uint32_t n)
{
    return below(g, n) == 0;
}

/* x87 and vector registers: mostly ordinary numbers, some of everything. */
bool oracle_has_avx(void)
{
    struct rc_config c;
    rc_config_host(&c);
    return rc_has_avx(&c) && c.feature7_ebx >> 5 & 1; /* AVX2 */
}

void oracle_random_fpu(struct oracle_random *r, bool avx, uint8_t *fpu)
{
    memset(fpu, 0, ORACLE_FPU);
    for (unsigned n = 32; n < 288; n++)
        fpu[n] = (uint8_t)(oracle_below(r, 6) ? oracle_random(r) : 0);
    for (unsigned n = 0; n < 8; n++) {
        if (oracle_below(r, 4)) {
            uint64_t one = UINT64_C(0x8000000000000000) | (uint64_t)oracle_random(r) << 20;
            uint16_t exp = (uint16_t)(0x3ff0 + oracle_below(r, 32));
            memcpy(fpu + 32 + 16 * n, &one, 8);
            memcpy(fpu + 40 + 16 * n, &exp, 2);
        }
        if (oracle_below(r, 2)) {
            double d = (double)(int32_t)oracle_random(r) / 65536.0;
            float s = (float)(int32_t)oracle_random(r) / 65536.0f;
            memcpy(fpu + 160 + 16 * n, &d, 8);
            if (oracle_below(r, 2))
                memcpy(fpu + 160 + 16 * n, &s, 4);
        }
        memset(fpu + 32 + 16 * n + 10, 0, 6);
    }
    uint16_t fcw = (uint16_t)(0x7f & ~(oracle_below(r, 4) ? 0 : oracle_random(r) & 0x3f));
    uint16_t fsw = (uint16_t)(oracle_random(r) & 0x7f00);
    uint32_t mxcsr = 0x1f80 | oracle_below(r, 4) << 13 | (oracle_below(r, 4) ? 0 : 0x8040);
    if (oracle_below(r, 4) == 0)
        mxcsr &= ~(oracle_random(r) & 0x1f80);
    fcw |= (uint16_t)(oracle_below(r, 16) << 8);
    memcpy(fpu, &fcw, 2);
    memcpy(fpu + 2, &fsw, 2);
    fpu[4] = (uint8_t)(oracle_below(r, 2) ? 0xff : oracle_random(r));
    memcpy(fpu + 24, &mxcsr, 4);
    fpu[RC_XSAVE_XSTATE_BV] = RC_XCR0_X87 | RC_XCR0_SSE;
    if (!avx || oracle_below(r, 4) == 0)
        return;
    fpu[RC_XSAVE_XSTATE_BV] |= RC_XCR0_AVX;
    for (unsigned n = 0; n < 128; n += 4) {
        uint32_t v = oracle_value(r);
        memcpy(fpu + RC_XSAVE_YMM_HIGH + n, &v, 4);
    }
}

/* ---- items ---- */

/* What an instruction does to what the generator knows. */
static void learn(struct gen *g, const struct oracle_item *item)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    uint32_t reads, defines, leaves;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->d->d32, item->bytes, item->len, &z, op)))
        return;
    oracle_flags(&z, op, &reads, &defines, &leaves);
    g->undefined = (g->undefined & ~defines) | leaves;
    for (unsigned k = 0; k < z.operand_count; k++) {
        if (op[k].type != ZYDIS_OPERAND_TYPE_REGISTER || !(op[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LEGACY_32, op[k].reg.value);
        if (whole >= ZYDIS_REGISTER_EAX && whole <= ZYDIS_REGISTER_EDI)
            g->known &= (uint8_t) ~(1u << (whole - ZYDIS_REGISTER_EAX));
    }
}

static bool full(const struct gen *g)
{
    return g->c->count + 12 > ORACLE_ITEMS;
}

static struct oracle_item *add(struct gen *g, const uint8_t *bytes, unsigned len)
{
    struct oracle_item *item = &g->c->item[g->c->count];
    g->undefined |= g->joins[g->c->count];
    *item = (struct oracle_item){.len = (uint8_t)len, .partner = (uint8_t)g->c->count};
    memcpy(item->bytes, bytes, len);
    g->c->count++;
    learn(g, item);
    return item;
}
#define ADD(g, ...) add(g, (uint8_t[]){__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}))

/* mov reg, imm32 */
static struct oracle_item *load(struct gen *g, unsigned reg, uint32_t value)
{
    uint8_t b[5] = {(uint8_t)(0xb8 | reg)};
    memcpy(b + 1, &value, 4);
    struct oracle_item *item = add(g, b, 5);
    g->known |= (uint8_t)(1u << reg);
    g->value[reg] = value;
    return item;
}

/* cmp al, imm8: all six flags are defined again */
static void define_flags(struct gen *g)
{
    ADD(g, 0x3c, (uint8_t)oracle_value(&g->r));
}

static void refer(struct gen *g, struct oracle_item *item, unsigned at, unsigned size, unsigned target)
{
    item->rel_at = (uint8_t)at;
    item->rel_size = (uint8_t)size;
    item->target = (uint8_t)target;
    if (target <= ORACLE_ITEMS)
        g->joins[target] |= g->undefined;
}

/* ---- addresses ---- */

/* Where an operand goes: mostly whole and aligned in a page of its own, sometimes across the border of two. */
static uint32_t address(struct gen *g, unsigned size)
{
    static const uint8_t good[] = {0, 0, 1, 3, 5};
    uint32_t page = ORACLE_DATA + HOST_PAGE * good[below(g, sizeof good)], pages = HOST_PAGE;
    unsigned align = size && !(size & (size - 1)) && size <= 32 ? size : 1;
    if (size > 64)
        align = 64;
    switch (below(g, 16)) {
    case 0: /* across */
        page = ORACLE_DATA + HOST_PAGE * (1 + below(g, ORACLE_PAGES));
        return page - below(g, size ? size + 1 : 1);
    case 1:
        page = ORACLE_DATA + HOST_PAGE * below(g, ORACLE_PAGES);
        return page + below(g, HOST_PAGE);
    case 2:
    case 3:
        align = 1;
        break;
    case 4: /* the read-only page */
        page = ORACLE_DATA + HOST_PAGE * 2;
        break;
    }
    return page + (below(g, pages - (size < pages ? size : 0)) & ~(align - 1));
}

static unsigned known_register(struct gen *g, unsigned not_this)
{
    for (unsigned tries = 0; tries < 4; tries++) {
        unsigned r = below(g, 8);
        if ((g->known >> r & 1) && r != not_this && r != RC_ESP)
            return r;
    }
    unsigned r;
    do
        r = below(g, 8);
    while (r == RC_ESP || r == not_this || (g->hands_off >> r & 1));
    load(g, r, one_in(g, 3) ? oracle_value(&g->r) : ORACLE_DATA + below(g, ORACLE_DATA_SIZE));
    return r;
}

/* How an operand in memory is written down. */
struct operand {
    uint8_t prefix[2], prefixes;
    uint8_t bytes[6], len; /* ModRM with reg 0, SIB, displacement */
};

static void put_disp(struct operand *o, uint32_t disp, unsigned size)
{
    memcpy(o->bytes + o->len, &disp, size);
    o->len = (uint8_t)(o->len + size);
}

static void operand16(struct gen *g, struct operand *o, uint32_t addr)
{
    static const uint8_t base[] = {RC_ESI, RC_EDI, RC_EBP, RC_EBX};
    unsigned k = below(g, 4), r = base[k];
    o->prefix[o->prefixes++] = 0x67;
    if (!(g->hands_off >> r & 1) && !one_in(g, 3)) {
        if (!(g->known >> r & 1))
            load(g, r, oracle_random(&g->r));
        o->bytes[o->len++] = (uint8_t)(0x84 + k); /* [r + disp16] */
        put_disp(o, addr - g->value[r], 2);
    } else {
        o->bytes[o->len++] = 6; /* [disp16] */
        put_disp(o, addr, 2);
    }
}

static void operand32(struct gen *g, struct operand *o, uint32_t addr)
{
    unsigned base, index, scale = below(g, 4);
    switch (below(g, 4)) {
    case 0:
        o->bytes[o->len++] = 5;
        put_disp(o, addr, 4);
        break;
    case 1: /* [base + disp8] */
        do
            base = below(g, 8);
        while (base == RC_ESP || (g->hands_off >> base & 1));
        if (!(g->known >> base & 1) || addr - g->value[base] + 128 >= 256)
            load(g, base, addr - below(g, 128) + 64);
        o->bytes[o->len++] = (uint8_t)(0x40 | base);
        put_disp(o, addr - g->value[base], 1);
        break;
    case 2: /* [base + disp32], ESP by SIB */
        base = (g->known >> RC_ESP & 1) && one_in(g, 4) ? RC_ESP : known_register(g, 8);
        o->bytes[o->len++] = (uint8_t)(0x80 | base);
        if (base == RC_ESP)
            o->bytes[o->len++] = 0x24;
        put_disp(o, addr - g->value[base], 4);
        break;
    default: /* [base + index * scale + disp32] */
        base = known_register(g, 8);
        index = known_register(g, 8);
        o->bytes[o->len++] = 0x84;
        o->bytes[o->len++] = (uint8_t)(scale << 6 | index << 3 | base);
        put_disp(o, addr - g->value[base] - (g->value[index] << scale), 4);
        break;
    }
}

/* [base + vector * scale + disp32], the vector first made small: vpsrld or vpsrlq */
static void make_vsib(struct gen *g, struct operand *o, bool qwords)
{
    unsigned index = below(g, 8), base = known_register(g, 8);
    if (!one_in(g, 8))
        ADD(g, 0xc5, (uint8_t)(0x85 | (~index & 7) << 3 | 0x40), qwords ? 0x73 : 0x72,
            (uint8_t)(0xd0 | index), (uint8_t)((qwords ? 54 : 22) + below(g, 8)));
    *o = (struct operand){.prefixes = 0};
    o->bytes[o->len++] = 0x84;
    o->bytes[o->len++] = (uint8_t)(below(g, 4) << 6 | index << 3 | base);
    put_disp(o, ORACLE_DATA + below(g, 64) - g->value[base], 4);
}

static void make_operand(struct gen *g, struct operand *o, unsigned size)
{
    uint32_t addr = address(g, size);
    *o = (struct operand){.prefixes = 0};
    if (one_in(g, 8)) {
        static const uint8_t any[] = {0x65, 0x65, 0x65, 0x65, 0x2e, 0x36, 0x3e, 0x26};
        o->prefix[o->prefixes++] = any[below(g, sizeof any)];
    }
    bool gs = o->prefixes && o->prefix[0] == 0x65;
    if (gs)
        addr -= ORACLE_DATA;
    if (gs && one_in(g, 4))
        operand16(g, o, addr);
    else
        operand32(g, o, addr);
}

/* ---- instructions: any that the decoder accepts ---- */

struct opcode {
    uint8_t bytes[8], len; /* prefixes that belong to it, escape, opcode; or VEX and opcode */
};

/* Any VEX prefix that 32-bit code can have: bits 7 and 6 of the second byte tell it from LES and LDS. */
static void any_vex(struct gen *g, struct opcode *o)
{
    *o = (struct opcode){.len = 0};
    if (one_in(g, 2)) {
        o->bytes[o->len++] = 0xc5;
    } else {
        o->bytes[o->len++] = 0xc4;
        o->bytes[o->len++] = (uint8_t)(0xc0 | below(g, 2) << 5 | (1 + below(g, 3)));
    }
    uint8_t last = (uint8_t)(oracle_random(&g->r) | (o->len == 1 ? 0xc0 : 0));
    o->bytes[o->len++] = last;
    o->bytes[o->len++] = (uint8_t)oracle_random(&g->r);
}

static void any_opcode(struct gen *g, struct opcode *o)
{
    if (g->avx && one_in(g, 4)) {
        any_vex(g, o);
        return;
    }
    static const uint8_t prefix[] = {0x66, 0xf2, 0xf3};
    unsigned map = below(g, 10); /* 0-2: one byte, 3: x87, 4-6: 0F, 7: 0F 38, 8: 0F 3A, 9: LOCK */
    *o = (struct opcode){.len = 0};
    if (map == 9)
        o->bytes[o->len++] = 0xf0;
    if (map < 3 ? one_in(g, 4) : map >= 4 && !one_in(g, 4))
        o->bytes[o->len++] = prefix[below(g, map < 3 ? 1 : 3)];
    if (map >= 4 && map != 9)
        o->bytes[o->len++] = 0x0f;
    if (map == 7 || map == 8)
        o->bytes[o->len++] = map == 7 ? 0x38 : 0x3a;
    o->bytes[o->len++] = (uint8_t)(map == 3 ? 0xd8 + below(g, 8) : below(g, 256));
}

static bool accept(struct gen *g, const uint8_t *b, unsigned len, struct bt_insn *i)
{
    if (bt_decode(g->d, true, b, len, i) != BT_DECODE_OK)
        return false;
    if (oracle_refused(i))
        return false;
    if (i->rep || i->repne) /* strings are made on purpose */
        return i->class != BT_CLASS_INT || i->map != ZYDIS_OPCODE_MAP_DEFAULT;
    return true;
}

static bool is_branch(const ZydisDecodedInstruction *z)
{
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_STRINGOP:
    case ZYDIS_CATEGORY_IOSTRINGOP:
        return true;
    default:
        return false;
    }
}

/* What it needs before it: registers that say where it reaches, defined flags. False: not this one. */
static bool prepare(struct gen *g, const struct bt_insn *i)
{
    ZydisDecodedInstruction z;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    uint32_t reads, defines, leaves;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&g->d->d32, i->bytes, i->length, &z, op)) || is_branch(&z))
        return false;
    for (unsigned k = 0; k < z.operand_count; k++) {
        if (op[k].type != ZYDIS_OPERAND_TYPE_REGISTER || !(op[k].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LEGACY_32, op[k].reg.value);
        if (whole == ZYDIS_REGISTER_ESP && op[k].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
            !one_in(g, 32))
            return false;
        if (whole >= ZYDIS_REGISTER_EAX && whole <= ZYDIS_REGISTER_EDI &&
            g->hands_off >> (whole - ZYDIS_REGISTER_EAX) & 1)
            return false;
    }
    if (z.meta.category == ZYDIS_CATEGORY_SYSTEM || z.meta.category == ZYDIS_CATEGORY_IO)
        if (!one_in(g, 24)) /* they all fault, and end the sequence */
            return false;
    oracle_flags(&z, op, &reads, &defines, &leaves);
    if (reads & (g->undefined | g->joins[g->c->count]))
        define_flags(g);
    return true;
}

static void set_up(struct gen *g, const struct bt_insn *i, bool mem)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (!(g->hands_off & 5) && !one_in(g, 4)) {
            load(g, RC_EDX, one_in(g, 3) ? UINT32_MAX : below(g, 3));
            load(g, RC_EAX, i->opsize == 1 ? below(g, 300) : oracle_value(&g->r));
        }
        break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (mem && i->opcode != 0xba && i->reg != RC_ESP && !(g->hands_off >> i->reg & 1))
            load(g, i->reg, below(g, 8192) - 4096);
        break;
    case ZYDIS_MNEMONIC_XLAT:
        if (!(g->hands_off >> RC_EBX & 1))
            load(g, RC_EBX, address(g, 1));
        break;
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        if (!(g->hands_off >> RC_EDI & 1))
            load(g, RC_EDI, address(g, 16));
        break;
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_LEAVE:
        if (!(g->hands_off >> RC_EBP & 1))
            load(g, RC_EBP, ORACLE_DATA + ORACLE_STACK_PAGE * HOST_PAGE + 0x400 + below(g, 0x800));
        break;
    default:
        break;
    }
}

/* Bytes with the operand in place; imm: random bytes to take an immediate from. */
static unsigned compose(const struct opcode *o, const struct operand *mem, uint8_t modrm,
                        const uint8_t imm[4], uint8_t out[32])
{
    unsigned n = 0;
    if (mem)
        memcpy(out, mem->prefix, n = mem->prefixes);
    memcpy(out + n, o->bytes, o->len);
    n += o->len;
    if (mem) {
        memcpy(out + n, mem->bytes, mem->len);
        out[n] |= modrm & 0x38;
        n += mem->len;
    } else
        out[n++] = modrm;
    memcpy(out + n, imm, 4);
    return n + 4;
}

static bool is_gather(const struct opcode *o)
{
    return o->len == 4 && o->bytes[0] == 0xc4 && (o->bytes[1] & 31) == 2 && (o->bytes[3] & 0xfc) == 0x90;
}

static bool any_insn(struct gen *g)
{
    struct opcode o;
    struct operand m;
    struct bt_insn i;
    uint8_t b[32], imm[4], modrm = (uint8_t)oracle_random(&g->r);
    bool mem = (modrm & 0xc0) != 0xc0;
    uint32_t random = oracle_value(&g->r);
    memcpy(imm, &random, 4);
    any_opcode(g, &o);
    if (mem && !one_in(g, 3)) { /* the operand is replaced below */
        modrm = (uint8_t)((modrm & 0x38) | 5);
    } else if (mem) {
        modrm |= 0xc0;
        mem = false;
    }
    if (mem && is_gather(&o)) { /* SIB: its index is a vector */
        modrm = (uint8_t)((modrm & 0x38) | 4);
        imm[0] = (uint8_t)((imm[0] & 0x38) | 5);
    }
    unsigned len = compose(&o, NULL, modrm, imm, b);
    memset(b + len, 0, 4);
    if (!accept(g, b, len + 4, &i))
        return false;
    if (i.has_modrm && mem && !i.is_mem)
        return false;
    set_up(g, &i, mem);
    if (i.has_modrm && mem) {
        if (i.vsib)
            make_vsib(g, &m, i.opcode & 1);
        else
            make_operand(g, &m, i.mem_size == 255 ? 512 : i.mem_size);
        len = compose(&o, &m, modrm, imm, b);
        if (!accept(g, b, len, &i))
            return false;
    }
    if (!prepare(g, &i))
        return false;
    add(g, b, i.length);
    return true;
}

/* ---- instructions made on purpose ---- */

static void some_insns(struct gen *g, unsigned n)
{
    for (unsigned tries = 0; n && tries < 200 && !full(g); tries++)
        n -= any_insn(g);
}

static void make_string(struct gen *g)
{
    static const uint8_t ops[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
    uint8_t b[4];
    unsigned n = 0;
    uint32_t to = address(g, 4);
    load(g, RC_ESI, address(g, 4));
    load(g, RC_EDI, one_in(g, 2) ? to : g->value[RC_ESI] + below(g, 9) - 4);
    load(g, RC_ECX, one_in(g, 8) ? below(g, 400) : below(g, 24));
    if (!one_in(g, 3))
        b[n++] = one_in(g, 3) ? 0xf2 : 0xf3;
    if (one_in(g, 3))
        b[n++] = 0x66;
    b[n++] = ops[below(g, sizeof ops)];
    add(g, b, n);
}

/* Forward, over a few instructions. */
static void make_branch(struct gen *g)
{
    unsigned kind = below(g, 4);
    struct oracle_item *item;
    if (g->undefined | g->joins[g->c->count])
        define_flags(g);
    uint8_t cc = (uint8_t)below(g, 16);
    switch (kind) {
    case 0:
        item = ADD(g, 0x70 | cc, 0);
        break;
    case 1:
        item = ADD(g, 0x0f, 0x80 | cc, 0, 0, 0, 0);
        break;
    case 2:
        item = ADD(g, 0xe0 | below(g, 4), 0); /* LOOPNE LOOPE LOOP JECXZ */
        break;
    default:
        item = ADD(g, 0xeb, 0);
        break;
    }
    uint32_t undefined = g->undefined;
    some_insns(g, 1 + below(g, 3));
    refer(g, item, kind == 1 ? 2 : 1, kind == 1 ? 4 : 1, g->c->count);
    g->joins[g->c->count] |= undefined;
}

/* call f; jmp over; f: ...; ret; over: - the call and the return each in several ways */
static void make_call(struct gen *g)
{
    unsigned how = below(g, 3), reg = below(g, 3);
    struct oracle_item *point = NULL, *call, *over;
    if (how)
        point = how == 1 ? load(g, reg, 0) : ADD(g, 0x68, 0, 0, 0, 0);
    g->known &= (uint8_t) ~(how == 1 ? 1u << reg : 0);
    if (how == 0)
        call = ADD(g, 0xe8, 0, 0, 0, 0);
    else if (how == 1)
        call = ADD(g, 0xff, (uint8_t)(0xd0 | reg));
    else
        call = ADD(g, 0xc3); /* RET as a jump: push f; ret */
    over = ADD(g, 0xe9, 0, 0, 0, 0);
    uint32_t undefined = g->undefined;
    refer(g, how ? point : call, 1, how ? ORACLE_ABS : 4, g->c->count);
    some_insns(g, 1 + below(g, 2));
    if (how == 2)
        ADD(g, 0x90);
    else if (one_in(g, 4))
        ADD(g, 0xc2, (uint8_t)(4 * below(g, 3)), 0);
    else
        ADD(g, 0xc3);
    refer(g, over, 1, 4, g->c->count);
    g->joins[g->c->count] |= undefined;
    if (how)
        call->partner = (uint8_t)(point - g->c->item);
}

/* mov ecx, n; top: ...; loop top */
static void make_loop(struct gen *g)
{
    unsigned n = below(g, 5) + 2, first = g->c->count, top;
    load(g, RC_ECX, n);
    g->known = 0; /* the second time round it would be something else */
    define_flags(g);
    g->hands_off |= 1 << RC_ECX;
    top = g->c->count;
    define_flags(g);
    some_insns(g, 1 + below(g, 4));
    g->hands_off &= (uint8_t) ~(1 << RC_ECX);
    struct oracle_item *item = ADD(g, 0xe2, 0);
    item->rel_at = item->rel_size = 1;
    item->target = (uint8_t)top;
    item->partner = (uint8_t)first;
}

/* push image; popfd, with flags an ordinary program may set */
static void make_flags(struct gen *g)
{
    uint32_t v = (oracle_random(&g->r) & (RC_ARITH | RC_DF)) | 2;
    uint8_t b[5] = {0x68};
    memcpy(b + 1, &v, 4);
    unsigned first = g->c->count;
    add(g, b, 5);
    ADD(g, 0x9d)->partner = (uint8_t)first;
    g->undefined = 0;
}

static void make_mxcsr(struct gen *g)
{
    uint32_t at = ORACLE_DATA + 0x40, v = 0x1f80 | below(g, 4) << 13 | (oracle_random(&g->r) & 0x8040);
    uint8_t b[10] = {0xc7, 0x05};
    if (one_in(g, 2))
        v &= ~(oracle_random(&g->r) & 0x1f80);
    if (one_in(g, 8))
        v |= 0x10000u << below(g, 16) & ~0x20000u;
    memcpy(b + 2, &at, 4);
    memcpy(b + 6, &v, 4);
    unsigned first = g->c->count;
    add(g, b, 10); /* mov [at], v */
    b[0] = 0x0f, b[1] = 0xae, b[2] = 0x15;
    memcpy(b + 3, &at, 4);
    add(g, b, 7)->partner = (uint8_t)first; /* ldmxcsr [at] */
}

/* mov dword [at], v */
static struct oracle_item *poke(struct gen *g, uint32_t at, uint32_t v)
{
    uint8_t b[10] = {0xc7, 0x05};
    memcpy(b + 2, &at, 4);
    memcpy(b + 6, &v, 4);
    return add(g, b, 10);
}

/* 0F AE /reg [at] */
static struct oracle_item *state_insn(struct gen *g, unsigned reg, uint32_t at)
{
    uint8_t b[7] = {0x0f, 0xae, (uint8_t)(5 | reg << 3)};
    memcpy(b + 3, &at, 4);
    return add(g, b, 7);
}

/* FXRSTOR, XRSTOR of whatever is in memory, but for the fields where anything else than a few values is #GP. */
static void make_restore(struct gen *g)
{
    enum { FXRSTOR = 1, XRSTOR = 5 };
    bool x = g->avx && one_in(g, 2);
    uint32_t at = ORACLE_DATA + 64 * (1 + below(g, 40)), mxcsr = oracle_random(&g->r) & 0xffbf;
    struct oracle_item *last = poke(g, at + 24, one_in(g, 16) ? mxcsr | 0x10000 : mxcsr | 0x1f80);
    unsigned first = (unsigned)(last - g->c->item);
    for (unsigned n = 0; x && n < 6; n++) {
        last = poke(g, at + 512 + 4 * n, n == 0 ? below(g, one_in(g, 16) ? 16 : 8) : one_in(g, 64));
        last->partner = (uint8_t)first;
        first = (unsigned)(last - g->c->item);
    }
    if (x) {
        load(g, RC_EAX, one_in(g, 4) ? oracle_random(&g->r) : 7)->partner = (uint8_t)first;
        first = g->c->count - 1;
    }
    state_insn(g, x ? XRSTOR : FXRSTOR, at)->partner = (uint8_t)first;
}

/* XSAVE without x87, whose pointers are the host's. MXCSR_MASK and XSTATE_BV differ from CPU to CPU. */
static void make_save(struct gen *g)
{
    enum { XSAVE = 4 };
    uint32_t at = ORACLE_DATA + 64 * (1 + below(g, 40));
    load(g, RC_EAX, 2 * below(g, 4));
    static const uint16_t over[] = {28, 512};
    unsigned first = g->c->count - 1;
    struct oracle_item *item = state_insn(g, XSAVE, at);
    item->partner = (uint8_t)first;
    first = (unsigned)(item - g->c->item);
    for (unsigned n = 0; n < sizeof over / sizeof *over; n++) {
        item = poke(g, at + over[n], 0);
        g->c->item[first].partner = (uint8_t)(item - g->c->item); /* nor it without them */
        item->partner = (uint8_t)first;
    }
}

/* INT of vectors that the kernel keeps for itself */
static void make_int(struct gen *g)
{
    uint8_t vector;
    do
        vector = (uint8_t)oracle_random(&g->r);
    while (vector == RC_BP || vector == RC_OF_TRAP || vector == ORACLE_ENDED);
    ADD(g, 0xcd, vector);
}

static void make_one(struct gen *g)
{
    switch (below(g, 40)) {
    case 0:
        make_string(g);
        break;
    case 1:
    case 2:
        make_branch(g);
        break;
    case 3:
        make_call(g);
        break;
    case 4:
        make_loop(g);
        break;
    case 5:
        make_flags(g);
        break;
    case 6:
        make_mxcsr(g);
        break;
    case 7:
        if (one_in(g, 8))
            make_int(g);
        else if (one_in(g, 2) || !g->avx)
            make_restore(g);
        else
            make_save(g);
        break;
    default:
        some_insns(g, 1);
    }
}

/* ---- the case ---- */

bool oracle_layout(struct oracle_case *c)
{
    unsigned at = 0;
    for (unsigned n = 0; n < c->count; n++) {
        c->offset[n] = (uint16_t)at;
        if (c->item[n].dead)
            continue;
        if (at + c->item[n].len + 5u > sizeof c->code)
            return false;
        memcpy(c->code + at, c->item[n].bytes, c->item[n].len);
        at += c->item[n].len;
    }
    c->offset[c->count] = (uint16_t)at;
    for (unsigned n = 0; n < c->count; n++) {
        const struct oracle_item *item = &c->item[n];
        if (item->dead || !item->rel_size)
            continue;
        uint32_t target = c->offset[item->target], end = c->offset[n] + item->len;
        uint32_t v = item->rel_size == ORACLE_ABS ? c->eip + target : target - end;
        if (item->rel_size == 1 && v + 128 >= 256)
            return false;
        memcpy(c->code + c->offset[n] + item->rel_at, &v, item->rel_size == 1 ? 1 : 4);
    }
    uint32_t rel = ORACLE_EXIT - (c->eip + at + 5);
    c->code[at] = 0xe9; /* jmp ORACLE_EXIT */
    memcpy(c->code + at + 1, &rel, 4);
    c->code_len = at + 5;
    return true;
}

static void initial_state(struct gen *g)
{
    struct oracle_case *c = g->c;
    for (unsigned n = 0; n < 8; n++)
        c->gpr[n] = one_in(g, 2) ? oracle_value(&g->r) : address(g, 16);
    c->gpr[RC_ESP] = ORACLE_DATA + ORACLE_STACK_PAGE * HOST_PAGE + (one_in(g, 8) ? below(g, 4096) : 0x800);
    memcpy(g->value, c->gpr, sizeof g->value);
    g->known = 0xff;
    c->eflags = (oracle_random(&g->r) & (RC_ARITH | (one_in(g, 4) ? RC_DF : 0))) | 2;
    oracle_random_fpu(&g->r, g->avx, c->fpu);
    c->patches = below(g, ORACLE_PATCHES);
    for (unsigned n = 0; n < c->patches; n++) {
        c->patch[n].at = ORACLE_DATA + (below(g, ORACLE_DATA_SIZE) & ~3u);
        c->patch[n].value = oracle_value(&g->r);
    }
}

bool oracle_generate(struct oracle_case *c, uint64_t seed, struct bt_decoder *d, bool avx)
{
    struct gen g = {.r = {(seed + 1) * UINT64_C(0x9e3779b97f4a7c15)}, .c = c, .d = d, .avx = avx};
    uint32_t undefined[ORACLE_SEQ_BYTES + 1];
    if (!g.r.x)
        g.r.x = 1;
    for (unsigned n = 0; n < 4; n++)
        oracle_random(&g.r);
    *c = (struct oracle_case){.seed = seed};
    initial_state(&g);
    for (unsigned n = 1 + below(&g, 16); n && !full(&g); n--)
        make_one(&g);
    unsigned room = ORACLE_CODE_SIZE - ORACLE_SEQ_BYTES;
    c->eip = ORACLE_CODE + below(&g, room);
    return oracle_layout(c) && oracle_undefined(c, undefined);
}
