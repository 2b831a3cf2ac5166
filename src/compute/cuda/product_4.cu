/* product_4.cu: products with 4 n8 tiles of columns. A file of its own: these kernels take long to compile. */
#include "compute/cuda/product_kernel.cuh"

product_fn product_kernel_4(int mt, tensor_type a, tensor_type b)
{
    return mt == 2 ? product_kernel_of<4, 2>(a, b) : NULL;
}
