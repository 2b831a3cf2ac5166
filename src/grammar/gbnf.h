/* gbnf.h: grammars in the GBNF notation, which names its rules, quotes its texts and repeats like regular expressions.
 *
 *     root   ::= "yes" | "no" | number         # comment
 *     number ::= [1-9] [0-9]{0,8} ("." [0-9]+)?
 *
 * docs/grammars.md has the notation in full. */
#ifndef FACET_GRAMMAR_GBNF_H
#define FACET_GRAMMAR_GBNF_H

#include "grammar/grammar.h"

enum { GBNF_MAX_BYTES = 1 << 20 };

/* Text of n bytes. FACET_ERR_ARG: "line 3, column 14: …". FACET_ERR_LIMIT: too long, too deep, too large. */
facet_status gbnf_parse(const char *text, size_t n, grammar **out, facet_error *err);

#endif
