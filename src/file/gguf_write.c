#include "file/gguf_write.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "file/gguf_internal.h"

typedef struct entry {
    char *key;
    gguf_type type, elem;
    uint64_t count;
    buf value;       /* as it stands in the file, behind the type and the array header */
    bool is_removed; /* kept for the index; not written */
} entry;

struct gguf_writer {
    entry *entries;
    size_t n_entries;
    name_table keys;
    gguf_tensor *tensors;
    size_t n_tensors;
    name_table names;
    uint64_t alignment;
    file_writer file;
    uint8_t *image; /* instead of a file: image_bytes, `written` of them set */
    size_t image_bytes, image_written;
    bool has_begun;
    size_t current;    /* tensor whose data comes next */
    uint64_t received; /* bytes of it so far */
};

facet_status gguf_writer_new(gguf_writer **out, facet_error *err)
{
    gguf_writer *w = mem_calloc(1, sizeof *w);
    if (!w) return error_memory(err, "a GGUF writer", sizeof *w);
    w->file.fd = -1;
    *out = w;
    return FACET_OK;
}

void gguf_writer_free(gguf_writer *w)
{
    if (!w) return;
    file_writer_abort(&w->file);
    mem_unmap(w->image, w->image_bytes);
    for (size_t i = 0; i < w->n_entries; i++) {
        mem_free(w->entries[i].key);
        buf_free(&w->entries[i].value);
    }
    for (size_t i = 0; i < w->n_tensors; i++) mem_free(w->tensors[i].name);
    name_table_free(&w->keys);
    name_table_free(&w->names);
    mem_free(w->entries);
    mem_free(w->tensors);
    mem_free(w);
}

static facet_status too_late(const char *what, facet_error *err)
{
    return error_set(err, FACET_ERR_ARG, "%s: the header is already written", what);
}

/* A copy of `name` at the end of an array of n records of `record` bytes that is made one longer, and in its index. */
static facet_status new_name(void **array, size_t n, size_t record, name_table *index, const char *name,
                             size_t name_len, char **out, facet_error *err)
{
    void *bigger = mem_resize_array(*array, n + 1, record);
    if (!bigger) return error_memory(err, "the GGUF header", (n + 1) * record);
    *array = bigger;
    char *copy = mem_strndup(name, name_len);
    if (!copy) return error_memory(err, "a name", name_len);
    name_result r = name_table_add(index, copy, name_len, n);
    if (r == NAME_ADDED) {
        *out = copy;
        return FACET_OK;
    }
    mem_free(copy);
    if (r == NAME_DUPLICATE) return error_set(err, FACET_ERR_ARG, "duplicate tensor name %s", name);
    return error_memory(err, "the name index", 2 * n * sizeof(name_slot));
}

static facet_status new_entry(gguf_writer *w, gguf_str key, entry **out, facet_error *err)
{
    if (w->n_entries == GGUF_MAX_KEYS)
        return error_set(err, FACET_ERR_LIMIT, "more than %d keys for one GGUF file", GGUF_MAX_KEYS);
    FACET_TRY(gguf_check_name("key", key.s, key.n, GGUF_MAX_KEY_BYTES, FACET_ERR_ARG, err));
    void *array = w->entries;
    char *copy = NULL;
    facet_status status = new_name(&array, w->n_entries, sizeof(entry), &w->keys, key.s, key.n, &copy, err);
    w->entries = array;
    FACET_TRY(status);
    *out = &w->entries[w->n_entries++];
    **out = (entry){.key = copy};
    return FACET_OK;
}

/* The entry of a key, made if need be. */
static facet_status find_entry(gguf_writer *w, gguf_str key, entry **out, facet_error *err)
{
    if (w->has_begun) return too_late("key", err);
    uint64_t i = name_table_find(&w->keys, key.s, key.n);
    if (i == NAME_NONE) return new_entry(w, key, out, err);
    *out = &w->entries[i];
    return FACET_OK;
}

/* Sets a key to `e` (type, elem, count, value); takes its value, also when it fails. */
static facet_status put_entry(gguf_writer *w, gguf_str key, entry e, facet_error *err)
{
    entry *slot = NULL;
    facet_status status = e.value.failed ? error_memory(err, "the value of a key", e.value.len) : FACET_OK;
    if (status == FACET_OK) status = find_entry(w, key, &slot, err);
    if (!slot) {
        buf_free(&e.value);
        return status;
    }
    buf_free(&slot->value);
    e.key = slot->key;
    *slot = e;
    return FACET_OK;
}

static gguf_str str_of(const char *s)
{
    return (gguf_str){.s = s, .n = strlen(s)};
}

static facet_status put_scalar(gguf_writer *w, const char *key, gguf_type type, const void *v, facet_error *err)
{
    entry e = {.type = type, .elem = type, .count = 1};
    buf_append(&e.value, v, gguf_type_bytes(type));
    return put_entry(w, str_of(key), e, err);
}

facet_status gguf_put_u32(gguf_writer *w, const char *key, uint32_t v, facet_error *err)
{
    return put_scalar(w, key, GGUF_U32, &v, err);
}

facet_status gguf_put_i32(gguf_writer *w, const char *key, int32_t v, facet_error *err)
{
    return put_scalar(w, key, GGUF_I32, &v, err);
}

facet_status gguf_put_f32(gguf_writer *w, const char *key, float v, facet_error *err)
{
    return put_scalar(w, key, GGUF_F32, &v, err);
}

facet_status gguf_put_bool(gguf_writer *w, const char *key, bool v, facet_error *err)
{
    uint8_t byte = v;
    return put_scalar(w, key, GGUF_BOOL, &byte, err);
}

static facet_status add_string(buf *b, const char *key, gguf_str s, facet_error *err)
{
    if (s.n > GGUF_MAX_STRING_BYTES)
        return error_set(err, FACET_ERR_ARG, "key \"%s\": string of %zu bytes, at most %d allowed", key, s.n,
                         GGUF_MAX_STRING_BYTES);
    uint64_t n = s.n;
    buf_append(b, &n, sizeof n);
    if (s.n) buf_append(b, s.s, s.n);
    return FACET_OK;
}

facet_status gguf_put_str(gguf_writer *w, const char *key, const char *s, size_t n, facet_error *err)
{
    entry e = {.type = GGUF_STRING, .elem = GGUF_STRING, .count = 1};
    FACET_TRY(add_string(&e.value, key, (gguf_str){.s = s, .n = n}, err));
    return put_entry(w, str_of(key), e, err);
}

static facet_status check_array(const char *key, uint64_t count, facet_error *err)
{
    if (count <= GGUF_MAX_ARRAY) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "key \"%s\": array of %" PRIu64 " elements, at most %d allowed", key, count,
                     GGUF_MAX_ARRAY);
}

facet_status gguf_put_array(gguf_writer *w, const char *key, gguf_type elem, const void *values, uint64_t count,
                            facet_error *err)
{
    entry e = {.type = GGUF_ARRAY, .elem = elem, .count = count};
    uint64_t bytes = gguf_type_bytes(elem);
    if (!bytes)
        return error_set(err, FACET_ERR_ARG, "key \"%s\": array of %s, fixed-size elements wanted", key,
                         gguf_type_name(elem));
    FACET_TRY(check_array(key, count, err));
    for (uint64_t i = 0; elem == GGUF_BOOL && i < count; i++)
        if (((const uint8_t *)values)[i] > 1)
            return error_set(err, FACET_ERR_ARG, "key \"%s\": bool byte above 1", key);
    if (count) buf_append(&e.value, values, count * bytes);
    return put_entry(w, str_of(key), e, err);
}

facet_status gguf_put_strings(gguf_writer *w, const char *key, const gguf_str *s, uint64_t count, facet_error *err)
{
    entry e = {.type = GGUF_ARRAY, .elem = GGUF_STRING, .count = count};
    FACET_TRY(check_array(key, count, err));
    for (uint64_t i = 0; i < count; i++) {
        facet_status status = add_string(&e.value, key, s[i], err);
        if (status != FACET_OK) {
            buf_free(&e.value);
            return status;
        }
    }
    return put_entry(w, str_of(key), e, err);
}

facet_status gguf_put_kv(gguf_writer *w, const gguf_kv *kv, facet_error *err)
{
    entry e = {.type = kv->type, .elem = kv->elem, .count = kv->count};
    uint64_t bytes = gguf_value_bytes(kv);
    if (bytes) buf_append(&e.value, kv->value, bytes);
    return put_entry(w, kv->key, e, err);
}

facet_status gguf_remove(gguf_writer *w, const char *key)
{
    if (w->has_begun) return FACET_ERR_ARG;
    uint64_t i = name_table_find(&w->keys, key, strlen(key));
    if (i != NAME_NONE) w->entries[i].is_removed = true;
    return FACET_OK;
}

facet_status gguf_add_tensor(gguf_writer *w, const char *name, tensor_type type, int n_dims, const uint64_t ne[4],
                             facet_error *err)
{
    gguf_tensor t = {.type = (uint32_t)type, .n_dims = n_dims, .ne = {1, 1, 1, 1}};
    if (w->has_begun) return too_late(name, err);
    if (w->n_tensors == GGUF_MAX_TENSORS)
        return error_set(err, FACET_ERR_LIMIT, "more than %d tensors for one GGUF file", GGUF_MAX_TENSORS);
    FACET_TRY(gguf_check_name("tensor name", name, strlen(name), GGUF_MAX_NAME_BYTES, FACET_ERR_ARG, err));
    if (n_dims < 1 || n_dims > 4)
        return error_set(err, FACET_ERR_ARG, "tensor %s: %d dimensions, 1..4 wanted", name, n_dims);
    memcpy(t.ne, ne, (size_t)n_dims * sizeof *ne);
    facet_status status = gguf_check_shape(&t, FACET_ERR_ARG, err);
    if (status != FACET_OK) {
        error_prefix(err, "tensor %s", name);
        return status;
    }
    void *array = w->tensors;
    status = new_name(&array, w->n_tensors, sizeof t, &w->names, name, strlen(name), &t.name, err);
    w->tensors = array;
    FACET_TRY(status);
    w->tensors[w->n_tensors++] = t;
    return FACET_OK;
}

static facet_status choose_alignment(gguf_writer *w, facet_error *err)
{
    w->alignment = GGUF_DEFAULT_ALIGNMENT;
    uint64_t i = name_table_find(&w->keys, "general.alignment", strlen("general.alignment"));
    if (i == NAME_NONE || w->entries[i].is_removed) return FACET_OK;
    const entry *e = &w->entries[i];
    uint32_t v = 0;
    if (e->type == GGUF_U32) memcpy(&v, e->value.data, sizeof v);
    if (!gguf_alignment_ok(v))
        return error_set(err, FACET_ERR_ARG, "general.alignment: a u32 power of two in %d..%d wanted",
                         GGUF_MIN_ALIGNMENT, GGUF_MAX_ALIGNMENT);
    w->alignment = v;
    return FACET_OK;
}

static void add_u32(buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof v);
}

static void add_u64(buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

static void add_name(buf *b, const char *s)
{
    add_u64(b, strlen(s));
    buf_puts(b, s);
}

static void add_entry(buf *b, const entry *e)
{
    add_name(b, e->key);
    add_u32(b, (uint32_t)e->type);
    if (e->type == GGUF_ARRAY) {
        add_u32(b, (uint32_t)e->elem);
        add_u64(b, e->count);
    }
    if (e->value.len) buf_append(b, e->value.data, e->value.len);
}

static void add_record(buf *b, const gguf_tensor *t, uint64_t offset)
{
    add_name(b, t->name);
    add_u32(b, (uint32_t)t->n_dims);
    for (int i = 0; i < t->n_dims; i++) add_u64(b, t->ne[i]);
    add_u32(b, t->type);
    add_u64(b, offset);
}

static facet_status make_header(const gguf_writer *w, buf *b, facet_error *err)
{
    uint64_t n_keys = 0, offset = 0;
    for (size_t i = 0; i < w->n_entries; i++) n_keys += !w->entries[i].is_removed;
    buf_puts(b, "GGUF");
    add_u32(b, 3);
    add_u64(b, w->n_tensors);
    add_u64(b, n_keys);
    for (size_t i = 0; i < w->n_entries; i++)
        if (!w->entries[i].is_removed) add_entry(b, &w->entries[i]);
    for (size_t i = 0; i < w->n_tensors; i++) {
        const gguf_tensor *t = &w->tensors[i];
        uint64_t padded;
        add_record(b, t, offset);
        if (!gguf_round_up(t->bytes, w->alignment, &padded) || __builtin_add_overflow(offset, padded, &offset))
            return error_set(err, FACET_ERR_ARG, "tensor %s: the size of the file overflows", t->name);
    }
    return b->failed ? error_memory(err, "the GGUF header", b->len) : FACET_OK;
}

static bool is_open(const gguf_writer *w)
{
    return w->image || w->file.fd >= 0;
}

/* The image is as long as the file will be. */
static facet_status put(gguf_writer *w, const void *data, size_t bytes, facet_error *err)
{
    if (!w->image) return file_writer_put(&w->file, data, bytes, err);
    assert(bytes <= w->image_bytes - w->image_written);
    memcpy(w->image + w->image_written, data, bytes);
    w->image_written += bytes;
    return FACET_OK;
}

/* Zeros up to the next multiple of the alignment. */
static facet_status pad(gguf_writer *w, facet_error *err)
{
    static const uint8_t zeros[4096];
    uint64_t n = (0 - (w->image ? w->image_written : w->file.written)) & (w->alignment - 1);
    while (n) {
        size_t piece = n < sizeof zeros ? (size_t)n : sizeof zeros;
        FACET_TRY(put(w, zeros, piece, err));
        n -= piece;
    }
    return FACET_OK;
}

static facet_status open_image(gguf_writer *w, size_t header, facet_error *err)
{
    uint64_t total = 0, padded;
    bool fits = gguf_round_up(header, w->alignment, &total);
    for (size_t i = 0; i < w->n_tensors; i++) /* make_header has added these up */
        fits = fits && gguf_round_up(w->tensors[i].bytes, w->alignment, &padded) &&
               !__builtin_add_overflow(total, padded, &total);
    w->image = fits && total <= SIZE_MAX / 2 ? mem_map((size_t)total) : NULL;
    if (!w->image) return error_memory(err, "a GGUF file in memory", (size_t)total);
    w->image_bytes = (size_t)total;
    return FACET_OK;
}

/* path NULL: into memory. */
static facet_status begin_data(gguf_writer *w, const char *path, facet_error *err)
{
    FACET_TRY(choose_alignment(w, err));
    buf b = {0};
    facet_status status = make_header(w, &b, err);
    if (status == FACET_OK) status = path ? file_writer_open(path, &w->file, err) : open_image(w, b.len, err);
    if (status == FACET_OK) {
        w->has_begun = true;
        status = put(w, b.data, b.len, err);
    }
    buf_free(&b);
    FACET_TRY(status);
    return w->n_tensors ? pad(w, err) : FACET_OK;
}

facet_status gguf_begin_data(gguf_writer *w, const char *path, facet_error *err)
{
    return w->has_begun ? too_late(path, err) : begin_data(w, path, err);
}

facet_status gguf_begin_memory(gguf_writer *w, facet_error *err)
{
    return w->has_begun ? too_late("a file in memory", err) : begin_data(w, NULL, err);
}

static facet_status no_file(facet_error *err)
{
    return error_set(err, FACET_ERR_ARG, "GGUF writer: no file is being written");
}

static const char *name_of(const gguf_writer *w)
{
    return w->image ? "a GGUF file in memory" : w->file.path;
}

static facet_status next_tensor(gguf_writer *w, facet_error *err)
{
    w->current++;
    w->received = 0;
    return pad(w, err);
}

facet_status gguf_write_data(gguf_writer *w, const void *data, size_t bytes, facet_error *err)
{
    if (!is_open(w)) return no_file(err);
    if (!bytes) return FACET_OK;
    if (w->current == w->n_tensors)
        return error_set(err, FACET_ERR_ARG, "%s: %zu bytes after the last tensor", name_of(w), bytes);
    const gguf_tensor *t = &w->tensors[w->current];
    if (bytes > t->bytes - w->received)
        return error_set(err, FACET_ERR_ARG, "%s: tensor %s: %zu bytes too many (%" PRIu64 " wanted)", name_of(w),
                         t->name, bytes - (size_t)(t->bytes - w->received), t->bytes);
    FACET_TRY(put(w, data, bytes, err));
    w->received += bytes;
    return w->received < t->bytes ? FACET_OK : next_tensor(w, err);
}

facet_status gguf_write_hole(gguf_writer *w, facet_error *err)
{
    if (!is_open(w)) return no_file(err);
    if (w->current == w->n_tensors || w->received)
        return error_set(err, FACET_ERR_ARG, "%s: a hole in the middle of a tensor or after the last one", name_of(w));
    const gguf_tensor *t = &w->tensors[w->current];
    if (w->image)
        w->image_written += (size_t)t->bytes; /* fresh memory is zero */
    else
        FACET_TRY(file_writer_skip(&w->file, t->bytes, err));
    return next_tensor(w, err);
}

static facet_status check_complete(const gguf_writer *w, facet_error *err)
{
    if (w->current == w->n_tensors) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "%s: tensor %s: %" PRIu64 " of %" PRIu64 " bytes written", name_of(w),
                     w->tensors[w->current].name, w->received, w->tensors[w->current].bytes);
}

facet_status gguf_finish(gguf_writer *w, facet_error *err)
{
    if (w->file.fd < 0) return no_file(err);
    FACET_TRY(check_complete(w, err));
    return file_writer_commit(&w->file, err);
}

facet_status gguf_finish_memory(gguf_writer *w, void **out, size_t *bytes, facet_error *err)
{
    if (!w->image) return no_file(err);
    FACET_TRY(check_complete(w, err));
    *out = w->image;
    *bytes = w->image_bytes;
    w->image = NULL;
    w->image_bytes = 0;
    return FACET_OK;
}
