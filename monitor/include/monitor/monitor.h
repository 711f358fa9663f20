/*
 * monitor: a whole virtual machine: RAM, one vCPU (bt), the board (devmodel), a loader, and the loop that
 * runs them. The command line (main.c, cmd_*.c) is built on this; so are the lock-step comparer and
 * whole-machine tests.
 */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include "bt/bt.h"
#include "devmodel/devmodel.h"

#define VM_MAX_MODULES 16

struct vm_module {
    const char *path;
    const char *cmdline; /* everything after the first space of --module, "" if none */
};

enum vm_user { VM_USER_TRANSLATE, VM_USER_AUTO, VM_USER_DIRECT }; /* how user code runs */

struct vm_config {
    uint64_t memory; /* bytes; 1 MiB aligned, 4 MiB .. 3.5 GiB */
    const char *kernel, *initrd, *append;
    const char *multiboot; /* neither kernel nor multiboot: the embedded guest */
    const void *image;     /* instead of a path: multiboot image in memory (embedded guest, fuzzing) */
    size_t image_size;
    struct vm_module module[VM_MAX_MODULES];
    unsigned module_count;
    struct dev_chr_config serial[4];
    unsigned serial_count;
    bool escape;
    enum bt_engine engine;
    enum vm_user user;
    unsigned worlds; /* for direct execution at most; 0: default */
    bool no_reboot;
    bool verify;          /* SFI verifier */
    bool plain_host;      /* translate without BMI2 */
    bool virtual_clock;   /* deterministic: time moves with retired instructions (lock step) */
    const char *cpu_mask; /* --cpu */
    size_t cache_bytes;
    unsigned max_user_spaces, max_maps;
    int debug_exit_port; /* 0: the default 0xf4; negative: none */
    uint16_t stats_port; /* 0: none. A line of text written there prints the statistics so far to stats_out */
    FILE *stats_out;
    unsigned trace; /* BT_TRACE_* | VM_TRACE_* */
    FILE *trace_out;
};
enum { VM_TRACE_DEVICE = 1 << 16, VM_TRACE_WORLD = 1 << 17 };

struct vm;
int vm_create(struct vm **out, const struct vm_config *cfg, struct host_err *err); /* loads the guest */
void vm_destroy(struct vm *vm);
struct bt_vcpu *vm_vcpu(struct vm *vm);
struct dev_board *vm_board(struct vm *vm);
struct host_ram *vm_ram(struct vm *vm);
struct host_clock *vm_clock(struct vm *vm);
struct host_loop *vm_loop(struct vm *vm);

enum vm_end { VM_END_POWER_OFF, VM_END_DEBUG_EXIT, VM_END_RESET, VM_END_QUIT, VM_END_STOPPED };
struct vm_result {
    enum vm_end end;
    uint32_t debug_exit; /* value written */
    char reason[512]; /* VM_END_STOPPED: one line: cause, guest EIP, bytes, mode. VM_END_RESET: the same for a
                         triple fault, empty when the guest asked for the reset. VM_END_QUIT by vm_stop: where
                         the guest was */
};
/* Run on the calling thread to the end. With no_reboot a reset (ACPI, 8042, CF9, triple fault) ends with
 * VM_END_RESET; otherwise the machine is reset and the guest loaded again. */
int vm_run(struct vm *vm, struct vm_result *result, struct host_err *err);
void vm_stop(struct vm *vm); /* async-signal-safe: vm_run returns VM_END_QUIT soon */

/* Loaders, also fuzzed alone. They write guest RAM and set the entry state; nothing else. */
struct load_target {
    struct host_ram *ram;
    uint64_t acpi_base, acpi_size, acpi_rsdp;
};
struct load_entry {
    uint32_t eip, eax, ebx, esi;
    uint16_t cs, ds; /* selectors for rc_cpu_flat */
    uint32_t gdt_base;
    uint16_t gdt_limit;
};
int load_bzimage(const struct load_target *t, const void *image, size_t size, const void *initrd,
                 size_t initrd_size, const char *cmdline, struct load_entry *entry, struct host_err *err);
struct load_module {
    const void *data;
    size_t size;
    const char *cmdline;
};
int load_multiboot(const struct load_target *t, const void *image, size_t size, const char *cmdline,
                   const struct load_module *modules, unsigned module_count, struct load_entry *entry,
                   struct host_err *err);

#endif
