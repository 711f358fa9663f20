/* The checked doors to guest memory, and the software TLB in front of them. */
#include "state.h"

/* ---- TLB ---- */

static void next_epoch(uint64_t *epoch, void *entries, unsigned long bytes)
{
    *epoch += UINT64_C(1) << 32;
    if (*epoch == 0) { /* after 2^32 flushes old tags would come true again */
        for (unsigned long i = 0; i < bytes; ++i)
            ((volatile uint8_t *)entries)[i] = 0;
        *epoch = UINT64_C(1) << 32;
    }
}

static void tlb_flush_kind(struct spt *s, unsigned kind)
{
    next_epoch(&s->tlb->epoch[kind], s->tlb->minus_tag[kind], sizeof(s->tlb->minus_tag[kind]));
}

static inline uint64_t tlb_tag(const struct spt *s, uint32_t gva, unsigned kind)
{
    return s->tlb->epoch[kind] + (gva >> PAGE_SHIFT);
}

void tlb_flush_writes(struct spt *s)
{
    /* trace_tlb shares the tags of writes: a page is in one or the other */
    for (unsigned user = 0; user < 2; ++user) {
        unsigned kind = TLB_WRITE | user * TLB_USER;
        tlb_flush_kind(s, kind);
        if (s->tlb->epoch[kind] == UINT64_C(1) << 32)
            for (unsigned i = 0; i < 64; ++i)
                s->trace_tlb[user][i].tag = 0;
    }
}

void tlb_flush_fetches(struct spt *s)
{
    next_epoch(&s->fetch_tag, s->fetch_tlb, sizeof(s->fetch_tlb));
}

void tlb_flush(struct spt *s)
{
    tlb_flush_kind(s, 0);
    tlb_flush_kind(s, TLB_USER);
    tlb_flush_writes(s);
    tlb_flush_fetches(s);
    if (s->tlb_large)
        for (unsigned i = 0; i < 32; ++i)
            s->large_at[i] = 0;
    s->tlb_large = false;
}

static void note_large(struct spt *s, uint32_t gva)
{
    s->tlb_large = true;
    s->large_at[gva >> 27] |= 1u << (gva >> 22 & 31);
}

/* Kernels map their own memory by large pages, which they never invalidate, and invalidate small ones all the time. */
static bool maybe_large(const struct spt *s, uint32_t gva)
{
    return s->large_at[gva >> 27] >> (gva >> 22 & 31) & 1;
}

void tlb_flush_page(struct spt *s, uint32_t gva)
{
    if (maybe_large(s, gva)) { /* the address may lie in a large page of which many entries are cached */
        tlb_flush(s);
        return;
    }
    unsigned page = gva >> PAGE_SHIFT;
    for (unsigned k = 0; k < TLB_KINDS; ++k)
        s->tlb->minus_tag[k][page % TLB_SIZE] = 0;
    for (unsigned user = 0; user < 2; ++user) {
        s->fetch_tlb[user][page % TLB_SIZE].tag = 0;
        s->trace_tlb[user][page % 64].tag = 0;
    }
}

static inline void *tlb_hit(const struct spt *s, uint32_t gva, unsigned len, unsigned kind)
{
    unsigned i = gva >> PAGE_SHIFT & (TLB_SIZE - 1);
    if (s->tlb->minus_tag[kind][i] + tlb_tag(s, gva, kind) != 0 || (gva & (PAGE_SIZE - 1)) + len > PAGE_SIZE)
        return NULL;
    return (uint8_t *)(uintptr_t)(s->tlb->addend[kind][i] + gva);
}

static void tlb_insert(struct spt *s, uint32_t gva, const struct spt_walk *w, unsigned kind)
{
    unsigned i = gva >> PAGE_SHIFT & (TLB_SIZE - 1);
    s->tlb->minus_tag[kind][i] = -tlb_tag(s, gva, kind);
    s->tlb->addend[kind][i] = (uint64_t)(uintptr_t)(s->ram->base + w->gpa) - gva;
}

/* Pages that may be written, but not through a pointer: traced ones, and devices. kind: one for writing. */
static inline const struct tlb_gpa *trace_hit(const struct spt *s, uint32_t gva, unsigned len, unsigned kind)
{
    const struct tlb_gpa *t = &s->trace_tlb[kind >> 1][gva >> PAGE_SHIFT & 63];
    return t->tag == tlb_tag(s, gva, kind) && len <= PAGE_SIZE - (gva & (PAGE_SIZE - 1)) ? t : NULL;
}

static void trace_insert(struct spt *s, uint32_t gva, const struct spt_walk *w, unsigned kind)
{
    s->trace_tlb[kind >> 1][gva >> PAGE_SHIFT & 63] =
        (struct tlb_gpa){tlb_tag(s, gva, kind), w->gpa & ~(uint64_t)(PAGE_SIZE - 1), 0};
}

/* After an access through walk w, whose A (and for writes D) bits are set. */
static void tlb_fill(struct spt *s, uint32_t gva, const struct spt_walk *w, uint32_t access)
{
    unsigned user = access & SPT_USER ? TLB_USER : 0;
    bool ram = frame_is_ram(s, w->gpa >> PAGE_SHIFT);
    if (s->paging_on && w->shift != PAGE_SHIFT)
        note_large(s, gva);
    if (ram)
        tlb_insert(s, gva, w, user);
    if (!(access & SPT_WRITE))
        return;
    if (ram && !s->phys[w->gpa >> PAGE_SHIFT].trace)
        tlb_insert(s, gva, w, user | TLB_WRITE);
    else
        trace_insert(s, gva, w, user | TLB_WRITE);
}

/* Known to be a device, or traced still: a page table that was given back is written by string stores next. */
static bool never_direct(const struct spt *s, uint32_t gva, uint32_t access)
{
    const struct tlb_gpa *t =
        (access & (SPT_WRITE | SPT_EXEC)) == SPT_WRITE ? trace_hit(s, gva, 1, access >> 1) : NULL;
    return t && (!frame_is_ram(s, t->gpa >> PAGE_SHIFT) || s->phys[t->gpa >> PAGE_SHIFT].trace);
}

static __attribute__((noinline)) void *ptr_miss(struct spt *s, uint32_t gva, unsigned len, uint32_t access)
{
    struct spt_walk w;
    if (never_direct(s, gva, access))
        return NULL;
    if (len > PAGE_SIZE || (gva & (PAGE_SIZE - 1)) + len > PAGE_SIZE ||
        !spt_walk(s->ram, &s->paging, gva, access, &w) || !frame_is_ram(s, w.gpa >> PAGE_SHIFT))
        return NULL;
    bool write = access & SPT_WRITE;
    if (write && s->phys[w.gpa >> PAGE_SHIFT].trace)
        return NULL;
    walk_set_accessed(s, &w, write);
    if (!(access & SPT_EXEC))
        tlb_fill(s, gva, &w, access);
    return s->ram->base + w.gpa;
}

void *spt_ptr(struct spt *s, uint32_t gva, unsigned len, uint32_t access)
{
    unsigned kind = access >> 1; /* SPT_WRITE, SPT_USER are TLB_WRITE, TLB_USER */
    if (kind < TLB_KINDS) {
        void *p = tlb_hit(s, gva, len, kind);
        if (p)
            return p;
    }
    return ptr_miss(s, gva, len, access);
}

void *spt_ptr_known(const struct spt *s, uint32_t gva, unsigned len, uint32_t access)
{
    return tlb_hit(s, gva, len, access >> 1);
}

/* ---- Linear doors ---- */

/* A door call is cut at page boundaries; all pieces are checked before the first byte moves. */
enum { DOOR_PAGES = 17, DOOR_MAX = (DOOR_PAGES - 1) * 4096 };
struct piece {
    struct spt_walk w;
    uint32_t gva;
    unsigned len;
};

static unsigned pieces_check(struct spt *s, uint32_t gva, unsigned len, uint32_t access, struct piece *out,
                             struct spt_info *info)
{
    unsigned n = 0;
    while (len) {
        unsigned room = PAGE_SIZE - (gva & (PAGE_SIZE - 1)), part = len < room ? len : room;
        struct piece *p = &out[n++];
        p->gva = gva;
        p->len = part;
        if (!spt_walk(s->ram, &s->paging, gva, access, &p->w)) {
            *info = (struct spt_info){.gva = gva, .pfec = p->w.pfec, .gpa = p->w.gpa};
            return 0;
        }
        gva += part; /* wraps at 4 GiB, as linear addresses do */
        len -= part;
    }
    for (unsigned i = 0; i < n; ++i) {
        walk_set_accessed(s, &out[i].w, access & SPT_WRITE);
        if (!(access & SPT_EXEC))
            tlb_fill(s, out[i].gva, &out[i].w, access);
    }
    return n;
}

/* Devices see 1, 2, 4 or 8 bytes; what else an instruction can ask for is cut. */
static unsigned device_part(uint64_t gpa, unsigned len)
{
    if (len == 1 || len == 2 || len == 4 || len == 8)
        return len;
    unsigned part = 8;
    while (part > len || (part > 1 && (gpa & (part - 1))))
        part /= 2;
    return part;
}

static void gpa_read(struct spt *s, uint64_t gpa, uint8_t *to, unsigned len)
{
    if (frame_is_ram(s, gpa >> PAGE_SHIFT)) {
        copy_bytes(to, s->ram->base + gpa, len);
        return;
    }
    while (len) {
        unsigned part = device_part(gpa, len);
        uint64_t v = s->cfg.ops.mmio_read(s->cfg.ops.ctx, gpa, part);
        copy_bytes(to, &v, part);
        gpa += part;
        to += part;
        len -= part;
    }
}

static void gpa_write(struct spt *s, uint64_t gpa, const uint8_t *from, unsigned len)
{
    if (frame_is_ram(s, gpa >> PAGE_SHIFT)) {
        trace_store(s, gpa, from, len);
        return;
    }
    while (len) {
        unsigned part = device_part(gpa, len);
        uint64_t v = 0;
        copy_bytes(&v, from, part);
        s->cfg.ops.mmio_write(s->cfg.ops.ctx, gpa, part, v);
        gpa += part;
        from += part;
        len -= part;
    }
}

static __attribute__((noinline)) bool read_slow(struct spt *s, uint32_t gva, uint8_t *to, unsigned len,
                                                uint32_t access, struct spt_info *info)
{
    struct piece p[DOOR_PAGES];
    while (len) {
        unsigned part = len < DOOR_MAX ? len : DOOR_MAX;
        unsigned n = pieces_check(s, gva, part, access, p, info);
        if (n == 0)
            return false;
        for (unsigned i = 0; i < n; ++i) {
            gpa_read(s, p[i].w.gpa, to, p[i].len);
            to += p[i].len;
        }
        gva += part;
        len -= part;
    }
    return true;
}

bool spt_read(struct spt *s, uint32_t gva, void *buf, unsigned len, uint32_t access, struct spt_info *info)
{
    access &= SPT_USER | SPT_EXEC;
    const void *p = access < SPT_EXEC && len <= PAGE_SIZE ? tlb_hit(s, gva, len, access >> 1) : NULL;
    if (!p)
        return read_slow(s, gva, buf, len, access, info);
    copy_bytes(buf, p, len);
    return true;
}

static __attribute__((noinline)) bool write_slow(struct spt *s, uint32_t gva, const uint8_t *from,
                                                 unsigned len, uint32_t access, struct spt_info *info)
{
    struct piece p[DOOR_PAGES];
    while (len) {
        unsigned part = len < DOOR_MAX ? len : DOOR_MAX;
        unsigned n = pieces_check(s, gva, part, access, p, info);
        if (n == 0)
            return false;
        for (unsigned i = 0; i < n; ++i) {
            gpa_write(s, p[i].w.gpa, from, p[i].len);
            from += p[i].len;
        }
        gva += part;
        len -= part;
    }
    return true;
}

bool spt_write(struct spt *s, uint32_t gva, const void *buf, unsigned len, uint32_t access,
               struct spt_info *info)
{
    access = (access & SPT_USER) | SPT_WRITE;
    unsigned kind = access >> 1;
    void *p = len <= PAGE_SIZE ? tlb_hit(s, gva, len, kind) : NULL;
    if (p) {
        copy_bytes(p, buf, len);
        return true;
    }
    const struct tlb_gpa *t = trace_hit(s, gva, len, kind);
    if (t) {
        gpa_write(s, t->gpa | (gva & (PAGE_SIZE - 1)), buf, len);
        return true;
    }
    return write_slow(s, gva, buf, len, access, info);
}

/* The page of a page table in high memory is at an address that was invalidated since its last use. */
static __attribute__((noinline)) bool entry_miss(struct spt *s, uint32_t gva)
{
    struct spt_walk w;
    if ((gva & (PAGE_SIZE - 1)) > PAGE_SIZE - 4 || !spt_walk(s->ram, &s->paging, gva, SPT_WRITE, &w) ||
        !frame_is_ram(s, w.gpa >> PAGE_SHIFT))
        return false;
    walk_set_accessed(s, &w, true);
    tlb_fill(s, gva, &w, SPT_WRITE);
    return true;
}

bool spt_write_entry(struct spt *s, uint32_t gva, uint32_t value)
{
    const struct tlb_gpa *t = NULL;
    void *p = tlb_hit(s, gva, sizeof(value), TLB_WRITE);
    if (!p && !(t = trace_hit(s, gva, sizeof(value), TLB_WRITE))) {
        if (!entry_miss(s, gva))
            return false;
        p = tlb_hit(s, gva, sizeof(value), TLB_WRITE);
        t = trace_hit(s, gva, sizeof(value), TLB_WRITE);
    }
    if (p) {
        copy_bytes(p, &value, sizeof(value));
        return true;
    }
    if (!t || s->expected.valid || !frame_is_ram(s, t->gpa >> PAGE_SHIFT))
        return false;
    uint32_t trace = s->phys[t->gpa >> PAGE_SHIFT].trace;
    if (!TRACE_PT(trace) || (trace & TRACE_CODE))
        return false;
    trace_store(s, t->gpa | (gva & (PAGE_SIZE - 1)), &value, sizeof(value));
    return true;
}

bool spt_probe_write(struct spt *s, uint32_t gva, unsigned len, uint32_t access, struct spt_info *info)
{
    struct piece p[DOOR_PAGES];
    access = (access & SPT_USER) | SPT_WRITE;
    if (len <= PAGE_SIZE && tlb_hit(s, gva, len, access >> 1))
        return true;
    while (len) {
        unsigned part = len < DOOR_MAX ? len : DOOR_MAX;
        if (!pieces_check(s, gva, part, access, p, info))
            return false;
        gva += part;
        len -= part;
    }
    return true;
}

/* ---- Fetch ---- */

static __attribute__((noinline)) bool fetch_slow(struct spt *s, uint32_t gva, uint32_t access, uint64_t *gpa,
                                                 unsigned *space, struct spt_info *info)
{
    struct spt_walk w;
    if (!spt_walk(s->ram, &s->paging, gva, (access & SPT_USER) | SPT_EXEC, &w)) {
        *info = (struct spt_info){.gva = gva, .pfec = w.pfec, .gpa = w.gpa};
        return false;
    }
    walk_set_accessed(s, &w, false);
    struct space *sp = s->paging_on && w.user ? s->cur : s->kernel;
    *gpa = w.gpa;
    *space = sp->number;
    if (s->paging_on && w.shift != PAGE_SHIFT)
        note_large(s, gva);
    if (fill_note_fetch(s, sp, gva, &w))
        s->fetch_tlb[!!(access & SPT_USER)][gva >> PAGE_SHIFT & (TLB_SIZE - 1)] = (struct tlb_gpa){
            s->fetch_tag | (gva & ~(PAGE_SIZE - 1)), w.gpa & ~(uint64_t)(PAGE_SIZE - 1), sp->number};
    return true;
}

bool spt_fetch(struct spt *s, uint32_t gva, uint32_t access, uint64_t *gpa, unsigned *space,
               struct spt_info *info)
{
    const struct tlb_gpa *t = &s->fetch_tlb[access >> 2 & 1][gva >> PAGE_SHIFT & (TLB_SIZE - 1)];
    if (t->tag != (s->fetch_tag | (gva & ~(PAGE_SIZE - 1))))
        return fetch_slow(s, gva, access, gpa, space, info);
    *gpa = t->gpa | (gva & (PAGE_SIZE - 1));
    *space = t->space;
    return true;
}

/* ---- Physical doors ---- */

static bool range_is_ram(const struct spt *s, uint64_t gpa, unsigned len)
{
    if (len == 0)
        return true;
    uint64_t last = gpa + len - 1;
    return last >= gpa && last < s->ram->size && (last < 0xA0000 || gpa >= 0xC0000);
}

bool spt_phys_write(struct spt *s, uint64_t gpa, const void *buf, unsigned len)
{
    if (!range_is_ram(s, gpa, len))
        return false;
    for (const uint8_t *from = buf; len;) {
        unsigned room = PAGE_SIZE - (unsigned)(gpa & (PAGE_SIZE - 1)), part = len < room ? len : room;
        trace_store(s, gpa, from, part);
        gpa += part;
        from += part;
        len -= part;
    }
    return true;
}

bool spt_phys_read(struct spt *s, uint64_t gpa, void *buf, unsigned len)
{
    if (!range_is_ram(s, gpa, len))
        return false;
    copy_bytes(buf, s->ram->base + gpa, len);
    return true;
}
