/*
 * Direct execution: guest user code that computes runs natively in worlds (host.h). direct.c owns the worlds and keeps
 * their memory like the guest's; direct_run.c goes in and handles what comes out; direct_policy.c decides who
 * goes, by the ledgers of direct_ledger.c.
 */
#ifndef MONITOR_DIRECT_H
#define MONITOR_DIRECT_H

#include "monitor/monitor.h"
#include "vm.h"
#include <sys/queue.h>

struct direct_world {
    TAILQ_ENTRY(direct_world) lru; /* most recently entered first; those of no space last */
    struct host_world *host;
    struct rc_world segments;
    unsigned space;  /* 0: of no space, and empty */
    unsigned grants; /* bt_direct_grants() when it was filled */
    uint64_t cpu_ns; /* host_world_cpu_ns() when last asked; since then: */
    uint64_t unseen_ns, unseen_exits;
};
TAILQ_HEAD(direct_queue, direct_world);

/* What policy `auto` knows of an address space. */
struct direct_space {
    struct direct_world *world;
    uint64_t serial; /* spt_user_serial() this is about */
    bool on, barred; /* runs directly; never shall */
    unsigned deaths; /* of its worlds */
    /* translated: when last seen running, the guest's returns to user mode until then, times found computing */
    uint64_t seen_ns, seen_returns;
    unsigned computing;
    uint64_t user_ns;      /* how long it has run in user mode, one way or the other, as far as is known */
    int64_t debt_ns;       /* what direct execution has cost so far, less what it must have gained */
    int64_t tried_debt_ns; /* that, at the last promotion */
    int64_t refused_ns;    /* of the cost since then, what pages cost that stay translated */
    int backoff;           /* so many times rarer are its tries */
    uint32_t maps;         /* mapping calls that its world took to fill, last time */
};

enum { DIRECT_MAP_NS = 3000 }; /* a mapping call, and the page's first touch in a world */

/* A page that a program in a world found missing, until it runs on; space 0: none. */
struct direct_missing {
    unsigned space;
    uint32_t eip, gva;
};

struct direct {
    struct vm *vm;
    enum vm_user policy;
    struct direct_queue worlds;
    unsigned made, max;
    struct direct_space space[SPT_MAX_SPACES];
    struct host_world *volatile running; /* to be kicked when this thread is */
    struct host_world_state state;
    uint64_t sampled_ns; /* when somebody was last found in user mode */
    uint32_t fault_eip, fault_gva, fault_repeats;
    struct direct_missing missing;
    bool noticed;
    FILE *trace;
};

/* direct.c */
int direct_create(struct vm *vm, struct host_err *err); /* vm->direct, or NULL: all is translated */
void direct_destroy(struct vm *vm);
void direct_reset(struct vm *vm); /* the machine's memory is about to be cleared */
void direct_user_map(void *ctx, unsigned space, uint32_t gva, uint64_t gpa, uint64_t len, int prot);
void direct_user_unmap(void *ctx, unsigned space, uint32_t gva, uint64_t len);
void direct_user_reset(void *ctx, unsigned space, bool gone);
void direct_kicked(void *ctx);
/* The world of the current space, NULL: none can be had. */
struct direct_world *direct_world_get(struct direct *d, unsigned space);
void direct_world_put(struct direct *d, struct direct_world *w);  /* its space needs it no longer */
void direct_world_lost(struct direct *d, struct direct_world *w); /* it is dead */
void direct_say(struct direct *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* direct_run.c: after BT_EXIT_DIRECT */
void direct_run(struct vm *vm);

/* direct_ledger.c: knows figures, no machine. Times in ns of CPU time. */
/* The number of the space is another program's now, which owes nothing; the world stays where it is. */
void direct_ledger_open(struct direct_space *s, uint64_t serial);
/* Found in user mode, so long after anybody last was, with so many returns to user mode until now. True: run it
 * directly; *stretch_ns is then the mean time between its returns. */
bool direct_ledger_seen(struct direct_space *s, uint64_t now_ns, uint64_t since_ns, uint64_t returns,
                        uint64_t *stretch_ns);
/* It runs directly from now on. */
void direct_ledger_entered(struct direct_space *s);
/* As direct_judge. False: it has lost more than it may, translate it. */
bool direct_ledger_exit(struct direct_space *s, uint64_t inside_ns, uint64_t overhead_ns, bool refused);
/* It is translated from now on; what it has been seen to do before counts no more, what it owes does. */
void direct_ledger_left(struct direct_space *s);

/* direct_policy.c */
void direct_sample(struct vm *vm); /* after BT_EXIT_EVENT: is the running program computing? */
/* It came out of its world after this time; so much of it, and of what followed, was not the program's; into a page that
 * stays translated? */
void direct_judge(struct direct *d, unsigned space, uint64_t inside_ns, uint64_t overhead_ns, bool refused);
void direct_bar(struct direct *d, unsigned space, const char *why);
struct direct_space *direct_space_now(struct direct *d, unsigned space);

#endif
