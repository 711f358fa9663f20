/*
 * shadowpt: guest paging. The guest walker (Intel SDM vol. 3 chapter 4), the windows' contents that shadow
 * the guest's page tables, write tracing of page-table and code pages, and the checked doors to guest memory.
 *
 * Knows nothing of segments or instructions: every address here is linear (gva) or physical (gpa). One
 * instance per vCPU; single-threaded; spt_fault may be called from the trap handler.
 */
#ifndef SHADOWPT_SHADOWPT_H
#define SHADOWPT_SHADOWPT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "host/host.h"

/* What an access is: the bits of a #PF error code (SDM vol. 3 4.7). */
enum {
    SPT_READ = 0,
    SPT_PRESENT = 1, /* only in error codes */
    SPT_WRITE = 2,
    SPT_USER = 4,
    SPT_RSVD = 8, /* only in error codes */
    SPT_EXEC = 16,
};

/* The registers paging depends on. pdpte: the four PDPTE registers of PAE paging, loaded by ringcomp's
 * CR3/CR0/CR4 writes (SDM vol. 3 4.4.1) through spt_load_pdptes. */
struct spt_paging {
    uint32_t cr0, cr3, cr4;
    bool nxe; /* EFER.NXE */
    uint64_t pdpte[4];
};

struct spt_walk {
    uint64_t gpa;        /* valid when present: physical address of gva */
    uint32_t pfec;       /* #PF error code when the access is refused */
    bool user, writable; /* combined U/S and R/W of all levels (before CR0.WP) */
    bool nx, global;
    bool accessed, dirty; /* A of all levels; D of the leaf */
    unsigned shift;       /* log2 of the page size: 12, 21 or 22; 32 when paging is off */
    unsigned levels;      /* entries read: entry_gpa[0] is the root's */
    uint64_t entry_gpa[3];
    uint64_t entry[3];
};
/* Pure: reads RAM, writes nothing. True when the access is allowed. Entries that lie outside RAM read as 0.
 */
bool spt_walk(const struct host_ram *ram, const struct spt_paging *p, uint32_t gva, uint32_t access,
              struct spt_walk *out);
/* PAE: read the four PDPTEs at cr3; false when one has reserved bits set (#GP to the writer). */
bool spt_load_pdptes(const struct host_ram *ram, uint32_t cr3, uint64_t pdpte[4]);

/* Upward calls, wired by monitor (mmio) and bt (the rest). All may run inside the trap handler except mmio_*.
 */
struct spt_ops {
    void *ctx;
    /* gpa outside RAM (or in the A0000-BFFFF hole). len 1, 2, 4 or 8; never crosses a page. */
    uint64_t (*mmio_read)(void *ctx, uint64_t gpa, unsigned len);
    void (*mmio_write)(void *ctx, uint64_t gpa, unsigned len, uint64_t value);
    /* Bytes [gpa, gpa+len) of a page traced as code are about to change (by a door or by DMA). The callee may
     * call spt_untrace_code when no translated code is left in the page. */
    void (*code_write)(void *ctx, uint64_t gpa, unsigned len);
    /* Translations given out by spt_fetch for [gva, gva+4096*pages) in this space no longer hold. space is
     * SPT_KERNEL_SPACE or a user space number. pages = 2^20, gva = 0: all of that space. */
    void (*fetch_gone)(void *ctx, unsigned space, uint32_t gva, uint32_t pages);
    /* [gva, gva+4096*pages) of this user space's window may show less, or less writable, than before. Optional. */
    void (*user_less)(void *ctx, unsigned space, uint32_t gva, uint32_t pages);
    /* What the user window of a followed space shows (spt_follow); needed only where spaces are followed. map: RAM
     * [gpa, gpa+len) is shown at gva, whatever was there before; prot as for host_window_map, and PROT_EXEC where
     * spt_fetch has given the pages out. unmap: nothing is. reset: nothing is anywhere; gone: and the space is
     * followed no longer, since its number is about to be another address space's. */
    void (*user_map)(void *ctx, unsigned space, uint32_t gva, uint64_t gpa, uint64_t len, int prot);
    void (*user_unmap)(void *ctx, unsigned space, uint32_t gva, uint64_t len);
    void (*user_reset)(void *ctx, unsigned space, bool gone);
};

#define SPT_KERNEL_SPACE 0u /* spaces 1..SPT_MAX_SPACES-1 are cached user address spaces */
#define SPT_MAX_SPACES   1024u

/* The software TLB in front of the doors, in memory of the caller's choice so that translated code can look
 * into it without a call. Entry `page number % SPT_TLB_SIZE` of a kind (SPT_WRITE | SPT_USER, halved) holds for a
 * page when minus_tag + epoch + page number is 0 (64 bits); then gva + addend is the host address of guest byte
 * gva, and that access is allowed, its A and D bits are set and nothing traces it. A flush is a new epoch, so it
 * holds until the next call that may flush. Only shadowpt writes here. */
#define SPT_TLB_SIZE  256u
#define SPT_TLB_KINDS 4u
struct spt_tlb {
    uint64_t epoch[SPT_TLB_KINDS]; /* multiples of 2^32 */
    uint64_t minus_tag[SPT_TLB_KINDS][SPT_TLB_SIZE];
    uint64_t addend[SPT_TLB_KINDS][SPT_TLB_SIZE];
};

struct spt_config {
    struct host_ram *ram;
    struct host_counts *counts;
    struct spt_ops ops;
    unsigned max_user_spaces; /* windows cached; least recently used are recycled. 1.. */
    unsigned max_maps; /* bound on the sum of host mappings all windows may hold (vm.max_map_count - slack) */
    bool no_windows;   /* engine interp: never map anything, doors only */
    struct spt_tlb *tlb; /* zeroed; NULL: shadowpt keeps its own */
};

struct spt; /* opaque */
int spt_create(struct spt **out, const struct spt_config *cfg, struct host_err *err);
void spt_destroy(struct spt *s);

/* What --stats shows. */
struct spt_counts {
    uint64_t true_faults, hidden_faults, pages_filled, pt_writes, pt_pages, code_traps, cr3_writes,
        window_hits, window_misses, window_recycles, drops_queued, drops_done, unmap_calls, invlpg;
};
const struct spt_counts *spt_stats(const struct spt *s);
/* A line per change of the shadow: fills, upgrades, drops, resets, page tables taken under trace. NULL: off. */
void spt_trace(struct spt *s, FILE *out);
void spt_dump(const struct spt *s, FILE *out); /* human-readable shadow dump: runs of gva -> gpa per window */

/* ---- Register writes. The caller has already checked them (ringcomp). All of them are TLB-flush points:
 * queued drops take effect. ---- */
const struct spt_paging *spt_paging(const struct spt *s);
void spt_set_paging(struct spt *s,
                    const struct spt_paging *p); /* any of CR0, CR4, EFER, PDPTEs (and CR3) changed */
void spt_set_cr3(struct spt *s, uint32_t cr3, const uint64_t pdpte[4]); /* MOV to CR3 only: the fast case */
void spt_invlpg(struct spt *s, uint32_t gva);
/* Current views: host base of the 4 GiB window for supervisor (K) and user (U) pages, and the number of the
 * user space that is current. Change only in spt_set_paging/spt_set_cr3. */
uint8_t *spt_kernel_window(const struct spt *s);
uint8_t *spt_user_window(const struct spt *s);
unsigned spt_user_space(const struct spt *s);

/* ---- Faults in windows. ---- */
enum spt_outcome {
    SPT_RETRY,      /* hidden fault: the shadow now has the page, run the instruction again */
    SPT_TRUE_FAULT, /* deliver #PF with info->pfec, CR2 = info->gva */
    SPT_DEVICE,     /* gpa is outside RAM: the instruction must go through the doors */
    SPT_PT_WRITE,   /* write to a traced page-table page: the store must go through spt_write */
    SPT_CODE_WRITE, /* write to a page that holds translated code (info->gpa) */
    SPT_OTHER_VIEW, /* supervisor code touched a U=1 page in the K window or a U=0 page in the U window */
    SPT_EMULATE, /* allowed, but no window can grant it (CR0.WP=0 store to a read-only user page, user page 0 ...) */
};
struct spt_info {
    uint32_t gva, pfec;
    uint64_t gpa;
};
/* gva faulted in the kernel (user_view false) or user window. access: SPT_WRITE, SPT_USER as the guest sees
 * it (USER iff CPL 3). Fills in runs; sets guest A/D bits exactly as the CPU would for this access and only
 * pre-fills neighbours whose A (and, to map writable, D) bits are set already. */
enum spt_outcome spt_fault(struct spt *s, bool user_view, uint32_t gva, uint32_t access,
                           struct spt_info *info);

/* A count that changes with each INVLPG of gva's page (and of some others). */
uint32_t spt_invalidations(const struct spt *s, uint32_t gva);
/* A count that changes with each time that the page at gpa becomes traced (and that others do). */
uint32_t spt_protections(const struct spt *s, uint64_t gpa);

/* ---- Doors: linear memory with full checks. access: SPT_USER and/or SPT_EXEC (write is implied by the
 * verb). Split across pages and to devices as needed; a refused byte means nothing at all was written, and
 * *info tells the fault. A/D bits are set, traces honoured (page-table writes update the shadow, code writes
 * call ops.code_write). Implicit supervisor accesses (GDT, TSS ...) pass access 0 whatever CPL is. ---- */
bool spt_read(struct spt *s, uint32_t gva, void *buf, unsigned len, uint32_t access, struct spt_info *info);
bool spt_write(struct spt *s, uint32_t gva, const void *buf, unsigned len, uint32_t access,
               struct spt_info *info);
/* spt_write of 4 bytes by supervisor code to RAM inside one page, if that can be done at once: if the page is traced, then as a
 * page table only, and no page fault waits for its entry. False: nothing was written, but A and D bits may have been set as
 * spt_write would, which is what the caller has to call next. Never fills. */
bool spt_write_entry(struct spt *s, uint32_t gva, uint32_t value);
/* Would a write of len bytes be allowed? Sets A/D as a real write would. For read-modify-write and
 * multi-push. */
bool spt_probe_write(struct spt *s, uint32_t gva, unsigned len, uint32_t access, struct spt_info *info);
/* Host pointer for [gva, gva+len) inside one page of RAM, or NULL (use the doors). For access SPT_WRITE never
 * a traced page. Valid until the next call that can change mappings. This is the interpreter's fast path: a
 * software TLB that is flushed where the architecture flushes one. */
void *spt_ptr(struct spt *s, uint32_t gva, unsigned len, uint32_t access);
/* The same for pages that are known since the last flush, without SPT_EXEC: changes nothing, calls nothing. */
void *spt_ptr_known(const struct spt *s, uint32_t gva, unsigned len, uint32_t access);

/* ---- Instruction fetch. Physical address of the byte at gva for execution (access SPT_EXEC [| SPT_USER]).
 * Sets A. The translation is remembered: when it ceases to hold, ops.fetch_gone tells, in every space it was
 * given for. *space: SPT_KERNEL_SPACE if the page is a supervisor page (or paging is off), else the current
 * user space. ---- */
bool spt_fetch(struct spt *s, uint32_t gva, uint32_t access, uint64_t *gpa, unsigned *space,
               struct spt_info *info);

/* ---- Physical doors, for DMA, loaders and ringcomp: honour traces. False when the range leaves RAM. ---- */
bool spt_phys_write(struct spt *s, uint64_t gpa, const void *buf, unsigned len);
bool spt_phys_read(struct spt *s, uint64_t gpa, void *buf, unsigned len);
bool spt_is_ram(const struct spt *s, uint64_t gpa); /* RAM and not in the A0000-BFFFF device hole */

/* ---- Following a user window: each change of what it shows is told to ops.user_*. ---- */
/* On: ops.user_map is called for all that the space's window shows now, and for every change from here on. Off: no
 * call. A space that does not exist is ignored. */
void spt_follow(struct spt *s, unsigned space, bool on);
/* Call ops.user_map again wherever a followed space shows this physical page. Changes nothing: allowed in callbacks. */
void spt_follow_page(struct spt *s, uint64_t gpa);
/* Which address space the current user space is: another number after it was recycled or lost all its pages (a
 * process ended). 0 without paging. */
uint64_t spt_user_serial(const struct spt *s);

/* Which life a user space lives: another number once it has lost all its pages. What spt_fetch gave out for it before that has been
 * taken back by fetch_gone. */
uint32_t spt_space_life(const struct spt *s, unsigned space);

/* Would the current user window grant this access now, without a fault? */
bool spt_user_grants(const struct spt *s, uint32_t gva, bool write);
/* Would the window that shows gva, whichever of the two it is? */
bool spt_grants(const struct spt *s, uint32_t gva, bool write);

/* ---- Code tracing, driven by bt: while set, no window maps the page writable. ---- */
void spt_trace_code(struct spt *s, uint64_t gpa);
void spt_untrace_code(struct spt *s, uint64_t gpa);

#endif
