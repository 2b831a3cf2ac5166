/* pages.cuh: reading and writing the pages of a layer (dev_pages in state.h) from kernels. */
#ifndef FACET_COMPUTE_CUDA_PAGES_CUH
#define FACET_COMPUTE_CUDA_PAGES_CUH

#include "compute/cuda/device.cuh"
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

/* Eight neighbouring values of a row as they lie in memory. f16: eight halves in a. f32: a and b. q8_0: eight codes in
 * a.x and a.y, the scale in a.z. A q8_0 row has the codes of the whole row first, then a scale (f16) per 32 of them. */
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

/* By one warp: 32 values of h as q8_0; the host's pages follow the same rule. */
static __device__ inline void store_q8_0(uint8_t *codes, uint16_t *scale, const float *h)
{
    float x = h[lane_id()], most = warp_max(fabsf(x));
    int code = (int)roundf(x * (most > 1e-30f ? 127.0f / most : 0.0f));
    codes[lane_id()] = (uint8_t)(int8_t)max(-127, min(127, code));
    if (lane_id() == 0) *scale = __half_as_ushort(__float2half_rn(most / 127.0f));
}

/* By the whole block: h [dim] (shared memory, dim a multiple of 32) into a row. */
static __device__ inline void kv_store(kv_type type, uint8_t *row, const float *h, int dim)
{
    if (type == KV_F16) {
        for (int i = (int)threadIdx.x; i < dim; i += BLOCK)
            ((uint16_t *)row)[i] = __half_as_ushort(__float2half_rn(h[i]));
    } else if (type == KV_F32) {
        for (int i = (int)threadIdx.x; i < dim; i += BLOCK) ((float *)row)[i] = h[i];
    } else {
        for (int i = warp_id(); i < dim / 32; i += BLOCK_WARPS)
            store_q8_0(row + 32 * i, (uint16_t *)(row + dim) + i, h + 32 * i);
    }
}

#endif
