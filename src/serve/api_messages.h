/* api_messages.h: requests in the shape of Anthropic's Messages interface. */
#ifndef FACET_SERVE_API_MESSAGES_H
#define FACET_SERVE_API_MESSAGES_H

#include "serve/api_call.h"

/* The body's messages, system text, tools and thinking become those of a chat; the prompt is rendered. is_counting:
 * only its length is wanted, so that max_tokens may be missing. */
bool messages_read(api_call *c, bool is_counting, api_error *e);

#endif
