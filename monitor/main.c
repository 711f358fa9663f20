/* ringlet: the program. Finds the subcommand; everything else is in cmd_*.c. */
#include <stdarg.h>
#include <string.h>
#include "cmd.h"
#include "options.h"

static const struct {
    const char *name, *alias;
    int (*run)(int argc, char *const *argv);
} commands[] = {
    {"run", NULL, cmd_run},
    {"bench", NULL, cmd_bench},
    {"doctor", NULL, cmd_doctor},
    {"help", "--help", cmd_help},
    {"version", "--version", cmd_version},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

void cmd_say(const char *fmt, ...)
{
    va_list ap;

    host_term_restore();
    fputs("ringlet: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

static int unknown_command(const char *word)
{
    const char *names[COMMANDS], *near;

    for (unsigned i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    near = options_nearest(word, names, COMMANDS);
    if (near)
        cmd_say("there is no command %s; did you mean `ringlet %s`?", word, near);
    else
        cmd_say("there is no command %s; `ringlet --help` lists all", word);
    return CMD_USAGE;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        cmd_help_overview(stderr);
        return CMD_USAGE;
    }
    for (unsigned i = 0; i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0 ||
            (commands[i].alias && strcmp(argv[1], commands[i].alias) == 0))
            return commands[i].run(argc - 2, argv + 2);
    if (strcmp(argv[1], "-h") == 0)
        return cmd_help(argc - 2, argv + 2);
    return unknown_command(argv[1]);
}
