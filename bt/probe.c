/* Which user pages the window shows: a guess that soft sites of user code make use of. */
#include <sys/mman.h>
#include "impl.h"

enum {
    PROBE_TOUCHES = 32, /* soft accesses that cost as much as an mmap and what follows from it */
    PROBE_TAGS = 127,   /* as many as leave an entry that is not BT_SHOWN_WRITE */
    YOUNG_KICKS = 3,    /* found running less often than that: a process that may be gone in a moment */
    PROBE_BYTES = SPT_MAX_SPACES * sizeof(struct bt_shown),
};

/*T:446 Probing before touching
 *
 * A soft site of user code need not call the interpreter for pages that the window shows already. So it first looks
 * into a table of the address space, which has an entry for each page: is this page believed to be there? If so it goes
 * on as if it were not soft at all. The table is a guess, kept right where that is cheap; when it is wrong, the window
 * faults as ever. A page that is not there is counted, in the same entry, and put there when it has been touched often
 * enough to be worth a host call: without a signal, since it is C that finds out. Some bits of the page's address in RAM
 * tell whether it is still the same one. Kick signals find the sites where time is spent: those need no probe.
 *
 * An entry for each page that there can be, since whatever is smaller has to forget; and a program that walks through
 * more than it remembers would be counted from the beginning for ever. It costs addresses only: of the two megabytes per
 * space the host gives what is touched, a page for 8 MiB, and a space that is recycled finds it there. Which
 * pieces are not all 0 is known, so that the end of a process clears those and no others.
 *
 * Not in a young address space, though: there kicks find the code that all short processes run, and no window lives
 * long enough to be worth its price. For the same reason a site becomes soft in a young space however many pages its
 * faults show: the dynamic linker meets whole files, sixteen pages at a time, of which it reads a few bytes.
:*/
int bt_probe_init(struct bt_vcpu *v, struct host_err *err)
{
    void *p =
        mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return host_fail(err, "no address space for the translator's tables: raise ulimit -v");
    madvise(p, PROBE_BYTES, MADV_NOHUGEPAGE); /* of each space's table a few pages are ever touched */
    v->shown_of = p;
    return 0;
}

/* No libc: the guest's vector registers may be in the CPU. */
static void clear(uint16_t *p, uint64_t n)
{
    __asm__ volatile("rep stosw" : "+D"(p), "+c"(n) : "a"(0) : "memory");
}

void bt_probe_finish(struct bt_vcpu *v)
{
    if (v->shown_of)
        munmap(v->shown_of, PROBE_BYTES);
}

/* From shadowpt: this part of a window shows less now. A process that ends has used a few pieces of its table. */
void bt_probe_less(struct bt_vcpu *v, unsigned space, uint32_t gva, uint32_t pages)
{
    uint16_t *table = v->shown_of[space].page;
    uint32_t at = gva / HOST_PAGE, end = pages < BT_SHOWN_PAGES - at ? at + pages : BT_SHOWN_PAGES, to;
    for (; at < end; at = to) {
        uint32_t piece = at / BT_SHOWN_PIECE;
        uint64_t *used = &v->shown_used[space][piece / 64], bit = UINT64_C(1) << piece % 64;
        to = (*used ? piece + 1 : (piece | 63) + 1) * BT_SHOWN_PIECE;
        if (to > end)
            to = end;
        if (!(*used & bit))
            continue;
        if (to - at == BT_SHOWN_PIECE)
            *used &= ~bit;
        clear(table + at, to - at);
    }
}

static uint16_t *entry_of(struct bt_vcpu *v, uint32_t gva)
{
    unsigned space = spt_user_space(v->spt);
    uint32_t page = gva / HOST_PAGE, piece = page / BT_SHOWN_PIECE;
    v->shown_used[space][piece / 64] |= UINT64_C(1) << piece % 64;
    return &v->shown_of[space].page[page];
}

/* The current user window grants this access now. */
void bt_probe_shown(struct bt_vcpu *v, uint32_t gva, bool write)
{
    uint16_t *e = entry_of(v, gva);
    if (write)
        *e = BT_SHOWN_WRITE;
    else if (*e < BT_SHOWN_READ)
        *e = BT_SHOWN_READ;
}

/* User code has touched this page by a callout; frame: identifies what is there, any number. True: for the first time.
 * It is worth a place in the window only to sites that would find it there. */
bool bt_probe_touched(struct bt_vcpu *v, uint32_t gva, uint32_t frame, bool write, bool probed)
{
    struct spt_info info;
    uint16_t *e = entry_of(v, gva), tag = (uint16_t)(frame % PROBE_TAGS * PROBE_TOUCHES);
    bool granted = spt_user_grants(v->spt, gva, write), news = false;
    if (!granted) {
        uint16_t shown = *e & BT_SHOWN_READ, touches = *e % PROBE_TOUCHES;
        news = !shown && (!touches || *e % BT_SHOWN_READ - touches != tag);
        touches = news ? 1 : (uint16_t)(touches + (touches < PROBE_TOUCHES - 1));
        *e = shown | tag | touches;
        if (probed && touches == PROBE_TOUCHES - 1)
            granted = spt_fault(v->spt, true, gva, SPT_USER | (write ? SPT_WRITE : 0), &info) == SPT_RETRY;
    }
    if (granted)
        bt_probe_shown(v, gva, write);
    return news;
}

static struct bt_age *aged(struct bt_vcpu *v)
{
    struct bt_age *s = &v->age[spt_user_space(v->spt)];
    uint64_t serial = spt_user_serial(v->spt);
    if (s->serial != serial) {
        s->serial = serial;
        s->kicks = 0;
    }
    return s;
}

bool bt_probe_young(struct bt_vcpu *v)
{
    return aged(v)->kicks < YOUNG_KICKS;
}

/* A kick has found this block running: its soft sites are worth windows. */
void bt_probe_sampled(struct bt_vcpu *v, uint32_t b)
{
    const struct bt_block *blk = &v->block[b];
    if (!(blk->mode & RC_MODE_USER))
        return;
    struct bt_age *age = aged(v);
    if (age->kicks < YOUNG_KICKS) {
        age->kicks++;
        return;
    }
    for (unsigned i = 0; i < blk->count; i++) {
        const struct bt_map *m = &v->map[blk->map + i];
        if (m->form != BT_FORM_SOFT)
            continue;
        bt_form_soft_hot(v, blk->gpa + m->guest_off);
        v->drop_block = b;
    }
}
