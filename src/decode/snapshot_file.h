/* snapshot_file.h: snapshots on disk. A file belongs to the model (its tensors and settings), the types and layout of
 * the KV cache, the device's page layout and, where one is attached, the DFlash drafter (whose context it holds); it is
 * refused by any other. Its parts have checksums. docs/snapshots.md draws the layout. */
#ifndef FACET_DECODE_SNAPSHOT_FILE_H
#define FACET_DECODE_SNAPSHOT_FILE_H

#include "decode/snapshot.h"

/* Writes the slot (thin ones, too) to a file: to a temporary file in the same folder, flushed to the disk, which then
 * takes the place of `path`, so that at any moment, also after a power failure, `path` is the old file or the new one.
 * A temporary file "path.tmp-XXXXXX" may be left behind when the process is killed. FACET_ERR_ARG: an empty slot;
 * FACET_ERR_IO; FACET_ERR_PARKED while the cache is parked. */
facet_status snapshot_save(facet_engine *e, int slot, const char *path, facet_error *err);

/* Reads a file into a slot, in place of what it held. Everything is checked before anything changes; on failure the
 * slot keeps its content. FACET_ERR_FORMAT: damaged (cut off, a wrong checksum, a field out of range).
 * FACET_ERR_UNSUPPORTED: of another version, model, drafter, cache type or device layout, or longer than the engine's
 * context. FACET_ERR_LIMIT: the pool lacks the pages. FACET_ERR_PARKED while the cache is parked. */
facet_status snapshot_load(facet_engine *e, int slot, const char *path, facet_error *err);

/* What a file says about itself, after its header's checksum was found right; slot is -1, own_bytes = bytes = the size
 * of its pages. Reads no more than the header. */
facet_status snapshot_file_describe(const char *path, snapshot_info *out, facet_error *err);

#endif
