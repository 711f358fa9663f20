/* The three engines side by side: one case through all of them, compared; a case that differs, shrunk and shown. */
#ifndef ORACLE_RUN_H
#define ORACLE_RUN_H

#include "oracle.h"

enum { ORACLE_INTERP, ORACLE_TRANS, ORACLE_NATIVE, ORACLE_ENGINES };

struct oracle {
    struct oracle_guest interp, trans;
    struct oracle_native *native; /* or, with --world, */
    struct oracle_world *world;
    struct host_ram *ram[ORACLE_ENGINES];
    struct oracle_result result[ORACLE_ENGINES];
    struct host_thread thread;
    struct host_counts counts;
    struct bt_vcpu *running; /* whose traps they are; NULL: native code's */
    struct bt_decoder decoder;
    uint8_t background[ORACLE_DATA_SIZE];
    uint32_t code_at, code_len; /* of the case that ran last */
    uint16_t plant;             /* mnemonic the interpreter is said to get wrong */
    uint64_t current;           /* seed, for the watchdog */
    bool avx;                   /* this host's */
    bool show;                  /* each case before it runs */
    /* statistics */
    uint64_t insns, vectors[256], discarded, divergences;
    uint8_t met[ZYDIS_MNEMONIC_MAX_VALUE + 1];
};

int oracle_create(struct oracle **out, bool verify, bool world, struct host_err *err);
void oracle_destroy(struct oracle *o);
bool oracle_plant(struct oracle *o, const char *mnemonic);
/* Now and then: forget the translations and which sites were found guilty. */
void oracle_refresh(struct oracle *o);
/* Generate, run, compare; show what differs. False: something did. c: caller's storage, made anew. */
bool oracle_one(struct oracle *o, struct oracle_case *c, uint64_t seed);
/* Run c by all engines. NULL: equal; else what differs. */
const char *oracle_differs(struct oracle *o, const struct oracle_case *c);
/* report.c */
void oracle_shrink(struct oracle *o, struct oracle_case *c);
void oracle_show(struct oracle *o, const struct oracle_case *c, const char *what);
/* regressions.c: divergences of the past. False: one is back, and was shown. */
bool oracle_regressions(struct oracle *o);

#endif
