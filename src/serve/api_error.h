/* api_error.h: what a request is refused with, in the shape of either API. */
#ifndef FACET_SERVE_API_ERROR_H
#define FACET_SERVE_API_ERROR_H

#include <jansson.h>

#include "base/error.h"

typedef struct api_error {
    int status;       /* of HTTP; 0 = none */
    const char *type; /* static: "invalid_request_error", …; NULL: by status */
    const char *code; /* static; NULL = null */
    char param[64];   /* the field; "" = null */
    char message[640];
    int retry_after_s; /* 0 = none */
} api_error;

/* Fills *e and returns false, so that a failing function can end with `return api_fail(…)`. param: NULL, or the path
 * of the field, which the message begins with. */
bool api_fail(api_error *e, int status, const char *param, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* An error of the engine or of the library. */
bool api_fail_with(api_error *e, const facet_error *err);
bool api_fail_memory(api_error *e);

/* {"error": {…}} as the OpenAI interface has it, {"type": "error", …} as the Anthropic one has it; NULL without memory.
 */
json_t *api_error_json(const api_error *e, bool is_anthropic);

#endif
