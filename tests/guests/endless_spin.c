/* A machine that has run a program and then does nothing but be there: in user mode (VARIANT 1), in the kernel (2), or
 * halted (3). Whoever ends it finds it in a state that is known. */
#include "lib/program.h"

PROGRAM_CODE(spin, "a program that spins", "nop", "jmp .", "");
PROGRAM_CODE(hello, "a program", "movl $42, %ebx", "int $0x80", "");

void guest_main(void)
{
    program_begin();
    pic_mask(0xfffe);
    pit_periodic(100);
    program_put(&hello);
    program_run(0, 0);
    check(trap.vector == 0x80 && trap.ebx == 42, "a program has run");
    print("LAST WORDS\n");
    if (VARIANT == 1) {
        program_put(&spin);
        program_run(0, 0);
    }
    for (;;) {
        if (VARIANT == 3)
            __asm__ volatile("sti; hlt; cli");
    }
}
