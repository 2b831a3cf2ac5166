/* moe_product_2.cu: products of experts for batches of up to 16 pairs. */
#include "compute/cuda/moe_product.cuh"

moe_fn moe_kernel_2(bool is_gated)
{
    return is_gated ? moe_kernel<2, 2> : moe_kernel<2, 1>;
}
