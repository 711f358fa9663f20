/* Which pairs of exceptions make #DF (SDM vol. 3 table 6-5), through an interrupt gate and through a task
 * gate when the stack itself is gone. */
#include "lib/guest.h"

enum { VIEW = 0x50000000 };

static void absent(unsigned vector)
{
    idt[vector] = gate(SEL_CODE0, trap_stubs[vector], 0x0e, 0);
}

static void present(unsigned vector)
{
    idt_set(vector, trap_stubs[vector], 0x8e);
}

static void divide(void)
{
    FAULTING("divl %0", : : "r"(0) : "eax", "edx");
}

static void pairs(void)
{
    absent(0);
    TRY(divide());
    check_trap_anywhere(8, 0, "#DE then #NP: #DF with error code 0");
    present(0);
    absent(13);
    TRY(FAULTING("movl %0, %%ds", : : "r"(SEL_TSS)));
    check_trap_anywhere(8, 0, "#GP then #NP: #DF");
    present(13);
    absent(14);
    TRY((void)*(volatile u32 *)VIEW);
    check_trap_anywhere(8, 0, "#PF then #NP: #DF");
    present(14);
    absent(6);
    TRY(FAULTING("ud2"));
    check_trap(11, ANY_ERROR, "#UD then #NP: #NP, one after the other");
    present(6);
}

/* The IDT lies across two pages of which the lower, with vectors 0 to 7, can be taken away. */
static void idt_pages(u32 *pd)
{
    u8 *low = page_alloc(), *high = page_alloc();
    memcpy(low + 4096 - 64, idt, 64);
    memcpy(high, (u8 *)idt + 64, sizeof idt - 64);
    map32(pd, VIEW + 0x1000, (u32)low, P | W);
    map32(pd, VIEW + 0x2000, (u32)high, P | W);
    load_idt((void *)(VIEW + 0x2000 - 64), sizeof idt - 1);
    TRY(divide());
    check_trap(0, 0, "an IDT across two pages works");
    *pte32(pd, VIEW + 0x1000) = 0;
    flush_tlb();
    TRY(divide());
    check_trap(14, 0, "#DE then #PF (on the IDT): #PF, one after the other");
    check_eq(trap.cr2, VIEW + 0x2000 - 64, "  CR2 names the gate");
    load_idt(idt, sizeof idt - 1);
}

static struct tss df_tss;
static u8 df_stack[4096];
static struct context back;
static u32 df_error;

static void df_task(void)
{
    __asm__ volatile("popl %0" : "=r"(df_error)); /* the error code is on the new task's stack */
    gdt[SEL_TSS / 8] &= ~(2ull << 40);            /* let ltr take it again */
    __asm__ volatile("pushfl; andl $~0x4000, (%%esp); popfl; ltr %w0" : : "r"(SEL_TSS) : "memory");
    context_restore(&back);
}

static ONE_COPY void through_task_gate(const u32 *pd)
{
    extern const char gone[];
    df_tss = (struct tss){.eip = (u32)df_task,
                          .esp = (u32)df_stack + sizeof df_stack,
                          .cs = SEL_CODE0,
                          .ss = SEL_DATA0,
                          .ds = SEL_DATA0,
                          .es = SEL_DATA0,
                          .fs = SEL_DATA0,
                          .gs = SEL_DATA0,
                          .eflags = 2,
                          .cr3 = (u32)pd,
                          .iomap = sizeof df_tss};
    gdt[SEL_TSS_DF / 8] = descriptor((u32)&df_tss, sizeof df_tss - 1, D_TSS);
    idt[8] = gate(SEL_TSS_DF, 0, 0x85, 0);
    df_error = 99;
    if (!context_save(&back)) {
        __asm__ volatile("movl %0, %%esp\n .globl gone\ngone: pushl $1" : : "r"(VIEW + 0x10000) : "memory");
        check(false, "a push to an absent page went through");
    }
    check_eq(df_error, 0, "no stack for #PF: #DF arrives in its task, with error code 0");
    check_eq(tss.eip, (u32)gone, "  the interrupted task's EIP is in its TSS");
    check_eq(tss.esp, VIEW + 0x10000, "  and its ESP");
    check_eq(df_tss.link, SEL_TSS, "  the new task's back link names it");
    present(8);
}

void guest_main(void)
{
    u32 *pd = pd_create(0);
    paging_on(pd, 0);
    pairs();
    idt_pages(pd);
    through_task_gate(pd);
}
