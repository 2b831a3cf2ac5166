/* daemon_fields.h: the fields of a JSON object, taken out of it one by one, so that what is left in the end is a field
 * that nobody knows. Where one is missing (or null) *out is left alone. FACET_ERR_ARG names the field, what it is and
 * what is wanted. */
#ifndef FACET_SERVE_DAEMON_FIELDS_H
#define FACET_SERVE_DAEMON_FIELDS_H

#include <jansson.h>

#include "base/error.h"

facet_status take_bool(json_t *o, const char *name, bool *out, facet_error *err);
facet_status take_int(json_t *o, const char *name, int64_t min, int64_t max, int64_t *out, facet_error *err);
facet_status take_int32(json_t *o, const char *name, int32_t min, int32_t max, int32_t *out, facet_error *err);
facet_status take_float(json_t *o, const char *name, double min, double max, float *out, facet_error *err);
/* A new reference to the string, which has no NUL inside. */
facet_status take_string(json_t *o, const char *name, json_t **out, facet_error *err);
/* A new reference to whatever it is. */
json_t *take_any(json_t *o, const char *name);
/* FACET_ERR_ARG when a field is left. */
facet_status take_nothing(const json_t *o, facet_error *err);

/* "name: 12, wanted ...": for values that are taken apart elsewhere. */
facet_status field_error(const json_t *value, const char *name, const char *want, facet_error *err);

#endif
