#include "model/weights.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

typedef struct binder {
    const gguf_file *f;
    const hparams *h;
    weights *w;
    facet_error *err;
} binder;

typedef enum weight_class { CLASS_VECTOR, CLASS_F32_MATRIX, CLASS_MATRIX, CLASS_ROWS } weight_class;

static facet_status check_shape(const binder *b, const gguf_tensor *t, uint64_t n0, uint64_t n1, uint64_t n2)
{
    if (t->ne[0] == n0 && t->ne[1] == n1 && t->ne[2] == n2 && t->ne[3] == 1) return FACET_OK;
    return error_set(b->err, FACET_ERR_SHAPE, "%s: tensor %s is [%llu, %llu, %llu], wanted [%llu, %llu, %llu]",
                     b->f->path, t->name, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                     (unsigned long long)t->ne[2], (unsigned long long)n0, (unsigned long long)n1,
                     (unsigned long long)n2);
}

static facet_status check_type(const binder *b, const gguf_tensor *t, weight_class c)
{
    const type_info *type = type_get(t->type);
    bool is_vector = c == CLASS_VECTOR || c == CLASS_F32_MATRIX;
    if (is_vector && t->type != TYPE_F32)
        return error_set(b->err, FACET_ERR_UNSUPPORTED, "%s: tensor %s is %s, wanted F32", b->f->path, t->name,
                         type->name);
    if (!type->decode)
        return error_set(b->err, FACET_ERR_UNSUPPORTED, "%s: tensor %s has type %s, which is no weight type",
                         b->f->path, t->name, type->name);
    if (!is_vector && t->ne[0] % 32)
        return error_set(b->err, FACET_ERR_UNSUPPORTED,
                         "%s: tensor %s has rows of %llu values, wanted a multiple of 32", b->f->path, t->name,
                         (unsigned long long)t->ne[0]);
    return FACET_OK;
}

/* Appends rows [row, row + n1) of a checked tensor. */
static facet_status append(binder *b, const gguf_tensor *t, weight_class c, uint64_t row, uint64_t n1, int *out)
{
    weights *w = b->w;
    if (w->n == w->cap) {
        int cap = w->cap ? w->cap * 2 : 256;
        weight *list = mem_resize_array(w->list, (size_t)cap, sizeof *list);
        if (list) w->list = list;
        float *scale = mem_resize_array(w->scale, (size_t)cap, sizeof *scale);
        if (scale) w->scale = scale;
        if (!list || !scale) return error_memory(b->err, "the weight table", (size_t)cap * sizeof *list);
        w->cap = cap;
    }
    const size_t row_bytes = type_bytes(type_get(t->type), t->ne[0]);
    weight *x = &w->list[w->n];
    *x = (weight){.type = (tensor_type)t->type,
                  .ne = {t->ne[0], n1, t->ne[2]},
                  .data = t->data + row * row_bytes,
                  .bytes = row_bytes * n1 * t->ne[2],
                  .map = b->f->shards ? &b->f->shards[t->shard] : NULL,
                  .is_rows = c == CLASS_ROWS,
                  .is_matrix = c == CLASS_MATRIX};
    snprintf(x->name, sizeof x->name, "%s", t->name);
    w->scale[w->n] = 1;
    *out = w->n++;
    return FACET_OK;
}

static facet_status bind_tensor(binder *b, weight_class c, bool required, uint64_t n0, uint64_t n1, uint64_t n2,
                                int *out, const char *name)
{
    *out = -1;
    const gguf_tensor *t = gguf_find_tensor(b->f, name);
    if (!t) return required ? error_set(b->err, FACET_ERR_FORMAT, "%s: missing tensor %s", b->f->path, name) : FACET_OK;
    FACET_TRY(check_shape(b, t, n0, n1, n2));
    FACET_TRY(check_type(b, t, c));
    return append(b, t, c, 0, n1, out);
}

/* NVFP4 files carry a second-level factor NAME.scale [1] beside NAME.weight. */
static facet_status bind_factor(binder *b, int index, const char *stem)
{
    if (index < 0 || b->w->list[index].ne[2] != 1) return FACET_OK;
    char name[80];
    snprintf(name, sizeof name, "%s.scale", stem);
    const gguf_tensor *t = gguf_find_tensor(b->f, name);
    if (!t) return FACET_OK;
    FACET_TRY(check_shape(b, t, 1, 1, 1));
    FACET_TRY(check_type(b, t, CLASS_VECTOR));
    memcpy(&b->w->scale[index], t->data, sizeof(float));
    if (!isfinite(b->w->scale[index]))
        return error_set(b->err, FACET_ERR_FORMAT, "%s: tensor %s is not finite", b->f->path, name);
    return FACET_OK;
}

static facet_status matrix(binder *b, bool required, uint64_t n_in, uint64_t n_out, uint64_t n_experts, int *out,
                           int layer, const char *stem)
{
    char full[72], name[80];
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.%s", layer, stem);
    else
        snprintf(full, sizeof full, "%s", stem);
    snprintf(name, sizeof name, "%s.weight", full);
    FACET_TRY(bind_tensor(b, CLASS_MATRIX, required, n_in, n_out, n_experts, out, name));
    return bind_factor(b, *out, full);
}

static facet_status vector(binder *b, bool required, uint64_t n, int *out, int layer, const char *suffix)
{
    char name[72];
    snprintf(name, sizeof name, "blk.%d.%s", layer, suffix);
    return bind_tensor(b, CLASS_VECTOR, required, n, 1, 1, out, name);
}

/* attn_qkv holds the rows of Q, K and V, in this order; each becomes a weight of its own. */
static facet_status bind_fused_qkv(binder *b, const gguf_tensor *t, uint64_t n_q, uint64_t n_kv, layer_weights *y)
{
    FACET_TRY(check_shape(b, t, b->h->n_embd, n_q + 2 * n_kv, 1));
    FACET_TRY(check_type(b, t, CLASS_MATRIX));
    FACET_TRY(append(b, t, CLASS_MATRIX, 0, n_q, &y->q));
    FACET_TRY(append(b, t, CLASS_MATRIX, n_q, n_kv, &y->k));
    return append(b, t, CLASS_MATRIX, n_q + n_kv, n_kv, &y->v);
}

static facet_status bind_attention(binder *b, int l, layer_weights *y)
{
    const layer_hparams *p = &b->h->layers[l];
    const uint64_t n_embd = b->h->n_embd, n_q = (uint64_t)b->h->n_heads * (uint64_t)p->head_dim;
    const uint64_t n_kv = (uint64_t)p->n_kv_heads * (uint64_t)p->head_dim;
    const bool owns_kv = p->kv_source == l;
    FACET_TRY(vector(b, true, n_embd, &y->attn_norm, l, "attn_norm.weight"));
    char fused[64];
    snprintf(fused, sizeof fused, "blk.%d.attn_qkv.weight", l);
    const gguf_tensor *qkv = gguf_find_tensor(b->f, fused);
    y->k = y->v = -1;
    if (qkv) {
        FACET_TRY(bind_fused_qkv(b, qkv, n_q, n_kv, y));
    } else {
        FACET_TRY(matrix(b, true, n_embd, n_q, 1, &y->q, l, "attn_q"));
        if (owns_kv) FACET_TRY(matrix(b, true, n_embd, n_kv, 1, &y->k, l, "attn_k"));
        if (owns_kv) FACET_TRY(matrix(b, p->is_local, n_embd, n_kv, 1, &y->v, l, "attn_v"));
    }
    y->k_norm = -1;
    FACET_TRY(vector(b, true, (uint64_t)p->head_dim, &y->q_norm, l, "attn_q_norm.weight"));
    if (owns_kv) FACET_TRY(vector(b, true, (uint64_t)p->head_dim, &y->k_norm, l, "attn_k_norm.weight"));
    FACET_TRY(matrix(b, true, n_q, n_embd, 1, &y->attn_out, l, "attn_output"));
    return vector(b, true, n_embd, &y->post_attn_norm, l, "post_attention_norm.weight");
}

static facet_status bind_experts(binder *b, int l, layer_weights *y)
{
    const hparams *h = b->h;
    const uint64_t n_embd = h->n_embd, n_ff = h->n_ff_expert, n = (uint64_t)h->n_experts;
    char name[64];
    snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", l);
    y->router = y->router_scale = y->expert_gate = y->expert_up = y->expert_gate_scale = y->expert_down =
        y->expert_down_scale = -1;
    y->expert_norm = y->post_dense_norm = y->post_expert_norm = -1;
    if (!n) return FACET_OK;
    FACET_TRY(bind_tensor(b, CLASS_F32_MATRIX, false, n_embd, n, 1, &y->router, name));
    if (y->router < 0) return FACET_OK; /* a dense layer of a mixed model */
    FACET_TRY(vector(b, true, n_embd, &y->router_scale, l, "ffn_gate_inp.scale"));
    FACET_TRY(vector(b, true, n_embd, &y->expert_norm, l, "pre_ffw_norm_2.weight"));
    FACET_TRY(vector(b, true, n_embd, &y->post_dense_norm, l, "post_ffw_norm_1.weight"));
    FACET_TRY(vector(b, true, n_embd, &y->post_expert_norm, l, "post_ffw_norm_2.weight"));
    FACET_TRY(matrix(b, false, n_embd, 2 * n_ff, n, &y->expert_gate, l, "ffn_gate_up_exps"));
    if (y->expert_gate < 0) {
        FACET_TRY(matrix(b, true, n_embd, n_ff, n, &y->expert_gate, l, "ffn_gate_exps"));
        FACET_TRY(matrix(b, true, n_embd, n_ff, n, &y->expert_up, l, "ffn_up_exps"));
    } else {
        FACET_TRY(vector(b, false, n, &y->expert_gate_scale, l, "ffn_gate_up_exps.scale"));
    }
    FACET_TRY(matrix(b, true, n_ff, n_embd, n, &y->expert_down, l, "ffn_down_exps"));
    return vector(b, false, n, &y->expert_down_scale, l, "ffn_down_exps.scale");
}

static facet_status bind_feed_forward(binder *b, int l, layer_weights *y)
{
    const uint64_t n_embd = b->h->n_embd, n_ff = b->h->layers[l].n_ff;
    FACET_TRY(vector(b, true, n_embd, &y->ffn_norm, l, "ffn_norm.weight"));
    FACET_TRY(matrix(b, true, n_embd, n_ff, 1, &y->gate, l, "ffn_gate"));
    FACET_TRY(matrix(b, true, n_embd, n_ff, 1, &y->up, l, "ffn_up"));
    FACET_TRY(matrix(b, true, n_ff, n_embd, 1, &y->down, l, "ffn_down"));
    return vector(b, true, n_embd, &y->post_ffn_norm, l, "post_ffw_norm.weight");
}

static facet_status bind_layer_extras(binder *b, int l, layer_weights *y)
{
    const uint64_t n_embd = b->h->n_embd, n_ple = b->h->n_embd_per_layer;
    y->ple_gate = y->ple_proj = y->ple_norm = -1;
    if (n_ple) {
        FACET_TRY(matrix(b, true, n_embd, n_ple, 1, &y->ple_gate, l, "inp_gate"));
        FACET_TRY(matrix(b, true, n_ple, n_embd, 1, &y->ple_proj, l, "proj"));
        FACET_TRY(vector(b, true, n_embd, &y->ple_norm, l, "post_norm.weight"));
    }
    int scale;
    FACET_TRY(vector(b, false, 1, &scale, l, "layer_output_scale.weight"));
    y->out_scale = 1;
    if (scale >= 0) memcpy(&y->out_scale, b->w->list[scale].data, sizeof(float));
    if (!isfinite(y->out_scale))
        return error_set(b->err, FACET_ERR_FORMAT, "%s: tensor blk.%d.layer_output_scale.weight is not finite",
                         b->f->path, l);
    return FACET_OK;
}

static facet_status bind_global(binder *b)
{
    const hparams *h = b->h;
    weights *w = b->w;
    const uint64_t n_ple = (uint64_t)h->n_embd_per_layer * (uint64_t)h->n_layers;
    FACET_TRY(bind_tensor(b, CLASS_ROWS, true, h->n_embd, h->n_vocab, 1, &w->token_embd, "token_embd.weight"));
    FACET_TRY(bind_tensor(b, CLASS_MATRIX, false, h->n_embd, h->n_vocab, 1, &w->output, "output.weight"));
    if (w->output < 0) {
        w->list[w->token_embd].is_matrix = true;
        w->output = w->token_embd;
    }
    FACET_TRY(bind_factor(b, w->output, w->output == w->token_embd ? "token_embd" : "output"));
    FACET_TRY(bind_tensor(b, CLASS_VECTOR, true, h->n_embd, 1, 1, &w->output_norm, "output_norm.weight"));
    w->ple_embd = w->ple_proj = w->ple_proj_norm = -1;
    if (n_ple) {
        FACET_TRY(bind_tensor(b, CLASS_ROWS, true, n_ple, h->n_vocab, 1, &w->ple_embd, "per_layer_token_embd.weight"));
        FACET_TRY(matrix(b, true, h->n_embd, n_ple, 1, &w->ple_proj, -1, "per_layer_model_proj"));
        FACET_TRY(bind_tensor(b, CLASS_VECTOR, true, h->n_embd_per_layer, 1, 1, &w->ple_proj_norm,
                              "per_layer_proj_norm.weight"));
    }
    int rope;
    FACET_TRY(bind_tensor(b, CLASS_VECTOR, false, (uint64_t)h->head_dim_global / 2, 1, 1, &rope, "rope_freqs.weight"));
    w->rope_divisors = rope < 0 ? NULL : w->list[rope].data;
    return FACET_OK;
}

static facet_status bind_all(binder *b)
{
    FACET_TRY(bind_global(b));
    for (int l = 0; l < b->h->n_layers; l++) {
        layer_weights *y = &b->w->layers[l];
        FACET_TRY(bind_attention(b, l, y));
        FACET_TRY(bind_feed_forward(b, l, y));
        FACET_TRY(bind_experts(b, l, y));
        FACET_TRY(bind_layer_extras(b, l, y));
    }
    return FACET_OK;
}

facet_status weights_bind(const gguf_file *f, const hparams *h, weights *out, facet_error *err)
{
    weights w = {0};
    w.layers = mem_calloc((size_t)h->n_layers, sizeof *w.layers);
    if (!w.layers) return error_memory(err, "the layer weights", (size_t)h->n_layers * sizeof *w.layers);
    binder b = {f, h, &w, err};
    facet_status status = bind_all(&b);
    if (status != FACET_OK) {
        weights_free(&w);
        return status;
    }
    *out = w;
    return FACET_OK;
}

void weights_free(weights *w)
{
    mem_free(w->list);
    mem_free(w->scale);
    mem_free(w->layers);
    *w = (weights){0};
}
