/*
 * XSAVE, XSAVEOPT and XRSTOR, standard format (vol. 1 13.7, 13.8). The vCPU's own image has the same layout, but for
 * the x87 pointers and what a 32-bit guest does not see: XMM8-15 and their upper halves are left alone.
 */
#include "interp_thunk.h"

enum {
    YMM_BYTES32 = 128,
    AREA_BYTES32 = RC_XSAVE_YMM_HIGH + YMM_BYTES32,
    HEADER = RC_XSAVE_XSTATE_BV,
    XCOMP_BV = HEADER + 8,
    HEADER_BYTES = 24
};

/* RFBM: what is asked for and enabled. XCR0 has nothing for EDX to ask for. */
static uint32_t requested(const struct rc_cpu *cpu)
{
    return cpu->xcr0 & cpu->gpr[RC_EAX];
}

/* What is in use is told from the registers, so that it does not depend on which engine ran before. x87 and SSE may
 * always be called in use (vol. 1 13.6). */
static uint32_t in_use(const struct rc_cpu *cpu)
{
    uint64_t high[YMM_BYTES32 / 8], any = 0;
    if (cpu->fpu[RC_XSAVE_XSTATE_BV] & RC_XCR0_AVX) {
        __builtin_memcpy(high, cpu->fpu + RC_XSAVE_YMM_HIGH, sizeof high);
        for (unsigned n = 0; n < YMM_BYTES32 / 8; n++)
            any |= high[n];
    }
    return RC_XCR0_X87 | RC_XCR0_SSE | (any ? RC_XCR0_AVX : 0);
}

static bool save_legacy(struct bt_interp *in, const struct bt_insn *i, uint32_t off, uint32_t rfbm)
{
    uint8_t image[BT_FX_END32];
    bt_fpu_image32(in->cpu, image);
    if ((rfbm & 3) == 3)
        return bt_write_bytes(in, i->seg, off, image, sizeof image);
    if ((rfbm & RC_XCR0_X87) &&
        !(bt_write_bytes(in, i->seg, off, image, BT_FX_MXCSR) &&
          bt_write_bytes(in, i->seg, off + BT_FX_ST, image + BT_FX_ST, BT_FX_XMM - BT_FX_ST)))
        return false;
    if ((rfbm & (RC_XCR0_SSE | RC_XCR0_AVX)) &&
        !bt_write_bytes(in, i->seg, off + BT_FX_MXCSR, image + BT_FX_MXCSR, 8))
        return false;
    return !(rfbm & RC_XCR0_SSE) ||
           bt_write_bytes(in, i->seg, off + BT_FX_XMM, image + BT_FX_XMM, BT_FX_END32 - BT_FX_XMM);
}

static bool save_ymm(struct bt_interp *in, const struct bt_insn *i, uint32_t off, uint32_t used)
{
    static const uint8_t zero[YMM_BYTES32];
    const uint8_t *high = used & RC_XCR0_AVX ? in->cpu->fpu + RC_XSAVE_YMM_HIGH : zero;
    return bt_write_bytes(in, i->seg, off + RC_XSAVE_YMM_HIGH, high, YMM_BYTES32);
}

/* What a kernel does at every switch between programs: x87 and SSE at least, in one page of ordinary RAM. */
static bool save_fast(struct bt_interp *in, const struct bt_insn *i, uint32_t off, uint32_t rfbm,
                      uint32_t saved, uint32_t used)
{
    uint8_t *p = (saved & 3) == 3 ? bt_fast(in, i->seg, off, AREA_BYTES32, SPT_WRITE) : NULL;
    if (!p || ((uintptr_t)p & 63))
        return false;
    bt_fpu_image32(in->cpu, p);
    if (saved & RC_XCR0_AVX) {
        if (used & RC_XCR0_AVX)
            __builtin_memcpy(p + RC_XSAVE_YMM_HIGH, in->cpu->fpu + RC_XSAVE_YMM_HIGH, YMM_BYTES32);
        else
            __builtin_memset(p + RC_XSAVE_YMM_HIGH, 0, YMM_BYTES32);
    }
    bt_store(p + HEADER, 4, (bt_load(p + HEADER, 4) & ~rfbm) | (rfbm & used));
    return true;
}

enum bt_step bt_fpu_xsave(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t off = bt_ea(in, i), rfbm = requested(in->cpu), used = in_use(in->cpu), bv;
    uint32_t saved = i->mnemonic == ZYDIS_MNEMONIC_XSAVEOPT ? rfbm & used : rfbm;
    if (save_fast(in, i, off, rfbm, saved, used))
        return BT_STEP_OK;
    if (!bt_fpu_aligned(in, i, off, 1, 64, true) || !bt_check_rmw(in, i->seg, off, HEADER) ||
        !bt_check_rmw(in, i->seg, off + HEADER, RC_XSAVE_HEADER_END - HEADER) ||
        ((saved & RC_XCR0_AVX) && !bt_check_rmw(in, i->seg, off + RC_XSAVE_YMM_HIGH, YMM_BYTES32)) ||
        !bt_read(in, i->seg, off + HEADER, 4, &bv))
        return BT_STEP_FAULT;
    if (!save_legacy(in, i, off, saved) || ((saved & RC_XCR0_AVX) && !save_ymm(in, i, off, used)) ||
        !bt_write(in, i->seg, off + HEADER, 4, (bv & ~rfbm) | (rfbm & used)))
        return BT_STEP_FAULT;
    return BT_STEP_OK;
}

/* ---- XRSTOR ---- */

static bool header_valid(const struct rc_cpu *cpu, const uint8_t header[HEADER_BYTES])
{
    uint8_t any = 0;
    for (unsigned n = 8; n < HEADER_BYTES; n++) /* XCOMP_BV: the compact form is not offered */
        any |= header[n];
    return !any && !(bt_load(header, 4) & ~cpu->xcr0) && !bt_load(header + 4, 4);
}

static void load_legacy(struct rc_cpu *cpu, const uint8_t *image, uint32_t rfbm, uint32_t bv)
{
    if (rfbm & RC_XCR0_X87) {
        if (bv & RC_XCR0_X87)
            bt_fpu_x87_from32(cpu, image);
        else
            bt_fpu_x87_init(cpu);
    }
    if (rfbm & (RC_XCR0_SSE | RC_XCR0_AVX))
        __builtin_memcpy(cpu->fpu + BT_FX_MXCSR, image + BT_FX_MXCSR, 4);
    if (rfbm & RC_XCR0_SSE) {
        if (bv & RC_XCR0_SSE)
            __builtin_memcpy(cpu->fpu + BT_FX_XMM, image + BT_FX_XMM, BT_FX_END32 - BT_FX_XMM);
        else
            __builtin_memset(cpu->fpu + BT_FX_XMM, 0, BT_FX_END32 - BT_FX_XMM);
    }
}

static void load_ymm(struct rc_cpu *cpu, const uint8_t *high, uint32_t bv)
{
    __builtin_memset(cpu->fpu + RC_XSAVE_YMM_HIGH, 0, RC_XSAVE_BYTES - RC_XSAVE_YMM_HIGH);
    cpu->fpu[RC_XSAVE_XSTATE_BV] &= (uint8_t)~RC_XCR0_AVX;
    if (bv & RC_XCR0_AVX) {
        __builtin_memcpy(cpu->fpu + RC_XSAVE_YMM_HIGH, high, YMM_BYTES32);
        cpu->fpu[RC_XSAVE_XSTATE_BV] |= RC_XCR0_AVX;
    }
}

/* The area, in place if it lies in one page of ordinary RAM, else copied by way of the doors. NULL: they faulted. */
static const uint8_t *area_in(struct bt_interp *in, const struct bt_insn *i, uint32_t off, uint32_t rfbm,
                              uint8_t copy[AREA_BYTES32])
{
    const uint8_t *p = bt_fast(in, i->seg, off, AREA_BYTES32, SPT_READ);
    if (p && !((uintptr_t)p & 63))
        return p;
    if (!bt_fpu_aligned(in, i, off, 1, 64, false) || !bt_read_bytes(in, i->seg, off, copy, BT_FX_END32) ||
        !bt_read_bytes(in, i->seg, off + HEADER, copy + HEADER, HEADER_BYTES))
        return NULL;
    if (header_valid(in->cpu, copy + HEADER) && (rfbm & bt_load(copy + HEADER, 4) & RC_XCR0_AVX) &&
        !bt_read_bytes(in, i->seg, off + RC_XSAVE_YMM_HIGH, copy + RC_XSAVE_YMM_HIGH, YMM_BYTES32))
        return NULL;
    return copy;
}

enum bt_step bt_fpu_xrstor(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t rfbm = requested(in->cpu);
    uint8_t copy[AREA_BYTES32];
    const uint8_t *area = area_in(in, i, bt_ea(in, i), rfbm, copy);
    if (!area)
        return BT_STEP_FAULT;
    uint32_t bv = bt_load(area + HEADER, 4);
    if (!header_valid(in->cpu, area + HEADER))
        return bt_raise0(in, RC_GP);
    if ((rfbm & (RC_XCR0_SSE | RC_XCR0_AVX)) && (bt_load(area + BT_FX_MXCSR, 4) & ~(uint32_t)BT_MXCSR_VALID))
        return bt_raise0(in, RC_GP);
    load_legacy(in->cpu, area, rfbm, bv);
    if (rfbm & RC_XCR0_AVX)
        load_ymm(in->cpu, area + RC_XSAVE_YMM_HIGH, bv);
    return BT_STEP_OK;
}
