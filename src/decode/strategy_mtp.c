/* strategy_mtp.c: chains of the MTP assistant. */
#include <math.h>

#include "decode/engine_draft.h"
#include "decode/park.h"
#include "decode/strategy.h"

static facet_status offer(strategy *st, facet_session *s, int32_t pending, int k_max, int *k, float *known,
                          bool *has_known, facet_error *err)
{
    (void)st, (void)pending, (void)known, (void)err;
    *has_known = false;
    /* it starts from the hidden state whose logits gave the pending token, which lies in the engine's outputs */
    *k = s->n_tokens > 0 && session_has_outputs(s) && engine_has_drafter(s->engine, PARK_MTP) ? k_max : 0;
    return FACET_OK;
}

static facet_status propose(strategy *st, facet_session *s, int32_t pending, int k, proposal *out, facet_error *err)
{
    draft_rows rows;
    const draft_chain chain = {.pending = pending,
                               .base = s->n_tokens,
                               .out_row = s->out_row,
                               .k = k,
                               .p_min = st->opts->p_min,
                               .pos = st->opts->mtp_pos};
    FACET_TRY(engine_draft_mtp(s->engine, &s->kv, &chain, &rows, err));
    out->n = rows.n;
    out->is_tree = false;
    out->has_conf = true;
    for (int j = 0; j < rows.n; j++) {
        out->token[j] = rows.token[j][0];
        out->conf[j] = expf(rows.logp[j][0]);
    }
    return FACET_OK;
}

const strategy_ops strategy_mtp = {
    .method = FACET_SPEC_MTP,
    .desc = {.name = "mtp", .has_conf = true, .is_cost_per_token = true},
    .offer = offer,
    .propose = propose,
};
