/* attn_select.h: which blocks a row reads for one KV head (the rules: compute/sparse.h), and what can be said of the
 * others.
 *
 * Let c, r, n be the centre, radius and number of keys of one of a block's balls. No logit of these keys is above
 *   u = s q.c + |s| |q| r                                       (Cauchy-Schwarz)
 * so that n exp(u) bounds their mass, and the sum over all blocks that are left out bounds the dropped mass: the
 * certificate. The estimate takes the logits as normal around s q.c with a variance of (|s| |q| spread)^2 / (D / 4): a
 * quarter of the dimensions carry the spread, which is four times the variance of keys that spread evenly. */
#ifndef FACET_COMPUTE_CPU_ATTN_SELECT_H
#define FACET_COMPUTE_CPU_ATTN_SELECT_H

#include "compute/cpu/attn_summary.h"
#include "compute/sparse.h"

/* Of the blocks that one head's row leaves out; logarithms, -INFINITY where there are none. */
typedef struct attn_left_out {
    float bound, estimate; /* of the sum of exp(logit) */
    float slack;           /* by which rounding may have made the mass of what is read too large: a logarithm */
    float v_max;           /* no value is longer */
} attn_left_out;

typedef struct attn_choice {
    int32_t n_blocks, n_selected, n_probed;
    bool is_dense; /* the cap: all blocks are read */
} attn_choice;

size_t attn_select_floats(int heads_per_kv, int head_dim, int64_t n_blocks);
/* Whether the row leaves anything out by the rule, whatever its keys are. */
bool attn_may_select(const sparse_rule *rule, int32_t min_keys, const attn_row *row);
/* The blocks whose summaries the row wants: [first, end). */
void attn_select_range(const sparse_rule *rule, const attn_row *row, int32_t *first, int32_t *end);
/* mask [splits of the row] gets the blocks (attn_row.blocks), left_out [heads_per_kv] what follows for the others.
 * w->scratch and the kernels are as for attention; scratch: attn_select_floats. The summaries are made. */
void attn_select(const attn_work *w, const attn_kernels *k, const sparse_rule *rule, const attn_row *row, int kv_head,
                 float *scratch, uint8_t *mask, attn_left_out *left_out, attn_choice *choice);
/* The blocks of the row that mask leaves out. Returns how many. */
int32_t attn_complement(const attn_row *row, const uint8_t *mask, uint8_t *out);
/* Share of the mass that the blocks left out have at most (from `bound`) or by estimate, when what was read has the
 * softmax state (max, sum). */
float attn_dropped(const float state[2], float log_left_out, float slack);

#endif
