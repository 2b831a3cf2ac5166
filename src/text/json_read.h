/* json_read.h: JSON text to jansson values, with this library's errors, and back. */
#ifndef FACET_TEXT_JSON_READ_H
#define FACET_TEXT_JSON_READ_H

#include <jansson.h>

#include "base/buf.h"
#include "base/error.h"

/* *out is a new reference. flags: JSON_ of jansson; duplicate keys are always refused. `name` begins the message.
 * FACET_ERR_ARG for malformed text, FACET_ERR_MEMORY. */
facet_status json_read(const char *name, const char *text, size_t n, size_t flags, json_t **out, facet_error *err);

/* Appends the value's text; flags: JSON_ of jansson. False when memory is short. */
bool json_print(const json_t *j, size_t flags, buf *out);

#endif
