/* dflash.c: the DFlash drafter (arXiv:2602.06036 for the method). With F(p) the residual streams of the target after
 * its tapped layers, side by side, and e = embd_scale * token_embd[token] of the target:
 *
 *   context   g = rms(fc F(p); hidden_norm); per layer K = rope(rms per head (attn_k g)), V = attn_v g, at slot p
 *   block     per layer: a = rms(x; attn_norm), Q, K, V of a as above (Q with attn_q and its norm),
 *                        r = x + attn_output attention(Q; context and block),
 *                        x = r + ffn_down(act(ffn_gate f) * (ffn_up f)), f = rms(r; ffn_norm)
 *             logits = softcap(output rms(x; output_norm)), output being the target's head */
#include "model/dflash.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "compute/batch.h"
#include "model/bind.h"
#include "model/graph.h"
#include "model/keys.h"

/* The two dialects of files. */
typedef struct dialect {
    const char *arch;
    const char *block_size, *taps, *target_depth; /* keys */
    int first_layer;                              /* the number by which the tap "after layer 0" is called */
    const char *fc, *hidden_norm;                 /* tensors */
} dialect;

static const dialect dialects[] = {
    {"dflash", "block_size", "target_layers", "target_layer_count", 1, "fc", "enc.output_norm.weight"},
    {"gemma4-dflash-draft", "dflash.block_size", "dflash.target_layer_ids", "dflash.n_target_layers", 0, "dflash.fc",
     "dflash.hidden_norm.weight"},
};

static const dialect *find_dialect(gguf_str arch)
{
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
        if (arch.n == strlen(dialects[i].arch) && memcmp(arch.s, dialects[i].arch, arch.n) == 0) return &dialects[i];
    return NULL;
}

bool dflash_is_architecture(gguf_str arch)
{
    return find_dialect(arch) != NULL;
}

static bool is_community(const dialect *d)
{
    return d == &dialects[1];
}

bool block_mask_by_name(const char *name, block_mask *out)
{
    static const char *const names[] = {[BLOCK_MASK_AUTO] = "auto",
                                        [BLOCK_MASK_ALL_BIDIR] = "all_bidir",
                                        [BLOCK_MASK_SWA_CAUSAL] = "swa_causal",
                                        [BLOCK_MASK_ALL_CAUSAL] = "all_causal"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return *out = (block_mask)i, true;
    return false;
}

/* ---- hyperparameters ---- */

/* Keys of successors: their models need more than this plan. */
static facet_status refuse_successors(const key_reader *k)
{
    static const char *const kinds[] = {"selector_", "conv_", "markov_"};
    const size_t n = strlen(k->prefix);
    for (uint64_t i = 0; i < k->f->n_kv; i++) {
        const gguf_str key = k->f->kv[i].key;
        if (key.n <= n + 1 || memcmp(key.s, k->prefix, n) != 0 || key.s[n] != '.') continue;
        for (size_t j = 0; j < sizeof kinds / sizeof *kinds; j++)
            if (key.n - n - 1 >= strlen(kinds[j]) && memcmp(key.s + n + 1, kinds[j], strlen(kinds[j])) == 0)
                return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %.*s: this is a successor of DFlash", k->f->path,
                                 (int)key.n, key.s);
    }
    static const char *const flags[] = {"sample_from_anchor", "has_confidence_head"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool is_set = false;
        FACET_TRY(keys_bool(k, flags[i], false, &is_set));
        if (is_set)
            return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s.%s is set: this is a successor of DFlash",
                             k->f->path, k->prefix, flags[i]);
    }
    return FACET_OK;
}

static facet_status read_windows(const key_reader *k, const dialect *d, dflash_hparams *p)
{
    int64_t v[DRAFTER_MAX_LAYERS];
    FACET_TRY(keys_int(k, "attention.sliding_window", false, 1, 1 << 24, &p->window));
    const bool has_pattern = keys_has(k, "attention.sliding_window_pattern");
    if (has_pattern) FACET_TRY(keys_per_layer(k, "attention.sliding_window_pattern", 0, 1, p->n_layers, v));
    for (int l = 0; l < p->n_layers; l++) {
        const bool by_dialect = p->window && is_community(d) && l < p->n_layers - 1; /* all but the last */
        p->layer[l].is_local = has_pattern ? v[l] != 0 : by_dialect;
        if (p->layer[l].is_local && !p->window)
            return error_set(k->err, FACET_ERR_FORMAT,
                             "%s: %s.attention.sliding_window_pattern: layer %d is local, but there is no "
                             "attention.sliding_window",
                             k->f->path, k->prefix, l);
    }
    if (p->window && !has_pattern && !is_community(d))
        return error_set(k->err, FACET_ERR_FORMAT,
                         "%s: %s.attention.sliding_window is %d, but there is no attention.sliding_window_pattern",
                         k->f->path, k->prefix, p->window);
    return FACET_OK;
}

static facet_status read_layers(const key_reader *k, dflash_hparams *p)
{
    int64_t v[DRAFTER_MAX_LAYERS];
    FACET_TRY(keys_per_layer(k, "feed_forward_length", 32, 1 << 20, p->n_layers, v));
    for (int l = 0; l < p->n_layers; l++) p->layer[l].n_ff = (uint32_t)v[l];
    FACET_TRY(keys_per_layer(k, "attention.head_count_kv", 1, p->n_heads, p->n_layers, v));
    for (int l = 0; l < p->n_layers; l++) {
        p->layer[l].n_kv_heads = (int)v[l];
        if (p->n_heads % p->layer[l].n_kv_heads)
            return error_set(k->err, FACET_ERR_FORMAT,
                             "%s: %s.attention.head_count_kv of layer %d is %d, which does not divide head_count %d",
                             k->f->path, k->prefix, l, p->layer[l].n_kv_heads, p->n_heads);
    }
    return FACET_OK;
}

/* Raw numbers of target layers, whatever the dialect counts from. */
static facet_status read_taps(const key_reader *k, const dialect *d, const hparams *h, dflash_hparams *p)
{
    char full[KEY_BYTES];
    const gguf_kv *kv = gguf_find(k->f, keys_full(k, d->taps, full));
    if (!kv) return error_set(k->err, FACET_ERR_FORMAT, "%s: missing key %s", k->f->path, full);
    if (kv->type != GGUF_ARRAY || kv->count < 1 || kv->count > MAX_CAPTURES)
        return error_set(k->err, FACET_ERR_FORMAT, "%s: %s: wanted a list of 1 to %d layers", k->f->path, full,
                         MAX_CAPTURES);
    p->n_taps = (int)kv->count;
    for (int i = 0; i < p->n_taps; i++) {
        int64_t v = -1;
        const int64_t low = d->first_layer + (i ? p->tap[i - 1] + 1 : 0), high = d->first_layer + h->n_layers - 1;
        if (!gguf_array_i64(kv, (uint64_t)i, &v) || v < low || v > high)
            return error_set(k->err, FACET_ERR_FORMAT,
                             "%s: %s[%d] is %lld; wanted rising numbers from %d to %lld, the target's layers",
                             k->f->path, full, i, (long long)v, d->first_layer, (long long)high);
        p->tap[i] = (int)(v - d->first_layer);
    }
    return FACET_OK;
}

static facet_status read_activation(const key_reader *k, dflash_hparams *p)
{
    static const char *const names[] = {"silu", "gelu", "gelu_pytorch_tanh", "gelu_tanh"};
    char full[KEY_BYTES];
    gguf_str s = {"silu", 4};
    FACET_TRY(gguf_get_str(k->f, keys_full(k, "hidden_activation", full), false, &s, k->err));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (s.n != strlen(names[i]) || memcmp(s.s, names[i], s.n) != 0) continue;
        p->is_gelu = i > 0;
        return FACET_OK;
    }
    return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s is '%.*s', wanted silu or gelu", k->f->path, full,
                     (int)(s.n < 40 ? s.n : 40), s.s);
}

/* What generic conversions leave out follows the target. */
static facet_status read_scales(const key_reader *k, const hparams *h, dflash_hparams *p)
{
    float logit_scale = 1;
    p->attn_scale = 1.0f / sqrtf((float)p->head_dim);
    p->embd_scale = sqrtf((float)h->n_embd);
    p->softcap = h->softcap;
    FACET_TRY(keys_f32(k, "attention.scale", false, &p->attn_scale));
    FACET_TRY(keys_f32(k, "embedding_scale", false, &p->embd_scale));
    FACET_TRY(keys_f32(k, "final_logit_softcapping", false, &p->softcap));
    FACET_TRY(keys_f32(k, "logit_scale", false, &logit_scale));
    if (logit_scale != 1.0f)
        return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s.logit_scale is %g, wanted 1", k->f->path, k->prefix,
                         (double)logit_scale);
    if (!keys_has(k, "embedding_scale"))
        log_line(FACET_LOG_INFO, "%s: no %s.embedding_scale; the target's %g is used", k->f->path, k->prefix,
                 (double)p->embd_scale);
    if (!keys_has(k, "final_logit_softcapping"))
        log_line(FACET_LOG_INFO, "%s: no %s.final_logit_softcapping; the target's %g is used", k->f->path, k->prefix,
                 (double)p->softcap);
    return FACET_OK;
}

static facet_status read_mask(const key_reader *k, const dialect *d, const hparams *h, dflash_hparams *p)
{
    int mask = -1;
    const key_reader shared = {k->f, "tokenizer.ggml", k->err};
    FACET_TRY(is_community(d) ? keys_int(k, "dflash.mask_token_id", true, 0, (int64_t)h->n_vocab - 1, &mask)
                              : keys_int(&shared, "mask_token_id", true, 0, (int64_t)h->n_vocab - 1, &mask));
    p->mask_token = mask;
    log_line(FACET_LOG_INFO, "%s: mask token %d, blocks of up to %d", k->f->path, mask, p->block_size);
    if (!keys_has(k, "attention.causal")) return FACET_OK;
    bool is_causal = false;
    FACET_TRY(keys_bool(k, "attention.causal", true, &is_causal));
    p->causal = is_causal ? DFLASH_CAUSAL_YES : DFLASH_CAUSAL_NO;
    return FACET_OK;
}

static facet_status check_target(const key_reader *k, const dialect *d, const hparams *h, const dflash_hparams *p)
{
    if (p->n_embd != h->n_embd)
        return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s.embedding_length is %u, the target's hidden size is %u",
                         k->f->path, k->prefix, p->n_embd, h->n_embd);
    int n_layers = h->n_layers;
    FACET_TRY(keys_int(k, d->target_depth, false, 1, MAX_LAYERS, &n_layers));
    if (n_layers != h->n_layers)
        return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s.%s is %d, the target has %d layers", k->f->path,
                         k->prefix, d->target_depth, n_layers, h->n_layers);
    uint32_t n_vocab = h->n_vocab;
    FACET_TRY(keys_u32(k, "vocab_size", false, 1, 1 << 24, &n_vocab));
    if (n_vocab != h->n_vocab)
        return error_set(k->err, FACET_ERR_UNSUPPORTED, "%s: %s.vocab_size is %u, the target has %u tokens", k->f->path,
                         k->prefix, n_vocab, h->n_vocab);
    return FACET_OK;
}

static facet_status read_hparams(const key_reader *k, const dialect *d, const hparams *h, dflash_hparams *p)
{
    float base = 0;
    FACET_TRY(refuse_successors(k));
    FACET_TRY(keys_int(k, "block_count", true, 1, DRAFTER_MAX_LAYERS, &p->n_layers));
    FACET_TRY(keys_u32(k, "embedding_length", true, 32, 1 << 20, &p->n_embd));
    FACET_TRY(check_target(k, d, h, p));
    FACET_TRY(keys_int(k, "attention.head_count", true, 1, 1024, &p->n_heads));
    FACET_TRY(keys_head_dim(k, "attention.key_length", "attention.value_length", &p->head_dim));
    FACET_TRY(keys_f32(k, "attention.layer_norm_rms_epsilon", true, &p->norm_eps));
    FACET_TRY(keys_f32(k, "rope.freq_base", true, &base));
    if (!(base > 1))
        return error_set(k->err, FACET_ERR_FORMAT, "%s: %s.rope.freq_base is %g, wanted above 1", k->f->path, k->prefix,
                         (double)base);
    p->rope_base = (double)base;
    FACET_TRY(keys_int(k, d->block_size, true, 2, BATCH_MAX_TREE, &p->block_size));
    FACET_TRY(read_taps(k, d, h, p));
    FACET_TRY(read_windows(k, d, p));
    FACET_TRY(read_layers(k, p));
    FACET_TRY(read_activation(k, p));
    FACET_TRY(read_scales(k, h, p));
    return read_mask(k, d, h, p);
}

/* ---- tensors ---- */

static facet_status bind_layer(const binder *b, const dflash_hparams *p, int l, layer_weights *w)
{
    const uint64_t n_embd = p->n_embd, d = (uint64_t)p->head_dim, n_q = (uint64_t)p->n_heads * d,
                   n_kv = (uint64_t)p->layer[l].n_kv_heads * d, n_ff = p->layer[l].n_ff;
    FACET_TRY(bind_vector(b, true, n_embd, &w->attn_norm, l, "attn_norm.weight"));
    FACET_TRY(bind_matrix(b, true, n_embd, n_q, 1, &w->q, l, "attn_q"));
    FACET_TRY(bind_matrix(b, true, n_embd, n_kv, 1, &w->k, l, "attn_k"));
    FACET_TRY(bind_matrix(b, true, n_embd, n_kv, 1, &w->v, l, "attn_v"));
    FACET_TRY(bind_vector(b, true, d, &w->q_norm, l, "attn_q_norm.weight"));
    FACET_TRY(bind_vector(b, true, d, &w->k_norm, l, "attn_k_norm.weight"));
    FACET_TRY(bind_matrix(b, true, n_q, n_embd, 1, &w->attn_out, l, "attn_output"));
    FACET_TRY(bind_vector(b, true, n_embd, &w->ffn_norm, l, "ffn_norm.weight"));
    FACET_TRY(bind_matrix(b, true, n_embd, n_ff, 1, &w->gate, l, "ffn_gate"));
    FACET_TRY(bind_matrix(b, true, n_embd, n_ff, 1, &w->up, l, "ffn_up"));
    return bind_matrix(b, true, n_ff, n_embd, 1, &w->down, l, "ffn_down");
}

static facet_status bind_all(const binder *b, const dialect *d, const hparams *h, dflash_hparams *p)
{
    weights *w = b->w;
    const uint64_t n_embd = p->n_embd;
    FACET_TRY(bind_matrix(b, true, n_embd * (uint64_t)p->n_taps, n_embd, 1, &p->fc, -1, d->fc));
    FACET_TRY(bind_tensor(b, CLASS_VECTOR, true, n_embd, 1, 1, &p->hidden_norm, d->hidden_norm));
    FACET_TRY(bind_tensor(b, CLASS_VECTOR, true, n_embd, 1, 1, &w->output_norm, "output_norm.weight"));
    FACET_TRY(bind_tensor(b, CLASS_ROWS, false, n_embd, h->n_vocab, 1, &w->token_embd, "token_embd.weight"));
    FACET_TRY(bind_matrix(b, false, n_embd, h->n_vocab, 1, &w->output, -1, "output"));
    for (int l = 0; l < p->n_layers; l++) FACET_TRY(bind_layer(b, p, l, &w->layers[l]));
    return FACET_OK;
}

facet_status dflash_read(drafter *d, const facet_model *target, facet_error *err)
{
    gguf_str arch = {0};
    FACET_TRY(gguf_get_str(d->file, "general.architecture", true, &arch, err));
    const dialect *form = find_dialect(arch);
    const key_reader k = {d->file, form->arch, err};
    FACET_TRY(read_hparams(&k, form, &target->h, &d->dflash));
    d->w.layers = mem_calloc((size_t)d->dflash.n_layers, sizeof *d->w.layers);
    if (!d->w.layers) return error_memory(err, "the layer weights", (size_t)d->dflash.n_layers * sizeof *d->w.layers);
    const binder b = {d->file, &d->w, err};
    return bind_all(&b, form, &target->h, &d->dflash);
}

/* ---- plans ---- */

typedef struct builder {
    graph g;      /* the drafter's weights */
    graph target; /* the target's, for what the drafter shares */
    const drafter *d;
    const dflash_hparams *p;
    rotation rotation;
    block_mask mask;
} builder;

static facet_status begin(const char *name, const drafter *d, const facet_model *target, builder *b, facet_error *err)
{
    const dflash_hparams *h = &d->dflash;
    *b = (builder){.d = d, .p = h};
    b->g = (graph){.w = &d->w, .first = d->first_weight, .eps = h->norm_eps, .rows = ROWS_ALL};
    b->target = (graph){.w = &target->w, .eps = h->norm_eps, .rows = ROWS_ALL};
    FACET_TRY(plan_new(name, &b->g.p, err));
    b->target.p = b->g.p;
    b->rotation = graph_rotation(&b->g, h->head_dim, h->rope_base, NULL, h->head_dim / 2);
    return FACET_OK;
}

static facet_status finish(plan *p, plan **out, facet_error *err)
{
    facet_status status = plan_finish(p, err);
    if (status == FACET_OK)
        *out = p;
    else
        plan_free(p);
    return status;
}

static void set_heads(const builder *b, plan_op *op, int l)
{
    graph_rotate(op, &b->rotation);
    op->n_heads = b->p->n_heads;
    op->n_kv_heads = b->p->layer[l].n_kv_heads;
    op->eps = b->p->norm_eps;
    op->kv_layer = b->d->first_kv_layer + l;
}

/* K and V of rows x [n_embd] into the cache of a layer; V gets no norm. */
static void write_kv(const builder *b, int x, int l)
{
    const graph *g = &b->g;
    const layer_weights *w = &g->w->layers[l];
    int k = graph_linear(g, x, w->k, "k", l);
    int v = graph_linear(g, x, w->v, "v", l);
    plan_op *op = plan_add(g->p, OP_KV_WRITE, l);
    set_heads(b, op, l);
    op->i0 = k;
    op->i1 = v;
    op->w0 = graph_weight(g, w->k_norm);
}

facet_status dflash_inject_plan(const drafter *d, const facet_model *target, plan **out, facet_error *err)
{
    builder b;
    FACET_TRY(begin("dflash_inject", d, target, &b, err));
    const uint32_t n_embd = b.p->n_embd;
    plan *p = b.g.p;
    p->v_in_hidden = plan_input_new(p, ROWS_ALL, VALUE_F32, n_embd * (uint32_t)b.p->n_taps, false, "features");
    int x = graph_linear(&b.g, p->v_in_hidden, b.p->fc, "fused", -1);
    x = graph_norm(&b.g, x, b.p->hidden_norm, n_embd, "context", -1);
    for (int l = 0; l < b.p->n_layers; l++) write_kv(&b, x, l);
    return finish(p, out, err);
}

static bool is_causal(const builder *b, int l)
{
    const bool is_local = b->p->layer[l].is_local;
    switch (b->mask) {
    case BLOCK_MASK_ALL_BIDIR: return false;
    case BLOCK_MASK_ALL_CAUSAL: return true;
    case BLOCK_MASK_SWA_CAUSAL: return is_local;
    case BLOCK_MASK_AUTO: break;
    }
    return b->p->causal == DFLASH_CAUSAL_UNSAID ? is_local : b->p->causal == DFLASH_CAUSAL_YES;
}

static int attention(const builder *b, int x, int l)
{
    const graph *g = &b->g;
    const layer_weights *w = &g->w->layers[l];
    const dflash_hparams *p = b->p;
    const uint32_t n_q = (uint32_t)(p->n_heads * p->head_dim);
    int a = graph_norm(g, x, w->attn_norm, p->n_embd, "attn_norm", l);
    int q = graph_linear(g, a, w->q, "q", l);
    int qr = graph_value(g, n_q, "q_rope", l);
    plan_op *op = plan_add(g->p, OP_ROPE_Q, l);
    set_heads(b, op, l);
    op->i0 = q;
    op->w0 = graph_weight(g, w->q_norm);
    op->o = qr;
    write_kv(b, a, l);
    int o = graph_value(g, n_q, "attn", l);
    op = plan_add(g->p, OP_ATTN, l);
    set_heads(b, op, l);
    op->i0 = qr;
    op->o = o;
    op->attn_scale = p->attn_scale;
    op->window = p->layer[l].is_local && p->window < b->d->draft_ctx ? p->window : b->d->draft_ctx;
    op->sight = is_causal(b, l) ? SIGHT_CAUSAL : SIGHT_BLOCK;
    int out = graph_linear(g, o, w->attn_out, "attn_out", l);
    return graph_add(g, x, out, 1.0f, p->n_embd, "r", l);
}

static int feed_forward(const builder *b, int r, int l)
{
    const graph *g = &b->g;
    const layer_weights *w = &g->w->layers[l];
    const uint32_t n_embd = b->p->n_embd;
    int f = graph_norm(g, r, w->ffn_norm, n_embd, "ffn_norm", l);
    int h = graph_gated(g, f, w->gate, w->up, b->p->is_gelu ? ACT_GELU : ACT_SILU, "ffn_gated", l);
    int d = graph_linear(g, h, w->down, "ffn_down", l);
    return graph_add(g, r, d, 1.0f, n_embd, "x", l);
}

static void build_block(builder *b, const dflash_options *o)
{
    const graph *g = &b->g;
    const uint32_t n_embd = b->p->n_embd;
    const graph *embd = g->w->token_embd < 0 ? &b->target : g;
    int x = graph_embed(embd, embd->w->token_embd, -1, b->p->embd_scale, "x");
    for (int l = 0; l < b->p->n_layers; l++) x = feed_forward(b, attention(b, x, l), l);
    x = graph_gather(g, x, n_embd, "x_out", -1);
    b->g.rows = b->target.rows = ROWS_OUT;
    int y = graph_norm(g, x, g->w->output_norm, n_embd, "y", -1);
    const graph *head = g->w->output < 0 ? &b->target : g;
    int logits = graph_logits(head, y, head->w->output, b->p->softcap, o->wants_logits);
    graph_top_k(g, logits, o->top_k, o->temp);
}

facet_status dflash_block_plan(const drafter *d, const facet_model *target, const dflash_options *o, plan **out,
                               facet_error *err)
{
    if (o->top_k < 1 || o->top_k > PLAN_MAX_TOPK)
        return error_set(err, FACET_ERR_ARG, "top_k of the drafter is %d, wanted 1 to %d", o->top_k, PLAN_MAX_TOPK);
    if (!(o->temp >= 1e-3f) || o->temp > 1e3f)
        return error_set(err, FACET_ERR_ARG, "temperature of the draft is %g, wanted 0.001 to 1000", (double)o->temp);
    builder b;
    FACET_TRY(begin("dflash_block", d, target, &b, err));
    b.mask = o->mask;
    int n_suppress;
    const int32_t *suppress = tokenizer_suppressed(target->tok, &n_suppress);
    plan_keep_suppress(b.g.p, suppress, n_suppress);
    build_block(&b, o);
    return finish(b.g.p, out, err);
}
