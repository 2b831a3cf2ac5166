/* activations.cuh: rows of activations on their way to f16, as products from tile records read them. */
#ifndef FACET_COMPUTE_CUDA_ACTIVATIONS_CUH
#define FACET_COMPUTE_CUDA_ACTIVATIONS_CUH

#include "compute/cuda/device.cuh"

/* Inputs k .. k + 3 of a row of n, zeros past its end. */
static __device__ inline float4 load_activations(const float *x, uint32_t k, uint32_t n)
{
    if (n % 4 == 0) return k < n ? __ldcg((const float4 *)(x + k)) : make_float4(0, 0, 0, 0);
    return make_float4(k < n ? x[k] : 0, k + 1 < n ? x[k + 1] : 0, k + 2 < n ? x[k + 2] : 0, k + 3 < n ? x[k + 3] : 0);
}

static __device__ inline float most_of(float most, const float4 &v)
{
    return fmaxf(most, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
}

/* Two values as f16, and what that leaves of them. */
static __device__ inline uint32_t pair_of(float *a, float *b)
{
    half2 h = __floats2half2_rn(*a, *b);
    float2 back = __half22float2(h);
    *a -= back.x;
    *b -= back.y;
    return *(uint32_t *)&h;
}

/* The four words of one lane in one pair: see tile_input(). */
static __device__ inline uint4 words_of(float4 *low, float4 *high)
{
    return make_uint4(pair_of(&low->x, &low->z), pair_of(&low->y, &low->w), pair_of(&high->x, &high->z),
                      pair_of(&high->y, &high->w));
}

static __device__ inline float4 scaled(const float4 &v, float scale)
{
    return make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale);
}

/* The power of two that brings a row's largest value in a chain to 2^13 .. 2^14: f16 keeps its precision then, whatever
 * the size of the row. It depends on the row and the chain alone. */
static __device__ inline float chain_scale(float most, float *inverse)
{
    uint32_t exponent = __float_as_uint(most) >> 23;
    uint32_t e = exponent == 0 || exponent == 255 ? 127 : min(267 - exponent, 253u);
    *inverse = __uint_as_float((254 - e) << 23);
    return __uint_as_float(e << 23);
}

#endif
