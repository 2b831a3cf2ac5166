/* AVX-512 VNNI kernels of the types with blocks of 32 or 64 values. */
#include "compute/cpu/linear_block_avx512.h"

LINEAR_KERNELS(Q4_0)
LINEAR_KERNELS(Q4_1)
LINEAR_KERNELS(Q5_0)
LINEAR_KERNELS(Q5_1)
LINEAR_KERNELS(Q8_0)
LINEAR_KERNELS(IQ4_NL)
LINEAR_KERNELS(MXFP4)
LINEAR_KERNELS(NVFP4)

linear_fn linear_legacy_avx512(tensor_type type)
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
    default: return NULL;
    }
}
