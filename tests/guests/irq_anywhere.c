/*
 * A fast timer hits a loop of everything a translator does in several host instructions: segment loads, EFLAGS images,
 * pushes and pops, calls, read-modify-write, string instructions. Whatever instruction it hits, nothing may change.
 */
#include "lib/guest.h"

enum { IF = 0x200, CF = 1 };

static volatile u32 ticks, wrong_frame;
static u32 cell;

static bool tick(struct frame *f)
{
    ticks++;
    wrong_frame += (f->eflags & (IF | 0x100)) != IF || (f->cs & 0xffff) != SEL_CODE0;
    pic_eoi(0);
    return true;
}

static __attribute__((noinline)) u32 add_one(u32 x)
{
    __asm__ volatile("" : "+r"(x));
    return x + 1;
}

/* Returns what ten kinds of work add up to: 10, if nothing was disturbed. */
static u32 work(void)
{
    u32 sum = 0, a, b;
    __asm__ volatile("movl %2, %%ds; movl %2, %%es; movl %2, %%fs; movl %2, %%gs; movl $1, %0; movl %%fs, %1"
                     : "=&r"(a), "=&r"(b)
                     : "r"(SEL_DATA0)
                     : "memory");
    sum += a + ((u16)b != SEL_DATA0);
    __asm__ volatile("pushl %%ds; pushl %%es; pushl %%fs; pushl %%gs; popl %%gs; popl %%fs; popl %%es; popl "
                     "%%ds; movl $1, %0"
                     : "=r"(a)
                     :
                     : "memory");
    sum += a;
    __asm__ volatile("stc; pushfl; clc; popl %0; pushl %0; popfl; sbbl %1, %1" : "=r"(a), "=r"(b) : : "cc");
    sum += (a & (CF | IF | 0x100)) == (CF | IF) && b == ~0u;
    __asm__ volatile("cli; pushfl; sti; popl %0; pushfl; popl %1" : "=r"(a), "=r"(b) : : "cc");
    sum += !(a & IF) && (b & IF);
    __asm__ volatile(
        "movl $1, %%eax; movl $2, %%ecx; pushl %%eax; pushl %%ecx; popl %%eax; popl %%ecx; subl %%ecx, %%eax;"
        "movl %%eax, %0"
        : "=r"(a)
        :
        : "eax", "ecx", "cc", "memory");
    sum += a;
    __asm__ volatile(
        "movl %%esp, %1; pushl $7; pushl 0(%%esp); addl $8, %%esp; subl %%esp, %1; movl -8(%%esp), %0"
        : "=&r"(a), "=&r"(b)
        :
        : "cc", "memory");
    sum += b == 0; /* what lies below ESP belongs to the interrupt */
    sum += add_one(0);
    cell = 41;
    __asm__ volatile("lock incl %0; stc; adcl $-1, %0" : "+m"(cell) : : "cc");
    sum += cell == 42;
    u8 buffer[16];
    void *d = buffer;
    u32 n = sizeof buffer;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(1) : "memory");
    sum += buffer[15];
    __asm__ volatile("movl $5, %%ecx; xorl %0, %0; 1: incl %0; loop 1b" : "=&r"(a) : : "ecx", "cc");
    sum += a == 5;
    return sum;
}

void guest_main(void)
{
    trap_hook[0x20] = tick;
    pic_mask(0xfffe);
    pit_periodic(10000);
    sti();
    u32 disturbed = 0, rounds = 0;
    while (ticks < 3000 && rounds < 3000000) {
        disturbed += work() != 10;
        rounds++;
    }
    cli();
    pit_stop();
    pic_mask(0xffff);
    check_eq(disturbed, 0, "nothing that was interrupted came out wrong");
    check_eq(wrong_frame, 0, "every interrupt frame has IF, no TF, and the kernel's CS");
    check(ticks >= 1000, "a thousand interrupts at least");
}
