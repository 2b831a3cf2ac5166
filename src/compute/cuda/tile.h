/* tile.h: how products keep their weights on the device: tile records of TILE_M weight rows by TILE_K inputs, and the
 * chains that fix the order of sums. docs/cuda.md draws the records and argues for them. */
#ifndef FACET_COMPUTE_CUDA_TILE_H
#define FACET_COMPUTE_CUDA_TILE_H

#include "compute/cuda/host.h"

enum {
    TILE_M = 16,
    TILE_K = 256,
    TILE_MAX_CHAIN = 8, /* records in a chain at most */
};

/* X(type, bytes per record). Other types stay as in the file. */
#define TILE_TYPES(X)                                                                                                  \
    X(TYPE_F16, 8192)                                                                                                  \
    X(TYPE_BF16, 8192)                                                                                                 \
    X(TYPE_Q4_0, 2304)                                                                                                 \
    X(TYPE_Q4_1, 2560)                                                                                                 \
    X(TYPE_Q5_0, 2816)                                                                                                 \
    X(TYPE_Q5_1, 3072)                                                                                                 \
    X(TYPE_Q8_0, 4352)                                                                                                 \
    X(TYPE_Q4_K, 2304)                                                                                                 \
    X(TYPE_Q5_K, 2816)                                                                                                 \
    X(TYPE_Q6_K, 3360)

/* 0 for a type without records. */
static inline uint32_t tile_record_bytes(tensor_type type)
{
    switch (type) {
#define TILE_BYTES(T, BYTES)                                                                                           \
    case T: return BYTES;
        TILE_TYPES(TILE_BYTES)
#undef TILE_BYTES
    default: return 0;
    }
}

enum { TILE_MAX_RECORD = 4352 }; /* bytes, of types that are no floats */

/* Records along a row of n_in inputs; the last one is filled up with zeros. */
static inline uint32_t tile_n_records(uint32_t n_in)
{
    return (n_in + TILE_K - 1) / TILE_K;
}

/* Row tiles of a matrix of n_out outputs; likewise. */
static inline uint32_t tile_n_rows(uint32_t n_out)
{
    return (n_out + TILE_M - 1) / TILE_M;
}

/* Records per chain: a chain is summed by one warp without a break, and chains are added in order. So this length fixes
 * the bits of a product; it depends on the number of records alone. The largest even cut into 5 to 8, else chains of
 * nearly the same length. */
static inline uint32_t tile_chain_len(uint32_t n_records)
{
    if (n_records <= TILE_MAX_CHAIN) return n_records;
    for (uint32_t len = TILE_MAX_CHAIN; len >= 5; len--)
        if (n_records % len == 0) return len;
    uint32_t n = (n_records + TILE_MAX_CHAIN - 1) / TILE_MAX_CHAIN;
    return (n_records + n - 1) / n;
}

#ifdef __cplusplus
extern "C" {
#endif

/* Packs n_rows rows (raw blocks of a type with records, at src on the device) into whole tiles at dst; rows past
 * n_rows in the last tile become zeros. *most becomes the largest size of a scale so far (TILE_K values share sixteen
 * or fewer), as the bits of an f32. The launch's error is left in cudaGetLastError(). */
void cuda_tile_pack(tensor_type type, const uint8_t *src, uint32_t n_in, uint32_t n_rows, uint8_t *dst, uint32_t *most,
                    cudaStream_t stream);

/* The factor of the f16 weights in the kernels, a power of two: so that the largest scale uses the upper end of f16. */
float cuda_tile_gain(tensor_type type, float most);

#ifdef __cplusplus
}
#endif

#endif
