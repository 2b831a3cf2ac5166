/* cuda_testing.h: what the tests of the CUDA backend share.
 *
 * A case is a small plan. Its inputs are rows of random F32 tables, gathered by OP_EMBED with the row index as token.
 * check() compares every width with the scalar backend, and two properties of the device alone: a row gets the same
 * bits whatever rows stand beside it, and a captured graph the same bits as the launches it holds. */
#ifndef FACET_TEST_CUDA_TESTING_H
#define FACET_TEST_CUDA_TESTING_H

#include "testing.h"

#include <math.h>

#include "base/f16.h"
#include "base/mem.h"
#include "base/rng.h"
#include "compute/backend.h"

/* Rows of the inputs; a test that wants others defines this before. */
#ifndef CUDA_TEST_ROWS
#define CUDA_TEST_ROWS 96
#endif
enum { MAX_WEIGHTS = 20, MAX_ROWS = CUDA_TEST_ROWS, N_PAGES = 80, SEED = 20 };
/* Where the scalar backend makes int8 of the activations, and elsewhere. */
#define TOLERANCE_INT8 2e-2
#define TOLERANCE_F32 1e-4

typedef struct fixture {
    rng random;
    weight weights[MAX_WEIGHTS];
    int n_weights;
    plan *p;
    kv_layer_desc layer;
    kv_desc kv;
    bool has_kv;
    double tolerance;
    const char *what; /* for messages */
} fixture;

/* ---- building ---- */

static inline void begin(fixture *f, const char *what)
{
    facet_error err;
    memset(f, 0, sizeof *f);
    rng_seed(&f->random, SEED);
    f->what = what;
    f->tolerance = TOLERANCE_F32;
    assert_ok(plan_new("case", &f->p, &err), err);
}

static inline void end(fixture *f)
{
    for (int i = 0; i < f->n_weights; i++) free((void *)(uintptr_t)f->weights[i].data);
    plan_free(f->p);
}

/* Random codes for the types that have no encoder, with scales of a few hundredths. */
static inline void random_blocks(rng *r, tensor_type type, uint8_t *data, size_t n_blocks, size_t block_bytes)
{
    for (size_t i = 0; i < n_blocks * block_bytes; i++) data[i] = (uint8_t)rng_below(r, 256);
    for (uint8_t *b = data; b < data + n_blocks * block_bytes; b += block_bytes) {
        uint16_t d = f32_to_f16((float)(1e-4 * (1 + rng_uniform(r))));
        if (type == TYPE_IQ4_XS) memcpy(b, &d, sizeof d);
        if (type == TYPE_MXFP4) b[0] = (uint8_t)(121 + rng_below(r, 3));
        for (int i = 0; i < 4 && type == TYPE_NVFP4; i++) b[i] = (uint8_t)(12 + rng_below(r, 16));
    }
}

static inline int add_weight(fixture *f, tensor_type type, uint32_t n_in, uint32_t n_out, uint32_t n_experts,
                             double mean, double sigma)
{
    const type_info *t = type_get(type);
    size_t n = (size_t)n_in * n_out * n_experts;
    float *x = malloc(n * sizeof *x);
    void *data = malloc(type_bytes(t, n));
    assert_true(x && data && f->n_weights < MAX_WEIGHTS);
    for (size_t i = 0; i < n; i++) x[i] = (float)(mean + sigma * rng_normal(&f->random));
    if (t->encode)
        t->encode(x, data, n);
    else
        random_blocks(&f->random, type, data, n / t->block_len, t->block_bytes);
    free(x);
    weight *w = &f->weights[f->n_weights];
    *w = (weight){.type = type, .ne = {n_in, n_out, n_experts}, .data = data, .bytes = type_bytes(t, n)};
    snprintf(w->name, sizeof w->name, "w%d", f->n_weights);
    return f->n_weights++;
}

static inline int add_matrix(fixture *f, tensor_type type, uint32_t n_in, uint32_t n_out, uint32_t n_experts)
{
    int w = add_weight(f, type, n_in, n_out, n_experts, 0, 1 / sqrt(n_in));
    f->weights[w].is_matrix = true;
    return w;
}

static inline int add_vector(fixture *f, uint32_t n)
{
    return add_weight(f, TYPE_F32, n, 1, 1, 1, 0.3);
}

/* A random input of the plan; is_matrix decides whether the device or the host gathers it. */
static inline int add_input(fixture *f, tensor_type type, uint32_t width, bool on_device, double scale)
{
    int w = add_weight(f, type, width, MAX_ROWS, 1, 0, 1);
    f->weights[w].is_rows = true;
    f->weights[w].is_matrix = on_device;
    int v = plan_value_new(f->p, ROWS_ALL, VALUE_F32, width, false, "in%d", w);
    plan_op *op = plan_add(f->p, OP_EMBED, -1);
    op->o = v;
    op->w0 = w;
    op->scale = (float)scale;
    return v;
}

static inline int add_output(fixture *f, row_set rows, value_type type, uint32_t width)
{
    return plan_value_new(f->p, rows, type, width, true, "out");
}

static inline plan_op *add_op(fixture *f, op_kind kind, int i0, int i1, int o)
{
    plan_op *op = plan_add(f->p, kind, 0);
    op->i0 = i0;
    op->i1 = i1;
    op->o = o;
    op->eps = 1e-6f;
    return op;
}

/* ---- running ---- */

typedef struct device {
    backend *b;
    compiled *c;
} device;

static inline bool open_cuda(backend **out)
{
    facet_error err;
    backend_config cfg = {0};
    if (backend_cuda_open(&cfg, out, &err) == FACET_OK) return true;
    print_message("skipped: %s\n", err.message);
    return false;
}

static inline void prepare(fixture *f, device *d)
{
    facet_error err;
    assert_ok(d->b->ops->load(d->b, f->weights, f->n_weights, &err), err);
    if (f->has_kv) assert_ok(d->b->ops->kv_alloc(d->b, &f->kv, &err), err);
    assert_ok(d->b->ops->compile(d->b, f->p, MAX_ROWS, MAX_ROWS, &d->c, &err), err);
}

static inline void close_device(device *d)
{
    d->b->ops->release(d->b, d->c);
    d->b->ops->close(d->b);
}

/* Rows first .. first + n as tokens and positions of one sequence; every second row is wanted. */
typedef struct rows {
    int32_t token[MAX_ROWS], pos[MAX_ROWS], slot[MAX_ROWS], seq[MAX_ROWS], out_row[MAX_ROWS], table[N_PAGES];
    uint8_t path[MAX_ROWS][BATCH_MAX_TREE];
    batch_seq seqs[1];
    batch in;
} rows;

static inline void make_rows(rows *r, int first, int n)
{
    memset(r, 0, sizeof *r);
    for (int i = 0; i < n; i++) {
        r->token[i] = r->pos[i] = r->slot[i] = first + i;
        if (i % 2 == 0) r->out_row[r->in.n_out++] = i;
    }
    for (int i = 0; i < N_PAGES; i++) r->table[i] = (i * 7 + 3) % N_PAGES; /* pages out of order */
    r->seqs[0].table[0] = r->table;
    r->seqs[0].base = first;
    r->in.n_rows = n;
    r->in.token = r->token;
    r->in.pos = r->pos;
    r->in.slot = r->slot;
    r->in.seq = r->seq;
    r->in.n_seqs = 1;
    r->in.seqs = r->seqs;
    r->in.out_row = r->out_row;
}

static inline void run(device *d, const rows *r)
{
    facet_error err;
    assert_ok(d->b->ops->run(d->b, d->c, &r->in, &err), err);
}

static inline float *read_output(const fixture *f, device *d, int value, int n)
{
    facet_error err;
    float *out = malloc((size_t)n * f->p->values[value].width * sizeof *out + 1);
    assert_non_null(out);
    assert_ok(d->b->ops->read(d->b, d->c, value, 0, n, out, &err), err);
    return out;
}

static inline int rows_of(const fixture *f, int value, const rows *r)
{
    return f->p->values[value].rows == ROWS_ALL ? r->in.n_rows : r->in.n_out;
}

/* ---- comparing ---- */

static inline void compare(const fixture *f, const float *want, const float *got, size_t n, int n_rows)
{
    double error = 0, norm = 0, worst = -1;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (isinf(want[i]) && want[i] == got[i]) continue; /* suppressed logits */
        double e = fabs((double)want[i] - (double)got[i]);
        if (!(e <= worst)) worst = e, at = i;
        error += e * e;
        norm += (double)want[i] * want[i];
    }
    if (sqrt(error) <= f->tolerance * sqrt(norm)) return;
    fail_msg("%s, seed %d, %d rows: relative error %g, wanted %g; worst at %zu: %g, wanted %g", f->what, SEED, n_rows,
             sqrt(error / norm), f->tolerance, at, (double)got[at], (double)want[at]);
}

static inline void assert_bits(const fixture *f, const char *property, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s, seed %d: %s: element %zu is %.9g and %.9g", f->what, SEED, property, i, (double)a[i],
                     (double)b[i]);
}

static inline void check_width(const fixture *f, device *ref, device *cuda, int value, int n)
{
    rows r;
    make_rows(&r, 0, n);
    size_t elements = (size_t)rows_of(f, value, &r) * f->p->values[value].width;
    run(ref, &r);
    run(cuda, &r);
    float *want = read_output(f, ref, value, rows_of(f, value, &r));
    float *got = read_output(f, cuda, value, rows_of(f, value, &r));
    if (f->p->values[value].type == VALUE_I32)
        assert_memory_equal(want, got, elements * sizeof *want);
    else
        compare(f, want, got, elements, n);
    run(cuda, &r); /* captures the width; its graph runs */
    float *again = read_output(f, cuda, value, rows_of(f, value, &r));
    assert_bits(f, "launches = graph", got, again, elements);
    free(want);
    free(got);
    free(again);
}

/* Ops that read the cache are left to the attention cases: alone, a row would miss its predecessors. */
static inline void check_alone(const fixture *f, device *cuda, int value, int n)
{
    rows all, one;
    uint32_t width = f->p->values[value].width;
    make_rows(&all, 0, n);
    run(cuda, &all);
    float *together = read_output(f, cuda, value, rows_of(f, value, &all));
    for (int i = 0; i < n; i += 2) {
        make_rows(&one, i, 1);
        run(cuda, &one);
        float *alone = read_output(f, cuda, value, 1);
        int row = f->p->values[value].rows == ROWS_ALL ? i : i / 2;
        assert_bits(f, "row alone = row in batch", together + (size_t)row * width, alone, width);
        free(alone);
    }
    free(together);
}

static inline void check(fixture *f, int value)
{
    static const int widths[] = {1, 2, 3, 4, 5, 8, 13, 33, 64, 77};
    facet_error err;
    backend_config cfg = {.n_threads = 2};
    device ref = {0}, cuda = {0};
    assert_ok(plan_finish(f->p, &err), err);
    if (!open_cuda(&cuda.b)) {
        end(f);
        skip();
    }
    assert_ok(backend_open("ref", &cfg, &ref.b, &err), err);
    prepare(f, &ref);
    prepare(f, &cuda);
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) check_width(f, &ref, &cuda, value, widths[i]);
    if (!f->has_kv) check_alone(f, &cuda, value, 64);
    close_device(&ref);
    close_device(&cuda);
    end(f);
}

/* Calls fn for every type that weights may have. */
static inline void for_each_type(void (*fn)(tensor_type type, const type_info *info))
{
    for (uint32_t t = 0; t < TYPE_COUNT; t++) {
        const type_info *info = type_get(t);
        if (info && info->decode) fn((tensor_type)t, info);
    }
}

static inline bool is_float(tensor_type t)
{
    return t == TYPE_F32 || t == TYPE_F16 || t == TYPE_BF16;
}

/* Of one product with a matrix of the type. */
static inline double product_tolerance(tensor_type t)
{
    return is_float(t) ? TOLERANCE_F32 : TOLERANCE_INT8;
}

#endif
