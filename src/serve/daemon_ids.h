/* daemon_ids.h: files of token ids, int32 little-endian: raw, or with a count (uint32) before them. */
#ifndef FACET_SERVE_DAEMON_IDS_H
#define FACET_SERVE_DAEMON_IDS_H

#include "base/error.h"

/* All ids of a regular file ([*n], mem_free); of more than `most` only their number is told, and *ids is NULL. A raw
 * file's last bytes that are no whole id are passed over. FACET_ERR_IO: it cannot be read, is empty, or shorter than
 * its count. */
facet_status ids_read(const char *path, bool is_counted, size_t most, int32_t **ids, size_t *n, facet_error *err);
/* With a count. The file appears whole or not at all. bytes: n ids, of any alignment. */
facet_status ids_write(const char *path, const void *bytes, size_t n, facet_error *err);

#endif
