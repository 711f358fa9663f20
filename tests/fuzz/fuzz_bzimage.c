/* The bzImage loader on hostile images. Input: one byte of guest memory in MiB (2..9), two bytes of initrd
 * length in KiB, one byte of command-line length, then the image. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "monitor/monitor.h"
#include "target.h"
#include "../../monitor/le.h"

enum { FUZZ_HEAD = 4, FUZZ_IMAGE = 4096 };

static void fuzz_check(const struct host_ram *ram, const struct load_entry *e, int r,
                       const struct host_err *err)
{
    /* A refusal says why in one line; an accepted image starts inside RAM with a usable GDT. */
    if (r < 0 ? !err->text[0] || strchr(err->text, '\n') != NULL
              : e->eip >= ram->size || e->esi > ram->size - 4096 ||
                    e->gdt_base + (uint64_t)e->ds + 8 > ram->size || e->ds + 7u > e->gdt_limit)
        abort();
}

int fuzz_loads(const uint8_t *data, size_t size)
{
    struct host_ram ram = {.fd = -1};
    struct load_target t = {&ram, 0xe0000, 0x1000, 0xe0000};
    struct load_entry e;
    struct host_err err = {""};
    char line[256];
    size_t initrd_size;
    uint8_t *initrd, *image;
    int r;

    if (size < FUZZ_HEAD)
        return 0;
    ram.size = (2 + data[0] % 4) * UINT64_C(0x100000);
    initrd_size = (size_t)le_get16(data + 1) * 64;
    memset(line, 'c', sizeof(line));
    line[data[3]] = 0;
    ram.base = calloc(1, ram.size);
    initrd = calloc(1, initrd_size + 1);
    image = malloc(size - FUZZ_HEAD + 1);
    if (!ram.base || !initrd || !image)
        abort();
    memcpy(image, data + FUZZ_HEAD, size - FUZZ_HEAD);
    r = load_bzimage(&t, image, size - FUZZ_HEAD, initrd, initrd_size, line, &e, &err);
    fuzz_check(&ram, &e, r, &err);
    free(image);
    free(initrd);
    free(ram.base);
    return r == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_loads(data, size);
    return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *buf, size_t capacity)
{
    static const uint16_t versions[] = {0x205, 0x206, 0x20a, 0x20c, 0x20f};
    uint8_t *p = buf + FUZZ_HEAD;

    if (i >= sizeof(versions) / sizeof(versions[0]) || capacity < FUZZ_HEAD + FUZZ_IMAGE)
        return 0;
    memset(buf, 0, FUZZ_HEAD + FUZZ_IMAGE);
    buf[0] = 3; /* 5 MiB */
    buf[1] = (uint8_t)(i * 3);
    buf[3] = (uint8_t)(i * 10);
    p[0x1f1] = 1;
    le_put32(p + 0x1f4, (FUZZ_IMAGE - 1024) / 16);
    le_put16(p + 0x1fe, 0xaa55);
    p[0x201] = 0x6a;
    memcpy(p + 0x202, "HdrS", 4);
    le_put16(p + 0x206, versions[i]);
    p[0x211] = 1;
    le_put32(p + 0x22c, 0x37ffffff);
    le_put32(p + 0x230, 0x100000);
    p[0x234] = (uint8_t)(i & 1);
    le_put32(p + 0x238, 2047);
    le_put64(p + 0x258, 0x200000);
    le_put32(p + 0x260, 0x200000);
    return FUZZ_HEAD + FUZZ_IMAGE;
}
