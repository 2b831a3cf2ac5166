/* attn_512.cu: attention of heads of 512. */
#include "compute/cuda/attn_tile.cuh"

attn_fn attn_kernel_512(int columns)
{
    return attn_kernel_of<512, false>(columns);
}
