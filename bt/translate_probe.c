/* Soft sites of user code that look before they call: see probe.c. */
#include "translate.h"

static enum bt_probe probe_of(const struct tx *t, enum tx_kind kind)
{
    bool stack = t->insn.osz == 4 && !(t->mode & RC_MODE_SS_ODD);
    switch (kind) {
    case TX_COPY:
    case TX_MOFFS:
    case TX_JMP_RM:
        return t->insn.is_mem ? BT_PROBE_OPERAND : BT_PROBE_NONE;
    case TX_PUSH_RM:
    case TX_CALL_RM:
        return t->insn.is_mem && stack ? BT_PROBE_OPERAND : BT_PROBE_NONE;
    case TX_PUSH_REG:
    case TX_PUSH_IMM:
    case TX_CALL:
        return stack ? BT_PROBE_PUSH : BT_PROBE_NONE;
    case TX_POP_REG:
    case TX_RET:
        return stack ? BT_PROBE_POP : BT_PROBE_NONE;
    case TX_LEAVE:
        return stack ? BT_PROBE_FRAME : BT_PROBE_NONE;
    default:
        return BT_PROBE_NONE;
    }
}

static bool address(struct tx *t, enum bt_probe probe) /* r8d */
{
    struct emit *e = &t->e;
    switch (probe) {
    case BT_PROBE_PUSH:
        EB(e, 0x45, 0x8d, 0x44, 0x24, 0xfc); /* lea r8d, [r12-4] */
        return true;
    case BT_PROBE_POP:
        e_mov(e, false, E_R8, E_R12);
        return true;
    case BT_PROBE_FRAME:
        e_mov(e, false, E_R8, E_RBP);
        return true;
    default:
        return tx_address(t);
    }
}

/* ecx = 0 if the page of r8d is believed to be shown; rcx is in r9. No flags are touched, and there is no comparison
 * without flags but with 0: an entry that is less than wanted is a large number after the subtraction, also when shifted;
 * of one that is not the shift leaves nothing. */
static void look(struct emit *e, bool write)
{
    e_mov_imm(e, E_R11, 12);
    EB(e, 0xc4, 0x42, 0x23, 0xf7, 0xc8); /* shrx r9d, r8d, r11d */
    e_load(e, true, E_R10, offsetof(struct bt_vcpu, shown));
    EB(e, 0x47, 0x0f, 0xb7, 0x14, 0x4a); /* movzx r10d, word [r10+r9*2] */
    e_mov(e, true, E_R9, E_RCX);
    EB(e, 0x41, 0x8d, 0x8a); /* lea ecx, [r10-value] */
    e32(e, 0u - (write ? BT_SHOWN_WRITE : BT_SHOWN_READ));
    if (!write)
        EB(e, 0xc4, 0xe2, 0x23, 0xf7, 0xc9); /* shrx ecx, ecx, r11d */
}

/* The instruction as if its site were not soft. */
static bool emit_shown(struct tx *t, enum tx_kind kind)
{
    bool ok;
    t->form = BT_FORM_WINDOW;
    if (tx_is_flow(kind)) {
        ok = tx_flow_possible(t, kind) && tx_flow(t, kind);
    } else {
        ok = tx_plain(t, kind);
        tx_esp_settle(t); /* as after the callout */
    }
    t->form = BT_FORM_SOFT;
    return ok;
}

static bool emit(struct tx *t, enum tx_kind kind, enum bt_probe probe)
{
    struct emit *e = &t->e;
    bool write = probe == BT_PROBE_PUSH || (probe == BT_PROBE_OPERAND && t->insn.mem_written);
    if (!address(t, probe))
        return false;
    look(e, write);
    EB(e, 0xe3, 0); /* jrcxz shown */
    uint32_t shown = e->at, end = 0;
    e_mov(e, true, E_RCX, E_R9);
    tx_callout(t);
    t->v->site[t->v->site_count - 1].probe = (uint8_t)probe;
    if (tx_is_flow(kind)) {
        tx_jump_to(t, t->next); /* the callout leaves unless EIP is the next instruction's */
    } else {
        EB(e, 0xeb, 0); /* jmp end */
        end = e->at;
    }
    e->rw[shown - 1] = (uint8_t)(e->at - shown);
    e_mov(e, true, E_RCX, E_R9);
    if (!emit_shown(t, kind))
        return false;
    if (end && e->at - end > 127)
        return false;
    if (end)
        e->rw[end - 1] = (uint8_t)(e->at - end);
    return true;
}

/* False: nothing has been emitted. */
bool tx_probed(struct tx *t, enum tx_kind kind)
{
    struct bt_vcpu *v = t->v;
    enum bt_probe probe = probe_of(t, kind);
    if (!probe || !v->bmi2 || !(t->mode & RC_MODE_USER))
        return false;
    struct bt_block blk = *t->blk;
    uint32_t at = t->e.at, sites = v->site_count, links = v->link_count, relocs = v->reloc_count;
    if (emit(t, kind, probe))
        return true;
    *t->blk = blk;
    t->e.at = at;
    t->esp = 0;
    v->site_count = sites;
    v->link_count = links;
    v->reloc_count = relocs;
    return false;
}
