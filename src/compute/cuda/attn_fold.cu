/* attn_fold.cu: parts of attention (attn.h) folded by a launch of its own. */
#include "compute/cuda/async.cuh"
#include "compute/cuda/attn_fold.cuh"
#include "compute/cuda/attn_launch.cuh"

enum {
    QUADS = WARP, /* of a block: 128 dims */
    CHUNK = 32,   /* parts on their way at a time */
};

/* Dynamic shared memory: two chunks of parts, then weight and sum of every group. */
typedef struct fold_shared {
    float4 *o; /* [2][CHUNK][QUADS] */
    float *weight, *sum;
} fold_shared;

static inline size_t shared_bytes(const attn_class &k)
{
    return (size_t)2 * CHUNK * QUADS * sizeof(float4) + (size_t)k.max_groups * 2 * sizeof(float);
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

/* All warps bring parts, the first one adds them up. Grid: heads, rows, head_dim / 128. */
static __global__ void __launch_bounds__(BLOCK) fold_kernel(const __grid_constant__ attn_args a, const int32_t *live)
{
    extern __shared__ __align__(16) uint8_t shared[];
    fold_shared s;
    s.o = (float4 *)shared;
    s.weight = (float *)(s.o + 2 * CHUNK * QUADS);
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
    attn_fold all = {0, 0, make_float4(0, 0, 0, 0)};
    for (int first = 0; first < g.n; first += CHUNK) {
        float4 *const o = s.o + first / CHUNK % 2 * CHUNK * QUADS + lane_id();
        const int n = min(g.n - first, (int)CHUNK);
#pragma unroll
        for (int j = 0; j < CHUNK / BLOCK_WARPS; j++) {
            const int i = warp_id() + j * BLOCK_WARPS;
            if (i < n)
                o[i * QUADS] =
                    __ldcg((const float4 *)(part_at(a.k, parts, g.first + first + i) + ATTN_PART_HEAD + dim));
        }
        __syncthreads();
        if (warp_id() > 0) continue; /* the chunk after the next one waits for this warp at the next barrier */
        for (int i = 0; i < n; i++) fold_part(&all, s.weight[first + i], s.sum[first + i], o[i * QUADS]);
    }
    if (warp_id() == 0)
        put_folded(all, a.layer.v_type, a.out + ((size_t)row * n_heads + blockIdx.x) * a.k.head_dim + dim);
}

void attn_fold_launch(const cuda_backend *b, const attn_args &a, const int32_t *live, int n_rows)
{
    const dim3 grid((unsigned)(a.k.heads_per_kv * a.k.n_kv_heads), (unsigned)n_rows,
                    (unsigned)(a.k.head_dim / (4 * QUADS)));
    launch_overlapped(b, fold_kernel, grid, BLOCK, shared_bytes(a.k), a, live);
}
