/* Memory of a CUDA device: what the planner says beforehand against what is taken, and a backend that goes on after it
 * was refused memory. */
#include "compute/cuda_testing.h"

static backend_info info_of(const device *d)
{
    backend_info info;
    d->b->ops->info(d->b, &info);
    return info;
}

static uint64_t planned_weights(const fixture *f)
{
    uint64_t sum = 0;
    for (int i = 0; i < f->n_weights; i++) sum += backend_cuda_weight_bytes(&f->weights[i]);
    return sum;
}

/* Matrices with and without tile records, tables on either side, vectors; and ops that take workspace. */
static int build(fixture *f)
{
    begin(f, "a small model");
    const int x = add_input(f, TYPE_F32, 1536, true, 1), y = add_input(f, TYPE_Q4_K, 1536, false, 1);
    const int a = plan_value_new(f->p, ROWS_ALL, VALUE_F32, 1536, false, "a");
    plan_op *op = add_op(f, OP_NORM_ADD, x, y, a);
    op->w0 = add_vector(f, 1536);
    const int h = plan_value_new(f->p, ROWS_ALL, VALUE_F32, 300, false, "h"),
              o = add_output(f, ROWS_ALL, VALUE_F32, 77);
    op = add_op(f, OP_GATED, a, -1, h);
    op->w0 = add_matrix(f, TYPE_Q4_K, 1536, 300, 1);
    op->w1 = add_matrix(f, TYPE_Q4_K, 1536, 300, 1);
    add_op(f, OP_LINEAR, h, -1, o)->w0 = add_matrix(f, TYPE_BF16, 300, 77, 1);
    return o;
}

static void the_plan_is_what_is_taken(void **state)
{
    (void)state;
    static const int n_rows[] = {1, 16, 64, 96};
    fixture f;
    device cuda = {0};
    facet_error err;
    build(&f);
    assert_ok(plan_finish(f.p, &err), err);
    const uint64_t weights = planned_weights(&f);
    if (!open_cuda(&cuda.b)) {
        end(&f);
        skip();
        return;
    }
    assert_ok(cuda.b->ops->load(cuda.b, f.weights, f.n_weights, &err), err);
    assert_true(weights > 0 && info_of(&cuda).weight_bytes == weights);
    for (size_t i = 0; i < sizeof n_rows / sizeof *n_rows; i++) {
        const uint64_t before = info_of(&cuda).compute_bytes;
        uint64_t planned = 0;
        assert_ok(backend_cuda_plan_bytes(f.weights, f.n_weights, f.p, &f.kv, n_rows[i], n_rows[i], &planned, &err),
                  err);
        assert_ok(cuda.b->ops->compile(cuda.b, f.p, n_rows[i], n_rows[i], &cuda.c, &err), err);
        const uint64_t taken = info_of(&cuda).compute_bytes - before;
        if (planned != taken)
            fail_msg("%d rows: %llu bytes, planned %llu", n_rows[i], (unsigned long long)taken,
                     (unsigned long long)planned);
        cuda.b->ops->release(cuda.b, cuda.c);
        assert_true(info_of(&cuda).compute_bytes == before);
    }
    cuda.b->ops->close(cuda.b);
    end(&f);
}

/* Experts too are planned for, and before any device is asked. */
static void a_plan_needs_no_device(void **state)
{
    (void)state;
    enum { N_EMBD = 512, N_FF = 256, N_EXPERTS = 8, N_USED = 2 };
    static const int n_rows[] = {1, 8, 96, 512};
    fixture f;
    facet_error err;
    begin(&f, "a layer of experts");
    const int x = add_input(&f, TYPE_F32, N_EMBD, true, 1);
    const int route = plan_value_new(f.p, ROWS_ALL, VALUE_F32, 2 * N_USED, false, "route");
    const int h = plan_value_new(f.p, ROWS_ALL, VALUE_F32, N_USED * N_FF, false, "h");
    const int o = add_output(&f, ROWS_ALL, VALUE_F32, N_EMBD);
    plan_op *op = add_op(&f, OP_MOE_ROUTE, x, -1, route);
    op->w0 = add_matrix(&f, TYPE_F32, N_EMBD, N_EXPERTS, 1);
    op->n_experts = N_EXPERTS;
    op->n_used = N_USED;
    op = add_op(&f, OP_MOE_GATED, x, route, h);
    op->w0 = add_matrix(&f, TYPE_Q4_K, N_EMBD, 2 * N_FF, N_EXPERTS);
    op->n_experts = N_EXPERTS;
    op->n_used = N_USED;
    op->n_ff = N_FF;
    op = add_op(&f, OP_MOE_DOWN, h, route, o);
    op->w0 = add_matrix(&f, TYPE_Q4_K, N_FF, N_EMBD, N_EXPERTS);
    op->n_experts = N_EXPERTS;
    op->n_used = N_USED;
    op->n_ff = N_FF;
    assert_ok(plan_finish(f.p, &err), err);
    uint64_t before = 0;
    for (size_t i = 0; i < sizeof n_rows / sizeof *n_rows; i++) {
        uint64_t planned = 0;
        assert_ok(backend_cuda_plan_bytes(f.weights, f.n_weights, f.p, &f.kv, n_rows[i], n_rows[i], &planned, &err),
                  err);
        /* the values of the rows, at least */
        assert_true(planned >= (uint64_t)n_rows[i] * (2 * N_EMBD + N_USED * N_FF) * sizeof(float));
        assert_true(planned > before);
        before = planned;
    }
    end(&f);
}

/* A plan of the whole device's memory is refused, before and after others; results stay what they were. */
static void refused_memory_changes_nothing(void **state)
{
    (void)state;
    fixture f, large;
    device cuda = {0};
    facet_error err;
    const int o = build(&f);
    assert_ok(plan_finish(f.p, &err), err);
    if (!open_cuda(&cuda.b)) {
        end(&f);
        skip();
        return;
    }
    prepare(&f, &cuda);
    rows r;
    make_rows(&r, 0, 70);
    run(&cuda, &r);
    float *first = read_output(&f, &cuda, o, 70);
    begin(&large, "too large");
    for (int i = 0; i < 2; i++) plan_input_new(large.p, ROWS_ALL, VALUE_F32, 1 << 20, true, "x");
    assert_ok(plan_finish(large.p, &err), err);
    for (int i = 0; i < 3; i++) {
        compiled *c = NULL;
        assert_int_equal(cuda.b->ops->compile(cuda.b, large.p, 65535, 1, &c, &err), FACET_ERR_MEMORY);
        assert_true(!c && strstr(err.message, "out of memory on CUDA device 0: activations needs 524280.0 MiB"));
        run(&cuda, &r);
        float *again = read_output(&f, &cuda, o, 70);
        assert_bits(&f, "before = after a refusal", first, again, (size_t)70 * 77);
        free(again);
    }
    free(first);
    end(&large);
    close_device(&cuda);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plan_is_what_is_taken),
        cmocka_unit_test(a_plan_needs_no_device),
        cmocka_unit_test(refused_memory_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
