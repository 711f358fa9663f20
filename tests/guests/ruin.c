/* Guests that destroy what the CPU needs to go on. The machine resets, as a PC does; a monitor says so in one
 * line and is itself unharmed. VARIANT chooses the deed. */
#include "lib/guest.h"

enum { NOWHERE = 0xd0000000, DEVICE = 0xfec00000, VGA = 0xb8000 };
enum {
    IDT_LIMIT = 1,
    IDT_NOWHERE,
    IDT_DEVICE,
    GDT_NOWHERE,
    CR3_NOWHERE,
    CR3_DEVICE,
    TSS_NOWHERE,
    STACK_ABSENT,
    PDPT_NOWHERE,
    ACPI_RESET_8042,
};

static u32 spin(u32 arg)
{
    __asm__ volatile("int $0x80");
    return arg;
}

static void deed(void)
{
    switch (VARIANT) {
    case IDT_LIMIT:
        load_idt(idt, 0);
        __asm__ volatile("ud2");
        break;
    case IDT_NOWHERE:
        load_idt((void *)NOWHERE, 0x7ff);
        __asm__ volatile("ud2");
        break;
    case IDT_DEVICE:
        load_idt((void *)DEVICE, 0x7ff);
        __asm__ volatile("int3");
        break;
    case GDT_NOWHERE:
        load_gdt((void *)NOWHERE, 0xff);
        __asm__ volatile("ud2"); /* no code segment for the handler */
        break;
    case CR3_NOWHERE:
        paging_on((void *)NOWHERE, 0);
        break;
    case CR3_DEVICE:
        paging_on((void *)DEVICE, 0);
        break;
    case TSS_NOWHERE:
        gdt[SEL_TSS2 / 8] = descriptor(NOWHERE, 0xfff, D_TSS);
        __asm__ volatile("ltr %w0" : : "r"(SEL_TSS2));
        ring_call(3, spin, 0);
        break;
    case STACK_ABSENT: {
        u32 *pd = pd_create(0);
        paging_on(pd, 0);
        __asm__ volatile("movl $0x60000000, %esp; pushl $1");
        break;
    }
    case PDPT_NOWHERE:
        paging_on((void *)NOWHERE, CR4_PAE);
        break;
    case ACPI_RESET_8042:
        outb(0x64, 0xfe);
        for (volatile u32 i = 0; i < 10000000; i++)
            ;
        break;
    }
}

void guest_main(void)
{
    print("LAST WORDS\n");
    deed();
    print("STILL ALIVE\n");
}
