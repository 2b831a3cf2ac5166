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

/* q8_0 rows are those of weights: 34 bytes per 32 values. */
static __device__ inline float kv_value(kv_type type, const uint8_t *row, int i)
{
    if (type == KV_F16) return read_f16(row + 2 * i);
    if (type == KV_F32) return ((const float *)row)[i];
    const uint8_t *block = row + 34 * (i / 32);
    return read_f16(block) * (float)(int8_t)block[2 + i % 32];
}

/* By one warp: 32 values of h as one q8_0 block; the host's pages follow the same rule. */
static __device__ inline void store_q8_0(uint8_t *block, const float *h)
{
    float x = h[lane_id()], most = warp_max(fabsf(x));
    int code = (int)roundf(x * (most > 1e-30f ? 127.0f / most : 0.0f));
    block[2 + lane_id()] = (uint8_t)(int8_t)max(-127, min(127, code));
    if (lane_id() == 0) *(uint16_t *)block = __half_as_ushort(__float2half_rn(most / 127.0f));
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
        for (int i = warp_id(); i < dim / 32; i += BLOCK_WARPS) store_q8_0(row + 34 * i, h + 32 * i);
    }
}

#endif
