/* model.h: an open target: file, hyperparameters, weights, text. Immutable, shared by engines. */
#ifndef FACET_MODEL_MODEL_H
#define FACET_MODEL_MODEL_H

#include <stdatomic.h>

#include "grammar/trie.h"
#include "model/gemma4.h"
#include "text/chat.h"
#include "text/tokenizer.h"

struct facet_model {
    gguf_file *file;
    hparams h;
    weights w;
    tokenizer *tok;
    chat_format chat;
    _Atomic(token_trie *) trie; /* NULL until a grammar wants it (model_trie) */
};

/* The tree of the vocabulary's texts, made at the first call. The model's; from any thread. */
facet_status model_trie(facet_model *m, const token_trie **out, facet_error *err);

#endif
