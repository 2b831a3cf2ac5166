/* moe_gated.cu: OP_MOE_GATED. Experts in tile records go to moe_product.cu, in a block of ops together with the gated
 * product of the dense branch; for raw ones one warp takes an output of a used expert and a row. */
#include "compute/cuda/decode.cuh"
#include "compute/cuda/moe_ops.cuh"

typedef struct moe_gated_args {
    const uint8_t *gate, *up; /* row 0 of expert 0 */
    size_t row_bytes, expert_bytes;
    uint32_t n_in;
    int n_ff, n_used;
    const float *x, *route, *expert_scale;
    const int32_t *live;
    op_activation activation;
    float *out; /* [row, n_used, n_ff] */
} moe_gated_args;

/* Grid: n_ff / BLOCK_WARPS, n_used, rows. */
template <int T> static __global__ void moe_gated_kernel(moe_gated_args a)
{
    int n = (int)blockIdx.x * BLOCK_WARPS + warp_id(), used = (int)blockIdx.y, row = (int)blockIdx.z;
    if (n >= a.n_ff || a.live[row] < 0) return;
    int expert = ((const int32_t *)a.route)[(size_t)row * 2 * a.n_used + used];
    size_t at = (size_t)expert * a.expert_bytes + (size_t)n * a.row_bytes;
    const float *x = a.x + (size_t)row * a.n_in;
    float scale = a.expert_scale ? a.expert_scale[expert] : 1.0f;
    float gate = scale * warp_dot<T>(a.gate + at, x, a.n_in), up = scale * warp_dot<T>(a.up + at, x, a.n_in);
    if (lane_id() == 0) a.out[((size_t)row * a.n_used + used) * a.n_ff + n] = activate(a.activation, gate) * up;
}

facet_status check_moe_gated(const compiled *c, const plan_op *op, facet_error *err)
{
    uint32_t n_in = width_of(c, op->i0), n_ff = (uint32_t)op->n_ff, n_experts = (uint32_t)op->n_experts;
    bool fused = op->w1 < 0, fits = op_has_matrix(c, op->w0, n_in, fused ? 2 * n_ff : n_ff, n_experts);
    if (!fused)
        fits = fits && op_has_matrix(c, op->w1, n_in, n_ff, n_experts) &&
               weight_of(c->b, op->w0)->type == weight_of(c->b, op->w1)->type;
    FACET_TRY(op_expect(c, op, fits, "gate and up of every expert, in one type", err));
    FACET_TRY(op_expect(c, op, op->w1 < 0 || op_is_raw(c, op->w0) == op_is_raw(c, op->w1), "gate and up alike", err));
    FACET_TRY(op_expect(c, op, op_is_raw(c, op->w0) || n_experts > 1, "two or more experts", err));
    FACET_TRY(op_expect(c, op, width_of(c, op->o) == (uint32_t)op->n_used * n_ff && op_same_rows(c, op->i0, op->o),
                        "the output is n_used * n_ff wide", err));
    FACET_TRY(op_expect(c, op, width_of(c, op->i1) == 2u * (uint32_t)op->n_used && op_same_rows(c, op->i1, op->o),
                        "the routing has n_used ids and weights", err));
    return op_expect(c, op, op_has_vector(c, op->w2, n_experts), "one scale per expert", err);
}

/* The gated product of the dense branch, along with the experts or on its own. */
static void add_dense(const cuda_pass *p, const plan_op *op, moe_args *a)
{
    const dev_weight *gate = weight_of(p->b, op->w0), *up = weight_of(p->b, op->w1);
    const bool joins = a->n_rows <= MOE_DENSE_ROWS && moe_product_fits(gate) && moe_product_fits(up) &&
                       gate->type == up->type && op->activation == a->activation;
    if (!joins) {
        launch_gated(p, op);
        return;
    }
    moe_part *d = &a->parts[MOE_DENSE];
    *d = moe_part_of(gate, up, (int)gate->n_out);
    d->scale[0] *= op->scale;
    d->scale[1] *= op->scale2;
    d->x = view_of(p, op->i0).data;
    d->out = view_of(p, op->o).data;
}

static void launch_tiles(const cuda_pass *p, const plan_op *op)
{
    const rows_view x = view_of(p, op->i0), route = view_of(p, op->i1), out = view_of(p, op->o);
    const dev_weight *w = weight_of(p->b, op->w0);
    const moe_block *block = moe_block_of(p, op);
    moe_args a = {};
    moe_part *e = &a.parts[MOE_EXPERTS];
    *e = moe_part_of(w, op->w1 < 0 ? w : weight_of(p->b, op->w1), op->n_ff);
    e->expert_scale = vector_of(p->b, op->w2);
    e->x = x.data;
    e->pairs_per_row = op->n_used;
    e->out = out.data;
    a.is_gated = true;
    a.activation = op->activation;
    a.n_rows = x.n;
    a.n_used = op->n_used;
    a.n_experts = op->n_experts;
    a.live = x.live;
    a.route = (const int32_t *)route.data;
    if (block) add_dense(p, &p->c->p->ops[block->dense_gated], &a);
    moe_launch(p, &a);
}

void launch_moe_gated(const cuda_pass *p, const plan_op *op)
{
    if (!op_is_raw(p->c, op->w0)) {
        launch_tiles(p, op);
        return;
    }
    rows_view x = view_of(p, op->i0), route = view_of(p, op->i1), out = view_of(p, op->o);
    const dev_weight *w = weight_of(p->b, op->w0);
    const uint8_t *up = op->w1 < 0 ? w->data + (size_t)op->n_ff * w->row_bytes : weight_of(p->b, op->w1)->data;
    moe_gated_args a = {w->data,    up,     w->row_bytes, w->expert_bytes,         w->n_in, op->n_ff,
                        op->n_used, x.data, route.data,   vector_of(p->b, op->w2), x.live,  op->activation,
                        out.data};
    dim3 grid(n_blocks((size_t)op->n_ff, BLOCK_WARPS), (unsigned)op->n_used, (unsigned)x.n);
    switch (w->type) {
#define MOE_GATED_CASE(T, LEN, BYTES, DECODE)                                                                          \
    case T: moe_gated_kernel<T><<<grid, BLOCK, 0, p->b->stream>>>(a); break;
        DEVICE_TYPES(MOE_GATED_CASE)
#undef MOE_GATED_CASE
    default: break;
    }
}
