/* The products in plain C on the packed tiles: the slow twin of the SIMD kernels, and the only path on processors
 * without one of ours. A row of the tile goes back to file blocks, 256 values at a time, and through the unpackers that
 * act_dot() uses; the chains are those of quant/act.h. */
#include <math.h>

#include "compute/cpu/linear_tile.h"
#include "quant/block.h"
#include "quant/unpack.h"

enum {
    ROWS = 8,              /* rows of the input that share one unpacking */
    MAX_BLOCK_BYTES = 288, /* of 256 values: Q8_0 has 272 */
};

typedef struct chains {
    float a[ROWS], m[ROWS];
} chains;

static inline int32_t integer_sum(const int8_t *a, const int8_t *b, int n)
{
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* One row of the input: n values of one act_block. */
static void add_block(const unpack_rule *rule, const unpacked *w, const act_block *x, uint32_t n, float *a, float *m)
{
    for (uint32_t b = 0; b < n / 32; b++) {
        const int8_t *q = w->q + 32 * b, *xq = x->q + 32 * b;
        const float scale = x->scale[b];
        if (rule->group == 32) {
            *a = fmaf((float)integer_sum(q, xq, 32) * scale, w->s[b], *a);
            if (rule->has_min) *m = fmaf(w->m[b], x->scale_sum[b], *m);
            continue;
        }
        const float *s = w->s + 2 * b, *min = w->m + 2 * b;
        float t = fmaf((float)integer_sum(q + 16, xq + 16, 16), s[1], (float)integer_sum(q, xq, 16) * s[0]);
        *a = fmaf(t, scale, *a);
        if (!rule->has_min) continue;
        for (int h = 0; h < 2; h++) *m = fmaf(min[h], scale * (float)x->sum16[2 * b + (uint32_t)h], *m);
    }
}

static void block_output(const packed_matrix *w, const uint8_t *tile, uint32_t o, const linear_input *x, int row, int n,
                         float *y, size_t ld)
{
    const unpack_rule *rule = unpack_rule_get((uint32_t)w->type);
    chains c = {0};
    for (uint32_t begin = 0; begin < w->n_in; begin += 256) {
        uint32_t part = w->n_in - begin < 256 ? w->n_in - begin : 256;
        uint8_t blocks[MAX_BLOCK_BYTES];
        unpacked u;
        linear_tile_row(w->type, tile, o, begin, part, blocks);
        rule->unpack(blocks, part, &u);
        const act_block *xb = x->q + begin / 256 * (size_t)x->n_rows + row;
        for (int r = 0; r < n; r++) add_block(rule, &u, xb + r, part, &c.a[r], &c.m[r]);
    }
    for (int r = 0; r < n; r++) y[(size_t)r * ld] = rule->has_min ? c.a[r] - c.m[r] : c.a[r];
}

static float float_value(tensor_type type, const uint8_t *tile, size_t i)
{
    if (type == TYPE_F32) return f32_from_bits(load_u32(tile + 4 * i));
    uint16_t h = load_u16(tile + 2 * i);
    return type == TYPE_F16 ? f16_to_f32(h) : bf16_to_f32(h);
}

static void float_output(const packed_matrix *w, const uint8_t *tile, uint32_t o, const linear_input *x, int row, int n,
                         float *y, size_t ld)
{
    float c[ROWS][4] = {{0}};
    for (uint32_t k = 0; k < w->n_in; k++) {
        float value = float_value(w->type, tile, (size_t)k * LINEAR_TILE + o);
        for (int r = 0; r < n; r++) c[r][k % 4] = fmaf(value, x->f32[(size_t)(row + r) * x->ld + k], c[r][k % 4]);
    }
    for (int r = 0; r < n; r++) y[(size_t)r * ld] = (c[r][0] + c[r][1]) + (c[r][2] + c[r][3]);
}

static void multiply(const packed_matrix *w, uint32_t tile_begin, uint32_t tile_end, const linear_input *x,
                     int row_begin, int row_end, float *y, size_t ld_out)
{
    uint32_t end = tile_end * LINEAR_TILE < w->n_out ? tile_end * LINEAR_TILE : w->n_out;
    for (uint32_t o = tile_begin * LINEAR_TILE; o < end; o++)
        for (int row = row_begin; row < row_end; row += ROWS) {
            const uint8_t *tile = w->data + o / LINEAR_TILE * w->tile_bytes;
            int n = row_end - row < ROWS ? row_end - row : ROWS;
            (type_is_float(w->type) ? float_output : block_output)(w, tile, o % LINEAR_TILE, x, row, n,
                                                                   y + (size_t)row * ld_out + o, ld_out);
        }
}

linear_fn linear_scalar(tensor_type type)
{
    return type_is_float(type) || tile_code_bits(type) ? multiply : NULL;
}
