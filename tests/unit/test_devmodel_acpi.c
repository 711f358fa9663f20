/* Unit test of devmodel's ACPI tables as a guest finds them. Offsets: ACPI 3.0 sections 5.2.5 to 5.2.11,
 * chapter 19. */
#define _GNU_SOURCE
#include "test_devmodel_rig.h"

#include <libgen.h>
#include <stdio.h>
#include <unistd.h>

static uint32_t get32(const uint8_t *p)
{
    return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static unsigned get16(const uint8_t *p)
{
    return p[0] | p[1] << 8;
}

static void assert_sums_to_zero(const uint8_t *p, unsigned n)
{
    uint8_t sum = 0;
    for (unsigned i = 0; i < n; i++)
        sum += p[i];
    assert_int_equal(sum, 0);
}

/* As Linux looks: every 16 bytes of E0000h-FFFFFh. */
static const uint8_t *find_rsdp(struct rig *r)
{
    for (uint32_t at = 0xe0000; at < 0x100000; at += 16)
        if (!memcmp(r->ram.base + at, "RSD PTR ", 8))
            return r->ram.base + at;
    fail_msg("no RSDP");
    return NULL;
}

static const uint8_t *table_at(struct rig *r, uint32_t gpa, const char *signature)
{
    uint64_t base, size, rsdp;
    dev_board_acpi_range(r->board, &base, &size, &rsdp);
    assert_in_range(gpa, base, base + size - 36);
    const uint8_t *p = r->ram.base + gpa;
    assert_memory_equal(p, signature, 4);
    assert_in_range(get32(p + 4), 36, base + size - gpa);
    if (memcmp(signature, "FACS", 4))
        assert_sums_to_zero(p, get32(p + 4));
    return p;
}

static const uint8_t *fadt(struct rig *r)
{
    const uint8_t *rsdt = table_at(r, get32(find_rsdp(r) + 16), "RSDT");
    assert_int_equal(get32(rsdt + 4), 40); /* one entry */
    return table_at(r, get32(rsdt + 36), "FACP");
}

static void test_rsdp(void **state)
{
    struct rig *r = *state;
    const uint8_t *p = find_rsdp(r);
    assert_sums_to_zero(p, 20);
    assert_int_equal(p[15], 0);
    uint64_t base, size, rsdp;
    dev_board_acpi_range(r->board, &base, &size, &rsdp);
    assert_ptr_equal(p, r->ram.base + rsdp);
    assert_in_range(base + size, base, 0x100000);
}

static void test_fadt(void **state)
{
    struct rig *r = *state;
    const uint8_t *p = fadt(r);
    assert_int_equal(get32(p + 4), 244);
    assert_int_equal(p[8], 3);
    const uint8_t *facs = table_at(r, get32(p + 36), "FACS");
    assert_int_equal(get32(facs + 4), 64);
    assert_int_equal(get32(p + 36) % 64, 0);
    assert_int_equal(get16(p + 46), 9); /* SCI */
    assert_int_equal(get32(p + 48), 0); /* no SMI command port: always in ACPI mode */
    assert_int_equal(p[88], 4);         /* lengths */
    assert_int_equal(p[89], 2);
    assert_int_equal(p[91], 4);
    assert_int_equal(p[108], 0x32); /* century in CMOS */
    assert_int_equal(get16(p + 109) & 3, 3);
    assert_int_equal(get32(p + 112) & 0x511,
                     0x511); /* WBINVD, no power button, 32-bit timer, reset register */
    assert_int_equal(get32(p + 40), get32(p + 140));
}

/* The registers the FADT names behave as such. */
static void test_fadt_names_working_registers(void **state)
{
    struct rig *r = *state;
    const uint8_t *p = fadt(r);
    static const struct {
        unsigned old, gas, bits;
    } rows[] = {{56, 148, 32}, {64, 172, 16}, {76, 208, 32}};
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(p[rows[i].gas], 1); /* system I/O */
        assert_int_equal(p[rows[i].gas + 1], rows[i].bits);
        assert_int_equal(get32(p + rows[i].gas + 4), get32(p + rows[i].old));
    }
    rig_pass(r, SEC);
    assert_int_equal(dev_bus_in(r->bus, (uint16_t)get32(p + 76), 4), 3579545);
    assert_int_equal(p[116], 1);
    outb(r, (uint16_t)get32(p + 120), p[128]); /* RESET_REG, RESET_VALUE */
    assert_int_equal(r->events, 1);
    assert_int_equal(r->event, DEV_RESET);

    /* \_S5 in the DSDT: NameOp, name, PackageOp, length, 4 elements, BytePrefix type. Linux writes it like
     * this. */
    const uint8_t *dsdt = table_at(r, get32(p + 40), "DSDT");
    static const uint8_t s5[] = {0x08, '_', 'S', '5', '_', 0x12};
    const uint8_t *found = memmem(dsdt, get32(dsdt + 4), s5, sizeof s5);
    assert_non_null(found);
    assert_int_equal(found[7], 4);
    assert_int_equal(found[8], 0x0a);
    uint16_t control = (uint16_t)get32(p + 64);
    dev_bus_out(r->bus, control, 2, (uint32_t)found[9] << 10);
    dev_bus_out(r->bus, control, 2, (uint32_t)found[9] << 10 | 1 << 13);
    assert_int_equal(r->events, 2);
    assert_int_equal(r->event, DEV_POWER_OFF);
}

static const uint8_t *serial_count_byte(struct rig *r)
{
    const uint8_t *dsdt = table_at(r, get32(fadt(r) + 40), "DSDT");
    const uint8_t *name = memmem(dsdt, get32(dsdt + 4), "SERN\x0a", 5);
    assert_non_null(name);
    return name + 5;
}

static void test_dsdt(void **state)
{
    struct rig *r = *state;
    const uint8_t *dsdt = table_at(r, get32(fadt(r) + 40), "DSDT");
    static const uint8_t host_bridge[] = {0x41, 0xd0, 0x0a, 0x03},
                         uart[] = {0x41, 0xd0, 0x05, 0x01}; /* EISA ids */
    assert_non_null(memmem(dsdt, get32(dsdt + 4), host_bridge, 4));
    assert_non_null(memmem(dsdt, get32(dsdt + 4), uart, 4));
    assert_int_equal(*serial_count_byte(r), 4);
}

/* A guest scribbles over the BIOS area; reset brings it back. */
static void test_reset_rewrites(void **state)
{
    struct rig *r = *state;
    memset(r->ram.base + 0xe0000, 0xcc, 0x20000);
    dev_board_reset(r->board);
    fadt(r);
    assert_int_equal(r->ram.base[0xfffff], 0);
}

static void test_serial_count(void **state)
{
    (void)state;
    struct rig r;
    rig_host(&r, 2 << 20);
    struct dev_board_config cfg = rig_config(&r);
    cfg.serial_count = 2;
    rig_board(&r, &cfg);
    assert_int_equal(*serial_count_byte(&r), 2);
    rig_finish(&r);
}

/* dsdt.h is dsdt.asl: where iasl is installed, compile the source again and compare all but the header. */
static void test_dsdt_is_its_source(void **state)
{
    struct rig *r = *state;
    char here[] = __FILE__, source[4096], dir[] = "/tmp/ringlet-dsdt-XXXXXX", command[8192], aml[64];
    snprintf(source, sizeof source, "%s/../../devmodel/dsdt.asl", dirname(here));
    if (system("command -v iasl >/dev/null 2>&1") || access(source, R_OK))
        skip();
    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof command, "iasl -p %s/dsdt '%s' >/dev/null 2>&1", dir, source);
    assert_int_equal(system(command), 0);
    snprintf(aml, sizeof aml, "%s/dsdt.aml", dir);
    FILE *f = fopen(aml, "rb");
    assert_non_null(f);
    uint8_t bytes[8192];
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    unlink(aml);
    rmdir(dir);
    const uint8_t *dsdt = table_at(r, get32(fadt(r) + 40), "DSDT");
    assert_int_equal(n, get32(dsdt + 4));
    assert_memory_equal(bytes + 36, dsdt + 36, n - 36);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
    const struct CMUnitTest tests[] = {
        T(test_rsdp),
        T(test_fadt),
        T(test_fadt_names_working_registers),
        T(test_dsdt),
        T(test_reset_rewrites),
        cmocka_unit_test(test_serial_count),
        T(test_dsdt_is_its_source),
    };
    return cmocka_run_group_tests_name("devmodel: ACPI tables", tests, NULL, NULL);
}
