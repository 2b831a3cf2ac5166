/* rotate.cuh: the rotation of quant/rotate.h by one warp: 128 values, four neighbouring ones a lane. Sums are those of
 * the host, in its order. */
#ifndef FACET_COMPUTE_CUDA_ROTATE_CUH
#define FACET_COMPUTE_CUDA_ROTATE_CUH

#include "compute/cuda/device.cuh"

/* Bit i of word w: the sign at 32 w + i, before the transform of a rotation (is_last 0) and after it (1). */
static __device__ inline uint32_t rotate_signs(int is_last, int word)
{
    const uint32_t first = word == 0 ? 0xe46a0359 : word == 1 ? 0x42f85949 : word == 2 ? 0xa4c63bbb : 0x49f250a9;
    const uint32_t last = word == 0 ? 0x16acee90 : word == 1 ? 0x3f628fdc : word == 2 ? 0xb7a5357a : 0xbea56562;
    return is_last ? last : first;
}

static __device__ inline float with_sign(float x, uint32_t word, int bit)
{
    return __uint_as_float(__float_as_uint(x) ^ (word >> bit & 1u) << 31);
}

static __device__ inline void meet(float *a, float *b)
{
    const float sum = __fadd_rn(*a, *b), difference = __fsub_rn(*a, *b);
    *a = sum;
    *b = difference;
}

/* This lane's value and the one of lane ^ step. */
static __device__ inline float meet_lane(float x, int step)
{
    const float other = __shfl_xor_sync(0xffffffffu, x, step);
    return lane_id() & step ? __fsub_rn(other, x) : __fadd_rn(x, other);
}

enum { ROTATE_FORTH, ROTATE_BACK };

/* Four neighbouring values, those from 4 lane on. */
static __device__ inline float4 rotate_quad(float4 v, int direction)
{
    const int word = lane_id() / 8, bit = lane_id() % 8 * 4;
    const uint32_t before = rotate_signs(direction == ROTATE_BACK, word),
                   after = rotate_signs(direction != ROTATE_BACK, word);
    float x[4] = {with_sign(v.x, before, bit), with_sign(v.y, before, bit + 1), with_sign(v.z, before, bit + 2),
                  with_sign(v.w, before, bit + 3)};
    meet(&x[0], &x[1]);
    meet(&x[2], &x[3]);
    meet(&x[0], &x[2]);
    meet(&x[1], &x[3]);
#pragma unroll
    for (int step = 1; step < WARP; step *= 2)
#pragma unroll
        for (int j = 0; j < 4; j++) x[j] = meet_lane(x[j], step);
#pragma unroll
    for (int j = 0; j < 4; j++) x[j] = with_sign(__fmul_rn(x[j], 0.08838834764831845f), after, bit + j);
    return make_float4(x[0], x[1], x[2], x[3]);
}

#endif
