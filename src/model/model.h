/* model.h: an open target: file, hyperparameters, weights, text. Immutable, shared by engines. */
#ifndef FACET_MODEL_MODEL_H
#define FACET_MODEL_MODEL_H

#include "model/gemma4.h"
#include "text/chat.h"
#include "text/tokenizer.h"

struct facet_model {
    gguf_file *file;
    hparams h;
    weights w;
    tokenizer *tok;
    chat_format chat;
};

#endif
