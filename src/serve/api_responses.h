/* api_responses.h: requests in the shape of OpenAI's Responses interface. */
#ifndef FACET_SERVE_API_RESPONSES_H
#define FACET_SERVE_API_RESPONSES_H

#include "serve/api_call.h"

/* The body's items, instructions and tools become those of a chat; the prompt is rendered. */
bool responses_read(api_call *c, api_error *e);

#endif
