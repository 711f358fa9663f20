/* The vCPU loop: run guest code, and between two runs do what guest code cannot do for itself. */
#include <stdio.h>
#include <string.h>
#include "direct.h"
#include "vm.h"

/* Virtual clock: how many instructions before devices are looked at, and what one costs in guest time. */
enum { VM_SLICE = 2000, VM_NS_PER_INSN = 10 };
/* A guest that triple-faults within this time of a start, so often in a row, will do it for ever. */
enum { VM_EARLY_TRIPLES = 3, VM_SHOWN_BYTES = 8 };
static const uint64_t vm_early_ns = UINT64_C(2000000000);

uint64_t vm_host_ns(void)
{
    return host_read_clock(CLOCK_MONOTONIC);
}

/* ---- Saying where the guest is ---- */

/* Code bytes at lin for a message: walked by hand, so that a broken guest is not changed any further. */
static unsigned vm_peek(struct vm *vm, uint32_t lin, uint8_t *buf, unsigned want)
{
    const struct spt_paging *p = spt_paging(bt_spt(vm->vcpu));
    struct spt_walk w;
    unsigned n = 0;

    while (n < want && spt_walk(&vm->ram, p, lin + n, SPT_READ, &w) && spt_is_ram(bt_spt(vm->vcpu), w.gpa))
        buf[n++] = vm->ram.base[w.gpa];
    return n;
}

static const char *vm_mode_name(const struct rc_cpu *cpu)
{
    if (!(cpu->cr0 & RC_CR0_PE))
        return "real mode";
    if (cpu->eflags & RC_VM)
        return "virtual-8086 mode";
    return cpu->seg[RC_CS].attr & RC_ATTR_DB ? "32-bit protected mode" : "16-bit protected mode";
}

void vm_where(struct vm *vm, char *buf, size_t size)
{
    const struct rc_cpu *cpu = bt_cpu(vm->vcpu);
    uint8_t code[VM_SHOWN_BYTES];
    unsigned n = vm_peek(vm, cpu->seg[RC_CS].base + cpu->eip, code, sizeof(code));
    int at = snprintf(buf, size, "CS:EIP %04x:%08x, bytes", cpu->seg[RC_CS].selector, cpu->eip);

    for (unsigned i = 0; i < n && at >= 0 && (size_t)at < size; i++)
        at += snprintf(buf + at, size - (size_t)at, " %02x", code[i]);
    if (at >= 0 && (size_t)at < size)
        snprintf(buf + at, size - (size_t)at, "%s, %s, paging %s, CPL %u", n ? "" : " unreadable",
                 vm_mode_name(cpu), cpu->cr0 & RC_CR0_PG ? "on" : "off", cpu->cpl);
}

/* Which exception the CPU gave up on. */
static void vm_triple_text(struct vm *vm, char *buf, size_t size)
{
    const struct rc_fault *f = &bt_cpu(vm->vcpu)->fault;
    char where[192], detail[64] = "";

    vm_where(vm, where, sizeof(where));
    if (f->vector == RC_PFAULT)
        snprintf(detail, sizeof(detail), " (error 0x%x, CR2 %08x)", f->error, f->cr2);
    else if (f->has_error)
        snprintf(detail, sizeof(detail), " (error 0x%x)", f->error);
    snprintf(buf, size, "triple fault: the last exception was vector %u%s at %s", f->vector, detail, where);
}

/* ---- What ends a run ---- */

static int vm_end(struct vm_result *res, enum vm_end end)
{
    res->end = end;
    return 1;
}

static int vm_reset(struct vm *vm, struct vm_result *res, struct host_err *err)
{
    if (vm->cfg.no_reboot)
        return vm_end(res, VM_END_RESET);
    vm->counts.resets++;
    return vm_boot(vm, err);
}

/* 1: ended, see res. 0: go on. -1: a host error. */
static int vm_do_pending(struct vm *vm, struct vm_result *res, struct host_err *err)
{
    enum vm_pending what = vm->pending;

    vm->pending = VM_GO_ON;
    if (vm->stop) {
        vm->stop = false;
        vm_where(vm, res->reason, sizeof(res->reason));
        return vm_end(res, VM_END_QUIT);
    }
    switch (what) {
    case VM_GO_ON:
        return 0;
    case VM_WANT_POWER_OFF:
        return vm_end(res, VM_END_POWER_OFF);
    case VM_WANT_DEBUG_EXIT:
        res->debug_exit = vm->pending_value;
        return vm_end(res, VM_END_DEBUG_EXIT);
    case VM_WANT_QUIT:
        return vm_end(res, VM_END_QUIT);
    case VM_WANT_RESET:
        vm->early_triples = 0;
        return vm_reset(vm, res, err);
    }
    return 0;
}

/* The shutdown cycle of a triple fault resets a PC (SDM vol. 3 6.15, interrupt 8). One line says so; a guest
 * that only ever gets this far is stopped instead of started for ever. */
static int vm_triple_fault(struct vm *vm, struct vm_result *res, struct host_err *err)
{
    vm_triple_text(vm, res->reason, sizeof(res->reason));
    if (vm->cfg.no_reboot)
        return vm_end(res, VM_END_RESET);
    vm->early_triples = vm_host_ns() - vm->boot_ns < vm_early_ns ? vm->early_triples + 1 : 0;
    if (vm->early_triples >= VM_EARLY_TRIPLES) {
        size_t n = strlen(res->reason);

        snprintf(res->reason + n, sizeof(res->reason) - n, "; it is the %uth in a row right after a reset",
                 vm->early_triples);
        return vm_end(res, VM_END_STOPPED);
    }
    fprintf(stderr, "ringlet: %s; resetting the machine\n", res->reason);
    res->reason[0] = 0;
    return vm_reset(vm, res, err);
}

static int vm_stopped(struct vm *vm, struct vm_result *res)
{
    snprintf(res->reason, sizeof(res->reason), "%s", bt_reason(vm->vcpu));
    return vm_end(res, VM_END_STOPPED);
}

/* ---- Time ---- */

static void vm_run_events(struct vm *vm)
{
    uint64_t before = vm_host_ns();

    vm->counts.events += host_loop_run(vm->loop);
    vm->counts.ns_devices += vm_host_ns() - before;
}

/* HLT: sleep until a device has something. With interrupts off no device can wake the CPU (SDM vol. 2 HLT;
 * there is no NMI source on this board): the guest has stopped itself, and sleeping for ever would be a hang.
 */
static int vm_halt(struct vm *vm, struct vm_result *res)
{
    uint64_t before = vm_host_ns();

    if (!bt_cpu(vm->vcpu)->iflag) {
        char where[192];

        vm_where(vm, where, sizeof(where));
        snprintf(res->reason, sizeof(res->reason), "the guest has halted with interrupts off at %s", where);
        return vm_end(res, VM_END_STOPPED);
    }
    if (!vm->stop && !dev_board_intr(vm->board))
        host_loop_wait(vm->loop, UINT64_MAX);
    vm->counts.ns_idle += vm_host_ns() - before;
    return 0;
}

/*T:240 The loop around the guest
 * Everything a guest does ends here sooner or later, but rarely: translated code runs until something outside
 * it needs the thread. bt says why it came back. Device wishes (power off, reset) arrive in the middle of an
 * OUT instruction and are only noted there; they are acted on here, where no guest instruction is half done.
 * :*/
static int vm_handle(struct vm *vm, enum bt_exit why, struct vm_result *res, struct host_err *err)
{
    int r = 0;

    if (vm->stop || vm->pending != VM_GO_ON) /* a reset makes why a thing of the past */
        return vm_do_pending(vm, res, err);
    switch (why) {
    case BT_EXIT_HALT:
        r = vm_halt(vm, res);
        break;
    case BT_EXIT_EVENT:
        direct_sample(vm);
        /* fall through */
    case BT_EXIT_LIMIT:
        vm_run_events(vm);
        break;
    case BT_EXIT_DIRECT:
        direct_run(vm);
        break;
    case BT_EXIT_SHUTDOWN:
        return vm_triple_fault(vm, res, err);
    case BT_EXIT_UNSUPPORTED:
        return vm_stopped(vm, res);
    case BT_EXIT_STOPPED: /* its reason was pending, or is already gone */
        break;
    }
    return r != 0 ? r : vm_do_pending(vm, res, err);
}

int vm_run(struct vm *vm, struct vm_result *res, struct host_err *err)
{
    uint64_t limit = vm->cfg.virtual_clock ? VM_SLICE : UINT64_MAX, start = vm_host_ns();
    int r = 0;

    memset(res, 0, sizeof(*res));
    if (bt_enter(vm->vcpu, err) < 0)
        return -1;
    vm->run_since = start;
    vm_run_events(vm); /* timers set while no thread was the vCPU's have nobody to kick until now */
    while (r == 0) {
        uint64_t retired = 0;
        enum bt_exit why = bt_run(vm->vcpu, limit, &retired);

        vm->counts.exits[why]++;
        if (vm->cfg.virtual_clock)
            host_clock_advance(&vm->clock, retired * VM_NS_PER_INSN);
        r = vm_handle(vm, why, res, err);
    }
    bt_leave(vm->vcpu);
    vm->counts.ns_total += vm_host_ns() - start;
    vm->run_since = 0;
    return r < 0 ? -1 : 0;
}

void vm_stop(struct vm *vm)
{
    vm->stop = true;
    bt_request_stop(vm->vcpu);
}
