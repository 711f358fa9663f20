/*
 * The translator: one block of guest code, decoded and emitted instruction by instruction. Each guest
 * instruction leaves guest state untouched until the last host instruction that can fault has passed, so that
 * a fault at any host address finds the guest's registers as they were at the start of the guest instruction.
 */
#include "translate.h"

void tx_callout(struct tx *t)
{
    struct bt_vcpu *v = t->v;
    uint32_t n = v->site_count++;
    v->site[n] = (struct bt_site){.insn = t->insn, .eip = t->eip, .block = t->b, .index = t->blk->count};
    if (t->form == BT_FORM_SOFT)
        v->site[n].soft = bt_form_row(v, t->gpa);
    t->blk->site_count++;
    e_mov_imm(&t->e, E_R8, n);
    e8(&t->e, 0xe8);
    e_rel32(&t->e, v->stubs.callout);
}

static bool stack_is_window(const struct tx *t)
{
    return t->insn.osz == 4 && !(t->mode & RC_MODE_SS_ODD) && t->form == BT_FORM_WINDOW;
}

static unsigned host_reg(unsigned guest)
{
    return guest == RC_ESP ? E_R12 : guest;
}

static bool emit_incdec(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    unsigned r = host_reg(i->opcode & 7);
    if (i->osz == 2)
        e8(&t->e, 0x66);
    if (r >= 8)
        e8(&t->e, 0x41);
    EB(&t->e, 0xff, 0xc0 | (i->opcode & 8) | (r & 7));
    return true;
}

static bool emit_push(struct tx *t, enum tx_kind kind)
{
    struct emit *e = &t->e;
    const struct bt_insn *i = &t->insn;
    if (!stack_is_window(t))
        return false;
    if (kind == TX_PUSH_REG)
        e_stack(e, 0x89, host_reg(i->opcode & 7), -4);
    else if (kind == TX_PUSH_IMM) {
        EB(e, 0x65, 0x67, 0x41, 0xc7, 0x44, 0x24, 0xfc);
        e32(e, i->imm);
    } else {
        struct tx_op op = {.op = {0x8b}, .op_len = 1, .reg = E_R8};
        if (!tx_emit_op(t, &op))
            return false;
        e_stack(e, 0x89, E_R8, -4);
    }
    e_esp_add(e, -4);
    return true;
}

/*T:555 Ring aliasing
 *
 * A guest that reads CS in its kernel must see ring 0, whatever ring the host runs it in. Selectors are
 * read from the vCPU structure, never from the CPU.
:*/
static void load_selector(struct emit *e, unsigned reg, unsigned seg) /* movzx reg, word [r15+selector] */
{
    EB(e, 0x41 | (reg >= 8 ? 4 : 0), 0x0f, 0xb7, 0x87 | (reg & 7) << 3);
    e32(e, (uint32_t)(offsetof(struct rc_cpu, seg) + seg * sizeof(struct rc_seg) +
                      offsetof(struct rc_seg, selector)));
}

static bool emit_push_seg(struct tx *t)
{
    if (!stack_is_window(t))
        return false;
    load_selector(&t->e, E_R8, t->insn.opcode >> 3 & 7);
    e_stack(&t->e, 0x89, E_R8, -4);
    e_esp_add(&t->e, -4);
    return true;
}

static bool emit_mov_from_seg(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    if (i->mod != 3 || i->osz != 4 || i->reg > RC_GS)
        return false;
    load_selector(&t->e, host_reg(i->rm), i->reg);
    return true;
}

static bool emit_pop(struct tx *t)
{
    if (!stack_is_window(t))
        return false;
    unsigned r = host_reg(t->insn.opcode & 7);
    e_stack(&t->e, 0x8b, r, 0);
    if (r != E_R12)
        e_esp_add(&t->e, 4);
    return true;
}

static bool emit_leave(struct tx *t)
{
    if (!stack_is_window(t))
        return false;
    struct emit *e = &t->e;
    EB(e, 0x65, 0x67, 0x44, 0x8b, 0x45, 0x00); /* mov r8d, gs:[ebp] */
    EB(e, 0x44, 0x8d, 0x65, 0x04);             /* lea r12d, [rbp+4] */
    e_mov(e, false, E_RBP, E_R8);
    return true;
}

static bool emit_moffs(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    static const uint8_t op_of[4] = {0x8a, 0x8b, 0x88, 0x89};
    struct tx_op op = {.op = {op_of[i->opcode & 3]}, .op_len = 1, .reg = E_RAX};
    if (i->osz == 2 && (i->opcode & 1))
        op.prefix[op.prefix_len++] = 0x66;
    return tx_emit_op(t, &op);
}

/* True when the instruction has been emitted without a callout. */
static bool emit_plain(struct tx *t, enum tx_kind kind)
{
    switch (kind) {
    case TX_NOTHING:
        return true;
    case TX_COPY:
        return tx_copy(t);
    case TX_LEA:
        return tx_lea(t);
    case TX_STRING:
        return tx_string(t);
    case TX_INCDEC:
        return emit_incdec(t);
    case TX_PUSH_REG:
    case TX_PUSH_IMM:
    case TX_PUSH_RM:
        return emit_push(t, kind);
    case TX_PUSH_SEG:
        return emit_push_seg(t);
    case TX_MOV_FROM_SEG:
        return emit_mov_from_seg(t);
    case TX_POP_REG:
        return emit_pop(t);
    case TX_LEAVE:
        return emit_leave(t);
    case TX_MOFFS:
        return emit_moffs(t);
    case TX_CLI:
    case TX_STI:
    case TX_PUSHF:
    case TX_POPF:
        return tx_flags(t, kind);
    default:
        return false;
    }
}

static bool is_flow(enum tx_kind k)
{
    return k >= TX_JCC && k <= TX_LOOP;
}

/* A page can be executed by the kernel and by user code. What the kernel's use taught does not apply to the
 * user's: user code may never select a window. */
static enum bt_form site_form(const struct tx *t)
{
    enum bt_form form = bt_form_get(t->v, t->gpa);
    return form == BT_FORM_DUAL && (t->mode & RC_MODE_USER) ? BT_FORM_WINDOW : form;
}

static void emit_insn(struct tx *t)
{
    uint32_t start = t->e.at;
    t->form = site_form(t);
    enum tx_kind kind = tx_classify(t);
    if (t->form >= BT_FORM_SOFT)
        kind = is_flow(kind) || kind == TX_END ? TX_END : TX_INTERP;
    if (is_flow(kind)) {
        if (tx_flow_possible(t, kind))
            tx_flow(t, kind);
        if (t->ended)
            return;
        kind = TX_END;
    }
    t->e.at = start;
    if (!emit_plain(t, kind)) {
        t->e.at = start;
        tx_callout(t);
    }
    if (kind == TX_END) {
        tx_jump_to(t, t->next); /* the callout leaves unless EIP is the next instruction's */
        t->ended = true;
    }
}

/* Decode at t->eip. Inside a block an instruction that crosses the page ends the block before it. */
static enum bt_decode fetch_insn(struct tx *t, bool first)
{
    struct bt_vcpu *v = t->v;
    const uint8_t *ram = v->cfg.ram->base;
    unsigned left = HOST_PAGE - (t->gpa & (HOST_PAGE - 1));
    enum bt_decode d = bt_decode(&v->decoder, true, ram + t->gpa, left < 15 ? left : 15, &t->insn);
    if (d != BT_DECODE_SHORT || !first)
        return d;
    uint8_t bytes[15];
    uint64_t gpa2;
    unsigned space2;
    struct spt_info info;
    uint32_t access = SPT_EXEC | (t->mode & RC_MODE_USER ? SPT_USER : 0);
    if (!spt_fetch(v->spt, t->eip + left, access, &gpa2, &space2, &info) || !spt_is_ram(v->spt, gpa2) ||
        space2 != t->space)
        return d;
    memcpy(bytes, ram + t->gpa, left);
    memcpy(bytes + left, ram + gpa2, 15 - left);
    d = bt_decode(&v->decoder, true, bytes, 15, &t->insn);
    t->blk->gpa2 = gpa2 & ~(uint64_t)(HOST_PAGE - 1);
    return d;
}

static bool room(struct bt_vcpu *v)
{
    return v->arena_next + BT_BLOCK_ROOM <= v->arena.size && v->block_count + 1 < v->block_max &&
           v->map_count + BT_BLOCK_MAX < v->map_max && v->link_count + 4 < v->link_max &&
           v->site_count + BT_BLOCK_MAX < v->site_max;
}

static void add_row(struct tx *t)
{
    struct bt_vcpu *v = t->v;
    v->map[v->map_count++] = (struct bt_map){.host_off = (uint16_t)(t->e.at - t->blk->host),
                                             .guest_off = (uint16_t)(t->eip - t->blk->eip),
                                             .form = (uint8_t)site_form(t)};
}

static void emit_block(struct tx *t)
{
    struct bt_block *blk = t->blk;
    while (!t->ended) {
        bool first = blk->count == 0;
        if (blk->gpa2 || blk->count == BT_BLOCK_MAX || (!first && (t->eip ^ blk->eip) >> 12) ||
            fetch_insn(t, first) != BT_DECODE_OK)
            break;
        t->next = t->eip + t->insn.length;
        add_row(t);
        emit_insn(t);
        blk->count++;
        blk->guest_len += t->insn.length;
        t->eip = t->next;
        t->gpa += t->insn.length;
    }
    if (!t->ended && blk->count)
        tx_jump_to(t, t->eip);
}

uint32_t bt_translate(struct bt_vcpu *v, uint32_t eip, uint64_t gpa, unsigned space, uint32_t mode)
{
    if (!spt_is_ram(v->spt, gpa))
        return 0;
    if (!room(v) || v->flush_wanted)
        bt_cache_flush(v);
    uint32_t b = v->block_count;
    struct bt_block *blk = &v->block[b];
    *blk = (struct bt_block){.gpa = gpa,
                             .eip = eip,
                             .mode = mode,
                             .host = v->arena_next,
                             .map = v->map_count,
                             .site = v->site_count,
                             .first_link = v->link_count};
    struct tx t = {.v = v,
                   .e = {v->arena.rw, blk->host},
                   .blk = blk,
                   .b = b,
                   .eip = eip,
                   .gpa = gpa,
                   .space = space,
                   .mode = mode};
    e_expect(&t.e, eip, v->stubs.miss);
    blk->main = t.e.at;
    emit_block(&t);
    if (!blk->count)
        return 0;
    tx_stubs(&t);
    blk->end = t.e.at;
    v->arena_next = (blk->end + 15) & ~15u;
    v->block_count++;
    bt_cache_insert(v, b);
    v->counts.blocks++;
    v->counts.insns += blk->count;
    v->counts.cache_bytes = v->arena_next;
    return b;
}
