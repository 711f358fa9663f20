/* The tour's way in, its exception stubs and its two ring changes. */
#include "tour.h"

    .section .multiboot, "a"
    .align 4
    .long 0x1BADB002, 0x00000003, -(0x1BADB002 + 0x00000003)

    .text
    .globl tour_entry
tour_entry:
    movl $stack_top, %esp
    pushl %eax
    call tour_main
1:  cli
    hlt
    jmp 1b

/* A stub per vector, 16 bytes apart: push a zero where the CPU pushes no error code, and the vector. */
    .globl stubs
    .balign 16
stubs:
    .altmacro
    .macro stub n
    .balign 16
    .if \n != 8 && (\n < 10 || \n > 14) && \n != 17
    pushl $0
    .endif
    pushl $\n
    jmp arrive
    .endm
    .set n, 0
    .rept STUBS
    stub %n
    .set n, n + 1
    .endr

/* However it came, the tour's ring 0 goes on where step_into had left it. */
arrive:
    pushl %eax
    movl $KERNEL_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    popl %eax
    movl %eax, arrived + 0
    popl arrived + 4 /* vector */
    popl arrived + 8 /* error code */
    popl arrived + 12 /* EIP */
    popl arrived + 16 /* CS */
    popl arrived + 20 /* EFLAGS */
    movl %cr2, %eax
    movl %eax, arrived + 24
    movl $KERNEL_DATA, %eax
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movl saved_esp, %esp
    popal
    ret

/* void step_into(u32 cs, u32 ss, u32 (*fn)(void), u32 eflags): run fn there until it traps or returns. */
    .globl step_into
step_into:
    pushal
    movl 32 + 4(%esp), %eax
    movl 32 + 8(%esp), %ecx
    movl 32 + 12(%esp), %edx
    movl 32 + 16(%esp), %ebx
    movl %esp, saved_esp
    testl $3, %eax
    jz 1f
    pushl %ecx
    pushl $outer_stack_top - 4
    movl $come_back, outer_stack_top - 4
    movl %ecx, %ds
    movl %ecx, %es
    jmp 2f
1:  pushl $come_back
2:  pushl %ebx
    pushl %eax
    pushl %edx
    iret

come_back:
    int $VECTOR_BACK

/* Where SYSENTER and SYSEXIT lead: back, with the ring they made. */
    .globl fast_target
fast_target:
    movl %cs, %eax
    int $VECTOR_BACK

/* The target of the tour's call gate: which ring is this? */
    .globl gate_target
gate_target:
    movl %cs, %eax
    lret

    .bss
    .balign 16
    .skip 8192
stack_top:
    .globl trap_stack_top
    .skip 8192
trap_stack_top:
    .skip 8192
outer_stack_top:
saved_esp:
    .skip 4

    .section .note.GNU-stack, "", @progbits
