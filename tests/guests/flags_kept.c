/* Every combination of the arithmetic flags, DF and ID, through POPF, and through instructions that change none of them
 * however they are executed: loads of segment registers, CPUID, moves of control registers, STI. */
#include "lib/guest.h"

enum { ARITH = 0x8d5, DF = 0x400, ID = 0x200000, ALL = ARITH | DF | ID };

/* Flags in, the instruction, flags out; DF is cleared again before C goes on. */
#define THROUGH(text)                                                                                        \
    ({                                                                                                       \
        u32 out, in = flags;                                                                                 \
        __asm__ volatile("pushl %1; popfl; " text "; pushfl; popl %0; cld"                                   \
                         : "=&r"(out)                                                                        \
                         : "r"(in)                                                                           \
                         : "eax", "ebx", "ecx", "edx", "memory", "cc");                                      \
        out &ALL;                                                                                            \
    })

static void one(u32 flags)
{
    const u32 want = flags & ALL;
    check_eq(THROUGH(""), want, "flags %x through popf", flags);
    check_eq(THROUGH("std; pushl %1; popfl"), want, "  with DF set before");
    check_eq(THROUGH("cld; pushl %1; popfl"), want, "  and clear before");
    check_eq(THROUGH("movl %%ds, %%eax; movl %%eax, %%ds"), want, "  through a load of DS");
    check_eq(THROUGH("pushl %%es; popl %%es"), want, "  through a load of ES from the stack");
    check_eq(THROUGH("xorl %%eax, %%eax; pushl %1; popfl; cpuid"), want, "  through CPUID");
    check_eq(THROUGH("movl %%cr0, %%eax; movl %%eax, %%cr0"), want, "  through a move to CR0");
    check_eq(THROUGH("sti; cli"), want, "  through STI and CLI");
    check_eq(THROUGH("pushfl; xorl %1, (%%esp); popfl; pushl %1; popfl"), want, "  after others");
    check_eq(THROUGH("pushfl; sti; cli; popfl"), want, "  around STI");
}

void guest_main(void)
{
    quiet_checks(true);
    for (u32 round = 0; round < 3; round++)
        for (u32 n = 0; n < 256; n++) {
            u32 flags = 2;
            static const u32 bit[8] = {0x001, 0x004, 0x010, 0x040, 0x080, 0x800, DF, ID};
            for (unsigned i = 0; i < 8; i++)
                flags |= n >> i & 1 ? bit[i] : 0;
            one(flags);
        }
    quiet_checks(false);
    check(true, "all combinations of flags");
}
