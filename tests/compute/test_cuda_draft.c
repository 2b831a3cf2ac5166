/* The ops that drafters add, on a CUDA device against the scalar backend. */
#include "compute/cuda_testing.h"

/* which: 0 the ids, 1 the log-probabilities */
static void topk_case(uint32_t n, int k, float temp, int which)
{
    fixture f;
    begin(&f, "topk");
    int x = add_input(&f, TYPE_F16, n, true, 4), o[2];
    o[0] = add_output(&f, ROWS_ALL, VALUE_I32, (uint32_t)k);
    o[1] = add_output(&f, ROWS_ALL, VALUE_F32, (uint32_t)k);
    plan_op *op = add_op(&f, OP_TOPK, x, -1, o[0]);
    op->o2 = o[1];
    op->n_used = k;
    op->temp = temp;
    check(&f, o[which]);
}

static void test_topk(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        topk_case(5000, 10, 1, which);
        topk_case(4096, PLAN_MAX_TOPK, 0.5f, which);
        topk_case(32, 1, 2, which);
        topk_case(64, 8, 1e-3f, which);
    }
}

static void centroid_case(tensor_type type, double tolerance)
{
    enum { N_IN = 256, N_CENTROIDS = 40, GROUP = 16, N_VOCAB = N_CENTROIDS * GROUP };
    static const int32_t suppressed[] = {0, 77, 639};
    int32_t order[N_VOCAB];
    for (int i = 0; i < N_VOCAB; i++) order[i] = (i * 27 + 5) % N_VOCAB;
    fixture f;
    begin(&f, "centroids");
    f.tolerance = tolerance;
    int y = add_input(&f, TYPE_F32, N_IN, true, 1), c = add_input(&f, TYPE_F16, N_CENTROIDS, true, 1),
        o = add_output(&f, ROWS_ALL, VALUE_F32, N_VOCAB);
    plan_keep_suppress(f.p, suppressed, 3);
    plan_op *op = add_op(&f, OP_CENTROIDS, y, c, o);
    op->w0 = add_weight(&f, type, N_IN, N_VOCAB, 1, 0, 0.1);
    f.weights[op->w0].is_picked = true;
    op->scale = 0.5f;
    op->n_experts = N_CENTROIDS;
    op->n_used = 7;
    op->group = GROUP;
    op->order = plan_keep_order(f.p, order, N_VOCAB);
    check(&f, o);
}

static void test_centroids(void **state)
{
    (void)state;
    centroid_case(TYPE_F32, TOLERANCE_F32);
    centroid_case(TYPE_F16, TOLERANCE_F32);
    centroid_case(TYPE_Q8_0, TOLERANCE_INT8);
    centroid_case(TYPE_Q4_K, TOLERANCE_INT8);
}

static void test_concat(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "concat");
    int x = add_input(&f, TYPE_F32, 320, true, 1), y = add_input(&f, TYPE_F32, 96, false, 1),
        o = add_output(&f, ROWS_ALL, VALUE_F32, 416);
    add_op(&f, OP_CONCAT, x, y, o);
    check(&f, o);
}

/* ---- sights ---- */

static void open_both(fixture *f, device *ref, device *cuda)
{
    facet_error err;
    backend_config cfg = {.n_threads = 2};
    assert_ok(plan_finish(f->p, &err), err);
    if (!open_cuda(&cuda->b)) {
        end(f);
        skip();
    }
    assert_ok(backend_open("ref", &cfg, &ref->b, &err), err);
    prepare(f, ref);
    prepare(f, cuda);
}

/* One layer that writes and then reads, its window narrower than that of its pages. */
static int add_layer(fixture *f, attn_sight sight, int window)
{
    enum { HEADS = 4, KV_HEADS = 2, D = 128 };
    int q = add_input(f, TYPE_F32, HEADS * D, true, 0.3), k = add_input(f, TYPE_F32, KV_HEADS * D, true, 1),
        v = add_input(f, TYPE_F32, KV_HEADS * D, true, 1), o = add_output(f, ROWS_ALL, VALUE_F32, HEADS * D);
    f->layer = (kv_layer_desc){.n_kv_heads = KV_HEADS, .head_dim = D, .k_type = KV_F16, .v_type = KV_F16};
    f->kv = (kv_desc){.n_groups = 1, .n_layers = 1, .groups = {{64, N_PAGES}}, .layers = &f->layer};
    f->has_kv = true;
    plan_op *op = add_op(f, OP_KV_WRITE, k, v, -1);
    op->kv_layer = 0;
    op->n_heads = HEADS;
    op->n_kv_heads = KV_HEADS;
    op->head_dim = D;
    op = add_op(f, OP_ATTN, q, -1, o);
    op->kv_layer = 0;
    op->window = window;
    op->n_heads = HEADS;
    op->n_kv_heads = KV_HEADS;
    op->head_dim = D;
    op->attn_scale = 0.2f;
    op->sight = sight;
    return o;
}

static void sight_case(attn_sight sight, int window, int base, int n)
{
    fixture f;
    device ref = {0}, cuda = {0};
    begin(&f, "sight");
    f.tolerance = 1e-3;
    int o = add_layer(&f, sight, window);
    open_both(&f, &ref, &cuda);
    for (int pass = 0; pass < 3; pass++) { /* fills the cache; launches; the graph */
        rows r;
        make_rows(&r, pass ? base : 0, pass ? n : base);
        r.seqs[0].end = base + n;
        if (!pass && !base) continue;
        if (!pass) r.seqs[0].end = base;
        run(&ref, &r);
        run(&cuda, &r);
        float *want = read_output(&f, &ref, o, r.in.n_rows), *got = read_output(&f, &cuda, o, r.in.n_rows);
        compare(&f, want, got, (size_t)r.in.n_rows * f.p->values[o].width, r.in.n_rows);
        free(want);
        free(got);
    }
    close_device(&ref);
    close_device(&cuda);
    end(&f);
}

static void test_sights(void **state)
{
    (void)state;
    for (attn_sight s = SIGHT_CAUSAL; s <= SIGHT_BLOCK; s++) {
        sight_case(s, 64, 40, 16);
        sight_case(s, 20, 61, 7);
        sight_case(s, 1, 30, 5);
        sight_case(s, 64, 0, 9); /* committed rows see nothing here: zeros */
    }
}

/* ---- inputs ---- */

typedef struct ids_plan {
    fixture f;
    int ids, x, kept; /* inputs; kept can be read too */
    int o;            /* rows of a table for the ids */
} ids_plan;

static void make_ids_plan(ids_plan *t)
{
    begin(&t->f, "inputs");
    t->ids = plan_input_new(t->f.p, ROWS_ALL, VALUE_I32, 1, false, "ids");
    t->x = plan_input_new(t->f.p, ROWS_ALL, VALUE_F32, 40, false, "x");
    t->kept = plan_input_new(t->f.p, ROWS_ALL, VALUE_F32, 64, true, "kept");
    t->o = add_output(&t->f, ROWS_ALL, VALUE_F32, 64);
    plan_op *op = add_op(&t->f, OP_EMBED, t->ids, -1, t->o);
    op->w0 = add_matrix(&t->f, TYPE_F32, 64, 50, 1);
    op->scale = 8;
}

static void use_inputs(ids_plan *t, device *d, float *embedded, float *kept)
{
    enum { N = 6 };
    const int32_t ids[N] = {7, -1, 49, 50, 0, 3}, order[3] = {5, 0, 1};
    const backend_ops *ops = d->b->ops;
    facet_error err;
    rows r;
    float zeros[N * 64] = {0};
    make_rows(&r, 0, N);
    assert_ok(ops->write(d->b, d->c, t->ids, 0, N, ids, &err), err);
    assert_ok(ops->write(d->b, d->c, t->kept, 0, N, zeros, &err), err);
    run(d, &r);
    row_copy c = {.src = d->c, .src_value = t->o, .src_rows = order, .dst = d->c, .dst_value = t->kept, .n = 3};
    c.dst_row = 2;
    assert_ok(ops->copy_rows(d->b, &c, &err), err);
    c = (row_copy){.src = d->c, .src_value = t->o, .src_column = 10, .dst = d->c, .dst_value = t->kept, .n = 2};
    c.dst_column = 50;
    c.width = 14;
    assert_ok(ops->copy_rows(d->b, &c, &err), err);
    assert_ok(ops->read(d->b, d->c, t->o, 0, N, embedded, &err), err);
    assert_ok(ops->read(d->b, d->c, t->kept, 0, N, kept, &err), err);
    c.dst_value = t->x; /* 40 columns */
    assert_int_equal(ops->copy_rows(d->b, &c, &err), FACET_ERR_ARG);
    assert_int_equal(ops->read(d->b, d->c, t->x, 0, 1, kept, &err), FACET_ERR_ARG);
}

static void test_inputs(void **state)
{
    (void)state;
    ids_plan t;
    device ref = {0}, cuda = {0};
    float embedded[2][6 * 64], kept[2][6 * 64];
    make_ids_plan(&t);
    open_both(&t.f, &ref, &cuda);
    use_inputs(&t, &ref, embedded[0], kept[0]);
    for (int i = 0; i < 3; i++) { /* launches, capture, graph */
        use_inputs(&t, &cuda, embedded[1], kept[1]);
        assert_memory_equal(embedded[0], embedded[1], sizeof embedded[0]);
        assert_memory_equal(kept[0], kept[1], sizeof kept[0]);
    }
    close_device(&ref);
    close_device(&cuda);
    end(&t.f);
}

/* A table that stays on the host cannot serve ids that the device finds. */
static void test_table_on_the_host_is_refused(void **state)
{
    (void)state;
    ids_plan t;
    device cuda = {0};
    facet_error err;
    make_ids_plan(&t);
    t.f.weights[0].is_matrix = false;
    t.f.weights[0].is_rows = true;
    assert_ok(plan_finish(t.f.p, &err), err);
    if (!open_cuda(&cuda.b)) {
        end(&t.f);
        skip();
    }
    assert_ok(cuda.b->ops->load(cuda.b, t.f.weights, t.f.n_weights, &err), err);
    assert_int_equal(cuda.b->ops->compile(cuda.b, t.f.p, 8, 8, &cuda.c, &err), FACET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "tensor w0 stays in host memory"));
    cuda.b->ops->close(cuda.b);
    end(&t.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_topk),   cmocka_unit_test(test_centroids),
        cmocka_unit_test(test_concat), cmocka_unit_test(test_sights),
        cmocka_unit_test(test_inputs), cmocka_unit_test(test_table_on_the_host_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
