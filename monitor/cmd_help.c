/* ringlet help, ringlet version: texts. */
#include <string.h>
#include "cmd.h"
#include "options.h"

#ifndef RINGLET_VERSION
#define RINGLET_VERSION "unversioned"
#endif

static const char help_overview[] =
    "ringlet runs unmodified 32-bit x86 operating systems by binary translation: no VT-x, no KVM, no root.\n"
    "\n"
    "usage: ringlet run [options]     run a guest; without options an embedded one that shows what ringlet "
    "does\n"
    "       ringlet run --help        all options, with examples\n"
    "       ringlet bench [options]   compare with QEMU and the bare host; --help for the options\n"
    "       ringlet doctor            what this host offers, what is missing, what to do\n"
    "       ringlet help [run|bench]  this text, or the options\n"
    "       ringlet version\n";

static const char help_run_head[] =
    "usage: ringlet run [--kernel FILE [--initrd FILE] [--append STR] |\n"
    "                    --multiboot FILE [--append STR] [--module \"FILE ARGS\"]...] [options]\n"
    "\n"
    "Values follow as `--name value` or `--name=value`.\n";

static const char help_run_tail[] =
    "\n"
    "Keys (when a serial port is stdio)\n"
    "  Ctrl-A x                  end the machine, as in QEMU\n"
    "  Ctrl-A h                  these keys\n"
    "  Ctrl-A Ctrl-A             send one Ctrl-A\n"
    "  Ctrl-C and all others go to the guest.\n"
    "\n"
    "Exit status\n"
    "  0        the guest powered off, was ended with Ctrl-A x, or reset itself under --no-reboot\n"
    "  odd      (v << 1) | 1 for a guest that wrote v to the debug-exit port (lowest 8 bits)\n"
    "  2        the command line is wrong\n"
    "  4        the guest cannot be loaded, or this host lacks something\n"
    "  6        the guest was stopped: it did something unsupported, or halted for good\n"
    "  8        triple fault under --no-reboot\n"
    "  128+n    ended by signal n; the line on standard error tells this from a debug exit\n"
    "\n"
    "Examples\n"
    "  ringlet run\n"
    "  ringlet run --kernel vmlinuz --initrd initrd.gz --append \"console=ttyS0\"\n"
    "  ringlet run --kernel vmlinuz --append console=ttyS0 --serial file:boot.log --no-reboot --stats\n"
    "  ringlet run --multiboot gnumach --append console=com0 --module \"ext2fs.static ext2fs\" --memory 1G\n"
    "  ringlet run --multiboot test.elf --engine interp --trace=exception,device:trace.txt\n"
    "  ringlet run --kernel vmlinuz --append console=ttyS0 --stats=json 2> stats.json\n";

void cmd_help_overview(FILE *out)
{
    fputs(help_overview, out);
}

void cmd_help_run(FILE *out)
{
    fputs(help_run_head, out);
    options_help(out);
    fputs(help_run_tail, out);
}

int cmd_help(int argc, char *const *argv)
{
    if (argc > 0 && strcmp(argv[0], "run") == 0)
        cmd_help_run(stdout);
    else if (argc > 0 && strcmp(argv[0], "bench") == 0)
        cmd_help_bench(stdout);
    else
        cmd_help_overview(stdout);
    return CMD_OK;
}

int cmd_version(int argc, char *const *argv)
{
    (void)argc;
    (void)argv;
    puts("ringlet " RINGLET_VERSION);
    return CMD_OK;
}
