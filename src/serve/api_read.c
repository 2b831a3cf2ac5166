/* api_read.c: what the interfaces have in common in what they ask for. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "serve/api_call.h"
#include "serve/api_constraint.h"
#include "serve/api_fields.h"

enum { MAX_BIASES = 4096, MAX_STOP_BYTES = 1024 };

/* ---- sampling ---- */

/* {"123": -100, …}; also [[123, -100], …]. */
static bool read_bias_entry(facet_logit_bias *out, const char *key, const json_t *value, int32_t n_vocab, api_error *e)
{
    char *end;
    const long id = strtol(key, &end, 10);
    char path[64];
    field_path(path, sizeof path, "logit_bias.%.40s", key);
    if (end == key || *end || id < 0 || id >= n_vocab)
        return api_fail(e, 400, path, "want token ids from 0 to %d", (int)n_vocab - 1);
    if (!json_is_number(value) || !(fabs(json_number_value(value)) <= 100))
        return field_wrong(value, path, "a number from -100 to 100", e);
    /* the interface: "-100 … should result in a ban" */
    const double bias = json_number_value(value);
    *out = (facet_logit_bias){(int32_t)id, bias <= -100 ? -INFINITY : (float)bias};
    return true;
}

static bool read_bias(api_call *c, api_error *e)
{
    const json_t *o = NULL;
    const char *key;
    json_t *value;
    if (!field_object(c->body, "logit_bias", &o, e)) return false;
    const size_t n = json_object_size(o);
    if (n > MAX_BIASES) return api_fail(e, 400, "logit_bias", "%zu entries: want at most %d", n, MAX_BIASES);
    if (!n) return true;
    c->bias = mem_calloc(n, sizeof *c->bias);
    if (!c->bias) return api_fail_memory(e);
    c->sampling.n_bias = 0;
    json_object_foreach((json_t *)(uintptr_t)o, key,
                        value) if (!read_bias_entry(&c->bias[c->sampling.n_bias++], key, value,
                                                    facet_model_n_vocab(c->api->c.model), e)) return false;
    return true;
}

static bool add_stop(api_call *c, const char *name, const json_t *v, api_error *e)
{
    const size_t n = json_string_length(v);
    if (!json_is_string(v)) return field_wrong(v, name, "a string or an array of strings", e);
    if (n == 0 || n > MAX_STOP_BYTES || strlen(json_string_value(v)) != n)
        return api_fail(e, 400, name, "a text of %zu bytes: want 1 to %d, without a NUL", n, MAX_STOP_BYTES);
    if (c->n_stop == API_MAX_STOP) return api_fail(e, 400, name, "want at most %d texts", API_MAX_STOP);
    c->stop[c->n_stop++] = json_string_value(v);
    return true;
}

bool call_read_stop(api_call *c, const char *name, api_error *e)
{
    const json_t *v = field_get(c->body, name);
    size_t i;
    json_t *text;
    if (!v || (json_is_string(v) && !json_string_length(v))) return true;
    if (!json_is_array(v)) return add_stop(c, name, v, e);
    json_array_foreach(v, i, text) if (!add_stop(c, name, text, e)) return false;
    return true;
}

/* Names that clients give the repetition penalty and its window. */
static bool read_penalties(api_call *c, api_error *e)
{
    static const char *const names[] = {"repetition_penalty", "repeat_penalty", "rep_pen"};
    static const char *const windows[] = {"repeat_last_n", "rep_window"};
    facet_sampling *s = &c->sampling;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!field_float(c->body, names[i], 0.01, 100, &s->repeat_penalty, e)) return false;
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++)
        if (!field_int32(c->body, windows[i], -1, INT32_MAX, &s->penalty_last_n, e)) return false;
    return field_float(c->body, "presence_penalty", -100, 100, &s->presence_penalty, e) &&
           field_float(c->body, "frequency_penalty", -100, 100, &s->frequency_penalty, e);
}

static bool read_cuts(api_call *c, api_error *e)
{
    facet_sampling *s = &c->sampling;
    if (!field_float(c->body, "temperature", 0, 100, &s->temperature, e)) return false;
    if (!field_int32(c->body, "top_k", -1, INT32_MAX, &s->top_k, e)) return false;
    if (!field_float(c->body, "top_p", 0, 1, &s->top_p, e)) return false;
    if (!field_float(c->body, "min_p", 0, 1, &s->min_p, e)) return false;
    if (s->top_k < 0) s->top_k = 0;
    if (s->top_p < 1e-9f) s->top_p = 1e-9f; /* the best token alone */
    return true;
}

static bool read_speculation(api_call *c, api_error *e)
{
    const char *name = NULL;
    if (!field_string(c->body, "speculation", &name, e)) return false;
    if (!name || facet_spec_method_by_name(name, &c->speculation.method)) return true;
    return field_wrong(field_get(c->body, "speculation"), "speculation", "none, mtp, dflash, ngram or auto", e);
}

static bool read_seed(api_call *c, api_error *e)
{
    int64_t seed = (int64_t)c->sampling.seed;
    if (!field_int(c->body, "seed", INT64_MIN, INT64_MAX, &seed, e)) return false;
    if (seed != -1 || !field_get(c->body, "seed")) c->sampling.seed = (uint64_t)seed; /* -1: "draw one" */
    return true;
}

static bool read_max(api_call *c, const char *const *names, api_error *e)
{
    for (; *names; names++) {
        if (!field_int32(c->body, *names, 0, INT32_MAX, &c->max_tokens, e)) return false;
        if (field_get(c->body, *names)) return true;
    }
    return true;
}

bool call_read_sampling(api_call *c, const char *const *max_names, api_error *e)
{
    const json_t *options = NULL;
    int32_t n = 1;
    if (!read_max(c, max_names, e) || !read_cuts(c, e) || !read_penalties(c, e) || !read_seed(c, e)) return false;
    if (!read_bias(c, e) || !read_speculation(c, e)) return false;
    if (!field_int32(c->body, "n", 1, c->api->c.max_texts, &n, e)) return false;
    c->n_choices = n;
    if (!field_bool(c->body, "stream", &c->is_stream, e)) return false;
    if (!field_bool(c->body, "ignore_eos", &c->ignores_eos, e)) return false;
    if (!field_object(c->body, "stream_options", &options, e)) return false;
    if (options && !field_bool(options, "include_usage", &c->wants_usage, e)) return false;
    if (options && !field_bool(options, "include_drafts", &c->wants_drafts, e)) return false;
    return api_constraint_read(c->api, c->body, &c->grammar, e);
}

/* ---- tools and thoughts ---- */

bool call_read_tool_choice(api_call *c, api_error *e)
{
    const json_t *v = field_get(c->body, "tool_choice");
    const char *word = json_string_value(v);
    const json_t *function = json_object_get(v, "function"), *name = json_object_get(function ? function : v, "name");
    if (!v || (word && strcmp(word, "auto") == 0)) return true;
    if (word && strcmp(word, "none") == 0) {
        json_decref(c->tools);
        c->tools = NULL;
    } else if (word && strcmp(word, "required") == 0) {
        c->forced_tool = "";
    } else if (json_is_string(name)) {
        c->forced_tool = json_string_value(name);
    } else {
        return field_wrong(v, "tool_choice", "none, auto, required or a function's name", e);
    }
    return true;
}

/* none and minimal: no thought; low, medium and high: thoughts with the server's budgets. */
static bool read_effort(api_call *c, const json_t *in, const char *name, api_error *e)
{
    static const char *const efforts[] = {"low", "medium", "high", "none", "minimal"};
    const char *effort = NULL;
    if (!field_string(in, name, &effort, e)) return false;
    if (!effort) return true;
    for (int i = 0; i < 5; i++) {
        if (strcmp(effort, efforts[i]) != 0) continue;
        c->is_thinking = i < 3;
        if (i < 3) c->thinking_budget = c->api->c.effort_budget[i];
        return true;
    }
    return field_wrong(field_get(in, name), name, "none, minimal, low, medium or high", e);
}

/* The ways in which clients ask for thoughts. */
bool call_read_thinking(api_call *c, api_error *e)
{
    const json_t *reasoning = NULL, *template_options = NULL;
    if (!read_effort(c, c->body, "reasoning_effort", e)) return false;
    if (!field_object(c->body, "reasoning", &reasoning, e)) return false;
    if (reasoning && !read_effort(c, reasoning, "effort", e)) return false;
    if (!field_object(c->body, "chat_template_kwargs", &template_options, e)) return false;
    if (template_options && !field_bool(template_options, "enable_thinking", &c->is_thinking, e)) return false;
    if (!field_bool(c->body, "enable_thinking", &c->is_thinking, e)) return false;
    return field_int32(c->body, "thinking_budget", -1, INT32_MAX, &c->thinking_budget, e);
}

/* ---- chats ---- */

static bool check_part(const json_t *part, const char *path, api_error *e)
{
    char at[64];
    const char *type = json_string_value(json_object_get(part, "type"));
    if (!json_is_object(part) || !type) return field_wrong(part, path, "a part with a type", e);
    field_path(at, sizeof at, "%s.type", path);
    if (strcmp(type, "text") != 0) return api_fail(e, 400, at, "'%.40s': this server takes text only", type);
    field_path(at, sizeof at, "%s.text", path);
    const json_t *text = json_object_get(part, "text");
    return json_is_string(text) ? true : field_wrong(text, at, "a string", e);
}

static bool check_content(const json_t *content, bool may_lack, const char *path, api_error *e)
{
    size_t i;
    json_t *part;
    if (json_is_string(content) || (may_lack && (!content || json_is_null(content)))) return true;
    if (!json_is_array(content)) return field_wrong(content, path, "a string or an array of parts", e);
    json_array_foreach(content, i, part)
    {
        char at[64];
        field_path(at, sizeof at, "%s[%zu]", path, i);
        if (!check_part(part, at, e)) return false;
    }
    return true;
}

static bool check_message(const json_t *m, size_t i, api_error *e)
{
    static const char *const roles[] = {"system", "developer", "user", "tool", "assistant"};
    enum { N_ROLES = sizeof roles / sizeof *roles };
    char path[48];
    int k = 0;
    field_path(path, sizeof path, "messages[%zu]", i);
    if (!json_is_object(m)) return field_wrong(m, path, "an object", e);
    const char *role = json_string_value(json_object_get(m, "role"));
    while (k < N_ROLES && (!role || strcmp(role, roles[k]) != 0)) k++;
    field_path(path, sizeof path, "messages[%zu].role", i);
    if (k == N_ROLES)
        return field_wrong(json_object_get(m, "role"), path, "system, developer, user, assistant or tool", e);
    field_path(path, sizeof path, "messages[%zu].content", i);
    return check_content(json_object_get(m, "content"), k == N_ROLES - 1, path, e);
}

static bool check_tool(const json_t *tool, size_t i, api_error *e)
{
    char path[48];
    field_path(path, sizeof path, "tools[%zu].type", i);
    const char *type = json_string_value(json_object_get(tool, "type"));
    if (!type || strcmp(type, "function") != 0)
        return field_wrong(json_object_get(tool, "type"), path, "'function'", e);
    field_path(path, sizeof path, "tools[%zu].function.name", i);
    const json_t *name = json_object_get(json_object_get(tool, "function"), "name");
    if (!json_string_length(name) || strlen(json_string_value(name)) != json_string_length(name) ||
        strpbrk(json_string_value(name), "{}<|>\n"))
        return field_wrong(name, path, "a name without braces, '<', '>' and '|'", e);
    return true;
}

static bool check_chat(const api_call *c, api_error *e)
{
    size_t i;
    json_t *v;
    if (!json_array_size(c->messages))
        return field_wrong(c->messages, "messages", "an array with at least one message", e);
    json_array_foreach(c->messages, i, v) if (!check_message(v, i, e)) return false;
    json_array_foreach(c->tools, i, v) if (!check_tool(v, i, e)) return false;
    return true;
}

static bool has_tool(const api_call *c, const char *name)
{
    size_t i;
    json_t *v;
    json_array_foreach(c->tools, i,
                       v) if (strcmp(json_string_value(json_object_get(json_object_get(v, "function"), "name")),
                                     name) == 0) return true;
    return false;
}

/* A call that the request demands: the answer is made to begin with it, without a thought. */
static bool force_call(api_call *c, api_error *e)
{
    const char *name = c->forced_tool;
    if (!name) return true;
    if (!json_array_size(c->tools)) return api_fail(e, 400, "tool_choice", "a call is demanded, and tools is empty");
    if (*name && !has_tool(c, name)) return api_fail(e, 400, "tool_choice", "'%.60s' is not among the tools", name);
    if (!*name && json_array_size(c->tools) == 1)
        name = json_string_value(json_object_get(json_object_get(json_array_get(c->tools, 0), "function"), "name"));
    c->is_thinking = false;
    buf_printf(&c->forced, *name ? "<|tool_call>call:%s{" : "<|tool_call>call:", name);
    return c->forced.failed ? api_fail_memory(e) : true;
}

static bool ends_with(const buf *b, const char *s)
{
    const size_t n = strlen(s);
    return b->len >= n && memcmp(b->data + b->len - n, s, n) == 0;
}

static bool encode(const api_call *c, const char *text, size_t n, int32_t **ids, size_t *n_ids, api_error *e)
{
    size_t cap = 0;
    facet_error err;
    *ids = NULL;
    *n_ids = 0;
    if (tokenizer_encode(c->api->c.model->tok, text, n, false, SPECIAL_ALL, ids, n_ids, &cap, &err) == FACET_OK)
        return true;
    return api_fail_with(e, &err);
}

/* What a thought is ended with where it gets too long; none where the vocabulary cannot say it. */
static bool find_close(api_call *c, api_error *e)
{
    static const char close[] = "\n<channel|>";
    int32_t *ids;
    size_t n;
    if (!encode(c, close, sizeof close - 1, &ids, &n, e)) return false;
    if (n <= sizeof c->close_ids / sizeof *c->close_ids) {
        memcpy(c->close_ids, ids, n * sizeof *ids);
        c->n_close = n;
    }
    mem_free(ids);
    return true;
}

bool call_render_chat(api_call *c, api_error *e)
{
    buf text = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    facet_error err;
    c->is_chat = true;
    if (!check_chat(c, e) || !force_call(c, e) || !find_close(c, e)) return false;
    const chat_options o = {.enable_thinking = c->is_thinking, .add_generation_prompt = true, .reopen_turn = true};
    bool ok = chat_render(c->messages, c->tools, c->api->c.model->chat, o, &text, &err) == FACET_OK;
    if (!ok) api_fail_with(e, &err);
    c->starts_in_thought = ok && ends_with(&text, "<|channel>thought\n");
    if (ok && c->forced.len && (c->starts_in_thought || ends_with(&text, "<|tool_response>")))
        ok = api_fail(e, 400, "tool_choice", "a call cannot be demanded behind these messages");
    if (ok && c->forced.len) buf_append(&text, c->forced.data, c->forced.len);
    if (ok && text.failed) ok = api_fail_memory(e);
    ok = ok && encode(c, text.data, text.len, &ids, &n, e) && call_add_prompt(c, ids, n, e);
    buf_free(&text);
    return ok;
}
