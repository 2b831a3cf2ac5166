/* text_testing.h: a small vocabulary made in memory, and what the tests of src/text share. */
#ifndef FACET_TEXT_TESTING_H
#define FACET_TEXT_TESTING_H

#include <jansson.h>

#include "base/mem.h"
#include "base/rng.h"
#include "file/gguf.h"
#include "text/tokenizer.h"

/* Texts in id order: 24 special tokens, a few of no special kind, then 256 byte tokens. */
static const char *const small_specials[] = {"<pad>",
                                             "<eos>",
                                             "<bos>",
                                             "<unk>",
                                             "<mask>",
                                             "<|tool>",
                                             "<tool|>",
                                             "<|tool_call>",
                                             "<tool_call|>",
                                             "<|tool_response>",
                                             "<tool_response|>",
                                             "<|\"|>",
                                             "<|think|>",
                                             "<|channel>",
                                             "<channel|>",
                                             "<|turn>",
                                             "<turn|>",
                                             "<|image>",
                                             "<image|>",
                                             "<|audio>",
                                             "<audio|>",
                                             "<|image|>",
                                             "<|audio|>",
                                             "<|video|>"};
static const int small_types[] = {3, 1, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 3, 4, 4, 3, 3, 3, 3, 3, 3, 3, 3, 3};
static const char *const small_tokens[] = {"a",
                                           "b",
                                           "c",
                                           "d",
                                           "\xe2\x96\x81",
                                           "\n",
                                           "\n\n",
                                           "\n\n\n",
                                           "1",
                                           "2",
                                           "\xc3\xa9",
                                           "\xef\xbf\xbd",
                                           "ab",
                                           "abab",
                                           "abc",
                                           "\xe2\x96\x81"
                                           "a",
                                           "ca",
                                           "bc",
                                           "dd",
                                           "dddd",
                                           "aa",
                                           "\xc3\xa9"
                                           "a",
                                           "\xe2\x96\x81\xe2\x96\x81",
                                           "cab"};
static const char *const small_merges[] = {"a b",        "ab ab",
                                           "d d",        "dd dd",
                                           "b c",        "ab c",
                                           "a bc",       "\xe2\x96\x81 a",
                                           "c a",        "c ab",
                                           "ca b",       "a a",
                                           "\xc3\xa9 a", "\xe2\x96\x81 \xe2\x96\x81",
                                           "\n \n",      "\n\n \n",
                                           "\n \n\n"};

#define N_OF(a) (sizeof(a) / sizeof *(a))

/* Appending parts of a GGUF file. */
static inline void put_u32(buf *b, uint32_t v)
{
    buf_append(b, &v, 4);
}
static inline void put_u64(buf *b, uint64_t v)
{
    buf_append(b, &v, 8);
}
static inline void put_str(buf *b, const char *s)
{
    put_u64(b, strlen(s));
    buf_puts(b, s);
}
static inline void put_array_key(buf *b, const char *key, gguf_type elem, uint64_t n)
{
    put_str(b, key);
    put_u32(b, GGUF_ARRAY);
    put_u32(b, elem);
    put_u64(b, n);
}

static inline void put_header(buf *b, uint64_t n_kv)
{
    buf_puts(b, "GGUF");
    put_u32(b, 3);
    put_u64(b, 0);
    put_u64(b, n_kv);
}

/* The bytes of a vocabulary file; `extra` (n_extra keys) goes behind its own keys. */
static inline void small_vocab(buf *b, const char *model, const char *extra, size_t extra_bytes, uint64_t n_extra)
{
    size_t n = N_OF(small_specials) + N_OF(small_tokens) + 256;
    put_header(b, 4 + n_extra);
    put_str(b, "tokenizer.ggml.model");
    put_u32(b, GGUF_STRING);
    put_str(b, model);
    put_array_key(b, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (size_t i = 0; i < N_OF(small_specials); i++) put_str(b, small_specials[i]);
    for (size_t i = 0; i < N_OF(small_tokens); i++) put_str(b, small_tokens[i]);
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        put_str(b, name);
    }
    put_array_key(b, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        put_u32(b, i < N_OF(small_specials) ? (uint32_t)small_types[i] : i < n - 256 ? 1 : 6);
    put_array_key(b, "tokenizer.ggml.merges", GGUF_STRING, N_OF(small_merges));
    for (size_t i = 0; i < N_OF(small_merges); i++) put_str(b, small_merges[i]);
    buf_append(b, extra, extra_bytes);
}

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
