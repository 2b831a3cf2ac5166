/* schema_keywords.c: which keywords there are, what their values must be, and which are not supported. */
#include <math.h>
#include <string.h>

#include "grammar/schema_compiler.h"

typedef enum value_kind {
    ANY,
    TEXT,
    NUMBER,
    COUNT,
    BOOLEAN,
    SCHEMA,     /* an object or a boolean */
    SCHEMAS,    /* a non-empty array of schemas */
    SCHEMA_MAP, /* an object of schemas */
    NAMES,      /* an array of strings */
    VALUES,     /* a non-empty array */
    TYPES,      /* the name of a type, or an array of names */
    ITEMS,      /* a schema, or in older drafts an array of them */
    LIMIT,      /* a number, or in draft 4 a boolean */
    UNSUPPORTED
} value_kind;

static const struct keyword {
    const char *name;
    value_kind kind;
    unsigned kinds;  /* of values that it speaks of */
    const char *why; /* UNSUPPORTED: what to do without it */
} keywords[] = {
    {"$ref", TEXT, 0, NULL},
    {"$defs", SCHEMA_MAP, 0, NULL},
    {"definitions", SCHEMA_MAP, 0, NULL},
    {"type", TYPES, 0, NULL},
    {"enum", VALUES, 0, NULL},
    {"const", ANY, 0, NULL},
    {"allOf", SCHEMAS, 0, NULL},
    {"anyOf", SCHEMAS, 0, NULL},
    {"oneOf", SCHEMAS, 0, NULL},
    {"properties", SCHEMA_MAP, KIND_OBJECT, NULL},
    {"required", NAMES, KIND_OBJECT, NULL},
    {"additionalProperties", SCHEMA, KIND_OBJECT, NULL},
    {"patternProperties", SCHEMA_MAP, KIND_OBJECT, NULL},
    {"minProperties", COUNT, KIND_OBJECT, NULL},
    {"maxProperties", COUNT, KIND_OBJECT, NULL},
    {"items", ITEMS, KIND_ARRAY, NULL},
    {"prefixItems", SCHEMAS, KIND_ARRAY, NULL},
    {"additionalItems", SCHEMA, KIND_ARRAY, NULL},
    {"minItems", COUNT, KIND_ARRAY, NULL},
    {"maxItems", COUNT, KIND_ARRAY, NULL},
    {"uniqueItems", BOOLEAN, KIND_ARRAY, NULL},
    {"minLength", COUNT, KIND_STRING, NULL},
    {"maxLength", COUNT, KIND_STRING, NULL},
    {"pattern", TEXT, KIND_STRING, NULL},
    {"format", TEXT, 0, NULL},
    {"minimum", NUMBER, KIND_NUMBER, NULL},
    {"maximum", NUMBER, KIND_NUMBER, NULL},
    {"exclusiveMinimum", LIMIT, KIND_NUMBER, NULL},
    {"exclusiveMaximum", LIMIT, KIND_NUMBER, NULL},
    {"multipleOf", NUMBER, KIND_NUMBER, NULL},
    {"not", UNSUPPORTED, 0, "say what is wanted instead"},
    {"if", UNSUPPORTED, 0, "write the cases as anyOf"},
    {"then", UNSUPPORTED, 0, "write the cases as anyOf"},
    {"else", UNSUPPORTED, 0, "write the cases as anyOf"},
    {"contains", UNSUPPORTED, 0, "use items or prefixItems"},
    {"minContains", UNSUPPORTED, 0, "use items or prefixItems"},
    {"maxContains", UNSUPPORTED, 0, "use items or prefixItems"},
    {"propertyNames", UNSUPPORTED, 0, "use patternProperties"},
    {"dependentRequired", UNSUPPORTED, 0, "write the cases as anyOf"},
    {"dependentSchemas", UNSUPPORTED, 0, "write the cases as anyOf"},
    {"dependencies", UNSUPPORTED, 0, "write the cases as anyOf"},
    {"unevaluatedProperties", UNSUPPORTED, 0, "use additionalProperties"},
    {"unevaluatedItems", UNSUPPORTED, 0, "use items"},
    {"$dynamicRef", UNSUPPORTED, 0, "use $ref"},
    {"$recursiveRef", UNSUPPORTED, 0, "use $ref"},
    {"$anchor", UNSUPPORTED, 0, "refer by JSON pointer"},
    {"$dynamicAnchor", UNSUPPORTED, 0, "refer by JSON pointer"},
};

enum { N_KEYWORDS = sizeof keywords / sizeof *keywords };

static const struct keyword *find(const char *name)
{
    for (int i = 0; i < N_KEYWORDS; i++)
        if (strcmp(keywords[i].name, name) == 0) return &keywords[i];
    return NULL;
}

bool schema_is_annotation(const char *key)
{
    const struct keyword *k = find(key);
    return !k || strcmp(key, "$defs") == 0 || strcmp(key, "definitions") == 0;
}

/* ---- values ---- */

static bool is_schema(const json_t *v)
{
    return json_is_object(v) || json_is_boolean(v);
}

static bool are_schemas(const json_t *v)
{
    if (!json_is_array(v) || json_array_size(v) == 0) return false;
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!is_schema(json_array_get(v, i))) return false;
    return true;
}

static bool is_schema_map(const json_t *v)
{
    const char *key;
    json_t *item;
    if (!json_is_object(v)) return false;
    json_object_foreach((json_t *)(uintptr_t)v, key, item) if (!is_schema(item)) return false;
    return true;
}

static bool are_names(const json_t *v)
{
    if (!json_is_array(v)) return false;
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!json_is_string(json_array_get(v, i))) return false;
    return true;
}

static bool is_count(const json_t *v)
{
    if (json_is_real(v)) return json_real_value(v) >= 0 && json_real_value(v) == floor(json_real_value(v));
    return json_is_integer(v) && json_integer_value(v) >= 0;
}

static const struct type_name {
    const char *name;
    unsigned kinds;
} type_names[] = {{"null", KIND_NULL},     {"boolean", KIND_BOOLEAN}, {"integer", KIND_INTEGER},
                  {"number", KIND_NUMBER}, {"string", KIND_STRING},   {"array", KIND_ARRAY},
                  {"object", KIND_OBJECT}};

static unsigned kinds_of_name(const json_t *v)
{
    for (size_t i = 0; json_is_string(v) && i < sizeof type_names / sizeof *type_names; i++)
        if (strcmp(json_string_value(v), type_names[i].name) == 0) return type_names[i].kinds;
    return 0;
}

static bool are_types(const json_t *v)
{
    if (!json_is_array(v)) return kinds_of_name(v) != 0;
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!kinds_of_name(json_array_get(v, i))) return false;
    return json_array_size(v) > 0;
}

static const char *wanted(value_kind kind, const json_t *v)
{
    switch (kind) {
    case ANY:
    case UNSUPPORTED: return NULL;
    case TEXT: return json_is_string(v) ? NULL : "a string";
    case NUMBER: return json_is_number(v) ? NULL : "a number";
    case COUNT: return is_count(v) ? NULL : "a whole number of 0 or more";
    case BOOLEAN: return json_is_boolean(v) ? NULL : "true or false";
    case SCHEMA: return is_schema(v) ? NULL : "a schema (an object, true or false)";
    case SCHEMAS: return are_schemas(v) ? NULL : "an array of at least one schema";
    case SCHEMA_MAP: return is_schema_map(v) ? NULL : "an object of schemas";
    case NAMES: return are_names(v) ? NULL : "an array of strings";
    case VALUES: return json_is_array(v) && json_array_size(v) ? NULL : "an array of at least one value";
    case TYPES:
        return are_types(v) ? NULL : "null, boolean, integer, number, string, array, object, or an array of these";
    case ITEMS: return is_schema(v) || are_schemas(v) ? NULL : "a schema, or an array of schemas";
    case LIMIT: return json_is_number(v) || json_is_boolean(v) ? NULL : "a number";
    }
    return NULL;
}

facet_status schema_check_keywords(const schema_compiler *c, const json_t *schema, const char *path)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        const struct keyword *k = find(key);
        const char *want = k ? wanted(k->kind, value) : NULL;
        if (want) return schema_fail(c, FACET_ERR_ARG, path, key, "wanted %s", want);
        if (k && k->kind == UNSUPPORTED)
            return schema_fail(c, FACET_ERR_UNSUPPORTED, path, key, "this keyword is not supported: %s", k->why);
    }
    return FACET_OK;
}

/* ---- kinds ---- */

unsigned schema_kind_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL: return KIND_NULL;
    case JSON_TRUE:
    case JSON_FALSE: return KIND_BOOLEAN;
    case JSON_INTEGER: return KIND_INTEGER;
    case JSON_REAL: return json_real_value(v) == floor(json_real_value(v)) ? KIND_INTEGER : KIND_FRACTION;
    case JSON_STRING: return KIND_STRING;
    case JSON_ARRAY: return KIND_ARRAY;
    case JSON_OBJECT: return KIND_OBJECT;
    }
    return 0;
}

unsigned schema_kinds(const json_t *schema)
{
    const json_t *type = json_object_get(schema, "type");
    unsigned kinds = 0;
    if (!type) return KIND_ALL;
    if (!json_is_array(type)) return kinds_of_name(type);
    for (size_t i = 0; i < json_array_size(type); i++) kinds |= kinds_of_name(json_array_get(type, i));
    return kinds;
}

unsigned schema_kinds_meant(const json_t *schema)
{
    unsigned kinds = 0;
    for (int i = 0; i < N_KEYWORDS; i++)
        if (json_object_get(schema, keywords[i].name)) kinds |= keywords[i].kinds;
    if (json_object_get(schema, "format") && !(kinds & KIND_NUMBER)) kinds |= KIND_STRING;
    return kinds;
}
