/*
 * Direct execution, bt's part: which pages of user code may run natively, and where bt_run hands over to whoever runs
 * them. The answers of the scan are kept per physical page. A page that may run is traced like one that holds
 * translated code, so a store to it takes the answer back before it takes effect.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <x86intrin.h>
#include "impl.h"
#include "scan.h"

/* A page whose code is rewritten so often within a second or two is a JIT's: its stores cost least where bt knows each
 * block's bytes. A frame that becomes another page now and then is none. */
#define DIRECT_REVOKED_MAX  4u
#define DIRECT_PERIOD_SHIFT 32 /* of TSC ticks */
/* Linux lets no ordinary process map less (vm.mmap_min_addr): nothing can run natively down there. */
#define DIRECT_LOWEST 0x10000u

enum page_state { PAGE_UNKNOWN, PAGE_MAY_RUN, PAGE_REFUSED };
struct bt_direct_page {
    uint8_t state, needs;
    uint8_t revoked, when; /* so often within one period; which period that was */
};

struct bt_direct {
    struct bt_scan *scan;
    struct bt_direct_page *page; /* by guest frame number */
    uint32_t pages;
    bool on[SPT_MAX_SPACES];
    uint8_t paused[SPT_MAX_SPACES]; /* off until so many blocks have been translated */
    unsigned woken;                 /* a space whose pause is over, from the next hand-over on */
    bool always;                    /* what a new space is */
    bool step;                      /* the next instruction is the interpreter's */
    unsigned linger;                /* so often translated code goes on where it could be handed over */
    struct bt_scan_text text;
    struct bt_direct_counts counts;
};

static struct bt_direct_page *page_of(const struct bt_vcpu *v, uint64_t gpa)
{
    uint64_t gfn = gpa / HOST_PAGE;
    return v->direct && gfn < v->direct->pages ? &v->direct->page[gfn] : NULL;
}

static int direct_create(struct bt_vcpu *v, struct host_err *err)
{
    struct bt_direct *d = calloc(1, sizeof(*d));
    if (!d)
        return host_fail(err, "no memory for direct execution");
    d->pages = (uint32_t)(v->cfg.ram->size / HOST_PAGE);
    d->page = calloc(d->pages, sizeof(*d->page));
    d->scan = bt_scan_create();
    v->direct = d;
    if (d->page && d->scan)
        return 0;
    bt_direct_destroy(v);
    return host_fail(err, "no memory for direct execution");
}

void bt_direct_destroy(struct bt_vcpu *v)
{
    struct bt_direct *d = v->direct;
    v->direct = NULL;
    if (!d)
        return;
    if (d->scan)
        bt_scan_destroy(d->scan);
    free(d->page);
    free(d);
}

void bt_direct_reset(struct bt_vcpu *v)
{
    struct bt_direct *d = v->direct;
    if (!d)
        return;
    for (uint32_t i = 0; i < d->pages; i++)
        d->page[i] = (struct bt_direct_page){0, 0, 0, 0};
    for (unsigned i = 0; i < SPT_MAX_SPACES; i++) {
        d->on[i] = d->always;
        d->paused[i] = 0;
    }
    d->woken = 0;
    d->step = false;
    d->linger = 0;
}

const struct bt_direct_counts *bt_direct_stats(const struct bt_vcpu *v)
{
    return v->direct ? &v->direct->counts : NULL;
}

/* ---- Pages ---- */

/* What the guest's state grants now of what pages may need. */
unsigned bt_direct_grants(const struct bt_vcpu *v)
{
    enum { BMI = 1 << 3 | 1 << 8 }; /* BMI1 and BMI2 */
    bool tsc = !v->cpu.tsc_offset && !(v->cpu.cr4 & RC_CR4_TSD) && !v->cfg.clock->is_virtual;
    bool bmi = (v->cpu.config.feature7_ebx & BMI) == BMI;
    return (tsc ? BT_NEED_TSC : 0) | (v->cpu.avx ? BT_NEED_AVX : 0) | (bmi ? BT_NEED_BMI : 0);
}

static bool may_run(const struct bt_vcpu *v, const struct bt_direct_page *p)
{
    return p && p->state == PAGE_MAY_RUN && !(p->needs & ~bt_direct_grants(v));
}

static void trace_page(const struct bt_vcpu *v, uint64_t gpa, const char *what, const char *why)
{
    if (v->trace & BT_TRACE_DIRECT)
        fprintf(v->trace_out, "direct: page %08llx %s%s%s\n", (unsigned long long)(gpa & ~UINT64_C(0xfff)),
                what, *why ? ": " : "", why);
}

/* Blocks' first instructions, and what follows a block that came over from the page before. */
static void note_entries(const struct bt_vcpu *v, uint64_t gpa, uint64_t entry[64])
{
    for (uint32_t node = v->page_blocks[gpa / HOST_PAGE]; node;) {
        const struct bt_block *blk = &v->block[node / 2];
        bool tail = node % 2;
        uint64_t at = tail ? blk->gpa + blk->guest_len : blk->gpa;
        entry[at % HOST_PAGE / 64] |= UINT64_C(1) << at % 64;
        node = blk->in_page[tail].next;
    }
}

/* len bytes at gva, all in one page, without a trace of having looked. False: not there, or not RAM. */
static bool peek(const struct bt_vcpu *v, uint32_t gva, uint8_t *to, unsigned len)
{
    struct spt_walk w;
    if (!spt_walk(v->cfg.ram, spt_paging(v->spt), gva, SPT_USER, &w) || !spt_is_ram(v->spt, w.gpa))
        return false;
    for (unsigned i = 0; i < len; i++)
        to[i] = v->cfg.ram->base[w.gpa + i];
    return true;
}

static void gather(struct bt_vcpu *v, uint32_t gva, uint64_t gpa)
{
    struct bt_scan_text *t = &v->direct->text;
    uint32_t page = gva & ~(HOST_PAGE - 1);
    *t = (struct bt_scan_text){.has_before = false};
    t->has_before = peek(v, page - BT_SCAN_BEFORE, t->byte, BT_SCAN_BEFORE);
    t->has_after = peek(v, page + HOST_PAGE, t->byte + BT_SCAN_BEFORE + HOST_PAGE, BT_SCAN_AFTER);
    __builtin_memcpy(t->byte + BT_SCAN_BEFORE, v->cfg.ram->base + (gpa & ~(uint64_t)(HOST_PAGE - 1)),
                     HOST_PAGE);
    note_entries(v, gpa, t->entry);
    if (v->cpu.eip - page < HOST_PAGE)
        t->entry[v->cpu.eip % HOST_PAGE / 64] |= UINT64_C(1) << v->cpu.eip % 64;
}

/* no: what a page is that is refused. */
static void scan(struct bt_vcpu *v, uint32_t gva, uint64_t gpa, struct bt_direct_page *p, enum page_state no)
{
    struct bt_direct *d = v->direct;
    gather(v, gva, gpa);
    struct bt_verdict verdict = bt_scan_page(d->scan, &d->text);
    p->state = verdict.refused ? no : PAGE_MAY_RUN;
    p->needs = verdict.needs;
    d->counts.scanned++;
    if (verdict.refused) {
        d->counts.refused++;
        trace_page(v, gpa, "refused", verdict.reason);
        return;
    }
    d->counts.approved++;
    trace_page(v, gpa, "may run", "");
    spt_trace_code(v->spt, gpa);
    /* translated code may know ways into this page: from here on they lead back to bt_run */
    bt_jtab_flush(v, spt_user_space(v->spt));
    bt_hstack_reset(v);
    spt_follow_page(v->spt, gpa);
}

enum bt_direct_answer bt_direct_page(struct bt_vcpu *v, uint32_t gva, struct spt_info *info)
{
    uint64_t gpa;
    unsigned space;
    if (!spt_fetch(v->spt, gva, SPT_EXEC | SPT_USER, &gpa, &space, info))
        return BT_DIRECT_FAULT;
    struct bt_direct_page *p = page_of(v, gpa);
    if (gva < DIRECT_LOWEST || !p || !spt_is_ram(v->spt, gpa))
        return BT_DIRECT_NO;
    if (p->state == PAGE_UNKNOWN) {
        bt_fpu_park(v);
        scan(v, gva, gpa, p, PAGE_REFUSED);
    }
    return may_run(v, p) ? BT_DIRECT_YES : BT_DIRECT_NO;
}

bool bt_direct_ahead(struct bt_vcpu *v, uint32_t gva)
{
    struct spt_walk w;
    struct spt_info info;
    if (gva < DIRECT_LOWEST || !spt_walk(v->cfg.ram, spt_paging(v->spt), gva, SPT_EXEC | SPT_USER, &w) ||
        !w.accessed || !spt_is_ram(v->spt, w.gpa))
        return false;
    struct bt_direct_page *p = page_of(v, w.gpa);
    if (p && p->state == PAGE_UNKNOWN && !v->cpu.request) {
        bt_fpu_park(v);
        scan(v, gva, w.gpa, p, PAGE_UNKNOWN);
    }
    return may_run(v, p) && bt_direct_page(v, gva, &info) == BT_DIRECT_YES;
}

void bt_direct_revoke(struct bt_vcpu *v, uint64_t gpa)
{
    struct bt_direct_page *p = page_of(v, gpa);
    if (!p || p->state == PAGE_UNKNOWN)
        return;
    bool ran = p->state == PAGE_MAY_RUN;
    uint8_t now = (uint8_t)(__rdtsc() >> DIRECT_PERIOD_SHIFT);
    if (p->when != now)
        p->revoked = 0;
    p->when = now;
    p->revoked += p->revoked < DIRECT_REVOKED_MAX;
    p->state = p->revoked < DIRECT_REVOKED_MAX ? PAGE_UNKNOWN : PAGE_REFUSED;
    if (!ran)
        return;
    v->direct->counts.revoked++;
    trace_page(v, gpa, "written", p->state == PAGE_REFUSED ? "too often, it stays translated" : "");
    spt_follow_page(v->spt, gpa);
}

bool bt_direct_written(struct bt_vcpu *v, uint64_t gpa)
{
    uint64_t page = gpa & ~(uint64_t)(HOST_PAGE - 1);
    const struct bt_direct_page *p = page_of(v, gpa);
    if (!p || p->revoked >= DIRECT_REVOKED_MAX)
        return false;
    bt_interp_code_write(v->interp, page, HOST_PAGE);
    if (bt_cache_drop_range(v, page, HOST_PAGE)) /* revokes */
        spt_untrace_code(v->spt, page);
    return true;
}

/* Translated code has found a way into the page that the scan may not have known, and maybe enough of them. */
void bt_direct_block(struct bt_vcpu *v, const struct bt_block *b)
{
    struct bt_direct_page *p = page_of(v, b->gpa);
    unsigned space = spt_user_space(v->spt);
    if (v->direct && (b->mode & RC_MODE_USER) && v->direct->paused[space] && !--v->direct->paused[space])
        v->direct->woken = space;
    if (!p || p->state != PAGE_MAY_RUN)
        return;
    unsigned left = HOST_PAGE - b->gpa % HOST_PAGE;
    struct bt_verdict verdict =
        bt_scan_run(v->direct->scan, v->cfg.ram->base + b->gpa, b->guest_len < left ? b->guest_len : left);
    if (!verdict.refused && !(verdict.needs & ~p->needs))
        return;
    p->state = PAGE_REFUSED;
    v->direct->counts.refused++;
    trace_page(v, b->gpa, "refused after all", verdict.reason);
    spt_follow_page(v->spt, b->gpa);
}

/* ---- Where bt_run hands over ---- */

static void end_pause(struct bt_direct *d, unsigned space)
{
    d->paused[space] = 0;
    if (d->woken == space)
        d->woken = 0;
}

int bt_direct_space(struct bt_vcpu *v, unsigned space, bool on, struct host_err *err)
{
    if (!v->direct && direct_create(v, err))
        return -1;
    bool all = space == SPT_KERNEL_SPACE;
    v->direct->always = all ? on : v->direct->always;
    for (unsigned i = all ? 1 : space; i < (all ? SPT_MAX_SPACES : space + 1); i++) {
        v->direct->on[i] = on;
        end_pause(v->direct, i);
        bt_jtab_flush(v, i);
    }
    bt_hstack_reset(v);
    return 0;
}

void bt_direct_pause(struct bt_vcpu *v, unsigned space, uint8_t blocks)
{
    v->direct->on[space] = false;
    v->direct->paused[space] = blocks;
}

/* Not where the block was translated: there the tables are in use. */
static void wake(struct bt_vcpu *v)
{
    if (v->direct->woken == spt_user_space(v->spt))
        bt_direct_space(v, v->direct->woken, true, NULL); /* cannot fail: v->direct is there */
}

void bt_direct_step(struct bt_vcpu *v)
{
    v->direct->step = true;
}

/* A call to a page that stays translated calls thunks and stubs in others that need not, and returns soon. Handing over
 * for each of them would cost three crossings instead of one. */
void bt_direct_linger(struct bt_vcpu *v, unsigned transfers)
{
    if (v->direct)
        v->direct->linger = transfers;
}

bool bt_direct_stepping(struct bt_vcpu *v)
{
    bool step = v->direct->step;
    v->direct->step = false;
    return step;
}

bool bt_direct_wanted(struct bt_vcpu *v, uint32_t mode)
{
    struct spt_info info;
    if (v->direct->woken)
        wake(v);
    if (!(mode & RC_MODE_USER) || !v->direct->on[spt_user_space(v->spt)] || v->unchained ||
        !rc_direct_possible(&v->cpu) || bt_direct_page(v, v->cpu.eip, &info) != BT_DIRECT_YES)
        return false;
    if (!v->direct->linger)
        return true;
    v->direct->linger--;
    return false;
}

bool bt_direct_owns(const struct bt_vcpu *v, unsigned space, uint64_t gpa)
{
    return v->direct && v->direct->on[space] && may_run(v, page_of(v, gpa));
}

/* ---- What shadowpt tells a follower, on its way up ---- */

static bool same_right(const struct bt_vcpu *v, uint64_t a, uint64_t b)
{
    return may_run(v, page_of(v, a)) == may_run(v, page_of(v, b));
}

/* May run in the trap handler, where the vector registers are nobody's, and beside translated code, where they are the
 * guest's: keep them. */
static void keep_fpu(struct bt_vcpu *v, uint8_t image[RC_XSAVE_BYTES], bool back)
{
    if (!v->fpu_live)
        return;
    if (back)
        bt_fpu_load(v, image);
    else {
        for (unsigned n = RC_XSAVE_XSTATE_BV; n < RC_XSAVE_HEADER_END; n++)
            image[n] = 0;
        bt_fpu_store(v, image);
    }
}

void bt_direct_map(void *ctx, unsigned space, uint32_t gva, uint64_t gpa, uint64_t len, int prot)
{
    struct bt_vcpu *v = ctx;
    uint8_t image[RC_XSAVE_BYTES] __attribute__((aligned(64)));
    bt_fs_to_host(v);
    keep_fpu(v, image, false);
    for (uint64_t at = 0, end; at < len; at = end) {
        for (end = at + HOST_PAGE; end < len && (!(prot & PROT_EXEC) || same_right(v, gpa + at, gpa + end));)
            end += HOST_PAGE;
        bool runs = (prot & PROT_EXEC) && gva + at >= DIRECT_LOWEST && may_run(v, page_of(v, gpa + at));
        v->cfg.mem.user_map(v->cfg.mem.ctx, space, (uint32_t)(gva + at), gpa + at, end - at,
                            runs ? prot : prot & ~PROT_EXEC);
    }
    keep_fpu(v, image, true);
}

void bt_direct_unmap(void *ctx, unsigned space, uint32_t gva, uint64_t len)
{
    struct bt_vcpu *v = ctx;
    uint8_t image[RC_XSAVE_BYTES] __attribute__((aligned(64)));
    bt_fs_to_host(v);
    keep_fpu(v, image, false);
    v->cfg.mem.user_unmap(v->cfg.mem.ctx, space, gva, len);
    keep_fpu(v, image, true);
}

void bt_direct_dropped(void *ctx, unsigned space, bool gone)
{
    struct bt_vcpu *v = ctx;
    uint8_t image[RC_XSAVE_BYTES] __attribute__((aligned(64)));
    bt_fs_to_host(v);
    keep_fpu(v, image, false);
    if (gone && v->direct) {
        v->direct->on[space] = v->direct->always;
        end_pause(v->direct, space);
    }
    v->cfg.mem.user_reset(v->cfg.mem.ctx, space, gone);
    keep_fpu(v, image, true);
}
