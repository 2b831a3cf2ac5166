/* moe_route.cu: OP_MOE_ROUTE. One block per row. */
#include "compute/cuda/decode.cuh"
#include "compute/cuda/ops.cuh"

typedef struct route_args {
    const uint8_t *w; /* [n_experts, n_in] */
    tensor_type type;
    size_t row_bytes;
    uint32_t n_in;
    const float *x, *in_scale, *expert_scale; /* the scales may be NULL */
    const int32_t *live;
    float eps, scale;
    int n_experts, n_used;
    float *out; /* [row, 2 * n_used]: ids as int32 bits, weights */
} route_args;

/* One warp per expert: logits = w0 (rms(x) * w1 * scale). */
static __device__ void route_logits(const route_args &a, const float *x, float inverse, float *logits)
{
    for (int e = warp_id(); e < a.n_experts; e += BLOCK_WARPS) {
        const uint8_t *w = a.w + (size_t)e * a.row_bytes;
        float sum = 0;
        for (uint32_t k = (uint32_t)lane_id(); k < a.n_in; k += WARP) {
            float u = x[k] * inverse * (a.in_scale ? a.in_scale[k] : 1.0f) * a.scale;
            sum = __fmaf_rn(weight_at(a.type, w, k), u, sum);
        }
        sum = warp_sum(sum);
        if (lane_id() == 0) logits[e] = sum;
    }
}

/* The n_used largest, the lower id on ties; always valid ids, whatever the logits. A softmax over all experts that is
 * renormalised over the chosen ones is the softmax over those. */
static __device__ void route_choose(const route_args &a, float *logits, float *out)
{
    int32_t *ids = (int32_t *)out;
    float *weights = out + a.n_used, total = 0, top = 0;
    uint32_t taken[CUDA_MAX_EXPERTS / 32] = {};
    for (int i = 0; i < a.n_used; i++) {
        int best = -1;
        for (int e = 0; e < a.n_experts; e++)
            if (!(taken[e / 32] >> (e % 32) & 1) && (best < 0 || logits[e] > logits[best])) best = e;
        taken[best / 32] |= 1u << (best % 32);
        if (i == 0) top = logits[best];
        ids[i] = best;
        weights[i] = expf(logits[best] - top);
        total += weights[i];
    }
    for (int i = 0; i < a.n_used; i++)
        weights[i] = weights[i] / total * (a.expert_scale ? a.expert_scale[ids[i]] : 1.0f);
}

static __global__ void route_kernel(route_args a)
{
    __shared__ float part[BLOCK_WARPS], logits[CUDA_MAX_EXPERTS];
    int row = (int)blockIdx.x;
    if (a.live[row] < 0) return;
    const float *x = a.x + (size_t)row * a.n_in;
    float inverse = block_inverse_rms(x, a.n_in, a.eps, part);
    route_logits(a, x, inverse, logits);
    __syncthreads();
    if (threadIdx.x == 0) route_choose(a, logits, a.out + (size_t)row * 2 * a.n_used);
}

facet_status check_moe_route(const compiled *c, const plan_op *op, facet_error *err)
{
    uint32_t n_in = width_of(c, op->i0), n = (uint32_t)op->n_experts;
    FACET_TRY(op_expect(c, op, op->n_experts > 0 && op->n_experts <= CUDA_MAX_EXPERTS, "at most 512 experts", err));
    FACET_TRY(op_expect(c, op, op->n_used > 0 && op->n_used <= op->n_experts, "n_used is at most n_experts", err));
    FACET_TRY(op_expect(c, op, width_of(c, op->o) == 2u * (uint32_t)op->n_used && op_same_rows(c, op->i0, op->o),
                        "the output holds n_used ids and weights", err));
    FACET_TRY(op_expect(c, op, op_has_matrix(c, op->w0, n_in, n, 1), "the router is [n_in, n_experts]", err));
    FACET_TRY(op_expect(c, op, op_is_raw(c, op->w0), "the router lies as in the file (F32)", err));
    return op_expect(c, op, op_has_vector(c, op->w1, n_in) && op_has_vector(c, op->w2, n),
                     "scales per input and per expert", err);
}

void launch_moe_route(const cuda_pass *p, const plan_op *op)
{
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    const dev_weight *w = weight_of(p->b, op->w0);
    route_args a = {w->data,
                    w->type,
                    w->row_bytes,
                    w->n_in,
                    x.data,
                    vector_of(p->b, op->w1),
                    vector_of(p->b, op->w2),
                    x.live,
                    op->eps,
                    op->scale,
                    op->n_experts,
                    op->n_used,
                    out.data};
    route_kernel<<<(unsigned)x.n, BLOCK, 0, p->b->stream>>>(a);
}
