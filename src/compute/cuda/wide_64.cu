/* wide_64.cu: products of many rows in blocks of 64 columns; and what the code for this device can do. */
#include "compute/cuda/wide_kernel.cuh"

wide_fn wide_64(tensor_type type)
{
    switch (type) {
#define WIDE_CASE(T, BYTES)                                                                                            \
    case T: return wide_kernel<T, 64>;
        TILE_TYPES(WIDE_CASE)
#undef WIDE_CASE
    default: return NULL;
    }
}

static __global__ void columns_kernel(int *out)
{
    *out = FACET_WGMMA ? WIDE_MOST_COLUMNS : WIDE_COLUMNS;
}

void wide_columns(const cuda_backend *b, int *out)
{
    columns_kernel<<<1, 1, 0, b->stream>>>(out);
}
