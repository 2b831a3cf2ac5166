/* model_api.c: what the public interface tells about an open model. */
#include <string.h>

#include "base/utf8.h"
#include "model/model.h"

/* general.name, cut to whole characters. */
static void copy_name(const gguf_file *f, char *out, size_t size)
{
    gguf_str name = {0};
    size_t n = 0;
    if (gguf_get_str(f, "general.name", false, &name, NULL) != FACET_OK) name.n = 0;
    while (n < name.n) {
        uint32_t cp;
        const size_t k = (size_t)utf8_decode(name.s + n, name.n - n, &cp);
        if (k == 0 || cp == 0 || n + k >= size) break;
        n += k;
    }
    if (n) memcpy(out, name.s, n);
    out[n] = 0;
}

void facet_model_describe(const facet_model *m, facet_model_info *out)
{
    const special_ids *ids = tokenizer_special(m->tok);
    *out = (facet_model_info){.n_layers = m->h.n_layers,
                              .n_embd = (int32_t)m->h.n_embd,
                              .n_heads = m->h.n_heads,
                              .n_vocab = (int32_t)m->h.n_vocab,
                              .n_ctx = (int32_t)m->h.n_ctx_train,
                              .window = m->h.window,
                              .n_experts = m->h.n_experts,
                              .n_experts_used = m->h.n_experts_used,
                              .bos = ids->bos,
                              .eos = ids->eos};
    for (int i = 0; i < m->w.n; i++) out->weight_bytes += m->w.list[i].bytes;
    copy_name(m->file, out->name, sizeof out->name);
}

bool facet_model_is_end(const facet_model *m, int32_t token)
{
    return tokenizer_is_end(m->tok, token);
}
