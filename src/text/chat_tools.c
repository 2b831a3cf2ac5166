#include <string.h>

#include "base/mem.h"
#include "text/chat_value.h"

/* Where one declaration stands. */
typedef struct declarer {
    buf *out;
    value_style style;
    facet_error *err;
} declarer;

static facet_status put_properties(declarer *d, const json_t *properties, bool from_schema, int depth);

static bool is_schema_word(const char *key)
{
    static const char *const words[] = {"description", "type", "properties", "required", "nullable"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(key, words[i]) == 0) return true;
    return false;
}

/* The type of a schema; of a list of types the first that is not "null"; else "". */
static const char *schema_type(const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    for (size_t i = 0; i < json_array_size(type); i++) {
        const char *s = json_string_value(json_array_get(type, i));
        if (s && strcmp(s, "null") != 0) return s;
    }
    return json_is_string(type) ? json_string_value(type) : "";
}

static bool type_is(const char *type, const char *name)
{
    for (; *name; type++, name++)
        if ((*type | 0x20) != *name) return false;
    return *type == 0;
}

static void put_type(declarer *d, const char *type)
{
    buf upper = {0};
    for (const char *c = type; *c; c++) buf_putc(&upper, *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c);
    if (upper.failed) d->out->failed = true;
    buf_puts(d->out, "type:");
    chat_put_string(d->out, upper.data ? upper.data : "", upper.len);
    buf_free(&upper);
}

/* `description:…` and whether it was written: only when it is a non-empty string. */
static bool put_description(declarer *d, const json_t *schema)
{
    const json_t *s = json_object_get(schema, "description");
    if (json_string_length(s) == 0) return false;
    buf_puts(d->out, "description:");
    chat_put_string(d->out, json_string_value(s), json_string_length(s));
    return true;
}

/* `required:[…]` and whether it was written. */
static bool put_required(declarer *d, const json_t *list, const char *before)
{
    if (json_array_size(list) == 0) return false;
    buf_puts(d->out, before);
    buf_puts(d->out, "required:[");
    for (size_t i = 0, n = 0; i < json_array_size(list); i++) {
        const json_t *name = json_array_get(list, i);
        if (!json_is_string(name)) continue;
        if (n++) buf_putc(d->out, ',');
        chat_put_string(d->out, json_string_value(name), json_string_length(name));
    }
    buf_putc(d->out, ']');
    return true;
}

/* One entry of an `items` schema. */
static facet_status put_item(declarer *d, const object_member *m, int depth)
{
    if (strcmp(m->key, "properties") == 0 && json_is_object(m->value)) {
        buf_puts(d->out, "properties:{");
        FACET_TRY(put_properties(d, m->value, false, depth + 1));
        buf_putc(d->out, '}');
        return FACET_OK;
    }
    if (strcmp(m->key, "type") == 0 && json_is_string(m->value)) {
        put_type(d, json_string_value(m->value));
        return FACET_OK;
    }
    value_style quoted = {.null_is_none = d->style.null_is_none, .quoted_keys = true};
    chat_put_raw(d->out, m->key, strlen(m->key));
    buf_putc(d->out, ':');
    return chat_put_value(d->out, m->value, quoted, depth + 1, d->err);
}

static facet_status put_items(declarer *d, const json_t *items, int depth)
{
    object_member *m = NULL;
    size_t n = 0, written = 0;
    facet_status status = chat_sort_members(items, &m, &n, d->err);
    buf_puts(d->out, "items:{");
    for (size_t i = 0; i < n && status == FACET_OK; i++) {
        if (json_is_null(m[i].value)) continue;
        if (written++) buf_putc(d->out, ',');
        status = put_item(d, &m[i], depth);
    }
    buf_putc(d->out, '}');
    mem_free(m);
    return status;
}

static bool is_truthy(const json_t *v)
{
    if (json_is_integer(v)) return json_integer_value(v) != 0;
    if (json_is_real(v)) return json_real_value(v) != 0;
    if (json_is_string(v)) return json_string_length(v) > 0;
    return json_is_true(v) || json_array_size(v) > 0 || json_object_size(v) > 0;
}

static facet_status put_object_fields(declarer *d, const json_t *schema, int depth)
{
    const json_t *properties = json_object_get(schema, "properties");
    bool is_given = json_is_object(properties);
    buf_puts(d->out, "properties:{");
    FACET_TRY(put_properties(d, is_given ? properties : schema, !is_given, depth + 1));
    buf_putc(d->out, '}');
    put_required(d, json_object_get(schema, "required"), ",");
    buf_putc(d->out, ',');
    return FACET_OK;
}

/* The fields of a property, in the fixed order of the format; every other keyword is dropped. */
static facet_status put_property(declarer *d, const json_t *schema, int depth)
{
    const char *type = schema_type(schema);
    const json_t *choices = json_object_get(schema, "enum"), *items = json_object_get(schema, "items");
    if (put_description(d, schema)) buf_putc(d->out, ',');
    if (type_is(type, "string") && json_is_array(choices)) {
        buf_puts(d->out, "enum:");
        FACET_TRY(chat_put_value(d->out, choices, d->style, depth + 1, d->err));
        buf_putc(d->out, ',');
    }
    if (type_is(type, "array") && json_object_size(items) > 0) {
        FACET_TRY(put_items(d, items, depth));
        buf_putc(d->out, ',');
    }
    if (is_truthy(json_object_get(schema, "nullable"))) buf_puts(d->out, "nullable:true,");
    if (type_is(type, "object")) FACET_TRY(put_object_fields(d, schema, depth));
    put_type(d, type);
    return FACET_OK;
}

/* The properties by name. Names that are schema words are left out, as by the reference template; from_schema: the
 * object is an object schema without `properties`, whose other members stand for them. */
static facet_status put_properties(declarer *d, const json_t *properties, bool from_schema, int depth)
{
    if (depth > CHAT_MAX_DEPTH)
        return error_set(d->err, FACET_ERR_ARG, "schema nested more than %d levels deep", CHAT_MAX_DEPTH);
    object_member *m = NULL;
    size_t n = 0, written = 0;
    facet_status status = chat_sort_members(properties, &m, &n, d->err);
    for (size_t i = 0; i < n && status == FACET_OK; i++) {
        if (is_schema_word(m[i].key) || (from_schema && !json_is_object(m[i].value))) continue;
        if (written++) buf_putc(d->out, ',');
        chat_put_raw(d->out, m[i].key, strlen(m[i].key));
        buf_puts(d->out, ":{");
        status = put_property(d, m[i].value, depth);
        buf_putc(d->out, '}');
    }
    mem_free(m);
    return status;
}

static facet_status put_parameters(declarer *d, const json_t *parameters)
{
    const json_t *properties = json_object_get(parameters, "properties");
    const char *type = schema_type(parameters);
    buf_puts(d->out, ",parameters:{");
    if (json_object_size(properties) > 0) {
        buf_puts(d->out, "properties:{");
        FACET_TRY(put_properties(d, properties, false, 1));
        buf_puts(d->out, "},");
    }
    if (put_required(d, json_object_get(parameters, "required"), "")) buf_putc(d->out, ',');
    put_type(d, *type ? type : "object");
    buf_putc(d->out, '}');
    return FACET_OK;
}

static void put_response(declarer *d, const json_t *response)
{
    buf_puts(d->out, ",response:{");
    if (put_description(d, response)) buf_putc(d->out, ',');
    put_type(d, "object");
    buf_putc(d->out, '}');
}

facet_status chat_put_declaration(buf *out, const json_t *tool, size_t index, value_style style, facet_error *err)
{
    declarer d = {.out = out, .style = style, .err = err};
    const json_t *function = json_object_get(tool, "function");
    const json_t *name = json_object_get(function, "name"), *text = json_object_get(function, "description");
    const json_t *parameters = json_object_get(function, "parameters"),
                 *response = json_object_get(function, "response");
    if (!json_is_string(name)) return error_set(err, FACET_ERR_ARG, "tools[%zu].function.name: want a string", index);
    if (parameters && !json_is_object(parameters) && !json_is_null(parameters))
        return error_set(err, FACET_ERR_ARG, "tools[%zu].function.parameters: want an object", index);
    buf_puts(out, "<|tool>declaration:");
    buf_append(out, json_string_value(name), json_string_length(name));
    buf_puts(out, "{description:");
    chat_put_string(out, json_is_string(text) ? json_string_value(text) : "", json_string_length(text));
    if (json_object_size(parameters) > 0) {
        facet_status status = put_parameters(&d, parameters);
        if (status != FACET_OK) {
            error_prefix(err, "tools[%zu].function.parameters", index);
            return status;
        }
    }
    if (json_object_size(response) > 0) put_response(&d, response);
    buf_puts(out, "}<tool|>");
    return FACET_OK;
}
