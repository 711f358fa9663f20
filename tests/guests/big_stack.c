/* Stacks in odd places: at the very top of the address space, growing down over page after page that appears
 * on demand, in the last page of RAM, in a page shared with code, and far away from everything. */
#include "lib/guest.h"

enum { GROW_TOP = 0xb0000000, PAGES = 1500 };

static u32 *pd;
static volatile u32 grown;

static bool grow(struct frame *f)
{
    u32 at = READ_CR(2);
    (void)f;
    grown++;
    map32(pd, at & ~4095u, (u32)page_alloc(), P | W | U);
    return true;
}

static u32 on_stack(u32 top, u32 words)
{
    u32 sum = 0;
    __asm__ volatile("movl %%esp, %%esi; movl %1, %%esp; movl %2, %%ecx\n"
                     "1: pushl %%ecx; loop 1b\n"
                     "movl %2, %%ecx; 2: popl %%eax; addl %%eax, %0; loop 2b\n"
                     "movl %%esi, %%esp"
                     : "+r"(sum)
                     : "r"(top), "r"(words)
                     : "eax", "ecx", "esi", "memory");
    return sum;
}

static u32 in_ring3(u32 words)
{
    return on_stack(GROW_TOP, words);
}

void guest_main(void)
{
    pd = pd_create(U);
    map32(pd, 0xfffff000, (u32)page_alloc(), P | W | U);
    paging_on(pd, 0);
    check_eq(on_stack(0, 1000), 500500, "a stack that begins at 0: the first push goes to fffffffc");
    check_eq(on_stack(0xfffffffc, 1000), 500500, "one at the top of the address space");
    trap_hook[14] = grow;
    u32 words = PAGES * 1024;
    ring_call(3, in_ring3, words);
    check(trap.vector == VEC_RETURN && trap.eax == (u32)((u64)words * (words + 1) / 2),
          "a stack of %u pages that grow", PAGES);
    check_eq(grown, PAGES, "  each page faulted once");
    trap_hook[14] = NULL;
    u32 last = (IDENTITY_MIB << 20) - 4096;
    check_eq(on_stack(last + 4096, 1000), 500500, "one at the end of mapped RAM");
    static u8 page[4096] __attribute__((aligned(4096)));
    page[0] = OPCODE_RET;
    for (u32 i = 0; i < 200; i++) {
        __asm__ volatile("call *%0" : : "r"(page) : "memory");
        if (on_stack((u32)page + 4096, 100) != 5050) {
            check(false, "a stack beside code");
            return;
        }
    }
    check(true, "a stack beside code");
}
