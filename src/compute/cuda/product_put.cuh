/* product_put.cuh: what becomes of a finished sum. */
#ifndef FACET_COMPUTE_CUDA_PRODUCT_PUT_CUH
#define FACET_COMPUTE_CUDA_PRODUCT_PUT_CUH

#include "compute/cuda/epilogue.cuh"
#include "compute/cuda/product.cuh"

/* Output n of a row: y is the sum, up that of the second matrix where the product is gated. A: product_args or
 * wide_args. */
template <typename A>
static __device__ inline float product_finish(const A &a, int part, uint32_t n, int row, float y, float up)
{
    y = a.parts[part].scale * y;
    if (a.is_gated) return activate(a.epilogue.activation, y) * (a.parts[1].scale * up);
    return linear_finish(a.epilogue, y, row, n);
}

#endif
