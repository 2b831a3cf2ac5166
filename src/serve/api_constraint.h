/* api_constraint.h: what a text must look like, under the names that the interfaces have for it. */
#ifndef FACET_SERVE_API_CONSTRAINT_H
#define FACET_SERVE_API_CONSTRAINT_H

#include "serve/api.h"

/* response_format (chat completions), text.format (responses), output_config.format and output_format (messages), and
 * by itself json_schema or grammar (GBNF). *out NULL: any text; else it goes back with grammars_give_back. */
bool api_constraint_read(api *a, const json_t *body, grammar_entry **out, api_error *e);

#endif
