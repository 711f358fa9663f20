/*
 * Arithmetic by the real instruction.
 */
#ifndef BT_INTERP_FLAGS_H
#define BT_INTERP_FLAGS_H

#include "interp_impl.h"

/*T:380 Borrowed flags
 *
 * What AF is after SHL, or SF after IMUL, the manual calls undefined; only the CPU knows, and translated code
 * runs on it. An interpreter that computes flags by formula would disagree with the translator in a thousand
 * harmless places, and lock step could no longer tell them from the harmful one. So each ALU operation here
 * *is* the instruction, in a few bytes of inline assembly, and the two agree to the bit.
 *
 * The six arithmetic flags travel through AX: AH as SAHF and LAHF know them, AL = OF. PUSHF and POPF would
 * cost 50 cycles and the red zone.
 :*/
#define BT_FLAGS_IN  "addb $0x7f, %%al\n\tsahf\n\t" /* OF = 1 + 127 overflows; SAHF leaves OF alone */
#define BT_FLAGS_OUT "\n\tlahf\n\tseto %%al\n\t"
enum { BT_LAHF_FLAGS = RC_CF | RC_PF | RC_AF | RC_ZF | RC_SF };

BT_INLINE uint32_t bt_flags_pack(uint32_t eflags)
{
    return (eflags & BT_LAHF_FLAGS) << 8 | (eflags >> 11 & 1);
}

BT_INLINE uint32_t bt_flags_unpack(uint32_t eflags, uint32_t ax)
{
    return (eflags & ~(uint32_t)RC_ARITH) | (ax >> 8 & BT_LAHF_FLAGS) | (ax & 1) << 11;
}

/* op a, b with sizes 1, 2, 4: returns the new a and updates *eflags. */
#define BT_DEFINE_BINARY(name, op)                                                                           \
    BT_INLINE uint32_t bt_do_##name(uint32_t a, uint32_t b, unsigned size, uint32_t *eflags)                 \
    {                                                                                                        \
        uint32_t ax = bt_flags_pack(*eflags);                                                                \
        if (size == 1)                                                                                       \
            __asm__(BT_FLAGS_IN op "b %b2, %b1" BT_FLAGS_OUT : "+&a"(ax), "+q"(a) : "q"(b) : "cc");          \
        else if (size == 2)                                                                                  \
            __asm__(BT_FLAGS_IN op "w %w2, %w1" BT_FLAGS_OUT : "+&a"(ax), "+r"(a) : "r"(b) : "cc");          \
        else                                                                                                 \
            __asm__(BT_FLAGS_IN op "l %k2, %k1" BT_FLAGS_OUT : "+&a"(ax), "+r"(a) : "r"(b) : "cc");          \
        *eflags = bt_flags_unpack(*eflags, ax);                                                              \
        return a;                                                                                            \
    }

#define BT_DEFINE_UNARY(name, op)                                                                            \
    BT_INLINE uint32_t bt_do_##name(uint32_t a, unsigned size, uint32_t *eflags)                             \
    {                                                                                                        \
        uint32_t ax = bt_flags_pack(*eflags);                                                                \
        if (size == 1)                                                                                       \
            __asm__(BT_FLAGS_IN op "b %b1" BT_FLAGS_OUT : "+&a"(ax), "+q"(a) : : "cc");                      \
        else if (size == 2)                                                                                  \
            __asm__(BT_FLAGS_IN op "w %w1" BT_FLAGS_OUT : "+&a"(ax), "+r"(a) : : "cc");                      \
        else                                                                                                 \
            __asm__(BT_FLAGS_IN op "l %k1" BT_FLAGS_OUT : "+&a"(ax), "+r"(a) : : "cc");                      \
        *eflags = bt_flags_unpack(*eflags, ax);                                                              \
        return a;                                                                                            \
    }

#define BT_DEFINE_SHIFT(name, op)                                                                            \
    BT_INLINE uint32_t bt_do_##name(uint32_t a, uint32_t count, unsigned size, uint32_t *eflags)             \
    {                                                                                                        \
        uint32_t ax = bt_flags_pack(*eflags);                                                                \
        if (size == 1)                                                                                       \
            __asm__(BT_FLAGS_IN op "b %%cl, %b1" BT_FLAGS_OUT : "+&a"(ax), "+q"(a) : "c"(count) : "cc");     \
        else if (size == 2)                                                                                  \
            __asm__(BT_FLAGS_IN op "w %%cl, %w1" BT_FLAGS_OUT : "+&a"(ax), "+r"(a) : "c"(count) : "cc");     \
        else                                                                                                 \
            __asm__(BT_FLAGS_IN op "l %%cl, %k1" BT_FLAGS_OUT : "+&a"(ax), "+r"(a) : "c"(count) : "cc");     \
        *eflags = bt_flags_unpack(*eflags, ax);                                                              \
        return a;                                                                                            \
    }

/* op with word and long forms only. */
#define BT_DEFINE_WIDE(name, op)                                                                             \
    BT_INLINE uint32_t bt_do_##name(uint32_t a, uint32_t b, unsigned size, uint32_t *eflags)                 \
    {                                                                                                        \
        uint32_t ax = bt_flags_pack(*eflags);                                                                \
        if (size == 2)                                                                                       \
            __asm__(BT_FLAGS_IN op "w %w2, %w1" BT_FLAGS_OUT : "+&a"(ax), "+r"(a) : "r"(b) : "cc");          \
        else                                                                                                 \
            __asm__(BT_FLAGS_IN op "l %k2, %k1" BT_FLAGS_OUT : "+&a"(ax), "+r"(a) : "r"(b) : "cc");          \
        *eflags = bt_flags_unpack(*eflags, ax);                                                              \
        return a;                                                                                            \
    }

#define BT_DEFINE_DOUBLE_SHIFT(name, op)                                                                     \
    BT_INLINE uint32_t bt_do_##name(uint32_t a, uint32_t b, uint32_t count, unsigned size, uint32_t *eflags) \
    {                                                                                                        \
        uint32_t ax = bt_flags_pack(*eflags);                                                                \
        if (size == 2)                                                                                       \
            __asm__(BT_FLAGS_IN op "w %%cl, %w2, %w1" BT_FLAGS_OUT                                           \
                    : "+&a"(ax), "+r"(a)                                                                     \
                    : "r"(b), "c"(count)                                                                     \
                    : "cc");                                                                                 \
        else                                                                                                 \
            __asm__(BT_FLAGS_IN op "l %%cl, %k2, %k1" BT_FLAGS_OUT                                           \
                    : "+&a"(ax), "+r"(a)                                                                     \
                    : "r"(b), "c"(count)                                                                     \
                    : "cc");                                                                                 \
        *eflags = bt_flags_unpack(*eflags, ax);                                                              \
        return a;                                                                                            \
    }

/* SUB and CMP are one instruction to the flags; string compares use it too. */
BT_DEFINE_BINARY(sub, "sub")

/* Condition of Jcc, SETcc, CMOVcc: the low nibble of their opcode (vol. 2 appendix B). */
BT_INLINE bool bt_condition(uint32_t f, unsigned cc)
{
    bool v;
    switch (cc >> 1 & 7) {
    case 0:
        v = f & RC_OF;
        break;
    case 1:
        v = f & RC_CF;
        break;
    case 2:
        v = f & RC_ZF;
        break;
    case 3:
        v = f & (RC_CF | RC_ZF);
        break;
    case 4:
        v = f & RC_SF;
        break;
    case 5:
        v = f & RC_PF;
        break;
    case 6:
        v = ((f >> 7 ^ f >> 11) & 1);
        break;
    default:
        v = ((f >> 7 ^ f >> 11) & 1) || (f & RC_ZF);
        break;
    }
    return v != (cc & 1);
}

#endif
