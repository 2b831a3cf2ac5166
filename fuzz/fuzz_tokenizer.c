/* A hostile vocabulary: the input is a GGUF file. What opens must encode and decode any text. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "text/tokenizer.h"

static void use(const tokenizer *t, const char *s, size_t n, special_mode mode)
{
    int32_t *ids = NULL;
    size_t n_ids = 0, cap = 0;
    buf out = {0};
    detokenizer d = {.show_special = true};
    if (tokenizer_encode(t, s, n, mode == SPECIAL_ALL, mode, &ids, &n_ids, &cap, NULL) == FACET_OK) {
        for (size_t i = 0; i < n_ids; i++) {
            if (ids[i] < 0 || ids[i] >= tokenizer_n_vocab(t)) abort();
            detokenizer_push(&d, t, ids[i], &out);
        }
        detokenizer_finish(&d, &out);
        if (!out.failed && !utf8_valid(out.data ? out.data : "", out.len)) abort();
    }
    mem_free(ids);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] =
        "<bos><|turn>user\nab  abc\n\n\n\xe6\x97\xa5 \xff dddd<turn|>\n<|tool_call>call:f{}<0x41>";
    gguf_file *f = NULL;
    tokenizer *t = NULL;
    if (gguf_open_memory(data, size, "fuzz", &f, NULL) != FACET_OK) return 0;
    if (tokenizer_open(f, &t, NULL) == FACET_OK) {
        use(t, text, sizeof text - 1, SPECIAL_ALL);
        use(t, text, sizeof text - 1, SPECIAL_USER);
        size_t tail = size < 256 ? size : 256;
        use(t, (const char *)data + size - tail, tail, SPECIAL_NONE);
        tokenizer_close(t);
    }
    gguf_close(f);
    return 0;
}
