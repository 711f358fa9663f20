/* More address spaces than any cache of them holds: 300 directories whose user and kernel pages at the same
 * addresses differ, visited again and again, in ring 0 and ring 3, some changed while they are not current.
 */
#include "lib/guest.h"

enum { SPACES = 300, USER_VIEW = 0x40000000, KERNEL_VIEW = 0xd0000000, PAGES = 4 };

static u32 *pd, *space[SPACES];
static volatile u32 *content[SPACES];

static u32 user_sum(u32 arg)
{
    u32 sum = 0;
    for (u32 i = 0; i < PAGES; i++)
        sum += *(volatile u32 *)(USER_VIEW + i * 4096);
    return sum + arg;
}

static u32 want_sum(u32 s)
{
    return PAGES * (s * 16) + 0 + 1 + 2 + 3;
}

static void build(void)
{
    for (u32 s = 0; s < SPACES; s++) {
        space[s] = page_alloc();
        memcpy(space[s], pd, 4096);
        for (u32 i = 0; i < PAGES; i++) {
            volatile u32 *p = page_alloc();
            *p = s * 16 + i;
            map32(space[s], USER_VIEW + i * 4096, (u32)p, P | W | U);
            if (i == 0)
                content[s] = p;
        }
        map32(space[s], KERNEL_VIEW, (u32)content[s], P | W);
    }
}

static void visit(u32 s, const char *when)
{
    WRITE_CR(3, space[s]);
    check_eq(*(volatile u32 *)KERNEL_VIEW, s * 16, "%s: kernel page of space %u", when, s);
    check_eq(*(volatile u32 *)(USER_VIEW + 4096), s * 16 + 1, "%s: user page of space %u, ring 0", when, s);
    ring_call(3, user_sum, 5);
    check(trap.vector == VEC_RETURN && trap.eax == want_sum(s) + 5, "%s: user pages of space %u, ring 3",
          when, s);
}

void guest_main(void)
{
    pd = pd_create(U);
    build();
    paging_on(pd, 0);
    quiet_checks(true);
    for (u32 s = 0; s < SPACES; s++)
        visit(s, "first");
    for (u32 s = SPACES; s-- > 0;)
        visit(s, "backwards");
    for (u32 i = 0; i < 600; i++)
        visit(i % 2 ? 7 : (i * 37) % SPACES, "to and fro");
    /* Exchange the contents of two spaces while neither is current. */
    WRITE_CR(3, pd);
    for (u32 s = 0; s + 1 < SPACES; s += 2) {
        u32 *a = pte32(space[s], USER_VIEW), *b = pte32(space[s + 1], USER_VIEW), t = *a;
        *a = *b;
        *b = t;
    }
    for (u32 s = 0; s < SPACES; s++) {
        WRITE_CR(3, space[s]);
        check_eq(*(volatile u32 *)USER_VIEW, (s ^ 1) * 16, "after the exchange: space %u", s);
    }
    quiet_checks(false);
    check(true, "%u address spaces", SPACES);
}
