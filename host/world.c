/* Worlds: what is queued for them, and a run from entry to exit. */
#define _GNU_SOURCE
#include "world.h"
#include "entry.h"

#include <asm/ldt.h>
#include <errno.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The world that this thread is inside of: a kick of the thread is a kick of the world. */
static _Thread_local struct host_world *inside __attribute__((tls_model("initial-exec")));

/* One instruction, so that the way in and out is known to work, and not only the way to the door. */
static int probe_run(struct host_world *w, struct host_err *err)
{
    static const struct host_world_segment code = {0, 0xffffffff, 0xb, true, true};
    static const struct host_world_segment data = {0, 0xffffffff, 0x3, true, true};
    struct host_world_state st = {.eip = 1u << 20, .eflags = 2};
    struct host_world_exit ex;

    for (unsigned i = 0; i < 6; i++)
        st.sel[i] = HOST_WORLD_SELECTOR(i == 1 ? 1 : 2);
    if (host_world_segment(w, 1, &code) != 0 || host_world_segment(w, 2, &data) != 0)
        return host_fail(err, "world: no descriptors for 32-bit code");
    memcpy(w->ram->base, "\xcd\x80\xcc", 3); /* INT 80h, which a profile may forbid by killing; INT3 */
    host_world_map(w, st.eip, 0, HOST_PAGE, PROT_READ | PROT_EXEC);
    host_world_run(w, &st, &ex);
    if (ex.why == HOST_WORLD_SYSCALL)
        host_world_run(w, &st, &ex);
    if (ex.why == HOST_WORLD_TRAP && ex.vector == 3)
        return 0;
    return host_fail(err, "world: 32-bit code does not run on this host (%s)",
                     ex.text[0] ? ex.text : "another exception than expected");
}

int host_worlds_probe(struct host_err *err)
{
    struct host_ram ram;
    struct host_world *w;

    if (host_ram_init(&ram, HOST_PAGE, err) != 0)
        return -1;
    int failed = host_world_create(&w, &ram, NULL, err);
    if (!failed) {
        failed = probe_run(w, err);
        host_world_destroy(w);
    }
    host_ram_finish(&ram);
    return failed;
}

int host_world_create(struct host_world **out, const struct host_ram *ram, struct host_counts *counts,
                      struct host_err *err)
{
    struct host_world *w = calloc(1, sizeof(*w));

    *out = NULL;
    if (w) {
        w->calls = calloc(CALLS_MAX, sizeof(*w->calls));
        w->segments = calloc(HOST_WORLD_LDT_ENTRIES, sizeof(*w->segments));
    }
    if (!w || !w->calls || !w->segments) {
        host_fail(err, "out of memory for a world");
    } else {
        w->ram = ram;
        w->counts = counts;
        if (host_world_start(w, err) == 0) {
            *out = w;
            return 0;
        }
    }
    if (w) {
        free(w->calls);
        free(w->segments);
        free(w);
    }
    return -1;
}

void host_world_destroy(struct host_world *w)
{
    if (!w)
        return;
    host_world_unplace();
    host_world_stop(w);
    free(w->calls);
    free(w->segments);
    free(w);
}

bool host_world_cpuid_faults(const struct host_world *w)
{
    return w->cpuid_faults;
}

uint64_t host_world_cpu_ns(const struct host_world *w)
{
    clockid_t clock;

    return w->dead || clock_getcpuclockid(w->pid, &clock) != 0 ? 0 : host_read_clock(clock);
}

/* ---- The queue. ---- */

static bool is_segment(const struct world_call *call)
{
    return call->nr == SYS_modify_ldt;
}

static void flush(struct host_world *w)
{
    unsigned n = w->call_count, at;
    int error;

    w->call_count = 0;
    if (w->dead || n == 0)
        return;
    if (w->counts)
        w->counts->world_maps += n;
    if (host_world_order(w, &w->mapper, w->calls, n, &at, &error) == 0 || w->dead)
        return;
    const struct world_call *call = &w->calls[at < n ? at : 0];
    host_world_died(w, "cannot %s at 0x%llx in a world (%s)%s",
                    is_segment(call)         ? "set a segment"
                    : call->nr == SYS_munmap ? "unmap pages"
                                             : "map pages",
                    (unsigned long long)call->args[0], strerror(error),
                    error == ENOMEM ? "; raise sysctl vm.max_map_count" : "");
}

static struct world_call *enqueue(struct host_world *w)
{
    if (w->call_count == CALLS_MAX)
        flush(w);
    return &w->calls[w->call_count++];
}

static struct world_call *last(struct host_world *w)
{
    return w->call_count ? &w->calls[w->call_count - 1] : NULL;
}

/* Populated: what is mapped here the guest uses already, and a page fault in the world costs more than its share of this. */
#define MAP_FLAGS ((uint64_t)(MAP_SHARED | MAP_FIXED | MAP_POPULATE))

/* What was to happen to these pages, and nowhere else, is overtaken: a page is often shown, then allowed to be executed,
 * or hidden and shown anew, all before the world runs again. */
static void forget_overtaken(struct host_world *w, uint32_t gva, uint64_t len)
{
    const struct world_call *call;

    while ((call = last(w)) && !is_segment(call) && call->args[0] >= gva &&
           call->args[0] + call->args[1] <= gva + len)
        w->call_count--;
}

/* The next page of the same run: one mmap does for both. */
static bool extends(const struct world_call *call, uint32_t gva, uint64_t gpa, int prot)
{
    return call && call->nr == SYS_mmap && call->args[0] + call->args[1] == gva &&
           call->args[5] + call->args[1] == gpa && call->args[2] == (uint64_t)prot;
}

static bool range_ok(const struct host_world *w, uint32_t *gva, uint64_t *gpa, uint64_t *len)
{
    if (*gva % HOST_PAGE || *len % HOST_PAGE || *len == 0 || *len > HOST_WINDOW_SIZE - *gva)
        return false;
    /* What this host does not let us map stays unmapped; code that uses it faults. */
    uint64_t cut = *gva < w->lowest ? w->lowest - *gva : 0;
    if (cut >= *len)
        return false;
    *gva += (uint32_t)cut;
    *gpa += cut;
    *len -= cut;
    return true;
}

void host_world_map(struct host_world *w, uint32_t gva, uint64_t gpa, uint64_t len, int prot)
{
    if (!range_ok(w, &gva, &gpa, &len) || gpa % HOST_PAGE || gpa > w->ram->size || len > w->ram->size - gpa)
        return;
    prot &= PROT_READ | PROT_WRITE | PROT_EXEC;
    forget_overtaken(w, gva, len);
    struct world_call *call = last(w);
    if (extends(call, gva, gpa, prot)) {
        call->args[1] += len;
        return;
    }
    *enqueue(w) =
        (struct world_call){.nr = SYS_mmap, .args = {gva, len, (uint64_t)prot, MAP_FLAGS, WORLD_FD_RAM, gpa}};
}

void host_world_unmap(struct host_world *w, uint32_t gva, uint64_t len)
{
    uint64_t ignored = 0;

    if (!range_ok(w, &gva, &ignored, &len))
        return;
    forget_overtaken(w, gva, len);
    struct world_call *call = last(w);
    if (call && call->nr == SYS_munmap && call->args[0] + call->args[1] == gva)
        call->args[1] += len;
    else
        *enqueue(w) = (struct world_call){.nr = SYS_munmap, .args = {gva, len}};
}

/* A descriptor travels in the arguments that modify_ldt does not have. */
static void point_at_descriptor(const struct host_world *w, struct world_call *call)
{
    call->args[1] = WORLD_ORDERS + ORDERS_CALLS + (uint64_t)(call - w->calls) * CALL_BYTES +
                    offsetof(struct world_call, args[3]);
}

void host_world_reset(struct host_world *w)
{
    unsigned kept = 0;

    /* What was to be mapped need not be; what was to be a segment still does. */
    for (unsigned i = 0; i < w->call_count; i++)
        if (is_segment(&w->calls[i])) {
            w->calls[kept] = w->calls[i];
            point_at_descriptor(w, &w->calls[kept++]);
        }
    w->call_count = kept;
    w->used = true;
    host_world_unmap(w, 0, HOST_WINDOW_SIZE);
}

/* ---- Segments. ---- */

enum { TYPE_CODE = 8, TYPE_EXPAND_DOWN_OR_CONFORMING = 4, TYPE_READ_OR_WRITE = 2 };

/* SDM vol. 3 3.4.5: with G the low 12 bits of the limit are ones. */
static bool limit_fits(uint32_t limit)
{
    return limit <= 0xfffff || (limit & 0xfff) == 0xfff;
}

static bool refused(const struct host_world *w, const struct host_world_segment *s)
{
    bool conforming = (s->type & TYPE_CODE) && (s->type & TYPE_EXPAND_DOWN_OR_CONFORMING);
    /* Linux takes conforming code only when it is not present. */
    return s->type > 15 || !limit_fits(s->limit) || (conforming && s->present) ||
           (!s->big && !w->small_segments);
}

static struct user_desc descriptor(unsigned index, const struct host_world_segment *s)
{
    struct user_desc d = {.entry_number = index};

    if (!s) {
        /* Linux' notion of an empty entry (LDT_empty, LDT_zero): all else is made into a descriptor. */
        d.read_exec_only = d.seg_not_present = 1;
        return d;
    }
    d.base_addr = s->base;
    d.limit_in_pages = s->limit > 0xfffff;
    d.limit = d.limit_in_pages ? s->limit >> 12 : s->limit;
    d.contents = (unsigned)(s->type >> 2) & 3;
    d.read_exec_only = !(s->type & TYPE_READ_OR_WRITE);
    d.seg_32bit = s->big;
    d.seg_not_present = !s->present;
    return d;
}

int host_world_segment(struct host_world *w, unsigned index, const struct host_world_segment *seg)
{
    static const struct host_world_segment empty;

    if (index >= HOST_WORLD_LDT_ENTRIES || (seg && refused(w, seg)))
        return -1;
    struct host_world_segment *now = &w->segments[index];
    const struct host_world_segment *wanted = seg ? seg : &empty;
    if (now->base == wanted->base && now->limit == wanted->limit && now->type == wanted->type &&
        now->present == wanted->present && now->big == wanted->big)
        return 0;
    *now = *wanted;
    struct user_desc d = descriptor(index, seg);
    struct world_call *call = enqueue(w);
    *call = (struct world_call){.nr = SYS_modify_ldt, .args = {0x11, 0, sizeof(d)}};
    point_at_descriptor(w, call);
    memcpy(&call->args[3], &d, sizeof(d));
    return 0;
}

/* ---- A run. ---- */

static bool selectors_ok(const struct host_world *w, const struct host_world_state *st)
{
    for (unsigned i = 0; i < 6; i++) {
        uint16_t sel = st->sel[i];
        const struct host_world_segment *s = &w->segments[sel >> 3];
        bool code = s->type & TYPE_CODE, rw = s->type & TYPE_READ_OR_WRITE;
        bool fits = i == 1 ? code : i == 2 ? !code && rw : !code || rw;
        if (sel < 4 && i != 1 && i != 2)
            continue;
        if (!(sel & 4) || !s->present || !fits || ((i == 1 || i == 2) && (sel & 3) != 3))
            return false;
    }
    return true;
}

static bool small_stack(const struct host_world *w, const struct host_world_state *st)
{
    return !w->segments[st->sel[2] >> 3].big;
}

/* Why not, or NULL. What is refused here the stub could not load, or not exactly. */
static const char *refused_entry(const struct host_world *w, const struct host_world_state *st)
{
    enum { EFLAGS_TF = 0x100 };

    if (!selectors_ok(w, st))
        return "entered with a selector that is not in the world's LDT";
    if (small_stack(w, st) && (st->eflags & EFLAGS_TF))
        return "entered to make a single step on a 16-bit stack";
    return NULL;
}

static bool take_kick(struct host_world *w)
{
    return __atomic_exchange_n(&w->kicked, 0, __ATOMIC_SEQ_CST) != 0;
}

/* The next program is another, and must not find what the one before left on the signal stack. */
static void erase_state(struct host_world *w)
{
    if (w->used)
        memset(w->state, 0, WORLD_STATE_BYTES);
    w->used = false;
}

/* From here on a kick is a signal to the world; one that came before is seen now. */
static bool enter(struct host_world *w, struct host_world_exit *ex)
{
    w->driver = host_world_driver(w);
    __atomic_store_n(&w->running, 1, __ATOMIC_SEQ_CST);
    if (take_kick(w)) {
        __atomic_store_n(&w->running, 0, __ATOMIC_SEQ_CST);
        return false;
    }
    if (w->counts)
        w->counts->world_runs++;
    /* Not answered: it was killed, or a belated kick has interrupted its wait. Then it waits anew, and we for it. */
    ex->ran = host_world_answer(w, &w->runner, 0);
    return true;
}

static void leave(struct host_world *w, struct host_world_state *st, struct host_world_exit *ex)
{
    bool alive = host_world_await(w, &w->runner);

    __atomic_store_n(&w->running, 0, __ATOMIC_SEQ_CST);
    if (alive && ex->ran)
        host_world_frame_read(w, st, ex);
    if (ex->why == HOST_WORLD_KICK)
        take_kick(w);
}

void host_world_run(struct host_world *w, struct host_world_state *st, struct host_world_exit *ex)
{
    struct host_world *outer = inside;
    const char *refused;

    memset(ex, 0, sizeof(*ex));
    ex->why = HOST_WORLD_KICK;
    inside = w;
    if (!w->dead)
        host_world_place(w);
    flush(w);
    if (!w->dead && (refused = refused_entry(w, st)) != NULL) {
        ex->why = HOST_WORLD_WILD;
        strcpy(ex->text, refused);
    } else if (!w->dead) {
        erase_state(w);
        host_world_frame_write(w, st, small_stack(w, st));
        if (enter(w, ex))
            leave(w, st, ex);
    }
    inside = outer;
    if (w->dead) {
        ex->why = HOST_WORLD_DEAD;
        memcpy(ex->text, w->text, sizeof(ex->text));
    }
}

/* Several kicks are one: the first has sent the signals, or is about to, or there is nobody to send them to yet. */
void host_world_kick(struct host_world *w)
{
    int saved_errno = errno;

    if (__atomic_exchange_n(&w->kicked, 1, __ATOMIC_SEQ_CST) == 0 &&
        __atomic_load_n(&w->running, __ATOMIC_SEQ_CST) && w->pid > 0) {
        syscall(SYS_tgkill, w->pid, w->runner.tid, WORLD_SIG_KICK);
        if (w->sleeps && inside != w)
            syscall(SYS_tgkill, w->home, w->driver, HOST_SIG_KICK);
    }
    errno = saved_errno;
}

void host_world_kick_inside(ucontext_t *uc)
{
    if (!inside)
        return;
    host_world_kick(inside);
    host_world_wake(uc);
}
