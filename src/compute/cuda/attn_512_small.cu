/* attn_512_small.cu: attention of heads of 512 over cache types below f16. */
#include "compute/cuda/attn_tile.cuh"

attn_fn attn_kernel_512_small(int columns)
{
    return attn_kernel_of<512, true>(columns);
}
