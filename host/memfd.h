/* host-internal: anonymous memory that can be mapped at several addresses. */
#ifndef HOST_MEMFD_H
#define HOST_MEMFD_H

#include <stdbool.h>
#include <stdint.h>
#include "host/host.h"

/* A memfd of size bytes, or -1 with *err. exec: it will be mapped PROT_EXEC. what names it in the message. */
int host_memfd_open(const char *what, uint64_t size, bool exec, struct host_err *err);

#endif
