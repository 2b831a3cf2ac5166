/* strategy_ngram.c: drafts from the session's own text. */
#include "decode/strategy.h"

/* Brings the index to the session's tokens; the pending one is not kept in it. */
static facet_status update(facet_session *s, facet_error *err)
{
    if (!s->ngram) {
        const draft_ngram_params p = draft_ngram_params_default();
        FACET_TRY(draft_ngram_open(&p, &s->ngram, err));
    }
    const int32_t have = draft_ngram_n_tokens(s->ngram);
    if (have > s->n_tokens) draft_ngram_truncate(s->ngram, s->n_tokens);
    if (have >= s->n_tokens) return FACET_OK;
    return draft_ngram_append(s->ngram, s->tokens + have, (size_t)(s->n_tokens - have), err);
}

static facet_status look_up(facet_session *s, int32_t pending, int k, int32_t *out, int *n, facet_error *err)
{
    FACET_TRY(update(s, err));
    FACET_TRY(draft_ngram_append(s->ngram, &pending, 1, err));
    *n = draft_ngram_propose(s->ngram, k, out, NULL);
    draft_ngram_truncate(s->ngram, s->n_tokens);
    return FACET_OK;
}

static facet_status offer(strategy *st, facet_session *s, int32_t pending, int k_max, int *k, float *known,
                          bool *has_known, facet_error *err)
{
    (void)st, (void)known;
    int32_t tokens[DRAFT_TREE_MAX_NODES];
    *has_known = false;
    return look_up(s, pending, k_max, tokens, k, err);
}

static facet_status propose(strategy *st, facet_session *s, int32_t pending, int k, proposal *out, facet_error *err)
{
    (void)st;
    out->is_tree = out->has_conf = false;
    return look_up(s, pending, k, out->token, &out->n, err);
}

const strategy_ops strategy_ngram = {
    .method = FACET_SPEC_NGRAM,
    .desc = {.name = "n-gram"},
    .offer = offer,
    .propose = propose,
};
