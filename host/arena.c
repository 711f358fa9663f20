/* The code arena: translated code is written through one mapping and executed through another. */
#define _GNU_SOURCE
#include "host/host.h"
#include "memfd.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* rel32 must reach from one end to the other. */
#define ARENA_MAX (UINT64_C(1) << 31)

/*T:702 Writable or executable, never both
 * A translator writes code and runs it. Memory that is both at one address turns every stray write of the
 * monitor into code, and hardened hosts refuse such a mapping anyway. So the same file pages are mapped
 * twice, at two addresses that have nothing to do with each other: rw for the emitter, rx for the CPU. x86
 * keeps instruction caches coherent across such aliases by physical address, so no flush is needed; code
 * that was already executing needs a serializing instruction or a branch, which the return into the cache
 * is (Intel SDM vol. 3 8.1.3).
 :*/
int host_arena_init(struct host_arena *a, size_t size, struct host_err *err)
{
    memset(a, 0, sizeof(*a));
    a->fd = -1;
    if (size == 0 || size % HOST_PAGE != 0 || size > ARENA_MAX)
        return host_fail(err, "code arena of %zu bytes: must be a multiple of 4096, at most 2 GiB", size);
    int fd = host_memfd_open("code arena", size, true, err);
    if (fd < 0)
        return -1;
    void *rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    *a = (struct host_arena){
        .rw = rw == MAP_FAILED ? NULL : rw, .rx = rx == MAP_FAILED ? NULL : rx, .size = size, .fd = fd};
    if (a->rw && a->rx)
        return 0;
    host_fail(err, "code arena: cannot map %zu KiB %s (%s)%s", size >> 10, a->rw ? "executable" : "writable",
              strerror(errno),
              errno == EPERM || errno == EACCES
                  ? "; the host's security policy forbids executable memfd mappings"
                  : "; raise `ulimit -v`");
    host_arena_finish(a);
    return -1;
}

void host_arena_finish(struct host_arena *a)
{
    if (a->rw)
        munmap(a->rw, a->size);
    if (a->rx)
        munmap(a->rx, a->size);
    if (a->size)
        close(a->fd);
    *a = (struct host_arena){.fd = -1};
}
