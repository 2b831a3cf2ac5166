/* act.h: activations as the integer products take them, and the scalar product that defines the bits of every backend's
 * quantised linear layer on the CPU.
 *
 * A row of n values becomes ceil(n / 256) act_blocks (the tail zero-filled): int8 codes with one f32 scale per 32
 * values. This rule is part of the bit contract, all in f32. Per 32 values, amax = max |x|, then
 *   amax infinite or any x NaN:  scale = NaN, codes 0 (every product with the row is NaN)
 *   amax < 2^-119:               scale = 0, codes 0 (so amax / 127 is a normal number and 127 / amax finite)
 *   else                         scale = amax / 127, code = round-to-nearest-even(x * (127 / amax)) */
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

/* sum over n of W[i] * x[i] for one weight row in file layout; n a multiple of 32 and of the type's block_len; x at
 * stride `stride` blocks. Supported: every type with decode in type.h except those that type_is_float() names.
 *
 * The order of operations is fixed: SIMD kernels keep these chains per output and so give the same bits. A and M are
 * f32, begin at 0 and run over the sub-blocks of 32 in order; fma rounds once, f32() of these sums is exact. With
 *   S, S0, S1  integer sums of weight code * activation code over the 32, the first and the second 16
 *   s, s0, s1  the weight's f32 scales; m, m0, m1 its f32 minima (below)
 *   scale, scale_sum, t0, t1 = the activation's, t0 and t1 its sum16[] of the two halves
 *
 *   scale per 32:     A = fma(f32(S) * scale, s, A)                              M = fma(m, scale_sum, M)
 *   scale per 16:     A = fma(fma(f32(S1), s1, f32(S0) * s0), scale, A)
 *   Q2_K besides:     M = fma(m1, scale * f32(t1), fma(m0, scale * f32(t0), M))
 *   result:           A; with minima A - M; Q4_1 and Q5_1 A + M
 *
 *   type          per  code                       s                       m
 *   Q4_0 Q5_0      32  0..15 - 8, 0..31 - 16      d
 *   Q8_0           32  as stored                  d
 *   IQ4_NL         32  table value                d
 *   MXFP4          32  doubled FP4 value          2^(E - 128)
 *   Q4_1 Q5_1      32  0..15, 0..31               d                       the file's m
 *   Q4_K Q5_K      32  0..15, 0..31               d * sc                  dmin * mn
 *   IQ4_XS         32  table value                d * (ls - 32)
 *   Q2_K           16  0..3                       d * (c & 15)            dmin * (c >> 4)
 *   Q3_K Q6_K      16  0..7 - 4, 0..63 - 32       d * sc
 *   NVFP4          16  doubled FP4 value          half the E4M3 value
 * Scales and minima are single f32 products (exact: 11 by at most 8 bits). Whether an offset is taken out of the codes
 * or, through sum16, out of the integer sum is the same, as integer sums are exact. */
float act_dot(tensor_type type, const void *w, const act_block *x, size_t stride, size_t n);

/* F32, F16, BF16: these take f32 activations. Contract of their product, for SIMD and scalar alike: four chains,
 * chain c over i = c, c+4, c+8, …, each acc = fma(w[i], x[i], acc) in f32; result (c0 + c1) + (c2 + c3). */
bool type_is_float(tensor_type type);
float float_dot(tensor_type type, const void *w, const float *x, size_t n);

#endif
