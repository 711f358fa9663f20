/* Power-off the way an ACPI system does it: RSDP, RSDT, FADT, then the \_S5 package in the DSDT. ACPI 6.4
 * sections 5.2.5 (finding the RSDP), 5.2.9 (FADT), 7.4.2.6 (\_S5), 4.8.3.2.1 (PM1 control). */
#include "tour.h"

enum {
    SCAN_FROM = 0xe0000,
    SCAN_TO = 0x100000,
    RSDP_RSDT = 16,
    TABLE_LENGTH = 4,
    TABLE_HEADER = 36,
    FADT_DSDT = 40,
    FADT_PM1A_CONTROL = 64,
    SLP_TYP_SHIFT = 10,
    SLP_EN = 1 << 13,
    AML_BYTE = 0x0a,
    AML_PACKAGE = 0x12,
};

static u32 word_at(u32 address)
{
    return *(volatile u32 *)address;
}

static bool named(u32 address, const char *name)
{
    for (unsigned i = 0; name[i]; i++)
        if (((volatile u8 *)address)[i] != (u8)name[i])
            return false;
    return true;
}

static u32 find_table(const char *name)
{
    for (u32 a = SCAN_FROM; a < SCAN_TO; a += 16) {
        if (!named(a, "RSD PTR "))
            continue;
        u32 rsdt = word_at(a + RSDP_RSDT);
        for (u32 e = TABLE_HEADER; e + 4 <= word_at(rsdt + TABLE_LENGTH); e += 4)
            if (named(word_at(rsdt + e), name))
                return word_at(rsdt + e);
    }
    return 0;
}

/* The first element of the package that follows the name: an integer, with or without its prefix. */
static bool sleep_type(u32 dsdt, u16 *type)
{
    for (u32 a = dsdt + TABLE_HEADER, end = dsdt + word_at(dsdt + TABLE_LENGTH); a + 9 < end; a++) {
        const volatile u8 *p = (const volatile u8 *)a;
        if (!named(a, "_S5_") || p[4] != AML_PACKAGE)
            continue;
        p += 5;
        p += 1 + (*p >> 6) + 1; /* PkgLength, NumElements */
        *type = *p == AML_BYTE ? p[1] : *p;
        return true;
    }
    return false;
}

void power_off(void)
{
    u32 fadt = find_table("FACP");
    u16 type;
    if (!fadt || !sleep_type(word_at(fadt + FADT_DSDT), &type))
        return;
    port_out16(word_at(fadt + FADT_PM1A_CONTROL), type << SLP_TYP_SHIFT | SLP_EN);
    for (volatile u32 i = 0; i < 1000000; i++)
        ;
}
