/* Unit test of the module monitor: whole machines that run a few instructions, with both engines. The guests
 * are assembled by hand into a Multiboot image that gives its own load addresses. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include "monitor/monitor.h"
#include "../../monitor/le.h"
#include "../../monitor/stats.h"

enum { AT = 0x100000, CODE = 64, IMAGE = 512 };

struct guest {
    uint8_t image[IMAGE];
    struct vm_config cfg;
    struct vm_result res;
    struct host_err err;
};

static void guest_make(struct guest *g, enum bt_engine engine, const void *code, size_t size)
{
    uint8_t *p = g->image;

    memset(g, 0, sizeof(*g));
    assert_true(CODE + size <= IMAGE);
    le_put32(p, 0x1badb002);
    le_put32(p + 4, 0x10000);
    le_put32(p + 8, 0u - 0x1badb002 - 0x10000);
    le_put32(p + 12, AT);
    le_put32(p + 16, AT);
    le_put32(p + 20, AT + IMAGE);
    le_put32(p + 24, AT + IMAGE);
    le_put32(p + 28, AT + CODE);
    memcpy(p + CODE, code, size);
    g->cfg = (struct vm_config){.memory = 8 << 20,
                                .image = g->image,
                                .image_size = IMAGE,
                                .serial = {{DEV_CHR_NULL, NULL}},
                                .serial_count = 1,
                                .engine = engine,
                                .verify = true,
                                .virtual_clock = false};
}

#define GUEST(g, engine, ...)                                                                                \
    guest_make(g, engine, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static struct vm *guest_create(struct guest *g)
{
    struct vm *vm;

    if (vm_create(&vm, &g->cfg, &g->err) != 0)
        fail_msg("vm_create: %s", g->err.text);
    return vm;
}

static void guest_run(struct guest *g)
{
    struct vm *vm = guest_create(g);

    if (vm_run(vm, &g->res, &g->err) != 0)
        fail_msg("vm_run: %s", g->err.text);
    vm_destroy(vm);
}

static void says(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not mention \"%s\"", text, part);
}

#define EACH_ENGINE(e) for (int e = BT_TRANSLATE; e <= BT_INTERPRET; e++)

static void debug_exit(void **state)
{
    struct guest g;

    (void)state;
    EACH_ENGINE(e)
    {
        GUEST(&g, e, 0xb8, 0x21, 0, 0, 0, /* mov eax, 21h */ 0xe7, 0xf4 /* out f4h, eax */, 0xeb,
              0xfe /* jmp $ */);
        guest_run(&g);
        assert_int_equal(g.res.end, VM_END_DEBUG_EXIT);
        assert_int_equal(g.res.debug_exit, 0x21);
    }
}

/* Who has read the TSC is known in every way of running the instruction: inline, where the guest has its own counter and in
 * the interpreter. */
static void tsc_read_is_noted(void **state)
{
    struct guest g;

    (void)state;
    EACH_ENGINE(e)
    for (unsigned own = 0; own < 2; own++)
        for (unsigned reads = 0; reads < 2; reads++) {
            GUEST(&g, e, 0x90, 0x90, /* nop; nop */
                  0xe7, 0xf4, 0xeb, 0xfe);
            if (reads)
                memcpy(g.image + CODE, (const uint8_t[]){0x0f, 0x31, 0xe7, 0xf4}, 4); /* rdtsc; out */
            g.cfg.virtual_clock = own;
            struct vm *vm = guest_create(&g);
            assert_int_equal(vm_run(vm, &g.res, &g.err), 0);
            assert_int_equal(g.res.end, VM_END_DEBUG_EXIT);
            assert_int_equal(bt_tsc_read(vm_vcpu(vm)), reads);
            assert_false(bt_tsc_read(vm_vcpu(vm)));
            vm_destroy(vm);
        }
}

/* EAX, EBX and the strings EBX leads to are what the Multiboot loader promised. */
static void entry_state(void **state)
{
    struct guest g;

    (void)state;
    EACH_ENGINE(e)
    {
        GUEST(&g, e, 0x3d, 0x02, 0xb0, 0xad, 0x2b, /* cmp eax, 2badb002h */
              0x75, 0x0a,                          /* jne out */
              0x8b, 0x43, 0x10,                    /* mov eax, [ebx+16]: command line */
              0x8b, 0x00,                          /* mov eax, [eax] */
              0x25, 0xff, 0xff, 0xff, 0x00,        /* and eax, ffffffh */
              0xe7, 0xf4, 0xeb, 0xfe);
        guest_run(&g);
        assert_int_equal(g.res.end, VM_END_DEBUG_EXIT);
        assert_int_equal(g.res.debug_exit, 'i' | 'm' << 8 | 'a' << 16); /* "image" */
    }
}

static void halted_for_good(void **state)
{
    struct guest g;

    (void)state;
    EACH_ENGINE(e)
    {
        GUEST(&g, e, 0xfa, 0xf4 /* cli; hlt */);
        guest_run(&g);
        assert_int_equal(g.res.end, VM_END_STOPPED);
        says(g.res.reason, "interrupts off");
        says(g.res.reason, "00100042"); /* the instruction after HLT */
    }
}

/* lidt [zeros]; ud2: neither #UD nor #GP nor #DF has a gate. */
#define TRIPLE_FAULT 0x0f, 0x01, 0x1d, 0x80, 0x00, 0x10, 0x00, 0x0f, 0x0b

static void triple_fault(void **state)
{
    struct guest g;

    (void)state;
    EACH_ENGINE(e)
    {
        GUEST(&g, e, TRIPLE_FAULT);
        g.cfg.no_reboot = true;
        guest_run(&g);
        assert_int_equal(g.res.end, VM_END_RESET);
        says(g.res.reason, "triple fault");
        says(g.res.reason, "00100047"); /* AT + CODE + 7 */
        says(g.res.reason, "0f 0b");
        g.cfg.no_reboot = false; /* resets, faults again, and is given up */
        guest_run(&g);
        assert_int_equal(g.res.end, VM_END_STOPPED);
        says(g.res.reason, "in a row");
    }
}

/* Counts starts in CMOS RAM (register 50h), which a reset leaves alone; the third start ends with the count.
 */
static void resets(void **state)
{
    struct guest g;

    (void)state;
    EACH_ENGINE(e)
    {
        GUEST(&g, e, 0xb0, 0x50, 0xe6, 0x70, /* mov al, 50h; out 70h, al */
              0xe4, 0x71, 0x40,              /* in al, 71h; inc eax */
              0xe6, 0x71,                    /* out 71h, al */
              0x3c, 0x03, 0x75, 0x04,        /* cmp al, 3; jne reset */
              0xe6, 0xf4, 0xeb, 0xfe,        /* out f4h, al */
              0xb0, 0xfe, 0xe6, 0x64,        /* reset: mov al, feh; out 64h, al: pulse the CPU's reset line */
              0xeb, 0xfe);
        guest_run(&g);
        assert_int_equal(g.res.end, VM_END_DEBUG_EXIT);
        assert_int_equal(g.res.debug_exit & 0xff, 3);
        g.cfg.no_reboot = true;
        guest_run(&g);
        assert_int_equal(g.res.end, VM_END_RESET);
        assert_string_equal(g.res.reason, "");
    }
}

/* A byte the last boot wrote is gone after a reset: 1 if it was seen. */
static void reset_clears_memory(void **state)
{
    struct guest g;

    (void)state;
    EACH_ENGINE(e)
    {
        GUEST(&g, e, 0xb0, 0x50, 0xe6, 0x70,             /* CMOS register 50h */
              0xe4, 0x71, 0x84, 0xc0, 0x75, 0x10,        /* in al, 71h; test al, al; jnz second */
              0xc6, 0x05, 0x00, 0x00, 0x20, 0x00, 0x01,  /* mov byte [200000h], 1 */
              0xb0, 0x01, 0xe6, 0x71,                    /* out 71h, 1 */
              0xb0, 0xfe, 0xe6, 0x64, 0xf4,              /* reset, hlt */
              0x0f, 0xb6, 0x05, 0x00, 0x00, 0x20, 0x00,  /* second: movzx eax, byte [200000h] */
              0x83, 0xc0, 0x10, 0xe7, 0xf4, 0xeb, 0xfe); /* add eax, 10h; out f4h, eax */
        guest_run(&g);
        assert_int_equal(g.res.end, VM_END_DEBUG_EXIT);
        assert_int_equal(g.res.debug_exit, 0x10);
    }
}

static void stop_it(void *ctx)
{
    vm_stop(ctx);
}

static void stopped_from_outside(void **state)
{
    static const uint8_t loops[][4] = {{0xeb, 0xfe},
                                       /* jmp $ */ {0xfb, 0xf4, 0xeb, 0xfc} /* sti; hlt; again */};
    struct guest g;

    (void)state;
    EACH_ENGINE(e)
    for (unsigned i = 0; i < 2; i++) {
        guest_make(&g, e, loops[i], sizeof(loops[i]));
        struct vm *vm = guest_create(&g);
        struct host_timer *t = host_timer_create(vm_loop(vm), stop_it, vm);

        host_timer_set(t, host_clock_ns(vm_clock(vm)) + 20000000);
        assert_int_equal(vm_run(vm, &g.res, &g.err), 0);
        assert_int_equal(g.res.end, VM_END_QUIT);
        says(g.res.reason, "CS:EIP 0008:001000");
        vm_destroy(vm);
    }
}

/* Under the virtual clock two runs are the same: the guest reports low bits of its TSC after a busy loop. */
static void virtual_time(void **state)
{
    struct guest g;
    uint32_t first = 0;

    (void)state;
    EACH_ENGINE(e)
    for (unsigned i = 0; i < 2; i++) {
        GUEST(&g, e, 0xb9, 0x10, 0x27, 0, 0, /* mov ecx, 10000 */
              0xe2, 0xfe,                    /* loop $ */
              0x0f, 0x31,                    /* rdtsc */
              0xe7, 0xf4, 0xeb, 0xfe);
        g.cfg.virtual_clock = true;
        guest_run(&g);
        assert_int_equal(g.res.end, VM_END_DEBUG_EXIT);
        if (i == 0)
            first = g.res.debug_exit;
        assert_int_equal(g.res.debug_exit, first);
        /* 10,000 instructions at 10 ns and 1 GHz; seen in slices of 2000 */
        assert_in_range(g.res.debug_exit, 80000, 120000);
    }
}

static void refusals(void **state)
{
    static const uint64_t sizes[] = {0, 3 << 20, (4 << 20) + 4096, UINT64_C(3585) << 20, UINT64_MAX};
    struct guest g;
    struct vm *vm;

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        GUEST(&g, BT_INTERPRET, 0xf4);
        g.cfg.memory = sizes[i];
        assert_int_equal(vm_create(&vm, &g.cfg, &g.err), -1);
        assert_null(vm);
        says(g.err.text, "memory");
    }
    GUEST(&g, BT_INTERPRET, 0xf4);
    g.cfg.image_size = 20;
    assert_int_equal(vm_create(&vm, &g.cfg, &g.err), -1);
    says(g.err.text, "Multiboot");
    GUEST(&g, BT_INTERPRET, 0xf4);
    g.cfg.image = NULL;
    g.cfg.kernel = "/nonexistent/vmlinuz";
    assert_int_equal(vm_create(&vm, &g.cfg, &g.err), -1);
    says(g.err.text, "/nonexistent/vmlinuz");
    GUEST(&g, BT_INTERPRET, 0xf4);
    g.cfg.cpu_mask = "-nosuchfeature";
    assert_int_equal(vm_create(&vm, &g.cfg, &g.err), -1);
    says(g.err.text, "nosuchfeature");
}

/* ---- Statistics ---- */

static char *stats_of(struct guest *g, bool json)
{
    struct vm *vm = guest_create(g);
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    assert_non_null(f);
    assert_int_equal(vm_run(vm, &g->res, &g->err), 0);
    stats_print(vm, json, f);
    fclose(f);
    vm_destroy(vm);
    return text;
}

static void statistics(void **state)
{
    static const uint8_t code[] = {0xb8, 0x07, 0, 0, 0, 0xe7, 0xf4, 0xeb, 0xfe};
    struct guest g;
    char *text;
    int depth = 0;

    (void)state;
    guest_make(&g, BT_INTERPRET, code, sizeof(code));
    text = stats_of(&g, false);
    says(text, "guest instructions interpreted");
    says(text, "debug");
    free(text);
    text = stats_of(&g, true);
    says(text, "\"interpreted\": 2");
    for (const char *p = text; *p; p++) { /* brackets balance and never go below zero */
        depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
        assert_true(depth >= 0);
    }
    assert_int_equal(depth, 0);
    free(text);
}

/* A guest has the statistics printed in the middle, with labels of its own choice. */
static void marks(enum bt_engine engine)
{
    static const uint8_t code[] = {
        0xb0, 'a',  0xe6, 0xe9,                         /* out 0xe9: 'a' */
        0xb0, '"',  0xe6, 0xe9, 0xb0, '\n', 0xe6, 0xe9, /* what would end a string of JSON; end of label */
        0xb9, 0x64, 0,    0,    0,    0xb0, 'x',        /* a hundred of 'x' */
        0xe6, 0xe9, 0xe2, 0xfc,                         /* loop */
        0xb0, '\n', 0xe6, 0xe9, 0xe7, 0xf4, 0xeb, 0xfe, /* end of label; end */
    };
    struct guest g;
    char *text = NULL, *second;
    size_t size;

    guest_make(&g, engine, code, sizeof(code));
    g.cfg.stats_port = 0xe9;
    g.cfg.stats_out = open_memstream(&text, &size);
    guest_run(&g);
    fclose(g.cfg.stats_out);
    says(text, "{\n  \"mark\": \"a?\",\n  \"time_ns\": {\"user\": ");
    second = strstr(text, "  \"mark\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\",\n"); /* cut at 39 */
    assert_non_null(second);
    assert_null(strstr(second + 10, "\"mark\""));
    assert_null(strstr(second, "\"all\": 0,")); /* the clock of a machine that runs */
    free(text);
}

static void marks_of_both_engines(void **state)
{
    (void)state;
    marks(BT_INTERPRET);
    marks(BT_TRANSLATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(debug_exit),          cmocka_unit_test(tsc_read_is_noted),
        cmocka_unit_test(entry_state),         cmocka_unit_test(halted_for_good),
        cmocka_unit_test(triple_fault),        cmocka_unit_test(resets),
        cmocka_unit_test(reset_clears_memory), cmocka_unit_test(stopped_from_outside),
        cmocka_unit_test(virtual_time),        cmocka_unit_test(refusals),
        cmocka_unit_test(statistics),          cmocka_unit_test(marks_of_both_engines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
