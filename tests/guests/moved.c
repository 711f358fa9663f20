/*
 * Programs that come and go, each with the same page of code somewhere else, in ring 3: a page whose last program has
 * ended, one that others still run, one that was half way through a call when everything was taken from it. What runs
 * must be what the address space shows at the address it runs at, whoever had the page before.
 */
#include "lib/guest.h"

enum { SPACES = 7, ROUNDS = 40, FIRST = 0x40000000 };
/* Distances for which a translator's tables of addresses may have the same row. */
enum { FAR = 13 << 18, NEAR = 0x1000 };

/* int work(int n): C + 3 n + 1, XORed with where it ran. int trip(stack): stops half way through a call, then the same for
 * n = 0, and stops again. int over(int n): work, by a jump that lies in two pages. */
__asm__(".text\n"
        "moved_begin:\n"
        "moved_work: call 1f\n"
        "1: popl %edx\n"
        "movl 4(%esp), %ecx\n"
        "movl $100, %eax\n"
        "moved_constant: jecxz 3f\n"
        "2: addl $3, %eax\n"
        "loop 2b\n"
        "3: call 4f\n"
        "str %cx\n" /* a call out of translated code */
        "leal 5f-1b(%edx), %ecx\n"
        "jmp *%ecx\n"
        "4: incl %eax\n"
        "ret\n"
        "5: xorl %edx, %eax\n"
        "ret\n"
        "moved_trip: movl 4(%esp), %esp\n"
        "call 7f\n"
        "pushl $0\n"
        "call moved_work\n"
        "int3\n"
        "7: int3\n"
        "ret\n"
        "moved_end:\n");
extern const u8 moved_begin[], moved_work[], moved_constant[], moved_trip[], moved_end[];
enum { WORK_POP = 5, OVER = 4094 };

static u32 *base_pd, *pd[SPACES], *table[SPACES];
static u8 *frame[2], *after, own_stack[SPACES][256];
static const u32 constant[2] = {100, 5000};

static u32 offset(const u8 *label)
{
    return (u32)(label - moved_begin);
}

static void make_frame(u32 n)
{
    frame[n] = page_alloc();
    memcpy(frame[n], moved_begin, (u32)(moved_end - moved_begin));
    memcpy(frame[n] + offset(moved_constant) - 4, &constant[n], 4);
    u32 rel = offset(moved_work) - (OVER + 5);
    frame[n][OVER] = 0xe9; /* jmp work */
    frame[n][OVER + 1] = (u8)rel;
    memcpy(after, (u8 *)&rel + 1, 3);
}

static void show(u32 s, u32 va, u32 n)
{
    pd[s][va >> 22] = (u32)table[s] | P | W | U;
    table[s][va >> 12 & 1023] = (u32)frame[n] | P | U;
    table[s][(va >> 12 & 1023) + 1] = (u32)after | P | U;
}

/* A process: its directory shows frame n at va, and what follows it. */
static void born(u32 s, u32 va, u32 n)
{
    WRITE_CR(3, base_pd);
    memcpy(pd[s], base_pd, 4096);
    show(s, va, n);
    WRITE_CR(3, pd[s]);
}

/* Its end, as systems write it: the pages, then the tables, then the directory; then another space is loaded. */
static void dead(u32 s, bool flood)
{
    WRITE_CR(3, base_pd);
    for (u32 i = 0; i < 1024; i++)
        if (table[s][i])
            table[s][i] = 0;
    for (u32 i = 0; i < 1024; i++)
        if (pd[s][i])
            pd[s][i] = 0;
    if (flood) /* and its page is somebody's data */
        memset(pd[s], 0, 4096);
    WRITE_CR(3, base_pd);
}

static void enter(u32 s)
{
    WRITE_CR(3, pd[s]);
}

static void run(u32 va, u32 at, u32 arg, u32 n, const char *what, u32 round)
{
    ring_call(3, (u32(*)(u32))(va + at), arg);
    check(trap.vector == VEC_RETURN && trap.eax == ((constant[n] + 3 * arg + 1) ^ (va + WORK_POP)),
          "round %u: %s: %u of %X at %X", round, what, trap.vector, trap.eax, va);
}

static void works(u32 va, u32 n, const char *what, u32 round)
{
    run(va, offset(moved_work), round % 9, n, what, round);
    run(va, offset(moved_work), 3, n, what, round);
    run(va, OVER, 4, n, what, round);
}

static u32 address(u32 round)
{
    return FIRST + round * (round % 2 ? 0x1000 * 37 : FAR) % 0x0f000000;
}

/* One after the other, the directory page being always the same one, or one of two. */
static void one_by_one(u32 spaces, bool flood)
{
    for (u32 round = 1; round < ROUNDS; round++) {
        u32 s = round % spaces;
        born(s, address(round), 0);
        works(address(round), 0, "one by one", round);
        dead(s, flood);
    }
}

/* A shell and its programs: one lives on, another one ends each round. The first shell's children have its address. */
static void shell_and_programs(void)
{
    u32 home = FIRST + 0x123000;
    born(0, home, 0);
    for (u32 round = 1; round < ROUNDS; round++) {
        enter(0);
        works(home, 0, "shell", round);
        born(1 + round % 2, home, 0);
        works(home, 0, "child", round);
        dead(1 + round % 2, false);
        born(3, address(round), 0);
        works(address(round), 0, "program", round);
        enter(0);
        works(home, 0, "shell again", round);
        if (round % 5 == 0) {
            enter(3);
            works(address(round), 0, "program again", round);
        }
        dead(3, round % 3 == 0);
    }
    dead(0, false);
}

/* All at one address, by the jump that lies in two pages only, after the first; they end one after the other. */
static void last_one_out(void)
{
    u32 home = FIRST + 0x777000;
    for (u32 s = 0; s < SPACES - 1; s++) {
        born(s, home, 0);
        if (s == 0)
            works(home, 0, "together", s);
        run(home, OVER, 2, 0, "together", s);
        run(home, OVER, 1, 0, "together", s);
    }
    for (u32 s = 0; s < SPACES - 1; s++) {
        dead(s, false);
        born(SPACES - 1, address(s + 7), 0);
        works(address(s + 7), 0, "newcomer", s);
        for (u32 k = s + 1; k < SPACES - 1; k++) {
            enter(k);
            run(home, OVER, 5, 0, "left over", k);
        }
        dead(SPACES - 1, false);
    }
}

/* A space is born again with the other page where the first one has gone meanwhile, and the row of the old address is the
 * new one's, too. */
static void old_knowledge(u32 apart)
{
    for (u32 round = 1; round < ROUNDS; round++) {
        u32 va = FIRST + round * 0x2000, there = va + apart;
        born(0, va, 0);
        works(va, 0, "before", round);
        dead(0, round % 2);
        born(1, there, 0);
        works(there, 0, "elsewhere", round);
        born(0, there, 1);
        works(there, 1, "born again", round);
        enter(1);
        works(there, 0, "elsewhere again", round);
        if (round % 2)
            dead(1, false);
        dead(0, false);
        dead(1, false);
    }
}

/* The same, but it has never ended: it shows the other page beside the first. */
static void alive_beside(u32 apart)
{
    for (u32 round = 1; round < ROUNDS; round++) {
        u32 va = FIRST + round * 0x2000, there = va + apart;
        born(0, va, 0);
        works(va, 0, "first", round);
        born(1, there, 0);
        works(there, 0, "second", round);
        enter(0);
        if (round % 2)
            works(va, 0, "first again", round);
        show(0, there, 1);
        works(there, 1, "another page", round);
        works(va, 0, "and the first", round);
        enter(1);
        works(there, 0, "second again", round);
        dead(0, false);
        dead(1, false);
    }
}

/* Everything is taken from a program between a call and its return, its code is moved on by another, and it goes on with
 * the other page, at the old address or at the new one. */
static void half_way(void)
{
    for (u32 round = 1; round < ROUNDS; round++) {
        u32 va = FIRST + round * 0x3000, there = va + FAR, *sp = (u32 *)(own_stack[0] + sizeof own_stack[0]);
        born(0, va, 0);
        works(va, 0, "whole", round);
        ring_call(3, (u32(*)(u32))(va + offset(moved_trip)), (u32)sp);
        check(trap.vector == 3 && trap.esp == (u32)(sp - 1), "round %u: half way", round);
        dead(0, false);
        born(1, there, 0);
        works(there, 0, "mover", round);
        ring_call(3, (u32(*)(u32))(there + offset(moved_trip)), (u32)(own_stack[1] + sizeof own_stack[1]));
        u32 now = round % 2 ? va : there;
        born(0, now, 1);
        sp[-1] = sp[-1] - va + now;
        struct descent d = {.eip = now + (u32)(moved_end - moved_begin) - 1, /* the RET */
                            .cs = SEL_CODE3,
                            .eflags = 2,
                            .esp = (u32)(sp - 1),
                            .ss = SEL_DATA3,
                            .data = SEL_DATA3};
        TRY(ring_descend(&d));
        check(trap.vector == 3 && trap.eax == ((constant[1] + 1) ^ (now + WORK_POP)),
              "round %u: the other half", round);
        dead(1, false);
        dead(0, false);
    }
}

/* The page's bytes change between two of its addresses. */
static void rewritten(void)
{
    for (u32 round = 1; round < ROUNDS; round++) {
        born(round % 2, address(round), 0);
        works(address(round), 0, "before the change", round);
        u32 other = 100 + round;
        memcpy(frame[0] + offset(moved_constant) - 4, &other, 4);
        ring_call(3, (u32(*)(u32))(address(round) + offset(moved_work)), 0);
        check_eq(trap.eax, (other + 1) ^ (address(round) + WORK_POP), "round %u: changed", round);
        dead(round % 2, false);
        born(2, address(round + 1), 0);
        ring_call(3, (u32(*)(u32))(address(round + 1) + offset(moved_work)), 0);
        check_eq(trap.eax, (other + 1) ^ (address(round + 1) + WORK_POP), "round %u: changed, moved", round);
        memcpy(frame[0] + offset(moved_constant) - 4, &constant[0], 4);
        works(address(round + 1), 0, "changed back", round);
        dead(2, false);
    }
}

void guest_main(void)
{
    base_pd = pd_create(U);
    after = page_alloc();
    make_frame(0);
    make_frame(1);
    for (u32 s = 0; s < SPACES; s++) {
        pd[s] = page_alloc();
        table[s] = page_alloc();
    }
    paging_on(base_pd, 0);
    quiet_checks(true);
    one_by_one(1, false);
    one_by_one(2, false);
    one_by_one(3, true);
    shell_and_programs();
    last_one_out();
    old_knowledge(FAR);
    old_knowledge(NEAR);
    alive_beside(FAR);
    half_way();
    rewritten();
    quiet_checks(false);
    check(true, "programs that come and go");
}
