/* A guest's memory with a shadow on top, for the tests of shadowpt: page tables are written by hand, and what
 * a window shows is asked of the host (/proc/self/maps), never of shadowpt. */
#ifndef TEST_SHADOWPT_RIG_H
#define TEST_SHADOWPT_RIG_H

#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "shadowpt/shadowpt.h"

enum { P = 1, W = 2, U = 4, A = 32, D = 64, PS = 128, G = 256 };
#define NX   (UINT64_C(1) << 63)
#define PG   (1u << 31)
#define WP   (1u << 16)
#define PE   1u
#define PSE  (1u << 4)
#define PAE  (1u << 5)
#define PGE  (1u << 7)
#define PAGE 4096u
#define MIB  (1u << 20)

struct gone {
    unsigned space;
    uint32_t gva, pages;
};

struct rig {
    struct host_ram ram;
    struct host_counts host;
    struct spt *s;
    struct spt_info info;
    struct gone gone[64];
    unsigned n_gone;
    uint64_t less; /* pages told to user_less */
    uint64_t code_gpa;
    unsigned code_len, n_code;
    bool untrace_on_write;
    uint64_t mmio_gpa[16], mmio_value[16];
    unsigned mmio_len[16], n_mmio;
    void (*on_gone)(struct rig *r, const struct gone *g);
    struct mirror *mirror[16]; /* by space: what the ops.user_* calls add up to */
    void *model;
};

/* A follower's copy of a user window: gpa | prot of each page, 0: nothing. */
struct mirror {
    uint64_t page[1u << 20];
    unsigned shown, resets, ends;
};

static struct mirror *rig_mirror(struct rig *r, unsigned space)
{
    assert_true(space > 0 && space < 16);
    if (!r->mirror[space])
        r->mirror[space] = calloc(1, sizeof(struct mirror));
    return r->mirror[space];
}

static void mirror_set(struct mirror *m, uint32_t page, uint64_t value)
{
    m->shown = m->shown + !!value - !!m->page[page];
    m->page[page] = value;
}

static void rig_user_map(void *ctx, unsigned space, uint32_t gva, uint64_t gpa, uint64_t len, int prot)
{
    assert_true(gva % PAGE == 0 && gpa % PAGE == 0 && len % PAGE == 0 && len > 0 &&
                gva + len <= HOST_WINDOW_SIZE);
    for (uint64_t at = 0; at < len; at += PAGE)
        mirror_set(rig_mirror(ctx, space), (uint32_t)((gva + at) / PAGE), (gpa + at) | (unsigned)prot);
}

static void rig_user_less(void *ctx, unsigned space, uint32_t gva, uint32_t pages)
{
    struct rig *r = ctx;
    (void)space;
    (void)gva;
    r->less += pages;
}

static void rig_user_unmap(void *ctx, unsigned space, uint32_t gva, uint64_t len)
{
    for (uint64_t at = 0; at < len; at += PAGE)
        mirror_set(rig_mirror(ctx, space), (uint32_t)((gva + at) / PAGE), 0);
}

static void rig_user_reset(void *ctx, unsigned space, bool gone)
{
    struct mirror *m = rig_mirror(ctx, space);
    for (uint32_t page = 0; m->shown; ++page)
        mirror_set(m, page, 0);
    ++m->resets;
    m->ends += gone;
}

static uint64_t rig_mmio_read(void *ctx, uint64_t gpa, unsigned len)
{
    struct rig *r = ctx;
    unsigned i = r->n_mmio++ % 16;
    r->mmio_gpa[i] = gpa;
    r->mmio_len[i] = len;
    return UINT64_C(0x8877665544332211);
}

static void rig_mmio_write(void *ctx, uint64_t gpa, unsigned len, uint64_t value)
{
    struct rig *r = ctx;
    unsigned i = r->n_mmio++ % 16;
    r->mmio_gpa[i] = gpa;
    r->mmio_len[i] = len;
    r->mmio_value[i] = value;
}

static void rig_code_write(void *ctx, uint64_t gpa, unsigned len)
{
    struct rig *r = ctx;
    r->code_gpa = gpa;
    r->code_len = len;
    ++r->n_code;
    if (r->untrace_on_write)
        spt_untrace_code(r->s, gpa);
}

static void rig_fetch_gone(void *ctx, unsigned space, uint32_t gva, uint32_t pages)
{
    struct rig *r = ctx;
    struct gone g = {space, gva, pages};
    r->gone[r->n_gone++ % 64] = g;
    if (r->on_gone)
        r->on_gone(r, &g);
}

static inline void rig_init_with(struct rig *r, uint64_t ram, unsigned spaces, unsigned maps, bool no_windows)
{
    struct host_err err = {""};
    memset(r, 0, sizeof(*r));
    if (host_ram_init(&r->ram, ram, &err) != 0)
        fail_msg("%s", err.text);
    struct spt_config cfg = {
        .ram = &r->ram,
        .counts = &r->host,
        .ops = {r, rig_mmio_read, rig_mmio_write, rig_code_write, rig_fetch_gone, rig_user_less, rig_user_map,
                rig_user_unmap, rig_user_reset},
        .max_user_spaces = spaces,
        .max_maps = maps,
        .no_windows = no_windows,
    };
    if (spt_create(&r->s, &cfg, &err) != 0)
        fail_msg("%s", err.text);
}

static inline void rig_init(struct rig *r)
{
    rig_init_with(r, 16 * MIB, 8, 4000, false);
}

static inline void rig_finish(struct rig *r)
{
    spt_destroy(r->s);
    for (unsigned i = 0; i < 16; ++i)
        free(r->mirror[i]);
    host_ram_finish(&r->ram);
}

/* Guest stores that no trace sees: before paging is on, or to pages not yet used. */
static inline void put32(struct rig *r, uint64_t gpa, uint32_t v)
{
    memcpy(r->ram.base + gpa, &v, 4);
}

static inline void put64(struct rig *r, uint64_t gpa, uint64_t v)
{
    memcpy(r->ram.base + gpa, &v, 8);
}

static inline uint32_t get32(const struct rig *r, uint64_t gpa)
{
    uint32_t v;
    memcpy(&v, r->ram.base + gpa, 4);
    return v;
}

static inline uint64_t get64(const struct rig *r, uint64_t gpa)
{
    uint64_t v;
    memcpy(&v, r->ram.base + gpa, 8);
    return v;
}

/* Guest stores as a device or a door makes them. */
static inline void store32(struct rig *r, uint64_t gpa, uint32_t v)
{
    assert_true(spt_phys_write(r->s, gpa, &v, 4));
}

static inline void store64(struct rig *r, uint64_t gpa, uint64_t v)
{
    assert_true(spt_phys_write(r->s, gpa, &v, 8));
}

static inline void paging_on(struct rig *r, uint32_t cr3, uint32_t cr4, bool nxe)
{
    struct spt_paging p = {.cr0 = PG | WP | PE, .cr3 = cr3, .cr4 = cr4, .nxe = nxe};
    if (cr4 & PAE)
        assert_true(spt_load_pdptes(&r->ram, cr3, p.pdpte));
    spt_set_paging(r->s, &p);
}

/* ---- What the host says is mapped ---- */

struct seen {
    bool mapped, writable;
    uint64_t gpa;
};
struct seen_vma {
    uint32_t gva;
    uint64_t end; /* gva of the end */
    uint64_t gpa;
    bool writable;
};
struct view {
    unsigned n, vmas; /* mapped pieces; all kernel mappings, empty ones included */
    struct seen_vma vma[4096];
};

static inline void look(const uint8_t *window, struct view *v)
{
    FILE *f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    v->n = v->vmas = 0;
    char line[512];
    uint64_t lo = (uintptr_t)window, hi = lo + HOST_WINDOW_SIZE;
    while (fgets(line, sizeof(line), f)) {
        uint64_t from, to, offset;
        char prot[5];
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64, &from, &to, prot, &offset) != 4)
            continue;
        if (to <= lo || from >= hi)
            continue;
        ++v->vmas;
        if (prot[0] != 'r')
            continue;
        assert_true(from >= lo && to <= hi && v->n < 4096); /* a guard must never be readable */
        assert_non_null(strstr(line, "memfd:"));
        assert_int_equal(prot[2], '-');
        v->vma[v->n++] = (struct seen_vma){(uint32_t)(from - lo), to - lo, offset, prot[1] == 'w'};
    }
    fclose(f);
}

static inline struct seen seen_at(const struct view *v, uint32_t gva)
{
    for (unsigned i = 0; i < v->n; ++i)
        if (gva >= v->vma[i].gva && gva < v->vma[i].end)
            return (struct seen){true, v->vma[i].writable, v->vma[i].gpa + (gva - v->vma[i].gva)};
    return (struct seen){false, false, 0};
}

static inline struct seen see(const uint8_t *window, uint32_t gva)
{
    static _Thread_local struct view v;
    look(window, &v);
    return seen_at(&v, gva);
}

static inline unsigned pages_seen(const uint8_t *window)
{
    static _Thread_local struct view v;
    look(window, &v);
    uint64_t sum = 0;
    for (unsigned i = 0; i < v.n; ++i)
        sum += v.vma[i].end - v.vma[i].gva;
    return (unsigned)(sum / PAGE);
}

#define assert_unmapped(window, gva) assert_false(see(window, gva).mapped)
#define assert_shows(window, page, where, may_write)                                                         \
    do {                                                                                                     \
        struct seen seen_ = see(window, page);                                                               \
        assert_true(seen_.mapped);                                                                           \
        assert_int_equal(seen_.gpa, where);                                                                  \
        assert_int_equal(seen_.writable, may_write);                                                         \
    } while (0)

static inline enum spt_outcome kernel_fault(struct rig *r, uint32_t gva, uint32_t access)
{
    return spt_fault(r->s, false, gva, access, &r->info);
}

static inline enum spt_outcome user_fault(struct rig *r, uint32_t gva, uint32_t access)
{
    return spt_fault(r->s, true, gva, access | SPT_USER, &r->info);
}

#endif
