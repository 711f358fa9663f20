/* A divergence: made small, and shown. */
#include <inttypes.h>
#include <string.h>
#include "run.h"

/* ---- making it small ---- */

static bool still_differs(struct oracle *o, struct oracle_case *c)
{
    oracle_refresh(o); /* sites found guilty by the last attempt would take another way */
    return oracle_layout(c) && oracle_differs(o, c);
}

/* Take out an instruction and those that cannot do without it. */
static bool try_without(struct oracle *o, struct oracle_case *c, unsigned n)
{
    struct oracle_case was = *c;
    c->item[n].dead = true;
    for (unsigned k = 0; k < c->count; k++)
        if (c->item[c->item[k].partner].dead)
            c->item[k].dead = true;
    if (still_differs(o, c))
        return true;
    *c = was;
    oracle_layout(c);
    return false;
}

static bool try_registers(struct oracle *o, struct oracle_case *c)
{
    bool any = false;
    for (unsigned n = 0; n < 8; n++) {
        uint32_t was = c->gpr[n];
        if (n == RC_ESP || !was)
            continue;
        c->gpr[n] = 0;
        if (still_differs(o, c))
            any = true;
        else
            c->gpr[n] = was;
    }
    return any;
}

static bool try_patches(struct oracle *o, struct oracle_case *c)
{
    unsigned was = c->patches;
    c->patches = 0;
    if (was && still_differs(o, c))
        return true;
    c->patches = was;
    return false;
}

static bool try_flags(struct oracle *o, struct oracle_case *c)
{
    uint32_t was = c->eflags;
    c->eflags = 2;
    if (was != 2 && still_differs(o, c))
        return true;
    c->eflags = was;
    return false;
}

void oracle_shrink(struct oracle *o, struct oracle_case *c)
{
    bool smaller = true;
    while (smaller) {
        smaller = false;
        for (unsigned n = c->count; n--;)
            if (!c->item[n].dead)
                smaller |= try_without(o, c, n);
        smaller |= try_patches(o, c);
        smaller |= try_registers(o, c);
        smaller |= try_flags(o, c);
    }
}

/* ---- showing it ---- */

static void show_code(const struct oracle *o, const struct oracle_case *c)
{
    ZydisFormatter f;
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned at = 0; at < c->code_len;) {
        ZydisDecodedInstruction z;
        ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
        char text[128];
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&o->decoder.d32, c->code + at, c->code_len - at, &z, op)))
            return;
        ZydisFormatterFormatInstruction(&f, &z, op, z.operand_count_visible, text, sizeof text, c->eip + at,
                                        NULL);
        printf("    %08x ", c->eip + at);
        for (unsigned k = 0; k < BT_MAX_INSN; k++)
            k < z.length ? printf(" %02x", c->code[at + k]) : printf(k < 11 ? "   " : "");
        printf("  %s\n", text);
        at += z.length;
    }
}

static void show_result(const char *name, const struct oracle_result *r)
{
    if (r->vector == ORACLE_STOPPED) {
        printf("  %-11s %s\n", name, r->why);
        return;
    }
    printf("  %-11s", name);
    for (unsigned k = 0; k < 8; k++)
        printf(" %08x", r->gpr[k]);
    printf(" eip %08x fl %03x", r->eip, r->eflags & (RC_ARITH | RC_DF));
    if (r->vector != ORACLE_ENDED)
        printf(" vector %u error %x cr2 %08x", r->vector, r->error, r->cr2);
    printf("\n");
}

static void show_fpu(const char *name, const uint8_t *fpu, const uint8_t *ref)
{
    printf("  %-11s fcw %04x fsw %04x ftw %02x mxcsr %08x", name, fpu[0] | fpu[1] << 8, fpu[2] | fpu[3] << 8,
           fpu[4], (unsigned)(fpu[24] | fpu[25] << 8 | fpu[26] << 16));
    for (unsigned k = 32; k < ORACLE_FPU; k += 16) {
        if (!memcmp(fpu + k, ref + k, 16) || (k >= 288 && k < 576) || (k >= 288 && fpu == ref))
            continue;
        printf("\n    +%03x", k);
        for (unsigned n = 0; n < 16; n++)
            printf(" %02x", fpu[k + n]);
    }
    printf("\n");
}

static void show_memory(struct oracle *o)
{
    static const char *name[] = {"interpreter", "translator"};
    const uint8_t *ref = o->ram[ORACLE_NATIVE]->base + ORACLE_DATA;
    for (unsigned e = 0; e < 2; e++) {
        const uint8_t *p = o->ram[e]->base + ORACLE_DATA;
        for (unsigned k = 0, shown = 0; k < ORACLE_DATA_SIZE && shown < 16; k++)
            if (p[k] != ref[k] && ++shown)
                printf("  memory %08x: native %02x, %s %02x\n", ORACLE_DATA + k, ref[k], name[e], p[k]);
    }
}

void oracle_show(struct oracle *o, const struct oracle_case *c, const char *what)
{
    static const char *name[] = {"interpreter", "translator", "native"};
    printf("divergence in %s, seed %" PRIu64 ":\n", what, c->seed);
    show_code(o, c);
    printf("  before      ");
    for (unsigned k = 0; k < 8; k++)
        printf("%08x ", c->gpr[k]);
    printf("                fl %03x, %u patches\n", c->eflags, c->patches);
    for (unsigned e = 0; e < ORACLE_ENGINES; e++)
        show_result(name[e], &o->result[e]);
    show_fpu("before", c->fpu, c->fpu);
    for (unsigned e = 0; e < ORACLE_ENGINES; e++)
        show_fpu(name[e], o->result[e].fpu, c->fpu);
    show_memory(o);
    fflush(stdout);
}
