/* moe_route.cu: OP_MOE_ROUTE, and the norm of what the experts read, when it is of the same rows. Blocks take some of
 * the experts for some rows; the block that comes last for those rows chooses, and the last of all makes the batches
 * (moe.h). A step of one row needs none. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/decode.cuh"

enum {
    WIDE_ROWS = 4, /* rows that share the reads of the router in a wide step */
    CHOICES = CUDA_MAX_EXPERTS / WARP,
};

typedef struct route_args {
    const uint8_t *w; /* [n_experts, n_in] */
    tensor_type type;
    size_t row_bytes;
    uint32_t n_in;
    const float *x, *in_scale, *expert_scale; /* the scales may be NULL */
    const int32_t *live;
    float eps, scale;
    int n_rows, n_experts, n_used, columns;
    float *out;        /* [row, 2 * n_used]: ids as int32 bits, weights */
    const float *norm; /* normed = rms(x; norm or 1), unless it is NULL */
    float *normed;
    moe_work work;
} route_args;

/* ---- logits ---- */

/* Into the L2 cache, while earlier kernels still run. */
static __device__ inline void prefetch_row(const uint8_t *row, size_t bytes)
{
    for (size_t at = (size_t)lane_id() * 128; at < bytes; at += WARP * 128)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(row + at));
}

/* u [R, n_in] = rms(x) * in_scale * scale; this block's share of the columns of `normed` too. */
template <int R> static __device__ inline void load_inputs(const route_args &a, int first, float *u, float *part)
{
    const uint32_t share = (a.n_in + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * share;
    const uint32_t end = min(begin + share, a.n_in);
#pragma unroll
    for (int r = 0; r < R; r++) {
        const int row = min(first + r, a.n_rows - 1);
        const float *x = a.x + (size_t)row * a.n_in;
        float sum = 0;
        for (uint32_t k = threadIdx.x; k < a.n_in; k += BLOCK) {
            u[r * a.n_in + k] = x[k];
            sum = __fmaf_rn(x[k], x[k], sum);
        }
        const float inverse = 1.0f / sqrtf(block_sum(sum, part) / (float)a.n_in + a.eps);
        for (uint32_t k = threadIdx.x; k < a.n_in; k += BLOCK) {
            const float y = u[r * a.n_in + k] * inverse;
            if (a.normed && k >= begin && k < end) a.normed[(size_t)row * a.n_in + k] = y * (a.norm ? a.norm[k] : 1.0f);
            u[r * a.n_in + k] = y * (a.in_scale ? a.in_scale[k] : 1.0f) * a.scale;
        }
    }
    __syncthreads();
}

/* One warp per expert. The order of a sum does not depend on R. */
template <int R> static __device__ inline void put_logits(const route_args &a, int first, const float *u)
{
    const int expert = (int)blockIdx.x * BLOCK_WARPS + warp_id();
    if (expert >= a.n_experts) return;
    const uint8_t *w = a.w + (size_t)expert * a.row_bytes;
    float sum[R] = {};
    if (a.type == TYPE_F32) {
#pragma unroll 8
        for (uint32_t k = (uint32_t)lane_id(); k < a.n_in; k += WARP) {
            const float v = ((const float *)w)[k];
#pragma unroll
            for (int r = 0; r < R; r++) sum[r] = __fmaf_rn(v, u[r * a.n_in + k], sum[r]);
        }
    } else {
        for (uint32_t k = (uint32_t)lane_id(); k < a.n_in; k += WARP) {
            const float v = weight_at(a.type, w, k);
            for (int r = 0; r < R; r++) sum[r] = __fmaf_rn(v, u[r * a.n_in + k], sum[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        const float logit = warp_sum(sum[r]);
        if (lane_id() == 0 && first + r < a.n_rows) a.work.logits[(size_t)(first + r) * a.n_experts + expert] = logit;
    }
}

/* ---- choice ---- */

typedef struct choice {
    float value;
    int id; /* INT32_MAX: none */
} choice;

static __device__ inline bool is_better(const choice &a, const choice &b)
{
    return a.value > b.value || (a.value == b.value && a.id < b.id);
}

/* The n_used largest, the lower id on ties; always valid ids, whatever the logits; a NaN
 * among them makes all weights NaN. A softmax over all experts that is
 * renormalised over the chosen ones is the softmax over those. By one warp: lane l looks at the experts l, l + 32, ..
 */
static __device__ inline void choose(const route_args &a, int row)
{
    const float *logits = a.work.logits + (size_t)row * a.n_experts;
    float *out = a.out + (size_t)row * 2 * a.n_used, value[CHOICES], total = 0, top = 0;
    uint32_t taken = 0;
    bool has_nan = false;
#pragma unroll
    for (int i = 0; i < CHOICES; i++) {
        const int e = lane_id() + i * WARP;
        value[i] = e < a.n_experts ? __ldcg(logits + e) : 0.0f;
        has_nan |= value[i] != value[i];
        if (value[i] != value[i]) value[i] = -CUDART_INF_F;
        if (e >= a.n_experts) taken |= 1u << i;
    }
    has_nan = __any_sync(0xffffffffu, has_nan);
    for (int n = 0; n < a.n_used; n++) {
        choice best = {-CUDART_INF_F, INT32_MAX};
#pragma unroll
        for (int i = 0; i < CHOICES; i++) {
            const choice next = {value[i], lane_id() + i * WARP};
            if (!(taken >> i & 1) && is_better(next, best)) best = next;
        }
        for (int step = WARP / 2; step > 0; step /= 2) {
            choice other;
            other.value = __shfl_xor_sync(0xffffffffu, best.value, step);
            other.id = __shfl_xor_sync(0xffffffffu, best.id, step);
            if (is_better(other, best)) best = other;
        }
        if (best.id % WARP == lane_id()) taken |= 1u << best.id / WARP;
        if (n == 0) top = best.value;
        const float weight = has_nan ? CUDART_NAN_F : expf(best.value - top);
        total += weight;
        if (lane_id() == 0) ((int32_t *)out)[n] = best.id, out[a.n_used + n] = weight;
    }
    __syncwarp();
    for (int n = lane_id(); n < a.n_used; n += WARP) {
        const int id = ((const int32_t *)out)[n];
        out[a.n_used + n] = out[a.n_used + n] / total * (a.expert_scale ? a.expert_scale[id] : 1.0f);
    }
}

/* ---- batches ---- */

typedef struct batch_counts {
    int32_t n[CUDA_MAX_EXPERTS], first[CUDA_MAX_EXPERTS]; /* pairs of an expert */
} batch_counts;

/* Exclusive sums over the experts, by the first warp: of pairs into s->first, of batches returned for this lane's first
 * expert. */
static __device__ inline void place_experts(const route_args &a, batch_counts *s)
{
    const int per_lane = (a.n_experts + WARP - 1) / WARP, begin = lane_id() * per_lane;
    const int end = min(begin + per_lane, a.n_experts);
    int pairs = 0, batches = 0;
    for (int e = begin; e < end; e++) pairs += s->n[e], batches += (s->n[e] + a.columns - 1) / a.columns;
    int pair = pairs, batch = batches;
    for (int step = 1; step < WARP; step *= 2) {
        const int p = __shfl_up_sync(0xffffffffu, pair, step), b = __shfl_up_sync(0xffffffffu, batch, step);
        if (lane_id() >= step) pair += p, batch += b;
    }
    if (lane_id() == WARP - 1) *a.work.n_batches = batch;
    pair -= pairs;
    batch -= batches;
    for (int e = begin; e < end; e++) {
        s->first[e] = pair;
        for (int at = 0; at < s->n[e]; at += a.columns)
            a.work.batches[batch++] = {e, pair + at, min(a.columns, s->n[e] - at), 0};
        pair += s->n[e];
    }
}

/* By the whole block. The order of an expert's pairs varies; their results do not depend on it. */
static __device__ inline void make_batches(const route_args &a, batch_counts *s)
{
    const int n_pairs = a.n_rows * a.n_used;
    for (int e = (int)threadIdx.x; e < a.n_experts; e += BLOCK) s->n[e] = 0;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n_pairs; i += BLOCK) {
        const int row = i / a.n_used;
        if (a.live[row] < 0) continue;
        atomicAdd(&s->n[__ldcg((const int32_t *)a.out + (size_t)row * 2 * a.n_used + i % a.n_used)], 1);
    }
    __syncthreads();
    if (warp_id() == 0) place_experts(a, s);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < n_pairs; i += BLOCK) {
        const int row = i / a.n_used;
        if (a.live[row] < 0) continue;
        const int e = __ldcg((const int32_t *)a.out + (size_t)row * 2 * a.n_used + i % a.n_used);
        a.work.pairs[atomicAdd(&s->first[e], 1)] = i;
    }
}

static __device__ inline bool comes_last(int32_t *counter, int n)
{
    __shared__ bool is_last;
    fence();
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(counter, 1) == n - 1;
        if (is_last) *counter = 0; /* for the next launch */
    }
    __syncthreads();
    fence();
    return is_last;
}

/* Grid: experts / BLOCK_WARPS, rows / R. */
template <int R> static __global__ void __launch_bounds__(BLOCK) route_kernel(const route_args a)
{
    extern __shared__ float u[];
    __shared__ float part[BLOCK_WARPS];
    __shared__ batch_counts counts;
    const int first = (int)blockIdx.y * R, expert = (int)blockIdx.x * BLOCK_WARPS + warp_id();
    release_dependents();
    if (expert < a.n_experts) prefetch_row(a.w + (size_t)expert * a.row_bytes, a.row_bytes);
    wait_for_predecessors();
    load_inputs<R>(a, first, u, part);
    put_logits<R>(a, first, u);
    if (!comes_last(&a.work.counters[1 + blockIdx.y], (int)gridDim.x)) return;
    if (warp_id() < R && first + warp_id() < a.n_rows && a.live[first + warp_id()] >= 0) choose(a, first + warp_id());
    if (a.n_rows == 1 || !comes_last(&a.work.counters[0], (int)gridDim.y)) return;
    make_batches(a, &counts);
}

facet_status check_moe_route(const compiled *c, const plan_op *op, facet_error *err)
{
    uint32_t n_in = width_of(c, op->i0), n = (uint32_t)op->n_experts;
    FACET_TRY(op_expect(c, op, op->n_experts > 0 && op->n_experts <= CUDA_MAX_EXPERTS, "at most 512 experts", err));
    FACET_TRY(op_expect(c, op, op->n_used > 0 && op->n_used <= op->n_experts, "n_used is at most n_experts", err));
    FACET_TRY(op_expect(c, op, n_in * WIDE_ROWS * sizeof(float) <= 80 << 10, "at most 5120 inputs", err));
    FACET_TRY(op_expect(c, op, width_of(c, op->o) == 2u * (uint32_t)op->n_used && op_same_rows(c, op->i0, op->o),
                        "the output holds n_used ids and weights", err));
    FACET_TRY(op_expect(c, op, op_has_matrix(c, op->w0, n_in, n, 1), "the router is [n_in, n_experts]", err));
    FACET_TRY(op_expect(c, op, op_is_raw(c, op->w0), "the router lies as in the file (F32)", err));
    return op_expect(c, op, op_has_vector(c, op->w1, n_in) && op_has_vector(c, op->w2, n),
                     "scales per input and per expert", err);
}

facet_status cuda_moe_open(cuda_backend *b, facet_error *err)
{
    return cuda_check(
        b, cudaFuncSetAttribute(route_kernel<WIDE_ROWS>, cudaFuncAttributeMaxDynamicSharedMemorySize, 80 << 10),
        "kernels", err);
}

void launch_moe_route(const cuda_pass *p, const plan_op *op)
{
    const rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    const dev_weight *w = weight_of(p->b, op->w0);
    const int block = p->c->moe_block_of[op - p->c->p->ops];
    route_args a = {};
    a.w = w->data;
    a.type = w->type;
    a.row_bytes = w->row_bytes;
    a.n_in = w->n_in;
    a.x = x.data;
    a.in_scale = vector_of(p->b, op->w1);
    a.expert_scale = vector_of(p->b, op->w2);
    a.live = x.live;
    a.eps = op->eps;
    a.scale = op->scale;
    a.n_rows = x.n;
    a.n_experts = op->n_experts;
    a.n_used = op->n_used;
    a.columns = moe_columns(&p->c->moe, x.n);
    a.out = out.data;
    a.work = p->c->moe;
    if (block >= 0) {
        const plan_op *norm = &p->c->p->ops[p->c->moe_blocks[block].expert_norm];
        a.norm = vector_of(p->b, norm->w0);
        a.normed = view_of(p, norm->o).data;
    }
    const unsigned blocks = n_blocks((size_t)op->n_experts, BLOCK_WARPS);
    const size_t shared = a.n_in * sizeof(float);
    if (x.n <= 16)
        launch_overlapped(p->b, route_kernel<1>, dim3(blocks, (unsigned)x.n), BLOCK, shared, a);
    else
        launch_overlapped(p->b, route_kernel<WIDE_ROWS>, dim3(blocks, n_blocks((size_t)x.n, WIDE_ROWS)), BLOCK,
                          shared * WIDE_ROWS, a);
}
