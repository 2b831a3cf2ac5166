/* gguf_bytes.h: GGUF files made byte by byte, right or wrong, for tests. Include after testing.h. */
#ifndef FACET_TESTS_GGUF_BYTES_H
#define FACET_TESTS_GGUF_BYTES_H

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

/* Opens a copy of exactly the right size, so that a sanitizer sees a read past its end. */
static inline facet_status open_bytes(const void *data, size_t n, gguf_file **out, void **copy, facet_error *err)
{
    *copy = malloc(n ? n : 1);
    assert_non_null(*copy);
    if (n) memcpy(*copy, data, n);
    facet_status status = gguf_open_memory(*copy, n, "made.gguf", out, err);
    if (status != FACET_OK) {
        free(*copy);
        *copy = NULL;
    }
    return status;
}

/* Expects a refusal whose one line starts with the name and holds `part`. */
static inline void expect_refused(buf *b, const char *part)
{
    gguf_file *f = NULL;
    void *copy;
    facet_error err = {0};
    assert_false(b->failed);
    if (open_bytes(b->data, b->len, &f, &copy, &err) == FACET_OK) fail_msg("accepted, expected: %s", part);
    if (!strstr(err.message, part)) fail_msg("message \"%s\" lacks \"%s\"", err.message, part);
    assert_int_equal(strncmp(err.message, "made.gguf: ", 11), 0);
    assert_null(f);
    buf_free(b);
}

static inline void expect_accepted(buf *b)
{
    gguf_file *f = NULL;
    void *copy;
    facet_error err = {0};
    assert_false(b->failed);
    assert_ok(open_bytes(b->data, b->len, &f, &copy, &err), err);
    gguf_close(f);
    free(copy);
    buf_free(b);
}

#endif
