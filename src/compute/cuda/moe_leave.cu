/* moe_leave.cu: what comes after the second products of an expert layer. Alone: the experts' sums, weighted. In a block
 * of ops: the norms of both branches, their sum, its norm, the residual, and the next layer's norm. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/moe_ops.cuh"

enum { THREADS = 512, WARPS = THREADS / WARP, MAX_QUADS = 4 };

typedef struct leave_args {
    const float *sums, *route; /* [pair, width], [row, 2 * n_used] */
    const int32_t *live;
    int n_used;
    uint32_t width;
    float *out; /* alone: the weighted sums */
    /* in a block */
    const float *dense, *residual;                             /* [row, width] */
    const float *dense_norm, *experts_norm, *norm, *next_norm; /* weights, NULL = 1 */
    float dense_eps, experts_eps, eps, next_eps, add_scale, scale;
    float *z, *next; /* next NULL: no norm follows */
} leave_args;

static __device__ inline float4 scale_quad(const float4 &x, float by, const float4 &w)
{
    return make_float4(x.x * by * w.x, x.y * by * w.y, x.z * by * w.z, x.w * by * w.w);
}

static __device__ inline float4 add_quads(const float4 &a, const float4 &b, float scale)
{
    return make_float4((a.x + b.x) * scale, (a.y + b.y) * scale, (a.z + b.z) * scale, (a.w + b.w) * scale);
}

static __device__ inline float add_square(float sum, const float4 &v)
{
    sum = __fmaf_rn(v.x, v.x, sum);
    sum = __fmaf_rn(v.y, v.y, sum);
    sum = __fmaf_rn(v.z, v.z, sum);
    return __fmaf_rn(v.w, v.w, sum);
}

/* The weighted sums of a row's pairs: this thread's quad k. Reads are under way together. */
static __device__ inline float4 add_pairs(const leave_args &a, int row, uint32_t k)
{
    const float *weights = a.route + (size_t)row * 2 * a.n_used + a.n_used;
    float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 8
    for (int j = 0; j < a.n_used; j++) {
        const float4 v = __ldcg((const float4 *)(a.sums + ((size_t)row * a.n_used + j) * a.width) + k);
        const float w = weights[j];
        sum = make_float4(__fmaf_rn(w, v.x, sum.x), __fmaf_rn(w, v.y, sum.y), __fmaf_rn(w, v.z, sum.z),
                          __fmaf_rn(w, v.w, sum.w));
    }
    return sum;
}

/* Grid: quads of columns / BLOCK, rows. */
static __global__ void __launch_bounds__(BLOCK) add_pairs_kernel(const leave_args a)
{
    const int row = (int)blockIdx.y;
    const uint32_t k = blockIdx.x * BLOCK + threadIdx.x;
    release_dependents();
    wait_for_predecessors();
    if (a.live[row] < 0 || k >= a.width / 4) return;
    *((float4 *)(a.out + (size_t)row * a.width) + k) = add_pairs(a, row, k);
}

/* Two sums over the block at a time. */
static __device__ inline float2 block_sums(float2 v, float2 part[WARPS])
{
    v.x = warp_sum(v.x);
    v.y = warp_sum(v.y);
    __syncthreads();
    if (lane_id() == 0) part[warp_id()] = v;
    __syncthreads();
    const float2 mine = lane_id() < WARPS ? part[lane_id()] : make_float2(0, 0);
    return make_float2(warp_sum(mine.x), warp_sum(mine.y));
}

static __device__ inline float inverse_rms(float sum, uint32_t n, float eps)
{
    return 1.0f / sqrtf(sum / (float)n + eps);
}

template <int N> static __device__ inline void load_weights(const float *w, uint32_t n, float4 out[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint32_t k = threadIdx.x + i * THREADS;
        out[i] = w && k < n ? ((const float4 *)w)[k] : make_float4(1, 1, 1, 1);
    }
}

/* N quads of columns per thread. Grid: rows. */
template <int N> static __global__ void __launch_bounds__(THREADS) leave_kernel(const leave_args a)
{
    __shared__ float2 part[WARPS];
    const int row = (int)blockIdx.x;
    const uint32_t n = a.width / 4;
    const float4 zero = make_float4(0, 0, 0, 0);
    float4 w[N], v[N], d[N], e[N], r[N];
    load_weights<N>(a.dense_norm, n, w);
    load_weights<N>(a.experts_norm, n, v);
    release_dependents();
    wait_for_predecessors();
    const int alive = a.live[row];
    float2 sums = make_float2(0, 0);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint32_t k = threadIdx.x + i * THREADS;
        d[i] = k < n ? __ldcg((const float4 *)(a.dense + (size_t)row * a.width) + k) : zero;
        r[i] = k < n ? __ldcg((const float4 *)(a.residual + (size_t)row * a.width) + k) : zero;
        e[i] = k < n ? add_pairs(a, row, k) : zero;
    }
    if (alive < 0) return;
#pragma unroll
    for (int i = 0; i < N; i++) sums.x = add_square(sums.x, d[i]), sums.y = add_square(sums.y, e[i]);
    sums = block_sums(sums, part);
    const float dense = inverse_rms(sums.x, a.width, a.dense_eps),
                experts = inverse_rms(sums.y, a.width, a.experts_eps);
    sums = make_float2(0, 0);
#pragma unroll
    for (int i = 0; i < N; i++) {
        d[i] = add_quads(scale_quad(d[i], dense, w[i]), scale_quad(e[i], experts, v[i]), a.add_scale);
        sums.x = add_square(sums.x, threadIdx.x + i * THREADS < n ? d[i] : zero);
    }
    load_weights<N>(a.norm, n, w);
    if (a.next) load_weights<N>(a.next_norm, n, v);
    const float inverse = inverse_rms(block_sums(sums, part).x, a.width, a.eps);
    sums = make_float2(0, 0);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint32_t k = threadIdx.x + i * THREADS;
        d[i] = add_quads(r[i], scale_quad(d[i], inverse, w[i]), a.scale);
        if (k >= n) continue;
        *((float4 *)(a.z + (size_t)row * a.width) + k) = d[i];
        sums.x = add_square(sums.x, d[i]);
    }
    if (!a.next) return;
    const float next = inverse_rms(block_sums(sums, part).x, a.width, a.next_eps);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const uint32_t k = threadIdx.x + i * THREADS;
        if (k < n) *((float4 *)(a.next + (size_t)row * a.width) + k) = scale_quad(d[i], next, v[i]);
    }
}

void moe_add_launch(const cuda_pass *p, const rows_view *route, const rows_view *out, int n_used)
{
    leave_args a = {};
    a.sums = p->c->moe.sums;
    a.route = route->data;
    a.live = out->live;
    a.n_used = n_used;
    a.width = out->width;
    a.out = out->data;
    launch_overlapped(p->b, add_pairs_kernel, dim3(n_blocks(a.width / 4, BLOCK), (unsigned)out->n), BLOCK, 0, a);
}

void moe_leave_launch(const cuda_pass *p, const moe_block *m)
{
    const plan_op *ops = p->c->p->ops, *down = &ops[m->down], *last = &ops[m->norm_add];
    const rows_view out = view_of(p, last->o);
    leave_args a = {};
    a.sums = p->c->moe.sums;
    a.route = view_of(p, down->i1).data;
    a.live = out.live;
    a.n_used = down->n_used;
    a.width = out.width;
    a.dense = view_of(p, ops[m->dense_down].o).data;
    a.residual = view_of(p, last->i1).data;
    a.dense_norm = vector_of(p->b, ops[m->dense_norm].w0);
    a.dense_eps = ops[m->dense_norm].eps;
    a.experts_norm = vector_of(p->b, ops[m->down_norm].w0);
    a.experts_eps = ops[m->down_norm].eps;
    a.add_scale = ops[m->add].scale;
    a.norm = vector_of(p->b, last->w0);
    a.eps = last->eps;
    a.scale = last->scale;
    a.z = out.data;
    if (m->next_norm >= 0) {
        a.next_norm = vector_of(p->b, ops[m->next_norm].w0);
        a.next_eps = ops[m->next_norm].eps;
        a.next = view_of(p, ops[m->next_norm].o).data;
    }
    const dim3 grid((unsigned)out.n);
    if (a.width <= 4 * THREADS)
        launch_overlapped(p->b, leave_kernel<1>, grid, THREADS, 0, a);
    else if (a.width <= 8 * THREADS)
        launch_overlapped(p->b, leave_kernel<2>, grid, THREADS, 0, a);
    else
        launch_overlapped(p->b, leave_kernel<MAX_QUADS>, grid, THREADS, 0, a);
}
