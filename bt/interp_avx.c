/*
 * VEX-coded instructions that reach memory element by element: masked moves and gathers. They do not run as themselves,
 * because an element that is not selected must not be touched, and each of the others has a page of its own to miss.
 */
#include "interp_thunk.h"
#include "vex.h"

void bt_ymm_read(const struct rc_cpu *cpu, unsigned n, uint8_t out[32])
{
    __builtin_memcpy(out, cpu->fpu + BT_FX_XMM + 16 * n, 16);
    if (cpu->fpu[RC_XSAVE_XSTATE_BV] & RC_XCR0_AVX)
        __builtin_memcpy(out + 16, cpu->fpu + RC_XSAVE_YMM_HIGH + 16 * n, 16);
    else
        __builtin_memset(out + 16, 0, 16);
}

/* From here on the upper halves are in the image. */
static void ymm_present(struct rc_cpu *cpu)
{
    if (!(cpu->fpu[RC_XSAVE_XSTATE_BV] & RC_XCR0_AVX))
        __builtin_memset(cpu->fpu + RC_XSAVE_YMM_HIGH, 0, RC_XSAVE_BYTES - RC_XSAVE_YMM_HIGH);
    cpu->fpu[RC_XSAVE_XSTATE_BV] |= RC_XCR0_AVX;
}

static void ymm_write(struct rc_cpu *cpu, unsigned n, const uint8_t in[32])
{
    ymm_present(cpu);
    __builtin_memcpy(cpu->fpu + BT_FX_XMM + 16 * n, in, 16);
    __builtin_memcpy(cpu->fpu + RC_XSAVE_YMM_HIGH + 16 * n, in + 16, 16);
}

static bool is_256(const struct bt_vex *x)
{
    return x->tail & 4;
}

/* ---- VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ: a sign bit selects an element ---- */

static unsigned mask_element(const struct bt_insn *i)
{
    return i->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS || i->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD ? 4 : 8;
}

static bool masked_load(struct bt_interp *in, const struct bt_insn *i, const uint8_t *mask, unsigned len,
                        uint8_t *mem)
{
    unsigned size = mask_element(i);
    uint32_t off = bt_ea(in, i);
    for (unsigned n = 0; n < len; n += size)
        if ((mask[n + size - 1] & 0x80) && !bt_read_bytes(in, i->seg, off + n, mem + n, size))
            return false;
    return true;
}

static bool masked_check(struct bt_interp *in, const struct bt_insn *i, const uint8_t *mask, unsigned len)
{
    unsigned size = mask_element(i);
    uint32_t off = bt_ea(in, i);
    for (unsigned n = 0; n < len; n += size)
        if ((mask[n + size - 1] & 0x80) && !bt_check_rmw(in, i->seg, off + n, size))
            return false;
    return true;
}

static bool masked_write(struct bt_interp *in, const struct bt_insn *i, const uint8_t *mask, unsigned len,
                         const uint8_t *mem)
{
    unsigned size = mask_element(i);
    uint32_t off = bt_ea(in, i);
    for (unsigned n = 0; n < len; n += size)
        if ((mask[n + size - 1] & 0x80) && !bt_write_bytes(in, i->seg, off + n, mem + n, size))
            return false;
    return true;
}

enum bt_step bt_avx_masked(struct bt_interp *in, const struct bt_insn *i)
{
    const struct bt_vex x = bt_vex_get(i);
    unsigned slot, len = is_256(&x) ? 32 : 16;
    const struct bt_thunk *t = bt_thunk_get(in, i, &slot);
    uint8_t mask[32], *mem = in->fpu.buf;
    if (!t)
        return BT_STEP_UNSUPPORTED;
    bt_ymm_read(in->cpu, x.v, mask);
    __builtin_memset(mem, 0, 32);
    if (!(t->writes ? masked_check(in, i, mask, len) : masked_load(in, i, mask, len, mem)))
        return BT_STEP_FAULT;
    if (!bt_thunk_run(in, slot, mem))
        return bt_raise(in, RC_UD);
    return !t->writes || masked_write(in, i, mask, len, mem) ? BT_STEP_OK : BT_STEP_FAULT;
}

/* ---- Gathers ---- */

struct gather {
    uint8_t dst[32], mask[32], index[32];
    unsigned size, index_size, count;
};

static int64_t index_of(const struct gather *g, unsigned n)
{
    int32_t d;
    int64_t q;
    __builtin_memcpy(&d, g->index + 4 * n, 4);
    if (g->index_size == 4)
        return d;
    __builtin_memcpy(&q, g->index + 8 * n, 8);
    return q;
}

/* Elements in order; those done when one faults stay done, and their masks are clear (vol. 2 VPGATHERDD). */
static bool gather_elements(struct bt_interp *in, const struct bt_insn *i, struct gather *g)
{
    for (unsigned n = 0; n < g->count; n++) {
        uint8_t *m = g->mask + n * g->size;
        __builtin_memset(m, m[g->size - 1] & 0x80 ? 0xff : 0, g->size);
    }
    for (unsigned n = 0; n < g->count; n++) {
        uint8_t *m = g->mask + n * g->size;
        uint32_t off = bt_ea(in, i) + (uint32_t)((uint64_t)index_of(g, n) << (i->bytes[i->sib_off] >> 6));
        if (*m && !bt_read_bytes(in, i->seg, off, g->dst + n * g->size, g->size))
            return false;
        __builtin_memset(m, 0, g->size);
    }
    __builtin_memset(g->mask, 0, 32);
    __builtin_memset(g->dst + g->count * g->size, 0, 32 - g->count * g->size);
    return true;
}

enum bt_step bt_avx_gather(struct bt_interp *in, const struct bt_insn *i)
{
    const struct bt_vex x = bt_vex_get(i);
    unsigned index = i->bytes[i->sib_off] >> 3 & 7, vl = is_256(&x) ? 32 : 16;
    struct gather g = {.size = x.tail & 0x80 ? 8 : 4, .index_size = i->opcode & 1 ? 8 : 4};
    if (i->reg == x.v || i->reg == index || x.v == index)
        return bt_raise(in, RC_UD);
    g.count = vl / (g.size > g.index_size ? g.size : g.index_size);
    bt_ymm_read(in->cpu, i->reg, g.dst);
    bt_ymm_read(in->cpu, x.v, g.mask);
    bt_ymm_read(in->cpu, index, g.index);
    bool ok = gather_elements(in, i, &g);
    ymm_write(in->cpu, i->reg, g.dst);
    ymm_write(in->cpu, x.v, g.mask);
    return ok ? BT_STEP_OK : BT_STEP_FAULT;
}
