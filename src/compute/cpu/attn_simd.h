/* attn_simd.h: the inner loops that a kernel set supplies; attn_drive.c does the rest, the same for every set.
 *
 * A query's sums have one order, whatever stands beside it: a score adds up the dims in order, an output value adds up
 * the keys in order. So queries may be grouped freely, and sums may wait in memory between calls. */
#ifndef FACET_COMPUTE_CPU_ATTN_SIMD_H
#define FACET_COMPUTE_CPU_ATTN_SIMD_H

#include "compute/cpu/attn_tile.h"

/* Rows of scores and sums are a cache line longer than they need be: at a distance of 2048 bytes 32 of them would fall
 * into two sets of the L1 cache. */
enum { ATTN_PAD = 16, ATTN_SCORE_STRIDE = ATTN_SPLIT + ATTN_PAD };

/* A tile, and the one that will be wanted after it (for the prefetcher; may be the same). */
typedef struct attn_tile {
    kv_type layout; /* kv_type_info */
    const uint8_t *data, *next;
} attn_tile;

typedef struct attn_simd {
    /* s[i * ATTN_SCORE_STRIDE + key] = q[i * q_stride ..] . k[key] for the 32 keys of a K tile. */
    void (*score)(attn_tile k, int head_dim, const float *q, size_t q_stride, int n_q, float *s);
    /* o[i * o_stride + dim] += sum of p[i * ATTN_SCORE_STRIDE + key] * v[key][dim] over keys lo <= key < hi of a V
     * tile. */
    void (*value)(attn_tile v, int head_dim, int lo, int hi, const float *p, int n_q, float *o, size_t o_stride);
    /* Keys of a V tile that begins where base tells (attn_rebuild_bases): the dims that turn, decoded and turned, in
     * room [head_dim / 32][32 keys][32 dims]; behind them scales [head_dim / 32][32 keys] of all. */
    void (*turn)(attn_tile v, const attn_rebuild *r, bool is_rotated, const float *base, float *room);
    /* score() of the keys of that tile; queries of attn_rebuild_query. */
    void (*score_values)(attn_tile v, const attn_rebuild *r, const float *room, const float *q, size_t q_stride,
                         int n_q, float *s);
    /* Scores s[lo..hi) of a split times scale become weights exp(s - max); max and sum come back in out[0..1]. The rest
     * of s[ATTN_SPLIT] may be anything before and after. */
    void (*softmax)(float *s, int lo, int hi, float scale, float out[2]);
    attn_centre_fn centre;
} attn_simd;

void attn_drive_split(const attn_simd *simd, const attn_work *w, const attn_row *row, int kv_head, int split,
                      float *part);
void attn_drive_rows(const attn_simd *simd, const attn_work *w, const attn_row *rows, int n_rows, int kv_head);
void attn_drive_probe(const attn_simd *simd, const attn_work *w, const attn_row *row, int kv_head, float *z,
                      float *means, int n_means);
size_t attn_drive_scratch_floats(int heads_per_kv, int head_dim, bool rebuilds_k);

extern const attn_simd attn_simd_avx2, attn_simd_avx512;
attn_kernels attn_avx2(void);
attn_kernels attn_avx512(void);

#endif
