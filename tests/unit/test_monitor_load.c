/* Unit test of the module monitor: the loaders, on images built by hand. Expected addresses are worked out
 * from the boot protocols' texts (Linux boot.rst and zero-page.rst, Multiboot 0.6.96). */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "monitor/monitor.h"
#include "../../monitor/image.h"
#include "../../monitor/le.h"

#define MIB (UINT64_C(1) << 20)
enum { RAM_MIB = 16, IMAGE_SIZE = 64 * 1024 };

struct fixture {
    struct host_ram ram;
    struct load_target target;
    struct load_entry entry;
    struct host_err err;
    uint8_t *image; /* exactly size bytes on the heap, so that a sanitizer sees each byte read too many */
    size_t size;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(host_ram_init(&f->ram, RAM_MIB * MIB, &f->err), 0);
    f->target = (struct load_target){&f->ram, 0xe0000, 0x1000, 0xe0010};
    f->size = IMAGE_SIZE;
    f->image = calloc(1, f->size);
    assert_non_null(f->image);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    host_ram_finish(&f->ram);
    free(f->image);
    free(f);
    return 0;
}

static void truncate_image(struct fixture *f, size_t size)
{
    uint8_t *smaller = malloc(size ? size : 1);

    assert_non_null(smaller);
    memcpy(smaller, f->image, size);
    free(f->image);
    f->image = smaller;
    f->size = size;
}

static uint32_t ram32(const struct fixture *f, uint32_t at)
{
    return le_get32(f->ram.base + at);
}

static uint64_t ram64(const struct fixture *f, uint32_t at)
{
    return le_get64(f->ram.base + at);
}

static void assert_says(const struct fixture *f, const char *part)
{
    if (!strstr(f->err.text, part))
        fail_msg("message \"%s\" does not mention \"%s\"", f->err.text, part);
}

/* ---- bzImage ---- */

/* One setup sector, payload from 1024 on: every byte of it is its offset's low 7 bits + 1. */
static void build_bz(struct fixture *f)
{
    uint8_t *p = f->image;

    p[0x1f1] = 1;
    le_put32(p + 0x1f4, (IMAGE_SIZE - 1024) / 16);
    le_put16(p + 0x1fe, 0xaa55);
    p[0x200] = 0xeb;
    p[0x201] = 0x6a; /* header ends at 0x26c, as in Linux 6.1 */
    memcpy(p + 0x202, "HdrS", 4);
    le_put16(p + 0x206, 0x20f);
    p[0x211] = 1; /* LOADED_HIGH */
    le_put32(p + 0x214, 0x100000);
    le_put32(p + 0x22c, 0x37ffffff);
    le_put32(p + 0x230, 0x200000);
    p[0x234] = 1;
    le_put32(p + 0x238, 2047);
    le_put64(p + 0x250, 0x1234); /* setup_data of the image must not survive */
    le_put64(p + 0x258, 0x400000);
    le_put32(p + 0x260, 0x300000); /* so the kernel needs memory up to 7 MiB */
    for (unsigned i = 1024; i < IMAGE_SIZE; i++)
        p[i] = (uint8_t)((i & 0x7f) + 1);
}

static int try_bz(struct fixture *f, const void *initrd, size_t initrd_size, const char *line)
{
    f->err.text[0] = 0;
    return load_bzimage(&f->target, f->image, f->size, initrd, initrd_size, line, &f->entry, &f->err);
}

static void refuses_bz(struct fixture *f, const char *part)
{
    assert_int_equal(try_bz(f, NULL, 0, "x"), -1);
    assert_says(f, part);
}

static void bz_entry_state(void **state)
{
    struct fixture *f = *state;
    uint32_t zp, cmdline;

    build_bz(f);
    assert_int_equal(try_bz(f, NULL, 0, "console=ttyS0"), 0);
    assert_int_equal(f->entry.eip, 0x100000);
    assert_int_equal(f->entry.cs, 0x10); /* boot.rst, 32-bit boot protocol: __BOOT_CS, __BOOT_DS */
    assert_int_equal(f->entry.ds, 0x18);
    assert_int_equal(f->entry.ebx, 0);
    assert_int_equal(ram64(f, f->entry.gdt_base + 0x10), UINT64_C(0x00cf9b000000ffff));
    assert_int_equal(ram64(f, f->entry.gdt_base + 0x18), UINT64_C(0x00cf93000000ffff));
    assert_true(f->entry.gdt_limit >= 0x1f);
    assert_memory_equal(f->ram.base + 0x100000, f->image + 1024, IMAGE_SIZE - 1024);
    zp = f->entry.esi;
    cmdline = ram32(f, zp + 0x228);
    assert_string_equal((char *)f->ram.base + cmdline, "console=ttyS0");
    assert_int_equal(f->ram.base[zp + 0x210], 0xff);
    assert_int_equal(ram32(f, zp + 0x214), 0x100000);
    assert_int_equal(ram64(f, zp + 0x250), 0);
    assert_int_equal(ram64(f, zp + 0x258), 0x400000); /* copied from the header */
    assert_int_equal(ram64(f, zp + 0x70), 0xe0010);
    assert_int_equal(f->ram.base[zp + 0x1ef], 0); /* sentinel */
    assert_int_equal(ram32(f, zp + 0x218), 0);
    assert_int_equal(ram32(f, zp + 0x21c), 0);
}

static void bz_e820(void **state)
{
    static const struct {
        uint64_t base, size;
        uint32_t type;
    } want[] = {
        {0, 0x9fc00, 1}, {0x9fc00, 0x400, 2}, {0xe0000, 0x20000, 2}, {0x100000, (RAM_MIB - 1) * MIB, 1}};
    struct fixture *f = *state;
    uint32_t zp;

    build_bz(f);
    assert_int_equal(try_bz(f, NULL, 0, ""), 0);
    zp = f->entry.esi;
    assert_int_equal(f->ram.base[zp + 0x1e8], 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(ram64(f, zp + 0x2d0 + 20 * i), want[i].base);
        assert_int_equal(ram64(f, zp + 0x2d0 + 20 * i + 8), want[i].size);
        assert_int_equal(ram32(f, zp + 0x2d0 + 20 * i + 16), want[i].type);
    }
}

static void bz_initrd_high(void **state)
{
    struct fixture *f = *state;
    uint8_t initrd[5000];

    memset(initrd, 0x5a, sizeof(initrd));
    build_bz(f);
    assert_int_equal(try_bz(f, initrd, sizeof(initrd), ""), 0);
    /* 0x1000000 - 5000 = 0xffec78, down to a page */
    assert_int_equal(ram32(f, f->entry.esi + 0x218), 0xffe000);
    assert_int_equal(ram32(f, f->entry.esi + 0x21c), 5000);
    assert_memory_equal(f->ram.base + 0xffe000, initrd, sizeof(initrd));
    le_put32(f->image + 0x22c, 0x8fffff); /* initrd_addr_max: highest byte it may use */
    assert_int_equal(try_bz(f, initrd, sizeof(initrd), ""), 0);
    assert_int_equal(ram32(f, f->entry.esi + 0x218), 0x8fe000);
}

static void bz_initrd_limits(void **state)
{
    struct fixture *f = *state;
    uint8_t *initrd = calloc(1, 10 * MIB);

    assert_non_null(initrd);
    build_bz(f);
    assert_int_equal(try_bz(f, initrd, 9 * MIB, ""), 0); /* 7..16 MiB exactly */
    assert_int_equal(ram32(f, f->entry.esi + 0x218), 7 * MIB);
    assert_int_equal(try_bz(f, initrd, 9 * MIB + 1, ""), -1);
    assert_says(f, "initrd");
    le_put32(f->image + 0x22c, 0x1000); /* absurd: all below the kernel */
    assert_int_equal(try_bz(f, initrd, 0x800, ""), -1);
    assert_int_equal(try_bz(f, initrd, 0x8000, ""), -1);
    free(initrd);
}

static void bz_bad_files(void **state)
{
    struct fixture *f = *state;

    memcpy(f->image, "\x1f\x8b", 2);
    refuses_bz(f, "gzip");
    memcpy(f->image, "\177ELF", 4);
    refuses_bz(f, "ELF");
    memset(f->image, 0, 4);
    refuses_bz(f, "not a bzImage");
    build_bz(f);
    f->image[0x202] = 'h';
    refuses_bz(f, "not a bzImage");
    build_bz(f);
    le_put16(f->image + 0x206, 0x204);
    refuses_bz(f, "2.04");
    build_bz(f);
    f->image[0x211] = 0;
    refuses_bz(f, "zImage");
    build_bz(f);
    le_put16(f->image + 0x236, 1);
    refuses_bz(f, "64-bit");
}

static void bz_truncated(void **state)
{
    static const size_t sizes[] = {IMAGE_SIZE - 1, 1025, 1024, 1023, 0x210, 3, 0};
    struct fixture *f = *state;

    build_bz(f);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        truncate_image(f, sizes[i]);
        refuses_bz(f, sizes[i] >= 1024 ? "truncated" : "");
    }
}

static void bz_sizes(void **state)
{
    struct fixture *f = *state;
    char line[2049];

    build_bz(f);
    le_put32(f->image + 0x260, 0xc00000); /* 4 + 12 = 16 MiB: just fits */
    assert_int_equal(try_bz(f, NULL, 0, ""), 0);
    le_put32(f->image + 0x260, 0xc00001);
    refuses_bz(f, "does not fit");
    le_put32(f->image + 0x260, 0xffffffff);
    le_put64(f->image + 0x258, UINT64_MAX - 5);
    refuses_bz(f, "corrupt");
    build_bz(f);
    le_put32(f->image + 0x230, 3);
    refuses_bz(f, "corrupt");
    build_bz(f);
    le_put32(f->image + 0x1f4, 0xffffffff);
    refuses_bz(f, "truncated");
    build_bz(f);
    memset(line, 'a', sizeof(line));
    line[2048] = 0;
    assert_int_equal(try_bz(f, NULL, 0, line), -1);
    assert_says(f, "command line");
    line[2047] = 0;
    assert_int_equal(try_bz(f, NULL, 0, line), 0);
}

static void bz_small_machine(void **state)
{
    struct fixture *f = *state;

    build_bz(f);
    f->ram.size = MIB;
    refuses_bz(f, "too few");
    f->ram.size = 6 * MIB;
    refuses_bz(f, "needs 7 MiB");
    f->ram.size = RAM_MIB * MIB;
}

/* ---- Multiboot ---- */

enum { MB_AT = 0x100, CODE_AT = 0x1000 };

static void put_mb_header(struct fixture *f, uint32_t flags)
{
    le_put32(f->image + MB_AT, 0x1badb002);
    le_put32(f->image + MB_AT + 4, flags);
    le_put32(f->image + MB_AT + 8, 0u - 0x1badb002 - flags);
}

static Elf32_Phdr *phdr(struct fixture *f, unsigned i)
{
    return (Elf32_Phdr *)(f->image + sizeof(Elf32_Ehdr)) + i;
}

/* A higher-half kernel: linked at C0200000, loaded at 200000, entry given virtually; and a data segment with
 * bss. */
static void build_elf(struct fixture *f)
{
    Elf32_Ehdr *eh = (Elf32_Ehdr *)f->image;

    memset(f->image, 0, CODE_AT);
    *eh = (Elf32_Ehdr){.e_type = ET_EXEC,
                       .e_machine = EM_386,
                       .e_version = EV_CURRENT,
                       .e_entry = 0xc0200010,
                       .e_phoff = sizeof(Elf32_Ehdr),
                       .e_ehsize = sizeof(Elf32_Ehdr),
                       .e_phentsize = sizeof(Elf32_Phdr),
                       .e_phnum = 2,
                       .e_shentsize = sizeof(Elf32_Shdr)};
    memcpy(eh->e_ident, ELFMAG, SELFMAG);
    eh->e_ident[EI_CLASS] = ELFCLASS32;
    eh->e_ident[EI_DATA] = ELFDATA2LSB;
    eh->e_ident[EI_VERSION] = EV_CURRENT;
    *phdr(f, 0) = (Elf32_Phdr){.p_type = PT_LOAD,
                               .p_offset = CODE_AT,
                               .p_vaddr = 0xc0200000,
                               .p_paddr = 0x200000,
                               .p_filesz = 0x2000,
                               .p_memsz = 0x2000,
                               .p_flags = PF_R | PF_X};
    *phdr(f, 1) = (Elf32_Phdr){.p_type = PT_LOAD,
                               .p_offset = CODE_AT + 0x2000,
                               .p_vaddr = 0xc0300000,
                               .p_paddr = 0x300000,
                               .p_filesz = 0x10,
                               .p_memsz = 0x1234,
                               .p_flags = PF_R | PF_W};
    for (unsigned i = CODE_AT; i < IMAGE_SIZE; i++)
        f->image[i] = (uint8_t)(i * 7 + 1);
    put_mb_header(f, 3);
}

static int try_mb(struct fixture *f, const struct load_module *m, unsigned n)
{
    f->err.text[0] = 0;
    return load_multiboot(&f->target, f->image, f->size, "kernel args", m, n, &f->entry, &f->err);
}

static void refuses_mb(struct fixture *f, const char *part)
{
    assert_int_equal(try_mb(f, NULL, 0), -1);
    assert_says(f, part);
}

static void mb_segments_and_entry(void **state)
{
    struct fixture *f = *state;

    build_elf(f);
    memset(f->ram.base + 0x300000, 0xee, 0x2000);
    assert_int_equal(try_mb(f, NULL, 0), 0);
    assert_int_equal(f->entry.eip, 0x200010); /* virtual entry, moved with its segment */
    assert_int_equal(f->entry.eax, 0x2badb002);
    assert_memory_equal(f->ram.base + 0x200000, f->image + CODE_AT, 0x2000);
    assert_memory_equal(f->ram.base + 0x300000, f->image + CODE_AT + 0x2000, 0x10);
    for (unsigned i = 0x10; i < 0x1234; i++)
        assert_int_equal(f->ram.base[0x300000 + i], 0);
    assert_int_equal(f->ram.base[0x301234], 0xee);
    assert_int_equal(ram64(f, f->entry.gdt_base + f->entry.cs), UINT64_C(0x00cf9b000000ffff));
    assert_int_equal(ram64(f, f->entry.gdt_base + f->entry.ds), UINT64_C(0x00cf93000000ffff));
}

static void mb_physical_entry(void **state)
{
    struct fixture *f = *state;

    build_elf(f);
    ((Elf32_Ehdr *)f->image)->e_entry = 0x200010;
    assert_int_equal(try_mb(f, NULL, 0), 0);
    assert_int_equal(f->entry.eip, 0x200010);
    ((Elf32_Ehdr *)f->image)->e_entry = 0xc0300004; /* virtual, but that segment is not executable */
    refuses_mb(f, "entry point 0xc0300004");
    ((Elf32_Ehdr *)f->image)->e_entry = 0x202000; /* one past the end */
    refuses_mb(f, "entry point");
}

static void mb_info(void **state)
{
    struct fixture *f = *state;
    uint32_t mi;

    build_elf(f);
    assert_int_equal(try_mb(f, NULL, 0), 0);
    mi = f->entry.ebx;
    assert_int_equal(ram32(f, mi) & 0x24d, 0x24d);        /* memory, cmdline, modules, mmap, loader name */
    assert_int_equal(ram32(f, mi) & ~UINT32_C(0x24d), 0); /* and nothing it does not have */
    assert_int_equal(ram32(f, mi + 4), 639);
    assert_int_equal(ram32(f, mi + 8), (RAM_MIB - 1) * 1024);
    assert_string_equal((char *)f->ram.base + ram32(f, mi + 16), "kernel args");
    assert_int_equal(ram32(f, mi + 20), 0);
    assert_int_equal(ram32(f, mi + 44), 4 * 24);
    uint32_t map = ram32(f, mi + 48);
    assert_int_equal(ram32(f, map), 20);
    assert_int_equal(ram64(f, map + 4), 0);
    assert_int_equal(ram64(f, map + 12), 0x9fc00);
    assert_int_equal(ram32(f, map + 20), 1);
    assert_int_equal(ram64(f, map + 3 * 24 + 4), 0x100000);
    assert_int_equal(ram64(f, map + 3 * 24 + 12), (RAM_MIB - 1) * MIB);
    assert_true(ram32(f, mi + 64) != 0);
}

static void mb_modules(void **state)
{
    struct fixture *f = *state;
    static const char one[] = "first module", two[] = "second";
    struct load_module m[] = {{one, sizeof(one), "one a b"}, {two, sizeof(two), NULL}};
    uint32_t mods;

    build_elf(f);
    assert_int_equal(try_mb(f, m, 2), 0);
    assert_int_equal(ram32(f, f->entry.ebx + 20), 2);
    mods = ram32(f, f->entry.ebx + 24);
    assert_int_equal(ram32(f, mods), 0x302000); /* the kernel ends at 0x301234 */
    assert_int_equal(ram32(f, mods + 4), 0x302000 + sizeof(one));
    assert_string_equal((char *)f->ram.base + ram32(f, mods + 8), "one a b");
    assert_int_equal(ram32(f, mods + 16), 0x303000);
    assert_string_equal((char *)f->ram.base + ram32(f, mods + 24), "");
    assert_string_equal((char *)f->ram.base + 0x302000, one);
    assert_string_equal((char *)f->ram.base + 0x303000, two);
}

static void mb_module_too_large(void **state)
{
    struct fixture *f = *state;
    uint8_t *big = calloc(1, RAM_MIB * MIB);
    struct load_module m = {big, RAM_MIB * MIB - 0x302000, "big"};

    assert_non_null(big);
    build_elf(f);
    assert_int_equal(try_mb(f, &m, 1), 0); /* exactly to the end of memory */
    m.size++;
    assert_int_equal(try_mb(f, &m, 1), -1);
    assert_says(f, "module 1");
    free(big);
}

static void mb_kludge(void **state)
{
    struct fixture *f = *state;
    uint8_t *p = f->image + MB_AT;

    for (unsigned i = 0; i < IMAGE_SIZE; i++)
        f->image[i] = (uint8_t)(i * 5 + 3);
    put_mb_header(f, 0x10000);
    le_put32(p + 12, 0x100000 + MB_AT - 0x80); /* load from file offset 0x80 */
    le_put32(p + 16, 0x100000);
    le_put32(p + 20, 0x101000);
    le_put32(p + 24, 0x102000);
    le_put32(p + 28, 0x100004);
    memset(f->ram.base + 0x100000, 0xee, 0x3000);
    assert_int_equal(try_mb(f, NULL, 0), 0);
    assert_int_equal(f->entry.eip, 0x100004);
    assert_memory_equal(f->ram.base + 0x100000, f->image + 0x80, 0x1000);
    assert_int_equal(f->ram.base[0x101000], 0);
    assert_int_equal(f->ram.base[0x101fff], 0);
    assert_int_equal(f->ram.base[0x102000], 0xee);
    le_put32(p + 20, 0); /* whole file, no bss */
    le_put32(p + 24, 0);
    assert_int_equal(try_mb(f, NULL, 0), 0);
    assert_memory_equal(f->ram.base + 0x100000, f->image + 0x80, IMAGE_SIZE - 0x80);
    le_put32(p + 12, 0x100000 + MB_AT + 4); /* would start before the file */
    refuses_mb(f, "corrupt");
    le_put32(p + 12, 0xfffff);
    refuses_mb(f, "corrupt");
    le_put32(p + 12, 0x100000 + MB_AT - 0x80);
    le_put32(p + 20, 0xfffff);
    refuses_mb(f, "corrupt");
    le_put32(p + 20, 0x100000 + IMAGE_SIZE); /* more than the file holds */
    refuses_mb(f, "truncated");
    le_put32(p + 20, 0);
    truncate_image(f, MB_AT + 20);
    refuses_mb(f, "truncated");
}

static void mb_bad_header(void **state)
{
    struct fixture *f = *state;

    build_elf(f);
    le_put32(f->image + MB_AT + 8, 1);
    refuses_mb(f, "no valid Multiboot");
    put_mb_header(f, 3 | 8);
    refuses_mb(f, "0x8");
    put_mb_header(f, 7 | 1u << 20); /* video and an optional unknown bit are no reason to refuse */
    assert_int_equal(try_mb(f, NULL, 0), 0);
    memset(f->image + MB_AT, 0, 12);
    for (unsigned at = 8192 - 8; at <= 8192; at += 4) { /* not completely in the first 8192 bytes */
        memcpy(f->image + at, "\x02\xb0\xad\x1b\0\0\0\0\xfe\x4f\x52\xe4", 12);
        refuses_mb(f, "no valid Multiboot");
        memset(f->image + at, 0, 12);
    }
    memcpy(f->image + 8192 - 12, "\x02\xb0\xad\x1b\0\0\0\0\xfe\x4f\x52\xe4", 12);
    assert_int_equal(try_mb(f, NULL, 0), 0);
    truncate_image(f, 10);
    refuses_mb(f, "no valid Multiboot");
}

static void mb_bad_elf(void **state)
{
    struct fixture *f = *state;
    Elf32_Ehdr *eh = (Elf32_Ehdr *)f->image;

    build_elf(f);
    f->image[EI_CLASS] = ELFCLASS64;
    refuses_mb(f, "64-bit");
    build_elf(f);
    eh->e_machine = EM_ARM;
    refuses_mb(f, "not a 32-bit x86");
    build_elf(f);
    f->image[0] = 0;
    refuses_mb(f, "neither an ELF");
    build_elf(f);
    eh->e_phnum = 0;
    refuses_mb(f, "program headers");
    build_elf(f);
    eh->e_phnum = 5000;
    refuses_mb(f, "program headers");
    build_elf(f);
    eh->e_phoff = 0xfffffff0;
    refuses_mb(f, "corrupt");
    build_elf(f);
    phdr(f, 0)->p_type = phdr(f, 1)->p_type = PT_NOTE;
    refuses_mb(f, "entry point");
}

static void mb_bad_segments(void **state)
{
    static const struct {
        uint32_t paddr, offset, filesz, memsz;
        const char *says;
    } bad[] = {
        {0x200000, CODE_AT, 0x2000, 0x1fff, "corrupt"},         /* more in the file than in memory */
        {0x200000, 0xffffffff, 0x2000, 0x2000, "corrupt"},      /* offset past the file */
        {0x200000, 0x100, IMAGE_SIZE, IMAGE_SIZE, "corrupt"},   /* tail past the file */
        {0x200000, CODE_AT, 0xffffffff, 0xffffffff, "corrupt"}, /* absurd */
        {0xfffff000, CODE_AT, 0x2000, 0x2000, "does not fit"},  /* wraps */
        {RAM_MIB * 0x100000 - 0x1000, CODE_AT, 0x2000, 0x2000, "does not fit"},
        {0x200000, CODE_AT, 0x2000, 0xf0000000, "does not fit"},    /* bss */
        {0xa0000, CODE_AT, 0x2000, 0x2000, "does not fit"},         /* VGA */
        {0x9f000, CODE_AT, 0x2000, 0x2000, "does not fit"},         /* into the EBDA */
        {0xff000, CODE_AT, 0x2000, 0x2000, "does not fit"},         /* BIOS */
        {0x8000, CODE_AT, 0x2000, 0x2000, "Multiboot information"}, /* ours */
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        build_elf(f);
        phdr(f, 0)->p_paddr = bad[i].paddr;
        phdr(f, 0)->p_offset = bad[i].offset;
        phdr(f, 0)->p_filesz = bad[i].filesz;
        phdr(f, 0)->p_memsz = bad[i].memsz;
        refuses_mb(f, bad[i].says);
    }
}

static void mb_low_kernel(void **state)
{
    struct fixture *f = *state;

    build_elf(f);
    phdr(f, 0)->p_paddr = 0x10000; /* conventional memory is memory too */
    assert_int_equal(try_mb(f, NULL, 0), 0);
    assert_int_equal(f->entry.eip, 0x10010);
    assert_memory_equal(f->ram.base + 0x10000, f->image + CODE_AT, 0x2000);
}

/* ---- Files ---- */

static void files(void **state)
{
    struct fixture *f = *state;
    struct image img;
    char path[] = "/tmp/ringlet-test-XXXXXX", fifo[64];
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(image_read(&img, "kernel", path, 100, &f->err), -1);
    assert_says(f, "empty");
    assert_int_equal(write(fd, "twelve bytes", 12), 12);
    assert_int_equal(image_read(&img, "kernel", path, 11, &f->err), -1);
    assert_says(f, "too large");
    assert_int_equal(image_read(&img, "kernel", path, 12, &f->err), 0);
    assert_int_equal(img.size, 12);
    assert_memory_equal(img.data, "twelve bytes", 12);
    image_free(&img);
    assert_null(img.data);
    close(fd);
    unlink(path);
    assert_int_equal(image_read(&img, "kernel", path, 12, &f->err), -1);
    assert_says(f, "No such file");
    assert_int_equal(image_read(&img, "kernel", "/tmp", 12, &f->err), -1);
    assert_says(f, "directory");
    snprintf(fifo, sizeof(fifo), "%s.fifo", path);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(image_read(&img, "kernel", fifo, 12, &f->err), -1); /* and must not wait for a writer */
    assert_says(f, "regular");
    unlink(fifo);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bz_entry_state),        TEST(bz_e820),           TEST(bz_initrd_high), TEST(bz_initrd_limits),
        TEST(bz_bad_files),          TEST(bz_truncated),      TEST(bz_sizes),       TEST(bz_small_machine),
        TEST(mb_segments_and_entry), TEST(mb_physical_entry), TEST(mb_info),        TEST(mb_modules),
        TEST(mb_module_too_large),   TEST(mb_kludge),         TEST(mb_bad_header),  TEST(mb_bad_elf),
        TEST(mb_bad_segments),       TEST(mb_low_kernel),     TEST(files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
