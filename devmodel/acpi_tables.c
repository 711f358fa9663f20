/*
 * The ACPI tables, written into the BIOS area E0000h-FFFFFh as firmware would have: RSDP, RSDT, FADT, FACS,
 * DSDT. Offsets and flags: ACPI 3.0 sections 5.2.5 to 5.2.11. The DSDT's body is dsdt.asl, compiled.
 */
#define _GNU_SOURCE
#include <string.h>
#include "devices.h"
#include "dsdt.h"

/*T:640 How a guest finds the off switch
 *
 * "Power off" is no instruction and has no fixed port. A kernel searches the BIOS area for the eight
 * letters RSD PTR, follows pointers from there to the FADT, and learns three things: the port of a control
 * register (PM1a_CNT), that ACPI mode is on already because there is no SMI port to ask for it, and where
 * the DSDT is. The DSDT is byte code; evaluating its object \_S5 gives a number, 5 on this board. Writing
 * that number and the SLP_EN bit to the control register is what turns the machine off (acpi.c). Nothing of
 * it is special to virtual machines, so an unmodified kernel can switch us off as it does any PC.
 :*/

enum { RSDP_AT = 0x000, RSDT_AT = 0x040, FACS_AT = 0x080, FADT_AT = 0x100, DSDT_AT = 0x200 };
enum { HEADER = 36, RSDP_SIZE = 20, FACS_SIZE = 64, FADT_SIZE = 244 };

enum { BOOT_LEGACY_DEVICES = 0x01, BOOT_8042 = 0x02, BOOT_NO_MSI = 0x08 };
enum {
    FADT_WBINVD = 0x001,
    FADT_PROC_C1 = 0x004,
    FADT_NO_POWER_BUTTON = 0x010,
    FADT_NO_SLEEP_BUTTON = 0x020,
    FADT_NO_RTC_WAKE = 0x040,
    FADT_TIMER_32_BIT = 0x100,
    FADT_RESET_REGISTER = 0x400,
};
enum { NO_C2 = 0xffff, NO_C3 = 0xffff, CMOS_CENTURY = 0x32, RESET_PORT = 0xcf9, RESET_VALUE = 0x06 };

struct field {
    uint8_t offset, size;
    uint32_t value;
};

static const struct field fadt_fields[] = {
    {36, 4, ACPI_TABLES_BASE + FACS_AT}, /* FIRMWARE_CTRL */
    {40, 4, ACPI_TABLES_BASE + DSDT_AT}, /* DSDT */
    {46, 2, ACPI_SCI_IRQ},               /* SCI_INT */
    {56, 4, ACPI_PM1A_EVT},              /* PM1a_EVT_BLK */
    {64, 4, ACPI_PM1A_CNT},              /* PM1a_CNT_BLK */
    {76, 4, ACPI_PM_TMR},                /* PM_TMR_BLK */
    {88, 1, 4},                          /* PM1_EVT_LEN */
    {89, 1, 2},                          /* PM1_CNT_LEN */
    {91, 1, 4},                          /* PM_TMR_LEN */
    {96, 2, NO_C2},                      /* P_LVL2_LAT */
    {98, 2, NO_C3},                      /* P_LVL3_LAT */
    {108, 1, CMOS_CENTURY},              /* CENTURY */
    {109, 2, BOOT_LEGACY_DEVICES | BOOT_8042 | BOOT_NO_MSI},
    {112, 4,
     FADT_WBINVD | FADT_PROC_C1 | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON | FADT_NO_RTC_WAKE |
         FADT_TIMER_32_BIT | FADT_RESET_REGISTER},
    {128, 1, RESET_VALUE},
    {140, 4, ACPI_TABLES_BASE + DSDT_AT}, /* X_DSDT; X_FIRMWARE_CTRL stays 0: the 32-bit field counts */
};

/* Generic address structures: port, width in bits, access size (1 byte, 2 word, 3 dword). */
static const struct {
    uint8_t offset, width, access;
    uint16_t port;
} fadt_addresses[] = {
    {116, 8, 1, RESET_PORT},     /* RESET_REG */
    {148, 32, 2, ACPI_PM1A_EVT}, /* X_PM1a_EVT_BLK */
    {172, 16, 2, ACPI_PM1A_CNT}, /* X_PM1a_CNT_BLK */
    {208, 32, 3, ACPI_PM_TMR},   /* X_PM_TMR_BLK */
};

static void put(uint8_t *p, unsigned size, uint32_t v)
{
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* Makes the bytes of [p, p+n) sum up to 0. */
static void seal(uint8_t *p, unsigned n, unsigned checksum_at)
{
    uint8_t sum = 0;
    p[checksum_at] = 0;
    for (unsigned i = 0; i < n; i++)
        sum += p[i];
    p[checksum_at] = (uint8_t)-sum;
}

/* Description header, section 5.2.6; seals the table, so the body comes first. */
static void finish_table(uint8_t *p, const char *signature, unsigned size, unsigned revision)
{
    memcpy(p, signature, 4);
    put(p + 4, 4, size);
    p[8] = (uint8_t)revision;
    memcpy(p + 10, "RINGLTRINGLET ", 14); /* OEM id and OEM table id */
    put(p + 24, 4, 1);
    memcpy(p + 28, "RNGL", 4);
    put(p + 32, 4, 1);
    seal(p, size, 9);
}

static void write_fadt(uint8_t *p)
{
    for (unsigned i = 0; i < sizeof fadt_fields / sizeof *fadt_fields; i++)
        put(p + fadt_fields[i].offset, fadt_fields[i].size, fadt_fields[i].value);
    for (unsigned i = 0; i < sizeof fadt_addresses / sizeof *fadt_addresses; i++) {
        uint8_t *gas = p + fadt_addresses[i].offset;
        gas[0] = 1; /* system I/O */
        gas[1] = fadt_addresses[i].width;
        gas[3] = fadt_addresses[i].access;
        put(gas + 4, 4, fadt_addresses[i].port);
    }
    finish_table(p, "FACP", FADT_SIZE, 3);
}

static void write_facs(uint8_t *p)
{
    memcpy(p, "FACS", 4);
    put(p + 4, 4, FACS_SIZE);
    p[32] = 1; /* version */
}

/* Name (\SERN, n): the byte after the name and its BytePrefix. */
static int write_dsdt(uint8_t *p, unsigned serial_count, struct host_err *err)
{
    static const uint8_t name[] = {'S', 'E', 'R', 'N', 0x0a};
    uint8_t *body = p + HEADER;
    memcpy(body, dsdt_aml, sizeof dsdt_aml);
    uint8_t *found = memmem(body, sizeof dsdt_aml, name, sizeof name);
    if (!found)
        return host_fail(err, "dsdt.h does not contain \\SERN: compile dsdt.asl again");
    found[sizeof name] = (uint8_t)serial_count;
    finish_table(p, "DSDT", HEADER + sizeof dsdt_aml, 1);
    return 0;
}

static void write_rsdp(uint8_t *p)
{
    memcpy(p, "RSD PTR ", 8);
    memcpy(p + 9, "RINGLT", 6);
    put(p + 16, 4, ACPI_TABLES_BASE + RSDT_AT); /* revision 0: ACPI 1.0, no XSDT */
    seal(p, RSDP_SIZE, 8);
}

int acpi_tables_write(struct host_ram *ram, unsigned serial_count, struct host_err *err)
{
    if (ram->size < ACPI_TABLES_BASE + ACPI_TABLES_SIZE)
        return host_fail(err, "guest memory of %llu KiB is too small for a PC: give it at least 1 MiB",
                         (unsigned long long)ram->size / 1024);
    uint8_t *area = ram->base + ACPI_TABLES_BASE;
    memset(area, 0, ACPI_TABLES_SIZE);
    write_rsdp(area + RSDP_AT);
    put(area + RSDT_AT + HEADER, 4, ACPI_TABLES_BASE + FADT_AT);
    finish_table(area + RSDT_AT, "RSDT", HEADER + 4, 1);
    write_facs(area + FACS_AT);
    write_fadt(area + FADT_AT);
    return write_dsdt(area + DSDT_AT, serial_count, err);
}
