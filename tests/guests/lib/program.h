/*
 * Programs for tests of user mode: a few instructions that are copied to a page of their own and run in ring 3, with
 * interrupts on and the FPU usable, as an operating system would run them. Under ringlet's --user direct that is code
 * which runs natively.
 */
#ifndef GUEST_PROGRAM_H
#define GUEST_PROGRAM_H

#include "guest.h"

#define PROGRAM       0x40000000u
#define PROGRAM_DATA  0x40010000u /* two pages; what follows is not mapped */
#define PROGRAM_STACK 0x40020000u /* one page */

struct program {
    const char *name;
    const u8 *code, *at, *end; /* at: the instruction that a trap is to report */
};

/* before and after: what comes around the instruction. Position-independent, or made for PROGRAM. */
#define PROGRAM_CODE(id, title, before, insn, after)                                                         \
    __asm__(".section .rodata.programs, \"a\"\n"                                                             \
            ".globl p_" #id ", p_" #id "_at, p_" #id "_end\n"                                                \
            "p_" #id ": " before "\np_" #id "_at: " insn "\n" after "\np_" #id "_end: .previous");           \
    extern const u8 p_##id[], p_##id##_at[], p_##id##_end[];                                                 \
    static const struct program id = {title, p_##id, p_##id##_at, p_##id##_end}

void program_begin(void);
u32 *program_space(void);     /* its page directory */
u32 program_space_more(void); /* another one, alike, with a page table of its own at PROGRAM; returns CR3 */
u8 *program_text(void);       /* the page at PROGRAM, by its physical address */
u8 *program_data(void);
void program_put(const struct program *p);
/* Runs until it traps; INT VEC_RETURN is the normal way. Registers eax, ecx, edx are 0 at its start. */
void program_run(u32 offset, u32 flags);
u32 program_address(const struct program *p, const u8 *label);
bool program_check(const struct program *p, u32 vector, u32 error);

#endif
