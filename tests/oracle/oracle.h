/*
 * The oracle: random user-mode instruction sequences, run by the interpreter, by the translator and by the
 * physical CPU, from the same registers and the same memory; all that a program could see must be equal.
 * Private to this program.
 */
#ifndef ORACLE_ORACLE_H
#define ORACLE_ORACLE_H

#include "impl.h"

/* ---- What the sequences find in memory: linear addresses, the same on all three sides and, in the guests, the
 * same as physical ones. ---- */
enum {
    ORACLE_RAM = 32 << 20,
    ORACLE_CODE = 0x1000000, /* readable and executable */
    ORACLE_CODE_SIZE = 0x10000,
    ORACLE_EXIT = 0x1092000, /* where every sequence ends; alone, because its bytes differ */
    ORACLE_DATA = 0x1100000, /* pages as oracle_page_kind() says; base of GS */
    ORACLE_PAGES = 9,
    ORACLE_STACK_PAGE = 7,
    ORACLE_DATA_SIZE = ORACLE_PAGES * 4096,
    ORACLE_SEQ_BYTES = 1024,
    ORACLE_FPU = sizeof(((struct rc_cpu *)0)->fpu),
};
enum oracle_page { ORACLE_RW, ORACLE_RO, ORACLE_NONE, ORACLE_SUPERVISOR };
bool oracle_is_supervisor(uint32_t lin); /* present in the guests, but not for programs; absent natively */
enum oracle_page oracle_page_kind(unsigned page); /* of ORACLE_DATA; what follows the last is ORACLE_NONE */

/* ---- A case ---- */
enum { ORACLE_ENDED = 0x80, ORACLE_STOPPED = 0x100, ORACLE_ENDLESS };
struct oracle_item {   /* one instruction of a sequence */
    uint8_t bytes[40]; /* of several, in a regression */
    uint8_t len;
    bool dead;      /* taken out by the shrinker */
    uint8_t rel_at; /* offset of a relative (rel_size 1 or 4) or absolute (ORACLE_ABS) reference to target */
    uint8_t rel_size;
    uint8_t target;  /* item; the number of items: the end */
    uint8_t partner; /* this one cannot do without that one; itself: none */
};
enum { ORACLE_ABS = 5, ORACLE_ITEMS = 64, ORACLE_PATCHES = 48 };

struct oracle_case {
    uint64_t seed;
    struct oracle_item item[ORACLE_ITEMS];
    unsigned count;
    uint32_t gpr[8], eflags;
    uint8_t fpu[ORACLE_FPU] __attribute__((aligned(64)));
    struct {
        uint32_t at, value;
    } patch[ORACLE_PATCHES]; /* memory that differs from the background */
    unsigned patches;
    /* made of the items by oracle_layout */
    uint32_t eip; /* where the code is put */
    uint8_t code[ORACLE_SEQ_BYTES];
    unsigned code_len;
    uint16_t offset[ORACLE_ITEMS + 1];
};

struct oracle_result {
    unsigned vector; /* ORACLE_ENDED: the sequence came to its end */
    uint32_t error, cr2;
    uint32_t gpr[8], eip, eflags;
    uint8_t fpu[ORACLE_FPU] __attribute__((aligned(64)));
    char why[256]; /* ORACLE_STOPPED */
};

/* Put the living items one after the other and resolve their references. False: too long. */
bool oracle_layout(struct oracle_case *c);

/* ---- generate.c ---- */
struct oracle_random {
    uint64_t x;
};
uint32_t oracle_random(struct oracle_random *r);
uint32_t oracle_below(struct oracle_random *r, uint32_t n);
uint32_t oracle_value(struct oracle_random *r); /* one around which arithmetic is interesting, or any */
/* A case from its seed alone. False: the dice made none, take the next seed. */
bool oracle_generate(struct oracle_case *c, uint64_t seed, struct bt_decoder *d, bool avx);
void oracle_random_fpu(struct oracle_random *r, bool avx, uint8_t *fpu);
bool oracle_has_avx(void); /* the dice throw VEX only where the host has AVX2 */

/* ---- refuse.c: instructions that cannot be compared, each with its reason ---- */
const char *oracle_refused(const struct bt_insn *i);

/* ---- flags.c: what the manual leaves undefined ---- */
/* For each byte offset of the code, flags that are undefined when the instruction there begins (meaningless elsewhere);
 * [code_len]: at the end. False: an instruction reads an undefined flag, so the case decides nothing. */
bool oracle_undefined(const struct oracle_case *c, uint32_t undefined[ORACLE_SEQ_BYTES + 1]);
/* One instruction: flags it reads, flags it certainly defines, flags it may leave undefined. */
void oracle_flags(const ZydisDecodedInstruction *z, const ZydisDecodedOperand *op, uint32_t *reads,
                  uint32_t *defines, uint32_t *leaves);

/* ---- The engines ---- */
struct oracle_guest { /* guest.c */
    struct host_ram ram;
    struct host_counts counts;
    struct host_clock clock;
    struct bt_vcpu *v;
    struct rc_seg seg[RC_SEG_COUNT]; /* as user code has them */
};
int oracle_guest_create(struct oracle_guest *g, enum bt_engine engine, bool verify, struct host_err *err);
void oracle_guest_destroy(struct oracle_guest *g);
void oracle_guest_code(struct oracle_guest *g, uint32_t at, const uint8_t *code, unsigned len);
void oracle_guest_run(struct oracle_guest *g, const struct oracle_case *c, uint64_t limit,
                      struct oracle_result *r);

struct oracle_native; /* native.c: this process in compatibility mode */
int oracle_native_create(struct oracle_native **out, struct host_err *err);
void oracle_native_destroy(struct oracle_native *n);
struct host_ram *oracle_native_ram(struct oracle_native *n);
void oracle_native_run(struct oracle_native *n, const struct oracle_case *c, struct oracle_result *r);
bool oracle_native_trap(struct oracle_native *n, struct host_trap *t);

struct oracle_world; /* world.c: a sandboxed process, as direct execution uses it */
int oracle_world_create(struct oracle_world **out, struct host_err *err);
void oracle_world_destroy(struct oracle_world *o);
struct host_ram *oracle_world_ram(struct oracle_world *o);
void oracle_world_run(struct oracle_world *o, const struct oracle_case *c, struct oracle_result *r);

#endif
