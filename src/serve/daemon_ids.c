#include "serve/daemon_ids.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_map.h"
#include "base/mem.h"

static facet_status no_ids(facet_error *err, const char *path, const char *why)
{
    return error_set(err, FACET_ERR_IO, "%s: no token ids: %s", path, why);
}

static bool read_exactly(int fd, void *data, size_t n)
{
    char *at = data;
    while (n > 0) {
        const ssize_t got = read(fd, at, n);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        at += got;
        n -= (size_t)got;
    }
    return true;
}

/* Stands before the first of *n ids. */
static facet_status open_ids(const char *path, bool is_counted, int *fd, size_t *n, facet_error *err)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hold anybody up */
    if (*fd < 0) return no_ids(err, path, strerror(errno));
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) return no_ids(err, path, "not a regular file");
    *n = (size_t)st.st_size / sizeof(int32_t);
    if (is_counted) {
        uint8_t head[4];
        if (!read_exactly(*fd, head, sizeof head)) return no_ids(err, path, "too short for a count");
        const uint32_t count = head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
        if (count > *n - 1) return no_ids(err, path, "the count is larger than the file");
        *n = count;
    }
    return *n ? FACET_OK : no_ids(err, path, "it is empty");
}

static facet_status read_from(int fd, const char *path, size_t n, int32_t **ids, facet_error *err)
{
    int32_t *list = mem_resize_array(NULL, n, sizeof *list);
    if (!list) return error_memory(err, path, n * sizeof *list);
    if (!read_exactly(fd, list, n * sizeof *list)) {
        mem_free(list);
        return no_ids(err, path, "it became shorter while it was read");
    }
    *ids = list;
    return FACET_OK;
}

facet_status ids_read(const char *path, bool is_counted, size_t most, int32_t **ids, size_t *n, facet_error *err)
{
    int fd = -1;
    size_t count = 0;
    facet_status status = open_ids(path, is_counted, &fd, &count, err);
    if (status == FACET_OK && count <= most) status = read_from(fd, path, count, ids, err);
    if (status == FACET_OK && count > most) *ids = NULL;
    if (status == FACET_OK) *n = count;
    if (fd >= 0) close(fd);
    return status;
}

facet_status ids_write(const char *path, const void *bytes, size_t n, facet_error *err)
{
    file_writer w = {0};
    const uint8_t head[4] = {(uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24)};
    FACET_TRY(file_writer_open(path, &w, err));
    facet_status status = file_writer_put(&w, head, sizeof head, err);
    if (status == FACET_OK && n) status = file_writer_put(&w, bytes, n * sizeof(int32_t), err);
    if (status == FACET_OK) status = file_writer_commit(&w, err);
    file_writer_abort(&w);
    return status;
}
