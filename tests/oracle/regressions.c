/* Divergences the oracle has found, as it shrank them; each is run before the dice are thrown. */
#include <string.h>
#include "run.h"

static const struct regression {
    const char *what;
    uint8_t len, code[40];
    uint32_t gpr[8], eflags; /* EAX ECX EDX EBX ESP EBP ESI EDI; 0: some value of no consequence */
} regressions[] = {
    {.what = "the verifier knows ADCX and ADOX",
     .len = 18,
     .code = {0x66, 0x0f, 0x38, 0xf6, 0x35, 0x00, 0x00, 0x10, 0x01, 0xf3, 0x0f, 0x38, 0xf6, 0x3d, 0x04, 0x00,
              0x10, 0x01}},
    {.what = "#GP of a misaligned SSE operand comes before its page fault",
     .len = 8,
     .code = {0x66, 0x0f, 0xfa, 0x25, 0x2c, 0x40, 0x10, 0x01}}, /* psubd xmm4, [absent + 2Ch] */
    {.what = "the same for an MMX instruction with an XMM operand",
     .len = 8,
     .code = {0x66, 0x0f, 0x2c, 0x35, 0x04, 0x40, 0x10, 0x01}}, /* cvttpd2pi mm6, [absent + 4] */
    {.what = "the same for a store",
     .len = 7,
     .code = {0x0f, 0x29, 0x35, 0x04, 0x40, 0x10, 0x01}}, /* movaps [absent + 4], xmm6 */
    {.what = "ARPL reads before it writes", .len = 6, .code = {0x63, 0x0d, 0x00, 0x40, 0x10, 0x01}},
    {.what = "ARPL that changes nothing writes nothing",
     .len = 6,
     .code = {0x63, 0x0d, 0x00, 0x20, 0x10, 0x01}},
    {.what = "ARPL that raises RPL writes",
     .len = 12,
     .code = {0x63, 0x0d, 0x00, 0x00, 0x10, 0x01, 0x63, 0x0d, 0x00, 0x20, 0x10, 0x01},
     .gpr = {[RC_ECX] = 3}},
    /* fninit; push 0; fldcw [esp]; fldz; fldz; fdivp; fneni; fndisi; fnsetpm; fld1 */
    {.what = "FNENI, FNDISI and FNSETPM do not wait for a pending exception",
     .len = 19,
     .code = {0xdb, 0xe3, 0x6a, 0x00, 0xd9, 0x2c, 0x24, 0xd9, 0xee, 0xd9, 0xee, 0xde, 0xf9, 0xdb, 0xe0, 0xdb,
              0xe1, 0xdb, 0xe4}},
    {.what = "and FLD1 does", .len = 21, .code = {0xdb, 0xe3, 0x6a, 0x00, 0xd9, 0x2c, 0x24,
                                                  0xd9, 0xee, 0xd9, 0xee, 0xde, 0xf9, 0xdb,
                                                  0xe0, 0xdb, 0xe1, 0xdb, 0xe4, 0xd9, 0xe8}},
    {.what = "EAX of -ERESTARTSYS at the system call that ends a run in a world",
     .len = 1,
     .code = {0x90},
     .gpr = {0xfffffe00}},
    {.what = "-ERESTARTNOINTR", .len = 1, .code = {0x90}, .gpr = {0xfffffdff}},
    {.what = "-ERESTARTNOHAND", .len = 1, .code = {0x90}, .gpr = {0xfffffdfe}},
    {.what = "-ERESTART_RESTARTBLOCK", .len = 1, .code = {0x90}, .gpr = {0xfffffdfc}},
    /* mov dword [at+24], 1f80h; fxrstor [at]: an image of random bytes */
    {.what = "FXRSTOR drops bits of FCW and FSW that do not exist, and finds ES anew",
     .len = 17,
     .code = {0xc7, 0x05, 0xd8, 0x03, 0x10, 0x01, 0x80, 0x1f, 0x00, 0x00, 0x0f, 0xae, 0x0d, 0xc0, 0x03, 0x10,
              0x01}},
    {.what = "ESP in VEX.vvvv while pushes are not yet added up", /* push esi; shlx eax, eax, esp */
     .len = 6,
     .code = {0x56, 0xc4, 0xc2, 0x19, 0xf7, 0xc0},
     .gpr = {0x369899a4}},
    {.what = "VEX.W of VPCMPESTRM is ignored in 32-bit code",
     .len = 10,
     .code = {0xc4, 0xe3, 0xf9, 0x60, 0x25, 0x00, 0x04, 0x10, 0x01, 0xff},
     .gpr = {3, 0, 7}},
    {.what = "LOCK before VEX", .len = 5, .code = {0xf0, 0xc5, 0xf8, 0x58, 0xc1}},
    {.what = "66 before VEX", .len = 5, .code = {0x66, 0xc5, 0xf8, 0x58, 0xc1}},
    {.what = "F2 before VEX", .len = 5, .code = {0xf2, 0xc5, 0xf8, 0x58, 0xc1}},
    {.what = "F3 before VEX", .len = 5, .code = {0xf3, 0xc5, 0xf8, 0x58, 0xc1}},
    {.what = "and without", .len = 4, .code = {0xc5, 0xf8, 0x58, 0xc1}}, /* vaddps xmm0, xmm0, xmm1 */
    {.what = "vvvv of an instruction that has none",
     .len = 4,
     .code = {0xc5, 0xf0, 0x28, 0xc1}},                                                     /* vmovaps */
    {.what = "VEX.L of a 128-bit instruction", .len = 4, .code = {0xc5, 0xfd, 0x6e, 0xc1}}, /* vmovd */
    {.what = "a gather whose mask is its index", .len = 6, .code = {0xc4, 0xe2, 0x71, 0x90, 0x04, 0x0d}},
    {.what = "a gather whose mask is its destination",
     .len = 6,
     .code = {0xc4, 0xe2, 0x79, 0x90, 0x04, 0x0d}},
    {.what = "a gather with 16-bit addresses", .len = 6, .code = {0x67, 0xc4, 0xe2, 0x69, 0x90, 0x04}},
    {.what = "a store across 4 GiB violates the limit before it misses a page",
     .len = 6,
     .code = {0x66, 0xa3, 0xff, 0xff, 0xff, 0xff}},
};

static void make_case(struct oracle_case *c, const struct regression *r)
{
    struct oracle_random dice = {0x777};
    *c = (struct oracle_case){.count = 1, .eip = ORACLE_CODE};
    memcpy(c->item[0].bytes, r->code, r->len);
    c->item[0].len = r->len;
    memcpy(c->gpr, r->gpr, sizeof c->gpr);
    if (!c->gpr[RC_ESP])
        c->gpr[RC_ESP] = ORACLE_DATA + ORACLE_STACK_PAGE * HOST_PAGE + 0x800;
    c->eflags = r->eflags | 2;
    oracle_random_fpu(&dice, false, c->fpu);
}

bool oracle_regressions(struct oracle *o)
{
    static struct oracle_case c;
    bool ok = true;
    for (unsigned n = 0; n < sizeof regressions / sizeof *regressions; n++) {
        make_case(&c, &regressions[n]);
        const char *what = oracle_layout(&c) ? oracle_differs(o, &c) : "the layout";
        if (!what)
            continue;
        printf("%s: ", regressions[n].what);
        oracle_show(o, &c, what);
        ok = false;
    }
    return ok;
}
