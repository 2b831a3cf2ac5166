/* linear_float.h: the product of one tile of F32, F16 or BF16 with R rows, for any vector width; included after the
 * vector header of an instruction set, whose MAX_FLOAT_WIDTH lets 4 chains a row fit its registers. Four chains over k
 * mod 4 for each output and row: the order of float_dot(). */
#ifndef FACET_COMPUTE_CPU_LINEAR_FLOAT_H
#define FACET_COMPUTE_CPU_LINEAR_FLOAT_H

#include "compute/cpu/linear_tile.h"

#define UNROLL _Pragma("GCC unroll 8")

ALWAYS_INLINE size_t float_bytes(tensor_type type)
{
    return type == TYPE_F32 ? 4 : 2;
}

/* Weights of rows first..first + LANES - 1 at one k. */
ALWAYS_INLINE vf load_weights(tensor_type type, const uint8_t *p, int first)
{
    if (type == TYPE_F32) return load_lanes_f32(p + 4 * first);
    if (type == TYPE_F16) return load_lanes_f16(p + 2 * first);
    return as_f32(load_lanes_u16(p + 2 * first) << 16);
}

ALWAYS_INLINE void float_tile_rows(tensor_type type, int R, const uint8_t *p, uint32_t n_in, const linear_input *x,
                                   int row, size_t ahead, int first, float *y, size_t ld)
{
    const size_t step = LINEAR_TILE * float_bytes(type);
    const float *xr = x->f32 + (size_t)row * x->ld;
    vf chain[MAX_FLOAT_WIDTH][4];
    UNROLL for (int r = 0; r < R; r++)
    {
        UNROLL for (int c = 0; c < 4; c++) chain[r][c] = set_f32(0);
    }
    for (uint32_t k = 0; k < n_in; k += 4, p += 4 * step, xr += 4) {
        if (ahead) {
            UNROLL for (size_t i = 0; i < 4 * step; i += 64) __builtin_prefetch(p + ahead + i, 0, 3);
        }
        UNROLL for (int c = 0; c < 4; c++)
        {
            vf w = load_weights(type, p + (size_t)c * step, first);
            UNROLL for (int r = 0; r < R; r++) chain[r][c] =
                fma_lanes(w, set_f32(xr[(size_t)r * x->ld + (size_t)c]), chain[r][c]);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        store_lanes(y + (size_t)r * ld + first, (chain[r][0] + chain[r][1]) + (chain[r][2] + chain[r][3]));
}

/* Rows of a pass over two tiles, and from how many rows on two tiles are taken at once: below, one stream of weights is
 * faster. */
enum { PAIR_WIDTH = MAX_FLOAT_WIDTH / 2, PAIR_FROM = 6 };

/* Two neighbouring tiles of a vector each at once, so that a broadcast of the input serves two products: with one tile
 * many rows wait for loads. The chains are the same. */
ALWAYS_INLINE void float_pair_rows(tensor_type type, int R, const uint8_t *p, size_t tile_bytes, uint32_t n_in,
                                   const linear_input *x, int row, size_t ahead, float *y, size_t ld)
{
    const size_t step = LINEAR_TILE * float_bytes(type);
    const float *xr = x->f32 + (size_t)row * x->ld;
    vf chain[2][PAIR_WIDTH][4];
    UNROLL for (int r = 0; r < R; r++)
    {
        UNROLL for (int c = 0; c < 4; c++) chain[0][r][c] = chain[1][r][c] = set_f32(0);
    }
    for (uint32_t k = 0; k < n_in; k += 4, p += 4 * step, xr += 4) {
        if (ahead) {
            UNROLL for (size_t i = 0; i < 4 * step; i += 64)
            {
                __builtin_prefetch(p + ahead + i, 0, 3);
                __builtin_prefetch(p + tile_bytes + ahead + i, 0, 3);
            }
        }
        UNROLL for (int c = 0; c < 4; c++)
        {
            const vf w0 = load_weights(type, p + (size_t)c * step, 0);
            const vf w1 = load_weights(type, p + tile_bytes + (size_t)c * step, 0);
            UNROLL for (int r = 0; r < R; r++)
            {
                const vf v = set_f32(xr[(size_t)r * x->ld + (size_t)c]);
                chain[0][r][c] = fma_lanes(w0, v, chain[0][r][c]);
                chain[1][r][c] = fma_lanes(w1, v, chain[1][r][c]);
            }
        }
    }
    UNROLL for (int r = 0; r < R; r++)
    {
        UNROLL for (int t = 0; t < 2; t++)
            store_lanes(y + (size_t)r * ld + LINEAR_TILE * t,
                        (chain[t][r][0] + chain[t][r][1]) + (chain[t][r][2] + chain[t][r][3]));
    }
}

typedef void (*float_pair_fn)(const uint8_t *tile, size_t tile_bytes, uint32_t n_in, const linear_input *x, int row,
                              size_t ahead, float *y, size_t ld);

/* Tiles [tile_begin, tile_end), an even number of whole ones; rows[w - 1] takes w rows. */
static inline void float_drive_pairs(const float_pair_fn *rows, const packed_matrix *w, uint32_t tile_begin,
                                     uint32_t tile_end, const linear_input *x, int row_begin, int row_end, float *y,
                                     size_t ld)
{
    const int block = linear_rows_per_block(w, PAIR_WIDTH);
    for (int begin = row_begin; begin < row_end; begin += block) {
        const int end = row_end - begin < block ? row_end : begin + block;
        for (uint32_t t = tile_begin; t < tile_end; t += 2) {
            const uint8_t *tile = w->data + t * w->tile_bytes;
            for (int r = begin; r < end; r += PAIR_WIDTH) {
                const int width = end - r < PAIR_WIDTH ? end - r : PAIR_WIDTH;
                rows[width - 1](tile, w->tile_bytes, w->n_in, x, r, r == begin ? LINEAR_AHEAD : 0,
                                y + (size_t)r * ld + t * LINEAR_TILE, ld);
            }
        }
    }
}

/* The first tile that float_drive_pairs leaves to the other kernels. */
static inline uint32_t float_pairs_end(const packed_matrix *w, uint32_t tile_begin, uint32_t tile_end, int n_rows)
{
    const uint32_t whole = w->n_out / LINEAR_TILE, end = tile_end < whole ? tile_end : whole;
    return n_rows < PAIR_FROM || end < tile_begin ? tile_begin : tile_begin + (end - tile_begin) / 2 * 2;
}

#define FLOAT_WIDTH(T, R)                                                                                              \
    static void rows_##T##_##R(const uint8_t *tile, uint32_t n_in, const linear_input *x, int row, size_t ahead,       \
                               float *y, size_t ld)                                                                    \
    {                                                                                                                  \
        for (int first = 0; first < LINEAR_TILE; first += LANES)                                                       \
            float_tile_rows(TYPE_##T, R, tile, n_in, x, row, first ? 0 : ahead, first, y, ld);                         \
    }

#define FLOAT_PAIR(T, R)                                                                                               \
    static void pair_##T##_##R(const uint8_t *tile, size_t tile_bytes, uint32_t n_in, const linear_input *x, int row,  \
                               size_t ahead, float *y, size_t ld)                                                      \
    {                                                                                                                  \
        float_pair_rows(TYPE_##T, R, tile, tile_bytes, n_in, x, row, ahead, y, ld);                                    \
    }

/* For vectors of a whole tile. */
#define FLOAT_PAIR_FN(T)                                                                                               \
    static void multiply_##T(const packed_matrix *w, uint32_t tile_begin, uint32_t tile_end, const linear_input *x,    \
                             int row_begin, int row_end, float *y, size_t ld_out)                                      \
    {                                                                                                                  \
        const uint32_t mid = float_pairs_end(w, tile_begin, tile_end, row_end - row_begin);                            \
        float_drive_pairs(pairs_##T, w, tile_begin, mid, x, row_begin, row_end, y, ld_out);                            \
        linear_drive(widths_##T, MAX_FLOAT_WIDTH, w, mid, tile_end, x, row_begin, row_end, y, ld_out);                 \
    }

#define FLOAT_FN(T)                                                                                                    \
    static void multiply_##T(const packed_matrix *w, uint32_t tile_begin, uint32_t tile_end, const linear_input *x,    \
                             int row_begin, int row_end, float *y, size_t ld_out)                                      \
    {                                                                                                                  \
        linear_drive(widths_##T, MAX_FLOAT_WIDTH, w, tile_begin, tile_end, x, row_begin, row_end, y, ld_out);          \
    }

#endif
