/* wide_128_w.cu: products of many rows in blocks of 128 columns. Several files, as these kernels take long to compile.
 */
#include "compute/cuda/wide_kernel.cuh"

wide_fn wide_128_w(tensor_type type)
{
    switch (type) {
    case TYPE_F16: return wide_kernel<TYPE_F16, 128>;
    case TYPE_BF16: return wide_kernel<TYPE_BF16, 128>;
    case TYPE_Q8_0: return wide_kernel<TYPE_Q8_0, 128>;
    default: return NULL;
    }
}
