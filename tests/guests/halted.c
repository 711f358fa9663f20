/* Guests that can do nothing more. VARIANT 1: HLT with interrupts off. VARIANT 2: execution has left RAM. */
#include "lib/guest.h"

void guest_main(void)
{
    print("LAST WORDS\n");
    if (VARIANT == 1)
        __asm__ volatile("cli; hlt");
    else
        __asm__ volatile("jmp *%0" : : "r"(0xd0000000));
    print("STILL ALIVE\n");
}
