/* quantize.h: a GGUF file as another type mix. */
#ifndef FACET_MODEL_QUANTIZE_H
#define FACET_MODEL_QUANTIZE_H

#include "file/gguf_write.h"
#include "model/typemix.h"

typedef struct quantize_params {
    enum typemix mix;
    const char *chat_template; /* NULL keeps the file's */
    size_t n_chat_template;
    bool use_own_template; /* Facet's own, of the kind that the model's size wants */
    /* "NAME=TYPE": the type of the tensors whose name matches (wildcards as in a shell); the first match decides. */
    const char *const *keep;
    int n_keep;
    const char *const *drop; /* keys left out */
    int n_drop;
    int n_threads; /* 0 = one per processor */
    facet_progress_fn progress;
    void *progress_ud;
} quantize_params;

/* Converts every tensor through f32 to the type that the mix gives it; integer tensors and those that have their type
 * already are copied. Split files become one. Errors: those of reading and writing; FACET_ERR_ARG for an output that
 * is the input, and for a --keep that names no tensor or a type that does not fit. */
facet_status quantize_file(const char *in, const char *out, const quantize_params *p, facet_error *err);

/* FACET_ERR_ARG when both paths lead to the same file. */
facet_status quantize_check_paths(const char *in, const char *out, facet_error *err);

/* The layer in "blk.N.", or -1. */
int quantize_layer_of(const char *tensor_name);

#endif
