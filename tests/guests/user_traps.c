/* User code as an operating system runs it: each exception with its exact state, system calls, flags, the FPU, single
 * steps, and interrupts at any instruction. */
#include "lib/program.h"

#define RETURN "int $0x80"

PROGRAM_CODE(divide, "divide error", "movl $7, %eax; xorl %ecx, %ecx", "divl %ecx", RETURN);
PROGRAM_CODE(undefined, "undefined opcode", "movl $7, %eax", "ud2", RETURN);
PROGRAM_CODE(privileged, "hlt", "", "hlt", RETURN);
PROGRAM_CODE(interrupts_off, "cli", "", "cli", RETURN);
PROGRAM_CODE(port, "in", "movl $0x20, %edx", "inb %dx, %al", RETURN);
PROGRAM_CODE(control, "mov from cr0", "", "movl %cr0, %eax", RETURN);
PROGRAM_CODE(bad_int, "int 21h without rights", "", "int $0x21", RETURN);
PROGRAM_CODE(limit_read, "read of a hole", "", "movl 0x40012000, %eax", RETURN);
PROGRAM_CODE(limit_write, "write to a hole", "movl $5, %eax", "movl %eax, 0x40012ffc", RETURN);
PROGRAM_CODE(kernel_read, "read of the kernel's page", "", "movl 0x00100000, %eax", RETURN);
PROGRAM_CODE(kernel_write, "write to the kernel's page", "", "movl %eax, 0x00100000", RETURN);
PROGRAM_CODE(text_write, "write to its text", "", "movl %eax, 0x40000800", RETURN);
PROGRAM_CODE(crossing, "write over the end", "movl $0x55667788, %eax", "movl %eax, 0x40011ffe", RETURN);
PROGRAM_CODE(
    bounds, "bound", "movl $9, %eax; movl $0, 0x40010000; movl $5, 0x40010004",
    ".byte 0x62, 0x05; .long 0x40010000" /* bound %eax, 0x40010000: assemblers disagree on its suffix */,
    RETURN);
PROGRAM_CODE(unaligned, "MOVAPS unaligned", "movl $0x40010004, %eax", "movaps (%eax), %xmm0", RETURN);
PROGRAM_CODE(string, "rep stosl over the end",
             "movl $0x40010ff0, %edi; movl $2000, %ecx; movl $0x1234, %eax; cld", "rep stosl", RETURN);
PROGRAM_CODE(far, "far jump to no segment", "", "ljmp $0xff3, $0x40000000", RETURN);
PROGRAM_CODE(outside, "jump to a hole", "movl $0x40012345, %eax; jmp *%eax", "nop", RETURN);
PROGRAM_CODE(x87, "MF: division by zero", "fninit; pushl $0x033b; fldcw (%esp); fld1; fldz; fdivrp", "fwait",
             RETURN);
PROGRAM_CODE(simd, "XM: division by zero",
             "pushl $0x1d80; ldmxcsr (%esp); movl $1, %eax; cvtsi2ss %eax, %xmm0; xorps %xmm1, %xmm1",
             "divss %xmm1, %xmm0", RETURN);

struct row {
    const struct program *p;
    u32 vector, error, cr2; /* cr2 0: not looked at */
};
static const struct row rows[] = {
    {&divide, 0, ANY_ERROR, 0},
    {&undefined, 6, ANY_ERROR, 0},
    {&privileged, 13, 0, 0},
    {&interrupts_off, 13, 0, 0},
    {&port, 13, 0, 0},
    {&control, 13, 0, 0},
    {&bad_int, 13, 0x21 << 3 | 2, 0},
    {&limit_read, 14, PF_U, 0x40012000},
    {&limit_write, 14, PF_U | PF_W, 0x40012ffc},
    {&kernel_read, 14, PF_U | PF_P, 0x100000},
    {&kernel_write, 14, PF_U | PF_P | PF_W, 0x100000},
    {&text_write, 14, PF_U | PF_P | PF_W, 0x40000800},
    {&crossing, 14, PF_U | PF_W, 0x40012000},
    {&bounds, 5, ANY_ERROR, 0},
    {&unaligned, 13, 0, 0},
    {&string, 14, PF_U | PF_W, 0x40012000},
    {&far, 13, 0xff0, 0},
    {&x87, 16, ANY_ERROR, 0},
    {&simd, 19, ANY_ERROR, 0},
};

static void exceptions(u32 round)
{
    for (u32 i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        program_put(r->p);
        memset(program_data(), 0, 8192);
        program_run(0, 0);
        program_check(r->p, r->vector, r->error);
        if (r->cr2)
            check_eq(trap.cr2, r->cr2, "%s, round %u: CR2", r->p->name, round);
        if (r->p == &crossing)
            check_eq(*(volatile u16 *)(program_data() + 0x1ffe), 0, "%s: nothing written", r->p->name);
        if (r->p == &string)
            check(trap.edi == 0x40012000 && trap.ecx == 2000 - 0x1010 / 4 && trap.eax == 0x1234,
                  "%s: stopped where the page is missing (edi %X ecx %u)", r->p->name, trap.edi, trap.ecx);
        __asm__ volatile("fninit");
    }
    program_put(&outside);
    program_run(0, 0);
    check(trap.vector == 14 && trap.cr2 == 0x40012345 && trap.eip == 0x40012345, "%s: vector %u at %X cr2 %X",
          outside.name, trap.vector, trap.eip, trap.cr2);
}

/* ---- Traps that report the instruction behind them ---- */

PROGRAM_CODE(breakpoint, "int3", "nop; int3", "nop", RETURN);
PROGRAM_CODE(breakpoint2, "int 3 of two bytes", "nop; .byte 0xcd, 3", "nop", RETURN);
PROGRAM_CODE(overflow, "into", "movb $127, %al; addb $1, %al; into", "nop", RETURN);
PROGRAM_CODE(no_overflow, "into without overflow", "movl $1, %eax; addl $1, %eax; into", RETURN, "nop");
PROGRAM_CODE(single, "single step", "pushfl; orl $0x100, (%esp); movl $3, %ecx; popfl; incl %ecx", "nop",
             RETURN);
PROGRAM_CODE(call80, "int 80h",
             "movl $1, %eax; movl $2, %ebx; movl $3, %ecx; movl $4, %edx; movl $5, %esi; movl $6, %edi;"
             "movl $7, %ebp; stc; int $0x80",
             "nop", "");

static void behind(void)
{
    static const struct row traps[] = {{&breakpoint, 3, ANY_ERROR, 0},
                                       {&breakpoint2, 3, ANY_ERROR, 0},
                                       {&overflow, 4, ANY_ERROR, 0},
                                       {&single, 1, ANY_ERROR, 0},
                                       {&call80, 0x80, ANY_ERROR, 0}};
    for (u32 i = 0; i < sizeof traps / sizeof *traps; i++) {
        program_put(traps[i].p);
        program_run(0, 0);
        program_check(traps[i].p, traps[i].vector, ANY_ERROR);
        if (traps[i].p == &single)
            check(trap.ecx == 4 && (trap.dr6 & 0x4000), "single step: ecx %u dr6 %X", trap.ecx, trap.dr6);
        if (traps[i].p == &call80)
            check(trap.eax == 1 && trap.ebx == 2 && trap.ecx == 3 && trap.edx == 4 && trap.esi == 5 &&
                      trap.edi == 6 && trap.ebp == 7 && (trap.eflags & 1) && trap.esp == PROGRAM_STACK + 4096,
                  "int 80h: registers arrive");
    }
    program_put(&no_overflow);
    program_run(0, 0);
    check_eq(trap.vector, 0x80, "into without overflow goes on");
}

/* ---- What a program sees of its flags ---- */

PROGRAM_CODE(flags, "pushf and popf",
             "pushl $0x200cd7; popfl; pushfl; popl %eax; pushl $0x3000; popfl; pushfl; popl %ebx", RETURN,
             "");

static void own_flags(void)
{
    program_put(&flags);
    program_run(0, 0);
    /* IF stays, IOPL stays 0; TF was not asked for */
    check(trap.vector == 0x80 && trap.eax == 0x200ed7 && trap.ebx == 0x202, "flags: %X %X", trap.eax,
          trap.ebx);
}

/* ---- What the kernel grants and takes back ---- */

PROGRAM_CODE(hop, "rdtsc in another page", "movl $0x40001000, %ecx", "jmp *%ecx", "");
static const u8 stamp[] = {0x0f, 0x31, 0xcd, 0x80}; /* RDTSC; INT 80H */

static void granted(void)
{
    u8 *second = page_alloc();
    memcpy(second, stamp, sizeof stamp);
    map32(program_space(), PROGRAM + 4096, (u32)second, P | U);
    program_put(&hop);
    for (u32 i = 0; i < 3; i++) {
        program_run(0, 0);
        check_eq(trap.vector, 0x80, "rdtsc, round %u: allowed", i);
        WRITE_CR(4, READ_CR(4) | CR4_TSD);
        program_run(0, 0);
        check(trap.vector == 13 && trap.error == 0 && trap.eip == PROGRAM + 4096,
              "rdtsc with TSD: vector %u at %X", trap.vector, trap.eip);
        WRITE_CR(4, READ_CR(4) & ~CR4_TSD);
    }
}

/* ---- Interrupts at any instruction of a loop that can tell ---- */

PROGRAM_CODE(spin, "a loop",
             "movl %edx, %ebx; movl $0x40010000, %esi\n"
             "1: incl %eax; addl $3, %ebx; leal (%eax,%eax,2), %ecx; cmpl %ecx, %ebx; jne 2f\n"
             "cmpl $0, (%esi); je 1b\n int $0x80\n2:",
             "ud2", "");
static u32 ticks;

static bool tick(struct frame *f)
{
    pic_eoi(0);
    if (++ticks == 50 && (f->cs & 3))
        *(volatile u32 *)program_data() = 1;
    else if (ticks > 50)
        *(volatile u32 *)program_data() = 1;
    return true;
}

static void interrupted(void)
{
    program_put(&spin);
    memset(program_data(), 0, 4);
    ticks = 0;
    trap_hook[0x20] = tick;
    pic_mask(0xfffe);
    pit_periodic(1000);
    program_run(0, 0);
    pit_stop();
    pic_mask(0xffff);
    trap_hook[0x20] = NULL;
    check(trap.vector == 0x80 && ticks >= 50, "an endless loop is interrupted %u times and ends (vector %u)",
          ticks, trap.vector);
    check_eq(trap.ebx, trap.eax * 3, "the loop's registers");
}

/* ---- The FPU is the program's own ---- */

PROGRAM_CODE(vectors, "FPU",
             "movl $0x40010000, %esi; cmpl $0, 64(%esi); jne 1f\n"
             "movups (%esi), %xmm3; fldpi; fld1; movl $1, 64(%esi); int $0x80\n"
             "1: movups %xmm3, 16(%esi); fstpl 32(%esi); fstpl 40(%esi)",
             RETURN, "");

static void fpu(void)
{
    u8 *d = program_data();
    program_put(&vectors);
    memset(d, 0, 128);
    for (u32 i = 0; i < 16; i++)
        d[i] = (u8)(i * 11 + 1);
    program_run(0, 0);
    check_eq(trap.vector, 0x80, "FPU: loaded");
    program_run(0, 0);
    check(trap.vector == 0x80 && !memcmp(d, d + 16, 16), "FPU: XMM3 came back");
    check(*(volatile u32 *)(d + 36) == 0x3ff00000 && *(volatile u32 *)(d + 44) == 0x400921fb,
          "FPU: ST0 and ST1 came back");
}

void guest_main(void)
{
    program_begin();
    for (u32 round = 0; round < 3; round++)
        exceptions(round);
    behind();
    own_flags();
    granted();
    interrupted();
    fpu();
    exceptions(9);
}
