/* moe_product.cuh: products of batches of pairs (moe.h) with experts in tile records, and along with them those of a
 * dense branch, whose rows are pairs of their own. Bits are those of product_kernel.cuh: the same records, activations,
 * chains and order of sums.
 *
 * Work is counted in units: a row tile (or a gate tile and its up tile) of one expert for one batch. A block takes a
 * run of neighbouring units; where the batch changes, it packs the next one's activations. Where there are few units,
 * warps take single chains of a round's units, whose sums meet in shared memory; else a warp takes a unit. */
#ifndef FACET_COMPUTE_CUDA_MOE_PRODUCT_CUH
#define FACET_COMPUTE_CUDA_MOE_PRODUCT_CUH

#include "compute/cuda/moe.h"
#include "compute/cuda/product_kernel.cuh"

enum {
    MOE_DENSE,
    MOE_EXPERTS,
    MOE_KINDS,
    MOE_MAX_WARPS = 16,
};

/* The matrices of one kind, which read the same rows. */
typedef struct moe_part {
    const uint8_t *tiles[2]; /* gate and up; or the only one */
    size_t expert_bytes;     /* from one expert's tiles to the next */
    tensor_type type;
    int record_bytes;
    float gain[2], scale[2];   /* scale: of the sum, the op's / gain */
    const float *expert_scale; /* [n_experts] or NULL */
    int n_tiles, n_records, chain_len, n_chains;
    uint32_t n_in, n_out;
    const float *x; /* row pair / pairs_per_row, [n_in] */
    int pairs_per_row;
    float *out; /* [pair, n_out] */
} moe_part;

typedef struct moe_args {
    moe_part parts[MOE_KINDS]; /* n_tiles = 0: none of that kind */
    bool is_gated;
    op_activation activation;
    bool is_split; /* warps take single chains */
    int n_rows, n_used, columns;
    const int32_t *live;  /* [n_rows] */
    const int32_t *route; /* of one row: its experts */
    moe_work work;
    int warps, stages, slot_bytes;
    int scales_at, most_at, pairs_at, sums_at, ring_at, barriers_at, shared_bytes; /* activations lie first */
} moe_args;

/* Where a warp is in its block's units. */
typedef struct moe_cursor {
    int kind, at, run_end, end;
    bool is_open;
    moe_batch batch;
    int first_unit; /* of the batch */
} moe_cursor;

/* What a warp does in a round. */
typedef struct moe_item {
    int tile, chain, n; /* the first chain, and records; 0: nothing */
} moe_item;

static __device__ inline int batches_of(const moe_args &a, int kind)
{
    if (kind == MOE_DENSE) return (a.n_rows + a.columns - 1) / a.columns;
    return a.n_rows == 1 ? a.n_used : __ldcg(a.work.n_batches);
}

static __device__ inline moe_batch batch_at(const moe_args &a, int kind, int index)
{
    if (kind == MOE_DENSE) return {0, index * a.columns, min(a.columns, a.n_rows - index * a.columns), 0};
    if (a.n_rows == 1) return {__ldcg(a.route + index), index, 1, 0};
    const int4 v = __ldcg((const int4 *)(a.work.batches + index));
    return {v.x, v.y, v.z, 0};
}

static __device__ inline void open_run(const moe_args &a, moe_cursor *c)
{
    const int n_tiles = a.parts[c->kind].n_tiles, index = c->at / n_tiles;
    c->batch = batch_at(a, c->kind, index);
    c->first_unit = index * n_tiles;
    c->run_end = min(c->end, c->first_unit + n_tiles);
}

/* The first run of the cursor's kind, or of the next one that has any. Experts are read only when `may_wait` is over:
 * who reads them is written by the kernel before. Blocks take the units of both kinds from opposite ends, so that those
 * with one more of one kind have one fewer of the other. */
static __device__ inline void open_kind(const moe_args &a, bool knows_experts, moe_cursor *c)
{
    while (!c->is_open && c->kind < MOE_KINDS && (c->kind == MOE_DENSE || knows_experts)) {
        const int n_tiles = a.parts[c->kind].n_tiles;
        const int64_t units = n_tiles ? (int64_t)batches_of(a, c->kind) * n_tiles : 0;
        const int64_t block = c->kind == MOE_DENSE ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
        c->at = (int)(units * block / gridDim.x);
        c->end = (int)(units * (block + 1) / gridDim.x);
        c->is_open = c->at < c->end;
        if (c->is_open)
            open_run(a, c);
        else
            c->kind++;
    }
}

/* Warps that share a unit. */
static __device__ inline int unit_warps(const moe_args &a, int kind)
{
    return a.is_split ? a.parts[kind].n_chains : 1;
}

static __device__ inline void next_round(const moe_args &a, bool knows_experts, moe_cursor *c)
{
    c->at += a.warps / unit_warps(a, c->kind);
    if (c->at < c->run_end) return;
    c->at = c->run_end;
    if (c->at < c->end) {
        open_run(a, c);
        return;
    }
    c->is_open = false;
    c->kind++;
    open_kind(a, knows_experts, c);
}

static __device__ inline moe_item item_of(const moe_args &a, const moe_cursor &c)
{
    const moe_part &w = a.parts[c.kind];
    const int share = unit_warps(a, c.kind), unit = c.at + warp_id() / share;
    moe_item i;
    i.chain = warp_id() % share;
    i.tile = unit - c.first_unit;
    i.n = a.is_split ? min(w.chain_len, w.n_records - i.chain * w.chain_len) : w.n_records;
    if (warp_id() >= a.warps / share * share || unit >= c.run_end) i.n = 0;
    return i;
}

/* ---- weights on their way in ---- */

template <int MT> struct moe_feed {
    moe_cursor c;
    int left, bytes;
    const uint8_t *at[MT];
};

/* The next item of this warp, if it may be known. */
template <int MT> static __device__ inline void moe_feed_open(const moe_args &a, bool knows_experts, moe_feed<MT> *f)
{
    open_kind(a, knows_experts, &f->c);
    while (f->left == 0 && f->c.is_open) {
        const moe_part &w = a.parts[f->c.kind];
        const moe_item i = item_of(a, f->c);
        f->left = i.n;
        f->bytes = w.record_bytes;
#pragma unroll
        for (int m = 0; m < MT; m++)
            f->at[m] = w.tiles[m] + (size_t)f->c.batch.expert * w.expert_bytes +
                       ((size_t)i.tile * w.n_records + i.chain * w.chain_len) * w.record_bytes;
        next_round(a, knows_experts, &f->c);
    }
}

template <int MT>
static __device__ inline void moe_feed_stage(const moe_args &a, bool knows_experts, const ring &r, int stage,
                                             moe_feed<MT> *f)
{
    ring_fill<MT>(r, stage, f->at, f->left > 0, f->bytes, a.slot_bytes);
    if (!f->left) return;
#pragma unroll
    for (int m = 0; m < MT; m++) f->at[m] += f->bytes;
    if (--f->left == 0) moe_feed_open<MT>(a, knows_experts, f);
}

/* ---- activations ---- */

/* The activations of a batch, as product_kernel.cuh packs them: the largest values of all records first, then each
 * chain's scale. Begins and ends with a barrier. */
static __device__ inline void pack_batch(const moe_args &a, const moe_part &w, int kind, const moe_batch &batch,
                                         uint8_t *shared)
{
    float *scales = (float *)(shared + a.scales_at), *most = (float *)(shared + a.most_at);
    int *pairs = (int *)(shared + a.pairs_at);
    const int step = max(a.warps * MOE_PACKED / w.n_records, 1), stride = product_stride(a.columns);
    __syncthreads(); /* the last batch's activations have been read */
    for (int c = (int)threadIdx.x; c < batch.n; c += (int)blockDim.x)
        pairs[c] = kind == MOE_DENSE || a.n_rows == 1 ? batch.first + c : __ldcg(a.work.pairs + batch.first + c);
    __syncthreads();
    for (int base = 0; base < batch.n; base += step) {
        const int n_jobs = min(step, batch.n - base) * w.n_records;
        float4 low[MOE_PACKED], high[MOE_PACKED];
#pragma unroll
        for (int i = 0; i < MOE_PACKED; i++) {
            const int job = warp_id() + i * a.warps, column = base + job / w.n_records, record = job % w.n_records;
            if (job >= n_jobs) break;
            const float *x = w.x + (size_t)(pairs[column] / w.pairs_per_row) * w.n_in;
            const uint32_t at = (uint32_t)(record * TILE_K + 64 * (lane_id() % 4) + lane_id() / 4 * 4);
            low[i] = load_activations(x, at, w.n_in);
            high[i] = load_activations(x, at + 32, w.n_in);
        }
#pragma unroll
        for (int i = 0; i < MOE_PACKED; i++) {
            const int job = warp_id() + i * a.warps;
            if (job >= n_jobs) break;
            const float largest = warp_max(most_of(most_of(0, low[i]), high[i]));
            if (lane_id() == 0) most[job] = largest;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < MOE_PACKED; i++) {
            const int job = warp_id() + i * a.warps, local = job / w.n_records, record = job % w.n_records;
            if (job >= n_jobs) break;
            const int chain = record / w.chain_len, end = min((chain + 1) * w.chain_len, w.n_records);
            float largest = 0, inverse;
            for (int k = chain * w.chain_len; k < end; k++) largest = fmaxf(largest, most[local * w.n_records + k]);
            const float scale = chain_scale(largest, &inverse);
            if (lane_id() == 0) scales[chain * a.columns + base + local] = inverse;
            low[i] = scaled(low[i], scale);
            high[i] = scaled(high[i], scale);
            uint4 *out =
                (uint4 *)shared + (record * 32 + lane_id() / 4 * 4) * stride + (base + local) * 4 + lane_id() % 4;
            *out = words_of(&low[i], &high[i]);
        }
        __syncthreads();
    }
}

/* ---- one chain ---- */

template <int T, int NT, int MT>
static __device__ inline void moe_sum(const moe_args &a, const moe_part &w, const uint4 *x, int stride, int n,
                                      bool knows_experts, ring *r, moe_feed<MT> *f, float acc[MT][NT][4])
{
    for (int s = 0; s < n; s++, x += 32 * stride) {
        const uint8_t *record = ring_wait(*r);
        uint32_t words[MT][8];
        tile_part<T> part[MT];
#pragma unroll
        for (int j = 0; j < 2; j++) {
#pragma unroll
            for (int m = 0; m < MT; m++) part[m].load(record + m * a.slot_bytes, lane_id(), j, w.gain[m]);
            if (j == 1) {
                __syncwarp();
                moe_feed_stage<MT>(a, knows_experts, *r, r->stage, f);
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int m = 0; m < MT; m++) part[m].words(i, words[m]);
                multiply_pair<NT, MT>(words, x, 4 * j + i, stride, acc);
            }
        }
        ring_next(r);
    }
}

/* X(type): those with records that are no floats. */
#define MOE_TYPES(X)                                                                                                   \
    X(TYPE_Q4_0) X(TYPE_Q4_1) X(TYPE_Q5_0) X(TYPE_Q5_1) X(TYPE_Q8_0) X(TYPE_Q4_K) X(TYPE_Q5_K) X(TYPE_Q6_K)

template <int NT, int MT> static __device__ inline void clear(float acc[MT][NT][4])
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
            for (int j = 0; j < 4; j++) acc[m][nt][j] = 0;
}

/* acc += sum: what chain number `chain` has summed, unscaled. */
template <int NT, int MT>
static __device__ inline void add_scaled(const moe_args &a, const float *scales, bool is_first,
                                         const float sum[MT][NT][4], float acc[MT][NT][4])
{
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        const int c = nt * 8 + 2 * (lane_id() % 4);
        const float scale[2] = {c < a.columns ? scales[c] : 0, c + 1 < a.columns ? scales[c + 1] : 0};
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float v = __fmul_rn(sum[m][nt][j], scale[j % 2]);
                acc[m][nt][j] = is_first ? v : __fadd_rn(acc[m][nt][j], v);
            }
    }
}

/* The item's chains, added in order. */
template <int NT, int MT>
static __device__ inline void moe_chains(const moe_args &a, const moe_part &w, const moe_item &item,
                                         const uint8_t *shared, bool knows_experts, ring *r, moe_feed<MT> *f,
                                         float acc[MT][NT][4])
{
    const int stride = product_stride(a.columns), lane_at = min(lane_id(), 4 * a.columns - 4 + lane_id() % 4);
    for (int at = 0, chain = item.chain; at < item.n; chain++) {
        const int n = min(w.chain_len, item.n - at);
        const uint4 *x = (const uint4 *)shared + chain * w.chain_len * 32 * stride + (NT == 1 ? lane_at : lane_id());
        float sum[MT][NT][4];
        clear<NT, MT>(sum);
        switch (w.type) {
#define MOE_CASE(T)                                                                                                    \
    case T: moe_sum<T, NT, MT>(a, w, x, stride, n, knows_experts, r, f, sum); break;
            MOE_TYPES(MOE_CASE)
#undef MOE_CASE
        default: break;
        }
        const float *scales = (const float *)(shared + a.scales_at) + chain * a.columns;
        add_scaled<NT, MT>(a, scales, at == 0, sum, acc);
        at += n;
    }
}

/* ---- results ---- */

/* Sums of a round's chains meet in shared memory: [warp][row tile][n8 tile][lane]. */
template <int NT, int MT>
static __device__ inline void add_chains(const moe_args &a, const moe_part &w, int round, uint8_t *shared,
                                         float acc[MT][NT][4])
{
    float4 *sums = (float4 *)(shared + a.sums_at) + ((round & 1) * a.warps + warp_id()) * MT * NT * WARP + lane_id();
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            const float *v = acc[m][nt];
            sums[(m * NT + nt) * WARP] = make_float4(v[0], v[1], v[2], v[3]);
        }
    __syncthreads();
    if (warp_id() % w.n_chains != 0) return;
    for (int c = 1; c < w.n_chains; c++)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                const float4 v = sums[((c * MT + m) * NT + nt) * WARP];
                acc[m][nt][0] = __fadd_rn(acc[m][nt][0], v.x);
                acc[m][nt][1] = __fadd_rn(acc[m][nt][1], v.y);
                acc[m][nt][2] = __fadd_rn(acc[m][nt][2], v.z);
                acc[m][nt][3] = __fadd_rn(acc[m][nt][3], v.w);
            }
}

template <int NT, int MT>
static __device__ inline void put_unit(const moe_args &a, const moe_cursor &c, int tile, const uint8_t *shared,
                                       const float acc[MT][NT][4])
{
    const moe_part &w = a.parts[c.kind];
    const int *pairs = (const int *)(shared + a.pairs_at);
    const float expert_scale = w.expert_scale ? w.expert_scale[c.batch.expert] : 1.0f;
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int column = nt * 8 + 2 * (lane_id() % 4) + j % 2;
            const uint32_t n = (uint32_t)(tile * TILE_M + lane_id() / 4 + 8 * (j / 2));
            if (column >= c.batch.n || n >= w.n_out) continue;
            const int pair = pairs[column];
            if (c.kind == MOE_DENSE && a.live[pair] < 0) continue;
            float y = expert_scale * (w.scale[0] * acc[0][nt][j]);
            if (a.is_gated) y = activate(a.activation, y) * (expert_scale * (w.scale[1] * acc[MT - 1][nt][j]));
            w.out[(size_t)pair * w.n_out + n] = y;
        }
}

template <int NT, int MT>
static __global__ void __launch_bounds__(MOE_MAX_WARPS *WARP, 1) moe_kernel(const __grid_constant__ moe_args a)
{
    extern __shared__ __align__(128) uint8_t shared[];
    const int stage_bytes = MT * a.slot_bytes;
    ring r;
    ring_init(&r, shared + a.ring_at + warp_id() * a.stages * stage_bytes,
              (uint64_t *)(shared + a.barriers_at) + warp_id() * a.stages, a.stages, stage_bytes);
    moe_feed<MT> f = {};
    int filled = 0;
    moe_feed_open<MT>(a, false, &f);
    for (; filled < a.stages && f.left > 0; filled++) moe_feed_stage<MT>(a, false, r, filled, &f);
    wait_for_predecessors();
    release_dependents();
    if (f.left == 0) moe_feed_open<MT>(a, true, &f);
    for (; filled < a.stages; filled++) moe_feed_stage<MT>(a, true, r, filled, &f);

    moe_cursor c = {};
    float acc[MT][NT][4];
    int packed = -1, kind = -1; /* first unit and kind of the batch whose activations are here */
    open_kind(a, true, &c);
    for (int round = 0; c.is_open; round++) {
        const moe_part &w = a.parts[c.kind];
        if (kind != c.kind || packed != c.first_unit) pack_batch(a, w, c.kind, c.batch, shared);
        kind = c.kind;
        packed = c.first_unit;
        const moe_item item = item_of(a, c);
        if (item.n > 0) moe_chains<NT, MT>(a, w, item, shared, true, &r, &f, acc);
        if (unit_warps(a, c.kind) > 1) add_chains<NT, MT>(a, w, round, shared, acc);
        if (item.n > 0 && item.chain == 0) put_unit<NT, MT>(a, c, item.tile, shared, acc);
        next_round(a, true, &c);
    }
}

typedef void (*moe_fn)(moe_args a);

/* moe_product_N.cu: the kernel for N n8 tiles of columns, and for one row tile or a gate and its up tile. */
moe_fn moe_kernel_1(bool is_gated);
moe_fn moe_kernel_2(bool is_gated);

#endif
