/* The Linux guests' second initramfs: programs, and an init that runs what is due. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "bench.h"
#include "image.h"

enum { INITRD_PROGRAM = 0100755, INITRD_MOST = 256 << 20 };

static const struct {
    enum bench_suite suite;
    const char *name;
} initrd_programs[] = {{BENCH_LINUX, "linux"},
                       {BENCH_LINUX_2G, "linux"},
                       {BENCH_COMPUTE, "compute"},
                       {BENCH_APPS, "apps"},
                       {BENCH_SCALE, "scale"}};
enum { INITRD_PROGRAMS = sizeof(initrd_programs) / sizeof(initrd_programs[0]) };

static void bench_cpio_pad(FILE *out, size_t written)
{
    while (written++ % 4)
        fputc(0, out);
}

void bench_cpio_entry(FILE *out, const char *name, unsigned mode, const void *data, size_t size)
{
    size_t name_size = strlen(name) + 1;

    /* magic, inode, mode, uid, gid, links, time, size, 4 device numbers, size of the name, checksum */
    fprintf(out, "070701%08X%08X%08X%08X%08X%08X%08zX%08X%08X%08X%08X%08zX%08X", 0, mode, 0, 0, 1, 0, size, 0,
            0, 0, 0, name_size, 0);
    fwrite(name, 1, name_size, out);
    bench_cpio_pad(out, 110 + name_size);
    fwrite(data, 1, size, out);
    bench_cpio_pad(out, size);
}

/* Each row is a process of its own under a time limit: what goes wrong with one stays with it. */
void bench_init_script(const struct bench_results *r, const bool *due, FILE *out)
{
    fprintf(out,
            "#!/bin/busybox sh\n"
            "B=/bin/busybox\n"
            "$B mount -t proc proc /proc\n"
            "$B mount -t devtmpfs dev /dev\n"
            "$B echo '" BENCH_MARKER "'\n"
            "run() { $B timeout -s KILL %d /bin/bench-$1 $2 %s $B - mark || $B echo \"fail $2 $?\"; }\n",
            BENCH_ROW_SECONDS, r->quick ? "quick" : "full");
    for (unsigned i = 0; i < bench_row_count; i++)
        for (unsigned p = 0; p < INITRD_PROGRAMS; p++)
            if (due[i] && bench_rows[i].suite == initrd_programs[p].suite)
                fprintf(out, "run %s %s\n", initrd_programs[p].name, bench_rows[i].name);
    fputs("$B poweroff -f\n", out);
}

static int bench_initrd_file(FILE *out, const char *directory, const char *file, const char *as,
                             struct host_err *err)
{
    struct image img;
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", directory, file);
    if (image_read(&img, "benchmark file", path, INITRD_MOST, err) < 0)
        return -1;
    if (as)
        bench_cpio_entry(out, as, INITRD_PROGRAM, img.data, img.size);
    else
        fwrite(img.data, 1, img.size, out);
    image_free(&img);
    return 0;
}

static int bench_initrd_programs(FILE *out, const struct bench_config *c, struct host_err *err)
{
    if (bench_initrd_file(out, c->cache, "busybox", "bin/busybox", err) < 0)
        return -1;
    for (unsigned p = 0; p < INITRD_PROGRAMS; p++) {
        char as[32];

        if (p && strcmp(initrd_programs[p].name, initrd_programs[p - 1].name) == 0)
            continue; /* it serves two suites */

        snprintf(as, sizeof(as), "bin/bench-%s", initrd_programs[p].name);
        if (bench_initrd_file(out, c->programs, initrd_programs[p].name, as, err) < 0)
            return -1;
    }
    return 0;
}

static int bench_initrd_init(FILE *out, const struct bench_results *r, const bool *due, struct host_err *err)
{
    char *script = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&script, &size);

    if (!f)
        return host_fail(err, "no memory for the guest's init");
    bench_init_script(r, due, f);
    if (fclose(f) != 0) {
        free(script);
        return host_fail(err, "no memory for the guest's init");
    }
    bench_cpio_entry(out, "bin/bench-init", INITRD_PROGRAM, script, size);
    free(script);
    return 0;
}

int bench_initrd_create(const struct bench_config *c, const struct bench_results *r, const char *base,
                        const bool *due, struct host_err *err)
{
    int fd = memfd_create("bench-initrd", 0), copy = fd < 0 ? -1 : dup(fd), status = -1;
    FILE *out = copy < 0 ? NULL : fdopen(copy, "w");

    if (!out) {
        host_fail(err, "no memory for an initramfs: %s", strerror(errno));
    } else if (bench_initrd_file(out, c->cache, base, NULL, err) == 0) {
        bench_cpio_pad(out, (size_t)ftell(out)); /* archives begin at multiples of four */
        if (bench_initrd_programs(out, c, err) == 0 && bench_initrd_init(out, r, due, err) == 0) {
            bench_cpio_entry(out, "TRAILER!!!", 0, "", 0);
            status = 0;
        }
    }
    if (out && fclose(out) != 0 && status == 0)
        status = host_fail(err, "the initramfs cannot be written: %s", strerror(errno));
    if (status == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}
