/* attn_fold.cu: parts of attention (attn.h) folded by a launch of its own. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/attn_fold.cuh"
#include "compute/cuda/attn_launch.cuh"

enum { QUADS = WARP }; /* of a block: 128 dims */

/* Dynamic shared memory: for each group weight and sum, for each set the sums of QUADS quads and of the weights. */
typedef struct fold_shared {
    float *weight, *sum, *set_sum;
    float4 *set_o; /* [set][QUADS] */
} fold_shared;

static __host__ __device__ inline int n_sets(const attn_class &k)
{
    return k.max_groups / ATTN_SET + 2;
}

static inline size_t shared_bytes(const attn_class &k)
{
    return (size_t)n_sets(k) * (QUADS * sizeof(float4) + sizeof(float)) + (size_t)k.max_groups * 2 * sizeof(float);
}

/* Weights of all groups, for the largest score of all. */
static __device__ inline void weigh_groups(const attn_class &k, const float *parts, const attn_groups &g,
                                           const fold_shared &s)
{
    __shared__ float part[BLOCK_WARPS];
    float max = -CUDART_INF_F;
    for (int i = (int)threadIdx.x; i < g.n; i += BLOCK) {
        const float2 head = __ldcg((const float2 *)part_at(k, parts, g.first + i));
        s.weight[i] = head.x;
        s.sum[i] = head.y;
        max = fmaxf(max, head.x);
    }
    max = block_max(max, part);
    for (int i = (int)threadIdx.x; i < g.n; i += BLOCK) s.weight[i] = fold_weight(s.weight[i], max);
    __syncthreads();
}

/* A warp takes every eighth set. Grid: heads, rows, head_dim / 128. */
static __global__ void __launch_bounds__(BLOCK) fold_kernel(const __grid_constant__ attn_args a, const int32_t *live)
{
    extern __shared__ __align__(16) uint8_t shared[];
    fold_shared s;
    s.set_o = (float4 *)shared;
    s.set_sum = (float *)(s.set_o + n_sets(a.k) * QUADS);
    s.weight = s.set_sum + n_sets(a.k);
    s.sum = s.weight + a.k.max_groups;
    const int row = a.first_row + (int)blockIdx.y, n_heads = (int)gridDim.x;
    const int dim = ((int)blockIdx.z * QUADS + lane_id()) * 4;
    release_dependents();
    const int alive = live[row];
    const attn_groups g = attn_groups_of(a.k, attn_row_range(a.k, a.in, max(batch_row(a.map, row), 0)));
    wait_for_predecessors();
    if (alive < 0) return;
    const float *parts =
        a.parts + ((size_t)blockIdx.y * n_heads + blockIdx.x) * a.k.max_groups * (ATTN_PART_HEAD + a.k.head_dim);
    weigh_groups(a.k, parts, g, s);
    const int first_set = g.first / ATTN_SET, sets = g.n ? (g.first + g.n - 1) / ATTN_SET - first_set + 1 : 0;
    for (int set = warp_id(); set < sets; set += BLOCK_WARPS) {
        const int begin = max((first_set + set) * ATTN_SET - g.first, 0);
        const int end = min((first_set + set + 1) * ATTN_SET - g.first, g.n);
        attn_fold f = {0, 0, make_float4(0, 0, 0, 0)};
#pragma unroll 8
        for (int i = begin; i < end; i++)
            fold_part(&f, s.weight[i], s.sum[i],
                      __ldcg((const float4 *)(part_at(a.k, parts, g.first + i) + ATTN_PART_HEAD + dim)));
        s.set_o[set * QUADS + lane_id()] = f.o;
        if (lane_id() == 0) s.set_sum[set] = f.sum;
    }
    __syncthreads();
    if (warp_id() > 0) return;
    attn_fold all = {0, 0, make_float4(0, 0, 0, 0)};
    for (int set = 0; set < sets; set++) fold_set(&all, {0, s.set_sum[set], s.set_o[set * QUADS + lane_id()]});
    put_folded(all, a.out + ((size_t)row * n_heads + blockIdx.x) * a.k.head_dim + dim);
}

void attn_fold_launch(const cuda_backend *b, const attn_args &a, const int32_t *live, int n_rows)
{
    const dim3 grid((unsigned)(a.k.heads_per_kv * a.k.n_kv_heads), (unsigned)n_rows,
                    (unsigned)(a.k.head_dim / (4 * QUADS)));
    launch_overlapped(b, fold_kernel, grid, BLOCK, shared_bytes(a.k), a, live);
}
