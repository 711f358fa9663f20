/* Light calls: C functions that do not need the guest's registers in memory. */
#include "translate.h"

/* r9d is the light call's answer: 0, it is done; else the whole instruction is the callout's. */
void tx_light_end(struct tx *t, int32_t esp_add)
{
    struct emit *e = &t->e;
    e_mov(e, true, E_R8, E_RCX);
    e_mov(e, false, E_RCX, E_R9);
    EB(e, 0xe3, 0); /* jrcxz done */
    uint32_t good = e->at;
    e_mov(e, true, E_RCX, E_R8);
    tx_callout(t);
    EB(e, 0xeb, 0); /* jmp end */
    uint32_t end = e->at;
    e->rw[good - 1] = (uint8_t)(e->at - good);
    e_mov(e, true, E_RCX, E_R8);
    if (esp_add)
        e_esp_add(e, esp_add);
    e->rw[end - 1] = (uint8_t)(e->at - end);
}

/*T:353 Light calls
 *
 * A callout moves all registers to memory and back, decodes nothing but chooses, checks and accounts like an interpreter.
 * What a kernel does by the hundred for each process needs none of it: a store into a page table, by a site that has
 * been found to do that, INVLPG, clearing and copying pages by REP STOS and MOVS, and a page that has come to be at an address
 * (see translate_soft.c). They get a call of their own. Where the answer is no
 * (not a page table this time, something the block relied on is gone, somebody wants the CPU) the instruction is executed
 * once more by the ordinary callout: storing the same value twice is the same as once, so is invalidating, and a string
 * instruction has nothing left to do.
:*/
static bool light_string(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    unsigned kind = i->opcode & 0xfe;
    bool moves = kind == 0xa4;
    if ((t->mode & RC_MODE_USER) || i->map != ZYDIS_OPCODE_MAP_DEFAULT || i->class != BT_CLASS_INT ||
        i->vex || (!moves && kind != 0xaa) || !i->rep || i->repne || i->asz != 4 || t->form < BT_FORM_SOFT ||
        (t->mode & RC_MODE_ES_ODD) || (moves && !tx_seg_flat(t, i->seg)))
        return false;
    e_mov_imm(&t->e, E_R8, t->v->site_count); /* the callout's */
    tx_reloc(t, t->e.at - 4, BT_RELOC_SITE);
    tx_call(t, t->v->stubs.light_string);
    tx_light_end(t, 0);
    return true;
}

bool tx_light(struct tx *t)
{
    if (light_string(t))
        return true;
    const struct bt_insn *i = &t->insn;
    struct emit *e = &t->e;
    bool is_int = i->class == BT_CLASS_INT && !i->vex;
    bool invlpg = is_int && i->map == ZYDIS_OPCODE_MAP_0F && i->opcode == 0x01 && i->reg == 7;
    bool mov = is_int && i->map == ZYDIS_OPCODE_MAP_DEFAULT && i->osz == 4 && t->form == BT_FORM_INTERP &&
               (i->opcode == 0x89 || (i->opcode == 0xc7 && i->reg == 0)) && !bt_form_device(t->v, t->gpa);
    if ((t->mode & RC_MODE_USER) || (!invlpg && !mov) || i->lock || !i->is_mem || i->asz != 4 ||
        !tx_seg_flat(t, i->seg))
        return false;
    if (!tx_address(t))
        return false;
    if (mov && i->opcode == 0xc7)
        e_mov_imm(e, E_R9, i->imm);
    else if (mov)
        e_mov(e, false, E_R9, tx_host_reg(i->reg));
    tx_call(t, invlpg ? t->v->stubs.light_invlpg : t->v->stubs.light_store);
    tx_light_end(t, 0);
    return true;
}
