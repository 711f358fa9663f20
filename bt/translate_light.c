/* Light calls: C functions that do not need the guest's registers in memory. */
#include "translate.h"

/* r8d is the light call's answer: 0, it is done; else the whole instruction is the callout's. */
void tx_light_end(struct tx *t, int32_t esp_add)
{
    struct emit *e = &t->e;
    e_mov(e, true, E_R9, E_RCX);
    e_mov(e, false, E_RCX, E_R8);
    EB(e, 0xe3, 0); /* jrcxz done */
    uint32_t good = e->at;
    e_mov(e, true, E_RCX, E_R9);
    tx_callout(t);
    EB(e, 0xeb, 0); /* jmp end */
    uint32_t end = e->at;
    e->rw[good - 1] = (uint8_t)(e->at - good);
    e_mov(e, true, E_RCX, E_R9);
    if (esp_add)
        e_esp_add(e, esp_add);
    e->rw[end - 1] = (uint8_t)(e->at - end);
}

/*T:353 Light calls
 *
 * A callout moves all registers to memory and back, decodes nothing but chooses, checks and accounts like an interpreter.
 * Two things a kernel does by the hundred for each process need none of it: a store into a page table, by a site that has
 * been found to do that, and INVLPG. They get a call of their own with an address and a value. Where the answer is no
 * (not a page table this time, something the block relied on is gone, somebody wants the CPU) the instruction is executed
 * once more by the ordinary callout: storing the same value twice is the same as once, and so is invalidating.
:*/
bool tx_light(struct tx *t)
{
    const struct bt_insn *i = &t->insn;
    struct emit *e = &t->e;
    bool is_int = i->class == BT_CLASS_INT && !i->vex;
    bool invlpg = is_int && i->map == ZYDIS_OPCODE_MAP_0F && i->opcode == 0x01 && i->reg == 7;
    bool mov = is_int && i->map == ZYDIS_OPCODE_MAP_DEFAULT && i->osz == 4 && t->form == BT_FORM_INTERP &&
               (i->opcode == 0x89 || (i->opcode == 0xc7 && i->reg == 0));
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
