/* Serial output, facts, and the way out. */
#include "guest.h"
#include <stdarg.h>

enum { COM1 = 0x3f8, DEBUG_EXIT = 0xf4, MOST_FAILURES = 100 };

static u32 checks, failures;
static bool quiet;

static void put(char c)
{
    if (c == '\n')
        put('\r');
    while (!(inb(COM1 + 5) & 0x20))
        ;
    outb(COM1, c);
}

static void put_number(u32 v, u32 base, unsigned width)
{
    char digits[12];
    unsigned n = 0;
    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v || n < width);
    while (n)
        put(digits[--n]);
}

static void vprint(const char *fmt, va_list ap)
{
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            put(*fmt);
            continue;
        }
        switch (*++fmt) {
        case 's':
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(*s);
            break;
        case 'c':
            put(va_arg(ap, int));
            break;
        case 'd': {
            i32 v = va_arg(ap, i32);
            if (v < 0)
                put('-');
            put_number(v < 0 ? 0 - (u32)v : (u32)v, 10, 1);
            break;
        }
        case 'u':
            put_number(va_arg(ap, u32), 10, 1);
            break;
        case 'x':
            put_number(va_arg(ap, u32), 16, 1);
            break;
        case 'X':
            put_number(va_arg(ap, u32), 16, 8);
            break;
        default:
            put(*fmt);
        }
    }
}

void print(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vprint(fmt, ap);
    va_end(ap);
}

void quiet_checks(bool on)
{
    quiet = on;
}

static bool fact(bool holds, const char *name, va_list ap)
{
    checks++;
    failures += !holds;
    if (holds && quiet)
        return true;
    print(holds ? "ok: " : "FAIL: ");
    vprint(name, ap);
    return holds;
}

bool check(bool holds, const char *name, ...)
{
    va_list ap;
    va_start(ap, name);
    fact(holds, name, ap);
    va_end(ap);
    if (!holds || !quiet)
        print("\n");
    return holds;
}

bool check_eq(u32 got, u32 want, const char *name, ...)
{
    va_list ap;
    va_start(ap, name);
    fact(got == want, name, ap);
    va_end(ap);
    if (got != want)
        print(": got %X, want %X\n", got, want);
    else if (!quiet)
        print("\n");
    return got == want;
}

static bool trap_fact(u32 vector, u32 error, bool where, const char *name, va_list ap)
{
    bool has_error = vector == 8 || (vector >= 10 && vector <= 14) || vector == 17;
    bool holds = trap.vector == vector && (!has_error || error == ANY_ERROR || trap.error == error) &&
                 (!where || trap.eip == fault_eip);
    fact(holds, name, ap);
    if (!holds)
        print(": got vector %u error %x at %X cr2 %X, want vector %u error %x at %X\n", trap.vector,
              trap.error, trap.eip, trap.cr2, vector, error, where ? fault_eip : 0);
    else if (!quiet)
        print("\n");
    return holds;
}

bool check_trap(u32 vector, u32 error, const char *name, ...)
{
    va_list ap;
    va_start(ap, name);
    bool holds = trap_fact(vector, error, true, name, ap);
    va_end(ap);
    return holds;
}

bool check_trap_anywhere(u32 vector, u32 error, const char *name, ...)
{
    va_list ap;
    va_start(ap, name);
    bool holds = trap_fact(vector, error, false, name, ap);
    va_end(ap);
    return holds;
}

void guest_exit_value(u32 value)
{
    outl(DEBUG_EXIT, value);
    cli();
    for (;;)
        __asm__ volatile("hlt");
}

void guest_finish(void)
{
    print("DONE: %u checks, %u failed\n", checks, failures);
    guest_exit_value(failures < MOST_FAILURES ? failures : MOST_FAILURES);
}

void *memset(void *p, int c, size_t n)
{
    void *d = p;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return p;
}

void *memcpy(void *p, const void *s, size_t n)
{
    void *d = p;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
    return p;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;
    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}
