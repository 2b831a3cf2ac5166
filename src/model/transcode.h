/* transcode.h: tensor data from one type to another, row by row on a thread team, into a GGUF file being written. */
#ifndef FACET_MODEL_TRANSCODE_H
#define FACET_MODEL_TRANSCODE_H

#include "base/team.h"
#include "file/gguf_write.h"

typedef struct transcoder {
    team *team;
    facet_progress_fn progress; /* may be NULL; counts bytes of input */
    void *progress_ud;
    const char *phase;
    uint64_t done, total; /* bytes of input; the caller sets total */
    float *rows;          /* one row of floats per thread */
    size_t row_cap;       /* floats per thread */
    uint8_t *out;
    size_t out_cap;
} transcoder;

/* n_threads 0: one per processor. */
facet_status transcode_open(transcoder *t, int n_threads, facet_error *err);
void transcode_close(transcoder *t); /* zeroed and half-opened ones too */

/* Whether `from` can become `to` for rows of row_len values; the error names the tensor and what is wanted. */
facet_status transcode_check(const char *name, uint32_t from, tensor_type to, uint64_t row_len, facet_error *err);

/* Appends the data of the writer's next tensor: n_rows rows of row_len values, found at src in type `from`, as `to`.
 * The same type is copied bit by bit. Needs memory for some rows only. Beside the writer's errors: FACET_ERR_NUMERIC
 * when a value is not finite, FACET_ERR_CANCELLED. */
facet_status transcode_write(transcoder *t, gguf_writer *w, const char *name, const void *src, uint32_t from,
                             tensor_type to, uint64_t row_len, uint64_t n_rows, facet_error *err);

#endif
