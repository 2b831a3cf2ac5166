/* keys.h: metadata keys PREFIX.name of a GGUF file. Private to the readers of hyperparameters. */
#ifndef FACET_MODEL_KEYS_H
#define FACET_MODEL_KEYS_H

#include "file/gguf.h"

typedef struct key_reader {
    const gguf_file *f;
    const char *prefix; /* the architecture's name */
    facet_error *err;
} key_reader;

enum { KEY_BYTES = 128 };
/* PREFIX.name in buf. */
const char *keys_full(const key_reader *k, const char *name, char buf[KEY_BYTES]);
bool keys_has(const key_reader *k, const char *name);
/* The name of the two that the file has; the first when it has neither or both. */
const char *keys_either(const key_reader *k, const char *name, const char *other);

/* Absent keys leave *out alone unless they are required. Errors name file, key, value and range. */
facet_status keys_int(const key_reader *k, const char *name, bool required, int64_t min, int64_t max, int *out);
facet_status keys_u32(const key_reader *k, const char *name, bool required, uint64_t min, uint64_t max, uint32_t *out);
facet_status keys_f32(const key_reader *k, const char *name, bool required, float *out);
facet_status keys_bool(const key_reader *k, const char *name, bool required, bool *out);
/* One integer per layer from a scalar or an array of exactly n_layers; the key is required. */
facet_status keys_per_layer(const key_reader *k, const char *name, int64_t min, int64_t max, int n_layers,
                            int64_t *out);
/* The head dimension: key_name and value_name must hold the same multiple of 32. */
facet_status keys_head_dim(const key_reader *k, const char *key_name, const char *value_name, int *out);

#endif
