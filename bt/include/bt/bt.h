/*
 * bt: binary translation. Decoder, interpreter, translator, translation cache, SFI verifier and the execution
 * loop of one vCPU. Knows ringcomp and shadowpt; knows no device: port I/O, interrupts and time come through
 * bt_ops.
 */
#ifndef BT_BT_H
#define BT_BT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "ringcomp/ringcomp.h"

enum bt_engine { BT_TRANSLATE, BT_INTERPRET };

enum bt_exit {
    BT_EXIT_HALT,        /* HLT with interrupts possible later: wait for an event, then call again */
    BT_EXIT_EVENT,       /* kicked: run the event loop, then call again */
    BT_EXIT_SHUTDOWN,    /* triple fault */
    BT_EXIT_STOPPED,     /* ops.stop() or bt_request_stop() */
    BT_EXIT_LIMIT,       /* bt_run's instruction budget is used up */
    BT_EXIT_UNSUPPORTED, /* what ringlet does not support: bt_reason() says what, where, with bytes and mode
                          */
    BT_EXIT_DIRECT, /* user code of a space given to bt_direct_space is about to run on a page that may run natively;
                       nothing is pending. The caller runs it, or calls bt_direct_step and then bt_run. */
};

struct bt_ops {
    void *ctx;
    uint32_t (*in)(void *ctx, uint16_t port, unsigned size);
    void (*out)(void *ctx, uint16_t port, unsigned size, uint32_t value);
    bool (*intr)(void *ctx);      /* is the interrupt line up? */
    uint8_t (*intack)(void *ctx); /* acknowledge: vector */
    void (*kicked)(void *ctx);    /* the vCPU's thread was kicked: in the trap handler; NULL: not wanted */
};

struct bt_config {
    enum bt_engine engine;
    struct host_ram *ram;
    struct host_counts *counts;
    struct host_clock *clock;
    struct bt_ops ops;
    struct rc_config cpu;
    /* mmio_* and user_* and ctx of the caller; code_write and fetch_gone are bt's own and filled in by bt. user_map comes
     * with PROT_EXEC only where the page may run natively. */
    struct spt_ops mem;
    size_t cache_bytes;       /* translation cache, 0: default 64 MiB */
    unsigned max_user_spaces; /* 0: default */
    unsigned max_maps;        /* 0: from the host's vm.max_map_count */
    bool plain_host;          /* emit nothing that x86-64 hosts of before 2013 lack (BMI2) */
    bool verify;              /* run the SFI verifier on every emitted block */
};

/* trace categories, for bt_trace */
enum { BT_TRACE_BLOCK = 1, BT_TRACE_EXCEPTION = 2, BT_TRACE_SHADOW = 4, BT_TRACE_DIRECT = 8 };

struct bt_counts {
    uint64_t blocks, insns, insns_interp, cache_bytes, cache_flushes, blocks_dropped, chained, callouts,
        retranslated, rebased, moved, found, spilled, code_writes, steps, verified, entries, dispatched,
        fs_given_back;  /* to C: as often the user window was put into FS.base */
    uint64_t fs_missed; /* of these because C had missed it */
    uint64_t exits[8];  /* by reason: bt_exit_name() */
    uint64_t ticks_kernel, ticks_user, ticks_monitor; /* time split, in TSC ticks */
};

struct bt_vcpu; /* opaque: owns a struct rc_cpu and a struct spt */
int bt_create(struct bt_vcpu **out, const struct bt_config *cfg, struct host_err *err);
void bt_destroy(struct bt_vcpu *v);
struct rc_cpu *bt_cpu(struct bt_vcpu *v);
struct spt *bt_spt(struct bt_vcpu *v);
struct host_thread *bt_thread(struct bt_vcpu *v); /* for the event loop to kick */
const struct bt_counts *bt_stats(struct bt_vcpu *v);
const char *bt_exit_name(unsigned reason); /* index of bt_counts.exits; NULL beyond the last */
const char *bt_reason(const struct bt_vcpu *v);
void bt_trace(struct bt_vcpu *v, unsigned categories, FILE *out);
/* Has the guest read its time-stamp counter since this was asked last? (Not counted: code that ran natively.) */
bool bt_tsc_read(struct bt_vcpu *v);

/* Make this thread the vCPU's: signal handlers in place until leave. bt_run must be called between the two.
 */
int bt_enter(struct bt_vcpu *v, struct host_err *err);
void bt_leave(struct bt_vcpu *v);

/* Run until something the caller must handle. limit: at most this many guest instructions for BT_INTERPRET;
 * for BT_TRANSLATE UINT64_MAX runs freely, any other value runs unchained and stops at the first block end
 * after it. The number retired is added to *retired (NULL: not wanted; counted exactly only when limit is not
 * UINT64_MAX). */
enum bt_exit bt_run(struct bt_vcpu *v, uint64_t limit, uint64_t *retired);
/* Ask a running bt_run to return. The reason for intr_changed callbacks and for stop. Any thread. */
void bt_request(struct bt_vcpu *v);      /* event: BT_EXIT_EVENT, or an interrupt is delivered */
void bt_request_stop(struct bt_vcpu *v); /* BT_EXIT_STOPPED */

/* ---- Direct execution: which user code may run natively, and where bt_run hands over. What runs it, and whether that
 * pays, is the caller's business. ---- */
struct bt_direct_counts {
    uint64_t scanned, approved, refused, revoked; /* pages; revoked: written after approval */
};
/* User code of this space leaves bt_run with BT_EXIT_DIRECT (engine BT_TRANSLATE without limit), or does so no longer.
 * SPT_KERNEL_SPACE means all, those to come included; else a recycled space (ops.user_reset with gone) is off. Fails
 * without memory only. */
int bt_direct_space(struct bt_vcpu *v, unsigned space, bool on, struct host_err *err);
enum bt_direct_answer {
    BT_DIRECT_YES,
    BT_DIRECT_NO,    /* stays translated */
    BT_DIRECT_FAULT, /* user code may not execute there: *info is the page fault */
};
/* May the page at gva in the current user space run natively? Scans it if it is not known, and tells followers. */
enum bt_direct_answer bt_direct_page(struct bt_vcpu *v, uint32_t gva, struct spt_info *info);
/* The same before control comes there, for a page that the guest's A bit says is used: scans it, unless a kick is pending. A refusal
 * is not final: a known way into a page can only make the scan's answer better. */
bool bt_direct_ahead(struct bt_vcpu *v, uint32_t gva);
/* User code that ran natively stored to gpa, and spt_fault said SPT_CODE_WRITE: what was known of the page is forgotten,
 * it may be written. False: not so, the instruction must be interpreted. */
bool bt_direct_written(struct bt_vcpu *v, uint64_t gpa);
/* The next bt_run begins with one instruction by the interpreter: for what a native run cannot do. Needs a space that
 * was on. */
void bt_direct_step(struct bt_vcpu *v);
/* Which pages may run depends on a little of the guest's state (RDTSC and the like). When this number is another one,
 * what followers were told about execution holds no longer: follow again. */
unsigned bt_direct_grants(const struct bt_vcpu *v);
/* Translated code takes over in this space, which is on, until bt_direct_space is called or `blocks` (1 to 255) blocks of it had to
 * be translated: code that has been translated before costs nothing more, code that has not is better run natively. */
void bt_direct_pause(struct bt_vcpu *v, unsigned space, uint8_t blocks);
/* Translated code goes on for so many transfers of control to pages that could be handed over. */
void bt_direct_linger(struct bt_vcpu *v, unsigned transfers);
const struct bt_direct_counts *bt_direct_stats(const struct bt_vcpu *v); /* NULL: never was on */

/* Full machine reset of the CPU side: drop translations, shadows, then rc_cpu_reset. */
void bt_reset(struct bt_vcpu *v);

#endif
