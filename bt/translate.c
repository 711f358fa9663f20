/*
 * The translator: one block of guest code, decoded and emitted instruction by instruction. Each guest
 * instruction leaves guest state untouched until the last host instruction that can fault has passed, so that
 * a fault at any host address finds the guest's registers as they were at the start of the guest instruction.
 */
#include "translate.h"

/* Those that a block needs to have moved come first. */
void tx_reloc(struct tx *t, uint32_t at, enum bt_reloc_kind kind)
{
    struct bt_vcpu *v = t->v;
    struct bt_block *blk = t->blk;
    struct bt_reloc *r = &v->reloc[blk->reloc], *add = &r[blk->reloc_count++];
    if (kind == BT_RELOC_EIP || kind == BT_RELOC_NEG_EIP) {
        *add = r[blk->reloc_eips];
        add = &r[blk->reloc_eips++];
    }
    *add = (struct bt_reloc){(uint16_t)(at - blk->host), (uint8_t)kind};
    v->reloc_count++;
}

void tx_call(struct tx *t, uint32_t stub)
{
    e8(&t->e, 0xe8);
    e_rel32(&t->e, stub);
    tx_reloc(t, t->e.at - 4, BT_RELOC_OUT);
}

static enum bt_cross cross_of(const struct bt_insn *i)
{
    if (i->map == ZYDIS_OPCODE_MAP_DEFAULT)
        return i->opcode == 0xcd ? BT_CROSS_INT : i->opcode == 0xcf ? BT_CROSS_IRET : BT_CROSS_NONE;
    if (i->map == ZYDIS_OPCODE_MAP_0F && i->class == BT_CLASS_INT)
        return i->opcode == 0x34 ? BT_CROSS_SYSENTER : i->opcode == 0x35 ? BT_CROSS_SYSEXIT : BT_CROSS_NONE;
    return BT_CROSS_NONE;
}

void tx_callout(struct tx *t)
{
    struct bt_vcpu *v = t->v;
    tx_esp_settle(t);
    uint32_t n = v->site_count++;
    v->site[n] = (struct bt_site){.insn = t->insn, .eip = t->eip, .block = t->b, .index = t->blk->count};
    v->site[n].interp = t->form == BT_FORM_INTERP && !bt_is_divide(&t->insn);
    if (t->form == BT_FORM_SOFT || v->site[n].interp)
        v->site[n].soft = bt_form_row(v, t->gpa);
    if (t->form != BT_FORM_SOFT)
        v->site[n].cross = (uint8_t)cross_of(&t->insn);
    t->blk->site_count++;
    e_mov_imm(&t->e, E_R8, n);
    tx_reloc(t, t->e.at - 4, BT_RELOC_SITE);
    unsigned cross = v->site[n].cross;
    if (!cross) {
        tx_call(t, v->stubs.callout);
        return;
    }
    e_jmp(&t->e, cross == BT_CROSS_SYSENTER  ? v->stubs.sysenter
                 : cross == BT_CROSS_SYSEXIT ? v->stubs.sysexit
                                             : v->stubs.cross);
    tx_reloc(t, t->e.at - 4, BT_RELOC_OUT);
    t->ended = true;
}

static bool emit_incdec(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    unsigned r = tx_host_reg(i->opcode & 7);
    if (i->osz == 2)
        e8(&t->e, 0x66);
    if (r >= 8)
        e8(&t->e, 0x41);
    EB(&t->e, 0xff, 0xc0 | (i->opcode & 8) | (r & 7));
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

/* Device models want to know that the guest has looked at this clock: mov byte [r15+tsc_read], 1. Before RDTSC, so that
 * the instruction can be begun again in between. */
static bool emit_rdtsc(struct tx *t)
{
    if (t->mode & BT_MODE_TSC_OWN)
        return false;
    e_store8(&t->e, offsetof(struct bt_vcpu, tsc_read), 1);
    EB(&t->e, 0x0f, 0x31);
    return true;
}

/* A page fault reads CR2. Ring 0 only, which the mode does not tell from rings 1 and 2 unless IOPL is 0. */
static bool emit_mov_from_cr(struct tx *t)
{
    static const uint16_t field[8] = {[0] = offsetof(struct rc_cpu, cr0),
                                      [2] = offsetof(struct rc_cpu, cr2),
                                      [3] = offsetof(struct rc_cpu, cr3),
                                      [4] = offsetof(struct rc_cpu, cr4)};
    bool ring0 = (t->mode & (RC_MODE_USER | RC_MODE_IOPL | BT_MODE_FLAGS_ODD)) == RC_MODE_IOPL;
    if (!ring0 || !field[t->insn.reg & 7] || t->insn.reg >= 8 || t->insn.lock)
        return false;
    e_load(&t->e, false, tx_host_reg(t->insn.rm), field[t->insn.reg]);
    return true;
}

/* True when the instruction has been emitted without a callout. */
bool tx_plain(struct tx *t, enum tx_kind kind)
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
    case TX_PUSH_SEG:
    case TX_POP_REG:
    case TX_POP_RM:
    case TX_LEAVE:
        return tx_stack(t, kind);
    case TX_MOV_FROM_SEG:
        return tx_mov_from_seg(t);
    case TX_LOAD_SEG:
        return tx_load_seg(t);
    case TX_MOFFS:
        return emit_moffs(t);
    case TX_RDTSC:
        return emit_rdtsc(t);
    case TX_MOV_FROM_CR:
        return emit_mov_from_cr(t);
    case TX_CLI:
    case TX_STI:
    case TX_PUSHF:
    case TX_POPF:
        return tx_flags(t, kind);
    default:
        return false;
    }
}

bool tx_is_flow(enum tx_kind k)
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

static enum tx_kind choose(struct tx *t, enum tx_kind kind)
{
    t->over = 0;
    if (t->form >= BT_FORM_SOFT && !tx_soft_possible(t, kind))
        return tx_is_flow(kind) || kind == TX_END ? TX_END : TX_INTERP;
    return tx_is_flow(kind) && !tx_flow_possible(t, kind) ? TX_END : kind;
}

static void add_row(struct tx *t)
{
    struct bt_vcpu *v = t->v;
    v->map[v->map_count++] = (struct bt_map){.host_off = (uint16_t)(t->e.at - t->blk->host),
                                             .guest_off = (uint16_t)(t->eip - t->blk->eip),
                                             .esp = (int8_t)t->esp,
                                             .form = (uint8_t)t->form};
}

static void emit_insn(struct tx *t)
{
    t->form = site_form(t);
    enum tx_kind plain = tx_classify(t), kind = choose(t, plain);
    if (!tx_esp_aware(t, kind))
        tx_esp_settle(t); /* before the row: a DUAL site is run again from there */
    add_row(t);
    if (t->form == BT_FORM_SOFT && !tx_soft_possible(t, plain) && tx_probed(t, plain))
        return;
    if (kind == TX_INTERP && tx_light(t))
        return;
    uint32_t start = t->e.at;
    int esp = t->esp;
    if (tx_is_flow(kind)) {
        if (tx_flow(t, kind))
            return;
        kind = TX_END;
        t->e.at = start;
        t->esp = esp;
    }
    if (tx_plain(t, kind)) {
        tx_soft_come_here(t);
    } else { /* nothing that may fail has a reloc */
        t->e.at = start;
        t->esp = esp;
        tx_callout(t);
    }
    if (kind == TX_END && !t->ended) {
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

bool bt_cache_room(const struct bt_vcpu *v)
{
    return v->arena_next + BT_BLOCK_ROOM <= v->arena.size && v->block_count + 1 < v->block_max &&
           v->map_count + BT_BLOCK_MAX < v->map_max && v->link_count + BT_BLOCK_LINKS + 4 < v->link_max &&
           v->site_count + BT_BLOCK_MAX < v->site_max && v->reloc_count + BT_BLOCK_RELOCS < v->reloc_max;
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
        emit_insn(t);
        blk->count++;
        blk->guest_len += t->insn.length;
        t->eip = t->next;
        t->gpa += t->insn.length;
    }
    if (!t->ended && blk->count) {
        tx_esp_settle(t);
        tx_jump_to(t, t->eip);
    }
}

uint32_t bt_translate(struct bt_vcpu *v, uint32_t eip, uint64_t gpa, unsigned space, uint32_t mode)
{
    if (!spt_is_ram(v->spt, gpa))
        return 0;
    if (!bt_cache_room(v) || v->flush_wanted)
        bt_cache_flush(v);
    uint32_t b = bt_rebase(v, eip, gpa, space, mode);
    if (b)
        return b;
    b = v->block_count;
    struct bt_block *blk = &v->block[b];
    *blk = (struct bt_block){.gpa = gpa,
                             .eip = eip,
                             .mode = mode,
                             .host = v->arena_next,
                             .map = v->map_count,
                             .site = v->site_count,
                             .first_link = v->link_count,
                             .reloc = v->reloc_count};
    struct tx t = {.v = v,
                   .e = {v->arena.rw, blk->host, mode & RC_MODE_USER ? 0x64 : 0x65},
                   .blk = blk,
                   .b = b,
                   .eip = eip,
                   .gpa = gpa,
                   .space = space,
                   .mode = mode};
    e_expect(&t.e, eip, v->stubs.miss);
    blk->main = t.e.at;
    tx_reloc(&t, blk->host + E_EXPECT_VALUE, BT_RELOC_NEG_EIP);
    tx_reloc(&t, blk->host + E_EXPECT_MISS, BT_RELOC_OUT);
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
