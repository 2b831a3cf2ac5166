/* linear_block_avx512.h: products of code vectors by vpdpbusd, and the kernels of a type for this instruction set. */
#ifndef FACET_COMPUTE_CPU_LINEAR_BLOCK_AVX512_H
#define FACET_COMPUTE_CPU_LINEAR_BLOCK_AVX512_H

#include <string.h>

#include "compute/cpu/linear_vec_avx512.h"

/* Codes are taken as unsigned, so every offset stays in the sums. */
ALWAYS_INLINE bool dot_keeps_offset(tensor_type type)
{
    (void)type;
    return true;
}

ALWAYS_INLINE vi unit_codes(tensor_type type, const uint8_t *unit, int v);

/* Four codes of each of 16 rows times four activations, which are a broadcast memory operand. */
ALWAYS_INLINE void dot_codes(tensor_type type, int R, const uint8_t *unit, int v0, int v1, const int8_t *q,
                             vi S[MAX_WIDTH])
{
    _Pragma("GCC unroll 8") for (int v = v0; v < v1; v++)
    {
        vi codes = unit_codes(type, unit, v);
        _Pragma("GCC unroll 8") for (int r = 0; r < R; r++)
        {
            int32_t four;
            memcpy(&four, q + (size_t)r * sizeof(act_block) + 4 * (v - v0), 4);
            S[r] = (vi)_mm512_dpbusd_epi32((__m512i)S[r], (__m512i)codes, _mm512_set1_epi32(four));
        }
    }
}

#include "compute/cpu/linear_block.h"

#define LINEAR_KERNELS(T)                                                                                              \
    LINEAR_WIDTH(T, 1)                                                                                                 \
    LINEAR_WIDTH(T, 2)                                                                                                 \
    LINEAR_WIDTH(T, 3)                                                                                                 \
    LINEAR_WIDTH(T, 4)                                                                                                 \
    LINEAR_WIDTH(T, 5)                                                                                                 \
    LINEAR_WIDTH(T, 6)                                                                                                 \
    LINEAR_WIDTH(T, 7)                                                                                                 \
    LINEAR_WIDTH(T, 8)                                                                                                 \
    static const linear_rows_fn widths_##T[MAX_WIDTH] = {rows_##T##_1, rows_##T##_2, rows_##T##_3, rows_##T##_4,       \
                                                         rows_##T##_5, rows_##T##_6, rows_##T##_7, rows_##T##_8};      \
    LINEAR_FN(T)

#endif
