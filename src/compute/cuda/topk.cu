/* topk.cu: OP_TOPK. One block per row, which is read once: every thread keeps the best of its own columns and an online
 * sum of exponentials (Milakov, Gimelshein 2018, arXiv:1805.02867); the lists are merged best first. */
#include "compute/cuda/ops.cuh"

typedef struct topk_list {
    float value[PLAN_MAX_TOPK];
    int32_t id[PLAN_MAX_TOPK];
} topk_list;

static __device__ bool is_before(float a, int32_t a_id, float b, int32_t b_id)
{
    return a > b || (a == b && a_id < b_id);
}

/* Keeps the list falling; ids come rising, so that an equal value stays behind. */
static __device__ void insert(topk_list *l, int k, float value, int32_t id)
{
    if (!(value > l->value[k - 1])) return;
    int at = k - 1;
    for (; at > 0 && value > l->value[at - 1]; at--) {
        l->value[at] = l->value[at - 1];
        l->id[at] = l->id[at - 1];
    }
    l->value[at] = value;
    l->id[at] = id;
}

typedef struct topk_head {
    float value;
    int32_t id;
    int thread;
} topk_head;

/* The best of all threads' candidates, on every thread. */
static __device__ topk_head best_head(topk_head mine, topk_head all[BLOCK])
{
    all[threadIdx.x] = mine;
    for (int step = BLOCK / 2; step > 0; step /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < step) {
            topk_head a = all[threadIdx.x], b = all[threadIdx.x + step];
            all[threadIdx.x] = is_before(b.value, b.id, a.value, a.id) ? b : a;
        }
    }
    __syncthreads();
    topk_head best = all[0];
    __syncthreads();
    return best;
}

static __global__ void topk_kernel(const float *x, const int32_t *live, uint32_t width, int k, float temp, int32_t *ids,
                                   float *logp)
{
    __shared__ topk_head heads[BLOCK];
    __shared__ float part[BLOCK_WARPS];
    int row = (int)blockIdx.x;
    if (live[row] < 0) return;
    topk_list own;
    for (int i = 0; i < k; i++) own.value[i] = -CUDART_INF_F, own.id[i] = INT32_MAX;
    float max = -CUDART_INF_F, sum = 0;
    bool bad = false;
    for (uint32_t c = threadIdx.x; c < width; c += BLOCK) {
        float v = x[(size_t)row * width + c];
        bad |= !(v < CUDART_INF_F);
        if (v > max) {
            sum = max > -CUDART_INF_F ? sum * expf((max - v) / temp) : 0;
            max = v;
        }
        if (v > -CUDART_INF_F) sum += expf((v - max) / temp);
        insert(&own, k, v, (int32_t)c);
    }
    bad = __syncthreads_or(bad);
    float all_max = block_max(max, part);
    float all_sum = block_sum(max > -CUDART_INF_F ? __fmul_rn(sum, expf((max - all_max) / temp)) : 0, part);
    for (int i = 0, next = 0; i < k; i++) {
        topk_head mine = {next < k ? own.value[next] : -CUDART_INF_F, next < k ? own.id[next] : INT32_MAX,
                          (int)threadIdx.x};
        topk_head best = best_head(mine, heads);
        if (best.thread == (int)threadIdx.x) next++;
        bool held = !bad && best.value > -CUDART_INF_F;
        if (threadIdx.x != 0) continue;
        ids[(size_t)row * k + i] = held ? best.id : -1;
        logp[(size_t)row * k + i] = held ? (best.value - all_max) / temp - logf(all_sum) : -CUDART_INF_F;
    }
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
    rows_view x = view_of(p, op->i0), ids = view_of(p, op->o), logp = view_of(p, op->o2);
    topk_kernel<<<(unsigned)x.n, BLOCK, 0, p->b->stream>>>(x.data, x.live, x.width, op->n_used, op->temp,
                                                           (int32_t *)ids.data, logp.data);
}
