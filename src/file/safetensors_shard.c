/* safetensors_shard.c: one file: u64 header length, JSON header, tensor data. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "file/cursor.h"
#include "file/safetensors_internal.h"

/* The dtypes of the format; TYPE_COUNT marks those that Facet does not read. */
static const struct {
    const char *name;
    uint32_t type;
} dtypes[] = {
    {"F32", TYPE_F32},    {"F16", TYPE_F16},       {"BF16", TYPE_BF16},     {"F64", TYPE_F64},
    {"I8", TYPE_I8},      {"I16", TYPE_I16},       {"I32", TYPE_I32},       {"I64", TYPE_I64},
    {"U8", TYPE_COUNT},   {"U16", TYPE_COUNT},     {"U32", TYPE_COUNT},     {"U64", TYPE_COUNT},
    {"BOOL", TYPE_COUNT}, {"F8_E4M3", TYPE_COUNT}, {"F8_E5M2", TYPE_COUNT}, {"F8_E8M0", TYPE_COUNT},
    {"C64", TYPE_COUNT},  {"F4", TYPE_COUNT},      {"F6_E2M3", TYPE_COUNT}, {"F6_E3M2", TYPE_COUNT},
};

static facet_status read_dtype(st_tensor *t, const json_t *record, facet_error *err)
{
    const char *name = json_string_value(json_object_get(record, "dtype"));
    if (!name) return error_set(err, FACET_ERR_FORMAT, "dtype is missing or not a string");
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(name, dtypes[i].name) != 0) continue;
        t->type = dtypes[i].type;
        if (t->type != TYPE_COUNT) return FACET_OK;
        return error_set(err, FACET_ERR_UNSUPPORTED, "dtype %s is not supported", name);
    }
    return error_set(err, FACET_ERR_FORMAT, "unknown dtype %s", name);
}

static facet_status read_shape(st_tensor *t, const json_t *record, facet_error *err)
{
    const json_t *shape = json_object_get(record, "shape");
    if (!json_is_array(shape)) return error_set(err, FACET_ERR_FORMAT, "shape is missing or not an array");
    size_t n = json_array_size(shape);
    if (n > 4) return error_set(err, FACET_ERR_FORMAT, "%zu dimensions, at most 4 wanted", n);
    t->n_dims = (int)n;
    uint64_t elements = 1;
    for (size_t i = 0; i < 4; i++) t->ne[i] = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(shape, n - 1 - i);
        if (!json_is_integer(v)) return error_set(err, FACET_ERR_FORMAT, "a dimension in shape is not an integer");
        if (json_integer_value(v) < 1)
            return error_set(err, FACET_ERR_FORMAT, "dimension %" JSON_INTEGER_FORMAT ", at least 1 wanted",
                             json_integer_value(v));
        t->ne[i] = (uint64_t)json_integer_value(v);
        if (t->ne[i] > INT64_MAX / elements) return error_set(err, FACET_ERR_FORMAT, "element count overflows");
        elements *= t->ne[i];
    }
    if (__builtin_mul_overflow(elements, (uint64_t)type_get(t->type)->block_bytes, &t->bytes))
        return error_set(err, FACET_ERR_FORMAT, "byte size overflows");
    return FACET_OK;
}

static facet_status read_place(st_tensor *t, const json_t *record, const cursor *blob, facet_error *err)
{
    const json_t *offsets = json_object_get(record, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return error_set(err, FACET_ERR_FORMAT, "data_offsets is not an array of two integers");
    int64_t begin = json_integer_value(first), end = json_integer_value(last);
    uint64_t size = cursor_left(blob);
    if (begin < 0 || end < begin || (uint64_t)end > size)
        return error_set(err, FACET_ERR_FORMAT,
                         "data_offsets [%" PRId64 ", %" PRId64 "] lie outside the %" PRIu64 " bytes of data", begin,
                         end, size);
    if ((uint64_t)(end - begin) != t->bytes)
        return error_set(err, FACET_ERR_FORMAT,
                         "data_offsets [%" PRId64 ", %" PRId64 "] span %" PRId64
                         " bytes, but dtype and shape need %" PRIu64,
                         begin, end, end - begin, t->bytes);
    t->data = blob->data + blob->pos + begin;
    return FACET_OK;
}

static facet_status read_record(st_tensor *t, const char *name, const json_t *record, const cursor *blob,
                                facet_error *err)
{
    if (!*name) return error_set(err, FACET_ERR_FORMAT, "empty tensor name");
    if (!json_is_object(record)) return error_set(err, FACET_ERR_FORMAT, "not an object");
    FACET_TRY(read_dtype(t, record, err));
    FACET_TRY(read_shape(t, record, err));
    FACET_TRY(read_place(t, record, blob, err));
    t->name = mem_strdup(name);
    return t->name ? FACET_OK : error_memory(err, "a tensor name", strlen(name));
}

static int by_place(const void *a, const void *b)
{
    const st_tensor *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

/* Orders the tensors of one file by place; they are sorted by name once all files are read. */
static facet_status check_overlap(st_tensor *t, uint64_t n, facet_error *err)
{
    qsort(t, n, sizeof *t, by_place);
    for (uint64_t i = 1; i < n; i++)
        if (t[i - 1].bytes > (uint64_t)(t[i].data - t[i - 1].data))
            return error_set(err, FACET_ERR_FORMAT, "tensor %s: its data overlaps that of tensor %s", t[i].name,
                             t[i - 1].name);
    return FACET_OK;
}

static facet_status read_records(st_file *f, int shard, json_t *header, const cursor *blob, facet_error *err)
{
    uint64_t n = json_object_size(header);
    if (n > ST_MAX_TENSORS - f->n_tensors)
        return error_set(err, FACET_ERR_FORMAT, "more than %d tensors", ST_MAX_TENSORS);
    st_tensor *bigger = mem_resize_array(f->tensors, f->n_tensors + n, sizeof *bigger);
    if (!bigger) return error_memory(err, "the tensor table", (f->n_tensors + n) * sizeof *bigger);
    f->tensors = bigger;
    st_tensor *first = bigger + f->n_tensors;
    const uint64_t n_before = f->n_tensors;
    const char *name;
    json_t *record;
    json_object_foreach(header, name, record)
    {
        if (strcmp(name, "__metadata__") == 0) continue;
        st_tensor *t = &f->tensors[f->n_tensors];
        *t = (st_tensor){.shard = shard};
        facet_status status = read_record(t, name, record, blob, err);
        if (status != FACET_OK) {
            error_prefix(err, "tensor %s", name);
            return status;
        }
        f->n_tensors++;
    }
    return check_overlap(first, f->n_tensors - n_before, err);
}

static facet_status parse_header(cursor *c, json_t **out, facet_error *err)
{
    uint64_t n;
    json_error_t e;
    if (!cursor_u64(c, &n))
        return error_set(err, FACET_ERR_FORMAT, "file of %" PRIu64 " bytes is too small for a safetensors file",
                         c->size);
    if (n > ST_MAX_JSON_BYTES)
        return error_set(err, FACET_ERR_FORMAT,
                         "header length %" PRIu64 ", at most %d allowed (not a safetensors file?)", n,
                         ST_MAX_JSON_BYTES);
    const char *text = (const char *)cursor_take(c, n);
    if (!text)
        return error_set(err, FACET_ERR_FORMAT, "header length %" PRIu64 ", but %" PRIu64 " bytes follow", n,
                         cursor_left(c));
    *out = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &e);
    if (!*out) return error_set(err, FACET_ERR_FORMAT, "header: %s (byte %d)", e.text, e.position);
    if (json_is_object(*out)) return FACET_OK;
    json_decref(*out);
    return error_set(err, FACET_ERR_FORMAT, "header: not a JSON object");
}

facet_status st_read_shard(st_file *f, int shard, facet_error *err)
{
    const file_map *map = &f->shards[shard];
    cursor c = {.data = map->data, .size = map->size};
    json_t *header = NULL;
    facet_status status = parse_header(&c, &header, err);
    if (status == FACET_OK) {
        status = read_records(f, shard, header, &c, err);
        json_decref(header);
    }
    if (status != FACET_OK) error_prefix(err, "%s", map->path);
    return status;
}
