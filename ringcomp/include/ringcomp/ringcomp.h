/*
 * ringcomp: the privilege machinery of the 32-bit x86 in software. The vCPU's visible and hidden state,
 * descriptor loading, gates, exceptions and interrupts, IRET, task switches, SYSENTER/SYSEXIT, control and
 * debug registers, MSRs, CPUID, and the table of sensitive instructions.
 *
 * Knows shadowpt (guest memory) and nothing of decoding or translation. Section numbers: Intel SDM vol. 3
 * unless said.
 *
 * Contract of every rc_* function that returns enum rc_result: RC_OK, done; RC_FAULT, cpu->fault describes an
 * exception to deliver and no architectural state has changed (but for A/D and descriptor-accessed bits, as
 * on hardware). The caller restores EIP/ESP if it moved them, then calls rc_deliver_fault.
 */
#ifndef RINGCOMP_RINGCOMP_H
#define RINGCOMP_RINGCOMP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "shadowpt/shadowpt.h"

enum rc_gpr { RC_EAX, RC_ECX, RC_EDX, RC_EBX, RC_ESP, RC_EBP, RC_ESI, RC_EDI };
enum rc_seg_name { RC_ES, RC_CS, RC_SS, RC_DS, RC_FS, RC_GS, RC_TR, RC_LDTR, RC_SEG_COUNT };

enum { /* EFLAGS */
       RC_CF = 1 << 0,
       RC_PF = 1 << 2,
       RC_AF = 1 << 4,
       RC_ZF = 1 << 6,
       RC_SF = 1 << 7,
       RC_TF = 1 << 8,
       RC_IF = 1 << 9,
       RC_DF = 1 << 10,
       RC_OF = 1 << 11,
       RC_IOPL = 3 << 12,
       RC_NT = 1 << 14,
       RC_RF = 1 << 16,
       RC_VM = 1 << 17,
       RC_AC = 1 << 18,
       RC_VIF = 1 << 19,
       RC_VIP = 1 << 20,
       RC_ID = 1 << 21,
       RC_ARITH = RC_CF | RC_PF | RC_AF | RC_ZF | RC_SF | RC_OF,
};
enum {
    RC_CR0_PE = 1,
    RC_CR0_MP = 2,
    RC_CR0_EM = 4,
    RC_CR0_TS = 8,
    RC_CR0_ET = 16,
    RC_CR0_NE = 32,
    RC_CR0_WP = 1 << 16,
    RC_CR0_AM = 1 << 18,
    RC_CR0_NW = 1 << 29,
    RC_CR0_CD = 1 << 30
};
#define RC_CR0_PG UINT32_C(0x80000000)
enum {
    RC_CR4_VME = 1,
    RC_CR4_PVI = 2,
    RC_CR4_TSD = 4,
    RC_CR4_DE = 8,
    RC_CR4_PSE = 16,
    RC_CR4_PAE = 32,
    RC_CR4_MCE = 64,
    RC_CR4_PGE = 128,
    RC_CR4_PCE = 256,
    RC_CR4_OSFXSR = 512,
    RC_CR4_OSXMMEXCPT = 1024,
    RC_CR4_OSXSAVE = 1 << 18
};
enum {
    RC_DE,
    RC_DB,
    RC_NMI,
    RC_BP,
    RC_OF_TRAP,
    RC_BR,
    RC_UD,
    RC_NM,
    RC_DF_ABORT,
    RC_TS = 10,
    RC_NP,
    RC_SSF,
    RC_GP,
    RC_PFAULT,
    RC_MF = 16,
    RC_AC_FAULT,
    RC_MC,
    RC_XM
};

/* Visible and hidden part of a segment register (3.4.3). limit is in bytes, already scaled. attr: bits 40-47
 * and 52-55 of the descriptor as they stand (type 0-3, S 4, DPL 5-6, P 7, AVL 12, D/B 14, G 15). A null
 * selector in a data segment register has attr P = 0. */
struct rc_seg {
    uint32_t base, limit;
    uint16_t selector, attr;
    /* For translated code, kept by rc_seg_changed: base in the low half; the high half is RC_SOFT_ODD when
     * the segment is anything else than a present, expand-up, writable data segment of limit 4 GiB - 1, else
     * 0, so that window + soft + high half * 8 lies in the window's guard and faults. */
    uint64_t soft;
};
enum {
    RC_ATTR_A = 1,
    RC_ATTR_W = 2 /* data: writable; code: readable */,
    RC_ATTR_E = 4 /* expand down; conforming */,
    RC_ATTR_CODE = 8,
    RC_ATTR_S = 16,
    RC_ATTR_P = 128,
    RC_ATTR_DB = 1 << 14,
    RC_ATTR_G = 1 << 15
};
static inline unsigned rc_attr_dpl(unsigned attr)
{
    return attr >> 5 & 3;
}

#define RC_SOFT_ODD UINT64_C(0x20000000)

struct rc_table {
    uint32_t base;
    uint16_t limit;
};

struct rc_fault {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint32_t cr2; /* #PF */
    uint32_t dr6; /* #DB: bits to set */
};

struct rc_config {                     /* what CPUID shows; --cpu masks */
    uint32_t feature_edx, feature_ecx; /* leaf 1 */
    uint32_t ext_edx, ext_ecx;         /* leaf 80000001 */
    bool stable_tsc;
    uint32_t feature7_ebx, feature7_edx; /* leaf 7 subleaf 0 */
    uint32_t featured_eax;               /* leaf 0Dh subleaf 1 */
};

/* A CPUID leaf of the host's as it was found. Executing CPUID costs microseconds in a virtual machine, and
 * every program a guest starts does it dozens of times. */
struct rc_host_leaf {
    uint32_t leaf, subleaf, value[4]; /* EAX EBX ECX EDX */
};
#define RC_HOST_LEAVES 24

/* State components (vol. 1 13.1), and where a standard XSAVE area has them. */
enum {
    RC_XCR0_X87 = 1,
    RC_XCR0_SSE = 2,
    RC_XCR0_AVX = 4,
    RC_XSAVE_XSTATE_BV = 512,
    RC_XSAVE_HEADER_END = 576,
    RC_XSAVE_YMM_HIGH = 576, /* 16 bytes for each of YMM0-15 */
    RC_XSAVE_BYTES = 832,
};

/* Time and machine, wired by monitor. */
struct rc_ops {
    void *ctx;
    uint64_t (*tsc)(void *ctx);
};

/*
 * The architectural state. bt addresses the first 128 bytes with one-byte displacements.
 * eflags holds all bits except IF, which is in iflag: read and write through rc_eflags/rc_set_eflags.
 */
struct rc_cpu {
    uint32_t gpr[8]; /* enum rc_gpr */
    uint32_t eip; /* of the next instruction; inside an instruction: of that instruction, until it commits */
    uint32_t eflags; /* without IF; bit 1 always set */
    uint8_t iflag;   /* IF: 0 or 1 */
    uint8_t cpl;
    uint8_t irq_shadow; /* 1 after STI/MOV SS/POP SS until the next instruction has completed */
    uint8_t halted;
    volatile uint32_t
        request; /* set by others (kick, interrupt line): leave guest code at the next boundary */
    struct rc_seg seg[RC_SEG_COUNT];
    struct rc_table gdtr, idtr;
    uint32_t cr0, cr2, cr3, cr4;
    uint32_t dr[8];
    uint64_t efer; /* NXE only */
    uint32_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_offset, pat, mtrr_def, misc_enable;
    uint64_t spec_ctrl; /* stored only */
    uint64_t mtrr[32];  /* fixed and variable MTRRs, stored only */
    struct rc_fault fault;
    struct spt *spt;
    struct rc_ops ops;
    struct rc_config config;
    uint64_t exceptions[32], interrupts, irets, sysexits, software_ints, task_switches; /* counters */
    FILE *trace;      /* --trace=exception: a line per delivery; NULL off */
    uint8_t shutdown; /* triple fault happened: 1 */
    uint8_t host_leaf_count;
    struct rc_host_leaf host_leaf[RC_HOST_LEAVES]; /* filled as the guest asks */
    uint32_t xcr0; /* XCR0, of which 32 bits are more than exist; written by rc_xsetbv */
    uint8_t
        avx; /* VEX-coded vector instructions exist now: CR4.OSXSAVE and XCR0[2:1], kept by rc_xstate_changed */
    /* XSAVE image, standard format, when not in the hardware (vol. 1 13.4): x87 and SSE are always valid in its first
     * 512 bytes, as FXSAVE64 lays them out; the upper halves of YMM0-7 are there when XSTATE_BV says so, else zero. */
    uint8_t fpu[RC_XSAVE_BYTES] __attribute__((aligned(64)));
};

/* Can the guest be offered AVX? Then its vector state is more than FXSAVE moves. */
static inline bool rc_has_avx(const struct rc_config *c)
{
    return c->feature_ecx >> 28 & 1;
}

enum rc_result { RC_OK, RC_FAULT };

void rc_config_host(struct rc_config *c); /* features of this host a guest may use */
/* "-sse4.2,-popcnt": clears features by name; "" fine; error for unknown names. */
int rc_config_mask(struct rc_config *c, const char *spec, struct host_err *err);
void rc_cpu_init(struct rc_cpu *cpu, struct spt *spt, const struct rc_config *config,
                 const struct rc_ops *ops);
/* Power-on state (table 10-1) with FINIT FPU. */
void rc_cpu_reset(struct rc_cpu *cpu);
/* The state both the Linux 32-bit boot protocol and Multiboot ask for: flat CS/DS/ES/SS/FS/GS in hidden parts
 * with the given selectors, PE=1, PG=0, IF=0, CPL 0. */
void rc_cpu_flat(struct rc_cpu *cpu, uint16_t cs, uint16_t ds);

/* ---- Flags ---- */
static inline uint32_t rc_eflags(const struct rc_cpu *cpu)
{
    return cpu->eflags | (uint32_t)cpu->iflag << 9;
}
/* Raw: every bit as given (bit 1 forced, undefined bits cleared). */
void rc_set_eflags(struct rc_cpu *cpu, uint32_t value);
/* POPF/POPFD semantics by CPL, IOPL, VM (SDM vol. 2 POPF); size 2 or 4. PUSHF's value. */
enum rc_result rc_popf(struct rc_cpu *cpu, uint32_t value, unsigned size);
enum rc_result rc_pushf_value(struct rc_cpu *cpu, uint32_t *value); /* #GP in V86 with IOPL<3 */

/* ---- Faults ---- */
enum rc_result rc_raise(struct rc_cpu *cpu, unsigned vector); /* no error code; sets cpu->fault */
enum rc_result rc_raise_error(struct rc_cpu *cpu, unsigned vector, uint32_t error);
enum rc_result rc_raise_pf(struct rc_cpu *cpu, const struct spt_info *info);
/* Deliver cpu->fault at cpu->eip (6.12-6.15), with double- and triple-fault rules. After it EIP is the
 * handler's, or cpu->shutdown is set. */
void rc_deliver_fault(struct rc_cpu *cpu);
/* External interrupt: the caller has checked iflag and irq_shadow. Clears halted. */
void rc_deliver_irq(struct rc_cpu *cpu, uint8_t vector);
/* INT n, INT3, INTO (as vector 3/4 with is_int_n false): return_eip is that of the following instruction. */
enum rc_result rc_software_int(struct rc_cpu *cpu, uint8_t vector, bool is_int_n, uint32_t return_eip);

/* ---- Memory through segments: full checks (limit, type, null, expand-down, #SS/#GP), then paging. off is
 * the effective address; len 1..16 (or up to 512 for FXSAVE). For CPL, pass cpu's own. ---- */
enum rc_result rc_linear(struct rc_cpu *cpu, unsigned seg, uint32_t off, unsigned len, bool write,
                         uint32_t *lin);
enum rc_result rc_read(struct rc_cpu *cpu, unsigned seg, uint32_t off, void *buf, unsigned len);
enum rc_result rc_write(struct rc_cpu *cpu, unsigned seg, uint32_t off, const void *buf, unsigned len);
/* Checks that both a read and a write of this range will succeed (read-modify-write). */
enum rc_result rc_check_rmw(struct rc_cpu *cpu, unsigned seg, uint32_t off, unsigned len);
/* Stack by SS.B; size 2 or 4 (operand size). push leaves ESP unchanged when it faults. */
enum rc_result rc_push(struct rc_cpu *cpu, uint32_t value, unsigned size);
enum rc_result rc_pop(struct rc_cpu *cpu, uint32_t *value, unsigned size);
/* Instruction fetch bytes at CS:off (limit-checked): up to want bytes, stopping before the first byte that
 * faults. Returns how many; if 0 cpu->fault is set. */
unsigned rc_fetch(struct rc_cpu *cpu, uint32_t off, uint8_t *buf, unsigned want);

/* ---- Segments and far transfers (5.x, 3.5, vol. 2) ---- */
enum rc_result rc_load_seg(struct rc_cpu *cpu, unsigned seg, uint16_t selector); /* ES SS DS FS GS (not CS) */
enum rc_result rc_far_jmp(struct rc_cpu *cpu, uint16_t selector, uint32_t off, unsigned opsize,
                          uint32_t next_eip);
enum rc_result rc_far_call(struct rc_cpu *cpu, uint16_t selector, uint32_t off, unsigned opsize,
                           uint32_t next_eip);
enum rc_result rc_far_ret(struct rc_cpu *cpu, unsigned opsize, uint16_t release);
enum rc_result rc_iret(struct rc_cpu *cpu, unsigned opsize, uint32_t next_eip);
/* The common cases of rc_load_seg (not SS), of rc_software_int by INT n and of rc_iret with opsize 4, all in protected
 * mode: flat segments, and pages that the doors know. False: nothing has changed, go the other way. They call nobody and
 * touch nothing but the vCPU and guest RAM, no thread-local data in particular. */
bool rc_quick_load(struct rc_cpu *cpu, unsigned seg, uint16_t selector);
bool rc_quick_int(struct rc_cpu *cpu, uint8_t vector, uint32_t return_eip);
bool rc_quick_iret(struct rc_cpu *cpu);
enum rc_result rc_sysenter(struct rc_cpu *cpu);
enum rc_result rc_sysexit(struct rc_cpu *cpu);
/* LAR LSL VERR VERW: *value and return ZF through *zf. ARPL is in the interpreter. */
enum rc_result rc_lar(struct rc_cpu *cpu, uint16_t sel, uint32_t *value, bool *zf);
enum rc_result rc_lsl(struct rc_cpu *cpu, uint16_t sel, uint32_t *value, bool *zf);
enum rc_result rc_verr(struct rc_cpu *cpu, uint16_t sel, bool write, bool *zf);

/* ---- System instructions. All check CPL (and UMIP-less silent reads). lin operands were fetched by the
 * caller. ---- */
enum rc_result rc_lldt(struct rc_cpu *cpu, uint16_t sel);
enum rc_result rc_ltr(struct rc_cpu *cpu, uint16_t sel);
enum rc_result rc_lgdt(struct rc_cpu *cpu, uint32_t base, uint16_t limit);
enum rc_result rc_lidt(struct rc_cpu *cpu, uint32_t base, uint16_t limit);
enum rc_result rc_lmsw(struct rc_cpu *cpu, uint16_t value);
enum rc_result rc_clts(struct rc_cpu *cpu);
enum rc_result rc_mov_from_cr(struct rc_cpu *cpu, unsigned n, uint32_t *value);
enum rc_result rc_mov_to_cr(struct rc_cpu *cpu, unsigned n,
                            uint32_t value); /* drives spt_set_paging/spt_set_cr3 */
enum rc_result rc_mov_from_dr(struct rc_cpu *cpu, unsigned n, uint32_t *value);
enum rc_result rc_mov_to_dr(struct rc_cpu *cpu, unsigned n, uint32_t value);
enum rc_result rc_rdmsr(struct rc_cpu *cpu); /* ECX -> EDX:EAX */
enum rc_result rc_wrmsr(struct rc_cpu *cpu);
enum rc_result rc_xgetbv(struct rc_cpu *cpu); /* ECX -> EDX:EAX; #UD without CR4.OSXSAVE */
enum rc_result rc_xsetbv(struct rc_cpu *cpu);
enum rc_result rc_rdtsc(struct rc_cpu *cpu); /* EDX:EAX; CR4.TSD */
enum rc_result rc_rdpmc(struct rc_cpu *cpu);
enum rc_result rc_cpuid(struct rc_cpu *cpu);
enum rc_result rc_invlpg(struct rc_cpu *cpu, uint32_t lin);
enum rc_result rc_invd(struct rc_cpu *cpu); /* INVD, WBINVD */
enum rc_result rc_hlt(struct rc_cpu *cpu);  /* sets halted */
enum rc_result rc_cli(struct rc_cpu *cpu);
enum rc_result rc_sti(struct rc_cpu *cpu); /* sets irq_shadow when IF went 0 to 1 */
/* IN OUT INS OUTS: IOPL and the TSS' I/O permission bitmap. */
enum rc_result rc_check_io(struct rc_cpu *cpu, uint16_t port, unsigned size);
/* #NM / #UD rules for x87 and MMX/SSE instructions, and pending x87 exceptions are the caller's. */
enum rc_result rc_check_x87(struct rc_cpu *cpu, bool is_wait);
enum rc_result rc_check_sse(struct rc_cpu *cpu, bool is_mmx);
/* The same for VEX-coded vector instructions (vol. 2 table 2-14 and following), and for XSAVE and its kin. */
enum rc_result rc_check_avx(struct rc_cpu *cpu);
enum rc_result rc_check_xsave(struct rc_cpu *cpu);
/* #AC wanted? CR0.AM, EFLAGS.AC, CPL 3. */
bool rc_alignment_checked(const struct rc_cpu *cpu);

/* ---- What translated code may assume: a key that two moments share iff the same translation is right for
 * both. ---- */
enum {
    RC_MODE_USER = 1,     /* CPL 3 */
    RC_MODE_FPU_TRAP = 2, /* CR0.TS or EM set: x87 must be executed by the interpreter */
    RC_MODE_NO_SSE = 4,   /* CR4.OSFXSR clear (or EM, TS) */
    RC_MODE_DS_ODD = 8,   /* not flat (base 0, limit 4 GiB - 1, writable) */
    RC_MODE_ES_ODD = 16,
    RC_MODE_SS_ODD = 32,
    RC_MODE_IOPL = 64,    /* CPL <= IOPL: CLI/STI/POPF may change IF */
    RC_MODE_INTERP = 128, /* the translator cannot run this at all: CS not flat or 16-bit, SS.B = 0, VM, PE =
                             0, TF, enabled breakpoints in DR7, alignment checking on, CPL 3 without paging */
    RC_MODE_NO_AVX = 256, /* CR4.OSXSAVE or XCR0[2:1] clear (or EM, TS) */
};
unsigned rc_mode(const struct rc_cpu *cpu);

/* ---- Direct execution: user code in a world (host.h). ---- */
/* Can user code run natively from here? CPL 3 in flat 32-bit code, IF set, IOPL 0, no odd flags, no breakpoints, FPU and
 * SSE usable. */
bool rc_direct_possible(const struct rc_cpu *cpu);

#define RC_WORLD_SLOTS 32u
struct rc_world { /* what a world's LDT holds; one per world */
    struct rc_world_slot {
        struct host_world_segment seg;
        uint16_t guest; /* the guest's selector */
        uint32_t used;  /* when last; 0: empty */
    } slot[RC_WORLD_SLOTS];
    uint16_t sel[6]; /* entered with, by enum rc_seg_name */
    uint32_t clock;
};
void rc_world_init(struct rc_world *w); /* of a new world, or one whose LDT is no longer known */
/* Put a descriptor into the world's LDT; nonzero: the host refuses it. */
typedef int (*rc_world_install)(void *ctx, unsigned index, const struct host_world_segment *seg);
/* *st becomes the guest's state, the FPU's in cpu->fpu included. False: a segment cannot be installed. */
bool rc_world_enter(struct rc_cpu *cpu, struct rc_world *w, struct host_world_state *st,
                    rc_world_install install, void *ctx);
enum rc_world_left {
    RC_WORLD_SAME,     /* the state is the guest's again */
    RC_WORLD_RELOADED, /* and a segment register was loaded in there: a fault may have come of that, try again */
    RC_WORLD_FAULT,    /* a segment register holds what the guest could not have loaded: deliver cpu->fault */
};
/* The state a world was left with, all of it guest input, becomes the guest's. */
enum rc_world_left rc_world_leave(struct rc_cpu *cpu, const struct rc_world *w,
                                  const struct host_world_state *st);

/* ---- The sensitive-instruction table: ringcomp/include/ringcomp/sensitive.def ---- */
enum rc_reason {
    RC_TRAPS,  /* privileged: #GP outside ring 0; must be emulated */
    RC_SILENT, /* behaves differently outside ring 0 without trapping (POPF, LAR ...) */
    RC_LEAKS,  /* reveals host state without trapping (SGDT, SMSW, PUSHF, MOV from CS ...) */
};
struct rc_sensitive {
    const char *mnemonic; /* as Zydis names it, lower case */
    const char *form;     /* operand form when only some forms are sensitive ("sreg, r/m16"), else "" */
    enum rc_reason reason;
    const char *why;    /* one sentence */
    const char *action; /* what ringlet does instead */
};
extern const struct rc_sensitive rc_sensitive_table[];
extern const unsigned rc_sensitive_count;

#endif
