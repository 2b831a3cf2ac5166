/* moe_route.cu: OP_MOE_ROUTE, and the norm of what the experts read, when it is of the same rows. Blocks take some of
 * the experts for some rows; the block that comes last for those rows chooses, and the last of all makes the batches
 * (moe.h). A step of one row needs none. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/decode.cuh"

enum {
    WIDE_ROWS = 4, /* rows that share the reads of the router in a wide step */
    CHOICES = CUDA_MAX_EXPERTS / WARP,
    MAX_IN = 5120,
    ROW_QUADS = MAX_IN / (4 * BLOCK),
    EXPERT_QUADS = 24, /* a lane's share of a router row, when that is short: kept in registers */
};

typedef struct route_args {
    const uint8_t *w; /* [n_experts, n_in] */
    tensor_type type;
    size_t row_bytes;
    uint32_t n_in;
    const float *x, *in_scale, *expert_scale; /* the scales may be NULL */
    const int32_t *live;
    float eps, scale;
    bool is_short; /* the router is F32 and its rows fit EXPERT_QUADS */
    int n_rows, n_experts, n_used, columns;
    float *out;        /* [row, 2 * n_used]: ids as int32 bits, weights */
    const float *norm; /* normed = rms(x; norm or 1), unless it is NULL */
    float *normed;
    moe_work work;
} route_args;

/* ---- logits ---- */

/* A block's part of the work that does not depend on its rows: asked for before earlier kernels have ended. */
typedef struct route_weights {
    float4 in_scale[ROW_QUADS], norm[ROW_QUADS]; /* of this thread's quads of a row */
    float4 router[EXPERT_QUADS];                 /* of this lane's quads of the warp's expert */
} route_weights;

static __device__ inline float4 quad_or(const float *x, uint32_t k, uint32_t n, float fill)
{
    return x && 4 * k < n ? ((const float4 *)x)[k] : make_float4(fill, fill, fill, fill);
}

static __device__ inline void load_weights(const route_args &a, int expert, route_weights *w)
{
#pragma unroll
    for (int i = 0; i < ROW_QUADS; i++) {
        w->in_scale[i] = quad_or(a.in_scale, threadIdx.x + i * BLOCK, a.n_in, 1);
        w->norm[i] = quad_or(a.normed ? a.norm : NULL, threadIdx.x + i * BLOCK, a.n_in, 1);
    }
    if (!a.is_short) return;
    const float *row = (const float *)(a.w + (size_t)min(expert, a.n_experts - 1) * a.row_bytes);
#pragma unroll
    for (int i = 0; i < EXPERT_QUADS; i++) w->router[i] = quad_or(row, (uint32_t)(lane_id() + i * WARP), a.n_in, 0);
}

static __device__ inline float4 times(const float4 &x, float by, const float4 &w)
{
    return make_float4(x.x * by * w.x, x.y * by * w.y, x.z * by * w.z, x.w * by * w.w);
}

static __device__ inline float add_products(float sum, const float4 &a, const float4 &b)
{
    sum = __fmaf_rn(a.x, b.x, sum);
    sum = __fmaf_rn(a.y, b.y, sum);
    sum = __fmaf_rn(a.z, b.z, sum);
    return __fmaf_rn(a.w, b.w, sum);
}

/* u [R, n_in] = rms(x) * in_scale * scale. The first block also writes `normed`. */
template <int R>
static __device__ inline void load_inputs(const route_args &a, int first, const route_weights &w, float *u, float *part)
{
    float4 x[R][ROW_QUADS];
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int i = 0; i < ROW_QUADS; i++)
            x[r][i] = quad_or(a.x + (size_t)min(first + r, a.n_rows - 1) * a.n_in, threadIdx.x + i * BLOCK, a.n_in, 0);
#pragma unroll
    for (int r = 0; r < R; r++) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < ROW_QUADS; i++) sum = add_products(sum, x[r][i], x[r][i]);
        const float inverse = 1.0f / sqrtf(block_sum(sum, part) / (float)a.n_in + a.eps);
#pragma unroll
        for (int i = 0; i < ROW_QUADS; i++) {
            const uint32_t k = threadIdx.x + i * BLOCK;
            if (4 * k >= a.n_in) continue;
            ((float4 *)(u + r * a.n_in))[k] = times(times(x[r][i], inverse, w.in_scale[i]), a.scale, {1, 1, 1, 1});
            if (a.normed && blockIdx.x == 0 && first + r < a.n_rows)
                ((float4 *)(a.normed + (size_t)(first + r) * a.n_in))[k] = times(x[r][i], inverse, w.norm[i]);
        }
    }
    __syncthreads();
}

/* One warp per expert. The order of a sum does not depend on R. */
template <int R>
static __device__ inline void put_logits(const route_args &a, int first, int expert, const route_weights &w,
                                         const float *u)
{
    if (expert >= a.n_experts) return;
    float sum[R] = {};
    if (a.is_short) {
#pragma unroll
        for (int i = 0; i < EXPERT_QUADS; i++) {
            const uint32_t k = (uint32_t)(lane_id() + i * WARP);
            if (4 * k >= a.n_in) continue;
#pragma unroll
            for (int r = 0; r < R; r++)
                sum[r] = add_products(sum[r], w.router[i], ((const float4 *)(u + r * a.n_in))[k]);
        }
    } else {
        const uint8_t *row = a.w + (size_t)expert * a.row_bytes;
        for (uint32_t k = (uint32_t)lane_id(); k < a.n_in; k += WARP)
            for (int r = 0; r < R; r++) sum[r] = __fmaf_rn(weight_at(a.type, row, k), u[r * a.n_in + k], sum[r]);
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        const float logit = warp_sum(sum[r]);
        if (lane_id() == 0 && first + r < a.n_rows) a.work.logits[(size_t)(first + r) * a.n_experts + expert] = logit;
    }
}

/* ---- choice ---- */

/* Numbers that are ordered as the floats are; 0 for NaN. */
static __device__ inline uint32_t order_of(float x)
{
    const uint32_t bits = __float_as_uint(x);
    return x != x ? 0 : bits >> 31 ? ~bits : bits | 0x80000000u;
}

static __device__ inline float float_of(uint32_t order)
{
    return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

/* The n_used largest, the lower id on ties; always valid ids, whatever the logits; a NaN among them makes all weights
 * NaN. A softmax over all experts that is renormalised over the chosen ones is the softmax over those. By one warp:
 * lane l looks at the experts l, l + 32, .. */
static __device__ inline void choose(const route_args &a, int row)
{
    const float *logits = a.work.logits + (size_t)row * a.n_experts;
    float *out = a.out + (size_t)row * 2 * a.n_used, total = 0, top = 0;
    uint32_t key[CHOICES]; /* order + 1, or 0 for those that are taken: NaN counts as the smallest */
    bool has_nan = false;
#pragma unroll
    for (int i = 0; i < CHOICES; i++) {
        const int e = lane_id() + i * WARP;
        const float logit = e < a.n_experts ? __ldcg(logits + e) : 0.0f;
        has_nan |= logit != logit;
        key[i] = e < a.n_experts ? order_of(logit) + 1 : 0;
    }
    has_nan = __any_sync(0xffffffffu, has_nan);
    int chosen = 0; /* of place lane_id() */
    float mine = 0;
    for (int n = 0; n < a.n_used; n++) {
        uint32_t best = 0;
        int id = INT32_MAX;
#pragma unroll
        for (int i = 0; i < CHOICES; i++)
            if (i * WARP < a.n_experts && key[i] > best) best = key[i], id = lane_id() + i * WARP;
        const uint32_t most = __reduce_max_sync(0xffffffffu, best);
        id = __reduce_min_sync(0xffffffffu, best == most ? id : INT32_MAX);
#pragma unroll
        for (int i = 0; i < CHOICES; i++)
            if (id == lane_id() + i * WARP) key[i] = 0;
        const float logit = float_of(most - 1);
        if (n == 0) top = logit;
        const float weight = has_nan ? CUDART_NAN_F : expf(logit - top);
        total += weight;
        if (lane_id() == n % WARP) chosen = id, mine = weight;
        if (n % WARP != WARP - 1 && n + 1 < a.n_used) continue;
        const int place = n / WARP * WARP + lane_id();
        if (place <= n) ((int32_t *)out)[place] = chosen, out[a.n_used + place] = mine;
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
    extern __shared__ __align__(16) float u[];
    __shared__ float part[BLOCK_WARPS];
    __shared__ batch_counts counts;
    const int first = (int)blockIdx.y * R, expert = (int)blockIdx.x * BLOCK_WARPS + warp_id();
    release_dependents();
    route_weights w;
    load_weights(a, expert, &w);
    wait_for_predecessors();
    load_inputs<R>(a, first, w, u, part);
    put_logits<R>(a, first, expert, w, u);
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
    FACET_TRY(op_expect(c, op, n_in % 4 == 0 && n_in <= MAX_IN, "a multiple of 4 inputs, at most 5120", err));
    FACET_TRY(op_expect(c, op, width_of(c, op->o) == 2u * (uint32_t)op->n_used && op_same_rows(c, op->i0, op->o),
                        "the output holds n_used ids and weights", err));
    FACET_TRY(op_expect(c, op, op_has_matrix(c, op->w0, n_in, n, 1), "the router is [n_in, n_experts]", err));
    FACET_TRY(op_expect(c, op, op_is_raw(c, op->w0), "the router lies as in the file (F32)", err));
    return op_expect(c, op, op_has_vector(c, op->w1, n_in) && op_has_vector(c, op->w2, n),
                     "scales per input and per expert", err);
}

facet_status cuda_moe_open(cuda_backend *b, facet_error *err)
{
    return cuda_check(b,
                      cudaFuncSetAttribute(route_kernel<WIDE_ROWS>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           MAX_IN * WIDE_ROWS * (int)sizeof(float)),
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
    a.is_short = w->type == TYPE_F32 && w->n_in <= 4 * WARP * EXPERT_QUADS;
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
