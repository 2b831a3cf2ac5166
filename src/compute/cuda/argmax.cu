/* argmax.cu: OP_ARGMAX. A row is cut into slices, one block each; the block that comes last compares their winners. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/product.cuh"

enum { MAX_SLICES = 64, SLICE = 4096 }; /* columns that a block looks at, at least */

typedef struct best_logit {
    float value;
    int32_t index; /* INT32_MAX before the first */
    bool bad;      /* NaN or +inf was seen */
} best_logit;

typedef struct argmax_args {
    const float *x; /* [row, width] */
    const int32_t *live;
    uint32_t width;
    best_logit *found; /* [row, slice] */
    int *arrivals;     /* [row], zero between launches */
    int32_t *out;
} argmax_args;

static __device__ best_logit better(const best_logit &a, const best_logit &b)
{
    bool take = b.value > a.value || (b.value == a.value && b.index < a.index);
    best_logit r = take ? b : a;
    r.bad = a.bad || b.bad;
    return r;
}

/* The best of all threads, on thread 0. */
static __device__ best_logit block_best(const best_logit &mine, best_logit all[BLOCK])
{
    all[threadIdx.x] = mine;
    for (int step = BLOCK / 2; step > 0; step /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < step) all[threadIdx.x] = better(all[threadIdx.x], all[threadIdx.x + step]);
    }
    return all[0];
}

static __device__ bool is_last_block(int *arrivals)
{
    __shared__ bool is_last;
    if (threadIdx.x == 0) {
        __threadfence();
        is_last = atomicAdd(arrivals, 1) == (int)gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    return is_last;
}

/* Grid: slices, rows. */
static __global__ void argmax_kernel(const argmax_args a)
{
    __shared__ best_logit all[BLOCK];
    const int row = (int)blockIdx.y;
    release_dependents();
    wait_for_predecessors();
    if (a.live[row] < 0) return;
    const float *x = a.x + (size_t)row * a.width;
    const uint32_t length = (a.width + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * length;
    const uint32_t end = min(begin + length, a.width);
    best_logit best = {-CUDART_INF_F, INT32_MAX, false};
#pragma unroll 8
    for (uint32_t k = begin + threadIdx.x; k < end; k += BLOCK) {
        float v = x[k];
        best_logit next = {v, (int32_t)k, !(v < CUDART_INF_F)};
        best = better(best, next);
    }
    best = block_best(best, all);
    best_logit *found = a.found + (size_t)row * gridDim.x;
    if (threadIdx.x == 0) found[blockIdx.x] = best;
    if (!is_last_block(&a.arrivals[row])) return;
    best = {-CUDART_INF_F, INT32_MAX, false};
    if (threadIdx.x < gridDim.x) {
        best.value = __ldcg(&found[threadIdx.x].value);
        best.index = __ldcg(&found[threadIdx.x].index);
        best.bad = *(volatile bool *)&found[threadIdx.x].bad;
    }
    best = block_best(best, all);
    if (threadIdx.x != 0) return;
    a.out[row] = best.bad ? -1 : best.index;
    a.arrivals[row] = 0;
}

facet_status check_argmax(const compiled *c, const plan_op *op, facet_error *err)
{
    const plan_value *o = &c->p->values[op->o];
    FACET_TRY(op_expect(c, op, o->width == 1 && o->type == VALUE_I32, "the output is one integer", err));
    return op_expect(c, op, op_same_rows(c, op->i0, op->o), "input and output have the same rows", err);
}

void launch_argmax(const cuda_pass *p, const plan_op *op)
{
    static_assert((size_t)CUDA_MAX_ROWS * MAX_SLICES * sizeof(best_logit) <= PRODUCT_SUMS_BYTES, "workspace");
    static_assert((int)CUDA_MAX_ROWS <= (int)PRODUCT_MAX_ARRIVALS, "workspace");
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    unsigned slices = n_blocks(x.width, SLICE);
    dim3 grid(slices < MAX_SLICES ? slices : (unsigned)MAX_SLICES, (unsigned)x.n);
    argmax_args a = {
        x.data, x.live, x.width, (best_logit *)p->b->product_sums, p->b->product_arrivals, (int32_t *)out.data};
    launch_overlapped(p->b, argmax_kernel, grid, BLOCK, 0, a);
}
