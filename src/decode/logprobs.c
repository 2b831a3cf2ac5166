#include "decode/logprobs.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

facet_status logprobs_open(int n_top, int32_t n_vocab, logprobs **out, facet_error *err)
{
    if (n_top < 0 || n_top > FACET_MAX_LOGPROBS)
        return error_set(err, FACET_ERR_ARG, "n_logprobs is %d, wanted 0 to %d", n_top, FACET_MAX_LOGPROBS);
    logprobs *l = mem_calloc(1, sizeof *l);
    if (l) l->raw = mem_calloc((size_t)n_vocab, sizeof *l->raw);
    if (!l || !l->raw) {
        logprobs_close(l);
        return error_memory(err, "log-probabilities", (size_t)n_vocab * sizeof(float));
    }
    l->n_top = n_top;
    l->n_vocab = n_vocab;
    *out = l;
    return FACET_OK;
}

void logprobs_close(logprobs *l)
{
    if (!l) return;
    mem_free(l->raw);
    mem_free(l);
}

/* log(sum(exp(x))), the largest subtracted first so that nothing overflows. */
static double log_sum_exp(const float *x, int32_t n)
{
    float max = x[0];
    double sum = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > max) max = x[i];
    for (int32_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)max);
    return (double)max + log(sum); /* cppcheck-suppress invalidFunctionArg ; the largest adds 1 */
}

/* Into the sorted list of the best so far. */
static void insert(logprobs_choice *c, int n_top, int32_t token, float logit)
{
    int i = c->n_top;
    if (i == n_top) {
        if (i == 0 || !(logit > c->top[i - 1].logprob)) return;
        i--;
    } else {
        c->n_top++;
    }
    for (; i > 0 && logit > c->top[i - 1].logprob; i--) c->top[i] = c->top[i - 1];
    c->top[i] = (facet_logprob){token, logit};
}

void logprobs_note(logprobs *l, int i, int32_t token)
{
    logprobs_choice *c = &l->choice[i];
    const double total = log_sum_exp(l->raw, l->n_vocab);
    c->n_top = 0;
    c->logprob = (float)((double)l->raw[token] - total);
    for (int32_t t = 0; t < l->n_vocab && l->n_top; t++) insert(c, l->n_top, t, l->raw[t]);
    for (int k = 0; k < c->n_top; k++) c->top[k].logprob = (float)((double)c->top[k].logprob - total);
}
