/*
 * Private to the interpreter's FPU files: finding and running thunks.
 */
#ifndef BT_INTERP_THUNK_H
#define BT_INTERP_THUNK_H

#include "interp_impl.h"

/* Fields of the FXSAVE64 image (vol. 1 table 10-2). */
enum {
    BT_FX_FCW = 0,
    BT_FX_FSW = 2,
    BT_FX_FTW = 4, /* abridged: a bit per physical register */
    BT_FX_FOP = 6,
    BT_FX_FIP = 8,
    BT_FX_FDP = 16,
    BT_FX_MXCSR = 24,
    BT_FX_MXCSR_MASK = 28,
    BT_FX_ST = 32,
    BT_FX_XMM = 160,
    BT_FX_END32 = 288 /* of XMM7: a 32-bit guest sees no more */
};
enum { BT_MXCSR_VALID = 0xffff }; /* what our CPU model's mxcsr_mask says */

/* The instruction's thunk, made if need be; NULL when it cannot be. */
const struct bt_thunk *bt_thunk_get(struct bt_interp *in, const struct bt_insn *i, unsigned *slot);
/* Run it on cpu->fpu and a copy of the registers. False: it trapped, in->fpu.vector says how. */
bool bt_thunk_run(struct bt_interp *in, unsigned slot, void *mem);
/* Take over general registers and flags of a run. */
void bt_thunk_commit(struct bt_interp *in);

/* interp_avx.c: elements one by one */
void bt_ymm_read(const struct rc_cpu *cpu, unsigned n, uint8_t out[32]);
enum bt_step bt_avx_masked(struct bt_interp *in, const struct bt_insn *i);
enum bt_step bt_avx_gather(struct bt_interp *in, const struct bt_insn *i);

/* interp_xsave.c */
enum bt_step bt_fpu_xsave(struct bt_interp *in, const struct bt_insn *i);
enum bt_step bt_fpu_xrstor(struct bt_interp *in, const struct bt_insn *i);

/* interp_fpstate.c: FXSAVE's first bytes as 32-bit code sees them; their x87 part taken back; FINIT with empty registers */
void bt_fpu_image32(const struct rc_cpu *cpu, uint8_t image[BT_FX_END32]);
void bt_fpu_x87_from32(struct rc_cpu *cpu, const uint8_t *image);
void bt_fpu_x87_init(struct rc_cpu *cpu);

/* interp_fpstate.c: instructions that move FPU state and are not run as themselves */
/* May len bytes at off be accessed, as far as segments say, and is their address a multiple of `to`? Else the fault is
 * raised (#GP(0): vol. 2 FXSAVE, XSAVE). */
bool bt_fpu_aligned(struct bt_interp *in, const struct bt_insn *i, uint32_t off, unsigned len, unsigned to,
                    bool write);
enum bt_step bt_fpu_fxsave(struct bt_interp *in, const struct bt_insn *i);
enum bt_step bt_fpu_fxrstor(struct bt_interp *in, const struct bt_insn *i);
enum bt_step bt_fpu_mxcsr(struct bt_interp *in, const struct bt_insn *i);
/* x87 instruction and data pointers: saved before a thunk runs, since it would leave the host's. */
struct bt_fpu_pointers {
    uint64_t fip, fdp;
    uint16_t fop;
};
void bt_fpu_pointers_get(const struct rc_cpu *cpu, struct bt_fpu_pointers *p);
/* After i ran: what the guest's pointers are now; FNSTENV/FNSAVE's image in mem is patched. */
void bt_fpu_pointers_put(struct bt_interp *in, const struct bt_insn *i, const struct bt_fpu_pointers *p,
                         uint8_t *mem);

#endif
