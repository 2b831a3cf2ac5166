/* mtp.h: the MTP assistant: a small decoder of queries only, which reads the target's cache.
 *
 * One run is one step of a chain for every row: token and hidden in, the distribution of the next token and a new
 * hidden out. Feeding a step's results (column 0 of v_top_ids, v_hidden) to its inputs with copy_rows continues the
 * chain; the host need not see them in between. Batch: pos[r] is the query's position (C, the number of committed
 * positions, in every step of a chain; C - 1 or C + j are variants that the caller may try), seqs[].base = C, slot is
 * not read. Keys: p < base, in local layers also pos - p < window. */
#ifndef FACET_MODEL_MTP_H
#define FACET_MODEL_MTP_H

#include "model/drafter.h"

enum { MTP_TOP_K = 10 }; /* published values of p_min refer to a softmax over the ten best */

typedef struct mtp_options {
    int top_k;         /* 1 .. PLAN_MAX_TOPK */
    bool wants_logits; /* v_logits becomes an output */
    bool dense_head;   /* all logits also where the file has centroids */
} mtp_options;

/* Values, all rows of the batch: inputs v_in_token [1, int32], v_in_hidden [n_embd of the target]; outputs v_top_ids,
 * v_top_logp [top_k], v_hidden [n_embd of the target], v_logits [n_vocab]; v_kept_ids, v_kept_logp [top_k].
 * The assistant's logits have no softcap; the target's suppressed ids are -inf.
 * The drafter's first_weight must be set (drafter_join_weights). */
facet_status mtp_plan(const drafter *d, const facet_model *target, const mtp_options *o, plan **out, facet_error *err);

/* drafter.c: from an open file. */
facet_status mtp_read(drafter *d, const facet_model *target, facet_error *err);
bool mtp_is_architecture(gguf_str arch);

#endif
