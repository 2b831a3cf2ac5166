/* api_completions.c: POST /v1/completions: texts that go on from raw prompts. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "serve/api_call.h"
#include "serve/api_fields.h"
#include "serve/api_logprobs.h"

enum { DEFAULT_MAX_TOKENS = 16 }; /* the interface's */

/* ---- writing ---- */

static const char *finish_name(api_finish f)
{
    return f == API_LENGTH ? "length" : "stop";
}

static json_t *usage(const api_call *c)
{
    const text_report r = call_total(c);
    return json_pack("{s:i, s:i, s:i, s:{s:i}}", "prompt_tokens", (int)r.n_prompt, "completion_tokens", (int)r.n_tokens,
                     "total_tokens", (int)(r.n_prompt + r.n_tokens), "prompt_tokens_details", "cached_tokens",
                     (int)r.n_cached);
}

static json_t *envelope(const api_call *c, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", c->id, "object", "text_completion", "created",
                     (json_int_t)c->created, "model", c->api->c.model_id, "choices", choices);
}

static json_t *choice(const api_answer *a, const char *text, size_t n, const char *finish)
{
    const size_t offset = a->call->is_stream && n <= a->content.len ? a->content.len - n : 0;
    json_t *lists = a->call->wants_logprobs && n ? logprobs_lists(a->logprobs, offset) : json_null();
    return json_pack("{s:i, s:s%, s:o, s:s?}", "index", a->index, "text", text, n, "logprobs", lists, "finish_reason",
                     finish);
}

static void send_text(api_answer *a, const char *text, size_t n, const char *finish)
{
    json_t *j = envelope(a->call, json_pack("[o]", choice(a, text, n, finish)));
    if (finish) {
        json_object_set_new(j, "timings", call_timings(a));
        json_object_set_new(j, "speculation", spec_json(&a->report.spec));
    }
    call_send(a->call, NULL, j);
}

static void begin(api_answer *a)
{
    if (a->echo.len) send_text(a, a->echo.data, a->echo.len, NULL);
}

static void content(api_answer *a, const char *text, size_t n)
{
    send_text(a, text, n, NULL);
}

static void finish(api_answer *a)
{
    send_text(a, "", 0, finish_name(a->finish));
}

static void end(api_call *c)
{
    if (c->wants_usage) {
        json_t *j = envelope(c, json_array());
        json_object_set_new(j, "usage", usage(c));
        call_send(c, NULL, j);
    }
    call_send_done(c);
}

static json_t *whole(api_call *c)
{
    json_t *choices = json_array();
    for (int i = 0; i < c->n_answers; i++) {
        api_answer *a = &c->answers[i];
        buf_append(&a->echo, a->content.data ? a->content.data : "", a->content.len);
        if (!a->echo.failed)
            json_array_append_new(choices, choice(a, a->echo.data, a->echo.len, finish_name(a->finish)));
    }
    json_t *j = envelope(c, choices);
    json_object_set_new(j, "usage", usage(c));
    json_object_set_new(j, "timings", call_timings(&c->answers[0]));
    json_object_set_new(j, "speculation", spec_json(&c->answers[0].report.spec));
    return j;
}

/* ---- reading ---- */

static bool add_text(api_call *c, const json_t *text, api_error *e)
{
    int32_t *ids = NULL;
    size_t n = 0, cap = 0;
    facet_error err;
    if (tokenizer_encode(c->api->c.model->tok, json_string_value(text), json_string_length(text), true, SPECIAL_ALL,
                         &ids, &n, &cap, &err) != FACET_OK)
        return api_fail_with(e, &err);
    return call_add_prompt(c, ids, n, e);
}

static bool add_ids(api_call *c, const json_t *list, const char *path, api_error *e)
{
    const size_t n = json_array_size(list);
    const int32_t n_vocab = facet_model_n_vocab(c->api->c.model);
    int32_t *ids = mem_calloc(n, sizeof *ids);
    if (!ids) return api_fail_memory(e);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(list, i);
        char at[64], want[64];
        if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < n_vocab) {
            ids[i] = (int32_t)json_integer_value(id);
            continue;
        }
        mem_free(ids);
        field_path(at, sizeof at, "%s[%zu]", path, i);
        snprintf(want, sizeof want, "a token id from 0 to %d", (int)n_vocab - 1);
        return field_wrong(id, at, want, e);
    }
    return call_add_prompt(c, ids, n, e);
}

/* A text, token ids, or an array of either. */
static bool read_prompt(api_call *c, api_error *e)
{
    const json_t *v = field_get(c->body, "prompt");
    const size_t n = json_array_size(v);
    if (json_is_string(v)) return add_text(c, v, e);
    if (!n) return field_wrong(v, "prompt", "a string, token ids, or an array of either", e);
    if (json_is_integer(json_array_get(v, 0))) return add_ids(c, v, "prompt", e);
    if (n > (size_t)c->api->c.max_texts)
        return api_fail(e, 400, "prompt", "%zu prompts: this server makes at most %d texts", n, c->api->c.max_texts);
    for (size_t i = 0; i < n; i++) {
        const json_t *p = json_array_get(v, i);
        char path[32];
        field_path(path, sizeof path, "prompt[%zu]", i);
        if (!json_is_string(p) && !json_array_size(p)) return field_wrong(p, path, "a string or token ids", e);
        if (json_is_string(p) ? !add_text(c, p, e) : !add_ids(c, p, path, e)) return false;
    }
    return true;
}

static bool read_call(api_call *c, api_error *e)
{
    static const char *const max_names[] = {"max_tokens", NULL};
    int32_t best_of = 0;
    if (!call_read_sampling(c, max_names, e) || !call_read_stop(c, "stop", e)) return false;
    if (c->max_tokens < 0) c->max_tokens = DEFAULT_MAX_TOKENS;
    if (!field_int32(c->body, "best_of", 1, INT32_MAX, &best_of, e)) return false;
    if (best_of && best_of != c->n_choices)
        return api_fail(e, 400, "best_of", "%d: want the value of n (%d)", (int)best_of, c->n_choices);
    if (field_get(c->body, "suffix")) return api_fail(e, 400, "suffix", "this server only goes on from a prompt");
    if (!field_int32(c->body, "logprobs", 0, API_MAX_TOP_LOGPROBS, &c->n_top_logprobs, e)) return false;
    c->wants_logprobs = field_get(c->body, "logprobs") != NULL;
    if (!field_bool(c->body, "echo", &c->echoes, e)) return false;
    if (c->echoes && c->wants_logprobs)
        return api_fail(e, 400, "logprobs", "not together with echo: this server has none of prompts");
    return read_prompt(c, e);
}

const api_dialect dialect_completions = {.id_prefix = "cmpl-",
                                         .read = read_call,
                                         .begin = begin,
                                         .content = content,
                                         .finish = finish,
                                         .end = end,
                                         .fail = call_send_error,
                                         .whole = whole};

void api_completions(api *a, http_exchange *x)
{
    call_serve(a, x, &dialect_completions);
}
