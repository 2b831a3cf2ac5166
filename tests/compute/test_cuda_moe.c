/* Routing and experts on a CUDA device against the scalar backend, for every weight type. */
#include "compute/cuda_testing.h"

/* ---- cases: experts ---- */

enum { N_EXPERTS = 12, N_USED = 4, N_FF = 256, N_EMBD = 256 };

static int add_route(fixture *f, int x, bool is_output)
{
    int route = plan_value_new(f->p, ROWS_ALL, VALUE_F32, 2 * N_USED, is_output, "route");
    plan_op *op = add_op(f, OP_MOE_ROUTE, x, -1, route);
    op->w0 = add_matrix(f, TYPE_F32, N_EMBD, N_EXPERTS, 1);
    op->w1 = add_vector(f, N_EMBD);
    op->w2 = add_vector(f, N_EXPERTS);
    op->scale = 4; /* far apart: rounding must not change the order */
    op->n_experts = N_EXPERTS;
    op->n_used = N_USED;
    return route;
}

static void test_moe_route(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "moe_route");
    int x = add_input(&f, TYPE_F32, N_EMBD, true, 1);
    check(&f, add_route(&f, x, true)); /* ids, read as floats, vanish beside the weights: see test_moe_route_ids */
}

static void expert_case(tensor_type type, bool is_fused, bool has_scale, bool goes_down, const char *name)
{
    fixture f;
    begin(&f, name);
    f.tolerance = is_float(type) ? TOLERANCE_F32 : TOLERANCE_INT8 * 1.5;
    int x = add_input(&f, TYPE_F32, N_EMBD, true, 1), route = add_route(&f, x, false);
    int h = plan_value_new(f.p, ROWS_ALL, VALUE_F32, N_USED * N_FF, !goes_down, "h");
    plan_op *op = add_op(&f, OP_MOE_GATED, x, route, h);
    op->w0 = add_matrix(&f, type, N_EMBD, is_fused ? 2 * N_FF : N_FF, N_EXPERTS);
    if (!is_fused) op->w1 = add_matrix(&f, type, N_EMBD, N_FF, N_EXPERTS);
    if (has_scale) op->w2 = add_vector(&f, N_EXPERTS);
    op->n_experts = N_EXPERTS;
    op->n_used = N_USED;
    op->n_ff = N_FF;
    int o = h;
    if (goes_down) {
        o = add_output(&f, ROWS_ALL, VALUE_F32, N_EMBD);
        op = add_op(&f, OP_MOE_DOWN, h, route, o);
        op->w0 = add_matrix(&f, type, N_FF, N_EMBD, N_EXPERTS);
        op->n_experts = N_EXPERTS;
        op->n_used = N_USED;
        op->n_ff = N_FF;
        f.tolerance *= 2;
    }
    check(&f, o);
}

static void down_case(tensor_type type, const type_info *info)
{
    expert_case(type, true, false, true, info->name);
}

static void test_moe_gated(void **state)
{
    (void)state;
    expert_case(TYPE_F32, true, true, false, "moe_gated, fused, scaled");
    expert_case(TYPE_BF16, false, false, false, "moe_gated, split");
    expert_case(TYPE_Q4_0, false, true, false, "moe_gated, split, scaled, Q4_0");
}

static void test_moe_down(void **state)
{
    (void)state;
    for_each_type(down_case);
}

/* Routing compared as what it is: ids, then weights. */
static void test_moe_route_ids(void **state)
{
    (void)state;
    fixture f;
    facet_error err;
    backend_config cfg = {.n_threads = 1};
    device ref = {0}, cuda = {0};
    begin(&f, "moe_route ids");
    int route = add_route(&f, add_input(&f, TYPE_F32, N_EMBD, true, 1), true);
    assert_ok(plan_finish(f.p, &err), err);
    if (!open_cuda(&cuda.b)) {
        end(&f);
        skip();
    }
    assert_ok(backend_open("ref", &cfg, &ref.b, &err), err);
    prepare(&f, &ref);
    prepare(&f, &cuda);
    rows r;
    make_rows(&r, 0, 64);
    run(&ref, &r);
    run(&cuda, &r);
    float *want = read_output(&f, &ref, route, 64), *got = read_output(&f, &cuda, route, 64);
    for (int i = 0; i < 64; i++)
        assert_memory_equal(want + (size_t)i * 2 * N_USED, got + (size_t)i * 2 * N_USED, N_USED * sizeof(int32_t));
    free(want);
    free(got);
    close_device(&ref);
    close_device(&cuda);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moe_route),
        cmocka_unit_test(test_moe_gated),
        cmocka_unit_test(test_moe_down),
        cmocka_unit_test(test_moe_route_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
