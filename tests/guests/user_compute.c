/* Programs for 200 ms each, while a timer ticks: one that computes and calls the kernel never (VARIANT 1), one that does
 * nothing but call it (2), and one after the other in one address space (3). The first is what policy `auto` is to find
 * and to run natively, the second what it is to leave alone, or to take back. */
#include "lib/program.h"

enum { TICKS = 200 };

PROGRAM_CODE(compute, "one that computes",
             "movl %edx, %ebx; movl $0x40010000, %esi\n"
             "1: incl %eax; addl $3, %ebx; cmpl $0, (%esi); je 1b\n",
             "int $0x80", "");
PROGRAM_CODE(call, "one that calls", "incl 0x40010004", "int $0x80", "");

static u32 ticks;

static bool tick(struct frame *f)
{
    (void)f;
    pic_eoi(0);
    if (++ticks >= TICKS)
        *(volatile u32 *)program_data() = 1;
    return true;
}

static void computes(void)
{
    program_put(&compute);
    program_run(0, 0);
    check(trap.vector == 0x80, "it ends with vector %u", trap.vector);
    check(trap.eax > TICKS && trap.ebx == trap.eax * 3, "%u rounds: %u", trap.eax, trap.ebx);
}

static void calls(void)
{
    volatile u32 *d = (u32 *)program_data();
    u32 n = 0, wrong = 0;
    program_put(&call);
    d[1] = 0;
    while (ticks < TICKS) {
        program_run(0, 0);
        wrong += trap.vector != 0x80 || d[1] != ++n;
    }
    check(n > TICKS && wrong == 0, "%u calls, %u wrong", n, wrong);
}

void guest_main(void)
{
    program_begin();
    trap_hook[0x20] = tick;
    pic_mask(0xfffe);
    pit_periodic(1000);
    if (VARIANT != 2)
        computes();
    if (VARIANT == 3)
        ticks = 0;
    if (VARIANT != 1)
        calls();
    pit_stop();
    check(ticks >= TICKS, "%u ticks", ticks);
}
