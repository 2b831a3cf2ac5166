/* device.cuh: what the kernels share: reductions in a fixed order, activations, 16-bit reads. */
#ifndef FACET_COMPUTE_CUDA_DEVICE_CUH
#define FACET_COMPUTE_CUDA_DEVICE_CUH

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math_constants.h>
#include <stdint.h>

#include "compute/cuda/host.h"

/* Most kernels run blocks of this size; reductions below rely on it. */
enum { WARP = 32, BLOCK = 256, BLOCK_WARPS = BLOCK / WARP };

static __device__ inline int lane_id()
{
    return (int)(threadIdx.x % WARP);
}

static __device__ inline int warp_id()
{
    return (int)(threadIdx.x / WARP);
}

/* Butterfly: the pairs added, and so the bits, are the same on every lane and in every call. */
static __device__ inline float warp_sum(float x)
{
    for (int step = WARP / 2; step > 0; step /= 2) x = __fadd_rn(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

static __device__ inline float warp_max(float x)
{
    for (int step = WARP / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/* Over the whole block of BLOCK threads, the result on every thread; `part` is shared memory. Warp results are taken in
 * order. */
static __device__ inline float block_sum(float x, float part[BLOCK_WARPS])
{
    x = warp_sum(x);
    __syncthreads(); /* an earlier use of part is over */
    if (lane_id() == 0) part[warp_id()] = x;
    __syncthreads();
    float sum = part[0];
    for (int i = 1; i < BLOCK_WARPS; i++) sum = __fadd_rn(sum, part[i]);
    return sum;
}

static __device__ inline float block_max(float x, float part[BLOCK_WARPS])
{
    x = warp_max(x);
    __syncthreads();
    if (lane_id() == 0) part[warp_id()] = x;
    __syncthreads();
    float max = part[0];
    for (int i = 1; i < BLOCK_WARPS; i++) max = fmaxf(max, part[i]);
    return max;
}

/* 1 / rms of x[n], by the whole block. */
static __device__ inline float block_inverse_rms(const float *x, uint32_t n, float eps, float part[BLOCK_WARPS])
{
    float sum = 0;
    for (uint32_t i = threadIdx.x; i < n; i += BLOCK) sum = __fmaf_rn(x[i], x[i], sum);
    return 1.0f / sqrtf(block_sum(sum, part) / (float)n + eps);
}

static __device__ inline float activate(op_activation act, float x)
{
    /* gelu: 1 + tanh(u) = 2 / (1 + exp(-2 u)), with a third of the instructions */
    const float u = act == ACT_SILU ? x : 1.5957691216f * (x + 0.044715f * x * x * x);
    return x / (1.0f + expf(-u));
}

/* At a 2-byte aligned address. */
static __device__ inline float read_f16(const uint8_t *p)
{
    return __half2float(__ushort_as_half(*(const uint16_t *)p));
}

static __device__ inline float read_bf16(const uint8_t *p)
{
    return __uint_as_float((uint32_t) * (const uint16_t *)p << 16);
}

/* Row of the batch behind row r of a value (rows_view.map). */
static __device__ inline int batch_row(const int32_t *map, int r)
{
    return map ? map[r] : r;
}

static inline unsigned n_blocks(size_t n, size_t per_block)
{
    return (unsigned)((n + per_block - 1) / per_block);
}

#endif
