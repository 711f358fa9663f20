/* Linux bzImage by the 32-bit boot protocol (Linux Documentation/arch/x86/boot.rst, zero-page.rst). */
#include <inttypes.h>
#include "le.h"
#include "load_map.h"

enum { /* offsets into the image's first sectors and, equally, into the zero page */
       BZ_SETUP_SECTS = 0x1f1,
       BZ_SYSSIZE = 0x1f4,
       BZ_VID_MODE = 0x1fa,
       BZ_BOOT_FLAG = 0x1fe,
       BZ_HEADER_END = 0x201, /* the header ends at 0x202 + this byte */
       BZ_MAGIC = 0x202,
       BZ_VERSION = 0x206,
       BZ_LOADER_TYPE = 0x210,
       BZ_LOADFLAGS = 0x211,
       BZ_CODE32_START = 0x214,
       BZ_RAMDISK_IMAGE = 0x218,
       BZ_RAMDISK_SIZE = 0x21c,
       BZ_CMD_LINE_PTR = 0x228,
       BZ_INITRD_ADDR_MAX = 0x22c,
       BZ_KERNEL_ALIGNMENT = 0x230,
       BZ_RELOCATABLE = 0x234,
       BZ_XLOADFLAGS = 0x236,
       BZ_CMDLINE_SIZE = 0x238,
       BZ_SETUP_DATA = 0x250,
       BZ_PREF_ADDRESS = 0x258,
       BZ_INIT_SIZE = 0x260,
};
enum { /* zero page only */
       ZP_ACPI_RSDP = 0x70,
       ZP_ALT_MEM_K = 0x1e0,
       ZP_E820_ENTRIES = 0x1e8,
       ZP_HEADER_LIMIT = 0x290, /* the next field after the longest possible setup header */
       ZP_E820_TABLE = 0x2d0,
       ZP_E820_SIZE = 20,
};
enum {
    BZ_LOADED_HIGH = 1,         /* loadflags */
    BZ_XLF_KERNEL_64 = 1,       /* xloadflags */
    BZ_LOADER_UNDEFINED = 0xff, /* type_of_loader: none with an assigned number */
    BZ_VID_NORMAL = 0xffff,
};
enum { /* where we put things; all below the EBDA, above what kernels use as early scratch */
       AT_ZERO_PAGE = 0x10000,
       AT_GDT = 0x11000,
       AT_CMDLINE = 0x20000,
       AT_CMDLINE_END = 0x90000,
       AT_KERNEL = LOAD_HIGH,
};
enum { BZ_CS = 0x10, BZ_DS = 0x18 }; /* __BOOT_CS, __BOOT_DS */

struct bz_image {
    const uint8_t *image;
    uint64_t size;
    uint16_t version;
    uint64_t setup_size, payload_size; /* file = setup, then the protected-mode code */
    uint64_t kernel_end;               /* first address the kernel does not use while it unpacks itself */
    uint32_t initrd_addr_max, cmdline_max;
};

static int bz_check_magic(const struct bz_image *bz, struct host_err *err)
{
    const uint8_t *p = bz->image;

    if (bz->size >= 2 && p[0] == 0x1f && p[1] == 0x8b)
        return host_fail(err, "the kernel image is gzip-compressed: unpack it with gunzip first");
    if (bz->size >= 4 && memcmp(p, "\177ELF", 4) == 0)
        return host_fail(err, "the kernel is an ELF file, not a bzImage: use --multiboot for a Multiboot "
                              "kernel, or give the bzImage (vmlinuz) instead of vmlinux");
    if (bz->size < 1024)
        return host_fail(err, "the kernel image is only %" PRIu64 " bytes long: truncated or not a bzImage",
                         bz->size);
    if (le_get16(p + BZ_BOOT_FLAG) != 0xaa55 || memcmp(p + BZ_MAGIC, "HdrS", 4) != 0)
        return host_fail(err,
                         "the kernel is not a bzImage: no Linux setup header (\"HdrS\") at offset 0x202");
    return 0;
}

/* Which protocol the image speaks, and whether it is one for a 32-bit machine. */
static int bz_check_version(struct bz_image *bz, struct host_err *err)
{
    const uint8_t *p = bz->image;

    bz->version = le_get16(p + BZ_VERSION);
    if (bz->version < 0x205)
        return host_fail(
            err, "the kernel speaks boot protocol %u.%02u; ringlet needs 2.05 (Linux 2.6.20) or newer",
            bz->version >> 8, bz->version & 0xff);
    if (!(p[BZ_LOADFLAGS] & BZ_LOADED_HIGH))
        return host_fail(err, "the kernel is a zImage that loads below 1 MiB; ringlet loads bzImage only");
    if (bz->version >= 0x20c && (le_get16(p + BZ_XLOADFLAGS) & BZ_XLF_KERNEL_64))
        return host_fail(err,
                         "the kernel is a 64-bit (x86-64) Linux; ringlet is a 32-bit machine: use an i386 "
                         "kernel such as Debian's linux-image-686-pae");
    return 0;
}

static int bz_measure(struct bz_image *bz, struct host_err *err)
{
    const uint8_t *p = bz->image;
    unsigned sectors = p[BZ_SETUP_SECTS] ? p[BZ_SETUP_SECTS] : 4; /* 0 means 4, for old images' sake */
    uint64_t want = (uint64_t)le_get32(p + BZ_SYSSIZE) * 16;

    bz->setup_size = (sectors + 1) * UINT64_C(512);
    if (bz->size <= bz->setup_size || bz->size - bz->setup_size < want)
        return host_fail(
            err, "the kernel image is truncated: it is %" PRIu64 " bytes long, its header says %" PRIu64,
            bz->size, bz->setup_size + want);
    bz->payload_size = bz->size - bz->setup_size;
    bz->initrd_addr_max = le_get32(p + BZ_INITRD_ADDR_MAX);
    bz->cmdline_max = bz->version >= 0x206 ? le_get32(p + BZ_CMDLINE_SIZE) : 255;
    return 0;
}

/* The payload is a decompressor: besides the bytes we load it needs init_size bytes from where the kernel
 * will run (protocol 2.10), which for a relocatable kernel loaded lower is its preferred address. */
static int bz_place_kernel(struct bz_image *bz, const struct load_target *t, struct host_err *err)
{
    const uint8_t *p = bz->image;
    uint64_t ram = t->ram->size, end = AT_KERNEL + bz->payload_size;

    if (bz->version >= 0x20a) {
        uint64_t run = le_get64(p + BZ_PREF_ADDRESS), align = le_get32(p + BZ_KERNEL_ALIGNMENT);
        uint64_t need = le_get32(p + BZ_INIT_SIZE);

        if (align == 0 || (align & (align - 1)) != 0 || run > UINT32_MAX)
            return host_fail(err,
                             "the kernel's setup header is corrupt: alignment 0x%" PRIx64
                             ", preferred address 0x%" PRIx64,
                             align, run);
        if (p[BZ_RELOCATABLE] && run < AT_KERNEL)
            run = AT_KERNEL;
        if (p[BZ_RELOCATABLE])
            run = (run + align - 1) & ~(align - 1);
        if (run + need > end)
            end = run + need;
    }
    if (end > ram)
        return host_fail(err,
                         "the kernel does not fit: it needs %" PRIu64 " MiB of memory to unpack itself, the "
                         "guest has %" PRIu64 " MiB (raise --memory)",
                         load_mib(end), ram >> 20);
    bz->kernel_end = end;
    return 0;
}

/* As high as the kernel's own limit and RAM allow: the kernel's early allocations grow from below. */
static int bz_place_initrd(const struct bz_image *bz, const struct load_target *t, uint64_t size,
                           uint32_t *address, struct host_err *err)
{
    uint64_t limit = (uint64_t)bz->initrd_addr_max + 1, place;

    *address = 0;
    if (size == 0)
        return 0;
    if (limit > t->ram->size)
        limit = t->ram->size;
    place = size <= limit ? (limit - size) & ~UINT64_C(4095) : 0;
    if (place < bz->kernel_end)
        return host_fail(err,
                         "the initrd (%" PRIu64 " MiB) does not fit: the kernel uses memory up to %" PRIu64
                         " MiB and takes an initrd up to %" PRIu64 " MiB only (raise --memory)",
                         load_mib(size), load_mib(bz->kernel_end), limit >> 20);
    *address = (uint32_t)place;
    return 0;
}

static int bz_check_cmdline(const struct bz_image *bz, size_t length, struct host_err *err)
{
    uint64_t max = AT_CMDLINE_END - AT_CMDLINE - 1;

    if (max > bz->cmdline_max)
        max = bz->cmdline_max;
    if (length > max)
        return host_fail(err, "the kernel command line is %zu characters long; this kernel takes %" PRIu64,
                         length, max);
    return 0;
}

static void bz_write_e820(uint8_t *zp, const struct load_map *map)
{
    for (unsigned i = 0; i < map->count; i++) {
        uint8_t *e = zp + ZP_E820_TABLE + i * ZP_E820_SIZE;

        le_put64(e, map->range[i].base);
        le_put64(e + 8, map->range[i].size);
        le_put32(e + 16, map->range[i].type);
    }
    zp[ZP_E820_ENTRIES] = (uint8_t)map->count;
}

/*T:220 The zero page
 * The real-mode half of a bzImage would ask the BIOS for everything and leave the answers in one page. The
 * 32-bit protocol skips that half: the loader writes the page itself, starting from the setup header as it
 * stands in the file, then enters the protected-mode half with ESI pointing at it. screen_info stays zero
 * because there is no display: with zero lines and columns the decompressor does not draw, and the kernel's
 * VGA probe finds nothing. :*/
static void bz_write_zero_page(const struct bz_image *bz, const struct load_target *t,
                               const struct load_map *map, uint32_t initrd, uint32_t initrd_size)
{
    uint8_t *zp = load_map_at(t, map, AT_ZERO_PAGE, HOST_PAGE);
    unsigned end = BZ_MAGIC + bz->image[BZ_HEADER_END];

    if (end > ZP_HEADER_LIMIT)
        end = ZP_HEADER_LIMIT;
    memset(zp, 0, HOST_PAGE);
    memcpy(zp + BZ_SETUP_SECTS, bz->image + BZ_SETUP_SECTS, end - BZ_SETUP_SECTS);
    zp[BZ_LOADER_TYPE] = BZ_LOADER_UNDEFINED;
    le_put16(zp + BZ_VID_MODE, BZ_VID_NORMAL);
    le_put32(zp + BZ_CODE32_START, AT_KERNEL);
    le_put32(zp + BZ_RAMDISK_IMAGE, initrd);
    le_put32(zp + BZ_RAMDISK_SIZE, initrd_size);
    le_put32(zp + BZ_CMD_LINE_PTR, AT_CMDLINE);
    if (end >= BZ_SETUP_DATA + 8)
        le_put64(zp + BZ_SETUP_DATA, 0);
    le_put32(zp + ZP_ALT_MEM_K, (uint32_t)((t->ram->size - LOAD_HIGH) >> 10));
    if (bz->version >= 0x20e)
        le_put64(zp + ZP_ACPI_RSDP, t->acpi_rsdp);
    bz_write_e820(zp, map);
}

int load_bzimage(const struct load_target *t, const void *image, size_t size, const void *initrd,
                 size_t initrd_size, const char *cmdline, struct load_entry *entry, struct host_err *err)
{
    struct bz_image bz = {.image = image, .size = size};
    const char *line = cmdline ? cmdline : "";
    struct load_map map;
    uint32_t initrd_at;

    if (load_map_build(t, &map, err) < 0 || bz_check_magic(&bz, err) < 0 || bz_check_version(&bz, err) < 0 ||
        bz_measure(&bz, err) < 0 || bz_place_kernel(&bz, t, err) < 0 ||
        bz_place_initrd(&bz, t, initrd_size, &initrd_at, err) < 0 ||
        bz_check_cmdline(&bz, strlen(line), err) < 0)
        return -1;
    load_map_bda(t);
    bz_write_zero_page(&bz, t, &map, initrd_at, (uint32_t)initrd_size);
    load_map_gdt(t, &map, AT_GDT, BZ_CS, BZ_DS);
    memcpy(load_map_at(t, &map, AT_CMDLINE, strlen(line) + 1), line, strlen(line) + 1);
    memcpy(load_map_at(t, &map, AT_KERNEL, bz.payload_size), bz.image + bz.setup_size, bz.payload_size);
    if (initrd_size)
        memcpy(load_map_at(t, &map, initrd_at, initrd_size), initrd, initrd_size);
    *entry = (struct load_entry){.eip = AT_KERNEL,
                                 .esi = AT_ZERO_PAGE,
                                 .cs = BZ_CS,
                                 .ds = BZ_DS,
                                 .gdt_base = AT_GDT,
                                 .gdt_limit = LOAD_GDT_SIZE - 1};
    return 0;
}
