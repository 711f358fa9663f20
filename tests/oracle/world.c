/*
 * The physical CPU once more: the sequence runs in a world, the sandboxed process that direct execution uses, with the
 * same memory and the same state carried across. So what is compared includes the crossing: registers, flags, x87, SSE and
 * AVX state in and out, and the fault as the host's kernel hands it over.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "oracle.h"

enum { SLOT_CODE = 10, SLOT_DATA, SLOT_GS };

struct oracle_world {
    struct host_ram ram;
    struct host_counts counts;
    struct host_world *w;
    struct host_world_state st;
};

static void map_all(struct oracle_world *o)
{
    static const int prot[] = {[ORACLE_RW] = PROT_READ | PROT_WRITE, [ORACLE_RO] = PROT_READ};
    host_world_map(o->w, ORACLE_CODE, ORACLE_CODE, ORACLE_CODE_SIZE, PROT_READ | PROT_EXEC);
    host_world_map(o->w, ORACLE_EXIT, ORACLE_EXIT, HOST_PAGE, PROT_READ | PROT_EXEC);
    for (unsigned p = 0; p < ORACLE_PAGES; p++)
        if (oracle_page_kind(p) == ORACLE_RW || oracle_page_kind(p) == ORACLE_RO)
            host_world_map(o->w, ORACLE_DATA + p * HOST_PAGE, ORACLE_DATA + p * HOST_PAGE, HOST_PAGE,
                           prot[oracle_page_kind(p)]);
}

static int set_segments(struct oracle_world *o, struct host_err *err)
{
    enum { DATA = 2, CODE = 10 }; /* writable; readable code */
    const struct host_world_segment code = {0, UINT32_MAX, CODE, true, true},
                                    data = {0, UINT32_MAX, DATA, true, true},
                                    gs = {ORACLE_DATA, UINT32_MAX, DATA, true, true};
    if (host_world_segment(o->w, SLOT_CODE, &code) || host_world_segment(o->w, SLOT_DATA, &data) ||
        host_world_segment(o->w, SLOT_GS, &gs))
        return host_fail(err, "the host refuses a flat segment");
    return 0;
}

int oracle_world_create(struct oracle_world **out, struct host_err *err)
{
    static const uint8_t exit_code[] = {0xcd, ORACLE_ENDED}; /* int 80h */
    struct oracle_world *o = aligned_alloc(64, (sizeof *o + 63) & ~(size_t)63);
    if (!o)
        return host_fail(err, "no memory");
    memset(o, 0, sizeof *o);
    if (host_worlds_probe(err) || host_ram_init(&o->ram, ORACLE_RAM, err) ||
        host_world_create(&o->w, &o->ram, &o->counts, err) || set_segments(o, err)) {
        free(o);
        return -1;
    }
    memset(o->ram.base + ORACLE_CODE, 0xf4, ORACLE_CODE_SIZE);
    memcpy(o->ram.base + ORACLE_EXIT, exit_code, sizeof exit_code);
    map_all(o);
    *out = o;
    return 0;
}

void oracle_world_destroy(struct oracle_world *o)
{
    if (!o)
        return;
    host_world_destroy(o->w);
    host_ram_finish(&o->ram);
    free(o);
}

struct host_ram *oracle_world_ram(struct oracle_world *o)
{
    return &o->ram;
}

static void take(const struct host_world_exit *ex, struct oracle_result *r)
{
    switch (ex->why) {
    case HOST_WORLD_SYSCALL:
        r->vector = ORACLE_ENDED;
        break;
    case HOST_WORLD_TRAP:
        r->vector = ex->vector;
        r->error = ex->vector >= RC_TS && ex->vector <= RC_PFAULT ? ex->error : 0;
        r->cr2 = ex->vector == RC_PFAULT ? ex->addr : 0;
        if (ex->vector == RC_PFAULT && oracle_is_supervisor(r->cr2))
            r->error |= 1;
        break;
    default:
        r->vector = ORACLE_STOPPED;
        snprintf(r->why, sizeof r->why, "world exit %d: %.120s", (int)ex->why, ex->text);
    }
}

void oracle_world_run(struct oracle_world *o, const struct oracle_case *c, struct oracle_result *r)
{
    struct host_world_exit ex;
    struct host_world_state *st = &o->st;
    const uint16_t data = HOST_WORLD_SELECTOR(SLOT_DATA);
    memcpy(st->gpr, c->gpr, sizeof st->gpr);
    memcpy(st->fpu, c->fpu, sizeof st->fpu);
    st->eip = c->eip;
    st->eflags = c->eflags | RC_IF | 2;
    memcpy(st->sel,
           (uint16_t[6]){data, HOST_WORLD_SELECTOR(SLOT_CODE), data, data, 0, HOST_WORLD_SELECTOR(SLOT_GS)},
           sizeof st->sel);
    memset(r, 0, sizeof *r);
    do
        host_world_run(o->w, st, &ex);
    while (ex.why == HOST_WORLD_KICK);
    take(&ex, r);
    r->eip = st->eip;
    r->eflags = st->eflags;
    memcpy(r->gpr, st->gpr, sizeof r->gpr);
    memcpy(r->fpu, st->fpu, sizeof r->fpu);
    bt_xstate_complete(r->fpu);
}
