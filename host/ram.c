/* Guest RAM: one memfd, mapped linearly for the monitor and page by page into the windows. */
#define _GNU_SOURCE
#include "host/host.h"
#include "memfd.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Linux 6.3; older headers lack them and older kernels refuse them with EINVAL. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

int host_memfd_open(const char *what, uint64_t size, bool exec, struct host_err *err)
{
    int fd = memfd_create("ringlet", MFD_CLOEXEC | (exec ? MFD_EXEC : MFD_NOEXEC_SEAL));
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("ringlet", MFD_CLOEXEC);
    if (fd < 0 && errno == EACCES && exec)
        return host_fail(err,
                         "%s: this host forbids executable memfds (sysctl vm.memfd_noexec is 2); "
                         "set it to 0 or 1",
                         what);
    if (fd < 0)
        return host_fail(err,
                         "%s: memfd_create failed (%s); raise `ulimit -n` or check the container's seccomp "
                         "profile",
                         what, strerror(errno));
    if (ftruncate(fd, (off_t)size) != 0) {
        host_fail(err, "%s: the host cannot provide %llu MiB (%s); ask for less memory", what,
                  (unsigned long long)(size >> 20), strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

/*T:700 Guest RAM is a file
 * Ordinary process memory exists at one address. Guest RAM must be visible at many: once in a line, so that
 * the monitor can read a page table at guest physical address p by reading base[p], and then again at every
 * guest virtual address that some page table maps to it. A memfd gives exactly that: a file without a name,
 * whose pages are plain RAM, of which mmap can show any page at any address, and all views are the same
 * bytes.
 *
 * Nothing is reserved here. A page costs memory when the guest touches it for the first time, so a 3 GiB
 * guest that uses 80 MiB costs 80 MiB. The price: when the host runs out later there is nobody to return an
 * error to. The kernel then sends SIGBUS, which signal entry reports as what it is and not as a fault of
 * the guest.
 :*/
int host_ram_init(struct host_ram *ram, uint64_t size, struct host_err *err)
{
    memset(ram, 0, sizeof(*ram));
    ram->fd = -1;
    if (size == 0 || size % HOST_PAGE != 0 || size > HOST_WINDOW_SIZE)
        return host_fail(err, "guest RAM of %llu bytes: must be a multiple of 4096, at most 4 GiB",
                         (unsigned long long)size);
    int fd = host_memfd_open("guest RAM", size, false, err);
    if (fd < 0)
        return -1;
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        host_fail(err, "guest RAM: cannot map %llu MiB (%s); ask for less memory or raise `ulimit -v`",
                  (unsigned long long)(size >> 20), strerror(errno));
        close(fd);
        return -1;
    }
    /* A crash of the monitor should leave a core dump of the monitor, not of gigabytes of guest. */
    madvise(base, size, MADV_DONTDUMP);
    *ram = (struct host_ram){.fd = fd, .base = base, .size = size};
    return 0;
}

void host_ram_finish(struct host_ram *ram)
{
    if (ram->base) {
        munmap(ram->base, ram->size);
        close(ram->fd);
    }
    *ram = (struct host_ram){.fd = -1};
}
