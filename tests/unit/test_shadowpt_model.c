/* Unit test of shadowpt: a seeded random guest against a model. The guest edits its page tables (any size,
 * any alignment, through memory and by DMA), flushes or forgets to, switches address spaces, touches memory.
 * After every flush point each page that the host says is mapped must be justified by a walk of the page
 * tables as they are now: right frame, right view, no right too many, A and D set, no page table writable. So
 * must each translation handed out for execution that has not been taken back. */
#include "test_shadowpt_rig.h"

enum { RAM = 2 * MIB, FRAMES = RAM / PAGE };
enum { ROOTS = 4, TABLES = 8, FIRST_ROOT = 0x10, FIRST_TABLE = 0x20, CODE = 24 };
#define ALL (P | W | U | A | D)

struct fetched {
    bool valid;
    unsigned space;
    uint32_t gva;
    uint64_t gpa;
};

struct model {
    struct rig r;
    uint64_t seed;
    bool pae;
    unsigned root;
    struct fetched fetched[256];
    unsigned n_fetched;
    struct view view;
    uint64_t hidden, true_faults, pages_checked, mirrored;
    bool followed[16];
    unsigned ends[16]; /* gone since followed? */
};

static uint32_t rnd(struct model *m, uint32_t below)
{
    m->seed = m->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(m->seed >> 33) % below;
}

static void forget(struct rig *r, const struct gone *g)
{
    struct model *m = r->model;
    for (unsigned i = 0; i < m->n_fetched; ++i) {
        struct fetched *f = &m->fetched[i];
        if (f->space == g->space && f->gva >= g->gva && (f->gva - g->gva) / PAGE < g->pages)
            f->valid = false;
    }
}

/* A few page directories' worth of addresses in which collisions are likely: both halves of 4 MiB, several
 * slots. */
static uint32_t random_gva(struct model *m)
{
    static const uint32_t bases[] = {0x00000000, 0x00200000, 0x00400000, 0x40000000,
                                     0xC0000000, 0xC0200000, 0xFFE00000};
    return bases[rnd(m, 7)] + rnd(m, 3) * 0xFD000 + rnd(m, 8) * PAGE + rnd(m, PAGE - 16);
}

static uint64_t random_frame(struct model *m)
{
    switch (rnd(m, 12)) {
    case 0:
        return FIRST_TABLE + rnd(m, TABLES);
    case 1:
        return FIRST_ROOT + rnd(m, ROOTS);
    case 2:
        return FRAMES + rnd(m, 100); /* no RAM */
    case 3:
        return 0xA0 + rnd(m, 0x20);
    default:
        return 0x100 + rnd(m, 0x80);
    }
}

/* Mostly what a kernel writes, with a bit missing now and then; sometimes nonsense. */
static uint64_t random_bits(struct model *m)
{
    static const unsigned bits[] = {P, W, U, A, D};
    uint64_t e = rnd(m, 3) ? ALL : ALL & ~U;
    for (unsigned n = rnd(m, 3); n; --n)
        e &= ~(uint64_t)bits[rnd(m, 5)];
    if (m->pae && rnd(m, 8) == 0)
        e |= NX;
    if (rnd(m, 40) == 0)
        e |= UINT64_C(1) << (m->pae ? 36 + rnd(m, 27) : 12 + rnd(m, 20));
    return e;
}

static uint64_t random_pte(struct model *m)
{
    return random_frame(m) << 12 | random_bits(m);
}

static uint64_t random_pde(struct model *m)
{
    uint64_t bits = random_bits(m) | (rnd(m, 4) ? ALL : 0);
    if (rnd(m, 6) == 0)
        return bits | PS; /* all of RAM fits one large page */
    return (uint64_t)(FIRST_TABLE + rnd(m, TABLES)) << 12 | bits;
}

/* The memory address of an entry that some gva may use. */
static uint64_t random_entry_address(struct model *m, bool *is_pde)
{
    uint32_t gva = random_gva(m);
    unsigned size = m->pae ? 8 : 4, shift = m->pae ? 21 : 22, mask = m->pae ? 511 : 1023;
    *is_pde = rnd(m, 5) == 0;
    uint64_t page = *is_pde ? FIRST_ROOT + rnd(m, ROOTS) : FIRST_TABLE + rnd(m, TABLES);
    return page * PAGE + (gva >> (*is_pde ? shift : 12) & mask) * size;
}

static void guest_store(struct model *m, uint64_t gpa, const void *data, unsigned len)
{
    struct rig *r = &m->r;
    uint32_t alias = (m->pae ? 0x80E00000 : 0x80000000) +
                     (uint32_t)gpa; /* a linear map of RAM, if the guest did not break it */
    if (rnd(m, 2) && spt_write(r->s, alias, data, len, 0, &r->info))
        return;
    assert_true(spt_phys_write(r->s, gpa, data, len));
}

static void write_entry(struct model *m)
{
    bool is_pde;
    uint64_t at = random_entry_address(m, &is_pde), value = is_pde ? random_pde(m) : random_pte(m);
    guest_store(m, at, &value, m->pae ? 8 : 4);
}

static void edit(struct model *m)
{
    bool is_pde;
    uint64_t at = random_entry_address(m, &is_pde), value = is_pde ? random_pde(m) : random_pte(m);
    unsigned size = m->pae ? 8 : 4;
    uint64_t old = m->pae ? get64(&m->r, at) : get32(&m->r, at);
    switch (rnd(m, 8)) {
    case 0:
        guest_store(m, at + rnd(m, size), &value, 1);
        break;
    case 1:
        guest_store(m, at + 2, &value, 4);
        break;
    case 2:
        value = old & ~(uint64_t)(1 << rnd(m, 7)); /* take one bit */
        guest_store(m, at, &value, size);
        break;
    case 3:
        value = old | (uint64_t)(1 << rnd(m, 7));
        guest_store(m, at, &value, size);
        break;
    case 4:
        value = 0;
        guest_store(m, at, &value, 4); /* the half with P first */
        break;
    default:
        guest_store(m, at, &value, size);
    }
}

/* ---- The judgement ---- */

/* Entries in memory: with PAE the first level is a register. */
static bool is_table(const struct model *m, const struct spt_walk *w, uint64_t gpa)
{
    for (unsigned i = m->pae; i < w->levels; ++i)
        if (w->entry_gpa[i] / PAGE == gpa / PAGE)
            return true;
    return false;
}

static void judge_page(struct model *m, bool user_view, uint32_t gva, uint64_t gpa, bool writable)
{
    const struct spt_paging *p = spt_paging(m->r.s);
    struct spt_walk w;
    ++m->pages_checked;
    if (!spt_walk(&m->r.ram, p, gva, 0, &w))
        fail_msg("%08x is mapped, but not present", gva);
    if (w.gpa != gpa)
        fail_msg("%08x shows %" PRIx64 " instead of %" PRIx64, gva, gpa, w.gpa);
    assert_true(spt_is_ram(m->r.s, gpa));
    assert_int_equal(p->cr0 & PG && w.user, user_view);
    assert_true(w.accessed);
    if (!writable)
        return;
    assert_true(w.dirty);
    assert_true(w.writable || (!user_view && !(p->cr0 & WP)));
    if (is_table(m, &w, gpa))
        fail_msg("%08x: page table %" PRIx64 " is writable", gva, gpa);
}

static void judge_window(struct model *m, bool user_view)
{
    uint8_t *window = user_view ? spt_user_window(m->r.s) : spt_kernel_window(m->r.s);
    look(window, &m->view);
    for (unsigned i = 0; i < m->view.n; ++i)
        for (uint64_t gva = m->view.vma[i].gva; gva < m->view.vma[i].end; gva += PAGE)
            judge_page(m, user_view, (uint32_t)gva, m->view.vma[i].gpa + (gva - m->view.vma[i].gva),
                       m->view.vma[i].writable);
}

/* No page from which a mapping derives may be writable anywhere in view. */
static void judge_tables(struct model *m)
{
    static _Thread_local struct view other;
    const struct spt_paging *p = spt_paging(m->r.s);
    look(spt_kernel_window(m->r.s), &other);
    look(spt_user_window(m->r.s), &m->view);
    for (unsigned i = 0; i < m->view.n; ++i) {
        struct spt_walk w;
        assert_true(spt_walk(&m->r.ram, p, m->view.vma[i].gva, 0, &w));
        for (unsigned k = 0; k < other.n; ++k)
            for (unsigned l = m->pae; l < w.levels; ++l) {
                uint64_t table = w.entry_gpa[l] & ~UINT64_C(0xFFF), end = other.vma[k].end - other.vma[k].gva;
                assert_false(other.vma[k].writable && table >= other.vma[k].gpa &&
                             table < other.vma[k].gpa + end);
            }
    }
}

static void judge_fetches(struct model *m)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < m->n_fetched; ++i) {
        struct fetched f = m->fetched[i];
        if (!f.valid)
            continue;
        m->fetched[kept++] = f;
        if (f.space != SPT_KERNEL_SPACE && f.space != spt_user_space(m->r.s))
            continue; /* judged when its space is current again */
        struct spt_walk w;
        if (!spt_walk(&m->r.ram, spt_paging(m->r.s), f.gva, SPT_EXEC, &w))
            fail_msg("execution at %08x in space %u should have been taken back", f.gva, f.space);
        assert_int_equal(w.gpa, f.gpa);
        assert_int_equal((spt_paging(m->r.s)->cr0 & PG) && w.user, f.space != SPT_KERNEL_SPACE);
    }
    m->n_fetched = kept;
}

/* What a follower was told adds up to what the window shows, and to the fetches that still hold. */
static void judge_mirror(struct model *m)
{
    unsigned space = spt_user_space(m->r.s), pages = 0;
    if (space >= 16 || !m->followed[space] || m->r.mirror[space]->ends != m->ends[space])
        return;
    const struct mirror *mirror = m->r.mirror[space];
    look(spt_user_window(m->r.s), &m->view);
    for (unsigned i = 0; i < m->view.n; ++i)
        for (uint64_t gva = m->view.vma[i].gva; gva < m->view.vma[i].end; gva += PAGE, ++pages) {
            uint64_t gpa = m->view.vma[i].gpa + (gva - m->view.vma[i].gva),
                     prot = m->view.vma[i].writable ? 3 : 1;
            bool fetched = false;
            for (unsigned k = 0; k < m->n_fetched; ++k)
                fetched |= m->fetched[k].valid && m->fetched[k].space == space && m->fetched[k].gva == gva;
            if (mirror->page[gva / PAGE] != (gpa | prot | (fetched ? PROT_EXEC : 0)))
                fail_msg("%08" PRIx64 ": the follower has %" PRIx64 ", the window %" PRIx64 " prot %" PRIx64
                         "%s",
                         gva, mirror->page[gva / PAGE], gpa, prot, fetched ? ", fetched" : "");
        }
    assert_int_equal(mirror->shown, pages);
    m->mirrored += pages;
}

static void follow(struct model *m)
{
    unsigned space = spt_user_space(m->r.s);
    if (space == SPT_KERNEL_SPACE || space >= 16)
        return;
    m->followed[space] = rnd(m, 3) > 0;
    rig_user_reset(&m->r, space, false); /* a new follower knows nothing */
    m->ends[space] = m->r.mirror[space]->ends;
    spt_follow(m->r.s, space, m->followed[space]);
}

/* Doors after a flush: exactly what a walk says. */
static void judge_doors(struct model *m)
{
    for (unsigned i = 0; i < 4; ++i) {
        uint32_t gva = random_gva(m), access = rnd(m, 2) ? SPT_USER : 0, write = rnd(m, 2) ? SPT_WRITE : 0;
        struct spt_walk w;
        bool ok = spt_walk(&m->r.ram, spt_paging(m->r.s), gva, access | write, &w);
        uint8_t *p = spt_ptr(m->r.s, gva, 1, access | write);
        assert_true(!p || (ok && p == m->r.ram.base + w.gpa));
        if (!write)
            assert_int_equal(p != NULL, ok && spt_is_ram(m->r.s, w.gpa));
    }
}

static void judge(struct model *m)
{
    if (spt_kernel_window(m->r.s)) {
        judge_window(m, false);
        if (spt_user_window(m->r.s) != spt_kernel_window(m->r.s)) {
            judge_window(m, true);
            judge_tables(m);
            judge_mirror(m);
        }
    }
    judge_fetches(m);
    judge_doors(m);
}

/* ---- Accesses ---- */

static void touch(struct model *m)
{
    struct rig *r = &m->r;
    uint32_t gva = random_gva(m), access = (rnd(m, 2) ? SPT_WRITE : 0) | (rnd(m, 2) ? SPT_USER : 0);
    bool user_view = access & SPT_USER || rnd(m, 3) == 0;
    struct spt_walk before, after;
    bool ok = spt_walk(&r->ram, spt_paging(r->s), gva, access, &before);
    enum spt_outcome o = spt_fault(r->s, user_view, gva, access, &r->info);
    if (!ok) {
        assert_int_equal(o, SPT_TRUE_FAULT);
        assert_int_equal(r->info.pfec, before.pfec);
        ++m->true_faults;
        return;
    }
    assert_int_not_equal(o, SPT_TRUE_FAULT);
    if (!spt_kernel_window(r->s))
        return;
    assert_int_equal(o == SPT_DEVICE, !spt_is_ram(r->s, before.gpa));
    if (o != SPT_RETRY)
        return;
    ++m->hidden;
    struct seen seen = see(before.user ? spt_user_window(r->s) : spt_kernel_window(r->s), gva);
    assert_true(seen.mapped);
    assert_int_equal(seen.gpa, before.gpa);
    assert_true(seen.writable || !(access & SPT_WRITE));
    /* The access may have changed the page table it went through only in A and D; a shared entry may serve as
     * both. */
    if (!spt_walk(&r->ram, spt_paging(r->s), gva, access, &after))
        fail_msg("setting A and D made the page vanish");
    assert_true(after.accessed && (after.dirty || !(access & SPT_WRITE)));
}

static void fetch(struct model *m)
{
    struct rig *r = &m->r;
    uint32_t gva = random_gva(m), access = SPT_EXEC | (rnd(m, 2) ? SPT_USER : 0);
    struct fetched f = {.valid = true, .gva = gva & ~(PAGE - 1)};
    if (m->n_fetched == 256 || !spt_fetch(r->s, gva, access, &f.gpa, &f.space, &r->info))
        return;
    f.gpa &= ~UINT64_C(0xFFF);
    for (unsigned i = 0; i < m->n_fetched; ++i)
        if (m->fetched[i].valid && m->fetched[i].space == f.space && m->fetched[i].gva == f.gva &&
            m->fetched[i].gpa == f.gpa)
            return;
    m->fetched[m->n_fetched++] = f;
}

static void trace_code(struct model *m)
{
    uint64_t gpa = random_frame(m) * PAGE;
    spt_trace_code(m->r.s, gpa);
    if (!spt_is_ram(m->r.s, gpa) || !spt_kernel_window(m->r.s))
        return;
    for (unsigned v = 0; v < 2; ++v) {
        look(v ? spt_user_window(m->r.s) : spt_kernel_window(m->r.s), &m->view);
        for (unsigned i = 0; i < m->view.n; ++i) {
            uint64_t len = m->view.vma[i].end - m->view.vma[i].gva;
            assert_false(m->view.vma[i].writable && gpa >= m->view.vma[i].gpa &&
                         gpa < m->view.vma[i].gpa + len);
        }
    }
    if (rnd(m, 2))
        spt_untrace_code(m->r.s, gpa);
}

static void switch_root(struct model *m, unsigned root)
{
    uint32_t cr3 = m->pae ? 0xF000 + root * 32 : (FIRST_ROOT + root) * PAGE;
    uint64_t pdpte[4] = {0};
    m->root = root;
    if (m->pae)
        assert_true(spt_load_pdptes(&m->r.ram, cr3, pdpte));
    spt_set_cr3(m->r.s, cr3, pdpte);
}

/* A linear map of RAM at 80000000h in each root, so that stores reach the tables through the doors as well.
 * PAE: the quarters of each PDPT share directories in a way no sane guest would choose. */
static void put_linear_map(struct model *m)
{
    static const uint64_t large = PS | P | W | A | D;
    for (unsigned i = 0; i < ROOTS; ++i) {
        uint64_t root = (uint64_t)(FIRST_ROOT + i) * PAGE;
        for (unsigned k = 0; k < 4; ++k)
            put64(&m->r, 0xF000 + i * 32 + k * 8, ((FIRST_ROOT + (i + (k == 2)) % ROOTS) * PAGE) | P);
        guest_store(m, m->pae ? root + 7 * 8 : root + 512 * 4, &large, m->pae ? 8 : 4);
    }
}

static void set_mode(struct model *m)
{
    struct spt_paging p = {.cr0 = PE | (rnd(m, 8) ? PG : 0) | (rnd(m, 3) ? WP : 0),
                           .cr4 = rnd(m, 4) ? PSE : 0};
    m->pae = rnd(m, 2);
    p.nxe = rnd(m, 2);
    p.cr4 |= (m->pae ? PAE : 0) | (rnd(m, 2) ? PGE : 0);
    p.cr3 = m->pae ? 0xF000 : FIRST_ROOT * PAGE;
    for (unsigned i = 0; i < 1000; ++i) /* what the other mode left is nonsense in this one */
        write_entry(m);
    put_linear_map(m);
    if (m->pae)
        assert_true(spt_load_pdptes(&m->r.ram, p.cr3, p.pdpte));
    spt_set_paging(m->r.s, &p);
}

static void step(struct model *m)
{
    switch (rnd(m, 40)) {
    case 0:
        switch_root(m, rnd(m, ROOTS));
        judge(m);
        break;
    case 1:
        switch_root(m, m->root);
        judge(m);
        break;
    case 2: {
        uint32_t gva = random_gva(m);
        struct spt_walk w;
        spt_invlpg(m->r.s, gva);
        if (!spt_kernel_window(m->r.s))
            break;
        struct seen k = see(spt_kernel_window(m->r.s), gva), u = see(spt_user_window(m->r.s), gva);
        bool ok = spt_walk(&m->r.ram, spt_paging(m->r.s), gva, 0, &w);
        assert_true(!k.mapped || (ok && w.gpa == k.gpa));
        assert_true(!u.mapped || (ok && w.gpa == u.gpa));
        break;
    }
    case 3:
        if (rnd(m, 20) == 0) {
            set_mode(m);
            judge(m);
        }
        break;
    case 4:
        trace_code(m);
        if (rnd(m, 4) == 0)
            follow(m);
        break;
    case 5: {
        uint8_t zero[64] = {0};
        guest_store(m, (uint64_t)(FIRST_TABLE + rnd(m, TABLES)) * PAGE + rnd(m, 4000), zero, 1 + rnd(m, 64));
        break;
    }
    default:
        if (rnd(m, 3) == 0)
            rnd(m, 2) ? edit(m) : write_entry(m);
        else if (rnd(m, 3))
            touch(m);
        else
            fetch(m);
    }
}

static void run(uint64_t seed, unsigned steps, unsigned spaces, unsigned maps, bool no_windows)
{
    struct model *m = calloc(1, sizeof(*m));
    m->seed = seed;
    rig_init_with(&m->r, RAM, spaces, maps, no_windows);
    m->r.on_gone = forget;
    m->r.model = m;
    set_mode(m);
    for (unsigned i = 0; i < steps; ++i)
        step(m);
    if (!no_windows) /* the run must have been worth it */
        assert_true(m->hidden > steps / 100 && m->pages_checked > steps / 10 &&
                    m->true_faults > steps / 100 && m->mirrored > steps / 100);
    rig_finish(&m->r);
    free(m);
}

static unsigned steps_wanted(unsigned normally)
{
    const char *factor = getenv("SHADOWPT_MODEL_FACTOR"); /* for a long search by hand */
    return factor ? normally * (unsigned)atoi(factor) : normally;
}

static void plenty(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 6; ++seed)
        run(seed, steps_wanted(6000), 8, 4000, false);
}

static void two_spaces(void **state)
{
    (void)state;
    for (unsigned seed = 11; seed <= 13; ++seed)
        run(seed, steps_wanted(6000), 2, 4000, false);
}

static void few_mappings(void **state)
{
    (void)state;
    for (unsigned seed = 21; seed <= 23; ++seed)
        run(seed, steps_wanted(6000), 1, 1, false); /* raised to the least that can work */
}

static void doors_only(void **state)
{
    (void)state;
    for (unsigned seed = 31; seed <= 33; ++seed)
        run(seed, steps_wanted(20000), 3, 4000, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plenty),
        cmocka_unit_test(two_spaces),
        cmocka_unit_test(few_mappings),
        cmocka_unit_test(doors_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
