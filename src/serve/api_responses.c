/* api_responses.c: POST /v1/responses: OpenAI's Responses interface, without what would have to be stored. */
#include "serve/api_responses.h"

#include <stdio.h>
#include <string.h>

#include "serve/api_fields.h"

enum { NO_ITEM, REASONING_ITEM, MESSAGE_ITEM };

/* ---- the response as a whole ---- */

static json_t *usage(const api_call *c)
{
    const text_report r = call_total(c);
    return json_pack("{s:i, s:{s:i}, s:i, s:{s:i}, s:i}", "input_tokens", (int)r.n_prompt, "input_tokens_details",
                     "cached_tokens", (int)r.n_cached, "output_tokens", (int)r.n_tokens, "output_tokens_details",
                     "reasoning_tokens", (int)call_thought_tokens(c), "total_tokens", (int)(r.n_prompt + r.n_tokens));
}

/* What the request said, as it said it; NULL: null. */
static void copy_field(const api_call *c, json_t *to, const char *name, json_t *otherwise)
{
    const json_t *v = field_get(c->body, name);
    json_object_set_new(to, name, v ? json_incref((json_t *)(uintptr_t)v) : json_incref(otherwise));
    json_decref(otherwise);
}

static json_t *response_json(const api_call *c, const char *status, const json_t *items)
{
    const bool is_cut = strcmp(status, "incomplete") == 0;
    json_t *j = json_pack("{s:s, s:s, s:I, s:s, s:s, s:n, s:n, s:b, s:n, s:s, s:n}", "id", c->id, "object", "response",
                          "created_at", (json_int_t)c->created, "status", status, "model", c->api->c.model_id, "error",
                          "previous_response_id", "store", 0, "user", "truncation", "disabled", "background");
    json_object_set_new(j, "output", items ? json_deep_copy(items) : json_array());
    json_object_set_new(j, "incomplete_details",
                        is_cut ? json_pack("{s:s}", "reason", "max_output_tokens") : json_null());
    json_object_set_new(j, "temperature", json_real((double)c->sampling.temperature));
    json_object_set_new(j, "top_p", json_real((double)c->sampling.top_p));
    json_object_set_new(j, "parallel_tool_calls", json_boolean(c->may_call_twice));
    copy_field(c, j, "instructions", json_null());
    copy_field(c, j, "max_output_tokens", json_null());
    copy_field(c, j, "tools", json_array());
    copy_field(c, j, "tool_choice", json_string("auto"));
    copy_field(c, j, "reasoning", json_pack("{s:n, s:n}", "effort", "summary"));
    copy_field(c, j, "metadata", json_object());
    copy_field(c, j, "text", json_pack("{s:{s:s}}", "format", "type", "text"));
    return j;
}

static const char *final_status(const api_answer *a)
{
    return a->finish == API_LENGTH ? "incomplete" : "completed";
}

static json_t *final_json(const api_call *c)
{
    const api_answer *a = &c->answers[0];
    json_t *j = response_json(c, final_status(a), a->items);
    json_object_set_new(j, "usage", usage(c));
    json_object_set_new(j, "timings", call_timings(a));
    json_object_set_new(j, "speculation", spec_json(&a->report.spec));
    return j;
}

/* ---- items: built in either mode, told about in streams ---- */

/* fields is taken; it gets the event's name and number. */
static void tell(api_call *c, const char *event, json_t *fields)
{
    if (c->is_stream) {
        json_object_set_new(fields, "type", json_string(event));
        json_object_set_new(fields, "sequence_number", json_integer(c->n_events++));
        call_send(c, event, json_incref(fields));
    }
    json_decref(fields);
}

static json_t *place(const api_answer *a, bool has_content)
{
    const size_t i = json_array_size(a->items) - 1;
    json_t *j = json_pack("{s:O, s:I}", "item_id", json_object_get(json_array_get(a->items, i), "id"), "output_index",
                          (json_int_t)i);
    if (has_content) json_object_set_new(j, "content_index", json_integer(0));
    return j;
}

static json_t *with(json_t *j, const char *name, json_t *value)
{
    json_object_set_new(j, name, value);
    return j;
}

static json_t *open_item(api_answer *a, const char *prefix, json_t *item)
{
    char id[80];
    if (!a->items) a->items = json_array();
    snprintf(id, sizeof id, "%s%s_%zu", prefix, a->call->id + strlen("resp_"), json_array_size(a->items));
    json_object_set_new(item, "id", json_string(id));
    json_object_set_new(item, "status", json_string("in_progress"));
    json_array_append_new(a->items, item);
    tell(a->call, "response.output_item.added",
         json_pack("{s:I, s:o}", "output_index", (json_int_t)json_array_size(a->items) - 1, "item",
                   json_deep_copy(item)));
    return item;
}

static void close_item(api_answer *a, json_t *item, const char *status)
{
    json_object_set_new(item, "status", json_string(status));
    tell(a->call, "response.output_item.done",
         json_pack("{s:I, s:o}", "output_index", (json_int_t)json_array_size(a->items) - 1, "item",
                   json_deep_copy(item)));
}

static json_t *text_part(int kind, const char *text, size_t n)
{
    if (kind == REASONING_ITEM) return json_pack("{s:s, s:s%}", "type", "reasoning_text", "text", text, n);
    return json_pack("{s:s, s:s%, s:[], s:[]}", "type", "output_text", "text", text, n, "annotations", "logprobs");
}

/* Ends the open item of text. */
static void close_text(api_answer *a, const char *status)
{
    const int kind = a->block;
    if (kind == NO_ITEM) return;
    const buf *all = kind == REASONING_ITEM ? &a->reasoning : &a->content;
    const char *text = all->data ? all->data + a->block_start : "";
    const size_t n = all->len - a->block_start;
    json_t *item = json_array_get(a->items, json_array_size(a->items) - 1);
    tell(a->call, kind == REASONING_ITEM ? "response.reasoning_text.done" : "response.output_text.done",
         with(place(a, true), "text", json_stringn(text, n)));
    tell(a->call, "response.content_part.done", with(place(a, true), "part", text_part(kind, text, n)));
    json_object_set_new(item, "content", json_pack("[o]", text_part(kind, text, n)));
    a->block = NO_ITEM;
    close_item(a, item, status);
}

static void open_text(api_answer *a, int kind, size_t n_new)
{
    const buf *all = kind == REASONING_ITEM ? &a->reasoning : &a->content;
    if (a->block == kind) return;
    close_text(a, "completed");
    a->block = kind;
    a->block_start = all->len - n_new;
    if (kind == REASONING_ITEM)
        open_item(a, "rs_", json_pack("{s:s, s:[], s:[]}", "type", "reasoning", "summary", "content"));
    else
        open_item(a, "msg_", json_pack("{s:s, s:s, s:[]}", "type", "message", "role", "assistant", "content"));
    tell(a->call, "response.content_part.added", with(place(a, true), "part", text_part(kind, "", 0)));
}

static void begin(api_answer *a)
{
    tell(a->call, "response.created", json_pack("{s:o}", "response", response_json(a->call, "in_progress", NULL)));
    tell(a->call, "response.in_progress", json_pack("{s:o}", "response", response_json(a->call, "in_progress", NULL)));
}

static void reasoning(api_answer *a, const char *text, size_t n)
{
    open_text(a, REASONING_ITEM, n);
    tell(a->call, "response.reasoning_text.delta", with(place(a, true), "delta", json_stringn(text, n)));
}

static void content(api_answer *a, const char *text, size_t n)
{
    open_text(a, MESSAGE_ITEM, n);
    tell(a->call, "response.output_text.delta",
         with(with(place(a, true), "delta", json_stringn(text, n)), "logprobs", json_array()));
}

static void tool_call(api_answer *a, const json_t *call)
{
    json_t *arguments = json_object_get(call, "arguments");
    close_text(a, "completed");
    json_t *item =
        open_item(a, "fc_",
                  json_pack("{s:s, s:O, s:O, s:s}", "type", "function_call", "call_id", json_object_get(call, "id"),
                            "name", json_object_get(call, "name"), "arguments", ""));
    tell(a->call, "response.function_call_arguments.delta", with(place(a, false), "delta", json_incref(arguments)));
    tell(a->call, "response.function_call_arguments.done", with(place(a, false), "arguments", json_incref(arguments)));
    json_object_set(item, "arguments", arguments);
    close_item(a, item, "completed");
}

static void finish(api_answer *a)
{
    close_text(a, final_status(a));
    if (!a->items) a->items = json_array();
}

static void end(api_call *c)
{
    const bool is_cut = c->answers[0].finish == API_LENGTH;
    tell(c, is_cut ? "response.incomplete" : "response.completed", json_pack("{s:o}", "response", final_json(c)));
}

static void fail(api_call *c, const api_error *e)
{
    tell(c, "error", json_pack("{s:s?, s:s, s:n}", "code", e->code, "message", e->message, "param"));
    json_t *j = response_json(c, "failed", c->answers[0].items);
    json_object_set_new(j, "error", json_pack("{s:s, s:s}", "code", "server_error", "message", e->message));
    tell(c, "response.failed", json_pack("{s:o}", "response", j));
}

static json_t *whole(api_call *c)
{
    api_answer *a = &c->answers[0];
    size_t i;
    json_t *call;
    if (a->reasoning.len) reasoning(a, a->reasoning.data, a->reasoning.len);
    if (a->content.len) content(a, a->content.data, a->content.len);
    json_array_foreach(a->calls, i, call) tool_call(a, call);
    finish(a);
    return final_json(c);
}

const api_dialect dialect_responses = {.id_prefix = "resp_",
                                       .call_prefix = "call_",
                                       .read = responses_read,
                                       .begin = begin,
                                       .reasoning = reasoning,
                                       .content = content,
                                       .tool_call = tool_call,
                                       .finish = finish,
                                       .end = end,
                                       .fail = fail,
                                       .whole = whole};

void api_responses(api *a, http_exchange *x)
{
    call_serve(a, x, &dialect_responses);
}
