/* api_constraint.h: what a text must look like: response_format and grammar of a request. */
#ifndef FACET_SERVE_API_CONSTRAINT_H
#define FACET_SERVE_API_CONSTRAINT_H

#include "serve/api_error.h"

/* Refuses everything but plain text. */
bool api_constraint_read(const json_t *body, api_error *e);

#endif
