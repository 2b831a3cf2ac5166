/* attn_fold.h: folding of partial attention results (Dao et al. 2022, arXiv:2205.14135, section 3.1), inlined into
 * every kernel set. Each value is computed alone and contraction is off, so the vector width does not change bits. */
#ifndef FACET_COMPUTE_CPU_ATTN_FOLD_H
#define FACET_COMPUTE_CPU_ATTN_FOLD_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "quant/rotate.h"

/* o[head_dim] of a head lies in its output row, the rest of its state here. A part is the same of the keys that follow;
 * the first part is the first state. */
typedef struct attn_fold_state {
    float max, sum;
} attn_fold_state;

static inline void attn_fold_begin(float *restrict o, attn_fold_state *s, const float *restrict part_o,
                                   attn_fold_state part, int head_dim)
{
    memcpy(o, part_o, (size_t)head_dim * sizeof *o);
    *s = part;
}

static inline void attn_fold_next(float *restrict o, attn_fold_state *s, const float *restrict part_o,
                                  attn_fold_state part, int head_dim)
{
    float m = s->max > part.max ? s->max : part.max;
    float w0 = s->max == m ? 1.0f : expf(s->max - m), w1 = part.max == m ? 1.0f : expf(part.max - m);
    for (int i = 0; i < head_dim; i++) o[i] = o[i] * w0 + part_o[i] * w1;
    *s = (attn_fold_state){.max = m, .sum = s->sum * w0 + part.sum * w1};
}

/* The same of (max, sum) alone; z begins as (-INFINITY, 0). */
static inline void attn_fold_mass(float z[2], const float part[2])
{
    float m = z[0] > part[0] ? z[0] : part[0];
    float w0 = z[0] == m ? 1.0f : expf(z[0] - m), w1 = part[0] == m ? 1.0f : expf(part[0] - m);
    z[1] = z[1] * w0 + part[1] * w1;
    z[0] = m;
}

/* is_rotated: of the cache's V (kv_type_info). */
static inline void attn_fold_end(float *o, const attn_fold_state *s, int head_dim, bool is_rotated)
{
    float inv = 1.0f / s->sum;
    for (int i = 0; i < head_dim; i++) o[i] *= inv;
    if (is_rotated) unrotate_values(o, (size_t)head_dim);
}

#endif
