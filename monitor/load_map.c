#include <assert.h>
#include "le.h"
#include "load_map.h"

/*T:210 What a PC without a BIOS still promises
 * A kernel trusts three things it cannot find out by itself: which physical addresses are RAM, where the ACPI
 * tables begin, and what the BIOS left in the first kilobyte. There is no BIOS here, so the loader makes the
 * promises: 639 KiB of conventional memory, the classic hole for VGA and ROMs, a reserved range where
 * devmodel has put the ACPI tables, and everything else from 1 MiB up. The map is the same for every boot
 * protocol; each loader only writes it down in its own format. :*/
int load_map_build(const struct load_target *t, struct load_map *map, struct host_err *err)
{
    uint64_t ram = t->ram->size;

    if (ram < LOAD_MIN_RAM)
        return host_fail(err, "%llu KiB of guest memory are too few: give at least --memory 4M",
                         (unsigned long long)(ram >> 10));
    *map = (struct load_map){.count = LOAD_MAP_MAX,
                             .range = {
                                 {0, LOAD_EBDA, LOAD_RAM},
                                 {LOAD_EBDA, LOAD_HOLE - LOAD_EBDA, LOAD_RESERVED},
                                 {LOAD_BIOS, LOAD_HIGH - LOAD_BIOS, LOAD_RESERVED},
                                 {LOAD_HIGH, ram - LOAD_HIGH, LOAD_RAM},
                             }};
    return 0;
}

uint8_t *load_map_at(const struct load_target *t, const struct load_map *map, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct load_range *r = &map->range[i];

        /* Subtractions only: gpa + size may overflow, r->base + r->size cannot. */
        if (r->type == LOAD_RAM && gpa >= r->base && gpa - r->base <= r->size &&
            size <= r->size - (gpa - r->base))
            return t->ram->base + gpa;
    }
    return NULL;
}

void load_map_bda(const struct load_target *t)
{
    le_put16(t->ram->base + 0x40e, LOAD_EBDA >> 4);
    le_put16(t->ram->base + 0x413, LOAD_EBDA >> 10);
}

void load_map_gdt(const struct load_target *t, const struct load_map *map, uint32_t gpa, uint16_t cs,
                  uint16_t ds)
{
    /* Base 0, limit 4 GiB, present, ring 0, accessed (SDM vol. 3 3.4.5). */
    const uint64_t code = UINT64_C(0x00cf9b000000ffff), data = UINT64_C(0x00cf93000000ffff);
    uint8_t *gdt = load_map_at(t, map, gpa, LOAD_GDT_SIZE);

    assert(gdt && cs + 8u <= LOAD_GDT_SIZE && ds + 8u <= LOAD_GDT_SIZE);
    memset(gdt, 0, LOAD_GDT_SIZE);
    le_put64(gdt + cs, code);
    le_put64(gdt + ds, data);
}
