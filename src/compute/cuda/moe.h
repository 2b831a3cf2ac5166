/* moe.h: experts: what their ops share. All of it happens on the device: routing, and the lists of who reads what.
 *
 * A pair is one row and one of its chosen experts, numbered row * n_used + place. Pairs of the same expert make up
 * batches, which share the reads of its weights; outputs lie by pair, and a row's are added in routing order. */
#ifndef FACET_COMPUTE_CUDA_MOE_H
#define FACET_COMPUTE_CUDA_MOE_H

#include "compute/cuda/host.h"

enum {
    MOE_COLUMNS = 8, /* pairs in a batch at most, where shared memory allows */
    MOE_WIDE_COLUMNS = 16,
    MOE_WIDE_ROWS = 64,     /* steps of more rows take the wide batches */
    MOE_MIN_WARPS = 4,      /* of a block */
    MOE_MIN_STAGES = 2,     /* of a warp */
    MOE_PACKED = 4,         /* records that a warp packs at once */
    MOE_MAX_RECORDS = 16,   /* of a row: MOE_PACKED * MOE_MIN_WARPS */
    MOE_SMALL_BYTES = 4096, /* shared memory for small things, at most, without the list of items */
    MOE_ITEM_BYTES = 24,    /* of that list */
    MOE_MAX_WIDTH = 8192,   /* of rows in a block of ops */
};

typedef struct moe_batch {
    int32_t expert, first, n, pad; /* pairs[first .. first + n - 1] */
} moe_batch;

/* The workspace of a plan's expert layers, one after another; device memory. */
typedef struct moe_work {
    float *logits;      /* [row, n_experts] */
    int32_t *pairs;     /* [row * n_used] */
    moe_batch *batches; /* [row * n_used] is always enough */
    int32_t *n_batches;
    int32_t *counters;         /* [rows + 1], zero between launches */
    float *sums;               /* [pair, n_out] of OP_MOE_DOWN */
    int columns, wide_columns; /* pairs in a batch */
} moe_work;

/* Pairs in a batch at most, in a step of n_rows rows. */
static inline int moe_columns(const moe_work *w, int n_rows)
{
    if (n_rows < w->columns) return n_rows;
    return n_rows > MOE_WIDE_ROWS ? w->wide_columns : w->columns;
}

/* Ops of one expert layer that are done together (moe_join.c): the dense branch goes along with the experts, and what
 * stands between the two products and the next layer is one launch. Indices of ops. */
typedef struct moe_block {
    int16_t dense_gated, dense_down, dense_norm, route, expert_norm, gated, down, down_norm, add, norm_add;
    int16_t next_norm; /* -1: none */
} moe_block;

#endif
