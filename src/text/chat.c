#define _GNU_SOURCE /* memmem */
#include "text/chat.h"

#include <string.h>

#include "base/buf.h"
#include "text/chat_value.h"

static const char empty_thought[] = "<|channel>thought\n<channel|>";

static bool contains(const char *s, size_t n, const char *what)
{
    return n && memmem(s, n, what, strlen(what)) != NULL;
}

/* The generation prompt stands last in every template: the empty thought block there marks the large models. */
static bool writes_empty_thought(const char *s, size_t n, bool if_unknown)
{
    static const char flag[] = "add_generation_prompt";
    const char *last = NULL, *at = s;
    while ((at = memmem(at, n - (size_t)(at - s), flag, strlen(flag)))) last = ++at;
    return last ? contains(last, n - (size_t)(last - s), "<channel|>") : if_unknown;
}

chat_format chat_detect(const char *chat_template, size_t n, bool has_per_layer_embedding)
{
    chat_format format = {.generation = CHAT_JULY, .is_large = !has_per_layer_embedding, .has_template = false};
    if (!chat_template || n == 0) return format;
    format.has_template = true;
    format.is_large = writes_empty_thought(chat_template, n, format.is_large);
    if (contains(chat_template, n, "prev_non_tool_role")) return format;
    if (contains(chat_template, n, "OpenAI Chat Completions") || contains(chat_template, n, "prev_nt"))
        format.generation = CHAT_MAY;
    else if (contains(chat_template, n, "<|tool_call>call:"))
        format.generation = CHAT_APRIL;
    return format;
}

/* Where one rendering stands. */
typedef struct renderer {
    buf *out;
    const json_t *messages;
    size_t n_messages, last_user; /* last_user: SIZE_MAX when there is none */
    chat_format format;
    chat_options options;
    value_style style;
    facet_error *err;
} renderer;

/* How a message ended, which decides what may follow. */
typedef struct message_end {
    bool is_pending; /* calls without a response */
    bool has_responses, has_text;
} message_end;

static facet_status bad(const renderer *r, size_t i, const char *field, const char *want)
{
    return error_set(r->err, FACET_ERR_ARG, "messages[%zu].%s: want %s", i, field, want);
}

static const json_t *message(const renderer *r, size_t i)
{
    return json_array_get(r->messages, i);
}

static bool role_is(const json_t *m, const char *role)
{
    const char *s = json_string_value(json_object_get(m, "role"));
    return s && strcmp(s, role) == 0;
}

static bool is_system(const json_t *m)
{
    return role_is(m, "system") || role_is(m, "developer");
}

/* The nearest message before or after i that is no tool message; NULL when there is none. */
static const json_t *non_tool_before(const renderer *r, size_t i)
{
    while (i-- > 0)
        if (!role_is(message(r, i), "tool")) return message(r, i);
    return NULL;
}

static const json_t *non_tool_after(const renderer *r, size_t i)
{
    while (++i < r->n_messages)
        if (!role_is(message(r, i), "tool")) return message(r, i);
    return NULL;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Removes white space from both ends of what was appended from `start` on. */
static void trim_from(buf *out, size_t start)
{
    if (out->failed) return;
    size_t from = start;
    while (from < out->len && is_blank(out->data[from])) from++;
    while (out->len > from && is_blank(out->data[out->len - 1])) out->len--;
    if (out->len == start) return;
    memmove(out->data + start, out->data + from, out->len - from);
    out->len -= from - start;
    out->data[out->len] = 0;
}

/* Text without its thought channels: each piece between "<channel|>" up to its "<|channel>". */
static void put_without_thoughts(buf *out, const char *s, size_t n)
{
    static const char open[] = "<|channel>", close[] = "<channel|>";
    while (n) {
        const char *end = memmem(s, n, close, strlen(close));
        size_t piece = end ? (size_t)(end - s) : n;
        const char *thought = memmem(s, piece, open, strlen(open));
        buf_append(out, s, thought ? (size_t)(thought - s) : piece);
        size_t used = end ? piece + strlen(close) : n;
        s += used;
        n -= used;
    }
}

static void put_text(buf *out, const json_t *text, bool is_model)
{
    size_t start = out->len;
    if (is_model)
        put_without_thoughts(out, json_string_value(text), json_string_length(text));
    else
        buf_append(out, json_string_value(text), json_string_length(text));
    trim_from(out, start);
}

static facet_status put_part(renderer *r, size_t i, const json_t *part, bool is_model)
{
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, "text");
    if (type && strcmp(type, "text") == 0) {
        if (!json_is_string(text)) return bad(r, i, "content[].text", "a string");
        put_text(r->out, text, is_model);
    } else if (type && strcmp(type, "image") == 0) {
        buf_puts(r->out, r->format.generation == CHAT_APRIL ? "\n\n<|image|>\n\n" : "<|image|>");
    } else if (type && strcmp(type, "audio") == 0) {
        buf_puts(r->out, "<|audio|>");
    } else if (type && strcmp(type, "video") == 0) {
        buf_puts(r->out, "<|video|>");
    } else {
        return bad(r, i, "content[].type", "\"text\"");
    }
    return FACET_OK;
}

/* The content of message i: text or parts, each text trimmed. `after` follows each part. */
static facet_status put_content(renderer *r, size_t i, bool is_model, const char *after)
{
    const json_t *content = json_object_get(message(r, i), "content");
    if (!content || json_is_null(content)) return FACET_OK;
    if (json_is_string(content)) {
        put_text(r->out, content, is_model);
        return FACET_OK;
    }
    if (!json_is_array(content)) return bad(r, i, "content", "a string, null or a list of parts");
    for (size_t k = 0; k < json_array_size(content); k++) {
        FACET_TRY(put_part(r, i, json_array_get(content, k), is_model));
        buf_puts(r->out, after);
    }
    return FACET_OK;
}

static void put_thought(renderer *r, size_t i)
{
    const json_t *m = message(r, i), *text = json_object_get(m, "reasoning");
    bool has_calls = json_array_size(json_object_get(m, "tool_calls")) > 0;
    bool is_recent = r->last_user == SIZE_MAX || i > r->last_user;
    if (json_string_length(text) == 0) text = json_object_get(m, "reasoning_content");
    if (json_string_length(text) == 0 || r->format.generation == CHAT_APRIL) return;
    bool is_kept = r->format.generation == CHAT_MAY ? is_recent && has_calls
                                                    : is_recent || (r->options.preserve_thinking && has_calls);
    if (!is_kept) return;
    buf_puts(r->out, "<|channel>thought\n");
    buf_append(r->out, json_string_value(text), json_string_length(text));
    buf_puts(r->out, "\n<channel|>");
}

/* Arguments as an object; clients of the OpenAI interface send its JSON text. *owned is the caller's reference. */
static facet_status get_arguments(renderer *r, size_t i, const json_t *function, json_t **owned)
{
    json_t *arguments = json_object_get(function, "arguments");
    if (!arguments || json_is_null(arguments) || (json_is_string(arguments) && json_string_length(arguments) == 0)) {
        *owned = json_object();
    } else if (json_is_string(arguments)) {
        *owned = json_loadb(json_string_value(arguments), json_string_length(arguments), JSON_REJECT_DUPLICATES, NULL);
    } else {
        *owned = json_incref(arguments);
    }
    if (json_is_object(*owned)) return FACET_OK;
    json_decref(*owned);
    *owned = NULL;
    return bad(r, i, "tool_calls[].function.arguments", "an object, or its JSON text");
}

static facet_status put_call(renderer *r, size_t i, const json_t *call)
{
    const json_t *function = json_object_get(call, "function"), *name = json_object_get(function, "name");
    if (!json_is_string(name)) return bad(r, i, "tool_calls[].function.name", "a string");
    json_t *arguments = NULL;
    FACET_TRY(get_arguments(r, i, function, &arguments));
    buf_puts(r->out, "<|tool_call>call:");
    buf_append(r->out, json_string_value(name), json_string_length(name));
    facet_status status = chat_put_object(r->out, arguments, r->style, 0, r->err);
    if (status != FACET_OK) error_prefix(r->err, "messages[%zu].tool_calls[].function.arguments", i);
    buf_puts(r->out, "<tool_call|>");
    json_decref(arguments);
    return status;
}

static facet_status put_calls(renderer *r, size_t i, bool *has_calls)
{
    const json_t *calls = json_object_get(message(r, i), "tool_calls");
    *has_calls = json_array_size(calls) > 0;
    if (calls && !json_is_null(calls) && !json_is_array(calls)) return bad(r, i, "tool_calls", "a list");
    for (size_t k = 0; k < json_array_size(calls); k++) FACET_TRY(put_call(r, i, json_array_get(calls, k)));
    return FACET_OK;
}

/* `<|tool_response>response:NAME{…}<tool_response|>`; what is not an object becomes the member `value`. */
static facet_status put_response(renderer *r, size_t i, const char *name, const json_t *response)
{
    facet_status status;
    buf_puts(r->out, "<|tool_response>response:");
    buf_puts(r->out, name);
    if (json_is_object(response)) {
        status = chat_put_object(r->out, response, r->style, 0, r->err);
    } else {
        buf_puts(r->out, "{value:");
        status = chat_put_value(r->out, response, r->style, 1, r->err);
        buf_putc(r->out, '}');
    }
    if (status != FACET_OK) error_prefix(r->err, "messages[%zu]: tool response", i);
    buf_puts(r->out, "<tool_response|>");
    return status;
}

static facet_status put_native_responses(renderer *r, size_t i, const json_t *list)
{
    for (size_t k = 0; k < json_array_size(list); k++) {
        const json_t *entry = json_array_get(list, k), *response = json_object_get(entry, "response");
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (!response) return bad(r, i, "tool_responses[].response", "a value");
        FACET_TRY(put_response(r, i, name ? name : "unknown", response));
    }
    return FACET_OK;
}

/* Name of the function that tool message i answers: by the id among the calls of `caller`, else its own. */
static facet_status response_name(const renderer *r, size_t i, const json_t *caller, const char **name)
{
    const json_t *m = message(r, i), *calls = json_object_get(caller, "tool_calls"), *own = json_object_get(m, "name");
    const char *wanted = json_string_value(json_object_get(m, "tool_call_id"));
    for (size_t k = 0; wanted && k < json_array_size(calls); k++) {
        const json_t *call = json_array_get(calls, k);
        const char *id = json_string_value(json_object_get(call, "id"));
        if (!id || strcmp(id, wanted) != 0) continue;
        *name = json_string_value(json_object_get(json_object_get(call, "function"), "name"));
        return FACET_OK;
    }
    if (json_is_null(own) && r->format.generation == CHAT_MAY)
        return bad(r, i, "name", "a string where tool_call_id matches no call");
    *name = json_is_string(own) ? json_string_value(own) : "unknown";
    return FACET_OK;
}

/* The text of a tool message, untrimmed, as a JSON string (or, for April files, the object that it spells). */
static facet_status response_value(renderer *r, size_t i, json_t **owned)
{
    const json_t *content = json_object_get(message(r, i), "content");
    buf text = {0};
    facet_status status = FACET_OK;
    if (json_is_string(content)) {
        buf_append(&text, json_string_value(content), json_string_length(content));
    } else if (json_is_array(content)) {
        for (size_t k = 0; k < json_array_size(content) && status == FACET_OK; k++) {
            const json_t *part = json_object_get(json_array_get(content, k), "text");
            buf_append(&text, json_string_value(part), json_string_length(part));
            if (!json_is_string(part)) status = bad(r, i, "content[].text", "a string");
        }
    } else if (content && !json_is_null(content)) {
        status = bad(r, i, "content", "a string or text parts (objects go into tool_responses)");
    }
    if (status == FACET_OK && r->format.generation == CHAT_APRIL && text.len)
        *owned = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    if (status == FACET_OK && !json_is_object(*owned)) {
        json_decref(*owned);
        *owned = json_stringn(text.data ? text.data : "", text.len);
        if (!*owned || text.failed) status = error_memory(r->err, "a tool response", text.len);
    }
    buf_free(&text);
    return status;
}

static facet_status put_tool_message(renderer *r, size_t i, const json_t *caller)
{
    const char *name = "unknown";
    json_t *value = NULL;
    FACET_TRY(response_name(r, i, caller, &name));
    facet_status status = response_value(r, i, &value);
    if (status == FACET_OK) status = put_response(r, i, name, value);
    json_decref(value);
    return status;
}

/* The responses to the calls of message i: its own field, else the tool messages behind it. */
static facet_status put_responses(renderer *r, size_t i, bool *has_responses)
{
    const json_t *m = message(r, i), *native = json_object_get(m, "tool_responses");
    *has_responses = json_array_size(native) > 0;
    if (*has_responses) return put_native_responses(r, i, native);
    for (size_t k = i + 1; k < r->n_messages && role_is(message(r, k), "tool"); k++) {
        *has_responses = true;
        FACET_TRY(put_tool_message(r, k, m));
    }
    return FACET_OK;
}

static void close_message(renderer *r, size_t i, message_end end)
{
    const json_t *next = non_tool_after(r, i);
    bool is_open = end.has_responses && !end.has_text;
    if (r->format.generation != CHAT_APRIL && end.is_pending) {
        buf_puts(r->out, "<|tool_response>");
        return;
    }
    if (r->format.generation == CHAT_JULY && role_is(message(r, i), "assistant")) {
        if (next && role_is(next, "assistant")) return;
        is_open = is_open && !next;
    }
    if (!is_open) buf_puts(r->out, "<turn|>\n");
}

static facet_status put_message(renderer *r, size_t i, message_end *end)
{
    const json_t *m = message(r, i), *before = non_tool_before(r, i);
    bool is_model = role_is(m, "assistant"), has_calls = false;
    bool goes_on = is_model && before && role_is(before, "assistant") && r->format.generation != CHAT_APRIL;
    *end = (message_end){0};
    if (!goes_on) buf_printf(r->out, "<|turn>%s\n", is_model ? "model" : json_string_value(json_object_get(m, "role")));
    if (is_model) {
        put_thought(r, i);
        FACET_TRY(put_calls(r, i, &has_calls));
        FACET_TRY(put_responses(r, i, &end->has_responses));
    }
    size_t start = r->out->len;
    FACET_TRY(put_content(r, i, is_model, ""));
    end->has_text = r->out->len > start;
    end->is_pending = has_calls && !end->has_responses;
    close_message(r, i, *end);
    return FACET_OK;
}

static facet_status put_system(renderer *r, const json_t *tools)
{
    bool has_text = is_system(message(r, 0)), is_july = r->format.generation == CHAT_JULY;
    if (!has_text && !r->options.enable_thinking && json_array_size(tools) == 0) return FACET_OK;
    buf_puts(r->out, "<|turn>system\n");
    if (r->options.enable_thinking) buf_puts(r->out, r->format.generation == CHAT_APRIL ? "<|think|>" : "<|think|>\n");
    if (has_text) FACET_TRY(put_content(r, 0, false, is_july ? " " : ""));
    for (size_t k = 0; k < json_array_size(tools); k++)
        FACET_TRY(chat_put_declaration(r->out, json_array_get(tools, k), k, r->style, r->err));
    buf_puts(r->out, "<turn|>\n");
    return FACET_OK;
}

static void put_generation_prompt(renderer *r, message_end last)
{
    bool skips_thought = r->format.is_large && !r->options.enable_thinking;
    bool is_july = r->format.generation == CHAT_JULY;
    if (last.is_pending && r->format.generation != CHAT_APRIL) return;
    if (last.has_responses && last.has_text) {
        if (r->options.reopen_turn) buf_puts(r->out, "<|turn>model\n");
    } else if (last.has_responses) {
        if (is_july && r->options.enable_thinking) buf_puts(r->out, "<|channel>thought\n");
        if (r->format.generation == CHAT_APRIL && skips_thought) buf_puts(r->out, empty_thought);
    } else {
        buf_puts(r->out, "<|turn>model\n");
        if (skips_thought) buf_puts(r->out, empty_thought);
    }
}

/* A role stands in the prompt as it is: letters, digits, '_' and '-' only. */
static bool role_is_sound(const char *role)
{
    size_t n = role ? strlen(role) : 0;
    for (size_t i = 0; i < n; i++) {
        char c = role[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') && c != '_' && c != '-') return false;
    }
    return n > 0 && n <= 64;
}

/* Roles are sound, and each tool message has the call that it answers. */
static facet_status check_messages(renderer *r)
{
    const json_t *caller = NULL; /* last message that was no tool message */
    for (size_t i = 0; i < r->n_messages; i++) {
        const json_t *m = message(r, i);
        if (!json_is_object(m)) return error_set(r->err, FACET_ERR_ARG, "messages[%zu]: want an object", i);
        if (!role_is_sound(json_string_value(json_object_get(m, "role"))))
            return bad(r, i, "role", "a role name (letters, digits, '_', '-')");
        if (role_is(m, "user")) r->last_user = i;
        if (!role_is(m, "tool")) {
            caller = m;
            continue;
        }
        bool is_answer =
            caller && role_is(caller, "assistant") && json_array_size(json_object_get(caller, "tool_calls"));
        if (!is_answer || json_array_size(json_object_get(caller, "tool_responses")))
            return bad(r, i, "role", "tool messages only behind an assistant message with open tool_calls");
    }
    return FACET_OK;
}

static facet_status render(renderer *r, const json_t *tools)
{
    message_end last = {0};
    FACET_TRY(check_messages(r));
    buf_puts(r->out, "<bos>");
    FACET_TRY(put_system(r, tools));
    for (size_t i = is_system(message(r, 0)) ? 1 : 0; i < r->n_messages; i++)
        if (!role_is(message(r, i), "tool")) FACET_TRY(put_message(r, i, &last));
    if (r->options.add_generation_prompt) put_generation_prompt(r, last);
    return r->out->failed ? error_memory(r->err, "the prompt", r->out->len) : FACET_OK;
}

facet_status chat_render(const json_t *messages, const json_t *tools, chat_format format, chat_options options,
                         buf *out, facet_error *err)
{
    if (json_array_size(messages) == 0) return error_set(err, FACET_ERR_ARG, "messages: want a non-empty list");
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        return error_set(err, FACET_ERR_ARG, "tools: want a list");
    renderer r = {.out = out,
                  .messages = messages,
                  .n_messages = json_array_size(messages),
                  .last_user = SIZE_MAX,
                  .format = format,
                  .options = options,
                  .style = {.null_is_none = format.generation != CHAT_JULY},
                  .err = err};
    size_t before = out->len;
    facet_status status = render(&r, tools);
    if (status != FACET_OK && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    return status;
}
