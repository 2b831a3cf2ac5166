/* error.h: how every function of the library reports failure. */
#ifndef FACET_BASE_ERROR_H
#define FACET_BASE_ERROR_H

#include "facet.h"

/* Writes "status + formatted line" to err (may be NULL) and returns status, so that a failing
 * function can end with `return error_set(err, FACET_ERR_…, "…", …);`. Control characters from
 * hostile input are replaced by '?', and the line is cut at the end of facet_error.message. */
facet_status error_set(facet_error *err, facet_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message that err already holds (for instance a file name). */
void error_prefix(facet_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Out of memory while making `what`. Inline, so that an analyser of the caller sees that it never returns FACET_OK. */
static inline facet_status error_memory(facet_error *err, const char *what, size_t bytes)
{
    error_set(err, FACET_ERR_MEMORY, "out of memory: %s needs %zu bytes", what, bytes);
    return FACET_ERR_MEMORY;
}

#define FACET_TRY(expr)                                                                                                \
    do {                                                                                                               \
        facet_status try_status_ = (expr);                                                                             \
        if (try_status_ != FACET_OK) return try_status_;                                                               \
    } while (0)

#endif
