/* gated.cu: OP_GATED as two products: o = scale2 * w1 x, then o = act(scale * w0 x) * o. The second one reads each
 * element of o just before it writes it. */
#include "compute/cuda/ops.cuh"

facet_status check_gated(const compiled *c, const plan_op *op, facet_error *err)
{
    uint32_t n_in = width_of(c, op->i0), n_out = width_of(c, op->o);
    FACET_TRY(op_expect(c, op, op_has_matrix(c, op->w0, n_in, n_out, 1) && op_has_matrix(c, op->w1, n_in, n_out, 1),
                        "both matrices fit input and output", err));
    return op_expect(c, op, op_same_rows(c, op->i0, op->o), "input and output have the same rows", err);
}

void launch_gated(const cuda_pass *p, const plan_op *op)
{
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    linear_epilogue none = {EPI_NONE, ACT_GELU, NULL, 0, 0, 0};
    linear_epilogue gate = {EPI_GELU_MUL, op->activation, out.data, out.width, 0, 0};
    linear_launch(weight_of(p->b, op->w1), &x, &out, op->scale2, &none, p->b->stream);
    linear_launch(weight_of(p->b, op->w0), &x, &out, op->scale, &gate, p->b->stream);
}
