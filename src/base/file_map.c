#define _GNU_SOURCE
#include "base/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"

enum { WRITE_BUFFER_BYTES = 1 << 20 };

static facet_status io_error(facet_error *err, const char *path, const char *what)
{
    return error_set(err, FACET_ERR_IO, "%s: %s: %s", path, what, strerror(errno));
}

facet_status file_map_open(const char *path, file_map *out, facet_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return io_error(err, path, "cannot open");
    struct stat st;
    facet_status status = FACET_OK;
    file_map m = {0};
    if (fstat(fd, &st) != 0) {
        status = io_error(err, path, "cannot stat");
    } else if (!S_ISREG(st.st_mode)) {
        status = error_set(err, FACET_ERR_IO, "%s: not a regular file", path);
    } else if (st.st_size < 0 || (uint64_t)st.st_size > (uint64_t)1 << 47) {
        status = error_set(err, FACET_ERR_IO, "%s: file is too large to map", path);
    } else if (!(m.path = mem_strdup(path))) {
        status = error_memory(err, "a path", strlen(path));
    } else if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            status = io_error(err, path, "cannot map");
        } else {
            m.data = p;
            m.size = (uint64_t)st.st_size;
        }
    }
    close(fd);
    if (status != FACET_OK) {
        mem_free(m.path);
        return status;
    }
    *out = m;
    return FACET_OK;
}

void file_map_close(file_map *m)
{
    if (m->data) munmap((void *)(uintptr_t)m->data, (size_t)m->size);
    mem_free(m->path);
    *m = (file_map){0};
}

void file_map_release(const file_map *m, const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data, end = begin + bytes;
    uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
    uintptr_t map_end = (uintptr_t)m->data + m->size;
    if (begin < (uintptr_t)m->data || end > map_end || first >= last) return;
    madvise((void *)first, last - first, MADV_DONTNEED);
}

void file_map_will_need(const void *data, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)data / page * page;
    madvise((void *)begin, (uintptr_t)data + bytes - begin, MADV_WILLNEED);
}

facet_status file_writer_open(const char *path, file_writer *w, facet_error *err)
{
    struct stat st;
    *w = (file_writer){.fd = -1};
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return error_set(err, FACET_ERR_IO, "%s: not a regular file: it is not replaced", path);
    size_t n = strlen(path) + 16;
    w->path = mem_strdup(path);
    w->temp_path = mem_alloc(n);
    w->buffer = mem_alloc(WRITE_BUFFER_BYTES);
    if (!w->path || !w->temp_path || !w->buffer) {
        file_writer_abort(w);
        return error_memory(err, "a file writer", WRITE_BUFFER_BYTES);
    }
    snprintf(w->temp_path, n, "%s.tmp-XXXXXX", path);
    w->fd = mkostemp(w->temp_path, O_CLOEXEC);
    if (w->fd < 0) {
        facet_status status = io_error(err, path, "cannot create a temporary file beside it");
        w->temp_path[0] = 0;
        file_writer_abort(w);
        return status;
    }
    mode_t mask = umask(0);
    umask(mask);
    fchmod(w->fd, 0666 & ~mask);
    return FACET_OK;
}

static facet_status write_all(file_writer *w, const uint8_t *data, size_t bytes, facet_error *err)
{
    while (bytes) {
        ssize_t n = write(w->fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return io_error(err, w->path, "cannot write");
        data += n;
        bytes -= (size_t)n;
    }
    return FACET_OK;
}

facet_status file_writer_put(file_writer *w, const void *data, size_t bytes, facet_error *err)
{
    if (bytes > WRITE_BUFFER_BYTES - w->buffered) {
        FACET_TRY(write_all(w, w->buffer, w->buffered, err));
        w->buffered = 0;
    }
    if (bytes > WRITE_BUFFER_BYTES)
        FACET_TRY(write_all(w, data, bytes, err));
    else if (bytes) {
        memcpy(w->buffer + w->buffered, data, bytes);
        w->buffered += bytes;
    }
    w->written += bytes;
    return FACET_OK;
}

facet_status file_writer_skip(file_writer *w, uint64_t bytes, facet_error *err)
{
    FACET_TRY(write_all(w, w->buffer, w->buffered, err));
    w->buffered = 0;
    const off_t end = (off_t)(w->written + bytes);
    if (ftruncate(w->fd, end) != 0 || lseek(w->fd, end, SEEK_SET) != end)
        return io_error(err, w->path, "cannot make it longer");
    w->written += bytes;
    return FACET_OK;
}

/* The folder of a file, to be flushed. *fd is -1 where it may not be read. */
static facet_status open_folder(const char *path, int *fd, facet_error *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = !slash ? mem_strdup(".") : mem_strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (!folder) return error_memory(err, "a path", strlen(path));
    *fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const facet_status status =
        *fd >= 0 || errno == EACCES ? FACET_OK : io_error(err, folder, "cannot open the folder");
    mem_free(folder);
    return status;
}

/* Everything that may fail for want of memory comes before the rename, and the folder is flushed after it, so that the
 * rename, too, is on the disk (some network file systems cannot do that). */
static facet_status move_into_place(file_writer *w, facet_error *err)
{
    int folder = -1;
    FACET_TRY(open_folder(w->path, &folder, err));
    facet_status status = FACET_OK;
    if (rename(w->temp_path, w->path) != 0)
        status = io_error(err, w->path, "cannot rename into place");
    else
        w->temp_path[0] = 0;
    if (status == FACET_OK && folder >= 0 && fsync(folder) != 0 && errno != EINVAL && errno != ENOTSUP)
        status = io_error(err, w->path, "cannot flush its folder");
    if (folder >= 0) close(folder);
    return status;
}

facet_status file_writer_commit(file_writer *w, facet_error *err)
{
    FACET_TRY(write_all(w, w->buffer, w->buffered, err));
    w->buffered = 0;
    if (fsync(w->fd) != 0) return io_error(err, w->path, "cannot flush");
    int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0) return io_error(err, w->path, "cannot close");
    FACET_TRY(move_into_place(w, err));
    file_writer_abort(w);
    return FACET_OK;
}

void file_writer_abort(file_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    if (w->temp_path && w->temp_path[0]) unlink(w->temp_path);
    mem_free(w->path);
    mem_free(w->temp_path);
    mem_free(w->buffer);
    *w = (file_writer){.fd = -1};
}

facet_status file_read_all(const char *path, size_t max_bytes, char **data, size_t *size, facet_error *err)
{
    bool is_stdin = strcmp(path, "-") == 0;
    const char *name = is_stdin ? "standard input" : path;
    int fd = is_stdin ? 0 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return io_error(err, name, "cannot open");
    buf b = {0};
    facet_status status = FACET_OK;
    for (;;) {
        if (!buf_reserve(&b, 65536)) {
            status = error_memory(err, name, b.len);
            break;
        }
        ssize_t n = read(fd, b.data + b.len, 65536);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = io_error(err, name, "cannot read");
        if (n <= 0) break;
        b.len += (size_t)n;
        if (b.len > max_bytes) {
            status = error_set(err, FACET_ERR_LIMIT, "%s: larger than %zu bytes", name, max_bytes);
            break;
        }
    }
    if (!is_stdin) close(fd);
    if (status != FACET_OK) {
        buf_free(&b);
        return status;
    }
    b.data[b.len] = 0;
    *data = b.data;
    *size = b.len;
    return FACET_OK;
}
