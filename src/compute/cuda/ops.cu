/* ops.cu: the table of op kinds. */
#include "compute/cuda/ops.cuh"

typedef struct op_entry {
    facet_status (*check)(const compiled *c, const plan_op *op, facet_error *err);
    void (*launch)(const cuda_pass *p, const plan_op *op);
    int n_inputs;
    bool has_output;
} op_entry;

static op_entry entry_of(op_kind kind)
{
    switch (kind) {
    case OP_EMBED: return {check_embed, launch_embed, 0, true};
    case OP_NORM: return {check_norm, launch_norm, 1, true};
    case OP_NORM_ADD: return {check_norm_add, launch_norm_add, 2, true};
    case OP_ADD: return {check_add, launch_add, 2, true};
    case OP_LINEAR: return {check_linear, launch_linear, 1, true};
    case OP_GATED: return {check_gated, launch_gated, 1, true};
    case OP_ROPE_Q: return {check_rope_q, launch_rope_q, 1, true};
    case OP_KV_WRITE: return {check_kv_write, launch_kv_write, 2, false};
    case OP_ATTN: return {check_attn, launch_attn, 1, true};
    case OP_MOE_ROUTE: return {check_moe_route, launch_moe_route, 1, true};
    case OP_MOE_GATED: return {check_moe_gated, launch_moe_gated, 2, true};
    case OP_MOE_DOWN: return {check_moe_down, launch_moe_down, 2, true};
    case OP_GATHER: return {check_gather, launch_gather, 1, true};
    case OP_CAPTURE: return {check_capture, launch_capture, 1, true};
    case OP_ARGMAX: return {check_argmax, launch_argmax, 1, true};
    case OP_CONCAT: return {check_concat, launch_concat, 2, true};
    case OP_TOPK: return {check_topk, launch_topk, 1, true};
    case OP_CENTROIDS: return {check_centroids, launch_centroids, 2, true};
    case OP_KIND_COUNT: break;
    }
    return {NULL, NULL, 0, false};
}

facet_status op_expect(const compiled *c, const plan_op *op, bool ok, const char *fact, facet_error *err)
{
    if (ok) return FACET_OK;
    return error_set(err, FACET_ERR_SHAPE, "plan %s: op %d (%s, layer %d): wanted: %s", c->p->name,
                     (int)(op - c->p->ops), op_kind_name(op->kind), op->layer, fact);
}

bool op_has_vector(const compiled *c, int w, uint32_t n)
{
    if (w < 0) return true;
    if (w >= c->b->n_weights) return false;
    const dev_weight *d = &c->b->weights[w];
    return d->data && d->type == TYPE_F32 && d->n_in == n && d->n_out == 1 && d->n_experts == 1;
}

bool op_has_matrix(const compiled *c, int w, uint32_t n_in, uint32_t n_out, uint32_t n_experts)
{
    if (w < 0 || w >= c->b->n_weights) return false;
    const dev_weight *d = &c->b->weights[w];
    return d->data && d->n_in == n_in && d->n_out == n_out && d->n_experts == n_experts;
}

bool op_is_raw(const compiled *c, int w)
{
    return w < 0 || c->b->weights[w].record_bytes == 0;
}

bool op_same_rows(const compiled *c, int a, int b)
{
    return a >= 0 && b >= 0 && c->p->values[a].rows == c->p->values[b].rows;
}

static bool is_value(const compiled *c, int value)
{
    return value >= 0 && value < c->p->n_values;
}

facet_status cuda_op_check(const compiled *c, int index, facet_error *err)
{
    const plan_op *op = &c->p->ops[index];
    op_entry e = entry_of(op->kind);
    FACET_TRY(op_expect(c, op, e.check != NULL, "an op kind that this backend knows", err));
    FACET_TRY(op_expect(c, op, e.n_inputs < 1 || is_value(c, op->i0), "a first input", err));
    FACET_TRY(op_expect(c, op, e.n_inputs < 2 || is_value(c, op->i1), "a second input", err));
    FACET_TRY(op_expect(c, op, op->i1 < c->p->n_values, "a second input of this plan", err));
    FACET_TRY(op_expect(c, op, !e.has_output || is_value(c, op->o), "an output", err));
    FACET_TRY(op_expect(c, op, op->w0 < c->b->n_weights, "a weight that was loaded", err));
    return e.check(c, op, err);
}

void cuda_op_launch(const cuda_pass *pass, int index)
{
    const plan_op *op = &pass->c->p->ops[index];
    op_entry e = entry_of(op->kind);
    if (pass->c->covers[index] == 0) return;
    int rows_of = e.has_output ? op->o : op->i0;
    if (view_of(pass, rows_of).n > 0) e.launch(pass, op);
}
