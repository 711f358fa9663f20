/*
 * The interpreter's instance and its cycle: find the instruction at CS:EIP, execute it, do what the
 * architecture does between two instructions.
 */
#include <stdlib.h>
#include "interp_impl.h"

int bt_interp_create(struct bt_interp **out, struct rc_cpu *cpu, const struct bt_ops *ops,
                     struct host_err *err)
{
    struct bt_interp *in = aligned_alloc(64, (sizeof *in + 63) & ~(size_t)63);
    if (!in)
        return host_fail(err, "no memory for the interpreter");
    __builtin_memset(in, 0, sizeof *in);
    in->cpu = cpu;
    in->ops = *ops;
    bt_decoder_init(&in->dec);
    in->cache = calloc((size_t)1 << BT_CACHE_BITS, sizeof in->cache[0]);
    if (!in->cache || bt_interp_fpu_init(in, err)) {
        int r = in->cache ? -1 : host_fail(err, "no memory for the interpreter's decode cache");
        free(in->cache);
        free(in);
        return r;
    }
    bt_interp_flush(in);
    *out = in;
    return 0;
}

void bt_interp_destroy(struct bt_interp *in)
{
    if (!in)
        return;
    bt_interp_fpu_finish(in);
    free(in->cache);
    free(in);
}

/* ---- The decode cache ---- */

/*T:370 The decode cache
 *
 * Decoding costs a hundred times what executing costs, so decoded instructions are kept, keyed by *physical*
 * address: a CR3 write forgets where pages are, not what is in them. shadowpt is asked to watch every page
 * that has a decoded instruction; when one is written, the page's generation moves on and all its entries are
 * stale at once. Generations are shared by pages 16 MiB apart, which costs a decode and never correctness.
 * An instruction that crosses into another page is not kept: it would have to watch two.
 :*/
static uint32_t *page_gen(struct bt_interp *in, uint64_t gpa)
{
    return &in->page_gen[(gpa >> 12) % BT_PAGE_GENS];
}

BT_INLINE struct bt_cached *cache_slot(struct bt_interp *in, uint64_t gpa)
{
    return &in->cache[(uint32_t)gpa * UINT32_C(0x9e3779b1) >> (32 - BT_CACHE_BITS)];
}

void bt_interp_code_write(struct bt_interp *in, uint64_t gpa, unsigned len)
{
    if (!len)
        return;
    uint64_t first = gpa >> 12, last = (gpa + len - 1) >> 12;
    for (uint64_t page = first; page <= last && page - first < BT_PAGE_GENS; page++)
        in->page_gen[page % BT_PAGE_GENS]++;
}

void bt_interp_fetch_gone(struct bt_interp *in)
{
    in->fetch_gen = (in->fetch_gen + 1) & 1023;
    for (unsigned n = 0; in->fetch_gen == 0 && n < BT_FETCH_SLOTS; n++)
        in->fetch[n].tag = 0;
}

BT_INLINE uint32_t fetch_tag(const struct bt_interp *in, uint32_t lin)
{
    return (lin & ~(HOST_PAGE - 1)) | in->fetch_gen << 2 | (in->cpu->cpl == 3) << 1 | 1;
}

void bt_interp_flush(struct bt_interp *in)
{
    bt_interp_fetch_gone(in);
    for (unsigned n = 0; n < BT_PAGE_GENS; n++)
        in->page_gen[n]++;
}

/* ---- Between instructions ---- */

static enum bt_step deliver(struct bt_interp *in)
{
    rc_deliver_fault(in->cpu);
    return BT_STEP_FAULT;
}

/* Everything but a plain success. */
static enum bt_step finish(struct bt_interp *in, enum bt_step step, uint32_t esp)
{
    if (step == BT_STEP_FAULT) {
        in->cpu->gpr[RC_ESP] = esp;
        return deliver(in);
    }
    if (step == BT_STEP_HALT)
        in->cpu->eip = in->next;
    return step;
}

BT_INLINE enum bt_step execute_plain(struct bt_interp *in, const struct bt_insn *i, bt_handler handler)
{
    struct rc_cpu *cpu = in->cpu;
    uint32_t esp = cpu->gpr[RC_ESP];
    cpu->irq_shadow = 0;
    in->next = cpu->eip + i->length;
    enum bt_step step = handler(in, i);
    if (BT_LIKELY(step == BT_STEP_OK)) {
        cpu->eip = in->next;
        return BT_STEP_OK;
    }
    return finish(in, step, esp);
}

enum { DR6_BS = 1 << 14 };

/* Enabled instruction breakpoints at this address (vol. 3 17.3.1.1). */
static uint32_t code_breakpoints(const struct rc_cpu *cpu)
{
    uint32_t hits = 0, lin = cpu->seg[RC_CS].base + cpu->eip;
    for (unsigned n = 0; n < 4; n++)
        if ((cpu->dr[7] >> (2 * n) & 3) && !(cpu->dr[7] >> (16 + 4 * n) & 3) && cpu->dr[n] == lin)
            hits |= 1u << n;
    return hits;
}

static enum bt_step debug_exception(struct bt_interp *in, uint32_t dr6)
{
    in->cpu->fault = (struct rc_fault){.vector = RC_DB, .dr6 = dr6};
    return deliver(in);
}

/* After an instruction, or an iteration of a string instruction, has completed: RF and debug traps. */
static enum bt_step after_debugged(struct bt_interp *in, enum bt_step step, bool tf)
{
    if (step == BT_STEP_FAULT || step == BT_STEP_UNSUPPORTED)
        return step;
    if (step != BT_STEP_PARTIAL && !in->keep_rf)
        in->cpu->eflags &= ~(uint32_t)RC_RF;
    uint32_t dr6 = in->db_hits | (tf && !in->no_trap ? DR6_BS : 0);
    if (!dr6)
        return step;
    in->cpu->halted = 0; /* a trap after HLT ends it at once */
    debug_exception(in, dr6);
    return step == BT_STEP_PARTIAL || in->cpu->shutdown ? BT_STEP_FAULT : BT_STEP_OK;
}

/* TF, RF, AC or an enabled breakpoint: what costs time is done only here. */
static enum bt_step execute_debugged(struct bt_interp *in, const struct bt_insn *i, bt_handler handler)
{
    struct rc_cpu *cpu = in->cpu;
    bool tf = cpu->eflags & RC_TF, held = cpu->irq_shadow && in->after_mov_ss;
    bool breakpoints = cpu->dr[7] & 0xff;
    uint32_t hits = breakpoints && !held && !(cpu->eflags & RC_RF) ? code_breakpoints(cpu) : 0;
    if (hits)
        return debug_exception(in, hits);
    in->careful = breakpoints || rc_alignment_checked(cpu);
    in->single = tf;
    in->no_trap = in->keep_rf = false;
    in->db_hits = 0;
    enum bt_step step = execute_plain(in, i, handler);
    in->careful = in->single = false;
    step = after_debugged(in, step, tf);
    in->db_hits = 0;
    return step;
}

BT_INLINE enum bt_step execute(struct bt_interp *in, const struct bt_insn *i, bt_handler handler)
{
    if (BT_UNLIKELY((in->cpu->eflags & (RC_TF | RC_RF | RC_AC)) | (in->cpu->dr[7] & 0xff)))
        return execute_debugged(in, i, handler);
    return execute_plain(in, i, handler);
}

/* ---- Fetching ---- */

/* Decode at CS:EIP. Only when the bytes at hand do not suffice is the next page touched. False: cpu->fault.
 */
static bool fetch_insn(struct bt_interp *in, uint32_t lin, bool big, struct bt_insn *insn)
{
    struct rc_cpu *cpu = in->cpu;
    uint8_t buf[BT_MAX_INSN];
    unsigned have = 0, want = HOST_PAGE - (lin & (HOST_PAGE - 1));
    enum bt_decode result;
    if (want > BT_MAX_INSN)
        want = BT_MAX_INSN;
    do {
        unsigned got = rc_fetch(cpu, cpu->eip + have, buf + have, want - have);
        if (!got)
            return false;
        have += got;
        if (have == want)
            want = BT_MAX_INSN;
        result = bt_decode(&in->dec, big, buf, have, insn);
    } while (result == BT_DECODE_SHORT && have < BT_MAX_INSN);
    if (result == BT_DECODE_OK)
        return true;
    if (result == BT_DECODE_UD)
        rc_raise(cpu, RC_UD);
    else
        rc_raise_error(cpu, RC_GP, 0);
    return false;
}

/* Keep what was decoded, if it lies in one page of RAM. */
static void remember(struct bt_interp *in, uint32_t lin, bool big, const struct bt_insn *insn,
                     bt_handler handler)
{
    struct rc_cpu *cpu = in->cpu;
    struct spt_info info;
    uint64_t gpa;
    unsigned space, user = cpu->cpl == 3;
    if ((lin & (HOST_PAGE - 1)) + insn->length > HOST_PAGE ||
        !spt_fetch(cpu->spt, lin, SPT_EXEC | (user ? SPT_USER : 0), &gpa, &space, &info) ||
        !spt_is_ram(cpu->spt, gpa))
        return;
    in->fetch[(lin >> 12) % BT_FETCH_SLOTS] =
        (struct bt_fetch){fetch_tag(in, lin), page_gen(in, gpa), gpa & ~(uint64_t)(HOST_PAGE - 1)};
    struct bt_cached *c = cache_slot(in, gpa);
    *c = (struct bt_cached){gpa, *page_gen(in, gpa), big, handler, *insn};
    spt_trace_code(cpu->spt, gpa);
}

static enum bt_step step_slow(struct bt_interp *in, uint32_t lin, bool big)
{
    /* an instruction breakpoint comes before any fault of the fetch (vol. 3 6.9) */
    struct rc_cpu *cpu = in->cpu;
    if (BT_UNLIKELY(cpu->dr[7] & 0xff) && !(cpu->eflags & RC_RF) && !(cpu->irq_shadow && in->after_mov_ss)) {
        uint32_t hits = code_breakpoints(cpu);
        if (hits)
            return debug_exception(in, hits);
    }
    if (!fetch_insn(in, lin, big, &in->scratch))
        return deliver(in);
    bt_handler handler = bt_interp_lookup(&in->scratch);
    if (!handler)
        return BT_STEP_UNSUPPORTED;
    remember(in, lin, big, &in->scratch, handler);
    return execute(in, &in->scratch, handler);
}

enum bt_step bt_interp_step(struct bt_interp *in)
{
    struct rc_cpu *cpu = in->cpu;
    const struct rc_seg *cs = &cpu->seg[RC_CS];
    uint32_t lin = cs->base + cpu->eip;
    bool big = cs->attr & RC_ATTR_DB;
    const struct bt_fetch *f = &in->fetch[(lin >> 12) % BT_FETCH_SLOTS];
    if (BT_LIKELY(f->tag == fetch_tag(in, lin))) {
        uint64_t gpa = f->gpa | (lin & (HOST_PAGE - 1));
        const struct bt_cached *c = cache_slot(in, gpa);
        if (BT_LIKELY(c->gpa == gpa && c->gen == *f->gen && c->big == big &&
                      (uint64_t)cpu->eip + c->insn.length - 1 <= cs->limit))
            return execute(in, &c->insn, c->handler);
    }
    return step_slow(in, lin, big);
}

enum bt_step bt_interp_insn(struct bt_interp *in, const struct bt_insn *insn)
{
    bt_handler handler = bt_interp_lookup(insn);
    return handler ? execute(in, insn, handler) : BT_STEP_UNSUPPORTED;
}
