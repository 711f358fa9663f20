/* Multiboot 1 kernels (Multiboot Specification 0.6.96), placed and entered the way QEMU's -kernel does it. */
#include <inttypes.h>
#include <libelf.h>
#include "le.h"
#include "load_map.h"

enum {
    MB_SEARCH = 8192, /* 3.1: the header lies completely in the first 8192 bytes, on a 4-byte boundary */
    MB_HEADER = 12,
    MB_HEADER_KLUDGE = 32,
    MB_FLAG_PAGE_ALIGN = 1 << 0,
    MB_FLAG_MEMORY = 1 << 1,
    MB_FLAG_VIDEO = 1 << 2, /* no display: info flags say that nothing is known of one, as with QEMU */
    MB_FLAG_KLUDGE = 1 << 16,
    MB_FLAGS_MANDATORY = 0xffff, /* an unknown bit here must be refused (3.1.2) */
    MB_FLAGS_KNOWN = MB_FLAG_PAGE_ALIGN | MB_FLAG_MEMORY | MB_FLAG_VIDEO,
    MB_MAX_PHDRS =
        64, /* kernels have a handful; a hostile table could otherwise keep us copying for minutes */
    MB_MAX_MODULES = VM_MAX_MODULES,
};
static const uint32_t mb_header_magic = 0x1badb002, mb_boot_magic = 0x2badb002;

enum { /* information structure (3.3) */
       MI_FLAGS = 0,
       MI_MEM_LOWER = 4,
       MI_MEM_UPPER = 8,
       MI_CMDLINE = 16,
       MI_MODS_COUNT = 20,
       MI_MODS_ADDR = 24,
       MI_MMAP_LENGTH = 44,
       MI_MMAP_ADDR = 48,
       MI_LOADER_NAME = 64,
       MI_SIZE = 116,
       MI_HAS = 1 << 0 /* memory */ | 1 << 2 /* cmdline */ | 1 << 3 /* modules */ | 1 << 6 /* memory map */ |
                1 << 9 /* loader name */,
       MI_MMAP_ENTRY = 24, /* a size field of 4, which does not count itself, and 20 bytes */
       MI_MODULE = 16,
};
enum { AT_INFO = 0x9000, AT_INFO_END = 0x90000 };
enum { MB_CS = 0x08, MB_DS = 0x10 };
static const char mb_loader_name[] = "ringlet";

struct mb_range {
    uint64_t base, size;
};

struct mb_load {
    const struct load_target *t;
    struct load_map map;
    const uint8_t *image;
    uint64_t size;
    uint32_t header; /* offset of the Multiboot header */
    uint32_t flags;
    uint32_t entry;
    uint64_t end; /* first address above everything loaded so far */
    struct mb_range loaded[MB_MAX_PHDRS];
    unsigned loaded_count;
    struct mb_range info; /* the information structure and everything it points to but module contents */
    struct mb_range module[MB_MAX_MODULES];
    struct host_err *err;
};

static int mb_find_header(struct mb_load *l)
{
    uint64_t limit = l->size < MB_SEARCH ? l->size : MB_SEARCH;

    for (uint32_t at = 0; at + MB_HEADER <= limit; at += 4) {
        const uint8_t *p = l->image + at;

        if (le_get32(p) != mb_header_magic)
            continue;
        l->header = at;
        l->flags = le_get32(p + 4);
        if ((uint32_t)(mb_header_magic + l->flags + le_get32(p + 8)) == 0)
            return 0;
    }
    if (l->size >= 2 && l->image[0] == 0x1f && l->image[1] == 0x8b)
        return host_fail(l->err, "the Multiboot kernel is gzip-compressed: unpack it with gunzip first");
    return host_fail(l->err, "not a Multiboot kernel: no valid Multiboot 1 header in the first 8192 bytes");
}

static int mb_check_flags(struct mb_load *l)
{
    uint32_t unknown = l->flags & MB_FLAGS_MANDATORY & ~(uint32_t)MB_FLAGS_KNOWN;

    if (unknown)
        return host_fail(l->err,
                         "the Multiboot kernel demands features ringlet does not have (header flags 0x%x)",
                         unknown);
    return 0;
}

static bool mb_overlap(const struct mb_range *a, const struct mb_range *b)
{
    return a->size && b->size && a->base < b->base + b->size && b->base < a->base + a->size;
}

/* Copies file bytes [offset, offset+filesz) to gpa and clears up to memsz; every number is the image's own.
 */
static int mb_load_range(struct mb_load *l, uint64_t gpa, uint64_t offset, uint64_t filesz, uint64_t memsz)
{
    struct mb_range r = {gpa, memsz};
    uint8_t *to;

    if (filesz > memsz || offset > l->size || filesz > l->size - offset)
        return host_fail(l->err,
                         "the Multiboot kernel is truncated or corrupt: a segment of %" PRIu64
                         " bytes at file offset %" PRIu64 " in a file of %" PRIu64,
                         filesz, offset, l->size);
    if (memsz == 0)
        return 0;
    to = load_map_at(l->t, &l->map, gpa, memsz);
    if (!to)
        return host_fail(l->err,
                         "the Multiboot kernel does not fit: a segment wants physical 0x%" PRIx64
                         "-0x%" PRIx64 ", memory is 0-0x%x and 0x%x-0x%" PRIx64,
                         gpa, gpa + memsz - 1, LOAD_EBDA - 1, LOAD_HIGH, l->t->ram->size - 1);
    if (mb_overlap(&r, &l->info))
        return host_fail(l->err,
                         "the Multiboot kernel wants physical 0x%" PRIx64 "-0x%" PRIx64
                         ", where the Multiboot information has to be (0x%" PRIx64 "-0x%" PRIx64 ")",
                         gpa, gpa + memsz - 1, l->info.base, l->info.base + l->info.size - 1);
    memcpy(to, l->image + offset, filesz);
    memset(to + filesz, 0, memsz - filesz);
    l->loaded[l->loaded_count++] = r;
    if (gpa + memsz > l->end)
        l->end = gpa + memsz;
    return 0;
}

/* Header flag 16: the header itself says what to load where (3.1.3), for kernels that are no ELF files. */
static int mb_load_kludge(struct mb_load *l)
{
    const uint8_t *p = l->image + l->header;
    uint32_t header_addr, load, load_end, bss_end;
    uint64_t offset, filesz, memsz;

    if (l->size - l->header < MB_HEADER_KLUDGE)
        return host_fail(l->err, "the Multiboot header is truncated");
    header_addr = le_get32(p + 12);
    load = le_get32(p + 16);
    load_end = le_get32(p + 20);
    bss_end = le_get32(p + 24);
    l->entry = le_get32(p + 28);
    if (header_addr < load || header_addr - load > l->header || (load_end && load_end < load) ||
        (bss_end && bss_end < load))
        return host_fail(l->err,
                         "the Multiboot header is corrupt: header_addr 0x%x, load_addr 0x%x, load_end_addr "
                         "0x%x, bss_end_addr 0x%x",
                         header_addr, load, load_end, bss_end);
    offset = l->header - (header_addr - load);
    filesz = load_end ? load_end - load : l->size - offset; /* 0: the rest of the file */
    memsz = bss_end ? bss_end - load : filesz;              /* 0: no bss */
    return mb_load_range(l, load, offset, filesz, memsz);
}

static int mb_check_elf(const struct mb_load *l)
{
    const uint8_t *p = l->image;

    if (l->size < sizeof(Elf32_Ehdr) || memcmp(p, ELFMAG, SELFMAG) != 0)
        return host_fail(
            l->err, "the Multiboot kernel is neither an ELF file nor gives load addresses in its header");
    if (p[EI_CLASS] != ELFCLASS32 || p[EI_DATA] != ELFDATA2LSB || le_get16(p + 18) != EM_386)
        return host_fail(l->err, "the Multiboot kernel is not a 32-bit x86 ELF file%s",
                         p[EI_CLASS] == ELFCLASS64 ? " but a 64-bit one; ringlet is a 32-bit machine" : "");
    return 0;
}

/*T:230 Where a virtual entry point is physical
 * A higher-half kernel is linked at, say, C1000000 and loaded at 01000000: p_paddr places its segments. Its
 * ELF header gives one entry address, and linkers' scripts disagree whether that is virtual or physical.
 * QEMU's rule, which kernels in the field rely on: when the entry lies in the virtual range (file-backed
 * part) of an executable segment whose two addresses differ, it was virtual and moves with the segment;
 * otherwise it is taken as it is. :*/
static void mb_adjust_entry(struct mb_load *l, const Elf32_Phdr *ph, uint32_t e_entry)
{
    if (ph->p_vaddr != ph->p_paddr && (ph->p_flags & PF_X) && e_entry >= ph->p_vaddr &&
        e_entry - ph->p_vaddr < ph->p_filesz)
        l->entry = e_entry - ph->p_vaddr + ph->p_paddr;
}

static int mb_load_phdrs(struct mb_load *l, Elf *elf)
{
    const char *table;
    Elf32_Ehdr eh;
    size_t count = 0;

    if (!elf32_getehdr(elf) || elf_getphdrnum(elf, &count) != 0)
        return host_fail(l->err, "the Multiboot kernel's ELF header is corrupt: %s", elf_errmsg(-1));
    if (count == 0 || count > MB_MAX_PHDRS)
        return host_fail(l->err, "the Multiboot kernel has %zu program headers; ringlet takes 1 to %d", count,
                         MB_MAX_PHDRS);
    table = (const char *)elf32_getphdr(elf);
    if (!table)
        return host_fail(l->err, "the Multiboot kernel's program headers are corrupt: %s", elf_errmsg(-1));
    memcpy(&eh, elf32_getehdr(elf),
           sizeof(eh)); /* copied: libelf's pointers are as aligned as the file's offsets */
    l->entry = eh.e_entry;
    for (size_t i = 0; i < count; i++) {
        Elf32_Phdr ph;

        memcpy(&ph, table + i * sizeof(ph), sizeof(ph));
        if (ph.p_type != PT_LOAD)
            continue;
        if (mb_load_range(l, ph.p_paddr, ph.p_offset, ph.p_filesz, ph.p_memsz) < 0)
            return -1;
        mb_adjust_entry(l, &ph, eh.e_entry);
    }
    return 0;
}

static int mb_load_elf(struct mb_load *l)
{
    Elf *elf;
    int r;

    if (mb_check_elf(l) < 0)
        return -1;
    if (elf_version(EV_CURRENT) == EV_NONE)
        return host_fail(l->err, "libelf: %s", elf_errmsg(-1));
    elf = elf_memory((char *)(uintptr_t)l->image, l->size); /* opened for reading: the image is not changed */
    if (!elf)
        return host_fail(l->err, "the Multiboot kernel is not a readable ELF file: %s", elf_errmsg(-1));
    r = mb_load_phdrs(l, elf);
    elf_end(elf);
    return r;
}

static int mb_check_entry(const struct mb_load *l)
{
    for (unsigned i = 0; i < l->loaded_count; i++)
        if (l->entry >= l->loaded[i].base && l->entry - l->loaded[i].base < l->loaded[i].size)
            return 0;
    return host_fail(l->err, "the Multiboot kernel's entry point 0x%x lies in none of its loaded segments",
                     l->entry);
}

/* Module contents go above the kernel, each on a page of its own whether or not header flag 0 asks for it. */
static int mb_load_modules(struct mb_load *l, const struct load_module *m, unsigned count)
{
    uint64_t at = l->end > LOAD_HIGH ? l->end : LOAD_HIGH;

    for (unsigned i = 0; i < count; i++) {
        uint8_t *to;

        at = (at + HOST_PAGE - 1) & ~(uint64_t)(HOST_PAGE - 1);
        to = load_map_at(l->t, &l->map, at, m[i].size);
        if (!to)
            return host_fail(l->err,
                             "module %u (%" PRIu64 " KiB) does not fit above the kernel: memory ends at "
                             "%" PRIu64 " MiB, %" PRIu64 " MiB are in use (raise --memory)",
                             i + 1, (uint64_t)(m[i].size + 1023) >> 10, l->t->ram->size >> 20, load_mib(at));
        if (m[i].size)
            memcpy(to, m[i].data, m[i].size);
        l->module[i] = (struct mb_range){at, m[i].size};
        at += m[i].size;
    }
    return 0;
}

/* ---- The information structure and what it points to: one block at AT_INFO, laid out by a bump pointer.
 * ---- */

static uint64_t mb_info_size(const struct load_map *map, const char *cmdline, const struct load_module *m,
                             unsigned count)
{
    uint64_t size = MI_SIZE + LOAD_GDT_SIZE + map->count * MI_MMAP_ENTRY + count * MI_MODULE;

    size += strlen(cmdline) + 1 + sizeof(mb_loader_name) + 64; /* 64: alignment between the parts */
    for (unsigned i = 0; i < count; i++)
        size += strlen(m[i].cmdline ? m[i].cmdline : "") + 1;
    return size;
}

struct mb_bump {
    uint8_t *ram;
    uint32_t at;
};

static uint32_t mb_take(struct mb_bump *b, uint32_t size)
{
    uint32_t at = (b->at + 7) & ~7u;

    b->at = at + size;
    return at;
}

static uint32_t mb_put_string(struct mb_bump *b, const char *s)
{
    uint32_t size = (uint32_t)strlen(s) + 1, at = b->at;

    memcpy(b->ram + at, s, size);
    b->at += size;
    return at;
}

static uint32_t mb_put_mmap(struct mb_bump *b, const struct load_map *map)
{
    uint32_t at = mb_take(b, map->count * MI_MMAP_ENTRY);

    for (unsigned i = 0; i < map->count; i++) {
        uint8_t *e = b->ram + at + i * MI_MMAP_ENTRY;

        le_put32(e, MI_MMAP_ENTRY - 4);
        le_put64(e + 4, map->range[i].base);
        le_put64(e + 12, map->range[i].size);
        le_put32(e + 20, map->range[i].type);
    }
    return at;
}

static uint32_t mb_put_modules(struct mb_bump *b, const struct mb_load *l, const struct load_module *m,
                               unsigned count)
{
    uint32_t at = mb_take(b, count * MI_MODULE);

    for (unsigned i = 0; i < count; i++) {
        uint8_t *e = b->ram + at + i * MI_MODULE;

        le_put32(e, (uint32_t)l->module[i].base);
        le_put32(e + 4, (uint32_t)(l->module[i].base + l->module[i].size));
        le_put32(e + 8, mb_put_string(b, m[i].cmdline ? m[i].cmdline : ""));
        le_put32(e + 12, 0);
    }
    return at;
}

static void mb_write_info(struct mb_load *l, const char *cmdline, const struct load_module *m, unsigned count,
                          struct load_entry *entry)
{
    struct mb_bump b = {l->t->ram->base, (uint32_t)l->info.base};
    uint32_t info = mb_take(&b, MI_SIZE), gdt = mb_take(&b, LOAD_GDT_SIZE);
    uint8_t *p = b.ram + info;

    memset(p, 0, MI_SIZE);
    le_put32(p + MI_FLAGS, MI_HAS);
    le_put32(p + MI_MEM_LOWER, LOAD_EBDA >> 10);
    le_put32(p + MI_MEM_UPPER, (uint32_t)((l->t->ram->size - LOAD_HIGH) >> 10));
    le_put32(p + MI_MMAP_ADDR, mb_put_mmap(&b, &l->map));
    le_put32(p + MI_MMAP_LENGTH, l->map.count * MI_MMAP_ENTRY);
    le_put32(p + MI_MODS_ADDR, mb_put_modules(&b, l, m, count));
    le_put32(p + MI_MODS_COUNT, count);
    le_put32(p + MI_CMDLINE, mb_put_string(&b, cmdline));
    le_put32(p + MI_LOADER_NAME, mb_put_string(&b, mb_loader_name));
    load_map_gdt(l->t, &l->map, gdt, MB_CS, MB_DS);
    *entry = (struct load_entry){.eip = l->entry,
                                 .eax = mb_boot_magic,
                                 .ebx = info,
                                 .cs = MB_CS,
                                 .ds = MB_DS,
                                 .gdt_base = gdt,
                                 .gdt_limit = LOAD_GDT_SIZE - 1};
}

int load_multiboot(const struct load_target *t, const void *image, size_t size, const char *cmdline,
                   const struct load_module *modules, unsigned module_count, struct load_entry *entry,
                   struct host_err *err)
{
    struct mb_load l = {.t = t, .image = image, .size = size, .err = err};
    const char *line = cmdline ? cmdline : "";

    if (module_count > MB_MAX_MODULES)
        return host_fail(err, "%u modules; at most %d are possible", module_count, MB_MAX_MODULES);
    if (load_map_build(t, &l.map, err) < 0 || mb_find_header(&l) < 0 || mb_check_flags(&l) < 0)
        return -1;
    l.info = (struct mb_range){AT_INFO, mb_info_size(&l.map, line, modules, module_count)};
    if (l.info.size > AT_INFO_END - AT_INFO)
        return host_fail(err, "the Multiboot command lines are too long (%" PRIu64 " bytes)", l.info.size);
    load_map_bda(t);
    if (((l.flags & MB_FLAG_KLUDGE) ? mb_load_kludge(&l) : mb_load_elf(&l)) < 0 || mb_check_entry(&l) < 0 ||
        mb_load_modules(&l, modules, module_count) < 0)
        return -1;
    mb_write_info(&l, line, modules, module_count, entry);
    return 0;
}
