/* Unit test of shadowpt: the guest walker. Expected values are worked out from SDM vol. 3 chapter 4. */
#include "test_shadowpt_rig.h"

#define GVA 0x12345678u

static struct host_ram ram_make(void)
{
    struct host_ram ram;
    struct host_err err;
    assert_int_equal(host_ram_init(&ram, 1 * MIB, &err), 0);
    return ram;
}

static void set32(struct host_ram *ram, uint64_t gpa, uint32_t v)
{
    memcpy(ram->base + gpa, &v, 4);
}

static void set64(struct host_ram *ram, uint64_t gpa, uint64_t v)
{
    memcpy(ram->base + gpa, &v, 8);
}

/* gva 12345678: 32-bit PDE index 48h, PTE index 345h, offset 678h; PAE PDPTE 0, PDE 91h, PTE 145h. */
enum { CR3 = 0x1000, PDE32 = 0x1000 + 0x48 * 4, PTE32 = 0x2000 + 0x345 * 4 };
enum { PDEPAE = 0x3000 + 0x91 * 8, PTEPAE = 0x2000 + 0x145 * 8 };

enum mode { M32, M4M, MPAE, M2M, MODES };

static struct spt_paging mode_setup(struct host_ram *ram, enum mode m, uint64_t upper, uint64_t lower,
                                    bool nxe)
{
    struct spt_paging p = {.cr0 = PG | WP | PE, .cr3 = CR3, .nxe = nxe};
    switch (m) {
    case M32:
        set32(ram, PDE32, (uint32_t)(0x2000 | upper));
        set32(ram, PTE32, (uint32_t)(0x9000 | lower));
        break;
    case M4M:
        p.cr4 = PSE;
        set32(ram, PDE32, (uint32_t)(0x00800000 | PS | (upper & lower)));
        break;
    case MPAE:
    case M2M:
        p.cr4 = PAE;
        set64(ram, 0x1000, 0x3000 | P);
        set64(ram, PDEPAE,
              m == MPAE ? 0x2000 | upper : 0x00A00000 | PS | (upper & lower & 0xFFF) | (lower & NX));
        set64(ram, PTEPAE, 0x9000 | lower);
        assert_true(spt_load_pdptes(ram, CR3, p.pdpte));
        break;
    default:
        break;
    }
    return p;
}

static const uint64_t gpa_of_mode[MODES] = {0x9678, 0x00800000 + 0x345678, 0x9678, 0x00A00000 + 0x145678};

/* SDM 4.6.1 and 4.7: by the rights of the page, the error code of each access, or OK. */
enum { OK = -1 };
enum { SR, SW0, SW1, UR, UW, ACCESSES }; /* supervisor read, write with WP=0, with WP=1; user read, write */
static const uint32_t access_bits[ACCESSES] = {0, 2, 2, 4, 6};
static const int rights_rows[4][ACCESSES] = {
    /* U W     SR  SW0 SW1 UR  UW */
    /* 0 0 */ {OK, OK, 3, 5, 7},
    /* 0 1 */ {OK, OK, OK, 5, 7},
    /* 1 0 */ {OK, OK, 3, OK, 7},
    /* 1 1 */ {OK, OK, OK, OK, OK},
};
static const int absent_row[ACCESSES] = {0, 2, 2, 4, 6};
static const int reserved_row[ACCESSES] = {9, 11, 11, 13, 15};

static void expect(struct host_ram *ram, struct spt_paging p, unsigned column, int pfec, uint64_t gpa)
{
    struct spt_walk w;
    p.cr0 = column == SW0 ? p.cr0 & ~WP : p.cr0 | WP;
    bool ok = spt_walk(ram, &p, GVA, access_bits[column], &w);
    assert_int_equal(ok, pfec == OK);
    if (ok)
        assert_int_equal(w.gpa, gpa);
    else
        assert_int_equal(w.pfec, pfec);
}

static void rights_in_every_mode(void **state)
{
    (void)state;
    struct host_ram ram = ram_make();
    for (unsigned m = 0; m < MODES; ++m)
        for (unsigned bits = 0; bits < 16; ++bits) {
            uint64_t upper = P | (bits & 1 ? W : 0) | (bits & 2 ? U : 0);
            uint64_t lower = P | (bits & 4 ? W : 0) | (bits & 8 ? U : 0);
            struct spt_paging p = mode_setup(&ram, m, upper, lower, false);
            unsigned row = (upper & lower & U ? 2 : 0) | (upper & lower & W ? 1 : 0);
            for (unsigned c = 0; c < ACCESSES; ++c)
                expect(&ram, p, c, rights_rows[row][c], gpa_of_mode[m]);
        }
    host_ram_finish(&ram);
}

static void absent_at_every_level(void **state)
{
    (void)state;
    struct host_ram ram = ram_make();
    for (unsigned m = 0; m < MODES; ++m)
        for (unsigned c = 0; c < ACCESSES; ++c) {
            expect(&ram, mode_setup(&ram, m, W | U, P | W | U, false), c, absent_row[c], 0);
            expect(&ram, mode_setup(&ram, m, P | W | U, W | U, false), c, absent_row[c], 0);
            if (m >= MPAE) {
                struct spt_paging p = mode_setup(&ram, m, P | W | U, P | W | U, false);
                p.pdpte[0] &= ~UINT64_C(1);
                expect(&ram, p, c, absent_row[c], 0);
            }
        }
    host_ram_finish(&ram);
}

static void reserved_bits(void **state)
{
    (void)state;
    struct host_ram ram = ram_make();
    struct spt_paging p;
    uint64_t all = P | W | U;
    for (unsigned c = 0; c < ACCESSES; ++c) {
        for (unsigned bit = 17; bit <= 21; ++bit) { /* table 4-4 with PSE-36 and MAXPHYADDR 36 */
            p = mode_setup(&ram, M4M, all, all, false);
            set32(&ram, PDE32, 0x00800000u | PS | P | W | U | 1u << bit);
            expect(&ram, p, c, reserved_row[c], 0);
        }
        for (unsigned bit = 36; bit <= 63; ++bit) { /* tables 4-9, 4-10, 4-11; 63 because NXE is 0 */
            p = mode_setup(&ram, MPAE, all, all | UINT64_C(1) << bit, false);
            expect(&ram, p, c, reserved_row[c], 0);
            p = mode_setup(&ram, MPAE, all | UINT64_C(1) << bit, all, false);
            expect(&ram, p, c, reserved_row[c], 0);
        }
        for (unsigned bit = 13; bit <= 20; ++bit) {
            p = mode_setup(&ram, M2M, all, all, false);
            set64(&ram, PDEPAE, 0x00A00000 | PS | P | W | U | UINT64_C(1) << bit);
            expect(&ram, p, c, reserved_row[c], 0);
        }
        /* A not-present entry below a reserved bit is not looked at; a reserved bit in a not-present one is
         * none. */
        expect(&ram, mode_setup(&ram, MPAE, all | UINT64_C(1) << 40, 0, false), c, reserved_row[c], 0);
        expect(&ram, mode_setup(&ram, MPAE, all, UINT64_C(1) << 40, false), c, absent_row[c], 0);
    }
    host_ram_finish(&ram);
}

static void page_size_bit(void **state)
{
    (void)state;
    struct host_ram ram = ram_make();
    struct spt_walk w;
    /* CR4.PSE=0: PS is ignored in 32-bit paging, the entry points to a page table. */
    struct spt_paging p = mode_setup(&ram, M32, P | W | U | PS, P | W | U, false);
    assert_true(spt_walk(&ram, &p, GVA, 0, &w));
    assert_int_equal(w.gpa, 0x9678);
    assert_int_equal(w.shift, 12);
    p = mode_setup(&ram, M2M, P | W | U, P | W | U, false); /* PAE: PS counts whatever CR4.PSE is */
    assert_true(spt_walk(&ram, &p, GVA, 0, &w));
    assert_int_equal(w.shift, 21);
    assert_int_equal(w.levels, 2);
    p = mode_setup(&ram, M4M, P, P, false); /* PSE-36: bits 16:13 are address bits 35:32 */
    set32(&ram, PDE32, 0x00800000 | PS | P | 0xAu << 13);
    assert_true(spt_walk(&ram, &p, GVA, 0, &w));
    assert_int_equal(w.gpa, UINT64_C(0xA00B45678));
    assert_int_equal(w.shift, 22);
    host_ram_finish(&ram);
}

static void fetches(void **state)
{
    (void)state;
    struct host_ram ram = ram_make();
    struct spt_walk w;
    uint64_t all = P | W | U;
    static const struct {
        bool nxe;
        uint64_t upper, lower;
        uint32_t access;
        int pfec;
    } rows[] = {
        {true, P | W | U, P | W | U, SPT_EXEC, OK},
        {true, P | W | U, P | W | U | NX, SPT_EXEC, 0x11},
        {true, P | W | U | NX, P | W | U, SPT_EXEC, 0x11},
        {true, P | W | U | NX, P | W | U, SPT_EXEC | SPT_USER, 0x15},
        {true, P | W | U, P | W, SPT_EXEC | SPT_USER, 0x15},
        {true, P | W | U, 0, SPT_EXEC, 0x10},
        {true, P | W | U, 0, SPT_EXEC | SPT_USER, 0x14},
        {true, P | W | U, P | W | U | NX, 0, OK}, /* NX does not touch data accesses */
        {true, P | W | U, P | W | U | UINT64_C(1) << 40, SPT_EXEC, 0x19},
        {false, P | W | U, 0, SPT_EXEC, 0}, /* without NXE error codes have no I bit */
        {false, P | W | U, P | W, SPT_EXEC | SPT_USER, 5},
        {false, P | W | U, P | W | U | NX, SPT_EXEC, 9},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); ++i) {
        struct spt_paging p = mode_setup(&ram, MPAE, rows[i].upper, rows[i].lower, rows[i].nxe);
        bool ok = spt_walk(&ram, &p, GVA, rows[i].access, &w);
        assert_int_equal(ok, rows[i].pfec == OK);
        if (!ok)
            assert_int_equal(w.pfec, rows[i].pfec);
    }
    struct spt_paging p = mode_setup(&ram, M2M, all, all | NX, true);
    assert_false(spt_walk(&ram, &p, GVA, SPT_EXEC, &w));
    assert_int_equal(w.pfec, 0x11);
    p = mode_setup(&ram, M32, all, W | U, true); /* NXE without PAE: no NX, no I bit */
    assert_false(spt_walk(&ram, &p, GVA, SPT_EXEC | SPT_USER, &w));
    assert_int_equal(w.pfec, 4);
    host_ram_finish(&ram);
}

static void what_a_walk_reports(void **state)
{
    (void)state;
    struct host_ram ram = ram_make();
    struct spt_walk w;
    struct spt_paging p = mode_setup(&ram, M32, P | W | U | A, P | U | A | D | G, false);
    p.cr4 = PGE;
    assert_true(spt_walk(&ram, &p, GVA, 0, &w));
    assert_true(w.user && !w.writable && w.accessed && w.dirty && w.global && !w.nx);
    assert_int_equal(w.levels, 2);
    assert_int_equal(w.entry_gpa[0], PDE32);
    assert_int_equal(w.entry_gpa[1], PTE32);
    assert_int_equal(w.entry[1], 0x9000 | P | U | A | D | G);
    p.cr4 = 0;
    assert_true(spt_walk(&ram, &p, GVA, 0, &w));
    assert_false(w.global);
    p = mode_setup(&ram, M32, P | W | U, P | W | A,
                   false); /* A must be set at all levels; D is the last level's */
    assert_true(spt_walk(&ram, &p, GVA, 0, &w));
    assert_true(!w.accessed && !w.dirty && !w.user);
    p.cr0 = PE;
    assert_true(spt_walk(&ram, &p, GVA, SPT_WRITE | SPT_USER, &w));
    assert_int_equal(w.gpa, GVA);
    assert_int_equal(w.shift, 32);
    assert_int_equal(w.levels, 0);
    host_ram_finish(&ram);
}

/* Page tables beyond RAM, at its very end and in the VGA hole read as zero; nothing may crash. */
static void tables_that_are_not_in_ram(void **state)
{
    (void)state;
    struct host_ram ram = ram_make();
    struct spt_walk w;
    static const uint32_t roots[] = {0x100000, 0xFFFFF000, 0xFF000, 0xA0000, 0xBF000};
    memset(ram.base + 0xA0000, 0xFF, 0x20000);
    for (unsigned i = 0; i < sizeof(roots) / sizeof(roots[0]); ++i) {
        struct spt_paging p = {.cr0 = PG | WP | PE, .cr3 = roots[i]};
        assert_false(spt_walk(&ram, &p, 0xFFFFFFFF, SPT_WRITE, &w));
        assert_int_equal(w.pfec, 2);
        p.cr4 = PAE;
        p.pdpte[3] = UINT64_C(0xFFFFFF000) | P;
        assert_false(spt_walk(&ram, &p, 0xFFFFFFFF, SPT_WRITE, &w));
        assert_int_equal(w.pfec, 2);
    }
    host_ram_finish(&ram);
}

static void pdptes(void **state)
{
    (void)state;
    struct host_ram ram = ram_make();
    uint64_t out[4] = {7, 7, 7, 7};
    static const uint64_t bad[] = {2, 4, 0x20, 0x40, 0x80, 0x100, UINT64_C(1) << 36, UINT64_C(1) << 52, NX};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); ++i) {
        set64(&ram, 0x4038, 0x5000 | P | bad[i]);
        assert_false(spt_load_pdptes(&ram, 0x4020, out));
        assert_int_equal(out[0], 7); /* a refused load changes nothing */
        set64(&ram, 0x4038, bad[i]); /* not present: nothing is reserved */
        assert_true(spt_load_pdptes(&ram, 0x4020, out));
        assert_int_equal(out[3], bad[i]);
        out[0] = 7;
    }
    set64(&ram, 0x4020, 0x6000 | P | 0x18 | 0xE00); /* PWT, PCD and the ignored bits */
    assert_true(spt_load_pdptes(&ram, 0x403F & ~0x1Fu, out));
    assert_int_equal(out[0], 0x6E19);
    assert_true(spt_load_pdptes(&ram, 0xFFFFFFE0, out)); /* beyond RAM */
    assert_int_equal(out[0] | out[1] | out[2] | out[3], 0);
    host_ram_finish(&ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights_in_every_mode),
        cmocka_unit_test(absent_at_every_level),
        cmocka_unit_test(reserved_bits),
        cmocka_unit_test(page_size_bit),
        cmocka_unit_test(fetches),
        cmocka_unit_test(what_a_walk_reports),
        cmocka_unit_test(tables_that_are_not_in_ram),
        cmocka_unit_test(pdptes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
