/*
 * Functions whose addresses agree in their low 18 bits, called in turn: a translator's table of addresses has one row for
 * all of them. Whatever it keeps besides must end when the page is another one, when the code is written, when the
 * address space changes. In ring 0 and in ring 3.
 */
#include "lib/guest.h"

enum { VIEW = 0x40000000, APART = 1 << 18, PAGES = 16, SPACES = 3, ROUNDS = 40 };

static const u16 offsets[] = {0x10, 0x100, 0x804};
enum { EACH = 3 };

static u32 *pd[SPACES];
static u8 *frame[SPACES][PAGES];
static u32 value[SPACES][PAGES];
static u32 stamp;

/* mov eax, imm32; ret: functions of one page return its value, the value + 1, and so on. */
static void write_page(u32 s, u32 p)
{
    value[s][p] = ++stamp * 0x100;
    for (u32 n = 0; n < EACH; n++) {
        u8 *at = frame[s][p] + offsets[n];
        u32 v = value[s][p] + n;
        at[0] = 0xb8;
        memcpy(at + 1, &v, 4);
        at[5] = 0xc3;
    }
}

static u32 *entry_of(u32 s, u32 p)
{
    u32 va = VIEW + p * APART;
    u32 *table = (u32 *)(pd[s][va >> 22] & ~4095u);
    return &table[va >> 12 & 1023];
}

static void create(u32 s)
{
    pd[s] = pd_create(U);
    for (u32 p = 0; p < PAGES; p++) {
        u32 va = VIEW + p * APART;
        if (!pd[s][va >> 22]) {
            u32 *table = page_alloc();
            memset(table, 0, 4096);
            pd[s][va >> 22] = (u32)table | P | W | U;
        }
        frame[s][p] = (u8 *)page_alloc();
        write_page(s, p);
        *entry_of(s, p) = (u32)frame[s][p] | P | U;
    }
}

static u32 mix(u32 sum, u32 v)
{
    return sum * 31 + v;
}

static u32 walk(u32 rounds)
{
    u32 sum = 0;
    while (rounds--)
        for (u32 n = 0; n < EACH; n++)
            for (u32 p = 0; p < PAGES; p++) {
                u32 v;
                __asm__ volatile("call *%1"
                                 : "=a"(v)
                                 : "r"(VIEW + p * APART + offsets[n])
                                 : "ecx", "edx", "memory");
                sum = mix(sum, v);
            }
    return sum;
}

static u32 expected(u32 s, u32 rounds)
{
    u32 sum = 0;
    while (rounds--)
        for (u32 n = 0; n < EACH; n++)
            for (u32 p = 0; p < PAGES; p++)
                sum = mix(sum, value[s][p] + n);
    return sum;
}

static void visit(u32 s, const char *when)
{
    u32 want = expected(s, 3);
    check_eq(walk(3), want, "space %u, ring 0, %s", s, when);
    ring_call(3, walk, 3);
    check(trap.vector == VEC_RETURN && trap.eax == want, "space %u, ring 3, %s: %x, not %x", s, when,
          trap.eax, want);
}

/* Two pages of the current space change places. */
static void exchange(u32 s, u32 a, u32 b)
{
    u32 e = *entry_of(s, a), v = value[s][a];
    u8 *f = frame[s][a];
    *entry_of(s, a) = *entry_of(s, b);
    *entry_of(s, b) = e;
    frame[s][a] = frame[s][b];
    frame[s][b] = f;
    value[s][a] = value[s][b];
    value[s][b] = v;
    invlpg((void *)(VIEW + a * APART));
    invlpg((void *)(VIEW + b * APART));
}

/* A page that both spaces have from now on, at two places. */
static void share(u32 from, u32 to, u32 a, u32 b)
{
    *entry_of(to, b) = (u32)frame[from][a] | P | U;
    frame[to][b] = frame[from][a];
    value[to][b] = value[from][a];
}

void guest_main(void)
{
    for (u32 s = 0; s < SPACES; s++)
        create(s);
    paging_on(pd[0], 0);
    quiet_checks(true);
    for (u32 round = 0; round < ROUNDS; round++) {
        u32 s = round % SPACES, p = round * 7 % PAGES;
        WRITE_CR(3, pd[s]);
        visit(s, "entered");
        write_page(s, p);
        visit(s, "a page written");
        exchange(s, p, (p + 5) % PAGES);
        visit(s, "two pages exchanged");
        write_page(s, (p + 5) % PAGES);
        write_page(s, p);
        visit(s, "both written");
    }
    for (u32 s = 0; s < SPACES; s++)
        share(0, s, 3, s + 4);
    for (u32 s = 0; s < SPACES; s++) {
        WRITE_CR(3, pd[s]);
        visit(s, "with a page of all");
    }
    quiet_checks(false);
    check(true, "%u functions for one row, %u rounds", PAGES, ROUNDS);
}
