#include "model/identity.h"

#include <string.h>

#include "base/hash.h"

enum { PIECE = 4096, N_PIECES = 4 };

static void add_u64(hash64 *h, uint64_t v)
{
    hash64_add(h, &v, sizeof v);
}

/* "gemma4.block_count" and the like: an architecture's settings have its name before the first dot. Chat templates,
 * vocabularies and descriptions are general.* and tokenizer.*, split.* tells about files. */
static bool is_setting(const gguf_kv *kv)
{
    static const char *const others[] = {"general.", "tokenizer.", "split."};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (kv->key.n >= strlen(others[i]) && memcmp(kv->key.s, others[i], strlen(others[i])) == 0) return false;
    return kv->elem != GGUF_STRING;
}

/* In the order of the keys' hashes, since writers differ in the order of keys: a sum. */
static uint64_t settings_sum(const gguf_file *f)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < f->n_kv; i++) {
        const gguf_kv *kv = &f->kv[i];
        hash64 h = {0};
        double x;
        if (!is_setting(kv)) continue;
        hash64_add(&h, kv->key.s, kv->key.n);
        for (uint64_t j = 0; j < kv->count; j++) {
            int64_t n;
            float r;
            x = gguf_array_i64(kv, j, &n) ? (double)n : gguf_array_f32(kv, j, &r) ? (double)r : 0;
            hash64_add(&h, &x, sizeof x);
        }
        sum += hash64_get(&h);
    }
    return sum;
}

static void add_samples(hash64 *h, const uint8_t *data, size_t bytes)
{
    if (bytes <= PIECE * N_PIECES) {
        hash64_add(h, data, bytes);
        return;
    }
    for (size_t i = 0; i < N_PIECES; i++) hash64_add(h, data + (bytes - PIECE) / (N_PIECES - 1) * i, PIECE);
}

static uint64_t identity(const gguf_file *f)
{
    uint64_t sum = settings_sum(f);
    for (uint64_t i = 0; i < f->n_tensors; i++) { /* in any order, too */
        hash64 h = {0};
        const gguf_tensor *t = &f->tensors[i];
        hash64_add(&h, t->name, strlen(t->name));
        add_u64(&h, t->type);
        for (int d = 0; d < 4; d++) add_u64(&h, t->ne[d]);
        add_samples(&h, t->data, (size_t)t->bytes);
        sum += hash64_get(&h);
    }
    return hash64_of(&sum, sizeof sum);
}

uint64_t identity_of_model(const facet_model *m)
{
    return identity(m->file);
}

uint64_t identity_of_drafter(const drafter *d)
{
    return identity(d->file);
}
