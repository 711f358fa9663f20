/* host-internal: where things are in a world's address space. Read by the compiler and by the assembler. */
#ifndef HOST_WORLD_LAYOUT_H
#define HOST_WORLD_LAYOUT_H

#ifdef __ASSEMBLER__
#define WORLD_ADDRESS(a) a
#else
#define WORLD_ADDRESS(a) a##ull
#endif

/* All of it above 4 GiB, out of reach of compatibility-mode code. */
#define WORLD_STUB         WORLD_ADDRESS(0x700000000000) /* one page, read and execute */
#define WORLD_STUB_BYTES   0x1000
#define WORLD_ORDERS       WORLD_ADDRESS(0x700000100000) /* read-only in the world, written by the monitor */
#define WORLD_ORDERS_BYTES 0x10000
#define WORLD_STATE        WORLD_ADDRESS(0x700000200000) /* writable in the world: nothing in it is trusted */
#define WORLD_STATE_BYTES  0x9000
#define WORLD_END          WORLD_ADDRESS(0x7ffffffff000) /* of user addresses with four-level paging */

/* In the orders: the registers to enter with, arguments of calls, and a list of calls. */
#define ENTER_PLAIN  0x00 /* RFLAGS for the stub, */
#define ENTER_RIP    0x08 /* then what IRETQ takes */
#define ENTER_CS     0x10
#define ENTER_FLAGS  0x18
#define ENTER_RSP    0x20
#define ENTER_SS     0x28
#define ENTER_EAX    0x30
#define ENTER_ECX    0x34
#define ENTER_EDX    0x38
#define ENTER_EBX    0x3c
#define ENTER_EBP    0x40
#define ENTER_ESI    0x44
#define ENTER_EDI    0x48
#define ENTER_ES     0x4c
#define ENTER_DS     0x4e
#define ENTER_FS     0x50
#define ENTER_GS     0x52
#define ENTER_FAR    0x54 /* EIP and CS as a far pointer, */
#define ENTER_SMALL  0x5a /* which is used if this is not 0: the stack segment is one of 16 bits */
#define ENTER_FRAME  0x60 /* where the kernel stores a frame when nothing is on the alternate stack */
#define ENTER_FPU    0x80 /* an XSAVE image */
#define ORDERS_ARGS  0x1000
#define ORDERS_CALLS 0x2000
#define CALL_BYTES   64 /* number, six arguments */
#define CALLS_MAX    ((WORLD_ORDERS_BYTES - ORDERS_CALLS) / CALL_BYTES)
#define CALL_TRAP    0xffff /* no system call: execute an undefined instruction */

/* In the state: what the handler stores, then the alternate stack with the frame that the kernel stores. */
#define STATE_FRAME     0x00
#define STATE_ES        0x08
#define STATE_DS        0x0a
#define STATE_FS        0x0c
#define STATE_GS        0x0e
#define STATE_STORED    0x10 /* the four are */
#define STATE_STACK     0x1000
#define STATE_STACK_END WORLD_STATE_BYTES

/* Descriptors a world starts with. The first stays open in the mapper only, the second is closed once it is mapped, and
 * the third, its program, by exec. */
#define WORLD_FD_RAM   3
#define WORLD_FD_AREA  4
#define WORLD_FD_IMAGE 5

#endif
