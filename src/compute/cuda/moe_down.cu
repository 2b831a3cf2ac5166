/* moe_down.cu: OP_MOE_DOWN. One warp per output and row; the used experts are added in routing order. */
#include "compute/cuda/decode.cuh"
#include "compute/cuda/ops.cuh"

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
    FACET_TRY(op_expect(c, op, op_is_raw(c, op->w0), "two or more experts", err));
    FACET_TRY(op_expect(c, op, width_of(c, op->i0) == n_used * n_ff && op_same_rows(c, op->i0, op->o),
                        "the input is n_used * n_ff wide", err));
    return op_expect(c, op, width_of(c, op->i1) == 2 * n_used && op_same_rows(c, op->i1, op->o),
                     "the routing has n_used ids and weights", err);
}

void launch_moe_down(const cuda_pass *p, const plan_op *op)
{
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
