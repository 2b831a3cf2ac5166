/* api_answer.c: one text of a request: what the engine says of it becomes thought, content and calls. All but the
 * opening runs in the engine's thread. */
#include <string.h>

#include "base/mem.h"
#include "decode/stop.h"
#include "serve/api_call.h"
#include "serve/api_logprobs.h"

/* ---- taking in what the engine says ---- */

static void note_memory(api_answer *a)
{
    facet_error err;
    call_note_failure(a->call, error_memory(&err, "an answer", a->content.len + a->reasoning.len), &err);
}

/* The log-probabilities that go with the content that is handed on now. */
static void pass_logprobs(api_answer *a)
{
    if (!a->call->wants_logprobs) return;
    if (a->call->is_stream) json_array_clear(a->logprobs);
    json_array_extend(a->logprobs, a->held_logprobs);
    json_array_clear(a->held_logprobs);
}

static void put_content(api_answer *a, const char *text, size_t n)
{
    if (!n) return;
    if (!buf_append(&a->content, text, n)) note_memory(a);
    pass_logprobs(a);
    if (a->call->is_stream) a->call->dialect->content(a, text, n);
}

static int which_stop(const api_call *c, const char *at, size_t n)
{
    for (size_t i = 0; i < c->n_stop; i++) {
        const size_t len = strlen(c->stop[i]);
        if (len <= n && memcmp(at, c->stop[i], len) == 0) return (int)i;
    }
    return -1;
}

/* Hands held content on up to a stop text, or all but what may begin one. */
static void pass_content(api_answer *a, bool is_end)
{
    const api_call *c = a->call;
    size_t at = 0, hold = 0;
    const bool is_stop = stop_find(c->stop, c->n_stop, a->held.data, a->held.len, &at, &hold);
    const size_t n = is_stop ? at : is_end ? a->held.len : a->held.len - hold;
    put_content(a, a->held.data, n);
    if (is_stop) {
        a->is_ended = true;
        a->stop_index = which_stop(c, a->held.data + at, a->held.len - at);
    } else if (n) {
        memmove(a->held.data, a->held.data + n, a->held.len - n + 1);
        a->held.len -= n;
    }
}

static void take_call(api_answer *a, const chat_event *e)
{
    char id[40];
    call_make_id(a->call->dialect->call_prefix, id, sizeof id);
    json_t *call =
        json_pack("{s:s, s:s%, s:s%}", "id", id, "name", e->text, e->n, "arguments", e->arguments, e->n_arguments);
    if (!call || json_array_append_new(a->calls, call) != 0) {
        note_memory(a);
        return;
    }
    if (a->call->is_stream) a->call->dialect->tool_call(a, call);
    if (!a->call->may_call_twice) a->is_ended = true;
}

/* chat_event_fn */
static void on_event(void *ud, const chat_event *e)
{
    api_answer *a = ud;
    if (a->is_ended || a->is_priming) return;
    switch (e->kind) {
    case CHAT_REASONING:
        if (!buf_append(&a->reasoning, e->text, e->n)) note_memory(a);
        if (a->call->is_stream) a->call->dialect->reasoning(a, e->text, e->n);
        break;
    case CHAT_CONTENT:
        if (!buf_append(&a->held, e->text, e->n)) note_memory(a);
        pass_content(a, false);
        break;
    case CHAT_CALL:
        pass_content(a, true);
        if (!a->is_ended) take_call(a, e);
        break;
    }
}

/* Those of thoughts, calls and markers are nobody's. */
static void keep_logprob(api_answer *a, int32_t token)
{
    const tokenizer *t = a->call->api->c.model->tok;
    json_t *entry = a->next_logprob;
    if (!entry) return;
    a->next_logprob = NULL;
    if (a->parser && (a->in_thought || a->in_call || tokenizer_is_control(t, token)))
        json_decref(entry);
    else
        json_array_append_new(a->held_logprobs, entry);
}

static void push_token(api_answer *a, int32_t token)
{
    const special_ids *ids = tokenizer_special(a->call->api->c.model->tok);
    facet_error err;
    if (token == ids->channel_open) a->in_thought = true;
    if (a->in_thought) a->n_thought++;
    if (token == ids->channel_close || token == ids->call_open) a->in_thought = false;
    if (token == ids->call_open || token == ids->call_close) a->in_call = token == ids->call_open;
    keep_logprob(a, token);
    const facet_status status = chat_parser_push(a->parser, token, &err);
    if (status != FACET_OK) call_note_failure(a->call, status, &err);
}

/* A thought ends when its budget is used up, or when what is left is meant for the reply. */
static bool is_thought_too_long(const api_answer *a)
{
    const api_call *c = a->call;
    if (!a->in_thought || a->is_thought_cut || !c->n_close) return false;
    const int32_t left = a->text.n_predict - a->text.report.n_tokens;
    const int32_t half = a->text.n_predict / 2, kept = c->api->c.reply_budget < half ? c->api->c.reply_budget : half;
    return (c->thinking_budget >= 0 && a->n_thought >= c->thinking_budget) || (kept > 0 && left <= kept);
}

static bool cut_thought(api_answer *a)
{
    const api_call *c = a->call;
    facet_error err;
    const facet_status status = server_text_force(&a->text, c->close_ids, c->n_close, &err);
    if (status != FACET_OK) call_note_failure(a->call, status, &err);
    a->is_thought_cut = true;
    a->text.params.answer &= ~(unsigned)(FACET_ANSWER_IN_THOUGHT | FACET_ANSWER_MAY_THINK);
    for (size_t i = 0; i < c->n_close; i++) push_token(a, c->close_ids[i]);
    return false;
}

/* ---- text_ops ---- */

static bool may_run(void *ud)
{
    const api_answer *a = ud;
    return !a->call->is_stream || http_stream_backlog(a->call->x) < a->call->api->c.stream_bytes;
}

static void on_start(void *ud, const text_report *r)
{
    api_answer *a = ud;
    a->report = *r;
    if (a->call->is_stream) a->call->dialect->begin(a);
}

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    api_answer *a = ud;
    if (!a->parser) {
        keep_logprob(a, token);
        put_content(a, text, n);
    } else if (token >= 0) {
        push_token(a, token);
        if (is_thought_too_long(a)) return cut_thought(a);
    }
    return a->call->status == FACET_OK && !a->is_ended;
}

static void on_logprobs(void *ud, int32_t token, float logprob, const facet_logprob *top, int n_top)
{
    api_answer *a = ud;
    json_decref(a->next_logprob);
    a->next_logprob = logprobs_entry(a->call->api->c.model->tok, token, logprob, top, n_top);
}

/* {drafted, accepted, parents, texts, held} */
static void on_drafts(void *ud, const generation_drafts *d)
{
    api_answer *a = ud;
    if (!a->call->wants_drafts) return;
    json_t *parents = json_array(), *texts = json_array(), *held = json_array();
    int n_held = 0;
    for (int i = 0; i < d->n_rows; i++) {
        json_t *bytes;
        const bool holds = d->held >> i & 1;
        json_array_append_new(parents, json_integer(d->parent[i]));
        json_array_append_new(texts, logprobs_text(a->call->api->c.model->tok, d->token[i], &bytes));
        json_array_append_new(held, json_boolean(holds));
        json_decref(bytes);
        n_held += holds;
    }
    json_decref(a->drafts);
    a->drafts = json_pack("{s:i, s:i, s:o, s:o, s:o}", "drafted", d->n_rows - 1, "accepted", n_held - 1, "parents",
                          parents, "texts", texts, "held", held);
}

static void finish_text(api_answer *a)
{
    facet_error err;
    if (a->parser) {
        const facet_status status = chat_parser_finish(a->parser, &err);
        if (status != FACET_OK) call_note_failure(a->call, status, &err);
        if (!a->is_ended) pass_content(a, true);
    }
    const bool has_calls = json_array_size(a->calls) > 0, is_stop = a->report.stop == FACET_STOP_STRING;
    if (has_calls)
        a->finish = API_CALLS;
    else if (a->is_ended || is_stop)
        a->finish = API_STOP_TEXT;
    else
        a->finish = a->report.stop == FACET_STOP_LIMIT ? API_LENGTH : API_STOP;
    if (a->call->is_stream && a->call->status == FACET_OK) a->call->dialect->finish(a);
}

static void on_done(void *ud, facet_status status, const text_report *r, const facet_error *err)
{
    api_answer *a = ud;
    api_call *c = a->call;
    a->report = *r;
    if (status == FACET_OK) {
        metrics_count_text(&c->api->metrics, r);
        finish_text(a);
    } else {
        call_note_failure(c, status, err);
        for (int i = 0; i < c->n_answers; i++) server_text_cancel(c->api->c.engine, &c->answers[i].text);
    }
    if (--c->n_left == 0) call_end(c);
}

static const text_ops ops = {
    .may_run = may_run, .on_start = on_start, .on_token = on_token, .on_drafts = on_drafts, .on_done = on_done};
static const text_ops logprobs_ops = {.may_run = may_run,
                                      .on_start = on_start,
                                      .on_token = on_token,
                                      .on_logprobs = on_logprobs,
                                      .on_drafts = on_drafts,
                                      .on_done = on_done};

/* ---- opening ---- */

static bool refuse_length(const api_call *c, size_t n, int32_t n_more, api_error *e)
{
    api_fail(e, 400, NULL,
             "This model's maximum context length is %d tokens. However, you requested %zu tokens (%zu in the "
             "messages, %d in the completion). Please reduce the length of the messages or completion.",
             (int)c->api->c.n_ctx, n + (size_t)n_more, n, (int)n_more);
    e->code = "context_length_exceeded";
    return false;
}

/* How many tokens a text may have. */
static bool find_limit(const api_call *c, const api_prompt *p, int32_t *out, api_error *e)
{
    const size_t n_ctx = (size_t)c->api->c.n_ctx;
    const int32_t wanted = c->max_tokens >= 0 ? c->max_tokens : 1;
    if (p->n < 1) return api_fail(e, 400, "prompt", "empty: want at least one token");
    const int32_t left = p->n < n_ctx ? (int32_t)(n_ctx - p->n) : 0;
    if (wanted > left && (!c->api->c.clamps || left == 0)) return refuse_length(c, p->n, wanted, e);
    const int32_t most = c->max_tokens >= 0 ? c->max_tokens : c->api->c.max_tokens >= 0 ? c->api->c.max_tokens : left;
    *out = most < left ? most : left;
    return true;
}

/* Where the grammar holds: not in thoughts and calls. A demanded call is all of its answer. */
static void set_grammar(api_answer *a)
{
    const api_call *c = a->call;
    if (!c->grammar || c->forced_tool) return;
    a->text.params.grammar = c->grammar->grammar;
    if (c->is_thinking) a->text.params.answer |= FACET_ANSWER_MAY_THINK;
    if (c->tools) a->text.params.answer |= FACET_ANSWER_MAY_CALL;
    if (c->starts_in_thought) a->text.params.answer |= FACET_ANSWER_IN_THOUGHT;
}

static void put_prompt(api_answer *a, const api_prompt *p)
{
    const tokenizer *t = a->call->api->c.model->tok;
    detokenizer d = {.show_special = true};
    for (size_t i = p->ids[0] == tokenizer_special(t)->bos; i < p->n; i++) detokenizer_push(&d, t, p->ids[i], &a->echo);
    detokenizer_finish(&d, &a->echo);
}

/* What the answer is made to begin with was put behind the prompt; the parser must have seen it. */
static bool push_forced(api_answer *a, api_error *e)
{
    const api_call *c = a->call;
    int32_t *ids = NULL;
    size_t n = 0, cap = 0;
    facet_error err;
    if (!c->forced.len) return true;
    if (tokenizer_encode(c->api->c.model->tok, c->forced.data, c->forced.len, false, SPECIAL_ALL, &ids, &n, &cap,
                         &err) != FACET_OK)
        return api_fail_with(e, &err);
    a->is_priming = true;
    for (size_t i = 0; i < n; i++) push_token(a, ids[i]);
    a->is_priming = false;
    mem_free(ids);
    return true;
}

bool answer_open(api_call *c, int i, api_error *e)
{
    const api_prompt *p = &c->prompts[i / c->n_choices];
    const int choice = i % c->n_choices;
    api_answer *a = &c->answers[i];
    facet_error err;
    *a = (api_answer){.call = c, .index = i, .calls = json_array(), .stop_index = -1};
    a->text = (server_text){.prompt = p->ids,
                            .n_prompt = p->n,
                            .sampling = c->sampling,
                            .params = facet_generate_params_default(),
                            .leader = choice ? &c->answers[i - choice].text : NULL,
                            .ops = c->wants_logprobs ? &logprobs_ops : &ops,
                            .ud = a};
    a->text.sampling.seed += (uint64_t)i;
    a->text.sampling.bias = c->bias;
    a->text.params.ignore_eos = c->ignores_eos;
    a->text.params.speculation = c->speculation;
    a->text.params.n_logprobs = c->n_top_logprobs;
    a->held_logprobs = json_array();
    a->logprobs = json_array();
    if (!c->is_chat) {
        a->text.params.stop = c->stop;
        a->text.params.n_stop = c->n_stop;
    } else if (chat_parser_open(c->api->c.model->tok, c->starts_in_thought, on_event, a, &a->parser, &err) !=
               FACET_OK) {
        return api_fail_with(e, &err);
    }
    set_grammar(a);
    if (c->echoes && p->n) put_prompt(a, p);
    a->in_thought = c->starts_in_thought;
    if (!a->calls) return api_fail_memory(e);
    return find_limit(c, p, &a->text.n_predict, e) && push_forced(a, e);
}

void answer_close(api_answer *a)
{
    chat_parser_close(a->parser);
    json_decref(a->calls);
    json_decref(a->items);
    json_decref(a->drafts);
    json_decref(a->next_logprob);
    json_decref(a->held_logprobs);
    json_decref(a->logprobs);
    buf_free(&a->content);
    buf_free(&a->reasoning);
    buf_free(&a->held);
    buf_free(&a->echo);
}
