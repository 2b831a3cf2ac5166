/* small_vocab.h: the bytes of a file with a small vocabulary, for the tests of src/text and for fuzz targets. */
#ifndef FACET_TESTS_SMALL_VOCAB_H
#define FACET_TESTS_SMALL_VOCAB_H

#include <stdio.h>

#include "file/gguf_put.h"

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

/* The bytes of a vocabulary file; `extra` (n_extra keys) goes behind its own keys. */
static inline void small_vocab(buf *b, const char *model, const char *extra, size_t extra_bytes, uint64_t n_extra)
{
    size_t n = N_OF(small_specials) + N_OF(small_tokens) + 256;
    put_header(b, 0, 4 + n_extra);
    put_name(b, "tokenizer.ggml.model");
    put_u32(b, GGUF_STRING);
    put_name(b, model);
    put_array_key(b, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (size_t i = 0; i < N_OF(small_specials); i++) put_name(b, small_specials[i]);
    for (size_t i = 0; i < N_OF(small_tokens); i++) put_name(b, small_tokens[i]);
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        put_name(b, name);
    }
    put_array_key(b, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (size_t i = 0; i < n; i++)
        put_u32(b, i < N_OF(small_specials) ? (uint32_t)small_types[i] : i < n - 256 ? 1 : 6);
    put_array_key(b, "tokenizer.ggml.merges", GGUF_STRING, N_OF(small_merges));
    for (size_t i = 0; i < N_OF(small_merges); i++) put_name(b, small_merges[i]);
    buf_append(b, extra, extra_bytes);
}

#endif
