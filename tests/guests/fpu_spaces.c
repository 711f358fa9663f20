/* x87, XMM and YMM registers are nobody's but the guest's while it goes from one address space to the next, each
 * seen for the first time: MOV to CR3 (SDM vol. 2) changes no other register. Found by lock step: making a
 * window for a new space cleared XMM0.
 */
#include "lib/guest.h"

enum { SPACES = 200, YMM_SPACES = 100, CR4_OSXSAVE = 1 << 18, HAS_AVX = 1 << 26 | 1 << 28 };

static u32 *space[SPACES + YMM_SPACES];

/* The upper halves too, in spaces of their own: it is the first visit that counts. */
static void ymm_registers(void)
{
    static const u32 words[8] = {1, 2, 3, 4, 50, 60, 70, 80};
    u32 got[2][8], eax = 1, ecx = 0;
    __asm__ volatile("cpuid" : "+a"(eax), "+c"(ecx) : : "ebx", "edx");
    if ((ecx & HAS_AVX) != HAS_AVX)
        return;
    WRITE_CR(4, READ_CR(4) | CR4_OSXSAVE);
    __asm__ volatile("xsetbv" : : "a"(7), "d"(0), "c"(0));
    for (u32 s = SPACES; s < SPACES + YMM_SPACES; s++) {
        __asm__ volatile("vmovups (%0), %%ymm0; vmovups (%0), %%ymm5\n"
                         "mov %2, %%cr3\n"
                         "vmovups %%ymm0, (%1); vmovups %%ymm5, 32(%1)"
                         :
                         : "r"(words), "r"(got), "r"(space[s])
                         : "memory");
        check(!memcmp(got[0], words, 32), "YMM0 in space %u", s);
        check(!memcmp(got[1], words, 32), "YMM5 in space %u", s);
    }
}

void guest_main(void)
{
    static const u32 words[8] __attribute__((aligned(16))) = {1, 2, 3, 4, 50, 60, 70, 80};
    static u32 got[8][4] __attribute__((aligned(16)));
    u32 *pd = pd_create(0);
    for (u32 s = 0; s < SPACES + YMM_SPACES; s++) {
        space[s] = page_alloc();
        memcpy(space[s], pd, 4096);
    }
    WRITE_CR(0, (READ_CR(0) & ~CR0_EM) | CR0_MP | CR0_NE);
    paging_on(pd, CR4_OSFXSR | CR4_OSXMM);
    quiet_checks(true);
    for (u32 round = 0; round < 2; round++)
        for (u32 s = 0; s < SPACES; s++) {
            double pi;
            u32 from = (u32)words;
            __asm__ volatile(
                "movaps (%1), %%xmm0; movaps 16(%1), %%xmm1; movaps %%xmm0, %%xmm2; paddd %%xmm1, %%xmm2\n"
                "movaps %%xmm1, %%xmm7; movaps %%xmm2, %%xmm6; fninit; fldpi\n"
                "mov %3, %%cr3\n"
                "movaps %%xmm0, (%2); movaps %%xmm1, 16(%2); movaps %%xmm2, 32(%2)\n"
                "movaps %%xmm6, 96(%2); movaps %%xmm7, 112(%2); fstpl %0"
                : "=m"(pi)
                : "r"(from), "r"(got), "r"(space[s])
                : "memory");
            check(!memcmp(got[0], words, 16), "round %u: XMM0 in space %u", round, s);
            check(!memcmp(got[1], words + 4, 16), "round %u: XMM1 in space %u", round, s);
            check(got[2][0] == 51 && got[2][3] == 84, "round %u: XMM2 in space %u", round, s);
            check(!memcmp(got[6], got[2], 16), "round %u: XMM6 in space %u", round, s);
            check(!memcmp(got[7], words + 4, 16), "round %u: XMM7 in space %u", round, s);
            check_eq(((u32 *)&pi)[1], 0x400921fb, "round %u: ST0 in space %u", round, s);
        }
    ymm_registers();
    quiet_checks(false);
    check(true, "%u address spaces", SPACES + YMM_SPACES);
}
