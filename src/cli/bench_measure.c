/* bench_measure.c: prompts, tokens and steps against the clock. Tokens are random: their values do not matter. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "cli/cmd_bench.h"

int32_t bench_list_max(const bench_list *l)
{
    int32_t max = 0;
    for (int i = 0; i < l->n; i++)
        if (l->v[i] > max) max = l->v[i];
    return max;
}

int64_t bench_context(const bench_options *o)
{
    int64_t most = bench_list_max(&o->prompts);
    const int64_t widest = bench_list_max(&o->widths);
    const int64_t tokens = o->n_decode + 1 + DRAFT_TREE_MAX_ROWS; /* a speculative step goes beyond the last token */
    if (tokens > most) most = tokens;
    if (widest > most) most = widest;
    return bench_list_max(&o->depths) + most;
}

static int32_t *random_tokens(bench_run *run, int32_t n, facet_error *err)
{
    int32_t *t = mem_alloc((size_t)n * sizeof *t);
    if (!t) return error_memory(err, "tokens", (size_t)n * sizeof *t), NULL;
    for (int32_t i = 0; i < n; i++) t[i] = (int32_t)(rng_below(&run->rng, (uint32_t)facet_model_n_vocab(run->model)));
    return t;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void finish(const bench_run *run, bench_result *r, double *ms, int n_rows, int n_out)
{
    qsort(ms, (size_t)r->n_samples, sizeof *ms, by_value);
    r->median_ms = ms[r->n_samples / 2];
    r->best_ms = ms[0];
    const op_cost c =
        plan_cost(run->engine->plan, run->engine->model->w.list, &run->engine->kv, n_rows, n_out, r->depth);
    r->bytes = c.bytes;
    r->ops = c.ops;
}

facet_status bench_fill(bench_run *run, int32_t depth, facet_error *err)
{
    const int32_t n = depth - run->base->n_tokens;
    if (n <= 0) return FACET_OK;
    int32_t *tokens = random_tokens(run, n, err);
    if (!tokens) return FACET_ERR_MEMORY;
    const facet_status status = run->o->has_blank_depth ? session_append_blank(run->base, tokens, (size_t)n, err)
                                                        : session_append_prompt(run->base, tokens, (size_t)n, err);
    mem_free(tokens);
    return status;
}

facet_status bench_prefill(bench_run *run, int32_t n, bench_result *out, facet_error *err)
{
    double ms[BENCH_MAX_REPEATS];
    int32_t *tokens = random_tokens(run, n, err);
    if (!tokens) return FACET_ERR_MEMORY;
    *out = (bench_result){.kind = BENCH_PREFILL, .n = n, .depth = run->base->n_tokens, .n_samples = run->o->n_repeats};
    facet_status status = FACET_OK;
    for (int i = -1; i < out->n_samples && status == FACET_OK; i++) { /* the first is to warm up */
        facet_session *s;
        status = facet_session_fork(run->base, &s, err);
        if (status != FACET_OK) break;
        const uint64_t t0 = clock_ns();
        status = session_append_prompt(s, tokens, (size_t)n, err);
        if (i >= 0) ms[i] = (double)(clock_ns() - t0) * 1e-6;
        facet_session_close(s);
    }
    mem_free(tokens);
    if (status == FACET_OK) finish(run, out, ms, n, 1);
    return status;
}

/* n tokens one by one, the argmax read after each as plain decoding does. Samples are tokens. */
facet_status bench_decode(bench_run *run, int32_t n, bench_result *out, facet_error *err)
{
    facet_session *s;
    double *ms = mem_alloc((size_t)n * sizeof *ms);
    if (!ms) return error_memory(err, "samples", (size_t)n * sizeof *ms);
    *out = (bench_result){.kind = BENCH_DECODE, .n = n, .depth = run->base->n_tokens, .n_samples = n};
    facet_status status = facet_session_fork(run->base, &s, err);
    if (status == FACET_OK) {
        int32_t token = (int32_t)(rng_below(&run->rng, (uint32_t)facet_model_n_vocab(run->model)));
        for (int32_t i = -1; i < n && status == FACET_OK; i++) {
            const uint64_t t0 = clock_ns();
            status = session_append(s, &token, 1, err);
            if (status == FACET_OK) status = session_argmax(s, &token, err);
            if (i >= 0) ms[i] = (double)(clock_ns() - t0) * 1e-6;
        }
        facet_session_close(s);
    }
    if (status == FACET_OK) finish(run, out, ms, 1, 1);
    mem_free(ms);
    return status;
}

/* Whole steps until n tokens are made, the last of them cut. */
static facet_status speculate(bench_run *run, facet_session *s, const chooser *c, int32_t n, bench_result *out,
                              facet_error *err)
{
    speculation sp;
    int32_t pending = (int32_t)rng_below(&run->rng, (uint32_t)facet_model_n_vocab(run->model));
    FACET_TRY(session_append(s, &pending, 1, err));
    FACET_TRY(speculation_begin(&sp, s, &run->o->common.generate.speculation, NULL, err));
    FACET_TRY(verify_first(s, c, &pending, err));
    const uint64_t t0 = clock_ns();
    for (int32_t made = 0; made < n;) {
        FACET_TRY(speculation_step(&sp, c, pending, n - made + 1, err));
        const int m = sp.verdict.n_path;
        pending = sp.verdict.choice[m - 1];
        FACET_TRY(speculation_commit(&sp, m, err));
        made += m;
    }
    out->spec = sp.stats;
    speculation_end(&sp);
    out->median_ms = out->best_ms = (double)(clock_ns() - t0) * 1e-6 / (double)out->spec.committed;
    return FACET_OK;
}

facet_status bench_spec(bench_run *run, int32_t n, bench_result *out, facet_error *err)
{
    const facet_sampling greedy = facet_sampling_default();
    chooser c = {.made_up = run->o->accept.n ? &run->o->accept : NULL};
    facet_session *s;
    *out = (bench_result){.kind = BENCH_SPEC, .n = n, .depth = run->base->n_tokens, .n_samples = 1};
    FACET_TRY(sampler_open(&greedy, facet_model_n_vocab(run->model), &c.sampler, err));
    facet_status status = facet_session_fork(run->base, &s, err);
    if (status == FACET_OK) {
        status = speculate(run, s, &c, n, out, err);
        facet_session_close(s);
    }
    sampler_close(c.sampler);
    return status;
}

/* The same rows again and again: nothing is accepted. */
facet_status bench_step(bench_run *run, int32_t rows, bench_result *out, facet_error *err)
{
    double ms[BENCH_MAX_REPEATS];
    int32_t argmax[ENGINE_MAX_OUT], *tokens = random_tokens(run, rows, err);
    facet_session *s;
    facet_engine *e = run->engine;
    if (!tokens) return FACET_ERR_MEMORY;
    *out = (bench_result){.kind = BENCH_STEP, .n = rows, .depth = run->base->n_tokens, .n_samples = run->o->n_repeats};
    facet_status status = facet_session_fork(run->base, &s, err);
    if (status == FACET_OK) {
        for (int i = -1; i < out->n_samples && status == FACET_OK; i++) {
            const uint64_t t0 = clock_ns();
            status = engine_eval(e, &s->kv, tokens, out->depth, rows, rows, err);
            if (status == FACET_OK)
                status = e->be->ops->read(e->be, e->compiled, e->plan->v_argmax, 0, rows, argmax, err);
            if (i >= 0) ms[i] = (double)(clock_ns() - t0) * 1e-6;
        }
        facet_session_close(s);
    }
    mem_free(tokens);
    if (status == FACET_OK) finish(run, out, ms, rows, rows);
    return status;
}

facet_status bench_ops(bench_run *run, int32_t rows, bench_op_time *out, facet_error *err)
{
    const plan *p = run->engine->plan;
    const int n = p->n_ops, repeats = run->o->n_repeats, n_out = rows > ENGINE_MAX_OUT ? 1 : rows;
    facet_session *s = NULL;
    int32_t *tokens = random_tokens(run, rows, err);
    double *ms = mem_calloc((size_t)n * (size_t)(repeats + 1), sizeof *ms), sample[BENCH_MAX_REPEATS];
    facet_status status = FACET_OK;
    if (!tokens || !ms) status = error_memory(err, "samples", (size_t)n * sizeof *ms);
    if (status == FACET_OK) status = facet_session_fork(run->base, &s, err);
    for (int i = 0; i <= repeats && status == FACET_OK; i++)
        status = engine_eval_timed(run->engine, &s->kv, tokens, run->base->n_tokens, rows, n_out,
                                   ms + (size_t)i * (size_t)n, err);
    for (int op = 0; op < n && status == FACET_OK; op++) {
        for (int i = 0; i < repeats; i++) sample[i] = ms[(size_t)(i + 1) * (size_t)n + (size_t)op];
        qsort(sample, (size_t)repeats, sizeof *sample, by_value);
        out[op].median_ms = sample[repeats / 2];
        out[op].cost = plan_op_cost(p, run->engine->model->w.list, &run->engine->kv, &p->ops[op], rows, n_out,
                                    run->base->n_tokens);
    }
    facet_session_close(s);
    mem_free(tokens);
    mem_free(ms);
    return status;
}
