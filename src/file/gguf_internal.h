/* gguf_internal.h: what the files of the GGUF module share. Errors of these functions do not name the file; the caller
 * puts its path in front. */
#ifndef FACET_FILE_GGUF_INTERNAL_H
#define FACET_FILE_GGUF_INTERNAL_H

#include "file/cursor.h"
#include "file/gguf.h"
#include "file/name_table.h"

/* Bounds of what a reader accepts and a writer makes. They lie far beyond real files and keep what a hostile one can
 * make us allocate or scan small. */
enum {
    GGUF_MAX_KEYS = 65536,
    GGUF_MAX_KEY_BYTES = 65535,
    GGUF_MAX_STRING_BYTES = 64 << 20,
    GGUF_MAX_ARRAY = 1 << 26,
    GGUF_MAX_TENSORS = 1 << 20,
    GGUF_MAX_NAME_BYTES = 63,
    GGUF_MAX_SHARDS = 1024,
    GGUF_MIN_ALIGNMENT = 8,
    GGUF_MAX_ALIGNMENT = 65536,
    GGUF_DEFAULT_ALIGNMENT = 32,
    GGUF_HEADER_BYTES = 24
};

/* The private part of a gguf_file. */
typedef struct gguf_index {
    name_table keys, tensors;
    bool is_borrowed; /* shards[0].data belongs to the caller of gguf_open_memory */
} gguf_index;

typedef struct gguf_keys {
    gguf_kv *kv;
    uint64_t n;
    name_table names;
} gguf_keys;

/* Reads the n key records at the cursor; n was checked against the bytes left. *out is only written on success. */
facet_status gguf_read_keys(cursor *c, uint64_t n, gguf_keys *out, facet_error *err);
void gguf_keys_free(gguf_keys *keys);
const gguf_kv *gguf_keys_find(const gguf_keys *keys, const char *key);
/* general.alignment, or its default. */
facet_status gguf_read_alignment(const gguf_keys *keys, uint64_t *out, facet_error *err);
bool gguf_alignment_ok(uint64_t alignment);

/* Bytes of an element; 0 for strings, arrays and unknown types. */
uint64_t gguf_type_bytes(gguf_type t);
/* Bytes that a key's value takes from kv->value on. */
uint64_t gguf_value_bytes(const gguf_kv *kv);
/* The file ends where `what` should stand. */
facet_status gguf_truncated(const cursor *c, const char *what, facet_error *err);
/* Length, encoding and embedded NULs of a key or tensor name. */
facet_status gguf_check_name(const char *what, const char *s, uint64_t n, uint64_t max, facet_status fault,
                             facet_error *err);

/* Appends the n tensors at the cursor, which is in shard `shard` of f, and checks their places in that shard's blob. */
facet_status gguf_read_tensors(gguf_file *f, int shard, cursor *c, uint64_t n, uint64_t alignment, facet_error *err);
/* Checks type and dimensions of t and sets t->bytes; `fault` is the status of a bad shape. */
facet_status gguf_check_shape(gguf_tensor *t, facet_status fault, facet_error *err);
/* Enters all tensor names; a name that occurs twice is an error that names the file. */
facet_status gguf_index_tensors(gguf_file *f, facet_error *err);

/* Reads one file of a set, or the only one: its tensors go to f, its keys to *keys. */
facet_status gguf_read_shard(gguf_file *f, int shard, gguf_keys *keys, facet_error *err);
/* Opens the siblings of shard 0 when its keys say that there are any. */
facet_status gguf_open_siblings(gguf_file *f, facet_error *err);

/* x rounded up to a multiple of the power of two a; false when it does not fit. */
static inline bool gguf_round_up(uint64_t x, uint64_t a, uint64_t *out)
{
    if (x > UINT64_MAX - (a - 1)) return false;
    *out = (x + a - 1) & ~(a - 1);
    return true;
}

#endif
