/* head.cuh: one head in shared memory: norm and rotation, for queries and for keys. Blocks of BLOCK threads. */
#ifndef FACET_COMPUTE_CUDA_HEAD_CUH
#define FACET_COMPUTE_CUDA_HEAD_CUH

#include "compute/cuda/device.cuh"
#include "compute/cuda/state.h"

enum { HEAD_VALUES = CUDA_MAX_HEAD_DIM / BLOCK };

/* A thread's values of a head: threadIdx.x + i * BLOCK, `fill` past its end or without one. */
typedef struct head_values {
    float at[HEAD_VALUES];
} head_values;

static __device__ inline head_values head_load(const float *x, int dim, float fill)
{
    head_values v;
    for (int i = 0; i < HEAD_VALUES; i++) {
        const int d = (int)threadIdx.x + i * BLOCK;
        v.at[i] = x && d < dim ? x[d] : fill;
    }
    return v;
}

/* h [dim] = rms(x; w); ends with a barrier. */
static __device__ inline void head_norm(const head_values &x, const head_values &w, int dim, float eps, float *h,
                                        float part[BLOCK_WARPS])
{
    float sum = 0;
    for (int i = 0; i < HEAD_VALUES; i++) sum = __fmaf_rn(x.at[i], x.at[i], sum);
    const float inverse = 1.0f / sqrtf(block_sum(sum, part) / (float)dim + eps);
    for (int i = 0; i < HEAD_VALUES; i++) {
        const int d = (int)threadIdx.x + i * BLOCK;
        if (d < dim) h[d] = x.at[i] * inverse * w.at[i];
    }
    __syncthreads();
}

/* Pair i < n_rot of (i, i + dim / 2) turns by the angle whose sine and cosine are in this thread's `turn`. Ends with a
 * barrier. */
static __device__ inline void head_rotate(float *h, int dim, int n_rot, const float2 &turn)
{
    const int i = (int)threadIdx.x; /* n_rot is at most BLOCK */
    if (i < n_rot) {
        float a = h[i], b = h[i + dim / 2], sine = turn.x, cosine = turn.y;
        h[i] = a * cosine - b * sine;
        h[i + dim / 2] = b * cosine + a * sine;
    }
    __syncthreads();
}

#endif
