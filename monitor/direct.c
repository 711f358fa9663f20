/* Worlds: made, given to address spaces, kept like the user window, taken back. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "direct.h"

enum { DIRECT_WORLDS = 32 };
/* What waits in a resting world's queue costs nothing until it runs again. More would be handed over to it meanwhile. */
enum { DIRECT_TOLD_MAX = 700 };

void direct_say(struct direct *d, const char *fmt, ...)
{
    va_list args;

    if (!d->trace)
        return;
    fprintf(d->trace, "world: %.6f ", (double)host_clock_ns(&d->vm->clock) / 1e9);
    va_start(args, fmt);
    vfprintf(d->trace, fmt, args);
    va_end(args);
    fputc('\n', d->trace);
}

static void direct_notice(struct direct *d, const char *what, const char *why)
{
    if (!d->noticed)
        fprintf(stderr, "ringlet: %s: %s\n", what, why);
    d->noticed = true;
}

/* ---- Life ---- */

static void direct_world_destroy(struct direct *d, struct direct_world *w)
{
    TAILQ_REMOVE(&d->worlds, w, lru);
    d->made--;
    host_world_destroy(w->host);
    free(w);
}

/* The event alone is what direct_sample waits for. */
static void direct_looked(void *ctx)
{
    (void)ctx;
}

int direct_create(struct vm *vm, struct host_err *err)
{
    struct host_err why;
    struct direct *d;

    if (vm->cfg.user == VM_USER_TRANSLATE || vm->cfg.engine != BT_TRANSLATE || vm->cfg.virtual_clock)
        return 0;
    /* auto finds out when it needs to: many guests never do */
    if (vm->cfg.user == VM_USER_DIRECT && host_worlds_probe(&why) < 0)
        return host_fail(err, "--user direct is not possible here: %.400s", why.text);
    d = calloc(1, sizeof(*d));
    if (!d)
        return host_fail(err, "no memory for direct execution");
    d->vm = vm;
    d->policy = vm->cfg.user;
    d->max = vm->cfg.worlds ? vm->cfg.worlds : DIRECT_WORLDS;
    d->trace = vm->cfg.trace & VM_TRACE_WORLD ? vm->cfg.trace_out : NULL;
    TAILQ_INIT(&d->worlds);
    vm->direct = d;
    d->look = host_timer_create(vm->loop, direct_looked, NULL);
    if (!d->look) {
        direct_destroy(vm);
        return host_fail(err, "no memory for direct execution");
    }
    if (d->policy == VM_USER_DIRECT && bt_direct_space(vm->vcpu, SPT_KERNEL_SPACE, true, err) < 0) {
        direct_destroy(vm);
        return -1;
    }
    return 0;
}

void direct_destroy(struct vm *vm)
{
    struct direct *d = vm->direct;
    struct direct_world *w;

    vm->direct = NULL;
    if (!d)
        return;
    while ((w = TAILQ_FIRST(&d->worlds)))
        direct_world_destroy(d, w);
    if (d->look)
        host_timer_destroy(d->look);
    free(d);
}

/* Every space is gone by now (the reset turned paging off), and with it each world's memory. */
void direct_reset(struct vm *vm)
{
    struct direct *d = vm->direct;

    if (!d)
        return;
    for (unsigned i = 0; i < SPT_MAX_SPACES; i++)
        if (d->space[i].world)
            direct_world_put(d, d->space[i].world);
    memset(d->space, 0, sizeof(d->space));
}

/* ---- A world's memory is what shadowpt says the user window shows ---- */

static struct host_world *direct_host_world(void *ctx, unsigned space)
{
    struct vm *vm = ctx;
    struct direct_world *w = vm->direct ? vm->direct->space[space].world : NULL;

    if (w && w->rests && ++w->told > DIRECT_TOLD_MAX)
        return NULL;
    return w ? w->host : NULL;
}

void direct_user_map(void *ctx, unsigned space, uint32_t gva, uint64_t gpa, uint64_t len, int prot)
{
    struct host_world *w = direct_host_world(ctx, space);

    if (w)
        host_world_map(w, gva, gpa, len, prot);
}

void direct_user_unmap(void *ctx, unsigned space, uint32_t gva, uint64_t len)
{
    struct host_world *w = direct_host_world(ctx, space);

    if (w)
        host_world_unmap(w, gva, len);
}

void direct_user_reset(void *ctx, unsigned space, bool gone)
{
    struct vm *vm = ctx;
    struct direct_world *w = vm->direct ? vm->direct->space[space].world : NULL;

    if (!w)
        return;
    host_world_reset(w->host);
    w->told = 0;
    if (!gone)
        return;
    w->space = 0;
    w->rests = false;
    vm->direct->space[space].world = NULL;
    TAILQ_REMOVE(&vm->direct->worlds, w, lru);
    TAILQ_INSERT_TAIL(&vm->direct->worlds, w, lru);
}

/* ---- Who has which ---- */

void direct_world_put(struct direct *d, struct direct_world *w)
{
    if (w->space) {
        spt_follow(bt_spt(d->vm->vcpu), w->space, false);
        host_world_reset(w->host);
        d->space[w->space].world = NULL;
        w->space = 0;
        w->rests = false;
    }
    TAILQ_REMOVE(&d->worlds, w, lru);
    TAILQ_INSERT_TAIL(&d->worlds, w, lru);
}

void direct_world_lost(struct direct *d, struct direct_world *w)
{
    if (w->space) {
        spt_follow(bt_spt(d->vm->vcpu), w->space, false);
        d->space[w->space].world = NULL;
    }
    d->vm->counts.worlds_lost++;
    direct_world_destroy(d, w);
}

static struct direct_world *direct_world_make(struct direct *d)
{
    struct direct_world *w = calloc(1, sizeof(*w));
    struct host_err err = {"no memory"};

    if (!w || host_world_create(&w->host, &d->vm->ram, &d->vm->host, &err) < 0) {
        free(w);
        direct_notice(d,
                      d->made ? "no more worlds for direct execution"
                              : "no direct execution, user code is translated",
                      err.text);
        d->max = d->made; /* do with what there is */
        if (!d->made)
            d->policy = VM_USER_TRANSLATE;
        return NULL;
    }
    rc_world_init(&w->segments);
    d->made++;
    d->vm->counts.worlds_made++;
    TAILQ_INSERT_TAIL(&d->worlds, w, lru);
    return w;
}

static struct direct_world *direct_world_find(struct direct *d)
{
    struct direct_world *w = TAILQ_LAST(&d->worlds, direct_queue);

    if (w && !w->space)
        return w;
    if (d->made < d->max && (w = direct_world_make(d)))
        return w;
    w = TAILQ_LAST(&d->worlds, direct_queue);
    if (w && w->space) {
        direct_say(d, "space %u gives up its world", w->space);
        d->vm->counts.worlds_taken++;
        direct_world_put(d, w);
    }
    return w;
}

void direct_world_rest(struct direct_world *w)
{
    w->rests = true;
    w->told = 0;
}

bool direct_world_spoiled(const struct direct_world *w)
{
    return w->rests && w->told > DIRECT_TOLD_MAX;
}

/* It rested too long, or the guest has changed what its programs may do (CR4.TSD for one): pages that might run may not now,
 * or again. */
static void direct_world_refill(struct direct *d, struct direct_world *w)
{
    unsigned grants = bt_direct_grants(d->vm->vcpu);
    bool spoiled = direct_world_spoiled(w);

    w->rests = false;
    if (w->grants == grants && !spoiled)
        return;
    w->grants = grants;
    host_world_reset(w->host);
    spt_follow(bt_spt(d->vm->vcpu), w->space, true);
}

struct direct_world *direct_world_get(struct direct *d, unsigned space)
{
    struct direct_world *w = d->space[space].world;

    if (!w) {
        w = direct_world_find(d);
        if (!w)
            return NULL;
        w->space = space;
        d->space[space].world = w;
        direct_say(d, "space %u has a world", space);
        w->grants = bt_direct_grants(d->vm->vcpu);
        spt_follow(bt_spt(d->vm->vcpu), space, true); /* tells it all that the window shows */
    }
    direct_world_refill(d, w);
    TAILQ_REMOVE(&d->worlds, w, lru);
    TAILQ_INSERT_HEAD(&d->worlds, w, lru);
    return w;
}

/* In the trap handler: a world that is running, or about to, comes out. */
void direct_kicked(void *ctx)
{
    struct vm *vm = ctx;
    struct host_world *w = vm->direct ? vm->direct->running : NULL;

    if (w)
        host_world_kick(w);
}
