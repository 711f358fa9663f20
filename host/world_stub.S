/* The code of a world that is ours. It is copied to WORLD_STUB of the new process, so it refers to nothing but its
 * own labels and constants. It obeys what it reads in the orders, and nothing that guest code can write: of the state
 * it uses one byte, in order to know whether it has stored there what it is about to store. */
#include <asm/unistd_64.h>
#include "world_layout.h"

    .section .rodata.world_stub, "a"
    .balign 64

#define EXPORT(name) .globl name; .hidden name; name

EXPORT(host_world_stub_begin):
    /* mmap(orders, PROT_READ, MAP_SHARED | MAP_FIXED), then mmap(state, PROT_READ | PROT_WRITE, ...) */
    movabs $WORLD_ORDERS, %rdi
    mov $WORLD_ORDERS_BYTES, %esi
    mov $1, %edx
    mov $0x11, %r10d
    mov $WORLD_FD_AREA, %r8d
    xor %r9d, %r9d
    mov $__NR_mmap, %eax
    syscall
    test %rax, %rax
    js die
    movabs $WORLD_STATE, %rdi
    mov $WORLD_STATE_BYTES, %esi
    mov $3, %edx
    mov $WORLD_ORDERS_BYTES, %r9d
    mov $__NR_mmap, %eax
    syscall
    test %rax, %rax
    js die

/* Both tasks set themselves up here, and the mapper stays: report the last result (rdi, and in rsi how many calls were
 * left undone), wait for the monitor, make as many of the listed calls as it says. */
serve:
    xor %edi, %edi
    xor %esi, %esi
report:
    mov $__NR_pause, %eax
    syscall
EXPORT(host_world_stub_serve_notify):
    test %rax, %rax
    js die                          /* nobody listens any more */
    mov %rax, %r12
    movabs $(WORLD_ORDERS + ORDERS_CALLS), %rbx
next:
    test %r12, %r12
    jz serve
    mov (%rbx), %eax
    mov 8(%rbx), %rdi
    mov 16(%rbx), %rsi
    mov 24(%rbx), %rdx
    mov 32(%rbx), %r10
    mov 40(%rbx), %r8
    mov 48(%rbx), %r9
    cmp $CALL_TRAP, %eax
    je trap
    syscall
EXPORT(host_world_stub_serve_call):
    cmp $-4095, %rax
    jae failed
    cmpl $__NR_clone, (%rbx)
    je cloned
done:
    add $CALL_BYTES, %rbx
    dec %r12
    jmp next
cloned:                             /* the new task is the runner and has orders of its own */
    test %rax, %rax
    jz serve
    mov %rax, %rdi                  /* the other tells its name */
    xor %esi, %esi
    jmp report
failed:
    mov %rax, %rdi
    mov %r12, %rsi
    jmp report
die:
    mov $1, %edi
    mov $__NR_exit_group, %eax
    syscall
EXPORT(host_world_stub_exit):
trap:
    ud2
    jmp trap

/* The signal handler: guest code stopped, and the kernel has stored its state at rsp. Say so, wait, go back in. See
 * world_frame.c for kicks, which may come at each of these instructions, the handler's own included. */
EXPORT(host_world_stub_handler):
    movabs $WORLD_STATE, %r8
    movabs $WORLD_ORDERS, %r9
    mov %rsp, STATE_FRAME(%r8)
    mov ENTER_FRAME(%r9), %rsp      /* a kick's frame is not to hide the guest's: it begins below this one */
    cmpb $0, STATE_STORED(%r8)
    jne tell
    mov %es, STATE_ES(%r8)
    mov %ds, STATE_DS(%r8)
    mov %fs, STATE_FS(%r8)
    mov %gs, STATE_GS(%r8)
    movb $1, STATE_STORED(%r8)
tell:
    xor %edi, %edi
    xor %esi, %esi
    mov %edi, %es                   /* or the kernel saves and reloads them with each switch between processes */
    mov %edi, %ds
    mov %edi, %fs
    mov %edi, %gs
    mov $__NR_pause, %eax
    syscall
EXPORT(host_world_stub_handler_notify):
    test %rax, %rax
    js trap
    movabs $(WORLD_ORDERS + ENTER_PLAIN), %rsp
EXPORT(host_world_stub_enter):      /* from here on the alternate stack is unused: a signal starts at its top */
    popfq                           /* without NT, which IRETQ does not like */
    mov $-1, %eax
    mov %eax, %edx
    xrstor64 (ENTER_FPU - ENTER_RIP)(%rsp)
    mov (ENTER_ES - ENTER_RIP)(%rsp), %es
    mov (ENTER_DS - ENTER_RIP)(%rsp), %ds
    mov (ENTER_FS - ENTER_RIP)(%rsp), %fs
    mov (ENTER_GS - ENTER_RIP)(%rsp), %gs
    xor %r8d, %r8d                  /* 64-bit code of this program is not to see what that of another has left */
    xor %r9d, %r9d
    xor %r10d, %r10d
    xor %r11d, %r11d
    xor %r12d, %r12d
    xor %r13d, %r13d
    xor %r14d, %r14d
    xor %r15d, %r15d
    mov (ENTER_EAX - ENTER_RIP)(%rsp), %eax
    mov (ENTER_ECX - ENTER_RIP)(%rsp), %ecx
    mov (ENTER_EDX - ENTER_RIP)(%rsp), %edx
    mov (ENTER_EBX - ENTER_RIP)(%rsp), %ebx
    mov (ENTER_EBP - ENTER_RIP)(%rsp), %ebp
    mov (ENTER_ESI - ENTER_RIP)(%rsp), %esi
    mov (ENTER_EDI - ENTER_RIP)(%rsp), %edi
    cmpb $0, (ENTER_SMALL - ENTER_RIP)(%rsp)
    jne small
EXPORT(host_world_stub_iret):
    iretq
/* IRETQ to a stack segment of 16 bits loads SP only. */
small:
    mov (ENTER_SS - ENTER_RIP)(%rsp), %ss
    add $(ENTER_FLAGS - ENTER_RIP), %rsp
    popfq
    mov host_world_stub_begin + (WORLD_ORDERS - WORLD_STUB + ENTER_RSP)(%rip), %esp
EXPORT(host_world_stub_far):
    ljmpl *host_world_stub_begin + (WORLD_ORDERS - WORLD_STUB + ENTER_FAR)(%rip)
EXPORT(host_world_stub_entered):
EXPORT(host_world_stub_end):

    .section .note.GNU-stack, "", @progbits
