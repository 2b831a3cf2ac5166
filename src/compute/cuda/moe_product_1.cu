/* moe_product_1.cu: products of experts for batches of up to 8 pairs. */
#include "compute/cuda/moe_product.cuh"

moe_fn moe_kernel_1(bool is_gated, tensor_type type)
{
    return is_gated ? moe_kernel_of<1, 2>(type) : moe_kernel_of<1, 1>(type);
}
