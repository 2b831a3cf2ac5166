/* file_map.h: read-only mappings, and files that appear whole or not at all. */
#ifndef FACET_BASE_FILE_MAP_H
#define FACET_BASE_FILE_MAP_H

#include "base/error.h"

typedef struct file_map {
    const uint8_t *data; /* NULL when size is 0 */
    uint64_t size;
    char *path; /* owned copy, for messages */
} file_map;

/* Maps a regular file (directories, pipes and devices are refused). The file must not be truncated while
 * it is mapped. Errors: FACET_ERR_IO with the path and the system's reason. */
facet_status file_map_open(const char *path, file_map *out, facet_error *err);
void file_map_close(file_map *m);

/* Lets the resident pages that lie wholly inside data[offset, offset + bytes) go; they come back from the
 * file when read again. */
void file_map_release(const file_map *m, const void *data, size_t bytes);

/* Asks the system to read data[0, bytes) ahead. */
void file_map_will_need(const void *data, size_t bytes);

/* Writing: everything goes to a temporary file beside `path` (which is no device or folder); commit flushes, fsyncs and
 * renames it over `path`, and fsyncs the folder; abort (also after a failed commit) removes it. */
typedef struct file_writer {
    int fd;
    char *path, *temp_path;
    uint8_t *buffer;
    size_t buffered;
    uint64_t written; /* bytes handed to file_writer_put so far */
} file_writer;

facet_status file_writer_open(const char *path, file_writer *w, facet_error *err);
facet_status file_writer_put(file_writer *w, const void *data, size_t bytes, facet_error *err);
/* Zeros that take no room on the disk where the file system can do without (a hole). */
facet_status file_writer_skip(file_writer *w, uint64_t bytes, facet_error *err);
facet_status file_writer_commit(file_writer *w, facet_error *err);
void file_writer_abort(file_writer *w); /* harmless after commit */

/* Reads a whole file or, for "-", standard input into a new buffer of *size bytes followed by a NUL; fails with
 * FACET_ERR_LIMIT above max_bytes. Free with mem_free. */
facet_status file_read_all(const char *path, size_t max_bytes, char **data, size_t *size, facet_error *err);

#endif
