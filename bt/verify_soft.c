/*
 * The SFI verifier, the look into the software TLB: the one sequence after which translated code may touch
 * guest memory outside a window.
 */
#include <stddef.h>
#include <string.h>
#include "verify.h"

#define VCPU(field) ((uint32_t)offsetof(struct bt_vcpu, field))

/* The sequence is known byte by byte, with these fields open. Branches into it are refused like those into an
 * instruction, because it is stepped over as if it were one. What it leaves: R9 is such that [R9+R8] and the
 * `size` bytes there lie in one page of guest RAM which the guest may access so at R8D. That holds because a TLB
 * entry holds it for the page it was made for, and the sequence has compared this page with those of the
 * operand's first and last byte. */
enum field {
    HEAT = 256, /* disp32 of a word of the account */
    SIZE,       /* imm8 */
    EPOCH,      /* disp32s of the TLB: all of one kind of access */
    TAG,
    ADDEND,
    SITE,  /* imm32: a site of the block */
    LIGHT, /* rel32 to the stub that fills the TLB and keeps r8 */
    CALL,  /* rel32 to the callout stub */
    FOUND, /* rel8 to `found` */
    OVER,  /* rel8 forward */
};

/* mov r11, rcx */
static const uint16_t keep[] = {0x49, 0x89, 0xcb};
/* mov r9d, [r15+heat]; lea r9d, [r9-1]; mov [r15+heat], r9d; mov ecx, r9d; jrcxz to the callout */
static const uint16_t account[] = {0x45, 0x8b, 0x8f, HEAT, 0x45, 0x8d, 0x49, 0xff, 0x45,
                                   0x89, 0x8f, HEAT, 0x44, 0x89, 0xc9, 0xe3, 0x30};
/* lea r10d, [r8+size-1]; rorx r9, r8, 12; rorx r10, r10, 12; movzx r9d, r9b; mov r10d, r10d;
 * mov rcx, [r15+epoch]; lea rcx, [rcx+r10]; mov r10, [r15+r9*8+tag]; lea rcx, [rcx+r10]; jrcxz found; mov rcx, r11 */
static const uint16_t look[] = {0x45, 0x8d, 0x50,  SIZE, 0xc4, 0x43,  0xfb, 0xf0, 0xc8, 12,   0xc4, 0x43,
                                0xfb, 0xf0, 0xd2,  12,   0x45, 0x0f,  0xb6, 0xc9, 0x45, 0x89, 0xd2, 0x49,
                                0x8b, 0x8f, EPOCH, 0x4a, 0x8d, 0x0c,  0x11, 0x4f, 0x8b, 0x94, 0xcf, TAG,
                                0x4a, 0x8d, 0x0c,  0x11, 0xe3, FOUND, 0x4c, 0x89, 0xd9};
/* kernel code: mov r9d, site; call light; mov r11, rcx; mov ecx, r9d; jrcxz back to the beginning of `look`; mov rcx, r11 */
static const uint16_t fetch[] = {0x41, 0xb9, SITE, 0xe8, LIGHT, 0x49, 0x89, 0xcb,
                                 0x44, 0x89, 0xc9, 0xe3, 0xba,  0x4c, 0x89, 0xd9};
/* mov r8d, site; call callout; jmp over; found: mov rcx, r11; mov r9, [r15+r9*8+addend] */
static const uint16_t rest[] = {0x41, 0xb8, SITE, 0xe8, CALL, 0xeb, OVER,  0x4c,
                                0x89, 0xd9, 0x4f, 0x8b, 0x8c, 0xcf, ADDEND};

struct match {
    uint32_t at;
    uint32_t field[OVER - HEAT + 1], where[OVER - HEAT + 1]; /* where: arena offset of its end */
};

static bool wide(enum field x)
{
    return x != SIZE && x != FOUND && x != OVER;
}

static bool match_bytes(const struct vf *f, struct match *m, const uint16_t *bytes, unsigned n)
{
    const uint8_t *code = f->v->arena.rx;
    for (unsigned i = 0; i < n; i++) {
        unsigned len = bytes[i] < HEAT || !wide((enum field)bytes[i]) ? 1 : 4;
        if (m->at + len > f->b->end || (bytes[i] < HEAT && code[m->at] != bytes[i]))
            return false;
        uint32_t value = code[m->at];
        if (len == 4)
            memcpy(&value, code + m->at, 4);
        m->at += len;
        if (bytes[i] < HEAT)
            continue;
        if (m->where[bytes[i] - HEAT] && m->field[bytes[i] - HEAT] != value)
            return false; /* the word that is stored is not the one that was loaded, or there are two sites */
        m->field[bytes[i] - HEAT] = value;
        m->where[bytes[i] - HEAT] = m->at;
    }
    return true;
}
#define MATCH(f, m, bytes) match_bytes((f), (m), (bytes), sizeof(bytes) / sizeof *(bytes))

static bool match_look(const struct vf *f, struct match *m)
{
    *m = (struct match){.at = f->at};
    if (!MATCH(f, m, keep))
        return false;
    struct match with = *m;
    if (MATCH(f, &with, account))
        *m = with;
    return MATCH(f, m, look) && (f->b->mode & RC_MODE_USER || MATCH(f, m, fetch)) && MATCH(f, m, rest);
}

static bool check_heat(struct vf *f, uint32_t heat)
{
    uint32_t off = heat - VCPU(heat);
    return (off % 4 == 0 && off < sizeof f->v->heat) ||
           vf_refuse(f, "counts down what is no block's account");
}

static bool check_table(struct vf *f, const struct match *m, unsigned *kind)
{
    const uint32_t *x = m->field;
    uint32_t row = SPT_TLB_SIZE * 8;
    for (*kind = 0; *kind < SPT_TLB_KINDS; ++*kind)
        if (x[EPOCH - HEAT] == VCPU(tlb.epoch) + *kind * 8)
            break;
    bool user = f->b->mode & RC_MODE_USER;
    if (*kind == SPT_TLB_KINDS || x[TAG - HEAT] != VCPU(tlb.minus_tag) + *kind * row ||
        x[ADDEND - HEAT] != VCPU(tlb.addend) + *kind * row)
        return vf_refuse(f, "looks into several tables, or none, of the software TLB");
    if (user != !!(*kind & SPT_USER >> 1))
        return vf_refuse(f, "looks into the software TLB of another privilege");
    return true;
}

static bool check_callout(struct vf *f, const struct match *m)
{
    const struct bt_vcpu *v = f->v;
    const struct bt_block *b = f->b;
    uint32_t site = m->field[SITE - HEAT];
    if (m->where[CALL - HEAT] + m->field[CALL - HEAT] != v->stubs.callout ||
        (m->where[LIGHT - HEAT] && m->where[LIGHT - HEAT] + m->field[LIGHT - HEAT] != v->stubs.light_look))
        return vf_refuse(f, "a miss of the software TLB that does not lead to the callout");
    if (site - b->site >= b->site_count || v->site[site].block != f->number)
        return vf_refuse(f, "callout without one of the block's sites in r8");
    return true;
}

/* Is this the sequence? If so it has been stepped over, or refused. */
bool vf_is_look(const struct vf *f)
{
    struct match m;
    return match_look(f, &m);
}

bool vf_look(struct vf *f)
{
    struct match m;
    unsigned kind;
    if (!match_look(f, &m) || m.field[FOUND - HEAT] != (f->b->mode & RC_MODE_USER ? 16 : 38))
        return vf_refuse(f, "an unfinished look into the software TLB");
    uint32_t size = m.field[SIZE - HEAT] + 1;
    if (f->state.reg[8].kind != VF_NUM || f->state.reg[1].kind != VF_NUM)
        return vf_refuse(f, "looks up an address that is not known to have 32 bits");
    if (size > 128)
        return vf_refuse(f, "an operand of more than 128 bytes, or of less than none");
    if ((m.where[0] && !check_heat(f, m.field[0])) || !check_table(f, &m, &kind) || !check_callout(f, &m) ||
        !vf_call_skips(f, m.where[OVER - HEAT] + m.field[OVER - HEAT]))
        return false;
    f->at = m.at;
    f->state.reg[9] = (struct vf_value){.kind = VF_PAGE, .known = kind & SPT_WRITE >> 1, .bits = size};
    f->state.reg[10] = f->state.reg[11] = (struct vf_value){.kind = VF_ANY};
    f->owed = VF_ACCESS;
    return true;
}

/* The instruction right behind it: the only one that may use the page. */
bool vf_page_access(struct vf *f, const ZydisDecodedOperand *o)
{
    const struct vf_value *page = &f->state.reg[9];
    bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    ZydisMnemonic m = f->insn.mnemonic;
    if (f->owed != VF_ACCESS || page->kind != VF_PAGE || o->mem.base != ZYDIS_REGISTER_R9 ||
        o->mem.index != ZYDIS_REGISTER_R8 || o->mem.scale != 1 || o->mem.disp.value ||
        f->insn.address_width != 64 || vf_in_segment(o))
        return vf_refuse(f, "a page from the software TLB is for [r9+r8] of the next instruction only");
    if (o->size == 0 || o->size > page->bits * 8)
        return vf_refuse(f, "an operand longer than the one that was looked up");
    if (writes && !page->known)
        return vf_refuse(f, "a store to a page that was looked up for reading");
    if ((m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR ||
         m == ZYDIS_MNEMONIC_BTC) &&
        f->op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return vf_refuse(f, "a bit test that reaches beyond its operand");
    return true;
}
