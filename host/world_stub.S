/* The code of a world that is ours. It is copied to WORLD_STUB of the new process, so it refers to nothing but its
 * own labels and constants. It uses no stack and writes nothing but the four selectors and the frame's address, so
 * that nothing guest code does to the world's memory can lead it astray. */
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

/* The signal handler: guest code stopped, and the kernel has stored its state at rsp. Say so, wait, go back in. */
EXPORT(host_world_stub_handler):
    movabs $WORLD_STATE, %r8
    mov %rsp, STATE_FRAME(%r8)
    mov %es, STATE_ES(%r8)
    mov %ds, STATE_DS(%r8)
    mov %fs, STATE_FS(%r8)
    mov %gs, STATE_GS(%r8)
    xor %edi, %edi
    xor %esi, %esi
    mov $__NR_pause, %eax
    syscall
EXPORT(host_world_stub_handler_notify):
    test %rax, %rax
    js trap
    movabs $WORLD_ORDERS, %r9
    mov ENTER_SP(%r9), %rsp
    pushq ENTER_FLAGS(%r9)          /* NT and ID, which rt_sigreturn does not restore; AC off for our own accesses */
    popfq
    mov ENTER_ES(%r9), %es
    mov ENTER_DS(%r9), %ds
    mov ENTER_FS(%r9), %fs
    mov ENTER_GS(%r9), %gs
    mov $__NR_rt_sigreturn, %eax
    syscall
EXPORT(host_world_stub_sigreturn):
    jmp trap
EXPORT(host_world_stub_end):

    .section .note.GNU-stack, "", @progbits
