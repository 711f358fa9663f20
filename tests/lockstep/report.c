/* A divergence, told so that one knows where to look: both states, the way there, the block's translation. */
#include <stdio.h>
#include <string.h>
#include "lock.h"

enum { REPORT_STEPS = 12, REPORT_INSNS = 48 };

static void print_cpu(const char *who, const struct lock_side *s)
{
    const struct rc_cpu *c = s->cpu;
    printf("%s: eip %08x eflags %08x cpl %u cr0 %08x cr2 %08x cr3 %08x cr4 %08x\n", who, c->eip, rc_eflags(c),
           c->cpl, c->cr0, c->cr2, c->cr3, c->cr4);
    printf("  eax %08x ecx %08x edx %08x ebx %08x esp %08x ebp %08x esi %08x edi %08x\n", c->gpr[RC_EAX],
           c->gpr[RC_ECX], c->gpr[RC_EDX], c->gpr[RC_EBX], c->gpr[RC_ESP], c->gpr[RC_EBP], c->gpr[RC_ESI],
           c->gpr[RC_EDI]);
}

unsigned lock_peek(struct lock_side *s, uint32_t lin, uint8_t *buf, unsigned want)
{
    struct spt_walk w;
    unsigned n = 0;
    while (n < want && spt_walk(s->ram, spt_paging(s->v->spt), lin + n, SPT_READ, &w) && w.gpa < s->ram->size)
        buf[n++] = s->ram->base[w.gpa];
    return n;
}

static void print_guest_code(struct lock *l, uint32_t eip, uint64_t count)
{
    ZydisDecoder d;
    ZydisFormatter f;
    bool big = l->t.cpu->seg[RC_CS].attr & RC_ATTR_DB;
    ZydisDecoderInit(&d, big ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LEGACY_16,
                     big ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_16);
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    for (uint64_t k = 0; k < count && k < REPORT_INSNS; k++) {
        uint8_t code[BT_MAX_INSN];
        char text[128];
        ZydisDecodedInstruction z;
        ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
        unsigned n = lock_peek(&l->t, l->t.cpu->seg[RC_CS].base + eip, code, sizeof code);
        if (!n || !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, code, n, &z, op))) {
            printf("      %08x (unreadable)\n", eip);
            return;
        }
        ZydisFormatterFormatInstruction(&f, &z, op, z.operand_count_visible, text, sizeof text, eip, NULL);
        printf("      %08x %s\n", eip, text);
        eip += z.length;
    }
}

void lock_history(struct lock *l)
{
    const struct lock_step *last = &l->history[(l->steps - 1) % LOCK_HISTORY];
    uint64_t from = l->steps > REPORT_STEPS ? l->steps - REPORT_STEPS : 0;
    printf("the last steps, oldest first (guest code as memory is now; a step may begin with a fault or "
           "interrupt):\n");
    for (uint64_t s = from; s < l->steps; s++) {
        const struct lock_step *h = &l->history[s % LOCK_HISTORY];
        uint32_t eip = h->block ? l->t.v->block[h->block].eip : h->eip;
        printf("  at %llu: eip %08x, %llu instructions%s\n", (unsigned long long)h->insns, h->eip,
               (unsigned long long)h->count, h->block ? "" : " (interpreted)");
        print_guest_code(l, eip, h->count);
    }
    if (l->steps && last->block && last->block < l->t.v->block_count)
        bt_dump_block(l->t.v, &l->t.v->block[last->block], stdout);
}

void lock_report(struct lock *l, const char *why)
{
    printf("DIVERGENCE after %llu instructions (step %llu): %s\n", (unsigned long long)l->insns,
           (unsigned long long)l->steps, why);
    print_cpu("translated ", &l->t);
    print_cpu("interpreted", &l->i);
    lock_history(l);
    fflush(stdout);
}
