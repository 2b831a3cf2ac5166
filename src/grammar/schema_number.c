/* schema_number.c: numbers: bounds and multiples, as automata over decimal digits.
 *
 * A number within bounds is read digit by digit beside the digits of both bounds: while all digits so far are those of
 * the bound, the next one must not be below (above) the bound's; after a digit that differs, the rest is free. So a
 * place is (digits read, still beside the lower bound, still beside the upper one, remainder). Places that are beside
 * no bound depend on the digits left and the remainder alone, and are shared by numbers of all lengths. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "grammar/schema_compiler.h"

enum { WHOLE = SCHEMA_MAX_DIGITS, FRACTION = 15, FREE_FRACTION = 6, DOUBLE_DIGITS = 15, LEAST_WHOLE = 3 };

/* A bound without its sign: 18 digits before the point, 15 behind it. */
typedef struct decimal {
    int8_t whole[WHOLE], fraction[FRACTION];
    int n_fraction; /* up to the last digit that is not 0 */
    bool is_exclusive;
} decimal;

typedef struct bound {
    bool exists, is_negative;
    decimal d;
} bound;

typedef struct number_shape {
    bound min, max;
    int64_t multiple; /* of whole numbers; 1 = any */
    int n_fraction;   /* digits behind the point at most */
    bool is_integer;  /* no point */
    const char *path;
} number_shape;

/* ---- decimals ---- */

static int greater(int a, int b)
{
    return a > b ? a : b;
}

static int compare_digits(const decimal *a, const decimal *b)
{
    const int whole = memcmp(a->whole, b->whole, sizeof a->whole);
    return whole ? whole : memcmp(a->fraction, b->fraction, sizeof a->fraction);
}

static bool is_zero(const decimal *d)
{
    static const decimal zero;
    return compare_digits(d, &zero) == 0;
}

/* "1234.5e-3" as digits; false when they do not fit. */
static bool read_decimal(const char *text, decimal *out)
{
    const char *e = strchr(text, 'e'), *end = e ? e : text + strlen(text),
               *point = memchr(text, '.', (size_t)(end - text));
    const long exponent = e ? strtol(e + 1, NULL, 10) : 0;
    long place = (point ? point - text : end - text) + exponent; /* digits before the point */
    *out = (decimal){0};
    for (const char *p = text; p < end; p++) {
        if (*p == '.') continue;
        const int8_t digit = (int8_t)(*p - '0');
        place--;
        if (digit == 0) continue;
        if (place >= WHOLE || place < -FRACTION) return false;
        if (place >= 0) {
            out->whole[WHOLE - 1 - place] = digit;
        } else {
            out->fraction[-place - 1] = digit;
            out->n_fraction = (int)-place;
        }
    }
    return true;
}

/* The shortest text that reads as the same double. */
static void print_real(double x, char *out, size_t n)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, n, "%.*e", digits - 1, x);
        if (strtod(out, NULL) == x) return;
    }
}

static bool read_number(const json_t *v, bound *out)
{
    char text[64];
    const double x = json_number_value(v);
    if (json_is_integer(v))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
    else
        print_real(x, text, sizeof text);
    out->exists = true;
    out->is_negative = text[0] == '-';
    return read_decimal(text + out->is_negative, &out->d);
}

/* ---- keywords ---- */

/* A bound that is further out than any number that is written is no bound. */
static facet_status read_bound(schema_compiler *c, const json_t *v, const char *key, bool is_maximum, bool is_exclusive,
                               const char *path, bound *out)
{
    bound b = {0};
    if (!read_number(v, &b)) {
        const double x = json_number_value(v);
        if (fabs(x) > 1 && (x > 0) == is_maximum) return FACET_OK;
        return schema_fail(c, FACET_ERR_UNSUPPORTED, path, key,
                           "%.17g: wanted at most %d digits before the point and %d behind it", x, WHOLE, FRACTION);
    }
    b.d.is_exclusive = is_exclusive;
    *out = b;
    return FACET_OK;
}

static int compare_bounds(const bound *a, const bound *b)
{
    if (a->is_negative != b->is_negative) return a->is_negative ? -1 : 1;
    return a->is_negative ? -compare_digits(&a->d, &b->d) : compare_digits(&a->d, &b->d);
}

/* minimum and exclusiveMinimum, or the maxima: the narrower one counts. */
static facet_status read_bounds(schema_compiler *c, const json_t *schema, const char *path, bool is_maximum, bound *out)
{
    const char *key = is_maximum ? "maximum" : "minimum",
               *exclusive_key = is_maximum ? "exclusiveMaximum" : "exclusiveMinimum";
    const json_t *v = json_object_get(schema, key), *exclusive = json_object_get(schema, exclusive_key);
    bound other = {0};
    if (v) FACET_TRY(read_bound(c, v, key, is_maximum, json_is_true(exclusive), path, out));
    if (!json_is_number(exclusive)) return FACET_OK;
    FACET_TRY(read_bound(c, exclusive, exclusive_key, is_maximum, true, path, &other));
    if (!other.exists) return FACET_OK;
    const int order = out->exists ? compare_bounds(&other, out) : 0;
    if (!out->exists || (is_maximum ? order <= 0 : order >= 0)) *out = other;
    return FACET_OK;
}

/* A whole number, or 10^-d for numbers. */
static facet_status read_multiple(schema_compiler *c, const json_t *schema, const char *path, number_shape *s)
{
    const json_t *v = json_object_get(schema, "multipleOf");
    s->multiple = 1;
    if (!v) return FACET_OK;
    const double x = json_number_value(v);
    if (!(x > 0)) return schema_fail(c, FACET_ERR_ARG, path, "multipleOf", "%g: wanted a number above 0", x);
    if (x == floor(x)) {
        if (x > SCHEMA_MAX_MULTIPLE)
            return schema_fail(c, FACET_ERR_UNSUPPORTED, path, "multipleOf", "%.17g: wanted at most %d", x,
                               SCHEMA_MAX_MULTIPLE);
        s->multiple = (int64_t)x;
        s->is_integer = true;
        return FACET_OK;
    }
    for (int digits = 1; digits <= FREE_FRACTION; digits++) {
        if (x != strtod((char[]){'1', 'e', '-', (char)('0' + digits), 0}, NULL)) continue;
        s->n_fraction = digits;
        return FACET_OK;
    }
    return schema_fail(c, FACET_ERR_UNSUPPORTED, path, "multipleOf",
                       "%.17g: supported are whole numbers, and 0.1, 0.01 and so on to 0.000001", x);
}

/* "format" of numbers: OpenAPI's. */
static facet_status read_format(schema_compiler *c, const json_t *schema, const char *path, number_shape *s)
{
    const char *format = json_string_value(json_object_get(schema, "format"));
    const bool is_text = schema_kinds(schema) & KIND_STRING && json_object_get(schema, "type");
    if (!format || is_text || strcmp(format, "double") == 0 || strcmp(format, "float") == 0 ||
        strcmp(format, "int64") == 0)
        return FACET_OK;
    if (strcmp(format, "int32") != 0)
        return schema_fail(c, FACET_ERR_UNSUPPORTED, path, "format",
                           "'%.40s': supported for numbers are int32, int64, float and double", format);
    bound least = {.exists = true, .is_negative = true}, most = {.exists = true};
    read_decimal("2147483648", &least.d);
    read_decimal("2147483647", &most.d);
    if (!s->min.exists || compare_bounds(&least, &s->min) > 0) s->min = least;
    if (!s->max.exists || compare_bounds(&most, &s->max) < 0) s->max = most;
    return FACET_OK;
}

/* ---- automata ---- */

/* Numbers without sign between two decimals. */
typedef struct range_builder {
    grammar_builder *b;
    const decimal *lo, *hi;
    int64_t multiple;
    int n_fraction; /* 0: whole numbers only */
    int32_t to;
    int32_t *free_nodes; /* [WHOLE + 1, multiple] by digits left; -1 = not made */
} range_builder;

/* Beside which bounds the digits so far are. */
typedef struct beside {
    bool lo, hi;
} beside;

/* The digits that may come next, and where each leads. */
static bool step(beside at, int digit, int lo, int hi, beside *next)
{
    if ((at.lo && digit < lo) || (at.hi && digit > hi)) return false;
    *next = (beside){at.lo && digit == lo, at.hi && digit == hi};
    return true;
}

/* True when the bound has no digit but 0 from this one on. */
static bool ends_at(const decimal *d, int digit)
{
    return d->n_fraction <= digit;
}

/* The number may end after `digit` digits of its fraction. */
static bool may_end(const range_builder *r, beside at, int digit)
{
    if (at.lo && (!ends_at(r->lo, digit) || r->lo->is_exclusive)) return false;
    return !at.hi || !ends_at(r->hi, digit) || !r->hi->is_exclusive;
}

/* Behind the point, at digit 0 .. n_fraction, in all four ways of being beside bounds. */
static void build_fraction(range_builder *r, int32_t starts[2][2])
{
    int32_t now[2][2];
    memcpy(now, starts, sizeof now);
    for (int digit = 0; digit < r->n_fraction; digit++) {
        int32_t after[2][2] = {{-1, -1}, {-1, -1}};
        for (int k = 0; k < 4 * 10; k++) {
            const beside at = {k / 20, k / 10 % 2};
            const int d = k % 10;
            beside next;
            if (now[at.lo][at.hi] < 0 || !step(at, d, r->lo->fraction[digit], r->hi->fraction[digit], &next)) continue;
            int32_t *node = &after[next.lo][next.hi];
            if (*node < 0) {
                *node = builder_node(r->b);
                if (may_end(r, next, digit + 1)) builder_empty(r->b, *node, r->to);
            }
            builder_byte(r->b, now[at.lo][at.hi], (uint8_t)('0' + d), (uint8_t)('0' + d), *node);
        }
        memcpy(now, after, sizeof now);
    }
}

/* All whole digits are read at this node: the number ends, or its fraction begins at fraction[at]. */
static void end_whole(range_builder *r, int32_t node, beside at, int64_t remainder, int32_t fraction[2][2])
{
    if (remainder == 0 && may_end(r, at, 0)) builder_empty(r->b, node, r->to);
    if (!r->n_fraction) return;
    if (fraction[at.lo][at.hi] < 0) fraction[at.lo][at.hi] = builder_node(r->b);
    builder_byte(r->b, node, '.', '.', fraction[at.lo][at.hi]);
}

static int32_t free_node(range_builder *r, int left, int64_t remainder, int32_t fraction[2][2]);

/* Depth is at most WHOLE. Digits that lead to the same place share an edge where they are neighbours. */
static void build_free(range_builder *r, int32_t node, int left, int64_t remainder, int32_t fraction[2][2])
{
    for (int d = 0; d < 10; d++) {
        const int64_t next = (remainder * 10 + d) % r->multiple;
        if (r->multiple == 1) {
            builder_byte(r->b, node, '0', '9', free_node(r, left - 1, 0, fraction));
            return;
        }
        builder_byte(r->b, node, (uint8_t)('0' + d), (uint8_t)('0' + d), free_node(r, left - 1, next, fraction));
    }
}

static int32_t free_node(range_builder *r, int left, int64_t remainder, int32_t fraction[2][2])
{
    int32_t *known = &r->free_nodes[(size_t)left * (size_t)r->multiple + (size_t)remainder];
    if (*known >= 0 || r->b->status != FACET_OK) return *known < 0 ? 0 : *known;
    const int32_t node = *known = builder_node(r->b);
    if (left == 0)
        end_whole(r, node, (beside){false, false}, remainder, fraction);
    else
        build_free(r, node, left, remainder, fraction);
    return node;
}

/* Numbers of n whole digits; beside the bounds from the first digit on where these have as many. */
static void build_length(range_builder *r, int32_t from, int n, beside at, int32_t fraction[2][2])
{
    typedef struct place {
        int32_t node;
        int64_t remainder;
    } place;
    place now[2][2] = {{{-1, 0}, {-1, 0}}, {{-1, 0}, {-1, 0}}};
    now[at.lo][at.hi].node = from;
    for (int i = WHOLE - n; i < WHOLE; i++) {
        place after[2][2] = {{{-1, 0}, {-1, 0}}, {{-1, 0}, {-1, 0}}};
        for (int k = 0; k < 4 * 10; k++) {
            const beside b = {k / 20, k / 10 % 2};
            const int d = k % 10;
            const place *p = &now[b.lo][b.hi];
            beside next;
            if (p->node < 0 || (i == WHOLE - n && n > 1 && d == 0)) continue;
            if (!step(b, d, r->lo->whole[i], r->hi->whole[i], &next)) continue;
            const int64_t remainder = (p->remainder * 10 + d) % r->multiple;
            int32_t to;
            if (!next.lo && !next.hi) {
                to = free_node(r, WHOLE - 1 - i, remainder, fraction);
            } else { /* the digits so far are a bound's: one way only */
                if (after[next.lo][next.hi].node < 0) after[next.lo][next.hi] = (place){builder_node(r->b), remainder};
                to = after[next.lo][next.hi].node;
            }
            builder_byte(r->b, p->node, (uint8_t)('0' + d), (uint8_t)('0' + d), to);
        }
        memcpy(now, after, sizeof now);
    }
    for (int k = 1; k < 4; k++)
        if (now[k / 2][k % 2].node >= 0)
            end_whole(r, now[k / 2][k % 2].node, (beside){k / 2, k % 2}, now[k / 2][k % 2].remainder, fraction);
}

static int whole_length(const decimal *d)
{
    int n = WHOLE;
    while (n > 1 && d->whole[WHOLE - n] == 0) n--;
    return n;
}

/* From lo to hi, both without sign. */
static facet_status build_range(schema_compiler *c, const number_shape *s, const decimal *lo, const decimal *hi,
                                int32_t from, int32_t to)
{
    const int order = compare_digits(lo, hi);
    if (order > 0 || (order == 0 && (lo->is_exclusive || hi->is_exclusive))) return FACET_OK;
    range_builder r = {.b = &c->b,
                       .lo = lo,
                       .hi = hi,
                       .multiple = s->multiple,
                       .n_fraction = s->is_integer ? 0 : s->n_fraction,
                       .to = to};
    const size_t n = (size_t)(WHOLE + 1) * (size_t)s->multiple;
    int32_t fraction[2][2] = {{-1, -1}, {-1, -1}};
    r.free_nodes = mem_resize_array(NULL, n, sizeof *r.free_nodes);
    if (!r.free_nodes) return schema_no_memory(c);
    memset(r.free_nodes, 0xff, n * sizeof *r.free_nodes);
    const int n_lo = whole_length(lo), n_hi = whole_length(hi);
    for (int k = n_lo; k <= n_hi; k++) build_length(&r, from, k, (beside){k == n_lo, k == n_hi}, fraction);
    build_fraction(&r, fraction);
    mem_free(r.free_nodes);
    return FACET_OK;
}

/* ---- numbers ---- */

/* The most that is written: what a double tells apart, or for integers what fits 64 bits. */
static decimal most(const number_shape *s)
{
    const int n = s->is_integer ? WHOLE : greater(DOUBLE_DIGITS - s->n_fraction, LEAST_WHOLE);
    decimal d = {0};
    memset(d.whole + WHOLE - n, 9, (size_t)n);
    return d;
}

static facet_status build_signed(schema_compiler *c, const number_shape *s, int32_t from, int32_t to)
{
    const decimal zero = {0}, positive_zero = {.is_exclusive = true}, limit = most(s);
    const bound *min = &s->min, *max = &s->max;
    if (!max->exists || !max->is_negative) {
        const decimal *lo = min->exists && !min->is_negative ? &min->d : &zero, *hi = max->exists ? &max->d : &limit;
        FACET_TRY(build_range(c, s, lo, hi, from, to));
    }
    if (!min->exists || min->is_negative) {
        const int32_t behind_sign = builder_node(&c->b);
        const decimal *lo = max->exists && max->is_negative ? &max->d : &positive_zero,
                      *hi = min->exists ? &min->d : &limit;
        builder_byte(&c->b, from, '-', '-', behind_sign);
        FACET_TRY(build_range(c, s, lo, hi, behind_sign, to));
    }
    return FACET_OK;
}

facet_status schema_number(schema_compiler *c, const json_t *schema, const char *path, bool is_integer, int32_t from,
                           int32_t to)
{
    number_shape s = {.is_integer = is_integer, .path = path};
    FACET_TRY(read_bounds(c, schema, path, false, &s.min));
    FACET_TRY(read_bounds(c, schema, path, true, &s.max));
    FACET_TRY(read_multiple(c, schema, path, &s));
    FACET_TRY(read_format(c, schema, path, &s));
    if (!s.min.exists && !s.max.exists && s.multiple == 1 && !s.n_fraction) {
        builder_call(&c->b, from, schema_part_rule(c, s.is_integer ? PART_INTEGER : PART_NUMBER), to);
        return FACET_OK;
    }
    if (!s.n_fraction) s.n_fraction = greater(FREE_FRACTION, greater(s.min.d.n_fraction, s.max.d.n_fraction));
    if (s.min.exists && s.min.is_negative && is_zero(&s.min.d)) s.min.is_negative = false;
    if (s.max.exists && s.max.is_negative && is_zero(&s.max.d)) s.max.is_negative = false;
    return build_signed(c, &s, from, to);
}
