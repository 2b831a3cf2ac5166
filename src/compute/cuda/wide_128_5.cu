/* wide_128_5.cu: products of many rows in blocks of 128 columns. Several files, as these kernels take long to compile.
 */
#include "compute/cuda/wide_kernel.cuh"

wide_fn wide_128_5(tensor_type type)
{
    switch (type) {
    case TYPE_Q5_0: return wide_kernel<TYPE_Q5_0, 128>;
    case TYPE_Q5_1: return wide_kernel<TYPE_Q5_1, 128>;
    default: return NULL;
    }
}
