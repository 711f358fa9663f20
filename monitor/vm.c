/* A machine's life: created from its parts, wired, loaded, reset, destroyed. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "direct.h"
#include "image.h"
#include "vm.h"

enum { VM_DEBUG_EXIT_PORT = 0xf4 };
static const uint64_t vm_min_memory = UINT64_C(4) << 20, vm_max_memory = UINT64_C(3584) << 20;
/* 1 January 2000: what the RTC shows at time 0 of a deterministic machine. */
static const uint64_t vm_fixed_epoch = 946684800;

#ifdef RINGLET_TOUR
extern const unsigned char embedded_guest[];
extern const size_t embedded_guest_size;
#endif

/* ---- Wiring: each upward call of a lower module lands on the module that can answer it. ---- */

static uint32_t vm_in(void *ctx, uint16_t port, unsigned size)
{
    struct vm *vm = ctx;

    return dev_bus_in(dev_board_bus(vm->board), port, size);
}

static void vm_out(void *ctx, uint16_t port, unsigned size, uint32_t value)
{
    struct vm *vm = ctx;

    dev_bus_out(dev_board_bus(vm->board), port, size, value);
}

static uint64_t vm_mmio_read(void *ctx, uint64_t gpa, unsigned len)
{
    struct vm *vm = ctx;

    return dev_bus_mmio_read(dev_board_bus(vm->board), gpa, len);
}

static void vm_mmio_write(void *ctx, uint64_t gpa, unsigned len, uint64_t value)
{
    struct vm *vm = ctx;

    dev_bus_mmio_write(dev_board_bus(vm->board), gpa, len, value);
}

static bool vm_intr(void *ctx)
{
    struct vm *vm = ctx;

    return dev_board_intr(vm->board);
}

static uint8_t vm_intack(void *ctx)
{
    struct vm *vm = ctx;

    return dev_board_intack(vm->board);
}

static void vm_intr_changed(void *ctx, bool level)
{
    struct vm *vm = ctx;

    if (level)
        bt_request(vm->vcpu);
}

/* A device ends or resets the machine in the middle of an OUT: note it, act when the vCPU has come out. The
 * first wish wins, so that a power-off is not undone by a reset the guest sends after it for good measure. */
static void vm_event(void *ctx, enum dev_event ev, uint32_t v)
{
    struct vm *vm = ctx;
    static const enum vm_pending wish[] = {
        [DEV_POWER_OFF] = VM_WANT_POWER_OFF,
        [DEV_RESET] = VM_WANT_RESET,
        [DEV_DEBUG_EXIT] = VM_WANT_DEBUG_EXIT,
        [DEV_ESCAPE_QUIT] = VM_WANT_QUIT,
    };

    if (vm->pending == VM_GO_ON) {
        vm->pending = wish[ev];
        vm->pending_value = v;
    }
    bt_request_stop(vm->vcpu);
}

/* Translated and interpreted code say so; of code that ran natively nobody knows. */
static bool vm_tsc_read(void *ctx)
{
    struct vm *vm = ctx;
    bool native = vm->counts.world_entries != vm->tsc_asked_entries;

    vm->tsc_asked_entries = vm->counts.world_entries;
    return bt_tsc_read(vm->vcpu) || native;
}

/* ---- Creation ---- */

static int vm_check(const struct vm_config *cfg, struct host_err *err)
{
    if (cfg->memory < vm_min_memory || cfg->memory > vm_max_memory || cfg->memory % (1 << 20) != 0)
        return host_fail(err, "guest memory of %llu bytes is not possible: whole MiB from 4M to 3584M",
                         (unsigned long long)cfg->memory);
    if (cfg->serial_count > 4 || cfg->module_count > VM_MAX_MODULES)
        return host_fail(err, "at most 4 serial ports and %d modules are possible", VM_MAX_MODULES);
    if (cfg->kernel && (cfg->multiboot || cfg->image))
        return host_fail(err, "a Linux kernel and a Multiboot kernel cannot be started together");
    return 0;
}

static int vm_create_cpu(struct vm *vm, struct host_err *err)
{
    const struct vm_config *cfg = &vm->cfg;
    struct bt_config bt = {
        .engine = cfg->engine,
        .ram = &vm->ram,
        .counts = &vm->host,
        .clock = &vm->clock,
        .ops = {.ctx = vm,
                .in = vm_in,
                .out = vm_out,
                .intr = vm_intr,
                .intack = vm_intack,
                .kicked = direct_kicked},
        .mem = {.ctx = vm,
                .mmio_read = vm_mmio_read,
                .mmio_write = vm_mmio_write,
                .user_map = direct_user_map,
                .user_unmap = direct_user_unmap,
                .user_reset = direct_user_reset},
        .cache_bytes = cfg->cache_bytes,
        .max_user_spaces = cfg->max_user_spaces,
        .max_maps = cfg->max_maps,
        .verify = cfg->verify,
        .plain_host = cfg->plain_host,
    };

    rc_config_host(&bt.cpu);
    if (cfg->cpu_mask && rc_config_mask(&bt.cpu, cfg->cpu_mask, err) < 0)
        return -1;
    return bt_create(&vm->vcpu, &bt, err);
}

static int vm_create_board(struct vm *vm, struct host_err *err)
{
    const struct vm_config *cfg = &vm->cfg;
    int port = cfg->debug_exit_port ? cfg->debug_exit_port : VM_DEBUG_EXIT_PORT;
    struct dev_board_config board = {
        .ram = &vm->ram,
        .loop = vm->loop,
        .ops = {.ctx = vm, .intr_changed = vm_intr_changed, .event = vm_event, .tsc_read = vm_tsc_read},
        .serial_count = cfg->serial_count ? cfg->serial_count : 1,
        .escape = cfg->escape,
        .debug_exit_port = port < 0 ? 0 : (uint16_t)port,
        .rtc_epoch = cfg->virtual_clock ? vm_fixed_epoch : (uint64_t)time(NULL),
    };

    memcpy(board.serial, cfg->serial, sizeof(board.serial)); /* none given: DEV_CHR_NULL, which is zero */
    if (dev_board_create(&vm->board, &board, err) < 0)
        return -1;
    return vm_mark_add(vm, err);
}

int vm_create(struct vm **out, const struct vm_config *cfg, struct host_err *err)
{
    struct vm *vm;

    *out = NULL;
    if (vm_check(cfg, err) < 0)
        return -1;
    vm = calloc(1, sizeof(*vm));
    if (!vm)
        return host_fail(err, "no memory for a machine");
    vm->cfg = *cfg;
    vm->ram.fd = -1;
    host_clock_init(&vm->clock, cfg->virtual_clock);
    if (host_ram_init(&vm->ram, cfg->memory, err) < 0) {
        free(vm);
        return -1;
    }
    if (vm_create_cpu(vm, err) < 0 || host_loop_create(&vm->loop, &vm->clock, bt_thread(vm->vcpu), err) < 0 ||
        vm_create_board(vm, err) < 0 || direct_create(vm, err) < 0)
        goto fail;
    if (cfg->trace & VM_TRACE_DEVICE)
        dev_bus_trace(dev_board_bus(vm->board), cfg->trace_out);
    bt_trace(vm->vcpu, (cfg->trace & 0xffff) | (cfg->trace & VM_TRACE_WORLD ? BT_TRACE_DIRECT : 0),
             cfg->trace_out);
    if (vm_boot(vm, err) < 0)
        goto fail;
    *out = vm;
    return 0;
fail:
    vm_destroy(vm);
    return -1;
}

void vm_destroy(struct vm *vm)
{
    if (!vm)
        return;
    direct_destroy(vm);
    if (vm->board)
        dev_board_destroy(vm->board);
    if (vm->loop)
        host_loop_destroy(vm->loop);
    if (vm->vcpu)
        bt_destroy(vm->vcpu);
    host_ram_finish(&vm->ram);
    free(vm);
}

/* ---- Loading ---- */

static int vm_load_linux(struct vm *vm, const struct load_target *t, struct load_entry *entry,
                         struct host_err *err)
{
    const struct vm_config *cfg = &vm->cfg;
    struct image kernel = {NULL, 0}, initrd = {NULL, 0};
    struct host_err why;
    int r = -1;

    if (image_read(&kernel, "kernel", cfg->kernel, vm->ram.size, err) < 0)
        goto out;
    if (cfg->initrd && image_read(&initrd, "initrd", cfg->initrd, vm->ram.size, err) < 0)
        goto out;
    r = load_bzimage(t, kernel.data, kernel.size, initrd.data, initrd.size, cfg->append, entry, &why);
    if (r < 0)
        host_fail(err, "%.200s: %.300s", cfg->kernel, why.text);
out:
    image_free(&initrd);
    image_free(&kernel);
    return r;
}

/* "FILE ARGS", as QEMU passes it on; in the caller's free()-able storage. */
static char *vm_join(const char *path, const char *args)
{
    size_t size = strlen(path) + 1 + (args ? strlen(args) : 0) + 1;
    char *s = malloc(size);

    if (s)
        snprintf(s, size, "%s%s%s", path, args && *args ? " " : "", args ? args : "");
    return s;
}

static int vm_read_modules(const struct vm *vm, struct image *img, struct load_module *mod, char **line,
                           struct host_err *err)
{
    for (unsigned i = 0; i < vm->cfg.module_count; i++) {
        const struct vm_module *m = &vm->cfg.module[i];

        if (image_read(&img[i], "module", m->path, vm->ram.size, err) < 0)
            return -1;
        line[i] = vm_join(m->path, m->cmdline);
        if (!line[i])
            return host_fail(err, "no memory for module %s", m->path);
        mod[i] = (struct load_module){.data = img[i].data, .size = img[i].size, .cmdline = line[i]};
    }
    return 0;
}

/* image NULL: name is the path to read. */
static int vm_load_mb(struct vm *vm, const struct load_target *t, const char *name, const void *image,
                      size_t size, struct load_entry *entry, struct host_err *err)
{
    struct image kernel = {NULL, 0}, img[VM_MAX_MODULES] = {{NULL, 0}};
    struct load_module mod[VM_MAX_MODULES];
    char *line[VM_MAX_MODULES] = {NULL}, *cmdline = vm_join(name, vm->cfg.append);
    struct host_err why;
    int r = -1;

    if (!cmdline) {
        host_fail(err, "no memory for the command line");
        goto out;
    }
    if (!image) {
        if (image_read(&kernel, "Multiboot kernel", name, vm->ram.size, err) < 0)
            goto out;
        image = kernel.data;
        size = kernel.size;
    }
    if (vm_read_modules(vm, img, mod, line, err) < 0)
        goto out;
    r = load_multiboot(t, image, size, cmdline, mod, vm->cfg.module_count, entry, &why);
    if (r < 0)
        host_fail(err, "%.200s: %.300s", name, why.text);
out:
    for (unsigned i = 0; i < vm->cfg.module_count; i++) {
        image_free(&img[i]);
        free(line[i]);
    }
    image_free(&kernel);
    free(cmdline);
    return r;
}

static int vm_load(struct vm *vm, struct load_entry *entry, struct host_err *err)
{
    struct load_target t = {.ram = &vm->ram};

    dev_board_acpi_range(vm->board, &t.acpi_base, &t.acpi_size, &t.acpi_rsdp);
    if (vm->cfg.kernel)
        return vm_load_linux(vm, &t, entry, err);
    if (vm->cfg.image)
        return vm_load_mb(vm, &t, "image", vm->cfg.image, vm->cfg.image_size, entry, err);
    if (vm->cfg.multiboot)
        return vm_load_mb(vm, &t, vm->cfg.multiboot, NULL, 0, entry, err);
#ifdef RINGLET_TOUR
    return vm_load_mb(vm, &t, "tour", embedded_guest, embedded_guest_size, entry, err);
#else
    return host_fail(err, "no guest given, and this build has no embedded one: use --kernel or --multiboot");
#endif
}

/* ---- Reset ---- */

/* Memory comes back zeroed, unlike on a PC: every boot of a guest is then like its first, and what the last
 * run touched is given back to the host. */
static void vm_clear_ram(struct vm *vm)
{
    if (madvise(vm->ram.base, vm->ram.size, MADV_REMOVE) != 0)
        memset(vm->ram.base, 0, vm->ram.size);
}

int vm_boot(struct vm *vm, struct host_err *err)
{
    struct rc_cpu *cpu = bt_cpu(vm->vcpu);
    struct load_entry entry;

    bt_reset(vm->vcpu); /* first: nothing may remember translations or mappings of the memory that goes now */
    direct_reset(vm);
    vm_clear_ram(vm);
    dev_board_reset(vm->board); /* writes the ACPI tables again */
    if (vm_load(vm, &entry, err) < 0)
        return -1;
    rc_cpu_flat(cpu, entry.cs, entry.ds);
    cpu->gdtr = (struct rc_table){.base = entry.gdt_base, .limit = entry.gdt_limit};
    memset(cpu->gpr, 0, sizeof(cpu->gpr));
    cpu->gpr[RC_EAX] = entry.eax;
    cpu->gpr[RC_EBX] = entry.ebx;
    cpu->gpr[RC_ESI] = entry.esi;
    cpu->eip = entry.eip;
    vm->boot_ns = vm_host_ns();
    return 0;
}

struct bt_vcpu *vm_vcpu(struct vm *vm)
{
    return vm->vcpu;
}

struct dev_board *vm_board(struct vm *vm)
{
    return vm->board;
}

struct host_ram *vm_ram(struct vm *vm)
{
    return &vm->ram;
}

struct host_clock *vm_clock(struct vm *vm)
{
    return &vm->clock;
}

struct host_loop *vm_loop(struct vm *vm)
{
    return vm->loop;
}
