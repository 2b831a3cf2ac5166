/* gguf_kv.c: the key-value section of a GGUF file. */
#include "file/gguf_internal.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

static const struct {
    const char *name;
    uint8_t bytes;
} value_types[] = {
    [GGUF_U8] = {"u8", 1},         [GGUF_I8] = {"i8", 1},       [GGUF_U16] = {"u16", 2}, [GGUF_I16] = {"i16", 2},
    [GGUF_U32] = {"u32", 4},       [GGUF_I32] = {"i32", 4},     [GGUF_F32] = {"f32", 4}, [GGUF_BOOL] = {"bool", 1},
    [GGUF_STRING] = {"string", 0}, [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8}, [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};
enum { N_VALUE_TYPES = sizeof value_types / sizeof *value_types };

const char *gguf_type_name(gguf_type t)
{
    return (unsigned)t < N_VALUE_TYPES ? value_types[t].name : "unknown";
}

uint64_t gguf_type_bytes(gguf_type t)
{
    return (unsigned)t < N_VALUE_TYPES ? value_types[t].bytes : 0;
}

facet_status gguf_truncated(const cursor *c, const char *what, facet_error *err)
{
    return error_set(err, FACET_ERR_FORMAT, "%s at offset %" PRIu64 ": the file ends (%" PRIu64 " bytes)", what, c->pos,
                     c->size);
}

facet_status gguf_check_name(const char *what, const char *s, uint64_t n, uint64_t max, facet_status fault,
                             facet_error *err)
{
    if (n < 1 || n > max) return error_set(err, fault, "%s: length %" PRIu64 " is outside 1..%" PRIu64, what, n, max);
    if (memchr(s, 0, n)) return error_set(err, fault, "%s: NUL byte inside the name", what);
    if (!utf8_valid(s, n)) return error_set(err, fault, "%s: name is not valid UTF-8", what);
    return FACET_OK;
}

static facet_status read_string(cursor *c, facet_error *err)
{
    uint64_t n;
    if (!cursor_u64(c, &n)) return gguf_truncated(c, "string length", err);
    if (n > GGUF_MAX_STRING_BYTES)
        return error_set(err, FACET_ERR_FORMAT, "string length %" PRIu64 " at offset %" PRIu64 ", at most %d allowed",
                         n, c->pos - 8, GGUF_MAX_STRING_BYTES);
    if (!cursor_take(c, n))
        return error_set(err, FACET_ERR_FORMAT,
                         "string length %" PRIu64 " at offset %" PRIu64 ", %" PRIu64 " bytes left", n, c->pos - 8,
                         cursor_left(c));
    return FACET_OK;
}

static facet_status read_bools(cursor *c, uint64_t n, facet_error *err)
{
    uint64_t offset = c->pos;
    const uint8_t *p = cursor_take(c, n);
    if (!p) return gguf_truncated(c, "bool", err);
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1)
            return error_set(err, FACET_ERR_FORMAT, "bool value %d at offset %" PRIu64 ", 0 or 1 wanted", p[i],
                             offset + i);
    return FACET_OK;
}

static facet_status read_elements(cursor *c, gguf_kv *kv, facet_error *err)
{
    kv->value = c->data + c->pos;
    if (kv->elem == GGUF_BOOL) return read_bools(c, kv->count, err);
    if (kv->elem == GGUF_STRING) {
        for (uint64_t i = 0; i < kv->count; i++) FACET_TRY(read_string(c, err));
        return FACET_OK;
    }
    if (!cursor_take(c, kv->count * gguf_type_bytes(kv->elem))) return gguf_truncated(c, "value", err);
    return FACET_OK;
}

static facet_status read_array_head(cursor *c, gguf_kv *kv, facet_error *err)
{
    uint32_t elem;
    uint64_t offset = c->pos;
    if (!cursor_u32(c, &elem) || !cursor_u64(c, &kv->count)) return gguf_truncated(c, "array header", err);
    if (elem >= N_VALUE_TYPES)
        return error_set(err, FACET_ERR_FORMAT, "array element type %" PRIu32 " at offset %" PRIu64 ", 0..12 wanted",
                         elem, offset);
    if (elem == GGUF_ARRAY)
        return error_set(err, FACET_ERR_FORMAT, "array of arrays at offset %" PRIu64 ": not allowed", offset);
    kv->elem = (gguf_type)elem;
    uint64_t bytes = elem == GGUF_STRING ? 8 : gguf_type_bytes(kv->elem), fits = cursor_left(c) / bytes;
    if (kv->count > fits)
        return error_set(err, FACET_ERR_FORMAT,
                         "array count %" PRIu64 " of %s at offset %" PRIu64 ", the bytes left hold at most %" PRIu64,
                         kv->count, gguf_type_name(kv->elem), offset + 4, fits);
    if (kv->count > GGUF_MAX_ARRAY)
        return error_set(err, FACET_ERR_FORMAT, "array count %" PRIu64 " at offset %" PRIu64 ", at most %d allowed",
                         kv->count, offset + 4, GGUF_MAX_ARRAY);
    return FACET_OK;
}

static facet_status read_value(cursor *c, gguf_kv *kv, facet_error *err)
{
    uint32_t type;
    if (!cursor_u32(c, &type)) return gguf_truncated(c, "value type", err);
    if (type >= N_VALUE_TYPES)
        return error_set(err, FACET_ERR_FORMAT, "value type %" PRIu32 " at offset %" PRIu64 ", 0..12 wanted", type,
                         c->pos - 4);
    kv->type = kv->elem = (gguf_type)type;
    kv->count = 1;
    if (kv->type == GGUF_ARRAY) FACET_TRY(read_array_head(c, kv, err));
    return read_elements(c, kv, err);
}

static facet_status read_key(cursor *c, gguf_kv *kv, facet_error *err)
{
    uint64_t n, offset = c->pos;
    if (!cursor_u64(c, &n)) return gguf_truncated(c, "key length", err);
    if (n > cursor_left(c))
        return error_set(err, FACET_ERR_FORMAT, "key length %" PRIu64 " at offset %" PRIu64 ", %" PRIu64 " bytes left",
                         n, offset, cursor_left(c));
    const char *s = (const char *)cursor_take(c, n);
    facet_status status = gguf_check_name("key", s, n, GGUF_MAX_KEY_BYTES, FACET_ERR_FORMAT, err);
    if (status != FACET_OK) {
        error_prefix(err, "offset %" PRIu64, offset);
        return status;
    }
    kv->key = (gguf_str){.s = s, .n = (size_t)n};
    status = read_value(c, kv, err);
    if (status != FACET_OK) error_prefix(err, "key \"%.*s\"", n > 100 ? 100 : (int)n, s);
    return status;
}

static facet_status read_all(cursor *c, gguf_keys *keys, uint64_t n, facet_error *err)
{
    for (; keys->n < n; keys->n++) {
        gguf_kv *kv = &keys->kv[keys->n];
        FACET_TRY(read_key(c, kv, err));
        name_result r = name_table_add(&keys->names, kv->key.s, kv->key.n, keys->n);
        if (r == NAME_NO_MEMORY) return error_memory(err, "the key index", 2 * n * sizeof(name_slot));
        if (r == NAME_DUPLICATE)
            return error_set(err, FACET_ERR_FORMAT, "duplicate key \"%.*s\"", kv->key.n > 100 ? 100 : (int)kv->key.n,
                             kv->key.s);
    }
    return FACET_OK;
}

facet_status gguf_read_keys(cursor *c, uint64_t n, gguf_keys *out, facet_error *err)
{
    gguf_keys keys = {.kv = mem_calloc(n, sizeof *keys.kv)};
    if (!keys.kv) return error_memory(err, "the key table", n * sizeof *keys.kv);
    facet_status status = read_all(c, &keys, n, err);
    if (status == FACET_OK)
        *out = keys;
    else
        gguf_keys_free(&keys);
    return status;
}

void gguf_keys_free(gguf_keys *keys)
{
    mem_free(keys->kv);
    name_table_free(&keys->names);
    *keys = (gguf_keys){0};
}

const gguf_kv *gguf_keys_find(const gguf_keys *keys, const char *key)
{
    uint64_t i = name_table_find(&keys->names, key, strlen(key));
    return i == NAME_NONE ? NULL : &keys->kv[i];
}

bool gguf_alignment_ok(uint64_t alignment)
{
    return alignment >= GGUF_MIN_ALIGNMENT && alignment <= GGUF_MAX_ALIGNMENT && (alignment & (alignment - 1)) == 0;
}

facet_status gguf_read_alignment(const gguf_keys *keys, uint64_t *out, facet_error *err)
{
    *out = GGUF_DEFAULT_ALIGNMENT;
    const gguf_kv *kv = gguf_keys_find(keys, "general.alignment");
    if (!kv) return FACET_OK;
    if (kv->type != GGUF_U32)
        return error_set(err, FACET_ERR_FORMAT, "general.alignment: type %s, u32 wanted", gguf_type_name(kv->type));
    uint32_t v;
    memcpy(&v, kv->value, sizeof v);
    if (!gguf_alignment_ok(v))
        return error_set(err, FACET_ERR_FORMAT, "general.alignment: %" PRIu32 ", a power of two in %d..%d wanted", v,
                         GGUF_MIN_ALIGNMENT, GGUF_MAX_ALIGNMENT);
    *out = v;
    return FACET_OK;
}

static uint64_t load_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

uint64_t gguf_value_bytes(const gguf_kv *kv)
{
    if (kv->elem != GGUF_STRING) return kv->count * gguf_type_bytes(kv->elem);
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < kv->count; i++) bytes += 8 + load_u64(kv->value + bytes);
    return bytes;
}
