/* strategy_dflash.c: blocks of the DFlash drafter, as chains of best tokens or as trees (DDTree). */
#include <math.h>

#include "decode/draft_adaptive.h"
#include "decode/engine_draft.h"
#include "decode/park.h"
#include "decode/strategy.h"

static facet_status offer(strategy *st, facet_session *s, int32_t pending, int k_max, int *k, float *known,
                          bool *has_known, facet_error *err)
{
    (void)st, (void)pending, (void)known, (void)err;
    *has_known = false;
    *k = engine_has_drafter(s->engine, PARK_DFLASH) && draft_feed_has_context(s) ? k_max : 0;
    return FACET_OK;
}

/* A block takes pages of the draft group, which the mark may hold. */
static facet_status block_after(facet_session *s, int32_t pending, int depth, draft_rows *rows, facet_error *err)
{
    FACET_TRY(draft_feed_catch_up(s, err));
    const draft_block b = {
        .pending = pending, .base = s->n_tokens, .begin = s->engine->can_leave_out ? s->feed.gap.end : 0, .k = depth};
    facet_status status = engine_draft_block(s->engine, &s->kv, &b, rows, err);
    if (status != FACET_ERR_LIMIT || !s->n_mark) return status;
    session_drop_mark(s);
    return engine_draft_block(s->engine, &s->kv, &b, rows, err);
}

static facet_status propose_chain(strategy *st, facet_session *s, int32_t pending, int k, proposal *out,
                                  facet_error *err)
{
    draft_rows rows;
    FACET_TRY(block_after(s, pending, k, &rows, err));
    out->n = rows.n;
    out->is_tree = false;
    out->has_conf = true;
    for (int j = 0; j < rows.n; j++) {
        out->token[j] = rows.token[j][0];
        out->conf[j] = expf(rows.logp[j][0]);
    }
    const int width_min = st->opts->width_min ? st->opts->width_min : DRAFT_WIDTH_MIN;
    if (st->opts->adapt != FACET_ADAPT_COST)
        out->n = draft_width_by_confidence(out->conf, out->n, st->opts->width_theta, width_min) - 1;
    return FACET_OK;
}

/* The whole block is drafted whatever the budget: depth is cheap, and the budget goes where it pays. */
static facet_status propose_tree(strategy *st, facet_session *s, int32_t pending, int k, proposal *out,
                                 facet_error *err)
{
    draft_rows rows;
    int depth = s->engine->dflash->dflash.block_size - 1;
    const int room = s->engine->n_ctx - s->n_tokens - 1;
    if (depth > room) depth = room;
    FACET_TRY(block_after(s, pending, depth, &rows, err));
    int32_t token[DRAFT_TREE_MAX_NODES * DRAFT_TREE_RANKS];
    float logp[DRAFT_TREE_MAX_NODES * DRAFT_TREE_RANKS];
    for (int j = 0; j < rows.n; j++)
        for (int r = 0; r < DRAFT_TREE_RANKS; r++) {
            token[j * DRAFT_TREE_RANKS + r] = rows.token[j][r];
            logp[j * DRAFT_TREE_RANKS + r] = rows.logp[j][r];
        }
    const draft_marginals m = {.n_depths = rows.n, .n_ranks = DRAFT_TREE_RANKS, .token = token, .logp = logp};
    draft_tree_rule rule = draft_tree_rule_default();
    rule.is_chain_seeded = st->opts->is_chain_seeded;
    FACET_TRY(draft_tree_build(&m, pending, k, rule, &out->tree, err));
    out->n = out->tree.n_rows - 1;
    out->is_tree = true;
    out->has_conf = true;
    for (int i = 0; i < out->n; i++) out->conf[i] = out->tree.weight[i + 1];
    return FACET_OK;
}

const strategy_ops strategy_dflash_chain = {
    .method = FACET_SPEC_DFLASH,
    .desc = {.name = "dflash", .has_conf = true, .is_fed = true},
    .offer = offer,
    .propose = propose_chain,
};
const strategy_ops strategy_dflash_tree = {
    .method = FACET_SPEC_DFLASH,
    .desc = {.name = "dflash tree", .is_tree = true, .has_conf = true, .is_fed = true},
    .offer = offer,
    .propose = propose_tree,
};
