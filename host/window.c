/* Windows: 4 GiB of host address space in which the host's MMU stands in for the guest's. */
#define _GNU_SOURCE
#include "host/host.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define GUARD       HOST_WINDOW_SIZE
#define RESERVATION (GUARD + HOST_WINDOW_SIZE + GUARD)
#define EMPTY_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

/* The four calls below run inside the trap handler: nothing but system calls, and errno is saved by signal
 * entry. */

static void count(uint64_t *which)
{
    if (which)
        ++*which;
}

#define COUNT(w, field) count((w)->counts ? &(w)->counts->field : NULL)

static bool range_ok(uint32_t gva, uint64_t len)
{
    return gva % HOST_PAGE == 0 && len % HOST_PAGE == 0 && len != 0 && len <= HOST_WINDOW_SIZE - gva;
}

/*T:701 A window
 * Reserve 12 GiB of addresses of which none is accessible: a guard, the window, a guard. The window starts
 * at a multiple of 4 GiB, so that the low 32 bits of any host address in it are the guest address: a
 * faulting RDI becomes guest EDI by cutting it off. Translated code adds a 32-bit offset to the window's
 * base and can therefore reach the window and, with an operand that straddles its end, a few bytes of
 * guard; neither the monitor nor another window.
 *
 * Mapping a guest page is one mmap of the right page of guest RAM over the reservation. Dropping it is one
 * mmap of nothing (PROT_NONE) over it, never munmap: a hole could be given to the next malloc, and the
 * guest would see the monitor's heap in its address space.
 :*/
int host_window_init(struct host_window *w, const struct host_ram *ram, struct host_counts *counts,
                     struct host_err *err)
{
    memset(w, 0, sizeof(*w));
    /* Ask for one alignment unit more than needed, then give back what sticks out at both ends. */
    uint64_t asked = RESERVATION + HOST_WINDOW_SIZE;
    uint8_t *raw = mmap(NULL, asked, PROT_NONE, EMPTY_FLAGS, -1, 0);
    if (raw == MAP_FAILED &&
        !err) /* strerror is libc, which is not to be called with a guest's registers about */
        return -1;
    if (raw == MAP_FAILED)
        return host_fail(
            err,
            "cannot reserve 16 GiB of address space for a window (%s); set `ulimit -v unlimited` "
            "(the reservation uses no memory)",
            strerror(errno));
    uint64_t front = -(uint64_t)(uintptr_t)raw & (HOST_WINDOW_SIZE - 1);
    uint64_t back = asked - RESERVATION - front;
    if (front)
        munmap(raw, front);
    if (back)
        munmap(raw + front + RESERVATION, back);
    w->reservation = raw + front;
    w->base = raw + front + GUARD;
    w->ram = ram;
    w->counts = counts;
    return 0;
}

void host_window_finish(struct host_window *w)
{
    if (w->reservation)
        munmap(w->reservation, RESERVATION);
    memset(w, 0, sizeof(*w));
}

int host_window_map(struct host_window *w, uint32_t gva, uint64_t gpa, uint64_t len, int prot, bool populate)
{
    if (!range_ok(gva, len) || gpa % HOST_PAGE != 0 || gpa > w->ram->size || len > w->ram->size - gpa ||
        (prot & ~(PROT_READ | PROT_WRITE)))
        return -EINVAL;
    int flags = MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0);
    COUNT(w, mmap);
    return mmap(w->base + gva, len, prot, flags, w->ram->fd, (off_t)gpa) == MAP_FAILED ? -errno : 0;
}

int host_window_unmap(struct host_window *w, uint32_t gva, uint64_t len)
{
    if (!range_ok(gva, len))
        return -EINVAL;
    COUNT(w, munmap);
    return mmap(w->base + gva, len, PROT_NONE, EMPTY_FLAGS | MAP_FIXED, -1, 0) == MAP_FAILED ? -errno : 0;
}

int host_window_protect(struct host_window *w, uint32_t gva, uint64_t len, int prot)
{
    if (!range_ok(gva, len) || (prot & ~(PROT_READ | PROT_WRITE)))
        return -EINVAL;
    COUNT(w, mprotect);
    return mprotect(w->base + gva, len, prot) != 0 ? -errno : 0;
}

int host_window_reset(struct host_window *w)
{
    COUNT(w, munmap);
    if (mmap(w->base, HOST_WINDOW_SIZE, PROT_NONE, EMPTY_FLAGS | MAP_FIXED, -1, 0) != MAP_FAILED)
        return 0;
    if (errno != ENOMEM)
        return -errno;
    /* At the limit of mappings the kernel refuses every mmap, even this one that would end the shortage.
     * munmap it allows. NOREPLACE: should another thread have mapped something into the hole meanwhile, it
     * must survive. */
    if (munmap(w->base, HOST_WINDOW_SIZE) != 0)
        return -errno;
    void *again = mmap(w->base, HOST_WINDOW_SIZE, PROT_NONE, EMPTY_FLAGS | MAP_FIXED_NOREPLACE, -1, 0);
    return again == MAP_FAILED ? -errno : 0;
}
