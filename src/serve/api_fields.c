#include "serve/api_fields.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const json_t *field_get(const json_t *o, const char *name)
{
    const json_t *v = json_object_get(o, name);
    return v && !json_is_null(v) ? v : NULL;
}

void field_describe(const json_t *v, char *out, size_t n)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_STRING: snprintf(out, n, "'%.60s' (a string)", json_string_value(v)); return;
    case JSON_INTEGER: snprintf(out, n, "%lld", (long long)json_integer_value(v)); return;
    case JSON_REAL: snprintf(out, n, "%.9g", json_real_value(v)); return;
    case JSON_TRUE: snprintf(out, n, "true"); return;
    case JSON_FALSE: snprintf(out, n, "false"); return;
    case JSON_OBJECT: snprintf(out, n, "an object"); return;
    case JSON_ARRAY: snprintf(out, n, "an array of %zu", json_array_size(v)); return;
    case JSON_NULL: snprintf(out, n, v ? "null" : "nothing"); return;
    }
}

void field_path(char *out, size_t n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out, n, fmt, ap);
    va_end(ap);
}

bool field_wrong(const json_t *v, const char *param, const char *want, api_error *e)
{
    char met[128];
    field_describe(v, met, sizeof met);
    return api_fail(e, 400, param, "%s: want %s", met, want);
}

bool field_bool(const json_t *o, const char *name, bool *out, api_error *e)
{
    const json_t *v = field_get(o, name);
    if (!v) return true;
    if (!json_is_boolean(v)) return field_wrong(v, name, "true or false", e);
    *out = json_is_true(v);
    return true;
}

bool field_int(const json_t *o, const char *name, int64_t min, int64_t max, int64_t *out, api_error *e)
{
    char want[96];
    const json_t *v = field_get(o, name);
    if (!v) return true;
    snprintf(want, sizeof want, "a whole number from %lld to %lld", (long long)min, (long long)max);
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max)
        return field_wrong(v, name, want, e);
    *out = json_integer_value(v);
    return true;
}

bool field_int32(const json_t *o, const char *name, int32_t min, int32_t max, int32_t *out, api_error *e)
{
    int64_t v = *out;
    if (!field_int(o, name, min, max, &v, e)) return false;
    *out = (int32_t)v;
    return true;
}

bool field_float(const json_t *o, const char *name, double min, double max, float *out, api_error *e)
{
    char want[96];
    const json_t *v = field_get(o, name);
    if (!v) return true;
    snprintf(want, sizeof want, "a number from %g to %g", min, max);
    if (!json_is_number(v) || !(json_number_value(v) >= min && json_number_value(v) <= max))
        return field_wrong(v, name, want, e);
    *out = (float)json_number_value(v);
    return true;
}

bool field_string(const json_t *o, const char *name, const char **out, api_error *e)
{
    const json_t *v = field_get(o, name);
    if (!v) return true;
    if (!json_is_string(v)) return field_wrong(v, name, "a string", e);
    if (strlen(json_string_value(v)) != json_string_length(v))
        return api_fail(e, 400, name, "a string with a NUL inside: want one without");
    *out = json_string_value(v);
    return true;
}

bool field_array(const json_t *o, const char *name, const json_t **out, api_error *e)
{
    const json_t *v = field_get(o, name);
    if (!v) return true;
    if (!json_is_array(v)) return field_wrong(v, name, "an array", e);
    *out = v;
    return true;
}

bool field_object(const json_t *o, const char *name, const json_t **out, api_error *e)
{
    const json_t *v = field_get(o, name);
    if (!v) return true;
    if (!json_is_object(v)) return field_wrong(v, name, "an object", e);
    *out = v;
    return true;
}
