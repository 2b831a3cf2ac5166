/* generation.c: a text in the making: prompt, then steps with drafts or without, stop tokens and stop strings. */
#include "decode/generation.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "decode/grammar_api.h"
#include "decode/prefix.h"
#include "decode/stop.h"

typedef enum phase {
    PHASE_START,   /* nothing was looked at yet */
    PHASE_PREFILL, /* prompt tokens are left */
    PHASE_FIRST,   /* the first token was chosen and is not handed out yet */
    PHASE_DECODE,
    PHASE_OVER
} phase;

struct generation {
    facet_session *s;
    const int32_t *prompt;
    size_t n_prompt;
    facet_generate_params params;
    phase phase;
    engine_part part; /* of the prompt */
    chooser chooser;
    speculation spec;
    detokenizer detok;
    buf held;        /* complete text that is not handed out yet: it may be the beginning of a stop string */
    int32_t pending; /* chosen, not evaluated yet */
    int32_t n_tokens, limit, n_kept;
    int32_t end_token; /* -1 = none yet */
    uint64_t n_drops;  /* the engine's, when the session got the prompt */
    facet_stop why;
    uint64_t begun_at, prompt_done_at, over_at; /* ns; 0 = not yet */
    generation_drafts_fn on_drafts;             /* NULL: nobody wants to know */
    void *on_drafts_ud;
};

static bool is_stopped(const generation *g)
{
    return g->phase == PHASE_OVER;
}

static void stop(generation *g, facet_stop why)
{
    g->phase = PHASE_OVER;
    g->why = why;
}

/* Hands text out up to a stop string, keeping what may still become one. */
static void deliver(generation *g, int32_t token, bool is_end)
{
    size_t at = 0, hold = 0, n;
    const bool is_stop = stop_find(g->params.stop, g->params.n_stop, g->held.data, g->held.len, &at, &hold);
    n = is_stop ? at : is_end ? g->held.len : g->held.len - hold;
    if (g->params.on_token && !g->params.on_token(g->params.ud, token, g->held.data ? g->held.data : "", n)) {
        stop(g, FACET_STOP_CANCELLED);
    }
    if (is_stop) {
        stop(g, FACET_STOP_STRING);
        return;
    }
    if (!g->held.data) return; /* no token has had a text yet */
    if (n) memmove(g->held.data, g->held.data + n, g->held.len - n + 1);
    g->held.len -= n;
}

/* One token that the target chose after entry i of the path: its text goes out, unless it ends the text. */
static facet_status take(generation *g, int32_t token, int i, facet_error *err)
{
    const tokenizer *t = g->s->engine->model->tok;
    if (!g->params.ignore_eos && tokenizer_is_end(t, token)) {
        g->end_token = token;
        stop(g, FACET_STOP_EOS);
        return FACET_OK;
    }
    g->n_tokens++;
    detokenizer_push(&g->detok, t, token, &g->held);
    if (g->held.failed) return error_memory(err, "generated text", g->held.len);
    if (g->chooser.log) {
        const logprobs_choice *c = &g->chooser.log->choice[i];
        g->params.on_logprobs(g->params.ud, token, c->logprob, c->top, c->n_top);
    }
    deliver(g, token, false);
    if (!is_stopped(g) && g->n_tokens == g->limit) stop(g, FACET_STOP_LIMIT);
    return FACET_OK;
}

/* What is still held goes out, unless a stop text or the receiver ended it. */
static void finish(generation *g, bool is_refused)
{
    g->over_at = clock_ns();
    prefix_keep(g->s);
    if (g->why == FACET_STOP_STRING || is_refused) return;
    detokenizer_finish(&g->detok, &g->held);
    if (g->held.len) deliver(g, -1, true);
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
    if (p->grammar && p->ignore_eos)
        return error_set(err, FACET_ERR_ARG, "ignore_eos together with a grammar: a text ends where its grammar ends");
    if (p->answer & ~(unsigned)(FACET_ANSWER_MAY_THINK | FACET_ANSWER_MAY_CALL | FACET_ANSWER_IN_THOUGHT))
        return error_set(err, FACET_ERR_ARG, "answer is 0x%x, wanted a sum of FACET_ANSWER_... flags", p->answer);
    for (size_t i = 0; i < p->n_stop; i++) {
        const char *stop = p->stop ? p->stop[i] : NULL;
        if (!stop || !*stop)
            return error_set(err, FACET_ERR_ARG, "stop text %zu is empty, which would end at once", i + 1);
        if (!utf8_valid(stop, strlen(stop)))
            return error_set(err, FACET_ERR_ARG, "stop text %zu is not valid UTF-8", i + 1);
    }
    return FACET_OK;
}

facet_status generation_open(facet_session *s, const int32_t *prompt, size_t n_prompt, const facet_sampling *sampling,
                             const facet_generate_params *p, const strategy_ops *ops, generation **out,
                             facet_error *err)
{
    FACET_TRY(check_params(p, err));
    if (p->grammar && p->grammar->model != s->engine->model)
        return error_set(err, FACET_ERR_ARG, "the grammar was opened for another model than the session's");
    const size_t n_vocab = s->engine->model->h.n_vocab;
    generation *g = mem_calloc(1, sizeof *g);
    if (!g) return error_memory(err, "a generation", sizeof *g);
    g->s = s;
    g->prompt = prompt;
    g->n_prompt = n_prompt;
    g->end_token = -1;
    g->params = *p;
    g->detok.show_special = p->show_special;
    g->begun_at = clock_ns();
    facet_status status = speculation_begin(&g->spec, s, &p->speculation, ops, err);
    if (status == FACET_OK && p->grammar)
        status = constraint_open(p->grammar->masker, s->engine->model->tok, p->answer, &g->chooser.constraint, err);
    if (status == FACET_OK && p->on_logprobs)
        status = logprobs_open(p->n_logprobs, (int32_t)n_vocab, &g->chooser.log, err);
    if (status == FACET_OK) status = sampler_open(sampling, (int32_t)n_vocab, &g->chooser.sampler, err);
    if (status == FACET_OK && !(g->chooser.logits = mem_alloc(n_vocab * sizeof(float))))
        status = error_memory(err, "logits", n_vocab * sizeof(float));
    if (status != FACET_OK) {
        generation_close(g);
        return status;
    }
    *out = g;
    return FACET_OK;
}

void generation_close(generation *g)
{
    if (!g) return;
    speculation_end(&g->spec);
    constraint_close(g->chooser.constraint);
    logprobs_close(g->chooser.log);
    sampler_close(g->chooser.sampler);
    mem_free(g->chooser.logits);
    buf_free(&g->held);
    mem_free(g);
}

void generation_watch(generation *g, generation_drafts_fn fn, void *ud)
{
    g->on_drafts = fn;
    g->on_drafts_ud = ud;
}

facet_session *generation_session(const generation *g)
{
    return g->s;
}

bool generation_is_over(const generation *g)
{
    return g->phase == PHASE_OVER;
}

bool generation_is_prefill(const generation *g)
{
    return g->phase == PHASE_START || g->phase == PHASE_PREFILL;
}

/* ---- the prompt ---- */

static facet_status report_prompt(const generation *g, facet_error *err)
{
    const size_t n = g->n_prompt - (size_t)g->n_kept, done = (size_t)(g->s->n_tokens - g->n_kept);
    if (g->params.progress && !g->params.progress(g->params.progress_ud, "prefill", done, n) && done < n)
        return error_set(err, FACET_ERR_CANCELLED, "cancelled");
    return FACET_OK;
}

/* The first token is chosen from the outputs of the prompt's last one. */
static facet_status choose_first(generation *g, facet_error *err)
{
    facet_session *s = g->s;
    session_set_mark(s);
    g->prompt_done_at = clock_ns();
    const int32_t room = s->engine->n_ctx - s->n_tokens + 1;
    g->limit = g->params.n_predict < 0 || g->params.n_predict > room ? room : g->params.n_predict;
    if (g->limit == 0) {
        g->phase = PHASE_OVER;
        g->over_at = g->prompt_done_at;
        return FACET_OK;
    }
    g->phase = PHASE_FIRST;
    return verify_first(s, &g->chooser, &g->pending, err);
}

static facet_status begin_prompt(generation *g, facet_error *err)
{
    if (atomic_exchange(&g->s->is_cancelled, false)) return error_set(err, FACET_ERR_CANCELLED, "cancelled");
    FACET_TRY(session_keep(g->s, g->prompt, g->n_prompt, err));
    g->n_kept = g->s->n_kept;
    g->n_drops = g->s->engine->n_drops;
    if ((size_t)g->n_kept == g->n_prompt) return choose_first(g, err);
    g->phase = PHASE_PREFILL;
    return FACET_OK;
}

static facet_status plan_prompt(generation *g, int max_rows, facet_error *err)
{
    facet_session *s = g->s;
    const size_t left = g->n_prompt - (size_t)s->n_tokens;
    const int n = session_rows(s, left, max_rows);
    FACET_TRY(report_prompt(g, err));
    if (atomic_exchange(&s->is_cancelled, false)) return error_set(err, FACET_ERR_CANCELLED, "cancelled");
    g->part = (engine_part){.seq = &s->kv,
                            .start = s->n_tokens,
                            .n = n,
                            .n_out = (size_t)n == left,
                            .tokens = g->prompt + s->n_tokens,
                            .prompt_end = (int32_t)g->n_prompt};
    return FACET_OK;
}

static facet_status read_prompt(generation *g, facet_error *err)
{
    FACET_TRY(session_commit_part(g->s, &g->part, err));
    if ((size_t)g->s->n_tokens < g->n_prompt) return FACET_OK;
    FACET_TRY(report_prompt(g, err));
    return choose_first(g, err);
}

/* ---- steps ---- */

static facet_status take_first(generation *g, facet_error *err)
{
    g->phase = PHASE_DECODE;
    FACET_TRY(take(g, g->pending, 0, err));
    if (is_stopped(g)) finish(g, g->why == FACET_STOP_CANCELLED);
    return FACET_OK;
}

static facet_status plan_decode(generation *g, int max_rows, engine_part **part, facet_error *err)
{
    if (atomic_exchange(&g->s->is_cancelled, false)) {
        stop(g, FACET_STOP_CANCELLED);
        finish(g, false);
        return FACET_OK;
    }
    FACET_TRY(speculation_draft(&g->spec, &g->chooser, g->pending, g->limit - g->n_tokens, max_rows, err));
    *part = &g->spec.part;
    return FACET_OK;
}

static void tell_drafts(const generation *g)
{
    const proposal *p = &g->spec.proposal;
    const verdict *v = &g->spec.verdict;
    uint8_t parent[DRAFT_TREE_MAX_ROWS];
    generation_drafts d = {.n_rows = p->n + 1};
    if (!g->on_drafts || p->n == 0) return;
    parent[0] = 0;
    for (int i = 1; i <= p->n; i++) parent[i] = (uint8_t)(p->is_tree ? p->tree.parent[i] : i - 1);
    for (int i = 0; i < v->n_path; i++) d.held |= UINT64_C(1) << v->path[i];
    d.token = p->is_tree ? p->tree.token : p->rows;
    d.parent = parent;
    g->on_drafts(g->on_drafts_ud, &d);
}

/* The pending token, which was taken, was evaluated together with drafts; what holds is taken too. Only tokens that
 * something follows become the session's, so that it is left as plain decoding leaves it. */
static facet_status take_path(generation *g, facet_error *err)
{
    const verdict *v = &g->spec.verdict;
    int m = 1;
    tell_drafts(g);
    for (; m < v->n_path; m++) {
        FACET_TRY(take(g, v->token[m], m - 1, err));
        if (is_stopped(g)) break;
    }
    g->pending = v->choice[m - 1];
    if (g->chooser.constraint) constraint_settle(g->chooser.constraint, m);
    FACET_TRY(speculation_commit(&g->spec, m, err));
    if (!is_stopped(g)) FACET_TRY(take(g, g->pending, m - 1, err));
    if (is_stopped(g)) finish(g, g->why == FACET_STOP_CANCELLED);
    return FACET_OK;
}

facet_status generation_plan(generation *g, int max_rows, int max_out, engine_part **part, facet_error *err)
{
    *part = NULL;
    if (g->phase == PHASE_START) FACET_TRY(begin_prompt(g, err));
    FACET_TRY(session_check_content(g->s, g->n_drops, err));
    if (g->phase == PHASE_PREFILL) {
        FACET_TRY(plan_prompt(g, max_rows, err));
        *part = &g->part;
        return FACET_OK;
    }
    if (g->phase == PHASE_FIRST) FACET_TRY(take_first(g, err));
    if (g->phase == PHASE_OVER) return FACET_OK;
    return plan_decode(g, max_rows < max_out ? max_rows : max_out, part, err);
}

facet_status generation_read(generation *g, double step_ms, bool is_shared, facet_error *err)
{
    if (g->phase == PHASE_PREFILL) return read_prompt(g, err);
    return speculation_read(&g->spec, &g->chooser, g->pending, step_ms, is_shared, err);
}

facet_status generation_take(generation *g, facet_error *err)
{
    if (g->phase == PHASE_FIRST) return take_first(g, err);
    return g->phase == PHASE_DECODE ? take_path(g, err) : FACET_OK;
}

void generation_abandon(generation *g)
{
    verify_abandon(g->s);
}

void generation_result(const generation *g, facet_generate_result *out)
{
    const uint64_t now = g->over_at ? g->over_at : clock_ns(),
                   prompt_done = g->prompt_done_at ? g->prompt_done_at : now;
    *out = (facet_generate_result){.stop = g->why,
                                   .n_tokens = g->n_tokens,
                                   .end_token = g->end_token,
                                   .prefill_ms = (double)(prompt_done - g->begun_at) * 1e-6,
                                   .decode_ms = (double)(now - prompt_done) * 1e-6,
                                   .n_prefill = (int32_t)g->n_prompt - g->n_kept,
                                   .spec = g->spec.stats};
}
