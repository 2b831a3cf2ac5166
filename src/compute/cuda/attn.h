/* attn.h: how attention is shared out. The host makes a list of work for every step (attn_work.c); attn.cu runs it.
 *
 * The keys of a layer are cut into groups at fixed positions. What a row sees of a group becomes a part (max, sum, o);
 * parts are added up in their order. Their max is a whole number, the next one from the largest score (which is a power
 * of 2), so what parts are multiplied with are powers of 2 and exact: whether the largest max of all is known from the
 * start (attn_fold.cu) or found on the way (a block that takes all keys of its rows), the sums are the same. So a row's
 * bits depend on its own keys alone, whatever rows share the reads. */
#ifndef FACET_COMPUTE_CUDA_ATTN_H
#define FACET_COMPUTE_CUDA_ATTN_H

#include "compute/cuda/host.h"

#ifdef __CUDACC__
#define ATTN_FN static __host__ __device__ constexpr inline
#else
#define ATTN_FN static inline
#endif

enum {
    ATTN_MAX_COLUMNS = 64, /* query heads of rows that share a block's reads */
    ATTN_SPLIT_ROWS = 64, /* batches of more rows are prompts: a block takes all keys of its rows, and makes no parts */
    ATTN_PART_HEAD = 4,   /* floats before o in a part: max, sum, and two for alignment */
    ATTN_MAX_WAVES = 16,  /* launches of one op, when the parts of all rows do not fit the workspace */
};

/* Groups 0 .. n_even - 1 have `unit` positions each; then, while the position doubles, n_even / 2 groups share each
 * doubling. So a long context has neither many parts to fold nor too few to share out. Both are powers of two. */
typedef struct attn_cut {
    int unit, n_even;
} attn_cut;

ATTN_FN int attn_group_begin(attn_cut c, int g)
{
    if (g < c.n_even) return g * c.unit;
    const int half = c.n_even / 2, octave = (g - c.n_even) / half, at = (g - c.n_even) % half;
    return ((c.n_even + 2 * at) * c.unit) << octave;
}

ATTN_FN int attn_group_of(attn_cut c, int pos)
{
    int q = pos / c.unit, octave = 0;
    if (q < c.n_even) return q;
    while (q >> (octave + 1) >= c.n_even) octave++;
    return c.n_even + c.n_even / 2 * octave + ((q - (c.n_even << octave)) >> (octave + 1));
}

/* The keys that a row sees: positions begin .. end - 1, none when begin >= end. */
typedef struct attn_range {
    int begin, end;
} attn_range;

/* committed, end: of the row's sequence (dev_batch). */
ATTN_FN attn_range attn_range_of(attn_sight sight, int window, int pos, int committed, int end)
{
    attn_range r = {0, 0};
    r.begin = window > 0 && pos >= window ? pos - window + 1 : 0;
    r.end = sight == SIGHT_COMMITTED ? committed : sight == SIGHT_BLOCK ? end : pos + 1;
    return r;
}

/* What one block does for one KV head: some rows of one sequence, which see the same slots, and the keys of one group.
 * Rows whose parts are folded together make up a row block; an item serves all of them, or one (a row of a draft tree
 * has keys of its own). */
typedef struct attn_item {
    int32_t row, n_rows;             /* rows of the op's values */
    int32_t block_row, n_block_rows; /* of the row block */
    int32_t begin, end;              /* positions: what any of the rows sees of the group */
    int32_t group;                   /* -1: all keys, and no parts */
    int32_t n_in_block;              /* items of the row block */
    int32_t counters;                /* index of the row block's counter of KV head 0 */
    int32_t is_settled;              /* earlier steps have written all keys */
    int32_t pad[2];
} attn_item;

/* Items of one launch. */
typedef struct attn_list {
    int32_t first, n;
} attn_list;

/* Ops that share a list: the same sight of the same rows, in layers of the same shape. */
typedef struct attn_class {
    attn_sight sight;
    row_set rows;
    int window, n_kv_heads, heads_per_kv, head_dim;
    kv_type k_type, v_type;
    attn_cut cut;
    int max_groups; /* that a row block sees at most */
    int wave_rows;  /* rows whose parts fit the workspace */
} attn_class;

/* Floats of a row's parts: [head][group % max_groups][ATTN_PART_HEAD + head_dim]. */
ATTN_FN size_t attn_row_parts(const attn_class *k)
{
    return (size_t)k->heads_per_kv * (size_t)k->n_kv_heads * (size_t)k->max_groups *
           (size_t)(ATTN_PART_HEAD + k->head_dim);
}

/* ---- inside a block: tiles of keys, in logical order ---- */

enum {
    ATTN_CHAIN = 128, /* dims that a score sums without a break; chains are added in order */
    ATTN_MIN_STAGES = 2,
    ATTN_MAX_STAGES = 3,
    ATTN_PAGES = 136, /* page numbers that a block holds at a time */
};

/* Keys of a tile. Tiles begin at multiples of that. */
ATTN_FN int attn_tile_len(int head_dim)
{
    return head_dim >= 512 ? 32 : 64;
}

/* Floats and halves from one column of scores, and of weights, to the next: no two lanes meet in a bank. */
ATTN_FN int attn_s_stride(int head_dim)
{
    return attn_tile_len(head_dim) + 4;
}

ATTN_FN int attn_p_stride(int head_dim)
{
    return attn_tile_len(head_dim) + 8;
}

/* Small things in shared memory. */
typedef struct attn_rest {
    float corr[ATTN_MAX_COLUMNS];                       /* what a column's sums are multiplied with before a tile */
    float max[ATTN_MAX_COLUMNS], sum[ATTN_MAX_COLUMNS]; /* of a part; of a whole row: scales of the output so far and
                                                           of the next part */
    float inverse[ATTN_MAX_COLUMNS];                    /* .. and of the output at last */
    int begin[ATTN_MAX_COLUMNS], end[ATTN_MAX_COLUMNS]; /* keys that a column's row sees */
    int page[ATTN_PAGES];
    int first_page, flag;
} attn_rest;

/* Where things lie in a block's shared memory; stages of K and V tiles come first. */
typedef struct attn_place {
    int columns, stages, stage_bytes;
    int k_row, v_row; /* bytes of a row in a stage */
    int converted_at; /* a tile as f16, where the cache is not */
    int q_at, s_at, p_at, rest_at, shared_bytes;
} attn_place;

#ifdef __cplusplus
extern "C" {
#endif

/* The most stages that fit; false when not even the fewest do. */
bool attn_lay_out(const attn_class *k, int columns, int shared_bytes, attn_place *out);

/* Query heads (of one KV head) that a block takes at most when a step has n_rows rows: 8, 16, 32 or 64; 0 when shared
 * memory has no room for those of one row. */
int attn_columns(const attn_class *k, int n_rows, int shared_bytes);

#ifdef __cplusplus
}
#endif

#endif
