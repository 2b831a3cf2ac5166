#include "decode/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "decode/logits.h"

/* Mean and sum of squared deviations of a stream (Welford). */
typedef struct moments {
    size_t n;
    double mean, m2;
} moments;

static void moments_add(moments *m, double x)
{
    const double d = x - m->mean;
    m->mean += d / (double)++m->n;
    m->m2 += d * (x - m->mean);
}

/* Standard error of the mean. */
static double moments_error(const moments *m)
{
    return m->n > 1 ? sqrt(m->m2 / (double)m->n / (double)(m->n - 1)) : 0;
}

double score_log_sum_exp(const float *x, size_t n)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        if (!(x[i] <= max)) max = x[i]; /* a NaN gets in, or into the sum */
    if (!isfinite(max)) return max;
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - max);
    return max + log(sum);
}

static size_t argmax(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* The chunk that is being scored. */
typedef struct chunk {
    const score_params *p;
    int32_t *tokens; /* [n_ctx], owned */
    size_t index, n_chunks;
} chunk;

static size_t first_scored(const score_params *p)
{
    return p->n_ctx / 2;
}

static facet_status chunk_open(const score_params *p, chunk *c, facet_error *err)
{
    *c = (chunk){.p = p};
    if (p->n_ctx < SCORE_MIN_CTX)
        return error_set(err, FACET_ERR_ARG, "chunks of %zu tokens: wanted at least %d", p->n_ctx, SCORE_MIN_CTX);
    if (p->n_tokens < p->n_ctx)
        return error_set(err, FACET_ERR_ARG,
                         "%zu tokens of text: a chunk has %zu; give a longer text or a smaller context (-c)",
                         p->n_tokens, p->n_ctx);
    c->n_chunks = p->n_tokens / p->n_ctx;
    if (p->max_chunks && p->max_chunks < c->n_chunks) c->n_chunks = p->max_chunks;
    c->tokens = mem_calloc(p->n_ctx, sizeof *c->tokens);
    return c->tokens ? FACET_OK : error_memory(err, "a chunk of text", p->n_ctx * sizeof *c->tokens);
}

static facet_status chunk_load(chunk *c, size_t index, const facet_model *m, facet_error *err)
{
    const score_params *p = c->p;
    if (p->progress && !p->progress(p->progress_ud, "score", index, c->n_chunks))
        return error_set(err, FACET_ERR_CANCELLED, "cancelled");
    c->index = index;
    memcpy(c->tokens, p->tokens + index * p->n_ctx, p->n_ctx * sizeof *c->tokens);
    const int32_t bos = tokenizer_special(m->tok)->bos;
    if (bos >= 0) c->tokens[0] = bos;
    for (size_t i = 0; i < p->n_ctx; i++)
        if (c->tokens[i] < 0 || c->tokens[i] >= (int32_t)m->h.n_vocab)
            return error_set(err, FACET_ERR_ARG, "chunk %zu, position %zu: token %d: the vocabulary has %u entries",
                             index, i, c->tokens[i], m->h.n_vocab);
    return FACET_OK;
}

/* -log p(token) of a row whose log-sum-exp is given. */
static facet_status row_nll(const chunk *c, size_t pos, const float *logits, double log_sum, double *out,
                            facet_error *err)
{
    const int32_t token = c->tokens[pos + 1];
    if (!isfinite(log_sum))
        return error_set(err, FACET_ERR_NUMERIC,
                         "chunk %zu, position %zu: non-finite logits: the model file may be damaged", c->index, pos);
    *out = log_sum - (double)logits[token];
    if (!isfinite(*out))
        return error_set(err, FACET_ERR_NUMERIC, "chunk %zu, position %zu: the next token, %d, has probability 0",
                         c->index, pos, token);
    return FACET_OK;
}

static facet_status ppl_chunk(logits_reader *r, const chunk *c, moments *nll, facet_error *err)
{
    const size_t n_vocab = r->engine->model->h.n_vocab, n = c->p->n_ctx - 1; /* nothing follows the last token */
    size_t pos = first_scored(c->p), n_rows;
    const float *rows;
    FACET_TRY(logits_start(r, c->tokens, n, pos, err));
    for (;;) {
        FACET_TRY(logits_next(r, &rows, &n_rows, err));
        if (!n_rows) return FACET_OK;
        for (size_t i = 0; i < n_rows; i++, pos++) {
            const float *row = rows + i * n_vocab;
            double x = 0;
            FACET_TRY(row_nll(c, pos, row, score_log_sum_exp(row, n_vocab), &x, err));
            moments_add(nll, x);
        }
    }
}

facet_status score_ppl(facet_engine *e, const score_params *p, score_ppl_result *out, facet_error *err)
{
    chunk c = {0};
    logits_reader r = {0};
    moments nll = {0};
    facet_status status = chunk_open(p, &c, err);
    if (status == FACET_OK) status = logits_open(e, &r, err);
    for (size_t i = 0; i < c.n_chunks && status == FACET_OK; i++) {
        status = chunk_load(&c, i, e->model, err);
        if (status == FACET_OK) status = ppl_chunk(&r, &c, &nll, err);
    }
    logits_close(&r);
    mem_free(c.tokens);
    if (status != FACET_OK) return status;
    const double ppl = exp(nll.mean);
    *out = (score_ppl_result){.n_chunks = c.n_chunks,
                              .n_scored = nll.n,
                              .mean_nll = nll.mean,
                              .ppl = ppl,
                              .ppl_error = ppl * moments_error(&nll)};
    return FACET_OK;
}

typedef struct kl_tally {
    double *kl; /* [capacity], one per scored position, owned */
    moments kls, nll_a, nll_b, delta_p_squared;
    size_t n_same_argmax;
} kl_tally;

/* KL(a || b) of two rows with the given log-sum-exps; INFINITY where b excludes what a does not. Equal rows give
 * exactly 0; rounding may leave a nearly equal pair a hair below it, which is taken as 0. */
static double divergence(const float *a, const float *b, size_t n, double sum_a, double sum_b)
{
    double kl = 0;
    for (size_t i = 0; i < n; i++) {
        const double log_a = a[i] - sum_a;
        const double p = exp(log_a);
        if (p > 0) kl += p * (log_a - (b[i] - sum_b));
    }
    return kl < 0 ? 0 : kl;
}

static facet_status kl_row(kl_tally *t, const chunk *c, size_t pos, const float *a, const float *b, size_t n,
                           facet_error *err)
{
    const double sum_a = score_log_sum_exp(a, n), sum_b = score_log_sum_exp(b, n);
    double nll_a = 0, nll_b = 0;
    FACET_TRY(row_nll(c, pos, a, sum_a, &nll_a, err));
    FACET_TRY(row_nll(c, pos, b, sum_b, &nll_b, err));
    const double kl = divergence(a, b, n, sum_a, sum_b), delta_p = exp(-nll_b) - exp(-nll_a);
    if (!isfinite(kl))
        return error_set(err, FACET_ERR_NUMERIC,
                         "chunk %zu, position %zu: b gives probability 0 to a token that a does not", c->index, pos);
    t->kl[t->kls.n] = kl;
    moments_add(&t->kls, kl);
    moments_add(&t->nll_a, nll_a);
    moments_add(&t->nll_b, nll_b);
    moments_add(&t->delta_p_squared, delta_p * delta_p);
    t->n_same_argmax += argmax(a, n) == argmax(b, n);
    return FACET_OK;
}

static facet_status kl_chunk(logits_reader *ra, logits_reader *rb, const chunk *c, kl_tally *t, facet_error *err)
{
    const size_t n_vocab = ra->engine->model->h.n_vocab, n = c->p->n_ctx - 1;
    size_t pos = first_scored(c->p), n_rows;
    const float *a, *b;
    FACET_TRY(logits_start(ra, c->tokens, n, pos, err));
    FACET_TRY(logits_start(rb, c->tokens, n, pos, err));
    for (;;) {
        FACET_TRY(logits_next(ra, &a, &n_rows, err));
        FACET_TRY(logits_next(rb, &b, &n_rows, err)); /* the same number: it depends on positions alone */
        if (!n_rows) return FACET_OK;
        for (size_t i = 0; i < n_rows; i++, pos++)
            FACET_TRY(kl_row(t, c, pos, a + i * n_vocab, b + i * n_vocab, n_vocab, err));
    }
}

static int by_value(const void *x, const void *y)
{
    const double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double quantile(const double *sorted, size_t n, double q)
{
    const double at = q * (double)(n - 1);
    const size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static score_kl_result kl_summary(kl_tally *t, size_t n_chunks)
{
    const size_t n = t->kls.n;
    qsort(t->kl, n, sizeof *t->kl, by_value);
    return (score_kl_result){.n_chunks = n_chunks,
                             .n_scored = n,
                             .mean = t->kls.mean,
                             .mean_error = moments_error(&t->kls),
                             .median = quantile(t->kl, n, 0.5),
                             .p99 = quantile(t->kl, n, 0.99),
                             .max = t->kl[n - 1],
                             .same_argmax = (double)t->n_same_argmax / (double)n,
                             .rms_delta_p = sqrt(t->delta_p_squared.mean),
                             .ppl_a = exp(t->nll_a.mean),
                             .ppl_b = exp(t->nll_b.mean)};
}

static facet_status kl_run(facet_engine *a, facet_engine *b, chunk *c, kl_tally *t, facet_error *err)
{
    logits_reader ra = {0}, rb = {0};
    const size_t per_chunk = c->p->n_ctx - 1 - first_scored(c->p);
    t->kl = mem_calloc(c->n_chunks * per_chunk, sizeof *t->kl);
    facet_status status = t->kl ? FACET_OK : error_memory(err, "divergences", c->n_chunks * per_chunk);
    if (status == FACET_OK) status = logits_open(a, &ra, err);
    if (status == FACET_OK) status = logits_open(b, &rb, err);
    for (size_t i = 0; i < c->n_chunks && status == FACET_OK; i++) {
        status = chunk_load(c, i, a->model, err);
        if (status == FACET_OK) status = kl_chunk(&ra, &rb, c, t, err);
    }
    logits_close(&ra);
    logits_close(&rb);
    return status;
}

facet_status score_kl(facet_engine *a, facet_engine *b, const score_params *p, score_kl_result *out, facet_error *err)
{
    if (a->model->h.n_vocab != b->model->h.n_vocab)
        return error_set(err, FACET_ERR_SHAPE, "vocabularies of %u and %u entries: wanted the same one",
                         a->model->h.n_vocab, b->model->h.n_vocab);
    chunk c = {0};
    kl_tally t = {0};
    facet_status status = chunk_open(p, &c, err);
    if (status == FACET_OK) status = kl_run(a, b, &c, &t, err);
    if (status == FACET_OK) *out = kl_summary(&t, c.n_chunks);
    mem_free(t.kl);
    mem_free(c.tokens);
    return status;
}
