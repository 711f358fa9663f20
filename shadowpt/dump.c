/* The shadow, for people: runs of gva -> gpa per window, and the traced pages. */
#include "state.h"

#include <inttypes.h>

/* Entries that print as one run: same flags, next frame. */
static bool follows(const struct leaf *l, unsigned at)
{
    return l->e[at].v == l->e[at - 1].v + (1u << 8);
}

static void dump_leaf(const struct leaf *l, FILE *out)
{
    for (unsigned at = 0, end; at < LEAF_PAGES; at = end) {
        uint32_t v = l->e[at].v;
        for (end = at + 1; v && end < LEAF_PAGES && follows(l, end);)
            ++end;
        if (!v)
            continue;
        uint32_t gva = ((uint32_t)l->slot << LEAF_SHIFT) + (at << PAGE_SHIFT);
        fprintf(out, "  %08" PRIx32 "-%08" PRIx32 " -> %09" PRIx64 " %s%s%s\n", gva,
                gva + ((end - at) << PAGE_SHIFT) - 1, (uint64_t)E_GFN(v) << PAGE_SHIFT,
                v & E_MAP ? v & E_W ? "rw" : "r-" : "--", v & E_FETCH ? " code" : "",
                (v & E_STALE) || l->stale == ALL_STALE ? " stale" : "");
    }
}

static void dump_space(const struct spt *s, const struct space *sp, const char *what, FILE *out)
{
    fprintf(out, "%s %u: %" PRIu32 " pages mapped%s\n", what, sp->number, sp->mapped,
            sp == s->cur ? ", current" : "");
    for (unsigned slot = 0; slot < LEAF_SLOTS; ++slot)
        if (sp->leaf[slot])
            dump_leaf(&s->leaf[sp->leaf[slot]], out);
}

void spt_dump(const struct spt *s, FILE *out)
{
    const struct space *sp;
    dump_space(s, s->kernel, "kernel window", out);
    TAILQ_FOREACH(sp, &s->live, lru)
    dump_space(s, sp, "user window", out);
    fprintf(out, "%" PRIu32 " page-table pages traced; at most %u of %u host mappings\n", s->pt_count,
            s->maps, s->max_maps);
}

void spt_trace(struct spt *s, FILE *out)
{
    s->trace = out;
}

void trace_line(const struct spt *s, const struct space *sp, const char *what, uint32_t gva, uint64_t pages)
{
    fprintf(s->trace, "shadow: ");
    if (!sp)
        fprintf(s->trace, "%s frame %05" PRIx32 "\n", what, gva);
    else
        fprintf(s->trace, "%s %u: %s %08" PRIx32 ", %" PRIu64 " page%s\n", sp->number ? "user" : "kernel",
                sp->number, what, gva, pages, pages == 1 ? "" : "s");
}
