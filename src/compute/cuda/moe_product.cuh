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
    int scales_at, most_at, pairs_at, runs_at, items_at, sums_at, ring_at, barriers_at,
        shared_bytes; /* activations lie first */
} moe_args;

/* Units of a block for one batch. */
typedef struct moe_run {
    int kind, slot;
    bool packs; /* not when the run before has packed the same row */
    moe_batch batch;
    int tile, n; /* the first, and how many */
    int items;   /* number of its first item */
} moe_run;

/* What a warp does at a time: a unit of a run, or one chain of it. Items lie in shared memory, in the order of runs. */
typedef struct moe_item {
    const uint8_t *tiles[2]; /* its first record, of gate and up */
    int16_t run, chain;
    int16_t tile, n; /* records */
} moe_item;
static_assert(sizeof(moe_item) == MOE_ITEM_BYTES, "");

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

/* Warps that share a unit. */
static __device__ inline int unit_warps(const moe_args &a, int kind)
{
    return a.is_split ? a.parts[kind].n_chains : 1;
}

/* Adds the block's runs of a kind, by one warp; returns how many there are then. Behind the last one lies a run of
 * which `items` alone is set. Blocks take the units of both kinds from opposite ends, so that those with one more of
 * one kind have one fewer of the other. */
static __device__ inline int add_runs(const moe_args &a, int kind, int n_runs, moe_run *runs)
{
    const int n_tiles = a.parts[kind].n_tiles;
    if (!n_tiles) return n_runs;
    const int grid = (int)gridDim.x, block = kind == MOE_DENSE ? (int)blockIdx.x : grid - 1 - (int)blockIdx.x;
    const int units = batches_of(a, kind) * n_tiles, each = units / grid, more = units % grid;
    const int begin = block * each + min(block, more), end = begin + each + (block < more);
    if (begin >= end) return n_runs;
    const int first = begin / n_tiles, n = (end - 1) / n_tiles - first + 1, first_item = runs[n_runs].items;
    const bool is_same_row = kind == MOE_EXPERTS && a.n_rows == 1 && a.parts[kind].pairs_per_row > 1;
    for (int i = lane_id(); i < n && n_runs + i < MOE_MAX_RUNS; i += WARP) {
        moe_run r = {};
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
    const int total = min(n_runs + n, (int)MOE_MAX_RUNS), mine = n_runs + lane_id();
    const int n_items = mine < total ? runs[mine].n * unit_warps(a, kind) : 0;
    int items_end = first_item + n_items;
    for (int i = 1; i < WARP; i *= 2) {
        const int before = __shfl_up_sync(0xffffffffu, items_end - first_item, i);
        if (lane_id() >= i) items_end += before;
    }
    if (mine < total) runs[mine].items = items_end - n_items;
    if (mine == total - 1) runs[total].items = items_end;
    __syncwarp();
    return total;
}

/* Lists the items of the runs from `first` on, by the whole block. */
static __device__ inline void list_items(const moe_args &a, const moe_run *runs, int first, int n_runs, moe_item *items)
{
    for (int r = first; r < n_runs; r++) {
        const moe_run &run = runs[r];
        const moe_part &w = a.parts[run.kind];
        const int share = unit_warps(a, run.kind);
        for (int i = (int)threadIdx.x; i < run.n * share; i += (int)blockDim.x) {
            const int tile = run.tile + i / share, chain = i % share, record = chain * w.chain_len;
            const size_t at =
                (size_t)run.batch.expert * w.expert_bytes + ((size_t)tile * w.n_records + record) * w.record_bytes;
            const int n = a.is_split ? min(w.chain_len, w.n_records - record) : w.n_records;
            items[run.items + i] = {
                {w.tiles[0] + at, w.tiles[1] + at}, (int16_t)r, (int16_t)chain, (int16_t)tile, (int16_t)n};
        }
    }
}

/* ---- weights on their way in ---- */

/* A warp's next item: number i, in the phase that begins with run `first`. */
typedef struct moe_turn {
    int first, i;
} moe_turn;

/* Number of this warp's next item among the runs that are known, -1 where there is none; with is_final those are all.
 */
static __device__ inline int next_item(const moe_args &a, const moe_run *runs, int n_runs, bool is_final, moe_turn *t)
{
    while (t->first < n_runs) {
        const int next = min(t->first + a.n_slots, n_runs), i = t->i;
        if (i < runs[next].items) {
            t->i += a.warps;
            return i;
        }
        if (!is_final) return -1; /* the phase may go on */
        t->first = next;
        t->i = runs[next].items + warp_id();
    }
    return -1;
}

/* Where the block's work lies in shared memory. */
typedef struct moe_list {
    const moe_run *runs;
    const moe_item *items;
    int n_runs; /* that are known */
} moe_list;

/* The records that a warp asks for next. */
template <int MT> struct moe_feed {
    moe_turn turn;
    int left, bytes;
    const uint8_t *at[MT];
};

template <int MT>
static __device__ inline void moe_feed_open(const moe_args &a, const moe_list &l, bool is_final, moe_feed<MT> *f)
{
    if (f->left > 0) return;
    const int i = next_item(a, l.runs, l.n_runs, is_final, &f->turn);
    if (i < 0) return;
    const moe_item &item = l.items[i];
    f->left = item.n;
    f->bytes = a.parts[l.runs[item.run].kind].record_bytes;
#pragma unroll
    for (int m = 0; m < MT; m++) f->at[m] = item.tiles[m];
}

template <int MT>
static __device__ inline void moe_feed_stage(const moe_args &a, const moe_list &l, bool is_final, const ring &r,
                                             int stage, moe_feed<MT> *f)
{
    ring_fill<MT>(r, stage, f->at, f->left > 0, f->bytes, a.slot_bytes);
    if (!f->left) return;
#pragma unroll
    for (int m = 0; m < MT; m++) f->at[m] += f->bytes;
    if (--f->left == 0) moe_feed_open<MT>(a, l, is_final, f);
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
                                      const moe_list &l, ring *r, moe_feed<MT> *f, float acc[MT][NT][4])
{
    for (int s = 0; s < n; s++, x += 32 * stride) {
        const uint8_t *record = ring_wait(*r);
        uint32_t words[MT][8];
        tile_part<T> part[MT];
#pragma unroll
        for (int j = 0; j < 2; j++) {
#pragma unroll
            for (int m = 0; m < MT; m++) part[m].load(record + m * a.slot_bytes, lane_id(), j, w.gain[m]);
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int m = 0; m < MT; m++) part[m].words(i, words[m]);
                multiply_pair<NT, MT>(words, x, 4 * j + i, stride, acc);
            }
        }
        __syncwarp();
        moe_feed_stage<MT>(a, l, true, *r, r->stage, f);
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

/* The item's chains, added in order. T: the type of all weights, or PRODUCT_ANY_TYPE. */
template <int NT, int MT, int T>
static __device__ inline void moe_chains(const moe_args &a, const moe_item &item, uint8_t *shared, const moe_list &l,
                                         ring *r, moe_feed<MT> *f, float acc[MT][NT][4])
{
    const moe_run &run = l.runs[item.run];
    const moe_part &w = a.parts[run.kind];
    const int stride = product_stride(a.columns), lane_at = min(lane_id(), 4 * a.columns - 4 + lane_id() % 4);
    for (int at = 0, chain = item.chain; at < item.n; chain++) {
        const int n = min(w.chain_len, item.n - at);
        const uint4 *x =
            slot_at(a, shared, run.slot) + chain * w.chain_len * 32 * stride + (NT == 1 ? lane_at : lane_id());
        float sum[MT][NT][4];
        clear<NT, MT>(sum);
        if constexpr (T != PRODUCT_ANY_TYPE) {
            moe_sum<T, NT, MT>(a, w, x, stride, n, l, r, f, sum);
        } else {
            switch (w.type) {
#define MOE_CASE(TYPE)                                                                                                 \
    case TYPE: moe_sum<TYPE, NT, MT>(a, w, x, stride, n, l, r, f, sum); break;
                MOE_TYPES(MOE_CASE)
#undef MOE_CASE
            default: break;
            }
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

/* The units of a phase whose chains were summed apart: the warps take them by turns. */
template <int NT, int MT>
static __device__ inline void join_phase(const moe_args &a, const moe_list &l, int first, int end, uint8_t *shared)
{
    const int *pairs = (const int *)(shared + a.pairs_at);
    __syncthreads();
    for (int r = first, turn = 0; r < end; r++) {
        const moe_run &run = l.runs[r];
        const int n_chains = unit_warps(a, run.kind);
        for (int i = 0; n_chains > 1 && i < run.n; i++, turn++) {
            if (turn % a.warps != warp_id()) continue;
            float acc[MT][NT][4];
            const int at = run.items + i * n_chains - l.runs[first].items;
            add_chains<NT, MT>(sums_of<NT, MT>(a, shared, at), n_chains, acc);
            put_unit<NT, MT>(a, run, run.tile + i, pairs + (r - first) * a.columns, acc);
        }
    }
}

/* The items of a phase: runs [first, end). */
template <int NT, int MT, int T>
static __device__ inline void run_phase(const moe_args &a, const moe_list &l, int first, int end, uint8_t *shared,
                                        ring *r, moe_feed<MT> *f)
{
    const int *pairs = (const int *)(shared + a.pairs_at);
    const int begin = l.runs[first].items;
    float acc[MT][NT][4];
    pack_phase(a, l.runs, first, l.n_runs, shared);
    for (int i = begin + warp_id(); i < l.runs[end].items; i += a.warps) {
        const moe_item &item = l.items[i];
        const moe_run &run = l.runs[item.run];
        moe_chains<NT, MT, T>(a, item, shared, l, r, f, acc);
        if (unit_warps(a, run.kind) > 1)
            store_chain<NT, MT>(sums_of<NT, MT>(a, shared, i - begin), acc);
        else
            put_unit<NT, MT>(a, run, item.tile, pairs + (item.run - first) * a.columns, acc);
    }
    if (a.is_split) join_phase<NT, MT>(a, l, first, end, shared);
}

/* Adds the runs of a kind and lists their items; by the whole block. */
static __device__ inline void extend_list(const moe_args &a, int kind, moe_run *runs, moe_item *items, int *n_known,
                                          moe_list *l)
{
    if (warp_id() == 0) {
        const int n = add_runs(a, kind, l->n_runs, runs);
        if (lane_id() == 0) *n_known = n;
    }
    __syncthreads();
    const int before = l->n_runs;
    l->n_runs = *n_known;
    list_items(a, runs, before, l->n_runs, items);
    __syncthreads();
}

template <int NT, int MT, int T>
static __global__ void __launch_bounds__(MOE_MAX_WARPS *WARP, 1) moe_kernel(const __grid_constant__ moe_args a)
{
    extern __shared__ __align__(128) uint8_t shared[];
    moe_run *runs = (moe_run *)(shared + a.runs_at);
    moe_item *items = (moe_item *)(shared + a.items_at);
    int *n_known = (int *)(runs + MOE_MAX_RUNS + 1);
    moe_list l = {runs, items, 0};
    const int stage_bytes = MT * a.slot_bytes;
    ring r;
    ring_init(&r, shared + a.ring_at + warp_id() * a.stages * stage_bytes,
              (uint64_t *)(shared + a.barriers_at) + warp_id() * a.stages, a.stages, stage_bytes);
    if (threadIdx.x == 0) runs[0].items = 0;
    __syncwarp();
    extend_list(a, MOE_DENSE, runs, items, n_known, &l);
    moe_feed<MT> f = {};
    f.turn.i = warp_id();
    int filled = 0;
    moe_feed_open<MT>(a, l, false, &f);
    for (; filled < a.stages && f.left > 0; filled++) moe_feed_stage<MT>(a, l, false, r, filled, &f);
    wait_for_predecessors();
    release_dependents();
    extend_list(a, MOE_EXPERTS, runs, items, n_known + 1, &l);
    moe_feed_open<MT>(a, l, true, &f);
    for (; filled < a.stages; filled++) moe_feed_stage<MT>(a, l, true, r, filled, &f);

    for (int first = 0; first < l.n_runs; first += a.n_slots) {
        if (first > 0) __syncthreads(); /* the activations of the phase before have been read */
        run_phase<NT, MT, T>(a, l, first, min(first + a.n_slots, l.n_runs), shared, &r, &f);
    }
}

typedef void (*moe_fn)(moe_args a);

/* The kernels for common types have their instructions close together, and apart from those of the others. */
template <int NT, int MT> static moe_fn moe_kernel_of(tensor_type type)
{
    switch (type) {
    case TYPE_Q4_0: return moe_kernel<NT, MT, TYPE_Q4_0>;
    case TYPE_Q4_K: return moe_kernel<NT, MT, TYPE_Q4_K>;
    case TYPE_Q5_0: return moe_kernel<NT, MT, TYPE_Q5_0>;
    case TYPE_Q8_0: return moe_kernel<NT, MT, TYPE_Q8_0>;
    default: return moe_kernel<NT, MT, PRODUCT_ANY_TYPE>;
    }
}

/* moe_product_N.cu: the kernel for N n8 tiles of columns, one row tile or a gate and its up tile, and weights of one
 * type; TYPE_F32: of any types. */
moe_fn moe_kernel_1(bool is_gated, tensor_type type);
moe_fn moe_kernel_2(bool is_gated, tensor_type type);

#endif
