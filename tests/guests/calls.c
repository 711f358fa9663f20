/* Control flow that return-address prediction gets wrong: deep recursion, unbalanced calls and returns,
 * frames left from below, stacks exchanged, jump tables. */
#include "lib/guest.h"

enum { DEEP = 100000, BIG_STACK = 0x1c00000 };

static __attribute__((noinline)) u32 sum_to(volatile u32 n)
{
    return n ? n + sum_to(n - 1) : 0;
}

static __attribute__((noinline)) u32 fib(u32 n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

static u32 on_stack(u32 top, u32 (*fn)(u32), u32 arg)
{
    u32 v;
    __asm__ volatile("movl %%esp, %%ebx; movl %1, %%esp; pushl %3; call *%2; movl %%ebx, %%esp"
                     : "=a"(v)
                     : "r"(top), "r"(fn), "r"(arg)
                     : "ebx", "ecx", "edx", "memory");
    return v;
}

static u32 deep(u32 n)
{
    return sum_to(n);
}

static struct context out;

static volatile u32 go_back;

static __attribute__((noinline)) u32 dive(volatile u32 n)
{
    if (!n && go_back)
        context_restore(&out);
    return n ? dive(n - 1) + 1 : 0;
}

static void left_from_below(void)
{
    static volatile u32 times;
    times = 0;
    go_back = 1;
    for (u32 i = 0; i < 200; i++)
        if (!context_save(&out))
            dive(100);
        else
            times++;
    check_eq(times, 200, "200 times out of a hundred frames at once");
    check_eq(fib(15), 610, "and calls still pair up");
}

static void unbalanced(void)
{
    u32 v;
    for (u32 i = 0; i < 100; i++) {
        __asm__ volatile("call 1f; 1: popl %%ecx; subl $1b, %%ecx; movl %%ecx, %0" : "=r"(v) : : "ecx");
        if (!check_eq(v, 0, "call, pop: where am I"))
            break;
        __asm__ volatile("pushl $1f; ret; 2: movl $1, %0; jmp 3f; 1: movl $2, %0; 3:" : "=r"(v));
        if (!check_eq(v, 2, "push, ret: a jump"))
            break;
        /* The callee moves its return address on by five bytes: over a mov. */
        __asm__ volatile("xorl %%eax, %%eax; call 1f; movl $7, %%eax; movl %%eax, %0; jmp 2f\n"
                         "1: addl $5, (%%esp); ret; 2:"
                         : "=r"(v)
                         :
                         : "eax", "memory");
        if (!check_eq(v, 0, "a return address that was changed"))
            break;
        /* Two levels left by one ret. */
        __asm__ volatile(
            "call 1f; movl $1, %0; jmp 3f; 1: call 2f; movl $2, %0; jmp 3f; 2: addl $4, %%esp; ret; 3:"
            : "=r"(v)
            :
            : "memory");
        if (!check_eq(v, 1, "two frames left by one ret"))
            break;
    }
}

static void ret_imm(void)
{
    u32 before, after, v;
    __asm__ volatile("movl %%esp, %0; pushl $1; pushl $2; pushl $3; call 1f; movl %%esp, %1; jmp 2f\n"
                     "1: movl 12(%%esp), %%eax; ret $12; 2: movl %%eax, %2"
                     : "=&r"(before), "=&r"(after), "=r"(v)
                     :
                     : "eax", "memory");
    check(before == after && v == 1, "ret 12 releases three words");
    __asm__ volatile("movl %%esp, %0; subl $0x9000, %%esp; call 1f; movl %%esp, %1; jmp 2f; 1: ret $0x9000; "
                     "2: movl %0, %%esp"
                     : "=&r"(before), "=&r"(after)
                     :
                     : "memory");
    check_eq(after, before, "ret 9000h: the count is unsigned");
}

static u32 table_jump(u32 i)
{
    u32 v;
    __asm__ volatile("jmp *1f(, %1, 4)\n .section .rodata; .balign 4\n"
                     "1: .long 10f, 11f, 12f, 13f, 14f, 15f, 16f, 17f\n .previous\n"
                     "10: movl $100, %0; jmp 9f\n 11: movl $101, %0; jmp 9f\n 12: movl $102, %0; jmp 9f\n"
                     "13: movl $103, %0; jmp 9f\n 14: movl $104, %0; jmp 9f\n 15: movl $105, %0; jmp 9f\n"
                     "16: movl $106, %0; jmp 9f\n 17: movl $107, %0\n 9:"
                     : "=r"(v)
                     : "r"(i));
    return v;
}

static void tables(void)
{
    u32 wrong = 0;
    for (u32 i = 0; i < 4000; i++)
        wrong += table_jump((i * 5 + i / 7) % 8) != 100 + (i * 5 + i / 7) % 8;
    check_eq(wrong, 0, "4000 jumps through a table");
}

/* Two stacks that take turns. */
static volatile u32 turns;
volatile u32 other_esp;
static u8 other_stack[8192] __attribute__((aligned(16)));

static void yield(void)
{
    __asm__ volatile("pushl %%ebx; pushl %%esi; pushl %%edi; pushl %%ebp; pushl $1f\n"
                     "xchgl %%esp, other_esp; ret\n"
                     "1: popl %%ebp; popl %%edi; popl %%esi; popl %%ebx"
                     :
                     :
                     : "eax", "ecx", "edx", "memory");
}

static void other_side(void)
{
    for (;;) {
        turns++;
        yield();
    }
}

static void coroutines(void)
{
    u32 *sp = (u32 *)(other_stack + sizeof other_stack - 16);
    *--sp = (u32)other_side;
    other_esp = (u32)sp;
    for (u32 i = 0; i < 1000; i++)
        yield();
    check_eq(turns, 1000, "two stacks taking turns 1000 times");
}

/* A translator may keep a mirror of the calls: whatever its size, an interrupt may come just when it is full. */
extern const char call_and_int[], only_iret[];
__asm__("call_and_int: decl %ecx; jz 1f; call call_and_int; ret; 1: incl %eax; int $0x81; ret\n"
        "only_iret: iret\n");

static void interrupts_at_any_depth(void)
{
    u32 n = 0;
    idt_set(0x81, (u32)only_iret, 0x8e);
    for (u32 depth = 8100; depth < 8200; depth++) {
        u32 c = depth;
        __asm__ volatile("call call_and_int" : "+a"(n), "+c"(c) : : "memory");
    }
    check_eq(n, 100, "an interrupt below 8100 to 8199 calls");
}

static u32 interrupts(u32 unused)
{
    (void)unused;
    interrupts_at_any_depth();
    return 0;
}

static void conditional_forms(void)
{
    u32 c = 5, n = 0;
    __asm__ volatile("1: incl %1; loop 1b" : "+c"(c), "+r"(n));
    check_eq(n, 5, "loop");
    c = 10, n = 0;
    __asm__ volatile("1: incl %1; cmpl $3, %1; loopne 1b" : "+c"(c), "+r"(n));
    check(n == 3 && c == 7, "loopne");
    c = 0, n = 0;
    __asm__ volatile("jecxz 1f; movl $9, %1; 1: incl %1" : "+c"(c), "+r"(n));
    check_eq(n, 1, "jecxz");
    u32 v;
    __asm__ volatile("movl $1, %0; cmpl $1, %0; cmovel %1, %0; jp 1f; xorl %0, %0; 1: sete %b0"
                     : "=&q"(v)
                     : "r"(0xabcd));
    check_eq(v & 0xff00, 0xab00, "cmov, jp, sete");
}

void guest_main(void)
{
    check_eq(fib(20), 6765, "fib(20)");
    check_eq(on_stack(BIG_STACK, deep, DEEP), (u32)((u64)DEEP * (DEEP + 1) / 2), "recursion 100000 deep");
    left_from_below();
    unbalanced();
    ret_imm();
    tables();
    coroutines();
    conditional_forms();
    on_stack(BIG_STACK, interrupts, 0);
}
