/*
 * Pages are filled and copied through addresses that are mapped for one use only, as Linux does it with memory above its
 * direct map: ringlet gives such REP STOS and MOVS a way of their own. All element sizes, any offset, across pages of any
 * frames, forward and back, ring 0 and 3; then with a fault on the way, onto a page of code, and to a page table.
 */
#include "lib/guest.h"

enum { TO = 0x40000000, FROM = 0x40010000, FRAMES = 6, ROUNDS = 5, SPAN = 3 * 4096 };

static u32 *pd;
static u8 *frame[FRAMES];
static u32 slot_flags;
static u8 expected[SPAN], original[SPAN];

static void map_slot(u32 at, u32 i)
{
    *pte32(pd, at) = (u32)frame[i % FRAMES] | slot_flags;
    invlpg((void *)at);
}

/* Three pages at each address, no frame in both. */
static void remap(u32 i)
{
    for (u32 k = 0; k < 3; k++) {
        map_slot(TO + k * 4096, i + k * 2);
        map_slot(FROM + k * 4096, i + k * 2 + 1);
    }
}

struct string {
    u32 to, from, count;
};

static __attribute__((noinline)) struct string rep(u32 kind, struct string s, u32 value)
{
#define REP(n, text)                                                                                         \
    case n:                                                                                                  \
        __asm__ volatile(text : "+D"(s.to), "+S"(s.from), "+c"(s.count) : "a"(value) : "memory", "cc");      \
        break
    switch (kind) {
        REP(0, "rep stosb");
        REP(1, "rep stosw");
        REP(2, "rep stosl");
        REP(3, "rep movsb");
        REP(4, "rep movsw");
        REP(5, "rep movsl");
        REP(6, "std; rep stosl; cld");
        REP(7, "std; rep movsw; cld");
    }
    return s;
}
enum { KINDS = 8 };

static u32 width_of(u32 kind)
{
    static const u8 width[KINDS] = {1, 2, 4, 1, 2, 4, 4, 2};
    return width[kind];
}

static u8 *byte_at(u32 at, u32 i) /* behind the slot's back */
{
    return (u8 *)((*pte32(pd, at + i) & ~4095u) + (i & 4095));
}

static u32 one(u32 kind)
{
    u32 width = width_of(kind), value = random32(), moves = kind >= 3 && kind != 6, down = kind >= 6;
    u32 to = random32() % 4100, from = random32() % 4100, count = random32() % (8000 / width);
    for (u32 i = 0; i < SPAN; i++) {
        original[i] = *byte_at(FROM, i);
        expected[i] = *byte_at(TO, i);
    }
    for (u32 i = 0; i < count * width; i++)
        expected[to + i] = moves ? original[from + i] : (u8)(value >> 8 * (i % width));
    u32 last = down && count ? (count - 1) * width : 0;
    u32 end = down ? 0 - count * width : count * width;
    struct string s = rep(kind, (struct string){TO + to + last, FROM + from + last, count}, value);
    u32 wrong =
        s.count != 0 || s.to != TO + to + last + end || s.from != FROM + from + last + (moves ? end : 0);
    for (u32 i = 0; i < SPAN; i++)
        wrong |= *byte_at(TO, i) != expected[i] || *byte_at(FROM, i) != original[i];
    return wrong;
}

static void compare(u32 ring)
{
    for (u32 i = 0; i < ROUNDS; i++)
        for (u32 kind = 0; kind < KINDS; kind++) {
            remap(random32());
            u32 wrong;
            if (ring == 0)
                wrong = one(kind);
            else {
                ring_call(ring, one, kind);
                check_eq(trap.vector, VEC_RETURN, "round %u, ring %u, string %u ended", i, ring, kind);
                wrong = trap.eax;
            }
            check_eq(wrong, 0, "round %u, ring %u, string %u", i, ring, kind);
        }
}

/* Where a page is absent or read-only the registers tell how far it got, and that far it got. */
static void faults(void)
{
    for (u32 i = 0; i < 100; i++) {
        struct string s = {TO + 4096 - 256, FROM + 64, 128};
        remap(i);
        bool source = i & 1;
        u32 *pte = pte32(pd, source ? FROM + 4096 : TO + 4096);
        if (source)
            s.from = FROM + 4096 - 256, s.to = TO + 64;
        *pte = i & 2 || source ? 0 : *pte & ~(u32)W;
        invlpg((void *)(source ? FROM + 4096 : TO + 4096));
        u32 to = s.to, from = s.from;
        TRY(s = rep(5, s, 0));
        check_trap_anywhere(14, source ? 0 : i & 2 ? PF_W : PF_P | PF_W, "round %u: a copy into nothing", i);
        check_eq(trap.cr2, source ? FROM + 4096 : TO + 4096, "  CR2");
        check_eq(trap.ecx, 128 - 64, "  ECX");
        check_eq(trap.edi, to + 256, "  EDI");
        check_eq(trap.esi, from + 256, "  ESI");
        for (u32 k = 0; k < 256; k++)
            check_eq(*byte_at(to & ~4095u, (to & 4095) + k), *byte_at(from & ~4095u, (from & 4095) + k),
                     "  byte %u", k);
    }
}

static void accessed_and_dirty(void)
{
    for (u32 i = 0; i < 100; i++) {
        remap(i);
        rep(5, (struct string){TO, FROM, 4096 / 4 + 1}, 0);
        for (u32 k = 0; k < 3; k++) {
            check_eq(*pte32(pd, TO + k * 4096) & (ACC | DIRTY), k < 2 ? ACC | DIRTY : 0, "page %u stored to",
                     k);
            check_eq(*pte32(pd, FROM + k * 4096) & (ACC | DIRTY), k < 2 ? ACC : 0, "page %u loaded from", k);
        }
    }
}

/* The page is code: B8 imm32 C3, mov eax, imm; ret. */
static void code(void)
{
    slot_flags |= P | W;
    u8 *page = frame[0];
    for (u32 i = 0; i < 60; i++) {
        map_slot(TO, 0);
        map_slot(FROM, 1);
        frame[1][0] = 0xb8;
        memcpy(frame[1] + 1, &i, 4);
        frame[1][5] = 0xc3;
        rep(3, (struct string){TO, FROM, 6}, 0);
        check_eq(((u32(*)(void))page)(), i, "round %u: code that was copied there", i);
    }
}

/* The page is a page table: the entries take effect. */
static void tables(void)
{
    static const u32 other = 0x41000000;
    u32 *table = page_alloc();
    pd[other >> 22] = (u32)table | P | W | U;
    frame[0] = (u8 *)table;
    for (u32 i = 0; i < 60; i++) {
        map_slot(TO, 0);
        u32 entry = (u32)frame[1 + i % 4] | P | W;
        rep(2, (struct string){TO, FROM, 1024}, entry);
        invlpg((void *)(other + 5 * 4096));
        check_eq(*(volatile u32 *)(other + 5 * 4096 + 8), *(u32 *)(frame[1 + i % 4] + 8),
                 "round %u: a filled table", i);
    }
}

/* What ring 0 alone may read, in place or not. */
static u32 read_cr2(u32 unused)
{
    (void)unused;
    return READ_CR(2);
}

static void control_registers(void)
{
    for (u32 i = 0; i < 20; i++) {
        TRY(*(volatile u8 *)(0x50000000 + i * 4096));
        check_eq(read_cr2(0), 0x50000000 + i * 4096, "CR2 in round %u", i);
    }
    check_eq(READ_CR(3), (u32)pd, "CR3");
    check(READ_CR(0) & CR0_WP, "CR0.WP");
    WRITE_CR(0, READ_CR(0) & ~CR0_WP);
    check(!(READ_CR(0) & CR0_WP), "CR0.WP cleared");
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    for (u32 ring = 1; ring <= (slot_flags & U ? 3 : 2); ring++)
        for (u32 i = 0; i < 3; i++) {
            ring_call(ring, read_cr2, 0);
            check_trap_anywhere(13, 0, "MOV from CR2 in ring %u", ring);
        }
}

static void all(u32 flags)
{
    slot_flags = flags;
    compare(0);
    if (flags & U)
        compare(3);
    faults();
    accessed_and_dirty();
    control_registers();
}

void guest_main(void)
{
    for (u32 i = 0; i < FRAMES; i++)
        frame[i] = page_random();
    quiet_checks(true);
    pd = pd_create(0);
    pte32(pd, TO);
    paging_on(pd, 0);
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    all(P | W);
    pd = pd_create(U);
    pte32(pd, TO);
    WRITE_CR(3, pd);
    all(P | W | U);
    code();
    tables();
    quiet_checks(false);
    check(true, "strings through pages mapped for one use");
}
