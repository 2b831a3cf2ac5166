/* json_validator.h: whether a JSON value fits a schema, straight from the definitions of the keywords; shares nothing
 * with the library's compiler. Patterns go through POSIX regular expressions, formats through hand-written checks. */
#ifndef FACET_TESTS_JSON_VALIDATOR_H
#define FACET_TESTS_JSON_VALIDATOR_H

#include <ctype.h>
#include <jansson.h>
#include <locale.h>
#include <math.h>
#include <regex.h>

#include "testing.h"

static bool validate(const json_t *root, const json_t *schema, const json_t *v);

static inline const json_t *lookup(const json_t *root, const char *ref)
{
    char token[128];
    const json_t *at = root;
    assert_int_equal(ref[0], '#');
    for (ref++; *ref;) {
        size_t n = 0;
        for (ref++; *ref && *ref != '/'; ref++) {
            if (ref[0] == '~')
                ref++, token[n++] = *ref == '0' ? '~' : '/';
            else
                token[n++] = *ref;
        }
        token[n] = 0;
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(token)) : json_object_get(at, token);
        assert_non_null(at);
    }
    return at;
}

static inline bool is_whole(const json_t *v)
{
    return json_is_integer(v) || (json_is_real(v) && json_real_value(v) == floor(json_real_value(v)));
}

static inline bool has_type(const json_t *v, const char *type)
{
    if (strcmp(type, "integer") == 0) return is_whole(v);
    if (strcmp(type, "number") == 0) return json_is_number(v);
    if (strcmp(type, "string") == 0) return json_is_string(v);
    if (strcmp(type, "boolean") == 0) return json_is_boolean(v);
    if (strcmp(type, "null") == 0) return json_is_null(v);
    return strcmp(type, "array") == 0 ? json_is_array(v) : json_is_object(v);
}

static inline bool fits_type(const json_t *type, const json_t *v)
{
    if (!json_is_array(type)) return has_type(v, json_string_value(type));
    for (size_t i = 0; i < json_array_size(type); i++)
        if (has_type(v, json_string_value(json_array_get(type, i)))) return true;
    return false;
}

static inline bool same_value(const json_t *x, const json_t *y)
{
    if (json_is_number(x) && json_is_number(y)) return json_number_value(x) == json_number_value(y);
    return json_equal(x, y);
}

/* ---- strings ---- */

static inline size_t characters(const json_t *v)
{
    size_t n = 0;
    const char *s = json_string_value(v);
    for (size_t i = 0; i < json_string_length(v); i++) n += (s[i] & 0xc0) != 0x80;
    return n;
}

/* ECMAScript as POSIX ERE: what the tests' patterns use. */
static inline bool matches(const char *pattern, const char *text)
{
    char ere[1024];
    size_t n = 0;
    bool in_set = false;
    regex_t re;
    for (const char *p = pattern; *p; p++) {
        assert_true(n + 32 < sizeof ere);
        const char *out = NULL;
        if (*p == '[') in_set = true;
        if (*p == ']') in_set = false;
        if (p[0] == '\\' && p[1] == 'd') out = in_set ? "0-9" : "[0-9]";
        if (p[0] == '\\' && p[1] == 'w') out = in_set ? "A-Za-z0-9_" : "[A-Za-z0-9_]";
        if (p[0] == '\\' && p[1] == 'D') out = "[^0-9]";
        if (p[0] == '\\' && p[1] == 'n') out = "\n";
        if (out) {
            n += (size_t)sprintf(ere + n, "%s", out);
            p++;
        } else if (strncmp(p, "(?:", 3) == 0) {
            ere[n++] = '(';
            p += 2;
        } else if (*p == '?' && p > pattern && strchr("*+?}", p[-1])) {
            continue; /* lazy */
        } else {
            ere[n++] = *p;
        }
    }
    ere[n] = 0;
    if (regcomp(&re, ere, REG_EXTENDED | REG_NOSUB) != 0) fail_msg("'%s' as '%s'", pattern, ere);
    const bool does = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    return does;
}

static inline bool digits(const char **s, int n, int lo, int hi)
{
    int v = 0;
    for (; n; n--, ++*s) {
        if (!isdigit((unsigned char)**s)) return false;
        v = v * 10 + (**s - '0');
    }
    return v >= lo && v <= hi;
}

static inline bool skip_byte(const char **s, char c)
{
    if (**s != c) return false;
    ++*s;
    return true;
}

static inline bool is_date(const char **s)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const int year = atoi(*s);
    if (!digits(s, 4, 0, 9999) || !skip_byte(s, '-')) return false;
    const int month = atoi(*s);
    if (!digits(s, 2, 1, 12) || !skip_byte(s, '-')) return false;
    const bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return digits(s, 2, 1, days[month - 1] + (month == 2 && is_leap));
}

static inline bool is_time(const char **s)
{
    if (!digits(s, 2, 0, 23) || !skip_byte(s, ':') || !digits(s, 2, 0, 59) || !skip_byte(s, ':') ||
        !digits(s, 2, 0, 59))
        return false;
    if (skip_byte(s, '.')) {
        if (!isdigit((unsigned char)**s)) return false;
        while (isdigit((unsigned char)**s)) ++*s;
    }
    if (skip_byte(s, 'Z')) return true;
    return (skip_byte(s, '+') || skip_byte(s, '-')) && digits(s, 2, 0, 23) && skip_byte(s, ':') && digits(s, 2, 0, 59);
}

static inline bool is_uuid(const char *s)
{
    for (int i = 0; i < 36; i++)
        if (i == 8 || i == 13 || i == 18 || i == 23 ? s[i] != '-' : !isxdigit((unsigned char)s[i])) return false;
    return s[36] == 0;
}

static inline bool is_ipv4(const char *s)
{
    int a, b, c, d, n = 0;
    if (sscanf(s, "%d.%d.%d.%d%n", &a, &b, &c, &d, &n) != 4 || s[n]) return false;
    char again[64];
    snprintf(again, sizeof again, "%d.%d.%d.%d", a, b, c, d);
    return strcmp(again, s) == 0 && a >= 0 && a < 256 && b >= 0 && b < 256 && c >= 0 && c < 256 && d >= 0 && d < 256;
}

static inline bool is_host(const char *s)
{
    size_t n = 0;
    if (strlen(s) > 253) return false;
    for (; *s; s++) {
        if (*s == '.' ? n == 0 || s[-1] == '-' : !isalnum((unsigned char)*s) && (*s != '-' || n == 0)) return false;
        n = *s == '.' ? 0 : n + 1;
        if (n > 63) return false;
    }
    return n > 0 && s[-1] != '-';
}

static inline bool fits_format(const char *format, const char *s)
{
    if (strcmp(format, "date") == 0) return is_date(&s) && !*s;
    if (strcmp(format, "time") == 0) return is_time(&s) && !*s;
    if (strcmp(format, "date-time") == 0) return is_date(&s) && skip_byte(&s, 'T') && is_time(&s) && !*s;
    if (strcmp(format, "uuid") == 0) return is_uuid(s);
    if (strcmp(format, "ipv4") == 0) return is_ipv4(s);
    if (strcmp(format, "hostname") == 0) return is_host(s);
    if (strcmp(format, "email") == 0) return strchr(s, '@') > s && is_host(strchr(s, '@') + 1);
    if (strcmp(format, "duration") == 0) return s[0] == 'P' && isdigit((unsigned char)s[s[1] == 'T' ? 2 : 1]);
    if (strcmp(format, "ipv6") == 0) return strspn(s, "0123456789abcdefABCDEF:") == strlen(s) && strlen(s) <= 39;
    if (strcmp(format, "uri") == 0) return isalpha((unsigned char)*s) && strstr(s, "://");
    return true; /* of numbers */
}

/* ---- kinds ---- */

static inline const json_t *get(const json_t *schema, const char *key)
{
    return json_object_get(schema, key);
}

static inline bool within(const json_t *schema, const char *min, const char *max, double x)
{
    return (!get(schema, min) || x >= json_number_value(get(schema, min))) &&
           (!get(schema, max) || x <= json_number_value(get(schema, max)));
}

static inline bool is_multiple(double x, double of)
{
    const double q = x / of;
    return fabs(q - round(q)) <= 1e-9 * fmax(1, fabs(q));
}

static inline bool fits_number(const json_t *schema, const json_t *v)
{
    const double x = json_number_value(v);
    const json_t *lo = get(schema, "exclusiveMinimum"), *hi = get(schema, "exclusiveMaximum");
    const char *format = json_string_value(get(schema, "format"));
    if (!within(schema, "minimum", "maximum", x)) return false;
    if (json_is_number(lo) && !(x > json_number_value(lo))) return false;
    if (json_is_number(hi) && !(x < json_number_value(hi))) return false;
    if (json_is_true(lo) && x == json_number_value(get(schema, "minimum"))) return false;
    if (json_is_true(hi) && x == json_number_value(get(schema, "maximum"))) return false;
    if (format && strcmp(format, "int32") == 0 && !(x >= -2147483648.0 && x <= 2147483647.0)) return false;
    return !get(schema, "multipleOf") || is_multiple(x, json_number_value(get(schema, "multipleOf")));
}

static inline bool fits_string(const json_t *schema, const json_t *v)
{
    const char *pattern = json_string_value(get(schema, "pattern")), *format = json_string_value(get(schema, "format"));
    return within(schema, "minLength", "maxLength", (double)characters(v)) &&
           (!pattern || matches(pattern, json_string_value(v))) &&
           (!format || fits_format(format, json_string_value(v)));
}

static inline bool fits_array(const json_t *root, const json_t *schema, const json_t *v)
{
    const json_t *items = get(schema, "items"), *prefix = get(schema, "prefixItems");
    if (json_is_array(items)) {
        prefix = items;
        items = get(schema, "additionalItems");
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *of = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        if (of && !validate(root, of, json_array_get(v, i))) return false;
    }
    return within(schema, "minItems", "maxItems", (double)json_array_size(v)) &&
           (!json_is_true(get(schema, "uniqueItems")) || json_array_size(v) < 2);
}

static inline bool fits_object(const json_t *root, const json_t *schema, const json_t *v)
{
    const json_t *properties = get(schema, "properties"), *patterns = get(schema, "patternProperties"),
                 *rest = get(schema, "additionalProperties"), *required = get(schema, "required");
    const char *key, *pattern;
    json_t *value, *of;
    for (size_t i = 0; i < json_array_size(required); i++)
        if (!json_object_get(v, json_string_value(json_array_get(required, i)))) return false;
    json_object_foreach((json_t *)(uintptr_t)v, key, value)
    {
        bool is_known = false;
        if (get(properties, key)) {
            is_known = true;
            if (!validate(root, get(properties, key), value)) return false;
        }
        json_object_foreach((json_t *)(uintptr_t)patterns, pattern, of)
        {
            if (!matches(pattern, key)) continue;
            is_known = true;
            if (!validate(root, of, value)) return false;
        }
        if (!is_known && rest && !validate(root, rest, value)) return false;
    }
    return within(schema, "minProperties", "maxProperties", (double)json_object_size(v));
}

static inline size_t count_fitting(const json_t *root, const json_t *list, const json_t *v)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(list); i++) n += validate(root, json_array_get(list, i), v);
    return n;
}

static bool validate(const json_t *root, const json_t *schema, const json_t *v)
{
    if (json_is_boolean(schema)) return json_is_true(schema);
    const json_t *values = get(schema, "enum");
    bool is_listed = !values;
    for (size_t i = 0; i < json_array_size(values); i++)
        is_listed = is_listed || same_value(json_array_get(values, i), v);
    if (!is_listed || (get(schema, "const") && !same_value(get(schema, "const"), v))) return false;
    if (get(schema, "type") && !fits_type(get(schema, "type"), v)) return false;
    if (get(schema, "$ref") && !validate(root, lookup(root, json_string_value(get(schema, "$ref"))), v)) return false;
    if (count_fitting(root, get(schema, "allOf"), v) != json_array_size(get(schema, "allOf"))) return false;
    if (get(schema, "anyOf") && count_fitting(root, get(schema, "anyOf"), v) == 0) return false;
    if (get(schema, "oneOf") && count_fitting(root, get(schema, "oneOf"), v) != 1) return false;
    if (json_is_number(v)) return fits_number(schema, v);
    if (json_is_string(v)) return fits_string(schema, v);
    if (json_is_array(v)) return fits_array(root, schema, v);
    return !json_is_object(v) || fits_object(root, schema, v);
}

#endif
