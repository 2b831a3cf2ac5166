/* moe_product_1.cu: products of experts for batches of up to 8 pairs. */
#include "compute/cuda/moe_product.cuh"

moe_fn moe_kernel_1(bool is_gated)
{
    return is_gated ? moe_kernel<1, 2> : moe_kernel<1, 1>;
}
