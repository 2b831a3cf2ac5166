/* convert.h: a safetensors folder of the Gemma 4 family as a GGUF file. */
#ifndef FACET_MODEL_CONVERT_H
#define FACET_MODEL_CONVERT_H

#include "file/gguf_write.h"
#include "model/typemix.h"

typedef struct convert_params {
    enum typemix mix;
    const char *target;        /* GGUF whose tokenizer.* keys are copied; NULL: the folder's tokenizer.json */
    const char *chat_template; /* NULL keeps what is found */
    size_t n_chat_template;
    bool use_own_template; /* Facet's own, of the kind that the model's size wants */
    int n_threads;         /* 0 = one per processor */
    facet_progress_fn progress;
    void *progress_ud;
} convert_params;

/* dir: config.json, model.safetensors (or its index and shards), and tokenizer.json unless a target is given. What it
 * holds decides: a target (gemma4, gemma4_text), an MTP assistant (gemma4_assistant) or a DFlash drafter. Vision and
 * audio parts are left out. Errors name the file, key or tensor; FACET_ERR_UNSUPPORTED for another kind of model and
 * for a tensor that none of the three has. */
facet_status convert_folder(const char *dir, const char *out, const convert_params *p, facet_error *err);

/* A drafter's folder as a GGUF file in memory, matrices in their own float type, without a vocabulary (the key
 * ARCH.vocab_size holds its size): *bytes at *out, to be freed with mem_unmap. FACET_ERR_UNSUPPORTED for a target. */
facet_status convert_drafter_in_memory(const char *dir, void **out, size_t *bytes, facet_error *err);

#endif
