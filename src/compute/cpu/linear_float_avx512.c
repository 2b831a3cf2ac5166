/* AVX-512 kernels of F32, F16 and BF16. */
#include "compute/cpu/linear_vec_avx512.h"

#include "compute/cpu/linear_float.h"

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
