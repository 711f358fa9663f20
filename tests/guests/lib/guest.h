/*
 * The test guests' runtime: enough of an operating system to put the CPU into any state, let it fault, see
 * what it delivered, and say so on COM1.
 *
 * A guest defines guest_main(). It states facts with check() and check_eq(); the number of facts that do not
 * hold becomes the debug-exit value (0: all hold). Everything runs flat and identity-mapped unless the guest
 * changes it.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "selectors.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;

void guest_main(void);

/* ---- Facts. Formats know %s %d %u %x %X (8 digits) %c and %%. ---- */
void print(const char *fmt, ...);
bool check(bool fact, const char *name, ...);
bool check_eq(u32 got, u32 want, const char *name, ...);
void quiet_checks(bool quiet); /* print only what fails, for loops of thousands */
_Noreturn void guest_finish(void);
_Noreturn void guest_exit_value(u32 value);
void *memset(void *p, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* ---- Traps. ---- */
struct frame {
    u32 gs, fs, es, ds;
    u32 edi, esi, ebp, esp_at_pusha, ebx, edx, ecx, eax;
    u32 vector, error;
    u32 eip, cs, eflags;
    u32 esp, ss;                        /* only after a ring change */
    u32 v86_es, v86_ds, v86_fs, v86_gs; /* only from V86 mode */
};
struct trap { /* what the last TRY ended with; vector is NO_TRAP when nothing happened */
    u32 vector, error, eip, cs, eflags, esp, ss, cr2, dr6, eax, ecx, edx, ebx, ebp, esi, edi;
    u16 ds, es, fs, gs;
};
#define NO_TRAP 0xffffu
extern volatile struct trap trap;
/* A hook that returns true has dealt with the trap: the interrupted code goes on with the frame as edited. */
typedef bool (*trap_hook_fn)(struct frame *f);
extern trap_hook_fn trap_hook[256];

struct context {
    u32 ebx, esi, edi, ebp, esp, eip;
};
int context_save(struct context *c) __attribute__((returns_twice));
_Noreturn void context_restore(const struct context *c);
extern struct context try_context;
void try_begin(void);
void try_end(void);
/* Run code; a trap in it ends it and is recorded in `trap`. Interrupts are off afterwards. */
#define TRY(...)                                                                                             \
    do {                                                                                                     \
        try_begin();                                                                                         \
        if (!context_save(&try_context)) {                                                                   \
            __VA_ARGS__;                                                                                     \
        }                                                                                                    \
        try_end();                                                                                           \
    } while (0)

/* FAULTING("insn", : outputs : inputs : clobbers): an instruction whose address is what the trap should
 * report. */
extern volatile u32 fault_eip;
#define FAULTING(insn, ...) __asm__ volatile("movl $77f, fault_eip\n77: " insn __VA_ARGS__)
#define ANY_ERROR           0xdeadu
/* The fact "name: vector, error (if the vector has one), EIP at the FAULTING instruction". */
bool check_trap(u32 vector, u32 error, const char *name, ...);
bool check_trap_anywhere(u32 vector, u32 error, const char *name, ...); /* EIP not looked at */

/* For functions whose assembly defines global labels: there must be one copy of them. */
#ifdef __clang__
#define ONE_COPY __attribute__((noinline))
#else
#define ONE_COPY __attribute__((noinline, noclone))
#endif

/* ---- Rings. fn(arg) runs on a stack of its own in the given ring; its result is trap.eax when trap.vector
 * is VEC_RETURN. ---- */
extern u32 ring_eflags; /* EFLAGS it starts with; 2 after boot */
void ring_call(unsigned ring, u32 (*fn)(u32), u32 arg);
struct descent {
    u32 eip, cs, eflags, esp, ss, data;
};
_Noreturn void ring_descend(const struct descent *d);
extern const char ring_return[];
u32 ring_stack_top(unsigned ring);

/* ---- Descriptors. ---- */
enum { /* access byte and flags as they stand in descriptor bits 40-47, 52-55 (shifted down by 40) */
       D_ACCESSED = 1,
       D_CODE_R = 0x9a,
       D_DATA_W = 0x92,
       D_DPL1 = 0x20,
       D_DPL2 = 0x40,
       D_DPL3 = 0x60,
       D_32 = 0x4000,
       D_4K = 0x8000,
       D_LDT = 0x82,
       D_TSS = 0x89,
       D_TSS16 = 0x81,
};
struct table {
    u16 limit;
    u32 base;
} __attribute__((packed));
struct tss {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es,
        cs, ss, ds, fs, gs, ldt;
    u16 trace, iomap;
    u8 bitmap[8193];
} __attribute__((packed, aligned(4)));
extern u64 gdt[GDT_SLOTS], idt[256];
extern struct tss tss;
extern const u32 trap_stubs[256];
u64 descriptor(u32 base, u32 limit, u32 flags);
/* type_dpl: 0x8e interrupt gate, 0x8f trap gate, 0x8c call gate, 0x85 task gate, | DPL << 5 */
u64 gate(u32 selector, u32 offset, u32 type_dpl, u32 params);
/* Put a descriptor in test slot n (0..); returns its selector with RPL 0. */
u16 gdt_test(unsigned n, u64 desc);
void idt_set(unsigned vector, u32 handler, u32 type_dpl);
void load_gdt(const void *base, u32 limit);
void load_idt(const void *base, u32 limit);

/* ---- Registers and ports. ---- */
#define READ_CR(n)                                                                                           \
    ({                                                                                                       \
        u32 v_;                                                                                              \
        __asm__ volatile("movl %%cr" #n ", %0" : "=r"(v_));                                                  \
        v_;                                                                                                  \
    })
#define WRITE_CR(n, v) __asm__ volatile("movl %0, %%cr" #n : : "r"((u32)(v)) : "memory")
#define READ_DR(n)                                                                                           \
    ({                                                                                                       \
        u32 v_;                                                                                              \
        __asm__ volatile("movl %%db" #n ", %0" : "=r"(v_));                                                  \
        v_;                                                                                                  \
    })
#define WRITE_DR(n, v) __asm__ volatile("movl %0, %%db" #n : : "r"((u32)(v)))
#define READ_SEG(s)                                                                                          \
    ({                                                                                                       \
        u32 v_;                                                                                              \
        __asm__ volatile("movl %%" #s ", %0" : "=r"(v_));                                                    \
        v_;                                                                                                  \
    })
static inline void invlpg(const volatile void *p)
{
    __asm__ volatile("invlpg (%0)" : : "r"(p) : "memory");
}
static inline void outb(u16 port, u8 v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outl(u16 port, u32 v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline u8 inb(u16 port)
{
    u8 v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u16 inw(u16 port)
{
    u16 v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u32 inl(u16 port)
{
    u32 v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u64 rdtsc(void)
{
    u64 v;
    __asm__ volatile("rdtsc" : "=A"(v));
    return v;
}
static inline u32 eflags(void)
{
    u32 v;
    __asm__ volatile("pushfl; popl %0" : "=r"(v));
    return v;
}
static inline void cpuid(u32 leaf, u32 *a, u32 *b, u32 *c, u32 *d)
{
    __asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "a"(leaf), "c"(0));
}
/* CPUID's hypervisor signature is QEMU's TCG: for the few deeds TCG would not survive. */
bool on_tcg(void);
u64 rdmsr(u32 n);
void wrmsr(u32 n, u64 v);

/* ---- Paging. Pages come from a bump allocator above the image; nothing is ever freed. ---- */
enum { P = 1, W = 2, U = 4, PWT = 8, PCD = 16, ACC = 32, DIRTY = 64, PS = 128, GLOBAL = 256 };
enum { CR0_TS = 8, CR0_NE = 32, CR0_EM = 4, CR0_MP = 2, CR0_WP = 0x10000, CR0_AM = 0x40000 };
#define CR0_PG 0x80000000u
enum {
    CR4_TSD = 4,
    CR4_DE = 8,
    CR4_PSE = 16,
    CR4_PAE = 32,
    CR4_PGE = 128,
    CR4_OSFXSR = 512,
    CR4_OSXMM = 1024
};
#define NX (1ull << 63)
enum { IDENTITY_MIB = 32 };

void *page_alloc(void); /* zeroed, 4 KiB aligned */
u8 *page_random(void);  /* the same with random bytes */
u32 random32(void);     /* the same numbers each time */
/* 32-bit: a directory that maps the first IDENTITY_MIB one to one with 4 KiB pages, supervisor or user. */
u32 *pd_create(u32 flags);
u32 *pte32(u32 *pd, u32 va); /* makes the page table (P|W|U) when there is none */
void map32(u32 *pd, u32 va, u32 pa, u32 flags);
/* PAE: returns the page of the four PDPTEs. */
u64 *pdpt_create(u32 flags);
u64 *pte64(u64 *pdpt, u32 va);
void map64(u64 *pdpt, u32 va, u64 pa, u64 flags);
u64 *pde64(u64 *pdpt, u32 va);
void paging_on(const void *root, u32 cr4_bits);
void paging_off(void);
static inline void flush_tlb(void)
{
    WRITE_CR(3, READ_CR(3));
}

/* One access to a linear address, from ring 0 or 3. Returns ACCESS_OK, the error code of the #PF (whose CR2
 * and EIP it has checked against the access), or ACCESS_OTHER when another exception came. */
enum access { READ, WRITE, EXEC };
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };
enum { ACCESS_OK = 0x100, ACCESS_OTHER = 0x200 };
u32 access_page(unsigned ring, enum access how, u32 va);
/* What an EXEC access needs to find in the page. */
enum { OPCODE_RET = 0xc3 };

/* ---- Interrupt controller and timer. Vectors 20h-2Fh; everything masked after boot. ---- */
void pic_mask(u16 mask); /* bit set: masked */
void pic_eoi(unsigned irq);
void pit_periodic(u32 hz);
void pit_oneshot(u32 ticks);
void pit_stop(void);
extern volatile u32 irq_count[16]; /* counted and acknowledged by the default handler */
static inline void sti(void)
{
    __asm__ volatile("sti" : : : "memory");
}
static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}

#endif
