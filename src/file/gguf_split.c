/* gguf_split.c: sets of files, PREFIX-00001-of-00003.gguf and so on. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "file/gguf_internal.h"

/* "-00001-of-00003.gguf" with room for two full ints */
enum { SUFFIX_BYTES = 48 };
#define TOTAL_KEY "split.tensors.count"

static void make_suffix(char out[SUFFIX_BYTES], int no, int count)
{
    snprintf(out, SUFFIX_BYTES, "-%05d-of-%05d.gguf", no + 1, count);
}

static facet_status read_count(const gguf_keys *keys, const char *key, int64_t wanted, facet_error *err)
{
    const gguf_kv *kv = gguf_keys_find(keys, key);
    int64_t v;
    if (!kv) return error_set(err, FACET_ERR_FORMAT, "missing key \"%s\"", key);
    if (kv->type == GGUF_BOOL || !gguf_scalar_i64(kv, &v))
        return error_set(err, FACET_ERR_FORMAT, "key \"%s\": type %s, an integer wanted", key,
                         gguf_type_name(kv->type));
    if (v != wanted)
        return error_set(err, FACET_ERR_FORMAT, "key \"%s\": %" PRId64 ", %" PRId64 " wanted", key, v, wanted);
    return FACET_OK;
}

/* The path of a sibling: in the folder of shard 0 and with its name, but for the number. */
static char *sibling_path(const char *path, size_t prefix, int no, int count)
{
    char suffix[SUFFIX_BYTES];
    make_suffix(suffix, no, count);
    size_t n = strlen(suffix) + 1;
    char *p = mem_alloc(prefix + n);
    if (!p) return NULL;
    memcpy(p, path, prefix);
    memcpy(p + prefix, suffix, n);
    return p;
}

/* What a set has in common. A part of another set that has the same number of files often shows by its total. */
typedef struct split_set {
    int count;
    uint64_t n_tensors;
    size_t prefix; /* letters of the first file's path before the number */
} split_set;

static facet_status read_sibling(gguf_file *f, int no, const split_set *set, facet_error *err)
{
    gguf_keys keys;
    FACET_TRY(gguf_read_shard(f, no, &keys, err));
    facet_status status = read_count(&keys, "split.no", no, err);
    if (status == FACET_OK) status = read_count(&keys, "split.count", set->count, err);
    if (status == FACET_OK && gguf_keys_find(&keys, TOTAL_KEY))
        status = read_count(&keys, TOTAL_KEY, (int64_t)set->n_tensors, err);
    if (status != FACET_OK) error_prefix(err, "%s", f->shards[no].path);
    gguf_keys_free(&keys);
    return status;
}

static facet_status open_sibling(gguf_file *f, int no, const split_set *set, facet_error *err)
{
    char *path = sibling_path(f->path, set->prefix, no, set->count);
    if (!path) return error_memory(err, "the path of a shard", set->prefix);
    facet_status status = file_map_open(path, &f->shards[no], err);
    mem_free(path);
    FACET_TRY(status);
    f->n_shards = no + 1;
    return read_sibling(f, no, set, err);
}

static facet_status open_set(gguf_file *f, split_set *set, facet_error *err)
{
    char suffix[SUFFIX_BYTES];
    make_suffix(suffix, 0, set->count);
    size_t n = strlen(f->path), n_suffix = strlen(suffix);
    if (n <= n_suffix || strcmp(f->path + n - n_suffix, suffix) != 0)
        return error_set(err, FACET_ERR_FORMAT, "%s: first of %d files, so its name should end in %s", f->path,
                         set->count, suffix);
    set->prefix = n - n_suffix;
    file_map *shards = mem_resize_array(f->shards, (size_t)set->count, sizeof *shards);
    if (!shards) return error_memory(err, "the list of shards", (size_t)set->count * sizeof *shards);
    f->shards = shards;
    for (int no = 1; no < set->count; no++) FACET_TRY(open_sibling(f, no, set, err));
    return FACET_OK;
}

facet_status gguf_open_siblings(gguf_file *f, facet_error *err)
{
    uint64_t count = 1, no = 0, total = 0;
    FACET_TRY(gguf_get_u64(f, "split.count", false, 0, GGUF_MAX_SHARDS, &count, err));
    if (count <= 1) return FACET_OK;
    FACET_TRY(gguf_get_u64(f, "split.no", true, 0, count - 1, &no, err));
    if (no != 0)
        return error_set(err, FACET_ERR_FORMAT, "%s: file %" PRIu64 " of a set of %" PRIu64 "; open the first one",
                         f->path, no + 1, count);
    FACET_TRY(gguf_get_u64(f, TOTAL_KEY, true, 0, GGUF_MAX_TENSORS, &total, err));
    split_set set = {.count = (int)count, .n_tensors = total};
    FACET_TRY(open_set(f, &set, err));
    if (f->n_tensors != total)
        return error_set(err, FACET_ERR_FORMAT,
                         "%s: key \"" TOTAL_KEY "\": %" PRIu64 ", but the %" PRIu64 " files hold %" PRIu64 " tensors",
                         f->path, total, count, f->n_tensors);
    return FACET_OK;
}
