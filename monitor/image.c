#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "image.h"

static int image_check(const struct stat *st, const char *what, const char *path, uint64_t max,
                       struct host_err *err)
{
    if (S_ISDIR(st->st_mode))
        return host_fail(err, "%s %s is a directory", what, path);
    /* A reset loads the guest again, so what can be read only once will not do. */
    if (!S_ISREG(st->st_mode))
        return host_fail(err, "%s %s is not a regular file", what, path);
    if (st->st_size == 0)
        return host_fail(err, "%s %s is empty", what, path);
    if ((uint64_t)st->st_size > max)
        return host_fail(err, "%s %s is too large: %lld MiB, and the guest has %llu MiB of memory", what,
                         path, (long long)st->st_size >> 20, (unsigned long long)max >> 20);
    return 0;
}

static int image_fill(int fd, struct image *out, const char *what, const char *path, struct host_err *err)
{
    size_t done = 0;

    while (done < out->size) {
        ssize_t n = read(fd, (char *)out->data + done, out->size - done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return host_fail(err, "%s %s cannot be read: %s", what, path, strerror(errno));
        if (n == 0)
            return host_fail(err, "%s %s became shorter while it was read", what, path);
        done += (size_t)n;
    }
    return 0;
}

int image_read(struct image *out, const char *what, const char *path, uint64_t max, struct host_err *err)
{
    /* Non-blocking, so that a named pipe is refused instead of waited for. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r = -1;
    struct stat st;

    *out = (struct image){NULL, 0};
    if (fd < 0)
        return host_fail(err, "%s %s cannot be opened: %s", what, path, strerror(errno));
    if (fstat(fd, &st) < 0) {
        host_fail(err, "%s %s cannot be examined: %s", what, path, strerror(errno));
        goto out;
    }
    if (image_check(&st, what, path, max, err) < 0)
        goto out;
    out->size = (size_t)st.st_size;
    out->data = malloc(out->size);
    if (!out->data) {
        host_fail(err, "%s %s: no memory for %zu bytes", what, path, out->size);
        goto out;
    }
    r = image_fill(fd, out, what, path, err);
out:
    if (r < 0)
        image_free(out);
    close(fd);
    return r;
}

void image_free(struct image *img)
{
    free(img->data);
    *img = (struct image){NULL, 0};
}
