/* One page of code at many addresses of many address spaces, in ring 3: its calls, returns, branches and faults must be
 * those of the address it is run at, a change of the page must be seen at all of them, and pages exchanged under the
 * same addresses must not be mixed up. */
#include "lib/guest.h"

enum { SPACES = 24, VIEWS = 5, FIRST = 0x40000000, APART = 0x00355000, NOWHERE = 0x7f000000 };

/* int work(int n): 3 n times added to 10, 0x100 for each odd counter, 1 and 5 by calls; XORed with where it ran. */
__asm__(".text\n"
        "code_begin:\n"
        "work: pushl %ebx\n"
        "call 1f\n"
        "1: popl %ebx\n"
        "movl 8(%esp), %ecx\n"
        "movl $10, %eax\n"
        "2: addl $3, %eax\n"
        "step: testb $1, %cl\n"
        "jz 3f\n"
        "addl $0x100, %eax\n"
        "3: loop 2b\n"
        "call 4f\n"
        "leal 5f-1b(%ebx), %edx\n"
        "call *%edx\n"
        "pushfl\n"
        "popl %edx\n"
        "str %dx\n" /* for the translator: instructions that are calls out of it */
        "leal 6f-1b(%ebx), %edx\n"
        "jmp *%edx\n"
        "4: incl %eax\n"
        "ret\n"
        "5: addl $5, %eax\n"
        "ret\n"
        "6: xorl %ebx, %eax\n"
        "popl %ebx\n"
        "ret\n"
        "ends: pushl %eax\n" /* int ends(int n): never returns */
        "call 7f\n"
        "7: popl %ecx\n"
        "cmpl $0, 8(%esp)\n"
        "je 8f\n"
        "load: movl 0x7f000000, %eax\n"
        "8: xorl %edx, %edx\n"
        "divide: divl %edx\n"
        "code_end:\n");
extern const u8 code_begin[], work[], step[], load[], divide[], ends[], code_end[];

enum { WORK_POP = 6 }; /* pushl, call rel32: what the POP in work finds */

static u32 *space[SPACES];
static u8 *frame[2];

static u32 view(u32 s, u32 v)
{
    return FIRST + (s * VIEWS + v) * APART;
}

static u32 offset(const u8 *label)
{
    return (u32)(label - code_begin);
}

static void build(u32 *pd)
{
    for (u32 i = 0; i < 2; i++) {
        frame[i] = page_alloc();
        memcpy(frame[i], code_begin, (u32)(code_end - code_begin));
    }
    for (u32 s = 0; s < SPACES; s++) {
        space[s] = page_alloc();
        memcpy(space[s], pd, 4096);
        for (u32 v = 0; v < VIEWS; v++)
            map32(space[s], view(s, v), (u32)frame[0], P | U);
    }
}

static void run(u32 s, u32 v, u32 each, const char *when)
{
    u32 at = view(s, v), n = s + v + 1, want = 10 + each * n + 0x100 * ((n + 1) / 2) + 1 + 5;
    ring_call(3, (u32(*)(u32))at, n);
    check(trap.vector == VEC_RETURN && trap.eax == (want ^ (at + WORK_POP)), "%s: space %u, view %u", when, s,
          v);
}

static void fault(u32 s, u32 v)
{
    u32 at = view(s, v);
    ring_call(3, (u32(*)(u32))(at + offset(ends)), 1);
    check(trap.vector == 14 && trap.eip == at + offset(load) && trap.cr2 == NOWHERE && trap.error == 4,
          "page fault in space %u, view %u", s, v);
    ring_call(3, (u32(*)(u32))(at + offset(ends)), 0);
    check(trap.vector == 0 && trap.eip == at + offset(divide) && trap.ecx == at + offset(ends) + 6,
          "divide error in space %u, view %u", s, v);
}

static void everywhere(u32 each, const char *when)
{
    for (u32 s = 0; s < SPACES; s++) {
        WRITE_CR(3, space[s]);
        for (u32 v = 0; v < VIEWS; v++) {
            run(s, v, each, when);
            fault(s, v);
        }
    }
}

void guest_main(void)
{
    u32 *pd = pd_create(U);
    build(pd);
    paging_on(pd, 0);
    quiet_checks(true);
    everywhere(3, "first");
    everywhere(3, "again");
    frame[0][offset(step) - 1] = 7; /* addl $7, %eax */
    everywhere(7, "changed");
    for (u32 s = 0; s < SPACES; s++) /* every other view shows the unchanged copy now */
        for (u32 v = 0; v < VIEWS; v += 2)
            map32(space[s], view(s, v), (u32)frame[1], P | U);
    for (u32 round = 0; round < 2; round++) {
        for (u32 s = 0; s < SPACES; s++) {
            WRITE_CR(3, space[s]);
            for (u32 v = 0; v < VIEWS; v++)
                run(s, v, v % 2 ? 7 : 3, "exchanged");
        }
    }
    quiet_checks(false);
    check(true, "a page of code at %u addresses", SPACES * VIEWS);
}
