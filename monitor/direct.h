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

/* How much of its time inside a world has really run. */
struct direct_watch {
    uint64_t cpu_ns; /* the world's own clock when last asked; since then: */
    uint64_t unseen_ns, unseen_exits;
};

struct direct_world {
    TAILQ_ENTRY(direct_world) lru; /* most recently entered first; those of no space last */
    struct host_world *host;
    struct rc_world segments;
    unsigned space;  /* 0: of no space, and empty */
    unsigned grants; /* bt_direct_grants() when it was filled */
    struct direct_watch watch;
    bool rests;    /* its space is translated now; it keeps up with it */
    unsigned told; /* changes since it rests */
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
    uint32_t maps;         /* mapping calls that its world takes to fill */
    unsigned storm;        /* exits right behind each other that translated code would not have made */
    bool paused;           /* on, but translated for the moment: */
    uint64_t paused_ns, wait_ns; /* since then, and for so long at least */
    uint8_t blocks;              /* unless it comes to so much new code */
    uint64_t resumed_ns;         /* user_ns when it last went on */
    unsigned around;             /* pages to be filled at its next hidden fault, 0: not known yet */
    uint64_t around_at;          /* world_entries at the last one */
};

enum {
    DIRECT_CROSSING_NS = 12000, /* what a crossing costs the guest, there and back */
    DIRECT_MAP_NS = 3000,       /* a mapping call, and the page's first touch in a world */
};

/* What came of one entry, for the ledger. */
struct direct_bill {
    uint64_t inside_ns;   /* in the world, as far as it ran there */
    uint64_t overhead_ns; /* so much of it, and of what followed, was not the program's */
    uint64_t gained_ns;   /* translating what it is about to run would have cost this */
    bool refused;         /* it came out into a page that stays translated */
    bool needless; /* translated code would have gone on: that, a system call, a page fault of the guest's */
};

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
    struct host_timer *look; /* who was paused is looked at soon */
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
void direct_world_rest(struct direct_world *w);                   /* its space does without it for a while */
bool direct_world_spoiled(
    const struct direct_world *w); /* it rested too long and would have to be filled anew */
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
/* It was found computing for the first time: the next look at it decides. */
bool direct_ledger_undecided(const struct direct_space *s);
/* It runs directly from now on. */
void direct_ledger_entered(struct direct_space *s);
/* False: it has lost more than it may, translate it. */
bool direct_ledger_exit(struct direct_space *s, const struct direct_bill *bill);
/* It is on, and has left so often just now that it had better be translated until that is over. */
bool direct_ledger_storm(struct direct_space *s, const struct direct_bill *bill);
/* That is so from now on: direct_ledger_seen will say when it may be over. */
void direct_ledger_paused(struct direct_space *s, uint64_t now_ns, uint64_t returns);
void direct_ledger_resumed(struct direct_space *s);
/* It is translated from now on; what it has been seen to do before counts no more, what it owes does. */
void direct_ledger_left(struct direct_space *s);
/* Another entry, inside for so long by the wall's clock. True: the world's clock is to be asked before direct_ledger_ran. */
bool direct_ledger_looks(struct direct_watch *w, uint64_t inside_ns);
/* How much of this entry counts as run, now that the world's clock says cpu_ns. 0: it says nothing, all of it counts. */
uint64_t direct_ledger_ran(struct direct_watch *w, uint64_t inside_ns, uint64_t cpu_ns);

/* direct_policy.c */
void direct_sample(struct vm *vm); /* after BT_EXIT_EVENT: is the running program computing? */
void direct_judge(struct direct *d, unsigned space,
                  const struct direct_bill *bill);     /* it came out of its world */
void direct_resumed(struct direct *d, unsigned space); /* bt hands a paused space over again */
void direct_bar(struct direct *d, unsigned space, const char *why);
struct direct_space *direct_space_now(struct direct *d, unsigned space);

#endif
