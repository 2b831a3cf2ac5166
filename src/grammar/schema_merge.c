/* schema_merge.c: $ref, and several schemas that must all fit as one. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "grammar/schema_compiler.h"

enum { MAX_FLATTEN = 32 /* schemas within schemas at one place */, MAX_PRODUCT = 256 /* of alternatives */ };

/* ---- $ref ---- */

/* One token of a JSON pointer, unescaped: %XX of the URI, then ~0 and ~1. */
static bool read_token(const char **p, buf *out)
{
    buf_clear(out);
    for (; **p && **p != '/'; ++*p) {
        unsigned byte = (unsigned char)**p;
        if (**p == '%') {
            static const char digits[] = "0123456789abcdef0123456789ABCDEF";
            const char *high = (*p)[1] ? strchr(digits, (*p)[1]) : NULL,
                       *low = high && (*p)[2] ? strchr(digits, (*p)[2]) : NULL;
            if (!low) return false;
            byte = (unsigned)((high - digits) % 16 * 16 + (low - digits) % 16);
            *p += 2;
            if (byte == 0) return false;
        } else if (**p == '~') {
            ++*p;
            if (**p != '0' && **p != '1') return false;
            byte = **p == '0' ? '~' : '/';
        }
        buf_putc(out, (char)byte);
    }
    return buf_reserve(out, 1);
}

static const json_t *child(const json_t *at, const char *token)
{
    if (json_is_object(at)) return json_object_get(at, token);
    if (!json_is_array(at) || !*token || strspn(token, "0123456789") != strlen(token) || strlen(token) > 9) return NULL;
    size_t i = 0;
    for (; *token; token++) i = i * 10 + (size_t)(*token - '0');
    return json_array_get(at, i);
}

facet_status schema_resolve(const schema_compiler *c, const json_t *schema, const char *path, const json_t **out)
{
    const char *ref = json_string_value(json_object_get(schema, "$ref")), *p = ref + 1;
    const json_t *at = c->root;
    buf token = {0};
    if (ref[0] != '#' || (ref[1] && ref[1] != '/'))
        return schema_fail(c, FACET_ERR_UNSUPPORTED, path, "$ref",
                           "'%.100s': only references within the document (\"#/...\") are supported", ref);
    while (at && *p) {
        p++;
        at = read_token(&p, &token) ? child(at, token.data ? token.data : "") : NULL;
    }
    const bool failed = token.failed;
    buf_free(&token);
    if (failed) return schema_no_memory(c);
    if (!at) return schema_fail(c, FACET_ERR_ARG, path, "$ref", "'%.100s' is not in the document", ref);
    if (!json_is_object(at) && !json_is_boolean(at))
        return schema_fail(c, FACET_ERR_ARG, path, "$ref", "'%.100s' is no schema", ref);
    *out = at;
    return FACET_OK;
}

/* ---- merging ---- */

typedef struct merger {
    schema_compiler *c;
    json_t *all;   /* what was merged so far; owned */
    bool is_false; /* it contradicts itself */
    bool failed;   /* memory */
} merger;

static void put(merger *m, const char *key, json_t *value)
{
    if (!value || json_object_set_new(m->all, key, value) != 0) m->failed = true;
}

static json_t *share(const json_t *v)
{
    return json_incref((json_t *)(uintptr_t)v);
}

/* A schema that demands both. */
static json_t *both(const json_t *x, const json_t *y)
{
    if (x == y || json_is_true(x) || json_is_false(y)) return share(y);
    if (json_is_true(y) || json_is_false(x)) return share(x);
    return json_pack("{s:[O,O]}", "allOf", x, y);
}

static void merge_types(merger *m, const json_t *part)
{
    static const char *const names[] = {"null", "boolean", "string", "array", "object"};
    static const unsigned kinds_of[] = {KIND_NULL, KIND_BOOLEAN, KIND_STRING, KIND_ARRAY, KIND_OBJECT};
    const unsigned kinds = schema_kinds(m->all) & schema_kinds(part);
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (kinds & kinds_of[i]) json_array_append_new(list, json_string(names[i]));
    if (kinds & KIND_INTEGER) json_array_append_new(list, json_string(kinds & KIND_FRACTION ? "number" : "integer"));
    put(m, "type", list);
    if (!kinds) m->is_false = true;
}

static bool has_value(const json_t *list, const json_t *value)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_array_get(list, i), value)) return true;
    return false;
}

static void merge_values(merger *m, const json_t *values)
{
    const json_t *old = json_object_get(m->all, "enum");
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(values); i++)
        if (!old || has_value(old, json_array_get(values, i))) json_array_append(list, json_array_get(values, i));
    if (json_array_size(list) == 0) m->is_false = true;
    put(m, "enum", list);
}

/* Keeps the greater (or, with is_maximum, the lesser) number. */
static void merge_limit(merger *m, const char *key, const json_t *value, bool is_maximum)
{
    const json_t *old = json_object_get(m->all, key);
    const bool is_old = old && (is_maximum ? json_number_value(old) <= json_number_value(value)
                                           : json_number_value(old) >= json_number_value(value));
    if (!is_old) put(m, key, share(value));
}

static json_int_t common_divisor(json_int_t a, json_int_t b)
{
    while (b) {
        const json_int_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

static facet_status merge_multiple(merger *m, const json_t *value, const char *path)
{
    const json_t *old = json_object_get(m->all, "multipleOf");
    if (!old || json_equal(old, value)) {
        put(m, "multipleOf", share(value));
        return FACET_OK;
    }
    const json_int_t a = json_integer_value(old), b = json_integer_value(value);
    json_int_t product;
    if (a < 1 || b < 1 || __builtin_mul_overflow(a / common_divisor(a, b), b, &product))
        return schema_fail(m->c, FACET_ERR_UNSUPPORTED, path, "multipleOf",
                           "two different values at one place, not both whole numbers");
    put(m, "multipleOf", json_integer(product));
    return FACET_OK;
}

/* Keywords of which there can be but one. */
static facet_status merge_same(merger *m, const char *key, const json_t *value, const char *path)
{
    const json_t *old = json_object_get(m->all, key);
    if (old && !json_equal(old, value))
        return schema_fail(m->c, FACET_ERR_UNSUPPORTED, path, key, "two different values at one place");
    put(m, key, share(value));
    return FACET_OK;
}

static facet_status merge_items(merger *m, const char *key, const json_t *value, const char *path)
{
    static const char *const keys[] = {"items", "prefixItems", "additionalItems"};
    const json_t *old = json_object_get(m->all, key);
    if (old && !json_is_array(old) && !json_is_array(value)) {
        put(m, key, both(old, value));
        return FACET_OK;
    }
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *other = json_object_get(m->all, keys[i]);
        if (other && !json_equal(other, value))
            return schema_fail(m->c, FACET_ERR_UNSUPPORTED, path, key,
                               "together with %s of another schema at one place", keys[i]);
    }
    put(m, key, share(value));
    return FACET_OK;
}

/* Every pair of alternatives. */
static facet_status merge_alternatives(merger *m, const char *key, const json_t *value, const char *path)
{
    const json_t *old = json_object_get(m->all, key);
    const size_t n = json_array_size(value), n_old = json_array_size(old);
    if (!old || json_equal(old, value)) {
        put(m, key, share(value));
        return FACET_OK;
    }
    if (n * n_old > MAX_PRODUCT)
        return schema_fail(m->c, FACET_ERR_LIMIT, path, key,
                           "%zu times %zu alternatives at one place, wanted at most %d", n_old, n, MAX_PRODUCT);
    json_t *list = json_array();
    for (size_t i = 0; i < n_old; i++)
        for (size_t k = 0; k < n; k++)
            json_array_append_new(list, both(json_array_get(old, i), json_array_get(value, k)));
    put(m, key, list);
    return FACET_OK;
}

/* What y demands of a property that it does not name. */
static json_t *others(const json_t *schema)
{
    const json_t *additional = json_object_get(schema, "additionalProperties");
    return additional ? share(additional) : json_true();
}

static facet_status merge_object(merger *m, const json_t *part, const char *path)
{
    const json_t *mine = json_object_get(m->all, "properties"), *theirs = json_object_get(part, "properties");
    const json_t *pattern = json_object_get(m->all, "patternProperties");
    const bool has_new = theirs || json_object_get(part, "additionalProperties");
    if ((pattern && has_new) || (json_object_get(part, "patternProperties") && json_object_size(m->all) &&
                                 (mine || pattern || json_object_get(m->all, "additionalProperties"))))
        return schema_fail(m->c, FACET_ERR_UNSUPPORTED, path, "patternProperties",
                           "together with the properties of another schema at one place");
    json_t *rest_mine = others(m->all), *rest_theirs = others(part), *merged = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)(uintptr_t)mine, key, value)
    {
        const json_t *other = json_object_get(theirs, key);
        json_object_set_new(merged, key, both(value, other ? other : rest_theirs));
    }
    json_object_foreach((json_t *)(uintptr_t)theirs, key, value) if (!json_object_get(mine, key))
        json_object_set_new(merged, key, both(rest_mine, value));
    if (json_object_size(merged)) put(m, "properties", share(merged));
    if (!json_is_true(rest_mine) || !json_is_true(rest_theirs))
        put(m, "additionalProperties", both(rest_mine, rest_theirs));
    if (json_object_get(part, "patternProperties"))
        put(m, "patternProperties", share(json_object_get(part, "patternProperties")));
    json_decref(merged);
    json_decref(rest_mine);
    json_decref(rest_theirs);
    return FACET_OK;
}

static void merge_required(merger *m, const json_t *names)
{
    json_t *list = json_copy(json_object_get(m->all, "required"));
    if (!list) list = json_array();
    for (size_t i = 0; i < json_array_size(names); i++)
        if (!has_value(list, json_array_get(names, i))) json_array_append(list, json_array_get(names, i));
    put(m, "required", list);
}

/* Draft 4 wrote {"minimum": 1, "exclusiveMinimum": true}. */
static void merge_exclusive(merger *m, const json_t *part, const char *key, const char *inclusive, bool is_maximum)
{
    const json_t *value = json_object_get(part, key), *limit = json_object_get(part, inclusive);
    if (json_is_number(value)) merge_limit(m, key, value, is_maximum);
    if (json_is_true(value) && limit) merge_limit(m, key, limit, is_maximum);
}

static facet_status merge_keyword(merger *m, const json_t *part, const char *key, const json_t *value, const char *path)
{
    static const char *const minima[] = {"minimum", "minLength", "minItems", "minProperties"};
    static const char *const maxima[] = {"maximum", "maxLength", "maxItems", "maxProperties"};
    for (size_t i = 0; i < sizeof minima / sizeof *minima; i++) {
        if (strcmp(key, minima[i]) == 0) merge_limit(m, key, value, false);
        if (strcmp(key, maxima[i]) == 0) merge_limit(m, key, value, true);
    }
    if (strcmp(key, "exclusiveMinimum") == 0) merge_exclusive(m, part, key, "minimum", false);
    if (strcmp(key, "exclusiveMaximum") == 0) merge_exclusive(m, part, key, "maximum", true);
    if (strcmp(key, "enum") == 0) merge_values(m, value);
    if (strcmp(key, "required") == 0) merge_required(m, value);
    if (strcmp(key, "uniqueItems") == 0 && json_is_true(value)) put(m, key, json_true());
    if (strcmp(key, "multipleOf") == 0) return merge_multiple(m, value, path);
    if (strcmp(key, "pattern") == 0 || strcmp(key, "format") == 0) return merge_same(m, key, value, path);
    if (strcmp(key, "items") == 0 || strcmp(key, "prefixItems") == 0 || strcmp(key, "additionalItems") == 0)
        return merge_items(m, key, value, path);
    if (strcmp(key, "anyOf") == 0 || strcmp(key, "oneOf") == 0) return merge_alternatives(m, key, value, path);
    if (strcmp(key, "const") == 0) {
        json_t *one = json_pack("[O]", value);
        merge_values(m, one);
        json_decref(one);
    }
    return FACET_OK;
}

static facet_status merge(merger *m, const json_t *schema, const char *path, int depth);

/* The schemas that stand in $ref and allOf of this one. */
static facet_status merge_parts(merger *m, const json_t *schema, const char *path, int depth)
{
    const json_t *list = json_object_get(schema, "allOf"), *target = NULL;
    buf at = {0};
    facet_status status = FACET_OK;
    if (json_object_get(schema, "$ref")) {
        FACET_TRY(schema_resolve(m->c, schema, path, &target));
        FACET_TRY(schema_path(m->c, &at, path, "$ref", -1));
        status = merge(m, target, at.data, depth + 1);
    }
    for (size_t i = 0; i < json_array_size(list) && status == FACET_OK; i++) {
        status = schema_path(m->c, &at, path, "allOf", (long)i);
        if (status == FACET_OK) status = merge(m, json_array_get(list, i), at.data, depth + 1);
    }
    buf_free(&at);
    return status;
}

/* Depth is at most MAX_FLATTEN. */
static facet_status merge(merger *m, const json_t *schema, const char *path, int depth)
{
    const char *key;
    json_t *value;
    if (depth > MAX_FLATTEN)
        return schema_fail(m->c, FACET_ERR_LIMIT, path, NULL,
                           "$ref and allOf lead back here, or are nested more than %d deep", MAX_FLATTEN);
    if (json_is_false(schema)) m->is_false = true;
    if (!json_is_object(schema)) return FACET_OK;
    FACET_TRY(schema_check_keywords(m->c, schema, path));
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        if (schema_is_annotation(key)) continue;
        FACET_TRY(merge_keyword(m, schema, key, value, path));
    }
    if (json_object_get(schema, "type")) merge_types(m, schema);
    if (schema_kinds_meant(schema) & KIND_OBJECT) FACET_TRY(merge_object(m, schema, path));
    return merge_parts(m, schema, path, depth);
}

static facet_status finish(merger *m, facet_status status, json_t **out)
{
    if (status == FACET_OK && m->failed) status = schema_no_memory(m->c);
    if (status != FACET_OK) {
        json_decref(m->all);
        return status;
    }
    if (m->is_false) json_decref(m->all);
    *out = m->is_false ? json_false() : m->all;
    return FACET_OK;
}

facet_status schema_flatten(schema_compiler *c, const json_t *schema, const char *path, json_t **out)
{
    merger m = {.c = c, .all = json_object()};
    if (!m.all) return schema_no_memory(c);
    return finish(&m, merge(&m, schema, path, 0), out);
}

facet_status schema_both(schema_compiler *c, const json_t *x, const json_t *y, const char *path, json_t **out)
{
    merger m = {.c = c, .all = json_object()};
    if (!m.all) return schema_no_memory(c);
    facet_status status = merge(&m, x, path, 0);
    if (status == FACET_OK) status = merge(&m, y, path, 0);
    return finish(&m, status, out);
}
