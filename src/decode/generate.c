/* generate.c: the plain decoding loop with stop tokens and stop strings. */
#define _GNU_SOURCE
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "decode/sampler.h"
#include "decode/session.h"

facet_generate_params facet_generate_params_default(void)
{
    return (facet_generate_params){.struct_size = sizeof(facet_generate_params), .n_predict = -1};
}

facet_sampling facet_sampling_of_model(const facet_model *m)
{
    facet_sampling s = facet_sampling_default();
    s.temperature = m->h.sampling_temp;
    s.top_k = m->h.sampling_top_k;
    s.top_p = m->h.sampling_top_p;
    return s;
}

typedef struct generation {
    facet_session *s;
    const facet_generate_params *p;
    sampler *sampler;
    float *logits;
    detokenizer detok;
    buf held; /* complete text that is not handed out yet: it may be the beginning of a stop string */
    int32_t n_tokens;
    bool is_stopped; /* by a stop string or by the caller */
    facet_stop why;
} generation;

static facet_status next_token(generation *g, int32_t *out, facet_error *err)
{
    if (sampler_is_argmax(g->sampler)) return session_argmax(g->s, out, err);
    FACET_TRY(facet_session_logits(g->s, g->logits, err));
    return sampler_pick(g->sampler, g->logits, g->s->tokens, (size_t)g->s->n_tokens, out, err);
}

/* Where the earliest stop string begins in the held text; *hold = bytes at its end that may begin one. */
static bool find_stop(const generation *g, size_t *at, size_t *hold)
{
    bool is_found = false;
    *hold = 0;
    for (size_t i = 0; i < g->p->n_stop; i++) {
        const char *stop = g->p->stop[i];
        const size_t n = strlen(stop);
        const char *hit = n && g->held.len ? memmem(g->held.data, g->held.len, stop, n) : NULL;
        if (hit && (!is_found || (size_t)(hit - g->held.data) < *at)) {
            *at = (size_t)(hit - g->held.data);
            is_found = true;
        }
        for (size_t k = n > 1 ? n - 1 : 0; k > *hold; k--)
            if (k <= g->held.len && memcmp(g->held.data + g->held.len - k, stop, k) == 0) *hold = k;
    }
    return is_found;
}

/* Hands text out up to a stop string, keeping what may still become one. */
static void deliver(generation *g, int32_t token, bool is_end)
{
    size_t at = 0, hold = 0, n;
    const bool is_stop = find_stop(g, &at, &hold);
    n = is_stop ? at : is_end ? g->held.len : g->held.len - hold;
    if (g->p->on_token && !g->p->on_token(g->p->ud, token, g->held.data ? g->held.data : "", n)) {
        g->is_stopped = true;
        g->why = FACET_STOP_CANCELLED;
    }
    if (is_stop) {
        g->is_stopped = true;
        g->why = FACET_STOP_STRING;
        return;
    }
    if (n) memmove(g->held.data, g->held.data + n, g->held.len - n + 1);
    g->held.len -= n;
}

static facet_status decode_loop(generation *g, facet_error *err)
{
    const tokenizer *t = g->s->engine->model->tok;
    const int32_t room = g->s->engine->n_ctx - g->s->n_tokens + 1;
    const int32_t limit = g->p->n_predict < 0 || g->p->n_predict > room ? room : g->p->n_predict;
    g->why = FACET_STOP_LIMIT;
    for (int32_t token; g->n_tokens < limit && !g->is_stopped;) {
        FACET_TRY(next_token(g, &token, err));
        if (!g->p->ignore_eos && tokenizer_is_end(t, token)) {
            g->why = FACET_STOP_EOS;
            break;
        }
        g->n_tokens++;
        detokenizer_push(&g->detok, t, token, &g->held);
        if (g->held.failed) return error_memory(err, "generated text", g->held.len);
        deliver(g, token, false);
        if (g->n_tokens == limit || g->is_stopped) break;
        const facet_status status = session_append(g->s, &token, 1, err);
        if (status == FACET_ERR_CANCELLED) {
            g->why = FACET_STOP_CANCELLED;
            break;
        }
        if (status != FACET_OK) return status;
    }
    if (!g->is_stopped) {
        detokenizer_finish(&g->detok, &g->held);
        if (g->held.len) deliver(g, -1, true);
    }
    return FACET_OK;
}

/* Text is handed out in whole characters, so a stop text must consist of such. */
static facet_status check_params(const facet_generate_params *p, facet_error *err)
{
    if (p->struct_size != sizeof *p)
        return error_set(err, FACET_ERR_ARG, "facet_generate_params.struct_size is %zu, this library wants %zu",
                         p->struct_size, sizeof *p);
    if (p->n_predict < -1)
        return error_set(err, FACET_ERR_ARG, "n_predict is %d, wanted -1 (to the end of the context) or more",
                         p->n_predict);
    for (size_t i = 0; i < p->n_stop; i++) {
        const char *stop = p->stop ? p->stop[i] : NULL;
        if (!stop || !*stop)
            return error_set(err, FACET_ERR_ARG, "stop text %zu is empty, which would end at once", i + 1);
        if (!utf8_valid(stop, strlen(stop)))
            return error_set(err, FACET_ERR_ARG, "stop text %zu is not valid UTF-8", i + 1);
    }
    return FACET_OK;
}

facet_status facet_generate(facet_session *s, const int32_t *prompt, size_t n_prompt, const facet_sampling *sampling,
                            const facet_generate_params *p, facet_generate_result *out, facet_error *err)
{
    FACET_TRY(check_params(p, err));
    generation g = {.s = s, .p = p, .detok = {.show_special = p->show_special}};
    facet_generate_result r = {0};
    const int32_t n_vocab = (int32_t)s->engine->model->h.n_vocab;
    FACET_TRY(sampler_open(sampling, n_vocab, &g.sampler, err));
    facet_status status = FACET_OK;
    if (!(g.logits = mem_alloc((size_t)n_vocab * sizeof *g.logits)))
        status = error_memory(err, "logits", (size_t)n_vocab * sizeof *g.logits);
    const uint64_t t0 = clock_ns();
    if (status == FACET_OK) status = facet_session_sync(s, prompt, n_prompt, err);
    const uint64_t t1 = clock_ns();
    const int32_t n_kept = s->n_kept;
    if (status == FACET_OK) status = decode_loop(&g, err);
    r = (facet_generate_result){.stop = g.why,
                                .n_tokens = g.n_tokens,
                                .prefill_ms = (double)(t1 - t0) * 1e-6,
                                .decode_ms = (double)(clock_ns() - t1) * 1e-6,
                                .n_prefill = (int32_t)n_prompt - n_kept};
    sampler_close(g.sampler);
    mem_free(g.logits);
    buf_free(&g.held);
    if (status == FACET_OK) *out = r;
    return status;
}
