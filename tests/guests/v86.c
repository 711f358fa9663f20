/* Virtual-8086 mode: 16-bit code with real-mode segments, entered by IRET, left by exceptions and interrupts.
 * SDM vol. 3 chapter 20. */
#include "lib/guest.h"

enum { VM = 0x20000, IOPL3 = 0x3000, IF = 0x200, GP = 13, HOME = 0x8000, STACK = 0x9000 };

extern const u8 code16[], code16_end[], code16_cli[], code16_int[], code16_ud[];
__asm__(
    ".code16\n"
    "code16:\n"
    " movw $0x1234, %ax; movw %ds:0x10, %bx; movw %bx, %es:0x20; pushw %cs; popw %cx; pushw %ax; popw %dx\n"
    "code16_ud: ud2\n"
    "code16_cli: cli; pushfw; popw %ax; sti\n"
    "code16_int: int $0x80\n"
    "code16_end:\n"
    ".code32\n");

/* IRET to V86 mode needs a nine-word frame. */
static void enter(u32 ip, u32 flags)
{
    __asm__ volatile(
        "pushl $0; pushl $0; pushl %3; pushl %2; pushl $0; pushl %5; pushl %4; pushl %1; pushl %0; iret"
        :
        : "r"(ip), "i"(HOME >> 4), "r"(0x850), "r"(0x860), "r"(flags | VM | 2), "i"(STACK - HOME));
}

void guest_main(void)
{
    memcpy((void *)HOME, code16, code16_end - code16);
    *(volatile u16 *)(0x8500 + 0x10) = 0;
    *(volatile u16 *)(0x8600 + 0x10) = 0xbeef;
    *(volatile u16 *)(0x8500 + 0x20) = 0;
    TRY(enter(0, IOPL3));
    check_eq(trap.vector, 6, "V86: ud2 after some 16-bit code");
    check(trap.eflags & VM, "  the frame has VM");
    check_eq(trap.eip, code16_ud - code16, "  its IP");
    check_eq(trap.cs, HOME >> 4, "  its CS is a real-mode segment");
    check_eq(trap.eax & 0xffff, 0x1234, "  AX");
    check_eq(trap.ebx & 0xffff, 0xbeef, "  BX was read through DS");
    check_eq(trap.ecx & 0xffff, HOME >> 4, "  CX has CS");
    check_eq(trap.edx & 0xffff, 0x1234, "  DX went over the stack");
    check_eq(*(volatile u16 *)(0x8500 + 0x20), 0xbeef, "  a store through ES");
    check_eq(trap.ds, 0, "  DS is null in the handler's frame");
    TRY(enter(code16_cli - code16, IOPL3 | IF));
    check_eq(trap.vector, 0x80, "V86, IOPL 3: cli, pushf, sti, int 80h by the IDT");
    check_eq(trap.eax & (IF | IOPL3), IOPL3, "  pushf after cli shows IF clear");
    check(trap.eflags & IF, "  sti set it again");
    TRY(enter(code16_cli - code16, 0));
    check_trap_anywhere(GP, 0, "V86, IOPL 0: cli");
    check_eq(trap.eip, code16_cli - code16, "  reported at the cli");
    TRY(enter(code16_int - code16, 0));
    check_trap_anywhere(GP, 0, "V86, IOPL 0: int 80h");
}
