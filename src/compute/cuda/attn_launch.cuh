/* attn_launch.cuh: the kernels that attn.cu launches. */
#ifndef FACET_COMPUTE_CUDA_ATTN_LAUNCH_CUH
#define FACET_COMPUTE_CUDA_ATTN_LAUNCH_CUH

#include "compute/cuda/ops.cuh"

typedef struct attn_args {
    dev_pages layer;
    dev_tables tables;
    dev_batch in;
    const int32_t *map;
    const float *q; /* [row, n_heads, head_dim] */
    float *out;
    attn_class k;
    attn_place place;
    float scale; /* of the scores, for exp2 */
    const attn_list *list;
    const attn_item *items;
    int first_row;    /* whose parts lie first */
    bool folds_apart; /* attn_fold.cu folds the parts; else the block that comes last of a row block does */
    float *parts;
    int *counters;
} attn_args;

typedef void (*attn_fn)(attn_args a);

/* attn_D.cu: the kernel for head_dim D, a cache of f16, and 8, 16, 32 or 64 columns. */
attn_fn attn_kernel_128(int columns);
attn_fn attn_kernel_256(int columns);
attn_fn attn_kernel_512(int columns);
/* attn_D_small.cu: likewise, where K or V or both are of a type below f16. */
attn_fn attn_kernel_128_small(int columns);
attn_fn attn_kernel_256_small(int columns);
attn_fn attn_kernel_512_small(int columns);

/* attn_fold.cu: the parts of n_rows rows from a.first_row on become their output. */
void attn_fold_launch(const cuda_backend *b, const attn_args &a, const int32_t *live, int n_rows);

#endif
