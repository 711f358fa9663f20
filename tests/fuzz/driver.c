/*
 * A fuzz driver for every compiler: seeded mutations of well-formed inputs, the same on every run, so that a
 * failure in CI can be repeated. No coverage feedback: that is libFuzzer's part (see README.md).
 *
 *   fuzz_X [COUNT [SEED]]    run COUNT mutations (default 100000)
 *   fuzz_X --seeds DIR       write the well-formed inputs there, as a corpus for libFuzzer
 *   fuzz_X --file FILE...    run these inputs
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "target.h"

enum { DRIVER_CAPACITY = 16384 };

static uint64_t next_random(uint64_t *s) /* xorshift64* */
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * UINT64_C(0x2545f4914f6cdd1d);
}

/* Values at which arithmetic on sizes and addresses goes wrong. */
static uint32_t odd_value(uint64_t r)
{
    static const uint32_t odd[] = {0,          1,          0xfff,      0x1000,  0x7fffffff, 0x80000000,
                                   0xffffffff, 0xfffffffe, 0xfffff000, 0x9fc00, 0x9fc01,    0xa0000,
                                   0x100000,   0xfffff,    0x9000,     0x90000, 0x200000,   0x1ffffe,
                                   0xffff,     64,         65};

    return odd[r % (sizeof(odd) / sizeof(odd[0]))];
}

static void mutate_once(uint8_t *buf, size_t *size, uint64_t *s)
{
    uint64_t r = next_random(s);
    /* Nearly all structure is in the first 640 bytes: three of four mutations go there. */
    size_t reach = (r & 5) && *size > 640 ? 640 : *size;
    size_t at = *size ? next_random(s) % reach : 0;
    uint32_t v = r & 2 ? odd_value(next_random(s)) : (uint32_t)next_random(s);

    if (*size == 0)
        return;
    switch (r >> 8 & 7) {
    case 0:
        buf[at] ^= (uint8_t)(1 << (v & 7));
        break;
    case 1:
        buf[at] = (uint8_t)v;
        break;
    case 2:
        *size = at; /* truncate */
        break;
    case 3: { /* nudge an aligned word */
        uint32_t w;
        at &= ~(size_t)3;
        if (at + 4 > *size)
            break;
        memcpy(&w, buf + at, 4);
        w += v % 33 - 16;
        memcpy(buf + at, &w, 4);
        break;
    }
    default: /* a word, aligned as fields are */
        at &= ~(size_t)3;
        memcpy(buf + at, &v, at + 4 <= *size ? 4 : *size - at);
        break;
    }
}

static int run_mutations(unsigned long count, uint64_t seed)
{
    uint64_t s = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    unsigned long loaded = 0;
    unsigned seeds = 0;
    uint8_t buf[DRIVER_CAPACITY];
    time_t shown = time(NULL);

    for (size_t n; (n = fuzz_seed(seeds, buf, sizeof(buf))) != 0; seeds++)
        if (!fuzz_loads(buf, n)) {
            fprintf(stderr, "seed %u is refused: mutations of it would test little\n", seeds);
            return 1;
        }
    for (unsigned long i = 0; i < count; i++) {
        size_t size = fuzz_seed((unsigned)(i % seeds), buf, sizeof(buf));

        for (uint64_t n = 1 + next_random(&s) % 4; n; n--)
            mutate_once(buf, &size, &s);
        loaded += (unsigned long)fuzz_loads(buf, size);
        if (time(NULL) - shown >= 5) {
            shown = time(NULL);
            fprintf(stderr, "%lu of %lu mutations\n", i + 1, count);
        }
    }
    printf("%lu mutations of %u seeds: %lu loaded, %lu refused, none broke the contract\n", count, seeds,
           loaded, count - loaded);
    /* Both sides must have been reached, or this run has shown nothing. */
    return count >= 1000 && (loaded == 0 || loaded == count);
}

static int write_seeds(const char *dir)
{
    uint8_t buf[DRIVER_CAPACITY];
    size_t n;

    for (unsigned i = 0; (n = fuzz_seed(i, buf, sizeof(buf))) != 0; i++) {
        char path[4096];
        FILE *f;

        snprintf(path, sizeof(path), "%s/seed-%u", dir, i);
        f = fopen(path, "wb");
        if (!f || fwrite(buf, 1, n, f) != n || fclose(f) != 0) {
            perror(path);
            return 1;
        }
    }
    return 0;
}

static int run_file(const char *path)
{
    uint8_t buf[DRIVER_CAPACITY];
    FILE *f = fopen(path, "rb");

    if (!f) {
        perror(path);
        return 1;
    }
    printf("%s: %s\n", path, fuzz_loads(buf, fread(buf, 1, sizeof(buf), f)) ? "loaded" : "refused");
    fclose(f);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = 0;

    if (argc == 3 && strcmp(argv[1], "--seeds") == 0)
        return write_seeds(argv[2]);
    if (argc >= 3 && strcmp(argv[1], "--file") == 0) {
        for (int i = 2; i < argc; i++)
            failed |= run_file(argv[i]);
        return failed;
    }
    return run_mutations(argc > 1 ? strtoul(argv[1], NULL, 0) : 100000,
                         argc > 2 ? strtoull(argv[2], NULL, 0) : 1);
}
