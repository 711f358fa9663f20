/* Hardware task switches by JMP, CALL, IRET and a task gate in the IDT. SDM vol. 3 7.3. */
#include "lib/guest.h"

enum { NT = 0x4000, BUSY = 2, TS = 10, NP = 11, GP = 13 };

static struct tss other;
static u8 other_stack[8192] __attribute__((aligned(16)));
static volatile u32 visits, inside_flags, inside_cr0_ts, inside_link, inside_ldt;

static bool busy(unsigned selector)
{
    return gdt[selector / 8] >> 40 & BUSY;
}

/* The other task: notes what it finds and goes back by IRET (nested) or JMP. */
static void other_task(void)
{
    for (;;) {
        visits++;
        inside_flags = eflags();
        inside_cr0_ts = READ_CR(0) & CR0_TS;
        inside_link = other.link;
        u32 ldt = 0;
        __asm__ volatile("sldt %w0" : "+r"(ldt));
        inside_ldt = ldt;
        if (inside_flags & NT)
            __asm__ volatile("iret");
        else
            __asm__ volatile("ljmp %0, $0" : : "i"(SEL_TSS));
    }
}

static void make_other(void)
{
    other = (struct tss){.eip = (u32)other_task,
                         .esp = (u32)other_stack + sizeof other_stack - 4,
                         .eflags = 2,
                         .cs = SEL_CODE0,
                         .ss = SEL_DATA0,
                         .ds = SEL_DATA0,
                         .es = SEL_DATA0,
                         .fs = SEL_DATA0,
                         .gs = SEL_DATA0,
                         .ldt = SEL_LDT,
                         .esp0 = (u32)other_stack + 4096,
                         .ss0 = SEL_DATA0,
                         .cr3 = READ_CR(3),
                         .iomap = sizeof other};
    gdt[SEL_TSS2 / 8] = descriptor((u32)&other, sizeof other - 1, D_TSS);
    gdt[SEL_LDT / 8] = descriptor((u32)gdt, 63, D_LDT);
}

static void jump_and_back(void)
{
    u32 keep = 0x12345678, ebx = 0;
    visits = 0;
    __asm__ volatile("movl %1, %%ebx; ljmp %2, $0; movl %%ebx, %0"
                     : "=r"(ebx)
                     : "r"(keep), "i"(SEL_TSS2)
                     : "ebx", "memory");
    check_eq(visits, 1, "jmp to a TSS and back");
    check_eq(ebx, keep, "  registers are as before");
    check(!busy(SEL_TSS2) && busy(SEL_TSS), "  busy bits follow");
    check(!(inside_flags & NT), "  NT is clear inside");
    check(inside_cr0_ts, "  CR0.TS is set");
    check_eq(inside_ldt, SEL_LDT, "  LDTR is the task's");
    __asm__ volatile("clts");
}

static void call_and_return(void)
{
    visits = 0;
    for (int i = 0; i < 3; i++)
        __asm__ volatile("lcall %0, $0" : : "i"(SEL_TSS2) : "memory");
    check_eq(visits, 3, "call to a TSS, iret from it, three times");
    check(inside_flags & NT, "  NT is set inside");
    check_eq(inside_link, SEL_TSS, "  the back link names the caller");
    check(!(eflags() & NT), "  NT is clear again outside");
    check(!busy(SEL_TSS2) && busy(SEL_TSS), "  the task is not busy any more");
    __asm__ volatile("clts");
}

static u32 int72(u32 arg)
{
    (void)arg;
    __asm__ volatile("int $0x72");
    return 0x72;
}

static void task_gates(void)
{
    visits = 0;
    idt[0x72] = gate(SEL_TSS2, 0, 0xe5, 0);
    int72(0);
    check_eq(visits, 1, "int through a task gate");
    ring_call(3, int72, 0);
    check(visits == 2 && trap.vector == VEC_RETURN && trap.eax == 0x72,
          "int through a task gate from ring 3");
    check_eq(trap.cs, SEL_CODE3, "  and back to ring 3");
    u16 in_gdt = gdt_test(0, gate(SEL_TSS2, 0, 0x85, 0));
    __asm__ volatile("pushl %0; pushl $0; lcall *(%%esp); addl $8, %%esp" : : "r"((u32)in_gdt) : "memory");
    check_eq(visits, 3, "call of a task gate in the GDT");
    __asm__ volatile("clts");
}

static void refusals(void)
{
    gdt[SEL_TSS2 / 8] |= (u64)BUSY << 40;
    TRY(__asm__ volatile("movl $77f, fault_eip\n77: lcall %0, $0" : : "i"(SEL_TSS2)));
    check_trap(GP, SEL_TSS2, "call of a busy TSS");
    gdt[SEL_TSS2 / 8] = descriptor((u32)&other, 102, D_TSS);
    TRY(__asm__ volatile("movl $77f, fault_eip\n77: lcall %0, $0" : : "i"(SEL_TSS2)));
    check_trap(TS, SEL_TSS2, "call of a TSS one byte too short");
    gdt[SEL_TSS2 / 8] = descriptor((u32)&other, sizeof other - 1, D_TSS & ~0x80);
    TRY(__asm__ volatile("movl $77f, fault_eip\n77: lcall %0, $0" : : "i"(SEL_TSS2)));
    check_trap(NP, SEL_TSS2, "call of an absent TSS");
    make_other();
}

/* CR3 is part of the task. */
static void address_spaces(void)
{
    u32 *here = pd_create(U), *there = pd_create(U);
    volatile u32 *a = page_alloc(), *b = page_alloc();
    *a = 1;
    *b = 2;
    map32(here, 0x40000000, (u32)a, P | W);
    map32(there, 0x40000000, (u32)b, P | W);
    paging_on(here, 0);
    make_other();
    other.cr3 = (u32)there;
    tss.cr3 = (u32)here;
    visits = 0;
    __asm__ volatile("lcall %0, $0" : : "i"(SEL_TSS2) : "memory");
    check_eq(visits, 1, "a task with its own CR3");
    check_eq(READ_CR(3), (u32)here, "  CR3 is back");
    check_eq(*(volatile u32 *)0x40000000, 1, "  and so is its memory");
    __asm__ volatile("clts");
}

void guest_main(void)
{
    make_other();
    jump_and_back();
    call_and_return();
    task_gates();
    refusals();
    address_spaces();
}
