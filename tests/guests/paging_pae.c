/* PAE paging and execute-disable: error codes with the I/D and RSVD bits, and CR3's PDPTEs. SDM vol. 3 4.4,
 * 4.6, 4.7. */
#include "lib/guest.h"

enum { BASE = 0x40000000, OK = ACCESS_OK, EFER = 0xc0000080, EFER_NXE = 1 << 11 };

static const struct {
    const char *what;
    u64 pde, pte;
    u32 want[2][3]; /* [ring 0 with WP 1, ring 3][read, write, exec], with NXE */
} pages[] = {
    {"absent", P | W | U, 0, {{0, 2, 16}, {4, 6, 20}}},
    {"supervisor, writable", P | W | U, P | W, {{OK, OK, OK}, {5, 7, 21}}},
    {"user, read-only", P | W | U, P | U, {{OK, 3, OK}, {OK, 7, OK}}},
    {"user, writable", P | W | U, P | W | U, {{OK, OK, OK}, {OK, OK, OK}}},
    {"supervisor, NX", P | W | U, P | W | NX, {{OK, OK, 17}, {5, 7, 21}}},
    {"user, NX", P | W | U, P | W | U | NX, {{OK, OK, 17}, {OK, OK, 21}}},
    {"user, NX by its PDE", P | W | U | NX, P | W | U, {{OK, OK, 17}, {OK, OK, 21}}},
    {"read-only by its PDE", P | U, P | W | U, {{OK, 3, OK}, {OK, 7, OK}}},
    {"reserved bit", P | W | U, P | W | U | 1ull << 52, {{9, 11, 25}, {13, 15, 29}}},
    {"reserved bit in its PDE", P | W | U | 1ull << 55, P | W | U, {{9, 11, 25}, {13, 15, 29}}},
};
enum { PAGES = sizeof pages / sizeof *pages };

static u8 *frame;

static void try_all(u64 *pdpt)
{
    static const char *who[] = {"ring 0", "ring 3"}, *act[] = {"read", "write", "exec"};
    (void)pdpt;
    for (unsigned w = 0; w < 2; w++)
        for (unsigned i = 0; i < PAGES; i++)
            for (unsigned a = 0; a < 3; a++) {
                memset(frame, OPCODE_RET, 16);
                check_eq(access_page(w * 3, a, BASE + (i << 21)), pages[i].want[w][a], "%s: %s, %s",
                         pages[i].what, who[w], act[a]);
            }
}

/* Without EFER.NXE bit 63 is reserved and error codes have no I/D bit. */
static void without_nxe(u64 *pdpt)
{
    wrmsr(EFER, 0);
    flush_tlb();
    frame[0] = OPCODE_RET;
    check_eq(access_page(0, READ, BASE + (5 << 21)), 9, "reserved bit: NX with NXE=0");
    check_eq(access_page(3, EXEC, BASE + (1 << 21)), 5, "NXE=0: exec error codes have no I/D bit");
    check_eq(access_page(0, EXEC, BASE + (3 << 21)), OK, "NXE=0: a page without NX runs");
    wrmsr(EFER, EFER_NXE);
    flush_tlb();
    check_eq(access_page(0, READ, BASE + (5 << 21)), OK, "NXE=1 again: the NX page is readable");
    (void)pdpt;
}

/* The CPU reads the four PDPTEs when CR3 is loaded; a change in memory shows only then. */
static void pdptes(u64 *pdpt)
{
    u64 *other = page_alloc();
    u8 *second = page_alloc();
    memcpy(other, pdpt, 32);
    other[1] = (u32)page_alloc() | P;
    map64(other, BASE, (u32)second, P | W | U);
    *(volatile u32 *)second = 0x2222;
    *(volatile u32 *)frame = 0x1111;
    pdpt[1] |= 0;
    map64(pdpt, BASE, (u32)frame, P | W | U);
    flush_tlb();
    check_eq(*(volatile u32 *)BASE, 0x1111, "the first PDPT's page");
    WRITE_CR(3, other);
    check_eq(*(volatile u32 *)BASE, 0x2222, "the second PDPT's page");
    other[1] = pdpt[1];
    invlpg((void *)BASE);
    check_eq(*(volatile u32 *)BASE, 0x2222, "PDPTE: a change in memory is not seen before CR3 is loaded");
    WRITE_CR(3, other);
    check_eq(*(volatile u32 *)BASE, 0x1111, "and is seen after");
    u64 *bad = page_alloc();
    memcpy(bad, pdpt, 32);
    bad[2] |= 1 << 1;
    TRY(FAULTING("movl %0, %%cr3", : : "r"(bad)));
    check_trap(13, 0, "PDPTE: CR3 with a reserved bit in a PDPTE");
    check_eq(READ_CR(3), (u32)other, "PDPTE:   CR3 is unchanged");
    WRITE_CR(3, pdpt);
    /* 32 bytes, not 4 KiB, is a PDPT's alignment. */
    u64 *shifted = (u64 *)((u8 *)page_alloc() + 0x720);
    memcpy(shifted, pdpt, 32);
    WRITE_CR(3, shifted);
    check_eq(*(volatile u32 *)BASE, 0x1111, "a PDPT 720h bytes into its page");
    WRITE_CR(3, pdpt);
}

static void large_pages(u64 *pdpt)
{
    u8 *p = (u8 *)0x1800000; /* inside the identity map, 2 MiB aligned */
    *(volatile u32 *)(p + 0x123450) = 0xabcdef;
    *pde64(pdpt, 0x60000000) = (u32)p | P | W | U | PS;
    flush_tlb();
    check_eq(*(volatile u32 *)0x60123450, 0xabcdef, "a 2 MiB page");
    *pde64(pdpt, 0x60000000) = (u32)p | P | W | U | PS | 1 << 13;
    flush_tlb();
    check_eq(access_page(0, READ, 0x60000000), 9, "reserved bit: address bit 13 of a 2 MiB page");
    *pde64(pdpt, 0x60000000) = (u32)p | P | W | U | PS | NX;
    flush_tlb();
    *p = OPCODE_RET;
    check_eq(access_page(0, EXEC, 0x60000000), 17, "a 2 MiB NX page");
    *pde64(pdpt, 0xffe00000) = (u32)p | P | W | U | PS;
    *(volatile u32 *)(p + 0x1ffffc) = 0x77665544;
    flush_tlb();
    check_eq(*(volatile u32 *)0xfffffffc, 0x77665544, "the top of the address space");
}

void guest_main(void)
{
    u64 *pdpt = pdpt_create(U);
    frame = page_alloc();
    for (unsigned i = 0; i < PAGES; i++) {
        map64(pdpt, BASE + (i << 21), (u32)frame, pages[i].pte);
        u64 *pde = pde64(pdpt, BASE + (i << 21));
        *pde = (*pde & ~7ull) | pages[i].pde;
    }
    wrmsr(EFER, EFER_NXE);
    paging_on(pdpt, CR4_PAE);
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    try_all(pdpt);
    without_nxe(pdpt);
    pdptes(pdpt);
    large_pages(pdpt);
}
