/* The linked tour as data of the monitor. TOUR_ELF comes from meson. */
    .section .rodata
    .balign 4096
    .globl embedded_guest
embedded_guest:
    .incbin TOUR_ELF
1:
    .balign 8
    .globl embedded_guest_size
embedded_guest_size:
    .quad 1b - embedded_guest
    .section .note.GNU-stack, "", @progbits
