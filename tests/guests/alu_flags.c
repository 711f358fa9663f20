/* Integer instructions and the flags they leave, against a model written from SDM vol. 2 and appendix A of
 * vol. 1; a few thousand operand pairs, edge values first. Flags an instruction leaves undefined are not
 * compared. */
#include "lib/guest.h"

enum { CF = 1, PF = 4, AF = 16, ZF = 64, SF = 128, OF = 2048, ARITH = CF | PF | AF | ZF | SF | OF };

/* ---- The CPU's answer ---- */
typedef u32 (*insn_fn)(u32 a, u32 b, u32 *flags);
#define TWO(name, text, width, type)                                                                         \
    static u32 name##_##width(u32 a, u32 b, u32 *flags)                                                      \
    {                                                                                                        \
        type r = a, s = b;                                                                                   \
        u32 f = *flags;                                                                                      \
        __asm__ volatile("pushl %1; popfl; " text " %2, %0; pushfl; popl %1" : "+q"(r), "+&r"(f) : "q"(s));  \
        *flags = f;                                                                                          \
        return r;                                                                                            \
    }
#define ONE(name, text, width, type)                                                                         \
    static u32 name##_##width(u32 a, u32 b, u32 *flags)                                                      \
    {                                                                                                        \
        type r = a;                                                                                          \
        u32 f = *flags;                                                                                      \
        (void)b;                                                                                             \
        __asm__ volatile("pushl %1; popfl; " text " %0; pushfl; popl %1" : "+q"(r), "+&r"(f));               \
        *flags = f;                                                                                          \
        return r;                                                                                            \
    }
#define SHIFT(name, text, width, type)                                                                       \
    static u32 name##_##width(u32 a, u32 b, u32 *flags)                                                      \
    {                                                                                                        \
        type r = a;                                                                                          \
        u32 f = *flags;                                                                                      \
        __asm__ volatile("pushl %1; popfl; " text " %%cl, %0; pushfl; popl %1"                               \
                         : "+q"(r), "+&r"(f)                                                                 \
                         : "c"(b));                                                                          \
        *flags = f;                                                                                          \
        return r;                                                                                            \
    }
#define WIDTHS(KIND, name)                                                                                   \
    KIND(name, #name "b", 8, u8)                                                                             \
    KIND(name, #name "w", 16, u16)                                                                           \
    KIND(name, #name "l", 32, u32)
WIDTHS(TWO, add)
WIDTHS(TWO, adc)
WIDTHS(TWO, sub)
WIDTHS(TWO, sbb)
WIDTHS(TWO, cmp)
WIDTHS(TWO, and)
WIDTHS(TWO, or)
WIDTHS(TWO, xor)
WIDTHS(TWO, test)
WIDTHS(ONE, inc)
WIDTHS(ONE, dec)
WIDTHS(ONE, neg)
WIDTHS(ONE, not )
WIDTHS(SHIFT, shl)
WIDTHS(SHIFT, shr)
WIDTHS(SHIFT, sar)
WIDTHS(SHIFT, rol)
WIDTHS(SHIFT, ror)
WIDTHS(SHIFT, rcl)
WIDTHS(SHIFT, rcr)

/* ---- The model's answer ---- */
enum op {
    ADD,
    ADC,
    SUB,
    SBB,
    CMP,
    AND,
    OR,
    XOR,
    TEST,
    INC,
    DEC,
    NEG,
    NOT,
    SHL,
    SHR,
    SAR,
    ROL,
    ROR,
    RCL,
    RCR,
    OPS
};

struct outcome {
    u32 result, flags, defined; /* flags compared where defined has a bit */
};

static u32 mask_of(u32 bits)
{
    return bits == 32 ? 0xffffffff : (1u << bits) - 1;
}

static u32 result_flags(u32 r, u32 bits)
{
    u32 low = r & 0xff, ones = 0;
    for (; low; low >>= 1)
        ones += low & 1;
    return (ones & 1 ? 0 : PF) | (r ? 0 : ZF) | (r >> (bits - 1) & 1 ? SF : 0);
}

static struct outcome model_add(u32 a, u32 b, u32 carry, u32 bits)
{
    u64 sum = (u64)a + b + carry;
    u32 r = (u32)sum & mask_of(bits), top = 1u << (bits - 1);
    u32 f = result_flags(r, bits) | (sum >> bits & 1 ? CF : 0) | ((a ^ b ^ r) & 16 ? AF : 0) |
            (~(a ^ b) & (a ^ r) & top ? OF : 0);
    return (struct outcome){r, f, ARITH};
}

static struct outcome model_sub(u32 a, u32 b, u32 borrow, u32 bits)
{
    u32 r = (a - b - borrow) & mask_of(bits), top = 1u << (bits - 1);
    u32 f = result_flags(r, bits) | ((u64)a < (u64)b + borrow ? CF : 0) | ((a ^ b ^ r) & 16 ? AF : 0) |
            ((a ^ b) & (a ^ r) & top ? OF : 0);
    return (struct outcome){r, f, ARITH};
}

static struct outcome model_shift(enum op op, u32 a, u32 count, u32 flags, u32 bits)
{
    u32 n = count & 31, top = 1u << (bits - 1), r = a, cf = flags & CF;
    if (!n)
        return (struct outcome){a, flags & ARITH, ARITH};
    for (u32 i = 0; i < n; i++) {
        u32 out;
        switch (op) {
        case SHL:
            out = r & top ? 1 : 0;
            r = r << 1;
            break;
        case SHR:
            out = r & 1;
            r = r >> 1;
            break;
        case SAR:
            out = r & 1;
            r = (r >> 1) | (r & top);
            break;
        case ROL:
            out = r & top ? 1 : 0;
            r = r << 1 | out;
            break;
        case ROR:
            out = r & 1;
            r = r >> 1 | (out ? top : 0);
            break;
        case RCL:
            out = r & top ? 1 : 0;
            r = r << 1 | cf;
            break;
        default: /* RCR */
            out = r & 1;
            r = r >> 1 | (cf ? top : 0);
        }
        r &= mask_of(bits);
        cf = out;
    }
    if (op == SHL || op == SHR || op == SAR) {
        u32 f = result_flags(r, bits) | cf, defined = SF | ZF | PF | (n <= bits ? CF : 0);
        if (op == SAR)
            defined |= CF;
        if (n == 1) {
            defined |= OF;
            if (op == SHL)
                f |= (r & top ? 1 : 0) ^ cf ? OF : 0;
            else if (op == SHR)
                f |= a & top ? OF : 0;
        }
        return (struct outcome){r, f, defined};
    }
    u32 f = (flags & (SF | ZF | PF | AF)) | cf, defined = SF | ZF | PF | AF | CF;
    if (n == 1) {
        bool left = op == ROL || op == RCL;
        bool of = left ? ((r & top) != 0) ^ cf : ((r ^ r << 1) & top) != 0;
        f |= of ? OF : 0;
        defined |= OF;
    }
    if ((op == ROL || op == ROR) && n % bits == 0)
        f = (f & ~(u32)CF) | (op == ROL ? r & 1 : (r & top) != 0);
    return (struct outcome){r, f, defined};
}

static struct outcome model(enum op op, u32 a, u32 b, u32 flags, u32 bits)
{
    struct outcome o;
    u32 r;
    a &= mask_of(bits);
    switch (op) {
    case ADD:
    case ADC:
        return model_add(a, b & mask_of(bits), op == ADC ? flags & CF : 0, bits);
    case SUB:
    case SBB:
        return model_sub(a, b & mask_of(bits), op == SBB ? flags & CF : 0, bits);
    case CMP:
        o = model_sub(a, b & mask_of(bits), 0, bits);
        o.result = a;
        return o;
    case NEG:
        return model_sub(0, a, 0, bits);
    case INC:
    case DEC:
        o = op == INC ? model_add(a, 1, 0, bits) : model_sub(a, 1, 0, bits);
        o.flags = (o.flags & ~(u32)CF) | (flags & CF);
        return o;
    case NOT:
        return (struct outcome){~a & mask_of(bits), flags & ARITH, ARITH};
    case AND:
    case OR:
    case XOR:
    case TEST:
        b &= mask_of(bits);
        r = op == OR ? a | b : op == XOR ? a ^ b : a & b;
        return (struct outcome){op == TEST ? a : r, result_flags(r, bits), ARITH & ~(u32)AF};
    default:
        return model_shift(op, a, b, flags, bits);
    }
}

#define ROW(op, name) [op] = {#name, {name##_8, name##_16, name##_32}}
static const struct {
    const char *name;
    insn_fn fn[3];
} rows[OPS] = {ROW(ADD, add), ROW(ADC, adc), ROW(SUB, sub),  ROW(SBB, sbb),   ROW(CMP, cmp),
               ROW(AND, and), ROW(OR, or),   ROW(XOR, xor),  ROW(TEST, test), ROW(INC, inc),
               ROW(DEC, dec), ROW(NEG, neg), ROW(NOT, not ), ROW(SHL, shl),   ROW(SHR, shr),
               ROW(SAR, sar), ROW(ROL, rol), ROW(ROR, ror),  ROW(RCL, rcl),   ROW(RCR, rcr)};

static u32 state = 0x2545f491;
static u32 random(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static u32 operand(u32 i)
{
    static const u32 edge[] = {0,      1,          2,          0x7f,       0x80, 0xff, 0x7fff,    0x8000,
                               0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x0f, 0x10, 0xaaaaaaaa};
    u32 n = sizeof edge / sizeof *edge;
    return i < n ? edge[i] : random();
}

static void one(enum op op, u32 width, u32 a, u32 b, u32 flags)
{
    u32 bits = 8u << width, f = flags | 2;
    u32 got = rows[op].fn[width](a, b, &f) & mask_of(bits);
    struct outcome want = model(op, a, b, flags, bits);
    if (!check(got == want.result && ((f ^ want.flags) & want.defined) == 0, "%s%u %x, %x, flags %x",
               rows[op].name, bits, a, b, flags))
        print("   got %X flags %x, want %X flags %x (of %x)\n", got, f & ARITH, want.result,
              want.flags & want.defined, want.defined);
}

static void multiply(void)
{
    for (u32 i = 0; i < 400; i++) {
        u32 a = operand(i % 20), b = operand(i / 20), high, low, f;
        u64 want = (u64)a * b;
        __asm__ volatile("mull %4; pushfl; popl %2" : "=a"(low), "=d"(high), "=&r"(f) : "a"(a), "r"(b));
        check(low == (u32)want && high == want >> 32 && (f & (CF | OF)) == (want >> 32 ? CF | OF : 0),
              "mul %x, %x", a, b);
        i32 product = 0;
        long long wide = (long long)(i32)a * (i32)b;
        __asm__ volatile("movl %2, %0; imull %3, %0; pushfl; popl %1"
                         : "=&r"(product), "=&r"(f)
                         : "r"(a), "r"(b));
        check(product == (i32)wide && (f & (CF | OF)) == (wide == (i32)wide ? 0 : CF | OF), "imul %x, %x", a,
              b);
        if (b) {
            u32 q, r;
            __asm__ volatile("divl %4" : "=a"(q), "=d"(r) : "a"(a), "d"(0), "r"(b));
            check(q * b + r == a && r < b, "div %x, %x", a, b);
        }
    }
}

static void bits(void)
{
    static volatile u32 map[64];
    for (i32 i = -900; i < 1000; i += 37) {
        volatile u32 *base = &map[32];
        u8 was, is;
        memset((void *)map, 0, sizeof map);
        __asm__ volatile("btsl %2, %1; setc %0" : "=q"(was), "+m"(*base) : "r"(i) : "memory");
        __asm__ volatile("btl %2, %1; setc %0" : "=q"(is) : "m"(*base), "r"(i) : "memory");
        check(!was && is && map[32 + (i >> 5)] == 1u << (i & 31),
              "bts and bt of bit %d from a base in memory", i);
        __asm__ volatile("btcl %2, %1; setc %0" : "=q"(was), "+m"(*base) : "r"(i) : "memory");
        check(was && map[32 + (i >> 5)] == 0, "btc of bit %d", i);
    }
    for (u32 i = 0; i < 32; i++) {
        u32 v = 1u << i | (i ? 1 : 0), low, high;
        u8 z;
        __asm__ volatile("bsfl %1, %0" : "=r"(low) : "r"(1u << i));
        __asm__ volatile("bsrl %1, %0" : "=r"(high) : "r"(v));
        check(low == i && high == i, "bsf and bsr of bit %u", i);
        __asm__ volatile("bsfl %1, %%eax; setz %0" : "=q"(z) : "r"(0) : "eax");
        check(z == 1, "bsf of 0 sets ZF");
        u32 a = 0x89abcdef, b = 0x12345678, got = a;
        __asm__ volatile("shldl %%cl, %1, %0" : "+r"(got) : "r"(b), "c"(i));
        check_eq(got, i ? a << i | b >> (32 - i) : a, "shld by %u", i);
        got = a;
        __asm__ volatile("shrdl %%cl, %1, %0" : "+r"(got) : "r"(b), "c"(i));
        check_eq(got, i ? a >> i | b << (32 - i) : a, "shrd by %u", i);
    }
}

static void decimal(void)
{
    for (u32 a = 0; a < 100; a++)
        for (u32 b = 0; b < 100; b += 7) {
            u32 sum = (a / 10 << 4 | a % 10), addend = (b / 10 << 4 | b % 10), want = (a + b) % 100;
            u8 carry;
            __asm__ volatile("addb %b2, %b0; daa; setc %1" : "+a"(sum), "=q"(carry) : "q"(addend));
            check((sum & 0xff) == (want / 10 << 4 | want % 10) && carry == (a + b >= 100), "daa %u + %u", a,
                  b);
            u32 minuend = (a / 10 << 4 | a % 10);
            want = (a + 100 - b) % 100;
            __asm__ volatile("subb %b2, %b0; das; setc %1" : "+a"(minuend), "=q"(carry) : "q"(addend));
            check((minuend & 0xff) == (want / 10 << 4 | want % 10) && carry == (a < b), "das %u - %u", a, b);
        }
    u32 v = 0x0105;
    __asm__ volatile("addb $9, %b0; aaa" : "+a"(v));
    check_eq(v & 0xffff, 0x0204, "aaa");
    v = 0x0203;
    __asm__ volatile("subb $9, %b0; aas" : "+a"(v));
    check_eq(v & 0xffff, 0x0104, "aas");
    v = 97;
    __asm__ volatile("aam" : "+a"(v));
    check_eq(v & 0xffff, 0x0907, "aam");
    __asm__ volatile("aad" : "+a"(v));
    check_eq(v & 0xffff, 97, "aad");
}

static void moves(void)
{
    u32 v, ah;
    __asm__ volatile("movl $0x8d5, %%eax; pushl %%eax; popfl; lahf; movl %%eax, %0" : "=r"(v) : : "eax");
    check_eq(v >> 8 & 0xff, 0xd7, "lahf");
    __asm__ volatile("movl $0xff00, %%eax; sahf; pushfl; popl %0" : "=r"(v) : : "eax");
    check_eq(v & (ARITH & ~(u32)OF), 0xd5, "sahf");
    __asm__ volatile("movl $0x1280, %%eax; movsbl %%al, %0; movzbl %%ah, %1" : "=&r"(v), "=r"(ah) : : "eax");
    check(v == 0xffffff80 && ah == 0x12, "movsx, movzx of AH");
    __asm__ volatile("movl $0x80, %%eax; cbtw; cwtl; cltd; movl %%edx, %0" : "=r"(v) : : "eax", "edx");
    check_eq(v, 0xffffffff, "cbw, cwde, cdq");
    v = 0x11223344;
    __asm__ volatile("bswap %0; xchgb %%al, %%ah" : "+a"(v));
    check_eq(v, 0x44331122, "bswap, xchg al, ah");
    u32 a = 5, b = 7;
    __asm__ volatile("xaddl %0, %1" : "+r"(a), "+r"(b));
    check(a == 7 && b == 12, "xadd");
    __asm__ volatile("stc; cmc; .byte 0xd6" : "=a"(v));
    check_eq(v & 0xff, 0, "salc");
    static const u8 table[256] = {[77] = 0xee};
    __asm__ volatile("xlatb" : "=a"(v) : "a"(77), "b"(table), "m"(table));
    check_eq(v & 0xff, 0xee, "xlat");
    u32 frame;
    __asm__ volatile("movl %%esp, %0; enter $24, $3; leave; subl %%esp, %0" : "=&c"(frame));
    check_eq(frame, 0, "enter with nesting level 3, leave");
}

void guest_main(void)
{
    quiet_checks(true);
    for (enum op op = 0; op < OPS; op++)
        for (u32 width = 0; width < 3; width++)
            for (u32 i = 0; i < 20; i++)
                for (u32 j = 0; j < 20; j++) {
                    u32 b = op >= SHL ? j * 2 + (i & 1) : operand(j);
                    one(op, width, operand(i), b, i & 1 ? ARITH : 0);
                }
    multiply();
    bits();
    decimal();
    moves();
    quiet_checks(false);
    check(true, "integer instructions and flags");
}
