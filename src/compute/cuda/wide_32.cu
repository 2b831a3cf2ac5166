/* wide_32.cu: products of many rows in blocks of 32 columns. */
#include "compute/cuda/wide_kernel.cuh"

wide_fn wide_32(tensor_type type)
{
    switch (type) {
#define WIDE_CASE(T, BYTES)                                                                                            \
    case T: return wide_kernel<T, 32>;
        TILE_TYPES(WIDE_CASE)
#undef WIDE_CASE
    default: return NULL;
    }
}
