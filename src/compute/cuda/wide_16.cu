/* wide_16.cu: products of many rows in blocks of 16 columns. */
#include "compute/cuda/wide_kernel.cuh"

wide_fn wide_16(tensor_type type)
{
    switch (type) {
#define WIDE_CASE(T, BYTES)                                                                                            \
    case T: return wide_kernel<T, 16>;
        TILE_TYPES(WIDE_CASE)
#undef WIDE_CASE
    default: return NULL;
    }
}
