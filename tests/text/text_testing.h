/* text_testing.h: vocabularies, ids and JSON lines: what the tests of src/text share. */
#ifndef FACET_TEXT_TESTING_H
#define FACET_TEXT_TESTING_H

#include <jansson.h>

#include "base/mem.h"
#include "base/rng.h"
#include "text/small_vocab.h"
#include "text/tokenizer.h"

static inline tokenizer *open_vocab_bytes(const buf *b)
{
    facet_error err;
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    assert_ok(gguf_open_memory(b->data, b->len, "vocab", &f, &err), err);
    assert_ok(tokenizer_open(f, &t, &err), err);
    gguf_close(f);
    return t;
}

static inline tokenizer *open_small_vocab(void)
{
    buf b = {0};
    small_vocab(&b, "gemma4", NULL, 0, 0);
    tokenizer *t = open_vocab_bytes(&b);
    buf_free(&b);
    return t;
}

static inline tokenizer *open_vocab_file(const char *path)
{
    facet_error err;
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    assert_ok(gguf_open(path, &f, &err), err);
    assert_ok(tokenizer_open(f, &t, &err), err);
    gguf_close(f);
    return t;
}

typedef struct id_list {
    int32_t *ids;
    size_t n, cap;
} id_list;

static inline void encode(const tokenizer *t, const char *s, size_t n, special_mode mode, id_list *out)
{
    facet_error err;
    out->n = 0;
    assert_ok(tokenizer_encode(t, s, n, false, mode, &out->ids, &out->n, &out->cap, &err), err);
}

static inline void decode(const tokenizer *t, const id_list *ids, buf *out)
{
    detokenizer d = {.show_special = true};
    buf_clear(out);
    for (size_t i = 0; i < ids->n; i++) detokenizer_push(&d, t, ids->ids[i], out);
    detokenizer_finish(&d, out);
}

static inline void assert_ids(const id_list *got, const int32_t *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n && i < got->n; i++)
        if (got->ids[i] != want[i]) fail_msg("%s: id %zu is %d, want %d", what, i, got->ids[i], want[i]);
    if (got->n != n) fail_msg("%s: %zu ids, want %zu", what, got->n, n);
}

static inline void assert_json_ids(const id_list *got, const json_t *want, const char *what)
{
    for (size_t i = 0; i < json_array_size(want) && i < got->n; i++)
        if (got->ids[i] != json_integer_value(json_array_get(want, i))) fail_msg("%s: id %zu differs", what, i);
    if (got->n != json_array_size(want)) fail_msg("%s: %zu ids, want %zu", what, got->n, json_array_size(want));
}

/* Lines of a JSON-lines file, one after another; NULL at the end. */
static inline json_t *next_json_line(FILE *f)
{
    json_error_t why;
    json_t *line = json_loadf(f, JSON_DISABLE_EOF_CHECK, &why);
    return line;
}

#endif
