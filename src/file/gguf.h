/* gguf.h: reading GGUF v2/v3 files, single or split, mapped, hostile-input safe. */
#ifndef FACET_FILE_GGUF_H
#define FACET_FILE_GGUF_H

#include "base/error.h"
#include "base/file_map.h"
#include "quant/type.h"

typedef enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
} gguf_type;

/* A string inside the mapping: not NUL-terminated. */
typedef struct gguf_str {
    const char *s;
    size_t n;
} gguf_str;

/* One key. `value` points at the value's bytes in the mapping (arrays: at the first element; a string begins with its
 * u64 length). The gguf_array_ functions below also read a scalar, as an array of one. */
typedef struct gguf_kv {
    gguf_str key;
    gguf_type type;
    gguf_type elem; /* of an array; else = type */
    uint64_t count; /* elements of an array; else 1 */
    const uint8_t *value;
} gguf_kv;

typedef struct gguf_tensor {
    char *name;    /* owned, NUL-terminated */
    uint32_t type; /* a readable tensor_type */
    int n_dims;
    uint64_t ne[4]; /* ne[0] contiguous; missing dimensions are 1 */
    uint64_t bytes;
    const uint8_t *data; /* inside the mapping of `shard` */
    int shard;
} gguf_tensor;

typedef struct gguf_file {
    char *path; /* as given */
    int n_shards;
    file_map *shards;
    uint64_t n_kv;
    gguf_kv *kv;        /* of shard 0 */
    uint64_t n_tensors; /* of all shards */
    gguf_tensor *tensors;
    void *index; /* private: name lookup */
    uint32_t version;
} gguf_file;

/* Opens path and, when it is shard 0 of a split set, its siblings. Every rule of the validation list holds afterwards;
 * a tensor of a type that Facet cannot read is an error that names the tensor and the type. Errors start with the path
 * of the file concerned. FACET_ERR_IO, FACET_ERR_FORMAT, FACET_ERR_UNSUPPORTED, FACET_ERR_MEMORY. */
facet_status gguf_open(const char *path, gguf_file **out, facet_error *err);
/* The same on bytes in memory (kept by the caller until close); `name` is used in messages. Reads this one file:
 * split.* keys are left to the caller. */
facet_status gguf_open_memory(const void *data, size_t size, const char *name, gguf_file **out, facet_error *err);
void gguf_close(gguf_file *f);

const gguf_tensor *gguf_find_tensor(const gguf_file *f, const char *name); /* NULL when absent */
const char *gguf_path_of(const gguf_file *f, const gguf_tensor *t);        /* of the file that holds it; borrowed */
const gguf_kv *gguf_find(const gguf_file *f, const char *key);             /* NULL when absent */

/* Typed getters. Integers widen and narrow where the value fits; nothing is reinterpreted. When the key is absent they
 * leave *out alone and return FACET_OK if !required, else FACET_ERR_FORMAT "missing key". A wrong type or an
 * out-of-range value is FACET_ERR_FORMAT with key, type met and type wanted. get_f32 also refuses non-finite values. */
facet_status gguf_get_u64(const gguf_file *f, const char *key, bool required, uint64_t min, uint64_t max, uint64_t *out,
                          facet_error *err);
facet_status gguf_get_f32(const gguf_file *f, const char *key, bool required, float *out, facet_error *err);
facet_status gguf_get_bool(const gguf_file *f, const char *key, bool required, bool *out, facet_error *err);
facet_status gguf_get_str(const gguf_file *f, const char *key, bool required, gguf_str *out, facet_error *err);

/* Array elements; i < kv->count. gguf_array_i64 accepts integer and bool elements (false otherwise or when it does not
 * fit). */
bool gguf_array_i64(const gguf_kv *kv, uint64_t i, int64_t *out);
bool gguf_array_f32(const gguf_kv *kv, uint64_t i, float *out);
/* All strings of a string array, in one pass (they were bounds-checked at open); out holds kv->count entries. */
bool gguf_array_strings(const gguf_kv *kv, gguf_str *out);
/* A scalar as int64 (integers and bool). */
bool gguf_scalar_i64(const gguf_kv *kv, int64_t *out);

const char *gguf_type_name(gguf_type t);

#endif
