#include "file/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "file/name_table.h"
#include "file/safetensors_internal.h"

/* "folder/name"; for a path of a file, `n` bytes of it are its folder and slash. */
static facet_status join(const char *folder, size_t n, const char *name, buf *out, facet_error *err)
{
    buf_clear(out);
    if (n) buf_append(out, folder, n);
    if (n && folder[n - 1] != '/') buf_putc(out, '/');
    buf_puts(out, name);
    return out->failed ? error_memory(err, "a path", n + strlen(name)) : FACET_OK;
}

static facet_status add_shard(st_file *f, const char *path, facet_error *err)
{
    file_map *bigger = mem_resize_array(f->shards, (size_t)f->n_shards + 1, sizeof *bigger);
    if (!bigger) return error_memory(err, "the list of shards", ((size_t)f->n_shards + 1) * sizeof *bigger);
    f->shards = bigger;
    FACET_TRY(file_map_open(path, &f->shards[f->n_shards], err));
    f->n_shards++;
    return st_read_shard(f, f->n_shards - 1, err);
}

static facet_status check_shard_name(const char *name, facet_error *err)
{
    if (!name) return error_set(err, FACET_ERR_FORMAT, "weight_map: a file name is not a string");
    if (!*name || strchr(name, '/') || strstr(name, ".."))
        return error_set(err, FACET_ERR_FORMAT, "weight_map: file name \"%s\" would leave the folder", name);
    return FACET_OK;
}

/* Opens each file named in the map once; `seen` gives its shard number. */
static facet_status open_shards(st_file *f, const char *path, size_t folder, json_t *map, name_table *seen,
                                buf *scratch, facet_error *err)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        facet_status status = check_shard_name(name, err);
        if (status != FACET_OK) {
            error_prefix(err, "%s", path);
            return status;
        }
        name_result r = name_table_add(seen, name, strlen(name), (uint64_t)f->n_shards);
        if (r == NAME_NO_MEMORY) return error_memory(err, "the shard index", sizeof(name_slot));
        if (r == NAME_DUPLICATE) continue;
        if (f->n_shards == ST_MAX_SHARDS)
            return error_set(err, FACET_ERR_FORMAT, "%s: weight_map names more than %d files", path, ST_MAX_SHARDS);
        FACET_TRY(join(path, folder, name, scratch, err));
        FACET_TRY(add_shard(f, scratch->data, err));
    }
    return FACET_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name);
}

static facet_status sort_tensors(st_file *f, facet_error *err)
{
    if (f->n_tensors) qsort(f->tensors, f->n_tensors, sizeof *f->tensors, by_name);
    for (uint64_t i = 1; i < f->n_tensors; i++)
        if (by_name(&f->tensors[i - 1], &f->tensors[i]) == 0)
            return error_set(err, FACET_ERR_FORMAT, "%s: duplicate tensor %s, also in %s",
                             f->shards[f->tensors[i].shard].path, f->tensors[i].name,
                             f->shards[f->tensors[i - 1].shard].path);
    return FACET_OK;
}

static facet_status check_map(const st_file *f, const char *path, json_t *map, const name_table *seen, facet_error *err)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        const st_tensor *t = st_find(f, tensor);
        if (!t || (uint64_t)t->shard != name_table_find(seen, name, strlen(name)))
            return error_set(err, FACET_ERR_FORMAT, "%s: weight_map: tensor %s is not in %s", path, tensor, name);
    }
    return FACET_OK;
}

static facet_status load_json(const char *path, json_t **out, facet_error *err)
{
    char *text;
    size_t n;
    json_error_t e;
    FACET_TRY(file_read_all(path, ST_MAX_JSON_BYTES, &text, &n, err));
    *out = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
    mem_free(text);
    if (*out) return FACET_OK;
    return error_set(err, FACET_ERR_FORMAT, "%s: %s (line %d)", path, e.text, e.line);
}

/* The shards that the index file at `path` names stand in its folder; each tensor of its weight_map must stand in the
 * shard it says. */
static facet_status open_index(st_file *f, const char *path, facet_error *err)
{
    json_t *index = NULL;
    FACET_TRY(load_json(path, &index, err));
    json_t *map = json_object_get(index, "weight_map");
    name_table seen = {0};
    buf scratch = {0};
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    facet_status status = FACET_OK;
    if (!json_is_object(map) || !json_object_size(map))
        status = error_set(err, FACET_ERR_FORMAT, "%s: weight_map is missing, empty or not an object", path);
    if (status == FACET_OK) status = open_shards(f, path, folder, map, &seen, &scratch, err);
    if (status == FACET_OK) status = sort_tensors(f, err);
    if (status == FACET_OK) status = check_map(f, path, map, &seen, err);
    buf_free(&scratch);
    name_table_free(&seen);
    json_decref(index);
    return status;
}

static facet_status open_single(st_file *f, const char *path, facet_error *err)
{
    FACET_TRY(add_shard(f, path, err));
    return sort_tensors(f, err);
}

static facet_status open_folder(st_file *f, const char *path, facet_error *err)
{
    buf file = {0};
    facet_status status = join(path, strlen(path), "model.safetensors", &file, err);
    if (status == FACET_OK && access(file.data, F_OK) == 0) {
        status = open_single(f, file.data, err);
    } else if (status == FACET_OK) {
        status = join(path, strlen(path), "model.safetensors.index.json", &file, err);
        if (status == FACET_OK && access(file.data, F_OK) == 0)
            status = open_index(f, file.data, err);
        else if (status == FACET_OK)
            status = error_set(err, FACET_ERR_IO,
                               "%s: holds neither model.safetensors nor model.safetensors.index.json", path);
    }
    buf_free(&file);
    return status;
}

static facet_status open_any(st_file *f, const char *path, facet_error *err)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return open_folder(f, path, err);
    return open_single(f, path, err);
}

static facet_status open_bytes(st_file *f, const void *data, size_t size, const char *name, facet_error *err)
{
    f->shards = mem_calloc(1, sizeof *f->shards);
    if (!f->shards) return error_memory(err, "the list of shards", sizeof *f->shards);
    f->is_borrowed = true;
    f->n_shards = 1;
    f->shards[0] = (file_map){.data = data, .size = size, .path = mem_strdup(name)};
    if (!f->shards[0].path) return error_memory(err, "a name", strlen(name));
    FACET_TRY(st_read_shard(f, 0, err));
    return sort_tensors(f, err);
}

static st_file *new_file(const char *path)
{
    st_file *f = mem_calloc(1, sizeof *f);
    if (!f) return NULL;
    f->path = mem_strdup(path);
    if (f->path) return f;
    mem_free(f);
    return NULL;
}

static facet_status finish_open(st_file *f, facet_status status, st_file **out)
{
    if (status == FACET_OK)
        *out = f;
    else
        st_close(f);
    return status;
}

facet_status st_open(const char *path, st_file **out, facet_error *err)
{
    st_file *f = new_file(path);
    if (!f) return error_memory(err, "a safetensors file", sizeof *f);
    return finish_open(f, open_any(f, path, err), out);
}

facet_status st_open_memory(const void *data, size_t size, const char *name, st_file **out, facet_error *err)
{
    st_file *f = new_file(name);
    if (!f) return error_memory(err, "a safetensors file", sizeof *f);
    return finish_open(f, open_bytes(f, data, size, name, err), out);
}

void st_close(st_file *f)
{
    if (!f) return;
    for (uint64_t i = 0; i < f->n_tensors; i++) mem_free(f->tensors[i].name);
    for (int i = 0; i < f->n_shards; i++) {
        if (f->is_borrowed) f->shards[i].data = NULL;
        file_map_close(&f->shards[i]);
    }
    mem_free(f->shards);
    mem_free(f->tensors);
    mem_free(f->path);
    mem_free(f);
}

const st_tensor *st_find(const st_file *f, const char *name)
{
    size_t lo = 0, hi = f->n_tensors;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(name, f->tensors[mid].name);
        if (order == 0) return &f->tensors[mid];
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}
