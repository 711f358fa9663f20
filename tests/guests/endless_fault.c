/* Faults without end; whoever runs them must be able to stop them. VARIANT 1: a handler that returns to the
 * faulting instruction. VARIANT 2: the #PF handler's own first byte is on an absent page and a 16-bit stack
 * wraps round, so that delivery never runs out of room: a CPU does this for ever. VARIANT 3: no fault at all,
 * an empty loop with interrupts off. */
#include "lib/guest.h"

enum { STACK_VIEW = 0x70000000, HANDLER = 0x60000000 };

static bool again(struct frame *f)
{
    (void)f;
    return true;
}

static void absent_handler(void)
{
    u32 *pd = pd_create(0);
    for (unsigned i = 0; i < 16; i++)
        map32(pd, STACK_VIEW + i * 4096, (u32)page_alloc(), P | W);
    paging_on(pd, 0);
    idt_set(14, HANDLER, 0x8e);
    u16 ss = gdt_test(0, descriptor(STACK_VIEW, 0xffff, D_DATA_W));
    __asm__ volatile("movl %0, %%ss; movl %1, %%esp; jmp *%2" : : "r"((u32)ss), "r"(0x1000), "r"(HANDLER));
}

void guest_main(void)
{
    print("LAST WORDS\n");
    if (VARIANT == 1) {
        trap_hook[6] = again;
        __asm__ volatile("ud2");
    } else if (VARIANT == 2) {
        absent_handler();
    } else {
        __asm__ volatile("1: jmp 1b");
    }
}
