/* linear_block_avx2.h: products of code vectors by vpmaddubsw, and the kernels of a type for this instruction set.
 *
 * vpmaddubsw adds two products into 16 bits. Small codes let several code vectors be added there before vpmaddwd widens
 * the sums to 32 bits, which is the same integer as long as nothing overflows; activation codes are at most 127:
 *     4 bits and less   8 vectors   8 * 2 * 15 * 127 = 30480
 *     5 bits, FP4       4 vectors   4 * 2 * 31 * 127 = 31496
 *     6 bits            2 vectors   2 * 2 * 63 * 127 = 32004
 *     8 bits, IQ4       1 vector, signed: |code| times the activation with the code's sign, 2 * 128 * 127 = 32512 */
#ifndef FACET_COMPUTE_CPU_LINEAR_BLOCK_AVX2_H
#define FACET_COMPUTE_CPU_LINEAR_BLOCK_AVX2_H

#include <string.h>

#include "compute/cpu/linear_vec_avx2.h"

ALWAYS_INLINE bool is_signed_code(tensor_type type)
{
    return tile_offset_log2(type) == 7;
}

ALWAYS_INLINE bool dot_keeps_offset(tensor_type type)
{
    return !is_signed_code(type);
}

ALWAYS_INLINE int vectors_per_sum16(tensor_type type)
{
    if (is_signed_code(type)) return 1;
    if (tile_is_fp4(type)) return 4;
    const int bits = tile_code_bits(type);
    return bits <= 4 ? 8 : bits == 5 ? 4 : 2;
}

ALWAYS_INLINE vi unit_codes(tensor_type type, const uint8_t *unit, int v);

ALWAYS_INLINE __m256i multiply_codes(tensor_type type, __m256i codes, __m256i magnitude, int32_t four)
{
    __m256i x = _mm256_set1_epi32(four);
    return is_signed_code(type) ? _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, codes))
                                : _mm256_maddubs_epi16(codes, x);
}

ALWAYS_INLINE void dot_codes(tensor_type type, int R, const uint8_t *unit, int v0, int v1, const int8_t *q,
                             vi S[MAX_WIDTH])
{
    const __m256i ones = _mm256_set1_epi16(1), flip = _mm256_set1_epi8((char)-128);
    const int group = vectors_per_sum16(type);
    __m256i sum16[MAX_WIDTH];
    _Pragma("GCC unroll 8") for (int v = v0; v < v1; v++)
    {
        __m256i codes = (__m256i)unit_codes(type, unit, v), magnitude = codes;
        if (is_signed_code(type)) {
            codes = _mm256_xor_si256(codes, flip);
            magnitude = _mm256_abs_epi8(codes);
        }
        const bool begins = (v - v0) % group == 0, ends = (v - v0) % group == group - 1 || v == v1 - 1;
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)
        {
            int32_t four;
            memcpy(&four, q + (size_t)r * sizeof(act_block) + 4 * (v - v0), 4);
            __m256i product = multiply_codes(type, codes, magnitude, four);
            sum16[r] = begins ? product : _mm256_add_epi16(sum16[r], product);
            if (ends) S[r] += (vi)_mm256_madd_epi16(sum16[r], ones);
            /* Opaque, so that the compiler does not turn the chains into trees of products, which it would spill:
             * 4 rows of Q4_K take 1.5 times as long. */
            __asm__("" : "+x"(sum16[r]), "+x"(S[r]));
        }
    }
}

#include "compute/cpu/linear_block.h"

#define LINEAR_KERNELS(T)                                                                                              \
    LINEAR_WIDTH(T, 1)                                                                                                 \
    LINEAR_WIDTH(T, 2)                                                                                                 \
    LINEAR_WIDTH(T, 3)                                                                                                 \
    LINEAR_WIDTH(T, 4)                                                                                                 \
    static const linear_rows_fn widths_##T[MAX_WIDTH] = {rows_##T##_1, rows_##T##_2, rows_##T##_3, rows_##T##_4};      \
    LINEAR_FN(T)

#endif
