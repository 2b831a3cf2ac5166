/* product_1.cu: products with 1 n8 tile of columns. A file of its own: these kernels take long to compile. */
#include "compute/cuda/product_kernel.cuh"

product_fn product_kernel_1(int mt, tensor_type a, tensor_type b)
{
    return mt == 1 ? product_kernel_of<1, 1>(a, b) : product_kernel_of<1, 2>(a, b);
}
