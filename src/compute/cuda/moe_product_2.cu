/* moe_product_2.cu: products of experts for batches of up to 16 pairs. */
#include "compute/cuda/moe_product.cuh"

moe_fn moe_kernel_2(bool is_gated, tensor_type type)
{
    return is_gated ? moe_kernel_of<2, 2>(type) : moe_kernel_of<2, 1>(type);
}
