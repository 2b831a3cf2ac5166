/* The ops that drafters add, on the CPU backends: against brute force, and bit for bit alone and in company. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "base/rng.h"
#include "compute/backend.h"
#include "compute/cpu/exec.h"

enum { MAX_ROWS = 16, MAX_WEIGHTS = 4 };

static const char *const devices[] = {"ref", "cpu"};

/* A plan of one or two ops on a backend. */
typedef struct lab {
    backend *be;
    plan *p;
    compiled *c;
    weight weights[MAX_WEIGHTS];
    int n_weights;
    kv_desc kv;
    int32_t tables[KV_MAX_GROUPS][64];
} lab;

static lab lab_open(const char *device, int n_threads)
{
    lab l = {0};
    facet_error err;
    const backend_config cfg = {.n_threads = n_threads};
    assert_ok(backend_open(device, &cfg, &l.be, &err), err);
    assert_ok(plan_new("lab", &l.p, &err), err);
    return l;
}

/* From f32 rows, encoded as the type; the caller has filled nothing else. */
static int lab_weight(lab *l, tensor_type type, uint32_t n_in, uint32_t n_out, const float *x)
{
    const size_t n = (size_t)n_in * n_out, bytes = type_bytes(type_get(type), n);
    void *data = malloc(bytes);
    type_get(type)->encode(x, data, n);
    weight *w = &l->weights[l->n_weights];
    *w = (weight){.type = type, .ne = {n_in, n_out, 1}, .data = data, .bytes = bytes};
    snprintf(w->name, sizeof w->name, "w%d", l->n_weights);
    return l->n_weights++;
}

static void lab_compile(lab *l)
{
    facet_error err;
    assert_ok(plan_finish(l->p, &err), err);
    if (l->n_weights) assert_ok(l->be->ops->load(l->be, l->weights, l->n_weights, &err), err);
    if (l->kv.n_layers) assert_ok(l->be->ops->kv_alloc(l->be, &l->kv, &err), err);
    assert_ok(l->be->ops->compile(l->be, l->p, MAX_ROWS, MAX_ROWS, &l->c, &err), err);
}

static void lab_close(lab *l)
{
    l->be->ops->release(l->be, l->c);
    l->be->ops->close(l->be);
    plan_free(l->p);
    for (int i = 0; i < l->n_weights; i++) free((void *)(uintptr_t)l->weights[i].data);
}

static void lab_write(const lab *l, int value, int n, const void *x)
{
    facet_error err;
    assert_ok(l->be->ops->write(l->be, l->c, value, 0, n, x, &err), err);
}

static void lab_read(const lab *l, int value, int n, void *x)
{
    facet_error err;
    assert_ok(l->be->ops->read(l->be, l->c, value, 0, n, x, &err), err);
}

static void lab_run(const lab *l, int n_rows, const int32_t *token)
{
    facet_error err;
    int32_t zeros[MAX_ROWS] = {0};
    const batch_seq s = {.base = 0};
    const batch b = {.n_rows = n_rows,
                     .token = token ? token : zeros,
                     .pos = zeros,
                     .slot = zeros,
                     .seq = zeros,
                     .n_seqs = 1,
                     .seqs = &s};
    assert_ok(l->be->ops->run(l->be, l->c, &b, &err), err);
}

static float *random_floats(rng *r, size_t n)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)rng_normal(r);
    return x;
}

/* ---- top-k ---- */

typedef struct top_lab {
    lab l;
    int in, ids, logp, k;
    uint32_t n;
} top_lab;

static top_lab top_open(const char *device, int n_threads, uint32_t n, int k, float temp)
{
    top_lab t = {.l = lab_open(device, n_threads), .k = k, .n = n};
    t.in = plan_input_new(t.l.p, ROWS_ALL, VALUE_F32, n, false, "in");
    t.ids = plan_value_new(t.l.p, ROWS_ALL, VALUE_I32, (uint32_t)k, true, "ids");
    t.logp = plan_value_new(t.l.p, ROWS_ALL, VALUE_F32, (uint32_t)k, true, "logp");
    plan_op *op = plan_add(t.l.p, OP_TOPK, -1);
    op->i0 = t.in;
    op->o = t.ids;
    op->o2 = t.logp;
    op->n_used = k;
    op->temp = temp;
    lab_compile(&t.l);
    return t;
}

static void top_run(const top_lab *t, const float *x, int n_rows, int32_t *ids, float *logp)
{
    lab_write(&t->l, t->in, n_rows, x);
    lab_run(&t->l, n_rows, NULL);
    lab_read(&t->l, t->ids, n_rows, ids);
    lab_read(&t->l, t->logp, n_rows, logp);
}

/* The truth: repeated search for the largest, the lowest id first; sums in double. */
static void brute_top(const float *x, uint32_t n, int k, float temp, int32_t *ids, double *logp)
{
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++) max = fmax(max, (double)x[i]);
    for (uint32_t i = 0; i < n; i++) sum += exp(((double)x[i] - max) / (double)temp);
    for (int j = 0; j < k; j++) {
        ids[j] = -1;
        for (uint32_t i = 0; i < n; i++) {
            bool is_taken = !isfinite(x[i]);
            for (int m = 0; m < j; m++) is_taken |= ids[m] == (int32_t)i;
            if (!is_taken && (ids[j] < 0 || x[i] > x[ids[j]])) ids[j] = (int32_t)i;
        }
        logp[j] = ids[j] < 0 ? -INFINITY : ((double)x[ids[j]] - max) / (double)temp - log(sum);
    }
}

static void check_top(const float *x, uint32_t n, int k, float temp, const int32_t *ids, const float *logp)
{
    int32_t want[PLAN_MAX_TOPK];
    double want_logp[PLAN_MAX_TOPK];
    brute_top(x, n, k, temp, want, want_logp);
    assert_memory_equal(ids, want, (size_t)k * sizeof *want);
    for (int j = 0; j < k; j++)
        if (!(ids[j] < 0 ? logp[j] == -INFINITY : fabs((double)logp[j] - want_logp[j]) < 1e-5 * (1 - want_logp[j])))
            fail_msg("%u values, entry %d of %d, temperature %g: log-probability %g, wanted %g", n, j, k, (double)temp,
                     (double)logp[j], want_logp[j]);
}

/* Kinds of rows: plain, coarse (many ties), mostly -inf, constant. */
static void fill_logits(rng *r, float *x, uint32_t n, int kind)
{
    for (uint32_t i = 0; i < n; i++) {
        x[i] = 8 * (float)rng_normal(r);
        if (kind == 1) x[i] = roundf(x[i] / 8);
        if (kind == 2 && rng_below(r, 40)) x[i] = -INFINITY;
        if (kind == 3) x[i] = 1.25f;
    }
}

static void test_top_k_against_brute_force(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 7, 16, 100, 4095, 4096, 4097, 8192, 20000};
    static const float temps[] = {1e-3f, 0.5f, 1, 3};
    rng r;
    rng_seed(&r, 31);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int d = 0; d < 2; d++)
            for (int i = 0; i < 4; i++) {
                const uint32_t n = sizes[s];
                const int k = i == 3 ? PLAN_MAX_TOPK : 1 + (int)rng_below(&r, PLAN_MAX_TOPK);
                top_lab t = top_open(devices[d], 1 + i, n, k, temps[i]);
                float *x = malloc(4 * (size_t)n * sizeof *x), logp[4 * PLAN_MAX_TOPK];
                int32_t ids[4 * PLAN_MAX_TOPK];
                for (int row = 0; row < 4; row++) fill_logits(&r, x + (size_t)row * n, n, row);
                top_run(&t, x, 4, ids, logp);
                for (int row = 0; row < 4; row++)
                    check_top(x + (size_t)row * n, n, k, temps[i], ids + row * k, logp + row * k);
                free(x);
                lab_close(&t.l);
            }
}

static void test_pitfall_26_ties_go_to_the_lowest_id(void **state)
{
    (void)state;
    enum { N = 9000, K = 10 };
    for (int d = 0; d < 2; d++) {
        top_lab t = top_open(devices[d], 3, N, K, 1);
        float *x = malloc(N * sizeof *x), logp[K];
        int32_t ids[K];
        for (int i = 0; i < N; i++) x[i] = -2;
        top_run(&t, x, 1, ids, logp);
        for (int i = 0; i < K; i++) assert_int_equal(ids[i], i);
        for (int i = 0; i < K; i++) assert_true(fabs((double)logp[i] + log(N)) < 1e-5);
        x[8000] = x[4096] = x[4095] = 5; /* on both sides of a chunk's border */
        top_run(&t, x, 1, ids, logp);
        const int32_t want[K] = {4095, 4096, 8000, 0, 1, 2, 3, 4, 5, 6};
        assert_memory_equal(ids, want, sizeof want);
        free(x);
        lab_close(&t.l);
    }
}

/* A value that is no number anywhere in the row: no id at all. Of infinities only the negative one is a value. */
static void test_top_k_of_broken_logits(void **state)
{
    (void)state;
    enum { N = 10000, K = 3 };
    static const float broken[] = {NAN, INFINITY};
    for (int d = 0; d < 2; d++) {
        top_lab t = top_open(devices[d], 2, N, K, 1);
        float *x = calloc(N, sizeof *x), logp[K];
        int32_t ids[K];
        for (int b = 0; b < 2; b++)
            for (int at = 0; at < N; at += 3333) {
                x[at] = broken[b];
                top_run(&t, x, 1, ids, logp);
                for (int i = 0; i < K; i++) assert_true(ids[i] == -1 && logp[i] == -INFINITY);
                x[at] = 0;
            }
        for (int i = 0; i < N; i++) x[i] = -INFINITY;
        top_run(&t, x, 1, ids, logp);
        for (int i = 0; i < K; i++) assert_true(ids[i] == -1 && logp[i] == -INFINITY);
        x[7000] = -3;
        top_run(&t, x, 1, ids, logp);
        assert_true(ids[0] == 7000 && fabsf(logp[0]) < 1e-6f && ids[1] == -1 && logp[1] == -INFINITY);
        free(x);
        lab_close(&t.l);
    }
}

static void test_top_k_bits(void **state)
{
    (void)state;
    enum { N = 13000, K = 10 };
    rng r;
    rng_seed(&r, 32);
    float *x = malloc(MAX_ROWS * (size_t)N * sizeof *x), want[MAX_ROWS * K], logp[MAX_ROWS * K];
    int32_t ids[MAX_ROWS * K];
    for (int row = 0; row < MAX_ROWS; row++) fill_logits(&r, x + (size_t)row * N, N, row % 3);
    for (int d = 0; d < 2; d++)
        for (int n_threads = 1; n_threads <= 4; n_threads++) {
            top_lab t = top_open(devices[d], n_threads, N, K, 0.7f);
            top_run(&t, x, MAX_ROWS, ids, logp);
            if (!d && n_threads == 1) memcpy(want, logp, sizeof want);
            assert_memory_equal(logp, want, sizeof want); /* also: the same on every instruction set */
            for (int row = 0; row < MAX_ROWS; row++) {
                top_run(&t, x + (size_t)row * N, 1, ids, logp);
                assert_memory_equal(logp, want + row * K, K * sizeof *want);
            }
            lab_close(&t.l);
        }
    free(x);
}

/* ---- centroid head ---- */

typedef struct centroid_case {
    tensor_type type;
    uint32_t n_in, n_centroids, group;
    int n_used;
} centroid_case;

typedef struct centroid_lab {
    lab l;
    int y, c, logits;
    int32_t *order;
    float *head; /* as it was encoded */
} centroid_lab;

static const int32_t suppressed[] = {3, 17, 40};

/* In place: the backend borrows the lab's weights. */
static void centroids_open(centroid_lab *t, const centroid_case *k, const char *device, int n_threads)
{
    const uint32_t V = k->n_centroids * k->group;
    *t = (centroid_lab){.l = lab_open(device, n_threads)};
    rng r;
    rng_seed(&r, 33);
    t->order = malloc(V * sizeof *t->order);
    for (uint32_t i = 0; i < V; i++) t->order[i] = (int32_t)i;
    for (uint32_t i = V - 1; i > 0; i--) {
        const uint32_t j = rng_below(&r, i + 1);
        const int32_t swap = t->order[i];
        t->order[i] = t->order[j];
        t->order[j] = swap;
    }
    float *x = random_floats(&r, (size_t)V * k->n_in);
    const int w = lab_weight(&t->l, k->type, k->n_in, V, x);
    t->l.weights[w].is_picked = true;
    t->head = malloc((size_t)V * k->n_in * sizeof *t->head);
    type_get(k->type)->decode(t->l.weights[w].data, t->head, (size_t)V * k->n_in);
    free(x);
    t->y = plan_input_new(t->l.p, ROWS_ALL, VALUE_F32, k->n_in, false, "y");
    t->c = plan_input_new(t->l.p, ROWS_ALL, VALUE_F32, k->n_centroids, false, "c");
    t->logits = plan_value_new(t->l.p, ROWS_ALL, VALUE_F32, V, true, "logits");
    plan_keep_suppress(t->l.p, suppressed, 3);
    plan_op *op = plan_add(t->l.p, OP_CENTROIDS, -1);
    op->i0 = t->y;
    op->i1 = t->c;
    op->o = t->logits;
    op->w0 = w;
    op->scale = 0.5f;
    op->n_experts = (int)k->n_centroids;
    op->n_used = k->n_used;
    op->group = k->group;
    op->order = plan_keep_order(t->l.p, t->order, V);
    lab_compile(&t->l);
}

static void centroids_close(centroid_lab *t)
{
    free(t->order);
    free(t->head);
    lab_close(&t->l);
}

/* Which centroids are chosen: by counting, for each, those that come before it. */
static bool is_chosen(const float *c, uint32_t n, uint32_t i, int n_used)
{
    int before = 0;
    for (uint32_t j = 0; j < n; j++) before += c[j] > c[i] || (c[j] == c[i] && j < i);
    return before < n_used;
}

static void check_centroids(const centroid_case *k, const centroid_lab *t, const float *y, const float *c,
                            const float *logits)
{
    const double tolerance = type_is_float(k->type) ? 1e-4 : 0.3; /* int8 activations */
    int n_finite = 0;
    for (uint32_t i = 0; i < k->n_centroids; i++)
        for (uint32_t j = 0; j < k->group; j++) {
            const int32_t id = t->order[i * k->group + j];
            const bool is_out = id == 3 || id == 17 || id == 40 || !is_chosen(c, k->n_centroids, i, k->n_used);
            double sum = 0;
            for (uint32_t m = 0; m < k->n_in; m++) sum += (double)t->head[(size_t)id * k->n_in + m] * (double)y[m];
            if (is_out ? logits[id] != -INFINITY : !(fabs((double)logits[id] - 0.5 * sum) < tolerance))
                fail_msg("id %d: %g, wanted %g", id, (double)logits[id], is_out ? -INFINITY : 0.5 * sum);
            n_finite += !is_out;
        }
    assert_true(n_finite > 0 && n_finite <= k->n_used * (int)k->group);
}

static void test_centroid_head_against_brute_force(void **state)
{
    (void)state;
    static const centroid_case cases[] = {{TYPE_F32, 64, 16, 8, 3},   {TYPE_F16, 256, 32, 16, 5},
                                          {TYPE_Q8_0, 256, 64, 4, 7}, {TYPE_BF16, 32, 10, 20, 10},
                                          {TYPE_Q4_0, 512, 24, 8, 1}, {TYPE_Q8_0, 96, 20, 5, 19}};
    rng r;
    rng_seed(&r, 34);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int d = 0; d < 2; d++)
            for (int n_threads = 1; n_threads <= 3; n_threads += 2) {
                const centroid_case *k = &cases[i];
                const uint32_t V = k->n_centroids * k->group;
                enum { ROWS = 5 };
                centroid_lab t;
                centroids_open(&t, k, devices[d], n_threads);
                float *y = random_floats(&r, ROWS * k->n_in), *c = random_floats(&r, ROWS * k->n_centroids);
                float *logits = malloc(ROWS * V * sizeof *logits), *alone = malloc(V * sizeof *alone);
                for (uint32_t j = 0; j < k->n_centroids; j++) c[j] = roundf(c[j]); /* ties in the first row */
                lab_write(&t.l, t.y, ROWS, y);
                lab_write(&t.l, t.c, ROWS, c);
                lab_run(&t.l, ROWS, NULL);
                lab_read(&t.l, t.logits, ROWS, logits);
                for (int row = 0; row < ROWS; row++) {
                    const float *yr = y + (size_t)row * k->n_in, *cr = c + (size_t)row * k->n_centroids;
                    check_centroids(k, &t, yr, cr, logits + (size_t)row * V);
                    lab_write(&t.l, t.y, 1, yr);
                    lab_write(&t.l, t.c, 1, cr);
                    lab_run(&t.l, 1, NULL);
                    lab_read(&t.l, t.logits, 1, alone);
                    assert_memory_equal(alone, logits + (size_t)row * V, V * sizeof *alone);
                }
                free(y);
                free(c);
                free(logits);
                free(alone);
                centroids_close(&t);
            }
}

/* ---- embedding of given ids, concatenation, quantised inputs ---- */

static void test_pitfall_13_embed_from_an_input(void **state)
{
    (void)state;
    enum { H = 64, V = 50 };
    rng r;
    rng_seed(&r, 35);
    float *table = random_floats(&r, H * V), out[2][6 * H];
    const int32_t ids[6] = {7, -1, 49, 50, INT32_MIN, 0}, batch_tokens[6] = {7, 1, 49, 2, 3, 0};
    for (int d = 0; d < 2; d++) {
        lab l = lab_open(devices[d], 2);
        const int w = lab_weight(&l, TYPE_F32, H, V, table);
        l.weights[w].is_rows = true;
        const int in = plan_input_new(l.p, ROWS_ALL, VALUE_I32, 1, false, "ids");
        int o[2];
        for (int i = 0; i < 2; i++) { /* from the input; from the batch */
            o[i] = plan_value_new(l.p, ROWS_ALL, VALUE_F32, H, true, "o%d", i);
            plan_op *op = plan_add(l.p, OP_EMBED, -1);
            op->i0 = i ? -1 : in;
            op->o = o[i];
            op->w0 = w;
            op->scale = 8;
        }
        lab_compile(&l);
        lab_write(&l, in, 6, ids);
        lab_run(&l, 6, batch_tokens);
        for (int i = 0; i < 2; i++) lab_read(&l, o[i], 6, out[i]);
        for (int row = 0; row < 6; row++) {
            const bool is_id = ids[row] >= 0 && ids[row] < V;
            for (int j = 0; j < H; j++) {
                assert_true(out[1][row * H + j] == 8 * table[batch_tokens[row] * H + j]);
                assert_true(out[0][row * H + j] == (is_id ? out[1][row * H + j] : 0));
            }
        }
        lab_close(&l);
    }
    free(table);
}

/* Columns side by side, also as the input of a product with quantised weights; and an input that such a product reads
 * directly. */
static void test_concat_and_products_of_inputs(void **state)
{
    (void)state;
    enum { A = 64, B = 96, N = 40, ROWS = 7 };
    rng r;
    rng_seed(&r, 36);
    float *a = random_floats(&r, ROWS * A), *b = random_floats(&r, ROWS * B), *m = random_floats(&r, N * (A + B));
    float both[ROWS * (A + B)], got[ROWS * (A + B)], y[2][ROWS * N];
    for (int row = 0; row < ROWS; row++) {
        memcpy(both + row * (A + B), a + row * A, A * sizeof *a);
        memcpy(both + row * (A + B) + A, b + row * B, B * sizeof *b);
    }
    for (int d = 0; d < 2; d++) {
        lab l = lab_open(devices[d], 3);
        const int w = lab_weight(&l, TYPE_Q8_0, A + B, N, m);
        l.weights[w].is_matrix = true;
        const int va = plan_input_new(l.p, ROWS_ALL, VALUE_F32, A, false, "a"),
                  vb = plan_input_new(l.p, ROWS_ALL, VALUE_F32, B, false, "b"),
                  vc = plan_input_new(l.p, ROWS_ALL, VALUE_F32, A + B, false, "c");
        const int ab = plan_value_new(l.p, ROWS_ALL, VALUE_F32, A + B, true, "ab");
        plan_op *op = plan_add(l.p, OP_CONCAT, -1);
        op->i0 = va;
        op->i1 = vb;
        op->o = ab;
        int o[2];
        for (int i = 0; i < 2; i++) {
            o[i] = plan_value_new(l.p, ROWS_ALL, VALUE_F32, N, true, "o%d", i);
            op = plan_add(l.p, OP_LINEAR, -1);
            op->i0 = i ? vc : ab;
            op->o = o[i];
            op->w0 = w;
        }
        lab_compile(&l);
        lab_write(&l, va, ROWS, a);
        lab_write(&l, vb, ROWS, b);
        lab_write(&l, vc, ROWS, both);
        lab_run(&l, ROWS, NULL);
        lab_read(&l, ab, ROWS, got);
        assert_memory_equal(got, both, sizeof both);
        for (int i = 0; i < 2; i++) lab_read(&l, o[i], ROWS, y[i]);
        assert_memory_equal(y[0], y[1], sizeof y[0]);
        for (int i = 0; i < ROWS * N; i++) {
            double sum = 0;
            for (int j = 0; j < A + B; j++) sum += (double)m[i % N * (A + B) + j] * (double)both[i / N * (A + B) + j];
            assert_true(fabs((double)y[0][i] - sum) < 0.5);
        }
        lab_close(&l);
    }
    free(a);
    free(b);
    free(m);
}

/* ---- inputs and copies ---- */

typedef struct two_plans {
    lab l;
    plan *q;
    compiled *qc;
    int in, kept, ids, plain; /* of l: input; input and output; likewise int32; neither */
    int q_in;
} two_plans;

static two_plans plans_open(const char *device)
{
    two_plans t = {.l = lab_open(device, 1)};
    facet_error err;
    t.in = plan_input_new(t.l.p, ROWS_ALL, VALUE_F32, 4, false, "in");
    t.kept = plan_input_new(t.l.p, ROWS_ALL, VALUE_F32, 4, true, "kept");
    t.ids = plan_input_new(t.l.p, ROWS_ALL, VALUE_I32, 4, true, "ids");
    t.plain = plan_value_new(t.l.p, ROWS_ALL, VALUE_F32, 4, false, "plain");
    plan_op *op = plan_add(t.l.p, OP_CAPTURE, -1);
    op->i0 = t.in;
    op->o = t.plain;
    lab_compile(&t.l);
    assert_ok(plan_new("second", &t.q, &err), err);
    t.q_in = plan_input_new(t.q, ROWS_ALL, VALUE_F32, 10, true, "wide");
    assert_ok(plan_finish(t.q, &err), err);
    assert_ok(t.l.be->ops->compile(t.l.be, t.q, 8, 8, &t.qc, &err), err);
    return t;
}

static void plans_close(two_plans *t)
{
    t->l.be->ops->release(t->l.be, t->qc);
    plan_free(t->q);
    lab_close(&t->l);
}

static void test_copy_rows(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++) {
        two_plans t = plans_open(devices[d]);
        facet_error err;
        float x[6 * 4], wide[4 * 10], want[4 * 10];
        for (int i = 0; i < 24; i++) x[i] = (float)i;
        for (int i = 0; i < 40; i++) want[i] = wide[i] = -1;
        assert_ok(t.l.be->ops->write(t.l.be, t.qc, t.q_in, 0, 4, wide, &err), err);
        lab_write(&t.l, t.kept, 6, x);
        const int32_t rows[3] = {5, 0, 2};
        row_copy c = {.src = t.l.c, .src_value = t.kept, .src_rows = rows, .dst = t.qc, .dst_value = t.q_in, .n = 3};
        c.dst_row = 1;
        c.dst_column = 6;
        assert_ok(t.l.be->ops->copy_rows(t.l.be, &c, &err), err);
        for (int i = 0; i < 3; i++) memcpy(want + (i + 1) * 10 + 6, x + rows[i] * 4, 4 * sizeof *x);
        c = (row_copy){.src = t.l.c, .src_value = t.kept, .dst = t.qc, .dst_value = t.q_in, .n = 2, .width = 2};
        c.src_column = 1; /* rows 0 and 1, columns 1 and 2 */
        assert_ok(t.l.be->ops->copy_rows(t.l.be, &c, &err), err);
        for (int i = 0; i < 2; i++) memcpy(want + i * 10, x + i * 4 + 1, 2 * sizeof *x);
        assert_ok(t.l.be->ops->read(t.l.be, t.qc, t.q_in, 0, 4, wide, &err), err);
        assert_memory_equal(wide, want, sizeof want);
        plans_close(&t);
    }
}

static void refused(const two_plans *t, row_copy c, const char *part)
{
    facet_error err = {0};
    assert_int_equal(t->l.be->ops->copy_rows(t->l.be, &c, &err), FACET_ERR_ARG);
    if (!strstr(err.message, part)) fail_msg("'%s' does not hold '%s'", err.message, part);
}

static void test_refused_copies(void **state)
{
    (void)state;
    two_plans t = plans_open("cpu");
    facet_error err;
    const int32_t bad_row[1] = {MAX_ROWS};
    const row_copy good = {.src = t.l.c, .src_value = t.kept, .dst = t.qc, .dst_value = t.q_in, .n = 1};
    row_copy c = good;
    assert_ok(t.l.be->ops->copy_rows(t.l.be, &c, &err), err);
    c.src_value = t.plain;
    refused(&t, c, "value 3 of plan lab is no output");
    c.src_value = -1;
    refused(&t, c, "value -1 of plan lab is no output");
    c = good;
    c.dst_value = 7;
    refused(&t, c, "value 7 of plan second is no input");
    c = good;
    c.src_value = t.ids;
    refused(&t, c, "value ids of plan lab and value wide of plan second have different types");
    c = good;
    c.src_rows = bad_row;
    refused(&t, c, "plan lab: rows 16 + 1 of value kept: it has 16");
    c = good;
    c.dst_row = 8;
    refused(&t, c, "plan second: rows 8 + 1 of value wide: it has 8");
    c = good;
    c.dst_column = 7;
    refused(&t, c, "plan second: columns 7 + 4 of value wide: it has 10");
    c = good;
    c.src_column = 3;
    c.width = 2;
    refused(&t, c, "plan lab: columns 3 + 2 of value kept: it has 4");
    c = good;
    c.n = -1;
    refused(&t, c, "rows 0 + -1");
    float x[4] = {0};
    assert_int_equal(t.l.be->ops->write(t.l.be, t.l.c, t.plain, 0, 1, x, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "value 3 of plan lab is no input"));
    assert_int_equal(t.l.be->ops->write(t.l.be, t.l.c, t.in, 16, 1, x, &err), FACET_ERR_ARG);
    assert_int_equal(t.l.be->ops->read(t.l.be, t.l.c, t.in, 0, 1, x, &err), FACET_ERR_ARG);
    assert_int_equal(t.l.be->ops->read(t.l.be, t.l.c, t.kept, 10, 7, x, &err), FACET_ERR_ARG);
    plans_close(&t);
}

/* ---- sights of attention ---- */

enum { D = 128, N_HEADS = 4, N_KV = 2, N_SLOTS = 700, GROUP_WINDOW = 600 };

typedef struct sight_lab {
    lab l;
    int q, o;
    float *k, *v; /* [N_SLOTS][N_KV][D] as stored */
} sight_lab;

static sight_lab sight_open(const char *device, int n_threads, attn_sight sight, int window)
{
    sight_lab t = {.l = lab_open(device, n_threads)};
    static kv_layer_desc layer = {.group = KV_GROUP_DRAFT, .n_kv_heads = N_KV, .head_dim = D};
    t.l.kv = (kv_desc){.n_groups = 3, .n_layers = 1, .layers = &layer};
    for (int g = 0; g < 3; g++) t.l.kv.groups[g].n_pages = 12;
    t.l.kv.groups[KV_GROUP_DRAFT].window = GROUP_WINDOW;
    t.q = plan_input_new(t.l.p, ROWS_ALL, VALUE_F32, N_HEADS * D, false, "q");
    t.o = plan_value_new(t.l.p, ROWS_ALL, VALUE_F32, N_HEADS * D, true, "o");
    plan_op *op = plan_add(t.l.p, OP_ATTN, 0);
    op->i0 = t.q;
    op->o = t.o;
    op->kv_layer = 0;
    op->n_heads = N_HEADS;
    op->n_kv_heads = N_KV;
    op->head_dim = D;
    op->attn_scale = 0.5f;
    op->window = window;
    op->sight = sight;
    lab_compile(&t.l);
    const attn_layer *a = &((cpu_backend *)t.l.be)->kv_layers[0];
    rng r;
    rng_seed(&r, 37);
    t.k = random_floats(&r, (size_t)N_SLOTS * N_KV * D);
    t.v = random_floats(&r, (size_t)N_SLOTS * N_KV * D);
    for (int i = 0; i < 12; i++) t.l.tables[KV_GROUP_DRAFT][i] = (i * 5 + 3) % 12;
    for (int i = 0; i < N_SLOTS * N_KV; i++) {
        const int slot = i / N_KV, page = t.l.tables[KV_GROUP_DRAFT][slot / KV_PAGE_LEN];
        attn_put_k(a, page, slot % KV_PAGE_LEN, i % N_KV, t.k + (size_t)i * D);
        attn_put_v(a, page, slot % KV_PAGE_LEN, i % N_KV, t.v + (size_t)i * D);
        attn_get_k(a, page, slot % KV_PAGE_LEN, i % N_KV, t.k + (size_t)i * D);
        attn_get_v(a, page, slot % KV_PAGE_LEN, i % N_KV, t.v + (size_t)i * D);
    }
    return t;
}

static void sight_close(sight_lab *t)
{
    free(t->k);
    free(t->v);
    lab_close(&t->l);
}

static void sight_run(const sight_lab *t, int n, const int32_t *pos, batch_seq s, const float *q, float *out)
{
    facet_error err;
    int32_t seq[MAX_ROWS] = {0};
    for (int g = 0; g < 3; g++) s.table[g] = t->l.tables[g];
    const batch b = {.n_rows = n, .token = seq, .pos = pos, .slot = pos, .seq = seq, .n_seqs = 1, .seqs = &s};
    lab_write(&t->l, t->q, n, q);
    assert_ok(t->l.be->ops->run(t->l.be, t->l.c, &b, &err), err);
    lab_read(&t->l, t->o, n, out);
}

/* Over keys [first, last), in double; zeros when there are none. */
static double brute_attention(const sight_lab *t, const float *q, int head, int dim, int first, int last)
{
    const int kv = head / (N_HEADS / N_KV);
    double max = -INFINITY, sum = 0, o = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int p = first; p < last; p++) {
            double s = 0;
            for (int j = 0; j < D; j++)
                s += 0.5 * (double)q[head * D + j] * (double)t->k[((size_t)p * N_KV + (size_t)kv) * D + (size_t)j];
            if (!pass) max = fmax(max, s);
            if (pass) sum += exp(s - max);
            if (pass) o += exp(s - max) * (double)t->v[((size_t)p * N_KV + (size_t)kv) * D + (size_t)dim];
        }
    return last > first ? o / sum : 0;
}

typedef struct sight_case {
    attn_sight sight;
    int window, base, n; /* rows at base .. base + n - 1; SIGHT_COMMITTED: all at base */
    int begin;           /* what lies before it, nobody sees */
} sight_case;

static void check_sight(const sight_case *c, const char *device, int n_threads)
{
    sight_lab t = sight_open(device, n_threads, c->sight, c->window);
    rng r;
    rng_seed(&r, 38);
    float *q = random_floats(&r, MAX_ROWS * N_HEADS * D), *out = malloc(MAX_ROWS * N_HEADS * D * sizeof *out),
          alone[N_HEADS * D];
    int32_t pos[MAX_ROWS];
    for (int i = 0; i < MAX_ROWS * N_HEADS * D; i++) q[i] *= 0.3f;
    for (int i = 0; i < c->n; i++) pos[i] = c->sight == SIGHT_COMMITTED ? c->base + i % 2 : c->base + i;
    const batch_seq s = {.base = c->base, .end = c->base + c->n, .begin = c->begin};
    sight_run(&t, c->n, pos, s, q, out);
    for (int i = 0; i < c->n; i++) {
        const int lowest = pos[i] - c->window + 1, first = c->window && lowest > c->begin ? lowest : c->begin;
        const int last = c->sight == SIGHT_CAUSAL ? pos[i] + 1 : c->sight == SIGHT_COMMITTED ? c->base : c->base + c->n;
        for (int j = 0; j < N_HEADS * D; j += 37) {
            const double want = brute_attention(&t, q + i * N_HEADS * D, j / D, j % D, first, last);
            const double got = (double)out[i * N_HEADS * D + j];
            if (!(fabs(got - want) < 1e-4))
                fail_msg("%s, sight %d, window %d, base %d: row %d, column %d: %g, wanted %g", device, (int)c->sight,
                         c->window, c->base, i, j, got, want);
        }
        sight_run(&t, 1, pos + i, s, q + i * N_HEADS * D, alone);
        assert_memory_equal(alone, out + i * N_HEADS * D, sizeof alone);
    }
    free(q);
    free(out);
    sight_close(&t);
}

static void test_pitfall_17_sights(void **state)
{
    (void)state;
    static const sight_case cases[] = {
        {SIGHT_CAUSAL, GROUP_WINDOW, 650, 16, 0},
        {SIGHT_CAUSAL, 100, 300, 16, 0},
        {SIGHT_CAUSAL, 40, 5, 16, 0},
        {SIGHT_COMMITTED, GROUP_WINDOW, 690, 3, 0},
        {SIGHT_COMMITTED, 128, 512, 9, 0},
        {SIGHT_COMMITTED, 128, 513, 1, 0},
        {SIGHT_COMMITTED, 64, 10, 2, 0},
        {SIGHT_COMMITTED, 1, 200, 4, 0},
        {SIGHT_COMMITTED, 2, 64, 4, 0},
        {SIGHT_COMMITTED, 32, 0, 3, 0},
        {SIGHT_BLOCK, GROUP_WINDOW, 0, 16, 0},
        {SIGHT_BLOCK, GROUP_WINDOW, 684, 16, 0},
        {SIGHT_BLOCK, 200, 500, 16, 0},
        {SIGHT_BLOCK, 200, 505, 8, 0},
        {SIGHT_BLOCK, 5, 100, 16, 0},
        {SIGHT_BLOCK, 33, 63, 2, 0},
        {SIGHT_BLOCK, 33, 63, 1, 0},
        {SIGHT_BLOCK, GROUP_WINDOW, 300, 16, 1},
        {SIGHT_BLOCK, GROUP_WINDOW, 684, 16, 517},
        {SIGHT_BLOCK, 200, 500, 8, 499},
        {SIGHT_BLOCK, 200, 500, 8, 500},
        {SIGHT_BLOCK, 40, 300, 16, 200},
        {SIGHT_CAUSAL, 100, 300, 16, 250},
        {SIGHT_CAUSAL, 100, 512, 16, 512},
        {SIGHT_COMMITTED, 128, 512, 3, 512},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int d = 0; d < 2; d++)
            for (int n_threads = 1; n_threads <= 4; n_threads += 3) check_sight(&cases[i], devices[d], n_threads);
}

/* ---- rotation ---- */

typedef struct turn_case {
    int head_dim, n_rot, pos;
    double base;
} turn_case;

static void test_pitfall_12_16_rotation(void **state)
{
    (void)state;
    static const turn_case cases[] = {
        {128, 64, 5000, 1e6}, {512, 64, 5000, 1e6}, {256, 128, 5000, 1e4}, {512, 64, 262143, 1e6}, {128, 64, 0, 1e6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int device = 0; device < 2; device++) {
            const turn_case *c = &cases[i];
            const int d = c->head_dim;
            lab l = lab_open(devices[device], 1);
            double freq[256] = {0};
            for (int j = 0; j < c->n_rot; j++) freq[j] = pow(c->base, -2.0 * j / d);
            const int in = plan_input_new(l.p, ROWS_ALL, VALUE_F32, (uint32_t)(2 * d), false, "q"),
                      o = plan_value_new(l.p, ROWS_ALL, VALUE_F32, (uint32_t)(2 * d), true, "o");
            plan_op *op = plan_add(l.p, OP_ROPE_Q, 0);
            op->i0 = in;
            op->o = o;
            op->n_heads = 2;
            op->head_dim = d;
            op->n_rot = c->n_rot;
            op->inv_freq = plan_keep_freqs(l.p, freq, d / 2);
            op->eps = 1e-6f;
            lab_compile(&l);
            rng r;
            rng_seed(&r, 39);
            float *x = random_floats(&r, (size_t)(2 * d)), y[1024];
            const int32_t zero = 0;
            const batch_seq s = {0};
            const batch b = {
                .n_rows = 1, .token = &zero, .pos = &c->pos, .slot = &zero, .seq = &zero, .n_seqs = 1, .seqs = &s};
            facet_error err;
            lab_write(&l, in, 1, x);
            assert_ok(l.be->ops->run(l.be, l.c, &b, &err), err);
            lab_read(&l, o, 1, y);
            for (int h = 0; h < 2; h++) {
                double sum = 0;
                for (int j = 0; j < d; j++) sum += (double)x[h * d + j] * (double)x[h * d + j];
                const double inverse = 1 / sqrt(sum / d + 1e-6);
                for (int j = 0; j < d / 2; j++) {
                    const double angle = c->pos * freq[j], a0 = (double)x[h * d + j] * inverse,
                                 b0 = (double)x[h * d + j + d / 2] * inverse;
                    assert_true(fabs((double)y[h * d + j] - (a0 * cos(angle) - b0 * sin(angle))) < 1e-5);
                    assert_true(fabs((double)y[h * d + j + d / 2] - (b0 * cos(angle) + a0 * sin(angle))) < 1e-5);
                }
            }
            free(x);
            lab_close(&l);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_top_k_against_brute_force),
        cmocka_unit_test(test_pitfall_26_ties_go_to_the_lowest_id),
        cmocka_unit_test(test_top_k_of_broken_logits),
        cmocka_unit_test(test_top_k_bits),
        cmocka_unit_test(test_centroid_head_against_brute_force),
        cmocka_unit_test(test_pitfall_13_embed_from_an_input),
        cmocka_unit_test(test_concat_and_products_of_inputs),
        cmocka_unit_test(test_copy_rows),
        cmocka_unit_test(test_refused_copies),
        cmocka_unit_test(test_pitfall_17_sights),
        cmocka_unit_test(test_pitfall_12_16_rotation),
    };
    return cmocka_run_group_tests_name("draft_ops", tests, NULL, NULL);
}
