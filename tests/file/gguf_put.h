/* gguf_put.h: the parts of a GGUF file, appended to a buffer byte by byte, right or wrong. For tests and fuzz targets.
 */
#ifndef FACET_TESTS_GGUF_PUT_H
#define FACET_TESTS_GGUF_PUT_H

#include <string.h>

#include "base/buf.h"
#include "file/gguf.h"

static inline void put_u8(buf *b, uint8_t v)
{
    buf_append(b, &v, sizeof v);
}

static inline void put_u16(buf *b, uint16_t v)
{
    buf_append(b, &v, sizeof v);
}

static inline void put_u32(buf *b, uint32_t v)
{
    buf_append(b, &v, sizeof v);
}

static inline void put_u64(buf *b, uint64_t v)
{
    buf_append(b, &v, sizeof v);
}

static inline void put_name(buf *b, const char *s)
{
    put_u64(b, strlen(s));
    buf_puts(b, s);
}

static inline void put_header(buf *b, uint64_t n_tensors, uint64_t n_kv)
{
    buf_puts(b, "GGUF");
    put_u32(b, 3);
    put_u64(b, n_tensors);
    put_u64(b, n_kv);
}

/* The key and type of a record; the value follows. */
static inline void put_key(buf *b, const char *key, uint32_t type)
{
    put_name(b, key);
    put_u32(b, type);
}

static inline void put_array_key(buf *b, const char *key, uint32_t elem, uint64_t count)
{
    put_key(b, key, GGUF_ARRAY);
    put_u32(b, elem);
    put_u64(b, count);
}

static inline void put_key_u32(buf *b, const char *key, uint32_t v)
{
    put_key(b, key, GGUF_U32);
    put_u32(b, v);
}

static inline void put_tensor(buf *b, const char *name, uint32_t n_dims, const uint64_t *ne, uint32_t type,
                              uint64_t offset)
{
    put_name(b, name);
    put_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims && i < 8; i++) put_u64(b, ne[i]);
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void put_zeros(buf *b, size_t n)
{
    while (n--) put_u8(b, 0);
}

static inline void put_padding(buf *b, size_t alignment)
{
    while (b->len % alignment) put_u8(b, 0);
}

#endif
