/* attn_128.cu: attention of heads of 128. */
#include "compute/cuda/attn_tile.cuh"

attn_fn attn_kernel_128(int columns)
{
    return attn_kernel_of<128, false>(columns);
}
