/* fuzz_safetensors.c: opens arbitrary bytes as a safetensors file and touches every tensor of an accepted one. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "file/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void require(bool condition)
{
    if (!condition) abort();
}

static void use_tensor(const st_file *f, const st_tensor *t)
{
    const file_map *m = &f->shards[t->shard];
    require(st_find(f, t->name) == t);
    require(t->bytes > 0 && t->data >= m->data && t->bytes <= m->size - (uint64_t)(t->data - m->data));
    require(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3] * type_get(t->type)->block_bytes == t->bytes);
    sink += (uint64_t)t->data[0] + t->data[t->bytes - 1];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    st_file *f = NULL;
    facet_error err;
    if (st_open_memory(data, size, "fuzz", &f, &err) != FACET_OK) {
        require(!f && strncmp(err.message, "fuzz: ", 6) == 0);
        return 0;
    }
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        use_tensor(f, &f->tensors[i]);
        bytes += f->tensors[i].bytes;
    }
    require(bytes <= size);
    st_close(f);
    return 0;
}
