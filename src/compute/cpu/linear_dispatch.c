/* Which kernel a type gets on this processor, and the loops around the kernels of one width. */
#include <string.h>

#include "base/cpu.h"
#include "compute/cpu/linear_tile.h"

enum {
    MAX_WIDTH = 8,
    L2_FOR_ACTIVATIONS = 400000, /* bytes; rows are blocked so that those of one block stay in a 1 MB L2 */
};

#if defined(__x86_64__)
linear_fn linear_avx2(tensor_type type)
{
    if (!cpu_features()->avx2) return NULL;
    return type_is_float(type) ? linear_float_avx2(type) : linear_block_avx2(type);
}

linear_fn linear_avx512(tensor_type type)
{
    if (!cpu_features()->avx512 || !cpu_features()->avx512_vnni) return NULL;
    if (type_is_float(type)) return linear_float_avx512(type);
    linear_fn fn = linear_kquant_avx512(type);
    return fn ? fn : linear_legacy_avx512(type);
}

act_quantize_fn act_quantize_best(void)
{
    if (cpu_features()->avx512) return act_quantize_avx512;
    if (cpu_features()->avx2) return act_quantize_avx2;
    return act_quantize;
}
#else
linear_fn linear_avx2(tensor_type type)
{
    (void)type;
    return NULL;
}

linear_fn linear_avx512(tensor_type type)
{
    (void)type;
    return NULL;
}

act_quantize_fn act_quantize_best(void)
{
    return act_quantize;
}
#endif

linear_fn linear_best(tensor_type type)
{
    linear_fn fn = linear_avx512(type);
    if (!fn) fn = linear_avx2(type);
    return fn ? fn : linear_scalar(type);
}

int linear_rows_per_block(const packed_matrix *w, int max_width)
{
    size_t row = type_is_float(w->type) ? (size_t)w->n_in * sizeof(float) : act_n_blocks(w->n_in) * sizeof(act_block);
    size_t rows = L2_FOR_ACTIVATIONS / row / (size_t)max_width * (size_t)max_width;
    return rows < (size_t)max_width ? max_width : rows > 1024 ? 1024 : (int)rows;
}

/* The rows of one pass over a tile whose columns do not all exist. */
static void partial_tile(linear_rows_fn fn, const packed_matrix *w, const uint8_t *tile, const linear_input *x, int row,
                         int width, size_t ahead, float *y, size_t ld, uint32_t columns)
{
    _Alignas(64) float full[MAX_WIDTH * LINEAR_TILE];
    fn(tile, w->n_in, x, row, ahead, full, LINEAR_TILE);
    for (int r = 0; r < width; r++) memcpy(y + (size_t)r * ld, full + r * LINEAR_TILE, columns * sizeof(float));
}

/* Passes of about equal width, since the cost of a pass is close to linear in its rows beyond the first few. */
static void drive_tile(const linear_rows_fn *rows, int max_width, const packed_matrix *w, uint32_t t,
                       const linear_input *x, int row, int end, float *y, size_t ld)
{
    const uint8_t *tile = w->data + t * w->tile_bytes;
    uint32_t columns = w->n_out - t * LINEAR_TILE;
    size_t ahead = LINEAR_AHEAD;
    for (int passes = (end - row + max_width - 1) / max_width; passes > 0; passes--, ahead = 0) {
        int width = (end - row + passes - 1) / passes;
        float *to = y + (size_t)row * ld + t * LINEAR_TILE;
        if (columns < LINEAR_TILE)
            partial_tile(rows[width - 1], w, tile, x, row, width, ahead, to, ld, columns);
        else
            rows[width - 1](tile, w->n_in, x, row, ahead, to, ld);
        row += width;
    }
}

void linear_drive(const linear_rows_fn *rows, int max_width, const packed_matrix *w, uint32_t tile_begin,
                  uint32_t tile_end, const linear_input *x, int row_begin, int row_end, float *y, size_t ld_out)
{
    int block = linear_rows_per_block(w, max_width);
    for (int row = row_begin; row < row_end; row += block) {
        int end = row_end - row < block ? row_end : row + block;
        for (uint32_t t = tile_begin; t < tile_end; t++) drive_tile(rows, max_width, w, t, x, row, end, y, ld_out);
    }
}
