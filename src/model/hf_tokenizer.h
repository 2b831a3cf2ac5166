/* hf_tokenizer.h: tokenizer.json of a safetensors folder as the keys tokenizer.* of a GGUF file. Private to conversion.
 */
#ifndef FACET_MODEL_HF_TOKENIZER_H
#define FACET_MODEL_HF_TOKENIZER_H

#include "file/gguf_write.h"

/* n_vocab: rows of the embedding; ids without a token become unused ones. The chat template is taken from
 * chat_template.jinja or tokenizer_config.json where there is one. Errors name the file. */
facet_status hf_tokenizer_put(gguf_writer *w, const char *dir, int n_vocab, facet_error *err);

#endif
