/* A guest that can do nothing more: HLT with interrupts off. A monitor says so instead of waiting for ever.
 */
#include "lib/guest.h"

void guest_main(void)
{
    print("LAST WORDS\n");
    __asm__ volatile("cli; hlt");
    print("STILL ALIVE\n");
}
