/* The guest's CPU state as a world's hardware has it, and back. */
#include "ring.h"

/*T:540 A guest's segments in the host's LDT
 *
 * Natively, a memory access goes through the descriptor that the hardware loaded. The guest's tables cannot be given to
 * it; but any process may fill a local descriptor table of its own with ring 3 segments. What goes in there is not the
 * guest's GDT, but the *hidden halves* its six segment registers hold at this moment: a guest that changed a descriptor
 * after loading it goes on with the old one here as there. Few are in use at a time (flat code, flat data, one per
 * thread for thread-local storage), so each gets a slot and keeps it, and a switch between threads loads nothing new.
 *
 * The selectors' numbers are not the guest's, which only an instruction that reads or loads a segment register can tell.
 * The scan keeps those translated. Should one slip through, a register comes back with another selector than it went
 * in with: then it is loaded once more, from the guest's tables, as the guest meant it.
 :*/

/* Away from the numbers a guest's own LDT would have, and still within one page of descriptors. */
enum { FIRST_SLOT = 500 - RC_WORLD_SLOTS };

static const uint8_t user_segs[] = {RC_ES, RC_CS, RC_SS, RC_DS, RC_FS, RC_GS};

bool rc_direct_possible(const struct rc_cpu *cpu)
{
    enum {
        /* what a world's flags cannot be, or would show: translated code does these rare cases. AC: the host checks
         * alignment even if the guest's CR0.AM does not ask for it. */
        ODD_FLAGS = RC_TF | RC_IOPL | RC_VM | RC_AC | RC_VIF | RC_VIP,
        NEEDS_TRANSLATION = RC_MODE_INTERP | RC_MODE_FPU_TRAP | RC_MODE_NO_SSE,
    };
    return cpu->cpl == 3 && cpu->iflag && !cpu->irq_shadow && !(cpu->eflags & ODD_FLAGS) &&
           !(rc_mode(cpu) & NEEDS_TRANSLATION);
}

/* ---- Segments in ---- */

static bool same_segment(const struct host_world_segment *a, const struct host_world_segment *b)
{
    return a->base == b->base && a->limit == b->limit && a->type == b->type && a->big == b->big;
}

static struct host_world_segment segment_of(const struct rc_seg *s)
{
    unsigned type = s->attr & 15 & ~RC_ATTR_A;
    if (type & RC_ATTR_CODE)
        type &=
            ~RC_ATTR_E; /* conforming or not is a question of privilege, and the host refuses the former */
    return (struct host_world_segment){.base = s->base,
                                       .limit = s->limit,
                                       .type = (uint8_t)type,
                                       .present = true,
                                       .big = s->attr & RC_ATTR_DB};
}

/* The slot that holds this segment under this guest selector, or the one to put it in: the longest unused. */
static struct rc_world_slot *slot_for(struct rc_world *w, const struct host_world_segment *seg,
                                      uint16_t guest)
{
    struct rc_world_slot *oldest = &w->slot[0];
    for (unsigned i = 0; i < RC_WORLD_SLOTS; i++) {
        struct rc_world_slot *s = &w->slot[i];
        if (s->used && s->guest == guest && same_segment(&s->seg, seg))
            return s;
        if (s->used < oldest->used)
            oldest = s;
    }
    oldest->used = 0;
    oldest->seg = *seg;
    oldest->guest = guest;
    return oldest;
}

static bool enter_segment(struct rc_world *w, unsigned seg, const struct rc_seg *s, rc_world_install install,
                          void *ctx)
{
    w->sel[seg] = 0;
    if (!(s->attr & RC_ATTR_P))
        return true; /* a null selector */
    struct host_world_segment want = segment_of(s);
    struct rc_world_slot *slot = slot_for(w, &want, s->selector);
    unsigned index = FIRST_SLOT + (unsigned)(slot - w->slot);
    if (!slot->used && install(ctx, index, &want) != 0)
        return false;
    slot->used = ++w->clock;
    w->sel[seg] = HOST_WORLD_SELECTOR(index);
    return true;
}

/* ---- FPU: the layouts agree in the FXSAVE part; the header says what of it counts (SDM vol. 1 13.4.2) ---- */

enum {
    FPU_SHARED = 464, /* behind it software may keep what it wants, and the host's kernel does */
    FPU_HEADER = 512,
    FPU_MXCSR = 24,
    HAS_AVX = RC_XCR0_AVX,
    HAS_X87 = 1,
    HAS_SSE = 2,
    MXCSR_DEFINED = 0xffff,
};

static void fpu_enter(const struct rc_cpu *cpu, struct host_world_state *st)
{
    for (unsigned i = 0; i < HOST_WORLD_FPU_BYTES; i++)
        st->fpu[i] = 0;
    for (unsigned i = 0; i < FPU_SHARED; i++)
        st->fpu[i] = cpu->fpu[i];
    st->fpu[FPU_HEADER] = HAS_X87 | HAS_SSE;
    if (!rc_has_avx(&cpu->config) || !(cpu->fpu[RC_XSAVE_XSTATE_BV] & HAS_AVX))
        return;
    for (unsigned i = RC_XSAVE_YMM_HIGH; i < RC_XSAVE_BYTES; i++)
        st->fpu[i] = cpu->fpu[i];
    st->fpu[FPU_HEADER] |= HAS_AVX;
}

_Static_assert((int)RC_XSAVE_BYTES == (int)HOST_WORLD_FPU_BYTES, "one image, two owners");

/* What a world hands back may be forged: XMM and x87 registers may hold anything, MXCSR may not. */
static void fpu_leave(struct rc_cpu *cpu, const struct host_world_state *st)
{
    for (unsigned i = 0; i < FPU_SHARED; i++)
        cpu->fpu[i] = st->fpu[i];
    if (!(st->fpu[FPU_HEADER] & HAS_X87))
        rc_fpu_init_x87(cpu);
    if (!(st->fpu[FPU_HEADER] & HAS_SSE))
        for (unsigned i = 160; i < 416; i++) /* XMM0 to XMM15 */
            cpu->fpu[i] = 0;
    cpu->fpu[RC_XSAVE_XSTATE_BV] = HAS_X87 | HAS_SSE;
    if (rc_has_avx(&cpu->config) && (st->fpu[FPU_HEADER] & HAS_AVX)) {
        for (unsigned i = RC_XSAVE_YMM_HIGH; i < RC_XSAVE_BYTES; i++)
            cpu->fpu[i] = st->fpu[i];
        cpu->fpu[RC_XSAVE_XSTATE_BV] |= HAS_AVX;
    }
    rc_store32(cpu->fpu + FPU_MXCSR, rc_load32(cpu->fpu + FPU_MXCSR) & MXCSR_DEFINED);
}

/* ---- In and out ---- */

bool rc_world_enter(struct rc_cpu *cpu, struct rc_world *w, struct host_world_state *st,
                    rc_world_install install, void *ctx)
{
    if (w->clock > UINT32_MAX - 8) /* stamps would wrap: all slots count as old again */
        rc_world_init(w);
    for (unsigned i = 0; i < sizeof user_segs; i++) {
        if (!enter_segment(w, user_segs[i], &cpu->seg[user_segs[i]], install, ctx))
            return false;
        st->sel[user_segs[i]] = w->sel[user_segs[i]];
    }
    for (unsigned i = 0; i < 8; i++)
        st->gpr[i] = cpu->gpr[i];
    st->eip = cpu->eip;
    st->eflags = (cpu->eflags & (RC_ARITH | RC_DF | RC_NT | RC_ID)) | RC_IF | 2;
    fpu_enter(cpu, st);
    return true;
}

/* The guest's selector for what a register holds now: of one of ours its own, anything else it chose itself. */
static uint16_t guest_selector(const struct rc_world *w, uint16_t sel)
{
    unsigned slot = (sel >> 3) - FIRST_SLOT;
    return (sel & 7) == 7 && slot < RC_WORLD_SLOTS && w->slot[slot].used ? w->slot[slot].guest : sel;
}

enum rc_world_left rc_world_leave(struct rc_cpu *cpu, const struct rc_world *w,
                                  const struct host_world_state *st)
{
    enum { FROM_WORLD = RC_ARITH | RC_DF | RC_TF | RC_NT | RC_AC | RC_ID };
    enum rc_world_left left = RC_WORLD_SAME;
    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = st->gpr[i];
    cpu->eip = st->eip;
    rc_set_eflags(cpu, (st->eflags & FROM_WORLD) | RC_IF);
    fpu_leave(cpu, st);
    if (st->sel[RC_CS] != w->sel[RC_CS]) {
        rc_raise_error(cpu, RC_GP, st->sel[RC_CS] & 0xfffc);
        return RC_WORLD_FAULT;
    }
    for (unsigned i = 0; i < sizeof user_segs; i++) {
        unsigned seg = user_segs[i];
        if (st->sel[seg] == w->sel[seg])
            continue;
        if (rc_load_seg(cpu, seg, guest_selector(w, st->sel[seg])) != RC_OK)
            return RC_WORLD_FAULT;
        left = RC_WORLD_RELOADED;
    }
    return left;
}

void rc_world_init(struct rc_world *w)
{
    w->clock = 0;
    for (unsigned i = 0; i < RC_WORLD_SLOTS; i++)
        w->slot[i].used = 0;
}
