/*
 * The interpreter: executes one guest instruction of any kind exactly as the SDM says, through the checked
 * doors. It is the fallback for what the translator does not do, the emulator behind devices and traced
 * pages, and the reference in lock step.
 */
#ifndef BT_INTERP_H
#define BT_INTERP_H

#include "bt/bt.h"
#include "insn.h"

/* After XSAVE: a component in its initial configuration may have been left out. x87 and SSE are put in: who reads the
 * image expects them there. General registers only. */
static inline void bt_xstate_complete(uint8_t *image)
{
    enum { FX_MXCSR = 24, FX_ST = 32, FX_XMM = 160, FX_END = 416 };
    uint64_t *q = (uint64_t *)(void *)image;
    uint8_t *bv = image + RC_XSAVE_XSTATE_BV;
    if ((*bv & 3) == 3)
        return;
    if (!(*bv & RC_XCR0_X87)) {
        q[0] = 0x37f;
        q[1] = q[2] = 0;
        for (unsigned n = FX_ST / 8; n < FX_XMM / 8; n++)
            q[n] = 0;
    }
    if (!(*bv & RC_XCR0_SSE))
        for (unsigned n = FX_XMM / 8; n < FX_END / 8; n++)
            q[n] = 0;
    *bv |= 3;
}

struct bt_interp; /* decoder, decode cache and the thunks that run x87/SSE instructions on the real FPU */

int bt_interp_create(struct bt_interp **out, struct rc_cpu *cpu, const struct bt_ops *ops,
                     struct host_err *err);
void bt_interp_destroy(struct bt_interp *in);

enum bt_step {
    BT_STEP_OK,    /* retired (a REP instruction: completely) */
    BT_STEP_FAULT, /* raised; cpu->fault was delivered (cpu->eip is the handler's) or cpu->shutdown is set */
    BT_STEP_HALT,  /* HLT retired, cpu->halted */
    BT_STEP_PARTIAL, /* a REP instruction stopped between iterations because cpu->request was set; EIP
                        unchanged */
    BT_STEP_UNSUPPORTED,
};
/* Execute the instruction at CS:EIP, then single-step/debug traps and irq_shadow bookkeeping, but no external
 * interrupts. The FPU image in cpu->fpu is current before and after. */
enum bt_step bt_interp_step(struct bt_interp *in);

/* Execute one decoded instruction without fetching it: cpu->eip is its address, bytes already decoded. Same
 * results. Used by translated code's callouts. */
enum bt_step bt_interp_insn(struct bt_interp *in, const struct bt_insn *insn);

/* REP MOVS or STOS with 32-bit addresses and DF clear, as far as it goes through RAM without a fault and without a request;
 * the registers tell how far. True: to the end. */
bool bt_interp_block(struct bt_interp *in, const struct bt_insn *insn);

/* Handler for CPU traps raised by x87/SSE thunks: call first from the vCPU's trap handler; true when it was
 * ours. */
bool bt_interp_trap(struct bt_interp *in, struct host_trap *trap);

/* Decode cache upkeep, called by bt's spt_ops hooks: physical bytes changed / everything may have changed. */
void bt_interp_code_write(struct bt_interp *in, uint64_t gpa, unsigned len);
void bt_interp_flush(struct bt_interp *in);
/* Instruction addresses are mapped differently now; the bytes in RAM are what they were. For fetch_gone:
 * much cheaper than a flush, since decodes are keyed by physical address and survive a CR3 write. */
void bt_interp_fetch_gone(struct bt_interp *in);

#endif
