/* The sensitive-instruction table as data. */
#include "ring.h"

/*T:500 Seventeen instructions
 *
 * Popek and Goldberg (1974): a machine can be virtualized by running the guest without privilege if every
 * instruction that reads or changes privileged state *traps* there. The x86 breaks the rule in seventeen
 *places. Some leak: SGDT tells any program where the host's GDT is. Some are silent: POPF drops the interrupt
 *flag and says nothing. A monitor cannot wait for them to fault, it has to find them before they run. That is
 *what binary translation is for, and the whole of what it must do to kernel code: every other instruction
 *could be copied.
 *
 * The table below (in sensitive.def) has one row for each, with one reason and one action. An instruction of
 * these classes that has no row is refused, never copied.
 *:*/
const struct rc_sensitive rc_sensitive_table[] = {
#define RC_SENSITIVE(mnemonic, form, reason, why, action) {mnemonic, form, reason, why, action},
#include "ringcomp/sensitive.def"
#undef RC_SENSITIVE
};

const unsigned rc_sensitive_count = sizeof rc_sensitive_table / sizeof *rc_sensitive_table;
