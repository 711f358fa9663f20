/* Memory operands through the software TLB: the SOFT form of a site. */
#include "translate.h"

/*T:337 Looking up a page in translated code
 *
 * A site whose pages are used too rarely to be worth a place in a window does what the monitor's own doors do:
 * it looks the page up in a small table of pages the guest's page tables were already walked for. Emitted, that
 * is some fifteen instructions; a callout would be some hundred and fifty. What makes it long is that the
 * guest's flags are the host's and may not be touched: shifts are RORX, sums are LEA, and the only comparison
 * is JRCXZ of a sum that is zero when the entry is the right one. The sum is made with the page of the
 * operand's last byte, so that one in two pages is never found. What is not found goes to the callout, whose
 * interpreter walks, fills the table, and delivers the page fault if there is one. In the kernel a light call walks first, so
 * that looking again finds it: pages in high memory are never found at once.
 *
 * A window would serve a page that is used again and again for less. The block's first site counts its own
 * executions down; pages that no window shows pay in. When the account is empty, kernel code goes back to windows;
 * user code, which stays with its pages, probes what its window shows by then: see probe.c.
:*/
bool tx_soft_possible(const struct tx *t, enum tx_kind kind)
{
    const struct bt_insn *i = &t->insn;
    /* bit tests of a register reach far beyond their operand */
    bool bits = i->map == ZYDIS_OPCODE_MAP_0F && (i->opcode & 0xe7) == 0xa3;
    return t->form == BT_FORM_SOFT && t->v->bmi2 &&
           (kind == TX_COPY || kind == TX_MOFFS || kind == TX_JMP_RM) && i->is_mem && i->asz == 4 && !bits &&
           i->mem_size >= 1 && i->mem_size <= 16 && tx_seg_flat(t, i->seg) &&
           !((t->mode & RC_MODE_USER) && bt_form_worn(t->v, t->gpa));
}

static void r15_op(struct emit *e, const uint8_t *op, unsigned n, uint32_t disp)
{
    ebytes(e, op, n);
    e32(e, disp);
}
#define R15_OP(e, disp, ...)                                                                                 \
    r15_op((e), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), (disp))

/* The block's account. To the callout when it is empty: the jump is patched by the caller, who knows where. */
static uint32_t count_down(struct tx *t)
{
    struct emit *e = &t->e;
    bt_form_heat_up(t->v, t->blk);
    uint32_t word = (uint32_t)offsetof(struct bt_vcpu, heat) + t->blk->heat * 4u;
    R15_OP(e, word, 0x45, 0x8b, 0x8f); /* mov r9d, [r15+heat] */
    EB(e, 0x45, 0x8d, 0x49, 0xff);     /* lea r9d, [r9-1] */
    R15_OP(e, word, 0x45, 0x89, 0x8f); /* mov [r15+heat], r9d */
    EB(e, 0x44, 0x89, 0xc9, 0xe3, 0);  /* mov ecx, r9d; jrcxz the callout */
    return e->at;
}

/* A light call of C fills the TLB, for the kernel, which seldom touches what faults: then once more. */
static void fetch(struct tx *t, uint32_t again)
{
    struct emit *e = &t->e;
    e_mov_imm(e, E_R9, t->v->site_count); /* the callout's */
    tx_reloc(t, e->at - 4, BT_RELOC_SITE);
    tx_call(t, t->v->stubs.light_look);
    EB(e, 0x49, 0x89, 0xcb, 0x44, 0x89, 0xc9); /* mov r11, rcx; mov ecx, r9d */
    EB(e, 0xe3, (uint8_t)(again - e->at - 2)); /* jrcxz again */
    EB(e, 0x4c, 0x89, 0xd9);                   /* mov rcx, r11 */
}

void tx_soft_look(struct tx *t)
{
    struct emit *e = &t->e;
    bool kernel = !(t->mode & RC_MODE_USER);
    const struct bt_insn *i = &t->insn;
    unsigned kind = (i->mem_written ? SPT_WRITE >> 1 : 0) | (t->mode & RC_MODE_USER ? SPT_USER >> 1 : 0);
    uint32_t tlb = (uint32_t)offsetof(struct bt_vcpu, tlb), row = kind * SPT_TLB_SIZE * 8;
    EB(e, 0x49, 0x89, 0xcb); /* mov r11, rcx */
    uint32_t empty = t->blk->heat ? 0 : count_down(t), again = e->at;
    EB(e, 0x45, 0x8d, 0x50, (uint8_t)(i->mem_size - 1)); /* lea r10d, [r8+size-1] */
    EB(e, 0xc4, 0x43, 0xfb, 0xf0, 0xc8, 12);             /* rorx r9, r8, 12 */
    EB(e, 0xc4, 0x43, 0xfb, 0xf0, 0xd2, 12);             /* rorx r10, r10, 12 */
    EB(e, 0x45, 0x0f, 0xb6, 0xc9, 0x45, 0x89, 0xd2);     /* movzx r9d, r9b; mov r10d, r10d */
    R15_OP(e, tlb + (uint32_t)offsetof(struct spt_tlb, epoch) + kind * 8, 0x49, 0x8b, 0x8f); /* mov rcx, */
    EB(e, 0x4a, 0x8d, 0x0c, 0x11); /* lea rcx, [rcx+r10] */
    R15_OP(e, tlb + (uint32_t)offsetof(struct spt_tlb, minus_tag) + row, 0x4f, 0x8b, 0x94,
           0xcf);                                          /* mov r10, */
    EB(e, 0x4a, 0x8d, 0x0c, 0x11, 0xe3, kernel ? 38 : 16); /* lea rcx, [rcx+r10]; jrcxz found */
    if (empty)
        e->rw[empty - 1] = (uint8_t)(e->at - empty);
    EB(e, 0x4c, 0x89, 0xd9); /* mov rcx, r11 */
    if (kernel)
        fetch(t, again);
    tx_callout(t);
    t->v->site[t->v->site_count - 1].looks = true;
    EB(e, 0xeb, 0); /* jmp over */
    t->over = e->at;
    EB(e, 0x4c, 0x89, 0xd9); /* found: mov rcx, r11 */
    R15_OP(e, tlb + (uint32_t)offsetof(struct spt_tlb, addend) + row, 0x4f, 0x8b, 0x8c, 0xcf); /* mov r9, */
}

void tx_soft_come_here(struct tx *t)
{
    if (t->over)
        t->e.rw[t->over - 1] = (uint8_t)(t->e.at - t->over);
}
