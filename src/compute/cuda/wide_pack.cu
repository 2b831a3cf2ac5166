/* wide_pack.cu: activations as f16, scaled by chain, in the order of wide_chunk(). One warp per row and chain. */
#include "compute/cuda/activations.cuh"
#include "compute/cuda/async.cuh"
#include "compute/cuda/wide.cuh"

enum { MOST_RECORDS = TILE_MAX_CHAIN / 2 }; /* of one half of a warp */

/* A lane holds pair i, words 2 s and 2 s + 1, of every second record of the chain, for all t. */
typedef struct pack_lane_state {
    int half, s, i, n; /* n: records of the chain */
    float4 v[MOST_RECORDS][4];
} pack_lane_state;

static __device__ inline float load_chain(const wide_pack_args &a, const float *x, int first, pack_lane_state *l)
{
    float most = 0;
#pragma unroll
    for (int k = 0; k < MOST_RECORDS; k++) {
        const int record = first + 2 * k + l->half;
        if (2 * k + l->half >= l->n) break;
#pragma unroll
        for (int t = 0; t < 4; t++)
            l->v[k][t] = load_activations(x, (uint32_t)(record * TILE_K + 64 * t + 32 * l->s + 4 * l->i), a.n_in);
    }
#pragma unroll
    for (int k = 0; k < MOST_RECORDS; k++) {
        if (2 * k + l->half >= l->n) break;
#pragma unroll
        for (int t = 0; t < 4; t++) most = most_of(most, l->v[k][t]);
    }
    return warp_max(most);
}

/* Two chunks of one plane; v keeps what they leave. */
static __device__ inline void store_chunks(uint8_t *at, int other, float4 v[4])
{
    uint32_t even[4], odd[4];
#pragma unroll
    for (int t = 0; t < 4; t++) {
        even[t] = pair_of(&v[t].x, &v[t].z);
        odd[t] = pair_of(&v[t].y, &v[t].w);
    }
    *(uint4 *)at = make_uint4(even[0], even[1], even[2], even[3]);
    *(uint4 *)(at + other) = make_uint4(odd[0], odd[1], odd[2], odd[3]);
}

/* Grid: rows times chains over the warps of a block. */
static __global__ void __launch_bounds__(BLOCK) wide_pack_kernel(const wide_pack_args a)
{
    release_dependents();
    wait_for_predecessors();
    const int index = (int)blockIdx.x * BLOCK_WARPS + warp_id(), row = index / a.n_chains, chain = index % a.n_chains;
    if (row >= a.n_rows || a.live[row] < 0) return;
    const int block = row / a.columns, column = row % a.columns, first = chain * a.chain_len, lane = lane_id();
    pack_lane_state l = {lane / 16, lane % 16 / 8, lane % 8, min(a.chain_len, a.n_records - first)};
    float inverse, scale = chain_scale(load_chain(a, a.x + (size_t)row * a.n_in, first, &l), &inverse);
    if (lane == 0) a.scales[((size_t)block * a.n_chains + chain) * a.columns + column] = inverse;
    const size_t record_bytes = (size_t)4 * a.n_planes * a.columns * WIDE_COLUMN_BYTES;
    const uint32_t at = wide_chunk(column, l.i, l.s, 0, a.columns, a.n_planes);
    const int other = (int)wide_chunk(column, l.i, l.s, 1, a.columns, a.n_planes) - (int)at;
#pragma unroll
    for (int k = 0; k < MOST_RECORDS; k++) {
        if (2 * k + l.half >= l.n) break;
        uint8_t *out = a.out + ((size_t)block * a.n_records + first + 2 * k + l.half) * record_bytes + at;
#pragma unroll
        for (int t = 0; t < 4; t++) l.v[k][t] = scaled(l.v[k][t], scale);
        store_chunks(out, other, l.v[k]);
        if (a.n_planes == 2) store_chunks(out + a.columns * WIDE_COLUMN_BYTES, other, l.v[k]);
    }
}

void wide_pack(const cuda_backend *b, const wide_pack_args *a)
{
    const unsigned grid = n_blocks((size_t)a->n_rows * (size_t)a->n_chains, BLOCK_WARPS);
    launch_overlapped(b, wide_pack_kernel, dim3(grid), BLOCK, 0, *a);
}
