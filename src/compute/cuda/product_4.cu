/* product_4.cu: products with 4 n8 tiles of columns. A file of its own: these kernels take long to compile. */
#include "compute/cuda/product_kernel.cuh"

product_fn product_kernel_4(int mt)
{
    return mt == 2 ? product_kernel<4, 2, PRODUCT_ANY_TYPE, PRODUCT_ANY_TYPE> : NULL;
}
