/* A program that has the page at address 0, as those of old systems do, and keeps there what a monitor may keep in the same
 * place of its own: everything it stores is what it reads, beside system calls, faults, string instructions and what a
 * translator leaves to an interpreter. */
#include "lib/guest.h"

enum { SYSCALL = 0x81, ROUNDS = 200, WORDS = 1024 };

static u32 *pd, *zero; /* zero: the page's frame, as ring 0 sees it */
static u32 pages[2];   /* its frames: the second to be exchanged for it */

extern const char to_syscall[];
__asm__("to_syscall: incl %eax; iret\n");

static inline u32 load(u32 at)
{
    u32 v;
    __asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(at) : "memory");
    return v;
}

static inline void store(u32 at, u32 v)
{
    __asm__ volatile("movl %0, (%1)" : : "r"(v), "r"(at) : "memory");
}

static inline u32 call_system(u32 n)
{
    __asm__ volatile("int $0x81" : "+a"(n) : : "memory");
    return n;
}

/* What leaves a translator's beaten track. */
static u32 odd_ways(u32 n)
{
    u32 a = 0, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    u16 ss;
    __asm__ volatile("movw %%ss, %0; pushfl; popfl; xlatb" : "=m"(ss), "+a"(n) : "b"(0) : "memory");
    return call_system(n) + (ss & 3);
}

static u32 program(u32 seed)
{
    u32 wrong = 0;
    for (u32 i = 0; i < WORDS; i++)
        store(4 * i, seed ^ i * 2654435761u);
    for (u32 i = 0; i < ROUNDS; i++) {
        wrong += call_system(i) != i + 1;
        odd_ways(i & 0xff);
        store(4 * i + 0x28, seed + i);
        wrong += load(4 * i + 0x28) != seed + i;
        store(4 * i + 0x28, seed ^ (i + 10) * 2654435761u);
    }
    u32 edi = 0, ecx = WORDS / 2, esi = WORDS * 2; /* the upper half onto the lower and back */
    __asm__ volatile("rep movsl" : "+D"(edi), "+S"(esi), "+c"(ecx) : : "memory");
    wrong += edi != WORDS * 2 || esi != WORDS * 4 || ecx;
    for (u32 i = 0; i < WORDS / 2; i++)
        wrong += load(4 * i) != (seed ^ (i + WORDS / 2) * 2654435761u);
    for (u32 i = 0; i < WORDS; i++)
        store(4 * i, seed ^ i * 2654435761u);
    __asm__ volatile(
        "movl $0x12345678, %%eax; movl %%eax, 0xffe; cmpl %%eax, 0xffe; je 1f; incl %0; 1: rolw 0xffe"
        : "+r"(wrong)
        :
        : "eax", "memory", "cc");
    wrong += load(0xffc) >> 16 != 0xacf0; /* 5678h, once to the left */
    return wrong;
}

static u32 store_once(u32 v)
{
    store(0x28, v);
    return 0;
}

static void put(unsigned n, u32 flags)
{
    zero = (u32 *)pages[n];
    *pte32(pd, 0) = pages[n] | flags;
    invlpg(NULL);
}

static void frame_holds(u32 seed, const char *what)
{
    u32 wrong = 0;
    for (u32 i = 0; i < WORDS - 1; i++)
        wrong += zero[i] != (seed ^ i * 2654435761u);
    check_eq(wrong, 0, "%s: words of the frame that are not what the program stored", what);
}

void guest_main(void)
{
    static const char *const name[] = {"the page at 0", "another frame there"};
    pages[0] = (u32)page_alloc();
    pages[1] = (u32)page_alloc();
    pd = pd_create(P | U | W);
    map32(pd, 4096, (u32)page_alloc(), P | U | W); /* what crosses over */
    idt_set(SYSCALL, (u32)to_syscall, 0xee);
    paging_on(pd, 0);
    ring_eflags = 0x202;
    pic_mask(0xffff);
    for (unsigned n = 0; n < 4; n++) {
        put(n & 1, P | U | W);
        ring_call(3, program, 77 + n);
        check_eq(trap.vector, VEC_RETURN, "%s: ring 3 comes to its end", name[n & 1]);
        check_eq(trap.eax, 0, "%s: what ring 3 reads is what it has stored", name[n & 1]);
        frame_holds(77 + n, name[n & 1]);
    }
    check_eq(program(99), 0, "ring 0 finds the same there");
    frame_holds(99, "by ring 0");
    put(0, P | U);
    ring_call(3, store_once, 1);
    check_eq(trap.vector, 14, "a store to it by ring 3 once it is read-only");
}
