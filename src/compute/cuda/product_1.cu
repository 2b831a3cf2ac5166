/* product_1.cu: products with 1 n8 tile of columns. A file of its own: these kernels take long to compile. */
#include "compute/cuda/product_kernel.cuh"

product_fn product_kernel_1(int mt)
{
    return mt == 1 ? product_kernel<1, 1> : product_kernel<1, 2>;
}
