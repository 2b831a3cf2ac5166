/* wide_128_k.cu: products of many rows in blocks of 128 columns. Several files, as these kernels take long to compile.
 */
#include "compute/cuda/wide_kernel.cuh"

wide_fn wide_128_k(tensor_type type)
{
    switch (type) {
    case TYPE_Q4_K: return wide_kernel<TYPE_Q4_K, 128>;
    case TYPE_Q5_K: return wide_kernel<TYPE_Q5_K, 128>;
    case TYPE_Q6_K: return wide_kernel<TYPE_Q6_K, 128>;
    default: return NULL;
    }
}
