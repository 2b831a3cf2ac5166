/* api_messages.c: POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages interface. */
#include "serve/api_messages.h"

#include <string.h>

#include "serve/api_fields.h"

enum { NO_BLOCK, THINKING_BLOCK, TEXT_BLOCK };

static const char *stop_reason(const api_answer *a)
{
    switch (a->finish) {
    case API_CALLS: return "tool_use";
    case API_LENGTH: return "max_tokens";
    case API_STOP_TEXT: return "stop_sequence";
    default: return "end_turn";
    }
}

static const char *stop_sequence(const api_answer *a)
{
    return a->finish == API_STOP_TEXT && a->stop_index >= 0 ? a->call->stop[a->stop_index] : NULL;
}

/* input_tokens are those that were evaluated; the others were read from the cache. */
static json_t *usage(const api_answer *a)
{
    const text_report *r = &a->report;
    return json_pack("{s:i, s:i, s:i, s:i}", "input_tokens", (int)(r->n_prompt - r->n_cached),
                     "cache_creation_input_tokens", 0, "cache_read_input_tokens", (int)r->n_cached, "output_tokens",
                     (int)r->n_tokens);
}

static json_t *envelope(const api_answer *a, json_t *content, const char *reason)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s?, s:s?, s:o}", "id", a->call->id, "type", "message", "role",
                     "assistant", "model", a->call->api->c.model_id, "content", content, "stop_reason", reason,
                     "stop_sequence", reason ? stop_sequence(a) : NULL, "usage", usage(a));
}

/* ---- streams ---- */

static void begin(api_answer *a)
{
    call_send(a->call, "message_start",
              json_pack("{s:s, s:o}", "type", "message_start", "message", envelope(a, json_array(), NULL)));
}

static void send_start(api_answer *a, json_t *block)
{
    call_send(
        a->call, "content_block_start",
        json_pack("{s:s, s:i, s:o}", "type", "content_block_start", "index", a->n_blocks, "content_block", block));
}

static void send_delta(api_answer *a, json_t *delta)
{
    call_send(a->call, "content_block_delta",
              json_pack("{s:s, s:i, s:o}", "type", "content_block_delta", "index", a->n_blocks, "delta", delta));
}

static void send_stop(api_answer *a)
{
    call_send(a->call, "content_block_stop",
              json_pack("{s:s, s:i}", "type", "content_block_stop", "index", a->n_blocks));
    a->n_blocks++;
}

/* Closes the open block unless it is of this kind. True: one of this kind must be opened. */
static bool change_block(api_answer *a, int kind)
{
    if (a->block == kind) return false;
    if (a->block != NO_BLOCK) send_stop(a);
    a->block = kind;
    return true;
}

static void reasoning(api_answer *a, const char *text, size_t n)
{
    if (change_block(a, THINKING_BLOCK))
        send_start(a, json_pack("{s:s, s:s, s:s}", "type", "thinking", "thinking", "", "signature", ""));
    send_delta(a, json_pack("{s:s, s:s%}", "type", "thinking_delta", "thinking", text, n));
}

static void content(api_answer *a, const char *text, size_t n)
{
    if (change_block(a, TEXT_BLOCK)) send_start(a, json_pack("{s:s, s:s}", "type", "text", "text", ""));
    send_delta(a, json_pack("{s:s, s:s%}", "type", "text_delta", "text", text, n));
}

static void tool_call(api_answer *a, const json_t *call)
{
    change_block(a, NO_BLOCK);
    send_start(a, json_pack("{s:s, s:O, s:O, s:{}}", "type", "tool_use", "id", json_object_get(call, "id"), "name",
                            json_object_get(call, "name"), "input"));
    send_delta(a,
               json_pack("{s:s, s:O}", "type", "input_json_delta", "partial_json", json_object_get(call, "arguments")));
    send_stop(a);
}

static void finish(api_answer *a)
{
    change_block(a, NO_BLOCK);
    call_send(a->call, "message_delta",
              json_pack("{s:s, s:{s:s, s:s?}, s:o, s:o, s:o}", "type", "message_delta", "delta", "stop_reason",
                        stop_reason(a), "stop_sequence", stop_sequence(a), "usage", usage(a), "timings",
                        call_timings(a), "speculation", spec_json(&a->report.spec)));
}

static void end(api_call *c)
{
    call_send(c, "message_stop", json_pack("{s:s}", "type", "message_stop"));
}

/* ---- whole replies ---- */

static json_t *use_block(const json_t *call)
{
    json_t *input = json_loads(json_string_value(json_object_get(call, "arguments")), 0, NULL);
    return json_pack("{s:s, s:O, s:O, s:o}", "type", "tool_use", "id", json_object_get(call, "id"), "name",
                     json_object_get(call, "name"), "input", input ? input : json_object());
}

static json_t *blocks(const api_answer *a)
{
    size_t i;
    json_t *call, *list = json_array();
    if (a->reasoning.len)
        json_array_append_new(list, json_pack("{s:s, s:s%, s:s}", "type", "thinking", "thinking", a->reasoning.data,
                                              a->reasoning.len, "signature", ""));
    if (a->content.len)
        json_array_append_new(list, json_pack("{s:s, s:s%}", "type", "text", "text", a->content.data, a->content.len));
    json_array_foreach(a->calls, i, call) json_array_append_new(list, use_block(call));
    return list;
}

static json_t *whole(api_call *c)
{
    const api_answer *a = &c->answers[0];
    json_t *j = envelope(a, blocks(a), stop_reason(a));
    json_object_set_new(j, "timings", call_timings(a));
    json_object_set_new(j, "speculation", spec_json(&a->report.spec));
    return j;
}

static bool read_message(api_call *c, api_error *e)
{
    return messages_read(c, false, e);
}

const api_dialect dialect_messages = {.id_prefix = "msg_",
                                      .call_prefix = "toolu_",
                                      .is_anthropic = true,
                                      .read = read_message,
                                      .begin = begin,
                                      .reasoning = reasoning,
                                      .content = content,
                                      .tool_call = tool_call,
                                      .finish = finish,
                                      .end = end,
                                      .fail = call_send_error,
                                      .whole = whole};

void api_messages(api *a, http_exchange *x)
{
    call_serve(a, x, &dialect_messages);
}

void api_count_tokens(api *a, http_exchange *x)
{
    api_call *c = NULL;
    api_error e = {0};
    json_t *body;
    if (api_read_body(x, &body, &e) && call_new(a, &dialect_messages, body, &c, &e) && messages_read(c, true, &e))
        api_reply_json(x, 200, json_pack("{s:i}", "input_tokens", (int)c->prompts[0].n));
    else
        api_reply_error(x, &e);
    call_close(c);
}
