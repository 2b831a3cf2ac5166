/* linear.h: products of quantised weights with rows of activations on the CPU.
 *
 * Weights are repacked at load into tiles of 16 output rows, same bytes (up to padding to 64), one straight stream
 * along K: a pure permutation whose inverse is tested. Layouts are drawn in linear_pack.c. The scalar kernel works on
 * the same tiles; it, AVX2 and AVX-512 give the same bits, those of act_dot()/float_dot() (quant/act.h), for any number
 * of rows. */
#ifndef FACET_COMPUTE_CPU_LINEAR_H
#define FACET_COMPUTE_CPU_LINEAR_H

#include "quant/act.h"

enum { LINEAR_TILE = 16 }; /* output rows per tile */

/* A matrix [n_out, n_in]; the last tile is padded with zero rows when n_out % 16 != 0. */
typedef struct packed_matrix {
    tensor_type type;
    uint32_t n_in, n_out;
    size_t tile_bytes;   /* a multiple of 64 */
    const uint8_t *data; /* ceil(n_out / 16) tiles, 64-byte aligned */
} packed_matrix;

/* True when `type` with this row length can be packed; every block type and F32/F16/BF16 can (n_in % 32 == 0 and %
 * block_len == 0). */
bool linear_can_pack(tensor_type type, uint32_t n_in);
size_t linear_tile_bytes(tensor_type type, uint32_t n_in);

/* Packs tile `tile` (its up to 16 rows) of a matrix in file layout (`src`: n_out rows) to dst [tile_bytes]. Unpack is
 * the inverse. */
void linear_pack_tile(tensor_type type, uint32_t n_in, uint32_t n_out, const void *src, uint32_t tile, uint8_t *dst);
void linear_unpack_tile(tensor_type type, uint32_t n_in, uint32_t n_out, const uint8_t *src, uint32_t tile, void *dst);

/* Activations of n_rows rows for a product with n_in inputs:
 *   for block types q[sb * n_rows + r], sb < act_n_blocks(n_in) (all rows of a record stand together);
 *   for float types row r at f32 + r * ld. */
typedef struct linear_input {
    int n_rows;
    const act_block *q;
    const float *f32;
    size_t ld;
} linear_input;

/* y[r * ld_out + 16 * tile + o] = product for tiles [tile_begin, tile_end) and rows [row_begin, row_end) of the input;
 * columns at or beyond n_out are not written. Threads call it with different tiles. */
typedef void (*linear_fn)(const packed_matrix *w, uint32_t tile_begin, uint32_t tile_end, const linear_input *x,
                          int row_begin, int row_end, float *y, size_t ld_out);

/* The best kernel of each instruction set for a type; NULL when this build or CPU lacks the set. Entered only after the
 * CPU was asked. */
linear_fn linear_scalar(tensor_type type);
linear_fn linear_avx2(tensor_type type);
linear_fn linear_avx512(tensor_type type);
/* The best for this CPU (cpu_features()); never NULL for a packable type. */
linear_fn linear_best(tensor_type type);

/* act_quantize for one row, SIMD where there is one; same bits as the scalar one. */
typedef void (*act_quantize_fn)(const float *x, size_t n, act_block *out, size_t stride);
act_quantize_fn act_quantize_best(void);

#endif
