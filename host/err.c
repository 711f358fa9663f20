/* One error sentence, formatted where the failure is understood. */
#include "host/host.h"

#include <stdarg.h>
#include <stdio.h>

int host_fail(struct host_err *err, const char *fmt, ...)
{
    if (err) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(err->text, sizeof(err->text), fmt, args);
        va_end(args);
    }
    return -1;
}
