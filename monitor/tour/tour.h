/* Shared by the tour's C and assembly. */
#ifndef TOUR_H
#define TOUR_H

#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_CODE   0x1b
#define USER_DATA   0x23
#define TASK        0x28
#define LOCAL       0x30
#define GATE        0x3b
#define SMALL_DATA  0x43
#define STUBS       0x31
#define VECTOR_CALL 0x2f
#define VECTOR_BACK 0x30

#ifndef __ASSEMBLER__
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

/* How the last step_into ended. vector VECTOR_BACK: the function returned eax. */
struct arrival {
    u32 eax, vector, error, eip, cs, eflags, cr2;
};
extern volatile struct arrival arrived;
void step_into(u32 cs, u32 ss, u32 (*fn)(void), u32 eflags);
extern const u8 stubs[], gate_target[], fast_target[], trap_stack_top[];

/* A line of text that is put together piece by piece. */
struct line {
    char text[96];
    unsigned length;
};
void line_add(struct line *l, const char *fmt, ...); /* %s %d %x %h (4 digits) %w (8 digits) */
void line_pad(struct line *l, unsigned column);
void say(const char *fmt, ...);

struct machine { /* what the tour itself has set up, to compare with */
    u32 gdt_base, idt_base;
    u16 gdt_limit, idt_limit;
};
/* Run all rows; returns how many did not hold, and adds the number of rows to *count. */
unsigned tour_rows(const struct machine *m, unsigned *count);

/* Returns only when no ACPI tables with a \_S5 are found. */
void power_off(void);
static inline void port_out8(u16 port, u8 v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline void port_out16(u16 port, u16 v)
{
    __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port));
}
static inline void port_out32(u16 port, u32 v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline u8 port_in8(u16 port)
{
    u8 v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
#endif
#endif
