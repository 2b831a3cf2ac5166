/* product_2.cu: products with 2 n8 tiles of columns. A file of its own: these kernels take long to compile. */
#include "compute/cuda/product_kernel.cuh"

product_fn product_kernel_2(int mt, tensor_type a, tensor_type b)
{
    return mt == 1 ? product_kernel_of<2, 1>(a, b) : product_kernel_of<2, 2>(a, b);
}
