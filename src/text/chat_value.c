#define _GNU_SOURCE /* memmem */
#include "text/chat_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define QUOTE "<|\"|>"

static int lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : (unsigned char)c;
}

static int compare_members(const void *a, const void *b)
{
    const object_member *x = a, *y = b;
    const char *s = x->key, *t = y->key;
    while (*s && lower(*s) == lower(*t)) s++, t++;
    if (lower(*s) != lower(*t)) return lower(*s) < lower(*t) ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

facet_status chat_sort_members(const json_t *object, object_member **members, size_t *n, facet_error *err)
{
    size_t count = json_object_size(object);
    object_member *m = mem_resize_array(NULL, count, sizeof *m);
    if (!m) return error_memory(err, "an object's keys", count * sizeof *m);
    json_t *o = (json_t *)object; /* jansson's iterators take no const */
    size_t i = 0;
    for (void *it = json_object_iter(o); it && i < count; it = json_object_iter_next(o, it), i++)
        m[i] = (object_member){.key = json_object_iter_key(it), .value = json_object_iter_value(it), .order = i};
    qsort(m, i, sizeof *m, compare_members);
    *members = m;
    *n = i;
    return FACET_OK;
}

void chat_put_raw(buf *out, const char *s, size_t n)
{
    const char *quote;
    while (n && (quote = memmem(s, n, QUOTE, strlen(QUOTE)))) {
        buf_append(out, s, (size_t)(quote - s));
        buf_putc(out, '"');
        n -= (size_t)(quote - s) + strlen(QUOTE);
        s = quote + strlen(QUOTE);
    }
    buf_append(out, s, n);
}

void chat_put_string(buf *out, const char *s, size_t n)
{
    buf_puts(out, QUOTE);
    chat_put_raw(out, s, n);
    buf_puts(out, QUOTE);
}

/* Shortest digits that read back equal, written as the template language does: positional from 1e-4 to below 1e16, with
 * a fraction (".0") even where it is zero. */
static void put_real(buf *out, double v)
{
    char s[400];
    int digits = 0;
    do snprintf(s, sizeof s, "%.*e", digits, v);
    while (strtod(s, NULL) != v && ++digits < 17);
    int exponent = (int)strtol(strchr(s, 'e') + 1, NULL, 10);
    if (exponent >= -4 && exponent < 16) {
        int decimals = digits - exponent;
        snprintf(s, sizeof s, "%.*f", decimals > 1 ? decimals : 1, v);
    }
    for (char *c = s; *c; c++) /* whatever the locale's decimal point */
        if (!(*c >= '0' && *c <= '9') && *c != '-' && *c != '+' && *c != 'e') *c = '.';
    buf_puts(out, s);
}

static facet_status put_array(buf *out, const json_t *a, value_style style, int depth, facet_error *err)
{
    buf_putc(out, '[');
    for (size_t i = 0; i < json_array_size(a); i++) {
        if (i) buf_putc(out, ',');
        FACET_TRY(chat_put_value(out, json_array_get(a, i), style, depth + 1, err));
    }
    buf_putc(out, ']');
    return FACET_OK;
}

facet_status chat_put_object(buf *out, const json_t *object, value_style style, int depth, facet_error *err)
{
    object_member *m = NULL;
    size_t n = 0;
    facet_status status = chat_sort_members(object, &m, &n, err);
    buf_putc(out, '{');
    for (size_t i = 0; i < n && status == FACET_OK; i++) {
        if (i) buf_putc(out, ',');
        if (style.quoted_keys)
            chat_put_string(out, m[i].key, strlen(m[i].key));
        else
            chat_put_raw(out, m[i].key, strlen(m[i].key));
        buf_putc(out, ':');
        status = chat_put_value(out, m[i].value, style, depth + 1, err);
    }
    buf_putc(out, '}');
    mem_free(m);
    return status;
}

facet_status chat_put_value(buf *out, const json_t *v, value_style style, int depth, facet_error *err)
{
    if (depth > CHAT_MAX_DEPTH) return error_set(err, FACET_ERR_ARG, "nested more than %d levels deep", CHAT_MAX_DEPTH);
    switch (json_typeof(v)) {
    case JSON_OBJECT: return chat_put_object(out, v, style, depth, err);
    case JSON_ARRAY: return put_array(out, v, style, depth, err);
    case JSON_STRING: chat_put_string(out, json_string_value(v), json_string_length(v)); break;
    case JSON_INTEGER: buf_printf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v)); break;
    case JSON_REAL: put_real(out, json_real_value(v)); break;
    case JSON_TRUE: buf_puts(out, "true"); break;
    case JSON_FALSE: buf_puts(out, "false"); break;
    case JSON_NULL: buf_puts(out, style.null_is_none ? "None" : "null"); break;
    }
    return FACET_OK;
}
