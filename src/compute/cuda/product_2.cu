/* product_2.cu: products with 2 n8 tiles of columns. A file of its own: these kernels take long to compile. */
#include "compute/cuda/product_kernel.cuh"

product_fn product_kernel_2(int mt)
{
    return mt == 1 ? product_kernel<2, 1> : product_kernel<2, 2>;
}
