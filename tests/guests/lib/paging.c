/* Page tables of both formats. */
#include "guest.h"

extern u8 guest_end[];
static u32 next_page;

void *page_alloc(void)
{
    if (!next_page)
        next_page = ((u32)guest_end + 4095) & ~4095u;
    void *p = (void *)next_page;
    next_page += 4096;
    return memset(p, 0, 4096);
}

u32 random32(void)
{
    static u32 seed = 12345;
    return seed = seed * 1664525 + 1013904223;
}

u8 *page_random(void)
{
    u8 *page = page_alloc();
    for (u32 k = 0; k < 4096; k++)
        page[k] = (u8)(random32() >> 24);
    return page;
}

u32 *pte32(u32 *pd, u32 va)
{
    u32 *pde = &pd[va >> 22];
    if (!(*pde & P))
        *pde = (u32)page_alloc() | P | W | U;
    return (u32 *)(*pde & ~4095u) + (va >> 12 & 1023);
}

void map32(u32 *pd, u32 va, u32 pa, u32 flags)
{
    *pte32(pd, va) = pa | flags;
}

u32 *pd_create(u32 flags)
{
    u32 *pd = page_alloc();
    for (u32 a = 0; a < IDENTITY_MIB << 20; a += 4096)
        map32(pd, a, a, P | W | flags);
    return pd;
}

u64 *pde64(u64 *pdpt, u32 va)
{
    u64 *pdpte = &pdpt[va >> 30];
    if (!(*pdpte & P))
        *pdpte = (u32)page_alloc() | P;
    return (u64 *)((u32)*pdpte & ~4095u) + (va >> 21 & 511);
}

u64 *pte64(u64 *pdpt, u32 va)
{
    u64 *pde = pde64(pdpt, va);
    if (!(*pde & P))
        *pde = (u32)page_alloc() | P | W | U;
    return (u64 *)((u32)*pde & ~4095u) + (va >> 12 & 511);
}

void map64(u64 *pdpt, u32 va, u64 pa, u64 flags)
{
    *pte64(pdpt, va) = pa | flags;
}

u64 *pdpt_create(u32 flags)
{
    u64 *pdpt = page_alloc();
    for (u32 i = 0; i < 4; i++) /* all four now: the CPU reads PDPTEs only when CR3 is loaded */
        pdpt[i] = (u32)page_alloc() | P;
    for (u32 a = 0; a < IDENTITY_MIB << 20; a += 4096)
        map64(pdpt, a, a, P | W | flags);
    return pdpt;
}

void paging_on(const void *root, u32 cr4_bits)
{
    WRITE_CR(4, cr4_bits);
    WRITE_CR(3, root);
    WRITE_CR(0, READ_CR(0) | CR0_PG);
}

void paging_off(void)
{
    WRITE_CR(0, READ_CR(0) & ~CR0_PG);
    WRITE_CR(4, 0);
}
