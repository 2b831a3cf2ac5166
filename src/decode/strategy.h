/* strategy.h: the ways to draft. A strategy proposes tokens after the pending one; verify.h decides about them. */
#ifndef FACET_DECODE_STRATEGY_H
#define FACET_DECODE_STRATEGY_H

#include "decode/draft_control.h"
#include "decode/verify.h"

typedef struct strategy strategy;

typedef struct strategy_ops {
    facet_spec_method method;
    draft_arm_desc desc;
    /* Drafts that it could make in this step, at most k_max. `known` [k_max] gets confidences that cost nothing to know
     * before drafting; *has_known tells whether it did. */
    facet_status (*offer)(strategy *st, facet_session *s, int32_t pending, int k_max, int *k, float *known,
                          bool *has_known, facet_error *err);
    /* Drafts k >= 1 tokens (tree: nodes) at most. out->n may be smaller, 0 included. */
    facet_status (*propose)(strategy *st, facet_session *s, int32_t pending, int k, proposal *out, facet_error *err);
} strategy_ops;

struct strategy {
    const strategy_ops *ops;
    const facet_speculation *opts;
    int k_max;   /* drafts per step, as options and drafter allow */
    int k_fixed; /* with fixed lengths */
};

extern const strategy_ops strategy_mtp, strategy_dflash_chain, strategy_dflash_tree, strategy_ngram;

#endif
