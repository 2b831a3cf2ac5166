/* cursor.h: bounded reading of bytes that an attacker may have chosen. Every test is of the form n <= size - pos, which
 * cannot wrap. Hosts are little-endian, as the files are. */
#ifndef FACET_FILE_CURSOR_H
#define FACET_FILE_CURSOR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct cursor {
    const uint8_t *data;
    uint64_t size, pos; /* pos <= size */
} cursor;

static inline uint64_t cursor_left(const cursor *c)
{
    return c->size - c->pos;
}

/* The next n bytes, or NULL when fewer are left (the cursor then stays). */
static inline const uint8_t *cursor_take(cursor *c, uint64_t n)
{
    if (n > c->size - c->pos) return NULL;
    const uint8_t *p = c->data + c->pos;
    c->pos += n;
    return p;
}

static inline bool cursor_u32(cursor *c, uint32_t *out)
{
    const uint8_t *p = cursor_take(c, sizeof *out);
    if (p) memcpy(out, p, sizeof *out);
    return p != NULL;
}

static inline bool cursor_u64(cursor *c, uint64_t *out)
{
    const uint8_t *p = cursor_take(c, sizeof *out);
    if (p) memcpy(out, p, sizeof *out);
    return p != NULL;
}

#endif
