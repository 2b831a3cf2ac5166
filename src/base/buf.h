/* buf.h: a growing byte string. */
#ifndef FACET_BASE_BUF_H
#define FACET_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialise. `data` is NUL-terminated after the first successful append (the NUL is not counted
 * in `len`). Once an append fails for lack of memory, `failed` stays set and later appends do nothing,
 * so a caller may test once at the end. */
typedef struct buf {
    char *data;
    size_t len, cap;
    bool failed;
} buf;

void buf_free(buf *b);
void buf_clear(buf *b); /* keeps the memory */
bool buf_reserve(buf *b, size_t extra);
bool buf_append(buf *b, const void *data, size_t n);
bool buf_puts(buf *b, const char *s);
bool buf_putc(buf *b, char c);
bool buf_printf(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
