/* safetensors.h: reading safetensors files and folders (model.safetensors, or model.safetensors.index.json with
 * shards). */
#ifndef FACET_FILE_SAFETENSORS_H
#define FACET_FILE_SAFETENSORS_H

#include "base/error.h"
#include "base/file_map.h"
#include "quant/type.h"

typedef struct st_tensor {
    char *name;
    uint32_t type; /* TYPE_F32, TYPE_F16, TYPE_BF16, TYPE_F64, TYPE_I8…TYPE_I64 */
    int n_dims;
    uint64_t ne[4]; /* REVERSED to GGUF order: ne[0] is the last (contiguous) dimension of the file's shape */
    uint64_t bytes;
    const uint8_t *data;
} st_tensor;

typedef struct st_file {
    char *path;
    int n_shards;
    file_map *shards;
    uint64_t n_tensors;
    st_tensor *tensors; /* sorted by name */
} st_file;

/* path: a .safetensors file, or a folder. */
facet_status st_open(const char *path, st_file **out, facet_error *err);
void st_close(st_file *f);
const st_tensor *st_find(const st_file *f, const char *name); /* NULL when absent */

#endif
