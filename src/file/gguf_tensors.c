/* gguf_tensors.c: the tensor table of a GGUF file. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "file/gguf_internal.h"

static facet_status check_type(const gguf_tensor *t, const type_info **out, facet_error *err)
{
    *out = type_get(t->type);
    if (*out) return FACET_OK;
    const char *name = type_name(t->type);
    if (name) return error_set(err, FACET_ERR_UNSUPPORTED, "type %s (%" PRIu32 ") is not supported", name, t->type);
    return error_set(err, FACET_ERR_FORMAT, "unknown tensor type %" PRId32, (int32_t)t->type);
}

facet_status gguf_check_shape(gguf_tensor *t, facet_status fault, facet_error *err)
{
    const type_info *info;
    FACET_TRY(check_type(t, &info, err));
    uint64_t elements = 1;
    for (int i = 0; i < 4; i++) {
        if (t->ne[i] < 1 || t->ne[i] > INT64_MAX)
            return error_set(err, fault, "dimension %d is %" PRId64 ", at least 1 wanted", i, (int64_t)t->ne[i]);
        if (t->ne[i] > INT64_MAX / elements)
            return error_set(err, fault, "element count overflows at dimension %d (%" PRIu64 ")", i, t->ne[i]);
        elements *= t->ne[i];
    }
    if (t->ne[0] % info->block_len != 0)
        return error_set(err, fault, "row of %" PRIu64 " values is not a multiple of the %" PRIu32 " of a %s block",
                         t->ne[0], info->block_len, info->name);
    if (__builtin_mul_overflow(elements / info->block_len, (uint64_t)info->block_bytes, &t->bytes))
        return error_set(err, fault, "byte size of %" PRIu64 " %s values overflows", elements, info->name);
    return FACET_OK;
}

/* After the name: dimensions, type, offset. */
static facet_status read_record(cursor *c, gguf_tensor *t, uint64_t *offset, facet_error *err)
{
    uint32_t n_dims;
    if (!cursor_u32(c, &n_dims)) return gguf_truncated(c, "number of dimensions", err);
    if (n_dims < 1 || n_dims > 4)
        return error_set(err, FACET_ERR_FORMAT, "%" PRIu32 " dimensions, 1..4 wanted", n_dims);
    t->n_dims = (int)n_dims;
    for (int i = 0; i < 4; i++) {
        t->ne[i] = 1;
        if (i < t->n_dims && !cursor_u64(c, &t->ne[i])) return gguf_truncated(c, "dimension", err);
    }
    if (!cursor_u32(c, &t->type)) return gguf_truncated(c, "tensor type", err);
    if (!cursor_u64(c, offset)) return gguf_truncated(c, "tensor offset", err);
    return gguf_check_shape(t, FACET_ERR_FORMAT, err);
}

static facet_status read_name(cursor *c, gguf_tensor *t, facet_error *err)
{
    uint64_t n;
    if (!cursor_u64(c, &n)) return gguf_truncated(c, "tensor name length", err);
    const char *s = (const char *)c->data + c->pos;
    if (n <= GGUF_MAX_NAME_BYTES && !cursor_take(c, n)) return gguf_truncated(c, "tensor name", err);
    FACET_TRY(gguf_check_name("tensor name", s, n, GGUF_MAX_NAME_BYTES, FACET_ERR_FORMAT, err));
    t->name = mem_strndup(s, (size_t)n);
    return t->name ? FACET_OK : error_memory(err, "a tensor name", (size_t)n);
}

/* One record; *offset is relative to a blob whose start is not known yet. */
static facet_status read_tensor(cursor *c, gguf_tensor *t, uint64_t *offset, facet_error *err)
{
    uint64_t at = c->pos;
    facet_status status = read_name(c, t, err);
    if (status != FACET_OK) {
        error_prefix(err, "tensor record at offset %" PRIu64, at);
        return status;
    }
    status = read_record(c, t, offset, err);
    if (status != FACET_OK) error_prefix(err, "tensor %s", t->name);
    return status;
}

static facet_status place_tensor(gguf_tensor *t, const cursor *c, uint64_t blob, uint64_t offset, uint64_t alignment,
                                 facet_error *err)
{
    uint64_t blob_size = c->size - blob;
    if (offset > blob_size)
        return error_set(err, FACET_ERR_FORMAT,
                         "tensor %s: offset %" PRIu64 " lies past the end of the file (%" PRIu64 " bytes)", t->name,
                         offset, c->size);
    if (offset % alignment)
        return error_set(err, FACET_ERR_FORMAT,
                         "tensor %s: offset %" PRIu64 " is not a multiple of the alignment %" PRIu64, t->name, offset,
                         alignment);
    if (t->bytes > blob_size - offset)
        return error_set(err, FACET_ERR_FORMAT,
                         "tensor %s: its %" PRIu64 " bytes at offset %" PRIu64 " go past the end of the file (%" PRIu64
                         " bytes)",
                         t->name, t->bytes, offset, c->size);
    t->data = c->data + blob + offset;
    return FACET_OK;
}

typedef struct place {
    const uint8_t *data;
    const gguf_tensor *tensor;
} place;

static int by_data(const void *a, const void *b)
{
    const place *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

static facet_status check_pair(const gguf_tensor *a, const gguf_tensor *b, facet_error *err)
{
    if (a->bytes <= (uint64_t)(b->data - a->data)) return FACET_OK;
    return error_set(err, FACET_ERR_FORMAT, "tensor %s: its data overlaps that of tensor %s", b->name, a->name);
}

/* No byte belongs to two tensors: a small file cannot declare a huge model. */
static facet_status check_overlap(gguf_tensor *t, uint64_t n, facet_error *err)
{
    bool is_sorted = true;
    for (uint64_t i = 1; i < n; i++) is_sorted = is_sorted && t[i - 1].data < t[i].data;
    if (is_sorted) {
        for (uint64_t i = 1; i < n; i++) FACET_TRY(check_pair(&t[i - 1], &t[i], err));
        return FACET_OK;
    }
    place *order = mem_calloc(n, sizeof *order);
    if (!order) return error_memory(err, "the order of the tensors", n * sizeof *order);
    for (uint64_t i = 0; i < n; i++) order[i] = (place){.data = t[i].data, .tensor = &t[i]};
    qsort(order, n, sizeof *order, by_data);
    facet_status status = FACET_OK;
    for (uint64_t i = 1; i < n && status == FACET_OK; i++)
        status = check_pair(order[i - 1].tensor, order[i].tensor, err);
    mem_free(order);
    return status;
}

static facet_status read_table(gguf_file *f, int shard, cursor *c, uint64_t n, uint64_t *offsets, uint64_t alignment,
                               facet_error *err)
{
    gguf_tensor *first = f->tensors + f->n_tensors;
    for (uint64_t i = 0; i < n; i++) {
        first[i] = (gguf_tensor){.shard = shard};
        f->n_tensors++; /* owned by f, with its name, from here on */
        FACET_TRY(read_tensor(c, &first[i], &offsets[i], err));
    }
    uint64_t blob;
    if (!gguf_round_up(c->pos, alignment, &blob) || blob > c->size)
        return error_set(err, FACET_ERR_FORMAT,
                         "tensor data should begin after offset %" PRIu64 ", but the file ends (%" PRIu64 " bytes)",
                         c->pos, c->size);
    for (uint64_t i = 0; i < n; i++) FACET_TRY(place_tensor(&first[i], c, blob, offsets[i], alignment, err));
    return check_overlap(first, n, err);
}

facet_status gguf_read_tensors(gguf_file *f, int shard, cursor *c, uint64_t n, uint64_t alignment, facet_error *err)
{
    if (!n) return FACET_OK; /* no padding and no blob either */
    if (n > GGUF_MAX_TENSORS - f->n_tensors)
        return error_set(err, FACET_ERR_FORMAT, "%" PRIu64 " tensors in all, at most %d allowed", f->n_tensors + n,
                         GGUF_MAX_TENSORS);
    gguf_tensor *bigger = mem_resize_array(f->tensors, f->n_tensors + n, sizeof *bigger);
    if (!bigger) return error_memory(err, "the tensor table", (f->n_tensors + n) * sizeof *bigger);
    f->tensors = bigger;
    uint64_t *offsets = mem_calloc(n, sizeof *offsets);
    if (!offsets) return error_memory(err, "the tensor offsets", n * sizeof *offsets);
    facet_status status = read_table(f, shard, c, n, offsets, alignment, err);
    mem_free(offsets);
    return status;
}

facet_status gguf_index_tensors(gguf_file *f, facet_error *err)
{
    name_table *names = &((gguf_index *)f->index)->tensors;
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        const gguf_tensor *t = &f->tensors[i];
        name_result r = name_table_add(names, t->name, strlen(t->name), i);
        if (r == NAME_NO_MEMORY) return error_memory(err, "the tensor index", 2 * f->n_tensors * sizeof(name_slot));
        if (r == NAME_DUPLICATE)
            return error_set(err, FACET_ERR_FORMAT, "%s: duplicate tensor name %s", f->shards[t->shard].path, t->name);
    }
    return FACET_OK;
}
