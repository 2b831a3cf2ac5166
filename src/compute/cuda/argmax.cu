/* argmax.cu: OP_ARGMAX. One block per row. */
#include "compute/cuda/ops.cuh"

typedef struct best_logit {
    float value;
    int32_t index; /* INT32_MAX before the first */
    bool bad;      /* NaN or +inf was seen */
} best_logit;

static __device__ best_logit better(const best_logit &a, const best_logit &b)
{
    bool take = b.value > a.value || (b.value == a.value && b.index < a.index);
    best_logit r = take ? b : a;
    r.bad = a.bad || b.bad;
    return r;
}

static __global__ void argmax_kernel(const float *x, const int32_t *live, uint32_t width, int32_t *out)
{
    __shared__ best_logit all[BLOCK];
    int row = (int)blockIdx.x;
    if (live[row] < 0) return;
    best_logit best = {-CUDART_INF_F, INT32_MAX, false};
    for (uint32_t k = threadIdx.x; k < width; k += BLOCK) {
        float v = x[(size_t)row * width + k];
        best_logit next = {v, (int32_t)k, !(v < CUDART_INF_F)};
        best = better(best, next);
    }
    all[threadIdx.x] = best;
    for (int step = BLOCK / 2; step > 0; step /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < step) all[threadIdx.x] = better(all[threadIdx.x], all[threadIdx.x + step]);
    }
    if (threadIdx.x == 0) out[row] = all[0].bad ? -1 : all[0].index;
}

facet_status check_argmax(const compiled *c, const plan_op *op, facet_error *err)
{
    const plan_value *o = &c->p->values[op->o];
    FACET_TRY(op_expect(c, op, o->width == 1 && o->type == VALUE_I32, "the output is one integer", err));
    return op_expect(c, op, op_same_rows(c, op->i0, op->o), "input and output have the same rows", err);
}

void launch_argmax(const cuda_pass *p, const plan_op *op)
{
    rows_view x = view_of(p, op->i0), out = view_of(p, op->o);
    argmax_kernel<<<(unsigned)x.n, BLOCK, 0, p->b->stream>>>(x.data, x.live, x.width, (int32_t *)out.data);
}
