/* attn_256.cu: attention of heads of 256. */
#include "compute/cuda/attn_tile.cuh"

attn_fn attn_kernel_256(int columns)
{
    return attn_kernel_of<256, false>(columns);
}
