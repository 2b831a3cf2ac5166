/* api_messages_read.c: from blocks of content to the messages that chats are rendered from. */
#include <stdio.h>
#include <string.h>

#include "serve/api_fields.h"
#include "serve/api_messages.h"

static const char *type_of(const json_t *block)
{
    const char *type = json_string_value(json_object_get(block, "type"));
    return type ? type : "";
}

static bool is_type(const json_t *block, const char *type)
{
    return strcmp(type_of(block), type) == 0;
}

static bool wrong_block(const json_t *block, const char *path, api_error *e)
{
    if (!json_is_object(block) || !*type_of(block)) return field_wrong(block, path, "a block with a type", e);
    return api_fail(e, 400, path, "a block of type '%.40s': this server does not take it here", type_of(block));
}

/* A string, or blocks of text, as the content of a message; what else there may be is refused. NULL and e. */
static json_t *text_content(const json_t *v, const char *path, api_error *e)
{
    size_t i;
    json_t *block;
    if (json_is_string(v)) return json_incref((json_t *)(uintptr_t)v);
    if (!json_is_array(v)) return field_wrong(v, path, "a string or an array of blocks", e), NULL;
    json_t *parts = json_array();
    json_array_foreach(v, i, block)
    {
        char at[64];
        field_path(at, sizeof at, "%s[%zu]", path, i);
        const json_t *text = json_object_get(block, "text");
        if (!is_type(block, "text") || !json_is_string(text)) {
            json_decref(parts);
            return wrong_block(block, at, e), NULL;
        }
        json_array_append_new(parts, json_pack("{s:s, s:O}", "type", "text", "text", text));
    }
    return parts;
}

static bool read_system(api_call *c, api_error *e)
{
    const json_t *v = field_get(c->body, "system");
    if (!v) return true;
    json_t *content = text_content(v, "system", e);
    if (!content) return false;
    json_array_append_new(c->messages, json_pack("{s:s, s:o}", "role", "system", "content", content));
    return true;
}

/* ---- user ---- */

static bool add_result(api_call *c, const json_t *block, const char *path, api_error *e)
{
    char at[80];
    field_path(at, sizeof at, "%s.tool_use_id", path);
    const json_t *id = json_object_get(block, "tool_use_id"), *v = field_get(block, "content");
    if (!json_is_string(id)) return field_wrong(id, at, "a string", e);
    field_path(at, sizeof at, "%s.content", path);
    json_t *content = v ? text_content(v, at, e) : json_string("");
    if (!content) return false;
    json_array_append_new(c->messages,
                          json_pack("{s:s, s:O, s:o}", "role", "tool", "tool_call_id", id, "content", content));
    return true;
}

/* Results of tools first, as they belong to the turn before; then the text. */
static bool add_user(api_call *c, const json_t *blocks, const char *path, api_error *e)
{
    size_t i;
    json_t *block, *parts = json_array();
    bool ok = true;
    json_array_foreach(blocks, i, block)
    {
        char at[64];
        field_path(at, sizeof at, "%s[%zu]", path, i);
        const json_t *text = json_object_get(block, "text");
        if (is_type(block, "tool_result"))
            ok = add_result(c, block, at, e);
        else if (is_type(block, "text") && json_is_string(text))
            json_array_append_new(parts, json_pack("{s:s, s:O}", "type", "text", "text", text));
        else
            ok = wrong_block(block, at, e);
        if (!ok) break;
    }
    if (ok && json_array_size(parts))
        json_array_append_new(c->messages, json_pack("{s:s, s:O}", "role", "user", "content", parts));
    json_decref(parts);
    return ok;
}

/* ---- assistant ---- */

typedef struct turn {
    buf text, thought;
    json_t *calls;
} turn;

static bool add_use(turn *t, const json_t *block, const char *path, api_error *e)
{
    char at[80];
    const json_t *id = json_object_get(block, "id"), *name = json_object_get(block, "name"),
                 *input = json_object_get(block, "input");
    field_path(at, sizeof at, "%s.input", path);
    if (!json_is_object(input)) return field_wrong(input, at, "an object", e);
    field_path(at, sizeof at, "%s.id and name", path);
    if (!json_is_string(id) || !json_is_string(name)) return field_wrong(id, at, "strings", e);
    json_array_append_new(t->calls, json_pack("{s:O, s:s, s:{s:O, s:O}}", "id", id, "type", "function", "function",
                                              "name", name, "arguments", input));
    return true;
}

static bool add_block(turn *t, const json_t *block, const char *path, api_error *e)
{
    const char *text = json_string_value(json_object_get(block, "text")),
               *thought = json_string_value(json_object_get(block, "thinking"));
    if (is_type(block, "text") && text) return buf_puts(&t->text, text) || api_fail_memory(e);
    if (is_type(block, "thinking") && thought) return buf_puts(&t->thought, thought) || api_fail_memory(e);
    if (is_type(block, "redacted_thinking")) return true; /* of another model; nothing can be read out of it */
    if (is_type(block, "tool_use")) return add_use(t, block, path, e);
    return wrong_block(block, path, e);
}

static json_t *turn_message(const turn *t)
{
    const bool has_calls = json_array_size(t->calls) > 0;
    json_t *content =
        has_calls && !t->text.len ? json_null() : json_stringn(t->text.len ? t->text.data : "", t->text.len);
    json_t *m = json_pack("{s:s, s:o}", "role", "assistant", "content", content);
    if (t->thought.len) json_object_set_new(m, "reasoning_content", json_stringn(t->thought.data, t->thought.len));
    if (has_calls) json_object_set(m, "tool_calls", t->calls);
    return m;
}

static bool add_assistant(api_call *c, const json_t *blocks, const char *path, api_error *e)
{
    size_t i;
    json_t *block;
    turn t = {.calls = json_array()};
    bool ok = true;
    json_array_foreach(blocks, i, block)
    {
        char at[64];
        field_path(at, sizeof at, "%s[%zu]", path, i);
        if (!(ok = add_block(&t, block, at, e))) break;
    }
    if (ok) json_array_append_new(c->messages, turn_message(&t));
    buf_free(&t.text);
    buf_free(&t.thought);
    json_decref(t.calls);
    return ok;
}

/* ---- the request ---- */

/* A last message of the assistant is the beginning of the answer. */
static bool take_beginning(api_call *c, const json_t *content, const char *path, api_error *e)
{
    const char *text = json_string_value(content);
    if (!text && json_array_size(content) == 1)
        text = json_string_value(json_object_get(json_array_get(content, 0), "text"));
    if (c->grammar)
        return api_fail(e, 400, path, "a beginning of the answer cannot stand together with a format of it");
    if (!text) return field_wrong(content, path, "one text, as the last message is the beginning of the answer", e);
    c->is_thinking = false;
    return buf_puts(&c->forced, text) || api_fail_memory(e);
}

static bool add_message(api_call *c, const json_t *m, size_t i, bool is_last, api_error *e)
{
    char path[48];
    const char *role = json_string_value(json_object_get(m, "role"));
    const json_t *content = json_object_get(m, "content");
    const bool is_user = role && strcmp(role, "user") == 0, is_assistant = role && strcmp(role, "assistant") == 0;
    field_path(path, sizeof path, "messages[%zu].role", i);
    if (!is_user && !is_assistant) return field_wrong(json_object_get(m, "role"), path, "user or assistant", e);
    field_path(path, sizeof path, "messages[%zu].content", i);
    if (is_assistant && is_last) return take_beginning(c, content, path, e);
    if (json_is_string(content)) {
        json_array_append_new(c->messages, json_pack("{s:s, s:O}", "role", role, "content", content));
        return true;
    }
    if (!json_is_array(content)) return field_wrong(content, path, "a string or an array of blocks", e);
    return is_user ? add_user(c, content, path, e) : add_assistant(c, content, path, e);
}

static bool read_messages(api_call *c, api_error *e)
{
    const json_t *list = NULL;
    size_t i;
    json_t *m;
    if (!field_array(c->body, "messages", &list, e)) return false;
    const size_t n = json_array_size(list);
    if (!n) return field_wrong(list, "messages", "an array with at least one message", e);
    json_array_foreach(list, i, m) if (!add_message(c, m, i, i + 1 == n, e)) return false;
    return true;
}

static bool add_tool(api_call *c, const json_t *tool, size_t i, api_error *e)
{
    char path[48];
    const json_t *type = field_get(tool, "type"), *schema = field_get(tool, "input_schema"),
                 *name = json_object_get(tool, "name"), *description = field_get(tool, "description");
    field_path(path, sizeof path, "tools[%zu].type", i);
    if (type && strcmp(json_string_value(type) ? json_string_value(type) : "", "custom") != 0)
        return field_wrong(type, path, "'custom': this server has no tools of its own", e);
    field_path(path, sizeof path, "tools[%zu].name", i);
    if (!json_is_string(name)) return field_wrong(name, path, "a string", e);
    field_path(path, sizeof path, "tools[%zu].input_schema", i);
    if (!json_is_object(schema)) return field_wrong(schema, path, "an object", e);
    json_array_append_new(c->tools, json_pack("{s:s, s:{s:O, s:O*, s:O}}", "type", "function", "function", "name", name,
                                              "description", description, "parameters", schema));
    return true;
}

static bool read_choice(api_call *c, api_error *e)
{
    const json_t *v = field_get(c->body, "tool_choice");
    bool is_single = false;
    if (!v) return true;
    if (!field_bool(v, "disable_parallel_tool_use", &is_single, e)) return false;
    c->may_call_twice = !is_single;
    if (is_type(v, "none")) {
        json_decref(c->tools);
        c->tools = NULL;
    } else if (is_type(v, "any")) {
        c->forced_tool = "";
    } else if (is_type(v, "tool") && json_is_string(json_object_get(v, "name"))) {
        c->forced_tool = json_string_value(json_object_get(v, "name"));
    } else if (!is_type(v, "auto")) {
        return field_wrong(json_object_get(v, "type"), "tool_choice.type", "auto, any, none, or tool with a name", e);
    }
    return true;
}

static bool read_tools(api_call *c, api_error *e)
{
    const json_t *list = NULL;
    size_t i;
    json_t *tool;
    if (!field_array(c->body, "tools", &list, e)) return false;
    if (json_array_size(list)) c->tools = json_array();
    json_array_foreach(list, i, tool) if (!add_tool(c, tool, i, e)) return false;
    return read_choice(c, e);
}

/* {"type": "enabled", "budget_tokens": n}; "adaptive" has no budget. */
static bool read_thinking(api_call *c, api_error *e)
{
    const json_t *v = NULL;
    if (!field_object(c->body, "thinking", &v, e)) return false;
    if (!v) return true;
    const bool is_on = is_type(v, "enabled") || is_type(v, "adaptive");
    if (!is_on && !is_type(v, "disabled"))
        return field_wrong(json_object_get(v, "type"), "thinking.type", "enabled, adaptive or disabled", e);
    c->is_thinking = is_on;
    return field_int32(v, "budget_tokens", 1, INT32_MAX, &c->thinking_budget, e);
}

bool messages_read(api_call *c, bool is_counting, api_error *e)
{
    static const char *const max_names[] = {"max_tokens", NULL};
    c->messages = json_array();
    if (!call_read_sampling(c, max_names, e) || !call_read_stop(c, "stop_sequences", e)) return false;
    if (c->max_tokens < 0 && !is_counting) return field_wrong(NULL, "max_tokens", "a whole number", e);
    c->n_choices = 1;
    return read_thinking(c, e) && read_system(c, e) && read_messages(c, e) && read_tools(c, e) &&
           call_render_chat(c, e);
}
