#include "grammar/schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "grammar/schema_compiler.h"

/* ---- messages and pointers ---- */

static void append_token(buf *out, const char *key)
{
    buf_putc(out, '/');
    for (; *key; key++) {
        if (*key == '~' || *key == '/')
            buf_puts(out, *key == '~' ? "~0" : "~1"); /* RFC 6901 */
        else
            buf_putc(out, *key);
    }
}

facet_status schema_no_memory(const schema_compiler *c)
{
    return error_memory(c->err, "a JSON schema", c->n_entries * sizeof *c->entries);
}

facet_status schema_path(const schema_compiler *c, buf *out, const char *path, const char *key, long index)
{
    buf_clear(out);
    buf_puts(out, path);
    append_token(out, key);
    if (index >= 0) buf_printf(out, "/%ld", index);
    return out->failed ? schema_no_memory(c) : FACET_OK;
}

facet_status schema_fail(const schema_compiler *c, facet_status status, const char *path, const char *key,
                         const char *fmt, ...)
{
    char message[256];
    buf at = {0};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    buf_puts(&at, path);
    if (key) append_token(&at, key);
    error_set(c->err, status, "%s: %s", at.data && !at.failed ? at.data : path, message);
    buf_free(&at);
    return status;
}

facet_status schema_count(const schema_compiler *c, const json_t *schema, const char *path, const char *key,
                          int32_t *out)
{
    const json_t *v = json_object_get(schema, key);
    if (!v) return FACET_OK;
    const double x = json_number_value(v);
    if (x > GRAMMAR_MAX_COUNT)
        return schema_fail(c, FACET_ERR_LIMIT, path, key, "%.0f: wanted at most %d", x, GRAMMAR_MAX_COUNT);
    *out = (int32_t)x;
    return FACET_OK;
}

static facet_status copy_pointer(schema_compiler *c, const char *path, char **out)
{
    const size_t n = strlen(path) + 1;
    if (n > SCHEMA_MAX_POINTERS - c->pointer_bytes)
        return error_set(c->err, FACET_ERR_LIMIT, "%.200s...: the JSON schema is nested too deeply", path);
    c->pointer_bytes += n;
    *out = mem_strdup(path);
    return *out ? FACET_OK : schema_no_memory(c);
}

/* ---- where the parts of the document stand ---- */

static facet_status add_place(schema_compiler *c, const json_t *part, const char *path)
{
    if (c->n_places == c->cap_places) {
        const size_t cap = 2 * c->cap_places + 64;
        schema_place *p = mem_resize_array(c->places, cap, sizeof *p);
        if (!p) return schema_no_memory(c);
        c->places = p;
        c->cap_places = cap;
    }
    char *copy = NULL;
    FACET_TRY(copy_pointer(c, path, &copy));
    c->places[c->n_places++] = (schema_place){part, copy};
    return FACET_OK;
}

/* Places of what an object or array holds; scalars have no place, since equal ones are the same object in memory. */
static facet_status add_children(schema_compiler *c, size_t parent, buf *path)
{
    json_t *part = (json_t *)(uintptr_t)c->places[parent].part, *item;
    const char *key;
    size_t i;
    json_object_foreach(part, key, item)
    {
        if (!json_is_object(item) && !json_is_array(item)) continue;
        FACET_TRY(schema_path(c, path, c->places[parent].path, key, -1));
        FACET_TRY(add_place(c, item, path->data));
    }
    json_array_foreach(part, i, item)
    {
        char index[24];
        if (!json_is_object(item) && !json_is_array(item)) continue;
        snprintf(index, sizeof index, "%zu", i);
        FACET_TRY(schema_path(c, path, c->places[parent].path, index, -1));
        FACET_TRY(add_place(c, item, path->data));
    }
    return FACET_OK;
}

static int by_part(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t)((const schema_place *)a)->part, y = (uintptr_t)((const schema_place *)b)->part;
    return (x > y) - (x < y);
}

static facet_status find_places(schema_compiler *c)
{
    buf path = {0};
    facet_status status = add_place(c, c->root, "#");
    for (size_t i = 0; i < c->n_places && status == FACET_OK; i++) status = add_children(c, i, &path);
    buf_free(&path);
    if (status == FACET_OK) qsort(c->places, c->n_places, sizeof *c->places, by_part);
    return status;
}

static const char *place_of(const schema_compiler *c, const json_t *part)
{
    const schema_place key = {.part = part};
    const schema_place *p = bsearch(&key, c->places, c->n_places, sizeof *c->places, by_part);
    return p ? p->path : NULL;
}

/* ---- rules of subschemas ---- */

static size_t schema_slot(const schema_compiler *c, const json_t *schema)
{
    const uint64_t h = (uint64_t)(uintptr_t)schema * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(h >> 32) & c->by_schema_mask;
    while (c->by_schema[i] >= 0 && c->entries[c->by_schema[i]].schema != schema) i = (i + 1) & c->by_schema_mask;
    return i;
}

static facet_status grow_entries(schema_compiler *c)
{
    if (c->n_entries < c->cap_entries) return FACET_OK;
    const size_t cap = 2 * c->cap_entries + 64, n_slots = c->by_schema ? 2 * (c->by_schema_mask + 1) : 256;
    schema_entry *entries = mem_resize_array(c->entries, cap, sizeof *entries);
    if (!entries) return schema_no_memory(c);
    c->entries = entries;
    int32_t *slots = mem_resize_array(NULL, n_slots, sizeof *slots);
    if (!slots) return schema_no_memory(c);
    mem_free(c->by_schema);
    memset(slots, 0xff, n_slots * sizeof *slots);
    c->by_schema = slots;
    c->by_schema_mask = n_slots - 1;
    c->cap_entries = cap < n_slots / 2 ? cap : n_slots / 2;
    for (size_t i = 0; i < c->n_entries; i++) c->by_schema[schema_slot(c, c->entries[i].schema)] = (int32_t)i;
    return FACET_OK;
}

facet_status schema_rule(schema_compiler *c, const json_t *schema, const char *path, int32_t *rule)
{
    const char *place = json_is_object(schema) ? place_of(c, schema) : NULL;
    if (place) path = place;
    if (json_is_true(schema) || (json_is_object(schema) && json_object_size(schema) == 0)) {
        *rule = schema_part_rule(c, PART_VALUE);
        return FACET_OK;
    }
    FACET_TRY(grow_entries(c));
    const size_t slot = schema_slot(c, schema);
    if (json_is_object(schema) && c->by_schema[slot] >= 0) {
        *rule = c->entries[c->by_schema[slot]].rule;
        return FACET_OK;
    }
    if (c->n_entries == SCHEMA_MAX_RULES)
        return schema_fail(c, FACET_ERR_LIMIT, path, NULL, "more than %d subschemas", SCHEMA_MAX_RULES);
    char *copy = NULL;
    FACET_TRY(copy_pointer(c, path, &copy));
    *rule = builder_rule(&c->b, path);
    if (json_is_object(schema)) c->by_schema[slot] = (int32_t)c->n_entries;
    c->entries[c->n_entries++] = (schema_entry){schema, copy, *rule};
    return FACET_OK;
}

/* ---- one subschema ---- */

static facet_status keep(schema_compiler *c, json_t *made)
{
    return json_array_append_new(c->made, made) == 0 ? FACET_OK : schema_no_memory(c);
}

/* A real number with as few digits as tell it from others. */
static char *dump(const json_t *value)
{
    for (int digits = 15; digits <= 17; digits++) {
        char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION((size_t)digits));
        json_t *back = text ? json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
        const bool is_same = back && json_equal(back, value);
        json_decref(back);
        if (is_same || digits == 17 || !text) return text;
        free(text);
    }
    return NULL;
}

static facet_status compile_values(schema_compiler *c, const json_t *schema, const char *path, const json_t *values,
                                   int32_t from, int32_t to)
{
    const unsigned kinds = schema_kinds(schema);
    unsigned limited = schema_kinds_meant(schema);
    for (size_t i = 0; i < json_array_size(values); i++) {
        const json_t *v = json_array_get(values, i);
        if (!(schema_kind_of(v) & kinds)) continue;
        if (schema_kind_of(v) & limited)
            return schema_fail(c, FACET_ERR_UNSUPPORTED, path, NULL,
                               "enum or const together with keywords for the same type: leave those out");
        char *text = dump(v);
        if (!text) return schema_no_memory(c);
        schema_literal(c, from, text, to);
        free(text);
    }
    return FACET_OK;
}

static facet_status compile_alternatives(schema_compiler *c, const json_t *schema, const char *path, const char *key,
                                         int32_t from, int32_t to)
{
    const json_t *list = json_object_get(schema, key);
    json_t *rest = json_copy((json_t *)(uintptr_t)schema);
    const char *name;
    json_t *value;
    void *next;
    facet_status status = rest ? FACET_OK : schema_no_memory(c);
    if (rest) json_object_del(rest, key);
    json_object_foreach_safe(rest, next, name, value) if (schema_is_annotation(name)) json_object_del(rest, name);
    buf at = {0};
    for (size_t i = 0; i < json_array_size(list) && status == FACET_OK; i++) {
        const json_t *alternative = json_array_get(list, i);
        json_t *made = NULL;
        int32_t rule = GRAMMAR_NONE;
        status = schema_path(c, &at, path, key, (long)i);
        if (status == FACET_OK && json_object_size(rest)) {
            status = schema_both(c, rest, alternative, at.data, &made);
            if (status == FACET_OK) status = keep(c, made);
            alternative = made;
        }
        if (status == FACET_OK) status = schema_rule(c, alternative, at.data, &rule);
        if (status == FACET_OK) builder_call(&c->b, from, rule, to);
    }
    buf_free(&at);
    json_decref(rest);
    return status;
}

/* Without a type, a schema that speaks of strings alone is taken to mean strings, and so on. */
static facet_status compile_kinds(schema_compiler *c, const json_t *schema, const char *path, int32_t from, int32_t to)
{
    unsigned kinds = schema_kinds(schema), meant = schema_kinds_meant(schema);
    if (!json_object_get(schema, "type")) {
        if (!meant) {
            builder_call(&c->b, from, schema_part_rule(c, PART_VALUE), to);
            return FACET_OK;
        }
        kinds = meant;
    }
    if (kinds & KIND_NULL) schema_literal(c, from, "null", to);
    if (kinds & KIND_BOOLEAN) schema_literal(c, from, "true", to);
    if (kinds & KIND_BOOLEAN) schema_literal(c, from, "false", to);
    if (kinds & KIND_INTEGER) FACET_TRY(schema_number(c, schema, path, !(kinds & KIND_FRACTION), from, to));
    if (kinds & KIND_STRING) FACET_TRY(schema_string(c, schema, path, from, to));
    if (kinds & KIND_ARRAY) FACET_TRY(schema_array(c, schema, path, from, to));
    if (kinds & KIND_OBJECT) FACET_TRY(schema_object(c, schema, path, from, to));
    return FACET_OK;
}

/* Of a schema without $ref and allOf. */
static facet_status compile_flat(schema_compiler *c, const json_t *schema, const char *path, int32_t from, int32_t to)
{
    const json_t *constant = json_object_get(schema, "const"), *values = json_object_get(schema, "enum");
    if (json_object_get(schema, "anyOf")) return compile_alternatives(c, schema, path, "anyOf", from, to);
    if (json_object_get(schema, "oneOf")) return compile_alternatives(c, schema, path, "oneOf", from, to);
    if (values) return compile_values(c, schema, path, values, from, to);
    if (!constant) return compile_kinds(c, schema, path, from, to);
    json_t *one = json_pack("[O]", constant);
    if (!one) return schema_no_memory(c);
    const facet_status status = compile_values(c, schema, path, one, from, to);
    json_decref(one);
    return status;
}

static bool is_only(const json_t *schema, const char *key)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, name,
                        value) if (strcmp(name, key) != 0 && !schema_is_annotation(name)) return false;
    return json_object_get(schema, key);
}

static facet_status compile(schema_compiler *c, const json_t *schema, const char *path, int32_t rule)
{
    if (!json_is_object(schema)) return FACET_OK; /* false: nothing fits */
    const int32_t from = c->b.rules[rule].start, to = c->b.rules[rule].end;
    FACET_TRY(schema_check_keywords(c, schema, path));
    if (is_only(schema, "$ref")) {
        const json_t *target;
        int32_t called = GRAMMAR_NONE;
        FACET_TRY(schema_resolve(c, schema, path, &target));
        FACET_TRY(schema_rule(c, target, path, &called));
        builder_call(&c->b, from, called, to);
        return FACET_OK;
    }
    const bool is_simple = !json_object_get(schema, "$ref") && !json_object_get(schema, "allOf") &&
                           !(json_object_get(schema, "const") && json_object_get(schema, "enum"));
    if (is_simple) return compile_flat(c, schema, path, from, to);
    json_t *flat;
    FACET_TRY(schema_flatten(c, schema, path, &flat));
    FACET_TRY(keep(c, flat));
    return json_is_object(flat) ? compile_flat(c, flat, path, from, to) : FACET_OK;
}

/* ---- the document ---- */

static void begin(schema_compiler *c, facet_error *err)
{
    *c = (schema_compiler){.err = err};
    for (int i = 0; i < N_PARTS; i++) c->parts[i] = GRAMMAR_NONE;
}

static void end(schema_compiler *c)
{
    builder_free(&c->b);
    for (size_t i = 0; i < c->n_entries; i++) mem_free(c->entries[i].path);
    for (size_t i = 0; i < c->n_places; i++) mem_free(c->places[i].path);
    mem_free(c->entries);
    mem_free(c->places);
    mem_free(c->by_schema);
    json_decref(c->made);
    json_decref(c->root);
}

static facet_status load(schema_compiler *c, const char *text, size_t n)
{
    json_error_t e;
    if (n > SCHEMA_MAX_BYTES)
        return error_set(c->err, FACET_ERR_LIMIT, "the JSON schema has %zu bytes, wanted at most %d", n,
                         SCHEMA_MAX_BYTES);
    c->made = json_array();
    c->root = json_loadb(text, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &e);
    if (!c->root)
        return error_set(c->err, FACET_ERR_ARG, "the JSON schema: line %d, column %d: %s", e.line, e.column, e.text);
    if (!c->made) return schema_no_memory(c);
    if (!json_is_object(c->root) && !json_is_boolean(c->root))
        return schema_fail(c, FACET_ERR_ARG, "#", NULL, "wanted a schema: an object, true or false");
    return FACET_OK;
}

static facet_status parse(schema_compiler *c, const char *text, size_t n, grammar **out)
{
    int32_t root = GRAMMAR_NONE;
    FACET_TRY(load(c, text, n));
    FACET_TRY(find_places(c));
    FACET_TRY(schema_rule(c, c->root, "#", &root));
    for (; c->n_done < c->n_entries && c->b.status == FACET_OK; c->n_done++) {
        const schema_entry e = c->entries[c->n_done];
        FACET_TRY(compile(c, e.schema, e.path, e.rule));
    }
    return grammar_finish(&c->b, root, out, c->err);
}

facet_status schema_parse(const char *text, size_t n, grammar **out, facet_error *err)
{
    schema_compiler c;
    begin(&c, err);
    const facet_status status = parse(&c, text, n, out);
    end(&c);
    return status;
}

facet_status schema_any_object(grammar **out, facet_error *err)
{
    schema_compiler c;
    begin(&c, err);
    const int32_t root = schema_part_rule(&c, PART_OBJECT);
    const facet_status status = grammar_finish(&c.b, root, out, err);
    end(&c);
    return status;
}
