/* wide_128_4.cu: products of many rows in blocks of 128 columns. Several files, as these kernels take long to compile.
 */
#include "compute/cuda/wide_kernel.cuh"

wide_fn wide_128_4(tensor_type type)
{
    switch (type) {
    case TYPE_Q4_0: return wide_kernel<TYPE_Q4_0, 128>;
    case TYPE_Q4_1: return wide_kernel<TYPE_Q4_1, 128>;
    default: return NULL;
    }
}
