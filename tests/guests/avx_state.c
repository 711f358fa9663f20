/* YMM registers across ring changes, interrupts and context switches by XSAVE, XSAVEOPT and XRSTOR; what the image looks
 * like, and which of its parts are read and written. */
#include "lib/guest.h"

enum { OSXSAVE = 1 << 18, X87 = 1, SSE = 2, AVX = 4, ALL = 7 };

struct image {
    u16 fcw, fsw;
    u8 ftw, reserved;
    u16 fop;
    u32 fip, fcs, fdp, fds, mxcsr, mxcsr_mask;
    u8 st[8][16], xmm[16][16], rest[96];
    u32 xstate_bv, xstate_bv_high, xcomp_bv[2], header[12];
    u8 high[16][16];
} __attribute__((packed, aligned(64)));

static struct image saved, task[3];
volatile u32 ticks;
static u32 pattern[8][8];

static bool has(u32 n, u32 sub, unsigned reg, unsigned bit)
{
    u32 r[4];
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(n), "c"(sub));
    return r[reg] >> bit & 1;
}

static void xsave(struct image *i, u32 mask)
{
    __asm__ volatile("xsave (%0)" : : "r"(i), "a"(mask), "d"(0) : "memory");
}

static void xsaveopt(struct image *i, u32 mask)
{
    __asm__ volatile("xsaveopt (%0)" : : "r"(i), "a"(mask), "d"(0) : "memory");
}

static void xrstor(const struct image *i, u32 mask)
{
    __asm__ volatile("xrstor (%0)" : : "r"(i), "a"(mask), "d"(0) : "memory");
}

static void load_ymm(u32 seed)
{
    for (u32 r = 0; r < 8; r++)
        for (u32 n = 0; n < 8; n++)
            pattern[r][n] = seed + 0x01010101 * (8 * r + n);
    __asm__ volatile(
        "vmovups (%0), %%ymm0; vmovups 32(%0), %%ymm1; vmovups 64(%0), %%ymm2; vmovups 96(%0), %%ymm3\n"
        "vmovups 128(%0), %%ymm4; vmovups 160(%0), %%ymm5; vmovups 192(%0), %%ymm6; vmovups 224(%0), %%ymm7"
        :
        : "r"(pattern)
        : "memory");
}

static void store_ymm(u32 got[8][8])
{
    __asm__ volatile(
        "vmovups %%ymm0, (%0); vmovups %%ymm1, 32(%0); vmovups %%ymm2, 64(%0); vmovups %%ymm3, 96(%0)\n"
        "vmovups %%ymm4, 128(%0); vmovups %%ymm5, 160(%0); vmovups %%ymm6, 192(%0); vmovups %%ymm7, 224(%0)"
        :
        : "r"(got)
        : "memory");
}

static bool ymm_is(u32 seed)
{
    u32 got[8][8];
    store_ymm(got);
    for (u32 r = 0; r < 8; r++)
        for (u32 n = 0; n < 8; n++)
            if (got[r][n] != seed + 0x01010101 * (8 * r + n))
                return false;
    return true;
}

static bool high_zero(void)
{
    u32 got[8][8], any = 0;
    store_ymm(got);
    for (u32 r = 0; r < 8; r++)
        any |= got[r][4] | got[r][5] | got[r][6] | got[r][7];
    return !any;
}

static void layout(void)
{
    __asm__ volatile("fninit; fld1; fldpi");
    load_ymm(0x1000);
    memset(&saved, 0xee, sizeof saved);
    memset(&saved.xstate_bv, 0, 64);
    xsave(&saved, ALL);
    check_eq(saved.xstate_bv, ALL, "XSTATE_BV: all in use");
    check(!memcmp(saved.xmm[3], pattern[3], 16), "XMM3");
    check(!memcmp(saved.high[3], &pattern[3][4], 16), "the upper half of YMM3");
    check(saved.xmm[8][0] == 0xee && saved.high[8][0] == 0xee, "32-bit code does not write XMM8 and up");
    check(saved.ftw == 0xc0 && saved.st[0][9] == 0x40, "x87");
    check(saved.fcw == 0x37f && saved.mxcsr == 0x1f80, "control words");
    check(saved.xcomp_bv[1] == 0 && saved.header[0] == 0, "the rest of the header is left alone");

    memset(&saved, 0xee, sizeof saved);
    memset(&saved.xstate_bv, 0, 64);
    saved.xstate_bv = X87;
    xsave(&saved, AVX);
    check_eq(saved.xstate_bv, X87 | AVX, "XSAVE of AVX: XSTATE_BV keeps what was not asked for");
    check(saved.fcw == 0xeeee && saved.xmm[0][0] == 0xee, "and x87 and SSE are not written");
    check_eq(saved.mxcsr, 0x1f80, "XSAVE of AVX: MXCSR is");
    check(!memcmp(saved.high[7], &pattern[7][4], 16), "with the upper halves");
    memset(&saved, 0xee, sizeof saved);
    memset(&saved.xstate_bv, 0, 64);
    xsave(&saved, X87);
    check(saved.xmm[0][0] == 0xee && saved.high[0][0] == 0xee && saved.mxcsr == 0xeeeeeeee &&
              saved.ftw == 0xc0,
          "XSAVE of x87 alone");
    xsave(&saved, 8);
    check(saved.xmm[0][0] == 0xee, "XSAVE of what is not enabled writes nothing");
}

static void restore(void)
{
    load_ymm(0x2000);
    __asm__ volatile("fninit; fld1");
    memset(&saved, 0, sizeof saved);
    xsave(&saved, ALL);
    load_ymm(0x3000);
    xrstor(&saved, SSE | X87);
    u32 got[8][8];
    store_ymm(got);
    check(got[2][0] == 0x2000 + 0x01010101 * 16 && got[2][4] == 0x3000 + 0x01010101 * 20,
          "XRSTOR of SSE leaves upper halves alone");
    xrstor(&saved, AVX);
    check(ymm_is(0x2000), "XRSTOR of AVX brings them back");
    saved.xstate_bv = X87 | SSE;
    xrstor(&saved, ALL);
    check(high_zero(), "a clear bit in XSTATE_BV: AVX is initialized");
    saved.xstate_bv = AVX;
    saved.mxcsr = 0x1fc0;
    xrstor(&saved, ALL);
    xsave(&task[0], ALL);
    static const u8 zero[128];
    check(task[0].ftw == 0 && task[0].fcw == 0x37f && !memcmp(task[0].xmm, zero, 128) &&
              task[0].mxcsr == 0x1fc0,
          "x87 and SSE are initialized, MXCSR is loaded");
    check(!memcmp(task[0].high[1], saved.high[1], 16), "AVX is restored");
    saved.mxcsr = 0x1f80;
    saved.xstate_bv = ALL;
    xrstor(&saved, ALL);
    check(ymm_is(0x2000), "and all of it");
    struct image before = saved;
    __asm__ volatile("fxrstor %0" : : "m"(task[0]));
    store_ymm(got);
    check(got[5][4] == 0x2000 + 0x01010101 * 44 && got[5][0] == 0, "FXRSTOR leaves upper halves alone");
    xrstor(&before, ALL);
    __asm__ volatile("vaddps %xmm0, %xmm0, %xmm1; movaps %xmm0, %xmm2; vzeroupper");
    check(high_zero(), "VZEROUPPER");
    load_ymm(0x7000);
    __asm__ volatile("vaddps %xmm0, %xmm0, %xmm1; movaps %xmm0, %xmm2");
    store_ymm(got);
    check(got[1][4] == 0 && got[2][4] == 0x7000 + 0x01010101 * 20, "VEX clears the upper half, SSE does not");
}

static void optimized(void)
{
    if (!has(13, 1, 0, 0))
        return;
    load_ymm(0x4000);
    memset(&saved, 0, sizeof saved);
    xsaveopt(&saved, ALL);
    check(saved.xstate_bv == ALL && !memcmp(saved.high[6], &pattern[6][4], 16),
          "XSAVEOPT saves what is in use");
    __asm__ volatile("vzeroall");
    xsaveopt(&saved, ALL);
    xrstor(&saved, ALL);
    check(high_zero(), "XSAVEOPT and XRSTOR of initial state");
}

static bool tick(struct frame *f)
{
    static struct image mine;
    (void)f;
    ticks++;
    xsave(&mine, ALL); /* a handler that uses all of it */
    __asm__ volatile(
        "fninit; fldpi; vpcmpeqd %ymm0, %ymm0, %ymm0; vmovaps %ymm0, %ymm7; vmovaps %xmm0, %xmm3");
    xrstor(&mine, ALL);
    pic_eoi(0);
    return true;
}

static u32 hold(u32 seed)
{
    u32 start = ticks;
    load_ymm(seed);
    do /* at least once: on a busy host five ticks may have come already */
        __asm__ volatile("vpaddd %ymm0, %ymm1, %ymm2; vpsubd %ymm1, %ymm2, %ymm2; vpxor %ymm0, %ymm2, %ymm2\n"
                         "vpor %ymm2, %ymm0, %ymm0");
    while (ticks - start < 5);
    u32 got[8][8], bad = 0;
    store_ymm(got);
    for (u32 r = 0; r < 8; r++)
        for (u32 n = 0; n < 8; n++)
            bad += got[r][n] != (r == 2 ? 0 : seed + 0x01010101 * (8 * r + n));
    return bad;
}

static void interrupts(void)
{
    trap_hook[0x20] = tick;
    pic_mask(0xfffe);
    pit_periodic(5000);
    ring_eflags = 0x202;
    for (u32 i = 0; i < 10; i++) {
        ring_call(3, hold, 0x10000 * i);
        check(trap.vector == VEC_RETURN && trap.eax == 0,
              "ring 3 keeps its YMM registers across interrupts, %u", i);
    }
    ring_eflags = 2;
    pit_stop();
    pic_mask(0xffff);
}

static u32 turn(u32 who)
{
    __asm__ volatile("vpaddd %ymm7, %ymm0, %ymm0; vpermq $0x4e, %ymm0, %ymm0");
    return who;
}

/* Three tasks that count in YMM0, both halves, which change places at every turn. */
static void switches(void)
{
    static const u32 ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (u32 t = 0; t < 3; t++) {
        __asm__ volatile("vzeroall; vmovups %0, %%ymm7" : : "m"(ones));
        memset(&task[t], 0, sizeof task[t]);
        xsave(&task[t], ALL);
    }
    for (u32 round = 0; round < 300; round++) {
        u32 t = round * 7 % 3;
        xrstor(&task[t], ALL);
        ring_call(3, turn, t);
        inb(0x61); /* a device: the monitor's own code runs in between */
        if (round & 1)
            xsave(&task[t], ALL);
        else
            xsaveopt(&task[t], ALL);
        __asm__ volatile("vpcmpeqd %ymm0, %ymm0, %ymm0; vpcmpeqd %ymm7, %ymm7, %ymm7");
    }
    for (u32 t = 0; t < 3; t++)
        check(*(u32 *)task[t].xmm[0] == 100 && *(u32 *)task[t].high[0] == 100,
              "task %u counted to 100 in both halves", t);
}

void guest_main(void)
{
    WRITE_CR(4, CR4_OSFXSR | CR4_OSXMM);
    WRITE_CR(0, (READ_CR(0) & ~CR0_EM) | CR0_MP | CR0_NE);
    if (!has(1, 0, 2, 28) || !has(7, 0, 1, 5) || !has(13, 1, 0, 0)) {
        check(true, "this processor has no AVX2 or no XSAVEOPT: nothing to state");
        return;
    }
    WRITE_CR(4, READ_CR(4) | OSXSAVE);
    __asm__ volatile("xsetbv" : : "a"(ALL), "c"(0), "d"(0));
    layout();
    restore();
    optimized();
    interrupts();
    switches();
}
