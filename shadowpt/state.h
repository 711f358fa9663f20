/*
 * shadowpt's private state, and what its files offer to each other.
 *
 * A *space* is a view of guest-virtual memory: space 0 holds the supervisor pages, each other one the user
 * pages of one page directory. A *leaf* describes 2 MiB of a space, page by page: what the window maps there
 * and which pages translations for execution were given out for. Every entry of every leaf that names a RAM
 * page is on that page's chain (its rmap), so "who maps this page" is answered by walking a list. A *pt_page*
 * is a traced page-table page: it knows the leaves that were filled from it and the spaces whose page
 * directory it is.
 *
 * All pools are allocated once, as lazily touched zero pages: spt_fault allocates nothing.
 */
#ifndef SHADOWPT_STATE_H
#define SHADOWPT_STATE_H

#include "shadowpt/shadowpt.h"

#include <sys/queue.h>

#define PAGE_SHIFT      12
#define PAGE_SIZE       4096u
#define PROTECTION_ROWS 4096u

/* Guest paging-structure entries and control registers, SDM vol. 3 4.3, 4.4, 2.5. */
enum {
    PTE_P = 1u << 0,
    PTE_W = 1u << 1,
    PTE_U = 1u << 2,
    PTE_A = 1u << 5,
    PTE_D = 1u << 6,
    PTE_PS = 1u << 7,
    PTE_G = 1u << 8,
    CR0_WP = 1u << 16,
    CR4_PSE = 1u << 4,
    CR4_PAE = 1u << 5,
    CR4_PGE = 1u << 7,
};
#define CR0_PG   (1u << 31)
#define PTE_NX   (UINT64_C(1) << 63)
#define PHYSBITS 36 /* MAXPHYADDR of the modelled CPU; CPUID 80000008H must agree */

/* ---- Shadow entries. v: gfn << 8 | flags; 0 is empty. next, prev: the page's chain; 0 ends it. */
enum {
    E_MAP = 1,     /* the window maps it */
    E_W = 2,       /* ... writable */
    E_FETCH = 4,   /* spt_fetch gave this translation out */
    E_STALE = 8,   /* the guest changed its entry; holds until the next flush point */
    E_DEMOTE = 16, /* ... only took the right to write (fork does): becomes read-only there */
};
#define E_GFN(v) ((v) >> 8)
struct entry {
    uint32_t v, next, prev;
};

#define LEAF_PAGES 512u /* 2 MiB: what one PDE covers under PAE; 32-bit paging needs two leaves per PDE */
#define LEAF_SHIFT 21
#define LEAF_SLOTS 2048u
#define LEAF_MAX   16384u /* bounds the monitor's own memory: 100 MiB if a guest is out to get it */

enum leaf_stale { FRESH, SOME_STALE, ALL_STALE };
struct leaf {
    LIST_ENTRY(leaf) in_space; /* also links free leaves */
    LIST_ENTRY(leaf) in_pt;
    LIST_ENTRY(leaf) in_stale;
    uint64_t pde; /* the entry that covers these 2 MiB, as it was when last filled from; 0: paging off */
    uint32_t pt;  /* pt_page the entries come from; 0: a large page, or paging is off */
    uint16_t space, slot;
    uint16_t used, bounds; /* entries in use; places inside where one host mapping ends and another begins */
    uint16_t stale_lo, stale_hi;
    uint8_t stale; /* enum leaf_stale */
    struct entry e[LEAF_PAGES];
};
LIST_HEAD(leaf_list, leaf);

/* "This traced page is the page directory for quarter n (PAE) of a user space." */
struct root {
    LIST_ENTRY(root) in_pt;
    uint32_t pt; /* 0: not in RAM, nothing is mapped through it */
    uint16_t space;
    uint8_t quarter;
};

struct pt_page {
    LIST_HEAD(, leaf) leaves;
    LIST_HEAD(, root) roots;
    uint32_t gfn;
    uint32_t weight; /* writes since something was last filled from here */
    uint32_t next_free;
};
#define PT_MAX   (LEAF_MAX + 4 * SPT_MAX_SPACES + 16)
#define PT_FLOOD 2048u
#define PT_IDLE  64u /* weight of a write of 0 over 0: nobody clears a clear entry, but memset does */

/* Per physical page. trace: index of its pt_page, and the code bit. Non-zero: no window may map it writable.
 */
struct phys {
    uint32_t rmap, trace;
};
#define TRACE_CODE  (1u << 31)
#define TRACE_PT(t) ((t) & ~TRACE_CODE)

struct space {
    TAILQ_ENTRY(space) lru; /* live user spaces, most recent first; free ones are on the free list */
    LIST_ENTRY(space) hash;
    struct leaf_list leaves, stale; /* stale: leaves with SOME_STALE */
    struct host_window window;
    struct root root[4];
    uint64_t key[4]; /* CR3's page number, or the four PDPTEs */
    uint64_t agrees; /* kernel_epoch at which the K window was last known to agree with this page directory */
    uint64_t resets;
    uint32_t mapped;                    /* pages */
    unsigned leaves_held, leaves_stale; /* all of them; those with ALL_STALE */
    uint16_t number;
    bool has_window, fetched, followed;
    uint64_t serial;
    uint32_t life;
    uint16_t leaf[LEAF_SLOTS]; /* 0: none */
};
TAILQ_HEAD(space_queue, space);
LIST_HEAD(space_list, space);
#define SPACE_HASH 256u

/* ---- The doors' TLB: struct spt_tlb for accesses, these for what else is worth remembering. Tags hold an epoch
 * in the upper half, so a flush is one increment. ---- */
#define TLB_SIZE SPT_TLB_SIZE
enum { TLB_WRITE = 1, TLB_USER = 2, TLB_KINDS = SPT_TLB_KINDS };
struct tlb_gpa { /* for fetches, and for stores to traced pages */
    uint64_t tag;
    uint64_t gpa;
    uint32_t space;
};

/* The page fault last delivered from a window: the guest is about to write the entry that mends it. */
struct expected {
    bool valid;
    uint32_t gva, access;
    uint64_t pte;
};

/* Where a program that walks through its memory will fault next. */
#define STREAMS 4u
struct stream {
    uint32_t next; /* page number */
    uint16_t space, pages;
};

struct spt {
    struct spt_tlb *tlb, own_tlb;
    struct tlb_gpa fetch_tlb[2][TLB_SIZE], trace_tlb[2][64];
    uint64_t fetch_tag;
    uint32_t invalidations[TLB_SIZE]; /* by INVLPG, per entry that it emptied */
    uint32_t
        protections[PROTECTION_ROWS]; /* traces of pages that had none, by the low bits of the frame number */
    bool tlb_large; /* some entry comes from a large page: INVLPG of one address covers more than one entry */
    uint32_t large_at[32]; /* ... and lies in one of these pieces of 4 MiB, a bit each */

    struct host_ram *ram;
    struct spt_config cfg;
    struct spt_paging paging;
    bool pae, paging_on;

    struct phys *phys;
    uint32_t frames;
    struct leaf *leaf;
    struct leaf_list free_leaves;
    uint32_t leaves_touched; /* leaves above this were never used */
    struct pt_page *pt;
    uint32_t pt_touched, pt_free, pt_pinned, pt_count;

    struct space *space_pool; /* by number, made or not */
    struct space *space[SPT_MAX_SPACES];
    struct space *kernel, *cur; /* cur: NULL while paging is off */
    struct space_queue live, free_spaces;
    struct space_list hash[SPACE_HASH];
    unsigned spaces_made;
    struct leaf_list stale_leaves; /* ALL_STALE, of any space */
    uint64_t kernel_epoch;
    unsigned maps, max_maps;
    struct expected expected;
    struct stream stream[STREAMS];
    unsigned streams_begun;
    uint64_t serials;
    struct spt_counts counts;
    FILE *trace; /* --trace=shadow */
};

static inline bool frame_is_ram(const struct spt *s, uint64_t gfn)
{
    return gfn < s->frames && (gfn < 0xA0 || gfn >= 0xC0);
}

static inline struct leaf *space_leaf(struct spt *s, const struct space *sp, unsigned slot)
{
    return sp->leaf[slot] ? &s->leaf[sp->leaf[slot]] : NULL;
}

/* dump.c: one line of --trace=shadow. */
void trace_line(const struct spt *s, const struct space *sp, const char *what, uint32_t gva, uint64_t pages);
static inline void trace_change(const struct spt *s, const struct space *sp, const char *what, uint32_t gva,
                                uint64_t pages)
{
    if (s->trace)
        trace_line(s, sp, what, gva, pages);
}

/* walk.c: knowledge of entries. */
uint64_t walk_entry_load(const struct host_ram *ram, uint64_t gpa, unsigned size);
uint64_t walk_reserved_bits(const struct spt_paging *p, unsigned shift, bool large);
/* May a translation derived from `old` have become wrong, or allow more than it should, now that the entry is
 * `now`? */
bool walk_entry_restricts(bool pae, bool is_pde, uint64_t old, uint64_t now);
/* Of a PTE that restricts: is all it does to take away the right to write? */
bool walk_entry_demotes(uint64_t old, uint64_t now);
static inline unsigned walk_pde_level(const struct spt *s)
{
    return s->pae ? 1 : 0;
}

/* leaf.c: leaves, entries, reverse map, and the host calls that go with them. */
struct leaf *leaf_create(struct spt *s, struct space *sp, unsigned slot); /* NULL: pool is empty */
void leaf_link_pt(struct spt *s, struct leaf *l, uint32_t pt);
void leaf_set_mapped(struct spt *s, struct leaf *l, unsigned at, unsigned n, uint32_t gfn, bool writable);
void leaf_set_fetched(struct spt *s, struct leaf *l, unsigned at, uint32_t gfn);
void leaf_drop(struct spt *s, struct leaf *l, unsigned from, unsigned to);
void leaf_drop_run(struct spt *s, struct leaf *l, unsigned at); /* page at, and stale ones around it */
void leaf_apply_at(struct spt *s, struct leaf *l, unsigned at);
void leaf_mark_stale(struct spt *s, struct leaf *l, unsigned at, bool only_demote);
void leaf_mark_all_stale(struct spt *s, struct leaf *l);
void leaf_release_if_empty(struct spt *s, struct leaf *l);
void space_apply_stale(struct spt *s, struct space *sp);
void space_reset(struct spt *s, struct space *sp); /* drop all leaves with one host call */
void frame_write_protect(struct spt *s, uint32_t gfn);

/* space.c */
bool space_shrink(struct spt *s); /* give up something cached; false when nothing is left to give up */
void space_release(struct spt *s, struct space *sp);

/* trace.c */
uint32_t pt_trace(struct spt *s, uint32_t gfn); /* index; the caller links or pins it */
void pt_release_if_unused(struct spt *s, uint32_t pt);
void trace_store(struct spt *s, uint64_t gpa, const void *buf, unsigned len); /* inside one RAM page */

/* fill.c */
void walk_set_accessed(struct spt *s, struct spt_walk *w, bool write);
void fill_expected(struct spt *s);
bool fill_note_fetch(struct spt *s, struct space *sp, uint32_t gva, const struct spt_walk *w);

/* follow.c: what a followed space's window shows, told upward. Read-only, but for the space's serial number. */
void follow_shown(struct spt *s, const struct leaf *l, unsigned from, unsigned to);
void follow_less(struct spt *s, const struct space *sp, uint32_t gva, unsigned pages);
void follow_gone(struct spt *s, const struct space *sp, uint32_t gva, unsigned pages);
void follow_reset(struct spt *s, struct space *sp);
void follow_end(struct spt *s, struct space *sp); /* the space is about to become another one */

/* doors.c */
void tlb_flush(struct spt *s);
void tlb_flush_writes(struct spt *s);
void tlb_flush_fetches(struct spt *s);
void tlb_flush_page(struct spt *s, uint32_t gva);

/* No libc: guest vector registers stay in the hardware while these run. */
static inline void copy_bytes(void *to, const void *from, unsigned len)
{
    switch (len) {
    case 1:
        *(uint8_t *)to = *(const uint8_t *)from;
        break;
    case 2:
        __builtin_memcpy(to, from, 2);
        break;
    case 4:
        __builtin_memcpy(to, from, 4);
        break;
    case 8:
        __builtin_memcpy(to, from, 8);
        break;
    default: {
        void *d = to;
        const void *f = from;
        uint64_t n = len;
        __asm__ volatile("rep movsb" : "+D"(d), "+S"(f), "+c"(n) : : "memory");
    }
    }
}

#endif
