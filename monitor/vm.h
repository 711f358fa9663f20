/* vm: the inside of struct vm, shared by vm.c (life cycle), run.c (the loop) and stats.c (what it counted).
 */
#ifndef MONITOR_VM_H
#define MONITOR_VM_H

#include "monitor/monitor.h"

/* What a device asked for while guest code was running; acted on between two bt_run calls. */
enum vm_pending { VM_GO_ON, VM_WANT_POWER_OFF, VM_WANT_RESET, VM_WANT_DEBUG_EXIT, VM_WANT_QUIT };

#define VM_EXIT_KINDS (BT_EXIT_DIRECT + 1)
struct vm_counts {
    uint64_t exits[VM_EXIT_KINDS]; /* by enum bt_exit */
    uint64_t events;               /* callbacks the event loop ran */
    uint64_t resets;
    uint64_t ns_idle, ns_devices, ns_total;
    /* direct execution: time in worlds, entries, and exits by what they were */
    uint64_t ns_direct, world_entries, world_calls, world_faults, world_hidden, world_traps,
        world_code_writes, world_refused, world_kicks, world_wild;
    uint64_t promotions, demotions, pauses, worlds_made, worlds_taken, worlds_lost, worlds_barred;
};

struct vm {
    struct vm_config
        cfg; /* strings stay the caller's and must outlive the VM: a reset reads the files again */
    struct host_ram ram;
    struct host_clock clock;
    struct host_counts host;
    struct bt_vcpu *vcpu;
    struct host_loop *loop;
    struct dev_board *board;
    struct direct *direct; /* NULL: all user code is translated */
    struct vm_counts counts;
    enum vm_pending pending;
    uint32_t pending_value;
    uint64_t boot_ns; /* host time of the last (re)start, and how many triple faults came soon after one */
    unsigned early_triples;
    uint64_t tsc_asked_entries; /* counts.world_entries when a device asked for the TSC last */
    uint64_t run_since;         /* host time when the running vm_run began; 0: none runs */
    char mark[40];              /* label that the guest is writing to the statistics port */
    unsigned mark_length;
    volatile bool stop; /* vm_stop() was called */
};

/* Reset everything and load the guest: at creation and for each reboot. */
int vm_boot(struct vm *vm, struct host_err *err);
/* Host monotonic time for the statistics, whatever clock the guest has. */
uint64_t vm_host_ns(void);
/* The port of cfg.stats_port, if any. At creation. */
int vm_mark_add(struct vm *vm, struct host_err *err);
/* "CS:EIP 0060:c0101234, bytes 0f 0b ..., protected mode, paging on, CPL 0": where the guest is. Changes
 * nothing. */
void vm_where(struct vm *vm, char *buf, size_t size);

#endif
