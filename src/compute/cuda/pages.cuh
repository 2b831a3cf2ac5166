/* pages.cuh: reading and writing the pages of a layer (dev_pages in state.h) from kernels. */
#ifndef FACET_COMPUTE_CUDA_PAGES_CUH
#define FACET_COMPUTE_CUDA_PAGES_CUH

#include "compute/cuda/rotate.cuh"
#include "compute/cuda/state.h"

/* The row of one KV head at `index` = page * KV_PAGE_LEN + slot in page. */
static __device__ inline uint8_t *page_k(const dev_pages &l, int64_t index, int head)
{
    int64_t slot = (int64_t)head * KV_PAGE_LEN + index % KV_PAGE_LEN;
    return l.data + index / KV_PAGE_LEN * (int64_t)l.page_bytes + slot * l.k_row_bytes;
}

static __device__ inline uint8_t *page_v(const dev_pages &l, int64_t index, int head)
{
    int64_t slot = (int64_t)head * KV_PAGE_LEN + index % KV_PAGE_LEN;
    return l.data + index / KV_PAGE_LEN * (int64_t)l.page_bytes + l.v_offset + slot * l.v_row_bytes;
}

/* page * KV_PAGE_LEN + slot in page of a sequence's slot; stage.cu has checked that the page is held. */
static __device__ inline int64_t page_index(const dev_tables &t, int seq, int group, int slot)
{
    int64_t page = t.data[((int64_t)seq * t.n_groups + group) * t.cap + slot / KV_PAGE_LEN];
    return page * KV_PAGE_LEN + slot % KV_PAGE_LEN;
}

/* Rows of the small types have all codes first, then one scale (f16) per block of 32 values. A block's codes:
 *   q8_0    32 bytes
 *   q4_0    4 words of 8 values: value 2 k has bits 4 k .., value 2 k + 1 bits 16 + 4 k ..
 *   tq3_0   3 words, one for each bit of the codes: value 8 k + i has bit 4 i + k of each
 * so that two q4_0 codes come out as the halves of a word, and eight neighbouring tq3_0 codes as its nibbles. */

/* Eight neighbouring values of a row as they lie in memory. f16: eight halves in a. f32: a and b. q8_0: eight codes in
 * a.x and a.y, the scale in a.z. */
typedef struct kv_eight {
    uint4 a, b;
} kv_eight;

/* Values i .. i + 7 of dim, i a multiple of 8; row NULL: zeros. */
static __device__ inline kv_eight kv_read_eight(kv_type type, const uint8_t *row, int dim, int i)
{
    kv_eight v = {};
    if (!row) return v;
    if (type == KV_F16) {
        v.a = *(const uint4 *)(row + 2 * i);
    } else if (type == KV_F32) {
        v.a = ((const uint4 *)(row + 4 * i))[0];
        v.b = ((const uint4 *)(row + 4 * i))[1];
    } else {
        const uint16_t *codes = (const uint16_t *)(row + i); /* a short row is aligned to no more than that */
        v.a.x = (uint32_t)codes[0] | (uint32_t)codes[1] << 16;
        v.a.y = (uint32_t)codes[2] | (uint32_t)codes[3] << 16;
        v.a.z = *(const uint16_t *)(row + dim + i / 32 * 2);
    }
    return v;
}

static __device__ inline float kv_eight_value(kv_type type, const kv_eight &v, int i)
{
    const uint4 &half = i < 4 ? v.a : v.b;
    if (type == KV_F32)
        return __uint_as_float(i % 4 == 0 ? half.x : i % 4 == 1 ? half.y : i % 4 == 2 ? half.z : half.w);
    if (type == KV_F16) {
        uint32_t pair = i < 2 ? v.a.x : i < 4 ? v.a.y : i < 6 ? v.a.z : v.a.w;
        return __half2float(__ushort_as_half((unsigned short)(i % 2 ? pair >> 16 : pair & 0xffff)));
    }
    int8_t code = (int8_t)((i < 4 ? v.a.x : v.a.y) >> (8 * (i % 4)));
    return __half2float(__ushort_as_half((unsigned short)v.a.z)) * (float)code;
}

/* ---- writing, by one warp: lane l has the values 4 l .. 4 l + 3 of a span of 128, those of a block are on eight
 * lanes. A row whose dimension is 64 has no values on the upper lanes, which take part nevertheless. ---- */

static __device__ inline float most_of_block(const float4 &x)
{
    float most = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
    for (int step = 1; step < 8; step *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
    return most;
}

/* first: the span's first dimension; the block's scale. */
static __device__ inline void store_scale(uint8_t *row, int dim, int code_bytes, int first, float scale)
{
    const int at = first + 4 * lane_id();
    if (lane_id() % 8 == 0 && at < dim)
        ((uint16_t *)(row + code_bytes))[at / 32] = __half_as_ushort(__float2half_rn(scale));
}

static __device__ inline uint32_t code_q8_0(float x, float by)
{
    return (uint32_t)max(-127, min(127, (int)roundf(x * by))) & 0xffu;
}

/* The host's pages follow the same rule. */
static __device__ inline void store_q8_0(uint8_t *row, int dim, int first, const float4 &x)
{
    const float most = most_of_block(x), by = most > 1e-30f ? 127.0f / most : 0.0f;
    const int at = first + 4 * lane_id();
    if (at < dim)
        *(uint32_t *)(row + at) =
            code_q8_0(x.x, by) | code_q8_0(x.y, by) << 8 | code_q8_0(x.z, by) << 16 | code_q8_0(x.w, by) << 24;
    store_scale(row, dim, dim, first, most / 127.0f);
}

static __device__ inline uint32_t code_q4_0(float x, float by)
{
    return (uint32_t)max(0, min(15, (int)(x * by + 8.5f)));
}

/* The value of the largest size in a block, the first one if several have it. */
static __device__ inline float extreme_of_block(const float4 &x)
{
    const float most = most_of_block(x);
    float own = fabsf(x.x) == most ? x.x : fabsf(x.y) == most ? x.y : fabsf(x.z) == most ? x.z : x.w;
    const bool has = fabsf(own) == most;
    const uint32_t who = __ballot_sync(0xffffffffu, has) >> (lane_id() & 24) & 0xffu;
    return __shfl_sync(0xffffffffu, own, (lane_id() & 24) + (who ? __ffs((int)who) - 1 : 0));
}

/* As quant/legacy.c: the extreme value becomes code 0. */
static __device__ inline void store_q4_0(uint8_t *row, int dim, int first, const float4 &x)
{
    const float scale = extreme_of_block(x) / -8.0f, by = scale != 0 ? 1.0f / scale : 0.0f;
    const int at = first + 4 * lane_id();
    uint32_t word = code_q4_0(x.x, by) | code_q4_0(x.y, by) << 16 | code_q4_0(x.z, by) << 4 | code_q4_0(x.w, by) << 20;
    word <<= lane_id() % 2 * 8; /* values 4 .. 7 of the word */
    word |= __shfl_xor_sync(0xffffffffu, word, 1);
    if (lane_id() % 2 == 0 && at < dim) ((uint32_t *)row)[at / 8] = word;
    store_scale(row, dim, dim / 2, first, scale);
}

/* Code of a value of a rotated vector of length 1 (quant/tq3.c), and its level. */
static __device__ inline int tq3_code(float x)
{
    return (x >= -0.154259f) + (x >= -0.091775f) + (x >= -0.043589f) + (x >= 0) + (x >= 0.043589f) + (x >= 0.091775f) +
           (x >= 0.154259f);
}

static __device__ inline float tq3_level_of(int code)
{
    const int k = code > 3 ? code - 4 : 3 - code;
    const float size = k == 0 ? 0.021460f : k == 1 ? 0.065717f : k == 2 ? 0.117832f : 0.190685f;
    return code > 3 ? size : -size;
}

/* From values that are not rotated yet. */
static __device__ inline void store_tq3_0(uint8_t *row, int dim, int first, const float4 &v)
{
    float sum = __fmaf_rn(v.x, v.x, 0), levels = 0;
    sum = __fmaf_rn(v.w, v.w, __fmaf_rn(v.z, v.z, __fmaf_rn(v.y, v.y, sum)));
    const float length = sqrtf(warp_sum(sum));
    const bool is_zero = !(length > 1e-10f);
    float4 x = is_zero ? make_float4(0, 0, 0, 0) : make_float4(v.x / length, v.y / length, v.z / length, v.w / length);
    x = rotate_quad(x, ROTATE_FORTH);
    const float own[4] = {x.x, x.y, x.z, x.w};
    uint32_t word[3] = {};
    for (int i = 0; i < 4; i++) {
        const int code = tq3_code(own[i]), bit = 4 * (lane_id() % 2 * 4 + i) + lane_id() % 8 / 2;
        const float level = tq3_level_of(code);
        levels = __fmaf_rn(level, level, levels);
        for (int k = 0; k < 3; k++) word[k] |= (uint32_t)(code >> k & 1) << bit;
    }
    for (int k = 0; k < 3; k++)
        for (int step = 1; step < 8; step *= 2) word[k] |= __shfl_xor_sync(0xffffffffu, word[k], step);
    if (lane_id() % 8 < 3)
        ((uint32_t *)row)[(first / 32 + lane_id() / 8) * 3 + lane_id() % 8] = lane_id() % 8 == 0   ? word[0]
                                                                              : lane_id() % 8 == 1 ? word[1]
                                                                                                   : word[2];
    store_scale(row, dim, dim / 32 * 12, first, is_zero ? 0 : length / sqrtf(warp_sum(levels)));
}

static __host__ __device__ inline bool kv_is_rotated(kv_type t)
{
    return t == KV_TQ3_0 || t == KV_ROT_Q8_0 || t == KV_ROT_Q4_0;
}

/* The bytes that a type stores (kv_type_info). */
static __device__ inline kv_type kv_layout_of(kv_type t)
{
    return t == KV_ROT_Q8_0 ? KV_Q8_0 : t == KV_ROT_Q4_0 ? KV_Q4_0 : t;
}

/* The small types: a call, so that the code of the usual ones stays short. */
static __device__ __noinline__ void store_small(kv_type type, uint8_t *row, int dim, int first, float4 x)
{
    if (type == KV_TQ3_0) {
        store_tq3_0(row, dim, first, x);
        return;
    }
    if (kv_is_rotated(type)) x = rotate_quad(x, ROTATE_FORTH);
    if (kv_layout_of(type) == KV_Q8_0)
        store_q8_0(row, dim, first, x);
    else
        store_q4_0(row, dim, first, x);
}

/* A span of a row. dim is 64 or a multiple of 128; of 128 where values are rotated. */
static __device__ inline void kv_store(kv_type type, uint8_t *row, int dim, int first, const float4 &x)
{
    const int at = first + 4 * lane_id();
    if (type == KV_F16) {
        const half2 low = __floats2half2_rn(x.x, x.y), high = __floats2half2_rn(x.z, x.w);
        if (at < dim) *(uint2 *)(row + 2 * at) = make_uint2(*(const uint32_t *)&low, *(const uint32_t *)&high);
    } else if (type == KV_F32) {
        if (at < dim) *(float4 *)(row + 4 * at) = x;
    } else {
        store_small(type, row, dim, first, x);
    }
}

#endif
