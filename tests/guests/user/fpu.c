/*
 * A Linux/i386 program without a C library that computes with SSE2 and x87 and knows the answers: IEEE 754
 * leaves no choice for them (they were worked out with exact rational arithmetic). Then three processes keep
 * different values in all vector and x87 registers across a few hundred context switches.
 */
#include "sys.h"

static u32 checks, failures;

static void check(int holds, const char *name)
{
    checks++;
    if (!holds) {
        failures++;
        say("FAIL: ");
        say(name);
        say("\n");
    }
}

static u64 bits(double d)
{
    u64 v;
    __builtin_memcpy(&v, &d, 8);
    return v;
}

static u32 bits_single(float f)
{
    u32 v;
    __builtin_memcpy(&v, &f, 4);
    return v;
}

static void sse_scalar(void)
{
    volatile double sum = 0;
    double s = 0;
    for (int i = 1; i <= 100000; i++)
        s += 1.0 / i;
    sum = s;
    check(bits(sum) == 0x40282e27a22f3f7cull, "divsd: the harmonic sum of 100000");
    s = 0;
    for (int i = 1; i <= 1000; i++) {
        double root, x = i;
        __asm__("sqrtsd %1, %0" : "=x"(root) : "x"(x));
        s += root;
    }
    check(bits(s) == 0x40d49a5d2d42af1aull, "sqrtsd: the sum of 1000 roots");
    float f = 0;
    for (int i = 1; i <= 1000; i++)
        f += 1.0f / (float)i;
    check(bits_single(f) == 0x40ef890a, "divss: the harmonic sum of 1000");
    check((int)-2.75 == -2 && (int)(volatile double){2147483646.9} == 2147483646, "cvttsd2si truncates");
    i32 invalid;
    double big = 1e300;
    __asm__("cvttsd2si %1, %0" : "=r"(invalid) : "x"(big));
    check(invalid == (i32)0x80000000, "cvttsd2si out of range gives the indefinite integer");
}

typedef u32 v4 __attribute__((vector_size(16)));

static void sse_packed(void)
{
    v4 a = {1, 0xffffffff, 0x80000000, 7}, b = {2, 1, 0x80000000, 0xfffffff9}, r;
    r = a;
    __asm__("paddd %1, %0" : "+x"(r) : "x"(b));
    check(r[0] == 3 && r[1] == 0 && r[2] == 0 && r[3] == 0, "paddd");
    r = a;
    __asm__("pmuludq %1, %0" : "+x"(r) : "x"(b));
    check(r[0] == 2 && r[1] == 0 && r[2] == 0 && r[3] == 0x40000000, "pmuludq");
    __asm__("pshufd $0x1b, %1, %0" : "=x"(r) : "x"(a));
    check(r[0] == 7 && r[1] == 0x80000000 && r[2] == 0xffffffff && r[3] == 1, "pshufd");
    r = a;
    __asm__("pcmpgtd %1, %0" : "+x"(r) : "x"(b));
    check(r[0] == 0 && r[1] == 0 && r[2] == 0 && r[3] == 0xffffffff, "pcmpgtd");
    u32 mask;
    __asm__("movmskps %1, %0" : "=r"(mask) : "x"(a));
    check(mask == 6, "movmskps");
    r = a;
    __asm__("psrldq $5, %0" : "+x"(r));
    check(r[0] == 0x00ffffff && r[1] == 0x07800000 && r[2] == 0 && r[3] == 0, "psrldq");
    u8 text[16] = "0123456789abcdef", found[16];
    __asm__("movdqu %1, %%xmm0; movdqa %%xmm0, %%xmm1; pcmpeqb %%xmm0, %%xmm1; movdqu %%xmm1, %0"
            : "=m"(found)
            : "m"(text)
            : "xmm0", "xmm1");
    check(found[0] == 255 && found[15] == 255, "movdqu, pcmpeqb");
}

struct extended {
    u64 mantissa;
    u16 exponent;
} __attribute__((packed));

static void x87(void)
{
    struct extended e;
    __asm__("fldpi; fstpt %0" : "=m"(e));
    check(e.exponent == 0x4000 && e.mantissa == 0xc90fdaa22168c235ull, "fldpi");
    static const u32 two = 2, three = 3;
    __asm__("fildl %1; fsqrt; fstpt %0" : "=m"(e) : "m"(two));
    check(e.exponent == 0x3fff && e.mantissa == 0xb504f333f9de6484ull, "fsqrt of 2");
    __asm__("fld1; fidivl %1; fstpt %0" : "=m"(e) : "m"(three));
    check(e.exponent == 0x3ffd && e.mantissa == 0xaaaaaaaaaaaaaaabull, "1/3");
    __asm__("fldz" : :);
    for (u32 i = 1; i <= 1000; i++)
        __asm__ volatile("fld1; fidivl %0; faddp" : : "m"(i));
    __asm__ volatile("fstpt %0" : "=m"(e));
    check(e.exponent == 0x4001 && e.mantissa == 0xef88fa2fa730cec4ull, "the harmonic sum of 1000");
    u8 bcd[10];
    static const i32 number = -1234567;
    __asm__("fildl %1; fbstp %0" : "=m"(bcd) : "m"(number));
    check(bcd[0] == 0x67 && bcd[1] == 0x45 && bcd[2] == 0x23 && bcd[3] == 1 && bcd[9] == 0x80, "fbstp");
    u16 status;
    __asm__("fld1; fldz; fcompp; fnstsw %0" : "=a"(status));
    check((status & 0x4500) == 0x0100, "fcompp: 0 is less than 1");
}

struct registers {
    v4 xmm[8];
    struct extended st[8];
};

/* Fill every register from r, let others run, and read them back. */
static void hold(struct registers *r, u32 rounds)
{
    __asm__ volatile(
        "finit\n"
        "fldt 198(%0); fldt 188(%0); fldt 178(%0); fldt 168(%0)\n"
        "fldt 158(%0); fldt 148(%0); fldt 138(%0); fldt 128(%0)\n"
        "movups (%0), %%xmm0; movups 16(%0), %%xmm1; movups 32(%0), %%xmm2; movups 48(%0), %%xmm3\n"
        "movups 64(%0), %%xmm4; movups 80(%0), %%xmm5; movups 96(%0), %%xmm6; movups 112(%0), %%xmm7\n"
        "1: movl $158, %%eax; int $0x80; decl %1; jnz 1b\n"
        "movups %%xmm0, (%0); movups %%xmm1, 16(%0); movups %%xmm2, 32(%0); movups %%xmm3, 48(%0)\n"
        "movups %%xmm4, 64(%0); movups %%xmm5, 80(%0); movups %%xmm6, 96(%0); movups %%xmm7, 112(%0)\n"
        "fstpt 128(%0); fstpt 138(%0); fstpt 148(%0); fstpt 158(%0)\n"
        "fstpt 168(%0); fstpt 178(%0); fstpt 188(%0); fstpt 198(%0)\n"
        : "+r"(r), "+r"(rounds)
        :
        : "eax", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
}

static int held(u32 seed)
{
    struct registers a, b;
    for (u32 i = 0; i < 8; i++) {
        a.xmm[i] = (v4){seed + i, seed * 3 + i, seed * 5 + i, seed * 7 + i};
        a.st[i] = (struct extended){0x8000000000000000ull | (u64)seed << 20 | i, 0x3fff + seed % 100 + i};
    }
    b = a;
    hold(&b, 300);
    return !__builtin_memcmp(&a, &b, sizeof a);
}

static void switches(void)
{
    i32 child[2];
    for (u32 i = 0; i < 2; i++) {
        child[i] = sys(SYS_FORK, 0, 0, 0);
        if (child[i] == 0)
            sys(SYS_EXIT, held(0x1111 * (i + 1)) ? 0 : 1, 0, 0);
    }
    check(held(0x7777), "registers survive switches: parent");
    for (u32 i = 0; i < 2; i++) {
        u32 status = ~0u;
        sys(SYS_WAITPID, child[i], (u32)&status, 0);
        check(status == 0, "registers survive switches: child");
    }
}

static int run(void)
{
    sse_scalar();
    sse_packed();
    x87();
    switches();
    say("fpu: ");
    say_number(checks);
    say(" checks, ");
    say_number(failures);
    say(" failed\n");
    return failures != 0;
}
PROGRAM(run)

int memcmp(const void *a, const void *b, size_t n);
int memcmp(const void *a, const void *b, size_t n)
{
    const u8 *x = a, *y = b;
    while (n && *x == *y)
        n--, x++, y++;
    return n ? *x - *y : 0;
}

void *memcpy(void *d, const void *s, size_t n);
void *memcpy(void *d, const void *s, size_t n)
{
    void *to = d;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(s), "+c"(n) : : "memory");
    return d;
}
