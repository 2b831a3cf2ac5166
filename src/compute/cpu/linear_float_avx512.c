/* AVX-512 kernels of F32, F16 and BF16. */
#include "compute/cpu/linear_vec_avx512.h"

#include "compute/cpu/linear_float.h"

#define FLOAT_KERNELS(T)                                                                                               \
    FLOAT_WIDTH(T, 1)                                                                                                  \
    FLOAT_WIDTH(T, 2)                                                                                                  \
    FLOAT_WIDTH(T, 3)                                                                                                  \
    FLOAT_WIDTH(T, 4)                                                                                                  \
    FLOAT_WIDTH(T, 5)                                                                                                  \
    FLOAT_WIDTH(T, 6)                                                                                                  \
    static const linear_rows_fn widths_##T[MAX_FLOAT_WIDTH] = {rows_##T##_1, rows_##T##_2, rows_##T##_3,               \
                                                               rows_##T##_4, rows_##T##_5, rows_##T##_6};              \
    FLOAT_PAIR(T, 1)                                                                                                   \
    FLOAT_PAIR(T, 2)                                                                                                   \
    FLOAT_PAIR(T, 3)                                                                                                   \
    static const float_pair_fn pairs_##T[PAIR_WIDTH] = {pair_##T##_1, pair_##T##_2, pair_##T##_3};                     \
    FLOAT_PAIR_FN(T)

FLOAT_KERNELS(F32)
FLOAT_KERNELS(F16)
FLOAT_KERNELS(BF16)

linear_fn linear_float_avx512(tensor_type type)
{
    switch (type) {
    case TYPE_F32: return multiply_F32;
    case TYPE_F16: return multiply_F16;
    case TYPE_BF16: return multiply_BF16;
    default: return NULL;
    }
}
