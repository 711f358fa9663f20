/* Selectors of the guests' GDT and the vector an outer ring returns through; shared with assembly. */
#ifndef GUEST_SELECTORS_H
#define GUEST_SELECTORS_H

#define SEL_CODE0  0x08
#define SEL_DATA0  0x10
#define SEL_CODE1  0x19
#define SEL_DATA1  0x21
#define SEL_CODE2  0x2a
#define SEL_DATA2  0x32
#define SEL_CODE3  0x3b
#define SEL_DATA3  0x43
#define SEL_TSS    0x48
#define SEL_LDT    0x50
#define SEL_TSS2   0x58
#define SEL_TSS_DF 0x60
#define SEL_TEST   0x68 /* this slot and the ones after it are the test's own */
#define GDT_SLOTS  64

#define VEC_RETURN 0x80

#endif
