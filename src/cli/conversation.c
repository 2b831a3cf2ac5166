#include "cli/conversation.h"

#include <string.h>

#include "base/file_map.h"
#include "base/mem.h"

enum { MAX_FILE = 64 << 20 };

facet_status conversation_open(conversation *c, facet_error *err)
{
    c->messages = json_array();
    return c->messages ? FACET_OK : error_memory(err, "a conversation", 1);
}

void conversation_close(conversation *c)
{
    json_decref(c->messages);
    c->messages = NULL;
}

static const char *role_of(const json_t *message)
{
    const char *role = json_string_value(json_object_get(message, "role"));
    return role ? role : "";
}

static bool is_system(const json_t *message)
{
    return strcmp(role_of(message), "system") == 0 || strcmp(role_of(message), "developer") == 0;
}

static bool has_system(const conversation *c)
{
    return is_system(json_array_get(c->messages, 0));
}

size_t conversation_n_turns(const conversation *c)
{
    size_t n = 0, i;
    json_t *m;
    json_array_foreach(c->messages, i, m) n += strcmp(role_of(m), "user") == 0;
    return n;
}

const char *conversation_system(const conversation *c)
{
    return has_system(c) ? json_string_value(json_object_get(json_array_get(c->messages, 0), "content")) : NULL;
}

facet_status conversation_set_system(conversation *c, const char *text, facet_error *err)
{
    json_t *content = json_string(text);
    if (!content) return error_set(err, FACET_ERR_ARG, "the system text is not valid UTF-8");
    json_t *m = *text ? json_pack("{s:s, s:O}", "role", "system", "content", content) : NULL;
    json_decref(content);
    if (*text && !m) return error_memory(err, "the system text", strlen(text));
    if (has_system(c)) json_array_remove(c->messages, 0);
    if (m && json_array_insert_new(c->messages, 0, m) != 0) return error_memory(err, "the system text", strlen(text));
    return FACET_OK;
}

static facet_status add(conversation *c, json_t *message, facet_error *err)
{
    if (!message || json_array_append_new(c->messages, message) != 0) return error_memory(err, "a message", 1);
    return FACET_OK;
}

facet_status conversation_add_user(conversation *c, const char *text, size_t n, facet_error *err)
{
    return add(c, json_pack("{s:s, s:s%}", "role", "user", "content", text, n), err);
}

facet_status conversation_add_answer(conversation *c, const buf *content, const buf *reasoning, json_t *calls,
                                     facet_error *err)
{
    const bool has_calls = json_array_size(calls) > 0;
    json_t *text =
        has_calls && !content->len ? json_null() : json_stringn(content->len ? content->data : "", content->len);
    json_t *thought = reasoning->len ? json_stringn(reasoning->data, reasoning->len) : NULL;
    return add(c,
               json_pack("{s:s, s:o, s:o*, s:O*}", "role", "assistant", "content", text, "reasoning_content", thought,
                         "tool_calls", has_calls ? calls : NULL),
               err);
}

void conversation_truncate(conversation *c, size_t n)
{
    while (json_array_size(c->messages) > n) json_array_remove(c->messages, json_array_size(c->messages) - 1);
}

void conversation_reset(conversation *c)
{
    conversation_truncate(c, has_system(c) ? 1 : 0);
}

json_t *conversation_take_answer(conversation *c)
{
    json_t *answer = json_array();
    for (size_t n; answer && (n = json_array_size(c->messages)) > 0;) {
        json_t *last = json_array_get(c->messages, n - 1);
        if (strcmp(role_of(last), "assistant") != 0 || json_array_insert(answer, 0, last) != 0) break;
        json_array_remove(c->messages, n - 1);
    }
    return answer;
}

void conversation_give_back(conversation *c, json_t *answer)
{
    json_array_extend(c->messages, answer);
}

/* ---- file ---- */

typedef struct sink {
    file_writer w;
    facet_status status;
    facet_error *err;
} sink;

static int put(const char *data, size_t n, void *ud)
{
    sink *s = ud;
    s->status = file_writer_put(&s->w, data, n, s->err);
    return s->status == FACET_OK ? 0 : -1;
}

facet_status conversation_save(const conversation *c, const char *path, facet_error *err)
{
    if (json_array_size(c->messages) == 0)
        return error_set(err, FACET_ERR_ARG, "%s: not written: the conversation is empty", path);
    sink s = {.err = err};
    FACET_TRY(file_writer_open(path, &s.w, err));
    const int failed = json_dump_callback(c->messages, put, &s, JSON_INDENT(2));
    if (failed && s.status == FACET_OK) s.status = error_memory(err, path, 1);
    if (s.status == FACET_OK) s.status = file_writer_put(&s.w, "\n", 1, err);
    if (s.status == FACET_OK) s.status = file_writer_commit(&s.w, err);
    file_writer_abort(&s.w);
    return s.status;
}

static facet_status wrong(facet_error *err, size_t i, const char *field, const char *want)
{
    return error_set(err, FACET_ERR_FORMAT, "messages[%zu]%s: want %s", i, field, want);
}

static bool is_text(const json_t *content)
{
    size_t i;
    json_t *part;
    if (json_is_string(content)) return true;
    json_array_foreach(content, i, part)
    {
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type || strcmp(type, "text") != 0) return false;
    }
    return json_is_array(content);
}

/* What chat_render does not look at, or takes for more than text. */
static facet_status check_message(const json_t *m, size_t i, facet_error *err)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    enum { N_ROLES = sizeof roles / sizeof *roles };
    if (!json_is_object(m)) return wrong(err, i, "", "an object");
    const json_t *role = json_object_get(m, "role"), *content = json_object_get(m, "content");
    int k = 0;
    while (k < N_ROLES && strcmp(role_of(m), roles[k]) != 0) k++;
    if (k == N_ROLES)
        return error_set(err, FACET_ERR_FORMAT,
                         "messages[%zu].role: '%.40s': want system, developer, user, assistant or tool", i,
                         json_is_string(role) ? role_of(m) : "(no string)");
    if (is_system(m) && i > 0) return wrong(err, i, ".role", "a system message only as the first");
    const bool may_be_empty = strcmp(role_of(m), "assistant") == 0 && (!content || json_is_null(content));
    if (!may_be_empty && !is_text(content)) return wrong(err, i, ".content", "a string or text parts");
    return FACET_OK;
}

static facet_status check(const json_t *messages, chat_format format, facet_error *err)
{
    size_t i;
    json_t *m;
    if (!json_is_array(messages))
        return error_set(err, FACET_ERR_FORMAT, "want an array of messages, or an object with such a \"messages\"");
    json_array_foreach(messages, i, m) FACET_TRY(check_message(m, i, err));
    buf text = {0};
    const facet_status status = chat_render(messages, NULL, format, (chat_options){0}, &text, err);
    buf_free(&text);
    return status;
}

static facet_status parse(const char *data, size_t n, chat_format format, json_t **out, facet_error *err)
{
    json_error_t e;
    json_t *root = json_loadb(data, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (!root) return error_set(err, FACET_ERR_FORMAT, "line %d: %s", e.line, e.text);
    json_t *messages = json_is_object(root) ? json_object_get(root, "messages") : root;
    const facet_status status = check(messages, format, err);
    if (status == FACET_OK) *out = json_incref(messages);
    json_decref(root);
    if (status == FACET_ERR_ARG && err) err->status = FACET_ERR_FORMAT; /* the file's fault, not the caller's */
    return status == FACET_ERR_ARG ? FACET_ERR_FORMAT : status;
}

facet_status conversation_load(conversation *c, const char *path, chat_format format, facet_error *err)
{
    char *data;
    size_t n;
    json_t *messages = NULL;
    if (strcmp(path, "-") == 0) return error_set(err, FACET_ERR_ARG, "%s: want a file, not standard input", path);
    FACET_TRY(file_read_all(path, MAX_FILE, &data, &n, err));
    const facet_status status = parse(data, n, format, &messages, err);
    mem_free(data);
    if (status != FACET_OK) {
        error_prefix(err, "%s", path);
        return status;
    }
    json_decref(c->messages);
    c->messages = messages;
    return FACET_OK;
}
