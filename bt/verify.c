/*
 * The SFI verifier: proves of an emitted block, from its bytes alone, that it can neither leave the windows
 * of its privilege nor the translation cache. It decodes with Zydis in 64-bit mode and shares nothing with
 * the translator but field offsets and the addresses of the stubs.
 */
#include <stdio.h>
#include <string.h>
#include "verify.h"

/*T:360 Proving that translated code stays inside
 *
 * The translator is large and changes often; that it never emits a stray access is believed, not known. So
 * each block can be checked by a second program that knows none of its tricks. It walks once over the
 * block's instructions and keeps, for every host register, what kind of value it must hold: a number of at
 * most 32 bits, a window's base, a jump table entry, an address inside the cache, or anything at all. An
 * access with a 32-bit address through FS in user code and GS in kernel code is always good; one at a window base plus a 32-bit number is
 * good; a jump through a register is good if the register was made by the jump table's own steps. Where two
 * ways meet, only what both agree on is still known, so a branch into the middle of a sequence gains
 * nothing: its registers hold "anything" and the next access is refused.
 *
 * Between blocks one promise is kept: guest registers hold 32-bit numbers, all other knowledge is dropped.
 * Every block may rely on it because every block is checked to keep it. The same promise holds at the start
 * of each guest instruction, where the trap handler may enter.
 *
 * An earlier user of the idea is Google's Native Client (Yee et al., 2009); its validator needed aligned
 * bundles because it had to trust a compiler's jumps. A translator that owns all branches needs none.
:*/

bool vf_refuse(struct vf *f, const char *rule)
{
    struct bt_vcpu *v = f->v;
    const uint8_t *code = v->arena.rx + f->at;
    ZydisFormatter formatter;
    char text[128] = "(undecodable)";
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    if (f->at < f->b->end &&
        ZYAN_SUCCESS(ZydisDecoderDecodeFull(&f->decoder, code, f->b->end - f->at, &insn, op))) {
        ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
        ZydisFormatterFormatInstruction(&formatter, &insn, op, insn.operand_count_visible, text, sizeof text,
                                        f->at, NULL);
    }
    snprintf(v->reason, sizeof v->reason, "the verifier refuses block %u (eip %08x) at host +0x%x: %s: %s",
             f->number, f->b->eip, f->at - f->b->host, text, rule);
    return false;
}

/* ---- states ---- */

/* Between blocks, after calls, at each guest instruction: guest registers are numbers, the rest is open. */
static struct vf_state open_state(void)
{
    struct vf_state s;
    for (int r = 0; r < 16; r++)
        s.reg[r] = vf_is_guest(r) ? vf_num(UINT32_MAX) : (struct vf_value){.kind = VF_ANY};
    return s;
}

static struct vf_value meet(struct vf_value a, struct vf_value b)
{
    if (a.kind != b.kind)
        return (struct vf_value){.kind = VF_ANY};
    if (a.kind != VF_NUM)
        return a;
    bool known = a.known && b.known && a.bits == b.bits;
    return (struct vf_value){.kind = VF_NUM, .known = known, .bits = a.bits | b.bits};
}

static void merge(struct vf *f, const struct vf_state *s)
{
    for (int r = 0; r < 16 && f->live; r++)
        f->state.reg[r] = meet(f->state.reg[r], s->reg[r]);
    if (!f->live)
        f->state = *s;
    f->live = true;
}

static bool guest_is_clean(struct vf *f)
{
    for (int r = 0; r < 16; r++)
        if (vf_is_guest(r) && f->state.reg[r].kind != VF_NUM)
            return vf_refuse(f, "a guest register still holds a window address");
    return true;
}

static bool reach_later(struct vf *f, uint32_t at)
{
    if (at <= f->at || at >= f->b->end)
        return vf_refuse(f, "branch within the block that does not go forward");
    if (f->pending_count == VF_PENDING_MAX)
        return vf_refuse(f, "too many branches within the block");
    f->pending[f->pending_count++] = (struct vf_pending){.at = at, .state = f->state};
    return true;
}

bool vf_call_skips(struct vf *f, uint32_t to)
{
    struct vf_state here = f->state;
    if (!guest_is_clean(f))
        return false;
    f->state = open_state();
    bool ok = reach_later(f, to);
    f->state = here;
    return ok;
}

/* ---- control flow ---- */

static const struct bt_link *link_at(struct vf *f, uint32_t at)
{
    for (unsigned k = 0; k < f->b->link_count; k++) {
        const struct bt_link *l = &f->v->link[f->b->first_link + k];
        if (l->at == at) {
            f->links_met |= 1u << k;
            return l;
        }
    }
    return NULL;
}

static bool exactly(const struct vf *f, unsigned gpr, uint32_t value)
{
    const struct vf_value *x = &f->state.reg[gpr];
    return x->kind == VF_NUM && x->known && x->bits == value;
}

/* The branch of a link goes where the link says; unlinking may send it to the stub at any time. */
static bool check_link(struct vf *f, const struct bt_link *l, uint32_t target)
{
    struct bt_vcpu *v = f->v;
    if (l->block != f->number)
        return vf_refuse(f, "the link belongs to another block");
    if (l->to) {
        const struct bt_block *to = l->to < v->block_count || l->to == f->number ? &v->block[l->to] : NULL;
        if (!to || to->dead)
            return vf_refuse(f, "linked to a block that is gone");
        if (to->mode != f->b->mode || to->eip != l->target_eip)
            return vf_refuse(f, "linked to a block for another mode or address");
        if (target != to->main)
            return vf_refuse(f, "direct branch that does not go where its link says");
    } else if (target != l->stub)
        return vf_refuse(f, "direct branch that does not go where its link says");
    return reach_later(f, l->stub);
}

static bool own_site(struct vf *f)
{
    const struct bt_block *b = f->b;
    for (unsigned k = 0; k < b->site_count; k++)
        if (exactly(f, 8, b->site + k) && f->v->site[b->site + k].block == f->number)
            return true;
    return vf_refuse(f, "callout without one of the block's sites in r8");
}

/* Exits into the stubs hand numbers to C that are used unchecked there: they must be this block's own. */
static bool check_stub(struct vf *f, uint32_t target)
{
    const struct bt_vcpu *v = f->v;
    const struct bt_block *b = f->b;
    bool is_call = f->insn.mnemonic == ZYDIS_MNEMONIC_CALL, is_jmp = f->insn.mnemonic == ZYDIS_MNEMONIC_JMP;
    if (target == v->stubs.miss && is_jmp)
        return true;
    if (target == v->stubs.table && is_jmp)
        return f->state.reg[8].kind == VF_NUM ||
               vf_refuse(f, "way to the jump table without an address in r8");
    if (target == v->stubs.light_string && is_call && !(b->mode & RC_MODE_USER))
        return own_site(f);
    bool crosses = target == v->stubs.cross || target == v->stubs.sysenter || target == v->stubs.sysexit;
    if (crosses ? is_jmp : target == v->stubs.callout && is_call)
        return own_site(f);
    if ((target == v->stubs.light_store || target == v->stubs.light_invlpg) && is_call)
        return !(b->mode & RC_MODE_USER) ||
               vf_refuse(f, "a light call with supervisor rights from user code");
    if (target == v->stubs.light_seg && is_call) {
        for (unsigned seg = 0; seg < RC_SEG_COUNT; seg++)
            if (exactly(f, 9, seg))
                return seg == RC_ES || seg == RC_DS || seg == RC_FS || seg == RC_GS ||
                       vf_refuse(f, "a light call may only load a data segment register");
        return vf_refuse(f, "light call without a segment register in r9");
    }
    if (target == v->stubs.link && is_jmp) {
        for (unsigned k = 0; k < b->link_count; k++)
            if (exactly(f, 9, b->first_link + k))
                return exactly(f, 8, v->link[b->first_link + k].target_eip) ||
                       vf_refuse(f, "exit whose r8 is not the link's target");
        return vf_refuse(f, "exit without one of the block's links in r9");
    }
    return vf_refuse(f, "branch to where translated code has no business");
}

static bool rel32_branch(struct vf *f)
{
    const ZydisDecodedInstruction *z = &f->insn;
    ZyanI64 to = (ZyanI64)f->at + z->length + z->raw.imm[0].value.s;
    const struct bt_link *l = link_at(f, f->at + z->raw.imm[0].offset);
    if (to < 0 || to >= (ZyanI64)f->v->arena.size)
        return vf_refuse(f, "branch out of the cache");
    if (l)
        return check_link(f, l, (uint32_t)to);
    return check_stub(f, (uint32_t)to);
}

static bool short_branch(struct vf *f)
{
    const ZydisDecodedInstruction *z = &f->insn;
    bool counts = z->mnemonic == ZYDIS_MNEMONIC_LOOP || z->mnemonic == ZYDIS_MNEMONIC_LOOPE ||
                  z->mnemonic == ZYDIS_MNEMONIC_LOOPNE;
    if (counts && z->address_width != 32)
        return vf_refuse(f, "a 64-bit count in RCX would leave more than 32 bits in it");
    if (counts)
        f->state.reg[1] = vf_num(UINT32_MAX);
    return reach_later(f, f->at + z->length + (uint32_t)z->raw.imm[0].value.s);
}

static bool indirect_branch(struct vf *f)
{
    const ZydisDecodedOperand *o = &f->op[0];
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return vf_refuse(f, "indirect branch through memory");
    int r = vf_gpr(o->reg.value);
    if (!vf_is_scratch(r) || f->state.reg[r].kind != VF_CODE)
        return vf_refuse(f, "indirect branch to an address that is not from the jump table");
    return true;
}

/* Prefixes change how long AMD and Intel think a branch is: only 67 (with LOOP and JECXZ) and REX (with a
 * register). */
static bool flow_prefixes(struct vf *f)
{
    const ZydisDecodedInstruction *z = &f->insn;
    bool indirect = z->operand_count && f->op[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        unsigned p = z->raw.prefixes[i].value;
        if (!(p == 0x67 && z->raw.imm[0].size == 8) && !((p & 0xf0) == 0x40 && indirect))
            return vf_refuse(f, "prefix on a branch");
    }
    return true;
}

static bool flow(struct vf *f)
{
    const ZydisDecodedInstruction *z = &f->insn;
    ZydisInstructionCategory c = z->meta.category;
    if (!guest_is_clean(f) || !flow_prefixes(f))
        return false;
    if (c == ZYDIS_CATEGORY_RET) {
        if (z->opcode != 0xc3)
            return vf_refuse(f, "a return that moves RSP or loads CS");
        f->live = false;
        return true;
    }
    bool ok = z->raw.imm[0].size == 0    ? indirect_branch(f)
              : z->raw.imm[0].size == 8  ? short_branch(f)
              : z->raw.imm[0].size == 32 ? rel32_branch(f)
                                         : vf_refuse(f, "branch of an unknown shape");
    if (!ok)
        return false;
    if (c == ZYDIS_CATEGORY_UNCOND_BR)
        f->live = false;
    if (c == ZYDIS_CATEGORY_CALL)
        f->state = open_state();
    return true;
}

static bool is_flow(const ZydisDecodedInstruction *z)
{
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
        return z->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR ||
               z->meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT ||
               (z->meta.category == ZYDIS_CATEGORY_RET && z->opcode == 0xc3);
    default:
        return false;
    }
}

/* ---- one instruction ---- */

/* Which of two segment prefixes counts, and what a stray REX does, differs between decoders: none of that. */
static bool check_prefixes(struct vf *f)
{
    const ZydisDecodedInstruction *z = &f->insn;
    unsigned seen = 0;
    for (unsigned i = 0; i < z->raw.prefix_count; i++) {
        const uint8_t known[] = {f->b->mode & RC_MODE_USER ? 0x64 : 0x65, 0x67, 0x66, 0xf0, 0xf2, 0xf3};
        unsigned p = z->raw.prefixes[i].value, bit = 0;
        for (unsigned k = 0; k < sizeof known; k++)
            bit |= p == known[k] ? 1u << k : 0;
        if ((p & 0xf0) == 0x40 && i == z->raw.prefix_count - 1u)
            continue;
        if (!bit || seen & bit)
            return vf_refuse(
                f, "prefix that is doubled, misplaced or names another window than this privilege's");
        seen |= bit;
    }
    return true;
}

/* Everything that may lead to this offset besides the instruction before it. */
static bool arrive(struct vf *f)
{
    const struct bt_map *map = &f->v->map[f->b->map];
    const struct vf_state open = open_state();
    bool fresh = f->at == f->b->main, met = false;
    for (unsigned i = 0; i < f->pending_count;) {
        if (f->pending[i].at < f->at)
            return vf_refuse(f, "a branch lands inside the instruction before this one");
        if (f->pending[i].at != f->at) {
            i++;
            continue;
        }
        merge(f, &f->pending[i].state);
        met = true;
        f->pending[i] = f->pending[--f->pending_count];
    }
    if (!f->live && !fresh)
        return vf_refuse(f, "no way leads here");
    for (; f->row < f->b->count && f->b->host + map[f->row].host_off <= f->at; f->row++) {
        if (f->b->host + map[f->row].host_off != f->at || f->at < f->b->main)
            return vf_refuse(f, "a row of the source/target table begins inside an instruction");
        fresh = true;
    }
    if (f->owed && (fresh || met))
        return vf_refuse(f, f->owed == VF_ACCESS
                                ? "a way leads between a look into the software TLB and its access"
                                : "a way leads between a push and its pop");
    if (!fresh)
        return true;
    if (f->live && !guest_is_clean(f))
        return false;
    merge(f, &open);
    return true;
}

static bool next_insn(struct vf *f)
{
    const struct bt_block *b = f->b;
    if (!arrive(f))
        return false;
    if (!f->owed && f->at >= b->main && vf_is_look(f))
        return vf_look(f);
    if (!ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(&f->decoder, f->v->arena.rx + f->at, b->end - f->at, &f->insn, f->op)))
        return vf_refuse(f, "bytes that are no instruction");
    if (f->at < b->main && f->at + f->insn.length > b->main)
        return vf_refuse(f, "the main entry is inside this instruction");
    bool stack = vf_is_stack(&f->insn);
    bool access = f->owed == VF_ACCESS;
    if (f->owed && !access && !stack)
        return vf_refuse(f, "a push without its pop");
    if (access && (stack || is_flow(&f->insn)))
        return vf_refuse(f, "a look into the software TLB without its access");
    if (!check_prefixes(f) || !(is_flow(&f->insn) ? flow(f) : stack ? vf_stack(f) : vf_plain(f)))
        return false;
    if (access) {
        f->owed = VF_NOTHING;
        f->state.reg[9] = (struct vf_value){.kind = VF_ANY};
    }
    f->at += f->insn.length;
    return true;
}

/* The indirect entry must turn away whoever comes with another address than the block's in r8d. It is the
 * same 23 bytes in every block but for two fields: mov r9,rcx; lea ecx,[r8-eip]; jrcxz ok; mov rcx,r9;
 * jmp miss; ok: mov rcx,r9 (the arithmetic flags are the guest's and may not change). */
static bool check_entry(struct vf *f)
{
    const struct bt_block *b = f->b;
    const uint8_t *c = f->v->arena.rx + b->host;
    static const uint8_t head[] = {0x49, 0x89, 0xc9, 0x41, 0x8d, 0x88},
                         mid[] = {0xe3, 0x08, 0x4c, 0x89, 0xc9, 0xe9}, tail[] = {0x4c, 0x89, 0xc9};
    uint32_t minus_eip, rel;
    if (b->main - b->host != 23 || memcmp(c, head, 6) || memcmp(c + 10, mid, 6) || memcmp(c + 20, tail, 3))
        return vf_refuse(f, "the entry does not compare the address it was asked for");
    memcpy(&minus_eip, c + 6, 4);
    memcpy(&rel, c + 16, 4);
    if (minus_eip + b->eip || b->host + 20 + rel != f->v->stubs.miss)
        return vf_refuse(f, "the entry compares with another address or misses elsewhere");
    return true;
}

static bool check_bounds(struct vf *f)
{
    const struct bt_vcpu *v = f->v;
    const struct bt_block *b = f->b;
    return (b->host >= v->stubs.end && b->host < b->main && b->main < b->end && b->end <= v->arena.size &&
            b->end - b->host <= UINT16_MAX && b->link_count <= 32) ||
           vf_refuse(f, "the block's bounds are wrong");
}

bool bt_verify_block(struct bt_vcpu *v, const struct bt_block *b)
{
    struct vf f = {.v = v, .b = b, .number = (uint32_t)(b - v->block), .at = b->host, .live = true};
    ZydisDecoderInit(&f.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    f.state = open_state();
    if (!check_bounds(&f) || !check_entry(&f))
        return false;
    while (f.at < b->end)
        if (!next_insn(&f))
            return false;
    if (f.live || f.owed)
        return vf_refuse(&f, "control falls through the end of the block");
    if (f.pending_count)
        return vf_refuse(&f, "a branch lands inside the block's last instruction");
    if (f.row != b->count)
        return vf_refuse(&f, "a row of the source/target table lies outside the block");
    if (f.links_met != (b->link_count == 32 ? UINT32_MAX : (1u << b->link_count) - 1))
        return vf_refuse(&f, "a link without a branch");
    v->counts.verified++;
    return true;
}
