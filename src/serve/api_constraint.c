#include "serve/api_constraint.h"

#include <stdlib.h>
#include <string.h>

#include "serve/api_fields.h"

static bool open_grammar(api *a, grammar_kind kind, const char *text, size_t n, const char *path, grammar_entry **out,
                         api_error *e)
{
    facet_error err;
    if (grammars_get(&a->grammars, a->c.model, kind, text, n, out, &err) == FACET_OK) return true;
    if (err.status == FACET_ERR_MEMORY) return api_fail_with(e, &err);
    return api_fail(e, 400, path, "%s", err.message);
}

static bool open_schema(api *a, const json_t *schema, const char *path, grammar_entry **out, api_error *e)
{
    if (!json_is_object(schema) && !json_is_boolean(schema)) return field_wrong(schema, path, "a JSON schema", e);
    char *text = json_dumps(schema, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) return api_fail_memory(e);
    const bool ok = open_grammar(a, GRAMMAR_SCHEMA, text, strlen(text), path, out, e);
    free(text);
    return ok;
}

/* {"type": "text" | "json_object" | "json_schema"}; the schema stands in the format, or in its member json_schema. */
static bool read_format(api *a, const json_t *format, const char *path, grammar_entry **out, api_error *e)
{
    char at[64];
    const char *type = NULL;
    if (!field_string(format, "type", &type, e)) return false;
    if (!type || strcmp(type, "text") == 0) return true;
    if (strcmp(type, "json_object") == 0) return open_grammar(a, GRAMMAR_OBJECT, NULL, 0, path, out, e);
    if (strcmp(type, "json_schema") == 0) {
        const json_t *inner = json_object_get(format, "json_schema");
        field_path(at, sizeof at, inner ? "%s.json_schema.schema" : "%s.schema", path);
        return open_schema(a, json_object_get(inner ? inner : format, "schema"), at, out, e);
    }
    field_path(at, sizeof at, "%s.type", path);
    return field_wrong(json_object_get(format, "type"), at, "text, json_object or json_schema", e);
}

/* Where the interfaces keep their format; the outer object may be missing. */
static const struct {
    const char *outer, *inner, *path;
} places[] = {{NULL, "response_format", "response_format"},
              {"text", "format", "text.format"},
              {"output_config", "format", "output_config.format"},
              {NULL, "output_format", "output_format"}};

bool api_constraint_read(api *a, const json_t *body, grammar_entry **out, api_error *e)
{
    const json_t *text = field_get(body, "grammar"), *schema = field_get(body, "json_schema");
    *out = NULL;
    for (size_t i = 0; i < sizeof places / sizeof *places && !*out; i++) {
        const json_t *outer = body, *format = NULL;
        if (places[i].outer && !field_object(body, places[i].outer, &outer, e)) return false;
        if (places[i].outer && outer == body) continue;
        if (!field_object(outer, places[i].inner, &format, e)) return false;
        if (format && !read_format(a, format, places[i].path, out, e)) return false;
    }
    if (!*out && schema) return open_schema(a, schema, "json_schema", out, e);
    if (*out || !text) return true;
    if (!json_is_string(text)) return field_wrong(text, "grammar", "a string of GBNF", e);
    return open_grammar(a, GRAMMAR_GBNF, json_string_value(text), json_string_length(text), "grammar", out, e);
}
