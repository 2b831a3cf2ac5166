/* linear_tile.h: the form of a packed tile, shared by the packer and the kernels of every instruction set.
 *
 * A tile of a block type is one stream of records along K; a record is a header (the scales of 16 rows) and units, one
 * for each sub-block of 32 values. The last record ends with its last unit, so nothing but the header is padded:
 *
 *     | header | unit | unit | … | header | unit | …            header and unit are multiples of 64 bytes
 *
 * A unit holds the codes of 16 rows as vectors of 64 bytes. Byte 4 o + i of "code vector" v (v = 0..7) is the code of
 * row o at k = 4 v + i: what one vpdpbusd takes. Codes of b bits fill b vectors, by parts:
 *
 *     nibbles (4, 5, 6 bits)     4 vectors, u = 0..3: low nibble v = 2u, high nibble v = 2u + 1
 *     pairs   (2, 3 bits: bits 1..0; 6 bits: bits 5..4)
 *                                2 vectors, u = 0..1: bits 2j+1..2j are v = 4u + j
 *     ones    (3 bits: bit 2; 5 bits: bit 4)
 *                                1 vector: bit v is v
 *     bytes   (8 bits)           8 vectors
 *
 * in this order. Since a unit stands alone, wide and narrow kernels unpack each vector once. Codes of 8 bits are stored
 * plus 128, unsigned as vpdpbusd wants them. Headers are drawn in linear_pack.c.
 *
 * A tile of F32, F16 or BF16 is simply [n_in][16 rows]. */
#ifndef FACET_COMPUTE_CPU_LINEAR_TILE_H
#define FACET_COMPUTE_CPU_LINEAR_TILE_H

#include "compute/cpu/linear.h"

/* Bits of a code; 0 for the types that have no codes. */
static inline int tile_code_bits(tensor_type type)
{
    switch (type) {
    case TYPE_Q2_K: return 2;
    case TYPE_Q3_K: return 3;
    case TYPE_Q4_0:
    case TYPE_Q4_1:
    case TYPE_Q4_K:
    case TYPE_IQ4_NL:
    case TYPE_IQ4_XS:
    case TYPE_MXFP4:
    case TYPE_NVFP4: return 4;
    case TYPE_Q5_0:
    case TYPE_Q5_1:
    case TYPE_Q5_K: return 5;
    case TYPE_Q6_K: return 6;
    case TYPE_Q8_0: return 8;
    default: return 0;
    }
}

static inline uint32_t tile_unit_bytes(tensor_type type)
{
    return 64 * (uint32_t)tile_code_bits(type);
}

/* Units of a full record. */
static inline uint32_t tile_record_units(tensor_type type)
{
    switch (type) {
    case TYPE_Q4_1:
    case TYPE_Q5_1: return 1;
    case TYPE_Q4_0:
    case TYPE_Q5_0:
    case TYPE_Q8_0:
    case TYPE_IQ4_NL:
    case TYPE_NVFP4: return 2;
    case TYPE_MXFP4: return 4;
    default: return 8;
    }
}

static inline uint32_t tile_header_bytes(tensor_type type)
{
    switch (type) {
    case TYPE_IQ4_XS: return 128;
    case TYPE_Q3_K:
    case TYPE_Q4_K:
    case TYPE_Q5_K: return 256;
    case TYPE_Q2_K:
    case TYPE_Q6_K: return 320;
    default: return 64;
    }
}

/* One scale for each 16 values instead of 32. */
static inline bool tile_scales_per_16(tensor_type type)
{
    return type == TYPE_Q2_K || type == TYPE_Q3_K || type == TYPE_Q6_K || type == TYPE_NVFP4;
}

/* The type has minima. */
static inline bool tile_has_min(tensor_type type)
{
    return type == TYPE_Q4_1 || type == TYPE_Q5_1 || type == TYPE_Q2_K || type == TYPE_Q4_K || type == TYPE_Q5_K;
}

/* Codes are looked up in a table of 16 values. */
static inline bool tile_is_iq4(tensor_type type)
{
    return type == TYPE_IQ4_NL || type == TYPE_IQ4_XS;
}
static inline bool tile_is_fp4(tensor_type type)
{
    return type == TYPE_MXFP4 || type == TYPE_NVFP4;
}

/* The unsigned codes (after the table, if there is one) are 2^n too large; 0 means not at all. */
static inline int tile_offset_log2(tensor_type type)
{
    switch (type) {
    case TYPE_Q3_K: return 2;
    case TYPE_Q4_0: return 3;
    case TYPE_Q5_0:
    case TYPE_MXFP4:
    case TYPE_NVFP4: return 4;
    case TYPE_Q6_K: return 5;
    case TYPE_Q8_0:
    case TYPE_IQ4_NL:
    case TYPE_IQ4_XS: return 7;
    default: return 0;
    }
}

/* The table values plus 128 (IQ4) and plus 16 (FP4). */
#define TILE_IQ4_TABLE                                                                                                 \
    {                                                                                                                  \
        1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241                                        \
    }
#define TILE_FP4_TABLE                                                                                                 \
    {                                                                                                                  \
        16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4                                                   \
    }

/* Rebuilds the file blocks of row `row` of a tile that hold values [begin, begin + n); begin and n are multiples of the
 * type's block length. */
void linear_tile_row(tensor_type type, const uint8_t *tile, uint32_t row, uint32_t begin, uint32_t n, uint8_t *dst);

/* A kernel of one width: R rows of the input, from `row` on, times one tile -> y[r * ld + o], o = 0..15. `ahead`: bytes
 * to prefetch ahead of the stream; 0 when the tile is in the cache. */
typedef void (*linear_rows_fn)(const uint8_t *tile, uint32_t n_in, const linear_input *x, int row, size_t ahead,
                               float *y, size_t ld);

enum { LINEAR_AHEAD = 8192 }; /* bytes; measured: 0 costs a third of the read bandwidth, 4 to 16 KiB are alike */

/* Rows, a multiple of `width`, whose activations stay in the cache while all tiles pass by. */
int linear_rows_per_block(const packed_matrix *w, int width);

/* The loops around the width kernels: rows[w - 1] takes w rows, w = 1..max_width. */
void linear_drive(const linear_rows_fn *rows, int max_width, const packed_matrix *w, uint32_t tile_begin,
                  uint32_t tile_end, const linear_input *x, int row_begin, int row_end, float *y, size_t ld_out);

#if defined(__x86_64__)
/* Kernels of each file, NULL for types that it does not hold. The CPU must have been asked. */
linear_fn linear_kquant_avx512(tensor_type type);
linear_fn linear_legacy_avx512(tensor_type type);
linear_fn linear_float_avx512(tensor_type type);
linear_fn linear_block_avx2(tensor_type type);
linear_fn linear_float_avx2(tensor_type type);
void act_quantize_avx512(const float *x, size_t n, act_block *out, size_t stride);
void act_quantize_avx2(const float *x, size_t n, act_block *out, size_t stride);
#endif

#endif
