/*
 * Where a guest begins, and the few things C cannot say: exception stubs, context save and restore (the
 * recovery after an expected fault) and the descent to an outer ring.
 */
#include "selectors.h"

    .section .multiboot, "a"
    .align 4
    .long 0x1BADB002, 0x00000003, -(0x1BADB002 + 0x00000003)

    .text
    .globl guest_entry
guest_entry:
    cld
    movl $boot_stack_top, %esp
    pushl $0
    popfl
    pushl %ebx
    pushl %eax
    call guest_start
1:  cli
    hlt
    jmp 1b

/* One stub per vector: pushes a zero where the CPU pushes no error code, then the vector. */
    .macro stub n
stub_\n:
    .if \n == 8 || (\n >= 10 && \n <= 14) || \n == 17
    .else
    pushl $0
    .endif
    pushl $\n
    jmp trap_entry
    .section .rodata.stubs, "a"
    .long stub_\n
    .text
    .endm

    .section .rodata.stubs, "a"
    .align 4
    .globl trap_stubs
trap_stubs:
    .text
    .altmacro
    .set n, 0
    .rept 256
    stub %n
    .set n, n + 1
    .endr
    .noaltmacro

trap_entry:
    pushal
    pushl %ds
    pushl %es
    pushl %fs
    pushl %gs
    movl $SEL_DATA0, %eax
    movl %eax, %ds
    movl %eax, %es
    cld
    pushl %esp
    call trap_dispatch
    addl $4, %esp
    popl %gs
    popl %fs
    popl %es
    popl %ds
    popal
    addl $8, %esp
    iret

/* int context_save(struct context *c): 0 now, 1 when context_restore comes back here. */
    .globl context_save
context_save:
    movl 4(%esp), %ecx
    movl %ebx, 0(%ecx)
    movl %esi, 4(%ecx)
    movl %edi, 8(%ecx)
    movl %ebp, 12(%ecx)
    movl %esp, 16(%ecx)
    movl (%esp), %eax
    movl %eax, 20(%ecx)
    xorl %eax, %eax
    ret

/* Back to ring 0's flat world whatever the test had loaded. */
    .globl context_restore
context_restore:
    movl 4(%esp), %ecx
    movl $SEL_DATA0, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movl 16(%ecx), %esp
    movl 0(%ecx), %ebx
    movl 4(%ecx), %esi
    movl 8(%ecx), %edi
    movl 12(%ecx), %ebp
    movl 20(%ecx), %eax
    movl %eax, (%esp)
    pushl $2
    popfl
    movl $1, %eax
    ret

/*
 * void ring_descend(const struct descent *d): IRET to d's CS:EIP. Ends only by a trap, since its caller is
 * inside TRY. Layout: eip, cs, eflags, esp, ss, data selector.
 */
    .globl ring_descend
ring_descend:
    movl 4(%esp), %ecx
    pushl 16(%ecx)
    pushl 12(%ecx)
    pushl 8(%ecx)
    pushl 4(%ecx)
    pushl 0(%ecx)
    movl 20(%ecx), %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    xorl %eax, %eax
    xorl %ecx, %ecx
    xorl %edx, %edx
    iret

/* Where an outer-ring function returns to. */
    .globl ring_return
ring_return:
    int $VEC_RETURN

    .bss
    .align 4096
    .skip 65536
boot_stack_top:

    .section .note.GNU-stack, "", @progbits
