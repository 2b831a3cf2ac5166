/* AVX-512 VNNI kernels of the types with records of 256 values. */
#include "compute/cpu/linear_block_avx512.h"

LINEAR_KERNELS(Q2_K)
LINEAR_KERNELS(Q3_K)
LINEAR_KERNELS(Q4_K)
LINEAR_KERNELS(Q5_K)
LINEAR_KERNELS(Q6_K)
LINEAR_KERNELS(IQ4_XS)

linear_fn linear_kquant_avx512(tensor_type type)
{
    switch (type) {
    case TYPE_Q2_K: return multiply_Q2_K;
    case TYPE_Q3_K: return multiply_Q3_K;
    case TYPE_Q4_K: return multiply_Q4_K;
    case TYPE_Q5_K: return multiply_Q5_K;
    case TYPE_Q6_K: return multiply_Q6_K;
    case TYPE_IQ4_XS: return multiply_IQ4_XS;
    default: return NULL;
    }
}
