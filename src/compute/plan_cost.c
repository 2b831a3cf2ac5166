#include "compute/plan_cost.h"

#include <math.h>

static double rows_of(const plan *p, int value, int n_rows, int n_out)
{
    return p->values[value].rows == ROWS_ALL ? n_rows : n_out;
}

static void add_product(op_cost *c, const weight *w, double rows)
{
    if (rows < 1) return;
    c->bytes += (double)w->bytes;
    c->ops += 2.0 * rows * (double)w->ne[0] * (double)w->ne[1];
}

/* Expected share of n experts that `rows` rows with n_used different ones each touch. */
static double share_of_experts(int n, int n_used, double rows)
{
    return 1 - pow(1 - (double)n_used / n, rows);
}

static void add_experts(op_cost *c, const plan_op *op, const weight *w, double rows)
{
    c->bytes += (double)w->bytes * share_of_experts(op->n_experts, op->n_used, rows);
    c->ops += 2.0 * rows * op->n_used * (double)w->ne[0] * (double)w->ne[1];
}

/* Keys that the rows see together (bytes) and one by one (operations). */
static void add_attention(op_cost *c, const plan_op *op, const kv_desc *kv, double rows, int32_t depth)
{
    const kv_layer_desc *l = &kv->layers[op->kv_layer];
    const double window = op->window > 0 ? (double)op->window : (double)INFINITY;
    const double slot_bytes = (double)kv_layer_page_bytes(l) / KV_PAGE_LEN;
    c->bytes += fmin(depth + rows, window + rows) * slot_bytes;
    c->ops += 4.0 * rows * fmin(depth + (rows + 1) / 2, window) * op->n_heads * op->head_dim;
}

op_cost plan_op_cost(const plan *p, const weight *weights, const kv_desc *kv, const plan_op *op, int n_rows, int n_out,
                     int32_t depth)
{
    op_cost c = {0};
    if (op->o < 0 && op->kind != OP_KV_WRITE) return c;
    const double rows = rows_of(p, op->o >= 0 ? op->o : op->i0, n_rows, n_out);
    switch (op->kind) {
    case OP_EMBED: c.bytes = rows * (double)type_bytes(type_get(weights[op->w0].type), weights[op->w0].ne[0]); break;
    case OP_LINEAR: add_product(&c, &weights[op->w0], rows); break;
    case OP_GATED:
        add_product(&c, &weights[op->w0], rows);
        add_product(&c, &weights[op->w1], rows);
        break;
    case OP_MOE_ROUTE: add_product(&c, &weights[op->w0], rows); break;
    case OP_MOE_GATED:
        add_experts(&c, op, &weights[op->w0], rows);
        if (op->w1 >= 0) add_experts(&c, op, &weights[op->w1], rows);
        break;
    case OP_MOE_DOWN: add_experts(&c, op, &weights[op->w0], rows); break;
    case OP_CENTROIDS:
        c.bytes =
            rows * op->n_used * op->group * (double)type_bytes(type_get(weights[op->w0].type), weights[op->w0].ne[0]);
        c.ops = 2.0 * rows * op->n_used * op->group * (double)weights[op->w0].ne[0];
        break;
    case OP_ATTN: add_attention(&c, op, kv, rows, depth); break;
    default: break;
    }
    return c;
}

op_cost plan_cost(const plan *p, const weight *weights, const kv_desc *kv, int n_rows, int n_out, int32_t depth)
{
    op_cost sum = {0};
    for (int i = 0; i < p->n_ops; i++) {
        const op_cost c = plan_op_cost(p, weights, kv, &p->ops[i], n_rows, n_out, depth);
        sum.bytes += c.bytes;
        sum.ops += c.ops;
    }
    return sum;
}
