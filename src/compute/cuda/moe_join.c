/* moe_join.c: which ops of expert layers are done together, and the workspace of experts. */
#include <string.h>

#include "base/mem.h"
#include "compute/cuda/state.h"
#include "compute/cuda/tile.h"

static bool is_kind(const compiled *c, int op, op_kind kind)
{
    return op < c->p->n_ops && c->p->ops[op].kind == kind;
}

static bool is_row_norm(const compiled *c, int op)
{
    return is_kind(c, op, OP_NORM) && c->p->ops[op].group == 0;
}

static uint32_t width_of(const compiled *c, int value)
{
    return c->p->values[value].width;
}

/* Values between these ops are never written: nobody else may read them. */
static bool is_hidden(const compiled *c, int value, int last_op)
{
    const plan_value *v = &c->p->values[value];
    return !v->is_output && v->last_op <= last_op;
}

/* The ops from `at` on are the feed-forward of an expert layer, in the order in which model/gemma4.c records it. */
static bool is_block(const compiled *c, int at)
{
    static const op_kind kinds[] = {OP_GATED,     OP_LINEAR,   OP_NORM, OP_MOE_ROUTE, OP_NORM,
                                    OP_MOE_GATED, OP_MOE_DOWN, OP_NORM, OP_ADD,       OP_NORM_ADD};
    const plan_op *o = c->p->ops + at;
    for (int i = 0; i < (int)(sizeof kinds / sizeof *kinds); i++)
        if (!is_kind(c, at + i, kinds[i])) return false;
    const bool rows = is_row_norm(c, at + 2) && is_row_norm(c, at + 4) && is_row_norm(c, at + 7) && o[9].group == 0;
    const bool flows = o[1].i0 == o[0].o && o[1].epilogue == EPI_NONE && o[2].i0 == o[1].o && o[4].i0 == o[3].i0 &&
                       o[4].eps == o[3].eps && o[5].i0 == o[4].o && o[5].i1 == o[3].o && o[6].i0 == o[5].o &&
                       o[6].i1 == o[3].o && o[7].i0 == o[6].o && o[8].i0 == o[2].o && o[8].i1 == o[7].o &&
                       o[9].i0 == o[8].o;
    const dev_weight *w = c->b->weights;
    const bool tiled = w[o[5].w0].record_bytes > 0 && w[o[6].w0].record_bytes > 0;
    const bool hidden = is_hidden(c, o[2].o, at + 9) && is_hidden(c, o[6].o, at + 9) && is_hidden(c, o[7].o, at + 9) &&
                        is_hidden(c, o[8].o, at + 9);
    const uint32_t width = width_of(c, o[9].o);
    return rows && flows && tiled && hidden && width % 4 == 0 && width <= MOE_MAX_WIDTH;
}

static moe_block block_at(const compiled *c, int at)
{
    const plan_op *o = c->p->ops + at;
    moe_block b = {.dense_gated = (int16_t)at,
                   .dense_down = (int16_t)(at + 1),
                   .dense_norm = (int16_t)(at + 2),
                   .route = (int16_t)(at + 3),
                   .expert_norm = (int16_t)(at + 4),
                   .gated = (int16_t)(at + 5),
                   .down = (int16_t)(at + 6),
                   .down_norm = (int16_t)(at + 7),
                   .add = (int16_t)(at + 8),
                   .norm_add = (int16_t)(at + 9),
                   .next_norm = -1};
    const bool has_next =
        is_row_norm(c, at + 10) && o[10].i0 == o[9].o && c->p->values[o[10].o].rows == c->p->values[o[9].o].rows;
    if (has_next) b.next_norm = (int16_t)(at + 10);
    return b;
}

/* Three of the ops launch for all: the route, the first products, the second ones. */
static void cover(compiled *c, const moe_block *b, int16_t index)
{
    const int last = b->next_norm >= 0 ? b->next_norm : b->norm_add;
    for (int i = b->dense_gated; i <= last; i++) {
        c->covers[i] = i == b->route || i == b->gated || i == b->down;
        c->moe_block_of[i] = index;
    }
}

facet_status cuda_moe_join(compiled *c, facet_error *err)
{
    const size_t n = (size_t)c->p->n_ops;
    c->moe_blocks = mem_calloc(n / 10 + 1, sizeof *c->moe_blocks);
    c->moe_block_of = mem_alloc((n + 1) * sizeof *c->moe_block_of);
    if (!c->moe_blocks || !c->moe_block_of) return error_memory(err, "a compiled plan", n * sizeof *c->moe_block_of);
    for (size_t i = 0; i <= n; i++) c->moe_block_of[i] = -1;
    for (int i = 0; i < c->p->n_ops; i++) {
        if (!is_block(c, i)) continue;
        c->moe_blocks[c->n_moe_blocks] = block_at(c, i);
        cover(c, &c->moe_blocks[c->n_moe_blocks], (int16_t)c->n_moe_blocks);
        i = c->moe_blocks[c->n_moe_blocks++].norm_add;
    }
    return FACET_OK;
}

static size_t most(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Bytes of a block's list of items at most, in a step of as many rows as there may be. */
static size_t list_bytes(const compiled *c, const plan_op *op, int columns)
{
    const size_t n_out = op->kind == OP_MOE_GATED ? (size_t)op->n_ff : width_of(c, op->o);
    const size_t pairs = (size_t)c->max_rows * (size_t)op->n_used;
    const size_t full = pairs / (size_t)columns + (size_t)op->n_experts, batches = pairs < full ? pairs : full;
    const size_t tiles = tile_n_rows((uint32_t)n_out), n_sms = (size_t)c->b->n_sms;
    return MOE_ITEM_BYTES * ((batches * tiles + n_sms - 1) / n_sms + tiles);
}

/* Whether batches of so many columns leave room for the fewest warps. */
static bool columns_fit(const compiled *c, int columns)
{
    for (int i = 0; i < c->p->n_ops; i++) {
        const plan_op *op = &c->p->ops[i];
        if (op->kind != OP_MOE_GATED && op->kind != OP_MOE_DOWN) continue;
        const dev_weight *w = &c->b->weights[op->w0];
        const size_t ring = (op->kind == OP_MOE_GATED ? 2u : 1u) * MOE_MIN_WARPS * MOE_MIN_STAGES * TILE_MAX_RECORD;
        const size_t packed = (size_t)tile_n_records(w->n_in) * 512 * (size_t)columns;
        const size_t small = MOE_SMALL_BYTES + list_bytes(c, op, columns);
        if (w->record_bytes && ring + packed + small > (size_t)c->b->shared_bytes) return false;
    }
    return true;
}

void cuda_moe_columns(compiled *c)
{
    c->moe.columns = MOE_COLUMNS;
    while (c->moe.columns > 1 && !columns_fit(c, c->moe.columns)) c->moe.columns /= 2;
    c->moe.wide_columns = columns_fit(c, MOE_WIDE_COLUMNS) ? (int)MOE_WIDE_COLUMNS : c->moe.columns;
}

size_t cuda_moe_room(const compiled *c, size_t at[6])
{
    size_t pairs = 0, logits = 0, sums = 0;
    for (int i = 0; i < c->p->n_ops; i++) {
        const plan_op *op = &c->p->ops[i];
        if (op->kind == OP_MOE_ROUTE) {
            pairs = most(pairs, (size_t)op->n_used);
            logits = most(logits, (size_t)op->n_experts);
        }
        if (op->kind == OP_MOE_DOWN) sums = most(sums, (size_t)op->n_used * width_of(c, op->o));
    }
    const size_t rows = (size_t)c->max_rows;
    const size_t bytes[6] = {logits * rows * sizeof(float),    pairs * rows * sizeof(int32_t),
                             pairs * rows * sizeof(moe_batch), sizeof(int32_t),
                             (rows + 1) * sizeof(int32_t),     sums * rows * sizeof(float)};
    size_t total = 0;
    for (int i = 0; i < 6; i++) {
        at[i] = total;
        total += (bytes[i] + 255) / 256 * 256;
    }
    return pairs ? total : 0;
}
