/* A function changes the mode of the CPU and returns: its caller goes on in the new one. The callers run in the old one
 * first, so that a translation of them for it is at hand. */
#include "lib/guest.h"

/* What the function below does to the machine before it returns. */
static void (*volatile change)(void);

static void nothing(void) {}

static void set_ts(void)
{
    WRITE_CR(0, READ_CR(0) | CR0_TS);
}

static void no_sse(void)
{
    WRITE_CR(4, READ_CR(4) & ~(u32)CR4_OSFXSR);
}

static void set_em(void)
{
    WRITE_CR(0, READ_CR(0) | CR0_EM);
}

static void restore(void)
{
    WRITE_CR(0, READ_CR(0) & ~(u32)(CR0_TS | CR0_EM));
    WRITE_CR(4, READ_CR(4) | CR4_OSFXSR | CR4_OSXMM);
}

static const struct {
    const char *what;
    void (*change)(void);
    u32 x87, sse; /* vectors wanted: SDM vol. 3 2.5 */
} rows[] = {
    {"nothing changes", nothing, NO_TRAP, NO_TRAP},
    {"CR0.TS is set", set_ts, 7, 7},
    {"CR0.EM is set", set_em, 7, 6},
    {"CR4.OSFXSR is cleared", no_sse, NO_TRAP, 6},
};

static ONE_COPY void x87_after_it(void)
{
    change();
    __asm__ volatile("fnop");
}

static ONE_COPY void sse_after_it(void)
{
    change();
    __asm__ volatile("xorps %xmm0, %xmm0");
}

void guest_main(void)
{
    restore();
    for (unsigned round = 0; round < 4; round++)
        for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
            change = nothing;
            for (unsigned warm = 0; warm < 3; warm++) {
                x87_after_it();
                sse_after_it();
            }
            change = rows[i].change;
            TRY(x87_after_it());
            restore();
            check(trap.vector == rows[i].x87, "%s: x87 after the return", rows[i].what);
            TRY(sse_after_it());
            restore();
            check(trap.vector == rows[i].sse, "%s: SSE after the return", rows[i].what);
        }
}
