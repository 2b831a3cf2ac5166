#include "grammar/gbnf.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "grammar/charset.h"

enum { MAX_NAME = 128 };

typedef struct name_entry {
    const char *name; /* in the text */
    size_t n;
    int32_t rule;
    const char *first_use; /* where it was referred to before it was defined */
    bool is_defined;
} name_entry;

/* An open bracket, or the rule itself. */
typedef struct group {
    int32_t start, end;
    int32_t at;          /* where the present alternative has come to, but for its last item */
    int32_t first, last; /* that item, which may be repeated yet: its nodes; first = -1: none */
    const char *opened;
} group;

typedef struct parser {
    const char *text, *p, *end;
    grammar_builder b;
    name_entry *names;
    size_t n_names, cap_names;
    int32_t *by_name; /* open addressing into names; -1 = free */
    size_t by_name_mask;
    group groups[GRAMMAR_MAX_DEPTH + 1];
    int n_groups;
    charset set;
    facet_error *err;
} parser;

/* ---- messages ---- */

/* Counted from 1; columns are characters, not bytes. */
static void locate(const parser *x, const char *at, int *line, int *column)
{
    *line = *column = 1;
    for (const char *p = x->text; p < at; p++) {
        *column = *p == '\n' ? 1 : *column + ((*p & 0xc0) != 0x80);
        *line += *p == '\n';
    }
}

static facet_status fail(const parser *x, const char *at, const char *what)
{
    int line, column;
    locate(x, at, &line, &column);
    error_set(x->err, FACET_ERR_ARG, "line %d, column %d: %s", line, column, what);
    return FACET_ERR_ARG;
}

static facet_status fail_name(const parser *x, const char *at, const char *name, size_t n, const char *what)
{
    char message[MAX_NAME + 128];
    snprintf(message, sizeof message, "rule '%.*s' %s", (int)(n < MAX_NAME ? n : MAX_NAME), name, what);
    return fail(x, at, message);
}

/* ---- words ---- */

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* Blanks, newlines and comments. */
static const char *skip_blank(const parser *x, const char *p)
{
    while (p < x->end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n' || *p == '#')) {
        if (*p == '#')
            while (p < x->end && *p != '\n') p++;
        else
            p++;
    }
    return p;
}

static const char *skip_name(const parser *x, const char *p)
{
    while (p < x->end && is_name_char(*p)) p++;
    return p;
}

/* A definition begins here: NAME ::= */
static bool is_definition(const parser *x, const char *p)
{
    const char *after = skip_name(x, p);
    if (after == p) return false;
    while (after < x->end && (*after == ' ' || *after == '\t')) after++;
    return x->end - after >= 3 && memcmp(after, "::=", 3) == 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static facet_status read_hex(parser *x, int n_digits, uint32_t *out)
{
    const char *start = x->p - 2;
    *out = 0;
    for (int i = 0; i < n_digits; i++, x->p++) {
        if (x->p == x->end || hex_digit(*x->p) < 0) return fail(x, start, "an escape has too few hexadecimal digits");
        *out = *out << 4 | (uint32_t)hex_digit(*x->p);
    }
    if (*out > CHARSET_LAST || (*out >= 0xd800 && *out <= 0xdfff))
        return fail(x, start, "an escape names no character (at most \\U0010FFFF, and no surrogate)");
    return FACET_OK;
}

/* Behind a backslash. */
static facet_status read_escape(parser *x, uint32_t *out)
{
    if (x->p == x->end) return fail(x, x->p, "a backslash at the end of the grammar");
    const char c = *x->p++;
    switch (c) {
    case 'x': return read_hex(x, 2, out);
    case 'u': return read_hex(x, 4, out);
    case 'U': return read_hex(x, 8, out);
    case 't': *out = '\t'; break;
    case 'r': *out = '\r'; break;
    case 'n': *out = '\n'; break;
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^': *out = (uint32_t)c; break;
    default:
        return fail(x, x->p - 2,
                    "unknown escape: wanted \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\xNN \\uNNNN \\UNNNNNNNN");
    }
    return FACET_OK;
}

/* A character of a text or a set; the grammar is valid UTF-8. */
static facet_status read_char(parser *x, uint32_t *out)
{
    if (*x->p == '\\') {
        x->p++;
        return read_escape(x, out);
    }
    x->p += utf8_decode(x->p, (size_t)(x->end - x->p), out);
    return FACET_OK;
}

/* ---- names ---- */

static size_t name_slot(const parser *x, const char *name, size_t n)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)name[i]) * 1099511628211u;
    size_t i = (size_t)(h ^ h >> 32) & x->by_name_mask;
    for (; x->by_name[i] >= 0; i = (i + 1) & x->by_name_mask) {
        const name_entry *e = &x->names[x->by_name[i]];
        if (e->n == n && memcmp(e->name, name, n) == 0) break;
    }
    return i;
}

static bool grow_names(parser *x)
{
    if (x->n_names < x->cap_names) return true;
    const size_t cap = x->cap_names * 2 + 64, n_slots = x->by_name ? (x->by_name_mask + 1) * 2 : 128;
    name_entry *names = mem_resize_array(x->names, cap, sizeof *names);
    if (!names) return false;
    x->names = names;
    int32_t *slots = mem_resize_array(NULL, n_slots, sizeof *slots);
    if (!slots) return false;
    mem_free(x->by_name);
    memset(slots, 0xff, n_slots * sizeof *slots);
    x->by_name = slots;
    x->by_name_mask = n_slots - 1;
    x->cap_names = n_slots / 2;
    if (x->cap_names > cap) x->cap_names = cap;
    for (size_t i = 0; i < x->n_names; i++) x->by_name[name_slot(x, x->names[i].name, x->names[i].n)] = (int32_t)i;
    return true;
}

/* The entry of a name; a new one gets an empty rule. */
static facet_status find_name(parser *x, const char *name, size_t n, name_entry **out)
{
    if (n > MAX_NAME) return fail(x, name, "a rule's name is longer than 128 characters");
    if (!grow_names(x)) return error_memory(x->err, "a grammar's names", x->cap_names * sizeof *x->names);
    const size_t slot = name_slot(x, name, n);
    if (x->by_name[slot] < 0) {
        char label[MAX_NAME + 16];
        snprintf(label, sizeof label, "rule '%.*s'", (int)n, name);
        x->by_name[slot] = (int32_t)x->n_names;
        x->names[x->n_names++] = (name_entry){.name = name, .n = n, .rule = builder_rule(&x->b, label)};
    }
    *out = &x->names[x->by_name[slot]];
    return FACET_OK;
}

/* ---- items ---- */

static group *top(parser *x)
{
    return &x->groups[x->n_groups - 1];
}

/* The last item can be repeated no more. */
static void settle_item(parser *x)
{
    group *g = top(x);
    if (g->first < 0) return;
    builder_empty(&x->b, g->at, g->first);
    g->at = g->last;
    g->first = -1;
}

/* A new item of the present alternative, from the node that this returns to *to: fresh ones, so that nothing else leads
 * into it. */
static int32_t begin_item(parser *x, int32_t *to)
{
    group *g = top(x);
    settle_item(x);
    g->first = builder_node(&x->b);
    g->last = *to = builder_node(&x->b);
    return g->first;
}

static facet_status read_text(parser *x)
{
    const char *opened = x->p++;
    int32_t to, at = begin_item(x, &to);
    while (x->p < x->end && *x->p != '"') {
        uint32_t c;
        char bytes[4];
        if (*x->p == '\n') break;
        FACET_TRY(read_char(x, &c));
        const int32_t next = builder_node(&x->b);
        builder_text(&x->b, at, bytes, (size_t)utf8_encode(c, bytes), next);
        at = next;
    }
    if (x->p == x->end || *x->p != '"') return fail(x, opened, "this text has no closing quote on its line");
    x->p++;
    builder_empty(&x->b, at, to);
    return FACET_OK;
}

static facet_status read_set(parser *x)
{
    const char *opened = x->p++;
    int32_t to;
    const int32_t from = begin_item(x, &to);
    charset *s = &x->set;
    s->n = 0;
    s->is_full = false;
    const bool is_negated = x->p < x->end && *x->p == '^';
    if (is_negated) x->p++;
    while (x->p < x->end && *x->p != ']' && *x->p != '\n') {
        uint32_t lo, hi;
        const char *at = x->p;
        FACET_TRY(read_char(x, &lo));
        hi = lo;
        if (x->end - x->p >= 2 && x->p[0] == '-' && x->p[1] != ']') {
            x->p++;
            FACET_TRY(read_char(x, &hi));
            if (hi < lo) return fail(x, at, "a range of characters ends before it begins");
        }
        charset_add(s, lo, hi);
    }
    if (x->p == x->end || *x->p != ']') return fail(x, opened, "this set has no closing bracket on its line");
    x->p++;
    if (s->is_full) return fail(x, opened, "this set has more than 512 ranges");
    if (is_negated)
        charset_negate(s);
    else
        charset_normalise(s);
    charset_build(s, &x->b, from, to);
    return FACET_OK;
}

static facet_status read_any(parser *x)
{
    int32_t to;
    const int32_t from = begin_item(x, &to);
    x->p++;
    x->set.n = 0;
    charset_add(&x->set, 0, CHARSET_LAST);
    charset_build(&x->set, &x->b, from, to);
    return FACET_OK;
}

static facet_status read_reference(parser *x)
{
    const char *name = x->p;
    name_entry *e;
    x->p = skip_name(x, name);
    FACET_TRY(find_name(x, name, (size_t)(x->p - name), &e));
    if (!e->is_defined && !e->first_use) e->first_use = name;
    int32_t to;
    const int32_t from = begin_item(x, &to);
    builder_call(&x->b, from, e->rule, to);
    return FACET_OK;
}

static facet_status open_group(parser *x)
{
    int32_t to;
    if (x->n_groups > GRAMMAR_MAX_DEPTH) return fail(x, x->p, "brackets are nested more than 64 deep");
    const int32_t from = begin_item(x, &to);
    x->groups[x->n_groups++] = (group){.start = from, .at = from, .end = to, .first = -1, .opened = x->p++};
    return FACET_OK;
}

static facet_status close_group(parser *x)
{
    if (x->n_groups == 1) return fail(x, x->p, "a closing bracket without an opening one");
    settle_item(x);
    builder_empty(&x->b, top(x)->at, top(x)->end);
    x->n_groups--;
    x->p++;
    return FACET_OK;
}

static facet_status read_count(parser *x, int32_t *out)
{
    const char *start = x->p;
    for (*out = 0; x->p < x->end && *x->p >= '0' && *x->p <= '9'; x->p++)
        if ((*out = *out * 10 + (*x->p - '0')) > GRAMMAR_MAX_COUNT)
            return fail(x, start, "a repetition count is above 16777216");
    return x->p == start ? fail(x, start, "wanted a number of repetitions") : FACET_OK;
}

/* {m}, {m,} or {m,n} */
static facet_status read_counts(parser *x, int32_t *min, int32_t *max)
{
    const char *opened = x->p;
    x->p = skip_blank(x, x->p + 1);
    FACET_TRY(read_count(x, min));
    x->p = skip_blank(x, x->p);
    *max = *min;
    if (x->p < x->end && *x->p == ',') {
        x->p = skip_blank(x, x->p + 1);
        *max = GRAMMAR_INFINITE;
        if (x->p < x->end && *x->p != '}') FACET_TRY(read_count(x, max));
        x->p = skip_blank(x, x->p);
    }
    if (x->p == x->end || *x->p != '}') return fail(x, x->p, "wanted the '}' of a repetition");
    x->p++;
    return *max < *min ? fail(x, opened, "a repetition's maximum is below its minimum") : FACET_OK;
}

static facet_status read_repetition(parser *x)
{
    int32_t min = 0, max = GRAMMAR_INFINITE;
    group *g = top(x);
    if (g->first < 0) return fail(x, x->p, "a repetition with nothing before it to repeat");
    if (*x->p == '{') {
        FACET_TRY(read_counts(x, &min, &max));
    } else {
        min = *x->p == '+';
        if (*x->p == '?') max = 1;
        x->p++;
    }
    builder_repeat(&x->b, &g->first, &g->last, min, max);
    return FACET_OK;
}

static void next_alternative(parser *x)
{
    settle_item(x);
    group *g = top(x);
    builder_empty(&x->b, g->at, g->end);
    g->at = g->start;
    x->p++;
}

static facet_status read_item(parser *x)
{
    switch (*x->p) {
    case '"': return read_text(x);
    case '[': return read_set(x);
    case '.': return read_any(x);
    case '(': return open_group(x);
    case ')': return close_group(x);
    case '|': next_alternative(x); return FACET_OK;
    case '*':
    case '+':
    case '?':
    case '{': return read_repetition(x);
    case '<': return fail(x, x->p, "tokens (<...>) are not supported: write the text that they stand for");
    default: break;
    }
    if (is_name_char(*x->p)) return read_reference(x);
    return fail(x, x->p, "wanted a text, a set, a rule's name, a bracket, '|' or a repetition");
}

/* ---- rules ---- */

static facet_status read_rule(parser *x)
{
    const char *name = x->p;
    name_entry *e;
    if (!is_definition(x, name)) return fail(x, name, "wanted a rule: NAME ::= ...");
    x->p = skip_name(x, name);
    const size_t n = (size_t)(x->p - name);
    FACET_TRY(find_name(x, name, n, &e));
    if (e->is_defined) return fail_name(x, name, name, n, "is defined twice");
    e->is_defined = true;
    while (*x->p != ':') x->p++;
    x->p += 3;
    const grammar_rule rule = x->b.status == FACET_OK ? x->b.rules[e->rule] : (grammar_rule){0};
    x->groups[0] = (group){.start = rule.start, .at = rule.start, .end = rule.end, .first = -1};
    x->n_groups = 1;
    while (x->b.status == FACET_OK) {
        x->p = skip_blank(x, x->p);
        if (x->p == x->end || (x->n_groups == 1 && is_definition(x, x->p))) break;
        FACET_TRY(read_item(x));
    }
    if (x->n_groups > 1 && x->b.status == FACET_OK) return fail(x, top(x)->opened, "this bracket is not closed");
    settle_item(x);
    builder_empty(&x->b, x->groups[0].at, x->groups[0].end);
    return FACET_OK;
}

static facet_status read_rules(parser *x)
{
    for (x->p = skip_blank(x, x->text); x->p < x->end && x->b.status == FACET_OK; x->p = skip_blank(x, x->p))
        FACET_TRY(read_rule(x));
    return FACET_OK;
}

static facet_status find_root(parser *x, int32_t *root)
{
    *root = -1;
    for (size_t i = 0; i < x->n_names; i++) {
        const name_entry *e = &x->names[i];
        if (!e->is_defined) return fail_name(x, e->first_use, e->name, e->n, "is not defined");
        if (e->n == 4 && memcmp(e->name, "root", 4) == 0) *root = e->rule;
    }
    return *root < 0 ? fail(x, x->text, "there is no rule 'root'") : FACET_OK;
}

static facet_status parse(parser *x, grammar **out)
{
    int32_t root = 0;
    FACET_TRY(read_rules(x));
    if (x->b.status == FACET_OK) FACET_TRY(find_root(x, &root));
    return grammar_finish(&x->b, root, out, x->err);
}

facet_status gbnf_parse(const char *text, size_t n, grammar **out, facet_error *err)
{
    if (n > GBNF_MAX_BYTES)
        return error_set(err, FACET_ERR_LIMIT, "the grammar has %zu bytes, wanted at most %d", n, GBNF_MAX_BYTES);
    if (!utf8_valid(text, n)) return error_set(err, FACET_ERR_ARG, "the grammar is not valid UTF-8");
    parser *x = mem_calloc(1, sizeof *x);
    if (!x) return error_memory(err, "a grammar", sizeof *x);
    x->text = text;
    x->end = text + n;
    x->err = err;
    const facet_status status = parse(x, out);
    builder_free(&x->b);
    mem_free(x->names);
    mem_free(x->by_name);
    mem_free(x);
    return status;
}
