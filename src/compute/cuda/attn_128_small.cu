/* attn_128_small.cu: attention of heads of 128 over cache types below f16. */
#include "compute/cuda/attn_tile.cuh"

attn_fn attn_kernel_128_small(int columns)
{
    return attn_kernel_of<128, true>(columns);
}
