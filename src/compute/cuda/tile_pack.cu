/* tile_pack.cu: rows of blocks become tile records, on the device: a copy of 18 GB over the bus takes most of a second,
 * the packing of it a few hundredths, and the host's cores stay free to read the file. One warp per record. */
#include "compute/cuda/tile_pack.cuh"

#include <math.h>

typedef struct pack_args {
    const uint8_t *src;
    size_t row_bytes;
    uint32_t n_in, n_rows, n_records, n_tiles;
    int record_bytes, block_bytes;
    uint8_t *dst;
    uint32_t *most;
} pack_args;

template <int T> static __global__ void __launch_bounds__(BLOCK) pack_kernel(pack_args a)
{
    size_t index = (size_t)blockIdx.x * BLOCK_WARPS + (size_t)warp_id();
    if (index >= (size_t)a.n_tiles * a.n_records) return;
    uint32_t tile = (uint32_t)(index / a.n_records), record = (uint32_t)(index % a.n_records);
    float most = 0;
    for (int half = 0; half < 2; half++) {
        uint32_t row = tile * TILE_M + (uint32_t)(lane_id() / 4 + 8 * half);
        const uint8_t *from = row < a.n_rows ? a.src + row * a.row_bytes : NULL;
        record_row<T> r = {from, record * TILE_K, a.n_in, a.block_bytes};
        pack_lane<T>(r, a.dst + index * (size_t)a.record_bytes, half, lane_id(), &most);
    }
    most = warp_max(most);
    if (lane_id() == 0) atomicMax(a.most, __float_as_uint(most));
}

void cuda_tile_pack(tensor_type type, const uint8_t *src, uint32_t n_in, uint32_t n_rows, uint8_t *dst, uint32_t *most,
                    cudaStream_t stream)
{
    const type_info *t = type_get(type);
    pack_args a = {src,
                   type_bytes(t, n_in),
                   n_in,
                   n_rows,
                   tile_n_records(n_in),
                   tile_n_rows(n_rows),
                   (int)tile_record_bytes(type),
                   (int)t->block_bytes,
                   dst,
                   most};
    unsigned grid = n_blocks((size_t)a.n_tiles * a.n_records, BLOCK_WARPS);
    switch (type) {
#define PACK_CASE(T, BYTES)                                                                                            \
    case T: pack_kernel<T><<<grid, BLOCK, 0, stream>>>(a); break;
        TILE_TYPES(PACK_CASE)
#undef PACK_CASE
    default: break;
    }
}

float cuda_tile_gain(tensor_type type, float most)
{
    int exponent = 0;
    if (type == TYPE_F16 || !(most > 0) || !isfinite(most)) return 1;
    frexpf(most, &exponent); /* most < 2^exponent */
    if (exponent < -100) exponent = -100;
    if (type == TYPE_BF16) return ldexpf(1, 15 - exponent);
    if (type == TYPE_Q8_0) return ldexpf(1, 8 - exponent);
    return ldexpf(1, 15 - 24 - exponent); /* scale * 2^24 * gain < 2^15 */
}
