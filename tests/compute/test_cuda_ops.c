/* Row ops and products on a CUDA device against the scalar backend, for every weight type. */
#include "compute/cuda_testing.h"

/* ---- cases: rows ---- */

static void embed_case(tensor_type type, const type_info *info)
{
    for (int on_device = 0; on_device < 2; on_device++) {
        fixture f;
        begin(&f, info->name);
        int x = add_input(&f, type, 512, on_device, 3.5), o = add_output(&f, ROWS_ALL, VALUE_F32, 512);
        add_op(&f, OP_CAPTURE, x, -1, o);
        check(&f, o);
    }
}

static void test_embed_and_capture(void **state)
{
    (void)state;
    for_each_type(embed_case);
}

static void norm_case(uint32_t width, uint32_t group, bool has_weight, bool adds)
{
    fixture f;
    begin(&f, adds ? "norm_add" : "norm");
    int x = add_input(&f, TYPE_F32, width, true, 2), y = adds ? add_input(&f, TYPE_F32, width, false, 1) : -1;
    int o = add_output(&f, ROWS_ALL, VALUE_F32, width);
    plan_op *op = add_op(&f, adds ? OP_NORM_ADD : OP_NORM, x, y, o);
    op->group = group;
    if (adds) op->scale = 0.4f;
    if (has_weight) op->w0 = add_vector(&f, group ? group : width);
    check(&f, o);
}

static void test_norm(void **state)
{
    (void)state;
    norm_case(1536, 0, true, false);
    norm_case(96, 0, false, false);
    norm_case(1024, 256, true, false);
    norm_case(1024, 128, false, false);
    norm_case(640, 0, true, true);
    norm_case(1023, 341, true, false);
    norm_case(5376, 0, false, false);
}

/* One launch does both; either output is checked. */
static void joined_norms_case(uint32_t width, bool checks_second)
{
    fixture f;
    begin(&f, "norm_add, then norm");
    int x = add_input(&f, TYPE_F32, width, true, 2), y = add_input(&f, TYPE_F32, width, false, 1);
    int o = add_output(&f, ROWS_ALL, VALUE_F32, width), then = add_output(&f, ROWS_ALL, VALUE_F32, width);
    plan_op *op = add_op(&f, OP_NORM_ADD, x, y, o);
    op->scale = 0.4f;
    op->w0 = add_vector(&f, width);
    add_op(&f, OP_NORM, o, -1, then)->w0 = add_vector(&f, width);
    check(&f, checks_second ? then : o);
}

static void test_joined_norms(void **state)
{
    (void)state;
    static const uint32_t row_widths[] = {640, 1023, 2816, 5376, 12288, 17000};
    for (size_t i = 0; i < sizeof row_widths / sizeof row_widths[0]; i++) {
        joined_norms_case(row_widths[i], false);
        joined_norms_case(row_widths[i], true);
    }
}

static void test_add(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "add");
    int x = add_input(&f, TYPE_F32, 320, true, 1), y = add_input(&f, TYPE_F32, 320, false, 1);
    int o = add_output(&f, ROWS_ALL, VALUE_F32, 320);
    add_op(&f, OP_ADD, x, y, o)->scale = 0.70710678f;
    check(&f, o);
}

static void test_gather(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "gather");
    int x = add_input(&f, TYPE_F32, 320, true, 1), o = add_output(&f, ROWS_OUT, VALUE_F32, 320);
    add_op(&f, OP_GATHER, x, -1, o);
    check(&f, o);
}

/* ---- cases: products ---- */

static void linear_case(tensor_type type, const type_info *info)
{
    static const uint32_t shapes[][2] = {{256, 7}, {768, 100}, {2048, 33}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        fixture f;
        begin(&f, info->name);
        f.tolerance = product_tolerance(type);
        uint32_t n_in = shapes[i][0], n_out = shapes[i][1];
        int x = add_input(&f, TYPE_F32, n_in, true, 1), o = add_output(&f, ROWS_ALL, VALUE_F32, n_out);
        plan_op *op = add_op(&f, OP_LINEAR, x, -1, o);
        op->w0 = add_matrix(&f, type, n_in, n_out, 1);
        op->scale = 0.75f;
        check(&f, o);
    }
}

static void test_linear(void **state)
{
    (void)state;
    for_each_type(linear_case);
}

static void test_linear_gelu_mul(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "linear, gelu_mul");
    f.tolerance = product_tolerance(TYPE_BF16);
    int x = add_input(&f, TYPE_F32, 512, true, 1), mul = add_input(&f, TYPE_F32, 256, false, 1);
    int o = add_output(&f, ROWS_ALL, VALUE_F32, 64);
    plan_op *op = add_op(&f, OP_LINEAR, x, mul, o);
    op->w0 = add_matrix(&f, TYPE_BF16, 512, 64, 1);
    op->epilogue = EPI_GELU_MUL;
    op->column = 128;
    check(&f, o);
}

static void logits_case(bool is_argmax)
{
    fixture f;
    begin(&f, is_argmax ? "argmax" : "logits");
    int x = add_input(&f, TYPE_F32, 256, true, 1);
    int h = plan_value_new(f.p, ROWS_OUT, VALUE_F32, 256, false, "h");
    int logits = plan_value_new(f.p, ROWS_OUT, VALUE_F32, 1000, true, "logits");
    int best = plan_value_new(f.p, ROWS_OUT, VALUE_I32, 1, true, "best");
    add_op(&f, OP_GATHER, x, -1, h);
    plan_op *op = add_op(&f, OP_LINEAR, h, -1, logits);
    op->w0 = add_matrix(&f, TYPE_F32, 256, 1000, 1);
    op->scale = 20;
    op->epilogue = EPI_LOGITS;
    op->softcap = 30;
    add_op(&f, OP_ARGMAX, logits, -1, best);
    f.p->suppress = mem_alloc(2 * sizeof *f.p->suppress);
    assert_non_null(f.p->suppress);
    f.p->suppress[0] = 7;
    f.p->suppress[1] = 999;
    f.p->n_suppress = 2;
    check(&f, is_argmax ? best : logits);
}

static void test_logits_and_argmax(void **state)
{
    (void)state;
    logits_case(false);
    logits_case(true);
}

/* Rows with a tie, a NaN, +inf, -inf, and only -inf. */
static void test_argmax_edges(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "argmax of edge rows");
    int x = add_input(&f, TYPE_F32, 600, true, 1), o = add_output(&f, ROWS_ALL, VALUE_I32, 1);
    float *table = (float *)(uintptr_t)f.weights[0].data;
    table[0 * 600 + 301] = table[0 * 600 + 45] = 100;
    table[1 * 600 + 599] = NAN;
    table[2 * 600 + 0] = INFINITY;
    table[3 * 600 + 3] = -INFINITY;
    for (int i = 0; i < 600; i++) table[4 * 600 + i] = -INFINITY;
    add_op(&f, OP_ARGMAX, x, -1, o);
    check(&f, o);
}

static void gated_case(tensor_type type, const type_info *info)
{
    for (op_activation act = ACT_GELU; act <= ACT_SILU; act++) {
        fixture f;
        begin(&f, info->name);
        f.tolerance = product_tolerance(type) * 1.5; /* two products */
        int x = add_input(&f, TYPE_F32, 512, true, 1), o = add_output(&f, ROWS_ALL, VALUE_F32, 96);
        plan_op *op = add_op(&f, OP_GATED, x, -1, o);
        op->w0 = add_matrix(&f, type, 512, 96, 1);
        op->w1 = add_matrix(&f, type, 512, 96, 1);
        op->activation = act;
        op->scale = 1.5f;
        op->scale2 = 0.5f;
        check(&f, o);
    }
}

static void test_gated(void **state)
{
    (void)state;
    for_each_type(gated_case);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed_and_capture),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_joined_norms),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_gelu_mul),
        cmocka_unit_test(test_logits_and_argmax),
        cmocka_unit_test(test_argmax_edges),
        cmocka_unit_test(test_gated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
