/*
 * load_map: what both loaders know of the machine's memory: the map a BIOS would report, the one checked door
 * through which loaders write guest RAM, and the few low-memory structures a boot protocol promises.
 */
#ifndef MONITOR_LOAD_MAP_H
#define MONITOR_LOAD_MAP_H

#include <stdbool.h>
#include "monitor/monitor.h"

enum { /* types of INT 15h E820h (ACPI specification, table 15-5) */
       LOAD_RAM = 1,
       LOAD_RESERVED = 2,
};
struct load_range {
    uint64_t base, size;
    uint32_t type;
};
#define LOAD_MAP_MAX 4
struct load_map {
    unsigned count;
    struct load_range range[LOAD_MAP_MAX];
};

enum {
    LOAD_EBDA = 0x9fc00,     /* end of conventional memory: 639 KiB */
    LOAD_HOLE = 0xa0000,     /* VGA and option ROMs: not RAM */
    LOAD_BIOS = 0xe0000,     /* ACPI tables live here */
    LOAD_HIGH = 0x100000,    /* memory above 1 MiB */
    LOAD_MIN_RAM = 0x200000, /* less than 2 MiB is no machine for either protocol */
};

/* Fills map, lowest address first. Fails when RAM is smaller than LOAD_MIN_RAM. */
int load_map_build(const struct load_target *t, struct load_map *map, struct host_err *err);
/* Host address of guest physical [gpa, gpa+size) when the whole range is RAM that a loader may use; else
 * NULL. */
uint8_t *load_map_at(const struct load_target *t, const struct load_map *map, uint64_t gpa, uint64_t size);
/* BIOS data area words that kernels read even without a BIOS: EBDA segment and size of conventional memory.
 */
void load_map_bda(const struct load_target *t);
/* A GDT at gpa (LOAD_GDT_SIZE bytes, inside usable RAM) with a flat code segment at selector cs and a flat
 * data segment at ds, both multiples of 8 from 8 to 0x20. */
#define LOAD_GDT_SIZE 40u
void load_map_gdt(const struct load_target *t, const struct load_map *map, uint32_t gpa, uint16_t cs,
                  uint16_t ds);

/* For messages: "512 MiB" reads better than 536870912. Rounded up, so that "needs" is never too small. */
static inline uint64_t load_mib(uint64_t bytes)
{
    return (bytes >> 20) + ((bytes & 0xfffff) != 0);
}

#endif
