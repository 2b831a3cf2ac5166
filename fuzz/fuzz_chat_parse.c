/* The input is a model's output over a small vocabulary: a byte below 24 is the special token of that number (23: a
 * newline), any other the byte token of its value (so that text is itself). */
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/chat.h"
#include "text/small_vocab.h"

enum { FIRST_BYTE = N_OF(small_specials) + N_OF(small_tokens) };

static tokenizer *make_vocab(void)
{
    buf b = {0};
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    small_vocab(&b, "gemma4", NULL, 0, 0);
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
        int32_t id = data[i] < N_OF(small_specials) ? data[i] : (int32_t)FIRST_BYTE + data[i];
        if (data[i] == '\x17') id = (int32_t)FIRST_BYTE + '\n';
        if (chat_parser_push(p, id, NULL) != FACET_OK) abort();
    }
    if (chat_parser_finish(p, NULL) != FACET_OK || chat_parser_n_calls(p) != n_calls) abort();
    chat_parser_close(p);
    return 0;
}
