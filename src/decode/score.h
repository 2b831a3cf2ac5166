/* score.h: how well a model predicts a text: perplexity, and the divergence of one engine from another.
 *
 * The text's tokens (<bos> first) are cut into chunks of n_ctx; a rest at the end is left out. Every chunk is evaluated
 * on its own, its first token replaced by <bos>. Position i of a chunk is scored by its prediction of token i + 1, for
 * i = n_ctx / 2 .. n_ctx - 2: each sees at least n_ctx / 2 tokens before it. This is how llama.cpp counts, so figures
 * can be compared. Logits are after the softcap; all sums are in double, in nats. */
#ifndef FACET_DECODE_SCORE_H
#define FACET_DECODE_SCORE_H

#include "decode/engine.h"

enum { SCORE_MIN_CTX = 4 };

typedef struct score_params {
    const int32_t *tokens; /* borrowed */
    size_t n_tokens;       /* >= n_ctx */
    size_t n_ctx;          /* length of a chunk, SCORE_MIN_CTX .. context of the engine */
    size_t max_chunks;     /* 0 = all */
    facet_progress_fn progress;
    void *progress_ud;
} score_params;

typedef struct score_ppl_result {
    size_t n_chunks, n_scored;
    double mean_nll;       /* mean of -log p(next token) */
    double ppl, ppl_error; /* exp(mean_nll), and its standard error: that of the mean, times ppl */
} score_ppl_result;

/* FACET_ERR_ARG when the text is shorter than a chunk or a chunk than SCORE_MIN_CTX; FACET_ERR_NUMERIC, with the
 * position, when the logits are not finite or give the text's token the probability 0. */
facet_status score_ppl(facet_engine *e, const score_params *p, score_ppl_result *out, facet_error *err);

typedef struct score_kl_result {
    size_t n_chunks, n_scored;
    double mean, mean_error, median, p99, max; /* KL(a || b) of the next token; quantiles interpolate linearly */
    double same_argmax;                        /* share of positions whose likeliest token is the same */
    double rms_delta_p;                        /* root of the mean of (p_b - p_a)^2 of the text's own next token */
    double ppl_a, ppl_b;
} score_kl_result;

/* a is the reference. Both stay open and take turns, a block of rows each: to keep a's rows for later instead would
 * take 4 bytes per position and vocabulary entry (1 MB a position at 262144 entries), to load the models in turn one
 * load per chunk. Errors as above; FACET_ERR_SHAPE when the vocabularies differ in size, FACET_ERR_NUMERIC when b
 * excludes a token that a does not (the divergence is infinite). */
facet_status score_kl(facet_engine *a, facet_engine *b, const score_params *p, score_kl_result *out, facet_error *err);

/* log(sum(exp(x))) of n values; NAN or +-INFINITY when it is not finite. */
double score_log_sum_exp(const float *x, size_t n);

#endif
