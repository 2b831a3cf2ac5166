#include "file/gguf.h"

#include <inttypes.h>
#include <string.h>

#include "base/mem.h"
#include "file/gguf_internal.h"

typedef struct header {
    uint32_t version;
    uint64_t n_tensors, n_kv;
} header;

/* What a file is that someone took for a GGUF file. */
static const char *known_format(const uint8_t *p, uint64_t n)
{
    static const struct {
        uint8_t offset, length;
        const char *magic, *what;
    } known[] = {
        {0, 4, "FUGG", "a byte-swapped GGUF file"},
        {0, 4, "lmgg", "a GGML file older than GGUF"},
        {0, 4, "tjgg", "a GGJT file older than GGUF"},
        {0, 4, "fmgg", "a GGMF file older than GGUF"},
        {0, 4, "PK\003\004", "a zip archive (a PyTorch checkpoint?)"},
        {0, 2, "\037\213", "gzip data"},
        {0, 4, "\x28\xb5\x2f\xfd", "zstd data"},
        {0, 4, "\x89HDF", "an HDF5 file"},
        {0, 19, "version https://git", "a Git LFS pointer; fetch the file itself"},
        {0, 5, "<html", "a web page"},
        {0, 9, "<!DOCTYPE", "a web page"},
        {0, 9, "<!doctype", "a web page"},
        {8, 1, "{", "a safetensors file"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint64_t end = (uint64_t)known[i].offset + known[i].length;
        if (n >= end && memcmp(p + known[i].offset, known[i].magic, known[i].length) == 0) return known[i].what;
    }
    return NULL;
}

static facet_status check_magic(const cursor *c, facet_error *err)
{
    if (c->size >= 4 && memcmp(c->data, "GGUF", 4) != 0) {
        const char *what = known_format(c->data, c->size);
        return error_set(err, FACET_ERR_FORMAT, "not a GGUF file%s%s", what ? ": " : "", what ? what : "");
    }
    return FACET_OK;
}

static facet_status check_version(uint32_t version, facet_error *err)
{
    if (version == 2 || version == 3) return FACET_OK;
    if ((version & 0xffff) == 0)
        return error_set(err, FACET_ERR_UNSUPPORTED, "wrong endianness (version field 0x%08" PRIx32 ")", version);
    return error_set(err, FACET_ERR_UNSUPPORTED, "GGUF version %" PRIu32 ", 2 or 3 wanted", version);
}

/* A count of records of at least `record` bytes. Signed in the file: a negative one is huge here. */
static facet_status check_count(const char *what, uint64_t n, uint64_t most, uint64_t left, uint64_t record,
                                facet_error *err)
{
    uint64_t fits = left / record;
    if (n > fits)
        return error_set(err, FACET_ERR_FORMAT,
                         "%s count %" PRId64 ", but the %" PRIu64 " bytes left hold at most %" PRIu64, what, (int64_t)n,
                         left, fits);
    if (n > most)
        return error_set(err, FACET_ERR_FORMAT, "%s count %" PRIu64 ", at most %" PRIu64 " allowed", what, n, most);
    return FACET_OK;
}

static facet_status read_header(cursor *c, header *h, facet_error *err)
{
    FACET_TRY(check_magic(c, err));
    uint32_t magic;
    if (!cursor_u32(c, &magic) || !cursor_u32(c, &h->version) || !cursor_u64(c, &h->n_tensors) ||
        !cursor_u64(c, &h->n_kv))
        return error_set(err, FACET_ERR_FORMAT, "file of %" PRIu64 " bytes is too small for a GGUF header of %d",
                         c->size, GGUF_HEADER_BYTES);
    FACET_TRY(check_version(h->version, err));
    /* the smallest records: a key of one byte without a value; a tensor of one dimension */
    FACET_TRY(check_count("key", h->n_kv, GGUF_MAX_KEYS, cursor_left(c), 13, err));
    return check_count("tensor", h->n_tensors, GGUF_MAX_TENSORS, cursor_left(c), 32, err);
}

static facet_status read_tables(gguf_file *f, int shard, gguf_keys *keys, facet_error *err)
{
    cursor c = {.data = f->shards[shard].data, .size = f->shards[shard].size};
    header h = {0};
    uint64_t alignment;
    FACET_TRY(read_header(&c, &h, err));
    if (shard == 0) f->version = h.version;
    FACET_TRY(gguf_read_keys(&c, h.n_kv, keys, err));
    facet_status status = gguf_read_alignment(keys, &alignment, err);
    if (status == FACET_OK) status = gguf_read_tensors(f, shard, &c, h.n_tensors, alignment, err);
    if (status != FACET_OK) gguf_keys_free(keys);
    return status;
}

facet_status gguf_read_shard(gguf_file *f, int shard, gguf_keys *keys, facet_error *err)
{
    facet_status status = read_tables(f, shard, keys, err);
    if (status != FACET_OK) error_prefix(err, "%s", f->shards[shard].path);
    return status;
}

/* An object without shards; gguf_close takes it from here on. */
static gguf_file *new_file(const char *path)
{
    gguf_file *f = mem_calloc(1, sizeof *f);
    if (!f) return NULL;
    f->path = mem_strdup(path);
    f->index = mem_calloc(1, sizeof(gguf_index));
    f->shards = mem_calloc(1, sizeof *f->shards);
    if (f->path && f->index && f->shards) return f;
    gguf_close(f);
    return NULL;
}

static facet_status read_first(gguf_file *f, facet_error *err)
{
    gguf_keys keys;
    FACET_TRY(gguf_read_shard(f, 0, &keys, err));
    f->kv = keys.kv;
    f->n_kv = keys.n;
    ((gguf_index *)f->index)->keys = keys.names;
    return FACET_OK;
}

static facet_status read_set(gguf_file *f, const char *path, facet_error *err)
{
    FACET_TRY(file_map_open(path, &f->shards[0], err));
    f->n_shards = 1;
    FACET_TRY(read_first(f, err));
    FACET_TRY(gguf_open_siblings(f, err));
    return gguf_index_tensors(f, err);
}

static facet_status read_memory(gguf_file *f, const void *data, size_t size, const char *name, facet_error *err)
{
    char *path = mem_strdup(name);
    if (!path) return error_memory(err, "a name", strlen(name));
    ((gguf_index *)f->index)->is_borrowed = true;
    f->shards[0] = (file_map){.data = data, .size = size, .path = path};
    f->n_shards = 1;
    FACET_TRY(read_first(f, err));
    return gguf_index_tensors(f, err);
}

static facet_status finish_open(gguf_file *f, facet_status status, gguf_file **out)
{
    if (status == FACET_OK)
        *out = f;
    else
        gguf_close(f);
    return status;
}

facet_status gguf_open(const char *path, gguf_file **out, facet_error *err)
{
    gguf_file *f = new_file(path);
    if (!f) return error_memory(err, "a GGUF file", sizeof *f);
    return finish_open(f, read_set(f, path, err), out);
}

facet_status gguf_open_memory(const void *data, size_t size, const char *name, gguf_file **out, facet_error *err)
{
    gguf_file *f = new_file(name);
    if (!f) return error_memory(err, "a GGUF file", sizeof *f);
    return finish_open(f, read_memory(f, data, size, name, err), out);
}

void gguf_close(gguf_file *f)
{
    if (!f) return;
    gguf_index *index = f->index;
    for (uint64_t i = 0; i < f->n_tensors; i++) mem_free(f->tensors[i].name);
    for (int i = 0; index && f->shards && i < f->n_shards; i++) {
        if (index->is_borrowed) f->shards[i].data = NULL;
        file_map_close(&f->shards[i]);
    }
    if (index) {
        name_table_free(&index->keys);
        name_table_free(&index->tensors);
    }
    mem_free(index);
    mem_free(f->shards);
    mem_free(f->tensors);
    mem_free(f->kv);
    mem_free(f->path);
    mem_free(f);
}

const char *gguf_path_of(const gguf_file *f, const gguf_tensor *t)
{
    return f->shards[t->shard].path;
}

const gguf_tensor *gguf_find_tensor(const gguf_file *f, const char *name)
{
    uint64_t i = name_table_find(&((const gguf_index *)f->index)->tensors, name, strlen(name));
    return i == NAME_NONE ? NULL : &f->tensors[i];
}

const gguf_kv *gguf_find(const gguf_file *f, const char *key)
{
    uint64_t i = name_table_find(&((const gguf_index *)f->index)->keys, key, strlen(key));
    return i == NAME_NONE ? NULL : &f->kv[i];
}
