/* What must be equal after every step, and the two things that need not be. */
#include <stdio.h>
#include <string.h>
#include "lock.h"

#define SEG(n, s)                                                                                            \
    {                                                                                                        \
        n ".base/limit/selector/attr", offsetof(struct rc_cpu, seg[s]), SEG_BYTES                            \
    }
#define SEG_BYTES                                                                                            \
    (offsetof(struct rc_seg, attr) +                                                                         \
     sizeof(uint16_t)) /* what follows is derived, or padding                \
                                                        */
#define F(f)                                                                                                 \
    {                                                                                                        \
#f, offsetof(struct rc_cpu, f), sizeof(((struct rc_cpu *)0)->f)                                      \
    }

static const struct field {
    const char *name;
    size_t offset, size;
} field_table[] = {
    F(gpr[0]),
    F(gpr[1]),
    F(gpr[2]),
    F(gpr[3]),
    F(gpr[4]),
    F(gpr[5]),
    F(gpr[6]),
    F(gpr[7]),
    F(eip),
    F(iflag),
    F(cpl),
    F(irq_shadow),
    F(halted),
    F(shutdown),
    SEG("es", RC_ES),
    SEG("cs", RC_CS),
    SEG("ss", RC_SS),
    SEG("ds", RC_DS),
    SEG("fs", RC_FS),
    SEG("gs", RC_GS),
    SEG("tr", RC_TR),
    SEG("ldtr", RC_LDTR),
    F(gdtr.base),
    F(gdtr.limit),
    F(idtr.base),
    F(idtr.limit),
    F(cr0),
    F(cr2),
    F(cr3),
    F(cr4),
    F(dr),
    F(efer),
    F(sysenter_cs),
    F(sysenter_esp),
    F(sysenter_eip),
    F(tsc_offset),
    F(pat),
    F(mtrr_def),
    F(misc_enable),
    F(spec_ctrl),
    F(mtrr),
    F(exceptions),
    F(interrupts),
    F(irets),
    F(software_ints),
    F(task_switches),
};

/* The FXSAVE image without FOP, FIP, FDP (host addresses in one machine), reserved bytes and XMM8-15. */
static const struct {
    const char *name;
    unsigned offset, size;
} fpu_table[] = {
    {"fcw", 0, 2},     {"fsw", 2, 2},     {"ftw", 4, 1},     {"mxcsr", 24, 4},  {"st0", 32, 10},
    {"st1", 48, 10},   {"st2", 64, 10},   {"st3", 80, 10},   {"st4", 96, 10},   {"st5", 112, 10},
    {"st6", 128, 10},  {"st7", 144, 10},  {"xmm0", 160, 16}, {"xmm1", 176, 16}, {"xmm2", 192, 16},
    {"xmm3", 208, 16}, {"xmm4", 224, 16}, {"xmm5", 240, 16}, {"xmm6", 256, 16}, {"xmm7", 272, 16},
};

static void print_bytes(const char *who, const uint8_t *p, size_t n)
{
    printf(" %s", who);
    for (size_t k = n > 16 ? 16 : n; k > 0; k--)
        printf("%02x", p[k - 1]);
}

static bool same(const char *name, const void *t, const void *i, size_t n)
{
    if (memcmp(t, i, n) == 0)
        return true;
    printf("  %-28s", name);
    print_bytes("translated ", t, n);
    print_bytes("interpreted ", i, n);
    printf("\n");
    return false;
}

/* Arithmetic flags that the last block's instructions leave undefined (SDM vol. 1 appendix A). */
static uint32_t undefined_flags(struct lock *l)
{
    const struct lock_step *s = &l->history[(l->steps - 1) % LOCK_HISTORY];
    const struct bt_block *b = &l->t.v->block[s->block];
    uint32_t mask = 0;
    ZydisDecoder d;
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    for (unsigned k = 0; s->block && k < b->count && k < s->count; k++) {
        uint64_t gpa = b->gpa + l->t.v->map[b->map + k].guest_off;
        ZydisDecodedInstruction z;
        if (gpa + BT_MAX_INSN > l->t.ram->size ||
            !ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, l->t.ram->base + gpa, BT_MAX_INSN, &z)))
            break;
        if (!z.cpu_flags)
            continue;
        /* Shifts by CL: none is changed when the count is 0, so what was undefined before still may be. */
        if (z.meta.category != ZYDIS_CATEGORY_SHIFT && z.meta.category != ZYDIS_CATEGORY_ROTATE)
            mask &= ~(z.cpu_flags->modified | z.cpu_flags->set_0 | z.cpu_flags->set_1);
        mask |= z.cpu_flags->undefined;
    }
    return mask & RC_ARITH;
}

static bool compare_flags(struct lock *l)
{
    uint32_t diff = l->t.cpu->eflags ^ l->i.cpu->eflags, undefined;
    if (!diff)
        return true;
    undefined = undefined_flags(l);
    if (!(diff & ~undefined)) {
        l->i.cpu->eflags = l->t.cpu->eflags;
        l->flag_syncs++;
        return true;
    }
    printf("  eflags: translated %08x interpreted %08x (undefined here: %08x)\n", l->t.cpu->eflags,
           l->i.cpu->eflags, undefined);
    return false;
}

/* Of YMM0-7; zero when the image says that they are in their initial configuration. */
static const uint8_t *ymm_high(const struct rc_cpu *c)
{
    static const uint8_t zero[128];
    return c->fpu[RC_XSAVE_XSTATE_BV] & RC_XCR0_AVX ? c->fpu + RC_XSAVE_YMM_HIGH : zero;
}

bool lock_compare_cpu(struct lock *l)
{
    const uint8_t *t = (const uint8_t *)l->t.cpu, *i = (const uint8_t *)l->i.cpu;
    bool ok = true;
    for (unsigned k = 0; k < sizeof field_table / sizeof *field_table; k++)
        ok &= same(field_table[k].name, t + field_table[k].offset, i + field_table[k].offset,
                   field_table[k].size);
    for (unsigned k = 0; k < sizeof fpu_table / sizeof *fpu_table; k++)
        ok &= same(fpu_table[k].name, l->t.cpu->fpu + fpu_table[k].offset,
                   l->i.cpu->fpu + fpu_table[k].offset, fpu_table[k].size);
    ok &= same("upper halves of YMM", ymm_high(l->t.cpu), ymm_high(l->i.cpu), 128);
    ok &= l->t.cpu->xcr0 == l->i.cpu->xcr0;
    return compare_flags(l) && ok;
}

/* Shadow pages are a TLB without end; the interpreter's is small. When the guest clears an A or D bit and
 * does not flush, the one need not set it again and the other may (SDM vol. 3 4.8). */
static bool ad_only(uint32_t a, uint32_t b)
{
    return !((a ^ b) & ~(uint32_t)0x60);
}

static bool compare_page(struct lock *l, uint64_t gpa)
{
    const uint32_t *t = (const uint32_t *)(l->t.ram->base + gpa),
                   *i = (const uint32_t *)(l->i.ram->base + gpa);
    unsigned shown = 0;
    for (unsigned k = 0; k < HOST_PAGE / 4; k++) {
        if (t[k] == i[k])
            continue;
        if (ad_only(t[k], i[k])) {
            l->ad_only++;
            continue;
        }
        if (shown++ < 8)
            printf("  memory %08llx: translated %08x interpreted %08x\n", (unsigned long long)(gpa + 4 * k),
                   t[k], i[k]);
    }
    return shown == 0;
}

bool lock_compare_pages(struct lock *l, uint64_t gpa, uint64_t bytes)
{
    bool ok = true;
    for (uint64_t end = gpa + bytes; gpa < end && gpa + HOST_PAGE <= l->t.ram->size && ok; gpa += HOST_PAGE)
        if (memcmp(l->t.ram->base + gpa, l->i.ram->base + gpa, HOST_PAGE))
            ok = compare_page(l, gpa);
    return ok;
}
