#include "grammar/regex.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

/* A piece, and how many characters it reads. */
typedef struct piece {
    int32_t first, last;
    int32_t min, max;
    int32_t body; /* as in struct regex */
} piece;

/* An open bracket, or the pattern itself. */
typedef struct group {
    int32_t start, end;
    int32_t at;  /* where the present alternative has come to, but for its last item */
    piece item;  /* that item; first = -1: none */
    int n_items; /* of the present alternative */
    int n_alternatives;
    int32_t here_min, here_max; /* characters of the present alternative but for its last item */
    int32_t min, max;           /* of the alternatives before it */
    int32_t only;               /* body of the only item, when the alternative has but one */
    size_t opened;
} group;

typedef struct parser {
    const char *p, *begin, *end;
    grammar_builder *b;
    group groups[GRAMMAR_MAX_DEPTH + 1];
    int n_groups;
    bool is_started, is_ended; /* anchors of the present top alternative */
    charset set;
    facet_error *err;
} parser;

static facet_status fail(const parser *x, facet_status status, const char *at, const char *what)
{
    int column = 1;
    for (const char *p = x->begin; p < at; p++) column += (*p & 0xc0) != 0x80;
    return error_set(x->err, status, "character %d of the pattern: %s", column, what);
}

static facet_status malformed(const parser *x, const char *at, const char *what)
{
    return fail(x, FACET_ERR_ARG, at, what);
}

static facet_status unsupported(const parser *x, const char *at, const char *what)
{
    return fail(x, FACET_ERR_UNSUPPORTED, at, what);
}

static group *top(parser *x)
{
    return &x->groups[x->n_groups - 1];
}

static int32_t add_lengths(int32_t a, int32_t b)
{
    return a >= GRAMMAR_INFINITE || b >= GRAMMAR_INFINITE || a + b >= GRAMMAR_INFINITE ? GRAMMAR_INFINITE : a + b;
}

static int32_t multiply_lengths(int32_t a, int32_t n)
{
    if (a == 0 || n == 0) return 0;
    const int64_t product = (int64_t)a * n;
    return a >= GRAMMAR_INFINITE || n >= GRAMMAR_INFINITE || product >= GRAMMAR_INFINITE ? GRAMMAR_INFINITE
                                                                                         : (int32_t)product;
}

/* The last item can be repeated no more. */
static void settle_item(parser *x)
{
    group *g = top(x);
    if (g->item.first < 0) return;
    builder_empty(x->b, g->at, g->item.first);
    g->at = g->item.last;
    g->here_min = add_lengths(g->here_min, g->item.min);
    g->here_max = add_lengths(g->here_max, g->item.max);
    g->only = g->n_items == 1 ? g->item.body : GRAMMAR_NONE;
    g->item.first = -1;
}

static void end_alternative(parser *x)
{
    settle_item(x);
    group *g = top(x);
    builder_empty(x->b, g->at, g->end);
    if (g->n_items != 1) g->only = GRAMMAR_NONE;
    g->min = g->n_alternatives == 0 || g->here_min < g->min ? g->here_min : g->min;
    g->max = g->here_max > g->max ? g->here_max : g->max;
    g->n_alternatives++;
    g->at = g->start;
    g->n_items = 0;
    g->here_min = g->here_max = 0;
}

static piece *begin_item(parser *x)
{
    settle_item(x);
    group *g = top(x);
    g->n_items++;
    g->item =
        (piece){.first = builder_node(x->b), .last = builder_node(x->b), .min = 1, .max = 1, .body = GRAMMAR_NONE};
    return &g->item;
}

/* An item that reads one character of x->set. */
static facet_status set_item(parser *x, const char *at)
{
    if (x->set.is_full) return unsupported(x, at, "a set of more than 512 ranges");
    charset_normalise(&x->set);
    piece *item = begin_item(x);
    json_build_set(&x->set, x->b, item->first, item->last);
    return FACET_OK;
}

/* ---- characters ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static facet_status read_hex(parser *x, int n, uint32_t *out)
{
    const char *at = x->p;
    for (*out = 0; n; n--, x->p++) {
        if (x->p == x->end || hex_digit(*x->p) < 0) return malformed(x, at, "too few hexadecimal digits");
        *out = *out << 4 | (uint32_t)hex_digit(*x->p);
    }
    if (*out >= 0xd800 && *out <= 0xdfff) return unsupported(x, at, "surrogates: write the character itself");
    return FACET_OK;
}

static void add_word(charset *s)
{
    charset_add(s, '0', '9');
    charset_add(s, 'A', 'Z');
    charset_add(s, '_', '_');
    charset_add(s, 'a', 'z');
}

static void add_space(charset *s)
{
    static const char_range ranges[] = {{'\t', '\r'},     {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680},
                                        {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f},
                                        {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) charset_add(s, ranges[i].lo, ranges[i].hi);
}

/* \d \w \s and their opposites, behind the backslash: adds to s. */
static bool read_class(char c, charset *s)
{
    charset set = {0};
    switch (c | 0x20) {
    case 'd': charset_add(&set, '0', '9'); break;
    case 'w': add_word(&set); break;
    case 's': add_space(&set); break;
    default: return false;
    }
    if (c < 'a') charset_negate(&set);
    charset_add_set(s, &set);
    return true;
}

/* One escaped character, x->p behind the backslash. */
static facet_status read_escape(parser *x, uint32_t *out)
{
    static const char names[] = "tnrfv0", values[] = "\t\n\r\f\v";
    const char *at = x->p - 1;
    const char c = *x->p++, *name = strchr(names, c);
    if (name && *name) {
        *out = (uint8_t)values[name - names];
        if (c == '0' && x->p < x->end && *x->p >= '0' && *x->p <= '9') return unsupported(x, at, "octal escapes");
        return FACET_OK;
    }
    if (c == 'x') return read_hex(x, 2, out);
    if (c == 'u' && x->p < x->end && *x->p == '{')
        return unsupported(x, at, "\\u{...}: write \\uNNNN or the character");
    if (c == 'u') return read_hex(x, 4, out);
    if (c >= '1' && c <= '9') return unsupported(x, at, "references to groups");
    if (c == 'p' || c == 'P') return unsupported(x, at, "Unicode properties (\\p)");
    if (c == 'k') return unsupported(x, at, "references to groups");
    if (c == 'c') return unsupported(x, at, "control escapes (\\c)");
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return malformed(x, at, "an unknown escape");
    x->p--;
    x->p += utf8_decode(x->p, (size_t)(x->end - x->p), out);
    return FACET_OK;
}

/* One member of a set: a character (*is_char), or a class of them that was added. */
static facet_status read_member(parser *x, uint32_t *c, bool *is_char)
{
    *is_char = true;
    if (*x->p != '\\') {
        x->p += utf8_decode(x->p, (size_t)(x->end - x->p), c);
        return FACET_OK;
    }
    x->p++;
    if (x->p == x->end) return malformed(x, x->p, "a backslash at the end");
    if (read_class(*x->p, &x->set)) {
        x->p++;
        *is_char = false;
        return FACET_OK;
    }
    if (*x->p == 'b') {
        x->p++;
        *c = '\b';
        return FACET_OK;
    }
    return read_escape(x, c);
}

static facet_status read_set(parser *x)
{
    const char *opened = x->p++;
    x->set = (charset){0};
    const bool is_negated = x->p < x->end && *x->p == '^';
    if (is_negated) x->p++;
    while (x->p < x->end && *x->p != ']') {
        uint32_t lo = 0, hi;
        bool is_char, is_last_char;
        const char *at = x->p;
        FACET_TRY(read_member(x, &lo, &is_char));
        hi = lo;
        if (is_char && x->end - x->p >= 2 && *x->p == '-' && x->p[1] != ']') {
            x->p++;
            FACET_TRY(read_member(x, &hi, &is_last_char));
            if (!is_last_char || hi < lo) return malformed(x, at, "a range of characters that ends before it begins");
        }
        if (is_char) charset_add(&x->set, lo, hi);
    }
    if (x->p == x->end) return malformed(x, opened, "this set has no closing bracket");
    x->p++;
    if (is_negated) charset_negate(&x->set);
    return set_item(x, opened);
}

static facet_status read_dot(parser *x)
{
    x->set = (charset){0};
    charset_add(&x->set, '\n', '\n');
    charset_add(&x->set, '\r', '\r');
    charset_add(&x->set, 0x2028, 0x2029);
    charset_negate(&x->set);
    return set_item(x, x->p++);
}

static facet_status read_literal(parser *x)
{
    const char *at = x->p;
    uint32_t c = 0;
    bool is_char;
    x->set = (charset){0};
    if (*x->p == '\\' && x->end - x->p >= 2 && (x->p[1] == 'b' || x->p[1] == 'B'))
        return unsupported(x, at, "word boundaries (\\b)");
    FACET_TRY(read_member(x, &c, &is_char));
    if (is_char) charset_add(&x->set, c, c);
    return set_item(x, at);
}

/* ---- groups, anchors, repetitions ---- */

static facet_status open_group(parser *x)
{
    const char *at = x->p++;
    if (x->n_groups > GRAMMAR_MAX_DEPTH) return fail(x, FACET_ERR_LIMIT, at, "brackets are nested more than 64 deep");
    if (x->p < x->end && *x->p == '?') {
        if (x->end - x->p < 2 || x->p[1] != ':') return unsupported(x, at, "groups that begin with (? other than (?:");
        x->p += 2;
    }
    const piece *item = begin_item(x);
    x->groups[x->n_groups++] = (group){.start = item->first,
                                       .at = item->first,
                                       .end = item->last,
                                       .item.first = -1,
                                       .only = GRAMMAR_NONE,
                                       .opened = (size_t)(at - x->begin)};
    return FACET_OK;
}

static facet_status close_group(parser *x)
{
    if (x->n_groups == 1) return malformed(x, x->p, "a closing bracket without an opening one");
    end_alternative(x);
    const group inner = *top(x);
    x->n_groups--;
    top(x)->item.min = inner.min;
    top(x)->item.max = inner.max;
    x->p++;
    return FACET_OK;
}

static facet_status read_anchor(parser *x)
{
    const char *at = x->p++;
    const group *g = top(x);
    if (x->n_groups > 1) return unsupported(x, at, "anchors inside groups");
    if (*at == '^' && (g->n_items || x->is_started)) return unsupported(x, at, "'^' behind the beginning");
    if (*at == '$' && x->p < x->end && *x->p != '|') return unsupported(x, at, "'$' before the end");
    if (*at == '^') x->is_started = true;
    if (*at == '$') x->is_ended = true;
    return FACET_OK;
}

static facet_status read_number(parser *x, int32_t *out)
{
    const char *at = x->p;
    for (*out = 0; x->p < x->end && *x->p >= '0' && *x->p <= '9'; x->p++)
        if ((*out = *out * 10 + (*x->p - '0')) > GRAMMAR_MAX_COUNT)
            return fail(x, FACET_ERR_LIMIT, at, "a repetition count above 16777216");
    return x->p == at ? malformed(x, at, "wanted a number of repetitions") : FACET_OK;
}

static facet_status read_counts(parser *x, int32_t *min, int32_t *max)
{
    const char *at = x->p++;
    FACET_TRY(read_number(x, min));
    *max = *min;
    if (x->p < x->end && *x->p == ',') {
        x->p++;
        *max = GRAMMAR_INFINITE;
        if (x->p < x->end && *x->p != '}') FACET_TRY(read_number(x, max));
    }
    if (x->p == x->end || *x->p != '}') return malformed(x, at, "wanted {m}, {m,} or {m,n}");
    x->p++;
    return *max < *min ? malformed(x, at, "a repetition's maximum is below its minimum") : FACET_OK;
}

/* A lazy repetition (with '?' behind it) matches the same strings. */
static facet_status read_repetition(parser *x)
{
    int32_t min = 0, max = GRAMMAR_INFINITE;
    piece *item = &top(x)->item;
    if (item->first < 0) return malformed(x, x->p, "a repetition with nothing before it to repeat");
    if (*x->p == '{') {
        FACET_TRY(read_counts(x, &min, &max));
    } else {
        min = *x->p == '+';
        if (*x->p == '?') max = 1;
        x->p++;
    }
    if (x->p < x->end && *x->p == '?') x->p++;
    if (item->min == 1 && item->max == 1) item->body = builder_rule_of(x->b, item->first, item->last);
    if (item->body >= 0) { /* kept apart, so that its count may be narrowed (schema_string.c) */
        const int32_t from = builder_node(x->b), to = builder_node(x->b);
        builder_loop(x->b, from, item->body, min, max, to);
        item->first = from;
        item->last = to;
    } else {
        builder_repeat(x->b, &item->first, &item->last, min, max);
    }
    item->min = multiply_lengths(item->min, min);
    item->max = multiply_lengths(item->max, max);
    if (x->p < x->end && *x->p && strchr("*+?{", *x->p)) return malformed(x, x->p, "a repetition of a repetition");
    return FACET_OK;
}

/* Whatever may stand before or behind an alternative that is not anchored there. */
static void build_gap(parser *x)
{
    piece *item = begin_item(x);
    const int32_t any = builder_rule(x->b, NULL);
    if (x->b->status != FACET_OK) return;
    json_build_any(x->b, x->b->rules[any].start, x->b->rules[any].end);
    builder_loop(x->b, item->first, any, 0, GRAMMAR_INFINITE, item->last);
    item->min = 0;
    item->max = GRAMMAR_INFINITE;
    settle_item(x);
}

static bool begins_anchored(const parser *x)
{
    return x->p < x->end && *x->p == '^';
}

static void end_top(parser *x)
{
    if (!x->is_ended) build_gap(x);
    end_alternative(x);
}

static void begin_top(parser *x)
{
    x->is_started = x->is_ended = false;
    if (!begins_anchored(x)) build_gap(x);
}

static facet_status read_item(parser *x)
{
    switch (*x->p) {
    case '(': return open_group(x);
    case ')': return close_group(x);
    case '[': return read_set(x);
    case '.': return read_dot(x);
    case '^':
    case '$': return read_anchor(x);
    case '*':
    case '+':
    case '?':
    case '{': return read_repetition(x);
    case '|':
        x->p++;
        if (x->n_groups > 1) {
            end_alternative(x);
        } else {
            end_top(x);
            begin_top(x);
        }
        return FACET_OK;
    default: return read_literal(x);
    }
}

static facet_status read_all(parser *x, regex *out)
{
    const int32_t start = builder_node(x->b), end = builder_node(x->b);
    x->n_groups = 1;
    x->groups[0] = (group){.start = start, .at = start, .end = end, .item.first = -1, .only = GRAMMAR_NONE};
    begin_top(x);
    while (x->p < x->end && x->b->status == FACET_OK) FACET_TRY(read_item(x));
    FACET_TRY(builder_check(x->b, x->err));
    if (x->n_groups > 1) return malformed(x, x->begin + top(x)->opened, "this bracket is not closed");
    end_top(x);
    const group *g = top(x);
    *out = (regex){.start = start,
                   .end = end,
                   .min = g->min,
                   .max = g->max,
                   .body = g->n_alternatives == 1 ? g->only : GRAMMAR_NONE};
    return FACET_OK;
}

facet_status regex_build(const char *pattern, size_t n, grammar_builder *b, regex *out, facet_error *err)
{
    parser *x = mem_calloc(1, sizeof *x);
    if (!x) return error_memory(err, "a pattern", sizeof *x);
    x->begin = x->p = pattern;
    x->end = pattern + n;
    x->b = b;
    x->err = err;
    const facet_status status = read_all(x, out);
    mem_free(x);
    return status;
}
