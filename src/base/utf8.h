/* utf8.h: bounded UTF-8. */
#ifndef FACET_BASE_UTF8_H
#define FACET_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the valid character at s (1..4) and its code point, or 0 when s[0..n) does not begin with one
 * (overlong forms, surrogates and values above U+10FFFF are invalid). n >= 1. */
int utf8_decode(const char *s, size_t n, uint32_t *cp);

/* Length (1..3) of the maximal invalid subpart at s (Unicode 15, section 3.9, "U+FFFD substitution"), to be
 * called where utf8_decode gave 0. */
int utf8_invalid_length(const char *s, size_t n);

/* Writes cp as UTF-8 to out (4 bytes of room); returns the length. cp must be a scalar value. */
int utf8_encode(uint32_t cp, char out[4]);

/* True when the whole of s[0..n) is valid. */
bool utf8_valid(const char *s, size_t n);

/* True when s[0..n), n in 1..3, is a proper prefix of some valid character. */
bool utf8_is_prefix(const char *s, size_t n);

#endif
