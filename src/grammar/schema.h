/* schema.h: JSON schemas (draft 2020-12, and what older drafts write otherwise) as grammars: every text of the grammar
 * is JSON that fits the schema. Not every such JSON is a text of it: members come in the schema's order, blanks are
 * few. What cannot be guaranteed is refused. docs/grammars.md has the supported subset. */
#ifndef FACET_GRAMMAR_SCHEMA_H
#define FACET_GRAMMAR_SCHEMA_H

#include "grammar/grammar.h"

enum { SCHEMA_MAX_BYTES = 4 << 20 };

/* text: n bytes of JSON. FACET_ERR_ARG: malformed, or nothing fits it; FACET_ERR_UNSUPPORTED: a part that is not
 * supported; FACET_ERR_LIMIT: too large. Messages begin with the JSON pointer of the part: "#/properties/id/not: …". */
facet_status schema_parse(const char *text, size_t n, grammar **out, facet_error *err);
/* Any JSON object. */
facet_status schema_any_object(grammar **out, facet_error *err);

#endif
