/* The time-stamp counter: one instruction that is read in every ring, faults when CR4.TSD says so, and follows what is
 * written to IA32_TSC; each also where it has run before without (SDM vol. 2 RDTSC, vol. 3 17.17.3). */
#include "lib/guest.h"

enum { GP = 13, MSR_TSC = 0x10 };

static u32 read_low(u32 arg)
{
    u32 low = arg, high;
    FAULTING("rdtsc", : "=a"(low), "=d"(high));
    return low;
}

/* Does it move forward, by less than a second of any CPU, n times? */
static bool forward(u32 n)
{
    u64 last = rdtsc();
    while (n--) {
        u64 now = rdtsc();
        if (now < last || now - last > 1ull << 33)
            return false;
        last = now;
    }
    return true;
}

static void user(const char *what)
{
    bool ok = true;
    for (u32 i = 0; i < 20; i++) {
        ring_call(3, read_low, 0);
        ok &= trap.vector == VEC_RETURN;
    }
    check(ok, "%s: ring 3 reads it", what);
}

void guest_main(void)
{
    u32 cr4 = READ_CR(4);
    check(forward(1000), "it goes forward");
    user("after boot");
    for (u32 round = 0; round < 3; round++) {
        WRITE_CR(4, cr4 | CR4_TSD);
        ring_call(3, read_low, 0);
        check_trap(GP, 0, "CR4.TSD: #GP in ring 3");
        ring_call(1, read_low, 0);
        check_trap(GP, 0, "CR4.TSD: #GP in ring 1");
        check(forward(100), "CR4.TSD: ring 0 may still");
        WRITE_CR(4, cr4);
        user("CR4.TSD cleared");
        ring_call(1, read_low, 0);
        check(trap.vector == VEC_RETURN, "CR4.TSD cleared: ring 1 reads it");
    }
    wrmsr(MSR_TSC, 5ull << 40);
    u64 now = rdtsc();
    check(now >= 5ull << 40 && now < 6ull << 40, "IA32_TSC: what is written is seen by RDTSC");
    u64 msr = rdmsr(MSR_TSC);
    check(msr >= now && msr - now < 1ull << 33, "IA32_TSC: and by RDMSR");
    check(forward(1000), "it goes forward from there");
    ring_call(3, read_low, 0);
    check(trap.vector == VEC_RETURN, "ring 3 reads it");
}
