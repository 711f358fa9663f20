/*
 * Two programs at the same addresses, different in what their code adds, and a kernel that goes from one to the other in
 * the middle of nested calls: at system calls, at timer interrupts, with and without a change of CR3, and that changes a
 * program's code while it waits in a system call. Whatever a monitor remembers of a program across a visit to the kernel
 * (return addresses, blocks by address, windows) must be that program's, and of its code as it is now.
 */
#include "lib/guest.h"

enum { TASKS = 2, DEPTH = 9, VEC_CALL = 0x81, CODE = 0x50000000, STACK_PAGE = 0x50100000, IF = 0x200 };
enum { ADD_IMM = 2 }; /* offset of the immediate in ADD EBX, imm32 */

/* EDI rounds of a recursion DEPTH deep, with a system call at its bottom; EBX adds up the way back. */
extern const char program[], program_leaf[], program_rec[], program_end[];
__asm__(".text; .balign 4096\n"
        "program: xorl %ebx, %ebx\n"
        "1: movl $9, %ecx; call 2f; decl %edi; jnz 1b\n"
        "movl %ebx, %eax; int $0x80\n"
        "2: decl %ecx; jz 3f; call 2b\n"
        "program_rec: .byte 0x81, 0xc3; .long 1; ret\n"
        "3: int $0x81\n"
        "program_leaf: .byte 0x81, 0xc3; .long 1; ret\n"
        "program_end: .balign 4096\n");

static u32 *space[TASKS];
static u8 *code[TASKS];
static struct frame saved[TASKS];
static u32 current, calls, ticks;
static bool switching, patching, moving;
static u8 stacks[2][4096] __attribute__((aligned(4096)));
static u32 patch_expect;

static void set_step(u32 task, u32 k)
{
    memcpy(code[task] + (program_leaf - program) + ADD_IMM, &k, 4);
    memcpy(code[task] + (program_rec - program) + ADD_IMM, &k, 4);
}

static void switch_task(struct frame *f)
{
    enum { FROM_RING3 = offsetof(struct frame, v86_es) }; /* what follows is not on the stack */
    memcpy(&saved[current], f, FROM_RING3);
    current ^= 1;
    memcpy(f, &saved[current], FROM_RING3);
    WRITE_CR(3, space[current]);
}

/* Run what will be overwritten by the frame of the next change to ring 0: a RET where SS will be. */
static void move_stack(void)
{
    u8 *next = stacks[calls >> 4 & 1] + sizeof stacks[0];
    next[-4] = OPCODE_RET;
    ((void (*)(void))(next - 4))();
    tss.esp0 = (u32)next;
}

/* Something a monitor helps with, n calls deep. */
static __attribute__((noinline)) u32 deep(u32 n)
{
    return n ? deep(n - 1) + 1 : READ_CR(0) & 1;
}

static bool on_call(struct frame *f)
{
    calls++;
    if (moving && calls % 16 == 0)
        move_stack();
    if (moving)
        deep(calls % 12);
    if (switching && calls % 3)
        switch_task(f);
    if (patching) {
        u32 k = calls % 7 + 1;
        set_step(current, k);
        patch_expect += k * DEPTH;
    }
    return true;
}

static bool on_tick(struct frame *f)
{
    ticks++;
    pic_eoi(0);
    if (switching && (f->cs & 3) == 3 && ticks % 5 == 0)
        switch_task(f);
    return true;
}

static void prepare(u32 task, u32 rounds)
{
    saved[task] = (struct frame){.gs = SEL_DATA3,
                                 .fs = SEL_DATA3,
                                 .es = SEL_DATA3,
                                 .ds = SEL_DATA3,
                                 .edi = rounds,
                                 .eip = CODE,
                                 .cs = SEL_CODE3,
                                 .eflags = IF | 2,
                                 .esp = STACK_PAGE + 4096,
                                 .ss = SEL_DATA3};
}

/* Until the task that is current leaves by INT VEC_RETURN; its sum. */
static u32 run(void)
{
    const struct frame *s = &saved[current];
    struct descent d = {s->eip, s->cs, s->eflags, s->esp, s->ss, SEL_DATA3};
    WRITE_CR(3, space[current]);
    TRY(__asm__ volatile("movl %0, %%esi; pushl 16(%%esi); pushl 12(%%esi); pushl 8(%%esi); pushl 4(%%esi)\n"
                         "pushl 0(%%esi); movl 20(%%esi), %%eax; movl %%eax, %%ds; movl %%eax, %%es; iret"
                         :
                         : "S"(&d), "D"(s->edi), "b"(s->ebx), "c"(s->ecx)
                         : "memory"));
    return trap.eax;
}

static void set_up(void)
{
    u32 *kernel = pd_create(0);
    for (u32 i = 0; i < TASKS; i++) {
        space[i] = page_alloc();
        memcpy(space[i], kernel, 4096);
        code[i] = page_alloc();
        memcpy(code[i], program, program_end - program);
        map32(space[i], CODE, (u32)code[i], P | U);
        map32(space[i], STACK_PAGE, (u32)page_alloc(), P | W | U);
    }
    idt_set(VEC_CALL, trap_stubs[VEC_CALL], 0xee);
    trap_hook[VEC_CALL] = on_call;
    trap_hook[0x20] = on_tick;
    paging_on(space[0], 0);
}

/* One task ends first; the other goes on alone. Each must have added its own steps only. */
static void both(u32 rounds, const char *what)
{
    u32 sum[TASKS];
    set_step(0, 1);
    set_step(1, 1000);
    for (u32 i = 0; i < TASKS; i++)
        prepare(i, rounds);
    switching = true;
    current = 0;
    u32 first = run();
    switching = false;
    sum[current] = first;
    current ^= 1;
    sum[current] = run();
    check_eq(sum[0], rounds * DEPTH, "%s: the first program's sum", what);
    check_eq(sum[1], rounds * DEPTH * 1000, "%s: the second program's sum", what);
}

static u32 alone(u32 rounds, u32 step)
{
    set_step(1, step);
    prepare(1, rounds);
    current = 1;
    return run();
}

/* SYSENTER and SYSEXIT, as often as a program can, with interrupts in either ring; ECX and EDX are theirs, all else and
 * the flags must be as before. The kernel's way back enables interrupts with STI, as Linux does. */
enum { MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, FAST = 8 };
extern const char storm[], storm_entry[];
volatile u32 storms;
__asm__(".text; .balign 4096\n"
        "storm: movl $0x1234567, %ebx; movl $0x89abcde, %ebp; xorl %eax, %eax\n"
        "1: movl %esp, %ecx; movl $2f, %edx; stc; sysenter\n"
        "2: adcl $0, %eax; movl %esp, %ecx; movl $3f, %edx; cmpl %eax, %eax; sysenter\n"
        "3: jne 4f; jc 4f; cmpl $0x1234567, %ebx; jne 4f; cmpl $0x89abcde, %ebp; jne 4f\n"
        "decl %edi; jnz 1b; int $0x80\n"
        "4: movl $0xbad, %eax; int $0x80\n"
        ".balign 4096\n"
        "storm_entry: pushfl; incl storms; testl $1023, storms; jnz 1f; movl %cr3, %esi; movl %esi, %cr3\n"
        "1: popfl; sti; sysexit\n");

static void fast_calls(u32 rounds)
{
    u16 base = gdt_test(FAST, descriptor(0, 0xfffff, D_CODE_R | D_32 | D_4K));
    gdt_test(FAST + 1, descriptor(0, 0xfffff, D_DATA_W | D_32 | D_4K));
    gdt_test(FAST + 2, descriptor(0, 0xfffff, D_CODE_R | D_DPL3 | D_32 | D_4K));
    gdt_test(FAST + 3, descriptor(0, 0xfffff, D_DATA_W | D_DPL3 | D_32 | D_4K));
    wrmsr(MSR_SYSENTER_CS, base);
    wrmsr(MSR_SYSENTER_ESP, (u32)stacks[0] + sizeof stacks[0]);
    wrmsr(MSR_SYSENTER_EIP, (u32)storm_entry);
    map32(space[1], (u32)storm, (u32)storm, P | U);
    flush_tlb();
    u32 before = ticks;
    prepare(1, rounds);
    saved[1].eip = (u32)storm;
    current = 1;
    check_eq(run(), rounds, "SYSENTER storm: flags and registers survive each call");
    check_eq(storms, rounds * 2, "SYSENTER storm: the kernel saw each call");
    check(ticks != before, "SYSENTER storm: interrupts came");
}

void guest_main(void)
{
    set_up();
    both(2000, "switching at system calls");
    pic_mask(0xfffe);
    pit_periodic(5000);
    both(40000, "and at interrupts");
    check(ticks > 20, "interrupts came");
    fast_calls(150000);
    pit_stop();
    pic_mask(0xffff);
    moving = true;
    check_eq(alone(400, 7), 400 * DEPTH * 7, "the kernel's stack is where code was");
    moving = false;
    patching = true;
    patch_expect = 0;
    u32 sum = alone(300, 1);
    check_eq(sum, patch_expect, "code changed under a waiting program is new when it goes on");
}
