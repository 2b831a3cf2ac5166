/* api_responses_read.c: from items to the messages that chats are rendered from. */
#include <stdio.h>
#include <string.h>

#include "serve/api_fields.h"
#include "serve/api_responses.h"

static bool is_type(const json_t *item, const char *type)
{
    const char *own = json_string_value(json_object_get(item, "type"));
    return own && strcmp(own, type) == 0;
}

/* A string, or parts of text under the names that the interface has for them. NULL and e. */
static json_t *text_content(const json_t *v, const char *path, api_error *e)
{
    size_t i;
    json_t *part;
    if (json_is_string(v)) return json_incref((json_t *)(uintptr_t)v);
    if (!json_is_array(v)) return field_wrong(v, path, "a string or an array of parts", e), NULL;
    json_t *parts = json_array();
    json_array_foreach(v, i, part)
    {
        const json_t *text = json_object_get(part, "text");
        const bool is_text = is_type(part, "input_text") || is_type(part, "output_text") || is_type(part, "text");
        if (is_text && json_is_string(text)) {
            json_array_append_new(parts, json_pack("{s:s, s:O}", "type", "text", "text", text));
            continue;
        }
        char at[64];
        field_path(at, sizeof at, "%s[%zu]", path, i);
        json_decref(parts);
        return field_wrong(json_object_get(part, "type"), at, "a part of text: this server takes text only", e), NULL;
    }
    return parts;
}

static json_t *last_assistant(const api_call *c)
{
    json_t *m = json_array_get(c->messages, json_array_size(c->messages) - 1);
    const char *role = json_string_value(json_object_get(m, "role"));
    return role && strcmp(role, "assistant") == 0 ? m : NULL;
}

/* The thought that stands before it goes into the message. */
static json_t *add_message(api_call *c, const char *role, json_t *content, json_t **thought)
{
    json_t *m = json_pack("{s:s, s:o}", "role", role, "content", content);
    if (*thought && strcmp(role, "assistant") == 0) json_object_set(m, "reasoning_content", *thought);
    json_decref(*thought);
    *thought = NULL;
    json_array_append_new(c->messages, m);
    return m;
}

static bool take_message(api_call *c, const json_t *item, const char *path, json_t **thought, api_error *e)
{
    static const char *const roles[] = {"user", "assistant", "system", "developer"};
    char at[64];
    const json_t *v = json_object_get(item, "role");
    const char *role = json_string_value(v);
    int k = 0;
    while (k < 4 && (!role || strcmp(role, roles[k]) != 0)) k++;
    field_path(at, sizeof at, "%s.role", path);
    if (k == 4) return field_wrong(v, at, "user, assistant, system or developer", e);
    field_path(at, sizeof at, "%s.content", path);
    json_t *content = text_content(json_object_get(item, "content"), at, e);
    if (!content) return false;
    add_message(c, roles[k], content, thought);
    return true;
}

/* Calls in a row belong to one message. */
static bool take_call(api_call *c, const json_t *item, const char *path, json_t **thought, api_error *e)
{
    const json_t *id = json_object_get(item, "call_id"), *name = json_object_get(item, "name"),
                 *arguments = json_object_get(item, "arguments");
    if (!json_is_string(id) || !json_is_string(name) || !json_is_string(arguments))
        return api_fail(e, 400, path, "want call_id, name and arguments, all strings");
    json_t *m = last_assistant(c);
    if (!m || *thought) m = add_message(c, "assistant", json_null(), thought);
    json_t *calls = json_object_get(m, "tool_calls");
    if (!calls) json_object_set_new(m, "tool_calls", calls = json_array());
    json_array_append_new(calls, json_pack("{s:O, s:s, s:{s:O, s:O}}", "id", id, "type", "function", "function", "name",
                                           name, "arguments", arguments));
    return true;
}

static bool take_output(api_call *c, const json_t *item, const char *path, api_error *e)
{
    char at[64];
    const json_t *id = json_object_get(item, "call_id");
    field_path(at, sizeof at, "%s.call_id", path);
    if (!json_is_string(id)) return field_wrong(id, at, "a string", e);
    field_path(at, sizeof at, "%s.output", path);
    json_t *content = text_content(json_object_get(item, "output"), at, e);
    if (!content) return false;
    json_array_append_new(c->messages,
                          json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id", id, "content", content));
    return true;
}

static bool take_thought(const json_t *item, json_t **thought, api_error *e)
{
    buf text = {0};
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(item, "content"), i, part)
    {
        const char *s = json_string_value(json_object_get(part, "text"));
        if (s) buf_puts(&text, s);
    }
    json_decref(*thought);
    *thought = text.len ? json_stringn(text.data, text.len) : NULL;
    const bool ok = !text.failed;
    buf_free(&text);
    return ok || api_fail_memory(e);
}

static bool take_item(api_call *c, const json_t *item, size_t i, json_t **thought, api_error *e)
{
    char path[48];
    field_path(path, sizeof path, "input[%zu]", i);
    if (!json_is_object(item)) return field_wrong(item, path, "an object", e);
    if (!field_get(item, "type") || is_type(item, "message")) return take_message(c, item, path, thought, e);
    if (is_type(item, "function_call")) return take_call(c, item, path, thought, e);
    if (is_type(item, "function_call_output")) return take_output(c, item, path, e);
    if (is_type(item, "reasoning")) return take_thought(item, thought, e);
    field_path(path, sizeof path, "input[%zu].type", i);
    return field_wrong(field_get(item, "type"), path, "message, function_call, function_call_output or reasoning", e);
}

static bool read_input(api_call *c, api_error *e)
{
    const json_t *v = field_get(c->body, "input");
    json_t *thought = NULL, *item;
    size_t i;
    bool ok = true;
    if (json_is_string(v)) {
        json_array_append_new(c->messages, json_pack("{s:s, s:O}", "role", "user", "content", v));
        return true;
    }
    if (!json_array_size(v)) return field_wrong(v, "input", "a string or an array of items", e);
    json_array_foreach(v, i, item) if (!(ok = take_item(c, item, i, &thought, e))) break;
    json_decref(thought);
    return ok;
}

/* Tools have no member "function" around their description here. */
static bool read_tools(api_call *c, api_error *e)
{
    const json_t *list = NULL;
    size_t i;
    json_t *tool;
    if (!field_array(c->body, "tools", &list, e)) return false;
    if (json_array_size(list)) c->tools = json_array();
    json_array_foreach(list, i, tool)
    {
        char path[32];
        field_path(path, sizeof path, "tools[%zu].type", i);
        if (!is_type(tool, "function"))
            return field_wrong(json_object_get(tool, "type"), path, "'function': this server has no tools of its own",
                               e);
        json_array_append_new(c->tools, json_pack("{s:s, s:O}", "type", "function", "function", tool));
    }
    return field_bool(c->body, "parallel_tool_calls", &c->may_call_twice, e) && call_read_tool_choice(c, e);
}

bool responses_read(api_call *c, api_error *e)
{
    static const char *const max_names[] = {"max_output_tokens", NULL};
    const char *instructions = NULL;
    c->messages = json_array();
    if (field_get(c->body, "previous_response_id"))
        return api_fail(e, 400, "previous_response_id", "this server stores no responses: want all items in input");
    if (!field_string(c->body, "instructions", &instructions, e)) return false;
    if (instructions)
        json_array_append_new(c->messages, json_pack("{s:s, s:s}", "role", "system", "content", instructions));
    if (!call_read_sampling(c, max_names, e)) return false;
    c->n_choices = 1;
    return read_input(c, e) && read_tools(c, e) && call_read_thinking(c, e) && call_render_chat(c, e);
}
