/* gguf_parts.h: a GGUF file written again as a set of files, for tests. */
#ifndef FACET_TEST_GGUF_PARTS_H
#define FACET_TEST_GGUF_PARTS_H

#include "testing.h"

#include "file/gguf_put.h"
#include "file/gguf_write.h"

/* The key as the usual tools write it: a u16. */
static inline void part_put_u16(gguf_writer *w, const char *key, int v)
{
    facet_error err;
    const uint8_t bytes[2] = {(uint8_t)v, (uint8_t)(v >> 8)};
    const gguf_kv kv = {{key, strlen(key)}, GGUF_U16, GGUF_U16, 1, bytes};
    assert_ok(gguf_put_kv(w, &kv, &err), err);
}

/* PREFIX-00001-of-00003.gguf for no = 0, count = 3. */
static inline const char *part_path(const char *prefix, int no, int count)
{
    char suffix[40];
    snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", no + 1, count);
    static char paths[4][600];
    static unsigned next;
    char *p = paths[next++ % 4];
    snprintf(p, sizeof paths[0], "%s%s", prefix, suffix);
    return p;
}

/* Part `no` of `count`: the tensors from `begin` up to `end`; in the first part all keys, too. */
static inline void gguf_write_part(const gguf_file *f, const char *prefix, int no, int count, uint64_t begin,
                                   uint64_t end)
{
    facet_error err;
    gguf_writer *w;
    assert_ok(gguf_writer_new(&w, &err), err);
    for (uint64_t i = 0; i < f->n_kv && no == 0; i++) assert_ok(gguf_put_kv(w, &f->kv[i], &err), err);
    part_put_u16(w, "split.no", no);
    part_put_u16(w, "split.count", count);
    assert_ok(gguf_put_i32(w, "split.tensors.count", (int32_t)f->n_tensors, &err), err);
    for (uint64_t i = begin; i < end; i++) {
        const gguf_tensor *t = &f->tensors[i];
        assert_ok(gguf_add_tensor(w, t->name, (tensor_type)t->type, t->n_dims, t->ne, &err), err);
    }
    assert_ok(gguf_begin_data(w, part_path(prefix, no, count), &err), err);
    for (uint64_t i = begin; i < end; i++)
        assert_ok(gguf_write_data(w, f->tensors[i].data, f->tensors[i].bytes, &err), err);
    assert_ok(gguf_finish(w, &err), err);
    gguf_writer_free(w);
}

/* The file at `in` as `count` files of about as many tensors each; returns the path of the first. */
static inline const char *gguf_write_parts(const char *in, const char *prefix, int count)
{
    facet_error err;
    gguf_file *f;
    assert_ok(gguf_open(in, &f, &err), err);
    for (int no = 0; no < count; no++)
        gguf_write_part(f, prefix, no, count, f->n_tensors * (uint64_t)no / (uint64_t)count,
                        f->n_tensors * (uint64_t)(no + 1) / (uint64_t)count);
    gguf_close(f);
    return part_path(prefix, 0, count);
}

#endif
