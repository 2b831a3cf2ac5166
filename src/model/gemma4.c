#include "model/gemma4.h"

#include <math.h>

#include "base/mem.h"
#include "model/graph.h"

/* What the builder carries from layer to layer. */
typedef struct builder {
    graph g; /* its rows become ROWS_OUT at the gather */
    const hparams *h;
    const gemma4_options *o;
    rotation rotations[2]; /* [is_local] */
    int ple;               /* per-layer inputs of all layers, -1 without */
} builder;

/* Equations 2 to 5: the per-layer inputs of all layers, computed once. */
static int per_layer_inputs(builder *b, int x)
{
    const hparams *h = b->h;
    const uint32_t width = h->n_embd_per_layer * (uint32_t)h->n_layers;
    const graph *g = &b->g;
    int e = graph_embed(g, g->w->ple_embd, -1, sqrtf((float)h->n_embd_per_layer), "ple_embd");
    int q = graph_linear(g, x, g->w->ple_proj, "ple_proj", -1);
    if (!g->p->failed) g->p->ops[g->p->n_ops - 1].scale *= 1.0f / sqrtf((float)h->n_embd);
    int n = graph_norm(g, q, g->w->ple_proj_norm, width, "ple_norm", -1);
    if (!g->p->failed) g->p->ops[g->p->n_ops - 1].group = h->n_embd_per_layer;
    return graph_add(g, n, e, 1.0f / sqrtf(2.0f), width, "ple", -1);
}

static void set_heads(const builder *b, plan_op *op, int l)
{
    const layer_hparams *y = &b->h->layers[l];
    graph_rotate(op, &b->rotations[y->is_local]);
    op->n_heads = b->h->n_heads;
    op->n_kv_heads = y->n_kv_heads;
    op->eps = b->h->norm_eps;
    op->kv_layer = gemma4_kv_layer(b->h, l);
    op->window = y->is_local ? b->h->window : 0;
}

/* Equations 6 to 16. */
static int attention(builder *b, int x, int l)
{
    const layer_hparams *y = &b->h->layers[l];
    const layer_weights *w = &b->g.w->layers[l];
    const uint32_t n_q = (uint32_t)(b->h->n_heads * y->head_dim);
    int a = graph_norm(&b->g, x, w->attn_norm, b->h->n_embd, "attn_norm", l);
    int q = graph_linear(&b->g, a, w->q, "q", l);
    int k = w->k < 0 ? -1 : graph_linear(&b->g, a, w->k, "k", l);
    int v = w->v < 0 ? k : graph_linear(&b->g, a, w->v, "v", l);
    int qr = graph_value(&b->g, n_q, "q_rope", l);
    plan_op *op = plan_add(b->g.p, OP_ROPE_Q, l);
    set_heads(b, op, l);
    op->i0 = q;
    op->w0 = w->q_norm;
    op->o = qr;
    if (y->kv_source == l) {
        op = plan_add(b->g.p, OP_KV_WRITE, l);
        set_heads(b, op, l);
        op->i0 = k;
        op->i1 = v;
        op->w0 = w->k_norm;
        op->has_v_norm = true;
    }
    int o = graph_value(&b->g, n_q, "attn", l);
    op = plan_add(b->g.p, OP_ATTN, l);
    set_heads(b, op, l);
    op->i0 = qr;
    op->o = o;
    op->w0 = b->g.w->layers[y->kv_source].v < 0 ? b->g.w->layers[y->kv_source].k_norm : -1;
    op->attn_scale = 1.0f;
    if (!y->is_local && sparse_is_on(&b->o->sparse)) op->sparse = &b->g.p->sparse;
    int out = graph_linear(&b->g, o, w->attn_out, "attn_out", l);
    return graph_norm_add(&b->g, out, x, w->post_attn_norm, b->h->n_embd, 1.0f, "r", l);
}

/* gelu(gate m) * (up m), then down: equation 17 without its norms. */
static int dense_feed_forward(builder *b, int m, int l)
{
    const layer_weights *w = &b->g.w->layers[l];
    int g = graph_gated(&b->g, m, w->gate, w->up, ACT_GELU, "ffn_gated", l);
    return graph_linear(&b->g, g, w->down, "ffn_down", l);
}

/* Equations 17a to 17d: the sum of the normed dense and expert branches. */
static int moe_feed_forward(builder *b, int r, int dense, int l)
{
    const hparams *h = b->h;
    const layer_weights *w = &b->g.w->layers[l];
    int f1 = graph_norm(&b->g, dense, w->post_dense_norm, h->n_embd, "dense", l);
    int route = graph_value(&b->g, (uint32_t)(2 * h->n_experts_used), "route", l);
    plan_op *op = plan_add(b->g.p, OP_MOE_ROUTE, l);
    op->i0 = r;
    op->o = route;
    op->w0 = w->router;
    op->w1 = w->router_scale;
    op->w2 = w->expert_down_scale;
    op->scale = 1.0f / sqrtf((float)h->n_embd);
    op->eps = h->norm_eps;
    op->n_experts = h->n_experts;
    op->n_used = h->n_experts_used;
    int v = graph_norm(&b->g, r, w->expert_norm, h->n_embd, "expert_in", l);
    int g = graph_value(&b->g, (uint32_t)h->n_experts_used * h->n_ff_expert, "expert_gated", l);
    op = plan_add(b->g.p, OP_MOE_GATED, l);
    op->i0 = v;
    op->i1 = route;
    op->o = g;
    op->w0 = w->expert_gate;
    op->w1 = w->expert_up;
    op->w2 = w->expert_gate_scale;
    op->activation = ACT_GELU;
    op->n_experts = h->n_experts;
    op->n_used = h->n_experts_used;
    op->n_ff = (int)h->n_ff_expert;
    int d = graph_value(&b->g, h->n_embd, "expert_down", l);
    op = plan_add(b->g.p, OP_MOE_DOWN, l);
    op->i0 = g;
    op->i1 = route;
    op->o = d;
    op->w0 = w->expert_down;
    op->n_experts = h->n_experts;
    op->n_used = h->n_experts_used;
    op->n_ff = (int)h->n_ff_expert;
    int f2 = graph_norm(&b->g, d, w->post_expert_norm, h->n_embd, "experts", l);
    return graph_add(&b->g, f1, f2, 1.0f, h->n_embd, "ffn_sum", l);
}

/* Equations 17 to 21. */
static int feed_forward(builder *b, int r, int l)
{
    const hparams *h = b->h;
    const layer_weights *w = &b->g.w->layers[l];
    const bool has_ple = w->ple_gate >= 0;
    int m = graph_norm(&b->g, r, w->ffn_norm, h->n_embd, "ffn_norm", l);
    int f = dense_feed_forward(b, m, l);
    if (w->router >= 0) f = moe_feed_forward(b, r, f, l);
    int z = graph_norm_add(&b->g, f, r, w->post_ffn_norm, b->h->n_embd, has_ple ? 1.0f : w->out_scale, "z", l);
    if (!has_ple) return z;
    int c = graph_linear(&b->g, z, w->ple_gate, "ple_gated", l);
    if (!b->g.p->failed) {
        plan_op *op = &b->g.p->ops[b->g.p->n_ops - 1];
        op->epilogue = EPI_GELU_MUL;
        op->i1 = b->ple;
        op->column = (uint32_t)l * h->n_embd_per_layer;
    }
    int p = graph_linear(&b->g, c, w->ple_proj, "ple_out", l);
    return graph_norm_add(&b->g, p, z, w->ple_norm, b->h->n_embd, w->out_scale, "x", l);
}

/* Equations 22 to 25. */
static void head(builder *b, int x)
{
    const graph *g = &b->g;
    plan *p = g->p;
    int n = graph_norm(g, x, g->w->output_norm, b->h->n_embd, "hidden", -1);
    if (b->o->wants_hidden) p->v_hidden = graph_capture(g, n, b->h->n_embd, "hidden_out", -1);
    int logits = graph_logits(g, n, g->w->output, b->h->softcap, true);
    int best = plan_value_new(p, ROWS_OUT, VALUE_I32, 1, true, "argmax");
    plan_op *op = plan_add(p, OP_ARGMAX, -1);
    op->i0 = logits;
    op->o = best;
    p->v_argmax = best;
}

/* Global layers divide the frequency; without divisors the first quarter of their pairs turns. */
rotation gemma4_global_rotation(const graph *g, const hparams *h, const weights *w)
{
    return graph_rotation(g, h->head_dim_global, h->rope_base_global, w->rope_divisors, h->head_dim_global / 8);
}

/* Local layers turn every pair. */
static void set_rotations(builder *b)
{
    const hparams *h = b->h;
    b->rotations[0] = gemma4_global_rotation(&b->g, h, b->g.w);
    b->rotations[1] = graph_rotation(&b->g, h->head_dim_local, h->rope_base_local, NULL, h->head_dim_local / 2);
}

static bool is_captured(const gemma4_options *o, int l)
{
    for (int i = 0; i < o->n_captures; i++)
        if (o->capture_layer[i] == l) return true;
    return o->keep_layers;
}

/* The layer before which the unwanted rows are dropped. */
static int gather_layer(const builder *b)
{
    int at = b->h->first_shared;
    for (int l = at; l < b->h->n_layers; l++)
        if (is_captured(b->o, l)) at = l + 1;
    return at;
}

static void build(builder *b)
{
    const hparams *h = b->h;
    const int drop = gather_layer(b);
    int x = graph_embed(&b->g, b->g.w->token_embd, -1, sqrtf((float)h->n_embd), "x");
    if (b->o->keep_layers) graph_capture(&b->g, x, h->n_embd, "embd_out", -1);
    b->ple = h->n_embd_per_layer ? per_layer_inputs(b, x) : -1;
    for (int l = 0; l <= h->n_layers; l++) {
        if (l == drop) {
            x = graph_gather(&b->g, x, h->n_embd, "x_out", l);
            if (b->ple >= 0 && l < h->n_layers)
                b->ple = graph_gather(&b->g, b->ple, h->n_embd_per_layer * (uint32_t)h->n_layers, "ple_out", l);
            b->g.rows = ROWS_OUT;
        }
        if (l == h->n_layers) break;
        x = feed_forward(b, attention(b, x, l), l);
        if (is_captured(b->o, l)) {
            int c = graph_capture(&b->g, x, h->n_embd, "layer_out", l);
            if (!b->o->keep_layers) b->g.p->v_capture[b->g.p->n_captures++] = c;
        }
    }
    head(b, x);
}

static facet_status check_captures(const hparams *h, const gemma4_options *o, facet_error *err)
{
    for (int i = 0; i < o->n_captures; i++)
        if (o->capture_layer[i] < 0 || o->capture_layer[i] >= h->n_layers ||
            (i && o->capture_layer[i] <= o->capture_layer[i - 1]))
            return error_set(err, FACET_ERR_ARG, "capture layer %d: wanted ascending layers below %d",
                             o->capture_layer[i], h->n_layers);
    return FACET_OK;
}

facet_status gemma4_plan(const hparams *h, const weights *w, const gemma4_options *o, const int32_t *suppress,
                         int n_suppress, plan **out, facet_error *err)
{
    FACET_TRY(check_captures(h, o, err));
    plan *p;
    FACET_TRY(plan_new("gemma4", &p, err));
    builder b = {.g = {.p = p, .w = w, .eps = h->norm_eps, .rows = ROWS_ALL}, .h = h, .o = o, .ple = -1};
    p->sparse = o->sparse;
    plan_keep_suppress(p, suppress, n_suppress);
    set_rotations(&b);
    build(&b);
    facet_status status = plan_finish(p, err);
    if (status != FACET_OK) {
        plan_free(p);
        return status;
    }
    *out = p;
    return FACET_OK;
}

int gemma4_kv_layer(const hparams *h, int layer)
{
    /* Layers with a cache are the first ones, so a layer's number is its cache's. */
    return h->layers[layer].kv_source;
}

facet_status gemma4_kv_desc(const hparams *h, kv_type k, kv_type v, kv_desc *out, facet_error *err)
{
    const int n = h->first_shared;
    kv_layer_desc *layers = mem_calloc((size_t)n, sizeof *layers);
    if (!layers) return error_memory(err, "the cache layout", (size_t)n * sizeof *layers);
    for (int l = 0; l < n; l++)
        layers[l] = (kv_layer_desc){.group = h->layers[l].is_local,
                                    .n_kv_heads = h->layers[l].n_kv_heads,
                                    .head_dim = h->layers[l].head_dim,
                                    .k_type = k,
                                    .v_type = v};
    *out = (kv_desc){.n_groups = 2, .n_layers = n, .layers = layers};
    out->groups[1].window = h->window;
    return FACET_OK;
}

static bool can_rebuild(const hparams *h, const weights *w, int layer)
{
    return !h->layers[layer].is_local && w->layers[layer].v < 0;
}

int gemma4_n_rebuilds(const hparams *h, const weights *w)
{
    int n = 0;
    for (int l = 0; l < h->first_shared; l++) n += can_rebuild(h, w, l);
    return n;
}

void gemma4_rebuild_keys(const hparams *h, const weights *w, kv_desc *d)
{
    for (int l = 0; l < h->first_shared; l++)
        if (can_rebuild(h, w, l)) kv_layer_rebuild_k(&d->layers[l]);
}
