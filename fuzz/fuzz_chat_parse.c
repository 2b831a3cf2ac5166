/* The input is a model's output over a small vocabulary: a byte below 24 is the special token of that number (23: a
 * newline), any other the byte token of its value (so that text is itself). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/utf8.h"
#include "text/chat.h"

static const char *const specials[] = {"<pad>",
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

#define N_SPECIALS 24u
#define N_TOKENS (N_SPECIALS + 256u + 3u)

static void put_u32(buf *b, uint32_t v)
{
    buf_append(b, &v, 4);
}

static void put_str(buf *b, const char *s)
{
    uint64_t n = strlen(s);
    buf_append(b, &n, 8);
    buf_puts(b, s);
}

static void put_array(buf *b, const char *key, gguf_type elem, uint64_t n)
{
    put_str(b, key);
    put_u32(b, GGUF_ARRAY);
    put_u32(b, elem);
    buf_append(b, &n, 8);
}

static tokenizer *make_vocab(void)
{
    buf b = {0};
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    uint64_t counts[2] = {0, 4};
    buf_puts(&b, "GGUF");
    put_u32(&b, 3);
    buf_append(&b, counts, sizeof counts);
    put_str(&b, "tokenizer.ggml.model");
    put_u32(&b, GGUF_STRING);
    put_str(&b, "gemma4");
    put_array(&b, "tokenizer.ggml.tokens", GGUF_STRING, N_TOKENS);
    for (unsigned i = 0; i < N_SPECIALS; i++) put_str(&b, specials[i]);
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        put_str(&b, name);
    }
    put_str(&b, "a");
    put_str(&b, "b");
    put_str(&b, "ab");
    put_array(&b, "tokenizer.ggml.token_type", GGUF_I32, N_TOKENS);
    for (unsigned i = 0; i < N_TOKENS; i++) put_u32(&b, i < N_SPECIALS ? 3 : i < N_SPECIALS + 256 ? 6 : 1);
    put_array(&b, "tokenizer.ggml.merges", GGUF_STRING, 1);
    put_str(&b, "a b");
    if (gguf_open_memory(b.data, b.len, "vocab", &f, NULL) != FACET_OK || tokenizer_open(f, &t, NULL) != FACET_OK)
        abort();
    gguf_close(f);
    buf_free(&b);
    return t;
}

static void check(void *ud, const chat_event *e)
{
    int *n_calls = ud;
    if (e->n == 0 || !utf8_valid(e->text, e->n)) abort();
    if (e->kind != CHAT_CALL) return;
    json_error_t why;
    json_t *v = json_loadb(e->arguments, e->n_arguments, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &why);
    if (v ? !json_is_object(v) : json_error_code(&why) != json_error_numeric_overflow) abort();
    json_decref(v);
    if (e->call_index != (*n_calls)++) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tokenizer *t; /* made once; reachable until the process ends */
    if (!t) t = make_vocab();
    chat_parser *p = NULL;
    int n_calls = 0;
    if (size < 1 || chat_parser_open(t, data[0] & 1, check, &n_calls, &p, NULL) != FACET_OK) return 0;
    for (size_t i = 1; i < size; i++) {
        int32_t id = data[i] < N_SPECIALS ? data[i] : (int32_t)N_SPECIALS + data[i];
        if (data[i] == '\x17') id = (int32_t)N_SPECIALS + '\n';
        if (chat_parser_push(p, id, NULL) != FACET_OK) abort();
    }
    if (chat_parser_finish(p, NULL) != FACET_OK || chat_parser_n_calls(p) != n_calls) abort();
    chat_parser_close(p);
    return 0;
}
