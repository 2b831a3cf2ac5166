#include "decode/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"

typedef struct candidate {
    float logit;
    int32_t token;
} candidate;

struct sampler {
    facet_sampling p;
    facet_logit_bias *bias;
    int32_t n_vocab;
    candidate *list;
    double *weight;
    int32_t *count; /* occurrences in the history window, per token */
};

facet_sampling facet_sampling_default(void)
{
    return (facet_sampling){
        .struct_size = sizeof(facet_sampling), .top_p = 1, .repeat_penalty = 1, .penalty_last_n = 64};
}

/* With these bounds finite logits stay finite, so that one which is not speaks of the model's file. A bias of -inf is
 * fine: it excludes the token. */
#define MAX_PENALTY 1e6f
#define MAX_BIAS 1e9f

static facet_status check_range(const char *name, float v, float min, float max, facet_error *err)
{
    if (v >= min && v <= max) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "%s %g: wanted %g to %g", name, (double)v, (double)min, (double)max);
}

static facet_status check(const facet_sampling *p, int32_t n_vocab, facet_error *err)
{
    if (p->struct_size != sizeof *p)
        return error_set(err, FACET_ERR_ARG, "facet_sampling.struct_size is %zu, this library wants %zu",
                         p->struct_size, sizeof *p);
    if (!(p->temperature >= 0) || !isfinite(p->temperature))
        return error_set(err, FACET_ERR_ARG, "temperature %g: wanted 0 or more", (double)p->temperature);
    if (p->top_k < 0) return error_set(err, FACET_ERR_ARG, "top-k %d: wanted 0 or more", p->top_k);
    if (!(p->top_p > 0 && p->top_p <= 1))
        return error_set(err, FACET_ERR_ARG, "top-p %g: wanted above 0, at most 1", (double)p->top_p);
    if (!(p->min_p >= 0 && p->min_p <= 1))
        return error_set(err, FACET_ERR_ARG, "min-p %g: wanted 0 to 1", (double)p->min_p);
    FACET_TRY(check_range("repeat penalty", p->repeat_penalty, 1 / MAX_PENALTY, MAX_PENALTY, err));
    FACET_TRY(check_range("presence penalty", p->presence_penalty, -MAX_PENALTY, MAX_PENALTY, err));
    FACET_TRY(check_range("frequency penalty", p->frequency_penalty, -MAX_PENALTY, MAX_PENALTY, err));
    for (size_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].token < 0 || p->bias[i].token >= n_vocab || !(p->bias[i].bias <= MAX_BIAS))
            return error_set(err, FACET_ERR_ARG,
                             "logit bias for token %d: %g: wanted a token below %d and a bias of at most %g",
                             p->bias[i].token, (double)p->bias[i].bias, n_vocab, (double)MAX_BIAS);
    return FACET_OK;
}

facet_status sampler_open(const facet_sampling *p, int32_t n_vocab, sampler **out, facet_error *err)
{
    FACET_TRY(check(p, n_vocab, err));
    const size_t n = (size_t)n_vocab;
    sampler *s = mem_calloc(1, sizeof *s);
    if (!s) return error_memory(err, "a sampler", sizeof *s);
    s->p = *p;
    s->n_vocab = n_vocab;
    s->list = mem_calloc(n, sizeof *s->list);
    s->weight = mem_calloc(n, sizeof *s->weight);
    s->count = mem_calloc(n, sizeof *s->count);
    s->bias = mem_calloc(p->n_bias, sizeof *s->bias);
    if (!s->list || !s->weight || !s->count || !s->bias) {
        sampler_close(s);
        return error_memory(err, "a sampler", n * sizeof(candidate));
    }
    if (p->n_bias) memcpy(s->bias, p->bias, p->n_bias * sizeof *s->bias);
    *out = s;
    return FACET_OK;
}

void sampler_close(sampler *s)
{
    if (!s) return;
    mem_free(s->list);
    mem_free(s->weight);
    mem_free(s->count);
    mem_free(s->bias);
    mem_free(s);
}

static bool has_penalty(const facet_sampling *p)
{
    return (p->repeat_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0) && p->penalty_last_n != 0;
}

bool sampler_is_argmax(const sampler *s)
{
    return s->p.temperature == 0 && !has_penalty(&s->p) && !s->p.n_bias;
}

/* Keskar et al. 2019 (arXiv:1909.05858) for the repetition penalty; presence and frequency as in the OpenAI API. */
static void penalise(sampler *s, float *logits, const int32_t *history, size_t n)
{
    const size_t window = s->p.penalty_last_n < 0 || (size_t)s->p.penalty_last_n > n ? n : (size_t)s->p.penalty_last_n;
    const int32_t *recent = history + (n - window);
    for (size_t i = 0; i < window; i++) s->count[recent[i]]++;
    for (size_t i = 0; i < window; i++) {
        const int32_t t = recent[i], c = s->count[t];
        if (!c) continue;
        s->count[t] = 0;
        logits[t] = logits[t] > 0 ? logits[t] / s->p.repeat_penalty : logits[t] * s->p.repeat_penalty;
        logits[t] -= s->p.presence_penalty + (float)c * s->p.frequency_penalty;
    }
}

static int by_logit(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* Moves the k largest to the front, unordered (Hoare 1961, Algorithm 65). The pivot is never the last element, so both
 * sides of a partition are smaller than the whole. */
static void select_largest(candidate *c, size_t n, size_t k)
{
    for (size_t lo = 0, hi = n; k > lo && k < hi;) {
        const candidate pivot = c[lo + (hi - lo - 1) / 2];
        size_t i = lo, j = hi - 1;
        for (;;) {
            while (by_logit(&c[i], &pivot) < 0) i++;
            while (by_logit(&pivot, &c[j]) < 0) j--;
            if (i >= j) break;
            const candidate t = c[i];
            c[i++] = c[j];
            c[j--] = t;
        }
        if (k <= j + 1)
            hi = j + 1;
        else
            lo = j + 1;
    }
}

/* Candidates that survive top-k, sorted by falling logit. */
static size_t shortlist(sampler *s, const float *logits)
{
    size_t n = 0;
    for (int32_t t = 0; t < s->n_vocab; t++)
        if (logits[t] > -INFINITY) s->list[n++] = (candidate){logits[t], t};
    size_t k = s->p.top_k && (size_t)s->p.top_k < n ? (size_t)s->p.top_k : n;
    if (k < n) select_largest(s->list, n, k);
    qsort(s->list, k, sizeof *s->list, by_logit);
    return k;
}

/* Weights e^((logit - max) / T); cuts by min-p and top-p. Returns how many stay; *total is the sum of their weights. */
static size_t weigh(sampler *s, size_t n, double *total)
{
    double sum = 0, kept = 0;
    size_t stay = 0;
    for (size_t i = 0; i < n; i++) {
        s->weight[i] = exp(((double)s->list[i].logit - (double)s->list[0].logit) / (double)s->p.temperature);
        if (i && s->weight[i] < (double)s->p.min_p) break;
        sum += s->weight[i];
        stay++;
    }
    for (n = stay, stay = 0; stay < n;) {
        kept += s->weight[stay++];
        if (kept >= (double)s->p.top_p * sum) break;
    }
    *total = kept;
    return stay;
}

facet_status sampler_pick(sampler *s, float *logits, const int32_t *history, size_t n_history, int32_t *out,
                          facet_error *err)
{
    for (size_t i = 0; i < s->p.n_bias; i++) logits[s->bias[i].token] += s->bias[i].bias;
    if (has_penalty(&s->p)) penalise(s, logits, history, n_history);
    int32_t best = -1;
    for (int32_t t = 0; t < s->n_vocab; t++) {
        if (!(logits[t] < INFINITY))
            return error_set(err, FACET_ERR_NUMERIC, "non-finite logit of token %d: the model file may be damaged", t);
        if (logits[t] > -INFINITY && (best < 0 || logits[t] > logits[best])) best = t;
    }
    if (best < 0) return error_set(err, FACET_ERR_NUMERIC, "every token is excluded by logit bias or the grammar");
    if (s->p.temperature == 0) {
        *out = best;
        return FACET_OK;
    }
    double total;
    const size_t n = weigh(s, shortlist(s, logits), &total);
    double u = rng_uniform_at(s->p.seed, (int64_t)n_history, 0) * total;
    size_t i = 0;
    while (i + 1 < n && u >= s->weight[i]) u -= s->weight[i++];
    *out = s->list[i].token;
    return FACET_OK;
}
