/* charset.h: sets of characters, and the automaton that reads one character of a set as UTF-8. */
#ifndef FACET_GRAMMAR_CHARSET_H
#define FACET_GRAMMAR_CHARSET_H

#include "grammar/grammar.h"

enum { CHARSET_MAX_RANGES = 512, CHARSET_LAST = 0x10ffff };

typedef struct char_range {
    uint32_t lo, hi;
} char_range;

/* Zero-initialise: the empty set. */
typedef struct charset {
    char_range ranges[CHARSET_MAX_RANGES];
    int n;
    bool is_full; /* a range was left out for lack of room: the set must not be used */
} charset;

void charset_add(charset *s, uint32_t lo, uint32_t hi);
void charset_add_set(charset *s, const charset *other);
/* All characters but these. Surrogates (U+D800 .. U+DFFF) are no characters and are in no set. */
void charset_negate(charset *s);
void charset_intersect(charset *s, uint32_t lo, uint32_t hi);
/* Sorts, joins, drops surrogates. */
void charset_normalise(charset *s);
bool charset_has(const charset *s, uint32_t c); /* normalised */

/* Edges that read one character of the set (normalised) on the way from `from` to `to`. */
void charset_build(const charset *s, grammar_builder *b, int32_t from, int32_t to);

#endif
