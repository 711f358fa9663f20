/* Descriptors and segment registers (3.4, 3.5, 5.2-5.7; vol. 2 MOV, POP, LDS). */
#include "ring.h"

/* ---- Descriptors in memory ---- */

enum rc_result rc_desc_read_at(struct rc_cpu *cpu, uint32_t lin, struct rc_desc *d)
{
    const uint8_t *p = spt_ptr(cpu->spt, lin, 8, SPT_READ);
    struct spt_info info;
    uint8_t image[8];

    if (RC_UNLIKELY(!p)) {
        if (!spt_read(cpu->spt, lin, image, 8, SPT_READ, &info))
            return rc_raise_pf(cpu, &info);
        p = image;
    }
    d->lo = rc_load32(p);
    d->hi = rc_load32(p + 4);
    d->lin = lin;
    return RC_OK;
}

enum rc_result rc_desc_read(struct rc_cpu *cpu, uint16_t selector, unsigned vector, unsigned ext,
                            struct rc_desc *d)
{
    uint32_t base = cpu->gdtr.base, limit = cpu->gdtr.limit;
    if (RC_UNLIKELY(selector & 4)) {
        const struct rc_seg *ldt = &cpu->seg[RC_LDTR];
        if (!(ldt->attr & RC_ATTR_P))
            return rc_raise_selector(cpu, vector, selector, ext);
        base = ldt->base;
        limit = ldt->limit;
    }
    if (RC_UNLIKELY((selector | 7u) > limit))
        return rc_raise_selector(cpu, vector, selector, ext);
    return rc_desc_read_at(cpu, base + (selector & 0xfff8), d);
}

enum rc_result rc_desc_mark_accessed(struct rc_cpu *cpu, struct rc_desc *d)
{
    if (RC_LIKELY(d->hi & RC_ATTR_A << 8))
        return RC_OK;

    struct spt_info info;
    const uint8_t byte = (uint8_t)(d->hi >> 8 | RC_ATTR_A);
    if (!spt_write(cpu->spt, d->lin + 5, &byte, 1, SPT_READ, &info))
        return rc_raise_pf(cpu, &info);
    d->hi |= RC_ATTR_A << 8;
    return RC_OK;
}

/* ---- Hidden parts ---- */

static uint64_t soft_of(const struct rc_seg *s)
{
    enum {
        MASK = RC_ATTR_P | RC_ATTR_S | RC_ATTR_CODE | RC_ATTR_E | RC_ATTR_W,
        WANT = RC_ATTR_P | RC_ATTR_S | RC_ATTR_W,
    };
    const bool odd = (s->attr & MASK) != WANT || s->limit != UINT32_MAX;
    return s->base | (odd ? RC_SOFT_ODD << 32 : 0);
}

static void seg_set(struct rc_seg *s, uint16_t selector, const struct rc_desc *d)
{
    s->base = rc_desc_base(d);
    s->limit = rc_desc_limit(d);
    s->selector = selector;
    s->attr = (uint16_t)rc_desc_attr(d);
    s->soft = soft_of(s);
}

void rc_seg_changed(struct rc_cpu *cpu, unsigned seg)
{
    cpu->seg[seg].soft = soft_of(&cpu->seg[seg]);
}

void rc_seg_fill(struct rc_cpu *cpu, unsigned seg, uint16_t selector, const struct rc_desc *d)
{
    seg_set(&cpu->seg[seg], selector, d);
}

void rc_seg_null(struct rc_cpu *cpu, unsigned seg, uint16_t selector)
{
    struct rc_seg *s = &cpu->seg[seg];
    s->base = s->limit = 0;
    s->selector = selector;
    s->attr = 0;
    s->soft = soft_of(s);
}

void rc_seg_real(struct rc_cpu *cpu, unsigned seg, uint16_t selector)
{
    enum { DATA = RC_ATTR_P | RC_ATTR_S | RC_ATTR_W | RC_ATTR_A, DPL3 = 3 << 5 };
    struct rc_seg *s = &cpu->seg[seg];
    s->selector = selector;
    s->base = (uint32_t)selector << 4;
    if (rc_is_v86(cpu)) {
        s->limit = 0xffff;
        s->attr = DATA | DPL3;
    } else if (seg == RC_CS || !(s->attr & RC_ATTR_P)) {
        s->attr = DATA; /* a real-mode load leaves the limit as it is ("unreal mode") */
    }
    s->soft = soft_of(s);
}

void rc_seg_drop_inner(struct rc_cpu *cpu)
{
    static const uint8_t data_segs[] = {RC_ES, RC_FS, RC_GS, RC_DS};
    for (unsigned i = 0; i < sizeof data_segs; i++) {
        const unsigned attr = cpu->seg[data_segs[i]].attr;
        if (rc_attr_dpl(attr) < cpu->cpl && !rc_attr_is_conforming(attr))
            rc_seg_null(cpu, data_segs[i], 0);
    }
}

/* ---- Loading ---- */

static enum rc_result load_stack_segment(struct rc_cpu *cpu, uint16_t selector)
{
    struct rc_desc d;
    if (rc_is_null(selector))
        return rc_raise_error(cpu, RC_GP, 0);
    if (rc_desc_read(cpu, selector, RC_GP, 0, &d) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(&d);
    if ((selector & 3) != cpu->cpl || !rc_attr_is_stack(attr) || rc_attr_dpl(attr) != cpu->cpl)
        return rc_raise_selector(cpu, RC_GP, selector, 0);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_SSF, selector, 0);
    if (rc_desc_mark_accessed(cpu, &d) != RC_OK)
        return RC_FAULT;
    rc_seg_fill(cpu, RC_SS, selector, &d);
    return RC_OK;
}

enum rc_result rc_general_load(struct rc_cpu *cpu, unsigned seg, uint16_t selector)
{
    struct rc_desc d;
    if (rc_is_null(selector)) {
        rc_seg_null(cpu, seg, selector);
        return RC_OK;
    }
    if (rc_desc_read(cpu, selector, RC_GP, 0, &d) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(&d), dpl = rc_attr_dpl(attr);
    if (!rc_attr_is_readable(attr))
        return rc_raise_selector(cpu, RC_GP, selector, 0);
    if (!rc_attr_is_conforming(attr) && ((selector & 3u) > dpl || cpu->cpl > dpl))
        return rc_raise_selector(cpu, RC_GP, selector, 0);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_NP, selector, 0);
    if (rc_desc_mark_accessed(cpu, &d) != RC_OK)
        return RC_FAULT;
    rc_seg_fill(cpu, seg, selector, &d);
    return RC_OK;
}

enum rc_result rc_load_seg(struct rc_cpu *cpu, unsigned seg, uint16_t selector)
{
    if (RC_UNLIKELY(!rc_is_protected(cpu))) {
        rc_seg_real(cpu, seg, selector);
        return RC_OK;
    }
    return seg == RC_SS                       ? load_stack_segment(cpu, selector)
           : rc_flat_load(cpu, seg, selector) ? RC_OK
                                              : rc_general_load(cpu, seg, selector);
}

/* ---- The stack of an inner ring ---- */

/* SS and ESP for cpl from the current TSS; a 16-bit TSS has 16-bit fields (7.2.1, 7.6). */
static enum rc_result read_tss_stack(struct rc_cpu *cpu, unsigned cpl, unsigned ext,
                                     struct rc_inner_stack *st)
{
    const struct rc_seg *tr = &cpu->seg[RC_TR];
    const bool is32 = tr->attr & RC_TYPE_IS32;
    const unsigned at = is32 ? cpl * 8 + 4 : cpl * 4 + 2, len = is32 ? 6 : 4;
    struct spt_info info;
    uint8_t image[8];

    if (!(tr->attr & RC_ATTR_P) || at + len - 1 > tr->limit)
        return rc_raise_selector(cpu, RC_TS, tr->selector, ext);
    const uint8_t *p = spt_ptr(cpu->spt, tr->base + at, len, SPT_READ);
    if (RC_UNLIKELY(!p)) {
        if (!spt_read(cpu->spt, tr->base + at, image, len, SPT_READ, &info))
            return rc_raise_pf(cpu, &info);
        p = image;
    }
    st->esp = is32 ? rc_load32(p) : rc_load16(p);
    st->selector = rc_load16(p + (is32 ? 4 : 2));
    return RC_OK;
}

enum rc_result rc_inner_stack_find(struct rc_cpu *cpu, unsigned cpl, unsigned ext, struct rc_inner_stack *st)
{
    if (read_tss_stack(cpu, cpl, ext, st) != RC_OK)
        return RC_FAULT;
    if (rc_is_null(st->selector))
        return rc_raise_error(cpu, RC_TS, ext);
    if (rc_desc_read(cpu, st->selector, RC_TS, ext, &st->desc) != RC_OK)
        return RC_FAULT;
    const unsigned attr = rc_desc_attr(&st->desc);
    if ((st->selector & 3) != cpl || rc_attr_dpl(attr) != cpl || !rc_attr_is_stack(attr))
        return rc_raise_selector(cpu, RC_TS, st->selector, ext);
    if (!(attr & RC_ATTR_P))
        return rc_raise_selector(cpu, RC_SSF, st->selector, ext);
    seg_set(&st->seg, st->selector, &st->desc);
    st->seg.attr |= RC_ATTR_A; /* the caller marks the descriptor once nothing else can fail */
    return RC_OK;
}
