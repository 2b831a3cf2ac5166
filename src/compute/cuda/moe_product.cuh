/* moe_product.cuh: products of batches of pairs (moe.h) with experts in tile records, and along with them those of a
 * dense branch, whose rows are pairs of their own. Bits are those of product_kernel.cuh: the same records, activations,
 * chains and order of sums.
 *
 * Work is counted in units: a row tile (or a gate tile and its up tile) of one expert for one batch. A block takes
 * neighbouring units, which are runs of one batch each. It packs the activations of some runs (a phase), then its warps
 * take the phase's items by turns: whole units, or single chains where there are few units; the sums of single chains
 * meet in shared memory. */
#ifndef FACET_COMPUTE_CUDA_MOE_PRODUCT_CUH
#define FACET_COMPUTE_CUDA_MOE_PRODUCT_CUH

#include "compute/cuda/moe.h"
#include "compute/cuda/product_kernel.cuh"

enum {
    MOE_DENSE,
    MOE_EXPERTS,
    MOE_KINDS,
    MOE_MAX_WARPS = 16,
    MOE_MAX_RUNS = 32, /* of a block */
    MOE_MAX_SLOTS = 4, /* runs of a phase */
    MOE_MAX_CHAINS = (MOE_MAX_RECORDS + 4) / 5,
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
    int n_rows, n_used, n_experts, columns;
    const int32_t *live;  /* [n_rows] */
    const int32_t *route; /* of one row: its experts */
    moe_work work;
    int warps, stages, slot_bytes, n_slots, most_records; /* slots hold the activations of a run */
    int scales_at, most_at, pairs_at, runs_at, sums_at, ring_at, barriers_at, shared_bytes; /* activations lie first */
} moe_args;

/* Units of a block for one batch. */
typedef struct moe_run {
    int kind, slot;
    bool packs; /* not when the run before has packed the same row */
    moe_batch batch;
    int tile, n; /* the first, and how many */
} moe_run;

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

/* Adds the block's runs of a kind, by one warp; returns how many there are then. Blocks take the units of both kinds
 * from opposite ends, so that those with one more of one kind have one fewer of the other. */
static __device__ inline int add_runs(const moe_args &a, int kind, int n_runs, moe_run *runs)
{
    const int n_tiles = a.parts[kind].n_tiles;
    if (!n_tiles) return n_runs;
    const int grid = (int)gridDim.x, block = kind == MOE_DENSE ? (int)blockIdx.x : grid - 1 - (int)blockIdx.x;
    const int units = batches_of(a, kind) * n_tiles, each = units / grid, more = units % grid;
    const int begin = block * each + min(block, more), end = begin + each + (block < more);
    if (begin >= end) return n_runs;
    const int first = begin / n_tiles, n = (end - 1) / n_tiles - first + 1;
    const bool is_same_row = kind == MOE_EXPERTS && a.n_rows == 1 && a.parts[kind].pairs_per_row > 1;
    for (int i = lane_id(); i < n && n_runs + i < MOE_MAX_RUNS; i += WARP) {
        moe_run r;
        const int index = n_runs + i;
        r.kind = kind;
        r.batch = batch_at(a, kind, first + i);
        r.tile = max(begin - (first + i) * n_tiles, 0);
        r.n = min(end - (first + i) * n_tiles, n_tiles) - r.tile;
        const int packer = max(n_runs, index / a.n_slots * a.n_slots); /* the phase's first run of this kind */
        r.packs = !is_same_row || index == packer;
        r.slot = (is_same_row ? packer : index) % a.n_slots;
        runs[index] = r;
    }
    __syncwarp();
    return min(n_runs + n, (int)MOE_MAX_RUNS);
}

/* Warps that share a unit. */
static __device__ inline int unit_warps(const moe_args &a, int kind)
{
    return a.is_split ? a.parts[kind].n_chains : 1;
}

/* What a warp does at a time: a unit of a run, or one chain of it. */
typedef struct moe_item {
    int run, tile, chain, n; /* records; run -1: there is no such item */
} moe_item;

/* Item i of the phase that begins with run `first`. */
static __device__ inline moe_item item_at(const moe_args &a, const moe_run *runs, int first, int n_runs, int i)
{
    moe_item item = {-1, 0, 0, 0};
    const int end = min(first + a.n_slots, n_runs);
    for (int r = first; r < end; r++) {
        const moe_part &w = a.parts[runs[r].kind];
        const int share = unit_warps(a, runs[r].kind), n = runs[r].n * share;
        if (i >= n) {
            i -= n;
            continue;
        }
        item.run = r;
        item.tile = runs[r].tile + i / share;
        item.chain = i % share;
        item.n = a.is_split ? min(w.chain_len, w.n_records - item.chain * w.chain_len) : w.n_records;
        break;
    }
    return item;
}

/* ---- weights on their way in ---- */

template <int MT> struct moe_feed {
    int first, i; /* the phase's first run; the next item in it */
    int left, bytes;
    const uint8_t *at[MT];
};

/* The next item of this warp among the runs that are known; with is_final those are all. */
template <int MT>
static __device__ inline void moe_feed_open(const moe_args &a, const moe_run *runs, int n_runs, bool is_final,
                                            moe_feed<MT> *f)
{
    while (f->left == 0 && f->first < n_runs) {
        const moe_item item = item_at(a, runs, f->first, n_runs, f->i);
        if (item.run < 0) {
            if (!is_final) return; /* the phase may go on */
            f->first += a.n_slots;
            f->i = warp_id();
            continue;
        }
        const moe_part &w = a.parts[runs[item.run].kind];
        f->i += a.warps;
        f->left = item.n;
        f->bytes = w.record_bytes;
#pragma unroll
        for (int m = 0; m < MT; m++)
            f->at[m] = w.tiles[m] + (size_t)runs[item.run].batch.expert * w.expert_bytes +
                       ((size_t)item.tile * w.n_records + item.chain * w.chain_len) * w.record_bytes;
    }
}

template <int MT>
static __device__ inline void moe_feed_stage(const moe_args &a, const moe_run *runs, int n_runs, bool is_final,
                                             const ring &r, int stage, moe_feed<MT> *f)
{
    ring_fill<MT>(r, stage, f->at, f->left > 0, f->bytes, a.slot_bytes);
    if (!f->left) return;
#pragma unroll
    for (int m = 0; m < MT; m++) f->at[m] += f->bytes;
    if (--f->left == 0) moe_feed_open<MT>(a, runs, n_runs, is_final, f);
}

/* ---- activations ---- */

/* A column of a phase: a row of activations to be packed. */
typedef struct moe_column {
    int run, column; /* run -1: none */
} moe_column;

static __device__ inline moe_column column_at(const moe_args &a, const moe_run *runs, int first, int end, int i)
{
    for (int r = first; r < end; r++) {
        if (!runs[r].packs) continue;
        if (i < runs[r].batch.n) return {r, i};
        i -= runs[r].batch.n;
    }
    return {-1, 0};
}

static __device__ inline int pair_of(const moe_args &a, const moe_run &r, int column)
{
    return r.kind == MOE_DENSE || a.n_rows == 1 ? r.batch.first + column
                                                : __ldcg(a.work.pairs + r.batch.first + column);
}

/* One record of a column, in registers. */
typedef struct moe_packing {
    moe_column c;
    int record;
    float4 low, high;
} moe_packing;

static __device__ inline uint4 *slot_at(const moe_args &a, uint8_t *shared, int slot)
{
    return (uint4 *)shared + slot * a.most_records * 32 * product_stride(a.columns);
}

static __device__ inline float *scales_at(const moe_args &a, uint8_t *shared, int slot, int chain)
{
    return (float *)(shared + a.scales_at) + (slot * MOE_MAX_CHAINS + chain) * a.columns;
}

/* Scales a record by its chain's power of two and stores it. most: of the column's records. */
static __device__ inline void store_packed(const moe_args &a, const moe_run &r, moe_packing *p, const float *most,
                                           uint8_t *shared)
{
    const moe_part &w = a.parts[r.kind];
    const int stride = product_stride(a.columns), chain = p->record / w.chain_len;
    const int end = min((chain + 1) * w.chain_len, w.n_records);
    float largest = 0, inverse;
    for (int k = chain * w.chain_len; k < end; k++) largest = fmaxf(largest, most[k]);
    const float scale = chain_scale(largest, &inverse);
    if (lane_id() == 0) scales_at(a, shared, r.slot, chain)[p->c.column] = inverse;
    p->low = scaled(p->low, scale);
    p->high = scaled(p->high, scale);
    slot_at(a, shared, r.slot)[(p->record * 32 + lane_id() / 4 * 4) * stride + p->c.column * 4 + lane_id() % 4] =
        words_of(&p->low, &p->high);
}

/* The activations of a phase, as product_kernel.cuh packs them: the largest values of all records first, then each
 * chain's scale. Ends with a barrier. */
static __device__ inline void pack_phase(const moe_args &a, const moe_run *runs, int first, int n_runs, uint8_t *shared)
{
    float *most = (float *)(shared + a.most_at);
    int *pairs = (int *)(shared + a.pairs_at);
    const int end = min(first + a.n_slots, n_runs), at_once = a.warps * MOE_PACKED / a.most_records;
    for (int r = first; r < end; r++)
        for (int c = (int)threadIdx.x; c < runs[r].batch.n; c += (int)blockDim.x)
            pairs[(r - first) * a.columns + c] = pair_of(a, runs[r], c);
    for (int base = 0; column_at(a, runs, first, end, base).run >= 0; base += at_once) {
        moe_packing jobs[MOE_PACKED];
#pragma unroll
        for (int i = 0; i < MOE_PACKED; i++) {
            moe_packing *p = &jobs[i];
            const int job = warp_id() + i * a.warps;
            p->record = job % a.most_records;
            p->c = job < at_once * a.most_records ? column_at(a, runs, first, end, base + job / a.most_records)
                                                  : moe_column{-1, 0};
            if (p->c.run >= 0 && p->record >= a.parts[runs[p->c.run].kind].n_records) p->c.run = -1;
            if (p->c.run < 0) continue;
            const moe_part &w = a.parts[runs[p->c.run].kind];
            const int pair = pair_of(a, runs[p->c.run], p->c.column);
            const float *x = w.x + (size_t)(w.pairs_per_row == 1 ? pair : pair / w.pairs_per_row) * w.n_in;
            const uint32_t at = (uint32_t)(p->record * TILE_K + 64 * (lane_id() % 4) + lane_id() / 4 * 4);
            p->low = load_activations(x, at, w.n_in);
            p->high = load_activations(x, at + 32, w.n_in);
        }
#pragma unroll
        for (int i = 0; i < MOE_PACKED; i++) {
            if (jobs[i].c.run < 0) continue;
            const float largest = warp_max(most_of(most_of(0, jobs[i].low), jobs[i].high));
            if (lane_id() == 0) most[warp_id() + i * a.warps] = largest;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < MOE_PACKED; i++)
            if (jobs[i].c.run >= 0)
                store_packed(a, runs[jobs[i].c.run], &jobs[i], most + (warp_id() + i * a.warps) - jobs[i].record,
                             shared);
        __syncthreads();
    }
}

/* ---- one chain ---- */

template <int T, int NT, int MT>
static __device__ inline void moe_sum(const moe_args &a, const moe_part &w, const uint4 *x, int stride, int n,
                                      const moe_run *runs, int n_runs, ring *r, moe_feed<MT> *f, float acc[MT][NT][4])
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
                moe_feed_stage<MT>(a, runs, n_runs, true, *r, r->stage, f);
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
static __device__ inline void moe_chains(const moe_args &a, const moe_item &item, uint8_t *shared, const moe_run *runs,
                                         int n_runs, ring *r, moe_feed<MT> *f, float acc[MT][NT][4])
{
    const moe_run &run = runs[item.run];
    const moe_part &w = a.parts[run.kind];
    const int stride = product_stride(a.columns), lane_at = min(lane_id(), 4 * a.columns - 4 + lane_id() % 4);
    for (int at = 0, chain = item.chain; at < item.n; chain++) {
        const int n = min(w.chain_len, item.n - at);
        const uint4 *x =
            slot_at(a, shared, run.slot) + chain * w.chain_len * 32 * stride + (NT == 1 ? lane_at : lane_id());
        float sum[MT][NT][4];
        clear<NT, MT>(sum);
        switch (w.type) {
#define MOE_CASE(T)                                                                                                    \
    case T: moe_sum<T, NT, MT>(a, w, x, stride, n, runs, n_runs, r, f, sum); break;
            MOE_TYPES(MOE_CASE)
#undef MOE_CASE
        default: break;
        }
        add_scaled<NT, MT>(a, scales_at(a, shared, run.slot, chain), at == 0, sum, acc);
        at += n;
    }
}

/* ---- results ---- */

/* Sums of single chains: [item of the phase][row tile][n8 tile][lane]. */
template <int NT, int MT> static __device__ inline float4 *sums_of(const moe_args &a, uint8_t *shared, int i)
{
    return (float4 *)(shared + a.sums_at) + i * MT * NT * WARP + lane_id();
}

template <int NT, int MT> static __device__ inline void store_chain(float4 *to, const float acc[MT][NT][4])
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            const float *v = acc[m][nt];
            to[(m * NT + nt) * WARP] = make_float4(v[0], v[1], v[2], v[3]);
        }
}

/* acc = the chains of a unit in order. */
template <int NT, int MT>
static __device__ inline void add_chains(const float4 *from, int n_chains, float acc[MT][NT][4])
{
    for (int c = 0; c < n_chains; c++)
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                const float4 v = from[((c * MT + m) * NT + nt) * WARP];
                acc[m][nt][0] = c ? __fadd_rn(acc[m][nt][0], v.x) : v.x;
                acc[m][nt][1] = c ? __fadd_rn(acc[m][nt][1], v.y) : v.y;
                acc[m][nt][2] = c ? __fadd_rn(acc[m][nt][2], v.z) : v.z;
                acc[m][nt][3] = c ? __fadd_rn(acc[m][nt][3], v.w) : v.w;
            }
}

/* pairs: of the run's columns. */
template <int NT, int MT>
static __device__ inline void put_unit(const moe_args &a, const moe_run &run, int tile, const int *pairs,
                                       const float acc[MT][NT][4])
{
    const moe_part &w = a.parts[run.kind];
    const float expert_scale = w.expert_scale ? w.expert_scale[run.batch.expert] : 1.0f;
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int column = nt * 8 + 2 * (lane_id() % 4) + j % 2;
            const uint32_t n = (uint32_t)(tile * TILE_M + lane_id() / 4 + 8 * (j / 2));
            if (column >= run.batch.n || n >= w.n_out) continue;
            const int pair = pairs[column];
            if (run.kind == MOE_DENSE && a.live[pair] < 0) continue;
            float y = expert_scale * (w.scale[0] * acc[0][nt][j]);
            if (a.is_gated) y = activate(a.activation, y) * (expert_scale * (w.scale[1] * acc[MT - 1][nt][j]));
            w.out[(size_t)pair * w.n_out + n] = y;
        }
}

/* The units of a phase whose chains were summed apart. */
template <int NT, int MT>
static __device__ inline void join_phase(const moe_args &a, const moe_run *runs, int first, int n_runs, uint8_t *shared)
{
    const int *pairs = (const int *)(shared + a.pairs_at);
    __syncthreads();
    for (int i = 0, turn = 0;; turn++) {
        const moe_item item = item_at(a, runs, first, n_runs, i);
        if (item.run < 0) break;
        const int n_chains = unit_warps(a, runs[item.run].kind);
        if (n_chains > 1 && turn % a.warps == warp_id()) {
            float acc[MT][NT][4];
            add_chains<NT, MT>(sums_of<NT, MT>(a, shared, i), n_chains, acc);
            put_unit<NT, MT>(a, runs[item.run], item.tile, pairs + (item.run - first) * a.columns, acc);
        }
        i += n_chains;
    }
}

template <int NT, int MT>
static __global__ void __launch_bounds__(MOE_MAX_WARPS *WARP, 1) moe_kernel(const __grid_constant__ moe_args a)
{
    extern __shared__ __align__(128) uint8_t shared[];
    moe_run *runs = (moe_run *)(shared + a.runs_at);
    int *n_known = (int *)(runs + MOE_MAX_RUNS), *pairs = (int *)(shared + a.pairs_at);
    const int stage_bytes = MT * a.slot_bytes;
    ring r;
    ring_init(&r, shared + a.ring_at + warp_id() * a.stages * stage_bytes,
              (uint64_t *)(shared + a.barriers_at) + warp_id() * a.stages, a.stages, stage_bytes);
    if (warp_id() == 0) {
        const int n = add_runs(a, MOE_DENSE, 0, runs);
        if (lane_id() == 0) n_known[0] = n;
    }
    __syncthreads();
    moe_feed<MT> f = {};
    f.i = warp_id();
    int n_runs = n_known[0], filled = 0;
    moe_feed_open<MT>(a, runs, n_runs, false, &f);
    for (; filled < a.stages && f.left > 0; filled++) moe_feed_stage<MT>(a, runs, n_runs, false, r, filled, &f);
    wait_for_predecessors();
    release_dependents();
    if (warp_id() == 0) {
        const int n = add_runs(a, MOE_EXPERTS, n_runs, runs);
        if (lane_id() == 0) n_known[1] = n;
    }
    __syncthreads();
    n_runs = n_known[1];
    moe_feed_open<MT>(a, runs, n_runs, true, &f);
    for (; filled < a.stages; filled++) moe_feed_stage<MT>(a, runs, n_runs, true, r, filled, &f);

    float acc[MT][NT][4];
    for (int first = 0; first < n_runs; first += a.n_slots) {
        if (first > 0) __syncthreads(); /* the activations of the phase before have been read */
        pack_phase(a, runs, first, n_runs, shared);
        for (int i = warp_id();; i += a.warps) {
            const moe_item item = item_at(a, runs, first, n_runs, i);
            if (item.run < 0) break;
            moe_chains<NT, MT>(a, item, shared, runs, n_runs, &r, &f, acc);
            if (unit_warps(a, runs[item.run].kind) > 1)
                store_chain<NT, MT>(sums_of<NT, MT>(a, shared, i), acc);
            else
                put_unit<NT, MT>(a, runs[item.run], item.tile, pairs + (item.run - first) * a.columns, acc);
        }
        if (a.is_split) join_phase<NT, MT>(a, runs, first, n_runs, shared);
    }
}

typedef void (*moe_fn)(moe_args a);

/* moe_product_N.cu: the kernel for N n8 tiles of columns, and for one row tile or a gate and its up tile. */
moe_fn moe_kernel_1(bool is_gated);
moe_fn moe_kernel_2(bool is_gated);

#endif
