/* The Multiboot loader on hostile images. Input: one byte of guest memory in MiB (2..5), one byte for the
 * number of modules, two bytes of module length, then the image. */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "monitor/monitor.h"
#include "target.h"
#include "../../monitor/le.h"

enum { FUZZ_HEAD = 4, FUZZ_IMAGE = 4096, FUZZ_MB_AT = 0x100, FUZZ_MODULES = 4 };

static void fuzz_check(const struct host_ram *ram, const struct load_entry *e, int r,
                       const struct host_err *err)
{
    if (r < 0 ? !err->text[0] || strchr(err->text, '\n') != NULL
              : e->eip >= ram->size || e->eax != 0x2badb002 || e->ebx > ram->size - 116 ||
                    e->gdt_base + (uint64_t)e->ds + 8 > ram->size || e->ds + 7u > e->gdt_limit)
        abort();
}

int fuzz_loads(const uint8_t *data, size_t size)
{
    struct host_ram ram = {.fd = -1};
    struct load_target t = {&ram, 0xe0000, 0x1000, 0xe0000};
    struct load_entry e;
    struct load_module m[FUZZ_MODULES];
    struct host_err err = {""};
    size_t module_size;
    uint8_t *module, *image;
    int r;

    if (size < FUZZ_HEAD)
        return 0;
    ram.size = (2 + data[0] % 4) * UINT64_C(0x100000);
    module_size = (size_t)le_get16(data + 2) * 16;
    ram.base = calloc(1, ram.size);
    module = calloc(1, module_size + 1);
    image = malloc(size - FUZZ_HEAD + 1);
    if (!ram.base || !module || !image)
        abort();
    for (unsigned i = 0; i < FUZZ_MODULES; i++)
        m[i] = (struct load_module){module, module_size, i ? "module args" : NULL};
    memcpy(image, data + FUZZ_HEAD, size - FUZZ_HEAD);
    r = load_multiboot(&t, image, size - FUZZ_HEAD, "fuzz", m, data[1] % (FUZZ_MODULES + 1), &e, &err);
    fuzz_check(&ram, &e, r, &err);
    free(image);
    free(module);
    free(ram.base);
    return r == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_loads(data, size);
    return 0;
}

static void seed_header(uint8_t *p, uint32_t flags)
{
    le_put32(p + FUZZ_MB_AT, 0x1badb002);
    le_put32(p + FUZZ_MB_AT + 4, flags);
    le_put32(p + FUZZ_MB_AT + 8, 0u - 0x1badb002 - flags);
}

/* paddr: where the first segment goes; entry: as the ELF header has it. */
static void seed_elf(uint8_t *p, uint32_t vaddr, uint32_t paddr, uint32_t entry)
{
    Elf32_Ehdr eh = {.e_type = ET_EXEC,
                     .e_machine = EM_386,
                     .e_version = EV_CURRENT,
                     .e_entry = entry,
                     .e_phoff = sizeof(Elf32_Ehdr),
                     .e_ehsize = sizeof(Elf32_Ehdr),
                     .e_phentsize = sizeof(Elf32_Phdr),
                     .e_phnum = 2};
    Elf32_Phdr ph[2] = {{.p_type = PT_LOAD,
                         .p_offset = 0x400,
                         .p_vaddr = vaddr,
                         .p_paddr = paddr,
                         .p_filesz = 0x800,
                         .p_memsz = 0x800,
                         .p_flags = PF_R | PF_X},
                        {.p_type = PT_LOAD,
                         .p_offset = 0xc00,
                         .p_vaddr = vaddr + 0x10000,
                         .p_paddr = paddr + 0x10000,
                         .p_filesz = 0x400,
                         .p_memsz = 0x2000,
                         .p_flags = PF_R | PF_W}};

    memcpy(eh.e_ident, ELFMAG, SELFMAG);
    eh.e_ident[EI_CLASS] = ELFCLASS32;
    eh.e_ident[EI_DATA] = ELFDATA2LSB;
    eh.e_ident[EI_VERSION] = EV_CURRENT;
    memcpy(p, &eh, sizeof(eh));
    memcpy(p + sizeof(eh), ph, sizeof(ph));
    seed_header(p, 3);
}

static void seed_kludge(uint8_t *p)
{
    seed_header(p, 0x10003);
    le_put32(p + FUZZ_MB_AT + 12, 0x100000 + FUZZ_MB_AT);
    le_put32(p + FUZZ_MB_AT + 16, 0x100000);
    le_put32(p + FUZZ_MB_AT + 20, 0x100800);
    le_put32(p + FUZZ_MB_AT + 24, 0x101000);
    le_put32(p + FUZZ_MB_AT + 28, 0x100400);
}

size_t fuzz_seed(unsigned i, uint8_t *buf, size_t capacity)
{
    uint8_t *p = buf + FUZZ_HEAD;

    if (i >= 4 || capacity < FUZZ_HEAD + FUZZ_IMAGE)
        return 0;
    memset(buf, 0, FUZZ_HEAD + FUZZ_IMAGE);
    buf[0] = (uint8_t)i;
    buf[1] = (uint8_t)i;
    buf[2] = 100;
    if (i == 0)
        seed_elf(p, 0x100000, 0x100000, 0x100000);
    else if (i == 1)
        seed_elf(p, 0xc0100000, 0x100000, 0xc0100010);
    else if (i == 2)
        seed_elf(p, 0xc0100000, 0x20000, 0x20010);
    else
        seed_kludge(p);
    return FUZZ_HEAD + FUZZ_IMAGE;
}
