/* attn_tile.cuh: the kernel of attention over tiles of keys (Dao et al. 2022, arXiv:2205.14135 section 3).
 *
 * A block takes an item (attn.h) of one KV head: up to NT * 8 columns, which are query heads of its rows, and a range
 * of keys. It reads K and V once, tile by tile, into stages of shared memory. With the cache as the 16-row side of
 * mma.m16n8k16:  S^T = K Q^T  by chains of ATTN_CHAIN dims, then the weights P, then  O^T += V^T P^T.  Columns do not
 * see each other, a tile of which a row sees nothing leaves its sums as they are, and everything else has a fixed order
 * along the keys, so the bits of a row do not depend on who shares the block. */
#ifndef FACET_COMPUTE_CUDA_ATTN_TILE_CUH
#define FACET_COMPUTE_CUDA_ATTN_TILE_CUH

#include "compute/cuda/attn_stage.cuh"

/* ---- products of fragments ---- */

static __device__ inline void load_matrices(uint32_t r[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

static __device__ inline void load_two(uint32_t r[2], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(at)
                 : "memory");
}

static __device__ inline void load_transposed(uint32_t r[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

static __device__ inline void multiply(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Chain sums of this warp's keys and columns into shared memory: [chain][column][key]. k: a tile of f16 rows. */
template <int D, int NT>
static __device__ inline void score_tile(const attn_args &a, const attn_work &w, const uint8_t *k)
{
    using shape = attn_shape<D, NT>;
    const int chain = warp_id() % shape::chains, keys = warp_id() / shape::chains % shape::key_tiles * 16;
    const int first = warp_id() / (shape::chains * shape::key_tiles) * shape::n_scored; /* n8 tile */
    if (first * 8 >= w.n_columns) return;
    const int lane = lane_id();
    const uint32_t k_at =
        shared_address(k) + (uint32_t)((keys + lane % 16) * shape::row_bytes + lane / 16 * 16 + chain * ATTN_CHAIN * 2);
    const uint32_t q_at =
        shared_address(w.shared + a.place.q_at) +
        (uint32_t)((first * 8 + lane % 8) * shape::row_bytes + lane / 8 * 16 + chain * ATTN_CHAIN * 2);
    float sum[shape::n_scored][4] = {};
#pragma unroll
    for (int step = 0; step < ATTN_CHAIN / 32; step++) {
        uint32_t k0[4], k1[4];
        load_matrices(k0, k_at + step * 64);
        load_matrices(k1, k_at + step * 64 + 32);
#pragma unroll
        for (int n = 0; n < shape::n_scored; n++) {
            if ((first + n) * 8 >= w.n_columns) break;
            uint32_t q[4];
            load_matrices(q, q_at + n * 8 * shape::row_bytes + step * 64);
            multiply(sum[n], k0, q[0], q[1]);
            multiply(sum[n], k1, q[2], q[3]);
        }
    }
    float *s = (float *)(w.shared + a.place.s_at) + (chain * shape::columns + first * 8) * shape::s_stride;
#pragma unroll
    for (int n = 0; n < shape::n_scored; n++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            s[(n * 8 + 2 * (lane % 4) + j % 2) * shape::s_stride + keys + lane / 4 + j / 2 * 8] = sum[n][j];
}

/* The running softmax: scores become weights of type f16, and what the sums so far must be multiplied with. Eight lanes
 * take a column, each tile / 8 neighbouring keys; the first warps take four columns each. */
template <int D, int NT>
static __device__ inline void weigh_tile(const attn_args &a, const attn_work &w, int tile, float *max, float *sum)
{
    using shape = attn_shape<D, NT>;
    constexpr int keys = shape::tile / 8;
    const int column = warp_id() * 4 + lane_id() / 8, key = lane_id() % 8 * keys;
    if (warp_id() * 4 >= (w.n_columns + 7) / 8 * 8) return;
    const int pos = tile * shape::tile + key, begin = w.rest->begin[column], end = w.rest->end[column];
    const float *s = (const float *)(w.shared + a.place.s_at) + column * shape::s_stride + key;
    float score[keys], most = -CUDART_INF_F;
#pragma unroll
    for (int j = 0; j < keys; j += 4) {
        float4 v = *(const float4 *)(s + j);
#pragma unroll
        for (int c = 1; c < shape::chains; c++) {
            const float4 next = *(const float4 *)(s + c * shape::columns * shape::s_stride + j);
            v = make_float4(__fadd_rn(v.x, next.x), __fadd_rn(v.y, next.y), __fadd_rn(v.z, next.z),
                            __fadd_rn(v.w, next.w));
        }
        score[j] = v.x, score[j + 1] = v.y, score[j + 2] = v.z, score[j + 3] = v.w;
    }
#pragma unroll
    for (int j = 0; j < keys; j++) {
        score[j] = pos + j >= begin && pos + j < end ? score[j] * a.scale : -CUDART_INF_F;
        most = fmaxf(most, score[j]);
    }
#pragma unroll
    for (int step = 4; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    most = fmaxf(*max, ceilf(most));
    const float from = most == -CUDART_INF_F ? 0 : most, corr = fold_weight(*max, from);
    float total = 0;
    uint32_t *p = (uint32_t *)(w.shared + a.place.p_at) + (column * shape::p_stride + key) / 2;
#pragma unroll
    for (int j = 0; j < keys; j += 2) {
        const half2 two = __floats2half2_rn(exp2f(score[j] - from), exp2f(score[j + 1] - from));
        const float2 back = __half22float2(two);
        p[j / 2] = *(const uint32_t *)&two;
        total = __fadd_rn(total, __fadd_rn(back.x, back.y));
    }
#pragma unroll
    for (int step = 4; step > 0; step /= 2) total = __fadd_rn(total, __shfl_xor_sync(0xffffffffu, total, step));
    *sum = __fmaf_rn(*sum, corr, total);
    *max = most;
    if (lane_id() % 8 == 0) w.rest->corr[column] = corr;
}

/* Where this warp's sums lie. */
template <int D, int NT> static __device__ inline int first_dim()
{
    using shape = attn_shape<D, NT>;
    return warp_id() / shape::sum_groups * shape::dim_tiles * 16;
}

template <int D, int NT> static __device__ inline int first_column()
{
    using shape = attn_shape<D, NT>;
    return warp_id() % shape::sum_groups * shape::n_summed * 8;
}

/* o of this warp's dims and columns: times corr, plus the tile's weighted values. v: a tile of f16 rows. */
template <int D, int NT>
static __device__ inline void add_tile(const attn_args &a, const attn_work &w, const uint8_t *v,
                                       float (*o)[attn_shape<D, NT>::n_summed][4])
{
    using shape = attn_shape<D, NT>;
    const int lane = lane_id(), first = first_column<D, NT>();
    const uint32_t v_at = shared_address(v) + (uint32_t)((lane % 8 + lane / 16 * 8) * shape::row_bytes +
                                                         (first_dim<D, NT>() + lane / 8 % 2 * 8) * 2);
    const uint32_t p_at = shared_address(w.shared + a.place.p_at) +
                          (uint32_t)(((first + lane % 8) * shape::p_stride + lane / 8 % 2 * 8) * 2);
#pragma unroll
    for (int n = 0; n < shape::n_summed; n++) {
        const float c0 = w.rest->corr[first + n * 8 + 2 * (lane % 4)],
                    c1 = w.rest->corr[first + n * 8 + 2 * (lane % 4) + 1];
#pragma unroll
        for (int m = 0; m < shape::dim_tiles; m++) {
            o[m][n][0] *= c0;
            o[m][n][1] *= c1;
            o[m][n][2] *= c0;
            o[m][n][3] *= c1;
        }
    }
    /* 16 keys at a time, so that few fragments live beside the sums: more would not fit the registers. */
#pragma unroll
    for (int step = 0; step < shape::tile / 16; step++) {
        uint32_t t[shape::dim_tiles][4];
#pragma unroll
        for (int m = 0; m < shape::dim_tiles; m++)
            load_transposed(t[m], v_at + (uint32_t)(step * 16 * shape::row_bytes + m * 32));
#pragma unroll
        for (int n = 0; n < shape::n_summed; n++) {
            if (first + n * 8 >= w.n_columns) break;
            uint32_t p[2];
            load_two(p, p_at + (uint32_t)((n * 8 * shape::p_stride + step * 16) * 2));
#pragma unroll
            for (int m = 0; m < shape::dim_tiles; m++) multiply(o[m][n], t[m], p[0], p[1]);
        }
    }
}

/* ---- parts ---- */

static __device__ inline int row_of_column(const attn_args &a, int first_row, int column)
{
    return first_row + column / a.k.heads_per_kv;
}

static __device__ inline int head_of_column(const attn_args &a, const attn_work &w, int column)
{
    return w.kv_head * a.k.heads_per_kv + column % a.k.heads_per_kv;
}

/* Parts of a row and a head. */
static __device__ inline float *parts_of(const attn_args &a, int row, int head)
{
    const size_t n_heads = (size_t)a.k.heads_per_kv * a.k.n_kv_heads;
    return a.parts + ((size_t)(row - a.first_row) * n_heads + head) * a.k.max_groups * (ATTN_PART_HEAD + a.k.head_dim);
}

static __device__ inline float *part_of(const attn_args &a, int row, int head, int group)
{
    return parts_of(a, row, head) + (size_t)(group % a.k.max_groups) * (ATTN_PART_HEAD + a.k.head_dim);
}

static __device__ inline float *output_of(const attn_args &a, int row, int head)
{
    return a.out + ((size_t)row * a.k.heads_per_kv * a.k.n_kv_heads + head) * a.k.head_dim;
}

/* True on all threads of the block that comes last of n. Its reads then see what the others wrote before they came. */
static __device__ inline bool comes_last(int *counter, int n, int *flag)
{
    fence();
    __syncthreads();
    if (threadIdx.x == 0) {
        const bool is_last = atomicAdd(counter, 1) == n - 1;
        if (is_last) *counter = 0; /* for the next launch */
        *flag = is_last;
    }
    __syncthreads();
    fence();
    return *flag;
}

/* The parts of all rows of the row block become the output. */
static __device__ inline void fold_block(const attn_args &a, const attn_work &w)
{
    const int quads = a.k.head_dim / 4, n = w.item.n_block_rows * a.k.heads_per_kv * quads;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        const int column = i / quads, dim = i % quads * 4, row = row_of_column(a, w.item.block_row, column);
        const int r = max(batch_row(a.map, row), 0), head = head_of_column(a, w, column);
        const attn_groups g = attn_groups_of(a.k, attn_row_range(a.k, a.in, r));
        put_folded(fold_parts(a.k, parts_of(a, row, head), g, dim), a.layer.v_type, output_of(a, row, head) + dim);
    }
}

/* A column's parts so far, in the lanes that weigh it. */
typedef struct attn_total {
    float max, sum;
} attn_total;

/* A block that takes all keys of its rows: the group that ends here is added to the output, by the rule of
 * attn_fold.cuh. Its sums begin anew. */
template <int D, int NT>
static __device__ inline void add_group(const attn_args &a, const attn_work &w, bool is_last, attn_total *part,
                                        attn_total *all, float (*o)[attn_shape<D, NT>::n_summed][4])
{
    using shape = attn_shape<D, NT>;
    const float max = fmaxf(all->max, part->max);
    const float old_scale = fold_weight(all->max, max), new_scale = fold_weight(part->max, max);
    all->sum = __fmaf_rn(part->sum, new_scale, all->sum * old_scale);
    all->max = max;
    *part = {-CUDART_INF_F, 0};
    const int own = warp_id() * 4 + lane_id() / 8;
    if (lane_id() % 8 == 0 && own < shape::columns) {
        w.rest->max[own] = old_scale;
        w.rest->sum[own] = new_scale;
        w.rest->inverse[own] = is_last ? fold_inverse(all->sum) : 1.0f;
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < shape::n_summed; n++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const int column = first_column<D, NT>() + n * 8 + 2 * (lane_id() % 4) + c;
            if (column >= w.n_columns) continue;
            const float before = w.rest->max[column], scale = w.rest->sum[column];
            const float inverse = w.rest->inverse[column];
            float *const to = output_of(a, row_of_column(a, w.item.row, column), head_of_column(a, w, column)) +
                              first_dim<D, NT>() + lane_id() / 4;
            float sum[shape::dim_tiles * 2];
#pragma unroll
            for (int i = 0; i < shape::dim_tiles * 2; i++) sum[i] = before > 0 ? to[i * 8] * before : 0.0f;
#pragma unroll
            for (int i = 0; i < shape::dim_tiles * 2; i++)
                to[i * 8] = __fmaf_rn(o[i / 2][n][i % 2 * 2 + c], scale, sum[i]) * inverse;
        }
#pragma unroll
    for (int m = 0; m < shape::dim_tiles; m++)
#pragma unroll
        for (int n = 0; n < shape::n_summed; n++) o[m][n][0] = o[m][n][1] = o[m][n][2] = o[m][n][3] = 0;
}

/* This block's sums: the output, or a part of it, and then perhaps the folding of all that wait for it. */
template <int D, int NT>
static __device__ inline void put_sums(const attn_args &a, const attn_work &w,
                                       const float (*o)[attn_shape<D, NT>::n_summed][4])
{
    using shape = attn_shape<D, NT>;
    const bool is_whole = w.item.group < 0 || (w.item.n_in_block == 1 && !a.folds_apart);
    const int group = w.item.group;
#pragma unroll
    for (int n = 0; n < shape::n_summed; n++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const int column = first_column<D, NT>() + n * 8 + 2 * (lane_id() % 4) + c;
            if (column >= w.n_columns) continue;
            const int row = row_of_column(a, w.item.row, column), head = head_of_column(a, w, column);
            const float sum = w.rest->sum[column];
            const float inverse = is_whole ? fold_inverse(sum) : 1.0f;
            float *to = is_whole ? output_of(a, row, head) : part_of(a, row, head, group) + ATTN_PART_HEAD;
#pragma unroll
            for (int m = 0; m < shape::dim_tiles; m++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    to[first_dim<D, NT>() + m * 16 + h * 8 + lane_id() / 4] = o[m][n][2 * h + c] * inverse;
        }
    if (is_whole) return;
    for (int column = (int)threadIdx.x; column < w.n_columns; column += shape::threads)
        *(float2 *)part_of(a, row_of_column(a, w.item.row, column), head_of_column(a, w, column), group) =
            make_float2(w.rest->max[column], w.rest->sum[column]);

    if (a.folds_apart || !comes_last(a.counters + w.item.counters + w.kv_head, w.item.n_in_block, &w.rest->flag))
        return;
    fold_block(a, w);
}

/* ---- one item ---- */

/* Outputs that this block has written are turned back, where the cache holds rotated values. */
template <int D> static __device__ inline void turn_back(const attn_args &a, const attn_work &w)
{
    if (!kv_is_rotated(a.layer.v_type)) return;
    __syncthreads();
    for (int i = (int)threadIdx.x; i < w.n_columns * (D / 4); i += (int)blockDim.x) {
        const int column = i / (D / 4), dim = i % (D / 4) * 4;
        float4 *const at =
            (float4 *)(output_of(a, row_of_column(a, w.item.row, column), head_of_column(a, w, column)) + dim);
        *at = rotate_quad(*at, ROTATE_BACK);
    }
}

/* What each column sees; nothing past the last one. */
static __device__ inline void find_ranges(const attn_args &a, const attn_work &w)
{
    for (int c = (int)threadIdx.x; c < a.place.columns; c += (int)blockDim.x) {
        attn_range sees = {0, 0};
        if (c < w.n_columns) {
            sees = attn_row_range(a.k, a.in, max(batch_row(a.map, row_of_column(a, w.item.row, c)), 0));
        }
        w.rest->begin[c] = max(sees.begin, w.item.begin);
        w.rest->end[c] = min(sees.end, w.item.end);
    }
}

/* Queries as f16, zeros past the last column. */
template <int D, int NT> static __device__ inline void load_queries(const attn_args &a, const attn_work &w)
{
    using shape = attn_shape<D, NT>;
    const int n_heads = a.k.heads_per_kv * a.k.n_kv_heads;
    const int end = (w.n_columns + 7) / 8 * 8;
    const bool is_rotated = kv_is_rotated(a.layer.k_type);
#pragma unroll 4
    for (int i = (int)threadIdx.x; i < end * (D / 4); i += shape::threads) {
        const int column = i / (D / 4), dim = i % (D / 4) * 4;
        float4 q = make_float4(0, 0, 0, 0);
        if (column < w.n_columns)
            q = __ldcg((const float4 *)(a.q +
                                        ((size_t)row_of_column(a, w.item.row, column) * n_heads +
                                         head_of_column(a, w, column)) *
                                            D +
                                        dim));
        if (is_rotated) q = rotate_quad(q, ROTATE_FORTH); /* a warp has 128 values of one column */
        const half2 low = __floats2half2_rn(q.x, q.y), high = __floats2half2_rn(q.z, q.w);
        *(uint2 *)(w.shared + a.place.q_at + column * shape::row_bytes + dim * 2) =
            make_uint2(*(const uint32_t *)&low, *(const uint32_t *)&high);
    }
}

template <int D, int NT>
static __device__ inline attn_work open_item(const attn_args &a, const attn_item &item, int kv_head, uint8_t *shared)
{
    using shape = attn_shape<D, NT>;
    attn_work w;
    w.item = item;
    w.kv_head = kv_head;
    w.n_columns = item.n_rows * a.k.heads_per_kv;
    w.first_tile = item.begin / shape::tile;
    w.n_units = item.end > item.begin ? 2 * ((item.end - 1) / shape::tile + 1 - w.first_tile) : 0;
    const int r = max(batch_row(a.map, item.row), 0);
    w.seq = max(a.in.seq[r], 0);
    w.base = item.n_rows == 1 ? a.in.base[r] : INT32_MAX; /* several rows never reach their draft nodes */
    w.path = a.in.path + (size_t)r * BATCH_MAX_TREE;
    w.shared = shared;
    w.rest = (attn_rest *)(shared + a.place.rest_at);
    load_pages(a, w, item.begin / KV_PAGE_LEN);
    find_ranges(a, w);
    __syncthreads();
    return w;
}

/* has_waited: this block may read what earlier kernels wrote. Keys of earlier steps may be read before. */
template <int D, int NT, bool SMALL>
static __device__ inline void attend(const attn_args &a, const attn_item &item, int kv_head, uint8_t *shared,
                                     bool has_waited)
{
    using shape = attn_shape<D, NT>;
    const attn_work w = open_item<D, NT>(a, item, kv_head, shared);
    const int stages = a.place.stages;
    attn_feed<D, NT, SMALL> feed;
    if (!has_waited && !item.is_settled) wait_for_predecessors();
    open_feed<D, NT, SMALL>(a, w, &feed);
    for (int i = 0; i < stages; i++) fill_unit<D, NT, SMALL>(a, w, i, &feed);
    if (!has_waited && item.is_settled) wait_for_predecessors();
    load_queries<D, NT>(a, w);

    attn_total part = {-CUDART_INF_F, 0}, all = part; /* of column warp * 4 + lane / 8 */
    int group = attn_group_of(a.k.cut, item.begin);
    float o[shape::dim_tiles][shape::n_summed][4] = {};
    for (int unit = 0; unit < w.n_units; unit += 2) {
        const uint8_t *k = shared + unit % stages * a.place.stage_bytes;
        const uint8_t *v = shared + (unit + 1) % stages * a.place.stage_bytes;
        copies_wait(stages - 2 + (unit == 0));
        __syncthreads(); /* K is there; the last V has been read */
        if (unit > 0) fill_unit<D, NT, SMALL>(a, w, unit - 1 + stages, &feed);
        score_tile<D, NT>(a, w, k);
        copies_wait(stages - 2);
        __syncthreads(); /* V is there; K has been read */
        fill_unit<D, NT, SMALL>(a, w, unit + stages, &feed);
        weigh_tile<D, NT>(a, w, w.first_tile + unit / 2, &part.max, &part.sum);
        __syncthreads(); /* weights are there */
        add_tile<D, NT>(a, w, v, o);
        const int end = (w.first_tile + unit / 2 + 1) * shape::tile;
        if (item.group >= 0 || (end < attn_group_begin(a.k.cut, group + 1) && unit + 2 < w.n_units)) continue;
        add_group<D, NT>(a, w, unit + 2 >= w.n_units, &part, &all, o);
        group++;
    }
    const bool is_part = item.group >= 0 || w.n_units == 0; /* else the output is there */
    if (is_part && lane_id() % 8 == 0 && warp_id() * 4 < shape::columns) {
        w.rest->max[warp_id() * 4 + lane_id() / 8] = part.max;
        w.rest->sum[warp_id() * 4 + lane_id() / 8] = part.sum;
    }
    copies_wait(0);
    __syncthreads();
    if (is_part) put_sums<D, NT>(a, w, o);
    if (item.group < 0 || (item.n_in_block == 1 && !a.folds_apart)) turn_back<D>(a, w);
    __syncthreads(); /* shared memory is free for the next item */
}

/* Grid: as many blocks as run at once, at most. */
template <int D, int NT, bool SMALL>
static __global__ void __launch_bounds__(attn_shape<D, NT>::threads, NT == 1 ? 2 : 1)
    attn_tile_kernel(const __grid_constant__ attn_args a)
{
    extern __shared__ __align__(128) uint8_t shared[];
    const attn_list list = *a.list;
    const int n_kv = a.k.n_kv_heads;
    bool has_waited = false;
    release_dependents();
    for (int i = (int)blockIdx.x; i < list.n * n_kv; i += (int)gridDim.x) {
        attend<D, NT, SMALL>(a, a.items[list.first + i / n_kv], i % n_kv, shared, has_waited);
        has_waited = true;
    }
    if (!has_waited) wait_for_predecessors(); /* the kernel after this one counts on that */
}

template <int D, bool SMALL> static inline attn_fn attn_kernel_of(int columns)
{
    switch (columns) {
    case 8: return attn_tile_kernel<D, 1, SMALL>;
    case 16: return attn_tile_kernel<D, 2, SMALL>;
    case 32: return attn_tile_kernel<D, 4, SMALL>;
    default: return attn_tile_kernel<D, 8, SMALL>;
    }
}

#endif
