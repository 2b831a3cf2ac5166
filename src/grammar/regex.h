/* regex.h: the patterns of JSON schemas (a subset of ECMAScript's regular expressions) over the characters of a string,
 * translated to its JSON form between the quotes. docs/grammars.md lists the subset. */
#ifndef FACET_GRAMMAR_REGEX_H
#define FACET_GRAMMAR_REGEX_H

#include "grammar/charset.h"

/* A piece of an automaton, and how many characters (code points) it reads. */
typedef struct regex {
    int32_t start, end;
    int32_t min, max; /* max may be GRAMMAR_INFINITE */
    /* The whole pattern is one character set, this often; else body is GRAMMAR_NONE. A rule that reads one of them. */
    int32_t body;
} regex;

/* pattern: valid UTF-8, n bytes. As in a schema, it may match anywhere in the string unless it is anchored by ^ and $.
 * FACET_ERR_ARG tells what is malformed, FACET_ERR_UNSUPPORTED what is not supported, and at which character. */
facet_status regex_build(const char *pattern, size_t n, grammar_builder *b, regex *out, facet_error *err);

/* Edges that read, in a JSON string, one character of the set (normalised): as itself, or as a short escape where it
 * needs one. */
void json_build_set(const charset *s, grammar_builder *b, int32_t from, int32_t to);
/* Edges that read any character in any of its JSON forms but U+0000. */
void json_build_any(grammar_builder *b, int32_t from, int32_t to);

#endif
