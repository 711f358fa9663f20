/* Text on COM1. */
#include "tour.h"
#include <stdarg.h>

enum { COM1 = 0x3f8, LINE_STATUS = 5, TRANSMITTER_EMPTY = 0x20 };

static void put(struct line *l, char c)
{
    if (l->length < sizeof l->text - 1)
        l->text[l->length++] = c;
    l->text[l->length] = 0;
}

static void number(struct line *l, u32 v, u32 base, unsigned width)
{
    char digits[12];
    unsigned n = 0;
    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v || n < width);
    while (n)
        put(l, digits[--n]);
}

static void add(struct line *l, const char *fmt, va_list ap)
{
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            put(l, *fmt);
            continue;
        }
        switch (*++fmt) {
        case 's':
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(l, *s);
            break;
        case 'd':
            number(l, va_arg(ap, u32), 10, 1);
            break;
        case 'x':
            number(l, va_arg(ap, u32), 16, 1);
            break;
        case 'h':
            number(l, va_arg(ap, u32) & 0xffff, 16, 4);
            break;
        case 'w':
            number(l, va_arg(ap, u32), 16, 8);
            break;
        default:
            put(l, *fmt);
        }
    }
}

void line_add(struct line *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add(l, fmt, ap);
    va_end(ap);
}

void line_pad(struct line *l, unsigned column)
{
    do
        put(l, ' ');
    while (l->length < column);
}

static void serial(char c)
{
    while (!(port_in8(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY))
        ;
    port_out8(COM1, c);
}

void say(const char *fmt, ...)
{
    struct line l = {.length = 0};
    va_list ap;
    va_start(ap, fmt);
    add(&l, fmt, ap);
    va_end(ap);
    for (unsigned i = 0; i < l.length; i++)
        serial(l.text[i]);
    serial('\r');
    serial('\n');
}
