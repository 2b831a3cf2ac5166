/* schema_string.c: strings: lengths, patterns, formats. */
#include <string.h>

#include "grammar/regex.h"
#include "grammar/schema_compiler.h"

/* Formats as patterns. Narrower than the standards where these are loose, never wider. */
/* From 0001 on: many programs know no year 0. */
#define YEAR "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
#define LEAP_YEAR "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
#define DAY_28 "(0[1-9]|1[0-9]|2[0-8])"
#define DATE "(" YEAR "-((0[1-9]|1[0-2])-" DAY_28 "|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)|" LEAP_YEAR "-02-29)"
#define HOUR "([01][0-9]|2[0-3])"
#define TIME HOUR ":[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]" HOUR ":[0-5][0-9])"
#define HEX(n) "[0-9a-fA-F]{" #n "}"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,59}[A-Za-z0-9])?"
#define HOST LABEL "(\\." LABEL "){0,3}"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
#define PATH_CHAR "([A-Za-z0-9._~!$&'()*+,;=:@-]|%" HEX(2) ")"

static const struct format {
    const char *name, *pattern;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"duration", "^P([0-9]{1,4}W|[0-9]{1,4}D(T[0-9]{1,4}(H([0-9]{1,4}M)?|M|S))?|T[0-9]{1,4}(H([0-9]{1,4}M)?|M|S))$"},
    {"uuid", "^" HEX(8) "-" HEX(4) "-" HEX(4) "-" HEX(4) "-" HEX(12) "$"},
    {"email", "^" ATOM "{1,32}(\\." ATOM "{1,15}){0,1}@" LABEL "\\." LABEL "(\\." LABEL "){0,1}$"},
    {"hostname", "^" HOST "$"},
    {"ipv4", "^" OCTET "(\\." OCTET "){3}$"},
    {"ipv6", "^([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$"},
    {"uri", "^[A-Za-z][A-Za-z0-9+.-]{0,15}://" HOST "(:[0-9]{1,5})?(/" PATH_CHAR "*)*(\\?(" PATH_CHAR
            "|[/?])*)?(#(" PATH_CHAR "|[/?])*)?$"},
};

typedef struct lengths {
    int32_t min, max; /* max may be GRAMMAR_INFINITE */
} lengths;

static int32_t greater(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static int32_t lesser(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* The pattern's own lengths must do, unless it is one set of characters, whose count can be narrowed. */
static facet_status build_pattern(schema_compiler *c, const char *pattern, size_t n, lengths l, const char *path,
                                  const char *key, int32_t from, int32_t to)
{
    regex r;
    facet_error why;
    const facet_status status = regex_build(pattern, n, &c->b, &r, &why);
    if (status != FACET_OK) return schema_fail(c, status, path, key, "%s", why.message);
    if (r.min >= l.min && r.max <= l.max) {
        builder_empty(&c->b, from, r.start);
        builder_empty(&c->b, r.end, to);
        return FACET_OK;
    }
    if (r.body < 0)
        return schema_fail(c, FACET_ERR_UNSUPPORTED, path, key,
                           "together with minLength or maxLength: put the length into the pattern");
    const int32_t min = greater(r.min, l.min), max = lesser(r.max, l.max);
    if (min <= max) builder_loop(&c->b, from, r.body, min, max, to);
    return FACET_OK;
}

static facet_status build_format(schema_compiler *c, const char *name, lengths l, const char *path, int32_t from,
                                 int32_t to)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return build_pattern(c, formats[i].pattern, strlen(formats[i].pattern), l, path, "format", from, to);
    return schema_fail(c, FACET_ERR_UNSUPPORTED, path, "format",
                       "'%.40s': supported are date, time, date-time, duration, uuid, email, hostname, ipv4, ipv6, uri",
                       name);
}

facet_status schema_string(schema_compiler *c, const json_t *schema, const char *path, int32_t from, int32_t to)
{
    const json_t *pattern = json_object_get(schema, "pattern"), *format = json_object_get(schema, "format");
    lengths l = {0, GRAMMAR_INFINITE};
    FACET_TRY(schema_count(c, schema, path, "minLength", &l.min));
    FACET_TRY(schema_count(c, schema, path, "maxLength", &l.max));
    if (pattern && format)
        return schema_fail(c, FACET_ERR_UNSUPPORTED, path, "format", "together with pattern: leave one of them out");
    if (l.min > l.max) return FACET_OK; /* nothing fits */
    const int32_t open = builder_node(&c->b), close = builder_node(&c->b);
    builder_byte(&c->b, from, '"', '"', open);
    builder_byte(&c->b, close, '"', '"', to);
    if (pattern)
        return build_pattern(c, json_string_value(pattern), json_string_length(pattern), l, path, "pattern", open,
                             close);
    if (format) return build_format(c, json_string_value(format), l, path, open, close);
    builder_loop(&c->b, open, schema_part_rule(c, PART_CHAR), l.min, l.max, close);
    return FACET_OK;
}
