/* gated.cu: OP_GATED. Tile records of one type: one launch. Else two products: o = scale2 * w1 x, then o = act(scale *
 * w0 x) * o; the second one reads each element of o just before it writes it. */
#include "compute/cuda/product.cuh"

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
    const dev_weight *gate = weight_of(p->b, op->w0), *up = weight_of(p->b, op->w1);
    if (product_fits(gate) && product_fits(up) && gate->type == up->type) {
        product q = {};
        q.x = x;
        q.w[0] = gate;
        q.w[1] = up;
        q.out[0] = out.data;
        q.scale[0] = op->scale;
        q.scale[1] = op->scale2;
        q.n_parts = 2;
        q.is_gated = true;
        q.epilogue.activation = op->activation;
        product_launch(p, &q);
        return;
    }
    linear_epilogue none = {EPI_NONE, ACT_GELU, NULL, 0, 0, 0};
    linear_epilogue mul = {EPI_GELU_MUL, op->activation, out.data, out.width, 0, 0};
    linear_launch(p, up, &x, &out, op->scale2, &none);
    linear_launch(p, gate, &x, &out, op->scale, &mul);
}
