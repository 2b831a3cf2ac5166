#include "model/model.h"

#include "base/mem.h"

static facet_status fill(facet_model *m, const char *path, facet_error *err)
{
    FACET_TRY(gguf_open(path, &m->file, err));
    FACET_TRY(hparams_read(m->file, &m->h, err));
    FACET_TRY(weights_bind(m->file, &m->h, &m->w, err));
    FACET_TRY(tokenizer_open(m->file, &m->tok, err));
    if ((uint32_t)tokenizer_n_vocab(m->tok) != m->h.n_vocab)
        return error_set(err, FACET_ERR_FORMAT, "%s: tokenizer.ggml.tokens has %d entries, token_embd.weight %u rows",
                         path, tokenizer_n_vocab(m->tok), m->h.n_vocab);
    gguf_str tmpl = {0};
    FACET_TRY(gguf_get_str(m->file, "tokenizer.chat_template", false, &tmpl, err));
    m->chat = chat_detect(tmpl.s, tmpl.n, m->h.n_embd_per_layer > 0);
    return FACET_OK;
}

facet_status facet_model_open(const char *path, facet_model **out, facet_error *err)
{
    if (!path) return error_set(err, FACET_ERR_ARG, "path: NULL, wanted a GGUF file");
    facet_model *m = mem_calloc(1, sizeof *m);
    if (!m) return error_memory(err, "a model", sizeof *m);
    facet_status status = fill(m, path, err);
    if (status != FACET_OK) {
        facet_model_close(m);
        return status;
    }
    *out = m;
    return FACET_OK;
}

void facet_model_close(facet_model *m)
{
    if (!m) return;
    trie_close(atomic_load(&m->trie));
    tokenizer_close(m->tok);
    weights_free(&m->w);
    hparams_free(&m->h);
    gguf_close(m->file);
    mem_free(m);
}

/* Where two threads make it at once, the first one's stays. */
facet_status model_trie(facet_model *m, const token_trie **out, facet_error *err)
{
    token_trie *known = atomic_load(&m->trie), *made;
    if (!known) {
        FACET_TRY(trie_open(m->tok, &made, err));
        if (atomic_compare_exchange_strong(&m->trie, &known, made))
            known = made;
        else
            trie_close(made);
    }
    *out = known;
    return FACET_OK;
}

int32_t facet_model_n_vocab(const facet_model *m)
{
    return (int32_t)m->h.n_vocab;
}

int32_t facet_model_n_ctx(const facet_model *m)
{
    return (int32_t)m->h.n_ctx_train;
}
