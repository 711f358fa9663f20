/* What this host offers. Each probe tries the thing itself; nothing is concluded from version numbers. */
#define _GNU_SOURCE
#include "host/host.h"
#include "entry.h"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define HWCAP2_FSGSBASE_BIT 2u /* Linux, arch/x86 AT_HWCAP2: user code may execute WRGSBASE */

bool host_has_fsgsbase(void)
{
    return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT;
}

static bool can_open(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool probe_reservation(void)
{
    size_t size = (size_t)8 << 30;
    void *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at != MAP_FAILED)
        munmap(at, size);
    return at != MAP_FAILED;
}

static bool probe_memfd(void)
{
    struct host_ram ram;
    if (host_ram_init(&ram, HOST_PAGE, NULL) != 0)
        return false;
    host_ram_finish(&ram);
    return true;
}

static bool probe_exec_memfd(void)
{
    struct host_arena arena;
    if (host_arena_init(&arena, HOST_PAGE, NULL) != 0)
        return false;
    host_arena_finish(&arena);
    return true;
}

static bool probe_ldt(void)
{
    char entry[16];
    return syscall(SYS_modify_ldt, 0, entry, sizeof(entry)) >= 0;
}

static bool probe_seccomp(uint32_t action)
{
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

static bool probe_worlds(char *why, size_t room)
{
    struct host_err err = {""};
    bool here = host_worlds_probe(&err) == 0;
    snprintf(why, room, "%.*s", (int)room - 1, err.text);
    return here;
}

unsigned host_max_map_count(void)
{
    unsigned value = 65530; /* the kernel's default, should /proc be missing */
    FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
    if (!f)
        return value;
    if (fscanf(f, "%u", &value) != 1)
        value = 65530;
    fclose(f);
    return value;
}

static unsigned count_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

/* Brand string: CPUID 80000002h-80000004h, 16 bytes each (Intel SDM vol. 2, CPUID). */
static void read_cpu_name(char out[64])
{
    unsigned regs[4];
    char text[49] = "";
    if ((unsigned)__get_cpuid_max(0x80000000u, NULL) < 0x80000004u) {
        strcpy(out, "unknown CPU");
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        __cpuid(0x80000002u + i, regs[0], regs[1], regs[2], regs[3]);
        memcpy(text + 16 * i, regs, 16);
    }
    const char *start = text + strspn(text, " ");
    size_t len = strlen(start);
    while (len > 0 && start[len - 1] == ' ')
        len--;
    snprintf(out, 64, "%.*s", (int)len, start);
}

void host_features_probe(struct host_features *f)
{
    struct utsname name;

    memset(f, 0, sizeof(*f));
    f->fsgsbase = host_has_fsgsbase();
    f->memfd = probe_memfd();
    f->kvm = can_open("/dev/kvm", O_RDWR);
    f->overcommit_ok = probe_reservation();
    f->exec_memfd = probe_exec_memfd();
    f->ldt = probe_ldt();
    f->seccomp = probe_seccomp(SECCOMP_RET_TRAP);
    f->seccomp_notify = probe_seccomp(SECCOMP_RET_USER_NOTIF);
    f->worlds = probe_worlds(f->worlds_error, sizeof(f->worlds_error));
    f->max_map_count = host_max_map_count();
    f->cpus = count_cpus();
    read_cpu_name(f->cpu_name);
    if (uname(&name) == 0)
        snprintf(f->kernel, sizeof(f->kernel), "%.32s %.64s", name.sysname, name.release);
}
