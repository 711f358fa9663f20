/*
 * oracle COUNT SEED: that many random sequences, each three times; the first that differs is made as small as it gets
 * and shown. Sequence n of seed s is sequence 0 of seed s + n.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "run.h"

/*T:825 The oracle: the CPU itself
 *
 * Lock step compares two programs of ours, and what both have wrong it does not see. But this machine has the real thing:
 * a user-mode instruction can be executed by the CPU, in 32-bit compatibility mode, with the same registers and the same
 * memory. So the dice write a sequence, three engines run it from the same state, and registers, flags, memory and the
 * fault that ended it must be equal. Only what the manual calls undefined is left out, by a table that names its source.
 * A divergence is useless as a list of forty instructions, so it is shrunk first: whatever can be taken out while the
 * engines still disagree is taken out.
:*/

struct options {
    uint64_t count, seed;
    const char *plant;
    bool verify, keep_going, show, world;
};

static int usage(void)
{
    fprintf(stderr,
            "oracle [options] COUNT SEED: random instruction sequences, interpreted, translated, native\n"
            "  --no-verify       without the SFI verifier (faster)\n"
            "  --world           run natively in a world, as direct execution does (slower)\n"
            "  --keep-going      show every divergence, not only the first\n"
            "  --plant MNEMONIC  pretend that the interpreter gets this instruction wrong\n"
            "exit status: 0 all equal, 1 divergence, 2 could not run\n");
    return 2;
}

static bool parse(struct options *o, int argc, char **argv)
{
    static const struct option name[] = {{"no-verify", 0, NULL, 'n'}, {"keep-going", 0, NULL, 'k'},
                                         {"show", 0, NULL, 's'},      {"world", 0, NULL, 'w'},
                                         {"plant", 1, NULL, 'p'},     {0}};
    for (int c; (c = getopt_long(argc, argv, "", name, NULL)) != -1;) {
        switch (c) {
        case 'n':
            o->verify = false;
            break;
        case 'k':
            o->keep_going = true;
            break;
        case 'w':
            o->world = true;
            break;
        case 's':
            o->show = true;
            break;
        case 'p':
            o->plant = optarg;
            break;
        default:
            return false;
        }
    }
    if (argc - optind != 2)
        return false;
    o->count = strtoull(argv[optind], NULL, 0);
    o->seed = strtoull(argv[optind + 1], NULL, 0);
    return o->count > 0;
}

static void summary(const struct oracle *o, uint64_t done, time_t since)
{
    unsigned mnemonics = 0;
    uint64_t faults = 0;
    for (unsigned k = 0; k < ZYDIS_MNEMONIC_MAX_VALUE; k++)
        mnemonics += o->met[k];
    for (unsigned k = 0; k < 32; k++)
        faults += o->vectors[k];
    printf("%" PRIu64 " sequences, %" PRIu64 " instructions of %u mnemonics, %" PRIu64 " faults (", done,
           o->insns, mnemonics, faults);
    for (unsigned k = 0, any = 0; k < 32; k++)
        if (o->vectors[k])
            printf("%s%u: %" PRIu64, any++ ? ", " : "", k, o->vectors[k]);
    printf("), %" PRIu64 " discarded, %" PRIu64 " divergences, %ld s\n", o->discarded, o->divergences,
           (long)(time(NULL) - since));
    fflush(stdout);
}

/* The dice are worthless if they always fall the same way. */
static bool enough(const struct oracle *o, uint64_t count)
{
    static const uint8_t needed[] = {RC_DE, RC_UD, RC_GP, RC_PFAULT, RC_MF, RC_XM};
    unsigned mnemonics = 0;
    for (unsigned k = 0; k < ZYDIS_MNEMONIC_MAX_VALUE; k++)
        mnemonics += o->met[k];
    if (count < 5000)
        return true;
    for (unsigned k = 0; k < sizeof needed; k++)
        if (!o->vectors[needed[k]]) {
            printf("exception %u was never met\n", needed[k]);
            return false;
        }
    if (mnemonics < 450)
        printf("only %u mnemonics were met\n", mnemonics);
    return mnemonics >= 450;
}

static int drive(struct oracle *o, const struct options *opt)
{
    static struct oracle_case c;
    time_t start = time(NULL), shown = start;
    uint64_t n;
    for (n = 0; n < opt->count; n++) {
        if (n % 256 == 0) {
            alarm(20);
            oracle_refresh(o);
        }
        if (!oracle_one(o, &c, opt->seed + n) && !opt->keep_going)
            return 1;
        if (time(NULL) - shown >= 30) {
            shown = time(NULL);
            summary(o, n + 1, start);
        }
    }
    alarm(0);
    summary(o, n, start);
    return o->divergences || !enough(o, opt->count);
}

int main(int argc, char **argv)
{
    struct options opt = {.verify = true};
    struct host_err err;
    struct oracle *o;
    int result = 2;
    if (!parse(&opt, argc, argv))
        return usage();
    if (oracle_create(&o, opt.verify, opt.world, &err)) {
        fprintf(stderr, "oracle: %s\n", err.text);
        return 2;
    }
    o->show = opt.show;
    if (opt.plant && !oracle_plant(o, opt.plant))
        fprintf(stderr, "oracle: there is no instruction %s\n", opt.plant);
    else if (!oracle_regressions(o))
        result = 1;
    else
        result = drive(o, &opt);
    oracle_destroy(o);
    return result;
}
