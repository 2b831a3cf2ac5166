/* schema_object.c: objects: members in the order of the schema, then others. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "grammar/regex.h"
#include "grammar/schema_compiler.h"

/* What is read of an object's keywords. */
typedef struct object_shape {
    const json_t *properties, *required; /* may be NULL */
    const json_t *additional;            /* schema of members that have no name here; NULL = there are none */
    const char *key_pattern;             /* which keys those may have; NULL = all */
    size_t key_pattern_bytes;
    int32_t min, max; /* members; max may be GRAMMAR_INFINITE */
    int32_t n_properties, n_required;
    const char *path;
} object_shape;

static bool is_required(const object_shape *o, const char *name)
{
    for (size_t i = 0; i < json_array_size(o->required); i++)
        if (strcmp(json_string_value(json_array_get(o->required, i)), name) == 0) return true;
    return false;
}

/* ---- keywords ---- */

/* Required members that are not among the properties get the schema of additional ones. */
static facet_status complete_properties(schema_compiler *c, object_shape *o, const json_t *additional)
{
    json_t *all = o->properties ? json_copy((json_t *)(uintptr_t)o->properties) : json_object();
    if (!all || json_array_append_new(c->made, all) != 0) return schema_no_memory(c);
    for (size_t i = 0; i < json_array_size(o->required); i++) {
        const char *name = json_string_value(json_array_get(o->required, i));
        if (json_object_get(all, name)) continue;
        json_t *value = additional ? json_incref((json_t *)(uintptr_t)additional) : json_true();
        if (json_object_set_new(all, name, value) != 0) return schema_no_memory(c);
    }
    o->properties = all;
    o->n_properties = (int32_t)json_object_size(all);
    const char *key;
    json_t *value;
    json_object_foreach(all, key, value) o->n_required += is_required(o, key);
    return FACET_OK;
}

static facet_status read_pattern(schema_compiler *c, object_shape *o, const json_t *patterns)
{
    const char *key;
    json_t *value;
    if (o->n_properties || json_object_size(patterns) > 1 || (o->additional && !json_is_false(o->additional)))
        return schema_fail(c, FACET_ERR_UNSUPPORTED, o->path, "patternProperties",
                           "more than one pattern, or a pattern beside named or other members, is not supported");
    json_object_foreach((json_t *)(uintptr_t)patterns, key, value)
    {
        o->key_pattern = key;
        o->key_pattern_bytes = strlen(key);
        o->additional = value;
    }
    return FACET_OK;
}

/* Keys of other members may repeat, so at most one of them is certain. */
static facet_status check_counts(schema_compiler *c, object_shape *o)
{
    const int32_t certain = o->n_required > 0 ? o->n_required : 1;
    if (o->min > certain)
        return schema_fail(c, FACET_ERR_UNSUPPORTED, o->path, "minProperties",
                           "%d is more than the required members (%d): name more of them as required", o->min,
                           o->n_required);
    if (o->max < o->n_properties)
        return schema_fail(c, FACET_ERR_UNSUPPORTED, o->path, "maxProperties", "%d is less than the named members (%d)",
                           o->max, o->n_properties);
    return FACET_OK;
}

static facet_status read_shape(schema_compiler *c, const json_t *schema, const char *path, object_shape *o)
{
    const json_t *additional = json_object_get(schema, "additionalProperties"),
                 *patterns = json_object_get(schema, "patternProperties");
    *o = (object_shape){.properties = json_object_get(schema, "properties"),
                        .required = json_object_get(schema, "required"),
                        .additional = additional,
                        .max = GRAMMAR_INFINITE,
                        .path = path};
    FACET_TRY(schema_count(c, schema, path, "minProperties", &o->min));
    FACET_TRY(schema_count(c, schema, path, "maxProperties", &o->max));
    FACET_TRY(complete_properties(c, o, additional));
    if (json_object_size(patterns)) FACET_TRY(read_pattern(c, o, patterns));
    if (json_is_false(o->additional)) o->additional = NULL;
    /* a schema that names members and says nothing of others means those; one that names none means any */
    if (!additional && !o->additional && o->n_properties == 0) o->additional = json_true();
    return check_counts(c, o);
}

/* ---- keys ---- */

/* The named keys as a tree of characters, so that other keys can leave it anywhere. */
typedef struct key_node {
    int32_t child, sibling; /* 0 = none */
    uint32_t c;
    bool is_name;
    int32_t node; /* of the automaton */
} key_node;

typedef struct key_tree {
    key_node *nodes;
    int32_t n, cap;
} key_tree;

static int32_t add_key_node(key_tree *t, uint32_t c)
{
    if (t->n == t->cap) {
        const int32_t cap = 2 * t->cap + 64;
        key_node *p = mem_resize_array(t->nodes, (size_t)cap, sizeof *p);
        if (!p) return -1;
        t->nodes = p;
        t->cap = cap;
    }
    t->nodes[t->n] = (key_node){.c = c};
    return t->n++;
}

static bool add_key(key_tree *t, const char *name)
{
    int32_t at = 0;
    for (size_t n = strlen(name); n;) {
        uint32_t c;
        const int k = utf8_decode(name, n, &c);
        int32_t next = t->nodes[at].child;
        while (next && t->nodes[next].c != c) next = t->nodes[next].sibling;
        if (!next) {
            if ((next = add_key_node(t, c)) < 0) return false;
            t->nodes[next].sibling = t->nodes[at].child;
            t->nodes[at].child = next;
        }
        at = next;
        name += k;
        n -= (size_t)k;
    }
    t->nodes[at].is_name = true;
    return true;
}

/* Any character but quotes, backslashes, control characters, and those that lead to a named key. */
static void build_other(schema_compiler *c, const key_tree *t, int32_t at, int32_t free)
{
    charset set = {0};
    charset_add(&set, 0, 0x1f);
    charset_add(&set, '"', '"');
    charset_add(&set, '\\', '\\');
    for (int32_t k = t->nodes[at].child; k; k = t->nodes[k].sibling) charset_add(&set, t->nodes[k].c, t->nodes[k].c);
    if (set.is_full) return; /* no other key begins like this: less than could be, and never wrong */
    charset_negate(&set);
    charset_build(&set, &c->b, t->nodes[at].node, free);
}

/* Keys other than the named ones, written without escapes, so that none is a named one in disguise. */
static facet_status build_other_key(schema_compiler *c, const object_shape *o, int32_t from, int32_t to)
{
    key_tree t = {0};
    const char *name;
    json_t *value;
    const int32_t free = builder_node(&c->b), any = builder_rule(&c->b, NULL), close = builder_node(&c->b);
    bool ok = add_key_node(&t, 0) == 0;
    json_object_foreach((json_t *)(uintptr_t)o->properties, name, value) ok = ok && add_key(&t, name);
    if (ok && c->b.status == FACET_OK) {
        charset plain = {0};
        charset_add(&plain, 0, 0x1f);
        charset_add(&plain, '"', '"');
        charset_add(&plain, '\\', '\\');
        charset_negate(&plain);
        charset_build(&plain, &c->b, c->b.rules[any].start, c->b.rules[any].end);
        builder_loop(&c->b, free, any, 0, GRAMMAR_INFINITE, close);
        for (int32_t i = 0; i < t.n; i++) t.nodes[i].node = builder_node(&c->b);
        builder_byte(&c->b, from, '"', '"', t.nodes[0].node);
        for (int32_t i = 0; i < t.n; i++) {
            for (int32_t k = t.nodes[i].child; k; k = t.nodes[k].sibling) {
                charset one = {.ranges[0] = {t.nodes[k].c, t.nodes[k].c}, .n = 1};
                charset_intersect(&one, 0x20, CHARSET_LAST);
                if (t.nodes[k].c != '"' && t.nodes[k].c != '\\')
                    charset_build(&one, &c->b, t.nodes[i].node, t.nodes[k].node);
            }
            build_other(c, &t, i, free);
            if (!t.nodes[i].is_name) builder_empty(&c->b, t.nodes[i].node, close);
        }
        builder_byte(&c->b, close, '"', '"', to);
    }
    mem_free(t.nodes);
    return ok ? FACET_OK : schema_no_memory(c);
}

static facet_status build_pattern_key(schema_compiler *c, const object_shape *o, int32_t from, int32_t to)
{
    regex r;
    facet_error why;
    const facet_status status = regex_build(o->key_pattern, o->key_pattern_bytes, &c->b, &r, &why);
    if (status != FACET_OK) return schema_fail(c, status, o->path, "patternProperties", "%s", why.message);
    builder_byte(&c->b, from, '"', '"', r.start);
    builder_byte(&c->b, r.end, '"', '"', to);
    return FACET_OK;
}

/* A string as JSON, quotes included. */
static facet_status build_name(schema_compiler *c, const char *name, int32_t from, int32_t to)
{
    json_t *text = json_string(name);
    char *quoted = text ? json_dumps(text, JSON_ENCODE_ANY) : NULL;
    json_decref(text);
    if (!quoted) return schema_no_memory(c);
    schema_literal(c, from, quoted, to);
    free(quoted);
    return FACET_OK;
}

/* ---- members ---- */

static facet_status build_value(schema_compiler *c, const json_t *value, const char *path, int32_t from, int32_t to)
{
    int32_t rule;
    FACET_TRY(schema_rule(c, value, path, &rule));
    builder_call(&c->b, schema_mark(c, from, ":"), rule, to);
    return FACET_OK;
}

/* Named members in order: `none` is where no member was written yet, `some` where one was.
 *
 *    none ──────────────►(key)──: value──► some'      each with a way around a member that is not required
 *    some ── , ──►──────► ┘
 */
static facet_status build_named(schema_compiler *c, const object_shape *o, int32_t *none, int32_t *some)
{
    const char *name;
    json_t *value;
    buf base = {0}, path = {0};
    facet_status status = schema_path(c, &base, o->path, "properties", -1);
    json_object_foreach((json_t *)(uintptr_t)o->properties, name, value)
    {
        const int32_t key = builder_node(&c->b), behind_key = builder_node(&c->b), next_none = builder_node(&c->b),
                      next_some = builder_node(&c->b);
        builder_empty(&c->b, *none, key);
        builder_empty(&c->b, schema_mark(c, *some, ","), key);
        if (!is_required(o, name)) {
            builder_empty(&c->b, *none, next_none);
            builder_empty(&c->b, *some, next_some);
        }
        if (status == FACET_OK) status = schema_path(c, &path, base.data, name, -1);
        if (status == FACET_OK) status = build_name(c, name, key, behind_key);
        if (status == FACET_OK) status = build_value(c, value, path.data, behind_key, next_some);
        *none = next_none;
        *some = next_some;
    }
    buf_free(&base);
    buf_free(&path);
    return status;
}

/* Other members: a rule that reads one. */
static facet_status build_other_member(schema_compiler *c, const object_shape *o, int32_t *rule)
{
    const int32_t behind_key = builder_node(&c->b);
    buf path = {0};
    *rule = builder_rule(&c->b, NULL);
    if (c->b.status != FACET_OK) return FACET_OK;
    const int32_t from = c->b.rules[*rule].start, to = c->b.rules[*rule].end;
    FACET_TRY(o->key_pattern ? build_pattern_key(c, o, from, behind_key) : build_other_key(c, o, from, behind_key));
    facet_status status =
        schema_path(c, &path, o->path, o->key_pattern ? "patternProperties" : "additionalProperties", -1);
    if (status == FACET_OK) status = build_value(c, o->additional, path.data, behind_key, to);
    buf_free(&path);
    return status;
}

static facet_status build_others(schema_compiler *c, const object_shape *o, int32_t *none, int32_t *some)
{
    int32_t member;
    const int32_t limit = o->max == GRAMMAR_INFINITE ? o->max : o->max - o->n_properties;
    if (!o->additional || limit < 1) return FACET_OK;
    FACET_TRY(build_other_member(c, o, &member));
    const int32_t further = builder_rule(&c->b, NULL), first = builder_node(&c->b), behind = builder_node(&c->b);
    if (c->b.status != FACET_OK) return FACET_OK;
    builder_call(&c->b, schema_mark(c, c->b.rules[further].start, ","), member, c->b.rules[further].end);
    builder_call(&c->b, *none, member, first);
    builder_loop(&c->b, first, further, 0, limit == GRAMMAR_INFINITE ? limit : limit - 1, behind);
    builder_loop(&c->b, *some, further, 0, limit, behind);
    *some = behind;
    return FACET_OK;
}

facet_status schema_object(schema_compiler *c, const json_t *schema, const char *path, int32_t from, int32_t to)
{
    object_shape o;
    FACET_TRY(read_shape(c, schema, path, &o));
    int32_t none = schema_mark(c, from, "{"), some = builder_node(&c->b);
    const int32_t close = builder_node(&c->b);
    FACET_TRY(build_named(c, &o, &none, &some));
    FACET_TRY(build_others(c, &o, &none, &some));
    if (o.min == 0) builder_empty(&c->b, none, close);
    schema_blank(c, some, close);
    builder_byte(&c->b, close, '}', '}', to);
    return FACET_OK;
}
