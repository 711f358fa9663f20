/* What a program can do once it has got into the host's 64-bit code segment: system calls by every gate, jumps to each
 * byte of the code that a world's process has above 4 GiB, stores to what is mapped there, forged signal frames, endless
 * loops. On a real machine the far jump ends it: 0x33 is no segment of this guest. Under --user direct the jump works,
 * the code runs natively, and the program must get no further than that: it ends with #GP all the same. The 64-bit code
 * is hidden in the operands of 32-bit instructions that never run, or its page would stay translated. */
#include "lib/program.h"

#define KERNEL    0x50000000u
#define AT(label) "(0x40000000 + " label " - 6b)"

/* MOV [disp32], imm32 has eight bytes of operands: six of code, and a jump over the next one's opcode. */
#define CHUNK(code) ".byte 0xc7, 0x05; 8: " code "; .org 8b + 6, 0x90; .byte 0xeb, 0x02\n"
/* 6: the program's first byte, 7: the hidden far jump, in the operand of MOV EAX, 9: the first 64-bit instruction. EBP
 * comes as it is set, the jump goes by way of EBX. */
#define LONG_CODE(id, title, set, chunks)                                                                    \
    PROGRAM_CODE(id, title, "6: " set "; movl $" AT("7f") ", %ebx; jmp *%ebx; .byte 0xb8\n",                 \
                 "7: ljmp $0x33, $" AT("9f + 2") "\n", ".code64\n9: " chunks CHUNK("ud2") ".code32\n")

/* By the host's numbers for 64-bit code, then for 32-bit code by the same gate that a world is entered with. */
LONG_CODE(exit_group, "exit_group(7)", "movl $231, %eax; movl $7, %edi", CHUNK("syscall"));
LONG_CODE(fork, "fork", "movl $57, %eax", CHUNK("syscall"));
LONG_CODE(mmap, "mmap", "movl $9, %eax; movl $0x60000000, %edi; movl $4096, %esi; movl $7, %edx",
          CHUNK("pushq $0x32; popq %r10") CHUNK("pushq $-1; popq %r8") CHUNK("syscall"));
LONG_CODE(munmap, "munmap of everything", "movl $11, %eax; xorl %edi, %edi; movl $0x80000000, %esi",
          CHUNK("syscall"));
LONG_CODE(sigaction, "rt_sigaction", "movl $13, %eax; movl $11, %edi; movl $0x40010000, %esi",
          CHUNK("pushq $8; popq %r10") CHUNK("syscall"));
LONG_CODE(ptrace, "ptrace", "movl $101, %eax; xorl %edi, %edi", CHUNK("syscall"));
LONG_CODE(kill_all, "kill(-1, SIGKILL)", "movl $62, %eax; movl $9, %esi",
          CHUNK("pushq $-1; popq %rdi") CHUNK("syscall"));
LONG_CODE(pause, "pause, which the world's own code may", "movl $34, %eax", CHUNK("syscall"));
LONG_CODE(sigreturn, "rt_sigreturn, which a signal handler would", "movl $15, %eax; movl $0x40010000, %esp",
          CHUNK("syscall"));
LONG_CODE(x32, "an x32 number", "movl $0x40000000 + 57, %eax", CHUNK("syscall"));
LONG_CODE(int80, "int 80h from 64-bit code", "movl $1, %eax; movl $7, %ebx", CHUNK("int $0x80"));
LONG_CODE(sysenter, "sysenter from 64-bit code", "movl $1, %eax", CHUNK("sysenter"));
LONG_CODE(int3, "int 3 from 64-bit code", "nop", CHUNK("int3"));
LONG_CODE(push_nowhere, "a push to nowhere", "xorl %eax, %eax",
          CHUNK("bts $63, %rax") CHUNK("movq %rax, %rsp") CHUNK("pushq %rax"));
LONG_CODE(no_end, "an endless loop", "nop", CHUNK("jmp ."));
/* 0x700000 << 24 is the stub, and so on: host/world_layout.h. */
LONG_CODE(write_stub, "a store to the stub", "movl $0x700000, %ebp",
          CHUNK("shlq $24, %rbp") CHUNK("movl %eax, (%rbp)"));
LONG_CODE(write_orders, "a store to the orders", "movl $0x7000001, %ebp",
          CHUNK("shlq $20, %rbp") CHUNK("movl %eax, (%rbp)"));
LONG_CODE(write_state, "a store to the state", "movl $0x7000002, %ebp; movl $0xffffffff, %eax",
          CHUNK("shlq $20, %rbp") CHUNK("movq %rax, (%rbp)") CHUNK("movl %eax, 8(%rbp)"));
LONG_CODE(stack_in_state, "a stack in the state", "movl $0x70000020, %ebp; movl $0x9000, %eax",
          CHUNK("shlq $16, %rbp") CHUNK("addq %rax, %rbp") CHUNK("movq %rbp, %rsp") CHUNK("pushq %rbp"));

static const struct program *const deeds[] = {
    &exit_group,     &fork,         &mmap,   &munmap,   &sigaction, &ptrace,     &kill_all,     &pause,
    &sigreturn,      &x32,          &int80,  &sysenter, &int3,      &write_stub, &write_orders, &write_state,
    &stack_in_state, &push_nowhere, &no_end,
};

/* The low half of the address is patched in: it stands behind 66 BD. RAX, and what RSP points to: see jump_about. Some
 * jumps lead back to the program as it was when it was last entered: it counts, and gives up. */
LONG_CODE(jump, "a jump into the stub",
          "movl $0x700000, %ebp; movl $0x40010000, %esp; orl $0, 8(%esp); movl 0x40011000, %eax",
          CHUNK("shlq $24, %rbp") CHUNK("decl 8(%rsp); js 5f") CHUNK("movw $0x1234, %bp; jmp *%rbp")
              CHUNK("5: ud2") CHUNK("jmp ."));
PROGRAM_CODE(honest, "honest work", "movl $42, %ebx", "int $0x80", "");

enum { STUB_BYTES = 320, TIMER_HZ = 100, ROUNDS = 50, MMAP = 9, SIGRETURN = 15 };

static u32 *secret;

static void secret_is_kept(const char *after)
{
    bool kept = true;
    for (u32 i = 0; i < 1024; i++)
        kept &= secret[i] == i * 0x01010101u;
    check(kept, "%s: kernel memory is as it was", after);
}

/* In an address space of its own: after some deeds a space may have to do without a world. */
static void in_a_new_space(const struct program *p)
{
    program_put(p);
    WRITE_CR(3, program_space_more());
}

static void deed(const struct program *p)
{
    in_a_new_space(p);
    program_run(0, 0);
    check(trap.vector == 13 && trap.cs == SEL_CODE3, "%s: ends with vector %u error %x", p->name, trap.vector,
          trap.error);
    in_a_new_space(&honest);
    program_run(0, 0);
    check(trap.vector == 0x80 && trap.ebx == 42, "%s: and others go on", p->name);
}

/* Where these two bytes are in the program; it must have them. */
static u8 *find(u8 first, u8 second)
{
    u8 *code = program_text();
    for (u32 i = 0; i < 200; i++)
        if (code[i] == first && code[i + 1] == second)
            return &code[i];
    check(false, "no %x %x in the program", first, second);
    return code;
}

/* A signal frame as the host's kernel would restore it (its ABI: struct sigcontext begins at byte 40 of the context):
 * 64-bit code with every signal blocked. */
static void forge_frame(u32 rip)
{
    u8 *context = program_data();
    memset(context, 0, 4096);
    *(u32 *)(context + 8) = ROUNDS;                 /* a link that nobody follows */
    *(u32 *)(context + 160) = PROGRAM_STACK + 2048; /* RSP */
    *(u32 *)(context + 168) = rip;
    *(u32 *)(context + 176) = 0x202;    /* RFLAGS */
    *(u32 *)(context + 184) = 0x33;     /* CS */
    *(u32 *)(context + 188) = 0x2b0000; /* SS */
    memset(context + 296, 0xff, 8);     /* the mask */
}

enum { NOWHERE, LOOP };

static void jump_about(u32 number, u32 to, const char *name)
{
    quiet_checks(true);
    for (u32 offset = 0; offset < STUB_BYTES; offset++) {
        program_put(&jump);
        u8 *low = find(0x66, 0xbd) + 2;
        low[0] = (u8)offset;
        low[1] = (u8)(offset >> 8);
        forge_frame(to == LOOP ? PROGRAM + (u32)(find(0xeb, 0xfe) - program_text()) : 0x66660000);
        *(u32 *)(program_data() + 4096) = number;
        WRITE_CR(3, program_space_more());
        program_run(0, 0);
        check(trap.vector == 13, "stub + %x with %s: vector %u error %x", offset, name, trap.vector,
              trap.error);
    }
    quiet_checks(false);
    check(true, "jumps to each byte of the stub with %s", name);
    in_a_new_space(&honest);
    program_run(0, 0);
    check(trap.vector == 0x80 && trap.ebx == 42, "and others go on");
}

void guest_main(void)
{
    program_begin();
    secret = page_alloc();
    for (u32 i = 0; i < 1024; i++)
        secret[i] = i * 0x01010101u;
    map32(program_space(), KERNEL, (u32)secret, P | W);
    pic_mask(0xfffe);
    pit_periodic(TIMER_HZ);
    for (u32 i = 0; i < sizeof deeds / sizeof *deeds; i++)
        deed(deeds[i]);
    secret_is_kept("deeds");
    jump_about(MMAP, NOWHERE, "mmap");
    jump_about(SIGRETURN, NOWHERE, "a forged frame that leads nowhere");
    jump_about(SIGRETURN, LOOP, "a forged frame that leads to an endless loop");
    pit_stop();
    secret_is_kept("jumps");
}
