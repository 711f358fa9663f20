/* A program that tries to get out, by instructions hidden inside others: host selectors, host system calls, 64-bit code.
 * Each attempt ends as its own fault, and the kernel's memory is as it was. On a real machine the selectors used here
 * are this guest's own segments of other rings, or nothing. */
#include "lib/program.h"

#define RETURN   "int $0x80"
#define KERNEL   0x50000000u
#define TO(code) "movl $(0x40000000 + 7f - 6b), %eax; jmp *%eax\n.byte 0xb8\n7:\n" code
/* 6: is the program's first byte, 7: the hidden one; what is hidden looks like the operand of MOV EAX */
#define HIDDEN(id, title, set, code) PROGRAM_CODE(id, title, "6: " set, TO(code), RETURN)

HIDDEN(far64, "far jump to 0x33", "", "ljmp $0x33, $0x40000800");
HIDDEN(far32, "far jump to 0x23", "", "ljmp $0x23, $0x40000800");
HIDDEN(call64, "far call to 0x33", "", "lcall $0x33, $0x40000800");
HIDDEN(retf64, "far return to 0x33", "pushl $0x33; pushl $0x40000800", "lret");
HIDDEN(iret64, "iret to 0x33", "pushl $0x202; pushl $0x33; pushl $0x40000800", "iret");
HIDDEN(syscall, "syscall", "movl $231, %eax", "syscall");
HIDDEN(sysenter, "sysenter", "movl $1, %eax", "sysenter");
HIDDEN(calls, "int 80h as the host's exit", "movl $3, %ebx", "movl $1, %eax; int $0x80");
HIDDEN(hidden_cpuid, "cpuid and kin", "",
       "cpuid; sidt 0x40010000; sgdt 0x40010010; smsw %eax; str %eax; sldt %eax");
HIDDEN(vsyscall, "the host's vsyscall page", "", "movl $0xffffe400, %eax; call *%eax");
HIDDEN(alignment, "AC without AM", "", "pushl $0x40202; popfl; movl 0x40010001, %eax; pushl $0x202; popfl");
HIDDEN(pkru, "rdpkru", "", ".byte 0x0f, 0x01, 0xee");
HIDDEN(loadall, "es and ss of the kernel", "movl $0x10, %eax; movl %eax, %ebx", "movw %bx, %es");

/* What 64-bit code would do at 0x40000800: exit_group(7), mmap, fork, and then spin. In 32-bit code the same bytes are
 * something else; nobody gets there. */
static const u8 escape[] = {
    0x48, 0x31, 0xff, 0x83, 0xc7, 0x07, 0xb8, 231, 0,    0,    0, 0x0f, 0x05, /* exit_group */
    0x48, 0x31, 0xff, 0xb8, 9,    0,    0,    0,   0x0f, 0x05,                /* mmap */
    0xb8, 57,   0,    0,    0,    0x0f, 0x05,                                 /* fork */
    0x0f, 0x0b, 0xeb, 0xfe,
};

struct attempt {
    const struct program *p;
    u32 vector, also; /* what it may end with */
    u32 error;
};
static const struct attempt attempts[] = {
    {&far64, 13, 13, ANY_ERROR},    {&far32, 13, 13, ANY_ERROR},         {&call64, 13, 13, ANY_ERROR},
    {&retf64, 13, 13, ANY_ERROR},   {&iret64, 13, 13, ANY_ERROR},        {&syscall, 6, 13, ANY_ERROR},
    {&sysenter, 13, 13, 0},         {&calls, 0x80, 0x80, ANY_ERROR},     {&hidden_cpuid, 0x80, 13, ANY_ERROR},
    {&vsyscall, 14, 14, ANY_ERROR}, {&alignment, 0x80, 0x80, ANY_ERROR}, {&pkru, 6, 0x80, ANY_ERROR},
    {&loadall, 13, 13, 0x10},
};

static void attempt_all(u32 round)
{
    volatile u32 *secret = (u32 *)KERNEL;
    for (u32 i = 0; i < sizeof attempts / sizeof *attempts; i++) {
        const struct attempt *a = &attempts[i];
        program_put(a->p);
        memcpy(program_text() + 0x800, escape, sizeof escape);
        program_run(0, 0);
        check((trap.vector == a->vector || trap.vector == a->also) &&
                  (a->error == ANY_ERROR || trap.error == a->error),
              "%s, round %u: ends with vector %u error %x", a->p->name, round, trap.vector, trap.error);
        check(trap.cs == SEL_CODE3 && trap.ss == SEL_DATA3, "%s: the kernel sees its selectors", a->p->name);
    }
    for (u32 i = 0; i < 1024; i++)
        if (secret[i] != i * 0x01010101u) {
            check(false, "kernel memory at %u has changed", i);
            return;
        }
    check(true, "kernel memory is as it was");
}

/* ---- Host selectors in data segment registers ---- */

HIDDEN(load_ds, "ds", "movl 0x40010000, %ecx", "movw %cx, %ds; movl 0x40010004, %edx");
HIDDEN(load_es, "es", "movl 0x40010000, %ecx", "movw %cx, %es; movl %es:0x40010004, %edx");
HIDDEN(load_fs, "fs", "movl 0x40010000, %ecx", "movw %cx, %fs; movl %fs:0x40010004, %edx");
HIDDEN(load_gs, "gs", "movl 0x40010000, %ecx", "movw %cx, %gs; movl %gs:0x40010004, %edx");
HIDDEN(load_ss, "ss", "movl 0x40010000, %ecx", "movw %cx, %ss; pushl %ecx");

static void selectors(void)
{
    static const struct program *const loads[] = {&load_ds, &load_es, &load_fs, &load_gs, &load_ss};
    static const u16 wrong[] = {0x2b, 0x23, 0x33, 0x63, 0x6b, 0x73, 0x7b, 0x0f, 0xf7, 0xffff};
    volatile u32 *d = (u32 *)program_data();
    for (u32 i = 0; i < sizeof loads / sizeof *loads; i++) {
        for (u32 k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            program_put(loads[i]);
            d[0] = wrong[k];
            program_run(0, 0);
            check(trap.vector == 13 && trap.error == (wrong[k] & 0xfffcu), "%s with %x: vector %u error %x",
                  loads[i]->name, wrong[k], trap.vector, trap.error);
        }
        program_put(loads[i]); /* one of its own must work, hidden or not */
        d[0] = SEL_DATA3;
        d[1] = 0x600df00d;
        program_run(0, 0);
        check(trap.vector == 0x80 && (loads[i] == &load_ss || trap.edx == 0x600df00d), "%s with its own: %X",
              loads[i]->name, trap.edx);
    }
}

/* ---- More descriptors than a world has slots ---- */

PROGRAM_CODE(far_data, "a segment from the LDT",
             "movl 0x40010000, %eax; movw %ax, %gs; movl $0x40001000, %ecx; jmp *%ecx", "nop", "");
static const u8 read_gs[] = {0x65, 0x8b, 0x1d, 0,   0,
                             0,    0,    0xcd, 0x80}; /* MOVL %GS:0, %EBX; INT 80H: in another page */

static u64 ldt[2048] __attribute__((aligned(16)));

static void descriptors(void)
{
    volatile u32 *d = (u32 *)program_data();
    u8 *second = page_alloc();
    memcpy(second, read_gs, sizeof read_gs);
    map32(program_space(), PROGRAM + 4096, (u32)second, P | U);
    for (u32 i = 0; i < 2048; i++)
        ldt[i] = descriptor(PROGRAM_DATA + 16 + i % 1000 * 4, 3, D_DATA_W | D_DPL3 | D_32);
    for (u32 i = 0; i < 1000; i++)
        d[4 + i] = i * 7 + 1;
    gdt[SEL_LDT / 8] = descriptor((u32)ldt, sizeof ldt - 1, D_LDT);
    __asm__ volatile("lldt %w0" : : "r"(SEL_LDT));
    program_put(&far_data);
    quiet_checks(true);
    for (u32 i = 0; i < 2048; i += 3) {
        d[0] = i << 3 | 7;
        program_run(0, 0);
        check(trap.vector == 0x80 && trap.ebx == i % 1000 * 7 + 1 && trap.gs == (i << 3 | 7),
              "segment %u: %u through %x", i, trap.ebx, trap.gs);
    }
    quiet_checks(false);
    check(true, "descriptors by the hundred");
    __asm__ volatile("lldt %w0" : : "r"(0));
}

/* ---- More address spaces than there are worlds ---- */

PROGRAM_CODE(who, "which space", "movl 0x40010000, %ebx", RETURN, "");
enum { SPACES = 70 };

static void spaces(void)
{
    static u32 space[SPACES];
    static u8 *page[SPACES];
    program_put(&who);
    for (u32 i = 0; i < SPACES; i++) {
        space[i] = program_space_more();
        page[i] = page_alloc();
        *(volatile u32 *)page[i] = i * 1001;
        map32((u32 *)space[i], PROGRAM_DATA, (u32)page[i], P | W | U);
    }
    quiet_checks(true);
    for (u32 round = 0; round < 3; round++)
        for (u32 k = 0; k < SPACES; k++) {
            u32 i = round == 1 ? k * 37 % SPACES : k;
            WRITE_CR(3, space[i]);
            program_run(0, 0);
            check(trap.vector == 0x80 && trap.ebx == i * 1001, "space %u, round %u: %u", i, round, trap.ebx);
        }
    quiet_checks(false);
    check(true, "%u address spaces", SPACES);
    WRITE_CR(3, program_space());
}

void guest_main(void)
{
    program_begin();
    u32 *secret = page_alloc();
    for (u32 i = 0; i < 1024; i++)
        secret[i] = i * 0x01010101u;
    map32(program_space(), KERNEL, (u32)secret, P | W);
    attempt_all(0);
    selectors();
    descriptors();
    spaces();
    attempt_all(1);
}
