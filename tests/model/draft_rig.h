/* draft_rig.h: a target and a drafter driven by hand, for test_drafters.c: one sequence, greedy. */
#ifndef FACET_TEST_DRAFT_RIG_H
#define FACET_TEST_DRAFT_RIG_H

#include "testing.h"

#include "base/mem.h"
#include "compute/backend.h"
#include "model/dflash.h"
#include "model/mtp.h"

enum { RIG_MAX_ROWS = 512, RIG_MAX_OUT = 64, RIG_MAX_CHAIN = 16, RIG_CTX = 8192, RIG_TOP_K = MTP_TOP_K };

/* A rig of zeros takes its defaults: device cpu, caches f16, draft context 4096, the file's block mask. */
typedef struct rig_options {
    const char *device;
    int n_threads;
    kv_type cache;
    int draft_ctx;
    block_mask mask;
    bool wants_logits, dense_head;
    void (*spoil_drafter)(drafter *d); /* before the plans are made */
    void (*spoil_plan)(plan *p);       /* the drafter's plan, before it is compiled */
} rig_options;

typedef struct rig {
    facet_model *m;
    drafter *d;
    backend *be;
    weight *list;
    kv_desc kv;
    kv_pool *pool;
    kv_seq seq;
    plan *target, *inject, *draft; /* draft: an MTP step or a DFlash block */
    compiled *target_c, *inject_c, *draft_c;
    int32_t n;       /* committed positions, C */
    int32_t pending; /* the token that follows them */
    int hidden_row;  /* wanted row of the last target run whose logits gave it */
} rig;

static inline void rig_plans(rig *r, const rig_options *o)
{
    facet_error err;
    int n_suppress;
    const int32_t *suppress = tokenizer_suppressed(r->m->tok, &n_suppress);
    gemma4_options g = {.wants_hidden = true};
    if (r->d->kind == DRAFTER_DFLASH) {
        g.n_captures = r->d->dflash.n_taps;
        memcpy(g.capture_layer, r->d->dflash.tap, sizeof g.capture_layer);
    }
    assert_ok(gemma4_plan(&r->m->h, &r->m->w, &g, suppress, n_suppress, &r->target, &err), err);
    if (r->d->kind == DRAFTER_MTP) {
        const mtp_options p = {.top_k = RIG_TOP_K, .wants_logits = o->wants_logits, .dense_head = o->dense_head};
        assert_ok(mtp_plan(r->d, r->m, &p, &r->draft, &err), err);
        return;
    }
    const dflash_options p = {.mask = o->mask, .top_k = RIG_TOP_K, .temp = 1, .wants_logits = o->wants_logits};
    assert_ok(dflash_inject_plan(r->d, r->m, &r->inject, &err), err);
    assert_ok(dflash_block_plan(r->d, r->m, &p, &r->draft, &err), err);
}

static inline void rig_compile(rig *r, const plan *p, compiled **out)
{
    facet_error err;
    assert_ok(r->be->ops->compile(r->be, p, RIG_MAX_ROWS, RIG_MAX_OUT, out, &err), err);
}

static inline rig rig_open(const char *target, const char *draft, const rig_options *options)
{
    const rig_options none = {0}, *o = options ? options : &none;
    rig r = {0};
    facet_error err;
    int n;
    assert_non_null(target);
    assert_non_null(draft);
    assert_ok(facet_model_open(target, &r.m, &err), err);
    assert_ok(drafter_open(draft, r.m, &r.d, &err), err);
    const backend_config cfg = {.n_threads = o->n_threads};
    if (o->spoil_drafter) o->spoil_drafter(r.d);
    assert_ok(backend_open(o->device ? o->device : "cpu", &cfg, &r.be, &err), err);
    assert_ok(gemma4_kv_desc(&r.m->h, o->cache, o->cache, &r.kv, &err), err);
    assert_ok(drafter_extend_kv(r.d, &r.m->h, o->cache, o->cache, o->draft_ctx ? o->draft_ctx : DRAFT_CTX_DEFAULT,
                                &r.kv, &err),
              err);
    for (int g = 0; g < r.kv.n_groups; g++)
        r.kv.groups[g].n_pages = kv_pages_needed(r.kv.groups[g].window, RIG_CTX, RIG_MAX_ROWS);
    assert_ok(kv_pool_open(&r.kv, &r.pool, &err), err);
    assert_ok(drafter_join_weights(r.m, &r.d, 1, &r.list, &n, &err), err);
    rig_plans(&r, o);
    if (o->spoil_plan) o->spoil_plan(r.draft);
    assert_ok(r.be->ops->load(r.be, r.list, n, &err), err);
    assert_ok(r.be->ops->kv_alloc(r.be, &r.kv, &err), err);
    rig_compile(&r, r.target, &r.target_c);
    rig_compile(&r, r.draft, &r.draft_c);
    if (r.inject) rig_compile(&r, r.inject, &r.inject_c);
    return r;
}

static inline void rig_reset(rig *r)
{
    kv_seq_free(r->pool, &r->seq);
    r->n = 0;
}

static inline void rig_close(rig *r)
{
    rig_reset(r);
    for (int g = 0; g < r->kv.n_groups; g++) assert_int_equal(kv_pool_free_pages(r->pool, g), r->kv.groups[g].n_pages);
    r->be->ops->release(r->be, r->target_c);
    r->be->ops->release(r->be, r->draft_c);
    r->be->ops->release(r->be, r->inject_c);
    r->be->ops->close(r->be);
    plan_free(r->target);
    plan_free(r->draft);
    plan_free(r->inject);
    kv_pool_close(r->pool);
    mem_free(r->kv.layers);
    mem_free(r->list);
    drafter_close(r->d);
    facet_model_close(r->m);
}

static inline void rig_read(rig *r, compiled *c, int value, int row, int n, void *out)
{
    facet_error err;
    assert_ok(r->be->ops->read(r->be, c, value, row, n, out, &err), err);
}

/* One run of a plan over rows at positions pos, pos + 1, ... (all at `pos` when is_same). Slots are reserved. */
static inline void rig_run(rig *r, compiled *c, const int32_t *tokens, int32_t pos, int n, int first_out, bool is_same)
{
    facet_error err;
    int32_t p[RIG_MAX_ROWS], seq[RIG_MAX_ROWS] = {0}, out[RIG_MAX_OUT];
    kv_copy copies[KV_MAX_GROUPS * (RIG_MAX_ROWS / KV_PAGE_LEN + 4)];
    int n_copies = 0;
    for (int i = 0; i < n; i++) p[i] = is_same ? pos : pos + i;
    for (int i = first_out; i < n; i++) out[i - first_out] = i;
    assert_ok(kv_seq_reserve(r->pool, &r->seq, pos, pos + n, copies, &n_copies, &err), err);
    batch_seq view = {.base = pos, .end = pos + n};
    for (int g = 0; g < r->kv.n_groups; g++) view.table[g] = r->seq.table[g];
    const batch b = {.n_rows = n,
                     .token = tokens,
                     .pos = p,
                     .slot = p,
                     .seq = seq,
                     .n_seqs = 1,
                     .seqs = &view,
                     .n_out = n - first_out,
                     .out_row = out,
                     .n_copies = n_copies,
                     .copies = copies};
    assert_ok(r->be->ops->run(r->be, c, &b, &err), err);
}

static inline void rig_copy(rig *r, compiled *src, int src_value, int src_row, compiled *dst, int dst_value,
                            int dst_row, uint32_t dst_column, int n, uint32_t width)
{
    facet_error err;
    int32_t rows[RIG_MAX_ROWS];
    for (int i = 0; i < n; i++) rows[i] = src_row + i;
    const row_copy c = {.src = src,
                        .src_value = src_value,
                        .src_rows = rows,
                        .dst = dst,
                        .dst_value = dst_value,
                        .dst_row = dst_row,
                        .dst_column = dst_column,
                        .n = n,
                        .width = width};
    assert_ok(r->be->ops->copy_rows(r->be, &c, &err), err);
}

/* Rows [row, row + n) of the last target run, which stand at positions pos .., enter the drafter's context. */
static inline void rig_inject(rig *r, int row, int n, int32_t pos)
{
    if (!r->inject) return;
    static const int32_t none[RIG_MAX_ROWS];
    for (int i = 0; i < r->target->n_captures; i++)
        rig_copy(r, r->target_c, r->target->v_capture[i], row, r->inject_c, r->inject->v_in_hidden, 0,
                 (uint32_t)i * r->m->h.n_embd, n, 0);
    rig_run(r, r->inject_c, none, pos, n, n, false);
}

static inline void rig_prefill(rig *r, const int32_t *tokens, int n, int chunk)
{
    for (int at = 0; at < n; at += chunk) {
        const int rows = n - at < chunk ? n - at : chunk;
        rig_run(r, r->target_c, tokens + at, r->n, rows, rows - 1, false);
        rig_inject(r, 0, rows, r->n);
        r->n += rows;
        kv_seq_release_window(r->pool, &r->seq, r->n - 1);
    }
    rig_read(r, r->target_c, r->target->v_argmax, 0, 1, &r->pending);
    r->hidden_row = 0;
}

typedef enum pos_mode { POS_CONST, POS_CONST_BEFORE, POS_INCR } pos_mode;

/* A chain without a way through host memory until its end: ids and log-probabilities [n][RIG_TOP_K] of its steps. */
static inline void rig_chain(rig *r, int n, pos_mode mode, int32_t *ids, float *logp)
{
    facet_error err;
    plan *p = r->draft;
    compiled *c = r->draft_c;
    static const int32_t none[1];
    assert_ok(r->be->ops->write(r->be, c, p->v_in_token, 0, 1, &r->pending, &err), err);
    rig_copy(r, r->target_c, r->target->v_hidden, r->hidden_row, c, p->v_in_hidden, 0, 0, 1, 0);
    for (int j = 0; j < n; j++) {
        const int32_t pos = r->n + (mode == POS_INCR ? j : mode == POS_CONST_BEFORE ? -1 : 0), seq = 0;
        batch_seq view = {.base = r->n};
        for (int g = 0; g < r->kv.n_groups; g++) view.table[g] = r->seq.table[g];
        const batch b = {
            .n_rows = 1, .token = none, .pos = &pos, .slot = &pos, .seq = &seq, .n_seqs = 1, .seqs = &view};
        assert_ok(r->be->ops->run(r->be, c, &b, &err), err);
        rig_copy(r, c, p->v_top_ids, 0, c, p->v_kept_ids, j, 0, 1, 0);
        rig_copy(r, c, p->v_top_logp, 0, c, p->v_kept_logp, j, 0, 1, 0);
        rig_copy(r, c, p->v_top_ids, 0, c, p->v_in_token, 0, 0, 1, 1);
        rig_copy(r, c, p->v_hidden, 0, c, p->v_in_hidden, 0, 0, 1, 0);
    }
    rig_read(r, c, p->v_kept_ids, 0, n, ids);
    rig_read(r, c, p->v_kept_logp, 0, n, logp);
}

/* A block of 1 + n rows. */
static inline void rig_block(rig *r, int n, int32_t *ids, float *logp)
{
    int32_t tokens[RIG_MAX_OUT] = {r->pending};
    for (int i = 1; i <= n; i++) tokens[i] = r->d->dflash.mask_token;
    rig_run(r, r->draft_c, tokens, r->n, 1 + n, 1, false);
    rig_read(r, r->draft_c, r->draft->v_top_ids, 0, n, ids);
    rig_read(r, r->draft_c, r->draft->v_top_logp, 0, n, logp);
}

static inline void rig_draft(rig *r, int n, pos_mode mode, int32_t *ids, float *logp)
{
    if (r->d->kind == DRAFTER_MTP)
        rig_chain(r, n, mode, ids, logp);
    else
        rig_block(r, n, ids, logp);
}

/* Runs the target over the pending token and the drafts; returns how many drafts it agrees with. answer[i]: its token
 * after row i. Nothing is committed. */
static inline int rig_verify(rig *r, const int32_t *draft, int n, int32_t *answer)
{
    int32_t tokens[RIG_MAX_OUT] = {r->pending};
    memcpy(tokens + 1, draft, (size_t)n * sizeof *tokens);
    rig_run(r, r->target_c, tokens, r->n, 1 + n, 0, false);
    rig_read(r, r->target_c, r->target->v_argmax, 0, 1 + n, answer);
    int accepted = 0;
    while (accepted < n && draft[accepted] == answer[accepted]) accepted++;
    return accepted;
}

/* Commits the first n rows of the last verification. */
static inline void rig_commit(rig *r, int n, const int32_t *answer)
{
    rig_inject(r, 0, n, r->n);
    r->n += n;
    r->pending = answer[n - 1];
    r->hidden_row = n - 1;
    kv_seq_release_window(r->pool, &r->seq, r->n - 1);
}

#endif
