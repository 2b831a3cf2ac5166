/* product_kernel.cuh: the kernel of all products from tile records. */
#ifndef FACET_COMPUTE_CUDA_PRODUCT_KERNEL_CUH
#define FACET_COMPUTE_CUDA_PRODUCT_KERNEL_CUH

#include "compute/cuda/activations.cuh"
#include "compute/cuda/async.cuh"
#include "compute/cuda/product_put.cuh"
#include "compute/cuda/tile.cuh"

/* ---- which warp does what ---- */

typedef struct product_unit {
    int tile, chain; /* a work tile and one of its chains */
} product_unit;

/* A warp's units are steps of the same length through (tile, chain). */
typedef struct product_place {
    int warp, group, member;                 /* not split: the group of warps that shares a tile */
    int column_block, first_chain, n_chains; /* chains that this block holds */
    int n_units;                             /* of this warp */
    product_unit first, step;
    int chain_end, wrap, carry; /* a chain past chain_end lies `wrap` before that, `carry` tiles on */
} product_place;

static __device__ inline product_place place_whole(const product_args &a)
{
    product_place p = {};
    const int n_groups = a.s.warps / a.s.group_warps, apart = (int)gridDim.x * n_groups;
    p.warp = warp_id();
    p.group = p.warp / a.s.group_warps;
    p.member = p.warp % a.s.group_warps;
    p.n_chains = p.chain_end = a.n_chains;
    p.first = {a.tile_begin + (int)blockIdx.x + (int)gridDim.x * p.group, p.member};
    p.step = {0, a.s.group_warps};
    const int n_mine = (a.n_chains - p.member + a.s.group_warps - 1) / a.s.group_warps;
    const int n_tiles = max((a.tile_end - p.first.tile + apart - 1) / apart, 0);
    p.n_units = n_mine * n_tiles;
    p.wrap = n_mine * a.s.group_warps;
    p.carry = apart;
    return p;
}

static __device__ inline product_place place_split(const product_args &a)
{
    product_place p = {};
    const int block = (int)blockIdx.x / a.s.n_column_blocks, chunk = block % a.s.n_chunks, share = block / a.s.n_chunks;
    p.warp = warp_id();
    p.column_block = (int)blockIdx.x % a.s.n_column_blocks;
    p.first_chain = chunk * a.s.chunk_chains;
    p.n_chains = min(a.s.chunk_chains, a.n_chains - p.first_chain);
    const int64_t units = (int64_t)(a.tile_end - a.tile_begin) * p.n_chains;
    const int begin = (int)(units * share / a.s.n_per_chunk), end = (int)(units * (share + 1) / a.s.n_per_chunk);
    const int at = begin + p.warp;
    p.n_units = max((end - at + a.s.warps - 1) / a.s.warps, 0);
    p.first = {a.tile_begin + at / p.n_chains, p.first_chain + at % p.n_chains};
    p.step = {a.s.warps / p.n_chains, a.s.warps % p.n_chains};
    p.chain_end = p.first_chain + p.n_chains;
    p.wrap = p.n_chains;
    p.carry = 1;
    return p;
}

static __device__ inline product_unit unit_after(const product_place &p, product_unit u)
{
    u.tile += p.step.tile;
    u.chain += p.step.chain;
    if (u.chain < p.chain_end) return u;
    u.tile += p.carry;
    u.chain -= p.wrap;
    return u;
}

static __device__ inline int part_of(const product_args &a, int tile)
{
    if (a.is_gated) return 0;
    int part = 0;
    while (part + 1 < a.n_parts && tile >= a.parts[part + 1].first) part++;
    return part;
}

/* First weight row of row tile m of a work tile; past the end for a neighbour that does not exist. */
template <int MT> static __device__ inline uint32_t first_row(const product_args &a, int part, int tile, int m)
{
    int at = tile - a.parts[part].first;
    return (uint32_t)((a.is_gated ? at : at * MT + m) * TILE_M);
}

/* ---- weights on their way in ---- */

/* Records of a unit that are still to be asked for. */
template <int MT> struct product_run {
    const uint8_t *at[MT];
    int left, bytes;
};

/* The units after the one whose records are being asked for. Opening one takes long: it happens between two chains,
 * not in the loop over records. Lies in shared memory, one per warp, as it is looked at once per chain. */
template <int MT> struct product_feed {
    product_place place;
    product_run<MT> then; /* open */
    product_unit next;    /* to be opened */
    int n_left;           /* how many are to be opened */
};

template <int MT> static __device__ inline product_run<MT> run_of(const product_args &a, const product_unit &u)
{
    product_run<MT> r;
    const int part = part_of(a, u.tile), first = u.chain * a.chain_len;
    r.left = min(a.chain_len, a.n_records - first);
    r.bytes = a.parts[part].record_bytes;
#pragma unroll
    for (int m = 0; m < MT; m++) {
        const product_part &w = a.parts[a.is_gated ? m : part];
        uint32_t row = min(first_row<MT>(a, part, u.tile, m), (w.n_out - 1) / TILE_M * TILE_M);
        r.at[m] = w.tiles + ((size_t)(row / TILE_M) * a.n_records + first) * r.bytes;
    }
    return r;
}

/* The open unit becomes the one in hand. */
template <int MT> static __device__ inline product_run<MT> feed_take(product_feed<MT> *f)
{
    const product_run<MT> now = f->then;
    __syncwarp();
    if (lane_id() == 0) f->then.left = 0;
    __syncwarp();
    return now;
}

/* Opens the unit after the one in hand; where none is in hand, another one first. */
template <int MT>
static __device__ inline void feed_open(const product_args &a, product_run<MT> *now, product_feed<MT> *f)
{
#pragma unroll 1
    while (f->then.left == 0 && f->n_left > 0) {
        const product_run<MT> opened = run_of<MT>(a, f->next);
        const product_unit next = unit_after(f->place, f->next);
        __syncwarp();
        if (lane_id() == 0) {
            f->then = opened;
            f->next = next;
            f->n_left--;
        }
        __syncwarp();
        if (now->left <= 0) *now = feed_take(f);
    }
}

/* Asks for the next record of each row tile. */
template <int MT>
static __device__ inline void feed_stage(const product_args &a, const ring &r, int stage, product_run<MT> *now,
                                         product_feed<MT> *f)
{
    ring_fill<MT>(r, stage, now->at, now->left > 0, now->bytes, a.s.slot_bytes);
#pragma unroll
    for (int m = 0; m < MT; m++) now->at[m] += now->bytes;
    if (--now->left <= 0) *now = feed_take(f);
}

/* ---- activations: f16 in shared memory, [record][i][column][t] x 16 bytes, in the order of tile_input() ---- */

/* What one warp packs: every step-th record of one chain of one row, at most N, held in registers until the scale is
 * known. */
template <int N> struct pack_job {
    int chain, column;  /* of this block */
    int first, step, n; /* records of the chain: first, first + step, .. < n */
    float4 low[N], high[N];
};

/* All loads are under way before the first value is used. Returns the largest absolute value. */
template <int N>
static __device__ inline float pack_load(const product_args &a, const product_place &p, int index, pack_job<N> *job)
{
    job->column = index % a.s.columns;
    job->chain = index / a.s.columns;
    const int record = (p.first_chain + job->chain) * a.chain_len, row = p.column_block * a.s.columns + job->column;
    job->n = min(a.chain_len, a.n_records - record);
    job->step = a.s.n_packers;
    job->first = p.warp % a.s.n_packers;
    const float *x = a.x + (row < a.n_rows ? (size_t)row * a.n_in : 0);
    const uint32_t n_in = row < a.n_rows ? a.n_in : 0;
    const uint32_t at = (uint32_t)(record * TILE_K + 64 * (lane_id() % 4) + lane_id() / 4 * 4);
#pragma unroll
    for (int i = 0; i < N; i++) {
        const int s = job->first + i * job->step;
        if (s >= job->n) break;
        job->low[i] = load_activations(x, at + s * TILE_K, n_in);
        job->high[i] = load_activations(x, at + s * TILE_K + 32, n_in);
    }
    float most = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        if (job->first + i * job->step >= job->n) break;
        most = most_of(most_of(most, job->low[i]), job->high[i]);
    }
    return warp_max(most);
}

template <int N>
static __device__ inline void pack_store(const product_args &a, pack_job<N> *job, float most, uint8_t *shared)
{
    float inverse, scale = chain_scale(most, &inverse);
    const int stride = product_stride(a.s.columns), i = lane_id() / 4, t = lane_id() % 4;
    if (lane_id() == 0) ((float *)(shared + a.s.scales_at))[job->chain * a.s.columns + job->column] = inverse;
    uint4 *out = (uint4 *)shared + (job->chain * a.chain_len * 32 + i * 4) * stride + job->column * 4 + t;
#pragma unroll
    for (int k = 0; k < N; k++) {
        const int s = job->first + k * job->step;
        if (s >= job->n) break;
        job->low[k] = scaled(job->low[k], scale);
        job->high[k] = scaled(job->high[k], scale);
        out[s * 32 * stride] = words_of(&job->low[k], &job->high[k]);
        if (a.s.n_planes == 2) out[s * 32 * stride + a.s.plane] = words_of(&job->low[k], &job->high[k]);
    }
}

/* In rounds; the warps that share a chain exchange their maxima, in two places by turns. Ends with a barrier. */
template <int N>
static __device__ inline void pack_activations(const product_args &a, const product_place &p, uint8_t *shared)
{
    const int n_jobs = p.n_chains * a.s.columns, n_packers = a.s.n_packers, at_once = a.s.warps / n_packers;
    const int mine = p.warp / n_packers;
    for (int base = 0, round = 0; base < n_jobs; base += at_once, round++) {
        float *all = (float *)(shared + a.s.most_at) + (round & 1) * a.s.warps, most = 0;
        const int index = base + mine;
        const bool is_needed = mine < at_once && index < n_jobs;
        pack_job<N> job;
        if (is_needed) most = pack_load<N>(a, p, index, &job);
        if (n_packers > 1) {
            if (is_needed) all[p.warp] = most;
            __syncthreads();
            for (int i = 0; is_needed && i < n_packers; i++) most = fmaxf(most, all[mine * n_packers + i]);
        }
        if (is_needed) pack_store<N>(a, &job, most, shared);
    }
    __syncthreads();
}

/* ---- one chain ---- */

static __device__ inline void mma(float c[4], const uint32_t low[4], const uint32_t high[4], int at, uint32_t b0,
                                  uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(low[at]), "r"(high[at]), "r"(low[at + 1]), "r"(high[at + 1]), "r"(b0), "r"(b1));
}

/* Pair i of a record's multiplications for all columns. x: this lane's column and t. */
template <int NT, int MT>
static __device__ inline void multiply_pair(const uint32_t words[MT][8], const uint4 *x, int i, int stride,
                                            float acc[MT][NT][4])
{
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        const uint4 b = x[(i * (NT == 1 ? stride : NT * 8) + nt * 8) * 4];
#pragma unroll
        for (int m = 0; m < MT; m++) {
            mma(acc[m][nt], words[m], words[m] + 4, 0, b.x, b.y);
            mma(acc[m][nt], words[m], words[m] + 4, 2, b.z, b.w);
        }
    }
}

/* acc = one chain of n records. What a record needs beside arithmetic is kept small: instructions come through the same
 * memory that is busy with weights. */
template <int T, int NT, int MT>
static __device__ inline void sum_chain(const product_args &a, const float gain[MT], const uint4 *x, int n, ring *r,
                                        product_run<MT> *now, product_feed<MT> *f, float acc[MT][NT][4])
{
    const int stride = NT == 1 ? a.s.columns : NT * 8;
    for (int s = 0; s < n; s++, x += 32 * stride) {
        const uint8_t *record = ring_wait(*r);
        uint32_t words[MT][8];
        if constexpr (tile_type<T>::family == TILE_FLOAT) {
#pragma unroll
            for (int i = 0; i < 8; i++) {
#pragma unroll
                for (int m = 0; m < MT; m++)
                    tile_float_words<T>(record + m * a.s.slot_bytes, lane_id(), gain[m], i, words[m]);
                multiply_pair<NT, MT>(words, x, i, stride, acc);
                multiply_pair<NT, MT>(words, x + a.s.plane, i, stride, acc);
            }
        } else {
            tile_part<T> w[MT];
#pragma unroll
            for (int j = 0; j < 2; j++) {
#pragma unroll
                for (int m = 0; m < MT; m++) w[m].load(record + m * a.s.slot_bytes, lane_id(), j, gain[m]);
#pragma unroll
                for (int i = 0; i < 4; i++) {
#pragma unroll
                    for (int m = 0; m < MT; m++) w[m].words(i, words[m]);
                    multiply_pair<NT, MT>(words, x, 4 * j + i, stride, acc);
                }
            }
        }
        __syncwarp();
        feed_stage(a, *r, r->stage, now, f);
        ring_next(r);
    }
}

/* Every type, or only the types A and B. */
enum { PRODUCT_ANY_TYPE = -1 };

template <int NT, int MT, int A, int B>
static __device__ inline void sum_unit(const product_args &a, const product_place &p, const product_unit &u,
                                       const uint8_t *shared, ring *r, product_run<MT> *now, product_feed<MT> *f,
                                       float acc[MT][NT][4])
{
    const int part = part_of(a, u.tile), first = u.chain * a.chain_len;
    const int n = min(a.chain_len, a.n_records - first);
    const uint4 *x = (const uint4 *)shared;
    if (NT == 1) /* a lane without a column takes part with the last one's */
        x += (first - p.first_chain * a.chain_len) * 32 * a.s.columns +
             min(lane_id(), 4 * a.s.columns - 4 + lane_id() % 4);
    else
        x += (first - p.first_chain * a.chain_len) * 32 * NT * 8 + lane_id();
    float gain[MT];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        gain[m] = a.parts[a.is_gated ? m : part].gain;
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
            for (int j = 0; j < 4; j++) acc[m][nt][j] = 0;
    }
    if constexpr (A == PRODUCT_ANY_TYPE) {
        switch (a.parts[part].type) {
#define SUM_CASE(T, BYTES)                                                                                             \
    case T: sum_chain<T, NT, MT>(a, gain, x, n, r, now, f, acc); break;
            TILE_TYPES(SUM_CASE)
#undef SUM_CASE
        default: break;
        }
    } else if (A == B || a.parts[part].type == A) {
        sum_chain<A, NT, MT>(a, gain, x, n, r, now, f, acc);
    } else {
        sum_chain<B, NT, MT>(a, gain, x, n, r, now, f, acc);
    }
    const float *scales = (const float *)(shared + a.s.scales_at) + (u.chain - p.first_chain) * a.s.columns;
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
        int c = nt * 8 + 2 * (lane_id() % 4);
        float s0 = c < a.s.columns ? scales[c] : 0, s1 = c + 1 < a.s.columns ? scales[c + 1] : 0;
#pragma unroll
        for (int m = 0; m < MT; m++) {
            acc[m][nt][0] *= s0;
            acc[m][nt][1] *= s1;
            acc[m][nt][2] *= s0;
            acc[m][nt][3] *= s1;
        }
    }
}

/* ---- results ---- */

/* Whether the row of this lane's column is wanted: negative where it is not. */
static __device__ inline int live_column(const product_args &a, const product_place &p)
{
    const int row = p.column_block * a.s.columns + lane_id();
    return lane_id() < a.s.columns && row < a.n_rows ? a.live[row] : -1;
}

/* The finished sums of a work tile. */
template <int NT, int MT>
static __device__ inline void put_tile(const product_args &a, const product_place &p, int tile, uint32_t live,
                                       const float acc[MT][NT][4])
{
    const int part = part_of(a, tile);
    const product_part &w = a.parts[part];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        if (a.is_gated && m > 0) break;
        uint32_t n = first_row<MT>(a, part, tile, m) + (uint32_t)lane_id() / 4;
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            int column = nt * 8 + 2 * (lane_id() % 4), row = p.column_block * a.s.columns + column;
#pragma unroll
            for (int j = 0; j < 4; j++)
                if (live >> (column + j % 2) & 1 && n + 8 * (j / 2) < w.n_out)
                    w.out[(size_t)(row + j % 2) * w.n_out + n + 8 * (j / 2)] =
                        product_finish(a, part, n + 8 * (j / 2), row + j % 2, acc[m][nt][j], acc[MT - 1][nt][j]);
        }
    }
}

/* Index of a lane's cell, -1 where the chain sum has none. */
template <int NT> static __device__ inline int cell_of(int nt, int n_cells)
{
    if (NT > 1) return nt * WARP + lane_id();
    int cell = lane_id() % 4 * 8 + lane_id() / 4;
    return cell < n_cells ? cell : -1;
}

template <int NT, int MT> static __device__ inline void store_sums(float4 *to, int n_cells, const float acc[MT][NT][4])
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            int cell = cell_of<NT>(nt, n_cells);
            if (NT > 1 && cell >= n_cells) continue;
            const float *v = acc[m][nt];
            if (cell >= 0) to[m * n_cells + cell] = make_float4(v[0], v[1], v[2], v[3]);
        }
}

/* This lane's part of one chain sum. */
template <int NT, int MT, bool IS_GLOBAL>
static __device__ inline void load_sums(const float4 *from, int n_cells, float4 out[MT][NT])
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int nt = 0; nt < NT; nt++) {
            int cell = cell_of<NT>(nt, n_cells);
            out[m][nt] = make_float4(0, 0, 0, 0);
            if (cell < 0 || cell >= n_cells) continue;
            out[m][nt] = IS_GLOBAL ? __ldcg(from + m * n_cells + cell) : from[m * n_cells + cell];
        }
}

/* acc = the sums of n chains, added in order. They were written by other warps, or other blocks (IS_GLOBAL). The next
 * chain's are on their way while one is added. */
template <int NT, int MT, bool IS_GLOBAL>
static __device__ inline void add_sums(const float4 *from, int n, int n_cells, float acc[MT][NT][4])
{
    float4 next[MT][NT];
    load_sums<NT, MT, IS_GLOBAL>(from, n_cells, next);
    for (int c = 0; c < n; c++) {
        float4 sum[MT][NT];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int nt = 0; nt < NT; nt++) sum[m][nt] = next[m][nt];
        if (c + 1 < n) load_sums<NT, MT, IS_GLOBAL>(from + (c + 1) * MT * n_cells, n_cells, next);
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int nt = 0; nt < NT; nt++) {
                float *v = acc[m][nt];
                v[0] = c ? __fadd_rn(v[0], sum[m][nt].x) : sum[m][nt].x;
                v[1] = c ? __fadd_rn(v[1], sum[m][nt].y) : sum[m][nt].y;
                v[2] = c ? __fadd_rn(v[2], sum[m][nt].z) : sum[m][nt].z;
                v[3] = c ? __fadd_rn(v[3], sum[m][nt].w) : sum[m][nt].w;
            }
    }
}

/* Not split: the group's sums meet in shared memory, in two buffers by turns; the warps add them up by turns. round:
 * of tiles. True: acc is the sum of a whole tile. */
template <int NT, int MT>
static __device__ inline bool join_group(const product_args &a, const product_place &p, const product_unit &u,
                                         int round, uint8_t *shared, float acc[MT][NT][4])
{
    const int n_cells = product_cells(a.s.columns);
    float4 *sums = (float4 *)(shared + a.s.sums_at) + (p.group * 2 + round % 2) * a.n_chains * MT * n_cells;
    store_sums<NT, MT>(sums + u.chain * MT * n_cells, n_cells, acc);
    if (u.chain + a.s.group_warps < a.n_chains) return false;
    if (a.s.group_warps == 1)
        __syncwarp();
    else
        asm volatile("bar.sync %0, %1;" ::"r"(p.group + 1), "r"(a.s.group_warps * WARP) : "memory");
    if (round % a.s.group_warps != p.member) return false;
    add_sums<NT, MT, false>(sums, a.n_chains, n_cells, acc);
    return true;
}

/* Split: the warp that brings the last sum of a tile adds them all. A sum is announced when the warp's next unit is
 * done: the stores have arrived by then, and nobody waits for them. Returns the tile whose sum acc holds now, or -1. u:
 * the unit in acc, tile -1 after the last one; *stored: the one before it. */
template <int NT, int MT>
static __device__ inline int join_grid(const product_args &a, const product_place &p, const product_unit &u,
                                       product_unit *stored, float acc[MT][NT][4])
{
    const int n_cells = product_cells(a.s.columns), tile_cells = a.n_chains * MT * n_cells, before = stored->tile;
    const size_t first = (size_t)p.column_block * (a.tile_end - a.tile_begin) - a.tile_begin;
    int is_last = 0, done = -1;
    if (before >= 0) {
        fence();
        __syncwarp();
        if (lane_id() == 0) is_last = atomicAdd(&a.arrivals[first + before], 1) == a.n_chains - 1;
    }
    if (u.tile >= 0) store_sums<NT, MT>(a.sums + (first + u.tile) * tile_cells + u.chain * MT * n_cells, n_cells, acc);
    if (before >= 0 && __shfl_sync(0xffffffffu, is_last, 0)) {
        fence();
        add_sums<NT, MT, true>(a.sums + (first + before) * tile_cells, a.n_chains, n_cells, acc);
        if (lane_id() == 0) a.arrivals[first + before] = 0; /* for the next launch */
        done = before;
    }
    *stored = u;
    return done;
}

/* The predecessors are done: activations are packed. Returns the columns whose rows are wanted, as bits. */
template <int NT, int MT>
static __device__ inline uint32_t begin(const product_args &a, const product_place &p, uint8_t *shared)
{
    wait_for_predecessors();
    if (!a.s.is_late) release_dependents();
    const int live = live_column(a, p); /* is waited for behind the activations only */
    pack_activations<product_packed(NT, MT)>(a, p, shared);
    return __ballot_sync(0xffffffffu, live >= 0);
}

/* NT n8 tiles of columns, MT row tiles in a work tile; weights of the types A and B, or of any. */
template <int NT, int MT, int A, int B>
static __global__ void __launch_bounds__(product_max_warps(NT, MT) * WARP, 1)
    product_kernel(const __grid_constant__ product_args a)
{
    extern __shared__ __align__(128) uint8_t shared[];
    static_assert(sizeof(product_feed<MT>) <= PRODUCT_FEED_BYTES, "");
    product_feed<MT> *f = (product_feed<MT> *)(shared + a.s.feeds_at + warp_id() * PRODUCT_FEED_BYTES);
    if (lane_id() == 0) {
        f->place = a.s.is_split ? place_split(a) : place_whole(a);
        f->next = f->place.first;
        f->n_left = f->place.n_units;
        f->then.left = 0;
    }
    __syncwarp();
    const product_place &p = f->place;
    const int stage_bytes = MT * a.s.slot_bytes;
    ring r;
    ring_init(&r, shared + a.s.ring_at + warp_id() * a.s.stages * stage_bytes,
              (uint64_t *)(shared + a.s.barriers_at) + warp_id() * a.s.stages, a.s.stages, stage_bytes);
    product_run<MT> now = {};
    feed_open(a, &now, f);
    for (int i = 0; i < a.s.stages; i++) {
        if (i >= a.s.at_once && now.left > 0) ring_arrived(r, i - a.s.at_once);
        feed_stage(a, r, i, &now, f);
    }

    const uint32_t live = begin<NT, MT>(a, p, shared);

    float acc[MT][NT][4];
    product_unit u = p.first, stored = {-1, 0};
    for (int k = 0, round = 0; k < p.n_units; k++) {
        int done = -1;
        feed_open(a, &now, f);
        sum_unit<NT, MT, A, B>(a, p, u, shared, &r, &now, f, acc);
        if (a.n_chains == 1)
            done = u.tile;
        else if (a.s.is_split)
            done = join_grid<NT, MT>(a, p, u, &stored, acc);
        else if (join_group<NT, MT>(a, p, u, round, shared, acc))
            done = u.tile;
        if (done >= 0) put_tile<NT, MT>(a, p, done, live, acc);
        const int tile = u.tile;
        u = unit_after(p, u);
        round += u.tile != tile;
    }
    if (a.s.is_split && a.n_chains > 1) {
        const int done = join_grid<NT, MT>(a, p, {-1, 0}, &stored, acc);
        if (done >= 0) put_tile<NT, MT>(a, p, done, live, acc);
    }
    if (a.s.is_late) release_dependents();
}

/* The kernels for common types have their instructions close together, and apart from those of the others. */
template <int NT, int MT> static product_fn product_kernel_of(tensor_type a, tensor_type b)
{
    if (a == TYPE_Q4_K && b == TYPE_Q4_K) return product_kernel<NT, MT, TYPE_Q4_K, TYPE_Q4_K>;
    if (a == TYPE_Q6_K && b == TYPE_Q6_K) return product_kernel<NT, MT, TYPE_Q6_K, TYPE_Q6_K>;
    if (a == TYPE_Q8_0 && b == TYPE_Q8_0) return product_kernel<NT, MT, TYPE_Q8_0, TYPE_Q8_0>;
    if (a == TYPE_Q4_0 && b == TYPE_Q4_0) return product_kernel<NT, MT, TYPE_Q4_0, TYPE_Q4_0>;
    if (a == TYPE_Q4_K && b == TYPE_Q6_K) return product_kernel<NT, MT, TYPE_Q4_K, TYPE_Q6_K>;
    return product_kernel<NT, MT, PRODUCT_ANY_TYPE, PRODUCT_ANY_TYPE>;
}

#endif
