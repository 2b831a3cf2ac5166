/* api_fields.h: reading the fields of a request. Each function leaves *out alone where the field is missing or null,
 * and refuses (false, 400) with the field's path, what stands there and what is wanted. */
#ifndef FACET_SERVE_API_FIELDS_H
#define FACET_SERVE_API_FIELDS_H

#include <stdint.h>

#include "serve/api_error.h"

/* The member, or NULL where it is missing or null. */
const json_t *field_get(const json_t *o, const char *name);

bool field_bool(const json_t *o, const char *name, bool *out, api_error *e);
bool field_int(const json_t *o, const char *name, int64_t min, int64_t max, int64_t *out, api_error *e);
bool field_int32(const json_t *o, const char *name, int32_t min, int32_t max, int32_t *out, api_error *e);
bool field_float(const json_t *o, const char *name, double min, double max, float *out, api_error *e);
/* *out borrows; the text has no NUL inside. */
bool field_string(const json_t *o, const char *name, const char **out, api_error *e);
bool field_array(const json_t *o, const char *name, const json_t **out, api_error *e);
bool field_object(const json_t *o, const char *name, const json_t **out, api_error *e);

/* A field's path, cut where it is longer than n. */
void field_path(char *out, size_t n, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Refuses: "param: 'abc' (a string): want …". */
bool field_wrong(const json_t *value, const char *param, const char *want, api_error *e);
/* "true", "12", "'abc' (a string)", "an object", cut to a line's part. */
void field_describe(const json_t *value, char *out, size_t n);

#endif
