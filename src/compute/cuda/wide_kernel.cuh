/* wide_kernel.cuh: the kernel of products of many rows. */
#ifndef FACET_COMPUTE_CUDA_WIDE_KERNEL_CUH
#define FACET_COMPUTE_CUDA_WIDE_KERNEL_CUH

#include "compute/cuda/mbarrier.cuh"
#include "compute/cuda/product_put.cuh"
#include "compute/cuda/tile.cuh"
#include "compute/cuda/wgmma.cuh"
#include "compute/cuda/wide.cuh"

template <int T> static __host__ __device__ constexpr int wide_planes()
{
    return tile_type<T>::family == TILE_FLOAT ? 2 : 1;
}

/* ---- who does what ---- */

typedef struct wide_unit {
    int slot; /* item past the whole ones, -1: a whole one */
    int tile, column_block, chain, end;
} wide_unit;

/* Shared addresses of barriers: two for each stage, two for the results. */
typedef struct wide_barriers {
    uint32_t a_full, a_empty, b_full, b_empty, out_full, out_empty;
} wide_barriers;

/* The k-th unit of this block; false: there is none. */
static __device__ inline bool wide_unit_at(const wide_args &a, int k, wide_unit *u)
{
    const int block = (int)blockIdx.x, n_blocks = (int)gridDim.x;
    const int n_mine = (a.n_whole - block + n_blocks - 1) / n_blocks;
    int item = block + k * n_blocks;
    u->slot = -1;
    u->chain = 0;
    u->end = a.n_chains;
    if (k >= n_mine) {
        const int64_t units = (int64_t)(a.n_items - a.n_whole) * a.n_chains;
        const int at = (int)(units * block / n_blocks) + k - n_mine;
        if (at >= (int)(units * (block + 1) / n_blocks)) return false;
        u->slot = at / a.n_chains;
        u->chain = at % a.n_chains;
        u->end = u->chain + 1;
        item = a.n_whole + u->slot;
    }
    u->tile = item / a.n_column_blocks;
    u->column_block = item % a.n_column_blocks;
    return true;
}

static __device__ inline int wide_part(const wide_args &a, int tile)
{
    int part = 0;
    if (a.is_gated) return 0;
    while (part + 1 < a.n_parts && tile >= a.parts[part + 1].first) part++;
    return part;
}

static __device__ inline wide_barriers wide_barriers_of(const wide_args &a, const uint8_t *shared)
{
    wide_barriers b;
    b.a_full = shared_address(shared + a.barriers_at);
    b.a_empty = b.a_full + 8 * a.a_stages;
    b.b_full = b.a_empty + 8 * a.a_stages;
    b.b_empty = b.b_full + 8 * a.b_stages;
    b.out_full = b.b_empty + 8 * a.b_stages;
    b.out_empty = b.out_full + 8;
    return b;
}

/* n_workers: warps that multiply. */
static __device__ inline void wide_barriers_init(const wide_args &a, const wide_barriers &b, int n_workers)
{
    if (threadIdx.x == 0) {
        for (int i = 0; i < a.a_stages; i++) {
            barrier_init(b.a_full + 8 * i, FILL_ARRIVALS);
            barrier_init(b.a_empty + 8 * i, n_workers);
        }
        for (int i = 0; i < a.b_stages; i++) {
            barrier_init(b.b_full + 8 * i, FILL_ARRIVALS);
            barrier_init(b.b_empty + 8 * i, n_workers);
        }
        barrier_init(b.out_full, n_workers);
        barrier_init(b.out_empty, WIDE_WRITERS);
        barrier_init_done();
    }
    __syncthreads();
}

/* ---- weights on their way in ---- */

/* The records of row tile i of a block's tile, from record 0 on. Past the end: the last row tile again. */
template <int TILES> static __device__ inline const uint8_t *wide_records(const wide_args &a, int tile, int i)
{
    const int part = a.is_gated ? i / (TILES / 2) : wide_part(a, tile);
    const product_part &w = a.parts[part];
    const int row = a.is_gated ? tile * (TILES / 2) + i % (TILES / 2) : (tile - w.first) * TILES + i;
    const int most = (int)((w.n_out - 1) / TILE_M);
    return w.tiles + (size_t)min(row, most) * a.n_records * a.record_bytes;
}

template <int TILES>
static __device__ inline void wide_feed_weights(const wide_args &a, const wide_barriers &b, uint8_t *shared)
{
    const uint32_t weights = shared_address(shared + a.weights_at);
    ring_place p = {0, 1};
    wide_unit u;
    for (int k = 0; wide_unit_at(a, k, &u); k++) {
        const int first = u.chain * a.chain_len, last = min(u.end * a.chain_len, a.n_records);
        const uint8_t *mine =
            wide_records<TILES>(a, u.tile, lane_id() % TILES) + (size_t)first * (size_t)a.record_bytes;
        for (int record = first; record < last; record++, mine += a.record_bytes) {
            const uint32_t full = b.a_full + 8 * p.stage, dst = weights + p.stage * TILES * a.record_bytes;
            barrier_wait(b.a_empty + 8 * p.stage, p.phase);
#if FACET_BULK_COPY
            if (lane_id() == 0) fill_expect(full, TILES * a.record_bytes);
            __syncwarp();
            if (lane_id() < TILES) fill_bulk(dst + lane_id() * a.record_bytes, mine, a.record_bytes, full);
#else
            for (int i = 0; i < TILES; i++)
                fill_lanes(dst + i * a.record_bytes,
                           (const uint8_t *)__shfl_sync(0xffffffffu, (unsigned long long)mine, i), a.record_bytes);
            fill_arrive(full);
#endif
            place_next(&p, a.a_stages);
        }
    }
}

/* ---- activations on their way in ---- */

template <int N, int PLANES>
static __device__ inline void wide_feed_activations(const wide_args &a, const wide_barriers &b, uint8_t *shared)
{
    constexpr int bytes = PLANES * N * WIDE_COLUMN_BYTES;
    const uint32_t stages = shared_address(shared);
    ring_place p = {0, 1};
    wide_unit u;
    for (int k = 0; wide_unit_at(a, k, &u); k++) {
        const size_t first = (size_t)u.column_block * a.n_records + (size_t)u.chain * a.chain_len;
        const int n = min(u.end * a.chain_len, a.n_records) - u.chain * a.chain_len;
        const uint8_t *x = a.x + first * (TILE_K / WIDE_K) * bytes;
        for (int i = 0; i < n * (TILE_K / WIDE_K); i++, x += bytes) {
            const uint32_t full = b.b_full + 8 * p.stage, dst = stages + p.stage * bytes;
            barrier_wait(b.b_empty + 8 * p.stage, p.phase);
#if FACET_BULK_COPY
            if (lane_id() == 0) {
                fill_expect(full, bytes);
                fill_bulk(dst, x, bytes, full);
            }
            __syncwarp();
#else
            fill_lanes(dst, x, bytes);
            fill_arrive(full);
#endif
            place_next(&p, a.b_stages);
        }
    }
}

/* ---- multiplication ---- */

typedef struct wide_worker {
    uint8_t *shared;
    wide_barriers bars;
    int warp, lane;
    ring_place a, b;    /* the next stages */
    uint32_t out_phase; /* of out_empty */
} wide_worker;

static __device__ inline void wide_release(uint32_t bar, int lane)
{
    __syncwarp();
    if (lane == 0) barrier_arrive(bar);
}

#if !FACET_WGMMA
static __device__ inline void load_columns(uint32_t at, uint32_t b[4])
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(at));
}

static __device__ inline void wide_mma(float *c, const uint32_t low[2], const uint32_t high[2], const uint32_t b[2])
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(low[0]), "r"(high[0]), "r"(low[1]), "r"(high[1]), "r"(b[0]), "r"(b[1]));
}
#endif

/* Pair i of a record's multiplications, by the columns of one plane at `columns` (a shared address). */
template <int N>
static __device__ inline void wide_multiply(const uint32_t words[8], uint32_t columns, int i, int lane,
                                            float acc[N / 2])
{
#if FACET_WGMMA
    const uint64_t b = wgmma_columns(columns) + (uint64_t)(i % 2 * 4);
    wgmma<N>(acc, words, words + 4, b);
    wgmma<N>(acc, words + 2, words + 6, b + 2);
#else
    const int row = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
#pragma unroll
    for (int s = 0; s < 2; s++) {
        const uint32_t at = columns + row * WIDE_COLUMN_BYTES + (((i % 2 * 4 + s * 2 + half) ^ row % 8) * 16);
#pragma unroll
        for (int n = 0; n < N / 16; n++) {
            uint32_t b[4];
            load_columns(at + n * 16 * WIDE_COLUMN_BYTES, b);
            wide_mma(acc + 8 * n, words + 2 * s, words + 4 + 2 * s, b);
            wide_mma(acc + 8 * n + 4, words + 2 * s, words + 4 + 2 * s, b + 2);
        }
    }
#endif
}

/* acc = one chain of n records. */
template <int T, int N>
static __device__ inline void wide_chain(const wide_args &a, wide_worker *w, float gain, int n, float acc[N / 2])
{
    constexpr bool is_float = tile_type<T>::family == TILE_FLOAT;
    constexpr int bytes = wide_planes<T>() * N * WIDE_COLUMN_BYTES;
    const uint32_t stages = shared_address(w->shared);
    int last = 0; /* the stage of activations before the one in use */
#pragma unroll
    for (int i = 0; i < N / 2; i++) acc[i] = 0;
    for (int k = 0; k < n; k++) {
        barrier_wait(w->bars.a_full + 8 * w->a.stage, w->a.phase);
        const uint8_t *record = w->shared + a.weights_at + (w->a.stage * wide_tiles(N) + w->warp) * a.record_bytes;
        tile_part<is_float ? TYPE_Q4_0 : T> part;
        uint32_t words[2][8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            uint32_t *x = words[i % 2];
            if constexpr (is_float) {
                tile_float_words<T>(record, w->lane, gain, i, x);
            } else {
                if (i % 4 == 0) part.load(record, w->lane, i / 4, gain);
                part.words(i % 4, x);
            }
            if (i == (is_float ? 7 : 4)) wide_release(w->bars.a_empty + 8 * w->a.stage, w->lane);
            if (i % 2 == 0) barrier_wait(w->bars.b_full + 8 * w->b.stage, w->b.phase);
            const uint32_t columns = stages + w->b.stage * bytes;
#if FACET_WGMMA
            wgmma_fence();
#endif
            wide_multiply<N>(x, columns, i, w->lane, acc);
            if constexpr (is_float) wide_multiply<N>(x, columns + N * WIDE_COLUMN_BYTES, i, w->lane, acc);
#if FACET_WGMMA
            wgmma_commit();
            wgmma_wait<1>(); /* the pair before this one */
            if (i % 2 == 0 && (i > 0 || k > 0)) wide_release(w->bars.b_empty + 8 * last, w->lane);
#else
            if (i % 2 == 1) wide_release(w->bars.b_empty + 8 * w->b.stage, w->lane);
#endif
            if (i % 2 == 1) {
                last = w->b.stage;
                place_next(&w->b, a.b_stages);
            }
        }
        place_next(&w->a, a.a_stages);
    }
#if FACET_WGMMA
    wgmma_wait<0>();
    wide_release(w->bars.b_empty + 8 * last, w->lane);
#endif
}

/* Takes the scaling of the activations out of a chain sum, and adds it to the chains before it. */
template <int N>
static __device__ inline void wide_add(const float *scales, bool is_first, const float acc[N / 2], float total[N / 2])
{
#pragma unroll
    for (int nt = 0; nt < N / 8; nt++) {
        const float2 s = __ldcg((const float2 *)(scales + nt * 8 + 2 * (lane_id() % 4)));
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float y = __fmul_rn(acc[4 * nt + j], j % 2 ? s.y : s.x);
            total[4 * nt + j] = is_first ? y : __fadd_rn(total[4 * nt + j], y);
        }
    }
}

/* ---- results ---- */

/* All warps that multiply. */
template <int N> static __device__ inline void workers_barrier()
{
    asm volatile("bar.sync 1, %0;" ::"n"(wide_tiles(N) * WARP) : "memory");
}

/* total = the sums of all chains, in order, `apart` cells from one to the next. */
template <int N>
static __device__ inline void wide_gather(const float4 *from, size_t apart, int n_chains, float total[N / 2])
{
#pragma unroll 1
    for (int c = 0; c < n_chains; c++, from += apart) {
        float4 x[N / 8];
#pragma unroll
        for (int i = 0; i < N / 8; i++) x[i] = __ldcg(from + i * wide_tiles(N) * WARP);
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            total[4 * i] = c ? __fadd_rn(total[4 * i], x[i].x) : x[i].x;
            total[4 * i + 1] = c ? __fadd_rn(total[4 * i + 1], x[i].y) : x[i].y;
            total[4 * i + 2] = c ? __fadd_rn(total[4 * i + 2], x[i].z) : x[i].z;
            total[4 * i + 3] = c ? __fadd_rn(total[4 * i + 3], x[i].w) : x[i].w;
        }
    }
}

/* One chain of a tile has been summed: its sum meets those of the others in global memory. True: it was the last one,
 * and total is the sum of all now. */
template <int N>
static __device__ inline bool wide_join(const wide_args &a, const wide_unit &u, volatile int *flag, float total[N / 2])
{
    const size_t cells = (size_t)(N / 8) * wide_tiles(N) * WARP;
    float4 *sums = a.sums + (size_t)u.slot * a.n_chains * cells + threadIdx.x;
#pragma unroll
    for (int i = 0; i < N / 8; i++)
        sums[u.chain * cells + i * wide_tiles(N) * WARP] =
            make_float4(total[4 * i], total[4 * i + 1], total[4 * i + 2], total[4 * i + 3]);
    fence();
    workers_barrier<N>();
    if (threadIdx.x == 0) {
        *flag = atomicAdd(&a.arrivals[u.slot], 1) == a.n_chains - 1;
        if (*flag) a.arrivals[u.slot] = 0; /* for the next launch */
        fence();
    }
    workers_barrier<N>();
    if (!*flag) return false;
    fence();
    wide_gather<N>(sums, cells, a.n_chains, total);
    return true;
}

/* The sums of a tile to shared memory: stores to device memory are whole lines then, and one short loop makes them. The
 * lanes of a store meet different banks. */
template <int N> static __device__ inline void wide_stage(const wide_args &a, wide_worker *w, const float total[N / 2])
{
    float *results = (float *)(w->shared + a.results_at) + w->warp * TILE_M + w->lane / 4;
    barrier_wait(w->bars.out_empty, w->out_phase);
    w->out_phase ^= 1;
#pragma unroll
    for (int nt = 0; nt < N / 8; nt++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            results[(nt * 8 + 2 * (w->lane % 4) + j % 2) * wide_result_stride(N) + 8 * (j / 2)] = total[4 * nt + j];
}

/* Outputs n .. n + 3 of a row, as far as there are so many. */
static __device__ inline void wide_put(const wide_args &a, int part, uint32_t n, int row, const float4 &y,
                                       const float4 &up)
{
    const uint32_t n_out = a.parts[part].n_out;
    float *out = a.parts[part].out + (size_t)row * n_out + n;
    const float ys[4] = {y.x, y.y, y.z, y.w}, ups[4] = {up.x, up.y, up.z, up.w};
    if (n_out % 4 == 0) {
        if (n >= n_out) return;
        float v[4];
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) v[j] = product_finish(a, part, n + j, row, ys[j], ups[j]);
        *(float4 *)out = make_float4(v[0], v[1], v[2], v[3]);
        return;
    }
#pragma unroll
    for (uint32_t j = 0; j < 4; j++)
        if (n + j < n_out) out[j] = product_finish(a, part, n + j, row, ys[j], ups[j]);
}

/* A staged tile, by so many threads. */
template <int N, int THREADS>
static __device__ inline void wide_write(const wide_args &a, const wide_unit &u, const float *results, int thread)
{
    const int shift = (wide_tiles(N) == 16 ? 6 : 5) - (a.is_gated ? 1 : 0); /* quads of a column: 16, 32 or 64 */
    const int part = wide_part(a, u.tile), n_columns = min(N, a.n_rows - u.column_block * N);
    const uint32_t first = (uint32_t)(u.tile - a.parts[part].first) << (shift + 2);
#pragma unroll 2
    for (int i = thread; i < n_columns << shift; i += THREADS) {
        const int column = i >> shift, quad = i & ((1 << shift) - 1), row = u.column_block * N + column;
        const float4 *y = (const float4 *)(results + column * wide_result_stride(N)) + quad;
        if (__ldg(a.live + row) >= 0) wide_put(a, part, first + 4 * quad, row, y[0], a.is_gated ? y[1 << shift] : y[0]);
    }
}

/* Tiles are written by warps of their own, so that the others can go on to the next; the last one by all that
 * multiplied. *posted: the unit whose sums are staged, -1 after the last one. */
template <int T, int N>
static __device__ inline void wide_work(const wide_args &a, const wide_barriers &b, uint8_t *shared, int *posted,
                                        volatile int *flags)
{
    constexpr int tiles = wide_tiles(N);
    wide_worker w = {shared, b, warp_id(), lane_id(), {0, 0}, {0, 0}, 1};
    float acc[N / 2], total[N / 2];
    wide_unit u, next;
    bool is_staged = false, has_unit = wide_unit_at(a, 0, &u);
    for (int k = 0; has_unit; k++, u = next) {
        const int part = a.is_gated ? w.warp / (tiles / 2) : wide_part(a, u.tile);
        const float gain = a.parts[part].gain;
        for (int chain = u.chain; chain < u.end; chain++) {
            const int first = chain * a.chain_len;
            wide_chain<T, N>(a, &w, gain, min(a.chain_len, a.n_records - first), acc);
            wide_add<N>(a.scales + ((size_t)u.column_block * a.n_chains + chain) * N, chain == u.chain, acc, total);
        }
        has_unit = wide_unit_at(a, k + 1, &next);
        if (u.slot >= 0 && !wide_join<N>(a, u, &flags[k % 2], total)) continue;
        wide_stage<N>(a, &w, total);
        is_staged = !has_unit;
        if (is_staged) break;
        if (threadIdx.x == 0) *posted = k;
        wide_release(w.bars.out_full, w.lane);
    }
    if (!is_staged) barrier_wait(w.bars.out_empty, w.out_phase);
    if (threadIdx.x == 0) *posted = -1;
    wide_release(w.bars.out_full, w.lane);
    if (!is_staged) return;
    workers_barrier<N>();
    wide_write<N, tiles * WARP>(a, u, (const float *)(shared + a.results_at), (int)threadIdx.x);
}

template <int N>
static __device__ inline void wide_write_posted(const wide_args &a, const wide_barriers &b, const uint8_t *shared,
                                                const volatile int *posted)
{
    constexpr int threads = WIDE_WRITERS * WARP;
    wide_unit u;
    for (uint32_t phase = 0;; phase ^= 1) {
        barrier_wait(b.out_full, phase);
        const int k = *posted;
        if (k < 0) return;
        wide_unit_at(a, k, &u);
        wide_write<N, threads>(a, u, (const float *)(shared + a.results_at), (int)threadIdx.x % threads);
        wide_release(b.out_empty, lane_id());
    }
}

/* The warps that multiply hold most of the registers: the others give theirs. A block with 128 columns has twelve
 * warps, which would get 168 each. */
template <int N> static __device__ inline void wide_give_registers()
{
#if FACET_WGMMA
    if (N > WIDE_COLUMNS) asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
#endif
}

template <int N> static __device__ inline void wide_take_registers()
{
#if FACET_WGMMA
    if (N > WIDE_COLUMNS) asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
#endif
}

template <int T, int N>
static __global__ void __launch_bounds__((wide_tiles(N) + WIDE_HELPERS) * WARP, 1)
    wide_kernel(const __grid_constant__ wide_args a)
{
#if !FACET_WGMMA
    if constexpr (N != WIDE_COLUMNS) return; /* the only one that is used */
#endif
    extern __shared__ __align__(1024) uint8_t shared[];
    __shared__ int flags[2], posted;
    constexpr int tiles = wide_tiles(N);
    const wide_barriers b = wide_barriers_of(a, shared);
    const int warp = warp_id();
    wide_barriers_init(a, b, tiles);
    if (warp >= tiles) {
        wide_give_registers<N>();
        if (warp == tiles) {
            wide_feed_weights<tiles>(a, b, shared);
        } else {
            wait_for_predecessors();
            if (warp == tiles + 1)
                wide_feed_activations<N, wide_planes<T>()>(a, b, shared);
            else
                wide_write_posted<N>(a, b, shared, &posted);
        }
    } else {
        wide_take_registers<N>();
        wait_for_predecessors();
        wide_work<T, N>(a, b, shared, &posted, flags);
    }
}

#endif
