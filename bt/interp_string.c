/*
 * String instructions, their REP forms, and the page-wise fast path for block moves and fills.
 *
 * One iteration either completes with its registers updated or faults with nothing of it done, so that a
 * fault in the middle of a REP leaves the state the manual asks for (vol. 2 REP): the registers of the
 * iterations done, EIP still at the instruction.
 */
#include "interp_families.h"
#include "interp_flags.h"

/* Index and count registers are used in the address size. */
BT_INLINE uint32_t index_get(const struct bt_interp *in, const struct bt_insn *i, unsigned reg)
{
    return i->asz == 2 ? in->cpu->gpr[reg] & 0xffff : in->cpu->gpr[reg];
}

BT_INLINE void index_add(struct bt_interp *in, const struct bt_insn *i, unsigned reg, uint32_t by)
{
    bt_set_reg(in, reg, i->asz, in->cpu->gpr[reg] + by);
}

BT_INLINE void advance(struct bt_interp *in, const struct bt_insn *i, unsigned reg)
{
    index_add(in, i, reg, in->cpu->eflags & RC_DF ? -(uint32_t)i->opsize : i->opsize);
}

typedef bool iteration(struct bt_interp *in, const struct bt_insn *i);

static bool movs_one(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!bt_read(in, i->seg, index_get(in, i, RC_ESI), i->opsize, &v) ||
        !bt_write(in, RC_ES, index_get(in, i, RC_EDI), i->opsize, v))
        return false;
    advance(in, i, RC_ESI);
    advance(in, i, RC_EDI);
    return true;
}

static bool stos_one(struct bt_interp *in, const struct bt_insn *i)
{
    if (!bt_write(in, RC_ES, index_get(in, i, RC_EDI), i->opsize, bt_reg(in, RC_EAX, i->opsize)))
        return false;
    advance(in, i, RC_EDI);
    return true;
}

static bool lods_one(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t v;
    if (!bt_read(in, i->seg, index_get(in, i, RC_ESI), i->opsize, &v))
        return false;
    bt_set_reg(in, RC_EAX, i->opsize, v);
    advance(in, i, RC_ESI);
    return true;
}

static bool cmps_one(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t a, b;
    if (!bt_read(in, i->seg, index_get(in, i, RC_ESI), i->opsize, &a) ||
        !bt_read(in, RC_ES, index_get(in, i, RC_EDI), i->opsize, &b))
        return false;
    bt_do_sub(a, b, i->opsize, &in->cpu->eflags);
    advance(in, i, RC_ESI);
    advance(in, i, RC_EDI);
    return true;
}

static bool scas_one(struct bt_interp *in, const struct bt_insn *i)
{
    uint32_t b;
    if (!bt_read(in, RC_ES, index_get(in, i, RC_EDI), i->opsize, &b))
        return false;
    bt_do_sub(bt_reg(in, RC_EAX, i->opsize), b, i->opsize, &in->cpu->eflags);
    advance(in, i, RC_EDI);
    return true;
}

/* The destination is checked before the device is read: reading has side effects that a fault cannot undo. */
static bool ins_one(struct bt_interp *in, const struct bt_insn *i)
{
    uint16_t port = (uint16_t)in->cpu->gpr[RC_EDX];
    uint32_t off = index_get(in, i, RC_EDI);
    if (rc_check_io(in->cpu, port, i->opsize) != RC_OK || !bt_check_rmw(in, RC_ES, off, i->opsize))
        return false;
    bt_watch_io(in, port, i->opsize);
    if (!bt_write(in, RC_ES, off, i->opsize, in->ops.in(in->ops.ctx, port, i->opsize)))
        return false;
    advance(in, i, RC_EDI);
    return true;
}

static bool outs_one(struct bt_interp *in, const struct bt_insn *i)
{
    uint16_t port = (uint16_t)in->cpu->gpr[RC_EDX];
    uint32_t v;
    if (rc_check_io(in->cpu, port, i->opsize) != RC_OK ||
        !bt_read(in, i->seg, index_get(in, i, RC_ESI), i->opsize, &v))
        return false;
    bt_watch_io(in, port, i->opsize);
    in->ops.out(in->ops.ctx, port, i->opsize, v);
    advance(in, i, RC_ESI);
    return true;
}

/* May this REP go on to another iteration without a look at interrupts and traps? */
BT_INLINE bool must_stop(const struct bt_interp *in)
{
    return in->single || in->db_hits || in->cpu->request;
}

/* zf: -1 for no condition, else the ZF with which the repetition goes on. */
BT_INLINE enum bt_step repeat(struct bt_interp *in, const struct bt_insn *i, iteration *one, int zf)
{
    if (!i->rep && !i->repne)
        return one(in, i) ? BT_STEP_OK : BT_STEP_FAULT;
    while (index_get(in, i, RC_ECX)) {
        if (!one(in, i))
            return BT_STEP_FAULT;
        index_add(in, i, RC_ECX, UINT32_MAX);
        if (zf >= 0 && (int)(in->cpu->eflags >> 6 & 1) != zf)
            break;
        if (BT_UNLIKELY(must_stop(in)) && index_get(in, i, RC_ECX))
            return BT_STEP_PARTIAL;
    }
    return BT_STEP_OK;
}

/* ---- Pages at a time ---- */
BT_INLINE uint32_t page_rest(uint32_t off)
{
    return HOST_PAGE - (off & (HOST_PAGE - 1));
}

/* The host's own REP with the guest's element size, so that overlapping blocks repeat their pattern as they
 * do on hardware. */
static void host_movs(void *to, const void *from, uint32_t elements, unsigned size)
{
    uint64_t n = elements;
    if (size == 1)
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    else if (size == 2)
        __asm__ volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
    else
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void host_stos(void *to, uint32_t value, uint32_t elements, unsigned size)
{
    uint64_t n = elements;
    if (size == 1)
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(value) : "memory");
    else if (size == 2)
        __asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(value) : "memory");
    else
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(value) : "memory");
}

BT_INLINE uint32_t min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Moves (source set) or fills up to the next page boundary of either side. Returns elements done: 0 when the
 * one-by-one path must take over, at a page crossing, a device or a fault. */
static uint32_t block_chunk(struct bt_interp *in, const struct bt_insn *i, bool move)
{
    uint32_t esi = in->cpu->gpr[RC_ESI], edi = in->cpu->gpr[RC_EDI];
    uint32_t dst = edi + (uint32_t)in->cpu->seg[RC_ES].soft, src = esi + (uint32_t)in->cpu->seg[i->seg].soft;
    uint32_t bytes = move ? min32(page_rest(dst), page_rest(src)) : page_rest(dst);
    uint32_t n = min32(bytes / i->opsize, in->cpu->gpr[RC_ECX]);
    if (n == 0)
        return 0;
    const void *from = move ? bt_fast(in, i->seg, esi, n * i->opsize, SPT_READ) : NULL;
    if (move && !from)
        return 0;
    void *to = bt_fast(in, RC_ES, edi, n * i->opsize, SPT_WRITE);
    if (!to)
        return 0;
    if (move)
        host_movs(to, from, n, i->opsize);
    else
        host_stos(to, in->cpu->gpr[RC_EAX], n, i->opsize);
    in->cpu->gpr[RC_ECX] -= n;
    in->cpu->gpr[RC_EDI] += n * i->opsize;
    if (move)
        in->cpu->gpr[RC_ESI] += n * i->opsize;
    return n;
}

BT_INLINE enum bt_step repeat_block(struct bt_interp *in, const struct bt_insn *i, iteration *one, bool move)
{
    if (!(i->rep || i->repne) || i->asz == 2 || (in->cpu->eflags & RC_DF) || in->careful || in->single)
        return repeat(in, i, one, -1);
    while (in->cpu->gpr[RC_ECX]) {
        if (!block_chunk(in, i, move)) {
            if (!one(in, i))
                return BT_STEP_FAULT;
            in->cpu->gpr[RC_ECX]--;
        }
        if (BT_UNLIKELY(in->cpu->request) && in->cpu->gpr[RC_ECX])
            return BT_STEP_PARTIAL;
    }
    return BT_STEP_OK;
}

bool bt_interp_block(struct bt_interp *in, const struct bt_insn *i)
{
    bool move = (i->opcode & 0xfe) == 0xa4;
    while (in->cpu->gpr[RC_ECX])
        if (in->careful || must_stop(in) || !block_chunk(in, i, move))
            return false;
    return true;
}

enum bt_step bt_h_movs(struct bt_interp *in, const struct bt_insn *i)
{
    return repeat_block(in, i, movs_one, true);
}

enum bt_step bt_h_stos(struct bt_interp *in, const struct bt_insn *i)
{
    return repeat_block(in, i, stos_one, false);
}

enum bt_step bt_h_lods(struct bt_interp *in, const struct bt_insn *i)
{
    return repeat(in, i, lods_one, -1);
}

enum bt_step bt_h_cmps(struct bt_interp *in, const struct bt_insn *i)
{
    return repeat(in, i, cmps_one, i->rep);
}

enum bt_step bt_h_scas(struct bt_interp *in, const struct bt_insn *i)
{
    return repeat(in, i, scas_one, i->rep);
}

enum bt_step bt_h_ins(struct bt_interp *in, const struct bt_insn *i)
{
    return repeat(in, i, ins_one, -1);
}

enum bt_step bt_h_outs(struct bt_interp *in, const struct bt_insn *i)
{
    return repeat(in, i, outs_one, -1);
}
