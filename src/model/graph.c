#include "model/graph.h"

#include <math.h>

int graph_value(const graph *g, uint32_t width, const char *name, int layer)
{
    return plan_value_new(g->p, g->rows, VALUE_F32, width, false, layer < 0 ? "%s" : "%s.%d", name, layer);
}

int graph_weight(const graph *g, int w)
{
    return w < 0 ? -1 : g->first + w;
}

static plan_op *append(const graph *g, op_kind kind, int x, int o, int layer)
{
    plan_op *op = plan_add(g->p, kind, layer);
    op->i0 = x;
    op->o = o;
    op->eps = g->eps;
    return op;
}

int graph_embed(const graph *g, int w, int ids, float scale, const char *name)
{
    int o = graph_value(g, (uint32_t)g->w->list[w].ne[0], name, -1);
    plan_op *op = append(g, OP_EMBED, ids, o, -1);
    op->w0 = graph_weight(g, w);
    op->scale = scale;
    return o;
}

int graph_norm(const graph *g, int x, int w, uint32_t width, const char *name, int layer)
{
    int o = graph_value(g, width, name, layer);
    append(g, OP_NORM, x, o, layer)->w0 = graph_weight(g, w);
    return o;
}

int graph_norm_add(const graph *g, int x, int residual, int w, uint32_t width, float scale, const char *name, int layer)
{
    int o = graph_value(g, width, name, layer);
    plan_op *op = append(g, OP_NORM_ADD, x, o, layer);
    op->i1 = residual;
    op->w0 = graph_weight(g, w);
    op->scale = scale;
    return o;
}

int graph_add(const graph *g, int x, int y, float scale, uint32_t width, const char *name, int layer)
{
    int o = graph_value(g, width, name, layer);
    plan_op *op = append(g, OP_ADD, x, o, layer);
    op->i1 = y;
    op->scale = scale;
    return o;
}

int graph_linear(const graph *g, int x, int w, const char *name, int layer)
{
    int o = graph_value(g, (uint32_t)g->w->list[w].ne[1], name, layer);
    plan_op *op = append(g, OP_LINEAR, x, o, layer);
    op->w0 = graph_weight(g, w);
    op->scale = g->w->scale[w];
    return o;
}

int graph_gated(const graph *g, int x, int gate, int up, op_activation act, const char *name, int layer)
{
    int o = graph_value(g, (uint32_t)g->w->list[gate].ne[1], name, layer);
    plan_op *op = append(g, OP_GATED, x, o, layer);
    op->w0 = graph_weight(g, gate);
    op->w1 = graph_weight(g, up);
    op->scale = g->w->scale[gate];
    op->scale2 = g->w->scale[up];
    op->activation = act;
    return o;
}

int graph_concat(const graph *g, int x, int y, uint32_t width, const char *name)
{
    int o = graph_value(g, width, name, -1);
    append(g, OP_CONCAT, x, o, -1)->i1 = y;
    return o;
}

int graph_gather(const graph *g, int x, uint32_t width, const char *name, int layer)
{
    int o = plan_value_new(g->p, ROWS_OUT, VALUE_F32, width, false, layer < 0 ? "%s" : "%s.%d", name, layer);
    append(g, OP_GATHER, x, o, layer);
    return o;
}

int graph_capture(const graph *g, int x, uint32_t width, const char *name, int layer)
{
    int o = plan_value_new(g->p, g->rows, VALUE_F32, width, true, layer < 0 ? "%s" : "%s.%d", name, layer);
    append(g, OP_CAPTURE, x, o, layer);
    return o;
}

int graph_output(const graph *g, int v)
{
    if (!g->p->failed) g->p->values[v].is_output = true;
    return v;
}

int graph_logits(const graph *g, int x, int w, float softcap, bool is_output)
{
    int o = plan_value_new(g->p, g->rows, VALUE_F32, (uint32_t)g->w->list[w].ne[1], is_output, "logits");
    plan_op *op = append(g, OP_LINEAR, x, o, -1);
    op->w0 = graph_weight(g, w);
    op->scale = g->w->scale[w];
    op->epilogue = EPI_LOGITS;
    op->softcap = softcap;
    if (is_output) g->p->v_logits = o;
    return o;
}

void graph_top_k(const graph *g, int logits, int k, float temp)
{
    plan *p = g->p;
    p->v_top_ids = plan_value_new(p, g->rows, VALUE_I32, (uint32_t)k, true, "top_ids");
    p->v_top_logp = plan_value_new(p, g->rows, VALUE_F32, (uint32_t)k, true, "top_logp");
    plan_op *op = append(g, OP_TOPK, logits, p->v_top_ids, -1);
    op->o2 = p->v_top_logp;
    op->n_used = k;
    op->temp = temp;
}

rotation graph_rotation(const graph *g, int head_dim, double base, const float *divisors, int turning)
{
    rotation r = {.head_dim = head_dim};
    double f[2048];
    for (int i = 0; i < head_dim / 2; i++) {
        const double divisor = divisors ? (double)divisors[i] : i < turning ? 1 : 1e30;
        f[i] = divisor < 1e20 ? pow(base, -2.0 * i / head_dim) / divisor : 0;
        if (f[i] != 0) r.n_rot = i + 1;
    }
    r.inv_freq = plan_keep_freqs(g->p, f, head_dim / 2);
    return r;
}

void graph_rotate(plan_op *op, const rotation *r)
{
    op->head_dim = r->head_dim;
    op->n_rot = r->n_rot;
    op->inv_freq = r->inv_freq;
}
