/* gguf_get.c: typed access to the keys of an open GGUF file. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "file/gguf_internal.h"

/* Every integer that a file can hold: magnitude with a sign. */
typedef struct wide_int {
    bool is_negative;
    uint64_t magnitude;
} wide_int;

static bool load_unsigned(gguf_type type, const uint8_t *p, uint64_t *out)
{
    uint64_t v = 0;
    switch (type) {
    case GGUF_BOOL:
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64: memcpy(&v, p, gguf_type_bytes(type)); break; /* little-endian: the low bytes come first */
    default: return false;
    }
    *out = v;
    return true;
}

static bool load_signed(gguf_type type, const uint8_t *p, int64_t *out)
{
    if (type != GGUF_I8 && type != GGUF_I16 && type != GGUF_I32 && type != GGUF_I64) return false;
    uint64_t bytes = gguf_type_bytes(type), v = 0;
    memcpy(&v, p, bytes);
    int shift = 64 - 8 * (int)bytes;
    *out = (int64_t)(v << shift) >> shift; /* extends the sign */
    return true;
}

static bool load_int(gguf_type type, const uint8_t *p, wide_int *out)
{
    uint64_t u;
    int64_t i;
    if (load_unsigned(type, p, &u)) {
        *out = (wide_int){.magnitude = u};
        return true;
    }
    if (!load_signed(type, p, &i)) return false;
    *out = (wide_int){.is_negative = i < 0, .magnitude = i < 0 ? 0 - (uint64_t)i : (uint64_t)i};
    return true;
}

/* The one that is stored, narrowed to f32 (a double out of range becomes infinite). */
static bool load_f32(gguf_type type, const uint8_t *p, float *out)
{
    double d;
    switch (type) {
    case GGUF_F32: memcpy(out, p, sizeof *out); return true;
    case GGUF_F64:
        memcpy(&d, p, sizeof d);
        *out = (float)d;
        return true;
    default: return false;
    }
}

static facet_status find_key(const gguf_file *f, const char *key, bool required, const gguf_kv **out, facet_error *err)
{
    *out = gguf_find(f, key);
    if (*out || !required) return FACET_OK;
    return error_set(err, FACET_ERR_FORMAT, "%s: missing key \"%s\"", f->path, key);
}

static facet_status wrong_type(const gguf_file *f, const gguf_kv *kv, const char *wanted, facet_error *err)
{
    return error_set(err, FACET_ERR_FORMAT, "%s: key \"%.*s\": type %s, %s wanted", f->path, (int)kv->key.n, kv->key.s,
                     gguf_type_name(kv->type), wanted);
}

facet_status gguf_get_u64(const gguf_file *f, const char *key, bool required, uint64_t min, uint64_t max, uint64_t *out,
                          facet_error *err)
{
    const gguf_kv *kv;
    wide_int v;
    FACET_TRY(find_key(f, key, required, &kv, err));
    if (!kv) return FACET_OK;
    if (kv->type == GGUF_BOOL || !load_int(kv->type, kv->value, &v)) return wrong_type(f, kv, "an integer", err);
    if (v.is_negative || v.magnitude < min || v.magnitude > max)
        return error_set(err, FACET_ERR_FORMAT, "%s: key \"%s\": %s%" PRIu64 " is outside %" PRIu64 "..%" PRIu64,
                         f->path, key, v.is_negative ? "-" : "", v.magnitude, min, max);
    *out = v.magnitude;
    return FACET_OK;
}

facet_status gguf_get_f32(const gguf_file *f, const char *key, bool required, float *out, facet_error *err)
{
    const gguf_kv *kv;
    float v;
    FACET_TRY(find_key(f, key, required, &kv, err));
    if (!kv) return FACET_OK;
    if (!load_f32(kv->type, kv->value, &v)) return wrong_type(f, kv, "f32", err);
    if (!isfinite(v))
        return error_set(err, FACET_ERR_FORMAT, "%s: key \"%s\": %g, a finite f32 wanted", f->path, key, (double)v);
    *out = v;
    return FACET_OK;
}

facet_status gguf_get_bool(const gguf_file *f, const char *key, bool required, bool *out, facet_error *err)
{
    const gguf_kv *kv;
    FACET_TRY(find_key(f, key, required, &kv, err));
    if (!kv) return FACET_OK;
    if (kv->type != GGUF_BOOL) return wrong_type(f, kv, "bool", err);
    *out = kv->value[0] == 1;
    return FACET_OK;
}

facet_status gguf_get_str(const gguf_file *f, const char *key, bool required, gguf_str *out, facet_error *err)
{
    const gguf_kv *kv;
    FACET_TRY(find_key(f, key, required, &kv, err));
    if (!kv) return FACET_OK;
    if (kv->type != GGUF_STRING) return wrong_type(f, kv, "string", err);
    gguf_array_strings(kv, out);
    return FACET_OK;
}

bool gguf_array_i64(const gguf_kv *kv, uint64_t i, int64_t *out)
{
    wide_int v;
    if (!load_int(kv->elem, kv->value + i * gguf_type_bytes(kv->elem), &v)) return false;
    if (v.magnitude > (uint64_t)INT64_MAX + v.is_negative) return false;
    *out = (int64_t)(v.is_negative ? 0 - v.magnitude : v.magnitude);
    return true;
}

bool gguf_array_f32(const gguf_kv *kv, uint64_t i, float *out)
{
    return load_f32(kv->elem, kv->value + i * gguf_type_bytes(kv->elem), out);
}

bool gguf_array_strings(const gguf_kv *kv, gguf_str *out)
{
    if (kv->elem != GGUF_STRING) return false;
    const uint8_t *p = kv->value;
    for (uint64_t i = 0; i < kv->count; i++) {
        uint64_t n;
        memcpy(&n, p, sizeof n);
        out[i] = (gguf_str){.s = (const char *)p + 8, .n = (size_t)n};
        p += 8 + n;
    }
    return true;
}

bool gguf_scalar_i64(const gguf_kv *kv, int64_t *out)
{
    return kv->type != GGUF_ARRAY && gguf_array_i64(kv, 0, out);
}
