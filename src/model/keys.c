#include "model/keys.h"

#include <stdio.h>

const char *keys_full(const key_reader *k, const char *name, char buf[KEY_BYTES])
{
    snprintf(buf, KEY_BYTES, "%s.%s", k->prefix, name);
    return buf;
}

bool keys_has(const key_reader *k, const char *name)
{
    char full[KEY_BYTES];
    return gguf_find(k->f, keys_full(k, name, full)) != NULL;
}

const char *keys_either(const key_reader *k, const char *name, const char *other)
{
    return !keys_has(k, name) && keys_has(k, other) ? other : name;
}

facet_status keys_int(const key_reader *k, const char *name, bool required, int64_t min, int64_t max, int *out)
{
    char full[KEY_BYTES];
    uint64_t v = (uint64_t)*out;
    FACET_TRY(gguf_get_u64(k->f, keys_full(k, name, full), required, (uint64_t)min, (uint64_t)max, &v, k->err));
    *out = (int)v;
    return FACET_OK;
}

facet_status keys_u32(const key_reader *k, const char *name, bool required, uint64_t min, uint64_t max, uint32_t *out)
{
    char full[KEY_BYTES];
    uint64_t v = *out;
    FACET_TRY(gguf_get_u64(k->f, keys_full(k, name, full), required, min, max, &v, k->err));
    *out = (uint32_t)v;
    return FACET_OK;
}

facet_status keys_f32(const key_reader *k, const char *name, bool required, float *out)
{
    char full[KEY_BYTES];
    return gguf_get_f32(k->f, keys_full(k, name, full), required, out, k->err);
}

facet_status keys_bool(const key_reader *k, const char *name, bool required, bool *out)
{
    char full[KEY_BYTES];
    return gguf_get_bool(k->f, keys_full(k, name, full), required, out, k->err);
}

facet_status keys_per_layer(const key_reader *k, const char *name, int64_t min, int64_t max, int n_layers, int64_t *out)
{
    char full[KEY_BYTES];
    const gguf_kv *kv = gguf_find(k->f, keys_full(k, name, full));
    const char *path = k->f->path;
    if (!kv) return error_set(k->err, FACET_ERR_FORMAT, "%s: missing key %s", path, full);
    if (kv->type == GGUF_ARRAY && kv->count != (uint64_t)n_layers)
        return error_set(k->err, FACET_ERR_FORMAT, "%s: %s has %llu entries, the model has %d layers", path, full,
                         (unsigned long long)kv->count, n_layers);
    for (int l = 0; l < n_layers; l++) {
        bool ok = kv->type == GGUF_ARRAY ? gguf_array_i64(kv, (uint64_t)l, &out[l]) : gguf_scalar_i64(kv, &out[l]);
        if (!ok) return error_set(k->err, FACET_ERR_FORMAT, "%s: %s is not made of integers", path, full);
        if (out[l] < min || out[l] > max)
            return error_set(k->err, FACET_ERR_FORMAT, "%s: %s of layer %d is %lld, wanted %lld to %lld", path, full, l,
                             (long long)out[l], (long long)min, (long long)max);
    }
    return FACET_OK;
}

facet_status keys_head_dim(const key_reader *k, const char *key_name, const char *value_name, int *out)
{
    char key[KEY_BYTES], value[KEY_BYTES];
    int value_dim = 0;
    FACET_TRY(keys_int(k, key_name, true, 32, 4096, out));
    FACET_TRY(keys_int(k, value_name, true, 32, 4096, &value_dim));
    keys_full(k, key_name, key);
    if (value_dim != *out)
        return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s is %d, %s is %d: they must be equal", k->f->path, key,
                         *out, keys_full(k, value_name, value), value_dim);
    if (*out % 32)
        return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s is %d, wanted a multiple of 32", k->f->path, key, *out);
    return FACET_OK;
}
