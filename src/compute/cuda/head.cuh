/* head.cuh: one head in shared memory: norm and rotation, for queries and for keys. Blocks of BLOCK threads. */
#ifndef FACET_COMPUTE_CUDA_HEAD_CUH
#define FACET_COMPUTE_CUDA_HEAD_CUH

#include "compute/cuda/device.cuh"

/* h [dim] = rms(x; w or 1); ends with a barrier. */
static __device__ inline void head_norm(const float *x, const float *w, int dim, float eps, float *h,
                                        float part[BLOCK_WARPS])
{
    float inverse = block_inverse_rms(x, (uint32_t)dim, eps, part);
    for (int i = (int)threadIdx.x; i < dim; i += BLOCK) h[i] = x[i] * inverse * (w ? w[i] : 1.0f);
    __syncthreads();
}

/* Pair i < n_rot of (i, i + dim / 2) turns by the angle whose sine and cosine are turns[i]. Ends with a barrier. */
static __device__ inline void head_rotate(float *h, int dim, int n_rot, const float2 *turns)
{
    for (int i = (int)threadIdx.x; i < n_rot; i += BLOCK) {
        float a = h[i], b = h[i + dim / 2], sine = turns[i].x, cosine = turns[i].y;
        h[i] = a * cosine - b * sine;
        h[i + dim / 2] = b * cosine + a * sine;
    }
    __syncthreads();
}

#endif
