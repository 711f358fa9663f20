/* image: a guest's file read into memory whole, with an error that says what is wrong with the file. */
#ifndef MONITOR_IMAGE_H
#define MONITOR_IMAGE_H

#include "host/host.h"

struct image {
    void *data;
    size_t size;
};
/* what names the file's role in messages ("kernel"). max: largest size that can make sense, in bytes. */
int image_read(struct image *out, const char *what, const char *path, uint64_t max, struct host_err *err);
void image_free(struct image *img); /* idempotent */

#endif
