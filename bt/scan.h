/*
 * The scan: may a page of user code run natively? A pure function of its bytes and of where instructions are known to
 * begin. Used by direct.c, which remembers the answers.
 */
#ifndef BT_SCAN_H
#define BT_SCAN_H

#include "insn.h"

/* What a page that may run needs of the guest's state at that time. */
enum bt_scan_need {
    BT_NEED_TSC = 1, /* RDTSC: the guest's TSC must be the host's, CR4.TSD clear */
    BT_NEED_AVX = 2, /* VEX-coded vector instructions: CR4.OSXSAVE and XCR0 of the guest must allow them */
    BT_NEED_BMI = 4, /* BMI1, BMI2, TZCNT: the guest must be offered them */
};

#define BT_SCAN_BEFORE 64u
#define BT_SCAN_AFTER  15u

struct bt_scan;
struct bt_scan *bt_scan_create(void); /* NULL: no memory */
void bt_scan_destroy(struct bt_scan *s);

struct bt_verdict {
    bool refused;
    uint8_t needs;      /* enum bt_scan_need, when not refused */
    uint16_t at;        /* offset of the instruction that decided */
    const char *reason; /* what it is: a mnemonic of sensitive.def, or a phrase */
};

/* A page and its surroundings in linear memory, as far as they are known. */
struct bt_scan_text {
    uint8_t byte[BT_SCAN_BEFORE + 4096 + BT_SCAN_AFTER];
    bool has_before, has_after;
    uint64_t entry[64]; /* a bit per byte of the page where an instruction is known to begin */
};
/* The same question about len bytes that are known to be instructions, the first one's begin given. */
struct bt_verdict bt_scan_run(struct bt_scan *s, const uint8_t *code, unsigned len);
struct bt_verdict bt_scan_page(struct bt_scan *s, const struct bt_scan_text *text);

#endif
