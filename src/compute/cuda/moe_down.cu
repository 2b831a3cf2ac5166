/* moe_down.cu: OP_MOE_DOWN. Experts in tile records go to moe_product.cu, in a block of ops together with the product
 * of the dense branch, and moe_leave.cu adds them; for raw ones one warp takes an output of a row. The used experts are
 * added in routing order. */
#include "compute/cuda/decode.cuh"
#include "compute/cuda/moe_ops.cuh"

typedef struct moe_down_args {
    const uint8_t *w;
    size_t row_bytes, expert_bytes;
    uint32_t n_ff, n_out;
    int n_used;
    const float *h, *route; /* h [row, n_used, n_ff] */
    const int32_t *live;
    float *out;
} moe_down_args;

/* Grid: outputs / BLOCK_WARPS, rows. */
template <int T> static __global__ void moe_down_kernel(moe_down_args a)
{
    uint32_t n = blockIdx.x * BLOCK_WARPS + (uint32_t)warp_id();
    int row = (int)blockIdx.y;
    if (n >= a.n_out || a.live[row] < 0) return;
    const float *route = a.route + (size_t)row * 2 * a.n_used;
    float sum = 0;
    for (int j = 0; j < a.n_used; j++) {
        const uint8_t *w = a.w + (size_t)((const int32_t *)route)[j] * a.expert_bytes + n * a.row_bytes;
        const float *h = a.h + ((size_t)row * a.n_used + j) * a.n_ff;
        sum = __fmaf_rn(route[a.n_used + j], warp_dot<T>(w, h, a.n_ff), sum);
    }
    if (lane_id() == 0) a.out[(size_t)row * a.n_out + n] = sum;
}

facet_status check_moe_down(const compiled *c, const plan_op *op, facet_error *err)
{
    uint32_t n_used = (uint32_t)op->n_used, n_ff = (uint32_t)op->n_ff;
    FACET_TRY(op_expect(c, op, op_has_matrix(c, op->w0, n_ff, width_of(c, op->o), (uint32_t)op->n_experts),
                        "a matrix [n_ff, n_out] per expert", err));
    FACET_TRY(op_expect(c, op, op_is_raw(c, op->w0) || op->n_experts > 1, "two or more experts", err));
    FACET_TRY(op_expect(c, op, width_of(c, op->i0) == n_used * n_ff && op_same_rows(c, op->i0, op->o),
                        "the input is n_used * n_ff wide", err));
    return op_expect(c, op, width_of(c, op->i1) == 2 * n_used && op_same_rows(c, op->i1, op->o),
                     "the routing has n_used ids and weights", err);
}

/* The product of the dense branch, along with the experts or on its own. */
static void add_dense(const cuda_pass *p, const plan_op *op, moe_args *a)
{
    const dev_weight *w = weight_of(p->b, op->w0);
    if (a->n_rows > MOE_DENSE_ROWS || !moe_product_fits(w)) {
        const rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
        const linear_epilogue none = {EPI_NONE, ACT_GELU, NULL, 0, 0, 0};
        linear_launch(p, w, &x, &out, op->scale, &none);
        return;
    }
    moe_part *d = &a->parts[MOE_DENSE];
    *d = moe_part_of(w, NULL, (int)w->n_out);
    d->scale[0] *= op->scale;
    d->x = view_of(p, op->i0).data;
    d->out = view_of(p, op->o).data;
}

static void launch_tiles(const cuda_pass *p, const plan_op *op)
{
    const rows_view h = view_of(p, op->i0), route = view_of(p, op->i1), out = view_of(p, op->o);
    const dev_weight *w = weight_of(p->b, op->w0);
    const moe_block *block = moe_block_of(p, op);
    moe_args a = {};
    moe_part *e = &a.parts[MOE_EXPERTS];
    *e = moe_part_of(w, NULL, (int)w->n_out);
    e->x = h.data;
    e->out = p->c->moe.sums;
    a.n_rows = h.n;
    a.n_used = op->n_used;
    a.n_experts = op->n_experts;
    a.live = h.live;
    a.route = (const int32_t *)route.data;
    if (block) add_dense(p, &p->c->p->ops[block->dense_down], &a);
    moe_launch(p, &a);
    if (block)
        moe_leave_launch(p, block);
    else
        moe_add_launch(p, &route, &out, op->n_used);
}

void launch_moe_down(const cuda_pass *p, const plan_op *op)
{
    if (!op_is_raw(p->c, op->w0)) {
        launch_tiles(p, op);
        return;
    }
    rows_view h = view_of(p, op->i0), route = view_of(p, op->i1), out = view_of(p, op->o);
    const dev_weight *w = weight_of(p->b, op->w0);
    moe_down_args a = {w->data,    w->row_bytes, w->expert_bytes, w->n_in, w->n_out,
                       op->n_used, h.data,       route.data,      h.live,  out.data};
    dim3 grid(n_blocks(w->n_out, BLOCK_WARPS), (unsigned)out.n);
    switch (w->type) {
#define MOE_DOWN_CASE(T, LEN, BYTES, DECODE)                                                                           \
    case T: moe_down_kernel<T><<<grid, BLOCK, 0, p->b->stream>>>(a); break;
        DEVICE_TYPES(MOE_DOWN_CASE)
#undef MOE_DOWN_CASE
    default: break;
    }
}
