/* op_linear.c: products of weights and rows, dense and gated. Threads take tiles of 16 outputs from a common counter;
 * who computes a tile does not change its bits. */
#include <math.h>
#include <string.h>

#include "compute/cpu/exec.h"

enum { UNIT_BYTES = 256 << 10 }; /* about 8 µs of one core's memory bandwidth */

uint32_t exec_tiles_per_unit(const exec *x, int w, uint32_t n_tiles, int n_threads)
{
    const weight *m = &x->be->weights[w];
    const size_t tile_bytes = LINEAR_TILE * type_bytes(type_get(m->type), m->ne[0]);
    uint32_t tiles = (uint32_t)(UNIT_BYTES / tile_bytes), share = n_tiles / (uint32_t)(4 * n_threads);
    if (tiles > share) tiles = share;
    return tiles ? tiles : 1;
}

float exec_row_dot(const weight *m, const uint8_t *row, const linear_input *in, int r)
{
    return type_is_float(m->type) ? float_dot(m->type, row, in->f32 + (size_t)r * in->ld, m->ne[0])
                                  : act_dot(m->type, row, in->q + r, (size_t)in->n_rows, m->ne[0]);
}

/* Scalar products straight from the file's layout: the reference. */
static void reference_product(const weight *m, const uint8_t *data, uint32_t begin, uint32_t end,
                              const linear_input *in, float *y, size_t ld)
{
    const size_t row_bytes = type_bytes(type_get(m->type), m->ne[0]);
    for (uint32_t o = begin; o < end; o++)
        for (int r = 0; r < in->n_rows; r++)
            y[(size_t)r * ld + o - begin] = exec_row_dot(m, data + o * row_bytes, in, r);
}

/* exec_product, but y is where the first column of tile_begin goes. */
static void product_columns(const exec *x, int w, int expert, uint32_t tile_begin, uint32_t tile_end,
                            const linear_input *in, float *y, size_t ld, float *pack)
{
    const weight *m = &x->be->weights[w];
    const uint32_t n_in = (uint32_t)m->ne[0], n_out = (uint32_t)m->ne[1],
                   n_tiles = (n_out + LINEAR_TILE - 1) / LINEAR_TILE;
    const uint8_t *data = (const uint8_t *)m->data + (size_t)expert * type_bytes(type_get(m->type), m->ne[0]) * n_out;
    packed_matrix p = x->be->packed[w];
    if (p.data) {
        p.data += ((size_t)expert * n_tiles + tile_begin) * p.tile_bytes;
        p.n_out = n_out - tile_begin * LINEAR_TILE;
        linear_best(m->type)(&p, 0, tile_end - tile_begin, in, 0, in->n_rows, y, ld);
    } else if (x->be->is_ref) {
        const uint32_t end = tile_end * LINEAR_TILE < n_out ? tile_end * LINEAR_TILE : n_out;
        reference_product(m, data, tile_begin * LINEAR_TILE, end, in, y, ld);
    } else { /* mapped weights: each tile is packed into thread memory on its way */
        for (uint32_t t = tile_begin; t < tile_end; t++) {
            const uint32_t left = n_out - t * LINEAR_TILE;
            linear_pack_tile(m->type, n_in, n_out, data, t, (uint8_t *)pack);
            p = (packed_matrix){m->type, n_in, left < LINEAR_TILE ? left : LINEAR_TILE,
                                linear_tile_bytes(m->type, n_in), (const uint8_t *)pack};
            linear_best(m->type)(&p, 0, 1, in, 0, in->n_rows, y + (size_t)(t - tile_begin) * LINEAR_TILE, ld);
        }
    }
}

void exec_product(const exec *x, int w, int expert, uint32_t tile_begin, uint32_t tile_end, const linear_input *in,
                  float *y, size_t ld, float *pack)
{
    if (tile_begin < tile_end)
        product_columns(x, w, expert, tile_begin, tile_end, in, y + (size_t)tile_begin * LINEAR_TILE, ld, pack);
}

linear_input exec_input(const exec *x, int value)
{
    return (linear_input){.n_rows = exec_n_rows(x, value),
                          .q = x->c->values[value].act,
                          .f32 = x->c->values[value].f32,
                          .ld = x->c->plan->values[value].width};
}

typedef struct span {
    uint32_t begin, end;
} span;

/* Unit u of a matrix with n_tiles tiles: its tiles, and the columns they cover. False past the end. */
static bool unit_span(const exec *x, int w, int u, uint32_t n_tiles, int n_threads, span *tiles, span *columns)
{
    const uint32_t step = exec_tiles_per_unit(x, w, n_tiles, n_threads), n_out = (uint32_t)x->be->weights[w].ne[1];
    tiles->begin = (uint32_t)u * step;
    if (tiles->begin >= n_tiles) return false;
    tiles->end = tiles->begin + step < n_tiles ? tiles->begin + step : n_tiles;
    columns->begin = tiles->begin * LINEAR_TILE;
    columns->end = tiles->end * LINEAR_TILE < n_out ? tiles->end * LINEAR_TILE : n_out;
    return true;
}

static void suppress(const exec *x, float *row, span c)
{
    const plan *p = x->c->plan;
    for (int i = 0; i < p->n_suppress; i++)
        if (p->suppress[i] >= (int32_t)c.begin && p->suppress[i] < (int32_t)c.end) row[p->suppress[i]] = -INFINITY;
}

static void epilogue(const exec *x, const plan_op *op, span c, int n_rows)
{
    const row_kernels *k = x->be->rows;
    const size_t n = c.end - c.begin;
    for (int r = 0; r < n_rows; r++) {
        float *row = exec_row(x, op->o, r), *y = row + c.begin;
        if (op->scale != 1.0f) k->scale(y, n, op->scale);
        if (op->epilogue == EPI_GELU_MUL) k->gelu_mul(y, exec_row(x, op->i1, r) + op->column + c.begin, n, y);
    }
}

/* Rows of logits lie a power of two apart: what 16 of them hold at one column falls on the same few cache lines. So a
 * few tiles at a time are finished in thread memory and then copied to their rows. */
static void logits(const exec *x, const plan_op *op, const linear_input *in, span tiles, span columns, int thread)
{
    const row_kernels *k = x->be->rows;
    const size_t ld = LOGIT_TILES * LINEAR_TILE;
    float *pack = exec_thread_scratch(x, thread), *y = pack + exec_pack_floats(&x->be->weights[op->w0]);
    for (uint32_t t = tiles.begin; t < tiles.end; t += LOGIT_TILES) {
        const uint32_t end = t + LOGIT_TILES < tiles.end ? t + LOGIT_TILES : tiles.end, at = t * LINEAR_TILE;
        const span c = {at, end * LINEAR_TILE < columns.end ? end * LINEAR_TILE : columns.end};
        product_columns(x, op->w0, 0, t, end, in, y, ld, pack);
        for (int r = 0; r < in->n_rows; r++) {
            float *from = y + (size_t)r * ld, *row = exec_row(x, op->o, r);
            if (op->scale != 1.0f) k->scale(from, c.end - at, op->scale);
            if (op->softcap > 0) k->softcap(from, c.end - at, op->softcap);
            memcpy(row + at, from, (c.end - at) * sizeof *row);
            suppress(x, row, c);
        }
    }
}

void exec_quantize_all(const exec *x, int value, int thread, int n_threads)
{
    const value_state *v = &x->c->values[value];
    if (!v->act) return;
    team_barrier(x->be->team);
    const uint32_t blocks = (uint32_t)act_n_blocks(v->segment), width = x->c->plan->values[value].width;
    const size_t n = (size_t)exec_n_rows(x, value) * (width / v->segment);
    for (size_t u = (size_t)thread; u < n * blocks; u += (size_t)n_threads) {
        const size_t row = u / blocks, b = u % blocks, left = v->segment - b * 256;
        x->be->quantize(v->f32 + row * v->segment + b * 256, left < 256 ? left : 256, v->act + b * n + row, n);
    }
}

void op_linear(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const linear_input in = exec_input(x, op->i0);
    const uint32_t width = x->c->plan->values[op->o].width, n_tiles = (width + LINEAR_TILE - 1) / LINEAR_TILE;
    span tiles, columns;
    while (in.n_rows > 0 && unit_span(x, op->w0, exec_take(x, op, 0), n_tiles, n_threads, &tiles, &columns)) {
        if (op->epilogue == EPI_LOGITS) {
            logits(x, op, &in, tiles, columns, thread);
            continue;
        }
        exec_product(x, op->w0, 0, tiles.begin, tiles.end, &in, x->c->values[op->o].f32, width,
                     exec_thread_scratch(x, thread));
        epilogue(x, op, columns, in.n_rows);
    }
    exec_quantize_all(x, op->o, thread, n_threads);
}

void op_gated(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const linear_input in = exec_input(x, op->i0);
    const uint32_t width = x->c->plan->values[op->o].width, n_tiles = (width + LINEAR_TILE - 1) / LINEAR_TILE;
    const row_kernels *k = x->be->rows;
    span tiles, c;
    while (in.n_rows > 0 && unit_span(x, op->w0, exec_take(x, op, 0), n_tiles, n_threads, &tiles, &c)) {
        float *pack = exec_thread_scratch(x, thread);
        exec_product(x, op->w0, 0, tiles.begin, tiles.end, &in, x->c->scratch, width, pack);
        exec_product(x, op->w1, 0, tiles.begin, tiles.end, &in, x->c->values[op->o].f32, width, pack);
        for (int r = 0; r < in.n_rows; r++) {
            float *g = x->c->scratch + (size_t)r * width + c.begin, *u = exec_row(x, op->o, r) + c.begin;
            if (op->scale != 1.0f) k->scale(g, c.end - c.begin, op->scale);
            if (op->scale2 != 1.0f) k->scale(u, c.end - c.begin, op->scale2);
            (op->activation == ACT_GELU ? k->gelu_mul : k->silu_mul)(g, u, c.end - c.begin, u);
        }
    }
    exec_quantize_all(x, op->o, thread, n_threads);
}
