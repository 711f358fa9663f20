/*
 * bt's inside: the vCPU structure, blocks, links and sites. Private to the module.
 */
#ifndef BT_IMPL_H
#define BT_IMPL_H

#include "bt/bt.h"
#include <stddef.h>
#include "insn.h"
#include "interp.h"

#define BT_ARENA_DEFAULT  (UINT64_C(64) << 20)
#define BT_USER_SPACES    512u /* address spaces with a window of their own, by default */
#define BT_BLOCK_MAX      48u  /* guest instructions in a block */
#define BT_BLOCK_LINKS    3u   /* direct branches behind which a block goes on no longer */
#define BT_BLOCK_RELOCS   255u
#define BT_BLOCK_ROOM     (16u << 10) /* emitted bytes a block may need at most */
#define BT_JTAB_ENTRIES   (UINT32_C(1) << 16)
#define BT_SOFT_SEEN      1024u
#define BT_HEAT_WORDS     4096u
#define BT_FORM_LINES     (UINT32_C(1) << 16)
#define BT_KIN_ROWS       (UINT32_C(1) << 16)
#define BT_MODE_FLAGS_ODD (1u << 16)  /* beside RC_MODE_*: IOPL, NT, AC (no BMI2: ID) set: no inline PUSHF */
#define BT_FEATURE_SEP    (1u << 11)  /* of CPUID leaf 1 EDX: SYSENTER */
#define BT_MODE_TSC_OWN   (1u << 17)  /* the guest's TSC is not the host's, or not for all: no inline RDTSC */
#define BT_BAD_BLOCK      UINT32_MAX  /* the verifier refused */
#define BT_HSTACK_SIZE    (64u << 10) /* host return stack: 8192 mirrored calls */

/* How a site (one guest instruction at one guest physical address) touches memory. Innocent until proven
 * guilty: everything starts as WINDOW; a trap moves the site on. */
enum bt_form {
    BT_FORM_WINDOW, /* gs: or fs: + addr32, the window of the current privilege */
    BT_FORM_DUAL, /* supervisor code that touches user pages: the window is selected by the address' top byte
                   */
    BT_FORM_SOFT, /* for the time being through the software TLB: the site keeps touching pages that no window
                     shows yet */
    BT_FORM_INTERP, /* callout: devices, page-table stores, whatever windows cannot do */
};

/* Why translated code came back. */
enum bt_leave {
    BT_LEAVE_LINK,    /* direct branch not yet chained: v->leave_link, target in cpu->eip */
    BT_LEAVE_MISS,    /* indirect branch not in the jump table: target in cpu->eip */
    BT_LEAVE_CALLOUT, /* a callout decided to leave; cpu->eip is right */
    BT_LEAVE_FAULT,   /* cpu->fault is to be delivered at cpu->eip */
    BT_LEAVE_RESITE,  /* a site was found guilty: translate again, v->drop_block first */
    BT_LEAVE_EVENT,   /* request seen at an instruction boundary */
    BT_LEAVE_ABORTED, /* request seen before the first instruction; memory state is untouched */
};

/* Source/target table: one row per guest instruction of a block. */
struct bt_map {
    uint16_t host_off;  /* from block->host */
    uint16_t guest_off; /* from block->eip */
    int8_t esp;         /* guest ESP is R12 plus this here: pushes and pops not yet added up */
    uint8_t form;       /* enum bt_form it was emitted in: other blocks may hold the same site in another */
};

/* What in a block's code depends on where the guest sees it or where the host has it: see rebase.c. */
enum bt_reloc_kind {
    BT_RELOC_EIP,     /* imm32: a guest address */
    BT_RELOC_NEG_EIP, /* imm32: minus a guest address */
    BT_RELOC_OUT,     /* rel32 to a stub */
    BT_RELOC_SITE,    /* imm32: number of a site of the block */
    BT_RELOC_LINK,    /* imm32: number of a link of the block */
};
struct bt_reloc {
    uint16_t off; /* of the four bytes, from block->host */
    uint8_t kind; /* enum bt_reloc_kind */
};

/* A soft site that looks before it calls: at which address? */
enum bt_probe {
    BT_PROBE_NONE,    /* it does not look */
    BT_PROBE_OPERAND, /* its memory operand */
    BT_PROBE_PUSH,    /* below ESP, a store */
    BT_PROBE_POP,     /* at ESP, a load */
    BT_PROBE_FRAME,   /* at EBP, a load */
};

enum bt_cross { BT_CROSS_NONE, BT_CROSS_INT, BT_CROSS_IRET, BT_CROSS_SYSENTER, BT_CROSS_SYSEXIT };

struct bt_site { /* a callout's instruction */
    struct bt_insn insn;
    uint32_t eip;
    uint32_t block; /* owner */
    uint8_t index;  /* in the block */
    uint32_t soft;  /* SOFT, INTERP: its row in v->forms + 1 */
    bool interp;    /* INTERP */
    uint8_t probe;  /* enum bt_probe */
    uint8_t cross;  /* enum bt_cross */
    bool looks;     /* SOFT: looks into the TLB itself, the callout is for what it does not find */
};

struct bt_link {    /* a direct branch out of a block, patched when the target is known */
    uint32_t block; /* whose exit this is */
    uint32_t at;    /* arena offset of the rel32 */
    uint32_t stub;  /* arena offset of the unlinked stub */
    uint32_t target_eip;
    uint32_t to;      /* block, 0: unlinked */
    uint32_t next_in; /* next link in the target's incoming list */
    uint8_t cross;    /* leaves the page, or leaves or enters a straddling block */
    uint8_t done;     /* instructions of the block that are done when it is taken */
};

/* Blocks of one physical page of user code that were made for one linear page address: see group.c. */
#define BT_GROUP_OWNERS 4
struct bt_group {
    uint32_t page, frame; /* numbers: linear, physical */
    uint32_t next;        /* of the same frame */
    uint32_t live;        /* blocks that are not dropped */
    uint32_t epoch;       /* how often it has moved */
    bool pinned;          /* stays where it is */
    struct bt_owner {
        uint32_t life, space; /* of an address space that has looked blocks up here; space 0: nobody */
    } owner[BT_GROUP_OWNERS];
};

struct bt_block { /* what it takes to find it and to move it comes first, in one line of the host's caches */
    uint64_t gpa;
    uint32_t eip, mode;
    uint32_t hash_next;
    uint32_t group, epoch;    /* 0: belongs to none; its group's when the block was there last */
    uint32_t todo;            /* list of those whose chains bt_rebase is to follow */
    uint32_t host, main, end; /* arena offsets: indirect entry, main entry, end */
    uint32_t reloc;           /* first row in v->reloc */
    uint32_t site, first_link;
    uint8_t count, link_count, site_count, reloc_count;
    uint8_t reloc_eips; /* so many of the relocations are for what depends on eip: they come first */
    bool dead : 1;
    bool tabled : 1; /* has been entered through a jump table */
    uint16_t heat;   /* its word in v->heat, if any of its sites looks into the TLB itself */
    uint64_t gpa2;   /* page of the tail of a straddling instruction, else 0 */
    uint32_t guest_len;
    uint32_t map;      /* first row in v->map */
    uint32_t links_in; /* list head of incoming links */
    struct {
        uint32_t next, prev;
    } in_page[2]; /* in the lists of gpa's and gpa2's page; see struct bt_vcpu.page_blocks */
} __attribute__((aligned(64)));

/* What a user space's window is believed to show, by page. Only a guess; the window decides. See probe.c. */
#define BT_SHOWN_PAGES (UINT32_C(1) << 20)
enum {
    BT_SHOWN_READ = 0xf000,
    BT_SHOWN_WRITE = 0xffff
}; /* at least that: readable; exactly that: writable, too */
struct bt_shown {
    uint16_t page[BT_SHOWN_PAGES];
};
#define BT_SHOWN_PIECE 1024u /* pages of which it is known together that nothing is known: a page table's */

#define BT_JTAB_LOG 8192u
struct bt_jtab {
    uint32_t *entry; /* BT_JTAB_ENTRIES arena offsets by bt_jtab_index(EIP); 0: miss */
    uint32_t mode;   /* the mode all entries are for */
    uint32_t count;  /* entries that are not empty; the first BT_JTAB_LOG are listed behind the table */
    uint64_t life;   /* from one flush to the next: no other table ever has the same number */
};
/* Entries of all jump tables that met another one in their place. */
#define BT_SPILL_ROWS (UINT32_C(1) << 17)
struct bt_spill {
    uint64_t life; /* the table's; a row of a life that has ended is empty */
    uint32_t eip, host;
};

struct bt_stubs {                       /* arena offsets */
    uint32_t miss;                      /* at offset 0 by construction */
    uint32_t enter, enter_check, abort; /* abort follows enter */
    uint32_t link, leave, leave_saved;
    uint32_t cross;
    uint32_t callout, callout_restore, callout_end;
    uint32_t table; /* r8d: target EIP, through the jump table */
    uint32_t sentinel;
    uint32_t light_seg, light_store, light_invlpg, light_look, light_string;
    uint32_t sysenter, sysexit, end;
};

/* r15 points here. cpu is first: its hot fields have one-byte displacements. */
struct bt_vcpu {
    struct rc_cpu cpu;
    /* -- addressed by emitted code -- */
    uint64_t window_k, window_u;  /* GS.base; FS.base while fs_guest */
    uint64_t host_fs;             /* FS.base of this thread as C needs it */
    uint64_t window[256];         /* window by top address byte, for DUAL */
    uint64_t rx;                  /* r13: arena base, executable view */
    uint64_t jtab;                /* r14: jump table of the current space */
    uint64_t shown;               /* struct bt_shown of the current user space */
    uint64_t hstack;              /* rsp to enter with */
    uint64_t c_rsp;               /* monitor's stack while emitted code runs */
    uint64_t guest_rsp;           /* host return stack pointer during a callout */
    uint64_t host_flags;          /* RFLAGS image: guest's arithmetic flags and DF */
    uint64_t callout_fn;          /* bt_callout_insn */
    uint64_t light_fn[5];         /* bt_light_*, as in struct bt_stubs */
    uint64_t miss_fn;             /* bt_dispatch_miss */
    uint64_t quick_fn;            /* bt_quick_cross */
    uint64_t crossed_fn;          /* bt_quick_crossed */
    struct spt_tlb tlb;           /* SOFT sites look into it */
    uint32_t heat[BT_HEAT_WORDS]; /* executions of SOFT sites that are still for free, by block */
    uint32_t leave_reason, leave_link;
    uint32_t shadow_eip;  /* instruction that the last inline STI shadows */
    uint8_t fpu_live;     /* the guest's x87/vector state is in the CPU, cpu.fpu is stale */
    uint8_t irq_waiting;  /* interrupt line at the last entry: STI and POPF must look */
    uint8_t tsc_read;     /* the guest has read its TSC: bt_tsc_read */
    uint8_t fs_shared;    /* the user window is the kernel's: no paging */
    uint8_t fs_guest;     /* FS.base may be the user window: 0 only while it is host_fs */
    uint8_t entered_user; /* privilege of the last entry */
    /* -- C only -- */
    uint8_t vec_held[256] __attribute__((aligned(32)));
    struct bt_config cfg;
    bool bmi2; /* RORX and SHRX may be emitted */
    struct host_arena arena;
    uint32_t arena_next;
    struct bt_stubs stubs;
    struct bt_interp *interp;
    struct bt_ops io; /* cfg.ops behind bt_fpu_park, for the interpreter */
    struct spt *spt;
    struct host_thread thread;
    bool entered;

    struct bt_block *block;
    uint32_t block_count, block_max;
    struct bt_map *map;
    uint32_t map_count, map_max;
    struct bt_link *link;
    uint32_t link_count, link_max;
    struct bt_site *site;
    uint32_t site_count, site_max;
    struct bt_reloc *reloc;
    uint32_t reloc_count, reloc_max;
    uint32_t *kin;  /* user blocks by hash of physical address: the one translated or rebased last */
    uint32_t *hash; /* heads, by hash of gpa */
    uint32_t hash_mask;
    struct bt_group *group;
    uint32_t group_count, group_free;
    uint32_t *frame_groups; /* by guest frame number: list of groups */
    uint32_t *
        page_blocks; /* by guest frame number: list of blocks there, as 2 * block + (is it the tail's page?) */
    uint32_t page_count;
    uint32_t *cross; /* links that are linked across pages in kernel space */
    uint32_t cross_count, cross_max;
    struct bt_form_entry {
        uint64_t key; /* gpa + 1; 0: empty */
        uint8_t form;
        uint8_t back;    /* SOFT, INTERP: the form to go back to */
        uint8_t strikes; /* stores that hit translated code */
        uint8_t reverts; /* how often SOFT was taken back: the next time comes later */
        uint8_t returns; /* the same of INTERP */
        bool device;     /* INTERP: has been found at a device */
        bool worn;       /* SOFT user code: has looked so often that it is to probe instead */
        uint16_t faults; /* window faults that one page would have served */
        uint16_t idle;   /* SOFT, INTERP: executions a window would have served for nothing */
    } * forms;
    struct bt_side {   /* [user]: as bt_dispatch_windows left it, for the current address space */
        uint32_t mode; /* RC_MODE_INTERP: not known */
        const uint32_t *jtab;
    } side[2];
    struct bt_rewritten {
        uint32_t page;
        uint8_t times; /* a store met translated code */
        uint8_t idle;  /* stores since that did not */
    } rewritten[64];
    struct bt_soft_seen {
        uint32_t frames;
        uint32_t invalidations; /* how many INVLPG of the address there had been */
    } soft_seen[BT_SOFT_SEEN];  /* pages SOFT sites touched lately, by hash */
    uint32_t forms_mask, forms_used;
    uint64_t form_lines[BT_FORM_LINES / 64]; /* a bit per line of guest code, by hash: has it any row? */

    struct bt_shown *shown_of;                                                 /* by space */
    uint64_t shown_used[SPT_MAX_SPACES][BT_SHOWN_PAGES / BT_SHOWN_PIECE / 64]; /* pieces that are not all 0 */
    struct bt_age {
        uint64_t serial; /* the address space that kicks is about */
        uint32_t kicks;  /* that found its user code running; counted while it is young */
    } age[SPT_MAX_SPACES];
    struct bt_jtab jtabs[SPT_MAX_SPACES]; /* [0]: kernel */
    uint64_t jtab_lives;
    struct bt_spill *spill;
    uint8_t *hstack_mem;    /* two stacks with guard pages */
    uint64_t hstack_top[2]; /* [user] */
    uint64_t hstack_user;   /* the program's, while its kernel runs */
    bool leave_pending;     /* something the running code relied on is gone: leave at the next chance */
    bool flush_wanted;
    bool cross_fast; /* stubs_fast.c may be used */
    bool tsc_own;    /* the clock is a virtual one */
    bool stepping;   /* host TF is set: walking to the next guest instruction boundary */
    bool unchained;
    uint32_t entered_mode; /* mode and space of the last entry */
    unsigned entered_space;
    volatile bool stop;
    uint8_t view_flips[256];
    bool user_view[256]; /* DUAL sites look for this 16 MiB in the user window */
    uint32_t run_block;  /* block entered last */
    uint32_t leave_block, leave_index;
    uint32_t interpreted; /* executions of INTERP sites, light ones too: see callout.c */
    uint32_t drop_block;  /* to be dropped once translated code has been left; 0: none */
    char reason[512];
    unsigned trace;
    FILE *trace_out;
    struct bt_direct *direct; /* NULL: no space runs directly */
    struct bt_counts counts;
    uint64_t sampled[2], unsampled; /* time after crossings, [user]: see dispatch.c */
    int crossings_left;
    uint64_t tsc_last, *bucket, outside; /* time split: since when, whose, and the caller's */
    struct bt_decoder decoder;
};

_Static_assert(offsetof(struct bt_vcpu, cpu) == 0, "r15 addresses rc_cpu directly");

/* The CPU's x87 and vector registers to an image whose header (vol. 1 13.4.2) is valid or zero, and back. */
static inline void bt_fpu_store(const struct bt_vcpu *v, uint8_t *image)
{
    if (rc_has_avx(&v->cpu.config)) {
        __asm__ volatile("xsave64 %0"
                         : "+m"(*(uint8_t(*)[RC_XSAVE_BYTES])image)
                         : "a"(RC_XCR0_X87 | RC_XCR0_SSE | RC_XCR0_AVX), "d"(0));
        bt_xstate_complete(image);
    } else
        __asm__ volatile("fxsave64 %0" : "=m"(*(uint8_t(*)[512])image));
}

static inline void bt_fpu_load(const struct bt_vcpu *v, const uint8_t *image)
{
    if (rc_has_avx(&v->cpu.config))
        __asm__ volatile("xrstor64 %0"
                         :
                         : "m"(*(const uint8_t(*)[RC_XSAVE_BYTES])image),
                           "a"(RC_XCR0_X87 | RC_XCR0_SSE | RC_XCR0_AVX), "d"(0));
    else
        __asm__ volatile("fxrstor64 %0" : : "m"(*(const uint8_t(*)[512])image));
}

/* Before any code that may use vector registers or calls libc's memory functions. Idempotent. */
static inline void bt_fpu_park(struct bt_vcpu *v)
{
    if (!v->fpu_live)
        return;
    bt_fpu_store(v, v->cpu.fpu);
    v->fpu_live = 0;
}

/* Before what is known to use its thread's data; else the first use faults, and bt_trap does this. */
static inline void bt_fs_to_host(struct bt_vcpu *v)
{
    if (!v->fs_guest)
        return;
    __asm__ volatile("wrfsbase %0" : : "r"(v->host_fs) : "memory");
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    *(volatile uint8_t *)&v->fs_guest = 0;
    v->counts.fs_given_back++;
}

/* Control words as the C ABI has them; the guest's state is parked. */
static inline void bt_fpu_reset(void)
{
    static const uint32_t mxcsr = 0x1f80;
    __asm__ volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
}

/*T:352 What a device may clobber
 *
 * A device model is ordinary C: its compiler and libc's memcpy may use vector registers, and no others of what FXSAVE
 * saves, since nothing there computes in floating point. FXSAVE and FXRSTOR cost more than all else in a port access, so
 * while a device is called only the vector registers are held in memory. Upper halves that were zero stay so by
 * VZEROUPPER: a register that was loaded counts as in use, and every XSAVE from then on has to write it.
:*/
#define BT_VEC_ALL(op, r)                                                                                    \
    op(r "0", "0") op(r "1", "32") op(r "2", "64") op(r "3", "96") op(r "4", "128") op(r "5", "160")         \
        op(r "6", "192") op(r "7", "224")
#define BT_VEC_STORE(r, at) "movaps %%" r ", " at "(%1)\n\t"
#define BT_VEC_LOAD(r, at)  "movaps " at "(%1), %%" r "\n\t"
#define BT_YMM_STORE(r, at) "v" BT_VEC_STORE(r, at)
#define BT_YMM_LOAD(r, at)  "v" BT_VEC_LOAD(r, at)

static inline void bt_vec_hold(struct bt_vcpu *v)
{
    if (!v->fpu_live)
        return;
    if (rc_has_avx(&v->cpu.config))
        __asm__ volatile(BT_VEC_ALL(BT_YMM_STORE, "ymm") : "=m"(v->vec_held) : "r"(v->vec_held));
    else
        __asm__ volatile(BT_VEC_ALL(BT_VEC_STORE, "xmm") : "=m"(v->vec_held) : "r"(v->vec_held));
}

static inline bool bt_vec_high_held(const struct bt_vcpu *v)
{
    const uint64_t *q = (const uint64_t *)(const void *)v->vec_held;
    uint64_t any = 0;
    for (unsigned n = 0; n < 8; n++)
        any |= q[4 * n + 2] | q[4 * n + 3];
    return any;
}

static inline void bt_vec_release(struct bt_vcpu *v)
{
    if (!v->fpu_live)
        return;
    if (rc_has_avx(&v->cpu.config)) {
        if (bt_vec_high_held(v)) {
            __asm__ volatile(BT_VEC_ALL(BT_YMM_LOAD, "ymm") : : "m"(v->vec_held), "r"(v->vec_held));
            return;
        }
        __asm__ volatile("vzeroupper");
    }
    __asm__ volatile(BT_VEC_ALL(BT_VEC_LOAD, "xmm") : : "m"(v->vec_held), "r"(v->vec_held));
}

static inline uint32_t bt_mode(const struct bt_vcpu *v)
{
    return rc_mode(&v->cpu) |
           (v->cpu.eflags & (RC_IOPL | RC_NT | RC_AC | RC_VIF | RC_VIP | (v->bmi2 ? 0 : RC_ID))
                ? BT_MODE_FLAGS_ODD
                : 0) |
           (v->tsc_own || v->cpu.tsc_offset || (v->cpu.cpl && (v->cpu.cr4 & RC_CR4_TSD)) ? BT_MODE_TSC_OWN
                                                                                         : 0);
}

/* Which flags are the host's while translated code runs, and their two ways: v->host_flags is the RFLAGS image. */
#define BT_HOST_FLAGS ((uint32_t)(RC_ARITH | RC_DF))

static inline uint64_t bt_flags_image(uint64_t flags)
{
    return (flags & BT_HOST_FLAGS) | 0x202;
}

static inline void bt_flags_from_host(struct bt_vcpu *v)
{
    v->cpu.eflags = (v->cpu.eflags & ~BT_HOST_FLAGS) | ((uint32_t)v->host_flags & BT_HOST_FLAGS);
}

static inline void bt_flags_to_host(struct bt_vcpu *v)
{
    v->host_flags = bt_flags_image(v->cpu.eflags);
}

static inline bool bt_is_divide(const struct bt_insn *i)
{
    return i->map == ZYDIS_OPCODE_MAP_DEFAULT && (i->opcode & 0xfe) == 0xf6 && i->reg >= 6;
}

/* One-byte opcodes of MOVS, CMPS, STOS, LODS, SCAS (A8, A9 are TEST) */
static inline bool bt_is_string(unsigned opcode)
{
    return opcode >= 0xa4 && opcode <= 0xaf && (opcode & 0xfe) != 0xa8;
}

/* cache.c */
int bt_cache_init(struct bt_vcpu *v, struct host_err *err);
void bt_cache_finish(struct bt_vcpu *v);
void bt_cache_flush(struct bt_vcpu *v);
uint32_t bt_cache_find(struct bt_vcpu *v, uint64_t gpa, uint32_t eip, uint32_t mode);
/* The same, also if its group has come to this address and the block has not followed yet: bt_settle it before use. */
uint32_t bt_cache_find_unsettled(struct bt_vcpu *v, uint64_t gpa, uint32_t eip, uint32_t mode);
void bt_cache_insert(struct bt_vcpu *v, uint32_t b);
void bt_cache_drop(struct bt_vcpu *v, uint32_t b);
bool bt_cache_drop_range(struct bt_vcpu *v, uint64_t gpa, unsigned len);
void bt_cache_code_write(struct bt_vcpu *v, uint64_t gpa, unsigned len);
bool bt_cache_is_rewritten(struct bt_vcpu *v, uint64_t gpa);
uint32_t bt_cache_by_host(struct bt_vcpu *v, uint32_t arena_off);
unsigned bt_cache_row(const struct bt_vcpu *v, const struct bt_block *b, uint32_t arena_off);
void bt_cache_link(struct bt_vcpu *v, uint32_t link, uint32_t to);
void bt_cache_link_by_table(struct bt_vcpu *v,
                            uint32_t link); /* depends on more than this page: never chained */
void bt_cache_unlink_cross(struct bt_vcpu *v);
/* Without BMI2 the low 16 bits of EIP; else those above the lowest two, for four times as much code. */
static inline uint32_t bt_jtab_index(const struct bt_vcpu *v, uint32_t eip)
{
    return (v->bmi2 ? eip >> 2 : eip) & (BT_JTAB_ENTRIES - 1);
}
uint32_t *bt_jtab_create(void);
void bt_jtab_set(struct bt_vcpu *v, unsigned space, uint32_t b);
void bt_jtab_flush(struct bt_vcpu *v, unsigned space);
uint32_t bt_jtab_spilled(struct bt_vcpu *v, unsigned space,
                         uint32_t eip); /* arena offset; 0: none is known */
void bt_hstack_reset(struct bt_vcpu *v);
enum bt_form bt_form_get(const struct bt_vcpu *v, uint64_t gpa);
void bt_form_set(struct bt_vcpu *v, uint64_t gpa, enum bt_form form);
unsigned bt_form_strike(struct bt_vcpu *v, uint64_t gpa);
bool bt_form_divided(struct bt_vcpu *v, uint64_t gpa, bool faulted);
uint32_t bt_form_row(const struct bt_vcpu *v, uint64_t gpa); /* number + 1, 0: none */
bool bt_form_fault(struct bt_vcpu *v, uint64_t gpa, enum bt_form now);
bool bt_form_worn(const struct bt_vcpu *v, uint64_t gpa);
void bt_form_soft_right(struct bt_vcpu *v, uint32_t row);
enum bt_met {
    BT_MET_SHOWN,
    BT_MET_RAM,
    BT_MET_DEVICE
}; /* by an INTERP site: what a window shows; RAM it does not; else */
bool bt_form_met(struct bt_vcpu *v, const struct bt_site *site, enum bt_met met);
bool bt_form_device(const struct bt_vcpu *v, uint64_t gpa); /* INTERP because of a device? */
void bt_form_soft_hot(struct bt_vcpu *v, uint64_t gpa);
struct bt_soft_use {    /* what a SOFT site touched */
    uint32_t gva, gva2; /* gva2: 0, or the other operand of a string instruction */
    uint32_t frames;    /* which physical pages: any identification */
    uint32_t more;      /* pages behind the first */
    bool write;         /* gva is */
};
bool bt_form_soft_news(struct bt_vcpu *v, const struct bt_site *site, const struct bt_soft_use *use);
bool bt_form_soft_used(struct bt_vcpu *v, const struct bt_site *site, const struct bt_soft_use *use,
                       bool news);
void bt_form_heat_up(struct bt_vcpu *v, struct bt_block *blk); /* gives it a word of v->heat */

/* probe.c */
int bt_probe_init(struct bt_vcpu *v, struct host_err *err);
void bt_probe_finish(struct bt_vcpu *v);
void bt_probe_less(struct bt_vcpu *v, unsigned space, uint32_t gva, uint32_t pages);
bool bt_probe_touched(struct bt_vcpu *v, uint32_t gva, uint32_t frame, bool write, bool probed);
void bt_probe_shown(struct bt_vcpu *v, uint32_t gva, bool write);
void bt_probe_sampled(struct bt_vcpu *v, uint32_t b);
bool bt_probe_young(struct bt_vcpu *v); /* the current user space: has it hardly run yet? */
/* group.c */
uint32_t bt_group_find(struct bt_vcpu *v, uint64_t gpa, uint32_t eip); /* 0: there is none */
bool bt_group_elsewhere(const struct bt_vcpu *v, uint64_t gpa, uint32_t eip);
void bt_group_add(struct bt_vcpu *v, uint32_t b);
void bt_group_move(struct bt_vcpu *v, uint32_t n, uint32_t eip);
void bt_group_remove(struct bt_vcpu *v, uint32_t b);
bool bt_group_behind(const struct bt_vcpu *v, uint32_t b); /* its group has moved on, b has not followed */
void bt_group_used(struct bt_vcpu *v, uint32_t b,
                   unsigned space); /* this space is about to know a way to b */
void bt_group_linked(struct bt_vcpu *v, uint32_t from, uint32_t to);
uint32_t bt_group_dead(struct bt_vcpu *v, uint64_t gpa);
/* rebase.c */
void bt_kin_set(struct bt_vcpu *v, uint32_t b);
uint32_t bt_rebase(struct bt_vcpu *v, uint32_t eip, uint64_t gpa, unsigned space, uint32_t mode);
bool bt_settle(struct bt_vcpu *v, uint32_t b,
               unsigned space); /* false: the verifier refuses what comes along */

/* dispatch.c */
struct bt_jtab *bt_dispatch_jtab(struct bt_vcpu *v, uint32_t mode); /* NULL: no memory */
void bt_dispatch_account(struct bt_vcpu *v, uint64_t *bucket);
void bt_dispatch_divide(struct bt_vcpu *v); /* add what was sampled to the counters */
void bt_dispatch_windows(struct bt_vcpu *v, uint32_t mode, const struct bt_jtab *t);
/* Into the jump table; false: such code is found each time. */
bool bt_dispatch_set(struct bt_vcpu *v, uint32_t mode, unsigned space, uint32_t b);
uint64_t bt_dispatch_miss(struct bt_vcpu *v); /* called from emitted code */
/* bt_dispatch for what changes nothing but CPL, segments, flags, EIP and ESP. */
uint64_t bt_dispatch_cross(struct bt_vcpu *v);
uint64_t bt_dispatch_quick(struct bt_vcpu *v); /* the same, quick; BT_GO_DISPATCH: not so */
/* At the end of a callout that does not go on behind its instruction: the code to go on with, everything in place for it;
 * 0: translated code must be left. */
uint64_t bt_dispatch(struct bt_vcpu *v);

/* stubs.c */
void bt_stubs_emit(struct bt_vcpu *v);
struct emit;
void bt_stubs_fast(struct bt_vcpu *v, struct emit *e); /* stubs_fast.c */
bool bt_cache_room(const struct bt_vcpu *v);           /* for one more block of any size; translate.c */
/* translate.c: block at eip whose first byte is at gpa, or 0 when its first instruction must be interpreted.
 */
uint32_t bt_translate(struct bt_vcpu *v, uint32_t eip, uint64_t gpa, unsigned space, uint32_t mode);
/* trap.c */
bool bt_trap(void *ctx, struct host_trap *trap);
/* callout.c; called from emitted code. BT_GO_ON, BT_GO_OUT (leave translated code), or where to go on instead. */
enum { BT_GO_ON, BT_GO_OUT, BT_GO_DISPATCH };
uint64_t bt_quick_cross(struct bt_vcpu *v, uint32_t site);
uint64_t bt_quick_crossed(struct bt_vcpu *v);
uint64_t bt_callout_insn(struct bt_vcpu *v, uint32_t site);
/* The same for light calls; 0: done, else the instruction is to be executed by bt_callout_insn, whatever has been done. */
struct bt_light { /* registers as they will be when it returns */
    uint64_t r8, rdi, rsi, rdx, rcx, rax;
    uint64_t flags; /* RFLAGS image; only the arithmetic flags and DF count */
};
uint32_t bt_light_seg(struct bt_vcpu *v, uint32_t selector, uint32_t seg, struct bt_light *regs);
uint32_t bt_light_store(struct bt_vcpu *v, uint32_t gva, uint32_t value, struct bt_light *regs);
uint32_t bt_light_invlpg(struct bt_vcpu *v, uint32_t gva, uint32_t unused, struct bt_light *regs);
uint32_t bt_light_look(struct bt_vcpu *v, uint32_t gva, uint32_t site, struct bt_light *regs);
uint32_t bt_light_string(struct bt_vcpu *v, uint32_t site, uint32_t unused, struct bt_light *regs);
/* verify.c: true when [host, end) obeys the isolation rules; else a sentence in v->reason */
bool bt_verify_block(struct bt_vcpu *v, const struct bt_block *b);
/* direct.c; v->direct must be there except where said */
void bt_direct_destroy(struct bt_vcpu *v); /* may be NULL; same for the next */
void bt_direct_reset(struct bt_vcpu *v);
bool bt_direct_stepping(struct bt_vcpu *v);              /* bt_direct_step was called: now is the time */
bool bt_direct_wanted(struct bt_vcpu *v, uint32_t mode); /* hand over here? */
bool bt_direct_owns(const struct bt_vcpu *v, unsigned space, uint64_t gpa); /* no jump table may lead there */
void bt_direct_revoke(struct bt_vcpu *v,
                      uint64_t gpa); /* bytes of the page are about to change; may be NULL */
void bt_direct_block(struct bt_vcpu *v, const struct bt_block *b); /* a block was translated; may be NULL */
/* spt_ops: what followers are told, with the right to execute where the scan allows */
void bt_direct_map(void *ctx, unsigned space, uint32_t gva, uint64_t gpa, uint64_t len, int prot);
void bt_direct_unmap(void *ctx, unsigned space, uint32_t gva, uint64_t len);
void bt_direct_dropped(void *ctx, unsigned space, bool gone);
/* dump.c */
void bt_dump_block(struct bt_vcpu *v, const struct bt_block *b, FILE *out);

#endif
