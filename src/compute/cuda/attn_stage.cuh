/* attn_stage.cuh: what a block of attn_tile.cuh reads: tiles of K and V on their way into stages of shared memory, as
 * f16 rows whatever type the cache has. */
#ifndef FACET_COMPUTE_CUDA_ATTN_STAGE_CUH
#define FACET_COMPUTE_CUDA_ATTN_STAGE_CUH

#include "compute/cuda/async.cuh"
#include "compute/cuda/attn_fold.cuh"
#include "compute/cuda/attn_launch.cuh"
#include "compute/cuda/pages.cuh"

static __host__ __device__ constexpr int attn_warps(int nt)
{
    return nt == 1 ? 8 : 16;
}

/* Who does what in a block of NT n8 tiles of columns. */
template <int D, int NT> struct attn_shape {
    static constexpr int warps = attn_warps(NT), threads = warps * WARP, columns = NT * 8;
    static constexpr int tile = attn_tile_len(D), row_bytes = 2 * D + 16;
    static constexpr int s_stride = attn_s_stride(D), p_stride = attn_p_stride(D);
    /* Scores: a warp takes one chain of 16 keys, and n_scored n8 tiles. */
    static constexpr int chains = D / ATTN_CHAIN, key_tiles = tile / 16;
    static constexpr int score_groups = warps / (chains * key_tiles) < NT ? warps / (chains * key_tiles) : NT;
    static constexpr int n_scored = NT / score_groups;
    /* Sums: dim_tiles tiles of 16 dims, and n_summed n8 tiles. */
    static constexpr int dim_tiles = D / 16 >= warps ? D / 16 / warps : 1;
    static constexpr int sum_groups = D / 16 >= warps ? 1 : warps / (D / 16);
    static constexpr int n_summed = NT / sum_groups;
};

/* A block's shared memory, and its item. */
typedef struct attn_work {
    attn_item item;
    int kv_head, n_columns, first_tile, n_units; /* a unit is the K or the V tile of some keys */
    int base;                                    /* slots from here on are found through path; INT32_MAX without */
    const uint8_t *path;
    int seq;
    uint8_t *shared;
    attn_rest *rest;
} attn_work;

/* ---- tiles on their way in ---- */

/* src_bytes: bytes, or 0 for zeros. */
static __device__ inline void copy_16(uint32_t dst, const uint8_t *src, int src_bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(src_bytes) : "memory");
}

/* n groups at most are still under way afterwards. */
static __device__ inline void copies_wait(int n)
{
    if (n <= 0)
        asm volatile("cp.async.wait_group 0;" ::: "memory");
    else if (n == 1)
        asm volatile("cp.async.wait_group 1;" ::: "memory");
    else
        asm volatile("cp.async.wait_group 2;" ::: "memory");
}

static __device__ inline int slot_of(const attn_work &w, int pos)
{
    return pos < w.base ? pos : w.base + w.path[pos - w.base];
}

/* Numbers of the pages from page `first` of the sequence on. */
static __device__ inline void load_pages(const attn_args &a, const attn_work &w, int first)
{
    const int32_t *table = a.tables.data + ((size_t)w.seq * a.tables.n_groups + a.layer.group) * a.tables.cap;
    for (int i = (int)threadIdx.x; i < ATTN_PAGES; i += (int)blockDim.x)
        w.rest->page[i] = table[min(first + i, a.tables.cap - 1)];
    if (threadIdx.x == 0) w.rest->first_page = first;
}

/* By the whole block, between barriers: the pages that a tile needs. The branch is the same for all threads. */
template <int TILE> static __device__ inline void need_pages(const attn_args &a, const attn_work &w, int tile)
{
    const int first = tile * TILE / KV_PAGE_LEN, end = (tile + 1) * TILE;
    const int last = (end > w.base ? w.base + BATCH_MAX_TREE : end - 1) / KV_PAGE_LEN;
    if (last < w.rest->first_page + ATTN_PAGES) return;
    __syncthreads();
    load_pages(a, w, max(first - 1, 0)); /* V of the tile before may still be asked for */
    __syncthreads();
}

/* The row of a key of this item's KV head. */
static __device__ inline const uint8_t *row_of_key(const attn_args &a, const attn_work &w, bool is_v, int pos)
{
    const int slot = slot_of(w, pos);
    const int64_t page = w.rest->page[slot / KV_PAGE_LEN - w.rest->first_page];
    const int64_t index = page * KV_PAGE_LEN + slot % KV_PAGE_LEN;
    return is_v ? page_v(a.layer, index, w.kv_head) : page_k(a.layer, index, w.kv_head);
}

/* A row by one warp; zeros when it is not seen. */
template <int BYTES> static __device__ inline void copy_row(uint8_t *dst, const uint8_t *src, bool is_seen)
{
    const uint32_t to = shared_address(dst);
#pragma unroll
    for (int c = lane_id() * 16; c < BYTES; c += WARP * 16) copy_16(to + c, src + c, is_seen ? 16 : 0);
}

/* A tile of f16 rows on its way into a stage. */
template <int D, int NT>
static __device__ inline void copy_tile(const attn_args &a, const attn_work &w, int unit, uint8_t *stage)
{
    using shape = attn_shape<D, NT>;
    const int first = (w.first_tile + unit / 2) * shape::tile;
    const bool is_v = unit & 1, is_plain = first + shape::tile <= w.base; /* rows follow each other in one page */
    const uint8_t *base = is_plain ? row_of_key(a, w, is_v, first) : a.layer.data;
#pragma unroll
    for (int i = 0; i < shape::tile / shape::warps; i++) {
        const int j = warp_id() + i * shape::warps, pos = first + j;
        const bool is_seen = pos >= w.item.begin && pos < w.item.end;
        const uint8_t *src = base + (is_plain ? j * 2 * D : 0);
        if (!is_plain && is_seen) src = row_of_key(a, w, is_v, pos);
        copy_row<2 * D>(stage + j * shape::row_bytes, src, is_seen);
    }
}

/* ---- tiles of small types: read into registers while an earlier tile is worked on, made f16 in shared memory later
 * ----
 */

/* A thread's part of a tile: groups of eight values, their codes and the scale of their block (pages.cuh). */
template <int D, int NT> struct attn_raw {
    static constexpr int n = attn_shape<D, NT>::tile * D / 8 / attn_shape<D, NT>::threads;
    uint32_t codes[n][3];
    uint16_t scale[n];
};

template <int D> static __device__ inline int code_bytes_of(kv_type layout)
{
    return layout == KV_Q8_0 ? D : layout == KV_Q4_0 ? D / 2 : D / 32 * 12;
}

/* Codes and scale of values 8 c .. 8 c + 7 of a row. */
template <int D>
static __device__ inline void load_eight(kv_type layout, const uint8_t *row, int c, uint32_t codes[3], uint16_t *scale)
{
    if (layout == KV_Q8_0) {
        const uint2 v = __ldcg((const uint2 *)(row + c * 8));
        codes[0] = v.x;
        codes[1] = v.y;
    } else if (layout == KV_Q4_0) {
        codes[0] = __ldcg((const uint32_t *)row + c);
    } else {
#pragma unroll
        for (int k = 0; k < 3; k++) codes[k] = __ldcg((const uint32_t *)row + c / 4 * 3 + k);
    }
    *scale = __ldcg((const uint16_t *)(row + code_bytes_of<D>(layout)) + c / 4);
}

/* Rows that are not seen become zeros. */
template <int D, int NT>
static __device__ inline void load_raw(const attn_args &a, const attn_work &w, int unit, kv_type layout,
                                       attn_raw<D, NT> *raw)
{
    using shape = attn_shape<D, NT>;
    if (unit >= w.n_units) return;
    const int tile = w.first_tile + unit / 2, first = tile * shape::tile;
    need_pages<shape::tile>(a, w, tile);
    const bool is_v = unit & 1, is_plain = first + shape::tile <= w.base;
    const int bytes = (int)(is_v ? a.layer.v_row_bytes : a.layer.k_row_bytes);
    const uint8_t *base = is_plain ? row_of_key(a, w, is_v, first) : a.layer.data;
#pragma unroll
    for (int i = 0; i < attn_raw<D, NT>::n; i++) {
        const int at = (int)threadIdx.x + i * shape::threads, j = at / (D / 8), pos = first + j;
        const bool is_seen = pos >= w.item.begin && pos < w.item.end;
        raw->scale[i] = 0;
#pragma unroll
        for (int k = 0; k < 3; k++) raw->codes[i][k] = 0;
        if (!is_seen) continue;
        const uint8_t *row = is_plain ? base + j * bytes : row_of_key(a, w, is_v, pos);
        load_eight<D>(layout, row, at % (D / 8), raw->codes[i], &raw->scale[i]);
    }
}

/* Two of four codes + 128, or with an offset of 1024 + zero in f16, as halves times d. */
static __device__ inline uint32_t scaled_codes(uint32_t two, float zero, half2 d)
{
    const half2 v = __hmul2(__hsub2(*(const half2 *)&two, __float2half2_rn(1024.0f + zero)), d);
    return *(const uint32_t *)&v;
}

static __device__ inline uint4 eight_q8_0(const uint32_t codes[3], half2 d)
{
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; j++)
        words[j] = scaled_codes(__byte_perm(codes[j / 2] ^ 0x80808080u, 0x64646464u, j % 2 ? 0x4342 : 0x4140), 128, d);
    return make_uint4(words[0], words[1], words[2], words[3]);
}

static __device__ inline uint4 eight_q4_0(const uint32_t codes[3], half2 d)
{
    uint32_t words[4];
#pragma unroll
    for (int j = 0; j < 4; j++) words[j] = scaled_codes((codes[0] >> 4 * j & 0x000f000fu) | 0x64006400u, 8, d);
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/* The levels of tq3_0 (quant/tq3.c) as f16: their low bytes, and their high ones. */
enum : uint32_t {
    TQ3_LEVEL_LOW_0 = 0x7e358b1a,
    TQ3_LEVEL_LOW_1 = 0x1a8b357e,
    TQ3_LEVEL_HIGH_0 = 0xa5acafb2,
    TQ3_LEVEL_HIGH_1 = 0x322f2c25,
};

/* Four codes choose four bytes of two words at once. */
static __device__ inline uint4 eight_tq3_0(const uint32_t planes[3], int k, half2 d)
{
    uint32_t codes = 0, words[4];
#pragma unroll
    for (int bit = 0; bit < 3; bit++) codes |= (planes[bit] >> k & 0x11111111u) << bit;
#pragma unroll
    for (int j = 0; j < 2; j++) {
        const uint32_t four = j ? codes >> 16 : codes & 0xffffu;
        const uint32_t low = __byte_perm(TQ3_LEVEL_LOW_0, TQ3_LEVEL_LOW_1, four);
        const uint32_t high = __byte_perm(TQ3_LEVEL_HIGH_0, TQ3_LEVEL_HIGH_1, four);
        words[2 * j] = __byte_perm(low, high, 0x5140);
        words[2 * j + 1] = __byte_perm(low, high, 0x7362);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const half2 v = __hmul2(*(const half2 *)&words[j], d);
        words[j] = *(const uint32_t *)&v;
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

template <int D, int NT>
static __device__ inline void store_raw(kv_type layout, const attn_raw<D, NT> &raw, uint8_t *stage)
{
    using shape = attn_shape<D, NT>;
#pragma unroll
    for (int i = 0; i < attn_raw<D, NT>::n; i++) {
        const int at = (int)threadIdx.x + i * shape::threads, row = at / (D / 8), c = at % (D / 8);
        const half2 d = __half2half2(__ushort_as_half(raw.scale[i]));
        *(uint4 *)(stage + row * shape::row_bytes + c * 16) = layout == KV_Q8_0   ? eight_q8_0(raw.codes[i], d)
                                                              : layout == KV_Q4_0 ? eight_q4_0(raw.codes[i], d)
                                                                                  : eight_tq3_0(raw.codes[i], c % 4, d);
    }
}

/* ---- the stages ---- */

/* What is on its way beside the copies: nothing when both types are f16. */
template <int D, int NT, bool SMALL> struct attn_feed {
    kv_type k, v; /* layouts */
    attn_raw<D, NT> raw;
};

template <int D, int NT> struct attn_feed<D, NT, false> {
};

template <int D, int NT, bool SMALL>
static __device__ inline void open_feed(const attn_args &a, const attn_work &w, attn_feed<D, NT, SMALL> *f)
{
    if constexpr (SMALL) {
        f->k = kv_layout_of(a.layer.k_type);
        f->v = kv_layout_of(a.layer.v_type);
        load_raw<D, NT>(a, w, f->k == KV_F16, f->k == KV_F16 ? f->v : f->k, &f->raw);
    }
}

/* Unit `unit` of the item into its stage, and the next one of a small type into registers. It counts as one group of
 * copies, which may be empty. */
template <int D, int NT, bool SMALL>
static __device__ inline void fill_unit(const attn_args &a, const attn_work &w, int unit, attn_feed<D, NT, SMALL> *f)
{
    using shape = attn_shape<D, NT>;
    uint8_t *const stage = w.shared + unit % a.place.stages * a.place.stage_bytes;
    bool is_copied = true;
    if constexpr (SMALL) {
        const kv_type own = unit & 1 ? f->v : f->k, other = unit & 1 ? f->k : f->v;
        is_copied = own == KV_F16;
        if (!is_copied && unit < w.n_units) {
            store_raw<D, NT>(own, f->raw, stage);
            if (other == KV_F16)
                load_raw<D, NT>(a, w, unit + 2, own, &f->raw);
            else
                load_raw<D, NT>(a, w, unit + 1, other, &f->raw);
        }
    }
    if (is_copied && unit < w.n_units) {
        need_pages<shape::tile>(a, w, w.first_tile + unit / 2);
        copy_tile<D, NT>(a, w, unit, stage);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

#endif
