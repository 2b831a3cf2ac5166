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

#define FLOAT_WIDTH(T, R)                                                                                              \
    static void rows_##T##_##R(const uint8_t *tile, uint32_t n_in, const linear_input *x, int row, size_t ahead,       \
                               float *y, size_t ld)                                                                    \
    {                                                                                                                  \
        for (int first = 0; first < LINEAR_TILE; first += LANES)                                                       \
            float_tile_rows(TYPE_##T, R, tile, n_in, x, row, first ? 0 : ahead, first, y, ld);                         \
    }

#define FLOAT_FN(T)                                                                                                    \
    static void multiply_##T(const packed_matrix *w, uint32_t tile_begin, uint32_t tile_end, const linear_input *x,    \
                             int row_begin, int row_end, float *y, size_t ld_out)                                      \
    {                                                                                                                  \
        linear_drive(widths_##T, MAX_FLOAT_WIDTH, w, tile_begin, tile_end, x, row_begin, row_end, y, ld_out);          \
    }

#endif
