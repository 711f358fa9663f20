/* Memory through segment registers (5.3-5.5), and stack frames. */
#include "ring.h"

/* ---- Segment checks ---- */

static bool limit_allows(const struct rc_seg *s, uint32_t off, unsigned len)
{
    const uint32_t last = off + len - 1;
    if (last < off)
        return false;
    if ((s->attr & (RC_ATTR_CODE | RC_ATTR_E)) == RC_ATTR_E) /* expand-down data: valid above the limit */
        return off > s->limit && last <= rc_stack_mask(s);
    return last <= s->limit;
}

bool rc_seg_allows(const struct rc_seg *s, uint32_t off, unsigned len, bool write)
{
    const unsigned kind = s->attr & (RC_ATTR_CODE | RC_ATTR_W);
    if (!(s->attr & RC_ATTR_P)) /* a null selector */
        return false;
    if (write ? kind != RC_ATTR_W : kind == RC_ATTR_CODE)
        return false;
    return limit_allows(s, off, len);
}

static enum rc_result raise_segment(struct rc_cpu *cpu, unsigned seg)
{
    return rc_raise_error(cpu, seg == RC_SS ? RC_SSF : RC_GP, 0);
}

static enum rc_result linear_checked(struct rc_cpu *cpu, unsigned seg, uint32_t off, unsigned len, bool write,
                                     uint32_t *lin)
{
    const struct rc_seg *s = &cpu->seg[seg];
    /* Real mode looks at limits only: CS can be written through until the first far jump. */
    const bool allowed = cpu->cr0 & RC_CR0_PE ? rc_seg_allows(s, off, len, write) : limit_allows(s, off, len);
    if (!allowed)
        return raise_segment(cpu, seg);
    *lin = s->base + off;
    return RC_OK;
}

enum rc_result rc_linear(struct rc_cpu *cpu, unsigned seg, uint32_t off, unsigned len, bool write,
                         uint32_t *lin)
{
    const struct rc_seg *s = &cpu->seg[seg];
    if (RC_LIKELY(rc_is_flat(s) && off <= UINT32_MAX - (len - 1))) {
        *lin = s->base + off;
        return RC_OK;
    }
    return linear_checked(cpu, seg, off, len, write, lin);
}

/* ---- Loads and stores ---- */

static void copy_bytes(void *to, const void *from, unsigned len)
{
    if (len == 4) {
        rc_store32(to, rc_load32(from));
        return;
    }
    for (unsigned i = 0; i < len; i++)
        ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
}

static enum rc_result read_linear(struct rc_cpu *cpu, uint32_t lin, void *buf, unsigned len)
{
    const uint32_t access = rc_access(cpu->cpl);
    struct spt_info info;
    const void *p = spt_ptr(cpu->spt, lin, len, access);
    if (RC_LIKELY(p)) {
        copy_bytes(buf, p, len);
        return RC_OK;
    }
    if (spt_read(cpu->spt, lin, buf, len, access, &info))
        return RC_OK;
    return rc_raise_pf(cpu, &info);
}

static enum rc_result write_linear(struct rc_cpu *cpu, uint32_t lin, const void *buf, unsigned len)
{
    const uint32_t access = rc_access(cpu->cpl);
    struct spt_info info;
    void *p = spt_ptr(cpu->spt, lin, len, access | SPT_WRITE);
    if (RC_LIKELY(p)) {
        copy_bytes(p, buf, len);
        return RC_OK;
    }
    if (spt_write(cpu->spt, lin, buf, len, access, &info))
        return RC_OK;
    return rc_raise_pf(cpu, &info);
}

enum rc_result rc_read(struct rc_cpu *cpu, unsigned seg, uint32_t off, void *buf, unsigned len)
{
    uint32_t lin;
    if (rc_linear(cpu, seg, off, len, false, &lin) != RC_OK)
        return RC_FAULT;
    return read_linear(cpu, lin, buf, len);
}

enum rc_result rc_write(struct rc_cpu *cpu, unsigned seg, uint32_t off, const void *buf, unsigned len)
{
    uint32_t lin;
    if (rc_linear(cpu, seg, off, len, true, &lin) != RC_OK)
        return RC_FAULT;
    return write_linear(cpu, lin, buf, len);
}

enum rc_result rc_check_rmw(struct rc_cpu *cpu, unsigned seg, uint32_t off, unsigned len)
{
    struct spt_info info;
    uint32_t lin;
    /* What may be written may be read: there is no write-only segment and no write-only page. */
    if (rc_linear(cpu, seg, off, len, true, &lin) != RC_OK)
        return RC_FAULT;
    if (spt_ptr(cpu->spt, lin, len, rc_access(cpu->cpl) | SPT_WRITE))
        return RC_OK;
    if (spt_probe_write(cpu->spt, lin, len, rc_access(cpu->cpl), &info))
        return RC_OK;
    return rc_raise_pf(cpu, &info);
}

enum rc_result rc_push(struct rc_cpu *cpu, uint32_t value, unsigned size)
{
    const struct rc_seg *ss = &cpu->seg[RC_SS];
    const uint32_t sp = (cpu->gpr[RC_ESP] - size) & rc_stack_mask(ss);
    if (rc_write(cpu, RC_SS, sp, &value, size) != RC_OK)
        return RC_FAULT;
    cpu->gpr[RC_ESP] = rc_stack_merge(ss, cpu->gpr[RC_ESP], sp);
    return RC_OK;
}

enum rc_result rc_pop(struct rc_cpu *cpu, uint32_t *value, unsigned size)
{
    const struct rc_seg *ss = &cpu->seg[RC_SS];
    const uint32_t sp = cpu->gpr[RC_ESP] & rc_stack_mask(ss);
    uint32_t word = 0;
    if (rc_read(cpu, RC_SS, sp, &word, size) != RC_OK)
        return RC_FAULT;
    *value = word;
    cpu->gpr[RC_ESP] = rc_stack_merge(ss, cpu->gpr[RC_ESP], sp + size);
    return RC_OK;
}

/* ---- Instruction fetch ---- */

static bool fetch_within_page(struct rc_cpu *cpu, uint32_t lin, uint8_t *buf, unsigned len,
                              struct spt_info *info)
{
    const uint32_t access = rc_access(cpu->cpl) | SPT_EXEC;
    const void *p = spt_ptr(cpu->spt, lin, len, access);
    if (RC_LIKELY(p)) {
        copy_bytes(buf, p, len);
        return true;
    }
    return spt_read(cpu->spt, lin, buf, len, access, info);
}

unsigned rc_fetch(struct rc_cpu *cpu, uint32_t off, uint8_t *buf, unsigned want)
{
    const struct rc_seg *cs = &cpu->seg[RC_CS];
    struct spt_info info;

    if (off > cs->limit) {
        rc_raise_error(cpu, RC_GP, 0);
        return 0;
    }
    if (want - 1 > cs->limit - off)
        want = cs->limit - off + 1;

    const uint32_t lin = cs->base + off;
    const unsigned in_page = 4096 - (lin & 4095);
    const unsigned first = want < in_page ? want : in_page;
    if (!fetch_within_page(cpu, lin, buf, first, &info)) {
        rc_raise_pf(cpu, &info);
        return 0;
    }
    if (want > first && fetch_within_page(cpu, lin + first, buf + first, want - first, &info))
        return want;
    return first;
}

/* ---- Frames ---- */

bool rc_frame_place(struct rc_frame *f, const struct rc_seg *ss, uint32_t esp)
{
    const uint32_t mask = rc_stack_mask(ss);
    const uint32_t bytes = f->count * f->size;
    const uint32_t last = (esp - 1) & mask;

    f->low = (esp - bytes) & mask;
    f->wraps = last < f->low;
    if (RC_LIKELY(!f->wraps))
        return rc_is_flat(ss) || rc_seg_allows(ss, f->low, bytes, true);
    for (unsigned i = 1; i <= f->count; i++) /* each push is checked by itself */
        if (!rc_seg_allows(ss, (esp - i * f->size) & mask, f->size, true))
            return false;
    return true;
}

static void frame_store(const struct rc_frame *f, uint8_t *to)
{
    unsigned i = f->count;
    if (f->size == 4)
        for (; i-- > 0; to += 4)
            rc_store32(to, f->word[i]);
    else
        for (; i-- > 0; to += 2)
            rc_store16(to, (uint16_t)f->word[i]);
}

static enum rc_result frame_write_wrapped(struct rc_cpu *cpu, const struct rc_frame *f,
                                          const struct rc_seg *ss, uint32_t access)
{
    const uint32_t mask = rc_stack_mask(ss);
    struct spt_info info;

    for (unsigned i = 0; i < f->count; i++)
        if (!spt_probe_write(cpu->spt, ss->base + ((f->low + i * f->size) & mask), f->size, access, &info))
            return rc_raise_pf(cpu, &info);
    for (unsigned i = 0; i < f->count; i++)
        if (!spt_write(cpu->spt, ss->base + ((f->low + i * f->size) & mask), &f->word[f->count - 1 - i],
                       f->size, access, &info))
            return rc_raise_pf(cpu, &info);
    return RC_OK;
}

enum rc_result rc_frame_write(struct rc_cpu *cpu, const struct rc_frame *f, const struct rc_seg *ss,
                              uint32_t access)
{
    if (RC_UNLIKELY(f->wraps))
        return frame_write_wrapped(cpu, f, ss, access);

    const unsigned bytes = f->count * f->size;
    void *p = spt_ptr(cpu->spt, ss->base + f->low, bytes, access | SPT_WRITE);
    if (RC_LIKELY(p)) {
        frame_store(f, p);
        return RC_OK;
    }
    struct spt_info info;
    uint8_t image[RC_FRAME_MAX * 4];
    frame_store(f, image);
    if (spt_write(cpu->spt, ss->base + f->low, image, bytes, access, &info))
        return RC_OK;
    return rc_raise_pf(cpu, &info);
}

static void words_load(uint32_t *words, const uint8_t *from, unsigned count, unsigned size)
{
    if (size == 4)
        for (unsigned i = 0; i < count; i++)
            words[i] = rc_load32(from + 4 * i);
    else
        for (unsigned i = 0; i < count; i++)
            words[i] = rc_load16(from + 2 * i);
}

static enum rc_result peek_wrapped(struct rc_cpu *cpu, uint32_t sp, unsigned count, unsigned size,
                                   uint32_t *words)
{
    const uint32_t mask = rc_stack_mask(&cpu->seg[RC_SS]);
    for (unsigned i = 0; i < count; i++) {
        words[i] = 0;
        if (rc_read(cpu, RC_SS, (sp + i * size) & mask, &words[i], size) != RC_OK)
            return RC_FAULT;
    }
    return RC_OK;
}

enum rc_result rc_stack_peek(struct rc_cpu *cpu, uint32_t skip, unsigned count, unsigned size,
                             uint32_t *words)
{
    const struct rc_seg *ss = &cpu->seg[RC_SS];
    const uint32_t mask = rc_stack_mask(ss);
    const uint32_t sp = (cpu->gpr[RC_ESP] + skip) & mask;
    const unsigned bytes = count * size;
    uint32_t lin;

    if (RC_UNLIKELY(((sp + bytes - 1) & mask) < sp))
        return peek_wrapped(cpu, sp, count, size, words);
    if (rc_linear(cpu, RC_SS, sp, bytes, false, &lin) != RC_OK)
        return RC_FAULT;
    const void *p = spt_ptr(cpu->spt, lin, bytes, rc_access(cpu->cpl));
    if (RC_LIKELY(p)) {
        words_load(words, p, count, size);
        return RC_OK;
    }
    struct spt_info info;
    uint8_t image[RC_FRAME_MAX * 4];
    if (!spt_read(cpu->spt, lin, image, bytes, rc_access(cpu->cpl), &info))
        return rc_raise_pf(cpu, &info);
    words_load(words, image, count, size);
    return RC_OK;
}
