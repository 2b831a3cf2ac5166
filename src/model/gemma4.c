#include "model/gemma4.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

/* What the builder carries from layer to layer. */
typedef struct builder {
    plan *p;
    const hparams *h;
    const weights *w;
    const gemma4_options *o;
    row_set rows;           /* of the values made now; becomes ROWS_OUT at the gather */
    const double *freqs[2]; /* inverse frequencies, [is_local] */
    int n_rot[2];
    int ple; /* per-layer inputs of all layers, -1 without */
} builder;

static int value(builder *b, uint32_t width, const char *name, int layer)
{
    return layer < 0 ? plan_value_new(b->p, b->rows, VALUE_F32, width, false, "%s", name)
                     : plan_value_new(b->p, b->rows, VALUE_F32, width, false, "%s.%d", name, layer);
}

static int norm(builder *b, int x, int w, uint32_t width, const char *name, int l)
{
    int o = value(b, width, name, l);
    plan_op *op = plan_add(b->p, OP_NORM, l);
    op->i0 = x;
    op->w0 = w;
    op->o = o;
    op->eps = b->h->norm_eps;
    return o;
}

/* (residual + rms(x; w)) * scale */
static int norm_add(builder *b, int x, int residual, int w, float scale, const char *name, int l)
{
    int o = value(b, b->h->n_embd, name, l);
    plan_op *op = plan_add(b->p, OP_NORM_ADD, l);
    op->i0 = x;
    op->i1 = residual;
    op->w0 = w;
    op->o = o;
    op->scale = scale;
    op->eps = b->h->norm_eps;
    return o;
}

static int add(builder *b, int x, int y, float scale, uint32_t width, const char *name, int l)
{
    int o = value(b, width, name, l);
    plan_op *op = plan_add(b->p, OP_ADD, l);
    op->i0 = x;
    op->i1 = y;
    op->o = o;
    op->scale = scale;
    return o;
}

static int linear(builder *b, int x, int w, const char *name, int l)
{
    int o = value(b, (uint32_t)b->w->list[w].ne[1], name, l);
    plan_op *op = plan_add(b->p, OP_LINEAR, l);
    op->i0 = x;
    op->w0 = w;
    op->o = o;
    op->scale = b->w->scale[w];
    return o;
}

static int embed(builder *b, int w, float scale, const char *name)
{
    int o = value(b, (uint32_t)b->w->list[w].ne[0], name, -1);
    plan_op *op = plan_add(b->p, OP_EMBED, -1);
    op->w0 = w;
    op->o = o;
    op->scale = scale;
    return o;
}

static int gather(builder *b, int x, uint32_t width, const char *name, int l)
{
    int o = l < 0 ? plan_value_new(b->p, ROWS_OUT, VALUE_F32, width, false, "%s", name)
                  : plan_value_new(b->p, ROWS_OUT, VALUE_F32, width, false, "%s.%d", name, l);
    plan_op *op = plan_add(b->p, OP_GATHER, l);
    op->i0 = x;
    op->o = o;
    return o;
}

static int capture(builder *b, int x, uint32_t width, const char *name, int l)
{
    int o = plan_value_new(b->p, b->rows, VALUE_F32, width, true, l < 0 ? "%s" : "%s.%d", name, l);
    plan_op *op = plan_add(b->p, OP_CAPTURE, l);
    op->i0 = x;
    op->o = o;
    return o;
}

/* Equations 2 to 5: the per-layer inputs of all layers, computed once. */
static int per_layer_inputs(builder *b, int x)
{
    const hparams *h = b->h;
    const uint32_t width = h->n_embd_per_layer * (uint32_t)h->n_layers;
    int e = embed(b, b->w->ple_embd, sqrtf((float)h->n_embd_per_layer), "ple_embd");
    int q = linear(b, x, b->w->ple_proj, "ple_proj", -1);
    if (!b->p->failed) b->p->ops[b->p->n_ops - 1].scale *= 1.0f / sqrtf((float)h->n_embd);
    int n = norm(b, q, b->w->ple_proj_norm, width, "ple_norm", -1);
    if (!b->p->failed) b->p->ops[b->p->n_ops - 1].group = h->n_embd_per_layer;
    return add(b, n, e, 1.0f / sqrtf(2.0f), width, "ple", -1);
}

static void rotation(const builder *b, plan_op *op, int l)
{
    const layer_hparams *y = &b->h->layers[l];
    op->head_dim = y->head_dim;
    op->n_heads = b->h->n_heads;
    op->n_kv_heads = y->n_kv_heads;
    op->inv_freq = b->freqs[y->is_local];
    op->n_rot = b->n_rot[y->is_local];
    op->eps = b->h->norm_eps;
    op->kv_layer = gemma4_kv_layer(b->h, l);
    op->window = y->is_local ? b->h->window : 0;
}

/* Equations 6 to 16. */
static int attention(builder *b, int x, int l)
{
    const layer_hparams *y = &b->h->layers[l];
    const layer_weights *w = &b->w->layers[l];
    const uint32_t n_q = (uint32_t)(b->h->n_heads * y->head_dim);
    int a = norm(b, x, w->attn_norm, b->h->n_embd, "attn_norm", l);
    int q = linear(b, a, w->q, "q", l);
    int k = w->k < 0 ? -1 : linear(b, a, w->k, "k", l);
    int v = w->v < 0 ? k : linear(b, a, w->v, "v", l);
    int qr = value(b, n_q, "q_rope", l);
    plan_op *op = plan_add(b->p, OP_ROPE_Q, l);
    rotation(b, op, l);
    op->i0 = q;
    op->w0 = w->q_norm;
    op->o = qr;
    if (y->kv_source == l) {
        op = plan_add(b->p, OP_KV_WRITE, l);
        rotation(b, op, l);
        op->i0 = k;
        op->i1 = v;
        op->w0 = w->k_norm;
        op->has_v_norm = true;
    }
    int o = value(b, n_q, "attn", l);
    op = plan_add(b->p, OP_ATTN, l);
    rotation(b, op, l);
    op->i0 = qr;
    op->o = o;
    op->attn_scale = 1.0f;
    int out = linear(b, o, w->attn_out, "attn_out", l);
    return norm_add(b, out, x, w->post_attn_norm, 1.0f, "r", l);
}

/* gelu(gate m) * (up m), then down: equation 17 without its norms. */
static int dense_feed_forward(builder *b, int m, int l)
{
    const layer_weights *w = &b->w->layers[l];
    int g = value(b, b->h->layers[l].n_ff, "ffn_gated", l);
    plan_op *op = plan_add(b->p, OP_GATED, l);
    op->i0 = m;
    op->w0 = w->gate;
    op->w1 = w->up;
    op->o = g;
    op->scale = b->w->scale[w->gate];
    op->scale2 = b->w->scale[w->up];
    op->activation = ACT_GELU;
    return linear(b, g, w->down, "ffn_down", l);
}

/* Equations 17a to 17d: the sum of the normed dense and expert branches. */
static int moe_feed_forward(builder *b, int r, int dense, int l)
{
    const hparams *h = b->h;
    const layer_weights *w = &b->w->layers[l];
    int f1 = norm(b, dense, w->post_dense_norm, h->n_embd, "dense", l);
    int route = value(b, (uint32_t)(2 * h->n_experts_used), "route", l);
    plan_op *op = plan_add(b->p, OP_MOE_ROUTE, l);
    op->i0 = r;
    op->o = route;
    op->w0 = w->router;
    op->w1 = w->router_scale;
    op->w2 = w->expert_down_scale;
    op->scale = 1.0f / sqrtf((float)h->n_embd);
    op->eps = h->norm_eps;
    op->n_experts = h->n_experts;
    op->n_used = h->n_experts_used;
    int v = norm(b, r, w->expert_norm, h->n_embd, "expert_in", l);
    int g = value(b, (uint32_t)h->n_experts_used * h->n_ff_expert, "expert_gated", l);
    op = plan_add(b->p, OP_MOE_GATED, l);
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
    int d = value(b, h->n_embd, "expert_down", l);
    op = plan_add(b->p, OP_MOE_DOWN, l);
    op->i0 = g;
    op->i1 = route;
    op->o = d;
    op->w0 = w->expert_down;
    op->n_experts = h->n_experts;
    op->n_used = h->n_experts_used;
    op->n_ff = (int)h->n_ff_expert;
    int f2 = norm(b, d, w->post_expert_norm, h->n_embd, "experts", l);
    return add(b, f1, f2, 1.0f, h->n_embd, "ffn_sum", l);
}

/* Equations 17 to 21. */
static int feed_forward(builder *b, int r, int l)
{
    const hparams *h = b->h;
    const layer_weights *w = &b->w->layers[l];
    const bool has_ple = w->ple_gate >= 0;
    int m = norm(b, r, w->ffn_norm, h->n_embd, "ffn_norm", l);
    int f = dense_feed_forward(b, m, l);
    if (w->router >= 0) f = moe_feed_forward(b, r, f, l);
    int z = norm_add(b, f, r, w->post_ffn_norm, has_ple ? 1.0f : w->out_scale, "z", l);
    if (!has_ple) return z;
    int c = linear(b, z, w->ple_gate, "ple_gated", l);
    if (!b->p->failed) {
        plan_op *op = &b->p->ops[b->p->n_ops - 1];
        op->epilogue = EPI_GELU_MUL;
        op->i1 = b->ple;
        op->column = (uint32_t)l * h->n_embd_per_layer;
    }
    int p = linear(b, c, w->ple_proj, "ple_out", l);
    return norm_add(b, p, z, w->ple_norm, w->out_scale, "x", l);
}

/* Equations 22 to 25. */
static void head(builder *b, int x)
{
    plan *p = b->p;
    int n = norm(b, x, b->w->output_norm, b->h->n_embd, "hidden", -1);
    if (b->o->wants_hidden) p->v_hidden = capture(b, n, b->h->n_embd, "hidden_out", -1);
    int logits = plan_value_new(p, ROWS_OUT, VALUE_F32, b->h->n_vocab, true, "logits");
    plan_op *op = plan_add(p, OP_LINEAR, -1);
    op->i0 = n;
    op->w0 = b->w->output;
    op->scale = b->w->scale[b->w->output];
    op->o = logits;
    op->epilogue = EPI_LOGITS;
    op->softcap = b->h->softcap;
    int best = plan_value_new(p, ROWS_OUT, VALUE_I32, 1, true, "argmax");
    op = plan_add(p, OP_ARGMAX, -1);
    op->i0 = logits;
    op->o = best;
    p->v_logits = logits;
    p->v_argmax = best;
}

/* Section 5.3: local layers turn every pair, global ones divide the frequency; divisors of 1e20 and more mean "does not
 * turn". */
static void frequencies(builder *b)
{
    const hparams *h = b->h;
    double f[2048];
    for (int is_local = 0; is_local < 2; is_local++) {
        int d = is_local ? h->head_dim_local : h->head_dim_global, n_rot = 0;
        double base = is_local ? h->rope_base_local : h->rope_base_global;
        for (int i = 0; i < d / 2; i++) {
            double divisor = 1;
            if (!is_local) divisor = b->w->rope_divisors ? (double)b->w->rope_divisors[i] : i < d / 8 ? 1 : 1e30;
            f[i] = divisor < 1e20 ? pow(base, -2.0 * i / d) / divisor : 0;
            if (f[i] != 0) n_rot = i + 1;
        }
        b->freqs[is_local] = plan_keep_freqs(b->p, f, d / 2);
        b->n_rot[is_local] = n_rot;
    }
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
    int x = embed(b, b->w->token_embd, sqrtf((float)h->n_embd), "x");
    if (b->o->keep_layers) capture(b, x, h->n_embd, "embd_out", -1);
    b->ple = h->n_embd_per_layer ? per_layer_inputs(b, x) : -1;
    for (int l = 0; l <= h->n_layers; l++) {
        if (l == drop) {
            x = gather(b, x, h->n_embd, "x_out", l);
            if (b->ple >= 0 && l < h->n_layers)
                b->ple = gather(b, b->ple, h->n_embd_per_layer * (uint32_t)h->n_layers, "ple_out", l);
            b->rows = ROWS_OUT;
        }
        if (l == h->n_layers) break;
        x = feed_forward(b, attention(b, x, l), l);
        if (is_captured(b->o, l)) {
            int c = capture(b, x, h->n_embd, "layer_out", l);
            if (!b->o->keep_layers) b->p->v_capture[b->p->n_captures++] = c;
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
    builder b = {.p = p, .h = h, .w = w, .o = o, .rows = ROWS_ALL, .ple = -1};
    p->suppress = mem_alloc((size_t)n_suppress * sizeof *suppress + 1);
    if (p->suppress) {
        if (n_suppress) memcpy(p->suppress, suppress, (size_t)n_suppress * sizeof *suppress);
        p->n_suppress = n_suppress;
        frequencies(&b);
        build(&b);
    } else {
        p->failed = true;
    }
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
