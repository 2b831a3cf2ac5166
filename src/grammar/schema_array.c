/* schema_array.c: arrays: first the items that have a schema of their own each, then equal ones. */
#include "grammar/schema_compiler.h"

typedef struct array_shape {
    const json_t *prefix; /* array of schemas, may be NULL */
    const json_t *rest;   /* schema of the items behind; NULL = there are none */
    const char *prefix_key, *rest_key, *path;
    int32_t n_prefix, min, max;
} array_shape;

static facet_status read_shape(schema_compiler *c, const json_t *schema, const char *path, array_shape *a)
{
    const json_t *items = json_object_get(schema, "items"), *prefix = json_object_get(schema, "prefixItems");
    *a = (array_shape){.prefix = prefix,
                       .prefix_key = "prefixItems",
                       .rest = items,
                       .rest_key = "items",
                       .path = path,
                       .max = GRAMMAR_INFINITE};
    if (json_is_array(items)) { /* older drafts */
        a->prefix = items;
        a->prefix_key = "items";
        a->rest = json_object_get(schema, "additionalItems");
        a->rest_key = "additionalItems";
    }
    a->n_prefix = (int32_t)json_array_size(a->prefix);
    FACET_TRY(schema_count(c, schema, path, "minItems", &a->min));
    FACET_TRY(schema_count(c, schema, path, "maxItems", &a->max));
    if (json_is_true(json_object_get(schema, "uniqueItems")) && a->max > 1)
        return schema_fail(c, FACET_ERR_UNSUPPORTED, path, "uniqueItems",
                           "true is only supported with maxItems of at most 1");
    /* a schema that lists items and says nothing of others means those, unless it wants more */
    if (!a->rest && (a->n_prefix == 0 || a->min > a->n_prefix)) a->rest = json_true();
    if (json_is_false(a->rest)) a->rest = NULL;
    return FACET_OK;
}

/* Items with a schema of their own: *at is behind the last one; the array may be closed after min of them. */
static facet_status build_prefix(schema_compiler *c, const array_shape *a, int32_t *at, int32_t close)
{
    buf path = {0};
    facet_status status = FACET_OK;
    for (int32_t i = 0; i < a->n_prefix && i < a->max && status == FACET_OK; i++) {
        int32_t rule;
        const int32_t behind = builder_node(&c->b), item = i ? schema_mark(c, *at, ",") : *at;
        if (i && i >= a->min) schema_blank(c, *at, close);
        if (i == 0 && a->min == 0) builder_empty(&c->b, *at, close);
        status = schema_path(c, &path, a->path, a->prefix_key, i);
        if (status == FACET_OK) status = schema_rule(c, json_array_get(a->prefix, (size_t)i), path.data, &rule);
        if (status == FACET_OK) builder_call(&c->b, item, rule, behind);
        *at = behind;
    }
    buf_free(&path);
    return status;
}

static int32_t less(int32_t a, int32_t b)
{
    return a == GRAMMAR_INFINITE ? a : a > b ? a - b : 0;
}

static facet_status build_rest(schema_compiler *c, const array_shape *a, int32_t at, int32_t close)
{
    int32_t rule, min = less(a->min, a->n_prefix), max = less(a->max, a->n_prefix);
    buf path = {0};
    const int32_t further = builder_rule(&c->b, NULL), behind = builder_node(&c->b);
    facet_status status = schema_path(c, &path, a->path, a->rest_key, -1);
    if (status == FACET_OK) status = schema_rule(c, a->rest, path.data, &rule);
    buf_free(&path);
    if (status != FACET_OK || c->b.status != FACET_OK) return status;
    builder_call(&c->b, schema_mark(c, c->b.rules[further].start, ","), rule, c->b.rules[further].end);
    if (a->n_prefix == 0) { /* the first one has no comma before it */
        const int32_t first = builder_node(&c->b);
        if (min == 0) builder_empty(&c->b, at, close);
        builder_call(&c->b, at, rule, first);
        at = first;
        min = less(min, 1);
        max = less(max, 1);
    }
    builder_loop(&c->b, at, further, min, max, behind);
    schema_blank(c, behind, close);
    return FACET_OK;
}

facet_status schema_array(schema_compiler *c, const json_t *schema, const char *path, int32_t from, int32_t to)
{
    array_shape a;
    FACET_TRY(read_shape(c, schema, path, &a));
    if (a.min > a.max) return FACET_OK; /* nothing fits */
    int32_t at = schema_mark(c, from, "[");
    const int32_t close = builder_node(&c->b);
    const bool has_rest = a.rest && a.max > a.n_prefix;
    FACET_TRY(build_prefix(c, &a, &at, close));
    if (has_rest) {
        FACET_TRY(build_rest(c, &a, at, close));
    } else if (a.n_prefix == 0 || a.max == 0) {
        if (a.min == 0) builder_empty(&c->b, at, close);
    } else if (a.min <= a.n_prefix) {
        schema_blank(c, at, close);
    }
    builder_byte(&c->b, close, ']', ']', to);
    return FACET_OK;
}
