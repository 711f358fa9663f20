/* The guest walker: SDM vol. 3 4.3 (32-bit paging), 4.4 (PAE), 4.6 (access rights), 4.7 (error codes). */
#include "state.h"

#define PAE_FRAME    UINT64_C(0xFFFFFF000)        /* 35:12 */
#define PAE_RESERVED UINT64_C(0x7FFFFFF000000000) /* 62:36 */

/* A page table in the VGA hole or beyond RAM reads as "not present": nothing can be cached from where we
 * cannot see writes, and no guest that is not hostile puts one there. */
uint64_t walk_entry_load(const struct host_ram *ram, uint64_t gpa, unsigned size)
{
    if (gpa >= ram->size || ram->size - gpa < size || (gpa >= 0xA0000 && gpa < 0xC0000))
        return 0;
    uint64_t v = 0;
    if (size == 4)
        v = *(const volatile uint32_t *)(ram->base + gpa);
    else
        v = *(const volatile uint64_t *)(ram->base + gpa);
    return v;
}

/* SDM vol. 3 table 4-4 (PSE-36: 16:13 are address bits 35:32, 21:17 are reserved), tables 4-9 to 4-11. */
uint64_t walk_reserved_bits(const struct spt_paging *p, unsigned shift, bool large)
{
    if (!(p->cr4 & CR4_PAE))
        return large && shift == 22 ? 0x3E0000 : 0;
    uint64_t bits = PAE_RESERVED | (p->nxe ? 0 : PTE_NX);
    return large && shift == 21 ? bits | 0x1FE000 : bits;
}

static bool refuse(struct spt_walk *out, const struct spt_paging *p, uint32_t access, uint32_t why)
{
    uint32_t fetch = (p->cr4 & CR4_PAE) && p->nxe ? SPT_EXEC : 0; /* I/D exists only with NX: 4.7 */
    out->pfec = why | (access & (SPT_WRITE | SPT_USER | fetch));
    return false;
}

static bool permit(struct spt_walk *out, const struct spt_paging *p, uint32_t access)
{
    bool user = access & SPT_USER, write = access & SPT_WRITE;
    bool write_checked = user || (p->cr0 & CR0_WP);
    if ((user && !out->user) || (write && write_checked && !out->writable) ||
        ((access & SPT_EXEC) && out->nx))
        return refuse(out, p, access, SPT_PRESENT);
    return true;
}

static void leaf_address(struct spt_walk *out, const struct spt_paging *p, uint32_t gva, uint64_t e,
                         unsigned shift)
{
    uint64_t offset = (UINT64_C(1) << shift) - 1;
    uint64_t frame = p->cr4 & CR4_PAE ? e & PAE_FRAME : e & 0xFFFFF000;
    if (shift == 22)
        frame |= (e >> 13 & 0xF) << 32;
    out->gpa = (frame & ~offset) | (gva & offset);
    out->dirty = e & PTE_D;
    out->global = (e & PTE_G) && (p->cr4 & CR4_PGE);
    out->shift = shift;
}

static bool identity(struct spt_walk *out, uint32_t gva)
{
    *out = (struct spt_walk){.gpa = gva, .writable = true, .accessed = true, .dirty = true, .shift = 32};
    return true;
}

bool spt_walk(const struct host_ram *ram, const struct spt_paging *p, uint32_t gva, uint32_t access,
              struct spt_walk *out)
{
    if (!(p->cr0 & CR0_PG))
        return identity(out, gva);
    bool pae = p->cr4 & CR4_PAE;
    unsigned size = pae ? 8 : 4;
    uint64_t table = p->cr3 & 0xFFFFF000;
    out->gpa = out->pfec = out->shift = out->levels = 0;
    out->user = out->writable = out->accessed = true;
    out->nx = out->global = out->dirty = false;
    if (pae) { /* PDPTEs are registers; entry_gpa says where memory has the original */
        uint64_t e = p->pdpte[gva >> 30];
        out->entry_gpa[0] = (p->cr3 & ~31u) + 8 * (gva >> 30);
        out->entry[out->levels++] = e;
        if (!(e & PTE_P))
            return refuse(out, p, access, 0);
        table = e & PAE_FRAME;
    }
    for (unsigned shift = pae ? 21 : 22;; shift = 12) {
        uint64_t at = table + (gva >> shift & (pae ? 511 : 1023)) * size;
        uint64_t e = walk_entry_load(ram, at, size);
        out->entry_gpa[out->levels] = at;
        out->entry[out->levels++] = e;
        if (!(e & PTE_P))
            return refuse(out, p, access, 0);
        bool large = shift > 12 && (e & PTE_PS) && (pae || (p->cr4 & CR4_PSE));
        if (e & walk_reserved_bits(p, shift, large))
            return refuse(out, p, access, SPT_PRESENT | SPT_RSVD);
        out->user &= !!(e & PTE_U);
        out->writable &= !!(e & PTE_W);
        out->accessed &= !!(e & PTE_A);
        out->nx |= pae && p->nxe && (e & PTE_NX);
        if (shift == 12 || large) {
            leaf_address(out, p, gva, e, shift);
            return permit(out, p, access);
        }
        table = pae ? e & PAE_FRAME : e & 0xFFFFF000;
    }
}

/* SDM vol. 3 table 4-8: bits 2:1, 8:5 and 63:MAXPHYADDR of a present PDPTE are reserved. */
bool spt_load_pdptes(const struct host_ram *ram, uint32_t cr3, uint64_t pdpte[4])
{
    uint64_t v[4];
    for (unsigned i = 0; i < 4; ++i) {
        v[i] = walk_entry_load(ram, (cr3 & ~31u) + 8 * i, 8);
        if ((v[i] & PTE_P) && (v[i] & (PTE_NX | PAE_RESERVED | 0x1E6)))
            return false;
    }
    for (unsigned i = 0; i < 4; ++i)
        pdpte[i] = v[i];
    return true;
}

/* Nothing is ever derived from an entry that is not present or whose A bit is clear: using it sets A first.
 */
bool walk_entry_restricts(bool pae, bool is_pde, uint64_t old, uint64_t now)
{
    if (!(old & PTE_P) || !(old & PTE_A))
        return false;
    uint64_t must_stay = PTE_P | PTE_A | PTE_W | PTE_U;
    if (!is_pde || (old & PTE_PS))
        must_stay |= PTE_D;
    uint64_t same = pae ? ~PTE_NX & ~UINT64_C(0xFFF) : 0xFFFFF000;
    if (is_pde)
        same |= PTE_PS;
    uint64_t gone = old & ~now, came = now & ~old;
    return (gone & must_stay) || (came & (PTE_U | (pae ? PTE_NX : 0))) || ((gone | came) & same);
}

bool walk_entry_demotes(uint64_t old, uint64_t now)
{
    return ((old ^ now) & ~(uint64_t)(PTE_W | PTE_D)) == 0;
}
