/*
 * Instructions whose operand lies in pages that are mapped for one use only, again and again at the same
 * address (what Linux does with kmap): ringlet gives such sites a form of their own. Each is compared with the
 * same instruction on ordinary memory: result, flags, bytes; inside a page and across two; in ring 0 and 3.
 * Then faults, A and D bits, code, page tables, and loops that use one page for long.
 */
#include "lib/guest.h"

enum { SLOT = 0x40000000, HOME = 0x48000000, FRAMES = 8, ROUNDS = 48 };

static u32 *pd;
static u8 *frame[FRAMES];
static u32 slot_flags;

/* A double page whose second half is another frame's: nothing contiguous in physical memory. */
static void remap(u32 i)
{
    *pte32(pd, SLOT) = (u32)frame[i % FRAMES] | slot_flags;
    *pte32(pd, SLOT + 4096) = (u32)frame[(i * 5 + 3) % FRAMES] | slot_flags;
    invlpg((void *)SLOT);
    invlpg((void *)(SLOT + 4096));
}

struct outcome {
    u32 eax, edx, flags;
};

/* Flags in, one instruction on (%ecx) with EAX and EDX, flags out. ECX is the base on purpose: the look-up
 * borrows it. */
#define OP(n, text)                                                                                          \
    case n:                                                                                                  \
        __asm__ volatile("pushl %2; popfl; " text "; pushfl; popl %2"                                        \
                         : "+a"(o.eax), "+d"(o.edx), "+r"(o.flags), "+c"(p)                                  \
                         :                                                                                   \
                         : "memory", "cc", "esi");                                                           \
        break;
enum { OPS = 38 };
static inline __attribute__((always_inline)) struct outcome run(unsigned n, void *p, struct outcome o)
{
    switch (n) {
        OP(0, "movl (%%ecx), %%eax")
        OP(1, "movl (%%ecx), %%ecx; movl %%ecx, %%eax")
        OP(2, "movzbl (%%ecx), %%eax")
        OP(3, "movswl (%%ecx), %%eax")
        OP(4, "movw (%%ecx), %%ax")
        OP(5, "movb (%%ecx), %%al")
        OP(6, "movb (%%ecx), %%ah")
        OP(7, "movl %%eax, (%%ecx)")
        OP(8, "movw %%ax, (%%ecx)")
        OP(9, "movb %%al, (%%ecx)")
        OP(10, "movb %%dh, (%%ecx)")
        OP(11, "movl $0x12345678, (%%ecx)")
        OP(12, "addl %%eax, (%%ecx)")
        OP(13, "addl (%%ecx), %%eax")
        OP(14, "adcl %%eax, (%%ecx)")
        OP(15, "sbbl (%%ecx), %%eax")
        OP(16, "xchgl %%eax, (%%ecx)")
        OP(17, "lock xaddl %%eax, (%%ecx)")
        OP(18, "lock cmpxchgl %%edx, (%%ecx)")
        OP(19, "incl (%%ecx)")
        OP(20, "decb (%%ecx)")
        OP(21, "shll $3, (%%ecx)")
        OP(22, "rcrl $1, (%%ecx)")
        OP(23, "cmpl %%eax, (%%ecx)")
        OP(24, "testb $0x55, (%%ecx)")
        OP(25, "notl (%%ecx)")
        OP(26, "negl (%%ecx)")
        OP(27, "setc (%%ecx)")
        OP(28, "cmovcl (%%ecx), %%eax")
        OP(29, "btl $5, (%%ecx)")
        OP(30, "andl $31, %%eax; btsl %%eax, (%%ecx)")
        OP(31, "orl $-32, %%eax; btcl %%eax, 4(%%ecx)") /* reaches the word before its operand */
        OP(32, "shldl $7, %%eax, (%%ecx)")
        OP(33, "pushl (%%ecx); popl %%eax")
        OP(34, "pushl %%eax; popl (%%ecx)")
        OP(35, "fldt (%%ecx); fchs; fstpt (%%ecx)")
        OP(36, "imull $7, (%%ecx), %%eax; testl %%eax, %%eax") /* IMUL leaves SF, ZF, AF, PF undefined */
        OP(37, "movl (%%ecx), %%esi; movl %%esi, %%eax")
    }
    o.flags &= 0x8d5;
    if (n == 32)
        o.flags &= ~0x810u; /* AF and, for a count above 1, OF are undefined */
    if (n == 21 || n == 36)
        o.flags &= ~0x810u;
    return o;
}

static u8 home[2 * 4096] __attribute__((aligned(4096)));

static __attribute__((noinline)) struct outcome on_slot(unsigned n, u32 at, struct outcome o)
{
    return run(n, (void *)(SLOT + at), o);
}

static __attribute__((noinline)) struct outcome at_home(unsigned n, u32 at, struct outcome o)
{
    return run(n, home + at, o);
}

static const u16 offsets[] = {0x10, 0x7f3, 0xff4, 0xff8, 0xffc, 0xffd, 0xffe, 0xfff, 0x1000, 0x1010};
enum { OFFSETS = sizeof offsets / sizeof *offsets };

static struct {
    u32 op, at;
    struct outcome got, want;
} wrong;
/* One instruction, both ways; any ring. Bytes around the operand are copied home before and compared after. */
static u32 one(u32 n)
{
    u32 at = offsets[random32() % OFFSETS];
    volatile u8 *slot = (volatile u8 *)(SLOT + at - 8), *copy = home + at - 8;
    struct outcome in = {random32(), random32(), (random32() & 0x8d5) | 2};
    for (unsigned i = 0; i < 32; i++)
        copy[i] = slot[i];
    wrong.got = on_slot(n, at, in);
    wrong.want = at_home(n, at, in);
    wrong.op = n;
    wrong.at = at;
    u32 differ = wrong.got.eax != wrong.want.eax || wrong.got.edx != wrong.want.edx ||
                 wrong.got.flags != wrong.want.flags;
    for (unsigned i = 0; i < 32; i++)
        differ |= (copy[i] != slot[i]) << 1;
    return differ;
}

static void compare(unsigned ring)
{
    for (unsigned i = 0; i < ROUNDS * OPS; i++) {
        remap(random32() >> 8);
        u32 bad = 0;
        if (ring == 0)
            bad = one(i % OPS);
        else {
            ring_call(3, one, i % OPS);
            check_eq(trap.vector, VEC_RETURN, "ring %u, instruction %u", ring, i % OPS);
            bad = trap.eax;
        }
        check(!bad, "ring %u, instruction %u at %x: eax %x, not %x; flags %x, not %x; memory %s", ring,
              wrong.op, wrong.at, wrong.got.eax, wrong.want.eax, wrong.got.flags, wrong.want.flags,
              bad & 2 ? "differs" : "equal");
    }
}

/* ---- One load and one store, at sites that are used to it ---- */
static __attribute__((noinline)) u32 load(u32 at)
{
    u32 v;
    FAULTING("movl (%1), %0", : "=r"(v) : "r"(at) : "memory");
    return v;
}

static __attribute__((noinline)) void store(u32 at, u32 v)
{
    FAULTING("movl %1, (%0)", : : "r"(at), "r"(v) : "memory");
}

static void faults(void)
{
    for (unsigned i = 0; i < 300; i++) {
        remap(i);
        store(SLOT + 64, i);
        check_eq(load(SLOT + 64), i, "round %u: what was stored", i);
        check_eq(*(volatile u32 *)(frame[i % FRAMES] + 64), i, "round %u: and where", i);
        if (i % 8)
            continue;
        *pte32(pd, SLOT + 4096) = 0;
        invlpg((void *)(SLOT + 4096));
        TRY(load(SLOT + 0x1020));
        check_trap(14, 0, "a load from an absent page");
        check_eq(trap.cr2, SLOT + 0x1020, "  CR2");
        TRY(load(SLOT + 0xffd));
        check_trap(14, 0, "a load whose last byte is in an absent page");
        check_eq(trap.cr2, SLOT + 0x1000, "  CR2");
        *pte32(pd, SLOT) = (u32)frame[i % FRAMES] | P | (slot_flags & U);
        invlpg((void *)SLOT);
        check_eq(load(SLOT + 64), i, "round %u: a page that is read-only now", i);
        TRY(store(SLOT + 64, 0));
        check_trap(14, PF_P | PF_W, "a store to it");
        check_eq(trap.cr2, SLOT + 64, "  CR2");
        TRY(store(SLOT + 0xffe, 0xffffffff));
        check_trap(14, PF_P | PF_W, "a store across its end");
    }
}

static void accessed_and_dirty(void)
{
    for (unsigned i = 0; i < 200; i++) {
        volatile u32 *pte = pte32(pd, SLOT);
        remap(i);
        check_eq(*pte & (ACC | DIRTY), 0, "round %u: a fresh entry", i);
        load(SLOT + 4 * i);
        check_eq(*pte & (ACC | DIRTY), ACC, "round %u: loaded from", i);
        store(SLOT + 4 * i, i);
        check_eq(*pte & (ACC | DIRTY), ACC | DIRTY, "round %u: stored to", i);
    }
}

/* A jump through the page: to the next instruction, where ringlet could be tempted to go on by itself, and not. */
static __attribute__((noinline)) u32 jump(u32 at, u32 near)
{
    u32 way = 0;
    __asm__ volatile("movl $1f, %%eax; testl %2, %2; jnz 3f; movl $2f, %%eax\n"
                     "3: movl %%eax, (%1); jmp *(%1)\n"
                     "1: orl $1, %0\n"
                     "2: orl $2, %0"
                     : "+r"(way)
                     : "r"(at), "r"(near)
                     : "eax", "memory", "cc");
    return way;
}

static void jumps(void)
{
    for (unsigned i = 0; i < 400; i++) {
        remap(i);
        check_eq(jump(SLOT + 8 + i, i & 1), i & 1 ? 3 : 2, "round %u: a jump through the page", i);
        check_eq(jump(SLOT + 0xffe, ~i & 1), i & 1 ? 2 : 3, "round %u: and through two", i);
    }
}

/* The page is code elsewhere: B8 imm32 C3, mov eax, imm; ret. */
static void code(void)
{
    for (unsigned i = 0; i < FRAMES; i++) {
        frame[i][0x200] = 0xb8;
        frame[i][0x205] = 0xc3;
    }
    for (unsigned i = 0; i < 300; i++) {
        u32 (*f)(void) = (u32(*)(void))(frame[i % FRAMES] + 0x200);
        remap(i);
        store(SLOT + 0x201, i);
        check_eq(f(), i, "round %u: code changed through the page", i);
        store(SLOT + 0x201, i + 1000);
        check_eq(f(), i + 1000, "round %u: and again", i);
    }
}

/* The page is a page table. */
static void tables(void)
{
    u32 *table[2] = {page_alloc(), page_alloc()};
    for (unsigned i = 0; i < 300; i++) {
        u32 *t = table[i & 1];
        pd[HOME >> 22] = (u32)t | P | W | U;
        flush_tlb();
        *pte32(pd, SLOT) = (u32)t | slot_flags;
        invlpg((void *)SLOT);
        store(SLOT + 4 * 7, (u32)frame[i % FRAMES] | P | W);
        invlpg((void *)(HOME + 7 * 4096));
        check_eq(*(volatile u8 *)(HOME + 7 * 4096 + 0x200), 0xb8,
                 "round %u: an entry stored through the page", i);
        check_eq(*(volatile u32 *)(HOME + 7 * 4096 + 0x201), *(volatile u32 *)(frame[i % FRAMES] + 0x201),
                 "round %u: the page it names", i);
        store(SLOT + 4 * 7, 0);
        invlpg((void *)(HOME + 7 * 4096));
        check_eq(access_page(0, READ, HOME + 7 * 4096), 0, "round %u: and taken back", i);
    }
    pd[HOME >> 22] = 0;
    flush_tlb();
}

/* Long use of one page, in the same sites: they may change their form, nothing else. */
static void long_use(void)
{
    for (unsigned round = 0; round < 6; round++) {
        remap(round);
        for (unsigned i = 0; i < 20000; i++)
            store(SLOT + 4 * (i & 127), load(SLOT + 4 * (i & 127)) + 1);
        u32 sum = load(SLOT + 4);
        for (unsigned i = 0; i < 40; i++) {
            remap(round + 1 + i % (FRAMES - 1));
            load(SLOT);
        }
        remap(round);
        check_eq(load(SLOT + 4), sum, "round %u of long use", round);
    }
}

static void all(u32 flags)
{
    slot_flags = flags;
    compare(0);
    if (flags & U)
        compare(3);
    faults();
    accessed_and_dirty();
    jumps();
    long_use();
}

void guest_main(void)
{
    for (unsigned i = 0; i < FRAMES; i++)
        frame[i] = page_random();
    quiet_checks(true);
    pd = pd_create(0);
    pte32(pd, SLOT);
    paging_on(pd, 0);
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    all(P | W);
    pd = pd_create(U);
    pte32(pd, SLOT);
    WRITE_CR(3, pd);
    all(P | W | U);
    code(); /* these last: from then on some sites always call */
    tables();
    quiet_checks(false);
    check(true, "sites of pages mapped for one use");
}
