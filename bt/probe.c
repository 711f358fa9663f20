/* Which user pages the window shows: a guess that soft sites of user code make use of. */
#include <sys/mman.h>
#include "impl.h"

enum {
    PROBE_TOUCHES = 32, /* soft accesses that cost as much as an mmap and what follows from it */
    YOUNG_KICKS = 3,    /* found running less often than that: a process that may be gone in a moment */
    PROBE_BYTES = SPT_MAX_SPACES * sizeof(struct bt_shown),
};

/*T:446 Probing before touching
 *
 * A soft site of user code need not call the interpreter for pages that the window shows already. So it first looks
 * into a small table of the address space: is this page believed to be there? If so it goes on as if it were not soft
 * at all. The table is a guess, kept right where that is cheap; when it is wrong, the window faults as ever. A page that
 * is not there is counted, and put there when it has been touched often enough to be worth a host call: without a
 * signal, since it is C that finds out. Kick signals find the sites where time is spent: those need no probe.
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
    v->shown_of = p;
    return 0;
}

void bt_probe_finish(struct bt_vcpu *v)
{
    if (v->shown_of)
        munmap(v->shown_of, PROBE_BYTES);
}

static uint32_t *row_of(struct bt_vcpu *v, unsigned space, bool write, uint32_t page)
{
    return &v->shown_of[space].minus_page[write][page % BT_SHOWN_ROWS];
}

/* From shadowpt: this part of a window shows less now. */
void bt_probe_less(struct bt_vcpu *v, unsigned space, uint32_t gva, uint32_t pages)
{
    uint32_t first = gva / HOST_PAGE, rows = pages < BT_SHOWN_ROWS ? pages : BT_SHOWN_ROWS;
    for (uint32_t i = 0; i < rows; i++)
        *row_of(v, space, false, first + i) = *row_of(v, space, true, first + i) = 1; /* minus no page */
}

/* The current user window grants this access now. */
void bt_probe_shown(struct bt_vcpu *v, uint32_t gva, bool write)
{
    uint32_t page = gva / HOST_PAGE;
    unsigned space = spt_user_space(v->spt);
    *row_of(v, space, false, page) = 0u - page;
    if (write)
        *row_of(v, space, true, page) = 0u - page;
}

static bool worn(struct bt_vcpu *v, uint32_t gva)
{
    uint32_t page = gva / HOST_PAGE | spt_user_space(v->spt) << 20;
    unsigned row = (page ^ page >> 8 ^ page >> 20) % (sizeof v->young / sizeof *v->young);
    if (v->young[row].page != page) {
        v->young[row].page = page;
        v->young[row].touches = 0;
    }
    return ++v->young[row].touches >= PROBE_TOUCHES;
}

/* User code has touched this page by a callout. */
void bt_probe_touched(struct bt_vcpu *v, uint32_t gva, bool write)
{
    struct spt_info info;
    bool granted = spt_user_grants(v->spt, gva, write);
    if (!granted && worn(v, gva))
        granted = spt_fault(v->spt, true, gva, SPT_USER | (write ? SPT_WRITE : 0), &info) == SPT_RETRY;
    if (granted)
        bt_probe_shown(v, gva, write);
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
