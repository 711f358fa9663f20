/* The debug-exit port passes its value on: (v << 1) | 1. */
#include "lib/guest.h"

void guest_main(void)
{
    guest_exit_value(VARIANT);
}
