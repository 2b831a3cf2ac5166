/* gguf_write.h: writing GGUF v3 files. Keys and tensor records are collected first; the data follows tensor by tensor,
 * so that a file of any size needs memory only for its header. The file appears at `path` whole or not at all. */
#ifndef FACET_FILE_GGUF_WRITE_H
#define FACET_FILE_GGUF_WRITE_H

#include "file/gguf.h"

typedef struct gguf_writer gguf_writer;

facet_status gguf_writer_new(gguf_writer **out, facet_error *err);
void gguf_writer_free(gguf_writer *w); /* NULL allowed; removes an unfinished file */

/* Setting a key again replaces it. The library's own misuse (a key after begin) is FACET_ERR_ARG. */
facet_status gguf_put_u32(gguf_writer *w, const char *key, uint32_t v, facet_error *err);
facet_status gguf_put_i32(gguf_writer *w, const char *key, int32_t v, facet_error *err);
facet_status gguf_put_f32(gguf_writer *w, const char *key, float v, facet_error *err);
facet_status gguf_put_bool(gguf_writer *w, const char *key, bool v, facet_error *err);
facet_status gguf_put_str(gguf_writer *w, const char *key, const char *s, size_t n, facet_error *err);
facet_status gguf_put_array(gguf_writer *w, const char *key, gguf_type elem, const void *values, uint64_t count,
                            facet_error *err); /* fixed-size elements */
facet_status gguf_put_strings(gguf_writer *w, const char *key, const gguf_str *s, uint64_t count, facet_error *err);
facet_status gguf_put_kv(gguf_writer *w, const gguf_kv *kv,
                         facet_error *err);                /* copies a key of an open file unchanged */
facet_status gguf_remove(gguf_writer *w, const char *key); /* no-op when absent */

/* Declares a tensor; data must follow in this order. ne as in gguf_tensor. */
facet_status gguf_add_tensor(gguf_writer *w, const char *name, tensor_type type, int n_dims, const uint64_t ne[4],
                             facet_error *err);

/* Data is aligned to general.alignment where that key was put (a u32), else to 32.
 * Writes the header; then the data of each tensor in any number of pieces (padding between tensors is written by the
 * writer), then finish, which checks that every byte came, flushes, fsyncs and renames into place. */
facet_status gguf_begin_data(gguf_writer *w, const char *path, facet_error *err);
/* The same into memory. */
facet_status gguf_begin_memory(gguf_writer *w, facet_error *err);
facet_status gguf_write_data(gguf_writer *w, const void *data, size_t bytes, facet_error *err);
/* All data of the current tensor as zeros: a hole in the file. */
facet_status gguf_write_hole(gguf_writer *w, facet_error *err);
facet_status gguf_finish(gguf_writer *w, facet_error *err);
/* Hands the file in memory over: *bytes at *out, to be freed with mem_unmap. */
facet_status gguf_finish_memory(gguf_writer *w, void **out, size_t *bytes, facet_error *err);

#endif
