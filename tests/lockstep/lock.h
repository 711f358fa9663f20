/*
 * Lock step: two machines that start alike, one translated, one interpreted, kept at the same instruction and
 * compared. Private to this program, which looks into bt (impl.h) to say which block is to blame.
 */
#ifndef LOCKSTEP_LOCK_H
#define LOCKSTEP_LOCK_H

#include "impl.h"
#include "monitor/monitor.h"

#define LOCK_HISTORY 64u

struct lock_side {
    struct vm *vm;
    struct bt_vcpu *v;
    struct rc_cpu *cpu;
    struct host_ram *ram;
};

/* One step: what the translated machine did in one bt_run. */
struct lock_step {
    uint64_t insns; /* retired before it */
    uint32_t eip;   /* at its start */
    uint64_t count; /* retired by it */
    uint32_t block; /* the last one entered, 0: interpreted */
};

struct lock {
    struct lock_side t, i; /* translated, interpreted */
    struct bt_vcpu *running;
    struct host_counts counts; /* of the thread both run on */
    uint64_t insns, steps;
    struct lock_step history[LOCK_HISTORY];
    uint64_t flag_syncs, ad_only; /* tolerated: undefined flags, A/D bits */
    uint64_t ram_at;              /* next page of the rolling comparison */
    bool watch_set;
    uint64_t watch; /* page compared at each step */
    uint64_t ns_per_insn;
    uint64_t start_at;
    bool tail; /* show the last steps at the end, too */
};

/* compare.c. False: they differ, and what differs has been printed. */
bool lock_compare_cpu(struct lock *l);
bool lock_compare_pages(struct lock *l, uint64_t gpa, uint64_t bytes);
/* report.c: where both are, the last steps as guest code, the last block's translation. */
/* Guest bytes at a linear address, by the page tables as they are now; how many could be read. */
unsigned lock_peek(struct lock_side *s, uint32_t lin, uint8_t *buf, unsigned want);
void lock_history(struct lock *l);
void lock_report(struct lock *l, const char *why);

#endif
