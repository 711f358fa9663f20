/*
 * The virtual interrupt flag and EFLAGS images. In the guest kernel CLI, STI, PUSHF and POPF are as frequent
 * as calls; each is a few host instructions here. Conditions: CPL <= IOPL for those that change IF, and none
 * of IOPL, NT, AC set (a mode bit), so that an EFLAGS image is the host's arithmetic flags plus IF and ID. ID is no mode
 * of its own since Linux boots, and idles for ever, with ID set: each time the kernel wakes up it would need another
 * jump table.
 */
#include "translate.h"

#define OFF(field) ((uint32_t)offsetof(struct bt_vcpu, field))
#define CPU(field) ((uint32_t)offsetof(struct rc_cpu, field))

/* PUSHF adds IF to the image by one LEA: the 16 bits below iflag's byte are the always-zero top byte of
 * eflags. */
_Static_assert(offsetof(struct rc_cpu, iflag) == offsetof(struct rc_cpu, eflags) + 4, "iflag follows eflags");

/*T:552 The virtual interrupt flag
 *
 * CLI is one store. STI is a store if no interrupt is waiting; the instruction after it must complete
 * before one is delivered (SDM vol. 2, STI), so its address is noted: should a kick arrive right there,
 * that instruction is interpreted first. If an interrupt is waiting, STI is a callout.
:*/
static bool emit_sti(struct tx *t)
{
    struct emit *e = &t->e;
    uint32_t start = e->at;
    e_mov(e, true, E_R9, E_RCX);
    EB(e, 0x41, 0x0f, 0xb6, 0x8f); /* movzx ecx, byte [r15+irq_waiting] */
    e32(e, OFF(irq_waiting));
    EB(e, 0xe3, 0); /* jrcxz free */
    uint32_t free_at = e->at - 1;
    e_mov(e, true, E_RCX, E_R9);
    tx_callout(t);
    EB(e, 0xeb, 0); /* jmp done */
    uint32_t done_at = e->at - 1;
    e->rw[free_at] = (uint8_t)(e->at - free_at - 1);
    e_mov(e, true, E_RCX, E_R9);
    e_store8(e, CPU(iflag), 1);
    e_store8(e, CPU(irq_shadow), 1);
    e_store_imm(e, OFF(shadow_eip), t->next);
    tx_reloc(t, e->at - 4, BT_RELOC_EIP);
    e->rw[done_at] = (uint8_t)(e->at - done_at - 1);
    return e->at > start;
}

_Static_assert((RC_ID >> 16) == 0x20,
               "ID is alone in the upper half of eflags: RF and VM never are set here");

/* r10d = ID, where it belongs. No flags are touched. */
static void id_r10(struct tx *t)
{
    struct emit *e = &t->e;
    if (!t->v->bmi2) {
        e_mov_imm(e, E_R10, 0);
        return;
    }
    EB(e, 0x45, 0x0f, 0xb7, 0x57, (uint8_t)(CPU(eflags) + 2)); /* movzx r10d, word [r15+eflags+2] */
    EB(e, 0xc4, 0x43, 0x7b, 0xf0, 0xd2, 16);                   /* rorx r10d, r10d, 16 */
}

static void emit_pushf(struct tx *t)
{
    struct emit *e = &t->e;
    id_r10(t);
    EB(e, 0x9c, 0x41, 0x58);                                  /* pushfq; pop r8 */
    EB(e, 0x45, 0x0f, 0xb7, 0x4f, (uint8_t)(CPU(iflag) - 1)); /* movzx r9d, word [r15+iflag-1]: IF << 8 */
    EB(e, 0x47, 0x8d, 0x84, 0x48);                            /* lea r8d, [r8+r9*2-0x200] */
    e32(e, 0xfffffe00);
    EB(e, 0x47, 0x8d, 0x04, 0x10); /* lea r8d, [r8+r10] */
    tx_push(t, E_R8);
}

/* Host flags may be used freely: POPF replaces them all, and its only fault (the stack read) comes first. An image with
 * DF set, or with another ID, is rare and left to the callout. */
static void emit_popf(struct tx *t)
{
    struct emit *e = &t->e;
    e_stack(e, 0x8b, E_R8, 0);                 /* mov r8d, window:[r12] */
    EB(e, 0x45, 0x89, 0xc1, 0x41, 0x81, 0xe1); /* mov r9d, r8d; and r9d, ~plain */
    e32(e, ~(uint32_t)(RC_ARITH | RC_IF | 2));
    id_r10(t);
    EB(e, 0x45, 0x39, 0xd1); /* cmp r9d, r10d */
    EB(e, 0x75, 0);          /* jne slow */
    uint32_t slow1 = e->at - 1;
    EB(e, 0x41, 0x0f, 0xba, 0xe0, 9); /* bt r8d, 9 */
    EB(e, 0x73, 0);                   /* jnc plain */
    uint32_t plain = e->at - 1;
    EB(e, 0x41, 0x80, 0xbf); /* cmp byte [r15+irq_waiting], 0 */
    e32(e, OFF(irq_waiting));
    e8(e, 0);
    EB(e, 0x75, 0); /* jne slow */
    uint32_t slow2 = e->at - 1;
    e->rw[plain] = (uint8_t)(e->at - plain - 1);
    EB(e, 0x41, 0x0f, 0xba, 0xe0, 9);                   /* bt r8d, 9 */
    EB(e, 0x41, 0x0f, 0x92, 0x47, (uint8_t)CPU(iflag)); /* setc byte [r15+iflag] */
    e_esp_add(e, 4);
    e8(e, 0xfc); /* cld */
    e_mov(e, true, E_R9, E_RAX);
    e_mov(e, false, E_RAX, E_R8);
    e_flags_from_eax(e);
    e_mov(e, true, E_RAX, E_R9);
    EB(e, 0xeb, 0); /* jmp done */
    uint32_t done = e->at - 1;
    e->rw[slow1] = (uint8_t)(e->at - slow1 - 1);
    e->rw[slow2] = (uint8_t)(e->at - slow2 - 1);
    tx_callout(t);
    e->rw[done] = (uint8_t)(e->at - done - 1);
}

bool tx_flags(struct tx *t, enum tx_kind kind)
{
    bool may_change_if = t->mode & RC_MODE_IOPL;
    bool stack = t->insn.osz == 4 && !(t->mode & RC_MODE_SS_ODD) && t->form == BT_FORM_WINDOW;
    bool plain = !(t->mode & BT_MODE_FLAGS_ODD);
    switch (kind) {
    case TX_CLI:
        if (may_change_if)
            e_store8(&t->e, CPU(iflag), 0);
        return may_change_if;
    case TX_STI:
        return may_change_if && emit_sti(t);
    case TX_PUSHF:
        if (stack && plain)
            emit_pushf(t);
        return stack && plain;
    case TX_POPF:
        if (!stack || !plain || !may_change_if || (t->mode & RC_MODE_USER))
            return false;
        emit_popf(t);
        return true;
    default:
        return false;
    }
}
