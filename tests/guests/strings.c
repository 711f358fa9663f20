/* String instructions of all widths, directions and prefixes, on overlapping buffers, against plain loops. */
#include "lib/guest.h"

enum { SIZE = 4096 };
static u8 a[SIZE + 64], b[SIZE + 64], model_b[SIZE + 64];

static void fill(u32 seed)
{
    for (u32 i = 0; i < sizeof a; i++) {
        a[i] = (i * 31 + seed * 17) >> 2;
        b[i] = model_b[i] = i * 7 + seed;
    }
}

static void movs(u32 width, bool down, u32 count)
{
    u32 bytes = count * width;
    u32 start = down ? 16 + bytes - width : 16;
    const void *s = a + start + 3;
    void *d = b + start;
    u32 c = count;
    for (u32 i = 0; i < bytes; i++)
        model_b[16 + i] = a[16 + 3 + i];
    if (down)
        __asm__ volatile("std");
    if (width == 1)
        __asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
    else if (width == 2)
        __asm__ volatile("rep movsw" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
    else
        __asm__ volatile("rep movsl" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
    __asm__ volatile("cld");
    check(!memcmp(b, model_b, sizeof b), "rep movs, width %u, %s, %u", width, down ? "down" : "up", count);
    check(c == 0 && (u32)d == (u32)b + start + (down ? 0 - bytes : bytes), "  ECX and EDI after it");
}

static void overlap(void)
{
    for (u32 distance = 1; distance < 9; distance++) {
        fill(distance);
        const void *s = b;
        void *d = b + distance;
        u32 c = 300;
        for (u32 i = 0; i < 1200; i++)
            if (distance >= 4 || i % 4 == 0) { /* dword by dword, as the CPU does */
                u32 at = i & ~3u;
                if (i % 4)
                    continue;
                u32 v;
                memcpy(&v, model_b + at, 4);
                memcpy(model_b + at + distance, &v, 4);
            }
        __asm__ volatile("rep movsl" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
        check(!memcmp(b, model_b, sizeof b), "rep movsl onto itself, %u bytes on", distance);
    }
    fill(1);
    const void *s = b;
    void *d = b + 1;
    u32 c = 1000;
    __asm__ volatile("rep movsb" : "+S"(s), "+D"(d), "+c"(c) : : "memory");
    u32 same = 0;
    for (u32 i = 0; i <= 1000; i++)
        same += b[i] == b[0];
    check_eq(same, 1001, "rep movsb one byte on fills");
}

static void stos_lods_scas_cmps(void)
{
    fill(3);
    void *d = b;
    u32 c = 100, v;
    __asm__ volatile("rep stosw" : "+D"(d), "+c"(c) : "a"(0x1234) : "memory");
    check(b[0] == 0x34 && b[199] == 0x12 && b[200] == model_b[200], "rep stosw");
    const void *s = a;
    c = 10;
    __asm__ volatile("rep lodsb" : "=a"(v), "+S"(s), "+c"(c) : "0"(0) : "memory");
    check((v & 0xff) == a[9] && (u32)s == (u32)a + 10, "rep lodsb");
    memset(b, 'x', 100);
    b[37] = 'y';
    d = b;
    c = 100;
    u8 z;
    __asm__ volatile("repne scasb; setz %2" : "+D"(d), "+c"(c), "=q"(z) : "a"('y') : "memory");
    check(z && (u32)d == (u32)b + 38 && c == 62, "repne scasb finds");
    d = b;
    c = 30;
    __asm__ volatile("repne scasb; setz %2" : "+D"(d), "+c"(c), "=q"(z) : "a"('y') : "memory");
    check(!z && c == 0, "repne scasb does not find");
    d = b;
    c = 100;
    __asm__ volatile("repe scasb; setz %2" : "+D"(d), "+c"(c), "=q"(z) : "a"('x') : "memory");
    check(!z && c == 62, "repe scasb stops at the difference");
    memcpy(a, b, 200);
    a[150] ^= 1;
    s = a;
    d = b;
    c = 50;
    __asm__ volatile("repe cmpsl; setz %3" : "+S"(s), "+D"(d), "+c"(c), "=q"(z) : : "memory");
    check(!z && c == 50 - 38 && (u32)s == (u32)a + 152, "repe cmpsl stops at the difference");
    c = 0;
    u32 keep = (u32)d;
    __asm__ volatile("stc; rep movsb; repe cmpsb; setc %2" : "+D"(d), "+c"(c), "=q"(z) : "S"(a) : "memory");
    check(z && (u32)d == keep, "with ECX = 0 nothing happens, flags included");
    c = 3;
    __asm__ volatile("repne; lodsl" : "=a"(v), "+S"(s), "+c"(c) : : "memory");
    check_eq(c, 0, "repne lodsl counts like rep");
}

void guest_main(void)
{
    quiet_checks(true);
    for (u32 width = 1; width <= 4; width *= 2)
        for (u32 down = 0; down < 2; down++)
            for (u32 i = 0; i < 12; i++) {
                static const u32 counts[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 64, 333, 900};
                fill(i);
                movs(width, down, counts[i]);
            }
    overlap();
    stos_lods_scas_cmps();
    quiet_checks(false);
    check(true, "string instructions");
}
