/*
 * #DE, again and again at the same instruction: whatever a monitor does to a division that keeps faulting, each fault
 * must find the machine as it was before it (SDM vol. 2 DIV, IDIV; vol. 3 6.5), and each division that does not fault
 * must still divide.
 */
#include "lib/guest.h"

enum { DE = 0, ROUNDS = 12, MANY = 3000, ARITH = 0x8d5 };

struct numbers {
    u32 eax, edx, by;
};
struct row {
    const char *name;
    void (*divide)(struct numbers *n);
    struct numbers faulting[3], good, want; /* want: EAX and EDX after good */
};

static volatile u32 operand;

/* With CF, SF and OF set, so that flags that are not restored show. */
#define DIVIDE(name, insn, ...)                                                                              \
    static void name(struct numbers *n)                                                                      \
    {                                                                                                        \
        u32 a = n->eax, d = n->edx;                                                                          \
        operand = n->by;                                                                                     \
        FAULTING(insn, : "+a"(a), "+d"(d) : "c"(n->by), "m"(operand), "b"(0x80000000u) : "cc", "memory");    \
        n->eax = a;                                                                                          \
        n->edx = d;                                                                                          \
    }
#undef FAULTING
#define FAULTING(insn, ...)                                                                                  \
    __asm__ volatile(                                                                                        \
        "movl $77f, fault_eip; addl %%ebx, %%ebx; movl $0x80000000, %%ebx\n77: " insn __VA_ARGS__)

DIVIDE(div32, "divl %%ecx")
DIVIDE(div32m, "divl %3")
DIVIDE(idiv32, "idivl %%ecx")
DIVIDE(idiv32m, "idivl %3")
DIVIDE(div16, "divw %%cx")
DIVIDE(idiv16m, "idivw %3")
DIVIDE(div8, "divb %%cl")
DIVIDE(idiv8m, "idivb %3")

static const struct row rows[] = {
    {"div ecx", div32, {{1, 0, 0}, {0, 5, 5}, {7, 0xffffffff, 0xfffffffe}}, {100, 1, 7}, {613566770, 6, 0}},
    {"div m32", div32m, {{1, 0, 0}, {0, 1, 1}, {9, 3, 2}}, {17, 0, 5}, {3, 2, 0}},
    {"idiv ecx",
     idiv32,
     {{1, 0, 0}, {0x80000000, 0xffffffff, 0xffffffff}, {0, 1, 2}},
     {-17u, ~0u, 5},
     {-3u, -2u, 0}},
    {"idiv m32", idiv32m, {{1, 0, 0}, {0x80000000, 0, 1}, {0, 0x40000000, 3}}, {17, 0, -5u}, {-3u, 2, 0}},
    {"div cx",
     div16,
     {{1, 0, 0}, {1, 9, 9}, {1, 0x5000a, 0x3000a}},
     {0xaaaa0064, 0xbbbb0000, 7},
     {0xaaaa000e, 0xbbbb0002, 0}},
    {"idiv m16",
     idiv16m,
     {{1, 0, 0}, {0x8000, 0xffff, 0xffff}, {0, 0x4000, 2}},
     {-100u, ~0u, 7},
     {0xfffffff2, 0xfffffffe, 0}},
    {"div cl", div8, {{1, 0, 0}, {0x500, 0, 5}, {0xffff, 0, 0xff}}, {0x1234007b, 0, 10}, {0x1234030c, 0, 0}},
    {"idiv m8", idiv8m, {{1, 0, 0}, {0xff80, 0, 0xff}, {0x4000, 0, 2}}, {0xff85, 0, 10}, {0xfdf4, 0, 0}},
};

static void fault(const struct row *r, const struct numbers *n)
{
    struct numbers x = *n;
    TRY(r->divide(&x));
    check_trap(DE, 0, "%s: %x:%x by %x", r->name, n->edx, n->eax, n->by);
    check(trap.eax == n->eax && trap.edx == n->edx && trap.ecx == n->by, "%s: registers as before", r->name);
    check_eq(trap.eflags & ARITH, 0x845, "%s: flags as before", r->name);
}

static void divide(const struct row *r)
{
    struct numbers x = r->good;
    TRY(r->divide(&x));
    check(trap.vector == NO_TRAP && x.eax == r->want.eax && x.edx == r->want.edx, "%s: %X:%X by %X is %X, %X",
          r->name, r->good.edx, r->good.eax, r->good.by, x.eax, x.edx);
}

void guest_main(void)
{
    for (u32 i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        quiet_checks(true);
        for (u32 k = 0; k < ROUNDS; k++) {
            for (u32 n = 0; n < 3; n++)
                fault(r, &r->faulting[n]);
            divide(r);
        }
        for (u32 k = 0; k < MANY; k++)
            divide(r);
        for (u32 k = 0; k < ROUNDS; k++) {
            divide(r);
            fault(r, &r->faulting[k % 3]);
        }
        quiet_checks(false);
        check(true, "%s", r->name);
    }
}
