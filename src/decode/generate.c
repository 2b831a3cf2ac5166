/* generate.c: the decoding loop with stop tokens and stop strings, with drafts or without. */
#include "decode/generate.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "decode/speculate.h"
#include "decode/stop.h"

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
    chooser chooser;
    speculation spec;
    detokenizer detok;
    buf held; /* complete text that is not handed out yet: it may be the beginning of a stop string */
    int32_t n_tokens, limit;
    bool is_over; /* why tells the reason */
    facet_stop why;
} generation;

static void end(generation *g, facet_stop why)
{
    g->is_over = true;
    g->why = why;
}

/* Hands text out up to a stop string, keeping what may still become one. */
static void deliver(generation *g, int32_t token, bool is_end)
{
    size_t at = 0, hold = 0, n;
    const bool is_stop = stop_find(g->p->stop, g->p->n_stop, g->held.data, g->held.len, &at, &hold);
    n = is_stop ? at : is_end ? g->held.len : g->held.len - hold;
    if (g->p->on_token && !g->p->on_token(g->p->ud, token, g->held.data ? g->held.data : "", n)) {
        end(g, FACET_STOP_CANCELLED);
    }
    if (is_stop) {
        end(g, FACET_STOP_STRING);
        return;
    }
    if (n) memmove(g->held.data, g->held.data + n, g->held.len - n + 1);
    g->held.len -= n;
}

/* One token that the target chose: its text goes out, unless it ends the text. */
static facet_status take(generation *g, int32_t token, facet_error *err)
{
    const tokenizer *t = g->s->engine->model->tok;
    if (!g->p->ignore_eos && tokenizer_is_end(t, token)) {
        end(g, FACET_STOP_EOS);
        return FACET_OK;
    }
    g->n_tokens++;
    detokenizer_push(&g->detok, t, token, &g->held);
    if (g->held.failed) return error_memory(err, "generated text", g->held.len);
    deliver(g, token, false);
    if (!g->is_over && g->n_tokens == g->limit) end(g, FACET_STOP_LIMIT);
    return FACET_OK;
}

/* The pending token, which was taken, is evaluated together with drafts; what holds is taken too. Only tokens that
 * something follows become the session's, so that it is left as plain decoding leaves it. *pending: the token after
 * them, not taken yet (when the text is not over). */
static facet_status step(generation *g, int32_t *pending, facet_error *err)
{
    const verdict *v = &g->spec.verdict;
    int m = 1;
    if (atomic_exchange(&g->s->is_cancelled, false)) return error_set(err, FACET_ERR_CANCELLED, "cancelled");
    FACET_TRY(speculation_step(&g->spec, &g->chooser, *pending, g->limit - g->n_tokens, err));
    for (; m < v->n_path; m++) {
        FACET_TRY(take(g, v->token[m], err));
        if (g->is_over) break;
    }
    *pending = v->choice[m - 1];
    return speculation_commit(&g->spec, m, err);
}

static facet_status decode(generation *g, facet_error *err)
{
    int32_t pending;
    FACET_TRY(verify_first(g->s, &g->chooser, &pending, err));
    while (true) {
        FACET_TRY(take(g, pending, err));
        if (g->is_over) return FACET_OK;
        FACET_TRY(step(g, &pending, err));
        if (g->is_over) return FACET_OK;
    }
}

static facet_status decode_loop(generation *g, facet_error *err)
{
    const int32_t room = g->s->engine->n_ctx - g->s->n_tokens + 1;
    g->limit = g->p->n_predict < 0 || g->p->n_predict > room ? room : g->p->n_predict;
    if (g->limit == 0) return FACET_OK;
    const facet_status status = decode(g, err);
    if (status == FACET_ERR_CANCELLED)
        end(g, FACET_STOP_CANCELLED);
    else if (status != FACET_OK)
        return status;
    if (g->why != FACET_STOP_STRING && !(g->why == FACET_STOP_CANCELLED && status == FACET_OK)) {
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

facet_status generate_with(facet_session *s, const int32_t *prompt, size_t n_prompt, const facet_sampling *sampling,
                           const facet_generate_params *p, const strategy_ops *ops, facet_generate_result *out,
                           facet_error *err)
{
    FACET_TRY(check_params(p, err));
    generation g = {.s = s, .p = p, .detok = {.show_special = p->show_special}};
    facet_generate_result r = {0};
    const int32_t n_vocab = (int32_t)s->engine->model->h.n_vocab;
    FACET_TRY(speculation_begin(&g.spec, s, &p->speculation, ops, err));
    FACET_TRY(sampler_open(sampling, n_vocab, &g.chooser.sampler, err));
    facet_status status = FACET_OK;
    if (!(g.chooser.logits = mem_alloc((size_t)n_vocab * sizeof(float))))
        status = error_memory(err, "logits", (size_t)n_vocab * sizeof(float));
    const uint64_t t0 = clock_ns();
    if (status == FACET_OK) status = session_sync(s, prompt, n_prompt, p->progress, p->progress_ud, err);
    const uint64_t t1 = clock_ns();
    const int32_t n_kept = s->n_kept;
    if (status == FACET_OK) status = decode_loop(&g, err);
    r = (facet_generate_result){.stop = g.why,
                                .n_tokens = g.n_tokens,
                                .prefill_ms = (double)(t1 - t0) * 1e-6,
                                .decode_ms = (double)(clock_ns() - t1) * 1e-6,
                                .n_prefill = (int32_t)n_prompt - n_kept};
    speculation_report(&g.spec, &r.spec);
    speculation_end(&g.spec);
    sampler_close(g.chooser.sampler);
    mem_free(g.chooser.logits);
    buf_free(&g.held);
    if (status == FACET_OK) *out = r;
    return status;
}

facet_status facet_generate(facet_session *s, const int32_t *prompt, size_t n_prompt, const facet_sampling *sampling,
                            const facet_generate_params *p, facet_generate_result *out, facet_error *err)
{
    return generate_with(s, prompt, n_prompt, sampling, p, NULL, out, err);
}
