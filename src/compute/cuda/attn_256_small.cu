/* attn_256_small.cu: attention of heads of 256 over cache types below f16. */
#include "compute/cuda/attn_tile.cuh"

attn_fn attn_kernel_256_small(int columns)
{
    return attn_kernel_of<256, true>(columns);
}
