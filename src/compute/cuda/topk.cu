/* topk.cu: OP_TOPK. A row is cut into slices, one block each, which find their own best entries and a sum of
 * exponentials; the block that comes last merges them in order. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/product.cuh"

enum { MAX_SLICES = 64, SLICE = 4096 }; /* columns that a block looks at, at least */

/* In the order of the list: larger values first, then lower ids. */
typedef struct entry {
    float value;
    int32_t id; /* INT32_MAX: none */
} entry;

typedef struct topk_part {
    entry best[PLAN_MAX_TOPK];
    float max, sum; /* sum of exp((x - max) / temp) */
    int bad, pad;   /* NaN or +inf was seen */
} topk_part;

typedef struct topk_args {
    const float *x; /* [row, width] */
    const int32_t *live;
    uint32_t width;
    int k;
    float temp;
    topk_part *parts; /* [row, slice] */
    int *arrivals;    /* [row], zero between launches */
    int32_t *ids;
    float *logp;
} topk_args;

static __device__ inline bool comes_first(const entry &a, const entry &b)
{
    return a.value > b.value || (a.value == b.value && a.id < b.id);
}

/* The first entry of all threads, on every thread. Two places by turns: one barrier for each round. */
static __device__ inline entry block_first(entry mine, entry places[2][BLOCK_WARPS], int round)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        entry other;
        other.value = __shfl_xor_sync(0xffffffffu, mine.value, step);
        other.id = __shfl_xor_sync(0xffffffffu, mine.id, step);
        if (comes_first(other, mine)) mine = other;
    }
    entry *place = places[round & 1];
    if (lane_id() == 0) place[warp_id()] = mine;
    __syncthreads();
    entry best = place[0];
    for (int i = 1; i < BLOCK_WARPS; i++)
        if (comes_first(place[i], best)) best = place[i];
    return best;
}

static __device__ inline void take(entry *best, const entry &e, const entry &last)
{
    if (comes_first(last, e) && comes_first(e, *best)) *best = e;
}

/* The largest value of columns begin .. end - 1 and the sum, by the whole block. */
static __device__ void sum_slice(const topk_args &a, const float *x, uint32_t begin, uint32_t end, topk_part *out)
{
    __shared__ float part[BLOCK_WARPS];
    float max = -CUDART_INF_F, sum = 0;
    bool bad = false;
#pragma unroll 8
    for (uint32_t c = begin + threadIdx.x; c < end; c += BLOCK) {
        max = fmaxf(max, x[c]);
        bad |= !(x[c] < CUDART_INF_F);
    }
    bad = __syncthreads_or(bad);
    max = block_max(max, part);
    for (uint32_t c = begin + threadIdx.x; c < end && max > -CUDART_INF_F; c += BLOCK)
        sum = __fadd_rn(sum, expf((x[c] - max) / a.temp));
    sum = block_sum(sum, part);
    if (threadIdx.x == 0) out->max = max, out->sum = sum, out->bad = bad;
}

static __device__ bool is_last_block(int *arrivals)
{
    __shared__ bool is_last;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        is_last = atomicAdd(arrivals, 1) == (int)gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    return is_last;
}

/* log of the sum of exponentials over all slices, in their order, on thread 0; *bad on all threads. */
static __device__ float merge_sums(const topk_args &a, const topk_part *parts, int n, float *max, int *bad)
{
    __shared__ float maxima[MAX_SLICES], sums[MAX_SLICES];
    int is_bad = 0;
    if ((int)threadIdx.x < n) {
        maxima[threadIdx.x] = __ldcg(&parts[threadIdx.x].max);
        sums[threadIdx.x] = __ldcg(&parts[threadIdx.x].sum);
        is_bad = __ldcg(&parts[threadIdx.x].bad);
    }
    *bad = __syncthreads_or(is_bad);
    *max = maxima[0];
    for (int i = 1; i < n; i++) *max = fmaxf(*max, maxima[i]);
    float sum = 0;
    if (threadIdx.x == 0 && *max > -CUDART_INF_F)
        for (int i = 0; i < n; i++) sum = __fmaf_rn(sums[i], expf((maxima[i] - *max) / a.temp), sum);
    return logf(sum);
}

static __device__ void merge_parts(const topk_args &a, const topk_part *parts, int n, int row,
                                   entry places[2][BLOCK_WARPS])
{
    __shared__ entry list[MAX_SLICES * PLAN_MAX_TOPK];
    float max;
    int bad;
    for (int i = (int)threadIdx.x; i < n * a.k; i += BLOCK) {
        const float2 e = __ldcg((const float2 *)&parts[i / a.k].best[i % a.k]);
        list[i] = {e.x, __float_as_int(e.y)};
    }
    const float log_sum = merge_sums(a, parts, n, &max, &bad); /* its barrier also publishes the list */
    entry last = {CUDART_INF_F, -1};
    for (int j = 0; j < a.k; j++) {
        entry best = {-CUDART_INF_F, INT32_MAX};
        for (int i = (int)threadIdx.x; i < n * a.k; i += BLOCK) take(&best, list[i], last);
        last = block_first(best, places, j);
        const bool is_held = !bad && last.id != INT32_MAX && last.value > -CUDART_INF_F;
        if (threadIdx.x != 0) continue;
        a.ids[(size_t)row * a.k + j] = is_held ? last.id : -1;
        a.logp[(size_t)row * a.k + j] = is_held ? (last.value - max) / a.temp - log_sum : -CUDART_INF_F;
    }
}

/* Grid: slices, rows. */
static __global__ void __launch_bounds__(BLOCK) topk_kernel(const topk_args a)
{
    __shared__ entry places[2][BLOCK_WARPS];
    const int row = (int)blockIdx.y;
    release_dependents();
    wait_for_predecessors();
    if (a.live[row] < 0) return;
    const float *x = a.x + (size_t)row * a.width;
    const uint32_t length = (a.width + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * length;
    const uint32_t end = min(begin + length, a.width);
    topk_part *parts = a.parts + (size_t)row * gridDim.x;
    sum_slice(a, x, begin, end, &parts[blockIdx.x]);
    entry last = {CUDART_INF_F, -1};
    for (int j = 0; j < a.k; j++) {
        entry best = {-CUDART_INF_F, INT32_MAX};
#pragma unroll 8
        for (uint32_t c = begin + threadIdx.x; c < end; c += BLOCK) take(&best, {x[c], (int32_t)c}, last);
        last = block_first(best, places, j);
        if (threadIdx.x == 0) parts[blockIdx.x].best[j] = last;
    }
    if (!is_last_block(&a.arrivals[row])) return;
    merge_parts(a, parts, (int)gridDim.x, row, places);
    if (threadIdx.x == 0) a.arrivals[row] = 0;
}

facet_status check_topk(const compiled *c, const plan_op *op, facet_error *err)
{
    bool ok = op->o2 >= 0 && op->o2 < c->p->n_values && op->n_used >= 1 && op->n_used <= PLAN_MAX_TOPK && op->temp > 0;
    FACET_TRY(op_expect(c, op, ok, "a second output, 1 to 16 results, a temperature above 0", err));
    uint32_t k = (uint32_t)op->n_used;
    FACET_TRY(op_expect(c, op, width_of(c, op->o) == k && width_of(c, op->o2) == k && width_of(c, op->i0) >= k,
                        "outputs as wide as the number of results", err));
    return op_expect(c, op, op_same_rows(c, op->i0, op->o) && op_same_rows(c, op->i0, op->o2),
                     "input and outputs have the same rows", err);
}

void launch_topk(const cuda_pass *p, const plan_op *op)
{
    const rows_view x = view_of(p, op->i0), ids = view_of(p, op->o), logp = view_of(p, op->o2);
    const unsigned wanted = n_blocks(x.width, SLICE), slices = wanted < MAX_SLICES ? wanted : (unsigned)MAX_SLICES;
    const int most = (int)(PRODUCT_SUMS_BYTES / (slices * sizeof(topk_part)));
    const int step = most < (int)PRODUCT_MAX_ARRIVALS ? most : (int)PRODUCT_MAX_ARRIVALS;
    for (int row = 0; row < x.n; row += step) {
        const int n = x.n - row < step ? x.n - row : step;
        const topk_args a = {x.data + (size_t)row * x.width,
                             x.live + row,
                             x.width,
                             op->n_used,
                             op->temp,
                             (topk_part *)p->b->product_sums,
                             p->b->product_arrivals,
                             (int32_t *)ids.data + (size_t)row * ids.width,
                             logp.data + (size_t)row * logp.width};
        launch_overlapped(p->b, topk_kernel, dim3(slices, (unsigned)n), BLOCK, 0, a);
    }
}
