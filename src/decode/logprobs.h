/* logprobs.h: log-probabilities of what was chosen and of the likeliest tokens beside it, as the model has them: after
 * the softcap, before bias, penalties and temperature. */
#ifndef FACET_DECODE_LOGPROBS_H
#define FACET_DECODE_LOGPROBS_H

#include "base/error.h"
#include "decode/draft_tree.h"

/* About the choice after one row. */
typedef struct logprobs_choice {
    float logprob;
    int n_top;
    facet_logprob top[FACET_MAX_LOGPROBS]; /* best first; among equals the smaller id */
} logprobs_choice;

/* The choices of one step, by entry of the verified path. */
typedef struct logprobs {
    int n_top;
    int32_t n_vocab;
    float *raw; /* [n_vocab] logits of the row that is chosen from, as they were */
    logprobs_choice choice[DRAFT_TREE_MAX_ROWS];
} logprobs;

facet_status logprobs_open(int n_top, int32_t n_vocab, logprobs **out, facet_error *err);
void logprobs_close(logprobs *l);
/* From l->raw: what there is to say about the choice of `token` at entry i. */
void logprobs_note(logprobs *l, int i, int32_t token);

#endif
