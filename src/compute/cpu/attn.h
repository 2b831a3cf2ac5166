/* attn.h: pages of the KV cache in host memory and attention over them.
 *
 * Per layer a page holds, for each KV head, the K part and the V part of KV_PAGE_LEN slots, laid out for the kernels
 * (attn_page.c draws it): K in tiles of 32 keys, transposed; V in tiles of 32 keys by 32 dims. Layers that rebuild keys
 * have the V part alone. */
#ifndef FACET_COMPUTE_CPU_ATTN_H
#define FACET_COMPUTE_CPU_ATTN_H

#include <stdatomic.h>

#include "compute/batch.h"

typedef struct attn_rebuild attn_rebuild; /* attn_rebuild.h */

/* Storage of one layer: page i at pages + i * page_bytes (kv_layer_page_bytes). */
typedef struct attn_layer {
    kv_layer_desc desc;
    uint8_t *pages;
    size_t page_bytes;
    /* Where desc.has_summaries (attn_summary.h): */
    struct block_figures *figures; /* [page][KV head] */
    int8_t *centres;               /* [page][KV head][ball][head_dim] */
    atomic_uchar *is_summarised;   /* [page] its summary fits its content */
} attn_layer;

/* One slot of one KV head: x [head_dim] f32. `slot` is within the page. Layers that rebuild keys have no K. */
void attn_put_k(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x);
void attn_put_v(const attn_layer *l, int32_t page, int slot, int kv_head, const float *x);
/* The decoded values as the cache holds them (rotated where the type is), for the reference kernel and tests. */
void attn_get_k(const attn_layer *l, int32_t page, int slot, int kv_head, float *x);
void attn_get_v(const attn_layer *l, int32_t page, int slot, int kv_head, float *x);
/* Raw move of a slot (all heads, what there is of K and V). */
void attn_move_slot(const attn_layer *l, int32_t src_page, int src_slot, int32_t dst_page, int dst_slot);

/* One query row: what it sees (batch.h): logical positions pos - window < p < end (window 0: all) from `begin` on,
 * those below base in slot p, the rest in slot base + path[p - base] (path NULL: slot p). At least one, or the kernels
 * must not be called.
 */
typedef struct attn_row {
    const int32_t *table; /* page table of the layer's group */
    int32_t pos, base;
    int32_t end; /* one past the last visible position; 0: pos + 1 */
    int32_t begin;
    const uint8_t *path;
    const float *q; /* [n_heads, head_dim], rotated */
    float *out;     /* [n_heads, head_dim] */
    /* Of what it sees, the blocks (compute/sparse.h) that it reads: NULL, all; else [KV head][blocks_stride], a byte
     * for each split, the lowest bit its first block. One block at least that has a visible key; no others. */
    const uint8_t *blocks;
    size_t blocks_stride;
    float *state; /* NULL, or [n_heads][max, sum] of the softmax */
} attn_row;

/* Keys are cut into splits of ATTN_SPLIT logical positions at fixed places. A split's partial result is (max, sum,
 * o[head_dim]) per head; partials are folded in order of position. A row's bits depend on its own keys alone. */
enum { ATTN_SPLIT = 512, ATTN_SPLIT_BLOCKS = ATTN_SPLIT / KV_PAGE_LEN };

typedef struct attn_work {
    const attn_layer *layer;
    int n_heads, window;
    float scale;
    float *scratch;              /* per thread, attn_scratch_floats() */
    const attn_rebuild *rebuild; /* how keys are made of values where the layer rebuilds them; else NULL */
} attn_work;
/* Visible logical positions [first, last) of a row; none when last <= first. */
static inline void attn_visible(const attn_row *row, int window, int32_t *first, int32_t *last)
{
    *first = window > 0 && row->pos >= window ? row->pos - window + 1 : 0;
    if (*first < row->begin) *first = row->begin;
    *last = row->end ? row->end : row->pos + 1;
}
/* The row's blocks for a KV head; NULL: all. */
static inline const uint8_t *attn_row_blocks(const attn_row *row, int kv_head)
{
    return row->blocks ? row->blocks + (size_t)kv_head * row->blocks_stride : NULL;
}
size_t attn_scratch_floats(int n_heads, int n_kv_heads, int head_dim, bool rebuilds_k);

/* First and one past the last split that the row sees. */
void attn_split_range(const attn_row *row, int window, int *begin, int *end);
/* Partials of one split for the query heads of one KV head: part [heads_per_kv][head_dim + 2] = o, max, sum. */
typedef void (*attn_split_fn)(const attn_work *w, const attn_row *row, int kv_head, int split, float *part);
/* Whole attention of several rows (of any sequences) for one KV head: every split of every row, folded; the same bits
 * as the split function followed by attn_fold. Rows are given together so that a tile that several rows read is
 * fetched once: rows of one sequence (same table pointer) should stand side by side. */
typedef void (*attn_rows_fn)(const attn_work *w, const attn_row *rows, int n_rows, int kv_head);
/* Folds the partials of splits in order (n parts, `stride` floats apart) and writes out[head_dim] = o / sum for one
 * head, turned back when the cache's V is rotated (kv_type_info). */
void attn_fold(const float *parts, int n, size_t stride, int head_dim, bool is_rotated, float *out);

/* Only the softmax of what a row reads: z [heads_per_kv][max, sum]; and, where means is not NULL, [heads_per_kv]
 * [n_means] the mean logit of each block that it reads, in order. */
typedef void (*attn_probe_fn)(const attn_work *w, const attn_row *row, int kv_head, float *z, float *means,
                              int n_means);
/* out[i] = q[i * q_stride ..] . centre, i < n_q. */
typedef void (*attn_centre_fn)(const int8_t *centre, int head_dim, const float *q, size_t q_stride, int n_q,
                               float *out);

typedef struct attn_kernels {
    attn_split_fn split;
    attn_rows_fn rows;
    attn_probe_fn probe;
    attn_centre_fn centre;
} attn_kernels;
/* Scalar, on attn_get_*; and the best for this CPU. */
attn_kernels attn_ref(void);
attn_kernels attn_best(kv_type k, kv_type v);

#endif
