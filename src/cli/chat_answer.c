/* chat_answer.c: one answer: prompt, generation, display, history. */
#include <string.h>

#include "base/mem.h"
#include "cli/chat.h"
#include "decode/stop.h"

typedef struct answer {
    chat *c;
    chat_parser *parser;
    buf content, reasoning;
    buf held; /* content that is not shown yet: it may be the beginning of a stop string */
    json_t *calls;
    bool has_shown, is_stopped; /* the latter by a stop string */
    bool is_cut;                /* a server says so */
    facet_status status;        /* of taking in what was generated */
    facet_error error;          /* of status */
} answer;

static void fail_memory(answer *a)
{
    if (a->status == FACET_OK) a->status = error_memory(&a->error, "an answer", a->content.len + a->reasoning.len);
}

/* Shows held content up to a stop string, or all but what may begin one. */
static void show_content(answer *a, bool is_end)
{
    const facet_generate_params *p = a->c->generate;
    size_t at = 0, hold = 0;
    a->is_stopped = stop_find(p->stop, p->n_stop, a->held.data, a->held.len, &at, &hold);
    const size_t n = a->is_stopped ? at : is_end ? a->held.len : a->held.len - hold;
    if (n == 0) return;
    if (!buf_append(&a->content, a->held.data, n)) fail_memory(a);
    if (!a->c->shows_special) chat_view_content(&a->c->view, a->held.data, n);
    a->has_shown = true;
    memmove(a->held.data, a->held.data + n, a->held.len - n + 1);
    a->held.len -= n;
}

static void take_call(answer *a, const chat_event *e)
{
    json_t *call = json_pack("{s:o, s:s, s:{s:s%, s:s%}}", "id", json_sprintf("call_%d", e->call_index), "type",
                             "function", "function", "name", e->text, e->n, "arguments", e->arguments, e->n_arguments);
    if (!call || json_array_append_new(a->calls, call) != 0) fail_memory(a);
    if (!a->c->shows_special) chat_view_call(&a->c->view, e->text, e->n, e->arguments, e->n_arguments);
}

static void on_event(void *ud, const chat_event *e)
{
    answer *a = ud;
    if (a->is_stopped) return;
    switch (e->kind) {
    case CHAT_REASONING:
        if (!buf_append(&a->reasoning, e->text, e->n)) fail_memory(a);
        if (!a->c->shows_special) chat_view_thought(&a->c->view, e->text, e->n);
        a->has_shown = true;
        break;
    case CHAT_CONTENT:
        if (!buf_append(&a->held, e->text, e->n)) fail_memory(a);
        show_content(a, false);
        break;
    case CHAT_CALL:
        show_content(a, true);
        if (!a->is_stopped) take_call(a, e);
        a->has_shown = true;
        break;
    }
}

static bool on_token(void *ud, int32_t token, const char *text, size_t n)
{
    answer *a = ud;
    if (a->c->shows_special && n) {
        chat_view_content(&a->c->view, text, n);
        a->has_shown = true;
    }
    if (a->status == FACET_OK) a->status = chat_parser_push(a->parser, token, &a->error);
    return a->status == FACET_OK && !a->is_stopped && !a->c->view.is_broken && !cli_was_interrupted();
}

static facet_status make_prompt(const chat *c, bool wants_answer, buf *text, int32_t **ids, size_t *n, facet_error *err)
{
    const chat_options o = {
        .enable_thinking = c->is_thinking, .add_generation_prompt = wants_answer, .reopen_turn = true};
    FACET_TRY(chat_render(c->talk.messages, NULL, c->format, o, text, err));
    return facet_tokenize(c->model, text->data, text->len, true, true, ids, n, err);
}

facet_status chat_count_tokens(const chat *c, size_t *n, facet_error *err)
{
    buf text = {0};
    int32_t *ids = NULL;
    *n = 0;
    if (json_array_size(c->talk.messages) == 0) return FACET_OK;
    const facet_status status = make_prompt(c, false, &text, &ids, n, err);
    buf_free(&text);
    facet_free(ids);
    return status;
}

#define FULL_ADVICE "/save keeps the conversation, /reset begins anew, -c N sets a larger context"

/* The stop strings are looked for in the content alone, so the generation is not told about them. */
static facet_status generate(answer *a, const int32_t *ids, size_t n, facet_error *err)
{
    chat *c = a->c;
    facet_generate_params p = *c->generate;
    facet_generate_result r;
    p.n_stop = 0;
    p.show_special = c->shows_special;
    p.on_token = on_token;
    p.ud = a;
    p.progress = cli_progress_prefill;
    cli_note_interrupt(true);
    const facet_status status = facet_generate(c->session, ids, n, &c->sampling, &p, &r, err);
    cli_progress_end();
    c->sampling.seed++;
    if (status == FACET_OK) {
        c->last = (chat_stats){.is_set = true, .n_prompt = (int32_t)n, .result = r};
        facet_spec_stats_add(&c->spec, &r.spec);
    }
    const int32_t n_ctx = facet_engine_n_ctx(c->engine);
    if (n > (size_t)n_ctx)
        return error_set(err, FACET_ERR_LIMIT, "not answered: with this message %zu tokens, the context holds %d: %s",
                         n, n_ctx, FULL_ADVICE);
    return status;
}

static bool is_context_full(const chat *c)
{
    return c->last.result.stop == FACET_STOP_LIMIT &&
           facet_session_n_tokens(c->session) == facet_engine_n_ctx(c->engine);
}

/* Shows the rest of what came, and puts it into the history. */
static void finish(answer *a)
{
    if (a->status == FACET_OK && a->parser) a->status = chat_parser_finish(a->parser, &a->error);
    if (!a->is_stopped) show_content(a, true);
    chat_view_end(&a->c->view);
    if (a->status != FACET_OK && !a->has_shown) return;
    facet_error e = {0};
    const facet_status status = conversation_add_answer(&a->c->talk, &a->content, &a->reasoning, a->calls, &e);
    if (a->status != FACET_OK || status == FACET_OK) return;
    a->status = status;
    a->error = e;
}

/* ---- from a server ---- */

static void set_number(json_t *body, bool is_given, const char *name, float v)
{
    if (is_given) json_object_set_new(body, name, json_real((double)v));
}

/* What the user gave; the rest is the server's. */
static json_t *make_request(const chat *c)
{
    const cli_options *o = c->options;
    const facet_sampling *s = &c->sampling;
    json_t *body = json_pack("{s:s, s:O, s:b, s:b}", "model", chat_remote_model(c->remote), "messages",
                             c->talk.messages, "stream", 1, "enable_thinking", c->is_thinking);
    set_number(body, o->has_temp, "temperature", s->temperature);
    set_number(body, o->has_top_p, "top_p", s->top_p);
    set_number(body, s->min_p > 0, "min_p", s->min_p);
    set_number(body, s->repeat_penalty != 1, "repetition_penalty", s->repeat_penalty);
    set_number(body, s->presence_penalty != 0, "presence_penalty", s->presence_penalty);
    set_number(body, s->frequency_penalty != 0, "frequency_penalty", s->frequency_penalty);
    if (o->has_top_k) json_object_set_new(body, "top_k", json_integer(s->top_k));
    if (o->has_seed) json_object_set_new(body, "seed", json_integer((json_int_t)s->seed));
    if (o->has_spec)
        json_object_set_new(body, "speculation", json_string(facet_spec_method_name(c->generate->speculation.method)));
    if (c->generate->n_predict >= 0) json_object_set_new(body, "max_tokens", json_integer(c->generate->n_predict));
    return body;
}

static void take_text(answer *a, const json_t *delta, const char *name, chat_event_kind kind)
{
    const json_t *text = json_object_get(delta, name);
    if (json_string_length(text))
        on_event(a, &(chat_event){.kind = kind, .text = json_string_value(text), .n = json_string_length(text)});
}

static void take_calls(answer *a, const json_t *delta)
{
    size_t i;
    json_t *call;
    json_array_foreach(json_object_get(delta, "tool_calls"), i, call)
    {
        const json_t *f = json_object_get(call, "function"), *name = json_object_get(f, "name"),
                     *arguments = json_object_get(f, "arguments");
        if (json_is_string(name) && json_is_string(arguments))
            on_event(a, &(chat_event){.kind = CHAT_CALL,
                                      .text = json_string_value(name),
                                      .n = json_string_length(name),
                                      .arguments = json_string_value(arguments),
                                      .n_arguments = json_string_length(arguments),
                                      .call_index = (int)json_array_size(a->calls)});
    }
}

static double number(const json_t *j, const char *name)
{
    return json_number_value(json_object_get(j, name));
}

/* What a server of this program says at the end; others may not. */
static void take_timings(chat *c, const json_t *t)
{
    if (!t) return;
    const int32_t n_prefill = (int32_t)number(t, "prefill_tokens");
    c->last = (chat_stats){.is_set = true,
                           .n_prompt = n_prefill + (int32_t)number(t, "cached_tokens"),
                           .result = {.n_prefill = n_prefill,
                                      .n_tokens = (int32_t)number(t, "decode_tokens"),
                                      .prefill_ms = number(t, "prefill_ms"),
                                      .decode_ms = number(t, "decode_ms")}};
}

/* chat_remote_fn */
static bool on_chunk(void *ud, const json_t *chunk)
{
    answer *a = ud;
    const json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0),
                 *delta = json_object_get(choice, "delta");
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    take_text(a, delta, "reasoning_content", CHAT_REASONING);
    take_text(a, delta, "content", CHAT_CONTENT);
    take_calls(a, delta);
    take_timings(a->c, json_object_get(chunk, "timings"));
    if (finish && strcmp(finish, "length") == 0) a->is_cut = true;
    return a->status == FACET_OK && !a->is_stopped && !a->c->view.is_broken && !cli_was_interrupted();
}

static facet_status ask_server(answer *a, facet_error *err)
{
    chat *c = a->c;
    cli_note_interrupt(true);
    const facet_status status = chat_remote_ask(c->remote, make_request(c), on_chunk, a, err);
    c->sampling.seed++;
    /* what Ctrl-C left is kept, as it is of an answer of one's own */
    return status == FACET_ERR_CANCELLED && a->has_shown ? FACET_OK : status;
}

/* ---- an answer ---- */

static facet_status answer_prompt(answer *a, const int32_t *ids, size_t n, facet_error *err)
{
    const facet_status status = a->c->remote ? ask_server(a, err) : generate(a, ids, n, err);
    if (status != FACET_OK && !a->has_shown) return status;
    if (cli_was_interrupted() && !a->has_shown) return error_set(err, FACET_ERR_CANCELLED, "cancelled");
    finish(a);
    if (status != FACET_OK) return status;
    if (a->status != FACET_OK) {
        *err = a->error;
        return a->status;
    }
    if (a->c->remote) {
        if (a->is_cut) fprintf(stderr, "facet: the answer is cut at its limit of tokens\n");
        return FACET_OK;
    }
    if (is_context_full(a->c))
        fprintf(stderr, "facet: the answer is cut: the context of %d tokens is full: %s\n",
                facet_engine_n_ctx(a->c->engine), FULL_ADVICE);
    return FACET_OK;
}

facet_status chat_answer(chat *c, facet_error *err)
{
    answer a = {.c = c, .calls = json_array()};
    buf prompt = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    facet_status status = a.calls ? FACET_OK : error_memory(err, "an answer", 1);
    if (status == FACET_OK && !c->remote) status = make_prompt(c, true, &prompt, &ids, &n, err);
    if (status == FACET_OK && !c->remote)
        status =
            chat_parser_open(c->model->tok, chat_opens_thought(prompt.data, prompt.len), on_event, &a, &a.parser, err);
    if (status == FACET_OK) status = answer_prompt(&a, ids, n, err);
    chat_parser_close(a.parser);
    json_decref(a.calls);
    facet_free(ids);
    buf_free(&prompt);
    buf_free(&a.content);
    buf_free(&a.reasoning);
    buf_free(&a.held);
    return status;
}

facet_status chat_say(chat *c, const char *text, size_t n, facet_error *err)
{
    const size_t before = json_array_size(c->talk.messages);
    FACET_TRY(conversation_add_user(&c->talk, text, n, err));
    const facet_status status = chat_answer(c, err);
    if (json_array_size(c->talk.messages) == before + 1) conversation_truncate(&c->talk, before);
    return status;
}

facet_status chat_retry(chat *c, facet_error *err)
{
    if (conversation_n_turns(&c->talk) == 0) return error_set(err, FACET_ERR_ARG, "/retry: nothing was said yet");
    json_t *old = conversation_take_answer(&c->talk);
    if (!old) return error_memory(err, "an answer", 1);
    const size_t before = json_array_size(c->talk.messages);
    const facet_status status = chat_answer(c, err);
    if (json_array_size(c->talk.messages) == before) conversation_give_back(&c->talk, old);
    json_decref(old);
    return status;
}
