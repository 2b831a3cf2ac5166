/* centroids.cu: OP_CENTROIDS: logits of the ids that belong to the best centroids. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/gather.cuh"

typedef struct centroid_args {
    table_view head;
    const float *x, *scores; /* [row, n_in], [row, n_centroids] */
    const int32_t *live, *order, *suppress;
    uint32_t n_in, width;
    int n_centroids, group, n_suppress;
    float scale;
    float *out;
} centroid_args;

static __global__ void fill_kernel(const int32_t *live, uint32_t width, float *out)
{
    int row = (int)blockIdx.y;
    uint32_t k = blockIdx.x * BLOCK + threadIdx.x;
    release_dependents();
    wait_for_predecessors();
    if (live[row] >= 0 && k < width) out[(size_t)row * width + k] = -CUDART_INF_F;
}

/* Which centroid has exactly `rank` better ones (a lower index is better among equals); -1 when a NaN leaves a rank
 * empty. */
static __device__ int find_ranked(const float *score, int n, int rank, int *found)
{
    if (threadIdx.x == 0) *found = -1;
    __syncthreads();
    for (int c = (int)threadIdx.x; c < n; c += BLOCK) {
        int better = 0;
        for (int i = 0; i < n; i++) better += score[i] > score[c] || (score[i] == score[c] && i < c);
        if (better == rank) *found = c;
    }
    __syncthreads();
    return *found;
}

static __device__ bool is_suppressed(const centroid_args &a, int32_t id)
{
    for (int i = 0; i < a.n_suppress; i++)
        if (a.suppress[i] == id) return true;
    return false;
}

/* One block per row and chosen centroid, one warp per id. */
static __global__ void centroid_kernel(centroid_args a)
{
    __shared__ int found;
    int row = (int)blockIdx.y;
    release_dependents();
    wait_for_predecessors();
    if (a.live[row] < 0) return;
    int c = find_ranked(a.scores + (size_t)row * a.n_centroids, a.n_centroids, (int)blockIdx.x, &found);
    if (c < 0) return;
    for (int i = warp_id(); i < a.group; i += BLOCK_WARPS) {
        int32_t id = a.order[(size_t)c * a.group + i];
        if (is_suppressed(a, id)) continue;
        float sum = 0;
        for (uint32_t k = (uint32_t)lane_id(); k < a.n_in; k += WARP)
            sum = __fmaf_rn(table_at(a.head, (size_t)id, k), a.x[(size_t)row * a.n_in + k], sum);
        sum = warp_sum(sum);
        if (lane_id() == 0) a.out[(size_t)row * a.width + id] = a.scale * sum;
    }
}

facet_status check_centroids(const compiled *c, const plan_op *op, facet_error *err)
{
    const dev_weight *w = weight_of(c->b, op->w0);
    bool ok = w && w->data && w->n_in == width_of(c, op->i0) && w->n_out == width_of(c, op->o);
    FACET_TRY(op_expect(c, op, ok, "a head on the device", err));
    ok = op->n_used >= 1 && op->n_used <= op->n_experts && (uint32_t)op->n_experts == width_of(c, op->i1) && op->order;
    FACET_TRY(op_expect(c, op, ok, "a score per centroid, and at most as many results", err));
    FACET_TRY(op_expect(c, op, (uint64_t)op->n_experts * op->group == width_of(c, op->o),
                        "every id belongs to one centroid", err));
    return op_expect(c, op, op_same_rows(c, op->i0, op->o) && op_same_rows(c, op->i1, op->o),
                     "inputs and output have the same rows", err);
}

void launch_centroids(const cuda_pass *p, const plan_op *op)
{
    rows_view x = view_of(p, op->i0), scores = view_of(p, op->i1), out = view_of(p, op->o);
    const dev_weight *w = weight_of(p->b, op->w0);
    centroid_args a = {table_of(w),         x.data,    scores.data, out.live,      p->c->order,
                       p->c->suppress,      x.width,   out.width,   op->n_experts, (int)op->group,
                       p->c->p->n_suppress, op->scale, out.data};
    dim3 fill(n_blocks(out.width, BLOCK), (unsigned)out.n), grid((unsigned)op->n_used, (unsigned)out.n);
    launch_overlapped(p->b, fill_kernel, fill, BLOCK, 0, out.live, out.width, out.data);
    launch_overlapped(p->b, centroid_kernel, grid, BLOCK, 0, a);
}
