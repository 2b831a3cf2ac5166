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

/* ---- writing, by one warp: x[j] is value lane + 32 j of a row ---- */

static __device__ inline void store_scale(uint8_t *row, int code_bytes, int block, float scale)
{
    if (lane_id() == 0) ((uint16_t *)(row + code_bytes))[block] = __half_as_ushort(__float2half_rn(scale));
}

/* The host's pages follow the same rule. */
static __device__ inline void store_q8_0(uint8_t *row, int dim, int block, float x)
{
    const float most = warp_max(fabsf(x));
    const int code = (int)roundf(x * (most > 1e-30f ? 127.0f / most : 0.0f));
    row[32 * block + lane_id()] = (uint8_t)(int8_t)max(-127, min(127, code));
    store_scale(row, dim, block, most / 127.0f);
}

/* As quant/legacy.c: the value of the largest size, the first one if several have it, becomes code 0. */
static __device__ inline void store_q4_0(uint8_t *row, int dim, int block, float x)
{
    const float most = warp_max(fabsf(x));
    const uint32_t who = __ballot_sync(0xffffffffu, fabsf(x) == most);
    const float extreme = __shfl_sync(0xffffffffu, x, who ? __ffs((int)who) - 1 : 0), scale = extreme / -8.0f;
    const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
    const int at = lane_id() % 8;
    uint32_t word = (uint32_t)max(0, min(15, (int)(x * inverse + 8.5f))) << (at / 2 * 4 + at % 2 * 16);
    for (int step = 1; step < 8; step *= 2) word |= __shfl_xor_sync(0xffffffffu, word, step);
    if (at == 0) ((uint32_t *)row)[4 * block + lane_id() / 8] = word;
    store_scale(row, dim / 2, block, scale);
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

/* Four blocks, from values that are not rotated yet. */
static __device__ inline void store_tq3_0(uint8_t *row, int dim, int block, const float values[4])
{
    float x[4], length = 0, level_length = 0;
    for (int j = 0; j < 4; j++) length = __fmaf_rn(values[j], values[j], length);
    length = sqrtf(warp_sum(length));
    const bool is_zero = !(length > 1e-10f);
    for (int j = 0; j < 4; j++) x[j] = is_zero ? 0 : values[j] / length;
    rotate_strided(x, ROTATE_FORTH);
    for (int j = 0; j < 4; j++) {
        const int own = tq3_code(x[j]);
        const float level = tq3_level_of(own);
        level_length = __fmaf_rn(level, level, level_length);
        const int code = __shfl_sync(0xffffffffu, own, lane_id() % 4 * 8 + lane_id() / 4); /* of this lane's bit */
        for (int bit = 0; bit < 3; bit++) {
            const uint32_t word = __ballot_sync(0xffffffffu, code >> bit & 1);
            if (lane_id() == 0) ((uint32_t *)row)[3 * (block + j) + bit] = word;
        }
    }
    const float norm = is_zero ? 0 : length / sqrtf(warp_sum(level_length));
    for (int j = 0; j < 4; j++) store_scale(row, dim / 32 * 12, block + j, norm);
}

static __device__ inline void store_block(kv_type layout, uint8_t *row, int dim, int block, float x)
{
    const int i = 32 * block + lane_id();
    if (layout == KV_F16)
        ((uint16_t *)row)[i] = __half_as_ushort(__float2half_rn(x));
    else if (layout == KV_F32)
        ((float *)row)[i] = x;
    else if (layout == KV_Q8_0)
        store_q8_0(row, dim, block, x);
    else
        store_q4_0(row, dim, block, x);
}

/* The bytes that a type stores (kv_type_info), and whether what it stores is rotated. */
static __device__ inline kv_type kv_layout_of(kv_type t)
{
    return t == KV_ROT_Q8_0 ? KV_Q8_0 : t == KV_ROT_Q4_0 ? KV_Q4_0 : t;
}

static __host__ __device__ inline bool kv_is_rotated(kv_type t)
{
    return t == KV_TQ3_0 || t == KV_ROT_Q8_0 || t == KV_ROT_Q4_0;
}

/* A row of dim values, a multiple of 64, and of 128 where it is rotated. */
template <int N> static __device__ inline void kv_store(kv_type type, uint8_t *row, const float x[N], int dim)
{
    const kv_type layout = kv_layout_of(type);
    if (kv_is_rotated(type)) {
#pragma unroll
        for (int g = 0; g < N; g += 4) {
            if (32 * g >= dim) break;
            float group[4] = {x[g], x[g + 1], x[g + 2], x[g + 3]};
            if (type == KV_TQ3_0) {
                store_tq3_0(row, dim, g, group);
                continue;
            }
            rotate_strided(group, ROTATE_FORTH);
            for (int j = 0; j < 4; j++) store_block(layout, row, dim, g + j, group[j]);
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < N; j++)
        if (32 * j < dim) store_block(layout, row, dim, j, x[j]);
}

#endif
