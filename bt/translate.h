/* Shared by the translate*.c files: the state of one block being translated. */
#ifndef BT_TRANSLATE_H
#define BT_TRANSLATE_H

#include "impl.h"
#include "emit.h"

struct tx {
    struct bt_vcpu *v;
    struct emit e;
    struct bt_block *blk;
    uint32_t b;   /* number of blk */
    uint32_t eip; /* of the current instruction */
    uint64_t gpa;
    uint32_t next; /* EIP of the following instruction */
    unsigned space;
    uint32_t mode;
    enum bt_form form; /* of the current site */
    struct bt_insn insn;
    int esp;       /* guest ESP is R12 plus this: pushes and pops not yet added up */
    bool ended;    /* control flow has been emitted */
    uint32_t over; /* rel8 by which a SOFT site's callout skips what follows; 0: none */
};

/* How an instruction is put into the cache. */
enum tx_kind {
    TX_INTERP,  /* callout: the default for all that no table row allows */
    TX_COPY,    /* same instruction; memory operand redirected, ESP is R12 */
    TX_NOTHING, /* NOPs and hints */
    TX_INCDEC,  /* 40-4F */
    TX_PUSH_REG,
    TX_POP_REG,
    TX_PUSH_IMM,
    TX_PUSH_RM,
    TX_POP_RM, /* to memory */
    TX_PUSH_SEG,
    TX_MOV_FROM_SEG,
    TX_LOAD_SEG, /* MOV to, POP of ES, DS, FS, GS */
    TX_LEAVE,
    TX_MOFFS,
    TX_LEA,
    TX_STRING,
    TX_RDTSC,
    TX_MOV_FROM_CR,
    TX_CLI,
    TX_STI,
    TX_PUSHF,
    TX_POPF,
    TX_JCC,
    TX_JMP,
    TX_CALL,
    TX_RET,
    TX_JMP_RM,
    TX_CALL_RM,
    TX_LOOP,
    TX_END, /* callout that ends the block: interrupts, far transfers, HLT ... */
};
/* translate_stack.c: pushes and pops, added up. */
bool tx_esp_aware(const struct tx *t, enum tx_kind kind); /* can be emitted while t->esp is not 0 */
void tx_esp_settle(struct tx *t);                         /* add t->esp to R12 */
void tx_push(struct tx *t, unsigned host_reg);
bool tx_stack(struct tx *t, enum tx_kind kind);
bool tx_mov_from_seg(struct tx *t);
bool tx_load_seg(struct tx *t);
unsigned tx_host_reg(unsigned guest);

/* translate_light.c */
void tx_light_end(struct tx *t, int32_t esp_add); /* after a light call; esp_add: once it is done */
bool tx_light(struct tx *t); /* page-table stores and INVLPG by light calls; false: nothing was emitted */

/* translate_table.c */
enum tx_kind tx_classify(const struct tx *t);
bool tx_reg_is_gpr(const struct bt_insn *i);
bool tx_rm_is_gpr(const struct bt_insn *i);
bool tx_reg_is_byte(const struct bt_insn *i);
bool tx_rm_is_byte(const struct bt_insn *i);

/* translate_mem.c. All return false when this operand or form cannot be emitted: use the callout. */
struct tx_op {
    uint8_t prefix[4], prefix_len;
    uint8_t op[3], op_len;
    uint8_t reg; /* ModRM.reg, 8-15 through REX.R */
    uint8_t imm[4], imm_len;
    bool vex;      /* the instruction's VEX prefix takes the place of prefix, REX and escape */
    bool byte_reg; /* reg is a byte register: 4-7 mean AH-BH */
    bool wide;
};
bool tx_emit_op(struct tx *t, const struct tx_op *op);
bool tx_address(struct tx *t); /* r8d = linear address of the memory operand; uses r9, not the flags */
bool tx_copy(struct tx *t);
bool tx_lea(struct tx *t);
bool tx_seg_flat(const struct tx *t, unsigned seg);
bool tx_string(struct tx *t);

/* translate_soft.c: memory through the software TLB */
bool tx_soft_possible(const struct tx *t, enum tx_kind kind);
void tx_soft_look(struct tx *t); /* r8d: address of t->insn's memory operand. r9 + r8 is its host address */
void tx_soft_come_here(
    struct tx *t); /* where the callout goes on that stands in for all since tx_soft_look */

/* translate_flags.c: the interrupt flag and EFLAGS images without leaving translated code */
bool tx_flags(struct tx *t, enum tx_kind kind);
/* translate.c */
bool tx_plain(struct tx *t, enum tx_kind kind); /* emit without a callout, if that is possible */
bool tx_is_flow(enum tx_kind kind);
void tx_callout(struct tx *t);
void tx_call(struct tx *t, uint32_t stub);
void tx_reloc(struct tx *t, uint32_t at,
              enum bt_reloc_kind kind); /* four bytes that a rebased copy must change */

/* translate_probe.c */
bool tx_probed(struct tx *t, enum tx_kind kind);

/* translate_flow.c */
bool tx_flow(struct tx *t, enum tx_kind kind); /* false: nothing could be emitted */
bool tx_flow_possible(const struct tx *t, enum tx_kind kind);
void tx_jump_to(struct tx *t, uint32_t eip); /* jmp to a guest address, chained later */
void tx_stubs(struct tx *t);                 /* unlinked ends of all branches */

#endif
