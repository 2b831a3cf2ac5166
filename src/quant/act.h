/* act.h: activations as the integer products take them, and the scalar product that defines the bits of every backend's
 * quantised linear layer on the CPU.
 *
 * A row of n values becomes ceil(n / 256) act_blocks (the tail zero-filled): int8 codes with one f32 scale per 32
 * values. Per 32 values: amax = max |x|; scale = amax / 127; code = round-to-nearest-even(x * (127 / amax)) in f32; an
 * all-zero group has scale 0 and codes 0. This rule is part of the bit contract. */
#ifndef FACET_QUANT_ACT_H
#define FACET_QUANT_ACT_H

#include "quant/type.h"

/* 384 bytes, a multiple of 64: the quantised form of 256 consecutive values of one row. */
typedef struct act_block {
    _Alignas(64) int8_t q[256];
    float scale[8];     /* of each 32 */
    float scale_sum[8]; /* scale * (sum of the 32 codes), one f32 product */
    int32_t sum16[16];  /* sum of each 16 codes */
} act_block;

static inline size_t act_n_blocks(size_t n)
{
    return (n + 255) / 256;
}

/* x [n], n a multiple of 32 -> out [act_n_blocks(n)], out[i] at stride `stride` blocks (so that rows can be
 * interleaved). */
void act_quantize(const float *x, size_t n, act_block *out, size_t stride);

/* sum over n of W[i] * x[i] for one weight row in file layout; x at stride `stride` blocks.
 * The order of operations is fixed (A and M are f32, one chain each over the sub-blocks of 32 in order of i; fma = one
 * rounding): per sub-block b of 32:  T = f32(integer sum of code*q of the sub-block) [types with a scale per 16: T =
 * fma(f32(S1), s1, f32(S0)*s0), then A = fma(T, scale, A)]; else A = fma(f32(S) * scale, s, A), with s the sub-block's
 * f32 weight scale (d, d*sc or d*(sc) rounded once to f32) and code the signed or unsigned integer code of the type
 *   types with a minimum:   M = fma(m, scale_sum, M), m the f32 minimum (dmin*mn rounded once), result A - M (Q4_K,
 * Q5_K, Q2_K) or result A + M with the file's f16 minimum (Q4_1, Q5_1) types with an offset (Q4_0: 8, Q5_0: 16, Q6_K:
 * 32, Q3_K: 4): the offset is taken out in the integer sum SIMD kernels keep these chains per output and so give the
 * same bits. Supported: every block-quantised type of type.h except those that type_is_float() names. */
float act_dot(tensor_type type, const void *w, const act_block *x, size_t stride, size_t n);

/* F32, F16, BF16: these take f32 activations. Contract of their product, for SIMD and scalar alike: four chains,
 * chain c over i = c, c+4, c+8, …, each acc = fma(w[i], x[i], acc) in f32; result (c0 + c1) + (c2 + c3). */
bool type_is_float(tensor_type type);
float float_dot(tensor_type type, const void *w, const float *x, size_t n);

#endif
