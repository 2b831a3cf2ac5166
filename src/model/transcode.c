#include "model/transcode.h"

#include <math.h>
#include <stdatomic.h>

#include "base/cpu.h"
#include "base/mem.h"

enum { CHUNK_BYTES = 4 << 20 };

typedef struct region {
    transcoder *t;
    const type_info *from, *to;
    const uint8_t *src;
    size_t row_len, from_bytes, to_bytes; /* bytes of a row */
    size_t n_rows;
    atomic_size_t next;
    atomic_bool is_bad; /* a value was not finite */
} region;

facet_status transcode_open(transcoder *t, int n_threads, facet_error *err)
{
    return team_open(n_threads > 0 ? n_threads : cpu_count(), &t->team, err);
}

void transcode_close(transcoder *t)
{
    team_close(t->team);
    mem_free(t->rows);
    mem_free(t->out);
    *t = (transcoder){0};
}

facet_status transcode_check(const char *name, uint32_t from, tensor_type to, uint64_t row_len, facet_error *err)
{
    const type_info *a = type_get(from), *b = type_get(to);
    if (!a || !b) return error_set(err, FACET_ERR_UNSUPPORTED, "tensor %s: a type that Facet does not read", name);
    if (row_len % b->block_len != 0)
        return error_set(err, FACET_ERR_ARG, "tensor %s: rows of %llu values, %s wants a multiple of %u", name,
                         (unsigned long long)row_len, b->name, b->block_len);
    if (from == (uint32_t)to) return FACET_OK;
    if (!a->decode)
        return error_set(err, FACET_ERR_UNSUPPORTED, "tensor %s: %s cannot be converted to %s", name, a->name, b->name);
    if (!b->encode) return error_set(err, FACET_ERR_UNSUPPORTED, "tensor %s: Facet does not write %s", name, b->name);
    return FACET_OK;
}

static bool all_finite(const float *v, size_t n)
{
    bool ok = true;
    for (size_t i = 0; i < n; i++) ok = ok && isfinite(v[i]);
    return ok;
}

static void convert_rows(void *arg, int thread, int n_threads)
{
    region *r = arg;
    (void)n_threads;
    float *row = r->t->rows + (size_t)thread * r->t->row_cap;
    for (;;) {
        size_t i = atomic_fetch_add_explicit(&r->next, 1, memory_order_relaxed);
        if (i >= r->n_rows) return;
        r->from->decode(r->src + i * r->from_bytes, row, r->row_len);
        if (!all_finite(row, r->row_len)) {
            atomic_store_explicit(&r->is_bad, true, memory_order_relaxed);
            return;
        }
        r->to->encode(row, r->t->out + i * r->to_bytes, r->row_len);
    }
}

static facet_status advance(transcoder *t, uint64_t bytes, facet_error *err)
{
    t->done += bytes;
    if (t->progress && !t->progress(t->progress_ud, t->phase, t->done, t->total))
        return error_set(err, FACET_ERR_CANCELLED, "cancelled");
    return FACET_OK;
}

static facet_status reserve(transcoder *t, size_t row_len, size_t out_bytes, facet_error *err)
{
    if (row_len > t->row_cap) {
        size_t n;
        float *rows =
            checked_mul(row_len, (size_t)team_size(t->team), &n) ? mem_resize_array(t->rows, n, sizeof *rows) : NULL;
        if (!rows) return error_memory(err, "rows to convert", row_len * sizeof *rows);
        t->rows = rows;
        t->row_cap = row_len;
    }
    if (out_bytes > t->out_cap) {
        uint8_t *out = mem_realloc(t->out, out_bytes);
        if (!out) return error_memory(err, "converted rows", out_bytes);
        t->out = out;
        t->out_cap = out_bytes;
    }
    return FACET_OK;
}

static facet_status copy(transcoder *t, gguf_writer *w, const uint8_t *src, uint64_t bytes, facet_error *err)
{
    while (bytes) {
        size_t n = bytes < CHUNK_BYTES ? (size_t)bytes : CHUNK_BYTES;
        FACET_TRY(gguf_write_data(w, src, n, err));
        FACET_TRY(advance(t, n, err));
        src += n;
        bytes -= n;
    }
    return FACET_OK;
}

facet_status transcode_write(transcoder *t, gguf_writer *w, const char *name, const void *src, uint32_t from,
                             tensor_type to, uint64_t row_len, uint64_t n_rows, facet_error *err)
{
    FACET_TRY(transcode_check(name, from, to, row_len, err));
    region r = {.t = t, .from = type_get(from), .to = type_get(to), .src = src, .row_len = (size_t)row_len};
    r.from_bytes = type_bytes(r.from, r.row_len);
    r.to_bytes = type_bytes(r.to, r.row_len);
    if (from == (uint32_t)to) return copy(t, w, src, n_rows * r.from_bytes, err);
    size_t pass = CHUNK_BYTES / r.to_bytes, n_threads = (size_t)team_size(t->team);
    if (pass < n_threads) pass = n_threads;
    if (pass > n_rows) pass = (size_t)n_rows;
    FACET_TRY(reserve(t, r.row_len, pass * r.to_bytes, err));
    for (uint64_t done = 0; done < n_rows; done += r.n_rows) {
        r.n_rows = n_rows - done < pass ? (size_t)(n_rows - done) : pass;
        atomic_store(&r.next, 0);
        team_run(t->team, convert_rows, &r);
        if (atomic_load(&r.is_bad))
            return error_set(err, FACET_ERR_NUMERIC, "tensor %s: a value that is not finite", name);
        FACET_TRY(gguf_write_data(w, t->out, r.n_rows * r.to_bytes, err));
        FACET_TRY(advance(t, r.n_rows * r.from_bytes, err));
        r.src += r.n_rows * r.from_bytes;
    }
    return FACET_OK;
}
