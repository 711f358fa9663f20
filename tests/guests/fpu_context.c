/* x87 and SSE registers across ring changes and interrupts; FXSAVE's layout; lazy switching by CR0.TS and
 * #NM. */
#include "lib/guest.h"

struct image {
    u16 fcw, fsw;
    u8 ftw, reserved;
    u16 fop;
    u32 fip, fcs, fdp, fds, mxcsr, mxcsr_mask;
    u8 st[8][16], xmm[8][16], rest[224];
} __attribute__((packed, aligned(16)));

static struct image saved, owner_image[3];
volatile u32 ticks;
static volatile u32 switches, owner;

static void fxsave(struct image *i)
{
    __asm__ volatile("fxsave %0" : "=m"(*i));
}

static void fxrstor(const struct image *i)
{
    __asm__ volatile("fxrstor %0" : : "m"(*i));
}

static void layout(void)
{
    static const u32 words[4] __attribute__((aligned(16))) = {0x11111111, 0x22222222, 0x33333333, 0x44444444};
    u32 mxcsr = 0x1f80;
    __asm__ volatile(
        "fninit; ldmxcsr %0; fld1; fldz; fldpi; movaps %1, %%xmm0; movaps %1, %%xmm7; pslldq $4, %%xmm7"
        :
        : "m"(mxcsr), "m"(words));
    fxsave(&saved);
    check_eq(saved.fcw, 0x37f, "FXSAVE: control word");
    check_eq(saved.fsw >> 11 & 7, 5, "FXSAVE: top of stack");
    check_eq(saved.ftw, 0xe0, "FXSAVE: abridged tag word");
    check_eq(saved.mxcsr, 0x1f80, "FXSAVE: MXCSR");
    check(saved.st[0][9] == 0x40 && saved.st[0][7] == 0xc9, "FXSAVE: ST0 is pi");
    check(saved.st[2][9] == 0x3f && saved.st[2][8] == 0xff && saved.st[2][7] == 0x80, "FXSAVE: ST2 is 1");
    check(!memcmp(saved.xmm[0], words, 16), "FXSAVE: XMM0");
    check(saved.xmm[7][0] == 0 && saved.xmm[7][4] == 0x11, "FXSAVE: XMM7");
    u16 env[14];
    __asm__ volatile("fnstenv %0; fldenv %0" : "=m"(env) : : "memory");
    check_eq(env[0], 0x37f, "FNSTENV: control word");
    struct image back = saved;
    __asm__ volatile("fninit; xorps %xmm0, %xmm0; xorps %xmm7, %xmm7");
    fxrstor(&back);
    memset(&saved, 0, sizeof saved);
    fxsave(&saved);
    check(!memcmp(saved.st, back.st, 128) && !memcmp(saved.xmm, back.xmm, 128) && saved.fsw == back.fsw &&
              saved.ftw == back.ftw,
          "FXRSTOR brings all back");
    double result;
    __asm__ volatile("fninit; fld1; fld1; faddp; fstpl %0" : "=m"(result));
    check_eq(((u32 *)&result)[1], 0x40000000, "1 + 1 = 2");
}

static bool tick(struct frame *f)
{
    static struct image mine;
    (void)f;
    ticks++;
    fxsave(&mine); /* an interrupt handler that uses the FPU itself */
    __asm__ volatile("fninit; fldpi; fldpi; xorps %xmm0, %xmm0; xorps %xmm1, %xmm1; xorps %xmm6, %xmm6");
    fxrstor(&mine);
    pic_eoi(0);
    return true;
}

/* Ring 3 holds values in registers and computes until some interrupts have come. */
static u32 hold(u32 seed)
{
    u32 a[4] = {seed, seed + 1, seed + 2, seed + 3}, b[4], x, y, start = ticks;
    __asm__ volatile(
        "fninit; fildl %2; fildl %3; movups %4, %%xmm0; movups %4, %%xmm6; paddd %%xmm6, %%xmm6\n"
        "1: movl ticks, %%eax; subl %5, %%eax; cmpl $5, %%eax; jb 1b\n"
        "movups %%xmm0, %6; psubd %%xmm0, %%xmm6; fistpl %0; fistpl %1"
        : "=m"(x), "=m"(y)
        : "m"(a[0]), "m"(a[1]), "m"(a), "r"(start), "m"(b)
        : "eax", "memory");
    u32 c[4];
    __asm__ volatile("movups %%xmm6, %0" : "=m"(c));
    for (u32 i = 0; i < 4; i++)
        if (b[i] != a[i] || c[i] != a[i])
            return 1;
    return x == a[1] && y == a[0] ? 0 : 2;
}

static void interrupts(void)
{
    trap_hook[0x20] = tick;
    pic_mask(0xfffe);
    pit_periodic(5000);
    ring_eflags = 0x202;
    for (u32 i = 0; i < 10; i++) {
        ring_call(3, hold, 1000 * i + 7);
        check(trap.vector == VEC_RETURN && trap.eax == 0, "ring 3 keeps its registers across interrupts, %u",
              i);
    }
    ring_eflags = 2;
    pit_stop();
    pic_mask(0xffff);
    check(ticks >= 50, "and interrupts there were");
}

/* ---- Lazy switching: the registers stay with their last owner until somebody else touches them. ---- */
static volatile u32 current;

static bool device_not_available(struct frame *f)
{
    (void)f;
    switches++;
    __asm__ volatile("clts");
    if (owner != current) {
        fxsave(&owner_image[owner]);
        fxrstor(&owner_image[current]);
        owner = current;
    }
    return true;
}

static u32 count_up(u32 unused)
{
    u32 v;
    (void)unused;
    __asm__ volatile("fld1; faddp; fistl %0; paddd %%xmm1, %%xmm0" : "=m"(v));
    return v;
}

static u32 touch_nothing(u32 arg)
{
    return arg;
}

static void lazy(void)
{
    static const u32 one[4] __attribute__((aligned(16))) = {1, 1, 1, 1};
    trap_hook[7] = device_not_available;
    __asm__ volatile("fninit; fldz; xorps %%xmm0, %%xmm0; movaps %0, %%xmm1" : : "m"(one));
    for (u32 i = 0; i < 3; i++)
        fxsave(&owner_image[i]);
    owner = 0;
    for (u32 round = 0; round < 60; round++) {
        current = round % 3;
        WRITE_CR(0, READ_CR(0) | CR0_TS);
        u32 before = switches;
        ring_call(3, touch_nothing, round);
        check_eq(switches, before, "no #NM when the FPU is not touched, round %u", round);
        ring_call(3, count_up, 0);
        check_eq(trap.eax, round / 3 + 1, "each context counts for itself, round %u", round);
        check_eq(switches, before + 1, "one #NM, round %u", round);
        ring_call(3, count_up, 0);
        check_eq(switches, before + 1, "none when TS is clear");
        __asm__ volatile("fld1; fsubrp %st, %st(1); psubd %xmm1, %xmm0");
    }
    fxsave(&owner_image[owner]);
    for (u32 i = 0; i < 3; i++)
        check_eq(*(u32 *)owner_image[i].xmm[0], 20, "XMM0 of context %u", i);
}

void guest_main(void)
{
    WRITE_CR(4, CR4_OSFXSR | CR4_OSXMM);
    WRITE_CR(0, (READ_CR(0) & ~CR0_EM) | CR0_MP | CR0_NE);
    layout();
    interrupts();
    quiet_checks(true);
    lazy();
    quiet_checks(false);
    check(true, "lazy switching");
}
