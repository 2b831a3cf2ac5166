/* epilogue.cuh: what happens to a product before it is stored. */
#ifndef FACET_COMPUTE_CUDA_EPILOGUE_CUH
#define FACET_COMPUTE_CUDA_EPILOGUE_CUH

#include "compute/cuda/device.cuh"
#include "compute/cuda/ops.cuh"

static __device__ inline float linear_finish(const linear_epilogue &e, float y, int row, uint32_t n)
{
    if (e.kind == EPI_GELU_MUL) return activate(e.activation, y) * e.mul[(size_t)row * e.mul_width + e.column + n];
    if (e.kind == EPI_LOGITS && e.softcap > 0) return e.softcap * tanhf(y / e.softcap);
    return y;
}

#endif
