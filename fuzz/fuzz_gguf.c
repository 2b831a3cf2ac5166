/* fuzz_gguf.c: opens arbitrary bytes as a GGUF file and, when they are accepted, uses all that the reader promises. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "file/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void require(bool condition)
{
    if (!condition) abort();
}

static void touch(const void *p, uint64_t n)
{
    const uint8_t *bytes = p;
    if (n) sink += (uint64_t)bytes[0] + bytes[n - 1];
}

static void use_strings(const gguf_kv *kv)
{
    gguf_str *s = malloc(kv->count * sizeof *s + 1);
    if (!s) return;
    if (gguf_array_strings(kv, s))
        for (uint64_t i = 0; i < kv->count; i++) touch(s[i].s, s[i].n);
    free(s);
}

static void use_key(const gguf_file *f, const gguf_kv *kv)
{
    char *key = malloc(kv->key.n + 1);
    if (!key) return;
    memcpy(key, kv->key.s, kv->key.n);
    key[kv->key.n] = 0;
    require(gguf_find(f, key) == kv);
    uint64_t u;
    float v;
    bool flag;
    gguf_str s;
    facet_error err;
    if (gguf_get_u64(f, key, true, 0, 1000, &u, &err) == FACET_OK) sink += u;
    if (gguf_get_f32(f, key, true, &v, &err) == FACET_OK) sink += v > 0;
    if (gguf_get_bool(f, key, true, &flag, &err) == FACET_OK) sink += flag;
    if (gguf_get_str(f, key, true, &s, &err) == FACET_OK) touch(s.s, s.n);
    free(key);
    if (kv->elem == GGUF_STRING) use_strings(kv);
    for (uint64_t i = 0; i < kv->count; i++) {
        int64_t n;
        if (gguf_array_i64(kv, i, &n)) sink += (uint64_t)n;
        if (gguf_array_f32(kv, i, &v)) sink += v > 0;
    }
}

static void use_tensor(const gguf_file *f, const gguf_tensor *t)
{
    const file_map *m = &f->shards[t->shard];
    require(gguf_find_tensor(f, t->name) == t);
    require(t->bytes > 0 && t->data >= m->data && t->bytes <= m->size - (uint64_t)(t->data - m->data));
    require(type_get(t->type) && t->ne[0] % type_get(t->type)->block_len == 0);
    touch(t->data, t->bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gguf_file *f = NULL;
    facet_error err;
    if (gguf_open_memory(data, size, "fuzz", &f, &err) != FACET_OK) {
        require(!f && strncmp(err.message, "fuzz: ", 6) == 0);
        return 0;
    }
    for (uint64_t i = 0; i < f->n_kv; i++) use_key(f, &f->kv[i]);
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        use_tensor(f, &f->tensors[i]);
        bytes += f->tensors[i].bytes;
    }
    require(bytes <= size); /* follows from the absence of overlap */
    gguf_close(f);
    return 0;
}
