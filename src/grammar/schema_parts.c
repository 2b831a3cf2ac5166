/* schema_parts.c: JSON that no keyword speaks of. */
#include <string.h>

#include "grammar/regex.h"
#include "grammar/schema_compiler.h"

enum {
    MAX_INDENT = 40, /* blanks behind a newline */
    FREE_DIGITS = 15 /* of numbers without bounds: what a double holds */
};

void schema_literal(schema_compiler *c, int32_t from, const char *text, int32_t to)
{
    builder_text(&c->b, from, text, strlen(text), to);
}

void schema_blank(schema_compiler *c, int32_t from, int32_t to)
{
    builder_call(&c->b, from, schema_part_rule(c, PART_BLANK), to);
}

int32_t schema_mark(schema_compiler *c, int32_t from, const char *mark)
{
    const int32_t behind = builder_node(&c->b), to = builder_node(&c->b);
    schema_literal(c, from, mark, behind);
    schema_blank(c, behind, to);
    return to;
}

/* Nothing, a blank, or a newline or two with an indent: enough for every usual style, and no way to go on for ever. */
static void build_blank(grammar_builder *b, int32_t from, int32_t to)
{
    const int32_t newline = builder_node(b), second = builder_node(b), indent = builder_rule(b, NULL);
    if (b->status != FACET_OK) return;
    builder_empty(b, from, to);
    builder_byte(b, from, ' ', ' ', to);
    builder_byte(b, from, '\n', '\n', newline);
    builder_empty(b, newline, second);
    builder_byte(b, newline, '\n', '\n', second);
    builder_byte(b, b->rules[indent].start, ' ', ' ', b->rules[indent].end);
    builder_byte(b, b->rules[indent].start, '\t', '\t', b->rules[indent].end);
    builder_loop(b, second, indent, 0, MAX_INDENT, to);
}

static void build_string(schema_compiler *c, int32_t from, int32_t to)
{
    const int32_t open = builder_node(&c->b), close = builder_node(&c->b);
    builder_byte(&c->b, from, '"', '"', open);
    builder_loop(&c->b, open, schema_part_rule(c, PART_CHAR), 0, GRAMMAR_INFINITE, close);
    builder_byte(&c->b, close, '"', '"', to);
}

/* 1 to n digits. */
static void build_digits(grammar_builder *b, int32_t from, int n, int32_t to)
{
    for (int i = 0; i < n; i++) {
        const int32_t next = builder_node(b);
        builder_byte(b, from, '0', '9', next);
        builder_empty(b, next, to);
        from = next;
    }
}

static void build_integer(grammar_builder *b, int32_t from, int n_digits, int32_t to)
{
    const int32_t behind_sign = builder_node(b), behind_first = builder_node(b);
    builder_empty(b, from, behind_sign);
    builder_byte(b, from, '-', '-', behind_sign);
    builder_byte(b, behind_sign, '0', '0', to);
    builder_byte(b, behind_sign, '1', '9', behind_first);
    builder_empty(b, behind_first, to);
    build_digits(b, behind_first, n_digits - 1, to);
}

static void build_number(grammar_builder *b, int32_t from, int32_t to)
{
    const int32_t whole = builder_node(b), fraction = builder_node(b), mantissa = builder_node(b),
                  exponent = builder_node(b), power = builder_node(b);
    build_integer(b, from, FREE_DIGITS, whole);
    builder_empty(b, whole, mantissa);
    builder_byte(b, whole, '.', '.', fraction);
    build_digits(b, fraction, FREE_DIGITS, mantissa);
    builder_empty(b, mantissa, to);
    builder_byte(b, mantissa, 'e', 'e', exponent);
    builder_byte(b, mantissa, 'E', 'E', exponent);
    builder_empty(b, exponent, power);
    builder_byte(b, exponent, '+', '+', power);
    builder_byte(b, exponent, '-', '-', power);
    build_digits(b, power, 2, to);
}

static void build_value(schema_compiler *c, int32_t from, int32_t to)
{
    static const schema_part parts[] = {PART_STRING, PART_NUMBER, PART_OBJECT, PART_ARRAY};
    schema_literal(c, from, "null", to);
    schema_literal(c, from, "true", to);
    schema_literal(c, from, "false", to);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        builder_call(&c->b, from, schema_part_rule(c, parts[i]), to);
}

/* open [ item { , item } ] close */
static void build_list(schema_compiler *c, int32_t from, const char *open, int32_t item, const char *close, int32_t to)
{
    const int32_t first = schema_mark(c, from, open), behind = builder_node(&c->b), end = builder_node(&c->b);
    builder_call(&c->b, first, item, behind);
    builder_call(&c->b, schema_mark(c, behind, ","), item, behind);
    builder_empty(&c->b, first, end);
    schema_blank(c, behind, end);
    schema_literal(c, end, close, to);
}

static void build_object(schema_compiler *c, int32_t from, int32_t to)
{
    const int32_t member = builder_rule(&c->b, NULL), behind_key = builder_node(&c->b);
    if (c->b.status != FACET_OK) return;
    builder_call(&c->b, c->b.rules[member].start, schema_part_rule(c, PART_STRING), behind_key);
    builder_call(&c->b, schema_mark(c, behind_key, ":"), schema_part_rule(c, PART_VALUE), c->b.rules[member].end);
    build_list(c, from, "{", member, "}", to);
}

int32_t schema_part_rule(schema_compiler *c, schema_part part)
{
    if (c->parts[part] >= 0) return c->parts[part];
    const int32_t rule = c->parts[part] = builder_rule(&c->b, NULL);
    if (c->b.status != FACET_OK) return 0;
    const int32_t from = c->b.rules[rule].start, to = c->b.rules[rule].end;
    switch (part) {
    case PART_BLANK: build_blank(&c->b, from, to); break;
    case PART_CHAR: json_build_any(&c->b, from, to); break;
    case PART_STRING: build_string(c, from, to); break;
    case PART_INTEGER: build_integer(&c->b, from, SCHEMA_MAX_DIGITS, to); break;
    case PART_NUMBER: build_number(&c->b, from, to); break;
    case PART_VALUE: build_value(c, from, to); break;
    case PART_OBJECT: build_object(c, from, to); break;
    case PART_ARRAY: build_list(c, from, "[", schema_part_rule(c, PART_VALUE), "]", to); break;
    case N_PARTS: break;
    }
    return rule;
}
