/* What ops must read and multiply, against figures worked out by hand. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "compute/plan_cost.h"

/* h = W x over wanted rows, gated, experts, attention over f16 pages of 2 heads of 64 */
static weight weights[] = {
    {.name = "w", .type = TYPE_F32, .ne = {32, 64, 1}, .bytes = 32 * 64 * 4, .is_matrix = true},
    {.name = "e", .type = TYPE_F32, .ne = {32, 64, 8}, .bytes = 8 * 32 * 64 * 4, .is_matrix = true},
};
static kv_layer_desc layer = {.group = 0, .n_kv_heads = 2, .head_dim = 64, .k_type = KV_F16, .v_type = KV_F16};
static const kv_desc kv = {.n_groups = 1, .n_layers = 1, .layers = &layer};

static plan *make_plan(void)
{
    plan *p;
    facet_error err;
    assert_int_equal(plan_new("t", &p, &err), FACET_OK);
    const int all = plan_value_new(p, ROWS_ALL, VALUE_F32, 64, false, "all"),
              out = plan_value_new(p, ROWS_OUT, VALUE_F32, 64, false, "out");
    plan_op *op = plan_add(p, OP_LINEAR, 0);
    op->i0 = all, op->o = out, op->w0 = 0;
    op = plan_add(p, OP_GATED, 0);
    op->i0 = all, op->o = all, op->w0 = op->w1 = 0;
    op = plan_add(p, OP_MOE_GATED, 0);
    op->i0 = all, op->o = all, op->w0 = 1, op->n_experts = 8, op->n_used = 2;
    op = plan_add(p, OP_ATTN, 0);
    op->i0 = all, op->o = all, op->n_heads = 4, op->head_dim = 64, op->kv_layer = 0;
    op = plan_add(p, OP_ATTN, 0);
    op->i0 = all, op->o = all, op->n_heads = 4, op->head_dim = 64, op->kv_layer = 0, op->window = 10;
    op = plan_add(p, OP_CENTROIDS, -1);
    op->i0 = op->i1 = op->o = all, op->w0 = 0, op->n_experts = 16, op->n_used = 3, op->group = 4;
    return p;
}

static void expect(const plan *p, int op, int n_rows, int n_out, int32_t depth, double bytes, double ops)
{
    const op_cost c = plan_op_cost(p, weights, &kv, &p->ops[op], n_rows, n_out, depth);
    assert_true(fabs(c.bytes - bytes) <= 1e-6 * bytes);
    assert_true(fabs(c.ops - ops) <= 1e-6 * ops);
}

static void test_costs(void **state)
{
    (void)state;
    plan *p = make_plan();
    expect(p, 0, 8, 3, 0, 8192, 2.0 * 3 * 32 * 64);
    expect(p, 0, 8, 0, 0, 0, 0); /* nobody wants a row: the weights are not read */
    expect(p, 1, 8, 3, 0, 2 * 8192, 2 * 2.0 * 8 * 32 * 64);
    expect(p, 2, 1, 1, 0, 2 * 8192, 2.0 * 2 * 32 * 64);                         /* 2 of 8 experts */
    expect(p, 2, 2, 1, 0, 8 * 8192 * (1 - 0.75 * 0.75), 2 * 2.0 * 2 * 32 * 64); /* 3.5 of 8 */
    expect(p, 3, 1, 1, 100, 101 * 512, 4.0 * 101 * 4 * 64); /* 2 heads * 64 * 2 bytes * 2 = 512 bytes a key */
    expect(p, 4, 1, 1, 100, 11 * 512, 4.0 * 10 * 4 * 64);
    expect(p, 5, 2, 1, 0, 2 * 12 * 128, 2.0 * 2 * 12 * 32); /* 12 rows of 32 for each of two */
    const op_cost all = plan_cost(p, weights, &kv, 1, 1, 0);
    assert_true(fabs(all.bytes - (8192 + 2 * 8192 + 2 * 8192 + 512 + 512 + 12 * 128)) < 1e-3);
    plan_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_costs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
