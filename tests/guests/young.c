/* User code that touches many pages a few times each, then again after their entries were changed: pages come, become
 * read-only, go, show another frame, belong to another address space. What one instruction does to page after page must
 * be exact whether the page has been touched before, how often, and in which space. */
#include "lib/guest.h"

enum { BASE = 0x40000000, PAGES = 64, ROUNDS = 50, FAR = 0xfffff000u - PAGES * 0x801000 };

static u32 *space[2], *frame[2][PAGES], *spare;

/* eax = what the touches of page `at` add up to: loads, stores, read-modify-write, AH to DH, pushes, pops, a call on a
 * stack there. The page's first word is `old` before and old + 2 after. */
static ONE_COPY u32 touch(u32 at)
{
    u32 sum;
    __asm__ volatile("movl (%1), %%eax\n"
                     "addl $1, (%1)\n"
                     "incl (%1)\n"
                     "movb %%ah, 8(%1)\n" /* old's second byte */
                     "movb 8(%1), %%dh\n"
                     "cmpb %%dh, 8(%1)\n"
                     "setne %%dl\n"
                     "cmpb %%ah, 8(%1)\n"
                     "setne %%dh\n"
                     "addb %%dl, %%dh\n"
                     "movzbl %%dh, %%edx\n" /* 0 */
                     "shll $16, %%edx\n"
                     "addl %%edx, %%eax\n"
                     "movzbl 8(%1), %%edx\n"
                     "pushl %%edx\n"
                     "movl %%esp, %%ecx\n"
                     "leal 256(%1), %%esp\n"
                     "pushl $3\n"
                     "pushl %%eax\n"
                     "call 1f\n"
                     "popl %%edx\n"
                     "addl %%edx, %%eax\n"
                     "popl %%edx\n"
                     "addl %%edx, %%eax\n"
                     "jmp 2f\n"
                     "1: pushl %%ebp\n"
                     "movl %%esp, %%ebp\n"
                     "pushl (%1)\n"
                     "addl -4(%%ebp), %%eax\n"
                     "leave\n"
                     "ret\n"
                     "2: movl %%ecx, %%esp\n"
                     "popl %%edx\n"
                     "addl %%edx, %%eax\n"
                     : "=&a"(sum)
                     : "r"(at)
                     : "ecx", "edx", "memory", "cc");
    return sum;
}

static u32 touch_all(u32 first)
{
    u32 sum = 0;
    for (u32 i = first; i < PAGES; i++)
        sum += touch(BASE + i * 4096);
    return sum;
}

static u32 read_one(u32 at)
{
    return *(volatile u32 *)at;
}

/* The same with pages all over the upper half of the address space, the last page of all among them. */
static u32 touch_far(u32 last)
{
    u32 sum = 0;
    for (u32 i = 1; i <= last; i++)
        sum += touch(FAR + i * 0x801000);
    return sum;
}

static void far_apart(u32 base)
{
    u32 value = base;
    for (u32 i = 1; i <= PAGES; i++) {
        *frame[0][i - 1] = value;
        map32(space[0], FAR + i * 0x801000, (u32)frame[0][i - 1], P | W | U);
    }
    flush_tlb();
    for (u32 n = 0; n < ROUNDS; n++, value += 2) {
        ring_call(3, touch_far, PAGES);
        check(trap.vector == VEC_RETURN && trap.eax == PAGES * (3 * value + 2 + 3 + (value >> 8 & 0xff)),
              "far apart: %u pages of %u", PAGES, value);
    }
    for (u32 i = 1; i <= PAGES; i++) {
        map32(space[0], FAR + i * 0x801000, 0, 0);
        invlpg((void *)(FAR + i * 0x801000));
        ring_call(3, read_one, FAR + i * 0x801000);
        check(trap.vector == 14 && trap.cr2 == FAR + i * 0x801000, "far apart: gone, page %u", i);
    }
}

static u32 write_one(u32 at)
{
    *(volatile u32 *)at = 7;
    return 0;
}

/* One pass over all pages that hold `value` now: 3 value + 2 + 3 and its second byte each. */
static void pass(u32 value, const char *what)
{
    ring_call(3, touch_all, 0);
    check(trap.vector == VEC_RETURN && trap.eax == PAGES * (3 * value + 2 + 3 + (value >> 8 & 0xff)),
          "%s: %u pages of %u", what, PAGES, value);
}

static void set_all(u32 s, u32 value, u32 bits)
{
    for (u32 i = 0; i < PAGES; i++) {
        *frame[s][i] = value;
        map32(space[s], BASE + i * 4096, (u32)frame[s][i], bits);
    }
    flush_tlb();
}

static void many_times(void)
{
    u32 value[2] = {10, 1000};
    for (u32 s = 0; s < 2; s++)
        set_all(s, value[s], P | W | U);
    for (u32 n = 0; n < ROUNDS; n++) {
        u32 s = n / 3 % 2;
        WRITE_CR(3, space[s]);
        pass(value[s], s ? "second space" : "first space");
        value[s] += 2;
    }
}

static void fault(u32 (*fn)(u32), u32 page, u32 error, const char *what)
{
    u32 at = BASE + page * 4096;
    ring_call(3, fn, at);
    check(trap.vector == 14 && trap.cr2 == at && trap.error == error, "%s: page %u", what, page);
}

static void changed(u32 n)
{
    u32 page = n * 7 % PAGES, at = BASE + page * 4096;
    *frame[0][page] = n;
    map32(space[0], at, (u32)frame[0][page], P | U);
    invlpg((void *)at);
    fault(write_one, page, 7, "read-only now");
    ring_call(3, read_one, at);
    check_eq(trap.eax, n, "read-only now, still read: page %u", page);
    map32(space[0], at, 0, 0);
    invlpg((void *)at);
    fault(read_one, page, 4, "gone now");
    fault(write_one, page, 6, "gone now");
    *spare = n + 1;
    map32(space[0], at, (u32)spare, P | W | U);
    ring_call(3, read_one, at);
    check_eq(trap.eax, n + 1, "another frame: page %u", page);
    ring_call(3, write_one, at);
    check(trap.vector == VEC_RETURN && *spare == 7 && *frame[0][page] == n, "another frame, written: page %u",
          page);
    map32(space[0], at, (u32)frame[0][page], P | W | U);
    invlpg((void *)at);
}

void guest_main(void)
{
    u32 *pd = pd_create(U);
    spare = page_alloc();
    for (u32 s = 0; s < 2; s++) {
        space[s] = page_alloc();
        memcpy(space[s], pd, 4096);
        for (u32 i = 0; i < PAGES; i++)
            frame[s][i] = page_alloc();
    }
    paging_on(space[0], 0);
    quiet_checks(true);
    for (u32 n = 0; n < 4; n++) {
        many_times();
        WRITE_CR(3, space[0]);
        set_all(0, 1, P | W | U);
        for (u32 i = 0; i < PAGES; i++)
            changed(n * PAGES + i);
        for (u32 i = 0; i < PAGES; i++)
            *frame[0][i] = 5;
        pass(5, "afterwards");
        far_apart(2000 * n + 2);
    }
    quiet_checks(false);
    check(true, "young pages");
}
