/* AVX2 kernels of the block types. */
#include "compute/cpu/linear_block_avx2.h"

LINEAR_KERNELS(Q4_0)
LINEAR_KERNELS(Q4_1)
LINEAR_KERNELS(Q5_0)
LINEAR_KERNELS(Q5_1)
LINEAR_KERNELS(Q8_0)
LINEAR_KERNELS(IQ4_NL)
LINEAR_KERNELS(MXFP4)
LINEAR_KERNELS(NVFP4)
LINEAR_KERNELS(Q2_K)
LINEAR_KERNELS(Q3_K)
LINEAR_KERNELS(Q4_K)
LINEAR_KERNELS(Q5_K)
LINEAR_KERNELS(Q6_K)
LINEAR_KERNELS(IQ4_XS)

linear_fn linear_block_avx2(tensor_type type)
{
    switch (type) {
    case TYPE_Q4_0: return multiply_Q4_0;
    case TYPE_Q4_1: return multiply_Q4_1;
    case TYPE_Q5_0: return multiply_Q5_0;
    case TYPE_Q5_1: return multiply_Q5_1;
    case TYPE_Q8_0: return multiply_Q8_0;
    case TYPE_IQ4_NL: return multiply_IQ4_NL;
    case TYPE_MXFP4: return multiply_MXFP4;
    case TYPE_NVFP4: return multiply_NVFP4;
    case TYPE_Q2_K: return multiply_Q2_K;
    case TYPE_Q3_K: return multiply_Q3_K;
    case TYPE_Q4_K: return multiply_Q4_K;
    case TYPE_Q5_K: return multiply_Q5_K;
    case TYPE_Q6_K: return multiply_Q6_K;
    case TYPE_IQ4_XS: return multiply_IQ4_XS;
    default: return NULL;
    }
}
