/* A port through which a guest has the statistics printed while it runs: `ringlet bench` learns from two of them what
 * the row between made ringlet do. Off unless asked for; a real PC has nothing there. */
#include <string.h>
#include "stats.h"
#include "vm.h"

/* The guest writes a label, byte by byte, and ends it with a line feed. It becomes part of our output: what is not
 * plain is shown as a question mark, what is too long is cut. */
static void mark_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct vm *vm = ctx;
    char c = (char)value;

    (void)offset;
    (void)size;
    if (c == '\n') {
        stats_print_mark(vm, vm->mark, vm->cfg.stats_out);
        memset(vm->mark, 0, sizeof(vm->mark));
        vm->mark_length = 0;
    } else if (vm->mark_length + 1 < sizeof(vm->mark)) {
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == ' ';

        vm->mark[vm->mark_length++] = plain ? c : '?';
    }
}

static uint64_t mark_read(void *ctx, uint64_t offset, unsigned size)
{
    (void)ctx;
    (void)offset;
    (void)size;
    return 0xff; /* as where nothing is */
}

int vm_mark_add(struct vm *vm, struct host_err *err)
{
    const struct dev_region port = {"statistics", vm->cfg.stats_port, 1, mark_read, mark_write, vm, 1};

    if (!vm->cfg.stats_port)
        return 0;
    return dev_bus_add_io(dev_board_bus(vm->board), &port, err);
}
