/* SYSENTER and SYSEXIT: segments are made from SYSENTER_CS, not read from the GDT. SDM vol. 2, SYSENTER. */
#include "lib/guest.h"

enum { MSR_CS = 0x174, MSR_ESP, MSR_EIP, GP = 13, IF = 0x200, VM = 0x20000 };

/* The GDT order SYSENTER wants, with room for it: code 0, data 0, code 3, data 3. */
enum { FAST = 8 };
volatile u32 entered_cs, entered_ss, entered_esp, entered_flags;
static u8 stack[4096] __attribute__((aligned(16)));

extern const char fast_entry[], fast_back[];
__asm__("fast_entry: movl %cs, %eax; movl %eax, entered_cs; movl %ss, %eax; movl %eax, entered_ss\n"
        " movl %esp, entered_esp; pushfl; popl entered_flags; movl $0xfa57, %eax\n"
        " sysexit\n"
        "fast_back: movl %edx, %edx; ret\n");

static u32 enter(u32 arg)
{
    u32 v;
    (void)arg;
    __asm__ volatile(
        "movl %%esp, %%ecx; subl $4, %%ecx; movl $1f, (%%ecx); movl $fast_back, %%edx; sysenter\n1:"
        : "=a"(v)
        :
        : "ecx", "edx", "memory");
    return v;
}

static u32 leave(u32 arg)
{
    (void)arg;
    FAULTING("sysexit");
    return 0;
}

void guest_main(void)
{
    u16 base = gdt_test(FAST, descriptor(0, 0xfffff, D_CODE_R | D_32 | D_4K));
    gdt_test(FAST + 1, descriptor(0, 0xfffff, D_DATA_W | D_32 | D_4K));
    gdt_test(FAST + 2, descriptor(0, 0xfffff, D_CODE_R | D_DPL3 | D_32 | D_4K));
    gdt_test(FAST + 3, descriptor(0, 0xfffff, D_DATA_W | D_DPL3 | D_32 | D_4K));
    u32 a, b, c, d;
    cpuid(1, &a, &b, &c, &d);
    check(d >> 11 & 1, "CPUID shows SEP");
    wrmsr(MSR_CS, 0);
    ring_call(3, enter, 0);
    check_trap_anywhere(GP, 0, "SYSENTER with SYSENTER_CS = 0");
    TRY(leave(0));
    check_trap(GP, 0, "SYSEXIT with SYSENTER_CS = 0");
    wrmsr(MSR_CS, base);
    wrmsr(MSR_ESP, (u32)stack + sizeof stack);
    wrmsr(MSR_EIP, (u32)fast_entry);
    check_eq((u32)rdmsr(MSR_EIP), (u32)fast_entry, "SYSENTER_EIP reads back");
    ring_eflags = IF | 2;
    for (u32 i = 0; i < 1000; i++) {
        ring_call(3, enter, 0);
        if (trap.vector != VEC_RETURN || trap.eax != 0xfa57)
            break;
    }
    ring_eflags = 2;
    check(trap.vector == VEC_RETURN && trap.eax == 0xfa57, "ring 3, SYSENTER, SYSEXIT, ring 3: 1000 times");
    check_eq(entered_cs, base, "  CS inside");
    check_eq(entered_ss, base + 8, "  SS inside");
    check_eq(entered_esp, (u32)stack + sizeof stack, "  ESP inside");
    check_eq(entered_flags & IF, 0, "  IF is clear inside");
    check_eq(trap.cs, (u32)base + 16 + 3, "  CS after SYSEXIT");
    check_eq(trap.ss, (u32)base + 24 + 3, "  SS after SYSEXIT");
    ring_call(3, leave, 0);
    check_trap(GP, 0, "SYSEXIT in ring 3");
    gdt[base / 8 + 2] = 0; /* the descriptors do not matter */
    gdt[base / 8 + 3] = 0;
    ring_call(3, enter, 0);
    check(trap.vector == VEC_RETURN && trap.eax == 0xfa57, "the GDT's entries are not read");
}
