/* attn_fold.h: folding of partial attention results (Dao et al. 2022, arXiv:2205.14135, section 3.1), inlined into
 * every kernel set. Each value is computed alone and contraction is off, so the vector width does not change bits. */
#ifndef FACET_COMPUTE_CPU_ATTN_FOLD_H
#define FACET_COMPUTE_CPU_ATTN_FOLD_H

#include <math.h>
#include <string.h>

/* The state of a head is o[head_dim] in its output row and max, sum beside it; a part is o[head_dim], max, sum of the
 * keys that follow. The first part is the first state. */
typedef struct attn_fold_state {
    float max, sum;
} attn_fold_state;

static inline void attn_fold_begin(float *restrict o, attn_fold_state *s, const float *restrict part, int head_dim)
{
    memcpy(o, part, (size_t)head_dim * sizeof *o);
    *s = (attn_fold_state){.max = part[head_dim], .sum = part[head_dim + 1]};
}

static inline void attn_fold_next(float *restrict o, attn_fold_state *s, const float *restrict part, int head_dim)
{
    float m1 = part[head_dim], m = s->max > m1 ? s->max : m1;
    float w0 = s->max == m ? 1.0f : expf(s->max - m), w1 = m1 == m ? 1.0f : expf(m1 - m);
    for (int i = 0; i < head_dim; i++) o[i] = o[i] * w0 + part[i] * w1;
    *s = (attn_fold_state){.max = m, .sum = s->sum * w0 + part[head_dim + 1] * w1};
}

static inline void attn_fold_end(float *o, const attn_fold_state *s, int head_dim)
{
    float inv = 1.0f / s->sum;
    for (int i = 0; i < head_dim; i++) o[i] *= inv;
}

#endif
