/*
 * The SFI verifier's inside: what it knows about each host register at one point of a block, and what is left
 * to prove. Shared by verify.c (control flow) and verify_insn.c (single instructions); it includes nothing of
 * the translator, so that one mistake cannot be made twice.
 */
#ifndef BT_VERIFY_H
#define BT_VERIFY_H

#include "impl.h"

/* What a 64-bit register is known to hold. */
enum vf_kind {
    VF_ANY,      /* nothing is known */
    VF_NUM,      /* a number of at most 32 bits, no others set than in bits */
    VF_ODD,      /* high half of a seg[].soft: 0, or 4 GiB / 8 */
    VF_WINDOW,   /* base of a window that this privilege may use */
    VF_POINTER,  /* window base plus a 32-bit number */
    VF_MOVED,    /* a pointer after its string instruction: to be truncated */
    VF_SHOWN,    /* struct bt_shown: may be read at a page number */
    VF_JUMP_OFF, /* entry of the jump table */
    VF_PAGE,     /* R9 after a look into the software TLB: plus R8, bits bytes; known: may be written */
    VF_CODE,     /* address of a block's indirect entry, or of the miss stub */
};
struct vf_value {
    uint8_t kind;
    bool known;    /* NUM: exactly bits */
    uint32_t bits; /* NUM: that may be set */
};
struct vf_state {
    struct vf_value reg[16];
};

/* Two instructions that nothing may come between: PUSHF and POPF borrow a slot of the host stack, a look into the
 * software TLB is good for one access. */
enum vf_owed { VF_NOTHING, VF_POP, VF_POPF, VF_ACCESS };

/* A branch forward into the block whose target has not been reached yet. */
struct vf_pending {
    uint32_t at;
    struct vf_state state;
};
#define VF_PENDING_MAX 64

struct vf {
    struct bt_vcpu *v;
    const struct bt_block *b;
    uint32_t number; /* of the block */
    uint32_t at;     /* arena offset of the instruction looked at */
    bool live;       /* some way leads here */
    struct vf_state state;
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    struct vf_pending pending[VF_PENDING_MAX];
    unsigned pending_count;
    enum vf_owed owed;
    unsigned row; /* of the source/target table, next to be met */
    uint32_t links_met;
};

/* Refuse the block: writes the sentence into v->reason; always false. */
bool vf_refuse(struct vf *f, const char *rule);

static inline struct vf_value vf_num(uint32_t bits)
{
    return (struct vf_value){.kind = VF_NUM, .bits = bits};
}

/* verify_insn.c. Number 0-15 of a general register of any width, -1 for other registers. */
int vf_gpr(ZydisRegister reg);
bool vf_is_guest(int gpr);
bool vf_is_scratch(int gpr);
bool vf_is_host(int gpr);
ZydisRegister vf_window(const struct vf *f);
bool vf_in_segment(const ZydisDecodedOperand *o); /* with a base of its own: one that FS or GS adds */
/* verify_vcpu.c: an instruction that names the vCPU structure, r15; and the host stack's PUSH and POP. */
bool vf_names_vcpu(const struct vf *f);
bool vf_vcpu(struct vf *f);
bool vf_is_stack(const ZydisDecodedInstruction *z);
bool vf_stack(struct vf *f);
/* verify_soft.c: a look into the software TLB, as one instruction; the access that follows it. */
bool vf_is_look(const struct vf *f);
bool vf_look(struct vf *f);
bool vf_page_access(struct vf *f, const ZydisDecodedOperand *o);
/* verify.c: a call into the stubs comes back and goes on at a later place. */
bool vf_call_skips(struct vf *f, uint32_t to);
/* An instruction that is no control flow: may it be there, and what does it do to f->state? */
bool vf_plain(struct vf *f);

#endif
