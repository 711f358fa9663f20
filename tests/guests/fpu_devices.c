/* x87, MMX and XMM registers and the control words are nobody's but the guest's while a device is read or written,
 * whatever code models the device. */
#include "lib/guest.h"

enum { ROUNDS = 200, NO_DEVICE = 0xf0000000, VGA = 0xb8000 };

struct state {
    u32 xmm[8][4];
    u8 st0[16];
    u32 mxcsr;
    u16 fcw, fsw;
} __attribute__((aligned(16)));

static struct state before, after;

#define XMM_ALL(insn) insn(0) insn(1) insn(2) insn(3) insn(4) insn(5) insn(6) insn(7)
#define XMM_LOAD(n)   "movaps " #n "*16(%0), %%xmm" #n "\n"
#define XMM_STORE(n)  "movaps %%xmm" #n ", " #n "*16(%0)\n"

static ONE_COPY void load(const struct state *s)
{
    __asm__ volatile(XMM_ALL(XMM_LOAD) "ldmxcsr 144(%0); fninit; fldcw 148(%0); fldpi; fld1; fchs"
                     :
                     : "r"(s)
                     : "memory");
}

/* The x87 stack is read by popping it. */
static ONE_COPY void store(struct state *s)
{
    __asm__ volatile(
        XMM_ALL(XMM_STORE) "stmxcsr 144(%0); fnstcw 148(%0); fnstsw 150(%0); fstpl 128(%0); fstpl 136(%0)"
        :
        : "r"(s)
        : "memory");
}

static void ports(void)
{
    outb(0x3ff, 0x5a); /* COM1 scratch */
    inb(0x3ff);
    inb(0x3fd);
    outb(0x43, 0x34); /* PIT channel 0 */
    outb(0x40, 0xff);
    outb(0x40, 0xff);
    outb(0x70, 0x0a); /* RTC */
    inb(0x71);
    outb(0x21, 0xff);
    inb(0x21);
    inb(0x64);
    inl(0xcfc);
    inl(0x608); /* the PM timer, if it is there */
    inw(0x9990);
    outl(0x9990, 1);
}

static void memory(void)
{
    *(volatile u32 *)VGA = 0x07410741;
    (void)*(volatile u32 *)VGA;
    *(volatile u32 *)NO_DEVICE = 1;
    (void)*(volatile u8 *)NO_DEVICE;
}

static void both(void (*fn)(void), const char *what)
{
    bool same = true;
    for (u32 i = 0; i < ROUNDS; i++) {
        for (u32 k = 0; k < 32; k++)
            before.xmm[k / 4][k % 4] = (i + 1) * 0x01234567 + k * 0x1001;
        load(&before);
        fn();
        store(&after);
        same &= !memcmp(before.xmm, after.xmm, sizeof before.xmm);
        same &= after.mxcsr == before.mxcsr && after.fcw == before.fcw;
        same &= ((u32 *)after.st0)[1] == 0xbff00000 && ((u32 *)after.st0)[3] == 0x400921fb;
        same &= (after.fsw >> 11 & 7) == 6;
    }
    check(same, "%s: all registers are as they were", what);
}

void guest_main(void)
{
    WRITE_CR(0, (READ_CR(0) & ~(CR0_EM | CR0_TS)) | CR0_MP | CR0_NE);
    WRITE_CR(4, READ_CR(4) | CR4_OSFXSR | CR4_OSXMM);
    before.mxcsr = 0x5f80; /* all masked, round up */
    before.fcw = 0x0b7f;   /* double extended, round up */
    both(ports, "ports");
    both(memory, "device memory");
    pit_stop();
}
