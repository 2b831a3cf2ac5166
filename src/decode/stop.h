/* stop.h: finding stop strings in streamed text. */
#ifndef FACET_DECODE_STOP_H
#define FACET_DECODE_STOP_H

#include <stdbool.h>
#include <stddef.h>

/* True when text[0, n) contains one of the stop strings; *at is where the earliest begins. *hold: bytes at the end of
 * the text that may be the beginning of one, to be kept back until more text is there. text may be NULL when n is 0. */
bool stop_find(const char *const *stop, size_t n_stop, const char *text, size_t n, size_t *at, size_t *hold);

#endif
