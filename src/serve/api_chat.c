/* api_chat.c: POST /v1/chat/completions. */
#include <string.h>

#include "serve/api_call.h"
#include "serve/api_fields.h"

/* ---- writing ---- */

static const char *finish_name(api_finish f)
{
    return f == API_CALLS ? "tool_calls" : f == API_LENGTH ? "length" : "stop";
}

static json_t *usage(const api_call *c)
{
    const text_report r = call_total(c);
    return json_pack("{s:i, s:i, s:i, s:{s:i}, s:{s:i}}", "prompt_tokens", (int)r.n_prompt, "completion_tokens",
                     (int)r.n_tokens, "total_tokens", (int)(r.n_prompt + r.n_tokens), "prompt_tokens_details",
                     "cached_tokens", (int)r.n_cached, "completion_tokens_details", "reasoning_tokens",
                     (int)call_thought_tokens(c));
}

static json_t *envelope(const api_call *c, const char *object, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", c->id, "object", object, "created", (json_int_t)c->created,
                     "model", c->api->c.model_id, "choices", choices);
}

static json_t *logprobs_json(const api_answer *a)
{
    if (!a->call->wants_logprobs) return json_null();
    return json_pack("{s:O, s:n}", "content", a->logprobs, "refusal");
}

/* delta is taken. */
static void send_delta(api_answer *a, json_t *delta, const char *finish)
{
    json_t *choices =
        json_pack("[{s:i, s:o, s:o, s:s?}]", "index", a->index, "delta", delta, "logprobs",
                  json_object_get(delta, "content") ? logprobs_json(a) : json_null(), "finish_reason", finish);
    json_t *j = envelope(a->call, "chat.completion.chunk", choices);
    if (a->drafts) json_object_set_new(j, "drafts", a->drafts);
    a->drafts = NULL;
    if (finish) {
        json_object_set_new(j, "timings", call_timings(a));
        json_object_set_new(j, "speculation", spec_json(&a->report.spec));
    }
    call_send(a->call, NULL, j);
}

static void begin(api_answer *a)
{
    send_delta(a, json_pack("{s:s, s:s}", "role", "assistant", "content", ""), NULL);
}

static void reasoning(api_answer *a, const char *text, size_t n)
{
    send_delta(a, json_pack("{s:s%}", "reasoning_content", text, n), NULL);
}

static void content(api_answer *a, const char *text, size_t n)
{
    send_delta(a, json_pack("{s:s%}", "content", text, n), NULL);
}

static json_t *tool_call_json(const json_t *call)
{
    return json_pack("{s:O, s:s, s:{s:O, s:O}}", "id", json_object_get(call, "id"), "type", "function", "function",
                     "name", json_object_get(call, "name"), "arguments", json_object_get(call, "arguments"));
}

static void tool_call(api_answer *a, const json_t *call)
{
    json_t *j = tool_call_json(call);
    json_object_set_new(j, "index", json_integer((json_int_t)json_array_size(a->calls) - 1));
    send_delta(a, json_pack("{s:[o]}", "tool_calls", j), NULL);
}

static void finish(api_answer *a)
{
    send_delta(a, json_object(), finish_name(a->finish));
}

static void end(api_call *c)
{
    if (c->wants_usage) {
        json_t *j = envelope(c, "chat.completion.chunk", json_array());
        json_object_set_new(j, "usage", usage(c));
        call_send(c, NULL, j);
    }
    call_send_done(c);
}

static json_t *message(const api_answer *a)
{
    size_t i;
    json_t *call;
    json_t *calls = json_array();
    json_array_foreach(a->calls, i, call) json_array_append_new(calls, tool_call_json(call));
    json_t *text =
        i && !a->content.len ? json_null() : json_stringn(a->content.len ? a->content.data : "", a->content.len);
    json_t *m = json_pack("{s:s, s:o}", "role", "assistant", "content", text);
    if (a->reasoning.len)
        json_object_set_new(m, "reasoning_content", json_stringn(a->reasoning.data, a->reasoning.len));
    if (i) json_object_set(m, "tool_calls", calls);
    json_decref(calls);
    return m;
}

static json_t *whole(api_call *c)
{
    json_t *choices = json_array();
    for (int i = 0; i < c->n_answers; i++) {
        const api_answer *a = &c->answers[i];
        json_array_append_new(choices, json_pack("{s:i, s:o, s:o, s:s}", "index", i, "message", message(a), "logprobs",
                                                 logprobs_json(a), "finish_reason", finish_name(a->finish)));
    }
    json_t *j = envelope(c, "chat.completion", choices);
    json_object_set_new(j, "usage", usage(c));
    json_object_set_new(j, "timings", call_timings(&c->answers[0]));
    json_object_set_new(j, "speculation", spec_json(&c->answers[0].report.spec));
    return j;
}

/* ---- reading ---- */

static bool read_tools(api_call *c, api_error *e)
{
    const json_t *tools = NULL;
    if (!field_array(c->body, "tools", &tools, e)) return false;
    if (json_array_size(tools)) c->tools = json_incref((json_t *)(uintptr_t)tools);
    if (!field_bool(c->body, "parallel_tool_calls", &c->may_call_twice, e)) return false;
    return call_read_tool_choice(c, e);
}

static bool read_logprobs(api_call *c, api_error *e)
{
    if (!field_bool(c->body, "logprobs", &c->wants_logprobs, e)) return false;
    if (!field_int32(c->body, "top_logprobs", 0, API_MAX_TOP_LOGPROBS, &c->n_top_logprobs, e)) return false;
    if (c->n_top_logprobs && !c->wants_logprobs)
        return api_fail(e, 400, "top_logprobs", "%d: want logprobs to be true with it", (int)c->n_top_logprobs);
    return true;
}

static bool read_call(api_call *c, api_error *e)
{
    static const char *const max_names[] = {"max_completion_tokens", "max_tokens", "max_output_tokens", NULL};
    const json_t *messages = NULL;
    if (!field_array(c->body, "messages", &messages, e)) return false;
    c->messages = json_incref((json_t *)(uintptr_t)messages);
    return call_read_sampling(c, max_names, e) && call_read_stop(c, "stop", e) && read_tools(c, e) &&
           read_logprobs(c, e) && call_read_thinking(c, e) && call_render_chat(c, e);
}

const api_dialect dialect_chat = {.id_prefix = "chatcmpl-",
                                  .call_prefix = "call_",
                                  .read = read_call,
                                  .begin = begin,
                                  .reasoning = reasoning,
                                  .content = content,
                                  .tool_call = tool_call,
                                  .finish = finish,
                                  .end = end,
                                  .fail = call_send_error,
                                  .whole = whole};

void api_chat(api *a, http_exchange *x)
{
    call_serve(a, x, &dialect_chat);
}
