/* safetensors.h: reading safetensors files and folders (model.safetensors, or model.safetensors.index.json with
 * shards), mapped, hostile-input safe. */
#ifndef FACET_FILE_SAFETENSORS_H
#define FACET_FILE_SAFETENSORS_H

#include "base/error.h"
#include "base/file_map.h"
#include "quant/type.h"

typedef struct st_tensor {
    char *name;     /* owned, NUL-terminated */
    uint32_t type;  /* TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_F64, TYPE_I8…TYPE_I64 */
    int n_dims;     /* 0 for a scalar */
    uint64_t ne[4]; /* REVERSED to GGUF order: ne[0] is the last (contiguous) dimension of the file's shape */
    uint64_t bytes;
    const uint8_t *data; /* inside the mapping of `shard`; only aligned as the file has it */
    int shard;
} st_tensor;

typedef struct st_file {
    char *path;
    int n_shards;
    file_map *shards;
    uint64_t n_tensors;
    st_tensor *tensors; /* sorted by name */
    bool is_borrowed;   /* shards[0].data belongs to the caller of st_open_memory */
} st_file;

/* path: a .safetensors file, or a folder. Afterwards every tensor lies inside its file, none overlaps another and no
 * name occurs twice; dimensions are at least 1. A dtype that Facet does not read is an error that names the tensor.
 * Errors start with the path of the file concerned. FACET_ERR_IO, FACET_ERR_FORMAT, FACET_ERR_UNSUPPORTED,
 * FACET_ERR_MEMORY. */
facet_status st_open(const char *path, st_file **out, facet_error *err);
/* One file's bytes in memory (kept by the caller until close); `name` is used in messages. */
facet_status st_open_memory(const void *data, size_t size, const char *name, st_file **out, facet_error *err);
void st_close(st_file *f);
const st_tensor *st_find(const st_file *f, const char *name); /* NULL when absent */

#endif
