/* Unit test of the module monitor: the option parser of `ringlet run`. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include "../../monitor/options.h"

#define MIB          (UINT64_C(1) << 20)
#define PARSE(...)   parse((const char *[]){__VA_ARGS__, NULL})
#define REFUSED(...) refused((const char *[]){__VA_ARGS__, NULL})

static struct options parsed(const char *const *args, int want, struct host_err *err)
{
    struct options o;
    int argc = 0;

    while (args[argc])
        argc++;
    if (options_parse(&o, argc, (char *const *)(uintptr_t)args, err) != want)
        fail_msg("%s: %s", argc ? args[0] : "no arguments", want ? "accepted" : err->text);
    return o;
}

/* The caller frees with options_finish where it gave modules. */
static struct options parse(const char *const *args)
{
    struct host_err err = {""};

    return parsed(args, 0, &err);
}

static const char *refused(const char *const *args)
{
    static struct host_err err; /* read by the caller at once */
    struct options o;

    err.text[0] = 0;
    o = parsed(args, -1, &err);
    options_finish(&o);
    assert_true(err.text[0] != 0);
    return err.text;
}

static void says(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("message \"%s\" does not mention \"%s\"", text, part);
}

static void defaults(void **state)
{
    struct options o = parse((const char *[]){NULL});

    (void)state;
    assert_int_equal(o.vm.memory, 512 * MIB);
    assert_int_equal(o.vm.serial_count, 1);
    assert_int_equal(o.vm.serial[0].kind, DEV_CHR_STDIO);
    assert_int_equal(o.vm.engine, BT_TRANSLATE);
    assert_int_equal(o.vm.user, VM_USER_AUTO);
    assert_true(o.vm.escape);
    assert_false(o.vm.no_reboot);
    assert_false(o.vm.verify);
    assert_int_equal(o.vm.debug_exit_port, 0);
    assert_int_equal(o.stats, OPTIONS_NO_STATS);
    assert_int_equal(o.vm.trace, 0);
    assert_null(o.vm.kernel);
    assert_null(o.vm.multiboot);
}

static void linux_guest(void **state)
{
    struct options o = PARSE("--kernel", "vmlinuz", "--initrd=initrd.gz", "--append", "console=ttyS0 a=b");

    (void)state;
    assert_string_equal(o.vm.kernel, "vmlinuz");
    assert_string_equal(o.vm.initrd, "initrd.gz");
    assert_string_equal(o.vm.append, "console=ttyS0 a=b");
    o = PARSE("--kernel=k", "--append="); /* an empty value is a value */
    assert_string_equal(o.vm.append, "");
    o = PARSE("--kernel=a=b"); /* only the first = splits */
    assert_string_equal(o.vm.kernel, "a=b");
    o = PARSE("--kernel", "--odd-name"); /* what follows is the value, whatever it looks like */
    assert_string_equal(o.vm.kernel, "--odd-name");
}

static void modules(void **state)
{
    struct options o = PARSE("--multiboot", "k", "--module", "a.bin x y", "--module=b.bin");

    (void)state;
    assert_int_equal(o.vm.module_count, 2);
    assert_string_equal(o.vm.module[0].path, "a.bin");
    assert_string_equal(o.vm.module[0].cmdline, "x y");
    assert_string_equal(o.vm.module[1].path, "b.bin");
    assert_string_equal(o.vm.module[1].cmdline, "");
    options_finish(&o);
    says(REFUSED("--multiboot", "k", "--module", " x"), "file name");
    says(REFUSED("--module", "x"), "--multiboot");
}

static void too_many_modules(void **state)
{
    const char *args[2 + 17 + 1] = {"--multiboot", "k"};

    (void)state;
    for (unsigned i = 2; i < 2 + 17; i++)
        args[i] = "--module=m";
    says(refused(args), "16");
    args[2 + 16] = NULL;
    struct options o = parse(args);
    assert_int_equal(o.vm.module_count, 16);
    options_finish(&o);
}

static void memory(void **state)
{
    static const struct {
        const char *text;
        uint64_t mib;
    } good[] = {{"4M", 4},      {"4", 4},     {"3584", 3584}, {"1G", 1024},
                {"65536K", 64}, {"0x40", 64}, {"3g", 3072}};
    static const char *const bad[] = {"0",
                                      "3M",
                                      "3585M",
                                      "4G",
                                      "1T",
                                      "-5",
                                      "+64",
                                      " 64",
                                      "banana",
                                      "64MB",
                                      "",
                                      "M",
                                      "4097K",
                                      "1e3",
                                      "99999999999999999999",
                                      "18446744073709551615G"};

    (void)state;
    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_int_equal(PARSE("--memory", good[i].text).vm.memory, good[i].mib * MIB);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        says(REFUSED("--memory", bad[i]), "--memory");
}

static void serial(void **state)
{
    struct options o = PARSE("--serial", "null", "--serial=file:a:b", "--serial", "stdio");

    (void)state;
    assert_int_equal(o.vm.serial_count, 3);
    assert_int_equal(o.vm.serial[0].kind, DEV_CHR_NULL);
    assert_int_equal(o.vm.serial[1].kind, DEV_CHR_FILE);
    assert_string_equal(o.vm.serial[1].path, "a:b");
    assert_int_equal(o.vm.serial[2].kind, DEV_CHR_STDIO);
    says(REFUSED("--serial", "tcp:1"), "--serial");
    says(REFUSED("--serial", "file:"), "--serial");
    says(REFUSED("--serial", "stdio", "--serial", "stdio"), "only one");
    says(REFUSED("--serial=null", "--serial=null", "--serial=null", "--serial=null", "--serial=null"), "4");
}

static void trace(void **state)
{
    struct options o = PARSE("--trace=block,device:out.txt");

    (void)state;
    assert_int_equal(o.vm.trace, BT_TRACE_BLOCK | VM_TRACE_DEVICE);
    assert_string_equal(o.trace_file, "out.txt");
    o = PARSE("--trace", "exception,shadow");
    assert_int_equal(o.vm.trace, BT_TRACE_EXCEPTION | BT_TRACE_SHADOW);
    assert_null(o.trace_file);
    o = PARSE("--trace", "block:a,b:c"); /* the file's name may hold anything */
    assert_int_equal(o.vm.trace, BT_TRACE_BLOCK);
    assert_string_equal(o.trace_file, "a,b:c");
    says(REFUSED("--trace", "blocks"), "blocks");
    says(REFUSED("--trace", "block,"), "none of");
    says(REFUSED("--trace", ""), "none of");
    says(REFUSED("--trace", "block:"), "file name");
}

static void machine_options(void **state)
{
    struct options o =
        PARSE("--engine", "interp", "--user=translate", "--no-reboot", "--verify", "--cache=8M",
              "--max-windows", "3", "--max-maps=1000", "--debug-exit", "0x501", "--cpu", "-sse2");

    (void)state;
    assert_int_equal(o.vm.engine, BT_INTERPRET);
    assert_true(o.vm.no_reboot);
    assert_true(o.vm.verify);
    assert_int_equal(o.vm.cache_bytes, 8 * MIB);
    assert_int_equal(o.vm.max_user_spaces, 3);
    assert_int_equal(o.vm.max_maps, 1000);
    assert_int_equal(o.vm.debug_exit_port, 0x501);
    assert_string_equal(o.vm.cpu_mask, "-sse2");
    assert_true(PARSE("--debug-exit=none").vm.debug_exit_port < 0);
    says(REFUSED("--engine", "jit"), "bt or interp");
    says(REFUSED("--user", "native"), "auto, direct or translate");
    says(REFUSED("--user", "direct", "--engine", "interp"), "--engine bt");
    says(REFUSED("--worlds", "0"), "positive");
    says(REFUSED("--worlds", "1024"), "1023");
    o = PARSE("--user", "direct", "--worlds", "7", "--trace=world");
    assert_int_equal(o.vm.user, VM_USER_DIRECT);
    assert_int_equal(o.vm.worlds, 7);
    assert_int_equal(o.vm.trace, VM_TRACE_WORLD);
    o = PARSE("--user=auto");
    assert_int_equal(o.vm.user, VM_USER_AUTO);
    says(REFUSED("--no-reboot=1"), "no value");
    says(REFUSED("--cache", "1K"), "--cache");
    says(REFUSED("--max-windows", "0"), "--max-windows");
    says(REFUSED("--max-windows", "1024"), "--max-windows");
    says(REFUSED("--debug-exit", "0"), "--debug-exit");
    says(REFUSED("--debug-exit", "65536"), "--debug-exit");
    assert_int_equal(PARSE("--stats-port", "0xe9").vm.stats_port, 0xe9);
    says(REFUSED("--stats-port", "0"), "--stats-port");
    says(REFUSED("--stats-port", "65536"), "--stats-port");
}

static void stats(void **state)
{
    (void)state;
    assert_int_equal(PARSE("--stats").stats, OPTIONS_STATS_TEXT);
    assert_int_equal(PARSE("--stats=json").stats, OPTIONS_STATS_JSON);
    says(REFUSED("--stats=xml"), "xml");
    says(REFUSED("--stats", "json"), "unexpected"); /* an optional value needs its = */
}

static void combinations(void **state)
{
    (void)state;
    says(REFUSED("--kernel=a", "--multiboot=b"), "exclude");
    says(REFUSED("--initrd=a"), "--kernel");
    says(REFUSED("--multiboot=k", "--initrd=a"), "--module");
    says(REFUSED("--append=x"), "--append");
    says(REFUSED("--kernel"), "needs a value");
    says(REFUSED("vmlinuz"), "unexpected argument vmlinuz");
    says(REFUSED("--"), "unexpected");
    says(REFUSED("-k"), "unexpected");
    assert_true(PARSE("--help").help);
    assert_true(PARSE("-h").help);
}

static void near_misses(void **state)
{
    (void)state;
    says(REFUSED("--kernal", "x"), "did you mean --kernel?");
    says(REFUSED("--mem=1G"), "did you mean --memory?");
    says(REFUSED("--noreboot"), "did you mean --no-reboot?");
    says(REFUSED("--zzzzzz"), "--help");
    says(REFUSED("--k"), "--help");
    says(REFUSED("--an-option-of-quite-unreasonable-length-that-goes-on-and-on-for-more-than-any-buffer=1"),
         "there is no option");
}

static void help_lists_every_option(void **state)
{
#define GROUP(title)
#define OPTION(name, argument, kind, field, handler, help) "--" name,
    static const char *const names[] = {
#include "../../monitor/options.def"
    };
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    (void)state;
    assert_non_null(f);
    options_help(f);
    fclose(f);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        says(text, names[i]);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),    cmocka_unit_test(linux_guest),
        cmocka_unit_test(modules),     cmocka_unit_test(too_many_modules),
        cmocka_unit_test(memory),      cmocka_unit_test(serial),
        cmocka_unit_test(trace),       cmocka_unit_test(machine_options),
        cmocka_unit_test(stats),       cmocka_unit_test(combinations),
        cmocka_unit_test(near_misses), cmocka_unit_test(help_lists_every_option),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
