/* norm.cu: OP_NORM and OP_NORM_ADD, and the second followed by the first in one launch. One block per row and group of
 * columns. The block's size, and so the order of a sum, depends on the group's length alone. */
#include "compute/cuda/async.cuh"

enum { MAX_THREADS = 512, MAX_WARPS = MAX_THREADS / WARP, MAX_QUADS = 8 };

typedef struct norm_args {
    const float *x, *w, *add; /* w, add: NULL = none */
    const int32_t *live;
    float eps, scale;
    uint32_t width, group;
    float *out;
    /* then_out = rms(out; then_w), unless then_out is NULL */
    const float *then_w;
    float then_eps;
    float *then_out;
} norm_args;

/* 1 / rms over the block's n values, of which each thread has summed the squares of its own. */
static __device__ inline float inverse_rms(float sum, uint32_t n, float eps, float part[MAX_WARPS])
{
    sum = warp_sum(sum);
    __syncthreads();
    if (lane_id() == 0) part[warp_id()] = sum;
    __syncthreads();
    sum = warp_sum(lane_id() < (int)(blockDim.x / WARP) ? part[lane_id()] : 0.0f);
    return 1.0f / sqrtf(sum / (float)n + eps);
}

static __device__ inline float add_square(float sum, const float4 &v)
{
    sum = __fmaf_rn(v.x, v.x, sum);
    sum = __fmaf_rn(v.y, v.y, sum);
    sum = __fmaf_rn(v.z, v.z, sum);
    return __fmaf_rn(v.w, v.w, sum);
}

static __device__ inline float4 weigh(const float4 &x, float inverse, const float4 &w)
{
    return make_float4(x.x * inverse * w.x, x.y * inverse * w.y, x.z * inverse * w.z, x.w * inverse * w.w);
}

/* N quads of w for this thread, ones where there are none. */
template <int N> static __device__ inline void load_weights(const float *w, uint32_t n_quads, float4 out[N])
{
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint32_t at = threadIdx.x + i * blockDim.x;
        out[i] = w && at < n_quads ? ((const float4 *)w)[at] : make_float4(1, 1, 1, 1);
    }
}

/* Up to N quads of columns per thread, held in registers. Grid: groups, rows. */
template <int N, bool ADDS, bool JOINS>
static __global__ void __launch_bounds__(MAX_THREADS) norm_kernel(const norm_args a)
{
    __shared__ float part[MAX_WARPS];
    const int row = (int)blockIdx.y;
    const uint32_t n_quads = a.group / 4;
    const size_t at = (size_t)row * a.width + (size_t)blockIdx.x * a.group;
    float4 w[N], then_w[JOINS ? N : 1], x[N], add[ADDS ? N : 1];
    load_weights<N>(a.w, n_quads, w);
    if (JOINS) load_weights<JOINS ? N : 1>(a.then_w, n_quads, then_w);
    release_dependents();
    wait_for_predecessors();

    /* All loads are under way before any of them is waited for: the next product's weights crowd the memory. */
    const int live = a.live[row];
    float sum = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint32_t k = threadIdx.x + i * blockDim.x;
        x[i] = k < n_quads ? ((const float4 *)(a.x + at))[k] : make_float4(0, 0, 0, 0);
        if (ADDS) add[ADDS ? i : 0] = k < n_quads ? ((const float4 *)(a.add + at))[k] : make_float4(0, 0, 0, 0);
    }
    if (live < 0) return;
#pragma unroll
    for (int i = 0; i < N; i++) sum = add_square(sum, x[i]);
    const float inverse = inverse_rms(sum, a.group, a.eps, part);
    sum = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint32_t k = threadIdx.x + i * blockDim.x;
        x[i] = weigh(x[i], inverse, w[i]);
        if (ADDS) {
            const float4 &r = add[ADDS ? i : 0];
            x[i] = make_float4((r.x + x[i].x) * a.scale, (r.y + x[i].y) * a.scale, (r.z + x[i].z) * a.scale,
                               (r.w + x[i].w) * a.scale);
        }
        if (k < n_quads) ((float4 *)(a.out + at))[k] = x[i];
        if (JOINS) sum = add_square(sum, x[i]);
    }
    if (!JOINS) return;
    const float then_inverse = inverse_rms(sum, a.group, a.then_eps, part);
#pragma unroll
    for (int i = 0; i < N; i++) {
        uint32_t k = threadIdx.x + i * blockDim.x;
        if (k < n_quads) ((float4 *)(a.then_out + at))[k] = weigh(x[i], then_inverse, then_w[JOINS ? i : 0]);
    }
}

/* Any group. */
static __global__ void norm_any_kernel(const norm_args a)
{
    __shared__ float part[MAX_WARPS];
    const int row = (int)blockIdx.y;
    release_dependents();
    wait_for_predecessors();
    if (a.live[row] < 0) return;
    const size_t at = (size_t)row * a.width + (size_t)blockIdx.x * a.group;
    float sum = 0;
    for (uint32_t i = threadIdx.x; i < a.group; i += blockDim.x) sum = __fmaf_rn(a.x[at + i], a.x[at + i], sum);
    const float inverse = inverse_rms(sum, a.group, a.eps, part);
    sum = 0;
    for (uint32_t i = threadIdx.x; i < a.group; i += blockDim.x) {
        float y = a.x[at + i] * inverse * (a.w ? a.w[i] : 1.0f);
        if (a.add) y = (a.add[at + i] + y) * a.scale;
        a.out[at + i] = y;
        sum = __fmaf_rn(y, y, sum);
    }
    if (!a.then_out) return;
    const float then_inverse = inverse_rms(sum, a.group, a.then_eps, part);
    for (uint32_t i = threadIdx.x; i < a.group; i += blockDim.x)
        a.then_out[at + i] = a.out[at + i] * then_inverse * (a.then_w ? a.then_w[i] : 1.0f);
}

template <int N> static void launch_quads(const cuda_backend *b, const norm_args &a, dim3 grid, int threads)
{
    auto kernel = a.then_out ? norm_kernel<N, true, true>
                  : a.add    ? norm_kernel<N, true, false>
                             : norm_kernel<N, false, false>;
    launch_overlapped(b, kernel, grid, threads, 0, a);
}

static void launch_args(const cuda_backend *b, const norm_args &a, int n_rows)
{
    const dim3 grid(a.width / a.group, (unsigned)n_rows);
    const uint32_t quads = a.group / 4, rounded = (quads + WARP - 1) / WARP * WARP;
    const int threads = rounded < (uint32_t)MAX_THREADS ? (int)rounded : (int)MAX_THREADS;
    if (a.group % 4 != 0 || quads > MAX_QUADS * MAX_THREADS)
        launch_overlapped(b, norm_any_kernel, grid, BLOCK, 0, a);
    else if (quads <= (uint32_t)threads)
        launch_quads<1>(b, a, grid, threads);
    else if (quads <= 2u * MAX_THREADS)
        launch_quads<2>(b, a, grid, threads);
    else if (quads <= 4u * MAX_THREADS)
        launch_quads<4>(b, a, grid, threads);
    else
        launch_quads<MAX_QUADS>(b, a, grid, threads);
}

static void norm_launch(const cuda_pass *p, const plan_op *op, const float *add)
{
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    uint32_t group = op->group ? op->group : x.width;
    norm_args a = {x.data, vector_of(p->b, op->w0), add, x.live, op->eps, op->scale, x.width, group, out.data, NULL, 0,
                   NULL};
    if (covered_by(p, op) > 1) {
        a.then_w = vector_of(p->b, op[1].w0);
        a.then_eps = op[1].eps;
        a.then_out = view_of(p, op[1].o).data;
    }
    launch_args(p->b, a, x.n);
}

facet_status check_norm(const compiled *c, const plan_op *op, facet_error *err)
{
    uint32_t width = width_of(c, op->i0), group = op->group ? op->group : width;
    FACET_TRY(op_expect(c, op, width == width_of(c, op->o) && op_same_rows(c, op->i0, op->o),
                        "input and output have the same shape", err));
    FACET_TRY(op_expect(c, op, group && width % group == 0, "groups divide the row", err));
    return op_expect(c, op, op_has_vector(c, op->w0, group), "the weight is as long as a group", err);
}

void launch_norm(const cuda_pass *p, const plan_op *op)
{
    norm_launch(p, op, NULL);
}

facet_status check_norm_add(const compiled *c, const plan_op *op, facet_error *err)
{
    FACET_TRY(op_expect(c, op, width_of(c, op->i1) == width_of(c, op->o) && op_same_rows(c, op->i1, op->o),
                        "the addend has the shape of the output", err));
    return check_norm(c, op, err);
}

void launch_norm_add(const cuda_pass *p, const plan_op *op)
{
    norm_launch(p, op, view_of(p, op->i1).data);
}
