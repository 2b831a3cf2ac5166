#include "serve/daemon_fields.h"

#include <stdio.h>
#include <string.h>

facet_status field_error(const json_t *v, const char *name, const char *want, facet_error *err)
{
    char met[96] = "nothing";
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_STRING: snprintf(met, sizeof met, "'%.40s' (a string)", json_string_value(v)); break;
    case JSON_INTEGER: snprintf(met, sizeof met, "%lld", (long long)json_integer_value(v)); break;
    case JSON_REAL: snprintf(met, sizeof met, "%.9g", json_real_value(v)); break;
    case JSON_TRUE: snprintf(met, sizeof met, "true"); break;
    case JSON_FALSE: snprintf(met, sizeof met, "false"); break;
    case JSON_OBJECT: snprintf(met, sizeof met, "an object"); break;
    case JSON_ARRAY: snprintf(met, sizeof met, "an array of %zu", json_array_size(v)); break;
    case JSON_NULL: break;
    }
    return error_set(err, FACET_ERR_ARG, "%s: %s, wanted %s", name, met, want);
}

json_t *take_any(json_t *o, const char *name)
{
    json_t *v = json_incref(json_object_get(o, name));
    json_object_del(o, name);
    if (!json_is_null(v)) return v;
    json_decref(v);
    return NULL;
}

/* Drops the reference that take_any gave. */
static facet_status done(json_t *v, facet_status status)
{
    json_decref(v);
    return status;
}

facet_status take_bool(json_t *o, const char *name, bool *out, facet_error *err)
{
    json_t *v = take_any(o, name);
    if (v && !json_is_boolean(v)) return done(v, field_error(v, name, "true or false", err));
    if (v) *out = json_is_true(v);
    return done(v, FACET_OK);
}

facet_status take_int(json_t *o, const char *name, int64_t min, int64_t max, int64_t *out, facet_error *err)
{
    char want[96];
    json_t *v = take_any(o, name);
    snprintf(want, sizeof want, "a whole number from %lld to %lld", (long long)min, (long long)max);
    if (v && (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max))
        return done(v, field_error(v, name, want, err));
    if (v) *out = json_integer_value(v);
    return done(v, FACET_OK);
}

facet_status take_int32(json_t *o, const char *name, int32_t min, int32_t max, int32_t *out, facet_error *err)
{
    int64_t v = *out;
    FACET_TRY(take_int(o, name, min, max, &v, err));
    *out = (int32_t)v;
    return FACET_OK;
}

facet_status take_float(json_t *o, const char *name, double min, double max, float *out, facet_error *err)
{
    char want[96];
    json_t *v = take_any(o, name);
    snprintf(want, sizeof want, "a number from %g to %g", min, max);
    if (v && !(json_is_number(v) && json_number_value(v) >= min && json_number_value(v) <= max))
        return done(v, field_error(v, name, want, err));
    if (v) *out = (float)json_number_value(v);
    return done(v, FACET_OK);
}

facet_status take_string(json_t *o, const char *name, json_t **out, facet_error *err)
{
    json_t *v = take_any(o, name);
    if (v && (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v)))
        return done(v, field_error(v, name, "a string without a NUL inside", err));
    if (v) *out = v;
    return FACET_OK;
}

facet_status take_nothing(const json_t *o, facet_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        (void)value;
        return error_set(err, FACET_ERR_ARG, "%.60s: there is no such field", key);
    }
    return FACET_OK;
}
