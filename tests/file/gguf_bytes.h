/* gguf_bytes.h: opening GGUF files that were made byte by byte (gguf_put.h). Include after testing.h. */
#ifndef FACET_TESTS_GGUF_BYTES_H
#define FACET_TESTS_GGUF_BYTES_H

#include "file/gguf_put.h"

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
