/* join.c: neighbours in a plan that one launch does together. Every launch is a dependent step of a microsecond or two
 * even when its work is nothing, so fewer of them is what counts. Results are the same bits as those of the ops one by
 * one. */
#include "base/mem.h"
#include "compute/cuda/state.h"

enum { MAX_JOINED = 3 };

static bool is_plain_product(const compiled *c, const plan_op *op)
{
    return op->kind == OP_LINEAR && op->epilogue == EPI_NONE && c->b->weights[op->w0].record_bytes > 0;
}

/* Products that read the same rows: Q, K and V. */
static bool joins_products(const compiled *c, const plan_op *first, const plan_op *op)
{
    return is_plain_product(c, first) && is_plain_product(c, op) && first->i0 == op->i0;
}

/* (i1 + rms(i0)) * scale, then the norm of that. */
static bool joins_norms(const compiled *c, const plan_op *first, const plan_op *op)
{
    return first->kind == OP_NORM_ADD && op->kind == OP_NORM && first->group == 0 && op->group == 0 &&
           op->i0 == first->o && c->p->values[op->o].rows == c->p->values[first->o].rows;
}

/* Queries, then keys and values of the same rows by the same rotation. */
static bool joins_heads(const compiled *c, const plan_op *first, const plan_op *op)
{
    return first->kind == OP_ROPE_Q && op->kind == OP_KV_WRITE && first->inv_freq == op->inv_freq &&
           first->n_rot == op->n_rot && first->eps == op->eps && first->head_dim == op->head_dim &&
           c->p->values[first->i0].rows == c->p->values[op->i0].rows;
}

static bool joins(const compiled *c, int first, int op)
{
    const plan_op *a = &c->p->ops[first], *b = &c->p->ops[op];
    if (joins_products(c, a, b)) return true;
    return op == first + 1 && (joins_norms(c, a, b) || joins_heads(c, a, b));
}

facet_status cuda_join_ops(compiled *c, facet_error *err)
{
    const int n = c->p->n_ops;
    c->covers = mem_calloc((size_t)n + 1, sizeof *c->covers);
    if (!c->covers) return error_memory(err, "a compiled plan", (size_t)n * sizeof *c->covers);
    for (int i = 0, k; i < n; i += k) {
        k = 1;
        while (k < MAX_JOINED && i + k < n && joins(c, i, i + k)) k++;
        c->covers[i] = (uint8_t)k;
    }
    return FACET_OK;
}

static void extend(plan_value *values, int value, int first, int last)
{
    if (value < 0) return;
    if (values[value].first_op > first) values[value].first_op = first;
    if (values[value].last_op < last) values[value].last_op = last;
}

facet_status cuda_layout(const compiled *c, size_t *offsets, size_t *total, facet_error *err)
{
    const plan *p = c->p;
    plan_value *values = mem_alloc((size_t)p->n_values * sizeof *values + 1);
    if (!values) return error_memory(err, "the layout of a plan", (size_t)p->n_values * sizeof *values);
    for (int i = 0; i < p->n_values; i++) values[i] = p->values[i];
    for (int i = 0; i < p->n_ops; i++)
        for (int k = 0; k < c->covers[i]; k++) {
            extend(values, p->ops[i + k].i0, i, i + c->covers[i] - 1);
            extend(values, p->ops[i + k].i1, i, i + c->covers[i] - 1);
            extend(values, p->ops[i + k].o, i, i + c->covers[i] - 1);
        }
    for (int i = 0; i < p->n_ops; i++) {
        if (c->moe_block_of[i] < 0) continue;
        const moe_block *m = &c->moe_blocks[c->moe_block_of[i]];
        const int first = m->dense_gated, last = m->next_norm >= 0 ? m->next_norm : m->norm_add;
        extend(values, p->ops[i].i0, first, last);
        extend(values, p->ops[i].i1, first, last);
        extend(values, p->ops[i].o, first, last);
    }
    plan longer = *p;
    longer.values = values;
    facet_status status = plan_layout(&longer, c->max_rows, c->max_out, offsets, total, err);
    mem_free(values);
    return status;
}
