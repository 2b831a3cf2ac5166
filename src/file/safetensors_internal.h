/* safetensors_internal.h: what the two files of the safetensors module share. */
#ifndef FACET_FILE_SAFETENSORS_INTERNAL_H
#define FACET_FILE_SAFETENSORS_INTERNAL_H

#include "file/safetensors.h"

/* Larger JSON is not read: the header of a real model has a few hundred kilobytes. */
enum { ST_MAX_JSON_BYTES = 100 * 1000 * 1000, ST_MAX_TENSORS = 1 << 20, ST_MAX_SHARDS = 1024 };

/* Appends the tensors of f->shards[shard]. Errors start with that shard's path. */
facet_status st_read_shard(st_file *f, int shard, facet_error *err);

#endif
