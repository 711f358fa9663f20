/*
 * One physical page of code in many address spaces, at one address and at several, run in ring 3; then changed:
 * by the kernel, by a program that has it writable, through an alias, while another space is current; and given
 * to one space as a copy of its own. Every space executes what its page holds.
 */
#include "lib/guest.h"

enum { SPACES = 12, CODE = 0x40000000, ALIAS = 0x48000000, MOVED = 0x50000000, ROUNDS = 60, AT = 0x123 };

static u32 *base_pd, *pd[SPACES];
static u8 *shared, *own;

/* mov eax, imm; add eax, imm; ret: two constants, so that a stale half shows */
static void write_code(volatile u8 *p, u32 a, u32 b)
{
    p[0] = 0xb8;
    *(volatile u32 *)(p + 1) = a;
    p[5] = 0x05;
    *(volatile u32 *)(p + 6) = b;
    p[10] = 0xc3;
}

static u32 run(u32 where)
{
    u32 (*f)(void) = (u32(*)(void))where;
    u32 once = f();
    return once == f() ? once : 0xbad;
}

static u32 patch(u32 value) /* ring 3, through the writable alias */
{
    *(volatile u32 *)(ALIAS + AT + 1) = value;
    return run(CODE + AT);
}

static void check_all(u32 want, u32 own_want, u32 owner, const char *when)
{
    for (u32 s = 0; s < SPACES; s++) {
        WRITE_CR(3, pd[s]);
        ring_call(3, run, CODE + AT);
        check_eq(trap.eax, s == owner ? own_want : want, "%s: space %u", when, s);
        ring_call(3, run, MOVED + s * 4096 + AT);
        check_eq(trap.eax, want, "%s: space %u, at its own address", when, s);
    }
}

void guest_main(void)
{
    base_pd = pd_create(U);
    shared = page_alloc();
    own = page_alloc();
    for (u32 s = 0; s < SPACES; s++) {
        pd[s] = page_alloc();
        memcpy(pd[s], base_pd, 4096);
        map32(pd[s], CODE, (u32)shared, P | U);
        map32(pd[s], MOVED + s * 4096, (u32)shared, P | U);
        map32(pd[s], ALIAS, (u32)shared, P | W | U);
    }
    paging_on(base_pd, 0);
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    quiet_checks(true);
    for (u32 round = 0; round < ROUNDS; round++) {
        u32 v = round * 1000, owner = round % SPACES;
        write_code(shared + AT, v, 1);
        check_all(v + 1, v + 1, owner, "written by the kernel");

        WRITE_CR(3, pd[(round + 1) % SPACES]);
        ring_call(3, patch, v + 100);
        check_eq(trap.eax, v + 101, "round %u: its own writer", round);
        check_all(v + 101, v + 101, owner, "written by a program");

        WRITE_CR(3, pd[(round + 2) % SPACES]);
        *(volatile u8 *)(ALIAS + AT + 6) =
            7; /* one byte, of the other constant, by the kernel in a user page */
        check_all(v + 107, v + 107, owner, "a byte written through an alias");

        memcpy(own, shared, 4096);
        *pte32(pd[owner], CODE) = (u32)own | P | W | U;
        WRITE_CR(3, pd[owner]);
        *(volatile u32 *)(CODE + AT + 1) = v + 500;
        check_all(v + 107, v + 507, owner, "a copy of its own");
        *(volatile u32 *)(shared + AT + 1) = v + 300;
        check_all(v + 307, v + 507, owner, "and the shared one changed");
        *pte32(pd[owner], CODE) = (u32)shared | P | U;
    }
    quiet_checks(false);
    check(true, "code shared by %u address spaces", SPACES);
}
