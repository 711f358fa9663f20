/* What a program has cost and gained by running directly: figures in, decisions out. */
#include "direct.h"

/*T:270 When a trap is worth it
 * Going into a world and out again costs some ten microseconds, a system call of translated code a third of one; filling
 * a world with what a program has mapped costs milliseconds. A world pays when user code runs for long without leaving:
 * then it runs at full speed, where translated code may take one and a half times as long, or only as long. Nobody knows
 * beforehand what a program will do, nor what translation costs it. So each starts translated. When a device's
 * interrupt finds a program in user mode, which happens hundreds of times a second, the returns from the kernel since
 * the last such time are counted: few of them mean that it computes.
 *
 * From then on there is a ledger. Crossings and mappings are written down as they come; a fixed share of the
 * time spent inside counts as gained. Should the losses exceed a twentieth of the time that the program has run at all,
 * it is translated again, and directly once more only when that share has grown enough to pay for another try. So
 * whatever a program does, trying costs it no more than that. Losses from filling the world and from learning which
 * pages may run are investments: the next try begins better. A program that keeps calling into a page that stays
 * translated will do so the next time, too: each such try makes the next one twice as late.
 * :*/
static const uint64_t promote_stretch_ns = 100000; /* mean time between two returns to user mode */
enum {
    LOOK_NS = 1000000,        /* so long inside, before a world's own clock is looked at */
    PROMOTE_SAMPLES = 2,      /* in a row */
    SAMPLE_MIN_NS = 500000,   /* closer samples are one */
    SAMPLE_MAX_NS = 10000000, /* a sample stands for no more than this */
    GAIN = 2,                 /* one part in so many of the time inside is gained */
    LOSS = 20,                /* one part in so many of all time may be lost */
    LOSS_MIN_NS = 500000,     /* and this much whatever the time: a burst of exits means nothing */
    CREDIT_MAX_NS = 5000000,  /* nobody lives for ever on what was gained long ago */
    TRY_NS = 300000,          /* what a try costs beside the mappings */
    MAPS_GUESS = 200,
    STORM_NS = 35000, /* exits that follow each other as fast as this, so many of them: a storm */
    STORM_EXITS = 16,
    SHORT_NS = 2000000, /* who is paused so soon after the last time waits twice as long */
    WAIT_MIN_NS = 1000000,
    WAIT_BLOCKS = 8,
    WAIT_DOUBLINGS = 4,
    BACKOFF_MAX = 63, /* tries become rarer by this much and one at most */
};

void direct_ledger_open(struct direct_space *s, uint64_t serial)
{
    *s = (struct direct_space){.world = s->world, .serial = serial, .maps = MAPS_GUESS};
}

static int64_t ledger_budget(const struct direct_space *s)
{
    return (int64_t)(s->user_ns / LOSS) + LOSS_MIN_NS;
}

static bool ledger_pays_a_try(const struct direct_space *s)
{
    return s->debt_ns + (TRY_NS + (int64_t)s->maps * DIRECT_MAP_NS) * (1 + s->backoff) <= ledger_budget(s);
}

void direct_ledger_entered(struct direct_space *s)
{
    s->on = true;
    s->paused = false;
    s->tried_debt_ns = s->debt_ns;
    s->refused_ns = 0;
}

bool direct_ledger_seen(struct direct_space *s, uint64_t now_ns, uint64_t since_ns, uint64_t returns,
                        uint64_t *stretch_ns)
{
    if ((s->on && !s->paused) || s->barred)
        return false;
    s->user_ns += since_ns < SAMPLE_MAX_NS ? since_ns : SAMPLE_MAX_NS;
    if (now_ns - s->seen_ns < SAMPLE_MIN_NS)
        return false;
    *stretch_ns = (now_ns - s->seen_ns) / (returns - s->seen_returns + 1);
    s->computing = s->seen_ns && *stretch_ns >= promote_stretch_ns ? s->computing + 1 : 0;
    s->seen_ns = now_ns;
    s->seen_returns = returns;
    if (s->paused)
        return s->computing && now_ns - s->paused_ns >= s->wait_ns;
    return s->computing >= PROMOTE_SAMPLES && ledger_pays_a_try(s);
}

void direct_ledger_resumed(struct direct_space *s)
{
    s->paused = false;
    s->resumed_ns = s->user_ns;
}

bool direct_ledger_undecided(const struct direct_space *s)
{
    return !s->on && !s->barred && s->computing == 1;
}

bool direct_ledger_storm(struct direct_space *s, const struct direct_bill *b)
{
    s->storm = b->inside_ns < STORM_NS ? s->storm + b->needless : 0;
    return s->storm >= STORM_EXITS;
}

void direct_ledger_paused(struct direct_space *s, uint64_t now_ns, uint64_t returns)
{
    bool again = s->resumed_ns && s->user_ns - s->resumed_ns < SHORT_NS;

    if (!again) {
        s->wait_ns = WAIT_MIN_NS;
        s->blocks = WAIT_BLOCKS;
    } else if (s->wait_ns < (uint64_t)WAIT_MIN_NS << WAIT_DOUBLINGS) {
        s->wait_ns *= 2;
        s->blocks *= 2;
    }
    s->paused = true;
    s->paused_ns = now_ns;
    s->storm = 0;
    s->computing = 0;
    s->seen_ns = now_ns;
    s->seen_returns = returns;
}

static void ledger_learn(struct direct_space *s)
{
    if (s->refused_ns * 2 > s->debt_ns - s->tried_debt_ns && s->backoff < BACKOFF_MAX)
        s->backoff = 2 * s->backoff + 1;
}

bool direct_ledger_exit(struct direct_space *s, const struct direct_bill *b)
{
    uint64_t useful = b->inside_ns > b->overhead_ns ? b->inside_ns - b->overhead_ns : 0;

    s->user_ns += useful;
    s->debt_ns += (int64_t)b->overhead_ns - (int64_t)(useful / GAIN + b->gained_ns);
    s->refused_ns += b->refused ? (int64_t)b->overhead_ns : 0;
    if (s->debt_ns < -CREDIT_MAX_NS) {
        s->debt_ns = -CREDIT_MAX_NS;
        s->backoff = 0;
    }
    if (s->debt_ns <= ledger_budget(s))
        return true;
    ledger_learn(s);
    return false;
}

void direct_ledger_left(struct direct_space *s)
{
    s->on = s->paused = false;
    s->seen_ns = 0;
}

/* On a busy host a world waits for the CPU as well, and a program that makes system calls only would seem to compute
 * meanwhile. To ask its clock is a system call: once in a millisecond. */
bool direct_ledger_looks(struct direct_watch *w, uint64_t inside_ns)
{
    w->unseen_ns += inside_ns;
    w->unseen_exits++;
    return w->unseen_ns >= LOOK_NS;
}

uint64_t direct_ledger_ran(struct direct_watch *w, uint64_t inside_ns, uint64_t cpu_ns)
{
    uint64_t ran = cpu_ns - w->cpu_ns + w->unseen_exits * (uint64_t)DIRECT_CROSSING_NS;
    uint64_t waited = cpu_ns && w->unseen_ns > ran ? w->unseen_ns - ran : 0;

    w->cpu_ns = cpu_ns;
    w->unseen_ns = w->unseen_exits = 0;
    return inside_ns > waited ? inside_ns - waited : 0;
}
