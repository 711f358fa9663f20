/* Code that is written while it runs: in the same block, just ahead, on another page, across a page boundary,
 * through an alias, and with different meaning at the same address in two address spaces. A 32-bit x86
 * executes what memory holds; no flush instruction is needed once control passes over the changed bytes by a
 * jump (SDM vol. 3 8.1.3), and on all processors since the P6 not even that. */
#include "lib/guest.h"

enum { VIEW = 0x40000000 };

static u8 code[3 * 4096] __attribute__((aligned(4096)));

/* mov eax, imm32; ret */
static void emit(u8 *at, u32 value)
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static u32 call(const void *at)
{
    u32 v;
    __asm__ volatile("call *%1" : "=a"(v) : "r"(at) : "ecx", "edx", "memory");
    return v;
}

/* The store changes the very next instruction's immediate, in one straight line. */
static ONE_COPY u32 next_instruction(u32 value)
{
    u32 v;
    __asm__ volatile("movl %1, 1f + 1\n1: movl $0x11111111, %%eax\n" : "=a"(v) : "r"(value) : "memory");
    return v;
}

static void same_block(void)
{
    for (u32 i = 0; i < 20; i++)
        check_eq(next_instruction(0x1000 + i), 0x1000 + i, "store to the next instruction, round %u", i);
}

/* A loop that rewrites its own body each time round: addl $imm32, %ebx = 81 C3 imm32. */
static void rewriting_loop(void)
{
    static const u8 body[] = {
        0xff, 0x05, 0, 0, 0, 0, /* incl [imm of the next] */
        0x81, 0xc3, 0, 0, 0, 0, /* addl $imm32, %ebx */
        0x49,                   /* decl %ecx */
        0x75, 0xf1,             /* jnz to the first */
        0xc3,
    };
    memcpy(code, body, sizeof body);
    u32 target = (u32)code + 8;
    memcpy(code + 2, &target, 4);
    u32 sum = 0, rounds = 100;
    __asm__ volatile("call *%2" : "+b"(sum), "+c"(rounds) : "r"(code) : "memory", "cc");
    check_eq(sum, 5050, "a loop that changes its own immediate 100 times");
}

static void function_rewritten(void)
{
    for (u32 i = 0; i < 300; i++) {
        emit(code + 0x100, i);
        check_eq(call(code + 0x100), i, "a function rewritten, round %u", i);
    }
    /* Hot first: it has been translated, chained and predicted. */
    emit(code + 0x100, 1);
    u32 sum = 0;
    for (u32 i = 0; i < 5000; i++)
        sum += call(code + 0x100);
    emit(code + 0x100, 2);
    for (u32 i = 0; i < 5000; i++)
        sum += call(code + 0x100);
    check_eq(sum, 15000, "rewritten after 5000 calls");
    /* A caller that jumps directly into the code that changes. */
    u8 *caller = code + 0x200;
    caller[0] = 0xe8; /* call rel32 */
    u32 rel = (u32)(code + 0x100) - (u32)(caller + 5);
    memcpy(caller + 1, &rel, 4);
    caller[5] = 0xc3;
    for (u32 i = 0; i < 100; i++) {
        emit(code + 0x100, i * 3);
        check_eq(call(caller), i * 3, "through a direct call, round %u", i);
    }
    /* Changed by each width, and by string stores. */
    for (u32 i = 0; i < 20; i++) {
        code[0x101] = i;
        check_eq(call(caller) & 0xff, i, "one byte changed, round %u", i);
        __asm__ volatile("rep stosb" : : "D"(code + 0x101), "c"(4), "a"(i + 1) : "memory");
        check_eq(call(caller), (i + 1) * 0x01010101, "by rep stosb, round %u", i);
    }
}

/* An instruction that lies across two pages: either half may change. */
static void across_pages(void)
{
    u8 *at = code + 4096 - 3; /* b8 imm0 imm1 | imm2 imm3 c3 */
    for (u32 i = 0; i < 50; i++) {
        emit(at, i << 24 | i << 16 | i << 8 | i);
        check_eq(call(at), i * 0x01010101, "an instruction across pages, round %u", i);
        at[1] = 0xaa;
        check_eq(call(at) & 0xff, 0xaa, "its first page changed");
        at[4] = 0xbb;
        check_eq(call(at) >> 24, 0xbb, "its second page changed");
    }
}

/* Data and code in one page: stores beside the code must not hurt, only be seen. */
static void mixed_page(void)
{
    volatile u32 *data = (volatile u32 *)(code + 0x800);
    emit(code + 0x400, 77);
    *data = 0;
    for (u32 i = 0; i < 20000; i++)
        *data += call(code + 0x400) == 77;
    check_eq(*data, 20000, "20000 stores beside running code");
    /* The code itself stores into its own page: incl [data]; ret */
    u8 *self = code + 0x500;
    self[0] = 0xff;
    self[1] = 0x05;
    memcpy(self + 2, &data, 4);
    self[6] = 0xc3;
    for (u32 i = 0; i < 20000; i++)
        call(self);
    check_eq(*data, 40000, "20000 stores by the code itself into its page");
}

/* Written in pieces by several instructions and executed in turn, for long; then the page is data for long, then code
 * and data by turns. */
static void turns(void)
{
    for (u32 v = 0; v < 300; v++) {
        code[0] = 0xb8;
        *(volatile u16 *)(code + 1) = (u16)v;
        *(volatile u16 *)(code + 3) = (u16)(v * 3);
        code[5] = OPCODE_RET;
        for (u32 i = 0; i < 3; i++)
            check_eq(call(code), v | (v * 3) << 16, "turn %u", v);
    }
    for (u32 round = 0; round < 3; round++) {
        for (u32 i = 0; i < 4096; i++)
            code[i] = (u8)(i * 7 + round);
        u32 sum = 0, want = 0;
        for (u32 i = 0; i < 4096; i++) {
            sum += code[i];
            want += (u8)(i * 7 + round);
        }
        check_eq(sum, want, "the page as data, round %u", round);
    }
    for (u32 v = 0; v < 100; v++) {
        emit(code + 64 * (v % 3), v);
        *(volatile u32 *)(code + 2048) += v;
        check_eq(call(code + 64 * (v % 3)), v, "code and data, turn %u", v);
    }
}

static void aliases(u32 *pd)
{
    u32 frame = (u32)code;
    map32(pd, VIEW, frame, P | W);
    map32(pd, VIEW + 0x1000, frame, P);
    flush_tlb();
    for (u32 i = 0; i < 100; i++) {
        emit((u8 *)VIEW + 0x600, i);
        check_eq(call((void *)(VIEW + 0x1600)), i, "changed through an alias, run through another, round %u",
                 i);
        check_eq(call(code + 0x600), i, "  and at home");
    }
}

/* The same linear address, different code in two address spaces, and a page exchanged under running code. */
static void spaces(u32 *pd)
{
    u32 *other = page_alloc();
    u8 *a = page_alloc(), *b = page_alloc();
    emit(a, 0xa);
    emit(b, 0xb);
    memcpy(other, pd, 4096);
    other[0x44000000 >> 22] = 0;
    map32(pd, 0x44000000, (u32)a, P | W);
    map32(other, 0x44000000, (u32)b, P | W);
    for (u32 i = 0; i < 100; i++) {
        WRITE_CR(3, pd);
        check_eq(call((void *)0x44000000), 0xa, "first address space, round %u", i);
        WRITE_CR(3, other);
        check_eq(call((void *)0x44000000), 0xb, "second address space, round %u", i);
    }
    WRITE_CR(3, pd);
    for (u32 i = 0; i < 100; i++) {
        map32(pd, 0x44000000, (u32)(i & 1 ? a : b), P | W);
        invlpg((void *)0x44000000);
        check_eq(call((void *)0x44000000), i & 1 ? 0xa : 0xb, "another page at the address, round %u", i);
    }
    map32(pd, 0x44000000, 0, 0);
    invlpg((void *)0x44000000);
    check_eq(access_page(0, EXEC, 0x44000000), 0, "the page removed: a fetch faults");
}

void guest_main(void)
{
    quiet_checks(true);
    for (unsigned paged = 0; paged < 2; paged++) {
        u32 *pd = NULL;
        if (paged) {
            pd = pd_create(U);
            paging_on(pd, 0);
        }
        same_block();
        rewriting_loop();
        function_rewritten();
        across_pages();
        mixed_page();
        turns();
        if (paged) {
            aliases(pd);
            spaces(pd);
        }
    }
    quiet_checks(false);
    check(true, "self-modifying code");
}
