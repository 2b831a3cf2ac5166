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

/* ---- cases: a whole expert layer ---- */

typedef struct layer_shape {
    uint32_t n_embd, n_ff, n_ff_expert;
    tensor_type gate, down, expert_gate, expert_down;
    bool is_fused; /* gate and up of the experts in one tensor */
} layer_shape;

static int add_norm(fixture *f, int x, uint32_t width)
{
    const int o = plan_value_new(f->p, ROWS_ALL, VALUE_F32, width, false, "norm");
    add_op(f, OP_NORM, x, -1, o)->w0 = add_vector(f, width);
    return o;
}

/* The feed-forward of an expert layer. shows_sum: the experts' sum is read by others, so that the ops cannot be done
 * together. Returns the norm behind it. */
static int add_layer(fixture *f, layer_shape s, bool shows_sum, int *z)
{
    const int r = add_input(f, TYPE_F32, s.n_embd, true, 1), m = add_norm(f, r, s.n_embd);
    const int g = plan_value_new(f->p, ROWS_ALL, VALUE_F32, s.n_ff, false, "gated");
    plan_op *op = add_op(f, OP_GATED, m, -1, g);
    op->w0 = add_matrix(f, s.gate, s.n_embd, s.n_ff, 1);
    op->w1 = add_matrix(f, s.gate, s.n_embd, s.n_ff, 1);
    const int d = plan_value_new(f->p, ROWS_ALL, VALUE_F32, s.n_embd, false, "down");
    add_op(f, OP_LINEAR, g, -1, d)->w0 = add_matrix(f, s.down, s.n_ff, s.n_embd, 1);
    const int f1 = add_norm(f, d, s.n_embd);
    const int route = plan_value_new(f->p, ROWS_ALL, VALUE_F32, 2 * N_USED, false, "route");
    op = add_op(f, OP_MOE_ROUTE, r, -1, route);
    op->w0 = add_matrix(f, TYPE_F32, s.n_embd, N_EXPERTS, 1);
    op->w1 = add_vector(f, s.n_embd);
    op->scale = 4;
    op->n_experts = N_EXPERTS;
    op->n_used = N_USED;
    const int v = add_norm(f, r, s.n_embd);
    const int h = plan_value_new(f->p, ROWS_ALL, VALUE_F32, N_USED * s.n_ff_expert, false, "h");
    op = add_op(f, OP_MOE_GATED, v, route, h);
    op->w0 = add_matrix(f, s.expert_gate, s.n_embd, s.is_fused ? 2 * s.n_ff_expert : s.n_ff_expert, N_EXPERTS);
    if (!s.is_fused) op->w1 = add_matrix(f, s.expert_gate, s.n_embd, s.n_ff_expert, N_EXPERTS);
    op->n_experts = N_EXPERTS;
    op->n_used = N_USED;
    op->n_ff = (int)s.n_ff_expert;
    const int e = plan_value_new(f->p, ROWS_ALL, VALUE_F32, s.n_embd, shows_sum, "e");
    op = add_op(f, OP_MOE_DOWN, h, route, e);
    op->w0 = add_matrix(f, s.expert_down, s.n_ff_expert, s.n_embd, N_EXPERTS);
    op->n_experts = N_EXPERTS;
    op->n_used = N_USED;
    op->n_ff = (int)s.n_ff_expert;
    const int f2 = add_norm(f, e, s.n_embd);
    const int sum = plan_value_new(f->p, ROWS_ALL, VALUE_F32, s.n_embd, false, "sum");
    add_op(f, OP_ADD, f1, f2, sum)->scale = 1;
    *z = add_output(f, ROWS_ALL, VALUE_F32, s.n_embd);
    op = add_op(f, OP_NORM_ADD, sum, r, *z);
    op->w0 = add_vector(f, s.n_embd);
    op->scale = 0.7f;
    const int next = add_output(f, ROWS_ALL, VALUE_F32, s.n_embd);
    add_op(f, OP_NORM, *z, -1, next)->w0 = add_vector(f, s.n_embd);
    return next;
}

/* Done together or one by one: the same to rounding. */
static void check_joined(layer_shape s)
{
    static const int widths[] = {1, 2, 7, 20, 90};
    fixture f[2];
    facet_error err;
    device cuda[2] = {{0}};
    int values[2][2];
    for (int i = 0; i < 2; i++) {
        begin(&f[i], "expert layer, joined and not");
        f[i].tolerance = 1e-4; /* a norm of another order moves some activations to the next f16 */
        values[i][1] = add_layer(&f[i], s, i == 1, &values[i][0]);
        assert_ok(plan_finish(f[i].p, &err), err);
        if (!open_cuda(&cuda[i].b)) skip();
        prepare(&f[i], &cuda[i]);
    }
    for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++) {
        rows r;
        make_rows(&r, 0, widths[w]);
        for (int i = 0; i < 2; i++) run(&cuda[i], &r);
        for (int v = 0; v < 2; v++) {
            float *all = read_output(&f[0], &cuda[0], values[0][v], widths[w]),
                  *one = read_output(&f[1], &cuda[1], values[1][v], widths[w]);
            compare(&f[0], one, all, (size_t)widths[w] * s.n_embd, widths[w]);
            free(all);
            free(one);
        }
    }
    for (int i = 0; i < 2; i++) {
        close_device(&cuda[i]);
        end(&f[i]);
    }
}

static void test_expert_layer(void **state)
{
    (void)state;
    static const layer_shape shapes[] = {
        {512, 768, 256, TYPE_Q4_K, TYPE_Q6_K, TYPE_Q4_K, TYPE_Q8_0, true},
        {2304, 320, 352, TYPE_Q4_K, TYPE_Q8_0, TYPE_Q4_K, TYPE_Q5_0, true},
        {512, 2304, 64, TYPE_Q8_0, TYPE_Q4_K, TYPE_Q5_0, TYPE_Q4_1, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        fixture f;
        int z;
        begin(&f, "expert layer");
        f.tolerance = 2 * TOLERANCE_INT8; /* two products, one after another */
        const int next = add_layer(&f, shapes[i], false, &z);
        check(&f, i ? next : z);
        check_joined(shapes[i]);
    }
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
        cmocka_unit_test(test_moe_route),     cmocka_unit_test(test_moe_gated),    cmocka_unit_test(test_moe_down),
        cmocka_unit_test(test_moe_route_ids), cmocka_unit_test(test_expert_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
