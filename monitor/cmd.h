/* cmd: the subcommands of the ringlet program, one file each, and the exit statuses they share. */
#ifndef MONITOR_CMD_H
#define MONITOR_CMD_H

#include <stdbool.h>
#include <stdio.h>
#include "bt/bt.h"

/* Own errors are even numbers: a guest that writes v to the debug-exit port ends ringlet with (v << 1) | 1,
 * which is odd, as under QEMU. Signals end it with 128 + their number. */
enum cmd_status {
    CMD_OK = 0,
    CMD_USAGE = 2,         /* the command line is wrong */
    CMD_CANNOT_START = 4,  /* guest not loadable, or the host lacks something */
    CMD_GUEST_STOPPED = 6, /* the guest did what ringlet does not support, or stopped itself for good */
    CMD_TRIPLE_FAULT = 8,  /* with --no-reboot */
};

/* argv[0] is the first argument after the subcommand. Return the exit status. */
int cmd_run(int argc, char *const *argv);
int cmd_bench(int argc, char *const *argv);
int cmd_doctor(int argc, char *const *argv);
int cmd_help(int argc, char *const *argv);
int cmd_version(int argc, char *const *argv);

/* Texts of `ringlet --help`, `ringlet run --help` and `ringlet bench --help`. */
void cmd_help_overview(FILE *out);
void cmd_help_run(FILE *out);
void cmd_help_bench(FILE *out);
/* 0 when the host has all that the engine needs; else one sentence in err. */
int cmd_doctor_check(enum bt_engine engine, struct host_err *err);
/* One line on standard error, with the terminal usable again: "ringlet: ...". */
void cmd_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
