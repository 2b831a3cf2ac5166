#include "decode/engine_draft.h"

#include <math.h>

#include "decode/park.h"
#include "model/dflash.h"
#include "model/mtp.h"

static facet_status parse_mask(const facet_engine_params *p, block_mask *out, facet_error *err)
{
    const char *mask = p->block_mask ? p->block_mask : "auto";
    if (block_mask_by_name(mask, out)) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "block_mask '%s': supported are auto, all_bidir, swa_causal, all_causal",
                     mask);
}

facet_status engine_draft_check(const facet_engine_params *p, facet_error *err)
{
    block_mask mask;
    if (p->n_drafters < 0 || p->n_drafters > 2)
        return error_set(err, FACET_ERR_ARG, "n_drafters is %d, wanted 0 to 2", p->n_drafters);
    if (p->draft_ctx < 0 || p->draft_ctx > 1 << 24)
        return error_set(err, FACET_ERR_ARG, "draft_ctx is %d, wanted 0 to %d", p->draft_ctx, 1 << 24);
    if (!(p->tree_temp >= 1e-3f && p->tree_temp <= 1e3f))
        return error_set(err, FACET_ERR_ARG, "tree_temp is %g, wanted 0.001 to 1000", (double)p->tree_temp);
    return parse_mask(p, &mask, err);
}

static facet_status open_dflash(facet_engine *e, const facet_engine_params *p, facet_error *err)
{
    dflash_options o = {.top_k = ENGINE_TOP_K, .temp = p->tree_temp};
    FACET_TRY(parse_mask(p, &o.mask, err));
    const int block = e->dflash->dflash.block_size;
    e->dflash_inject = (engine_plan){.max_rows = ENGINE_MAX_ROWS, .max_out = 1};
    e->dflash_block = (engine_plan){.max_rows = block, .max_out = block};
    FACET_TRY(dflash_inject_plan(e->dflash, e->model, &e->dflash_inject.plan, err));
    return dflash_block_plan(e->dflash, e->model, &o, &e->dflash_block.plan, err);
}

facet_status engine_draft_open(facet_engine *e, const facet_engine_params *p, facet_error *err)
{
    const mtp_options o = {.top_k = MTP_TOP_K};
    /* one row is run; the others keep what the steps of a chain gave */
    e->mtp_step = (engine_plan){.max_rows = ENGINE_MTP_MAX, .max_out = ENGINE_MTP_MAX};
    if (e->mtp) FACET_TRY(mtp_plan(e->mtp, e->model, &o, &e->mtp_step.plan, err));
    if (e->dflash) FACET_TRY(open_dflash(e, p, err));
    return FACET_OK;
}

static facet_status compile(facet_engine *e, engine_plan *p, facet_error *err)
{
    return e->be->ops->compile(e->be, p->plan, p->max_rows, p->max_out, &p->compiled, err);
}

facet_status engine_draft_compile(facet_engine *e, unsigned part, facet_error *err)
{
    if (part == PARK_MTP) return e->mtp ? compile(e, &e->mtp_step, err) : FACET_OK;
    if (!e->dflash) return FACET_OK;
    FACET_TRY(compile(e, &e->dflash_inject, err));
    return compile(e, &e->dflash_block, err);
}

static void release(facet_engine *e, engine_plan *p)
{
    if (p->compiled) e->be->ops->release(e->be, p->compiled);
    p->compiled = NULL;
}

void engine_draft_release(facet_engine *e, unsigned parts)
{
    if (parts & PARK_MTP) release(e, &e->mtp_step);
    if (!(parts & PARK_DFLASH)) return;
    release(e, &e->dflash_inject);
    release(e, &e->dflash_block);
}

void engine_draft_close(facet_engine *e)
{
    plan_free(e->mtp_step.plan);
    plan_free(e->dflash_inject.plan);
    plan_free(e->dflash_block.plan);
}

/* ---- MTP ---- */

/* Row `src_row` of a value to row `dst_row` of another of the same plan. */
static facet_status pass_on(facet_engine *e, const engine_plan *p, int src, int width, int dst, int dst_row,
                            facet_error *err)
{
    const row_copy c = {.src = p->compiled,
                        .src_value = src,
                        .dst = p->compiled,
                        .dst_value = dst,
                        .dst_row = dst_row,
                        .n = 1,
                        .width = (uint32_t)width};
    return e->be->ops->copy_rows(e->be, &c, err);
}

static facet_status start_chain(facet_engine *e, const draft_chain *c, facet_error *err)
{
    const engine_plan *p = &e->mtp_step;
    const int32_t row = c->out_row;
    const row_copy hidden = {.src = e->compiled,
                             .src_value = e->plan->v_hidden,
                             .src_rows = &row,
                             .dst = p->compiled,
                             .dst_value = p->plan->v_in_hidden,
                             .n = 1};
    FACET_TRY(e->be->ops->copy_rows(e->be, &hidden, err));
    return e->be->ops->write(e->be, p->compiled, p->plan->v_in_token, 0, 1, &c->pending, err);
}

/* Probability of the best token among the ten best. */
static double share_of_best(const float *logp)
{
    double sum = 0;
    for (int i = 0; i < MTP_TOP_K; i++) sum += exp((double)(logp[i] - logp[0]));
    return 1 / sum;
}

/* True when the chain goes on after step j, whose result was just kept. Asks the device only when p_min wants it. */
static facet_status is_sure(facet_engine *e, int j, float p_min, bool *out, facet_error *err)
{
    float logp[MTP_TOP_K];
    *out = true;
    if (p_min <= 0) return FACET_OK;
    const engine_plan *p = &e->mtp_step;
    FACET_TRY(e->be->ops->read(e->be, p->compiled, p->plan->v_kept_logp, j, 1, logp, err));
    *out = share_of_best(logp) >= (double)p_min;
    return FACET_OK;
}

static facet_status read_chain(facet_engine *e, int n, draft_rows *out, facet_error *err)
{
    const engine_plan *p = &e->mtp_step;
    int32_t ids[ENGINE_MTP_MAX * MTP_TOP_K];
    float logp[ENGINE_MTP_MAX * MTP_TOP_K];
    out->n = n;
    out->n_top = MTP_TOP_K;
    if (n == 0) return FACET_OK;
    FACET_TRY(e->be->ops->read(e->be, p->compiled, p->plan->v_kept_ids, 0, n, ids, err));
    FACET_TRY(e->be->ops->read(e->be, p->compiled, p->plan->v_kept_logp, 0, n, logp, err));
    for (int j = 0; j < n; j++)
        for (int i = 0; i < MTP_TOP_K; i++) {
            out->token[j][i] = ids[j * MTP_TOP_K + i];
            out->logp[j][i] = logp[j * MTP_TOP_K + i];
        }
    for (int j = 0; j < n; j++) /* a drafter's numbers went wrong: nothing to propose from there on */
        if (out->token[j][0] < 0) out->n = out->n < j ? out->n : j;
    return FACET_OK;
}

static int32_t query_pos(const draft_chain *c, int step)
{
    return c->base + (c->pos == FACET_MTP_POS_INCR ? step : c->pos == FACET_MTP_POS_CONST_BEFORE ? -1 : 0);
}

facet_status engine_draft_mtp(facet_engine *e, const kv_seq *s, const draft_chain *c, draft_rows *out, facet_error *err)
{
    const engine_plan *p = &e->mtp_step;
    const batch_seq view = engine_view(e, s, c->base, c->base);
    const int32_t seq = 0, row = 0;
    int32_t pos;
    const batch in = {.n_rows = 1,
                      .token = &c->pending,
                      .pos = &pos,
                      .slot = &pos,
                      .seq = &seq,
                      .n_seqs = 1,
                      .seqs = &view,
                      .n_out = 1,
                      .out_row = &row};
    bool goes_on = true;
    int n = 0;
    FACET_TRY(start_chain(e, c, err));
    while (n < c->k) {
        pos = query_pos(c, n);
        FACET_TRY(e->be->ops->run(e->be, p->compiled, &in, err));
        FACET_TRY(pass_on(e, p, p->plan->v_top_ids, 0, p->plan->v_kept_ids, n, err));
        FACET_TRY(pass_on(e, p, p->plan->v_top_logp, 0, p->plan->v_kept_logp, n, err));
        FACET_TRY(is_sure(e, n, c->p_min, &goes_on, err));
        if (!goes_on) break;
        if (++n == c->k) break;
        FACET_TRY(pass_on(e, p, p->plan->v_top_ids, 1, p->plan->v_in_token, 0, err));
        FACET_TRY(pass_on(e, p, p->plan->v_hidden, 0, p->plan->v_in_hidden, 0, err));
    }
    return read_chain(e, n, out, err);
}

/* ---- DFlash ---- */

facet_status engine_draft_block(facet_engine *e, kv_seq *s, const draft_block *b, draft_rows *out, facet_error *err)
{
    enum { MAX_BLOCK = DRAFT_TREE_MAX_ROWS };
    const engine_plan *p = &e->dflash_block;
    const int k = b->k, n = k + 1;
    const int32_t base = b->base;
    int32_t token[MAX_BLOCK], pos[MAX_BLOCK], seq[MAX_BLOCK] = {0}, wanted[MAX_BLOCK];
    int32_t ids[MAX_BLOCK * ENGINE_TOP_K];
    float logp[MAX_BLOCK * ENGINE_TOP_K];
    int n_copies = 0;
    for (int i = 0; i < n; i++) {
        token[i] = i ? e->dflash->dflash.mask_token : b->pending;
        pos[i] = base + i;
        wanted[i] = i + 1;
    }
    FACET_TRY(engine_reserve(e, s, base, base + n, &n_copies, err));
    batch_seq view = engine_view(e, s, base, base + n);
    view.begin = b->begin;
    const batch in = {.n_rows = n,
                      .token = token,
                      .pos = pos,
                      .slot = pos,
                      .seq = seq,
                      .n_seqs = 1,
                      .seqs = &view,
                      .n_out = k,
                      .out_row = wanted,
                      .n_copies = n_copies,
                      .copies = e->copies};
    const facet_status status = e->be->ops->run(e->be, p->compiled, &in, err);
    if (status != FACET_OK) kv_seq_undo_copies(e->pool, s, e->copies, n_copies);
    FACET_TRY(status);
    FACET_TRY(e->be->ops->read(e->be, p->compiled, p->plan->v_top_ids, 0, k, ids, err));
    FACET_TRY(e->be->ops->read(e->be, p->compiled, p->plan->v_top_logp, 0, k, logp, err));
    out->n = 0;
    out->n_top = ENGINE_TOP_K;
    for (int j = 0; j < k && ids[j * ENGINE_TOP_K] >= 0; j++, out->n++)
        for (int i = 0; i < ENGINE_TOP_K; i++) {
            out->token[j][i] = ids[j * ENGINE_TOP_K + i];
            out->logp[j][i] = logp[j * ENGINE_TOP_K + i];
        }
    return FACET_OK;
}

facet_status engine_draft_features(facet_engine *e, int row, float *out, facet_error *err)
{
    for (int t = 0; t < e->dflash->dflash.n_taps; t++, out += e->model->h.n_embd)
        FACET_TRY(e->be->ops->read(e->be, e->compiled, e->tap_value[t], row, 1, out, err));
    return FACET_OK;
}

facet_status engine_draft_put_features(facet_engine *e, int at, int n, const float *features, facet_error *err)
{
    const engine_plan *p = &e->dflash_inject;
    return e->be->ops->write(e->be, p->compiled, p->plan->v_in_hidden, at, n, features, err);
}

facet_status engine_draft_take_features(facet_engine *e, const kv_seq *s, int n, int32_t start, facet_error *err)
{
    for (int i = 0; i < n; i++) {
        e->pos[i] = e->slot[i] = start + i;
        e->token[i] = e->seq[i] = 0;
    }
    const batch_seq view = engine_view(e, s, start, start + n);
    const batch in = {
        .n_rows = n, .token = e->token, .pos = e->pos, .slot = e->slot, .seq = e->seq, .n_seqs = 1, .seqs = &view};
    return e->be->ops->run(e->be, e->dflash_inject.compiled, &in, err);
}

facet_status engine_draft_inject(facet_engine *e, const kv_seq *s, const int32_t *rows, int n, int32_t start,
                                 facet_error *err)
{
    const engine_plan *p = &e->dflash_inject;
    const uint32_t n_embd = e->model->h.n_embd;
    for (int t = 0; t < e->dflash->dflash.n_taps; t++) {
        const row_copy c = {.src = e->compiled,
                            .src_value = e->tap_value[t],
                            .src_rows = rows,
                            .dst = p->compiled,
                            .dst_value = p->plan->v_in_hidden,
                            .dst_column = (uint32_t)t * n_embd,
                            .n = n};
        FACET_TRY(e->be->ops->copy_rows(e->be, &c, err));
    }
    return engine_draft_take_features(e, s, n, start, err);
}
