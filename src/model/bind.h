/* bind.h: tensors of a GGUF file into a weight list, each checked against the shape and type that its role demands. */
#ifndef FACET_MODEL_BIND_H
#define FACET_MODEL_BIND_H

#include "model/weights.h"

typedef struct binder {
    const gguf_file *f;
    weights *w;
    facet_error *err;
} binder;

typedef enum weight_class {
    CLASS_VECTOR,     /* f32, used as it is */
    CLASS_F32_MATRIX, /* likewise */
    CLASS_MATRIX,     /* multiplied */
    CLASS_ROWS,       /* gathered by row */
    CLASS_PICKED      /* rows multiplied one by one */
} weight_class;

/* Appends the tensor to w->list and sets *out to its index; -1 when it is absent and not required. Errors name the
 * file, the tensor, what was met and what was wanted. */
facet_status bind_tensor(const binder *b, weight_class c, bool required, uint64_t n0, uint64_t n1, uint64_t n2,
                         int *out, const char *name);
/* STEM.weight, with its factor STEM.scale where the file has one. layer >= 0: blk.<layer>.STEM. */
facet_status bind_matrix(const binder *b, bool required, uint64_t n_in, uint64_t n_out, uint64_t n_experts, int *out,
                         int layer, const char *stem);
/* The factor of a matrix that is bound already. */
facet_status bind_factor(const binder *b, int index, const char *stem);
/* blk.<layer>.SUFFIX */
facet_status bind_vector(const binder *b, bool required, uint64_t n, int *out, int layer, const char *suffix);
/* The finite number in an f32 tensor blk.<layer>.SUFFIX of one element; `absent` where the file has none. */
facet_status bind_scalar(const binder *b, float absent, float *out, int layer, const char *suffix);
/* Rows [row, row + n) of tensor t, which has n_in inputs and n_rows outputs, as a matrix of its own. */
facet_status bind_part(const binder *b, const gguf_tensor *t, uint64_t n_in, uint64_t n_rows, uint64_t row, uint64_t n,
                       int *out);

#endif
