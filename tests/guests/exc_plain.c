/* Exceptions without an error code: the vector, and an EIP that points at the instruction (faults) or after
 * it (traps). SDM vol. 3 6.15. */
#include "lib/guest.h"

static u32 ring3_ud(u32 arg)
{
    (void)arg;
    FAULTING("ud2");
    return 0;
}

static u32 ring3_de(u32 arg)
{
    (void)arg;
    FAULTING("divl %0", : : "r"(0) : "eax", "edx");
    return 0;
}

static u32 ring3_int3(u32 arg)
{
    (void)arg;
    __asm__ volatile("movl $1f, fault_eip; int3; 1:");
    return 0;
}

static void divides(void)
{
    TRY(FAULTING("divb %b0", : : "q"(0) : "eax"));
    check_trap(0, 0, "div r8 by zero");
    TRY(FAULTING("divl %0", : : "r"(0) : "eax", "edx"));
    check_trap(0, 0, "div r32 by zero");
    TRY(FAULTING("idivl %0", : : "r"(-1), "a"(0x80000000u), "d"(-1)));
    check_trap(0, 0, "idiv overflow: 80000000h / -1");
    check_eq(trap.eax, 0x80000000u, "a faulting idiv leaves EAX");
    TRY(FAULTING("divl %0", : : "r"(1), "a"(0), "d"(1)));
    check_trap(0, 0, "div quotient overflow");
    TRY(FAULTING("divw %w0", : : "r"(1), "a"(0), "d"(1)));
    check_trap(0, 0, "div r16 quotient overflow");
    TRY(FAULTING(".byte 0xd4, 0", : : "a"(0x1234)));
    check_trap(0, 0, "aam 0");
    check_eq(trap.eax, 0x1234, "a faulting aam leaves AX");
    static u32 zero;
    TRY(FAULTING("divl zero_operand", : : "a"(1), "d"(0)));
    check_trap(0, 0, "div m32 by zero");
    (void)zero;
}
__asm__(".bss; .balign 4; zero_operand: .skip 4; .text");

static void traps(void)
{
    TRY(__asm__ volatile("movl $1f, fault_eip; int3; 1:"));
    check_trap(3, 0, "int3: EIP after it");
    TRY(__asm__ volatile("movl $1f, fault_eip; .byte 0xcd, 3; 1:"));
    check_trap(3, 0, "int 3 (two bytes): EIP after it");
    TRY(__asm__ volatile("movl $1f, fault_eip; movb $0x7f, %%al; addb $1, %%al; into; 1:" : : : "eax"));
    check_trap(4, 0, "into with OF: EIP after it");
    TRY(__asm__ volatile("xorl %%eax, %%eax; into" : : : "eax"));
    check_eq(trap.vector, NO_TRAP, "into without OF does nothing");
    idt_set(0x70, trap_stubs[0x70], 0x8e);
    TRY(__asm__ volatile("movl $1f, fault_eip; int $0x70; 1:"));
    check_trap(0x70, 0, "int 70h: EIP after it");
}

static void bounds(void)
{
    static const i32 range[2] = {-5, 10};
    static const short range16[2] = {3, 4};
    for (i32 i = -6; i <= 11; i++) {
        TRY(FAULTING(".byte 0x62, 0x01", : : "a"(i), "c"(range), "m"(range)));
        if (i < -5 || i > 10)
            check_trap(5, 0, "bound %d outside -5..10", i);
        else
            check_eq(trap.vector, NO_TRAP, "bound %d inside -5..10", i);
    }
    TRY(FAULTING(".byte 0x66, 0x62, 0x01", : : "a"(5), "c"(range16), "m"(range16)));
    check_trap(5, 0, "bound r16 above");
    TRY(FAULTING(".byte 0x66, 0x62, 0x01", : : "a"(0x10003), "c"(range16), "m"(range16)));
    check_eq(trap.vector, NO_TRAP, "bound r16 looks at 16 bits");
}

static void undefined(void)
{
    TRY(FAULTING("ud2"));
    check_trap(6, 0, "ud2");
    TRY(FAULTING(".byte 0x0f, 0xb9, 0xc0"));
    check_trap(6, 0, "ud1");
    TRY(FAULTING(".byte 0x0f, 0xff, 0xc0"));
    check_trap(6, 0, "ud0");
    TRY(FAULTING(".byte 0xf0, 0x01, 0xc0"));
    check_trap(6, 0, "lock add reg, reg");
    TRY(FAULTING(".byte 0xf0, 0x8b, 0x00", : : "a"(&trap)));
    check_trap(6, 0, "lock mov");
    TRY(FAULTING(".byte 0x8e, 0xc8", : : "a"(SEL_CODE0)));
    check_trap(6, 0, "mov cs, ax");
    TRY(FAULTING(".byte 0x8d, 0xc0"));
    check_trap(6, 0, "lea eax, eax");
    TRY(FAULTING(".byte 0x0f, 0x20, 0xc8"));
    check_trap(6, 0, "mov eax, cr1");
    TRY(FAULTING(".byte 0xff, 0xd8"));
    check_trap(6, 0, "far call of a register");
    TRY(FAULTING(".byte 0xfe, 0xd0"));
    check_trap(6, 0, "group 4 /2");
    TRY(FAULTING(".byte 0x8c, 0xf0"));
    check_trap(6, 0, "mov eax, segment register 6");
    TRY(FAULTING(".byte 0x62, 0xc0"));
    check_trap(6, 0, "bound with a register operand");
    TRY(FAULTING(".byte 0x0f, 0xc7, 0xc8"));
    check_trap(6, 0, "cmpxchg8b with a register operand");
}

static void too_long(void)
{
    TRY(FAULTING(".fill 15, 1, 0x66; nop"));
    check_trap(13, 0, "an instruction of 16 bytes is #GP(0)");
    TRY(__asm__ volatile(".fill 14, 1, 0x2e; nop"));
    check_eq(trap.vector, NO_TRAP, "one of 15 bytes runs");
}

static void from_ring3(void)
{
    ring_call(3, ring3_ud, 0);
    check_trap(6, 0, "ud2 in ring 3");
    check_eq(trap.cs, SEL_CODE3, "  with ring 3's CS");
    check_eq(trap.ss, SEL_DATA3, "  and SS");
    ring_call(3, ring3_de, 0);
    check_trap(0, 0, "div by zero in ring 3");
    ring_call(3, ring3_int3, 0);
    check_trap(3, 0, "int3 in ring 3 through a DPL 3 gate");
}

void guest_main(void)
{
    divides();
    traps();
    bounds();
    undefined();
    too_long();
    from_ring3();
}
